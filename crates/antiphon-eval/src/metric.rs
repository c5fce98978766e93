//! Choosing a metric by `kind`.

use antiphon_core::{Judged, Metric};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Unit;
use crate::additive::{AdditiveMetric, OverCorpus};
use crate::bleu::BleuConfig;
use crate::chrf::ChrfConfig;
use crate::dialog::{Accuracy, DialogAccuracyConfig, ResponseAccuracyConfig};
use crate::distinct::DistinctConfig;
use crate::entities::{EntityF1, EntityF1Config};
use crate::error_rate::{
    CharacterErrorRateConfig, EditRate, PhoneErrorRateConfig, SequenceErrorRate, SequenceErrorRateConfig,
    WordErrorRateConfig,
};
use crate::length::MeanLengthConfig;
use crate::repeated::{RepeatedReplies, RepeatedRepliesConfig};
use crate::squad::{ExactMatch, ExactMatchConfig, TokenF1, TokenF1Config};

/// A metric over a corpus of answers, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MetricConfig {
    /// Percent of answers that match no reference (what grapheme-to-phoneme papers call WER).
    SequenceErrorRate(SequenceErrorRateConfig),
    /// Word edits per 100 reference words.
    WordErrorRate(WordErrorRateConfig),
    /// Character edits per 100 reference characters.
    CharacterErrorRate(CharacterErrorRateConfig),
    /// Phone edits per 100 reference phones; phones are separated by white space.
    PhoneErrorRate(PhoneErrorRateConfig),
    /// BLEU, equal to sacreBLEU's.
    Bleu(BleuConfig),
    /// chrF and chrF++, equal to sacreBLEU's.
    Chrf(ChrfConfig),
    /// Percent of answers that match a reference exactly, as SQuAD's script has it.
    ExactMatch(ExactMatchConfig),
    /// The mean F1 of the answers' words, in percent, as SQuAD's script has it.
    #[serde(rename = "token_f1")]
    TokenF1(TokenF1Config),
    /// Percent of answers that match a reference word for word.
    ResponseAccuracy(ResponseAccuracyConfig),
    /// Percent of dialogs in which every answer matches a reference word for word.
    DialogAccuracy(DialogAccuracyConfig),
    /// How well answers name the entities that references name, in percent.
    #[serde(rename = "entity_f1")]
    EntityF1(EntityF1Config),
    /// Percent of the n-grams of all answers that are different ones.
    Distinct(DistinctConfig),
    /// The mean number of words in an answer.
    MeanLength(MeanLengthConfig),
    /// Percent of answers that equal the answer to another source.
    RepeatedReplies(RepeatedRepliesConfig),
}

impl MetricConfig {
    /// The metric.
    pub fn build(&self) -> Box<dyn Metric> {
        Box::new(OverCorpus(self.additive()))
    }

    /// The metric for some of these answers: what it must know of all answers together, such as which entities there are, it knows
    /// of these.
    pub fn build_among(&self, all: &[Judged]) -> Box<dyn Metric> {
        let metric = self.additive();
        Box::new(OverCorpus(metric.knowing(all).unwrap_or(metric)))
    }

    /// The columns of a table that it reads, beside answers and references.
    pub fn columns(&self) -> Vec<String> {
        self.additive().columns().into_iter().map(str::to_owned).collect()
    }

    /// Whether it judges each answer by itself: neither whole dialogs, nor how many answers are different.
    pub fn judges_each(&self) -> bool {
        let metric = self.additive();
        !metric.counts_kinds() && metric.united_by().is_none()
    }

