//! What training drops between the parts of a model.

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{dropout, locked_dropout};
use burn::tensor::Tensor;

/// Dropout of a sequence of vectors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropout {
    /// The share of numbers that is dropped.
    pub(crate) rate: f64,
    /// Whether a row has one mask for all of its steps.
    pub(crate) locked: bool,
}

impl Dropout {
    /// `[B, T, W]` without what is dropped under a key; without a key all of it.
    pub(crate) fn apply(self, x: Tensor<3>, key: Option<Key>) -> Tensor<3> {
        match key {
            Some(key) if self.locked => locked_dropout(x, self.rate, key),
            Some(key) => dropout(x, self.rate, key),
            None => x,
        }
    }

    /// The key of step `t` where steps are taken one by one.
    pub(crate) fn of_step(self, key: Key, t: usize) -> Key {
        if self.locked { key } else { key.numbered(t as u64) }
    }
}

/// What is said of `locked_dropout` where nothing is dropped, by none of these rates.
pub(crate) fn idle_lock(locked: bool, rates: &[f64]) -> Option<Problem> {
    let idle = locked && rates.iter().all(|&rate| rate == 0.0);
    idle.then(|| Problem { place: "locked_dropout".into(), message: "has no effect: nothing is dropped".into() })
}
