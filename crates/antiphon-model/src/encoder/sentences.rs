//! A stage that makes one step of the words of each sentence.

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::{Cell, Sentence, Sentences, WordOrder, select_rows, sentence_sums};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::recurrent::RecurrentEncoder;
use super::{Around, Beside, Encoded, Read, RecurrentEncoderConfig, StageShape, idle_at_the_end, one_hot};
use crate::dropout::Dropout;
use crate::embedding::Input;

/// Sentences, each of which becomes one step. A tokenizer with `sentences` closes each line of a text by the end symbol; the words
/// between two of these are a sentence.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SentencesConfig {
    /// What reads the words of a sentence.
    pub reader: SentenceReaderConfig,
    /// How many sentences of a text are read at most: the last ones. If unset: all.
    #[schemars(range(min = 1))]
    pub most: Option<usize>,
    /// The share of numbers that training drops from what it hands to a next stage.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub dropout: f64,
}

/// What reads a sentence, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SentenceReaderConfig {
    /// The sum of its words' vectors.
    Sum(SentenceSumConfig),
    /// The final state of Elman's simple recurrent network with tanh.
    Rnn(RecurrentEncoderConfig),
    /// The final state of a long short-term memory.
    Lstm(RecurrentEncoderConfig),
    /// The final state of a gated recurrent unit.
    Gru(RecurrentEncoderConfig),
}

impl Default for SentenceReaderConfig {
    fn default() -> Self {
        Self::Sum(SentenceSumConfig::default())
    }
}

/// A sum of vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SentenceSumConfig {
    /// Whether the numbers of a vector are weighted by the place of its word, so that the order of words counts (position encoding,
    /// Sukhbaatar et al. 2015).
    pub positions: bool,
}

impl Default for SentenceSumConfig {
    fn default() -> Self {
        Self { positions: true }
    }
}

impl SentencesConfig {
    fn recurrent(&self) -> Option<(Cell, &RecurrentEncoderConfig)> {
        match &self.reader {
            SentenceReaderConfig::Sum(_) => None,
            SentenceReaderConfig::Rnn(config) => Some((Cell::Rnn, config)),
            SentenceReaderConfig::Lstm(config) => Some((Cell::Lstm, config)),
            SentenceReaderConfig::Gru(config) => Some((Cell::Gru, config)),
        }
    }

    /// What the order of words means to a sum.
    fn order(&self) -> WordOrder {
        match &self.reader {
            SentenceReaderConfig::Sum(SentenceSumConfig { positions: false }) => WordOrder::Ignored,
            _ => WordOrder::Encoded,
        }
    }

    pub(super) fn shape(&self, input: usize) -> StageShape {
        let memory = self.recurrent().map_or(input, |(cell, config)| config.shape(cell).memory);
        StageShape { by_sentences: true, ..StageShape::of_steps(memory, None) }
    }

    pub(super) fn problems(&self, read: Read, beside: Beside<'_>) -> Vec<Problem> {
        let message = if !beside.is_text {
            Some("`sentences` reads text, and this source is a recording")
        } else if !read.by_tokens {
            Some(
                "`sentences` reads words, and the stage before it has made fewer steps of them; put it before that one",
            )
        } else {
            None
        };
        let problem = message.map(|message| Problem { place: "kind".into(), message: message.into() });
        one_hot(read.width, "sentences").into_iter().chain(problem).collect()
    }

    pub(super) fn warnings(&self, is_last: bool) -> Vec<Problem> {
        let of_reader = self.recurrent().map_or(Vec::new(), |(cell, config)| config.warnings(cell, true));
        let below = of_reader.into_iter().map(|problem| problem.below("reader"));
        below.chain(idle_at_the_end(self.dropout, is_last)).collect()
    }

    pub(super) fn init(&self, input: usize, key: Key, device: &Device) -> SentenceStage {
        let reader = match self.recurrent() {
            Some((cell, config)) => SentenceReader::Recurrent(config.init(cell, input, key.named("reader"), device)),
            None => SentenceReader::Sum(SentenceSum { order: self.order() }),
        };
        SentenceStage { reader, width: self.shape(input).memory, most: self.most, dropout: self.dropout }
    }
}

/// Makes one step of each sentence.
#[derive(Module, Debug)]
pub(crate) struct SentenceStage {
    reader: SentenceReader,
    /// The numbers of a step.
    #[module(skip)]
    width: usize,
    #[module(skip)]
    most: Option<usize>,
    #[module(skip)]
    dropout: f64,
}

/// What reads a sentence.
#[derive(Module, Debug)]
enum SentenceReader {
    Sum(SentenceSum),
    Recurrent(RecurrentEncoder),
}

#[derive(Module, Debug)]
struct SentenceSum {
    #[module(skip)]
    order: WordOrder,
}

impl SentenceStage {
    /// `[B, S, E] → [B, N, W]`: the sentences of a text whose tokens these steps are.
    pub(super) fn encode(&self, words: Tensor<3>, around: &Around<'_>, dropout_key: Option<Key>) -> Encoded {
        let text = around.tokens.expect("sentences are those of a text");
        let sentences = Sentences::of(&text.ids, &text.lengths, text.width, self.most);
        let memory = match &self.reader {
            SentenceReader::Sum(sum) => sentence_sums(words, &sentences, sum.order),
            SentenceReader::Recurrent(reader) => self.read(reader, words, &sentences, dropout_key),
        };
        Encoded::of(memory, sentences.lengths(), Vec::new())
    }

    /// Each sentence that there is as a row of its own, of which the final state of the last layer is kept; one without words stands for
    /// those that a row lacks.
    fn read(&self, reader: &RecurrentEncoder, words: Tensor<3>, of: &Sentences, dropout_key: Option<Key>) -> Tensor<3> {
        let [rows, steps, width] = words.dims();
        let (count, longest) = (of.most(), of.most_words());
        let there: Vec<(usize, Sentence)> =
            (0..rows).flat_map(|b| of.row(b).iter().map(move |sentence| (b * steps, *sentence))).collect();
        let mut lengths = vec![0_u32; there.len() + 1];
        let mut places = vec![0_u32; lengths.len() * longest];
        for ((row, places), &(from, Sentence { start, words })) in
            places.chunks_exact_mut(longest).enumerate().zip(&there)
        {
            lengths[row] = words;
            let first = from as u32 + start;
            places.iter_mut().zip(first..first + words).for_each(|(place, word)| *place = word);
        }
        let apart = select_rows(words.reshape([rows * steps, width]), &places);
        let apart = Input::Vectors(apart.reshape([lengths.len(), longest, width]));
        let read = reader.encode(apart, Arc::from(lengths), dropout_key.map(|key| key.named("reader")));
        let state = read.states.last().expect("a recurrent encoder has a layer").clone().narrow(1, 0, self.width);
        let (mut next, none) = (0_u32, there.len() as u32);
        let places = (0..rows).flat_map(|b| (0..count).map(move |n| (b, n)));
        let places: Vec<u32> = places
            .map(|(b, n)| {
                let is_there = n < of.row(b).len();
                next += u32::from(is_there);
                if is_there { next - 1 } else { none }
            })
            .collect();
        select_rows(state, &places).reshape([rows, count, self.width])
    }

    pub(super) fn dropout(&self) -> Dropout {
        Dropout { rate: self.dropout, locked: false }
    }
}
