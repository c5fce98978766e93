//! The recurrent sequence on slices, for the Flex CPU backend.
//!
//! Rows of a batch are independent, so each thread takes a block of rows and walks them through all steps with no barrier
//! inside the sequence. A thread keeps the running state of its rows together, so that a step is one dense product
//! followed by one vectorised pass over the gates. The weight gradient is one product over all steps at the end.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use rayon::prelude::*;

use super::{Cell, Recurrence, RecurrentOps, gates, portable};
use crate::flex::{dense, into_owned, is_f32, slice, slice_mut, wrap};
use crate::packed::Packed;
use crate::product::{Strides, product};

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
        let mut packed = vec![0.0; layer.batch * layer.packed_rows() * layer.hidden];
        let mut trace = vec![0.0; if save && layer.traced() { layer.batch * layer.steps * layer.hidden } else { 0 }];
        layer.forward(slice_mut(&mut gates), slice(&bias), slice(&state), &mut packed, &mut trace);
        let (b, t, h) = (layer.batch, layer.steps, layer.hidden);
        let packed = wrap(packed, [b, layer.packed_rows(), h]);
        let trace = if trace.is_empty() { wrap(vec![0.0], [1]) } else { wrap(trace, [b, t, h]) };
        (packed, if save { gates } else { wrap(vec![0.0], [1]) }, trace)
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
        let (b, t, h, g) = (layer.batch, layer.steps, layer.hidden, layer.width);
        let saved = Saved { packed: slice(&packed), gates: slice(&gates), state: slice(&state) };
        let mut trace = into_owned(dense(trace));
        let backward = layer.backward(slice(&gradient), saved, slice_mut(&mut trace), state_gradient);
        let n = run.cell.states();
        let ds = if state_gradient { wrap(backward.state, [b, n * h]) } else { wrap(vec![0.0], [1]) };
        (wrap(backward.x, [b, t, g]), wrap(backward.weight, [h, g]), wrap(backward.bias, [run.cell.biases() * h]), ds)
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
#[derive(Clone, Copy)]
struct Saved<'a> {
    packed: &'a [f32],
    gates: &'a [f32],
    state: &'a [f32],
}

/// The gradients.
struct Gradient {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    state: Vec<f32>,
}

impl<'a> Layer<'a> {
    fn new(run: &'a Recurrence, x: &[usize], weight: &'a [f32]) -> Self {
        let (batch, steps, width) = (x[0], x[1], x[2]);
        Self { run, weight, batch, steps, width, hidden: width / run.cell.gates() }
    }

    /// Rows a sequence takes in the packed output.
    fn packed_rows(&self) -> usize {
        self.steps + self.run.cell.states() - 1
    }

    /// Whether the backward pass needs more than gates and outputs: cells (LSTM), or products in the reset gate (GRU).
    fn traced(&self) -> bool {
        self.run.cell != Cell::Rnn
    }

    /// Rows a thread takes: at least 8, since a product of fewer reads the weight for little work.
    fn rows_per_block(&self) -> usize {
        self.batch.div_ceil(rayon::current_num_threads()).max(8).min(self.batch.max(1))
    }

    /// `gates`: projected inputs on entry, activated gates on return. `trace` may be empty.
    fn forward(&self, gates: &mut [f32], bias: &[f32], state: &[f32], packed: &mut [f32], trace: &mut [f32]) {
        let rows = self.rows_per_block();
        let (h, n) = (self.hidden, self.run.cell.states());
        let weight = Packed::new(self.weight, Strides::rows(self.width), [h, self.width]);
        let (gate_chunk, packed_chunk) = (rows * self.steps * self.width, rows * self.packed_rows() * h);
        let blocks = gates.par_chunks_mut(gate_chunk).zip(packed.par_chunks_mut(packed_chunk));
        let blocks = blocks.zip(state.par_chunks(rows * n * h)).enumerate();
        if trace.is_empty() {
            blocks.for_each(|(k, ((gates, packed), state))| {
                self.forward_block(k * rows, &weight, gates, bias, state, packed, None);
            });
        } else {
            blocks.zip(trace.par_chunks_mut(rows * self.steps * h)).for_each(
                |((k, ((gates, packed), state)), trace)| {
                    self.forward_block(k * rows, &weight, gates, bias, state, packed, Some(trace));
                },
            );
        }
    }

