//! The most probable tokens, without all the others.

use antiphon_core::TokenId;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::loss::log_partition;
use crate::memory::unwritten;
use crate::vector::multiversion;
use crate::weight::{Weight, host};

/// The `k` best tokens of each row with the natural logarithms of their probabilities, best first; of equal ones the smaller
/// id first. A NaN counts as best, so that it is seen.
///
/// `states`: `[B, H]` · `weight`: `[H, V]` · `bias`: `[V]`; `banned` tokens read minus infinity (the others are not
/// renormalised). The logits of a few rows at a time are made, judged and forgotten in a cache.
pub fn best_tokens(
    states: Tensor<2>,
    weight: &Weight,
    bias: &[f32],
    banned: &[TokenId],
    k: usize,
) -> Vec<Vec<(TokenId, f32)>> {
    const MOST: usize = 32;
    let ([rows, width], v) = (states.dims(), bias.len());
    let judge = |logits: &mut [f32]| best_of(logits, bias, banned, k);
    let Some(packed) = weight.as_packed() else {
        return host(weight.multiply(states)).par_chunks_exact_mut(v).map(judge).collect();
    };
    let block = rows.div_ceil(rayon::current_num_threads()).clamp(1, MOST);
    let blocks = host(states);
    let blocks = blocks.par_chunks(block * width).map(|states| {
        // SAFETY: the product writes all of it.
        let mut logits = unsafe { unwritten(states.len() / width * v) };
        packed.multiply(states, &mut logits, false);
        logits.chunks_exact_mut(v).map(judge).collect::<Vec<_>>()
    });
    blocks.flatten_iter().collect()
}

/// Of one row of logits without bias, which are written over.
fn best_of(logits: &mut [f32], bias: &[f32], banned: &[TokenId], k: usize) -> Vec<(TokenId, f32)> {
    let log_z = log_partition(logits, bias);
    if log_z.is_nan() {
        logits.fill(f32::NAN);
    }
    banned.iter().for_each(|&id| logits[id as usize] = f32::NEG_INFINITY);
    top(logits, k).into_iter().map(|(logit, id)| (id, logit - log_z)).collect()
}

/// The `k` best of a row, best first.
fn top(row: &[f32], k: usize) -> Vec<(f32, TokenId)> {
    let above = |a: f32, b: f32| a > b || (a.is_nan() && !b.is_nan());
    let mut best: Vec<(f32, TokenId)> = Vec::with_capacity(k + 1);
    let mut first = 0;
    while first < row.len() {
        if best.len() == k {
            first += passed_over(&row[first..], best[k - 1].0);
        }
        let end = row.len().min(first + STRETCH);
        for (id, &score) in row[first..end].iter().enumerate() {
            if best.len() < k || above(score, best[k - 1].0) {
                let at = best.iter().position(|&(other, _)| above(score, other)).unwrap_or(best.len());
                best.insert(at, (score, (first + id) as TokenId));
                best.truncate(k);
            }
        }
        first = end;
    }
    best
}

/// Numbers that are looked at together.
const STRETCH: usize = 64;

multiversion! {
    /// How many numbers at the head of a row, in whole stretches, are not above `bound` (nor NaN).
    fn passed_over(row: &[f32], bound: f32) -> usize = passed_over_body
}
#[inline(always)]
fn passed_over_body<const FMA: bool>(row: &[f32], bound: f32) -> usize {
    let (stretches, _) = row.as_chunks::<STRETCH>();
    let low = |stretch: &[f32; STRETCH]| stretch.iter().fold(true, |low, &x| low & (x <= bound));
    stretches.iter().position(|stretch| !low(stretch)).unwrap_or(stretches.len()) * STRETCH
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_softmax_rows;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn the_best_come_first_and_ties_by_id() {
        let row = [0.5, 2.0, 2.0, f32::NEG_INFINITY, 1.0];
        let ids = |k| top(&row, k).into_iter().map(|(_, id)| id).collect::<Vec<_>>();
        assert_eq!(ids(3), [1, 2, 4]);
        assert_eq!(ids(5), [1, 2, 4, 0, 3]);
        assert_eq!(top(&[0.0, f32::NAN, 1.0], 1)[0].1, 1);
        // In a long row, behind many that are passed over, and one from the last, shorter stretch.
        let mut row: Vec<f32> = (0..1000).map(|i| -(i as f32)).collect();
        (row[700], row[701], row[990]) = (5.0, f32::NAN, 6.0);
        assert_eq!(top(&row, 4).into_iter().map(|(_, id)| id).collect::<Vec<_>>(), [701, 990, 700, 0]);
    }

    #[test]
    fn they_are_the_best_of_all_log_probabilities() {
        let (rows, h, v) = (70, 11, 37);
        let draw = |dims: [usize; 2]| Tensor::<2>::random(dims, Distribution::Default, &Device::flex());
        let (states, weight, bias) = (draw([rows, h]), Weight::new(draw([h, v])), host(draw([1, v])));
        let mut all = host(weight.multiply(states.clone()));
        log_softmax_rows(&mut all, &bias);
        for (row, best) in all.chunks_exact(v).zip(best_tokens(states, &weight, &bias, &[3], 5)) {
            let mut order: Vec<TokenId> = (0..v as TokenId).filter(|&id| id != 3).collect();
            order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
            assert!(best.iter().map(|(id, _)| id).eq(&order[..5]), "{best:?}, not {order:?}");
            assert!(best.iter().all(|&(id, log_prob)| (log_prob - row[id as usize]).abs() < 1e-6), "{best:?}");
        }
    }
}
