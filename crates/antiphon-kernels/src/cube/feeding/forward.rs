//! The kernels of a step forward, each for all rows.
//!
//! A cube has sixteen rows and some columns of a product ([`tile`](super::super::tile)), and goes on with its sums. What the next
//! kernel multiplies is written as that reads it, zeros up to a multiple of four. Rows have `B`, `T` and their other sizes as
//! `batch`, `steps`, `hidden`, …; `padded` and the like are those sizes up to a multiple of four. `table` is that of
//! [`Look`](super::super::attention::Look), and behind it two halves of the key of each step's mask.

use cubecl::prelude::*;

use super::super::cell::{sigmoid, tangent};
use super::super::recurrent::{hand_over, k_of};
use super::super::tile::{Four, ROWS, SUMS, at_rows, multiply, sum};
use crate::recurrent::Cell;

/// Lays out what is before the first step, `[groups][depth][16]`: no output, `fed` wide, and the first state.
#[cube(launch_unchecked)]
pub(super) fn begin(
    state: &[f32],
    exchange: &mut [Four],
    batch: u32,
    hidden: u32,
    padded: u32,
    fed: u32,
    depth: u32,
    states: u32,
) {
    let (batch, hidden, fed) = (batch as usize, hidden as usize, fed as usize);
    let place = ABSOLUTE_POS as usize;
    let (quads, wide) = (comptime!(ROWS / 4), fed + padded as usize);
    let (k, quad, group) = (place % wide, place / wide % quads, place / (wide * quads));
    if group * ROWS < batch {
        let mut vector = Four::new(0.0f32);
        if k >= fed && k - fed < hidden {
            #[unroll]
            for i in 0..4usize {
                let row = group * ROWS + quad * 4 + i;
                if row < batch {
                    vector.insert(i, state[row * states as usize * hidden + k - fed]);
                }
            }
        }
        exchange[at_rows(group, depth as usize, k, quad)] = vector;
    }
}

/// See [`cell_of`].
#[cube(launch_unchecked)]
pub(super) fn cell_forward(
    columns: &[Four],
    bias: &[f32],
    table: &[u32],
    state: &[f32],
    exchange: &mut [Four],
    gates: &mut [f32],
    trace: &mut [f32],
    hiddens: &mut [f32],
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    fed: u32,
    depth: u32,
    t: u32,
    #[comptime] cell: Cell,
    #[comptime] units: usize,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    cell_of(
        columns, bias, table, state, exchange, gates, trace, hiddens, &mut sums, CUBE_POS_X, batch, steps, hidden,
        padded, fed, depth, t, 0.0f32, cell, units,
    );
}

