//! A weight that many products share.

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::flex::serves;
use crate::linear::linear;
use crate::memory::{unwritten, written};
use crate::packed::{Columns, Packed, TILE};
use crate::product::Strides;

/// A weight `[I, O]` that a search multiplies at every step: packed once, where the packed product serves.
#[derive(Debug)]
pub struct PackedWeight {
    tensor: Tensor<2>,
    packed: Option<Packed>,
}

impl PackedWeight {
    /// From `[I, O]`, off the graph.
    pub fn new(tensor: Tensor<2>) -> Self {
        let [i, o] = tensor.dims();
        Self::packed(tensor.clone(), tensor, Strides::rows(o), [i, o])
    }

    /// From the transpose, `[O, I]`, off the graph.
    pub fn transposed(tensor: Tensor<2>) -> Self {
        let [o, i] = tensor.dims();
        Self::packed(tensor.clone().transpose(), tensor, Strides::transposed(i), [i, o])
    }

    fn packed(tensor: Tensor<2>, stored: Tensor<2>, strides: Strides, dims: [usize; 2]) -> Self {
        let packed = serves(&stored).then(|| Packed::new(&host(stored), strides, dims));
        Self { tensor, packed }
    }

    /// `[I, O]`.
    pub fn tensor(&self) -> Tensor<2> {
        self.tensor.clone()
    }

    /// The packed weight, where it serves.
    pub(crate) fn as_packed(&self) -> Option<&Packed> {
        self.packed.as_ref()
    }

    /// `[B, I] → [B, O]`.
    pub fn multiply(&self, x: Tensor<2>) -> Tensor<2> {
        let Some(packed) = &self.packed else {
            return linear(x.unsqueeze_dim(0), self.tensor()).squeeze_dim(0);
        };
        let (rows, device) = (x.dims()[0], x.device());
        let y = multiply_rows(packed, &host(x));
        Tensor::from_data(TensorData::new(y, [rows, self.tensor.dims()[1]]), &device)
    }
}

/// The numbers of a tensor, row after row; not copied where it is the only one that holds them.
pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("float numbers convert to f32")
}

/// `x [rows, k] · packed`, on all threads: they share out the rows, or, if these are few, the columns.
pub(crate) fn multiply_rows(packed: &Packed, x: &[f32]) -> Vec<f32> {
    let [k, n] = packed.dims();
    let rows = x.len() / k;
    let mut y = unwritten(rows * n);
    if is_few(rows) {
        let blocks: Vec<_> = packed.shares(column_tasks(rows * k * n)).map(|(_, panels)| panels).collect();
        let columns = Columns::of(&mut y, n).blocks(blocks.iter().map(|panels| panels.columns()));
        blocks.into_par_iter().zip(columns).for_each(|(panels, y)| panels.multiply_into(x, y));
    } else {
        let share = share(rows);
        let tasks = y.par_chunks_mut(share * n).zip(x.par_chunks(share * k));
        tasks.for_each(|(y, x)| packed.whole().multiply_into(x, Columns::of(y, n)));
    }
    // SAFETY: the products of all tasks write all of it.
    unsafe { written(y) }
}

/// Whether so few rows stand against a weight that threads share out its columns: each part of it is then read once, and the
/// parts are of a size.
pub(crate) fn is_few(rows: usize) -> bool {
    rows < 16 * rayon::current_num_threads()
}

/// How many tasks share out the columns of a product of so many multiplications.
pub(crate) fn column_tasks(multiplications: usize) -> usize {
    /// What is worth another task: a few microseconds.
    const WORTH: usize = 1 << 16;
    rayon::current_num_threads().min(multiplications / WORTH).max(1)
}

/// Rows a task: equal shares, of whole tiles where these are as large as they can be, and as many rows as make a weight worth reading
/// once more.
pub(crate) fn share(rows: usize) -> usize {
    const ENOUGH: usize = 160;
    let threads = rayon::current_num_threads();
    let tasks = threads * rows.div_ceil(threads * ENOUGH).max(1);
    rows.div_ceil(tasks).next_multiple_of(TILE).max(TILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn a_weight_multiplies_as_the_tensor_that_it_was_made_of() {
        for [b, i, o] in [[1, 1, 1], [5, 7, 3], [70, 33, 50]] {
            let draw = |dims: [usize; 2]| Tensor::<2>::random(dims, Distribution::Default, &Device::flex());
            let (x, weight) = (draw([b, i]), draw([i, o]));
            let expected = x.clone().matmul(weight.clone());
            let stored = Tensor::from_data(weight.clone().transpose().into_data(), &Device::flex());
            for ours in [PackedWeight::new(weight.clone()), PackedWeight::transposed(stored)] {
                let error = (ours.multiply(x.clone()) - expected.clone()).abs().max().into_scalar::<f32>();
                assert!(error < 1e-4, "{b} {i} {o}: {error}");
            }
        }
    }
}
