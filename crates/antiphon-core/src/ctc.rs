//! Connectionist temporal classification (CTC; Graves et al. 2006): what the steps of a source say by themselves, and how probable
//! texts and their beginnings are by that.
//!
//! A path says a token, or the blank, at each step; what it says in all is its tokens, repetitions dropped and then blanks. A
//! beginning `g` has the probability `ψ(g)` that what a path says begins with it, and `p(g)` that this is all. So behind `g` a token
//! `c` has the probability `ψ(g·c) / ψ(g)` and the end `p(g) / ψ(g)`. These sum to 1 but for the paths that have the end symbol itself
//! for a label, which no text has: what is trained loses none to them.

use crate::TokenId;
use crate::token::Special;

/// How many steps a path of connectionist temporal classification that says `labels` has at least: one for each of them, and one for a
/// blank between two that are equal. A path of no labels has one.
pub fn steps_of_path(labels: &[TokenId]) -> usize {
    let repeated = labels.windows(2).filter(|pair| pair[0] == pair[1]).count();
    (labels.len() + repeated).max(1)
}

/// What the steps of a source's memory say by themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct CtcOutput {
    /// `[S', V]`: natural logarithms of the tokens' probabilities at each step.
    pub log_probs: Vec<f32>,
    /// `V`.
    pub vocabulary: usize,
    /// The token that says nothing.
    pub blank: TokenId,
}

impl CtcOutput {
    /// `S'`.
    pub fn steps(&self) -> usize {
        self.log_probs.len() / self.vocabulary
    }

    /// The natural logarithm of a token's probability at a step.
    pub fn log_prob(&self, step: usize, token: TokenId) -> f64 {
        f64::from(self.log_probs[step * self.vocabulary + token as usize])
    }

    /// What the most probable path says of those that say only tokens that `may` be said, and the natural logarithm of the path's
    /// probability. Of equals the smaller token is said.
    pub fn best_path(&self, may: impl Fn(TokenId) -> bool) -> (Vec<TokenId>, f64) {
        let (mut said, mut log_prob, mut last) = (Vec::new(), 0.0, self.blank);
        for step in self.log_probs.chunks_exact(self.vocabulary) {
            let mut best = (self.blank, f32::NEG_INFINITY);
            for (token, &own) in (0..).zip(step) {
                if own > best.1 && (token == self.blank || may(token)) {
                    best = (token, own);
                }
            }
            log_prob += f64::from(best.1);
            said.extend((best.0 != self.blank && best.0 != last).then_some(best.0));
            last = best.0;
        }
        (said, log_prob)
    }
}

/// What CTC holds of a beginning `g`: forward variables over the steps of a source, as natural logarithms.
#[derive(Debug, Clone)]
pub struct CtcPrefix {
    /// That the steps up to each say `g`, and the last of them its last label.
    label: Vec<f64>,
    /// That the steps up to each say `g`, and the last of them a blank.
    blank: Vec<f64>,
    last: Option<TokenId>,
    /// `ln ψ(g)`.
    log_prob: f64,
}

impl CtcPrefix {
    /// Nothing said.
    pub fn empty(source: &CtcOutput) -> Self {
        let mut sum = 0.0;
        let blank = (0..source.steps()).map(|t| {
            sum += source.log_prob(t, source.blank);
            sum
        });
        Self { blank: blank.collect(), label: vec![f64::NEG_INFINITY; source.steps()], last: None, log_prob: 0.0 }
    }

    /// The paths up to step `t`, counted from 0, behind which a first `token` is a label of its own.
    fn before(&self, t: usize, token: TokenId) -> f64 {
        match (t, self.last) {
            // Before the first step nothing is said.
            (0, None) => 0.0,
            (0, Some(_)) => f64::NEG_INFINITY,
            (t, last) if last == Some(token) => self.blank[t - 1],
            (t, _) => sum(self.label[t - 1], self.blank[t - 1]),
        }
    }

    /// `ln ψ(g)`.
    pub fn log_prob(&self) -> f64 {
        self.log_prob
    }

    /// One token more.
    #[must_use]
    pub fn with(&self, source: &CtcOutput, token: TokenId) -> Self {
        let steps = source.steps();
        let (mut label, mut blank) = (Vec::with_capacity(steps), Vec::with_capacity(steps));
        let [mut label_before, mut blank_before, mut log_prob] = [f64::NEG_INFINITY; 3];
        for t in 0..steps {
            let (says, begins) = (source.log_prob(t, token), self.before(t, token));
            log_prob = sum(log_prob, begins + says);
            let now = sum(label_before, begins) + says;
            blank_before = sum(blank_before, label_before) + source.log_prob(t, source.blank);
            label_before = now;
            label.push(label_before);
            blank.push(blank_before);
        }
        Self { label, blank, last: Some(token), log_prob }
    }

    /// `ln ψ(g·c) − ln ψ(g)` of each token; of the end symbol `ln p(g) − ln ψ(g)`.
    pub fn gains(&self, source: &CtcOutput, tokens: &[TokenId]) -> Vec<f64> {
        let steps = source.steps();
        // But for the last label, all tokens come behind the same paths.
        let common: Vec<f64> = (0..steps).map(|t| self.before(t, source.blank)).collect();
        let behind = |token: TokenId| {
            let before = |t: usize| if self.last == Some(token) { self.before(t, token) } else { common[t] };
            sum_all((0..steps).map(|t| before(t) + source.log_prob(t, token)))
        };
        let all = || match steps {
            0 if self.last.is_none() => 0.0,
            0 => f64::NEG_INFINITY,
            steps => sum(self.label[steps - 1], self.blank[steps - 1]),
        };
        let gain = |&token: &TokenId| {
            let log_prob = match token {
                token if token == Special::End.id() => all(),
                token if token == source.blank => f64::NEG_INFINITY,
                token => behind(token),
            };
            if log_prob == f64::NEG_INFINITY { log_prob } else { log_prob - self.log_prob }
        };
        tokens.iter().map(gain).collect()
    }
}

