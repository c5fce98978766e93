//! Corpora: one split of one corpus, on disk.

mod beginning;
mod config;
mod gaps;
mod grouped;
mod input;
mod json;
mod manifest;
mod record;
mod references;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_manifests;
#[cfg(test)]
mod tests_of_tables;

use std::path::{Path, PathBuf};

use antiphon_core::{Error, Place, Result};

pub use config::{
    ColumnNames, CorpusConfig, Documents, Files, FurtherColumns, Limits, ManifestConfig, PairsConfig, ParallelConfig,
    ParallelFiles, Remedy, Split, StreamConfig, TableConfig, TableFormat, Targets, TextConfig,
};
pub use grouped::Grouped;
pub use input::InputRules;
pub use manifest::Spoken;
pub use references::References;
pub use table::LackingColumn;

pub(crate) use gaps::Gaps;

use crate::lines::{Fault, Faults, HEADER, LineFile, Skipped, file_fault, looks_like_header};
use manifest::Recorded;
use table::{Row, Table};

/// One example, as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Example {
    /// What is asked, of a manifest the path of the recording; `None` where there is text alone.
    pub source: Option<String>,
    /// What is asked beside it: further sources, in the order of their streams.
    pub further: Vec<String>,
    /// What is answered: at least one; several are references that count as equally right.
    pub targets: Vec<String>,
    /// What stands in the columns that are kept: for each, one text; of a source in several rows, all that they have.
    pub kept: Vec<Vec<String>>,
    /// The answers that it may have; empty where it may have any.
    pub candidates: Vec<String>,
    /// The number of its recording among the [frames](Corpus::frames) of the corpus.
    pub recording: Option<usize>,
    /// Where it stands in its file, counted from 1.
    pub line: usize,
}

/// One split of a corpus: an index over its files. Any thread may read any example.
#[derive(Debug)]
pub struct Corpus {
    layout: Layout,
    /// One file; in a parallel corpus the source and then the targets; of a running text as many as it has.
    files: Vec<LineFile>,
    /// How many lines the files before each have, where they follow upon each other.
    before: Vec<usize>,
    /// The lines left out.
    gaps: Gaps,
    /// Where rows have several targets: for each row that is used, how many examples come before it, and at last how many there are.
    starts: Option<Vec<u32>>,
    /// Whether each row is answered by itself.
    each_row: bool,
    skipped: Skipped,
    /// The file whose first line names its columns, as it seems, and is read like any other.
    header: Option<PathBuf>,
    /// How rows are read, of a table.
    table: Option<Table>,
    /// How many lines before the first row name its columns.
    headers: usize,
    /// Of a manifest, the frames of its recordings, once they are known.
    recorded: Option<Recorded>,
}

/// What the lines of the files mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Pairs,
    Parallel,
    Table,
    Manifest,
    Text,
    /// Files that follow upon each other, and blank lines count.
    Stream,
}

impl Corpus {
    /// Reads the files of a split once: checks every line, finds where the lines start and digests the files.
    ///
    /// Lines are read as [`LineReader`](crate::LineReader) reads them. Gzip files are unpacked into a temporary file.
    ///
    /// # Errors
    /// If the config names no such split, a file is missing, empty or damaged, parallel files differ in length, a table has not
    /// the columns that are named, a line cannot be used (unless `on_bad_line = "skip"`) or no line can.
    pub fn open(config: &CorpusConfig, split: Split, data_dir: &Path) -> Result<Corpus> {
        Self::open_with(config, &FurtherColumns::default(), split, data_dir)
    }

