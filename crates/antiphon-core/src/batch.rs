//! Host-side batches: what the data room hands to the model. `B` rows, `S` source steps, `T` target steps.

use crate::{CopyBatch, Error, Result, Special, TokenId};

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
}

/// Rows of feature frames, padded on the right to the longest: speech and other signals.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameBatch {
    /// `[B, width, F]`, row-major; zero beyond a row's length.
    pub values: Vec<f32>,
    /// `[B]`: the real frames of each row.
    pub lengths: Vec<u32>,
    /// The frames of the longest row, at least 1.
    pub width: usize,
    /// `F`: the numbers of a frame.
    pub features: usize,
}

impl FrameBatch {
    /// Pads `rows`, each a number of whole frames of `features` numbers, to the longest of them.
    ///
    /// # Panics
    /// If `features` is 0, or a row ends within a frame.
    pub fn from_rows<R: AsRef<[f32]>>(rows: &[R], features: usize) -> Self {
        let frames = |row: &R| row.as_ref().len() / features;
        assert!(rows.iter().all(|row| row.as_ref().len().is_multiple_of(features)), "frames of {features} numbers");
        let width = rows.iter().map(frames).max().unwrap_or(0).max(1);
        let mut values = Vec::with_capacity(rows.len() * width * features);
        for row in rows {
            values.extend_from_slice(row.as_ref());
            values.resize(values.len() + (width - frames(row)) * features, 0.0);
        }
        Self { values, lengths: rows.iter().map(|row| frames(row) as u32).collect(), width, features }
    }
}

/// What an encoder reads: one stream of each example.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceBatch {
    /// Text: ids, each row closed by [`Special::End`].
    Tokens(TokenBatch),
    /// Speech and other signals.
    Frames(FrameBatch),
}

impl SourceBatch {
    /// `B`.
    pub fn rows(&self) -> usize {
        self.lengths().len()
    }

    /// `[B]`: the real steps of each row.
    pub fn lengths(&self) -> &[u32] {
        match self {
            SourceBatch::Tokens(tokens) => &tokens.lengths,
            SourceBatch::Frames(frames) => &frames.lengths,
        }
    }
}

/// What a decoder is fed and what it must say then, `[B, width]` each: `labels` at a step is right after `inputs` up to it.
/// Where words are copied, a label may be a slot; what is fed then is [`Special::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// `[B, width]`, row after row; [`Special::Pad`] beyond a row's length.
    pub inputs: Vec<TokenId>,
    /// `[B, width]`: the tokens that are right; [`Special::Pad`] beyond a row's length.
    pub labels: Vec<TokenId>,
    /// `[B]`: the real steps of each row.
    pub lengths: Vec<u32>,
    /// The longest row, at least 1.
    pub width: usize,
}

impl Target {
    /// Teacher forcing of whole texts, each closed by [`Special::End`]: a row is fed [`Special::Begin`], then what it said.
    pub fn whole<R: AsRef<[TokenId]>>(rows: &[R]) -> Self {
        let behind_begin = |row: &R| [&[Special::Begin.id()], row.as_ref()].concat();
        Self::stretch(&rows.iter().map(behind_begin).collect::<Vec<_>>())
    }

    /// A stretch of running streams: a row of `n + 1` ids is fed its first `n` and must say its last `n`.
    pub fn stretch<R: AsRef<[TokenId]>>(rows: &[R]) -> Self {
        let inputs: Vec<&[TokenId]> =
            rows.iter().map(|row| row.as_ref().split_last().map_or(&[][..], |(_, fed)| fed)).collect();
        let labels: Vec<&[TokenId]> = rows.iter().map(|row| row.as_ref().get(1..).unwrap_or_default()).collect();
        let TokenBatch { ids: labels, lengths, width } = TokenBatch::from_rows(&labels);
        Self { inputs: TokenBatch::from_rows(&inputs).ids, labels, lengths, width }
    }

    /// `B`.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// Real steps in all rows.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().map(|&n| n as usize).sum()
    }
}

/// Examples for training and scoring. `B` rows in every part.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// What the encoders read, a stream of the examples each; none for a language model.
    pub sources: Vec<SourceBatch>,
    /// What the decoder must say.
    pub target: Target,
    /// `[B]`: which rows go on where the same rows of the batch before this one stopped. Empty if examples have nothing to do
    /// with one another: then nothing is carried from batch to batch.
    pub continues: Vec<bool>,
    /// Where each row stood in its corpus.
    pub examples: Vec<usize>,
    /// What may be copied from the sources; `None` of a model that copies nothing.
    pub copies: Option<CopyBatch>,
}

impl Batch {
    /// That sources, target and what goes on have as many rows.
    ///
    /// # Errors
    /// If they have not.
    pub fn check(&self) -> Result<()> {
        let rows = self.target.rows();
        if let Some(source) = self.sources.iter().find(|source| source.rows() != rows) {
            return Err(Error::new(format!("{rows} targets for {} sources", source.rows())));
        }
        if !self.continues.is_empty() && self.continues.len() != rows {
            return Err(Error::new(format!("{rows} targets, but {} rows that go on or begin", self.continues.len())));
        }
        if self.copies.as_ref().is_some_and(|copies| !copies.fits(self.sources.iter().map(SourceBatch::lengths))) {
            return Err(Error::new("what may be copied is not that of the sources"));
        }
        let Target { inputs, labels, width, .. } = &self.target;
        if let Some(ids) = [inputs, labels].into_iter().find(|ids| ids.len() != rows * width) {
            return Err(Error::new(format!("{} ids for {rows} targets of {width} steps", ids.len())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_and_shifted() {
        let rows = [vec![7, 8, 3], vec![9, 3], vec![]];
        let batch = TokenBatch::from_rows(&rows);
        assert_eq!(batch.ids, [7, 8, 3, 9, 3, 0, 0, 0, 0]);
        assert_eq!((batch.lengths.as_slice(), batch.tokens()), (&[3, 2, 0][..], 5));
        assert_eq!(batch.row(1), [9, 3]);
        let target = Target::whole(&rows);
        assert_eq!((target.labels, target.lengths), (batch.ids, batch.lengths));
        assert_eq!(target.inputs, [2, 7, 8, 2, 9, 0, 0, 0, 0]);
    }

    #[test]
    fn stretches_of_a_stream_say_it_once() {
        let stream = [2, 5, 6, 7, 8, 9, 3];
        let whole = Target::stretch(&[stream]);
        assert_eq!((whole.inputs.as_slice(), whole.labels.as_slice()), (&stream[..6], &stream[1..]));
        let parts = [Target::stretch(&[&stream[..4]]), Target::stretch(&[&stream[3..]])];
        assert_eq!(parts.each_ref().map(|part| part.labels.clone()).concat(), whole.labels);
        assert_eq!(parts.each_ref().map(|part| part.inputs.clone()).concat(), whole.inputs);
        // One that is over has nothing left to say.
        assert_eq!(Target::stretch(&[&[2, 4][..], &[3]]).lengths, [1, 0]);
    }

    #[test]
    fn frames_are_padded_by_whole_frames() {
        let batch = FrameBatch::from_rows(&[vec![1.0, 2.0, 3.0, 4.0], vec![5.0, 6.0], vec![]], 2);
        assert_eq!(batch.values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!((batch.lengths, batch.width), (vec![2, 1, 0], 2));
    }
}
