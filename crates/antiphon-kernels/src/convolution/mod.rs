//! A convolution along time as one operation, forward and backward.
//!
//! `y_t = b + Σ_w x_{s(t)+w} W_w` with `s(t) = t · stride − ⌊(width − 1) / 2⌋`: the window of output step `t` has its middle at input
//! step `t · stride`, wherever a row ends. Steps outside a row count as zeros ("same" padding), so that `n` real steps become
//! `⌈n / stride⌉`; what is made beyond these is zero, whatever the padding of `x` holds, and so is its gradient.

mod flex;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Bool, Tensor, TensorData};

use crate::blocks::real_lengths;
use crate::flex::serves;

/// What a convolution is, beside its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Convolution {
    /// Input steps that an output step sees.
    pub width: usize,
    /// How far apart their windows lie.
    pub stride: usize,
    /// `[B]`: input steps of each row that are real; all of them if `None`.
    pub lengths: Option<Arc<[u32]>>,
}

impl Convolution {
    /// How many output steps so many input steps become.
    pub fn steps(&self, input: usize) -> usize {
        input.div_ceil(self.stride)
    }

    /// How many steps before its middle a window begins.
    fn left(&self) -> usize {
        (self.width - 1) / 2
    }

    /// Real steps of each of `rows` rows of `steps` steps.
    fn real(&self, rows: usize, steps: usize) -> Vec<usize> {
        real_lengths(self.lengths.as_deref(), rows, steps)
    }
}

/// Convolves `x` `[B, S, C]` with `weight` `[width·C, K]`, whose rows stand by step of the window and then by channel, and adds
/// `bias` `[K]`: `[B, ⌈S/stride⌉, K]`. Differentiable in all three.
///
/// On the CPU a row's output has the same bits whatever stands beside it, and however wide the padding.
///
/// # Panics
/// If shapes do not fit, or width or stride is 0.
pub fn convolve(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>, run: &Convolution) -> Tensor<3> {
    let ([b, _, c], [rows, k]) = (x.dims(), weight.dims());
    assert!(run.width > 0 && run.stride > 0, "{run:?}");
    assert_eq!(rows, run.width * c, "a weight for each input of a window");
    assert_eq!(bias.dims(), [k], "bias");
    assert!(run.lengths.as_ref().is_none_or(|lengths| lengths.len() == b), "a length for each row");
    if !serves(&x) {
        return composed(x, weight, bias, run);
    }
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as ConvolutionOps>::convolve(x, weight, bias, run.clone()))
}

/// Made of tensor operations, for every device and number type.
fn composed(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>, run: &Convolution) -> Tensor<3> {
    let ([b, s, c], k, q) = (x.dims(), weight.dims()[1], run.stride);
    let steps = run.steps(s);
    let real = run.real(b, s);
    let x = zero_beyond(x, &real);
    // Steps in groups of a stride: the inputs at one place of all windows are a place of neighbouring groups.
    let groups = steps + (run.width - 1) / q;
    let (front, device, dtype) = (run.left(), x.device(), x.dtype());
    let zeros = |steps: usize| (steps > 0).then(|| Tensor::zeros([b, steps, c], (&device, dtype)));
    let behind = (groups * q).saturating_sub(front + s);
    let padded = Tensor::cat([zeros(front), Some(x), zeros(behind)].into_iter().flatten().collect(), 1);
    let grouped = padded.narrow(1, 0, groups * q).reshape([b, groups, q, c]);
    let place = |w: usize| grouped.clone().narrow(1, w / q, steps).narrow(2, w % q, 1).reshape([b, steps, c]);
    let windows = Tensor::cat((0..run.width).map(place).collect(), 2).reshape([b * steps, run.width * c]);
    let y = windows.matmul(weight).reshape([b, steps, k]) + bias.reshape([1, 1, k]);
    zero_beyond(y, &real.iter().map(|&n| run.steps(n)).collect::<Vec<_>>())
}

/// `[B, T, W]` with zeros beyond the `real` steps of each row, where there may be anything. Differentiable.
pub fn zero_beyond(x: Tensor<3>, real: &[usize]) -> Tensor<3> {
    let [b, t, w] = x.dims();
    if real.iter().all(|&n| n >= t) {
        return x;
    }
    let beyond = real.iter().flat_map(|&n| (0..t).map(move |step| step >= n)).collect::<Vec<bool>>();
    let beyond = Tensor::<3, Bool>::from_data(TensorData::new(beyond, [b, t, 1]), &x.device().inner());
    x.mask_fill(beyond.expand([b, t, w]), 0.0)
}

/// The operation on plain slices, as Burn's backends see it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait ConvolutionOps: Backend {
    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        run: Convolution,
    ) -> FloatTensor<Self>;
}

