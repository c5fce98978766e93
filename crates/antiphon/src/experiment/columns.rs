//! The columns that are read, held against the files that are there.

use std::path::Path;

use antiphon_config::Tree;
use antiphon_core::Problem;
use antiphon_data::corpus::LackingColumn;
use antiphon_data::lines::file_fault;
use antiphon_data::{CorpusConfig, FurtherColumns};

use super::ExperimentConfig;
use super::checks::Sections;
use super::data::files;

/// The columns that the files of a corpus lack, as far as their first lines tell, and what else is wrong with these lines: for each
/// the setting, and what to say. Files that are not there are left aside.
pub(crate) fn lacking_columns(data: &CorpusConfig, further: &FurtherColumns, data_dir: &Path) -> Vec<(String, String)> {
    let Some(table) = data.as_table() else { return Vec::new() };
    let there = |path: &Path| file_fault(path).is_none() && table.knows_format(path);
    let mut found = Vec::new();
    for (key, path) in files(data, None, data_dir).into_iter().filter(|(_, path)| there(path)) {
        let said = |LackingColumn { key, column, instead }| {
            (key, format!("no column `{column}` in `{}`; {instead}", path.display()))
        };
        match table.lacking(further, &path) {
            Ok(lacking) => found.extend(lacking.into_iter().map(said)),
            Err(error) => found.push((key, error.to_string())),
        }
    }
    found
}

/// The same of a config that has other mistakes, as far as its sections can be read.
pub(crate) fn lacking_columns_of(tree: &Tree, data_dir: &Path) -> Vec<Problem> {
    let sections = Sections::of(&tree.seen_by::<ExperimentConfig>());
    let lacking = sections.columns().map(|(data, further)| lacking_columns(data, &further, data_dir));
    lacking.into_iter().flatten().map(|(key, message)| tree.problem(&key, message)).collect()
}
