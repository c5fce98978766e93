//! Further sources, each a stream of its own: what they are called, and what the model is told of them.

use std::collections::BTreeMap;

use antiphon_core::random::Key;
use antiphon_core::{Problem, Result};
use antiphon_data::FurtherColumns;
use antiphon_data::corpus::Limits;
use antiphon_model::encoder::SentenceSteps;
use antiphon_model::{EmbeddingConfig, EncoderConfig, Model, ModelConfig, StreamModelConfig, Vocabularies};
use antiphon_sound::FeaturesConfig;
use antiphon_text::TokenizerConfig;
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EvaluateConfig, ExperimentConfig};

/// `[streams]`: the further sources by their names, in whose order everybody has them.
pub type Streams = BTreeMap<String, SourceStreamConfig>;

/// A further source of a table: its column, and the encoder that reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SourceStreamConfig {
    /// The column. If unset, the one that is called as the stream is. Its cells may be empty.
    pub column: Option<String>,
    /// Whether the source's tokenizer, which then learns from its texts too, makes tokens of it, and whether they become vectors as
    /// the source's do, by one table: what is asked about a story has the story's words.
    pub shared: bool,
    /// What makes tokens of it, unless that is shared.
    pub tokenizer: TokenizerConfig,
    /// How its tokens become vectors, unless that is shared.
    pub input: EmbeddingConfig,
    /// What reads it.
    pub encoder: EncoderConfig,
    /// The longest text, in tokens without the end symbol; `data.too_long` says what is done with an example beyond.
    #[schemars(range(min = 1))]
    pub max_length: usize,
}

impl Default for SourceStreamConfig {
    fn default() -> Self {
        Self {
            column: None,
            shared: false,
            tokenizer: TokenizerConfig::default(),
            input: EmbeddingConfig::default(),
            encoder: EncoderConfig::default(),
            max_length: 1024,
        }
    }
}

impl SourceStreamConfig {
    /// The column of the stream of this name.
    pub(super) fn column<'a>(&'a self, name: &'a str) -> &'a str {
        self.column.as_deref().unwrap_or(name)
    }

    /// Its tokenizer, unless it shares the source's.
    pub(crate) fn own_tokenizer(&self) -> Option<&TokenizerConfig> {
        (!self.shared).then_some(&self.tokenizer)
    }

    /// What of it cannot work, with places below it.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let below = |problem: Problem| problem.below("tokenizer");
        let mut problems: Vec<Problem> = self.tokenizer.problems().into_iter().map(below).collect();
        let set = [
            ("tokenizer", self.tokenizer != TokenizerConfig::default(), "the source's tokenizer reads it too"),
            ("input", self.input != EmbeddingConfig::default(), "its tokens become vectors as the source's do"),
        ];
        for (key, _, why) in set.into_iter().filter(|(_, is_set, _)| self.shared && *is_set) {
            let message = format!("the stream is `shared`: {why}; leave this out, or `shared`");
            problems.push(Problem { place: key.into(), message });
        }
        problems
    }
}

impl ExperimentConfig {
    /// What is read of a table beside its source and its target.
    pub(crate) fn further_columns(&self) -> FurtherColumns {
        further_columns(&self.streams, &self.evaluate)
    }

    /// For each source, in their order, whether answers copy words of it; `None` of a model that copies nothing.
    pub(crate) fn copies_from(&self) -> Option<Vec<bool>> {
        copies_from(&self.model, &self.streams)
    }

    /// How long an example may be.
    pub(crate) fn limits(&self) -> Limits {
        let longest = |(name, stream): (&String, &SourceStreamConfig)| (name.clone(), stream.max_length);
        Limits { further: self.streams.iter().map(longest).collect(), ..self.data.limits() }
    }

    /// A model with initial parameters.
    ///
    /// # Errors
    /// If it cannot be built of these settings.
    pub(super) fn init_model(&self, vocabularies: &Vocabularies, key: Key, device: &Device) -> Result<Model> {
        self.whole_model().init(antiphon_model::Streams(&read(&self.streams)), vocabularies, key, device)
    }

