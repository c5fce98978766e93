//! What counts as right, by the line, from files beside a corpus.

use std::path::PathBuf;

use antiphon_core::{Error, Result};

use super::{Corpus, CorpusConfig};
use crate::lines::{Fault, Faults, LineFile};

/// Files of references: line `n` of each counts as right for line `n` of a corpus, or for row `n` of a table, its header not
/// counted.
#[derive(Debug)]
pub struct References(Vec<LineFile>);

impl References {
    /// Reads and checks the files, by the rules for the lines of `config`; `corpus` is what they belong to.
    ///
    /// # Errors
    /// If a file cannot be read, has not as many lines as the corpus, or has a line that is no text.
    pub fn open(files: &[PathBuf], config: &CorpusConfig, corpus: &Corpus) -> Result<Self> {
        let open = |path: &PathBuf| {
            let mut faults = Faults::listed();
            let file = LineFile::open(path, config.line_rules().max_line, false, |line, text| {
                let fault = match text {
                    Ok(text) if text.trim().is_empty() => Fault::EmptyBeside("target"),
                    // No target of such a corpus has one: this is another file than was meant.
                    Ok(text) if corpus.parts_at_tabs() && text.contains('\t') => {
                        Fault::TabsInTarget(text.matches('\t').count())
                    }
                    Ok(_) => return,
                    Err(fault) => fault,
                };
                faults.add(line, fault);
            })?;
            faults.refuse(&file, "")?;
            if file.len() != corpus.rows() {
                let (found, wanted, of) = (file.len(), corpus.rows(), corpus.path().display());
                let (rows, one) = if config.has_columns() { (" rows", "row") } else { ("", "line") };
                let message = format!(
                    "{found} lines, but `{of}` has {wanted}{rows}: give a reference for every {one}, in its order"
                );
                return Err(Error::new(message).in_file(path));
            }
            Ok(file)
        };
        files.iter().map(open).collect::<Result<_>>().map(Self)
    }

    /// Those for a line, counted from 0; of a table, for a row.
    pub(super) fn of(&self, row: usize) -> Result<Vec<String>> {
        self.0.iter().map(|file| file.read(row)).collect()
    }
}
