//! `[data]`: which files are the corpus.

use std::fmt;
use std::path::{Path, PathBuf};

use antiphon_core::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::table::format_of;
use crate::history::History;
use crate::lines::{Fault, quoted};

/// A part of a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// What is learnt from.
    Train,
    /// What choices are made on.
    Validation,
    /// What is reported, once.
    Test,
}

impl Split {
    /// Its name in configs.
    pub const fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What to do with a line or an example that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// Stop and say where it is.
    Error,
    /// Leave it out, count it and report the count.
    Skip,
}

// Each kind of corpus spells its limits out. A struct of them, flattened into the three, would lose which key is unknown and
// what the others are, and the page says of each key what it means to that kind. Their defaults are here, and
// `CorpusConfig::limits` and `line_rules` are where they come together.
const MAX_TOKENS: usize = 1024;
const MAX_LINE: usize = 1_000_000;
/// Half a minute at 100 frames a second.
const MAX_FRAMES: usize = 3000;

/// `[data]`: a corpus, chosen by `kind`. All paths lie below the data folder, unless they are absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(extend("default" = {"kind": "pairs"}))]
pub enum CorpusConfig {
    /// Lines of `source<TAB>target`. A search answers each source once, and is judged by all its targets; losses count
    /// every line.
    Pairs(PairsConfig),
    /// Two or more files whose lines belong together.
    Parallel(ParallelConfig),
    /// Rows of cells with named columns: tab-separated, CSV or JSON lines. A search answers each source once, as of `pairs`.
    Table(TableConfig),
    /// Recordings and what is said in them: rows of cells with named columns, as of `table`. `features` says what a model is shown
    /// of a recording. A search answers each row.
    Manifest(ManifestConfig),
    /// One text a line, for language models.
    Text(TextConfig),
    /// Running text, for language models: files are read on as they are, and the end symbol stands for each line end.
    Stream(StreamConfig),
}

/// `source<TAB>target`, one pair a line, plain or gzip. Lines with the same source are its several references.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PairsConfig {
    /// The file to learn from.
    #[schemars(example = &"mine/train.tsv")]
    pub train: PathBuf,
    /// The file to choose on.
    #[serde(default)]
    pub validation: Option<PathBuf>,
    /// The file to report on.
    #[serde(default)]
    pub test: Option<PathBuf>,
    /// The recipe that prepares these files: `cargo xtask data <recipe>`.
    #[serde(default)]
    pub recipe: Option<String>,
    /// The longest source, in tokens without the end symbol.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1))]
    pub max_source: usize,
    /// The longest target, in tokens without the end symbol.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1))]
    pub max_target: usize,
    /// What to do with an example over these lengths.
    #[serde(default = "error")]
    pub too_long: Remedy,
    /// The longest line, in bytes.
    #[serde(default = "max_line")]
    #[schemars(range(min = 1))]
    pub max_line: usize,
    /// What to do with a line that is too long, not UTF-8, without source or target, or without exactly one tab.
    #[serde(default = "error")]
    pub on_bad_line: Remedy,
}

/// Files whose lines belong together: line `n` of the target answers line `n` of the source. Plain or gzip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParallelConfig {
    /// The files to learn from; a single target.
    pub train: ParallelFiles,
    /// The files to choose on.
    #[serde(default)]
    pub validation: Option<ParallelFiles>,
    /// The files to report on.
    #[serde(default)]
    pub test: Option<ParallelFiles>,
    /// The recipe that prepares these files: `cargo xtask data <recipe>`.
    #[serde(default)]
    pub recipe: Option<String>,
    /// The longest source, in tokens without the end symbol.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1))]
    pub max_source: usize,
    /// The longest target, in tokens without the end symbol.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1))]
    pub max_target: usize,
    /// What to do with an example over these lengths.
    #[serde(default = "error")]
    pub too_long: Remedy,
    /// The longest line, in bytes.
    #[serde(default = "max_line")]
    #[schemars(range(min = 1))]
    pub max_line: usize,
    /// What to do with a line that is too long, not UTF-8 or empty in one of the files.
    #[serde(default = "error")]
    pub on_bad_line: Remedy,
}

