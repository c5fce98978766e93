//! The recurrent sequence on slices, for the Flex CPU backend.
//!
//! Rows of a batch are independent, so each thread takes a block of rows and walks them through all steps with no barrier
//! inside the sequence. A thread keeps the running state of its rows together, the longest row first, so that a step is
//! one dense product over the rows that are real there, followed by one vectorised pass over the gates. The weight
//! gradient is one product over all real steps at the end.
//!
//! Where there are not rows enough for all threads, several share a block: each has some of the units, with the columns of the
//! weight that these need, and all wait for each other once a step ([`in_step`]). Each number is summed in the same order
//! however many there are.

use std::mem::MaybeUninit;
use std::sync::Mutex;

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use rayon::prelude::*;

use super::gates::{self, StepBack, Units};
use super::{Cell, Recurrence, RecurrentOps, portable};
use crate::blocks::{Division, deal, real_steps, rows_mut};
use crate::flex::{dense, dummy, into_owned, is_f32, slice, slice_mut, wrap};
use crate::memory::{unwritten, written};
use crate::packed::{Blocks, Packed};
use crate::product::{Strides, product_into};
use crate::team::{Divided, in_step};

impl RecurrentOps for Flex {
    fn recurrent_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        state: FloatTensor<Self>,
        run: Recurrence,
        save: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if !is_f32(&x) {
            return portable::forward::<Self>(x, weight, bias, state, &run);
        }
        let (x, weight, bias, state) = (dense(x), dense(weight), dense(bias), dense(state));
        let layer = Layer::new(&run, x.shape().as_slice(), slice(&weight));
        let mut gates = into_owned(x);
        let (packed, trace) = layer.forward(slice_mut(&mut gates), slice(&bias), slice(&state), save);
        let packed = wrap(packed, [layer.packed_rows(), layer.hidden]);
        match trace {
            Some(trace) => (packed, gates, wrap(trace, [layer.batch, layer.steps, layer.hidden])),
            None => (packed, if save { gates } else { dummy() }, dummy()),
        }
    }

    fn recurrent_backward(
        gradient: FloatTensor<Self>,
        packed: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        trace: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        state: FloatTensor<Self>,
        run: Recurrence,
        state_gradient: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if !is_f32(&gates) {
            return portable::backward::<Self>(gradient, packed, gates, trace, weight, state, &run);
        }
        let (gradient, weight, state) = (dense(gradient), dense(weight), dense(state));
        let layer = Layer::new(&run, gates.shape().as_slice(), slice(&weight));
        let (b, h, g) = (layer.batch, layer.hidden, layer.width);
        let mut gates = into_owned(dense(gates));
        let mut trace = layer.traced().then(|| into_owned(dense(trace)));
        let saved = Saved {
            packed: slice(&packed),
            state: slice(&state),
            gates: slice_mut(&mut gates),
            trace: trace.as_mut().map(slice_mut),
        };
        let found = layer.backward(slice(&gradient), saved, state_gradient);
        let ds = if state_gradient { wrap(found.state, [b, run.cell.states() * h]) } else { dummy() };
        (gates, wrap(found.weight, [h, g]), wrap(found.bias, [run.cell.biases() * h]), ds)
    }
}

/// A layer with its sizes: `B`, `T`, `H`, `G·H`.
struct Layer<'a> {
    run: &'a Recurrence,
    weight: &'a [f32],
    batch: usize,
    steps: usize,
    hidden: usize,
    width: usize,
}

/// What the forward pass left.
struct Saved<'a> {
    packed: &'a [f32],
    state: &'a [f32],
    /// Become the gradient of the projected inputs.
    gates: &'a mut [f32],
    /// The GRU's becomes the gradient of its products.
    trace: Option<&'a mut [f32]>,
}

/// The other gradients.
struct Gradient {
    weight: Vec<f32>,
    bias: Vec<f32>,
    state: Vec<f32>,
}

/// A row on its way forward.
struct Forward<'a> {
    /// Its real steps.
    live: usize,
    /// Projected inputs, become activated gates.
    gates: Divided<'a, f32>,
    /// The initial state.
    state: &'a [f32],
    sequence: Divided<'a, MaybeUninit<f32>>,
    /// The final cell of an LSTM.
    cell: Option<&'a mut [MaybeUninit<f32>]>,
    /// Cells (LSTM) or products in the reset gate (GRU) of every step, if they are to be saved.
    trace: Option<Divided<'a, MaybeUninit<f32>>>,
}

