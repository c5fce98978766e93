//! Decoders: from the last token, the state and the memory to what is projected onto the vocabulary.

mod step;

pub(crate) use step::{DecoderWeights, SearchState};

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{Problem, Result};
use antiphon_kernels::{Carry, Cell, FedDecoder, Feeding, choose_rows, fed_decoder, linear, serves_fed_decoder, tanh};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attention::{
    Asked, Attention, AttentionConfig, AttentionState, Fused, Look, MemoryShape, Prepared, last_real,
    one_behind_another,
};
use crate::bridge::DecoderShape;
use crate::dropout::{Dropout, idle_lock};
use crate::embedding::Input;
use crate::encoder::Encoded;
use crate::initial::{Initial, zeros};
use crate::penalty::Penalties;
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
    /// The width of each layer, from the first on, where they are unlike: as many as there are `layers`. `hidden` then counts for
    /// nothing.
    #[schemars(inner(range(min = 1, max = 8192)))]
    pub widths: Vec<usize>,
    /// The width of what is projected onto the vocabulary: without attention by one more weight `P`, as `r = P h`; with attention it
    /// is that of `r`. Absent: as wide as the last layer, or, with attention and tied tables, as the embedding.
    #[schemars(range(min = 1, max = 8192))]
    pub projection: Option<usize>,
    /// The share of numbers that training drops from what a layer hands to the next, and from what is projected.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
    /// Whether a mask of dropout holds for all steps of a row (variational dropout, Gal and Ghahramani 2016).
    pub locked_dropout: bool,
    /// The share of numbers that training drops from what is projected onto the vocabulary. Absent: as `dropout`.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub output_dropout: Option<f64>,
    /// The share of numbers of every recurrent weight that training drops, the same for all steps of a batch (Merity et al. 2018).
    #[schemars(range(min = 0.0, max = 0.95))]
    pub weight_drop: f64,
    /// The weight of the mean square of what is projected onto the vocabulary, dropout included, in the loss per token (AR, Merity
    /// et al. 2017).
    #[schemars(range(min = 0.0), extend("format" = "float"))]
    pub activation_penalty: f64,
    /// The weight of the mean square of its change from one token to the next, without dropout, in the loss per token (TAR,
    /// Merity et al. 2017). A row's first token has none before it.
    #[schemars(range(min = 0.0), extend("format" = "float"))]
    pub temporal_penalty: f64,
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
            widths: Vec::new(),
            projection: None,
            dropout: 0.0,
            locked_dropout: false,
            output_dropout: None,
            weight_drop: 0.0,
            activation_penalty: 0.0,
            temporal_penalty: 0.0,
            input_feeding: false,
            attention: AttentionConfig::default(),
            initial: InitialConfig::default(),
        }
    }
}

impl RecurrentDecoderConfig {
    /// `H` of each layer.
    fn widths(&self) -> Vec<usize> {
        if self.widths.is_empty() { vec![self.hidden; self.layers] } else { self.widths.clone() }
    }

    /// `H` of the last layer.
    fn last(&self) -> usize {
        self.widths.last().copied().unwrap_or(self.hidden)
    }

    fn output_dropout(&self) -> f64 {
        self.output_dropout.unwrap_or(self.dropout)
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
        DecoderShape { states: cell.states(), widths: config.widths() }
    }

    /// How wide its last layer is.
    pub(crate) fn width(&self) -> usize {
        self.parts().1.last()
    }

    /// The width of an output that is `tied` to embeddings of that width, or free.
    pub(crate) fn output(&self, tied: Option<usize>) -> usize {
        let (_, config) = self.parts();
        match (config.projection, tied) {
            (Some(width), _) => width,
            (None, Some(width)) if !config.attention.is_none() => width,
            (None, _) => config.last(),
        }
    }

    /// Whether the width of its outputs is a setting.
    pub(crate) fn projects(&self) -> bool {
        self.parts().1.projection.is_some()
    }

    /// Whether each layer's width is a setting.
    pub(crate) fn has_widths(&self) -> bool {
        !self.parts().1.widths.is_empty()
    }

    /// Whether it looks at the memory.
    pub(crate) fn attends(&self) -> bool {
        !self.parts().1.attention.is_none()
    }

