//! Every model behind one face: its losses, its scores, its steps.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Problem, Result, SourceBatch, StepModel};
use antiphon_kernels::{Carry, Term, TokenScores};
use burn::module::Module;
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::ctc_model::{CtcModel, CtcModelConfig, CtcSearch};
use crate::encoder::SentenceSteps;
use crate::encoder_decoder::{EncoderDecoder, EncoderDecoderConfig};
use crate::initial::draw;
use crate::language_model::{LanguageModel, LanguageModelConfig};
use crate::session::SearchModel;
use crate::source::{FramesConfig, SourceConfig};
use crate::stream::Streams;
use crate::target::{Distributions, TargetSide};

/// `[model]`: what is learned, chosen by `kind`.
// Derived as functions of its own, around which the traits are written below.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", remote = "Self")]
#[allow(clippy::large_enum_variant)] // one value for each experiment
pub enum ModelConfig {
    /// A source in, or several, and a target out.
    EncoderDecoder(EncoderDecoderConfig),
    /// A source in, and a target that the encoder says by itself, without a decoder.
    Ctc(CtcModelConfig),
    /// Text without a source.
    LanguageModel(LanguageModelConfig),
}

impl Default for ModelConfig {
    fn default() -> Self {
        ModelConfig::EncoderDecoder(EncoderDecoderConfig::default())
    }
}

impl Serialize for ModelConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Settings that name no `kind` are those of an encoder–decoder: they were written when there was no other.
impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut settings = Map::<String, Value>::deserialize(deserializer)?;
        settings.entry("kind").or_insert_with(|| "encoder_decoder".into());
        Self::deserialize(Value::Object(settings)).map_err(serde::de::Error::custom)
    }
}

/// How many ids there are on each side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabularies {
    /// Ids of each source of text: of `source`, then of the streams in their order; none where there is no such source.
    pub sources: Vec<usize>,
    /// Ids of the target.
    pub target: usize,
    /// Whether both sides have one vocabulary.
    pub shared: bool,
}

/// Puts problems below a key.
pub(crate) fn below(section: &str, problems: Vec<Problem>) -> impl Iterator<Item = Problem> {
    problems.into_iter().map(move |problem| problem.below(section))
}

impl ModelConfig {
    /// What cannot work beside these streams, with places from the root of the settings, below `model` and `streams`; `shared`:
    /// whether both sides have one vocabulary.
    pub fn problems(&self, streams: Streams<'_>, shared: bool) -> Vec<Problem> {
        match self {
            ModelConfig::EncoderDecoder(config) => config.problems(streams, shared),
            ModelConfig::Ctc(config) => config.problems(streams),
            ModelConfig::LanguageModel(config) => {
                let message =
                    "a language model reads no sources; remove the streams, or let `model.kind` be `encoder_decoder`";
                let read = !streams.0.is_empty();
                let idle = read.then(|| Problem { place: "streams".into(), message: message.into() });
                below("model", config.problems()).chain(idle).collect()
            }
        }
    }

    /// What is valid but has no effect, with places from the root of the settings.
    pub fn warnings(&self, streams: Streams<'_>) -> Vec<Problem> {
        match self {
            ModelConfig::EncoderDecoder(config) => config.warnings(streams),
            ModelConfig::Ctc(config) => below("model", config.warnings()).collect(),
            ModelConfig::LanguageModel(config) => below("model", config.warnings()).collect(),
        }
    }

    /// Whether it reads sources.
    pub fn has_source(&self) -> bool {
        match self {
            ModelConfig::EncoderDecoder(_) | ModelConfig::Ctc(_) => true,
            ModelConfig::LanguageModel(_) => false,
        }
    }

    /// How the frames of recordings enter; `None` where it reads none.
    pub fn frames(&self) -> Option<&FramesConfig> {
        match self {
            ModelConfig::EncoderDecoder(config) => config.source.frames(),
            ModelConfig::Ctc(config) => config.source.frames(),
            ModelConfig::LanguageModel(_) => None,
        }
    }

