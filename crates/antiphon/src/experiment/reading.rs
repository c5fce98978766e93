//! How a model reads stories: how much each sentence counts for its question, and whether those that count support the answer.

use std::collections::BTreeMap;

use antiphon_core::{Error, Result, Score, SourceBatch, TokenBatch};
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
/// If the model fails, or a cell of that column names something else.
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
            let sentences = answered.texts()[source].lines().map(str::to_owned).collect();
            let support = support.map(|column| supporting(answered, column)).transpose()?.flatten();
            readings.push(Reading { sentences, looks, support });
        }
    }
    Ok(Some(readings))
}

/// The sentences that a column names, counted from 0; `None` where it is empty.
fn supporting(answered: &Answered, column: &str) -> Result<Option<Vec<usize>>> {
    let Some(cell) = answered.columns.get(column).and_then(|values| values.first()) else { return Ok(None) };
    let place = |text: &str| {
        let place = text.parse::<usize>().ok().and_then(|place| place.checked_sub(1));
        place.ok_or_else(|| {
            let line = answered.line;
            let message = format!(
                "the column `{column}` names no sentence by `{text}` (in line {line}): it should hold the places of supporting \
                 sentences, counted from 1"
            );
            Error::new(message).at("evaluate.support")
        })
    };
    let named = |c: char| c.is_whitespace() || c == ',';
    let places = cell.split(named).filter(|text| !text.is_empty()).map(place).collect::<Result<Vec<_>>>()?;
    Ok((!places.is_empty()).then_some(places))
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
