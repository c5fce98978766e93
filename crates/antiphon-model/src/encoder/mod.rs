//! Encoders: a source `[B, S]` becomes memory `[B, S', M]` and a final state.
//!
//! An encoder is one *stage*, or a `stack` of them. A stage is a kind of its own, a file beside this one.

mod recurrent;
mod stack;

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::Cell;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dropout::Dropout;
use crate::embedding::Input;

pub use recurrent::RecurrentEncoderConfig;
pub use stack::StackConfig;

use recurrent::RecurrentEncoder;
use stack::Stack;

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
    /// Several encoders, each of which reads the memory of the one before.
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
            EncoderConfig::Stack(config) => Form::Stack(config),
        }
    }

    /// What the decoder will meet.
    pub(crate) fn shape(&self) -> EncoderShape {
        match self.form() {
            Form::Lone(stage) => stage.shape(),
            Form::Stack(stack) => stack.shape(),
        }
    }

    /// What cannot work, with places below `[model.encoder]`.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        match self.form() {
            Form::Lone(stage) => stage.problems(),
            Form::Stack(stack) => stack.problems(),
        }
    }

    pub(crate) fn warnings(&self) -> Vec<Problem> {
        match self.form() {
            Form::Lone(stage) => stage.warnings(true),
            Form::Stack(stack) => stack.warnings(),
        }
    }

    /// An encoder of inputs of width `input`.
    pub(crate) fn init(&self, input: usize, key: Key, device: &Device) -> Encoder {
        match self.form() {
            Form::Lone(stage) => Encoder::Lone(stage.init(input, key, device)),
            Form::Stack(stack) => Encoder::Stack(stack.init(input, key, device)),
        }
    }
}

impl StageConfig {
    fn shape(&self) -> EncoderShape {
        match self {
            StageConfig::Rnn(config) => config.shape(Cell::Rnn),
            StageConfig::Lstm(config) => config.shape(Cell::Lstm),
            StageConfig::Gru(config) => config.shape(Cell::Gru),
        }
    }

    /// What cannot work.
    fn problems(&self) -> Vec<Problem> {
        match self {
            StageConfig::Rnn(_) | StageConfig::Lstm(_) | StageConfig::Gru(_) => Vec::new(),
        }
    }

    /// What is valid but has no effect; `is_last`: nothing reads on behind it.
    fn warnings(&self, is_last: bool) -> Vec<Problem> {
        match self {
            StageConfig::Rnn(config) => config.warnings(Cell::Rnn, is_last),
            StageConfig::Lstm(config) => config.warnings(Cell::Lstm, is_last),
            StageConfig::Gru(config) => config.warnings(Cell::Gru, is_last),
        }
    }

    fn init(&self, input: usize, key: Key, device: &Device) -> Stage {
        match self {
            StageConfig::Rnn(config) => Stage::Recurrent(config.init(Cell::Rnn, input, key, device)),
            StageConfig::Lstm(config) => Stage::Recurrent(config.init(Cell::Lstm, input, key, device)),
            StageConfig::Gru(config) => Stage::Recurrent(config.init(Cell::Gru, input, key, device)),
        }
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

/// An encoder.
#[derive(Module, Debug)]
pub(crate) enum Encoder {
    Lone(Stage),
    Stack(Stack),
}

/// One stage of an encoder.
#[derive(Module, Debug)]
pub(crate) enum Stage {
    Recurrent(RecurrentEncoder),
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
        match self {
            Encoder::Lone(stage) => stage.encode(input, lengths, dropout_key),
            Encoder::Stack(stack) => stack.encode(input, lengths, dropout_key),
        }
    }
}

impl Stage {
    fn encode(&self, input: Input, lengths: Arc<[u32]>, dropout_key: Option<Key>) -> Encoded {
        match self {
            Stage::Recurrent(stage) => stage.encode(input, lengths, dropout_key),
        }
    }

    /// What training drops from what it hands to a next stage.
    fn dropout(&self) -> Dropout {
        match self {
            Stage::Recurrent(stage) => stage.dropout(),
        }
    }
}
