//! All steps in one launch, where cubes can wait for each other.
//!
//! A group of rows has as many cubes as fit. Each takes every so many of the slices, or rows, of each part of a step, and then waits for
//! the others of the group: `counters` counts their arrivals.
//!
//! What a cube has read it may go on reading as it was, whatever others write there meanwhile, and what it has written a part of it may
//! read as the rest was then: the first caches of a GPU's processors are not told. So each step has its own place in the exchange; what
//! is read of others elsewhere is a row of whole lines, and written 32 bytes at least at once; what goes on from step to step is read by the cube
//! that wrote it. For the same reason a look at the memory has two parts: the scores of a row, and then some columns of all rows.

use cubecl::prelude::*;

use super::super::attention::kernels as look;
use super::super::cell::tangent;
use super::super::meeting::{fault, meet};
use super::super::tile::{Four, ROWS, SUMS, hand_over, k_of};
use super::backward::{before_back, blocks, cell_back, readout_back};
use super::forward::{cell_of, query_of, readout_of};
use crate::recurrent::Cell;

/// Columns of contexts and queries that a cube makes at once, of sixteen rows.
const COLUMNS: usize = 16;

/// Forward: see [`forward`](super::forward).
#[cube(launch_unchecked)]
pub(super) fn whole_forward(
    of_cell: &[Four],
    of_query: &[Four],
    of_readout: &[Four],
    bias: &[f32],
    readout_bias: &[f32],
    table: &[u32],
    state: &[f32],
    keys: &[f32],
    memory: &[f32],
    energy: &[f32],
    exchange: &mut [Four],
    gates: &mut [f32],
    trace: &mut [f32],
    hiddens: &mut [f32],
    queries: &mut [f32],
    weights: &mut [f32],
    contexts: &mut [f32],
    outputs: &mut [f32],
    counters: &[Atomic<u32>],
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    width: u32,
    fed: u32,
    depth: u32,
    s: u32,
    stride: u32,
    a: u32,
    m: u32,
    parts: u32,
    cell_slices: u32,
    query_slices: u32,
    readout_slices: u32,
    threshold: u32,
    keep: f32,
    #[comptime] kind: Cell,
    #[comptime] cell_units: usize,
    #[comptime] query_wide: usize,
    #[comptime] readout_wide: usize,
    #[comptime] additive: bool,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    let mut told = Shared::<[u32]>::new_slice(1usize);
    let mut lost = 0u32;
    let mut met = 0u32;
    let mut t = 0u32;
    while t < steps {
        let mut slice = CUBE_POS_X;
        while slice < cell_slices {
            cell_of(
                of_cell,
                bias,
                table,
                state,
                exchange,
                gates,
                trace,
                hiddens,
                &mut sums,
                slice,
                batch,
                steps,
                hidden,
                padded,
                fed,
                depth,
                t,
                t,
                t + 1,
                fault(lost),
                kind,
                cell_units,
            );
            sync_cube();
            slice += CUBE_COUNT_X;
        }
        met += CUBE_COUNT_X;
        lost = meet(&counters[CUBE_POS_Y as usize], met, &mut told, lost);
        if comptime!(additive) {
            slice = CUBE_POS_X;
            while slice < query_slices {
                query_of(
                    of_query,
                    &*exchange,
                    queries,
                    &mut sums,
                    slice,
                    batch,
                    steps,
                    a,
                    padded,
                    fed,
                    depth,
                    t,
                    t + 1,
                    query_wide,
                );
                sync_cube();
                slice += CUBE_COUNT_X;
            }
            met += CUBE_COUNT_X;
            lost = meet(&counters[CUBE_POS_Y as usize], met, &mut told, lost);
        }
        let mut row = CUBE_POS_X;
        while row < comptime!(ROWS as u32) {
            let b = CUBE_POS_Y * comptime!(ROWS as u32) + row;
            if b < batch {
                if comptime!(additive) {
                    look::weigh(
                        &*queries, keys, energy, table, weights, &mut sums, steps, b, t, s, stride, a, parts, additive,
                    );
                } else {
                    look::weigh(
                        &*hiddens, keys, energy, table, weights, &mut sums, steps, b, t, s, stride, a, parts, additive,
                    );
                }
            }
            sync_cube();
            row += CUBE_COUNT_X;
        }
        met += CUBE_COUNT_X;
        lost = meet(&counters[CUBE_POS_Y as usize], met, &mut told, lost);
        slice = CUBE_POS_X;
        while slice < m.div_ceil(comptime!(COLUMNS as u32)) {
            context_of(
                memory,
                table,
                &*weights,
                contexts,
                exchange,
                &mut sums,
                slice,
                batch,
                steps,
                s,
                stride,
                m,
                fed + padded,
                depth,
                t,
                t + 1,
            );
            sync_cube();
            slice += CUBE_COUNT_X;
        }
        met += CUBE_COUNT_X;
        lost = meet(&counters[CUBE_POS_Y as usize], met, &mut told, lost);
        slice = CUBE_POS_X;
        while slice < readout_slices {
            readout_of(
                of_readout,
                readout_bias,
                table,
                exchange,
                outputs,
                &mut sums,
                slice,
                batch,
                steps,
                width,
                fed,
                depth,
                t,
                t + 1,
                threshold,
                keep,
                fault(lost),
                readout_wide,
            );
            sync_cube();
            slice += CUBE_COUNT_X;
        }
        met += CUBE_COUNT_X;
        lost = meet(&counters[CUBE_POS_Y as usize], met, &mut told, lost);
        t += 1;
    }
}

