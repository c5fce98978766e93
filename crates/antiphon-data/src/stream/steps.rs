//! Which places of a running text are read together: a pure function of its length, its documents and a cut.

use std::sync::Arc;

use antiphon_core::random::Key;

/// How a text is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// Into parts that are read side by side, each step going on where the one before stopped.
    Parts {
        /// How many, or as many as there are tokens.
        rows: usize,
        /// How many tokens of each part a step reads.
        length: usize,
        /// Under which key lengths are drawn instead (Merity et al. 2018); `None`: all are `length`.
        jitter: Option<Key>,
    },
    /// Into its documents, which know nothing of each other: `rows` of them are read side by side, `length` tokens of each a step, and a
    /// row that has read one to its end begins the next.
    Documents {
        /// How many side by side, or as many as there are.
        rows: usize,
        /// How many tokens of each a step reads.
        length: usize,
    },
    /// Into windows of `length` tokens that know nothing of each other but the one token before, `rows` of them a step.
    Windows {
        /// Windows a step.
        rows: usize,
        /// Tokens a window.
        length: usize,
    },
}

/// What a row of a batch reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first token.
    pub start: u64,
    /// How many tokens: none where the row's part is over.
    pub length: u32,
    /// Whether, and how, it begins anew.
    pub beginning: Beginning,
}

/// How a stretch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// Not at all: it goes on where the row stopped.
    None,
    /// With a fresh state, behind the begin symbol.
    Document,
    /// With a fresh state, behind the token that stands before it.
    Window,
}

/// What a step reads, a stretch for each row.
pub type Step = Vec<Stretch>;

/// The spread of a drawn length, and the least that it can be.
const JITTER: f64 = 5.0;
/// How often a length is drawn around the whole of what was asked for, not around half of it.
const WHOLE: f64 = 0.95;

/// All steps of a text, in order.
#[derive(Debug, Clone)]
pub struct Steps {
    rows: Vec<Row>,
    tokens: u64,
    documents: Arc<[u64]>,
    /// How many documents have begun, where each row reads one.
    begun: usize,
    cut: Cut,
    /// How many steps there have been.
    number: u64,
}

/// A part of the text.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    start: u64,
    /// How far it is read.
    at: u64,
    end: u64,
}

impl Steps {
    /// Those of `tokens` tokens in `documents`, whose beginnings rise from 0.
    pub(super) fn new(tokens: u64, documents: Arc<[u64]>, cut: &Cut) -> Self {
        let parts = |parts: u64| -> Vec<Row> {
            let border = |row: u64| (u128::from(tokens) * u128::from(row) / u128::from(parts)) as u64;
            (0..parts).map(|row| Row { start: border(row), at: border(row), end: border(row + 1) }).collect()
        };
        let rows = match *cut {
            Cut::Parts { rows, .. } => parts((rows as u64).min(tokens).max(1)),
            // Each is at its end, and takes the first of the documents that are left.
            Cut::Documents { rows, .. } => vec![Row::default(); rows.min(documents.len()).max(1)],
            // The windows of a step follow upon each other in one part.
            Cut::Windows { .. } => parts(1),
        };
        Self { rows, tokens, documents, begun: 0, cut: cut.clone(), number: 0 }
    }

    /// Where the document of a token ends.
    fn document_end(&self, token: u64) -> u64 {
        let next = self.documents.partition_point(|&begin| begin <= token);
        self.documents.get(next).copied().unwrap_or(u64::MAX)
    }

    fn begins_document(&self, token: u64) -> bool {
        self.documents.binary_search(&token).is_ok()
    }

    /// The next step of parts that go on.
    fn side_by_side(&mut self, length: usize, jitter: Option<Key>) -> Option<Step> {
        let left = self.rows.iter().map(|row| row.end - row.at).max().filter(|&left| left > 0)?;
        let length = jitter.map_or(length as u64, |key| drawn(length, key, self.number));
        // A step over a handful of tokens would move the parameters as far as any other.
        let length = if 2 * left < 3 * length { left } else { length };
        let mut step = Vec::with_capacity(self.rows.len());
        for r in 0..self.rows.len() {
            let Row { start, at, end } = self.rows[r];
            let beginning = match at == start || self.begins_document(at) && at < end {
                true => Beginning::Document,
                false => Beginning::None,
            };
            let stop = end.min(self.document_end(at)).min(at + length);
            step.push(Stretch { start: at, length: (stop - at) as u32, beginning });
            self.rows[r].at = stop;
        }
        Some(step)
    }

    /// The next step of documents.
    fn documents(&mut self, length: usize) -> Option<Step> {
        let mut step = Vec::with_capacity(self.rows.len());
        for r in 0..self.rows.len() {
            if self.rows[r].at == self.rows[r].end
                && let Some(&start) = self.documents.get(self.begun)
            {
                self.begun += 1;
                self.rows[r] = Row { start, at: start, end: self.document_end(start).min(self.tokens) };
            }
            let Row { start, at, end } = self.rows[r];
            let beginning = if at == start && at < end { Beginning::Document } else { Beginning::None };
            let stop = end.min(at + length as u64);
            step.push(Stretch { start: at, length: (stop - at) as u32, beginning });
            self.rows[r].at = stop;
        }
        step.iter().any(|stretch| stretch.length > 0).then_some(step)
    }

    /// The next windows.
    fn windows(&mut self, rows: usize, length: usize) -> Option<Step> {
        let mut step = Vec::with_capacity(rows);
        while step.len() < rows && self.rows[0].at < self.rows[0].end {
            let Row { at, end, .. } = self.rows[0];
            let stop = end.min(self.document_end(at)).min(at + length as u64);
            let beginning = if self.begins_document(at) { Beginning::Document } else { Beginning::Window };
            step.push(Stretch { start: at, length: (stop - at) as u32, beginning });
            self.rows[0].at = stop;
        }
        (!step.is_empty()).then_some(step)
    }
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let step = match self.cut {
            Cut::Parts { length, jitter, .. } => self.side_by_side(length, jitter),
            Cut::Documents { length, .. } => self.documents(length),
            Cut::Windows { rows, length } => self.windows(rows, length),
        };
        self.number += 1;
        step
    }
}

/// The length of a step: around `length`, or now and then around half of it.
fn drawn(length: usize, key: Key, step: u64) -> u64 {
    let key = key.numbered(step);
    let around = if key.uniform(0) < WHOLE { length as f64 } else { length as f64 / 2.0 };
    // A normal number takes two words, none of them that of the choice.
    let drawn = around + JITTER * key.normal(1);
    drawn.max(JITTER.min(length as f64)) as u64
}
