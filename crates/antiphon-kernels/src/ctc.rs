//! Connectionist temporal classification (Graves et al. 2006) as one operation: forward–backward in the logarithm.
//!
//! Each step of a row says a label or the blank; what the row says is read off by dropping repetitions, then blanks. The loss is
//! `−ln Σ p(path)` over all paths that say the labels, and its gradient with respect to a logit is the probability of its token less
//! the share of the paths, by probability, that say the token at that step. Both are made on the way forward, since a training step
//! always goes backward.

use std::sync::Arc;

use antiphon_core::{TokenId, steps_of_path};
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, Shape, TensorMetadata, backend_extension};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use rayon::prelude::*;

use crate::flex::{dense, into_owned, serves, slice_mut, wrap};
use crate::loss::{exponentials, rescale};

/// What rows of logits are to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcripts {
    /// `[B]`: the real steps of each row.
    pub steps: Arc<[u32]>,
    /// `[B]`: the labels of each row, without blanks.
    pub labels: Arc<[Vec<TokenId>]>,
    /// The token that says nothing.
    pub blank: TokenId,
}

impl Transcripts {
    /// Whether there is a path for row `b`, which has [so many steps](steps_of_path) at least. A row without steps has none.
    pub fn fits(&self, b: usize) -> bool {
        (self.steps[b] as usize) >= steps_of_path(&self.labels[b])
    }
}

/// The loss in nats of `logits` `[B, T, V]`, summed over the rows: `[1]`, differentiable. Rows that
/// [fit](Transcripts::fits) no path count nothing, and neither do steps that are padding.
///
/// On the CPU a row has the same bits whatever stands beside it.
///
/// # Panics
/// If shapes do not fit, a row has more steps than there are, or a label is the blank or lies beyond the vocabulary.
pub fn ctc_loss(logits: Tensor<3>, transcripts: &Transcripts) -> Tensor<1> {
    let Transcripts { steps, labels, blank } = transcripts;
    let [b, t, v] = logits.dims();
    assert!(steps.len() == b && labels.len() == b, "steps and labels for each of {b} rows");
    assert!(steps.iter().all(|&n| n as usize <= t), "rows of at most {t} steps");
    let known = |&label: &TokenId| label != *blank && (label as usize) < v;
    assert!((*blank as usize) < v && labels.iter().flatten().all(known), "labels and blank below {v}");
    if !serves(&logits) {
        return composed(logits, transcripts);
    }
    Tensor::from_dispatch(<Dispatch as CtcOps>::ctc(logits.into_dispatch(), transcripts.clone()))
}

/// A logarithm that stands for that of nothing: sums of some of them are no numbers that overflow.
const NOTHING: f64 = -1e30;

