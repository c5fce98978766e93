//! The recurrent sequence on slices, for the Flex CPU backend.
//!
//! Rows of a batch are independent, so each thread takes a block of rows and walks them through all steps with no barrier
//! inside the sequence. A thread keeps the running state of its rows together, so that a step is one dense product
//! followed by one vectorised pass over the gates. The weight gradient is one product over all steps at the end.

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
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
        let (b, t, h, g) = (layer.batch, layer.steps, layer.hidden, layer.width);
        let mut trace = layer.traced().then(|| into_owned(dense(trace)));
        let found = layer.backward(
            slice(&gradient),
            Saved { packed: slice(&packed), gates: slice(&gates), state: slice(&state) },
            trace.as_mut().map(slice_mut),
            state_gradient,
        );
        let ds = if state_gradient { wrap(found.state, [b, run.cell.states() * h]) } else { dummy() };
        (wrap(found.x, [b, t, g]), wrap(found.weight, [h, g]), wrap(found.bias, [run.cell.biases() * h]), ds)
    }
}

/// Stands where nothing is to be handed over.
fn dummy() -> FlexTensor {
    wrap(vec![0.0], [1])
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

/// A block of rows on its way forward.
struct Forward<'a> {
    /// Number of its first row.
    first: usize,
    /// Projected inputs, become activated gates.
    gates: &'a mut [f32],
    /// The initial state.
    state: &'a [f32],
    sequence: &'a mut [f32],
    /// The final cell of an LSTM.
    cell: Option<&'a mut [f32]>,
    /// Cells (LSTM) or products in the reset gate (GRU) of every step, if they are to be saved.
    trace: Option<&'a mut [f32]>,
}

/// A block of rows on its way back.
struct Backward<'a> {
    first: usize,
    gates: &'a [f32],
    state: &'a [f32],
    sequence: &'a [f32],
    /// The gradient of the sequence, and of the final cell of an LSTM.
    gradient: (&'a [f32], Option<&'a [f32]>),
    /// As the forward pass left it; the GRU's becomes the gradient of its products.
    trace: Option<&'a mut [f32]>,
    dx: &'a mut [f32],
    /// The state before each step.
    before: &'a mut [f32],
    ds: &'a mut [f32],
    db: &'a mut [f32],
}

