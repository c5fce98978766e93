//! Dropout whose masks are a pure function of a key (Srivastava et al. 2014, in the inverted form).
//!
//! Kept numbers are divided by `1 − rate`, so that the mean over many masks is what there was. What shares a mask differs:
//!
//! - [`dropout`]: nothing, each number is dropped for itself; over a weight this is DropConnect (Wan et al. 2013);
//! - [`locked_dropout`]: the steps of a row (variational dropout, Gal and Ghahramani 2016);
//! - [`word_dropout`]: all vectors of one word (the same, section 3.2).
//!
//! A mask is never written down where it would be as large as what it is for: the backward pass draws it again.

use std::sync::Arc;

use antiphon_core::TokenId;
use antiphon_core::random::Key;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::flex::{dense, serves, serves_kernels, slice, wrap};
use crate::memory::{Unwritten, unwritten, written};
use crate::vector::multiversion;

/// Zeroes each element with probability `rate` and divides the others by `1 − rate`.
///
/// The mask depends on `key` and an element's position alone: not on threads, order or anything drawn before. The
/// rate, below 1, is met to 1/65536. A rate of 0 returns `x` as it is.
pub fn dropout<const D: usize>(x: Tensor<D>, rate: f64, key: Key) -> Tensor<D> {
    check(rate);
    if rate <= 0.0 {
        return x;
    }
    if serves_kernels(&x) {
        return masked(x, Mask::Elements { rate, key });
    }
    let shape = x.shape();
    let mask = TensorData::new(mask(shape.num_elements(), rate, key), shape);
    let mask = Tensor::<D>::from_data(mask, &x.device().inner()).cast(x.dtype());
    x * mask
}

/// Dropout of `x` `[B, T, W]` with one mask `[B, W]` for all steps: a number that is dropped at one step of a row is dropped at
/// all of them. Otherwise as [`dropout`].
pub fn locked_dropout(x: Tensor<3>, rate: f64, key: Key) -> Tensor<3> {
    check(rate);
    if rate <= 0.0 {
        return x;
    }
    let [b, t, w] = x.dims();
    let drawn = |here: bool| if here { mask(b * w, rate, key) } else { Vec::new() };
    if serves_kernels(&x) {
        let drawn = drawn(serves(&x)).into();
        return masked(x, Mask::Steps { rate, key, drawn, steps: t, width: w });
    }
    let mask = drawn(true);
    let mask = Tensor::<3>::from_data(TensorData::new(mask, [b, 1, w]), &x.device().inner()).cast(x.dtype());
    x * mask
}

/// Dropout of whole words: `vectors` `[N, W]` are those of the words `ids` `[N]`, and a word that is dropped is dropped wherever it
/// stands. The mask depends on `key` and the word alone. Otherwise as [`dropout`].
///
/// # Panics
/// If there are not as many vectors as words.
pub fn word_dropout(vectors: Tensor<2>, ids: &[TokenId], rate: f64, key: Key) -> Tensor<2> {
    check(rate);
    let [n, w] = vectors.dims();
    assert_eq!(ids.len(), n, "a word for each vector");
    if rate <= 0.0 {
        return vectors;
    }
    let of_word = |&id: &TokenId| {
        let mut factor = [0.0];
        fill_mask(&mut factor, id as usize, rate, key);
        factor[0]
    };
    let factors: Vec<f32> = ids.iter().map(of_word).collect();
    if serves_kernels(&vectors) {
        return masked(vectors, Mask::Rows { factors: factors.into(), width: w });
    }
    let factors = Tensor::<2>::from_data(TensorData::new(factors, [n, 1]), &vectors.device().inner());
    let factors = factors.cast(vectors.dtype());
    vectors * factors
}

fn check(rate: f64) {
    assert!(rate < 1.0, "dropping everything leaves nothing to scale");
}

