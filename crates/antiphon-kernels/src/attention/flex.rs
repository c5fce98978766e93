//! Attention on slices, for the Flex CPU backend: the rows of a batch are independent, and threads share them out.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use rayon::prelude::*;

use super::{AttentionOps, Body, Inputs, Over, WeightsOps, rows};
use crate::flex::{dense, dummy, slice, wrap};
use crate::memory::zeros;
use crate::product::{Strides, product};

impl AttentionOps for Flex {
    fn attend(inputs: Inputs<Self>, over: Over) -> FloatTensor<Self> {
        Self::forward(inputs, &over).0
    }
}

impl WeightsOps for Flex {
    fn attend_with_weights(inputs: Inputs<Self>, over: Over) -> (FloatTensor<Self>, FloatTensor<Self>) {
        Self::forward(inputs, &over)
    }
}

impl Body for Flex {
    fn forward(inputs: Inputs<Self>, over: &Over) -> (FlexTensor, FlexTensor) {
        let inputs = inputs.dense();
        let look = Look::new(&inputs, over);
        let (mut contexts, mut weights) = (zeros(look.b * look.t * look.m), zeros(look.b * look.t * look.s));
        let rows = contexts.par_chunks_exact_mut(look.t * look.m).zip(weights.par_chunks_exact_mut(look.t * look.s));
        rows.enumerate().for_each(|(b, (contexts, weights))| look.forward_row(b, contexts, weights));
        (wrap(contexts, [look.b, look.t, look.m]), wrap(weights, [look.b, look.t, look.s]))
    }

    fn backward(gradient: FlexTensor, inputs: Inputs<Self>, over: &Over, weights: FlexTensor) -> [FlexTensor; 4] {
        assert!(over.owners.is_none(), "rows that share a memory are not trained");
        let (inputs, gradient) = (inputs.dense(), dense(gradient));
        let look = Look::new(&inputs, over);
        let Look { b, t, s, a, m, .. } = look;
        let (mut dq, mut dk, mut dm) = (zeros(b * t * a), zeros(b * s * a), zeros(b * s * m));
        let mut de = vec![0.0; if inputs.additive { b * a } else { 0 }];
        let written = dq.par_chunks_exact_mut(t * a).zip(dk.par_chunks_exact_mut(s * a));
        let written = written.zip(dm.par_chunks_exact_mut(s * m)).enumerate();
        let row = |b: usize, dq: &mut [f32], dk: &mut [f32], dm: &mut [f32], de: &mut [f32]| {
            let (gradient, weights) = (&slice(&gradient)[b * t * m..][..t * m], &slice(&weights)[b * t * s..][..t * s]);
            look.backward_row(b, gradient, weights, Gradient { query: dq, keys: dk, memory: dm, energy: de });
        };
        if inputs.additive {
            let written = written.zip(de.par_chunks_exact_mut(a));
            written.for_each(|((b, ((dq, dk), dm)), de)| row(b, dq, dk, dm, de));
        } else {
            written.for_each(|(b, ((dq, dk), dm))| row(b, dq, dk, dm, &mut []));
        }
        let energy = look.energy.map_or_else(dummy, |energy| wrap(sum_rows(&de, energy.len()), [energy.len()]));
        [wrap(dq, [b, t, a]), wrap(dk, [b, s, a]), wrap(dm, [b, s, m]), energy]
    }
}

/// `[a]`: the sum of rows, in their order.
pub(crate) fn sum_rows(rows: &[f32], a: usize) -> Vec<f32> {
    let mut sum = vec![0.0; a];
    for row in rows.chunks_exact(a) {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    sum
}

impl Inputs<Flex> {
    pub(super) fn dense(self) -> Self {
        let Self { query, keys, memory, energy, additive } = self;
        let (query, keys, memory, energy) = (dense(query), dense(keys), dense(memory), dense(energy));
        Self { query, keys, memory, energy, additive }
    }
}

/// The inputs as slices, with their sizes.
pub(super) struct Look<'a> {
    pub(super) query: &'a [f32],
    keys: &'a [f32],
    memory: &'a [f32],
    /// `[N·A]`.
    pub(super) energy: Option<&'a [f32]>,
    over: &'a Over,
    pub(super) b: usize,
    pub(super) t: usize,
    pub(super) s: usize,
    pub(super) a: usize,
    pub(super) m: usize,
}

