//! Rows of tables: what stands in their cells, by the names of the columns.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use antiphon_core::{Error, Place, Problem, Result};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

use super::config::{CorpusConfig, FurtherColumns, ManifestConfig, TableConfig, TableFormat};
use crate::lines::{Fault, quoted};

/// A row, as text.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Row {
    pub(crate) source: String,
    /// Where a recording begins and ends in its file, in seconds, if that is said.
    pub(crate) start: Option<f64>,
    pub(crate) end: Option<f64>,
    /// The further sources, in their order.
    pub(crate) streams: Vec<String>,
    /// Empty where targets are not read.
    pub(crate) target: String,
    /// What is kept, in its order.
    pub(crate) kept: Vec<String>,
}

/// How the rows of one file are read.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    format: TableFormat,
    /// What stands between the columns of a source.
    join: String,
    wanted: Vec<Wanted>,
    header: Header,
}

/// A column that is read.
#[derive(Debug, Clone)]
struct Wanted {
    /// The setting that names it.
    key: String,
    column: String,
    part: Part,
}

/// What a column is part of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Source,
    Start,
    End,
    Stream,
    Target,
    Kept,
}

/// What is known of the columns of a file.
#[derive(Debug, Clone)]
enum Header {
    /// Each row names them itself.
    InRows,
    /// The next line names them.
    Awaited,
    Read(Columns),
}

/// The columns of a file, in its order.
#[derive(Debug, Clone)]
struct Columns {
    names: Vec<String>,
    /// Where each wanted one stands.
    places: Vec<usize>,
    /// The place of one that rows may leave out.
    may_lack: Option<usize>,
}

impl TableFormat {
    /// What a file's name ends with, gzip or not.
    fn of_name(file: &Path) -> Option<Self> {
        let is_gzip = file.extension().is_some_and(|end| end.eq_ignore_ascii_case("gz"));
        let plain = if is_gzip { file.file_stem().map(Path::new)? } else { file };
        match plain.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "tsv" | "tab" => Some(Self::Tsv),
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

/// What the settings of a table, or of a manifest, say of its columns.
struct Settings<'c> {
    format: Option<TableFormat>,
    columns: Option<&'c Vec<String>>,
    /// The file to learn from.
    train: &'c Path,
    join: &'c str,
    sources: Vec<Wanted>,
    target: Wanted,
}

impl<'c> Settings<'c> {
    /// Those of a corpus, if it has columns.
    fn of(config: &'c CorpusConfig) -> Option<Self> {
        let wanted = |key: &str, column: &str, part| Wanted { key: key.into(), column: column.into(), part };
        Some(match config {
            CorpusConfig::Table(TableConfig { format, columns, train, join, source, target, .. }) => Self {
                format: *format,
                columns: columns.as_ref(),
                train,
                join,
                sources: source.names().iter().map(|name| wanted("data.source", name, Part::Source)).collect(),
                target: wanted("data.target", target, Part::Target),
            },
            CorpusConfig::Manifest(ManifestConfig { format, columns, train, path, text, start, end, .. }) => {
                let start = start.iter().map(|name| wanted("data.start", name, Part::Start));
                let end = end.iter().map(|name| wanted("data.end", name, Part::End));
                Self {
                    format: *format,
                    columns: columns.as_ref(),
                    train,
                    join: "",
                    sources: [wanted("data.path", path, Part::Source)].into_iter().chain(start).chain(end).collect(),
                    target: wanted("data.text", text, Part::Target),
                }
            }
            CorpusConfig::Pairs(_) | CorpusConfig::Parallel(_) | CorpusConfig::Text(_) | CorpusConfig::Stream(_) => {
                return None;
            }
        })
    }

    /// How a file is written: as the config says, or else as its name does. What has no name is written as the file to learn
    /// from.
    ///
    /// # Errors
    /// If neither says it.
    fn format_of(&self, file: Option<&Path>) -> Result<TableFormat> {
        let named = file.map_or_else(|| TableFormat::of_name(self.train), TableFormat::of_name);
        self.format.or(named).ok_or_else(|| {
            let message =
                "the name does not tell how the table is written (`.tsv`, `.csv` or `.jsonl`); set data.format";
            let error = Error::new(message);
            file.map_or_else(|| error.clone(), |file| error.clone().in_file(file))
        })
    }
}

impl Table {
    /// Whole rows, of a corpus that has columns.
    ///
    /// # Errors
    /// If nothing tells how the file is written.
    pub(crate) fn of_rows(
        config: &CorpusConfig,
        further: &FurtherColumns,
        file: Option<&Path>,
    ) -> Result<Option<Self>> {
        let Some(settings) = Settings::of(config) else { return Ok(None) };
        let kept = further.kept.iter();
        let kept = kept.map(|column| Wanted { key: "evaluate.by".into(), column: column.clone(), part: Part::Kept });
        let mut table = Self::new(&settings, further, file)?;
        table.wanted.extend([settings.target.clone()].into_iter().chain(kept));
        table.with_columns(&settings).map(Some)
    }

