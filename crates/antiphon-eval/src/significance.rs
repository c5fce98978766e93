//! Is one system better than another, or was it luck?
//!
//! Two tests over the same sources, answered by two systems:
//!
//! - [`paired_bootstrap`] (Koehn 2004, *Statistical significance tests for machine translation evaluation*) asks how
//!   the figures would vary over other test sets like this one;
//! - [`approximate_randomization`] (Noreen 1989; Riezler and Maxwell 2005) asks how often a difference as large would
//!   arise if it did not matter which system gave which answer.
//!
//! What is drawn, or exchanged, are answers; for a metric of whole dialogs these, with all of their answers. Figures of drawn corpora that
//! tell how many things are different are shifted by their mean distance from the figure of the corpus as it is, since a corpus in
//! which answers are repeated holds fewer different things (Efron and Tibshirani 1993, chapter 10).
//!
//! Both run in parallel; each trial draws under a key of its own, so the number of threads changes nothing.

use antiphon_core::random::Key;
use antiphon_core::{Error, Judged, Place, Result};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::additive::{AdditiveMetric, Counts, Sum};
use crate::summary::check_confidence;
use crate::{Interval, MetricConfig};

/// Differences as small as this are rounding: they count as equal.
const ROUNDING: f64 = 1e-9;

/// How thoroughly to test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SignificanceConfig {
    /// How many corpora are drawn. The smallest p-value is `1 / (trials + 1)`.
    #[schemars(range(min = 1))]
    pub trials: usize,
    /// The share of drawn corpora that a confidence interval spans.
    #[schemars(range(min = 0.01, max = 0.9999))]
    pub confidence: f64,
}

impl Default for SignificanceConfig {
    fn default() -> Self {
        Self { trials: 1000, confidence: 0.95 }
    }
}

impl SignificanceConfig {
    fn check(&self) -> Result<()> {
        if self.trials == 0 {
            return Err(Error::new("must be at least 1, got 0").at("trials"));
        }
        check_confidence(self.confidence).map_err(|error| error.at("confidence"))
    }
}

/// A figure and where it would lie on other test sets like this one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure over the answers as they are.
    pub value: f64,
    /// The middle of the drawn corpora's figures, leaving out as many on either side.
    pub interval: Interval,
}

/// What [`paired_bootstrap`] found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The first system's figure.
    pub first: Estimate,
    /// The second system's figure.
    pub second: Estimate,
    /// First minus second.
    pub difference: Estimate,
    /// One-sided: how often the system that is better here is not better on a drawn corpus, `(1 + such corpora) /
    /// (1 + trials)`; 1 if the two are equal.
    pub p_value: f64,
}

/// What [`approximate_randomization`] found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Randomization {
    /// The first system's figure.
    pub first: f64,
    /// The second system's figure.
    pub second: f64,
    /// First minus second.
    pub difference: f64,
    /// Two-sided: how often randomly exchanged answers differ at least as much, `(1 + such trials) / (1 + trials)`.
    pub p_value: f64,
}

/// Draws as many answers as there are, with replacement and the same ones for both systems, over and over.
///
/// # Errors
/// If there are no answers, the two systems' answers have not the same references, or `config` is out of range.
pub fn paired_bootstrap(
    metric: &MetricConfig,
    first: &[Judged],
    second: &[Judged],
    config: &SignificanceConfig,
    key: Key,
) -> Result<Bootstrap> {
    config.check()?;
    let pair = Pair::new(metric, first, second)?;
    let observed = pair.as_they_are();
    let units = pair.units() as u64;
    let mut drawn: Vec<Figures> = trials(config, key.named("bootstrap"), |key| {
        let rows = (0..units).map(|i| key.below(i, units) as usize);
        pair.figures(&pair.first.sum(rows.clone()), &pair.second.sum(rows))
    });
    if pair.metric.counts_kinds() {
        centre(&mut drawn, &observed);
    }

    let direction = observed.difference().signum();
    let p_value = if observed.difference().abs() <= ROUNDING {
        1.0
    } else {
        share(drawn.iter().map(|figures| figures.difference() * direction <= ROUNDING))
    };
    let estimate = |of: fn(&Figures) -> f64| Estimate {
        value: of(&observed),
        interval: middle(drawn.iter().map(of).collect(), config.confidence),
    };
    Ok(Bootstrap {
        first: estimate(|figures| figures.first),
        second: estimate(|figures| figures.second),
        difference: estimate(Figures::difference),
        p_value,
    })
}