/// A backend that has the operation.
trait Body: ConvolutionOps {
    /// → (output, what `backward` needs of `x`)
    fn forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        run: &Convolution,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// → the gradients of `x` `[B, S, C]`, weight and bias, as far as they are `wanted`; else dummies
    fn backward(
        gradient: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dims: [usize; 3],
        run: &Convolution,
        wanted: [bool; 3],
    ) -> [FloatTensor<Self>; 3];
}

#[derive(Debug)]
struct ConvolutionNode;

impl<B: Body> Backward<B, 3> for ConvolutionNode {
    // What the forward pass saved, and the weight.
    type State = (FloatTensor<B>, FloatTensor<B>, [usize; 3], Convolution);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (saved, weight, dims, run) = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = B::backward(gradient, saved, weight, dims, &run, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Body, C: CheckpointStrategy> ConvolutionOps for Autodiff<B, C> {
    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        run: Convolution,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (weight, w_node)) = (x.into_parts(), weight.into_parts());
        let (bias, b_node) = bias.into_parts();
        match ConvolutionNode.prepare::<C>([x_node, w_node, b_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let dims = std::array::from_fn(|i| x.shape()[i]);
                let (y, saved) = B::forward(x, weight.clone(), bias, &run);
                prep.finish((saved, weight, dims, run), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::convolve(x, weight, bias, run)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::random::Key;
    use burn::tensor::{DType, Device};

    /// Rows, steps, channels, outputs, width and stride: windows wider than rows, even ones, strides beyond the window, and
    /// enough of everything for several tasks, panels and groups of them.
    const CASES: [[usize; 6]; 11] = [
        [1, 1, 1, 1, 1, 1],
        [1, 1, 2, 3, 3, 1],
        [3, 5, 4, 2, 3, 1],
        [2, 3, 3, 4, 7, 1],
        [4, 6, 2, 3, 4, 1],
        [3, 7, 3, 2, 3, 2],
        [3, 8, 2, 5, 5, 3],
        [2, 9, 3, 2, 1, 2],
        [2, 9, 3, 2, 2, 4],
        [40, 23, 33, 70, 3, 1],
        [9, 60, 130, 90, 5, 2],
    ];

    fn numbers(name: &str, dims: &[usize]) -> TensorData {
        let key = Key::from_seed(9).named(name);
        let n: usize = dims.iter().product();
        TensorData::new((0..n as u64).map(|i| key.normal(i) as f32 * 0.7).collect::<Vec<f32>>(), dims.to_vec())
    }

    fn lengths_of(kind: usize, b: usize, s: usize) -> Option<Arc<[u32]>> {
        match kind {
            0 => None,
            1 => Some((0..b).map(|i| ((i * 7 + 3) % (s + 1)) as u32).collect()),
            2 => Some(vec![0; b].into()),
            _ => Some((0..b).map(|i| if i == 0 { 0 } else { s as u32 }).collect()),
        }
    }

    fn every_case(mut check: impl FnMut([usize; 4], &Convolution)) {
        for [b, s, c, k, width, stride] in CASES {
            for kind in 0..4 {
                check([b, s, c, k], &Convolution { width, stride, lengths: lengths_of(kind, b, s) });
            }
        }
    }

    fn inputs([b, s, c, k]: [usize; 4], width: usize) -> [TensorData; 3] {
        [numbers("x", &[b, s, c]), numbers("w", &[width * c, k]), numbers("b", &[k])]
    }

    /// `x` with NaN for padding.
    fn stray(x: TensorData, run: &Convolution) -> TensorData {
        let (dims, mut x): (Vec<usize>, Vec<f32>) = (x.shape().to_vec(), x.try_to_vec().unwrap());
        for (row, n) in x.chunks_exact_mut(dims[1] * dims[2]).zip(run.real(dims[0], dims[1])) {
            row[n * dims[2]..].fill(f32::NAN);
        }
        TensorData::new(x, dims)
    }

    fn doubles<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
        tensor.into_data().convert_dtype(DType::F64).try_to_vec().unwrap()
    }

    /// The output, then the gradients of all three inputs, by the body that the number type selects.
    fn run_as(dtype: DType, inputs: [TensorData; 3], run: &Convolution) -> Vec<Vec<f64>> {
        let device = Device::flex().autodiff();
        let [x, w, b] = inputs;
        let x = Tensor::<3>::from_data(x, (&device, dtype)).require_grad();
        let w = Tensor::<2>::from_data(w, (&device, dtype)).require_grad();
        let b = Tensor::<1>::from_data(b, (&device, dtype)).require_grad();
        let y = convolve(x.clone(), w.clone(), b.clone(), run);
        let given = Tensor::<3>::from_data(numbers("g", &y.dims()), (&device.inner(), dtype));
        let grads = (y.clone() * Tensor::from_inner(given)).sum().backward();
        vec![
            doubles(y.inner()),
            doubles(x.grad(&grads).unwrap()),
            doubles(w.grad(&grads).unwrap()),
            doubles(b.grad(&grads).unwrap()),
        ]
    }

    /// Number by number, as the head of the file has it.
    fn by_hand([b, s, c, k]: [usize; 4], inputs: &[TensorData; 3], run: &Convolution) -> Vec<f64> {
        let [x, w, bias] = inputs.clone().map(|data| data.convert_dtype(DType::F64).try_to_vec::<f64>().unwrap());
        let mut y = Vec::new();
        for (row, n) in run.real(b, s).into_iter().enumerate() {
            for (t, k_of) in (0..run.steps(s)).flat_map(|t| (0..k).map(move |k_of| (t, k_of))) {
                let mut sum = bias[k_of];
                for place in 0..run.width {
                    let step = (t * run.stride + place).checked_sub((run.width - 1) / 2).filter(|step| *step < n);
                    let of = |step: usize| (0..c).map(move |c_of| ((row * s + step) * c + c_of, place * c + c_of));
                    sum += step.into_iter().flat_map(of).map(|(x_at, w_at)| x[x_at] * w[w_at * k + k_of]).sum::<f64>();
                }
                y.push(if t * run.stride < n { sum } else { 0.0 });
            }
        }
        y
    }

    fn assert_close(found: &[f64], expected: &[f64], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let scale = expected.iter().fold(1.0_f64, |most, v| most.max(v.abs()));
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() < 2e-5 * scale, "{what}, number {i}: {a} is not {b}");
        }
    }

    #[test]
    fn both_bodies_are_the_equation_and_agree_in_their_gradients_whatever_the_padding_holds() {
        every_case(|dims, run| {
            let [x, w, b] = inputs(dims, run.width);
            let inputs = [stray(x, run), w, b];
            let (fast, portable) = (run_as(DType::F32, inputs.clone(), run), run_as(DType::F64, inputs.clone(), run));
            assert_close(&portable[0], &by_hand(dims, &inputs, run), &format!("{dims:?} {run:?}"));
            for (part, (fast, portable)) in fast.iter().zip(&portable).enumerate() {
                assert_close(fast, portable, &format!("{dims:?} {run:?}, part {part}"));
            }
        });
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        every_case(|dims, run| {
            if dims.iter().product::<usize>() > 500 {
                return;
            }
            let exact = run_as(DType::F32, inputs(dims, run.width), run);
            let given = numbers("g", &[dims[0], run.steps(dims[1]), dims[3]]);
            let given = given.convert_dtype(DType::F64).try_to_vec::<f64>().unwrap();
            // Linear in each input: a difference of any size is exact.
            for input in 0..3 {
                let values = inputs(dims, run.width)[input].try_to_vec::<f32>().unwrap();
                for i in 0..values.len() {
                    let moved = |by: f32| {
                        let (mut inputs, mut values) = (inputs(dims, run.width), values.clone());
                        values[i] += by;
                        inputs[input] = TensorData::new(values, inputs[input].shape());
                        by_hand(dims, &inputs, run).iter().zip(&given).map(|(y, g)| y * g).sum::<f64>()
                    };
                    let slope = moved(0.5) - moved(-0.5);
                    assert!((slope - exact[1 + input][i]).abs() < 1e-4, "{dims:?} {run:?}, input {input}, number {i}");
                }
            }
        });
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_padded_beside_others_on_any_number_of_threads() {
        for [_, s, c, k, width, stride] in CASES {
            let [_, w, b] = inputs([1, s, c, k], width);
            let row = numbers("row", &[s, c]).try_to_vec::<f32>().unwrap();
            let run = |rows: usize, place: usize, steps: usize| {
                let mut x = numbers("others", &[rows, steps, c]).try_to_vec::<f32>().unwrap();
                x[place * steps * c..][..s * c].copy_from_slice(&row);
                let lengths = (0..rows).map(|b| if b == place { s } else { (b * 5) % (steps + 1) } as u32).collect();
                let run = Convolution { width, stride, lengths: Some(lengths) };
                let x = Tensor::<3>::from_data(TensorData::new(x, [rows, steps, c]), &Device::flex());
                let w = Tensor::<2>::from_data(w.clone(), &Device::flex());
                let y = convolve(x, w, Tensor::from_data(b.clone(), &Device::flex()), &run);
                let y: Vec<f32> = y.narrow(0, place, 1).narrow(1, 0, run.steps(s)).into_data().try_to_vec().unwrap();
                y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let alone = run(1, 0, s);
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                for (rows, place, more) in [(1, 0, 4), (2, 1, 0), (9, 4, 1), (60, 59, 17)] {
                    let found = pool.install(|| run(rows, place, s + more));
                    assert_eq!(found, alone, "{s} {c} {k} {width} {stride}: row {place} of {rows}, {threads} threads");
                }
            }
        }
    }
}
