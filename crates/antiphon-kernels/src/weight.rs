//! A weight that many products share.

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::flex::serves;
use crate::memory::{unwritten, written};
use crate::packed::Packed;
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
        let Some(packed) = &self.packed else { return x.matmul(self.tensor()) };
        let (rows, device) = (x.dims()[0], x.device());
        let y = multiply_rows(packed, &host(x));
        Tensor::from_data(TensorData::new(y, [rows, self.tensor.dims()[1]]), &device)
    }
}

/// The numbers of a tensor, row after row; not copied where it is the only one that holds them.
pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("float numbers convert to f32")
}

/// `x [rows, k] · packed`, on all threads.
pub(crate) fn multiply_rows(packed: &Packed, x: &[f32]) -> Vec<f32> {
    let [k, n] = packed.dims();
    let rows = x.len() / k;
    let mut y = unwritten(rows * n);
    let share = share(rows);
    y.par_chunks_mut(share * n).zip(x.par_chunks(share * k)).for_each(|(y, x)| packed.multiply_into(x, y));
    // SAFETY: the products of all shares write all of it.
    unsafe { written(y) }
}

/// Rows a task: equal shares of whole tiles, and as many rows as make a weight worth reading once more.
pub(crate) fn share(rows: usize) -> usize {
    const ENOUGH: usize = 160;
    let threads = rayon::current_num_threads();
    let tasks = threads * rows.div_ceil(threads * ENOUGH).max(1);
    rows.div_ceil(tasks).next_multiple_of(8).max(8)
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
