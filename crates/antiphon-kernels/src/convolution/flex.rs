//! The convolution on slices, for the Flex CPU backend.
//!
//! Real steps are copied behind one another with zeros between the rows. A window is then a run of numbers, and windows of
//! neighbouring steps overlap, so that each of the three products reads them where they lie: no matrix of windows is made.
//! Inputs and outputs stand at the same places, but for the stride, so that
//!
//! - the output is the product of a row's windows with the weight;
//! - the input's gradient is a convolution of the output's, with the weight turned round; under a stride, one for each place
//!   between two windows;
//! - the weight's gradient is a single product of all windows, transposed, with the output's gradient, where the windows between
//!   two rows meet zeros.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use rayon::prelude::*;

use super::{Body, Convolution, ConvolutionOps};
use crate::flex::{dense, dummy, slice, wrap};
use crate::memory::{LINE, Unwritten, unwritten, written, zeros};
use crate::packed::{Columns, Packed, Windows};
use crate::product::{Strides, product_into};
use crate::vector::multiversion;
use crate::weight::{column_tasks, is_few, share};

impl ConvolutionOps for Flex {
    fn convolve(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        run: Convolution,
    ) -> FloatTensor<Self> {
        Self::forward(x, weight, bias, &run).0
    }
}

impl Body for Flex {
    fn forward(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, run: &Convolution) -> (FlexTensor, FlexTensor) {
        let (x, weight, bias) = (dense(x), dense(weight), dense(bias));
        let layout = Layout::new(run, std::array::from_fn(|i| x.shape()[i]), weight.shape()[1]);
        let padded = layout.pad_inputs(slice(&x));
        let y = layout.forward(&padded, slice(&weight), slice(&bias));
        let n = padded.len();
        (wrap(y, [layout.batch, layout.outputs, layout.k]), wrap(padded, [n]))
    }

    fn backward(
        gradient: FlexTensor,
        saved: FlexTensor,
        weight: FlexTensor,
        dims: [usize; 3],
        run: &Convolution,
        wanted: [bool; 3],
    ) -> [FlexTensor; 3] {
        let (gradient, weight) = (dense(gradient), dense(weight));
        let layout = Layout::new(run, dims, weight.shape()[1]);
        let dy = layout.pad_outputs(slice(&gradient));
        let (c, k) = (layout.c, layout.k);
        [
            if wanted[0] { wrap(layout.of_inputs(&dy, slice(&weight)), dims) } else { dummy() },
            if wanted[1] { wrap(layout.of_weight(slice(&saved), &dy), [run.width * c, k]) } else { dummy() },
            if wanted[2] { wrap(layout.of_bias(&dy), [k]) } else { dummy() },
        ]
    }
}

/// A row's real steps.
#[derive(Debug, Clone, Copy)]
struct Row {
    inputs: usize,
    outputs: usize,
    /// Where its first output step stands among padded ones; its first input step stands `stride` times as far.
    at: usize,
}

/// Where steps stand in padded buffers, and all sizes.
struct Layout {
    width: usize,
    stride: usize,
    left: usize,
    batch: usize,
    /// Steps of a row, padding included.
    inputs: usize,
    outputs: usize,
    c: usize,
    k: usize,
    rows: Vec<Row>,
    /// Output steps of zeros before, between and behind the rows: no window reaches from one row into another.
    gap: usize,
    /// Padded output steps.
    steps: usize,
}

impl Layout {
    fn new(run: &Convolution, [batch, inputs, c]: [usize; 3], k: usize) -> Self {
        let &Convolution { width, stride, .. } = run;
        let left = run.left();
        let gap = left.max(width - 1 - left).div_ceil(stride);
        let mut at = gap;
        let row = |inputs: usize| {
            let row = Row { inputs, outputs: run.steps(inputs), at };
            if inputs > 0 {
                at += row.outputs + gap;
            }
            row
        };
        let rows = run.real(batch, inputs).into_iter().map(row).collect();
        Self { width, stride, left, batch, inputs, outputs: run.steps(inputs), c, k, rows, gap, steps: at }
    }

    /// `[B, S, C]` → real steps at their places, `[steps · stride, C]`.
    fn pad_inputs(&self, x: &[f32]) -> Vec<f32> {
        let places = self.rows.iter().map(|row| (row.inputs, row.at * self.stride));
        pad(x, [self.inputs, self.c], places, self.steps * self.stride)
    }

    /// `[B, S', K]` → real steps at their places, `[steps, K]`.
    fn pad_outputs(&self, y: &[f32]) -> Vec<f32> {
        pad(y, [self.outputs, self.k], self.rows.iter().map(|row| (row.outputs, row.at)), self.steps)
    }