    /// Sources alone: rows may have a target, and need none.
    ///
    /// # Errors
    /// As [`of_rows`](Self::of_rows).
    pub(crate) fn of_sources(
        config: &CorpusConfig,
        further: &FurtherColumns,
        file: Option<&Path>,
    ) -> Result<Option<Self>> {
        let Some(settings) = Settings::of(config) else { return Ok(None) };
        Self::new(&settings, further, file)?.with_columns(&settings).map(Some)
    }

    /// The columns of the sources.
    fn new(settings: &Settings<'_>, further: &FurtherColumns, file: Option<&Path>) -> Result<Self> {
        let format = settings.format_of(file)?;
        let stream = |(name, column): &(String, String)| Wanted {
            key: format!("streams.{name}.column"),
            column: column.clone(),
            part: Part::Stream,
        };
        let wanted = settings.sources.iter().cloned().chain(further.streams.iter().map(stream)).collect();
        let header = if format == TableFormat::JsonLines { Header::InRows } else { Header::Awaited };
        Ok(Self { format, join: settings.join.to_owned(), wanted, header })
    }

    /// Takes the columns that the config names, if it does.
    fn with_columns(mut self, settings: &Settings<'_>) -> Result<Self> {
        if let (Some(names), TableFormat::Tsv | TableFormat::Csv) = (settings.columns, self.format) {
            let reads_target = self.wanted.iter().any(|wanted| wanted.part == Part::Target);
            let mut columns = self.columns(names.clone()).map_err(|problems| Error { file: None, problems })?;
            let target = &settings.target.column;
            columns.may_lack = names.iter().position(|name| name == target).filter(|_| !reads_target);
            self.header = Header::Read(columns);
        }
        Ok(self)
    }

    /// Whether rows are records of CSV.
    pub(crate) fn is_csv(&self) -> bool {
        self.format == TableFormat::Csv
    }

    /// Whether the next line names the columns.
    pub(crate) fn awaits_header(&self) -> bool {
        matches!(self.header, Header::Awaited)
    }

    /// Takes the line that names the columns.
    ///
    /// # Errors
    /// If one that is read is not among them, or two have one name.
    pub(crate) fn read_header(&mut self, line: &str) -> Result<()> {
        let of_first = |message: String| vec![Problem { place: Place::line(1), message }];
        let names = cells(self.format, line).map_err(|fault| of_first(fault.to_string()));
        let columns = names.and_then(|names| self.columns(names.into_iter().map(Cow::into_owned).collect()));
        self.header = Header::Read(columns.map_err(|problems| Error { file: None, problems })?);
        Ok(())
    }

    /// Takes the columns that are read, in their order, as all that there are; gives them as a line.
    pub(crate) fn assume_header(&mut self) -> String {
        let mut names: Vec<String> = Vec::new();
        for Wanted { column, .. } in &self.wanted {
            if !names.contains(column) {
                names.push(column.clone());
            }
        }
        let between = if self.is_csv() { "," } else { "\t" };
        let line = names.join(between);
        if let Ok(columns) = self.columns(names) {
            self.header = Header::Read(columns);
        }
        line
    }

    /// Whether a line says what the columns are called, and no more.
    pub(crate) fn is_header(&self, line: &str) -> bool {
        let Header::Read(columns) = &self.header else { return false };
        cells(self.format, line).is_ok_and(|cells| cells.iter().eq(&columns.names))
    }

    fn columns(&self, names: Vec<String>) -> Result<Columns, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut add = |message: String| problems.push(Problem { place: Place::line(1), message });
        for (i, name) in names.iter().enumerate() {
            // Who writes a table with the numbers of its rows leaves a name empty.
            if !name.is_empty() && names[..i].contains(name) {
                add(format!("two columns are called `{name}`: rename one"));
            }
        }
        let mut places = Vec::with_capacity(self.wanted.len());
        for (i, Wanted { key, column, .. }) in self.wanted.iter().enumerate() {
            match names.iter().position(|name| name == column) {
                Some(place) => places.push(place),
                None if self.wanted[..i].iter().any(|other| other.key == *key && other.column == *column) => {}
                None => add(format!(
                    "no column `{column}`, which {key} names; there are {}: name one of these, or set data.columns if \
                     line 1 is not a header",
                    quoted(&names)
                )),
            }
        }
        if problems.is_empty() { Ok(Columns { names, places, may_lack: None }) } else { Err(problems) }
    }

    /// What a line says.
    ///
    /// # Errors
    /// If it is no row of this table.
    ///
    /// # Panics
    /// If the header is still to be read.
    pub(crate) fn row(&self, line: &str) -> Result<Row, Fault> {
        match &self.header {
            Header::Awaited => panic!("a row before the header"),
            Header::InRows => {
                let object = object(line)?;
                self.row_of(|_, column| object.text(column))
            }
            Header::Read(columns) => {
                if line.is_empty() {
                    return Err(Fault::EmptyLine);
                }
                let cells = cells(self.format, line)?;
                let lacks = columns.may_lack.filter(|_| cells.len() + 1 == columns.names.len());
                if cells.len() != columns.names.len() && lacks.is_none() {
                    return Err(Fault::Cells { found: cells.len(), columns: columns.names.clone() });
                }
                self.row_of(|i, _| {
                    let place = columns.places[i];
                    Ok(cells[place - usize::from(lacks.is_some_and(|lacks| lacks < place))].clone())
                })
            }
        }
    }

