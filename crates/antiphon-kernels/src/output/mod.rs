//! The projection onto the vocabulary in a search: all log-probabilities, or the best few without the others.
//!
//! A search wants the `k` best tokens of a state; of all others it needs only their share in the sum under the softmax. So
//! the CPU *screens* the vocabulary in integers of 16 bits, which it multiplies up to twice as fast as `f32`, and computes
//! again in `f32` what counts. With a state `x` and a token's weight `w`, rounded to `x̂` and `ŵ`,
//!
//! `|x·w − x̂·ŵ| ≤ ‖x‖ ‖w − ŵ‖ + ‖x − x̂‖ ‖ŵ‖` (Cauchy–Schwarz),
//!
//! and so every token whose screened logit lies no more than twice that bound below the `k`-th best may be one of the `k`
//! best. These few are computed in `f32`, for their order and for the sum: the `k` best are those of a search in `f32`. What is
//! left of the rounding is in the share of the others in that sum, where it mostly averages out; it moves the
//! log-probabilities of a state, all by the same, by some 2e-5 (`tests::screening_costs_little`).

mod choice;
mod contest;
mod rounded;

use std::sync::OnceLock;

use antiphon_core::{Mask, TokenId};
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::attention::rows::dots;
use crate::flex::serves;
use crate::loss::{log_partition, log_softmax_rows};
use crate::packed::Packed;
use crate::product::Strides;
use crate::vector::multiversion;
use crate::weight::{Weight, host, share};
use choice::{Choice, in_order};
use contest::Contest;
use rounded::Rounded;

/// The weight and the bias that make logits of states, ready for many steps.
#[derive(Debug)]
pub struct OutputLayer {
    /// `[V, H]`.
    weight: Tensor<2>,
    /// `[V]`.
    bias: Vec<f32>,
    /// For all logits, if anybody wants them.
    all: OnceLock<Weight>,
    /// Where the CPU screens.
    screen: Option<Screen>,
}

/// Columns that are screened together: the sums of a task's rows lie in the second-level cache.
const COLUMNS: usize = 384;

impl OutputLayer {
    /// From `[V, H]` and `[V]`, off the graph.
    pub fn new(weight: Tensor<2>, bias: Tensor<1>) -> Self {
        let screen = serves(&weight).then(|| Screen::new(host(weight.clone()), weight.dims()));
        Self { weight, bias: host(bias), all: OnceLock::new(), screen }
    }

    /// `V`.
    pub fn vocabulary(&self) -> usize {
        self.bias.len()
    }

    /// The log-probabilities of all tokens for states `[B, H]`, row after row: `B · V` numbers.
    pub fn log_probs(&self, states: Tensor<2>) -> Vec<f32> {
        let mut logits = self.logits(states);
        log_softmax_rows(&mut logits, &self.bias);
        logits
    }

    /// Without the bias.
    fn logits(&self, states: Tensor<2>) -> Vec<f32> {
        // Packed outside of the cell: a thread that waits there for others could be given a task that waits for the cell.
        if self.all.get().is_none() {
            let _ = self.all.set(Weight::transposed(self.weight.clone()));
        }
        host(self.all.get().expect("it was set").multiply(states))
    }

    /// The `k` best tokens of each state of `[B, H]` with their log-probabilities, best first; of equal ones the smaller id
    /// first. A NaN counts as best, so that it is seen; a norm that overflows is as good as one.
    ///
    /// What no row may choose is `banned`; what one row may choose says its one of `masks`, of which there are as many as
    /// rows, or none. What is masked reads minus infinity (the others are not renormalised); where fewer than `k` tokens are
    /// left, masked ones fill the row, the smaller id first. A mask costs its own row alone, and changes no other row. `k`
    /// beyond `V` is `V`.
    ///
    /// # Panics
    /// If a token that is banned or in a mask lies beyond the vocabulary, or there are not as many masks as rows.
    pub fn best(&self, states: Tensor<2>, banned: &[TokenId], masks: &[Mask], k: usize) -> Vec<Vec<(TokenId, f32)>> {
        let ([rows, width], vocabulary) = (states.dims(), self.vocabulary());
        let k = k.min(vocabulary);
        let below = |ids: &[TokenId]| ids.iter().all(|&id| (id as usize) < vocabulary);
        assert!(below(banned), "banned tokens lie below V");
        assert!(masks.is_empty() || masks.len() == rows, "{} masks for {rows} rows", masks.len());
        assert!(
            masks.iter().all(|mask| match mask {
                Mask::Free => true,
                Mask::Banned(ids) | Mask::Allowed(ids) => below(ids),
            }),
            "masked tokens lie below V"
        );
        if k == 0 {
            return vec![Vec::new(); rows];
        }
        let banned = in_order(banned.to_vec());
        let mask = |row: usize| masks.get(row).unwrap_or(&Mask::Free);
        let choices: Vec<Choice<'_>> = (0..rows).map(|row| Choice::new(&banned, mask(row), vocabulary, k)).collect();
        let Some(screen) = &self.screen else {
            let mut logits = self.logits(states);
            let rows = logits.par_chunks_exact_mut(vocabulary).zip(&choices);
            return rows.map(|(logits, choice)| best_of_all(logits, &self.bias, choice, k)).collect();
        };
        let (states, share) = (host(states), share(rows));
        let blocks = states.par_chunks(share * width).zip(choices.par_chunks(share));
        blocks.flat_map_iter(|(states, choices)| screen.best(states, &self.bias, choices, k)).collect()
    }
}

