//! A step forward, and all of them.

use cubecl::prelude::*;

use super::super::cell::{sigmoid, tangent};
use super::super::meeting::{fault, meet};
use super::super::tile::{Four, ROWS, SUMS, at_rows, hand_over, k_of, multiply, sum};
use crate::recurrent::Cell;

/// Lays the first state out: where the cubes read it, and where each keeps its own.
#[cube(launch_unchecked)]
pub(super) fn begin(
    state: &[f32],
    exchange: &mut [Four],
    running: &mut [f32],
    batch: u32,
    hidden: u32,
    padded: u32,
    states: u32,
) {
    let (batch, hidden, padded) = (batch as usize, hidden as usize, padded as usize);
    let place = ABSOLUTE_POS;
    let quads = comptime!(ROWS / 4);
    let (k, quad, group) = (place % padded, place / padded % quads, place / (padded * quads));
    if group * ROWS < batch {
        let mut vector = Four::new(0.0f32);
        #[unroll]
        for i in 0..4usize {
            let row = group * ROWS + quad * 4 + i;
            if row < batch && k < hidden {
                let at = row * states as usize * hidden + k;
                vector.insert(i, state[at]);
                running[row * hidden + k] = state[at];
                if states == 2 {
                    running[(batch + row) * hidden + k] = state[at + hidden];
                }
            }
        }
        exchange[at_rows(group, padded, k, quad)] = vector;
    }
}

/// One step of all rows: `gates` holds the projected inputs and becomes the activated gates, if they are saved.
#[cube(launch_unchecked)]
pub(super) fn step_forward(
    columns: &[Four],
    bias: &[f32],
    lengths: &[u32],
    exchange: &mut [Four],
    running: &mut [f32],
    packed: &mut [f32],
    gates: &mut [f32],
    trace: &mut [f32],
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    step: u32,
    from: u32,
    to: u32,
    is_last: u32,
    #[comptime] cell: Cell,
    #[comptime] units: usize,
    #[comptime] save: bool,
    #[comptime] is_ragged: bool,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    forward(
        columns, bias, lengths, exchange, running, packed, gates, trace, &mut sums, batch, steps, hidden, padded, step,
        from, to, is_last, 0.0f32, cell, units, save, is_ragged,
    );
}

/// All steps in one launch, where cubes can wait for each other: `counters` counts a group's arrivals.
#[cube(launch_unchecked)]
pub(super) fn whole_forward(
    columns: &[Four],
    bias: &[f32],
    lengths: &[u32],
    exchange: &mut [Four],
    running: &mut [f32],
    packed: &mut [f32],
    gates: &mut [f32],
    trace: &mut [f32],
    counters: &[Atomic<u32>],
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    #[comptime] cell: Cell,
    #[comptime] units: usize,
    #[comptime] save: bool,
    #[comptime] is_ragged: bool,
    #[comptime] reverse: bool,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    let mut told = Shared::<[u32]>::new_slice(1usize);
    let mut lost = 0u32;
    let mut s = 0u32;
    while s < steps {
        let step = if comptime!(reverse) { steps - 1 - s } else { s };
        forward(
            columns,
            bias,
            lengths,
            exchange,
            running,
            packed,
            gates,
            trace,
            &mut sums,
            batch,
            steps,
            hidden,
            padded,
            step,
            s,
            s + 1,
            u32::cast_from(s + 1 == steps),
            fault(lost),
            cell,
            units,
            save,
            is_ragged,
        );
        s += 1;
        lost = meet(&counters[CUBE_POS_Y as usize], s * CUBE_COUNT_X, &mut told, lost);
    }
}

