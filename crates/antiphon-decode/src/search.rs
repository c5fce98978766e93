//! What a search strategy is, and what it hands back.

use antiphon_core::{Result, SourceBatch, StepModel, TokenId};

/// A way to search a model: it begins a [`Search`] over a batch of sources.
pub trait Strategy: Send + Sync {
    /// Begins a search; row `b` of it answers source `b`.
    ///
    /// # Errors
    /// If the model cannot read these sources.
    fn begin<'m>(&self, model: &'m dyn StepModel, sources: &SourceBatch) -> Result<Box<dyn Search + 'm>>;

    /// Searches to the end: the hypotheses of each source, best first.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin) and of [`Search::advance`].
    fn run(&self, model: &dyn StepModel, sources: &SourceBatch) -> Result<Vec<Vec<Hypothesis>>> {
        let mut answers = vec![Vec::new(); sources.rows()];
        let mut search = self.begin(model, sources)?;
        while !search.is_done() {
            for Finished { row, hypotheses, .. } in search.advance()? {
                answers[row] = hypotheses;
            }
        }
        Ok(answers)
    }
}

/// A search in progress, which can be left and resumed between steps.
pub trait Search {
    /// Takes one step with all rows that are still open, and hands back those that it finished. Does nothing once the
    /// search [is done](Self::is_done).
    ///
    /// # Errors
    /// If the model fails, or gives something that is not a log-probability (NaN, or above 0); the error names row and
    /// step. The search is done then.
    fn advance(&mut self) -> Result<Vec<Finished>>;

    /// Whether no row is open any more.
    fn is_done(&self) -> bool;
}

/// A source that has been answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Its row in the batch of sources, or its place among all of them.
    pub row: usize,
    /// At least one, best first.
    pub hypotheses: Vec<Hypothesis>,
    /// Whether the search ran out of patience while a live hypothesis' present score was above the answer's: going on might
    /// have found a better one.
    pub outscored: bool,
}

/// One answer of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// The target, with neither begin nor end symbol.
    pub tokens: Vec<TokenId>,
    /// Natural logarithm of its probability, that of the end symbol included if it was reached.
    pub log_prob: f64,
    /// What hypotheses are ranked by: `log_prob` under the length penalty.
    pub score: f64,
    /// Whether it reached the end symbol. If not, the length limit cut it off (or the model left it no possible token).
    pub finished: bool,
    /// The attention weights of each token, and of the end symbol if it was reached. Empty if they were not asked for
    /// or if the model does not attend. Where the memory is as long as the source, padding is cut off.
    pub attention: Vec<Vec<f32>>,
}