/// A row on its way back.
struct Backward<'a> {
    live: usize,
    state: &'a [f32],
    sequence: &'a [f32],
    /// The gradient of the sequence, and of the final cell of an LSTM.
    gradient: (&'a [f32], Option<&'a [f32]>),
    /// See [`Saved`].
    gates: Divided<'a, f32>,
    trace: Option<Divided<'a, f32>>,
    /// The state before each real step.
    before: Divided<'a, MaybeUninit<f32>>,
    ds: &'a mut [f32],
}

/// What a share of a block keeps from step to step on the way forward, a row after the other.
#[repr(align(128))] // no line of the caches is another share's
struct Ahead {
    /// An LSTM's cells; the GRU's inner products of the current step.
    inner: Vec<f32>,
    /// The recurrent product of the current step.
    z: Vec<f32>,
}

/// The same on the way back.
#[repr(align(128))]
struct Behind {
    dh: Vec<f32>,
    /// An LSTM's.
    dc: Vec<f32>,
    /// Of the bias.
    db: Vec<f32>,
}

impl<'a> Layer<'a> {
    fn new(run: &'a Recurrence, x: &[usize], weight: &'a [f32]) -> Self {
        let (batch, steps, width) = (x[0], x[1], x[2]);
        Self { run, weight, batch, steps, width, hidden: width / run.cell.gates() }
    }

    /// Rows of the packed output.
    fn packed_rows(&self) -> usize {
        self.batch * (self.steps + self.run.cell.states() - 1)
    }

    /// Numbers in a sequence of hidden states.
    fn sequence_len(&self) -> usize {
        self.batch * self.steps * self.hidden
    }

    /// Whether the backward pass needs more than gates and outputs: cells (LSTM), or products in the reset gate (GRU).
    fn traced(&self) -> bool {
        self.run.cell != Cell::Rnn
    }

    /// Real steps of row `b`.
    fn live(&self, b: usize) -> usize {
        self.run.lengths.as_ref().map_or(self.steps, |lengths| (lengths[b] as usize).min(self.steps))
    }

    /// How the batch is divided among threads.
    fn division(&self) -> Division {
        Division::of(self.batch, self.hidden * self.width, self.hidden)
    }

    /// `gates`: projected inputs on entry, activated gates on return. → packed output, and the trace if `save`
    fn forward(&self, gates: &mut [f32], bias: &[f32], state: &[f32], save: bool) -> (Vec<f32>, Option<Vec<f32>>) {
        let (h, t, n, g) = (self.hidden, self.steps, self.run.cell.states(), self.run.cell.gates());
        let division = self.division();
        let shares = Units::shares(h, division.shares);
        let columns = |units: &Units| {
            let blocks = Blocks { width: units.width, apart: h };
            Packed::of_blocks(self.weight, Strides::rows(self.width).at(units.first), [h, g * units.width], blocks)
        };
        let weights: Vec<Packed> = shares.par_iter().map(columns).collect();
        let mut packed = unwritten(self.packed_rows() * h);
        let mut trace = (save && self.traced()).then(|| unwritten(self.sequence_len()));
        let (sequence, cell) = packed.split_at_mut(self.sequence_len());
        let cells = rows_mut((n == 2).then_some(cell), h, self.batch);
        let traces = rows_mut(trace.as_deref_mut(), t * h, self.batch);
        let rows = gates.chunks_exact_mut(t * self.width).zip(state.chunks_exact(n * h));
        let rows = rows.zip(sequence.chunks_exact_mut(t * h)).zip(cells.into_iter().zip(traces)).enumerate();
        let rows = rows.map(|(b, (((gates, state), sequence), (cell, trace)))| {
            let (gates, sequence) = (Divided::new(gates), Divided::new(sequence));
            let live = self.live(b);
            (live, Forward { live, gates, state, sequence, cell, trace: trace.map(Divided::new) })
        });
        let blocks = deal(rows.collect(), division.blocks);
        blocks.into_par_iter().for_each(|block| self.forward_block(block, &shares, &weights, bias, save));
        // SAFETY: a block writes its rows at every step, real or not, and the cells at the end.
        unsafe { (written(packed), trace.map(|trace| written(trace))) }
    }

