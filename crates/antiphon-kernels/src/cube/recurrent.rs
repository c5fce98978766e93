//! A recurrent layer on a GPU: a launch a step, forward and backward.
//!
//! A cube has sixteen rows and some units with all their gates, multiplies them with the state before ([`tile`](super::tile)), and goes on
//! with the arithmetic of the unit while the sums are at hand. The new state is handed to the other cubes through a buffer that lies
//! as they will read it. On the way back the gradient of the gates takes the state's place. Gradients of the weights are products over
//! all steps at the end.
//!
//! Where cubes can [meet](super::meeting), all steps are taken in one launch, by the same arithmetic. Each step then has a place of its own
//! in that buffer: a cube's cache may keep what it has once read, whatever another cube writes there later. Else two places take
//! turns, since a cube may still read the old state while another one writes the new.

use burn::backend::{Cube, DType, Shape, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::prelude::*;

use super::cell::{sigmoid, tangent};
use super::meeting::{can_meet, fault, meet};
use super::product::{Matrix, product_into, sum_columns};
use super::tile::{self, Four, ROWS, SUMS, at_rows, multiply, sum};
use super::{UNITS, dense, dummy, into_owned, is_f32, unwritten, zeros};
use crate::recurrent::{Cell, Recurrence, RecurrentOps, portable};

impl RecurrentOps for Cube {
    fn recurrent_forward(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        state: CubeTensor,
        run: Recurrence,
        save: bool,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        if !is_f32(&x) {
            return portable::forward::<Self>(x, weight, bias, state, &run);
        }
        let layer = Layer::new(&x, &weight, &run);
        layer.forward(dense(x), &dense(weight), &dense(bias), &dense(state), save)
    }

    fn recurrent_backward(
        gradient: CubeTensor,
        packed: CubeTensor,
        gates: CubeTensor,
        trace: CubeTensor,
        weight: CubeTensor,
        state: CubeTensor,
        run: Recurrence,
        state_gradient: bool,
    ) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        if !is_f32(&gates) {
            return portable::backward::<Self>(gradient, packed, gates, trace, weight, state, &run);
        }
        let layer = Layer::new(&gates, &weight, &run);
        let saved = Saved { packed: dense(packed), gates: into_owned(dense(gates)), trace: into_owned(dense(trace)) };
        layer.backward(&dense(gradient), saved, &dense(weight), &dense(state), state_gradient)
    }
}

/// What the forward pass left.
struct Saved {
    packed: CubeTensor,
    /// Become the gradient of the projected inputs.
    gates: CubeTensor,
    /// The GRU's becomes the gradient of its products.
    trace: CubeTensor,
}

/// Numbers that the steps of one launch hand over at most: a quarter of a GiB.
pub(super) const MOST: usize = 1 << 26;

/// Units of a layer that a cube has: as many as leave enough cubes for a large GPU.
pub(super) fn units_of_a_cube(groups: usize, hidden: usize) -> usize {
    [16, 8].into_iter().find(|&units| groups * hidden.div_ceil(units) >= 96).unwrap_or(4)
}

/// A layer with its sizes, and how its work is dealt.
struct Layer<'a> {
    run: &'a Recurrence,
    batch: usize,
    steps: usize,
    hidden: usize,
    /// `H` as the exchanged states have it: a multiple of four.
    padded: usize,
    groups: usize,
    units: usize,
}

impl<'a> Layer<'a> {
    /// `like`: `[B, T, G·H]`.
    fn new(like: &CubeTensor, weight: &CubeTensor, run: &'a Recurrence) -> Self {
        let (dims, hidden) = (like.shape(), weight.shape()[0]);
        let [batch, steps] = [dims[0], dims[1]];
        let groups = batch.div_ceil(ROWS);
        let units = units_of_a_cube(groups, hidden);
        Self { run, batch, steps, hidden, padded: hidden.next_multiple_of(4), groups, units }
    }

    fn gates(&self) -> usize {
        self.run.cell.gates()
    }

    fn slices(&self) -> usize {
        self.hidden.div_ceil(self.units)
    }

    fn is_lstm(&self) -> bool {
        self.run.cell == Cell::Lstm
    }

