//! A sequence times a weight on a GPU.

use burn::backend::{Cube, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;

use super::product::{Matrix, product};
use super::{dense, dummy};
use crate::linear::{Body, LinearOps};

/// `[B, T, _]` of `[B·T, _]`.
fn sequence(rows: CubeTensor, [b, t, n]: [usize; 3]) -> CubeTensor {
    CubeTensor::new_contiguous(rows.client, rows.device, [b, t, n].into(), rows.handle, rows.dtype)
}

impl LinearOps for Cube {
    fn linear_of(x: CubeTensor, weight: CubeTensor) -> CubeTensor {
        let (x, weight) = (dense(x), dense(weight));
        let (dims, o) = (x.shape(), weight.shape()[1]);
        let [b, t, i] = [dims[0], dims[1], dims[2]];
        let y = product([b * t, i, o], Matrix::rows(&x, i), Matrix::rows(&weight, o));
        sequence(y, [b, t, o])
    }
}

impl Body for Cube {
    fn backward(gradient: CubeTensor, x: CubeTensor, weight: CubeTensor, wanted: [bool; 2]) -> [CubeTensor; 2] {
        let (gradient, x, weight) = (dense(gradient), dense(x), dense(weight));
        let (dims, o) = (x.shape(), weight.shape()[1]);
        let [b, t, i] = [dims[0], dims[1], dims[2]];
        let dx = wanted[0].then(|| {
            let dx = product([b * t, o, i], Matrix::rows(&gradient, o), Matrix::transposed(&weight, o));
            sequence(dx, [b, t, i])
        });
        let dw = wanted[1].then(|| product([i, b * t, o], Matrix::transposed(&x, i), Matrix::rows(&gradient, o)));
        [dx.unwrap_or_else(|| dummy(&gradient)), dw.unwrap_or_else(|| dummy(&gradient))]
    }
}
