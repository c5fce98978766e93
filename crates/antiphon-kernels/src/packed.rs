//! Products with a weight that is packed once and used at every step of a sequence.
//!
//! A general product packs its operands at each call, which costs a recurrent layer as much as the product itself when
//! few rows meet a large weight. Here the weight lies in panels, `[k, width]` each, of as many columns as a tile of up to
//! eight rows keeps in registers while it walks down a panel (Goto and van de Geijn 2008, without their blocking of `k`: a
//! panel fits the second-level cache for every width in use). Wide tiles of few rows suit small batches, and eight rows
//! that lie a power of two apart still fit the eight ways of a first-level cache. The first tile on a panel would wait for
//! memory at each of its pages, so that tiles fetch: each its share of the next panel into the second-level cache, and into
//! the first what it will read soon itself.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::memory::{Plain, overwritten, unwritten, written};
use crate::product::Strides;
#[cfg(target_arch = "x86_64")]
use crate::vector::{InstructionSet, instruction_set};

/// A `[k, n]` matrix in panels of [`Shape::width`] columns, the last one of whole vectors.
#[derive(Debug)]
pub(crate) struct Packed<T = f32> {
    numbers: Vec<T>,
    k: usize,
    n: usize,
    shape: Shape,
}

/// Some of the panels of a [`Packed`] matrix: `[k, n]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels<'a, T> {
    numbers: &'a [T],
    k: usize,
    n: usize,
    shape: Shape,
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
    unsafe fn walk<const ADD: bool>(panels: Panels<'_, Self>, lhs: &[Self], dst: &mut [MaybeUninit<f32>]);
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
}

impl Shape {
    const PORTABLE: Self = Self { rows: 4, vectors: 1, lanes: 8, gathers: false };
    #[cfg(target_arch = "x86_64")]
    const AVX2: Self = Self { rows: 6, vectors: 2, lanes: 8, gathers: true };
    #[cfg(target_arch = "x86_64")]
    const AVX512: Self = Self { rows: 8, vectors: 3, lanes: 16, gathers: false };

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
    pub(crate) fn new(matrix: &[T], strides: Strides, [k, n]: [usize; 2]) -> Self {
        let shape = Shape::best();
        let width = shape.width();
        let mut numbers = unwritten(n.next_multiple_of(shape.lanes) * k);
        numbers.par_chunks_mut((width * k).max(1)).enumerate().for_each(|(p, panel)| {
            let (columns, own) = (width.min(n - p * width), panel.len() / k);
            if columns < own {
                panel.fill(MaybeUninit::new(T::default()));
            }
            let first = strides.start + p * width * strides.column;
            if strides.column == 1 {
                for (i, row) in panel.chunks_exact_mut(own).enumerate() {
                    row[..columns].write_copy_of_slice(&matrix[first + i * strides.row..][..columns]);
                }
            } else {
                for j in 0..columns {
                    for (i, row) in panel.chunks_exact_mut(own).enumerate() {
                        row[j].write(matrix[first + i * strides.row + j * strides.column]);
                    }
                }
            }
        });
        // SAFETY: each panel is filled, the last one with zeros first.
        Self { numbers: unsafe { written(numbers) }, k, n, shape }
    }

    /// `k` and `n`.
    pub(crate) fn dims(&self) -> [usize; 2] {
        [self.k, self.n]
    }

    /// Blocks of up to `columns` columns (but at least a panel), with the number of each one's first column.
    pub(crate) fn blocks(&self, columns: usize) -> impl Iterator<Item = (usize, Panels<'_, T>)> {
        let width = self.shape.width();
        let most = (columns / width).max(1) * width;
        let panels = move |(i, numbers)| {
            let n = most.min(self.n - i * most);
            (i * most, Panels { numbers, k: self.k, n, shape: self.shape })
        };
        self.numbers.chunks((most * self.k).max(1)).enumerate().map(panels)
    }