/// Exchanges the two systems' answers to each source or not, by the toss of a coin, over and over.
///
/// # Errors
/// If there are no answers, the two systems' answers have not the same references, or `config` is out of range.
pub fn approximate_randomization(
    metric: &MetricConfig,
    first: &[Judged],
    second: &[Judged],
    config: &SignificanceConfig,
    key: Key,
) -> Result<Randomization> {
    randomization(&Pair::new(metric, first, second)?, config, key)
}

/// The same for systems that were trained several times, each run with another seed: `first` and `second` have the answers of
/// each run. A source's answers by all runs of a system are exchanged together, since they are no independent observations.
///
/// # Errors
/// As [`approximate_randomization`], or if there are no runs, or not as many of both systems.
pub fn approximate_randomization_over_runs(
    metric: &MetricConfig,
    first: &[Vec<Judged>],
    second: &[Vec<Judged>],
    config: &SignificanceConfig,
    key: Key,
) -> Result<Randomization> {
    let (a, b) = (first.len(), second.len());
    let ([one, more @ ..], [other, others @ ..]) = (first, second) else {
        return Err(Error::new("there are no runs to compare; give at least one of each system"));
    };
    if a != b {
        return Err(Error::new(format!("the two systems must have as many runs, but one has {a} and the other {b}")));
    }
    let mut pair = Pair::new(metric, one, other)?;
    for (one, other) in more.iter().zip(others) {
        pair.merge(&Pair::new(metric, one, other)?)?;
    }
    randomization(&pair, config, key)
}

fn randomization(pair: &Pair, config: &SignificanceConfig, key: Key) -> Result<Randomization> {
    config.check()?;
    let observed = pair.as_they_are();
    let drawn: Vec<f64> =
        trials(config, key.named("randomization"), |key| pair.exchanged(pair.units(), |i| heads(key, i)).difference());
    let as_large = observed.difference().abs() - ROUNDING;
    Ok(Randomization {
        first: observed.first,
        second: observed.second,
        difference: observed.difference(),
        p_value: share(drawn.iter().map(|difference| difference.abs() >= as_large)),
    })
}

/// Shifts the figures of drawn corpora so that their means are the figures of the corpus as it is. A corpus that is drawn with
/// replacement holds answers twice, and so fewer different things than one of as many answers: without this, the interval of how many
/// are different would lie beside the figure.
fn centre(drawn: &mut [Figures], observed: &Figures) {
    let mean = |of: fn(&Figures) -> f64| drawn.iter().map(of).sum::<f64>() / drawn.len() as f64;
    let (first, second) =
        (observed.first - mean(|figures| figures.first), observed.second - mean(|figures| figures.second));
    drawn
        .iter_mut()
        .for_each(|figures| (figures.first, figures.second) = (figures.first + first, figures.second + second));
}

/// One result a trial, in the order of the trials.
fn trials<T: Send>(config: &SignificanceConfig, key: Key, trial: impl Fn(Key) -> T + Sync) -> Vec<T> {
    (0..config.trials).into_par_iter().map(|number| trial(key.numbered(number as u64))).collect()
}

/// Toss `number` of a fair coin.
fn heads(key: Key, number: usize) -> bool {
    key.word(number as u64 / 64) >> (number % 64) & 1 == 1
}

/// `(1 + yes) / (1 + all)`: the corpus as it is counts as one of the drawn ones, so that no p-value is 0.
fn share(events: impl ExactSizeIterator<Item = bool>) -> f64 {
    let all = events.len();
    (1 + events.filter(|&yes| yes).count()) as f64 / (1 + all) as f64
}

