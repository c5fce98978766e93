//! Sampling: at each step a token is drawn by its probability.
//!
//! A draw depends on nothing but the key of its request, its number among the draws for that request, and its place in the answer
//! ([`Request::key`]): never on the batch, on the order of the requests or on threads. One number from 0 to 1 picks the token, by
//! the sums of the weights, which are added up in `f64`: in the order of the ids, or, where the model need give no more than the
//! most probable tokens, with these first. So a setting that needs all tokens draws other texts under the same seed.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{Request, Result, Special, StepModel, TokenId};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::length::{LengthPenalty, MaxLength};
use crate::sampler::{Distribution, Said, Sampler};
use crate::search::{Ending, Finished, Hypothesis, Search, Strategy};
use crate::stepper::{Beginning, Rules, Stepper};

/// Sampling. Penalties come first, then the temperature, `top_k`, `top_p` and `min_p`, each on what the one before it has left, as
/// in Hugging Face's `transformers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// What logarithms of probabilities are divided by: below 1 the probable becomes more probable, above 1 less.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub temperature: f64,
    /// How many of the most probable tokens may be drawn (Fan et al. 2018); 0: all.
    pub top_k: u32,
    /// The share of the probability that is left: that of the fewest most probable tokens which together have it (Holtzman et al. 2020).
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub top_p: f64,
    /// How probable a token must be, as a share of the most probable one's probability (Nguyen et al. 2024).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_p: f64,
    /// What the logit of a token that was said is divided by, or multiplied if it is negative (CTRL, Keskar et al. 2019). Logits are
    /// taken such that their mean is 0; a request's prefix counts as said. 1: no penalty.
    #[schemars(range(min = 0.1, max = 10.0))]
    pub repetition_penalty: f64,
    /// What is taken off the logit of a token that was said, once, however often it was.
    #[schemars(range(min = -100.0, max = 100.0))]
    pub presence_penalty: f64,
    /// The length of token sequences that do not come twice in an answer (Paulus et al. 2018); 0: off.
    pub no_repeat_ngram: u32,
    /// Texts at which an answer ends; neither they nor what is behind them is told.
    #[schemars(inner(length(min = 1)))]
    pub stop: Vec<String>,
    /// How many answers are drawn for each source, independently: some may be equal. They are handed back best score first.
    #[schemars(range(min = 1, max = 65536))]
    pub draws: u32,
    /// How length enters the score by which several draws are ranked.
    pub length_penalty: LengthPenalty,
    /// The seed of the draws; if unset, that of the experiment.
    pub seed: Option<u64>,
    /// The longest target allowed.
    pub max_length: MaxLength,
    /// The fewest tokens before the end symbol. Where `max_length` leaves no room for them, it has the last word.
    pub min_length: u32,
    /// Whether the unknown symbol may not be chosen.
    pub forbid_unknown: bool,
    /// Whether answers carry their attention weights.
    pub return_attention: bool,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            no_repeat_ngram: 0,
            stop: Vec::new(),
            draws: 1,
            length_penalty: LengthPenalty::default(),
            seed: None,
            max_length: MaxLength::default(),
            min_length: 0,
            forbid_unknown: false,
            return_attention: false,
        }
    }
}

/// [`SampleConfig`], checked.
pub(crate) struct Sample {
    sampler: Sampler,
    draws: usize,
    penalty: LengthPenalty,
    ending: Option<Arc<dyn Ending>>,
    max_length: MaxLength,
    rules: Rules,
}

impl Sample {
    /// `ending`: what the config's `stop` means, if it has any.
    pub(crate) fn new(config: SampleConfig, ending: Option<Arc<dyn Ending>>) -> Self {
        Self {
            sampler: Sampler {
                temperature: config.temperature,
                top_k: config.top_k as usize,
                top_p: config.top_p,
                min_p: config.min_p,
                repetition_penalty: config.repetition_penalty,
                presence_penalty: config.presence_penalty,
                no_repeat_ngram: config.no_repeat_ngram as usize,
            },
            draws: config.draws as usize,
            penalty: config.length_penalty,
            ending,
            max_length: config.max_length,
            rules: Rules {
                min_length: config.min_length as usize,
                forbid_unknown: config.forbid_unknown,
                attention: config.return_attention,
            },
        }
    }
}

