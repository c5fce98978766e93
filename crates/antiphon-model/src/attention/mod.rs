//! Attention: a query `[B, T, H]` over memory `[B, S, M]` gives a context `[B, T, M]`.

mod heads;
mod memories;

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{Coverage, Over, attend, attend_covered, attend_with_weights, host, linear};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::initial::Initial;

pub use memories::{ConcatenatedMemoriesConfig, EachMemoryConfig, MemoriesConfig};

use heads::Heads;
pub(crate) use memories::{MemoryShape, one_behind_another};

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

/// Heads of dot products.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DotAttentionConfig {
    /// How many heads look, each for itself: a head compares its part of query and memory, and reads its part of values, which one
    /// more weight makes of the memory (Vaswani et al. 2017). The parts are equal, so their number divides the width.
    #[schemars(range(min = 1, max = 64))]
    pub heads: usize,
}

impl Default for DotAttentionConfig {
    fn default() -> Self {
        Self { heads: 1 }
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
}

impl Default for GeneralAttentionConfig {
    fn default() -> Self {
        Self { heads: 1 }
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
}

impl Default for AdditiveAttentionConfig {
    fn default() -> Self {
        Self { width: 256, heads: 1, coverage: false, coverage_penalty: 0.0 }
    }
}

/// What attention of any kind looks with.
struct Looks {
    heads: usize,
    coverage: bool,
    coverage_penalty: f64,
}

impl Default for Looks {
    fn default() -> Self {
        Self { heads: 1, coverage: false, coverage_penalty: 0.0 }
    }
}

impl AttentionConfig {
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, AttentionConfig::None(_))
    }

