//! No source, a text: a decoder alone, which says how probable texts are.

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Problem, Result, SourceBatch};
use antiphon_kernels::Carry;
use burn::module::Module;
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attention::{AttentionConfig, NoAttentionConfig};
use crate::decoder::{Decoder, DecoderConfig, RecurrentDecoderConfig};
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
    /// It is; what is projected must be as wide as the embedding: the decoder, or its `projection`.
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
    /// The width of each layer, from the first on, where they are unlike: as many as there are `layers`. `hidden` then counts for
    /// nothing.
    #[schemars(inner(range(min = 1, max = 8192)))]
    pub widths: Vec<usize>,
    /// The width of what is projected onto the vocabulary, `r = P h` by one more weight `P`. Absent: as wide as the last layer, whose
    /// state it then is.
    #[schemars(range(min = 1, max = 8192))]
    pub projection: Option<usize>,
    /// The share of numbers that training drops from what a layer hands to the next, and from what is projected.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
    /// Whether a mask of dropout holds for all steps of a row (variational dropout, Gal and Ghahramani 2016).
    pub locked_dropout: bool,
    /// The share of numbers that training drops from what is projected onto the vocabulary. Absent: as `dropout`.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub output_dropout: Option<f64>,
    /// The share of numbers of every recurrent weight that training drops, the same for all steps of a batch (Merity et al. 2018).
    #[schemars(range(min = 0.0, max = 0.95))]
    pub weight_drop: f64,
    /// The weight of the mean square of what is projected onto the vocabulary, dropout included, in the loss per token (AR, Merity
    /// et al. 2017).
    #[schemars(range(min = 0.0), extend("format" = "float"))]
    pub activation_penalty: f64,
    /// The weight of the mean square of its change from one token to the next, without dropout, in the loss per token (TAR,
    /// Merity et al. 2017). A row's first token has none before it.
    #[schemars(range(min = 0.0), extend("format" = "float"))]
    pub temporal_penalty: f64,
    /// How the parameters start.
    pub initial: InitialConfig,
}

impl Default for RecurrentLayersConfig {
    fn default() -> Self {
        let config = RecurrentDecoderConfig::default();
        Self {
            hidden: config.hidden,
            layers: config.layers,
            widths: config.widths,
            projection: config.projection,
            dropout: config.dropout,
            locked_dropout: config.locked_dropout,
            output_dropout: config.output_dropout,
            weight_drop: config.weight_drop,
            activation_penalty: config.activation_penalty,
            temporal_penalty: config.temporal_penalty,
            initial: config.initial,
        }
    }
}

impl LayersConfig {
    /// The same layers as a decoder that looks at nothing.
    fn decoder(&self) -> DecoderConfig {
        let whole = |config: &RecurrentLayersConfig| {
            let config = config.clone();
            RecurrentDecoderConfig {
                hidden: config.hidden,
                layers: config.layers,
                widths: config.widths,
                projection: config.projection,
                dropout: config.dropout,
                locked_dropout: config.locked_dropout,
                output_dropout: config.output_dropout,
                weight_drop: config.weight_drop,
                activation_penalty: config.activation_penalty,
                temporal_penalty: config.temporal_penalty,
                input_feeding: false,
                attention: AttentionConfig::None(NoAttentionConfig {}),
                initial: config.initial,
            }
        };
        match self {
            LayersConfig::Rnn(config) => DecoderConfig::Rnn(whole(config)),
            LayersConfig::Lstm(config) => DecoderConfig::Lstm(whole(config)),
            LayersConfig::Gru(config) => DecoderConfig::Gru(whole(config)),
        }
    }
}

impl LanguageModelConfig {
    /// How wide the last layer of its decoder is.
    pub(crate) fn width(&self) -> usize {
        self.decoder.decoder().width()
    }

    /// Whether each layer's width is a setting.
    pub(crate) fn has_widths(&self) -> bool {
        self.decoder.decoder().has_widths()
    }

    /// What cannot work, with places below `[model]`.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let decoder = self.decoder.decoder();
        let width = decoder.output(self.target.size());
        let message = match (self.tied, self.target.size()) {
            (TiedOutput::None, _) => None,
            (TiedOutput::Output, None) => {
                Some("needs an embedding; set `model.target.kind = \"embedding\"`, or tie nothing".into())
            }
            (TiedOutput::Output, Some(size)) if size != width => Some(match decoder.projects() {
                true => format!(
                    "the output is as wide as its projection ({width}), so the embedding must be too, not {size}"
                ),
                false => format!(
                    "the output is as wide as the decoder ({width}), so the embedding must be too, not {size}; make them \
                     equal, or set `model.decoder.projection` to {size}"
                ),
            }),
            (TiedOutput::Output, Some(_)) => None,
        };
        let tied = message.map(|message| Problem { place: "tied".into(), message });
        let copies = self.head.copy().map(|_| Problem {
            place: "head.kind".into(),
            message: "copies words of sources, and a language model reads none; set `model.head.kind = \"softmax\"`"
                .into(),
        });
        below("decoder", decoder.misnumbered().into_iter().collect()).chain(tied).chain(copies).collect()
    }

    /// What is valid but has no effect, with places below `[model]`.
    pub(crate) fn warnings(&self) -> Vec<Problem> {
        below("target", self.target.warnings()).chain(below("decoder", self.decoder.decoder().warnings())).collect()
    }

    /// A model whose parameters are drawn on first use, under `key`; the settings have no problems.
    pub(crate) fn outline(&self, vocabularies: &Vocabularies, key: Key, device: &Device) -> Result<LanguageModel> {
        if !vocabularies.sources.is_empty() {
            let streams = vocabularies.sources.len();
            return Err(Error::new(format!("a language model reads no source, and the corpus has {streams}")));
        }
        let (decoder, vocabulary) = (self.decoder.decoder(), vocabularies.target);
        let (input, output) = (self.target.size().unwrap_or(vocabulary), decoder.output(None));
        let tied = self.tied == TiedOutput::Output;
        Ok(LanguageModel {
            target: self.target.init(vocabulary, key.named("target"), device),
            decoder: decoder.init(input, &[], output, key.named("decoder"), device),
            output: self.head.init(vocabulary, output, tied, &[], key.named("output"), device),
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
        self.check_sources(&batch.sources)?;
        let start = self.decoder.start_from_zero(batch.target.rows());
        self.target_side().teach(batch, start, &[], None, carry, dropout)
    }

    /// Refuses sources: there is nothing to read.
    ///
    /// # Errors
    /// If there is a source.
    pub(crate) fn check_sources(&self, sources: &[SourceBatch]) -> Result<()> {
        match sources.len() {
            0 => Ok(()),
            some => Err(Error::new(format!("a language model reads no source, but was given {some}"))),
        }
    }
}
