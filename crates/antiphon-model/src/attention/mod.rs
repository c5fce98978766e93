//! Attention: a query `[B, T, H]` over memory `[B, S, M]` gives a context `[B, T, M]`.

mod heads;
mod location;
mod look;
mod memories;
mod past;

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{Over, attend, attend_with_weights, linear};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::initial::Initial;

pub use location::LocationAttentionConfig;
pub use memories::{ConcatenatedMemoriesConfig, EachMemoryConfig, MemoriesConfig};

use heads::Heads;
use location::LocationAttention;
pub(crate) use look::{Asked, Look, shown};
pub(crate) use memories::{MemoryShape, one_behind_another};
use past::Hears;
pub(crate) use past::last_real;

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
    /// `score = v · tanh(W q + U m + V f)`, where `f` is a convolution of the last look's weights along the memory (Chorowski et al.
    /// 2015, eq. 8 and 9); before the first look all steps are alike. One look then follows upon the other.
    Location(LocationAttentionConfig),
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

/// Heads of dot products.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DotAttentionConfig {
    /// How many heads look, each for itself: a head compares its part of query and memory, and reads its part of values, which one
    /// more weight makes of the memory (Vaswani et al. 2017). The parts are equal, so their number divides the width.
    #[schemars(range(min = 1, max = 64))]
    pub heads: usize,
    /// What scores are multiplied by before a softmax makes weights of them: a greater one makes looks sharper (Chorowski et al. 2015).
    #[schemars(range(min = 0.01, max = 100.0))]
    pub sharpening: f64,
}

impl Default for DotAttentionConfig {
    fn default() -> Self {
        Self { heads: 1, sharpening: 1.0 }
    }
}

/// Heads of products with a weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GeneralAttentionConfig {
    /// How many heads look, each for itself: a head compares its part of query and keys, and reads its part of values, which one
    /// more weight makes of the memory (Vaswani et al. 2017). The parts are equal, so their number divides the widths of decoder
    /// and memory.
    #[schemars(range(min = 1, max = 64))]
    pub heads: usize,
    /// What scores are multiplied by before a softmax makes weights of them: a greater one makes looks sharper (Chorowski et al. 2015).
    #[schemars(range(min = 0.01, max = 100.0))]
    pub sharpening: f64,
}

impl Default for GeneralAttentionConfig {
    fn default() -> Self {
        Self { heads: 1, sharpening: 1.0 }
    }
}

/// The size of the energies' layer, heads, and what is remembered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdditiveAttentionConfig {
    /// `A`: the width in which query and memory meet.
    #[schemars(range(min = 1, max = 8192))]
    pub width: usize,
    /// How many heads look, each for itself: a head has its part of `width`, and reads its part of values, which one more weight
    /// makes of the memory (Vaswani et al. 2017). The parts are equal, so their number divides `width` and the memory's.
    #[schemars(range(min = 1, max = 64))]
    pub heads: usize,
    /// Whether a score hears how much its step of the memory has been looked at: `v · tanh(W q + U m + c w)`, where `c` is the sum of
    /// that step's weights so far (Tu et al. 2016; See et al. 2017, eq. 10 and 11). One look then follows upon the other.
    pub coverage: bool,
    /// The weight in the loss per token of what is looked at again: the sum over the memory of `min(a, c)`, where `a` are the weights of
    /// a step (See et al. 2017, eq. 13). Of several heads and memories it is the mean. Needs `coverage`.
    #[schemars(range(min = 0.0), extend("format" = "float"))]
    pub coverage_penalty: f64,
    /// What scores are multiplied by before a softmax makes weights of them: a greater one makes looks sharper (Chorowski et al. 2015).
    #[schemars(range(min = 0.01, max = 100.0))]
    pub sharpening: f64,
}

impl Default for AdditiveAttentionConfig {
    fn default() -> Self {
        Self { width: 256, heads: 1, coverage: false, coverage_penalty: 0.0, sharpening: 1.0 }
    }
}

/// What attention of any kind looks with.
struct Looks {
    heads: usize,
    sharpening: f64,
    coverage: bool,
    coverage_penalty: f64,
}

