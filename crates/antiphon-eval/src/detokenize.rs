//! From the tokens that a model answers with to running text, so that a figure can be held against raw references.

mod moses;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use moses::{MosesLanguage, MosesSettings};

/// How an answer becomes running text, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Detokenization {
    /// Undoes the tokenizer of the Moses toolkit.
    Moses(MosesSettings),
}

impl Detokenization {
    /// Tokens between white space as running text.
    pub fn detokenize(&self, tokens: &str) -> String {
        match self {
            Self::Moses(settings) => moses::detokenize(tokens, settings.language),
        }
    }

    /// What is said of it in a signature.
    pub(crate) fn signature(&self) -> String {
        match self {
            Self::Moses(settings) => format!("moses-{}", settings.language.code()),
        }
    }
}

/// An answer as a metric with this setting reads it.
pub(crate) fn running_text<'a>(setting: Option<&Detokenization>, answer: &'a str) -> std::borrow::Cow<'a, str> {
    setting.map_or(answer.into(), |detokenization| detokenization.detokenize(answer).into())
}

/// The last part of a signature; nothing where answers are taken as they are.
pub(crate) fn signature(setting: Option<&Detokenization>) -> String {
    setting.map_or(String::new(), |detokenization| format!("|detok:{}", detokenization.signature()))
}
