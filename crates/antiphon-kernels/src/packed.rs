//! Products with a weight that is packed once and used at every step of a sequence.
//!
//! A general product packs its operands at each call, which costs a recurrent layer as much as the product itself when
//! few rows meet a large weight. Here the weight lies in panels, `[k, width]` each, of as many columns as a tile of up to
//! eight rows keeps in registers while it walks down a panel (Goto and van de Geijn 2008, without their blocking of `k`: a
//! panel fits the second-level cache for every width in use). Wide tiles of few rows suit small batches, and eight rows
//! that lie a power of two apart still fit the eight ways of a first-level cache.

use rayon::prelude::*;

use crate::memory::unwritten;
use crate::product::Strides;
#[cfg(target_arch = "x86_64")]
use crate::vector::{InstructionSet, instruction_set};

/// A `[k, n]` matrix in panels of [`Shape::width`] columns, the last one of whole vectors.
#[derive(Debug)]
pub(crate) struct Packed {
    panels: Vec<f32>,
    k: usize,
    n: usize,
    shape: Shape,
}

/// What an instruction set keeps in registers: tiles of up to `rows` rows and `vectors` vectors of `lanes` numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    rows: usize,
    vectors: usize,
    lanes: usize,
}

impl Shape {
    const PORTABLE: Self = Self { rows: 4, vectors: 1, lanes: 8 };
    #[cfg(target_arch = "x86_64")]
    const AVX2: Self = Self { rows: 6, vectors: 2, lanes: 8 };
    #[cfg(target_arch = "x86_64")]
    const AVX512: Self = Self { rows: 8, vectors: 3, lanes: 16 };

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

impl Packed {
    /// Packs the `[k, n]` matrix that lies in `matrix` as `strides` says; the last vector of columns is filled with zeros.
    pub(crate) fn new(matrix: &[f32], strides: Strides, [k, n]: [usize; 2]) -> Self {
        let shape = Shape::best();
        let width = shape.width();
        // SAFETY: each panel is filled below, the last one with zeros first.
        let mut panels = unsafe { unwritten(n.next_multiple_of(shape.lanes) * k) };
        panels.par_chunks_mut((width * k).max(1)).enumerate().for_each(|(p, panel)| {
            let (columns, own) = (width.min(n - p * width), panel.len() / k);
            if columns < own {
                panel.fill(0.0);
            }
            let first = strides.start + p * width * strides.column;
            if strides.column == 1 {
                for (i, row) in panel.chunks_exact_mut(own).enumerate() {
                    row[..columns].copy_from_slice(&matrix[first + i * strides.row..][..columns]);
                }
            } else {
                for j in 0..columns {
                    for (i, row) in panel.chunks_exact_mut(own).enumerate() {
                        row[j] = matrix[first + i * strides.row + j * strides.column];
                    }
                }
            }
        });
        Self { panels, k, n, shape }
    }

    /// `k` and `n`.
    pub(crate) fn dims(&self) -> [usize; 2] {
        [self.k, self.n]
    }

    /// `dst[m, n] = (if add { dst } else { 0 }) + lhs[m, k] · self`, both dense, on the calling thread. Unless `add`, all of
    /// `dst` is written, and none of it read.
    pub(crate) fn multiply(&self, lhs: &[f32], dst: &mut [f32], add: bool) {
        let m = dst.len() / self.n;
        assert!(dst.len() == m * self.n && lhs.len() == m * self.k, "operands of {m} rows");
        if self.k == 0 {
            if !add {
                dst.fill(0.0);
            }
        } else if add {
            self.walk::<true>(lhs, dst);
        } else {
            self.walk::<false>(lhs, dst);
        }
    }

