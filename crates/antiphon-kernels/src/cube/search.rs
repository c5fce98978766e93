//! The best tokens of a state on a GPU: of each row's logits only a few come back to the host.

use burn::backend::{Cube, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::product::{Matrix, product};
use super::sums::total;
use super::{UNITS, dense, is_f32, unwritten};
use crate::output::best::{BestOps, portable};

impl BestOps for Cube {
    fn best_of(states: CubeTensor, weight: CubeTensor, bias: CubeTensor, k: usize) -> CubeTensor {
        if !is_f32(&states) {
            return portable::<Self>(states, weight, bias, k);
        }
        let (states, weight, bias) = (dense(states), dense(weight), dense(bias));
        let (dims, v) = (states.shape(), bias.shape()[0]);
        let logits =
            product([dims[0], dims[1], v], Matrix::rows(&states, dims[1]), Matrix::transposed(&weight, dims[1]));
        let best = unwritten(&logits, [dims[0], 2 * k + 1]);
        // SAFETY: the kernel reads a row of logits and the bias, and writes a row of `best`, for each cube.
        unsafe {
            choose::launch_unchecked(
                &logits.client,
                CubeCount::Static(dims[0] as u32, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                logits.clone().into_buffer_arg(),
                bias.into_buffer_arg(),
                best.clone().into_buffer_arg(),
                v as u32,
                k as u32,
            );
        }
        best
    }
}

/// What no token has for an id.
const NOBODY: u32 = u32::MAX;

/// A row a cube: `[V]` logits without `bias` → the logarithm of the sum of their exponentials, the `k` best, and their ids.
///
/// Of equal ones the smaller id comes first. If a logit is no number, the logarithm is none.
#[cube(launch_unchecked)]
fn choose(logits: &[f32], bias: &[f32], best: &mut [f32], vocabulary: u32, k: u32) {
    let (vocabulary, k) = (vocabulary as usize, k as usize);
    let unit = UNIT_POS as usize;
    let row = CUBE_POS_X as usize * vocabulary;
    let out = CUBE_POS_X as usize * (2 * k + 1);
    let mut values = Shared::<[f32]>::new_slice(UNITS);
    let mut ids = Shared::<[u32]>::new_slice(UNITS);

    let mut last = 0.0f32;
    let mut last_id = NOBODY.runtime();
    let mut top = 0.0f32;
    let mut taken = 0usize;
    while taken < k {
        let mut value = 0.0f32;
        let mut id = NOBODY.runtime();
        let mut v = unit;
        while v < vocabulary {
            let x = logits[row + v] + bias[v];
            // Behind the one that was taken last, in the order of logits and ids.
            let is_open = taken == 0 || x < last || (x == last && v as u32 > last_id);
            if is_open && (id == NOBODY || x > value) {
                value = x;
                id = v as u32;
            }
            v += UNITS;
        }
        values[unit] = value;
        ids[unit] = id;
        sync_cube();
        let mut half = comptime!(UNITS / 2).runtime();
        while half > 0 {
            if unit < half {
                let (other, other_id) = (values[unit + half], ids[unit + half]);
                let (own, own_id) = (values[unit], ids[unit]);
                let is_better = own_id == NOBODY || other > own || (other == own && other_id < own_id);
                if other_id != NOBODY && is_better {
                    values[unit] = other;
                    ids[unit] = other_id;
                }
            }
            sync_cube();
            half /= 2;
        }
        last = values[0];
        last_id = ids[0];
        if taken == 0 {
            top = last;
        }
        if unit == 0 {
            best[out + 1 + taken] = last;
            best[out + 1 + k + taken] = f32::cast_from(last_id);
        }
        sync_cube();
        taken += 1;
    }

    let mut sum = 0.0f32;
    let mut v = unit;
    while v < vocabulary {
        sum += (logits[row + v] + bias[v] - top).exp();
        v += UNITS;
    }
    let z = total(sum);
    if unit == 0 {
        best[out] = top + z.ln();
    }
}
