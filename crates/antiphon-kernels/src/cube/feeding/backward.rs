//! The kernels of a step back, each for all rows: see [`forward`](super::forward).
//!
//! `exchange` has places `[groups][all][16]` of three parts: what goes back from the readout's sums, `fed` wide, from the query, `asked` wide, and
//! from the blocks of a cell.

use cubecl::prelude::*;

use super::super::cell::tangent;
use super::super::dropout::decisive_bits;
use super::super::tile::{Four, ROWS, SUMS, at_rows, hand_over, k_of, multiply, sum};
use crate::recurrent::Cell;

/// Blocks of what goes back from a cell: one for each gate, and for the GRU's product inside the reset gate.
pub(super) const fn blocks(cell: Cell) -> usize {
    cell.biases()
}

/// See [`before_back`].
#[cube(launch_unchecked)]
pub(super) fn before_backward(
    columns: &[Four],
    table: &[u32],
    exchange: &mut [Four],
    gradient: &[f32],
    outputs: &[f32],
    running: &mut [f32],
    dsums: &mut [f32],
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    width: u32,
    fed: u32,
    asked: u32,
    t: u32,
    from: u32,
    to: u32,
    state_slices: u32,
    threshold: u32,
    keep: f32,
    #[comptime] cell: Cell,
    #[comptime] wide: usize,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    before_back(
        columns,
        table,
        exchange,
        gradient,
        outputs,
        running,
        dsums,
        &mut sums,
        CUBE_POS_X,
        batch,
        steps,
        hidden,
        padded,
        width,
        fed,
        asked,
        t,
        from,
        to,
        state_slices,
        threshold,
        keep,
        0.0f32,
        cell,
        wide,
    );
}

/// Back from the cell of step `t` (behind the last step: from nothing) to the output and the state before it. The first `state_slices` slices are those of the state. The output's
/// whole gradient, through the readout's tanh, becomes `dsums`, and is handed over in place `to`.
#[cube]
pub(super) fn before_back(
    columns: &[Four],
    table: &[u32],
    exchange: &mut [Four],
    gradient: &[f32],
    outputs: &[f32],
    running: &mut [f32],
    dsums: &mut [f32],
    sums: &mut Shared<[f32]>,
    slice: u32,
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    width: u32,
    fed: u32,
    asked: u32,
    t: u32,
    from: u32,
    to: u32,
    state_slices: u32,
    threshold: u32,
    keep: f32,
    fault: f32,
    #[comptime] cell: Cell,
    #[comptime] wide: usize,
) {
    let (batch, steps, hidden, width) = (batch as usize, steps as usize, hidden as usize, width as usize);
    let (padded, fed, asked) = (padded as usize, fed as usize, asked as usize);
    let (slice, group, unit) = (slice as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    let depth = comptime!(cell.gates()) * padded;
    let is_fed = slice >= state_slices as usize;
    let groups = CUBE_COUNT_Y as usize;
    // A GRU's blocks are n, r, z and q: the first three go to the output, the last three to the state.
    let (count, apart) = (comptime!(blocks(cell)), comptime!(blocks(cell) - cell.gates()));
    let first = fed + asked + select(is_fed, 0usize, apart * padded);
    let all = fed + asked + count * padded;
    let deep = select(t as usize == steps, 0usize, depth);
    let rows_at = at_rows(from as usize * groups + group, all, first, 0);
    multiply(&*exchange, rows_at, columns, slice * depth * wide, deep, sums, wide);

    let units = comptime!(wide * 4);
    let (row, own) = (unit / units, unit % units);
    let b = group * ROWS + row;
    let mut d = 0.0f32;
    if row < ROWS && b < batch {
        let found = sum(&*sums, row, own / 4, own % 4, wide) + fault;
        if is_fed {
            let k = (slice - state_slices as usize) * units + own;
            if k < width && t > 0 {
                let place = (b * steps + t as usize - 1) * width + k;
                let key = batch * 3 + (t as usize - 1) * 2;
                let bits = decisive_bits(table[key], table[key + 1], (b * width + k) as u32);
                if t - 1 < table[b * 3 + 2] && bits >= threshold {
                    let y = outputs[place] / keep;
                    d = (gradient[place] + found) * keep * (1.0f32 - y * y);
                }
                dsums[place] = d;
            }
        } else {
            let k = slice * units + own;
            if k < hidden {
                let kept = b * hidden + k;
                let mut dh = found;
                if (t as usize) < steps {
                    dh += running[kept];
                }
                running[kept] = dh;
            }
        }
    }
    // All sums have been read.
    sync_cube();
    if row < ROWS {
        sums[row * units + own] = d;
    }
    sync_cube();
    if is_fed && t > 0 {
        let k = k_of(slice - state_slices as usize, unit, units);
        if unit < comptime!(ROWS / 4) * units && k < fed {
            hand_over(&*sums, 0usize, exchange, to as usize * groups + group, all, k, units);
        }
    }
}

/// See [`readout_back`].
#[cube(launch_unchecked)]
pub(super) fn readout_backward(
    columns: &[Four],
    exchange: &[Four],
    running: &mut [f32],
    dcontexts: &mut [f32],
    batch: u32,
    steps: u32,
    hidden: u32,
    width: u32,
    fed: u32,
    depth: u32,
    t: u32,
    place: u32,
    state_slices: u32,
    #[comptime] wide: usize,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    readout_back(
        columns,
        exchange,
        running,
        dcontexts,
        &mut sums,
        CUBE_POS_X,
        batch,
        steps,
        hidden,
        width,
        fed,
        depth,
        t,
        place,
        state_slices,
        wide,
    );
}