/// A buffer cut into blocks of `size`; `count` times nothing, if there is none.
fn blocks_mut(buffer: Option<&mut [f32]>, size: usize, count: usize) -> Vec<Option<&mut [f32]>> {
    match buffer {
        Some(buffer) => buffer.chunks_mut(size).map(Some).collect(),
        None => (0..count).map(|_| None).collect(),
    }
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

    /// Rows a thread takes: at least 8, since a product of fewer reads the weight for little work.
    fn rows_per_block(&self) -> usize {
        self.batch.div_ceil(rayon::current_num_threads()).max(8).min(self.batch.max(1))
    }

    /// `gates`: projected inputs on entry, activated gates on return. → packed output, and the trace if `save`
    fn forward(&self, gates: &mut [f32], bias: &[f32], state: &[f32], save: bool) -> (Vec<f32>, Option<Vec<f32>>) {
        let (rows, h, t, n) = (self.rows_per_block(), self.hidden, self.steps, self.run.cell.states());
        let weight = Packed::new(self.weight, Strides::rows(self.width), [h, self.width]);
        let mut packed = vec![0.0; self.packed_rows() * h];
        let mut trace = (save && self.traced()).then(|| vec![0.0; self.sequence_len()]);
        let (sequence, cell) = packed.split_at_mut(self.sequence_len());
        let count = self.batch.div_ceil(rows);
        let cells = blocks_mut((n == 2).then_some(cell), rows * h, count);
        let traces = blocks_mut(trace.as_deref_mut(), rows * t * h, count);
        let blocks = gates.chunks_mut(rows * t * self.width).zip(state.chunks(rows * n * h));
        let blocks = blocks.zip(sequence.chunks_mut(rows * t * h)).zip(cells.into_iter().zip(traces)).enumerate();
        let blocks: Vec<Forward<'_>> = blocks
            .map(|(k, (((gates, state), sequence), (cell, trace)))| Forward {
                first: k * rows,
                gates,
                state,
                sequence,
                cell,
                trace,
            })
            .collect();
        blocks.into_par_iter().for_each(|block| self.forward_block(block, &weight, bias));
        (packed, trace)
    }

    /// Walks a block's rows through all steps.
    fn forward_block(&self, mut block: Forward<'_>, weight: &Packed, bias: &[f32]) {
        let (h, g, steps, n) = (self.hidden, self.width, self.steps, self.run.cell.states());
        let rows = block.state.len() / (n * h);
        let mut hidden: Vec<f32> = block.state.chunks_exact(n * h).flat_map(|row| &row[..h]).copied().collect();
        // An LSTM's cells; the GRU's inner products of the current step.
        let mut inner = vec![0.0; rows * h];
        if block.cell.is_some() {
            for (c, row) in inner.chunks_exact_mut(h).zip(block.state.chunks_exact(n * h)) {
                c.copy_from_slice(&row[h..]);
            }
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
                let (h_row, c_row, at) = (&mut hidden[r * h..][..h], &mut inner[r * h..][..h], r * steps + t);
                if self.run.is_live(block.first + r, t) {
                    let (x, z) = (&mut block.gates[at * g..][..g], &z[r * g..][..g]);
                    match self.run.cell {
                        Cell::Rnn => gates::rnn_forward(x, z, bias, h_row),
                        Cell::Lstm => gates::lstm_forward(x, z, bias, c_row, h_row),
                        Cell::Gru => gates::gru_forward(x, z, bias, c_row, h_row),
                    }
                }
                block.sequence[at * h..][..h].copy_from_slice(h_row);
                if let Some(trace) = block.trace.as_deref_mut() {
                    trace[at * h..][..h].copy_from_slice(c_row);
                }
            }
        }
        if let Some(cell) = block.cell {
            cell.copy_from_slice(&inner);
        }
    }

    fn backward(
        &self,
        gradient: &[f32],
        saved: Saved<'_>,
        mut trace: Option<&mut [f32]>,
        state_gradient: bool,
    ) -> Gradient {
        let (h, g, t, n) = (self.hidden, self.width, self.steps, self.run.cell.states());
        let (rows, biases) = (self.rows_per_block(), self.run.cell.biases() * h);
        let count = self.batch.div_ceil(rows);
        let transposed = Packed::new(self.weight, Strides::transposed(g), [g, h]);
        let mut dx = vec![0.0; self.batch * t * g];
        let mut before = vec![0.0; self.sequence_len()];
        let mut ds = vec![0.0; self.batch * n * h];
        let mut partial_bias = vec![0.0; count * biases];
        let (sequence, _) = saved.packed.split_at(self.sequence_len());
        let (of_sequence, of_cell) = gradient.split_at(self.sequence_len());
        let traces = blocks_mut(trace.as_deref_mut(), rows * t * h, count);
        let written = dx.chunks_mut(rows * t * g).zip(before.chunks_mut(rows * t * h));
        let written = written.zip(ds.chunks_mut(rows * n * h)).zip(partial_bias.chunks_mut(biases)).zip(traces);
        let blocks: Vec<Backward<'_>> = written
            .enumerate()
            .map(|(k, ((((dx, before), ds), db), trace))| {
                let first = k * rows;
                let taken = ds.len() / (n * h);
                let cut = |from: &'_ [f32], width: usize| first * width..((first + taken) * width).min(from.len());
                let cell = (n == 2).then(|| &of_cell[cut(of_cell, h)]);
                Backward {
                    first,
                    gates: &saved.gates[cut(saved.gates, t * g)],
                    state: &saved.state[cut(saved.state, n * h)],
                    sequence: &sequence[cut(sequence, t * h)],
                    gradient: (&of_sequence[cut(of_sequence, t * h)], cell),
                    trace,
                    dx,
                    before,
                    ds,
                    db,
                }
            })
            .collect();
        blocks.into_par_iter().for_each(|block| self.backward_block(block, &transposed, state_gradient));
        let mut bias = vec![0.0; biases];
        for partial in partial_bias.chunks_exact(biases) {
            bias.iter_mut().zip(partial).for_each(|(sum, p)| *sum += p);
        }
        let mut weight = vec![0.0; h * g];
        let (all, left, to) = (self.batch * t, Strides::transposed(h), Strides::rows(g));
        // The candidate's block of the GRU goes through the reset gate and has a gradient of its own.
        let own = if self.run.cell == Cell::Gru { g - h } else { g };
        product([h, own, all], &mut weight, to, false, &before, left, &dx, Strides::rows(g));
        if let (true, Some(dq)) = (own < g, trace) {
            product([h, h, all], &mut weight, to.at(own), false, &before, left, dq, Strides::rows(h));
        }
        Gradient { x: dx, weight, bias, state: ds }
    }

    fn backward_block(&self, mut block: Backward<'_>, transposed: &Packed, state_gradient: bool) {
        let (h, g, steps, n) = (self.hidden, self.width, self.steps, self.run.cell.states());
        let rows = block.state.len() / (n * h);
        let mut dh = vec![0.0; rows * h];
        let mut dc = block.gradient.1.map_or_else(Vec::new, <[f32]>::to_vec);
        // The gradient of the recurrent products of one step, dense.
        let mut dz = vec![0.0; rows * g];
        let order: Vec<usize> = self.run.order(steps).collect();
        for (s, &t) in order.iter().enumerate().rev() {
            for r in 0..rows {
                let at = r * steps + t;
                let last = s.checked_sub(1).map(|s| r * steps + order[s]);
                let before = match last {
                    None => &block.state[r * n * h..][..h],
                    Some(last) => &block.sequence[last * h..][..h],
                };
                block.before[at * h..][..h].copy_from_slice(before);
                let (dh, dz) = (&mut dh[r * h..][..h], &mut dz[r * g..][..g]);
                let given = &block.gradient.0[at * h..][..h];
                dh.iter_mut().zip(given).for_each(|(sum, d)| *sum += d);
                if !self.run.is_live(block.first + r, t) {
                    // Carried: the gradient passes to the step before; what forward left in the trace is no gradient.
                    dz.fill(0.0);
                    if let (Cell::Gru, Some(trace)) = (self.run.cell, block.trace.as_deref_mut()) {
                        trace[at * h..][..h].fill(0.0);
                    }
                    continue;
                }
                let (gates, dx) = (&block.gates[at * g..][..g], &mut block.dx[at * g..][..g]);
                match (self.run.cell, block.trace.as_deref_mut()) {
                    (Cell::Lstm, Some(trace)) => {
                        let c_before = match last {
                            None => &block.state[r * n * h + h..][..h],
                            Some(last) => &trace[last * h..][..h],
                        };
                        let cell = &trace[at * h..][..h];
                        gates::lstm_backward(gates, cell, c_before, dh, &mut dc[r * h..][..h], dx, block.db);
                        dh.fill(0.0);
                        dz.copy_from_slice(dx);
                    }
                    (Cell::Gru, Some(trace)) => {
                        let q = &mut trace[at * h..][..h];
                        gates::gru_backward(gates, before, dh, dx, q, block.db);
                        dz[..g - h].copy_from_slice(&dx[..g - h]);
                        dz[g - h..].copy_from_slice(q);
                    }
                    (Cell::Rnn, _) => {
                        gates::rnn_backward(gates, dh, dx, block.db);
                        dh.fill(0.0);
                        dz.copy_from_slice(dx);
                    }
                    (Cell::Lstm | Cell::Gru, None) => unreachable!("these cells are traced"),
                }
            }
            if s > 0 || state_gradient {
                transposed.multiply(&dz, &mut dh, true);
            }
        }
        for r in 0..rows {
            let (ds_h, ds_c) = block.ds[r * n * h..][..n * h].split_at_mut(h);
            ds_h.copy_from_slice(&dh[r * h..][..h]);
            if n == 2 {
                ds_c.copy_from_slice(&dc[r * h..][..h]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::random::Key;
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
