//! The fed decoder on slices, for the Flex CPU backend, by the plan of `recurrent/flex.rs`: a thread walks its rows, the
//! longest first, through all steps; or several threads together, each with some columns of every weight, who wait for each
//! other four times a step. Whatever is a row's alone (attention) they share out by rows.

use std::sync::Mutex;

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use rayon::prelude::*;

use super::{Body, Feeding, FeedingOps, Parts, Saved};
use crate::attention::rows as attention;
use crate::blocks::{Division, Rows, deal, real_steps};
use crate::dropout::fill_mask;
use crate::flex::{dense, dummy, into_owned, slice, slice_mut, wrap};
use crate::memory::{unwritten, written, zeros};
use crate::packed::{Blocks, Order, Packed};
use crate::product::{Strides, product, product_into};
use crate::recurrent::Cell;
use crate::recurrent::gates::{self, StepBack, Units};
use crate::team::{Divided, in_step};
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
        let (mut outputs, mut hidden) = (zeros(b * t * r), zeros(b * t * h));
        let (mut weights, mut contexts) = (zeros(b * t * s), zeros(b * t * m));
        let mut trace = traced.then(|| zeros(b * t * h));
        let mut queries = parts.additive.then(|| zeros(b * t * a));
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
    gates: Divided<'a, f32>,
    outputs: Divided<'a, f32>,
    hidden: Divided<'a, f32>,
    trace: Option<Divided<'a, f32>>,
    queries: Option<Divided<'a, f32>>,
    weights: Divided<'a, f32>,
    contexts: Divided<'a, f32>,
    state: &'a mut [f32],
}

/// A row on its way back; what is written holds real steps only, but for `gates`.
struct Backward<'a> {
    number: usize,
    live: usize,
    gates: Divided<'a, f32>,
    trace: Option<Divided<'a, f32>>,
    ds: &'a mut [f32],
    dkeys: Divided<'a, f32>,
    dmemory: &'a mut [f32],
    /// `h` and `r` before each step.
    before: Divided<'a, f32>,
    fed: Divided<'a, f32>,
    /// Of the readout's sums, and of the queries (additive).
    da: Divided<'a, f32>,
    dq: Divided<'a, f32>,
}

/// What one share has: some units of state, queries and readout, and on the way back some of state and context together.
#[derive(Debug, Clone, Copy)]
struct Share {
    h: Units,
    a: Units,
    r: Units,
    joint: Units,
}

/// The weights of one direction, packed: the columns of a share.
struct Weights {
    recurrent: Packed,
    feed: Packed,
    query: Option<Packed>,
    /// `U` over `C`.
    readout: Packed,
}

/// What a share of a block keeps on the way forward, a row after the other.
#[repr(align(128))] // no line of the caches is another share's
struct Ahead {
    /// An LSTM's cells; the GRU's inner products of the current step.
    inner: Vec<f32>,
    /// Products of a step.
    z: Vec<f32>,
    from_feed: Vec<f32>,
    sum: Vec<f32>,
    mask: Vec<f32>,
}

/// The same on the way back.
#[repr(align(128))]
struct Behind {
    /// An LSTM's.
    dc: Vec<f32>,
    dfed: Vec<f32>,
    db: Vec<f32>,
    denergy: Vec<f32>,
    mask: Vec<f32>,
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

    /// The mask of some units of row `b` at step `t`; ones where nothing is dropped.
    fn mask(&self, b: usize, t: usize, units: &Units, mask: &mut [f32]) {
        if let Some((rate, keys)) = &self.run.dropout {
            fill_mask(mask, b * self.r + units.first, *rate, keys[t]);
        }
    }

    /// How many blocks of rows there are, and what each of the threads of a block has.
    fn division(&self) -> (usize, Vec<Share>) {
        let Self { h, g, r, a, m, .. } = *self;
        let narrowest = if self.parts.additive { h.min(a).min(r) } else { h.min(r) };
        let division = Division::of(self.b, (h + r) * g + h * a + (h + m) * r, narrowest);
        let units = |n: usize| Units::shares(n, division.shares);
        let all = units(h).into_iter().zip(units(a)).zip(units(r).into_iter().zip(units(h + m)));
        (division.blocks, all.map(|((h, a), (r, joint))| Share { h, a, r, joint }).collect())
    }

