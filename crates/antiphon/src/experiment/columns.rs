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

/// The columns that the files of a corpus lack, as far as their first lines tell, and what else is wrong with their first rows: for each
/// the setting, and what to say. Files that are not there are left aside.
pub(crate) fn lacking_columns(data: &CorpusConfig, further: &FurtherColumns, data_dir: &Path) -> Vec<(String, String)> {
    let Some(table) = data.as_table() else { return Vec::new() };
    let there = |path: &Path| file_fault(path).is_none() && table.knows_format(path);
    let mut lacks: Vec<(LackingColumn, Vec<String>)> = Vec::new();
    let mut found = Vec::new();
    for (key, path) in files(data, None, data_dir).into_iter().filter(|(_, path)| there(path)) {
        let file = format!("`{}`", path.display());
        match table.lacking(further, &path) {
            Ok(lacking) if lacking.is_empty() => {
                found.extend(table.check_rows(further, &path).err().map(|error| (key, error.to_string())));
            }
            // What several files lack alike is said once.
            Ok(lacking) => {
                lacking.into_iter().for_each(|one| match lacks.iter_mut().find(|(other, _)| *other == one) {
                    Some((_, files)) => files.push(file.clone()),
                    None => lacks.push((one, vec![file.clone()])),
                })
            }
            Err(error) => found.push((key, error.to_string())),
        }
    }
    let said = |(LackingColumn { key, column, instead }, files): (LackingColumn, Vec<String>)| {
        (key, format!("no column `{column}` in {}; {instead}", files.join(", ")))
    };
    lacks.into_iter().map(said).chain(found).collect()
}

/// The same of a config that has other mistakes, as far as its sections can be read.
pub(crate) fn lacking_columns_of(tree: &Tree, data_dir: &Path) -> Vec<Problem> {
    let sections = Sections::of(&tree.seen_by::<ExperimentConfig>());
    let lacking = sections.columns().map(|(data, further)| lacking_columns(data, &further, data_dir));
    lacking.into_iter().flatten().map(|(key, message)| tree.problem(&key, message)).collect()
}