/// The best of one row of logits without bias, which are written over.
fn best_of_all(logits: &mut [f32], bias: &[f32], choice: &Choice<'_>, k: usize) -> Vec<(TokenId, f32)> {
    let log_z = log_partition(logits, bias);
    if log_z.is_nan() {
        return choice.not_a_number(logits.len(), k);
    }
    let best = match choice {
        Choice::AllBut(banned) => {
            banned.iter().for_each(|&id| logits[id as usize] = f32::NEG_INFINITY);
            let mut contest = Contest::new(k, 0.0);
            contest.offer(logits, 0);
            contest.best
        }
        Choice::Only(only) => choice.best_of_only(only.iter().map(|&id| (logits[id as usize], id)).collect(), k),
    };
    best.into_iter().map(|(logit, id)| (id, logit - log_z)).collect()
}

/// The weight in integers of 16 bits, and in full.
#[derive(Debug)]
struct Screen {
    /// `[V, H]`.
    exact: Vec<f32>,
    /// `[⌈H/2⌉, V]`: pairs.
    rounded: Packed<i32>,
    /// `[V]`: what one unit of a token's integers is worth.
    units: Vec<f32>,
    /// The largest `‖ŵ‖` and the largest `‖w − ŵ‖` of a token; infinite, if some number is none.
    norm: f32,
    error: f32,
}

impl Screen {
    fn new(exact: Vec<f32>, [vocabulary, width]: [usize; 2]) -> Self {
        let half = width.div_ceil(2);
        let mut pairs = vec![0; vocabulary * half];
        let rows = exact.par_chunks_exact(width).zip(pairs.par_chunks_exact_mut(half));
        let rounded: Vec<Rounded> = rows.map(|(row, pairs)| Rounded::new(row, pairs)).collect();
        let largest = |of: fn(&Rounded) -> f32| rounded.iter().map(of).fold(0.0, f32::max);
        Self {
            units: rounded.iter().map(|row| row.unit).collect(),
            norm: largest(|row| row.norm),
            error: largest(|row| row.error),
            rounded: Packed::new(&pairs, Strides::transposed(half), [half, vocabulary]),
            exact,
        }
    }

    /// How far the screened logit of a state can lie from the true one.
    fn bound(&self, state: &Rounded) -> f32 {
        // The hundredth is for the rounding of the norms and of the logits themselves.
        1.01 * ((state.norm + state.error) * self.error + state.error * self.norm) + 1e-6 * state.norm * self.norm
    }

