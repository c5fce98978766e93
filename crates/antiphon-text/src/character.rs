//! Characters: Unicode scalar values, white space among them.

use antiphon_core::{Problem, Result, TokenId, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Normalization;
use crate::canonical::to_json;
use crate::corpus::{Texts, count, most_frequent};
use crate::least::at_least;
use crate::normalization::normalize;
use crate::vocabulary::Vocabulary;

/// Settings of a character tokenizer. A text of known characters comes back exactly.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CharacterConfig {
    /// Characters that occur less often in the corpus are unknown.
    #[schemars(range(min = 1))]
    pub min_frequency: u64,
    /// The most frequent characters that fit into this many ids are kept, the four special symbols included; all if unset.
    #[schemars(range(min = 5))]
    pub max_size: Option<usize>,
    /// Changes made to every text first, in this order.
    pub normalization: Vec<Normalization>,
}

impl Default for CharacterConfig {
    fn default() -> Self {
        Self { min_frequency: 1, max_size: None, normalization: Vec::new() }
    }
}

impl CharacterConfig {
    pub(crate) fn train(&self, texts: &mut Texts<'_>) -> Result<CharacterTokenizer> {
        let counts = count(texts, &self.normalization, |text, found| characters(text).for_each(found))?;
        let tokens = most_frequent(counts, self.min_frequency, self.max_size)?;
        CharacterTokenizer::new(CharacterModel { normalization: self.normalization.clone(), tokens })
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        [at_least("min_frequency", self.min_frequency, 1)]
            .into_iter()
            .chain([self.max_size.and_then(|size| at_least("max_size", size as u64, 5))])
            .flatten()
            .collect()
    }
}

/// The characters of a text, as slices of it.
fn characters(text: &str) -> impl Iterator<Item = &str> {
    text.char_indices().map(|(at, character)| &text[at..at + character.len_utf8()])
}

/// All that is saved of a character tokenizer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CharacterModel {
    normalization: Vec<Normalization>,
    tokens: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct CharacterTokenizer {
    model: CharacterModel,
    vocabulary: Vocabulary,
}

impl CharacterTokenizer {
    pub(crate) fn new(model: CharacterModel) -> Result<Self> {
        let vocabulary = Vocabulary::new(model.tokens.clone())?;
        Ok(Self { model, vocabulary })
    }
}

impl Tokenizer for CharacterTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        let text = normalize(&self.model.normalization, text);
        Ok(characters(&text).map(|character| self.vocabulary.id_or_unknown(character)).collect())
    }

    fn decode(&self, ids: &[TokenId]) -> String {
        ids.iter().filter_map(|&id| self.vocabulary.spoken(id)).collect()
    }

    fn size(&self) -> usize {
        self.vocabulary.size()
    }

    fn token(&self, id: TokenId) -> Option<String> {
        self.vocabulary.token(id).map(str::to_string)
    }

    fn to_json(&self) -> String {
        to_json("character", &self.model)
    }
}
