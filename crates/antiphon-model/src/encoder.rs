//! Encoders: a source `[B, S]` becomes memory `[B, S', M]` and a final state.

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{Cell, dropout};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::embedding::Input;
use crate::recurrent::{InitialConfig, LayerSizes, RecurrentLayer};

/// An encoder, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EncoderConfig {
    /// Elman's simple recurrent network with tanh.
    Rnn(RecurrentEncoderConfig),
    /// Long short-term memory.
    Lstm(RecurrentEncoderConfig),
    /// Gated recurrent unit.
    Gru(RecurrentEncoderConfig),
}

impl Default for EncoderConfig {
    fn default() -> Self {
        EncoderConfig::Lstm(RecurrentEncoderConfig::default())
    }
}

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
    /// How the parameters start.
    pub initial: InitialConfig,
}

impl Default for RecurrentEncoderConfig {
    fn default() -> Self {
        Self { hidden: 256, layers: 1, bidirectional: true, dropout: 0.0, initial: InitialConfig::default() }
    }
}

impl EncoderConfig {
    fn parts(&self) -> (Cell, &RecurrentEncoderConfig) {
        match self {
            EncoderConfig::Rnn(config) => (Cell::Rnn, config),
            EncoderConfig::Lstm(config) => (Cell::Lstm, config),
            EncoderConfig::Gru(config) => (Cell::Gru, config),
        }
    }

    /// What the decoder will meet.
    pub(crate) fn shape(&self) -> EncoderShape {
        let (cell, config) = self.parts();
        let width = config.hidden * if config.bidirectional { 2 } else { 1 };
        EncoderShape { memory: width, states: cell.states(), state_width: width, layers: config.layers }
    }

    pub(crate) fn warnings(&self) -> Vec<Problem> {
        let (cell, config) = self.parts();
        let mut warnings = config.initial.warnings(cell);
        if config.dropout > 0.0 && config.layers == 1 {
            warnings.push(Problem { place: "dropout".into(), message: "has no effect with a single layer".into() });
        }
        warnings
    }

    /// An encoder of inputs of width `input`.
    pub(crate) fn init(&self, input: usize, key: Key, device: &Device) -> Encoder {
        let (cell, config) = self.parts();
        let width = self.shape().memory;
        let layers = (0..config.layers).map(|l| {
            let key = key.numbered(l as u64);
            let sizes = LayerSizes { input: if l == 0 { input } else { width }, hidden: config.hidden, feed: None };
            let layer = |reverse: bool, name: &str| {
                RecurrentLayer::init(cell, reverse, sizes, &config.initial, key.named(name), device)
            };
            EncoderLayer {
                forward: layer(false, "forward"),
                backward: config.bidirectional.then(|| layer(true, "backward")),
            }
        });
        Encoder { layers: layers.collect(), rate: config.dropout }
    }
}

/// What an encoder hands on, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EncoderShape {
    /// `M`.
    pub(crate) memory: usize,
    /// `N`: state vectors a layer (`h`, and `c` for the LSTM).
    pub(crate) states: usize,
    /// The width of one state vector.
    pub(crate) state_width: usize,
    /// How many layers have a state.
    pub(crate) layers: usize,
}

/// A stack of recurrent layers, in one direction or both.
#[derive(Module, Debug)]
pub struct Encoder {
    layers: Vec<EncoderLayer>,
    #[module(skip)]
    rate: f64,
}

#[derive(Module, Debug)]
struct EncoderLayer {
    forward: RecurrentLayer,
    backward: Option<RecurrentLayer>,
}

/// What was read.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    /// `[B, S', M]`.
    pub(crate) memory: Tensor<3>,
    /// `[B]`: real steps of each row's memory.
    pub(crate) lengths: Arc<[u32]>,
    /// A layer's final state, `[B, N·W]`: all of `h`, then all of `c`, both directions side by side.
    pub(crate) states: Vec<Tensor<2>>,
}

impl Encoder {
    /// Reads a batch whose rows have `lengths` real steps.
    pub(crate) fn encode(&self, input: Input, lengths: Arc<[u32]>, dropout_key: Option<Key>) -> Encoded {
        let mut input = input;
        let mut states = Vec::with_capacity(self.layers.len());
        let mut memory = None;
        for (l, layer) in self.layers.iter().enumerate() {
            if let Some(below) = memory.take() {
                input = Input::Vectors(match dropout_key {
                    Some(key) => dropout(below, self.rate, key.numbered(l as u64)),
                    None => below,
                });
            }
            let (sequence, state) = layer.run(&input, &lengths);
            states.push(state);
            memory = Some(sequence);
        }
        Encoded { memory: memory.expect("an encoder has a layer"), lengths, states }
    }
}

impl EncoderLayer {
    /// → (sequence `[B, S, D·H]`, state `[B, N·D·H]`)
    fn run(&self, input: &Input, lengths: &Arc<[u32]>) -> (Tensor<3>, Tensor<2>) {
        let run = |layer: &RecurrentLayer| {
            let projected = layer.project(input);
            let [rows, steps, _] = projected.dims();
            let ragged = lengths.iter().any(|&n| (n as usize) < steps);
            layer.run(projected, layer.zero_state(rows), ragged.then(|| lengths.clone()))
        };
        let forward = run(&self.forward);
        let Some(backward) = self.backward.as_ref().map(run) else {
            return (forward.sequence(), forward.state());
        };
        let sequence = Tensor::cat(vec![forward.sequence(), backward.sequence()], 2);
        let h = self.forward.hidden();
        let (from, to) = (forward.state(), backward.state());
        let parts = (0..from.dims()[1] / h).flat_map(|k| [&from, &to].map(|state| state.clone().narrow(1, k * h, h)));
        (sequence, Tensor::cat(parts.collect(), 1))
    }
}
