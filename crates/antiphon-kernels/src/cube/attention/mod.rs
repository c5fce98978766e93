//! Attention on a GPU: scores, softmax and context of a query in one cube, and the way back.
//!
//! A cube has one query of a row ([`kernels`]). The same kernels take one step of a decoder with input feeding, or all queries at once.
//! What is added up over the queries of a row (the gradients of keys, memory and energy) is added by one unit each, in their order.
//!
//! Of each row a table `[B, 3]` tells which row of the memory it looks at, how many of its steps are real, and how many queries are.
//! The numbers of others are not read.

pub(super) mod kernels;

use std::ops::Range;

use burn::backend::{Cube, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::product::sum_columns;
use super::{UNITS, dense, dummy, unwritten, upload};
use crate::attention::{AttentionOps, Body, Inputs, Over, WeightsOps};

pub(crate) use self::kernels::MOST_STEPS;
use self::kernels::{CHUNK, SUMMED};

impl AttentionOps for Cube {
    fn attend(inputs: Inputs<Self>, over: Over) -> CubeTensor {
        Self::forward(inputs, &over).0
    }
}

impl WeightsOps for Cube {
    fn attend_with_weights(inputs: Inputs<Self>, over: Over) -> (CubeTensor, CubeTensor) {
        Self::forward(inputs, &over)
    }
}

impl Body for Cube {
    fn forward(inputs: Inputs<Self>, over: &Over) -> (CubeTensor, CubeTensor) {
        let (query, look) = look(inputs, over);
        let (b, t) = (look.b, query.shape()[1]);
        let (contexts, weights) = (unwritten(&query, [b, t, look.m]), unwritten(&query, [b, t, look.s]));
        look.forward(&query, t, 0..t, &weights, &contexts, None);
        (contexts, weights)
    }

    fn backward(gradient: CubeTensor, inputs: Inputs<Self>, over: &Over, weights: CubeTensor) -> [CubeTensor; 4] {
        assert!(over.owners.is_none(), "rows that share a memory are not trained");
        let (gradient, (query, look)) = (dense(gradient), look(inputs, over));
        let (b, t) = (look.b, query.shape()[1]);
        let (dscores, dquery) = (unwritten(&query, [b, t, look.s]), unwritten(&query, [b, t, look.a]));
        look.backward(&gradient, &query, t, 0..t, &weights, &dscores, &dquery, None);
        let [keys, memory, energy] = look.of_memory(&gradient, &query, t, &weights, &dscores);
        [dquery, keys, memory, energy]
    }
}

/// The queries, and what they look at.
fn look(inputs: Inputs<Cube>, over: &Over) -> (CubeTensor, Look) {
    let Inputs { query, keys, memory, energy, additive } = inputs;
    let query = dense(query);
    let (b, t) = (query.shape()[0], query.shape()[1]);
    let look = Look::new(dense(keys), dense(memory), additive.then(|| dense(energy)), over, &vec![t as u32; b], &[]);
    (query, look)
}

/// Keys and memory as a step of a decoder looks at them, with their sizes: `B` rows of queries, `S`, `A`, `M`.
pub(super) struct Look {
    pub(super) keys: CubeTensor,
    pub(super) memory: CubeTensor,
    /// `[N·A]`; a dummy unless `additive`.
    pub(super) energy: CubeTensor,
    additive: bool,
    /// What no kernel touches.
    nothing: CubeTensor,
    /// Of a row: its row of the memory, how many of its steps are real, and how many queries.
    pub(super) table: CubeTensor,
    b: usize,
    pub(super) s: usize,
    /// How far the weights of one query lie behind those of another: `S`, or more.
    pub(super) stride: usize,
    pub(super) a: usize,
    pub(super) m: usize,
}

/// Rows as the next kernel multiplies them, `[groups][depth][16]`: what a step of a decoder also writes there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handed<'a> {
    pub(super) to: &'a CubeTensor,
    /// The first group.
    pub(super) group: usize,
    pub(super) depth: usize,
    /// Where the numbers begin in the depth; zeros fill them up to a multiple of four.
    pub(super) at: usize,
}

impl Look {
    /// `live`: queries of each row that are real. The `more` numbers stand behind the table.
    pub(super) fn new(
        keys: CubeTensor,
        memory: CubeTensor,
        energy: Option<CubeTensor>,
        over: &Over,
        live: &[u32],
        more: &[u32],
    ) -> Self {
        let (of_keys, of_memory) = (keys.shape(), memory.shape());
        let (s, a, m) = (of_keys[1], of_keys[2], of_memory[2]);
        let rows = live.iter().enumerate().flat_map(|(b, &live)| {
            let (row, real) = over.row(b, s);
            [row as u32, real as u32, live]
        });
        let table = upload(&rows.chain(more.iter().copied()).collect::<Vec<_>>(), &keys);
        let (nothing, additive) = (dummy(&keys), energy.is_some());
        let energy = energy.unwrap_or_else(|| dummy(&keys));
        Self { keys, memory, energy, additive, nothing, table, b: live.len(), s, stride: s, a, m }
    }

    /// How many parts the energy has.
    pub(super) fn parts(&self) -> usize {
        if self.additive { self.energy.shape()[0] / self.a } else { 1 }
    }

    /// The buffer to hand over to, with its numbers for the kernel: a depth of 0 says that nothing is handed over.
    fn place_of(&self, handed: Option<Handed<'_>>) -> (CubeTensor, [u32; 3]) {
        match handed {
            Some(Handed { to, group, depth, at }) => (to.clone(), [group, depth, at].map(|n| n as u32)),
            None => (self.nothing.clone(), [0; 3]),
        }
    }

