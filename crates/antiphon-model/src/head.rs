//! Heads: a decoder's outputs `[N, R]` become losses, the log-probabilities of given tokens, and the scores of a search.
//!
//! A head owns all three, so that what is trained is what is searched.

mod copy;

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{Batch, CopyBatch, Mask, Result, StepOutput, TokenId};
use antiphon_kernels::{OutputLayer, Projection, Term, TokenScores, token_scores};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::encoder::Encoded;
use crate::initial::{Initial, zeros};

pub use copy::CopyHeadConfig;
pub(crate) use copy::{Copied, CopiedRows, Pointed, owners};

use copy::{CopyHead, CopySearch};

/// How outputs become probabilities, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HeadConfig {
    /// `softmax(W r + b)` over the vocabulary.
    Softmax(SoftmaxHeadConfig),
    /// The same, and beside it words that are copied from the sources: those that the vocabulary lacks among them (See et al. 2017).
    Copy(CopyHeadConfig),
}

impl Default for HeadConfig {
    fn default() -> Self {
        HeadConfig::Softmax(SoftmaxHeadConfig {})
    }
}

/// Nothing to set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SoftmaxHeadConfig {}

impl HeadConfig {
    /// What is copied from, if anything is.
    pub(crate) fn copy(&self) -> Option<&CopyHeadConfig> {
        match self {
            HeadConfig::Softmax(_) => None,
            HeadConfig::Copy(config) => Some(config),
        }
    }

    /// A head of outputs of width `output` over `vocabulary` tokens; `tied`: the target embedding is its weight. `memories`: how wide the
    /// memory of each source is that a head copies from.
    pub(crate) fn init(
        &self,
        vocabulary: usize,
        output: usize,
        tied: bool,
        memories: &[Option<usize>],
        key: Key,
        device: &Device,
    ) -> Head {
        match self {
            HeadConfig::Softmax(_) => {
                let weight = || Initial::GlorotUniform.weight([vocabulary, output], output, key, device);
                Head::Softmax(SoftmaxHead { weight: (!tied).then(weight), bias: zeros(vocabulary, device) })
            }
            HeadConfig::Copy(config) => Head::Copy(config.init(vocabulary, output, tied, memories, key, device)),
        }
    }
}

/// A head with its parameters. Where it is tied, its functions are handed the target embedding's table `[V, R]`.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // one value a model
pub(crate) enum Head {
    Softmax(SoftmaxHead),
    Copy(CopyHead),
}

#[derive(Module, Debug)]
pub(crate) struct SoftmaxHead {
    /// `[V, R]`; absent where the target's table is used.
    weight: Option<Param<Tensor<2>>>,
    /// `[V]`.
    bias: Param<Tensor<1>>,
}

/// `[V, R]`: a head's own weight, or the table that it is tied to.
fn weight_of(own: &Option<Param<Tensor<2>>>, tied: Option<Tensor<2>>) -> Tensor<2> {
    own.as_ref().map_or_else(|| tied.expect("a tied output has a target embedding"), Param::val)
}

fn projection(
    weight: &Option<Param<Tensor<2>>>,
    bias: &Param<Tensor<1>>,
    outputs: Tensor<2>,
    targets: Vec<TokenId>,
    tied: Option<Tensor<2>>,
) -> Projection {
    Projection { states: outputs, weight: weight_of(weight, tied), bias: Some(bias.val()), targets }
}

/// What a head is asked about: outputs for the real target tokens of a batch, row after row.
pub(crate) struct Outputs<'a> {
    /// `[N, R]`.
    pub(crate) states: &'a Tensor<2>,
    /// `[N]`: the tokens that are right.
    pub(crate) targets: &'a [TokenId],
    /// `[B]`: how many of them a row has.
    pub(crate) lengths: &'a Arc<[u32]>,
    /// What may be copied, of a head that copies.
    pub(crate) copied: Option<&'a Copied>,
}

impl Outputs<'_> {
    fn copied(&self) -> &Copied {
        self.copied.expect("a head that copies has read what")
    }
}

impl Head {
    fn bias(&self) -> &Param<Tensor<1>> {
        match self {
            Head::Softmax(head) => &head.bias,
            Head::Copy(head) => &head.bias,
        }
    }

    /// `V`.
    pub(crate) fn vocabulary(&self) -> usize {
        self.bias().dims()[0]
    }

    /// Where its parameters are.
    pub(crate) fn device(&self) -> Device {
        self.bias().val().device()
    }

    /// Whether its parameters can be trained where they are.
    pub(crate) fn is_on_graph(&self) -> bool {
        self.bias().val().is_autodiff()
    }

    /// Whether it says words of the sources that the vocabulary lacks.
    pub(crate) fn copies(&self) -> bool {
        matches!(self, Head::Copy(_))
    }

    /// A batch as training shows it, where that is another: words are hidden that can be copied. `dropout`: the key of this step's masks.
    pub(crate) fn hiding(&self, batch: &Batch, dropout: Option<Key>) -> Option<Batch> {
        match self {
            Head::Softmax(_) => None,
            Head::Copy(head) => head.hiding(batch, dropout?.named("hide")),
        }
    }

