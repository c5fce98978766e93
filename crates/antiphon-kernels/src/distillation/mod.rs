//! Output projection, softmax and two cross-entropies as one operation: to the tokens that are right, and to what a teacher holds
//! of all tokens in their places (Hinton et al. 2015; of words Kim and Rush 2016, section 3.1).
//!
//! `loss = Σ_n (1 − λ) (−Σ_v t_nv log p_nv) + λ T² (−Σ_v q_nv log p_nv(T))` with the smoothed target `t` of
//! [`cross_entropy`](crate::cross_entropy), `p(T) = softmax(logits / T)` and the teacher's `q` under the same temperature. There is
//! one product for the logits and one for each gradient, on the CPU in chunks of tokens: of `[N, V]` no more is there than a chunk, of the teacher
//! neither. With `λ = 0` it has the bits of the plain loss.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use antiphon_core::TokenId;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::ops::{Backward, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, Flex, Shape, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::flex::{dense, is_f32, slice, wrap};
use crate::loss::{
    LossNode, LossOps, Projection, add_bias, chunked_gradients, exponentials, parts, portable_backward,
    portable_judgement, portable_logits, sum,
};
use crate::vector::{exp, multiversion};

/// What somebody holds of all tokens in the places of a projection.
pub trait Teaching: Send + Sync {
    /// Natural logarithms of the tokens' probabilities in some of the `N` places, `[n, V]`. What is added to a whole row counts
    /// nothing.
    fn log_probs(&self, places: Range<usize>) -> Vec<f32>;
}

/// A teacher with its part in a loss.
#[derive(Clone)]
pub struct Teacher {
    /// What it holds.
    pub says: Arc<dyn Teaching>,
    /// `λ` from 0 to 1: the share of the cross-entropy to what it holds. The tokens that are right have the rest.
    pub share: f64,
    /// `T` above 0, by which its logarithms and the logits are divided.
    pub temperature: f64,
}

impl fmt::Debug for Teacher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { says: _, share, temperature } = self;
        f.debug_struct("Teacher").field("share", share).field("temperature", temperature).finish_non_exhaustive()
    }
}

/// A loss that a teacher has a part in.
#[derive(Debug, Clone)]
pub struct TaughtLoss {
    /// `[1]`, on the graph.
    pub loss: Tensor<1>,
    /// `[1]`, off the graph: the teacher's summand in nats, `T²` included, without its share.
    pub of_teacher: Tensor<1>,
}

/// The cross-entropy in nats, summed over all tokens, of which a teacher's has a share.
///
/// # Panics
/// As [`cross_entropy`](crate::cross_entropy), or if the share is not from 0 to 1, the temperature not above 0, or the teacher's rows
/// are not as long as the vocabulary.
pub fn taught_cross_entropy(projection: Projection, label_smoothing: f32, teacher: Teacher) -> TaughtLoss {
    let Teacher { share, temperature, .. } = teacher;
    assert!((0.0..=1.0).contains(&share) && temperature > 0.0, "a share of {share}, at a temperature of {temperature}");
    let (states, weight, bias, targets) = parts(projection);
    let (loss, of_teacher) =
        <Dispatch as DistillationOps>::taught_cross_entropy(states, weight, bias, targets, label_smoothing, teacher);
    TaughtLoss { loss: Tensor::from_dispatch(loss), of_teacher: Tensor::from_dispatch(of_teacher).inner() }
}

/// (loss `[1]`, the teacher's summand `[1]`, gradients of states, weight and bias)
type Gradients5<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

/// The operation as Burn's backends see it.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub(crate) trait DistillationOps: LossOps {
    /// → (loss `[1]`, the teacher's summand `[1]`).
    fn taught_cross_entropy(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
        smoothing: f32,
        teacher: Teacher,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (loss, of_teacher, ..) =
            Self::taught_cross_entropy_gradients(states, weight, bias, targets, smoothing, teacher);
        (loss, of_teacher)
    }

    /// → (loss `[1]`, the teacher's summand `[1]`, gradients of states, weight and bias).
    #[allow(clippy::type_complexity)] // the macro above wants it spelled out
    fn taught_cross_entropy_gradients(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
        smoothing: f32,
        teacher: Teacher,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable_gradients::<Self>(states, weight, bias, &targets, smoothing, &teacher)
    }
}

