//! The product of a sequence with a weight, through the packed weights that the recurrent layers use: a general product
//! loses half its speed where the inner dimension is small.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::flex::{dense, dummy, serves_kernels, slice, wrap};
use crate::memory::{unwritten, written};
use crate::packed::{Columns, Packed};
use crate::product::{Strides, product_into};
use crate::vector::{multiply_add, multiversion};
use crate::weight::{column_tasks, multiply_rows};

/// `[B, T, I] · [I, O] → [B, T, O]`, differentiable in both.
///
/// # Panics
/// If the two sizes `I` differ.
pub fn linear(x: Tensor<3>, weight: Tensor<2>) -> Tensor<3> {
    let ([b, t, i], [rows, o]) = (x.dims(), weight.dims());
    assert_eq!(i, rows, "a weight for each input");
    if !serves_kernels(&x) {
        return x.reshape([b * t, i]).matmul(weight).reshape([b, t, o]);
    }
    Tensor::from_dispatch(<Dispatch as LinearOps>::linear_of(x.into_dispatch(), weight.into_dispatch()))
}

/// The operation as Burn's backends see it.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub(crate) trait LinearOps: Backend {
    fn linear_of(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// A backend that has the operation.
pub(crate) trait Body: LinearOps {
    /// → the gradients of `x` and of the weight, as far as they are `wanted`; else dummies
    fn backward(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        wanted: [bool; 2],
    ) -> [FloatTensor<Self>; 2];
}

#[derive(Debug)]
struct LinearNode;

impl<B: Body> Backward<B, 2> for LinearNode {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (x, weight) = ops.state;
        let wanted = [ops.parents[0].is_some(), ops.parents[1].is_some()];
        for (parent, gradient) in ops.parents.into_iter().zip(B::backward(gradient, x, weight, wanted)) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Body, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn linear_of(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((x, x_node), (weight, w_node)) = (x.into_parts(), weight.into_parts());
        match LinearNode.prepare::<C>([x_node, w_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::linear_of(x.clone(), weight.clone());
                prep.finish((x, weight), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::linear_of(x, weight)),
        }
    }
}

/// Rows below which packing a weight costs more than it saves.
const FEW: usize = 8;

/// `[rows, O]`: `x [rows, I] · weight`.
///
/// However few rows there are, each has the same bits: a source is encoded alone as beside others. Beyond 512 inputs a general
/// product would sum in another order.
fn multiply(x: &[f32], weight: &[f32], [i, o]: [usize; 2]) -> Vec<f32> {
    if x.len() >= FEW * i {
        return multiply_rows(&Packed::new(weight, Strides::rows(o), [i, o]), x);
    }
    let mut y = unwritten(x.len() / i * o);
    let tasks = column_tasks(x.len() * o).min(o.div_ceil(COLUMNS)).max(1);
    let size = o.div_ceil(tasks).next_multiple_of(COLUMNS);
    let parts = Columns::of(&mut y, o).blocks((0..o).step_by(size).map(|first| size.min(o - first)));
    let parts = parts.into_par_iter().enumerate();
    parts.for_each(|(part, y)| multiply_few(x, &weight[part * size..], [i, o], y));
    // SAFETY: each part writes all of its columns.
    unsafe { written(y) }
}

/// Columns and inputs that a few rows are multiplied with at once: the sums stay in registers, and the weight is read in as many
/// streams as there are inputs.
const COLUMNS: usize = 64;
const INPUTS: usize = 8;

multiversion! {
    /// `y [rows, columns] = x [rows, I] · weight`, the first columns of `[I, O]`, each number summed in the order of the inputs, as
    /// packed products do; all of `y` is written.
    fn multiply_few(x: &[f32], weight: &[f32], dims: [usize; 2], y: Columns<'_>) = multiply_few_body
}
#[inline(always)]
fn multiply_few_body<const FMA: bool>(x: &[f32], weight: &[f32], [i, o]: [usize; 2], mut y: Columns<'_>) {
    for first in (0..i).step_by(INPUTS) {
        let inputs = first..i.min(first + INPUTS);
        for at in (0..y.columns()).step_by(COLUMNS) {
            let width = COLUMNS.min(y.columns() - at);
            for (r, x) in x.chunks_exact(i).enumerate() {
                let y = &mut y.row(r)[at..at + width];
                let mut sums = [0.0_f32; COLUMNS];
                if first > 0 {
                    // SAFETY: the inputs before have written them.
                    sums[..width].copy_from_slice(unsafe { y.assume_init_ref() });
                }
                for (k, &x) in inputs.clone().zip(&x[inputs.clone()]) {
                    let row = &weight[k * o + at..][..width];
                    if let Some(row) = row.as_array::<COLUMNS>() {
                        for j in 0..COLUMNS {
                            sums[j] = multiply_add::<FMA>(x, row[j], sums[j]);
                        }
                    } else {
                        sums.iter_mut().zip(row).for_each(|(sum, &w)| *sum = multiply_add::<FMA>(x, w, *sum));
                    }
                }
                y.write_copy_of_slice(&sums[..width]);
            }
        }
    }
}

/// `[rows, I]`: `gradient [rows, O] · weightᵀ`.
fn multiply_transposed(gradient: &[f32], weight: &[f32], [i, o]: [usize; 2]) -> Vec<f32> {
    let rows = gradient.len() / o;
    if rows >= FEW {
        return multiply_rows(&Packed::new(weight, Strides::transposed(o), [o, i]), gradient);
    }
    let mut dx = unwritten(rows * i);
    let (to, left, right) = (Strides::rows(i), Strides::rows(o), Strides::transposed(o));
    product_into([rows, i, o], &mut dx, to, gradient, left, weight, right);
    // SAFETY: the product writes all of it.
    unsafe { written(dx) }
}

impl LinearOps for Flex {
    fn linear_of(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, weight) = (dense(x), dense(weight));
        let (dims, o) = (x.shape(), weight.shape()[1]);
        let y = multiply(slice(&x), slice(&weight), [dims[2], o]);
        wrap(y, [dims[0], dims[1], o])
    }
}

impl Body for Flex {
    fn backward(gradient: FlexTensor, x: FlexTensor, weight: FlexTensor, wanted: [bool; 2]) -> [FlexTensor; 2] {
        let (gradient, x, weight) = (dense(gradient), dense(x), dense(weight));
        let (dims, o) = (x.shape(), weight.shape()[1]);
        let [b, t, i] = [dims[0], dims[1], dims[2]];
        let dx = wanted[0].then(|| {
            let dx = multiply_transposed(slice(&gradient), slice(&weight), [i, o]);
            wrap(dx, [b, t, i])
        });
        let dw = wanted[1].then(|| {
            let mut dw = unwritten(i * o);
            let (to, left) = (Strides::rows(o), Strides::transposed(i));
            product_into([i, o, b * t], &mut dw, to, slice(&x), left, slice(&gradient), to);
            // SAFETY: the product writes all of it.
            wrap(unsafe { written(dw) }, [i, o])
        });
        [dx.unwrap_or_else(dummy), dw.unwrap_or_else(dummy)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::random::Key;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn values_and_gradients_are_those_of_a_plain_product() {
        let device = Device::flex().autodiff();
        for [b, t, i, o] in [[1, 1, 1, 1], [3, 5, 4, 7], [9, 23, 33, 70]] {
            let leaf = |name: &str, dims: &[usize]| {
                let key = Key::from_seed(8).named(name);
                let n: usize = dims.iter().product();
                TensorData::new((0..n as u64).map(|i| key.normal(i) as f32).collect::<Vec<_>>(), dims.to_vec())
            };
            let run = |ours: bool| {
                let x = Tensor::<3>::from_data(leaf("x", &[b, t, i]), &device).require_grad();
                let weight = Tensor::<2>::from_data(leaf("w", &[i, o]), &device).require_grad();
                let y = match ours {
                    true => linear(x.clone(), weight.clone()),
                    false => x.clone().reshape([b * t, i]).matmul(weight.clone()).reshape([b, t, o]),
                };
                let given = Tensor::<3>::from_data(leaf("d", &[b, t, o]), &device.clone().inner());
                let grads = (y.clone() * given).sum().backward();
                let parts =
                    [y.into_data(), x.grad(&grads).unwrap().into_data(), weight.grad(&grads).unwrap().into_data()];
                parts.map(|part| part.try_to_vec::<f32>().unwrap())
            };
            for (ours, theirs) in run(true).into_iter().zip(run(false)) {
                assert_eq!(ours.len(), theirs.len());
                assert!(
                    ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-4 * b.abs().max(1.0)),
                    "{b} {t} {i} {o}"
                );
            }
        }
    }
}
