//! Products with a weight that is packed once and used at every step of a sequence.
//!
//! A general product packs its operands at each call, which costs a recurrent layer as much as the product itself when
//! few rows meet a large weight. Here the weight lies in panels of `NR` columns, `[k, NR]` each, so that a tile of `MR`
//! rows by `NR` columns stays in registers while it walks down a panel (Goto and van de Geijn 2008, without their
//! blocking of `k`: a panel fits the second-level cache for every width in use).

use rayon::prelude::*;

use crate::memory::unwritten;
use crate::product::Strides;
#[cfg(target_arch = "x86_64")]
use crate::vector::{InstructionSet, instruction_set};

/// A `[k, n]` matrix in panels.
#[derive(Debug)]
pub(crate) struct Packed {
    panels: Vec<f32>,
    k: usize,
    n: usize,
    /// Columns a panel: what the instruction set keeps in registers.
    width: usize,
}

/// Columns a panel.
fn panel_width() -> usize {
    #[cfg(target_arch = "x86_64")]
    match instruction_set() {
        InstructionSet::Avx512 => return 32,
        InstructionSet::Avx2 => return 16,
        InstructionSet::Portable => {}
    }
    8
}

impl Packed {
    /// Packs the `[k, n]` matrix that lies in `matrix` as `strides` says; the last panel is filled with zeros.
    pub(crate) fn new(matrix: &[f32], strides: Strides, [k, n]: [usize; 2]) -> Self {
        let width = panel_width();
        // SAFETY: each panel is filled below, the last one with zeros first.
        let mut panels = unsafe { unwritten(n.div_ceil(width) * width * k) };
        panels.par_chunks_mut((width * k).max(1)).enumerate().for_each(|(p, panel)| {
            let columns = width.min(n - p * width);
            if columns < width {
                panel.fill(0.0);
            }
            let first = strides.start + p * width * strides.column;
            if strides.column == 1 {
                for (i, row) in panel.chunks_exact_mut(width).enumerate() {
                    row[..columns].copy_from_slice(&matrix[first + i * strides.row..][..columns]);
                }
            } else {
                for j in 0..columns {
                    for (i, row) in panel.chunks_exact_mut(width).enumerate() {
                        row[j] = matrix[first + i * strides.row + j * strides.column];
                    }
                }
            }
        });
        Self { panels, k, n, width }
    }

    /// `dst[m, n] = (if add { dst } else { 0 }) + lhs[m, k] · self`, both dense, on the calling thread. Unless `add`, all of
    /// `dst` is written, and none of it read.
    pub(crate) fn multiply(&self, lhs: &[f32], dst: &mut [f32], add: bool) {
        let m = dst.len() / self.n;
        assert!(dst.len() == m * self.n && lhs.len() == m * self.k, "operands of {m} rows");
        let rows = Rows { lhs, dst, add };
        #[cfg(target_arch = "x86_64")]
        match instruction_set() {
            // SAFETY: the CPU has these instructions.
            InstructionSet::Avx512 => return unsafe { avx512::walk(self, rows) },
            // SAFETY: the CPU has these instructions.
            InstructionSet::Avx2 => return unsafe { avx2::walk(self, rows) },
            InstructionSet::Portable => {}
        }
        portable::walk(self, rows);
    }
}

/// The rows of one product.
struct Rows<'a> {
    lhs: &'a [f32],
    dst: &'a mut [f32],
    add: bool,
}

