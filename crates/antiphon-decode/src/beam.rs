//! Beam search: of all one-token continuations of a sentence's live beginnings, the `width` most probable live on.
//!
//! All sentences of a batch step together, and all live rows of all sentences are one batch to the model. A sentence
//! starts as one row, spreads over the beam as it can, and leaves the batch in the step that settles it.
//!
//! *Scores.* What is summed, compared and bounded is a token's score: its log-probability, unless the model scores otherwise
//! (a bonus, a second model's opinion). Below, "probable" then means "of a high score".
//!
//! *Candidates.* Each row is asked for its `width + 1` best tokens. That is enough to lose nothing: a row has one
//! continuation that ends, so its `width` best living ones are among them, and so are the `width` best of the sentence.
//! Ended candidates therefore never starve the beam. A candidate may end only from the first `width` places of the
//! step: an end symbol that a living beam would have passed over is passed over (and a beam of 1 is greedy).
//!
//! *Settled.* Finished hypotheses compete with live ones by score. A sentence is settled when nothing lives, at the length
//! limit, when the best live beginning cannot reach the worst of the `n_best` finished ones any more
//! ([`LengthPenalty::best_attainable`]), or when both `patience · width` hypotheses have finished and no live beginning is
//! more probable than the most probable of them.
//!
//! *Why the second half of the last rule.* In a peaked model a long target is nearly certain, and the ends of improbable
//! beginnings beside it finish early; counted alone they would settle the sentence before that target can end. With it, this
//! holds for every width, `patience`, `n_best` and penalty: if greedy search's answer ends within the limits and has a
//! probability above ½, the best hypothesis scores no less. For at each step every other candidate excludes that answer, so that
//! its probability is below ½ and the answer's beginning ranks first. What has finished is then less probable than this
//! beginning, and patience never settles the sentence; the bound on what is attainable is sound; so the answer is
//! found, unless better ones settle the sentence. Without any penalty, and with `n_best` 1, no rule changes the answer.

use std::cmp::Ordering;
use std::sync::Arc;

use antiphon_core::{Request, Result, Selection, Special, StepModel, TokenId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fused::{Beside, FusionConfig};
use crate::joint::Joint;
use crate::length::{LengthPenalty, MaxLength};
use crate::search::{Finished, Hypothesis, Search, Strategy};
use crate::stepper::{Beginning, Rules, Stepper};
use crate::trail::{ROOT, Trail, UNSEEN};

/// Beam search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BeamConfig {
    /// How many beginnings of each sentence live on after a step.
    #[schemars(range(min = 1))]
    pub width: u32,
    /// How many hypotheses are handed back, if as many are found.
    #[schemars(range(min = 1))]
    pub n_best: u32,
    /// How length enters the score.
    pub length_penalty: LengthPenalty,
    /// A sentence is settled once `patience · width` hypotheses (and `n_best` at least) have finished and no live one is
    /// more probable than the most probable of these, even if a live one might still win by its score. With 1, which is
    /// usual, a beam of width 1 is greedy; a large number means never (Kasai et al. 2022, but for the second condition).
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub patience: f64,
    /// The longest target allowed. Hypotheses that it cuts off are handed back only if none has finished.
    pub max_length: MaxLength,
    /// The fewest tokens before the end symbol. Where `max_length` leaves no room for them, it has the last word.
    pub min_length: u32,
    /// Whether the unknown symbol may not be chosen.
    pub forbid_unknown: bool,
    /// Whether answers carry their attention weights.
    pub return_attention: bool,
    /// The share of `model.ctc` in the score of an answer; the decoder has the rest (Watanabe et al. 2017). 0: it has no say.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ctc_weight: f64,
    /// A language model by which answers are ranked too; if unset, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language_model: Option<FusionConfig>,
}

impl Default for BeamConfig {
    fn default() -> Self {
        Self {
            width: 5,
            n_best: 1,
            length_penalty: LengthPenalty::default(),
            patience: 1.0,
            max_length: MaxLength::default(),
            min_length: 0,
            forbid_unknown: false,
            return_attention: false,
            ctc_weight: 0.0,
            language_model: None,
        }
    }
}

/// [`BeamConfig`], checked.
pub(crate) struct Beam {
    settings: Settings,
    max_length: MaxLength,
    rules: Rules,
    ctc_weight: f64,
    beside: Option<Beside>,
}

#[derive(Clone)]
struct Settings {
    width: usize,
    n_best: usize,
    /// How many finished hypotheses may settle a sentence.
    enough: usize,
    penalty: LengthPenalty,
}

impl Beam {
    pub(crate) fn new(config: BeamConfig, beside: Option<Beside>) -> Self {
        let (width, n_best) = (config.width as usize, config.n_best as usize);
        let enough = ((config.patience * width as f64).ceil() as usize).max(n_best);
        Self {
            settings: Settings { width, n_best, enough, penalty: config.length_penalty },
            max_length: config.max_length,
            ctc_weight: config.ctc_weight,
            beside,
            rules: Rules {
                min_length: config.min_length as usize,
                forbid_unknown: config.forbid_unknown,
                attention: config.return_attention,
            },
        }
    }
}

