//! Rows of tables: what stands in their cells, by the names of the columns.

use std::borrow::Cow;
use std::path::Path;

use antiphon_core::{Error, Place, Problem, Result, nearest};

use super::config::{
    CorpusConfig, FurtherColumns, ManifestConfig, TableConfig, TableFormat, TextConfig, UNKNOWN_FORMAT,
};
use super::fault_of_header;
use super::json::object;
use super::record::cells_of_csv;
use crate::lines::{Fault, quoted};

/// A row, as text.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Row {
    pub(crate) source: String,
    /// Where a recording begins and ends in its file, in seconds, if that is said.
    pub(crate) start: Option<f64>,
    pub(crate) end: Option<f64>,
    /// The further sources, in their order.
    pub(crate) further: Vec<String>,
    /// Empty where targets are not read; of a table, several where they are a list.
    pub(crate) targets: Vec<String>,
    /// What is kept, in its order.
    pub(crate) kept: Vec<String>,
    /// The answers that it may have; empty where it may have any.
    pub(crate) candidates: Vec<String>,
}

/// How the rows of one file are read.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    format: TableFormat,
    /// What stands between the columns of a source.
    join: String,
    wanted: Vec<Wanted>,
    header: Header,
    /// Whether a list of targets is several, and not one of several lines.
    lists_targets: bool,
}

/// A column that is read.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The setting that names it.
    pub(super) key: String,
    pub(super) column: String,
    part: Part,
}

/// A column that is read, and that a file lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LackingColumn {
    /// The setting that names it.
    pub key: String,
    /// What it is called.
    pub column: String,
    /// What there is instead, and what helps.
    pub instead: String,
}

/// What a column is part of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Source,
    Start,
    End,
    Further,
    Target,
    Kept,
    Candidates,
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
    /// The same of rows that have nothing but these, where such are rows too.
    alone: Option<Alone>,
}

/// Rows of wanted columns alone.
#[derive(Debug, Clone)]
struct Alone {
    names: Vec<String>,
    places: Vec<usize>,
}

impl TableFormat {
    /// What a file's name ends with, gzip or not.
    pub fn of_name(file: &Path) -> Option<Self> {
        let is_gzip = file.extension().is_some_and(|end| end.eq_ignore_ascii_case("gz"));
        let plain = if is_gzip { file.file_stem().map(Path::new)? } else { file };
        match plain.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "tsv" | "tab" => Some(Self::Tsv),
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            _ => None,
        }
    }

    /// What to set for a line that has no delimiter of this format, and has one of another.
    fn other(self, line: &str) -> Option<&'static str> {
        match self {
            Self::Csv if line.contains('\t') => Some("the line has tabs: set data.format = \"tsv\""),
            Self::Tsv if line.contains(',') => Some("the line has commas: set data.format = \"csv\""),
            Self::Tsv | Self::Csv if line.contains(';') => {
                Some("the line has semicolons, which part no cells: write commas or tabs")
            }
            Self::Tsv | Self::Csv | Self::JsonLines => None,
        }
    }
}

/// What the settings of a table, of a manifest or of texts in a table say of its columns.
pub(super) struct Settings<'c> {
    format: Option<TableFormat>,
    pub(super) columns: Option<&'c Vec<String>>,
    /// The file to learn from.
    train: &'c Path,
    join: &'c str,
    sources: Vec<Wanted>,
    candidates: Option<Wanted>,
    target: Wanted,
    lists_targets: bool,
}

impl<'c> Settings<'c> {
    pub(super) fn of_table(table: &'c TableConfig) -> Self {
        let TableConfig { format, columns, train, join, source, target, candidates, .. } = table;
        Self {
            format: *format,
            columns: columns.as_ref(),
            train,
            join,
            sources: source.names().iter().map(|name| Wanted::new("data.source", name, Part::Source)).collect(),
            candidates: candidates.iter().map(|name| Wanted::new("data.candidates", name, Part::Candidates)).next(),
            target: Wanted::new("data.target", target, Part::Target),
            lists_targets: true,
        }
    }