    /// The same, reading frames of so many numbers where it reads frames and does not say of how many.
    #[must_use]
    pub fn with_frames(mut self, numbers: usize) -> Self {
        if let ModelConfig::EncoderDecoder(EncoderDecoderConfig { source: SourceConfig::Frames(frames), .. })
        | ModelConfig::Ctc(CtcModelConfig { source: SourceConfig::Frames(frames), .. }) = &mut self
        {
            frames.width.get_or_insert(numbers);
        }
        self
    }

    /// The key of the setting that should say of how many planes a step of the source is, if the encoder reads it by bands and
    /// nothing says so; below `[model]`.
    pub fn undivided(&self) -> Option<String> {
        let encoder = match self {
            ModelConfig::EncoderDecoder(config) => &config.encoder,
            ModelConfig::Ctc(config) => &config.encoder,
            ModelConfig::LanguageModel(_) => return None,
        };
        encoder.undivided().map(|key| format!("encoder.{key}"))
    }

    /// What share of the loss is that of the memory of its source, which says the target by itself beside a decoder; `None` where it
    /// does not.
    pub fn ctc_weight(&self) -> Option<f64> {
        match self {
            ModelConfig::EncoderDecoder(config) => config.ctc.as_ref().map(|ctc| ctc.weight),
            ModelConfig::Ctc(_) | ModelConfig::LanguageModel(_) => None,
        }
    }

    /// Which sources it copies words from, in the order of the sources; `None` of a model that copies nothing. The settings have no
    /// problems.
    pub fn copies_from(&self, streams: Streams<'_>) -> Option<Vec<bool>> {
        match self {
            ModelConfig::EncoderDecoder(config) => config.copies_from(streams),
            ModelConfig::Ctc(_) | ModelConfig::LanguageModel(_) => None,
        }
    }

    /// Whether it copies words of its sources.
    pub fn copies(&self) -> bool {
        match self {
            ModelConfig::EncoderDecoder(config) => config.head.copy().is_some(),
            ModelConfig::Ctc(_) | ModelConfig::LanguageModel(_) => false,
        }
    }

    /// Whether the memory of its source says the target by itself beside a decoder.
    pub fn has_ctc(&self) -> bool {
        self.ctc_weight().is_some()
    }

    /// Whether the memory of its source says the target by itself, beside a decoder or without one.
    pub fn says_by_steps(&self) -> bool {
        self.has_ctc() || !self.has_decoder()
    }

    /// Whether it has a decoder.
    pub fn has_decoder(&self) -> bool {
        match self {
            ModelConfig::EncoderDecoder(_) | ModelConfig::LanguageModel(_) => true,
            ModelConfig::Ctc(_) => false,
        }
    }

    /// Whether its decoder looks at a memory.
    pub fn attends(&self) -> bool {
        match self {
            ModelConfig::EncoderDecoder(config) => config.decoder.attends(),
            ModelConfig::Ctc(_) | ModelConfig::LanguageModel(_) => false,
        }
    }

    /// How many steps, or sentences, of each source, the streams behind `source`, become one of its memory; the last one may stand for fewer.
    pub fn reductions(&self, streams: Streams<'_>) -> Vec<usize> {
        match self {
            ModelConfig::EncoderDecoder(config) => config.reductions(streams),
            ModelConfig::Ctc(config) => vec![config.reduction()],
            ModelConfig::LanguageModel(_) => Vec::new(),
        }
    }

    /// How each source is read by sentences; `None` where it is not.
    pub fn sentences(&self, streams: Streams<'_>) -> Vec<Option<SentenceSteps>> {
        match self {
            ModelConfig::EncoderDecoder(config) => config.sentences(streams),
            ModelConfig::Ctc(_) => vec![None],
            ModelConfig::LanguageModel(_) => Vec::new(),
        }
    }

    /// Whether it reads sentences under a question, one a step. The settings have no problems.
    pub fn asks_sentences(&self, streams: Streams<'_>) -> bool {
        match self {
            ModelConfig::EncoderDecoder(config) => config.asks_sentences(streams),
            ModelConfig::Ctc(_) | ModelConfig::LanguageModel(_) => false,
        }
    }

