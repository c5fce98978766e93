//! A stage of gated convolutions along time.

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{Convolution, convolve, gated_linear_unit};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::time_reduction::{reduced, skip};
use super::{Encoded, StageShape, idle_dropout};
use crate::dropout::{Dropout, idle_lock};
use crate::embedding::Input;
use crate::initial::{Initial, normal, parameter, zeros};

/// Layers of gated convolutions (Gehring et al. 2017). Layer by layer `x ← √½ (x + a ⊙ σ(b))` with `[a, b] = conv(x)`, which looks
/// at a window of steps around each one; before the first a linear layer brings the input to the width of the layers.
///
/// It has no final state: without a recurrent stage the mean of the memory's steps stands for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConvolutionEncoderConfig {
    /// The width of a layer's vectors, and of the memory.
    #[schemars(range(min = 1, max = 8192))]
    pub hidden: usize,
    /// How many layers are stacked. Together they see `width + (layers − 1) × (width − 1) × stride` steps of the source.
    #[schemars(range(min = 1, max = 64))]
    pub layers: usize,
    /// How many steps a layer looks at, with its own in the middle.
    #[schemars(range(min = 1, max = 255))]
    pub width: usize,
    /// How many steps the first layer goes on each time: memory has one step for so many of the source.
    #[schemars(range(min = 1, max = 64))]
    pub stride: usize,
    /// What tells the first layer where a step stands.
    pub positions: Positions,
    /// The share of numbers that training drops from what a layer hands to the next.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
    /// Whether `dropout` draws one mask a row, which holds for all of its steps (variational dropout, Gal and Ghahramani 2016).
    pub locked_dropout: bool,
}

/// How a step of a source is told where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// Not at all.
    None,
    /// By sines and cosines of its number (Vaswani et al. 2017), each with an amplitude that is learned. They have no limit.
    Sinusoidal,
}

impl Default for ConvolutionEncoderConfig {
    fn default() -> Self {
        Self {
            hidden: 256,
            layers: 3,
            width: 3,
            stride: 1,
            positions: Positions::Sinusoidal,
            dropout: 0.0,
            locked_dropout: false,
        }
    }
}

impl ConvolutionEncoderConfig {
    pub(super) fn shape(&self) -> StageShape {
        StageShape { reduction: self.stride, ..StageShape::of_steps(self.hidden, None) }
    }

    pub(super) fn warnings(&self, is_last: bool) -> Vec<Problem> {
        let dropout = idle_dropout(self.dropout, self.layers, is_last);
        dropout.into_iter().chain(idle_lock(self.locked_dropout, &[self.dropout])).collect()
    }

    pub(super) fn init(&self, input: usize, key: Key, device: &Device) -> ConvolutionEncoder {
        let (h, inputs) = (self.hidden, self.width * self.hidden);
        let layers = (0..self.layers).map(|l| {
            // So that the numbers of all layers vary alike (Gehring et al. 2017, section 3.5): a gate halves what it lets through,
            // and dropout makes the rest larger.
            let kept = if l == 0 { 1.0 } else { 1.0 - self.dropout };
            let deviation = (4.0 * kept / inputs as f64).sqrt();
            ConvolutionLayer {
                weight: normal([inputs, 2 * h], deviation, key.named("layer").numbered(l as u64), device),
                bias: zeros(2 * h, device),
            }
        });
        let amplitudes = match self.positions {
            Positions::None => None,
            // All together as long as an embedding is at first.
            Positions::Sinusoidal => Some(parameter(vec![(2.0 / h as f32).sqrt(); h], [h], device)),
        };
        ConvolutionEncoder {
            input: Initial::GlorotUniform.weight([input, h], h, key.named("input"), device),
            bias: zeros(h, device),
            amplitudes,
            layers: layers.collect(),
            width: self.width,
            stride: self.stride,
            dropout: Dropout { rate: self.dropout, locked: self.locked_dropout },
        }
    }
}

/// Gated convolutions with residual connections.
#[derive(Module, Debug)]
pub(crate) struct ConvolutionEncoder {
    /// `[I, H]`.
    input: Param<Tensor<2>>,
    /// `[H]`.
    bias: Param<Tensor<1>>,
    /// `[H]`: of the sines and cosines.
    amplitudes: Option<Param<Tensor<1>>>,
    layers: Vec<ConvolutionLayer>,
    #[module(skip)]
    width: usize,
    /// Of the first layer.
    #[module(skip)]
    stride: usize,
    #[module(skip)]
    dropout: Dropout,
}