/// What each number is multiplied by.
#[derive(Debug, Clone)]
pub(crate) enum Mask {
    /// Each by its own.
    Elements { rate: f64, key: Key },
    /// Row `r` of `[B · steps, width]` by row `r / steps` of the mask `[B, width]`, which is `drawn` for the CPU; a GPU draws it itself.
    #[cfg_attr(not(feature = "wgpu"), expect(dead_code, reason = "a GPU draws by rate and key"))]
    Steps { rate: f64, key: Key, drawn: Arc<[f32]>, steps: usize, width: usize },
    /// Row `r` of `[N, width]` by `factors[r]`.
    Rows { factors: Arc<[f32]>, width: usize },
}

fn masked<const D: usize>(x: Tensor<D>, mask: Mask) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as DropoutOps>::masked(x.into_dispatch(), mask))
}

/// The operation as Burn's backends see it. Its gradient is itself.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub(crate) trait DropoutOps: Backend {
    fn masked(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct DropoutNode;

impl<B: DropoutOps> Backward<B, 1> for DropoutNode {
    type State = Mask;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::masked(gradient, ops.state));
        }
    }
}

impl<B: DropoutOps, C: CheckpointStrategy> DropoutOps for Autodiff<B, C> {
    fn masked(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match DropoutNode.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::masked(x, mask.clone());
                prep.finish(mask, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::masked(x, mask)),
        }
    }
}

/// Numbers a task takes, and of these so many at a time.
const CHUNK: usize = 1 << 14;
const PIECE: usize = 512;

impl DropoutOps for Flex {
    fn masked(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
        let x = dense(x);
        let mut y = unwritten(x.shape().num_elements());
        let numbers = slice(&x);
        match &mask {
            Mask::Elements { rate, key } => {
                let tasks = y.par_chunks_mut(CHUNK).zip(numbers.par_chunks(CHUNK)).enumerate();
                tasks.for_each(|(task, (y, x))| {
                    let mut mask = [0.0; PIECE];
                    let pieces = y.chunks_mut(PIECE).zip(x.chunks(PIECE)).enumerate();
                    for (piece, (y, x)) in pieces {
                        let mask = &mut mask[..x.len()];
                        fill_mask(mask, task * CHUNK + piece * PIECE, *rate, *key);
                        multiply(x, mask, y);
                    }
                });
            }
            Mask::Steps { drawn: mask, steps, width, .. } => {
                let rows = y.par_chunks_mut(*width).zip(numbers.par_chunks(*width)).enumerate();
                let rows = rows.with_min_len(CHUNK.div_ceil(*width));
                rows.for_each(|(r, (y, x))| multiply(x, &mask[r / steps * width..][..*width], y));
            }
            Mask::Rows { factors, width } => {
                let rows = y.par_chunks_mut(*width).zip(numbers.par_chunks(*width)).enumerate();
                let rows = rows.with_min_len(CHUNK.div_ceil(*width));
                rows.for_each(|(r, (y, x))| scale(x, factors[r], y));
            }
        }
        // SAFETY: every number is written.
        wrap(unsafe { written(y) }, x.shape())
    }
}

#[inline(always)]
fn multiply_body<const FMA: bool>(x: &[f32], mask: &[f32], y: &mut Unwritten) {
    for ((y, x), m) in y.iter_mut().zip(x).zip(mask) {
        y.write(x * m);
    }
}
multiversion!(fn multiply(x: &[f32], mask: &[f32], y: &mut Unwritten) = multiply_body);

#[inline(always)]
fn scale_body<const FMA: bool>(x: &[f32], factor: f32, y: &mut Unwritten) {
    for (y, x) in y.iter_mut().zip(x) {
        y.write(x * factor);
    }
}
multiversion!(fn scale(x: &[f32], factor: f32, y: &mut Unwritten) = scale_body);

/// 16 bits below this drop an element.
pub(crate) fn threshold(rate: f64) -> u32 {
    (rate * 65536.0).round() as u32
}