impl Strategy for Beam {
    fn begin(&self, model: Arc<dyn StepModel>, requests: &[Request]) -> Result<Box<dyn Search>> {
        let selection = Selection::Top(self.settings.width.saturating_add(1));
        let model: Arc<dyn StepModel> = match self.ctc_weight {
            0.0 => model,
            weight => Arc::new(Joint::new(model, weight)),
        };
        let model = Beside::fused(self.beside.as_ref(), model);
        let mut stepper = Stepper::begin(model, requests, selection, Some(&self.rules))?;
        let (mut sentences, mut early) = (Vec::new(), Vec::new());
        for row in 0..requests.len() {
            let max_length = stepper.max_length(row, &self.max_length);
            let Beginning { tokens, log_prob, score, open } = stepper.beginning(row, max_length);
            let mut trail = Trail::default();
            let node = tokens.iter().fold(ROOT, |parent, &token| trail.push(parent, token, UNSEEN));
            let mut sentence = Sentence {
                row,
                max_length,
                ends: stepper.ends(row),
                before: log_prob,
                live: vec![Live { node, log_prob, sum: score, row: 0 }],
                ended: Vec::new(),
                endings: 0,
                best_sum: f64::NEG_INFINITY,
                trail,
            };
            match open {
                true => sentences.push(sentence),
                false => early.push(sentence.close(&self.settings, tokens.len(), &[], Settled::Decided)),
            }
        }
        stepper.keep_requests(sentences.iter().map(|sentence| sentence.row));
        let settings = self.settings.clone();
        Ok(Box::new(BeamSearch { settings, stepper, sentences, early, scratch: Scratch::default() }))
    }
}

struct BeamSearch {
    settings: Settings,
    stepper: Stepper,
    /// The open sentences, in the order of the session's rows.
    sentences: Vec<Sentence>,
    /// The answers that were nothing but their prefix, until they are handed over.
    early: Vec<Finished>,
    scratch: Scratch,
}

/// Buffers that are reused from step to step.
#[derive(Default)]
struct Scratch {
    candidates: Vec<Candidate>,
    parents: Vec<Live>,
    keep: Vec<u32>,
    next: Vec<TokenId>,
}

struct Sentence {
    row: usize,
    max_length: usize,
    /// Whether the end symbol ends a hypothesis.
    ends: bool,
    /// The log-probability of its prefix.
    before: f64,
    /// Best first; as many session rows, in this order.
    live: Vec<Live>,
    /// The best `n_best` that have finished, best first.
    ended: Vec<Ended>,
    /// How many have finished.
    endings: usize,
    /// The largest sum of all that have finished.
    best_sum: f64,
    trail: Trail,
}

/// Why a sentence is settled.
#[derive(Clone, Copy, PartialEq)]
enum Settled {
    /// Going on cannot change the answer, or the length limit forbids it.
    Decided,
    /// Enough hypotheses have finished.
    OutOfPatience,
}

/// A beginning that is followed. `sum` is that of its tokens' scores; `row` is the session's row that it grew from.
struct Live {
    node: u32,
    log_prob: f64,
    sum: f64,
    row: u32,
}

/// A hypothesis that reached the end symbol.
struct Ended {
    node: u32,
    log_prob: f64,
    score: f64,
}

/// A continuation by one token: of the parent at `rank`, the `place`-best token.
struct Candidate {
    log_prob: f64,
    sum: f64,
    rank: u32,
    place: u32,
    token: TokenId,
}

impl Candidate {
    /// Best first; of equals the one of the better parent, then the smaller token (a row's tokens come in this order).
    fn order(&self, other: &Self) -> Ordering {
        let best = other.sum.total_cmp(&self.sum);
        best.then(self.rank.cmp(&other.rank)).then(self.place.cmp(&other.place))
    }
}

impl Search for BeamSearch {
    fn advance(&mut self) -> Result<Vec<Finished>> {
        if self.is_done() {
            return Ok(Vec::new());
        }
        if let Err(error) = self.stepper.step() {
            self.sentences.clear();
            self.early.clear();
            return Err(error);
        }
        let Self { settings, stepper, sentences, early, scratch } = self;
        let mut finished = std::mem::take(early);
        scratch.keep.clear();
        scratch.next.clear();
        let mut first = 0;
        sentences.retain_mut(|sentence| {
            let (rows, length) = (sentence.live.len(), stepper.length(sentence.row));
            sentence.grow(settings, stepper, first, scratch);
            first += rows;
            if let Some(settled) = sentence.is_settled(settings, length) {
                finished.push(sentence.close(settings, length, &scratch.parents, settled));
                return false;
            }
            for live in &sentence.live {
                scratch.keep.push(live.row);
                scratch.next.push(sentence.trail.token(live.node));
            }
            true
        });
        stepper.keep(&scratch.keep, &scratch.next);
        Ok(finished)
    }

