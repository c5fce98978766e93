//! Bodies on plain slices, with gradients by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use antiphon_core::{Special, TokenId};
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use rayon::prelude::*;

use super::{IMPOSSIBLE, Pointing};
use crate::attention::rows::{dots, weighted_sum};
use crate::flex::{dense, slice, wrap};
use crate::loss::{chunked_gradients, exponential_sum, exponentials, rescale, sum};
use crate::vector::{exp, multiply_add, multiversion};

/// The operation as Burn's backends see it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait PointerOps: Backend {
    /// → `[2, N]`
    fn pointed(queries: FloatTensor<Self>, memory: FloatTensor<Self>, pointing: Pointing) -> FloatTensor<Self>;
}

/// A backend that has the operation.
trait Body: PointerOps {
    /// → (`[2, N]`, the scores `[N, S]`)
    fn forward(
        queries: FloatTensor<Self>,
        memory: FloatTensor<Self>,
        pointing: &Pointing,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// From the gradient of what `forward` left → those of queries and memory
    fn backward(
        gradient: FloatTensor<Self>,
        queries: FloatTensor<Self>,
        memory: FloatTensor<Self>,
        left: [FloatTensor<Self>; 2],
        pointing: &Pointing,
    ) -> [FloatTensor<Self>; 2];
}

#[derive(Debug)]
struct PointerNode;

impl<B: Body> Backward<B, 2> for PointerNode {
    type State = ([FloatTensor<B>; 2], [FloatTensor<B>; 2], Pointing);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let ([queries, memory], left, pointing) = ops.state;
        for (parent, gradient) in ops.parents.into_iter().zip(B::backward(gradient, queries, memory, left, &pointing)) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Body, C: CheckpointStrategy> PointerOps for Autodiff<B, C> {
    fn pointed(queries: FloatTensor<Self>, memory: FloatTensor<Self>, pointing: Pointing) -> FloatTensor<Self> {
        let ((queries, q), (memory, m)) = (queries.into_parts(), memory.into_parts());
        match PointerNode.prepare::<C>([q, m]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (sums, scores) = B::forward(queries.clone(), memory.clone(), &pointing);
                prep.finish(([queries, memory], [sums.clone(), scores], pointing), sums)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::pointed(queries, memory, pointing)),
        }
    }
}

/// The first query of each row, and behind them the number of all.
fn firsts(pointing: &Pointing) -> Vec<usize> {
    let mut firsts = vec![0];
    for &queries in &*pointing.queries {
        firsts.push(firsts[firsts.len() - 1] + queries as usize);
    }
    firsts
}

/// `ln Σ e^score` over scores of which some may be [`IMPOSSIBLE`].
fn log_sum(scores: &[f32]) -> f32 {
    let top = scores.iter().fold(IMPOSSIBLE, |top, &score| if score > top { score } else { top });
    if top == IMPOSSIBLE { IMPOSSIBLE } else { top + exponential_sum(scores, top).ln() }
}

impl PointerOps for Flex {
    fn pointed(queries: FloatTensor<Self>, memory: FloatTensor<Self>, pointing: Pointing) -> FloatTensor<Self> {
        Self::forward(queries, memory, &pointing).0
    }
}

impl Body for Flex {
    fn forward(queries: FlexTensor, memory: FlexTensor, pointing: &Pointing) -> (FlexTensor, FlexTensor) {
        let (queries, memory) = (dense(queries), dense(memory));
        let [n, width] = std::array::from_fn(|i| queries.shape()[i]);
        let steps = memory.shape()[1];
        let (queries, memory) = (slice(&queries), slice(&memory));
        let mut scores = vec![IMPOSSIBLE; n * steps];
        let rows: Vec<usize> = pointing.rows().collect();
        let each = scores.par_chunks_exact_mut(steps).zip(queries.par_chunks_exact(width)).zip(&rows);
        let sums: Vec<(f32, f32)> = each
            .zip(&*pointing.labels)
            .map(|(((scores, query), &row), &label)| {
                let says = &pointing.says[row * steps..][..steps];
                let real = says.iter().rposition(|&says| says != Special::Pad.id()).map_or(0, |last| last + 1);
                let (scores, says) = (&mut scores[..real], &says[..real]);
                dots(query, &memory[row * steps * width..][..real * width], scores);
                let mut of_label = Vec::new();
                for (score, &says) in scores.iter_mut().zip(says) {
                    if says == Special::Pad.id() {
                        *score = IMPOSSIBLE;
                    } else if says == label {
                        of_label.push(*score);
                    }
                }
                (log_sum(&of_label), log_sum(scores))
            })
            .collect();
        let sums = sums.iter().map(|sums| sums.0).chain(sums.iter().map(|sums| sums.1)).collect();
        (wrap(sums, [2, n]), wrap(scores, [n, steps]))
    }