/// The body of a step. `fault` is added to the state: nothing, or no number where a group has lost its way.
#[cube]
fn forward(
    columns: &[Four],
    bias: &[f32],
    lengths: &[u32],
    exchange: &mut [Four],
    running: &mut [f32],
    packed: &mut [f32],
    gates: &mut [f32],
    trace: &mut [f32],
    sums: &mut Shared<[f32]>,
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    step: u32,
    from: u32,
    to: u32,
    is_last: u32,
    fault: f32,
    #[comptime] cell: Cell,
    #[comptime] units: usize,
    #[comptime] save: bool,
    #[comptime] is_ragged: bool,
) {
    let (batch, steps, hidden, padded) = (batch as usize, steps as usize, hidden as usize, padded as usize);
    let (slice, group, unit) = (CUBE_POS_X as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    let groups = CUBE_COUNT_Y as usize;
    let (row, own) = (unit / units, unit % units);
    let (b, k) = (group * ROWS + row, slice * units + own);
    let is_mine = row < ROWS && b < batch && k < hidden;
    let place = (b * steps + step as usize) * hidden + k;
    let at = (b * steps + step as usize) * comptime!(cell.gates()) * hidden + k;
    let kept = b * hidden + k;
    // What does not depend on other cubes is read while the product waits for what does.
    let mut live = true;
    let mut before = 0.0f32;
    let mut c_before = 0.0f32;
    let mut x0 = 0.0f32;
    let mut x1 = 0.0f32;
    let mut x2 = 0.0f32;
    let mut x3 = 0.0f32;
    if is_mine {
        if comptime!(is_ragged) {
            live = step < lengths[b];
        }
        before = running[kept];
        x0 = gates[at] + bias[k];
        if comptime!(cell != Cell::Rnn) {
            x1 = gates[at + hidden] + bias[hidden + k];
            x2 = gates[at + 2 * hidden] + bias[2 * hidden + k];
            x3 = bias[3 * hidden + k];
        }
        if comptime!(cell == Cell::Lstm) {
            x3 += gates[at + 3 * hidden];
            c_before = running[batch * hidden + kept];
        }
    }
    let first = at_rows(from as usize * groups + group, padded, 0, 0);
    multiply(&*exchange, first, columns, slice * padded * units, padded, sums, units);

    let mut h = 0.0f32;
    if is_mine {
        if comptime!(cell == Cell::Rnn) {
            h = tangent(x0 + sum(&*sums, row, own, 0usize, units));
            if comptime!(save) {
                gates[at] = h;
            }
        } else if comptime!(cell == Cell::Lstm) {
            let i = sigmoid(x0 + sum(&*sums, row, own, 0usize, units));
            let f = sigmoid(x1 + sum(&*sums, row, own, 1usize, units));
            let g = tangent(x2 + sum(&*sums, row, own, 2usize, units));
            let o = sigmoid(x3 + sum(&*sums, row, own, 3usize, units));
            let c_new = f * c_before + i * g;
            h = o * tangent(c_new);
            let c = select(live, c_new, c_before);
            running[batch * hidden + kept] = c;
            if comptime!(save) {
                gates[at] = i;
                gates[at + hidden] = f;
                gates[at + 2 * hidden] = g;
                gates[at + 3 * hidden] = o;
                trace[place] = c;
            }
            if is_last == 1 {
                packed[batch * steps * hidden + kept] = c;
            }
        } else {
            let r = sigmoid(x0 + sum(&*sums, row, own, 0usize, units));
            let z = sigmoid(x1 + sum(&*sums, row, own, 1usize, units));
            let q = x3 + sum(&*sums, row, own, 2usize, units);
            let n = tangent(x2 + r * q);
            h = n + z * (before - n);
            if comptime!(save) {
                gates[at] = r;
                gates[at + hidden] = z;
                gates[at + 2 * hidden] = n;
                trace[place] = q;
            }
        }
        h = select(live, h, before) + fault;
        running[kept] = h;
        packed[place] = h;
    }
    // All sums have been read.
    sync_cube();
    if row < ROWS {
        sums[row * units + own] = h;
    }
    sync_cube();
    if unit < comptime!(ROWS / 4) * units && k_of(slice, unit, units) < padded {
        let other = to as usize * groups + group;
        hand_over(&*sums, 0usize, exchange, other, padded, k_of(slice, unit, units), units);
    }
}
