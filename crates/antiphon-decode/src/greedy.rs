//! Greedy search: at each step the most probable token, until the end symbol.

use std::sync::Arc;

use antiphon_core::{Request, Result, Selection, Special, StepModel, TokenId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fused::{Beside, FusionConfig};
use crate::length::MaxLength;
use crate::search::{Finished, Hypothesis, Search, Strategy};
use crate::stepper::{Beginning, Rules, Stepper};

/// Greedy search. It gives what a beam of width 1 without length penalty gives.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GreedyConfig {
    /// The longest target allowed.
    pub max_length: MaxLength,
    /// The fewest tokens before the end symbol. Where `max_length` leaves no room for them, it has the last word.
    pub min_length: u32,
    /// Whether the unknown symbol may not be chosen.
    pub forbid_unknown: bool,
    /// Whether answers carry their attention weights.
    pub return_attention: bool,
    /// A language model by which tokens are chosen too; if unset, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language_model: Option<FusionConfig>,
}

/// [`GreedyConfig`], checked.
pub(crate) struct Greedy {
    max_length: MaxLength,
    rules: Rules,
    beside: Option<Beside>,
}

impl Greedy {
    pub(crate) fn new(config: GreedyConfig, beside: Option<Beside>) -> Self {
        let GreedyConfig { max_length, min_length, forbid_unknown, return_attention, language_model: _ } = config;
        let rules = Rules { min_length: min_length as usize, forbid_unknown, attention: return_attention };
        Self { max_length, rules, beside }
    }
}

impl Strategy for Greedy {
    fn begin(&self, model: Arc<dyn StepModel>, requests: &[Request]) -> Result<Box<dyn Search>> {
        let model = Beside::fused(self.beside.as_ref(), model);
        let mut stepper = Stepper::begin(model, requests, Selection::Top(1), Some(&self.rules))?;
        let (mut rows, mut early) = (Vec::new(), Vec::new());
        for row in 0..requests.len() {
            let max_length = stepper.max_length(row, &self.max_length);
            let Beginning { tokens, log_prob, score, open } = stepper.beginning(row, max_length);
            let mut answer = Open {
                row,
                max_length,
                tokens: tokens.to_vec(),
                log_prob,
                before: log_prob,
                score,
                attention: Vec::new(),
            };
            match open {
                true => rows.push(answer),
                false => early.push(answer.close(false)),
            }
        }
        stepper.keep_requests(rows.iter().map(|open| open.row));
        Ok(Box::new(GreedySearch { stepper, rows, early, keep: Vec::new(), next: Vec::new() }))
    }
}

struct GreedySearch {
    stepper: Stepper,
    /// The answers that have not ended, in the order of the session's rows.
    rows: Vec<Open>,
    /// The answers that were nothing but their prefix, until they are handed over.
    early: Vec<Finished>,
    keep: Vec<u32>,
    next: Vec<TokenId>,
}

/// An answer that has not ended.
struct Open {
    row: usize,
    max_length: usize,
    tokens: Vec<TokenId>,
    log_prob: f64,
    /// That of its prefix.
    before: f64,
    score: f64,
    attention: Vec<Vec<f32>>,
}

impl Search for GreedySearch {
    fn advance(&mut self) -> Result<Vec<Finished>> {
        if self.is_done() {
            return Ok(Vec::new());
        }
        if let Err(error) = self.stepper.step() {
            self.rows.clear();
            self.early.clear();
            return Err(error);
        }
        let Self { stepper, rows, early, keep, next } = self;
        let mut finished = std::mem::take(early);
        keep.clear();
        next.clear();
        let mut place = 0;
        rows.retain_mut(|open| {
            let ended = open.take(stepper, place);
            if ended.is_none() {
                keep.push(place as u32);
                next.extend(open.tokens.last());
            }
            place += 1;
            let open = ended.is_none();
            finished.extend(ended);
            open
        });
        stepper.keep(keep, next);
        Ok(finished)
    }

    fn certain(&self, row: usize, known: usize) -> Option<Vec<TokenId>> {
        let open = self.rows.iter().find(|open| open.row == row)?;
        Some(open.tokens.get(known..).unwrap_or_default().to_vec())
    }

    fn is_done(&self) -> bool {
        self.rows.is_empty() && self.early.is_empty()
    }
}

impl Open {
    /// Takes the best token of session row `place`; gives the answer if that closed it.
    fn take(&mut self, stepper: &Stepper, place: usize) -> Option<Finished> {
        let best = stepper.row(place).possible().next();
        let ended = best.is_some_and(|(token, ..)| token == Special::End.id() && stepper.ends(self.row));
        if let Some((token, score, log_prob)) = best {
            self.log_prob += log_prob;
            self.score += score;
            if let Some(weights) = stepper.attention(place) {
                // Nobody looked for the tokens of a prefix.
                self.attention.resize(self.tokens.len(), Vec::new());
                self.attention.push(weights);
            }
            self.tokens.extend((!ended).then_some(token));
        }
        (ended || best.is_none() || self.tokens.len() == self.max_length).then(|| self.close(ended))
    }

    fn close(&mut self, finished: bool) -> Finished {
        Finished {
            row: self.row,
            hypotheses: vec![Hypothesis {
                tokens: std::mem::take(&mut self.tokens),
                log_prob: self.log_prob,
                prefix_log_prob: self.before,
                score: self.score,
                finished,
                stopped: false,
                attention: std::mem::take(&mut self.attention),
            }],
            outscored: false,
        }
    }
}