impl Default for Looks {
    fn default() -> Self {
        Self { heads: 1, sharpening: 1.0, coverage: false, coverage_penalty: 0.0 }
    }
}

impl AttentionConfig {
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, AttentionConfig::None(_))
    }

    /// What it looks with, beside its scores.
    fn looks(&self) -> Looks {
        let plain = |heads, sharpening| Looks { heads, sharpening, ..Looks::default() };
        match self {
            AttentionConfig::None(_) => Looks::default(),
            AttentionConfig::Dot(config) => plain(config.heads, config.sharpening),
            AttentionConfig::General(config) => plain(config.heads, config.sharpening),
            AttentionConfig::Additive(config) => Looks {
                coverage: config.coverage,
                coverage_penalty: config.coverage_penalty,
                ..plain(config.heads, config.sharpening)
            },
            AttentionConfig::Location(config) => plain(config.heads, config.sharpening),
        }
    }

    /// How much what is looked at again counts in the loss.
    pub(crate) fn coverage_penalty(&self) -> f64 {
        let Looks { coverage, coverage_penalty, .. } = self.looks();
        if coverage { coverage_penalty } else { 0.0 }
    }

    /// What is valid but has no effect.
    pub(crate) fn warnings(&self) -> Vec<Problem> {
        let Looks { coverage, coverage_penalty, .. } = self.looks();
        let idle = coverage_penalty > 0.0 && !coverage;
        let message = "has no effect without `coverage`";
        idle.then(|| Problem { place: "coverage_penalty".into(), message: message.into() }).into_iter().collect()
    }

    /// What cannot work with queries of width `query` and a memory; `setting`: what makes queries so wide.
    pub(crate) fn problems(&self, query: usize, memory: &MemoryShape, setting: &str) -> Vec<Problem> {
        let MemoryShape { name, width } = memory;
        let (needs_one_width, compared) = match self {
            AttentionConfig::Dot(_) => (true, None),
            AttentionConfig::None(_) => (false, None),
            AttentionConfig::General(_) => (false, Some(("the decoder", query))),
            AttentionConfig::Additive(config) => (false, Some(("`width`", config.width))),
            AttentionConfig::Location(config) => (false, Some(("`width`", config.width))),
        };
        let message = format!(
            "`dot` needs a decoder as wide as {name}, but they are {query} and {width}; use `general`, or set {setting} to \
             {width}"
        );
        let unequal = needs_one_width && query != *width;
        let unequal = unequal.then(|| Problem { place: "kind".into(), message });
        let heads = self.looks().heads;
        let parted = compared.into_iter().chain([(name.as_str(), *width)]);
        let uneven = parted.filter(|(_, width)| width % heads != 0).map(|(what, width)| {
            let message =
                format!("{heads} heads have equal parts, but {what} is {width} wide; choose a divisor of {width}");
            Problem { place: "heads".into(), message }
        });
        unequal.into_iter().chain(uneven).collect()
    }

    /// Attention for queries of width `query` over memory of width `memory`.
    pub(crate) fn init(&self, query: usize, memory: usize, key: Key, device: &Device) -> Option<Attention> {
        let weight = |dims, name: &str| Initial::GlorotUniform.weight(dims, query, key.named(name), device);
        let Looks { heads, sharpening, .. } = self.looks();
        let heads = Heads::init(heads, sharpening, memory, key, device);
        match self {
            AttentionConfig::None(_) => None,
            AttentionConfig::Dot(_) => Some(Attention::Dot(DotAttention { heads })),
            AttentionConfig::General(_) => {
                Some(Attention::General(GeneralAttention { keys: weight([memory, query], "keys"), heads }))
            }
            AttentionConfig::Additive(config) => Some(Attention::Additive(AdditiveAttention {
                query: weight([query, config.width], "query"),
                keys: weight([memory, config.width], "keys"),
                energy: weight([config.width, 1], "energy"),
                coverage: config.coverage.then(|| weight([1, config.width], "coverage")),
                heads,
            })),
            AttentionConfig::Location(config) => {
                Some(Attention::Location(config.init(query, memory, heads, key, device)))
            }
        }
    }
}

