//! `antiphon predict`: answer lines, in their order, as they come.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use antiphon_core::{Error, Result, TokenId};
use antiphon_decode::rename_sources;
use serde::Serialize;

use super::lines::{Fault, Input, Line};
use super::target::Target;
use super::{Ending, OnDevice, RunsFolder, Sets, Threads};
use crate::device::start_threads;
use crate::experiment::{Answer, Searcher};
use crate::output::tell;

/// How many batches a thread are answered together: of a stream as few as keep the threads busy, of a file as many as sort
/// its lines well by length.
const STREAM: usize = 4;
const FILE: usize = 16;

/// Answer lines of a file or of the standard input
///
/// One answer a line, in the order of the input; a stream is answered as it comes. With --json (or --n-best above 1)
/// each line is {"source": …, "answers": [{"text", "score", "log_prob", "finished"}, …]}, best answer first.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A run's folder, a model file, or a config that has been run
    #[arg(value_name = "RUN|MODEL|CONFIG")]
    what: PathBuf,
    #[command(flatten)]
    input: Input,
    /// Write this file instead of the standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How many answers are given to each line, as JSON if more than one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    n_best: Option<u32>,
    /// Write JSON lines
    #[arg(long)]
    json: bool,
    /// Leave the answer to a line empty that cannot be answered, and count such lines, instead of stopping there
    #[arg(long)]
    skip_bad: bool,
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
struct Answered<'a> {
    source: Option<&'a str>,
    answers: &'a [Answer],
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        start_threads(self.threads.threads.map(usize::from))?;
        let saved = Target::find(&self.what, &self.sets.set, &self.runs.runs())?.open(self.device.device)?;
        let mut search = saved.config.search.clone();
        if let Some(n) = self.n_best {
            search = search.with_n_best(n).map_err(|error| error.at("--n-best"))?;
        }
        let rows = saved.config.evaluate.rows;
        let model = saved.model.for_search();
        let searcher = Searcher::new(&model, &saved.tokenizers, &search, rows)?;
        let longest = saved.config.data.limits().max_source;
        let json = self.json || self.n_best.is_some_and(|n| n > 1);

        let incoming = self.input.open()?;
        let mut out = self.open_output()?;
        let (hurry, batches) = if self.input.file().is_none() { (true, STREAM) } else { (false, FILE) };
        let most = rows * batches * rayon::current_num_threads();
        let (mut skipped, mut first_skipped) = (0_u64, 0);
        loop {
            let lines = incoming.batch(most, hurry).map_err(|e| Error::io(self.input.name(), "read", &e))?;
            if lines.is_empty() {
                break;
            }
            let mut answering = Answering { searcher: &searcher, longest, lines: Vec::new() };
            let mut broken = None;
            for line in lines {
                let line = answering.prepare(line)?;
                if let Err(fault) = &line.ids {
                    if !self.skip_bad {
                        let fault = fault.to_string();
                        let remedy = "; --skip-bad passes over such lines";
                        let error = Error::new(fault + remedy).at(format_args!("line {}", line.number));
                        broken = Some(error.in_file(self.input.name()));
                        break;
                    }
                    skipped += 1;
                    first_skipped = if skipped == 1 { line.number } else { first_skipped };
                }
                answering.lines.push(line);
            }
            match answering.write(&mut out, json) {
                Ok(()) => {}
                // Nobody reads any more.
                Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => return Ok(Ending::Done),
                Err(Failure::Output(error)) => return Err(Error::io(self.output_name(), "write", &error)),
                Err(Failure::Model(error)) => return Err(error.in_file(self.input.name())),
            }
            if let Some(error) = broken {
                return Err(error);
            }
        }
        if skipped > 0 {
            let lines = if skipped == 1 { "line was" } else { "lines were" };
            tell(&format!("warning: {skipped} {lines} not answered, the first is line {first_skipped}"));
        }
        Ok(Ending::Done)
    }

    fn output_name(&self) -> &Path {
        self.output.as_deref().unwrap_or(Path::new("standard output"))
    }

    fn open_output(&self) -> Result<Box<dyn Write>> {
        let Some(path) = &self.output else { return Ok(Box::new(BufWriter::new(io::stdout()))) };
        let same = |input: &Path| {
            let (a, b) = (std::fs::canonicalize(input), std::fs::canonicalize(path));
            a.is_ok_and(|a| b.is_ok_and(|b| a == b))
        };
        if self.input.file().is_some_and(same) {
            return Err(Error::new("is the input too; write the answers to another file").in_file(path));
        }
        let file = File::create(path).map_err(|e| Error::io(path, "write", &e))?;
        Ok(Box::new(BufWriter::new(file)))
    }
}

/// A line that is to be answered.
struct Prepared {
    number: u64,
    text: Option<String>,
    ids: Result<Vec<TokenId>, Fault>,
}

/// Lines that are answered together.
struct Answering<'a> {
    searcher: &'a Searcher<'a>,
    longest: usize,
    lines: Vec<Prepared>,
}

enum Failure {
    Model(Error),
    Output(io::Error),
}

impl Answering<'_> {
    fn prepare(&self, line: Line) -> Result<Prepared> {
        let Line { number, text } = line;
        let (text, ids) = match text {
            Err(fault) => (None, Err(fault)),
            Ok(text) => {
                let ids = self.searcher.encode(&text).map_err(|e| e.at(format_args!("line {number}")))?;
                let tokens = ids.len() - 1;
                let fault = Fault::TooManyTokens { tokens, limit: self.longest };
                (Some(text), if tokens > self.longest { Err(fault) } else { Ok(ids) })
            }
        };
        Ok(Prepared { number, text, ids })
    }

    fn write(&self, out: &mut dyn Write, json: bool) -> Result<(), Failure> {
        let good = || self.lines.iter().filter_map(|line| Some((line.number, line.ids.as_ref().ok()?)));
        let sources: Vec<Vec<TokenId>> = good().map(|(_, ids)| ids.clone()).collect();
        let line = |i: usize| good().nth(i).map_or_else(String::new, |(number, _)| format!("line {number}"));
        let never = AtomicBool::new(false);
        let answers = self.searcher.answer(&sources, &never, &mut |_| {});
        let answers = answers.map_err(|error| Failure::Model(rename_sources(error, line)))?;
        let mut answers = answers.unwrap_or_default().into_iter();
        for line in &self.lines {
            let found = if line.ids.is_ok() { answers.next().unwrap_or_default() } else { Vec::new() };
            let text = if json {
                let skipped = line.ids.as_ref().err().map(Fault::to_string);
                let answered = Answered { source: line.text.as_deref(), answers: &found, skipped };
                serde_json::to_string(&answered).map_err(|e| Failure::Output(e.into()))?
            } else {
                // A line for a line, whatever the model says.
                found.first().map_or(String::new(), |answer| answer.text.replace(['\n', '\r'], " "))
            };
            writeln!(out, "{text}").map_err(Failure::Output)?;
        }
        out.flush().map_err(Failure::Output)
    }
}