/// The files of one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParallelFiles {
    /// The sources, one a line.
    #[schemars(example = &"mine/train.de")]
    pub source: PathBuf,
    /// The targets, one a line: a file, or a list of files with one reference each. Where a single target is needed
    /// (the loss), it is the first file's.
    #[schemars(example = &"mine/train.en")]
    pub target: Targets,
}

/// One file of targets, or several with one reference each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Targets {
    /// One target a source.
    One(PathBuf),
    /// Several references a source.
    Many(#[schemars(length(min = 1))] Vec<PathBuf>),
}

impl Targets {
    /// The files, in the order given.
    pub fn files(&self) -> &[PathBuf] {
        match self {
            Targets::One(file) => std::slice::from_ref(file),
            Targets::Many(files) => files,
        }
    }
}

/// Rows of cells with named columns, plain or gzip. Rows with the same source, in all of its streams, are its several references.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableConfig {
    /// The file to learn from.
    #[schemars(example = &"mine/train.csv")]
    pub train: PathBuf,
    /// The file to choose on.
    #[serde(default)]
    pub validation: Option<PathBuf>,
    /// The file to report on.
    #[serde(default)]
    pub test: Option<PathBuf>,
    /// The recipe that prepares these files: `cargo xtask data <recipe>`.
    #[serde(default)]
    pub recipe: Option<String>,
    /// How all of these files are written; if unset, as the end of each one's name says: `.tsv` or `.tab`, `.csv`, `.jsonl` or
    /// `.ndjson`, with `.gz` behind it or not.
    #[serde(default)]
    pub format: Option<TableFormat>,
    /// What the columns are called, in their order, where files have no header. If unset, the first line names them; in JSON
    /// lines each row does.
    #[serde(default)]
    #[schemars(length(min = 2), extend("uniqueItems" = true, "examples" = [["question", "answer"]]))]
    pub columns: Option<Vec<String>>,
    /// The column of the sources; of several, the source is what stands in them, one behind the other.
    #[schemars(example = &"question")]
    pub source: ColumnNames,
    /// What stands between the columns of a source, if it has several.
    #[serde(default = "space")]
    pub join: String,
    /// The column of the targets. A list in JSON lines is several references, which count as equally right; each is an example to learn
    /// from.
    #[schemars(example = &"answer")]
    pub target: String,
    /// The column of the answers that each row may have, its target among them: a list in JSON lines, elsewhere one on each line of
    /// the cell. A search then says one of them. If unset, it may say anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"candidates")]
    pub candidates: Option<String>,
    /// How the turns of a dialog are read, where the source is a list of them, oldest first: a list in JSON lines, elsewhere one on each
    /// line of the cell. If unset, the source is a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// Whether each row is answered and judged by itself, even where its source is that of another row.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub each_row: bool,
    /// The longest source, in tokens without the end symbol. A longer `history` is cut from its old end instead.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1))]
    pub max_source: usize,
    /// The longest target, in tokens without the end symbol.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1))]
    pub max_target: usize,
    /// What to do with an example over these lengths, or over one of a stream.
    #[serde(default = "error")]
    pub too_long: Remedy,
    /// The longest row, in bytes.
    #[serde(default = "max_line")]
    #[schemars(range(min = 1))]
    pub max_line: usize,
    /// What to do with a row that is too long, not UTF-8, without source or target, or not written as it should be.
    #[serde(default = "error")]
    pub on_bad_line: Remedy,
}

