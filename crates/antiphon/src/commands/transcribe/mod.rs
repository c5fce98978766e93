//! `antiphon transcribe`: write down what is said in recordings.

mod long;
mod subtitles;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use antiphon_core::{Error, Place, Result, printable};
use antiphon_data::Spoken;
use antiphon_decode::rename_sources;
use antiphon_lab::{Run, Runs};
use antiphon_sound::SHORTEST_LIMIT;
use rayon::prelude::*;
use serde::Serialize;

use self::long::{Long, Part};
use self::subtitles::{Form, subtitles};
use super::lines::Limits;
use super::target::{Begin, Target};
use super::{Ending, OnDevice, RunsFolder, Sets, Threads};
use crate::console::Console;
use crate::device::start_threads;
use crate::experiment::{Answer, Clock, Listener, Question, SavedModels, Searcher};
use crate::output::{json_line, one_line, tell, unwritten};

/// How many batches a thread are answered together.
const TOGETHER: usize = 4;

/// Write down what is said in recordings
///
/// A line for each file, in the order given; of several files each line begins with the file's name and a tab. With --json each
/// file gives a line {"path": …, "answers": [{"text", "score", "log_prob", "finished", "words"}, …]}, best answer first; `words`,
/// [{"word", "start", "end", "confidence"}, …] in seconds, is told by a model with CTC, which subtitles need too. A long recording
/// is cut at its pauses; with --json its line says where: "pieces": [{"start", "end", "text"}, …]. Recordings that a table names are
/// transcribed by `predict --input TABLE`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A run's folder, a model file, or a config that has been run
    #[arg(value_name = "RUN|MODEL|CONFIG")]
    what: PathBuf,
    /// The recordings: wav or flac, or features in the form that the model has learned from
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Write JSON lines
    #[arg(long)]
    json: bool,
    /// Write subtitles of one recording in the form of SubRip
    #[arg(long, conflicts_with_all = ["json", "vtt"])]
    srt: bool,
    /// Write subtitles of one recording in the form of WebVTT
    #[arg(long, conflicts_with = "json")]
    vtt: bool,
    /// Cut recordings at pauses that are longer, or longer than the model's settings allow (`data.max_frames`,
    /// `features.max_seconds`)
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = max_seconds)]
    max_seconds: f64,
    /// Leave the line of a file empty that cannot be used, and say why, instead of stopping there
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

/// Whether a path is that of a model, as commands take it.
fn is_model(path: &Path, runs: &Runs) -> bool {
    let is_run = |folder: &Path| folder.is_dir() && Run::open(folder).is_ok();
    let is_file = path.extension().is_some_and(|ending| ending == "safetensors" || ending == "toml") && path.is_file();
    is_file || is_run(path) || !path.exists() && is_run(&runs.root().join(path))
}

fn max_seconds(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok().filter(|seconds: &f64| seconds.is_finite());
    let seconds = seconds.filter(|&seconds| seconds >= SHORTEST_LIMIT);
    seconds.ok_or_else(|| format!("write seconds, {SHORTEST_LIMIT} at least"))
}

/// A line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    path: &'a Path,
    answers: &'a [Answer],
    #[serde(skip_serializing_if = "<[Part]>::is_empty")]
    pieces: &'a [Part],
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<&'a str>,
}

/// What was found in a file.
#[derive(Default)]
struct Transcript {
    /// Best first.
    answers: Vec<Answer>,
    /// Of a recording that was cut.
    pieces: Vec<Part>,
    /// Where the recording ends, in seconds, if subtitles are asked for.
    end: Option<f64>,
    /// Why there is nothing.
    skipped: Option<String>,
}

