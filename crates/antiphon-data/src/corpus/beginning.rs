//! What the first lines of a table's file say of its columns, before it is read.

use std::fs::File;
use std::io::BufRead;
use std::path::Path;

use antiphon_core::{Error, Place, Result};

use super::config::{CorpusConfig, FurtherColumns, LineRules, Remedy, TableConfig, TableFormat};
use super::fault_of_header;
use super::grouped::add_new;
use super::table::{LackingColumn, Settings, Table, names_in};
use crate::lines::{Fault, LineReader, unpacked};

/// In so many rows a column is looked for where rows may lack it, and so many are held against the columns.
const ROWS: usize = 1000;

impl CorpusConfig {
    /// The columns of a file: those that the config names, or those of its header; in JSON lines those of its first row or, where
    /// bad rows are left out, of its first thousand. `None` if nothing tells, or if lines are no rows.
    ///
    /// # Errors
    /// If the file cannot be read, nothing tells how it is written, or its header is no text.
    pub fn columns_of(&self, file: &Path) -> Result<Option<Vec<String>>> {
        let settings = Settings::of(self);
        settings.map_or(Ok(None), |settings| columns_of(&settings, self.line_rules(), file))
    }
}

fn columns_of(settings: &Settings<'_>, rules: LineRules, file: &Path) -> Result<Option<Vec<String>>> {
    let format = settings.format_of(Some(file))?;
    let is_json = format == TableFormat::JsonLines;
    if let Some(columns) = settings.columns.filter(|_| !is_json) {
        return Ok(Some(columns.clone()));
    }
    let reading = |e| Error::io(file, "read", &e);
    let mut lines = lines_of(file, format, rules.max_line)?;
    let rows = if is_json && rules.on_bad_line == Remedy::Skip { ROWS } else { 1 };
    let mut found: Option<Vec<String>> = None;
    for _ in 0..rows {
        let Some(line) = lines.next().map_err(reading)? else { break };
        match line.text.and_then(|text| names_in(format, text)) {
            Ok(names) => add_new(found.get_or_insert_default(), names),
            // It is told with the others when all are read.
            Err(_) if is_json => {}
            Err(fault) => return Err(fault_of_header(fault).in_file(file)),
        }
    }
    Ok(found)
}

fn lines_of(file: &Path, format: TableFormat, max_line: usize) -> Result<LineReader<impl BufRead>> {
    let input = unpacked(File::open(file).map_err(|e| Error::io(file, "open", &e))?);
    let input = input.map_err(|e| Error::io(file, "read", &e))?;
    Ok(match format {
        TableFormat::Csv => LineReader::of_csv(input, max_line),
        TableFormat::Tsv | TableFormat::JsonLines => LineReader::new(input, max_line),
    })
}

impl TableConfig {
    /// The columns that are read and that a file lacks, as far as its first lines tell. Where the config names the columns, it is
    /// the config that lacks some ([`CorpusConfig::problems`](super::CorpusConfig::problems)).
    ///
    /// # Errors
    /// As [`CorpusConfig::columns_of`].
    pub fn lacking(&self, further: &FurtherColumns, file: &Path) -> Result<Vec<LackingColumn>> {
        if self.names_columns(self.format_of(Some(file))?) {
            return Ok(Vec::new());
        }
        let table = Table::of_table(self, further, file)?;
        // An object without entries is a bad row.
        let rules = LineRules { max_line: self.max_line, on_bad_line: self.on_bad_line };
        let names = columns_of(&Settings::of_table(self), rules, file)?.filter(|names| !names.is_empty());
        Ok(names.map_or_else(Vec::new, |names| table.lacking(&names)))
    }

    /// The first of a file's first thousand rows that is none, where that is an error, or that there is no row.
    ///
    /// # Errors
    /// If that is so, or the file cannot be read.
    pub fn check_rows(&self, further: &FurtherColumns, file: &Path) -> Result<()> {
        let mut lines = lines_of(file, self.format_of(Some(file))?, self.max_line)?;
        let mut table = Table::of_table(self, further, file)?;
        let mut rows = 0;
        while let Some(line) = lines.next().map_err(|e| Error::io(file, "read", &e))?.filter(|_| rows < ROWS) {
            let fault =
                |fault: Fault| Error::new(fault.to_string()).in_file(file).at(Place::line(line.number as usize));
            if table.awaits_header() {
                let read =
                    line.text.map_err(fault).and_then(|text| table.read_header(text).map_err(|e| e.in_file(file)));
                read?;
                continue;
            }
            rows += 1;
            match line.text.and_then(|text| table.row(text)) {
                Err(found) if self.on_bad_line == Remedy::Error => return Err(fault(found)),
                Ok(_) | Err(_) => {}
            }
        }
        let message = if table.awaits_header() { "the file is empty" } else { "there is no row" };
        if rows > 0 {
            Ok(())
        } else {
            Err(Error::new(format!("{message}: give one with at least one row")).in_file(file))
        }
    }

    /// Whether the config names the columns of a file of this format.
    fn names_columns(&self, format: TableFormat) -> bool {
        self.columns.is_some() && format != TableFormat::JsonLines
    }
}
