//! What a step multiplies: a group of sixteen rows by some columns of a weight, inside a kernel that goes on with the sums.
//!
//! Both factors lie so that a unit reads four numbers at once, and neighbours read neighbours:
//!
//! - the rows as `[groups][depth][16]`: the number `k` of sixteen rows beside each other ([`at_rows`]);
//! - the columns as `[slices][depth][wide][4]`: those of a cube beside each other, in vectors of four ([`pack_gates`],
//!   [`pack_units`], [`pack_columns`]).
//!
//! A unit has four rows of one vector of columns and a share of the depth, sixteen sums in registers for two reads. The shares
//! then meet in shared memory, and are added in their order.

use cubecl::prelude::*;

use super::UNITS;

/// Four numbers beside each other.
pub(crate) type Four = Vector<f32, Const<4>>;

/// Rows of a group, those that a cube multiplies.
pub(crate) const ROWS: usize = 16;

/// Sums of a cube, in shared memory: 16 KiB.
pub(crate) const SUMS: usize = UNITS * 16;

/// Into how many shares a cube divides the depth, if it has `wide` vectors of columns.
pub(crate) const fn shares(wide: usize) -> usize {
    UNITS / (ROWS / 4 * wide)
}

/// Where the four rows `quad` of a group have their numbers `k`, in vectors.
#[cube]
pub(crate) fn at_rows(group: usize, depth: usize, k: usize, quad: usize) -> usize {
    ((group * depth + k) * (ROWS / 4)) + quad
}

/// Multiplies a group of rows with `wide` vectors of columns over a `depth` that four divides, and leaves the sums of all shares
/// in shared memory, for [`sum`]. All units of a cube must come here.
///
/// `rows_at` and `columns_at`: where the group and the slice begin, in vectors.
#[cube]
pub(crate) fn multiply(
    rows: &[Four],
    rows_at: usize,
    columns: &[Four],
    columns_at: usize,
    depth: usize,
    sums: &mut Shared<[f32]>,
    #[comptime] wide: usize,
) {
    let count = comptime!(shares(wide));
    let unit = UNIT_POS as usize;
    let column = unit % wide;
    let quad = (unit / wide) % comptime!(ROWS / 4);
    let share = unit / comptime!(ROWS / 4 * wide);
    let each = (depth / 4).div_ceil(count) * 4;
    let mut k = share * each;
    let mut end = k + each;
    if end > depth {
        end = depth;
    }
    let mut a = Four::new(0.0f32);
    let mut b = Four::new(0.0f32);
    let mut c = Four::new(0.0f32);
    let mut d = Four::new(0.0f32);
    while k < end {
        #[unroll]
        for i in 0..4 {
            let row = rows[rows_at + (k + i) * comptime!(ROWS / 4) + quad];
            let weight = columns[columns_at + (k + i) * wide + column];
            a = fma(weight, Four::new(row.extract(0usize)), a);
            b = fma(weight, Four::new(row.extract(1usize)), b);
            c = fma(weight, Four::new(row.extract(2usize)), c);
            d = fma(weight, Four::new(row.extract(3usize)), d);
        }
        k += 4;
    }
    #[unroll]
    for i in 0..4usize {
        let at = ((i * count + share) * ROWS + quad * 4) * wide + column;
        sums[at] = a.extract(i);
        sums[at + wide] = b.extract(i);
        sums[at + comptime!(2 * wide)] = c.extract(i);
        sums[at + comptime!(3 * wide)] = d.extract(i);
    }
    sync_cube();
}

/// The sum that [`multiply`] made for a row and number `part` of a vector of columns.
#[cube]
pub(crate) fn sum(sums: &Shared<[f32]>, row: usize, column: usize, part: usize, #[comptime] wide: usize) -> f32 {
    let count = comptime!(shares(wide));
    let first = (part * count * ROWS + row) * wide + column;
    let mut total = 0.0f32;
    #[unroll]
    for share in 0..count {
        total += sums[first + comptime!(share * ROWS * wide)];
    }
    total
}

/// Writes what the cube's units made for their rows where the other cubes read it: `made` is `[ROWS][units]` in shared memory.
#[cube]
pub(crate) fn hand_over(
    made: &Shared<[f32]>,
    first: usize,
    exchange: &mut [Four],
    group: usize,
    depth: usize,
    k: usize,
    #[comptime] units: usize,
) {
    // `k`: where this unit's number goes; the caller asks whether it has one.
    let unit = UNIT_POS as usize;
    let (own, quad) = (unit % units, unit / units % comptime!(ROWS / 4));
    let mut vector = Four::new(0.0f32);
    #[unroll]
    for i in 0..4usize {
        vector.insert(i, made[first + (quad * 4 + i) * units + own]);
    }
    exchange[at_rows(group, depth, k, quad)] = vector;
}

