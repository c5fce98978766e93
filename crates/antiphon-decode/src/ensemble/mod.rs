//! Several models that answer together: a model made of models.
//!
//! Strategies search an [`Ensemble`] as they search any model. Its probabilities are those of a [`Mixture`], token by token. Of a
//! linear mixture the best few follow from the best few of its members, so that a large vocabulary stays screened
//! (`session.rs`); everything else is combined from all log-probabilities.

mod mixture;
mod session;

use std::sync::Arc;

use antiphon_core::{Error, Place, PrefixOutput, Request, Result, Source, StepModel, StepSession};

use crate::forced::score;
use crate::stepper::not_above_zero;
use mixture::log_probability;
use session::Session;

pub use mixture::{Combination, Mixture};

/// A model of an ensemble.
pub struct Member {
    /// What errors call it.
    pub name: String,
    /// The model.
    pub model: Arc<dyn StepModel>,
    /// Which reading of a request's sources it takes: 0 is [`Request::sources`], and `n` the `n`th of [`Request::readings`], counted
    /// from 1.
    pub reading: usize,
}

/// Models with one target vocabulary that answer together.
pub struct Ensemble {
    members: Vec<Member>,
    mixture: Mixture,
    vocabulary: usize,
}

impl Ensemble {
    /// The members with the weights of a mixture, in its order. Their number and order change no more than the last bits of what
    /// their probabilities become.
    ///
    /// # Errors
    /// If vocabularies differ in size, or some copy words of their sources and others do not, or copy those of another reading. That equal ids are equal tokens is the caller's to know.
    ///
    /// # Panics
    /// If there are not as many members as weights.
    pub fn new(members: Vec<Member>, mixture: Mixture) -> Result<Self> {
        assert_eq!(members.len(), mixture.weights().len(), "a weight for each member");
        let vocabulary = members[0].model.vocabulary();
        if let Some(odd) = members.iter().find(|member| member.model.vocabulary() != vocabulary) {
            let (first, own) = (&members[0].name, odd.model.vocabulary());
            let message = format!(
                "`{first}` has {vocabulary} target tokens and `{}` has {own}; models answer together that have one vocabulary",
                odd.name
            );
            return Err(Error::new(message));
        }
        let copies = members[0].model.copies();
        if let Some(odd) = members.iter().find(|member| member.model.copies() != copies) {
            let (one, other) = if copies { (&members[0], odd) } else { (odd, &members[0]) };
            let message = format!(
                "`{}` copies words of its sources and `{}` does not; models answer together of which all copy, or none",
                one.name, other.name
            );
            return Err(Error::new(message));
        }
        if let Some(odd) = members.iter().find(|member| copies && member.reading != 0) {
            let message = format!(
                "`{}` and `{}` read sources by tokenizers that differ; models that copy answer together where these are equal",
                members[0].name, odd.name
            );
            return Err(Error::new(message));
        }
        Ok(Self { members, mixture, vocabulary })
    }

    /// What prefixes are worth: token by token from what they are worth to the members, where that is enough.
    fn worth(self: &Arc<Self>, requests: &[Request], members: Vec<Vec<PrefixOutput>>) -> Result<Vec<PrefixOutput>> {
        if !self.mixture.is_token_by_token() && requests.iter().any(|request| !request.prefix.is_empty()) {
            return self.followed(requests);
        }
        let combined = |(row, request): (usize, &Request)| {
            let log_prob = |step: usize| {
                let of = |member: &Vec<PrefixOutput>| member[row].log_probs[step];
                log_probability(self.mixture.of_token(members.iter().map(of)))
            };
            PrefixOutput { log_probs: (0..request.prefix.len()).map(log_prob).collect(), scores: Vec::new() }
        };
        Ok(requests.iter().enumerate().map(combined).collect())
    }

