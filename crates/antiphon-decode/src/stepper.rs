//! One checked step of a session, for every strategy: who is in flight, what they are fed, what came back.

use std::borrow::Cow;
use std::sync::Arc;

use antiphon_core::{Error, LengthLimits, Mask, Place, PrefixOutput, Request, Result, Selection, Special, StepModel};
use antiphon_core::{StepOutput, StepSession, TokenId, Want};

use crate::candidates::{Candidates, Node};
use crate::length::MaxLength;

/// Log-probabilities may exceed 0 by this much, from rounding in low precision; they are then read as 0.
const ROUNDING: f32 = 1e-3;

/// What no strategy may choose, and what it must bring back.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) min_length: usize,
    pub(crate) forbid_unknown: bool,
    pub(crate) attention: bool,
}

/// Rows in flight over a model's session.
pub(crate) struct Stepper {
    /// Dropped with its memory as soon as no row is left.
    session: Option<Box<dyn StepSession>>,
    /// How many ids a row can have: the vocabulary, and the most slots of a request.
    ids: usize,
    want: Want,
    out: StepOutput,
    /// What each row is fed next.
    last: Vec<TokenId>,
    /// The request of each row.
    origins: Vec<usize>,
    /// Where each row is among the candidates of its request, if that has any.
    nodes: Vec<Node>,
    requests: Vec<Asked>,
    /// Whether some may not say the unknown symbol, beside others that choose among candidates.
    some_forbid_unknown: bool,
    /// The steps of the longest source, if there is any.
    widest: Option<usize>,
    /// Steps taken: the tokens that every row has beside its prefix.
    steps: usize,
    /// Steps before which the end symbol is banned for all rows.
    banned: usize,
    /// Steps before which it is banned for some.
    masked: usize,
}

/// What is remembered of a request.
struct Asked {
    prefix: Vec<TokenId>,
    /// What the prefix is worth.
    worth: PrefixOutput,
    limits: LengthLimits,
    /// The answers that it may have, if not all.
    candidates: Option<Candidates>,
    /// Steps before which it may not end.
    ends_from: usize,
    /// The real steps of its sources, if it has any.
    length: Option<usize>,
}

/// Where an answer begins: behind its prefix.
pub(crate) struct Beginning<'a> {
    /// The prefix, or as much of it as is possible and as the limit leaves.
    pub(crate) tokens: &'a [TokenId],
    /// The sum of its tokens' log-probabilities.
    pub(crate) log_prob: f64,
    /// The sum of its tokens' scores.
    pub(crate) score: f64,
    /// Whether there is something to be chosen behind it.
    pub(crate) open: bool,
}

