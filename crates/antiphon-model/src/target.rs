//! What says the target, in every model: embedding, decoder and head.

use std::ops::Range;
use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Result, Special, TokenId};
use antiphon_kernels::{Carry, Term, TokenScores};
use burn::module::Param;
use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attention::Prepared;
use crate::decoder::{Decoder, DecoderState};
use crate::embedding::{Embedding, embed};
use crate::head::{Copied, CopiedRows, Head, Outputs, Rows, SearchHead, owners};
use crate::lookup::check_ids;

/// Which tables are one and the same (Press and Wolf 2017).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tied {
    /// None.
    #[default]
    None,
    /// The output projection is the target embedding.
    Output,
    /// The output projection, the target and the source embedding; the vocabulary must be shared.
    All,
}

/// The parts of a model that say the target.
#[derive(Clone, Copy)]
pub(crate) struct TargetSide<'m> {
    /// Absent for one-hot.
    pub(crate) embedding: Option<&'m Embedding>,
    pub(crate) decoder: &'m Decoder,
    pub(crate) head: &'m Head,
}

/// What a decoder gave for the real target tokens of a batch, row after row.
pub(crate) struct Taught {
    /// `[N, R]`.
    outputs: Tensor<2>,
    /// `[N]`: the tokens that are right.
    targets: Vec<TokenId>,
    /// `[B, T, R]`: outputs of all steps without dropout, where penalties look at them.
    undropped: Option<Tensor<3>>,
    /// `[B, T]`: how much of what a step looked at had been looked at before, where a penalty counts it.
    again: Option<Tensor<2>>,
    /// `[B]`: real steps of each row.
    lengths: Arc<[u32]>,
    /// What may be copied, of a head that copies.
    copied: Option<Copied>,
}

impl Taught {
    fn of_head(&self) -> Outputs<'_> {
        let Taught { outputs, targets, lengths, copied, .. } = self;
        Outputs { states: outputs, targets, lengths, copied: copied.as_ref() }
    }
}

impl TargetSide<'_> {
    /// The target embedding's table, which a tied head uses.
    pub(crate) fn table(&self) -> Option<Tensor<2>> {
        self.embedding.map(|embedding| Param::val(&embedding.table))
    }

    /// What stands for an id where it is fed: a slot is a word that the vocabulary lacks.
    pub(crate) fn fed(&self, id: TokenId) -> TokenId {
        let is_slot = self.head.copies() && id as usize >= self.head.vocabulary();
        if is_slot { Special::Unknown.id() } else { id }
    }

    /// Teacher forcing from `start`; rows that go on start from `carry` instead, which is then that of this batch. Nothing is
    /// carried where examples have nothing to do with one another. `copied`: what may be copied, of a head that copies.
    ///
    /// # Errors
    /// If the parts of the batch do not fit, an id lies outside the vocabulary and is no slot of its row, or a row goes on and nothing was
    /// carried.
    pub(crate) fn teach(
        &self,
        batch: &Batch,
        start: DecoderState,
        memories: &[Prepared],
        copied: Option<Copied>,
        carry: &mut Carry,
        dropout: Option<Key>,
    ) -> Result<Taught> {
        batch.check()?;
        let target = &batch.target;
        let (rows, width, vocabulary) = (target.rows(), target.width, self.head.vocabulary());
        check_ids(&target.inputs, vocabulary, "target")?;
        check_ids(&target.labels, vocabulary + copied.as_ref().map_or(0, |copied| copied.slots), "target")?;
        let is_said = |&(at, &id): &(usize, &TokenId)| {
            (id as usize) < vocabulary || copied.as_ref().is_some_and(|copied| copied.says(at / width, id))
        };
        if let Some((at, id)) = target.labels.iter().enumerate().find(|label| !is_said(label)) {
            return Err(Error::new(format!("the target id {id} of row {} is a word that no source says", at / width)));
        }
        let start = self.decoder.resume(start, carry, &batch.continues)?;
        let key = |name: &str| dropout.map(|key| key.named(name));
        let input = embed(self.embedding, &target.inputs, [rows, width], key("target"));
        let lengths: Arc<[u32]> = target.lengths.as_slice().into();
        let carries = !batch.continues.is_empty();
        let decoded = self.decoder.decode(&input, start, memories, lengths.clone(), carries, key("decoder"));
        *carry = if carries { decoded.state.carry() } else { Carry::default() };
        let size = decoded.outputs.dims()[2];
        let outputs = decoded.outputs.reshape([rows * width, size]);
        let real: Vec<u32> =
            (0..rows).flat_map(|b| (0..target.lengths[b] as usize).map(move |t| (b * width + t) as u32)).collect();
        let targets = real.iter().map(|&at| target.labels[at as usize]).collect();
        let outputs = if real.len() == rows * width { outputs } else { antiphon_kernels::select_rows(outputs, &real) };
        Ok(Taught { outputs, targets, undropped: decoded.undropped, again: decoded.again, lengths, copied })
    }

    /// What was taught, with the head that makes probabilities of it.
    pub(crate) fn distributions(&self, taught: Taught) -> Distributions {
        let Taught { outputs, targets, lengths, copied, .. } = taught;
        let copied = copied.map(|copied| (CopiedRows::new(&copied), owners(&lengths)));
        let of = Places::Outputs(Box::new(Said { outputs, head: self.head.for_search(self.table()), copied }));
        Distributions { targets, of, lost: Vec::new() }
    }

    /// The losses of what was taught.
    pub(crate) fn terms(&self, taught: Taught) -> Vec<Term> {
        let term = self.head.term(&taught.of_head(), self.table());
        let Taught { outputs, undropped, again, lengths, .. } = taught;
        let penalties = self.decoder.penalties().terms(&outputs, undropped, again, lengths);
        std::iter::once(term).chain(penalties).collect()
    }

    /// How probable the right tokens are at each of some temperatures.
    pub(crate) fn scores(&self, taught: &Taught, temperatures: &[f64]) -> Vec<TokenScores> {
        if taught.targets.is_empty() {
            return vec![TokenScores::default(); temperatures.len()];
        }
        let scores = |&temperature| self.head.scores(&taught.of_head(), self.table(), temperature);
        temperatures.iter().map(scores).collect()
    }
}

