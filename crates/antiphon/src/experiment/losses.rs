//! Where the loss of a language model lies: by place, by how often a token was learned from, and at its worst.

use std::collections::BTreeMap;

use antiphon_core::{Batch, Result, Special, TokenId, Tokenizer};
use antiphon_kernels::TokenScores;
use antiphon_lab::{LossBin, TokenLosses, WorstToken};

use super::data::{Context, Encoded};

/// How many of the worst predictions are shown.
const WORST: usize = 12;
/// How many tokens before one are shown.
const CONTEXT: usize = 40;

/// Tokens and their nats.
type Sum = (u64, f64);
/// The least and the most of some numbers.
type Range = (u64, u64);

/// What is kept of the scores of a split.
#[derive(Default)]
pub(super) struct Tally {
    /// How far each row is in its line.
    places: Vec<u64>,
    by_place: BTreeMap<Range, Sum>,
    by_window: BTreeMap<Range, Sum>,
    by_token: BTreeMap<TokenId, Sum>,
    /// Of each token the place where it was least expected: the nats, the batch's example, and how far behind it.
    worst: BTreeMap<TokenId, (f32, usize, usize)>,
}

impl Tally {
    /// Takes in the scores of a batch of texts, or of running text that is read on.
    pub(super) fn add(&mut self, batch: &Batch, scores: &TokenScores) {
        self.places.resize(batch.target.rows(), 0);
        for Scored { row, step, label, nats } in scored(batch, scores) {
            let goes_on = batch.continues.get(row).copied().unwrap_or(false);
            let place = if step == 0 && !goes_on { 1 } else { self.places[row] + 1 };
            count(&mut self.by_place, octave(place), nats);
            count(&mut self.by_token, label, nats);
            self.places[row] = if label == Special::End.id() { 0 } else { place };
            let worst = self.worst.entry(label).or_insert((f32::NEG_INFINITY, 0, 0));
            if nats > worst.0 {
                *worst = (nats, batch.examples[row], step);
            }
        }
    }

    /// Takes in the scores of windows.
    pub(super) fn add_windows(&mut self, batch: &Batch, scores: &TokenScores) {
        for Scored { step, nats, .. } in scored(batch, scores) {
            count(&mut self.by_window, octave(step as u64 + 1), nats);
        }
    }

    /// What it shows; `learned` is how often each token stands in the text that was learned from, where that is known.
    ///
    /// # Errors
    /// If the corpus cannot be read.
    pub(super) fn finish(
        self,
        encoded: &Encoded,
        tokenizer: &dyn Tokenizer,
        learned: Option<&[u64]>,
    ) -> Result<TokenLosses> {
        let mut by_frequency: BTreeMap<Range, Sum> = BTreeMap::new();
        for (&token, &(tokens, nats)) in self.by_token.iter().filter(|_| learned.is_some()) {
            let times = learned.and_then(|learned| learned.get(token as usize)).copied().unwrap_or(0);
            let sum = by_frequency.entry(decade(times)).or_default();
            *sum = (sum.0 + tokens, sum.1 + nats);
        }
        let mut worst: Vec<_> = self.worst.into_iter().collect();
        worst.sort_by(|(a, m), (b, n)| n.0.total_cmp(&m.0).then(a.cmp(b)));
        let shown = |(token, (nats, example, behind)): (TokenId, (f32, usize, usize))| {
            let Context { file, line, before } = encoded.context(example, behind, CONTEXT)?;
            let written = |id: TokenId| tokenizer.token(id).unwrap_or_default();
            Ok(WorstToken {
                file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                line,
                before: lines(&before, tokenizer),
                token: written(token),
                nats: f64::from(nats),
            })
        };
        Ok(TokenLosses {
            by_place: bins(self.by_place),
            by_window: bins(self.by_window),
            by_frequency: bins(by_frequency),
            worst: worst.into_iter().take(WORST).map(shown).collect::<Result<_>>()?,
        })
    }
}

/// A token of a batch with its score.
struct Scored {
    row: usize,
    step: usize,
    label: TokenId,
    nats: f32,
}

/// The real tokens of a batch, row after row, as they are scored.
fn scored<'b>(batch: &'b Batch, scores: &'b TokenScores) -> impl Iterator<Item = Scored> + 'b {
    let target = &batch.target;
    let places = (0..target.rows()).flat_map(|row| (0..target.lengths[row] as usize).map(move |step| (row, step)));
    places.zip(&scores.log_probs).map(|((row, step), log_prob)| Scored {
        row,
        step,
        label: target.labels[row * target.width + step],
        nats: -log_prob,
    })
}

