//! Sources in, a target out: encoders, bridge and decoder.

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Problem, Result, SourceBatch};
use antiphon_kernels::{Carry, Term, host};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attention::{MemoriesConfig, MemoryShape, Prepared};
use crate::bridge::{Bridge, BridgeConfig};
use crate::ctc::{Ctc, CtcConfig};
use crate::ctc_model::SENTENCES_SAY_NO_TOKENS;
use crate::decoder::{Decoder, DecoderConfig, DecoderState};
use crate::embedding::{Embedding, EmbeddingConfig};
use crate::encoder::{Around, Beside, Encoded, Encoder, EncoderConfig, EncoderShape, SentenceSteps};
use crate::head::{Head, HeadConfig};
use crate::model::{CtcJudgement, SourceLooks, Vocabularies, below};
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
    /// What reads each source, and the width of what it reads.
    fn readers<'s>(&'s self, streams: Streams<'s>) -> impl Iterator<Item = ConfiguredReader<'s>> {
        let of_source = ConfiguredReader {
            name: "source",
            place: "model.encoder".into(),
            encoder: &self.encoder,
            input: self.source.size(),
            is_text: self.source.frames().is_none(),
        };
        let further = streams.0.iter().map(|(name, stream)| ConfiguredReader {
            name,
            place: format!("streams.{name}.encoder"),
            encoder: &stream.encoder,
            input: stream.width(&self.source),
            is_text: true,
        });
        std::iter::once(of_source).chain(further)
    }

    /// What the decoder will meet, of the source and each stream, by name.
    fn encoders<'s>(&'s self, streams: Streams<'s>) -> Vec<(&'s str, EncoderShape)> {
        self.readers(streams).map(|reader| (reader.name, reader.encoder.shape(reader.input))).collect()
    }

    /// How many tokens or sentences of each source a step of its memory stands for.
    pub(crate) fn reductions(&self, streams: Streams<'_>) -> Vec<usize> {
        self.encoders(streams).iter().map(|(_, encoder)| encoder.reduction).collect()
    }

    /// How each source is read by sentences; `None` where it is not.
    pub(crate) fn sentences(&self, streams: Streams<'_>) -> Vec<Option<SentenceSteps>> {
        self.readers(streams).map(|reader| reader.encoder.sentences()).collect()
    }

    /// Whether what an encoder reads under a question are sentences, one a step.
    pub(crate) fn asks_sentences(&self, streams: Streams<'_>) -> bool {
        let first = self.readers(streams).find(|reader| !reader.encoder.asks().is_empty());
        first.is_some_and(|reader| {
            reader.encoder.sentences().is_some() && reader.encoder.shape(reader.input).reduction == 1
        })
    }

    /// The sources of which nothing comes to the decoder: it does not look at their memories, and neither their states nor what asks
    /// for these cross the bridge.
    fn unheard<'s>(&'s self, streams: Streams<'s>) -> Vec<&'s str> {
        let Some(of) = self.bridge.of().filter(|_| !self.decoder.attends()) else { return Vec::new() };
        let asks =
            |name: &str| self.readers(streams).find(|reader| reader.name == name).map(|reader| reader.encoder.asks());
        let asked = asks(of).unwrap_or_default();
        let all: Vec<&str> = self.readers(streams).map(|reader| reader.name).collect();
        all.into_iter().filter(|name| *name != of && !asked.contains(name)).collect()
    }

    /// What cannot be read: first of encoders that read alone, then of those that read the states of these.
    fn unreadable(&self, streams: Streams<'_>) -> Vec<Problem> {
        let of = |reader: &ConfiguredReader<'_>, states: &[(&str, Option<usize>)]| {
            let beside = Beside { is_text: reader.is_text, states };
            below(&reader.place, reader.encoder.problems(reader.input, beside)).collect::<Vec<_>>()
        };
        let (alone, asking): (Vec<_>, Vec<_>) =
            self.readers(streams).partition(|reader| reader.encoder.asks().is_empty());
        let problems: Vec<Problem> = alone.iter().flat_map(|reader| of(reader, &[])).collect();
        if !problems.is_empty() {
            return problems;
        }
        let known = alone.iter().map(|reader| (reader.name, Some(reader.encoder.shape(reader.input).state_width)));
        let known: Vec<(&str, Option<usize>)> = known.chain(asking.iter().map(|reader| (reader.name, None))).collect();
        let beside = |reader: &ConfiguredReader<'_>| {
            let others: Vec<_> = known.iter().copied().filter(|(name, _)| *name != reader.name).collect();
            of(reader, &others)
        };
        asking.iter().flat_map(beside).collect()
    }

    /// What the decoder looks at.
    fn memories(&self, streams: Streams<'_>) -> Vec<MemoryShape> {
        if !self.decoder.attends() {
            return Vec::new();
        }
        self.memories.shapes(&self.widths(streams))
    }

    /// How wide the memory of each source is.
    fn widths<'s>(&'s self, streams: Streams<'s>) -> Vec<(&'s str, usize)> {
        self.encoders(streams).iter().map(|&(name, encoder)| (name, encoder.memory)).collect()
    }

    /// Which sources it copies from, in their order; `None` if it copies nothing.
    pub(crate) fn copies_from(&self, streams: Streams<'_>) -> Option<Vec<bool>> {
        let head = self.head.copy()?;
        Some(self.readers(streams).map(|reader| head.copies_from(reader.name, reader.is_text)).collect())
    }

    /// How wide the memory of each source is that it copies from; none of a model that copies nothing.
    fn copied_widths(&self, streams: Streams<'_>) -> Vec<Option<usize>> {
        let from = self.copies_from(streams).unwrap_or_default();
        from.into_iter().zip(self.widths(streams)).map(|(copies, (_, width))| copies.then_some(width)).collect()
    }

    /// What cannot be copied, with places below `[model]`.
    fn uncopied(&self, streams: Streams<'_>) -> Vec<Problem> {
        let Some(head) = self.head.copy() else { return Vec::new() };
        let mut problems = Vec::new();
        let mut found = |place: &str, message: String| problems.push(Problem { place: place.into(), message });
        if self.ctc.is_some() {
            let message = "says tokens of the vocabulary alone, and `model.head` copies others; remove it, or set \
                           `model.head.kind = \"softmax\"`";
            found("ctc", message.into());
        }
        let readers: Vec<ConfiguredReader<'_>> = self.readers(streams).collect();
        for (i, name) in head.from.iter().flatten().enumerate() {
            if !readers.iter().any(|reader| reader.name == name) {
                let names: Vec<String> = readers.iter().map(|reader| format!("`{}`", reader.name)).collect();
                found(&format!("head.from.{i}"), format!("there is no source `{name}`; there is {}", names.join(", ")));
            }
        }
        let from: Vec<&ConfiguredReader<'_>> =
            readers.iter().filter(|reader| head.copies_from(reader.name, reader.is_text)).collect();
        if from.is_empty() {
            let message = "there is no source of text to copy from; name one, or set `model.head.kind = \"softmax\"`";
            found("head.from", message.into());
        }
        for reader in from {
            let name = reader.name;
            if !reader.is_text {
                let message = format!("`{name}` is a recording, of which no word can be copied; leave it out");
                found("head.from", message);
            } else if reader.encoder.sentences().is_some() {
                let message = format!(
                    "words are copied from memories of a step a word, and that of `{name}` has one a sentence; leave `{name}` out, or \
                     let `{}` read words",
                    reader.place
                );
                found("head.from", message);
            } else if reader.encoder.shape(reader.input).reduction != 1 {
                let reduction = reader.encoder.shape(reader.input).reduction;
                let message = format!(
                    "words are copied from memories of a step a word, and `{}` makes one of {reduction}; leave `{name}` out, or make it \
                     read without a stride",
                    reader.place
                );
                found("head.from", message);
            }
        }
        problems
    }

    /// What cannot work, with places from the root of the settings; `shared`: whether both sides have one vocabulary.
    pub(crate) fn problems(&self, streams: Streams<'_>, shared: bool) -> Vec<Problem> {
        if self.source.frames().is_some_and(|frames| frames.width.is_none()) {
            let message = "not set: say how many numbers a frame has";
            return vec![Problem { place: "model.source.width".into(), message: message.into() }];
        }
        let mut unreadable: Vec<Problem> = below("streams", streams.problems(&self.source)).collect();
        unreadable.extend(self.unreadable(streams));
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
        if self.ctc.is_some() && self.encoder.sentences().is_some() {
            problems.push(Problem { place: "ctc".into(), message: SENTENCES_SAY_NO_TOKENS.into() });
        }
        problems.extend(self.uncopied(streams));
        if !self.bridge.carries() && !self.decoder.attends() {
            let message = "`zero` without attention leaves the decoder without its source; choose another bridge, or an \
                           attention in `model.decoder.attention.kind`";
            problems.push(Problem { place: "bridge.kind".into(), message: message.into() });
        }
        let unheard: Vec<String> = self.unheard(streams).iter().map(|name| format!("`{name}`")).collect();
        if !unheard.is_empty() {
            let message = format!(
                "without attention nothing of {} would come to the decoder; leave `of` out, name a source whose encoder reads the others \
                 by `query`, or set an attention",
                unheard.join(" and ")
            );
            problems.push(Problem { place: "bridge.of".into(), message });
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
        let memory = self.encoders(streams)[0].1.memory;
        let ctc = |config: &CtcConfig| config.init(memory, vocabularies.target, key.named("ctc"), device);
        Ok(EncoderDecoder {
            source,
            target,
            encoder: self.encoder.init(input(self.source.size(), source_vocabulary), key.named("encoder"), device),
            streams: streams.init(&self.source, further, key.named("stream"), device),
            bridge: self.bridge.init(&self.encoders(streams), &self.decoder.shape(), key.named("bridge"), device),
            decoder: self.decoder.init(
                input(self.target.size(), vocabularies.target),
                &memories,
                output,
                key.named("decoder"),
                device,
            ),
            output: self.head.init(
                vocabularies.target,
                output,
                tied.is_some(),
                &self.copied_widths(streams),
                key.named("output"),
                device,
            ),
            ctc: self.ctc.as_ref().map(ctc),
            shares_source: self.tied == Tied::All,
            frames: frames.map(|frames| frames.entry(source_vocabulary)),
            source_vocabulary,
        })
    }
}

