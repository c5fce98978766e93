//! The gradient of the hyperbolic tangent on a GPU, in one pass.

use burn::backend::Cube;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{UNITS, cubes, dense, into_owned, is_f32};
use crate::tanh::{TanhOps, portable_gradient};

#[cube(launch_unchecked)]
fn gradient_kernel(y: &[f32], d: &mut [f32], count: u32) {
    let at = ABSOLUTE_POS;
    if at < count as usize {
        let y = y[at];
        let dy = d[at];
        d[at] = dy * (1.0f32 - y * y);
    }
}

impl TanhOps for Cube {
    fn tanh_gradient(y: CubeTensor, dy: CubeTensor) -> CubeTensor {
        if !is_f32(&y) {
            return portable_gradient::<Self>(y, dy);
        }
        let (y, d) = (dense(y), into_owned(dense(dy)));
        let count = d.meta.num_elements();
        // SAFETY: a unit has a number of both.
        unsafe {
            gradient_kernel::launch_unchecked(
                &d.client,
                cubes(count),
                CubeDim::new_1d(UNITS as u32),
                y.into_buffer_arg(),
                d.clone().into_buffer_arg(),
                count as u32,
            );
        }
        d
    }
}
