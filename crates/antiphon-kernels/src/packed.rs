//! Products with a weight that is packed once and used at every step of a sequence.
//!
//! A general product packs its operands at each call, which costs a recurrent layer as much as the product itself when
//! few rows meet a large weight. Here the weight lies in panels, `[k, width]` each, of as many columns as a tile of up to
//! eight rows keeps in registers while it walks down a panel (Goto and van de Geijn 2008, without their blocking of `k`: a
//! panel fits the second-level cache for every width in use). Wide tiles of few rows suit small batches, and eight rows
//! that lie a power of two apart still fit the eight ways of a first-level cache. One to three rows walk down several panels at
//! once. Where the weight comes from memory, the first tile on a panel would wait at each of its pages, so that tiles fetch: each
//! its share of the next panel into the second-level cache, and into the first what it will read soon itself.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::memory::{LINE, Plain, overwritten, unwritten, written};
use crate::product::Strides;
#[cfg(target_arch = "x86_64")]
use crate::vector::{InstructionSet, instruction_set};

/// At most so many rows are a tile: fewer read a panel for less work.
pub(crate) const TILE: usize = 8;

/// Some columns of a matrix to write to, whose rows lie `stride` numbers apart.
pub(crate) struct Columns<'a> {
    at: *mut MaybeUninit<f32>,
    rows: usize,
    columns: usize,
    stride: usize,
    buffer: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

// SAFETY: nobody else writes these columns, nor reads them: `Columns` are as exclusive as the slice that they are cut from.
unsafe impl Send for Columns<'_> {}

impl<'a> Columns<'a> {
    /// All of a dense matrix.
    ///
    /// # Panics
    /// If the buffer is not made of such rows.
    pub(crate) fn of(buffer: &'a mut [MaybeUninit<f32>], columns: usize) -> Self {
        let rows = buffer.len() / columns.max(1);
        assert_eq!(buffer.len(), rows * columns, "whole rows");
        Self { at: buffer.as_mut_ptr(), rows, columns, stride: columns, buffer: PhantomData }
    }

    /// `columns` from `first` on, of rows that lie `stride` apart.
    ///
    /// # Safety
    /// They lie in a buffer that outlives `'a`, and nobody else reads or writes them meanwhile.
    pub(crate) unsafe fn from_parts(
        buffer: *mut MaybeUninit<f32>,
        rows: usize,
        stride: usize,
        first: usize,
        columns: usize,
    ) -> Self {
        Self { at: buffer.wrapping_add(first), rows, columns, stride, buffer: PhantomData }
    }

    /// The first columns, and the others.
    ///
    /// # Panics
    /// If there are not so many.
    pub(crate) fn split_at(self, columns: usize) -> (Self, Self) {
        assert!(columns <= self.columns, "{columns} of {} columns", self.columns);
        let at = self.at.wrapping_add(columns);
        (Self { columns, ..self }, Self { at, columns: self.columns - columns, ..self })
    }

    /// The first rows, and the others.
    ///
    /// # Panics
    /// If there are not so many.
    pub(crate) fn split_rows_at(self, rows: usize) -> (Self, Self) {
        assert!(rows <= self.rows, "{rows} of {} rows", self.rows);
        let at = self.at.wrapping_add(rows * self.stride);
        (Self { rows, ..self }, Self { at, rows: self.rows - rows, ..self })
    }

    /// The same columns, for a while.
    pub(crate) fn reborrow(&mut self) -> Columns<'_> {
        Columns { at: self.at, rows: self.rows, columns: self.columns, stride: self.stride, buffer: PhantomData }
    }

    /// How many there are.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Cut into blocks of such widths.
    pub(crate) fn blocks(self, widths: impl Iterator<Item = usize>) -> Vec<Self> {
        let mut left = Some(self);
        let cut = widths.map(|width| {
            let (block, rest) = left.take().expect("a rest, though an empty one").split_at(width);
            left = Some(rest);
            block
        });
        cut.collect()
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Every `count`-th row from the first on, from the second on, and so forth.
    pub(crate) fn interleaved(self, count: usize) -> impl Iterator<Item = Self> {
        let Self { at, rows, columns, stride, buffer } = self;
        (0..count).map(move |first| {
            let (at, rows) = (at.wrapping_add(first * stride), rows.saturating_sub(first).div_ceil(count));
            Self { at, rows, columns, stride: count * stride, buffer }
        })
    }

    /// A row of them.
    pub(crate) fn row(&mut self, row: usize) -> &mut [MaybeUninit<f32>] {
        assert!(row < self.rows);
        // SAFETY: the row lies in the buffer, and its columns are borrowed from `self`, which alone has them.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(row * self.stride), self.columns) }
    }

    /// Some of its numbers: from row and column on.
    fn at(&mut self, row: usize, column: usize) -> *mut MaybeUninit<f32> {
        self.at.wrapping_add(row * self.stride + column)
    }
}

/// A `[k, n]` matrix in panels of [`Shape::width`] columns, the last one of whole vectors.
#[derive(Debug)]
pub(crate) struct Packed<T = f32> {
    numbers: Vec<T>,
    k: usize,
    n: usize,
    shape: Shape,
}

/// Columns in blocks of `width`, each of which begins `apart` numbers behind the one before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocks {
    pub(crate) width: usize,
    pub(crate) apart: usize,
}

/// How many panels are packed together.
const TOGETHER: usize = 8;

