//! The convolution over steps and bands on slices, for the Flex CPU backend.
//!
//! A block of output steps is a matrix with a column for each output and a row for each place of a window (*im2col*): a product with
//! the weight makes all channels of it. Blocks are so small that their matrix stays in a second-level cache; a row of the batch has the
//! same ones wherever it stands. Backward the same matrices are made once more, and what the product gives for them is added up where
//! it was read (*col2im*).

use burn::backend::flex::FlexTensor;
use burn::backend::{Flex, TensorMetadata};
use rayon::prelude::*;

use super::{Body, Convolution2d, Convolution2dOps};
use crate::flex::{dense, dummy, slice, wrap};
use crate::memory::zeros;
use crate::product::{Strides, product};

impl Convolution2dOps for Flex {
    fn convolve_2d(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, run: Convolution2d) -> FlexTensor {
        let (x, weight, bias) = (dense(x), dense(weight), dense(bias));
        let plan = Plan::new(&run, std::array::from_fn(|i| x.shape()[i]), weight.shape()[1]);
        let y = plan.forward(slice(&x), slice(&weight), slice(&bias));
        wrap(y, [plan.batch, plan.steps, plan.channels * plan.bands])
    }
}

impl Body for Flex {
    fn backward(
        gradient: FlexTensor,
        x: FlexTensor,
        weight: FlexTensor,
        run: &Convolution2d,
        wanted: [bool; 3],
    ) -> [FlexTensor; 3] {
        let (gradient, x, weight) = (dense(gradient), dense(x), dense(weight));
        let dims: [usize; 3] = std::array::from_fn(|i| x.shape()[i]);
        let plan = Plan::new(run, dims, weight.shape()[1]);
        let (dx, dw, db) = plan.backward(slice(&gradient), slice(&x), slice(&weight), wanted[0]);
        [
            if wanted[0] { wrap(dx, dims) } else { dummy() },
            wrap(dw, [plan.places, plan.channels]),
            wrap(db, [plan.channels]),
        ]
    }
}

/// Numbers of a block's matrix.
const NEAR: usize = 1 << 16;

/// All sizes.
struct Plan<'a> {
    run: &'a Convolution2d,
    batch: usize,
    /// Of the input: its steps, padding included, and the bands of a plane.
    inputs: usize,
    read: usize,
    /// Of the output.
    steps: usize,
    bands: usize,
    channels: usize,
    /// Places of a window.
    places: usize,
    /// Output steps of a block.
    block: usize,
    /// Real input steps of each row.
    real: Vec<usize>,
}

/// Output steps of a row.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    count: usize,
}

impl<'a> Plan<'a> {
    fn new(run: &'a Convolution2d, [batch, inputs, width]: [usize; 3], channels: usize) -> Self {
        let read = width / run.planes;
        let ([steps, bands], places) = (run.outputs(inputs, read), run.planes * run.kernel[0] * run.kernel[1]);
        let block = (NEAR / (places * bands)).max(1);
        Self { run, batch, inputs, read, steps, bands, channels, places, block, real: run.real(batch, inputs) }
    }

    /// Numbers of an input step, and of an output step.
    fn widths(&self) -> [usize; 2] {
        [self.run.planes * self.read, self.channels * self.bands]
    }

    /// The blocks of a row's real output steps.
    fn blocks(&self, real: usize) -> impl Iterator<Item = Block> + use<> {
        let (steps, block) = (real.div_ceil(self.run.stride[0]), self.block);
        (0..steps).step_by(block).map(move |first| Block { first, count: block.min(steps - first) })
    }