    pub(crate) fn warnings(&self) -> Vec<Problem> {
        let (cell, config) = self.parts();
        let mut warnings = config.initial.warnings(cell);
        if config.dropout > 0.0 && config.layers == 1 && config.output_dropout.is_some() {
            let message = "has no effect: there is a single layer, and `output_dropout` is set";
            warnings.push(Problem { place: "dropout".into(), message: message.into() });
        }
        warnings.extend(idle_lock(config.locked_dropout, &[config.dropout, config.output_dropout()]));
        warnings.extend(config.attention.warnings().into_iter().map(|problem| problem.below("attention")));
        warnings
    }

    /// What cannot work with the memories that are looked at.
    pub(crate) fn problems(&self, memories: &[MemoryShape]) -> Vec<Problem> {
        let (_, config) = self.parts();
        let setting = if self.has_widths() { "the last of `model.decoder.widths`" } else { "`model.decoder.hidden`" };
        let of = |memory: &MemoryShape| config.attention.problems(config.last(), memory, setting);
        let mut problems = Vec::new();
        for problem in memories.iter().flat_map(of).map(|problem| problem.below("attention")) {
            // What is not a memory's own is said once.
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        problems.extend(self.misnumbered());
        if config.input_feeding && config.attention.is_none() {
            let message = "needs attention; choose one in `model.decoder.attention.kind`, or set it to false";
            problems.push(Problem { place: "input_feeding".into(), message: message.into() });
        }
        problems
    }

    /// Widths that are not as many as the layers.
    pub(crate) fn misnumbered(&self) -> Option<Problem> {
        let (_, config) = self.parts();
        let (widths, layers) = (config.widths.len(), config.layers);
        let message =
            format!("gives {widths} widths, and `layers` is {layers}; set `model.decoder.layers` to {widths}");
        (widths > 0 && widths != layers).then(|| Problem { place: "widths".into(), message })
    }

    /// A decoder of inputs of width `input` that looks at memories of these widths, if at any, with outputs of width `output`.
    pub(crate) fn init(&self, input: usize, memories: &[usize], output: usize, key: Key, device: &Device) -> Decoder {
        let (cell, config) = self.parts();
        let (widths, last) = (config.widths(), config.last());
        let inputs = std::iter::once(input).chain(widths.iter().copied());
        let layers = inputs.zip(&widths).enumerate().map(|(l, (input, &hidden))| {
            let feed = (l == 0 && config.input_feeding).then_some(output);
            let (sizes, key) = (LayerSizes { input, hidden, feed }, key.numbered(l as u64));
            RecurrentLayer::init(cell, false, sizes, config.weight_drop, &config.initial, key, device)
        });
        let attention = |width: usize, key: Key| config.attention.init(last, width, key, device);
        let of_stream = |(i, &width): (usize, &usize)| attention(width, key.named("stream").numbered(i as u64));
        let (attention, streams) = match memories {
            [] => (None, Vec::new()),
            [first, streams @ ..] => {
                (attention(*first, key.named("attention")), streams.iter().enumerate().filter_map(of_stream).collect())
            }
        };
        let weight = |rows, key: Key| Initial::GlorotUniform.weight([rows, output], last, key, device);
        let readout = attention.is_some().then(|| {
            let key = key.named("readout");
            Readout {
                state: weight(last, key.named("state")),
                context: weight(memories.iter().sum(), key.named("context")),
                bias: zeros(output, device),
            }
        });
        let projects = readout.is_none() && config.projection.is_some();
        let dropout = |rate: f64| Dropout { rate, locked: config.locked_dropout };
        Decoder {
            layers: layers.collect(),
            attention,
            streams,
            readout,
            projection: projects.then(|| weight(last, key.named("projection"))),
            between: dropout(config.dropout),
            output: dropout(config.output_dropout()),
            penalties: Penalties {
                activation: config.activation_penalty,
                temporal: config.temporal_penalty,
                coverage: config.attention.coverage_penalty(),
            },
            feeding: config.input_feeding,
        }
    }
}

/// A stack of recurrent layers with attention and readout.
#[derive(Module, Debug)]
pub struct Decoder {
    layers: Vec<RecurrentLayer>,
    attention: Option<Attention>,
    /// Those of the streams, where each memory has one of its own; else the one looks at them too.
    streams: Vec<Attention>,
    readout: Option<Readout>,
    /// `P` `[H, R]`: what makes outputs of another width where nothing is read out.
    projection: Option<Param<Tensor<2>>>,
    /// Of what a layer hands to the next.
    #[module(skip)]
    between: Dropout,
    /// Of the outputs.
    #[module(skip)]
    output: Dropout,
    #[module(skip)]
    penalties: Penalties,
    #[module(skip)]
    feeding: bool,
}

/// `tanh(U h + C context + b)`.
#[derive(Module, Debug)]
struct Readout {
    /// `[H, R]`.
    state: Param<Tensor<2>>,
    /// `[M, R]`, `M` that of all contexts side by side.
    context: Param<Tensor<2>>,
    /// `[R]`.
    bias: Param<Tensor<1>>,
}

/// Where a decoder stands: everything that the next step needs, a value.
#[derive(Debug, Clone)]
pub(crate) struct DecoderState {
    /// `[B, N·H]` a layer.
    layers: Vec<Tensor<2>>,
    /// `[B, R]`: the last output, if it is fed back; absent before the first step, which is zero.
    fed: Option<Tensor<2>>,
    /// What attention remembers.
    attention: AttentionState,
}

impl DecoderState {
    /// As it is carried from batch to batch, and as a checkpoint names it: `layers.N` `[B, N·H]`, `fed` `[B, R]` and `attention.N`.
    pub(crate) fn carry(self) -> Carry {
        let name = |part: &str, arrays: Vec<Tensor<2>>| {
            let named = arrays.into_iter().enumerate().map(|(i, array)| (format!("{part}.{i}"), array));
            named.collect::<Vec<_>>()
        };
        let fed = self.fed.map(|fed| ("fed".to_owned(), fed));
        Carry::new(name("layers", self.layers).into_iter().chain(fed).chain(name("attention", self.attention)))
    }