    /// Walks the rows from `first` on through all steps.
    fn forward_block(
        &self,
        first: usize,
        weight: &Packed,
        gates: &mut [f32],
        bias: &[f32],
        state: &[f32],
        packed: &mut [f32],
        mut trace: Option<&mut [f32]>,
    ) {
        let (h, g, steps, lstm) = (self.hidden, self.width, self.steps, self.run.cell == Cell::Lstm);
        let n = self.run.cell.states();
        let rows = state.len() / (n * h);
        let mut hidden: Vec<f32> = state.chunks_exact(n * h).flat_map(|row| &row[..h]).copied().collect();
        // An LSTM's cells; the GRU's inner products of the current step.
        let mut inner = vec![0.0; rows * h];
        if lstm {
            inner.chunks_exact_mut(h).zip(state.chunks_exact(n * h)).for_each(|(c, row)| c.copy_from_slice(&row[h..]));
        }
        let mut z = vec![0.0; rows * g];
        // A zero state needs no product.
        let mut at_zero = hidden.iter().all(|&v| v == 0.0);
        for t in self.run.order(steps) {
            if !at_zero {
                weight.multiply(&hidden, &mut z, false);
            }
            at_zero = false;
            for r in 0..rows {
                let (h_row, c_row) = (&mut hidden[r * h..][..h], &mut inner[r * h..][..h]);
                if self.run.is_live(first + r, t) {
                    let (x, z) = (&mut gates[(r * steps + t) * g..][..g], &z[r * g..][..g]);
                    match self.run.cell {
                        Cell::Rnn => gates::rnn_forward(x, z, bias, h_row),
                        Cell::Lstm => gates::lstm_forward(x, z, bias, c_row, h_row),
                        Cell::Gru => gates::gru_forward(x, z, bias, c_row, h_row),
                    }
                }
                packed[(r * self.packed_rows() + t) * h..][..h].copy_from_slice(h_row);
                if let Some(trace) = trace.as_deref_mut() {
                    trace[(r * steps + t) * h..][..h].copy_from_slice(c_row);
                }
            }
        }
        if lstm {
            for (row, cell) in packed.chunks_exact_mut(self.packed_rows() * h).zip(inner.chunks_exact(h)) {
                row[steps * h..].copy_from_slice(cell);
            }
        }
    }

