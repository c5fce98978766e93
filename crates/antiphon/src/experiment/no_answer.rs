//! No answer: what a model is not sure of is withheld.
//!
//! How sure it is, its *confidence*, is the probability of its best answer: of all its tokens together, the end symbol included.

use antiphon_core::{Error, Result};
use antiphon_eval::selective::{Graded, RiskCoverage, best_threshold};
use antiphon_eval::{MetricConfig, squad};
use antiphon_lab::{Confidence, Selective};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answers::Answers;
use super::evaluation::{Answered, is_right};
use super::{Answer, EvaluateConfig};
use crate::output::tell;

/// What becomes of an answer of which the model is not sure, chosen by `kind`. How sure it is, is the answer's probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NoAnswerConfig {
    /// Every question is answered.
    Never(NeverConfig),
    /// An answer below a threshold is withheld.
    Below(BelowConfig),
    /// The same, with a threshold that is chosen on the validation split.
    Fitted(FittedConfig),
}

/// Nothing to set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NeverConfig {}

/// A threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BelowConfig {
    /// The probability that an answer must have.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: f64,
    /// What is said instead of an answer.
    pub text: String,
}

/// What a threshold is chosen for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FittedConfig {
    /// How many percent of the answers that are given shall be right: of the thresholds that give that on the validation split, the one
    /// under which the most questions are answered. If unset, the threshold under which the first of `evaluate.metrics` is best, as the
    /// script of SQuAD 2.0 has it; that withholds an answer only where `text` is right for some questions.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub accuracy: Option<f64>,
    /// What is said instead of an answer.
    pub text: String,
}

impl Default for NoAnswerConfig {
    fn default() -> Self {
        Self::Never(NeverConfig {})
    }
}

impl Default for BelowConfig {
    fn default() -> Self {
        Self { threshold: 0.5, text: String::new() }
    }
}

impl NoAnswerConfig {
    /// What is said instead of an answer.
    fn text(&self) -> &str {
        match self {
            Self::Never(_) => "",
            Self::Below(BelowConfig { text, .. }) | Self::Fitted(FittedConfig { text, .. }) => text,
        }
    }

    /// With this threshold where one was to be chosen.
    pub(crate) fn settled(&mut self, threshold: f64) {
        if let Self::Fitted(FittedConfig { text, .. }) = self {
            *self = Self::Below(BelowConfig { threshold, text: std::mem::take(text) });
        }
    }

    /// What is withheld from whoever asks.
    ///
    /// # Errors
    /// If the threshold is chosen on the validation split, and not known.
    pub(crate) fn for_asking(&self) -> Result<Option<Withholding>> {
        if matches!(self, Self::Fitted(_)) {
            let message = "its `evaluate.no_answer` is chosen on the validation split, and what was chosen is known of a run alone: name the \
                           run, or set it, as in --set evaluate.no_answer.kind=below --set evaluate.no_answer.threshold=0.5";
            return Err(Error::new(message));
        }
        Ok(self.withholding(None))
    }

    /// What is withheld under a threshold; `None`: the one that is set, if one is.
    pub(crate) fn withholding(&self, threshold: Option<f64>) -> Option<Withholding> {
        let set = if let Self::Below(below) = self { Some(below.threshold) } else { None };
        let threshold = threshold.or(set).filter(|_| *self != Self::default())?;
        Some(Withholding { threshold, text: self.text().to_owned() })
    }
}

impl EvaluateConfig {
    /// Whether it is told how sure the model was: where it may be silent, and of answers to questions.
    pub(crate) fn grades(&self) -> bool {
        self.no_answer != NoAnswerConfig::default() || self.has_exact_match()
    }

    fn has_exact_match(&self) -> bool {
        self.metrics.iter().any(|metric| matches!(metric, MetricConfig::ExactMatch(_)))
    }
}

/// A threshold, and what is said below it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Withholding {
    threshold: f64,
    text: String,
}

impl Withholding {
    /// Withholds the best answer, and those behind it, if it is not sure enough.
    pub(crate) fn apply(&self, found: &mut Answers) {
        self.withhold(&mut found.answers);
    }

    fn withhold(&self, answers: &mut Vec<Answer>) {
        if let Some(first) = answers.first_mut().filter(|first| first.confidence() < self.threshold) {
            first.withheld = Some(std::mem::replace(&mut first.text, self.text.clone()));
            first.words.clear();
            answers.truncate(1);
        }
    }
}

/// How sure the model was of each answer, withheld or not, and whether it is right: by `exact_match` where that is a metric, else
/// word for word.
fn graded(answered: &[Answered], config: &EvaluateConfig) -> Vec<Graded> {
    let exact = config.has_exact_match();
    let grade = |answered: &Answered| {
        let best = answered.answers.first()?;
        let (text, references) = (best.withheld.as_ref().unwrap_or(&best.text), &answered.references);
        let right = if exact { squad::matches_exactly(text, references) } else { is_right(text, references) };
        Some(Graded { confidence: best.confidence(), right })
    };
    answered.iter().filter_map(grade).collect()
}

