//! A stage that changes the width of what is read, step by step.

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::tanh;
use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Encoded, StageShape, idle_at_the_end};
use crate::dropout::Dropout;
use crate::embedding::Input;
use crate::initial::{Initial, zeros};

/// A linear layer, `f(W x + b)` at every step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectionConfig {
    /// The width of what it makes.
    #[schemars(range(min = 1, max = 8192))]
    pub size: usize,
    /// `f`.
    pub activation: Activation,
    /// The share of numbers that training drops from what it hands to a next stage.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
}

/// What a projection is bent by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Nothing.
    None,
    /// The hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`.
    Relu,
}

impl Default for ProjectionConfig {
    fn default() -> Self {
        Self { size: 256, activation: Activation::None, dropout: 0.0 }
    }
}

impl ProjectionConfig {
    pub(super) fn shape(&self) -> StageShape {
        StageShape::of_steps(self.size, None)
    }

    pub(super) fn warnings(&self, is_last: bool) -> Vec<Problem> {
        idle_at_the_end(self.dropout, is_last).into_iter().collect()
    }

    pub(super) fn init(&self, input: usize, key: Key, device: &Device) -> Projection {
        Projection {
            weight: Initial::GlorotUniform.weight([input, self.size], self.size, key.named("weight"), device),
            bias: zeros(self.size, device),
            activation: self.activation,
            dropout: self.dropout,
        }
    }
}

/// A linear layer.
#[derive(Module, Debug)]
pub(crate) struct Projection {
    /// `[I, W]`.
    weight: Param<Tensor<2>>,
    /// `[W]`.
    bias: Param<Tensor<1>>,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    dropout: f64,
}

impl Projection {
    pub(super) fn encode(&self, input: &Input, lengths: Arc<[u32]>) -> Encoded {
        let x = input.project(self.weight.val()) + self.bias.val().unsqueeze();
        let memory = match self.activation {
            Activation::None => x,
            Activation::Tanh => tanh(x),
            Activation::Relu => relu(x),
        };
        Encoded::of(memory, lengths, Vec::new())
    }

    pub(super) fn dropout(&self) -> Dropout {
        Dropout { rate: self.dropout, locked: false }
    }
}
