//! When the labels of an answer are said, by connectionist temporal classification (CTC): a forced alignment.
//!
//! Of all paths over the steps of a source that say the labels (Graves et al. 2006) the most probable one is found by the algorithm of
//! Viterbi. It says each label at one stretch of steps, and blanks between them.

use std::ops::Range;

use antiphon_core::{CtcOutput, TokenId};

/// Where a label is said.
#[derive(Debug, Clone, PartialEq)]
pub struct Aligned {
    /// The steps of the source that say it, at least one.
    pub steps: Range<usize>,
    /// The mean over these steps of the label's probability.
    pub probability: f64,
}

/// Aligns labels with the steps of a source: `labels.len()` stretches that lie one behind another. `None` if no path says them:
/// if there are fewer steps than labels and blanks between equal ones, or a label is the blank or beyond the vocabulary.
///
/// Of paths that are equally probable it is always the same.
pub fn align(source: &CtcOutput, labels: &[TokenId]) -> Option<Vec<Aligned>> {
    let is_label = |&label: &TokenId| label != source.blank && (label as usize) < source.vocabulary;
    if !labels.iter().all(is_label) {
        return None;
    }
    let steps = source.steps();
    if steps == 0 {
        return labels.is_empty().then(Vec::new);
    }
    // The states of a path: the labels, with a blank before, between and behind them.
    let states = 2 * labels.len() + 1;
    let token = |s: usize| if s.is_multiple_of(2) { source.blank } else { labels[s / 2] };
    // Past a blank that does not part equal labels.
    let skips = |s: usize| !s.is_multiple_of(2) && s >= 3 && labels[s / 2] != labels[s / 2 - 1];
    // The logarithm of the best path to each state, and how many states before it that was a step earlier, `[T, N]`.
    let mut best = vec![f64::NEG_INFINITY; states];
    let mut back = vec![0_u8; steps * states];
    for (s, best) in best.iter_mut().enumerate().take(2) {
        *best = source.log_prob(0, token(s));
    }
    for t in 1..steps {
        // From the last on, so that those before are still of the step before.
        for s in (0..states).rev() {
            let (mut from, mut by) = (best[s], 0);
            for earlier in 1..=2 {
                if earlier <= s && (earlier == 1 || skips(s)) && best[s - earlier] > from {
                    (from, by) = (best[s - earlier], earlier as u8);
                }
            }
            best[s] = from + source.log_prob(t, token(s));
            back[t * states + s] = by;
        }
    }
    let last = states - 1;
    let mut state = if last > 0 && best[last - 1] > best[last] { last - 1 } else { last };
    if best[state] == f64::NEG_INFINITY {
        return None;
    }
    let mut stretches = vec![steps..0; labels.len()];
    for t in (0..steps).rev() {
        if !state.is_multiple_of(2) {
            let stretch = &mut stretches[state / 2];
            *stretch = t..stretch.end.max(t + 1);
        }
        state -= usize::from(back[t * states + state]);
    }
    let aligned = |(steps, &label): (Range<usize>, &TokenId)| {
        let sum: f64 = steps.clone().map(|t| source.log_prob(t, label).exp()).sum();
        Aligned { probability: sum / steps.len() as f64, steps }
    };
    Some(stretches.into_iter().zip(labels).map(aligned).collect())
}

#[cfg(test)]
mod tests {
    use antiphon_core::random::Key;

    use super::*;

    const BLANK: TokenId = 0;
    const VOCABULARY: usize = 4;

    fn source(key: Key, steps: usize, has_ties: bool) -> CtcOutput {
        let step = |t: usize| {
            let weight = |v: usize| key.numbered(t as u64).uniform(v as u64) + 0.01;
            let weights: Vec<f64> = (0..VOCABULARY).map(weight).map(|w| if has_ties { w.ceil() } else { w }).collect();
            let total: f64 = weights.iter().sum();
            weights.into_iter().map(move |weight| (weight / total).ln() as f32)
        };
        CtcOutput { log_probs: (0..steps).flat_map(step).collect(), vocabulary: VOCABULARY, blank: BLANK }
    }

    fn paths(steps: usize) -> impl Iterator<Item = Vec<TokenId>> {
        let token = |number: usize, t: usize| (number / VOCABULARY.pow(t as u32) % VOCABULARY) as TokenId;
        (0..VOCABULARY.pow(steps as u32)).map(move |number| (0..steps).map(|t| token(number, t)).collect())
    }

    /// What a path says: repetitions dropped, then blanks.
    fn said(path: &[TokenId]) -> Vec<TokenId> {
        let mut path = path.to_vec();
        path.dedup();
        path.retain(|&token| token != BLANK);
        path
    }

    fn log_prob(source: &CtcOutput, path: &[TokenId]) -> f64 {
        path.iter().enumerate().map(|(t, &token)| source.log_prob(t, token)).sum()
    }

    #[test]
    fn the_best_path_of_all_is_found() {
        let mut without = 0;
        for seed in 0..600 {
            let key = Key::from_seed(seed);
            let steps = key.named("steps").below(0, 6) as usize;
            let count = key.named("labels").below(0, 4);
            let labels: Vec<TokenId> = (0..count).map(|i| 1 + key.named("label").below(i, 3) as TokenId).collect();
            let source = source(key, steps, seed % 5 == 0);
            let says = paths(steps).filter(|path| said(path) == labels);
            let best = says.map(|path| log_prob(&source, &path)).max_by(f64::total_cmp);
            let found = align(&source, &labels);
            assert_eq!(found.is_some(), best.is_some(), "{seed}");
            let (Some(found), Some(best)) = (found, best) else {
                without += 1;
                continue;
            };
            let mut path = vec![BLANK; steps];
            for (Aligned { steps, probability }, &label) in found.iter().zip(&labels) {
                assert!(!steps.is_empty() && path[steps.clone()].iter().all(|&token| token == BLANK), "{seed}");
                path[steps.clone()].fill(label);
                let probabilities: Vec<f64> = steps.clone().map(|t| source.log_prob(t, label).exp()).collect();
                let mean = probabilities.iter().sum::<f64>() / probabilities.len() as f64;
                assert!((mean - probability).abs() < 1e-12, "{seed}");
            }
            assert_eq!(said(&path), labels, "{seed}");
            assert!((log_prob(&source, &path) - best).abs() < 1e-9, "{seed}: {path:?} {best}");
        }
        assert!((50..500).contains(&without), "{without}");
    }

    #[test]
    fn what_no_path_says_is_not_aligned() {
        let source = source(Key::from_seed(1), 3, false);
        assert!(align(&source, &[1, 2, 1]).is_some());
        assert_eq!(align(&source, &[1, 1, 2]), None);
        assert_eq!(align(&source, &[BLANK]), None);
        assert_eq!(align(&source, &[VOCABULARY as TokenId]), None);
        assert_eq!(align(&source, &[]), Some(Vec::new()));
    }
}