    /// A cube for each row and each of those queries.
    fn cubes(&self, queries: &Range<usize>) -> CubeCount {
        CubeCount::Static(self.b as u32, queries.len() as u32, 1)
    }

    /// Weights `[B, T, S]` and contexts `[B, T, M]` of those queries `[B, T, A]`.
    pub(super) fn forward(
        &self,
        query: &CubeTensor,
        steps: usize,
        queries: Range<usize>,
        weights: &CubeTensor,
        contexts: &CubeTensor,
        handed: Option<Handed<'_>>,
    ) {
        let (to, [group, depth, at]) = self.place_of(handed);
        // SAFETY: the kernel reads and writes no number beyond the buffers, whose sizes follow from those that it is given.
        unsafe {
            kernels::look_forward::launch_unchecked(
                &query.client,
                self.cubes(&queries),
                CubeDim::new_1d(UNITS as u32),
                query.clone().into_buffer_arg(),
                self.keys.clone().into_buffer_arg(),
                self.memory.clone().into_buffer_arg(),
                self.energy.clone().into_buffer_arg(),
                self.table.clone().into_buffer_arg(),
                weights.clone().into_buffer_arg(),
                contexts.clone().into_buffer_arg(),
                to.into_buffer_arg(),
                steps as u32,
                queries.start as u32,
                self.s as u32,
                self.stride as u32,
                self.a as u32,
                self.m as u32,
                self.parts() as u32,
                group,
                depth,
                at,
                self.additive,
            );
        }
    }

    /// From the gradients of the contexts and the weights: those of the scores and of the queries.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward(
        &self,
        gradient: &CubeTensor,
        query: &CubeTensor,
        steps: usize,
        queries: Range<usize>,
        weights: &CubeTensor,
        dscores: &CubeTensor,
        dquery: &CubeTensor,
        handed: Option<Handed<'_>>,
    ) {
        let (to, [group, depth, at]) = self.place_of(handed);
        // SAFETY: as above.
        unsafe {
            kernels::look_backward::launch_unchecked(
                &query.client,
                self.cubes(&queries),
                CubeDim::new_1d(UNITS as u32),
                gradient.clone().into_buffer_arg(),
                query.clone().into_buffer_arg(),
                self.keys.clone().into_buffer_arg(),
                self.memory.clone().into_buffer_arg(),
                self.energy.clone().into_buffer_arg(),
                self.table.clone().into_buffer_arg(),
                weights.clone().into_buffer_arg(),
                dscores.clone().into_buffer_arg(),
                dquery.clone().into_buffer_arg(),
                to.into_buffer_arg(),
                steps as u32,
                queries.start as u32,
                self.s as u32,
                self.stride as u32,
                self.a as u32,
                self.m as u32,
                self.parts() as u32,
                group,
                depth,
                at,
                self.additive,
            );
        }
    }

    /// From the gradients of all contexts and scores: those of keys, memory and energy (else a dummy).
    pub(super) fn of_memory(
        &self,
        gradient: &CubeTensor,
        query: &CubeTensor,
        steps: usize,
        weights: &CubeTensor,
        dscores: &CubeTensor,
    ) -> [CubeTensor; 3] {
        let dmemory = self.over_queries(weights, gradient, steps, self.m);
        if !self.additive {
            return [self.over_queries(dscores, query, steps, self.a), dmemory, dummy(query)];
        }
        let (parts, chunks) = (self.parts(), self.s.div_ceil(CHUNK));
        let dkeys = unwritten(query, [self.b, self.s, self.a]);
        let rows = chunks * self.b / parts;
        let partial = unwritten(query, [rows, parts * self.a]);
        // SAFETY: as above.
        unsafe {
            kernels::keys_backward::launch_unchecked(
                &query.client,
                CubeCount::Static(self.a.div_ceil(UNITS) as u32, chunks as u32, self.b as u32),
                CubeDim::new_1d(UNITS as u32),
                query.clone().into_buffer_arg(),
                self.keys.clone().into_buffer_arg(),
                self.energy.clone().into_buffer_arg(),
                self.table.clone().into_buffer_arg(),
                dscores.clone().into_buffer_arg(),
                dkeys.clone().into_buffer_arg(),
                partial.clone().into_buffer_arg(),
                steps as u32,
                self.s as u32,
                self.stride as u32,
                self.a as u32,
                parts as u32,
            );
        }
        let denergy = unwritten(query, [parts * self.a]);
        sum_columns(&partial, [rows, parts * self.a, parts * self.a], &denergy, 0);
        [dkeys, dmemory, denergy]
    }

    /// `[B, S, width]`: the sums over a row's queries of `weights` `[B, T, S]` times `values` `[B, T, width]`.
    fn over_queries(&self, weights: &CubeTensor, values: &CubeTensor, steps: usize, width: usize) -> CubeTensor {
        let sums = unwritten(values, [self.b, self.s, width]);
        let cubes = [width.div_ceil(UNITS), self.s.div_ceil(SUMMED), self.b].map(|n| n as u32);
        // SAFETY: as above.
        unsafe {
            kernels::sum_over_queries::launch_unchecked(
                &values.client,
                CubeCount::Static(cubes[0], cubes[1], cubes[2]),
                CubeDim::new_1d(UNITS as u32),
                weights.clone().into_buffer_arg(),
                values.clone().into_buffer_arg(),
                self.table.clone().into_buffer_arg(),
                sums.clone().into_buffer_arg(),
                steps as u32,
                self.s as u32,
                self.stride as u32,
                width as u32,
            );
        }
        sums
    }
}