impl Strategy for Sample {
    fn begin(&self, model: Arc<dyn StepModel>, requests: &[Request]) -> Result<Box<dyn Search>> {
        let selection = self.sampler.selection(model.vocabulary());
        let mut stepper = Stepper::begin(model, requests, selection, Some(&self.rules))?;
        let mut search = SampleSearch {
            sampler: self.sampler.clone(),
            penalty: self.penalty.clone(),
            ending: self.ending.clone(),
            answers: requests.iter().map(|_| Some(Answers { open: self.draws, ended: Vec::new() })).collect(),
            rows: Vec::new(),
            early: Vec::new(),
            distribution: Distribution::default(),
            chosen: Vec::new(),
            keep: Vec::new(),
            next: Vec::new(),
        };
        let mut kept = Vec::new();
        for (row, request) in requests.iter().enumerate() {
            let max_length = stepper.max_length(row, &self.max_length);
            let Beginning { tokens, log_prob, score, open } = stepper.beginning(row, max_length);
            let mut said = Said::default();
            tokens.iter().filter(|_| self.sampler.penalises()).for_each(|&token| said.add(token));
            for draw in 0..self.draws {
                let mut answer = Open {
                    row,
                    draw,
                    key: request.key.named("draw").numbered(draw as u64),
                    place: kept.len(),
                    max_length,
                    ends: stepper.ends(row),
                    prefix: tokens.len(),
                    tokens: tokens.to_vec(),
                    said: said.clone(),
                    log_prob,
                    before: log_prob,
                    score,
                    attention: Vec::new(),
                };
                match open {
                    true => search.rows.push(answer),
                    false => {
                        let ended = answer.close(End::Cut, &search.penalty);
                        search.early.extend(take_in(&mut search.answers, row, ended));
                    }
                }
            }
            kept.extend(open.then_some(row));
        }
        stepper.keep_requests(kept.into_iter());
        Ok(Box::new(Sampling { search, stepper }))
    }
}

/// A search with the model's session.
struct Sampling {
    search: SampleSearch,
    stepper: Stepper,
}

struct SampleSearch {
    sampler: Sampler,
    penalty: LengthPenalty,
    ending: Option<Arc<dyn Ending>>,
    /// For each request what was drawn, until it is handed over.
    answers: Vec<Option<Answers>>,
    /// The draws that have not ended. All draws of a request go on from one row of the session before the first step, and each
    /// from its own behind it.
    rows: Vec<Open>,
    /// The requests that were answered by nothing but their prefix, until they are handed over.
    early: Vec<Finished>,
    distribution: Distribution,
    chosen: Vec<Option<usize>>,
    keep: Vec<u32>,
    next: Vec<TokenId>,
}

/// The draws of a request.
struct Answers {
    /// How many have not ended.
    open: usize,
    /// Those that have, each with its number.
    ended: Vec<(usize, Hypothesis)>,
}

/// A draw that has not ended.
struct Open {
    row: usize,
    draw: usize,
    key: Key,
    /// Its row of the session.
    place: usize,
    max_length: usize,
    /// Whether the end symbol ends it.
    ends: bool,
    /// How many of its tokens were not chosen.
    prefix: usize,
    tokens: Vec<TokenId>,
    /// Empty where nobody asks.
    said: Said,
    log_prob: f64,
    /// That of its prefix.
    before: f64,
    score: f64,
    attention: Vec<Vec<f32>>,
}

/// Why a draw has ended.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// By the end symbol.
    Finished,
    /// Somebody who knows its text says so.
    Stopped,
    /// By the limit of its length, or because nothing was possible.
    Cut,
}

impl Search for Sampling {
    fn advance(&mut self) -> Result<Vec<Finished>> {
        if self.is_done() {
            return Ok(Vec::new());
        }
        if let Err(error) = self.stepper.step() {
            self.search.rows.clear();
            self.search.early.clear();
            return Err(error);
        }
        self.search.choose(&self.stepper);
        Ok(self.search.follow(&mut self.stepper))
    }

    fn certain(&self, row: usize, known: usize) -> Option<Vec<TokenId>> {
        let answers = self.search.answers.get(row)?.as_ref().filter(|answers| answers.open > 0)?;
        let open = self.search.rows.iter().filter(|open| open.row == row).map(|open| open.tokens.as_slice());
        let ended = answers.ended.iter().map(|(_, hypothesis)| hypothesis.tokens.as_slice());
        let shared = |a: &'_ [TokenId], b: &'_ [TokenId]| a.iter().zip(b).take_while(|(x, y)| x == y).count();
        // What all draws begin with: the best of them is not known before the last has ended.
        let all: Vec<&[TokenId]> = open.chain(ended).collect();
        let (first, others) = all.split_first()?;
        let length = others.iter().map(|other| shared(first, other)).min().unwrap_or(first.len());
        Some(first.get(known..length).unwrap_or_default().to_vec())
    }