    fn backward(
        gradient: FlexTensor,
        queries: FlexTensor,
        memory: FlexTensor,
        [sums, scores]: [FlexTensor; 2],
        pointing: &Pointing,
    ) -> [FlexTensor; 2] {
        let (queries, memory) = (dense(queries), dense(memory));
        let [n, width] = std::array::from_fn(|i| queries.shape()[i]);
        let [b, steps, _] = std::array::from_fn(|i| memory.shape()[i]);
        let (queries, memory, sums, scores) = (slice(&queries), slice(&memory), slice(&sums), slice(&scores));
        let gradient = dense(gradient);
        let gradient = slice(&gradient);
        let (mut d_queries, mut d_memory) = (vec![0.0; n * width], vec![0.0; b * steps * width]);
        // Each row's own part of the queries' gradients.
        let (firsts, mut rest, mut parts) = (firsts(pointing), &mut d_queries[..], Vec::with_capacity(b));
        for row in firsts.windows(2) {
            let (part, behind) = rest.split_at_mut((row[1] - row[0]) * width);
            parts.push(part);
            rest = behind;
        }
        let rows = parts.into_par_iter().zip(d_memory.par_chunks_exact_mut(steps * width)).enumerate();
        rows.for_each(|(row, (d_queries, d_memory))| {
            let says = &pointing.says[row * steps..][..steps];
            let real = says.iter().rposition(|&says| says != Special::Pad.id()).map_or(0, |last| last + 1);
            let memory = &memory[row * steps * width..][..real * width];
            let mut d = vec![0.0; real];
            for (at, d_query) in (firsts[row]..).zip(d_queries.chunks_exact_mut(width)) {
                let (of_label, of_all) = (sums[at], sums[n + at]);
                let (d_label, d_all) = (gradient[at], gradient[n + at]);
                if of_all == IMPOSSIBLE {
                    continue;
                }
                let scores = &scores[at * steps..][..real];
                shares(scores, of_all, d_all, &mut d);
                let label = pointing.labels[at];
                for ((d, &says), &score) in d.iter_mut().zip(says).zip(scores) {
                    if says == Special::Pad.id() {
                        *d = 0.0;
                    } else if says == label && d_label != 0.0 {
                        *d += d_label * (score - of_label).exp();
                    }
                }
                weighted_sum(&d, memory, d_query);
                spread(&d, &queries[at * width..][..width], d_memory);
            }
        });
        [wrap(d_queries, [n, width]), wrap(d_memory, [b, steps, width])]
    }
}

#[inline(always)]
fn shares_body<const FMA: bool>(scores: &[f32], log_sum: f32, by: f32, out: &mut [f32]) {
    for (out, score) in out.iter_mut().zip(scores) {
        *out = by * exp::<FMA>(score - log_sum);
    }
}
multiversion!(
    /// `out = by · e^(score − log_sum)`.
    fn shares(scores: &[f32], log_sum: f32, by: f32, out: &mut [f32]) = shares_body
);

#[inline(always)]
fn spread_body<const FMA: bool>(weights: &[f32], row: &[f32], out: &mut [f32]) {
    for (weight, out) in weights.iter().zip(out.chunks_exact_mut(row.len())) {
        for (out, x) in out.iter_mut().zip(row) {
            *out = multiply_add::<FMA>(*weight, *x, *out);
        }
    }
}
multiversion!(
    /// `out_s += weights_s · row`.
    fn spread(weights: &[f32], row: &[f32], out: &mut [f32]) = spread_body
);

/// The loss as Burn's backends see it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait CopiedOps: Backend {
    /// → `[1]`
    fn copied(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        own: FloatTensor<Self>,
        beside: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
        smoothing: f32,
    ) -> FloatTensor<Self>;
}

/// A backend that has the loss.
trait LossBody: CopiedOps {
    /// → (loss `[1]`, gradients of states, weight, bias, `own` and `beside`)
    fn gradients(
        inputs: [FloatTensor<Self>; 5],
        targets: Arc<[TokenId]>,
        smoothing: f32,
    ) -> (FloatTensor<Self>, [FloatTensor<Self>; 5]);

