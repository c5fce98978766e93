//! `antiphon transcribe`: write down what is said in recordings.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use antiphon_core::{Error, Place, Result, Source, printable};
use antiphon_data::Spoken;
use antiphon_decode::rename_sources;
use rayon::prelude::*;
use serde::Serialize;

use super::lines::Limits;
use super::subtitles::{Form, subtitles};
use super::target::{Begin, Target};
use super::{Ending, OnDevice, RunsFolder, Sets, Threads};
use crate::device::start_threads;
use crate::experiment::{Answer, Clock, Listener, Question, SavedModels, Searcher};
use crate::output::{json_line, one_line, tell, unwritten};

/// How many batches a thread are answered together.
const TOGETHER: usize = 4;

/// Write down what is said in recordings
///
/// A line for each file, in the order given; of several files each line begins with the file's name and a tab. With --json each
/// file gives a line {"path": …, "answers": [{"text", "score", "log_prob", "finished", "words"}, …]}, best answer first; `words`,
/// [{"word", "start", "end", "confidence"}, …] in seconds, is told by a model with CTC, which subtitles need too. Recordings that
/// a table names are transcribed by `predict --input TABLE`.
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

/// A line of JSON.
#[derive(Serialize)]
struct Transcribed<'a> {
    path: &'a Path,
    answers: &'a [Answer],
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let threads = self.threads.threads.map(usize::from);
        start_threads(threads)?;
        let begin = Begin { threads, begin: &|_| Ok(()) };
        let target = Target::find(&self.what, &self.sets.set, &self.runs.runs(), &[], &begin)?;
        let models = target.open(self.device.device)?;
        let saved = models.first();
        let listener = Listener::of(&saved.config, None)?.ok_or_else(|| {
            let message = "was trained on text, and hears nothing; `predict` answers lines, and a model of recordings has \
                           `data.kind = \"manifest\"`";
            Error::new(message).in_file(&self.what)
        })?;
        let clock = self.clock(&models)?;
        let (rows, limits) = (saved.config.evaluate.rows, Limits::of(&models));
        let search = &saved.config.search;
        let searcher = Searcher::new(&models, &saved.tokenizers, search, saved.config.seed, rows)?.with_words(clock);
        let hear = |number: usize, path: &PathBuf| {
            let heard = listener.hear(Spoken { path: path.clone(), start: None, end: None });
            let within = |source: Source| {
                let question = Question::of_recording(number as u64, source);
                let fits = limits.check_sources(&question).map_err(|fault| format!("{}: {fault}", path.display()));
                fits.map(|()| question)
            };
            heard.map_err(|fault| fault.to_string()).and_then(within)
        };
        let mut out = io::stdout();
        let most = rows * TOGETHER * rayon::current_num_threads();
        // What is drawn for a file is drawn under its number, whichever files are answered with it.
        for (first, files) in (1..).step_by(most).zip(self.files.chunks(most)) {
            let numbered = files.par_iter().enumerate();
            let mut heard: Vec<Result<Question, String>> = numbered.map(|(i, path)| hear(first + i, path)).collect();
            let bad = heard.iter().position(Result::is_err).filter(|_| !self.skip_bad);
            // What comes before is written.
            let rest = bad.map(|bad| heard.split_off(bad));
            let good = heard.iter().enumerate().filter_map(|(i, question)| Some((i, question.clone().ok()?)));
            let (places, questions): (Vec<usize>, Vec<Question>) = good.unzip();
            let named = |i: usize| files[places[i]].display().to_string();
            let never = AtomicBool::new(false);
            let answers = searcher.answer(&questions, &never, &mut |_| {});
            let mut answers = answers.map_err(|error| rename_sources(error, named))?.unwrap_or_default().into_iter();
            let mut text = String::new();
            for (path, heard) in files.iter().zip(&heard) {
                let found =
                    heard.as_ref().ok().and_then(|_| answers.next()).map_or_else(Vec::new, |found| found.answers);
                if let Err(fault) = heard {
                    tell(&format!("warning: {fault}"));
                }
                text += &self.written(path, &found, heard.as_ref().err())?;
            }
            if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                return unwritten(error).map(|()| Ending::Done);
            }
            if let Some(Err(fault)) = rest.into_iter().flatten().next() {
                return Err(Error::new(format!("{fault}; --skip-bad passes over such files")).at(Place::Whole));
            }
        }
        Ok(Ending::Done)
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

    /// What is written of a file: a line, or its subtitles.
    fn written(&self, path: &Path, found: &[Answer], fault: Option<&String>) -> Result<String> {
        if self.json {
            let line = Transcribed { path, answers: found, skipped: fault.cloned() };
            return json_line(&line).map(|line| line + "\n").map_err(|e| Error::new(e.to_string()));
        }
        let best = found.first();
        let text = match self.subtitles() {
            Some((form, _)) => subtitles(best.map_or(&[], |answer| answer.words.as_slice()), form),
            None => {
                // Whatever the model says, it stays one line.
                let text = best.map_or(String::new(), |answer| one_line(&answer.text));
                (if self.files.len() > 1 { format!("{}\t{text}", path.display()) } else { text }) + "\n"
            }
        };
        Ok(if io::stdout().is_terminal() { printable(&text).into_owned() } else { text })
    }
}
