//! Looks in turn on slices, for the Flex CPU backend.

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use rayon::prelude::*;

use super::super::flex::{Look, part, sum_rows};
use super::super::{Inputs, Over, rows};
use super::rows::{LANES, correlate, hear, scores_backward};
use super::{Body, Heard, InTurnOps};
use crate::flex::{dense, dummy, slice, wrap};
use crate::memory::zeros;
use crate::product::{Strides, product};

impl InTurnOps for Flex {
    fn attend_in_turn(inputs: Inputs<Self>, heard: Heard<Self>, over: Over) -> FlexTensor {
        let (inputs, heard) = (inputs.dense(), heard.dense());
        let turns = Turns::new(&inputs, &heard, &over);
        let Look { b, t, s, m, .. } = turns.look;
        let mut packed = zeros(b * t * (m + s));
        let rows = packed.par_chunks_exact_mut(t * (m + s)).enumerate();
        rows.for_each(|(b, packed)| turns.forward_row(b, packed));
        wrap(packed, [b, t, m + s])
    }
}

impl Body for Flex {
    fn backward(
        gradient: FlexTensor,
        inputs: Inputs<Self>,
        heard: Heard<Self>,
        over: &Over,
        packed: FlexTensor,
    ) -> [FlexTensor; 7] {
        assert!(over.owners.is_none(), "rows that share a memory are not trained");
        let (inputs, heard) = (inputs.dense(), heard.dense());
        let (gradient, packed) = (dense(gradient), dense(packed));
        let turns = Turns::new(&inputs, &heard, over);
        let Look { b, t, s, a, m, .. } = turns.look;
        let (f, width) = (turns.features, turns.width);
        let (mut dq, mut dk, mut dm, mut ds) = (zeros(b * t * a), zeros(b * s * a), zeros(b * s * m), zeros(b * s));
        // Of energy, weight and filters, one behind the other for each row.
        let own = a + f * a + f * width;
        let mut parameters = zeros(b * own);
        let written = dq.par_chunks_exact_mut(t * a).zip(dk.par_chunks_exact_mut(s * a));
        let written = written.zip(dm.par_chunks_exact_mut(s * m)).zip(ds.par_chunks_exact_mut(s));
        let written = written.zip(parameters.par_chunks_exact_mut(own)).enumerate();
        written.for_each(|(b, ((((query, keys), memory), seen), parameters))| {
            let of = |packed| &slice(packed)[b * t * (m + s)..][..t * (m + s)];
            let (energy, rest) = parameters.split_at_mut(a);
            let (weight, filters) = rest.split_at_mut(f * a);
            let found = Gradient { query, keys, memory, seen, energy, weight, filters };
            turns.backward_row(b, of(&gradient), of(&packed), found);
        });
        let sums = sum_rows(&parameters, turns.parts * own);
        let of = |from: usize, count: usize| -> Vec<f32> {
            sums.chunks_exact(own).flat_map(|part| &part[from..][..count]).copied().collect()
        };
        let parts = turns.parts;
        let filters = match heard.located {
            true => wrap(of(a + f * a, f * width), [parts * f, width]),
            false => dummy(),
        };
        [
            wrap(dq, [b, t, a]),
            wrap(dk, [b, s, a]),
            wrap(dm, [b, s, m]),
            wrap(of(0, a), [parts * a]),
            wrap(ds, [b, s]),
            wrap(of(a, f * a), [parts * f, a]),
            filters,
        ]
    }
}

impl Heard<Flex> {
    fn dense(self) -> Self {
        let Self { seen, weight, filters, located } = self;
        Self { seen: dense(seen), weight: dense(weight), filters: dense(filters), located }
    }
}

/// The inputs as slices, with their sizes.
struct Turns<'a> {
    look: Look<'a>,
    seen: &'a [f32],
    weight: &'a [f32],
    /// Of a location.
    filters: Option<&'a [f32]>,
    /// `N`.
    parts: usize,
    /// `F`.
    features: usize,
    /// Numbers of a filter; 0 of a coverage.
    width: usize,
}

/// Gradients of one row, zero on entry.
struct Gradient<'a> {
    query: &'a mut [f32],
    keys: &'a mut [f32],
    memory: &'a mut [f32],
    seen: &'a mut [f32],
    energy: &'a mut [f32],
    weight: &'a mut [f32],
    filters: &'a mut [f32],
}

