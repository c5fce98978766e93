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
    CtcOutput, CtcPrefix, Error, PrefixOutput, Request, Result, Special, StepModel, StepOutput, StepSession, TokenId,
    Want,
};

use crate::rescored::{at_most_zero, kept, push, wider};

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
        at_most_zero(((1.0 - self.weight) * f64::from(log_prob) + self.weight * ctc) as f32)
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
                let before = row.unwrap_or_else(|| CtcPrefix::empty(&source));
                let behind = before.with(&source, token);
                let gain = match behind.log_prob() {
                    f64::NEG_INFINITY => f64::NEG_INFINITY,
                    log_prob => log_prob - before.log_prob(),
                };
                worth.scores.push(self.score(worth.log_probs[i], gain));
                // The session is fed the last token itself.
                row = Some(if i + 1 < request.prefix.len() { behind } else { before });
            }
            let beginning = Arc::new(row.unwrap_or_else(|| CtcPrefix::empty(&source)));
            rows.push(Row { source, beginning });
        }
        Ok(Box::new(JointSession { model: self, session, rows, prefixes }))
    }

    fn vocabulary(&self) -> usize {
        self.model.vocabulary()
    }

    fn copies(&self) -> bool {
        self.model.copies()
    }
}

/// A row in flight: its source, and what it had said before it is fed its last token.
#[derive(Clone)]
struct Row {
    source: Arc<CtcOutput>,
    beginning: Arc<CtcPrefix>,
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
