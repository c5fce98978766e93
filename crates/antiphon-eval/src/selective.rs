//! Answering only where one is sure: how often answers are wrong by how many are given, and from which confidence on to give one.
//!
//! Of answers in the order of falling confidence, the *risk* is the share of wrong ones among the first so many, and the *coverage* is
//! how many these are of all (El-Yaniv and Wiener 2010). The area under the curve is the mean risk over all numbers of answers
//! (Geifman, Uziel and El-Yaniv 2019); of answers of equal confidence, each place has the mean of their errors.

use antiphon_core::{Error, Judged, Result};

use crate::MetricConfig;
use crate::additive::{Counts, add};

/// How sure one was of an answer, and whether it is right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Graded {
    /// How sure: the answer's probability, from 0 to 1.
    pub confidence: f64,
    /// Whether it is right.
    pub right: bool,
}

/// What is true of the answers of some confidence or more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RiskPoint {
    /// The least confidence among them.
    pub confidence: f64,
    /// How many they are.
    pub given: usize,
    /// How many of them are right.
    pub right: usize,
    /// Their share of all answers.
    pub coverage: f64,
    /// The share of wrong ones among them.
    pub risk: f64,
}

impl RiskPoint {
    /// The share of right ones among them.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.given as f64
    }

    /// Whether so large a share of them is right (`0.95`, say). What meets it exactly does, whatever was rounded on the way.
    pub fn reaches(&self, accuracy: f64) -> bool {
        self.right as f64 >= accuracy * self.given as f64 - 1e-9
    }
}

/// The curve of risk over coverage.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RiskCoverage {
    /// A point for each confidence that an answer has, the surest first; the last has all answers.
    pub points: Vec<RiskPoint>,
    /// The area under it, from 0 to 1.
    pub area: f64,
}

impl RiskCoverage {
    /// That of some answers; without points if there are none.
    ///
    /// ```
    /// use antiphon_eval::selective::{Graded, RiskCoverage};
    ///
    /// let graded = [(0.9, true), (0.2, false), (0.5, true), (0.5, false)].map(|(confidence, right)| Graded { confidence, right });
    /// let curve = RiskCoverage::of(&graded);
    /// assert_eq!(curve.points.iter().map(|p| (p.coverage, p.risk)).collect::<Vec<_>>(), [(0.25, 0.0), (0.75, 1.0 / 3.0), (1.0, 0.5)]);
    /// // 0, then half an error among two, one among three, two among four.
    /// assert!((curve.area - (0.0 + 0.5 / 2.0 + 1.0 / 3.0 + 2.0 / 4.0) / 4.0).abs() < 1e-12);
    /// ```
    pub fn of(graded: &[Graded]) -> Self {
        let mut sorted = graded.to_vec();
        sorted.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let (mut points, mut area, mut wrong, mut given) = (Vec::new(), 0.0, 0.0, 0.0);
        for equal in sorted.chunk_by(|a, b| a.confidence == b.confidence) {
            let more = equal.iter().filter(|answer| !answer.right).count() as f64;
            for _ in equal {
                (given, wrong) = (given + 1.0, wrong + more / equal.len() as f64);
                area += wrong / given;
            }
            // Thirds do not add up to one.
            wrong = wrong.round();
            points.push(RiskPoint {
                confidence: equal[0].confidence,
                given: given as usize,
                right: (given - wrong) as usize,
                coverage: given / graded.len() as f64,
                risk: wrong / given,
            });
        }
        Self { points, area: area / graded.len().max(1) as f64 }
    }

    /// The threshold under which the most answers are given of which so large a share is right (`0.95`, say); where no threshold
    /// gives that, the one under which the largest share is. It lies halfway between two confidences, or is 0 where all are given.
    pub fn threshold_for(&self, accuracy: f64) -> f64 {
        let enough = self.points.iter().rposition(|point| point.reaches(accuracy));
        let best = || {
            let places = (0..self.points.len()).rev();
            places.min_by(|&a, &b| self.points[a].risk.total_cmp(&self.points[b].risk))
        };
        enough
            .or_else(best)
            .map_or(0.0, |place| below(&self.points.iter().map(|p| p.confidence).collect::<Vec<_>>(), place))
    }
}

