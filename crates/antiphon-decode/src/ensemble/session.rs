//! Rows in flight over the sessions of an ensemble's members.
//!
//! The `k` best tokens of a linear mixture are found as Fagin, Lotem and Naor (2003) find the best objects of several lists: each
//! member gives its best few, more than `k`; what others think of these is asked of the others; and a token that no member gave is
//! worth at most what the mixture makes of the last that each one gave. Where the `k`-th best so far is worth more, it is certain.
//! The few rows where it is not are combined from all log-probabilities.

use std::sync::Arc;

use antiphon_core::{Error, Mask, Place, PrefixOutput, Request, Result, Selection, StepOutput, StepSession};
use antiphon_core::{TokenId, Want};
use rayon::prelude::*;

use super::mixture::log_probability;
use super::{Ensemble, Member};
use crate::stepper::{not_above_zero, slots};

// Both numbers are about speed alone: a member's list is sorted, so that its last value bounds all that it leaves out, and a row
// that this does not settle, ties included, is made from everything.

/// Members give their best so many for each of the best that are wanted, and so many more.
const DEPTH: (usize, usize) = (3, 8);

/// Where all that they give together would be more than one token of so many, the whole vocabulary is quicker.
const ONE_OF: usize = 4;

pub(super) struct Session {
    ensemble: Arc<Ensemble>,
    /// One a member, and what it said last.
    members: Vec<(Box<dyn StepSession>, StepOutput)>,
    prefixes: Vec<PrefixOutput>,
    rows: Vec<Row>,
    /// How many ids a row can have: the vocabulary, and the most slots of a request.
    ids: usize,
    /// Steps taken, the one at work among them.
    steps: usize,
}

/// What errors say of a row.
#[derive(Clone, Copy)]
struct Row {
    request: usize,
    /// The tokens of its prefix.
    prefix: usize,
}

/// What the members are asked about.
#[derive(Clone, Copy)]
enum About<'a> {
    /// A step, which feeds each row its last token.
    Next(&'a [TokenId]),
    /// Some rows of the step that was taken.
    Again(&'a [u32]),
}

impl About<'_> {
    fn len(self) -> usize {
        match self {
            About::Next(last) => last.len(),
            About::Again(rows) => rows.len(),
        }
    }

    /// The session's row that is asked about `at`.
    fn row(self, at: usize) -> usize {
        match self {
            About::Next(_) => at,
            About::Again(rows) => rows[at] as usize,
        }
    }
}

impl Session {
    pub(super) fn new(
        ensemble: Arc<Ensemble>,
        members: Vec<Box<dyn StepSession>>,
        prefixes: Vec<PrefixOutput>,
        requests: &[Request],
    ) -> Self {
        let row = |(request, asked): (usize, &Request)| Row { request, prefix: asked.prefix.len() };
        let slots = requests.iter().map(|request| slots(&*ensemble, request)).max().unwrap_or(0);
        let ids = ensemble.vocabulary + slots;
        Self {
            ensemble,
            members: members.into_iter().map(|session| (session, StepOutput::default())).collect(),
            prefixes,
            rows: requests.iter().enumerate().map(row).collect(),
            ids,
            steps: 0,
        }
    }

    /// Asks all members; what they say is checked.
    fn ask(&mut self, about: About<'_>, want: &Want) -> Result<()> {
        let (rows, steps) = (&self.rows, self.steps);
        let place = |at: usize| {
            let Row { request, prefix } = rows[about.row(at)];
            Place::Row { row: request, step: prefix + steps - 1 }
        };
        for ((session, out), member) in self.members.iter_mut().zip(&self.ensemble.members) {
            let said = match about {
                About::Next(last) => session.step(last, want, out),
                About::Again(rows) => session.again(rows, want, out),
            };
            said.map_err(|error| error.of(&member.name))?;
            check(member, out, about.len(), (self.ensemble.vocabulary, self.ids), &want.selection, place)?;
        }
        Ok(())
    }