/// The threshold that suits these answers, none of which is withheld; `None` if none is to be chosen. Where none gives the accuracy
/// that is asked for, this is said.
///
/// # Errors
/// If there are no answers.
pub(super) fn fitted(answered: &[Answered], config: &EvaluateConfig) -> Result<Option<f64>> {
    let NoAnswerConfig::Fitted(FittedConfig { accuracy, text }) = &config.no_answer else { return Ok(None) };
    match (accuracy, config.metrics.first()) {
        (Some(accuracy), _) => {
            let curve = RiskCoverage::of(&graded(answered, config));
            if let Some(warning) = unreached(&curve, *accuracy) {
                tell(&format!("warning: {warning}"));
            }
            Ok(Some(curve.threshold_for(accuracy / 100.0)))
        }
        (None, None) => Ok(None),
        (None, Some(metric)) => {
            let judged: Vec<_> = answered.iter().map(Answered::judged).collect();
            let confidence = |answered: &Answered| answered.answers.first().map_or(0.0, Answer::confidence);
            let confidences: Vec<f64> = answered.iter().map(confidence).collect();
            best_threshold(metric, &judged, &confidences, text).map(Some)
        }
    }
}

/// What to say where no threshold gives so many percent of right answers.
fn unreached(curve: &RiskCoverage, accuracy: f64) -> Option<String> {
    if curve.points.iter().any(|point| point.reaches(accuracy / 100.0)) {
        return None;
    }
    let most = curve.points.iter().map(|point| 100.0 * point.accuracy()).max_by(f64::total_cmp)?;
    Some(format!(
        "evaluate.no_answer.accuracy = {accuracy}: no threshold gives so many percent of right answers on the validation split; the one that \
         gives most is taken, under which {most:.2} percent are right; ask for less, or train a better model"
    ))
}

/// Withholds what is not sure enough, and tells how sure the model was, where that is asked for.
pub(super) fn select(
    answered: &mut [Answered],
    withholding: Option<&Withholding>,
    config: &EvaluateConfig,
) -> Option<Selective> {
    for answered in answered.iter_mut() {
        withholding.into_iter().for_each(|withholding| withholding.withhold(&mut answered.answers));
    }
    let grades = config.grades().then(|| graded(answered, config)).filter(|grades| !grades.is_empty())?;
    let (given, right) = given(answered, &grades);
    Some(Selective {
        threshold: withholding.map(|withholding| withholding.threshold),
        coverage: 100.0 * given / grades.len() as f64,
        accuracy: (given > 0.0).then(|| 100.0 * right / given),
        area: 100.0 * RiskCoverage::of(&grades).area,
    })
}

/// How many answers are given, and how many of them are right.
fn given(answered: &[Answered], grades: &[Graded]) -> (f64, f64) {
    let told = answered.iter().filter(|answered| !answered.answers.is_empty()).zip(grades);
    let given: Vec<&Graded> = told.filter(|(answered, _)| !answered.is_withheld()).map(|(_, grade)| grade).collect();
    (given.len() as f64, given.iter().filter(|grade| grade.right).count() as f64)
}

/// The curve of a split for its page, where it is asked for.
pub(super) fn confidence(answered: &[Answered], config: &EvaluateConfig) -> Option<Confidence> {
    let grades = config.grades().then(|| graded(answered, config)).filter(|grades| !grades.is_empty())?;
    let curve = RiskCoverage::of(&grades);
    let (given, right) = given(answered, &grades);
    let chosen = (100.0 * given / grades.len() as f64, 100.0 * (given - right) / given);
    Some(Confidence {
        curve: curve.points.iter().map(|point| (100.0 * point.coverage, 100.0 * point.risk)).collect(),
        area: 100.0 * curve.area,
        chosen: (config.no_answer != NoAnswerConfig::default() && given > 0.0).then_some(chosen),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accuracy_that_no_threshold_gives_is_told() {
        let graded = [(0.9, false), (0.8, true), (0.7, true), (0.6, false)];
        let curve = RiskCoverage::of(&graded.map(|(confidence, right)| Graded { confidence, right }));
        let said = unreached(&curve, 95.0).unwrap();
        assert!(said.starts_with("evaluate.no_answer.accuracy = 95: ") && said.contains("66.67 percent"), "{said}");
        assert_eq!(unreached(&curve, 200.0 / 3.0), None);
        assert_eq!(unreached(&curve, 0.0), None);
        // Where nothing was answered there is nothing to be right.
        assert_eq!(unreached(&RiskCoverage::default(), 95.0), None);
    }
}
