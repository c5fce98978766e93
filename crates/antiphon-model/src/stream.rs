//! Streams: further sources beside `source`, and what reads them.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{Error, Problem, Result, SourceBatch};
use burn::module::Module;
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::embedding::{Embedding, EmbeddingConfig, embed};
use crate::encoder::{Around, Encoded, Encoder, EncoderConfig};
use crate::lookup::check_ids;
use crate::model::below;
use crate::source::{FrameEntry, SourceConfig};

/// What reads a further source.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StreamModelConfig {
    /// Whether its tokens are those of `source`, and enter by the table of `source`; then `input` has no effect.
    pub shared: bool,
    /// How its tokens enter.
    pub input: EmbeddingConfig,
    /// What reads them.
    pub encoder: EncoderConfig,
}

/// The further sources of a model, by name, in the order in which a batch has them behind `source`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Streams<'s>(pub &'s [(String, StreamModelConfig)]);

impl StreamModelConfig {
    /// The width of the vectors by which its tokens enter, beside this source; `None` for one-hot.
    pub(crate) fn width(&self, source: &SourceConfig) -> Option<usize> {
        if self.shared { source.size() } else { self.input.size() }
    }
}

impl Streams<'_> {
    /// What of their inputs cannot be built beside this source, with places below `streams`.
    pub(crate) fn problems(self, source: &SourceConfig) -> Vec<Problem> {
        let message = "the source is a recording, which has no table to share; set `tokenizer` and `input` instead";
        let problem = || Problem { place: "shared".into(), message: message.into() };
        self.of_each(|stream| (stream.shared && source.frames().is_some()).then(problem).into_iter().collect())
    }

    /// What is valid but has no effect, with places below `streams`.
    pub(crate) fn warnings(self) -> Vec<Problem> {
        self.of_each(|stream| {
            let of_input = if stream.shared { Vec::new() } else { stream.input.warnings() };
            let input = below("input", of_input);
            input.chain(below("encoder", stream.encoder.warnings())).collect()
        })
    }

    /// What is said of each stream, at its place.
    fn of_each(self, say: impl Fn(&StreamModelConfig) -> Vec<Problem>) -> Vec<Problem> {
        self.0.iter().flat_map(|(name, stream)| below(name, say(stream))).collect()
    }

    /// Modules for streams of these vocabularies beside this source.
    pub(crate) fn init(self, source: &SourceConfig, vocabularies: &[usize], key: Key, device: &Device) -> Vec<Stream> {
        let stream = |(i, ((name, config), &vocabulary)): (usize, (&(String, StreamModelConfig), &usize))| {
            let (key, width) = (key.numbered(i as u64), config.width(source).unwrap_or(vocabulary));
            let own = || config.input.init(vocabulary, key.named("input"), device);
            Stream {
                input: if config.shared { None } else { own() },
                shared: config.shared,
                encoder: config.encoder.init(width, key.named("encoder"), device),
                name: name.clone(),
                vocabulary,
            }
        };
        self.0.iter().zip(vocabularies).enumerate().map(stream).collect()
    }
}

/// A further source: what reads it.
#[derive(Module, Debug)]
pub(crate) struct Stream {
    /// Absent for one-hot, and where it is that of `source`.
    input: Option<Embedding>,
    encoder: Encoder,
    #[module(skip)]
    shared: bool,
    #[module(skip)]
    name: String,
    #[module(skip)]
    vocabulary: usize,
}

impl Stream {
    /// What reads it beside a source whose tokens enter by this table, if by any.
    pub(crate) fn reader<'m>(&'m self, source: Option<&'m Embedding>) -> Reader<'m> {
        let embedding = if self.shared { source } else { self.input.as_ref() };
        let entry = Entry::Tokens { vocabulary: self.vocabulary, embedding };
        Reader { name: &self.name, entry, encoder: &self.encoder }
    }
}

/// What reads one source of a model.
pub(crate) struct Reader<'m> {
    /// As messages call it.
    pub(crate) name: &'m str,
    pub(crate) entry: Entry<'m>,
    pub(crate) encoder: &'m Encoder,
}

/// How a source enters.
pub(crate) enum Entry<'m> {
    /// Ids below `vocabulary`; one-hot without an embedding.
    Tokens { vocabulary: usize, embedding: Option<&'m Embedding> },
    /// Frames, on this device.
    Frames(FrameEntry, Device),
}

impl Reader<'_> {
    /// Reads a source; `around`: what is known beside its own tokens. `dropout`: the keys of the input's masks and of the encoder's.
    ///
    /// # Errors
    /// If it is of another kind, an id lies outside the vocabulary, or frames have another width.
    pub(crate) fn read(&self, source: &SourceBatch, around: Around<'_>, dropout: Option<[Key; 2]>) -> Result<Encoded> {
        let keys = dropout.map_or([None; 2], |keys| keys.map(Some));
        let input = match (&self.entry, source) {
            (Entry::Tokens { vocabulary, embedding }, SourceBatch::Tokens(tokens)) => {
                check_ids(&tokens.ids, *vocabulary, self.name)?;
                embed(*embedding, &tokens.ids, [tokens.rows(), tokens.width], keys[0])
            }
            (Entry::Frames(entry, device), SourceBatch::Frames(frames)) => {
                entry.enter(frames.clone(), device, keys[0])?
            }
            (Entry::Tokens { .. }, SourceBatch::Frames(_)) => {
                return Err(Error::new("this model reads tokens, but was given another kind of source"));
            }
            (Entry::Frames(..), SourceBatch::Tokens(_)) => {
                return Err(Error::new("this model reads frames of recordings, but was given another kind of source"));
            }
        };
        let lengths: Arc<[u32]> = source.lengths().into();
        let tokens = if let SourceBatch::Tokens(tokens) = source { Some(tokens) } else { None };
        let around = Around { tokens, ..around };
        Ok(self.encoder.encode(input, lengths, &around, keys[1]))
    }
}