/// Back: see [`backward`](super::backward).
#[cube(launch_unchecked)]
pub(super) fn whole_backward(
    of_before: &[Four],
    of_readout: &[Four],
    of_cell: &[Four],
    table: &[u32],
    state: &[f32],
    keys: &[f32],
    memory: &[f32],
    energy: &[f32],
    gradient: &[f32],
    outputs: &[f32],
    hiddens: &[f32],
    queries: &[f32],
    weights: &[f32],
    exchange: &mut [Four],
    running: &mut [f32],
    gates: &mut [f32],
    trace: &mut [f32],
    dsums: &mut [f32],
    dcontexts: &mut [f32],
    dscores: &mut [f32],
    dquery: &mut [f32],
    counters: &[Atomic<u32>],
    batch: u32,
    steps: u32,
    hidden: u32,
    padded: u32,
    width: u32,
    fed: u32,
    asked: u32,
    s: u32,
    stride: u32,
    a: u32,
    m: u32,
    parts: u32,
    before_slices: u32,
    state_slices: u32,
    readout_slices: u32,
    cell_slices: u32,
    threshold: u32,
    keep: f32,
    #[comptime] kind: Cell,
    #[comptime] before_wide: usize,
    #[comptime] readout_wide: usize,
    #[comptime] cell_wide: usize,
    #[comptime] additive: bool,
) {
    let mut sums = Shared::<[f32]>::new_slice(SUMS);
    let mut told = Shared::<[u32]>::new_slice(1usize);
    let mut lost = 0u32;
    let all = fed + asked + comptime!(blocks(kind) as u32) * padded;
    let mut met = 0u32;
    let mut left = steps + 1;
    while left > 0 {
        left -= 1;
        // Behind the last step there is nothing but what comes from the loss.
        if left < steps {
            let mut slice = CUBE_POS_X;
            while slice < readout_slices {
                readout_back(
                    of_readout,
                    &*exchange,
                    running,
                    dcontexts,
                    &mut sums,
                    slice,
                    batch,
                    steps,
                    hidden,
                    m,
                    fed,
                    all,
                    left,
                    left,
                    state_slices,
                    readout_wide,
                );
                sync_cube();
                slice += CUBE_COUNT_X;
            }
            met += CUBE_COUNT_X;
            lost = meet(&counters[CUBE_POS_Y as usize], met, &mut told, lost);
            let mut row = CUBE_POS_X;
            while row < comptime!(ROWS as u32) {
                let b = CUBE_POS_Y * comptime!(ROWS as u32) + row;
                if b < batch {
                    look::to_scores(
                        &*dcontexts,
                        memory,
                        table,
                        weights,
                        dscores,
                        &mut sums,
                        steps,
                        b,
                        left,
                        s,
                        stride,
                        m,
                    );
                }
                sync_cube();
                row += CUBE_COUNT_X;
            }
            met += CUBE_COUNT_X;
            lost = meet(&counters[CUBE_POS_Y as usize], met, &mut told, lost);
            slice = CUBE_POS_X;
            while slice < a.div_ceil(comptime!(COLUMNS as u32)) {
                query_back(
                    queries, keys, energy, table, &*dscores, dquery, exchange, &mut sums, slice, batch, steps, s,
                    stride, a, parts, fed, all, left, left, additive,
                );
                sync_cube();
                slice += CUBE_COUNT_X;
            }
            met += CUBE_COUNT_X;
            lost = meet(&counters[CUBE_POS_Y as usize], met, &mut told, lost);
            slice = CUBE_POS_X;
            while slice < cell_slices {
                cell_back(
                    of_cell,
                    table,
                    state,
                    hiddens,
                    exchange,
                    running,
                    gates,
                    trace,
                    &mut sums,
                    slice,
                    batch,
                    steps,
                    hidden,
                    padded,
                    fed,
                    asked,
                    left,
                    left,
                    fault(lost),
                    kind,
                    cell_wide,
                    additive,
                );
                sync_cube();
                slice += CUBE_COUNT_X;
            }
            met += CUBE_COUNT_X;
            lost = meet(&counters[CUBE_POS_Y as usize], met, &mut told, lost);
        }
        let mut slice = CUBE_POS_X;
        while slice < before_slices {
            before_back(
                of_before,
                table,
                exchange,
                gradient,
                outputs,
                running,
                dsums,
                &mut sums,
                slice,
                batch,
                steps,
                hidden,
                padded,
                width,
                fed,
                asked,
                left,
                select(left < steps, left, 0u32),
                select(left > 0, left - 1, 0u32),
                state_slices,
                threshold,
                keep,
                fault(lost),
                kind,
                before_wide,
            );
            sync_cube();
            slice += CUBE_COUNT_X;
        }
        met += CUBE_COUNT_X;
        lost = meet(&counters[CUBE_POS_Y as usize], met, &mut told, lost);
    }
}

