//! The launches of the way forward.

use burn::backend::Cube;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::attention::Handed;
use super::super::tile::ROWS;
use super::super::{UNITS, dummy, unwritten, zeros};
use super::columns::{Columns, padded, units_of};
use super::{Layer, elements, forward, whole};
use crate::feeding::Saved;
use crate::recurrent::Cell;

impl Layer<'_> {
    pub(super) fn forward(&self, gates: CubeTensor) -> (Saved<Cube>, CubeTensor) {
        let Self { run, parts, look, b, t, h, r, groups } = self;
        let (b, t, h, r, groups, client) = (*b, *t, *h, *r, *groups, gates.client.clone());
        let (a, m, cell) = (look.a, look.m, run.cell);
        let (hp, rp, mp) = (padded(h), padded(r), padded(m));
        let depth = (rp + hp + mp) as usize;
        let of_cell = Columns::of_gates(&gates, groups, (rp + hp) as usize, h);
        let last = cell.gates() - 1;
        of_cell.pack_gates(&parts.feed, 0, h, cell.gates(), last);
        // The GRU's candidate has a sum of its own inside the reset gate.
        of_cell.pack_gates(&parts.recurrent, rp, h, cell.gates(), if cell == Cell::Gru { 3 } else { last });
        let of_readout = Columns::new(&gates, units_of(groups, r), (hp + mp) as usize, [r, 0]);
        of_readout.pack(&parts.readout_state, 0);
        of_readout.pack(&parts.readout_context, hp);
        let of_query = parts.additive.then(|| {
            let columns = Columns::new(&gates, units_of(groups, a), hp as usize, [a, 0]);
            columns.pack(&parts.query, 0);
            columns
        });
        let query_slices = of_query.as_ref().map_or(0, Columns::all_slices);
        let slices = [of_cell.all_slices(), query_slices, of_readout.all_slices()];
        let together = self.together(&client, slices.into_iter().max().unwrap_or(1), groups * depth * ROWS);
        // A step has its own place, or two places take turns.
        let places = if together.is_some() { t + 1 } else { 2 };
        let exchange = unwritten(&gates, [places * groups * depth * ROWS]);
        let (outputs, hidden) = (unwritten(&gates, [b, t, r]), unwritten(&gates, [b, t, h]));
        let (weights, contexts) = (unwritten(&gates, [b, t, look.stride]), unwritten(&gates, [b, t, m]));
        let trace = if cell == Cell::Rnn { dummy(&gates) } else { unwritten(&gates, [b, t, h]) };
        let queries = if parts.additive { unwritten(&gates, [b, t, a]) } else { dummy(&gates) };
        let (cubes, units) = elements(groups * (rp + hp) as usize * ROWS / 4);
        // SAFETY: the kernels read and write no number beyond the buffers, whose sizes follow from those that they are given.
        unsafe {
            forward::begin::launch_unchecked(
                &client,
                cubes,
                units,
                parts.state.clone().into_buffer_arg(),
                exchange.clone().into_buffer_arg(),
                b as u32,
                h as u32,
                hp,
                rp,
                depth as u32,
                self.states(),
            );
        }
        let (threshold, keep) = self.mask();
        if let Some(cubes) = together {
            // SAFETY: as above.
            unsafe {
                whole::whole_forward::launch_unchecked(
                    &client,
                    CubeCount::Static(cubes as u32, groups as u32, 1),
                    CubeDim::new_1d(UNITS as u32),
                    of_cell.packed.clone().into_buffer_arg(),
                    of_query.as_ref().unwrap_or(&of_readout).packed.clone().into_buffer_arg(),
                    of_readout.packed.clone().into_buffer_arg(),
                    parts.bias.clone().into_buffer_arg(),
                    parts.readout_bias.clone().into_buffer_arg(),
                    look.table.clone().into_buffer_arg(),
                    parts.state.clone().into_buffer_arg(),
                    look.keys.clone().into_buffer_arg(),
                    look.memory.clone().into_buffer_arg(),
                    look.energy.clone().into_buffer_arg(),
                    exchange.clone().into_buffer_arg(),
                    gates.clone().into_buffer_arg(),
                    trace.clone().into_buffer_arg(),
                    hidden.clone().into_buffer_arg(),
                    queries.clone().into_buffer_arg(),
                    weights.clone().into_buffer_arg(),
                    contexts.clone().into_buffer_arg(),
                    outputs.clone().into_buffer_arg(),
                    zeros(&gates, groups).into_buffer_arg(),
                    b as u32,
                    t as u32,
                    h as u32,
                    hp,
                    r as u32,
                    rp,
                    depth as u32,
                    look.s as u32,
                    look.stride as u32,
                    a as u32,
                    m as u32,
                    look.parts() as u32,
                    slices[0] as u32,
                    slices[1] as u32,
                    slices[2] as u32,
                    threshold,
                    keep,
                    cell,
                    of_cell.units,
                    of_query.as_ref().map_or(1, Columns::wide),
                    of_readout.wide(),
                    parts.additive,
                );
            }
        }
        for step in if together.is_some() { 0..0 } else { 0..t } {
            let (before, after) = (step % 2, 1 - step % 2);
            let (cubes, units) = of_cell.cubes(groups);
            // SAFETY: as above.
            unsafe {
                forward::cell_forward::launch_unchecked(
                    &client,
                    cubes,
                    units,
                    of_cell.packed.clone().into_buffer_arg(),
                    parts.bias.clone().into_buffer_arg(),
                    look.table.clone().into_buffer_arg(),
                    parts.state.clone().into_buffer_arg(),
                    exchange.clone().into_buffer_arg(),
                    gates.clone().into_buffer_arg(),
                    trace.clone().into_buffer_arg(),
                    hidden.clone().into_buffer_arg(),
                    b as u32,
                    t as u32,
                    h as u32,
                    hp,
                    rp,
                    depth as u32,
                    step as u32,
                    before as u32,
                    after as u32,
                    cell,
                    of_cell.units,
                );
            }
            if let Some(columns) = &of_query {
                let (cubes, units) = columns.cubes(groups);
                // SAFETY: as above.
                unsafe {
                    forward::ask::launch_unchecked(
                        &client,
                        cubes,
                        units,
                        columns.packed.clone().into_buffer_arg(),
                        exchange.clone().into_buffer_arg(),
                        queries.clone().into_buffer_arg(),
                        b as u32,
                        t as u32,
                        a as u32,
                        hp,
                        rp,
                        depth as u32,
                        step as u32,
                        after as u32,
                        columns.wide(),
                    );
                }
            }
            let handed = Handed { to: &exchange, group: after * groups, depth, at: (rp + hp) as usize };
            let query = if parts.additive { &queries } else { &hidden };
            look.forward(query, t, step..step + 1, &weights, &contexts, Some(handed));
            let (cubes, units) = of_readout.cubes(groups);
            // SAFETY: as above.
            unsafe {
                forward::read_out::launch_unchecked(
                    &client,
                    cubes,
                    units,
                    of_readout.packed.clone().into_buffer_arg(),
                    parts.readout_bias.clone().into_buffer_arg(),
                    look.table.clone().into_buffer_arg(),
                    exchange.clone().into_buffer_arg(),
                    outputs.clone().into_buffer_arg(),
                    b as u32,
                    t as u32,
                    r as u32,
                    rp,
                    depth as u32,
                    step as u32,
                    after as u32,
                    threshold,
                    keep,
                    of_readout.wide(),
                );
            }
        }
        let state = unwritten(&gates, [b, cell.states() * h]);
        let (cubes, units) = elements(b * cell.states() * h);
        // SAFETY: as above.
        unsafe {
            forward::last_state::launch_unchecked(
                &client,
                cubes,
                units,
                hidden.clone().into_buffer_arg(),
                trace.clone().into_buffer_arg(),
                state.clone().into_buffer_arg(),
                (b * cell.states() * h) as u32,
                t as u32,
                h as u32,
                self.states(),
            );
        }
        (Saved { outputs, gates, hidden, trace, queries, weights, contexts }, state)
    }
}