fn count<K: Ord>(sums: &mut BTreeMap<K, Sum>, key: K, nats: f32) {
    let sum = sums.entry(key).or_default();
    *sum = (sum.0 + 1, sum.1 + f64::from(nats));
}

/// Ids as text, a line's end as a sign of its own.
fn lines(ids: &[TokenId], tokenizer: &dyn Tokenizer) -> String {
    let ended = ids.split(|&id| id == Special::End.id()).map(|line| tokenizer.decode(line));
    ended.collect::<Vec<_>>().join(" ⏎ ")
}

fn bins(sums: BTreeMap<Range, Sum>) -> Vec<LossBin> {
    sums.into_iter().map(|((from, to), (tokens, nats))| LossBin { from, to, tokens, nats }).collect()
}

/// The quarter of an octave in which a number from 1 lies: 1, 2, 3, 4, … 8, 9 and 10, …
fn octave(number: u64) -> Range {
    let width = 1 << number.saturating_sub(1).checked_ilog2().unwrap_or(0).saturating_sub(2);
    let from = (number - 1) / width * width + 1;
    (from, from + width - 1)
}

/// The decade in which a number lies: 0, 1 to 9, 10 to 99, …
fn decade(number: u64) -> Range {
    let Some(power) = number.checked_ilog10() else { return (0, 0) };
    let from = 10_u64.pow(power);
    (from, from.saturating_mul(10) - 1)
}

#[cfg(test)]
mod tests {
    use antiphon_core::Target;

    use super::*;

    #[test]
    fn ranges_part_all_numbers() {
        for (range, first) in [(octave as fn(u64) -> Range, 1), (decade, 0)] {
            let mut next = first;
            while next < 5000 {
                let (from, to) = range(next);
                assert_eq!(from, next);
                assert!((from..=to).all(|number| range(number) == (from, to)));
                next = to + 1;
            }
        }
        assert_eq!([1, 8, 9, 10, 11, 300].map(octave), [(1, 1), (8, 8), (9, 10), (9, 10), (11, 12), (257, 320)]);
        assert_eq!([0, 1, 99, 100].map(decade), [(0, 0), (1, 9), (10, 99), (100, 999)]);
    }

    /// Rows of streams, whatever their cut, and rows of texts: the places of their tokens, and each token's worst.
    #[test]
    fn places_go_on_where_rows_do() {
        let end = Special::End.id();
        let batch = |rows: &[&[TokenId]], continues: Vec<bool>, examples: Vec<usize>| Batch {
            sources: Vec::new(),
            target: Target::stretch(rows),
            continues,
            examples,
            copies: None,
        };
        let scores = |nats: &[f32]| TokenScores {
            log_probs: nats.iter().map(|nats| -nats).collect(),
            correct: vec![false; nats.len()],
        };
        let mut tally = Tally::default();
        tally.add(&batch(&[&[2, 7, 8, end, 7]], vec![false], vec![0]), &scores(&[1.0, 2.0, 4.0, 8.0]));
        tally.add(&batch(&[&[7, 8, 8]], vec![true], vec![4]), &scores(&[16.0, 32.0]));
        let sums = |of: &[(u64, Sum)]| of.iter().map(|&(place, sum)| ((place, place), sum)).collect::<BTreeMap<_, _>>();
        assert_eq!(tally.by_place, sums(&[(1, (2, 9.0)), (2, (2, 18.0)), (3, (2, 36.0))]));
        assert_eq!(tally.worst, BTreeMap::from([(end, (4.0, 0, 2)), (7, (8.0, 0, 3)), (8, (32.0, 4, 1))]));
        // Texts begin anew, each in its row.
        tally.add(&batch(&[&[2, 8], &[2, 7, 7]], vec![], vec![3, 9]), &scores(&[64.0, 1.0, 1.0]));
        assert_eq!(tally.by_place[&(1, 1)], (4, 74.0));
        tally.add_windows(&batch(&[&[2, 8], &[2, end, 7]], vec![false; 2], vec![3, 9]), &scores(&[1.0, 2.0, 3.0]));
        assert_eq!(tally.by_window, sums(&[(1, (2, 3.0)), (2, (1, 3.0))]));
    }
}
