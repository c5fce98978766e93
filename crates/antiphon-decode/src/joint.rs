//! A decoder and connectionist temporal classification (CTC) search together (Watanabe et al. 2017).
//!
//! A decoder alone may say a stretch of sound twice, or end before it is over. CTC ties each label to a step of the source: a beginning
//! `g` has the probability `ψ(g)` that a path's labels begin with it. A token `c` behind it has the score
//! `(1 − λ) ln p(c | g) + λ (ln ψ(g·c) − ln ψ(g))`, and the end symbol the probability that the path's labels are `g` and no more; so
//! what an answer has in all is `(1 − λ)` of one logarithm and `λ` of the other.
//!
//! [`Joint`] is a model that scores so, made of one that only hands out its CTC; to a search it is a model like any other.

use std::sync::Arc;

use antiphon_core::{
    CtcOutput, Error, PrefixOutput, Request, Result, Special, StepModel, StepOutput, StepSession, TokenId, Want,
};

use crate::rescored::{kept, push, wider};

/// A model whose tokens are scored by its CTC too.
pub(crate) struct Joint {
    model: Arc<dyn StepModel>,
    /// `λ`.
    weight: f64,
}

impl Joint {
    pub(crate) fn new(model: Arc<dyn StepModel>, weight: f64) -> Self {
        Self { model, weight }
    }

    fn score(&self, log_prob: f32, ctc: f64) -> f32 {
        // Nothing times the logarithm of nothing is no number.
        if log_prob == f32::NEG_INFINITY || ctc == f64::NEG_INFINITY {
            return f32::NEG_INFINITY;
        }
        (((1.0 - self.weight) * f64::from(log_prob) + self.weight * ctc) as f32).min(0.0)
    }
}

impl StepModel for Joint {
    fn begin(self: Arc<Self>, requests: &[Request]) -> Result<Box<dyn StepSession>> {
        let mut session = Arc::clone(&self.model).begin(requests)?;
        let sources = session.take_ctc();
        if sources.len() != requests.len() {
            let message = "this model has no CTC to search with; train it with `[model.ctc]`, and let several together search \
                           with search.ctc_weight = 0";
            return Err(Error::new(message).at("search.ctc_weight"));
        }
        let mut prefixes = session.take_prefixes();
        let mut rows = Vec::with_capacity(requests.len());
        for ((source, request), worth) in sources.into_iter().zip(requests).zip(&mut prefixes) {
            let (source, mut row) = (Arc::new(source), None);
            for (i, &token) in request.prefix.iter().enumerate() {
                let before = row.unwrap_or_else(|| Beginning::empty(&source));
                let behind = before.with(&source, token);
                worth.scores.push(self.score(worth.log_probs[i], behind.log_prob - before.log_prob));
                // The session is fed the last token itself.
                row = Some(if i + 1 < request.prefix.len() { behind } else { before });
            }
            let beginning = Arc::new(row.unwrap_or_else(|| Beginning::empty(&source)));
            rows.push(Row { source, beginning });
        }
        Ok(Box::new(JointSession { model: self, session, rows, prefixes }))
    }

    fn vocabulary(&self) -> usize {
        self.model.vocabulary()
    }
}

/// A row in flight: its source, and what it had said before it is fed its last token.
#[derive(Clone)]
struct Row {
    source: Arc<CtcOutput>,
    beginning: Arc<Beginning>,
}

struct JointSession {
    model: Arc<Joint>,
    session: Box<dyn StepSession>,
    rows: Vec<Row>,
    prefixes: Vec<PrefixOutput>,
}

impl StepSession for JointSession {
    fn rows(&self) -> usize {
        self.session.rows()
    }

    fn take_prefixes(&mut self) -> Vec<PrefixOutput> {
        std::mem::take(&mut self.prefixes)
    }

    fn step(&mut self, last: &[TokenId], want: &Want, out: &mut StepOutput) -> Result<()> {
        self.session.step(last, &wider(want), out)?;
        for (row, &last) in self.rows.iter_mut().zip(last) {
            if last != Special::Begin.id() {
                row.beginning = Arc::new(row.beginning.with(&row.source, last));
            }
        }
        self.rescore(self.rows.iter(), want, out);
        Ok(())
    }

    fn again(&mut self, rows: &[u32], want: &Want, out: &mut StepOutput) -> Result<()> {
        self.session.again(rows, &wider(want), out)?;
        self.rescore(rows.iter().map(|&row| &self.rows[row as usize]), want, out);
        Ok(())
    }

    fn select(&mut self, rows: &[u32]) {
        self.session.select(rows);
        self.rows = rows.iter().map(|&row| self.rows[row as usize].clone()).collect();
    }
}

impl JointSession {
    /// Scores what the decoder has said of some rows by CTC too, and keeps what `want` asks for.
    fn rescore<'r>(&self, rows: impl Iterator<Item = &'r Row>, want: &Want, out: &mut StepOutput) {
        let per_row = out.per_row;
        let kept = kept(want, per_row);
        let (tokens, log_probs) = (std::mem::take(&mut out.tokens), std::mem::take(&mut out.log_probs));
        out.scores.clear();
        for (b, row) in rows.enumerate() {
            let (tokens, log_probs) = (&tokens[b * per_row..][..per_row], &log_probs[b * per_row..][..per_row]);
            let gains = row.beginning.gains(&row.source, tokens);
            let scores: Vec<f32> = log_probs.iter().zip(gains).map(|(&p, gain)| self.model.score(p, gain)).collect();
            push(tokens, log_probs, &scores, kept, out);
        }
        out.per_row = kept.unwrap_or(per_row);
    }
}

/// What CTC holds of a beginning `g`: forward variables over the steps of a source, as natural logarithms.
struct Beginning {
    /// That the steps up to each say `g`, and the last of them its last label.
    label: Vec<f64>,
    /// That the steps up to each say `g`, and the last of them a blank.
    blank: Vec<f64>,
    last: Option<TokenId>,
    /// `ln ψ(g)`.
    log_prob: f64,
}

impl Beginning {
    /// Nothing said.
    fn empty(source: &CtcOutput) -> Self {
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

    /// One token more.
    fn with(&self, source: &CtcOutput, token: TokenId) -> Self {
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

    /// `ln ψ(g·c) − ln ψ(g)` of each token; of the end symbol `ln p(g) − ln ψ(g)`, where `p(g)` is the probability that `g` is all.
    fn gains(&self, source: &CtcOutput, tokens: &[TokenId]) -> Vec<f64> {
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
    use antiphon_core::random::Key;

    use super::*;

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
                let beginning = labels.iter().fold(Beginning::empty(&source), |row, &label| row.with(&source, label));
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
}