/// The cell: from the last output and state, which lie beside each other in a half of `exchange`, to the state in the other half.
/// `gates` holds the projected inputs and becomes the activated gates; `trace` becomes an LSTM's cells, or the GRU's products inside
/// the reset gate. A row that has ended keeps its state.
#[cube]
pub(super) fn cell_of(
    columns: &[Four],
    bias: &[f32],
    table: &[u32],
    state: &[f32],
    exchange: &mut [Four],
    gates: &mut [f32],
    trace: &mut [f32],
    hiddens: &mut [f32],
    sums: &mut Shared<[f32]>,
    slice: u32,
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    fed: u32,
    depth: u32,
    t: u32,
    fault: f32,
    #[comptime] cell: Cell,
    #[comptime] units: usize,
) {
    let (batch, steps, hidden) = (batch as usize, steps as usize, hidden as usize);
    let (padded, fed, depth) = (padded as usize, fed as usize, depth as usize);
    let (slice, group, unit) = (slice as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    let (half, groups) = (t as usize % 2, CUBE_COUNT_Y as usize);
    let from = at_rows(half * groups + group, depth, 0, 0);
    multiply(&*exchange, from, columns, slice * (fed + padded) * units, fed + padded, sums, units);

    let (row, own) = (unit / units, unit % units);
    let (b, k) = (group * ROWS + row, slice * units + own);
    let mut h = 0.0f32;
    if row < ROWS && b < batch && k < hidden {
        let place = (b * steps + t as usize) * hidden + k;
        let at = (b * steps + t as usize) * comptime!(cell.gates()) * hidden + k;
        let first = b * comptime!(cell.states()) * hidden + k;
        if t == 0 {
            h = state[first];
        } else {
            h = hiddens[place - hidden];
        }
        let live = t < table[b * 3 + 2];
        if comptime!(cell == Cell::Rnn) {
            if live {
                h = tangent(gates[at] + sum(&*sums, row, own, 0usize, units) + bias[k]);
                gates[at] = h;
            }
        } else if comptime!(cell == Cell::Lstm) {
            let mut c = if t == 0 { state[first + hidden] } else { trace[place - hidden] };
            if live {
                let i = sigmoid(gates[at] + sum(&*sums, row, own, 0usize, units) + bias[k]);
                let f = sigmoid(gates[at + hidden] + sum(&*sums, row, own, 1usize, units) + bias[hidden + k]);
                let g = tangent(gates[at + 2 * hidden] + sum(&*sums, row, own, 2usize, units) + bias[2 * hidden + k]);
                let o = sigmoid(gates[at + 3 * hidden] + sum(&*sums, row, own, 3usize, units) + bias[3 * hidden + k]);
                c = f * c + i * g;
                h = o * tangent(c);
                gates[at] = i;
                gates[at + hidden] = f;
                gates[at + 2 * hidden] = g;
                gates[at + 3 * hidden] = o;
            }
            trace[place] = c;
        } else if live {
            // What is fed back is not inside the reset gate.
            let r = sigmoid(gates[at] + sum(&*sums, row, own, 0usize, units) + bias[k]);
            let z = sigmoid(gates[at + hidden] + sum(&*sums, row, own, 1usize, units) + bias[hidden + k]);
            let x = gates[at + 2 * hidden] + sum(&*sums, row, own, 2usize, units) + bias[2 * hidden + k];
            let q = sum(&*sums, row, own, 3usize, units) + bias[3 * hidden + k];
            let n = tangent(x + r * q);
            h = n + z * (h - n);
            gates[at] = r;
            gates[at + hidden] = z;
            gates[at + 2 * hidden] = n;
            trace[place] = q;
        }
        h += fault;
        hiddens[place] = h;
    }
    // All sums have been read.
    sync_cube();
    if row < ROWS {
        sums[row * units + own] = h;
    }
    sync_cube();
    let k = k_of(slice, unit, units);
    if unit < comptime!(ROWS / 4) * units && k < padded {
        hand_over(&*sums, 0usize, exchange, (1 - half) * groups + group, depth, fed + k, units);
    }
}

/// See [`query_of`].
#[cube(launch_unchecked)]
pub(super) fn ask(
    columns: &[Four],
    exchange: &[Four],
    queries: &mut [f32],
    batch: u32,
    steps: u32,
    width: u32,
    padded: u32,
    fed: u32,
    depth: u32,
    t: u32,
    #[comptime] wide: usize,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    query_of(columns, exchange, queries, &mut sums, CUBE_POS_X, batch, steps, width, padded, fed, depth, t, wide);
}

/// The queries of additive scores, from the state.
#[cube]
pub(super) fn query_of(
    columns: &[Four],
    exchange: &[Four],
    queries: &mut [f32],
    sums: &mut Shared<[f32]>,
    slice: u32,
    batch: u32,
    steps: u32,
    width: u32,
    padded: u32,
    fed: u32,
    depth: u32,
    t: u32,
    #[comptime] wide: usize,
) {
    let (slice, group, unit) = (slice as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    let half = 1 - t as usize % 2;
    let from = at_rows(half * CUBE_COUNT_Y as usize + group, depth as usize, fed as usize, 0);
    multiply(exchange, from, columns, slice * padded as usize * wide, padded as usize, sums, wide);
    let units = comptime!(wide * 4);
    let (row, own) = (unit / units, unit % units);
    let (b, k) = (group * ROWS + row, slice * units + own);
    if row < ROWS && b < batch as usize && k < width as usize {
        queries[(b * steps as usize + t as usize) * width as usize + k] = sum(&*sums, row, own / 4, own % 4, wide);
    }
}

/// See [`readout_of`].
#[cube(launch_unchecked)]
pub(super) fn read_out(
    columns: &[Four],
    bias: &[f32],
    table: &[u32],
    exchange: &mut [Four],
    outputs: &mut [f32],
    batch: u32,
    steps: u32,
    width: u32,
    fed: u32,
    depth: u32,
    t: u32,
    threshold: u32,
    keep: f32,
    #[comptime] wide: usize,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    readout_of(
        columns, bias, table, exchange, outputs, &mut sums, CUBE_POS_X, batch, steps, width, fed, depth, t, threshold,
        keep, wide,
    );
}

/// The readout: from state and context to the output, which is also laid before both.
#[cube]
pub(super) fn readout_of(
    columns: &[Four],
    bias: &[f32],
    table: &[u32],
    exchange: &mut [Four],
    outputs: &mut [f32],
    sums: &mut Shared<[f32]>,
    slice: u32,
    batch: u32,
    steps: u32,
    width: u32,
    fed: u32,
    depth: u32,
    t: u32,
    threshold: u32,
    keep: f32,
    #[comptime] wide: usize,
) {
    let (width, fed, depth) = (width as usize, fed as usize, depth as usize);
    let (slice, group, unit) = (slice as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    let in_half = (1 - t as usize % 2) * CUBE_COUNT_Y as usize + group;
    let (from, deep) = (at_rows(in_half, depth, fed, 0), depth - fed);
    multiply(&*exchange, from, columns, slice * deep * wide, deep, sums, wide);
    let units = comptime!(wide * 4);
    let (row, own) = (unit / units, unit % units);
    let (b, k) = (group * ROWS + row, slice * units + own);
    let mut y = 0.0f32;
    if row < ROWS && b < batch as usize && k < width {
        if t < table[b * 3 + 2] {
            y = tangent(sum(&*sums, row, own / 4, own % 4, wide) + bias[k]) * keep;
            let key = batch as usize * 3 + t as usize * 2;
            let bits = decisive_bits(table[key], table[key + 1], (b * width + k) as u32);
            y = select(bits < threshold, 0.0f32, y);
        }
        outputs[(b * steps as usize + t as usize) * width + k] = y;
    }
    // All sums have been read.
    sync_cube();
    if row < ROWS {
        sums[row * units + own] = y;
    }
    sync_cube();
    let k = k_of(slice, unit, units);
    if unit < comptime!(ROWS / 4) * units && k < fed {
        hand_over(&*sums, 0usize, exchange, in_half, depth, k, units);
    }
}

/// `[B, N·H]`: the state behind the last step.
#[cube(launch_unchecked)]
pub(super) fn last_state(
    hiddens: &[f32],
    trace: &[f32],
    state: &mut [f32],
    size: u32,
    steps: u32,
    hidden: u32,
    states: u32,
) {
    let (place, hidden) = (ABSOLUTE_POS as usize, hidden as usize);
    if place < size as usize {
        let (row, k) = (place / hidden, place % hidden);
        let (b, which) = (row / states as usize, row % states as usize);
        let last = (b * steps as usize + steps as usize - 1) * hidden + k;
        if which == 0 {
            state[place] = hiddens[last];
        } else {
            state[place] = trace[last];
        }
    }
}

/// The 16 bits that decide an element: number `element % 4` of `Key::word(element / 4)`, by SplitMix64.
#[cube]
pub(super) fn decisive_bits(key_low: u32, key_high: u32, element: u32) -> u32 {
    let counter = element / 4u32 + 1u32;
    let product = counter * 0x7F4A_7C15u32;
    let mut low = product + key_low;
    let carry = select(low < product, 1u32, 0u32);
    let mut high = u32::mul_hi(counter, 0x7F4A_7C15u32) + counter * 0x9E37_79B9u32 + key_high + carry;
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