    /// The rows of some states, all of one decoder and at least one, in their order.
    pub(crate) fn stacked(mut states: Vec<Self>) -> Self {
        if states.len() == 1 {
            return states.remove(0);
        }
        let join = |arrays: Vec<Tensor<2>>| Tensor::cat(arrays, 0);
        let part = |of: fn(&Self) -> &[Tensor<2>]| {
            let arrays = (0..of(&states[0]).len()).map(|i| states.iter().map(|state| of(state)[i].clone()).collect());
            arrays.map(join).collect()
        };
        let fed: Vec<Tensor<2>> = states.iter().filter_map(|state| state.fed.clone()).collect();
        Self {
            layers: part(|state| &state.layers),
            fed: (fed.len() == states.len()).then(|| join(fed)),
            attention: part(|state| &state.attention),
        }
    }

    /// `B`.
    fn rows(&self) -> usize {
        self.layers[0].dims()[0]
    }

    /// Every array as `change` makes it.
    fn map(&self, change: impl Fn(&Tensor<2>) -> Tensor<2>) -> Self {
        Self {
            layers: self.layers.iter().map(&change).collect(),
            fed: self.fed.as_ref().map(&change),
            attention: self.attention.iter().map(&change).collect(),
        }
    }
}

/// What a stretch of steps gave.
pub(crate) struct Decoded {
    /// `[B, T, R]`: to be projected. What stands behind a row's end has no meaning.
    pub(crate) outputs: Tensor<3>,
    /// The same without dropout, where the decoder's penalties look at it.
    pub(crate) undropped: Option<Tensor<3>>,
    /// `[B, T]`: how much of what a step looked at had been looked at before, where a penalty counts it.
    pub(crate) again: Option<Tensor<2>>,
    /// The state behind each row's last real step.
    pub(crate) state: DecoderState,
}

impl Decoder {
    /// What is added to the loss of outputs.
    pub(crate) fn penalties(&self) -> Penalties {
        self.penalties
    }

    /// Those that look at a memory, in the order of the memories.
    fn attentions(&self) -> impl Iterator<Item = &Attention> {
        self.attention.iter().chain(&self.streams)
    }

    /// Makes what was read of the sources ready to be looked at: no memory if the decoder does not attend, one of all sources, or
    /// one for each of them.
    pub(crate) fn prepare(&self, sources: &[Encoded]) -> Vec<Prepared> {
        match &self.attention {
            None => Vec::new(),
            Some(attention) if self.streams.is_empty() => {
                let (memory, lengths) = one_behind_another(sources);
                vec![attention.prepare(memory, &lengths)]
            }
            Some(_) => {
                let own = self.attentions().zip(sources);
                own.map(|(attention, source)| attention.prepare(source.memory.clone(), &source.lengths)).collect()
            }
        }
    }

    /// The state before the first step, from the bridge's.
    pub(crate) fn start(&self, layers: Vec<Tensor<2>>, memories: &[Prepared]) -> DecoderState {
        let attention = self.attentions().zip(memories).flat_map(|(attention, memory)| attention.start(memory));
        DecoderState { layers, fed: None, attention: attention.collect() }
    }

