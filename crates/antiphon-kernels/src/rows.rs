//! Rows of a table, and columns side by side: what only moves numbers, on all threads.

use std::mem::MaybeUninit;
use std::sync::Arc;

use antiphon_core::TokenId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, Slice, TensorMetadata, backend_extension};
use burn::tensor::{Int, Tensor, TensorData};
use rayon::prelude::*;

use crate::flex::{dense, serves_kernels, slice, wrap};
use crate::memory::{LINE, unwritten, written};
use crate::packed::Columns;

/// Rows of a table by their numbers, which may repeat: `[R, W] → [N, W]`, differentiable.
///
/// # Panics
/// If a number lies beyond the table.
pub fn select_rows(table: Tensor<2>, numbers: &[TokenId]) -> Tensor<2> {
    let device = table.device();
    if numbers.is_empty() || !serves_kernels(&table) {
        let ids: Vec<i32> = numbers.iter().map(|&number| number as i32).collect();
        let ids = TensorData::new(ids, [numbers.len()]);
        return table.select(0, Tensor::<1, Int>::from_data(ids, &device.inner()));
    }
    let count = table.dims()[0];
    assert!(numbers.iter().all(|&number| (number as usize) < count), "rows lie below {count}");
    Tensor::from_dispatch(<Dispatch as RowsOps>::rows_of(table.into_dispatch(), numbers.into()))
}

/// The first rows of a table: `[R, W] → [count, W]`, differentiable.
///
/// # Panics
/// If there are not so many.
pub fn first_rows(table: Tensor<2>, count: usize) -> Tensor<2> {
    if !serves_kernels(&table) {
        return table.narrow(0, 0, count);
    }
    assert!(count <= table.dims()[0], "{count} of {} rows", table.dims()[0]);
    Tensor::from_dispatch(<Dispatch as RowsOps>::first_rows_of(table.into_dispatch(), count))
}

/// Two sequences side by side: `[B, T, V]`, `[B, T, W] → [B, T, V + W]`, differentiable.
///
/// # Panics
/// If they are not equally long.
pub fn concat(left: Tensor<3>, right: Tensor<3>) -> Tensor<3> {
    if !serves_kernels(&left) || !serves_kernels(&right) {
        return Tensor::cat(vec![left, right], 2);
    }
    assert_eq!(left.dims()[..2], right.dims()[..2], "rows and steps");
    Tensor::from_dispatch(<Dispatch as RowsOps>::concat_of(left.into_dispatch(), right.into_dispatch()))
}

/// The operations as Burn's backends see them.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub(crate) trait RowsOps: Backend {
    fn rows_of(table: FloatTensor<Self>, numbers: Arc<[TokenId]>) -> FloatTensor<Self>;

    fn first_rows_of(table: FloatTensor<Self>, count: usize) -> FloatTensor<Self>;

    fn concat_of(left: FloatTensor<Self>, right: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// A backend that has the operations.
pub(crate) trait Body: RowsOps {
    /// → the gradient of a table of `count` rows
    fn rows_backward(gradient: FloatTensor<Self>, numbers: &[TokenId], count: usize) -> FloatTensor<Self>;

    /// → the gradient of a table of `count` rows, given that of its first ones; zero below them
    fn first_rows_backward(gradient: FloatTensor<Self>, count: usize) -> FloatTensor<Self>;

    /// → the gradients of both sides, the left one of which is so wide
    fn concat_backward(gradient: FloatTensor<Self>, width: usize) -> [FloatTensor<Self>; 2];
}

#[derive(Debug)]
struct RowsNode;

impl<B: Body> Backward<B, 1> for RowsNode {
    type State = (Arc<[TokenId]>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::rows_backward(gradient, &ops.state.0, ops.state.1));
        }
    }
}

#[derive(Debug)]
struct FirstRowsNode;

impl<B: Body> Backward<B, 1> for FirstRowsNode {
    type State = usize;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::first_rows_backward(gradient, ops.state));
        }
    }
}

#[derive(Debug)]
struct ConcatNode;