/// Columns that lie together both in a block of the matrix and in a panel.
#[derive(Debug, Clone, Copy)]
struct Run {
    block: usize,
    /// The first column within the block.
    within: usize,
    /// The panel, of those that are packed together, and the first column there.
    panel: usize,
    to: usize,
    len: usize,
}

/// Columns cut where a block or a panel of `width` ends; the first one begins a panel.
fn runs(columns: Range<usize>, width: usize, blocks: Blocks) -> Vec<Run> {
    let (mut runs, mut column) = (Vec::new(), columns.start);
    while column < columns.end {
        let (block, within) = (column / blocks.width, column % blocks.width);
        let (panel, to) = ((column - columns.start) / width, (column - columns.start) % width);
        let len = (blocks.width - within).min(width - to).min(columns.end - column);
        runs.push(Run { block, within, panel, to, len });
        column += len;
    }
    runs
}

/// Copies rows that lie `apart` to where they lie `own` apart, line by line.
fn copy<T: Number>(from: &[T], apart: usize, to: &mut [MaybeUninit<T>], own: usize, [rows, columns]: [usize; 2]) {
    for i in 0..rows {
        let (from, to) = (&from[i * apart..][..columns], &mut to[i * own..][..columns]);
        let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<LINE>(), to.as_chunks_mut::<LINE>());
        for (from, to) in from.iter().zip(to) {
            *to = from.map(MaybeUninit::new);
        }
        to_rest.write_copy_of_slice(from_rest);
    }
}

/// Copies up to [`LINE`] rows of a matrix that lies as `strides` says, but for their start, to where rows lie `own` apart.
///
/// Of a transposed one it reads a line of each column, and turns square after square.
fn turn<T: Number>(from: &[T], strides: Strides, to: &mut [MaybeUninit<T>], own: usize, [rows, columns]: [usize; 2]) {
    let mut column = 0;
    while rows == LINE && strides.row == 1 && columns - column >= LINE {
        let mut square = [[T::default(); LINE]; LINE];
        for (j, line) in square.iter_mut().enumerate() {
            line.copy_from_slice(&from[(column + j) * strides.column..][..LINE]);
        }
        for (i, to) in to.chunks_mut(own).take(LINE).enumerate() {
            let to = to[column..].first_chunk_mut::<LINE>().expect("a row has these columns");
            *to = std::array::from_fn(|j| MaybeUninit::new(square[j][i]));
        }
        column += LINE;
    }
    for j in column..columns {
        for i in 0..rows {
            to[i * own + j].write(from[i * strides.row + j * strides.column]);
        }
    }
}

/// Some of the panels of a [`Packed`] matrix: `[k, n]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels<'a, T> {
    numbers: &'a [T],
    k: usize,
    n: usize,
    shape: Shape,
}

/// The left side of a product: rows that begin `apart` numbers behind one another, and may overlap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows<'a, T = f32> {
    pub(crate) numbers: &'a [T],
    pub(crate) apart: usize,
}

/// In which order a product walks through panels, which changes nothing of what it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Forward,
    Backward,
}

impl Order {
    /// Forward and backward in turn. What a product has read last lies in the caches: the next product reads it first.
    pub(crate) fn in_turn(step: usize) -> Self {
        if step.is_multiple_of(2) { Self::Forward } else { Self::Backward }
    }
}

/// What a packed matrix can consist of.
///
/// Beside `f32` these are *pairs*: an `i32` holds two integers of 16 bits, and `k` counts pairs. A product sums
/// `a₀ b₀ + a₁ b₁` over [`PAIRS`] of them in 32 bits, which must not overflow, and these sums in `f32`. It takes about two
/// thirds of the time of a product in `f32`.
pub(crate) trait Number: Plain + Default + Sync + 'static {
    /// All tiles of a product, for the instruction set of this CPU; they write all of `dst`.
    ///
    /// # Safety
    /// `dst` is written, if `ADD`.
    unsafe fn walk<const ADD: bool>(panels: Panels<'_, Self>, lhs: Windows<'_, Self>, dst: Columns<'_>, order: Order);
}

/// How many pairs are summed as integers.
pub(crate) const PAIRS: usize = 64;

/// What an instruction set keeps in registers: tiles of up to `rows` rows and `vectors` vectors of `lanes` numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    rows: usize,
    vectors: usize,
    lanes: usize,
    /// Whether the rows of a tile are gathered first, so that it reads them in one stream. That saves the address of each
    /// row at each step: a quarter of the instructions of a narrow tile, and time where another thread shares the core.
    gathers: bool,
    /// From how many numbers on a matrix is fetched ahead, as far as that was measured: always, unless a tile has few loads to
    /// spare; then where the matrix is too large for what others leave of the third-level cache.
    fetched: usize,
}

impl Shape {
    const PORTABLE: Self = Self { rows: 4, vectors: 1, lanes: 8, gathers: false, fetched: usize::MAX };
    #[cfg(target_arch = "x86_64")]
    const AVX2: Self = Self { rows: 6, vectors: 2, lanes: 8, gathers: true, fetched: (1 << 19) + 1 };
    #[cfg(target_arch = "x86_64")]
    const AVX512: Self = Self { rows: 8, vectors: 3, lanes: 16, gathers: false, fetched: 0 };

    /// That of this CPU.
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        match instruction_set() {
            InstructionSet::Avx512 => return Self::AVX512,
            InstructionSet::Avx2 => return Self::AVX2,
            InstructionSet::Portable => {}
        }
        Self::PORTABLE
    }

    /// Columns a panel.
    const fn width(self) -> usize {
        self.vectors * self.lanes
    }
}

