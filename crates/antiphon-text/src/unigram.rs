//! The unigram language model of pieces (Kudo 2018): a word becomes its likeliest split.

use antiphon_core::{Error, Problem, Result, Special, TokenId, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokenizers::Model;
use tokenizers::models::unigram::Unigram;

use crate::Normalization;
use crate::canonical::to_json;
use crate::corpus::{self, Texts};
use crate::expectation;
use crate::least::at_least;
use crate::normalization::normalize;
use crate::vocabulary::Vocabulary;

/// Settings of a Unigram tokenizer. Words are split at white space, and a space closes each; decoding gives one space
/// between words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UnigramConfig {
    /// How many ids there may be, the four special symbols and the alphabet included. Fewer come out of a small corpus.
    #[schemars(range(min = 5))]
    pub size: usize,
    /// The longest piece, in characters.
    #[schemars(range(min = 1, max = 64))]
    pub max_piece_length: usize,
    /// Changes made to every text first, in this order.
    pub normalization: Vec<Normalization>,
}

impl Default for UnigramConfig {
    fn default() -> Self {
        Self { size: 8000, max_piece_length: 16, normalization: Vec::new() }
    }
}

impl UnigramConfig {
    pub(crate) fn train(&self, texts: &mut Texts<'_>) -> Result<UnigramTokenizer> {
        let counts = corpus::count_closed_words(texts, &self.normalization)?;
        let alphabet = corpus::alphabet(&counts).len();
        corpus::check_size(self.size, alphabet, "characters of the corpus (a space among them)")?;
        let pieces = expectation::learn(&counts, self.size - Special::COUNT, self.max_piece_length);
        UnigramTokenizer::new(UnigramModel { normalization: self.normalization.clone(), pieces })
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        let length = self.max_piece_length;
        let too_long =
            Problem { place: "max_piece_length".into(), message: format!("must be at most 64, got {length}") };
        [at_least("size", self.size as u64, 5), at_least("max_piece_length", length as u64, 1)]
            .into_iter()
            .chain([(length > 64).then_some(too_long)])
            .flatten()
            .collect()
    }
}

/// All that is saved of a Unigram tokenizer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnigramModel {
    normalization: Vec<Normalization>,
    /// With the natural logarithms of their probabilities.
    pieces: Vec<(String, f64)>,
}

#[derive(Debug)]
pub(crate) struct UnigramTokenizer {
    model: UnigramModel,
    vocabulary: Vocabulary,
    encoder: Unigram,
}

/// The unknown symbol's name inside the encoder: no word holds it.
const UNKNOWN: &str = "\n";

impl UnigramTokenizer {
    pub(crate) fn new(model: UnigramModel) -> Result<Self> {
        let vocabulary = Vocabulary::new(model.pieces.iter().map(|(piece, _)| piece.clone()).collect())?;
        let pieces = std::iter::once((UNKNOWN.into(), 0.0)).chain(model.pieces.iter().cloned()).collect();
        let encoder = Unigram::from(pieces, Some(0), false)
            .map_err(|error| Error::new(format!("cannot build the tokenizer: {error}; train it again")))?;
        Ok(Self { model, vocabulary, encoder })
    }

    /// The encoder has one symbol before the pieces, we have four.
    fn own_id(id: u32) -> TokenId {
        if id == 0 { Special::Unknown.id() } else { id - 1 + Special::COUNT as TokenId }
    }
}

impl Tokenizer for UnigramTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        let text = normalize(&self.model.normalization, text);
        let mut ids = Vec::with_capacity(text.len() / 3);
        corpus::for_closed_words(&text, |word| {
            let tokens = self.encoder.tokenize(word);
            let tokens = tokens.map_err(|error| Error::new(format!("cannot split a word: {error}")))?;
            ids.extend(tokens.iter().map(|token| Self::own_id(token.id)));
            Ok(())
        })?;
        Ok(ids)
    }

    fn decode(&self, ids: &[TokenId]) -> String {
        corpus::tidy(&ids.iter().filter_map(|&id| self.vocabulary.spoken(id)).collect::<String>())
    }

    fn size(&self) -> usize {
        self.vocabulary.size()
    }

    fn token(&self, id: TokenId) -> Option<String> {
        self.vocabulary.token(id).map(str::to_string)
    }

    fn to_json(&self) -> String {
        to_json("unigram", &self.model)
    }
}
