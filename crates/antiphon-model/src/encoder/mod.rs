//! Encoders: a source `[B, S]` becomes memory `[B, S', M]` and a final state.
//!
//! An encoder is one *stage*, or a `stack` of them. A stage is a kind of its own, a file beside this one.

mod asked;
mod convolution;
mod convolution_2d;
mod hops;
mod norm;
mod projection;
mod query_reduction;
mod recurrent;
mod sentences;
mod stack;
mod time_reduction;

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{Cell, average_steps};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dropout::Dropout;
use crate::embedding::Input;

pub(crate) use asked::{Around, Beside};
pub use convolution::{ConvolutionEncoderConfig, Positions};
pub use convolution_2d::{Bend, Convolution2dConfig};
pub use hops::HopsConfig;
pub use norm::LayerNormConfig;
pub use projection::{Activation, ProjectionConfig};
pub use query_reduction::QueryReductionConfig;
pub use recurrent::RecurrentEncoderConfig;
pub use sentences::{SentenceReaderConfig, SentenceSumConfig, SentencesConfig};
pub use stack::StackConfig;
pub use time_reduction::{Reduction, TimeReductionConfig};

use convolution::ConvolutionEncoder;
use convolution_2d::Convolution2dStage;
use hops::Hops;
use norm::LayerNorm;
use projection::Projection;
use query_reduction::QueryReductionStage;
use recurrent::RecurrentEncoder;
use sentences::SentenceStage;
use stack::Stack;
use time_reduction::TimeReduction;

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
    /// Gated convolutions.
    Convolution(ConvolutionEncoderConfig),
    /// Several stages, each of which reads the memory of the one before.
    Stack(StackConfig),
}

/// A stage of a stack, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StageConfig {
    /// Elman's simple recurrent network with tanh.
    Rnn(RecurrentEncoderConfig),
    /// Long short-term memory.
    Lstm(RecurrentEncoderConfig),
    /// Gated recurrent unit.
    Gru(RecurrentEncoderConfig),
    /// Gated convolutions.
    Convolution(ConvolutionEncoderConfig),
    /// A convolution over steps and bands, as of filter banks.
    #[serde(rename = "convolution_2d")]
    Convolution2d(Convolution2dConfig),
    /// A linear layer at every step.
    Projection(ProjectionConfig),
    /// Layer normalisation: the numbers of every step, less their mean and divided by their deviation, then each times a gain and
    /// plus a bias that are learned (Ba et al. 2016).
    LayerNorm(LayerNormConfig),
    /// Several steps become one.
    TimeReduction(TimeReductionConfig),
    /// The words of each sentence become one step.
    Sentences(SentencesConfig),
    /// Query reduction: each sentence reads the question as those before it have left it.
    QueryReduction(QueryReductionConfig),
    /// Several looks at all sentences, each by the question as the look before has left it.
    Hops(HopsConfig),
}

impl Default for EncoderConfig {
    fn default() -> Self {
        EncoderConfig::Lstm(RecurrentEncoderConfig::default())
    }
}

/// An encoder as its config has it.
enum Form<'c> {
    Lone(StageConfig),
    Stack(&'c StackConfig),
}

