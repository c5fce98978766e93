//! A step at a time: the model under search.

use std::sync::Arc;

use antiphon_core::{Copies, CopyBatch, CtcOutput, Error, Mask, PrefixOutput, source_batches};
use antiphon_core::{Request, Result, Selection, StepModel, StepOutput, StepSession, TokenId, Want};
use antiphon_kernels::select_rows;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::attention::Prepared;
use crate::decoder::{DecoderWeights, SearchState};
use crate::encoder::Encoded;
use crate::head::{CopiedRows, Pointed, Rows, SearchHead};
use crate::lookup::check_ids;
use crate::model::Model;
use crate::prefix::Read;

/// The [factor](StepModel::batch_factor) of a model on this device: a GPU takes hardly longer for many rows than for few.
pub(crate) fn batch_factor(device: &Device) -> usize {
    if *device == Device::flex() { 1 } else { 8 }
}

/// A model with a decoder made ready for search, off the graph: its weights are packed once, for all requests.
pub(crate) struct SearchModel {
    /// Without autodiff: a graph that never sees a backward pass would never be freed.
    model: Model,
    decoder: DecoderWeights,
    head: SearchHead,
}

impl SearchModel {
    pub(crate) fn new(model: &Model) -> Self {
        let on_graph = model.target_side().head.is_on_graph();
        let model = if on_graph { model.clone().valid() } else { model.clone() };
        let side = model.target_side();
        let decoder = side.decoder.weights(side.embedding.is_some());
        Self { decoder, head: side.head.for_search(side.table()), model }
    }
}

impl StepModel for SearchModel {
    fn begin(self: Arc<Self>, requests: &[Request]) -> Result<Box<dyn StepSession>> {
        let sources = source_batches(requests)?;
        let prefixes: Vec<&[TokenId]> = requests.iter().map(|request| request.prefix.as_slice()).collect();
        let side = self.model.target_side();
        let (mut source, mut copies) = (None, None);
        let (memories, state, prefixes) = match &self.model {
            Model::EncoderDecoder(model) => {
                let encoded = model.encode(&sources, None)?;
                source = model.ctc().and(encoded.first().cloned());
                let memories = side.decoder.prepare_steps(&encoded);
                let start = model.start(&encoded, &memories);
                let copied = match side.head.copies() {
                    true => side.head.copied(&encoded, Some(&told(requests)?))?,
                    false => None,
                };
                let Read { state, worth } = side.read_together(start, &encoded, copied.as_ref(), &prefixes)?;
                copies = copied.as_ref().map(CopiedRows::new);
                (memories, SearchState::new(state), worth)
            }
            Model::Ctc(_) => unreachable!("it has a search model of its own"),
            Model::LanguageModel(model) => {
                model.check_sources(&sources)?;
                let (state, worth) = side.read_apart(&prefixes)?;
                (Vec::new(), state, worth)
            }
        };
        let owners = (0..requests.len() as u32).collect();
        Ok(Box::new(Session { state, memories, owners, prefixes, source, copies, said: None, model: self }))
    }

    fn vocabulary(&self) -> usize {
        self.head.vocabulary()
    }

    fn copies(&self) -> bool {
        self.model.target_side().head.copies()
    }

    fn batch_factor(&self) -> usize {
        batch_factor(&self.model.target_side().head.device())
    }
}

/// What requests may copy.
fn told(requests: &[Request]) -> Result<CopyBatch> {
    let untold = || Error::new("this model copies words of its sources, and was not told what these say");
    let rows: Vec<&Copies> =
        requests.iter().map(|request| request.copies.as_deref().ok_or_else(untold)).collect::<Result<_>>()?;
    if let Some(odd) = rows.iter().find(|row| row.says.len() != rows[0].says.len()) {
        let (first, own) = (rows[0].says.len(), odd.says.len());
        return Err(Error::new(format!("one request tells what {first} sources say, another {own}")));
    }
    Ok(CopyBatch::from_rows(&rows))
}

/// Rows in flight over one batch of requests.
struct Session {
    model: Arc<SearchModel>,
    state: SearchState,
    /// The memories as they were read, a row a request, and who looks at them.
    memories: Vec<Prepared>,
    /// Which request each row answers.
    owners: Vec<u32>,
    /// What the prefixes were worth, until somebody has asked.
    prefixes: Vec<PrefixOutput>,
    /// What was read of the source, of a model that says it by itself, until somebody has asked.
    source: Option<Encoded>,
    /// What may be copied, a row a request, of a model that copies.
    copies: Option<CopiedRows>,
    /// The step just taken.
    said: Option<Said>,
}

/// What a step said, for whoever asks again.
struct Said {
    /// `[B, R]`.
    outputs: Tensor<2>,
    /// A token of each row with its log-probability, where the step was asked for the best: what others are worth follows from their
    /// distance to it.
    best: Vec<(TokenId, f32)>,
    /// What each row copies, of a model that copies.
    pointed: Vec<Pointed>,
}

impl Session {
    /// `N`.
    fn slots(&self) -> usize {
        self.copies.as_ref().map_or(0, |copies| copies.slots)
    }

