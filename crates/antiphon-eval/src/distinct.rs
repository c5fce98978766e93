//! Distinct-n: how many of the n-grams of all answers together are different ones (Li, Galley, Brockett, Gao and Dolan 2016, *A
//! diversity-promoting objective function for neural conversation models*).
//!
//! It falls with the number of answers, so only figures over the same sources can be held against each other.

use std::collections::BTreeMap;

use antiphon_core::Judged;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::additive::AdditiveMetric;
use crate::bleu::BleuTokenization;
use crate::sacrebleu::{VERSION, case, words};

/// Distinct-n, in percent: the different n-grams of all answers together by all of their n-grams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DistinctConfig {
    /// `n`. The figures are called `distinct_1`, `distinct_2`, ….
    #[schemars(range(min = 1, max = 4))]
    pub order: usize,
    /// How texts are cut into words, as for `bleu`.
    pub tokenize: BleuTokenization,
    /// Whether upper and lower case count as the same.
    pub lowercase: bool,
}

impl Default for DistinctConfig {
    fn default() -> Self {
        Self { order: 1, tokenize: BleuTokenization::default(), lowercase: false }
    }
}

/// Counts: n-grams. The kinds are the different ones.
impl AdditiveMetric for DistinctConfig {
    fn name(&self) -> &'static str {
        ["distinct_1", "distinct_2", "distinct_3", "distinct_4"][self.order.clamp(1, 4) - 1]
    }

    fn lower_is_better(&self) -> bool {
        false
    }

    fn width(&self) -> usize {
        1
    }

    fn count(&self, answer: &Judged, counts: &mut [u64]) {
        counts[0] = self.kinds(answer).len() as u64;
    }

    fn counts_kinds(&self) -> bool {
        true
    }

    fn kinds(&self, answer: &Judged) -> Vec<String> {
        let text = self.tokenize.cut(&answer.hypothesis, self.lowercase);
        words(&text).collect::<Vec<_>>().windows(self.order).map(|gram| gram.join(" ")).collect()
    }

    fn figure(&self, sums: &[u64]) -> f64 {
        100.0 * sums[1] as f64 / sums[0].max(1) as f64
    }

    fn signature(&self, _: &[Judged]) -> String {
        format!("case:{}|tok:{}|version:{VERSION}", case(self.lowercase), self.tokenize.signature())
    }

    fn parts(&self, _: &[Judged], sums: &[u64]) -> BTreeMap<String, u64> {
        BTreeMap::from([("distinct".to_owned(), sums[1]), ("all".to_owned(), sums[0])])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MetricConfig;

    fn distinct(order: usize, lowercase: bool, answers: &[&str]) -> f64 {
        let answers: Vec<Judged> = answers.iter().map(|text| Judged::new(*text, ["x"])).collect();
        let config = DistinctConfig { order, lowercase, ..Default::default() };
        MetricConfig::Distinct(config).build().score(&answers).unwrap().value
    }

    #[test]
    fn figures_by_hand() {
        // I, do, n't, know, . and what: n-grams do not reach from one answer into the next.
        let answers = ["I do not know.", "I do not know what", "i do"];
        assert_eq!(distinct(1, false, &answers), 100.0 * 7.0 / 12.0);
        assert_eq!(distinct(1, true, &answers), 100.0 * 6.0 / 12.0);
        assert_eq!(distinct(2, true, &answers), 100.0 * 5.0 / 9.0);
        assert_eq!(distinct(3, true, &["a b", ""]), 0.0);
        // Again the same says nothing new.
        assert_eq!(distinct(2, true, &[answers, answers].concat()), 100.0 * 5.0 / 18.0);
    }
}
