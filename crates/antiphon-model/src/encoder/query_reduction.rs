//! Query reduction: a recurrence over sentences in which each of them reads the question as it stands (Seo et al. 2017).

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{QueryReduction, Reduction, host, linear, query_gates, reduce_query};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Around, Encoded};
use crate::dropout::Dropout;
use crate::initial::{Initial, parameter, zeros};

/// Layers of a query-reduction network (Seo et al. 2017). At sentence `x_t` with the question `q_t` as this layer reads it,
/// `z = σ(w_z · (x ∘ q) + b_z)`, `r = σ(w_r · (x ∘ q) + b_r)`, `c = tanh(W [x; q] + b)` and `h_t = z r c + (1 − z) h_{t−1}`. The
/// first layer reads the question itself, each further one the states of the layer before. The final state is the last `h`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryReductionConfig {
    /// The source whose final state is the question; it must be as wide as the sentences.
    #[schemars(length(min = 1), example = &"question")]
    pub query: String,
    /// How many layers are stacked.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 64))]
    pub layers: usize,
    /// Whether a second gate, `r`, can keep a sentence's candidate out.
    #[serde(default = "super::yes")]
    pub reset: bool,
    /// Whether every layer but the last also reads the sentences from their end, and hands on the sum of both states.
    #[serde(default = "super::yes")]
    pub bidirectional: bool,
    /// Whether all layers have the same weights.
    #[serde(default = "super::yes")]
    pub tied: bool,
    /// Where the bias of the gate `z` starts: the lower, the less a sentence changes at first.
    #[serde(default = "reluctant")]
    pub gate_bias: f64,
    /// The share of numbers that training drops from the sentences and from the question, for all layers alike.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
}

fn two() -> usize {
    2
}

fn reluctant() -> f64 {
    -2.5
}

impl QueryReductionConfig {
    pub(super) fn warnings(&self) -> Vec<Problem> {
        let idle = |set: bool, place: &str| {
            let problem = || Problem { place: place.into(), message: "has no effect with a single layer".into() };
            (set && self.layers == 1).then(problem)
        };
        // Both are on unless somebody turns them off, so that only that can be meant.
        idle(!self.bidirectional, "bidirectional").into_iter().chain(idle(!self.tied, "tied")).collect()
    }

    pub(super) fn init(&self, width: usize, key: Key, device: &Device) -> QueryReductionStage {
        let gates = if self.reset { 2 } else { 1 };
        let layer = |l: usize| {
            let key = key.numbered(l as u64);
            let weight = |dims, name: &str| Initial::GlorotUniform.weight(dims, width, key.named(name), device);
            let mut gate_bias = vec![0.0; gates];
            gate_bias[0] = self.gate_bias as f32;
            ReductionLayer {
                sentence: weight([width, width], "sentence"),
                query: weight([width, width], "query"),
                bias: zeros(width, device),
                gates: Initial::Uniform.weight([gates, width], width, key.named("gates"), device),
                gate_bias: parameter(gate_bias, [gates], device),
            }
        };
        QueryReductionStage {
            weights: (0..if self.tied { 1 } else { self.layers }).map(layer).collect(),
            query: self.query.clone(),
            layers: self.layers,
            bidirectional: self.bidirectional,
            dropout: Dropout { rate: self.dropout, locked: false },
        }
    }
}

/// Layers of query reduction.
#[derive(Module, Debug)]
pub(crate) struct QueryReductionStage {
    /// Of each layer, or of all of them.
    weights: Vec<ReductionLayer>,
    #[module(skip)]
    query: String,
    #[module(skip)]
    layers: usize,
    #[module(skip)]
    bidirectional: bool,
    #[module(skip)]
    dropout: Dropout,
}

#[derive(Module, Debug)]
struct ReductionLayer {
    /// `[D, D]`: of `W`, what meets the sentence.
    sentence: Param<Tensor<2>>,
    /// `[D, D]`: of `W`, what meets the question.
    query: Param<Tensor<2>>,
    /// `[D]`.
    bias: Param<Tensor<1>>,
    /// `[1 or 2, D]`: `w_z`, then `w_r`.
    gates: Param<Tensor<2>>,
    /// `[1 or 2]`.
    gate_bias: Param<Tensor<1>>,
}

