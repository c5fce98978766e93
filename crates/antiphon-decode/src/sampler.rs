//! From what a model gives one row to a token that is drawn: penalties, temperature, truncations.

use antiphon_core::{Selection, TokenId};

use crate::stepper::RowOutput;

/// The share of the vocabulary up to which a row's best tokens alone are quicker to get than all of them.
const FEW: usize = 8;

/// From which distribution tokens are drawn. Each change is made to what the one before it has left:
///
/// 1. the repetition penalty, then the presence penalty, of tokens that the answer holds already;
/// 2. tokens are taken out that would repeat an n-gram;
/// 3. scores are divided by the temperature;
/// 4. `top_k`, then `top_p`, then `min_p` take out what is improbable.
///
/// That is the order of Hugging Face's `transformers` (`GenerationMixin._get_logits_processor`), which has no presence penalty.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sampler {
    pub(crate) temperature: f64,
    /// 0: all.
    pub(crate) top_k: usize,
    pub(crate) top_p: f64,
    pub(crate) min_p: f64,
    pub(crate) repetition_penalty: f64,
    pub(crate) presence_penalty: f64,
    /// 0: off.
    pub(crate) no_repeat_ngram: usize,
}

/// What is left to be drawn from one row. The buffers are reused from row to row.
#[derive(Debug, Default)]
pub(crate) struct Distribution {
    /// First scores, then weights, at last their sums up to each place.
    values: Vec<f64>,
    /// Places in an order.
    order: Vec<u32>,
}

/// The tokens that an answer holds, each once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    /// A bit for each token of the vocabulary.
    bits: Vec<u64>,
    /// In the order in which they came.
    tokens: Vec<TokenId>,
}

impl Said {
    pub(crate) fn add(&mut self, token: TokenId) {
        let (word, bit) = (token as usize / 64, 1 << (token % 64));
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        if self.bits[word] & bit == 0 {
            self.bits[word] |= bit;
            self.tokens.push(token);
        }
    }
}

impl Sampler {
    /// What must be known of a row. Where a token's score depends on itself alone, the best few are all that can be drawn.
    pub(crate) fn selection(&self, vocabulary: usize) -> Selection {
        let alone = !self.penalises() && self.no_repeat_ngram == 0;
        match self.top_k {
            k if k > 0 && alone && k <= (vocabulary / FEW).max(1) => Selection::Top(k),
            _ => Selection::All,
        }
    }

    /// Whether it must be told what an answer holds.
    pub(crate) fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0
    }

    /// Finds what may follow `tokens` with which weight. Whether there is anything.
    pub(crate) fn weigh(&self, row: RowOutput<'_>, tokens: &[TokenId], said: &Said, left: &mut Distribution) -> bool {
        let scores = row.scores.iter().zip(row.log_probs);
        left.values.clear();
        // What is impossible stays so, whatever it scores.
        left.values.extend(scores.map(|(&score, &p)| if p == f32::NEG_INFINITY { f64::from(p) } else { score.into() }));
        if self.penalises() {
            self.penalise(&said.tokens, &mut left.values);
        }
        if self.no_repeat_ngram > 0 {
            for token in repeating(tokens, self.no_repeat_ngram) {
                left.values[token as usize] = f64::NEG_INFINITY;
            }
        }
        if (1..left.values.len()).contains(&self.top_k) {
            left.keep_best(self.top_k);
        }
        let top = left.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if top == f64::NEG_INFINITY {
            return false;
        }
        for value in &mut left.values {
            *value = ((*value - top) / self.temperature).exp();
        }
        if self.top_p < 1.0 {
            left.keep_nucleus(self.top_p);
        }
        if self.min_p > 0.0 {
            // The largest weight is 1.
            left.values.iter_mut().filter(|weight| **weight < self.min_p).for_each(|weight| *weight = 0.0);
        }
        left.sum();
        true
    }

    /// Of `scores` in the order of the ids, those of tokens that were said fall.
    ///
    /// CTRL (Keskar et al. 2019, section 4.1) divides a logit by the penalty; where it is negative, `transformers` multiplies,
    /// so that it falls too. Logits are known up to a constant; here it is the one that makes their mean 0, which a softmax
    /// keeps while it learns: its gradients add up to 0.
    fn penalise(&self, said: &[TokenId], scores: &mut [f64]) {
        let possible = || scores.iter().filter(|score| score.is_finite());
        let mean = possible().sum::<f64>() / possible().count().max(1) as f64;
        for &token in said {
            let score = &mut scores[token as usize];
            let logit = *score - mean;
            let fallen = if logit > 0.0 { logit / self.repetition_penalty } else { logit * self.repetition_penalty };
            *score = mean + fallen - self.presence_penalty;
        }
    }
}

