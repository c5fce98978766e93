//! The kernels of a step forward, each for all rows.
//!
//! A cube has sixteen rows and some columns of a product ([`tile`](super::super::tile)), and goes on with its sums. What the next
//! kernel multiplies is written as that reads it, zeros up to a multiple of four. Rows have `B`, `T` and their other sizes as
//! `batch`, `steps`, `hidden`, …; `padded` and the like are those sizes up to a multiple of four. `table` is that of
//! [`Look`](super::super::attention::Look), and behind it two halves of the key of each step's mask.

use cubecl::prelude::*;

use super::super::cell::{sigmoid, tangent};
use super::super::dropout::decisive_bits;
use super::super::tile::{Four, ROWS, SUMS, at_rows, hand_over, k_of, multiply, sum};
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
    let place = ABSOLUTE_POS;
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
    before: u32,
    after: u32,
    #[comptime] cell: Cell,
    #[comptime] units: usize,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    cell_of(
        columns, bias, table, state, exchange, gates, trace, hiddens, &mut sums, CUBE_POS_X, batch, steps, hidden,
        padded, fed, depth, t, before, after, 0.0f32, cell, units,
    );
}

/// The cell: from the last output and state, which lie beside each other in place `before`, to the state in place `after`, of which `exchange` has several.
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
    before: u32,
    after: u32,
    fault: f32,
    #[comptime] cell: Cell,
    #[comptime] units: usize,
) {
    let (batch, steps, hidden) = (batch as usize, steps as usize, hidden as usize);
    let (padded, fed, depth) = (padded as usize, fed as usize, depth as usize);
    let (slice, group, unit) = (slice as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    let groups = CUBE_COUNT_Y as usize;
    let (row, own) = (unit / units, unit % units);
    let (b, k) = (group * ROWS + row, slice * units + own);
    let is_mine = row < ROWS && b < batch && k < hidden;
    let place = (b * steps + t as usize) * hidden + k;
    let at = (b * steps + t as usize) * comptime!(cell.gates()) * hidden + k;
    // What does not depend on other cubes is read while the product waits for what does.
    let mut live = false;
    let mut h = 0.0f32;
    let mut c = 0.0f32;
    let mut x0 = 0.0f32;
    let mut x1 = 0.0f32;
    let mut x2 = 0.0f32;
    let mut x3 = 0.0f32;
    if is_mine {
        live = t < table[b * 3 + 2];
        let first = b * comptime!(cell.states()) * hidden + k;
        h = if t == 0 { state[first] } else { hiddens[place - hidden] };
        if comptime!(cell == Cell::Lstm) {
            c = if t == 0 { state[first + hidden] } else { trace[place - hidden] };
        }
        x0 = gates[at] + bias[k];
        if comptime!(cell != Cell::Rnn) {
            x1 = gates[at + hidden] + bias[hidden + k];
            x2 = gates[at + 2 * hidden] + bias[2 * hidden + k];
            x3 = bias[3 * hidden + k];
        }
        if comptime!(cell == Cell::Lstm) {
            x3 += gates[at + 3 * hidden];
        }
    }
    let from = at_rows(before as usize * groups + group, depth, 0, 0);
    multiply(&*exchange, from, columns, slice * (fed + padded) * units, fed + padded, sums, units);

    if is_mine {
        if live {
            x0 += sum(&*sums, row, own, 0usize, units);
            if comptime!(cell == Cell::Rnn) {
                h = tangent(x0);
                gates[at] = h;
            } else if comptime!(cell == Cell::Lstm) {
                let i = sigmoid(x0);
                let f = sigmoid(x1 + sum(&*sums, row, own, 1usize, units));
                let g = tangent(x2 + sum(&*sums, row, own, 2usize, units));
                let o = sigmoid(x3 + sum(&*sums, row, own, 3usize, units));
                c = f * c + i * g;
                h = o * tangent(c);
                gates[at] = i;
                gates[at + hidden] = f;
                gates[at + 2 * hidden] = g;
                gates[at + 3 * hidden] = o;
            } else {
                // What is fed back is not inside the reset gate.
                let r = sigmoid(x0);
                let z = sigmoid(x1 + sum(&*sums, row, own, 1usize, units));
                let q = x3 + sum(&*sums, row, own, 3usize, units);
                let n = tangent(x2 + sum(&*sums, row, own, 2usize, units) + r * q);
                h = n + z * (h - n);
                gates[at] = r;
                gates[at + hidden] = z;
                gates[at + 2 * hidden] = n;
                trace[place] = q;
            }
        }
        if comptime!(cell == Cell::Lstm) {
            trace[place] = c;
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
        hand_over(&*sums, 0usize, exchange, after as usize * groups + group, depth, fed + k, units);
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
    place: u32,
    #[comptime] wide: usize,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    query_of(
        columns, exchange, queries, &mut sums, CUBE_POS_X, batch, steps, width, padded, fed, depth, t, place, wide,
    );
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
    place: u32,
    #[comptime] wide: usize,
) {
    let (slice, group, unit) = (slice as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    let from = at_rows(place as usize * CUBE_COUNT_Y as usize + group, depth as usize, fed as usize, 0);
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
    place: u32,
    threshold: u32,
    keep: f32,
    #[comptime] wide: usize,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    readout_of(
        columns, bias, table, exchange, outputs, &mut sums, CUBE_POS_X, batch, steps, width, fed, depth, t, place,
        threshold, keep, 0.0f32, wide,
    );
}

/// The readout: from state and context to the output, which is also laid before both. `fault` is added to it: nothing, or NaN where
/// a group has lost its way.
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
    place: u32,
    threshold: u32,
    keep: f32,
    fault: f32,
    #[comptime] wide: usize,
) {
    let (width, fed, depth) = (width as usize, fed as usize, depth as usize);
    let (slice, group, unit) = (slice as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    let in_place = place as usize * CUBE_COUNT_Y as usize + group;
    let (from, deep) = (at_rows(in_place, depth, fed, 0), depth - fed);
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
        y += fault;
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
        hand_over(&*sums, 0usize, exchange, in_place, depth, k, units);
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
    let (place, hidden) = (ABSOLUTE_POS, hidden as usize);
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