    /// Those of a corpus, if it has columns.
    pub(super) fn of(config: &'c CorpusConfig) -> Option<Self> {
        Some(match config {
            CorpusConfig::Table(table) => Self::of_table(table),
            CorpusConfig::Manifest(ManifestConfig { format, columns, train, path, text, start, end, .. }) => {
                let start = start.iter().map(|name| Wanted::new("data.start", name, Part::Start));
                let end = end.iter().map(|name| Wanted::new("data.end", name, Part::End));
                Self {
                    format: *format,
                    columns: columns.as_ref(),
                    train,
                    join: "",
                    sources: [Wanted::new("data.path", path, Part::Source)]
                        .into_iter()
                        .chain(start)
                        .chain(end)
                        .collect(),
                    candidates: None,
                    target: Wanted::new("data.text", text, Part::Target),
                    lists_targets: false,
                }
            }
            CorpusConfig::Text(TextConfig { column: Some(column), format, columns, train, .. }) => Self {
                format: *format,
                columns: columns.as_ref(),
                train,
                join: "",
                sources: Vec::new(),
                candidates: None,
                target: Wanted::new("data.column", column, Part::Target),
                lists_targets: false,
            },
            CorpusConfig::Pairs(_) | CorpusConfig::Parallel(_) | CorpusConfig::Text(_) | CorpusConfig::Stream(_) => {
                return None;
            }
        })
    }

    pub(super) fn format_of(&self, file: Option<&Path>) -> Result<TableFormat> {
        format_of(self.format, self.train, file)
    }
}

/// How a file is written: as the config says, or else as its name does. What has no name is written as the file to learn from.
///
/// # Errors
/// If neither says it.
pub(super) fn format_of(format: Option<TableFormat>, train: &Path, file: Option<&Path>) -> Result<TableFormat> {
    let named = TableFormat::of_name(file.unwrap_or(train));
    format.or(named).ok_or_else(|| {
        let error = Error::new(UNKNOWN_FORMAT);
        file.map_or_else(|| error.clone(), |file| error.clone().in_file(file))
    })
}

impl TableConfig {
    /// How a file is written.
    ///
    /// # Errors
    /// If neither the config nor its name says it.
    pub(super) fn format_of(&self, file: Option<&Path>) -> Result<TableFormat> {
        format_of(self.format, &self.train, file)
    }

    /// Whether it is known how a file is written.
    pub fn knows_format(&self, file: &Path) -> bool {
        self.format_of(Some(file)).is_ok()
    }

    /// Whether all of its files are JSON lines, which name their columns themselves.
    pub fn is_json_lines(&self) -> bool {
        self.files().all(|(_, file)| self.format_of(Some(file)).is_ok_and(|format| format == TableFormat::JsonLines))
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
        Settings::of(config).map(|settings| Self::of_whole_rows(&settings, further, file)).transpose()
    }

    /// Whole rows of a table.
    ///
    /// # Errors
    /// As [`of_rows`](Self::of_rows).
    pub(super) fn of_table(config: &TableConfig, further: &FurtherColumns, file: &Path) -> Result<Self> {
        Self::of_whole_rows(&Settings::of_table(config), further, Some(file))
    }

    fn of_whole_rows(settings: &Settings<'_>, further: &FurtherColumns, file: Option<&Path>) -> Result<Self> {
        let kept = further.kept.iter();
        let kept = kept.map(|(key, column)| Wanted { key: key.clone(), column: column.clone(), part: Part::Kept });
        let mut table = Self::new(settings, further, file)?;
        table.wanted.extend([settings.target.clone()].into_iter().chain(kept));
        table.with_columns(settings)
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
        let one = |(name, column): &(String, String)| Wanted {
            key: format!("streams.{name}.column"),
            column: column.clone(),
            part: Part::Further,
        };
        let own = settings.sources.iter().cloned().chain(further.sources.iter().map(one));
        let wanted = own.chain(settings.candidates.clone()).collect();
        let header = if format == TableFormat::JsonLines { Header::InRows } else { Header::Awaited };
        let (join, lists_targets) = (settings.join.to_owned(), settings.lists_targets);
        Ok(Self { format, join, wanted, header, lists_targets })
    }

    /// Takes the columns that the config names, if it does.
    fn with_columns(mut self, settings: &Settings<'_>) -> Result<Self> {
        if let (Some(names), TableFormat::Tsv | TableFormat::Csv) = (settings.columns, self.format) {
            let mut columns = self.columns(names.clone()).map_err(|problems| Error { file: None, problems })?;
            columns.alone = (!self.reads_target()).then(|| columns.alone());
            self.header = Header::Read(columns);
        }
        Ok(self)
    }

    fn reads_target(&self) -> bool {
        self.wanted.iter().any(|wanted| wanted.part == Part::Target)
    }

    /// Whether cells stand between tabs.
    pub(crate) fn is_tsv(&self) -> bool {
        self.format == TableFormat::Tsv
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
        let names = names_in(self.format, line).map_err(fault_of_header)?;
        self.header = Header::Read(self.columns(names).map_err(|problems| Error { file: None, problems })?);
        Ok(())
    }

