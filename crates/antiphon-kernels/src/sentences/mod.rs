//! Sentences of a text, and a vector of each: a sum of its words' vectors, weighted by their positions (Sukhbaatar et al. 2015,
//! "End-to-end memory networks", section 4.1).

use std::mem::MaybeUninit;
use std::sync::Arc;

use antiphon_core::{Special, TokenId};
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Bool, Tensor, TensorData};
use rayon::prelude::*;

use crate::flex::{dense, serves, slice, wrap};
use crate::memory::{Unwritten, unwritten, written, zeros};
use crate::rows::select_rows;
use crate::vector::{multiply_add, multiversion};

/// Where a sentence stands in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sentence {
    /// The step of its first word.
    pub start: u32,
    /// How many words it has, which may be none.
    pub words: u32,
}

impl Sentence {
    /// The numbers of its words, in a row of `width` numbers a step.
    fn of<'r>(&self, row: &'r [f32], width: usize) -> &'r [f32] {
        &row[self.start as usize * width..][..self.words as usize * width]
    }
}

/// The sentences of each row of a batch, in their order. A clone shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentences {
    rows: Arc<[Vec<Sentence>]>,
    lengths: Arc<[u32]>,
    left_out: Arc<[u32]>,
}

impl Sentences {
    /// The sentences of ids `[B, width]`, of which each row has as many real ones as `lengths` `[B]` says.
    ///
    /// [`Special::End`] closes a sentence, and belongs to none; words behind the last one are a sentence too. `most`: of a row only the
    /// last so many sentences are kept.
    ///
    /// # Panics
    /// If there are not `width` ids for each length, or a row is longer than that.
    pub fn of(ids: &[TokenId], lengths: &[u32], width: usize, most: Option<usize>) -> Self {
        assert_eq!(ids.len(), lengths.len() * width, "{} rows of {width} ids", lengths.len());
        let (mut rows, mut left_out) = (Vec::with_capacity(lengths.len()), Vec::with_capacity(lengths.len()));
        for (row, &length) in ids.chunks(width.max(1)).zip(lengths) {
            let mut sentences = cut(&row[..length as usize]);
            let first = most.map_or(0, |most| sentences.len().saturating_sub(most));
            sentences.drain(..first);
            left_out.push(first as u32);
            rows.push(sentences);
        }
        let lengths = rows.iter().map(|row| row.len() as u32).collect();
        Self { rows: rows.into(), lengths, left_out: left_out.into() }
    }

    /// `[B]`: how many sentences each row has.
    pub fn lengths(&self) -> Arc<[u32]> {
        self.lengths.clone()
    }

    /// `N`: the most that any row has, at least 1.
    pub fn most(&self) -> usize {
        self.lengths.iter().max().map_or(1, |&most| most.max(1) as usize)
    }

    /// The sentences of row `b`.
    pub fn row(&self, b: usize) -> &[Sentence] {
        &self.rows[b]
    }

    /// How many sentences of row `b` stand before those that are kept.
    pub fn left_out(&self, b: usize) -> usize {
        self.left_out[b] as usize
    }

    /// The words of the longest sentence, at least 1.
    pub fn most_words(&self) -> usize {
        self.rows.iter().flatten().map(|sentence| sentence.words as usize).max().unwrap_or(0).max(1)
    }
}

/// The sentences of a row.
fn cut(row: &[TokenId]) -> Vec<Sentence> {
    let (mut sentences, mut start) = (Vec::new(), 0);
    let ends = row.iter().enumerate().filter(|(_, id)| **id == Special::End.id()).map(|(step, _)| step);
    let rest = (row.last() != Some(&Special::End.id())).then_some(row.len());
    for end in ends.chain(rest.filter(|&end| end > 0)) {
        sentences.push(Sentence { start: start as u32, words: (end - start) as u32 });
        start = end + 1;
    }
    sentences
}

/// What the words of a sentence count for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WordOrder {
    /// Each for 1, wherever it stands.
    Ignored,
    /// Word `k` of `J` counts in number `d` of `E` for `(1 − k/J) − (d/E)(1 − 2k/J)`, all counted from 1 (*position encoding*).
    Encoded,
}