/// A table of recordings and what is said in them, plain or gzip: each row names a file, or a part of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifestConfig {
    /// The file to learn from.
    #[schemars(example = &"mine/train.tsv")]
    pub train: PathBuf,
    /// The file to choose on.
    #[serde(default)]
    pub validation: Option<PathBuf>,
    /// The file to report on.
    #[serde(default)]
    pub test: Option<PathBuf>,
    /// The recipe that prepares these files: `cargo xtask data <recipe>`.
    #[serde(default)]
    pub recipe: Option<String>,
    /// How all of these files are written; if unset, as the end of each one's name says: `.tsv` or `.tab`, `.csv`, `.jsonl` or
    /// `.ndjson`, with `.gz` behind it or not.
    #[serde(default)]
    pub format: Option<TableFormat>,
    /// What the columns are called, in their order, where files have no header. If unset, the first line names them; in JSON
    /// lines each row does.
    #[serde(default)]
    #[schemars(length(min = 2), extend("uniqueItems" = true, "examples" = [["path", "text"]]))]
    pub columns: Option<Vec<String>>,
    /// The column of the recordings' files, whose paths are seen from the folder of the table.
    #[serde(default = "path")]
    pub path: String,
    /// The column of what is said.
    #[serde(default = "text")]
    pub text: String,
    /// The column that says where a recording begins in its file, in seconds; if unset, each begins with its file, and so does one
    /// whose cell is empty.
    #[serde(default)]
    #[schemars(example = &"from")]
    pub start: Option<String>,
    /// The column that says where a recording ends in its file, in seconds; if unset, each ends with its file, and so does one
    /// whose cell is empty.
    #[serde(default)]
    #[schemars(example = &"to")]
    pub end: Option<String>,
    /// The shortest recording, in frames.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub min_frames: usize,
    /// The longest recording, in frames.
    #[serde(default = "max_frames")]
    #[schemars(range(min = 1))]
    pub max_frames: usize,
    /// The longest target, in tokens without the end symbol.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1))]
    pub max_target: usize,
    /// What to do with an example beyond these limits.
    #[serde(default = "error")]
    pub too_long: Remedy,
    /// The longest row, in bytes.
    #[serde(default = "max_line")]
    #[schemars(range(min = 1))]
    pub max_line: usize,
    /// What to do with a row that is too long, not UTF-8, without path or text, or not written as it should be, and with one whose
    /// recording is missing, damaged, silent or too short for a frame.
    #[serde(default = "error")]
    pub on_bad_line: Remedy,
}

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableFormat {
    /// A row a line, a tab between cells, and no quotes.
    Tsv,
    /// A comma between cells. A cell between quotes may hold commas, line ends and, written twice, quotes (RFC 4180).
    Csv,
    /// An object of JSON a line, of texts, numbers, `true` and `false`, and of lists of these, which are texts of several lines.
    JsonLines,
}

/// What to say of a file of which nothing tells how it is written.
pub(super) const UNKNOWN_FORMAT: &str =
    "the format cannot be told from the name (`.tsv`, `.csv` or `.jsonl`); set data.format";

/// One column, or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ColumnNames {
    /// A column.
    One(String),
    /// Several columns, one behind the other.
    Many(#[schemars(length(min = 1))] Vec<String>),
}

impl TableConfig {
    /// Its files, each with the split.
    pub(super) fn files(&self) -> impl Iterator<Item = (Split, &PathBuf)> {
        let others = [(Split::Validation, &self.validation), (Split::Test, &self.test)];
        let others = others.into_iter().filter_map(|(split, file)| Some((split, file.as_ref()?)));
        [(Split::Train, &self.train)].into_iter().chain(others)
    }
}

impl ColumnNames {
    /// The columns, in the order given.
    pub fn names(&self) -> &[String] {
        match self {
            ColumnNames::One(name) => std::slice::from_ref(name),
            ColumnNames::Many(names) => names,
        }
    }
}

/// What is read of a table beside its source and its target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FurtherColumns {
    /// Further sources, in the order of the model's streams: the name of the stream, and the column.
    pub sources: Vec<(String, String)>,
    /// The columns that are kept as they are: the setting that names it, and the column.
    pub kept: Vec<(String, String)>,
}

