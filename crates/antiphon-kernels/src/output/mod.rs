//! The projection onto the vocabulary in a search: all log-probabilities, or the best few without the others.
//!
//! A search wants the `k` best tokens of a state; of all others it needs only their share in the sum under the softmax. So
//! the CPU *screens* the vocabulary in integers of 16 bits, which it multiplies up to twice as fast as `f32`, and computes
//! again in `f32` what counts. With a state `x` and a token's weight `w`, rounded to `x̂` and `ŵ`,
//!
//! `|x·w − x̂·ŵ| ≤ ‖x‖ ‖w − ŵ‖ + ‖x − x̂‖ ‖ŵ‖` (Cauchy–Schwarz),
//!
//! a bound of each token's own. A token whose screened logit and bound together do not reach what the `k`-th best has at least
//! is not among the `k` best. The few others are computed in `f32`, for their order and for the sum: the `k` best are those of
//! a search in `f32`. A token with weights a thousand times those of others is in doubt alone. Where more than an eighth of the
//! vocabulary is, because `k` is large or the states lie badly, the row goes through the full product.
//!
//! What is left of the rounding is in the share of the others in that sum, where it mostly averages out; it moves the
//! log-probabilities of a state, all by the same, by some 3e-5, however widely logits deviate (`tests::screening_costs_little`).

pub(crate) mod best;
mod choice;
mod contest;
mod rounded;

use std::sync::OnceLock;

use antiphon_core::{Mask, TokenId};
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::attention::rows::dots;
use crate::flex::{serves, serves_kernels};
use crate::loss::{log_partition, log_softmax_rows};
use crate::memory::{unwritten, written};
use crate::packed::{Columns, Packed, TILE};
use crate::product::Strides;
use crate::vector::multiversion;
use crate::weight::{PackedWeight, host, share};
use choice::{Choice, in_order};
use contest::{Candidate, Contest, STRETCH};
use rounded::Rounded;

/// The weight and the bias that make logits of states, ready for many steps.
#[derive(Debug)]
pub struct OutputLayer {
    /// `[V, H]`.
    weight: Tensor<2>,
    /// `[V]`.
    bias: Vec<f32>,
    /// The same beside the weight, where a device other than the CPU chooses.
    bias_there: Option<Tensor<1>>,
    /// For all logits, if anybody wants them.
    all: OnceLock<PackedWeight>,
    /// Where the CPU screens.
    screen: Option<Screen>,
}

/// Columns that are screened together, whole stretches of a [`Contest`]: the sums of a task's rows lie in the second-level
/// cache.
const COLUMNS: usize = 6 * STRETCH;

/// The share of the vocabulary that is computed token by token before the full product is quicker, and the least number.
const MOST: (usize, usize) = (8, 64);

impl OutputLayer {
    /// From `[V, H]` and `[V]`, off the graph.
    pub fn new(weight: Tensor<2>, bias: Tensor<1>) -> Self {
        let screen = serves(&weight).then(|| Screen::new(host(weight.clone()), weight.dims()));
        let bias_there = (screen.is_none() && serves_kernels(&weight)).then(|| bias.clone());
        Self { weight, bias: host(bias), bias_there, all: OnceLock::new(), screen }
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
            let _ = self.all.set(PackedWeight::transposed(self.weight.clone()));
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
        if k == 0 || rows == 0 {
            return vec![Vec::new(); rows];
        }
        let banned = in_order(banned.to_vec());
        let mask = |row: usize| masks.get(row).unwrap_or(&Mask::Free);
        let choices: Vec<Choice<'_>> = (0..rows).map(|row| Choice::new(&banned, mask(row), vocabulary, k)).collect();
        let most = (vocabulary / MOST.0).max(MOST.1);
        let Some(screen) = self.screen.as_ref().filter(|_| k <= most) else {
            return self.best_in_full(states, &choices.iter().collect::<Vec<_>>(), k);
        };
        let (states, share) = (host(states), share(rows));
        // Too few for every thread to have a tile of them.
        let mut found: Vec<Option<Vec<(TokenId, f32)>>> = match rows.div_ceil(TILE) < rayon::current_num_threads() {
            true => screen.best_of_few(&states, &self.bias, &choices, k, most),
            false => {
                let blocks = states.par_chunks(share * width).zip(choices.par_chunks(share));
                let screened =
                    blocks.flat_map_iter(|(states, choices)| screen.best(states, &self.bias, choices, k, most));
                screened.collect()
            }
        };
        let open: Vec<usize> = (0..rows).filter(|&row| found[row].is_none()).collect();
        if !open.is_empty() {
            let of_open: Vec<f32> = open.iter().flat_map(|&row| &states[row * width..][..width]).copied().collect();
            let of_open = Tensor::from_data(TensorData::new(of_open, [open.len(), width]), &self.weight.device());
            let choices: Vec<&Choice<'_>> = open.iter().map(|&row| &choices[row]).collect();
            for (row, best) in open.into_iter().zip(self.best_in_full(of_open, &choices, k)) {
                found[row] = Some(best);
            }
        }
        found.into_iter().flatten().collect()
    }