    /// The looks of each attention at its memory, with its queries `[B, T, A]`.
    fn look(
        &self,
        queries: impl Iterator<Item = Tensor<3>>,
        memories: &[Prepared],
        state: AttentionState,
        asked: Asked<'_>,
    ) -> Look {
        let mut state = state.into_iter();
        let look = |((attention, memory), query): ((&Attention, &Prepared), Tensor<3>)| {
            let own = state.by_ref().take(attention.remembers()).collect();
            attention.look(query, memory, own, asked)
        };
        Look::beside(self.attentions().zip(memories).zip(queries).map(look).collect())
    }

    /// The same state, but for rows that go on: these stand where they stopped. What attention remembers is of their sources, so
    /// that they go on beside these alone.
    ///
    /// # Errors
    /// If a row goes on and nothing of its kind was carried, or the state was of a memory of another length.
    pub(crate) fn resume(&self, state: DecoderState, carry: &Carry, continues: &[bool]) -> Result<DecoderState> {
        if !continues.contains(&true) {
            return Ok(state);
        }
        let fed = self.readout.as_ref().filter(|_| self.feeding).map(|readout| {
            let width = readout.bias.dims()[0];
            carry.resume("fed", Tensor::zeros([state.rows(), width], &readout.bias.device().inner()), continues)
        });
        let resume = |part: &str, arrays: Vec<Tensor<2>>| {
            let arrays = arrays.into_iter().enumerate();
            arrays.map(|(i, fresh)| carry.resume(&format!("{part}.{i}"), fresh, continues)).collect::<Result<Vec<_>>>()
        };
        let (layers, attention) = (resume("layers", state.layers)?, resume("attention", state.attention)?);
        Ok(DecoderState { layers, fed: fed.transpose()?, attention })
    }

    /// The state before the first step where nothing was read.
    pub(crate) fn start_from_zero(&self, rows: usize) -> DecoderState {
        self.start(self.layers.iter().map(|layer| layer.zero_state(rows)).collect(), &[])
    }

    /// Runs over given inputs of `lengths` real steps from `state`. The state behind them means something only where it is to be
    /// `kept`; of other batches nobody pays for telling apart the rows that end early.
    ///
    /// Where no step depends on the output of the one before, all steps go through each layer at once, and look in one operation.
    /// Else the one operation [`fed_decoder`] serves a single layer over a single memory, where it exists and
    /// knows the attention, and steps are taken one by one otherwise.
    pub(crate) fn decode(
        &self,
        input: &Input,
        state: DecoderState,
        memories: &[Prepared],
        lengths: Arc<[u32]>,
        kept: bool,
        dropout_key: Option<Key>,
    ) -> Decoded {
        let projected = self.layers[0].project(input);
        let weights = self.recurrent_weights(dropout_key);
        if !self.feeding {
            return self.stretch(projected, &weights, state, memories, Some(lengths), kept, dropout_key);
        }
        // The one operation gives outputs with dropout alone.
        let hides = self.penalties.needs_undropped() && self.output.rate > 0.0 && dropout_key.is_some();
        let fused = self.attention.as_ref().and_then(Attention::fused).filter(|_| !hides);
        match (fused, &weights[..], memories) {
            (Some(fused), [weight], [memory]) if serves_fed_decoder(&projected, &memory.memory) => {
                self.fused(projected, weight.clone(), &state, memory, fused, lengths, kept, dropout_key)
            }
            _ => self.single_steps(projected, &weights, state, memories, kept.then_some(&lengths), dropout_key),
        }
    }

    /// Each layer's recurrent weight of a batch.
    fn recurrent_weights(&self, dropout_key: Option<Key>) -> Vec<Tensor<2>> {
        let key = |l: usize| dropout_key.map(|key| key.named("weight").numbered(l as u64));
        self.layers.iter().enumerate().map(|(l, layer)| layer.recurrent_weight(key(l))).collect()
    }

