//! Tokenizers: text becomes ids, and ids become text.
//!
//! A [`TokenizerConfig`] says which kind; [`TokenizerConfig::train`] learns one from a corpus (a shared vocabulary is
//! simply trained on both sides); [`Tokenizer::to_json`](antiphon_core::Tokenizer::to_json) writes all of it down and
//! [`from_json`] reads that again.
//!
//! ```
//! use antiphon_text::{CharacterConfig, TokenizerConfig, from_json};
//!
//! # fn main() -> antiphon_core::Result<()> {
//! let config = TokenizerConfig::Character(CharacterConfig::default());
//! let tokenizer = config.train(&mut ["abba"].into_iter().map(|line| Ok(line.to_string())))?;
//! assert_eq!(tokenizer.encode("bad")?, [5, 4, 1]); // 0..4 are the special symbols; `d` is unknown
//! assert_eq!(tokenizer.decode(&[5, 4, 1]), "ba<unk>");
//! assert_eq!(from_json(&tokenizer.to_json())?.to_json(), tokenizer.to_json());
//! # Ok(())
//! # }
//! ```
//!
//! | kind | splits | a character never seen |
//! |---|---|---|
//! | `word` | at white space; with `sentences` lines are closed by the end symbol | the word is unknown |
//! | `character` | into Unicode scalar values; exact | is unknown |
//! | `byte` | into UTF-8 bytes; exact | cannot occur |
//! | `bpe` | words into merged pairs; exact if `byte_level` | is unknown, cannot occur if `byte_level` |
//! | `word_piece` | words, longest piece first | the word is unknown |
//! | `unigram` | words, likeliest pieces | is unknown |
//! | `file` | as a Hugging Face `tokenizer.json` says | as the file says |
//! | `model` | as a trained model's does, which the caller reads | as that does |
//!
//! Training is deterministic: what is counted in hash maps is sorted before its order can matter, and sums are made in
//! one fixed order. For that reason merges and Unigram scores are learned here and not by the `tokenizers` crate, whose
//! trainers walk randomly seeded maps; its models then do the encoding.

#![forbid(unsafe_code)]

mod bpe;
mod byte;
mod byte_level;
mod canonical;
mod character;
mod config;
mod corpus;
mod expectation;
mod file;
mod least;
mod merges;
mod normalization;
mod saved;
mod seeds;
mod unigram;
mod vocabulary;
mod word;
mod word_piece;

pub use bpe::BpeConfig;
pub use byte::ByteConfig;
pub use character::CharacterConfig;
pub use config::{OfModelConfig, TokenizerConfig};
pub use file::FileConfig;
pub use normalization::{Normalization, normalize};
pub use saved::from_json;
pub use unigram::UnigramConfig;
pub use word::WordConfig;
pub use word_piece::WordPieceConfig;
