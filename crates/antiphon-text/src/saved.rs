//! Reading a tokenizer that was written down.

use antiphon_core::{Error, Result, Tokenizer};
use serde::Deserialize;

use crate::bpe::{BpeModel, BpeTokenizer};
use crate::byte::ByteTokenizer;
use crate::character::{CharacterModel, CharacterTokenizer};
use crate::file::{FileModel, FileTokenizer};
use crate::unigram::{UnigramModel, UnigramTokenizer};
use crate::word::{WordModel, WordTokenizer};
use crate::word_piece::{WordPieceModel, WordPieceTokenizer};

/// A saved tokenizer: one key, its kind. The fields of every model are declared in the order of their names, so that
/// the text is canonical.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Saved {
    Bpe(BpeModel),
    Byte(ByteTokenizer),
    Character(CharacterModel),
    File(FileModel),
    Unigram(UnigramModel),
    Word(WordModel),
    WordPiece(WordPieceModel),
}

/// Builds the tokenizer that [`Tokenizer::to_json`] wrote.
///
/// # Errors
/// If `json` is not what a tokenizer of this version writes.
pub fn from_json(json: &str) -> Result<Box<dyn Tokenizer>> {
    let saved = serde_json::from_str(json)
        .map_err(|error| Error::new(format!("not a tokenizer of this version ({error}); train it again")))?;
    Ok(match saved {
        Saved::Bpe(model) => Box::new(BpeTokenizer::new(model)?),
        Saved::Byte(tokenizer) => Box::new(tokenizer),
        Saved::Character(model) => Box::new(CharacterTokenizer::new(model)?),
        Saved::File(model) => Box::new(FileTokenizer::new(model)?),
        Saved::Unigram(model) => Box::new(UnigramTokenizer::new(model)?),
        Saved::Word(model) => Box::new(WordTokenizer::new(model)?),
        Saved::WordPiece(model) => Box::new(WordPieceTokenizer::new(model)?),
    })
}
