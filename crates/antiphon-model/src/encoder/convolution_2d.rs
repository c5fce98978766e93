//! A stage of a convolution over steps and bands, as of filter banks.

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{Convolution2d, convolve_2d, gated_linear_unit};
use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::time_reduction::reduced;
use super::{Encoded, Read, StageShape, idle_at_the_end, one_hot, too_wide};
use crate::dropout::Dropout;
use crate::initial::{normal, zeros};

/// A convolution over a window of steps and of bands, neighbouring numbers of a step, as filter banks have them. A step's numbers are one
/// or several planes of bands: those of a sound and their deltas, or the channels that such a stage before has made. What lies outside
/// counts as zeros. There is no batch normalisation: what stands beside a row changes nothing of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Convolution2dConfig {
    /// `C`: how many planes it makes. Memory has `C × ⌈bands / stride⌉` numbers a step.
    #[schemars(range(min = 1, max = 1024))]
    pub channels: usize,
    /// How many steps and how many bands a window has, with its own in the middle.
    #[schemars(inner(range(min = 1, max = 255)))]
    pub kernel: [usize; 2],
    /// How many steps and how many bands a window goes on each time: of so many steps one remains, and of so many bands.
    #[schemars(inner(range(min = 1, max = 64)))]
    pub stride: [usize; 2],
    /// How many planes of equally many bands a step has, one behind another. Absent: as many as the stage before has `channels`, or one.
    #[schemars(range(min = 1, max = 1024))]
    pub planes: Option<usize>,
    /// What outputs are bent by.
    pub activation: Bend,
    /// The share of numbers that training drops from what it hands to a next stage.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
}

/// What a convolution's outputs are bent by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bend {
    /// `max(x, 0)`.
    Relu,
    /// `a ⊙ σ(b)` of twice as many outputs `[a, b]` (Dauphin et al. 2017).
    Gated,
}

impl Default for Convolution2dConfig {
    fn default() -> Self {
        Self { channels: 32, kernel: [3, 3], stride: [2, 2], planes: None, activation: Bend::Relu, dropout: 0.0 }
    }
}

impl Convolution2dConfig {
    fn planes(&self, read: Read) -> usize {
        self.planes.unwrap_or(read.planes)
    }

    pub(super) fn shape(&self, width: usize, read: Read) -> StageShape {
        let bands = (width / self.planes(read)).div_ceil(self.stride[1]);
        StageShape {
            reduction: self.stride[0],
            planes: self.channels,
            ..StageShape::of_steps(self.channels.saturating_mul(bands), None)
        }
    }

    pub(super) fn problems(&self, read: Read) -> Vec<Problem> {
        let planes = self.planes(read);
        let uneven = read.width.filter(|width| !width.is_multiple_of(planes)).map(|width| {
            let message = format!("{width} numbers a step are not {planes} equal planes; choose a divisor of {width}");
            Problem { place: "planes".into(), message }
        });
        let remedy = "choose fewer `channels`, or let `stride` be greater";
        let wide = read.width.and_then(|width| too_wide(self.shape(width, read).memory, "channels", remedy));
        one_hot(read.width, "convolution_2d").into_iter().chain(uneven).chain(wide).collect()
    }

    pub(super) fn warnings(&self, is_last: bool) -> Vec<Problem> {
        idle_at_the_end(self.dropout, is_last).into_iter().collect()
    }

    pub(super) fn init(&self, read: Read, key: Key, device: &Device) -> Convolution2dStage {
        let planes = self.planes(read);
        let inputs = planes * self.kernel[0] * self.kernel[1];
        // So that outputs vary as inputs do: either activation halves what it lets through (He et al. 2015), a gate once more
        // (Gehring et al. 2017, section 3.5).
        let (made, gain) = match self.activation {
            Bend::Relu => (self.channels, 2.0),
            Bend::Gated => (2 * self.channels, 4.0),
        };
        Convolution2dStage {
            weight: normal([inputs, made], (gain / inputs as f64).sqrt(), key.named("weight"), device),
            bias: zeros(made, device),
            planes,
            kernel: self.kernel,
            stride: self.stride,
            activation: self.activation,
            dropout: self.dropout,
        }
    }
}

/// A convolution over steps and bands.
#[derive(Module, Debug)]
pub(crate) struct Convolution2dStage {
    /// `[P·k·k', C]`, or twice as many channels for gates.
    weight: Param<Tensor<2>>,
    /// `[C]` or `[2C]`.
    bias: Param<Tensor<1>>,
    #[module(skip)]
    planes: usize,
    #[module(skip)]
    kernel: [usize; 2],
    #[module(skip)]
    stride: [usize; 2],
    #[module(skip)]
    activation: Bend,
    #[module(skip)]
    dropout: f64,
}

impl Convolution2dStage {
    /// `[B, S, P·F] → [B, ⌈S/s⌉, C·⌈F/s'⌉]`.
    pub(super) fn encode(&self, input: Tensor<3>, lengths: Arc<[u32]>) -> Encoded {
        let (planes, kernel, stride) = (self.planes, self.kernel, self.stride);
        let run = Convolution2d { planes, kernel, stride, lengths: Some(lengths.clone()) };
        let made = convolve_2d(input, self.weight.val(), self.bias.val(), &run);
        let memory = match self.activation {
            Bend::Relu => relu(made),
            Bend::Gated => gated_linear_unit(made),
        };
        Encoded::of(memory, reduced(&lengths, stride[0]), Vec::new())
    }

    pub(super) fn dropout(&self) -> Dropout {
        Dropout { rate: self.dropout, locked: false }
    }
}
