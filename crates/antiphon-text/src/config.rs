//! Choosing a tokenizer by `kind`.

use std::path::{Path, PathBuf};

use antiphon_core::{Error, Problem, Result, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::byte::ByteTokenizer;
use crate::file::FileTokenizer;
use crate::{
    BpeConfig, ByteConfig, CharacterConfig, FileConfig, Normalization, UnigramConfig, WordConfig, WordPieceConfig,
};

/// Settings of a tokenizer that a model has already: of the side that these stand for, be it `source`, `target`, `shared` or a
/// stream's. What the two models mean by a token is then the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfModelConfig {
    /// A model file, or the folder of a run that is trained, from where the program is called.
    #[schemars(length(min = 1), example = &"runs/mine")]
    pub model: PathBuf,
}

impl OfModelConfig {
    fn problems(&self) -> Vec<Problem> {
        let message = "must name a model, but is empty".to_string();
        self.model.as_os_str().is_empty().then(|| Problem { place: "model".into(), message }).into_iter().collect()
    }
}

/// A tokenizer, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(extend("default" = {"kind": "character"}))]
pub enum TokenizerConfig {
    /// What stands between white space.
    Word(WordConfig),
    /// Unicode scalar values.
    Character(CharacterConfig),
    /// The bytes of UTF-8.
    Byte(ByteConfig),
    /// Byte pair encoding (Sennrich, Haddow and Birch 2016), over characters or bytes.
    Bpe(BpeConfig),
    /// WordPiece (Wu et al. 2016).
    WordPiece(WordPieceConfig),
    /// The unigram language model (Kudo 2018).
    Unigram(UnigramConfig),
    /// A Hugging Face `tokenizer.json`.
    File(FileConfig),
    /// That of a model that there is, on the same side.
    Model(OfModelConfig),
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self::Character(CharacterConfig::default())
    }
}

impl TokenizerConfig {
    /// Learns a tokenizer from `texts`, or loads it. The same texts in the same order give the same bytes of
    /// [`Tokenizer::to_json`] in every process. For a vocabulary shared by source and target, chain the texts of both.
    ///
    /// # Errors
    /// A setting out of range, an empty corpus, a `size` too small for the alphabet, a file that cannot be used, the first error
    /// that `texts` gives, or if it is a model's, which only a reader of models can load.
    pub fn train(&self, texts: &mut dyn Iterator<Item = Result<String>>) -> Result<Box<dyn Tokenizer>> {
        if let Some(problem) = self.problems().into_iter().next() {
            return Err(Error::new(problem.message).at(problem.place));
        }
        Ok(match self {
            Self::Word(config) => Box::new(config.train(texts)?),
            Self::Character(config) => Box::new(config.train(texts)?),
            Self::Byte(config) => Box::new(ByteTokenizer { normalization: config.normalization.clone() }),
            Self::Bpe(config) => Box::new(config.train(texts)?),
            Self::WordPiece(config) => Box::new(config.train(texts)?),
            Self::Unigram(config) => Box::new(config.train(texts)?),
            Self::File(config) => Box::new(FileTokenizer::load(config)?),
            Self::Model(_) => return Err(Error::new("only who reads models can take a tokenizer of one").at("model")),
        })
    }

    /// Whether [`train`](Self::train) reads the texts at all: bytes, files and models have nothing to learn.
    pub fn needs_texts(&self) -> bool {
        match self {
            Self::Word(_) | Self::Character(_) | Self::Bpe(_) | Self::WordPiece(_) | Self::Unigram(_) => true,
            Self::Byte(_) | Self::File(_) | Self::Model(_) => false,
        }
    }

    /// The same settings with the path of a file as `resolve` gives it, for callers with a data folder.
    #[must_use]
    pub fn resolved(mut self, resolve: impl FnOnce(&Path) -> PathBuf) -> Self {
        if let Self::File(config) = &mut self {
            config.path = resolve(&config.path);
        }
        self
    }

    /// The changes made to every text before it is split. A loaded file may make more of its own, and a model's tokenizer those that
    /// it was made with.
    pub fn normalization(&self) -> &[Normalization] {
        match self {
            Self::Word(config) => &config.normalization,
            Self::Character(config) => &config.normalization,
            Self::Byte(config) => &config.normalization,
            Self::Bpe(config) => &config.normalization,
            Self::WordPiece(config) => &config.normalization,
            Self::Unigram(config) => &config.normalization,
            Self::File(config) => &config.normalization,
            Self::Model(_) => &[],
        }
    }

    /// Whether lines are sentences, each but the last closed by the end symbol.
    pub fn has_sentences(&self) -> bool {
        if let Self::Word(config) = self { config.sentences } else { false }
    }

    /// What stands between words, where it is not white space.
    pub fn separator(&self) -> Option<&str> {
        if let Self::Word(config) = self { config.separator.as_deref() } else { None }
    }

    /// All settings that cannot work, whatever the corpus; places are keys below the tokenizer's table.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Word(config) => config.problems(),
            Self::Character(config) => config.problems(),
            Self::Byte(_) => Vec::new(),
            Self::Bpe(config) => config.problems(),
            Self::WordPiece(config) => config.problems(),
            Self::Unigram(config) => config.problems(),
            Self::File(config) => config.problems(),
            Self::Model(config) => config.problems(),
        }
    }
}
