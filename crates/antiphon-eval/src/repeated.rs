//! How often answers to different sources are the same.

use std::collections::BTreeMap;

use antiphon_core::Judged;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::additive::AdditiveMetric;

/// Percent of answers that equal the answer to another source (with `data.each_row`, in another row), white space aside. What `references` repeat among themselves is not
/// looked at: people say "yes." to many things too.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepeatedRepliesConfig {}

/// Counts: answers. The kinds are the different ones.
pub(crate) struct RepeatedReplies;

impl AdditiveMetric for RepeatedReplies {
    fn name(&self) -> &'static str {
        "repeated_replies"
    }

    fn lower_is_better(&self) -> bool {
        true
    }

    fn width(&self) -> usize {
        1
    }

    fn count(&self, _: &Judged, counts: &mut [u64]) {
        counts[0] = 1;
    }

    fn counts_kinds(&self) -> bool {
        true
    }

    fn kinds(&self, answer: &Judged) -> Vec<String> {
        vec![answer.hypothesis.split_whitespace().collect::<Vec<_>>().join(" ")]
    }

    fn figure(&self, sums: &[u64]) -> f64 {
        100.0 * sums[2] as f64 / sums[0].max(1) as f64
    }

    fn signature(&self, _: &[Judged]) -> String {
        String::new()
    }

    fn parts(&self, _: &[Judged], sums: &[u64]) -> BTreeMap<String, u64> {
        BTreeMap::from([
            ("repeated".to_owned(), sums[2]),
            ("different".to_owned(), sums[1]),
            ("all".to_owned(), sums[0]),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MetricConfig;

    #[test]
    fn each_of_equal_answers_is_repeated() {
        let answers = ["I don't know .", "yes", "I  don't know .", "no", "yes", "yes"];
        let answers = answers.map(|text| Judged::new(text, ["x"]));
        let score = MetricConfig::RepeatedReplies(RepeatedRepliesConfig {}).build().score(&answers).unwrap();
        assert_eq!(score.value, 100.0 * 5.0 / 6.0);
        assert_eq!(["repeated", "different", "all"].map(|part| score.parts[part]), [5, 3, 6]);
    }
}
