//! What only moves numbers, on a GPU: rows of a table, columns side by side.
//!
//! The gradient of a table sums the rows that were taken of each of its rows in the order in which they were taken, so that its bits are the same
//! from run to run: the host, which knows the numbers, sorts them.

use std::sync::Arc;

use antiphon_core::TokenId;
use burn::backend::{Cube, Shape, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{UNITS, cubes, dense, unwritten, upload};
use crate::rows::{Body, RowsOps};

/// Row `i` of `rows` is row `numbers[i]` of the table.
#[cube(launch_unchecked)]
fn take_kernel(table: &[f32], numbers: &[u32], rows: &mut [f32], count: u32, width: u32) {
    let at = ABSOLUTE_POS;
    let width = width as usize;
    if at < count as usize {
        rows[at] = table[numbers[at / width] as usize * width + at % width];
    }
}

/// Row `r` of `sums` is the sum of the rows `order[starts[r]..starts[r + 1]]` of `rows`, where `order` stands behind the `count + 1`
/// `starts`.
#[cube(launch_unchecked)]
fn gather_kernel(rows: &[f32], starts: &[u32], sums: &mut [f32], count: u32, width: u32) {
    let at = ABSOLUTE_POS;
    let (count, width) = (count as usize, width as usize);
    if at < count * width {
        let (row, column) = (at / width, at % width);
        let first = starts[row] as usize + count + 1;
        let end = starts[row + 1] as usize + count + 1;
        let mut a = 0.0f32;
        let mut b = 0.0f32;
        let mut c = 0.0f32;
        let mut d = 0.0f32;
        let mut i = first;
        while i + 3 < end {
            a += rows[starts[i] as usize * width + column];
            b += rows[starts[i + 1] as usize * width + column];
            c += rows[starts[i + 2] as usize * width + column];
            d += rows[starts[i + 3] as usize * width + column];
            i += 4;
        }
        while i < end {
            a += rows[starts[i] as usize * width + column];
            i += 1;
        }
        sums[at] = (a + b) + (c + d);
    }
}

/// The first `own` numbers of another array, and zeros behind them.
#[cube(launch_unchecked)]
fn pad_kernel(own: &[f32], all: &mut [f32], own_count: u32, count: u32) {
    let at = ABSOLUTE_POS;
    if at < count as usize {
        let mut x = 0.0f32;
        if at < own_count as usize {
            x = own[at];
        }
        all[at] = x;
    }
}

/// Rows of `v` and of `w` numbers side by side.
#[cube(launch_unchecked)]
fn join_kernel(left: &[f32], right: &[f32], both: &mut [f32], count: u32, v: u32, w: u32) {
    let at = ABSOLUTE_POS;
    if at < count as usize {
        let (v, w) = (v as usize, w as usize);
        let (row, column) = (at / (v + w), at % (v + w));
        if column < v {
            both[at] = left[row * v + column];
        } else {
            both[at] = right[row * w + column - v];
        }
    }
}

/// The reverse of [`join_kernel`].
#[cube(launch_unchecked)]
fn part_kernel(both: &[f32], left: &mut [f32], right: &mut [f32], count: u32, v: u32, w: u32) {
    let at = ABSOLUTE_POS;
    if at < count as usize {
        let (v, w) = (v as usize, w as usize);
        let (row, column) = (at / (v + w), at % (v + w));
        if column < v {
            left[row * v + column] = both[at];
        } else {
            right[row * w + column - v] = both[at];
        }
    }
}

/// For each of `count` rows where its numbers begin in the order behind, and that: the places of the numbers, sorted by these.
fn sorted(numbers: &[TokenId], count: usize) -> Vec<u32> {
    let mut sorted = vec![0; count + 1 + numbers.len()];
    let (starts, order) = sorted.split_at_mut(count + 1);
    for &number in numbers {
        starts[number as usize + 1] += 1;
    }
    for row in 0..count {
        starts[row + 1] += starts[row];
    }
    // Each start moves to its end, which is the next one's start.
    for (place, &number) in numbers.iter().enumerate() {
        order[starts[number as usize] as usize] = place as u32;
        starts[number as usize] += 1;
    }
    starts.copy_within(..count, 1);
    starts[0] = 0;
    sorted
}

impl RowsOps for Cube {
    fn rows_of(table: CubeTensor, numbers: Arc<[TokenId]>) -> CubeTensor {
        let table = dense(table);
        let width = table.shape()[1];
        let rows = unwritten(&table, [numbers.len(), width]);
        let count = numbers.len() * width;
        let numbers = upload(&numbers, &table).into_buffer_arg();
        // SAFETY: a unit has a number of `rows`, and the numbers lie in the table.
        unsafe {
            take_kernel::launch_unchecked(
                &rows.client,
                cubes(count),
                CubeDim::new_1d(UNITS as u32),
                table.into_buffer_arg(),
                numbers,
                rows.clone().into_buffer_arg(),
                count as u32,
                width as u32,
            );
        }
        rows
    }

    fn first_rows_of(table: CubeTensor, count: usize) -> CubeTensor {
        let table = dense(table);
        let (rows, width) = (table.shape()[0], table.shape()[1]);
        // A view: nothing is copied.
        let handle = table.handle.offset_end(((rows - count) * width * size_of::<f32>()) as u64);
        CubeTensor::new_contiguous(table.client, table.device, Shape::new([count, width]), handle, table.dtype)
    }

    fn concat_of(left: CubeTensor, right: CubeTensor) -> CubeTensor {
        let (left, right) = (dense(left), dense(right));
        let (shape, w) = (left.shape(), right.shape()[2]);
        let [b, t, v] = [shape[0], shape[1], shape[2]];
        let both = unwritten(&left, [b, t, v + w]);
        let count = b * t * (v + w);
        // SAFETY: a unit has a number of `both`.
        unsafe {
            join_kernel::launch_unchecked(
                &both.client,
                cubes(count),
                CubeDim::new_1d(UNITS as u32),
                left.into_buffer_arg(),
                right.into_buffer_arg(),
                both.clone().into_buffer_arg(),
                count as u32,
                v as u32,
                w as u32,
            );
        }
        both
    }
}

impl Body for Cube {
    fn rows_backward(gradient: CubeTensor, numbers: &[TokenId], count: usize) -> CubeTensor {
        let gradient = dense(gradient);
        let width = gradient.shape()[1];
        let sums = unwritten(&gradient, [count, width]);
        let sorted = upload(&sorted(numbers, count), &gradient).into_buffer_arg();
        // SAFETY: a unit has a number of `sums`, and the order has places of `gradient`.
        unsafe {
            gather_kernel::launch_unchecked(
                &sums.client,
                cubes(count * width),
                CubeDim::new_1d(UNITS as u32),
                gradient.into_buffer_arg(),
                sorted,
                sums.clone().into_buffer_arg(),
                count as u32,
                width as u32,
            );
        }
        sums
    }

    fn first_rows_backward(gradient: CubeTensor, count: usize) -> CubeTensor {
        let gradient = dense(gradient);
        let (own, width) = (gradient.meta.num_elements(), gradient.shape()[1]);
        let all = unwritten(&gradient, [count, width]);
        // SAFETY: a unit has a number of `all`.
        unsafe {
            pad_kernel::launch_unchecked(
                &all.client,
                cubes(count * width),
                CubeDim::new_1d(UNITS as u32),
                gradient.into_buffer_arg(),
                all.clone().into_buffer_arg(),
                own as u32,
                (count * width) as u32,
            );
        }
        all
    }

    fn concat_backward(gradient: CubeTensor, v: usize) -> [CubeTensor; 2] {
        let gradient = dense(gradient);
        let (shape, count) = (gradient.shape(), gradient.meta.num_elements());
        let [b, t, w] = [shape[0], shape[1], shape[2] - v];
        let sides = [v, w].map(|width| unwritten(&gradient, [b, t, width]));
        let [left, right] = sides.clone();
        // SAFETY: a unit has a number of `gradient`.
        unsafe {
            part_kernel::launch_unchecked(
                &left.client.clone(),
                cubes(count),
                CubeDim::new_1d(UNITS as u32),
                gradient.into_buffer_arg(),
                left.into_buffer_arg(),
                right.into_buffer_arg(),
                count as u32,
                v as u32,
                w as u32,
            );
        }
        sides
    }
}