impl<B: DistillationOps, C: CheckpointStrategy> DistillationOps for Autodiff<B, C> {
    fn taught_cross_entropy(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
        smoothing: f32,
        teacher: Teacher,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let ((states, s_node), (weight, w_node)) = (states.into_parts(), weight.into_parts());
        let (bias, b_node) = bias.into_parts();
        let (loss, of_teacher, ds, dw, db) =
            B::taught_cross_entropy_gradients(states, weight, bias, targets, smoothing, teacher);
        let loss = match LossNode.prepare::<C>([s_node, w_node, b_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish([ds, dw, db], loss),
            OpsKind::UnTracked(prep) => prep.finish(loss),
        };
        (loss, Self::from_inner(of_teacher))
    }
}

fn portable_gradients<B: Backend>(
    states: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    targets: &[TokenId],
    smoothing: f32,
    teacher: &Teacher,
) -> Gradients5<B> {
    let n = targets.len();
    let (logits, v) = portable_logits::<B>(states.clone(), weight.clone(), bias);
    let (device, dtype) = (logits.device(), logits.dtype());
    let &Teacher { share, temperature, .. } = teacher;
    let (hard, d) = portable_judgement::<B>(logits.clone(), targets, smoothing);

    let scaled = |t: FloatTensor<B>, by: f64| B::float_mul_scalar(t, by.into());
    let softened = |t: FloatTensor<B>| B::log_softmax(B::float_div_scalar(t, temperature.into()), 1);
    let said = TensorData::new(teacher.says.log_probs(0..n), [n, v]).convert_dtype(dtype);
    let q = B::float_exp(softened(B::float_from_data(said, &device)));
    let log_p = softened(logits);
    let soft = B::float_sum(B::float_mul(q.clone(), log_p.clone()));
    let soft = scaled(soft, -temperature * temperature);
    let apart = B::float_sub(B::float_exp(log_p), q);

    let d = B::float_add(scaled(d, 1.0 - share), scaled(apart, share * temperature));
    let loss = B::float_add(scaled(hard, 1.0 - share), scaled(soft.clone(), share));
    let (ds, dw, db) = portable_backward::<B>(d, states, weight);
    let one = |t| B::float_reshape(t, Shape::new([1]));
    (one(loss), one(soft), ds, dw, db)
}

/// `softmax(row · by)`.
#[inline(always)]
fn soften_body<const FMA: bool>(row: &mut [f32], by: f32) {
    let mut top = f32::NEG_INFINITY;
    for &x in row.iter() {
        top = if top > x { top } else { x };
    }
    let mut sums = [0.0; 16];
    let mut rows = row.chunks_exact_mut(16);
    for x in rows.by_ref() {
        for j in 0..16 {
            x[j] = exp::<FMA>((x[j] - top) * by);
            sums[j] += x[j];
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for x in rows.into_remainder() {
        *x = exp::<FMA>((*x - top) * by);
        sum += *x;
    }
    let share = 1.0 / sum;
    for x in row {
        *x *= share;
    }
}
multiversion!(fn soften(row: &mut [f32], by: f32) = soften_body);

/// `Σ_v q_v (row_v + bias_v)`.
#[inline(always)]
fn expectation_body<const FMA: bool>(row: &[f32], bias: &[f32], q: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    let (rows, biases, qs) = (row.chunks_exact(16), bias.chunks_exact(16), q.chunks_exact(16));
    let rest = rows.remainder().iter().zip(biases.remainder()).zip(qs.remainder());
    let rest: f32 = rest.map(|((x, b), q)| q * (x + b)).sum();
    for ((x, b), q) in rows.zip(biases).zip(qs) {
        for j in 0..16 {
            sums[j] += q[j] * (x[j] + b[j]);
        }
    }
    sums.iter().sum::<f32>() + rest
}
multiversion!(fn expectation(row: &[f32], bias: &[f32], q: &[f32]) -> f32 = expectation_body);

/// `row · scale − shift − share · q`.
#[inline(always)]
fn draw_body<const FMA: bool>(row: &mut [f32], q: &[f32], scale: f32, shift: f32, share: f32) {
    for (x, q) in row.iter_mut().zip(q) {
        *x = *x * scale - shift - share * q;
    }
}
multiversion!(fn draw(row: &mut [f32], q: &[f32], scale: f32, shift: f32, share: f32) = draw_body);

/// Adds the bias to a row; → (its maximum, `Σ e^(x − top)`, `Σ e^((x − top) · by)`)
#[inline(always)]
fn partitions_body<const FMA: bool>(row: &mut [f32], bias: &[f32], by: f32) -> (f32, f32, f32) {
    let top = add_bias(row, bias);
    let (mut sums, mut soft_sums) = ([0.0; 16], [0.0; 16]);
    let rows = row.chunks_exact(16);
    let rest = rows.remainder();
    for x in rows {
        for j in 0..16 {
            sums[j] += exp::<FMA>(x[j] - top);
            soft_sums[j] += exp::<FMA>((x[j] - top) * by);
        }
    }
    let (mut sum, mut soft) = (sums.iter().sum::<f32>(), soft_sums.iter().sum::<f32>());
    for &x in rest {
        sum += exp::<FMA>(x - top);
        soft += exp::<FMA>((x - top) * by);
    }
    (top, sum, soft)
}
multiversion!(fn partitions(row: &mut [f32], bias: &[f32], by: f32) -> (f32, f32, f32) = partitions_body);

/// `e^(x − top) · scale − shift + e^((x − top) · by) · soft_scale − share · q`.
#[inline(always)]
fn draw_softly_body<const FMA: bool>(
    row: &mut [f32],
    q: &[f32],
    (top, by): (f32, f32),
    (scale, shift): (f32, f32),
    (soft_scale, share): (f32, f32),
) {
    for (x, q) in row.iter_mut().zip(q) {
        let below = *x - top;
        *x = exp::<FMA>(below) * scale - shift + (exp::<FMA>(below * by) * soft_scale - share * q);
    }
}
multiversion!(
    fn draw_softly(
        row: &mut [f32],
        q: &[f32],
        at: (f32, f32),
        hard: (f32, f32),
        soft: (f32, f32),
    ) = draw_softly_body
);

impl DistillationOps for Flex {
    fn taught_cross_entropy_gradients(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
        smoothing: f32,
        teacher: Teacher,
    ) -> Gradients5<Self> {
        if !is_f32(&states) {
            return portable_gradients::<Self>(states, weight, bias, &targets, smoothing, &teacher);
        }
        let (states, weight, bias) = (dense(states), dense(weight), dense(bias));
        let (v, bias) = (weight.shape()[0], slice(&bias));
        let (share, temperature) = (teacher.share as f32, teacher.temperature as f32);
        let (own_share, by) = (1.0 - share, 1.0 / temperature);
        let even = smoothing / v as f32;
        let bias_total = f64::from(sum(bias));
        let says = |places: Range<usize>| {
            let rows = places.len();
            let mut said = teacher.says.log_probs(places);
            assert_eq!(said.len(), rows * v, "a teacher's rows are as long as the vocabulary");
            said.par_chunks_exact_mut(v).for_each(|row| soften(row, by));
            said
        };
        let judge = |said: &Vec<f32>, i: usize, target: TokenId, row: &mut [f32]| {
            let q = &said[i * v..][..v];
            let own = f64::from(row[target as usize] + bias[target as usize]);
            let all = if smoothing > 0.0 { f64::from(sum(row)) + bias_total } else { 0.0 };
            let expected = f64::from(expectation(row, bias, q));
            let (log_z, soft) = if temperature == 1.0 {
                let (top, z) = exponentials(row, bias);
                draw(row, q, 1.0 / z, own_share * even, share);
                let log_z = f64::from(top) + f64::from(z).ln();
                (log_z, log_z - expected)
            } else {
                let (top, z, soft_z) = partitions(row, bias, by);
                let soft_share = share * temperature;
                draw_softly(row, q, (top, by), (own_share / z, own_share * even), (soft_share / soft_z, soft_share));
                let (top, t) = (f64::from(top), f64::from(temperature));
                (top + f64::from(z).ln(), t * t * f64::from(soft_z).ln() + t * (top - expected))
            };
            row[target as usize] -= own_share * (1.0 - smoothing);
            let hard = log_z - f64::from(1.0 - smoothing) * own - f64::from(even) * all;
            [f64::from(own_share) * hard + f64::from(share) * soft, soft]
        };
        let ([loss, soft], ds, dw, db) = chunked_gradients(&states, &weight, &targets, says, judge);
        (wrap(vec![loss as f32], [1]), wrap(vec![soft as f32], [1]), ds, dw, db)
    }
}

#[cfg(test)]
mod tests;
