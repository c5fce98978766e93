//! Penalties on what recurrent layers put out (Merity et al. 2017, "Revisiting activation regularization for language RNNs").
//!
//! Both are sums over steps of a mean over a step's numbers. Divided by the number of steps the first is the paper's mean; the second is
//! smaller by the rows' first steps, before which there is none.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::flex::{dense, serves, slice, wrap};
use crate::memory::{Unwritten, unwritten, written};
use crate::update::square_sum_chunk;
use crate::vector::multiversion;

/// `Σ_n ‖x_n‖² / W` of `x` `[N, W]`, as `[1]`: activation regularization (AR). Differentiable.
pub fn activation_penalty(x: Tensor<2>) -> Tensor<1> {
    let [n, w] = x.dims();
    if !serves(&x) {
        return (x.clone() * x).sum() / w as f64;
    }
    penalty(x.reshape([1, n, w]), Penalty::Size)
}

/// `Σ_b Σ_t ‖x_{b,t+1} − x_{b,t}‖² / W` over the real steps of `x` `[B, T, W]`, as `[1]`: temporal activation regularization (TAR).
/// Differentiable. `lengths` `[B]`: real steps of each row.
///
/// # Panics
/// If there are not as many lengths as rows.
pub fn temporal_penalty(x: Tensor<3>, lengths: Arc<[u32]>) -> Tensor<1> {
    let [b, t, w] = x.dims();
    assert_eq!(lengths.len(), b, "a length for each row");
    if serves(&x) {
        return penalty(x, Penalty::Change(lengths));
    }
    if t < 2 {
        return x.sum() * 0.0;
    }
    let real = lengths.iter().flat_map(|&n| (1..t).map(move |t| f32::from(t < n as usize)));
    let real = TensorData::new(real.collect::<Vec<f32>>(), [b, t - 1, 1]);
    let real = Tensor::<3>::from_data(real, &x.device().inner()).cast(x.dtype());
    let change = (x.clone().narrow(1, 1, t - 1) - x.narrow(1, 0, t - 1)) * real;
    (change.clone() * change).sum() / w as f64
}

/// What is penalised.
#[derive(Debug, Clone)]
pub(crate) enum Penalty {
    Size,
    /// Between the real steps of each row.
    Change(Arc<[u32]>),
}

impl Penalty {
    /// The steps of row `b` that are compared with the one before.
    fn compared(&self, b: usize, steps: usize) -> usize {
        match self {
            Penalty::Size => 0,
            Penalty::Change(lengths) => (lengths[b] as usize).min(steps).saturating_sub(1),
        }
    }
}

fn penalty(x: Tensor<3>, of: Penalty) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as PenaltyOps>::penalty(x.into_dispatch(), of))
}

/// The operation on plain slices, as Burn's backends see it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait PenaltyOps: Backend {
    /// `[B, T, W] → [1]`.
    fn penalty(x: FloatTensor<Self>, of: Penalty) -> FloatTensor<Self>;
}

/// A backend that has the operation.
trait Body: PenaltyOps {
    /// → the gradient of `x`, from that of the penalty
    fn backward(gradient: FloatTensor<Self>, x: FloatTensor<Self>, of: &Penalty) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct PenaltyNode;

impl<B: Body> Backward<B, 1> for PenaltyNode {
    type State = (FloatTensor<B>, Penalty);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            let (x, of) = ops.state;
            grads.register::<B>(node.id, B::backward(gradient, x, &of));
        }
    }
}

impl<B: Body, C: CheckpointStrategy> PenaltyOps for Autodiff<B, C> {
    fn penalty(x: FloatTensor<Self>, of: Penalty) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match PenaltyNode.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::penalty(x.clone(), of.clone());
                prep.finish((x, of), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::penalty(x, of)),
        }
    }
}

/// Numbers whose squares one task sums. Sums are grouped by it, so changing it changes bits.
const CHUNK: usize = 1 << 14;

impl PenaltyOps for Flex {
    /// Summed in double precision over parts that do not depend on the number of threads.
    fn penalty(x: FloatTensor<Self>, of: Penalty) -> FloatTensor<Self> {
        let x = dense(x);
        let [_, t, w] = std::array::from_fn(|i| x.shape()[i]);
        let parts: Vec<f64> = match &of {
            Penalty::Size => slice(&x).par_chunks(CHUNK).map(square_sum_chunk).collect(),
            Penalty::Change(_) => {
                let rows = slice(&x).par_chunks(t * w).enumerate();
                rows.map(|(b, row)| {
                    let compared = of.compared(b, t) * w;
                    changes(&row[..compared], &row[w..][..compared])
                })
                .collect()
            }
        };
        wrap(vec![(parts.iter().sum::<f64>() / w as f64) as f32], [1])
    }
}

impl Body for Flex {
    fn backward(gradient: FlexTensor, x: FlexTensor, of: &Penalty) -> FlexTensor {
        let x = dense(x);
        let [b, t, w] = std::array::from_fn(|i| x.shape()[i]);
        let factor = 2.0 * slice(&dense(gradient))[0] / w as f32;
        if let Penalty::Size = of {
            return Flex::float_mul_scalar(x, factor.into());
        }
        let mut dx = unwritten(b * t * w);
        let rows = dx.par_chunks_mut(t * w).zip(slice(&x).par_chunks(t * w)).enumerate();
        rows.for_each(|(b, (dx, row))| {
            let compared = of.compared(b, t);
            for (step, dx) in dx.chunks_mut(w).enumerate() {
                // Beyond the row's ends a step is compared with itself.
                let before = if (1..=compared).contains(&step) { step - 1 } else { step };
                let after = if step < compared { step + 1 } else { step };
                let at = |step: usize| &row[step * w..][..w];
                bend(at(before), at(step), at(after), factor, dx);
            }
        });
        // SAFETY: every step of every row is written.
        wrap(unsafe { written(dx) }, [b, t, w])
    }
}

