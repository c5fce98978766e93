//! Streams: further sources beside `source`, and what reads them.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{Error, Problem, Result, SourceBatch};
use burn::module::Module;
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::embedding::{Embedding, EmbeddingConfig, embed};
use crate::encoder::{Encoded, Encoder, EncoderConfig};
use crate::lookup::check_ids;
use crate::model::below;
use crate::source::FrameEntry;

/// What reads a further source.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StreamModelConfig {
    /// How its tokens enter.
    pub input: EmbeddingConfig,
    /// What reads them.
    pub encoder: EncoderConfig,
}

/// The further sources of a model, by name, in the order in which a batch has them behind `source`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Streams<'s>(pub &'s [(String, StreamModelConfig)]);

impl Streams<'_> {
    /// What cannot be built, with places below `streams`.
    pub(crate) fn problems(self) -> Vec<Problem> {
        self.of_each(|stream| below("encoder", stream.encoder.problems(stream.input.size())).collect())
    }

    /// What is valid but has no effect, with places below `streams`.
    pub(crate) fn warnings(self) -> Vec<Problem> {
        self.of_each(|stream| {
            let input = below("input", stream.input.warnings());
            input.chain(below("encoder", stream.encoder.warnings())).collect()
        })
    }

    /// What is said of each stream, at its place.
    fn of_each(self, say: impl Fn(&StreamModelConfig) -> Vec<Problem>) -> Vec<Problem> {
        self.0.iter().flat_map(|(name, stream)| below(name, say(stream))).collect()
    }

    /// Modules for streams of these vocabularies.
    pub(crate) fn init(self, vocabularies: &[usize], key: Key, device: &Device) -> Vec<Stream> {
        let stream = |(i, ((name, config), &vocabulary)): (usize, (&(String, StreamModelConfig), &usize))| {
            let (key, width) = (key.numbered(i as u64), config.input.size().unwrap_or(vocabulary));
            Stream {
                input: config.input.init(vocabulary, key.named("input"), device),
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
    /// Absent for one-hot.
    input: Option<Embedding>,
    encoder: Encoder,
    #[module(skip)]
    name: String,
    #[module(skip)]
    vocabulary: usize,
}

impl Stream {
    /// What reads it.
    pub(crate) fn reader(&self) -> Reader<'_> {
        let entry = Entry::Tokens { vocabulary: self.vocabulary, embedding: self.input.as_ref() };
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
    /// Reads a source; `dropout`: the keys of the input's masks and of the encoder's.
    ///
    /// # Errors
    /// If it is of another kind, an id lies outside the vocabulary, or frames have another width.
    pub(crate) fn read(&self, source: &SourceBatch, dropout: Option<[Key; 2]>) -> Result<Encoded> {
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
        Ok(self.encoder.encode(input, lengths, keys[1]))
    }
}