    /// One cube a group of rows and a slice of units.
    fn cubes(&self) -> CubeCount {
        CubeCount::Static(self.slices() as u32, self.groups as u32, 1)
    }

    /// Whether all steps are taken in one launch, each of which hands over so many numbers.
    fn meets(&self, client: &Client, place: usize) -> bool {
        self.steps > 1 && place * self.steps <= MOST && can_meet(client, self.slices() * self.groups)
    }

    /// `[B]`: the rows' lengths on the device; any buffer if all rows have all steps.
    fn lengths(&self, like: &CubeTensor) -> CubeTensor {
        let Some(lengths) = &self.run.lengths else {
            return like.clone();
        };
        let bytes: Vec<u8> = lengths.iter().flat_map(|length| length.to_ne_bytes()).collect();
        let handle = like.client.create_from_slice(&bytes);
        let shape = Shape::new([lengths.len()]);
        CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, handle, DType::U32)
    }

    fn forward(
        &self,
        x: CubeTensor,
        weight: &CubeTensor,
        bias: &CubeTensor,
        state: &CubeTensor,
        save: bool,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let (b, t, h, client) = (self.batch, self.steps, self.hidden, x.client.clone());
        let columns = unwritten(&x, [self.slices() * self.padded * self.units * 4]);
        let place = self.groups * self.padded * ROWS;
        let is_whole = self.meets(&client, place);
        let exchange = unwritten(&x, [place * if is_whole { t + 1 } else { 2 }]);
        let running = unwritten(&x, [2 * b * h]);
        let packed = unwritten(&x, [b * t + if self.is_lstm() { b } else { 0 }, h]);
        let gates = if save { into_owned(x) } else { x };
        let traced = save && self.run.cell != Cell::Rnn;
        let trace = if traced { unwritten(&gates, [b, t, h]) } else { dummy(&gates) };
        let lengths = self.lengths(bias);
        let vectors = self.padded * self.units;
        // SAFETY: the kernels read and write no number beyond the buffers, whose sizes follow from those they are given.
        unsafe {
            tile::pack_gates::launch_unchecked(
                &client,
                CubeCount::Static(vectors.div_ceil(UNITS) as u32, self.slices() as u32, 1),
                CubeDim::new_1d(UNITS as u32),
                weight.clone().into_buffer_arg(),
                columns.clone().into_buffer_arg(),
                h as u32,
                h as u32,
                0,
                self.padded as u32,
                self.padded as u32,
                self.gates(),
                self.units,
                self.gates() - 1,
            );
            begin::launch_unchecked(
                &client,
                CubeCount::Static((self.groups * self.padded * ROWS / 4).div_ceil(UNITS) as u32, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                state.clone().into_buffer_arg(),
                exchange.clone().into_buffer_arg(),
                running.clone().into_buffer_arg(),
                b as u32,
                h as u32,
                self.padded as u32,
                self.run.cell.states() as u32,
            );
        }
        if is_whole {
            let counters = zeros(&running, self.groups);
            // SAFETY: as above.
            unsafe {
                whole_forward::launch_unchecked(
                    &client,
                    self.cubes(),
                    CubeDim::new_1d(UNITS as u32),
                    columns.into_buffer_arg(),
                    bias.clone().into_buffer_arg(),
                    lengths.into_buffer_arg(),
                    exchange.into_buffer_arg(),
                    running.clone().into_buffer_arg(),
                    packed.clone().into_buffer_arg(),
                    gates.clone().into_buffer_arg(),
                    trace.clone().into_buffer_arg(),
                    counters.into_buffer_arg(),
                    b as u32,
                    t as u32,
                    h as u32,
                    self.padded as u32,
                    self.run.cell,
                    self.units,
                    save,
                    self.run.lengths.is_some(),
                    self.run.reverse,
                );
            }
            return (packed, if save { gates } else { dummy(&running) }, trace);
        }
        for (s, step) in self.run.order(t).enumerate() {
            // SAFETY: as above.
            unsafe {
                step_forward::launch_unchecked(
                    &client,
                    self.cubes(),
                    CubeDim::new_1d(UNITS as u32),
                    columns.clone().into_buffer_arg(),
                    bias.clone().into_buffer_arg(),
                    lengths.clone().into_buffer_arg(),
                    exchange.clone().into_buffer_arg(),
                    running.clone().into_buffer_arg(),
                    packed.clone().into_buffer_arg(),
                    gates.clone().into_buffer_arg(),
                    trace.clone().into_buffer_arg(),
                    b as u32,
                    t as u32,
                    h as u32,
                    self.padded as u32,
                    step as u32,
                    (s % 2) as u32,
                    (1 - s % 2) as u32,
                    u32::from(s + 1 == t),
                    self.run.cell,
                    self.units,
                    save,
                    self.run.lengths.is_some(),
                );
            }
        }
        (packed, if save { gates } else { dummy(&running) }, trace)
    }

    fn backward(
        &self,
        gradient: &CubeTensor,
        saved: Saved,
        weight: &CubeTensor,
        state: &CubeTensor,
        state_gradient: bool,
    ) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        let (b, t, h, client) = (self.batch, self.steps, self.hidden, gradient.client.clone());
        let (gates, cell, wide) = (self.gates(), self.run.cell, self.units / 4);
        let Saved { packed, gates: dx, trace } = saved;
        let depth = gates * self.padded;
        let columns = unwritten(&dx, [self.slices() * depth * self.units]);
        let place = self.groups * depth * ROWS;
        let is_whole = self.meets(&client, place);
        let exchange = unwritten(&dx, [place * if is_whole { t + 2 } else { 2 }]);
        let running = unwritten(&dx, [2 * b * h]);
        let ds = if state_gradient { unwritten(&dx, [b, cell.states() * h]) } else { dummy(&dx) };
        let lengths = self.lengths(weight);
        // SAFETY: the kernels read and write no number beyond the buffers, whose sizes follow from those they are given.
        unsafe {
            tile::pack_units::launch_unchecked(
                &client,
                CubeCount::Static((depth * wide).div_ceil(UNITS) as u32, self.slices() as u32, 1),
                CubeDim::new_1d(UNITS as u32),
                weight.clone().into_buffer_arg(),
                columns.clone().into_buffer_arg(),
                h as u32,
                h as u32,
                self.padded as u32,
                0,
                0,
                gates,
                wide,
            );
        }
        if is_whole {
            let counters = zeros(&dx, self.groups);
            // SAFETY: as above.
            unsafe {
                whole_backward::launch_unchecked(
                    &client,
                    self.cubes(),
                    CubeDim::new_1d(UNITS as u32),
                    columns.into_buffer_arg(),
                    lengths.into_buffer_arg(),
                    gradient.clone().into_buffer_arg(),
                    packed.clone().into_buffer_arg(),
                    state.clone().into_buffer_arg(),
                    exchange.into_buffer_arg(),
                    running.into_buffer_arg(),
                    dx.clone().into_buffer_arg(),
                    trace.clone().into_buffer_arg(),
                    ds.clone().into_buffer_arg(),
                    counters.into_buffer_arg(),
                    b as u32,
                    t as u32,
                    h as u32,
                    self.padded as u32,
                    u32::from(state_gradient),
                    cell,
                    self.units,
                    self.run.lengths.is_some(),
                    self.run.reverse,
                );
            }
            let (dw, db) = self.parameters(&dx, &trace, &packed, state);
            return (dx, dw, db, ds);
        }
        let order: Vec<usize> = self.run.order(t).collect();
        // Behind the first step, its gradient goes on to the state before it.
        for (taken, s) in (0..t).rev().chain(state_gradient.then_some(usize::MAX)).enumerate() {
            let step = order.get(s).copied();
            let before = if s == 0 { None } else { order.get(s.wrapping_sub(1)).copied() };
            let number = |step: Option<usize>| step.map_or(u32::MAX, |step| step as u32);
            // SAFETY: as above.
            unsafe {
                step_backward::launch_unchecked(
                    &client,
                    self.cubes(),
                    CubeDim::new_1d(UNITS as u32),
                    columns.clone().into_buffer_arg(),
                    lengths.clone().into_buffer_arg(),
                    gradient.clone().into_buffer_arg(),
                    packed.clone().into_buffer_arg(),
                    state.clone().into_buffer_arg(),
                    exchange.clone().into_buffer_arg(),
                    running.clone().into_buffer_arg(),
                    dx.clone().into_buffer_arg(),
                    trace.clone().into_buffer_arg(),
                    ds.clone().into_buffer_arg(),
                    b as u32,
                    t as u32,
                    h as u32,
                    self.padded as u32,
                    number(step),
                    number(before),
                    (taken % 2) as u32,
                    (1 - taken % 2) as u32,
                    u32::from(taken == 0),
                    cell,
                    self.units,
                    self.run.lengths.is_some(),
                );
            }
        }
        let (dw, db) = self.parameters(&dx, &trace, &packed, state);
        (dx, dw, db, ds)
    }

    /// The gradients of the weight and of the bias, from those of all sums.
    fn parameters(
        &self,
        dx: &CubeTensor,
        trace: &CubeTensor,
        packed: &CubeTensor,
        state: &CubeTensor,
    ) -> (CubeTensor, CubeTensor) {
        let (b, t, h, width) = (self.batch, self.steps, self.hidden, self.gates() * self.hidden);
        let before = unwritten(dx, [b * t, h]);
        // SAFETY: the kernel reads and writes no number beyond the buffers.
        unsafe {
            states_before::launch_unchecked(
                &dx.client,
                CubeCount::Static((b * t * h).div_ceil(UNITS) as u32, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                packed.clone().into_buffer_arg(),
                state.clone().into_buffer_arg(),
                before.clone().into_buffer_arg(),
                (b * t * h) as u32,
                t as u32,
                h as u32,
                self.run.cell.states() as u32,
                self.run.reverse,
            );
        }
        let (dw, db) = (unwritten(dx, [h, width]), unwritten(dx, [self.run.cell.biases() * h]));
        sum_columns(dx, [b * t, width, width], &db, 0);
        let before = Matrix::transposed(&before, h);
        if self.run.cell == Cell::Gru {
            // The product's part of the candidate stands inside the reset gate.
            product_into([h, b * t, 2 * h], before.clone(), Matrix::rows(dx, width), &dw, [0, width]);
            product_into([h, b * t, h], before, Matrix::rows(trace, h), &dw, [2 * h, width]);
            sum_columns(trace, [b * t, h, h], &db, width);
        } else {
            product_into([h, b * t, width], before, Matrix::rows(dx, width), &dw, [0, width]);
        }
        (dw, db)
    }
}

