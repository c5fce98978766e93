//! `antiphon predict`: answer lines, in their order, as they come.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use antiphon_core::{Error, Place, Result, Source, printable};
use antiphon_data::{Fault, InputRules};
use antiphon_decode::rename_sources;
use serde::Serialize;

use super::lines::{Input, Limits, Line};
use super::models::Models;
use super::{Ending, OnDevice, RunsFolder, Sets, Threads};
use crate::device::start_threads;
use crate::experiment::{
    Answer, Clock, Listener, Question, SavedModel, Searcher, Streams, apart, unknown, unknown_apart,
};
use crate::output::{json_line, one_line, tell};

/// How many batches a thread are answered together: of a stream as few as keep the threads busy, of a file as many as sort
/// its lines well by length.
const STREAM: usize = 4;
const FILE: usize = 16;

/// Answer lines of a file or of the standard input
///
/// One answer a line, in the order of the input; what comes through a pipe is answered as it comes, and at a terminal a prompt asks
/// for it. For a table, each row is a question; the header names the columns, and the target column is optional. A model of
/// recordings is given a manifest of them, whose paths are seen from its folder. Line ends and tabs in an answer are written as
/// spaces.
/// With --n-best each answer is a line, and begins with the number of its source's line and a tab. With --json each source
/// gives a line {"line": …, "source": …, "answers": [{"text", "score", "log_prob", "finished"}, …]}, best answer first and as it
/// is; `withheld` is what an answer would have been of which the model was not sure enough; `streams` holds the further sources of a table by their names; `unknown` beside a source or an answer, and `unknown_streams`,
/// list the tokens, counted from 0, that are the unknown symbol; `skipped` says why a line was passed over. An answer to a recording
/// by a model with CTC also has `words`: [{"word", "start", "end", "confidence"}, …], in seconds from the beginning of the file.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    models: Models,
    #[command(flatten)]
    input: Input,
    /// Write this file instead of the standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How many answers are given to each line, if the search finds as many; one that samples draws as many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    n_best: Option<u32>,
    /// Write each answer's probability and its natural logarithm before it, with a tab behind each
    #[arg(long, conflicts_with = "json")]
    scores: bool,
    /// Write the source as the model sees it behind an answer, after a tab, where it has a token that the model does not know
    #[arg(long, conflicts_with = "json")]
    mark_unknown: bool,
    /// Write JSON lines
    #[arg(long)]
    json: bool,
    /// Leave the answer to a line empty that cannot be answered (with --n-best it has none), and count such lines, instead of
    /// stopping there
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
    /// Counted from 1.
    line: u64,
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    streams: BTreeMap<String, &'a str>,
    #[serde(skip_serializing_if = "<[usize]>::is_empty")]
    unknown: &'a [usize],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unknown_streams: BTreeMap<String, &'a [usize]>,
    answers: &'a [Answer],
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let threads = self.threads.threads.map(usize::from);
        start_threads(threads)?;
        let models = self.models.open(&self.sets.set, &self.runs.runs(), threads, self.device.device)?;
        let saved = models.first();
        if !saved.config.data.has_source() {
            let message = "is a language model, which answers no sources; `generate` goes on with a text, and `score` says how \
                           probable texts are";
            return Err(Error::new(message).in_file(self.models.name()));
        }
        let mut search = saved.config.search.clone();
        models.check_search(&search)?;
        if let Some(n) = self.n_best {
            search = search.with_n_best(n).map_err(|error| error.at(Place::text("--n-best")))?;
        }
        let rows = saved.config.evaluate.rows;
        let clock = Clock::of(&saved.config).filter(|_| self.json);
        let searcher = Searcher::new(&models, &saved.tokenizers, &search, saved.config.seed, rows)?.with_words(clock);
        let searcher = searcher.with_rerank(&search, saved.config.reranking())?;
        let no_answer =
            saved.config.evaluate.no_answer.for_asking().map_err(|error| error.in_file(self.models.name()))?;
        let searcher = searcher.with_no_answer(no_answer);
        let mut rules = InputRules::of_sources(&saved.config.data, &saved.config.further_columns(), self.input.file())?;
        let mut incoming = self.input.open(&mut rules)?;
        self.check_output()?;
        let mut out: Option<Box<dyn Write>> = None;
        let (hurry, batches) = if self.input.file().is_none() { (true, STREAM) } else { (false, FILE) };
        let most = rows * batches * rayon::current_num_threads();
        let mut session = Session {
            searcher: &searcher,
            rules: &rules,
            listener: Listener::of(&saved.config, self.input.file())?,
            limits: Limits::of(&models),
            streams: &saved.config.streams,
            form: self.form(),
            talks: self.input.is_terminal(),
            skips: self.skip_bad,
            tally: Tally::of(saved),
        };
        loop {
            session.prompt();
            let mut lines =
                incoming.batch(&rules, most, hurry).map_err(|e| Error::io(self.input.name(), "read", &e))?;
            if lines.is_empty() {
                break;
            }
            if let Some(warning) = incoming.header_warning() {
                tell(&format!("warning: {}: {warning}", self.input.name().display()));
            }
            if session.talks {
                // Somebody has just pressed the key.
                lines.retain(|line| line.text.as_ref().map_or(true, |text| !text.trim().is_empty()));
            }
            let prepared = lines.into_iter().map(|line| session.prepare(line)).collect::<Result<Vec<Prepared>>>();
            let prepared = prepared.map_err(|error| error.in_file(self.input.name()))?;
            let good = match session.first_bad(&prepared) {
                Some(bad) => &prepared[..bad],
                None => &prepared,
            };
            // What stands there already is safe until there is an answer to put in its place.
            if out.is_none() && !good.is_empty() {
                out = Some(self.open_output()?);
            }
            match out.as_mut().map_or(Ok(()), |out| session.write(good, out)) {
                Ok(()) => {}
                // Nobody reads any more.
                Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => return Ok(Ending::Done),
                Err(Failure::Output(error)) => return Err(Error::io(self.output_name(), "write", &error)),
                Err(Failure::Model(error)) => return Err(error.in_file(self.input.name())),
            }
            if let Some(Prepared { number, question: Err(fault), .. }) = prepared.get(good.len()) {
                let remedy = match fault {
                    Fault::Foreign(_) => "",
                    _ => "; --skip-bad passes over such lines",
                };
                let message = format!("{fault}{remedy}");
                return Err(Error::new(message).at(Place::line(*number as usize)).in_file(self.input.name()));
            }
        }
        if out.is_none() && self.output.is_some() {
            // There was nothing to answer.
            self.open_output()?;
        }
        session.finish();
        Ok(Ending::Done)
    }

    fn form(&self) -> Form {
        if self.json {
            return Form::Json;
        }
        let to_person = self.output.is_none() && io::stdout().is_terminal();
        Form::Text { numbers: self.n_best.is_some(), scores: self.scores, seen: self.mark_unknown, to_person }
    }

    fn output_name(&self) -> &Path {
        self.output.as_deref().unwrap_or(Path::new("standard output"))
    }

    /// Refuses an output that is the input.
    fn check_output(&self) -> Result<()> {
        let Some(path) = &self.output else { return Ok(()) };
        let same = |input: &Path| {
            let (a, b) = (std::fs::canonicalize(input), std::fs::canonicalize(path));
            a.is_ok_and(|a| b.is_ok_and(|b| a == b))
        };
        if self.input.file().is_some_and(same) {
            return Err(Error::new("is the input too; write the answers to another file").in_file(path));
        }
        Ok(())
    }

    fn open_output(&self) -> Result<Box<dyn Write>> {
        let Some(path) = &self.output else { return Ok(Box::new(BufWriter::new(io::stdout()))) };
        let file = File::create(path).map_err(|e| Error::io(path, "write", &e))?;
        Ok(Box::new(BufWriter::new(file)))
    }
}

