//! The weights of a fed decoder as its kernels read them.

use burn::backend::TensorMetadata;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::recurrent::units_of_a_cube;
use super::super::tile;
use super::super::{UNITS, unwritten};

/// A size up to a multiple of four.
pub(super) fn padded(size: usize) -> u32 {
    size.next_multiple_of(4) as u32
}

/// Columns of a cube, which writes whole sectors of 32 bytes then.
pub(super) fn units_of(groups: usize, width: usize) -> usize {
    units_of_a_cube(groups, width).max(8)
}

/// Columns of weights as the kernels read them, in slices of `units`; some may be those of a second weight.
pub(super) struct Columns {
    pub(super) packed: CubeTensor,
    pub(super) units: usize,
    depth: usize,
    /// Of the first weight, and of the second.
    pub(super) slices: [usize; 2],
}

impl Columns {
    /// Of two widths, one beside the other, in slices of `units`.
    pub(super) fn new(like: &CubeTensor, units: usize, depth: usize, widths: [usize; 2]) -> Self {
        let slices = widths.map(|width| width.div_ceil(units));
        Self { packed: unwritten(like, [(slices[0] + slices[1]) * depth * units]), units, depth, slices }
    }

    /// The same with a vector of four for each column.
    pub(super) fn of_gates(like: &CubeTensor, groups: usize, depth: usize, width: usize) -> Self {
        let units = units_of(groups, width);
        let slices = width.div_ceil(units);
        Self { packed: unwritten(like, [slices * depth * units * 4]), units, depth, slices: [slices, 0] }
    }

    /// Vectors of four columns in a slice.
    pub(super) fn wide(&self) -> usize {
        self.units / 4
    }

    pub(super) fn all_slices(&self) -> usize {
        self.slices[0] + self.slices[1]
    }

    /// Cubes and units of a product for those groups of rows.
    pub(super) fn cubes(&self, groups: usize) -> (CubeCount, CubeDim) {
        (CubeCount::Static(self.all_slices() as u32, groups as u32, 1), CubeDim::new_1d(UNITS as u32))
    }

    /// Packs the gates `[rows, G·H]` from some row of the depth on; `last`: where the last gate goes in its vector.
    pub(super) fn pack_gates(&self, weight: &CubeTensor, from: u32, hidden: usize, gates: usize, last: usize) {
        let rows = weight.shape()[0];
        let upto = from + padded(rows);
        let count = (padded(rows) as usize * self.units).div_ceil(UNITS) as u32;
        // SAFETY: the kernel reads and writes no number beyond the buffers, whose sizes follow from those that it is given.
        unsafe {
            tile::pack_gates::launch_unchecked(
                &weight.client,
                CubeCount::Static(count, self.slices[0] as u32, 1),
                CubeDim::new_1d(UNITS as u32),
                weight.clone().into_buffer_arg(),
                self.packed.clone().into_buffer_arg(),
                rows as u32,
                hidden as u32,
                from,
                upto,
                self.depth as u32,
                gates,
                self.units,
                last,
            );
        }
    }

    /// Packs a weight `[rows, width]` from some row of the depth on.
    pub(super) fn pack(&self, weight: &CubeTensor, from: u32) {
        let (rows, width) = (weight.shape()[0], weight.shape()[1]);
        let count = (padded(rows) as usize * self.wide()).div_ceil(UNITS) as u32;
        // SAFETY: as above.
        unsafe {
            tile::pack_columns::launch_unchecked(
                &weight.client,
                CubeCount::Static(count, self.slices[0] as u32, 1),
                CubeDim::new_1d(UNITS as u32),
                weight.clone().into_buffer_arg(),
                self.packed.clone().into_buffer_arg(),
                rows as u32,
                width as u32,
                from,
                from + padded(rows),
                self.depth as u32,
                self.wide(),
            );
        }
    }

    /// Packs the transpose of a weight `[units, gates·hidden]` as the first or the second; its gates begin with number `turn` from the last.
    pub(super) fn pack_transposed(&self, weight: &CubeTensor, which: usize, gates: usize, turn: u32) {
        let (units, hidden) = (weight.shape()[0], weight.shape()[1] / gates);
        let count = (self.depth * self.wide()).div_ceil(UNITS) as u32;
        // SAFETY: as above.
        unsafe {
            tile::pack_units::launch_unchecked(
                &weight.client,
                CubeCount::Static(count, self.slices[which] as u32, 1),
                CubeDim::new_1d(UNITS as u32),
                weight.clone().into_buffer_arg(),
                self.packed.clone().into_buffer_arg(),
                units as u32,
                hidden as u32,
                padded(hidden),
                if which == 0 { 0 } else { self.slices[0] as u32 },
                turn,
                gates,
                self.wide(),
            );
        }
    }
}
