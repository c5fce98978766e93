//! How long answers are.

use antiphon_core::Judged;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::additive::AdditiveMetric;
use crate::bleu::BleuTokenization;
use crate::sacrebleu::{VERSION, words};

/// The mean number of words in an answer. It says nothing of how good answers are, and stands beside figures that do.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MeanLengthConfig {
    /// How texts are cut into words, as for `bleu`.
    pub tokenize: BleuTokenization,
}

/// Counts: words, answers.
impl AdditiveMetric for MeanLengthConfig {
    fn name(&self) -> &'static str {
        "mean_length"
    }

    fn lower_is_better(&self) -> bool {
        false
    }

    fn width(&self) -> usize {
        2
    }

    fn count(&self, answer: &Judged, counts: &mut [u64]) {
        counts.copy_from_slice(&[words(&self.tokenize.cut(&answer.hypothesis, false)).count() as u64, 1]);
    }

    fn figure(&self, sums: &[u64]) -> f64 {
        sums[0] as f64 / sums[1].max(1) as f64
    }

    fn signature(&self, _: &[Judged]) -> String {
        format!("tok:{}|version:{VERSION}", self.tokenize.signature())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MetricConfig;

    #[test]
    fn words_are_those_of_bleu() {
        let answers = ["Yes, I do.", "", "x"].map(|text| Judged::new(text, ["x"]));
        let value = |config: MeanLengthConfig| MetricConfig::MeanLength(config).build().score(&answers).unwrap().value;
        assert_eq!(value(MeanLengthConfig::default()), 6.0 / 3.0);
        assert_eq!(value(MeanLengthConfig { tokenize: BleuTokenization::None }), 4.0 / 3.0);
    }
}
