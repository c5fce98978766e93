//! Stages behind one another.

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use burn::module::Module;
use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Around, Beside, Encoded, Read, Stage, StageConfig, StageShape};
use crate::embedding::Input;

/// Stages of which each reads the memory of the one before.
///
/// The final state, which a bridge hands to the decoder, is that of the last recurrent stage, or of the last that reads a question, and, where
/// there is none, the mean of the memory's steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StackConfig {
    /// The stages, from the source on. The `dropout` of each is also that of what it hands to the next.
    #[schemars(length(min = 1), extend("examples" = [[{"kind": "convolution"}, {"kind": "lstm"}]]))]
    pub stages: Vec<StageConfig>,
}

impl StackConfig {
    pub(super) fn shape(&self, source: Read) -> StageShape {
        let behind = |below: Option<StageShape>, stage: &StageConfig| {
            let own = stage.shape(below.map_or(source, |below| source.behind(below)));
            Some(match below {
                None => own,
                Some(below) => StageShape {
                    state: own.state.or(below.state),
                    reduction: own.reduction.saturating_mul(below.reduction),
                    by_sentences: own.by_sentences || below.by_sentences,
                    ..own
                },
            })
        };
        self.stages.iter().fold(None, behind).expect("a stack has a stage")
    }

    pub(super) fn problems(&self, source: Read, beside: Beside<'_>) -> Vec<Problem> {
        let message = "name at least one stage: `stages = [{ kind = \"lstm\" }]`";
        let none = self.stages.is_empty().then(|| Problem { place: "stages".into(), message: message.into() });
        let mut read = Some(source);
        let of_stages = self.of_stages(|_, stage| {
            let problems = read.map_or_else(Vec::new, |read| stage.problems(read, beside));
            let shape = match read {
                Some(read) if problems.is_empty() => Some(stage.shape(read)),
                // What a stage that cannot work hands on, nobody knows.
                _ => stage.own_shape(),
            };
            read = shape.map(|shape| read.unwrap_or(source).behind(shape));
            problems
        });
        none.into_iter().chain(of_stages).collect()
    }

    /// The stage that takes all numbers of a source's step for one plane of bands without saying so: a convolution over bands with
    /// nothing before it by which they become other numbers.
    pub(super) fn undivided(&self) -> Option<usize> {
        self.stages.iter().position(|stage| !stage.keeps_planes()).filter(|&i| match &self.stages[i] {
            StageConfig::Convolution2d(config) => config.planes.is_none(),
            _ => false,
        })
    }

    pub(super) fn warnings(&self) -> Vec<Problem> {
        let last = self.stages.len().saturating_sub(1);
        self.of_stages(|i, stage| stage.warnings(i == last)).collect()
    }

    /// What is said of each stage, at its place.
    fn of_stages(&self, mut say: impl FnMut(usize, &StageConfig) -> Vec<Problem>) -> impl Iterator<Item = Problem> {
        let of = move |(i, stage): (usize, &StageConfig)| {
            say(i, stage).into_iter().map(move |problem| problem.below(&format!("stages.{i}"))).collect::<Vec<_>>()
        };
        self.stages.iter().enumerate().flat_map(of)
    }

    pub(super) fn init(&self, input: usize, key: Key, device: &Device) -> Stack {
        let (mut input, mut read) = (input, Read::source(Some(input)));
        let mut stages = Vec::with_capacity(self.stages.len());
        for (i, stage) in self.stages.iter().enumerate() {
            stages.push(stage.init(input, read, key.named("stage").numbered(i as u64), device));
            let shape = stage.shape(read);
            (input, read) = (shape.memory, read.behind(shape));
        }
        Stack { stages }
    }
}

/// Stages behind one another.
#[derive(Module, Debug)]
pub(crate) struct Stack {
    pub(super) stages: Vec<Stage>,
}

impl Stack {
    pub(super) fn encode(
        &self,
        input: Input,
        lengths: Arc<[u32]>,
        around: &Around<'_>,
        dropout_key: Option<Key>,
    ) -> Encoded {
        let key = |i: usize| dropout_key.map(|key| key.named("stage").numbered(i as u64));
        let (first, rest) = self.stages.split_first().expect("a stack has a stage");
        let mut encoded = first.encode(input, lengths, around, key(0));
        for (i, (below, stage)) in self.stages.iter().zip(rest).enumerate() {
            let memory = below.dropout().apply(encoded.memory, key(i + 1).map(|key| key.named("below")));
            let behind = stage.encode(Input::Vectors(memory), encoded.lengths, around, key(i + 1));
            let states = if behind.states.is_empty() { encoded.states } else { behind.states };
            let looks = encoded.looks.into_iter().chain(behind.looks).collect();
            encoded = Encoded { states, looks, ..behind };
        }
        encoded
    }
}
