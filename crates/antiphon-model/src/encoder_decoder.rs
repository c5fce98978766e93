//! Sources in, a target out: encoders, bridge and decoder.

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Problem, Result, SourceBatch};
use antiphon_kernels::{Carry, Term};
use burn::module::Module;
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attention::{MemoriesConfig, MemoryShape, Prepared};
use crate::bridge::{Bridge, BridgeConfig};
use crate::ctc::{Ctc, CtcConfig};
use crate::decoder::{Decoder, DecoderConfig, DecoderState};
use crate::embedding::{Embedding, EmbeddingConfig};
use crate::encoder::{Encoded, Encoder, EncoderConfig, EncoderShape};
use crate::head::{Head, HeadConfig};
use crate::model::{CtcJudgement, Vocabularies, below};
use crate::source::{FrameEntry, SourceConfig};
use crate::stream::{Entry, Reader, Stream, Streams};
use crate::target::{TargetSide, Taught, Tied};

/// A recurrent encoder–decoder. Streams, if there are any, are further sources with encoders of their own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EncoderDecoderConfig {
    /// Which tables are one and the same.
    pub tied: Tied,
    /// How the source enters.
    pub source: SourceConfig,
    /// How target tokens enter.
    pub target: EmbeddingConfig,
    /// What reads the source.
    pub encoder: EncoderConfig,
    /// What the decoder looks at where there are streams beside the source.
    pub memories: MemoriesConfig,
    /// What hands its state on.
    pub bridge: BridgeConfig,
    /// What says the target.
    pub decoder: DecoderConfig,
    /// How its outputs become probabilities.
    pub head: HeadConfig,
    /// Whether the memory of the source says the target too; if unset, it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctc: Option<CtcConfig>,
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
    /// What the decoder will meet, of the source and each stream.
    fn encoders(&self, streams: Streams<'_>) -> Vec<EncoderShape> {
        let further = streams.0.iter().map(|(_, stream)| (&stream.encoder, stream.input.size()));
        let all = std::iter::once((&self.encoder, self.source.size())).chain(further);
        all.map(|(encoder, input)| encoder.shape(input)).collect()
    }

    /// How many tokens of each source a step of its memory stands for.
    pub(crate) fn reductions(&self, streams: Streams<'_>) -> Vec<usize> {
        self.encoders(streams).iter().map(|encoder| encoder.reduction).collect()
    }

    /// What the decoder looks at.
    fn memories(&self, streams: Streams<'_>) -> Vec<MemoryShape> {
        if !self.decoder.attends() {
            return Vec::new();
        }
        self.memories.shapes(&self.widths(streams))
    }

    /// How wide the memory of each source is.
    fn widths<'s>(&self, streams: Streams<'s>) -> Vec<(&'s str, usize)> {
        let names = std::iter::once("source").chain(streams.0.iter().map(|(name, _)| name.as_str()));
        names.zip(self.encoders(streams)).map(|(name, encoder)| (name, encoder.memory)).collect()
    }

    /// What cannot work, with places from the root of the settings; `shared`: whether both sides have one vocabulary.
    pub(crate) fn problems(&self, streams: Streams<'_>, shared: bool) -> Vec<Problem> {
        if self.source.frames().is_some_and(|frames| frames.width.is_none()) {
            let message = "not set: say how many numbers a frame has";
            return vec![Problem { place: "model.source.width".into(), message: message.into() }];
        }
        let of_source = below("model.encoder", self.encoder.problems(self.source.size()));
        let unreadable: Vec<Problem> = of_source.chain(below("streams", streams.problems())).collect();
        if !unreadable.is_empty() {
            return unreadable;
        }
        below("model", self.contradictions(streams, shared)).collect()
    }

    /// What does not fit together, with places below `[model]`.
    fn contradictions(&self, streams: Streams<'_>, shared: bool) -> Vec<Problem> {
        let memories = self.memories(streams);
        let unlike = if memories.is_empty() { Vec::new() } else { self.memories.problems(&self.widths(streams)) };
        let mut problems: Vec<Problem> =
            below("bridge", self.bridge.problems(&self.encoders(streams), &self.decoder.shape()))
                .chain(below("memories", unlike))
                .chain(below("decoder", self.decoder.problems(&memories)))
                .chain(below("ctc", self.ctc.as_ref().map_or(Vec::new(), CtcConfig::problems)))
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
            (Tied::All, _) if self.source.tokens().as_ref() != Some(&self.target) => {
                tied("`all` is one table for both sides: `model.source` and `model.target` must be equal".into());
            }
            _ => {}
        }
        if self.tied == Tied::All && !shared {
            tied("`all` needs one vocabulary for both sides; set `[tokenizer.shared]`, or tie only `output`".into());
        }
        problems
    }

    /// What is valid but has no effect, with places from the root of the settings.
    pub(crate) fn warnings(&self, streams: Streams<'_>) -> Vec<Problem> {
        let source = match self.tied {
            Tied::All => Vec::new(),
            Tied::None | Tied::Output => self.source.warnings(),
        };
        let memories = self.memories.warnings(1 + streams.0.len(), self.decoder.attends());
        let own = below("source", source)
            .chain(below("target", self.target.warnings()))
            .chain(below("encoder", self.encoder.warnings()))
            .chain(below("memories", memories))
            .chain(below("decoder", self.decoder.warnings()));
        below("model", own.collect()).chain(below("streams", streams.warnings())).collect()
    }

    /// A model whose parameters are drawn on first use, under `key`; the settings have no problems.
    pub(crate) fn outline(
        &self,
        streams: Streams<'_>,
        vocabularies: &Vocabularies,
        key: Key,
        device: &Device,
    ) -> Result<EncoderDecoder> {
        let frames = self.source.frames();
        // Recordings have no vocabulary.
        let (reads, sources) = (usize::from(frames.is_none()) + streams.0.len(), &vocabularies.sources);
        if sources.len() != reads {
            let message = format!("this model reads {}, and the corpus has {}", counted(reads), sources.len());
            return Err(Error::new(message));
        }
        let (source_vocabulary, further) = match frames.and(self.source.size()) {
            Some(width) => (width, sources.as_slice()),
            None => (sources[0], &sources[1..]),
        };
        let source = match self.tied {
            Tied::All => None,
            _ => self.source.init(source_vocabulary, key.named("source"), device),
        };
        let target = self.target.init(vocabularies.target, key.named("target"), device);
        let tied = if self.tied == Tied::None { None } else { self.target.size() };
        let memories: Vec<usize> = self.memories(streams).iter().map(|memory| memory.width).collect();
        let output = self.decoder.output(tied);
        let input = |size: Option<usize>, vocabulary: usize| size.unwrap_or(vocabulary);
        let memory = self.encoders(streams)[0].memory;
        let ctc = |config: &CtcConfig| config.init(memory, vocabularies.target, key.named("ctc"), device);
        Ok(EncoderDecoder {
            source,
            target,
            encoder: self.encoder.init(input(self.source.size(), source_vocabulary), key.named("encoder"), device),
            streams: streams.init(further, key.named("stream"), device),
            bridge: self.bridge.init(&self.encoders(streams), &self.decoder.shape(), key.named("bridge"), device),
            decoder: self.decoder.init(
                input(self.target.size(), vocabularies.target),
                &memories,
                output,
                key.named("decoder"),
                device,
            ),
            output: self.head.init(vocabularies.target, output, tied.is_some(), key.named("output"), device),
            ctc: self.ctc.as_ref().map(ctc),
            shares_source: self.tied == Tied::All,
            frames: frames.map(|frames| frames.entry(source_vocabulary)),
            source_vocabulary,
        })
    }
}