/// The scoring function with its parameters.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // one value for each memory of a model
pub(crate) enum Attention {
    Dot(DotAttention),
    General(GeneralAttention),
    Additive(AdditiveAttention),
    Location(LocationAttention),
}

#[derive(Module, Debug)]
pub(crate) struct DotAttention {
    heads: Heads,
}

#[derive(Module, Debug)]
pub(crate) struct GeneralAttention {
    /// `[M, H]`.
    keys: Param<Tensor<2>>,
    heads: Heads,
}

#[derive(Module, Debug)]
pub(crate) struct AdditiveAttention {
    /// `[H, A]`.
    query: Param<Tensor<2>>,
    /// `[M, A]`.
    keys: Param<Tensor<2>>,
    /// `[A, 1]`.
    energy: Param<Tensor<2>>,
    /// `[1, A]`: of what has been looked at, if that counts.
    coverage: Option<Param<Tensor<2>>>,
    heads: Heads,
}

/// Memory made ready: what does not depend on the query is computed once. Each of `N` heads of a row is a row of its own.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    /// `[C·N, S, M/N]`: what is read.
    pub(crate) memory: Tensor<3>,
    /// `[C·N, S, H/N or A/N]`.
    pub(crate) keys: Tensor<3>,
    /// Real steps, and who looks at which row.
    pub(crate) over: Over,
    /// `N`.
    heads: usize,
}

impl Prepared {
    /// The same memory, looked at by other queries: query row `b` at row `owners[b]`. Nothing is copied.
    pub(crate) fn owned_by(&self, owners: &[u32]) -> Self {
        let n = self.heads as u32;
        let owners = owners.iter().flat_map(|owner| (0..n).map(move |head| owner * n + head)).collect();
        Self { over: Over { lengths: self.over.lengths.clone(), owners: Some(owners) }, ..self.clone() }
    }

    /// `S`.
    fn steps(&self) -> usize {
        self.memory.dims()[1]
    }

    /// How many real steps query row `b` looks at.
    fn real_steps(&self, b: usize) -> usize {
        let row = self.over.owners.as_ref().map_or(b * self.heads, |owners| owners[b * self.heads] as usize);
        self.over.lengths[row] as usize
    }
}

impl Attention {
    fn heads(&self) -> &Heads {
        match self {
            Attention::Dot(attention) => &attention.heads,
            Attention::General(attention) => &attention.heads,
            Attention::Additive(attention) => &attention.heads,
            Attention::Location(attention) => &attention.heads,
        }
    }

    /// Whether a context is a sum of the memory's own steps, so that what is made of contexts can be made of the memory.
    pub(crate) fn reads_whole_steps(&self) -> bool {
        self.heads().count() == 1
    }

    /// Projects a memory of `lengths` `[B]` real steps.
    pub(crate) fn prepare(&self, memory: Tensor<3>, lengths: &Arc<[u32]>) -> Prepared {
        let keys = match self {
            Attention::Dot(_) => memory.clone(),
            Attention::General(attention) => linear(memory.clone(), attention.keys.val()),
            Attention::Additive(attention) => linear(memory.clone(), attention.keys.val()),
            Attention::Location(attention) => linear(memory.clone(), attention.keys.val()),
        };
        let heads = self.heads();
        // A score is as many times its keys, or, of an additive one, its energy.
        let keys = if self.additive().is_none() { heads.sharpened(keys) } else { keys };
        Prepared {
            memory: heads.values(memory),
            keys: heads.split(keys),
            over: Over { lengths: heads.lengths(lengths), owners: None },
            heads: heads.count(),
        }
    }

