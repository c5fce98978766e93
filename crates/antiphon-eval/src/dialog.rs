//! How many replies, and how many whole dialogs, are right word for word (Bordes, Boureau and Weston 2017, *Learning end-to-end
//! goal-oriented dialog*: per-response and per-dialog accuracy).
//!
//! A reply is right if its words are those of a reference in the same order; white space is what stands between words, and case counts.

use std::collections::BTreeMap;

use antiphon_core::Judged;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::additive::AdditiveMetric;

/// Percent of answers that match a reference word for word: 100 less the sequence error rate.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseAccuracyConfig {}

/// Percent of dialogs in which every answer matches a reference word for word. Tests of significance draw and exchange whole dialogs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DialogAccuracyConfig {
    /// The column of a table that says which dialog a row is of. Rows that are answered together because their sources are equal
    /// count for the dialog of each; `data.each_row` answers each by itself.
    #[schemars(length(min = 1))]
    pub column: String,
}

impl Default for DialogAccuracyConfig {
    fn default() -> Self {
        Self { column: "dialog".into() }
    }
}

/// Counts: right answers, answers; united, right dialogs, dialogs.
pub(crate) struct Accuracy {
    pub(crate) name: &'static str,
    /// What says which answers belong together; `None`: each stands alone.
    pub(crate) column: Option<String>,
}

impl AdditiveMetric for Accuracy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn lower_is_better(&self) -> bool {
        false
    }

    fn width(&self) -> usize {
        2
    }

    fn count(&self, answer: &Judged, counts: &mut [u64]) {
        let words = answer.hypothesis.split_whitespace();
        let right = answer.references.iter().any(|reference| reference.split_whitespace().eq(words.clone()));
        counts.copy_from_slice(&[right.into(), 1]);
    }

    fn unite(&self, sums: &mut [u64]) {
        sums.copy_from_slice(&[(sums[0] == sums[1]).into(), 1]);
    }

    fn figure(&self, sums: &[u64]) -> f64 {
        100.0 * sums[0] as f64 / sums[1].max(1) as f64
    }

    fn columns(&self) -> Vec<&str> {
        self.column.iter().map(String::as_str).collect()
    }

    fn united_by(&self) -> Option<&str> {
        self.column.as_deref()
    }

    fn signature(&self, _: &[Judged]) -> String {
        self.column.as_ref().map_or_else(String::new, |column| format!("column:{column}"))
    }

    fn parts(&self, _: &[Judged], sums: &[u64]) -> BTreeMap<String, u64> {
        let parts = || [("right".to_owned(), sums[0]), ("dialogs".to_owned(), sums[1])];
        self.column.iter().flat_map(|_| parts()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MetricConfig;

    fn of(dialogs: &[&str], right: bool) -> Judged {
        let dialogs = dialogs.iter().map(ToString::to_string).collect();
        let columns = BTreeMap::from([("dialog".to_owned(), dialogs)]);
        Judged { columns, ..Judged::new(if right { "a  b" } else { "a" }, ["x", "a b"]) }
    }

    fn value(answers: &[Judged]) -> f64 {
        MetricConfig::DialogAccuracy(DialogAccuracyConfig::default()).build().score(answers).unwrap().value
    }

    #[test]
    fn a_dialog_is_right_if_all_of_it_is() {
        let answers = [of(&["1"], true), of(&["2"], true), of(&["1"], false), of(&["3"], true), of(&["2"], true)];
        let score = MetricConfig::DialogAccuracy(DialogAccuracyConfig::default()).build().score(&answers).unwrap();
        assert_eq!((score.value, score.parts["right"], score.parts["dialogs"]), (200.0 / 3.0, 2, 3));
        // What stands in two dialogs can spoil both.
        assert_eq!(value(&[of(&["1", "2"], false), of(&["1"], true), of(&["2"], true)]), 0.0);
        let metric = MetricConfig::DialogAccuracy(DialogAccuracyConfig { column: "d".into() });
        let error = metric.build().score(&answers).unwrap_err().to_string();
        assert_eq!(error, "answer 1: has no column `d`, which `dialog_accuracy` reads");
    }

    proptest! {
        #[test]
        fn dialogs_of_one_reply_are_as_accurate_as_replies(right in prop::collection::vec(any::<bool>(), 1..20)) {
            let answers: Vec<Judged> = right.iter().enumerate().map(|(i, &right)| of(&[&i.to_string()], right)).collect();
            let replies = MetricConfig::ResponseAccuracy(ResponseAccuracyConfig {}).build().score(&answers).unwrap().value;
            let errors = MetricConfig::SequenceErrorRate(Default::default()).build().score(&answers).unwrap().value;
            prop_assert_eq!(value(&answers), replies);
            prop_assert!((replies + errors - 100.0).abs() < 1e-9);
            // As one dialog it is right only if all is.
            let one: Vec<Judged> = right.iter().map(|&right| of(&["1"], right)).collect();
            prop_assert_eq!(value(&one), if right.iter().all(|&right| right) { 100.0 } else { 0.0 });
        }
    }
}