/// The tokens that, behind `tokens`, would close an n-gram that stands among them already.
fn repeating(tokens: &[TokenId], n: usize) -> impl Iterator<Item = TokenId> {
    let tail = tokens.get((tokens.len() + 1).saturating_sub(n)..).filter(|_| tokens.len() >= n);
    let ngrams = tail.into_iter().flat_map(move |tail| tokens.windows(n).map(move |ngram| (ngram, tail)));
    ngrams.filter(|(ngram, tail)| ngram.starts_with(tail)).map(|(ngram, _)| ngram[ngram.len() - 1])
}

impl Distribution {
    /// The place of a token, for a number from 0 to 1 (which is not among them): the first whose sum exceeds that share of all.
    pub(crate) fn pick(&self, number: f64) -> usize {
        let sought = number * self.values.last().expect("something was weighed");
        self.values.partition_point(|&sum| sum <= sought)
    }

    /// Keeps the `k` largest values, at least 1 and fewer than there are; of equal ones the first.
    fn keep_best(&mut self, k: usize) {
        let Self { values, order } = self;
        order.clear();
        order.extend(0..values.len() as u32);
        let (_, _, others) = order.select_nth_unstable_by(k - 1, |&a, &b| larger(values, a, b));
        others.iter().for_each(|&place| values[place as usize] = f64::NEG_INFINITY);
    }

    /// Keeps the fewest of the largest weights whose sum is at least `share` of all; of equal ones the first.
    ///
    /// Weights are sorted into [`BUCKETS`] by their size; only that is put in order in which the share is reached.
    fn keep_nucleus(&mut self, share: f64) {
        let Self { values, order } = self;
        let mut sums = [0.0; BUCKETS];
        values.iter().for_each(|&weight| sums[bucket(weight)] += weight);
        let target = share * sums.iter().sum::<f64>();
        let mut sum = 0.0;
        let Some(last) = sums.iter().position(|more| {
            let reached = sum + more >= target;
            sum += if reached { 0.0 } else { *more };
            reached
        }) else {
            return;
        };
        order.clear();
        order.extend((0..values.len() as u32).filter(|&place| bucket(values[place as usize]) == last));
        order.sort_unstable_by(|&a, &b| larger(values, a, b));
        let kept = order.iter().take_while(|&&place| {
            let open = sum < target;
            sum += values[place as usize];
            open
        });
        // A share of next to nothing still leaves the best.
        let kept = kept.count().max(1);
        order[kept..].iter().for_each(|&place| values[place as usize] = 0.0);
        values.iter_mut().filter(|weight| bucket(**weight) > last).for_each(|weight| *weight = 0.0);
    }

    /// Each value becomes the sum of all up to it.
    fn sum(&mut self) {
        let mut sum = 0.0;
        for value in &mut self.values {
            sum += *value;
            *value = sum;
        }
    }
}

/// The larger value first; of equal ones the first.
fn larger(values: &[f64], a: u32, b: u32) -> std::cmp::Ordering {
    values[b as usize].total_cmp(&values[a as usize]).then(a.cmp(&b))
}

/// Sizes of weights that are told apart: four an octave, down to `2^-64`.
const BUCKETS: usize = 256;

