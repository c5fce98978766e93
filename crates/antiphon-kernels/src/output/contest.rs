//! Which tokens of a row are best, and the sum under its softmax, from logits that come in parts.

use antiphon_core::TokenId;

use crate::loss::exponential_sum;
use crate::vector::multiversion;

/// A token that may be among the best: its logit as offered, and between what bounds the true one lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) logit: f32,
    pub(super) id: TokenId,
    lower: f32,
    upper: f32,
}

impl Candidate {
    /// `doubt`: how far the true logit can lie from this one.
    pub(super) fn new(logit: f32, doubt: f32, id: TokenId) -> Self {
        Self { logit, id, lower: logit - doubt, upper: logit + doubt }
    }
}

/// The best of a row that is offered in parts, and the sum under its softmax.
#[derive(Debug)]
pub(super) struct Contest {
    k: usize,
    /// The `k` with the largest lower bounds so far, these falling, of equal ones the smaller id first.
    pub(super) best: Vec<Candidate>,
    /// Others that could be better than one of these when they came.
    close: Vec<Candidate>,
    /// Those that count in the sum alone.
    pub(super) banned: Vec<Candidate>,
    /// The largest so far, and the sum of exponentials with it taken off.
    top: f32,
    sum: f64,
}

impl Contest {
    pub(super) fn new(k: usize) -> Self {
        let (best, close, banned) = (Vec::with_capacity(k + 1), Vec::new(), Vec::new());
        Self { k, best, close, banned, top: f32::NEG_INFINITY, sum: 0.0 }
    }

    /// Adds logits to the sum; `top` is the largest of them.
    pub(super) fn add(&mut self, logits: &[f32], top: f32) {
        if top > self.top {
            self.sum *= f64::from(self.top - top).exp();
            self.top = top;
        }
        self.sum += f64::from(exponential_sum(logits, self.top));
    }

    /// What the `k`-th best reaches at least: who cannot reach it is not among the `k` best.
    fn floor(&self) -> f32 {
        if self.best.len() < self.k { f32::NEG_INFINITY } else { self.best[self.k - 1].lower }
    }

    /// Offers the logits of `first` and the ids behind it. `doubt` is that of each of them, by its place among them, and
    /// `doubts` the largest of each [`STRETCH`].
    pub(super) fn offer(&mut self, logits: &[f32], first: usize, doubts: &[f32], doubt: impl Fn(usize) -> f32) {
        let mut at = 0;
        while at < logits.len() {
            if self.best.len() == self.k {
                at += passed_over(&logits[at..], &doubts[at / STRETCH..], self.floor());
            }
            let end = logits.len().min(at + STRETCH);
            for (place, &logit) in (at..end).zip(&logits[at..end]) {
                let new = Candidate::new(logit, doubt(place), (first + place) as TokenId);
                let mut other = Some(new);
                if self.best.len() < self.k || new.lower > self.floor() {
                    let rank = self.best.iter().position(|other| new.lower > other.lower).unwrap_or(self.best.len());
                    self.best.insert(rank, new);
                    other = if self.best.len() > self.k { self.best.pop() } else { None };
                }
                // One without doubt that is no better is none of the best, since those before it have smaller ids.
                let floor = self.floor();
                self.close.extend(other.filter(|other| other.upper > other.lower && other.upper >= floor));
            }
            at = end;
        }
    }

    /// As [`offer`](Self::offer), of a whole row without doubt.
    pub(super) fn offer_exact(&mut self, logits: &[f32]) {
        self.offer(logits, 0, &vec![0.0; logits.len().div_ceil(STRETCH)], |_| 0.0);
    }

    /// The `k` best with their logits, from the `exact` ones of all that can be among them, and the logarithm of the sum;
    /// `None`, if these are more than `most`.
    pub(super) fn settle(mut self, most: usize, exact: impl Fn(TokenId) -> f32) -> Option<(Vec<(f32, TokenId)>, f64)> {
        let (floor, top) = (self.floor(), self.top);
        self.close.retain(|other| other.upper >= floor);
        self.banned.retain(|other| other.upper >= floor);
        if self.best.len() + self.close.len() + self.banned.len() > most {
            return None;
        }
        let mut make_exact = |candidate: Candidate| {
            let Candidate { mut logit, id, .. } = candidate;
            if logit > f32::NEG_INFINITY {
                let screened = std::mem::replace(&mut logit, exact(id));
                self.sum += f64::from(logit - top).exp() - f64::from(screened - top).exp();
            }
            (logit, id)
        };
        self.banned.into_iter().for_each(|candidate| {
            make_exact(candidate);
        });
        let mut best: Vec<(f32, TokenId)> = self.best.into_iter().chain(self.close).map(make_exact).collect();
        best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        best.truncate(self.k);
        Some((best, f64::from(top) + self.sum.ln()))
    }
}

/// Numbers that are looked at together.
pub(super) const STRETCH: usize = 64;

multiversion! {
    /// How many numbers at the head of a row, in whole stretches, lie below `floor` by more than the stretch's doubt.
    fn passed_over(row: &[f32], doubts: &[f32], floor: f32) -> usize = passed_over_body
}
#[inline(always)]
fn passed_over_body<const FMA: bool>(row: &[f32], doubts: &[f32], floor: f32) -> usize {
    let (stretches, _) = row.as_chunks::<STRETCH>();
    let low = |(stretch, doubt): (&[f32; STRETCH], &f32)| {
        let bound = floor - doubt;
        stretch.iter().fold(true, |low, &x| low & (x < bound))
    };
    stretches.iter().zip(doubts).position(|stretch| !low(stretch)).unwrap_or(stretches.len()) * STRETCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_ties_by_id() {
        let best = |row: &[f32], k: usize| {
            let mut contest = Contest::new(k);
            contest.offer_exact(row);
            contest.best.into_iter().map(|best| best.id).collect::<Vec<_>>()
        };
        let row = [0.5, 2.0, 2.0, f32::NEG_INFINITY, 1.0];
        assert_eq!(best(&row, 3), [1, 2, 4]);
        assert_eq!(best(&row, 5), [1, 2, 4, 0, 3]);
        // In a long row, behind many that are passed over, and one from the last, shorter stretch.
        let mut row: Vec<f32> = (0..1000).map(|i| -(i as f32)).collect();
        (row[700], row[990]) = (5.0, 6.0);
        assert_eq!(best(&row, 3), [990, 700, 0]);
    }

    #[test]
    fn whoever_may_be_better_is_made_exact_and_nobody_else() {
        // Of the two best one is doubtful, and so are two further down, one of them in vain.
        let logits = [1.0, 9.0, 8.0, 7.0, 2.0, 0.0];
        let (doubt, exact) = ([0.0, 0.1, 2.0, 1.5, 0.5, 9.0], [1.0, 9.05, 6.5, 8.0, 2.0, 7.5]);
        let asked = std::cell::RefCell::new(Vec::new());
        let mut contest = Contest::new(2);
        contest.add(&logits, 9.0);
        contest.offer(&logits, 0, &[9.0], |place| doubt[place]);
        let ask = |id: TokenId| {
            asked.borrow_mut().push(id);
            exact[id as usize]
        };
        let (best, log_z) = contest.settle(6, ask).unwrap();
        assert_eq!(best, [(9.05, 1), (8.0, 3)]);
        let truth = [1.0_f64, 9.05, 6.5, 8.0, 2.0, 7.5].map(f64::exp).iter().sum::<f64>().ln();
        assert!((log_z - truth).abs() < 1e-5, "{log_z} is not {truth}");
        assert_eq!(asked.into_inner(), [1, 2, 3, 5]);
    }
}