impl EncoderConfig {
    fn form(&self) -> Form<'_> {
        match self {
            EncoderConfig::Rnn(config) => Form::Lone(StageConfig::Rnn(config.clone())),
            EncoderConfig::Lstm(config) => Form::Lone(StageConfig::Lstm(config.clone())),
            EncoderConfig::Gru(config) => Form::Lone(StageConfig::Gru(config.clone())),
            EncoderConfig::Convolution(config) => Form::Lone(StageConfig::Convolution(config.clone())),
            EncoderConfig::Stack(config) => Form::Stack(config),
        }
    }

    /// What the decoder will meet, from inputs of width `input`, `None` if they are one-hot; the settings have no problems.
    pub(crate) fn shape(&self, input: Option<usize>) -> EncoderShape {
        let StageShape { memory, state, reduction, .. } = match self.form() {
            Form::Lone(stage) => stage.shape(Read::source(input)),
            Form::Stack(stack) => stack.shape(Read::source(input)),
        };
        let StateShape { states, width, layers } = state.unwrap_or(StateShape { states: 1, width: memory, layers: 1 });
        EncoderShape { memory, states, state_width: width, layers, reduction }
    }

    /// What cannot work with such inputs beside other sources, with places below `[model.encoder]`.
    pub(crate) fn problems(&self, input: Option<usize>, beside: Beside<'_>) -> Vec<Problem> {
        match self.form() {
            Form::Lone(stage) => stage.problems(Read::source(input), beside),
            Form::Stack(stack) => stack.problems(Read::source(input), beside),
        }
    }

    /// How it reads sentences; `None` if it reads none.
    pub(crate) fn sentences(&self) -> Option<SentenceSteps> {
        let EncoderConfig::Stack(stack) = self else { return None };
        stack.stages.iter().find_map(|stage| match stage {
            StageConfig::Sentences(config) => Some(SentenceSteps { most: config.most }),
            _ => None,
        })
    }

    /// The other sources whose final states its stages read.
    pub(crate) fn asks(&self) -> Vec<&str> {
        match self {
            EncoderConfig::Stack(stack) => stack.stages.iter().filter_map(StageConfig::asks).collect(),
            EncoderConfig::Rnn(_) | EncoderConfig::Lstm(_) | EncoderConfig::Gru(_) => Vec::new(),
            EncoderConfig::Convolution(_) => Vec::new(),
        }
    }

    pub(crate) fn warnings(&self) -> Vec<Problem> {
        match self.form() {
            Form::Lone(stage) => stage.warnings(true),
            Form::Stack(stack) => stack.warnings(),
        }
    }

    /// The key of the setting that should say of how many planes a step of the source is, if a stage reads it by bands and does
    /// not say; below `[model.encoder]`.
    pub(crate) fn undivided(&self) -> Option<String> {
        let EncoderConfig::Stack(stack) = self else { return None };
        stack.undivided().map(|stage| format!("stages.{stage}.planes"))
    }

    /// An encoder of inputs of width `input`.
    pub(crate) fn init(&self, input: usize, key: Key, device: &Device) -> Encoder {
        match self.form() {
            Form::Lone(stage) => Encoder::Lone(stage.init(input, Read::source(Some(input)), key, device)),
            Form::Stack(stack) => Encoder::Stack(stack.init(input, key, device)),
        }
    }
}

impl StageConfig {
    fn shape(&self, read: Read) -> StageShape {
        let vectors = || read.width.expect("one-hot inputs are a problem of this stage");
        match self {
            StageConfig::Rnn(config) => config.shape(Cell::Rnn),
            StageConfig::Lstm(config) => config.shape(Cell::Lstm),
            StageConfig::Gru(config) => config.shape(Cell::Gru),
            StageConfig::Convolution(config) => config.shape(),
            StageConfig::Convolution2d(config) => config.shape(vectors(), read),
            StageConfig::Projection(config) => config.shape(),
            StageConfig::LayerNorm(config) => config.shape(vectors(), read),
            StageConfig::TimeReduction(config) => config.shape(vectors(), read),
            StageConfig::Sentences(config) => config.shape(vectors()),
            StageConfig::QueryReduction(_) | StageConfig::Hops(_) => StageShape::of_question(vectors(), read),
        }
    }

    /// The other source whose final state it reads.
    fn asks(&self) -> Option<&str> {
        match self {
            StageConfig::QueryReduction(config) => Some(&config.query),
            StageConfig::Hops(config) => Some(&config.query),
            StageConfig::Rnn(_) | StageConfig::Lstm(_) | StageConfig::Gru(_) | StageConfig::Convolution(_) => None,
            StageConfig::Convolution2d(_) | StageConfig::Projection(_) | StageConfig::LayerNorm(_) => None,
            StageConfig::TimeReduction(_) | StageConfig::Sentences(_) => None,
        }
    }