    /// Puts a row together of the cells of its columns.
    fn row_of<'c>(&self, cell: impl Fn(usize, &str) -> Result<Cow<'c, str>, Fault>) -> Result<Row, Fault> {
        let mut row = Row::default();
        for (i, Wanted { column, part, .. }) in self.wanted.iter().enumerate() {
            let text = cell(i, column)?;
            let is_empty = text.trim().is_empty();
            match part {
                // Of several, some may be empty.
                Part::Source if is_empty => {}
                Part::Source => {
                    row.source += if row.source.is_empty() { "" } else { &self.join };
                    row.source += &text;
                }
                Part::Start => row.start = seconds(&text, column)?,
                Part::End => row.end = seconds(&text, column)?,
                Part::Stream => row.streams.push(text.into_owned()),
                Part::Target if is_empty => return Err(Fault::EmptyCell(column.clone())),
                Part::Target => row.target = text.into_owned(),
                Part::Kept => row.kept.push(text.into_owned()),
            }
        }
        if row.source.is_empty() {
            let sources = self.wanted.iter().filter(|wanted| wanted.part == Part::Source);
            let names: Vec<&str> = sources.map(|wanted| wanted.column.as_str()).collect();
            return Err(Fault::EmptyCell(names.join("`, `")));
        }
        Ok(row)
    }
}

/// A time in seconds; `None` of an empty cell.
fn seconds(text: &str, column: &str) -> Result<Option<f64>, Fault> {
    let text = text.trim();
    let time = || text.parse().ok().filter(|time: &f64| time.is_finite() && *time >= 0.0);
    let fault = || Fault::NoTime { column: column.into(), text: text.into() };
    if text.is_empty() { Ok(None) } else { time().map(Some).ok_or_else(fault) }
}

/// The cells of a line.
fn cells(format: TableFormat, line: &str) -> Result<Vec<Cow<'_, str>>, Fault> {
    match format {
        TableFormat::Tsv => Ok(line.split('\t').map(Cow::Borrowed).collect()),
        TableFormat::Csv => cells_of_csv(line),
        TableFormat::JsonLines => unreachable!("JSON lines have no cells"),
    }
}

/// The cells of a record of CSV (RFC 4180). A line end in one is a line feed, however it is written.
fn cells_of_csv(record: &str) -> Result<Vec<Cow<'_, str>>, Fault> {
    let (mut cells, mut rest) = (Vec::new(), record);
    loop {
        let stray = || Fault::StrayQuote(cells.len() + 1);
        let cell = if let Some(quoted) = rest.strip_prefix('"') {
            let mut end = 0;
            // The first quote that is not doubled closes.
            loop {
                end += quoted[end..].find('"').ok_or_else(stray)?;
                if !quoted[end + 1..].starts_with('"') {
                    break;
                }
                end += 2;
            }
            rest = &quoted[end + 1..];
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(stray());
            }
            let text = &quoted[..end];
            match text.contains(['"', '\r']) {
                true => Cow::Owned(text.replace("\"\"", "\"").replace("\r\n", "\n")),
                false => Cow::Borrowed(text),
            }
        } else {
            let (text, behind) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
            if text.contains('"') {
                return Err(stray());
            }
            rest = behind;
            Cow::Borrowed(text)
        };
        cells.push(cell);
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(cells),
        }
    }
}

/// An object of JSON, its entries as they come.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

fn object(line: &str) -> Result<Object, Fault> {
    if line.trim().is_empty() {
        return Err(Fault::EmptyLine);
    }
    let object: Object = serde_json::from_str(line).map_err(|error| {
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_owned();
        Fault::Json { what, column: error.column().max(1) }
    })?;
    let names = || object.0.iter().map(|(name, _)| name);
    match names().enumerate().find(|(i, name)| names().take(*i).any(|other| other == *name)) {
        Some((_, name)) => Err(Fault::Twice(name.clone())),
        None => Ok(object),
    }
}

impl Object {
    /// The text of a column; `null` is an empty one.
    fn text(&self, column: &str) -> Result<Cow<'static, str>, Fault> {
        let Some((_, value)) = self.0.iter().find(|(name, _)| name == column) else {
            let there = self.0.iter().map(|(name, _)| name.clone()).collect();
            return Err(Fault::NoColumn { column: column.into(), there });
        };
        let refuse = |what| Err(Fault::NoText { column: column.into(), what });
        match value {
            Value::String(text) if text.contains('\0') => refuse("a text with a zero byte, as no text has it"),
            Value::String(text) => Ok(text.clone().into()),
            Value::Number(number) => Ok(number.to_string().into()),
            Value::Null => Ok("".into()),
            Value::Bool(true) => refuse("`true`"),
            Value::Bool(false) => refuse("`false`"),
            Value::Array(_) => refuse("a list"),
            Value::Object(_) => refuse("an object"),
        }
    }
}
