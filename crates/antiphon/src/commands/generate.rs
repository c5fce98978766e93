//! `antiphon generate`: texts that a language model goes on with, as they come.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use antiphon_core::{Error, Place, Result, Special, TokenId, printable};
use antiphon_data::lines::{text_of, unpacked};
use antiphon_decode::SearchConfig;
use antiphon_kernels::attentively;
use serde::Serialize;

use super::lines::opened;
use super::models::Models;
use super::target::{changed, key, section};
use super::{Ending, OnDevice, RunsFolder, Sets, Threads};
use crate::device::start_threads;
use crate::experiment::generation::{Asked, Failure, Generator, Heard, Text};
use crate::experiment::{SavedModel, unknown};
use crate::interrupt;
use crate::output::{json_line, shell, tell, unwritten};

/// Of what a model does not know so much is named.
const NAMED: usize = 10;

/// What makes any search plain sampling.
const SAMPLING: &str = r#"search={replace=true,kind="sample"}"#;

/// Reading so many tokens of a prompt takes a while.
const LONG: usize = 50_000;

/// Let a language model go on with a text, or begin one
///
/// What is generated is written as it comes, without the prompt. A model of single texts writes a line for each; one of running text
/// goes on over line ends, and several texts have a blank line between them. Tokens are drawn as the model's `[search]` says, and by
/// plain sampling if that was left at its default (--set search.kind=beam searches); the same seed draws the same texts. With --json each text gives a line {"text",
/// "log_prob", "seed", "draw", "tokens", "finished"}: the logarithm is that of the tokens behind the prompt, and `draw` its number.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    models: Models,
    /// Go on with this text
    #[arg(long, value_name = "TEXT", conflicts_with = "input", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Go on with the text in this file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// How many texts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// The most tokens of a text [default: the model's search.max_length.limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    length: Option<u32>,
    /// The seed of the draws [default: the model's search.seed, or else its seed]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// As --set search.temperature=T: below 1 the probable becomes more probable, above 1 less
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f64>,
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
struct Line<'a> {
    text: &'a str,
    log_prob: f64,
    seed: u64,
    draw: u64,
    tokens: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<usize>,
    finished: bool,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let threads = self.threads.threads.map(usize::from);
        start_threads(threads)?;
        let (of_search, others): (Vec<String>, Vec<String>) =
            self.sets.set.iter().cloned().partition(|set| section(set) == "search");
        let mut models = self.models.open(&others, &self.runs.runs(), threads, self.device.device)?;
        let what = self.models.name();
        if models.first().config.data.has_source() {
            let message = "is a model that answers sources; `predict` asks it for answers";
            return Err(Error::new(message).in_file(what));
        }
        if self.temperature == Some(0.0) {
            let message =
                "must be more than 0; the most probable token each time is what `--set search.kind=greedy` takes";
            return Err(Error::new(message).at(Place::text("--temperature")));
        }
        let config = &mut models.first_mut().config;
        let sets = self.sets_of_search(of_search, &config.search);
        if !sets.is_empty() {
            *config = changed(config, what, &sets).map_err(|e| e.in_file(what))?;
        }
        let saved = models.first();
        let search = saved.config.search.clone().with_n_best(1)?;
        if self.count > 1 && !search.draws() {
            let message = format!(
                "this search draws nothing, so that all {} texts would be the same: leave --count out, or draw with `--set {}`",
                self.count,
                shell(SAMPLING),
            );
            return Err(Error::new(message).at(Place::text("--count")));
        }
        let generator = Generator::new(&models, &search)?;
        let tokenizers = &models.first().config.tokenizer;
        let tokenizer = tokenizers.target.as_ref().or(tokenizers.shared.as_ref());
        let prompt = self.prompt(&generator, tokenizer.and_then(|tokenizer| tokenizer.separator()))?;
        let (stop, reading) = (interrupt::stop_flag()?, Arc::new(AtomicBool::new(false)));
        interrupt::end_at_once_while(&reading)?;
        let length = self.length.unwrap_or(search.max_length().limit) as usize;
        let mut writer = Writer {
            saved,
            seed: search.seed(saved.config.seed),
            json: self.json,
            endless: generator.is_endless(),
            to_person: io::stdout().is_terminal(),
            out: io::stdout(),
            begun: false,
            at_start: true,
        };
        let rows = saved.config.evaluate.rows as u64;
        for first in (0..self.count).step_by(rows as usize) {
            let draws = first..self.count.min(first + rows);
            let asked = Asked { prompt: &prompt, draws, length };
            let mut hear = |heard: Heard<'_>| {
                reading.store(false, Ordering::Relaxed);
                writer.hear(heard)
            };
            reading.store(true, Ordering::Relaxed);
            let generated = attentively(|| generator.generate(&asked, &stop, &mut hear));
            reading.store(false, Ordering::Relaxed);
            match generated {
                Ok(true) => {}
                Ok(false) => {
                    // What was said of a line stays, and whatever comes next begins a new one.
                    let ended = writer.end_line().map(|()| Ending::Interrupted);
                    return ended.or_else(|error| unwritten(error).map(|()| Ending::Done));
                }
                Err(Failure::Hearer(error)) => return unwritten(error).map(|()| Ending::Done),
                Err(Failure::Model(error)) => return Err(error.in_file(what)),
            }
        }
        Ok(Ending::Done)
    }

    /// What changes the search of a model. One that was left at its default is there for sources; here it is sampling then.
    fn sets_of_search(&self, given: Vec<String>, search: &SearchConfig) -> Vec<String> {
        let of_beam = ["search", "search.kind", "search.width", "search.patience"];
        let chosen = given.iter().any(|set| of_beam.contains(&key(set).trim()));
        let plain = (!chosen && *search == SearchConfig::default()).then(|| SAMPLING.to_owned());
        let option = |name: &str, value: Option<String>| value.map(|value| format!("search.{name}={value}"));
        let seed = option("seed", self.seed.map(|seed| seed.to_string()));
        let temperature = option("temperature", self.temperature.map(|temperature| format!("{temperature:?}")));
        plain.into_iter().chain(given).chain(seed).chain(temperature).collect()
    }

    /// The tokens to go on behind; what the model does not know of them is told, by the words between the tokenizer's `separator`.
    fn prompt(&self, generator: &Generator, separator: Option<&str>) -> Result<Vec<TokenId>> {
        let text = match (&self.prompt, &self.input) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => read(path, generator.is_endless())?,
            (None, None) => String::new(),
        };
        let place = || match &self.input {
            Some(path) => path.display().to_string(),
            None => "--prompt".to_owned(),
        };
        let ids = generator.tokens(&text).map_err(|error| error.at(Place::text(place())))?;
        if ids.is_empty() {
            return Ok(generator.beginning());
        }
        let strange = unknown::positions(&ids).len();
        if strange > 0 {
            let mut names = unknown::named(generator.tokenizer(), &text, separator)?;
            if generator.is_endless() {
                names.retain(|name| name != "\n" && name != "\r");
            }
            let more = names.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let names: Vec<String> =
                names.iter().take(NAMED).map(|name| format!("`{}`", name.escape_debug())).collect();
            tell(&format!(
                "warning: {}: {strange} of {} tokens are unknown to the model, which reads each as {}: {}{more}",
                place(),
                ids.len(),
                Special::Unknown.text(),
                names.join(", ")
            ));
        }
        if ids.len() >= LONG {
            tell(&format!("{}: reading {} tokens", place(), ids.len()));
        }
        Ok(ids)
    }
}

