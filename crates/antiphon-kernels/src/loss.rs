//! Output projection, softmax and cross-entropy as one operation, in chunks of tokens.
//!
//! `loss = Σ_n −Σ_v q_nv log p_nv` with `p_n = softmax(states_n · weightᵀ + bias)` and the smoothed target
//! `q_nv = (1 − ε) [v = target_n] + ε / V` (Szegedy et al. 2016). Neither the targets nor all of `[N, V]` are ever
//! made: a chunk's logits become its probabilities and then its gradient in one buffer, and since a training step
//! always goes backward, the gradients are made on the way forward.

use std::ops::Range;
use std::sync::Arc;

use antiphon_core::TokenId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, Shape, TensorMetadata, backend_extension};
use burn::tensor::{IndexingUpdateOp, Tensor, TensorData};
use rayon::prelude::*;

use crate::flex::{dense, is_f32, slice, wrap};
use crate::memory::{unwritten, written};
use crate::product::{Strides, product, product_into};
use crate::vector::{exp, multiversion};
use crate::weight::host;

/// What a model hands to the loss: logits are `states · weightᵀ + bias`.
#[derive(Debug, Clone)]
pub struct Projection {
    /// `[N, H]`: one row for each real target token.
    pub states: Tensor<2>,
    /// `[V, H]`: the output weight, or a tied embedding table.
    pub weight: Tensor<2>,
    /// `[V]`.
    pub bias: Option<Tensor<1>>,
    /// `[N]`: the tokens that are right.
    pub targets: Vec<TokenId>,
}

/// How a model judged tokens that were given.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenScores {
    /// `[N]`: natural logarithms of the targets' probabilities.
    pub log_probs: Vec<f32>,
    /// `[N]`: whether no other token was more probable.
    pub correct: Vec<bool>,
}

/// The cross-entropy in nats, summed over all tokens: `[1]`, differentiable.
///
/// `label_smoothing` is `ε` in `[0, 1)`, of which every token of the vocabulary has `ε / V`, those that never occur included.
///
/// # Panics
/// If shapes do not fit, there is no token, or a target lies beyond the vocabulary.
pub fn cross_entropy(projection: Projection, label_smoothing: f32) -> Tensor<1> {
    let (states, weight, bias, targets) = parts(projection);
    Tensor::from_dispatch(<Dispatch as LossOps>::cross_entropy(states, weight, bias, targets, label_smoothing))
}

/// The log-probability of every target, and whether it was the best token. Not differentiable.
///
/// # Panics
/// As [`cross_entropy`].
pub fn token_scores(projection: Projection) -> TokenScores {
    let n = projection.targets.len();
    let (states, weight, bias, targets) = parts(projection);
    let scores = Tensor::<2>::from_dispatch(<Dispatch as LossOps>::token_scores(states, weight, bias, targets));
    let scores = host(scores);
    TokenScores {
        log_probs: scores[..n].to_vec(),
        // No other logit was greater: the largest log-probability is the target's own.
        correct: (0..n).map(|i| scores[i] >= scores[n + i]).collect(),
    }
}

type Primitive = burn::backend::DispatchTensor;

pub(crate) fn parts(projection: Projection) -> (Primitive, Primitive, Primitive, Arc<[TokenId]>) {
    let Projection { states, weight, bias, targets } = projection;
    let ([n, h], [v, width]) = (states.dims(), weight.dims());
    assert!(n == targets.len() && h == width, "states [{n}, {h}], weight [{v}, {width}], {} targets", targets.len());
    assert!(n > 0, "no tokens");
    assert!(targets.iter().all(|&t| (t as usize) < v), "targets lie below {v}");
    assert!(bias.as_ref().is_none_or(|bias| bias.dims() == [v]), "a bias for each of {v} tokens");
    let bias = bias.unwrap_or_else(|| Tensor::zeros([v], &states.device().inner()));
    (states.into_dispatch(), weight.into_dispatch(), bias.into_dispatch(), targets.into())
}