    /// `[B, S', C·F']`.
    fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let ([read, made], bands) = (self.widths(), self.bands);
        let mut y = zeros(self.batch * self.steps * made);
        let mut tasks = Vec::new();
        for (row, y) in y.chunks_exact_mut((self.steps * made).max(1)).enumerate() {
            let x = &x[row * self.inputs * read..][..self.real[row] * read];
            let mut rest = y;
            for block in self.blocks(self.real[row]) {
                let (part, behind) = rest.split_at_mut(block.count * made);
                tasks.push((x, block, part));
                rest = behind;
            }
        }
        tasks.into_par_iter().for_each(|(x, block, y)| {
            let n = block.count * bands;
            let (mut windows, mut outputs) = (vec![0.0; self.places * n], vec![0.0; self.channels * n]);
            self.gather(x, block, &mut windows);
            let (dims, along) = ([self.channels, n, self.places], Strides::rows(n));
            product(dims, &mut outputs, along, false, weight, Strides::transposed(self.channels), &windows, along);
            for (step, y) in y.chunks_exact_mut(made).enumerate() {
                for ((y, outputs), bias) in y.chunks_exact_mut(bands).zip(outputs.chunks_exact(n)).zip(bias) {
                    let outputs = &outputs[step * bands..][..bands];
                    y.iter_mut().zip(outputs).for_each(|(y, output)| *y = output + bias);
                }
            }
        });
        y
    }

    /// The gradients of the input, if it is wanted, of the weight and of the bias.
    fn backward(&self, dy: &[f32], x: &[f32], weight: &[f32], of_inputs: bool) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let ([read, made], bands) = (self.widths(), self.bands);
        let mut dx = zeros(if of_inputs { self.batch * self.inputs * read } else { 0 });
        // Of weight and bias, one behind the other for each row.
        let own = (self.places + 1) * self.channels;
        let mut parameters = zeros(self.batch * own);
        let mut parts: Vec<&mut [f32]> = match of_inputs {
            true => dx.chunks_exact_mut((self.inputs * read).max(1)).collect(),
            false => Vec::new(),
        };
        parts.resize_with(self.batch, Default::default);
        let rows = parameters.par_chunks_exact_mut(own).zip(parts).enumerate();
        rows.for_each(|(row, (parameters, dx))| {
            let real = self.real[row];
            let x = &x[row * self.inputs * read..][..real * read];
            let dy = &dy[row * self.steps * made..][..self.steps * made];
            let (dw, db) = parameters.split_at_mut(self.places * self.channels);
            let most = self.block * bands;
            let (mut windows, mut outputs) = (vec![0.0; self.places * most], vec![0.0; self.channels * most]);
            for block in self.blocks(real) {
                let n = block.count * bands;
                let (windows, outputs) = (&mut windows[..self.places * n], &mut outputs[..self.channels * n]);
                for (step, dy) in dy[block.first * made..][..block.count * made].chunks_exact(made).enumerate() {
                    for (outputs, dy) in outputs.chunks_exact_mut(n).zip(dy.chunks_exact(bands)) {
                        outputs[step * bands..][..bands].copy_from_slice(dy);
                    }
                }
                for (db, outputs) in db.iter_mut().zip(outputs.chunks_exact(n)) {
                    *db += outputs.iter().sum::<f32>();
                }
                self.gather(x, block, windows);
                let (across, along) = (Strides::rows(self.channels), Strides::rows(n));
                let dims = [self.places, self.channels, n];
                product(dims, dw, across, true, windows, along, outputs, Strides::transposed(n));
                if of_inputs {
                    product([self.places, n, self.channels], windows, along, false, weight, across, outputs, along);
                    self.scatter(windows, block, &mut dx[..real * read]);
                }
            }
        });
        let sums = crate::attention::sum_rows(&parameters, own);
        let (dw, db) = sums.split_at(self.places * self.channels);
        (dx, dw.to_vec(), db.to_vec())
    }

    /// Reads the windows of a block from a row's real steps: `[places, count · F']`.
    fn gather(&self, x: &[f32], block: Block, windows: &mut [f32]) {
        let [_, r] = self.run.stride;
        windows.fill(0.0);
        self.each_run(x.len(), block, |from, to, count| {
            let (from, to) = (&x[from..], &mut windows[to..][..count]);
            match r {
                1 => to.copy_from_slice(&from[..count]),
                _ => to.iter_mut().zip(from.iter().step_by(r)).for_each(|(to, from)| *to = *from),
            }
        });
    }

    /// Adds to a row's real steps what came for its windows.
    fn scatter(&self, windows: &[f32], block: Block, dx: &mut [f32]) {
        let [_, r] = self.run.stride;
        self.each_run(dx.len(), block, |to, from, count| {
            let from = &windows[from..][..count];
            dx[to..].iter_mut().step_by(r).zip(from).for_each(|(to, from)| *to += from);
        });
    }

    /// Tells of every place of a window and every step of a block which numbers of a row of `length` its bands read: the first of them,
    /// where it stands in the matrix, and how many there are.
    fn each_run(&self, length: usize, block: Block, mut tell: impl FnMut(usize, usize, usize)) {
        let ([k, l], [q, r], [before, left]) = (self.run.kernel, self.run.stride, self.run.before());
        let width = self.run.planes * self.read;
        let n = block.count * self.bands;
        for place in 0..self.places {
            let (plane, i, j) = (place / (k * l), place / l % k, place % l);
            // Output bands whose window has this place within the plane: `f r + j − left` from 0 on, below all bands.
            let first = left.saturating_sub(j).div_ceil(r);
            let end = (self.read + left).saturating_sub(j).div_ceil(r).min(self.bands);
            if first >= end {
                continue;
            }
            let band = first * r + j - left;
            for step in 0..block.count {
                let Some(read) = ((block.first + step) * q + i).checked_sub(before) else { continue };
                let from = read * width + plane * self.read + band;
                if read * width < length {
                    tell(from, place * n + step * self.bands + first, end - first);
                }
            }
        }
    }
}