/// `ln (e^a + e^b)`.
fn sum(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The same of many.
fn sum_all(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY { top } else { top + values.map(|value| (value - top).exp()).sum::<f64>().ln() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    const BLANK: TokenId = Special::Pad.id();

    /// A source of a few steps, over the special symbols and some letters.
    fn source(seed: u64, steps: usize, vocabulary: usize) -> CtcOutput {
        let key = Key::from_seed(seed);
        let step = |t: usize| {
            let weights: Vec<f64> = (0..vocabulary).map(|v| key.numbered(t as u64).uniform(v as u64) + 0.01).collect();
            let total: f64 = weights.iter().sum();
            weights.into_iter().map(move |weight| (weight / total).ln() as f32)
        };
        CtcOutput { log_probs: (0..steps).flat_map(step).collect(), vocabulary, blank: BLANK }
    }

    /// What a path says: repetitions dropped, then blanks.
    fn said(path: &[TokenId]) -> Vec<TokenId> {
        let mut path = path.to_vec();
        path.dedup();
        path.retain(|&token| token != BLANK);
        path
    }

    /// All paths of a source with their probabilities.
    fn paths(source: &CtcOutput) -> Vec<(Vec<TokenId>, f64)> {
        let (steps, vocabulary) = (source.steps(), source.vocabulary as u64);
        (0..vocabulary.pow(steps as u32))
            .map(|mut number| {
                let path: Vec<TokenId> = (0..steps)
                    .map(|_| {
                        let token = (number % vocabulary) as TokenId;
                        number /= vocabulary;
                        token
                    })
                    .collect();
                let log_prob: f64 = path.iter().enumerate().map(|(t, &token)| source.log_prob(t, token)).sum();
                (path, log_prob.exp())
            })
            .collect()
    }

    #[test]
    fn a_beginning_is_as_probable_as_all_paths_that_begin_with_it() {
        for (seed, steps) in (0..40).map(|seed| (seed, 1 + seed as usize % 5)) {
            // Labels 4 and 5; of the others only the blank is a label's rival.
            let source = source(seed, steps, 6);
            let paths = paths(&source);
            let of = |holds: &dyn Fn(&[TokenId]) -> bool| -> f64 {
                paths.iter().filter(|(path, _)| holds(&said(path))).map(|(_, probability)| probability).sum()
            };
            let mut beginnings = vec![vec![]];
            for length in 1..=3 {
                let longer: Vec<Vec<TokenId>> = beginnings
                    .iter()
                    .filter(|beginning| beginning.len() + 1 == length)
                    .flat_map(|beginning| [4, 5].map(|label| [beginning.as_slice(), &[label]].concat()))
                    .collect();
                beginnings.extend(longer);
            }
            for labels in beginnings {
                let beginning = labels.iter().fold(CtcPrefix::empty(&source), |row, &label| row.with(&source, label));
                let begins = of(&|said| said.starts_with(&labels));
                assert!((beginning.log_prob.exp() - begins).abs() < 1e-6, "{seed}: {labels:?}");
                let gains = beginning.gains(&source, &[4, 5, Special::End.id(), BLANK]);
                let expected = [
                    of(&|said| said.starts_with(&[labels.as_slice(), &[4]].concat())),
                    of(&|said| said.starts_with(&[labels.as_slice(), &[5]].concat())),
                    of(&|said| said == labels),
                    0.0,
                ];
                for (gain, expected) in gains.into_iter().zip(expected) {
                    let found = if begins > 0.0 { (gain + beginning.log_prob).exp() } else { 0.0 };
                    assert!((found - expected).abs() < 1e-6, "{seed}: {labels:?} {found} {expected}");
                    assert!(gain <= 1e-9);
                }
            }
        }
    }

    /// They are all that there is behind a beginning, but for paths that say the end symbol as a label.
    #[test]
    fn what_comes_next_sums_to_one() {
        for (seed, steps) in (0..40).map(|seed| (seed, 1 + seed as usize % 7)) {
            let source = source(seed, steps, 6);
            let mut beginning = CtcPrefix::empty(&source);
            for token in [4, 4, 5, 1] {
                let all: Vec<TokenId> = (0..6).collect();
                let total: f64 = beginning.gains(&source, &all).into_iter().map(f64::exp).sum();
                if beginning.log_prob() > f64::NEG_INFINITY {
                    let as_label = beginning.with(&source, Special::End.id()).log_prob() - beginning.log_prob();
                    assert!((total + as_label.exp() - 1.0).abs() < 1e-5, "{seed}: {total}");
                } else {
                    assert_eq!(total, 0.0, "{seed}");
                }
                beginning = beginning.with(&source, token);
            }
        }
    }

    #[test]
    fn the_best_path_is_the_best_of_all() {
        for (seed, steps) in (0..40).map(|seed| (seed, seed as usize % 6)) {
            let source = source(seed, steps, 6);
            for banned in [vec![], vec![1, 2, 3, 4]] {
                let may = |token: TokenId| !banned.contains(&token);
                let allowed = paths(&source).into_iter().filter(|(path, _)| path.iter().all(|&token| may(token)));
                let (path, probability) = allowed.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
                let (found, log_prob) = source.best_path(may);
                assert_eq!(found, said(&path), "{seed}");
                assert!((log_prob - probability.ln()).abs() < 1e-5, "{seed}");
            }
        }
    }
}
