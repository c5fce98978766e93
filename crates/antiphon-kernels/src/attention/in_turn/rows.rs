//! What a row hears and how it is bent, forward and backward, on slices: keys are `[S, A]`, features `[F, S]`, real steps only.

use crate::vector::{multiply_add, multiversion, tanh};

/// Numbers that a loop keeps in registers at once.
pub(super) const LANES: usize = 16;

/// Steps that hear at once, so that what a feature adds is read but once for all of them.
const TOGETHER: usize = 4;

multiversion! {
    /// `out_i += Σ_j filter_j · x_{i+j}`, for as many `i` as `x` has: all but those of the filter's rest.
    pub(super) fn correlate(x: &[f32], filter: &[f32], out: &mut [f32]) = correlate_body
}
#[inline(always)]
fn correlate_body<const FMA: bool>(x: &[f32], filter: &[f32], out: &mut [f32]) {
    assert!(x.len() + 1 == filter.len() + out.len());
    let (whole, rest) = out.as_chunks_mut::<LANES>();
    let behind = whole.len() * LANES;
    for (i, out) in whole.iter_mut().enumerate() {
        let mut sums = *out;
        for (j, &weight) in filter.iter().enumerate() {
            let x = &x[i * LANES + j..][..LANES];
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = multiply_add::<FMA>(weight, *x, *sum);
            }
        }
        *out = sums;
    }
    for (i, out) in rest.iter_mut().enumerate() {
        for (weight, x) in filter.iter().zip(&x[behind + i..]) {
            *out = multiply_add::<FMA>(*weight, *x, *out);
        }
    }
}

multiversion! {
    /// `heard_s = keys_s + Σ_f features_fs weight_f`, for as many steps as there are keys; the features of a step lie `apart`.
    pub(super) fn hear(keys: &[f32], features: &[f32], apart: usize, weight: &[f32], a: usize, heard: &mut [f32]) = hear_body
}
#[inline(always)]
fn hear_body<const FMA: bool>(
    keys: &[f32],
    features: &[f32],
    apart: usize,
    weight: &[f32],
    a: usize,
    heard: &mut [f32],
) {
    let steps = keys.len() / a;
    let whole = steps / TOGETHER * TOGETHER;
    for s in (0..whole).step_by(TOGETHER) {
        let (keys, heard) = (&keys[s * a..][..TOGETHER * a], &mut heard[s * a..][..TOGETHER * a]);
        hear_together::<FMA, TOGETHER>(keys, &features[s..], apart, weight, a, heard);
    }
    for s in whole..steps {
        hear_together::<FMA, 1>(&keys[s * a..][..a], &features[s..], apart, weight, a, &mut heard[s * a..][..a]);
    }
}

#[inline(always)]
fn hear_together<const FMA: bool, const N: usize>(
    keys: &[f32],
    features: &[f32],
    apart: usize,
    weight: &[f32],
    a: usize,
    heard: &mut [f32],
) {
    let whole = a / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let mut sums = [[0.0_f32; LANES]; N];
        for (n, sums) in sums.iter_mut().enumerate() {
            sums.copy_from_slice(&keys[n * a + at..][..LANES]);
        }
        for (f, weight) in weight.chunks_exact(a).enumerate() {
            let weight = &weight[at..][..LANES];
            for (n, sums) in sums.iter_mut().enumerate() {
                let feature = features[f * apart + n];
                for j in 0..LANES {
                    sums[j] = multiply_add::<FMA>(feature, weight[j], sums[j]);
                }
            }
        }
        for (n, sums) in sums.iter().enumerate() {
            heard[n * a + at..][..LANES].copy_from_slice(sums);
        }
    }
    for at in whole..a {
        for n in 0..N {
            let mut sum = keys[n * a + at];
            for (f, weight) in weight.chunks_exact(a).enumerate() {
                sum = multiply_add::<FMA>(features[f * apart + n], weight[at], sum);
            }
            heard[n * a + at] = sum;
        }
    }
}

multiversion! {
    /// From the gradient `d` of scores `energy · tanh(query + heard_s)`: adds to those of query, keys and energy, and leaves that of
    /// what was heard in its place.
    pub(super) fn scores_backward(
        d: &[f32], query: &[f32], energy: &[f32], heard: &mut [f32], dquery: &mut [f32], dkeys: &mut [f32], denergy: &mut [f32],
    ) = scores_backward_body
}
#[inline(always)]
fn scores_backward_body<const FMA: bool>(
    d: &[f32],
    query: &[f32],
    energy: &[f32],
    heard: &mut [f32],
    dquery: &mut [f32],
    dkeys: &mut [f32],
    denergy: &mut [f32],
) {
    let a = query.len();
    let (energy, dquery, denergy) = (&energy[..a], &mut dquery[..a], &mut denergy[..a]);
    for (s, &d) in d.iter().enumerate() {
        let (heard, dkey) = (&mut heard[s * a..][..a], &mut dkeys[s * a..][..a]);
        for i in 0..a {
            let e = tanh::<FMA>(query[i] + heard[i]);
            let inner = d * energy[i] * (1.0 - e * e);
            heard[i] = inner;
            dquery[i] += inner;
            dkey[i] += inner;
            denergy[i] = multiply_add::<FMA>(d, e, denergy[i]);
        }
    }
}
