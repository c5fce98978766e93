//! A step back, and all of them.

use cubecl::prelude::*;

use super::super::cell::tangent;
use super::super::meeting::{fault, meet};
use super::super::tile::{Four, ROWS, SUMS, at_rows, hand_over, k_of, multiply, sum};
use crate::recurrent::Cell;

/// One step back of all rows. `gates` become the gradient of the projected inputs, the GRU's `trace` that of its products.
///
/// `running`: what of the state's gradient does not come by the product, and the gradient of the cells. At no step, the gradient goes on
/// to the first state.
#[cube(launch_unchecked)]
pub(super) fn step_backward(
    columns: &[Four],
    lengths: &[u32],
    gradient: &[f32],
    packed: &[f32],
    state: &[f32],
    exchange: &mut [Four],
    running: &mut [f32],
    gates: &mut [f32],
    trace: &mut [f32],
    ds: &mut [f32],
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    step: u32,
    before: u32,
    from: u32,
    to: u32,
    is_first: u32,
    #[comptime] cell: Cell,
    #[comptime] units: usize,
    #[comptime] is_ragged: bool,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    backward(
        columns, lengths, gradient, packed, state, exchange, running, gates, trace, ds, &mut sums, batch, steps,
        hidden, padded, step, before, from, to, is_first, 0.0f32, cell, units, is_ragged,
    );
}

/// All steps back in one launch, and the gradient of the first state behind them if it is `wanted`.
#[cube(launch_unchecked)]
pub(super) fn whole_backward(
    columns: &[Four],
    lengths: &[u32],
    gradient: &[f32],
    packed: &[f32],
    state: &[f32],
    exchange: &mut [Four],
    running: &mut [f32],
    gates: &mut [f32],
    trace: &mut [f32],
    ds: &mut [f32],
    counters: &[Atomic<u32>],
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    wanted: u32,
    #[comptime] cell: Cell,
    #[comptime] units: usize,
    #[comptime] is_ragged: bool,
    #[comptime] reverse: bool,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    let mut told = Shared::<[u32]>::new_slice(1usize);
    let mut lost = 0u32;
    let mut taken = 0u32;
    while taken < steps + wanted {
        let mut step = u32::MAX.runtime();
        let mut before = u32::MAX.runtime();
        if taken < steps {
            step = if comptime!(reverse) { taken } else { steps - 1 - taken };
            if taken + 1 < steps {
                before = if comptime!(reverse) { step + 1 } else { step - 1 };
            }
        }
        backward(
            columns,
            lengths,
            gradient,
            packed,
            state,
            exchange,
            running,
            gates,
            trace,
            ds,
            &mut sums,
            batch,
            steps,
            hidden,
            padded,
            step,
            before,
            taken,
            taken + 1,
            u32::cast_from(taken == 0),
            fault(lost),
            cell,
            units,
            is_ragged,
        );
        taken += 1;
        lost = meet(&counters[CUBE_POS_Y as usize], taken * CUBE_COUNT_X, &mut told, lost);
    }
}