/// Declares `fn walk`: panel by panel, `$mr` rows at a time, the last ones in tiles of 8, 4, 2 and 1.
macro_rules! walk {
    ($($features:literal)?, $mr:literal, $nr:expr) => {
        $(#[target_feature(enable = $features)])?
        pub(super) fn walk(packed: &Packed, rows: Rows<'_>) {
            let Rows { lhs, dst, add } = rows;
            let (k, n) = (packed.k, packed.n);
            assert_eq!(packed.width, $nr, "packed for another instruction set");
            if k == 0 {
                if !add {
                    dst.fill(0.0);
                }
                return;
            }
            // Where the last panel is not full, its tiles are made here.
            let mut edge = [0.0_f32; $mr * $nr];
            for (p, panel) in packed.panels.chunks_exact($nr * k).enumerate() {
                let columns = $nr.min(n - p * $nr);
                let (mut lhs, mut dst) = (&lhs[..], &mut dst[..]);
                while !lhs.is_empty() {
                    let rows = tile_rows(lhs.len() / k, $mr);
                    if columns == $nr {
                        tiles(rows, lhs, panel, k, &mut dst[p * $nr..], n, add);
                    } else {
                        let ours = edge.chunks_exact_mut($nr).zip(dst.chunks_mut(n)).take(rows);
                        if add {
                            ours.for_each(|(edge, dst)| edge[..columns].copy_from_slice(&dst[p * $nr..]));
                        }
                        tiles(rows, lhs, panel, k, &mut edge, $nr, add);
                        let ours = edge.chunks_exact($nr).zip(dst.chunks_mut(n)).take(rows);
                        ours.for_each(|(edge, dst)| dst[p * $nr..].copy_from_slice(&edge[..columns]));
                    }
                    (lhs, dst) = (&lhs[rows * k..], &mut dst[rows * n..]);
                }
            }
        }

        /// A tile of `rows`, one of the numbers that [`tile_rows`] gives.
        $(#[target_feature(enable = $features)])?
        fn tiles(rows: usize, lhs: &[f32], panel: &[f32], k: usize, dst: &mut [f32], stride: usize, add: bool) {
            let tile = match (rows, add) {
                (1, false) => tile::<1, false>,
                (1, true) => tile::<1, true>,
                (2, false) => tile::<2, false>,
                (2, true) => tile::<2, true>,
                (4, false) => tile::<4, false>,
                (4, true) => tile::<4, true>,
                (8, false) => tile::<8, false>,
                (8, true) => tile::<8, true>,
                (_, false) => tile::<$mr, false>,
                (_, true) => tile::<$mr, true>,
            };
            tile(lhs, panel, k, dst, stride);
        }
    };
}

/// How many of `left` rows the next tile takes, of at most `most`.
fn tile_rows(left: usize, most: usize) -> usize {
    [most, 8, 4, 2].into_iter().find(|&rows| rows <= most && rows <= left).unwrap_or(1)
}

/// Declares `walk` and its tile for an instruction set with two vectors of `$lanes` numbers a row of a tile.
#[cfg(target_arch = "x86_64")]
macro_rules! vector_tiles {
    ($name:ident, $features:literal, $mr:literal, $lanes:literal,
     $zero:ident, $load:ident, $store:ident, $spread:ident, $multiply_add:ident, $add:ident) => {
        mod $name {
            use std::arch::x86_64::*;

            use super::{Packed, Rows, tile_rows};

            const NR: usize = 2 * $lanes;

            walk!($features, $mr, NR);

            /// `R` rows of `lhs` (each `k` long) down one panel, into (or, if `ADD`, onto) rows of `dst` that lie `stride`
            /// apart. All loops but the one over `k` are unrolled, so that the sums never leave their registers.
            #[target_feature(enable = $features)]
            fn tile<const R: usize, const ADD: bool>(lhs: &[f32], panel: &[f32], k: usize, dst: &mut [f32], stride: usize) {
                assert!(lhs.len() >= R * k && panel.len() == NR * k && dst.len() >= (R - 1) * stride + NR);
                let mut sums = [[$zero(); 2]; R];
                let (a, mut b) = (lhs.as_ptr(), panel.as_ptr());
                for i in 0..k {
                    // SAFETY: the panel holds `k` rows of two vectors, and `lhs` `R` rows of `k` numbers.
                    unsafe {
                        let (left, right) = ($load(b), $load(b.add($lanes)));
                        b = b.add(NR);
                        for r in 0..R {
                            let a = $spread(*a.add(r * k + i));
                            sums[r][0] = $multiply_add(a, left, sums[r][0]);
                            sums[r][1] = $multiply_add(a, right, sums[r][1]);
                        }
                    }
                }
                for r in 0..R {
                    // SAFETY: `dst` holds `R` rows of two vectors.
                    unsafe {
                        let left = dst.as_mut_ptr().add(r * stride);
                        let right = left.add($lanes);
                        let [mut x, mut y] = sums[r];
                        if ADD {
                            (x, y) = ($add($load(left), x), $add($load(right), y));
                        }
                        $store(left, x);
                        $store(right, y);
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
    12,
    16,
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
    6,
    8,
    _mm256_setzero_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps
);

mod portable {
    use super::{Packed, Rows, tile_rows};

    const NR: usize = 8;

    walk!(, 8, NR);

    /// As its vectorised sisters.
    fn tile<const R: usize, const ADD: bool>(lhs: &[f32], panel: &[f32], k: usize, dst: &mut [f32], stride: usize) {
        let mut sums = [[0.0_f32; NR]; R];
        for (i, b) in panel.chunks_exact(NR).enumerate() {
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = lhs[r * k + i];
                sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
            }
        }
        for (dst, sums) in dst.chunks_mut(stride).zip(&sums) {
            for (to, sum) in dst.iter_mut().zip(sums) {
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