    /// Everything that `want` asks for, the attention of a step among it.
    fn tell(&mut self, about: About<'_>, want: &Want, out: &mut StepOutput) -> Result<()> {
        let (vocabulary, ids) = (self.ensemble.vocabulary, self.ids);
        let given = if let Selection::Given(tokens) = &want.selection { tokens.as_slice() } else { &[] };
        let mut named = [given, &want.banned].into_iter().chain(want.masks.iter().map(Mask::ids)).flatten();
        if let Some(odd) = named.find(|&&id| id as usize >= ids) {
            return Err(Error::new(format!("token {odd} is outside the vocabulary of {ids}")));
        }
        assert!(want.masks.is_empty() || want.masks.len() == about.len(), "a mask for each row, or none");
        out.tokens.clear();
        out.log_probs.clear();
        out.scores.clear();
        out.attention.clear();
        let token_by_token = self.ensemble.mixture.is_token_by_token();
        match &want.selection {
            Selection::Top(k) => {
                let k = *k.min(&vocabulary);
                out.per_row = k;
                let depth = DEPTH.0 * k + DEPTH.1;
                let is_few = depth * self.members.len() <= vocabulary / ONE_OF;
                if token_by_token && is_few && k > 0 {
                    return self.best(about, want, k, depth, out);
                }
                let all = self.all(about, want, out)?;
                best_of_all(&all, ids, k).into_iter().for_each(|row| push(row, out));
            }
            Selection::Given(tokens) => {
                let rows = about.len();
                let each = tokens.len() / rows;
                out.per_row = each;
                out.tokens.extend_from_slice(tokens);
                if token_by_token {
                    self.ask(about, want)?;
                    self.attend(out);
                    let entries = 0..tokens.len();
                    out.log_probs.extend(entries.map(|at| log_probability(self.mixed(|_, out| out.log_probs[at]))));
                } else {
                    let all = self.all(about, want, out)?;
                    let given = tokens.iter().enumerate();
                    out.log_probs.extend(given.map(|(i, &id)| all[i / each * ids + id as usize]));
                }
            }
            Selection::All => {
                out.per_row = ids;
                out.log_probs = self.all(about, want, out)?;
                (0..about.len()).for_each(|_| out.tokens.extend(0..ids as TokenId));
            }
        }
        Ok(())
    }

    /// The log-probabilities of all tokens and slots, `[rows, V + N]`, from all of each member; what is masked reads minus infinity.
    fn all(&mut self, about: About<'_>, want: &Want, out: &mut StepOutput) -> Result<Vec<f32>> {
        let ids = self.ids;
        // Nothing is masked before it has counted in the sum.
        let plain =
            Want { selection: Selection::All, banned: Vec::new(), masks: Vec::new(), attention: want.attention };
        self.ask(about, &plain)?;
        self.attend(out);
        let members: Vec<&[f32]> = self.members.iter().map(|(_, out)| out.log_probs.as_slice()).collect();
        let mut all = self.ensemble.mixture.of_rows(&members, ids);
        for (b, row) in all.chunks_exact_mut(ids).enumerate() {
            want.banned.iter().for_each(|&id| row[id as usize] = f32::NEG_INFINITY);
            want.masks.get(b).unwrap_or(&Mask::Free).apply(row);
        }
        Ok(all)
    }

