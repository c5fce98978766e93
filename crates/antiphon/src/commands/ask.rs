//! `antiphon ask`: questions about a story, as they come.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use antiphon_core::{Error, Place, Result, Tokenizer, printable};
use antiphon_data::lines::{text_of, unpacked};
use antiphon_text::{TokenizerConfig, normalize};
use serde::Serialize;

use super::lines::{Incoming, Limits, Line, opened};
use super::models::Models;
use super::{Ending, OnDevice, RunsFolder, Sets, Threads};
use crate::device::start_threads;
use crate::experiment::{Answer, SavedModel, Searcher, unknown};
use crate::interrupt;
use crate::output::{json_line, one_line, tell, unwritten};

/// Of what a model does not know so much is named.
const NAMED: usize = 10;

/// What somebody may type instead of a question.
const COMMANDS: &str = "`:story FILE` takes another story, `:tell SENTENCE` adds a sentence to it, `:quit` ends";

/// Answer questions about a story
///
/// For a model of a table with a stream beside its source: the source is the story, the stream is the question. The story is read
/// from --story, one sentence a line, or is typed first at a terminal; the questions are typed, or come through a pipe, one a
/// line. Each answer is a line, with a tab and its probability behind it. Lines that begin with a colon are for the program:
/// `:story FILE` takes another story, `:tell SENTENCE` adds a sentence to it, `:quit` ends. With --json each question gives a line
/// {"line", "question", "answer", "probability", "log_prob", "finished"}; `withheld` is what the answer would have been of which the
/// model was not sure enough, and `unknown` lists what of the question the model does not know.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    models: Models,
    /// Read the story from this file, one sentence a line [default: it is typed at a terminal, and empty on a pipe]
    #[arg(long, value_name = "FILE")]
    story: Option<PathBuf>,
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
struct Answered<'a> {
    /// Counted from 1.
    line: u64,
    question: &'a str,
    answer: &'a str,
    probability: f64,
    log_prob: f64,
    finished: bool,
    /// What it would have been, had the model been sure enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    withheld: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    unknown: &'a [String],
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let threads = self.threads.threads.map(usize::from);
        start_threads(threads)?;
        let models = self.models.open(&self.sets.set, &self.runs.runs(), threads, self.device.device)?;
        let saved = models.first();
        check_sources(saved).map_err(|error| error.in_file(self.models.name()))?;
        let search = saved.config.search.clone().with_n_best(1)?;
        models.check_search(&search)?;
        let no_answer =
            saved.config.evaluate.no_answer.for_asking().map_err(|error| error.in_file(self.models.name()))?;
        let searcher = Searcher::new(&models, &saved.tokenizers, &search, saved.config.seed, 1)?
            .with_rerank(&search, saved.config.reranking())?
            .with_no_answer(no_answer);
        let (stop, idle) = (interrupt::stop_flag()?, Arc::new(AtomicBool::new(false)));
        interrupt::end_at_once_while(&idle)?;
        let mut session = Session {
            saved,
            searcher: &searcher,
            limits: Limits::of(&models),
            story: Vec::new(),
            talks: io::stdin().is_terminal(),
            told_of_none: false,
            json: self.json,
            stop: &stop,
        };
        if let Some(path) = &self.story {
            session.take_story(path, "--story")?;
        }
        let mut lines = Incoming::plain(io::stdin(), saved.config.data.max_line());
        let talks = session.talks;
        let mut next = |prompt: &str| {
            if talks {
                let mut err = io::stderr().lock();
                let _ = write!(err, "{prompt}> ").and_then(|()| err.flush());
            }
            idle.store(true, Ordering::Relaxed);
            let line = lines.next().map_err(|error| Error::io(input(), "read", &error));
            idle.store(false, Ordering::Relaxed);
            line
        };
        if talks && self.story.is_none() {
            tell("the story, one sentence a line; an empty line ends it");
            while let Some(Line { text, .. }) = next("story")? {
                match text {
                    Ok(text) if text.trim().is_empty() => break,
                    Ok(text) => session.add(&text).unwrap_or_else(|error| tell(&error.to_string())),
                    Err(fault) => tell(&fault.to_string()),
                }
            }
        }
        if talks {
            tell(&format!("a question a line; {COMMANDS}"));
        }
        while let Some(line) = next("")? {
            let number = line.number;
            match session.take(line) {
                Ok(Next::Line) => {}
                Ok(Next::End(ending)) => return Ok(ending),
                // Somebody who talks may say it again.
                Err(error) if talks => tell(&error.to_string()),
                Err(error) if error.file.is_some() => return Err(error),
                Err(error) => return Err(error.at(Place::line(number as usize)).in_file(input())),
            }
        }
        if talks {
            // Behind the last prompt.
            tell("");
        }
        Ok(Ending::Done)
    }
}

