//! What can be wrong with a line, and the report of what was left out.

use std::fmt;
use std::path::Path;

use antiphon_core::{Error, Problem};
use serde::{Deserialize, Serialize};

/// How many faults one error lists.
pub(crate) const LISTED: usize = 10;

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    NoTab,
    Tabs(usize),
    EmptySource,
    EmptyTarget,
    EmptyLine,
    /// The first byte, counted from 1, that is not UTF-8.
    NotUtf8(usize),
    TooLong {
        bytes: u64,
        limit: usize,
    },
}

impl Fault {
    /// As it is counted in a report: "3 lines ...".
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Fault::NoTab => "without a tab",
            Fault::Tabs(_) => "with more than one tab",
            Fault::EmptySource => "with an empty source",
            Fault::EmptyTarget => "with an empty target",
            Fault::EmptyLine => "empty",
            Fault::NotUtf8(_) => "not UTF-8",
            Fault::TooLong { .. } => "longer than data.max_line",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoTab => f.write_str("no tab: write `source<TAB>target`"),
            Fault::Tabs(n) => write!(f, "{n} tabs, where one parts source from target: remove the others"),
            Fault::EmptySource => f.write_str("the source is empty: fill it in or remove the line"),
            Fault::EmptyTarget => f.write_str("the target is empty: fill it in or remove the line"),
            Fault::EmptyLine => f.write_str("empty: fill it in or remove it"),
            Fault::NotUtf8(byte) => {
                write!(f, "byte {byte} is not UTF-8: convert the file, for example with `iconv -t UTF-8`")
            }
            Fault::TooLong { bytes, limit } => {
                write!(f, "{bytes} bytes, more than data.max_line = {limit}: split it or raise data.max_line")
            }
        }
    }
}

/// The error that lists the first faults of a file. `faults`: line index from 0, and what is wrong there.
pub(crate) fn fault_error(file: &Path, faults: &[(u64, Fault)], total: usize) -> Error {
    listed(
        file,
        faults.iter().map(|(line, fault)| (*line, format!("{fault}, or set data.on_bad_line = \"skip\""))),
        total,
    )
}

/// An error with at most [`LISTED`] of `total` problems; the last one says how many are not listed.
pub(crate) fn listed(file: &Path, faults: impl Iterator<Item = (u64, String)>, total: usize) -> Error {
    let mut problems: Vec<Problem> =
        faults.take(LISTED).map(|(line, message)| Problem { place: format!("line {}", line + 1), message }).collect();
    if let Some(last) = problems.last_mut().filter(|_| total > LISTED) {
        last.message += &format!(" (and {} more such lines)", total - LISTED);
    }
    Error::many(file, problems)
}

/// What was left out because the config asks for it, by reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Skipped {
    /// In the order in which the reasons were first met.
    pub reasons: Vec<SkippedFor>,
}

/// How often something was left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedFor {
    /// The reason, as in "3 lines without a tab".
    pub reason: String,
    /// How many lines.
    pub count: usize,
    /// The first of them, counted from 1.
    pub first_line: usize,
}

impl Skipped {
    /// Counts one more line; `line` is counted from 1.
    pub(crate) fn add(&mut self, reason: &str, line: usize) {
        match self.reasons.iter_mut().find(|r| r.reason == reason) {
            Some(known) => known.count += 1,
            None => self.reasons.push(SkippedFor { reason: reason.into(), count: 1, first_line: line }),
        }
    }

    /// All lines that were left out.
    pub fn total(&self) -> usize {
        self.reasons.iter().map(|r| r.count).sum()
    }

    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(f, "{total} line{} skipped", if total == 1 { "" } else { "s" })?;
        for (i, SkippedFor { reason, count, first_line }) in self.reasons.iter().enumerate() {
            let lead = if i == 0 { ": " } else { ", " };
            write!(f, "{lead}{count} {reason} (first: line {first_line})")?;
        }
        Ok(())
    }
}