/// Texts without sources, plain or gzip: a line each or, with `column`, what stands in a column of a table, that of what is said in
/// a manifest of recordings, say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// The file to learn from.
    #[schemars(example = &"mine/train.txt")]
    pub train: PathBuf,
    /// The file to choose on.
    #[serde(default)]
    pub validation: Option<PathBuf>,
    /// The file to report on.
    #[serde(default)]
    pub test: Option<PathBuf>,
    /// The recipe that prepares these files: `cargo xtask data <recipe>`.
    #[serde(default)]
    pub recipe: Option<String>,
    /// The column of the texts, where these files are tables. If unset, each line is a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"text")]
    pub column: Option<String>,
    /// How all of these tables are written; if unset, as the end of each one's name says: `.tsv` or `.tab`, `.csv`, `.jsonl` or
    /// `.ndjson`, with `.gz` behind it or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TableFormat>,
    /// What the columns are called, in their order, where tables have no header. If unset, the first line names them; in JSON lines
    /// each row does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), extend("uniqueItems" = true, "examples" = [["path", "text"]]))]
    pub columns: Option<Vec<String>>,
    /// The longest text, in tokens without the end symbol.
    #[serde(default = "max_tokens")]
    #[schemars(range(min = 1))]
    pub max_target: usize,
    /// What to do with a text over this length.
    #[serde(default = "error")]
    pub too_long: Remedy,
    /// The longest line, or row of a table, in bytes.
    #[serde(default = "max_line")]
    #[schemars(range(min = 1))]
    pub max_line: usize,
    /// What to do with a line that is too long, not UTF-8 or empty, or not written as a row should be.
    #[serde(default = "error")]
    pub on_bad_line: Remedy,
}

/// Running text, plain or gzip: there is no source. The end symbol stands for each line end, also for that of a blank line; a last
/// line that nothing ends has none. So a character tokenizer has a token for each character of the files, and a word tokenizer one
/// for each word and each line.
///
/// To learn from, the text is cut into `rows` parts of equal length (to one token), and each step reads the next `length` tokens of
/// all of them, with the state in which the step before ended (truncated backpropagation through time; Williams and Peng 1990). An
/// epoch, and so each part, begins with a fresh state and the begin symbol. No token is left out: a part is ended by a step that is
/// shorter, or, where less than half a step would be left for it, longer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// What to learn from: a file, or a list of files that are read one after the other.
    #[schemars(example = &"mine/train.txt")]
    pub train: Files,
    /// What to choose on.
    #[serde(default)]
    pub validation: Option<Files>,
    /// What to report on.
    #[serde(default)]
    pub test: Option<Files>,
    /// The recipe that prepares these files: `cargo xtask data <recipe>`.
    #[serde(default)]
    pub recipe: Option<String>,
    /// Where a document begins: there the state is fresh, and the begin symbol stands before the first token. A row's step ends with
    /// its document, and the learning rate of a step is scaled by how many tokens it has of `rows * length`.
    #[serde(default)]
    pub documents: Documents,
    /// Into how many parts of equal length the text to learn from is cut. They are read side by side; each begins an epoch with a
    /// fresh state and the begin symbol, and none of its tokens is left out.
    #[serde(default = "rows")]
    #[schemars(range(min = 1, max = 65536))]
    pub rows: usize,
    /// How many tokens of each part a step reads: so far back gradients go.
    #[serde(default = "length")]
    #[schemars(range(min = 1, max = 65536))]
    pub length: usize,
    /// Whether the length of each step is drawn by the seed: around `length`, or, in one step of twenty, around half of it,
    /// with a standard deviation of 5 and at least 5 (Merity et al. 2018). The learning rate of a step is scaled by how many tokens
    /// it has of `rows * length`.
    #[serde(default)]
    pub jitter: bool,
    /// The longest line, in bytes.
    #[serde(default = "max_line")]
    #[schemars(range(min = 1))]
    pub max_line: usize,
    /// What to do with a line that is too long or not UTF-8.
    #[serde(default = "error")]
    pub on_bad_line: Remedy,
}

/// One file, or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Files {
    /// A file.
    One(PathBuf),
    /// Several files, one after the other.
    Many(#[schemars(length(min = 1))] Vec<PathBuf>),
}

impl Files {
    /// The files, in the order given.
    pub fn files(&self) -> &[PathBuf] {
        match self {
            Files::One(file) => std::slice::from_ref(file),
            Files::Many(files) => files,
        }
    }
}

/// Where a document of a running text begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Documents {
    /// All files are one text.
    #[default]
    None,
    /// Each file is a document.
    Files,
    /// Blank lines part documents, and so do files. A blank line belongs to the document before it.
    BlankLines,
}

