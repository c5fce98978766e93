//! What a search strategy is, and what it hands back.

use std::sync::Arc;

use antiphon_core::{Request, Result, StepModel, TokenId};

/// A way to search a model: it begins a [`Search`] over requests.
pub trait Strategy: Send + Sync {
    /// Begins a search; row `b` of it answers request `b`.
    ///
    /// # Errors
    /// If the model cannot read these requests, or a prefix holds a token that the search may not choose.
    fn begin(&self, model: Arc<dyn StepModel>, requests: &[Request]) -> Result<Box<dyn Search>>;

    /// Searches to the end: the hypotheses of each request, best first.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin) and of [`Search::advance`].
    fn run(&self, model: Arc<dyn StepModel>, requests: &[Request]) -> Result<Vec<Vec<Hypothesis>>> {
        let mut answers = vec![Vec::new(); requests.len()];
        let mut search = self.begin(model, requests)?;
        while !search.is_done() {
            for Finished { row, hypotheses, .. } in search.advance()? {
                answers[row] = hypotheses;
            }
        }
        Ok(answers)
    }
}

/// A search in progress, a value: it can be left between steps, and resumed on another thread.
pub trait Search: Send {
    /// Takes one step with all rows that are still open, and hands back those that it finished. Does nothing once the
    /// search [is done](Self::is_done).
    ///
    /// # Errors
    /// If the model fails, or gives something that is not a log-probability (NaN, or above 0); the error names row and
    /// step. The search is done then.
    fn advance(&mut self) -> Result<Vec<Finished>>;

    /// The tokens of an open row that can no longer change, but for the first `known`, which the caller has: the answer,
    /// whichever it will be, begins with them. They only grow from step to step, and a prefix is a part of them. `None` if the row
    /// has been answered, or never was.
    fn certain(&self, row: usize, known: usize) -> Option<Vec<TokenId>>;

    /// Whether no row is open any more.
    fn is_done(&self) -> bool;
}

/// What ends an answer beside the end symbol: somebody who knows what its tokens say.
pub trait Ending: Send + Sync {
    /// Whether an answer ends with the last of the tokens that were chosen for it, a prefix not among them. It is asked at each
    /// token.
    fn ends(&self, chosen: &[TokenId]) -> bool;
}

/// A request that has been answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Its row in the batch of requests, or its place among all of them.
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
    /// The target, with neither begin nor end symbol; the request's prefix is a part of it.
    pub tokens: Vec<TokenId>,
    /// Natural logarithm of its probability, that of the end symbol included if it was reached. It is the model's, whatever the
    /// search has made of its scores to choose by.
    pub log_prob: f64,
    /// What of it is that of the request's prefix.
    pub prefix_log_prob: f64,
    /// What hypotheses are ranked by: the sum of its tokens' scores (their log-probabilities, unless the model scores otherwise)
    /// under the length penalty.
    pub score: f64,
    /// Whether it reached the end symbol. If not, it was stopped, or the length limit cut it off (or the model left it no possible
    /// token).
    pub finished: bool,
    /// Whether an [`Ending`] stopped it.
    pub stopped: bool,
    /// The attention weights of each token, and of the end symbol if it was reached; those of a prefix's tokens are empty.
    /// Empty if they were not asked for or if the model does not attend. Where the memory is as long as the source, padding is
    /// cut off.
    pub attention: Vec<Vec<f32>>,
}
