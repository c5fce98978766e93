//! Large products of matrices in single precision, and sums of columns.
//!
//! Burn's own product takes half-precision units where a GPU has them, which keeps three digits; and which kernel it takes may
//! change from machine to machine. This one is plain: a cube makes 64 × 64 numbers, a unit 4 × 4 of them in registers; both factors
//! lie in shared memory as they lie in theirs, sixteen deep, and the next sixteen are read meanwhile. Where that gives too few
//! cubes, the depth is divided among several, whose sums are added in their order: by the cube that comes last, where a GPU lets
//! it see what the others have written, else by a launch of its own.

use std::cell::RefCell;

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::tile::Four;
use super::{UNITS, unwritten, zeros};

/// Rows and columns of a cube.
const TILE: usize = 64;
/// How deep a cube reads at once.
const DEEP: usize = 16;
/// Vectors of a row of a tile whose numbers lie along the depth, and one more, so that a column of them lies in all banks of the
/// shared memory.
const PITCH: usize = DEEP / 4 + 1;
/// Cubes that keep a large GPU busy.
const BUSY: usize = 256;
/// The least depth that is worth a cube, and one whose sums a launch more adds up.
const LEAST: usize = 128;
const LEAST_APART: usize = 512;

/// A matrix in a buffer: where it starts, and how far its rows lie apart, in numbers.
#[derive(Debug, Clone)]
pub(crate) struct Matrix<'a> {
    pub(crate) tensor: &'a CubeTensor,
    pub(crate) first: usize,
    pub(crate) stride: usize,
    /// Whether the rows of the matrix are the columns of the buffer.
    pub(crate) transposed: bool,
}

impl<'a> Matrix<'a> {
    /// Rows of that width, one behind another.
    pub(crate) fn rows(tensor: &'a CubeTensor, width: usize) -> Self {
        Self { tensor, first: 0, stride: width, transposed: false }
    }

    /// The transpose of rows of that width.
    pub(crate) fn transposed(tensor: &'a CubeTensor, width: usize) -> Self {
        Self { transposed: true, ..Self::rows(tensor, width) }
    }

    fn is_even(&self) -> bool {
        self.first.is_multiple_of(4) && self.stride.is_multiple_of(4)
    }
}

/// `[m, n]`: the product of `[m, k]` and `[k, n]`.
pub(crate) fn product(dims: [usize; 3], left: Matrix<'_>, right: Matrix<'_>) -> CubeTensor {
    let [m, _, n] = dims;
    let out = unwritten(left.tensor, [m, n]);
    product_into(dims, left, right, &out, [0, n]);
    out
}

/// The same into a part of a tensor whose other numbers stay: `place` is where it starts, and how far its rows lie apart.
pub(crate) fn product_into(
    [m, k, n]: [usize; 3],
    left: Matrix<'_>,
    right: Matrix<'_>,
    out: &CubeTensor,
    place: [usize; 2],
) {
    if m == 0 || n == 0 {
        return;
    }
    let tiles = [n.div_ceil(TILE), m.div_ceil(TILE)];
    let sees_others = left.tensor.client.properties().features.device_memory_scope;
    let least = if sees_others { LEAST } else { LEAST_APART };
    let splits = (BUSY / (tiles[0] * tiles[1])).clamp(1, (k / least).max(1));
    let each = k.div_ceil(splits).next_multiple_of(DEEP).max(DEEP);
    let splits = k.div_ceil(each).max(1);
    let client = &left.tensor.client;
    let joins = splits > 1 && sees_others;
    let partial = (splits > 1).then(|| match joins {
        true => unwritten(left.tensor, [splits * tiles[0] * tiles[1] * TILE * TILE]),
        false => unwritten(left.tensor, [splits, m, n]),
    });
    let (target, [first, stride]) = match &partial {
        Some(partial) if !joins => (partial, [0, n]),
        _ => (out, place),
    };
    let mut of_shares = SequenceArg::new();
    let mut of_counters = SequenceArg::new();
    if let Some(partial) = partial.as_ref().filter(|_| joins) {
        of_shares.push(partial.clone().into_buffer_arg());
        of_counters.push(counters_beside(left.tensor).into_buffer_arg());
    }
    // Whether vectors of four can be read: each lies in its factor as a whole.
    let along = |matrix: &Matrix<'_>, rows: usize, columns: usize| {
        matrix.is_even() && if matrix.transposed { rows } else { columns }.is_multiple_of(4)
    };
    let even = along(&left, m, k) && along(&right, k, n);
    let count = CubeCount::Static(tiles[0] as u32, tiles[1] as u32, splits as u32);
    // SAFETY: the kernel reads and writes no number beyond the matrices, whose sizes it is given.
    unsafe {
        multiply::launch_unchecked(
            client,
            count,
            CubeDim::new_1d(UNITS as u32),
            if even { 4 } else { 1 },
            left.tensor.clone().into_buffer_arg(),
            right.tensor.clone().into_buffer_arg(),
            target.clone().into_buffer_arg(),
            of_shares,
            of_counters,
            m as u32,
            k as u32,
            n as u32,
            each as u32,
            left.first as u32,
            left.stride as u32,
            right.first as u32,
            right.stride as u32,
            first as u32,
            stride as u32,
            left.transposed,
            right.transposed,
            joins,
        );
    }
    if let Some(partial) = partial.filter(|_| !joins) {
        let count = CubeCount::Static((m * n).div_ceil(UNITS) as u32, 1, 1);
        // SAFETY: as above.
        unsafe {
            add_splits::launch_unchecked(
                client,
                count,
                CubeDim::new_1d(UNITS as u32),
                partial.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                splits as u32,
                m as u32,
                n as u32,
                place[0] as u32,
                place[1] as u32,
            );
        }
    }
}

