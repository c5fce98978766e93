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

use std::sync::OnceLock;

use antiphon_core::TokenId;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::attention::rows::dots;
use crate::flex::serves;
use crate::loss::{log_partition, log_softmax_rows};
use crate::packed::{PAIRS, Packed};
use crate::product::Strides;
use crate::vector::{exp, multiversion};
use crate::weight::{Weight, host, share};

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
        host(self.all.get_or_init(|| Weight::transposed(self.weight.clone())).multiply(states))
    }

    /// The `k` best tokens of each state of `[B, H]` with their log-probabilities, best first; of equal ones the smaller id
    /// first. A NaN counts as best, so that it is seen.
    ///
    /// `banned` tokens read minus infinity (the others are not renormalised).
    pub fn best(&self, states: Tensor<2>, banned: &[TokenId], k: usize) -> Vec<Vec<(TokenId, f32)>> {
        let [rows, width] = states.dims();
        let Some(screen) = &self.screen else {
            let mut logits = self.logits(states);
            let rows = logits.par_chunks_exact_mut(self.vocabulary());
            return rows.map(|logits| best_of_all(logits, &self.bias, banned, k)).collect();
        };
        let states = host(states);
        let blocks = states.par_chunks(share(rows) * width);
        blocks.flat_map_iter(|states| screen.best(states, &self.bias, banned, k)).collect()
    }
}

/// The best of one row of logits without bias, which are written over.
fn best_of_all(logits: &mut [f32], bias: &[f32], banned: &[TokenId], k: usize) -> Vec<(TokenId, f32)> {
    let log_z = log_partition(logits, bias);
    if log_z.is_nan() {
        return not_a_number(logits.len(), banned, k);
    }
    banned.iter().for_each(|&id| logits[id as usize] = f32::NEG_INFINITY);
    let mut contest = Contest::new(k, 0.0);
    contest.offer(logits, 0);
    contest.best.into_iter().map(|(logit, id)| (id, logit - log_z)).collect()
}