    /// The best tokens of a few states, on the calling thread.
    fn best(&self, states: &[f32], bias: &[f32], choices: &[Choice<'_>], k: usize) -> Vec<Vec<(TokenId, f32)>> {
        let [half, vocabulary] = self.rounded.dims();
        let width = self.exact.len() / vocabulary;
        let mut pairs = vec![0; states.len() / width * half];
        let rows = states.chunks_exact(width).zip(pairs.chunks_exact_mut(half));
        let rounded: Vec<Rounded> = rows.map(|(state, pairs)| Rounded::new(state, pairs)).collect();
        let mut contests: Vec<Contest> = rounded.iter().map(|state| Contest::new(k, 2.0 * self.bound(state))).collect();
        let mut sums = Vec::new();
        for (first, panels) in self.rounded.blocks(COLUMNS) {
            let columns = first..first + panels.columns();
            sums.resize(rounded.len() * columns.len(), 0.0);
            panels.multiply(&pairs, &mut sums, false);
            let rows = sums.chunks_exact_mut(columns.len()).zip(&rounded).zip(contests.iter_mut().zip(choices));
            for ((sums, state), (contest, choice)) in rows {
                let top = worth(sums, state.unit, &self.units[columns.clone()], &bias[columns.clone()]);
                contest.add(sums, top);
                for &id in choice.banned_within(columns.start, columns.end) {
                    contest.banned.push((std::mem::replace(&mut sums[id as usize - first], f32::NEG_INFINITY), id));
                }
                contest.offer(sums, first);
            }
        }
        let rows = states.chunks_exact(width).zip(contests.into_iter().zip(choices));
        rows.map(|(state, (contest, choice))| {
            if !contest.slack.is_finite() {
                return choice.not_a_number(vocabulary, k);
            }
            let exact = |id: TokenId| self.logit(state, id) + bias[id as usize];
            let (mut best, log_z) = contest.settle(exact);
            if let Choice::Only(only) = choice {
                // The contest was for the sum alone: of all tokens, as in a row that may choose them.
                best = choice.best_of_only(only.iter().map(|&id| (exact(id), id)).collect(), k);
            }
            best.into_iter().map(|(logit, id)| (id, logit - log_z)).collect()
        })
        .collect()
    }

    /// The logit of one token without bias.
    fn logit(&self, state: &[f32], id: TokenId) -> f32 {
        let mut logit = [0.0];
        dots(state, &self.exact[id as usize * state.len()..][..state.len()], &mut logit);
        logit[0]
    }
}

multiversion! {
    /// Sums of integers become logits; → the largest.
    fn worth(sums: &mut [f32], unit: f32, units: &[f32], bias: &[f32]) -> f32 = worth_body
}
#[inline(always)]
fn worth_body<const FMA: bool>(sums: &mut [f32], unit: f32, units: &[f32], bias: &[f32]) -> f32 {
    let n = sums.len();
    let (units, bias) = (&units[..n], &bias[..n]);
    for j in 0..n {
        sums[j] = sums[j] * (unit * units[j]) + bias[j];
    }
    let mut tops = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = sums.as_chunks::<16>();
    for chunk in chunks {
        for j in 0..16 {
            tops[j] = if chunk[j] > tops[j] { chunk[j] } else { tops[j] };
        }
    }
    tops.iter().chain(rest).fold(f32::NEG_INFINITY, |top, &x| if x > top { x } else { top })
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::random::Key;
    use burn::tensor::{Device, TensorData};

    fn random<const D: usize>(name: &str, dims: [usize; D], scale: f32) -> Tensor<D> {
        let key = Key::from_seed(3).named(name);
        let n: usize = dims.iter().product();
        let numbers: Vec<f32> = (0..n as u64).map(|i| key.normal(i) as f32 * scale).collect();
        Tensor::from_data(TensorData::new(numbers, dims), &Device::flex())
    }

    /// Log-probabilities in `f64`.
    fn truth(states: &Tensor<2>, weight: &Tensor<2>, bias: &Tensor<1>) -> Vec<Vec<f64>> {
        let [h, v] = [states.dims()[1], weight.dims()[0]];
        let (states, weight, bias) = (host(states.clone()), host(weight.clone()), host(bias.clone()));
        let logit = |state: &[f32], id: usize| {
            let products = state.iter().zip(&weight[id * h..][..h]).map(|(&x, &w)| f64::from(x) * f64::from(w));
            products.sum::<f64>() + f64::from(bias[id])
        };
        let row = |state: &[f32]| {
            let logits: Vec<f64> = (0..v).map(|id| logit(state, id)).collect();
            let log_z = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            logits.into_iter().map(|x| x - log_z).collect()
        };
        states.chunks_exact(h).map(row).collect()
    }

    fn best_of_row(row: &[f64], banned: &[TokenId], k: usize) -> Vec<TokenId> {
        let mut order: Vec<TokenId> = (0..row.len() as TokenId).filter(|id| !banned.contains(id)).collect();
        order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]).then(a.cmp(&b)));
        order.truncate(k);
        order
    }

    #[test]
    fn they_are_the_best_of_all_whatever_the_sizes() {
        for (rows, h, v, scale) in [(70, 11, 37, 1.0), (1, 1, 3, 1.0), (3, 64, 1000, 0.3), (5, 33, 9, 4.0)] {
            let (states, weight) = (random("states", [rows, h], scale), random("weight", [v, h], scale));
            let bias = random("bias", [v], 1.0);
            let layer = OutputLayer::new(weight.clone(), bias.clone());
            let k = 5.min(v - 1);
            let all = layer.log_probs(states.clone());
            let given = layer.best(states.clone(), &[1], &[], k);
            assert_eq!(given.len(), rows);
            for ((row, best), all) in truth(&states, &weight, &bias).iter().zip(given).zip(all.chunks_exact(v)) {
                assert!(best.iter().map(|(id, _)| *id).eq(best_of_row(row, &[1], k)), "{best:?}");
                for (id, log_prob) in best {
                    let truth = row[id as usize];
                    assert!((f64::from(log_prob) - truth).abs() < 5e-5 * truth.abs().max(1.0), "{log_prob}, {truth}");
                    assert!((log_prob - all[id as usize]).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn tokens_of_one_weight_come_by_id_and_lose_nothing() {
        // Screened and exact logits are equal in threes, and k cuts through one of these.
        let (h, v) = (40, 300);
        let third = host(random("weight", [v / 3, h], 1.0));
        let weight = Tensor::<2>::from_data(TensorData::new(third.repeat(3), [v, h]), &Device::flex());
        let (states, bias) = (random("states", [9, h], 1.0), Tensor::<1>::zeros([v], &Device::flex()));
        let rows = truth(&states, &weight, &bias);
        let given = OutputLayer::new(weight, bias).best(states, &[], &[], 5);
        for (row, best) in rows.iter().zip(given) {
            assert!(best.iter().map(|(id, _)| *id).eq(best_of_row(row, &[], 5)), "{best:?}");
        }
    }

    #[test]
    fn a_mask_counts_for_its_own_row_alone() {
        let (rows, h, v, k) = (24, 33, 500, 6);
        let (states, weight) = (random("states", [rows, h], 1.0), random("weight", [v, h], 0.5));
        let bias = random("bias", [v], 1.0);
        let truth = truth(&states, &weight, &bias);
        let likely = best_of_row(&truth[1], &[], 40);
        let masks: Vec<Mask> = (0..rows)
            .map(|row| match row % 8 {
                1 => Mask::Banned(likely.clone()),
                2 => Mask::Allowed(vec![499, 7, 0, 30, 7, 5, 8, 450, 99, 100, 384, 383]),
                3 => Mask::Allowed(vec![9, 3, 4]),
                4 => Mask::Allowed(Vec::new()),
                5 => Mask::Banned((2..498).collect()),
                6 => Mask::Allowed((0..v as TokenId).rev().collect()),
                _ => Mask::Free,
            })
            .collect();
        let screened = OutputLayer::new(weight.clone(), bias.clone());
        let full = OutputLayer { screen: None, ..OutputLayer::new(weight, bias) };
        for layer in [screened, full] {
            for banned in [&[][..], &[3], &[30, 450, 3, 30]] {
                let (given, free) =
                    (layer.best(states.clone(), banned, &masks, k), layer.best(states.clone(), banned, &[], k));
                for (row, (best, mask)) in given.iter().zip(&masks).enumerate() {
                    let may = |id: TokenId| {
                        !banned.contains(&id)
                            && match mask {
                                Mask::Free => true,
                                Mask::Banned(ids) => !ids.contains(&id),
                                Mask::Allowed(ids) => ids.contains(&id),
                            }
                    };
                    let of = |chosen: bool| (0..v as TokenId).filter(|&id| may(id) == chosen).collect::<Vec<_>>();
                    let mut expected = best_of_row(&truth[row], &of(false), k);
                    let chosen = expected.len();
                    expected.extend(of(false).into_iter().take(k - chosen));
                    assert!(best.iter().map(|&(id, _)| id).eq(expected), "{mask:?}: {best:?}");
                    for &(id, log_prob) in &best[..chosen] {
                        assert!((f64::from(log_prob) - truth[row][id as usize]).abs() < 5e-4, "{mask:?}: {best:?}");
                    }
                    assert!(best[chosen..].iter().all(|&(_, log_prob)| log_prob == f32::NEG_INFINITY));
                    if matches!(mask, Mask::Free) || (row % 8 == 6 && banned.is_empty()) {
                        let bits =
                            |best: &[(TokenId, f32)]| best.iter().map(|(id, p)| (*id, p.to_bits())).collect::<Vec<_>>();
                        assert_eq!(bits(best), bits(&free[row]), "row {row}, {banned:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn screening_costs_little() {
        // The sizes of a translation model; logits with a deviation of about three.
        let (rows, h, v) = (64, 512, 6000);
        let (states, weight) = (random("states", [rows, h], 0.5), random("weight", [v, h], 0.27));
        let bias = random("bias", [v], 0.1);
        let given = OutputLayer::new(weight.clone(), bias.clone()).best(states.clone(), &[], &[], 5);
        let (mut worst, mut squares) = (0.0_f64, 0.0);
        for (row, best) in truth(&states, &weight, &bias).iter().zip(given) {
            assert!(best.iter().map(|(id, _)| *id).eq(best_of_row(row, &[], 5)));
            for (id, log_prob) in best {
                let error = (f64::from(log_prob) - row[id as usize]).abs();
                (worst, squares) = (worst.max(error), squares + error * error / (5 * rows) as f64);
            }
        }
        assert!(worst < 1e-4 && squares.sqrt() < 3e-5, "{worst:e} at worst, {:e} on average", squares.sqrt());
    }

    #[test]
    fn what_is_no_number_is_seen() {
        let (mut states, weight) = (host(random("states", [3, 8], 1.0)), random("weight", [20, 8], 1.0));
        states[10] = f32::NAN;
        let states = Tensor::<2>::from_data(TensorData::new(states, [3, 8]), &Device::flex());
        let bias = Tensor::<1>::zeros([20], &Device::flex());
        let best = OutputLayer::new(weight.clone(), bias.clone()).best(states.clone(), &[0], &[], 2);
        assert!(best[1].iter().all(|(id, log_prob)| *id > 0 && log_prob.is_nan()));
        let all = OutputLayer::new(weight.clone(), bias.clone()).best(states.clone(), &[0], &[], 30);
        assert!(all.iter().all(|row| row.len() == 20 && row[19] == (0, f32::NEG_INFINITY)));
        let masks = [Mask::Free, Mask::Allowed(vec![9, 0]), Mask::Allowed(vec![9, 0])];
        let few = OutputLayer::new(weight.clone(), bias.clone()).best(states.clone(), &[0], &masks, 2);
        assert!(few[1][0].0 == 9 && few[1][0].1.is_nan() && few[1][1] == (0, f32::NEG_INFINITY));
        assert!(few[2][0].0 == 9 && few[2][0].1.is_finite() && few[2][1] == (0, f32::NEG_INFINITY));
        assert!(best[0].iter().chain(&best[2]).all(|(_, log_prob)| log_prob.is_finite()));
        let mut broken = host(weight);
        broken[50] = f32::INFINITY;
        let broken = Tensor::<2>::from_data(TensorData::new(broken, [20, 8]), &Device::flex());
        let best = OutputLayer::new(broken, bias).best(states, &[], &[], 2);
        assert!(best.iter().flatten().all(|(_, log_prob)| log_prob.is_nan()));
    }

    #[test]
    fn the_bound_holds_and_nothing_overflows() {
        // Vectors of one sign, of one large number, of both: the longest sums that there are.
        let h = 257;
        let rows: Vec<Vec<f32>> = vec![
            vec![1.0; h],
            (0..h).map(|i| if i == 9 { 1e4 } else { 1e-3 }).collect(),
            (0..h).map(|i| (i as f32).powi(3)).collect(),
            (0..h).map(|i| if i < 2 { 3.0 } else { 0.0 }).collect(),
            vec![0.0; h],
        ];
        for state in &rows {
            let mut pairs = vec![0; h.div_ceil(2)];
            let rounded = Rounded::new(state, &mut pairs);
            for row in &rows {
                // The largest norm and error of all rows would bound each of them too widely.
                let (screen, mut sum) = (Screen::new(row.clone(), [1, h]), [0.0]);
                screen.rounded.multiply(&pairs, &mut sum, false);
                let screened = f64::from(sum[0]) * f64::from(rounded.unit) * f64::from(screen.units[0]);
                let products = state.iter().zip(row).map(|(&x, &w)| f64::from(x) * f64::from(w));
                let (product, bound) = (products.sum::<f64>(), f64::from(screen.bound(&rounded)));
                assert!((screened - product).abs() <= bound, "{screened:e} {product:e} {bound:e}");
                assert!(bound <= 1e-2 * f64::from(rounded.norm * screen.norm), "a bound of {bound:e} says nothing");
            }
        }
    }
}