    /// `trace`: as `forward` left it; the GRU's becomes the gradient of the inner products.
    fn backward(&self, gradient: &[f32], saved: Saved<'_>, trace: &mut [f32], state_gradient: bool) -> Gradient {
        let (h, g, steps, n) = (self.hidden, self.width, self.steps, self.run.cell.states());
        let (rows, biases) = (self.rows_per_block(), self.run.cell.biases() * h);
        let mut dx = vec![0.0; self.batch * steps * g];
        let mut before = vec![0.0; self.batch * steps * h];
        let mut ds = vec![0.0; self.batch * n * h];
        let blocks = self.batch.div_ceil(rows);
        let transposed = Packed::new(self.weight, Strides::transposed(g), [g, h]);
        let mut partial_bias = vec![0.0; blocks * biases];
        let whole = |trace: &mut [f32]| trace.len() == self.batch * steps * h;
        let trace_chunk = if self.traced() && whole(trace) { rows * steps * h } else { 1 };
        let mut no_trace = vec![0.0; if self.traced() { 0 } else { blocks }];
        let trace = if self.traced() { trace } else { no_trace.as_mut_slice() };
        dx.par_chunks_mut(rows * steps * g)
            .zip(before.par_chunks_mut(rows * steps * h))
            .zip(ds.par_chunks_mut(rows * n * h))
            .zip(partial_bias.par_chunks_mut(biases))
            .zip(trace.par_chunks_mut(trace_chunk))
            .enumerate()
            .for_each(|(k, ((((dx, before), ds), db), trace))| {
                let first = k * rows;
                let cut = |from: &'_ [f32], width: usize| -> std::ops::Range<usize> {
                    first * width..((first + rows) * width).min(from.len())
                };
                let saved = Saved {
                    packed: &saved.packed[cut(saved.packed, self.packed_rows() * h)],
                    gates: &saved.gates[cut(saved.gates, steps * g)],
                    state: &saved.state[cut(saved.state, n * h)],
                };
                let gradient = &gradient[cut(gradient, self.packed_rows() * h)];
                let out = Block { dx, before, ds, db };
                self.backward_block(first, &transposed, gradient, saved, trace, out, state_gradient);
            });
        let mut bias = vec![0.0; biases];
        for partial in partial_bias.chunks_exact(biases) {
            bias.iter_mut().zip(partial).for_each(|(sum, p)| *sum += p);
        }
        let mut weight = vec![0.0; h * g];
        let (all, left, to) = (self.batch * steps, Strides::transposed(h), Strides::rows(g));
        // The candidate's block of the GRU goes through the reset gate and has a gradient of its own.
        let own = if self.run.cell == Cell::Gru { g - h } else { g };
        product([h, own, all], &mut weight, to, false, &before, left, &dx, Strides::rows(g));
        if own < g {
            product([h, h, all], &mut weight, to.at(own), false, &before, left, trace, Strides::rows(h));
        }
        Gradient { x: dx, weight, bias, state: ds }
    }

    fn backward_block(
        &self,
        first: usize,
        transposed: &Packed,
        gradient: &[f32],
        saved: Saved<'_>,
        trace: &mut [f32],
        out: Block<'_>,
        state_gradient: bool,
    ) {
        let (h, g, steps, n) = (self.hidden, self.width, self.steps, self.run.cell.states());
        let (rows, packed_rows, lstm) = (saved.state.len() / (n * h), self.packed_rows(), self.run.cell == Cell::Lstm);
        let mut dh = vec![0.0; rows * h];
        let mut dc = vec![0.0; rows * h];
        if lstm {
            for (dc, gradient) in dc.chunks_exact_mut(h).zip(gradient.chunks_exact(packed_rows * h)) {
                dc.copy_from_slice(&gradient[steps * h..]);
            }
        }
        // The gradient of the recurrent products of one step, dense.
        let mut dz = vec![0.0; rows * g];
        let order: Vec<usize> = self.run.order(steps).collect();
        for (s, &t) in order.iter().enumerate().rev() {
            for r in 0..rows {
                let before = match s {
                    0 => &saved.state[r * n * h..][..h],
                    _ => &saved.packed[(r * packed_rows + order[s - 1]) * h..][..h],
                };
                out.before[(r * steps + t) * h..][..h].copy_from_slice(before);
                let dh = &mut dh[r * h..][..h];
                let given = &gradient[(r * packed_rows + t) * h..][..h];
                dh.iter_mut().zip(given).for_each(|(sum, d)| *sum += d);
                let at = r * steps + t;
                let dz = &mut dz[r * g..][..g];
                if !self.run.is_live(first + r, t) {
                    // Carried: the gradient passes to the step before; what forward left in the trace is no gradient.
                    dz.fill(0.0);
                    if self.run.cell == Cell::Gru {
                        trace[at * h..][..h].fill(0.0);
                    }
                    continue;
                }
                let (gates, dx) = (&saved.gates[at * g..][..g], &mut out.dx[at * g..][..g]);
                match self.run.cell {
                    Cell::Rnn => {
                        gates::rnn_backward(gates, dh, dx, out.db);
                        dh.fill(0.0);
                        dz.copy_from_slice(dx);
                    }
                    Cell::Lstm => {
                        let cell = &trace[at * h..][..h];
                        let c_before = match s {
                            0 => &saved.state[r * n * h + h..][..h],
                            _ => &trace[(r * steps + order[s - 1]) * h..][..h],
                        };
                        gates::lstm_backward(gates, cell, c_before, dh, &mut dc[r * h..][..h], dx, out.db);
                        dh.fill(0.0);
                        dz.copy_from_slice(dx);
                    }
                    Cell::Gru => {
                        let q = &mut trace[at * h..][..h];
                        gates::gru_backward(gates, before, dh, dx, q, out.db);
                        dz[..g - h].copy_from_slice(&dx[..g - h]);
                        dz[g - h..].copy_from_slice(q);
                    }
                }
            }
            if s > 0 || state_gradient {
                transposed.multiply(&dz, &mut dh, true);
            }
        }
        for r in 0..rows {
            let ds = &mut out.ds[r * n * h..][..n * h];
            ds[..h].copy_from_slice(&dh[r * h..][..h]);
            if lstm {
                ds[h..].copy_from_slice(&dc[r * h..][..h]);
            }
        }
    }
}

/// A thread's share of what the backward pass writes.
struct Block<'a> {
    dx: &'a mut [f32],
    before: &'a mut [f32],
    ds: &'a mut [f32],
    db: &'a mut [f32],
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
            random("g", &[b, t + cell.states() - 1, h]),
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