/// What an element is multiplied by that is kept.
pub(crate) fn keep(rate: f64) -> f32 {
    (1.0 / (1.0 - rate)) as f32
}

/// The mask of `elements` elements.
fn mask(elements: usize, rate: f64, key: Key) -> Vec<f32> {
    let mut mask = vec![0.0; elements];
    let chunks = mask.par_chunks_mut(CHUNK).enumerate();
    chunks.for_each(|(k, chunk)| fill_mask(chunk, k * CHUNK, rate, key));
    mask
}

/// The mask of the elements from number `first` on. Each 64-bit word decides four of them.
pub(crate) fn fill_mask(mask: &mut [f32], first: usize, rate: f64, key: Key) {
    let (threshold, keep) = (u64::from(threshold(rate)), keep(rate));
    let decide = |word: u64, at: usize| if (word >> (16 * at)) & 0xFFFF < threshold { 0.0 } else { keep };
    let (head, rest) = mask.split_at_mut((first.wrapping_neg() % 4).min(mask.len()));
    for (at, element) in (first..).zip(head.iter_mut()) {
        *element = decide(key.word((at / 4) as u64), at % 4);
    }
    let at = (first + head.len()) / 4;
    let (fours, tail) = rest.as_chunks_mut::<4>();
    for (word, four) in (at as u64..).zip(fours.iter_mut()) {
        let word = key.word(word);
        *four = std::array::from_fn(|i| decide(word, i));
    }
    let word = key.word((at + fours.len()) as u64);
    tail.iter_mut().enumerate().for_each(|(i, element)| *element = decide(word, i));
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device};

    #[test]
    fn masks_have_the_rate_keep_the_mean_and_repeat() {
        let key = Key::from_seed(1).named("dropout");
        let (n, rate) = (200_003, 0.3);
        let drawn = mask(n, rate, key);
        let zeros = drawn.iter().filter(|&&m| m == 0.0).count() as f64 / n as f64;
        assert!((zeros - rate).abs() < 0.004, "{zeros}");
        let mean = drawn.iter().map(|&m| f64::from(m)).sum::<f64>() / n as f64;
        assert!((mean - 1.0).abs() < 0.006, "{mean}");
        assert_eq!(drawn, mask(n, rate, key));
        assert_ne!(drawn, mask(n, rate, key.numbered(1)));
        assert_eq!(mask(10, rate, key)[..], drawn[..10]);
    }

    #[test]
    fn a_mask_does_not_depend_on_where_it_is_cut() {
        let key = Key::from_seed(2);
        let whole = mask(50, 0.4, key);
        // Each 64-bit word gives four numbers, the lowest bits first.
        for (i, &m) in whole.iter().enumerate() {
            let drawn = (key.word(i as u64 / 4) >> (16 * (i % 4))) & 0xFFFF;
            assert_eq!(m == 0.0, (drawn as f64) < 0.4 * 65536.0, "{i}");
        }
        for first in 0..9 {
            for length in 0..12 {
                let mut part = vec![0.0; length];
                fill_mask(&mut part, first, 0.4, key);
                assert_eq!(part, whole[first..first + length], "{first} {length}");
            }
        }
    }

    fn ones<const D: usize>(dims: [usize; D]) -> Tensor<D> {
        Tensor::ones(dims, &Device::flex())
    }

    fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn a_locked_mask_is_one_over_time_and_differs_from_row_to_row() {
        let (b, t, w) = (3, 7, 40);
        let dropped = numbers(locked_dropout(ones([b, t, w]), 0.5, Key::from_seed(3)));
        let rows: Vec<Vec<&[f32]>> = dropped.chunks(t * w).map(|row| row.chunks(w).collect()).collect();
        for row in &rows {
            assert!(row.iter().all(|step| step == &row[0]) && row[0].contains(&0.0) && row[0].contains(&2.0));
        }
        assert!(rows[0][0] != rows[1][0] && rows[1][0] != rows[2][0] && rows[0][0] != rows[2][0]);
    }

    #[test]
    fn a_dropped_word_is_dropped_wherever_it_stands() {
        let ids: Vec<TokenId> = (0..400).map(|i| i * i % 50).collect();
        let dropped = numbers(word_dropout(ones([400, 5]), &ids, 0.5, Key::from_seed(4)));
        let of_word = |word: usize| {
            let mut rows = dropped.chunks(5).zip(&ids).filter(|&(_, &id)| id as usize == word).map(|(row, _)| row);
            rows.next().map(|first| {
                assert!(first.iter().all(|x| *x == first[0]) && rows.all(|row| row == first), "{word}");
                first[0]
            })
        };
        let words: Vec<f32> = (0..50).filter_map(of_word).collect();
        assert!(words.contains(&0.0) && words.contains(&2.0) && words.len() > 10);
    }

    #[test]
    fn the_mean_over_many_masks_is_what_there_was() {
        let (n, ids) = (4000, [0, 1, 2, 1]);
        let mut sums = [vec![0.0_f64; 12], vec![0.0; 12], vec![0.0; 12]];
        for i in 0..n {
            let key = Key::from_seed(5).numbered(i);
            let drawn = [
                numbers(dropout(ones([2, 2, 3]), 0.3, key)),
                numbers(locked_dropout(ones([2, 2, 3]), 0.3, key)),
                numbers(word_dropout(ones([4, 3]), &ids, 0.3, key)),
            ];
            for (sums, drawn) in sums.iter_mut().zip(drawn) {
                sums.iter_mut().zip(drawn).for_each(|(sum, x)| *sum += f64::from(x) / n as f64);
            }
        }
        // A mask's deviation is √(0.3 / 0.7).
        let far = 4.0 * (0.3_f64 / 0.7 / n as f64).sqrt();
        assert!(sums.iter().flatten().all(|mean| (mean - 1.0).abs() < far), "{sums:?}");
    }

    /// All are products with a mask that does not depend on what it is for; so the mask is what ones become, and the gradient is
    /// its product with that of the result. In double precision they are made of tensor operations.
    #[test]
    fn values_and_gradients_are_products_with_the_mask() {
        let device = Device::flex().autodiff();
        for [b, t, w] in [[1, 1, 1], [3, 5, 7], [9, 31, 129]] {
            let key = Key::from_seed(6);
            let random = |name: &str| {
                let values = (0..(b * t * w) as u64).map(|i| key.named(name).normal(i) as f32).collect::<Vec<_>>();
                Tensor::<3>::from_data(TensorData::new(values, [b, t, w]), &device)
            };
            let ids: Vec<TokenId> = (0..(b * t) as TokenId).map(|i| i % 5).collect();
            let by_word = |x: Tensor<3>| word_dropout(x.reshape([b * t, w]), &ids, 0.4, key).reshape([b, t, w]);
            let kinds: [&dyn Fn(Tensor<3>) -> Tensor<3>; 3] =
                [&|x| dropout(x, 0.4, key), &|x| locked_dropout(x, 0.4, key), &by_word];
            for (kind, drop) in kinds.into_iter().enumerate() {
                let (x, given) = (random("x").require_grad(), random("given").inner());
                let y = drop(x.clone());
                let gradients = (y.clone() * Tensor::from_inner(given.clone())).sum().backward();
                let mask = drop(ones([b, t, w]));
                let double = drop(ones([b, t, w]).cast(DType::F64));
                assert_eq!(numbers(double.cast(DType::F32)), numbers(mask.clone()), "{kind}: {b} {t} {w}");
                assert_eq!(numbers(y), numbers(x.clone().inner() * mask.clone()), "{kind}: {b} {t} {w}");
                assert_eq!(numbers(x.grad(&gradients).unwrap()), numbers(given * mask), "{kind}: {b} {t} {w}");
            }
        }
    }
}
