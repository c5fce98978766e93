//! A convolution along time and across a step's numbers as one operation, forward and backward.
//!
//! A step's numbers are *planes* one behind another, of so many *bands* each: `x_tpf`. With windows of `kernel` and their `stride`,
//!
//! `y_tcf = b_c + Σ_pij x_{t·s + i − l, p, f·s' + j − l'} W_{pij,c}`, `l = ⌊(k − 1) / 2⌋` and `l'` likewise.
//!
//! So the window of `(t, f)` has its middle at `(t · s, f · s')`, wherever a row ends. What lies outside of a row or of its bands counts
//! as zeros ("same" padding): `n` real steps become `⌈n / s⌉`, and `F` bands `⌈F / s'⌉`. What is made beyond real steps is zero, whatever
//! the padding of `x` holds, and so is its gradient. Outputs are planes of bands too, one for each channel.

mod flex;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use crate::blocks::real_lengths;
use crate::convolution::zero_beyond;
use crate::flex::serves;

/// What a convolution over steps and bands is, beside its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Convolution2d {
    /// `P`: planes of the input.
    pub planes: usize,
    /// Steps and bands that an output sees.
    pub kernel: [usize; 2],
    /// How far apart their windows lie, in steps and in bands.
    pub stride: [usize; 2],
    /// `[B]`: input steps of each row that are real; all of them if `None`.
    pub lengths: Option<Arc<[u32]>>,
}

impl Convolution2d {
    /// How many steps and bands before its middle a window begins.
    fn before(&self) -> [usize; 2] {
        self.kernel.map(|width| (width - 1) / 2)
    }

    /// How many steps and bands so many become.
    fn outputs(&self, steps: usize, bands: usize) -> [usize; 2] {
        [steps.div_ceil(self.stride[0]), bands.div_ceil(self.stride[1])]
    }

    /// Real steps of each of `rows` rows of `steps` steps.
    fn real(&self, rows: usize, steps: usize) -> Vec<usize> {
        real_lengths(self.lengths.as_deref(), rows, steps)
    }
}

/// Convolves `x` `[B, S, P·F]` with `weight` `[P·k·k', C]`, whose rows stand by plane, then by step of the window, then by band, and adds
/// `bias` `[C]`: `[B, ⌈S/s⌉, C·⌈F/s'⌉]`. Differentiable in all three.
///
/// On the CPU a row's output has the same bits whatever stands beside it, and however wide the padding.
///
/// # Panics
/// If shapes do not fit, or a width or stride is 0.
pub fn convolve_2d(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>, run: &Convolution2d) -> Tensor<3> {
    let ([b, _, width], [rows, channels]) = (x.dims(), weight.dims());
    let [k, l] = run.kernel;
    assert!(run.planes > 0 && k > 0 && l > 0 && !run.stride.contains(&0), "{run:?}");
    assert!(width > 0 && width.is_multiple_of(run.planes), "{width} numbers are not {} planes", run.planes);
    assert_eq!(rows, run.planes * k * l, "a weight for each input of a window");
    assert_eq!(bias.dims(), [channels], "bias");
    assert!(run.lengths.as_ref().is_none_or(|lengths| lengths.len() == b), "a length for each row");
    if !serves(&x) {
        return composed(x, weight, bias, run);
    }
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Convolution2dOps>::convolve_2d(x, weight, bias, run.clone()))
}

/// Made of tensor operations, for every device and number type.
fn composed(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>, run: &Convolution2d) -> Tensor<3> {
    let ([b, s, width], c, p) = (x.dims(), weight.dims()[1], run.planes);
    let (f, [k, l], [q, r]) = (width / p, run.kernel, run.stride);
    let ([t, g], real) = (run.outputs(s, f), run.real(b, s));
    let (device, dtype) = (x.device(), x.dtype());
    let zeros = |dims: [usize; 4]| (!dims.contains(&0)).then(|| Tensor::<4>::zeros(dims, (&device, dtype)));
    let around = |x: Tensor<4>, dim: usize, front: usize, behind: usize| {
        let dims = |n: usize| {
            let mut dims = x.dims();
            dims[dim] = n;
            dims
        };
        let parts = [zeros(dims(front)), Some(x.clone()), zeros(dims(behind))];
        Tensor::cat(parts.into_iter().flatten().collect(), dim)
    };
    // Steps and bands in groups of a stride: the inputs at one place of all windows are a place of neighbouring groups.
    let (steps, bands) = (t + (k - 1) / q, g + (l - 1) / r);
    let [before, left] = run.before();
    let x = zero_beyond(x, &real).reshape([b, s, p, f]);
    let x = around(x, 1, before, (steps * q).saturating_sub(before + s)).narrow(1, 0, steps * q);
    let x = around(x, 3, left, (bands * r).saturating_sub(left + f)).narrow(3, 0, bands * r);
    let grouped = x.reshape([b, steps, q, p, bands, r]);
    let place = |(i, j): (usize, usize)| {
        let steps = grouped.clone().narrow(1, i / q, t).narrow(2, i % q, 1);
        steps.narrow(4, j / r, g).narrow(5, j % r, 1).reshape([b, t, p, g, 1])
    };
    let places = (0..k).flat_map(|i| (0..l).map(move |j| (i, j)));
    let windows = Tensor::cat(places.map(place).collect(), 4).permute([0, 1, 3, 2, 4]);
    let y = windows.reshape([b * t * g, p * k * l]).matmul(weight) + bias.reshape([1, c]);
    let y = y.reshape([b, t, g, c]).swap_dims(2, 3).reshape([b, t, c * g]);
    zero_beyond(y, &real.iter().map(|&n| n.div_ceil(q)).collect::<Vec<_>>())
}

/// The operation on plain slices, as Burn's backends see it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Convolution2dOps: Backend {
    fn convolve_2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        run: Convolution2d,
    ) -> FloatTensor<Self>;
}

/// A backend that has the operation.
trait Body: Convolution2dOps {
    /// → the gradients of `x`, weight and bias, as far as they are `wanted`; else dummies
    fn backward(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        run: &Convolution2d,
        wanted: [bool; 3],
    ) -> [FloatTensor<Self>; 3];
}

#[derive(Debug)]
struct Convolution2dNode;

impl<B: Body> Backward<B, 3> for Convolution2dNode {
    type State = (FloatTensor<B>, FloatTensor<B>, Convolution2d);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (x, weight, run) = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = B::backward(gradient, x, weight, &run, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Body, C: CheckpointStrategy> Convolution2dOps for Autodiff<B, C> {
    fn convolve_2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        run: Convolution2d,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (weight, w_node)) = (x.into_parts(), weight.into_parts());
        let (bias, b_node) = bias.into_parts();
        match Convolution2dNode.prepare::<C>([x_node, w_node, b_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::convolve_2d(x.clone(), weight.clone(), bias, run.clone());
                prep.finish((x, weight, run), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::convolve_2d(x, weight, bias, run)),
        }
    }
}

#[cfg(test)]
mod tests;