    /// The same, if it is that whatever is read.
    fn own_shape(&self) -> Option<StageShape> {
        match self {
            StageConfig::Rnn(_) | StageConfig::Lstm(_) | StageConfig::Gru(_) => Some(self.shape(Read::source(None))),
            StageConfig::Convolution(_) | StageConfig::Projection(_) => Some(self.shape(Read::source(None))),
            StageConfig::Convolution2d(_) | StageConfig::LayerNorm(_) | StageConfig::TimeReduction(_) => None,
            StageConfig::Sentences(_) | StageConfig::QueryReduction(_) | StageConfig::Hops(_) => None,
        }
    }

    /// Whether the numbers that it hands on lie as those that it reads: so many planes of as many bands.
    fn keeps_planes(&self) -> bool {
        match self {
            StageConfig::Rnn(_) | StageConfig::Lstm(_) | StageConfig::Gru(_) => false,
            StageConfig::Convolution(_) | StageConfig::Convolution2d(_) | StageConfig::Projection(_) => false,
            StageConfig::Sentences(_) | StageConfig::QueryReduction(_) => false,
            StageConfig::LayerNorm(_) | StageConfig::Hops(_) => true,
            StageConfig::TimeReduction(config) => config.method != Reduction::Concatenate,
        }
    }

    /// What cannot work with such inputs beside other sources.
    fn problems(&self, read: Read, beside: Beside<'_>) -> Vec<Problem> {
        match self {
            StageConfig::Rnn(_) | StageConfig::Lstm(_) | StageConfig::Gru(_) => Vec::new(),
            StageConfig::Convolution(_) | StageConfig::Projection(_) => Vec::new(),
            StageConfig::Convolution2d(config) => config.problems(read),
            StageConfig::LayerNorm(config) => config.problems(read.width),
            StageConfig::TimeReduction(config) => config.problems(read),
            StageConfig::Sentences(config) => config.problems(read, beside),
            StageConfig::QueryReduction(config) => beside.problems(&config.query, read.width, "query_reduction"),
            StageConfig::Hops(config) => config.problems(read, beside),
        }
    }

    /// What is valid but has no effect; `is_last`: nothing reads on behind it.
    fn warnings(&self, is_last: bool) -> Vec<Problem> {
        match self {
            StageConfig::Rnn(config) => config.warnings(Cell::Rnn, is_last),
            StageConfig::Lstm(config) => config.warnings(Cell::Lstm, is_last),
            StageConfig::Gru(config) => config.warnings(Cell::Gru, is_last),
            StageConfig::Convolution(config) => config.warnings(is_last),
            StageConfig::Convolution2d(config) => config.warnings(is_last),
            StageConfig::Projection(config) => config.warnings(is_last),
            StageConfig::LayerNorm(_) | StageConfig::TimeReduction(_) => Vec::new(),
            StageConfig::Sentences(config) => config.warnings(is_last),
            StageConfig::QueryReduction(config) => config.warnings(),
            StageConfig::Hops(config) => config.warnings(),
        }
    }

    /// A stage of inputs of width `input`, of which `read` tells the rest.
    fn init(&self, input: usize, read: Read, key: Key, device: &Device) -> Stage {
        match self {
            StageConfig::Rnn(config) => Stage::Recurrent(config.init(Cell::Rnn, input, key, device)),
            StageConfig::Lstm(config) => Stage::Recurrent(config.init(Cell::Lstm, input, key, device)),
            StageConfig::Gru(config) => Stage::Recurrent(config.init(Cell::Gru, input, key, device)),
            StageConfig::Convolution(config) => Stage::Convolution(config.init(input, key, device)),
            StageConfig::Convolution2d(config) => Stage::Convolution2d(config.init(read, key, device)),
            StageConfig::Projection(config) => Stage::Projection(config.init(input, key, device)),
            StageConfig::LayerNorm(config) => Stage::LayerNorm(config.init(input, device)),
            StageConfig::TimeReduction(config) => Stage::TimeReduction(config.init()),
            StageConfig::Sentences(config) => Stage::Sentences(config.init(input, key, device)),
            StageConfig::QueryReduction(config) => Stage::QueryReduction(config.init(input, key, device)),
            StageConfig::Hops(config) => Stage::Hops(config.init(input, key, device)),
        }
    }
}

