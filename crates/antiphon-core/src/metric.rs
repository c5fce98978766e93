//! What a metric must do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Result;

/// One answer beside what was right.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Judged {
    /// What the model answered.
    pub hypothesis: String,
    /// What counts as right; at least one.
    pub references: Vec<String>,
    /// What it is about, by the names of columns that are kept for it: a value of each, or several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, Vec<String>>,
}

impl Judged {
    /// An answer, and what counts as right.
    pub fn new<R: Into<String>>(hypothesis: impl Into<String>, references: impl IntoIterator<Item = R>) -> Self {
        let references = references.into_iter().map(Into::into).collect();
        Self { hypothesis: hypothesis.into(), references, columns: BTreeMap::new() }
    }
}

/// A metric's verdict over a corpus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The metric's name.
    pub metric: String,
    /// The figure, in the metric's usual unit (percent for error rates, BLEU and chrF).
    pub value: f64,
    /// All that is needed to compute the same figure again: settings and version. Empty if the name says it all.
    pub signature: String,
    /// What the figure is made of, over the corpus, where a metric counts such things: the kinds of errors, say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, u64>,
}

/// A figure over a corpus of answers.
pub trait Metric: Send + Sync {
    /// Its name in configs and reports.
    fn name(&self) -> &'static str;

    /// Whether a smaller value is better.
    fn lower_is_better(&self) -> bool;

    /// The figure over all answers.
    ///
    /// # Errors
    /// If there are no answers, or an answer has no references.
    fn score(&self, answers: &[Judged]) -> Result<Score>;
}
