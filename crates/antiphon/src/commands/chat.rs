//! `antiphon chat`: a conversation with a model, whose replies come token by token.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use antiphon_core::{Error, Place, Result, disk, printable};
use antiphon_data::History;
use antiphon_data::lines::{text_of, unpacked};
use antiphon_decode::{BeamConfig, GreedyConfig, SampleConfig, SearchConfig};
use antiphon_kernels::attentively;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde::Serialize;

use super::ask::unknown_in;
use super::lines::{Incoming, Limits, Line, opened};
use super::models::Models;
use super::{Ending, OnDevice, RunsFolder, Sets, Threads, is_new};
use crate::device::start_threads;
use crate::experiment::generation::Failure;
use crate::experiment::{SavedModel, SavedModels, Searcher};
use crate::interrupt;
use crate::output::{json_line, one_line, tell, unwritten};

/// Of what a model does not know so much is named.
const NAMED: usize = 10;

/// The stream that facts are read by.
const FACTS: &str = "facts";

/// What somebody may type instead of a turn.
const COMMANDS: &str = "\
:undo        takes the last turn and its reply back
:reset       begins the conversation anew; facts stay
:facts FILE  takes the facts of a file, one a line
:beam N      searches by a beam of this width from now on
:sample T    draws replies at this temperature
:greedy      says the most probable token each time
:save FILE   writes the conversation down, as rows of data
:help        tells this
:quit        ends";

/// Talk with a model: each line is a turn, and each turn is replied to
///
/// A model with `data.history` reads all turns so far, any other the last one alone. Where it has a stream `facts`, that reads the lines of
/// --facts. At a terminal lines can be edited, a reply appears as its tokens come, Ctrl-C takes back the turn that is being replied to,
/// and Ctrl-D ends; on a pipe each turn gives a line. Lines that begin with a colon are for the program, as `:help` tells. Replies depend on
/// the seed, on the number of the turn and on what was said, and on nothing else.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    models: Models,
    /// Take the facts of this file, one a line
    #[arg(long, value_name = "FILE")]
    facts: Option<PathBuf>,
    /// The seed of what is drawn [default: the model's search.seed, or else its seed]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write the conversation down in this file as it goes on: JSON lines, a reply with all before it in each, as rows of data have it
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
    #[command(flatten)]
    sets: Sets,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    device: OnDevice,
    #[command(flatten)]
    runs: RunsFolder,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let threads = self.threads.threads.map(usize::from);
        start_threads(threads)?;
        let mut models = self.models.open(&self.sets.set, &self.runs.runs(), threads, self.device.device)?;
        check_sources(models.first(), self.facts.is_some()).map_err(|error| error.in_file(self.models.name()))?;
        if let Some(path) = &self.transcript {
            is_new(path).map_err(|error| error.at(Place::text("--transcript")))?;
        }
        if let Some(seed) = self.seed {
            let config = &mut models.first_mut().config;
            config.seed = seed;
            if let SearchConfig::Sample(sample) = &mut config.search {
                sample.seed = Some(seed);
            }
        }
        let search = models.first().config.search.clone().with_n_best(1)?;
        let (stop, idle) = (interrupt::stop_flag()?, Arc::new(AtomicBool::new(false)));
        interrupt::end_at_once_while(&idle)?;
        let mut session = Session {
            searcher: searcher(&models, &search)?,
            models: &models,
            limits: Limits::of(&models),
            facts: Vec::new(),
            exchanges: Vec::new(),
            past: Default::default(),
            transcript: self.transcript,
            talks: io::stdin().is_terminal(),
            stop: &stop,
        };
        if let Some(path) = &self.facts {
            session.take_facts(path, "--facts")?;
        }
        let mut lines = Lines::open(session.talks, models.first().config.data.max_line())?;
        if session.talks {
            tell("a turn a line; `:help` tells what else can be typed");
        }
        loop {
            idle.store(true, Ordering::Relaxed);
            let line = lines.next();
            idle.store(false, Ordering::Relaxed);
            let Some(Line { number, text }) = line? else { break };
            let taken = text.map_err(|fault| Error::new(fault.to_string())).and_then(|text| session.take(&text));
            match taken {
                Ok(Next::Line) => {}
                Ok(Next::End(ending)) => return Ok(ending),
                // Somebody who talks may say it again.
                Err(error) if session.talks => tell(&error.to_string()),
                Err(error) if error.file.is_some() => return Err(error),
                Err(error) => return Err(error.at(Place::line(number as usize)).in_file(input())),
            }
        }
        Ok(Ending::Done)
    }
}

