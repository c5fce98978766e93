//! What can be wrong with a line, and the report of what was left out.

use std::fmt;
use std::path::Path;

use antiphon_core::{Error, Place, Problem};
use serde::{Deserialize, Serialize};

use super::LineFile;

/// How many faults one error lists.
pub(crate) const LISTED: usize = 10;

/// What is wrong with a line, wherever it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A pair without a tab.
    NoTab,
    /// A pair with so many tabs.
    Tabs(usize),
    /// A source alone, with so many tabs, of a corpus in which a tab ends it.
    TabsInSource(usize),
    /// A target alone, with so many tabs, of a corpus in which a tab comes before it.
    TabsInTarget(usize),
    /// No source, or white space alone.
    EmptySource,
    /// No target, or white space alone.
    EmptyTarget,
    /// No text, or white space alone, in a file whose lines belong to those of another; it is one of the `source` or the
    /// `target`.
    EmptyBeside(&'static str),
    /// No text, or white space alone.
    EmptyLine,
    /// The first byte, counted from 1, that is not UTF-8.
    NotUtf8(usize),
    /// The first byte, counted from 1, that is 0, as no text has it.
    Zero(usize),
    /// What the whole file is instead of text in UTF-8.
    Foreign(&'static str),
    /// More bytes than `data.max_line`.
    TooLong {
        /// How many it has.
        bytes: u64,
        /// How many it may have.
        limit: usize,
    },
    /// A quote of CSV that nothing within so many bytes closes.
    OpenQuote {
        /// How many a record may have.
        limit: usize,
    },
    /// A quote of CSV behind which the next one is within a text, in a later line.
    UnclosedQuote {
        /// The number of that line.
        next: u64,
    },
    /// A quote in the cell of that number, counted from 1, that neither opens nor closes it.
    StrayQuote(usize),
    /// A quote that would open the cell of that number, if no space came before it.
    SpacedQuote(usize),
    /// Text in the cell of that number behind the quote that closes it.
    BehindQuote(usize),
    /// A row of so many cells.
    Cells {
        /// How many it has.
        found: usize,
        /// What the columns are called.
        columns: Vec<String>,
        /// What those are called that rows may have alone, if there are such rows.
        alone: Option<Vec<String>>,
        /// Whether commas part them.
        is_csv: bool,
        /// What to set, if the line is written in another format.
        other: Option<&'static str>,
    },
    /// An empty cell of a column that must be filled in.
    EmptyCell(String),
    /// A row whose target is none of the answers that it may have.
    NotAmong {
        /// The target.
        target: String,
        /// The column of the answers.
        column: String,
    },
    /// A row of JSON without a column.
    NoColumn {
        /// What it is called.
        column: String,
        /// The setting that names it.
        key: String,
        /// What those that are there are called.
        there: Vec<String>,
        /// What helps.
        remedy: String,
    },
    /// A row of JSON with a column twice.
    Twice(String),
    /// A text of JSON with a byte that is 0.
    ZeroIn(String),
    /// A value of JSON that is an object, or a list that holds more than texts.
    NoText {
        /// The column.
        column: String,
        /// What it is instead.
        what: &'static str,
        /// What helps.
        remedy: String,
    },
    /// A row of cells that is an object of JSON instead.
    IsJson,
    /// A line that is no object of JSON.
    Json {
        /// Why not.
        what: String,
        /// Where, counted from 1.
        column: usize,
    },
    /// A time that is no number of seconds.
    NoTime {
        /// The column.
        column: String,
        /// What stands there.
        text: String,
    },
    /// A recording that cannot be used, and why.
    Recording(String),
    /// A recording of more or fewer frames than there may be.
    Frames {
        /// How many it has.
        frames: usize,
        /// `min_frames` or `max_frames`.
        key: &'static str,
        /// How many that allows.
        limit: usize,
    },
    /// A source or target of more tokens than a setting allows.
    TooManyTokens {
        /// What it is called: source, target, or the name of a stream in quotes.
        what: String,
        /// The setting.
        key: String,
        /// How many it has, its end symbol not counted.
        tokens: usize,
        /// How many it may have.
        limit: usize,
    },
}

impl Fault {
    /// As it is counted in a report: "3 lines ...".
    pub(crate) fn label(&self) -> String {
        match self {
            Fault::NoTab => "without a tab".into(),
            Fault::Tabs(_) => "with more than one tab".into(),
            Fault::TabsInSource(_) => "with a tab in the source".into(),
            Fault::TabsInTarget(_) => "with a tab in the target".into(),
            Fault::EmptySource => "with an empty source".into(),
            Fault::EmptyTarget => "with an empty target".into(),
            Fault::EmptyBeside(side) => format!("with an empty {side}"),
            Fault::EmptyLine => "empty".into(),
            Fault::NotUtf8(_) | Fault::Zero(_) | Fault::Foreign(_) => "not UTF-8".into(),
            Fault::TooLong { .. } => "longer than data.max_line".into(),
            Fault::OpenQuote { .. } | Fault::UnclosedQuote { .. } => "with a quote that nothing closes".into(),
            Fault::StrayQuote(_) | Fault::SpacedQuote(_) | Fault::BehindQuote(_) => "with a quote inside a cell".into(),
            Fault::Cells { .. } => "with another number of cells than there are columns".into(),
            Fault::EmptyCell(column) => format!("with an empty `{column}`"),
            Fault::NotAmong { column, .. } => format!("whose target is not among its `{column}`"),
            Fault::NoColumn { column, .. } => format!("without `{column}`"),
            Fault::Twice(column) => format!("with `{column}` twice"),
            Fault::ZeroIn(column) => format!("with a zero byte in `{column}`"),
            Fault::NoText { column, .. } => format!("whose `{column}` is neither text, number nor list of these"),
            Fault::IsJson => "of JSON".into(),
            Fault::Json { .. } => "not a JSON object".into(),
            Fault::TooManyTokens { what, key, limit, .. } => format!("with a {what} over {key} = {limit}"),
            Fault::NoTime { column, .. } => format!("whose `{column}` is no time"),
            Fault::Recording(_) => "with a recording that cannot be used".into(),
            Fault::Frames { key: "min_frames", limit, .. } => {
                format!("with a recording below data.min_frames = {limit}")
            }
            Fault::Frames { key, limit, .. } => format!("with a recording over data.{key} = {limit}"),
        }
    }

    /// What is wrong with a line of which the byte at `byte`, counted from 1, is not UTF-8. What a file is stands in its first.
    pub(crate) fn of_bytes(bytes: &[u8], byte: usize, is_first: bool) -> Self {
        const FOREIGN: [(&[u8], &str); 5] = [
            (b"\xFF\xFE", "UTF-16"),
            (b"\xFE\xFF", "UTF-16"),
            (b"\x28\xB5\x2F\xFD", "zstd"),
            (b"\xFD7zXZ\0", "xz"),
            (b"BZh", "bzip2"),
        ];
        let known = FOREIGN.iter().find(|(magic, _)| is_first && bytes.starts_with(magic));
        known.map_or(Fault::NotUtf8(byte), |(_, name)| Fault::Foreign(name))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoTab => f.write_str("no tab: write `source<TAB>target`"),
            Fault::TabsInSource(n) => {
                write!(f, "{}, and a source has none: give sources alone, as `cut -f 1` leaves them", tabs(*n))
            }
            Fault::TabsInTarget(n) => {
                write!(f, "{}, and a target has none: give targets alone, as `cut -f 2` leaves them", tabs(*n))
            }
            Fault::Tabs(n) => write!(f, "{n} tabs, where one parts source from target: remove the others"),
            Fault::EmptySource => f.write_str("the source is empty: fill it in or remove the line"),
            Fault::EmptyTarget => f.write_str("the target is empty: fill it in or remove the line"),
            Fault::EmptyBeside(side) => {
                write!(f, "the {side} is empty: fill it in, or remove this line from all files that belong together")
            }
            Fault::EmptyLine => f.write_str("blank line: remove it"),
            Fault::NotUtf8(byte) => {
                write!(
                    f,
                    "byte {byte} is not UTF-8: convert the file, as `iconv -f WINDOWS-1252 -t UTF-8` does from that encoding"
                )
            }
            Fault::Zero(byte) => {
                write!(
                    f,
                    "byte {byte} is 0, as in UTF-16 and in no text: convert the file with `iconv -f UTF-16 -t UTF-8`"
                )
            }
            Fault::Foreign(coding) if coding.starts_with("UTF") => {
                write!(f, "{coding}, not UTF-8: convert the file with `iconv -f {coding} -t UTF-8`")
            }
            Fault::Foreign(packer) => write!(f, "packed by {packer}: unpack the file (gzip alone is read as it is)"),
            Fault::TooLong { bytes, limit } => {
                write!(f, "{bytes} bytes, more than data.max_line = {limit}: split it or raise data.max_line")
            }
            Fault::OpenQuote { limit } => write!(
                f,
                "a quote opens a cell, and nothing within data.max_line = {limit} bytes closes it: close it, or write a quote that is \
                 part of the text twice, in a quoted cell"
            ),
            Fault::UnclosedQuote { next } => write!(
                f,
                "a quote opens a cell, and nothing closes it before the next quote, which stands within a text in line {next}: close it, or \
                 write a quote that is part of the text twice, in a quoted cell"
            ),
            Fault::StrayQuote(cell) => write!(
                f,
                "cell {cell}: a quote inside a cell that is not in quotes as a whole: put it in quotes, and write each quote in it \
                 twice"
            ),
            Fault::SpacedQuote(cell) => {
                write!(f, "cell {cell}: a space before the quote that opens it: remove the space")
            }
            Fault::BehindQuote(cell) => write!(
                f,
                "cell {cell}: text behind the quote that closes it: write a comma between them, or a quote that is part of the text twice"
            ),
            Fault::Cells { found, columns, alone, is_csv, other } => {
                let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
                let (cells, are) = (many(*found, "cell"), if columns.len() == 1 { "is" } else { "are" });
                write!(f, "{cells}, but there {are} {} ({}): ", many(columns.len(), "column"), quoted(columns))?;
                if let Some(other) = other {
                    return f.write_str(other);
                }
                match (*found < columns.len(), alone) {
                    (true, None) => f.write_str("add the missing cells"),
                    (true, Some(alone)) => write!(f, "add the missing cells, or give {} alone", quoted(alone)),
                    (false, _) if *is_csv => {
                        f.write_str("remove the extra cells, or put a cell that holds a comma in quotes")
                    }
                    (false, _) => f.write_str("remove the extra cells"),
                }
            }
            Fault::EmptyCell(column) => write!(f, "`{column}` is empty: fill it in or remove the row"),
            Fault::NotAmong { target, column } => {
                write!(f, "the target `{target}` is not among its `{column}`: add it there, or remove the row")
            }
            Fault::NoColumn { column, there, .. } if there.is_empty() => {
                write!(f, "no `{column}`: the object is empty; fill it in or remove the line")
            }
            Fault::NoColumn { column, key, there, remedy } => {
                write!(f, "no `{column}`, which {key} names; there are {}: {remedy}", quoted(there))
            }
            Fault::Twice(column) => write!(f, "`{column}` is there twice: remove one"),
            Fault::ZeroIn(column) => write!(f, "`{column}` holds a zero byte, as no text has it: remove it"),
            Fault::NoText { column, what, remedy } => {
                write!(f, "`{column}` is {what}: write a text in quotes, a number, or a list of these{remedy}")
            }
            Fault::IsJson => f.write_str("an object of JSON, where cells are read: set data.format = \"json_lines\""),
            Fault::Json { what, column } => {
                write!(
                    f,
                    "not a JSON object ({what}, column {column}): write one object per line, or set data.format if these are not JSON lines"
                )
            }
            Fault::NoTime { column, text } => {
                write!(f, "`{column}` is `{text}`: write seconds from the beginning of the recording, as in `2.75`")
            }
            Fault::Recording(why) => f.write_str(why),
            Fault::Frames { frames, key: "min_frames", limit } => {
                write!(
                    f,
                    "the recording has {frames} frames, fewer than data.min_frames = {limit}: remove it or lower data.min_frames"
                )
            }
            Fault::Frames { frames, key, limit } => {
                write!(
                    f,
                    "the recording has {frames} frames, more than data.{key} = {limit}: cut it or raise data.{key}"
                )
            }
            Fault::TooManyTokens { what, key, tokens, limit } => {
                let the = if what.starts_with('`') { "" } else { "the " };
                write!(f, "{the}{what} has {tokens} tokens, more than {key} = {limit}: shorten it or raise {key}")
            }
        }
    }
}

