//! A step at a time: the model under search.

use std::sync::Arc;

use antiphon_core::{CtcOutput, Mask, PrefixOutput, source_batches};
use antiphon_core::{Request, Result, Selection, StepModel, StepOutput, StepSession, TokenId, Want};
use antiphon_kernels::select_rows;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::attention::Prepared;
use crate::decoder::{DecoderWeights, SearchState};
use crate::encoder::Encoded;
use crate::head::SearchHead;
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
        let mut source = None;
        let (memories, state, prefixes) = match &self.model {
            Model::EncoderDecoder(model) => {
                let encoded = model.encode(&sources, None)?;
                source = model.ctc().and(encoded.first().cloned());
                let memories = side.decoder.prepare_steps(&encoded);
                let start = model.start(&encoded, &memories);
                let Read { state, worth } = side.read_together(start, &encoded, &prefixes)?;
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
        Ok(Box::new(Session { state, memories, owners, prefixes, source, said: None, model: self }))
    }

    fn vocabulary(&self) -> usize {
        self.head.vocabulary()
    }

    fn batch_factor(&self) -> usize {
        batch_factor(&self.model.target_side().head.device())
    }
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
    /// The step just taken.
    said: Option<Said>,
}

/// What a step said, for whoever asks again.
struct Said {
    /// `[B, R]`.
    outputs: Tensor<2>,
    /// The best token of each row with its log-probability, where the step was asked for the best: what others are worth follows
    /// from their distance to it.
    best: Vec<(TokenId, f32)>,
}

impl Session {
    /// Answers what `want` asks for of outputs `[B, R]`. `best`: the best token of each, or none.
    fn tell(&self, outputs: &Tensor<2>, best: &[(TokenId, f32)], want: &Want, out: &mut StepOutput) -> Result<()> {
        let head = &self.model.head;
        let (rows, vocabulary) = (outputs.dims()[0], head.vocabulary());
        assert!(want.masks.is_empty() || want.masks.len() == rows, "a mask for each row, or none");
        out.tokens.clear();
        out.log_probs.clear();
        out.scores.clear();
        let mask = |row: usize| want.masks.get(row).unwrap_or(&Mask::Free);
        match &want.selection {
            Selection::Top(k) => {
                out.per_row = *k.min(&vocabulary);
                head.best(outputs.clone(), &want.banned, &want.masks, out.per_row, out);
            }
            Selection::Given(tokens) => {
                assert!(tokens.len().is_multiple_of(rows), "{} given tokens for {rows} rows", tokens.len());
                check_ids(tokens, vocabulary, "target")?;
                out.per_row = tokens.len() / rows;
                out.tokens.extend_from_slice(tokens);
                out.log_probs = match best.is_empty() {
                    true => {
                        let log_probs = head.log_probs(outputs.clone());
                        let given = tokens.iter().enumerate();
                        given.map(|(i, &id)| log_probs[i / out.per_row * vocabulary + id as usize]).collect()
                    }
                    false => head.given(outputs.clone(), tokens, best),
                };
                for (i, (log_prob, &id)) in out.log_probs.iter_mut().zip(tokens).enumerate() {
                    if want.banned.contains(&id) || !mask(i / out.per_row).allows(id) {
                        *log_prob = f32::NEG_INFINITY;
                    }
                }
            }
            Selection::All => {
                out.per_row = vocabulary;
                (0..rows).for_each(|_| out.tokens.extend(0..vocabulary as TokenId));
                out.log_probs = head.log_probs(outputs.clone());
                for (b, row) in out.log_probs.chunks_exact_mut(vocabulary).enumerate() {
                    want.banned.iter().for_each(|&id| row[id as usize] = f32::NEG_INFINITY);
                    mask(b).apply(row);
                }
            }
        }
        Ok(())
    }

    /// That no id of these, and none that `want` names, lies outside the vocabulary.
    fn check(&self, ids: &[TokenId], want: &Want) -> Result<()> {
        let named = [ids, &want.banned].into_iter().chain(want.masks.iter().map(Mask::ids));
        named.into_iter().try_for_each(|ids| check_ids(ids, self.model.head.vocabulary(), "target"))
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
        let SearchModel { model, decoder: weights, .. } = self.model.as_ref();
        let (side, memories) = (model.target_side(), &self.memories[..]);
        let step = side.decoder.step(weights, side.embedding, last, &mut self.state, memories, want.attention);
        self.tell(&step.outputs, &[], want, out)?;
        out.attention = step.attention;
        let best = match want.selection {
            Selection::Top(1..) => {
                let rows = out.tokens.iter().copied().zip(out.log_probs.iter().copied());
                rows.step_by(out.per_row).collect()
            }
            Selection::Top(0) | Selection::Given(_) | Selection::All => Vec::new(),
        };
        self.said = Some(Said { outputs: step.outputs, best });
        Ok(())
    }

    fn again(&mut self, rows: &[u32], want: &Want, out: &mut StepOutput) -> Result<()> {
        self.check(&[], want)?;
        let Said { outputs, best } = self.said.as_ref().expect("a step was taken, and its rows are as they were");
        let best: Vec<(TokenId, f32)> = match best.is_empty() {
            true => Vec::new(),
            false => rows.iter().map(|&row| best[row as usize]).collect(),
        };
        out.attention.clear();
        self.tell(&select_rows(outputs.clone(), rows), &best, want, out)
    }

    fn select(&mut self, rows: &[u32]) {
        self.said = None;
        let owners: Vec<u32> = rows.iter().map(|&row| self.owners[row as usize]).collect();
        self.state.select(rows);
        self.memories = self.memories.iter().map(|memory| memory.owned_by(&owners)).collect();
        self.owners = owners;
    }
}