    /// Walks a block's rows, the longest first, through all steps: those that are real at a step come first. Each share makes
    /// the columns of the products that its units need, and so nothing that it reads but the states is another's.
    fn forward_block(
        &self,
        mut block: Vec<Forward<'_>>,
        shares: &[Units],
        weights: &[Packed],
        bias: &[f32],
        save: bool,
    ) {
        let take_step = if save { gates::forward } else { gates::infer };
        let (h, g, n, rows) = (self.hidden, self.width, self.run.cell.states(), block.len());
        let order: Vec<usize> = self.run.order(self.steps).collect();
        let live: Vec<usize> = order.iter().map(|&t| block.partition_point(|row| t < row.live)).collect();
        // The states before and after a step, in turn; where nobody else reads them, in one place.
        let alone = shares.len() == 1;
        let mut hidden: [Vec<f32>; 2] = [
            block.iter().flat_map(|row| &row.state[..h]).copied().collect(),
            vec![0.0; if alone { 0 } else { rows * h }],
        ];
        // A zero state needs no product.
        let at_zero = match hidden[0].iter().all(|&v| v == 0.0) {
            true => live.iter().position(|&live| live > 0).map_or(self.steps, |first| first + 1),
            false => 0,
        };
        let hidden = hidden.each_mut().map(|states| Divided::new(states));
        let own = shares.iter().map(|units| {
            let inner = match n {
                2 => block.iter().flat_map(|row| &row.state[h + units.first..][..units.width]).copied().collect(),
                _ => vec![0.0; rows * units.width],
            };
            Mutex::new(Ahead { inner, z: vec![0.0; rows * g / h * units.width] })
        });
        let own: Vec<Mutex<Ahead>> = own.collect();
        in_step(self.steps, shares.len(), |step, share| {
            let (t, live, units) = (order[step], live[step], &shares[share]);
            let w = units.width;
            let Ahead { inner, z } = &mut *own[share].lock().expect("a share's thread ended well");
            let [before, after] = if alone { [&hidden[0]; 2] } else { [step % 2, (step + 1) % 2].map(|i| &hidden[i]) };
            if step >= at_zero {
                // SAFETY: the parts of the last step, which have ended, wrote it; those of this one write elsewhere, but for a lone
                // share, which does so below.
                let before = unsafe { before.read(0, live * h) };
                weights[share].multiply_at(step, before, &mut z[..live * g / h * w], false);
            }
            let bias = units.pieces(bias);
            for (r, row) in block.iter().enumerate() {
                let inner = &mut inner[r * w..][..w];
                // SAFETY: these units are this share's, whose parts follow each other.
                let (state, sequence) =
                    unsafe { (after.write(r * h + units.first, w), row.sequence.write(t * h + units.first, w)) };
                if !alone {
                    // SAFETY: as above.
                    state.copy_from_slice(unsafe { before.read(r * h + units.first, w) });
                }
                if r < live {
                    // SAFETY: the same.
                    let x = unsafe { units.divided(&row.gates, t * g, g / h) };
                    take_step(self.run.cell, x, &z[r * g / h * w..][..g / h * w], bias, inner, state);
                }
                sequence.write_copy_of_slice(state);
                if let Some(trace) = &row.trace {
                    // SAFETY: the same.
                    unsafe { trace.write(t * h + units.first, w) }.write_copy_of_slice(inner);
                }
            }
        });
        for (own, units) in own.into_iter().zip(shares) {
            let own = own.into_inner().expect("a share's thread ended well");
            for (row, inner) in block.iter_mut().zip(own.inner.chunks_exact(units.width)) {
                if let Some(cell) = row.cell.as_deref_mut() {
                    cell[units.first..][..units.width].write_copy_of_slice(inner);
                }
            }
        }
    }