fn path() -> String {
    "path".into()
}

fn text() -> String {
    "text".into()
}

const fn one() -> usize {
    1
}

const fn max_frames() -> usize {
    MAX_FRAMES
}

const fn rows() -> usize {
    32
}

const fn length() -> usize {
    64
}

fn space() -> String {
    " ".into()
}

const fn max_tokens() -> usize {
    MAX_TOKENS
}

const fn max_line() -> usize {
    MAX_LINE
}

const fn error() -> Remedy {
    Remedy::Error
}

/// How long an example may be, in tokens without end symbols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest source; where that is a recording, in frames.
    pub max_source: usize,
    /// The longest text of each further source, by the name of its stream.
    pub further: Vec<(String, usize)>,
    /// The shortest recording, in frames.
    pub min_frames: usize,
    /// The longest target.
    pub max_target: usize,
    /// What to do with an example beyond.
    pub too_long: Remedy,
}

impl Limits {
    /// Whether sources of so many tokens, the first and the further ones, are within the limits.
    ///
    /// # Errors
    /// If one is not.
    pub fn check_sources(&self, tokens: impl IntoIterator<Item = usize>) -> Result<(), Fault> {
        let mut tokens = tokens.into_iter();
        if let Some(first) = tokens.next() {
            check_tokens("source".into(), "data.max_source".into(), first, self.max_source)?;
        }
        self.check_further(tokens)
    }

    /// Whether further sources of so many tokens are within the limits.
    ///
    /// # Errors
    /// If one is not.
    pub fn check_further(&self, tokens: impl IntoIterator<Item = usize>) -> Result<(), Fault> {
        self.further.iter().zip(tokens).try_for_each(|((name, limit), tokens)| {
            check_tokens(format!("`{name}`"), format!("streams.{name}.max_length"), tokens, *limit)
        })
    }

    /// Whether a recording of so many frames is within the limits.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_frames(&self, frames: usize) -> Result<(), Fault> {
        let fault = |key, limit| Err(Fault::Frames { frames, key, limit });
        match frames {
            few if few < self.min_frames => fault("min_frames", self.min_frames),
            many if many > self.max_source => fault("max_frames", self.max_source),
            _ => Ok(()),
        }
    }

    /// Whether a target of so many tokens is within the limit.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_target(&self, tokens: usize) -> Result<(), Fault> {
        check_tokens("target".into(), "data.max_target".into(), tokens, self.max_target)
    }
}

/// The splits of which nothing tells how their tables are written.
fn of_unknown_format<'f>(
    format: Option<TableFormat>,
    train: &'f Path,
    validation: Option<&'f PathBuf>,
    test: Option<&'f PathBuf>,
) -> impl Iterator<Item = Split> {
    let others = [(Split::Validation, validation), (Split::Test, test)].into_iter();
    let others = others.filter_map(|(split, file)| Some((split, file?.as_path())));
    let files = [(Split::Train, train)].into_iter().chain(others);
    files.filter(move |(_, file)| format_of(format, train, Some(file)).is_err()).map(|(split, _)| split)
}

fn check_tokens(what: String, key: String, tokens: usize, limit: usize) -> Result<(), Fault> {
    if tokens > limit { Err(Fault::TooManyTokens { what, key, tokens, limit }) } else { Ok(()) }
}

/// Which lines can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineRules {
    pub(crate) max_line: usize,
    pub(crate) on_bad_line: Remedy,
}