    /// The `k` best tokens of each row from the best `depth` of each member.
    fn best(&mut self, about: About<'_>, want: &Want, k: usize, depth: usize, out: &mut StepOutput) -> Result<()> {
        let rows = about.len();
        self.ask(about, &Want { selection: Selection::Top(depth), ..want.clone() })?;
        self.attend(out);
        let lists: Vec<Vec<(TokenId, f32)>> = self.members.iter().map(|(_, out)| listed(out)).collect();
        // The tokens of each row that any member has given, ids ascending.
        let given: Vec<Vec<TokenId>> = (0..rows)
            .map(|b| {
                let rows = lists.iter().map(|list| &list[b * depth..][..depth]);
                let mut ids: Vec<TokenId> = rows.flatten().map(|&(id, _)| id).collect();
                ids.sort_unstable();
                ids.dedup();
                ids
            })
            .collect();
        // As many of each row: the first token again where a row has fewer.
        let width = given.iter().map(Vec::len).max().unwrap_or(0);
        let padded = |ids: &Vec<TokenId>| {
            let missing = width - ids.len();
            ids.iter().copied().chain(std::iter::repeat_n(ids[0], missing)).collect::<Vec<_>>()
        };
        let tokens: Vec<TokenId> = given.iter().flat_map(padded).collect();
        let every: Vec<u32> = (0..rows).map(|b| about.row(b) as u32).collect();
        let more = Want { selection: Selection::Given(tokens), attention: false, ..want.clone() };
        self.ask(About::Again(&every), &more)?;

        let mut open = Vec::new();
        for (b, ids) in given.iter().enumerate() {
            let worth = |at: usize| log_probability(self.mixed(|_, out| out.log_probs[b * width + at]));
            push(best_of((0..ids.len()).map(worth).zip(ids.iter().copied()).collect(), k), out);
            let last = self.mixed(|member, _| lists[member][(b + 1) * depth - 1].1);
            let kth = out.log_probs[out.log_probs.len() - 1];
            if kth <= log_probability(last) {
                open.push(b);
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let rows: Vec<u32> = open.iter().map(|&b| every[b]).collect();
        let masks =
            if want.masks.is_empty() { Vec::new() } else { open.iter().map(|&b| want.masks[b].clone()).collect() };
        let want = Want { masks, attention: false, ..want.clone() };
        let all = self.all(About::Again(&rows), &want, &mut StepOutput::default())?;
        for (b, row) in open.into_iter().zip(best_of_all(&all, self.ids, k)) {
            for (at, (log_prob, id)) in (b * k..).zip(row) {
                (out.log_probs[at], out.tokens[at]) = (log_prob, id);
            }
        }
        Ok(())
    }

    /// What the mixture makes of one number of each member.
    fn mixed(&self, number: impl Fn(usize, &StepOutput) -> f32 + Clone) -> f64 {
        let numbers = self.members.iter().enumerate().map(move |(member, (_, out))| number(member, out));
        self.ensemble.mixture.of_token(numbers)
    }

    /// Where the members looked, as their weighted mean: if all of those that attend have memories of one length, made of the first
    /// reading of the sources, which is what is shown. Nothing can be said otherwise.
    fn attend(&self, out: &mut StepOutput) {
        let members = self.members.iter().zip(&self.ensemble.members).zip(self.ensemble.mixture.weights());
        let looking = members.filter(|(((_, said), _), _)| !said.attention.is_empty());
        let looking: Vec<(&[f32], usize, f64)> =
            looking.map(|(((_, said), member), &weight)| (said.attention.as_slice(), member.reading, weight)).collect();
        let Some(&(first, ..)) = looking.first() else { return };
        if looking.iter().any(|(weights, reading, _)| weights.len() != first.len() || *reading != 0) {
            return;
        }
        let total: f64 = looking.iter().map(|(.., weight)| weight).sum();
        let sum = |at: usize| looking.iter().map(|(weights, _, weight)| weight * f64::from(weights[at])).sum::<f64>();
        out.attention.extend((0..first.len()).map(|at| (sum(at) / total) as f32));
    }
}

impl StepSession for Session {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn take_prefixes(&mut self) -> Vec<PrefixOutput> {
        std::mem::take(&mut self.prefixes)
    }

    fn step(&mut self, last: &[TokenId], want: &Want, out: &mut StepOutput) -> Result<()> {
        self.steps += 1;
        self.tell(About::Next(last), want, out)
    }

    fn again(&mut self, rows: &[u32], want: &Want, out: &mut StepOutput) -> Result<()> {
        self.tell(About::Again(rows), want, out)
    }

    fn select(&mut self, rows: &[u32]) {
        self.members.iter_mut().for_each(|(session, _)| session.select(rows));
        self.rows = rows.iter().map(|&row| self.rows[row as usize]).collect();
    }
}

/// The tokens that a member gave, with their log-probabilities.
fn listed(out: &StepOutput) -> Vec<(TokenId, f32)> {
    out.tokens.iter().copied().zip(out.log_probs.iter().copied()).collect()
}

/// The `k` best of some tokens, best first; of equals the smaller id first.
fn best_of(mut row: Vec<(f32, TokenId)>, k: usize) -> Vec<(f32, TokenId)> {
    let better = |a: &(f32, TokenId), b: &(f32, TokenId)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if 0 < k && k < row.len() {
        row.select_nth_unstable_by(k - 1, better);
    }
    row.truncate(k);
    row.sort_unstable_by(better);
    row
}

/// The same of each row of all log-probabilities.
fn best_of_all(all: &[f32], vocabulary: usize, k: usize) -> Vec<Vec<(f32, TokenId)>> {
    all.par_chunks_exact(vocabulary).map(|row| best_of(row.iter().copied().zip(0..).collect(), k)).collect()
}

fn push(row: Vec<(f32, TokenId)>, out: &mut StepOutput) {
    out.tokens.extend(row.iter().map(|&(_, id)| id));
    out.log_probs.extend(row.iter().map(|&(log_prob, _)| log_prob));
}

/// Refuses what no member may say, and takes off what rounding added.
fn check(
    member: &Member,
    out: &mut StepOutput,
    rows: usize,
    (vocabulary, ids): (usize, usize),
    selection: &Selection,
    place: impl Fn(usize) -> Place,
) -> Result<()> {
    let each = match selection {
        Selection::Top(k) => *k.min(&vocabulary),
        Selection::Given(tokens) => tokens.len() / rows,
        Selection::All => ids,
    };
    let entries = rows * each;
    if (out.per_row, out.tokens.len(), out.log_probs.len()) != (each, entries, entries) {
        let (tokens, log_probs) = (out.tokens.len(), out.log_probs.len());
        let message = format!("gave {tokens} tokens and {log_probs} log-probabilities for {rows} rows of {each}");
        return Err(Error::new(message).of(&member.name));
    }
    if !out.scores.is_empty() {
        return Err(member.scores());
    }
    for (i, (value, &token)) in out.log_probs.iter_mut().zip(&out.tokens).enumerate() {
        if value.is_nan() || *value > 0.0 {
            let checked = not_above_zero(*value, token, "log-probability");
            *value = checked.map_err(|error| error.of(&member.name).at(place(i / each)))?;
        }
        if token as usize >= ids {
            let message = format!("gave token {token}, beyond its vocabulary of {ids}");
            return Err(Error::new(message).of(&member.name).at(place(i / each)));
        }
    }
    Ok(())
}