impl WordOrder {
    /// What word `k` of so many, counted from 0, counts for in number `d` of `width`, counted from 1: → `(a, b)` of `a + b d`.
    fn line(self, k: usize, words: usize, width: usize) -> (f32, f32) {
        let (k, words) = ((k + 1) as f64, words as f64);
        match self {
            WordOrder::Ignored => (1.0, 0.0),
            WordOrder::Encoded => ((1.0 - k / words) as f32, ((2.0 * k / words - 1.0) / width as f64) as f32),
        }
    }
}

/// The weighted sum of each sentence's words: `[B, S, E] → [B, N, E]`, where `N` is the most sentences of any row; zero where a row has no
/// such sentence, or it has no words. Steps that belong to no sentence may hold anything. Differentiable.
///
/// On the CPU a row's sums have the same bits whatever stands beside it, and however wide the padding.
///
/// # Panics
/// If there are not sentences for each row, or one ends beyond it.
pub fn sentence_sums(x: Tensor<3>, sentences: &Sentences, order: WordOrder) -> Tensor<3> {
    let [b, s, _] = x.dims();
    assert_eq!(sentences.rows.len(), b, "sentences of each row");
    let end = sentences.rows.iter().flatten().map(|sentence| sentence.start + sentence.words).max().unwrap_or(0);
    assert!(end as usize <= s, "a sentence ends at step {end} of {s}");
    if !serves(&x) {
        return of_operations(x, sentences, order);
    }
    Tensor::from_dispatch(<Dispatch as SentenceOps>::sums(x.into_dispatch(), sentences.clone(), order))
}

/// The operation made of tensor operations: the words of each sentence are brought together.
fn of_operations(x: Tensor<3>, sentences: &Sentences, order: WordOrder) -> Tensor<3> {
    let ([b, s, e], n, most) = (x.dims(), sentences.most(), sentences.most_words());
    let (device, dtype) = (x.device().inner(), x.dtype());
    let places = b * n * most;
    let (mut steps, mut beyond) = (vec![0; places], vec![true; places]);
    let (mut level, mut slope) = (vec![0.0_f32; places], vec![0.0_f32; places]);
    for (row, sentences) in sentences.rows.iter().enumerate() {
        for (i, sentence) in sentences.iter().enumerate() {
            for k in 0..sentence.words as usize {
                let at = (row * n + i) * most + k;
                steps[at] = (row * s + sentence.start as usize + k) as u32;
                beyond[at] = false;
                (level[at], slope[at]) = order.line(k, sentence.words as usize, e);
            }
        }
    }
    let words = select_rows(x.reshape([b * s, e]), &steps).reshape([b * n, most, e]);
    let beyond = Tensor::<3, Bool>::from_data(TensorData::new(beyond, [b * n, most, 1]), &device);
    let words = words.mask_fill(beyond.expand([b * n, most, e]), 0.0);
    let of =
        |values: Vec<f32>, dims: [usize; 3]| Tensor::<3>::from_data(TensorData::new(values, dims), (&device, dtype));
    let (level, slope) = (of(level, [b * n, most, 1]), of(slope, [b * n, most, 1]));
    let weights = level + slope * of(numbers(e), [1, 1, e]);
    (words * weights).sum_dim(1).reshape([b, n, e])
}

/// `1, 2, …, width`.
fn numbers(width: usize) -> Vec<f32> {
    (1..=width).map(|d| d as f32).collect()
}

/// The operation on plain slices, as Burn's backends see it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait SentenceOps: Backend {
    /// `[B, S, E] → [B, N, E]`.
    fn sums(x: FloatTensor<Self>, sentences: Sentences, order: WordOrder) -> FloatTensor<Self>;
}

/// A backend that has the operation.
trait Body: SentenceOps {
    /// → the gradient of `x`, which has so many steps
    fn backward(
        gradient: FloatTensor<Self>,
        steps: usize,
        sentences: &Sentences,
        order: WordOrder,
    ) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct SentenceNode;

impl<B: Body> Backward<B, 1> for SentenceNode {
    type State = (usize, Sentences, WordOrder);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            let (steps, sentences, order) = ops.state;
            grads.register::<B>(node.id, B::backward(gradient, steps, &sentences, order));
        }
    }
}

