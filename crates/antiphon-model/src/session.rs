//! A step at a time: the model under search.

use std::borrow::Cow;

use antiphon_core::{Result, Selection, SourceBatch, StepModel, StepOutput, StepSession, TokenId, Want};
use antiphon_kernels::log_softmax_rows;
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use crate::attention::Prepared;
use crate::decoder::DecoderState;
use crate::embedding::embed;
use crate::encoder_decoder::EncoderDecoder;
use crate::lookup::check_ids;

impl StepModel for EncoderDecoder {
    fn begin(&self, sources: &SourceBatch) -> Result<Box<dyn StepSession + '_>> {
        Ok(Box::new(Session::begin(self, sources)?))
    }

    fn vocabulary(&self) -> usize {
        self.target_vocabulary()
    }
}

/// Rows in flight over one batch of sources.
struct Session<'m> {
    /// Without autodiff: a graph that never sees a backward pass would never be freed.
    model: Cow<'m, EncoderDecoder>,
    weight: Tensor<2>,
    bias: Vec<f32>,
    state: DecoderState,
    /// The memory as it was read, a row a source, and who looks at it.
    prepared: Option<Prepared>,
    /// Which source each row answers.
    owners: Vec<u32>,
}

impl<'m> Session<'m> {
    fn begin(model: &'m EncoderDecoder, sources: &SourceBatch) -> Result<Self> {
        let on_graph = model.output().0.is_autodiff();
        let model = if on_graph { Cow::Owned(model.clone().valid()) } else { Cow::Borrowed(model) };
        let encoded = model.encode(sources, None)?;
        let prepared = model.decoder().prepare(&encoded);
        let state = model.decoder().start(model.bridge().cross(&encoded.states));
        let (weight, bias) = model.output();
        let bias = numbers(bias.into_data());
        let owners = (0..sources.rows() as u32).collect();
        Ok(Self { weight: weight.transpose(), bias, state, prepared, owners, model })
    }
}

fn numbers(data: TensorData) -> Vec<f32> {
    data.convert::<f32>().try_into_vec().expect("float numbers convert to f32")
}

impl StepSession for Session<'_> {
    fn rows(&self) -> usize {
        self.owners.len()
    }

    fn step(&mut self, last: &[TokenId], want: &Want, out: &mut StepOutput) -> Result<()> {
        assert_eq!(last.len(), self.owners.len(), "one token a row");
        let vocabulary = self.bias.len();
        check_ids(last, vocabulary, "target")?;
        let input = embed(self.model.target_embedding(), last, [last.len(), 1], None);
        let (decoder, prepared) = (self.model.decoder(), self.prepared.as_ref());
        let decoded = decoder.step(&input, self.state.clone(), prepared);
        self.state = decoded.state.clone();
        let [rows, _, width] = decoded.outputs.dims();
        let logits = decoded.outputs.clone().reshape([rows, width]).matmul(self.weight.clone());
        let mut logits = numbers(logits.into_data());
        log_softmax_rows(&mut logits, &self.bias);
        for row in logits.chunks_exact_mut(vocabulary) {
            want.banned.iter().for_each(|&id| row[id as usize] = f32::NEG_INFINITY);
        }
        select_scores(&mut logits, vocabulary, &want.selection, out)?;
        out.attention.clear();
        if want.attention
            && let Some(weights) = decoder.attention(&decoded, prepared)
        {
            out.attention = numbers(weights.into_data());
        }
        Ok(())
    }

    fn select(&mut self, rows: &[u32]) {
        let owners: Vec<u32> = rows.iter().map(|&row| self.owners[row as usize]).collect();
        self.state = self.state.select(rows);
        self.prepared = self.prepared.as_ref().map(|prepared| prepared.owned_by(&owners));
        self.owners = owners;
    }
}

/// Fills `out` from log-probabilities `[rows, V]`.
fn select_scores(
    log_probs: &mut Vec<f32>,
    vocabulary: usize,
    selection: &Selection,
    out: &mut StepOutput,
) -> Result<()> {
    out.tokens.clear();
    out.log_probs.clear();
    match selection {
        Selection::Top(k) => {
            let k = (*k).min(vocabulary);
            out.per_row = k;
            let best: Vec<Vec<(f32, TokenId)>> =
                log_probs.par_chunks_exact(vocabulary).map(|row| top(row, k)).collect();
            for (score, token) in best.into_iter().flatten() {
                out.tokens.push(token);
                out.log_probs.push(score);
            }
        }
        Selection::Given(tokens) => {
            check_ids(tokens, vocabulary, "target")?;
            out.per_row = 1;
            out.tokens.extend_from_slice(tokens);
            let rows = log_probs.chunks_exact(vocabulary).zip(tokens);
            out.log_probs.extend(rows.map(|(row, &token)| row[token as usize]));
        }
        Selection::All => {
            out.per_row = vocabulary;
            let rows = log_probs.len() / vocabulary;
            out.tokens.extend((0..rows).flat_map(|_| 0..vocabulary as TokenId));
            std::mem::swap(&mut out.log_probs, log_probs);
        }
    }
    Ok(())
}

/// The `k` best of a row, best first; of equal ones the smaller id first. A NaN counts as best, so that it is seen.
fn top(row: &[f32], k: usize) -> Vec<(f32, TokenId)> {
    let above = |a: f32, b: f32| a > b || (a.is_nan() && !b.is_nan());
    let mut best: Vec<(f32, TokenId)> = Vec::with_capacity(k + 1);
    for (id, &score) in row.iter().enumerate() {
        if best.len() == k && !above(score, best[k - 1].0) {
            continue;
        }
        let at = best.iter().position(|&(other, _)| above(score, other)).unwrap_or(best.len());
        best.insert(at, (score, id as TokenId));
        best.truncate(k);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_ties_by_id() {
        let row = [0.5, 2.0, 2.0, f32::NEG_INFINITY, 1.0];
        let ids = |k| top(&row, k).into_iter().map(|(_, id)| id).collect::<Vec<_>>();
        assert_eq!(ids(3), [1, 2, 4]);
        assert_eq!(ids(5), [1, 2, 4, 0, 3]);
        assert_eq!(top(&[0.0, f32::NAN, 1.0], 1)[0].1, 1);
    }
}
