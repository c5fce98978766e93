//! `antiphon data`: prepare a data set by its recipe.

use std::path::{Path, PathBuf};

use antiphon_core::{Error, Result};
use antiphon_data::recipe::Recipe;

use super::{DataFolder, Ending};
use crate::output::{print, tell};

/// Prepare a data set by its recipe
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The recipe: the name of a folder below `recipes`
    name: String,
    /// The folder that holds the files, for recipes that cannot fetch them
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
        let prepared = recipe.prepare(&folder, self.from.as_deref(), &self.data.path(), &mut |line| tell(line))?;
        for file in &prepared.files {
            print(&format!("{}  {} lines\n", prepared.folder.join(&file.name).display(), file.lines))?;
        }
        Ok(Ending::Done)
    }
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
