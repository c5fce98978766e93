//! Attention: a query `[B, T, H]` over memory `[B, S, M]` gives a context `[B, T, M]`.

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{Over, attend, attend_with_weights, linear};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::encoder::Encoded;
use crate::initial::Initial;

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

    /// What cannot work with queries and a memory of these widths; `setting`: what makes queries so wide.
    pub(crate) fn problems(&self, query: usize, memory: usize, setting: &str) -> Vec<Problem> {
        let needs_one_width = match self {
            AttentionConfig::Dot(_) => true,
            AttentionConfig::None(_) | AttentionConfig::General(_) | AttentionConfig::Additive(_) => false,
        };
        let message = format!(
            "`dot` needs a decoder as wide as the memory, but they are {query} and {memory}; use `general`, or set \
             {setting} to {memory}"
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
    /// `[C, S, M]`.
    pub(crate) memory: Tensor<3>,
    /// `[C, S, H or A]`.
    pub(crate) keys: Tensor<3>,
    /// Real steps, and who looks at which row.
    pub(crate) over: Over,
}

impl Prepared {
    /// The same memory, looked at by other queries: query row `b` at row `owners[b]`. Nothing is copied.
    pub(crate) fn owned_by(&self, owners: &[u32]) -> Self {
        let over = Over { lengths: self.over.lengths.clone(), owners: Some(owners.into()) };
        Self { over, ..self.clone() }
    }
}

impl Attention {
    /// Projects the memory.
    pub(crate) fn prepare(&self, encoded: &Encoded) -> Prepared {
        let memory = encoded.memory.clone();
        let keys = match self {
            Attention::Dot(_) => memory.clone(),
            Attention::General(attention) => linear(memory.clone(), attention.keys.val()),
            Attention::Additive(attention) => linear(memory.clone(), attention.keys.val()),
        };
        Prepared { memory, keys, over: Over { lengths: encoded.lengths.clone(), owners: None } }
    }

    /// What the decoder in one operation needs of a kind that it serves; of others `None`: the decoder then takes its steps
    /// itself.
    pub(crate) fn fused(&self) -> Option<Fused> {
        match self {
            Attention::Dot(_) | Attention::General(_) => Some(Fused { additive: None }),
            Attention::Additive(attention) => {
                let query = attention.query.val();
                Some(Fused { additive: Some((query, attention.energy.val().squeeze_dim(1))) })
            }
        }
    }

    /// What it remembers before the first step, arrays `[B, …]`. A kind whose looks do not depend on where it has looked before
    /// has none; with any, one step is taken after the other.
    pub(crate) fn start(&self, _prepared: &Prepared) -> AttentionState {
        match self {
            Attention::Dot(_) | Attention::General(_) | Attention::Additive(_) => Vec::new(),
        }
    }

    /// What projects states to queries, if they are not queries themselves.
    pub(crate) fn query_weight(&self) -> Option<Tensor<2>> {
        match self {
            Attention::Dot(_) | Attention::General(_) => None,
            Attention::Additive(attention) => Some(attention.query.val()),
        }
    }

    /// States `[B, T, H]` → queries `[B, T, A]`.
    pub(crate) fn query(&self, states: Tensor<3>) -> Tensor<3> {
        match self.query_weight() {
            None => states,
            Some(weight) => linear(states, weight),
        }
    }

    /// One look: queries `[B, T, A]` give contexts `[B, T, M]`. `T` is 1 for kinds that remember. With `weights` wanted, off the
    /// graph.
    pub(crate) fn look(&self, query: Tensor<3>, prepared: &Prepared, state: AttentionState, weights: bool) -> Look {
        let Prepared { memory, keys, over } = prepared;
        let energy = match self {
            Attention::Dot(_) | Attention::General(_) => None,
            Attention::Additive(attention) => Some(attention.energy.val().squeeze_dim(1)),
        };
        let (context, weights) = if weights {
            let (context, weights) = attend_with_weights(query, keys.clone(), memory.clone(), energy, over);
            (context, Some(weights))
        } else {
            (attend(query, keys.clone(), memory.clone(), energy, over), None)
        };
        Look { context, weights, state }
    }
}

/// What attention remembers of where it has looked: arrays `[B, …]`. It is a part of the decoder's state.
pub(crate) type AttentionState = Vec<Tensor<2>>;

/// What [`antiphon_kernels::fed_decoder`] needs of a kind.
pub(crate) struct Fused {
    /// What projects a state to its query `[H, A]`, and the energy `[A]`, if scores are additive; else they are products.
    pub(crate) additive: Option<(Tensor<2>, Tensor<1>)>,
}

/// What a look gave.
pub(crate) struct Look {
    /// `[B, T, M]`.
    pub(crate) context: Tensor<3>,
    /// `[B, T, S]`, if they were wanted.
    pub(crate) weights: Option<Tensor<3>>,
    /// What is remembered now.
    pub(crate) state: AttentionState,
}
