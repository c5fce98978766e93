//! Recordings that are longer than what a model has learned from: cut at pauses, answered piece by piece, put together again.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use antiphon_core::{Result, Source};
use antiphon_data::Fault;
use antiphon_decode::rename_sources;
use antiphon_sound::{Piece, Pieces};
use rayon::prelude::*;
use serde::Serialize;

use super::Transcript;
use crate::commands::lines::Limits;
use crate::console::Console;
use crate::experiment::{Answer, Listener, Question, Searcher, to_millisecond};

/// How many pieces are searched together: they are long.
const ROWS: usize = 4;

/// A piece of a recording that was cut, and what it says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Part {
    /// In seconds from the beginning of the file.
    start: f64,
    end: f64,
    text: String,
}

/// Who answers long recordings.
pub(super) struct Long<'a> {
    pub(super) searcher: &'a Searcher<'a>,
    pub(super) listener: &'a Listener,
    pub(super) limits: &'a Limits,
    /// The longest piece.
    pub(super) max_seconds: f64,
}

/// A piece as a model hears it.
struct Heard {
    start: f64,
    end: f64,
    /// What is asked about it, or why that cannot be.
    question: Result<Question, Fault>,
    is_silent: bool,
}

impl Long<'_> {
    /// What is said in a file, the `number`th that is transcribed, or why that cannot be told. Few pieces are in memory at once.
    ///
    /// # Errors
    /// If the model fails.
    pub(super) fn transcribe(
        &self,
        number: u64,
        path: &Path,
        console: &mut Console,
    ) -> Result<Result<Transcript, String>> {
        let mut pieces = match Pieces::open(path, self.max_seconds) {
            Ok(pieces) => pieces,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let all = pieces.seconds();
        let (mut parts, mut answers, mut silence) = (Vec::new(), Vec::new(), None);
        loop {
            let some: Result<Vec<Piece>> = pieces.by_ref().take(ROWS * rayon::current_num_threads()).collect();
            let some = match some {
                Ok(some) if some.is_empty() => break,
                Ok(some) => some,
                Err(error) => return Ok(Err(error.to_string())),
            };
            let first = parts.len() as u64;
            let heard = some.into_par_iter().enumerate();
            // What is drawn for a piece is drawn under its own number in its file's.
            let heard: Vec<Heard> =
                heard.map(|(i, piece)| self.hear(number | (first + i as u64) << 32, piece)).collect();
            for Heard { question, is_silent, .. } in &heard {
                match question {
                    Ok(_) => {}
                    Err(fault) if *is_silent => silence = Some(fault.to_string()),
                    Err(fault) => return Ok(Err(format!("{}: {fault}", path.display()))),
                }
            }
            let questions: Vec<Question> = heard.iter().filter_map(|heard| heard.question.clone().ok()).collect();
            let found = self.searcher.answer_in(ROWS, &questions, &AtomicBool::new(false), &mut |_| {});
            let found = found.map_err(|error| rename_sources(error, |_| path.display().to_string()))?;
            let mut found = found.unwrap_or_default().into_iter();
            for Heard { start, end, question, .. } in heard {
                let best = question.ok().and_then(|_| found.next()?.answers.into_iter().next());
                let text = best.as_ref().map_or_else(String::new, |best| best.text.clone());
                parts.push(Part { start: to_millisecond(start), end: to_millisecond(end), text });
                answers.extend(best.map(|mut best| {
                    best.words.iter_mut().for_each(|word| word.later(start));
                    best
                }));
                if let Some(all) = all {
                    let doing = format!("{}: seconds transcribed", path.display());
                    console.progress(&doing, end.round() as u64, all.round() as u64);
                }
            }
        }
        console.clear();
        Ok(match (silence, answers.is_empty()) {
            (Some(fault), true) => Err(format!("{}: {fault}", path.display())),
            _ => {
                let end = parts.last().map(|part| part.end);
                Ok(Transcript { answers: vec![joined(answers)], pieces: parts, end, skipped: None })
            }
        })
    }

    fn hear(&self, number: u64, piece: Piece) -> Heard {
        let (start, is_silent) = (piece.begins(), piece.is_silent());
        let end = start + piece.sound.seconds();
        let within = |source: Source| {
            let question = Question::of_recording(number, source);
            self.limits.check_sources(&question).map(|()| question)
        };
        Heard { start, end, question: self.listener.hear_sound(piece.sound).and_then(within), is_silent }
    }
}

/// What the pieces say together: their texts with a space between them.
fn joined(pieces: Vec<Answer>) -> Answer {
    let texts: Vec<&str> = pieces.iter().map(|piece| piece.text.trim()).filter(|text| !text.is_empty()).collect();
    Answer {
        text: texts.join(" "),
        score: pieces.iter().map(|piece| piece.score).sum(),
        log_prob: pieces.iter().map(|piece| piece.log_prob).sum(),
        finished: pieces.iter().all(|piece| piece.finished),
        words: pieces.into_iter().flat_map(|piece| piece.words).collect(),
        // Neither unknown tokens nor attention are counted through.
        ..Answer::default()
    }
}
