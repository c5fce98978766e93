//! Attention: a query `[B, T, H]` over memory `[B, S, M]` gives a context `[B, T, M]`.

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::tanh;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData, activation::softmax};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::encoder::Encoded;
use crate::initial::Initial;
use crate::linear;

/// How a decoder looks at the memory, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AttentionConfig {
    /// Not at all: the encoder's final state is everything that the decoder knows.
    None(NoAttentionConfig),
    /// `score = q · m` (Luong et al. 2015); the widths must be equal.
    Dot(DotAttentionConfig),
    /// `score = q W m` (Luong et al. 2015).
    General(GeneralAttentionConfig),
    /// `score = v · tanh(W q + U m)` (Bahdanau et al. 2015).
    Additive(AdditiveAttentionConfig),
}

impl Default for AttentionConfig {
    fn default() -> Self {
        AttentionConfig::General(GeneralAttentionConfig::default())
    }
}

/// Nothing to set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NoAttentionConfig {}

/// Nothing to set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DotAttentionConfig {}

/// Nothing to set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GeneralAttentionConfig {}

/// The size of the energies' layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdditiveAttentionConfig {
    /// `A`: the width in which query and memory meet.
    #[schemars(range(min = 1, max = 8192))]
    pub width: usize,
}

impl Default for AdditiveAttentionConfig {
    fn default() -> Self {
        Self { width: 256 }
    }
}

impl AttentionConfig {
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, AttentionConfig::None(_))
    }

    pub(crate) fn problems(&self, query: usize, memory: usize) -> Vec<Problem> {
        let needs_one_width = match self {
            AttentionConfig::Dot(_) => true,
            AttentionConfig::None(_) | AttentionConfig::General(_) | AttentionConfig::Additive(_) => false,
        };
        let message = format!(
            "`dot` needs a decoder as wide as the memory, but they are {query} and {memory}; use `general`, or set \
             `model.decoder.hidden` to {memory}"
        );
        let wrong = needs_one_width && query != memory;
        wrong.then(|| Problem { place: "kind".into(), message }).into_iter().collect()
    }

    /// Attention for queries of width `query` over memory of width `memory`.
    pub(crate) fn init(&self, query: usize, memory: usize, key: Key, device: &Device) -> Option<Attention> {
        let weight = |dims, name: &str| Initial::GlorotUniform.weight(dims, query, key.named(name), device);
        match self {
            AttentionConfig::None(_) => None,
            AttentionConfig::Dot(_) => Some(Attention::Dot(DotAttention {})),
            AttentionConfig::General(_) => {
                Some(Attention::General(GeneralAttention { keys: weight([memory, query], "keys") }))
            }
            AttentionConfig::Additive(config) => Some(Attention::Additive(AdditiveAttention {
                query: weight([query, config.width], "query"),
                keys: weight([memory, config.width], "keys"),
                energy: weight([config.width, 1], "energy"),
            })),
        }
    }
}

/// The scoring function with its parameters.
#[derive(Module, Debug)]
pub(crate) enum Attention {
    Dot(DotAttention),
    General(GeneralAttention),
    Additive(AdditiveAttention),
}

#[derive(Module, Debug)]
pub(crate) struct DotAttention {}

#[derive(Module, Debug)]
pub(crate) struct GeneralAttention {
    /// `[M, H]`.
    keys: Param<Tensor<2>>,
}

#[derive(Module, Debug)]
pub(crate) struct AdditiveAttention {
    /// `[H, A]`.
    query: Param<Tensor<2>>,
    /// `[M, A]`.
    keys: Param<Tensor<2>>,
    /// `[A, 1]`.
    energy: Param<Tensor<2>>,
}

/// Memory made ready: what does not depend on the query is computed once.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    /// `[B, S, M]`.
    memory: Tensor<3>,
    /// `[B, S, H or A]`.
    keys: Tensor<3>,
    /// `[B, 1, S]`: 0 where a step is real, hugely negative where it is padding; `None` where all are real.
    mask: Option<Tensor<3>>,
}

impl Prepared {
    /// Keeps `rows` (numbers of the batch), in this order.
    pub(crate) fn select(&self, rows: &[u32]) -> Self {
        let numbers = linear::ids(rows, &self.memory.device());
        let pick = |tensor: &Tensor<3>| tensor.clone().select(0, numbers.clone());
        Self { memory: pick(&self.memory), keys: pick(&self.keys), mask: self.mask.as_ref().map(pick) }
    }
}

impl Attention {
    /// Projects the memory and builds its mask.
    pub(crate) fn prepare(&self, encoded: &Encoded) -> Prepared {
        let memory = encoded.memory.clone();
        let [rows, steps, _] = memory.dims();
        let keys = match self {
            Attention::Dot(_) => memory.clone(),
            Attention::General(attention) => linear::multiply(memory.clone(), attention.keys.val()),
            Attention::Additive(attention) => linear::multiply(memory.clone(), attention.keys.val()),
        };
        let ragged = encoded.lengths.iter().any(|&n| (n as usize) < steps);
        let mask = ragged.then(|| {
            // A row without a real step attends evenly to its padding rather than to nothing.
            let real = |n: u32, s: usize| s < n as usize || n == 0;
            let mask: Vec<f32> = encoded
                .lengths
                .iter()
                .flat_map(|&n| (0..steps).map(move |s| if real(n, s) { 0.0 } else { -1e30 }))
                .collect();
            Tensor::from_data(TensorData::new(mask, [rows, 1, steps]), &memory.device().inner())
        });
        Prepared { memory, keys, mask }
    }

    /// `query`: `[B, T, H]` → (context `[B, T, M]`, weights `[B, T, S]`).
    pub(crate) fn attend(&self, query: Tensor<3>, prepared: &Prepared) -> (Tensor<3>, Tensor<3>) {
        let scores = match self {
            Attention::Dot(_) | Attention::General(_) => query.matmul(prepared.keys.clone().swap_dims(1, 2)),
            Attention::Additive(attention) => {
                let query: Tensor<4> = linear::multiply(query, attention.query.val()).unsqueeze_dim(2);
                let keys: Tensor<4> = prepared.keys.clone().unsqueeze_dim(1);
                let energies = tanh(query + keys);
                let [b, t, s, a] = energies.dims();
                energies.reshape([b * t * s, a]).matmul(attention.energy.val()).reshape([b, t, s])
            }
        };
        let scores = match &prepared.mask {
            Some(mask) => scores + mask.clone(),
            None => scores,
        };
        let weights = softmax(scores, 2);
        (weights.clone().matmul(prepared.memory.clone()), weights)
    }
}