impl CorpusConfig {
    /// Whether the config names files for this split.
    pub fn has(&self, split: Split) -> bool {
        match (self, split) {
            (_, Split::Train) => true,
            (Self::Pairs(PairsConfig { validation, .. }), Split::Validation)
            | (Self::Table(TableConfig { validation, .. }), Split::Validation)
            | (Self::Manifest(ManifestConfig { validation, .. }), Split::Validation)
            | (Self::Text(TextConfig { validation, .. }), Split::Validation) => validation.is_some(),
            (Self::Parallel(ParallelConfig { validation, .. }), Split::Validation) => validation.is_some(),
            (Self::Stream(StreamConfig { validation, .. }), Split::Validation) => validation.is_some(),
            (Self::Pairs(PairsConfig { test, .. }), Split::Test)
            | (Self::Table(TableConfig { test, .. }), Split::Test)
            | (Self::Manifest(ManifestConfig { test, .. }), Split::Test)
            | (Self::Text(TextConfig { test, .. }), Split::Test) => test.is_some(),
            (Self::Parallel(ParallelConfig { test, .. }), Split::Test) => test.is_some(),
            (Self::Stream(StreamConfig { test, .. }), Split::Test) => test.is_some(),
        }
    }

    /// Whether examples have a source.
    pub fn has_source(&self) -> bool {
        match self {
            Self::Pairs(_) | Self::Parallel(_) | Self::Table(_) | Self::Manifest(_) => true,
            Self::Text(_) | Self::Stream(_) => false,
        }
    }

    /// The recipe that prepares the files, if one is named.
    pub fn recipe(&self) -> Option<&str> {
        match self {
            Self::Pairs(PairsConfig { recipe, .. })
            | Self::Parallel(ParallelConfig { recipe, .. })
            | Self::Table(TableConfig { recipe, .. })
            | Self::Manifest(ManifestConfig { recipe, .. })
            | Self::Text(TextConfig { recipe, .. })
            | Self::Stream(StreamConfig { recipe, .. }) => recipe.as_deref(),
        }
    }

    /// How long an example may be, further sources left aside. The lines of a running text are none, and may have any number of
    /// tokens.
    pub fn limits(&self) -> Limits {
        let (max_source, max_target, too_long) = match *self {
            Self::Pairs(PairsConfig { max_source, max_target, too_long, .. })
            | Self::Parallel(ParallelConfig { max_source, max_target, too_long, .. })
            | Self::Table(TableConfig { max_source, max_target, too_long, .. }) => (max_source, max_target, too_long),
            Self::Manifest(ManifestConfig { max_frames, max_target, too_long, .. }) => {
                (max_frames, max_target, too_long)
            }
            Self::Text(TextConfig { max_target, too_long, .. }) => (0, max_target, too_long),
            Self::Stream(_) => (0, usize::MAX, Remedy::Error),
        };
        let min_frames = self.as_manifest().map_or(0, |manifest| manifest.min_frames);
        Limits { max_source, further: Vec::new(), min_frames, max_target, too_long }
    }

    /// Its settings, if it is a table.
    pub fn as_table(&self) -> Option<&TableConfig> {
        if let Self::Table(table) = self { Some(table) } else { None }
    }

    /// How its sources are read as histories, if they are.
    pub fn history(&self) -> Option<&History> {
        self.as_table()?.history.as_ref()
    }

    /// Its settings, if it is a manifest of recordings.
    pub fn as_manifest(&self) -> Option<&ManifestConfig> {
        if let Self::Manifest(manifest) = self { Some(manifest) } else { None }
    }

    /// Whether its lines are rows of named columns: of a table, or of a manifest.
    pub fn has_columns(&self) -> bool {
        matches!(self, Self::Table(_) | Self::Manifest(_))
    }