    /// `[B, S', K]`.
    fn forward(&self, padded: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let (c, k) = (self.c, self.k);
        let packed = Packed::new(weight, Strides::rows(k), [self.width * c, k]);
        let mut y = unwritten(self.batch * self.outputs * k);
        let rows = y.chunks_exact_mut((self.outputs * k).max(1)).zip(&self.rows);
        let runs = rows.filter_map(|(y, row)| {
            let real = zero_behind(y, row.outputs * k)?;
            Some(Run { from: (row.at * self.stride - self.left) * c, to: Columns::of(real, k) })
        });
        multiply(&packed, padded, self.stride * c, runs.collect(), Some(bias));
        // SAFETY: real steps are written by the products, the others here.
        unsafe { written(y) }
    }

    /// The gradient of the inputs, `[B, S, C]`.
    ///
    /// Input step `s` meets place `w` of a window in output step `(s + left − w) / stride`, where that is whole: of the input steps
    /// `place`, `place + stride`, … all meet the same places `w`, each of them `stride` further from the one before.
    fn of_inputs(&self, dy: &[f32], weight: &[f32]) -> Vec<f32> {
        let Self { width, stride, left, c, k, .. } = *self;
        let mut dx = unwritten(self.batch * self.inputs * c);
        let mut by_place: Vec<Vec<(&Row, Columns<'_>)>> = (0..stride).map(|_| Vec::new()).collect();
        for (dx, row) in dx.chunks_exact_mut((self.inputs * c).max(1)).zip(&self.rows) {
            if let Some(real) = zero_behind(dx, row.inputs * c) {
                let steps = Columns::of(real, c).interleaved(stride);
                by_place.iter_mut().zip(steps).for_each(|(of_place, steps)| of_place.push((row, steps)));
            }
        }
        for (place, rows) in by_place.into_iter().enumerate() {
            let first = (place + left) % stride;
            let count = width.saturating_sub(first).div_ceil(stride);
            if count == 0 {
                for (_, mut steps) in rows {
                    (0..steps.rows()).for_each(|step| steps.row(step).fill(MaybeUninit::new(0.0)));
                }
                continue;
            }
            let turned = turned(weight, [c, k], (0..count).rev().map(|i| first + i * stride).collect());
            let packed = Packed::new(&turned, Strides::transposed(count * k), [count * k, c]);
            // How far behind output step `j` that of place `first` in the window of the `j`-th of these input steps stands.
            let behind = (place + left - first) / stride;
            // A short row may lack the last of these places.
            let rows = rows.into_iter().filter(|(_, to)| to.rows() > 0);
            let runs = rows.map(|(row, to)| Run { from: (row.at + behind + 1 - count) * k, to });
            multiply(&packed, dy, k, runs.collect(), None);
        }
        // SAFETY: real steps are written for each place, the others by `zero_behind`.
        unsafe { written(dx) }
    }

    /// The gradient of the weight, `[W·C, K]`.
    fn of_weight(&self, padded: &[f32], dy: &[f32]) -> Vec<f32> {
        let (c, k, rows) = (self.c, self.k, self.width * self.c);
        if self.steps == self.gap {
            return zeros(rows * k);
        }
        let mut dw = unwritten(rows * k);
        // From the first real step to the last.
        let count = self.steps - 2 * self.gap;
        let windows = Strides { start: (self.gap * self.stride - self.left) * c, row: 1, column: self.stride * c };
        let gradient = Strides::rows(k).at(self.gap * k);
        product_into([rows, k, count], &mut dw, Strides::rows(k), padded, windows, dy, gradient);
        // SAFETY: the product writes all of it.
        unsafe { written(dw) }
    }

    /// The gradient of the bias, `[K]`.
    fn of_bias(&self, dy: &[f32]) -> Vec<f32> {
        let mut db = vec![0.0; self.k];
        let columns = self.k.div_ceil(rayon::current_num_threads()).next_multiple_of(LINE);
        db.par_chunks_mut(columns.max(1)).enumerate().for_each(|(task, db)| {
            for row in dy.chunks_exact(self.k) {
                add(db, &row[task * columns..][..db.len()]);
            }
        });
        db
    }
}

/// Rows of `[B, steps, width]`, of each as many steps as is said, at their places among `total` steps of zeros.
fn pad(
    from: &[f32],
    [steps, width]: [usize; 2],
    places: impl Iterator<Item = (usize, usize)>,
    total: usize,
) -> Vec<f32> {
    let mut padded = unwritten(total * width);
    let (mut left, mut done, mut parts) = (&mut padded[..], 0, Vec::new());
    for (row, (count, at)) in places.enumerate().filter(|(_, (count, _))| *count > 0) {
        let part;
        (part, left) = left.split_at_mut((at + count - done) * width);
        parts.push((part, &from[row * steps * width..][..count * width]));
        done = at + count;
    }
    left.fill(MaybeUninit::new(0.0));
    parts.into_par_iter().for_each(|(part, row)| {
        let (zeros, real) = part.split_at_mut(part.len() - row.len());
        zeros.fill(MaybeUninit::new(0.0));
        real.write_copy_of_slice(row);
    });
    // SAFETY: the parts and what is left are all of it, and are written.
    unsafe { written(padded) }
}

/// Writes zeros behind the first `real` numbers, which are still to be written; → these, if there are any.
fn zero_behind(numbers: &mut Unwritten, real: usize) -> Option<&mut Unwritten> {
    let (real, rest) = numbers.split_at_mut(real);
    rest.fill(MaybeUninit::new(0.0));
    (!real.is_empty()).then_some(real)
}

/// Some places of a weight `[W·C, K]` in this order, by channel: `[C, places · K]`.
fn turned(weight: &[f32], [c, k]: [usize; 2], places: Vec<usize>) -> Vec<f32> {
    let mut turned = unwritten(c * places.len() * k);
    turned.par_chunks_exact_mut((places.len() * k).max(1)).enumerate().for_each(|(channel, turned)| {
        for (to, place) in turned.chunks_exact_mut(k.max(1)).zip(&places) {
            to.write_copy_of_slice(&weight[(place * c + channel) * k..][..k]);
        }
    });
    // SAFETY: each channel writes all of its places.
    unsafe { written(turned) }
}

/// A row's windows, the first of which begins at `from`, and where their products with the weight go.
struct Run<'a> {
    from: usize,
    to: Columns<'a>,
}