#[inline(always)]
fn changes_body<const FMA: bool>(before: &[f32], after: &[f32]) -> f64 {
    let mut sums = [0.0_f64; 8];
    let ((before, last_before), (after, last_after)) = (before.as_chunks::<8>(), after.as_chunks::<8>());
    for (x, y) in before.iter().zip(after) {
        for i in 0..8 {
            let change = f64::from(y[i] - x[i]);
            sums[i] += change * change;
        }
    }
    let rest = last_before.iter().zip(last_after).map(|(x, y)| f64::from(y - x).powi(2)).sum::<f64>();
    sums.iter().sum::<f64>() + rest
}
multiversion!(
    /// `Σ (after − before)²`.
    fn changes(before: &[f32], after: &[f32]) -> f64 = changes_body
);

#[inline(always)]
fn bend_body<const FMA: bool>(before: &[f32], x: &[f32], after: &[f32], factor: f32, dx: &mut Unwritten) {
    for (((dx, before), x), after) in dx.iter_mut().zip(before).zip(x).zip(after) {
        dx.write(factor * ((x - before) - (after - x)));
    }
}
multiversion!(
    /// `dx = factor · ((x − before) − (after − x))`.
    fn bend(before: &[f32], x: &[f32], after: &[f32], factor: f32, dx: &mut Unwritten) = bend_body
);

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::random::Key;
    use burn::tensor::{DType, Device};

    fn leaf(dims: [usize; 3]) -> Tensor<3> {
        let n = dims.iter().product::<usize>() as u64;
        let numbers: Vec<f32> = (0..n).map(|i| Key::from_seed(6).normal(i) as f32).collect();
        Tensor::from_data(TensorData::new(numbers, dims), &Device::flex().autodiff()).require_grad()
    }

    fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    /// A penalty three times over, and its gradient, beside the same number by number. In double precision it is made of tensor
    /// operations.
    fn check(x: Tensor<3>, penalty: impl Fn(Tensor<3>) -> Tensor<1>, by_hand: impl Fn(&[f64]) -> f64) {
        let double = numbers(penalty(x.clone().inner().cast(DType::F64)).cast(DType::F32))[0];
        let penalty = penalty(x.clone());
        let gradients = (penalty.clone() * 3.0).sum().backward();
        let (found, gradient) = (numbers(penalty)[0], numbers(x.grad(&gradients).unwrap()));
        let mut x: Vec<f64> = numbers(x).into_iter().map(f64::from).collect();
        assert!((double - found).abs() < 1e-5 * found.max(1.0), "{double} is not {found}");
        assert!((f64::from(found) - by_hand(&x)).abs() < 1e-5 * by_hand(&x).max(1.0), "{found} is not {}", by_hand(&x));
        for (i, gradient) in gradient.into_iter().enumerate().step_by(x.len() / 40 + 1) {
            let (at, step) = (x[i], 1e-4);
            let mut moved = |by: f64| {
                x[i] = at + by;
                by_hand(&x)
            };
            // Of a square this is exact.
            let slope = 3.0 * (moved(step) - moved(-step)) / (2.0 * step);
            x[i] = at;
            assert!(
                (f64::from(gradient) - slope).abs() < 1e-4 * slope.abs().max(1.0),
                "{i}: {gradient} is not {slope}"
            );
        }
    }

    #[test]
    fn penalties_and_gradients_are_those_of_their_definitions() {
        for [b, t, w] in [[1, 1, 1], [3, 5, 4], [7, 23, 131]] {
            let flat = |x: Tensor<3>| activation_penalty(x.reshape([b * t, w]));
            check(leaf([b, t, w]), flat, |x| x.iter().map(|x| x * x).sum::<f64>() / w as f64);

            let lengths: Arc<[u32]> = (0..b).map(|row| ((t + row * 3) % (t + 1)) as u32).collect();
            let of_real = |x: Tensor<3>| temporal_penalty(x, lengths.clone());
            check(leaf([b, t, w]), of_real, |x| {
                let step = |b: usize, t_of: usize| &x[(b * t + t_of) * w..][..w];
                let pairs = (0..b).flat_map(|b| (1..lengths[b] as usize).map(move |t| (b, t)));
                let changes = pairs.map(|(b, t)| {
                    step(b, t).iter().zip(step(b, t - 1)).map(|(x, y)| (x - y).powi(2)).sum::<f64>() / w as f64
                });
                changes.sum()
            });
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let x = leaf([9, 40, 129]);
                let lengths = (0..9).map(|b| b * 5).collect();
                let sum = activation_penalty(x.clone().reshape([360, 129])) + temporal_penalty(x.clone(), lengths);
                let gradients = sum.clone().backward();
                (numbers(sum), numbers(x.grad(&gradients).unwrap()))
            })
        };
        assert_eq!(with(1), with(3));
    }
}
