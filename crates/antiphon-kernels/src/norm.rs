//! Layer normalisation (Ba et al. 2016): each step's numbers, less their mean and divided by their deviation.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::flex::{dense, serves, slice, wrap};
use crate::memory::{LINE, Unwritten, unwritten, written};
use crate::vector::multiversion;

/// Added to the variance: a step whose numbers are all alike has none.
const EPSILON: f32 = 1e-5;

/// `g ⊙ (x − μ) / √(σ² + 10⁻⁵) + b` with mean and variance over the numbers of a step: `[B, T, W] → [B, T, W]`, `gain` and `bias`
/// `[W]`. Differentiable in all three.
///
/// # Panics
/// If the widths differ.
pub fn layer_norm(x: Tensor<3>, gain: Tensor<1>, bias: Tensor<1>) -> Tensor<3> {
    let width = x.dims()[2];
    assert!(gain.dims() == [width] && bias.dims() == [width], "gain and bias of {width} numbers");
    if !serves(&x) {
        let centred = x.clone() - x.mean_dim(2);
        let variance = (centred.clone() * centred.clone()).mean_dim(2);
        let normal = centred / (variance + f64::from(EPSILON)).sqrt();
        return normal * gain.reshape([1, 1, width]) + bias.reshape([1, 1, width]);
    }
    let (x, gain, bias) = (x.into_dispatch(), gain.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as NormOps>::normalised(x, gain, bias))
}