/// The interval that leaves out as many figures below as above, its ends interpolated between neighbours.
fn middle(mut figures: Vec<f64>, confidence: f64) -> Interval {
    figures.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| {
        let place = share * (figures.len() - 1) as f64;
        let below = place.floor() as usize;
        let above = (below + 1).min(figures.len() - 1);
        figures[below] + (figures[above] - figures[below]) * place.fract()
    };
    let outside = (1.0 - confidence) / 2.0;
    Interval { low: quantile(outside), high: quantile(1.0 - outside) }
}

/// Both systems' figures on one corpus.
struct Figures {
    first: f64,
    second: f64,
}

impl Figures {
    fn difference(&self) -> f64 {
        self.first - self.second
    }
}

/// Both systems' counts.
struct Pair {
    metric: Box<dyn AdditiveMetric>,
    first: Counts,
    second: Counts,
    answers: usize,
}

impl Pair {
    fn new(metric: &MetricConfig, first: &[Judged], second: &[Judged]) -> Result<Self> {
        let metric = metric.additive();
        let metric = metric.knowing(first).unwrap_or(metric);
        if first.len() != second.len() {
            let (a, b) = (first.len(), second.len());
            let message =
                format!("the two systems must answer the same sources, but one has {a} answers and the other {b}");
            return Err(Error::new(message));
        }
        if let Some(i) = first.iter().zip(second).position(|(a, b)| a.references != b.references) {
            let message = "the two systems' references differ; compare answers to the same sources in the same order";
            return Err(Error::new(message).at(Place::text(format!("answer {}", i + 1))));
        }
        for column in metric.columns() {
            let differs = |(a, b): (&Judged, &Judged)| a.columns.get(column) != b.columns.get(column);
            if let Some(i) = first.iter().zip(second).position(differs) {
                let message = format!(
                    "the two systems' answers differ in the column `{column}`; compare answers to the same sources"
                );
                return Err(Error::new(message).at(Place::text(format!("answer {}", i + 1))));
            }
        }
        let mut counts = Counts::several(&*metric, &[first, second])?.into_iter();
        let (one, other) = counts.next().zip(counts.next()).expect("of two there are two");
        Ok(Self { metric, first: one, second: other, answers: first.len() })
    }

    /// Adds other runs of the same two systems over the same sources.
    fn merge(&mut self, other: &Self) -> Result<()> {
        if self.answers != other.answers {
            let (a, b) = (self.answers, other.answers);
            let message = format!("all runs must answer the same sources, but one has {a} answers and another {b}");
            return Err(Error::new(message));
        }
        if self.units() != other.units() {
            return Err(Error::new("the answers of all runs must be about the same things: their columns differ"));
        }
        self.first.merge(&other.first);
        self.second.merge(&other.second);
        Ok(())
    }

    fn figures(&self, first: &[u64], second: &[u64]) -> Figures {
        Figures { first: self.metric.figure(first), second: self.metric.figure(second) }
    }

    fn as_they_are(&self) -> Figures {
        self.exchanged(self.units(), |_| false)
    }

    /// What is drawn or exchanged as one: answers, or those that belong together.
    fn units(&self) -> usize {
        self.first.units()
    }

