//! `antiphon data`: prepare a data set by its recipe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Result};
use antiphon_data::recipe::{Prepared, PreparedFile, Recipe};

use super::downloads::Downloads;
use super::{DataFolder, Ending};
use crate::output::print;

/// Prepare a data set by its recipe: show its licence, fetch it, check it, split it
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The recipe: the name of a folder below `recipes`
    name: String,
    /// The folder that holds the files, if they are not to be fetched or cannot be
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    #[command(flatten)]
    data: DataFolder,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let recipes = recipes_folder()?;
        let names = Recipe::names(&recipes)?;
        if !names.contains(&self.name) {
            let message = format!("no recipe `{}`; there are {}", self.name, names.join(", "));
            return Err(Error::new(message).in_file(recipes));
        }
        let folder = recipes.join(&self.name);
        let recipe = Recipe::load(&folder.join("recipe.toml"))?;
        let prepared = recipe.prepare(&folder, self.from.as_deref(), &self.data.path(), &mut Downloads::new())?;
        print(&listing(&prepared))?;
        Ok(Ending::Done)
    }
}

/// A line a file; of a folder with many files, one line.
fn listing(prepared: &Prepared) -> String {
    const MANY: usize = 20;
    let top = |file: &PreparedFile| file.name.split_once('/').map_or(String::new(), |(top, _)| top.to_string());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for file in &prepared.files {
        *counts.entry(top(file)).or_default() += 1;
    }
    let path = |name: &str| prepared.folder.join(name).display().to_string();
    let many = counts.iter().filter(|(folder, count)| !folder.is_empty() && **count > MANY);
    let mut text: String = many.map(|(folder, count)| format!("{}  {count} files\n", path(folder))).collect();
    for file in prepared.files.iter().filter(|file| top(file).is_empty() || counts[&top(file)] <= MANY) {
        text += &format!("{}  {} lines\n", path(&file.name), file.lines);
    }
    text
}

/// The folder `recipes` of the current folder or one above it, otherwise of one above this program.
fn recipes_folder() -> Result<PathBuf> {
    let places = [std::env::current_dir(), std::env::current_exe()].into_iter().flatten();
    let found = places.flat_map(|place| place.ancestors().map(recipes_in).collect::<Vec<_>>()).flatten().next();
    found.ok_or_else(|| Error::new("no folder `recipes` here or above: call this inside of Antiphon's source"))
}

fn recipes_in(folder: &Path) -> Option<PathBuf> {
    let recipes = folder.join("recipes");
    let has_recipe = Recipe::names(&recipes).is_ok_and(|names| !names.is_empty());
    has_recipe.then_some(recipes)
}
