//! Products with a weight that is packed once and used at every step of a sequence.
//!
//! A general product packs its operands at each call, which costs a recurrent layer as much as the product itself when
//! few rows meet a large weight. Here the weight lies in panels of `NR` columns, `[k, NR]` each, so that a tile of `MR`
//! rows by `NR` columns stays in registers while it walks down a panel (Goto and van de Geijn 2008, without their
//! blocking of `k`: a panel fits the second-level cache for every width in use).

use rayon::prelude::*;

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
        let mut panels = vec![0.0; n.div_ceil(width) * width * k];
        panels.par_chunks_mut((width * k).max(1)).enumerate().for_each(|(p, panel)| {
            let columns = width.min(n - p * width);
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

/// Declares `fn walk`: panel by panel, `$mr` rows at a time, the last ones in tiles of 4, 2 and 1.
macro_rules! walk {
    ($($features:literal)?, $mr:literal, $nr:expr) => {
        $(#[target_feature(enable = $features)])?
        #[allow(unreachable_patterns)] // where `$mr` is 4 itself
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
            let m = lhs.len() / k;
            for (p, panel) in packed.panels.chunks_exact($nr * k).enumerate() {
                let columns = $nr.min(n - p * $nr);
                let mut row = 0;
                while row < m {
                    let (lhs, to) = (&lhs[row * k..], &mut dst[row * n + p * $nr..]);
                    let taken = match m - row {
                        $mr.. => { tile::<$mr>(lhs, panel, k, to, n, columns, add); $mr }
                        4.. => { tile::<4>(lhs, panel, k, to, n, columns, add); 4 }
                        2.. => { tile::<2>(lhs, panel, k, to, n, columns, add); 2 }
                        _ => { tile::<1>(lhs, panel, k, to, n, columns, add); 1 }
                    };
                    row += taken;
                }
            }
        }
    };
}

/// Declares `walk` and its tile for an instruction set with two vectors of `$lanes` numbers a row of a tile.
#[cfg(target_arch = "x86_64")]
macro_rules! vector_tiles {
    ($name:ident, $features:literal, $vector:ident, $mr:literal, $lanes:literal,
     $zero:ident, $load:ident, $store:ident, $spread:ident, $multiply_add:ident, $add:ident) => {
        mod $name {
            use std::arch::x86_64::*;

            use super::{Packed, Rows};

            const NR: usize = 2 * $lanes;
            type Vector = $vector;

            walk!($features, $mr, NR);

            /// `R` rows of `lhs` (each `k` long) down one panel, into rows of `dst` that lie `stride` apart.
            #[target_feature(enable = $features)]
            fn tile<const R: usize>(
                lhs: &[f32],
                panel: &[f32],
                k: usize,
                dst: &mut [f32],
                stride: usize,
                columns: usize,
                add: bool,
            ) {
                assert!(lhs.len() >= R * k && panel.len() == NR * k && dst.len() >= (R - 1) * stride + columns);
                let mut sums = [[$zero(); 2]; R];
                let (a, mut b) = (lhs.as_ptr(), panel.as_ptr());
                for i in 0..k {
                    // SAFETY: the panel holds `k` rows of two vectors, and `lhs` `R` rows of `k` numbers.
                    unsafe {
                        let (left, right) = ($load(b), $load(b.add($lanes)));
                        b = b.add(NR);
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let a = $spread(*a.add(r * k + i));
                            sums[0] = $multiply_add(a, left, sums[0]);
                            sums[1] = $multiply_add(a, right, sums[1]);
                        }
                    }
                }
                for (r, sums) in sums.iter().enumerate() {
                    let to = &mut dst[r * stride..][..columns];
                    if let Ok(whole) = <&mut [f32; NR]>::try_from(&mut *to) {
                        put(sums, whole, add);
                    } else {
                        let mut row = [0.0_f32; NR];
                        if add {
                            row[..columns].copy_from_slice(to);
                        }
                        put(sums, &mut row, add);
                        to.copy_from_slice(&row[..columns]);
                    }
                }
            }

            /// Puts two vectors in place of, or adds them to, what is there.
            #[target_feature(enable = $features)]
            #[inline]
            fn put(sums: &[Vector; 2], to: &mut [f32; NR], add: bool) {
                // SAFETY: `to` holds two vectors.
                unsafe {
                    for (half, &sum) in sums.iter().enumerate() {
                        let at = to.as_mut_ptr().add(half * $lanes);
                        $store(at, if add { $add($load(at), sum) } else { sum });
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
    __m512,
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
    __m256,
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
    use super::{Packed, Rows};

    const NR: usize = 8;

    walk!(, 4, NR);

    /// As its vectorised sisters.
    fn tile<const R: usize>(
        lhs: &[f32],
        panel: &[f32],
        k: usize,
        dst: &mut [f32],
        stride: usize,
        columns: usize,
        add: bool,
    ) {
        let mut sums = [[0.0_f32; NR]; R];
        for (i, b) in panel.chunks_exact(NR).enumerate() {
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = lhs[r * k + i];
                sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (to, sum) in dst[r * stride..][..columns].iter_mut().zip(sums) {
                *to = if add { *to + sum } else { *sum };
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