    /// The readout's weights, `U` over `C`: `[H + M, R]`.
    fn readout(&self) -> Vec<f32> {
        [slice(&self.parts.readout_state), slice(&self.parts.readout_context)].concat()
    }

    fn forward(&self, to: Written<'_>) {
        let Self { b, t, h, g, n, r, s, a, m, .. } = *self;
        let (parts, readout) = (self.parts, self.readout());
        let (blocks, shares) = self.division();
        let weights = |share: &Share| {
            let gates = Blocks { width: share.h.width, apart: h };
            let of_gates = |weight: &[f32], rows: usize| {
                let strides = Strides::rows(g).at(share.h.first);
                Packed::of_blocks(weight, strides, [rows, g / h * share.h.width], gates)
            };
            let some = |weight: &[f32], rows: usize, units: &Units| {
                Packed::new(weight, Strides::rows(units.all).at(units.first), [rows, units.width])
            };
            Weights {
                recurrent: of_gates(slice(&parts.recurrent), h),
                feed: of_gates(slice(&parts.feed), r),
                query: parts.additive.then(|| some(slice(&parts.query), h, &share.a)),
                readout: some(&readout, h + m, &share.r),
            }
        };
        let weights: Vec<Weights> = shares.par_iter().map(weights).collect();
        let (mut gates, mut outputs) = (Rows::new(to.gates, t * g), Rows::new(to.outputs, t * r));
        let (mut hidden, mut state) = (Rows::new(to.hidden, t * h), Rows::new(to.state, n * h));
        let (mut trace, mut queries) = (to.trace.map(|x| Rows::new(x, t * h)), to.queries.map(|x| Rows::new(x, t * a)));
        let (mut looks, mut contexts) = (Rows::new(to.weights, t * s), Rows::new(to.contexts, t * m));
        let rows = (0..b).map(|number| {
            let row = Forward {
                number,
                live: self.live(number),
                gates: Divided::new(gates.row()),
                outputs: Divided::new(outputs.row()),
                hidden: Divided::new(hidden.row()),
                trace: trace.as_mut().map(|trace| Divided::new(trace.row())),
                queries: queries.as_mut().map(|queries| Divided::new(queries.row())),
                weights: Divided::new(looks.row()),
                contexts: Divided::new(contexts.row()),
                state: state.row(),
            };
            (row.live, row)
        });
        let blocks = deal(rows.collect(), blocks).into_par_iter();
        blocks.for_each(|block| self.forward_block(block, &shares, &weights));
    }