    /// The log-probabilities of given tokens, `[B, N]`, for states `[B, H]`, where that of one token each is `known`, as
    /// [`best`](Self::best) gave it: what lies between two log-probabilities lies between their logits. Where nothing is screened,
    /// they are computed with all others.
    ///
    /// # Panics
    /// If there are not as many tokens for each state, or not one known, or one lies beyond the vocabulary.
    pub fn given(&self, states: Tensor<2>, tokens: &[TokenId], known: &[(TokenId, f32)]) -> Vec<f32> {
        let ([rows, width], vocabulary) = (states.dims(), self.vocabulary());
        assert!(
            rows == known.len() && tokens.len().is_multiple_of(rows.max(1)),
            "as many tokens for each of {rows} rows"
        );
        let each = tokens.len() / rows.max(1);
        if each == 0 {
            return Vec::new();
        }
        let Some(screen) = &self.screen else {
            let all = self.log_probs(states);
            return tokens.iter().enumerate().map(|(i, &id)| all[i / each * vocabulary + id as usize]).collect();
        };
        let states = host(states);
        let rows = states.par_chunks_exact(width).zip(known).zip(tokens.par_chunks_exact(each));
        rows.flat_map_iter(|((state, &(best, log_prob)), tokens)| {
            let logit = |id: TokenId| screen.logit(state, id) + self.bias[id as usize];
            let log_z = f64::from(logit(best)) - f64::from(log_prob);
            tokens.iter().map(move |&id| (f64::from(logit(id)) - log_z) as f32).collect::<Vec<f32>>()
        })
        .collect()
    }

