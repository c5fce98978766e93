//! WordPiece: a word is split into the longest known pieces, from the left (Wu et al. 2016; Devlin et al. 2019).
//!
//! The pieces are learned as BPE merges over characters that know whether they begin a word, as in the `tokenizers`
//! crate; the likelihood of Schuster and Nakajima (2012) is not used.

use std::collections::{BTreeSet, HashMap};

use antiphon_core::{Problem, Result, Special, TokenId, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Normalization;
use crate::canonical::to_json;
use crate::corpus::{self, Texts};
use crate::least::at_least;
use crate::merges::{self, INSIDE};
use crate::normalization::normalize;
use crate::vocabulary::Vocabulary;

/// Settings of a WordPiece tokenizer. Words are split at white space; a word that cannot be made of pieces is unknown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WordPieceConfig {
    /// How many ids there may be, the four special symbols and the alphabet included. Fewer come out of a small corpus.
    #[schemars(range(min = 5))]
    pub size: usize,
    /// Pairs that occur less often in the corpus are not merged.
    #[schemars(range(min = 1))]
    pub min_frequency: u64,
    /// Changes made to every text first, in this order.
    pub normalization: Vec<Normalization>,
}

impl Default for WordPieceConfig {
    fn default() -> Self {
        Self { size: 8000, min_frequency: 2, normalization: Vec::new() }
    }
}

impl WordPieceConfig {
    pub(crate) fn train(&self, texts: &mut Texts<'_>) -> Result<WordPieceTokenizer> {
        let split = |text: &str, found: &mut dyn FnMut(&str)| text.split_whitespace().for_each(found);
        let counts = corpus::count(texts, &self.normalization, split)?;
        let alphabet: BTreeSet<String> = counts.iter().flat_map(|(word, _)| symbols(word)).collect();
        let mut tokens: Vec<String> = alphabet.into_iter().collect();
        corpus::check_size(self.size, tokens.len(), "characters at the beginning and inside of words")?;

        let ids: HashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
        let words = counts.iter().map(|(word, n)| (symbols(word).map(|symbol| ids[&symbol]).collect(), *n)).collect();
        merges::learn(words, &mut tokens, self.size - Special::COUNT, self.min_frequency);
        let (inside, beginning): (Vec<_>, Vec<_>) = tokens.into_iter().partition(|token| token.starts_with(INSIDE));
        WordPieceTokenizer::new(WordPieceModel {
            beginning,
            inside: inside.iter().map(|token| token[INSIDE.len_utf8()..].to_string()).collect(),
            normalization: self.normalization.clone(),
        })
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        [at_least("size", self.size as u64, 5), at_least("min_frequency", self.min_frequency, 1)]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// The characters of a word; all but the first are marked.
fn symbols(word: &str) -> impl Iterator<Item = String> {
    word.char_indices().map(|(at, c)| if at == 0 { c.to_string() } else { format!("{INSIDE}{c}") })
}

/// All that is saved of a WordPiece tokenizer: the pieces that begin words, then those inside of words.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WordPieceModel {
    beginning: Vec<String>,
    inside: Vec<String>,
    normalization: Vec<Normalization>,
}

#[derive(Debug)]
pub(crate) struct WordPieceTokenizer {
    model: WordPieceModel,
    /// Pieces inside of words begin with [`INSIDE`].
    vocabulary: Vocabulary,
    /// The longest piece, in bytes.
    longest: usize,
}

impl WordPieceTokenizer {
    pub(crate) fn new(model: WordPieceModel) -> Result<Self> {
        let inside = model.inside.iter().map(|piece| format!("{INSIDE}{piece}"));
        let vocabulary = Vocabulary::new(model.beginning.iter().cloned().chain(inside).collect())?;
        let longest = model.beginning.iter().chain(&model.inside).map(String::len).max().unwrap_or(0);
        Ok(Self { model, vocabulary, longest })
    }

    /// The longest known piece that `rest` begins with: its id and its length in bytes.
    fn longest_piece(&self, rest: &str, inside: bool, key: &mut String) -> Option<(TokenId, usize)> {
        key.clear();
        if inside {
            key.push(INSIDE);
        }
        let mark = key.len();
        key.push_str(&rest[..rest.floor_char_boundary(self.longest)]);
        while key.len() > mark {
            if let Some(id) = self.vocabulary.id(key) {
                return Some((id, key.len() - mark));
            }
            key.pop();
        }
        None
    }

    fn encode_word(&self, word: &str, ids: &mut Vec<TokenId>, key: &mut String) {
        let (before, mut at) = (ids.len(), 0);
        while at < word.len() {
            let Some((id, length)) = self.longest_piece(&word[at..], at > 0, key) else {
                ids.truncate(before);
                ids.push(Special::Unknown.id());
                return;
            };
            ids.push(id);
            at += length;
        }
    }
}

impl Tokenizer for WordPieceTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        let text = normalize(&self.model.normalization, text);
        let (mut ids, mut key) = (Vec::with_capacity(text.len() / 3), String::new());
        text.split_whitespace().for_each(|word| self.encode_word(word, &mut ids, &mut key));
        Ok(ids)
    }

    fn decode(&self, ids: &[TokenId]) -> String {
        let mut text = String::new();
        for token in ids.iter().filter_map(|&id| self.vocabulary.spoken(id)) {
            match token.strip_prefix(INSIDE) {
                Some(piece) => text.push_str(piece),
                None if text.is_empty() => text.push_str(token),
                None => text.extend([" ", token]),
            }
        }
        text
    }

    fn size(&self) -> usize {
        self.vocabulary.size()
    }

    /// Pieces inside of words are written with `##` before them.
    fn token(&self, id: TokenId) -> Option<String> {
        let token = self.vocabulary.token(id)?;
        Some(token.strip_prefix(INSIDE).map_or_else(|| token.to_string(), |piece| format!("##{piece}")))
    }

    fn to_json(&self) -> String {
        to_json("word_piece", &self.model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(beginning: &[&str], inside: &[&str]) -> WordPieceTokenizer {
        let owned = |pieces: &[&str]| pieces.iter().map(|piece| piece.to_string()).collect();
        let model = WordPieceModel { beginning: owned(beginning), inside: owned(inside), normalization: Vec::new() };
        WordPieceTokenizer::new(model).unwrap()
    }

    #[test]
    fn the_longest_piece_goes_first_and_failure_takes_the_whole_word() {
        let pieces = tokenizer(&["u", "un", "a"], &["n", "aff", "affable", "able"]);
        let written =
            |text| pieces.encode(text).unwrap().iter().map(|&id| pieces.token(id).unwrap()).collect::<Vec<_>>();
        assert_eq!(written("unaffable"), ["un", "##affable"]);
        assert_eq!(written("unaffn a"), ["un", "##aff", "##n", "a"]);
        assert_eq!(written("unx a"), ["<unk>", "a"]);
        assert_eq!(pieces.decode(&pieces.encode("unaffable a").unwrap()), "unaffable a");
    }

    #[test]
    fn hashes_in_the_text_are_only_hashes() {
        let pieces = tokenizer(&["#", "a"], &["#", "a", "b"]);
        assert_eq!(pieces.decode(&pieces.encode("a ##b").unwrap()), "a ##b");
    }
}
