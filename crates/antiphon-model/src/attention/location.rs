//! Attention that hears where the last look was, by filters (Chorowski et al. 2015).

use antiphon_core::random::Key;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::heads::Heads;
use crate::initial::Initial;

/// The size of the energies' layer, filters over the last look, and heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LocationAttentionConfig {
    /// `A`: the width in which query, memory and what the filters make meet.
    #[schemars(range(min = 1, max = 8192))]
    pub width: usize,
    /// How many filters are moved over the weights of the look before. Each of several heads has so many of its own.
    #[schemars(range(min = 1, max = 1024))]
    pub filters: usize,
    /// How many steps of the memory a filter sees before its middle, and how many behind: it is `2 × reach + 1` steps wide.
    #[schemars(range(min = 0, max = 1024))]
    pub reach: usize,
    /// How many heads look, each for itself: a head has its part of `width`, and reads its part of values, which one more weight
    /// makes of the memory (Vaswani et al. 2017). The parts are equal, so their number divides `width` and the memory's.
    #[schemars(range(min = 1, max = 64))]
    pub heads: usize,
    /// What scores are multiplied by before a softmax makes weights of them: a greater one makes looks sharper (Chorowski et al. 2015).
    #[schemars(range(min = 0.01, max = 100.0))]
    pub sharpening: f64,
}

impl Default for LocationAttentionConfig {
    fn default() -> Self {
        Self { width: 256, filters: 10, reach: 15, heads: 1, sharpening: 1.0 }
    }
}

impl LocationAttentionConfig {
    /// For queries of width `query` over memory of width `memory`.
    pub(super) fn init(
        &self,
        query: usize,
        memory: usize,
        heads: Heads,
        key: Key,
        device: &Device,
    ) -> LocationAttention {
        let weight = |dims, name: &str| Initial::GlorotUniform.weight(dims, query, key.named(name), device);
        LocationAttention {
            query: weight([query, self.width], "query"),
            keys: weight([memory, self.width], "keys"),
            energy: weight([self.width, 1], "energy"),
            filters: weight([self.heads * self.filters, 2 * self.reach + 1], "filters"),
            features: weight([self.filters, self.width], "features"),
            heads,
        }
    }
}

#[derive(Module, Debug)]
pub(crate) struct LocationAttention {
    /// `[H, A]`.
    pub(super) query: Param<Tensor<2>>,
    /// `[M, A]`.
    pub(super) keys: Param<Tensor<2>>,
    /// `[A, 1]`.
    pub(super) energy: Param<Tensor<2>>,
    /// `[N·F, 2r + 1]`, those of the first head first.
    pub(super) filters: Param<Tensor<2>>,
    /// `[F, A]`: of what the filters make.
    pub(super) features: Param<Tensor<2>>,
    pub(super) heads: Heads,
}
