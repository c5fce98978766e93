//! Words: what stands between white space.

use antiphon_core::{Problem, Result, TokenId, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Normalization;
use crate::canonical::to_json;
use crate::corpus::{Texts, count, most_frequent};
use crate::least::at_least;
use crate::normalization::normalize;
use crate::vocabulary::Vocabulary;

/// Settings of a word tokenizer. Decoding joins the words with one space.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WordConfig {
    /// Words that occur less often in the corpus are unknown.
    #[schemars(range(min = 1))]
    pub min_frequency: u64,
    /// The most frequent words that fit into this many ids are kept, the four special symbols included; all if unset.
    #[schemars(range(min = 5))]
    pub max_size: Option<usize>,
    /// Changes made to every text first, in this order.
    pub normalization: Vec<Normalization>,
}

impl Default for WordConfig {
    fn default() -> Self {
        Self { min_frequency: 1, max_size: None, normalization: Vec::new() }
    }
}

impl WordConfig {
    pub(crate) fn train(&self, texts: &mut Texts<'_>) -> Result<WordTokenizer> {
        let counts = count(texts, &self.normalization, |text, found| text.split_whitespace().for_each(found))?;
        let tokens = most_frequent(counts, self.min_frequency, self.max_size)?;
        WordTokenizer::new(WordModel { normalization: self.normalization.clone(), tokens })
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        [at_least("min_frequency", self.min_frequency, 1)]
            .into_iter()
            .chain([self.max_size.and_then(|size| at_least("max_size", size as u64, 5))])
            .flatten()
            .collect()
    }
}

/// All that is saved of a word tokenizer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WordModel {
    normalization: Vec<Normalization>,
    tokens: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct WordTokenizer {
    model: WordModel,
    vocabulary: Vocabulary,
}

impl WordTokenizer {
    pub(crate) fn new(model: WordModel) -> Result<Self> {
        let vocabulary = Vocabulary::new(model.tokens.clone())?;
        Ok(Self { model, vocabulary })
    }
}

impl Tokenizer for WordTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        let text = normalize(&self.model.normalization, text);
        Ok(text.split_whitespace().map(|word| self.vocabulary.id_or_unknown(word)).collect())
    }

    fn decode(&self, ids: &[TokenId]) -> String {
        let words: Vec<&str> = ids.iter().filter_map(|&id| self.vocabulary.spoken(id)).collect();
        words.join(" ")
    }

    fn size(&self) -> usize {
        self.vocabulary.size()
    }

    fn token(&self, id: TokenId) -> Option<String> {
        self.vocabulary.token(id).map(str::to_string)
    }

    fn to_json(&self) -> String {
        to_json("word", &self.model)
    }
}