impl<T: Number> Packed<T> {
    /// Packs the `[k, n]` matrix that lies in `matrix` as `strides` says; the last vector of columns is filled with zeros.
    pub(crate) fn new(matrix: &[T], strides: Strides, dims: [usize; 2]) -> Self {
        Self::of_blocks(matrix, strides, dims, Blocks { width: dims[1], apart: 0 })
    }

    /// Packs a matrix whose columns lie in `blocks`.
    pub(crate) fn of_blocks(matrix: &[T], strides: Strides, [k, n]: [usize; 2], blocks: Blocks) -> Self {
        let shape = Shape::best();
        let width = shape.width();
        let mut numbers = unwritten(n.next_multiple_of(shape.lanes) * k);
        // Neighbouring panels together, so that several lines of a row are read one after the other.
        numbers.par_chunks_mut((TOGETHER * width * k).max(1)).enumerate().for_each(|(group, panels)| {
            let runs = runs(group * TOGETHER * width..n.min((group + 1) * TOGETHER * width), width, blocks);
            if n < (group + 1) * TOGETHER * width {
                panels.fill(MaybeUninit::new(T::default()));
            }
            // The width of the panel that a run lies in, which only at the end is another one.
            let own = |run: &Run| width.min((panels.len() - run.panel * width * k) / k.max(1));
            let runs: Vec<(Run, usize)> = runs.into_iter().map(|run| (run, own(&run))).collect();
            for first in (0..k).step_by(LINE) {
                let rows = first..k.min(first + LINE);
                for &(run, own) in &runs {
                    let from = strides.start + run.block * blocks.apart + run.within * strides.column;
                    let to = &mut panels[run.panel * width * k + rows.start * own + run.to..];
                    let matrix = &matrix[from + rows.start * strides.row..];
                    if strides.column == 1 {
                        copy(matrix, strides.row, to, own, [rows.len(), run.len]);
                    } else {
                        turn(matrix, strides, to, own, [rows.len(), run.len]);
                    }
                }
            }
        });
        // SAFETY: each panel is filled, the last ones with zeros first.
        Self { numbers: unsafe { written(numbers) }, k, n, shape }
    }

    /// `k` and `n`.
    pub(crate) fn dims(&self) -> [usize; 2] {
        [self.k, self.n]
    }

    /// Blocks of up to `columns` columns (but at least a panel), with the number of each one's first column.
    pub(crate) fn blocks(&self, columns: usize) -> impl Iterator<Item = (usize, Panels<'_, T>)> {
        let most = (columns / self.shape.width()).max(1);
        (0..self.panels()).step_by(most).map(move |first| self.block(first..first + most))
    }

    /// As many blocks, of about equal size; fewer, if there are fewer panels.
    pub(crate) fn shares(&self, count: usize) -> impl Iterator<Item = (usize, Panels<'_, T>)> {
        let count = count.min(self.panels());
        (0..count).map(move |i| self.block(i * self.panels() / count..(i + 1) * self.panels() / count))
    }

    /// How many panels there are.
    fn panels(&self) -> usize {
        self.n.div_ceil(self.shape.width())
    }

    /// Some panels, as far as there are so many, and the number of their first column.
    fn block(&self, panels: Range<usize>) -> (usize, Panels<'_, T>) {
        let [first, end] = [panels.start, panels.end].map(|panel| (panel * self.shape.width()).min(self.n));
        let numbers =
            &self.numbers[first * self.k..(end.next_multiple_of(self.shape.lanes) * self.k).min(self.numbers.len())];
        (first, Panels { numbers, k: self.k, n: end - first, shape: self.shape })
    }

    /// All columns.
    pub(crate) fn whole(&self) -> Panels<'_, T> {
        Panels { numbers: &self.numbers, k: self.k, n: self.n, shape: self.shape }
    }

    /// As [`Panels::multiply`] for all columns, at one of many steps.
    pub(crate) fn multiply_at(&self, step: usize, lhs: &[T], dst: &mut [f32], add: bool) {
        // SAFETY: `dst` holds numbers, and gets numbers.
        unsafe { self.whole().onto(lhs, Columns::of(overwritten(dst), self.n), add, Order::in_turn(step)) }
    }

    /// As [`Panels::onto`], for all columns.
    ///
    /// # Safety
    /// `dst` is written, if `add`.
    pub(crate) unsafe fn onto(&self, lhs: &[T], dst: Columns<'_>, add: bool, order: Order) {
        // SAFETY: the caller's.
        unsafe { self.whole().onto(lhs, dst, add, order) }
    }
}