    /// How wide the last layer of its decoder is; without one, its memory.
    pub fn width(&self) -> usize {
        match self {
            ModelConfig::EncoderDecoder(config) => config.decoder.width(),
            ModelConfig::Ctc(config) => config.width(),
            ModelConfig::LanguageModel(config) => config.width(),
        }
    }

    /// Whether each layer of its decoder has a width of its own among the settings, so that `decoder.hidden` has no effect.
    pub fn has_widths(&self) -> bool {
        match self {
            ModelConfig::EncoderDecoder(config) => config.decoder.has_widths(),
            ModelConfig::Ctc(_) => false,
            ModelConfig::LanguageModel(config) => config.has_widths(),
        }
    }

    /// A model with initial parameters drawn under `key`; on an autodiff device they can be trained.
    ///
    /// # Errors
    /// All of [`problems`](Self::problems), or if the corpus has not the sources that the model reads.
    pub fn init(&self, streams: Streams<'_>, vocabularies: &Vocabularies, key: Key, device: &Device) -> Result<Model> {
        let model = self.outline(streams, vocabularies, key, device)?;
        draw(&model);
        Ok(model)
    }

    /// A model for parameters that are there already, to be loaded. Those that are not are drawn under `key` on first use.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    pub fn outline(
        &self,
        streams: Streams<'_>,
        vocabularies: &Vocabularies,
        key: Key,
        device: &Device,
    ) -> Result<Model> {
        let problems = self.problems(streams, vocabularies.shared);
        if !problems.is_empty() {
            return Err(Error { file: None, problems });
        }
        match self {
            ModelConfig::EncoderDecoder(config) => {
                config.outline(streams, vocabularies, key, device).map(Model::EncoderDecoder)
            }
            ModelConfig::Ctc(config) => config.outline(vocabularies, key, device).map(Model::Ctc),
            ModelConfig::LanguageModel(config) => config.outline(vocabularies, key, device).map(Model::LanguageModel),
        }
    }
}

/// A model.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // one value
pub enum Model {
    /// A source in, a target out.
    EncoderDecoder(EncoderDecoder),
    /// A source in, a target out without a decoder.
    Ctc(CtcModel),
    /// Text without a source.
    LanguageModel(LanguageModel),
}

/// How much the steps of a source's memory count where they are read under a question.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceLooks {
    /// Which source it is; 0 is `source`, the streams stand behind it.
    pub source: usize,
    /// Of each row, of each layer or look: the share of each real step.
    pub rows: Vec<Vec<Vec<f32>>>,
}

/// What a model holds of the targets of a batch.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// How probable each token is, at each temperature. The tokens of rows that are lost are told as certain and as wrong.
    pub scores: Vec<TokenScores>,
    /// `[B]`: which rows cannot be said at all, since no path of CTC does. Their tokens are to be left out where a loss is divided by
    /// the number of tokens.
    pub lost: Vec<bool>,
    /// The same of `[model.ctc]`; `None` where there is none.
    pub ctc: Option<CtcJudgement>,
}

/// What the CTC beside a decoder holds of the targets of a batch.
#[derive(Debug, Clone)]
pub struct CtcJudgement {
    /// Its loss, in nats, summed over the rows that are not lost.
    pub nats: f64,
    /// `[B]`: which rows no path says.
    pub lost: Vec<bool>,
}

impl Judgement {
    /// That of rows of these lengths whose tokens have these scores; a row that may be lost is lost if one of its tokens is impossible.
    pub fn of(mut scores: Vec<TokenScores>, lengths: &[u32], may_be_lost: &[bool]) -> Self {
        let mut begin = 0;
        let mut is_lost = |(&length, &may_be): (&u32, &bool)| {
            let places = begin..begin + length as usize;
            begin = places.end;
            let impossible =
                |scores: &TokenScores| scores.log_probs[places.clone()].iter().any(|log_prob| !log_prob.is_finite());
            let is_lost = may_be && scores.first().is_some_and(impossible);
            if is_lost {
                for scores in &mut scores {
                    scores.log_probs[places.clone()].fill(0.0);
                    scores.correct[places.clone()].fill(false);
                }
            }
            is_lost
        };
        let lost = lengths.iter().zip(may_be_lost).map(&mut is_lost).collect();
        Self { scores, lost, ctc: None }
    }
}