    /// What of the settings contradicts each other.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |key: &str, message: String| problems.push(Problem { place: key.into(), message });
        let (format, columns, named) = match self {
            Self::Table(table) => {
                let TableConfig { format, columns, source, target, candidates, history, .. } = table;
                for (split, _) in table.files().filter(|(_, file)| !table.knows_format(file)) {
                    add(split.name(), UNKNOWN_FORMAT.into());
                }
                if source.names().contains(target) {
                    add("source", self.reads_target(target).expect("it is that of the target"));
                }
                if history.is_some() && source.names().len() > 1 {
                    let message = "a history is a source of one column; name that alone in `source`, and make streams of the others";
                    add("history", message.into());
                }
                for Problem { place, message } in history.iter().flat_map(History::problems) {
                    add(&format!("history.{place}"), message);
                }
                if candidates.as_ref() == Some(target) {
                    let message = format!(
                        "`{target}` is the column of the targets, which would be all that may be said; name another"
                    );
                    add("candidates", message);
                }
                let named = source.names().iter().map(|name| ("source", name)).chain([("target", target)]);
                let named = named.chain(candidates.iter().map(|name| ("candidates", name)));
                (format, columns, named.collect::<Vec<_>>())
            }
            Self::Manifest(ManifestConfig {
                train,
                validation,
                test,
                format,
                columns,
                path,
                text,
                start,
                end,
                min_frames,
                max_frames,
                ..
            }) => {
                for split in of_unknown_format(*format, train, validation.as_ref(), test.as_ref()) {
                    add(split.name(), UNKNOWN_FORMAT.into());
                }
                if min_frames > max_frames {
                    add("min_frames", format!("must be at most `max_frames` ({max_frames}), got {min_frames}"));
                }
                let spans = [("start", start), ("end", end)].into_iter();
                let spans = spans.filter_map(|(key, name)| Some((key, name.as_ref()?)));
                let named: Vec<_> = [("path", path), ("text", text)].into_iter().chain(spans).collect();
                for (i, (key, name)) in named.iter().enumerate() {
                    if let Some((other, _)) = named[..i].iter().find(|(_, other)| other == name) {
                        add(key, format!("`{name}` is the column of `{other}` too; name another column"));
                    }
                }
                (format, columns, named)
            }
            Self::Text(TextConfig { column: None, format, columns, .. }) => {
                let of_tables = [("format", format.is_some()), ("columns", columns.is_some())];
                for (key, _) in of_tables.into_iter().filter(|(_, is_set)| *is_set) {
                    let message = "is about tables, and each line is a text; name the column of the texts: `column`";
                    add(key, message.into());
                }
                return problems;
            }
            Self::Text(TextConfig { column: Some(column), train, validation, test, format, columns, .. }) => {
                for split in of_unknown_format(*format, train, validation.as_ref(), test.as_ref()) {
                    add(split.name(), UNKNOWN_FORMAT.into());
                }
                (format, columns, vec![("column", column)])
            }
            Self::Pairs(_) | Self::Parallel(_) | Self::Stream(_) => return problems,
        };
        if columns.is_some() && *format == Some(TableFormat::JsonLines) {
            add("columns", "JSON lines name their columns themselves; leave it out".into());
        }
        for (key, name) in named {
            self.lacks_column(name).into_iter().for_each(|message| add(key, message));
        }
        problems
    }

    /// What to say of a source's column, if it is that of the targets.
    pub fn reads_target(&self, name: &str) -> Option<String> {
        let of_targets = self.as_table().is_some_and(|table| table.target == name);
        of_targets.then(|| {
            format!("`{name}` is the column of the targets, so that a source would hold its answer; name another")
        })
    }

    /// What to say of a column that is not among those that the config names, if it names them.
    pub fn lacks_column(&self, name: &str) -> Option<String> {
        let columns = match self {
            Self::Table(TableConfig { columns, .. })
            | Self::Manifest(ManifestConfig { columns, .. })
            | Self::Text(TextConfig { columns, .. }) => columns.as_ref()?,
            Self::Pairs(_) | Self::Parallel(_) | Self::Stream(_) => return None,
        };
        let lacks = !columns.iter().any(|column| column == name);
        lacks.then(|| format!("no column `{name}`; `data.columns` has {}", quoted(columns)))
    }

    /// The longest line, in bytes.
    pub fn max_line(&self) -> usize {
        self.line_rules().max_line
    }

    pub(crate) fn line_rules(&self) -> LineRules {
        match *self {
            Self::Pairs(PairsConfig { max_line, on_bad_line, .. })
            | Self::Parallel(ParallelConfig { max_line, on_bad_line, .. })
            | Self::Table(TableConfig { max_line, on_bad_line, .. })
            | Self::Manifest(ManifestConfig { max_line, on_bad_line, .. })
            | Self::Text(TextConfig { max_line, on_bad_line, .. })
            | Self::Stream(StreamConfig { max_line, on_bad_line, .. }) => LineRules { max_line, on_bad_line },
        }
    }
}
