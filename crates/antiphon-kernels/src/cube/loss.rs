//! The output layer's loss on a GPU: of a chunk of rows a product for the logits, one pass that leaves their gradient in their
//! place, one that sums its columns, and the products for the gradients of states and weight.
//!
//! The targets are brought to the device once, and nothing comes back.

use std::ops::Range;
use std::sync::Arc;

use antiphon_core::TokenId;
use burn::backend::Cube;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use cubecl::server::Handle;

use super::product::{Matrix, product, product_into};
use super::sums::{largest, total};
use super::{UNITS, cubes, dense, into_owned, is_f32, unwritten};
use crate::loss::{LossOps, portable_gradients, portable_scaled, portable_scores};

/// Logits of a chunk: 64 MiB.
const CHUNK: usize = 1 << 24;

/// Rows of a chunk, a cube each.
const MOST_ROWS: usize = 65_535;

/// Columns that a cube sums, each in so many shares.
const COLUMNS: usize = 32;
const SHARES: usize = UNITS / COLUMNS;

/// Below all logits; of an infinity a shader's compiler may think that there is none.
const LEAST: f32 = -3.0e38;

/// A cube a row of logits `[m, v]` without bias, the first of which is row `first` of all: leaves its loss with a target of `sharp` for
/// the right token and `even` for each, and the loss's gradient in the place of the logits.
#[cube(launch_unchecked)]
fn judge_kernel(
    logits: &mut [f32],
    bias: &[f32],
    targets: &[u32],
    losses: &mut [f32],
    v: u32,
    first: u32,
    sharp: f32,
    even: f32,
) {
    let v = v as usize;
    let row = CUBE_POS_X as usize;
    let start = row * v;
    let place = first as usize + row;
    let target = targets[place] as usize;
    let mut top = f32::new(LEAST);
    let mut j = UNIT_POS as usize;
    while j < v {
        let x = logits[start + j] + bias[j];
        top = select(x > top, x, top);
        j += UNITS;
    }
    let top = largest(top);
    let own = logits[start + target] + bias[target] - top;
    let mut exponentials = 0.0f32;
    let mut sum = 0.0f32;
    let mut j = UNIT_POS as usize;
    while j < v {
        let x = logits[start + j] + bias[j] - top;
        exponentials += x.exp();
        sum += x;
        j += UNITS;
    }
    let z = total(exponentials);
    let sum = total(sum);
    let mut j = UNIT_POS as usize;
    while j < v {
        let p = (logits[start + j] + bias[j] - top).exp() / z;
        logits[start + j] = p - even - select(j == target, sharp, 0.0f32);
        j += UNITS;
    }
    if UNIT_POS == 0 {
        losses[place] = z.ln() - sharp * own - even * sum;
    }
}

/// A cube a row of logits, as above: leaves the logarithm of its target's probability, and `n` further the largest one.
#[cube(launch_unchecked)]
fn score_kernel(logits: &[f32], bias: &[f32], targets: &[u32], scores: &mut [f32], v: u32, first: u32, n: u32) {
    let v = v as usize;
    let row = CUBE_POS_X as usize;
    let start = row * v;
    let mut top = f32::new(LEAST);
    let mut j = UNIT_POS as usize;
    while j < v {
        let x = logits[start + j] + bias[j];
        top = select(x > top, x, top);
        j += UNITS;
    }
    let top = largest(top);
    let mut exponentials = 0.0f32;
    let mut j = UNIT_POS as usize;
    while j < v {
        exponentials += (logits[start + j] + bias[j] - top).exp();
        j += UNITS;
    }
    let z = total(exponentials);
    if UNIT_POS == 0 {
        let place = first as usize + row;
        let target = targets[place] as usize;
        scores[place] = logits[start + target] + bias[target] - top - z.ln();
        scores[place + n as usize] = -z.ln();
    }
}