    /// The name in configs and reports: its `kind`, and of `distinct` its order too. Two settings of one kind share it; signatures tell them apart.
    pub fn name(&self) -> &'static str {
        self.additive().name()
    }

    /// Whether a smaller figure is better.
    pub fn lower_is_better(&self) -> bool {
        self.additive().lower_is_better()
    }

    pub(crate) fn additive(&self) -> Box<dyn AdditiveMetric> {
        match self {
            Self::SequenceErrorRate(SequenceErrorRateConfig {}) => Box::new(SequenceErrorRate),
            Self::WordErrorRate(WordErrorRateConfig {}) => {
                Box::new(EditRate { name: "word_error_rate", unit: Unit::Word })
            }
            Self::CharacterErrorRate(CharacterErrorRateConfig {}) => {
                Box::new(EditRate { name: "character_error_rate", unit: Unit::Character })
            }
            Self::PhoneErrorRate(PhoneErrorRateConfig {}) => {
                Box::new(EditRate { name: "phone_error_rate", unit: Unit::Word })
            }
            Self::Bleu(config) => Box::new(config.clone()),
            Self::Chrf(config) => Box::new(config.clone()),
            Self::ExactMatch(ExactMatchConfig {}) => Box::new(ExactMatch),
            Self::TokenF1(TokenF1Config {}) => Box::new(TokenF1),
            Self::ResponseAccuracy(ResponseAccuracyConfig {}) => {
                Box::new(Accuracy { name: "response_accuracy", column: None })
            }
            Self::DialogAccuracy(DialogAccuracyConfig { column }) => {
                Box::new(Accuracy { name: "dialog_accuracy", column: Some(column.clone()) })
            }
            Self::EntityF1(config) => Box::new(EntityF1::new(config.clone())),
            Self::Distinct(config) => Box::new(config.clone()),
            Self::MeanLength(config) => Box::new(config.clone()),
            Self::RepeatedReplies(RepeatedRepliesConfig {}) => Box::new(RepeatedReplies),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [&str; 14] = [
        "sequence_error_rate",
        "word_error_rate",
        "character_error_rate",
        "phone_error_rate",
        "bleu",
        "chrf",
        "exact_match",
        "token_f1",
        "response_accuracy",
        "dialog_accuracy",
        "entity_f1",
        "distinct",
        "mean_length",
        "repeated_replies",
    ];

    #[test]
    fn a_metric_is_named_by_its_kind_and_needs_no_other_setting() {
        for kind in KINDS {
            let config: MetricConfig = serde_json::from_value(serde_json::json!({ "kind": kind })).unwrap();
            let name = if kind == "distinct" { "distinct_1" } else { kind };
            assert_eq!((config.name(), config.build().name()), (name, name));
            assert_eq!(config.lower_is_better(), kind.ends_with("error_rate") || kind == "repeated_replies");
            assert_eq!(serde_json::to_value(&config).unwrap()["kind"], kind);
        }
    }

    #[test]
    fn unknown_settings_are_refused() {
        for kind in KINDS {
            let text = serde_json::json!({ "kind": kind, "lowercased": true });
            let error = serde_json::from_value::<MetricConfig>(text).unwrap_err().to_string();
            assert!(error.contains("unknown field `lowercased`"), "{error}");
        }
    }

    #[test]
    fn no_answers_and_no_references_are_errors() {
        let answer = |references: &[&str]| antiphon_core::Judged::new("a", references.iter().copied());
        for kind in KINDS {
            let config: MetricConfig = serde_json::from_value(serde_json::json!({ "kind": kind })).unwrap();
            let score = |answers: &[_]| config.build().score(answers).map_err(|e| e.to_string());
            assert_eq!(score(&[]).unwrap_err(), "there are no answers to judge; give at least one");
            let error = score(&[answer(&["a"]), answer(&[])]).unwrap_err();
            assert_eq!(error, "answer 2: has no reference; give at least one");
        }
    }

    #[test]
    fn the_schema_declares_the_ranges() {
        let schema = serde_json::to_string(&schemars::schema_for!(MetricConfig)).unwrap();
        assert!(schema.contains(r#""minimum":1"#) && schema.contains(r#""13a""#), "{schema}");
    }
}
