//! Input that is asked about: read by the rules of a corpus, with its targets or without.

use std::io::BufRead;
use std::path::Path;

use antiphon_core::Result;

use super::table::{Row, Table};
use super::{CorpusConfig, FurtherColumns, Spoken, fault_of_header, split_pair};
use crate::lines::{Fault, LineReader, looks_like_header};

/// How the lines of an input become texts.
#[derive(Debug)]
pub struct InputRules<'a> {
    config: &'a CorpusConfig,
    /// Of a table, how its rows are read.
    table: Option<Table>,
}

impl<'a> InputRules<'a> {
    /// Sources without targets. A table may have other columns, which are not read; where the config names the columns, a row has all
    /// of them, or those of the sources alone. `file` is where it comes from, if that is one.
    ///
    /// # Errors
    /// If nothing tells how a table is written.
    pub fn of_sources(config: &'a CorpusConfig, further: &FurtherColumns, file: Option<&Path>) -> Result<Self> {
        Ok(Self { config, table: Table::of_sources(config, further, file)? })
    }

    /// Sources with their targets; of a corpus without sources, texts. Columns that are kept are not read.
    ///
    /// # Errors
    /// As [`of_sources`](Self::of_sources).
    pub fn of_pairs(config: &'a CorpusConfig, further: &FurtherColumns, file: Option<&Path>) -> Result<Self> {
        let further = FurtherColumns { sources: further.sources.clone(), kept: Vec::new() };
        Ok(Self { config, table: Table::of_rows(config, &further, file)? })
    }

    /// What makes lines of a reader.
    pub fn lines<R: BufRead>(&self) -> fn(R, usize) -> LineReader<R> {
        if self.table.as_ref().is_some_and(Table::is_csv) { LineReader::of_csv } else { LineReader::new }
    }

    /// The longest line, in bytes.
    pub fn max_line(&self) -> usize {
        self.config.max_line()
    }

    /// Whether the first line names the columns.
    pub fn awaits_header(&self) -> bool {
        self.table.as_ref().is_some_and(Table::awaits_header)
    }

    /// Takes the first line, which names the columns.
    ///
    /// # Errors
    /// If it is no text, or lacks one that is read.
    pub fn read_header(&mut self, line: Result<&str, Fault>) -> Result<()> {
        let text = line.map_err(fault_of_header)?;
        self.table.as_mut().map_or(Ok(()), |table| table.read_header(text))
    }

    /// Takes as the columns of a table those that are read, in their order, where nobody names them; says what somebody is to type.
    pub fn form_of_row(&mut self) -> Option<String> {
        self.table.as_mut().map(Table::form_of_row)
    }

    /// Whether the first line seems to name columns instead of being asked: it is read like any other.
    pub fn seems_header(&self, line: &str) -> bool {
        self.table.as_ref().map_or_else(|| looks_like_header(line), |table| table.is_header(line))
    }

    /// The texts of a source: of the first and of the further ones.
    ///
    /// # Errors
    /// If the line is none.
    ///
    /// # Panics
    /// If a header is still to be read.
    pub fn sources(&self, line: &str) -> Result<Vec<String>, Fault> {
        if let Some(table) = &self.table {
            let Row { source, further, .. } = table.row(line)?;
            return Ok([source].into_iter().chain(further).collect());
        }
        match (self.config, line.matches('\t').count()) {
            _ if line.trim().is_empty() => Err(Fault::EmptySource),
            (CorpusConfig::Pairs(_), tabs @ 1..) => Err(Fault::TabsInSource(tabs)),
            _ => Ok(vec![line.to_owned()]),
        }
    }

    /// The answers that a row of a table may have; none where it may have any.
    ///
    /// # Errors
    /// If the line is no row.
    ///
    /// # Panics
    /// If a header is still to be read.
    pub fn candidates(&self, line: &str) -> Result<Vec<String>, Fault> {
        match (&self.table, self.config) {
            (Some(table), CorpusConfig::Table(config)) if config.candidates.is_some() => {
                table.row(line).map(|row| row.candidates)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The recording of a row of a manifest.
    ///
    /// # Errors
    /// If the line is no row.
    ///
    /// # Panics
    /// If the corpus is no manifest, or a header is still to be read.
    pub fn recording(&self, line: &str) -> Result<Spoken, Fault> {
        let table = self.table.as_ref().expect("a manifest has columns");
        table.row(line).map(|row| Spoken::of(&row))
    }

    /// The texts of a source, of the first and of the further ones, and its targets, several only where they are a list; where there are no
    /// sources, the line is all target. Running text has blank lines.
    ///
    /// # Errors
    /// If the line is none.
    ///
    /// # Panics
    /// If a header is still to be read.
    pub fn pair(&self, line: &str) -> Result<(Vec<String>, Vec<String>), Fault> {
        if let Some(table) = &self.table {
            let Row { source, further, targets, .. } = table.row(line)?;
            let source = self.config.has_source().then_some(source);
            return Ok((source.into_iter().chain(further).collect(), targets));
        }
        match self.config {
            CorpusConfig::Text(_) if line.trim().is_empty() => Err(Fault::EmptyLine),
            CorpusConfig::Text(_) | CorpusConfig::Stream(_) => Ok((Vec::new(), vec![line.to_owned()])),
            CorpusConfig::Table(_) | CorpusConfig::Manifest(_) => unreachable!("a table has rows"),
            CorpusConfig::Pairs(_) | CorpusConfig::Parallel(_) => {
                let (source, target) = split_pair(line)?;
                Ok((vec![source.into()], vec![target.into()]))
            }
        }
    }
}
