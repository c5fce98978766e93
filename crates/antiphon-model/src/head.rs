//! Heads: a decoder's outputs `[N, R]` become losses, the log-probabilities of given tokens, and the scores of a search.
//!
//! A head owns all three, so that what is trained is what is searched.

use antiphon_core::random::Key;
use antiphon_core::{Mask, StepOutput, TokenId};
use antiphon_kernels::{OutputLayer, Projection, Term, TokenScores, token_scores};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::initial::{Initial, zeros};

/// How outputs become probabilities, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HeadConfig {
    /// `softmax(W r + b)` over the vocabulary.
    Softmax(SoftmaxHeadConfig),
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
    /// A head of outputs of width `output` over `vocabulary` tokens; `tied`: the target embedding is its weight.
    pub(crate) fn init(&self, vocabulary: usize, output: usize, tied: bool, key: Key, device: &Device) -> Head {
        match self {
            HeadConfig::Softmax(_) => {
                let weight = || Initial::GlorotUniform.weight([vocabulary, output], output, key, device);
                Head::Softmax(SoftmaxHead { weight: (!tied).then(weight), bias: zeros(vocabulary, device) })
            }
        }
    }
}

/// A head with its parameters. Where it is tied, its functions are handed the target embedding's table `[V, R]`.
#[derive(Module, Debug)]
pub(crate) enum Head {
    Softmax(SoftmaxHead),
}

#[derive(Module, Debug)]
pub(crate) struct SoftmaxHead {
    /// `[V, R]`; absent where the target's table is used.
    weight: Option<Param<Tensor<2>>>,
    /// `[V]`.
    bias: Param<Tensor<1>>,
}

impl SoftmaxHead {
    fn weight(&self, tied: Option<Tensor<2>>) -> Tensor<2> {
        self.weight.as_ref().map_or_else(|| tied.expect("a tied output has a target embedding"), Param::val)
    }

    fn projection(&self, outputs: Tensor<2>, targets: Vec<TokenId>, tied: Option<Tensor<2>>) -> Projection {
        Projection { states: outputs, weight: self.weight(tied), bias: Some(self.bias.val()), targets }
    }
}

impl Head {
    /// `V`.
    pub(crate) fn vocabulary(&self) -> usize {
        match self {
            Head::Softmax(head) => head.bias.dims()[0],
        }
    }

    /// Where its parameters are.
    pub(crate) fn device(&self) -> Device {
        match self {
            Head::Softmax(head) => head.bias.val().device(),
        }
    }

    /// Whether its parameters can be trained where they are.
    pub(crate) fn is_on_graph(&self) -> bool {
        match self {
            Head::Softmax(head) => head.bias.val().is_autodiff(),
        }
    }

    /// The loss of given tokens, one for each output.
    pub(crate) fn term(&self, outputs: Tensor<2>, targets: Vec<TokenId>, tied: Option<Tensor<2>>) -> Term {
        match self {
            Head::Softmax(head) => {
                Term::CrossEntropy { projection: head.projection(outputs, targets, tied), weight: 1.0 }
            }
        }
    }

    /// How probable given tokens are, one for each output, with the logits divided by `temperature`. Off the graph.
    pub(crate) fn scores(
        &self,
        outputs: Tensor<2>,
        targets: Vec<TokenId>,
        tied: Option<Tensor<2>>,
        temperature: f64,
    ) -> TokenScores {
        match self {
            Head::Softmax(head) => {
                let mut projection = head.projection(outputs, targets, tied);
                // Division by 1 changes no bit, and takes time.
                if temperature != 1.0 {
                    projection.states = projection.states / temperature;
                    projection.bias = projection.bias.map(|bias| bias / temperature);
                }
                token_scores(projection)
            }
        }
    }

    /// The head, ready for many steps of a search. Off the graph.
    pub(crate) fn for_search(&self, tied: Option<Tensor<2>>) -> SearchHead {
        match self {
            Head::Softmax(head) => SearchHead::Softmax(OutputLayer::new(head.weight(tied), head.bias.val())),
        }
    }
}

/// A head, ready for many steps of a search.
pub(crate) enum SearchHead {
    Softmax(OutputLayer),
}

impl SearchHead {
    /// `V`.
    pub(crate) fn vocabulary(&self) -> usize {
        match self {
            SearchHead::Softmax(layer) => layer.vocabulary(),
        }
    }

    /// The `k` best tokens of each output `[B, R]` that its row may choose, best first.
    pub(crate) fn best(&self, outputs: Tensor<2>, banned: &[TokenId], masks: &[Mask], k: usize, out: &mut StepOutput) {
        match self {
            SearchHead::Softmax(layer) => {
                let best = layer.best(outputs, banned, masks, k);
                (out.tokens, out.log_probs) = best.into_iter().flatten().unzip();
            }
        }
    }

    /// The log-probabilities of given tokens, as many of each output `[B, R]`, where that of one token each is `known`.
    pub(crate) fn given(&self, outputs: Tensor<2>, tokens: &[TokenId], known: &[(TokenId, f32)]) -> Vec<f32> {
        match self {
            SearchHead::Softmax(layer) => layer.given(outputs, tokens, known),
        }
    }

    /// The log-probabilities of all tokens, `[B, V]`.
    pub(crate) fn log_probs(&self, outputs: Tensor<2>) -> Vec<f32> {
        match self {
            SearchHead::Softmax(layer) => layer.log_probs(outputs),
        }
    }
}
