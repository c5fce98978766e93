//! A stage of recurrent layers.

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{Cell, concat};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Encoded, StageShape, StateShape, idle_dropout};
use crate::dropout::{Dropout, idle_lock};
use crate::embedding::Input;
use crate::recurrent::{InitialConfig, LayerSizes, RecurrentLayer};

/// A stack of recurrent layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecurrentEncoderConfig {
    /// The width of a layer, in each direction.
    #[schemars(range(min = 1, max = 8192))]
    pub hidden: usize,
    /// How many layers are stacked.
    #[schemars(range(min = 1, max = 64))]
    pub layers: usize,
    /// Whether every layer reads the source from both ends; memory is then twice as wide.
    pub bidirectional: bool,
    /// The share of numbers that training drops from what a layer hands to the next.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
    /// Whether `dropout` draws one mask a row, which holds for all of its steps (variational dropout, Gal and Ghahramani 2016).
    pub locked_dropout: bool,
    /// The share of numbers of every recurrent weight that training drops, the same for all steps of a batch (Merity et al. 2018).
    #[schemars(range(min = 0.0, max = 0.95))]
    pub weight_drop: f64,
    /// Whether every layer but the first adds what it reads to what it makes (Wu et al. 2016).
    pub residual: bool,
    /// How the parameters start.
    pub initial: InitialConfig,
}

impl Default for RecurrentEncoderConfig {
    fn default() -> Self {
        Self {
            hidden: 256,
            layers: 1,
            bidirectional: true,
            dropout: 0.0,
            locked_dropout: false,
            weight_drop: 0.0,
            residual: false,
            initial: InitialConfig::default(),
        }
    }
}

impl RecurrentEncoderConfig {
    pub(super) fn shape(&self, cell: Cell) -> StageShape {
        let width = self.hidden * if self.bidirectional { 2 } else { 1 };
        let state = StateShape { states: cell.states(), width, layers: self.layers };
        StageShape::of_steps(width, Some(state))
    }

    pub(super) fn warnings(&self, cell: Cell, is_last: bool) -> Vec<Problem> {
        let mut warnings = self.initial.warnings(cell);
        warnings.extend(idle_dropout(self.dropout, self.layers, is_last));
        if self.residual && self.layers == 1 {
            warnings.push(Problem { place: "residual".into(), message: "has no effect with a single layer".into() });
        }
        warnings.extend(idle_lock(self.locked_dropout, &[self.dropout]));
        warnings
    }

    pub(super) fn init(&self, cell: Cell, input: usize, key: Key, device: &Device) -> RecurrentEncoder {
        let width = self.shape(cell).memory;
        let layers = (0..self.layers).map(|l| {
            let key = key.numbered(l as u64);
            let sizes = LayerSizes { input: if l == 0 { input } else { width }, hidden: self.hidden, feed: None };
            let layer = |reverse: bool, name: &str| {
                RecurrentLayer::init(cell, reverse, sizes, self.weight_drop, &self.initial, key.named(name), device)
            };
            EncoderLayer {
                forward: layer(false, "forward"),
                backward: self.bidirectional.then(|| layer(true, "backward")),
            }
        });
        let dropout = Dropout { rate: self.dropout, locked: self.locked_dropout };
        RecurrentEncoder { layers: layers.collect(), dropout, residual: self.residual }
    }
}

/// A stack of recurrent layers, in one direction or both.
#[derive(Module, Debug)]
pub(crate) struct RecurrentEncoder {
    layers: Vec<EncoderLayer>,
    #[module(skip)]
    dropout: Dropout,
    /// Whether every layer but the first adds what it reads.
    #[module(skip)]
    residual: bool,
}

#[derive(Module, Debug)]
struct EncoderLayer {
    forward: RecurrentLayer,
    backward: Option<RecurrentLayer>,
}

impl RecurrentEncoder {
    /// Reads a batch whose rows have `lengths` real steps.
    pub(super) fn encode(&self, input: Input, lengths: Arc<[u32]>, dropout_key: Option<Key>) -> Encoded {
        let mut input = input;
        let mut states = Vec::with_capacity(self.layers.len());
        let mut memory: Option<Tensor<3>> = None;
        for (l, layer) in self.layers.iter().enumerate() {
            let passed = memory.clone().filter(|_| self.residual);
            if let Some(below) = memory.take() {
                input = Input::Vectors(self.dropout.apply(below, dropout_key.map(|key| key.numbered(l as u64))));
            }
            let of_weights = dropout_key.map(|key| key.named("weight").numbered(l as u64));
            let (sequence, state) = layer.run(&input, &lengths, of_weights);
            states.push(state);
            memory = Some(match passed {
                Some(passed) => sequence + passed,
                None => sequence,
            });
        }
        Encoded::of(memory.expect("an encoder has a layer"), lengths, states)
    }

    /// What is dropped from what a layer hands to the next, and the last one to a next stage.
    pub(super) fn dropout(&self) -> Dropout {
        self.dropout
    }
}

impl EncoderLayer {
    /// → (sequence `[B, S, D·H]`, state `[B, N·D·H]`)
    fn run(&self, input: &Input, lengths: &Arc<[u32]>, dropout_key: Option<Key>) -> (Tensor<3>, Tensor<2>) {
        let run = |layer: &RecurrentLayer, name: &str| {
            let projected = layer.project(input);
            let [rows, steps, _] = projected.dims();
            let ragged = lengths.iter().any(|&n| (n as usize) < steps);
            let weight = layer.recurrent_weight(dropout_key.map(|key| key.named(name)));
            layer.run(projected, weight, layer.zero_state(rows), ragged.then(|| lengths.clone()))
        };
        let forward = run(&self.forward, "forward");
        let Some(backward) = self.backward.as_ref().map(|layer| run(layer, "backward")) else {
            return (forward.sequence(), forward.state());
        };
        let sequence = concat(forward.sequence(), backward.sequence());
        let h = self.forward.hidden();
        // Each state vector of one direction stands beside that of the other.
        let [rows, width] = forward.state().dims();
        let [from, to] = [forward.state(), backward.state()].map(|state| state.reshape([rows, width / h, h]));
        (sequence, concat(from, to).reshape([rows, 2 * width]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::ModuleMapper;

    struct Zero;
    impl ModuleMapper for Zero {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<D>>,
        ) -> burn::module::Param<Tensor<D>> {
            param.map(|tensor| tensor.zeros_like())
        }
    }

    /// What such a layer makes is zero.
    #[test]
    fn a_residual_layer_without_weights_hands_on_what_it_reads() {
        let device = Device::flex();
        let config = |layers| RecurrentEncoderConfig { hidden: 3, layers, residual: true, ..Default::default() };
        let x = Tensor::<3>::random([2, 4, 5], burn::tensor::Distribution::Default, &device);
        let encode = |encoder: RecurrentEncoder| {
            let encoded = encoder.encode(Input::Vectors(x.clone()), [4, 2].into(), None);
            encoded.memory.into_data().try_to_vec::<f32>().unwrap()
        };
        for cell in [Cell::Rnn, Cell::Lstm, Cell::Gru] {
            let init = |layers| config(layers).init(cell, 5, Key::from_seed(1), &device);
            let mut two = init(2);
            let second = two.layers.pop().expect("a second layer").map(&mut Zero);
            two.layers.push(second);
            let one = encode(init(1));
            assert_eq!(encode(two), one, "{cell:?}");
            assert_ne!(encode(init(2)), one, "{cell:?}");
        }
    }
}