/// Counters, one for each tile of a product whose depth is divided, that are zero between any two launches of this thread.
fn counters_beside(tensor: &CubeTensor) -> CubeTensor {
    thread_local! {
        static COUNTERS: RefCell<Vec<CubeTensor>> = const { RefCell::new(Vec::new()) };
    }
    COUNTERS.with_borrow_mut(|all| match all.iter().find(|counters| counters.device == tensor.device) {
        Some(counters) => counters.clone(),
        None => {
            all.push(zeros(tensor, BUSY));
            all[all.len() - 1].clone()
        }
    })
}

/// Four numbers of a matrix along a row of its buffer, zeros beyond `rows` and `columns`.
#[cube]
fn four<Lanes: Size>(
    from: &[Vector<f32, Lanes>],
    first: usize,
    stride: usize,
    row: usize,
    column: usize,
    rows: usize,
    columns: usize,
) -> Four {
    let mut vector = Four::new(0.0f32);
    if row < rows && column < columns {
        let at = first + row * stride + column;
        let width = Lanes::value();
        if comptime!(width == 4) {
            vector = Four::cast_from(from[at / 4]);
        } else {
            #[unroll]
            for i in 0..4usize {
                if column + i < columns {
                    vector.insert(i, from[at + i].extract(0usize));
                }
            }
        }
    }
    vector
}

/// The vector of a factor that a unit reads for its cube: rows from `side` on, a depth from `at` on.
#[cube]
fn ahead<Lanes: Size>(
    from: &[Vector<f32, Lanes>],
    first: u32,
    stride: u32,
    side: usize,
    rows: usize,
    at: usize,
    end: usize,
    #[comptime] transposed: bool,
) -> Four {
    let unit = UNIT_POS as usize;
    let (first, stride) = (first as usize, stride as usize);
    if comptime!(transposed) {
        four::<Lanes>(from, first, stride, at + unit / 16, side + unit % 16 * 4, end, rows)
    } else {
        four::<Lanes>(from, first, stride, side + unit / 4, at + unit % 4 * 4, rows, end)
    }
}

