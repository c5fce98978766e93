//! The recurrent sequence on slices, for the Flex CPU backend.
//!
//! Rows of a batch are independent, so each thread takes a block of rows and walks them through all steps with no barrier
//! inside the sequence. A thread keeps the running state of its rows together, the longest row first, so that a step is
//! one dense product over the rows that are real there, followed by one vectorised pass over the gates. The weight
//! gradient is one product over all real steps at the end.

use std::mem::MaybeUninit;

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use rayon::prelude::*;

use super::gates::{self, StepBack};
use super::{Cell, Recurrence, RecurrentOps, portable};
use crate::blocks::{deal, real_steps, rows_mut};
use crate::flex::{dense, dummy, into_owned, is_f32, slice, slice_mut, wrap};
use crate::memory::{unwritten, written};
use crate::packed::Packed;
use crate::product::{Strides, product_into};

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
    gates: &'a mut [f32],
    /// The initial state.
    state: &'a [f32],
    sequence: &'a mut [MaybeUninit<f32>],
    /// The final cell of an LSTM.
    cell: Option<&'a mut [MaybeUninit<f32>]>,
    /// Cells (LSTM) or products in the reset gate (GRU) of every step, if they are to be saved.
    trace: Option<&'a mut [MaybeUninit<f32>]>,
}