    /// What the decoder in one operation needs of a kind that it serves; of others `None`: the decoder then takes its steps
    /// itself.
    pub(crate) fn fused(&self) -> Option<Fused> {
        if self.heads().count() > 1 {
            return None;
        }
        match self {
            Attention::Dot(_) | Attention::General(_) => Some(Fused { additive: None }),
            Attention::Location(_) => None,
            Attention::Additive(attention) if attention.coverage.is_some() => None,
            Attention::Additive(attention) => {
                Some(Fused { additive: self.energy().map(|energy| (attention.query.val(), energy)) })
            }
        }
    }

    /// Its parameters, if its scores are additive; else they are products of queries and keys.
    fn additive(&self) -> Option<Additive<'_>> {
        match self {
            Attention::Dot(_) | Attention::General(_) => None,
            Attention::Additive(AdditiveAttention { query, energy, coverage, .. }) => {
                let hears = coverage.as_ref().map(|coverage| Hears { features: coverage, filters: None });
                Some(Additive { query, energy, hears })
            }
            Attention::Location(LocationAttention { query, energy, filters, features, .. }) => {
                Some(Additive { query, energy, hears: Some(Hears { features, filters: Some(filters) }) })
            }
        }
    }

    /// `[A]`, of additive scores.
    fn energy(&self) -> Option<Tensor<1>> {
        self.additive().map(|scores| self.heads().sharpened(scores.energy.val().squeeze_dim(1)))
    }

    /// How it hears of the looks before, if it does.
    fn hears(&self) -> Option<Hears<'_>> {
        self.additive().and_then(|scores| scores.hears)
    }

    /// How many arrays it remembers.
    pub(crate) fn remembers(&self) -> usize {
        self.hears().iter().count()
    }

    /// What it remembers before the first step, arrays `[B, …]`. A kind whose looks do not depend on where it has looked before
    /// has none; with any, looks are taken in turn.
    pub(crate) fn start(&self, prepared: &Prepared) -> AttentionState {
        self.hears().iter().map(|hears| hears.start(prepared)).collect()
    }

    /// What projects states to queries, if they are not queries themselves.
    pub(crate) fn query_weight(&self) -> Option<Tensor<2>> {
        self.additive().map(|scores| scores.query.val())
    }

    /// States `[B, T, H]` → queries `[B, T, A]`.
    pub(crate) fn query(&self, states: Tensor<3>) -> Tensor<3> {
        match self.query_weight() {
            None => states,
            Some(weight) => linear(states, weight),
        }
    }

    /// Looks: queries `[B, T, A]` give contexts `[B, T, M]`, those of a kind that remembers in turn.
    pub(crate) fn look(&self, query: Tensor<3>, prepared: &Prepared, state: AttentionState, asked: Asked<'_>) -> Look {
        let Prepared { memory, keys, over, .. } = prepared;
        let (heads, energy) = (self.heads(), self.energy());
        let query = heads.split(query);
        if let (Some(energy), Some(hears), [seen]) = (&energy, self.hears(), &state[..]) {
            return hears.look(query, prepared, energy.clone(), seen, heads, asked);
        }
        let (context, weights) = if asked.weights {
            let (context, weights) = attend_with_weights(query, keys.clone(), memory.clone(), energy, over);
            (context, Some(weights))
        } else {
            (attend(query, keys.clone(), memory.clone(), energy, over), None)
        };
        Look { context: heads.join(context), weights: weights.into_iter().collect(), again: None, state }
    }
}

/// What additive scores are made with.
struct Additive<'a> {
    /// `[H, A]`.
    query: &'a Param<Tensor<2>>,
    /// `[A, 1]`.
    energy: &'a Param<Tensor<2>>,
    hears: Option<Hears<'a>>,
}

/// What attention remembers of where it has looked: arrays `[B, …]`: one `[B, N·S]` of a kind that hears of it. It is a part of the
/// decoder's state, and so bound to the memory: rows go on beside the very sources that they began with.
pub(crate) type AttentionState = Vec<Tensor<2>>;

/// What [`antiphon_kernels::fed_decoder`] needs of a kind.
pub(crate) struct Fused {
    /// What projects a state to its query `[H, A]`, and the energy `[A]`, if scores are additive; else they are products.
    pub(crate) additive: Option<(Tensor<2>, Tensor<1>)>,
}