    /// What prefixes are worth, a step at a time: equal ones once.
    fn followed(self: &Arc<Self>, requests: &[Request]) -> Result<Vec<PrefixOutput>> {
        let mut distinct: Vec<usize> = Vec::new();
        let is_like = |a: &Request, b: &Request| {
            a.prefix == b.prefix && a.sources == b.sources && a.readings == b.readings && a.copies == b.copies
        };
        let places: Vec<usize> = (0..requests.len())
            .map(|row| {
                let known = distinct.iter().position(|&other| is_like(&requests[row], &requests[other]));
                known.unwrap_or_else(|| {
                    distinct.push(row);
                    distinct.len() - 1
                })
            })
            .collect();
        let asked: Vec<Request> = distinct.iter().map(|&row| requests[row].clone()).collect();
        let prefixes: Vec<&[_]> = asked.iter().map(|request| request.prefix.as_slice()).collect();
        let model: Arc<Self> = Arc::clone(self);
        let worth = score(model, &asked, &prefixes).map_err(|error| {
            error.map_places(|place| match place {
                Place::Row { row, step } => Place::Row { row: distinct[row], step },
                other => other,
            })
        })?;
        Ok(places.iter().map(|&at| PrefixOutput { log_probs: worth[at].clone(), scores: Vec::new() }).collect())
    }
}

impl Member {
    /// A request as this member reads it.
    fn request(&self, request: &Request) -> Result<Request> {
        let sources: Option<&Vec<Source>> = match self.reading {
            0 => Some(&request.sources),
            n => request.readings.get(n - 1),
        };
        let lacking = || {
            let (number, given) = (self.reading, request.readings.len());
            Error::new(format!("takes reading {number} of the sources beside the first, of {given}")).of(&self.name)
        };
        let sources = sources.cloned().ok_or_else(lacking)?;
        Ok(Request { sources, readings: Vec::new(), ..request.clone() })
    }

    /// Begins its session, and hears what the prefixes are worth to it.
    fn begin(&self, requests: &[Request]) -> Result<(Box<dyn StepSession>, Vec<PrefixOutput>)> {
        let own: Vec<Request> = requests.iter().map(|request| self.request(request)).collect::<Result<_>>()?;
        let mut session = Arc::clone(&self.model).begin(&own).map_err(|error| error.of(&self.name))?;
        let mut worth = session.take_prefixes();
        let fits = |(worth, request): (&PrefixOutput, &Request)| worth.log_probs.len() == request.prefix.len();
        if session.rows() != own.len() || worth.len() != own.len() || !worth.iter().zip(&own).all(fits) {
            return Err(Error::new("began other rows, or read other prefixes, than it was given").of(&self.name));
        }
        for (row, (worth, request)) in worth.iter_mut().zip(&own).enumerate() {
            if !worth.scores.is_empty() {
                return Err(self.scores());
            }
            for (step, (value, &token)) in worth.log_probs.iter_mut().zip(&request.prefix).enumerate() {
                let checked = not_above_zero(*value, token, "log-probability");
                *value = checked.map_err(|error| error.of(&self.name).at(Place::Row { row, step }))?;
            }
        }
        Ok((session, worth))
    }

    fn scores(&self) -> Error {
        Error::new("ranks its answers by scores that are no probabilities, which cannot be combined").of(&self.name)
    }
}

impl StepModel for Ensemble {
    fn begin(self: Arc<Self>, requests: &[Request]) -> Result<Box<dyn StepSession>> {
        let begun: Vec<_> = self.members.iter().map(|member| member.begin(requests)).collect::<Result<_>>()?;
        let (sessions, worths): (Vec<_>, Vec<_>) = begun.into_iter().unzip();
        let prefixes = self.worth(requests, worths)?;
        Ok(Box::new(Session::new(self, sessions, prefixes, requests)))
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn copies(&self) -> bool {
        self.members[0].model.copies()
    }

    fn batch_factor(&self) -> usize {
        self.members.iter().map(|member| member.model.batch_factor()).min().unwrap_or(1)
    }
}