#[cube(launch_unchecked)]
fn multiply<Lanes: Size>(
    left: &[Vector<f32, Lanes>],
    right: &[Vector<f32, Lanes>],
    out: &mut [f32],
    mut shares: Sequence<Box<[f32]>>,
    counters: Sequence<Box<[Atomic<u32>]>>,
    m: u32,
    k: u32,
    n: u32,
    each: u32,
    left_first: u32,
    left_stride: u32,
    right_first: u32,
    right_stride: u32,
    out_first: u32,
    out_stride: u32,
    #[comptime] left_transposed: bool,
    #[comptime] right_transposed: bool,
    #[comptime] joins: bool,
) {
    let (m, k, n, each) = (m as usize, k as usize, n as usize, each as usize);
    let unit = UNIT_POS as usize;
    let (tx, ty) = (unit % 16, unit / 16);
    let top = CUBE_POS_Y as usize * TILE;
    let side = CUBE_POS_X as usize * TILE;
    let start = CUBE_POS_Z as usize * each;
    let mut end = start + each;
    if end > k {
        end = k;
    }
    // Along the depth `[64][PITCH]`, or across it `[16][16]`.
    let mut lefts = Shared::<[Four]>::new_slice(comptime!(TILE * PITCH));
    let mut rights = Shared::<[Four]>::new_slice(comptime!(TILE * PITCH));
    let mut a = Four::new(0.0f32);
    let mut b = Four::new(0.0f32);
    let mut c = Four::new(0.0f32);
    let mut d = Four::new(0.0f32);

    // Each unit reads one vector of each factor, ahead of those that are multiplied.
    let mut l = ahead::<Lanes>(left, left_first, left_stride, top, m, start, end, left_transposed);
    let mut r = ahead::<Lanes>(right, right_first, right_stride, side, n, start, end, comptime!(!right_transposed));
    let along = unit / 4 * PITCH + unit % 4;
    let mut at = start;
    while at < end {
        // What was read before has been used.
        sync_cube();
        if comptime!(left_transposed) {
            lefts[unit] = l;
        } else {
            lefts[along] = l;
        }
        if comptime!(right_transposed) {
            rights[along] = r;
        } else {
            rights[unit] = r;
        }
        sync_cube();
        at += DEEP;
        l = ahead::<Lanes>(left, left_first, left_stride, top, m, at, end, left_transposed);
        r = ahead::<Lanes>(right, right_first, right_stride, side, n, at, end, comptime!(!right_transposed));
        #[unroll]
        for deep in 0..4usize {
            let l0 = part(&lefts, ty, 0usize, deep, left_transposed);
            let l1 = part(&lefts, ty, 1usize, deep, left_transposed);
            let l2 = part(&lefts, ty, 2usize, deep, left_transposed);
            let l3 = part(&lefts, ty, 3usize, deep, left_transposed);
            let r0 = part_of_right(&rights, tx, 0usize, deep, right_transposed);
            let r1 = part_of_right(&rights, tx, 1usize, deep, right_transposed);
            let r2 = part_of_right(&rights, tx, 2usize, deep, right_transposed);
            let r3 = part_of_right(&rights, tx, 3usize, deep, right_transposed);
            #[unroll]
            for i in 0..4usize {
                let row = if comptime!(right_transposed) { across(r0, r1, r2, r3, i) } else { pick(r0, r1, r2, r3, i) };
                let column =
                    if comptime!(left_transposed) { pick(l0, l1, l2, l3, i) } else { across(l0, l1, l2, l3, i) };
                a = fma(row, Four::new(column.extract(0usize)), a);
                b = fma(row, Four::new(column.extract(1usize)), b);
                c = fma(row, Four::new(column.extract(2usize)), c);
                d = fma(row, Four::new(column.extract(3usize)), d);
            }
        }
    }
    if comptime!(joins) {
        let tiles = CUBE_COUNT_X as usize * CUBE_COUNT_Y as usize;
        let tile = CUBE_POS_Y as usize * CUBE_COUNT_X as usize + CUBE_POS_X as usize;
        let own = (CUBE_POS_Z as usize * tiles + tile) * comptime!(TILE * TILE) + ty * comptime!(4 * TILE);
        #[unroll]
        for i in 0..4usize {
            let place = own + if comptime!(right_transposed) { tx + i * 16 } else { tx * 4 + i };
            shares.index_mut(0)[place] = a.extract(i);
            shares.index_mut(0)[place + TILE] = b.extract(i);
            shares.index_mut(0)[place + comptime!(2 * TILE)] = c.extract(i);
            shares.index_mut(0)[place + comptime!(3 * TILE)] = d.extract(i);
        }
        let mut before = Shared::<[u32]>::new_slice(1usize);
        sync_storage();
        if UNIT_POS == 0 {
            before[0] = counters.index(0)[tile].fetch_add(1u32);
        }
        sync_storage();
        if before[0] + 1 == CUBE_COUNT_Z {
            if UNIT_POS == 0 {
                counters.index(0)[tile].store(0u32);
            }
            #[unroll]
            for part in 0..comptime!(TILE * TILE / UNITS) {
                let place = part * UNITS + unit;
                let (row, column) = (top + place / TILE, side + place % TILE);
                if row < m && column < n {
                    let mut total = 0.0f32;
                    for share in 0..CUBE_COUNT_Z as usize {
                        total += shares.index(0)[(share * tiles + tile) * comptime!(TILE * TILE) + place];
                    }
                    out[out_first as usize + row * out_stride as usize + column] = total;
                }
            }
        }
    } else {
        let first = out_first as usize + CUBE_POS_Z as usize * m * n;
        #[unroll]
        for i in 0..4usize {
            let column = if comptime!(right_transposed) { side + tx + i * 16 } else { side + tx * 4 + i };
            let row = top + ty * 4;
            if column < n {
                let place = first + row * out_stride as usize + column;
                if row < m {
                    out[place] = a.extract(i);
                }
                if row + 1 < m {
                    out[place + out_stride as usize] = b.extract(i);
                }
                if row + 2 < m {
                    out[place + 2 * out_stride as usize] = c.extract(i);
                }
                if row + 3 < m {
                    out[place + 3 * out_stride as usize] = d.extract(i);
                }
            }
        }
    }
}