    /// All columns.
    fn whole(&self) -> Panels<'_, T> {
        Panels { numbers: &self.numbers, k: self.k, n: self.n, shape: self.shape }
    }

    /// As [`Panels::multiply`], for all columns.
    pub(crate) fn multiply(&self, lhs: &[T], dst: &mut [f32], add: bool) {
        self.whole().multiply(lhs, dst, add);
    }

    /// `dst[m, n] = lhs[m, k] · self`, both dense, on the calling thread; all of `dst` is written.
    pub(crate) fn multiply_into(&self, lhs: &[T], dst: &mut [MaybeUninit<f32>]) {
        // SAFETY: nothing is added to.
        unsafe { self.whole().onto(lhs, dst, false) }
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
        unsafe { self.onto(lhs, overwritten(dst), add) }
    }

    /// # Safety
    /// `dst` is written, if `add`.
    unsafe fn onto(self, lhs: &[T], dst: &mut [MaybeUninit<f32>], add: bool) {
        let m = dst.len() / self.n;
        assert!(dst.len() == m * self.n && lhs.len() == m * self.k, "operands of {m} rows");
        if self.k == 0 {
            if !add {
                dst.fill(MaybeUninit::new(0.0));
            }
        } else if add {
            // SAFETY: the caller has written `dst`.
            unsafe { T::walk::<true>(self, lhs, dst) }
        } else {
            // SAFETY: nothing is added to.
            unsafe { T::walk::<false>(self, lhs, dst) }
        }
    }
}

