//! The fed decoder on a GPU: one launch forward and one back where cubes can wait for each other, else three or four a step forward,
//! and four back.
//!
//! A step is the cell, the query (of additive scores), the look at the memory, and the readout; each is a kernel for all rows, and
//! goes on with what the one before it left. Output, state and context lie beside each other in an exchange, as the next kernel
//! multiplies them: output and state before the cell, state and context before the readout. It has a place for every step, or two that take
//! turns, since some cube may still read the old state while another one writes the new.
//!
//! Back it goes by the readout, the look, the query with the cell, and what is before the cell. The gradients of weights, keys and
//! memory are products and sums over all steps at the end.

mod ahead;
mod back;
mod backward;
mod columns;
mod forward;
mod whole;

use burn::backend::{Cube, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::prelude::*;

use super::attention::Look;
use super::meeting::{ASKED, can_meet};
use super::recurrent::MOST;
use super::tile::ROWS;
use super::{UNITS, cubes, dense, into_owned};
use crate::dropout::{keep, threshold};
use crate::feeding::{Body, Feeding, FeedingOps, Parts, Saved};

impl FeedingOps for Cube {
    fn fed_decoder(x: CubeTensor, parts: Parts<Self>, run: Feeding) -> (CubeTensor, CubeTensor) {
        let (saved, state) = Self::forward(x, parts, &run);
        (saved.outputs, state)
    }
}

impl Body for Cube {
    fn forward(x: CubeTensor, parts: Parts<Self>, run: &Feeding) -> (Saved<Self>, CubeTensor) {
        let gates = into_owned(dense(x));
        Layer::new(&gates, parts, run).forward(gates)
    }

    fn backward(gradient: CubeTensor, parts: Parts<Self>, saved: Saved<Self>, run: &Feeding) -> [CubeTensor; 12] {
        let Saved { outputs, gates, hidden, trace, queries, weights, contexts } = saved;
        let (gates, trace) = (into_owned(gates), into_owned(trace));
        let saved = Saved { outputs, gates, hidden, trace, queries, weights, contexts };
        Layer::new(&saved.gates, parts, run).backward(&dense(gradient), saved)
    }
}

impl Parts<Cube> {
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

/// The layer with its sizes `B`, `T`, `H`, `R`, and those of what it looks at.
struct Layer<'a> {
    run: &'a Feeding,
    parts: Parts<Cube>,
    look: Look,
    b: usize,
    t: usize,
    h: usize,
    r: usize,
    /// Groups of sixteen rows.
    groups: usize,
}

/// Numbers of a line of a processor's first cache.
const LINE: usize = 32;

/// Slices of a part of a step that a cube takes alone.
const ALONE: usize = 4;

/// Cubes and units for a number of elements, each a unit's.
fn elements(count: usize) -> (CubeCount, CubeDim) {
    (cubes(count), CubeDim::new_1d(UNITS as u32))
}

impl<'a> Layer<'a> {
    /// `like`: `[B, T, G·H]`.
    fn new(like: &CubeTensor, parts: Parts<Cube>, run: &'a Feeding) -> Self {
        let (parts, dims) = (parts.dense(), like.shape());
        let [b, t] = [dims[0], dims[1]];
        let energy = parts.additive.then(|| parts.energy.clone());
        let live: Vec<u32> = run.lengths.iter().map(|&length| length.min(t as u32)).collect();
        let keys = run.dropout.iter().flat_map(|(_, keys)| keys.iter().map(|key| key.bits()));
        let mut keys: Vec<u32> = keys.flat_map(|bits| [bits as u32, (bits >> 32) as u32]).collect();
        keys.resize(2 * t, 0);
        let mut look = Look::new(parts.keys.clone(), parts.memory.clone(), energy, &run.over, &live, &keys);
        look.stride = look.s.next_multiple_of(LINE);
        let (h, r) = (parts.recurrent.shape()[0], parts.readout_bias.shape()[0]);
        Self { run, parts, look, b, t, h, r, groups: b.div_ceil(ROWS) }
    }

    fn states(&self) -> u32 {
        self.run.cell.states() as u32
    }

    /// Below which of 65,536 a number is dropped, and what a kept one is multiplied by.
    fn mask(&self) -> (u32, f32) {
        self.run.dropout.as_ref().map_or((0, 1.0), |(rate, _)| (threshold(*rate), keep(*rate)))
    }

    /// How many cubes a group of rows has that take all steps in one launch, if they do: parts of a step have so many slices at most,
    /// and a place of the exchange so many numbers.
    fn together(&self, client: &Client, slices: usize, place: usize) -> Option<usize> {
        if self.t == 1 || place * (self.t + 1) > MOST {
            return None;
        }
        if slices <= ALONE {
            return can_meet(client, 1).then_some(1);
        }
        let in_lines = [self.h, self.look.a, self.look.m].iter().all(|width| width.is_multiple_of(LINE));
        let cubes = ASKED.into_iter().map(|all| (all / self.groups).min(slices)).filter(|_| in_lines);
        cubes.into_iter().find(|&cubes| cubes > 0 && can_meet(client, cubes * self.groups))
    }
}
