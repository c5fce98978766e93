//! Decoders: from the last token, the state and the memory to what is projected onto the vocabulary.

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{Cell, dropout, tanh};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attention::{Attention, AttentionConfig, Prepared};
use crate::bridge::DecoderShape;
use crate::embedding::Input;
use crate::initial::{Initial, zeros};
use crate::linear;
use crate::recurrent::{InitialConfig, LayerSizes, RecurrentLayer};

/// A decoder, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DecoderConfig {
    /// Elman's simple recurrent network with tanh.
    Rnn(RecurrentDecoderConfig),
    /// Long short-term memory.
    Lstm(RecurrentDecoderConfig),
    /// Gated recurrent unit.
    Gru(RecurrentDecoderConfig),
}

impl Default for DecoderConfig {
    fn default() -> Self {
        DecoderConfig::Lstm(RecurrentDecoderConfig::default())
    }
}

/// A stack of recurrent layers, with or without attention on top.
///
/// With attention the output is `r = tanh(U h + C context + b)` (Luong et al. 2015, eq. 5), else `h` itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecurrentDecoderConfig {
    /// The width of a layer.
    #[schemars(range(min = 1, max = 8192))]
    pub hidden: usize,
    /// How many layers are stacked.
    #[schemars(range(min = 1, max = 64))]
    pub layers: usize,
    /// The share of numbers that training drops from what a layer hands to the next, and from what is projected.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
    /// Whether the last output `r` is an input of the next step (Luong et al. 2015, section 3.3). Needs attention.
    pub input_feeding: bool,
    /// How the memory is looked at.
    pub attention: AttentionConfig,
    /// How the parameters start.
    pub initial: InitialConfig,
}

impl Default for RecurrentDecoderConfig {
    fn default() -> Self {
        Self {
            hidden: 256,
            layers: 1,
            dropout: 0.0,
            input_feeding: false,
            attention: AttentionConfig::default(),
            initial: InitialConfig::default(),
        }
    }
}

impl DecoderConfig {
    fn parts(&self) -> (Cell, &RecurrentDecoderConfig) {
        match self {
            DecoderConfig::Rnn(config) => (Cell::Rnn, config),
            DecoderConfig::Lstm(config) => (Cell::Lstm, config),
            DecoderConfig::Gru(config) => (Cell::Gru, config),
        }
    }

    /// What its state looks like.
    pub(crate) fn shape(&self) -> DecoderShape {
        let (cell, config) = self.parts();
        DecoderShape { states: cell.states(), hidden: config.hidden, layers: config.layers }
    }

    /// The width of an output whose projection is `tied` to embeddings of that width, or free.
    pub(crate) fn output(&self, tied: Option<usize>) -> usize {
        let (_, config) = self.parts();
        match tied {
            Some(width) if !config.attention.is_none() => width,
            _ => config.hidden,
        }
    }

    /// Whether it looks at the memory.
    pub(crate) fn attends(&self) -> bool {
        !self.parts().1.attention.is_none()
    }

    pub(crate) fn warnings(&self) -> Vec<Problem> {
        let (cell, config) = self.parts();
        config.initial.warnings(cell)
    }

    pub(crate) fn problems(&self, memory: usize) -> Vec<Problem> {
        let (_, config) = self.parts();
        let problems = config.attention.problems(config.hidden, memory).into_iter();
        let mut problems: Vec<Problem> = problems.map(|problem| problem.below("attention")).collect();
        if config.input_feeding && config.attention.is_none() {
            let message = "needs attention; choose one in `model.decoder.attention.kind`, or set it to false";
            problems.push(Problem { place: "input_feeding".into(), message: message.into() });
        }
        problems
    }

    /// A decoder of inputs of width `input` over memory of width `memory`, with outputs of width `output`.
    pub(crate) fn init(&self, input: usize, memory: usize, output: usize, key: Key, device: &Device) -> Decoder {
        let (cell, config) = self.parts();
        let layers = (0..config.layers).map(|l| {
            let feed = (l == 0 && config.input_feeding).then_some(output);
            let sizes = LayerSizes { input: if l == 0 { input } else { config.hidden }, hidden: config.hidden, feed };
            RecurrentLayer::init(cell, false, sizes, &config.initial, key.numbered(l as u64), device)
        });
        let attention = config.attention.init(config.hidden, memory, key.named("attention"), device);
        let readout = attention.is_some().then(|| {
            let key = key.named("readout");
            let weight = |rows, name: &str| {
                Initial::GlorotUniform.weight([rows, output], config.hidden, key.named(name), device)
            };
            Readout {
                state: weight(config.hidden, "state"),
                context: weight(memory, "context"),
                bias: zeros(output, device),
            }
        });
        Decoder { layers: layers.collect(), attention, readout, rate: config.dropout, feeding: config.input_feeding }
    }
}

/// A stack of recurrent layers with attention and readout.
#[derive(Module, Debug)]
pub struct Decoder {
    layers: Vec<RecurrentLayer>,
    attention: Option<Attention>,
    readout: Option<Readout>,
    #[module(skip)]
    rate: f64,
    #[module(skip)]
    feeding: bool,
}