/// What errors call the turns.
fn input() -> &'static Path {
    Path::new("standard input")
}

/// Where turns come from.
enum Lines {
    Terminal { editor: Box<DefaultEditor>, number: u64 },
    Pipe(Incoming),
}

impl Lines {
    fn open(talks: bool, longest: usize) -> Result<Self> {
        if !talks {
            return Ok(Self::Pipe(Incoming::plain(io::stdin(), longest)));
        }
        let editor = DefaultEditor::new().map_err(|error| Error::new(format!("cannot edit lines: {error}")))?;
        Ok(Self::Terminal { editor: Box::new(editor), number: 0 })
    }

    /// The next line; `None` at the end.
    fn next(&mut self) -> Result<Option<Line>> {
        match self {
            Self::Pipe(lines) => lines.next().map_err(|error| Error::io(input(), "read", &error)),
            Self::Terminal { editor, number } => loop {
                match editor.readline("> ") {
                    Ok(text) => {
                        // What cannot be called back is only more to type.
                        let _ = editor.add_history_entry(text.as_str());
                        *number += 1;
                        return Ok(Some(Line { number: *number, text: Ok(text) }));
                    }
                    // The line is dropped, and the conversation stays.
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(Error::new(format!("cannot read: {error}")).in_file(input())),
                }
            },
        }
    }
}

/// That a model replies to texts, and reads nothing else but facts.
///
/// # Errors
/// If it does not: tells what helps.
fn check_sources(saved: &SavedModel, has_facts: bool) -> Result<()> {
    let config = &saved.config;
    let others: Vec<String> =
        config.streams.keys().filter(|name| *name != FACTS).map(|name| format!("`{name}`")).collect();
    let message = if !config.data.has_source() {
        "is a language model, which replies to nothing; `generate` goes on with a text".to_owned()
    } else if config.data.as_manifest().is_some() {
        "answers recordings; `transcribe` writes down what is said in them".to_owned()
    } else if !others.is_empty() {
        format!(
            "reads {} beside its source, and a conversation has `{FACTS}` alone; `predict` answers rows of all",
            others.join(", ")
        )
    } else if has_facts && !config.streams.contains_key(FACTS) {
        let message = format!("the model reads no facts: it has no stream `{FACTS}`; leave this out");
        return Err(Error::new(message).at(Place::text("--facts")));
    } else {
        return Ok(());
    };
    Err(Error::new(message))
}

/// A searcher for replies by these settings. A search that has one answer ranks none anew.
fn searcher<'m>(models: &'m SavedModels, search: &SearchConfig) -> Result<Searcher<'m>> {
    models.check_search(search)?;
    let SavedModel { config, tokenizers, .. } = models.first();
    let rerank = config.reranking().filter(|rerank| rerank.widened(search).is_ok());
    let no_answer = config.evaluate.no_answer.for_asking()?;
    let searcher = Searcher::new(models, tokenizers, search, config.seed, 1)?;
    Ok(searcher.with_rerank(search, rerank)?.with_no_answer(no_answer))
}

/// What comes next.
enum Next {
    Line,
    End(Ending),
}

/// A turn and its reply.
struct Exchange {
    said: String,
    reply: String,
    /// What was known then.
    facts: Vec<String>,
}

/// An exchange as a row of data.
#[derive(Serialize)]
struct Row<'a> {
    dialog: &'a str,
    context: Vec<&'a str>,
    facts: &'a [String],
    response: &'a str,
}

/// The widest beam that a conversation has: a wider one keeps whoever talks waiting, and fills the memory.
const WIDEST: u32 = 1000;

/// A conversation.
struct Session<'m> {
    models: &'m SavedModels,
    searcher: Searcher<'m>,
    limits: Limits,
    facts: Vec<String>,
    exchanges: Vec<Exchange>,
    /// The rows of the conversations before the last `:reset`, and how many these were.
    past: (String, usize),
    transcript: Option<PathBuf>,
    /// Whether somebody types the lines.
    talks: bool,
    stop: &'m AtomicBool,
}