/// The sums of the columns of `d` `[m, v]`, [`COLUMNS`] a cube, added to `sums` if that is `more`; and by a last cube, if there is one more,
/// the sum of all `n` losses.
#[cube(launch_unchecked)]
fn settle_kernel(d: &[f32], losses: &[f32], sums: &mut [f32], loss: &mut [f32], m: u32, v: u32, n: u32, more: u32) {
    let (m, v) = (m as usize, v as usize);
    let first = CUBE_POS_X as usize * COLUMNS;
    let unit = UNIT_POS as usize;
    if first < v {
        let mut shared = Shared::<[f32]>::new_slice(UNITS);
        let column = first + unit % COLUMNS;
        let mut a = 0.0f32;
        let mut b = 0.0f32;
        let mut c = 0.0f32;
        let mut e = 0.0f32;
        if column < v {
            let mut row = unit / COLUMNS;
            while row + comptime!(3 * SHARES) < m {
                a += d[row * v + column];
                b += d[(row + SHARES) * v + column];
                c += d[(row + comptime!(2 * SHARES)) * v + column];
                e += d[(row + comptime!(3 * SHARES)) * v + column];
                row += comptime!(4 * SHARES);
            }
            while row < m {
                a += d[row * v + column];
                row += SHARES;
            }
        }
        shared[unit] = (a + b) + (c + e);
        sync_cube();
        if unit < COLUMNS && column < v {
            let mut sum = 0.0f32;
            #[unroll]
            for share in 0..SHARES {
                sum += shared[unit + comptime!(share * COLUMNS)];
            }
            if more == 1 {
                sum += sums[column];
            }
            sums[column] = sum;
        }
    } else {
        let mut sum = 0.0f32;
        let mut i = unit;
        while i < n as usize {
            sum += losses[i];
            i += UNITS;
        }
        let sum = total(sum);
        if unit == 0 {
            loss[0] = sum;
        }
    }
}

/// Three arrays times one number, in place.
#[cube(launch_unchecked)]
fn scale_kernel(a: &mut [f32], b: &mut [f32], c: &mut [f32], by: &[f32], of_a: u32, of_b: u32, of_c: u32) {
    let by = by[0];
    let (of_a, of_b, of_c) = (of_a as usize, of_b as usize, of_c as usize);
    let i = ABSOLUTE_POS;
    if i < of_a {
        let x = a[i];
        a[i] = x * by;
    } else if i < of_a + of_b {
        let x = b[i - of_a];
        b[i - of_a] = x * by;
    } else if i < of_a + of_b + of_c {
        let x = c[i - of_a - of_b];
        c[i - of_a - of_b] = x * by;
    }
}

/// The inputs of the operation, on the device.
struct Inputs {
    /// `[N, H]`.
    states: CubeTensor,
    /// `[V, H]`.
    weight: CubeTensor,
    /// `[V]`.
    bias: CubeTensor,
    /// `[N]`.
    targets: Handle,
    n: usize,
    v: usize,
    h: usize,
}

impl Inputs {
    fn new(states: CubeTensor, weight: CubeTensor, bias: CubeTensor, targets: &[TokenId]) -> Self {
        let (n, v, h) = (targets.len(), weight.meta.shape()[0], weight.meta.shape()[1]);
        let targets = states.client.create_from_slice(u32::as_bytes(targets));
        Self { states: dense(states), weight: dense(weight), bias: dense(bias), targets, n, v, h }
    }

    fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        let (n, size) = (self.n, (CHUNK / self.v).clamp(1, MOST_ROWS));
        (0..n).step_by(size).map(move |first| first..n.min(first + size))
    }

    /// The states of a chunk, `[m, H]`.
    fn rows(&self, chunk: &Range<usize>) -> Matrix<'_> {
        Matrix { first: chunk.start * self.h, ..Matrix::rows(&self.states, self.h) }
    }

    /// `[m, V]`, without bias.
    fn logits(&self, chunk: &Range<usize>) -> CubeTensor {
        product([chunk.len(), self.h, self.v], self.rows(chunk), Matrix::transposed(&self.weight, self.h))
    }

    fn targets(&self) -> BufferArg {
        // SAFETY: so many numbers were written to it.
        unsafe { BufferArg::from_raw_parts(self.targets.clone(), self.n) }
    }
}