/// `tanh(U h + C context + b)`.
#[derive(Module, Debug)]
struct Readout {
    /// `[H, R]`.
    state: Param<Tensor<2>>,
    /// `[M, R]`.
    context: Param<Tensor<2>>,
    /// `[R]`.
    bias: Param<Tensor<1>>,
}

/// Where a decoder stands: everything that the next step needs, a value.
#[derive(Debug, Clone)]
pub(crate) struct DecoderState {
    /// `[B, N·H]` a layer.
    layers: Vec<Tensor<2>>,
    /// `[B, R]`: the last output, if it is fed back.
    fed: Option<Tensor<2>>,
}

impl DecoderState {
    /// Keeps `rows`, in this order.
    pub(crate) fn select(&self, rows: &[u32]) -> Self {
        let numbers = linear::ids(rows, &self.layers[0].device());
        let pick = |tensor: &Tensor<2>| tensor.clone().select(0, numbers.clone());
        Self { layers: self.layers.iter().map(pick).collect(), fed: self.fed.as_ref().map(pick) }
    }
}

/// What a stretch of steps gave.
pub(crate) struct Decoded {
    /// `[B, T, R]`: to be projected.
    pub(crate) outputs: Tensor<3>,
    /// `[B, T, S]`, if the decoder attends.
    pub(crate) attention: Option<Tensor<3>>,
    /// The state behind the last step.
    pub(crate) state: DecoderState,
}

impl Decoder {
    /// Makes the memory ready, if the decoder attends.
    pub(crate) fn prepare(&self, encoded: &crate::encoder::Encoded) -> Option<Prepared> {
        self.attention.as_ref().map(|attention| attention.prepare(encoded))
    }

    /// The state before the first step, from the bridge's.
    pub(crate) fn start(&self, layers: Vec<Tensor<2>>) -> DecoderState {
        let fed = self.feeding.then(|| {
            let readout = self.readout.as_ref().expect("input feeding has a readout");
            let (rows, width) = (layers[0].dims()[0], readout.bias.dims()[0]);
            Tensor::zeros([rows, width], &layers[0].device().inner())
        });
        DecoderState { layers, fed }
    }

    /// Runs over given inputs from `state`; without input feeding all steps go through each layer at once.
    ///
    /// Padded steps are not told from real ones: what follows a row's end is never looked at.
    pub(crate) fn decode(
        &self,
        input: &Input,
        state: DecoderState,
        prepared: Option<&Prepared>,
        dropout_key: Option<Key>,
    ) -> Decoded {
        let projected = self.layers[0].project(input);
        if !self.feeding {
            return self.stretch(projected, state, prepared, dropout_key);
        }
        let steps = projected.dims()[1];
        let (mut state, mut outputs, mut weights) = (state, Vec::with_capacity(steps), Vec::with_capacity(steps));
        for t in 0..steps {
            let fed = state.fed.clone().expect("input feeding keeps the last output");
            let projected = projected.clone().narrow(1, t, 1) + self.layers[0].project_feed(fed);
            let decoded = self.stretch(projected, state, prepared, dropout_key.map(|key| key.numbered(t as u64)));
            state = decoded.state;
            outputs.push(decoded.outputs);
            weights.extend(decoded.attention);
        }
        let attention = (!weights.is_empty()).then(|| Tensor::cat(weights, 1));
        Decoded { outputs: Tensor::cat(outputs, 1), attention, state }
    }

    /// All layers, attention and readout over projected inputs `[B, T, G·H]`; nothing is fed back inside.
    fn stretch(
        &self,
        projected: Tensor<3>,
        state: DecoderState,
        prepared: Option<&Prepared>,
        dropout_key: Option<Key>,
    ) -> Decoded {
        let drop = |x: Tensor<3>, name: &str, l: usize| match dropout_key {
            Some(key) => dropout(x, self.rate, key.named(name).numbered(l as u64)),
            None => x,
        };
        let mut states = Vec::with_capacity(self.layers.len());
        let mut run_layer = |layer: &RecurrentLayer, projected: Tensor<3>, start: Tensor<2>| {
            let run = layer.run(projected, start, None);
            states.push(run.state());
            run.sequence()
        };
        let mut layers = self.layers.iter().zip(state.layers).enumerate();
        let (_, (first, start)) = layers.next().expect("a decoder has a layer");
        let mut hidden = run_layer(first, projected, start);
        for (l, (layer, start)) in layers {
            let projected = layer.project(&Input::Vectors(drop(hidden, "layer", l)));
            hidden = run_layer(layer, projected, start);
        }
        let (outputs, attention) = match (&self.attention, &self.readout, prepared) {
            (Some(attention), Some(readout), Some(prepared)) => {
                let (context, weights) = attention.attend(hidden.clone(), prepared);
                let sum = linear::multiply(hidden, readout.state.val())
                    + linear::multiply(context, readout.context.val())
                    + readout.bias.val().unsqueeze();
                (tanh(sum), Some(weights))
            }
            _ => (hidden, None),
        };
        let outputs = drop(outputs, "output", 0);
        let fed = self.feeding.then(|| {
            let [rows, steps, width] = outputs.dims();
            outputs.clone().narrow(1, steps - 1, 1).reshape([rows, width])
        });
        Decoded { outputs, attention, state: DecoderState { layers: states, fed } }
    }
}
