//! Some recordings as a page shows them: what the model hears, when it hears its answer, and where its decoder looks.

use std::path::Path;

use antiphon_core::{Result, Source};
use antiphon_data::{Corpus, Split, Spoken};
use antiphon_decode::Hypothesis;
use antiphon_lab::{Example, Hearing};

use super::answers::{Question, Searcher};
use super::evaluation::Answered;
use super::findings::{as_answered, candidate, telling};
use super::words::{Clock, Timeline};
use super::{ExperimentConfig, Listener, SavedModel};

/// How many are listened to once more: their figures are large.
const HEARD: usize = 6;

/// Answers to recordings of a split as examples. The first few are searched again, each by itself, if the recordings still lie below
/// `data_dir` and are answered as before; else they are told as they were answered, and why.
///
/// # Errors
/// If the model fails.
pub(super) fn spoken_examples(
    split: &str,
    chosen: &[&Answered],
    saved: &SavedModel,
    data_dir: &Path,
) -> Result<(Vec<Example>, Option<String>)> {
    let SavedModel { config, tokenizers, model, .. } = saved;
    let (heard, note) = match heard(split, chosen, config, data_dir) {
        Ok(heard) => (heard, None),
        Err(error) => (Vec::new(), Some(format!("What the model hears is not shown: {error}"))),
    };
    let search = telling(&config.search)?;
    let searcher = Searcher::new(model, tokenizers, &search, config.seed, config.evaluate.rows)?;
    let target = tokenizers.target().as_ref();
    let mut examples = Vec::with_capacity(chosen.len());
    let mut heard = heard.into_iter();
    for &answered in chosen {
        let plain = as_answered(answered);
        let Some(source) = heard.next().flatten() else {
            examples.push(plain);
            continue;
        };
        let question = Question::of_recording(answered.line as u64, source);
        let (found, said) = searcher.search_heard(&searcher.request(&question))?;
        let best = found.hypotheses.first().map(|best| searcher.text(&question, &best.tokens)).unwrap_or_default();
        if best != answered.best() {
            examples.push(plain);
            continue;
        }
        let mut hearing = hearing(&question.sources[0], config);
        if let (Some(clock), Some(said), Some(best)) = (Clock::of(config), said, found.hypotheses.first()) {
            let line = Timeline { clock, said, frames: question.sources[0].len() };
            hearing.tokens = line.tokens(target, &best.tokens);
            let words = line.words(target, &best.tokens, answered.best());
            hearing.words = words.into_iter().map(|word| word.into()).collect();
        }
        let told = |h: Hypothesis| {
            let text = searcher.text(&question, &h.tokens);
            candidate(h, text, &answered.references, target, question.slots())
        };
        let candidates = found.hypotheses.into_iter().map(told).collect();
        examples.push(Example { candidates, hearing: Some(hearing), ..plain });
    }
    Ok((examples, note))
}

/// What the model is shown of the first of these, where it can still be heard.
fn heard(split: &str, chosen: &[&Answered], config: &ExperimentConfig, data_dir: &Path) -> Result<Vec<Option<Source>>> {
    let splits = [Split::Train, Split::Validation, Split::Test];
    let split = splits.into_iter().find(|one| one.name() == split).filter(|&split| config.data.has(split));
    let (Some(split), Some(listener)) = (split, Listener::of(config, None)?) else { return Ok(Vec::new()) };
    let corpus = Corpus::open_with(&config.data, &config.further_columns(), split, data_dir)?;
    let recordings = corpus.recordings()?;
    let of_line = |answered: &&Answered| -> Result<Option<Spoken>> {
        for (i, spoken) in recordings.iter().enumerate().filter(|&(i, _)| corpus.place(i).1 == answered.line) {
            if corpus.get(i)?.source.as_ref() == Some(&answered.source) {
                return Ok(Some(spoken.clone()));
            }
        }
        Ok(None)
    };
    let first = chosen.iter().take(HEARD);
    first.map(|answered| Ok(of_line(answered)?.and_then(|spoken| listener.hear(spoken).ok()))).collect()
}

/// The features of a recording, without their changes.
fn hearing(source: &Source, config: &ExperimentConfig) -> Hearing {
    let (blocks, hop) = config.features.as_ref().map_or((1, 0.01), |of| (of.blocks(), of.hop_seconds()));
    let frames = match source {
        Source::Frames { values, features } => {
            values.chunks_exact(*features).map(|frame| frame[..features / blocks].to_vec()).collect()
        }
        Source::Tokens(_) => Vec::new(),
    };
    let step = hop * config.reductions()[0] as f64;
    Hearing { frames, hop, step, words: Vec::new(), tokens: Vec::new() }
}
