//! The fed decoder on slices, for the Flex CPU backend, by the plan of `recurrent/flex.rs`: a thread walks its rows, the
//! longest first, through all steps.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use rayon::prelude::*;

use super::{Body, Feeding, FeedingOps, Parts, Saved};
use crate::attention::rows as attention;
use crate::blocks::{Rows, deal, real_steps};
use crate::dropout::fill_mask;
use crate::flex::{dense, dummy, into_owned, slice, slice_mut, wrap};
use crate::memory::{unwritten, written};
use crate::packed::Packed;
use crate::product::{Strides, product, product_into};
use crate::recurrent::Cell;
use crate::recurrent::gates::{self, StepBack};
use crate::vector::{multiversion, tanh};

impl FeedingOps for Flex {
    fn fed_decoder(x: FloatTensor<Self>, parts: Parts<Self>, run: Feeding) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (saved, state) = Self::forward(x, parts, &run);
        (saved.outputs, state)
    }
}

impl Body for Flex {
    fn forward(x: FlexTensor, parts: Parts<Self>, run: &Feeding) -> (Saved<Self>, FlexTensor) {
        let (parts, mut gates) = (parts.dense(), into_owned(dense(x)));
        let layer = Layer::new(gates.shape().as_slice(), &parts, run);
        let Layer { b, t, h, n, r, s, a, m, .. } = layer;
        let traced = run.cell != Cell::Rnn;
        let (mut outputs, mut hidden) = (vec![0.0; b * t * r], vec![0.0; b * t * h]);
        let (mut weights, mut contexts) = (vec![0.0; b * t * s], vec![0.0; b * t * m]);
        let mut trace = traced.then(|| vec![0.0; b * t * h]);
        let mut queries = parts.additive.then(|| vec![0.0; b * t * a]);
        let mut state = vec![0.0; b * n * h];
        layer.forward(Written {
            gates: slice_mut(&mut gates),
            outputs: &mut outputs,
            hidden: &mut hidden,
            trace: trace.as_deref_mut(),
            queries: queries.as_deref_mut(),
            weights: &mut weights,
            contexts: &mut contexts,
            state: &mut state,
        });
        let wrapped = |values: Option<Vec<f32>>, width: usize| values.map_or_else(dummy, |v| wrap(v, [b, t, width]));
        let saved = Saved {
            outputs: wrap(outputs, [b, t, r]),
            gates,
            hidden: wrap(hidden, [b, t, h]),
            trace: wrapped(trace, h),
            queries: wrapped(queries, a),
            weights: wrap(weights, [b, t, s]),
            contexts: wrap(contexts, [b, t, m]),
        };
        (saved, wrap(state, [b, n * h]))
    }

    fn backward(gradient: FlexTensor, parts: Parts<Self>, saved: Saved<Self>, run: &Feeding) -> [FlexTensor; 12] {
        let (parts, gradient, shape) = (parts.dense(), dense(gradient), saved.gates.shape());
        let layer = Layer::new(shape.as_slice(), &parts, run);
        let Layer { b, h, g, n, r, s, a, m, .. } = layer;
        let mut gates = into_owned(dense(saved.gates));
        let mut trace = (run.cell != Cell::Rnn).then(|| into_owned(dense(saved.trace)));
        let read = Read {
            gradient: slice(&gradient),
            outputs: slice(&saved.outputs),
            hidden: slice(&saved.hidden),
            queries: slice(&saved.queries),
            weights: slice(&saved.weights),
            contexts: slice(&saved.contexts),
        };
        let found = layer.backward(read, slice_mut(&mut gates), trace.as_mut().map(slice_mut));
        let (query, energy) = match parts.additive {
            true => (wrap(found.query, [h, a]), wrap(found.energy, [a])),
            false => (dummy(), dummy()),
        };
        [
            gates,
            wrap(found.recurrent, [h, g]),
            wrap(found.bias, [run.cell.biases() * h]),
            wrap(found.state, [b, n * h]),
            wrap(found.feed, [r, g]),
            wrap(found.keys, [b, s, a]),
            wrap(found.memory, [b, s, m]),
            query,
            energy,
            wrap(found.readout_state, [h, r]),
            wrap(found.readout_context, [m, r]),
            wrap(found.readout_bias, [r]),
        ]
    }
}

