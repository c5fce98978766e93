//! `antiphon score`: how probable given targets are.

use std::collections::BTreeMap;
use std::io::{self, Write};

use antiphon_core::{Error, Place, Result, TokenId};
use antiphon_data::{Fault, InputRules};
use antiphon_decode::SearchConfig;
use serde::Serialize;

use super::lines::{Input, Limits, Line};
use super::models::Models;
use super::{Ending, OnDevice, RunsFolder, Sets, Threads};
use crate::device::start_threads;
use crate::experiment::{Listener, Question, Searcher, apart, unknown, unknown_apart};
use crate::output::{json_line, tell, unwritten};

/// How many batches a thread are scored together.
const TOGETHER: usize = 16;

/// Score pairs or texts of a file or of the standard input: how probable a model, or several together, find each target
///
/// A line of `source<TAB>target`, a row of a table (for each of its targets, if they are a list), or a line of text for a language model gives a line: the natural logarithm of the target's
/// probability, its end included. Each line is scored alone; `evaluate --input` reads running text on. With --json each is {"source": … (of pairs), "target": …, "log_prob": …, "tokens": […], "log_probs": […]}, a number for each token, the end
/// symbol last; `streams` holds the further sources by their names; `unknown_source`, `unknown_streams` and `unknown` list the tokens of
/// source, streams and target, counted from 0, that are the unknown symbol.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    models: Models,
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
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    streams: BTreeMap<String, &'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_source: Vec<usize>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unknown_streams: BTreeMap<String, Vec<usize>>,
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
        let models = self.models.open(&self.sets.set, &self.runs.runs(), threads, self.device.device)?;
        let saved = models.first();
        let rows = saved.config.evaluate.rows;
        // Nothing is searched.
        let search = SearchConfig::default();
        let searcher = Searcher::new(&models, &saved.tokenizers, &search, saved.config.seed, rows)?;
        let (name, is_piped) = (self.input.name(), self.input.file().is_none());
        let mut rules = InputRules::of_pairs(&saved.config.data, &saved.config.further_columns(), self.input.file())?;
        let mut incoming = self.input.open(&mut rules)?;
        let (limits, listener) = (Limits::of(&models), Listener::of(&saved.config, self.input.file())?);
        let most = rows * TOGETHER * rayon::current_num_threads();
        let mut out = io::stdout();
        loop {
            let lines = incoming.batch(&rules, most, is_piped).map_err(|e| Error::io(name, "read", &e))?;
            if lines.is_empty() {
                return Ok(Ending::Done);
            }
            if let Some(warning) = incoming.header_warning() {
                tell(&format!("warning: {}: {warning}", name.display()));
            }
            let read = |line: Line| {
                let number = line.number;
                let read = || {
                    let wrong = |fault: Fault| Error::new(fault.to_string());
                    let text = line.text.map_err(wrong)?;
                    let (sources, targets) = rules.pair(&text).map_err(wrong)?;
                    let heard = |listener: &Listener| rules.recording(&text).and_then(|spoken| listener.hear(spoken));
                    let question = match &listener {
                        Some(listener) => Question::of_recording(number, heard(listener).map_err(wrong)?),
                        None => searcher.question(number, &sources)?,
                    };
                    limits.check_sources(&question).map_err(wrong)?;
                    let scored = |target: String| {
                        let ids = searcher.encode_target(&question, &target)?;
                        limits.check_target(&ids).map_err(wrong)?;
                        Ok(((sources.clone(), target), (question.clone(), ids)))
                    };
                    targets.into_iter().map(scored).collect::<Result<Vec<_>>>()
                };
                read().map_err(|e: Error| e.at(Place::line(number as usize)).in_file(name))
            };
            let (mut texts, mut pairs, mut broken) = (Vec::new(), Vec::new(), None);
            for line in lines {
                match read(line) {
                    Ok(scored) => {
                        for (text, pair) in scored {
                            texts.push(text);
                            pairs.push(pair);
                        }
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
            for (((sources, target), (question, ids)), log_probs) in texts.iter().zip(&pairs).zip(&scores) {
                let log_prob: f64 = log_probs.iter().map(|&x| f64::from(x)).sum();
                let token = |&id: &TokenId| searcher.token(question, id);
                text += &match self.json {
                    false => log_prob.to_string(),
                    true => {
                        let tokens = ids.iter().map(token).collect();
                        let names = &saved.config.streams;
                        let (source, streams) = apart(names, sources.iter().map(String::as_str));
                        let (unknown_source, unknown_streams) = unknown_apart(
                            names,
                            question.sources.iter().map(|source| unknown::positions(source.ids())),
                        );
                        let scored = Scored {
                            source,
                            streams,
                            unknown_source,
                            unknown_streams,
                            target,
                            unknown: unknown::positions(ids),
                            log_prob,
                            tokens,
                            log_probs,
                        };
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