/// What reads a source, as its config has it.
struct ConfiguredReader<'s> {
    name: &'s str,
    /// Of the encoder, from the root of the settings.
    place: String,
    encoder: &'s EncoderConfig,
    /// `None` for one-hot.
    input: Option<usize>,
    is_text: bool,
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
        let hiding = self.output.hiding(batch, dropout);
        let batch = hiding.as_ref().unwrap_or(batch);
        let encoded = self.encode(&batch.sources, dropout)?;
        let memories = self.decoder.prepare(&encoded);
        let state = self.start(&encoded, &memories);
        let copied = self.output.copied(&encoded, batch.copies.as_ref())?;
        Ok((self.target_side().teach(batch, state, &memories, copied, carry, dropout)?, encoded))
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
        std::iter::once(source).chain(self.streams.iter().map(|stream| stream.reader(embedding))).collect()
    }

    /// Where the encoder of the first source looks that reads a question; `None` if none reads one.
    pub(crate) fn looks(&self, sources: &[SourceBatch]) -> Result<Option<SourceLooks>> {
        if !self.readers().iter().any(|reader| reader.encoder.asks()) {
            return Ok(None);
        }
        let encoded = self.read(sources, None, true)?;
        let Some(source) = encoded.iter().position(|encoded| !encoded.looks.is_empty()) else { return Ok(None) };
        let Encoded { looks, lengths, .. } = &encoded[source];
        let looks: Vec<(usize, Vec<f32>)> = looks.iter().map(|look| (look.dims()[1], host(look.clone()))).collect();
        let row = |(b, &length): (usize, &u32)| {
            let real = |(steps, look): &(usize, Vec<f32>)| look[b * steps..][..(length as usize).min(*steps)].to_vec();
            looks.iter().map(real).collect()
        };
        Ok(Some(SourceLooks { source, rows: lengths.iter().enumerate().map(row).collect() }))
    }

    /// Reads the sources.
    pub(crate) fn encode(&self, sources: &[SourceBatch], dropout: Option<Key>) -> Result<Vec<Encoded>> {
        self.read(sources, dropout, false)
    }

    /// Reads the sources, and tells where encoders looked that read a question if that is to be watched.
    pub(crate) fn read(&self, sources: &[SourceBatch], dropout: Option<Key>, watch: bool) -> Result<Vec<Encoded>> {
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
        // Who asks is read after those that read alone.
        let alone = |i: &usize| !readers[*i].encoder.asks();
        let (alone, asking): (Vec<usize>, Vec<usize>) = (0..readers.len()).partition(alone);
        let mut encoded: Vec<Option<Encoded>> = vec![None; readers.len()];
        for i in alone {
            encoded[i] = Some(readers[i].read(&sources[i], Around { watch, ..Around::default() }, keys(i))?);
        }
        if !asking.is_empty() {
            let last = |read: &Encoded| read.states.last().expect("an encoder has a state").clone();
            let read = readers.iter().zip(&encoded).filter_map(|(reader, read)| Some((reader.name, read.as_ref()?)));
            let states: Vec<(&str, Tensor<2>)> = read.map(|(name, read)| (name, last(read))).collect();
            for i in asking {
                encoded[i] =
                    Some(readers[i].read(&sources[i], Around { states: &states, watch, tokens: None }, keys(i))?);
            }
        }
        Ok(encoded.into_iter().map(|read| read.expect("each source was read")).collect())
    }
}

fn counted(sources: usize) -> String {
    if sources == 1 { "one source".into() } else { format!("{sources} sources") }
}