/// A row on its way back.
struct Backward<'a> {
    live: usize,
    state: &'a [f32],
    sequence: &'a [f32],
    /// The gradient of the sequence, and of the final cell of an LSTM.
    gradient: (&'a [f32], Option<&'a [f32]>),
    /// See [`Saved`].
    gates: &'a mut [f32],
    trace: Option<&'a mut [f32]>,
    /// The state before each real step.
    before: &'a mut [MaybeUninit<f32>],
    ds: &'a mut [f32],
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

    /// `gates`: projected inputs on entry, activated gates on return. → packed output, and the trace if `save`
    fn forward(&self, gates: &mut [f32], bias: &[f32], state: &[f32], save: bool) -> (Vec<f32>, Option<Vec<f32>>) {
        let (h, t, n) = (self.hidden, self.steps, self.run.cell.states());
        let weight = Packed::new(self.weight, Strides::rows(self.width), [h, self.width]);
        let mut packed = unwritten(self.packed_rows() * h);
        let mut trace = (save && self.traced()).then(|| unwritten(self.sequence_len()));
        let (sequence, cell) = packed.split_at_mut(self.sequence_len());
        let cells = rows_mut((n == 2).then_some(cell), h, self.batch);
        let traces = rows_mut(trace.as_deref_mut(), t * h, self.batch);
        let rows = gates.chunks_exact_mut(t * self.width).zip(state.chunks_exact(n * h));
        let rows = rows.zip(sequence.chunks_exact_mut(t * h)).zip(cells.into_iter().zip(traces)).enumerate();
        let rows = rows.map(|(b, (((gates, state), sequence), (cell, trace)))| {
            (self.live(b), Forward { live: self.live(b), gates, state, sequence, cell, trace })
        });
        deal(rows.collect()).into_par_iter().for_each(|block| self.forward_block(block, &weight, bias, save));
        // SAFETY: a block writes its rows at every step, real or not, and the cells at the end.
        unsafe { (written(packed), trace.map(|trace| written(trace))) }
    }

    /// Walks a block's rows, the longest first, through all steps: those that are real at a step come first.
    fn forward_block(&self, mut block: Vec<Forward<'_>>, weight: &Packed, bias: &[f32], save: bool) {
        let step = if save { gates::forward } else { gates::infer };
        let (h, g, n) = (self.hidden, self.width, self.run.cell.states());
        let mut hidden: Vec<f32> = block.iter().flat_map(|row| &row.state[..h]).copied().collect();
        // An LSTM's cells; the GRU's inner products of the current step.
        let mut inner = match n {
            2 => block.iter().flat_map(|row| &row.state[h..]).copied().collect(),
            _ => vec![0.0; block.len() * h],
        };
        let mut z = vec![0.0; block.len() * g];
        // A zero state needs no product.
        let mut at_zero = hidden.iter().all(|&v| v == 0.0);
        for t in self.run.order(self.steps) {
            let live = block.partition_point(|row| t < row.live);
            if !at_zero {
                weight.multiply(&hidden[..live * h], &mut z[..live * g], false);
            }
            at_zero &= live == 0;
            for (r, row) in block.iter_mut().enumerate() {
                let (h_row, c_row) = (&mut hidden[r * h..][..h], &mut inner[r * h..][..h]);
                if r < live {
                    let (x, z) = (&mut row.gates[t * g..][..g], &z[r * g..][..g]);
                    step(self.run.cell, x, z, bias, c_row, h_row);
                }
                row.sequence[t * h..][..h].write_copy_of_slice(h_row);
                if let Some(trace) = row.trace.as_deref_mut() {
                    trace[t * h..][..h].write_copy_of_slice(c_row);
                }
            }
        }
        for (row, inner) in block.into_iter().zip(inner.chunks_exact(h)) {
            if let Some(cell) = row.cell {
                cell.write_copy_of_slice(inner);
            }
        }
    }

    fn backward(&self, gradient: &[f32], saved: Saved<'_>, state_gradient: bool) -> Gradient {
        let (h, g, t, n) = (self.hidden, self.width, self.steps, self.run.cell.states());
        let Saved { packed, state, gates, mut trace } = saved;
        let transposed = Packed::new(self.weight, Strides::transposed(g), [g, h]);
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
                gates,
                trace,
                before,
                ds,
            };
            (live, row)
        });
        let blocks = deal(rows.collect());
        let partial: Vec<Vec<f32>> =
            blocks.into_par_iter().map(|block| self.backward_block(block, &transposed, state_gradient)).collect();
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
    fn backward_block(&self, mut block: Vec<Backward<'_>>, transposed: &Packed, state_gradient: bool) -> Vec<f32> {
        let (h, g, steps, n) = (self.hidden, self.width, self.steps, self.run.cell.states());
        let mut db = vec![0.0; self.run.cell.biases() * h];
        let mut dh = vec![0.0; block.len() * h];
        let mut dc: Vec<f32> = block.iter().filter_map(|row| row.gradient.1).flatten().copied().collect();
        // The gradient of the recurrent products of one step, dense.
        let mut dz = vec![0.0; block.len() * g];
        let order: Vec<usize> = self.run.order(steps).collect();
        for (s, &t) in order.iter().enumerate().rev() {
            let last = s.checked_sub(1).map(|s| order[s]);
            let live = block.partition_point(|row| t < row.live);
            for (r, row) in block.iter_mut().enumerate() {
                let (dh, dz) = (&mut dh[r * h..][..h], &mut dz[r * g..][..g]);
                let given = &row.gradient.0[t * h..][..h];
                dh.iter_mut().zip(given).for_each(|(sum, d)| *sum += d);
                if r >= live {
                    // Carried: the gradient passes to the step before.
                    continue;
                }
                let before = last.map_or(&row.state[..h], |last| &row.sequence[last * h..][..h]);
                row.before[t * h..][..h].write_copy_of_slice(before);
                let (inner, cell_before) =
                    gates::inner_and_cell_before(row.trace.as_deref_mut(), t, last, row.state, h);
                let gates = &mut row.gates[t * g..][..g];
                let dc = dc.get_mut(r * h..(r + 1) * h).unwrap_or(&mut []);
                let step = StepBack { gates, inner, before, cell_before, dh, dc, dz, db: &mut db };
                gates::backward(self.run.cell, step);
            }
            if s > 0 || state_gradient {
                transposed.multiply(&dz[..live * g], &mut dh[..live * h], true);
            }
        }
        for (r, row) in block.into_iter().enumerate() {
            row.gates[row.live * g..].fill(0.0);
            row.ds[..h].copy_from_slice(&dh[r * h..][..h]);
            if n == 2 {
                row.ds[h..].copy_from_slice(&dc[r * h..][..h]);
            }
        }
        db
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
        let (dims, run) = ([33, 9, 40], Recurrence { cell: Cell::Lstm, reverse: false, lengths: None });
        let inputs = inputs(run.cell, dims);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run_as(DType::F32, &inputs, &run))
        };
        let (one, four) = (with(1), with(4));
        assert_eq!(four, with(4));
        for (a, b) in one.iter().flatten().zip(four.iter().flatten()) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}
