//! Host-side batches: what the data room hands to the model. `B` rows, `S` source steps, `T` target steps.

use crate::{Special, TokenId};

/// Rows of ids, padded on the right to the longest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenBatch {
    /// `[B, width]`, row after row; [`Special::Pad`] beyond a row's length.
    pub ids: Vec<TokenId>,
    /// `[B]`: the real ids of each row.
    pub lengths: Vec<u32>,
    /// The longest row, at least 1.
    pub width: usize,
}

impl TokenBatch {
    /// Pads `rows` to the longest of them.
    pub fn from_rows<R: AsRef<[TokenId]>>(rows: &[R]) -> Self {
        let width = rows.iter().map(|r| r.as_ref().len()).max().unwrap_or(0).max(1);
        let mut ids = Vec::with_capacity(rows.len() * width);
        for row in rows {
            ids.extend_from_slice(row.as_ref());
            ids.resize(ids.len() + width - row.as_ref().len(), Special::Pad.id());
        }
        Self { ids, lengths: rows.iter().map(|r| r.as_ref().len() as u32).collect(), width }
    }

    /// `B`.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// The real ids of row `b`.
    pub fn row(&self, b: usize) -> &[TokenId] {
        &self.ids[b * self.width..][..self.lengths[b] as usize]
    }

    /// Real ids in all rows.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().map(|&n| n as usize).sum()
    }

    /// A decoder's input under teacher forcing: each row moved right by one behind [`Special::Begin`].
    #[must_use]
    pub fn shifted_right(&self) -> Self {
        let mut ids = vec![Special::Pad.id(); self.ids.len()];
        for b in 0..self.rows() {
            let (from, to) = (self.row(b), &mut ids[b * self.width..][..self.width]);
            to[0] = Special::Begin.id();
            let shifted = from.len().saturating_sub(1);
            to[1..=shifted].copy_from_slice(&from[..shifted]);
        }
        Self { ids, ..self.clone() }
    }
}

/// What an encoder reads.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SourceBatch {
    /// Text: ids, each row closed by [`Special::End`].
    Tokens(TokenBatch),
    /// Speech and other signals: `[B, S, F]` numbers, row-major, zero beyond a row's length.
    Frames {
        /// `[B, S, F]`.
        values: Vec<f32>,
        /// `[B]`: the real frames of each row.
        lengths: Vec<u32>,
        /// `F`.
        features: usize,
    },
    /// Nothing: a language model.
    None {
        /// `B`.
        rows: usize,
    },
}

impl SourceBatch {
    /// `B`.
    pub fn rows(&self) -> usize {
        match self {
            SourceBatch::Tokens(tokens) => tokens.rows(),
            SourceBatch::Frames { lengths, .. } => lengths.len(),
            SourceBatch::None { rows } => *rows,
        }
    }
}

/// A source with its target, for training and scoring.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// What the encoder reads.
    pub source: SourceBatch,
    /// What the decoder must say: each row closed by [`Special::End`].
    pub target: TokenBatch,
    /// Where each row stood in its corpus.
    pub examples: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_and_shifted() {
        let batch = TokenBatch::from_rows(&[vec![7, 8, 3], vec![9, 3], vec![]]);
        assert_eq!(batch.ids, [7, 8, 3, 9, 3, 0, 0, 0, 0]);
        assert_eq!((batch.lengths.as_slice(), batch.tokens()), (&[3, 2, 0][..], 5));
        assert_eq!(batch.shifted_right().ids, [2, 7, 8, 2, 9, 0, 2, 0, 0]);
        assert_eq!(batch.row(1), [9, 3]);
    }
}