impl Stepper {
    /// One row a request, each behind its prefix. `Top(k)` is capped by the vocabulary. Without rules, prefixes and limits of the
    /// requests have no effect.
    pub(crate) fn begin(
        model: Arc<dyn StepModel>,
        requests: &[Request],
        selection: Selection,
        rules: Option<&Rules>,
    ) -> Result<Self> {
        let (rows, vocabulary) = (requests.len(), model.vocabulary());
        if vocabulary < Special::COUNT {
            let all = Special::ALL.map(Special::text).join(", ");
            return Err(Error::new(format!(
                "a vocabulary of {vocabulary} lacks special symbols; it must begin with {all}"
            )));
        }
        let selection = match selection {
            Selection::Top(k) => Selection::Top(k.min(vocabulary)),
            other => other,
        };
        let ids_of = |request: &Request| vocabulary + slots(&*model, request);
        let ids = requests.iter().map(ids_of).max().unwrap_or(vocabulary);
        let mut want = Want { selection, banned: Vec::new(), masks: Vec::new(), attention: false };
        if let Some(rules) = rules {
            want.attention = rules.attention;
            want.banned.extend([Special::Pad.id(), Special::Begin.id()]);
        }
        for (row, request) in requests.iter().enumerate().filter(|_| rules.is_some()) {
            let ends = |id| id == Special::End.id() && !request.limits.endless;
            let odd = |&&id: &&TokenId| ends(id) || id as usize >= ids_of(request) || want.banned.contains(&id);
            if let Some(id) = request.prefix.iter().find(odd) {
                let message = format!("the prefix holds token {id}, which no answer may hold before its end");
                return Err(Error::new(message).at(Place::Row { row, step: 0 }));
            }
        }
        let forbids_unknown = rules.is_some_and(|rules| rules.forbid_unknown);
        let some_choose = rules.is_some() && requests.iter().any(|request| !request.candidates.is_empty());
        want.banned.extend((forbids_unknown && !some_choose).then_some(Special::Unknown.id()));
        for (row, request) in requests.iter().enumerate().filter(|_| some_choose) {
            let odd = |&&id: &&TokenId| {
                id == Special::End.id() || id as usize >= ids_of(request) || want.banned.contains(&id)
            };
            if let Some(id) = request.candidates.iter().flatten().find(odd) {
                let message = format!("a candidate holds token {id}, which no answer may hold before its end");
                return Err(Error::new(message).at(Place::Row { row, step: 0 }));
            }
        }
        // Who follows given targets chooses nothing.
        let bare = |request: &Request| Request { prefix: Vec::new(), candidates: Vec::new(), ..request.clone() };
        let requests: Cow<'_, [Request]> = match rules {
            None => requests.iter().map(bare).collect(),
            Some(_) => requests.into(),
        };
        let mut session = if rows == 0 { None } else { Some(Arc::clone(&model).begin(&requests)?) };
        if let Some(session) = session.as_ref().filter(|s| s.rows() != rows) {
            return Err(Error::new(format!("the model began {} rows for {rows} requests", session.rows())));
        }
        let worths = session.as_mut().map(|session| session.take_prefixes()).unwrap_or_default();
        if worths.len() != rows {
            return Err(Error::new(format!(
                "the model gave the worth of {} prefixes for {rows} requests",
                worths.len()
            )));
        }
        let least = rules.map_or(0, |rules| rules.min_length);
        let asked = |((row, request), worth): ((usize, &Request), PrefixOutput)| {
            let own = request.limits.min_length.unwrap_or(least).saturating_sub(request.prefix.len());
            let candidates = Candidates::of(&request.candidates);
            let ends_from = if request.limits.endless || rules.is_none() || candidates.is_some() { 0 } else { own };
            Ok(Asked {
                prefix: request.prefix.clone(),
                worth: checked(worth, &request.prefix, row)?,
                limits: request.limits,
                candidates,
                ends_from,
                length: (!request.sources.is_empty()).then(|| request.length()),
            })
        };
        let requests: Vec<Asked> = requests.iter().enumerate().zip(worths).map(asked).collect::<Result<_>>()?;
        let ends_from = || requests.iter().map(|request| request.ends_from);
        let (banned, masked) = (ends_from().min().unwrap_or(0), ends_from().max().unwrap_or(0));
        want.banned.extend((banned > 0).then_some(Special::End.id()));
        Ok(Self {
            session,
            ids,
            want,
            out: StepOutput::default(),
            last: requests.iter().map(|request| request.prefix.last().map_or(Special::Begin.id(), |&id| id)).collect(),
            origins: (0..rows).collect(),
            nodes: requests.iter().map(|asked| asked.candidates.as_ref()?.begin(&asked.prefix)).collect(),
            some_forbid_unknown: forbids_unknown && some_choose,
            widest: requests.iter().filter_map(|request| request.length).max(),
            requests,
            steps: 0,
            banned,
            masked,
        })
    }

    /// Where the answer to a request begins, of which `max_length` tokens are allowed.
    pub(crate) fn beginning(&self, request: usize, max_length: usize) -> Beginning<'_> {
        let Asked { prefix, worth: PrefixOutput { log_probs, scores }, .. } = &self.requests[request];
        let scores = if scores.is_empty() { log_probs } else { scores };
        let impossible = |(log_prob, score): (&f32, &f32)| log_prob.min(*score) == f32::NEG_INFINITY;
        let possible = log_probs.iter().zip(scores).position(impossible).unwrap_or(prefix.len());
        let kept = possible.min(max_length);
        let sum = |values: &[f32]| values[..kept].iter().map(|&value| f64::from(value)).sum();
        Beginning {
            tokens: &prefix[..kept],
            log_prob: sum(log_probs),
            score: sum(scores),
            open: possible == prefix.len() && prefix.len() < max_length,
        }
    }

    /// Before the first step: goes on with these requests alone.
    pub(crate) fn keep_requests(&mut self, requests: impl Iterator<Item = usize>) {
        let rows: Vec<u32> = requests.map(|request| request as u32).collect();
        let next: Vec<TokenId> = rows.iter().map(|&row| self.last[row as usize]).collect();
        self.keep(&rows, &next);
    }

    /// Whether the end symbol ends the answer to a request.
    pub(crate) fn ends(&self, request: usize) -> bool {
        !self.requests[request].limits.endless
    }

    /// The tokens that an open answer to a request has, its prefix included.
    pub(crate) fn length(&self, request: usize) -> usize {
        self.requests[request].prefix.len() + self.steps
    }

    /// The most tokens of a request's answer, where the search has `limit` for its source.
    pub(crate) fn max_length(&self, request: usize, limit: &MaxLength) -> usize {
        let Asked { limits, length, candidates, .. } = &self.requests[request];
        if let Some(candidates) = candidates {
            return candidates.longest();
        }
        limits.max_length.map_or_else(|| limit.tokens(*length), |most| most.max(1))
    }

    /// Steps taken.
    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// Asks for one given token a row from now on.
    pub(crate) fn give(&mut self, tokens: impl Iterator<Item = TokenId>) {
        if let Selection::Given(given) = &mut self.want.selection {
            given.clear();
            given.extend(tokens);
        }
    }

    /// Feeds every row its last token, and checks what comes back.
    pub(crate) fn step(&mut self) -> Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        if self.banned > 0 && self.steps == self.banned {
            self.want.banned.retain(|&id| id != Special::End.id());
        }
        self.want.masks.clear();
        let some_choose = self.requests.iter().any(|request| request.candidates.is_some());
        if some_choose || (self.banned..self.masked).contains(&self.steps) {
            let mask = |(&request, &node): (&usize, &Node)| {
                let Asked { candidates, ends_from, .. } = &self.requests[request];
                if let Some(candidates) = candidates {
                    return Mask::Allowed(candidates.allowed(node));
                }
                let end = (self.steps < *ends_from).then_some(Special::End.id());
                let banned: Vec<TokenId> =
                    end.into_iter().chain(self.some_forbid_unknown.then_some(Special::Unknown.id())).collect();
                if banned.is_empty() { Mask::Free } else { Mask::Banned(banned) }
            };
            self.want.masks.extend(self.origins.iter().zip(&self.nodes).map(mask));
        }
        session.step(&self.last, &self.want, &mut self.out)?;
        self.check()?;
        self.steps += 1;
        Ok(())
    }

    /// Refuses what no model may give; a search would go astray on it silently.
    fn check(&mut self) -> Result<()> {
        let (rows, out) = (self.last.len(), &mut self.out);
        let expected = match &self.want.selection {
            Selection::Top(k) => *k,
            Selection::Given(_) => 1,
            Selection::All => self.ids,
        };
        let entries = rows * expected;
        if (out.per_row, out.tokens.len(), out.log_probs.len()) != (expected, entries, entries) {
            return Err(Error::new(format!(
                "the model gave {} tokens and {} log-probabilities for {rows} rows of {expected}",
                out.tokens.len(),
                out.log_probs.len()
            )));
        }
        if !out.scores.is_empty() && out.scores.len() != entries {
            return Err(Error::new(format!("the model gave {} scores for {entries} tokens", out.scores.len())));
        }
        if out.attention.len() % rows != 0 {
            return Err(Error::new(format!(
                "the model gave {} attention weights for {rows} rows",
                out.attention.len()
            )));
        }
        // As a rule there is nothing wrong, which is seen in one go.
        let below = |values: &[f32]| values.iter().fold(true, |all, &value| all & (value <= 0.0));
        let known = |tokens: &[TokenId]| tokens.iter().fold(true, |all, &token| all & ((token as usize) < self.ids));
        if below(&out.log_probs) && below(&out.scores) && known(&out.tokens) {
            return Ok(());
        }
        let at = |i: usize| {
            let row = self.origins[i / expected];
            Place::Row { row, step: self.requests[row].prefix.len() + self.steps }
        };
        for (i, (log_prob, &token)) in out.log_probs.iter_mut().zip(&out.tokens).enumerate() {
            if token as usize >= self.ids {
                let ids = self.ids;
                let fault = format!("the model gave token {token}, beyond its vocabulary of {ids}");
                return Err(Error::new(fault).at(at(i)));
            }
            *log_prob = not_above_zero(*log_prob, token, "log-probability").map_err(|error| error.at(at(i)))?;
        }
        for (i, (score, &token)) in out.scores.iter_mut().zip(&out.tokens).enumerate() {
            *score = not_above_zero(*score, token, "score").map_err(|error| error.at(at(i)))?;
        }
        Ok(())
    }

    /// What the last step gave a row.
    pub(crate) fn row(&self, row: usize) -> RowOutput<'_> {
        self.rows().row(row)
    }

    /// What the last step gave, for whoever looks at the rows on several threads.
    pub(crate) fn rows(&self) -> RowOutputs<'_> {
        RowOutputs(&self.out)
    }

    /// The attention weights of a row in the last step, if they were wanted and the model attends.
    pub(crate) fn attention(&self, row: usize) -> Option<Vec<f32>> {
        if !self.want.attention || self.out.attention.is_empty() {
            return None;
        }
        let width = self.out.attention.len() / self.last.len();
        let weights = &self.out.attention[row * width..][..width];
        // A memory as long as the longest source is one of its steps; its padding says nothing.
        let real = self.requests[self.origins[row]].length.filter(|_| self.widest == Some(width));
        Some(weights[..real.unwrap_or(width).min(width)].to_vec())
    }

    /// Goes on with `rows`, in this order, and feeds them `next`.
    pub(crate) fn keep(&mut self, rows: &[u32], next: &[TokenId]) {
        let unchanged = rows.len() == self.last.len() && rows.iter().enumerate().all(|(i, &r)| i == r as usize);
        if rows.is_empty() {
            self.session = None;
        } else if let Some(session) = self.session.as_mut().filter(|_| !unchanged) {
            session.select(rows);
        }
        if self.steps > 0 {
            let follow = |(&row, &token): (&u32, &TokenId)| {
                let asked = &self.requests[self.origins[row as usize]];
                asked.candidates.as_ref()?.follow(self.nodes[row as usize], token)
            };
            self.nodes = rows.iter().zip(next).map(follow).collect();
        } else if !unchanged {
            // What is fed first stands before what is chosen.
            self.nodes = rows.iter().map(|&row| self.nodes[row as usize]).collect();
        }
        if !unchanged {
            self.origins = rows.iter().map(|&r| self.origins[r as usize]).collect();
        }
        self.last.clear();
        self.last.extend_from_slice(next);
    }
}