/// Made of tensor operations, for every device and number type.
fn composed(logits: Tensor<3>, transcripts: &Transcripts) -> Tensor<1> {
    let Transcripts { steps, labels, blank } = transcripts;
    let ([b, t, _], device, dtype) = (logits.dims(), logits.device(), logits.dtype());
    let inner = device.clone().inner();
    let rows: Vec<States<'_>> = labels.iter().map(|labels| States { labels, blank: *blank }).collect();
    let n = rows.iter().map(States::count).max().unwrap_or(0);
    if b * t == 0 {
        return Tensor::zeros([1], (&device, dtype));
    }
    // [B, N], of which a row has as many as it has states.
    let table = |of: &dyn Fn(&States<'_>, usize) -> bool| {
        let values = rows.iter().flat_map(|row| (0..n).map(|s| if of(row, s) { 0.0 } else { NOTHING }));
        Tensor::<2>::from_data(TensorData::new(values.collect::<Vec<f64>>(), [b, n]), (&inner, dtype))
    };
    let constant = |table: Tensor<2>| if logits.is_autodiff() { Tensor::from_inner(table) } else { table };
    let begins = constant(table(&|_, s| s < 2));
    let skips = constant(table(&|row, s| s < row.count() && row.skips(s)));
    let ends = constant(table(&|row, s| s < row.count() && s + 2 >= row.count()));
    let said: Vec<i32> = rows
        .iter()
        .flat_map(|row| (0..n).map(|s| if s < row.count() { row.token(s) } else { *blank } as i32))
        .collect();
    let said = Tensor::<2, Int>::from_data(TensorData::new(said, [b, n]), &inner);
    let said = said.unsqueeze_dim::<3>(1).expand([b, t, n]);
    let log_probs = log_softmax(logits.clone(), 2).gather(2, said);
    let at = |step: usize| log_probs.clone().narrow(1, step, 1).reshape([b, n]);
    let mut alpha = at(0) + begins;
    for step in 1..t {
        let shifted = |by: usize| {
            let nothing = Tensor::<2>::full([b, by.min(n)], NOTHING, (&device, dtype));
            if by < n { Tensor::cat(vec![nothing, alpha.clone().narrow(1, 0, n - by)], 1) } else { nothing }
        };
        let (one, two) = (shifted(1), shifted(2) + skips.clone());
        let top = alpha.clone().max_pair(one.clone()).max_pair(two.clone()).detach();
        let sum = (alpha.clone() - top.clone()).exp() + (one - top.clone()).exp() + (two - top.clone()).exp();
        let over: Vec<bool> = steps.iter().map(|&real| step >= real as usize).collect();
        let over = Tensor::<2, Bool>::from_data(TensorData::new(over, [b, 1]), &inner).expand([b, n]);
        alpha = (top + sum.log() + at(step)).mask_where(over, alpha);
    }
    let ended = alpha + ends;
    let top = ended.clone().max_dim(1).detach();
    let losses = -(top.clone() + (ended - top).exp().sum_dim(1).log());
    let lost: Vec<bool> = (0..b).map(|b| !transcripts.fits(b)).collect();
    let lost = Tensor::<2, Bool>::from_data(TensorData::new(lost, [b, 1]), &inner);
    losses.mask_fill(lost, 0.0).sum()
}

/// The states of a row's paths: its labels, with a blank before, between and behind them.
struct States<'a> {
    labels: &'a [TokenId],
    blank: TokenId,
}

impl States<'_> {
    fn count(&self) -> usize {
        2 * self.labels.len() + 1
    }

    /// What is said in a state.
    fn token(&self, s: usize) -> TokenId {
        if s.is_multiple_of(2) { self.blank } else { self.labels[s / 2] }
    }

    /// Whether a path may come to state `s` from the one before the last: past a blank that does not part equal labels.
    fn skips(&self, s: usize) -> bool {
        !s.is_multiple_of(2) && s >= 3 && self.labels[s / 2] != self.labels[s / 2 - 1]
    }

    /// The states that a path of `steps` steps may be in at step `t`: those that can be reached, and from which the end can be.
    fn at(&self, t: usize, steps: usize) -> std::ops::Range<usize> {
        self.count().saturating_sub(2 * (steps - t))..self.count().min(2 * t + 2)
    }
}

/// The operation on plain slices, as Burn's backends see it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait CtcOps: Backend {
    /// `[B, T, V] → [1]`.
    fn ctc(logits: FloatTensor<Self>, transcripts: Transcripts) -> FloatTensor<Self>;
}

/// A backend that has the operation.
trait Body: CtcOps {
    /// → (loss `[1]`, the gradient of the logits)
    fn gradient(logits: FloatTensor<Self>, transcripts: &Transcripts) -> (FloatTensor<Self>, FloatTensor<Self>);
}

#[derive(Debug)]
struct CtcNode;

impl<B: Body> Backward<B, 1> for CtcNode {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let scale = grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            let scale = B::float_reshape(scale, Shape::new([1, 1, 1]));
            grads.register::<B>(node.id, B::float_mul(ops.state, scale));
        }
    }
}

impl<B: Body, C: CheckpointStrategy> CtcOps for Autodiff<B, C> {
    fn ctc(logits: FloatTensor<Self>, transcripts: Transcripts) -> FloatTensor<Self> {
        let (logits, node) = logits.into_parts();
        match CtcNode.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (loss, gradient) = B::gradient(logits, &transcripts);
                prep.finish(gradient, loss)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::ctc(logits, transcripts)),
        }
    }
}