    /// Takes the columns that are read, in their order, as all that there are, where nobody names them; says what somebody is to
    /// type.
    pub(crate) fn form_of_row(&mut self) -> String {
        if self.awaits_header()
            && let Ok(columns) = self.columns(self.wanted_names())
        {
            self.header = Header::Read(columns);
        }
        let names = match &self.header {
            Header::Read(Columns { names, alone, .. }) => alone.as_ref().map_or(names, |alone| &alone.names).clone(),
            Header::InRows | Header::Awaited => self.wanted_names(),
        };
        match self.format {
            TableFormat::Tsv => format!("columns: {}", names.join("<TAB>")),
            TableFormat::Csv => format!("columns: {}", names.join(",")),
            TableFormat::JsonLines => {
                let entries = names.iter().map(|name| format!("{}: …", serde_json::Value::from(name.as_str())));
                format!("an object on each line: {{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// The columns that are read, each once.
    fn wanted_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for Wanted { column, .. } in &self.wanted {
            if !names.contains(column) {
                names.push(column.clone());
            }
        }
        names
    }

    /// Whether a line says what columns are called that the config names, in any order and case, and no more.
    pub(crate) fn is_header(&self, line: &str) -> bool {
        let Header::Read(Columns { names, .. }) = &self.header else { return false };
        // Each is named once.
        let mut left: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
        let mut take = |cell: &str| left.iter().position(|name| *name == cell).map(|i| left.swap_remove(i)).is_some();
        cells(self.format, line).is_ok_and(|cells| cells.iter().all(|cell| take(&cell.trim().to_lowercase())))
    }

    /// The columns that are read and are not among these.
    pub(super) fn lacking(&self, names: &[String]) -> Vec<LackingColumn> {
        let mut found: Vec<LackingColumn> = Vec::new();
        for wanted in self.wanted.iter().filter(|wanted| !names.contains(&wanted.column)) {
            let Wanted { key, column, .. } = wanted;
            let other = if let [line] = names { self.format.other(line) } else { None };
            let remedy = match (other, self.format) {
                (Some(other), _) => other.to_owned(),
                _ if names.iter().all(String::is_empty) => "line 1 is blank: remove it".to_owned(),
                (None, TableFormat::JsonLines) => wanted.remedy(names),
                (None, _) if self.reads_target() => {
                    wanted.remedy(names) + ", or set data.columns if line 1 is not a header"
                }
                (None, _) => {
                    let header = self.wanted_names().join(if self.is_csv() { "," } else { "<TAB>" });
                    format!("{}; if line 1 is not a header, write `{header}` above it", wanted.remedy(names))
                }
            };
            let instead = format!("there are {}: {remedy}", quoted(names));
            let lacking = LackingColumn { key: key.clone(), column: column.clone(), instead };
            if !found.contains(&lacking) {
                found.push(lacking);
            }
        }
        found
    }

    /// What to say of these columns where they lack some that are read.
    pub(super) fn problems(&self, names: &[String]) -> Vec<Problem> {
        let problem = |LackingColumn { key, column, instead }| {
            let message = format!("no column `{column}`, which {key} names; {instead}");
            Problem { place: Place::line(1), message }
        };
        self.lacking(names).into_iter().map(problem).collect()
    }

    fn columns(&self, names: Vec<String>) -> Result<Columns, Vec<Problem>> {
        let mut problems = Vec::new();
        let is_wanted = |name: &String| self.wanted.iter().any(|wanted| wanted.column == *name);
        for (i, name) in names.iter().enumerate() {
            if is_wanted(name) && names[..i].contains(name) {
                let message = format!("two columns are called `{name}`: rename one");
                problems.push(Problem { place: Place::line(1), message });
            }
        }
        problems.extend(self.problems(&names));
        let place = |wanted: &Wanted| names.iter().position(|name| *name == wanted.column);
        let places = self.wanted.iter().filter_map(place).collect();
        if problems.is_empty() { Ok(Columns { names, places, alone: None }) } else { Err(problems) }
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
                self.row_of(|i| match &self.wanted[i] {
                    wanted if wanted.part == Part::Target && self.lists_targets => object.texts(wanted),
                    wanted => object.text(wanted).map(|text| vec![text]),
                })
            }
            Header::Read(columns) => {
                if line.is_empty() {
                    return Err(Fault::EmptyLine);
                }
                let cells = cells(self.format, line)?;
                let places = match &columns.alone {
                    _ if cells.len() == columns.names.len() => &columns.places,
                    Some(alone) if cells.len() == alone.names.len() => &alone.places,
                    alone => {
                        let alone = alone.as_ref().map(|alone| alone.names.clone());
                        let (columns, is_csv) = (columns.names.clone(), self.is_csv());
                        let other = if cells.len() == 1 { self.format.other(line) } else { None };
                        return Err(Fault::Cells { found: cells.len(), columns, alone, is_csv, other });
                    }
                };
                self.row_of(|i| Ok(vec![cells[places[i]].clone()]))
            }
        }
    }

    /// Puts a row together of the cells of its columns; of a list of targets, of each of them.
    fn row_of<'c>(&self, cell: impl Fn(usize) -> Result<Vec<Cow<'c, str>>, Fault>) -> Result<Row, Fault> {
        let mut row = Row::default();
        for (i, Wanted { column, part, .. }) in self.wanted.iter().enumerate() {
            let mut texts = cell(i)?;
            let is_missing = texts.is_empty() || texts.iter().any(|text| text.trim().is_empty());
            if *part == Part::Target {
                if is_missing {
                    return Err(Fault::EmptyCell(column.clone()));
                }
                row.targets = texts.into_iter().map(Cow::into_owned).collect();
                continue;
            }
            let text = texts.swap_remove(0);
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
                Part::Further => row.further.push(text.into_owned()),
                Part::Target => unreachable!("it was taken before"),
                Part::Kept => row.kept.push(text.into_owned()),
                Part::Candidates if is_empty => return Err(Fault::EmptyCell(column.clone())),
                Part::Candidates => row.candidates = text.split('\n').map(|text| text.trim().to_owned()).collect(),
            }
        }
        let candidates = self.wanted.iter().find(|wanted| wanted.part == Part::Candidates);
        if let Some(Wanted { column, .. }) = candidates.filter(|_| self.reads_target())
            && let Some(target) =
                row.targets.iter().find(|target| !row.candidates.iter().any(|candidate| candidate == target.trim()))
        {
            return Err(Fault::NotAmong { target: target.clone(), column: column.clone() });
        }
        if row.source.is_empty() {
            let sources = self.wanted.iter().filter(|wanted| wanted.part == Part::Source);
            let names: Vec<&str> = sources.map(|wanted| wanted.column.as_str()).collect();
            // Texts have no source.
            if !names.is_empty() {
                return Err(Fault::EmptyCell(names.join("`, `")));
            }
        }
        Ok(row)
    }
}