/// How probable a model finds every token in the places of a batch's real target tokens, row after row, under teacher forcing.
pub struct Distributions {
    targets: Vec<TokenId>,
    of: Places,
    /// Empty where every row can be said.
    lost: Vec<bool>,
}

/// What is said in the places.
enum Places {
    Outputs(Box<Said>),
    /// `[N, V]`, of a vocabulary of so many.
    Known(Vec<f32>, usize),
}

/// Outputs, and what makes probabilities of them.
struct Said {
    /// `[N, R]`.
    outputs: Tensor<2>,
    head: SearchHead,
    /// What may be copied, and of which row in each place.
    copied: Option<(CopiedRows, Vec<u32>)>,
}

impl Distributions {
    /// Those whose log-probabilities `[N, V]` are known; `lost`, `[B]`: which rows cannot be said.
    pub(crate) fn known(targets: Vec<TokenId>, log_probs: Vec<f32>, vocabulary: usize, lost: Vec<bool>) -> Self {
        assert_eq!(log_probs.len(), targets.len() * vocabulary, "a row for each target");
        Self { targets, of: Places::Known(log_probs, vocabulary), lost }
    }

    /// Whether the model cannot say a row of the batch: no path of its CTC does.
    pub fn is_lost(&self, row: usize) -> bool {
        self.lost.get(row).copied().unwrap_or(false)
    }

    /// `[N]`: the tokens that are right.
    pub fn targets(&self) -> &[TokenId] {
        &self.targets
    }

    /// Natural logarithms of the probabilities of all tokens in some of the `N` places, `[n, V]`; of a model that copies, as many slots as
    /// the batch has stand behind the vocabulary of each.
    ///
    /// # Panics
    /// If the places are none, or not all below `N`.
    pub fn log_probs(&self, places: Range<usize>) -> Vec<f32> {
        match &self.of {
            Places::Outputs(said) => {
                let Said { outputs, head, copied } = &**said;
                let outputs = outputs.clone().narrow(0, places.start, places.len());
                let (sources, owners) = match copied {
                    Some((sources, owners)) => (Some(sources), &owners[places]),
                    None => (None, &[][..]),
                };
                let pointed = head.point(&outputs, sources, owners);
                let slots = sources.map_or(0, |sources| sources.slots);
                head.log_probs(Rows { outputs: &outputs, pointed: &pointed, slots })
            }
            Places::Known(log_probs, vocabulary) => {
                assert!(!places.is_empty(), "some places");
                log_probs[places.start * vocabulary..places.end * vocabulary].to_vec()
            }
        }
    }
}