/// How answers are written.
#[derive(Clone, Copy)]
enum Form {
    Json,
    Text {
        /// The number of the source's line first, and a line for every answer.
        numbers: bool,
        /// Probabilities before the answer.
        scores: bool,
        /// Behind it, the source as the model sees it.
        seen: bool,
        /// Whether a terminal shows it.
        to_person: bool,
    },
}

/// A line that is to be answered.
struct Prepared {
    number: u64,
    /// The texts of its source, that of each stream; none if it is no source.
    texts: Vec<String>,
    question: Result<Question, Fault>,
    /// Where a recording begins in its file, in seconds.
    begins: f64,
    /// Which tokens of each the model does not know.
    unknown: Vec<Vec<usize>>,
}

/// What there is to say at the end.
struct Tally {
    /// Of each stream of the sources, what it is called, its tokens and the unknown ones.
    tokens: Vec<(String, u64, u64)>,
    /// The candidates, and those with a token that the model does not know.
    candidates: (u64, u64),
    skipped: u64,
    first_skipped: u64,
}

impl Tally {
    fn of(saved: &SavedModel) -> Self {
        let streams = saved.config.streams.keys().map(|name| format!("`{name}`"));
        let tokens = ["source".to_owned()].into_iter().chain(streams).map(|name| (name, 0, 0)).collect();
        Self { tokens, candidates: (0, 0), skipped: 0, first_skipped: 0 }
    }
}