/// Names, for people.
pub(crate) fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn tabs(n: usize) -> String {
    if n == 1 { "a tab".into() } else { format!("{n} tabs") }
}

/// What to say of a file whose first line [looks like a header](looks_like_header).
pub const HEADER: &str = "line 1: looks like a header, but is read like any other line: remove it if it is one";

/// Whether the first line of a file, cut at its tabs, names columns instead of being an example.
pub fn looks_like_header(line: &str) -> bool {
    const COLUMNS: [&str; 34] = [
        "answer",
        "de",
        "deu",
        "en",
        "eng",
        "english",
        "form",
        "fr",
        "fra",
        "french",
        "german",
        "grapheme",
        "graphemes",
        "hypothesis",
        "input",
        "ipa",
        "label",
        "lemma",
        "output",
        "phoneme",
        "phonemes",
        "phones",
        "pronunciation",
        "question",
        "reference",
        "source",
        "spelling",
        "src",
        "target",
        "text",
        "tgt",
        "transcription",
        "translation",
        "word",
    ];
    // A lone word may well be a source: only those that nobody asks about.
    const ALONE: [&str; 4] = ["source", "src", "target", "tgt"];
    let columns: Vec<String> = line.split('\t').map(|cell| cell.trim_matches(['#', '"', ' ']).to_lowercase()).collect();
    let known: &[&str] = if columns.len() == 1 { &ALONE } else { &COLUMNS };
    columns.iter().all(|column| known.contains(&column.as_str()))
}