impl CtcOps for Flex {
    fn ctc(logits: FlexTensor, transcripts: Transcripts) -> FlexTensor {
        Self::gradient(logits, &transcripts).0
    }
}

impl Body for Flex {
    fn gradient(logits: FlexTensor, transcripts: &Transcripts) -> (FlexTensor, FlexTensor) {
        let mut logits = into_owned(dense(logits));
        let [b, t, v] = std::array::from_fn(|i| logits.shape()[i]);
        let row = |(b, logits): (usize, &mut [f32])| {
            let (real, padding) = logits.split_at_mut(transcripts.steps[b] as usize * v);
            padding.fill(0.0);
            if transcripts.fits(b) {
                row(real, v, &States { labels: &transcripts.labels[b], blank: transcripts.blank })
            } else {
                real.fill(0.0);
                0.0
            }
        };
        // In fixed order, so that the sum has the same bits on any number of threads.
        let losses: Vec<f64> = match t {
            0 => vec![0.0; b],
            _ => slice_mut(&mut logits).par_chunks_exact_mut(t * v).enumerate().map(row).collect(),
        };
        (wrap(vec![losses.iter().sum::<f64>() as f32], [1]), logits)
    }
}

/// Turns a row's logits `[T, V]` into the gradient of its loss; → the loss.
fn row(logits: &mut [f32], v: usize, states: &States<'_>) -> f64 {
    let (steps, n, tokens) = (logits.len() / v, states.count(), states.labels.len() + 1);
    // `[T, 1 + L]`: the log-probabilities of the blank, then of each label; state `s` says one of them.
    let saying = |s: usize| if s.is_multiple_of(2) { 0 } else { s / 2 + 1 };
    let mut said = Vec::with_capacity(steps * tokens);
    let no_bias = vec![0.0; v];
    for logits in logits.chunks_exact_mut(v) {
        let first = said.len();
        said.extend([&states.blank].into_iter().chain(states.labels).map(|&token| f64::from(logits[token as usize])));
        let (top, sum) = exponentials(logits, &no_bias);
        let log_z = f64::from(top) + f64::from(sum).ln();
        said[first..].iter_mut().for_each(|logit| *logit -= log_z);
        rescale(logits, 1.0 / sum, 0.0);
    }
    let log_prob = |t: usize, s: usize| said[t * tokens + saying(s)];
    // The logarithm of the probability of all beginnings of paths that are in state s at step t, in `[T, N]`.
    let mut forward = vec![f64::NEG_INFINITY; steps * n];
    for s in states.at(0, steps) {
        forward[s] = log_prob(0, s);
    }
    for t in 1..steps {
        let (before, now) = forward[(t - 1) * n..].split_at_mut(n);
        for s in states.at(t, steps) {
            let from = |back: usize| if back <= s { before[s - back] } else { f64::NEG_INFINITY };
            let skipped = if states.skips(s) { from(2) } else { f64::NEG_INFINITY };
            now[s] = log_sum([from(0), from(1), skipped]) + log_prob(t, s);
        }
    }
    let last = &forward[(steps - 1) * n..];
    let log_p = log_sum([last[n - 1], if n > 1 { last[n - 2] } else { f64::NEG_INFINITY }, f64::NEG_INFINITY]);
    // That of all ends behind state s at step t, and at the step after it, what it says included.
    let (mut backward, mut next) = (vec![f64::NEG_INFINITY; n], vec![f64::NEG_INFINITY; n]);
    for t in (0..steps).rev() {
        let range = states.at(t, steps);
        for s in range.clone() {
            let to = |on: usize| if s + on < n { next[s + on] } else { f64::NEG_INFINITY };
            backward[s] = match t + 1 == steps {
                true => 0.0,
                false => {
                    let skipped = if s + 2 < n && states.skips(s + 2) { to(2) } else { f64::NEG_INFINITY };
                    log_sum([to(0), to(1), skipped])
                }
            };
            let share = (forward[t * n + s] + backward[s] - log_p).exp();
            logits[t * v + states.token(s) as usize] -= share as f32;
        }
        next.fill(f64::NEG_INFINITY);
        for s in range {
            next[s] = backward[s] + log_prob(t, s);
        }
    }
    -log_p
}