impl<B: Body> Backward<B, 2> for ConcatNode {
    type State = usize;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        for (parent, gradient) in ops.parents.into_iter().zip(B::concat_backward(gradient, ops.state)) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Body, C: CheckpointStrategy> RowsOps for Autodiff<B, C> {
    fn rows_of(table: FloatTensor<Self>, numbers: Arc<[TokenId]>) -> FloatTensor<Self> {
        let (table, node) = table.into_parts();
        let count = table.shape()[0];
        match RowsNode.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((numbers.clone(), count), B::rows_of(table, numbers)),
            OpsKind::UnTracked(prep) => prep.finish(B::rows_of(table, numbers)),
        }
    }

    fn first_rows_of(table: FloatTensor<Self>, count: usize) -> FloatTensor<Self> {
        let (table, node) = table.into_parts();
        let all = table.shape()[0];
        match FirstRowsNode.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(all, B::first_rows_of(table, count)),
            OpsKind::UnTracked(prep) => prep.finish(B::first_rows_of(table, count)),
        }
    }

    fn concat_of(left: FloatTensor<Self>, right: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((left, left_node), (right, right_node)) = (left.into_parts(), right.into_parts());
        let width = left.shape()[2];
        match ConcatNode.prepare::<C>([left_node, right_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(width, B::concat_of(left, right)),
            OpsKind::UnTracked(prep) => prep.finish(B::concat_of(left, right)),
        }
    }
}

/// Numbers that a task moves.
const TASK: usize = 1 << 14;

/// Fills a buffer of rows of `width` numbers, some rows a task.
fn fill(width: usize, buffer: &mut [MaybeUninit<f32>], row: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync) {
    let share = (TASK / width.max(1)).max(1);
    buffer.par_chunks_mut((share * width).max(1)).enumerate().for_each(|(task, rows)| {
        rows.chunks_exact_mut(width.max(1)).enumerate().for_each(|(i, to)| row(task * share + i, to));
    });
}

impl RowsOps for Flex {
    fn rows_of(table: FlexTensor, numbers: Arc<[TokenId]>) -> FlexTensor {
        let table = dense(table);
        let width = table.shape()[1];
        let (all, mut rows) = (slice(&table), unwritten(numbers.len() * width));
        fill(width, &mut rows, |i, row| _ = row.write_copy_of_slice(&all[numbers[i] as usize * width..][..width]));
        // SAFETY: each row is written.
        wrap(unsafe { written(rows) }, [numbers.len(), width])
    }

    fn first_rows_of(table: FlexTensor, count: usize) -> FlexTensor {
        let width = table.shape()[1];
        // A view: nothing is copied.
        Self::float_slice(table, &[Slice::from(0..count), Slice::from(0..width)])
    }

    fn concat_of(left: FlexTensor, right: FlexTensor) -> FlexTensor {
        let (left, right) = (dense(left), dense(right));
        let ([b, t, v], w) = (std::array::from_fn(|i| left.shape()[i]), right.shape()[2]);
        let (left, right, mut both) = (slice(&left), slice(&right), unwritten(b * t * (v + w)));
        fill(v + w, &mut both, |i, row| {
            row[..v].write_copy_of_slice(&left[i * v..][..v]);
            row[v..].write_copy_of_slice(&right[i * w..][..w]);
        });
        // SAFETY: each row is written.
        wrap(unsafe { written(both) }, [b, t, v + w])
    }
}

impl Body for Flex {
    fn rows_backward(gradient: FlexTensor, numbers: &[TokenId], count: usize) -> FlexTensor {
        let gradient = dense(gradient);
        let width = gradient.shape()[1];
        let mut sums = unwritten(count * width);
        // Each task has some columns of the table: as much for everyone, however often a row is asked for.
        let share = width.div_ceil(rayon::current_num_threads()).next_multiple_of(LINE);
        let columns = (0..width).step_by(share.max(1)).map(|first| share.min(width - first));
        let columns = Columns::of(&mut sums, width).blocks(columns).into_par_iter().enumerate();
        columns.for_each(|(task, mut columns)| {
            (0..count).for_each(|row| columns.row(row).fill(MaybeUninit::new(0.0)));
            for (&number, row) in numbers.iter().zip(slice(&gradient).chunks_exact(width)) {
                // SAFETY: all were filled.
                let sums = unsafe { columns.row(number as usize).assume_init_mut() };
                sums.iter_mut().zip(&row[task * share..]).for_each(|(sum, x)| *sum += x);
            }
        });
        // SAFETY: all are filled.
        wrap(unsafe { written(sums) }, [count, width])
    }

