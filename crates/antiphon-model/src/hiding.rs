//! Words that training hides, so that a model learns to copy what it has never seen.
//!
//! A word that is hidden in a row is unknown in the sources that are copied from and where it is fed to the decoder, and must be copied where it is right:
//! it is what a word is that the vocabulary lacks. Without it, a model whose vocabulary knows every word of its training text would meet
//! no such word before it is put to use. (Madotto et al. 2018 mask words of the source likewise.)

use std::collections::{BTreeMap, BTreeSet};

use antiphon_core::random::Key;
use antiphon_core::{Batch, SourceBatch, Special, TokenId};

/// A batch in which each word of a row that may be copied is hidden with probability `rate`, wherever it stands in the sources that are
/// copied from and in the target. `vocabulary`: that of the target. Special symbols and words that are slots already stay as they are.
pub(crate) fn hidden(mut batch: Batch, vocabulary: usize, rate: f64, key: Key) -> Batch {
    let Some(copies) = &mut batch.copies else { return batch };
    let mut most = copies.slots;
    for row in 0..batch.target.rows() {
        let key = key.numbered(row as u64);
        let says = || copies.says.iter().flat_map(|says| says.row(row).iter().copied());
        let first = says().filter(|&id| id as usize >= vocabulary).max().map_or(vocabulary, |id| id as usize + 1);
        // In the order of their first places, as those that the vocabulary lacks are numbered.
        let (mut slots, mut seen) = (BTreeMap::<TokenId, TokenId>::new(), BTreeSet::new());
        for id in says().filter(|&id| id as usize >= Special::COUNT && (id as usize) < vocabulary).collect::<Vec<_>>() {
            if seen.insert(id) && key.uniform(u64::from(id)) < rate {
                slots.insert(id, (first + slots.len()) as TokenId);
            }
        }
        if slots.is_empty() {
            continue;
        }
        most = most.max(first + slots.len() - vocabulary);
        for (says, source) in copies.says.iter_mut().zip(&mut batch.sources) {
            let SourceBatch::Tokens(source) = source else { continue };
            for step in 0..says.lengths[row] as usize {
                if let Some(&slot) = slots.get(&says.ids[row * says.width + step]) {
                    says.ids[row * says.width + step] = slot;
                    source.ids[row * source.width + step] = Special::Unknown.id();
                }
            }
        }
        let target = &mut batch.target;
        for at in row * target.width..row * target.width + target.lengths[row] as usize {
            if slots.contains_key(&target.inputs[at]) {
                target.inputs[at] = Special::Unknown.id();
            }
            if let Some(&slot) = slots.get(&target.labels[at]) {
                target.labels[at] = slot;
            }
        }
    }
    copies.slots = most;
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::{CopyBatch, Target, TokenBatch};

    /// Two rows of a vocabulary of ten; the first has a slot already, and the source `facts` another vocabulary.
    fn batch() -> Batch {
        let tokens = |rows: &[&[TokenId]]| TokenBatch::from_rows(rows);
        let mut target = Target::whole(&[&[5, 10, 6, 3][..], &[7, 5, 3]]);
        target.inputs.iter_mut().filter(|id| **id >= 10).for_each(|id| *id = 1);
        Batch {
            sources: vec![
                SourceBatch::Tokens(tokens(&[&[5, 1, 5, 3], &[7, 3]])),
                SourceBatch::Tokens(tokens(&[&[21, 3], &[20, 21, 3]])),
            ],
            target,
            continues: Vec::new(),
            examples: vec![0, 1],
            copies: Some(CopyBatch {
                says: vec![tokens(&[&[5, 10, 5, 0], &[7, 0]]), tokens(&[&[6, 0], &[5, 6, 0]])],
                slots: 1,
            }),
        }
    }

    #[test]
    fn a_hidden_word_is_a_slot_everywhere_in_its_row() {
        assert_eq!(hidden(batch(), 10, 0.0, Key::from_seed(1)), batch());
        let all = hidden(batch(), 10, 1.0, Key::from_seed(1));
        let copies = all.copies.unwrap();
        // Behind the slots that the row had, in the order of first places.
        assert_eq!(copies.says[0].ids, [11, 10, 11, 0, 10, 0, 0, 0]);
        assert_eq!(copies.says[1].ids, [12, 0, 0, 11, 12, 0]);
        assert_eq!(copies.slots, 3);
        let SourceBatch::Tokens(source) = &all.sources[0] else { panic!("text") };
        assert_eq!(source.ids, [1, 1, 1, 3, 1, 3, 0, 0]);
        let SourceBatch::Tokens(facts) = &all.sources[1] else { panic!("text") };
        assert_eq!(facts.ids, [1, 3, 0, 1, 1, 3]);
        assert_eq!(all.target.labels, [11, 10, 12, 3, 10, 11, 3, 0]);
        assert_eq!(all.target.inputs, [2, 1, 1, 1, 2, 1, 1, 0]);
    }

    #[test]
    fn each_word_is_hidden_as_often_as_the_rate_says() {
        let count = |seed| {
            let hidden = hidden(batch(), 10, 0.3, Key::from_seed(seed)).copies.unwrap();
            hidden.says.iter().flat_map(|says| &says.ids).filter(|&&id| id >= 10).count() - 1
        };
        let mean = (0..2000).map(count).sum::<usize>() as f64 / 2000.0;
        // Six places of words that are known.
        assert!((mean - 1.8).abs() < 0.1, "{mean}");
    }
}