    fn backward(&self, gradient: &[f32], saved: Saved<'_>, state_gradient: bool) -> Gradient {
        let (h, g, t, n) = (self.hidden, self.width, self.steps, self.run.cell.states());
        let Saved { packed, state, gates, mut trace } = saved;
        let division = self.division();
        let shares = Units::shares(h, division.shares);
        let columns =
            |units: &Units| Packed::new(self.weight, Strides::transposed(g).at(units.first * g), [g, units.width]);
        let transposed: Vec<Packed> = shares.par_iter().map(columns).collect();
        let lives: Vec<usize> = (0..self.batch).map(|b| self.live(b)).collect();
        let real: usize = lives.iter().sum();
        let mut before = unwritten(real * h);
        let mut ds = vec![0.0; self.batch * n * h];
        let (of_sequence, of_cell) = gradient.split_at(self.sequence_len());
        let mut left = &mut before[..];
        let buffers = gates.chunks_exact_mut(t * g).zip(ds.chunks_exact_mut(n * h));
        let buffers = buffers.zip(rows_mut(trace.as_deref_mut(), t * h, self.batch));
        let rows = buffers.enumerate().map(|(b, ((gates, ds), trace))| {
            let live = lives[b];
            let (before, rest) = std::mem::take(&mut left).split_at_mut(live * h);
            left = rest;
            let row = Backward {
                live,
                state: &state[b * n * h..][..n * h],
                sequence: &packed[b * t * h..][..t * h],
                gradient: (&of_sequence[b * t * h..][..t * h], (n == 2).then(|| &of_cell[b * h..][..h])),
                gates: Divided::new(gates),
                trace: trace.map(Divided::new),
                before: Divided::new(before),
                ds,
            };
            (live, row)
        });
        let blocks = deal(rows.collect(), division.blocks).into_par_iter();
        let walk = |block| self.backward_block(block, &shares, &transposed, state_gradient);
        let partial: Vec<Vec<f32>> = blocks.map(walk).collect();
        let mut bias = vec![0.0; self.run.cell.biases() * h];
        for partial in partial {
            bias.iter_mut().zip(partial).for_each(|(sum, p)| *sum += p);
        }
        // SAFETY: the blocks have written the state before each real step of their rows.
        let before = unsafe { written(before) };
        let mut weight = unwritten(h * g);
        let (left, to) = (Strides::transposed(h), Strides::rows(g));
        // The candidate's block of the GRU goes through the reset gate and has a gradient of its own.
        let own = if self.run.cell == Cell::Gru { g - h } else { g };
        let of_gates = real_steps(gates, g, t, &lives);
        product_into([h, own, real], &mut weight, to, &before, left, &of_gates, Strides::rows(g));
        if let (true, Some(dq)) = (own < g, trace) {
            let dq = real_steps(dq, h, t, &lives);
            product_into([h, h, real], &mut weight, to.at(own), &before, left, &dq, Strides::rows(h));
        }
        // SAFETY: the products write all of it.
        Gradient { weight: unsafe { written(weight) }, bias, state: ds }
    }

