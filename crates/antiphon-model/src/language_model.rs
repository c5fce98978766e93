//! No source, a text: a decoder alone, which says how probable texts are.

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Problem, Result, SourceBatch};
use antiphon_kernels::Carry;
use burn::module::Module;
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attention::{AttentionConfig, NoAttentionConfig};
use crate::decoder::{Decoder, DecoderConfig, DecoderState, RecurrentDecoderConfig};
use crate::embedding::{Embedding, EmbeddingConfig};
use crate::head::{Head, HeadConfig};
use crate::model::{Vocabularies, below};
use crate::recurrent::InitialConfig;
use crate::target::{TargetSide, Taught};

/// A recurrent language model (Mikolov et al. 2010): a text, or how probable it is, without a source.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LanguageModelConfig {
    /// Whether the output projection is the embedding.
    pub tied: TiedOutput,
    /// How tokens enter.
    pub target: EmbeddingConfig,
    /// What reads what was said and says what comes next.
    pub decoder: LayersConfig,
    /// How its outputs become probabilities.
    pub head: HeadConfig,
}

/// Whether the output projection is the embedding (Press and Wolf 2017).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TiedOutput {
    /// It has a table of its own.
    #[default]
    None,
    /// It is; the decoder must be as wide as the embedding.
    Output,
}

/// Recurrent layers, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LayersConfig {
    /// Elman's simple recurrent network with tanh.
    Rnn(RecurrentLayersConfig),
    /// Long short-term memory.
    Lstm(RecurrentLayersConfig),
    /// Gated recurrent unit.
    Gru(RecurrentLayersConfig),
}

impl Default for LayersConfig {
    fn default() -> Self {
        LayersConfig::Lstm(RecurrentLayersConfig::default())
    }
}

/// A stack of recurrent layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecurrentLayersConfig {
    /// The width of a layer.
    #[schemars(range(min = 1, max = 8192))]
    pub hidden: usize,
    /// How many layers are stacked.
    #[schemars(range(min = 1, max = 64))]
    pub layers: usize,
    /// The share of numbers that training drops from what a layer hands to the next, and from what is projected.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
    /// How the parameters start.
    pub initial: InitialConfig,
}

impl Default for RecurrentLayersConfig {
    fn default() -> Self {
        let RecurrentDecoderConfig { hidden, layers, dropout, initial, .. } = RecurrentDecoderConfig::default();
        Self { hidden, layers, dropout, initial }
    }
}

impl LayersConfig {
    /// The same layers as a decoder that looks at nothing.
    fn decoder(&self) -> DecoderConfig {
        let whole = |config: &RecurrentLayersConfig| {
            let RecurrentLayersConfig { hidden, layers, dropout, initial } = config.clone();
            let attention = AttentionConfig::None(NoAttentionConfig {});
            RecurrentDecoderConfig { hidden, layers, dropout, input_feeding: false, attention, initial }
        };
        match self {
            LayersConfig::Rnn(config) => DecoderConfig::Rnn(whole(config)),
            LayersConfig::Lstm(config) => DecoderConfig::Lstm(whole(config)),
            LayersConfig::Gru(config) => DecoderConfig::Gru(whole(config)),
        }
    }
}

impl LanguageModelConfig {
    /// How wide its decoder is.
    pub(crate) fn width(&self) -> usize {
        self.decoder.decoder().shape().hidden
    }

    /// What cannot work, with places below `[model]`.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let width = self.width();
        let message = match (self.tied, self.target.size()) {
            (TiedOutput::None, _) => return Vec::new(),
            (TiedOutput::Output, None) => {
                "needs an embedding; set `model.target.kind = \"embedding\"`, or tie nothing".into()
            }
            (TiedOutput::Output, Some(size)) if size != width => {
                format!("the output is as wide as the decoder ({width}), so the embedding must be too, not {size}")
            }
            (TiedOutput::Output, Some(_)) => return Vec::new(),
        };
        vec![Problem { place: "tied".into(), message }]
    }

    /// What is valid but has no effect, with places below `[model]`.
    pub(crate) fn warnings(&self) -> Vec<Problem> {
        below("decoder", self.decoder.decoder().warnings()).collect()
    }

    /// A model whose parameters are drawn on first use, under `key`; the settings have no problems.
    pub(crate) fn outline(&self, vocabularies: &Vocabularies, key: Key, device: &Device) -> Result<LanguageModel> {
        if !vocabularies.sources.is_empty() {
            let streams = vocabularies.sources.len();
            return Err(Error::new(format!("a language model reads no source, and the corpus has {streams}")));
        }
        let (decoder, vocabulary) = (self.decoder.decoder(), vocabularies.target);
        let (input, output) = (self.target.size().unwrap_or(vocabulary), decoder.shape().hidden);
        let tied = self.tied == TiedOutput::Output;
        Ok(LanguageModel {
            target: self.target.init(vocabulary, key.named("target"), device),
            decoder: decoder.init(input, 0, output, key.named("decoder"), device),
            output: self.head.init(vocabulary, output, tied, key.named("output"), device),
        })
    }
}

/// A recurrent language model.
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// Absent for one-hot.
    target: Option<Embedding>,
    decoder: Decoder,
    output: Head,
}

impl LanguageModel {
    /// What says the text: all of it.
    pub(crate) fn target_side(&self) -> TargetSide<'_> {
        TargetSide { embedding: self.target.as_ref(), decoder: &self.decoder, head: &self.output }
    }

    /// What the losses need for every real token, row after row.
    ///
    /// # Errors
    /// If there is a source, an id lies outside the vocabulary, or a row goes on and nothing was carried.
    pub(crate) fn teach(&self, batch: &Batch, carry: &mut Carry, dropout: Option<Key>) -> Result<Taught> {
        let start = self.read(&batch.sources, batch.target.rows())?;
        self.target_side().teach(batch, start, None, carry, dropout)
    }

    /// The state before the first step of `rows` rows: there is nothing to read.
    ///
    /// # Errors
    /// If there is a source.
    pub(crate) fn read(&self, sources: &[SourceBatch], rows: usize) -> Result<DecoderState> {
        match sources.len() {
            0 => Ok(self.decoder.start_from_zero(rows)),
            some => Err(Error::new(format!("a language model reads no source, but was given {some}"))),
        }
    }
}
