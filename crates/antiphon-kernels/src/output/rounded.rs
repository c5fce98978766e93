//! Vectors rounded to integers of 16 bits.

use crate::packed::PAIRS;
use crate::vector::multiversion;

/// How a vector was rounded to integers of 16 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounded {
    /// What one unit is worth.
    pub(super) unit: f32,
    /// The length of the rounded vector, and of what rounding took away; infinite, if some number is none.
    pub(super) norm: f32,
    pub(super) error: f32,
}

impl Rounded {
    /// Rounds `x` to integers in `pairs`, as fine as can be while no sum of products with another such vector leaves 32 bits:
    /// what is summed as integers is shorter than `2^15.5` in both.
    pub(super) fn new(x: &[f32], pairs: &mut [i32]) -> Self {
        const LONGEST: f32 = 46_340.0;
        const LARGEST: f32 = 32_767.0;
        let (squares, longest, peak) = size(x);
        let norm = squares.sqrt();
        if !norm.is_finite() || norm == 0.0 {
            pairs.fill(0);
            let size = if norm == 0.0 { 0.0 } else { f32::INFINITY };
            return Self { unit: 0.0, norm: size, error: size };
        }
        // Rounding adds up to half a unit in each direction.
        let room = LONGEST * (1.0 - 1e-5) - 0.5 * (2.0 * PAIRS as f32).sqrt();
        let scale = (room / longest.sqrt()).min(LARGEST / peak);
        let error = round(x, scale, pairs).sqrt();
        Self { unit: 1.0 / scale, norm: norm + error, error }
    }
}

multiversion! {
    /// The sum of squares, the largest one of `2 · PAIRS` numbers that are summed together, and the largest magnitude.
    fn size(x: &[f32]) -> (f32, f32, f32) = size_body
}
#[inline(always)]
fn size_body<const FMA: bool>(x: &[f32]) -> (f32, f32, f32) {
    let (mut all, mut longest, mut peaks) = (0.0_f32, 0.0_f32, [0.0_f32; 16]);
    let (chunks, rest) = x.as_chunks::<{ 2 * PAIRS }>();
    for chunk in chunks {
        let mut squares = [0.0_f32; 16];
        for half in chunk.as_chunks::<16>().0 {
            for j in 0..16 {
                squares[j] += half[j] * half[j];
                peaks[j] = peaks[j].max(half[j].abs());
            }
        }
        let squares: f32 = squares.iter().sum();
        all += squares;
        longest = longest.max(squares);
    }
    let squares: f32 = rest.iter().map(|x| x * x).sum();
    let peak = peaks.into_iter().chain(rest.iter().map(|x| x.abs())).fold(0.0, f32::max);
    (all + squares, longest.max(squares), peak)
}

multiversion! {
    /// The nearest integers of `x · scale`, in pairs; → the sum of squares of what was taken away from `x`.
    fn round(x: &[f32], scale: f32, pairs: &mut [i32]) -> f32 = round_body
}
#[inline(always)]
fn round_body<const FMA: bool>(x: &[f32], scale: f32, pairs: &mut [i32]) -> f32 {
    const NEAREST: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves the nearest integer in the low bits
    let unit = 1.0 / scale;
    let nearest = |x: f32| {
        let shifted = x * scale + NEAREST;
        (shifted.to_bits(), x - (shifted - NEAREST) * unit)
    };
    let pair = |x: [f32; 2]| {
        let ((low, a), (high, b)) = (nearest(x[0]), nearest(x[1]));
        ((low & 0xFFFF | high << 16) as i32, a * a + b * b)
    };
    let (whole, single) = x.as_chunks::<2>();
    let (blocks, rest) = whole.as_chunks::<8>();
    let (block_pairs, rest_pairs) = pairs.split_at_mut(blocks.len() * 8);
    let mut taken = [0.0_f32; 8];
    for (x, pairs) in blocks.iter().zip(block_pairs.as_chunks_mut::<8>().0) {
        for j in 0..8 {
            let (rounded, error) = pair(x[j]);
            pairs[j] = rounded;
            taken[j] += error;
        }
    }
    let mut sum: f32 = taken.iter().sum();
    // A last number without a partner has a zero.
    let rest = rest.iter().copied().chain(single.iter().map(|&x| [x, 0.0]));
    for (x, to) in rest.zip(rest_pairs) {
        let (rounded, error) = pair(x);
        *to = rounded;
        sum += error;
    }
    sum
}
