//! What all units of a cube have in common: the sum, or the largest, of what each of them holds, in the order of a tree.

use cubecl::prelude::*;

use super::UNITS;

/// The sum of what all units of a cube hold.
#[cube]
pub(super) fn total(value: f32) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    #[unroll]
    for level in 0..8usize {
        let half = comptime!(UNITS >> (level + 1));
        if unit < half {
            let sum = shared[unit] + shared[unit + half];
            shared[unit] = sum;
        }
        sync_cube();
    }
    let sum = shared[0];
    sync_cube();
    sum
}

/// The largest of what all units of a cube hold.
#[cube]
pub(super) fn largest(value: f32) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    #[unroll]
    for level in 0..8usize {
        let half = comptime!(UNITS >> (level + 1));
        if unit < half {
            let (a, b) = (shared[unit], shared[unit + half]);
            shared[unit] = select(b > a, b, a);
        }
        sync_cube();
    }
    let most = shared[0];
    sync_cube();
    most
}