/// The default of settings that are on unless somebody turns them off.
fn yes() -> bool {
    true
}

/// What is said of a `dropout` between layers, of which there is but one and nothing reads on behind it.
fn idle_dropout(dropout: f64, layers: usize, is_last: bool) -> Option<Problem> {
    let idle = layers == 1 && is_last;
    without_effect(dropout, idle, "has no effect with a single layer")
}

/// The same of a kind of stage that has no layers.
fn idle_at_the_end(dropout: f64, is_last: bool) -> Option<Problem> {
    without_effect(dropout, is_last, "has no effect: it drops from what a next stage reads, and this is the last one")
}

fn without_effect(dropout: f64, is_idle: bool, message: &str) -> Option<Problem> {
    (is_idle && dropout > 0.0).then(|| Problem { place: "dropout".into(), message: message.into() })
}

/// What is said of a kind of stage that cannot read one-hot tokens.
fn one_hot(input: Option<usize>, kind: &str) -> Option<Problem> {
    let message = || {
        format!(
            "`{kind}` reads vectors, not one-hot tokens; let the input be of kind `embedding`, or put a stage before it that makes \
             vectors, as `projection` does"
        )
    };
    input.is_none().then(|| Problem { place: "kind".into(), message: message() })
}

/// The widest memory that makes sense: a layer of the greatest width over the greatest factor of a time reduction.
const WIDEST: usize = 1 << 20;

/// What is said of a stage whose memory would be wider, at a setting, and what to do about it.
fn too_wide(memory: usize, place: &str, remedy: &str) -> Option<Problem> {
    let message = || format!("memory would be {memory} numbers wide, and more than {WIDEST} are too many; {remedy}");
    (memory > WIDEST).then(|| Problem { place: place.into(), message: message() })
}

/// What a stage reads, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Read {
    /// Numbers of a step; `None` if it is one-hot.
    width: Option<usize>,
    /// How many equal planes these are, as far as whoever made them knows.
    planes: usize,
    /// Whether its steps are those of the source, so that it is known which token each of them was.
    by_tokens: bool,
}

impl Read {
    /// What the first stage reads.
    fn source(width: Option<usize>) -> Self {
        Self { width, planes: 1, by_tokens: true }
    }

    /// What a stage reads behind one that hands this on.
    fn behind(self, below: StageShape) -> Self {
        let by_tokens = self.by_tokens && below.reduction == 1 && !below.by_sentences;
        Self { width: Some(below.memory), planes: below.planes, by_tokens }
    }
}

/// What a stage hands on, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StageShape {
    /// The width of its memory.
    memory: usize,
    /// Its final state, if it has one.
    state: Option<StateShape>,
    /// Steps of what it reads that become one of its memory; the last one of a row may stand for fewer.
    reduction: usize,
    /// How many planes of bands its memory is.
    planes: usize,
    /// Whether what a step of its memory stands for are sentences.
    by_sentences: bool,
}

impl StageShape {
    /// Of a stage that keeps what it reads as it lies, and ends with a question of that width.
    fn of_question(input: usize, read: Read) -> Self {
        let state = StateShape { states: 1, width: input, layers: 1 };
        Self { planes: read.planes, ..Self::of_steps(input, Some(state)) }
    }

    /// Of a stage that keeps the steps that it reads.
    fn of_steps(memory: usize, state: Option<StateShape>) -> Self {
        Self { memory, state, reduction: 1, planes: 1, by_sentences: false }
    }
}

/// A final state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StateShape {
    /// `N`: vectors a layer.
    states: usize,
    /// The width of one.
    width: usize,
    /// How many layers have one.
    layers: usize,
}

/// That steps of a memory stand for sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentenceSteps {
    /// How many sentences of a text are read at most: the last ones.
    pub most: Option<usize>,
}

/// What an encoder hands on, in numbers. Where no stage has a final state, the mean of the memory's steps stands for it: one layer,
/// one vector.
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
    /// Steps of the source, or sentences of it, that become one of the memory.
    pub(crate) reduction: usize,
}

