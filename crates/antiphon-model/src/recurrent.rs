//! Recurrent layers, shared by encoders and decoders: parameters around [`antiphon_kernels::recurrent`].

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{Cell, PackedWeight, Recurrence, Recurrent, Shared, dropout, recurrent, recurrent_step};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::embedding::Input;
use crate::initial::{Initial, parameter};

/// How the parameters of recurrent layers start; biases are zero but for the forget gate's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InitialConfig {
    /// The weight of the input.
    pub input: Initial,
    /// The weight of the state.
    pub recurrent: Initial,
    /// The bias of an LSTM's forget gate (Jozefowicz et al. 2015 recommend 1).
    #[schemars(extend("format" = "float"))]
    pub forget_bias: f64,
}

impl Default for InitialConfig {
    fn default() -> Self {
        Self { input: Initial::GlorotUniform, recurrent: Initial::Orthogonal, forget_bias: 1.0 }
    }
}

impl InitialConfig {
    /// What has no effect with a kind of cell.
    pub(crate) fn warnings(&self, cell: Cell) -> Vec<Problem> {
        let idle = cell != Cell::Lstm && self.forget_bias != Self::default().forget_bias;
        let message = "has no effect: only an LSTM has a forget gate";
        let place = "initial.forget_bias";
        idle.then(|| Problem { place: place.into(), message: message.into() }).into_iter().collect()
    }
}

/// One layer in one direction.
#[derive(Module, Debug)]
pub(crate) struct RecurrentLayer {
    /// `[I, G·H]`.
    input: Param<Tensor<2>>,
    /// `[H, G·H]`.
    recurrent: Param<Tensor<2>>,
    /// `[biases·H]`.
    bias: Param<Tensor<1>>,
    /// `[A, G·H]`: for what a decoder feeds back.
    feed: Option<Param<Tensor<2>>>,
    #[module(skip)]
    cell: Cell,
    #[module(skip)]
    reverse: bool,
    /// The share of the recurrent weight that training drops.
    #[module(skip)]
    weight_drop: f64,
}

/// A layer's weights, ready for many steps.
pub(crate) struct LayerWeights {
    input: Option<PackedWeight>,
    recurrent: PackedWeight,
    /// For what a decoder feeds back.
    feed: Option<PackedWeight>,
}

/// What a layer is made of, beside its unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerSizes {
    /// `I`.
    pub(crate) input: usize,
    /// `H`.
    pub(crate) hidden: usize,
    /// `A`, if something is fed back.
    pub(crate) feed: Option<usize>,
}

impl RecurrentLayer {
    pub(crate) fn init(
        cell: Cell,
        reverse: bool,
        sizes: LayerSizes,
        weight_drop: f64,
        start: &InitialConfig,
        key: Key,
        device: &Device,
    ) -> Self {
        let (h, width) = (sizes.hidden, cell.gates() * sizes.hidden);
        let mut bias = vec![0.0; cell.biases() * h];
        if cell == Cell::Lstm {
            bias[h..2 * h].fill(start.forget_bias as f32);
        }
        let input = |rows: usize, name: &str| start.input.weight([rows, width], h, key.named(name), device);
        Self {
            input: input(sizes.input, "input"),
            recurrent: start.recurrent.weight([h, width], h, key.named("recurrent"), device),
            bias: parameter(bias, [cell.biases() * h], device),
            feed: sizes.feed.map(|rows| input(rows, "feed")),
            cell,
            reverse,
            weight_drop,
        }
    }

    /// `H`.
    pub(crate) fn hidden(&self) -> usize {
        self.recurrent.dims()[0]
    }

    /// The input's share of the gates' sums for all steps: `[B, T, G·H]`.
    pub(crate) fn project(&self, input: &Input) -> Tensor<3> {
        input.project(self.input.val())
    }

    /// The share of what is fed back: `[B, A] → [B, 1, G·H]`.
    pub(crate) fn project_feed(&self, fed: Tensor<2>) -> Tensor<3> {
        let weight = self.feed.as_ref().expect("a layer that is fed has a weight for it").val();
        fed.matmul(weight).unsqueeze_dim(1)
    }

    /// The weights, ready for many steps; that of the input only where this is not one-hot.
    pub(crate) fn weights(&self, embedded: bool) -> LayerWeights {
        LayerWeights {
            input: embedded.then(|| PackedWeight::new(self.input.val())),
            recurrent: PackedWeight::new(self.recurrent.val()),
            feed: self.feed.as_ref().map(|feed| PackedWeight::new(feed.val())),
        }
    }

    /// As [`project`](Self::project) for one step of search: `[B, G·H]`.
    pub(crate) fn project_rows(&self, weights: &LayerWeights, input: &Input) -> Tensor<2> {
        match (input, &weights.input) {
            (Input::Vectors(vectors), Some(weight)) => weight.multiply(vectors.clone().squeeze_dim(1)),
            _ => self.project(input).squeeze_dim(1),
        }
    }

    /// A step of search over projected inputs `[B, G·H]` from states `[B, N·H]`, with what is `fed` back, if anything: a row
    /// for each of the states' table.
    pub(crate) fn step(
        &self,
        weights: &LayerWeights,
        x: Shared<'_>,
        states: Shared<'_>,
        fed: Option<Tensor<2>>,
    ) -> Tensor<2> {
        let feed = weights.feed.as_ref().zip(fed);
        recurrent_step(self.cell, x, &weights.recurrent, self.bias.val(), states, feed)
    }

    /// The recurrent weight of a batch, `[H, G·H]`: under a key, without the numbers that are dropped for all of its steps
    /// (DropConnect, Wan et al. 2013; Merity et al. 2018).
    pub(crate) fn recurrent_weight(&self, dropout_key: Option<Key>) -> Tensor<2> {
        let weight = self.recurrent.val();
        match dropout_key {
            Some(key) => dropout(weight, self.weight_drop, key),
            None => weight,
        }
    }

    /// Runs over projected inputs from `state` (`[B, N·H]`) with the batch's recurrent `weight`.
    pub(crate) fn run(
        &self,
        projected: Tensor<3>,
        weight: Tensor<2>,
        state: Tensor<2>,
        lengths: Option<std::sync::Arc<[u32]>>,
    ) -> Recurrent {
        let run = Recurrence { cell: self.cell, reverse: self.reverse, lengths };
        recurrent(projected, weight, self.bias.val(), state, &run)
    }

    /// The unit, its bias and the weight of what is fed back, for an operation that runs all of it.
    pub(crate) fn fed_parts(&self) -> (Cell, Tensor<1>, Tensor<2>) {
        let feed = self.feed.as_ref().expect("a layer that is fed has a weight for it").val();
        (self.cell, self.bias.val(), feed)
    }

    /// A zero state for `rows` rows, off the graph.
    pub(crate) fn zero_state(&self, rows: usize) -> Tensor<2> {
        Tensor::zeros([rows, self.cell.states() * self.hidden()], &self.recurrent.device().inner())
    }
}
