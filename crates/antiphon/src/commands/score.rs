//! `antiphon score`: how probable given targets are.

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use antiphon_core::{Error, Result, TokenId};
use serde::Serialize;

use super::lines::{Input, Line};
use super::target::Target;
use super::{Ending, OnDevice, RunsFolder, Threads};
use crate::device::start_threads;
use crate::experiment::Searcher;

/// How many batches a thread are scored together.
const TOGETHER: usize = 16;

/// Score pairs of a file or of the standard input: how probable the model finds each target
///
/// A line of `source<TAB>target` gives a line: the natural logarithm of the target's probability, its end included. With
/// --json each is {"source": …, "target": …, "log_prob": …, "tokens": […], "log_probs": […]}, a number for each token.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A run's folder, a model file, or a config that has been run
    #[arg(value_name = "RUN|MODEL|CONFIG")]
    what: PathBuf,
    #[command(flatten)]
    input: Input,
    /// Write JSON lines
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    device: OnDevice,
    #[command(flatten)]
    runs: RunsFolder,
}

/// A line of JSON.
#[derive(Serialize)]
struct Scored<'a> {
    source: &'a str,
    target: &'a str,
    log_prob: f64,
    tokens: Vec<String>,
    log_probs: &'a [f32],
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        start_threads(self.threads.threads.map(usize::from))?;
        let saved = Target::find(&self.what, &[], &self.runs.runs())?.open(self.device.device)?;
        let (model, rows) = (saved.model.for_search(), saved.config.evaluate.rows);
        let searcher = Searcher::new(&model, &saved.tokenizers, &saved.config.search, rows)?;
        let (incoming, name, is_stream) = (self.input.open()?, self.input.name(), self.input.file().is_none());
        let most = rows * TOGETHER * rayon::current_num_threads();
        let mut out = io::stdout();
        loop {
            let lines = incoming.batch(most, is_stream).map_err(|e| Error::io(name, "read", &e))?;
            if lines.is_empty() {
                return Ok(Ending::Done);
            }
            let texts = lines.into_iter().map(pair).collect::<Result<Vec<_>>>().map_err(|e| e.in_file(name))?;
            let encode = |(number, source, target): &(u64, String, String)| {
                let ids = || Ok((searcher.encode(source)?, searcher.encode_target(target)?));
                ids().map_err(|e: Error| e.at(format_args!("line {number}")).in_file(name))
            };
            let pairs = texts.iter().map(encode).collect::<Result<Vec<_>>>()?;
            let scores = searcher.score(&pairs).map_err(|e| e.in_file(name))?;
            let mut text = String::new();
            for (((_, source, target), (_, ids)), log_probs) in texts.iter().zip(&pairs).zip(&scores) {
                let log_prob: f64 = log_probs.iter().map(|&x| f64::from(x)).sum();
                let token = |&id: &TokenId| saved.tokenizers.target().token(id).unwrap_or_default();
                text += &match self.json {
                    false => log_prob.to_string(),
                    true => {
                        let tokens = ids.iter().map(token).collect();
                        serde_json::to_string(&Scored { source, target, log_prob, tokens, log_probs })
                            .map_err(|e| Error::new(e.to_string()))?
                    }
                };
                text.push('\n');
            }
            match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                // Nobody reads any more.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Ending::Done),
                written => written.map_err(|e| Error::io("standard output", "write", &e))?,
            }
        }
    }
}

/// A line's number, source and target.
fn pair(Line { number, text }: Line) -> Result<(u64, String, String)> {
    let fault = |message: String| Error::new(message).at(format_args!("line {number}"));
    let text = text.map_err(|error| fault(error.to_string()))?;
    match text.split_once('\t') {
        Some((source, target)) if !source.trim().is_empty() => Ok((number, source.into(), target.into())),
        _ => Err(fault("write `source<TAB>target`".into())),
    }
}