    fn first_rows_backward(gradient: FlexTensor, count: usize) -> FlexTensor {
        let gradient = dense(gradient);
        let (own, width) = (gradient.shape()[0], gradient.shape()[1]);
        let (gradient, mut all) = (slice(&gradient), unwritten(count * width));
        fill(width, &mut all, |i, row| {
            if i < own {
                row.write_copy_of_slice(&gradient[i * width..][..width]);
            } else {
                row.fill(MaybeUninit::new(0.0));
            }
        });
        // SAFETY: each row is written.
        wrap(unsafe { written(all) }, [count, width])
    }

    fn concat_backward(gradient: FlexTensor, v: usize) -> [FlexTensor; 2] {
        let gradient = dense(gradient);
        let [b, t, both] = std::array::from_fn(|i| gradient.shape()[i]);
        let gradient = slice(&gradient);
        let side = |first: usize, width: usize| {
            let mut side = unwritten(b * t * width);
            fill(width, &mut side, |i, row| _ = row.write_copy_of_slice(&gradient[i * both + first..][..width]));
            // SAFETY: each row is written.
            wrap(unsafe { written(side) }, [b, t, width])
        };
        [side(0, v), side(v, both - v)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::random::Key;
    use burn::tensor::Device;

    fn leaf<const D: usize>(name: &str, dims: [usize; D]) -> Tensor<D> {
        let key = Key::from_seed(6).named(name);
        let n: usize = dims.iter().product();
        let numbers: Vec<f32> = (0..n as u64).map(|i| key.normal(i) as f32).collect();
        Tensor::from_data(TensorData::new(numbers, dims), &Device::flex().autodiff()).require_grad()
    }

    fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    /// Values, and the gradient of each of some leaves, of an operation weighted by fixed numbers.
    fn judge<const D: usize, const E: usize>(leaves: &[Tensor<D>], result: Tensor<E>) -> Vec<Vec<f32>> {
        let weights = leaf("weights", result.dims()).inner();
        let grads = (result.clone() * Tensor::from_inner(weights)).sum().backward();
        let of_leaves = leaves.iter().map(|leaf| numbers(leaf.grad(&grads).unwrap()));
        std::iter::once(numbers(result)).chain(of_leaves).collect()
    }

    #[test]
    fn values_and_gradients_are_those_of_burns_own_operations() {
        for (count, width) in [(1, 1), (7, 5), (900, 33)] {
            let table = leaf("table", [count, width]);
            let picked: Vec<TokenId> = (0..3 * count).map(|i| (i * i % count) as TokenId).collect();
            let ids: Vec<i32> = picked.iter().map(|&id| id as i32).collect();
            let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [3 * count]), &Device::flex());
            let ours = judge(std::slice::from_ref(&table), select_rows(table.clone(), &picked));
            assert_eq!(
                ours,
                judge(std::slice::from_ref(&table), table.clone().select(0, ids)),
                "rows of {count} × {width}"
            );
            for first in [1, count / 2 + 1, count] {
                let ours = judge(std::slice::from_ref(&table), first_rows(table.clone(), first));
                assert_eq!(
                    ours,
                    judge(std::slice::from_ref(&table), table.clone().narrow(0, 0, first)),
                    "{first} of {count} rows"
                );
            }
            for other in [1, 16, width] {
                let sides = [leaf("left", [count, 3, width]), leaf("right", [count, 3, other])];
                let [left, right] = sides.clone();
                let ours = judge(&sides, concat(left.clone(), right.clone()));
                assert_eq!(ours, judge(&sides, Tensor::cat(vec![left, right], 2)), "{width} beside {other}");
            }
        }
    }
}
