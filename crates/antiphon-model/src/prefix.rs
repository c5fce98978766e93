//! Prefixes: what a search need not choose is read by the whole-sequence pass, a stretch at a time, however long it is.

use std::collections::HashMap;

use antiphon_core::{Batch, PrefixOutput, Result, Special, Target, TokenId};
use antiphon_kernels::Carry;

use crate::attention::Prepared;
use crate::decoder::{DecoderState, SearchState};
use crate::encoder::Encoded;
use crate::head::Copied;
use crate::target::TargetSide;

/// Steps that are read at once, in all rows together: some ten megabytes of what lies between the layers.
const STRETCH: usize = 2048;

/// What reading prefixes gave.
pub(crate) struct Read {
    /// Where each row stands before it is fed the last token of its prefix.
    pub(crate) state: DecoderState,
    /// What each prefix was worth.
    pub(crate) worth: Vec<PrefixOutput>,
}

impl TargetSide<'_> {
    /// Reads a prefix for each row of an encoded batch, from `start` on. `copied`: what may be copied, of a head that copies.
    ///
    /// # Errors
    /// If an id lies outside the vocabulary.
    pub(crate) fn read_together(
        &self,
        start: DecoderState,
        sources: &[Encoded],
        copied: Option<&Copied>,
        prefixes: &[&[TokenId]],
    ) -> Result<Read> {
        if prefixes.iter().all(|prefix| prefix.is_empty()) {
            return Ok(Read { state: start, worth: vec![PrefixOutput::default(); prefixes.len()] });
        }
        self.read(start, &self.decoder.prepare(sources), copied, prefixes)
    }

    /// Reads prefixes without sources, each by itself, so that what stands beside it does not change a bit; those that are equal
    /// are read once, and their rows share a state.
    ///
    /// # Errors
    /// If an id lies outside the vocabulary.
    pub(crate) fn read_apart(&self, prefixes: &[&[TokenId]]) -> Result<(SearchState, Vec<PrefixOutput>)> {
        let (mut different, mut places): (Vec<Read>, HashMap<&[TokenId], u32>) = Default::default();
        let mut parents = Vec::with_capacity(prefixes.len());
        for &prefix in prefixes {
            let place = match places.get(prefix) {
                Some(&place) => place,
                None => {
                    let place = different.len() as u32;
                    different.push(self.read(self.decoder.start_from_zero(1), &[], None, &[prefix])?);
                    places.insert(prefix, place);
                    place
                }
            };
            parents.push(place);
        }
        let worth = parents.iter().map(|&place| different[place as usize].worth[0].clone()).collect();
        let states = different.into_iter().map(|read| read.state).collect();
        Ok((SearchState::shared(DecoderState::stacked(states), parents), worth))
    }

    fn read(
        &self,
        start: DecoderState,
        memories: &[Prepared],
        copied: Option<&Copied>,
        prefixes: &[&[TokenId]],
    ) -> Result<Read> {
        let longest = prefixes.iter().map(|prefix| prefix.len()).max().unwrap_or(0);
        let (mut carry, mut worth) = (Carry::default(), vec![PrefixOutput::default(); prefixes.len()]);
        let stretch = (STRETCH / prefixes.len()).max(1);
        for from in (0..longest).step_by(stretch) {
            // What a row is fed, and behind that its last token.
            let of_row = |prefix: &&[TokenId]| {
                let (from, to) = (prefix.len().min(from), prefix.len().min(from + stretch));
                let before = from.checked_sub(1).map_or(Special::Begin.id(), |last| prefix[last]);
                [&[before], &prefix[from..to]].concat()
            };
            let rows: Vec<Vec<TokenId>> = prefixes.iter().map(of_row).collect();
            let mut target = Target::stretch(&rows);
            target.inputs.iter_mut().for_each(|id| *id = self.fed(*id));
            let lengths = target.lengths.clone();
            let batch = Batch {
                sources: Vec::new(),
                target,
                continues: vec![from > 0; prefixes.len()],
                examples: (0..prefixes.len()).collect(),
                copies: None,
            };
            let taught = self.teach(&batch, start.clone(), memories, copied.cloned(), &mut carry, None)?;
            let [scores] = <[_; 1]>::try_from(self.scores(&taught, &[1.0])).expect("scores at one temperature");
            let mut log_probs = scores.log_probs.into_iter();
            for (worth, &length) in worth.iter_mut().zip(&lengths) {
                worth.log_probs.extend(log_probs.by_ref().take(length as usize));
            }
        }
        let continues = vec![longest > 0; prefixes.len()];
        Ok(Read { state: self.decoder.resume(start, &carry, &continues)?, worth })
    }
}