/// How many words of its sources an answer to a request can hold that the vocabulary lacks.
pub(crate) fn slots(model: &dyn StepModel, request: &Request) -> usize {
    if model.copies() { request.copies.as_ref().map_or(0, |copies| copies.slots.len()) } else { 0 }
}

/// What a step gave all rows.
#[derive(Clone, Copy)]
pub(crate) struct RowOutputs<'a>(&'a StepOutput);

impl<'a> RowOutputs<'a> {
    pub(crate) fn row(self, row: usize) -> RowOutput<'a> {
        let Self(out) = self;
        let from = row * out.per_row;
        let to = from + out.per_row;
        let log_probs = &out.log_probs[from..to];
        let scores = out.scores.get(from..to).unwrap_or(log_probs);
        RowOutput { tokens: &out.tokens[from..to], log_probs, scores }
    }
}

/// What a step gave one row: tokens, best first, with what they are worth.
#[derive(Clone, Copy)]
pub(crate) struct RowOutput<'a> {
    pub(crate) tokens: &'a [TokenId],
    pub(crate) log_probs: &'a [f32],
    /// What answers are ranked by: the log-probabilities, unless the model scores otherwise.
    pub(crate) scores: &'a [f32],
}

impl<'a> RowOutput<'a> {
    /// Tokens that may be chosen, with score and log-probability, in their order.
    pub(crate) fn possible(self) -> impl Iterator<Item = (TokenId, f64, f64)> + use<'a> {
        let worth = self.scores.iter().zip(self.log_probs).map(|(&score, &p)| (f64::from(score), f64::from(p)));
        let all = self.tokens.iter().zip(worth).map(|(&token, (score, log_prob))| (token, score, log_prob));
        all.filter(|&(_, score, log_prob)| score > f64::NEG_INFINITY && log_prob > f64::NEG_INFINITY)
    }
}

