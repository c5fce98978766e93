//! Means of neighbouring steps, of which only the real ones count.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::convolution::zero_beyond;
use crate::flex::{dense, serves, slice, wrap};
use crate::memory::{Unwritten, unwritten, written};
use crate::vector::multiversion;

/// The mean of each `group` of steps, as far as they are real: `[B, S, W] → [B, ⌈S/group⌉, W]`, zero where none is; `lengths` `[B]`.
/// Differentiable.
///
/// On the CPU a row's means have the same bits whatever stands beside it, and however wide the padding.
///
/// # Panics
/// If there are not as many lengths as rows, or `group` is 0.
pub fn average_steps(x: Tensor<3>, lengths: Arc<[u32]>, group: usize) -> Tensor<3> {
    let [b, s, w] = x.dims();
    assert!(group > 0 && lengths.len() == b, "groups of {group}, {} lengths for {b} rows", lengths.len());
    if serves(&x) {
        return Tensor::from_dispatch(<Dispatch as AverageOps>::averages(x.into_dispatch(), lengths, group));
    }
    let (steps, device, dtype) = (s.div_ceil(group), x.device(), x.dtype());
    let x = zero_beyond(x, &lengths.iter().map(|&n| n as usize).collect::<Vec<_>>());
    let rest = steps * group - s;
    let padded = match rest {
        0 => x,
        _ => Tensor::cat(vec![x, Tensor::zeros([b, rest, w], (&device, dtype))], 1),
    };
    let shares = lengths.iter().flat_map(|&n| (0..steps).map(move |t| share(real(n, s, t, group))));
    let shares = TensorData::new(shares.collect::<Vec<f32>>(), [b, steps, 1]);
    let shares = Tensor::<3>::from_data(shares, (&device.inner(), dtype));
    padded.reshape([b, steps, group, w]).sum_dim(2).reshape([b, steps, w]) * shares
}

/// Real steps of group `t` of a row of `length` real steps, of `steps` in all.
fn real(length: u32, steps: usize, t: usize, group: usize) -> usize {
    (length as usize).min(steps).saturating_sub(t * group).min(group)
}

/// What each of so many steps counts for.
fn share(real: usize) -> f32 {
    if real == 0 { 0.0 } else { 1.0 / real as f32 }
}

/// The operation on plain slices, as Burn's backends see it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait AverageOps: Backend {
    /// `[B, S, W] → [B, ⌈S/group⌉, W]`.
    fn averages(x: FloatTensor<Self>, lengths: Arc<[u32]>, group: usize) -> FloatTensor<Self>;
}

/// A backend that has the operation.
trait Body: AverageOps {
    /// → the gradient of `x`, which has so many steps
    fn backward(gradient: FloatTensor<Self>, steps: usize, lengths: &[u32], group: usize) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct AverageNode;

impl<B: Body> Backward<B, 1> for AverageNode {
    type State = (usize, Arc<[u32]>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            let (steps, lengths, group) = ops.state;
            grads.register::<B>(node.id, B::backward(gradient, steps, &lengths, group));
        }
    }
}

impl<B: Body, C: CheckpointStrategy> AverageOps for Autodiff<B, C> {
    fn averages(x: FloatTensor<Self>, lengths: Arc<[u32]>, group: usize) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let steps = x.shape()[1];
        match AverageNode.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((steps, lengths.clone(), group), B::averages(x, lengths, group)),
            OpsKind::UnTracked(prep) => prep.finish(B::averages(x, lengths, group)),
        }
    }
}

impl AverageOps for Flex {
    fn averages(x: FlexTensor, lengths: Arc<[u32]>, group: usize) -> FlexTensor {
        let x = dense(x);
        let [b, s, w] = std::array::from_fn(|i| x.shape()[i]);
        let steps = s.div_ceil(group);
        let mut y = unwritten(b * steps * w);
        let rows = y.par_chunks_mut((steps * w).max(1)).zip(slice(&x).par_chunks((s * w).max(1)));
        rows.zip(lengths.par_iter()).for_each(|((y, row), &n)| {
            for (t, y) in y.chunks_exact_mut(w).enumerate() {
                let real = real(n, s, t, group);
                // Behind the last group that has any there is nothing of the row to read.
                let steps = row.get(t * group * w..).unwrap_or_default();
                average(&steps[..real * w], share(real), y);
            }
        });
        // SAFETY: every group is written.
        wrap(unsafe { written(y) }, [b, steps, w])
    }
}

