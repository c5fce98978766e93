//! The best path of CTC: at each step of the source the most probable token, repetitions dropped, then blanks (Graves et al. 2006).

use std::sync::Arc;

use antiphon_core::{CtcOutput, CtcPrefix, Error, Request, Result, Special, StepModel, TokenId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::length::MaxLength;
use crate::search::{Finished, Hypothesis, Search, Strategy};

/// The most probable path of a model with CTC. It takes no steps, and so is the quickest search; that all paths of another answer
/// together are more probable it does not see.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BestPathConfig {
    /// The longest target allowed.
    pub max_length: MaxLength,
    /// Whether the unknown symbol may not be chosen.
    pub forbid_unknown: bool,
}

/// [`BestPathConfig`], checked.
pub(crate) struct BestPath(BestPathConfig);

impl BestPath {
    pub(crate) fn new(config: BestPathConfig) -> Self {
        Self(config)
    }

    fn may(&self, token: TokenId) -> bool {
        match token {
            token if token == Special::Unknown.id() => !self.0.forbid_unknown,
            token => token != Special::Begin.id() && token != Special::End.id(),
        }
    }
}

impl Strategy for BestPath {
    fn begin(&self, model: Arc<dyn StepModel>, requests: &[Request]) -> Result<Box<dyn Search>> {
        if requests.iter().any(|request| !request.prefix.is_empty()) {
            return Err(Error::new("the best path goes on behind no beginning; search with a beam").at("search.kind"));
        }
        let sources = if requests.is_empty() { Vec::new() } else { model.begin(requests)?.take_ctc() };
        if sources.len() != requests.len() {
            let message = "`best_path` is that of a CTC, and this model has none, as several together have none; search with a beam";
            return Err(Error::new(message).at("search.kind"));
        }
        let answer = |(row, (source, request)): (usize, (CtcOutput, &Request))| {
            let limits = &request.limits;
            let most = limits.max_length.unwrap_or_else(|| self.0.max_length.tokens(Some(request.length()))).max(1);
            let (mut tokens, score) = source.best_path(|token| self.may(token));
            // The end symbol counts.
            let finished = tokens.len() < most;
            tokens.truncate(most);
            let said = tokens.iter().fold(CtcPrefix::empty(&source), |said, &token| said.with(&source, token));
            let end = if finished { said.gains(&source, &[Special::End.id()])[0] } else { 0.0 };
            let log_prob = (said.log_prob() + end).min(0.0);
            let hypothesis = Hypothesis {
                tokens,
                log_prob,
                prefix_log_prob: 0.0,
                score,
                finished,
                stopped: false,
                attention: Vec::new(),
            };
            Finished { row, hypotheses: vec![hypothesis], outscored: false }
        };
        let found = sources.into_iter().zip(requests).enumerate().map(answer).collect();
        Ok(Box::new(Found(found)))
    }
}

/// What was found, until it is handed over.
struct Found(Vec<Finished>);

impl Search for Found {
    fn advance(&mut self) -> Result<Vec<Finished>> {
        Ok(std::mem::take(&mut self.0))
    }

    fn certain(&self, row: usize, known: usize) -> Option<Vec<TokenId>> {
        let found = self.0.iter().find(|found| found.row == row)?;
        Some(found.hypotheses[0].tokens.get(known..).unwrap_or_default().to_vec())
    }

    fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}
