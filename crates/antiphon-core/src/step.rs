//! The seam of search: a model that answers one token at a time.

use crate::{Result, SourceBatch, TokenId};

/// A model that can be searched: it begins a session over a batch of sources.
pub trait StepModel {
    /// Reads the sources once; row `b` of the session answers source `b`.
    ///
    /// # Errors
    /// If the model cannot read this kind of source.
    fn begin(&self, sources: &SourceBatch) -> Result<Box<dyn StepSession + '_>>;

    /// `V`: the number of token ids the model can give.
    fn vocabulary(&self) -> usize;
}

/// Rows in flight. Their state and their memory stay on the device.
pub trait StepSession {
    /// How many rows are in flight.
    fn rows(&self) -> usize;

    /// Feeds each row its last token and writes what `want` asks for into `out`.
    ///
    /// # Errors
    /// If `last` or `want` holds an id outside the vocabulary.
    fn step(&mut self, last: &[TokenId], want: &Want, out: &mut StepOutput) -> Result<()>;

    /// Keeps `rows`, in this order; a row may be repeated or dropped.
    fn select(&mut self, rows: &[u32]);
}

/// Which scores a step must return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The `k` best tokens of each row, best first; of equal scores the smaller id first.
    Top(usize),
    /// One token's score a row: `tokens[row]`.
    Given(Vec<TokenId>),
    /// Every token's score, in the order of the ids.
    All,
}

/// Which tokens one row may choose, beside what is banned for all rows. What is masked reads minus infinity; the other
/// log-probabilities are not renormalised.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Mask {
    /// All of them.
    #[default]
    Free,
    /// All but these.
    Banned(Vec<TokenId>),
    /// These alone.
    Allowed(Vec<TokenId>),
}

/// What a step must return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Which scores.
    pub selection: Selection,
    /// Ids that must not be chosen: their log-probability reads minus infinity (the others are not renormalised).
    pub banned: Vec<TokenId>,
    /// Whether the attention weights are wanted too.
    pub attention: bool,
}

/// What a step returned. The buffers are reused from step to step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepOutput {
    /// How many entries each row has in `tokens` and `log_probs`.
    pub per_row: usize,
    /// `[rows, per_row]`: token ids.
    pub tokens: Vec<TokenId>,
    /// `[rows, per_row]`: natural logarithms of their probabilities.
    pub log_probs: Vec<f32>,
    /// `[rows, S']`: attention weights, if wanted and if the model attends; else empty.
    pub attention: Vec<f32>,
}
