//! Decoders: from the last token, the state and the memory to what is projected onto the vocabulary.

mod step;

pub(crate) use step::{DecoderWeights, SearchState};

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{Cell, FedDecoder, Feeding, dropout, fed_decoder, linear, serves_fed_decoder, tanh};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attention::{Attention, AttentionConfig, Prepared};
use crate::bridge::DecoderShape;
use crate::embedding::Input;
use crate::initial::{Initial, zeros};
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

/// What a stretch of steps gave.
struct Decoded {
    /// `[B, T, R]`: to be projected.
    outputs: Tensor<3>,
    /// The state behind the last step.
    state: DecoderState,
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

    /// Runs over given inputs of `lengths` real steps from the first state: outputs `[B, T, R]`.
    ///
    /// What stands behind a row's end has no meaning. Without input feeding all steps go through each layer at once; with
    /// it, the one operation [`fed_decoder`] serves a single layer, where it exists, and else steps are taken one by one.
    pub(crate) fn decode(
        &self,
        input: &Input,
        state: DecoderState,
        prepared: Option<&Prepared>,
        lengths: Arc<[u32]>,
        dropout_key: Option<Key>,
    ) -> Tensor<3> {
        let projected = self.layers[0].project(input);
        if !self.feeding {
            return self.stretch(projected, state, prepared, Some(lengths), dropout_key).outputs;
        }
        let prepared = prepared.expect("input feeding has attention");
        if self.layers.len() == 1 && serves_fed_decoder(&projected) {
            return self.fused(projected, &state, prepared, lengths, dropout_key);
        }
        self.fed_steps(projected, state, prepared, dropout_key)
    }

    /// All steps of a single layer with input feeding as one operation, where it is served.
    fn fused(
        &self,
        projected: Tensor<3>,
        state: &DecoderState,
        prepared: &Prepared,
        lengths: Arc<[u32]>,
        dropout_key: Option<Key>,
    ) -> Tensor<3> {
        let (Some(readout), Some(attention)) = (&self.readout, &self.attention) else {
            unreachable!("input feeding has attention");
        };
        let (cell, [recurrent, feed], bias) = self.layers[0].fed_parts();
        let keys = |key: Key| (0..projected.dims()[1]).map(|t| output_key(key.numbered(t as u64))).collect();
        let dropout = dropout_key.filter(|_| self.rate > 0.0).map(|key| (self.rate, keys(key)));
        let run = Feeding { cell, lengths, over: prepared.over.clone(), dropout };
        let tensors = FedDecoder {
            x: projected,
            recurrent,
            bias,
            state: state.layers[0].clone(),
            feed,
            keys: prepared.keys.clone(),
            memory: prepared.memory.clone(),
            additive: attention.additive(),
            readout_state: readout.state.val(),
            readout_context: readout.context.val(),
            readout_bias: readout.bias.val(),
        };
        fed_decoder(tensors, &run).0
    }

    /// All steps with input feeding one by one.
    fn fed_steps(
        &self,
        projected: Tensor<3>,
        mut state: DecoderState,
        prepared: &Prepared,
        dropout_key: Option<Key>,
    ) -> Tensor<3> {
        let mut outputs = Vec::new();
        for (t, x) in projected.split(1, 1).into_iter().enumerate() {
            let fed = state.fed.clone().expect("input feeding keeps the last output");
            let x = x + self.layers[0].project_feed(fed);
            let key = dropout_key.map(|key| key.numbered(t as u64));
            let decoded = self.stretch(x, state, Some(prepared), None, key);
            state = decoded.state;
            outputs.push(decoded.outputs);
        }
        Tensor::cat(outputs, 1)
    }

    /// All layers, attention and readout over projected inputs `[B, T, G·H]`; nothing is fed back inside.
    fn stretch(
        &self,
        projected: Tensor<3>,
        state: DecoderState,
        prepared: Option<&Prepared>,
        lengths: Option<Arc<[u32]>>,
        dropout_key: Option<Key>,
    ) -> Decoded {
        let drop = |x: Tensor<3>, key: &dyn Fn(Key) -> Key| match dropout_key {
            Some(drawn) => dropout(x, self.rate, key(drawn)),
            None => x,
        };
        let mut states = Vec::with_capacity(self.layers.len());
        let mut run_layer = |layer: &RecurrentLayer, projected: Tensor<3>, start: Tensor<2>| {
            let run = layer.run(projected, start, lengths.clone());
            states.push(run.state());
            run.sequence()
        };
        let mut layers = self.layers.iter().zip(state.layers).enumerate();
        let (_, (first, start)) = layers.next().expect("a decoder has a layer");
        let mut hidden = run_layer(first, projected, start);
        for (l, (layer, start)) in layers {
            let below = drop(hidden, &|key| key.named("layer").numbered(l as u64));
            hidden = run_layer(layer, layer.project(&Input::Vectors(below)), start);
        }
        let outputs = match (&self.attention, &self.readout, prepared) {
            (Some(attention), Some(readout), Some(prepared)) => {
                let context = attention.attend(hidden.clone(), prepared);
                let sum = linear(hidden.clone(), readout.state.val())
                    + linear(context, readout.context.val())
                    + readout.bias.val().unsqueeze();
                tanh(sum)
            }
            _ => hidden,
        };
        let outputs = drop(outputs, &output_key);
        let fed = self.feeding.then(|| {
            let [rows, steps, width] = outputs.dims();
            outputs.clone().narrow(1, steps - 1, 1).reshape([rows, width])
        });
        Decoded { outputs, state: DecoderState { layers: states, fed } }
    }
}

