//! A step of search: one token for each row, without gradients.

use std::collections::HashMap;

use antiphon_core::TokenId;
use antiphon_kernels::{PackedWeight, Shared, linear, select_rows, tanh};
use burn::tensor::Tensor;

use super::{Decoder, DecoderState};
use crate::attention::{Asked, AttentionState, Prepared, shown};
use crate::embedding::{Embedding, Input, embed};
use crate::encoder::Encoded;
use crate::recurrent::LayerWeights;

/// A decoder's weights, ready for many steps.
pub(crate) struct DecoderWeights {
    layers: Vec<LayerWeights>,
    /// Of each additive attention.
    queries: Vec<Option<PackedWeight>>,
    /// Of the state.
    readout: Option<PackedWeight>,
    /// Of the context, unless it is in the memory.
    context: Option<PackedWeight>,
    projection: Option<PackedWeight>,
}

/// Where the rows of a search stand. Rows that grew from one share its state.
pub(crate) struct SearchState {
    /// `[P, …]`.
    states: DecoderState,
    /// Which state each row goes on from.
    parents: Vec<u32>,
}

/// What a step gave, row by row.
pub(crate) struct Step {
    /// `[B, R]`: to be projected.
    pub(crate) outputs: Tensor<2>,
    /// `[B, S]`: where the decoder looked, as [`shown`] tells it, if that is wanted and it attends.
    pub(crate) attention: Vec<f32>,
}

impl SearchState {
    /// A row for each state.
    pub(crate) fn new(states: DecoderState) -> Self {
        let rows = states.rows() as u32;
        Self { states, parents: (0..rows).collect() }
    }

    /// A row for each of `parents`, the number of the state that it goes on from.
    pub(crate) fn shared(states: DecoderState, parents: Vec<u32>) -> Self {
        Self { states, parents }
    }

    /// Keeps `rows`, in this order.
    pub(crate) fn select(&mut self, rows: &[u32]) {
        let parents: Vec<u32> = rows.iter().map(|&row| self.parents[row as usize]).collect();
        let (kept, parents) = distinct(&parents);
        self.states = self.states.map(|array| select_rows(array.clone(), &kept));
        self.parents = parents;
    }
}

/// The different values in the order in which they first come, and for each value the place of its own among these.
fn distinct(values: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let (mut kept, mut places) = (Vec::new(), HashMap::new());
    let place = |&value: &u32| {
        *places.entry(value).or_insert_with(|| {
            kept.push(value);
            kept.len() as u32 - 1
        })
    };
    let places = values.iter().map(place).collect();
    (kept, places)
}

/// A row for each row of a search, where rows that grew from one share what it remembers.
fn own_rows(state: AttentionState, parents: &[u32]) -> AttentionState {
    state.into_iter().map(|array| select_rows(array, parents)).collect()
}

impl Decoder {
    /// The weights, ready for many steps on inputs that are embedded, or one-hot.
    pub(crate) fn weights(&self, embedded: bool) -> DecoderWeights {
        let layers = self.layers.iter().enumerate();
        DecoderWeights {
            layers: layers.map(|(l, layer)| layer.weights(l > 0 || embedded)).collect(),
            queries: self.attentions().map(|attention| attention.query_weight().map(PackedWeight::new)).collect(),
            readout: self.readout.as_ref().map(|readout| PackedWeight::new(readout.state.val())),
            context: self
                .readout
                .as_ref()
                .filter(|_| !self.reads_out_of_memory())
                .map(|readout| PackedWeight::new(readout.context.val())),
            projection: self.projection.as_ref().map(|projection| PackedWeight::new(projection.val())),
        }
    }

    /// Whether a single head looks at a single memory. A context is only read out, and `C Σ_s w_s m_s = Σ_s w_s (C m_s)`: the memory
    /// is then multiplied once, instead of every context.
    fn reads_out_of_memory(&self) -> bool {
        self.streams.is_empty() && self.attention.as_ref().is_some_and(|attention| attention.reads_whole_steps())
    }

    /// Makes the memories ready for [`step`](Self::step), if the decoder attends.
    pub(crate) fn prepare_steps(&self, sources: &[Encoded]) -> Vec<Prepared> {
        let mut memories = self.prepare(sources);
        if let (Some(readout), true, [memory]) = (&self.readout, self.reads_out_of_memory(), &mut memories[..]) {
            memory.memory = linear(memory.memory.clone(), readout.context.val());
        }
        memories
    }

    /// Feeds each row its last token, and moves `state` on. What rows have in common, a token or a state, is multiplied once.
    pub(crate) fn step(
        &self,
        weights: &DecoderWeights,
        embedding: Option<&Embedding>,
        tokens: &[TokenId],
        state: &mut SearchState,
        memories: &[Prepared],
        want_attention: bool,
    ) -> Step {
        let SearchState { states, parents } = state;
        let (different, mut numbers) = distinct(tokens);
        let mut input = embed(embedding, &different, [different.len(), 1], None);
        let mut fed = states.fed.take();
        let mut looked = own_rows(std::mem::take(&mut states.attention), parents);
        let mut layers = Vec::with_capacity(self.layers.len());
        for ((layer, weights), before) in self.layers.iter().zip(&weights.layers).zip(states.layers.drain(..)) {
            let x = Shared { table: layer.project_rows(weights, &input), numbers: &numbers };
            let next = layer.step(weights, x, Shared { table: before, numbers: parents }, fed.take());
            input = Input::Vectors(next.clone().narrow(1, 0, layer.hidden()).unsqueeze_dim(1));
            numbers = (0..tokens.len() as u32).collect();
            layers.push(next);
        }
        let Input::Vectors(hidden) = input else { unreachable!("a decoder has a layer") };
        let [rows, _, width] = hidden.dims();
        let flat = hidden.clone().reshape([rows, width]);
        let mut attention = Vec::new();
        let outputs = match (&self.readout, &weights.readout) {
            (Some(readout), Some(of_state)) => {
                let query = |weight: &Option<PackedWeight>| match weight {
                    Some(weight) => weight.multiply(flat.clone()).unsqueeze_dim(1),
                    None => hidden.clone(),
                };
                let asked = Asked { weights: want_attention, ..Asked::default() };
                let look = self.look(weights.queries.iter().map(query), memories, looked, asked);
                (attention, looked) = (shown(look.weights, memories), look.state);
                let context = look.context.squeeze_dim(1);
                let context = match &weights.context {
                    Some(weight) => weight.multiply(context),
                    None => context,
                };
                tanh(of_state.multiply(flat) + context + readout.bias.val().unsqueeze())
            }
            _ => match &weights.projection {
                Some(projection) => projection.multiply(flat),
                None => flat,
            },
        };
        let fed = self.feeding.then(|| outputs.clone());
        *state = SearchState::new(DecoderState { layers, fed, attention: looked });
        Step { outputs, attention }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_is_kept_once() {
        assert_eq!(distinct(&[7, 3, 7, 7, 0, 3]), (vec![7, 3, 0], vec![0, 1, 0, 0, 2, 1]));
        assert_eq!(distinct(&[]), (vec![], vec![]));
    }
}