/// What row `b` has of a vector of parts of `width` numbers, of which each row has one in turn.
pub(super) fn part(vector: &[f32], b: usize, width: usize) -> &[f32] {
    let parts = vector.len() / width;
    &vector[b % parts * width..][..width]
}

/// Gradients of one row, zero on entry.
struct Gradient<'a> {
    query: &'a mut [f32],
    keys: &'a mut [f32],
    memory: &'a mut [f32],
    /// Empty for products.
    energy: &'a mut [f32],
}

impl<'a> Look<'a> {
    pub(super) fn new(inputs: &'a Inputs<Flex>, over: &'a Over) -> Self {
        let (query, memory) = (inputs.query.shape(), inputs.memory.shape());
        Self {
            query: slice(&inputs.query),
            keys: slice(&inputs.keys),
            memory: slice(&inputs.memory),
            energy: inputs.additive.then(|| slice(&inputs.energy)),
            over,
            b: query[0],
            t: query[1],
            s: memory[1],
            a: query[2],
            m: memory[2],
        }
    }

    /// Keys and memory that row `b` looks at, real steps only, and their number.
    pub(super) fn row(&self, b: usize) -> (&'a [f32], &'a [f32], usize) {
        let (row, real) = self.over.row(b, self.s);
        let keys = &self.keys[row * self.s * self.a..][..real * self.a];
        (keys, &self.memory[row * self.s * self.m..][..real * self.m], real)
    }

    /// `contexts`: `[T, M]`; `weights`: `[T, S]`; both zero on entry.
    fn forward_row(&self, b: usize, contexts: &mut [f32], weights: &mut [f32]) {
        let Self { t, s, a, m, .. } = *self;
        let (keys, memory, real) = self.row(b);
        let query = &self.query[b * t * a..][..t * a];
        match self.energy.map(|energy| part(energy, b, a)) {
            Some(energy) => {
                for (query, weights) in query.chunks_exact(a).zip(weights.chunks_exact_mut(s)) {
                    rows::energies(query, keys, energy, &mut weights[..real]);
                }
            }
            None if t == 1 => rows::dots(query, keys, &mut weights[..real]),
            None => {
                let (to, left, right) = (Strides::rows(s), Strides::rows(a), Strides::transposed(a));
                product([t, real, a], weights, to, false, query, left, keys, right);
            }
        }
        weights.chunks_exact_mut(s).for_each(|weights| rows::softmax(&mut weights[..real]));
        if t == 1 {
            rows::weighted_sum(&weights[..real], memory, contexts);
        } else {
            let (to, left, right) = (Strides::rows(m), Strides::rows(s), Strides::rows(m));
            product([t, m, real], contexts, to, false, weights, left, memory, right);
        }
    }

    /// `gradient`: `[T, M]`; `weights`: `[T, S]`, as the forward pass left them.
    fn backward_row(&self, b: usize, gradient: &[f32], weights: &[f32], found: Gradient<'_>) {
        let Self { t, s, a, m, .. } = *self;
        let (keys, memory, real) = self.row(b);
        let query = &self.query[b * t * a..][..t * a];
        // Of the weights, then of the scores.
        let mut d = vec![0.0; t * s];
        let (wide, narrow) = (Strides::rows(m), Strides::rows(s));
        product([t, real, m], &mut d, narrow, false, gradient, wide, memory, Strides::transposed(m));
        for (d, weights) in d.chunks_exact_mut(s).zip(weights.chunks_exact(s)) {
            rows::softmax_backward(&weights[..real], &mut d[..real]);
        }
        let from_weights = Strides::transposed(s);
        product([real, m, t], found.memory, wide, false, weights, from_weights, gradient, wide);
        match self.energy.map(|energy| part(energy, b, a)) {
            Some(energy) => {
                let queries = query.chunks_exact(a).zip(found.query.chunks_exact_mut(a));
                for ((query, dq), d) in queries.zip(d.chunks_exact(s)) {
                    rows::energies_backward(&d[..real], query, keys, energy, dq, found.keys, found.energy);
                }
            }
            None => {
                let across = Strides::rows(a);
                product([t, a, real], found.query, across, false, &d, narrow, keys, across);
                product([real, a, t], found.keys, across, false, &d, from_weights, query, across);
            }
        }
    }
}