impl Session<'_> {
    /// Does what a line says: replies to it, or obeys.
    fn take(&mut self, text: &str) -> Result<Next> {
        let text = text.trim();
        let Some(command) = text.strip_prefix(':') else {
            return if text.is_empty() { Ok(Next::Line) } else { self.reply(text) };
        };
        let (command, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (command, rest.trim()) {
            ("quit", "") => return Ok(Next::End(Ending::Done)),
            ("help", "") => tell(COMMANDS),
            ("undo", "") => match self.exchanges.pop() {
                Some(_) => self.write_down()?,
                None => return Err(Error::new("there is nothing to take back")),
            },
            ("reset", "") => {
                self.past.0 += &self.rows();
                self.past.1 += usize::from(!self.exchanges.is_empty());
                self.exchanges.clear();
                self.write_down()?;
            }
            ("greedy", "") => self.search_by(&SearchConfig::Greedy(self.greedy()))?,
            ("beam", width) if !width.is_empty() => {
                let width = width.parse::<u32>().map_err(|_| wrong(":beam N", "a width, as in `:beam 5`"))?;
                if width > WIDEST {
                    return Err(Error::new(format!("`:beam {width}` is wider than {WIDEST}")));
                }
                self.search_by(&SearchConfig::Beam(BeamConfig { width, ..self.beam() }))?;
            }
            ("sample", temperature) if !temperature.is_empty() => {
                let temperature = temperature.parse::<f64>();
                let temperature = temperature.map_err(|_| wrong(":sample T", "a temperature, as in `:sample 0.8`"))?;
                self.search_by(&SearchConfig::Sample(SampleConfig { temperature, ..self.sample() }))?;
            }
            ("facts", file) if !file.is_empty() => {
                check_sources(self.models.first(), true)?;
                self.take_facts(Path::new(file), ":facts")?;
            }
            ("save", file) if !file.is_empty() => {
                is_new(Path::new(file))?;
                self.write_to(Path::new(file))?;
            }
            ("facts" | "save", "") => return Err(wrong(&format!(":{command} FILE"), "its file")),
            ("beam", _) => return Err(wrong(":beam N", "a width, as in `:beam 5`")),
            ("sample", _) => return Err(wrong(":sample T", "a temperature, as in `:sample 0.8`")),
            _ => return Err(Error::new(format!("`{text}` is no command; `:help` tells which there are"))),
        }
        Ok(Next::Line)
    }

    /// Searches in another way from now on; the one that cannot work is not taken.
    fn search_by(&mut self, search: &SearchConfig) -> Result<()> {
        let problems = search.problems();
        if !problems.is_empty() {
            return Err(Error { file: None, problems });
        }
        self.searcher = searcher(self.models, search)?;
        Ok(())
    }

    /// The settings of such a search: the model's own, or else the default with the same limits.
    fn greedy(&self) -> GreedyConfig {
        match &self.models.first().config.search {
            SearchConfig::Greedy(own) => own.clone(),
            other => GreedyConfig { max_length: other.max_length().clone(), ..GreedyConfig::default() },
        }
    }

    fn beam(&self) -> BeamConfig {
        match &self.models.first().config.search {
            SearchConfig::Beam(own) => BeamConfig { n_best: 1, ..own.clone() },
            other => BeamConfig { max_length: other.max_length().clone(), ..BeamConfig::default() },
        }
    }

    fn sample(&self) -> SampleConfig {
        match &self.models.first().config.search {
            SearchConfig::Sample(own) => SampleConfig { draws: 1, ..own.clone() },
            other => SampleConfig { max_length: other.max_length().clone(), ..SampleConfig::default() },
        }
    }

    /// Reads other facts, which were named by `place`; blank lines are none.
    fn take_facts(&mut self, path: &Path, place: &str) -> Result<()> {
        let mut bytes = Vec::new();
        let read = unpacked(opened(path, place)?).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_err(|error| Error::io(path, "read", &error))?;
        let text = text_of(&bytes).map_err(|error| error.in_file(path))?;
        let facts: Vec<String> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        let question = self.searcher.question(1, &["", &facts.join("\n")])?;
        self.limits.check_sources(&question).map_err(|fault| Error::new(fault.to_string()).in_file(path))?;
        self.facts = facts;
        Ok(())
    }

    /// All turns so far, oldest first.
    fn turns(&self) -> Vec<&str> {
        self.exchanges.iter().flat_map(|Exchange { said, reply, .. }| [said.as_str(), reply.as_str()]).collect()
    }

    fn reply(&mut self, said: &str) -> Result<Next> {
        if self.talks {
            // Whoever interrupts means the reply that is being made.
            self.stop.store(false, Ordering::Relaxed);
        }
        let config = &self.models.first().config;
        let source = match config.data.history() {
            Some(_) => History::source(&[self.turns(), vec![said]].concat()),
            None => said.to_owned(),
        };
        let facts = config.streams.contains_key(FACTS).then(|| self.facts.join("\n"));
        let texts: Vec<String> = [source].into_iter().chain(facts).collect();
        // What is drawn is drawn under the number of the turn.
        let question = self.searcher.question(self.exchanges.len() as u64 + 1, &texts)?;
        self.limits.check_sources(&question).map_err(|fault| Error::new(fault.to_string()))?;
        self.warn(said, question.slots())?;
        let to_person = io::stdout().is_terminal();
        let mut out = io::stdout();
        let mut hear = |piece: &str| {
            let piece = one_line(piece);
            let piece = if to_person { printable(&piece) } else { piece.as_str().into() };
            out.write_all(piece.as_bytes())?;
            out.flush()
        };
        let found = attentively(|| self.searcher.answer_telling(&question, self.stop, &mut hear));
        let ended = writeln!(io::stdout()).and_then(|()| io::stdout().flush());
        let left = |error| unwritten(error).map(|()| Next::End(Ending::Done));
        let answer = match found {
            Ok(answer) => answer,
            Err(Failure::Hearer(error)) => return left(error),
            Err(Failure::Model(error)) => return Err(error),
        };
        if let Err(error) = ended {
            return left(error);
        }
        let Some(answer) = answer else {
            if !self.talks {
                return Ok(Next::End(Ending::Interrupted));
            }
            self.stop.store(false, Ordering::Relaxed);
            tell("interrupted: this turn is taken back");
            return Ok(Next::Line);
        };
        self.exchanges.push(Exchange { said: said.to_owned(), reply: answer.text, facts: self.facts.clone() });
        self.write_down()?;
        Ok(Next::Line)
    }

    /// Tells what of a turn the model does not know, and cannot copy either.
    fn warn(&self, said: &str, slots: &[String]) -> Result<()> {
        let SavedModel { config, tokenizers, .. } = self.models.first();
        let tokenizer = config.tokenizer.source.as_ref().or(config.tokenizer.shared.as_ref());
        let unknown = unknown_in(tokenizer, tokenizers.own_source(), said)?;
        let unknown: Vec<String> = unknown.into_iter().filter(|name| !slots.contains(name)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let more = unknown.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let names: Vec<String> = unknown.iter().take(NAMED).map(|name| format!("`{}`", name.escape_debug())).collect();
        tell(&format!("warning: the turn has what the model does not know: {}{more}", names.join(", ")));
        Ok(())
    }

    /// Writes the transcript, if there is one.
    fn write_down(&self) -> Result<()> {
        self.transcript.as_ref().map_or(Ok(()), |path| self.write_to(path))
    }

    fn write_to(&self, path: &Path) -> Result<()> {
        disk::write_atomically(path, (self.past.0.clone() + &self.rows()).as_bytes())
    }

    /// This conversation, as rows of data.
    fn rows(&self) -> String {
        let (mut text, turns) = (String::new(), self.turns());
        let dialog = format!("chat-{}", self.past.1 + 1);
        // An empty reply is no row, but a turn of the rows behind it.
        let spoken = self.exchanges.iter().enumerate().filter(|(_, exchange)| !exchange.reply.trim().is_empty());
        for (i, Exchange { reply, facts, .. }) in spoken {
            let row = Row { dialog: &dialog, context: turns[..=2 * i].to_vec(), facts, response: reply };
            text += &json_line(&row).expect("texts are JSON");
            text += "\n";
        }
        text
    }
}

/// What a command lacks.
fn wrong(command: &str, lacks: &str) -> Error {
    Error::new(format!("`{command}` lacks {lacks}"))
}
