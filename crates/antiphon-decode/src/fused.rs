//! A language model in the search (shallow fusion; Gülçehre et al. 2015).
//!
//! A model has heard only what its examples say; a language model may have read more, and knows which answers are none. The score of
//! a token `c` behind `g` is what the model gives it and, beside that, `w ln p(c | g)` of the language model, the end symbol included:
//! an answer has `w` times its logarithm there in all. With `w ≥ 0` a score is at most 0 and an answer's sum never rises, as a search
//! demands.
//!
//! [`Fused`] is a model that scores so; to a search it is a model like any other. What tokens are worth to the model itself stays
//! their log-probability.

use std::path::PathBuf;
use std::sync::Arc;

use antiphon_core::{
    Error, PrefixOutput, Problem, Request, Result, Selection, Special, StepModel, StepOutput, StepSession, TokenId,
    Want,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rescored::{at_most_zero, kept, push, wider};
use crate::stepper::not_above_zero;

/// A language model by which answers are ranked too (shallow fusion; Gülçehre et al. 2015).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FusionConfig {
    /// The language model of single texts: a model file, or the folder of a run that is trained, from where the program is called. It
    /// knows every token of the target vocabulary, in whatever order. Its SHA-256 is part of the run's identity.
    #[schemars(length(min = 1), example = &"runs/lm")]
    pub model: PathBuf,
    /// How much it counts: so many times the logarithm of what it gives a token is added to the token's score. 0: it has no say, and is
    /// not read.
    #[serde(default = "weight")]
    #[schemars(range(min = 0.0))]
    pub weight: f64,
}

const fn weight() -> f64 {
    0.3
}

impl FusionConfig {
    /// What is wrong, with keys below this table.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut demand = |holds: bool, place: &str, message: String| {
            if !holds {
                found.push(Problem { place: place.into(), message });
            }
        };
        demand(!self.model.as_os_str().is_empty(), "model", "must name a language model, but is empty".into());
        let weight = self.weight;
        demand(weight.is_finite() && weight >= 0.0, "weight", format!("must be at least 0, got {weight}"));
        found
    }
}

/// A language model that takes part in the searches of another model.
#[derive(Clone)]
pub struct LanguageModel {
    model: Arc<dyn StepModel>,
    /// What each token of the other model's vocabulary is called here.
    ids: Arc<[TokenId]>,
}

impl LanguageModel {
    /// A model without sources. `ids`: for each token of the vocabulary that is searched its own id of the same token; special symbols
    /// have the same in all vocabularies.
    ///
    /// # Errors
    /// If an id is beyond its vocabulary, or a special symbol has another.
    pub fn new(model: Arc<dyn StepModel>, ids: Vec<TokenId>) -> Result<Self> {
        let size = model.vocabulary();
        if let Some(odd) = ids.iter().find(|&&id| id as usize >= size) {
            return Err(Error::new(format!("token {odd} is beyond the language model's vocabulary of {size}")));
        }
        if !Special::ALL.iter().all(|special| ids.get(special.id() as usize) == Some(&special.id())) {
            return Err(Error::new("special symbols have the same ids in all vocabularies"));
        }
        Ok(Self { model, ids: ids.into() })
    }

    fn named(&self, tokens: &[TokenId]) -> Vec<TokenId> {
        tokens.iter().map(|&token| self.ids[token as usize]).collect()
    }
}

/// A language model with the weight that it has in a search.
pub(crate) struct Beside {
    pub(crate) model: LanguageModel,
    pub(crate) weight: f64,
}

impl Beside {
    /// A model with it at its side, if there is one.
    pub(crate) fn fused(beside: Option<&Self>, model: Arc<dyn StepModel>) -> Arc<dyn StepModel> {
        match beside {
            None => model,
            Some(Self { model: beside, weight }) => Arc::new(Fused { model, beside: beside.clone(), weight: *weight }),
        }
    }
}

/// A model whose tokens are scored by a language model too.
struct Fused {
    model: Arc<dyn StepModel>,
    beside: LanguageModel,
    weight: f64,
}

impl Fused {
    fn score(&self, score: f32, beside: f32) -> f32 {
        at_most_zero((f64::from(score) + self.weight * f64::from(beside)) as f32)
    }
}