/// Numbers of a weight that stay in a second-level cache while rows pass by.
const NEAR: usize = 1 << 17;

/// Multiplies the windows of all runs, which lie `apart`, with a weight, and adds a bias. Threads share out the windows, or, if
/// these are few, the columns.
fn multiply<'a>(packed: &Packed, windows: &[f32], apart: usize, runs: Vec<Run<'a>>, bias: Option<&[f32]>) {
    let [inner, n] = packed.dims();
    let rows: usize = runs.iter().map(|run| run.to.rows()).sum();
    let few = is_few(rows);
    let blocks: Vec<_> = match few {
        true => packed.shares(column_tasks(rows * inner * n)).collect(),
        false => packed.blocks(NEAR / inner.max(1)).collect(),
    };
    let block = |i: usize, from: usize, mut to: Columns<'_>| {
        let (first, panels) = blocks[i];
        panels.multiply_windows(Windows { numbers: &windows[from..], apart }, to.reborrow());
        if let Some(bias) = bias {
            let bias = &bias[first..][..to.columns()];
            // SAFETY: the product has written all rows.
            (0..to.rows()).for_each(|row| add(unsafe { to.row(row).assume_init_mut() }, bias));
        }
    };
    let cut = |Run { from, to }: Run<'a>| {
        let widths = blocks.iter().map(|(_, panels)| panels.columns());
        to.blocks(widths).into_iter().map(move |to| (from, to))
    };
    if few {
        let mut tasks: Vec<Vec<_>> = blocks.iter().map(|_| Vec::with_capacity(runs.len())).collect();
        for run in runs {
            tasks.iter_mut().zip(cut(run)).for_each(|(task, part)| task.push(part));
        }
        let tasks = tasks.into_par_iter().enumerate();
        tasks.for_each(|(i, task)| task.into_iter().for_each(|(from, to)| block(i, from, to)));
    } else {
        deal(runs, apart, share(rows)).into_par_iter().for_each(|task| {
            let mut parts: Vec<_> = task.into_iter().map(&cut).collect();
            for i in 0..blocks.len() {
                for (from, to) in parts.iter_mut().filter_map(Iterator::next) {
                    block(i, from, to);
                }
            }
        });
    }
}

/// Deals runs to tasks of about `share` windows each; one that is longer is cut.
fn deal(runs: Vec<Run<'_>>, apart: usize, share: usize) -> Vec<Vec<Run<'_>>> {
    let (mut tasks, mut task, mut rows) = (Vec::new(), Vec::new(), 0);
    for mut run in runs {
        loop {
            let part = run.to.rows().min(share);
            let (to, rest) = run.to.split_rows_at(part);
            task.push(Run { from: run.from, to });
            rows += part;
            if rows >= share {
                tasks.push(std::mem::take(&mut task));
                rows = 0;
            }
            if rest.rows() == 0 {
                break;
            }
            run = Run { from: run.from + part * apart, to: rest };
        }
    }
    tasks.push(task);
    tasks
}

#[inline(always)]
fn add_body<const FMA: bool>(to: &mut [f32], what: &[f32]) {
    to.iter_mut().zip(what).for_each(|(to, what)| *to += what);
}
multiversion!(fn add(to: &mut [f32], what: &[f32]) = add_body);