    /// All steps of a single layer with input feeding as one operation, where it is served.
    #[allow(clippy::too_many_arguments)]
    fn fused(
        &self,
        mut projected: Tensor<3>,
        recurrent: Tensor<2>,
        state: &DecoderState,
        prepared: &Prepared,
        fused: Fused,
        lengths: Arc<[u32]>,
        kept: bool,
        dropout_key: Option<Key>,
    ) -> Decoded {
        let readout = self.readout.as_ref().expect("input feeding has a readout");
        if let Some(fed) = state.fed.clone() {
            // The operation starts from nothing that is fed back: what was carried is a share of the first step's input.
            let steps = projected.dims()[1];
            let first = projected.clone().narrow(1, 0, 1) + self.layers[0].project_feed(fed);
            let rest = (steps > 1).then(|| projected.narrow(1, 1, steps - 1));
            projected = Tensor::cat(std::iter::once(first).chain(rest).collect(), 1);
        }
        let (cell, bias, feed) = self.layers[0].fed_parts();
        let Dropout { rate, .. } = self.output;
        let keys = |key: Key| (0..projected.dims()[1]).map(|t| output_key(self.output.of_step(key, t))).collect();
        let dropout = dropout_key.filter(|_| rate > 0.0).map(|key| (rate, keys(key)));
        let run = Feeding { cell, lengths: lengths.clone(), over: prepared.over.clone(), dropout };
        let tensors = FedDecoder {
            x: projected,
            recurrent,
            bias,
            state: state.layers[0].clone(),
            feed,
            keys: prepared.keys.clone(),
            memory: prepared.memory.clone(),
            additive: fused.additive,
            readout_state: readout.state.val(),
            readout_context: readout.context.val(),
            readout_bias: readout.bias.val(),
        };
        let (outputs, layer) = fed_decoder(tensors, &run);
        let last = || last_real(outputs.clone().inner(), state.fed.clone().map(Tensor::inner), &lengths);
        let fed = kept.then(last);
        let undropped = self.penalties.needs_undropped().then(|| outputs.clone());
        let state = DecoderState { layers: vec![layer], fed, attention: Vec::new() };
        Decoded { outputs, undropped, again: None, state }
    }

