//! Heads: parts of queries, keys and values that look each for itself (Vaswani et al. 2017).

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_kernels::linear;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::initial::Initial;

/// How many heads look, how sharply, and what they read. To the operations, each head of a row is a row of its own: `b N + n`.
#[derive(Module, Debug)]
pub(crate) struct Heads {
    /// `[M, M]`: makes of the memory the values, of which each head reads its part. A single head reads the memory itself.
    values: Option<Param<Tensor<2>>>,
    /// `N`.
    #[module(skip)]
    count: usize,
    /// What scores are multiplied by.
    #[module(skip)]
    sharpening: f64,
}

impl Heads {
    /// So many heads over memory of width `memory`.
    pub(super) fn init(count: usize, sharpening: f64, memory: usize, key: Key, device: &Device) -> Self {
        let weight = || Initial::GlorotUniform.weight([memory, memory], memory, key.named("values"), device);
        Self { values: (count > 1).then(weight), count, sharpening }
    }

    /// `N`.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// What scores are linear in, sharpened.
    pub(super) fn sharpened<const D: usize>(&self, scores: Tensor<D>) -> Tensor<D> {
        if self.sharpening == 1.0 { scores } else { scores * self.sharpening }
    }

    /// What is read of a memory: `[C, S, M]` → `[C·N, S, M/N]`.
    pub(super) fn values(&self, memory: Tensor<3>) -> Tensor<3> {
        match &self.values {
            None => memory,
            Some(weight) => self.split(linear(memory, weight.val())),
        }
    }

    /// Each head's part: `[B, T, W]` → `[B·N, T, W/N]`.
    pub(super) fn split(&self, x: Tensor<3>) -> Tensor<3> {
        let ([b, t, w], n) = (x.dims(), self.count);
        match n {
            1 => x,
            _ => x.reshape([b, t, n, w / n]).swap_dims(1, 2).reshape([b * n, t, w / n]),
        }
    }

    /// The heads side by side again: `[B·N, T, W]` → `[B, T, N·W]`.
    pub(super) fn join(&self, x: Tensor<3>) -> Tensor<3> {
        let ([rows, t, w], n) = (x.dims(), self.count);
        match n {
            1 => x,
            _ => x.reshape([rows / n, n, t, w]).swap_dims(1, 2).reshape([rows / n, t, n * w]),
        }
    }

    /// `[C]` → `[C·N]`: the lengths of rows as those of their heads.
    pub(super) fn lengths(&self, lengths: &Arc<[u32]>) -> Arc<[u32]> {
        match self.count {
            1 => lengths.clone(),
            n => lengths.iter().flat_map(|&length| std::iter::repeat_n(length, n)).collect(),
        }
    }
}
