//! What an answer may copy: words of its sources, those that the vocabulary lacks among them.
//!
//! A *slot* is a word of a source that the target vocabulary lacks. Slot `k` of a request has the id `V + k` in its answers, where
//! `V` is the size of the vocabulary; ids of another request's slots mean other words. A slot is fed back to the decoder as
//! [`Special::Unknown`]. A word that the vocabulary knows is never a slot, however often it stands in a source (See et al. 2017,
//! section 2.2).

use std::collections::HashMap;

use crate::{Special, TokenBatch, TokenId};

/// What one answer may copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copies {
    /// Of each source, in their order: what copying each of its steps says, as many as it has ids, or none of a source that is not
    /// copied from. [`Special::Pad`] where nothing can be said.
    pub says: Vec<Vec<TokenId>>,
    /// The words of the slots: that of id `V + k` is the `k`th.
    pub slots: Vec<String>,
}

impl Copies {
    /// What may be copied from sources with these words, a list for each source in their order, `None` of a source that is not
    /// copied from. Each word stands for a step; [`Special::Pad`] stands for the end symbol that is behind them, and for words that
    /// are `None`. `known`: the id of a word in the target vocabulary, of `vocabulary` ids, if it has one.
    pub fn new<W: AsRef<str>>(
        sources: &[Option<Vec<Option<W>>>],
        vocabulary: usize,
        mut known: impl FnMut(&str) -> Option<TokenId>,
    ) -> Self {
        let (mut places, mut slots) = (HashMap::<String, TokenId>::new(), Vec::new());
        let mut id = |word: &str| {
            if let Some(&id) = places.get(word) {
                return id;
            }
            let id = known(word).unwrap_or_else(|| {
                slots.push(word.to_owned());
                (vocabulary + slots.len() - 1) as TokenId
            });
            places.insert(word.to_owned(), id);
            id
        };
        let mut of_source = |words: &Option<Vec<Option<W>>>| {
            let Some(words) = words else { return Vec::new() };
            let steps = words.iter().map(|word| word.as_ref().map_or(Special::Pad.id(), |word| id(word.as_ref())));
            let mut says: Vec<TokenId> = steps.collect();
            says.push(Special::Pad.id());
            says
        };
        let says = sources.iter().map(&mut of_source).collect();
        Self { says, slots }
    }

    /// The id of a word that the vocabulary, of `vocabulary` ids, lacks: its slot, or [`Special::Unknown`] where it has none.
    pub fn slot(&self, word: &str, vocabulary: usize) -> TokenId {
        let place = self.slots.iter().position(|slot| slot == word);
        place.map_or(Special::Unknown.id(), |place| (vocabulary + place) as TokenId)
    }
}

/// What the answers of a batch may copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyBatch {
    /// Of each source, in their order, `[B, S]`: what copying each of its steps says; [`Special::Pad`] where nothing is said, and beyond
    /// the end of a row. Of a source that is not copied from, all rows are empty.
    pub says: Vec<TokenBatch>,
    /// `N`: the most slots that a row has. Ids of the answers are below `V + N`.
    pub slots: usize,
}

impl CopyBatch {
    /// That of rows, all of as many sources.
    pub fn from_rows(rows: &[&Copies]) -> Self {
        let sources = rows.first().map_or(0, |row| row.says.len());
        let source =
            |s: usize| TokenBatch::from_rows(&rows.iter().map(|row| row.says[s].as_slice()).collect::<Vec<_>>());
        Self {
            says: (0..sources).map(source).collect(),
            slots: rows.iter().map(|row| row.slots.len()).max().unwrap_or(0),
        }
    }

    /// Whether it is that of sources whose rows have these lengths: each row says something of all of its steps, or of none.
    pub fn fits<'l>(&self, sources: impl ExactSizeIterator<Item = &'l [u32]>) -> bool {
        let row = |(says, steps): (&u32, &u32)| *says == 0 || says == steps;
        let source = |(says, steps): (&TokenBatch, &[u32])| {
            says.rows() == steps.len() && says.lengths.iter().zip(steps).all(row)
        };
        self.says.len() == sources.len() && self.says.iter().zip(sources).all(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_counts_once_and_only_unknown_ones_are_slots() {
        let words = |text: &'static str| Some(text.split(' ').map(Some).collect::<Vec<_>>());
        let known = |word: &str| ["the", "phone"].iter().position(|&w| w == word).map(|i| i as TokenId + 4);
        let copies = Copies::new(&[words("the resto_1 phone"), None, words("resto_2 resto_1 the")], 6, known);
        assert_eq!(copies.says, [vec![4, 6, 5, 0], vec![], vec![7, 6, 4, 0]]);
        assert_eq!(copies.slots, ["resto_1", "resto_2"]);
        assert_eq!(["resto_2", "resto_3"].map(|word| copies.slot(word, 6)), [7, 1]);
        let bare = Copies::new(&[words("the"), None, words("the the")], 6, known);
        let batch = CopyBatch::from_rows(&[&copies, &bare]);
        assert_eq!((batch.slots, batch.says.len()), (2, 3));
        assert_eq!(batch.says[0].ids, [4, 6, 5, 0, 4, 0, 0, 0]);
        assert_eq!(batch.says[1].lengths, [0, 0]);
        assert_eq!(batch.says[2].ids, [7, 6, 4, 0, 4, 4, 0, 0]);
    }
}