    /// The same, with further columns of a table.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(config: &CorpusConfig, further: &FurtherColumns, split: Split, data_dir: &Path) -> Result<Corpus> {
        let (layout, files) = config.files(split)?;
        let rules = config.line_rules();
        // The first fault of a line counts, whichever file has it.
        let (mut bad, mut header) = (std::collections::BTreeMap::new(), None);
        let (mut opened, mut before) = (Vec::<LineFile>::with_capacity(files.len()), Vec::new());
        let mut lines = 0;
        let (mut table, mut headers): (Option<Table>, usize) = (None, 0);
        // How many targets each line of a table has.
        let mut targets: Vec<u32> = Vec::new();
        for (k, (key, file)) in files.iter().enumerate() {
            let path = data_dir.join(file);
            if let Some(fault) = file_fault(&path) {
                return Err(Error::new(format!("{fault}: {key} names it")).in_file(path));
            }
            table = Table::of_rows(config, further, Some(&path))?;
            // Where a fault is an error, only those that are listed are kept.
            let skips = rules.on_bad_line == Remedy::Skip;
            let mut faults = if skips { Faults::all() } else { Faults::listed() };
            let is_csv = table.as_ref().is_some_and(Table::is_csv);
            // What is wrong with the line that names the columns is wrong with all of them.
            let mut columns = Ok(());
            // How many rows lack a column, and what there is to say of the first.
            let (mut lacking, mut lacks) = (0, None);
            opened.push(LineFile::open(&path, rules.max_line, is_csv, |line, text| {
                if let Some(table) = table.as_mut().filter(|table| table.awaits_header()) {
                    if line == 0 {
                        columns = text.map_err(fault_of_header).and_then(|text| table.read_header(text));
                        headers = 1;
                    }
                    return;
                }
                let names_columns = |text: &str| match &table {
                    Some(table) => table.is_header(text),
                    None => layout != Layout::Stream && looks_like_header(text),
                };
                if line == 0 && text.as_ref().is_ok_and(|text| names_columns(text)) {
                    header.get_or_insert_with(|| path.clone());
                }
                let check = |text: &str| match &table {
                    Some(table) => table.row(text).map(|row| {
                        targets.resize(line as usize, 0);
                        targets.push(row.targets.len() as u32);
                    }),
                    None => layout.check(k, text),
                };
                if let Err(fault) = text.and_then(check) {
                    if let (Fault::NoColumn { there, .. }, Some(table)) = (&fault, &table)
                        && !there.is_empty()
                    {
                        lacks.get_or_insert_with(|| Error::many(&path, table.problems(there)));
                        lacking += 1;
                    }
                    faults.add(line, fault);
                }
            })?);
            columns.map_err(|error| error.in_file(&path))?;
            if let Some(error) = lacks.filter(|_| lacking == opened[k].len()) {
                return Err(error);
            }
            if !skips {
                faults.refuse(&opened[k], ", or set data.on_bad_line = \"skip\"")?;
            }
            let first = if layout == Layout::Stream { lines } else { 0 };
            for (line, fault) in faults.kept() {
                bad.entry(line + first as u64).or_insert(fault);
            }
            before.push(first);
            lines = first + opened[k].len();
        }
        let (first, rest) = opened.split_first().expect("a split has a file");
        let together = if layout == Layout::Stream { &[] } else { rest };
        if let Some(other) = together.iter().find(|other| other.len() != first.len()) {
            let message = format!(
                "{} lines, but `{}` has {}: line by line they must belong together",
                first.len(),
                other.path().display(),
                other.len()
            );
            return Err(Error::new(message).in_file(first.path()));
        }
        if u32::try_from(lines).is_err() {
            let message = format!("{lines} lines, more than {}: split the file", u32::MAX);
            return Err(Error::new(message).in_file(first.path()));
        }
        let (gaps, skipped) = (Gaps::default(), Skipped::default());
        let each_row = config.as_table().is_some_and(|table| table.each_row);
        let mut corpus = Corpus {
            layout,
            files: opened,
            before,
            gaps,
            starts: None,
            each_row,
            skipped,
            header,
            table,
            headers,
            recorded: None,
        };
        if lines == headers {
            return Err(Error::new("only a header, no rows: add some").in_file(corpus.path()));
        }
        for (line, fault) in &bad {
            let (file, own) = corpus.located(*line as usize);
            // Of several files that follow upon each other a line's number alone says little.
            let of = if corpus.follows() { format!(" in `{}`", file.path().display()) } else { String::new() };
            corpus.skipped.add(&(fault.label() + &of), file.number(own));
        }
        if bad.len() + headers == lines {
            return Err(Error::new(format!("no line can be used; {}", corpus.skipped)).in_file(corpus.path()));
        }
        corpus.gaps = Gaps::new((0..headers as u64).chain(bad.into_keys()));
        if targets.iter().any(|&targets| targets > 1) {
            corpus.starts = Some(corpus.starts_of(&targets)?);
        }
        Ok(corpus)
    }

    /// How many examples: of a running text its lines. A row with several targets is as many examples.
    pub fn len(&self) -> usize {
        match &self.starts {
            Some(starts) => starts[starts.len() - 1] as usize,
            None => self.lines() - self.gaps.len(),
        }
    }

    /// How many examples come before each row that is used, of lines with so many targets, and before the end.
    fn starts_of(&self, targets: &[u32]) -> Result<Vec<u32>> {
        let too_many = || Error::new(format!("more than {} references: split the file", u32::MAX)).in_file(self.path());
        let (rows, mut sum) = (self.lines() - self.gaps.len(), 0_u32);
        let mut starts = vec![0];
        for row in 0..rows {
            sum = sum.checked_add(targets[self.gaps.position(row)]).ok_or_else(too_many)?;
            starts.push(sum);
        }
        Ok(starts)
    }

    /// Which of the rows that are used an example is, counted from 0, and which of its targets.
    fn row_and_target(&self, i: usize) -> (usize, usize) {
        match &self.starts {
            Some(starts) => {
                let row = starts.partition_point(|&start| start as usize <= i) - 1;
                (row, i - starts[row] as usize)
            }
            None => (i, 0),
        }
    }

    /// The line of an example, among all.
    fn line_of(&self, i: usize) -> usize {
        self.gaps.position(self.row_and_target(i).0)
    }

    /// How many lines its files have, those left out included.
    fn lines(&self) -> usize {
        let last = if self.layout == Layout::Stream { self.files.len() - 1 } else { 0 };
        self.before[last] + self.files[last].len()
    }

    /// How many lines could be examples: all but those that name columns.
    fn rows(&self) -> usize {
        self.lines() - self.headers
    }

    /// Which of these an example is, counted from 0.
    fn row_of(&self, i: usize) -> usize {
        self.line_of(i) - self.headers
    }

    /// Whether it is several files that follow upon each other.
    fn follows(&self) -> bool {
        self.layout == Layout::Stream && self.files.len() > 1
    }

    /// A line among all, as a line of its file; where lines of several files belong together, of the first.
    fn located(&self, line: usize) -> (&LineFile, usize) {
        let file = self.file_of_line(line);
        (&self.files[file], line - self.before[file])
    }

    fn file_of_line(&self, line: usize) -> usize {
        if self.layout == Layout::Stream { self.before.partition_point(|&before| before <= line) - 1 } else { 0 }
    }

    /// The number, from 0, of the file in which an example stands.
    pub(crate) fn file_of(&self, i: usize) -> usize {
        self.file_of_line(self.line_of(i))
    }

    /// Whether the line of an example has a line end.
    pub(crate) fn is_ended(&self, i: usize) -> bool {
        let (file, line) = self.located(self.line_of(i));
        file.is_ended(line)
    }

    /// How many bytes the line of an example has, its line end included.
    pub(crate) fn bytes(&self, i: usize) -> u64 {
        let (file, line) = self.located(self.line_of(i));
        file.bytes(line)
    }

    /// The file and the line, counted from 1, of an example.
    pub fn place(&self, i: usize) -> (&Path, usize) {
        let (file, line) = self.located(self.line_of(i));
        (file.path(), file.number(line))
    }

    /// Never true: a corpus without examples does not open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Example `i`, which must be below [`len`](Self::len).
    ///
    /// # Errors
    /// If the file cannot be read or has changed since it was opened.
    pub fn get(&self, i: usize) -> Result<Example> {
        let (own, line) = self.located(self.line_of(i));
        let number = own.number(line);
        if self.table.is_some() {
            let Row { source, further, mut targets, kept, candidates, .. } = self.row(i)?;
            let kept = kept.into_iter().map(|text| vec![text]).collect();
            let recording = self.recorded.as_ref().map(|recorded| recorded.number(i));
            let source = self.has_source().then_some(source);
            if self.starts.is_some() {
                targets = vec![targets.swap_remove(self.row_and_target(i).1)];
            }
            return Ok(Example { source, further, targets, kept, candidates, recording, line: number });
        }
        let first = own.read(line)?;
        let texts = self.files.iter().skip(1).map(|file| file.read(line));
        let (source, targets) = match self.layout {
            Layout::Text | Layout::Stream => (None, vec![first]),
            Layout::Parallel => (Some(first), texts.collect::<Result<_>>()?),
            Layout::Pairs => {
                let changed = |fault| self.files[0].changed(line, fault);
                let (source, target) = split_pair(&first).map_err(changed)?;
                (Some(source.to_string()), vec![target.to_string()])
            }
            Layout::Table | Layout::Manifest => unreachable!("a table has rows"),
        };
        Ok(Example { source, targets, line: number, ..Example::default() })
    }

    /// The examples of each row that is used, where some have several.
    fn examples_of_rows(&self) -> Option<Vec<Vec<u32>>> {
        Some(self.starts.as_ref()?.windows(2).map(|ends| (ends[0]..ends[1]).collect()).collect())
    }

    /// The row of an example of a table.
    fn row(&self, i: usize) -> Result<Row> {
        let (own, line) = self.located(self.line_of(i));
        let table = self.table.as_ref().expect("a table has columns");
        table.row(&own.read(line)?).map_err(|fault| own.changed(line, fault))
    }

    /// All examples in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<Example>> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }

    /// For evaluation: each distinct source once, with all that counts as right; or each row, where the config says so. `normalized` is a text of a source as the model
    /// sees it, by its number among the sources of an example, counted from 0: those that are equal then, in all sources, are one.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn grouped(&self, normalized: impl Fn(usize, &str) -> String) -> Result<Grouped<'_>> {
        let groups = matches!(self.layout, Layout::Pairs | Layout::Table) && !self.each_row;
        Grouped::new(self, groups.then_some(&normalized))
    }

    /// Whether examples have a source.
    pub fn has_source(&self) -> bool {
        match self.layout {
            Layout::Pairs | Layout::Parallel | Layout::Table | Layout::Manifest => true,
            Layout::Text | Layout::Stream => false,
        }
    }

    /// Whether its lines are the rows of a table.
    pub fn is_table(&self) -> bool {
        self.table.is_some()
    }

    /// Whether its lines are parted at tabs, so that no text has one.
    fn parts_at_tabs(&self) -> bool {
        matches!(self.layout, Layout::Pairs) || self.table.as_ref().is_some_and(Table::is_tsv)
    }

    /// The lines that were left out, by reason.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// What to say if a first line seems to name columns: it is read like any other.
    pub fn header_warning(&self) -> Option<String> {
        Some(format!("{}: {HEADER}", self.header.as_ref()?.display()))
    }

    /// The first file: the one that errors about an example name.
    pub fn path(&self) -> &Path {
        self.files[0].path()
    }

    /// Each file with its SHA-256 (of a gzip file as it lies on disk).
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&Path, &str)> {
        self.files.iter().map(|file| (file.path(), file.sha256()))
    }

    /// What the corpus is, whatever its files are called: the SHA-256 of the only file or, of several, the SHA-256
    /// of the files' hexadecimal digests, each followed by a line feed.
    pub fn sha256(&self) -> String {
        match self.files.as_slice() {
            [one] => one.sha256().to_string(),
            many => {
                crate::digest::sha256(many.iter().map(|f| f.sha256().to_string() + "\n").collect::<String>().as_bytes())
            }
        }
    }
}