/// Lays the first state out: where the cubes read it, and where each keeps its own.
#[cube(launch_unchecked)]
fn begin(state: &[f32], exchange: &mut [Four], running: &mut [f32], batch: u32, hidden: u32, padded: u32, states: u32) {
    let (batch, hidden, padded) = (batch as usize, hidden as usize, padded as usize);
    let place = ABSOLUTE_POS as usize;
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

/// Writes what the cube's units made for their rows where the other cubes read it: `made` is `[ROWS][units]` in shared memory.
#[cube]
pub(super) fn hand_over(
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

/// One step of all rows: `gates` holds the projected inputs and becomes the activated gates, if they are saved.
#[cube(launch_unchecked)]
fn step_forward(
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
fn whole_forward(
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

/// The number of a unit of the layer that a unit of the cube hands over.
#[cube]
pub(super) fn k_of(slice: usize, unit: usize, #[comptime] units: usize) -> usize {
    slice * units + unit % units
}

/// One step back of all rows. `gates` become the gradient of the projected inputs, the GRU's `trace` that of its products.
///
/// `running`: what of the state's gradient does not come by the product, and the gradient of the cells. At no step, the gradient goes on
/// to the first state.
#[cube(launch_unchecked)]
fn step_backward(
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
fn whole_backward(
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
fn states_before(
    packed: &[f32],
    state: &[f32],
    before: &mut [f32],
    size: u32,
    steps: u32,
    hidden: u32,
    states: u32,
    #[comptime] reverse: bool,
) {
    let (place, hidden) = (ABSOLUTE_POS as usize, hidden as usize);
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