    /// What may be copied of sources that were read; `None` of a head that copies nothing.
    ///
    /// # Errors
    /// If it copies, and what the sources say is not told or does not fit.
    pub(crate) fn copied(&self, encoded: &[Encoded], copies: Option<&CopyBatch>) -> Result<Option<Copied>> {
        match self {
            Head::Softmax(_) => Ok(None),
            Head::Copy(head) => head.copied(encoded, copies).map(Some),
        }
    }

    /// The loss of the tokens that are right.
    pub(crate) fn term(&self, outputs: &Outputs<'_>, tied: Option<Tensor<2>>) -> Term {
        let (states, targets) = (outputs.states.clone(), outputs.targets.to_vec());
        match self {
            Head::Softmax(head) => {
                let projection = projection(&head.weight, &head.bias, states, targets, tied);
                Term::CrossEntropy { projection, weight: 1.0 }
            }
            Head::Copy(head) => head.term(states, targets, outputs.lengths, tied, outputs.copied()),
        }
    }

    /// How probable the tokens are that are right, with the logits divided by `temperature`. Off the graph.
    pub(crate) fn scores(&self, outputs: &Outputs<'_>, tied: Option<Tensor<2>>, temperature: f64) -> TokenScores {
        match self {
            Head::Softmax(head) => {
                let (states, targets) = (outputs.states.clone(), outputs.targets.to_vec());
                let mut projection = projection(&head.weight, &head.bias, states, targets, tied);
                // Division by 1 changes no bit, and takes time.
                if temperature != 1.0 {
                    projection.states = projection.states / temperature;
                    projection.bias = projection.bias.map(|bias| bias / temperature);
                }
                token_scores(projection)
            }
            Head::Copy(head) => {
                let Outputs { states, targets, lengths, .. } = outputs;
                head.scores(states, targets, lengths, tied, outputs.copied(), temperature)
            }
        }
    }

    /// The head, ready for many steps of a search. Off the graph.
    pub(crate) fn for_search(&self, tied: Option<Tensor<2>>) -> SearchHead {
        match self {
            Head::Softmax(head) => {
                SearchHead::Softmax(OutputLayer::new(weight_of(&head.weight, tied), head.bias.val()))
            }
            Head::Copy(head) => SearchHead::Copy(head.for_search(tied)),
        }
    }
}

/// A head, ready for many steps of a search.
#[allow(clippy::large_enum_variant)] // one value a model
pub(crate) enum SearchHead {
    Softmax(OutputLayer),
    Copy(CopySearch),
}

/// Outputs of a search's rows, and what they copy.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// `[B, R]`.
    pub(crate) outputs: &'a Tensor<2>,
    /// Of each, where something is copied.
    pub(crate) pointed: &'a [Pointed],
    /// `N`: the most slots that any row has.
    pub(crate) slots: usize,
}

impl SearchHead {
    /// `V`.
    pub(crate) fn vocabulary(&self) -> usize {
        match self {
            SearchHead::Softmax(layer) => layer.vocabulary(),
            SearchHead::Copy(head) => head.layer.vocabulary(),
        }
    }

    /// What outputs `[B, R]` copy of the rows `owners` of the sources; none where nothing is copied.
    pub(crate) fn point(&self, outputs: &Tensor<2>, copied: Option<&CopiedRows>, owners: &[u32]) -> Vec<Pointed> {
        match (self, copied) {
            (SearchHead::Copy(head), Some(copied)) => head.pointer.point(outputs.clone().inner(), copied, owners),
            _ => Vec::new(),
        }
    }

    /// The `k` best tokens of each row that it may choose, best first. → what [`given`](Self::given) wants to know.
    pub(crate) fn best(
        &self,
        rows: Rows<'_>,
        banned: &[TokenId],
        masks: &[Mask],
        k: usize,
        out: &mut StepOutput,
    ) -> Vec<(TokenId, f32)> {
        match self {
            SearchHead::Softmax(layer) => {
                let best = layer.best(rows.outputs.clone(), banned, masks, k);
                let firsts = best.iter().filter_map(|row| row.first().copied()).collect();
                (out.tokens, out.log_probs) = best.into_iter().flatten().unzip();
                firsts
            }
            SearchHead::Copy(head) => head.best(rows.outputs.clone(), rows.pointed, banned, masks, k, out),
        }
    }

    /// The log-probabilities of given tokens, as many of each row, where that of one token each is `known`, or none is.
    pub(crate) fn given(&self, rows: Rows<'_>, tokens: &[TokenId], known: &[(TokenId, f32)]) -> Vec<f32> {
        match self {
            SearchHead::Softmax(layer) if known.is_empty() => {
                let (all, vocabulary) = (layer.log_probs(rows.outputs.clone()), layer.vocabulary());
                let each = tokens.len() / rows.outputs.dims()[0];
                tokens.iter().enumerate().map(|(i, &id)| all[i / each * vocabulary + id as usize]).collect()
            }
            SearchHead::Softmax(layer) => layer.given(rows.outputs.clone(), tokens, known),
            SearchHead::Copy(head) => head.given(rows.outputs.clone(), rows.pointed, tokens, known),
        }
    }

    /// The log-probabilities of all tokens and slots, `[B, V + N]`.
    pub(crate) fn log_probs(&self, rows: Rows<'_>) -> Vec<f32> {
        match self {
            SearchHead::Softmax(layer) => layer.log_probs(rows.outputs.clone()),
            SearchHead::Copy(head) => head.log_probs(rows.outputs.clone(), rows.pointed, rows.slots),
        }
    }
}