/// The number of a unit of the layer that a unit of the cube hands over.
#[cube]
pub(crate) fn k_of(slice: usize, unit: usize, #[comptime] units: usize) -> usize {
    slice * units + unit % units
}

/// Packs rows of a recurrent weight `[rows, gates·hidden]` as columns in vectors of a unit's gates, of which the last is number `last`,
/// `wide` units a slice: rows `from..` of `columns`, as far as there are any, else zeros. A unit of the kernel a vector; cubes
/// `[.., slices]`.
#[cube(launch_unchecked)]
pub(crate) fn pack_gates(
    weight: &[f32],
    columns: &mut [Four],
    rows: u32,
    hidden: u32,
    from: u32,
    upto: u32,
    depth: u32,
    #[comptime] gates: usize,
    #[comptime] wide: usize,
    #[comptime] last: usize,
) {
    let slice = CUBE_POS_Y as usize;
    let place = CUBE_POS_X as usize * UNITS + UNIT_POS as usize;
    let (k, column) = (from as usize + place / wide, place % wide);
    if k < upto as usize {
        let unit = slice * wide + column;
        let row = k - from as usize;
        let mut vector = Four::new(0.0f32);
        if row < rows as usize && unit < hidden as usize {
            #[unroll]
            for gate in 0..gates {
                let at = comptime!(if gate + 1 == gates { last } else { gate });
                vector.insert(at, weight[(row * gates + gate) * hidden as usize + unit]);
            }
        }
        columns[(slice * depth as usize + k) * wide + column] = vector;
    }
}

/// Packs a weight `[rows, width]` as columns in vectors of four, `wide` vectors a slice: rows `from..` of `columns`, as far as there are
/// any, else zeros. A unit of the kernel a vector; cubes `[.., slices]`.
#[cube(launch_unchecked)]
pub(crate) fn pack_columns(
    weight: &[f32],
    columns: &mut [Four],
    rows: u32,
    width: u32,
    from: u32,
    upto: u32,
    depth: u32,
    #[comptime] wide: usize,
) {
    let slice = CUBE_POS_Y as usize;
    let place = CUBE_POS_X as usize * UNITS + UNIT_POS as usize;
    let (k, column) = (from as usize + place / wide, place % wide);
    if k < upto as usize {
        let row = k - from as usize;
        let mut vector = Four::new(0.0f32);
        if row < rows as usize {
            #[unroll]
            for i in 0..4usize {
                let at = (slice * wide + column) * 4 + i;
                if at < width as usize {
                    vector.insert(i, weight[row * width as usize + at]);
                }
            }
        }
        columns[(slice * depth as usize + k) * wide + column] = vector;
    }
}

/// Packs a weight `[units, gates·hidden]` transposed, as columns in vectors of four units, `wide` vectors a slice, from slice `first`
/// on: the depth is `gates` times `padded`, `hidden` and zeros behind it; gate 0 comes behind `turn` others. A unit of the kernel a
/// vector; cubes `[.., slices]`.
#[cube(launch_unchecked)]
pub(crate) fn pack_units(
    weight: &[f32],
    columns: &mut [Four],
    units: u32,
    hidden: u32,
    padded: u32,
    first: u32,
    turn: u32,
    #[comptime] gates: usize,
    #[comptime] wide: usize,
) {
    let slice = CUBE_POS_Y as usize;
    let depth = gates * padded as usize;
    let place = CUBE_POS_X as usize * UNITS + UNIT_POS as usize;
    // Neighbours read neighbouring numbers of a row.
    let (column, k) = (place / depth, place % depth);
    if column < wide {
        let (gate, number) = ((k / padded as usize + gates - turn as usize) % gates, k % padded as usize);
        let mut vector = Four::new(0.0f32);
        if number < hidden as usize {
            #[unroll]
            for i in 0..4usize {
                let unit = (slice * wide + column) * 4 + i;
                if unit < units as usize {
                    vector.insert(i, weight[(unit * gates + gate) * hidden as usize + number]);
                }
            }
        }
        columns[((first as usize + slice) * depth + k) * wide + column] = vector;
    }
}