    fn is_done(&self) -> bool {
        self.search.rows.is_empty() && self.search.early.is_empty()
    }
}

/// Scores of all rows together from which on it pays to weigh them on several threads.
const MANY: usize = 1 << 14;

impl SampleSearch {
    /// Draws for every row the place of a token; `None` where nothing is possible.
    fn choose(&mut self, stepper: &Stepper) {
        let Self { sampler, rows, distribution, chosen, .. } = self;
        let outputs = stepper.rows();
        let draw = |distribution: &mut Distribution, open: &Open| {
            let number = || open.key.numbered(open.tokens.len() as u64).uniform(0);
            let possible = sampler.weigh(outputs.row(open.place), &open.tokens, &open.said, distribution);
            possible.then(|| distribution.pick(number()))
        };
        let scores = rows.first().map_or(0, |open| outputs.row(open.place).scores.len() * rows.len());
        chosen.clear();
        if rows.len() > 1 && scores >= MANY {
            rows.par_iter().map_init(Distribution::default, draw).collect_into_vec(chosen);
        } else {
            chosen.extend(rows.iter().map(|open| draw(distribution, open)));
        }
    }

    /// Appends what was chosen, and hands back the requests of which the last draw has ended.
    fn follow(&mut self, stepper: &mut Stepper) -> Vec<Finished> {
        let Self { sampler, penalty, ending, answers, rows, early, chosen, keep, next, .. } = self;
        let mut finished = std::mem::take(early);
        keep.clear();
        next.clear();
        let mut places = chosen.iter();
        rows.retain_mut(|open| {
            let chosen = places.next().copied().flatten();
            let end = open.take(chosen, stepper, sampler.penalises(), ending.as_deref());
            if let Some(end) = end {
                finished.extend(take_in(answers, open.row, open.close(end, penalty)));
                return false;
            }
            keep.push(open.place as u32);
            next.extend(open.tokens.last());
            open.place = keep.len() - 1;
            true
        });
        stepper.keep(keep, next);
        finished
    }
}

impl Open {
    /// Takes what its row of the session has at a place; tells whether that ended it.
    fn take(
        &mut self,
        chosen: Option<usize>,
        stepper: &Stepper,
        penalised: bool,
        ending: Option<&dyn Ending>,
    ) -> Option<End> {
        let Some(chosen) = chosen else { return Some(End::Cut) };
        let row = stepper.row(self.place);
        let token = row.tokens[chosen];
        self.log_prob += f64::from(row.log_probs[chosen]);
        self.score += f64::from(row.scores[chosen]);
        if let Some(weights) = stepper.attention(self.place) {
            // Nobody looked for the tokens of a prefix.
            self.attention.resize(self.tokens.len(), Vec::new());
            self.attention.push(weights);
        }
        if token == Special::End.id() && self.ends {
            return Some(End::Finished);
        }
        self.tokens.push(token);
        if penalised {
            self.said.add(token);
        }
        if ending.is_some_and(|ending| ending.ends(&self.tokens[self.prefix..])) {
            return Some(End::Stopped);
        }
        (self.tokens.len() == self.max_length).then_some(End::Cut)
    }

    fn close(&mut self, end: End, penalty: &LengthPenalty) -> (usize, Hypothesis) {
        let finished = end == End::Finished;
        let length = self.tokens.len() + usize::from(finished);
        let hypothesis = Hypothesis {
            tokens: std::mem::take(&mut self.tokens),
            log_prob: self.log_prob,
            prefix_log_prob: self.before,
            score: penalty.score(self.score, length),
            finished,
            stopped: end == End::Stopped,
            attention: std::mem::take(&mut self.attention),
        };
        (self.draw, hypothesis)
    }
}

/// Takes in a draw that has ended; hands back its request if it was the last: best score first, of equal ones the earlier draw.
fn take_in(answers: &mut [Option<Answers>], row: usize, draw: (usize, Hypothesis)) -> Option<Finished> {
    let of_request = answers[row].as_mut().expect("a request has open draws");
    of_request.ended.push(draw);
    of_request.open -= 1;
    if of_request.open > 0 {
        return None;
    }
    let mut ended = answers[row].take().map_or_else(Vec::new, |answers| answers.ended);
    ended.sort_by(|(i, a), (j, b)| b.score.total_cmp(&a.score).then(i.cmp(j)));
    Some(Finished { row, hypotheses: ended.into_iter().map(|(_, hypothesis)| hypothesis).collect(), outscored: false })
}
