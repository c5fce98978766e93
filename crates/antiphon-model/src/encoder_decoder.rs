//! The whole model, and its config.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Problem, Result, SourceBatch};
use antiphon_kernels::Projection;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bridge::{Bridge, BridgeConfig};
use crate::decoder::{Decoder, DecoderConfig};
use crate::embedding::{Embedding, EmbeddingConfig, embed};
use crate::encoder::{Encoded, Encoder, EncoderConfig};
use crate::initial::{Initial, draw, zeros};
use crate::lookup::{self, check_ids};

/// `[model]`: what is learned.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Which tables are one and the same.
    pub tied: Tied,
    /// How source tokens enter.
    pub source: EmbeddingConfig,
    /// How target tokens enter.
    pub target: EmbeddingConfig,
    /// What reads the source.
    pub encoder: EncoderConfig,
    /// What hands its state on.
    pub bridge: BridgeConfig,
    /// What says the target.
    pub decoder: DecoderConfig,
}

/// Which tables are one and the same (Press and Wolf 2017).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tied {
    /// None.
    #[default]
    None,
    /// The output projection is the target embedding.
    Output,
    /// The output projection, the target and the source embedding; the vocabulary must be shared.
    All,
}

/// How many ids there are on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vocabularies {
    /// Ids of the source.
    pub source: usize,
    /// Ids of the target.
    pub target: usize,
    /// Whether both sides have one vocabulary.
    pub shared: bool,
}

/// Puts problems below a key.
fn below(section: &str, problems: Vec<Problem>) -> impl Iterator<Item = Problem> {
    problems.into_iter().map(move |problem| problem.below(section))
}

impl ModelConfig {
    /// What cannot work, with places below `[model]`; `shared`: whether both sides have one vocabulary.
    pub fn problems(&self, shared: bool) -> Vec<Problem> {
        let encoder = self.encoder.shape();
        let mut problems: Vec<Problem> = below("bridge", self.bridge.problems(encoder, self.decoder.shape()))
            .chain(below("decoder", self.decoder.problems(encoder.memory)))
            .collect();
        if !self.bridge.carries() && !self.decoder.attends() {
            let message = "`zero` without attention leaves the decoder without its source; choose another bridge, or an \
                           attention in `model.decoder.attention.kind`";
            problems.push(Problem { place: "bridge.kind".into(), message: message.into() });
        }
        let mut tied = |message: String| problems.push(Problem { place: "tied".into(), message });
        match (self.tied, self.target.size()) {
            (Tied::None, _) => {}
            (_, None) => {
                tied("needs a target embedding; set `model.target.kind = \"embedding\"`, or tie nothing".into())
            }
            (_, Some(size)) if self.decoder.output(Some(size)) != size => tied(format!(
                "without attention the output is as wide as the decoder ({}), so the target embedding must be too, not \
                 {size}",
                self.decoder.output(Some(size))
            )),
            (Tied::All, _) if self.source != self.target => {
                tied("`all` is one table for both sides: `model.source` and `model.target` must be equal".into());
            }
            _ => {}
        }
        if self.tied == Tied::All && !shared {
            tied("`all` needs one vocabulary for both sides; set `[tokenizer.shared]`, or tie only `output`".into());
        }
        problems
    }

    /// What is valid but has no effect, with places below `[model]`.
    pub fn warnings(&self) -> Vec<Problem> {
        below("encoder", self.encoder.warnings()).chain(below("decoder", self.decoder.warnings())).collect()
    }

    /// A model with initial parameters drawn under `key`; on an autodiff device they can be trained.
    ///
    /// # Errors
    /// All of [`problems`](Self::problems).
    pub fn init(&self, vocabularies: Vocabularies, key: Key, device: &Device) -> Result<EncoderDecoder> {
        let model = self.outline(vocabularies, key, device)?;
        draw(&model);
        Ok(model)
    }

    /// A model for parameters that are there already, to be loaded. Those that are not are drawn under `key` on first use.
    ///
    /// # Errors
    /// All of [`problems`](Self::problems).
    pub fn outline(&self, vocabularies: Vocabularies, key: Key, device: &Device) -> Result<EncoderDecoder> {
        let problems: Vec<Problem> = below("model", self.problems(vocabularies.shared)).collect();
        if !problems.is_empty() {
            return Err(Error { file: None, problems });
        }
        let source = match self.tied {
            Tied::All => None,
            _ => self.source.init(vocabularies.source, key.named("source"), device),
        };
        let target = self.target.init(vocabularies.target, key.named("target"), device);
        let tied = if self.tied == Tied::None { None } else { self.target.size() };
        let (memory, output) = (self.encoder.shape().memory, self.decoder.output(tied));
        let input = |config: &EmbeddingConfig, vocabulary: usize| config.size().unwrap_or(vocabulary);
        let weight = tied
            .is_none()
            .then(|| Initial::GlorotUniform.weight([vocabularies.target, output], output, key.named("output"), device));
        Ok(EncoderDecoder {
            source,
            target,
            encoder: self.encoder.init(input(&self.source, vocabularies.source), key.named("encoder"), device),
            bridge: self.bridge.init(self.encoder.shape(), self.decoder.shape(), key.named("bridge"), device),
            decoder: self.decoder.init(
                input(&self.target, vocabularies.target),
                memory,
                output,
                key.named("decoder"),
                device,
            ),
            output: Output { weight, bias: zeros(vocabularies.target, device) },
            shares_source: self.tied == Tied::All,
            source_vocabulary: vocabularies.source,
        })
    }
}

