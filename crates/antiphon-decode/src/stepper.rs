//! One checked step of a session, for every strategy: who is in flight, what they are fed, what came back.

use antiphon_core::{Error, Problem, Result, Selection, SourceBatch, Special, StepModel, StepOutput, StepSession};
use antiphon_core::{TokenId, Want};

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
pub(crate) struct Stepper<'m> {
    /// Dropped with its memory as soon as no row is left.
    session: Option<Box<dyn StepSession + 'm>>,
    vocabulary: usize,
    want: Want,
    out: StepOutput,
    /// What each row is fed next.
    last: Vec<TokenId>,
    /// The source of each row.
    origins: Vec<usize>,
    sources: SourceLengths,
    /// Steps taken: the tokens that every row has.
    steps: usize,
    /// Steps before which the end symbol is banned.
    min_length: usize,
}

impl<'m> Stepper<'m> {
    /// One row a source, each fed the begin symbol first. `Top(k)` is capped by the vocabulary.
    pub(crate) fn begin(
        model: &'m dyn StepModel,
        sources: &SourceBatch,
        selection: Selection,
        rules: Option<&Rules>,
    ) -> Result<Self> {
        let (rows, vocabulary) = (sources.rows(), model.vocabulary());
        if vocabulary < Special::COUNT {
            let all = Special::ALL.map(Special::text).join(", ");
            return Err(Error::new(format!(
                "a vocabulary of {vocabulary} lacks special symbols; it must begin with {all}"
            )));
        }
        let session = if rows == 0 { None } else { Some(model.begin(sources)?) };
        if let Some(session) = session.as_ref().filter(|s| s.rows() != rows) {
            return Err(Error::new(format!("the model began {} rows for {rows} sources", session.rows())));
        }
        let selection = match selection {
            Selection::Top(k) => Selection::Top(k.min(vocabulary)),
            other => other,
        };
        let mut want = Want { selection, banned: Vec::new(), attention: false };
        if let Some(rules) = rules {
            want.attention = rules.attention;
            want.banned.extend([Special::Pad.id(), Special::Begin.id()]);
            want.banned.extend(rules.forbid_unknown.then_some(Special::Unknown.id()));
            want.banned.extend((rules.min_length > 0).then_some(Special::End.id()));
        }
        Ok(Self {
            session,
            vocabulary,
            want,
            out: StepOutput::default(),
            last: vec![Special::Begin.id(); rows],
            origins: (0..rows).collect(),
            sources: SourceLengths::of(sources)?,
            steps: 0,
            min_length: rules.map_or(0, |r| r.min_length),
        })
    }

    /// The real length of a source, if there is one.
    pub(crate) fn source_length(&self, source: usize) -> Option<usize> {
        self.sources.lengths.as_ref().map(|lengths| lengths[source] as usize)
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
        if self.min_length > 0 && self.steps == self.min_length {
            self.want.banned.retain(|&id| id != Special::End.id());
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
            Selection::All => self.vocabulary,
        };
        let entries = rows * expected;
        if (out.per_row, out.tokens.len(), out.log_probs.len()) != (expected, entries, entries) {
            return Err(Error::new(format!(
                "the model gave {} tokens and {} log-probabilities for {rows} rows of {expected}",
                out.tokens.len(),
                out.log_probs.len()
            )));
        }
        if out.attention.len() % rows != 0 {
            return Err(Error::new(format!(
                "the model gave {} attention weights for {rows} rows",
                out.attention.len()
            )));
        }
        for (i, (log_prob, &token)) in out.log_probs.iter_mut().zip(&out.tokens).enumerate() {
            let fault = if log_prob.is_nan() || *log_prob == f32::INFINITY {
                format!(
                    "the model gave token {token} the log-probability {log_prob}: its weights or its input are not finite"
                )
            } else if *log_prob > ROUNDING {
                format!("the model gave token {token} the log-probability {log_prob}: it must not be above 0")
            } else if token as usize >= self.vocabulary {
                format!("the model gave token {token}, beyond its vocabulary of {}", self.vocabulary)
            } else {
                *log_prob = log_prob.min(0.0);
                continue;
            };
            return Err(Error::new(fault).at(place(self.origins[i / expected], self.steps)));
        }
        Ok(())
    }

    /// What the last step gave a row.
    pub(crate) fn row(&self, row: usize) -> (&[TokenId], &[f32]) {
        let from = row * self.out.per_row;
        let to = from + self.out.per_row;
        (&self.out.tokens[from..to], &self.out.log_probs[from..to])
    }

    /// The attention weights of a row in the last step, if they were wanted and the model attends.
    pub(crate) fn attention(&self, row: usize) -> Option<Vec<f32>> {
        if !self.want.attention || self.out.attention.is_empty() {
            return None;
        }
        let width = self.out.attention.len() / self.last.len();
        let weights = &self.out.attention[row * width..][..width];
        let real = self.source_length(self.origins[row]).filter(|_| width == self.sources.width).unwrap_or(width);
        Some(weights[..real.min(width)].to_vec())
    }

    /// Goes on with `rows`, in this order, and feeds them `next`.
    pub(crate) fn keep(&mut self, rows: &[u32], next: &[TokenId]) {
        let unchanged = rows.len() == self.last.len() && rows.iter().enumerate().all(|(i, &r)| i == r as usize);
        if rows.is_empty() {
            self.session = None;
        } else if let Some(session) = self.session.as_mut().filter(|_| !unchanged) {
            session.select(rows);
        }
        if !unchanged {
            self.origins = rows.iter().map(|&r| self.origins[r as usize]).collect();
        }
        self.last.clear();
        self.last.extend_from_slice(next);
    }
}

/// The real lengths of a batch of sources, and how wide it is padded.
struct SourceLengths {
    lengths: Option<Vec<u32>>,
    width: usize,
}

impl SourceLengths {
    fn of(sources: &SourceBatch) -> Result<Self> {
        match sources {
            SourceBatch::Tokens(tokens) => Ok(Self { lengths: Some(tokens.lengths.clone()), width: tokens.width }),
            SourceBatch::Frames { values, lengths, features } => {
                let width = values.len() / (lengths.len() * features).max(1);
                Ok(Self { lengths: Some(lengths.clone()), width })
            }
            SourceBatch::None { .. } => Ok(Self { lengths: None, width: 0 }),
            _ => Err(Error::new("this kind of source cannot be searched")),
        }
    }
}

/// How an error names a row and a step.
fn place(row: usize, step: usize) -> String {
    format!("row {row}, step {step}")
}

/// The same error, with the rows of one batch named as the sources that they are.
pub(crate) fn name_sources(error: Error, sources: &[usize]) -> Error {
    rename(error, "row", |row| Some(format!("source {}", sources.get(row)?)))
}

/// An error of [`search_all`](crate::search_all) with its sources, which it counts from 0, under names of the caller's: the
/// lines of a file, say.
#[must_use]
pub fn rename_sources(error: Error, name: impl Fn(usize) -> String) -> Error {
    rename(error, "source", |source| Some(name(source)))
}

/// Gives `what N, step S` another name for `what N`.
fn rename(mut error: Error, what: &str, name: impl Fn(usize) -> Option<String>) -> Error {
    let renamed = |p: &Problem| {
        let (number, step) = p.place.strip_prefix(what)?.strip_prefix(' ')?.split_once(", step ")?;
        Some(format!("{}, step {step}", name(number.parse().ok()?)?))
    };
    for problem in &mut error.problems {
        if let Some(place) = renamed(problem) {
            problem.place = place;
        }
    }
    error
}