/// What errors call the questions.
fn input() -> &'static Path {
    Path::new("standard input")
}

/// That a model has a source and one stream beside it.
///
/// # Errors
/// If it has not: tells what is missing.
fn check_sources(saved: &SavedModel) -> Result<()> {
    let streams: Vec<String> = saved.config.streams.keys().map(|name| format!("`{name}`")).collect();
    let message = match (saved.config.data.as_table(), streams.len()) {
        (Some(_), 1) => return Ok(()),
        (None, _) if !saved.config.data.has_source() => {
            "is a language model, which reads neither story nor question; `generate` goes on with a text".to_owned()
        }
        (_, 0) => "reads one source, and has no stream for the question beside it: train it on a table with `[streams.question]`; \
                   `predict` answers sources"
            .to_owned(),
        (_, n) => format!(
            "has {n} streams beside its source ({}), and only one could be the question; `predict` answers rows of all of them",
            streams.join(", ")
        ),
    };
    Err(Error::new(message))
}

/// What comes next.
enum Next {
    Line,
    End(Ending),
}

/// A story, and whoever asks about it.
struct Session<'a> {
    saved: &'a SavedModel,
    searcher: &'a Searcher<'a>,
    limits: Limits,
    /// Its sentences.
    story: Vec<String>,
    /// Whether somebody types the lines.
    talks: bool,
    /// Whether it was said that there is no story.
    told_of_none: bool,
    json: bool,
    stop: &'a AtomicBool,
}