/// Where a weight from 0 to 1 belongs; the larger it is, the earlier.
fn bucket(weight: f64) -> usize {
    // The bits of numbers that are not negative are in the order of the numbers.
    (((1.0_f64.to_bits() - weight.to_bits()) >> 50) as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use antiphon_core::random::Key;

    use super::*;

    fn off() -> Sampler {
        Sampler {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            no_repeat_ngram: 0,
        }
    }

    /// The probabilities that are left.
    fn left(sampler: &Sampler, probabilities: &[f64], tokens: &[TokenId]) -> Vec<f64> {
        let log_probs: Vec<f32> = probabilities.iter().map(|p| p.ln() as f32).collect();
        let ids: Vec<TokenId> = (0..log_probs.len() as TokenId).collect();
        let mut said = Said::default();
        tokens.iter().for_each(|&token| said.add(token));
        let mut distribution = Distribution::default();
        let row = RowOutput { tokens: &ids, log_probs: &log_probs, scores: &log_probs };
        if !sampler.weigh(row, tokens, &said, &mut distribution) {
            return vec![0.0; ids.len()];
        }
        let total = distribution.values.last().unwrap();
        let before = std::iter::once(&0.0).chain(&distribution.values);
        distribution.values.iter().zip(before).map(|(sum, before)| (sum - before) / total).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        let close = found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-6);
        assert!(close, "{found:?} for {expected:?}");
    }

    #[test]
    fn truncations_by_hand() {
        let p = [0.1, 0.4, 0.2, 0.05, 0.25];
        assert_close(&left(&off(), &p, &[]), &p);
        // Squares of 1, 4, 2, 0.5, 2.5: 1, 16, 4, 0.25, 6.25 of 27.5.
        let sharp = Sampler { temperature: 0.5, ..off() };
        assert_close(&left(&sharp, &p, &[]), &[1.0, 16.0, 4.0, 0.25, 6.25].map(|square| square / 27.5));
        assert_close(&left(&Sampler { top_k: 2, ..off() }, &p, &[]), &[0.0, 8.0 / 13.0, 0.0, 0.0, 5.0 / 13.0]);
        for share in [0.41, 0.649] {
            let nucleus = Sampler { top_p: share, ..off() };
            assert_close(&left(&nucleus, &p, &[]), &[0.0, 8.0 / 13.0, 0.0, 0.0, 5.0 / 13.0]);
        }
        assert_close(&left(&Sampler { top_p: 1e-9, ..off() }, &p, &[]), &[0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_close(&left(&Sampler { min_p: 0.3, ..off() }, &p, &[]), &[0.0, 8.0 / 17.0, 4.0 / 17.0, 0.0, 5.0 / 17.0]);
        // The nucleus is that of what top-k has left: 8, 4, 5 of 17, of which 13 are 76 %.
        let both = Sampler { top_k: 3, top_p: 0.75, ..off() };
        assert_close(&left(&both, &p, &[]), &[0.0, 8.0 / 13.0, 0.0, 0.0, 5.0 / 13.0]);
        // And of what the temperature has left: 16 of 27.5 are 58 %.
        let both = Sampler { temperature: 0.5, top_p: 0.55, ..off() };
        assert_close(&left(&both, &p, &[]), &[0.0, 1.0, 0.0, 0.0, 0.0]);
        assert_close(&left(&off(), &[0.0; 3], &[]), &[0.0; 3]);
    }

    #[test]
    fn of_equal_tokens_the_first_are_kept() {
        let p = [0.1, 0.2, 0.2, 0.2, 0.1, 0.2];
        let thirds = [0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0, 0.0];
        assert_close(&left(&Sampler { top_k: 3, ..off() }, &p, &[]), &thirds);
        assert_close(&left(&Sampler { top_p: 0.5, ..off() }, &p, &[]), &thirds);
        assert_close(&left(&Sampler { top_k: 3, temperature: 1e300, ..off() }, &p, &[]), &thirds);
        assert_close(&left(&Sampler { min_p: 1.0, ..off() }, &p, &[]), &[0.0, 0.25, 0.25, 0.25, 0.0, 0.25]);
    }

    #[test]
    fn penalties_by_hand() {
        // Logits 2, 1, -1, -2, whose mean is 0 already.
        let exps = |logits: [f64; 4]| {
            let exps = logits.map(f64::exp);
            exps.map(|exp| exp / exps.iter().sum::<f64>())
        };
        let p = exps([2.0, 1.0, -1.0, -2.0]);
        let penalised = |repetition_penalty, presence_penalty, tokens: &[TokenId]| {
            left(&Sampler { repetition_penalty, presence_penalty, ..off() }, &p, tokens)
        };
        // A positive logit is divided, a negative one multiplied, once, however often the token was said.
        assert_close(&penalised(2.0, 0.0, &[0, 3, 0, 0]), &exps([1.0, 1.0, -1.0, -4.0]));
        assert_close(&penalised(1.0, 0.5, &[1, 2, 1]), &exps([2.0, 0.5, -1.5, -2.0]));
        assert_close(&penalised(2.0, 0.5, &[0, 2]), &exps([0.5, 1.0, -2.5, -2.0]));
        assert_close(&penalised(0.5, -1.0, &[1]), &exps([2.0, 3.0, -1.0, -2.0]));
        assert_close(&penalised(2.0, 0.5, &[]), &p);
        // What is impossible stays so, and has no part in the mean.
        let holes = [&p[..], &[0.0]].concat();
        let sampler = Sampler { repetition_penalty: 2.0, ..off() };
        let expected = [&exps([1.0, 1.0, -1.0, -2.0])[..], &[0.0]].concat();
        assert_close(&left(&sampler, &holes, &[0, 4]), &expected);
    }

    #[test]
    fn ngrams_by_hand() {
        let closing = |tokens: &[TokenId], n| repeating(tokens, n).collect::<Vec<_>>();
        assert_eq!(closing(&[4, 5, 6, 4, 5], 3), [6]);
        assert_eq!(closing(&[4, 5, 6, 4, 5, 7, 4, 5], 3), [6, 7]);
        assert_eq!(closing(&[4, 4, 4], 2), [4, 4]);
        assert_eq!(closing(&[4, 5], 1), [4, 5]);
        assert_eq!(closing(&[4, 5], 3), [0; 0]);
        assert_eq!(closing(&[4], 2), [0; 0]);
        assert_eq!(closing(&[], 1), [0; 0]);
        let p = [0.25; 4];
        let sampler = Sampler { no_repeat_ngram: 2, ..off() };
        assert_close(&left(&sampler, &p, &[1, 2, 1, 3, 1]), &[0.5, 0.5, 0.0, 0.0]);
    }

    /// The nucleus as it is defined: all sorted, from the top.
    fn nucleus(p: &[f64], share: f64) -> Vec<f64> {
        let mut order: Vec<usize> = (0..p.len()).collect();
        order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
        let total: f64 = p.iter().sum();
        let (mut kept, mut sum) = (vec![0.0; p.len()], 0.0);
        for place in order {
            if sum >= share * total {
                break;
            }
            kept[place] = p[place];
            sum += p[place];
        }
        kept.iter().map(|weight| weight / sum).collect()
    }

    #[test]
    fn the_nucleus_is_what_sorting_everything_gives() {
        for seed in 0..300 {
            let key = Key::from_seed(seed);
            let scale = [0.0, 0.5, 3.0, 30.0][seed as usize % 4];
            let exps: Vec<f64> = (0..1 + key.below(0, 300)).map(|i| (scale * key.normal(i + 1)).exp()).collect();
            let total: f64 = exps.iter().sum();
            // As a model says them.
            let p: Vec<f64> = exps.iter().map(|exp| f64::from(((exp / total).ln() as f32).exp())).collect();
            for share in [0.01, 0.3123, 0.9017, 0.99923] {
                let found = left(&Sampler { top_p: share, ..off() }, &p, &[]);
                let expected = nucleus(&p, share);
                assert_eq!(
                    found.iter().map(|&p| p > 0.0).collect::<Vec<_>>(),
                    expected.iter().map(|&p| p > 0.0).collect::<Vec<_>>(),
                    "{seed} {share}"
                );
            }
        }
    }

    #[test]
    fn weights_of_any_size_are_in_order() {
        let sizes = [1.0, 0.99, 0.75, 0.5, 1e-3, 1e-18, 1e-25, 1e-300, 5e-324, 0.0];
        assert!(sizes.map(bucket).is_sorted() && bucket(1.0) == 0 && bucket(0.0) == BUCKETS - 1);
    }

    #[test]
    fn a_number_finds_its_token() {
        let distribution = Distribution { values: vec![0.0, 0.25, 0.25, 0.5, 1.0, 1.0], order: Vec::new() };
        let picked = [0.0, 0.2499, 0.25, 0.4999, 0.5, 1.0 - f64::EPSILON / 2.0].map(|number| distribution.pick(number));
        assert_eq!(picked, [1, 1, 3, 3, 4, 4]);
        // The largest number that is below 1 never rounds up to all.
        for total in (1..10_000).map(|i| 1.0 + f64::from(i) * f64::EPSILON) {
            assert!((1.0 - f64::EPSILON / 2.0) * total < total);
        }
    }

    #[test]
    fn the_best_few_are_asked_for_where_they_are_enough() {
        let few = Sampler { top_k: 5, top_p: 0.9, min_p: 0.1, temperature: 0.7, ..off() };
        assert_eq!(few.selection(40), Selection::Top(5));
        assert_eq!(few.selection(39), Selection::All);
        assert_eq!(Sampler { top_k: 1, ..off() }.selection(4), Selection::Top(1));
        for changed in [
            Sampler { repetition_penalty: 1.1, ..few.clone() },
            Sampler { presence_penalty: 0.1, ..few.clone() },
            Sampler { no_repeat_ngram: 3, ..few.clone() },
            Sampler { top_k: 0, ..few },
        ] {
            assert_eq!(changed.selection(40), Selection::All);
        }
    }
}
