//! A step at a time: the model under search.

use std::borrow::Cow;

use antiphon_core::{Result, Selection, SourceBatch, StepModel, StepOutput, StepSession, TokenId, Want};
use antiphon_kernels::{OutputLayer, host};
use burn::module::Module;

use crate::attention::Prepared;
use crate::decoder::{DecoderWeights, SearchState};
use crate::encoder_decoder::EncoderDecoder;
use crate::lookup::check_ids;

/// A model made ready for search, off the graph: its weights are packed once, for all batches of sources.
pub struct SearchModel<'m> {
    /// Without autodiff: a graph that never sees a backward pass would never be freed.
    model: Cow<'m, EncoderDecoder>,
    decoder: DecoderWeights,
    output: OutputLayer,
}

impl EncoderDecoder {
    /// This model as a search needs it.
    pub fn for_search(&self) -> SearchModel<'_> {
        let on_graph = self.output().0.is_autodiff();
        let model = if on_graph { Cow::Owned(self.clone().valid()) } else { Cow::Borrowed(self) };
        let decoder = model.decoder().weights(model.target_embedding().is_some());
        let (weight, bias) = model.output();
        SearchModel { decoder, output: OutputLayer::new(weight, bias), model }
    }
}

impl StepModel for SearchModel<'_> {
    fn begin(&self, sources: &SourceBatch) -> Result<Box<dyn StepSession + '_>> {
        let model = self.model.as_ref();
        let encoded = model.encode(sources, None)?;
        let prepared = model.decoder().prepare_steps(&encoded);
        let state = SearchState::new(model.decoder().start(model.bridge().cross(&encoded.states)));
        let owners = (0..sources.rows() as u32).collect();
        Ok(Box::new(Session { model: self, state, prepared, owners }))
    }

    fn vocabulary(&self) -> usize {
        self.output.vocabulary()
    }
}

/// Rows in flight over one batch of sources.
struct Session<'m> {
    model: &'m SearchModel<'m>,
    state: SearchState,
    /// The memory as it was read, a row a source, and who looks at it.
    prepared: Option<Prepared>,
    /// Which source each row answers.
    owners: Vec<u32>,
}

impl StepSession for Session<'_> {
    fn rows(&self) -> usize {
        self.owners.len()
    }

    fn step(&mut self, last: &[TokenId], want: &Want, out: &mut StepOutput) -> Result<()> {
        assert_eq!(last.len(), self.owners.len(), "one token a row");
        let SearchModel { model, decoder: weights, output } = self.model;
        let vocabulary = output.vocabulary();
        check_ids(last, vocabulary, "target")?;
        check_ids(&want.banned, vocabulary, "target")?;
        let (embedding, prepared) = (model.target_embedding(), self.prepared.as_ref());
        let step = model.decoder().step(weights, embedding, last, &mut self.state, prepared, want.attention);
        out.tokens.clear();
        out.log_probs.clear();
        if let Selection::Top(k) = want.selection {
            out.per_row = k.min(vocabulary);
            let best = output.best(step.outputs, &want.banned, &[], out.per_row);
            (out.tokens, out.log_probs) = best.into_iter().flatten().unzip();
        } else {
            let mut log_probs = output.log_probs(step.outputs);
            for row in log_probs.chunks_exact_mut(vocabulary) {
                want.banned.iter().for_each(|&id| row[id as usize] = f32::NEG_INFINITY);
            }
            select_scores(log_probs, vocabulary, &want.selection, out)?;
        }
        out.attention = step.attention.map(host).unwrap_or_default();
        Ok(())
    }

    fn select(&mut self, rows: &[u32]) {
        let owners: Vec<u32> = rows.iter().map(|&row| self.owners[row as usize]).collect();
        self.state.select(rows);
        self.prepared = self.prepared.as_ref().map(|prepared| prepared.owned_by(&owners));
        self.owners = owners;
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
        out.tokens.extend((0..rows).flat_map(|_| 0..vocabulary as TokenId));
        out.log_probs = log_probs;
    }
    Ok(())
}