    /// A model whose parameters are to be loaded.
    ///
    /// # Errors
    /// As [`init_model`](Self::init_model).
    pub(super) fn outline_model(&self, vocabularies: &Vocabularies, key: Key, device: &Device) -> Result<Model> {
        self.whole_model().outline(antiphon_model::Streams(&read(&self.streams)), vocabularies, key, device)
    }

    /// How many steps of each source become one of its memory.
    pub(crate) fn reductions(&self) -> Vec<usize> {
        self.whole_model().reductions(antiphon_model::Streams(&read(&self.streams)))
    }

    /// How each source is read by sentences, and whether those that are read under a question are steps of their own.
    pub(super) fn sentences(&self) -> (Vec<Option<SentenceSteps>>, bool) {
        sentences(&self.whole_model(), &self.streams)
    }

    /// The model's settings, with what those of the recordings say of it.
    fn whole_model(&self) -> ModelConfig {
        let numbers = self.features.as_ref().map_or(1, FeaturesConfig::width);
        self.model.clone().with_frames(numbers)
    }
}

/// For each source, in their order, whether answers of such a model copy words of it; `None` if it copies nothing.
pub(super) fn copies_from(model: &ModelConfig, streams: &Streams) -> Option<Vec<bool>> {
    model.copies_from(antiphon_model::Streams(&read(streams)))
}

/// What is read of a table for these streams, and for figures that need more.
pub(super) fn further_columns(streams: &Streams, evaluate: &EvaluateConfig) -> FurtherColumns {
    let stream = |(name, stream): (&String, &SourceStreamConfig)| (name.clone(), stream.column(name).to_owned());
    FurtherColumns { sources: streams.iter().map(stream).collect(), kept: evaluate.kept_columns() }
}

/// What of the model cannot work beside these streams, with places below the whole config; `shared`: whether source and target
/// have one vocabulary.
pub(super) fn model_problems(model: &ModelConfig, streams: &Streams, shared: bool) -> Vec<Problem> {
    model.problems(antiphon_model::Streams(&read(streams)), shared)
}

/// How each source is read by sentences, and whether those that are read under a question are steps of their own; the settings have no
/// problems.
pub(super) fn sentences(model: &ModelConfig, streams: &Streams) -> (Vec<Option<SentenceSteps>>, bool) {
    let read = read(streams);
    let streams = antiphon_model::Streams(&read);
    (model.sentences(streams), model.asks_sentences(streams))
}

/// What of the model's settings, and of the streams', has no effect, with places below the whole config.
pub(super) fn model_warnings(model: &ModelConfig, streams: &Streams) -> Vec<Problem> {
    model.warnings(antiphon_model::Streams(&read(streams)))
}

/// What the model is told of the streams.
fn read(streams: &Streams) -> Vec<(String, StreamModelConfig)> {
    let of = |(name, stream): (&String, &SourceStreamConfig)| {
        let SourceStreamConfig { shared, input, encoder, .. } = stream;
        (name.clone(), StreamModelConfig { shared: *shared, input: input.clone(), encoder: encoder.clone() })
    };
    streams.iter().map(of).collect()
}

/// What belongs to the first source, and what to the further ones, by the names of their streams.
pub(crate) fn apart<T>(streams: &Streams, all: impl IntoIterator<Item = T>) -> (Option<T>, BTreeMap<String, T>) {
    let mut all = all.into_iter();
    (all.next(), streams.keys().cloned().zip(all).collect())
}

/// The same of which tokens are unknown, without the streams that have none.
pub(crate) fn unknown_apart<T: AsRef<[usize]> + Default>(
    streams: &Streams,
    all: impl IntoIterator<Item = T>,
) -> (T, BTreeMap<String, T>) {
    let (first, mut further) = apart(streams, all);
    further.retain(|_, places| !places.as_ref().is_empty());
    (first.unwrap_or_default(), further)
}