impl StepModel for Fused {
    fn begin(self: Arc<Self>, requests: &[Request]) -> Result<Box<dyn StepSession>> {
        let (vocabulary, known) = (self.model.vocabulary(), self.beside.ids.len());
        if vocabulary != known {
            let message = format!("the language model was told of {known} tokens, and there are {vocabulary}");
            return Err(Error::new(message).at("search.language_model"));
        }
        if self.model.copies() {
            let message = "a language model has no say in words that are copied, and this model copies; remove it";
            return Err(Error::new(message).at("search.language_model"));
        }
        let mut session = Arc::clone(&self.model).begin(requests)?;
        let texts: Vec<Request> = requests
            .iter()
            .map(|request| Request { prefix: self.beside.named(&request.prefix), ..Request::new(Vec::new()) })
            .collect();
        let mut beside = Arc::clone(&self.beside.model).begin(&texts).map_err(of_language_model)?;
        let (mut prefixes, worth) = (session.take_prefixes(), beside.take_prefixes());
        if worth.len() != prefixes.len() {
            return Err(of_language_model(Error::new("began other rows than it was given")));
        }
        for (own, beside) in prefixes.iter_mut().zip(worth) {
            if own.scores.is_empty() {
                own.scores.clone_from(&own.log_probs);
            }
            if beside.log_probs.len() != own.scores.len() {
                return Err(of_language_model(Error::new("read another prefix than it was given")));
            }
            own.scores.iter_mut().zip(beside.log_probs).for_each(|(own, beside)| *own = self.score(*own, beside));
        }
        Ok(Box::new(FusedSession { model: self, session, beside, said: StepOutput::default(), prefixes }))
    }

    fn vocabulary(&self) -> usize {
        self.model.vocabulary()
    }
}

struct FusedSession {
    model: Arc<Fused>,
    session: Box<dyn StepSession>,
    beside: Box<dyn StepSession>,
    /// What the language model said last.
    said: StepOutput,
    prefixes: Vec<PrefixOutput>,
}

impl StepSession for FusedSession {
    fn rows(&self) -> usize {
        self.session.rows()
    }

    fn take_prefixes(&mut self) -> Vec<PrefixOutput> {
        std::mem::take(&mut self.prefixes)
    }

    fn step(&mut self, last: &[TokenId], want: &Want, out: &mut StepOutput) -> Result<()> {
        self.session.step(last, &wider(want), out)?;
        let (last, asked) = (self.model.beside.named(last), self.asked(want));
        self.beside.step(&last, &asked, &mut self.said).map_err(of_language_model)?;
        self.rescore(want, out)
    }

    fn again(&mut self, rows: &[u32], want: &Want, out: &mut StepOutput) -> Result<()> {
        self.session.again(rows, &wider(want), out)?;
        let asked = self.asked(want);
        self.beside.again(rows, &asked, &mut self.said).map_err(of_language_model)?;
        self.rescore(want, out)
    }

    fn select(&mut self, rows: &[u32]) {
        self.session.select(rows);
        self.beside.select(rows);
    }
}

impl FusedSession {
    /// What the language model is asked. What may not be chosen is the other's to know.
    fn asked(&self, want: &Want) -> Want {
        let selection = match &want.selection {
            Selection::Given(tokens) => Selection::Given(self.model.beside.named(tokens)),
            Selection::Top(_) | Selection::All => Selection::All,
        };
        Want { selection, banned: Vec::new(), masks: Vec::new(), attention: false }
    }

    /// Scores what the model has said by the language model too, and keeps what `want` asks for.
    fn rescore(&self, want: &Want, out: &mut StepOutput) -> Result<()> {
        let (model, per_row) = (&self.model, out.per_row);
        let (tokens, log_probs) = (std::mem::take(&mut out.tokens), std::mem::take(&mut out.log_probs));
        let scores = match std::mem::take(&mut out.scores) {
            own if own.is_empty() => log_probs.clone(),
            own => own,
        };
        let rows = tokens.len() / per_row.max(1);
        let is_given = matches!(want.selection, Selection::Given(_));
        let each = if is_given { per_row } else { model.beside.model.vocabulary() };
        if self.said.log_probs.len() != rows * each || !self.said.scores.is_empty() {
            return Err(of_language_model(Error::new("does not say of every token how probable it is")));
        }
        let kept = kept(want, per_row);
        for b in 0..rows {
            let row = b * per_row..(b + 1) * per_row;
            let (tokens, own, beside) = (&tokens[row.clone()], &scores[row.clone()], &self.said.log_probs[b * each..]);
            let fused = |i: usize| {
                let place = if is_given { i } else { model.beside.ids[tokens[i] as usize] as usize };
                let beside = not_above_zero(beside[place], tokens[i], "log-probability").map_err(of_language_model)?;
                Ok(model.score(own[i], beside))
            };
            let scores: Vec<f32> = (0..per_row).map(fused).collect::<Result<_>>()?;
            push(tokens, &log_probs[row], &scores, kept, out);
        }
        out.per_row = kept.unwrap_or(per_row);
        Ok(())
    }
}

fn of_language_model(error: Error) -> Error {
    error.of("the language model")
}