/// Steps of the memory whose scores are made at once: what they hear stays in a first-level cache.
const BLOCK: usize = 16;

impl<'a> Turns<'a> {
    fn new(inputs: &'a Inputs<Flex>, heard: &'a Heard<Flex>, over: &'a Over) -> Self {
        let look = Look::new(inputs, over);
        let parts = look.energy.expect("additive scores").len() / look.a;
        Self {
            look,
            seen: slice(&heard.seen),
            weight: slice(&heard.weight),
            filters: heard.located.then(|| slice(&heard.filters)),
            parts,
            features: heard.weight.shape()[0] / parts,
            width: if heard.located { heard.filters.shape()[1] } else { 0 },
        }
    }

    /// The parameters of row `b`: energy, weight and filters.
    fn own(&self, b: usize) -> (&'a [f32], &'a [f32], Option<&'a [f32]>) {
        let (f, a) = (self.features, self.look.a);
        let energy = part(self.look.energy.expect("additive scores"), b, a);
        (energy, part(self.weight, b, f * a), self.filters.map(|filters| part(filters, b, f * self.width)))
    }

    /// `packed`: `[T, M + S]`, contexts and weights, zero on entry.
    fn forward_row(&self, b: usize, packed: &mut [f32]) {
        let Look { t, s, a, m, .. } = self.look;
        let (keys, memory, real) = self.look.row(b);
        if real == 0 {
            return;
        }
        let (energy, weight, filters) = self.own(b);
        let mut seen = self.seen[b * s..][..real].to_vec();
        let mut weights = vec![0.0; t * real];
        let (mut features, mut heard) = (vec![0.0; self.features * real], vec![0.0; BLOCK.min(real) * a]);
        let mut padded = self.padding(real);
        let queries = self.look.query[b * t * a..][..t * a].chunks_exact(a);
        for (query, weights) in queries.zip(weights.chunks_exact_mut(real)) {
            self.features(&seen, filters, &mut padded, &mut features);
            for (i, (keys, scores)) in keys.chunks(BLOCK * a).zip(weights.chunks_mut(BLOCK)).enumerate() {
                let heard = &mut heard[..keys.len()];
                hear(keys, &features[i * BLOCK..], real, weight, a, heard);
                rows::energies(query, heard, energy, scores);
            }
            rows::softmax(weights);
            self.see(&mut seen, weights);
        }
        if t == 1 {
            rows::weighted_sum(&weights, memory, &mut packed[..m]);
        } else {
            let (to, left, right) = (Strides::rows(m + s), Strides::rows(real), Strides::rows(m));
            product([t, m, real], packed, to, false, &weights, left, memory, right);
        }
        for (packed, weights) in packed.chunks_exact_mut(m + s).zip(weights.chunks_exact(real)) {
            packed[m..][..real].copy_from_slice(weights);
        }
    }