impl Model {
    /// What says the target, of a model with a decoder.
    pub(crate) fn target_side(&self) -> TargetSide<'_> {
        match self {
            Model::EncoderDecoder(model) => model.target_side(),
            Model::Ctc(_) => unreachable!("it has no decoder"),
            Model::LanguageModel(model) => model.target_side(),
        }
    }

    /// The losses of a batch under teacher forcing. `carry` is that of the batch before, and becomes that of this one.
    ///
    /// `dropout`: the key of this step's masks; `None` for none.
    ///
    /// # Errors
    /// If the model cannot read this kind of batch, an id lies outside the vocabulary, or a row goes on and nothing was carried.
    pub fn terms(&self, batch: &Batch, carry: &mut Carry, dropout: Option<Key>) -> Result<Vec<Term>> {
        match self {
            Model::EncoderDecoder(model) => model.terms(batch, carry, dropout),
            Model::Ctc(model) => model.terms(batch, dropout),
            Model::LanguageModel(model) => Ok(model.target_side().terms(model.teach(batch, carry, dropout)?)),
        }
    }

    /// How probable each real target token of a batch is, row after row, under teacher forcing. The tokens of a row that no path of
    /// CTC says, where there is no decoder, are told as certain: [`judge`](Self::judge) tells which these are.
    ///
    /// # Errors
    /// As [`terms`](Self::terms).
    pub fn scores(&self, batch: &Batch, carry: &mut Carry) -> Result<TokenScores> {
        Ok(self.judge(batch, carry, &[1.0])?.scores.swap_remove(0))
    }

    /// The same with the logits divided by each of some temperatures, for which all but the last layer is computed once; and what
    /// else is lost.
    ///
    /// # Errors
    /// As [`terms`](Self::terms).
    pub fn judge(&self, batch: &Batch, carry: &mut Carry, temperatures: &[f64]) -> Result<Judgement> {
        let (taught, ctc) = match self {
            Model::EncoderDecoder(model) => {
                let (taught, encoded) = model.teach(batch, carry, None)?;
                (taught, model.ctc_judgement(&encoded, batch))
            }
            Model::Ctc(model) => return model.judge(batch, temperatures),
            Model::LanguageModel(model) => (model.teach(batch, carry, None)?, None),
        };
        let scores = self.target_side().scores(&taught, temperatures);
        Ok(Judgement { scores, lost: vec![false; batch.target.rows()], ctc })
    }

    /// How probable every token is in the place of each real target token of a batch, under teacher forcing: for whoever has more
    /// to ask than [`scores`](Self::scores) tells.
    ///
    /// # Errors
    /// As [`terms`](Self::terms).
    pub fn distributions(&self, batch: &Batch, carry: &mut Carry) -> Result<Distributions> {
        let taught = match self {
            Model::EncoderDecoder(model) => model.teach(batch, carry, None)?.0,
            Model::Ctc(model) => return model.distributions(batch),
            Model::LanguageModel(model) => model.teach(batch, carry, None)?,
        };
        Ok(self.target_side().distributions(taught))
    }

    /// Where the first encoder looks that reads a question; `None` of a model that has no such encoder.
    ///
    /// # Errors
    /// If it cannot read these sources.
    pub fn looks(&self, sources: &[SourceBatch]) -> Result<Option<SourceLooks>> {
        match self {
            Model::EncoderDecoder(model) => model.looks(sources),
            Model::Ctc(_) | Model::LanguageModel(_) => Ok(None),
        }
    }

    /// This model as a search needs it: off the graph, its weights packed once for all requests.
    pub fn for_search(&self) -> Arc<dyn StepModel> {
        match self {
            Model::EncoderDecoder(_) | Model::LanguageModel(_) => Arc::new(SearchModel::new(self)),
            Model::Ctc(model) => Arc::new(CtcSearch::new(model)),
        }
    }
}