/// The body of a step back. `fault` is added to the gradients, as on the way forward.
#[cube]
fn backward(
    columns: &[Four],
    lengths: &[u32],
    gradient: &[f32],
    packed: &[f32],
    state: &[f32],
    exchange: &mut [Four],
    running: &mut [f32],
    gates: &mut [f32],
    trace: &mut [f32],
    ds: &mut [f32],
    sums: &mut Shared<[f32]>,
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    step: u32,
    before: u32,
    from: u32,
    to: u32,
    is_first: u32,
    fault: f32,
    #[comptime] cell: Cell,
    #[comptime] units: usize,
    #[comptime] is_ragged: bool,
) {
    let (batch, steps, hidden, padded) = (batch as usize, steps as usize, hidden as usize, padded as usize);
    let (slice, group, unit) = (CUBE_POS_X as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    let (count, states) = (comptime!(cell.gates()), comptime!(cell.states()));
    let groups = CUBE_COUNT_Y as usize;
    let depth = count * padded;
    let wide = comptime!(units / 4);
    let (row, own) = (unit / units, unit % units);
    let (b, k) = (group * ROWS + row, slice * units + own);
    let is_mine = row < ROWS && b < batch && k < hidden;
    let is_step = step != u32::MAX;
    let kept = b * hidden + k;
    let place = (b * steps + step as usize) * hidden + k;
    let at = (b * steps + step as usize) * count * hidden + k;
    // What does not depend on other cubes is read while the product waits for what does.
    let mut live = is_step;
    let mut dh = fault;
    let mut dcell = 0.0f32;
    let mut traced = 0.0f32;
    let mut old = 0.0f32;
    let mut g0 = 0.0f32;
    let mut g1 = 0.0f32;
    let mut g2 = 0.0f32;
    let mut g3 = 0.0f32;
    if is_mine {
        if is_first == 0 {
            dh += running[kept];
            if comptime!(cell == Cell::Lstm) {
                dcell = running[batch * hidden + kept];
            }
        } else if comptime!(cell == Cell::Lstm) {
            dcell = gradient[batch * steps * hidden + kept];
        }
        if is_step {
            if comptime!(is_ragged) {
                live = step < lengths[b];
            }
            dh += gradient[place];
            g0 = gates[at];
            if comptime!(cell != Cell::Rnn) {
                g1 = gates[at + hidden];
                g2 = gates[at + 2 * hidden];
                traced = trace[place];
            }
            if comptime!(cell == Cell::Lstm) {
                g3 = gates[at + 3 * hidden];
            }
            // The cell before, or the GRU's state.
            let past = (b * steps + before as usize) * hidden + k;
            if comptime!(cell == Cell::Lstm) {
                old = if before == u32::MAX { state[b * states * hidden + hidden + k] } else { trace[past] };
            } else if comptime!(cell == Cell::Gru) {
                old = if before == u32::MAX { state[kept] } else { packed[past] };
            }
        }
    }
    // The last step has no gradient from behind.
    let deep = select(is_first == 1, 0, depth);
    let first = at_rows(from as usize * groups + group, depth, 0, 0);
    multiply(&*exchange, first, columns, slice * depth * wide, deep, sums, wide);

    let mut da = 0.0f32;
    let mut db = 0.0f32;
    let mut dc = 0.0f32;
    let mut dd = 0.0f32;
    if is_mine {
        dh += sum(&*sums, row, own / 4, own % 4, wide);
        if is_step {
            let mut direct = dh;
            if live {
                direct = 0.0f32;
                if comptime!(cell == Cell::Rnn) {
                    da = dh * (1.0f32 - g0 * g0);
                } else if comptime!(cell == Cell::Lstm) {
                    let bent = tangent(traced);
                    let d = dcell + dh * g3 * (1.0f32 - bent * bent);
                    da = d * g2 * g0 * (1.0f32 - g0);
                    db = d * old * g1 * (1.0f32 - g1);
                    dc = d * g0 * (1.0f32 - g2 * g2);
                    dd = dh * bent * g3 * (1.0f32 - g3);
                    dcell = d * g1;
                } else {
                    let dn = dh * (1.0f32 - g1) * (1.0f32 - g2 * g2);
                    da = dn * traced * g0 * (1.0f32 - g0);
                    db = dh * (old - g2) * g1 * (1.0f32 - g1);
                    // What goes to the input, and what to the product.
                    dd = dn;
                    dc = dn * g0;
                    direct = dh * g1;
                }
            }
            running[kept] = direct;
            gates[at] = da;
            if comptime!(cell == Cell::Lstm) {
                running[batch * hidden + kept] = dcell;
                gates[at + hidden] = db;
                gates[at + 2 * hidden] = dc;
                gates[at + 3 * hidden] = dd;
            } else if comptime!(cell == Cell::Gru) {
                gates[at + hidden] = db;
                gates[at + 2 * hidden] = dd;
                trace[place] = dc;
            }
        } else {
            ds[b * states * hidden + k] = dh;
            if comptime!(cell == Cell::Lstm) {
                ds[b * states * hidden + hidden + k] = dcell;
            }
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
        let other = to as usize * groups + group;
        #[unroll]
        for gate in 0..count {
            let first = comptime!(gate * ROWS * units);
            hand_over(&*sums, first, exchange, other, depth, gate * padded + k, units);
        }
    }
}

/// `[B·T, H]`: the state before each step.
#[cube(launch_unchecked)]
pub(super) fn states_before(
    packed: &[f32],
    state: &[f32],
    before: &mut [f32],
    size: u32,
    steps: u32,
    hidden: u32,
    states: u32,
    #[comptime] reverse: bool,
) {
    let (place, hidden) = (ABSOLUTE_POS, hidden as usize);
    if place < size as usize {
        let (k, row) = (place % hidden, place / hidden);
        let (b, step) = (row / steps as usize, row % steps as usize);
        let first = b * states as usize * hidden + k;
        if comptime!(reverse) {
            before[place] = if step + 1 == steps as usize { state[first] } else { packed[place + hidden] };
        } else {
            before[place] = if step == 0 { state[first] } else { packed[place - hidden] };
        }
    }
}