    fn forward_block(&self, mut block: Vec<Forward<'_>>, shares: &[Share], weights: &[Weights]) {
        let Self { h, g, r, s, a, m, .. } = *self;
        let (parts, cell, rows, gates) = (self.parts, self.run.cell, block.len(), g / h);
        let (bias, readout_bias) = (slice(&parts.bias), slice(&parts.readout_bias));
        let start: Vec<f32> = block.iter().flat_map(|row| &self.state(row.number)[..h]).copied().collect();
        // The states before and after a step, in turn.
        let mut hidden = [start, vec![0.0; rows * h]];
        let hidden = hidden.each_mut().map(|states| Divided::new(states));
        let (mut fed, mut query, mut joint) = (vec![0.0; rows * r], vec![0.0; rows * a], vec![0.0; rows * (h + m)]);
        let (fed, query, joint) = (Divided::new(&mut fed), Divided::new(&mut query), Divided::new(&mut joint));
        let own = shares.iter().map(|share| {
            let units = &share.h;
            let inner = match self.n {
                2 => block.iter().flat_map(|row| units.of_row(self.state(row.number), 1)).copied().collect(),
                _ => vec![0.0; rows * units.width],
            };
            let zero = |width: usize| vec![0.0; rows * width];
            Mutex::new(Ahead {
                inner,
                z: zero(gates * units.width),
                from_feed: zero(gates * units.width),
                sum: zero(share.r.width),
                mask: vec![1.0; share.r.width],
            })
        });
        let own: Vec<Mutex<Ahead>> = own.collect();
        let live: Vec<usize> = (0..self.t).map(|t| block.partition_point(|row| t < row.live)).collect();
        // SAFETY, of all that is `read` and `write` below: of what is made at one of the four parts of a step, a share writes
        // its own units, or rows, and reads its own alone; whatever else it reads was left by a part that has ended.
        in_step(4 * self.t, shares.len(), |number, index| {
            let (t, share, weights) = (number / 4, &shares[index], &weights[index]);
            let live = live[t];
            let Ahead { inner, z, from_feed, sum, mask } =
                &mut *own[index].lock().expect("a share's thread ended well");
            let (before, after) = (&hidden[t % 2], &hidden[(t + 1) % 2]);
            match number % 4 {
                0 => {
                    let (units, w) = (&share.h, share.h.width);
                    // SAFETY: see above.
                    let before = unsafe { before.read(0, rows * h) };
                    weights.recurrent.multiply_at(t, &before[..live * h], &mut z[..live * gates * w], false);
                    if t > 0 {
                        // SAFETY: see above.
                        let fed = unsafe { fed.read(0, live * r) };
                        weights.feed.multiply_at(t, fed, &mut from_feed[..live * gates * w], false);
                    }
                    let bias = units.pieces(bias);
                    for (i, row) in block.iter().enumerate() {
                        // SAFETY: see above.
                        let state = unsafe { after.write(i * h + units.first, w) };
                        state.copy_from_slice(units.of_row(before, i));
                        if i >= live {
                            continue;
                        }
                        let (z, inner) = (&z[i * gates * w..][..gates * w], &mut inner[i * w..][..w]);
                        // SAFETY: see above.
                        let mut x = unsafe { units.divided(&row.gates, t * g, gates) };
                        if t > 0 {
                            let fed = from_feed[i * gates * w..][..gates * w].chunks_exact(w);
                            x.iter_mut().zip(fed).for_each(|(x, fed)| add(x, fed));
                        }
                        gates::forward(cell, x, z, bias, inner, state);
                        // SAFETY: see above.
                        unsafe {
                            row.hidden.write(t * h + units.first, w).copy_from_slice(state);
                            joint.write(i * (h + m) + units.first, w).copy_from_slice(state);
                            if let Some(trace) = &row.trace {
                                trace.write(t * h + units.first, w).copy_from_slice(inner);
                            }
                        }
                    }
                }
                1 => {
                    let Some(weight) = &weights.query else { return };
                    // SAFETY: see above.
                    unsafe {
                        weight.onto(after.read(0, live * h), share.a.columns(&query, live), false, Order::in_turn(t))
                    };
                }
                2 => {
                    for (i, row) in block[..live].iter().enumerate().skip(index).step_by(shares.len()) {
                        let (keys, memory, real) = self.row(row.number);
                        // SAFETY: see above.
                        let weights = unsafe { row.weights.write(t * s, real) };
                        match &row.queries {
                            Some(queries) => {
                                // SAFETY: see above.
                                let query = unsafe { query.read(i * a, a) };
                                // SAFETY: see above.
                                unsafe { queries.write(t * a, a) }.copy_from_slice(query);
                                attention::energies(query, keys, slice(&parts.energy), weights);
                            }
                            // SAFETY: see above.
                            None => attention::dots(unsafe { after.read(i * h, h) }, keys, weights),
                        }
                        attention::softmax(weights);
                        // SAFETY: see above.
                        let context = unsafe { row.contexts.write(t * m, m) };
                        attention::weighted_sum(weights, memory, context);
                        // SAFETY: see above.
                        unsafe { joint.write(i * (h + m) + h, m) }.copy_from_slice(context);
                    }
                }
                _ => {
                    let (units, w) = (&share.r, share.r.width);
                    // SAFETY: see above.
                    weights.readout.multiply_at(
                        t,
                        unsafe { joint.read(0, live * (h + m)) },
                        &mut sum[..live * w],
                        false,
                    );
                    for (i, row) in block[..live].iter().enumerate() {
                        self.mask(row.number, t, units, mask);
                        // SAFETY: see above.
                        let out = unsafe { row.outputs.write(t * r + units.first, w) };
                        read_out(&sum[i * w..][..w], units.of_row(readout_bias, 0), mask, out);
                        // SAFETY: see above.
                        unsafe { fed.write(i * r + units.first, w) }.copy_from_slice(out);
                    }
                }
            }
        });
        // Beyond its last real step a row is left alone, so that its state stands where that step left it.
        for (i, row) in block.iter_mut().enumerate() {
            // SAFETY: the shares have ended.
            row.state[..h].copy_from_slice(unsafe { hidden[self.t % 2].read(i * h, h) });
        }
        for (own, share) in own.into_iter().zip(shares).filter(|_| self.n == 2) {
            let (own, units) = (own.into_inner().expect("a share's thread ended well"), &share.h);
            for (row, inner) in block.iter_mut().zip(own.inner.chunks_exact(units.width)) {
                row.state[h + units.first..][..units.width].copy_from_slice(inner);
            }
        }
    }