/// What is to be answered about a file.
enum Heard {
    Whole(Box<Question>),
    /// It is too long to be answered as a whole.
    Long,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let threads = self.threads.threads.map(usize::from);
        let runs = self.runs.runs();
        self.check_files(&runs)?;
        start_threads(threads)?;
        let begin = Begin::quietly(threads);
        let target = Target::find(&self.what, &self.sets.set, &runs, &[], &begin)?;
        let models = target.open(self.device.device)?;
        let saved = models.first();
        models.check_search(&saved.config.search)?;
        let listener = Listener::of(&saved.config, None)?.ok_or_else(|| {
            let message = "was trained on text, and hears nothing; `predict` answers lines, and a model of recordings has \
                           `data.kind = \"manifest\"`";
            Error::new(message).in_file(&self.what)
        })?;
        let clock = self.clock(&models)?;
        let (rows, limits) = (saved.config.evaluate.rows, Limits::of(&models));
        let search = &saved.config.search;
        let searcher = Searcher::new(&models, &saved.tokenizers, search, saved.config.seed, rows)?.with_words(clock);
        let max_seconds = self.max_seconds.min(listener.max_seconds(limits.max_frames()));
        let long = Long { searcher: &searcher, listener: &listener, limits: &limits, max_seconds };
        let hear = |number: u64, path: &PathBuf| -> Result<Heard, String> {
            if listener.is_longer(path, max_seconds) {
                return Ok(Heard::Long);
            }
            let source = listener.hear(Spoken { path: path.clone(), start: None, end: None });
            let question = Question::of_recording(number, source.map_err(|fault| fault.to_string())?);
            limits.check_sources(&question).map_err(|fault| format!("{}: {fault}", path.display()))?;
            Ok(Heard::Whole(Box::new(question)))
        };
        let mut console = Console::new(false);
        let most = rows * TOGETHER * rayon::current_num_threads();
        // What is drawn for a file is drawn under its number, whichever files are answered with it.
        for (first, files) in (1..).step_by(most).zip(self.files.chunks(most)) {
            let numbered = files.par_iter().enumerate();
            let mut heard: Vec<Result<Heard, String>> =
                numbered.map(|(i, path)| hear(first + i as u64, path)).collect();
            if !self.skip_bad
                && let Some(bad) = heard.iter().position(Result::is_err)
            {
                // Of what comes behind it nothing is written.
                heard.truncate(bad + 1);
            }
            let of_whole = |(i, heard): (usize, &Result<Heard, String>)| match heard {
                Ok(Heard::Whole(question)) => Some((i, question.as_ref().clone())),
                Ok(Heard::Long) | Err(_) => None,
            };
            let (places, questions): (Vec<usize>, Vec<Question>) =
                heard.iter().enumerate().filter_map(of_whole).unzip();
            let named = |i: usize| files[places[i]].display().to_string();
            let never = AtomicBool::new(false);
            let answers = searcher.answer(&questions, &never, &mut |_| {});
            let mut answers = answers.map_err(|error| rename_sources(error, named))?.unwrap_or_default().into_iter();
            for ((number, path), heard) in (first..).zip(files).zip(heard) {
                let found = match heard {
                    Ok(Heard::Whole(question)) => {
                        let answers = answers.next().map_or_else(Vec::new, |found| found.answers);
                        let end = || listener.seconds(path, question.sources[0].len());
                        Ok(Transcript { answers, end: self.subtitles().map(|_| end()), ..Transcript::default() })
                    }
                    Ok(Heard::Long) => long.transcribe(number, path, &mut console)?,
                    Err(fault) => Err(fault),
                };
                let found = found.or_else(|fault| self.passed_over(fault))?;
                let mut out = io::stdout().lock();
                let text = self.written(path, &found, out.is_terminal())?;
                if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                    return unwritten(error).map(|()| Ending::Done);
                }
            }
        }
        Ok(Ending::Done)
    }

    /// That none of the files is a model, as of somebody who names several.
    fn check_files(&self, runs: &Runs) -> Result<()> {
        let Some(model) = self.files.iter().find(|file| is_model(file, runs)) else { return Ok(()) };
        let message = "is a model and no recording: one model transcribes files. Several together answer the recordings that a table \
                       names, with `predict`, which takes a list of models and `--input TABLE`; or join them into one file \
                       with `sweep --keep-ensemble`, which transcribes";
        Err(Error::new(message).in_file(model))
    }

    /// By which words get their times, where that is asked.
    fn clock(&self, models: &SavedModels) -> Result<Option<Clock>> {
        let clock = Clock::of(&models.first().config).filter(|_| models.members().len() == 1);
        let Some((_, option)) = self.subtitles() else { return Ok(clock.filter(|_| self.json)) };
        let refused = |message: &str| Err(Error::new(message).at(Place::text(option)));
        if self.files.len() > 1 {
            return refused("subtitles are those of one recording: give one file");
        }
        if clock.is_none() {
            return refused("only a single model with CTC (`[model.ctc]`) tells when its words are said");
        }
        Ok(clock)
    }

    /// In which form subtitles are to be written, and the option that says so.
    fn subtitles(&self) -> Option<(Form, &'static str)> {
        let all = [(self.srt, (Form::Srt, "--srt")), (self.vtt, (Form::Vtt, "--vtt"))];
        all.into_iter().find_map(|(is_asked, form)| is_asked.then_some(form))
    }

    /// What stands for a file that cannot be used, if such are passed over.
    fn passed_over(&self, fault: String) -> Result<Transcript> {
        if !self.skip_bad {
            return Err(Error::new(format!("{fault}; --skip-bad passes over such files")).at(Place::Whole));
        }
        tell(&format!("warning: {fault}"));
        Ok(Transcript { skipped: Some(fault), ..Transcript::default() })
    }

    /// What is written of a file: a line, or its subtitles.
    fn written(&self, path: &Path, found: &Transcript, to_person: bool) -> Result<String> {
        let Transcript { answers, pieces, end, skipped } = found;
        if self.json {
            let line = Line { path, answers, pieces, skipped: skipped.as_deref() };
            return json_line(&line).map(|line| line + "\n").map_err(|e| Error::new(e.to_string()));
        }
        let (text, words) = answers.first().map_or(("", &[][..]), |best| (best.text.as_str(), best.words.as_slice()));
        let text = match self.subtitles() {
            Some((form, _)) => {
                if words.is_empty() && !text.trim().is_empty() {
                    let why = "its answer has more tokens than the encoder has steps, and no times";
                    tell(&format!("warning: {}: {why}", path.display()));
                }
                subtitles(words, form, *end)
            }
            // Whatever the model says, it stays one line.
            None if self.files.len() > 1 => format!("{}\t{}\n", path.display(), one_line(text)),
            None => one_line(text) + "\n",
        };
        Ok(if to_person { printable(&text).into_owned() } else { text })
    }
}