    /// What it looks with, beside its scores.
    fn looks(&self) -> Looks {
        match self {
            AttentionConfig::None(_) => Looks::default(),
            AttentionConfig::Dot(config) => Looks { heads: config.heads, ..Looks::default() },
            AttentionConfig::General(config) => Looks { heads: config.heads, ..Looks::default() },
            AttentionConfig::Additive(config) => {
                Looks { heads: config.heads, coverage: config.coverage, coverage_penalty: config.coverage_penalty }
            }
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
        let heads = Heads::init(self.looks().heads, memory, key, device);
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
        };
        let heads = self.heads();
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
            Attention::Additive(attention) if attention.coverage.is_some() => None,
            Attention::Additive(attention) => {
                let query = attention.query.val();
                Some(Fused { additive: Some((query, attention.energy.val().squeeze_dim(1))) })
            }
        }
    }

    /// Its parameters, if its scores are additive; else they are products of queries and keys.
    fn additive(&self) -> Option<&AdditiveAttention> {
        match self {
            Attention::Dot(_) | Attention::General(_) => None,
            Attention::Additive(attention) => Some(attention),
        }
    }

    /// How many arrays it remembers.
    pub(crate) fn remembers(&self) -> usize {
        self.additive().map_or(0, |attention| attention.coverage.iter().count())
    }

    /// What it remembers before the first step, arrays `[B, …]`. A kind whose looks do not depend on where it has looked before
    /// has none; with any, one look follows upon the other.
    pub(crate) fn start(&self, prepared: &Prepared) -> AttentionState {
        let [rows, steps, _] = prepared.memory.dims();
        let dims = [rows / prepared.heads, prepared.heads * steps];
        let nowhere = |_| Tensor::zeros(dims, &prepared.memory.device().inner());
        (0..self.remembers()).map(nowhere).collect()
    }

    /// What projects states to queries, if they are not queries themselves.
    pub(crate) fn query_weight(&self) -> Option<Tensor<2>> {
        self.additive().map(|attention| attention.query.val())
    }

    /// States `[B, T, H]` → queries `[B, T, A]`.
    pub(crate) fn query(&self, states: Tensor<3>) -> Tensor<3> {
        match self.query_weight() {
            None => states,
            Some(weight) => linear(states, weight),
        }
    }

    /// One look: queries `[B, T, A]` give contexts `[B, T, M]`. `T` is 1 for kinds that remember.
    pub(crate) fn look(&self, query: Tensor<3>, prepared: &Prepared, state: AttentionState, asked: Asked) -> Look {
        let Prepared { memory, keys, over, .. } = prepared;
        let energy = self.additive().map(|attention| attention.energy.val().squeeze_dim(1));
        let coverage = self.additive().and_then(|attention| attention.coverage.as_ref());
        let heads = self.heads();
        let query = heads.split(query);
        if let (Some(energy), Some(weight), [sums]) = (&energy, coverage, &state[..]) {
            let rows = query.dims()[0];
            let weight = weight.val().squeeze_dim(0);
            let coverage = Coverage { sums: sums.clone().reshape([rows, prepared.steps()]), weight };
            let (context, weights) =
                attend_covered(query, keys.clone(), memory.clone(), energy.clone(), coverage, over);
            let flat: Tensor<2> = weights.clone().reshape(sums.dims());
            let again = || flat.clone().min_pair(sums.clone()).sum_dim(1) / heads.count() as f64;
            return Look {
                context: heads.join(context),
                weights: asked.weights.then_some(weights).into_iter().collect(),
                again: asked.again.then(again),
                state: vec![sums.clone() + flat.clone()],
            };
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

/// What attention remembers of where it has looked: arrays `[B, …]`, for `coverage` one `[B, N·S]`. It is a part of the decoder's
/// state, and so bound to the memory: rows go on beside the very sources that they began with.
pub(crate) type AttentionState = Vec<Tensor<2>>;

/// What [`antiphon_kernels::fed_decoder`] needs of a kind.
pub(crate) struct Fused {
    /// What projects a state to its query `[H, A]`, and the energy `[A]`, if scores are additive; else they are products.
    pub(crate) additive: Option<(Tensor<2>, Tensor<1>)>,
}

/// What a look is to tell, beside the context.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    /// Where it looked. The context may then be off the graph.
    pub(crate) weights: bool,
    /// How much of that it had looked at before, by a kind that remembers.
    pub(crate) again: bool,
}

/// What a look gave.
pub(crate) struct Look {
    /// `[B, T, M]`.
    pub(crate) context: Tensor<3>,
    /// `[B·N, T, S]` of each memory, if they were wanted.
    pub(crate) weights: Vec<Tensor<3>>,
    /// `[B, 1]`: `Σ min(a, c)`, the mean over heads, if it was wanted and there is a coverage `c`.
    pub(crate) again: Option<Tensor<2>>,
    /// What is remembered now.
    pub(crate) state: AttentionState,
}

impl Look {
    /// Looks at several memories as one: contexts side by side.
    pub(crate) fn beside(mut looks: Vec<Self>) -> Self {
        if looks.len() == 1 {
            return looks.remove(0);
        }
        let count = looks.len() as f64;
        let again: Vec<Tensor<2>> = looks.iter().filter_map(|look| look.again.clone()).collect();
        let again = again.into_iter().reduce(|sum, again| sum + again).map(|sum| sum / count);
        let context = Tensor::cat(looks.iter().map(|look| look.context.clone()).collect(), 2);
        let (weights, state): (Vec<_>, Vec<_>) = looks.into_iter().map(|look| (look.weights, look.state)).unzip();
        Self { context, weights: weights.concat(), again, state: state.concat() }
    }
}

/// What single looks at some memories saw, a row for each query: `[B, S]`. Of several heads it is the mean. Several memories stand
/// one behind another as in [`one_behind_another`], each of those that are not empty with an equal share of 1.
pub(crate) fn shown(mut weights: Vec<Tensor<3>>, memories: &[Prepared]) -> Vec<f32> {
    let Some(first) = memories.first() else { return Vec::new() };
    let width = match memories {
        [only] if only.heads == 1 => return weights.pop().map(host).unwrap_or_default(),
        [only] => only.steps(),
        several => {
            let rows = first.over.lengths.len() / first.heads;
            let real = |row: usize| several.iter().map(|prepared| prepared.over.lengths[row * prepared.heads]).sum();
            (0..rows).map(real).max().unwrap_or(0).max(1) as usize
        }
    };
    let weights: Vec<Vec<f32>> = weights.into_iter().map(host).collect();
    let rows = weights.first().map_or(0, |weights| weights.len() / (first.heads * first.steps()));
    let mut all = vec![0.0; rows * width];
    for (b, row) in all.chunks_exact_mut(width).enumerate() {
        let filled = memories.iter().filter(|prepared| prepared.real_steps(b) > 0).count();
        let mut from = 0;
        for (weights, prepared) in weights.iter().zip(memories) {
            let (steps, n, real) = (prepared.steps(), prepared.heads, prepared.real_steps(b));
            let share = (filled * n) as f32;
            for head in weights[b * n * steps..][..n * steps].chunks_exact(steps) {
                row[from..from + real].iter_mut().zip(head).for_each(|(sum, weight)| *sum += weight / share);
            }
            from += real;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn random<const D: usize>(name: &str, dims: [usize; D]) -> Tensor<D> {
        let key = Key::from_seed(6).named(name);
        let n: usize = dims.iter().product();
        let numbers: Vec<f32> = (0..n as u64).map(|i| key.normal(i) as f32 * 0.7).collect();
        Tensor::from_data(TensorData::new(numbers, dims), &Device::flex())
    }

    fn assert_close(found: &[f32], expected: &[f32], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let same = found.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-5);
        assert!(same, "{what}: {found:?} is not {expected:?}");
    }

    const KINDS: [&str; 3] = [
        r#"{"kind": "dot", "heads": 3}"#,
        r#"{"kind": "general", "heads": 3}"#,
        r#"{"kind": "additive", "width": 12, "heads": 3}"#,
    ];

    #[test]
    fn each_head_looks_with_its_own_parts() {
        let (memory, lengths): (_, Arc<[u32]>) = (random("memory", [4, 5, 6]), [5, 2, 0, 1].into());
        let states = random("states", [3, 1, 6]);
        for text in KINDS {
            let config: AttentionConfig = serde_json::from_str(text).unwrap();
            let attention = config.init(6, 6, Key::from_seed(2), &Device::flex()).unwrap();
            // The rows of a search look at the memory of their own request.
            let owners = [1, 3, 1];
            let prepared = attention.prepare(memory.clone(), &lengths).owned_by(&owners);
            let asked = Asked { weights: true, again: false };
            let look = attention.look(attention.query(states.clone()), &prepared, Vec::new(), asked);

            let (query, keys, energy) = match &attention {
                Attention::Dot(_) => (states.clone(), memory.clone(), None),
                Attention::General(of) => (states.clone(), linear(memory.clone(), of.keys.val()), None),
                Attention::Additive(of) => {
                    let keys = linear(memory.clone(), of.keys.val());
                    (linear(states.clone(), of.query.val()), keys, Some(of.energy.val().squeeze_dim::<1>(1)))
                }
            };
            let values = attention.heads().values(memory.clone());
            let over = Over { lengths: lengths.clone(), owners: Some(owners.into()) };
            let (width, [_, _, value]) = (query.dims()[2] / 3, values.dims());
            let (mut contexts, mut mean) = (Vec::new(), Tensor::zeros([3, 1, 5], &Device::flex()));
            for head in 0..3 {
                let part = |x: &Tensor<3>| x.clone().narrow(2, head * width, width);
                let energy = energy.clone().map(|energy| energy.narrow(0, head * width, width));
                let values = values.clone().reshape([4, 3, 5, value]).narrow(1, head, 1).squeeze_dim(1);
                let (context, weights) = attend_with_weights(part(&query), part(&keys), values, energy, &over);
                contexts.push(context);
                mean = mean + weights / 3.0;
            }
            assert_close(&host(look.context), &host(Tensor::cat(contexts, 2)), text);
            assert_close(&shown(look.weights, &[prepared]), &host(mean), text);
        }
    }

    #[test]
    fn what_several_memories_show_stands_without_padding_between() {
        let config: AttentionConfig = serde_json::from_str(KINDS[1]).unwrap();
        let attention = config.init(6, 6, Key::from_seed(2), &Device::flex()).unwrap();
        let (first, second): (Arc<[u32]>, Arc<[u32]>) = ([4, 2, 3].into(), [2, 0, 3].into());
        let memories = [(4, first), (3, second)]
            .map(|(steps, lengths)| attention.prepare(random("memory", [3, steps, 6]), &lengths).owned_by(&[1, 0, 1]));
        let asked = Asked { weights: true, again: false };
        let looks = memories.each_ref().map(|memory| attention.look(random("q", [3, 1, 6]), memory, vec![], asked));
        let own = looks.each_ref().map(|look| host(look.weights[0].clone().reshape([3, 3, 0]).mean_dim(1)));
        let all = shown(Look::beside(looks.into()).weights, &memories);
        // The widest row of all memories, which none of these looks at, has six steps.
        let half = |x: &[f32]| x.iter().map(|x| x / 2.0).collect::<Vec<_>>();
        let expected = [&own[0][..2], &[0.0; 4], &half(&own[0][4..8]), &half(&own[1][3..5]), &own[0][8..10], &[0.0; 4]];
        assert_close(&all, &expected.concat(), "shown");
    }
}