/// The loss `[1]`, and the gradients of states, weight and bias if they are wanted.
fn cross_entropy(inputs: &Inputs, smoothing: f32, wanted: bool) -> (CubeTensor, Option<[CubeTensor; 3]>) {
    let &Inputs { n, v, h, ref states, ref weight, .. } = inputs;
    let client = &states.client;
    let (losses, loss, db) = (unwritten(states, [n]), unwritten(states, [1]), unwritten(states, [v]));
    let ds = wanted.then(|| unwritten(states, [n, h]));
    let mut dw = None;
    for chunk in inputs.chunks() {
        let m = chunk.len();
        let d = inputs.logits(&chunk);
        let (cubes, units) = (CubeCount::Static(m as u32, 1, 1), CubeDim::new_1d(UNITS as u32));
        // SAFETY: a cube has one of the `m` rows, its units stay below `v`, and targets lie below `v`.
        unsafe {
            judge_kernel::launch_unchecked(
                client,
                cubes,
                units,
                d.clone().into_buffer_arg(),
                inputs.bias.clone().into_buffer_arg(),
                inputs.targets(),
                losses.clone().into_buffer_arg(),
                v as u32,
                chunk.start as u32,
                1.0 - smoothing,
                smoothing / v as f32,
            );
        }
        let of_losses = u32::from(chunk.end == n);
        let cubes = CubeCount::Static(v.div_ceil(COLUMNS) as u32 + of_losses, 1, 1);
        // SAFETY: a unit stays below `m` rows and `v` columns, or below `n` losses.
        unsafe {
            settle_kernel::launch_unchecked(
                client,
                cubes,
                units,
                d.clone().into_buffer_arg(),
                losses.clone().into_buffer_arg(),
                db.clone().into_buffer_arg(),
                loss.clone().into_buffer_arg(),
                m as u32,
                v as u32,
                n as u32,
                u32::from(chunk.start > 0),
            );
        }
        if let Some(ds) = &ds {
            let place = [chunk.start * h, h];
            product_into([m, v, h], Matrix::rows(&d, v), Matrix::rows(weight, h), ds, place);
            let part = product([v, m, h], Matrix::transposed(&d, v), inputs.rows(&chunk));
            dw = Some(match dw {
                None => part,
                Some(sum) => Cube::float_add(sum, part),
            });
        }
    }
    (loss, ds.zip(dw).map(|(ds, dw)| [ds, dw, db]))
}

impl LossOps for Cube {
    fn cross_entropy(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
        smoothing: f32,
    ) -> FloatTensor<Self> {
        if !is_f32(&states) {
            return portable_gradients::<Self>(states, weight, bias, &targets, smoothing).0;
        }
        cross_entropy(&Inputs::new(states, weight, bias, &targets), smoothing, false).0
    }

    fn cross_entropy_gradients(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
        smoothing: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if !is_f32(&states) {
            return portable_gradients::<Self>(states, weight, bias, &targets, smoothing);
        }
        let (loss, gradients) = cross_entropy(&Inputs::new(states, weight, bias, &targets), smoothing, true);
        let [ds, dw, db] = gradients.expect("there is a token");
        (loss, ds, dw, db)
    }

    fn scaled(
        states: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        by: CubeTensor,
        wanted: [bool; 3],
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        if !is_f32(&states) {
            return portable_scaled::<Self>(states, weight, bias, by, wanted);
        }
        let [a, b, c] = [states, weight, bias].map(|gradient| into_owned(dense(gradient)));
        let [of_a, of_b, of_c] = [&a, &b, &c].map(|gradient| gradient.meta.num_elements());
        // SAFETY: a unit stays below the lengths.
        unsafe {
            scale_kernel::launch_unchecked(
                &a.client,
                cubes(of_a + of_b + of_c),
                CubeDim::new_1d(UNITS as u32),
                a.clone().into_buffer_arg(),
                b.clone().into_buffer_arg(),
                c.clone().into_buffer_arg(),
                dense(by).into_buffer_arg(),
                of_a as u32,
                of_b as u32,
                of_c as u32,
            );
        }
        (a, b, c)
    }

    fn token_scores(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
    ) -> FloatTensor<Self> {
        if !is_f32(&states) {
            return portable_scores::<Self>(states, weight, bias, &targets);
        }
        let inputs = Inputs::new(states, weight, bias, &targets);
        let scores = unwritten(&inputs.states, [2, inputs.n]);
        for chunk in inputs.chunks() {
            let logits = inputs.logits(&chunk);
            // SAFETY: a cube has one of the chunk's rows, its units stay below `v`, and targets lie below `v`.
            unsafe {
                score_kernel::launch_unchecked(
                    &scores.client,
                    CubeCount::Static(chunk.len() as u32, 1, 1),
                    CubeDim::new_1d(UNITS as u32),
                    logits.into_buffer_arg(),
                    inputs.bias.clone().into_buffer_arg(),
                    inputs.targets(),
                    scores.clone().into_buffer_arg(),
                    inputs.v as u32,
                    chunk.start as u32,
                    inputs.n as u32,
                );
            }
        }
        scores
    }
}