impl Parts<Flex> {
    fn dense(self) -> Self {
        Self {
            recurrent: dense(self.recurrent),
            bias: dense(self.bias),
            state: dense(self.state),
            feed: dense(self.feed),
            keys: dense(self.keys),
            memory: dense(self.memory),
            query: dense(self.query),
            energy: dense(self.energy),
            readout_state: dense(self.readout_state),
            readout_context: dense(self.readout_context),
            readout_bias: dense(self.readout_bias),
            additive: self.additive,
        }
    }
}

/// The layer as slices, with its sizes: `B`, `T`, `H`, `G·H`, `N`, `R`, `S`, `A`, `M`.
struct Layer<'a> {
    run: &'a Feeding,
    parts: &'a Parts<Flex>,
    b: usize,
    t: usize,
    h: usize,
    g: usize,
    n: usize,
    r: usize,
    s: usize,
    a: usize,
    m: usize,
}

/// What the forward pass fills, rows first; all but `gates` zero on entry.
struct Written<'a> {
    /// Projected inputs on entry, activated gates on return.
    gates: &'a mut [f32],
    outputs: &'a mut [f32],
    hidden: &'a mut [f32],
    trace: Option<&'a mut [f32]>,
    queries: Option<&'a mut [f32]>,
    weights: &'a mut [f32],
    contexts: &'a mut [f32],
    /// The last state.
    state: &'a mut [f32],
}

/// What the backward pass reads: the gradient of the outputs, and what [`Written`] left.
struct Read<'a> {
    gradient: &'a [f32],
    outputs: &'a [f32],
    hidden: &'a [f32],
    queries: &'a [f32],
    weights: &'a [f32],
    contexts: &'a [f32],
}

/// The gradients but that of the projected inputs.
struct Gradient {
    recurrent: Vec<f32>,
    bias: Vec<f32>,
    state: Vec<f32>,
    feed: Vec<f32>,
    keys: Vec<f32>,
    memory: Vec<f32>,
    query: Vec<f32>,
    energy: Vec<f32>,
    readout_state: Vec<f32>,
    readout_context: Vec<f32>,
    readout_bias: Vec<f32>,
}

/// A row on its way forward: see [`Written`].
struct Forward<'a> {
    number: usize,
    live: usize,
    gates: &'a mut [f32],
    outputs: &'a mut [f32],
    hidden: &'a mut [f32],
    trace: Option<&'a mut [f32]>,
    queries: Option<&'a mut [f32]>,
    weights: &'a mut [f32],
    contexts: &'a mut [f32],
    state: &'a mut [f32],
}

/// A row on its way back; what is written holds real steps only, but for `gates`.
struct Backward<'a> {
    number: usize,
    live: usize,
    gates: &'a mut [f32],
    trace: Option<&'a mut [f32]>,
    ds: &'a mut [f32],
    dkeys: &'a mut [f32],
    dmemory: &'a mut [f32],
    /// `h` and `r` before each step.
    before: &'a mut [f32],
    fed: &'a mut [f32],
    /// Of the readout's sums, and of the queries (additive).
    da: &'a mut [f32],
    dq: &'a mut [f32],
}

/// The weights of one direction, packed.
struct Weights {
    recurrent: Packed,
    feed: Packed,
    query: Option<Packed>,
    /// `U` over `C`.
    readout: Packed,
}

multiversion! {
    /// `out = tanh(sum + bias) ⊙ mask`.
    fn read_out(sum: &[f32], bias: &[f32], mask: &[f32], out: &mut [f32]) = read_out_body
}
#[inline(always)]
fn read_out_body<const FMA: bool>(sum: &[f32], bias: &[f32], mask: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (sum, bias, mask) = (&sum[..n], &bias[..n], &mask[..n]);
    for j in 0..n {
        out[j] = tanh::<FMA>(sum[j] + bias[j]) * mask[j];
    }
}

multiversion! {
    /// `d`: the gradient of [`read_out`]'s output, becomes that of its sum.
    fn read_out_backward(out: &[f32], mask: &[f32], d: &mut [f32]) = read_out_backward_body
}
#[inline(always)]
fn read_out_backward_body<const FMA: bool>(out: &[f32], mask: &[f32], d: &mut [f32]) {
    let n = d.len();
    let (out, mask) = (&out[..n], &mask[..n]);
    for j in 0..n {
        let y = if mask[j] == 0.0 { 0.0 } else { out[j] / mask[j] };
        d[j] *= mask[j] * (1.0 - y * y);
    }
}