/// A recurrent encoder–decoder.
#[derive(Module, Debug)]
pub struct EncoderDecoder {
    /// Absent for one-hot, and where the target's table is shared.
    source: Option<Embedding>,
    target: Option<Embedding>,
    encoder: Encoder,
    bridge: Bridge,
    decoder: Decoder,
    output: Output,
    #[module(skip)]
    shares_source: bool,
    #[module(skip)]
    source_vocabulary: usize,
}

/// The projection onto the vocabulary.
#[derive(Module, Debug)]
struct Output {
    /// `[V, R]`; absent where the target's table is used.
    weight: Option<Param<Tensor<2>>>,
    /// `[V]`.
    bias: Param<Tensor<1>>,
}

impl EncoderDecoder {
    /// Teacher forcing: what the loss needs for every real target token, row after row.
    ///
    /// `dropout`: the key of this step's masks; `None` for none.
    ///
    /// # Errors
    /// If the source is not text, there are not as many targets, or an id lies outside the vocabulary.
    pub fn projection(&self, batch: &Batch, dropout: Option<Key>) -> Result<Projection> {
        if batch.source.rows() != batch.target.rows() {
            let (sources, targets) = (batch.source.rows(), batch.target.rows());
            return Err(Error::new(format!("{targets} targets for {sources} sources")));
        }
        let encoded = self.encode(&batch.source, dropout)?;
        let prepared = self.decoder.prepare(&encoded);
        let state = self.decoder.start(self.bridge.cross(&encoded.states));
        let (rows, width) = (batch.target.rows(), batch.target.width);
        check_ids(&batch.target.ids, self.target_vocabulary(), "target")?;
        let shifted = batch.target.shifted_right();
        let key = |name: &str| dropout.map(|key| key.named(name));
        let input = embed(self.target.as_ref(), &shifted.ids, [rows, width], key("target"));
        let lengths: Arc<[u32]> = batch.target.lengths.as_slice().into();
        let outputs = self.decoder.decode(&input, state, prepared.as_ref(), lengths, key("decoder"));
        let size = outputs.dims()[2];
        let outputs = outputs.reshape([rows * width, size]);
        let real: Vec<u32> = (0..rows)
            .flat_map(|b| (0..batch.target.lengths[b] as usize).map(move |t| (b * width + t) as u32))
            .collect();
        let targets = real.iter().map(|&at| batch.target.ids[at as usize]).collect();
        let states = if real.len() == rows * width { outputs } else { lookup::rows(outputs, &real) };
        let (weight, bias) = self.output();
        Ok(Projection { states, weight, bias: Some(bias), targets })
    }

    /// The projection onto the vocabulary: `[V, R]` and `[V]`.
    pub(crate) fn output(&self) -> (Tensor<2>, Tensor<1>) {
        let table = || self.target.as_ref().expect("a tied output has a target embedding").table.val();
        (self.output.weight.as_ref().map_or_else(table, Param::val), self.output.bias.val())
    }

    pub(crate) fn target_vocabulary(&self) -> usize {
        self.output.bias.dims()[0]
    }

    pub(crate) fn target_embedding(&self) -> Option<&Embedding> {
        self.target.as_ref()
    }

    pub(crate) fn bridge(&self) -> &Bridge {
        &self.bridge
    }

    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Reads the sources.
    pub(crate) fn encode(&self, sources: &SourceBatch, dropout: Option<Key>) -> Result<Encoded> {
        let SourceBatch::Tokens(tokens) = sources else {
            return Err(Error::new("this model reads tokens, but was given another kind of source"));
        };
        check_ids(&tokens.ids, self.source_vocabulary, "source")?;
        let embedding = if self.shares_source { self.target.as_ref() } else { self.source.as_ref() };
        let key = |name: &str| dropout.map(|key| key.named(name));
        let input = embed(embedding, &tokens.ids, [tokens.rows(), tokens.width], key("source"));
        let lengths: Arc<[u32]> = tokens.lengths.as_slice().into();
        Ok(self.encoder.encode(input, lengths, key("encoder")))
    }
}
