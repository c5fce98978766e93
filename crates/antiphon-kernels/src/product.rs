//! Matrix products on slices, by the `gemm` crate.

use std::mem::MaybeUninit;

use crate::memory::overwritten;

/// A matrix inside a buffer: where it starts, and how far apart its rows and columns lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strides {
    pub(crate) start: usize,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

impl Strides {
    /// Rows of `width` numbers that follow each other.
    pub(crate) const fn rows(width: usize) -> Self {
        Self { start: 0, row: width, column: 1 }
    }

    /// The transpose of a matrix whose rows of `width` numbers follow each other.
    pub(crate) const fn transposed(width: usize) -> Self {
        Self { start: 0, row: 1, column: width }
    }

    /// The same, further into the buffer.
    pub(crate) const fn at(self, start: usize) -> Self {
        Self { start, ..self }
    }

    /// The index behind the last element of `rows` × `columns`.
    const fn end(self, rows: usize, columns: usize) -> usize {
        self.start + (rows - 1) * self.row + (columns - 1) * self.column + 1
    }
}

/// `dst[m,n] = (if add { dst } else { 0 }) + lhs[m,k] · rhs[k,n]`.
///
/// Large products use all threads; the inner dimension is never split, so their number does not change the bits.
#[allow(clippy::too_many_arguments)]
pub(crate) fn product(
    dims: [usize; 3],
    dst: &mut [f32],
    to: Strides,
    add: bool,
    lhs: &[f32],
    left: Strides,
    rhs: &[f32],
    right: Strides,
) {
    // SAFETY: `dst` holds numbers, and gets numbers.
    unsafe { multiply(dims, overwritten(dst), to, add, lhs, left, rhs, right) }
}

/// `dst[m,n] = lhs[m,k] · rhs[k,n]`, all of which is written.
pub(crate) fn product_into(
    dims: [usize; 3],
    dst: &mut [MaybeUninit<f32>],
    to: Strides,
    lhs: &[f32],
    left: Strides,
    rhs: &[f32],
    right: Strides,
) {
    // SAFETY: nothing is added to.
    unsafe { multiply(dims, dst, to, false, lhs, left, rhs, right) }
}

/// # Safety
/// `dst` is written, if `add`.
#[allow(clippy::too_many_arguments)]
unsafe fn multiply(
    [m, n, k]: [usize; 3],
    dst: &mut [MaybeUninit<f32>],
    to: Strides,
    add: bool,
    lhs: &[f32],
    left: Strides,
    rhs: &[f32],
    right: Strides,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(to.end(m, n) <= dst.len(), "the product does not fit its destination");
    if k == 0 {
        if !add {
            for i in 0..m {
                for j in 0..n {
                    dst[to.start + i * to.row + j * to.column].write(0.0);
                }
            }
        }
        return;
    }
    assert!(left.end(m, k) <= lhs.len() && right.end(k, n) <= rhs.len(), "an operand is too short");
    // The same threshold as Burn's own products.
    let parallel = m * n * k >= 192 * 192 * 192;
    // SAFETY: the bounds of all three matrices were checked above, `dst` is borrowed exclusively, and it is read if `add` alone.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr().add(to.start).cast::<f32>(),
            to.column as isize,
            to.row as isize,
            add,
            lhs.as_ptr().add(left.start),
            left.column as isize,
            left.row as isize,
            rhs.as_ptr().add(right.start),
            right.column as isize,
            right.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            if parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_follow_the_strides() {
        let a: Vec<f32> = (0..6).map(|i| i as f32).collect(); // 2×3
        let b: Vec<f32> = (0..6).map(|i| (i * i) as f32).collect(); // 3×2
        let mut c = vec![1.0; 4];
        product([2, 2, 3], &mut c, Strides::rows(2), true, &a, Strides::rows(3), &b, Strides::rows(2));
        assert_eq!(c, [37.0, 60.0, 97.0, 165.0]);
        product([2, 2, 3], &mut c, Strides::rows(2), false, &a, Strides::rows(3), &a, Strides::transposed(3));
        assert_eq!(c, [5.0, 14.0, 14.0, 50.0]);
        product([2, 2, 0], &mut c, Strides::rows(2), false, &a, Strides::rows(0), &b, Strides::rows(2));
        assert_eq!(c, [0.0; 4]);
    }
}