    /// `gates`: activated, become the gradient of the projected inputs; `trace`: the GRU's becomes that of its products.
    fn backward(&self, read: Read<'_>, gates: &mut [f32], mut trace: Option<&mut [f32]>) -> Gradient {
        let Self { b, t, h, g, n, r, s, a, m, .. } = *self;
        let (parts, readout) = (self.parts, self.readout());
        let lives: Vec<usize> = (0..b).map(|b| self.live(b)).collect();
        let real: usize = lives.iter().sum();
        let asked = if parts.additive { a } else { 0 };
        let (blocks, shares) = self.division();
        let weights = |share: &Share| {
            // The columns of a transposed weight are its rows.
            let some = |weight: &[f32], rows: usize, units: &Units| {
                Packed::new(weight, Strides::transposed(rows).at(units.first * rows), [rows, units.width])
            };
            Weights {
                recurrent: some(slice(&parts.recurrent), g, &share.h),
                feed: some(slice(&parts.feed), g, &share.r),
                query: parts.additive.then(|| some(slice(&parts.query), a, &share.h)),
                readout: some(&readout, r, &share.joint),
            }
        };
        let weights: Vec<Weights> = shares.par_iter().map(weights).collect();
        let mut ds = vec![0.0; b * n * h];
        let (mut dkeys, mut dmemory) = (zeros(b * s * a), zeros(b * s * m));
        let (mut before, mut fed) = (zeros(real * h), zeros(real * r));
        let (mut da, mut dq) = (zeros(real * r), zeros(real * asked));
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
                    gates: Divided::new(gates.row()),
                    trace: trace.as_mut().map(|trace| Divided::new(trace.row())),
                    ds: ds.row(),
                    dkeys: Divided::new(dkeys.row()),
                    dmemory: dmemory.row(),
                    before: Divided::new(before.rows(live)),
                    fed: Divided::new(fed.rows(live)),
                    da: Divided::new(da.rows(live)),
                    dq: Divided::new(dq.rows(live)),
                };
                (live, row)
            });
            let blocks = deal(rows.collect(), blocks).into_par_iter();
            blocks.map(|block| self.backward_block(block, &read, &shares, &weights)).collect()
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
    fn backward_block(
        &self,
        mut block: Vec<Backward<'_>>,
        read: &Read<'_>,
        shares: &[Share],
        weights: &[Weights],
    ) -> (Vec<f32>, Vec<f32>) {
        let Self { h, g, n, r, s, a, m, .. } = *self;
        let (parts, cell, rows, gates) = (self.parts, self.run.cell, block.len(), g / h);
        let (energy, additive) = (slice(&parts.energy), parts.additive);
        let (mut dh, mut dz, mut dgates) = (vec![0.0; rows * h], vec![0.0; rows * g], vec![0.0; rows * g]);
        let (mut da, mut dquery) = (vec![0.0; rows * r], vec![0.0; rows * a]);
        let (dh, dz, dgates) = (Divided::new(&mut dh), Divided::new(&mut dz), Divided::new(&mut dgates));
        let (da, dquery) = (Divided::new(&mut da), Divided::new(&mut dquery));
        let mut djoint = vec![0.0; rows * (h + m)];
        let djoint = Divided::new(&mut djoint);
        // Of the contexts and of the scores, step by step, for the products over all steps at the end.
        let mut dcontexts: Vec<Vec<f32>> = block.iter().map(|row| vec![0.0; row.live * m]).collect();
        let mut dscores: Vec<Vec<f32>> = block.iter().map(|row| vec![0.0; row.live * s]).collect();
        let own = shares.iter().map(|share| {
            let zero = |width: usize| vec![0.0; rows * width];
            Mutex::new(Behind {
                dc: if n == 2 { zero(share.h.width) } else { Vec::new() },
                dfed: zero(share.r.width),
                db: vec![0.0; cell.biases() * share.h.width],
                denergy: vec![0.0; if additive { a } else { 0 }],
                mask: vec![1.0; share.r.width],
            })
        });
        let own: Vec<Mutex<Behind>> = own.collect();
        let live: Vec<usize> = (0..self.t).map(|t| block.partition_point(|row| t < row.live)).collect();
        {
            let dcontexts: Vec<Divided<'_, f32>> = dcontexts.iter_mut().map(|d| Divided::new(d)).collect();
            let dscores: Vec<Divided<'_, f32>> = dscores.iter_mut().map(|d| Divided::new(d)).collect();
            // SAFETY, of all that is `read` and `write` below: as on the way forward.
            in_step(4 * self.t + 1, shares.len(), |number, index| {
                let (share, weights) = (&shares[index], &weights[index]);
                let Behind { dc, dfed, db, denergy, mask } =
                    &mut *own[index].lock().expect("a share's thread ended well");
                if number % 4 == 0 && number > 0 {
                    // What the cell of the step behind leaves to the state and the output before it.
                    let t = self.t - number / 4;
                    let live = live[t];
                    // SAFETY: see above.
                    let (dz, dgates) = unsafe { (dz.read(0, live * g), dgates.read(0, live * g)) };
                    // SAFETY: see above.
                    unsafe { weights.recurrent.onto(dz, share.h.columns(&dh, live), true, Order::in_turn(t)) };
                    if t > 0 {
                        weights.feed.multiply_at(t, dgates, &mut dfed[..live * share.r.width], false);
                    }
                }
                let Some(t) = self.t.checked_sub(1 + number / 4) else { return };
                let live = live[t];
                match number % 4 {
                    0 => {
                        let (units, w) = (&share.r, share.r.width);
                        for (i, row) in block[..live].iter().enumerate() {
                            let at = row.number * self.t + t;
                            // SAFETY: see above.
                            let d = unsafe { da.write(i * r + units.first, w) };
                            d.copy_from_slice(units.of_row(read.gradient, at));
                            add(d, &dfed[i * w..][..w]);
                            self.mask(row.number, t, units, mask);
                            read_out_backward(units.of_row(read.outputs, at), mask, d);
                            // SAFETY: see above.
                            unsafe { row.da.write(t * r + units.first, w) }.copy_from_slice(d);
                        }
                    }
                    1 => {
                        // SAFETY: see above.
                        unsafe {
                            weights.readout.onto(
                                da.read(0, live * r),
                                share.joint.columns(&djoint, live),
                                false,
                                Order::in_turn(t),
                            )
                        };
                    }
                    2 => {
                        for (i, row) in block[..live].iter().enumerate().skip(index).step_by(shares.len()) {
                            let (keys, memory, real) = self.row(row.number);
                            let at = row.number * self.t + t;
                            // SAFETY: see above.
                            unsafe {
                                let (to_state, to_context) = djoint.read(i * (h + m), h + m).split_at(h);
                                let dh = dh.write(i * h, h);
                                add(dh, to_state);
                                dcontexts[i].write(t * m, m).copy_from_slice(to_context);
                                let dscores = dscores[i].write(t * s, real);
                                attention::dots(to_context, memory, dscores);
                                attention::softmax_backward(&read.weights[at * s..][..real], dscores);
                                if additive {
                                    let (query, dquery) = (&read.queries[at * a..][..a], dquery.write(i * a, a));
                                    let dkeys = row.dkeys.write(0, real * a);
                                    dquery.fill(0.0);
                                    attention::energies_backward(dscores, query, keys, energy, dquery, dkeys, denergy);
                                    row.dq.write(t * a, a).copy_from_slice(dquery);
                                } else {
                                    attention::weighted_sum(dscores, keys, dh);
                                }
                            }
                        }
                    }
                    _ => {
                        let (units, w) = (&share.h, share.h.width);
                        if let Some(weight) = &weights.query {
                            // SAFETY: see above.
                            unsafe {
                                weight.onto(
                                    dquery.read(0, live * a),
                                    share.h.columns(&dh, live),
                                    true,
                                    Order::in_turn(t),
                                )
                            };
                        }
                        for (i, row) in block[..live].iter().enumerate() {
                            let (state, number) = (self.state(row.number), row.number);
                            let last = t.checked_sub(1).map(|last| number * self.t + last);
                            let before = last.map_or(units.of_row(state, 0), |last| units.of_row(read.hidden, last));
                            // SAFETY: see above.
                            let step = unsafe {
                                row.before.write(t * h + units.first, w).copy_from_slice(before);
                                if let Some(last) = last {
                                    let (r, fed) = (&share.r, row.fed.write(t * r + share.r.first, share.r.width));
                                    fed.copy_from_slice(r.of_row(read.outputs, last));
                                }
                                let trace = row.trace.as_ref();
                                let cell_before = match (n, t) {
                                    (2, 0) => units.of_row(state, 1),
                                    (2, _) => trace.map_or(&[][..], |trace| trace.read((t - 1) * h + units.first, w)),
                                    _ => &[],
                                };
                                StepBack {
                                    gates: units.divided(&row.gates, t * g, gates),
                                    inner: trace.map_or(&mut [][..], |trace| trace.write(t * h + units.first, w)),
                                    before,
                                    cell_before,
                                    dh: dh.write(i * h + units.first, w),
                                    dc: dc.get_mut(i * w..(i + 1) * w).unwrap_or(&mut []),
                                    dz: units.divided(&dz, i * g, gates),
                                    db,
                                }
                            };
                            gates::backward(cell, step);
                            // SAFETY: see above.
                            unsafe {
                                let to = units.divided(&dgates, i * g, gates);
                                to.into_iter()
                                    .zip(units.divided(&row.gates, t * g, gates))
                                    .for_each(|(to, x)| to.copy_from_slice(x));
                            }
                        }
                    }
                }
            });
        }
        let mut db = vec![0.0; cell.biases() * h];
        let mut denergy = vec![0.0; if additive { a } else { 0 }];
        for (own, share) in own.into_iter().zip(shares) {
            let (own, units) = (own.into_inner().expect("a share's thread ended well"), &share.h);
            for (of_all, own) in db.chunks_exact_mut(h).zip(own.db.chunks_exact(units.width)) {
                of_all[units.first..][..units.width].copy_from_slice(own);
            }
            add(&mut denergy, &own.denergy);
            for (row, dc) in block.iter_mut().zip(own.dc.chunks_exact(units.width)) {
                row.ds[h + units.first..][..units.width].copy_from_slice(dc);
            }
        }
        for (i, row) in block.iter_mut().enumerate() {
            // SAFETY: the shares have ended.
            unsafe {
                row.gates.write(row.live * g, (self.t - row.live) * g).fill(0.0);
                row.ds[..h].copy_from_slice(dh.read(i * h, h));
            }
            let (_, _, real) = self.row(row.number);
            let at = row.number * self.t;
            let (wide, from_steps) = (Strides::rows(m), Strides::transposed(s));
            let weights = &read.weights[at * s..][..self.t * s];
            product([real, m, row.live], row.dmemory, wide, false, weights, from_steps, &dcontexts[i], wide);
            if !additive {
                let (across, hidden) = (Strides::rows(a), &read.hidden[at * h..][..self.t * h]);
                // SAFETY: the shares have ended.
                let dkeys = unsafe { row.dkeys.write(0, s * a) };
                product([real, a, row.live], dkeys, across, false, &dscores[i], from_steps, hidden, across);
            }
        }
        (db, denergy)
    }
}