/// A threshold under the confidence at a place, of some that fall.
fn below(confidences: &[f64], place: usize) -> f64 {
    confidences.get(place + 1).map_or(0.0, |next| f64::midpoint(confidences[place], *next))
}

/// The threshold under which a metric is best if answers of less confidence are replaced by `text`, as the script of SQuAD 2.0
/// chooses it: halfway between two confidences, 0 where all answers are given, and above the greatest confidence where none is (above
/// 1 if that is 1); of equally good ones the one that leaves the most answers. `confidences` are those of the answers.
///
/// # Errors
/// If there are no answers, an answer has no references, or the metric does not [judge each answer](MetricConfig::judges_each).
pub fn best_threshold(metric: &MetricConfig, answers: &[Judged], confidences: &[f64], text: &str) -> Result<f64> {
    let additive = metric.additive();
    let additive = additive.knowing(answers).unwrap_or(additive);
    if !metric.judges_each() {
        let message = format!("`{}` does not judge each answer by itself: name another metric first", metric.name());
        return Err(Error::new(message));
    }
    let withheld: Vec<Judged> =
        answers.iter().map(|answer| Judged { hypothesis: text.to_owned(), ..answer.clone() }).collect();
    let (given, withheld) = (Counts::of(&*additive, answers)?, Counts::of(&*additive, &withheld)?);
    let mut order: Vec<usize> = (0..answers.len()).collect();
    order.sort_by(|&a, &b| confidences[b].total_cmp(&confidences[a]));
    let mut levels: Vec<f64> = order.iter().map(|&i| confidences[i]).collect();
    levels.dedup();
    let worth = |sums: &[u64]| additive.figure(sums) * if metric.lower_is_better() { -1.0 } else { 1.0 };
    // Of all answers none, then those of each level more.
    let mut sums = withheld.sum(0..answers.len());
    // Even an answer of confidence 1 can be withheld.
    let above = if levels[0] < 1.0 { 1.0 } else { 2.0 };
    let mut best = (worth(&sums), f64::midpoint(levels[0], above));
    for (level, equal) in order.chunk_by(|&a, &b| confidences[a] == confidences[b]).enumerate() {
        for &i in equal {
            add(&mut sums, given.row(i));
            sums.iter_mut().zip(withheld.row(i)).for_each(|(sum, count)| *sum -= count);
        }
        if worth(&sums) >= best.0 {
            best = (worth(&sums), below(&levels, level));
        }
    }
    Ok(best.1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::squad::ExactMatchConfig;

    fn graded(answers: &[(u8, bool)]) -> Vec<Graded> {
        answers.iter().map(|&(confidence, right)| Graded { confidence: f64::from(confidence) / 10.0, right }).collect()
    }

    /// The answers of a confidence of at least `threshold`: how many, and how many are right.
    fn given(graded: &[Graded], threshold: f64) -> (usize, usize) {
        let given: Vec<&Graded> = graded.iter().filter(|answer| answer.confidence >= threshold).collect();
        (given.len(), given.iter().filter(|answer| answer.right).count())
    }

    proptest! {
        #[test]
        fn points_are_what_a_threshold_leaves(answers in prop::collection::vec((1_u8..11, any::<bool>()), 1..30)) {
            let graded = graded(&answers);
            let curve = RiskCoverage::of(&graded);
            for point in &curve.points {
                let (all, right) = given(&graded, point.confidence);
                prop_assert_eq!((point.given, point.right), (all, right));
                prop_assert!((point.coverage - all as f64 / graded.len() as f64).abs() < 1e-12);
                prop_assert!((point.risk - (all - right) as f64 / all as f64).abs() < 1e-12);
            }
            prop_assert_eq!(curve.points.last().unwrap().coverage, 1.0);
            prop_assert!((0.0..=1.0).contains(&curve.area));
            // In whatever order they come.
            let backwards: Vec<Graded> = graded.iter().rev().copied().collect();
            prop_assert_eq!(RiskCoverage::of(&backwards), curve);
        }

        #[test]
        fn no_lower_threshold_keeps_what_is_asked(
            answers in prop::collection::vec((1_u8..11, any::<bool>()), 1..30),
            asked in 0_u8..11,
        ) {
            let (graded, asked) = (graded(&answers), f64::from(asked) / 10.0);
            let threshold = RiskCoverage::of(&graded).threshold_for(asked);
            let share = |threshold: f64| {
                let (all, right) = given(&graded, threshold);
                right as f64 / all as f64
            };
            let all: Vec<f64> = (0..=10).map(|t| f64::from(t) / 10.0).filter(|&t| given(&graded, t).0 > 0).collect();
            if all.iter().any(|&t| share(t) >= asked) {
                prop_assert!(share(threshold) >= asked);
                prop_assert!(all.iter().all(|&t| share(t) < asked || given(&graded, t).0 <= given(&graded, threshold).0));
            } else {
                prop_assert!(all.iter().all(|&t| share(t) <= share(threshold) + 1e-12));
            }
        }

        #[test]
        fn no_threshold_is_better_than_the_best(answers in prop::collection::vec((1_u8..11, 0_u8..3), 1..30)) {
            // What is right of each: the answer, nothing, or neither.
            let one = |&(_, right): &(u8, u8)| Judged::new("x", [["x", "", "y"][right as usize]]);
            let judged: Vec<Judged> = answers.iter().map(one).collect();
            let confidences: Vec<f64> = answers.iter().map(|&(confidence, _)| f64::from(confidence) / 10.0).collect();
            let metric = MetricConfig::ExactMatch(ExactMatchConfig {});
            let under = |threshold: f64| {
                let say = |(answer, &sure): (&Judged, &f64)| {
                    let hypothesis = if sure < threshold { String::new() } else { "x".to_owned() };
                    Judged { hypothesis, ..answer.clone() }
                };
                let said: Vec<Judged> = judged.iter().zip(&confidences).map(say).collect();
                metric.build().score(&said).unwrap().value
            };
            let best = best_threshold(&metric, &judged, &confidences, "").unwrap();
            prop_assert!((0..=10).all(|t| under(f64::from(t) / 10.0) <= under(best)));
            // Of equally good ones it leaves the most answers.
            let left = |threshold: f64| confidences.iter().filter(|sure| **sure >= threshold).count();
            let all: Vec<f64> = (0..=10).map(|t| f64::from(t) / 10.0).collect();
            prop_assert!(all.iter().all(|&t| left(t) <= left(best) || under(t) < under(best)));
        }
    }

    #[test]
    fn where_an_answer_is_right_everywhere_all_are_given() {
        let metric = MetricConfig::ExactMatch(ExactMatchConfig {});
        let judged = [Judged::new("x", ["x"]), Judged::new("y", ["x"])];
        assert_eq!(best_threshold(&metric, &judged, &[0.4, 0.3], "").unwrap(), 0.0);
        assert_eq!(RiskCoverage::of(&[]), RiskCoverage::default());
        assert_eq!(RiskCoverage::default().threshold_for(0.9), 0.0);
    }

    #[test]
    fn a_share_that_is_met_exactly_is_met() {
        // 1.0 - 19.0 / 20.0 is not what 1.0 / 20.0 is: the share of wrong ones does not tell whether that of right ones is met.
        for all in 1..=60 {
            for right in 0..=all {
                // The surest are right, so that only all of them together have this share.
                let graded: Vec<Graded> =
                    (0..all).map(|i| Graded { confidence: 1.0 - f64::from(i) / 100.0, right: i < right }).collect();
                let share = f64::from(100 * right) / f64::from(all) / 100.0;
                assert_eq!(RiskCoverage::of(&graded).threshold_for(share), 0.0, "{right} of {all}");
            }
        }
    }

    #[test]
    fn a_sure_answer_is_withheld_where_none_is_right() {
        let metric = MetricConfig::ExactMatch(ExactMatchConfig {});
        let judged = [Judged::new("x", [""]), Judged::new("x", [""])];
        assert!(best_threshold(&metric, &judged, &[1.0, 0.5], "").unwrap() > 1.0);
        let threshold = best_threshold(&metric, &judged, &[0.8, 0.5], "").unwrap();
        assert!(threshold > 0.8 && threshold <= 1.0);
    }
}
