//! Dropout on a GPU: each unit draws its own part of the mask, from the words that the CPU draws it from.
//!
//! A word has 64 bits, which WebGPU's numbers have not: it is computed in two halves.

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::TensorData;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{UNITS, cubes, dense, unwritten};
use crate::dropout::{DropoutOps, Mask, keep, threshold};

const GAMMA_LOW: u32 = 0x7F4A_7C15;
const GAMMA_HIGH: u32 = 0x9E37_79B9;

/// The 16 bits that decide an element: number `element % 4` of `Key::word(element / 4)`, by SplitMix64.
#[cube]
pub(super) fn decisive_bits(key_low: u32, key_high: u32, element: u32) -> u32 {
    let counter = element / 4u32 + 1u32;
    let product = counter * GAMMA_LOW;
    let mut low = product + key_low;
    let carry = select(low < product, 1u32, 0u32);
    let mut high = u32::mul_hi(counter, GAMMA_LOW) + counter * GAMMA_HIGH + key_high + carry;
    low ^= (low >> 30u32) | (high << 2u32);
    high ^= high >> 30u32;
    high = u32::mul_hi(low, 0x1CE4_E5B9u32) + low * 0xBF58_476Du32 + high * 0x1CE4_E5B9u32;
    low *= 0x1CE4_E5B9u32;
    low ^= (low >> 27u32) | (high << 5u32);
    high ^= high >> 27u32;
    high = u32::mul_hi(low, 0x1331_11EBu32) + low * 0x94D0_49BBu32 + high * 0x1331_11EBu32;
    low *= 0x1331_11EBu32;
    low ^= (low >> 31u32) | (high << 1u32);
    high ^= high >> 31u32;
    let half = select(element % 4u32 >= 2u32, high, low);
    (half >> (element % 2u32 * 16u32)) & 0xFFFFu32
}

/// Multiplies each number by its element of the mask: those of a row of `size` numbers by the `width` elements that all of its steps share.
#[cube(launch_unchecked)]
fn dropout_kernel(
    x: &[f32],
    y: &mut [f32],
    count: u32,
    size: u32,
    width: u32,
    key_low: u32,
    key_high: u32,
    threshold: u32,
    keep: f32,
) {
    let at = ABSOLUTE_POS as u32;
    if at < count {
        let element = at / size * width + at % width;
        let bits = decisive_bits(key_low, key_high, element);
        y[at as usize] = select(bits < threshold, 0.0f32, x[at as usize] * keep);
    }
}

impl DropoutOps for Cube {
    fn masked(x: CubeTensor, mask: Mask) -> CubeTensor {
        let x = dense(x);
        let count = x.meta.num_elements();
        let (rate, key, size, width) = match mask {
            Mask::Elements { rate, key } => (rate, key, count, count),
            Mask::Steps { rate, key, steps, width, .. } => (rate, key, steps * width, width),
            Mask::Rows { factors, .. } => {
                let factors = TensorData::new(factors.to_vec(), [factors.len(), 1]);
                let factors = Self::float_from_data(factors, &x.device());
                return Self::float_mul(x, factors);
            }
        };
        let y = unwritten(&x, x.shape());
        if count == 0 {
            return y;
        }
        // SAFETY: a unit has a number of both.
        unsafe {
            dropout_kernel::launch_unchecked(
                &y.client,
                cubes(count),
                CubeDim::new_1d(UNITS as u32),
                x.into_buffer_arg(),
                y.clone().into_buffer_arg(),
                count as u32,
                size as u32,
                width as u32,
                key.bits() as u32,
                (key.bits() >> 32) as u32,
                threshold(rate),
                keep(rate),
            );
        }
        y
    }
}
