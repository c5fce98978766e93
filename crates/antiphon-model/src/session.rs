//! A step at a time: the model under search.

use std::sync::Arc;

use antiphon_core::{CtcOutput, Mask, PrefixOutput, source_batches};
use antiphon_core::{Request, Result, Selection, StepModel, StepOutput, StepSession, TokenId, Want};
use burn::module::Module;

use crate::attention::Prepared;
use crate::decoder::{DecoderWeights, SearchState};
use crate::encoder::Encoded;
use crate::head::SearchHead;
use crate::lookup::check_ids;
use crate::model::Model;
use crate::prefix::Read;

/// A model made ready for search, off the graph: its weights are packed once, for all requests.
pub struct SearchModel {
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
            Model::LanguageModel(model) => {
                model.check_sources(&sources)?;
                let (state, worth) = side.read_apart(&prefixes)?;
                (Vec::new(), state, worth)
            }
        };
        let owners = (0..requests.len() as u32).collect();
        Ok(Box::new(Session { state, memories, owners, prefixes, source, model: self }))
    }

    fn vocabulary(&self) -> usize {
        self.head.vocabulary()
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
        assert!(want.masks.is_empty() || want.masks.len() == last.len(), "a mask for each row, or none");
        let SearchModel { model, decoder: weights, head } = self.model.as_ref();
        let vocabulary = head.vocabulary();
        for ids in [last, &want.banned].into_iter().chain(want.masks.iter().map(ids_of)) {
            check_ids(ids, vocabulary, "target")?;
        }
        let (side, memories) = (model.target_side(), &self.memories[..]);
        let step = side.decoder.step(weights, side.embedding, last, &mut self.state, memories, want.attention);
        out.tokens.clear();
        out.log_probs.clear();
        out.scores.clear();
        if let Selection::Top(k) = want.selection {
            out.per_row = k.min(vocabulary);
            head.best(step.outputs, &want.banned, &want.masks, out.per_row, out);
        } else {
            let mut log_probs = head.log_probs(step.outputs);
            for (b, row) in log_probs.chunks_exact_mut(vocabulary).enumerate() {
                want.banned.iter().for_each(|&id| row[id as usize] = f32::NEG_INFINITY);
                want.masks.get(b).unwrap_or(&Mask::Free).apply(row);
            }
            select_scores(log_probs, vocabulary, &want.selection, out)?;
        }
        out.attention = step.attention;
        Ok(())
    }

    fn select(&mut self, rows: &[u32]) {
        let owners: Vec<u32> = rows.iter().map(|&row| self.owners[row as usize]).collect();
        self.state.select(rows);
        self.memories = self.memories.iter().map(|memory| memory.owned_by(&owners)).collect();
        self.owners = owners;
    }
}

/// The ids that a mask names.
fn ids_of(mask: &Mask) -> &[TokenId] {
    match mask {
        Mask::Free => &[],
        Mask::Banned(ids) | Mask::Allowed(ids) => ids,
    }
}

/// Fills `out` from log-probabilities `[rows, V]`: those of given tokens, or all.
fn select_scores(log_probs: Vec<f32>, vocabulary: usize, selection: &Selection, out: &mut StepOutput) -> Result<()> {
    if let Selection::Given(tokens) = selection {
        check_ids(tokens, vocabulary, "target")?;
        out.per_row = 1;
        out.tokens.extend_from_slice(tokens);
        let rows = log_probs.chunks_exact(vocabulary).zip(tokens);
        out.log_probs.extend(rows.map(|(row, &token)| row[token as usize]));
    } else {
        out.per_row = vocabulary;
        let rows = log_probs.len() / vocabulary;
        (0..rows).for_each(|_| out.tokens.extend(0..vocabulary as TokenId));
        out.log_probs = log_probs;
    }
    Ok(())
}
