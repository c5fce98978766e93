//! Byte pair encoding: words of merged pairs (Sennrich, Haddow and Birch 2016), over characters or over bytes.

use std::collections::HashSet;

use antiphon_core::{Error, Problem, Result, Special, TokenId, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab};

use crate::Normalization;
use crate::canonical::to_json;
use crate::corpus::{self, Texts};
use crate::least::at_least;
use crate::normalization::normalize;
use crate::vocabulary::{Vocabulary, check_distinct};
use crate::{byte_level, merges};

/// Settings of a BPE tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BpeConfig {
    /// How many ids there may be, the four special symbols and the alphabet included. Fewer come out of a small corpus.
    #[schemars(range(min = 5))]
    pub size: usize,
    /// Pairs that occur less often in the corpus are not merged.
    #[schemars(range(min = 1))]
    pub min_frequency: u64,
    /// Merge bytes, not characters: nothing is ever unknown, and every text comes back exactly, white space included.
    /// Otherwise words are split at white space, a space closes each word, and decoding gives one space between words.
    pub byte_level: bool,
    /// Changes made to every text first, in this order.
    pub normalization: Vec<Normalization>,
}

impl Default for BpeConfig {
    fn default() -> Self {
        Self { size: 8000, min_frequency: 2, byte_level: false, normalization: Vec::new() }
    }
}

impl BpeConfig {
    pub(crate) fn train(&self, texts: &mut Texts<'_>) -> Result<BpeTokenizer> {
        let counts = if self.byte_level {
            let mut bytes = String::new();
            corpus::count(texts, &self.normalization, |text, found| {
                for piece in byte_level::pieces(text) {
                    bytes.clear();
                    byte_level::write(piece, &mut bytes);
                    found(&bytes);
                }
            })?
        } else {
            corpus::count_closed_words(texts, &self.normalization)?
        };
        let alphabet = if self.byte_level { byte_level::alphabet().to_vec() } else { corpus::alphabet(&counts) };
        let what = if self.byte_level { "bytes" } else { "characters of the corpus (a space among them)" };
        corpus::check_size(self.size, alphabet.len(), what)?;

        let symbols: std::collections::HashMap<char, u32> = alphabet.iter().copied().zip(0..).collect();
        let words = counts.iter().map(|(word, n)| (word.chars().map(|c| symbols[&c]).collect(), *n)).collect();
        let alphabet: Vec<String> = alphabet.iter().map(char::to_string).collect();
        let mut tokens = alphabet.clone();
        let learned = merges::learn(words, &mut tokens, self.size - Special::COUNT, self.min_frequency);
        let text = |id: u32| tokens[id as usize].clone();
        BpeTokenizer::new(BpeModel {
            alphabet,
            byte_level: self.byte_level,
            merges: learned.into_iter().map(|(left, right)| (text(left), text(right))).collect(),
            normalization: self.normalization.clone(),
        })
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        let least = if self.byte_level { Special::COUNT as u64 + 256 } else { 5 };
        let mut problems: Vec<Problem> =
            [at_least("size", self.size as u64, least), at_least("min_frequency", self.min_frequency, 1)]
                .into_iter()
                .flatten()
                .collect();
        if self.byte_level && (5..least).contains(&(self.size as u64)) {
            problems[0].message.push_str(" (all bytes and the special symbols, since `byte_level` is true)");
        }
        problems
    }
}

/// All that is saved of a BPE tokenizer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BpeModel {
    alphabet: Vec<String>,
    byte_level: bool,
    merges: Vec<(String, String)>,
    normalization: Vec<Normalization>,
}

#[derive(Debug)]
pub(crate) struct BpeTokenizer {
    model: BpeModel,
    vocabulary: Vocabulary,
    encoder: BPE,
}

/// The unknown symbol's name inside the encoder: no word holds it, and no merge can make it.
const UNKNOWN: &str = "\n";