    /// → the block's share of the bias's gradient
    fn backward_block(
        &self,
        mut block: Vec<Backward<'_>>,
        shares: &[Units],
        transposed: &[Packed],
        state_gradient: bool,
    ) -> Vec<f32> {
        let (h, g, n, rows, biases) =
            (self.hidden, self.width, self.run.cell.states(), block.len(), self.run.cell.biases());
        let order: Vec<usize> = self.run.order(self.steps).collect();
        let live: Vec<usize> = order.iter().map(|&t| block.partition_point(|row| t < row.live)).collect();
        // The gradients of the recurrent products of one step and of the one behind it, in turn: `[rows, G·H]`.
        let mut dz = [vec![0.0; rows * g], vec![0.0; rows * g]];
        let dz = dz.each_mut().map(|dz| Divided::new(dz));
        let own = shares.iter().map(|units| {
            let of_cell = block.iter().filter_map(|row| row.gradient.1).flat_map(|dc| units.of_row(dc, 0));
            Mutex::new(Behind {
                dh: vec![0.0; rows * units.width],
                dc: of_cell.copied().collect(),
                db: vec![0.0; biases * units.width],
            })
        });
        let own: Vec<Mutex<Behind>> = own.collect();
        // A step's product is made once all shares have left their part of its gradients: at the beginning of the next one.
        let walk = self.steps + usize::from(state_gradient);
        in_step(walk, shares.len(), |number, share| {
            let units = &shares[share];
            let w = units.width;
            let Behind { dh, dc, db } = &mut *own[share].lock().expect("a share's thread ended well");
            if number > 0 {
                let live = live[self.steps - number];
                // SAFETY: nobody writes it at this step; the parts of the last one, which have ended, did.
                let dz = unsafe { dz[(number - 1) % 2].read(0, live * g) };
                transposed[share].multiply_at(number, dz, &mut dh[..live * w], true);
            }
            let Some(s) = (self.steps - 1).checked_sub(number) else { return };
            let (t, last) = (order[s], s.checked_sub(1).map(|s| order[s]));
            for (r, row) in block.iter().enumerate() {
                let dh = &mut dh[r * w..][..w];
                dh.iter_mut().zip(units.of_row(row.gradient.0, t)).for_each(|(sum, d)| *sum += d);
                if r >= live[s] {
                    // Carried: the gradient passes to the step before.
                    continue;
                }
                let before = last.map_or(units.of_row(row.state, 0), |last| units.of_row(row.sequence, last));
                // SAFETY: these units are this share's, whose parts follow each other; the cells before are read, and are
                // those of another step.
                let step = unsafe {
                    row.before.write(t * h + units.first, w).write_copy_of_slice(before);
                    let trace = row.trace.as_ref();
                    let cell_before = match (n, last) {
                        (2, Some(last)) => trace.map_or(&[][..], |trace| trace.read(last * h + units.first, w)),
                        (2, None) => units.of_row(row.state, 1),
                        _ => &[],
                    };
                    StepBack {
                        gates: units.divided(&row.gates, t * g, g / h),
                        inner: trace.map_or(&mut [][..], |trace| trace.write(t * h + units.first, w)),
                        before,
                        cell_before,
                        dh,
                        dc: dc.get_mut(r * w..(r + 1) * w).unwrap_or(&mut []),
                        dz: units.divided(&dz[number % 2], r * g, g / h),
                        db,
                    }
                };
                gates::backward(self.run.cell, step);
            }
        });
        for row in &mut block {
            // SAFETY: the shares have ended.
            unsafe { row.gates.write(row.live * g, (self.steps - row.live) * g) }.fill(0.0);
        }
        let mut bias = vec![0.0; biases * h];
        for (own, units) in own.into_iter().zip(shares) {
            let Behind { dh, dc, db } = own.into_inner().expect("a share's thread ended well");
            let w = units.width;
            for (of_all, own) in bias.chunks_exact_mut(h).zip(db.chunks_exact(w)) {
                of_all[units.first..][..w].copy_from_slice(own);
            }
            for (r, row) in block.iter_mut().enumerate() {
                row.ds[units.first..][..w].copy_from_slice(&dh[r * w..][..w]);
                if n == 2 {
                    row.ds[h + units.first..][..w].copy_from_slice(&dc[r * w..][..w]);
                }
            }
        }
        bias
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::random::Key;
    use burn::backend::flex::FlexTensor;
    use burn::tensor::{DType, TensorData};
    use std::sync::Arc;

    fn random(name: &str, dims: &[usize]) -> TensorData {
        let key = Key::from_seed(3).named(name);
        let n: usize = dims.iter().product();
        TensorData::new((0..n as u64).map(|i| key.normal(i) as f32 * 0.7).collect::<Vec<f32>>(), dims.to_vec())
    }

    /// x, weight, bias, state, gradient of the packed output.
    fn inputs(cell: Cell, [b, t, h]: [usize; 3]) -> [TensorData; 5] {
        [
            random("x", &[b, t, cell.gates() * h]),
            random("w", &[h, cell.gates() * h]),
            random("b", &[cell.biases() * h]),
            random("s", &[b, cell.states() * h]),
            random("g", &[b * (t + cell.states() - 1), h]),
        ]
    }

    fn numbers(tensor: FlexTensor) -> Vec<f64> {
        tensor.into_data().convert_dtype(DType::F64).try_to_vec::<f64>().unwrap()
    }

    /// Forward output, then the four gradients, by the bodies that the number type selects.
    fn run_as(dtype: DType, inputs: &[TensorData; 5], run: &Recurrence) -> Vec<Vec<f64>> {
        let [x, w, b, s, g] = inputs.clone().map(|d| FlexTensor::from_data(d.convert_dtype(dtype)));
        let (packed, gates, trace) = Flex::recurrent_forward(x, w.clone(), b, s.clone(), run.clone(), true);
        let (dx, dw, db, ds) = Flex::recurrent_backward(g, packed.clone(), gates, trace, w, s, run.clone(), true);
        [packed, dx, dw, db, ds].map(numbers).into()
    }

    /// The output alone, as where nothing is to be trained.
    fn infer(inputs: &[TensorData; 5], run: &Recurrence) -> Vec<f64> {
        let [x, w, b, s, _] = inputs.clone().map(FlexTensor::from_data);
        numbers(Flex::recurrent_forward(x, w, b, s, run.clone(), false).0)
    }

    fn lengths_of(kind: usize, [b, t, _]: [usize; 3]) -> Option<Arc<[u32]>> {
        match kind {
            0 => None,
            1 => Some((0..b).map(|i| ((i * 7 + 3) % (t + 1)) as u32).collect()),
            _ => Some((0..b).map(|i| if i == 0 { 0 } else { t as u32 }).collect()),
        }
    }

    fn every_case(mut check: impl FnMut(&Recurrence, [usize; 3])) {
        for cell in [Cell::Rnn, Cell::Lstm, Cell::Gru] {
            for dims in [[1, 1, 1], [3, 5, 4], [33, 7, 19], [17, 1, 33]] {
                for (reverse, kind) in [(false, 0), (false, 1), (true, 1), (true, 2)] {
                    check(&Recurrence { cell, reverse, lengths: lengths_of(kind, dims) }, dims);
                }
            }
        }
    }

    #[test]
    fn the_slice_body_equals_the_portable_body() {
        every_case(|run, dims| {
            let inputs = inputs(run.cell, dims);
            let (fast, oracle) = (run_as(DType::F32, &inputs, run), run_as(DType::F64, &inputs, run));
            for (part, (fast, oracle)) in fast.iter().zip(&oracle).enumerate() {
                assert_eq!(fast.len(), oracle.len());
                let scale = oracle.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
                for (a, b) in fast.iter().zip(oracle) {
                    assert!((a - b).abs() < 2e-5 * scale, "{run:?} {dims:?} part {part}: {a} is not {b}");
                }
            }
        });
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        // In f64, so that a difference of 1e-6 keeps ten digits; the loss is the output against fixed weights.
        let dims = [3, 4, 3];
        for cell in [Cell::Rnn, Cell::Lstm, Cell::Gru] {
            for (reverse, kind) in [(false, 0), (false, 1), (true, 1)] {
                let run = Recurrence { cell, reverse, lengths: lengths_of(kind, dims) };
                let inputs = inputs(cell, dims);
                let exact = run_as(DType::F64, &inputs, &run);
                let weights = inputs[4].clone().convert_dtype(DType::F64).try_to_vec::<f64>().unwrap();
                let loss = |inputs: &[TensorData; 5]| -> f64 {
                    run_as(DType::F64, inputs, &run)[0].iter().zip(&weights).map(|(y, w)| y * w).sum()
                };
                for input in 0..4 {
                    let values = inputs[input].clone().convert_dtype(DType::F64).try_to_vec::<f64>().unwrap();
                    for i in (0..values.len()).step_by(3) {
                        let moved = |by: f64| {
                            let (mut v, mut moved) = (values.clone(), inputs.clone());
                            v[i] += by;
                            moved[input] = TensorData::new(v, inputs[input].shape());
                            loss(&moved)
                        };
                        let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                        let given = exact[input + 1][i];
                        assert!((slope - given).abs() < 1e-7, "{run:?} input {input}[{i}]: {given} is not {slope}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_more_than_the_last_bits() {
        // Rows enough for all threads; and so few that several threads share each, by units that are not whole lines.
        for dims in [[33, 9, 40], [1, 12, 203], [3, 12, 203], [9, 12, 203]] {
            for (cell, reverse, kind) in
                [(Cell::Rnn, true, 1), (Cell::Lstm, false, 0), (Cell::Lstm, true, 1), (Cell::Gru, false, 1)]
            {
                let run = Recurrence { cell, reverse, lengths: lengths_of(kind, dims) };
                let inputs = inputs(run.cell, dims);
                let on = |threads: usize| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let with = |threads: usize| on(threads).install(|| run_as(DType::F32, &inputs, &run));
                for threads in [1, 4] {
                    let (alone, trained) = (on(threads).install(|| infer(&inputs, &run)), &with(1)[0]);
                    assert_eq!(&alone, trained, "{run:?} {dims:?}, {threads} threads");
                }
                let (one, four) = (with(1), with(4));
                assert_eq!(four, with(4), "{run:?} {dims:?}");
                // The outputs are summed in one order, however many there are.
                assert_eq!(one[0], four[0], "{run:?} {dims:?}");
                for (a, b) in one.iter().flatten().zip(four.iter().flatten()) {
                    assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{run:?} {dims:?}: {a} {b}");
                }
            }
        }
    }
}
