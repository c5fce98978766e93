//! Attention of one query over one row's keys, forward and backward, on slices.
//!
//! Keys are `[S, A]` and memory is `[S, M]`, real steps only; a query is `[A]`.

use crate::vector::{exp, multiply_add, multiversion, tanh};

/// Numbers that a loop keeps in registers at once.
const LANES: usize = 16;

multiversion! {
    /// `out_s = query · rows_s`.
    pub(crate) fn dots(query: &[f32], rows: &[f32], out: &mut [f32]) = dots_body
}
#[inline(always)]
fn dots_body<const FMA: bool>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    let a = query.len();
    for (s, out) in out.iter_mut().enumerate() {
        let row = &rows[s * a..][..a];
        let mut sums = [[0.0_f32; LANES]; 2];
        let (mut x, mut y) = (query.chunks_exact(2 * LANES), row.chunks_exact(2 * LANES));
        for (x, y) in x.by_ref().zip(y.by_ref()) {
            for (half, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    let at = half * LANES + j;
                    *sum = multiply_add::<FMA>(x[at], y[at], *sum);
                }
            }
        }
        let rest: f32 = x.remainder().iter().zip(y.remainder()).map(|(x, y)| x * y).sum();
        *out = (0..LANES).map(|j| sums[0][j] + sums[1][j]).sum::<f32>() + rest;
    }
}

multiversion! {
    /// `out += Σ_s weights_s · rows_s`.
    pub(crate) fn weighted_sum(weights: &[f32], rows: &[f32], out: &mut [f32]) = weighted_sum_body
}
#[inline(always)]
fn weighted_sum_body<const FMA: bool>(weights: &[f32], rows: &[f32], out: &mut [f32]) {
    const WIDE: usize = 4 * LANES;
    let width = out.len();
    let mut at = 0;
    while at + WIDE <= width {
        let mut sums = [0.0_f32; WIDE];
        sums.copy_from_slice(&out[at..at + WIDE]);
        for (s, &weight) in weights.iter().enumerate() {
            let row = &rows[s * width + at..][..WIDE];
            for j in 0..WIDE {
                sums[j] = multiply_add::<FMA>(weight, row[j], sums[j]);
            }
        }
        out[at..at + WIDE].copy_from_slice(&sums);
        at += WIDE;
    }
    for (s, &weight) in weights.iter().enumerate() {
        for (out, &x) in out[at..].iter_mut().zip(&rows[s * width + at..(s + 1) * width]) {
            *out = multiply_add::<FMA>(weight, x, *out);
        }
    }
}

multiversion! {
    /// `out_s = energy · tanh(query + keys_s)`.
    pub(crate) fn energies(query: &[f32], keys: &[f32], energy: &[f32], out: &mut [f32]) = energies_body
}
#[inline(always)]
fn energies_body<const FMA: bool>(query: &[f32], keys: &[f32], energy: &[f32], out: &mut [f32]) {
    let a = query.len();
    // Arrays, so that the compiler sees whole vectors and checks no bound.
    let ((query, query_rest), (energy, energy_rest)) = (query.as_chunks::<LANES>(), energy[..a].as_chunks::<LANES>());
    for (s, out) in out.iter_mut().enumerate() {
        let (key, key_rest) = keys[s * a..][..a].as_chunks::<LANES>();
        let mut sums = [0.0_f32; LANES];
        for ((query, key), energy) in query.iter().zip(key).zip(energy) {
            for j in 0..LANES {
                sums[j] = multiply_add::<FMA>(energy[j], tanh::<FMA>(query[j] + key[j]), sums[j]);
            }
        }
        *out = sums.iter().sum();
        for ((query, key), energy) in query_rest.iter().zip(key_rest).zip(energy_rest) {
            *out = multiply_add::<FMA>(*energy, tanh::<FMA>(query + key), *out);
        }
    }
}

multiversion! {
    /// From the gradient `d` of [`energies`]: adds to those of query, keys and energy.
    pub(crate) fn energies_backward(
        d: &[f32], query: &[f32], keys: &[f32], energy: &[f32], dquery: &mut [f32], dkeys: &mut [f32], denergy: &mut [f32],
    ) = energies_backward_body
}
#[inline(always)]
fn energies_backward_body<const FMA: bool>(
    d: &[f32],
    query: &[f32],
    keys: &[f32],
    energy: &[f32],
    dquery: &mut [f32],
    dkeys: &mut [f32],
    denergy: &mut [f32],
) {
    let a = query.len();
    let (energy, dquery, denergy) = (&energy[..a], &mut dquery[..a], &mut denergy[..a]);
    for (s, &d) in d.iter().enumerate() {
        let (key, dkey) = (&keys[s * a..][..a], &mut dkeys[s * a..][..a]);
        for i in 0..a {
            let e = tanh::<FMA>(query[i] + key[i]);
            let inner = d * energy[i] * (1.0 - e * e);
            dquery[i] += inner;
            dkey[i] += inner;
            denergy[i] = multiply_add::<FMA>(d, e, denergy[i]);
        }
    }
}

multiversion! {
    /// Scores become weights that sum to 1.
    pub(crate) fn softmax(row: &mut [f32]) = softmax_body
}
#[inline(always)]
fn softmax_body<const FMA: bool>(row: &mut [f32]) {
    let top = row.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    let mut sum = 0.0;
    for x in row.iter_mut() {
        *x = exp::<FMA>(*x - top);
        sum += *x;
    }
    let scale = 1.0 / sum;
    row.iter_mut().for_each(|x| *x *= scale);
}

/// From the gradient of the weights, in place, that of the scores: `w ⊙ (d − w · d)`.
pub(crate) fn softmax_backward(weights: &[f32], d: &mut [f32]) {
    let mean: f32 = weights.iter().zip(d.iter()).map(|(w, d)| w * d).sum();
    d.iter_mut().zip(weights).for_each(|(d, w)| *d = w * (*d - mean));
}
