//! The hyperbolic tangent, vectorised: a tensor library's is one call into the C library for each number.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension, ops::FloatTensorOps};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::flex::{dense, into_owned, is_f32, slice, slice_mut};
use crate::vector::{multiversion, tanh as tanh_of};

/// Numbers a task takes.
const CHUNK: usize = 1 << 14;

/// `tanh x` of every element, differentiable.
pub fn tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as TanhOps>::tanh_of(x.into_dispatch()))
}

/// The operation as Burn's backends see it.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub(crate) trait TanhOps: Backend {
    fn tanh_of(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_tanh(x)
    }

    /// `dy · (1 − y²)`.
    fn tanh_gradient(y: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        portable_gradient::<Self>(y, dy)
    }
}

pub(crate) fn portable_gradient<B: Backend>(y: FloatTensor<B>, dy: FloatTensor<B>) -> FloatTensor<B> {
    let square = B::float_mul(y.clone(), y);
    B::float_sub(dy.clone(), B::float_mul(dy, square))
}

#[derive(Debug)]
struct TanhNode;

impl<B: TanhOps> Backward<B, 1> for TanhNode {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::tanh_gradient(ops.state, dy));
        }
    }
}

impl<B: TanhOps, C: CheckpointStrategy> TanhOps for Autodiff<B, C> {
    fn tanh_of(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match TanhNode.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::tanh_of(x);
                prep.finish(y.clone(), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::tanh_of(x)),
        }
    }
}

#[inline(always)]
fn forward_body<const FMA: bool>(x: &mut [f32]) {
    for x in x {
        *x = tanh_of::<FMA>(*x);
    }
}
multiversion!(fn forward(x: &mut [f32]) = forward_body);

#[inline(always)]
fn backward_body<const FMA: bool>(y: &[f32], dy: &mut [f32]) {
    for (dy, y) in dy.iter_mut().zip(y) {
        *dy *= 1.0 - y * y;
    }
}
multiversion!(fn backward(y: &[f32], dy: &mut [f32]) = backward_body);

impl TanhOps for Flex {
    fn tanh_of(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !is_f32(&x) {
            return Self::float_tanh(x);
        }
        let mut y = into_owned(dense(x));
        slice_mut(&mut y).par_chunks_mut(CHUNK).for_each(forward);
        y
    }

    fn tanh_gradient(y: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        if !is_f32(&y) {
            return portable_gradient::<Self>(y, dy);
        }
        let (y, mut dx) = (dense(y), into_owned(dense(dy)));
        slice_mut(&mut dx).par_chunks_mut(CHUNK).zip(slice(&y).par_chunks(CHUNK)).for_each(|(dx, y)| backward(y, dx));
        dx
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn values_and_gradients_are_those_of_the_portable_body() {
        let n = 40_001;
        let x = TensorData::new((0..n).map(|i| (i as f32 - 20_000.0) * 2e-4).collect::<Vec<_>>(), [n]);
        let leaf = || Tensor::<1>::from_data(x.clone(), &Device::flex().autodiff()).require_grad();
        let (ours, theirs) = (leaf(), leaf());
        let (y, z) = (tanh(ours.clone()), theirs.clone().tanh());
        let gradient = |x: Tensor<1>, y: Tensor<1>| x.grad(&(y.clone() * y).sum().backward()).unwrap();
        let pairs = [(y.clone().inner(), z.clone().inner()), (gradient(ours, y), gradient(theirs, z))];
        for (a, b) in pairs {
            assert!((a - b).abs().max().into_scalar::<f32>() < 1e-6);
        }
    }
}