/// Implements [`Number`] with the tiles of three modules.
macro_rules! number {
    ($number:ty, $avx512:ident, $avx2:ident, $portable:ident) => {
        impl Number for $number {
            unsafe fn walk<const ADD: bool>(panels: Panels<'_, Self>, lhs: &[Self], dst: &mut [MaybeUninit<f32>]) {
                #[cfg(target_arch = "x86_64")]
                match instruction_set() {
                    // SAFETY: the CPU has these instructions, and the caller has written `dst`, if `ADD`.
                    InstructionSet::Avx512 => return unsafe { $avx512::walk::<ADD>(panels, lhs, dst) },
                    // SAFETY: the same.
                    InstructionSet::Avx2 => return unsafe { $avx2::walk::<ADD>(panels, lhs, dst) },
                    InstructionSet::Portable => {}
                }
                // SAFETY: the caller has written `dst`, if `ADD`.
                unsafe { $portable::walk::<ADD>(panels, lhs, dst) }
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
fn gather<T: Number>(lhs: &[T], k: usize, tiles: usize) -> Vec<T> {
    let mut gathered = unwritten(lhs.len());
    let height = heights(lhs.len() / k, tiles);
    let (mut from, mut to) = (lhs, &mut gathered[..]);
    for tile in 0..tiles {
        let rows = height(tile);
        let (given, turned);
        (given, from) = from.split_at(rows * k);
        (turned, to) = to.split_at_mut(rows * k);
        for (r, row) in given.chunks_exact(k).enumerate() {
            turned[r..].iter_mut().step_by(rows).zip(row).for_each(|(to, &x)| _ = to.write(x));
        }
    }
    // SAFETY: the tiles hold all rows, and each row is written.
    unsafe { written(gathered) }
}

/// Declares `fn walk`: panel by panel, `part` of `k` at a time, the rows in tiles of about equal height. What a tile adds to was
/// written, by another part or by the caller.
macro_rules! walk {
    ($($features:literal)?, $shape:ident, $number:ty, $part:expr, [$($rows:literal)*], [$($vectors:literal)*]) => {
        $(#[target_feature(enable = $features)])?
        pub(super) unsafe fn walk<const ADD: bool>(
            panels: Panels<'_, $number>,
            lhs: &[$number],
            dst: &mut [MaybeUninit<f32>],
        ) {
            const SHAPE: Shape = Shape::$shape;
            const WIDTH: usize = SHAPE.width();
            let Panels { numbers, k, n, shape } = panels;
            assert_eq!(shape, SHAPE, "packed for another instruction set");
            let m = lhs.len() / k;
            let tiles = m.div_ceil(SHAPE.rows);
            let height = heights(m, tiles);
            let part = k.min($part);
            let gathered = if SHAPE.gathers { gather(lhs, k, tiles) } else { Vec::new() };
            // Where the last vector is not full, its tiles are made here.
            let mut edge = [MaybeUninit::new(0.0); SHAPE.rows * WIDTH];
            for (p, panel) in numbers.chunks(WIDTH * k).enumerate() {
                let (first, width) = (p * WIDTH, panel.len() / k);
                let (columns, vectors) = (width.min(n - first), width / SHAPE.lanes);
                let step = width.div_ceil(tiles.max(1));
                for (q, panel) in panel.chunks(part * width).enumerate() {
                    let add = ADD || q > 0;
                    let (mut row, mut next) = (0, panel.as_ptr().wrapping_add(panel.len()));
                    for tile in 0..tiles {
                        let rows = height(tile);
                        let lhs = match SHAPE.gathers {
                            true => &gathered[row * k + q * part * rows..],
                            false => &lhs[row * k + q * part..],
                        };
                        let dst = &mut dst[row * n + first..];
                        let work = Work { lhs, apart: k, panel, next, step };
                        row += rows;
                        next = next.wrapping_add(part * step);
                        if columns == width {
                            by_width(add, rows, vectors, work, dst, n);
                            continue;
                        }
                        if add {
                            let both = edge.chunks_exact_mut(width).zip(dst.chunks(n)).take(rows);
                            both.for_each(|(edge, dst)| edge[..columns].copy_from_slice(&dst[..columns]));
                        }
                        by_width(add, rows, vectors, work, &mut edge, width);
                        let both = edge.chunks_exact(width).zip(dst.chunks_mut(n)).take(rows);
                        both.for_each(|(edge, dst)| dst[..columns].copy_from_slice(&edge[..columns]));
                    }
                }
            }
        }

        $(#[target_feature(enable = $features)])?
        fn by_width(add: bool, rows: usize, vectors: usize, work: Work<'_, $number>, dst: &mut [MaybeUninit<f32>], stride: usize) {
            match (vectors, add) {
                $(
                    ($vectors, false) => by_height::<$vectors, false>(rows, work, dst, stride),
                    ($vectors, true) => by_height::<$vectors, true>(rows, work, dst, stride),
                )*
                _ => unreachable!("a panel is no wider"),
            }
        }

        $(#[target_feature(enable = $features)])?
        fn by_height<const V: usize, const ADD: bool>(
            rows: usize,
            work: Work<'_, $number>,
            dst: &mut [MaybeUninit<f32>],
            stride: usize,
        ) {
            match rows {
                $($rows => tile::<$rows, V, ADD>(work, dst, stride),)*
                _ => unreachable!("a tile is no higher"),
            }
        }
    };
}

/// What a tile multiplies: rows that lie `apart`, and a panel or a part of one. While it does so it fetches from `next` on,
/// `step` numbers further each time.
#[derive(Clone, Copy)]
struct Work<'a, T> {
    lhs: &'a [T],
    apart: usize,
    panel: &'a [T],
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    next: *const T,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    step: usize,
}

/// How far ahead of itself a tile fetches, and a line of the caches, in numbers of four bytes.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 1024;
#[cfg(target_arch = "x86_64")]
const LINE: usize = 16;

/// Declares `walk` and its tile for an instruction set and a number.
#[cfg(target_arch = "x86_64")]
macro_rules! vector_tiles {
    ($name:ident, $features:literal, $shape:ident, $number:ty, $part:expr, $rows:tt, $vectors:tt,
     $zero:ident, $load:ident, $spread:ident, $multiply_add:path, $sum:path, $load_sum:ident, $store:ident, $add:ident) => {
        mod $name {
            use std::arch::x86_64::*;
            use std::mem::MaybeUninit;

            use super::{AHEAD, LINE, Panels, Shape, Work, gather, heights};

            const LANES: usize = Shape::$shape.lanes;

            walk!($features, $shape, $number, $part, $rows, $vectors);

            /// `R` rows down a panel of `V` vectors, into (or, if `ADD`, onto) rows of `dst` that lie `stride` apart. All loops
            /// but the one over `k` are unrolled, so that the sums never leave their registers.
            #[target_feature(enable = $features)]
            fn tile<const R: usize, const V: usize, const ADD: bool>(
                work: Work<'_, $number>,
                dst: &mut [MaybeUninit<f32>],
                stride: usize,
            ) {
                let Work { lhs, apart, panel, mut next, step } = work;
                let k = panel.len() / (V * LANES);
                // From row to row, and from number to number.
                let (apart, along) = if Shape::$shape.gathers { (1, R) } else { (apart, 1) };
                assert!(lhs.len() > (R - 1) * apart + (k - 1) * along && dst.len() >= (R - 1) * stride + V * LANES);
                let mut sums = [[$zero(); V]; R];
                let (mut a, mut b) = (lhs.as_ptr(), panel.as_ptr());
                let mut multiply = || {
                    // SAFETY: the panel holds `k` rows of `V` vectors, and `lhs` `k` numbers of `R` rows.
                    unsafe {
                        for line in 0..(V * LANES).div_ceil(LINE) {
                            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD + line * LINE).cast());
                        }
                        let mut right = [$zero(); V];
                        for v in 0..V {
                            right[v] = $load(b.add(v * LANES).cast());
                        }
                        for r in 0..R {
                            let a = $spread(*a.add(r * apart));
                            for v in 0..V {
                                sums[r][v] = $multiply_add(a, right[v], sums[r][v]);
                            }
                        }
                        (a, b) = (a.add(along), b.add(V * LANES));
                    }
                };
                for _ in 0..k / 4 {
                    for line in 0..(V * LANES).div_ceil(LINE) {
                        _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(line * LINE).cast());
                    }
                    next = next.wrapping_add(4 * step);
                    multiply();
                    multiply();
                    multiply();
                    multiply();
                }
                for _ in 0..k % 4 {
                    multiply();
                }
                for r in 0..R {
                    for v in 0..V {
                        // SAFETY: `dst` holds `R` rows of `V` vectors, and is written, if `ADD`.
                        unsafe {
                            let at = dst.as_mut_ptr().add(r * stride + v * LANES).cast::<f32>();
                            let sum = $sum(sums[r][v]);
                            $store(at, if ADD { $add($load_sum(at), sum) } else { sum });
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

            use super::{Panels, Shape, Work, gather, heights};

            const LANES: usize = Shape::PORTABLE.lanes;

            walk!(, PORTABLE, $number, $part, [1 2 3 4], [1]);

            /// As its vectorised sisters.
            fn tile<const R: usize, const V: usize, const ADD: bool>(
                work: Work<'_, $number>,
                dst: &mut [MaybeUninit<f32>],
                stride: usize,
            ) {
                let Work { lhs, apart, panel, .. } = work;
                let mut sums = [[[<$number>::default(); LANES]; V]; R];
                for (i, right) in panel.chunks_exact(V * LANES).enumerate() {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let a = lhs[r * apart + i];
                        sums.as_flattened_mut().iter_mut().zip(right).for_each(|(sum, &b)| *sum = $multiply_add(a, b, *sum));
                    }
                }
                for (dst, sums) in dst.chunks_mut(stride).zip(&sums) {
                    for (to, &sum) in dst.iter_mut().zip(sums.as_flattened()) {
                        // SAFETY: `dst` is written, if `ADD`.
                        let before = if ADD { unsafe { to.assume_init() } } else { 0.0 };
                        to.write(if ADD { before + sum as f32 } else { sum as f32 });
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

    /// Rows, columns, and what is summed; the last ones more than [`PAIRS`].
    const SIZES: [[usize; 3]; 6] = [[1, 1, 1], [3, 7, 5], [12, 32, 8], [13, 33, 9], [31, 100, 40], [7, 21, 130]];

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
                    packed.multiply(&a, &mut given, add);
                    for (x, y) in given.iter().zip(&expected) {
                        assert!((x - y).abs() < 1e-4, "{m} {n} {k} {add}: {x} is not {y}");
                    }
                    for (shape, walk) in if add { tiles::<true>() } else { tiles::<false>() } {
                        let mut given = random("c", m * n);
                        walk_with(walk, shape, &a, &b, right, [k, n], &mut given);
                        assert!(
                            given.iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-4),
                            "{m} {n} {k} {shape:?}"
                        );
                    }
                }
            }
        }
    }

    type Walk<T> = unsafe fn(Panels<'_, T>, &[T], &mut [MaybeUninit<f32>]);

    /// The tiles that this CPU can run, not its best alone.
    fn tiles<const ADD: bool>() -> Vec<(Shape, Walk<f32>)> {
        let mut tiles: Vec<(Shape, Walk<f32>)> = vec![(Shape::PORTABLE, portable::walk::<ADD>)];
        #[cfg(target_arch = "x86_64")]
        if !matches!(instruction_set(), InstructionSet::Portable) {
            // SAFETY: the CPU has these instructions.
            tiles.push((Shape::AVX2, |panels, lhs, dst| unsafe { avx2::walk::<ADD>(panels, lhs, dst) }));
        }
        tiles
    }

    /// The product by given tiles.
    fn walk_with<T: Number>(
        walk: Walk<T>,
        shape: Shape,
        a: &[T],
        b: &[T],
        strides: Strides,
        [k, n]: [usize; 2],
        dst: &mut [f32],
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
        unsafe { walk(Panels { numbers: &numbers, k, n, shape }, a, overwritten(dst)) }
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
            packed.multiply(&a, &mut given, false);
            assert_eq!(given, expected);
            let walk: Walk<i32> = portable_pairs::walk::<true>;
            walk_with(walk, Shape::PORTABLE, &a, &b, Strides::transposed(k), [k, n], &mut given);
            assert!(given.iter().zip(&expected).all(|(x, y)| *x == 2.0 * y), "{m} {n} {k}");
            for (first, panels) in packed.blocks(50) {
                let mut block = vec![0.0; m * panels.columns()];
                panels.multiply(&a, &mut block, false);
                for (block, expected) in block.chunks_exact(panels.columns()).zip(expected.chunks_exact(n)) {
                    assert_eq!(block, &expected[first..first + panels.columns()]);
                }
            }
        }
    }
}
