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

mod backward;
mod forward;

use burn::backend::{Cube, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::prelude::*;

use super::meeting::can_meet;
use super::product::{Matrix, product_into, sum_columns};
use super::tile::{self, ROWS};
use super::{UNITS, cubes, dense, dummy, into_owned, is_f32, unwritten, upload, zeros};
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
        self.run.lengths.as_ref().map_or_else(|| like.clone(), |lengths| upload(lengths, like))
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
            forward::begin::launch_unchecked(
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
                forward::whole_forward::launch_unchecked(
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
                forward::step_forward::launch_unchecked(
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
                backward::whole_backward::launch_unchecked(
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
                backward::step_backward::launch_unchecked(
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
            backward::states_before::launch_unchecked(
                &dx.client,
                cubes(b * t * h),
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