    /// The best tokens from all logits.
    fn best_in_full(&self, states: Tensor<2>, choices: &[&Choice<'_>], k: usize) -> Vec<Vec<(TokenId, f32)>> {
        if let Some((bias, more)) = self.bias_there.clone().zip(most_banned(choices).filter(|more| k + more <= FEW)) {
            let count = (k + more).min(self.vocabulary());
            let found = best::best(states, self.weight.clone(), bias, count);
            return found
                .into_iter()
                .zip(choices)
                .map(|(row, choice)| best_of_few(row, choice, self.vocabulary(), k))
                .collect();
        }
        let mut logits = self.logits(states);
        let rows = logits.par_chunks_exact_mut(self.vocabulary()).zip(choices);
        rows.map(|(logits, choice)| best_of_all(logits, &self.bias, choice, k)).collect()
    }
}

/// As many tokens as a device chooses for the host, those that are banned among them.
const FEW: usize = 64;

/// The most tokens that are banned in a row, if all rows may choose all but some.
fn most_banned(choices: &[&Choice<'_>]) -> Option<usize> {
    choices.iter().try_fold(0, |most: usize, choice| match choice {
        Choice::AllBut(banned) => Some(most.max(banned.len())),
        Choice::Only(_) => None,
    })
}

/// The `k` best that a row may choose, of some more that a device has found.
fn best_of_few(row: best::Best, choice: &Choice<'_>, vocabulary: usize, k: usize) -> Vec<(TokenId, f32)> {
    if row.log_z.is_nan() {
        return choice.not_a_number(vocabulary, k);
    }
    let chosen = row.tokens.into_iter().filter(|&(_, id)| choice.has(id)).take(k);
    chosen.map(|(logit, id)| (id, logit - row.log_z)).collect()
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
            let mut contest = Contest::new(k);
            contest.offer_exact(logits);
            contest.best.into_iter().map(|best| (best.logit, best.id)).collect()
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
    /// `[V]`.
    sizes: Vec<Sizes>,
    /// The largest of each [`STRETCH`] of tokens.
    stretches: Vec<Sizes>,
    /// The largest of all; infinite, if some number is none.
    largest: Sizes,
    /// How many logits were computed in `f32`.
    #[cfg(test)]
    made: std::sync::atomic::AtomicUsize,
}

/// `‖ŵ‖` and `‖w − ŵ‖` of a token's weight.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    norm: f32,
    error: f32,
}

impl Sizes {
    /// The largest of both.
    fn largest(of: &[Self]) -> Self {
        let larger = |a: Self, b: &Self| Self { norm: a.norm.max(b.norm), error: a.error.max(b.error) };
        of.iter().fold(Self { norm: 0.0, error: 0.0 }, larger)
    }
}

/// How far the screened logits of one state can lie from the true ones: for each unit of a token's norm, and of its error.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    by_norm: f32,
    by_error: f32,
}

impl Doubt {
    fn new(state: &Rounded) -> Self {
        // The hundredth is for the rounding of the norms and of the logits themselves.
        Self { by_norm: 1.01 * state.error + 1e-6 * state.norm, by_error: 1.01 * (state.norm + state.error) }
    }

    /// That of a token.
    fn of(self, sizes: Sizes) -> f32 {
        self.by_norm * sizes.norm + self.by_error * sizes.error
    }
}

impl Screen {
    fn new(exact: Vec<f32>, [vocabulary, width]: [usize; 2]) -> Self {
        let half = width.div_ceil(2);
        let mut pairs = vec![0; vocabulary * half];
        let rows = exact.par_chunks_exact(width).zip(pairs.par_chunks_exact_mut(half));
        let rounded: Vec<Rounded> = rows.map(|(row, pairs)| Rounded::new(row, pairs)).collect();
        let sizes: Vec<Sizes> = rounded.iter().map(|row| Sizes { norm: row.norm, error: row.error }).collect();
        Self {
            units: rounded.iter().map(|row| row.unit).collect(),
            stretches: sizes.chunks(STRETCH).map(Sizes::largest).collect(),
            largest: Sizes::largest(&sizes),
            sizes,
            rounded: Packed::new(&pairs, Strides::transposed(half), [half, vocabulary]),
            exact,
            #[cfg(test)]
            made: Default::default(),
        }
    }

    /// States in integers, and what is known of each.
    fn round(&self, states: &[f32]) -> (Vec<i32>, Vec<Rounded>) {
        let [half, vocabulary] = self.rounded.dims();
        let width = self.exact.len() / vocabulary;
        let mut pairs = vec![0; states.len() / width * half];
        let rows = states.chunks_exact(width).zip(pairs.chunks_exact_mut(half));
        let rounded = rows.map(|(state, pairs)| Rounded::new(state, pairs)).collect();
        (pairs, rounded)
    }