/// Lines that are answered one batch after the other.
struct Session<'a> {
    searcher: &'a Searcher<'a>,
    rules: &'a InputRules<'a>,
    /// Of recordings, how they are listened to.
    listener: Option<Listener>,
    limits: Limits,
    streams: &'a Streams,
    form: Form,
    /// Whether somebody types the lines, and is answered one by one.
    talks: bool,
    /// Whether bad lines are passed over.
    skips: bool,
    tally: Tally,
}

enum Failure {
    Model(Error),
    Output(io::Error),
}

impl Session<'_> {
    /// Asks for a line, if there is somebody to ask.
    fn prompt(&self) {
        if self.talks {
            let mut err = io::stderr().lock();
            let _ = write!(err, "> ").and_then(|()| err.flush());
        }
    }

    /// Holds a line against the rules by which the model's own corpus was read.
    fn prepare(&mut self, line: Line) -> Result<Prepared> {
        let Line { number, text } = line;
        let mut begins = 0.0;
        let (texts, question) = match text.and_then(|text| Ok((self.rules.sources(&text)?, text))) {
            Err(fault) => (Vec::new(), Err(fault)),
            Ok((texts, text)) => {
                let asked = match &self.listener {
                    Some(listener) => {
                        let heard = self.rules.recording(&text).and_then(|spoken| {
                            begins = spoken.start.unwrap_or(0.0);
                            listener.hear(spoken)
                        });
                        heard.map(|recording| Question::of_recording(number, recording))
                    }
                    None => {
                        let candidates = self.rules.candidates(&text).unwrap_or_default();
                        let asked = self.searcher.question_among(number, &texts, &candidates);
                        Ok(asked.map_err(|e| e.at(Place::line(number as usize)))?)
                    }
                };
                (texts, asked.and_then(|asked| self.limits.check_sources(&asked).map(|()| asked)))
            }
        };
        let sources = question.as_ref().map_or(&[][..], |question| &question.sources);
        let ids = || sources.iter().filter(|source| matches!(source, Source::Tokens(_)));
        let unknown: Vec<Vec<usize>> = ids().map(|source| unknown::positions(source.ids())).collect();
        match &question {
            Ok(asked) => {
                let strange =
                    asked.candidates.iter().filter(|candidate| !unknown::positions(&candidate.ids).is_empty());
                self.tally.candidates.0 += asked.candidates.len() as u64;
                self.tally.candidates.1 += strange.count() as u64;
                for ((tally, source), unknown) in self.tally.tokens.iter_mut().zip(ids()).zip(&unknown) {
                    let (tokens, unknown) = (source.len() as u64 - 1, unknown.len() as u64);
                    (tally.1, tally.2) = (tally.1 + tokens, tally.2 + unknown);
                    if self.talks {
                        tell_unknown(&tally.0, unknown, tokens);
                    }
                }
            }
            Err(fault) if self.talks => tell(&format!("line {number}: {fault}")),
            Err(_) => {
                self.tally.skipped += 1;
                if self.tally.skipped == 1 {
                    self.tally.first_skipped = number;
                }
            }
        }
        Ok(Prepared { number, texts, question, begins, unknown })
    }

    /// The first line that ends it all: a bad one, unless such are passed over, and in any case one that shows that the file is no
    /// text.
    fn first_bad(&self, lines: &[Prepared]) -> Option<usize> {
        let passes = self.skips || self.talks;
        lines.iter().position(|line| match &line.question {
            Ok(_) => false,
            Err(Fault::Foreign(_)) => true,
            Err(_) => !passes,
        })
    }

    fn write(&self, lines: &[Prepared], out: &mut dyn Write) -> Result<(), Failure> {
        let sources: Vec<Question> = lines.iter().filter_map(|line| line.question.clone().ok()).collect();
        let line = |i: usize| sources.get(i).map_or_else(String::new, |source| format!("line {}", source.line));
        let never = AtomicBool::new(false);
        let answers = self.searcher.answer(&sources, &never, &mut |_| {});
        let answers = answers.map_err(|error| Failure::Model(rename_sources(error, line)))?;
        let mut answers = answers.unwrap_or_default().into_iter();
        for line in lines {
            let found = line.question.as_ref().ok().and_then(|_| answers.next());
            let mut found = found.map_or_else(Vec::new, |found| found.answers);
            let words = found.iter_mut().flat_map(|answer| &mut answer.words);
            words.for_each(|word| word.later(line.begins));
            self.write_line(line, &found, out).map_err(Failure::Output)?;
        }
        out.flush().map_err(Failure::Output)
    }

    fn write_line(&self, line: &Prepared, found: &[Answer], out: &mut dyn Write) -> io::Result<()> {
        let Form::Text { numbers, scores, seen, to_person } = self.form else {
            let (source, streams) = apart(self.streams, line.texts.iter().map(String::as_str));
            let (unknown, unknown_streams) = unknown_apart(self.streams, line.unknown.iter().map(Vec::as_slice));
            let skipped = line.question.as_ref().err().map(Fault::to_string);
            let (line, answers) = (line.number, found);
            let answered = Answered { line, source, streams, unknown, unknown_streams, answers, skipped };
            return writeln!(out, "{}", json_line(&answered)?);
        };
        // A line for a line, also where there is no answer; of the n best a line each.
        let count = if numbers { found.len() } else { 1 };
        for rank in 0..count {
            let answer = found.get(rank);
            let mut text = if numbers { format!("{}\t", line.number) } else { String::new() };
            if scores {
                text += &answer.map_or("\t\t".into(), |Answer { log_prob, .. }| {
                    format!("{}\t{log_prob}\t", number(log_prob.exp()))
                });
            }
            // Whatever the model says, it stays one line.
            text += &answer.map_or(String::new(), |answer| one_line(&answer.text));
            if let Ok(Question { sources, .. }) = &line.question
                && seen
                && line.unknown.iter().any(|places| !places.is_empty())
            {
                text += &format!("\t{}", self.searcher.seen(sources));
            }
            if self.talks && answer.is_none() {
                continue;
            }
            let text = if to_person { printable(&text) } else { text.as_str().into() };
            writeln!(out, "{text}")?;
        }
        Ok(())
    }

    /// What there is to say of all lines.
    fn finish(&self) {
        let Tally { ref tokens, candidates: (candidates, strange), skipped, first_skipped } = self.tally;
        if self.talks {
            // Behind the last prompt.
            tell("");
            return;
        }
        if skipped > 0 {
            let lines = if skipped == 1 { "line was" } else { "lines were" };
            tell(&format!("warning: {skipped} {lines} not answered, the first is line {first_skipped}"));
        }
        tokens.iter().for_each(|(name, tokens, unknown)| tell_unknown(name, *unknown, *tokens));
        if strange > 0 {
            tell(&format!("warning: {strange} of {candidates} candidates hold a token that the model does not know"));
        }
    }
}

fn tell_unknown(name: &str, unknown: u64, tokens: u64) {
    if let Some(warning) = unknown::warning(name, unknown, tokens) {
        tell(&format!("warning: {warning}"));
    }
}

/// A probability in few characters, however small it is.
fn number(probability: f64) -> String {
    if probability < 1e-4 { format!("{probability:e}") } else { probability.to_string() }
}