/// `sum += x`.
fn add(sum: &mut [f32], x: &[f32]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
}

impl<'a> Layer<'a> {
    fn new(x: &[usize], parts: &'a Parts<Flex>, run: &'a Feeding) -> Self {
        let (keys, memory) = (parts.keys.shape(), parts.memory.shape());
        Self {
            run,
            parts,
            b: x[0],
            t: x[1],
            h: parts.recurrent.shape()[0],
            g: x[2],
            n: run.cell.states(),
            r: parts.readout_bias.shape()[0],
            s: keys[1],
            a: keys[2],
            m: memory[2],
        }
    }

    /// Real steps of row `b`.
    fn live(&self, b: usize) -> usize {
        (self.run.lengths[b] as usize).min(self.t)
    }

    /// Row `b` of the initial state.
    fn state(&self, b: usize) -> &'a [f32] {
        &slice(&self.parts.state)[b * self.n * self.h..][..self.n * self.h]
    }

    /// Keys and memory of row `b`, real steps only, and their number.
    fn row(&self, b: usize) -> (&'a [f32], &'a [f32], usize) {
        let (_, real) = self.run.over.row(b, self.s);
        let keys = &slice(&self.parts.keys)[b * self.s * self.a..][..real * self.a];
        (keys, &slice(&self.parts.memory)[b * self.s * self.m..][..real * self.m], real)
    }

    /// The mask of row `b` at step `t`; ones where nothing is dropped.
    fn mask(&self, b: usize, t: usize, mask: &mut [f32]) {
        if let Some((rate, keys)) = &self.run.dropout {
            fill_mask(mask, b * self.r, *rate, keys[t]);
        }
    }

    /// The readout's weights, `U` over `C`: `[H + M, R]`.
    fn readout(&self) -> Vec<f32> {
        [slice(&self.parts.readout_state), slice(&self.parts.readout_context)].concat()
    }

    fn forward(&self, to: Written<'_>) {
        let Self { b, t, h, g, n, r, s, a, m, .. } = *self;
        let parts = self.parts;
        let weights = Weights {
            recurrent: Packed::new(slice(&parts.recurrent), Strides::rows(g), [h, g]),
            feed: Packed::new(slice(&parts.feed), Strides::rows(g), [r, g]),
            query: parts.additive.then(|| Packed::new(slice(&parts.query), Strides::rows(a), [h, a])),
            readout: Packed::new(&self.readout(), Strides::rows(r), [h + m, r]),
        };
        let (mut gates, mut outputs) = (Rows::new(to.gates, t * g), Rows::new(to.outputs, t * r));
        let (mut hidden, mut state) = (Rows::new(to.hidden, t * h), Rows::new(to.state, n * h));
        let (mut trace, mut queries) = (to.trace.map(|x| Rows::new(x, t * h)), to.queries.map(|x| Rows::new(x, t * a)));
        let (mut looks, mut contexts) = (Rows::new(to.weights, t * s), Rows::new(to.contexts, t * m));
        let rows = (0..b).map(|number| {
            let row = Forward {
                number,
                live: self.live(number),
                gates: gates.row(),
                outputs: outputs.row(),
                hidden: hidden.row(),
                trace: trace.as_mut().map(Rows::row),
                queries: queries.as_mut().map(Rows::row),
                weights: looks.row(),
                contexts: contexts.row(),
                state: state.row(),
            };
            (row.live, row)
        });
        deal(rows.collect()).into_par_iter().for_each(|block| self.forward_block(block, &weights));
    }

    fn forward_block(&self, mut block: Vec<Forward<'_>>, weights: &Weights) {
        let Self { h, g, r, s, a, m, .. } = *self;
        let (parts, cell, rows) = (self.parts, self.run.cell, block.len());
        let (bias, readout_bias) = (slice(&parts.bias), slice(&parts.readout_bias));
        let mut hidden: Vec<f32> = block.iter().flat_map(|row| &self.state(row.number)[..h]).copied().collect();
        // An LSTM's cells; the GRU's inner products of the current step.
        let mut inner = match self.n {
            2 => block.iter().flat_map(|row| &self.state(row.number)[h..]).copied().collect(),
            _ => vec![0.0; rows * h],
        };
        let (mut z, mut from_feed, mut fed) = (vec![0.0; rows * g], vec![0.0; rows * g], vec![0.0; rows * r]);
        let (mut query, mut joint, mut sum) = (vec![0.0; rows * a], vec![0.0; rows * (h + m)], vec![0.0; rows * r]);
        let mut mask = vec![1.0; r];
        for t in 0..self.t {
            let live = block.partition_point(|row| t < row.live);
            weights.recurrent.multiply(&hidden[..live * h], &mut z[..live * g], false);
            if t > 0 {
                weights.feed.multiply(&fed[..live * r], &mut from_feed[..live * g], false);
            }
            for (i, row) in block[..live].iter_mut().enumerate() {
                let (h_row, inner) = (&mut hidden[i * h..][..h], &mut inner[i * h..][..h]);
                let x = &mut row.gates[t * g..][..g];
                if t > 0 {
                    add(x, &from_feed[i * g..][..g]);
                }
                gates::forward(cell, x, &z[i * g..][..g], bias, inner, h_row);
                row.hidden[t * h..][..h].copy_from_slice(h_row);
                if let Some(trace) = row.trace.as_deref_mut() {
                    trace[t * h..][..h].copy_from_slice(inner);
                }
            }
            if let Some(weight) = &weights.query {
                weight.multiply(&hidden[..live * h], &mut query[..live * a], false);
            }
            for (i, row) in block[..live].iter_mut().enumerate() {
                let (keys, memory, real) = self.row(row.number);
                let weights = &mut row.weights[t * s..][..real];
                match row.queries.as_deref_mut() {
                    Some(queries) => {
                        let query = &query[i * a..][..a];
                        queries[t * a..][..a].copy_from_slice(query);
                        attention::energies(query, keys, slice(&parts.energy), weights);
                    }
                    None => attention::dots(&hidden[i * h..][..h], keys, weights),
                }
                attention::softmax(weights);
                let context = &mut row.contexts[t * m..][..m];
                attention::weighted_sum(weights, memory, context);
                let (state, beside) = joint[i * (h + m)..][..h + m].split_at_mut(h);
                state.copy_from_slice(&hidden[i * h..][..h]);
                beside.copy_from_slice(context);
            }
            weights.readout.multiply(&joint[..live * (h + m)], &mut sum[..live * r], false);
            for (i, row) in block[..live].iter_mut().enumerate() {
                self.mask(row.number, t, &mut mask);
                let out = &mut row.outputs[t * r..][..r];
                read_out(&sum[i * r..][..r], readout_bias, &mask, out);
                fed[i * r..][..r].copy_from_slice(out);
            }
        }
        // Beyond its last real step a row is left alone, so that its state stands where that step left it.
        for (i, row) in block.into_iter().enumerate() {
            let (of_hidden, of_cell) = row.state.split_at_mut(h);
            of_hidden.copy_from_slice(&hidden[i * h..][..h]);
            of_cell.copy_from_slice(&inner[i * h..][..of_cell.len()]);
        }
    }

    /// `gates`: activated, become the gradient of the projected inputs; `trace`: the GRU's becomes that of its products.
    fn backward(&self, read: Read<'_>, gates: &mut [f32], mut trace: Option<&mut [f32]>) -> Gradient {
        let Self { b, t, h, g, n, r, s, a, m, .. } = *self;
        let parts = self.parts;
        let lives: Vec<usize> = (0..b).map(|b| self.live(b)).collect();
        let real: usize = lives.iter().sum();
        let asked = if parts.additive { a } else { 0 };
        let weights = Weights {
            recurrent: Packed::new(slice(&parts.recurrent), Strides::transposed(g), [g, h]),
            feed: Packed::new(slice(&parts.feed), Strides::transposed(g), [g, r]),
            query: parts.additive.then(|| Packed::new(slice(&parts.query), Strides::transposed(a), [a, h])),
            readout: Packed::new(&self.readout(), Strides::transposed(r), [r, h + m]),
        };
        let mut ds = vec![0.0; b * n * h];
        let (mut dkeys, mut dmemory) = (vec![0.0; b * s * a], vec![0.0; b * s * m]);
        let (mut before, mut fed) = (vec![0.0; real * h], vec![0.0; real * r]);
        let (mut da, mut dq) = (vec![0.0; real * r], vec![0.0; real * asked]);
        let partial: Vec<(Vec<f32>, Vec<f32>)> = {
            let (mut gates, mut ds) = (Rows::new(gates, t * g), Rows::new(&mut ds, n * h));
            let (mut dkeys, mut dmemory) = (Rows::new(&mut dkeys, s * a), Rows::new(&mut dmemory, s * m));
            let (mut before, mut fed) = (Rows::new(&mut before, h), Rows::new(&mut fed, r));
            let (mut da, mut dq) = (Rows::new(&mut da, r), Rows::new(&mut dq, asked));
            let mut trace = trace.as_deref_mut().map(|trace| Rows::new(trace, t * h));
            let rows = lives.iter().enumerate().map(|(number, &live)| {
                let row = Backward {
                    number,
                    live,
                    gates: gates.row(),
                    trace: trace.as_mut().map(Rows::row),
                    ds: ds.row(),
                    dkeys: dkeys.row(),
                    dmemory: dmemory.row(),
                    before: before.rows(live),
                    fed: fed.rows(live),
                    da: da.rows(live),
                    dq: dq.rows(live),
                };
                (live, row)
            });
            let blocks = deal(rows.collect());
            blocks.into_par_iter().map(|block| self.backward_block(block, &read, &weights)).collect()
        };
        let (mut bias, mut energy) = (vec![0.0; self.run.cell.biases() * h], vec![0.0; asked]);
        for (of_bias, of_energy) in &partial {
            add(&mut bias, of_bias);
            add(&mut energy, of_energy);
        }
        let mut readout_bias = vec![0.0; r];
        da.chunks_exact(r).for_each(|row| add(&mut readout_bias, row));
        // Weight gradients: [rows, columns] = lhs[real, rows]ᵀ · rhs[real, columns].
        let gradient = |lhs: &[f32], rhs: &[f32], [rows, columns]: [usize; 2]| {
            let (left, right) = (Strides::transposed(rows), Strides::rows(columns));
            let mut gradient = unwritten(rows * columns);
            product_into([rows, columns, real], &mut gradient, right, lhs, left, rhs, right);
            // SAFETY: the product writes all of it.
            unsafe { written(gradient) }
        };
        let hidden = real_steps(read.hidden, h, t, &lives);
        let of_gates = real_steps(gates, g, t, &lives);
        let feed = gradient(&fed, &of_gates, [r, g]);
        // The candidate's block of the GRU goes through the reset gate and has a gradient of its own.
        let own = if self.run.cell == Cell::Gru { g - h } else { g };
        let (left, to) = (Strides::transposed(h), Strides::rows(g));
        let mut recurrent = unwritten(h * g);
        product_into([h, own, real], &mut recurrent, to, &before, left, &of_gates, to);
        drop(of_gates);
        if let (true, Some(of_products)) = (own < g, trace) {
            let of_products = real_steps(of_products, h, t, &lives);
            product_into([h, h, real], &mut recurrent, to.at(own), &before, left, &of_products, Strides::rows(h));
        }
        // SAFETY: the products write all of it.
        let recurrent = unsafe { written(recurrent) };
        let query = gradient(&hidden, &dq, [h, asked]);
        let readout_state = gradient(&hidden, &da, [h, r]);
        let readout_context = gradient(&real_steps(read.contexts, m, t, &lives), &da, [m, r]);
        Gradient {
            recurrent,
            bias,
            state: ds,
            feed,
            keys: dkeys,
            memory: dmemory,
            query,
            energy,
            readout_state,
            readout_context,
            readout_bias,
        }
    }

    /// → the block's share of the gradients of bias and energy
    fn backward_block(&self, mut block: Vec<Backward<'_>>, read: &Read<'_>, weights: &Weights) -> (Vec<f32>, Vec<f32>) {
        let Self { h, g, n, r, s, a, m, .. } = *self;
        let (parts, cell, rows) = (self.parts, self.run.cell, block.len());
        let (energy, additive) = (slice(&parts.energy), parts.additive);
        let mut db = vec![0.0; cell.biases() * h];
        let mut denergy = vec![0.0; if additive { a } else { 0 }];
        let mut dh = vec![0.0; rows * h];
        let mut dc = vec![0.0; if n == 2 { rows * h } else { 0 }];
        let (mut dz, mut dgates, mut dfed) = (vec![0.0; rows * g], vec![0.0; rows * g], vec![0.0; rows * r]);
        let (mut da, mut djoint) = (vec![0.0; rows * r], vec![0.0; rows * (h + m)]);
        let mut dquery = vec![0.0; rows * a];
        // Of the contexts and of the scores, step by step, for the products over all steps at the end.
        let mut dcontexts: Vec<Vec<f32>> = block.iter().map(|row| vec![0.0; row.live * m]).collect();
        let mut dscores: Vec<Vec<f32>> = block.iter().map(|row| vec![0.0; row.live * s]).collect();
        let mut mask = vec![1.0; r];
        for t in (0..self.t).rev() {
            let live = block.partition_point(|row| t < row.live);
            for (i, row) in block[..live].iter_mut().enumerate() {
                let at = (row.number * self.t + t) * r;
                let d = &mut da[i * r..][..r];
                d.copy_from_slice(&read.gradient[at..at + r]);
                add(d, &dfed[i * r..][..r]);
                self.mask(row.number, t, &mut mask);
                read_out_backward(&read.outputs[at..at + r], &mask, d);
                row.da[t * r..][..r].copy_from_slice(d);
            }
            weights.readout.multiply(&da[..live * r], &mut djoint[..live * (h + m)], false);
            for (i, row) in block[..live].iter_mut().enumerate() {
                let (keys, memory, real) = self.row(row.number);
                let (to_state, to_context) = djoint[i * (h + m)..][..h + m].split_at(h);
                let dh = &mut dh[i * h..][..h];
                add(dh, to_state);
                dcontexts[i][t * m..][..m].copy_from_slice(to_context);
                let at = row.number * self.t + t;
                let dscores = &mut dscores[i][t * s..][..real];
                attention::dots(to_context, memory, dscores);
                attention::softmax_backward(&read.weights[at * s..][..real], dscores);
                if additive {
                    let (query, dquery) = (&read.queries[at * a..][..a], &mut dquery[i * a..][..a]);
                    dquery.fill(0.0);
                    attention::energies_backward(dscores, query, keys, energy, dquery, row.dkeys, &mut denergy);
                    row.dq[t * a..][..a].copy_from_slice(dquery);
                } else {
                    attention::weighted_sum(dscores, keys, dh);
                }
            }
            if let Some(weight) = &weights.query {
                weight.multiply(&dquery[..live * a], &mut dh[..live * h], true);
            }
            for (i, row) in block[..live].iter_mut().enumerate() {
                let (state, number) = (self.state(row.number), row.number);
                let last = t.checked_sub(1);
                let before = last.map_or(&state[..h], |last| &read.hidden[(number * self.t + last) * h..][..h]);
                row.before[t * h..][..h].copy_from_slice(before);
                if let Some(last) = last {
                    let at = (number * self.t + last) * r;
                    row.fed[t * r..][..r].copy_from_slice(&read.outputs[at..at + r]);
                }
                let (inner, cell_before) = gates::inner_and_cell_before(row.trace.as_deref_mut(), t, last, state, h);
                let gates = &mut row.gates[t * g..][..g];
                let (dh, dz) = (&mut dh[i * h..][..h], &mut dz[i * g..][..g]);
                let dc = dc.get_mut(i * h..(i + 1) * h).unwrap_or(&mut []);
                gates::backward(cell, StepBack { gates, inner, before, cell_before, dh, dc, dz, db: &mut db });
                dgates[i * g..][..g].copy_from_slice(&row.gates[t * g..][..g]);
            }
            weights.recurrent.multiply(&dz[..live * g], &mut dh[..live * h], true);
            if t > 0 {
                weights.feed.multiply(&dgates[..live * g], &mut dfed[..live * r], false);
            }
        }
        for (i, row) in block.into_iter().enumerate() {
            row.gates[row.live * g..].fill(0.0);
            row.ds[..h].copy_from_slice(&dh[i * h..][..h]);
            if n == 2 {
                row.ds[h..].copy_from_slice(&dc[i * h..][..h]);
            }
            let (_, _, real) = self.row(row.number);
            let at = row.number * self.t;
            let (wide, from_steps) = (Strides::rows(m), Strides::transposed(s));
            let weights = &read.weights[at * s..][..self.t * s];
            product([real, m, row.live], row.dmemory, wide, false, weights, from_steps, &dcontexts[i], wide);
            if !additive {
                let (across, hidden) = (Strides::rows(a), &read.hidden[at * h..][..self.t * h]);
                product([real, a, row.live], row.dkeys, across, false, &dscores[i], from_steps, hidden, across);
            }
        }
        (db, denergy)
    }
}
