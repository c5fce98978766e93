//! The first source: tokens enter through an embedding, frames of a recording as they are.

use antiphon_core::random::Key;
use antiphon_core::{Error, FrameBatch, Problem, Result};
use burn::tensor::{Device, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dropout::{Dropout, idle_lock};
use crate::embedding::{Embedding, EmbeddingConfig, Input, OneHotConfig, TableConfig};

/// How a source enters the model, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceConfig {
    /// A learned vector for each token.
    Embedding(TableConfig),
    /// One input for each token: the layer behind looks up a row of its own weight.
    OneHot(OneHotConfig),
    /// The frames of a recording, as `features` makes them.
    Frames(FramesConfig),
}

impl Default for SourceConfig {
    fn default() -> Self {
        EmbeddingConfig::default().into()
    }
}

impl From<EmbeddingConfig> for SourceConfig {
    fn from(config: EmbeddingConfig) -> Self {
        match config {
            EmbeddingConfig::Embedding(config) => SourceConfig::Embedding(config),
            EmbeddingConfig::OneHot(config) => SourceConfig::OneHot(config),
        }
    }
}

/// The frames of a recording.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FramesConfig {
    /// How many numbers a frame has; if unset, as many as `features` makes, their deltas included.
    #[schemars(range(min = 1, max = 8192))]
    pub width: Option<usize>,
    /// The share of numbers that training drops from the frames.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
    /// Whether `dropout` draws one mask a row, which holds for all of its frames (variational dropout, Gal and Ghahramani 2016).
    pub locked_dropout: bool,
}

impl SourceConfig {
    /// How tokens enter; `None` where frames do.
    pub fn tokens(&self) -> Option<EmbeddingConfig> {
        match self {
            SourceConfig::Embedding(config) => Some(EmbeddingConfig::Embedding(config.clone())),
            SourceConfig::OneHot(config) => Some(EmbeddingConfig::OneHot(config.clone())),
            SourceConfig::Frames(_) => None,
        }
    }

    /// How frames enter; `None` where tokens do.
    pub fn frames(&self) -> Option<&FramesConfig> {
        if let SourceConfig::Frames(config) = self { Some(config) } else { None }
    }

    /// The width of the vectors, or `None` for one-hot, and for frames of which nobody has said it.
    pub(crate) fn size(&self) -> Option<usize> {
        match self {
            SourceConfig::Embedding(config) => Some(config.size),
            SourceConfig::OneHot(_) => None,
            SourceConfig::Frames(config) => config.width,
        }
    }

    /// What is valid but has no effect.
    pub(crate) fn warnings(&self) -> Vec<Problem> {
        match self {
            SourceConfig::Embedding(TableConfig { locked_dropout, dropout, .. })
            | SourceConfig::Frames(FramesConfig { locked_dropout, dropout, .. }) => {
                idle_lock(*locked_dropout, &[*dropout]).into_iter().collect()
            }
            SourceConfig::OneHot(_) => Vec::new(),
        }
    }

    /// A module for `vocabulary` tokens; `None` where none are looked up.
    pub(crate) fn init(&self, vocabulary: usize, key: Key, device: &Device) -> Option<Embedding> {
        self.tokens()?.init(vocabulary, key, device)
    }
}

impl FramesConfig {
    /// What takes frames of this width in.
    pub(crate) fn entry(&self, width: usize) -> FrameEntry {
        FrameEntry { width, dropout: Dropout { rate: self.dropout, locked: self.locked_dropout } }
    }
}

/// Takes frames in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameEntry {
    width: usize,
    dropout: Dropout,
}

impl FrameEntry {
    /// `[B, T, F]`: a batch on a device, without what is dropped under a key.
    ///
    /// # Errors
    /// If its frames have another width.
    pub(crate) fn enter(&self, batch: FrameBatch, device: &Device, dropout_key: Option<Key>) -> Result<Input> {
        let FrameBatch { values, lengths, width, features } = batch;
        if features != self.width {
            let message = format!("this model reads frames of {} numbers, but was given {features}", self.width);
            return Err(Error::new(message));
        }
        let frames = Tensor::from_data(TensorData::new(values, [lengths.len(), width, features]), device);
        Ok(Input::Vectors(self.dropout.apply(frames, dropout_key)))
    }
}
