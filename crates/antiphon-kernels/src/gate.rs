//! The gated linear unit (Dauphin et al. 2017): half of what a layer makes, each number times the logistic function of one of the
//! other half.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid as sigmoid_of;
use rayon::prelude::*;

use crate::flex::{dense, into_owned, serves, slice, slice_mut, wrap};
use crate::memory::{Unwritten, unwritten, written};
use crate::vector::{multiversion, sigmoid};

/// `a ⊙ σ(b)` of `[a, b]`, each `[B, T, W]`: `[B, T, 2W] → [B, T, W]`, differentiable.
///
/// # Panics
/// If the halves are not equally wide.
pub fn gated_linear_unit(x: Tensor<3>) -> Tensor<3> {
    let width = x.dims()[2];
    assert!(width.is_multiple_of(2), "two halves of {width} numbers");
    if !serves(&x) {
        return x.clone().narrow(2, 0, width / 2) * sigmoid_of(x.narrow(2, width / 2, width / 2));
    }
    Tensor::from_dispatch(<Dispatch as GateOps>::gated(x.into_dispatch()))
}

/// The operation on plain slices, as Burn's backends see it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait GateOps: Backend {
    /// `[B, T, 2W] → [B, T, W]`.
    fn gated(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// A backend that has the operation.
trait Body: GateOps {
    /// → the gradient of `x`
    fn backward(gradient: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct GateNode;

impl<B: Body> Backward<B, 1> for GateNode {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::backward(gradient, ops.state));
        }
    }
}

impl<B: Body, C: CheckpointStrategy> GateOps for Autodiff<B, C> {
    fn gated(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match GateNode.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(x.clone(), B::gated(x)),
            OpsKind::UnTracked(prep) => prep.finish(B::gated(x)),
        }
    }
}

/// Numbers a task takes.
const TASK: usize = 1 << 14;

impl GateOps for Flex {
    fn gated(x: FlexTensor) -> FlexTensor {
        let x = dense(x);
        let [b, t, both] = std::array::from_fn(|i| x.shape()[i]);
        let (width, rows) = (both / 2, (TASK / both.max(1)).max(1));
        let mut y = unwritten(b * t * width);
        let tasks = y.par_chunks_mut((rows * width).max(1)).zip(slice(&x).par_chunks((rows * both).max(1)));
        tasks.for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(both)) {
                let (a, b) = x.split_at(width);
                forward(a, b, y);
            }
        });
        // SAFETY: every row is written.
        wrap(unsafe { written(y) }, [b, t, width])
    }
}

impl Body for Flex {
    fn backward(gradient: FlexTensor, x: FlexTensor) -> FlexTensor {
        let gradient = dense(gradient);
        let width = gradient.shape()[2];
        // The layer's output is seldom read by anybody else: its gradient takes its place.
        let mut x = into_owned(dense(x));
        let rows = (TASK / (2 * width).max(1)).max(1);
        let tasks = slice_mut(&mut x).par_chunks_mut((rows * 2 * width).max(1));
        tasks.zip(slice(&gradient).par_chunks((rows * width).max(1))).for_each(|(x, gradient)| {
            for (x, gradient) in x.chunks_exact_mut(2 * width).zip(gradient.chunks_exact(width)) {
                let (a, b) = x.split_at_mut(width);
                backward(gradient, a, b);
            }
        });
        x
    }
}

#[inline(always)]
fn forward_body<const FMA: bool>(a: &[f32], b: &[f32], y: &mut Unwritten) {
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        y.write(a * sigmoid::<FMA>(*b));
    }
}
multiversion!(fn forward(a: &[f32], b: &[f32], y: &mut Unwritten) = forward_body);

#[inline(always)]
fn backward_body<const FMA: bool>(gradient: &[f32], a: &mut [f32], b: &mut [f32]) {
    for ((gradient, a), b) in gradient.iter().zip(a).zip(b) {
        let gate = sigmoid::<FMA>(*b);
        let through = gradient * gate;
        *b = through * *a * (1.0 - gate);
        *a = through;
    }
}
multiversion!(
    /// `a`, `b` become their gradients.
    fn backward(gradient: &[f32], a: &mut [f32], b: &mut [f32]) = backward_body
);

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::random::Key;
    use burn::tensor::{DType, Device, TensorData};

    #[test]
    fn values_and_gradients_are_those_of_tensor_operations() {
        for [b, t, w] in [[1, 1, 1], [3, 5, 7], [40, 9, 130]] {
            let n = 2 * b * t * w;
            let given: Vec<f32> = (0..n as u64).map(|i| 3.0 * Key::from_seed(4).normal(i) as f32).collect();
            let run = |dtype: DType| {
                let x = TensorData::new(given.clone(), [b, t, 2 * w]);
                let x = Tensor::<3>::from_data(x, (&Device::flex().autodiff(), dtype)).require_grad();
                let y = gated_linear_unit(x.clone());
                let grads = (y.clone() * y.clone()).sum().backward();
                // Read once more: the gradient must not take the place of what others read.
                let again = x.clone().inner();
                [y.inner(), x.grad(&grads).unwrap(), again]
                    .map(|t| t.into_data().convert_dtype(DType::F64).try_to_vec::<f64>().unwrap())
            };
            for (part, (fast, portable)) in run(DType::F32).into_iter().zip(run(DType::F64)).enumerate() {
                assert_eq!(fast.len(), portable.len());
                let scale = portable.iter().fold(1.0_f64, |most, v| most.max(v.abs()));
                for (a, b) in fast.iter().zip(&portable) {
                    assert!((a - b).abs() < 1e-5 * scale, "part {part}: {a} is not {b}");
                }
            }
        }
    }
}