impl Wanted {
    fn new(key: &str, column: &str, part: Part) -> Self {
        Self { key: key.into(), column: column.into(), part }
    }

    /// What helps where these columns are there and this one is not.
    pub(super) fn remedy(&self, there: &[String]) -> String {
        let near = nearest(&self.column, there.iter().map(String::as_str));
        let near = near.map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
        format!("add it, or name another in {}{near}", self.key)
    }

    /// What helps, beside a text, where a value is an object or a list of more than texts.
    pub(super) fn of_object(&self) -> String {
        if self.part == Part::Kept { format!(", or take it out of {}", self.key) } else { String::new() }
    }
}

impl Columns {
    /// How rows of the wanted columns alone look: in the order of all.
    fn alone(&self) -> Alone {
        let mut order = self.places.clone();
        order.sort_unstable();
        order.dedup();
        let place = |place: &usize| order.iter().position(|other| other == place).expect("it is one of them");
        let names = order.iter().map(|&place| self.names[place].clone()).collect();
        Alone { names, places: self.places.iter().map(place).collect() }
    }
}

/// A time in seconds; `None` of an empty cell.
fn seconds(text: &str, column: &str) -> Result<Option<f64>, Fault> {
    let text = text.trim();
    let time = || text.parse().ok().filter(|time: &f64| time.is_finite() && *time >= 0.0);
    let fault = || Fault::NoTime { column: column.into(), text: text.into() };
    if text.is_empty() { Ok(None) } else { time().map(Some).ok_or_else(fault) }
}

/// The names of columns in a line: in a header, or in a row of JSON, which names them itself.
///
/// # Errors
/// If it is neither.
pub(super) fn names_in(format: TableFormat, line: &str) -> Result<Vec<String>, Fault> {
    match format {
        TableFormat::JsonLines => Ok(object(line)?.names()),
        TableFormat::Tsv | TableFormat::Csv => Ok(cells(format, line)?.into_iter().map(Cow::into_owned).collect()),
    }
}

/// The cells of a line.
fn cells(format: TableFormat, line: &str) -> Result<Vec<Cow<'_, str>>, Fault> {
    if line.starts_with('{') && object(line).is_ok() {
        return Err(Fault::IsJson);
    }
    match format {
        TableFormat::Tsv => Ok(line.split('\t').map(Cow::Borrowed).collect()),
        TableFormat::Csv => cells_of_csv(line),
        TableFormat::JsonLines => unreachable!("JSON lines have no cells"),
    }
}