/// `ln Σ eˣ`; minus infinity stands for nothing.
fn log_sum(values: [f64; 3]) -> f64 {
    let top = values.into_iter().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return top;
    }
    top + values.into_iter().map(|value| (value - top).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::random::Key;
    use burn::tensor::{DType, Device};

    const BLANK: TokenId = 1;

    fn numbers(key: Key, dims: [usize; 3], scale: f64) -> TensorData {
        let n: usize = dims.iter().product();
        TensorData::new((0..n as u64).map(|i| (key.normal(i) * scale) as f32).collect::<Vec<f32>>(), dims)
    }

    fn transcripts(steps: &[u32], labels: &[&[TokenId]]) -> Transcripts {
        Transcripts { steps: steps.into(), labels: labels.iter().map(|l| l.to_vec()).collect(), blank: BLANK }
    }

    /// The loss, then the gradient of the logits, by the body that the number type selects.
    fn run_as(dtype: DType, logits: &TensorData, transcripts: &Transcripts) -> (f64, Vec<f64>) {
        let logits = Tensor::<3>::from_data(logits.clone(), (&Device::flex().autodiff(), dtype)).require_grad();
        let loss = ctc_loss(logits.clone(), transcripts);
        let gradient = logits.grad(&loss.backward()).unwrap();
        let doubles = |data: TensorData| data.convert_dtype(DType::F64).try_to_vec::<f64>().unwrap();
        (doubles(loss.into_data())[0], doubles(gradient.into_data()))
    }

    /// The same of one row by looking at every path.
    fn by_all_paths(logits: &[f32], v: usize, labels: &[TokenId]) -> (f64, Vec<f64>) {
        let steps = logits.len() / v;
        let probs: Vec<f64> = logits
            .chunks_exact(v)
            .flat_map(|row| {
                let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                row.iter().map(move |&x| f64::from(x).exp() / sum)
            })
            .collect();
        let (mut total, mut shares) = (0.0, vec![0.0; logits.len()]);
        for number in 0..v.pow(steps as u32) {
            let path: Vec<usize> = (0..steps).map(|t| number / v.pow(t as u32) % v).collect();
            let mut said: Vec<usize> = path.clone();
            said.dedup();
            said.retain(|&token| token != BLANK as usize);
            if said.iter().map(|&token| token as TokenId).eq(labels.iter().copied()) {
                let p: f64 = path.iter().enumerate().map(|(t, &token)| probs[t * v + token]).product();
                total += p;
                path.iter().enumerate().for_each(|(t, &token)| shares[t * v + token] += p);
            }
        }
        (-total.ln(), probs.iter().zip(&shares).map(|(p, share)| p - share / total).collect())
    }

    fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() < tolerance * b.abs().max(1.0), "{what}, number {i}: {a} is not {b}");
        }
    }

    #[test]
    fn loss_and_gradient_are_those_of_all_paths() {
        let mut fitting = 0;
        for case in 0..1000 {
            let key = Key::from_seed(3).numbered(case);
            let drawn = |name: &str, below: u64| key.named(name).below(0, below);
            let (steps, v) = (1 + drawn("steps", 5) as usize, 2 + drawn("vocabulary", 3) as usize);
            let label = |i: u64| match key.named("label").below(i, v as u64 - 1) {
                0 => 0,
                other => other as TokenId + 1,
            };
            let labels: Vec<TokenId> = (0..drawn("labels", 4)).map(label).collect();
            let logits = numbers(key, [1, steps, v], 1.5);
            let given = transcripts(&[steps as u32], &[&labels]);
            let (loss, gradient) = run_as(DType::F32, &logits, &given);
            let (expected, slopes) = by_all_paths(&logits.try_to_vec::<f32>().unwrap(), v, &labels);
            let what = format!("case {case}: {steps} steps, {v} tokens, {labels:?}");
            assert_eq!(given.fits(0), expected.is_finite(), "{what}");
            if given.fits(0) {
                fitting += 1;
                assert_close(&[loss], &[expected], 2e-6, &what);
                assert_close(&gradient, &slopes, 2e-6, &what);
            } else {
                assert!(loss == 0.0 && gradient.iter().all(|&g| g == 0.0), "{what}");
            }
        }
        assert!((500..950).contains(&fitting), "{fitting}");
    }

    #[test]
    fn both_bodies_agree_on_long_rows_that_hardly_say_their_labels() {
        let labels: Vec<TokenId> = (0..70).map(|i| [0, 2, 2, 3, 7, 7][i % 6]).collect();
        let (b, t, v) = (4, 300, 9);
        let mut values = numbers(Key::from_seed(4), [b, t, v], 1.0).try_to_vec::<f32>().unwrap();
        // The blank is nearly certain, and so all other paths together less than the least number of double precision.
        values.iter_mut().skip(BLANK as usize).step_by(v).for_each(|x| *x += 25.0);
        let logits = TensorData::new(values, [b, t, v]);
        let given = transcripts(&[300, 211, 85, 40], &[&labels, &labels, &labels[..50], &labels]);
        let (fast, portable) = (run_as(DType::F32, &logits, &given), run_as(DType::F64, &logits, &given));
        assert!(fast.0 > 1500.0 && !given.fits(3), "{}", fast.0);
        assert_close(&[fast.0], &[portable.0], 1e-6, "loss");
        assert_close(&fast.1, &portable.1, 1e-5, "gradient");
    }

    #[test]
    fn rows_without_steps_or_labels_and_steps_of_padding_do_no_harm() {
        let v = 4;
        let mut values = numbers(Key::from_seed(5), [4, 3, v], 1.0).try_to_vec::<f32>().unwrap();
        let real = [3, 0, 2, 0];
        for (row, n) in values.chunks_exact_mut(3 * v).zip(real) {
            row[n * v..].fill(50.0);
        }
        let logits = TensorData::new(values.clone(), [4, 3, v]);
        let given = transcripts(&real.map(|n| n as u32), &[&[], &[], &[2], &[3]]);
        assert_eq!([0, 1, 2, 3].map(|b| given.fits(b)), [true, false, true, false]);
        let rows = [(0..3 * v, &[][..]), (6 * v..8 * v, &[2][..])];
        let expected = rows.map(|(range, labels)| by_all_paths(&values[range], v, labels));
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-9)] {
            let (loss, gradient) = run_as(dtype, &logits, &given);
            assert_close(&[loss], &[expected[0].0 + expected[1].0], tolerance, "loss");
            assert_close(&gradient[..3 * v], &expected[0].1, tolerance, "no labels");
            assert_close(&gradient[6 * v..8 * v], &expected[1].1, tolerance, "one label");
            assert!(gradient[3 * v..6 * v].iter().chain(&gradient[8 * v..]).all(|&g| g == 0.0), "{dtype:?}");
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_padded_beside_others_on_any_number_of_threads() {
        let (t, v) = (23, 17);
        let alone = numbers(Key::from_seed(6), [1, t, v], 2.0);
        let labels: &[TokenId] = &[4, 4, 9, 0, 16];
        let bits = |logits: &TensorData, given: &Transcripts, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run_as(DType::F32, logits, given).1)
        };
        let expected = bits(&alone, &transcripts(&[t as u32], &[labels]), 1);
        let mut many = numbers(Key::from_seed(7), [33, t + 6, v], 2.0).try_to_vec::<f32>().unwrap();
        many[20 * (t + 6) * v..][..t * v].copy_from_slice(&alone.try_to_vec::<f32>().unwrap());
        let many = TensorData::new(many, [33, t + 6, v]);
        let given = transcripts(&[t as u32; 33], &[labels; 33]);
        for threads in [1, 3] {
            assert_eq!(bits(&many, &given, threads)[20 * (t + 6) * v..][..t * v], expected, "{threads} threads");
        }
    }
}