/// An encoder.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // one value for each source of a model
pub(crate) enum Encoder {
    Lone(Stage),
    Stack(Stack),
}

/// One stage of an encoder.
#[derive(Module, Debug)]
pub(crate) enum Stage {
    Recurrent(RecurrentEncoder),
    Convolution(ConvolutionEncoder),
    Convolution2d(Convolution2dStage),
    Projection(Projection),
    LayerNorm(LayerNorm),
    TimeReduction(TimeReduction),
    Sentences(SentenceStage),
    QueryReduction(QueryReductionStage),
    Hops(Hops),
}

/// What was read.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    /// `[B, S', M]`.
    pub(crate) memory: Tensor<3>,
    /// `[B]`: real steps of each row's memory.
    pub(crate) lengths: Arc<[u32]>,
    /// A layer's final state, `[B, N·W]`: all of `h`, then all of `c`, both directions side by side. A stage without one has none.
    pub(crate) states: Vec<Tensor<2>>,
    /// `[B, S']` of each layer or look that reads a question, off the graph, if it was asked: how much each step counted.
    pub(crate) looks: Vec<Tensor<2>>,
}

impl Encoded {
    pub(crate) fn of(memory: Tensor<3>, lengths: Arc<[u32]>, states: Vec<Tensor<2>>) -> Self {
        Self { memory, lengths, states, looks: Vec::new() }
    }
}

impl Encoder {
    /// Whether a stage reads the final state of another source.
    pub(crate) fn asks(&self) -> bool {
        let asks = |stage: &Stage| matches!(stage, Stage::QueryReduction(_) | Stage::Hops(_));
        match self {
            Encoder::Lone(stage) => asks(stage),
            Encoder::Stack(stack) => stack.stages.iter().any(asks),
        }
    }

    /// Reads a batch whose rows have `lengths` real steps.
    pub(crate) fn encode(
        &self,
        input: Input,
        lengths: Arc<[u32]>,
        around: &Around<'_>,
        dropout_key: Option<Key>,
    ) -> Encoded {
        let mut encoded = match self {
            Encoder::Lone(stage) => stage.encode(input, lengths, around, dropout_key),
            Encoder::Stack(stack) => stack.encode(input, lengths, around, dropout_key),
        };
        if encoded.states.is_empty() {
            let steps = encoded.memory.dims()[1];
            let mean = average_steps(encoded.memory.clone(), encoded.lengths.clone(), steps);
            encoded.states = vec![mean.squeeze_dim(1)];
        }
        encoded
    }
}

impl Stage {
    fn encode(&self, input: Input, lengths: Arc<[u32]>, around: &Around<'_>, dropout_key: Option<Key>) -> Encoded {
        match self {
            Stage::Recurrent(stage) => stage.encode(input, lengths, dropout_key),
            Stage::Convolution(stage) => stage.encode(input, lengths, dropout_key),
            Stage::Convolution2d(stage) => stage.encode(input.into_vectors(), lengths),
            Stage::Projection(stage) => stage.encode(&input, lengths),
            Stage::LayerNorm(stage) => stage.encode(input.into_vectors(), lengths),
            Stage::TimeReduction(stage) => stage.encode(input.into_vectors(), lengths),
            Stage::Sentences(stage) => stage.encode(input.into_vectors(), around, dropout_key),
            Stage::QueryReduction(stage) => stage.encode(input.into_vectors(), lengths, around, dropout_key),
            Stage::Hops(stage) => stage.encode(input.into_vectors(), lengths, around),
        }
    }

    /// What training drops from what it hands to a next stage.
    fn dropout(&self) -> Dropout {
        match self {
            Stage::Recurrent(stage) => stage.dropout(),
            Stage::Convolution(stage) => stage.dropout(),
            Stage::Convolution2d(stage) => stage.dropout(),
            Stage::Projection(stage) => stage.dropout(),
            Stage::Sentences(stage) => stage.dropout(),
            Stage::LayerNorm(_) | Stage::TimeReduction(_) | Stage::QueryReduction(_) | Stage::Hops(_) => {
                Dropout { rate: 0.0, locked: false }
            }
        }
    }
}