/// The text of a file, plain or gzip. A model of single texts is given no line end behind it.
fn read(path: &Path, endless: bool) -> Result<String> {
    let mut bytes = Vec::new();
    let file = if path == Path::new("-") { unpacked(io::stdin()) } else { unpacked(opened(path, "--input")?) };
    file.and_then(|mut file| file.read_to_end(&mut bytes)).map_err(|error| Error::io(path, "read", &error))?;
    let text = text_of(&bytes).map_err(|error| error.in_file(path))?;
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(line.filter(|_| !endless).unwrap_or(text).to_owned())
}

/// Writes texts as they come.
struct Writer<'a> {
    saved: &'a SavedModel,
    seed: u64,
    json: bool,
    endless: bool,
    to_person: bool,
    out: io::Stdout,
    /// Whether there was a text before.
    begun: bool,
    /// Whether nothing stands in the line.
    at_start: bool,
}

impl Writer<'_> {
    fn hear(&mut self, heard: Heard<'_>) -> io::Result<()> {
        match heard {
            Heard::Piece(_) if self.json => Ok(()),
            Heard::Piece(piece) => self.write(piece),
            Heard::Text(text) if self.json => {
                let token = |&id: &TokenId| self.saved.tokenizers.target().token(id).unwrap_or_default();
                let Text { draw, text, tokens, log_prob, finished } = &text;
                let line = Line {
                    text,
                    log_prob: *log_prob,
                    seed: self.seed,
                    draw: draw + 1,
                    tokens: tokens.iter().map(token).collect(),
                    unknown: unknown::positions(tokens),
                    finished: *finished,
                };
                writeln!(self.out, "{}", json_line(&line)?)?;
                self.out.flush()
            }
            Heard::Text(text) => {
                // One that says nothing is a line all the same.
                if text.text.is_empty() {
                    self.at_start = false;
                }
                self.end_line()?;
                self.begun = true;
                Ok(())
            }
        }
    }

    fn write(&mut self, piece: &str) -> io::Result<()> {
        if std::mem::take(&mut self.begun) && self.endless {
            self.out.write_all(b"\n")?;
        }
        // Whatever a model of single texts says, it stays one line.
        let piece = if self.endless { piece.to_owned() } else { piece.replace(['\n', '\r'], " ") };
        let piece = if self.to_person { printable(&piece) } else { piece.as_str().into() };
        self.at_start = piece.ends_with('\n');
        self.out.write_all(piece.as_bytes())?;
        self.out.flush()
    }

    /// Ends the line, if anything stands in it.
    fn end_line(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.at_start, true) {
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }
}