/// Some columns of the contexts of step `t`, from the weights; they are also laid in a place of the exchange, from `at` of its depth on.
#[cube]
fn context_of(
    memory: &[f32],
    table: &[u32],
    weights: &[f32],
    contexts: &mut [f32],
    exchange: &mut [Four],
    sums: &mut Shared<[f32]>,
    slice: u32,
    batch: u32,
    steps: u32,
    s: u32,
    stride: u32,
    m: u32,
    at: u32,
    depth: u32,
    t: u32,
    place: u32,
) {
    let (slice, group, unit) = (slice as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    let (s, m) = (s as usize, m as usize);
    let (row, own) = (unit / COLUMNS, unit % COLUMNS);
    let (b, k) = (group * ROWS + row, slice * COLUMNS + own);
    let mut x = 0.0f32;
    if b < batch as usize && k < m {
        let query = b * steps as usize + t as usize;
        let real = select(t < table[b * 3 + 2], table[b * 3 + 1], 0u32) as usize;
        let (first, from) = (query * stride as usize, table[b * 3] as usize * s * m + k);
        for i in 0..real {
            x = fma(weights[first + i], memory[from + i * m], x);
        }
        contexts[query * m + k] = x;
    }
    sums[row * COLUMNS + own] = x;
    sync_cube();
    let k = k_of(slice, unit, COLUMNS);
    if unit < comptime!(ROWS / 4 * COLUMNS) && k < m.div_ceil(4) * 4 {
        let to = place as usize * CUBE_COUNT_Y as usize + group;
        hand_over(&*sums, 0usize, exchange, to, depth as usize, at as usize + k, COLUMNS);
    }
}

/// The same of the gradients of the queries, from those of the scores.
#[cube]
fn query_back(
    query: &[f32],
    keys: &[f32],
    energy: &[f32],
    table: &[u32],
    dscores: &[f32],
    dquery: &mut [f32],
    exchange: &mut [Four],
    sums: &mut Shared<[f32]>,
    slice: u32,
    batch: u32,
    steps: u32,
    s: u32,
    stride: u32,
    a: u32,
    parts: u32,
    at: u32,
    depth: u32,
    t: u32,
    place: u32,
    #[comptime] additive: bool,
) {
    let (slice, group, unit) = (slice as usize, CUBE_POS_Y as usize, UNIT_POS as usize);
    let (s, a) = (s as usize, a as usize);
    let (row, own) = (unit / COLUMNS, unit % COLUMNS);
    let (b, k) = (group * ROWS + row, slice * COLUMNS + own);
    let mut x = 0.0f32;
    if b < batch as usize && k < a {
        let asked = b * steps as usize + t as usize;
        let real = select(t < table[b * 3 + 2], table[b * 3 + 1], 0u32) as usize;
        let (first, from) = (asked * stride as usize, table[b * 3] as usize * s * a + k);
        if comptime!(additive) {
            let own = query[asked * a + k];
            for i in 0..real {
                let e = tangent(own + keys[from + i * a]);
                x = fma(dscores[first + i], 1.0f32 - e * e, x);
            }
            x *= energy[b % parts as usize * a + k];
        } else {
            for i in 0..real {
                x = fma(dscores[first + i], keys[from + i * a], x);
            }
        }
        dquery[asked * a + k] = x;
    }
    sums[row * COLUMNS + own] = x;
    sync_cube();
    let k = k_of(slice, unit, COLUMNS);
    if unit < comptime!(ROWS / 4 * COLUMNS) && k < a.div_ceil(4) * 4 {
        let to = place as usize * CUBE_COUNT_Y as usize + group;
        hand_over(&*sums, 0usize, exchange, to, depth as usize, at as usize + k, COLUMNS);
    }
}
