//! Which tokens of a row are best, and the sum under its softmax, from logits that come in parts.

use antiphon_core::TokenId;

use crate::loss::exponential_sum;
use crate::vector::multiversion;

/// The best of a row that is offered in parts, and the sum under its softmax.
#[derive(Debug)]
pub(super) struct Contest {
    k: usize,
    /// How far below the `k`-th best one is still of interest.
    pub(super) slack: f32,
    /// The `k` best so far, best first, of equal ones the smaller id first.
    pub(super) best: Vec<(f32, TokenId)>,
    /// Others that were of interest when they came.
    close: Vec<(f32, TokenId)>,
    /// Those that count in the sum alone.
    pub(super) banned: Vec<(f32, TokenId)>,
    /// The largest so far, and the sum of exponentials with it taken off.
    top: f32,
    sum: f64,
}

impl Contest {
    pub(super) fn new(k: usize, slack: f32) -> Self {
        let (best, close, banned) = (Vec::with_capacity(k + 1), Vec::new(), Vec::new());
        Self { k, slack, best, close, banned, top: f32::NEG_INFINITY, sum: 0.0 }
    }

    /// Adds logits to the sum; `top` is the largest of them.
    pub(super) fn add(&mut self, logits: &[f32], top: f32) {
        if top > self.top {
            self.sum *= f64::from(self.top - top).exp();
            self.top = top;
        }
        self.sum += f64::from(exponential_sum(logits, self.top));
    }

    /// From where on a token may be one of the `k` best.
    fn bound(&self) -> f32 {
        if self.best.len() < self.k { f32::NEG_INFINITY } else { self.best[self.k - 1].0 - self.slack }
    }

    /// Offers the logits of `first` and the ids behind it.
    pub(super) fn offer(&mut self, logits: &[f32], first: usize) {
        let mut at = 0;
        while at < logits.len() {
            if self.best.len() == self.k {
                at += passed_over(&logits[at..], self.bound());
            }
            let end = logits.len().min(at + STRETCH);
            for (id, &logit) in logits[at..end].iter().enumerate() {
                let candidate = (logit, (first + at + id) as TokenId);
                if self.best.len() < self.k || logit > self.best[self.k - 1].0 {
                    let place = self.best.iter().position(|&(other, _)| logit > other).unwrap_or(self.best.len());
                    self.best.insert(place, candidate);
                    let last = if self.best.len() > self.k { self.best.pop() } else { None };
                    self.close.extend(last.filter(|&(logit, _)| logit >= self.bound()));
                } else if self.slack > 0.0 && logit >= self.bound() {
                    self.close.push(candidate);
                }
            }
            at = end;
        }
    }

    /// The `k` best with their logits, from the `exact` ones of all that can be among them, and the logarithm of the sum.
    pub(super) fn settle(mut self, exact: impl Fn(TokenId) -> f32) -> (Vec<(f32, TokenId)>, f32) {
        let bound = self.bound();
        let close = self.close.into_iter().filter(|&(logit, _)| logit >= bound);
        let mut best: Vec<(f32, TokenId)> = self.best.into_iter().chain(close).collect();
        let top = self.top;
        let banned = self.banned.iter_mut().filter(|(logit, _)| *logit >= bound);
        for (logit, id) in banned.chain(best.iter_mut().filter(|(logit, _)| *logit > f32::NEG_INFINITY)) {
            let screened = std::mem::replace(logit, exact(*id));
            self.sum += f64::from(*logit - top).exp() - f64::from(screened - top).exp();
        }
        let log_z = (f64::from(top) + self.sum.ln()) as f32;
        best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        best.truncate(self.k);
        (best, log_z)
    }
}

/// Numbers that are looked at together.
const STRETCH: usize = 64;

multiversion! {
    /// How many numbers at the head of a row, in whole stretches, lie below `bound`.
    fn passed_over(row: &[f32], bound: f32) -> usize = passed_over_body
}
#[inline(always)]
fn passed_over_body<const FMA: bool>(row: &[f32], bound: f32) -> usize {
    let (stretches, _) = row.as_chunks::<STRETCH>();
    let low = |stretch: &[f32; STRETCH]| stretch.iter().fold(true, |low, &x| low & (x < bound));
    stretches.iter().position(|stretch| !low(stretch)).unwrap_or(stretches.len()) * STRETCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_ties_by_id() {
        let best = |row: &[f32], k: usize| {
            let mut contest = Contest::new(k, 0.0);
            contest.offer(row, 0);
            contest.best.into_iter().map(|(_, id)| id).collect::<Vec<_>>()
        };
        let row = [0.5, 2.0, 2.0, f32::NEG_INFINITY, 1.0];
        assert_eq!(best(&row, 3), [1, 2, 4]);
        assert_eq!(best(&row, 5), [1, 2, 4, 0, 3]);
        // In a long row, behind many that are passed over, and one from the last, shorter stretch.
        let mut row: Vec<f32> = (0..1000).map(|i| -(i as f32)).collect();
        (row[700], row[990]) = (5.0, 6.0);
        assert_eq!(best(&row, 3), [990, 700, 0]);
    }
}