impl<T: Number> Panels<'_, T> {
    /// How many columns there are.
    pub(crate) fn columns(&self) -> usize {
        self.n
    }

    /// `dst[m, n] = (if add { dst } else { 0 }) + lhs[m, k] · self`, both dense, on the calling thread.
    pub(crate) fn multiply(self, lhs: &[T], dst: &mut [f32], add: bool) {
        // SAFETY: `dst` holds numbers, and gets numbers.
        unsafe { self.onto(lhs, Columns::of(overwritten(dst), self.n), add, Order::Forward) }
    }

    /// `dst[m, n] = lhs[m, k] · self`, on the calling thread; all of `dst` is written.
    pub(crate) fn multiply_into(self, lhs: &[T], dst: Columns<'_>) {
        // SAFETY: nothing is added to.
        unsafe { self.onto(lhs, dst, false, Order::Forward) }
    }

    /// As [`multiply_into`](Self::multiply_into), of rows that may overlap.
    pub(crate) fn multiply_windows(self, lhs: Windows<'_, T>, dst: Columns<'_>) {
        // SAFETY: nothing is added to.
        unsafe { self.windows_onto(lhs, dst, false, Order::Forward) }
    }

    /// `dst[m, n] = (if add { dst } else { 0 }) + lhs[m, k] · self`, on the calling thread.
    ///
    /// # Safety
    /// `dst` is written, if `add`.
    pub(crate) unsafe fn onto(self, lhs: &[T], dst: Columns<'_>, add: bool, order: Order) {
        assert_eq!(lhs.len(), dst.rows * self.k, "operands of {} rows", dst.rows);
        // SAFETY: the caller's.
        unsafe { self.windows_onto(Windows { numbers: lhs, apart: self.k }, dst, add, order) }
    }

    /// # Safety
    /// `dst` is written, if `add`.
    unsafe fn windows_onto(self, lhs: Windows<'_, T>, mut dst: Columns<'_>, add: bool, order: Order) {
        let m = dst.rows;
        let fits = m == 0 || lhs.numbers.len() >= (m - 1) * lhs.apart + self.k;
        assert!(dst.columns == self.n && fits, "operands of {m} rows");
        if self.k == 0 {
            if !add {
                (0..m).for_each(|row| dst.row(row).fill(MaybeUninit::new(0.0)));
            }
        } else if add {
            // SAFETY: the caller has written `dst`.
            unsafe { T::walk::<true>(self, lhs, dst, order) }
        } else {
            // SAFETY: nothing is added to.
            unsafe { T::walk::<false>(self, lhs, dst, order) }
        }
    }
}

/// Implements [`Number`] with the tiles of three modules.
macro_rules! number {
    ($number:ty, $avx512:ident, $avx2:ident, $portable:ident) => {
        impl Number for $number {
            unsafe fn walk<const ADD: bool>(
                panels: Panels<'_, Self>,
                lhs: Windows<'_, Self>,
                dst: Columns<'_>,
                order: Order,
            ) {
                #[cfg(target_arch = "x86_64")]
                match instruction_set() {
                    // SAFETY: the CPU has these instructions, and the caller has written `dst`, if `ADD`.
                    InstructionSet::Avx512 => return unsafe { $avx512::walk::<ADD>(panels, lhs, dst, order) },
                    // SAFETY: the same.
                    InstructionSet::Avx2 => return unsafe { $avx2::walk::<ADD>(panels, lhs, dst, order) },
                    InstructionSet::Portable => {}
                }
                // SAFETY: the caller has written `dst`, if `ADD`.
                unsafe { $portable::walk::<ADD>(panels, lhs, dst, order) }
            }
        }
    };
}

number!(f32, avx512, avx2, portable);
number!(i32, avx512_pairs, avx2_pairs, portable_pairs);

/// The height of each tile, if `m` rows make that many: all about equal.
fn heights(m: usize, tiles: usize) -> impl Fn(usize) -> usize {
    let (rows, higher) = (m / tiles.max(1), m % tiles.max(1));
    move |tile| rows + usize::from(tile < higher)
}

/// Tile by tile, the first number of each row, then the second, and so on.
#[inline(always)] // compiled for the instruction set of its caller
fn gather<T: Number>(lhs: Windows<'_, T>, [m, k]: [usize; 2], tiles: usize) -> Vec<T> {
    let mut gathered = unwritten(m * k);
    let height = heights(m, tiles);
    let (mut first, mut to) = (0, &mut gathered[..]);
    for tile in 0..tiles {
        let rows = height(tile);
        let turned;
        (turned, to) = to.split_at_mut(rows * k);
        for r in 0..rows {
            let row = &lhs.numbers[(first + r) * lhs.apart..][..k];
            turned[r..].iter_mut().step_by(rows).zip(row).for_each(|(to, &x)| _ = to.write(x));
        }
        first += rows;
    }
    // SAFETY: the tiles hold all rows, and each row is written.
    unsafe { written(gathered) }
}