    fn certain(&self, row: usize, known: usize) -> Option<Vec<TokenId>> {
        let sentence = self.sentences.iter().find(|sentence| sentence.row == row)?;
        // Whatever wins has finished, or grows from what lives. An end symbol that ends is no token of the answer.
        let ended = sentence.ended.iter().map(|ended| sentence.trail.parent(ended.node));
        let shared = sentence.trail.shared(sentence.live.iter().map(|live| live.node).chain(ended));
        Some(shared.get(known..).unwrap_or_default().to_vec())
    }

    fn is_done(&self) -> bool {
        self.sentences.is_empty() && self.early.is_empty()
    }
}

impl Sentence {
    /// Replaces the live beginnings, whose session rows start at `first`, by their best continuations; those of before
    /// are left in `scratch.parents`.
    fn grow(&mut self, settings: &Settings, stepper: &Stepper, first: usize, scratch: &mut Scratch) {
        let Scratch { candidates, parents, .. } = scratch;
        candidates.clear();
        let attention = self.trail.next_attention();
        for (rank, live) in self.live.iter().enumerate() {
            let possible = stepper.row(first + rank).possible().enumerate();
            candidates.extend(possible.map(|(place, (token, score, log_prob))| Candidate {
                log_prob: live.log_prob + log_prob,
                sum: live.sum + score,
                rank: rank as u32,
                place: place as u32,
                token,
            }));
            if let Some(weights) = stepper.attention(first + rank) {
                self.trail.attend(weights);
            }
        }
        // A row ends once and there are at most `width` rows: twice the width holds the best `width` that live on.
        keep_best(candidates, settings.width.saturating_mul(2));

        std::mem::swap(&mut self.live, parents);
        self.live.clear();
        for (place, candidate) in candidates.iter().enumerate() {
            let (parent, weights) = (parents[candidate.rank as usize].node, attention + candidate.rank);
            if candidate.token != Special::End.id() || !self.ends {
                if self.live.len() < settings.width {
                    let node = self.trail.push(parent, candidate.token, weights);
                    let row = first as u32 + candidate.rank;
                    let Candidate { log_prob, sum, .. } = *candidate;
                    self.live.push(Live { node, log_prob, sum, row });
                }
            } else if place < settings.width {
                self.end(settings, candidate, stepper.length(self.row), parent, weights);
            }
        }
    }

    /// Takes in a hypothesis of `length` tokens that has just ended, if it is among the best. Of equals the earlier wins.
    fn end(&mut self, settings: &Settings, candidate: &Candidate, length: usize, parent: u32, weights: u32) {
        let Candidate { log_prob, sum, .. } = *candidate;
        self.endings += 1;
        self.best_sum = self.best_sum.max(sum);
        let score = settings.penalty.score(sum, length);
        let place = self.ended.partition_point(|other| other.score >= score);
        if place < settings.n_best {
            let node = self.trail.push(parent, Special::End.id(), weights);
            self.ended.insert(place, Ended { node, log_prob, score });
            self.ended.truncate(settings.n_best);
        }
    }

    /// Why going on cannot, or may not, change the answer, if that is so; `length` is that of the live beginnings.
    fn is_settled(&self, settings: &Settings, length: usize) -> Option<Settled> {
        let Some(best) = self.live.first() else { return Some(Settled::Decided) };
        let attainable = settings.penalty.best_attainable(best.sum, self.max_length);
        let unbeatable = self.ended.get(settings.n_best - 1).is_some_and(|worst| attainable <= worst.score);
        if unbeatable || length >= self.max_length {
            return Some(Settled::Decided);
        }
        let enough = self.endings >= settings.enough && best.sum <= self.best_sum;
        enough.then_some(Settled::OutOfPatience)
    }

    /// The answer: what has finished, or else what lives, or else what lived last.
    fn close(&mut self, settings: &Settings, length: usize, parents: &[Live], settled: Settled) -> Finished {
        let hypothesis = |node: u32, log_prob: f64, score: f64, finished: bool| {
            let (mut tokens, attention) = self.trail.spell(node);
            if finished {
                tokens.pop();
            }
            let prefix_log_prob = self.before;
            Hypothesis { tokens, log_prob, prefix_log_prob, score, finished, stopped: false, attention }
        };
        let (open, length) = if self.live.is_empty() { (parents, length - 1) } else { (&self.live[..], length) };
        let hypotheses: Vec<Hypothesis> = if self.ended.is_empty() {
            let score = |sum| settings.penalty.score(sum, length);
            let best = open.iter().take(settings.n_best);
            best.map(|live| hypothesis(live.node, live.log_prob, score(live.sum), false)).collect()
        } else {
            self.ended.iter().map(|e| hypothesis(e.node, e.log_prob, e.score, true)).collect()
        };
        let ahead = |live: &Live| settings.penalty.score(live.sum, length) > hypotheses[0].score;
        let outscored = settled == Settled::OutOfPatience && self.live.first().is_some_and(ahead);
        Finished { row: self.row, hypotheses, outscored }
    }
}

/// Keeps the best `n` candidates, in order.
fn keep_best(candidates: &mut Vec<Candidate>, n: usize) {
    if candidates.len() > n {
        candidates.select_nth_unstable_by(n, Candidate::order);
        candidates.truncate(n);
    }
    candidates.sort_unstable_by(Candidate::order);
}