/// Back from the readout's sums to the state, whose gradient is added to, and to the context. The first `state_slices` slices are those of
/// the state.
#[cube]
pub(super) fn readout_back(
    columns: &[Four],
    exchange: &[Four],
    running: &mut [f32],
    dcontexts: &mut [f32],
    sums: &mut Shared<[f32]>,
    slice: u32,
    batch: u32,
    steps: u32,
    hidden: u32,
    width: u32,
    fed: u32,
    depth: u32,
    t: u32,
    place: u32,
    state_slices: u32,
    #[comptime] wide: usize,
) {
    let (batch, hidden, width, fed) = (batch as usize, hidden as usize, width as usize, fed as usize);
    let (slice, group, unit) = (slice as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    multiply(
        exchange,
        at_rows(place as usize * CUBE_COUNT_Y as usize + group, depth as usize, 0, 0),
        columns,
        slice * fed * wide,
        fed,
        sums,
        wide,
    );
    let units = comptime!(wide * 4);
    let (row, own) = (unit / units, unit % units);
    let b = group * ROWS + row;
    if row < ROWS && b < batch {
        let found = sum(&*sums, row, own / 4, own % 4, wide);
        if slice < state_slices as usize {
            let k = slice * units + own;
            if k < hidden {
                running[b * hidden + k] += found;
            }
        } else {
            let k = (slice - state_slices as usize) * units + own;
            if k < width {
                dcontexts[(b * steps as usize + t as usize) * width + k] = found;
            }
        }
    }
}

/// See [`cell_back`].
#[cube(launch_unchecked)]
pub(super) fn cell_backward(
    columns: &[Four],
    table: &[u32],
    state: &[f32],
    hiddens: &[f32],
    exchange: &mut [Four],
    running: &mut [f32],
    gates: &mut [f32],
    trace: &mut [f32],
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    fed: u32,
    asked: u32,
    t: u32,
    in_place: u32,
    #[comptime] cell: Cell,
    #[comptime] wide: usize,
    #[comptime] additive: bool,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    cell_back(
        columns, table, state, hiddens, exchange, running, gates, trace, &mut sums, CUBE_POS_X, batch, steps, hidden,
        padded, fed, asked, t, in_place, 0.0f32, cell, wide, additive,
    );
}