impl Body for Flex {
    fn backward(gradient: FlexTensor, steps: usize, lengths: &[u32], group: usize) -> FlexTensor {
        let gradient = dense(gradient);
        let [b, groups, w] = std::array::from_fn(|i| gradient.shape()[i]);
        let mut dx = unwritten(b * steps * w);
        let rows = dx.par_chunks_mut((steps * w).max(1)).zip(slice(&gradient).par_chunks((groups * w).max(1)));
        rows.zip(lengths.par_iter()).for_each(|((dx, gradient), &n)| {
            let of_groups = dx.chunks_mut(group * w).zip(gradient.chunks_exact(w)).enumerate();
            for (t, (dx, gradient)) in of_groups {
                let real = real(n, steps, t, group);
                for (step, dx) in dx.chunks_exact_mut(w).enumerate() {
                    scale(gradient, if step < real { share(real) } else { 0.0 }, dx);
                }
            }
        });
        // SAFETY: every step is written.
        wrap(unsafe { written(dx) }, [b, steps, w])
    }
}

#[inline(always)]
fn average_body<const FMA: bool>(steps: &[f32], share: f32, y: &mut Unwritten) {
    y.fill(std::mem::MaybeUninit::new(0.0));
    // SAFETY: all were filled.
    let y = unsafe { y.assume_init_mut() };
    for step in steps.chunks_exact(y.len()) {
        y.iter_mut().zip(step).for_each(|(y, x)| *y += x);
    }
    y.iter_mut().for_each(|y| *y *= share);
}
multiversion!(
    /// The sum of some steps, in their order, times a share.
    fn average(steps: &[f32], share: f32, y: &mut Unwritten) = average_body
);

#[inline(always)]
fn scale_body<const FMA: bool>(x: &[f32], factor: f32, y: &mut Unwritten) {
    for (y, x) in y.iter_mut().zip(x) {
        y.write(factor * x);
    }
}
multiversion!(fn scale(x: &[f32], factor: f32, y: &mut Unwritten) = scale_body);

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::random::Key;
    use burn::tensor::{DType, Device};

    #[test]
    fn both_bodies_are_the_means_of_real_steps_and_agree_in_their_gradients() {
        for [b, s, w, group] in [[1, 1, 1, 1], [3, 5, 4, 2], [4, 7, 3, 7], [4, 7, 3, 9], [30, 23, 33, 3]] {
            let lengths: Arc<[u32]> = (0..b).map(|i| ((i * 5 + 2) % (s + 1)) as u32).collect();
            let mut given: Vec<f32> = (0..(b * s * w) as u64).map(|i| Key::from_seed(4).normal(i) as f32).collect();
            for (row, &n) in given.chunks_exact_mut(s * w).zip(lengths.iter()) {
                row[n as usize * w..].fill(f32::NAN);
            }
            let run = |dtype: DType| {
                let x = TensorData::new(given.clone(), [b, s, w]);
                let x = Tensor::<3>::from_data(x, (&Device::flex().autodiff(), dtype)).require_grad();
                let y = average_steps(x.clone(), lengths.clone(), group);
                let grads = (y.clone() * y.clone()).sum().backward();
                [y.inner(), x.grad(&grads).unwrap()]
                    .map(|t| t.into_data().convert_dtype(DType::F64).try_to_vec::<f64>().unwrap())
            };
            let (fast, portable) = (run(DType::F32), run(DType::F64));
            let means = (0..b).flat_map(|row| (0..s.div_ceil(group) * w).map(move |i| (row, i / w, i % w)));
            let means = means.map(|(row, t, i)| {
                let real = t * group..((t + 1) * group).min(lengths[row] as usize);
                let sum: f64 = real.clone().map(|step| f64::from(given[(row * s + step) * w + i])).sum();
                if real.is_empty() { 0.0 } else { sum / real.len() as f64 }
            });
            for (found, mean) in portable[0].iter().zip(means.collect::<Vec<_>>()) {
                assert!((found - mean).abs() < 1e-6, "{b} {s} {w} {group}: {found} is not {mean}");
            }
            for (fast, portable) in fast.iter().zip(&portable) {
                assert_eq!(fast.len(), portable.len());
                for (a, b) in fast.iter().zip(portable) {
                    assert!((a - b).abs() < 1e-5, "{a} is not {b}");
                }
            }
        }
    }
}
