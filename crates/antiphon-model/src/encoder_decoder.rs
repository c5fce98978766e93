//! A source in, a target out: encoder, bridge and decoder.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Problem, Result, SourceBatch};
use antiphon_kernels::Carry;
use burn::module::Module;
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attention::Prepared;
use crate::bridge::{Bridge, BridgeConfig};
use crate::decoder::{Decoder, DecoderConfig, DecoderState};
use crate::embedding::{Embedding, EmbeddingConfig, embed};
use crate::encoder::{Encoded, Encoder, EncoderConfig};
use crate::head::{Head, HeadConfig};
use crate::lookup::check_ids;
use crate::model::{Vocabularies, below};
use crate::target::{TargetSide, Taught, Tied};

/// A recurrent encoder–decoder.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EncoderDecoderConfig {
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
    /// How its outputs become probabilities.
    pub head: HeadConfig,
}

/// What is said of outputs that are not as wide as the target embedding, of width `size`, that they are tied to.
fn untied(decoder: &DecoderConfig, size: usize) -> String {
    let output = decoder.output(Some(size));
    match decoder.projects() {
        true => format!(
            "the output is as wide as its projection ({output}), so the target embedding must be too, not {size}"
        ),
        false => format!(
            "without attention the output is as wide as the decoder ({output}), so the target embedding must be too, not \
             {size}; make them equal, or set `model.decoder.projection` to {size}"
        ),
    }
}

impl EncoderDecoderConfig {
    /// What cannot work, with places below `[model]`; `shared`: whether both sides have one vocabulary.
    pub fn problems(&self, shared: bool) -> Vec<Problem> {
        let unreadable: Vec<Problem> = below("encoder", self.encoder.problems()).collect();
        if !unreadable.is_empty() {
            return unreadable;
        }
        let encoder = self.encoder.shape();
        let mut problems: Vec<Problem> = below("bridge", self.bridge.problems(encoder, &self.decoder.shape()))
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
            (_, Some(size)) if self.decoder.output(Some(size)) != size => tied(untied(&self.decoder, size)),
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
        let source = match self.tied {
            Tied::All => Vec::new(),
            Tied::None | Tied::Output => self.source.warnings(),
        };
        let sides = below("source", source).chain(below("target", self.target.warnings()));
        sides
            .chain(below("encoder", self.encoder.warnings()))
            .chain(below("decoder", self.decoder.warnings()))
            .collect()
    }

    /// A model whose parameters are drawn on first use, under `key`; the settings have no problems.
    pub(crate) fn outline(&self, vocabularies: &Vocabularies, key: Key, device: &Device) -> Result<EncoderDecoder> {
        let &[source_vocabulary] = vocabularies.sources.as_slice() else {
            let streams = vocabularies.sources.len();
            return Err(Error::new(format!("an encoder-decoder reads one source, and the corpus has {streams}")));
        };
        let source = match self.tied {
            Tied::All => None,
            _ => self.source.init(source_vocabulary, key.named("source"), device),
        };
        let target = self.target.init(vocabularies.target, key.named("target"), device);
        let tied = if self.tied == Tied::None { None } else { self.target.size() };
        let (memory, output) = (self.encoder.shape().memory, self.decoder.output(tied));
        let input = |config: &EmbeddingConfig, vocabulary: usize| config.size().unwrap_or(vocabulary);
        Ok(EncoderDecoder {
            source,
            target,
            encoder: self.encoder.init(input(&self.source, source_vocabulary), key.named("encoder"), device),
            bridge: self.bridge.init(self.encoder.shape(), &self.decoder.shape(), key.named("bridge"), device),
            decoder: self.decoder.init(
                input(&self.target, vocabularies.target),
                memory,
                output,
                key.named("decoder"),
                device,
            ),
            output: self.head.init(vocabularies.target, output, tied.is_some(), key.named("output"), device),
            shares_source: self.tied == Tied::All,
            source_vocabulary,
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
    output: Head,
    #[module(skip)]
    shares_source: bool,
    #[module(skip)]
    source_vocabulary: usize,
}

impl EncoderDecoder {
    /// What says the target.
    pub(crate) fn target_side(&self) -> TargetSide<'_> {
        TargetSide { embedding: self.target.as_ref(), decoder: &self.decoder, head: &self.output }
    }

    /// Teacher forcing: what the losses need for every real target token, row after row.
    ///
    /// `dropout`: the key of this step's masks; `None` for none.
    ///
    /// # Errors
    /// If there is not one source of text for each target, an id lies outside the vocabulary, or a row goes on and nothing was
    /// carried.
    pub(crate) fn teach(&self, batch: &Batch, carry: &mut Carry, dropout: Option<Key>) -> Result<Taught> {
        let encoded = self.encode(&batch.sources, dropout)?;
        let prepared = self.decoder.prepare(&encoded);
        let state = self.start(&encoded, prepared.as_ref());
        self.target_side().teach(batch, state, prepared.as_ref(), carry, dropout)
    }

    /// The state before the first step.
    pub(crate) fn start(&self, encoded: &Encoded, prepared: Option<&Prepared>) -> DecoderState {
        self.decoder.start(self.bridge.cross(&encoded.states), prepared)
    }

    /// Reads the sources.
    pub(crate) fn encode(&self, sources: &[SourceBatch], dropout: Option<Key>) -> Result<Encoded> {
        let tokens = match sources {
            [SourceBatch::Tokens(tokens)] => tokens,
            [SourceBatch::Frames(_)] => {
                return Err(Error::new("this model reads tokens, but was given another kind of source"));
            }
            other => return Err(Error::new(format!("this model reads one source, but was given {}", other.len()))),
        };
        check_ids(&tokens.ids, self.source_vocabulary, "source")?;
        let embedding = if self.shares_source { self.target.as_ref() } else { self.source.as_ref() };
        let key = |name: &str| dropout.map(|key| key.named(name));
        let input = embed(embedding, &tokens.ids, [tokens.rows(), tokens.width], key("source"));
        let lengths: Arc<[u32]> = tokens.lengths.as_slice().into();
        Ok(self.encoder.encode(input, lengths, key("encoder")))
    }
}