    /// All steps one by one: each needs the output of the one before. With `lengths` the state behind them is that of each row's
    /// last real step.
    fn single_steps(
        &self,
        projected: Tensor<3>,
        weights: &[Tensor<2>],
        mut state: DecoderState,
        memories: &[Prepared],
        lengths: Option<&Arc<[u32]>>,
        dropout_key: Option<Key>,
    ) -> Decoded {
        let (mut outputs, mut undropped, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for (t, x) in projected.split(1, 1).into_iter().enumerate() {
            let x = match state.fed.clone() {
                Some(fed) => x + self.layers[0].project_feed(fed),
                None => x,
            };
            let key = dropout_key.map(|key| self.output.of_step(key, t));
            let live = lengths.map(|lengths| lengths.iter().map(|&n| t < n as usize).collect::<Vec<bool>>());
            let ended = live.filter(|live| live.contains(&false)).map(|live| (state.clone(), live));
            let decoded = self.stretch(x, weights, state, memories, None, false, key);
            state = match ended {
                Some((before, live)) => before.where_live(decoded.state, &live),
                None => decoded.state,
            };
            outputs.push(decoded.outputs);
            undropped.extend(decoded.undropped);
            again.extend(decoded.again);
        }
        let undropped = (!undropped.is_empty()).then(|| Tensor::cat(undropped, 1));
        let again = (!again.is_empty()).then(|| Tensor::cat(again, 1));
        Decoded { outputs: Tensor::cat(outputs, 1), undropped, again, state }
    }

    /// All layers, attention and readout over projected inputs `[B, T, G·H]`; nothing is fed back inside. `weights`: each layer's
    /// recurrent weight. Where it is `kept`, what attention remembers is that of each row's last real step.
    #[allow(clippy::too_many_arguments)]
    fn stretch(
        &self,
        projected: Tensor<3>,
        weights: &[Tensor<2>],
        state: DecoderState,
        memories: &[Prepared],
        lengths: Option<Arc<[u32]>>,
        kept: bool,
        dropout_key: Option<Key>,
    ) -> Decoded {
        let DecoderState { layers: before, attention: mut looked, .. } = state;
        let of_looks = lengths.clone().filter(|_| kept);
        let mut states = Vec::with_capacity(self.layers.len());
        let mut run_layer = |l: usize, projected: Tensor<3>, start: Tensor<2>| {
            let run = self.layers[l].run(projected, weights[l].clone(), start, lengths.clone());
            states.push(run.state());
            run.sequence()
        };
        let mut starts = before.into_iter().enumerate();
        let (_, start) = starts.next().expect("a decoder has a layer");
        let mut hidden = run_layer(0, projected, start);
        for (l, start) in starts {
            let key = dropout_key.map(|key| key.named("layer").numbered(l as u64));
            let below = Input::Vectors(self.between.apply(hidden, key));
            hidden = run_layer(l, self.layers[l].project(&below), start);
        }
        let mut again = None;
        let outputs = match &self.readout {
            Some(readout) => {
                let asked =
                    Asked { again: self.penalties.needs_again(), lengths: of_looks.as_ref(), ..Asked::default() };
                let queries = self.attentions().map(|attention| attention.query(hidden.clone()));
                let look = self.look(queries, memories, looked, asked);
                (looked, again) = (look.state, look.again);
                let sum = linear(hidden.clone(), readout.state.val())
                    + linear(look.context, readout.context.val())
                    + readout.bias.val().unsqueeze();
                tanh(sum)
            }
            None => match &self.projection {
                Some(projection) => linear(hidden, projection.val()),
                None => hidden,
            },
        };
        let undropped = self.penalties.needs_undropped().then(|| outputs.clone());
        let outputs = self.output.apply(outputs, dropout_key.map(output_key));
        // Only single steps are fed back, and their rows are told apart by who takes them.
        let fed = self.feeding.then(|| {
            let [rows, steps, width] = outputs.dims();
            outputs.clone().narrow(1, steps - 1, 1).reshape([rows, width])
        });
        Decoded { outputs, undropped, again, state: DecoderState { layers: states, fed, attention: looked } }
    }
}

impl DecoderState {
    /// This state in rows that are not live, `next` in those that are.
    fn where_live(self, next: Self, live: &[bool]) -> Self {
        let choose = |(before, next): (Tensor<2>, Tensor<2>)| choose_rows(before, next, live);
        Self {
            layers: self.layers.into_iter().zip(next.layers).map(choose).collect(),
            fed: next.fed.map(|next| choose((self.fed.unwrap_or_else(|| next.zeros_like()), next))),
            attention: self.attention.into_iter().zip(next.attention).map(choose).collect(),
        }
    }
}

/// The key of the mask over outputs, from that of a stretch of steps.
fn output_key(key: Key) -> Key {
    key.named("output").numbered(0)
}

#[cfg(test)]
mod tests {
    use super::*;
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
                for (rate, locked) in [(0.0, false), (0.4, false), (0.4, true)] {
                    let config: DecoderConfig = serde_json::from_str(&format!(
                        r#"{{"kind": "{cell}", "hidden": {hidden}, "dropout": {rate}, "locked_dropout": {locked},
                            "weight_drop": {rate}, "input_feeding": true, "attention": {attention}}}"#
                    ))
                    .unwrap();
                    let decoder = config.init(input, &[memory], output, Key::from_seed(2), &device);
                    let run = |fused: bool| {
                        let leaf = |name: &str, dims: [usize; 3]| random(name, dims, &device).require_grad();
                        let x = leaf("x", [rows, steps, input]);
                        let read = leaf("memory", [rows, source, memory]);
                        let width = config.shape().states * hidden;
                        let state = random("state", [rows, width], &device).require_grad();
                        let of_memory = (0..rows).map(|b| (b % (source + 1)) as u32).collect();
                        let encoded = Encoded::of(read.clone(), of_memory, Vec::new());
                        let memories = decoder.prepare(&[encoded]);
                        let start = decoder.start(vec![state.clone()], &memories);
                        let projected = decoder.layers[0].project(&Input::Vectors(x.clone()));
                        let key = Some(Key::from_seed(3));
                        let of_attention = decoder.attention.as_ref().unwrap().fused().unwrap();
                        let weights = decoder.recurrent_weights(key);
                        let Decoded { outputs, state: last, .. } = match fused {
                            true => {
                                let (weight, lengths) = (weights[0].clone(), lengths.clone());
                                let memory = &memories[0];
                                decoder.fused(projected, weight, &start, memory, of_attention, lengths, true, key)
                            }
                            false => decoder.single_steps(projected, &weights, start, &memories, Some(&lengths), key),
                        };
                        let outputs = if fused { outputs } else { outputs * real.clone() };
                        let given = random("gradient", [rows, steps, output], &device.clone().inner());
                        let gradients = (outputs.clone() * given * real.clone()).sum().backward();
                        let mut collect = Collect(&gradients, Vec::new());
                        decoder.visit(&mut collect);
                        let mut found = collect.1;
                        found.push(outputs.into_data().try_to_vec().unwrap());
                        let last = [last.layers[0].clone(), last.fed.unwrap()];
                        found.extend(last.map(|array| array.into_data().try_to_vec().unwrap()));
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