impl BpeTokenizer {
    pub(crate) fn new(model: BpeModel) -> Result<Self> {
        check_distinct(&model.alphabet)?;
        let mut tokens = model.alphabet.clone();
        let mut seen: HashSet<String> = tokens.iter().cloned().collect();
        for (left, right) in &model.merges {
            if let Some(missing) = [left, right].into_iter().find(|part| !seen.contains(*part)) {
                let message = format!("a merge needs the token {missing:?}, which is not there; train it again");
                return Err(Error::new(message).at("bpe.merges"));
            }
            let token = format!("{left}{right}");
            if seen.insert(token.clone()) {
                tokens.push(token);
            }
        }
        let vocabulary = Vocabulary::new(tokens)?;
        let mut ids: Vocab = vocabulary.learned().map(|(token, id)| (token.to_string(), id)).collect();
        ids.insert(UNKNOWN.into(), Special::Unknown.id());
        let encoder = BPE::builder()
            .vocab_and_merges(ids, model.merges.clone())
            .unk_token(UNKNOWN.into())
            .fuse_unk(true)
            .build()
            .map_err(|error| Error::new(format!("cannot build the tokenizer: {error}; train it again")))?;
        Ok(Self { model, vocabulary, encoder })
    }

    fn encode_word(&self, word: &str, ids: &mut Vec<TokenId>) -> Result<()> {
        let tokens =
            self.encoder.tokenize(word).map_err(|error| Error::new(format!("cannot split a word: {error}")))?;
        ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }
}

impl Tokenizer for BpeTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        let text = normalize(&self.model.normalization, text);
        let mut ids = Vec::with_capacity(text.len() / 3);
        if self.model.byte_level {
            let mut bytes = String::new();
            for piece in byte_level::pieces(&text) {
                bytes.clear();
                byte_level::write(piece, &mut bytes);
                self.encode_word(&bytes, &mut ids)?;
            }
        } else {
            corpus::for_closed_words(&text, |word| self.encode_word(word, &mut ids))?;
        }
        Ok(ids)
    }

    /// Over bytes: exact; bytes that are not UTF-8, which a model may well say, become U+FFFD.
    fn decode(&self, ids: &[TokenId]) -> String {
        if !self.model.byte_level {
            return corpus::tidy(&ids.iter().filter_map(|&id| self.vocabulary.spoken(id)).collect::<String>());
        }
        let mut bytes = Vec::new();
        for &id in ids {
            match self.vocabulary.spoken(id) {
                Some(unknown) if id == Special::Unknown.id() => bytes.extend(unknown.bytes()),
                Some(token) => byte_level::read(token, &mut bytes),
                None => {}
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn size(&self) -> usize {
        self.vocabulary.size()
    }

    fn token(&self, id: TokenId) -> Option<String> {
        self.vocabulary.token(id).map(str::to_string)
    }

    fn to_json(&self) -> String {
        to_json("bpe", &self.model)
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::Trainer;
    use tokenizers::models::bpe::BpeTrainer;

    use super::*;

    /// Plain BPE is the one trainer of the `tokenizers` crate that is stable: over words without a suffix it must agree
    /// with ours, id by id.
    #[test]
    fn plain_bpe_equals_the_peers() {
        let text = "the cat sat on the mat and the other cat sat on the other mat near that hat";
        for size in [20, 30, 40] {
            let ours =
                BpeConfig { size, ..BpeConfig::default() }.train(&mut [Ok(text.to_string())].into_iter()).unwrap();

            let mut trainer = BpeTrainer::builder().vocab_size(size - 4).min_frequency(2).show_progress(false).build();
            let closed = |text: &str| Ok(text.split_whitespace().map(|word| format!("{word} ")).collect());
            trainer.feed([text].into_iter(), closed).unwrap();
            let mut peer = BPE::default();
            trainer.train(&mut peer).unwrap();

            assert_eq!(ours.size() - 4, peer.get_vocab_size());
            for id in 4..ours.size() as u32 {
                assert_eq!(ours.token(id), peer.id_to_token(id - 4), "{size}");
            }
        }
    }
}