impl Layout {
    /// Whether a line of file `k` can be used.
    fn check(self, k: usize, text: &str) -> Result<(), Fault> {
        match self {
            Layout::Pairs => split_pair(text).map(drop),
            Layout::Table | Layout::Manifest => unreachable!("a table checks its rows"),
            Layout::Stream => Ok(()),
            Layout::Text | Layout::Parallel if !text.trim().is_empty() => Ok(()),
            Layout::Text => Err(Fault::EmptyLine),
            Layout::Parallel => Err(Fault::EmptyBeside(if k == 0 { "source" } else { "target" })),
        }
    }
}

/// The error of a line that was to name columns.
fn fault_of_header(fault: Fault) -> Error {
    Error::new(fault.to_string()).at(Place::line(1))
}

/// Source and target of a line with exactly one tab.
///
/// # Errors
/// If it has another number of tabs, or a side is empty.
pub fn split_pair(line: &str) -> Result<(&str, &str), Fault> {
    let (source, target) = line.split_once('\t').ok_or(Fault::NoTab)?;
    match target.matches('\t').count() {
        0 if source.trim().is_empty() => Err(Fault::EmptySource),
        0 if target.trim().is_empty() => Err(Fault::EmptyTarget),
        0 => Ok((source, target)),
        n => Err(Fault::Tabs(n + 1)),
    }
}