    /// `V + N`.
    fn ids(&self) -> usize {
        self.model.head.vocabulary() + self.slots()
    }

    /// Answers what `want` asks for of a step's rows. `best`: a token of each, or none. → such tokens, if the best are asked for.
    fn tell(
        &self,
        step: Rows<'_>,
        best: &[(TokenId, f32)],
        want: &Want,
        out: &mut StepOutput,
    ) -> Result<Vec<(TokenId, f32)>> {
        let head = &self.model.head;
        let (rows, all) = (step.outputs.dims()[0], self.ids());
        assert!(want.masks.is_empty() || want.masks.len() == rows, "a mask for each row, or none");
        out.tokens.clear();
        out.log_probs.clear();
        out.scores.clear();
        let mask = |row: usize| want.masks.get(row).unwrap_or(&Mask::Free);
        match &want.selection {
            Selection::Top(k) => {
                out.per_row = *k.min(&head.vocabulary());
                return Ok(head.best(step, &want.banned, &want.masks, out.per_row, out));
            }
            Selection::Given(tokens) => {
                assert!(tokens.len().is_multiple_of(rows), "{} given tokens for {rows} rows", tokens.len());
                check_ids(tokens, all, "target")?;
                out.per_row = tokens.len() / rows;
                out.tokens.extend_from_slice(tokens);
                out.log_probs = head.given(step, tokens, best);
                for (i, (log_prob, &id)) in out.log_probs.iter_mut().zip(tokens).enumerate() {
                    if want.banned.contains(&id) || !mask(i / out.per_row).allows(id) {
                        *log_prob = f32::NEG_INFINITY;
                    }
                }
            }
            Selection::All => {
                out.per_row = all;
                (0..rows).for_each(|_| out.tokens.extend(0..all as TokenId));
                out.log_probs = head.log_probs(step);
                for (b, row) in out.log_probs.chunks_exact_mut(all).enumerate() {
                    want.banned.iter().for_each(|&id| row[id as usize] = f32::NEG_INFINITY);
                    mask(b).apply(row);
                }
            }
        }
        Ok(Vec::new())
    }

    /// That no id of these, and none that `want` names, lies outside the vocabulary.
    fn check(&self, ids: &[TokenId], want: &Want) -> Result<()> {
        let named = [ids, &want.banned].into_iter().chain(want.masks.iter().map(Mask::ids));
        named.into_iter().try_for_each(|ids| check_ids(ids, self.ids(), "target"))
    }
}

impl StepSession for Session {
    fn rows(&self) -> usize {
        self.owners.len()
    }

    fn take_prefixes(&mut self) -> Vec<PrefixOutput> {
        std::mem::take(&mut self.prefixes)
    }

    fn take_ctc(&mut self) -> Vec<CtcOutput> {
        let Model::EncoderDecoder(model) = &self.model.model else { return Vec::new() };
        model.ctc().zip(self.source.take()).map_or_else(Vec::new, |(ctc, source)| ctc.outputs(&source))
    }

    fn step(&mut self, last: &[TokenId], want: &Want, out: &mut StepOutput) -> Result<()> {
        assert_eq!(last.len(), self.owners.len(), "one token a row");
        self.check(last, want)?;
        let SearchModel { model, decoder: weights, head } = self.model.as_ref();
        let (side, memories) = (model.target_side(), &self.memories[..]);
        let last: Vec<TokenId> = last.iter().map(|&id| side.fed(id)).collect();
        let step = side.decoder.step(weights, side.embedding, &last, &mut self.state, memories, want.attention);
        let pointed = head.point(&step.outputs, self.copies.as_ref(), &self.owners);
        let rows = Rows { outputs: &step.outputs, pointed: &pointed, slots: self.slots() };
        let best = self.tell(rows, &[], want, out)?;
        out.attention = step.attention;
        self.said = Some(Said { outputs: step.outputs, best, pointed });
        Ok(())
    }

    fn again(&mut self, rows: &[u32], want: &Want, out: &mut StepOutput) -> Result<()> {
        self.check(&[], want)?;
        let Said { outputs, best, pointed } =
            self.said.as_ref().expect("a step was taken, and its rows are as they were");
        let best: Vec<(TokenId, f32)> = match best.is_empty() {
            true => Vec::new(),
            false => rows.iter().map(|&row| best[row as usize]).collect(),
        };
        let pointed: Vec<Pointed> = match pointed.is_empty() {
            true => Vec::new(),
            false => rows.iter().map(|&row| pointed[row as usize].clone()).collect(),
        };
        out.attention.clear();
        let outputs = select_rows(outputs.clone(), rows);
        self.tell(Rows { outputs: &outputs, pointed: &pointed, slots: self.slots() }, &best, want, out)?;
        Ok(())
    }

    fn select(&mut self, rows: &[u32]) {
        self.said = None;
        let owners: Vec<u32> = rows.iter().map(|&row| self.owners[row as usize]).collect();
        self.state.select(rows);
        self.memories = self.memories.iter().map(|memory| memory.owned_by(&owners)).collect();
        self.owners = owners;
    }
}