/// The key of the mask over outputs, from that of a stretch of steps.
fn output_key(key: Key) -> Key {
    key.named("output").numbered(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::Encoded;
    use burn::module::ModuleVisitor;
    use burn::tensor::{Gradients, TensorData};

    fn random<const D: usize>(name: &str, dims: [usize; D], device: &Device) -> Tensor<D> {
        let key = Key::from_seed(6).named(name);
        let n: usize = dims.iter().product();
        let numbers: Vec<f32> = (0..n as u64).map(|i| key.normal(i) as f32 * 0.5).collect();
        Tensor::from_data(TensorData::new(numbers, dims), device)
    }

    /// The gradients of a module's parameters, in its order.
    struct Collect<'a>(&'a Gradients, Vec<Vec<f32>>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = param.val().grad(self.0).expect("every parameter is reached");
            self.1.push(gradient.into_data().try_to_vec().unwrap());
        }
    }

    #[test]
    fn one_operation_with_input_feeding_equals_its_steps() {
        let device = Device::flex().autodiff();
        let (rows, steps, source, hidden, memory, output, input) = (19, 5, 4, 6, 7, 5, 3);
        let lengths: Arc<[u32]> = (0..rows).map(|b| (b * 3 % (steps + 1)) as u32).collect();
        let real: Vec<f32> = lengths
            .iter()
            .flat_map(|&n| (0..steps * output).map(move |i| f32::from(i / output < n as usize)))
            .collect();
        let real = Tensor::<3>::from_data(TensorData::new(real, [rows, steps, output]), &device.clone().inner());
        for cell in ["rnn", "lstm", "gru"] {
            for attention in [r#"{"kind": "general"}"#, r#"{"kind": "additive", "width": 9}"#] {
                for rate in [0.0, 0.4] {
                    let config: DecoderConfig = serde_json::from_str(&format!(
                        r#"{{"kind": "{cell}", "hidden": {hidden}, "dropout": {rate}, "input_feeding": true,
                            "attention": {attention}}}"#
                    ))
                    .unwrap();
                    let decoder = config.init(input, memory, output, Key::from_seed(2), &device);
                    let run = |fused: bool| {
                        let leaf = |name: &str, dims: [usize; 3]| random(name, dims, &device).require_grad();
                        let x = leaf("x", [rows, steps, input]);
                        let read = leaf("memory", [rows, source, memory]);
                        let width = config.shape().states * hidden;
                        let state = random("state", [rows, width], &device).require_grad();
                        let of_memory = (0..rows).map(|b| (b % (source + 1)) as u32).collect();
                        let encoded = Encoded { memory: read.clone(), lengths: of_memory, states: Vec::new() };
                        let prepared = decoder.prepare(&encoded).unwrap();
                        let start = decoder.start(vec![state.clone()]);
                        let projected = decoder.layers[0].project(&Input::Vectors(x.clone()));
                        let key = Some(Key::from_seed(3));
                        let outputs = match fused {
                            true => decoder.fused(projected, &start, &prepared, lengths.clone(), key),
                            false => decoder.fed_steps(projected, start, &prepared, key) * real.clone(),
                        };
                        let given = random("gradient", [rows, steps, output], &device.clone().inner());
                        let gradients = (outputs.clone() * given * real.clone()).sum().backward();
                        let mut collect = Collect(&gradients, Vec::new());
                        decoder.visit(&mut collect);
                        let mut found = collect.1;
                        found.push(outputs.into_data().try_to_vec().unwrap());
                        found
                            .extend([&x, &read].map(|x| x.grad(&gradients).unwrap().into_data().try_to_vec().unwrap()));
                        found.push(state.grad(&gradients).unwrap().into_data().try_to_vec().unwrap());
                        found
                    };
                    for (part, (fused, oracle)) in run(true).into_iter().zip(run(false)).enumerate() {
                        assert_eq!(fused.len(), oracle.len());
                        let scale = oracle.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
                        for (x, y) in fused.iter().zip(&oracle) {
                            assert!((x - y).abs() < 2e-5 * scale, "{cell} {attention} {rate} {part}: {x} is not {y}");
                        }
                    }
                }
            }
        }
    }
}