/// A log-probability or a score, with what rounding added to 0 taken off.
pub(crate) fn not_above_zero(value: f32, token: TokenId, what: &str) -> Result<f32> {
    if value.is_nan() || value == f32::INFINITY {
        let fault = format!("the model gave token {token} the {what} {value}: its weights or its input are not finite");
        return Err(Error::new(fault));
    }
    if value > ROUNDING {
        return Err(Error::new(format!("the model gave token {token} the {what} {value}: it must not be above 0")));
    }
    Ok(value.min(0.0))
}

/// What a model says that a prefix is worth, unless it is what no model may say.
fn checked(worth: PrefixOutput, prefix: &[TokenId], row: usize) -> Result<PrefixOutput> {
    let PrefixOutput { mut log_probs, mut scores } = worth;
    let (length, given) = (prefix.len(), log_probs.len());
    if given != length || !scores.is_empty() && scores.len() != length {
        let scores = scores.len();
        let fault =
            format!("the model gave {given} log-probabilities and {scores} scores for {length} tokens of a prefix");
        return Err(Error::new(fault).at(Place::Row { row, step: 0 }));
    }
    for (values, what) in [(&mut log_probs, "log-probability"), (&mut scores, "score")] {
        for (step, (value, &token)) in values.iter_mut().zip(prefix).enumerate() {
            *value = not_above_zero(*value, token, what).map_err(|error| error.at(Place::Row { row, step }))?;
        }
    }
    Ok(PrefixOutput { log_probs, scores })
}