/// The files of a split, each with the key that names it.
type Named<'a> = Vec<(String, &'a PathBuf)>;

impl CorpusConfig {
    /// The files of a split, each with the setting that names it; of several references it is the same one.
    ///
    /// # Errors
    /// If the config names none, or more than the split can have.
    pub fn named_files(&self, split: Split) -> Result<Vec<(String, &PathBuf)>> {
        self.files(split).map(|(_, named)| named)
    }

    fn files(&self, split: Split) -> Result<(Layout, Named<'_>)> {
        let key = format!("data.{split}");
        let none = || Error::new(format!("not set: name the file of the {split} split")).at(key.as_str());
        let listed = |files: &[PathBuf], place: &str| match files.is_empty() {
            true => Err(Error::new("the list is empty: name at least one file").at(place)),
            false => Ok(()),
        };
        let (layout, file) = match self {
            Self::Stream(c) => {
                let files = one_of(split, &c.train, &c.validation, &c.test).ok_or_else(none)?.files();
                listed(files, &key)?;
                return Ok((Layout::Stream, files.iter().map(|file| (key.clone(), file)).collect()));
            }
            Self::Pairs(c) => (Layout::Pairs, one_of(split, &c.train, &c.validation, &c.test)),
            Self::Table(c) => (Layout::Table, one_of(split, &c.train, &c.validation, &c.test)),
            Self::Manifest(c) => (Layout::Manifest, one_of(split, &c.train, &c.validation, &c.test)),
            Self::Text(c) => (Layout::Text, one_of(split, &c.train, &c.validation, &c.test)),
            Self::Parallel(c) => {
                let files = one_of(split, &c.train, &c.validation, &c.test).ok_or_else(none)?;
                let targets = files.target.files();
                let place = format!("{key}.target");
                listed(targets, &place)?;
                if split == Split::Train && targets.len() > 1 {
                    let message = "several references serve evaluation only: name the one file to learn from";
                    return Err(Error::new(message).at(place));
                }
                let mut named = vec![(format!("{key}.source"), &files.source)];
                named.extend(targets.iter().map(|file| (place.clone(), file)));
                return Ok((Layout::Parallel, named));
            }
        };
        let file = file.ok_or_else(none)?;
        Ok((layout, vec![(key, file)]))
    }
}

fn one_of<'a, T>(split: Split, train: &'a T, validation: &'a Option<T>, test: &'a Option<T>) -> Option<&'a T> {
    match split {
        Split::Train => Some(train),
        Split::Validation => validation.as_ref(),
        Split::Test => test.as_ref(),
    }
}
