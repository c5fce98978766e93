//! The launches of the way back.

use burn::backend::Cube;
use burn::backend::ops::FloatTensorOps;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::attention::Handed;
use super::super::product::{Matrix, product, product_into, sum_columns};
use super::super::tile::ROWS;
use super::super::{UNITS, dummy, unwritten, zeros};
use super::backward::{self, blocks};
use super::columns::{Columns, padded, units_of};
use super::{Layer, elements, whole};
use crate::feeding::Saved;
use crate::recurrent::Cell;

impl Layer<'_> {
    pub(super) fn backward(&self, gradient: &CubeTensor, saved: Saved<Cube>) -> [CubeTensor; 12] {
        let Self { run, parts, look, b, t, h, r, groups } = self;
        let (b, t, h, r, groups, client) = (*b, *t, *h, *r, *groups, gradient.client.clone());
        let (a, m, cell) = (look.a, look.m, run.cell);
        let (hp, rp, ap, gates) = (padded(h), padded(r), padded(a), cell.gates());
        let Saved { outputs, gates: dx, hidden, trace, queries, weights, contexts } = saved;
        let query = if parts.additive { &queries } else { &hidden };

        // The same cubes have the same units of the state in each part of a step.
        let units = units_of(groups, h);
        let of_before = Columns::new(&dx, units, gates * hp as usize, [h, r]);
        of_before.pack_transposed(&parts.recurrent, 0, gates, 0);
        of_before.pack_transposed(&parts.feed, 1, gates, u32::from(cell == Cell::Gru));
        let of_readout = Columns::new(&dx, units, rp as usize, [h, m]);
        of_readout.pack_transposed(&parts.readout_state, 0, 1, 0);
        of_readout.pack_transposed(&parts.readout_context, 1, 1, 0);
        let of_cell = Columns::new(&dx, units, ap as usize, [h, 0]);
        if parts.additive {
            of_cell.pack_transposed(&parts.query, 0, 1, 0);
        }
        let depth = (rp + ap) as usize + blocks(cell) * hp as usize;
        let most = of_before.all_slices().max(of_readout.all_slices()).max(of_cell.all_slices());
        let together = self.together(&client, most, groups * depth * ROWS);
        let places = if together.is_some() { t } else { 1 };
        let exchange = unwritten(&dx, [places * groups * depth * ROWS]);
        let running = unwritten(&dx, [cell.states(), b, h]);
        let (dsums, dcontexts) = (unwritten(&dx, [b, t, r]), unwritten(&dx, [b, t, m]));
        let (dscores, dquery) = (unwritten(&dx, [b, t, look.stride]), unwritten(&dx, [b, t, a]));
        let (threshold, keep) = self.mask();
        let before = |t_of_cell: usize| {
            let (cubes, units) = of_before.cubes(groups);
            // SAFETY: as above.
            unsafe {
                backward::before_backward::launch_unchecked(
                    &client,
                    cubes,
                    units,
                    of_before.packed.clone().into_buffer_arg(),
                    look.table.clone().into_buffer_arg(),
                    exchange.clone().into_buffer_arg(),
                    gradient.clone().into_buffer_arg(),
                    outputs.clone().into_buffer_arg(),
                    running.clone().into_buffer_arg(),
                    dsums.clone().into_buffer_arg(),
                    b as u32,
                    t as u32,
                    h as u32,
                    hp,
                    r as u32,
                    rp,
                    ap,
                    t_of_cell as u32,
                    0,
                    0,
                    of_before.slices[0] as u32,
                    threshold,
                    keep,
                    cell,
                    of_before.wide(),
                );
            }
        };
        if let Some(cubes) = together {
            // SAFETY: as above.
            unsafe {
                whole::whole_backward::launch_unchecked(
                    &client,
                    CubeCount::Static(cubes as u32, groups as u32, 1),
                    CubeDim::new_1d(UNITS as u32),
                    of_before.packed.clone().into_buffer_arg(),
                    of_readout.packed.clone().into_buffer_arg(),
                    of_cell.packed.clone().into_buffer_arg(),
                    look.table.clone().into_buffer_arg(),
                    parts.state.clone().into_buffer_arg(),
                    look.keys.clone().into_buffer_arg(),
                    look.memory.clone().into_buffer_arg(),
                    look.energy.clone().into_buffer_arg(),
                    gradient.clone().into_buffer_arg(),
                    outputs.clone().into_buffer_arg(),
                    hidden.clone().into_buffer_arg(),
                    query.clone().into_buffer_arg(),
                    weights.clone().into_buffer_arg(),
                    exchange.clone().into_buffer_arg(),
                    running.clone().into_buffer_arg(),
                    dx.clone().into_buffer_arg(),
                    trace.clone().into_buffer_arg(),
                    dsums.clone().into_buffer_arg(),
                    dcontexts.clone().into_buffer_arg(),
                    dscores.clone().into_buffer_arg(),
                    dquery.clone().into_buffer_arg(),
                    zeros(&dx, groups).into_buffer_arg(),
                    b as u32,
                    t as u32,
                    h as u32,
                    hp,
                    r as u32,
                    rp,
                    ap,
                    look.s as u32,
                    look.stride as u32,
                    a as u32,
                    m as u32,
                    look.parts() as u32,
                    of_before.all_slices() as u32,
                    of_readout.slices[0] as u32,
                    of_readout.all_slices() as u32,
                    of_cell.all_slices() as u32,
                    threshold,
                    keep,
                    cell,
                    of_before.wide(),
                    of_readout.wide(),
                    of_cell.wide(),
                    parts.additive,
                );
            }
        } else {
            before(t);
        }
        for step in if together.is_some() { 0..0 } else { 0..t }.rev() {
            let (cubes, units) = of_readout.cubes(groups);
            // SAFETY: as above.
            unsafe {
                backward::readout_backward::launch_unchecked(
                    &client,
                    cubes,
                    units,
                    of_readout.packed.clone().into_buffer_arg(),
                    exchange.clone().into_buffer_arg(),
                    running.clone().into_buffer_arg(),
                    dcontexts.clone().into_buffer_arg(),
                    b as u32,
                    t as u32,
                    h as u32,
                    m as u32,
                    rp,
                    depth as u32,
                    step as u32,
                    0,
                    of_readout.slices[0] as u32,
                    of_readout.wide(),
                );
            }
            let handed = Handed { to: &exchange, group: 0, depth, at: rp as usize };
            look.backward(&dcontexts, query, t, step..step + 1, &weights, &dscores, &dquery, Some(handed));
            let (cubes, units) = of_cell.cubes(groups);
            // SAFETY: as above.
            unsafe {
                backward::cell_backward::launch_unchecked(
                    &client,
                    cubes,
                    units,
                    of_cell.packed.clone().into_buffer_arg(),
                    look.table.clone().into_buffer_arg(),
                    parts.state.clone().into_buffer_arg(),
                    hidden.clone().into_buffer_arg(),
                    exchange.clone().into_buffer_arg(),
                    running.clone().into_buffer_arg(),
                    dx.clone().into_buffer_arg(),
                    trace.clone().into_buffer_arg(),
                    b as u32,
                    t as u32,
                    h as u32,
                    hp,
                    rp,
                    ap,
                    step as u32,
                    0,
                    cell,
                    of_cell.wide(),
                    parts.additive,
                );
            }
            before(step);
        }

        let [keys, memory, energy] = look.of_memory(&dcontexts, query, t, &weights, &dscores);
        let (recurrent, feed, bias) = self.of_cell(&dx, &trace, &outputs, &hidden);
        let to_sums = |from: &CubeTensor, width: usize| {
            product([width, b * t, r], Matrix::transposed(from, width), Matrix::rows(&dsums, r))
        };
        let readout_bias = unwritten(&dx, [r]);
        sum_columns(&dsums, [b * t, r, r], &readout_bias, 0);
        let query = match parts.additive {
            true => product([h, b * t, a], Matrix::transposed(&hidden, h), Matrix::rows(&dquery, a)),
            false => dummy(&dx),
        };
        let state = Cube::float_permute(running, &[1, 0, 2]);
        let state = Cube::float_reshape(state, [b, cell.states() * h].into());
        [
            dx,
            recurrent,
            bias,
            state,
            feed,
            keys,
            memory,
            query,
            energy,
            to_sums(&hidden, h),
            to_sums(&contexts, m),
            readout_bias,
        ]
    }

    /// The gradients of the cell's weights: of the state, of what is fed back, and of the bias.
    fn of_cell(
        &self,
        dx: &CubeTensor,
        trace: &CubeTensor,
        outputs: &CubeTensor,
        hidden: &CubeTensor,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let (b, t, h, r, cell) = (self.b, self.t, self.h, self.r, self.run.cell);
        let width = cell.gates() * h;
        let (fed, before) = (unwritten(dx, [b * t, r]), unwritten(dx, [b * t, h]));
        let (cubes, units) = elements(b * t * (h + r));
        // SAFETY: as above.
        unsafe {
            backward::before_steps::launch_unchecked(
                &dx.client,
                cubes,
                units,
                outputs.clone().into_buffer_arg(),
                hidden.clone().into_buffer_arg(),
                self.parts.state.clone().into_buffer_arg(),
                fed.clone().into_buffer_arg(),
                before.clone().into_buffer_arg(),
                b as u32,
                t as u32,
                h as u32,
                r as u32,
                self.states(),
            );
        }
        let feed = product([r, b * t, width], Matrix::transposed(&fed, r), Matrix::rows(dx, width));
        let (recurrent, bias) = (unwritten(dx, [h, width]), unwritten(dx, [cell.biases() * h]));
        sum_columns(dx, [b * t, width, width], &bias, 0);
        let before = Matrix::transposed(&before, h);
        if cell == Cell::Gru {
            // The candidate's block goes through the reset gate and has a gradient of its own.
            product_into([h, b * t, 2 * h], before.clone(), Matrix::rows(dx, width), &recurrent, [0, width]);
            product_into([h, b * t, h], before, Matrix::rows(trace, h), &recurrent, [2 * h, width]);
            sum_columns(trace, [b * t, h, h], &bias, width);
        } else {
            product_into([h, b * t, width], before, Matrix::rows(dx, width), &recurrent, [0, width]);
        }
        (recurrent, feed, bias)
    }
}