    /// `gradient` and `packed`: `[T, M + S]`, contexts and weights.
    fn backward_row(&self, b: usize, gradient: &[f32], packed: &[f32], found: Gradient<'_>) {
        let Look { t, s, a, m, .. } = self.look;
        let (keys, memory, real) = self.look.row(b);
        if real == 0 {
            return;
        }
        let (energy, weight, filters) = self.own(b);
        let (wide, both) = (Strides::rows(m), Strides::rows(m + s));
        // Of the weights, then of the scores.
        let mut d = vec![0.0; t * real];
        product([t, real, m], &mut d, Strides::rows(real), false, gradient, both, memory, Strides::transposed(m));
        let of_weights = Strides::transposed(m + s).at(m);
        product([real, m, t], found.memory, wide, false, packed, of_weights, gradient, both);
        let weights = |t: usize| &packed[t * (m + s) + m..][..real];
        // What was seen before each look.
        let mut seen = Vec::with_capacity(t * real);
        seen.extend_from_slice(&self.seen[b * s..][..real]);
        for turn in 1..t {
            let mut next = seen[(turn - 1) * real..].to_vec();
            self.see(&mut next, weights(turn - 1));
            seen.extend(next);
        }
        let (mut features, mut dfeatures) = (vec![0.0; self.features * real], vec![0.0; self.features * real]);
        let (mut heard, mut padded) = (vec![0.0; real * a], self.padding(real));
        // Of what is seen by the looks behind.
        let dseen = &mut found.seen[..real];
        for turn in (0..t).rev() {
            let (query, dquery) = (&self.look.query[(b * t + turn) * a..][..a], &mut found.query[turn * a..][..a]);
            let (d, seen) = (&mut d[turn * real..][..real], &seen[turn * real..][..real]);
            let given = &gradient[turn * (m + s) + m..][..real];
            d.iter_mut().zip(given).zip(&*dseen).for_each(|((d, given), seen)| *d += given + seen);
            rows::softmax_backward(weights(turn), d);
            if filters.is_some() {
                dseen.fill(0.0);
            }
            // As of the looks behind a row's end.
            if d.iter().all(|&d| d == 0.0) {
                continue;
            }
            self.features(seen, filters, &mut padded, &mut features);
            for (i, (d, heard)) in d.chunks(BLOCK).zip(heard.chunks_mut(BLOCK * a)).enumerate() {
                let block = i * BLOCK * a..i * BLOCK * a + heard.len();
                hear(&keys[block.clone()], &features[i * BLOCK..], real, weight, a, heard);
                scores_backward(d, query, energy, heard, dquery, &mut found.keys[block], found.energy);
            }
            let (along, across) = (Strides::rows(real), Strides::rows(a));
            product([self.features, a, real], found.weight, across, true, &features, along, &heard, across);
            // By step: a product into rows by feature would take twice as long.
            let (by_step, turned) = (Strides::rows(self.features), Strides::transposed(a));
            product([real, self.features, a], &mut dfeatures, by_step, false, &heard, across, weight, turned);
            match filters {
                None => dseen.iter_mut().zip(&dfeatures).for_each(|(dseen, d)| *dseen += d),
                Some(filters) => self.filters_backward(filters, &padded, &dfeatures, dseen, found.filters),
            }
        }
    }

    /// The weights of a look are seen by the next.
    fn see(&self, seen: &mut [f32], weights: &[f32]) {
        match self.filters {
            None => seen.iter_mut().zip(weights).for_each(|(seen, weight)| *seen += weight),
            Some(_) => seen.copy_from_slice(weights),
        }
    }

    /// Room for what was seen of `real` steps, with zeros around for a filter's reach, and behind for one of whole vectors.
    fn padding(&self, real: usize) -> Vec<f32> {
        vec![0.0; self.filters.map_or(0, |_| real + self.width.next_multiple_of(LANES) - 1)]
    }

    /// `features`: `[F, S]`; `padded`: from [`padding`](Self::padding), and holds what was seen then.
    fn features(&self, seen: &[f32], filters: Option<&[f32]>, padded: &mut [f32], features: &mut [f32]) {
        let Some(filters) = filters else { return features.copy_from_slice(seen) };
        padded[self.width / 2..][..seen.len()].copy_from_slice(seen);
        features.fill(0.0);
        for (filter, features) in filters.chunks_exact(self.width).zip(features.chunks_exact_mut(seen.len())) {
            correlate(&padded[..self.width - 1 + seen.len()], filter, features);
        }
    }

    /// From the gradients of the features `[S, F]` adds to those of what was seen, which stands in `padded`, and of the filters.
    fn filters_backward(&self, filters: &[f32], padded: &[f32], d: &[f32], dseen: &mut [f32], dfilters: &mut [f32]) {
        let (width, real) = (self.width, dseen.len());
        let (mut around, mut turned) = (vec![0.0; real + width - 1], vec![0.0; width]);
        let mut wide = vec![0.0; width.next_multiple_of(LANES)];
        let filters = filters.chunks_exact(width).zip(dfilters.chunks_exact_mut(width));
        for (f, (filter, dfilter)) in filters.enumerate() {
            let own = &mut around[width / 2..][..real];
            own.iter_mut().zip(d[f..].iter().step_by(self.features)).for_each(|(to, d)| *to = *d);
            wide.fill(0.0);
            correlate(padded, own, &mut wide);
            dfilter.iter_mut().zip(&wide).for_each(|(dfilter, d)| *dfilter += d);
            turned.iter_mut().zip(filter.iter().rev()).for_each(|(to, from)| *to = *from);
            correlate(&around, &turned, dseen);
        }
    }
}