    fn walk<const ADD: bool>(&self, lhs: &[f32], dst: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        match instruction_set() {
            // SAFETY: the CPU has these instructions.
            InstructionSet::Avx512 => return unsafe { avx512::walk::<ADD>(self, lhs, dst) },
            // SAFETY: the CPU has these instructions.
            InstructionSet::Avx2 => return unsafe { avx2::walk::<ADD>(self, lhs, dst) },
            InstructionSet::Portable => {}
        }
        portable::walk::<ADD>(self, lhs, dst);
    }
}

/// Declares `fn walk`: panel by panel, the rows in tiles of about equal height.
macro_rules! walk {
    ($($features:literal)?, $shape:ident, [$($rows:literal)*], [$($vectors:literal)*]) => {
        $(#[target_feature(enable = $features)])?
        pub(super) fn walk<const ADD: bool>(packed: &Packed, lhs: &[f32], dst: &mut [f32]) {
            const SHAPE: Shape = Shape::$shape;
            const WIDTH: usize = SHAPE.width();
            let (k, n) = (packed.k, packed.n);
            assert_eq!(packed.shape, SHAPE, "packed for another instruction set");
            let m = lhs.len() / k;
            let tiles = m.div_ceil(SHAPE.rows);
            // Where the last vector is not full, its tiles are made here.
            let mut edge = [0.0_f32; SHAPE.rows * WIDTH];
            for (p, panel) in packed.panels.chunks(WIDTH * k).enumerate() {
                let (first, width) = (p * WIDTH, panel.len() / k);
                let columns = width.min(n - first);
                let mut row = 0;
                for tile in 0..tiles {
                    let rows = (m - row).div_ceil(tiles - tile);
                    let (lhs, dst) = (&lhs[row * k..], &mut dst[row * n..]);
                    row += rows;
                    if columns == width {
                        by_width::<ADD>(rows, width / SHAPE.lanes, lhs, panel, &mut dst[first..], n);
                        continue;
                    }
                    if ADD {
                        let both = edge.chunks_exact_mut(width).zip(dst.chunks(n)).take(rows);
                        both.for_each(|(edge, dst)| edge[..columns].copy_from_slice(&dst[first..]));
                    }
                    by_width::<ADD>(rows, width / SHAPE.lanes, lhs, panel, &mut edge, width);
                    let both = edge.chunks_exact(width).zip(dst.chunks_mut(n)).take(rows);
                    both.for_each(|(edge, dst)| dst[first..].copy_from_slice(&edge[..columns]));
                }
            }
        }

        $(#[target_feature(enable = $features)])?
        fn by_width<const ADD: bool>(
            rows: usize,
            vectors: usize,
            lhs: &[f32],
            panel: &[f32],
            dst: &mut [f32],
            stride: usize,
        ) {
            match vectors {
                $($vectors => by_height::<$vectors, ADD>(rows, lhs, panel, dst, stride),)*
                _ => unreachable!("a panel is no wider"),
            }
        }

        $(#[target_feature(enable = $features)])?
        fn by_height<const V: usize, const ADD: bool>(
            rows: usize,
            lhs: &[f32],
            panel: &[f32],
            dst: &mut [f32],
            stride: usize,
        ) {
            match rows {
                $($rows => tile::<$rows, V, ADD>(lhs, panel, dst, stride),)*
                _ => unreachable!("a tile is no higher"),
            }
        }
    };
}

/// Declares `walk` and its tile for an instruction set.
#[cfg(target_arch = "x86_64")]
macro_rules! vector_tiles {
    ($name:ident, $features:literal, $shape:ident, $rows:tt, $vectors:tt,
     $zero:ident, $load:ident, $store:ident, $spread:ident, $multiply_add:ident, $add:ident) => {
        mod $name {
            use std::arch::x86_64::*;

            use super::{Packed, Shape};

            const LANES: usize = Shape::$shape.lanes;

            walk!($features, $shape, $rows, $vectors);

            /// `R` dense rows of `lhs` down a panel of `V` vectors, into (or, if `ADD`, onto) rows of `dst` that lie
            /// `stride` apart. All loops but the one over `k` are unrolled, so that the sums never leave their registers.
            #[target_feature(enable = $features)]
            fn tile<const R: usize, const V: usize, const ADD: bool>(
                lhs: &[f32],
                panel: &[f32],
                dst: &mut [f32],
                stride: usize,
            ) {
                let k = panel.len() / (V * LANES);
                assert!(lhs.len() >= R * k && dst.len() >= (R - 1) * stride + V * LANES);
                let mut sums = [[$zero(); V]; R];
                let (a, mut b) = (lhs.as_ptr(), panel.as_ptr());
                for i in 0..k {
                    // SAFETY: the panel holds `k` rows of `V` vectors, and `lhs` `R` rows of `k` numbers.
                    unsafe {
                        let mut right = [$zero(); V];
                        for v in 0..V {
                            right[v] = $load(b.add(v * LANES));
                        }
                        for r in 0..R {
                            let a = $spread(*a.add(r * k + i));
                            for v in 0..V {
                                sums[r][v] = $multiply_add(a, right[v], sums[r][v]);
                            }
                        }
                        b = b.add(V * LANES);
                    }
                }
                for r in 0..R {
                    for v in 0..V {
                        // SAFETY: `dst` holds `R` rows of `V` vectors.
                        unsafe {
                            let at = dst.as_mut_ptr().add(r * stride + v * LANES);
                            $store(at, if ADD { $add($load(at), sums[r][v]) } else { sums[r][v] });
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
    [1 2 3 4 5 6 7 8],
    [1 2 3],
    _mm512_setzero_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps
);
#[cfg(target_arch = "x86_64")]
vector_tiles!(
    avx2,
    "avx2,fma",
    AVX2,
    [1 2 3 4 5 6],
    [1 2],
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps
);

mod portable {
    use super::{Packed, Shape};

    const LANES: usize = Shape::PORTABLE.lanes;

    walk!(, PORTABLE, [1 2 3 4], [1]);

    /// As its vectorised sisters.
    fn tile<const R: usize, const V: usize, const ADD: bool>(
        lhs: &[f32],
        panel: &[f32],
        dst: &mut [f32],
        stride: usize,
    ) {
        let k = panel.len() / (V * LANES);
        let mut sums = [[[0.0_f32; LANES]; V]; R];
        for (i, right) in panel.chunks_exact(V * LANES).enumerate() {
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = lhs[r * k + i];
                sums.as_flattened_mut().iter_mut().zip(right).for_each(|(sum, b)| *sum += a * b);
            }
        }
        for (dst, sums) in dst.chunks_mut(stride).zip(&sums) {
            for (to, sum) in dst.iter_mut().zip(sums.as_flattened()) {
                *to = if ADD { *to + sum } else { *sum };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::product;
    use antiphon_core::random::Key;

    #[test]
    fn a_packed_product_equals_the_plain_one() {
        let random = |name: &str, n: usize| -> Vec<f32> {
            let key = Key::from_seed(4).named(name);
            (0..n as u64).map(|i| key.normal(i) as f32).collect()
        };
        for (m, n, k) in [(1, 1, 1), (3, 7, 5), (12, 32, 8), (13, 33, 9), (31, 100, 40), (8, 64, 0)] {
            let (a, b) = (random("a", m * k), random("b", k * n));
            let (rows, columns) = (Strides::rows(n), Strides::transposed(k));
            for right in [rows, columns] {
                for add in [false, true] {
                    let mut expected = random("c", m * n);
                    let mut given = expected.clone();
                    let (to, left) = (Strides::rows(n), Strides::rows(k));
                    product([m, n, k], &mut expected, to, add, &a, left, &b, right);
                    Packed::new(&b, right, [k, n]).multiply(&a, &mut given, add);
                    for (x, y) in given.iter().zip(&expected) {
                        assert!((x - y).abs() < 1e-4, "{m} {n} {k} {add}: {x} is not {y}");
                    }
                }
            }
        }
    }
}