/// What is best where there are no numbers.
fn not_a_number(vocabulary: usize, banned: &[TokenId], k: usize) -> Vec<(TokenId, f32)> {
    (0..vocabulary as TokenId).filter(|id| !banned.contains(id)).take(k).map(|id| (id, f32::NAN)).collect()
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
    fn best(&self, states: &[f32], bias: &[f32], banned: &[TokenId], k: usize) -> Vec<Vec<(TokenId, f32)>> {
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
            let rows = sums.chunks_exact_mut(columns.len()).zip(&rounded).zip(&mut contests);
            for ((sums, state), contest) in rows {
                let top = worth(sums, state.unit, &self.units[columns.clone()], &bias[columns.clone()]);
                contest.add(sums, top);
                for &id in banned.iter().filter(|&&id| columns.contains(&(id as usize))) {
                    contest.banned.push((std::mem::replace(&mut sums[id as usize - first], f32::NEG_INFINITY), id));
                }
                contest.offer(sums, first);
            }
        }
        let rows = states.chunks_exact(width).zip(contests);
        rows.map(|(state, contest)| match contest.slack.is_finite() {
            true => contest.settle(|id| self.logit(state, id) + bias[id as usize]),
            false => not_a_number(vocabulary, banned, k),
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

/// How a vector was rounded to integers of 16 bits.
#[derive(Debug, Clone, Copy)]
struct Rounded {
    /// What one unit is worth.
    unit: f32,
    /// The length of the rounded vector, and of what rounding took away; infinite, if some number is none.
    norm: f32,
    error: f32,
}

impl Rounded {
    /// Rounds `x` to integers in `pairs`, as fine as can be while no sum of products with another such vector leaves 32 bits:
    /// what is summed as integers is shorter than `2^15.5` in both.
    fn new(x: &[f32], pairs: &mut [i32]) -> Self {
        const LONGEST: f32 = 46_340.0;
        const LARGEST: f32 = 32_767.0;
        let (squares, longest, peak) = size(x);
        let norm = squares.sqrt();
        if !norm.is_finite() || norm == 0.0 {
            pairs.fill(0);
            let size = if norm == 0.0 { 0.0 } else { f32::INFINITY };
            return Self { unit: 0.0, norm: size, error: size };
        }
        // Rounding adds up to half a unit in each direction.
        let room = LONGEST * (1.0 - 1e-5) - 0.5 * (2.0 * PAIRS as f32).sqrt();
        let scale = (room / longest.sqrt()).min(LARGEST / peak);
        let error = round(x, scale, pairs).sqrt();
        Self { unit: 1.0 / scale, norm: norm + error, error }
    }
}

multiversion! {
    /// The sum of squares, the largest one of `2 · PAIRS` numbers that are summed together, and the largest magnitude.
    fn size(x: &[f32]) -> (f32, f32, f32) = size_body
}
#[inline(always)]
fn size_body<const FMA: bool>(x: &[f32]) -> (f32, f32, f32) {
    let (mut all, mut longest, mut peaks) = (0.0_f32, 0.0_f32, [0.0_f32; 16]);
    let (chunks, rest) = x.as_chunks::<{ 2 * PAIRS }>();
    for chunk in chunks {
        let mut squares = [0.0_f32; 16];
        for half in chunk.as_chunks::<16>().0 {
            for j in 0..16 {
                squares[j] += half[j] * half[j];
                peaks[j] = peaks[j].max(half[j].abs());
            }
        }
        let squares: f32 = squares.iter().sum();
        all += squares;
        longest = longest.max(squares);
    }
    let squares: f32 = rest.iter().map(|x| x * x).sum();
    let peak = peaks.into_iter().chain(rest.iter().map(|x| x.abs())).fold(0.0, f32::max);
    (all + squares, longest.max(squares), peak)
}

multiversion! {
    /// The nearest integers of `x · scale`, in pairs; → the sum of squares of what was taken away from `x`.
    fn round(x: &[f32], scale: f32, pairs: &mut [i32]) -> f32 = round_body
}
#[inline(always)]
fn round_body<const FMA: bool>(x: &[f32], scale: f32, pairs: &mut [i32]) -> f32 {
    const NEAREST: f32 = 12_582_912.0; // 1.5 · 2²³: adding it leaves the nearest integer in the low bits
    let unit = 1.0 / scale;
    let nearest = |x: f32| {
        let shifted = x * scale + NEAREST;
        (shifted.to_bits(), x - (shifted - NEAREST) * unit)
    };
    let (both, rest) = x.as_chunks::<2>();
    let mut taken = [0.0_f32; 8];
    let (fours, last) = both.as_chunks::<8>();
    let (fours_out, last_out) = pairs.split_at_mut(fours.len() * 8);
    for (x, pairs) in fours.iter().zip(fours_out.as_chunks_mut::<8>().0) {
        for j in 0..8 {
            let ((low, a), (high, b)) = (nearest(x[j][0]), nearest(x[j][1]));
            pairs[j] = (low & 0xFFFF | high << 16) as i32;
            taken[j] += a * a + b * b;
        }
    }
    let mut sum: f32 = taken.iter().sum();
    for (x, pair) in last.iter().zip(&mut *last_out) {
        let ((low, a), (high, b)) = (nearest(x[0]), nearest(x[1]));
        *pair = (low & 0xFFFF | high << 16) as i32;
        sum += a * a + b * b;
    }
    if let (&[x], Some(pair)) = (rest, last_out.last_mut()) {
        let (low, a) = nearest(x);
        *pair = (low & 0xFFFF) as i32;
        sum += a * a;
    }
    sum
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

multiversion! {
    /// `Σ e^(x − top)`.
    fn exponentials(row: &[f32], top: f32) -> f32 = exponentials_body
}
#[inline(always)]
fn exponentials_body<const FMA: bool>(row: &[f32], top: f32) -> f32 {
    let mut sums = [0.0_f32; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for j in 0..16 {
            sums[j] += exp::<FMA>(chunk[j] - top);
        }
    }
    rest.iter().fold(sums.iter().sum(), |sum, &x| sum + exp::<FMA>(x - top))
}

/// The best of a row that is offered in parts, and the sum under its softmax.
#[derive(Debug)]
struct Contest {
    k: usize,
    /// How far below the `k`-th best one is still of interest.
    slack: f32,
    /// The `k` best so far, best first, of equal ones the smaller id first.
    best: Vec<(f32, TokenId)>,
    /// Others that were of interest when they came.
    close: Vec<(f32, TokenId)>,
    /// Those that count in the sum alone.
    banned: Vec<(f32, TokenId)>,
    /// The largest so far, and the sum of exponentials with it taken off.
    top: f32,
    sum: f64,
}

impl Contest {
    fn new(k: usize, slack: f32) -> Self {
        let (best, close, banned) = (Vec::with_capacity(k + 1), Vec::new(), Vec::new());
        Self { k, slack, best, close, banned, top: f32::NEG_INFINITY, sum: 0.0 }
    }

    /// Adds logits to the sum; `top` is the largest of them.
    fn add(&mut self, logits: &[f32], top: f32) {
        if top > self.top {
            self.sum *= f64::from(self.top - top).exp();
            self.top = top;
        }
        self.sum += f64::from(exponentials(logits, self.top));
    }

    /// From where on a token may be one of the `k` best.
    fn bound(&self) -> f32 {
        if self.best.len() < self.k { f32::NEG_INFINITY } else { self.best[self.k - 1].0 - self.slack }
    }

    /// Offers the logits of `first` and the ids behind it.
    fn offer(&mut self, logits: &[f32], first: usize) {
        let mut at = 0;
        while at < logits.len() {
            if self.best.len() == self.k {
                at += passed_over(&logits[at..], self.bound());
            }
            let end = logits.len().min(at + STRETCH);
            for (id, &logit) in logits[at..end].iter().enumerate() {
                let candidate = (logit, (first + at + id) as TokenId);
                if self.best.len() < self.k || logit > self.best[self.k - 1].0 {
                    let place = self.best.iter().position(|&(other, _)| logit > other).unwrap_or(self.best.len());
                    self.best.insert(place, candidate);
                    let last = if self.best.len() > self.k { self.best.pop() } else { None };
                    self.close.extend(last.filter(|&(logit, _)| logit >= self.bound()));
                } else if self.slack > 0.0 && logit >= self.bound() {
                    self.close.push(candidate);
                }
            }
            at = end;
        }
    }

    /// The `k` best with their log-probabilities, from the `exact` logits of all that can be among them.
    fn settle(mut self, exact: impl Fn(TokenId) -> f32) -> Vec<(TokenId, f32)> {
        let bound = self.bound();
        let close = self.close.into_iter().filter(|&(logit, _)| logit >= bound);
        let mut best: Vec<(f32, TokenId)> = self.best.into_iter().chain(close).collect();
        let top = self.top;
        let banned = self.banned.iter_mut().filter(|(logit, _)| *logit >= bound);
        for (logit, id) in banned.chain(best.iter_mut().filter(|(logit, _)| *logit > f32::NEG_INFINITY)) {
            let screened = std::mem::replace(logit, exact(*id));
            self.sum += f64::from(*logit - top).exp() - f64::from(screened - top).exp();
        }
        let log_z = (f64::from(top) + self.sum.ln()) as f32;
        best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        best.truncate(self.k);
        best.into_iter().map(|(logit, id)| (id, logit - log_z)).collect()
    }
}

/// Numbers that are looked at together.
const STRETCH: usize = 64;

multiversion! {
    /// How many numbers at the head of a row, in whole stretches, lie below `bound`.
    fn passed_over(row: &[f32], bound: f32) -> usize = passed_over_body
}
#[inline(always)]
fn passed_over_body<const FMA: bool>(row: &[f32], bound: f32) -> usize {
    let (stretches, _) = row.as_chunks::<STRETCH>();
    let low = |stretch: &[f32; STRETCH]| stretch.iter().fold(true, |low, &x| low & (x < bound));
    stretches.iter().position(|stretch| !low(stretch)).unwrap_or(stretches.len()) * STRETCH
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
    fn the_best_come_first_and_ties_by_id() {
        let best = |row: &[f32], k: usize| {
            let mut contest = Contest::new(k, 0.0);
            contest.offer(row, 0);
            contest.best.into_iter().map(|(_, id)| id).collect::<Vec<_>>()
        };
        let row = [0.5, 2.0, 2.0, f32::NEG_INFINITY, 1.0];
        assert_eq!(best(&row, 3), [1, 2, 4]);
        assert_eq!(best(&row, 5), [1, 2, 4, 0, 3]);
        // In a long row, behind many that are passed over, and one from the last, shorter stretch.
        let mut row: Vec<f32> = (0..1000).map(|i| -(i as f32)).collect();
        (row[700], row[990]) = (5.0, 6.0);
        assert_eq!(best(&row, 3), [990, 700, 0]);
    }

    #[test]
    fn they_are_the_best_of_all_whatever_the_sizes() {
        for (rows, h, v, scale) in [(70, 11, 37, 1.0), (1, 1, 3, 1.0), (3, 64, 1000, 0.3), (5, 33, 9, 4.0)] {
            let (states, weight) = (random("states", [rows, h], scale), random("weight", [v, h], scale));
            let bias = random("bias", [v], 1.0);
            let layer = OutputLayer::new(weight.clone(), bias.clone());
            let k = 5.min(v - 1);
            let all = layer.log_probs(states.clone());
            let given = layer.best(states.clone(), &[1], k);
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
        let given = OutputLayer::new(weight, bias).best(states, &[], 5);
        for (row, best) in rows.iter().zip(given) {
            assert!(best.iter().map(|(id, _)| *id).eq(best_of_row(row, &[], 5)), "{best:?}");
        }
    }

    #[test]
    fn screening_costs_little() {
        // The sizes of a translation model; logits with a deviation of about three.
        let (rows, h, v) = (64, 512, 6000);
        let (states, weight) = (random("states", [rows, h], 0.5), random("weight", [v, h], 0.27));
        let bias = random("bias", [v], 0.1);
        let given = OutputLayer::new(weight.clone(), bias.clone()).best(states.clone(), &[], 5);
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
        let n = rows.len();
        let screen = Screen::new(rows.concat(), [n, h]);
        for state in &rows {
            let mut pairs = vec![0; h.div_ceil(2)];
            let rounded = Rounded::new(state, &mut pairs);
            let mut sums = vec![0.0; n];
            screen.rounded.multiply(&pairs, &mut sums, false);
            for (id, &sum) in sums.iter().enumerate() {
                let screened = f64::from(sum) * f64::from(rounded.unit) * f64::from(screen.units[id]);
                let products = state.iter().zip(&rows[id]).map(|(&x, &w)| f64::from(x) * f64::from(w));
                let error = (screened - products.sum::<f64>()).abs();
                assert!(error <= f64::from(screen.bound(&rounded)), "{error:e} {:e}", screen.bound(&rounded));
            }
        }
    }

    #[test]
    fn what_is_no_number_is_seen() {
        let (mut states, weight) = (host(random("states", [3, 8], 1.0)), random("weight", [20, 8], 1.0));
        states[10] = f32::NAN;
        let states = Tensor::<2>::from_data(TensorData::new(states, [3, 8]), &Device::flex());
        let bias = Tensor::<1>::zeros([20], &Device::flex());
        let best = OutputLayer::new(weight.clone(), bias.clone()).best(states.clone(), &[0], 2);
        assert!(best[1].iter().all(|(id, log_prob)| *id > 0 && log_prob.is_nan()));
        assert!(best[0].iter().chain(&best[2]).all(|(_, log_prob)| log_prob.is_finite()));
        let mut broken = host(weight);
        broken[50] = f32::INFINITY;
        let broken = Tensor::<2>::from_data(TensorData::new(broken, [20, 8]), &Device::flex());
        let best = OutputLayer::new(broken, bias).best(states, &[], 2);
        assert!(best.iter().flatten().all(|(_, log_prob)| log_prob.is_nan()));
    }
}
