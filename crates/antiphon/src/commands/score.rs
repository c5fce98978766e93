//! `antiphon score`: how probable given targets are.

use std::io::{self, Write};
use std::path::PathBuf;

use antiphon_core::{Error, Place, Result, TokenId};
use antiphon_data::corpus::split_pair;
use antiphon_data::{CorpusConfig, Fault};
use serde::Serialize;

use super::lines::{Input, Line};
use super::target::Target;
use super::{Ending, OnDevice, RunsFolder, Sets, Threads};
use crate::device::start_threads;
use crate::experiment::{Searcher, unknown};
use crate::output::{json_line, tell, unwritten};

/// How many batches a thread are scored together.
const TOGETHER: usize = 16;

/// Score pairs or texts of a file or of the standard input: how probable the model finds each target
///
/// A line of `source<TAB>target`, or of text for a language model, gives a line: the natural logarithm of the target's
/// probability, its end included. Each line is scored alone; `evaluate --input` reads running text on. With --json each is {"source": … (of pairs), "target": …, "log_prob": …, "tokens": […], "log_probs": […]}, a number for each token, the end
/// symbol last; `unknown_source` and `unknown` list the tokens of source and target, counted from 0, that are the unknown
/// symbol.
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
    sets: Sets,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_source: Vec<usize>,
    target: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<usize>,
    log_prob: f64,
    tokens: Vec<String>,
    log_probs: &'a [f32],
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let threads = self.threads.threads.map(usize::from);
        start_threads(threads)?;
        let saved = Target::find(&self.what, &self.sets.set, &self.runs.runs(), threads)?.open(self.device.device)?;
        let rows = saved.config.evaluate.rows;
        let search = &saved.config.search;
        let searcher = Searcher::new(saved.model.for_search(), &saved.tokenizers, search, saved.config.seed, rows)?;
        let (mut incoming, name, is_stream) =
            (self.input.open(&saved.config.data)?, self.input.name(), self.input.file().is_none());
        let most = rows * TOGETHER * rayon::current_num_threads();
        let mut out = io::stdout();
        loop {
            let lines = incoming.batch(most, is_stream).map_err(|e| Error::io(name, "read", &e))?;
            if lines.is_empty() {
                return Ok(Ending::Done);
            }
            if let Some(warning) = incoming.header_warning() {
                tell(&format!("warning: {}: {warning}", name.display()));
            }
            let read = |line: Line| {
                let number = line.number;
                let read = || {
                    let (source, target) = texts_of(line, &saved.config.data)?;
                    let of_source = source.as_deref().map(|source| searcher.encode(source)).transpose()?;
                    let ids = (of_source.unwrap_or_default(), searcher.encode_target(&target)?);
                    check_lengths(&ids, &saved.config.data)?;
                    Ok(((source, target), ids))
                };
                read().map_err(|e: Error| e.at(Place::line(number as usize)).in_file(name))
            };
            let (mut texts, mut pairs, mut broken) = (Vec::new(), Vec::new(), None);
            for line in lines {
                match read(line) {
                    Ok((text, ids)) => {
                        texts.push(text);
                        pairs.push(ids);
                    }
                    // What comes before is scored.
                    Err(error) => {
                        broken = Some(error);
                        break;
                    }
                }
            }
            let scores = searcher.score(&pairs).map_err(|e| e.in_file(name))?;
            let mut text = String::new();
            for (((source, target), (from, ids)), log_probs) in texts.iter().zip(&pairs).zip(&scores) {
                let log_prob: f64 = log_probs.iter().map(|&x| f64::from(x)).sum();
                let token = |&id: &TokenId| saved.tokenizers.target().token(id).unwrap_or_default();
                text += &match self.json {
                    false => log_prob.to_string(),
                    true => {
                        let tokens = ids.iter().map(token).collect();
                        let (unknown_source, unknown) = (unknown::positions(from), unknown::positions(ids));
                        let source = source.as_deref();
                        let scored = Scored { source, unknown_source, target, unknown, log_prob, tokens, log_probs };
                        json_line(&scored).map_err(|e| Error::new(e.to_string()))?
                    }
                };
                text.push('\n');
            }
            if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                return unwritten(error).map(|()| Ending::Done);
            }
            if let Some(error) = broken {
                return Err(error);
            }
        }
    }
}

/// Source and target of a line; without sources it is all target. Running text has blank lines.
fn texts_of(line: Line, config: &CorpusConfig) -> Result<(Option<String>, String)> {
    let read = || {
        let text = line.text?;
        match config {
            CorpusConfig::Text(_) if text.trim().is_empty() => Err(Fault::EmptyLine),
            CorpusConfig::Text(_) | CorpusConfig::Stream(_) => Ok((None, text)),
            CorpusConfig::Pairs(_) | CorpusConfig::Parallel(_) => {
                let (source, target) = split_pair(&text)?;
                Ok((Some(source.into()), target.into()))
            }
        }
    };
    read().map_err(|fault: Fault| Error::new(fault.to_string()))
}

/// Refuses a pair, as ids with their end symbols, that is beyond the limits of a model's corpus.
fn check_lengths((source, target): &(Vec<TokenId>, Vec<TokenId>), config: &CorpusConfig) -> Result<()> {
    config
        .limits()
        .check(source.len().saturating_sub(1), target.len() - 1)
        .map_err(|fault| Error::new(fault.to_string()))
}