/// Turns rows of logits without bias, `[N, V]` on the host, into log-probabilities.
///
/// `bias`: `[V]`. A row that holds a NaN becomes NaN.
pub(crate) fn log_softmax_rows(logits: &mut [f32], bias: &[f32]) {
    logits.par_chunks_exact_mut(bias.len()).for_each(|row| {
        let log_z = log_partition(row, bias);
        row.iter_mut().for_each(|x| *x -= log_z);
    });
}

/// The operation as Burn's backends see it.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub(crate) trait LossOps: Backend {
    /// → `[1]`.
    fn cross_entropy(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
        smoothing: f32,
    ) -> FloatTensor<Self> {
        Self::cross_entropy_gradients(states, weight, bias, targets, smoothing).0
    }

    /// → (loss `[1]`, gradients of states, weight and bias).
    fn cross_entropy_gradients(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
        smoothing: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable_gradients::<Self>(states, weight, bias, &targets, smoothing)
    }

    /// Gradients of states, weight and bias, times one number `[1]`, as far as they are `wanted`; the others in any state.
    fn scaled(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        by: FloatTensor<Self>,
        wanted: [bool; 3],
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable_scaled::<Self>(states, weight, bias, by, wanted)
    }

    /// → `[2, N]`: the targets' log-probabilities, then the largest of each row.
    fn token_scores(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
    ) -> FloatTensor<Self> {
        portable_scores::<Self>(states, weight, bias, &targets)
    }
}

/// A loss whose gradients were made on the way forward.
#[derive(Debug)]
pub(crate) struct LossNode;