/// Back from the query to the state, and through the cell. `gates` become the gradient of the
/// projected inputs, the GRU's `trace` that of its products; `running` becomes what does not come by the product, and the gradient of
/// the cells.
#[cube]
pub(super) fn cell_back(
    columns: &[Four],
    table: &[u32],
    state: &[f32],
    hiddens: &[f32],
    exchange: &mut [Four],
    running: &mut [f32],
    gates: &mut [f32],
    trace: &mut [f32],
    sums: &mut Shared<[f32]>,
    slice: u32,
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    fed: u32,
    asked: u32,
    t: u32,
    in_place: u32,
    fault: f32,
    #[comptime] cell: Cell,
    #[comptime] wide: usize,
    #[comptime] additive: bool,
) {
    let (batch, steps, hidden) = (batch as usize, steps as usize, hidden as usize);
    let (padded, fed, asked) = (padded as usize, fed as usize, asked as usize);
    let all = fed + asked + comptime!(blocks(cell)) * padded;
    let (slice, group, unit) = (slice as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    let in_place = in_place as usize * CUBE_COUNT_Y as usize + group;
    let units = comptime!(wide * 4);
    let (row, own) = (unit / units, unit % units);
    let (b, k) = (group * ROWS + row, slice * units + own);
    let is_mine = row < ROWS && b < batch && k < hidden;
    let kept = b * hidden + k;
    let place = (b * steps + t as usize) * hidden + k;
    let at = (b * steps + t as usize) * comptime!(cell.gates()) * hidden + k;
    // What does not depend on other cubes is read while the product waits for what does.
    let mut live = false;
    let mut dh = 0.0f32;
    let mut dcell = 0.0f32;
    let mut traced = 0.0f32;
    let mut before = 0.0f32;
    let mut g0 = 0.0f32;
    let mut g1 = 0.0f32;
    let mut g2 = 0.0f32;
    let mut g3 = 0.0f32;
    if is_mine {
        live = t < table[b * 3 + 2];
        dh = running[kept] + fault;
        g0 = gates[at];
        if comptime!(cell != Cell::Rnn) {
            g1 = gates[at + hidden];
            g2 = gates[at + 2 * hidden];
            traced = trace[place];
            let first = b * comptime!(cell.states()) * hidden + k;
            if comptime!(cell == Cell::Lstm) {
                g3 = gates[at + 3 * hidden];
                before = if t == 0 { state[first + hidden] } else { trace[place - hidden] };
                if (t as usize) + 1 < steps {
                    dcell = running[batch * hidden + kept];
                }
            } else {
                before = if t == 0 { state[first] } else { hiddens[place - hidden] };
            }
        }
    }
    if comptime!(additive) {
        multiply(&*exchange, at_rows(in_place, all, fed, 0), columns, slice * asked * wide, asked, sums, wide);
    }
    let mut da = 0.0f32;
    let mut db = 0.0f32;
    let mut dc = 0.0f32;
    let mut dd = 0.0f32;
    if is_mine {
        if comptime!(additive) {
            dh += sum(&*sums, row, own / 4, own % 4, wide);
        } else {
            // The query is the state.
            let four = exchange[at_rows(in_place, all, fed + k, row / 4)];
            let low = select(row % 4 == 0, four.extract(0usize), four.extract(1usize));
            let high = select(row % 4 == 2, four.extract(2usize), four.extract(3usize));
            dh += select(row % 4 < 2, low, high);
        }
        let mut direct = dh;
        if live {
            direct = 0.0f32;
            if comptime!(cell == Cell::Rnn) {
                da = dh * (1.0f32 - g0 * g0);
            } else if comptime!(cell == Cell::Lstm) {
                // i, f, g and o.
                let bent = tangent(traced);
                let d = dcell + dh * g3 * (1.0f32 - bent * bent);
                da = d * g2 * g0 * (1.0f32 - g0);
                db = d * before * g1 * (1.0f32 - g1);
                dc = d * g0 * (1.0f32 - g2 * g2);
                dd = dh * bent * g3 * (1.0f32 - g3);
                dcell = d * g1;
            } else {
                // From r, z and n those of n, r, z and q.
                da = dh * (1.0f32 - g1) * (1.0f32 - g2 * g2);
                db = da * traced * g0 * (1.0f32 - g0);
                dc = dh * (before - g2) * g1 * (1.0f32 - g1);
                dd = da * g0;
                direct = dh * g1;
            }
        }
        running[kept] = direct;
        if comptime!(cell == Cell::Rnn) {
            gates[at] = da;
        } else if comptime!(cell == Cell::Lstm) {
            running[batch * hidden + kept] = dcell;
            gates[at] = da;
            gates[at + hidden] = db;
            gates[at + 2 * hidden] = dc;
            gates[at + 3 * hidden] = dd;
        } else {
            gates[at] = db;
            gates[at + hidden] = dc;
            gates[at + 2 * hidden] = da;
            trace[place] = dd;
        }
    }
    // All sums have been read.
    sync_cube();
    if row < ROWS {
        sums[row * units + own] = da;
        sums[comptime!(ROWS * units) + row * units + own] = db;
        sums[comptime!(2 * ROWS * units) + row * units + own] = dc;
        sums[comptime!(3 * ROWS * units) + row * units + own] = dd;
    }
    sync_cube();
    let k = k_of(slice, unit, units);
    if unit < comptime!(ROWS / 4) * units && k < padded {
        #[unroll]
        for block in 0..comptime!(blocks(cell)) {
            let made = comptime!(block * ROWS * units);
            hand_over(&*sums, made, exchange, in_place, all, fed + asked + block * padded + k, units);
        }
    }
}

/// `[B·T, R]` and `[B·T, H]`: the output and the state before each step.
#[cube(launch_unchecked)]
pub(super) fn before_steps(
    outputs: &[f32],
    hiddens: &[f32],
    state: &[f32],
    fed: &mut [f32],
    before: &mut [f32],
    batch: u32,
    steps: u32,
    hidden: u32,
    width: u32,
    states: u32,
) {
    let (steps, hidden, width) = (steps as usize, hidden as usize, width as usize);
    let place = ABSOLUTE_POS;
    let (row, k) = (place / (hidden + width), place % (hidden + width));
    let (b, t) = (row / steps, row % steps);
    if b < batch as usize {
        if k < width {
            let mut r = 0.0f32;
            if t > 0 {
                r = outputs[(row - 1) * width + k];
            }
            fed[row * width + k] = r;
        } else {
            let k = k - width;
            before[row * hidden + k] =
                if t > 0 { hiddens[(row - 1) * hidden + k] } else { state[b * states as usize * hidden + k] };
        }
    }
}