/// Declares `fn walk`: panel by panel, `part` of `k` at a time, the rows in tiles of about equal height. What a tile adds to was
/// written, by another part or by the caller.
///
/// A tile waits for its own sums unless it has eight or more of them, so that few rows, which make one tile, take several panels
/// at once: `$together` of them for `$few` rows.
macro_rules! walk {
    ($($features:literal)?, $shape:ident, $number:ty, $part:expr, [$($rows:literal)*], [$($vectors:literal)*],
     [$($few:literal: $together:literal),*]) => {
        $(#[target_feature(enable = $features)])?
        pub(super) unsafe fn walk<const ADD: bool>(
            panels: Panels<'_, $number>,
            lhs: Windows<'_, $number>,
            mut dst: Columns<'_>,
            order: Order,
        ) {
            const SHAPE: Shape = Shape::$shape;
            const WIDTH: usize = SHAPE.width();
            let Panels { numbers, k, n, shape } = panels;
            assert_eq!(shape, SHAPE, "packed for another instruction set");
            let (m, stride) = (dst.rows, dst.stride);
            let tiles = m.div_ceil(SHAPE.rows);
            let height = heights(m, tiles);
            let part = k.min($part);
            let gathered = if SHAPE.gathers { gather(lhs, [m, k], tiles) } else { Vec::new() };
            let fetch = numbers.len() >= SHAPE.fetched;
            let together = match m {
                $($few => $together,)*
                _ => 1,
            };
            // Where the last vector is not full, its tiles are made here.
            let mut edge = [MaybeUninit::new(0.0); SHAPE.rows * WIDTH];
            // Groups of panels, then those that are left.
            let groups = n / (together * WIDTH);
            // Several tiles have each part of the matrix in the caches anyway.
            let order = if tiles > 1 { Order::Forward } else { order };
            let turns = groups + (n - groups * together * WIDTH).div_ceil(WIDTH);
            let start = |turn: usize| (turn.min(groups) * together + turn.saturating_sub(groups)) * WIDTH;
            for turn in 0..turns {
                let turn = if order == Order::Backward { turns - 1 - turn } else { turn };
                let first = start(turn);
                let panel = &numbers[first * k..];
                let group = if turn < groups { together } else { 1 };
                let width = (group * WIDTH).min(panel.len() / k);
                let (columns, vectors) = (width.min(n - first), width / SHAPE.lanes);
                let (panel, apart) = (&panel[..width * k], width / group);
                let step = apart.div_ceil(tiles.max(1));
                for at in (0..k).step_by(part) {
                    let (add, k_part) = (ADD || at > 0, part.min(k - at));
                    let mut row = 0;
                    let mut next = match order {
                        Order::Forward => panel.as_ptr().wrapping_add(panel.len()),
                        Order::Backward => numbers.as_ptr().wrapping_add(start(turn.saturating_sub(1)) * k),
                    };
                    for i in 0..tiles {
                        let rows = height(i);
                        let left = match SHAPE.gathers {
                            true => &gathered[row * k + at * rows..],
                            false => &lhs.numbers[row * lhs.apart + at..],
                        };
                        let (panel, beyond) = (&panel[at * apart..], k * apart);
                        let work = Work { lhs: left, apart: lhs.apart, panel, k: k_part, beyond, next, step };
                        let to = dst.at(row, first);
                        row += rows;
                        next = next.wrapping_add(k_part * step);
                        // SAFETY: the rows are in `dst`, and so are the columns, or they are in `edge`.
                        unsafe {
                            if group > 1 {
                                match (rows, add) {
                                    $(
                                        ($few, false) => tile::<$few, $together, { SHAPE.vectors }, false, false>(work, to, stride),
                                        ($few, true) => tile::<$few, $together, { SHAPE.vectors }, true, false>(work, to, stride),
                                    )*
                                    _ => unreachable!("more rows take one panel"),
                                }
                            } else if columns == width {
                                by_width(add, fetch, rows, vectors, work, to, stride);
                            } else {
                                for (r, edge) in edge.chunks_exact_mut(width).enumerate().take(if add { rows } else { 0 }) {
                                    to.wrapping_add(r * stride).copy_to_nonoverlapping(edge.as_mut_ptr(), columns);
                                }
                                by_width(add, fetch, rows, vectors, work, edge.as_mut_ptr(), width);
                                for (r, edge) in edge.chunks_exact(width).enumerate().take(rows) {
                                    to.wrapping_add(r * stride).copy_from_nonoverlapping(edge.as_ptr(), columns);
                                }
                            }
                        }
                    }
                }
            }
        }

        /// # Safety
        /// As [`tile`].
        $(#[target_feature(enable = $features)])?
        unsafe fn by_width(
            add: bool,
            fetch: bool,
            rows: usize,
            vectors: usize,
            work: Work<'_, $number>,
            dst: *mut MaybeUninit<f32>,
            stride: usize,
        ) {
            // SAFETY: the caller's.
            unsafe {
                match (vectors, add, fetch) {
                    $(
                        ($vectors, false, false) => by_height::<$vectors, false, false>(rows, work, dst, stride),
                        ($vectors, true, false) => by_height::<$vectors, true, false>(rows, work, dst, stride),
                        ($vectors, false, true) => by_height::<$vectors, false, true>(rows, work, dst, stride),
                        ($vectors, true, true) => by_height::<$vectors, true, true>(rows, work, dst, stride),
                    )*
                    _ => unreachable!("a panel is no wider"),
                }
            }
        }

        /// # Safety
        /// As [`tile`].
        $(#[target_feature(enable = $features)])?
        unsafe fn by_height<const V: usize, const ADD: bool, const FETCH: bool>(
            rows: usize,
            work: Work<'_, $number>,
            dst: *mut MaybeUninit<f32>,
            stride: usize,
        ) {
            // SAFETY: the caller's.
            unsafe {
                match rows {
                    $($rows => tile::<$rows, 1, V, ADD, FETCH>(work, dst, stride),)*
                    _ => unreachable!("a tile is no higher"),
                }
            }
        }
    };
}

/// What a tile multiplies: rows that lie `apart`, and `k` rows of panels that lie `beyond` each other. While it does so it fetches
/// from `next` on, `step` numbers further each time.
#[derive(Clone, Copy)]
struct Work<'a, T> {
    lhs: &'a [T],
    apart: usize,
    panel: &'a [T],
    k: usize,
    beyond: usize,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    next: *const T,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    step: usize,
}

/// How far ahead of itself a tile fetches, in numbers of four bytes.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 1024;

/// Declares `walk` and its tile for an instruction set and a number.
#[cfg(target_arch = "x86_64")]
macro_rules! vector_tiles {
    ($name:ident, $features:literal, $shape:ident, $number:ty, $part:expr, $rows:tt, $vectors:tt, $together:tt,
     $zero:ident, $load:ident, $spread:ident, $multiply_add:path, $sum:path, $load_sum:ident, $store:ident, $add:ident) => {
        mod $name {
            use std::arch::x86_64::*;
            use std::mem::MaybeUninit;

            use super::{AHEAD, Columns, LINE, Order, Panels, Shape, Windows, Work, gather, heights};

            const LANES: usize = Shape::$shape.lanes;

            walk!($features, $shape, $number, $part, $rows, $vectors, $together);

            /// `R` rows down `P` panels of `V` vectors, into (or, if `ADD`, onto) rows of `dst` that lie `stride` apart. All loops
            /// but the one over `k` are unrolled, so that the sums never leave their registers.
            ///
            /// # Safety
            /// `dst` has room for `R` rows of `P · V` vectors, and is written, if `ADD`.
            #[target_feature(enable = $features)]
            unsafe fn tile<const R: usize, const P: usize, const V: usize, const ADD: bool, const FETCH: bool>(
                work: Work<'_, $number>,
                dst: *mut MaybeUninit<f32>,
                stride: usize,
            ) {
                let Work { lhs, apart, panel, k, beyond, mut next, step } = work;
                // From row to row, and from number to number.
                let (apart, along) = if Shape::$shape.gathers { (1, R) } else { (apart, 1) };
                assert!(
                    lhs.len() > (R - 1) * apart + (k - 1) * along && panel.len() >= (P - 1) * beyond + k * V * LANES
                );
                let mut sums = [[[$zero(); V]; P]; R];
                let (mut a, mut b) = (lhs.as_ptr(), panel.as_ptr());
                // A macro: of a closure that is called at five places LLVM makes a function, and the sums go through memory.
                macro_rules! multiply {
                    () => {
                        // SAFETY: the panels hold `k` rows of `V` vectors, and `lhs` `k` numbers of `R` rows.
                        unsafe {
                            if FETCH {
                                for line in 0..(V * LANES).div_ceil(LINE) {
                                    _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD + line * LINE).cast());
                                }
                            }
                            if P == 1 {
                                let mut right = [$zero(); V];
                                for v in 0..V {
                                    right[v] = $load(b.add(v * LANES).cast());
                                }
                                for r in 0..R {
                                    let a = $spread(*a.add(r * apart));
                                    for v in 0..V {
                                        sums[r][0][v] = $multiply_add(a, right[v], sums[r][0][v]);
                                    }
                                }
                            } else {
                                // Few rows, which stay in registers instead.
                                let mut left = [$zero(); R];
                                for r in 0..R {
                                    left[r] = $spread(*a.add(r * apart));
                                }
                                for p in 0..P {
                                    for v in 0..V {
                                        let right = $load(b.add(p * beyond + v * LANES).cast());
                                        for r in 0..R {
                                            sums[r][p][v] = $multiply_add(left[r], right, sums[r][p][v]);
                                        }
                                    }
                                }
                            }
                            (a, b) = (a.add(along), b.add(V * LANES));
                        }
                    };
                }
                for _ in 0..k / 4 {
                    if FETCH {
                        for line in 0..(V * LANES).div_ceil(LINE) {
                            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(line * LINE).cast());
                        }
                        next = next.wrapping_add(4 * step);
                    }
                    multiply!();
                    multiply!();
                    multiply!();
                    multiply!();
                }
                for _ in 0..k % 4 {
                    multiply!();
                }
                for r in 0..R {
                    for p in 0..P {
                        for v in 0..V {
                            // SAFETY: `dst` holds `R` rows of `P · V` vectors, and is written, if `ADD`.
                            unsafe {
                                let at = dst.add(r * stride + (p * V + v) * LANES).cast::<f32>();
                                let sum = $sum(sums[r][p][v]);
                                $store(at, if ADD { $add($load_sum(at), sum) } else { sum });
                            }
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
vector_tiles!(
    avx512,
    "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma",
    AVX512,
    f32,
    usize::MAX,
    [1 2 3 4 5 6 7 8],
    [1 2 3],
    [1: 3, 2: 2],
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    std::convert::identity,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps
);
#[cfg(target_arch = "x86_64")]
vector_tiles!(
    avx2,
    "avx2,fma",
    AVX2,
    f32,
    usize::MAX,
    [1 2 3 4 5 6],
    [1 2],
    [1: 4, 2: 3, 3: 2],
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    std::convert::identity,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps
);
#[cfg(target_arch = "x86_64")]
vector_tiles!(
    avx512_pairs,
    "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma",
    AVX512,
    i32,
    super::PAIRS,
    [1 2 3 4 5 6 7 8],
    [1 2 3],
    [1: 3, 2: 2],
    _mm512_setzero_si512,
    _mm512_loadu_si512,
    _mm512_set1_epi32,
    super::pairs_avx512,
    _mm512_cvtepi32_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps
);
#[cfg(target_arch = "x86_64")]
vector_tiles!(
    avx2_pairs,
    "avx2,fma",
    AVX2,
    i32,
    super::PAIRS,
    [1 2 3 4 5 6],
    [1 2],
    [1: 4, 2: 3, 3: 2],
    _mm256_setzero_si256,
    _mm256_loadu_si256,
    _mm256_set1_epi32,
    super::pairs_avx2,
    _mm256_cvtepi32_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps
);

/// `c + a₀ b₀ + a₁ b₁` in each lane.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn pairs_avx512(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_add_epi32(c, _mm512_madd_epi16(a, b))
}

/// `c + a₀ b₀ + a₁ b₁` in each lane.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn pairs_avx2(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
    _mm256_add_epi32(c, _mm256_madd_epi16(a, b))
}

/// Declares `walk` and its tile for every CPU.
macro_rules! portable_tiles {
    ($name:ident, $number:ty, $part:expr, $multiply_add:expr) => {
        mod $name {
            use std::mem::MaybeUninit;

            use super::{Columns, Order, Panels, Shape, Windows, Work, gather, heights};

            const LANES: usize = Shape::PORTABLE.lanes;

            walk!(, PORTABLE, $number, $part, [1 2 3 4], [1], []);

            /// As its vectorised sisters.
            ///
            /// # Safety
            /// `dst` has room for `R` rows of `V` vectors, and is written, if `ADD`.
            unsafe fn tile<const R: usize, const P: usize, const V: usize, const ADD: bool, const FETCH: bool>(
                work: Work<'_, $number>,
                dst: *mut MaybeUninit<f32>,
                stride: usize,
            ) {
                let Work { lhs, apart, panel, k, .. } = work;
                let mut sums = [[[<$number>::default(); LANES]; V]; R];
                for (i, right) in panel.chunks_exact(V * LANES).take(k).enumerate() {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let a = lhs[r * apart + i];
                        sums.as_flattened_mut().iter_mut().zip(right).for_each(|(sum, &b)| *sum = $multiply_add(a, b, *sum));
                    }
                }
                for (r, sums) in sums.iter().enumerate() {
                    for (i, &sum) in sums.as_flattened().iter().enumerate() {
                        // SAFETY: `dst` has room for it, and is written, if `ADD`.
                        unsafe {
                            let to = dst.add(r * stride + i).cast::<f32>();
                            to.write(if ADD { *to + sum as f32 } else { sum as f32 });
                        }
                    }
                }
            }
        }
    };
}

portable_tiles!(portable, f32, usize::MAX, crate::vector::multiply_add::<{ cfg!(target_arch = "aarch64") }>);
portable_tiles!(portable_pairs, i32, super::PAIRS, |a: i32, b: i32, c: i32| {
    c + i32::from(a as i16) * i32::from(b as i16) + (a >> 16) * (b >> 16)
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::product;
    use antiphon_core::random::Key;

    /// Rows, columns, and what is summed: more than [`PAIRS`], and few rows over several groups of panels, with a rest.
    const SIZES: [[usize; 3]; 11] = [
        [1, 1, 1],
        [3, 7, 5],
        [12, 32, 8],
        [13, 33, 9],
        [31, 100, 40],
        [7, 21, 130],
        [1, 150, 9],
        [1, 301, 130],
        [2, 205, 70],
        [3, 70, 130],
        [4, 40, 5],
    ];

    fn dense<T>(numbers: &[T], apart: usize) -> Windows<'_, T> {
        Windows { numbers, apart }
    }

    #[test]
    fn a_packed_product_equals_the_plain_one() {
        let random = |name: &str, n: usize| -> Vec<f32> {
            let key = Key::from_seed(4).named(name);
            (0..n as u64).map(|i| key.normal(i) as f32).collect()
        };
        for [m, n, k] in SIZES {
            let (a, b) = (random("a", m * k), random("b", k * n));
            let (rows, columns) = (Strides::rows(n), Strides::transposed(k));
            for right in [rows, columns] {
                for add in [false, true] {
                    let mut expected = random("c", m * n);
                    let mut given = expected.clone();
                    let (to, left) = (Strides::rows(n), Strides::rows(k));
                    product([m, n, k], &mut expected, to, add, &a, left, &b, right);
                    let packed = Packed::new(&b, right, [k, n]);
                    packed.multiply_at(0, &a, &mut given, add);
                    let mut turned = random("c", m * n);
                    packed.multiply_at(1, &a, &mut turned, add);
                    assert_eq!(given, turned, "{m} {n} {k}: the order of panels changes nothing");
                    for (x, y) in given.iter().zip(&expected) {
                        assert!((x - y).abs() < 1e-4, "{m} {n} {k} {add}: {x} is not {y}");
                    }
                    for (shape, walk) in if add { tiles::<true>() } else { tiles::<false>() } {
                        let both = [Order::Forward, Order::Backward].map(|order| {
                            let mut given = random("c", m * n);
                            walk_with(walk, shape, dense(&a, k), &b, right, [k, n], &mut given, order);
                            given
                        });
                        assert_eq!(both[0], both[1], "{m} {n} {k} {shape:?}");
                        assert!(
                            both[0].iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-4),
                            "{m} {n} {k} {shape:?}"
                        );
                    }
                }
            }
        }
    }

    /// Rows that overlap, touch or have gaps make the bits that their copies make, all rows or every third.
    #[test]
    fn windows_are_multiplied_as_their_copies() {
        for [m, n, k] in SIZES {
            for apart in [1, k / 3, k, k + 2] {
                let random = |name: &str, n: usize| -> Vec<f32> {
                    let key = Key::from_seed(4).named(name);
                    (0..n as u64).map(|i| key.normal(i) as f32).collect()
                };
                let (a, b) = (random("a", (m - 1) * apart + k), random("b", k * n));
                let copies: Vec<f32> = (0..m).flat_map(|i| a[i * apart..][..k].to_vec()).collect();
                let (strides, windows) = (Strides::rows(n), Windows { numbers: &a, apart });
                let mut expected = vec![0.0; m * n];
                let packed = Packed::new(&b, strides, [k, n]);
                packed.multiply_at(0, &copies, &mut expected, false);
                let mut found = vec![0.0; m * n];
                // SAFETY: numbers are written.
                packed.whole().multiply_windows(windows, Columns::of(unsafe { overwritten(&mut found) }, n));
                assert_eq!(found, expected, "{m} {n} {k}, {apart} apart");
                let mut found = vec![0.0; m * n];
                // SAFETY: numbers are written.
                let rows = Columns::of(unsafe { overwritten(&mut found) }, n).interleaved(3);
                for (first, rows) in rows.enumerate() {
                    let numbers = a.get(first * apart..).unwrap_or_default();
                    packed.whole().multiply_windows(Windows { numbers, apart: 3 * apart }, rows);
                }
                assert_eq!(found, expected, "{m} {n} {k}, {apart} apart, by thirds");
                for (shape, walk) in tiles::<false>() {
                    let [mut found, mut expected] = [vec![0.0; m * n], vec![0.0; m * n]];
                    walk_with(walk, shape, windows, &b, strides, [k, n], &mut found, Order::Forward);
                    walk_with(walk, shape, dense(&copies, k), &b, strides, [k, n], &mut expected, Order::Forward);
                    assert_eq!(found, expected, "{m} {n} {k}, {apart} apart: {shape:?}");
                }
            }
        }
    }

    type Walk<T> = unsafe fn(Panels<'_, T>, Windows<'_, T>, Columns<'_>, Order);

    /// The tiles that this CPU can run, not its best alone.
    fn tiles<const ADD: bool>() -> Vec<(Shape, Walk<f32>)> {
        let mut tiles: Vec<(Shape, Walk<f32>)> = vec![(Shape::PORTABLE, portable::walk::<ADD>)];
        #[cfg(target_arch = "x86_64")]
        if !matches!(instruction_set(), InstructionSet::Portable) {
            // SAFETY: the CPU has these instructions.
            tiles.push((Shape::AVX2, |panels, lhs, dst, order| unsafe { avx2::walk::<ADD>(panels, lhs, dst, order) }));
        }
        tiles
    }

    /// The product by given tiles.
    #[allow(clippy::too_many_arguments)]
    fn walk_with<T: Number>(
        walk: Walk<T>,
        shape: Shape,
        a: Windows<'_, T>,
        b: &[T],
        strides: Strides,
        [k, n]: [usize; 2],
        dst: &mut [f32],
        order: Order,
    ) {
        let (width, columns) = (shape.width(), n.next_multiple_of(shape.lanes));
        let at = |i: usize, column: usize| match column {
            column if column < n => b[strides.start + i * strides.row + column * strides.column],
            _ => T::default(),
        };
        let panel = |first: usize| {
            let own = first..columns.min(first + width);
            (0..k).flat_map(move |i| own.clone().map(move |column| (i, column)))
        };
        let numbers: Vec<T> = (0..columns).step_by(width).flat_map(panel).map(|(i, column)| at(i, column)).collect();
        // SAFETY: `dst` holds numbers, and gets numbers.
        unsafe { walk(Panels { numbers: &numbers, k, n, shape }, a, Columns::of(overwritten(dst), n), order) }
    }

    #[test]
    fn pairs_multiply_exactly_and_column_blocks_make_the_whole() {
        for [m, n, k] in SIZES {
            let random = |name: &str, n: usize| -> Vec<[i16; 2]> {
                let (key, draw) = (Key::from_seed(4).named(name), |x: f64| (x * 100.0) as i16);
                (0..n as u64).map(|i| [draw(key.normal(2 * i)), draw(key.normal(2 * i + 1))]).collect()
            };
            let pair = |[x, y]: [i16; 2]| i32::from(x) & 0xFFFF | i32::from(y) << 16;
            let (a, b) = (random("a", m * k), random("b", n * k));
            // Not above 2²⁴: sums in `f32` are exact.
            let dot = |x: &[[i16; 2]], y: &[[i16; 2]]| -> f32 {
                let both = x.as_flattened().iter().zip(y.as_flattened());
                both.map(|(&x, &y)| f32::from(x) * f32::from(y)).sum()
            };
            let rows = (0..m).flat_map(|i| (0..n).map(move |j| (i, j)));
            let expected: Vec<f32> = rows.map(|(i, j)| dot(&a[i * k..][..k], &b[j * k..][..k])).collect();
            let (a, b): (Vec<i32>, Vec<i32>) = (a.into_iter().map(pair).collect(), b.into_iter().map(pair).collect());
            let packed = Packed::new(&b, Strides::transposed(k), [k, n]);
            let mut given = vec![1.0; m * n];
            packed.multiply_at(1, &a, &mut given, false);
            assert_eq!(given, expected);
            packed.multiply_at(0, &a, &mut given, true);
            assert!(given.iter().zip(&expected).all(|(x, y)| *x == 2.0 * y), "{m} {n} {k}");
            packed.multiply_at(0, &a, &mut given, false);
            let walk: Walk<i32> = portable_pairs::walk::<true>;
            let left = dense(&a, k);
            walk_with(walk, Shape::PORTABLE, left, &b, Strides::transposed(k), [k, n], &mut given, Order::Forward);
            assert!(given.iter().zip(&expected).all(|(x, y)| *x == 2.0 * y), "{m} {n} {k}");
            for (first, panels) in packed.blocks(50).chain(packed.shares(3)) {
                let mut block = vec![0.0; m * panels.columns()];
                panels.multiply(&a, &mut block, false);
                for (block, expected) in block.chunks_exact(panels.columns()).zip(expected.chunks_exact(n)) {
                    assert_eq!(block, &expected[first..first + panels.columns()]);
                }
            }
        }
    }
}