#[derive(Module, Debug)]
struct ConvolutionLayer {
    /// `[width · H, 2H]`.
    weight: Param<Tensor<2>>,
    /// `[2H]`.
    bias: Param<Tensor<1>>,
}

impl ConvolutionEncoder {
    /// Reads a batch whose rows have `lengths` real steps.
    pub(super) fn encode(&self, input: Input, lengths: Arc<[u32]>, dropout_key: Option<Key>) -> Encoded {
        let mut x = self.enter(&input);
        let mut lengths = lengths;
        for (l, layer) in self.layers.iter().enumerate() {
            let (read, stride) = match l {
                0 => (x.clone(), self.stride),
                _ => (self.dropout.apply(x.clone(), dropout_key.map(|key| key.numbered(l as u64))), 1),
            };
            let run = Convolution { width: self.width, stride, lengths: Some(lengths.clone()) };
            let made = gated_linear_unit(convolve(read, layer.weight.val(), layer.bias.val(), &run));
            // The steps in the middle of the windows.
            let passed = if stride > 1 { skip(x, stride) } else { x };
            x = (passed + made) * std::f64::consts::FRAC_1_SQRT_2;
            lengths = reduced(&lengths, stride);
        }
        Encoded::of(x, lengths, Vec::new())
    }

    /// What the first layer reads, `[B, S, H]`.
    fn enter(&self, input: &Input) -> Tensor<3> {
        let x = input.project(self.input.val());
        let [_, steps, h] = x.dims();
        let bias = self.bias.val().reshape([1, 1, h]);
        let added = match &self.amplitudes {
            None => bias,
            Some(amplitudes) => {
                let waves = Tensor::from_data(TensorData::new(sinusoids(steps, h), [1, steps, h]), &x.device().inner());
                amplitudes.val().reshape([1, 1, h]) * waves + bias
            }
        };
        x + added
    }

    /// What is dropped from what a layer hands to the next, and the last one to a next stage.
    pub(super) fn dropout(&self) -> Dropout {
        self.dropout
    }
}

/// `[steps, width]`: sine and cosine of `t / 10000^(2i/width)` in turn, in columns `2i` and `2i + 1` (Vaswani et al. 2017).
fn sinusoids(steps: usize, width: usize) -> Vec<f32> {
    let frequency = |i: usize| 10_000_f64.powf(-2.0 * i as f64 / width as f64);
    let frequencies: Vec<f64> = (0..width.div_ceil(2)).map(frequency).collect();
    let wave = |t: usize, column: usize| {
        let angle = t as f64 * frequencies[column / 2];
        (if column.is_multiple_of(2) { angle.sin() } else { angle.cos() }) as f32
    };
    (0..steps).flat_map(|t| (0..width).map(move |column| (t, column))).map(|(t, column)| wave(t, column)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_the_papers_and_a_step_has_the_same_in_a_longer_source() {
        let waves = sinusoids(7, 5);
        for (t, row) in waves.chunks_exact(5).enumerate() {
            let angle = t as f32 / 10_000_f32.powf(0.4);
            assert!((row[0] - (t as f32).sin()).abs() < 1e-6 && (row[1] - (t as f32).cos()).abs() < 1e-6);
            assert!((row[2] - angle.sin()).abs() < 1e-5 && (row[3] - angle.cos()).abs() < 1e-5);
        }
        assert_eq!(sinusoids(90, 5)[..waves.len()], waves);
    }

    /// `√½ x` of each layer remains, of the steps that the first one stops at.
    #[test]
    fn layers_without_weights_hand_on_what_they_read() {
        let device = Device::flex();
        let config = ConvolutionEncoderConfig { hidden: 4, layers: 2, stride: 2, ..Default::default() };
        let mut encoder = config.init(3, Key::from_seed(1), &device);
        for layer in &mut encoder.layers {
            layer.weight = layer.weight.clone().map(|weight| weight.zeros_like());
        }
        let x = Input::Vectors(Tensor::random([2, 5, 3], burn::tensor::Distribution::Default, &device));
        let encoded = encoder.encode(x.clone(), [5, 2].into(), None);
        assert_eq!(encoded.lengths.to_vec(), [3, 1]);
        let numbers = |t: Tensor<3>| t.into_data().try_to_vec::<f32>().unwrap();
        let (read, made) = (numbers(encoder.enter(&x)), numbers(encoded.memory));
        for (step, made) in made.chunks_exact(4).enumerate() {
            let read = &read[(step / 3 * 5 + step % 3 * 2) * 4..][..4];
            assert!(made.iter().zip(read).all(|(a, b)| (a - b / 2.0).abs() < 1e-6), "step {step}: {made:?}, {read:?}");
        }
    }
}
