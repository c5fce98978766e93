//! A layer of the query-reduction network on slices, for the Flex CPU backend: rows are shared out among threads.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use rayon::prelude::*;

use super::rows::{Found, Row, backward, forward};
use super::{Body, Inputs, Reduction, ReductionOps};
use crate::attention::sum_rows;
use crate::blocks::rows_mut;
use crate::flex::{dense, into_owned, slice, slice_mut, wrap};
use crate::memory::zeros;

impl ReductionOps for Flex {
    fn reduce(inputs: Inputs<Self>, run: Reduction) -> FlexTensor {
        Self::forward(inputs, &run).0
    }
}

impl Body for Flex {
    fn forward(inputs: Inputs<Self>, run: &Reduction) -> (FlexTensor, Inputs<Self>, FlexTensor) {
        let Inputs { sentences, queries, candidates, weight, bias } = inputs;
        // What made the candidates seldom reads them again: what becomes of them takes their place.
        let mut candidates = into_owned(dense(candidates));
        let (sentences, queries, weight, bias) = (dense(sentences), dense(queries), dense(weight), dense(bias));
        let layer = Layer::new(run, &sentences, &queries, &weight, &bias);
        let Layer { b, n, d, g, .. } = layer;
        let count = b * n * d;
        let mut packed = zeros(if run.both { count + b * d } else { count });
        let mut gates = zeros(b * n * g);
        let (sequence, last) = packed.split_at_mut(count);
        let last = rows_mut(run.both.then_some(last), d, b);
        let rows = sequence.par_chunks_exact_mut(n * d).zip(last).zip(gates.par_chunks_exact_mut(n * g));
        let rows = rows.zip(slice_mut(&mut candidates).par_chunks_exact_mut(n * d)).enumerate();
        rows.for_each(|(b, (((sequence, last), gates), candidates))| {
            let (row, real) = layer.row(b);
            forward(row, &mut candidates[..real * d], &mut gates[..real * g], sequence, last);
        });
        let (packed, gates) = (wrap(packed, [count / d + if run.both { b } else { 0 }, d]), wrap(gates, [b, n, g]));
        (packed, Inputs { sentences, queries, candidates, weight, bias }, gates)
    }

    fn backward(gradient: FlexTensor, inputs: Inputs<Self>, gates: FlexTensor, run: &Reduction) -> [FlexTensor; 5] {
        let gradient = dense(gradient);
        let Inputs { sentences, queries, candidates, weight, bias } = inputs;
        let mut candidates = into_owned(candidates);
        let layer = Layer::new(run, &sentences, &queries, &weight, &bias);
        let Layer { b, n, d, g, asked, .. } = layer;
        let (mut dx, mut dq) = (zeros(b * n * d), zeros(b * asked * d));
        // Of weight and bias, one behind the other for each row.
        let own = g * d + g;
        let mut parameters = zeros(b * own);
        let (of_sequence, of_last) = slice(&gradient).split_at(b * n * d);
        let rows = dx.par_chunks_exact_mut(n * d).zip(dq.par_chunks_exact_mut(asked * d));
        let rows = rows.zip(parameters.par_chunks_exact_mut(own));
        let rows = rows.zip(slice_mut(&mut candidates).par_chunks_exact_mut(n * d)).enumerate();
        rows.for_each(|(b, (((sentences, queries), parameters), candidates))| {
            let (row, real) = layer.row(b);
            let (candidates, padding) = candidates.split_at_mut(real * d);
            padding.fill(0.0);
            let gates = &slice(&gates)[b * n * g..][..real * g];
            let of_last = run.both.then(|| &of_last[b * d..][..d]);
            let (weight, bias) = parameters.split_at_mut(g * d);
            let found = Found { sentences, queries, candidates, weight, bias };
            backward(row, &of_sequence[b * n * d..][..n * d], of_last, gates, found);
        });
        let mut weight = sum_rows(&parameters, own);
        let bias = weight.split_off(g * d);
        [wrap(dx, [b, n, d]), wrap(dq, [b, asked, d]), candidates, wrap(weight, [g, d]), wrap(bias, [g])]
    }
}

/// What a layer reads, with its sizes: `B`, `N`, `D`, `G`.
struct Layer<'a> {
    real: Vec<usize>,
    sentences: &'a [f32],
    queries: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    b: usize,
    n: usize,
    d: usize,
    g: usize,
    /// Steps of the queries: `N` or 1.
    asked: usize,
}

impl<'a> Layer<'a> {
    fn new(
        run: &Reduction,
        sentences: &'a FlexTensor,
        queries: &'a FlexTensor,
        weight: &'a FlexTensor,
        bias: &'a FlexTensor,
    ) -> Self {
        let [b, n, d] = std::array::from_fn(|i| sentences.shape()[i]);
        Self {
            real: run.real(n),
            sentences: slice(sentences),
            queries: slice(queries),
            weight: slice(weight),
            bias: slice(bias),
            b,
            n,
            d,
            g: bias.shape()[0],
            asked: queries.shape()[1],
        }
    }

    /// The real steps of row `b`, and how many there are.
    fn row(&self, b: usize) -> (Row<'a>, usize) {
        let (real, d) = (self.real[b], self.d);
        let asked = if self.asked == 1 { 1 } else { real };
        let row = Row {
            sentences: &self.sentences[b * self.n * d..][..real * d],
            queries: &self.queries[b * self.asked * d..][..asked * d],
            weight: self.weight,
            bias: self.bias,
        };
        (row, real)
    }
}