/// The same error, with the rows of one batch named as the sources that they are.
pub(crate) fn name_sources(error: Error, sources: &[usize]) -> Error {
    error.map_places(|place| match place {
        Place::Row { row, step } if row < sources.len() => Place::Source { source: sources[row], step },
        other => other,
    })
}

/// An error of [`search_all`](crate::search_all) with its sources, which it counts from 0, under names of the caller's: the
/// lines of a file, say.
#[must_use]
pub fn rename_sources(error: Error, name: impl Fn(usize) -> String) -> Error {
    error.map_places(|place| match place {
        Place::Source { source, step } => Place::text(format!("{}, step {step}", name(source))),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use antiphon_core::Problem;

    use super::*;

    /// What only reads like a row or a source is none.
    #[test]
    fn rows_become_sources_and_sources_what_they_are_called() {
        let places = |change: &dyn Fn(Error) -> Error| {
            let all = [
                Place::Row { row: 1, step: 5 },
                Place::Row { row: 9, step: 5 },
                Place::Source { source: 1, step: 5 },
                Place::text("row 1, step 5"),
                Place::text("source 1, step 5"),
                Place::key("row"),
                Place::line(1),
                Place::Whole,
            ];
            let problem = |place| Problem { place, message: String::new() };
            let error = Error { file: None, problems: all.clone().map(problem).into() };
            let changed = change(error).problems.into_iter().map(|problem| problem.place);
            changed.zip(all).filter(|(now, before)| now != before).collect::<Vec<_>>()
        };
        let named = places(&|error| name_sources(error, &[7, 3]));
        assert_eq!(named, [(Place::Source { source: 3, step: 5 }, Place::Row { row: 1, step: 5 })]);
        let renamed = places(&|error| rename_sources(error, |source| format!("line {}", source + 10)));
        assert_eq!(renamed, [(Place::text("line 11, step 5"), Place::Source { source: 1, step: 5 })]);
    }
}