    /// The best tokens of some states, on the calling thread; `None` where more than `most` can be among them.
    fn best(
        &self,
        states: &[f32],
        bias: &[f32],
        choices: &[Choice<'_>],
        k: usize,
        most: usize,
    ) -> Vec<Option<Vec<(TokenId, f32)>>> {
        let (pairs, rounded) = self.round(states);
        let mut contests: Vec<Contest> = rounded.iter().map(|_| Contest::new(k)).collect();
        let (mut sums, mut doubts) = (Vec::new(), Vec::new());
        for (first, panels) in self.rounded.blocks(COLUMNS) {
            sums.resize(rounded.len() * panels.columns(), 0.0);
            panels.multiply(&pairs, &mut sums, false);
            let rows = sums.chunks_exact_mut(panels.columns()).zip(&rounded).zip(contests.iter_mut().zip(choices));
            for ((sums, state), (contest, choice)) in rows {
                self.screen(first, sums, state, bias, choice, contest, &mut doubts);
            }
        }
        let rows = states.chunks_exact(states.len() / rounded.len()).zip(&rounded);
        let rows = rows.zip(contests.into_iter().zip(choices));
        rows.map(|((state, rounded), (contest, choice))| self.settle(state, rounded, bias, choice, contest, k, most))
            .collect()
    }

    /// As [`best`](Self::best), bit for bit, of so few states that the threads share out the vocabulary.
    fn best_of_few(
        &self,
        states: &[f32],
        bias: &[f32],
        choices: &[Choice<'_>],
        k: usize,
        most: usize,
    ) -> Vec<Option<Vec<(TokenId, f32)>>> {
        let vocabulary = bias.len();
        let (pairs, rounded) = self.round(states);
        let mut sums = unwritten(rounded.len() * vocabulary);
        let blocks: Vec<_> = self.rounded.blocks(COLUMNS).collect();
        let columns = Columns::of(&mut sums, vocabulary).blocks(blocks.iter().map(|(_, panels)| panels.columns()));
        blocks.par_iter().zip(columns).for_each(|((_, panels), sums)| panels.multiply_into(&pairs, sums));
        // SAFETY: the products of all blocks write all of it.
        let mut sums = unsafe { written(sums) };
        let rows = sums.par_chunks_exact_mut(vocabulary).zip(states.par_chunks_exact(states.len() / rounded.len()));
        let rows = rows.zip(&rounded).zip(choices);
        rows.map(|(((sums, state), rounded), choice)| {
            let (mut contest, mut doubts) = (Contest::new(k), Vec::new());
            for (first, panels) in &blocks {
                let sums = &mut sums[*first..][..panels.columns()];
                self.screen(*first, sums, rounded, bias, choice, &mut contest, &mut doubts);
            }
            self.settle(state, rounded, bias, choice, contest, k, most)
        })
        .collect()
    }

    /// Lets some columns of a state compete, the first of which is that of token `first`. `sums`: of integers, are written over.
    #[allow(clippy::too_many_arguments)]
    fn screen(
        &self,
        first: usize,
        sums: &mut [f32],
        state: &Rounded,
        bias: &[f32],
        choice: &Choice<'_>,
        contest: &mut Contest,
        doubts: &mut Vec<f32>,
    ) {
        let columns = first..first + sums.len();
        let sizes = &self.sizes[columns.clone()];
        let stretches = &self.stretches[first / STRETCH..columns.end.div_ceil(STRETCH)];
        let top = worth(sums, state.unit, &self.units[columns.clone()], &bias[columns.clone()]);
        contest.add(sums, top);
        let doubt = Doubt::new(state);
        for &id in choice.banned_within(columns.start, columns.end) {
            let place = id as usize - first;
            let logit = std::mem::replace(&mut sums[place], f32::NEG_INFINITY);
            contest.banned.push(Candidate::new(logit, doubt.of(sizes[place]), id));
        }
        doubts.clear();
        doubts.extend(stretches.iter().map(|&sizes| doubt.of(sizes)));
        contest.offer(sums, first, doubts, |place| doubt.of(sizes[place]));
    }

    /// What the contest of a state ends with.
    #[allow(clippy::too_many_arguments)]
    fn settle(
        &self,
        state: &[f32],
        rounded: &Rounded,
        bias: &[f32],
        choice: &Choice<'_>,
        contest: Contest,
        k: usize,
        most: usize,
    ) -> Option<Vec<(TokenId, f32)>> {
        if !Doubt::new(rounded).of(self.largest).is_finite() {
            return Some(choice.not_a_number(bias.len(), k));
        }
        let exact = |id: TokenId| self.logit(state, id) + bias[id as usize];
        let (mut best, log_z) = contest.settle(most, exact)?;
        if let Choice::Only(only) = choice {
            // The contest was for the sum alone: of all tokens, as in a row that may choose them.
            best = choice.best_of_only(only.iter().map(|&id| (exact(id), id)).collect(), k);
        }
        Some(best.into_iter().map(|(logit, id)| (id, (f64::from(logit) - log_z) as f32)).collect())
    }

    /// The logit of one token without bias.
    fn logit(&self, state: &[f32], id: TokenId) -> f32 {
        #[cfg(test)]
        self.made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
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
            let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let log_z = top + logits.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
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
    fn given_tokens_are_worth_what_they_are_among_the_best() {
        for (rows, h, v) in [(9, 33, 500), (1, 8, 40), (70, 16, 1000)] {
            let (states, weight) = (random("states", [rows, h], 1.0), random("weight", [v, h], 0.5));
            let layer = OutputLayer::new(weight, random("bias", [v], 1.0));
            let best = layer.best(states.clone(), &[1], &[], 6);
            let known: Vec<(TokenId, f32)> = best.iter().map(|row| row[0]).collect();
            let asked: Vec<TokenId> = best.iter().flat_map(|row| [row[5].0, 1, row[0].0, row[3].0]).collect();
            let given = layer.given(states.clone(), &asked, &known);
            let all = layer.log_probs(states);
            for ((row, best), (given, all)) in
                best.iter().enumerate().zip(given.chunks_exact(4).zip(all.chunks_exact(v)))
            {
                // Those of one row differ by the last bits alone.
                for (given, place) in [(given[0], 5), (given[2], 0), (given[3], 3)] {
                    assert!(
                        (given - best[place].1).abs() <= 1e-6 * given.abs(),
                        "row {row}: {given}, {:?}",
                        best[place]
                    );
                }
                assert!((given[1] - all[1]).abs() < 1e-4, "row {row}: {}, {}", given[1], all[1]);
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

    /// What screening costs.
    #[derive(Debug)]
    struct Cost {
        /// How many logits a state had to be computed in `f32`.
        made: f64,
        /// The error of log-probabilities above −100, at worst and on average.
        worst: f64,
        average: f64,
        /// The worst error of all logits in `f32`.
        in_full: f64,
    }

    /// That of the best five of 64 states as a translation model has them, where the weights of some tokens, and those of all,
    /// are some times larger.
    fn screened(outliers: &[(usize, f32)], scale: f32) -> Cost {
        let (rows, h, v) = (64, 512, 6000);
        let (states, bias) = (random("states", [rows, h], 0.5), random("bias", [v], 0.1));
        let mut weight = host(random("weight", [v, h], 0.27 * scale));
        for &(id, times) in outliers {
            weight[id * h..][..h].iter_mut().for_each(|w| *w *= times);
        }
        let weight = Tensor::<2>::from_data(TensorData::new(weight, [v, h]), &Device::flex());
        let layer = OutputLayer::new(weight.clone(), bias.clone());
        let given = layer.best(states.clone(), &[], &[], 5);
        let made = layer.screen.as_ref().unwrap().made.load(std::sync::atomic::Ordering::Relaxed);
        assert!(layer.all.get().is_none(), "no row needed the full product");
        let full = layer.log_probs(states.clone());
        let (mut errors, mut in_full) = (Vec::new(), 0.0_f64);
        for ((row, best), full) in truth(&states, &weight, &bias).iter().zip(given).zip(full.chunks_exact(v)) {
            assert!(best.iter().map(|(id, _)| *id).eq(best_of_row(row, &[], 5)));
            for (id, log_prob) in best {
                let truth = row[id as usize];
                let error = |found: f32| (f64::from(found) - truth).abs();
                // A logit of thousands, in single precision.
                assert!(error(log_prob) < 2e-3 + 1e-6 * truth.abs(), "{log_prob} is not {truth}");
                if truth > -100.0 {
                    errors.push(error(log_prob));
                    in_full = in_full.max(error(full[id as usize]));
                }
            }
        }
        let worst = errors.iter().copied().fold(0.0, f64::max);
        let average = (errors.iter().map(|error| error * error).sum::<f64>() / errors.len() as f64).sqrt();
        let cost = Cost { made: made as f64 / rows as f64, worst, average, in_full };
        println!("{outliers:?}, weights × {scale}: {cost:?}");
        cost
    }

    #[test]
    fn screening_costs_little() {
        for (scale, most) in [(1.0, 1e-4), (5.0, 2e-4), (20.0, 2e-4)] {
            let Cost { made, worst, average, .. } = screened(&[], scale);
            assert!(made < 6.0, "{made} logits of a state were computed in full");
            assert!(worst < most && average < 3e-5, "× {scale}: {worst:e} at worst, {average:e} on average");
        }
    }

    #[test]
    fn a_token_with_large_weights_is_in_doubt_alone() {
        for times in [300.0, 1000.0] {
            for tokens in [&[4321][..], &[7, 1007, 2007, 3007, 4007, 5007]] {
                let outliers: Vec<(usize, f32)> = tokens.iter().map(|&id| (id, times)).collect();
                let Cost { made, worst, in_full, .. } = screened(&outliers, 1.0);
                assert!(made < 6.0 + tokens.len() as f64, "{made} logits of a state were computed in full");
                assert!(worst < 2.0 * in_full.max(1e-4), "× {times}: {worst:e} at worst, in full {in_full:e}");
            }
        }
    }

    #[test]
    fn where_too_many_are_in_doubt_the_product_is_made_in_full() {
        // Beside one large number that all tokens weigh alike, all others round to nothing.
        let (rows, h, v, k) = (9, 40, 700, 5);
        let (mut states, mut weight) = (host(random("states", [rows, h], 1e-3)), host(random("weight", [v, h], 1e-3)));
        states.chunks_exact_mut(h).take(rows - 1).for_each(|state| state[3] = 100.0);
        weight.chunks_exact_mut(h).for_each(|row| row[3] = 1.0);
        let states = Tensor::<2>::from_data(TensorData::new(states, [rows, h]), &Device::flex());
        let weight = Tensor::<2>::from_data(TensorData::new(weight, [v, h]), &Device::flex());
        let bias = random("bias", [v], 1e-3);
        let masks: Vec<Mask> = (0..rows as TokenId).map(|row| Mask::Allowed(vec![row, 5, 99])).collect();
        for masks in [&[][..], &masks] {
            let layer = OutputLayer::new(weight.clone(), bias.clone());
            let given = layer.best(states.clone(), &[2], masks, k);
            assert!(layer.all.get().is_some());
            let made = layer.screen.as_ref().unwrap().made.load(std::sync::atomic::Ordering::Relaxed);
            assert!(made < 40, "one row of nine is screened to its end: {made}");
            let full = OutputLayer { screen: None, ..OutputLayer::new(weight.clone(), bias.clone()) };
            for (ours, full) in given.iter().zip(full.best(states.clone(), &[2], masks, k)) {
                for (ours, full) in ours.iter().zip(full) {
                    assert_eq!(ours.0, full.0);
                    assert!(ours.1 == full.1 || (ours.1 - full.1).abs() < 1e-4);
                }
            }
        }
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
                let (screen, mut sum) = (Screen::new(row.clone(), [1, h]), [0.0]);
                screen.rounded.multiply_at(0, &pairs, &mut sum, false);
                let screened = f64::from(sum[0]) * f64::from(rounded.unit) * f64::from(screen.units[0]);
                let products = state.iter().zip(row).map(|(&x, &w)| f64::from(x) * f64::from(w));
                let (product, bound) = (products.sum::<f64>(), f64::from(Doubt::new(&rounded).of(screen.largest)));
                assert!((screened - product).abs() <= bound, "{screened:e} {product:e} {bound:e}");
                assert!(
                    bound <= 1e-2 * f64::from(rounded.norm * screen.largest.norm),
                    "a bound of {bound:e} says nothing"
                );
            }
        }
    }
}