impl<B: Body, C: CheckpointStrategy> SentenceOps for Autodiff<B, C> {
    fn sums(x: FloatTensor<Self>, sentences: Sentences, order: WordOrder) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let steps = x.shape()[1];
        match SentenceNode.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((steps, sentences.clone(), order), B::sums(x, sentences, order)),
            OpsKind::UnTracked(prep) => prep.finish(B::sums(x, sentences, order)),
        }
    }
}

impl SentenceOps for Flex {
    fn sums(x: FlexTensor, sentences: Sentences, order: WordOrder) -> FlexTensor {
        let x = dense(x);
        let [b, s, e] = std::array::from_fn(|i| x.shape()[i]);
        let (n, numbers) = (sentences.most(), numbers(e));
        let mut y = zeros(b * n * e);
        let rows = y.par_chunks_mut((n * e).max(1)).zip(slice(&x).par_chunks((s * e).max(1)));
        rows.zip(sentences.rows.par_iter()).for_each(|((y, row), sentences)| {
            for (y, sentence) in y.chunks_exact_mut(e).zip(sentences) {
                forward(sentence.of(row, e), order, &numbers, y);
            }
        });
        wrap(y, [b, n, e])
    }
}

impl Body for Flex {
    fn backward(gradient: FlexTensor, steps: usize, sentences: &Sentences, order: WordOrder) -> FlexTensor {
        let gradient = dense(gradient);
        let [b, n, e] = std::array::from_fn(|i| gradient.shape()[i]);
        let numbers = numbers(e);
        let mut dx = unwritten(b * steps * e);
        let rows = dx.par_chunks_mut((steps * e).max(1)).zip(slice(&gradient).par_chunks((n * e).max(1)));
        rows.zip(sentences.rows.par_iter()).for_each(|((dx, gradient), sentences)| {
            let (mut rest, mut end) = (dx, 0);
            for (gradient, sentence) in gradient.chunks_exact(e).zip(sentences) {
                let (start, words) = (sentence.start as usize, sentence.words as usize);
                let (between, behind) = rest.split_at_mut((start - end) * e);
                let (own, behind) = behind.split_at_mut(words * e);
                between.fill(MaybeUninit::new(0.0));
                backward(gradient, order, &numbers, own);
                (rest, end) = (behind, start + words);
            }
            rest.fill(MaybeUninit::new(0.0));
        });
        // SAFETY: every step is written, whether it belongs to a sentence or not.
        wrap(unsafe { written(dx) }, [b, steps, e])
    }
}

#[inline(always)]
fn forward_body<const FMA: bool>(words: &[f32], order: WordOrder, numbers: &[f32], y: &mut [f32]) {
    let (width, count) = (y.len(), words.len() / y.len());
    for (k, word) in words.chunks_exact(width).enumerate() {
        let (level, slope) = order.line(k, count, width);
        for ((y, x), d) in y.iter_mut().zip(word).zip(numbers) {
            *y = multiply_add::<FMA>(multiply_add::<FMA>(slope, *d, level), *x, *y);
        }
    }
}
multiversion!(
    /// Adds a sentence's words, each times its weight; `numbers`: `1, 2, …`, as many as a word has.
    fn forward(words: &[f32], order: WordOrder, numbers: &[f32], y: &mut [f32]) = forward_body
);

#[inline(always)]
fn backward_body<const FMA: bool>(gradient: &[f32], order: WordOrder, numbers: &[f32], words: &mut Unwritten) {
    let (width, count) = (gradient.len(), words.len() / gradient.len());
    for (k, word) in words.chunks_exact_mut(width).enumerate() {
        let (level, slope) = order.line(k, count, width);
        for ((dx, dy), d) in word.iter_mut().zip(gradient).zip(numbers) {
            dx.write(multiply_add::<FMA>(slope, *d, level) * dy);
        }
    }
}
multiversion!(
    /// The gradient of a sentence's words from that of its sum.
    fn backward(gradient: &[f32], order: WordOrder, numbers: &[f32], words: &mut Unwritten) = backward_body
);

#[cfg(test)]
mod tests;