impl Session<'_> {
    /// Does what a line says: answers it, or obeys.
    fn take(&mut self, line: Line) -> Result<Next> {
        let Line { number, text } = line;
        let text = text.map_err(|fault| Error::new(fault.to_string()))?;
        let text = text.trim();
        let Some(command) = text.strip_prefix(':') else {
            return if text.is_empty() { Ok(Next::Line) } else { self.answer(number, text) };
        };
        let (command, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (command, rest.trim()) {
            ("quit", "") => return Ok(Next::End(Ending::Done)),
            ("story", file) if !file.is_empty() => self.take_story(Path::new(file), ":story")?,
            ("tell", sentence) if !sentence.is_empty() => self.add(sentence)?,
            ("story", _) => return Err(Error::new("`:story` lacks its file: `:story FILE` takes another story")),
            ("tell", _) => {
                return Err(Error::new("`:tell` lacks its sentence: `:tell SENTENCE` adds one to the story"));
            }
            _ => return Err(Error::new(format!("`{text}` is no command: {COMMANDS}"))),
        }
        Ok(Next::Line)
    }

    /// Reads another story, which was named by `place`; blank lines are none of its sentences.
    fn take_story(&mut self, path: &Path, place: &str) -> Result<()> {
        let mut bytes = Vec::new();
        let read = unpacked(opened(path, place)?).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_err(|error| Error::io(path, "read", &error))?;
        let text = text_of(&bytes).map_err(|error| error.in_file(path))?;
        let sentences = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let story: Vec<String> = sentences.map(str::to_owned).collect();
        if story.is_empty() {
            let message = "there is no sentence in it; name a file with one a line";
            return Err(Error::new(message).in_file(path).at(Place::text(place)));
        }
        self.check(&story).map_err(|error| error.in_file(path))?;
        self.warn(&path.display().to_string(), &self.unknown_in_source(&text_of_story(&story))?);
        self.story = story;
        Ok(())
    }

    /// Adds a sentence to the story.
    fn add(&mut self, sentence: &str) -> Result<()> {
        self.story.push(sentence.trim().to_owned());
        if let Err(error) = self.check(&self.story) {
            self.story.pop();
            return Err(error);
        }
        self.warn("the sentence", &self.unknown_in_source(sentence)?);
        Ok(())
    }

    /// That a story is not too long.
    fn check(&self, story: &[String]) -> Result<()> {
        let asked = self.searcher.question(1, &[text_of_story(story).as_str(), ""])?;
        self.limits.check_sources(&asked).map_err(|fault| Error::new(fault.to_string()))
    }

    fn answer(&mut self, number: u64, question: &str) -> Result<Next> {
        let asked = self.searcher.question(number, &[text_of_story(&self.story).as_str(), question])?;
        self.limits.check_sources(&asked).map_err(|fault| Error::new(fault.to_string()))?;
        let unknown = self.unknown_in_question(question)?;
        if self.story.is_empty() && !std::mem::replace(&mut self.told_of_none, true) {
            tell("warning: no story yet: tell one with :tell, :story FILE or --story FILE");
        }
        if !self.json {
            self.warn("the question", &unknown);
        }
        let found = self.searcher.answer(&[asked], self.stop, &mut |_| {})?;
        let Some(found) = found else { return Ok(Next::End(Ending::Interrupted)) };
        let answer = found.into_iter().next().and_then(|found| found.answers.into_iter().next());
        let answer = answer.ok_or_else(|| Error::new("the search found no answer"))?;
        match self.write(number, question, &answer, &unknown) {
            Ok(()) => Ok(Next::Line),
            // Whoever reads may have left.
            Err(error) => unwritten(error).map(|()| Next::End(Ending::Done)),
        }
    }

    fn write(&self, line: u64, question: &str, answer: &Answer, unknown: &[String]) -> io::Result<()> {
        let Answer { text, log_prob, finished, withheld, .. } = answer;
        let (probability, finished, withheld) = (log_prob.exp(), *finished, withheld.as_deref());
        let mut out = io::stdout().lock();
        if self.json {
            let (answer, log_prob) = (text.as_str(), *log_prob);
            let answered = Answered { line, question, answer, probability, log_prob, finished, withheld, unknown };
            writeln!(out, "{}", json_line(&answered)?)?;
        } else {
            let text = one_line(text);
            let text = if out.is_terminal() { printable(&text) } else { text.as_str().into() };
            writeln!(out, "{text}\t{probability:.4}")?;
        }
        out.flush()
    }

    /// What of a story the model does not know.
    fn unknown_in_source(&self, text: &str) -> Result<Vec<String>> {
        let config = &self.saved.config.tokenizer;
        let config = config.source.as_ref().or(config.shared.as_ref());
        unknown_in(config, self.saved.tokenizers.own_source(), text)
    }

    /// What of a question the model does not know.
    fn unknown_in_question(&self, text: &str) -> Result<Vec<String>> {
        let own = self.saved.config.streams.values().next().and_then(|stream| stream.own_tokenizer());
        let config = &self.saved.config.tokenizer;
        let config = own.or(config.source.as_ref()).or(config.shared.as_ref());
        unknown_in(config, self.saved.tokenizers.sources().nth(1), text)
    }

    /// Tells what of a text the model does not know.
    fn warn(&self, what: &str, unknown: &[String]) {
        if unknown.is_empty() {
            return;
        }
        let more = unknown.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let names: Vec<String> = unknown.iter().take(NAMED).map(|name| format!("`{}`", name.escape_debug())).collect();
        tell(&format!("warning: {what} has what the model does not know: {}{more}", names.join(", ")));
    }
}

/// What of a text a tokenizer of these settings does not know.
pub(super) fn unknown_in(
    config: Option<&TokenizerConfig>,
    tokenizer: Option<&Arc<dyn Tokenizer>>,
    text: &str,
) -> Result<Vec<String>> {
    let (Some(config), Some(tokenizer)) = (config, tokenizer) else { return Ok(Vec::new()) };
    unknown::named(tokenizer.as_ref(), &normalize(config.normalization(), text), config.separator())
}

/// A story as the source of a row has it.
fn text_of_story(story: &[String]) -> String {
    story.join("\n")
}
