//! A stage that normalises what is read, step by step.

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_kernels::layer_norm;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Encoded, Read, StageShape, one_hot};
use crate::initial::{parameter, zeros};

/// Nothing to set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LayerNormConfig {}

impl LayerNormConfig {
    pub(super) fn shape(&self, input: usize, read: Read) -> StageShape {
        StageShape { planes: read.planes, ..StageShape::of_steps(input, None) }
    }

    pub(super) fn problems(&self, input: Option<usize>) -> Vec<Problem> {
        one_hot(input, "layer_norm").into_iter().collect()
    }

    pub(super) fn init(&self, input: usize, device: &Device) -> LayerNorm {
        LayerNorm { gain: parameter(vec![1.0; input], [input], device), bias: zeros(input, device) }
    }
}

/// Layer normalisation.
#[derive(Module, Debug)]
pub(crate) struct LayerNorm {
    /// `[M]`.
    gain: Param<Tensor<1>>,
    /// `[M]`.
    bias: Param<Tensor<1>>,
}

impl LayerNorm {
    /// `[B, S, M] → [B, S, M]`.
    pub(super) fn encode(&self, memory: Tensor<3>, lengths: Arc<[u32]>) -> Encoded {
        Encoded::of(layer_norm(memory, self.gain.val(), self.bias.val()), lengths, Vec::new())
    }
}
