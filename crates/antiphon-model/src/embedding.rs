//! Embeddings: ids become what a recurrent layer reads.

use antiphon_core::random::Key;
use antiphon_core::{Problem, TokenId};
use antiphon_kernels::{linear, select_rows, word_dropout};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dropout::{Dropout, idle_lock};
use crate::initial;

/// How tokens enter the model, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EmbeddingConfig {
    /// A learned vector for each token.
    Embedding(TableConfig),
    /// One input for each token: the layer behind looks up a row of its own weight.
    OneHot(OneHotConfig),
}

impl Default for EmbeddingConfig {
    fn default() -> Self {
        EmbeddingConfig::Embedding(TableConfig::default())
    }
}

/// A learned vector for each token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TableConfig {
    /// The width of a vector.
    #[schemars(range(min = 1, max = 8192))]
    pub size: usize,
    /// The standard deviation of its numbers at the start. If unset: 1/√size, so that a vector has about the length 1.
    #[schemars(extend("exclusiveMinimum" = 0.0), range(max = 10.0))]
    pub deviation: Option<f64>,
    /// The share of numbers that training drops from the vectors.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
    /// Whether `dropout` draws one mask a row, which holds for all of its steps (variational dropout, Gal and Ghahramani 2016).
    pub locked_dropout: bool,
    /// The share of words that training drops: of such a word the vector is zero wherever it stands in the batch (Gal and
    /// Ghahramani 2016, section 3.2).
    #[schemars(range(min = 0.0, max = 0.95))]
    pub word_dropout: f64,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self { size: 128, deviation: None, dropout: 0.0, locked_dropout: false, word_dropout: 0.0 }
    }
}

/// Nothing to set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OneHotConfig {}

impl EmbeddingConfig {
    /// The width of the vectors, or `None` for one-hot.
    pub(crate) fn size(&self) -> Option<usize> {
        match self {
            EmbeddingConfig::Embedding(config) => Some(config.size),
            EmbeddingConfig::OneHot(_) => None,
        }
    }

    /// What is valid but has no effect.
    pub(crate) fn warnings(&self) -> Vec<Problem> {
        match self {
            EmbeddingConfig::Embedding(config) => {
                idle_lock(config.locked_dropout, &[config.dropout]).into_iter().collect()
            }
            EmbeddingConfig::OneHot(_) => Vec::new(),
        }
    }

    /// A module for `vocabulary` tokens; `None` for one-hot.
    pub(crate) fn init(&self, vocabulary: usize, key: Key, device: &Device) -> Option<Embedding> {
        match self {
            EmbeddingConfig::Embedding(config) => Some(Embedding {
                table: initial::table([vocabulary, config.size], config.deviation, key, device),
                dropout: Dropout { rate: config.dropout, locked: config.locked_dropout },
                word_dropout: config.word_dropout,
            }),
            EmbeddingConfig::OneHot(_) => None,
        }
    }
}

/// A table of vectors, `[V, E]`.
#[derive(Module, Debug)]
pub struct Embedding {
    pub(crate) table: Param<Tensor<2>>,
    #[module(skip)]
    dropout: Dropout,
    #[module(skip)]
    word_dropout: f64,
}

/// What a stage or a decoder reads: `B` rows of `T` steps.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // one value at a time, on its way to a layer
pub(crate) enum Input {
    /// `[B, T, I]`.
    Vectors(Tensor<3>),
    /// `[B · T]` ids, one-hot.
    OneHot {
        /// Row after row.
        ids: Vec<TokenId>,
        /// `B` and `T`.
        dims: [usize; 2],
    },
}

impl Input {
    /// # Panics
    /// If they are ids.
    pub(crate) fn into_vectors(self) -> Tensor<3> {
        match self {
            Input::Vectors(vectors) => vectors,
            Input::OneHot { .. } => panic!("what reads vectors stands behind what makes them"),
        }
    }

    /// Times a weight `[I, O]`: `[B, T, O]`. Of one-hot ids these are rows of the weight.
    pub(crate) fn project(&self, weight: Tensor<2>) -> Tensor<3> {
        match self {
            Input::Vectors(vectors) => linear(vectors.clone(), weight),
            Input::OneHot { ids, dims: [b, t] } => {
                let rows = select_rows(weight, ids);
                let width = rows.dims()[1];
                rows.reshape([*b, *t, width])
            }
        }
    }
}

/// Looks up `dims = [B, T]` ids; one-hot without an embedding.
pub(crate) fn embed(
    embedding: Option<&Embedding>,
    ids: &[TokenId],
    dims: [usize; 2],
    dropout_key: Option<Key>,
) -> Input {
    let Some(embedding) = embedding else {
        return Input::OneHot { ids: ids.to_vec(), dims };
    };
    let mut vectors = select_rows(embedding.table.val(), ids);
    let width = vectors.dims()[1];
    if let Some(key) = dropout_key {
        vectors = word_dropout(vectors, ids, embedding.word_dropout, key.named("word"));
    }
    Input::Vectors(embedding.dropout.apply(vectors.reshape([dims[0], dims[1], width]), dropout_key))
}