    /// Times a number `[1]`.
    fn times(gradient: FloatTensor<Self>, by: &FloatTensor<Self>) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct CopiedNode;

impl<B: LossBody> Backward<B, 5> for CopiedNode {
    type State = [FloatTensor<B>; 5];

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let by = grads.consume::<B>(&ops.node);
        for (parent, gradient) in ops.parents.into_iter().zip(ops.state) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, B::times(gradient, &by));
            }
        }
    }
}

impl<B: LossBody, C: CheckpointStrategy> CopiedOps for Autodiff<B, C> {
    fn copied(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        own: FloatTensor<Self>,
        beside: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
        smoothing: f32,
    ) -> FloatTensor<Self> {
        let ((states, s), (weight, w), (bias, b)) = (states.into_parts(), weight.into_parts(), bias.into_parts());
        let ((own, o), (beside, c)) = (own.into_parts(), beside.into_parts());
        match CopiedNode.prepare::<C>([s, w, b, o, c]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (loss, gradients) = B::gradients([states, weight, bias, own, beside], targets, smoothing);
                prep.finish(gradients, loss)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::copied(states, weight, bias, own, beside, targets, smoothing)),
        }
    }
}

impl CopiedOps for Flex {
    fn copied(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        own: FloatTensor<Self>,
        beside: FloatTensor<Self>,
        targets: Arc<[TokenId]>,
        smoothing: f32,
    ) -> FloatTensor<Self> {
        Self::gradients([states, weight, bias, own, beside], targets, smoothing).0
    }
}

impl LossBody for Flex {
    fn gradients(inputs: [FlexTensor; 5], targets: Arc<[TokenId]>, smoothing: f32) -> (FlexTensor, [FlexTensor; 5]) {
        let [states, weight, bias, own, beside] = inputs.map(dense);
        let (n, v) = (targets.len(), weight.shape()[0]);
        let (bias, own, beside) = (slice(&bias), slice(&own), slice(&beside));
        let (sharp, even) = (1.0 - smoothing, smoothing / v as f32);
        let bias_total = f64::from(sum(bias));
        // The vocabulary's part of each target, as bits.
        let parts: Vec<AtomicU32> = (0..n).map(|_| AtomicU32::new(0)).collect();
        let judge = |first: &usize, i: usize, target: TokenId, row: &mut [f32]| {
            let (at, place) = (first + i, target as usize);
            let beside = f64::from(beside[at]);
            if place >= v && smoothing == 0.0 {
                row.fill(0.0);
                return [-beside];
            }
            let logit = (place < v).then(|| f64::from(row[place] + bias[place]));
            let total = if smoothing > 0.0 { f64::from(sum(row)) + bias_total } else { 0.0 };
            let (top, z) = exponentials(row, bias);
            let log_z = f64::from(top) + f64::from(z).ln();
            let own = logit.map_or(f64::from(IMPOSSIBLE), |logit| f64::from(own[at]) + logit - log_z);
            let top = own.max(beside);
            let likelihood = top + ((own - top).exp() + (beside - top).exp()).ln();
            let part = (own - likelihood).exp() as f32;
            parts[at].store(part.to_bits(), Ordering::Relaxed);
            rescale(row, (sharp * part + smoothing) / z, even);
            if place < v {
                row[place] -= sharp * part;
            }
            [f64::from(smoothing) * log_z - f64::from(sharp) * likelihood - f64::from(even) * total]
        };
        let ([loss], ds, dw, db) = chunked_gradients(&states, &weight, &targets, |rows| rows.start, judge);
        let parts: Vec<f32> = parts.into_iter().map(|part| f32::from_bits(part.into_inner())).collect();
        let d_own = parts.iter().map(|part| -sharp * part).collect();
        let d_beside = parts.iter().map(|part| -sharp * (1.0 - part)).collect();
        (wrap(vec![loss as f32], [1]), [ds, dw, db, wrap(d_own, [n]), wrap(d_beside, [n])])
    }

    fn times(gradient: FlexTensor, by: &FlexTensor) -> FlexTensor {
        let by = slice(&dense(by.clone()))[0];
        <Flex as burn::backend::ops::FloatTensorOps<Flex>>::float_mul_scalar(gradient, by.into())
    }
}
