//! Connectionist temporal classification: the memory itself says the target, beside a decoder or without one.
//!
//! It ties each label to a step of the source, which attention alone does not learn from little speech (Watanabe et al. 2017).

use antiphon_core::random::Key;
use antiphon_core::{CtcOutput, Problem, Special, Target, TokenId};
use antiphon_kernels::{Term, Transcripts, ctc_loss, linear};
use burn::module::{Module, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::encoder::Encoded;
use crate::initial::{Initial, zeros};

/// What a padding symbol is for a decoder, the blank is for the steps of a memory: no label.
const BLANK: TokenId = Special::Pad.id();

/// A second loss: a linear layer over the memory says the target, step by step (Graves et al. 2006).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CtcConfig {
    /// Its share of the loss; the decoder has the rest (Watanabe et al. 2017). With 1 the decoder learns nothing, and answers are
    /// searched by CTC alone (`search.ctc_weight = 1.0`).
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub weight: f64,
}

impl Default for CtcConfig {
    fn default() -> Self {
        Self { weight: 0.3 }
    }
}

impl CtcConfig {
    /// What is out of range; places are keys below this table.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let fits = self.weight > 0.0 && self.weight <= 1.0;
        let message = || format!("must be above 0 and at most 1, got {}", self.weight);
        (!fits).then(|| Problem { place: "weight".into(), message: message() }).into_iter().collect()
    }

    /// A layer from a memory of width `memory` to `vocabulary` tokens.
    pub(crate) fn init(&self, memory: usize, vocabulary: usize, key: Key, device: &Device) -> Ctc {
        Ctc {
            weight: Initial::GlorotUniform.weight([memory, vocabulary], vocabulary, key, device),
            bias: zeros(vocabulary, device),
            share: self.weight,
        }
    }
}

/// The layer.
#[derive(Module, Debug)]
pub(crate) struct Ctc {
    /// `[M, V]`.
    weight: Param<Tensor<2>>,
    /// `[V]`.
    bias: Param<Tensor<1>>,
    #[module(skip)]
    share: f64,
}

impl Ctc {
    /// `V`.
    pub(crate) fn vocabulary(&self) -> usize {
        self.bias.val().dims()[0]
    }

    /// Where it computes.
    pub(crate) fn device(&self) -> Device {
        self.bias.val().device()
    }

    /// Whether its parameters can be trained where they are.
    pub(crate) fn is_on_graph(&self) -> bool {
        self.bias.val().is_autodiff()
    }

    /// `[B, S', V]`.
    fn logits(&self, encoded: &Encoded) -> Tensor<3> {
        linear(encoded.memory.clone(), self.weight.val()) + self.bias.val().unsqueeze()
    }

    /// The loss of a target, in nats, summed over the rows: `[1]`. A row that no path says counts nothing.
    pub(crate) fn loss(&self, encoded: &Encoded, target: &Target) -> Tensor<1> {
        ctc_loss(self.logits(encoded), &transcripts(encoded, target))
    }

    /// Which rows of a target no path says.
    pub(crate) fn lost(encoded: &Encoded, target: &Target) -> Vec<bool> {
        let transcripts = transcripts(encoded, target);
        (0..target.rows()).map(|b| !transcripts.fits(b)).collect()
    }

    /// What each row of a memory says, for a search. Off the graph.
    pub(crate) fn outputs(&self, encoded: &Encoded) -> Vec<CtcOutput> {
        let logits = self.logits(encoded);
        let [rows, steps, vocabulary] = logits.dims();
        let log_probs = log_softmax(logits, 2).try_into_vec_as::<f32>().expect("they can be read back");
        let row = |b: usize| {
            let real = encoded.lengths[b] as usize * vocabulary;
            CtcOutput { log_probs: log_probs[b * steps * vocabulary..][..real].to_vec(), vocabulary, blank: BLANK }
        };
        (0..rows).map(row).collect()
    }

    /// What a decoder's terms become beside it, with its own behind them.
    pub(crate) fn beside(&self, mut terms: Vec<Term>, encoded: &Encoded, target: &Target) -> Vec<Term> {
        for term in &mut terms {
            if let Term::CrossEntropy { weight, .. } = term {
                *weight *= 1.0 - self.share;
            }
        }
        terms.push(Term::Sum { name: "ctc", loss: self.loss(encoded, target), weight: self.share });
        terms
    }
}

/// What the rows of a memory are to say.
fn transcripts(encoded: &Encoded, target: &Target) -> Transcripts {
    let labels = |b: usize| {
        let row = &target.labels[b * target.width..][..target.lengths[b] as usize];
        row.iter().copied().filter(|&id| id != Special::End.id()).collect()
    };
    let labels = (0..target.rows()).map(labels).collect();
    Transcripts { steps: encoded.lengths.clone(), labels, blank: BLANK }
}