/// A vector of the left factor at the depth `deep`, a quarter of what is read at once: along a row, or across the depth.
#[cube]
fn part(
    tile: &Shared<[Four]>,
    ty: usize,
    #[comptime] which: usize,
    #[comptime] deep: usize,
    #[comptime] transposed: bool,
) -> Four {
    if comptime!(transposed) {
        tile[comptime!((deep * 4 + which) * 16) + ty]
    } else {
        tile[(ty * 4 + which) * PITCH + deep]
    }
}

/// The same of the right factor; a unit's columns lie sixteen apart where they lie along the depth, so that neighbours read from
/// different banks.
#[cube]
fn part_of_right(
    tile: &Shared<[Four]>,
    tx: usize,
    #[comptime] which: usize,
    #[comptime] deep: usize,
    #[comptime] transposed: bool,
) -> Four {
    if comptime!(transposed) {
        tile[(tx + comptime!(which * 16)) * PITCH + deep]
    } else {
        tile[comptime!((deep * 4 + which) * 16) + tx]
    }
}

/// Number `which` of each of four vectors.
#[cube]
fn across(a: Four, b: Four, c: Four, d: Four, #[comptime] which: usize) -> Four {
    let mut vector = Four::new(a.extract(which));
    vector.insert(1usize, b.extract(which));
    vector.insert(2usize, c.extract(which));
    vector.insert(3usize, d.extract(which));
    vector
}

/// One of four vectors.
#[cube]
fn pick(a: Four, b: Four, c: Four, d: Four, #[comptime] which: usize) -> Four {
    if comptime!(which == 0) {
        a
    } else if comptime!(which == 1) {
        b
    } else if comptime!(which == 2) {
        c
    } else {
        d
    }
}

/// Adds `[splits, m, n]` along the first, in order.
#[cube(launch_unchecked)]
fn add_splits(partial: &[f32], out: &mut [f32], splits: u32, m: u32, n: u32, first: u32, stride: u32) {
    let place = ABSOLUTE_POS;
    let size = m as usize * n as usize;
    if place < size {
        let mut total = 0.0f32;
        for split in 0..splits as usize {
            total += partial[split * size + place];
        }
        out[first as usize + place / n as usize * stride as usize + place % n as usize] = total;
    }
}

/// Columns that a cube sums; its units of each have a share of the rows.
const COLUMNS: usize = 16;

/// Sums the columns of `[rows, width]`, whose rows lie `stride` apart, into `out` from `first` on, in an order that depends on the sizes
/// alone.
pub(crate) fn sum_columns(from: &CubeTensor, [rows, width, stride]: [usize; 3], out: &CubeTensor, first: usize) {
    // SAFETY: the kernel reads and writes no number beyond those sizes.
    unsafe {
        add_rows::launch_unchecked(
            &from.client,
            CubeCount::Static(width.div_ceil(COLUMNS) as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            from.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows as u32,
            width as u32,
            stride as u32,
            first as u32,
        );
    }
}

#[cube(launch_unchecked)]
fn add_rows(from: &[f32], out: &mut [f32], rows: u32, width: u32, stride: u32, first: u32) {
    let shares = comptime!(UNITS / COLUMNS);
    let unit = UNIT_POS as usize;
    let (column, share) = (unit % COLUMNS, unit / COLUMNS);
    let place = CUBE_POS_X as usize * COLUMNS + column;
    let mut sums = Shared::<[f32]>::new_slice(UNITS);
    let mut total = 0.0f32;
    if place < width as usize {
        let mut row = share;
        while row < rows as usize {
            total += from[row * stride as usize + place];
            row += shares;
        }
    }
    sums[unit] = total;
    sync_cube();
    if share == 0 && place < width as usize {
        let mut total = 0.0f32;
        #[unroll]
        for share in 0..shares {
            total += sums[share * COLUMNS + column];
        }
        out[first as usize + place] = total;
    }
}
