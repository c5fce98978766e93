//! How a model reads stories: how much each sentence counts for its question, and whether those that count support the answer.

use std::collections::BTreeMap;

use antiphon_core::{Result, Score, SourceBatch, TokenBatch};
use antiphon_lab::Reading;
use antiphon_model::SourceLooks;

use super::Tokenizers;
use super::answering::Answering;
use super::answers::encoded;
use super::evaluation::Answered;

/// How many stories are read together.
const ROWS: usize = 64;

/// The name of the share of supporting sentences that are among those that count most.
pub(super) const SUPPORT: &str = "support";

/// How the model reads each of these stories; `None` of one whose encoders read no question. `support`: the column that names the
/// sentences by which a question is answered, counted from 1.
///
/// # Errors
/// If the model fails.
pub(super) fn readings(
    model: &dyn Answering,
    tokenizers: &Tokenizers,
    answered: &[&Answered],
    support: Option<&str>,
) -> Result<Option<Vec<Reading>>> {
    let mut readings = Vec::with_capacity(answered.len());
    for chunk in answered.chunks(ROWS) {
        let texts = chunk.iter().map(|answered| encoded(tokenizers.sources(), &answered.texts()));
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let streams = texts.first().map_or(0, Vec::len);
        let rows = |stream: usize| texts.iter().map(|texts| texts[stream].as_slice()).collect::<Vec<_>>();
        let batch = |stream| SourceBatch::Tokens(TokenBatch::from_rows(&rows(stream)));
        let Some(SourceLooks { source, rows }) = model.looks(&(0..streams).map(batch).collect::<Vec<_>>())? else {
            return Ok(None);
        };
        for (answered, looks) in chunk.iter().zip(rows) {
            // As the tokenizer has them.
            let sentences: Vec<String> = answered.texts()[source].split('\n').map(str::to_owned).collect();
            let support = support.and_then(|column| supporting(answered, column, sentences.len()));
            readings.push(Reading { sentences, looks, support });
        }
    }
    Ok(Some(readings))
}

/// Which of so many sentences a column names, counted from 0; `None` where it names none, or something else.
fn supporting(answered: &Answered, column: &str, sentences: usize) -> Option<Vec<usize>> {
    let places = places(answered.columns.get(column)?.first()?, sentences)?;
    (!places.is_empty()).then_some(places)
}

/// The places, counted from 1, in a cell; `None` if something else stands there.
fn places(cell: &str, sentences: usize) -> Option<Vec<usize>> {
    let place = |text: &str| text.parse::<usize>().ok()?.checked_sub(1).filter(|&place| place < sentences);
    let named = |c: char| c.is_whitespace() || c == ',';
    let mut places = cell.split(named).filter(|text| !text.is_empty()).map(place).collect::<Option<Vec<_>>>()?;
    places.sort_unstable();
    places.dedup();
    Some(places)
}

/// What to say of rows whose cell of that column names something else than sentences: they count nothing.
pub(super) fn odd_support(answered: &[Answered], column: &str) -> Option<String> {
    let is_odd = |answered: &&Answered| {
        let sentences = answered.source.split('\n').count();
        let cell = answered.columns.get(column).and_then(|values| values.first());
        cell.is_some_and(|cell| places(cell, sentences).is_none())
    };
    let first = answered.iter().find(is_odd)?;
    Some(format!(
        "in {} rows, the first in line {}, the column `{column}` (evaluate.support) names no sentences: it should hold their places, \
         counted from 1; these rows count nothing for `{SUPPORT}`",
        answered.iter().filter(is_odd).count(),
        first.line
    ))
}

/// The share of supporting sentences that are among as many that count most in any layer or look: the mean over questions, in percent.
/// `None` where no question names supporting sentences.
pub(super) fn support(readings: &[Reading]) -> Option<Score> {
    let shares: Vec<f64> = readings.iter().filter_map(found).collect();
    let value = 100.0 * shares.iter().sum::<f64>() / shares.len() as f64;
    (!shares.is_empty()).then(|| Score {
        metric: SUPPORT.into(),
        value,
        signature: "R-precision of the supporting sentences, by the most that a sentence counts in any layer or look"
            .into(),
        parts: BTreeMap::from([("questions".to_owned(), shares.len() as u64)]),
    })
}

/// Of one question; of sentences that count alike, the first come first.
fn found(reading: &Reading) -> Option<f64> {
    let support = reading.support.as_ref()?;
    let all = reading.sentences.len();
    let counts = |n: usize| {
        let of = |look: &Vec<f32>| n.checked_sub(all.saturating_sub(look.len())).and_then(|n| look.get(n).copied());
        reading.looks.iter().filter_map(of).fold(0.0, f32::max)
    };
    let mut places: Vec<usize> = (0..all).collect();
    places.sort_by(|&a, &b| counts(b).total_cmp(&counts(a)));
    places.truncate(support.len());
    let hits = places.iter().filter(|place| support.contains(place)).count();
    Some(hits as f64 / support.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(looks: &[&[f32]], support: Option<&[usize]>) -> Reading {
        Reading {
            sentences: vec!["s".into(); 4],
            looks: looks.iter().map(|look| look.to_vec()).collect(),
            support: support.map(<[usize]>::to_vec),
        }
    }

    #[test]
    fn as_many_sentences_are_looked_for_as_support_the_answer() {
        assert_eq!(found(&read(&[&[0.1, 0.9, 0.2, 0.0]], Some(&[1]))), Some(1.0));
        assert_eq!(found(&read(&[&[0.1, 0.9, 0.2, 0.0]], Some(&[0]))), Some(0.0));
        // Any look will do.
        assert_eq!(found(&read(&[&[0.1, 0.9, 0.2, 0.0], &[0.0, 0.0, 0.0, 0.8]], Some(&[1, 3]))), Some(1.0));
        assert_eq!(found(&read(&[&[0.1, 0.9, 0.2, 0.0]], Some(&[0, 1]))), Some(0.5));
        // Of a long story the last sentences are read.
        assert_eq!(found(&read(&[&[0.1, 0.9]], Some(&[3]))), Some(1.0));
        let all =
            [read(&[&[1.0, 0.0, 0.0, 0.0]], Some(&[0])), read(&[&[1.0, 0.0, 0.0, 0.0]], Some(&[2])), read(&[], None)];
        let score = support(&all).unwrap();
        assert_eq!((score.value, score.parts["questions"]), (50.0, 2));
        assert_eq!(support(&all[2..]), None);
    }
}