impl<B: LossOps> Backward<B, 3> for LossNode {
    // gradients of states, weight and bias
    type State = [FloatTensor<B>; 3];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let [states, weight, bias] = ops.state;
        let (states, weight, bias) = B::scaled(states, weight, bias, grads.consume::<B>(&ops.node), wanted);
        for (parent, gradient) in ops.parents.into_iter().zip([states, weight, bias]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

pub(crate) fn portable_scaled<B: Backend>(
    states: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    by: FloatTensor<B>,
    wanted: [bool; 3],
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let scaled = |gradient: FloatTensor<B>, is_wanted: bool| {
        if !is_wanted {
            return gradient;
        }
        let dims = gradient.shape().num_dims();
        B::float_mul(gradient, B::float_reshape(by.clone(), Shape::from(vec![1; dims])))
    };
    (scaled(states, wanted[0]), scaled(weight, wanted[1]), scaled(bias, wanted[2]))
}

impl<B: LossOps, C: CheckpointStrategy> LossOps for Autodiff<B, C> {
    fn cross_entropy(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
        smoothing: f32,
    ) -> FloatTensor<Self> {
        let ((states, s_node), (weight, w_node)) = (states.into_parts(), weight.into_parts());
        let (bias, b_node) = bias.into_parts();
        match LossNode.prepare::<C>([s_node, w_node, b_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (loss, ds, dw, db) = B::cross_entropy_gradients(states, weight, bias, targets, smoothing);
                prep.finish([ds, dw, db], loss)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::cross_entropy(states, weight, bias, targets, smoothing)),
        }
    }
}

pub(crate) fn portable_logits<B: Backend>(
    states: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> (FloatTensor<B>, usize) {
    let v = weight.shape()[0];
    let logits = B::float_matmul(states, B::float_transpose(weight));
    (B::float_add(logits, B::float_reshape(bias, Shape::new([1, v]))), v)
}

/// `[N, 1]`: the targets as indices of a row.
fn portable_indices<B: Backend>(targets: &[TokenId], like: &FloatTensor<B>) -> IntTensor<B> {
    let indices: Vec<i32> = targets.iter().map(|&target| target as i32).collect();
    B::int_from_data(TensorData::new(indices, [targets.len(), 1]), &like.device())
}

pub(crate) fn portable_gradients<B: Backend>(
    states: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    targets: &[TokenId],
    smoothing: f32,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (logits, _) = portable_logits::<B>(states.clone(), weight.clone(), bias);
    let (loss, d) = portable_judgement::<B>(logits, targets, smoothing);
    let (ds, dw, db) = portable_backward::<B>(d, states, weight);
    (B::float_reshape(loss, Shape::new([1])), ds, dw, db)
}

/// → (the summed loss of logits `[N, V]`, the gradient of these)
pub(crate) fn portable_judgement<B: Backend>(
    logits: FloatTensor<B>,
    targets: &[TokenId],
    smoothing: f32,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let own = portable_indices::<B>(targets, &logits);
    let v = logits.shape()[1];
    let (sharp, even) = (1.0 - f64::from(smoothing), f64::from(smoothing) / v as f64);
    let (device, dtype) = (logits.device(), logits.dtype());
    let log_p = B::log_softmax(logits, 1);
    let total = |t: FloatTensor<B>, by: f64| B::float_mul_scalar(B::float_sum(t), by.into());
    let picked = B::float_gather(1, log_p.clone(), own.clone());
    let loss = B::float_neg(B::float_add(total(picked, sharp), total(log_p.clone(), even)));
    let d = B::float_add_scalar(B::float_exp(log_p), (-even).into());
    let excess = B::float_full(Shape::new([targets.len(), 1]), (-sharp).into(), &device, dtype.into());
    (loss, B::float_scatter(1, d, own, excess, IndexingUpdateOp::Add))
}

/// From the gradient of logits, `d` of `[N, V]`, those of states, weight and bias.
pub(crate) fn portable_backward<B: Backend>(
    d: FloatTensor<B>,
    states: FloatTensor<B>,
    weight: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let v = weight.shape()[0];
    let dw = B::float_matmul(B::float_transpose(d.clone()), states);
    let db = B::float_reshape(B::float_sum_dim(d.clone(), 0), Shape::new([v]));
    (B::float_matmul(d, weight), dw, db)
}

pub(crate) fn portable_scores<B: Backend>(
    states: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    targets: &[TokenId],
) -> FloatTensor<B> {
    let n = targets.len();
    let (logits, _) = portable_logits::<B>(states, weight, bias);
    let own = portable_indices::<B>(targets, &logits);
    let log_p = B::log_softmax(logits, 1);
    let row = |t| B::float_reshape(t, Shape::new([1, n]));
    B::float_cat(vec![row(B::float_gather(1, log_p.clone(), own)), row(B::float_max_dim(log_p, 1))], 0)
}

/// Tokens a chunk: about four million logits, and no fewer than 256 rows, since each chunk's products pass over the whole
/// weight.
pub(crate) fn chunk_rows(vocabulary: usize) -> usize {
    ((1 << 22) / vocabulary).max(256)
}

/// `Σ_v eˣ` with the row's maximum taken off; the row is left as those exponentials. → (maximum, sum)
#[inline(always)]
fn exponentials_body<const FMA: bool>(row: &mut [f32], bias: &[f32]) -> (f32, f32) {
    let top = add_bias(row, bias);
    let mut sums = [0.0; 16];
    let mut rows = row.chunks_exact_mut(16);
    for x in rows.by_ref() {
        for j in 0..16 {
            x[j] = exp::<FMA>(x[j] - top);
            sums[j] += x[j];
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for x in rows.into_remainder() {
        *x = exp::<FMA>(*x - top);
        sum += *x;
    }
    (top, sum)
}
multiversion!(pub(crate) fn exponentials(row: &mut [f32], bias: &[f32]) -> (f32, f32) = exponentials_body);

/// Adds the bias to a row; → the largest sum.
#[inline(always)]
pub(crate) fn add_bias(row: &mut [f32], bias: &[f32]) -> f32 {
    let mut tops = [f32::NEG_INFINITY; 16];
    let (mut rows, mut biases) = (row.chunks_exact_mut(16), bias.chunks_exact(16));
    for (x, b) in rows.by_ref().zip(biases.by_ref()) {
        for j in 0..16 {
            x[j] += b[j];
            tops[j] = if tops[j] > x[j] { tops[j] } else { x[j] };
        }
    }
    let mut top = tops.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b });
    for (x, b) in rows.into_remainder().iter_mut().zip(biases.remainder()) {
        *x += b;
        top = if top > *x { top } else { *x };
    }
    top
}

/// `Σ e^(x − top)`.
#[inline(always)]
fn exponential_sum_body<const FMA: bool>(row: &[f32], top: f32) -> f32 {
    let mut sums = [0.0; 16];
    let chunks = row.chunks_exact(16);
    let mut rest = 0.0;
    for &x in chunks.remainder() {
        rest += exp::<FMA>(x - top);
    }
    for x in chunks {
        for j in 0..16 {
            sums[j] += exp::<FMA>(x[j] - top);
        }
    }
    sums.iter().sum::<f32>() + rest
}
multiversion!(pub(crate) fn exponential_sum(row: &[f32], top: f32) -> f32 = exponential_sum_body);

/// Adds the bias to a row; → `ln Σ_v eˣ`, with the row's maximum taken off on the way.
#[inline(always)]
fn log_partition_body<const FMA: bool>(row: &mut [f32], bias: &[f32]) -> f32 {
    let top = add_bias(row, bias);
    top + exponential_sum_body::<FMA>(row, top).ln()
}
multiversion!(pub(crate) fn log_partition(row: &mut [f32], bias: &[f32]) -> f32 = log_partition_body);

/// `row · scale − shift`.
#[inline(always)]
fn rescale_body<const FMA: bool>(row: &mut [f32], scale: f32, shift: f32) {
    for x in row {
        *x = *x * scale - shift;
    }
}
multiversion!(pub(crate) fn rescale(row: &mut [f32], scale: f32, shift: f32) = rescale_body);

/// The sum of `values`, in sixteen running sums.
#[inline(always)]
fn sum_body<const FMA: bool>(values: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    let chunks = values.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for j in 0..16 {
            sums[j] += chunk[j];
        }
    }
    sums.iter().sum::<f32>() + rest
}
multiversion!(pub(crate) fn sum(values: &[f32]) -> f32 = sum_body);

impl LossOps for Flex {
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
        let (states, weight, bias) = (dense(states), dense(weight), dense(bias));
        let (v, bias) = (weight.shape()[0], slice(&bias));
        let even = smoothing / v as f32;
        let bias_total = f64::from(sum(bias));
        let judge = |(): &(), _: usize, target: TokenId, row: &mut [f32]| {
            let own = f64::from(row[target as usize] + bias[target as usize]);
            let total = if smoothing > 0.0 { f64::from(sum(row)) + bias_total } else { 0.0 };
            let (top, z) = exponentials(row, bias);
            rescale(row, 1.0 / z, even);
            row[target as usize] -= 1.0 - smoothing;
            let log_z = f64::from(top) + f64::from(z).ln();
            [log_z - f64::from(1.0 - smoothing) * own - f64::from(even) * total]
        };
        let ([loss], ds, dw, db) = chunked_gradients(&states, &weight, &targets, |_| (), judge);
        (wrap(vec![loss as f32], [1]), ds, dw, db)
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
        let (states, weight, bias) = (dense(states), dense(weight), dense(bias));
        let (n, v) = (targets.len(), weight.shape()[0]);
        let mut scores = vec![0.0; 2 * n];
        for_chunks(slice(&states), slice(&weight), v, &targets, |first, targets, logits| {
            let judged: Vec<(f32, f32)> = logits
                .par_chunks_exact_mut(v)
                .zip(targets.par_iter())
                .map(|(row, &target)| {
                    let own = row[target as usize] + slice(&bias)[target as usize];
                    let (top, z) = exponentials(row, slice(&bias));
                    (own - top - z.ln(), -z.ln())
                })
                .collect();
            for (i, (own, best)) in judged.into_iter().enumerate() {
                (scores[first + i], scores[n + first + i]) = (own, best);
            }
        });
        wrap(scores, [2, n])
    }
}

/// Losses summed over the rows, and the gradients of states, weight and bias from those of the logits.
///
/// `begin`: what a chunk of rows needs. `judge` is handed that, a row's number in the chunk, its target and its logits without bias; it
/// leaves their gradient in their place, and gives the row's losses.
pub(crate) fn chunked_gradients<const K: usize, C: Sync>(
    states: &FlexTensor,
    weight: &FlexTensor,
    targets: &[TokenId],
    mut begin: impl FnMut(Range<usize>) -> C,
    judge: impl Fn(&C, usize, TokenId, &mut [f32]) -> [f64; K] + Sync,
) -> ([f64; K], FlexTensor, FlexTensor, FlexTensor) {
    let (n, v, h) = (targets.len(), weight.shape()[0], weight.shape()[1]);
    let (states, weight) = (slice(states), slice(weight));
    let (mut ds, mut dw) = (unwritten(n * h), unwritten(v * h));
    let mut db = vec![0.0; v];
    let mut total = [0.0_f64; K];
    for_chunks(states, weight, v, targets, |first, targets, logits| {
        let m = targets.len();
        let of_chunk = begin(first..first + m);
        let rows = logits.par_chunks_exact_mut(v).zip(targets.par_iter()).enumerate();
        let losses: Vec<[f64; K]> = rows.map(|(i, (row, &target))| judge(&of_chunk, i, target, row)).collect();
        for (k, total) in total.iter_mut().enumerate() {
            *total += losses.iter().map(|losses| losses[k]).sum::<f64>();
        }
        let rows = &states[first * h..][..m * h];
        let (wide, narrow) = (Strides::rows(v), Strides::rows(h));
        let to = narrow.at(first * h);
        product_into([m, h, v], &mut ds, to, logits, wide, weight, narrow);
        let d = Strides::transposed(v);
        if first == 0 {
            product_into([v, h, m], &mut dw, narrow, logits, d, rows, narrow);
        } else {
            // SAFETY: the first chunk has written all of it.
            let dw = unsafe { dw.assume_init_mut() };
            product([v, h, m], dw, narrow, true, logits, d, rows, narrow);
        }
        const COLUMNS: usize = 512;
        db.par_chunks_mut(COLUMNS).enumerate().for_each(|(k, sums)| {
            for row in logits.chunks_exact(v) {
                sums.iter_mut().zip(&row[k * COLUMNS..]).for_each(|(sum, d)| *sum += d);
            }
        });
    });
    // SAFETY: the products of each chunk have written its rows of `ds`, those of the first one all of `dw`.
    let (ds, dw) = unsafe { (written(ds), written(dw)) };
    (total, wrap(ds, [n, h]), wrap(dw, [v, h]), wrap(db, [v]))
}

/// Calls `visit(first row, the chunk's targets, its logits without bias)`; the buffer of the logits is reused.
fn for_chunks(
    states: &[f32],
    weight: &[f32],
    v: usize,
    targets: &[TokenId],
    mut visit: impl FnMut(usize, &[TokenId], &mut [f32]),
) {
    let (h, size) = (weight.len() / v, chunk_rows(v));
    let mut logits = unwritten(size.min(targets.len()) * v);
    for (k, targets) in targets.chunks(size).enumerate() {
        let (first, m) = (k * size, targets.len());
        let (from, right) = (Strides::rows(h).at(first * h), Strides::transposed(h));
        product_into([m, v, h], &mut logits, Strides::rows(v), states, from, weight, right);
        // SAFETY: the chunk's product has written as much.
        visit(first, targets, unsafe { logits[..m * v].assume_init_mut() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::random::Key;
    use burn::tensor::DType;

    fn numbers(tensor: FlexTensor) -> Vec<f64> {
        tensor.into_data().convert_dtype(DType::F64).try_to_vec::<f64>().unwrap()
    }

    fn random(name: &str, dims: &[usize]) -> TensorData {
        let key = Key::from_seed(9).named(name);
        let n: usize = dims.iter().product();
        TensorData::new((0..n as u64).map(|i| key.normal(i) as f32).collect::<Vec<f32>>(), dims.to_vec())
    }

    fn run_as(dtype: DType, inputs: &[TensorData; 3], targets: &Arc<[TokenId]>, smoothing: f32) -> Vec<Vec<f64>> {
        let [s, w, b] = inputs.clone().map(|d| FlexTensor::from_data(d.convert_dtype(dtype)));
        let scores = Flex::token_scores(s.clone(), w.clone(), b.clone(), targets.clone());
        let (loss, ds, dw, db) = Flex::cross_entropy_gradients(s, w, b, targets.clone(), smoothing);
        [loss, ds, dw, db, scores].map(numbers).into()
    }

    #[test]
    fn the_chunked_body_equals_the_portable_body() {
        // The last case takes several chunks; vocabularies that are no multiple of the vector width.
        let several = (600, 9000, 8);
        assert!(several.0 > chunk_rows(several.1));
        for (n, v, h) in [(1, 5, 3), (70, 37, 16), several] {
            let inputs = [random("s", &[n, h]), random("w", &[v, h]), random("b", &[v])];
            let targets: Arc<[TokenId]> = (0..n).map(|i| ((i * 31 + 2) % v) as TokenId).collect();
            for smoothing in [0.0, 0.1] {
                let fast = run_as(DType::F32, &inputs, &targets, smoothing);
                let oracle = run_as(DType::F64, &inputs, &targets, smoothing);
                for (part, (fast, oracle)) in fast.iter().zip(&oracle).enumerate() {
                    assert_eq!(fast.len(), oracle.len());
                    let scale = oracle.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
                    for (a, b) in fast.iter().zip(oracle) {
                        assert!((a - b).abs() < 2e-5 * scale, "{n} {v} {h} part {part}: {a} is not {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let inputs = [random("s", &[4, 3]), random("w", &[6, 3]), random("b", &[6])];
        let targets: Arc<[TokenId]> = vec![1, 5, 0, 5].into();
        let exact = run_as(DType::F64, &inputs, &targets, 0.2);
        for input in 0..3 {
            let values = inputs[input].clone().convert_dtype(DType::F64).try_to_vec::<f64>().unwrap();
            for i in 0..values.len() {
                let moved = |by: f64| {
                    let (mut v, mut moved) = (values.clone(), inputs.clone());
                    v[i] += by;
                    moved[input] = TensorData::new(v, inputs[input].shape());
                    run_as(DType::F64, &moved, &targets, 0.2)[0][0]
                };
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                assert!((slope - exact[input + 1][i]).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn the_graph_scales_the_gradient_and_scores_agree_with_the_loss() {
        let device = burn::tensor::Device::flex().autodiff();
        let leaf = |name, dims: &[usize]| Tensor::<2>::from_data(random(name, dims), &device).require_grad();
        let (states, weight) = (leaf("s", &[4, 3]), leaf("w", &[6, 3]));
        let given =
            || Projection { states: states.clone(), weight: weight.clone(), bias: None, targets: vec![1, 5, 0, 5] };
        let loss = cross_entropy(given(), 0.0);
        let scores =
            token_scores(Projection { states: states.clone().inner(), weight: weight.clone().inner(), ..given() });
        let total: f32 = scores.log_probs.iter().sum();
        assert!((loss.clone().into_scalar::<f32>() + total).abs() < 1e-4);
        let gradient =
            |loss: Tensor<1>| weight.grad(&loss.backward()).unwrap().into_data().try_to_vec::<f32>().unwrap();
        let (once, twice) = (gradient(loss), gradient(cross_entropy(given(), 0.0) * 2.0));
        for (a, b) in once.iter().zip(twice) {
            assert!((2.0 * a - b).abs() < 1e-5);
        }
    }
}