/// The operation on plain slices, as Burn's backends see it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait NormOps: Backend {
    /// `[B, T, W] → [B, T, W]`.
    fn normalised(x: FloatTensor<Self>, gain: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// A backend that has the operation.
trait Body: NormOps {
    /// → the gradients of `x`, gain and bias
    fn backward(gradient: FloatTensor<Self>, x: FloatTensor<Self>, gain: FloatTensor<Self>) -> [FloatTensor<Self>; 3];
}

#[derive(Debug)]
struct NormNode;

impl<B: Body> Backward<B, 3> for NormNode {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (x, gain) = ops.state;
        for (parent, gradient) in ops.parents.into_iter().zip(B::backward(gradient, x, gain)) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Body, C: CheckpointStrategy> NormOps for Autodiff<B, C> {
    fn normalised(x: FloatTensor<Self>, gain: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((x, x_node), (gain, g_node), (bias, b_node)) = (x.into_parts(), gain.into_parts(), bias.into_parts());
        match NormNode.prepare::<C>([x_node, g_node, b_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::normalised(x.clone(), gain.clone(), bias);
                prep.finish((x, gain), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::normalised(x, gain, bias)),
        }
    }
}

/// Steps a task takes. The gradients of gain and bias are summed over tasks, so that changing it changes bits.
const STEPS: usize = 64;

impl NormOps for Flex {
    fn normalised(x: FlexTensor, gain: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let (x, gain, bias) = (dense(x), dense(gain), dense(bias));
        let [b, t, w] = std::array::from_fn(|i| x.shape()[i]);
        let mut y = unwritten(b * t * w);
        y.par_chunks_mut(STEPS * w).zip(slice(&x).par_chunks(STEPS * w)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(w).zip(x.chunks_exact(w)) {
                forward(x, slice(&gain), slice(&bias), y);
            }
        });
        // SAFETY: every step is written.
        wrap(unsafe { written(y) }, [b, t, w])
    }
}

impl Body for Flex {
    fn backward(gradient: FlexTensor, x: FlexTensor, gain: FlexTensor) -> [FlexTensor; 3] {
        let (gradient, x, gain) = (dense(gradient), dense(x), dense(gain));
        let [b, t, w] = std::array::from_fn(|i| x.shape()[i]);
        let mut dx = unwritten(b * t * w);
        let steps = slice(&x).par_chunks(STEPS * w).zip(slice(&gradient).par_chunks(STEPS * w));
        let task = |(dx, (x, gradient)): (&mut Unwritten, (&[f32], &[f32]))| {
            let mut sums = vec![0.0; 2 * w];
            let (of_gain, of_bias) = sums.split_at_mut(w);
            for ((dx, x), gradient) in dx.chunks_exact_mut(w).zip(x.chunks_exact(w)).zip(gradient.chunks_exact(w)) {
                backward(x, gradient, slice(&gain), dx, of_gain, of_bias);
            }
            sums
        };
        let parts: Vec<Vec<f32>> = dx.par_chunks_mut(STEPS * w).zip(steps).map(task).collect();
        let mut sums = vec![0.0; 2 * w];
        for part in &parts {
            sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        }
        let of_bias = sums.split_off(w);
        // SAFETY: every step is written.
        [wrap(unsafe { written(dx) }, [b, t, w]), wrap(sums, [w]), wrap(of_bias, [w])]
    }
}

/// `Σ f(a, b, c)` in running sums, which the compiler can keep in one register.
#[inline(always)]
fn sum([a, b, c]: [&[f32]; 3], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; LINE];
    let ((a, a_rest), (b, b_rest), (c, c_rest)) = (a.as_chunks::<LINE>(), b.as_chunks::<LINE>(), c.as_chunks::<LINE>());
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for j in 0..LINE {
            sums[j] += f(a[j], b[j], c[j]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).zip(c_rest).map(|((&a, &b), &c)| f(a, b, c));
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

/// Mean and inverse deviation of a step's numbers.
#[inline(always)]
fn moments(x: &[f32]) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum([x; 3], |x, _, _| x) / n;
    let variance = sum([x; 3], |x, _, _| (x - mean) * (x - mean)) / n;
    (mean, (variance + EPSILON).sqrt().recip())
}

#[inline(always)]
fn forward_body<const FMA: bool>(x: &[f32], gain: &[f32], bias: &[f32], y: &mut Unwritten) {
    let (mean, inverse) = moments(x);
    for (((y, x), gain), bias) in y.iter_mut().zip(x).zip(gain).zip(bias) {
        y.write((x - mean) * inverse * gain + bias);
    }
}
multiversion!(fn forward(x: &[f32], gain: &[f32], bias: &[f32], y: &mut Unwritten) = forward_body);

#[inline(always)]
fn backward_body<const FMA: bool>(
    x: &[f32],
    gradient: &[f32],
    gain: &[f32],
    dx: &mut Unwritten,
    of_gain: &mut [f32],
    of_bias: &mut [f32],
) {
    let n = x.len() as f32;
    let (mean, inverse) = moments(x);
    let normal = |x: f32| (x - mean) * inverse;
    let level = sum([x, gradient, gain], |_, gradient, gain| gradient * gain) / n;
    let slope = sum([x, gradient, gain], |x, gradient, gain| gradient * gain * normal(x)) / n;
    let given = x.iter().zip(gradient).zip(gain);
    for ((((&x, gradient), gain), dx), (of_gain, of_bias)) in given.zip(dx).zip(of_gain.iter_mut().zip(of_bias)) {
        dx.write(inverse * (gradient * gain - level - normal(x) * slope));
        *of_gain += gradient * normal(x);
        *of_bias += gradient;
    }
}
multiversion!(
    /// `dx` is written, the gradients of gain and bias are added to.
    fn backward(
        x: &[f32],
        gradient: &[f32],
        gain: &[f32],
        dx: &mut Unwritten,
        of_gain: &mut [f32],
        of_bias: &mut [f32],
    ) = backward_body
);

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::random::Key;
    use burn::tensor::{DType, Device, TensorData};

    fn numbers(name: &str, n: usize) -> Vec<f32> {
        let key = Key::from_seed(4).named(name);
        (0..n as u64).map(|i| key.normal(i) as f32 + 0.5).collect()
    }

    #[test]
    fn values_and_gradients_are_those_of_tensor_operations() {
        for [b, t, w] in [[1, 1, 1], [1, 3, 2], [3, 5, 7], [9, 40, 131]] {
            let run = |dtype: DType| {
                let device = Device::flex().autodiff();
                let leaf = |name: &str, n: usize| (TensorData::new(numbers(name, n), [n]), (&device, dtype));
                let of = |(data, options): (TensorData, _)| Tensor::<1>::from_data(data, options).require_grad();
                let flat = of(leaf("x", b * t * w));
                let (gain, bias) = (of(leaf("gain", w)), of(leaf("bias", w)));
                let y = layer_norm(flat.clone().reshape([b, t, w]), gain.clone(), bias.clone()).reshape([b * t * w]);
                let grads = (y.clone() * of(leaf("given", b * t * w)).detach()).sum().backward();
                let leaves = [flat, gain, bias].map(|leaf| leaf.grad(&grads).unwrap());
                let parts = std::iter::once(y.inner()).chain(leaves);
                parts.map(|t| t.into_data().convert_dtype(DType::F64).try_to_vec::<f64>().unwrap()).collect::<Vec<_>>()
            };
            for (part, (fast, portable)) in run(DType::F32).into_iter().zip(run(DType::F64)).enumerate() {
                assert_eq!(fast.len(), portable.len());
                let scale = portable.iter().fold(1.0_f64, |most, v| most.max(v.abs()));
                for (a, b) in fast.iter().zip(&portable) {
                    assert!((a - b).abs() < 1e-4 * scale, "{b} {t} {w}, part {part}: {a} is not {b}");
                }
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let of = |name: &str, n: usize| {
                    Tensor::<1>::from_data(TensorData::new(numbers(name, n), [n]), &Device::flex().autodiff())
                        .require_grad()
                };
                let (x, gain, bias) = (of("x", 9 * 40 * 33), of("gain", 33), of("bias", 33));
                let y = layer_norm(x.clone().reshape([9, 40, 33]), gain.clone(), bias);
                let grads = (y.clone() * y).sum().backward();
                [x, gain].map(|leaf| leaf.grad(&grads).unwrap().into_data().try_to_vec::<f32>().unwrap())
            })
        };
        assert_eq!(with(1), with(3));
    }
}