/// A recurrent encoder–decoder.
#[derive(Module, Debug)]
pub struct EncoderDecoder {
    /// Absent for one-hot, for frames, and where the target's table is shared.
    source: Option<Embedding>,
    target: Option<Embedding>,
    encoder: Encoder,
    streams: Vec<Stream>,
    bridge: Bridge,
    decoder: Decoder,
    output: Head,
    ctc: Option<Ctc>,
    #[module(skip)]
    shares_source: bool,
    /// How frames enter, where the source is a recording.
    #[module(skip)]
    frames: Option<FrameEntry>,
    #[module(skip)]
    source_vocabulary: usize,
}

impl EncoderDecoder {
    /// What says the target.
    pub(crate) fn target_side(&self) -> TargetSide<'_> {
        TargetSide { embedding: self.target.as_ref(), decoder: &self.decoder, head: &self.output }
    }

    /// Teacher forcing: what the losses need for every real target token, row after row, and what was read.
    ///
    /// `dropout`: the key of this step's masks; `None` for none.
    ///
    /// # Errors
    /// If there are not as many sources as the model reads, of the kinds that it reads, a row for each target, an id lies outside the
    /// vocabulary, or a row goes on and nothing was carried.
    pub(crate) fn teach(
        &self,
        batch: &Batch,
        carry: &mut Carry,
        dropout: Option<Key>,
    ) -> Result<(Taught, Vec<Encoded>)> {
        let encoded = self.encode(&batch.sources, dropout)?;
        let memories = self.decoder.prepare(&encoded);
        let state = self.start(&encoded, &memories);
        Ok((self.target_side().teach(batch, state, &memories, carry, dropout)?, encoded))
    }

    /// The losses of a batch.
    ///
    /// # Errors
    /// As [`teach`](Self::teach).
    pub(crate) fn terms(&self, batch: &Batch, carry: &mut Carry, dropout: Option<Key>) -> Result<Vec<Term>> {
        let (taught, encoded) = self.teach(batch, carry, dropout)?;
        let terms = self.target_side().terms(taught);
        Ok(match &self.ctc {
            Some(ctc) => ctc.beside(terms, &encoded[0], &batch.target),
            None => terms,
        })
    }

    /// What the memory of the source says by itself.
    pub(crate) fn ctc(&self) -> Option<&Ctc> {
        self.ctc.as_ref()
    }

    /// What the memory's own saying of the target loses; `None` where it says nothing.
    pub(crate) fn ctc_judgement(&self, encoded: &[Encoded], batch: &Batch) -> Option<CtcJudgement> {
        let loss = self.ctc.as_ref()?.loss(&encoded[0], &batch.target).inner();
        let loss = loss.try_into_vec_as::<f32>().expect("a loss can be read back");
        Some(CtcJudgement { nats: f64::from(loss[0]), lost: Ctc::lost(&encoded[0], &batch.target) })
    }

    /// The state before the first step.
    pub(crate) fn start(&self, encoded: &[Encoded], memories: &[Prepared]) -> DecoderState {
        self.decoder.start(self.bridge.cross(encoded), memories)
    }

    /// What reads each source, in their order.
    fn readers(&self) -> Vec<Reader<'_>> {
        let embedding = if self.shares_source { self.target.as_ref() } else { self.source.as_ref() };
        let entry = match self.frames {
            Some(frames) => Entry::Frames(frames, self.output.device()),
            None => Entry::Tokens { vocabulary: self.source_vocabulary, embedding },
        };
        let source = Reader { name: "source", entry, encoder: &self.encoder };
        std::iter::once(source).chain(self.streams.iter().map(Stream::reader)).collect()
    }

    /// Reads the sources.
    pub(crate) fn encode(&self, sources: &[SourceBatch], dropout: Option<Key>) -> Result<Vec<Encoded>> {
        let readers = self.readers();
        if readers.len() != sources.len() {
            let message = format!("this model reads {}, but was given {}", counted(readers.len()), sources.len());
            return Err(Error::new(message));
        }
        let keys = |i: usize| {
            dropout.map(|key| match i {
                0 => [key.named("source"), key.named("encoder")],
                i => ["input", "encoder"].map(|name| key.named("stream").numbered(i as u64 - 1).named(name)),
            })
        };
        readers.iter().zip(sources).enumerate().map(|(i, (reader, source))| reader.read(source, keys(i))).collect()
    }
}

fn counted(sources: usize) -> String {
    if sources == 1 { "one source".into() } else { format!("{sources} sources") }
}