impl QueryReductionStage {
    /// `[B, N, D] → [B, N, D]`: the states of the last layer.
    pub(super) fn encode(
        &self,
        sentences: Tensor<3>,
        lengths: Arc<[u32]>,
        around: &Around<'_>,
        dropout_key: Option<Key>,
    ) -> Encoded {
        let width = sentences.dims()[2];
        let key = |name: &str| dropout_key.map(|key| key.named(name));
        let sentences = self.dropout.apply(sentences, key("sentences"));
        // [B, 1, D] in the first layer, then [B, N, D].
        let mut query = self.dropout.apply(around.state(&self.query, width).unsqueeze_dim(1), key("query"));
        let (mut gates, mut last) = (Vec::new(), None);
        // Of each set of weights what does not depend on the question, made once for all layers that share it.
        let seen = |of: &ReductionLayer| linear(sentences.clone(), of.sentence.val()) + of.bias.val().unsqueeze();
        let seen: Vec<Tensor<3>> = self.weights.iter().map(seen).collect();
        for l in 0..self.layers {
            let shared = l.min(self.weights.len() - 1);
            let of = &self.weights[shared];
            let candidates = seen[shared].clone() + linear(query.clone(), of.query.val());
            let (weight, bias) = (of.gates.val(), of.gate_bias.val());
            if around.watch {
                gates.push(query_gates(sentences.clone(), query.clone(), weight.clone(), bias.clone(), &lengths));
            }
            let tensors = QueryReduction { sentences: sentences.clone(), queries: query, candidates, weight, bias };
            let both = self.bidirectional && l + 1 < self.layers;
            let reduced = reduce_query(tensors, &Reduction { lengths: lengths.clone(), both });
            query = reduced.sequence();
            last = Some(reduced);
        }
        let state = last.expect("there is a layer").state();
        let looks = shares(gates, self.bidirectional);
        Encoded { looks, ..Encoded::of(query, lengths, vec![state]) }
    }
}

/// How large a share each sentence has, layer by layer, in the question as the last sentence has left it, `[B, N]` each: of the last
/// layer in its final state, of each layer below in what the sentences of those shares read there. A row sums to one, or is zero.
///
/// `gates`: `[B, N, 1 or 2]` of each layer, zero beyond a row's length. `both`: every layer but the last also reads from the end.
fn shares(gates: Vec<Tensor<3>>, both: bool) -> Vec<Tensor<2>> {
    let Some(last) = gates.last() else { return Vec::new() };
    let ([rows, steps, _], device, layers) = (last.dims(), last.device(), gates.len());
    // What is asked for at each step: at the end the state of the last one.
    let mut asked: Vec<Vec<f32>> = vec![[vec![0.0; steps - 1], vec![1.0]].concat(); rows];
    let mut looks = Vec::with_capacity(layers);
    for (l, gates) in gates.into_iter().enumerate().rev() {
        let (count, values) = (gates.dims()[2], host(gates));
        let both = both && l + 1 < layers;
        for (row, gates) in asked.iter_mut().zip(values.chunks_exact(steps * count)) {
            *row = passed_on(row, &gates.chunks_exact(count).collect::<Vec<_>>(), both);
        }
        looks.push(Tensor::from_data(TensorData::new(asked.concat(), [rows, steps]), &device));
    }
    looks.reverse();
    looks
}

/// The shares of sentences in the states of a layer that are asked for with these weights.
fn passed_on(asked: &[f32], gates: &[&[f32]], both: bool) -> Vec<f32> {
    let update = |t: usize| gates[t][0];
    let taken = |t: usize| gates[t].iter().product::<f32>();
    let mut shares = vec![0.0; asked.len()];
    let mut add = |steps: &mut dyn Iterator<Item = usize>| {
        // From where a state is asked back to where it came from.
        let mut carried = 0.0;
        for t in steps {
            carried += asked[t];
            shares[t] += carried * taken(t);
            carried *= 1.0 - update(t);
        }
    };
    add(&mut (0..asked.len()).rev());
    if both {
        add(&mut (0..asked.len()));
    }
    let sum: f32 = shares.iter().sum();
    if sum > 0.0 {
        shares.iter_mut().for_each(|share| *share /= sum);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state is the sum of all candidates by these shares, here of single numbers.
    #[test]
    fn shares_are_those_by_which_states_are_sums() {
        let key = Key::from_seed(4);
        let (n, number) = (6, |i: usize| key.uniform(i as u64) as f32);
        let gates: Vec<[f32; 2]> = (0..n).map(|t| [number(2 * t), number(2 * t + 1)]).collect();
        let gates: Vec<&[f32]> = gates.iter().map(<[f32; 2]>::as_slice).collect();
        for candidate in 0..n {
            let of = |t: usize| if t == candidate { gates[t][0] * gates[t][1] } else { 0.0 };
            let (mut forward, mut state) = (vec![0.0; n], 0.0);
            for t in 0..n {
                state = of(t) + (1.0 - gates[t][0]) * state;
                forward[t] = state;
            }
            let mut backward = vec![0.0; n];
            state = 0.0;
            for t in (0..n).rev() {
                state = of(t) + (1.0 - gates[t][0]) * state;
                backward[t] = state;
            }
            for (at, both) in [(n - 1, false), (2, false), (2, true), (0, true)] {
                let asked: Vec<f32> = (0..n).map(|t| if t == at { 1.0 } else { 0.0 }).collect();
                let sum = |of: usize| {
                    let gate = gates[of][0] * gates[of][1];
                    let kept = |range: std::ops::Range<usize>| range.map(|t| 1.0 - gates[t][0]).product::<f32>();
                    let ahead = if of <= at { gate * kept(of + 1..at + 1) } else { 0.0 };
                    let behind = if both && of >= at { gate * kept(at..of) } else { 0.0 };
                    ahead + behind
                };
                let whole: f32 = (0..n).map(sum).sum();
                let share = passed_on(&asked, &gates, both)[candidate];
                let state = forward[at] + if both { backward[at] } else { 0.0 };
                assert!((share - state / whole).abs() < 1e-5, "{share} is not {state} of {whole}");
            }
        }
    }
}
