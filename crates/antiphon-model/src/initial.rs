//! Initial parameters: a pure function of a key, so that a seed gives the same model everywhere.

use antiphon_core::random::Key;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a weight of a recurrent layer starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Initial {
    /// Uniform in ±√(6 / (rows + columns)) of the whole matrix, all gates together (Glorot and Bengio 2010).
    GlorotUniform,
    /// Orthonormal rows over the whole matrix, all gates together (Saxe et al. 2014).
    Orthogonal,
    /// Uniform in ±1/√H with `H` the layer's width.
    Uniform,
}

impl Initial {
    /// `[rows, columns]` numbers; `hidden` is the width that `uniform` goes by.
    fn values(self, [rows, columns]: [usize; 2], hidden: usize, key: Key) -> Vec<f32> {
        match self {
            Initial::GlorotUniform => uniform(rows * columns, (6.0 / (rows + columns) as f64).sqrt(), key),
            Initial::Uniform => uniform(rows * columns, (hidden as f64).sqrt().recip(), key),
            Initial::Orthogonal => orthogonal(rows, columns, key),
        }
    }

    /// A trainable `[rows, columns]` weight.
    pub(crate) fn weight(self, dims: [usize; 2], hidden: usize, key: Key, device: &Device) -> Param<Tensor<2>> {
        undrawn(dims, device, move || self.values(dims, hidden, key))
    }
}

/// A trainable tensor.
pub(crate) fn parameter<const D: usize>(values: Vec<f32>, dims: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_data(TensorData::new(values, dims), device))
}

/// A trainable matrix whose values are drawn on first use, since a model that is loaded has no use for them:
/// orthogonalising takes seconds at a width of 1024.
fn undrawn(
    dims: [usize; 2],
    device: &Device,
    values: impl FnOnce() -> Vec<f32> + Send + Sync + 'static,
) -> Param<Tensor<2>> {
    let draw = move |device: &Device, trainable: bool| {
        Tensor::from_data(TensorData::new(values(), dims), device).set_require_grad(trainable)
    };
    Param::uninitialized(ParamId::new(), draw, device.clone(), true, dims.into())
}

/// Draws what is not drawn yet. One parameter after the other, and not on first use: drawing shares the work among threads, and
/// a search has all of them ask for the same parameter at once.
pub(crate) fn draw<M: Module>(model: &M) {
    struct Draw;
    impl ModuleVisitor for Draw {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            drop(param.val());
        }
    }
    model.visit(&mut Draw);
}

/// A trainable vector of zeros.
pub(crate) fn zeros(width: usize, device: &Device) -> Param<Tensor<1>> {
    parameter(vec![0.0; width], [width], device)
}

/// An embedding table `[size, width]`: normal with a deviation, 1/√width if none is given.
pub(crate) fn table(dims: [usize; 2], deviation: Option<f64>, key: Key, device: &Device) -> Param<Tensor<2>> {
    normal(dims, deviation.unwrap_or_else(|| (dims[1] as f64).sqrt().recip()), key, device)
}

/// A trainable `[rows, columns]` weight of normal numbers of a deviation.
pub(crate) fn normal(dims: [usize; 2], deviation: f64, key: Key, device: &Device) -> Param<Tensor<2>> {
    let [rows, columns] = dims;
    let value = move |i| (key.normal(i) * deviation) as f32;
    undrawn(dims, device, move || (0..(rows * columns) as u64).into_par_iter().map(value).collect())
}

fn uniform(n: usize, bound: f64, key: Key) -> Vec<f32> {
    (0..n as u64).map(|i| ((2.0 * key.uniform(i) - 1.0) * bound) as f32).collect()
}

/// Orthonormal rows (columns, if there are more rows): a Gaussian matrix, orthogonalised by Gram and Schmidt in `f64`.
fn orthogonal(rows: usize, columns: usize, key: Key) -> Vec<f32> {
    let (n, width) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> =
        (0..n).into_par_iter().map(|i| (0..width).map(|j| key.normal((i * width + j) as u64)).collect()).collect();
    for i in 0..n {
        let (done, rest) = basis.split_at_mut(i + 1);
        let pivot = &mut done[i];
        let norm = dot(pivot, pivot).sqrt();
        pivot.iter_mut().for_each(|v| *v /= norm);
        rest.par_iter_mut().for_each(|row| {
            let along = dot(row, pivot);
            row.iter_mut().zip(pivot.iter()).for_each(|(v, p)| *v -= along * p);
        });
    }
    let at = |i: usize, j: usize| if rows <= columns { basis[i][j] } else { basis[j][i] };
    (0..rows * columns).map(|k| at(k / columns, k % columns) as f32).collect()
}

/// In eight running sums, which the compiler can keep in one register.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for j in 0..8 {
            sums[j] += x[j] * y[j];
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orthogonal_weights_are_orthonormal_both_ways() {
        for (rows, columns) in [(12, 48), (20, 7)] {
            let w = orthogonal(rows, columns, Key::from_seed(1));
            let (n, width) = (rows.min(columns), rows.max(columns));
            let at =
                |i: usize, k: usize| f64::from(if rows <= columns { w[i * columns + k] } else { w[k * columns + i] });
            for i in 0..n {
                for j in 0..n {
                    let product: f64 = (0..width).map(|k| at(i, k) * at(j, k)).sum();
                    assert!((product - f64::from(u8::from(i == j))).abs() < 1e-5, "{i} {j} {product}");
                }
            }
        }
    }

    #[test]
    fn uniform_weights_stay_within_their_bounds_and_fill_them() {
        let values = Initial::GlorotUniform.values([30, 120], 30, Key::from_seed(2));
        let (bound, top) = ((6.0_f32 / 150.0).sqrt(), values.iter().fold(0.0_f32, |m, v| m.max(v.abs())));
        assert!(top <= bound && top > 0.98 * bound);
        let values = Initial::Uniform.values([30, 120], 25, Key::from_seed(2));
        assert!(values.iter().all(|v| v.abs() <= 0.2));
    }
}