    fn exchanged(&self, units: usize, exchange: impl Fn(usize) -> bool) -> Figures {
        let (mut first, mut second) = (Sum::like(&self.first), Sum::like(&self.second));
        for i in 0..units {
            let (to_first, to_second) = if exchange(i) { (&mut second, &mut first) } else { (&mut first, &mut second) };
            to_first.add(&self.first, i);
            to_second.add(&self.second, i);
        }
        self.figures(&first.total(), &second.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system that is right with this probability, over `n` sources whose right answer is "a b c d e".
    fn system(name: &str, right: f64, n: usize) -> Vec<Judged> {
        let key = Key::from_seed(11).named(name);
        (0..n as u64)
            .map(|i| {
                let hypothesis = if key.uniform(i) < right { "a b c d e" } else { "a b x d" };
                Judged::new(hypothesis, ["a b c d e"])
            })
            .collect()
    }

    fn metrics() -> [MetricConfig; 4] {
        [
            MetricConfig::SequenceErrorRate(Default::default()),
            MetricConfig::WordErrorRate(Default::default()),
            MetricConfig::Bleu(Default::default()),
            MetricConfig::Chrf(Default::default()),
        ]
    }

    fn config(trials: usize) -> SignificanceConfig {
        SignificanceConfig { trials, ..Default::default() }
    }

    const KEY: Key = Key::from_seed(1);

    #[test]
    fn equal_systems_are_not_different() {
        let a = system("a", 0.7, 100);
        for metric in metrics() {
            let bootstrap = paired_bootstrap(&metric, &a, &a, &config(100), KEY).unwrap();
            assert_eq!((bootstrap.p_value, bootstrap.difference.value), (1.0, 0.0));
            assert_eq!(bootstrap.difference.interval, Interval { low: 0.0, high: 0.0 });
            assert_eq!(approximate_randomization(&metric, &a, &a, &config(100), KEY).unwrap().p_value, 1.0);
        }
    }

    #[test]
    fn a_clear_difference_is_found_and_a_slight_one_is_not() {
        let (good, bad, like_bad) = (system("a", 0.9, 200), system("b", 0.5, 200), system("c", 0.5, 200));
        for metric in metrics() {
            let bootstrap = paired_bootstrap(&metric, &good, &bad, &config(499), KEY).unwrap();
            let randomization = approximate_randomization(&metric, &good, &bad, &config(499), KEY).unwrap();
            assert_eq!((bootstrap.p_value, randomization.p_value), (1.0 / 500.0, 1.0 / 500.0), "{metric:?}");
            let Interval { low, high } = bootstrap.difference.interval;
            assert!(low < bootstrap.difference.value && bootstrap.difference.value < high);
            assert!(if metric.lower_is_better() { high < 0.0 } else { low > 0.0 }, "{metric:?}");
            assert_eq!(bootstrap.first.value, metric.build().score(&good).unwrap().value);
            assert_eq!(randomization.second, metric.build().score(&bad).unwrap().value);

            let slight = approximate_randomization(&metric, &bad, &like_bad, &config(499), KEY).unwrap();
            assert!(slight.p_value > 0.05, "{metric:?} {slight:?}");
        }
    }

    #[test]
    fn exchanging_the_systems_mirrors_the_result() {
        let (a, b) = (system("a", 0.6, 80), system("b", 0.5, 80));
        for metric in metrics() {
            let there = paired_bootstrap(&metric, &a, &b, &config(200), KEY).unwrap();
            let back = paired_bootstrap(&metric, &b, &a, &config(200), KEY).unwrap();
            assert_eq!((there.p_value, there.first, there.second), (back.p_value, back.second, back.first));
            assert!((there.difference.interval.low + back.difference.interval.high).abs() < 1e-9);
            let there = approximate_randomization(&metric, &a, &b, &config(200), KEY).unwrap();
            let back = approximate_randomization(&metric, &b, &a, &config(200), KEY).unwrap();
            assert_eq!((there.p_value, there.difference), (back.p_value, -back.difference));
        }
    }

    #[test]
    fn randomization_approaches_the_exact_test() {
        // Twelve answers can be exchanged in 4096 ways: all of them together give the exact p-value.
        let (a, b) = (system("d", 0.9, 12), system("e", 0.5, 12));
        for metric in metrics() {
            let pair = Pair::new(&metric, &a, &b).unwrap();
            let observed = pair.as_they_are().difference().abs();
            let differences = (0..4096_u32).map(|ways| pair.exchanged(12, |i| ways >> i & 1 == 1).difference());
            let exact = differences.filter(|d| d.abs() >= observed - ROUNDING).count() as f64 / 4096.0;
            assert!(0.01 < exact && exact < 0.9, "{exact} is no test");
            let sampled = approximate_randomization(&metric, &a, &b, &config(20_000), KEY).unwrap().p_value;
            assert!((sampled - exact).abs() < 0.015, "{metric:?}: {sampled} for {exact}");
        }
    }

    #[test]
    fn several_runs_are_tested_as_one_system() {
        let (a, b) = (system("a", 0.7, 60), system("b", 0.5, 60));
        let one = std::slice::from_ref::<Vec<Judged>>;
        for metric in metrics() {
            let once = approximate_randomization(&metric, &a, &b, &config(400), KEY).unwrap();
            let over = |first: &[Vec<Judged>], second: &[Vec<Judged>]| {
                approximate_randomization_over_runs(&metric, first, second, &config(400), KEY)
            };
            assert_eq!(over(one(&a), one(&b)).unwrap(), once);
            // Runs that answer alike are no more evidence than one of them.
            let thrice = over(&[a.clone(), a.clone(), a.clone()], &[b.clone(), b.clone(), b.clone()]).unwrap();
            assert!(
                (thrice.p_value - once.p_value).abs() < 1e-12 && (thrice.difference - once.difference).abs() < 1e-9
            );
            // The figure is that of all answers together.
            let two = over(&[a.clone(), b.clone()], &[b.clone(), b.clone()]).unwrap();
            let all = [a.as_slice(), b.as_slice()].concat();
            assert!((two.first - metric.build().score(&all).unwrap().value).abs() < 1e-9, "{metric:?}");
            assert!(over(one(&a), &[]).is_err() && over(&[a.clone(), a.clone()], one(&b)).is_err());
            assert!(over(&[a.clone(), a[1..].to_vec()], &[b.clone(), b[1..].to_vec()]).is_err());
        }
    }

    #[test]
    fn tosses_are_fair_and_do_not_know_each_other() {
        let tosses: Vec<bool> = (0..64_000).map(|i| heads(KEY, i)).collect();
        let share = |pairs: &mut dyn Iterator<Item = bool>| pairs.filter(|&yes| yes).count() as f64 / 64_000.0;
        assert!((share(&mut tosses.iter().copied()) - 0.5).abs() < 0.01);
        for apart in [1, 2, 63, 64, 128] {
            let equal = share(&mut tosses.iter().zip(&tosses[apart..]).map(|(a, b)| a == b));
            assert!((equal - 0.5).abs() < 0.01, "{apart}: {equal}");
        }
    }

    #[test]
    fn the_bootstrap_spreads_as_a_binomial_does() {
        // Figures of drawn corpora are binomial: 95 % lie within 1.96 standard deviations.
        let a = system("a", 0.5, 400);
        let metric = &metrics()[0];
        let first = paired_bootstrap(metric, &a, &a, &config(4000), KEY).unwrap().first;
        let wrong = first.value / 100.0;
        let deviation = 100.0 * (wrong * (1.0 - wrong) / 400.0).sqrt();
        assert!((first.interval.high - first.value - 1.96 * deviation).abs() < 0.4, "{first:?}");
        assert!((first.value - first.interval.low - 1.96 * deviation).abs() < 0.4, "{first:?}");
    }

    /// `n` answers of six words each, every one drawn from so many.
    fn wordy(name: &str, different: u64, n: u64) -> Vec<Judged> {
        let key = Key::from_seed(5).named(name);
        let text =
            |i: u64| (0..6).map(|k| format!("w{}", key.below(6 * i + k, different))).collect::<Vec<_>>().join(" ");
        (0..n).map(|i| Judged::new(text(i), ["x"])).collect()
    }

    #[test]
    fn how_many_are_different_is_tested_too() {
        let (rich, poor, like_poor) = (wordy("a", 400, 150), wordy("b", 60, 150), wordy("c", 60, 150));
        for metric in ["distinct", "repeated_replies"] {
            let metric: MetricConfig = serde_json::from_value(serde_json::json!({ "kind": metric })).unwrap();
            let short = |answers: &[Judged]| -> Vec<Judged> {
                let cut = |answer: &Judged| Judged::new(answer.hypothesis.split(' ').next().unwrap(), ["x"]);
                answers.iter().map(cut).collect()
            };
            let [rich, poor, like_poor] = [&rich, &poor, &like_poor].map(|answers| short(answers));
            let bootstrap = paired_bootstrap(&metric, &rich, &poor, &config(499), KEY).unwrap();
            let randomization = approximate_randomization(&metric, &rich, &poor, &config(499), KEY).unwrap();
            assert_eq!((bootstrap.p_value, randomization.p_value), (1.0 / 500.0, 1.0 / 500.0), "{metric:?}");
            assert_eq!(bootstrap.first.value, metric.build().score(&rich).unwrap().value);
            for Estimate { value, interval } in [bootstrap.first, bootstrap.second, bootstrap.difference] {
                assert!(interval.low < value && value < interval.high, "{metric:?} {bootstrap:?}");
            }
            let slight = approximate_randomization(&metric, &poor, &like_poor, &config(499), KEY).unwrap();
            assert!(slight.p_value > 0.05, "{metric:?} {slight:?}");
            // Of several runs each has its own different ones.
            let runs = |answers: &[Judged]| vec![answers.to_vec(), answers.to_vec()];
            let over =
                approximate_randomization_over_runs(&metric, &runs(&rich), &runs(&poor), &config(499), KEY).unwrap();
            assert!((over.difference - randomization.difference).abs() < 1e-9);
        }
    }

    #[test]
    fn whole_dialogs_are_drawn_and_exchanged() {
        let metric = MetricConfig::DialogAccuracy(Default::default());
        let dialogs = |answers: Vec<Judged>, of: usize| -> Vec<Judged> {
            let column =
                |i: usize| std::collections::BTreeMap::from([("dialog".to_owned(), vec![(i / of).to_string()])]);
            answers.into_iter().enumerate().map(|(i, answer)| Judged { columns: column(i), ..answer }).collect()
        };
        let (a, b) = (system("a", 0.9, 200), system("b", 0.6, 200));
        // Dialogs of one answer are answers.
        let single =
            approximate_randomization(&metric, &dialogs(a.clone(), 1), &dialogs(b.clone(), 1), &config(300), KEY);
        let answers =
            approximate_randomization(&MetricConfig::ResponseAccuracy(Default::default()), &a, &b, &config(300), KEY);
        assert_eq!(single.unwrap(), answers.unwrap());
        let (a, b) = (dialogs(a, 4), dialogs(b, 4));
        let pair = Pair::new(&metric, &a, &b).unwrap();
        assert_eq!(pair.units(), 50);
        let bootstrap = paired_bootstrap(&metric, &a, &b, &config(499), KEY).unwrap();
        assert_eq!(bootstrap.first.value, metric.build().score(&a).unwrap().value);
        assert!(bootstrap.p_value < 0.05);
        let other = dialogs(system("b", 0.6, 200), 2);
        let error = paired_bootstrap(&metric, &a, &other, &config(9), KEY).unwrap_err().to_string();
        assert!(error.contains("differ in the column `dialog`"), "{error}");
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let (a, b) = (system("a", 0.6, 60), system("b", 0.5, 60));
        let metric = &metrics()[2];
        let with = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let bootstrap = paired_bootstrap(metric, &a, &b, &config(300), KEY).unwrap();
                (bootstrap, approximate_randomization(metric, &a, &b, &config(300), KEY).unwrap())
            })
        };
        assert_eq!(with(1), with(5));
    }

    #[test]
    fn systems_that_cannot_be_compared_are_refused() {
        let metric = &metrics()[0];
        let a = system("a", 0.5, 3);
        let error = |b: &[Judged], config: &SignificanceConfig| {
            let error = paired_bootstrap(metric, &a, b, config, KEY).unwrap_err();
            assert_eq!(error, approximate_randomization(metric, &a, b, config, KEY).unwrap_err());
            error.to_string()
        };
        assert!(error(&a[..2], &config(9)).contains("one has 3 answers and the other 2"));
        let mut other = a.clone();
        other[1].references[0].push('!');
        assert!(error(&other, &config(9)).starts_with("answer 2: the two systems' references differ"));
        assert!(error(&a, &config(0)).starts_with("trials: must be at least 1"));
        let all = SignificanceConfig { trials: 9, confidence: 1.0 };
        assert!(error(&a, &all).starts_with("confidence: a confidence must lie between 0 and 1"));
        assert!(paired_bootstrap(metric, &[], &[], &config(9), KEY).is_err());
    }
}