/// The bad lines of a file, as it is read.
pub(crate) struct Faults {
    found: Vec<Run>,
    /// Of how many lines there is none, since too many were found before.
    more: usize,
    /// How many are kept.
    most: usize,
}

/// Lines one behind the other, of which the same is wrong.
struct Run {
    /// Their indices, counted from 0.
    first: u64,
    last: u64,
    fault: Fault,
}

impl Faults {
    /// Keeps all, for lines that are left out.
    pub(crate) fn all() -> Self {
        Self { found: Vec::new(), more: 0, most: usize::MAX }
    }

    /// Keeps as many as an error lists.
    pub(crate) fn listed() -> Self {
        Self { most: LISTED, ..Self::all() }
    }

    pub(crate) fn add(&mut self, line: u64, fault: Fault) {
        let is_full = self.found.len() == self.most;
        match self.found.last_mut() {
            Some(run) if run.last + 1 == line && run.fault == fault => run.last = line,
            _ if is_full => self.more += 1,
            _ => self.found.push(Run { first: line, last: line, fault }),
        }
    }

    /// The lines that were kept, and what is wrong with each.
    pub(crate) fn kept(self) -> impl Iterator<Item = (u64, Fault)> {
        self.found
            .into_iter()
            .flat_map(|Run { first, last, fault }| (first..=last).map(move |line| (line, fault.clone())))
    }

    /// Fails with the first of them, if there are any in this file; `or` is another remedy for all.
    pub(crate) fn refuse(&self, file: &LineFile, or: &str) -> Result<(), Error> {
        if self.found.is_empty() {
            return Ok(());
        }
        let number = |index: u64| file.number(index as usize);
        let said = self.found.iter().map(|Run { first, last, fault }| {
            let place = match first == last {
                true => Place::line(number(*first)),
                false => Place::text(format!("lines {}-{}", number(*first), number(*last))),
            };
            Problem { place, message: format!("{fault}{or}") }
        });
        Err(listed(file.path(), said.collect(), self.more))
    }
}

/// An error with these problems; the last one says of how many more lines there are such.
pub(crate) fn listed(file: &Path, mut problems: Vec<Problem>, more: usize) -> Error {
    if let Some(last) = problems.last_mut().filter(|_| more > 0) {
        last.message += &format!(" (and {more} more such lines)");
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
