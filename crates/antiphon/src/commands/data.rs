//! `antiphon data`: prepare a data set by its recipe, or tell what its splits have in common.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Place, Result};
use antiphon_data::recipe::{Prepared, PreparedFile, Recipe};
use antiphon_data::{Corpus, Known, Overlap, Split};

use super::downloads::Downloads;
use super::{DataFolder, Ending, Sets};
use crate::experiment::{Loaded, files_are_there};
use crate::output::{columns, print};

/// Prepare a data set by its recipe: show its licence, fetch it, check it, split it; or tell what its splits have in common
///
/// Of a config, which ends with `.toml`, it tells how much of validation and test stands in train too: how many examples have a source, in all
/// of its streams, that is one of train; how many are an example of train as a whole; and how many have a line or turn in a
/// source (of a language model's corpus, in the text) of more than five words which is also a line of train, whatever its case and punctuation.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The recipe, the name of a folder below `recipes`; or a config
    name: String,
    /// The folder that holds the files, if they are not to be fetched or cannot be
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    #[command(flatten)]
    sets: Sets,
    #[command(flatten)]
    data: DataFolder,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        if self.name.ends_with(".toml") {
            return self.overlap();
        }
        if !self.sets.set.is_empty() {
            let message = "a recipe has no settings that could be changed; leave it out, or name a config";
            return Err(Error::new(message).at(Place::text("--set")));
        }
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

impl Arguments {
    /// Prints what the splits of a config have in common.
    fn overlap(&self) -> Result<Ending> {
        if self.from.is_some() {
            let message = "says where a recipe finds its files; leave it out, or name the recipe instead of a config";
            return Err(Error::new(message).at(Place::text("--from")));
        }
        let path = Path::new(&self.name);
        let (config, data_dir) = (Loaded::read(path, &self.sets.set)?.config, self.data.path());
        let others: Vec<Split> =
            [Split::Validation, Split::Test].into_iter().filter(|&split| config.data.has(split)).collect();
        if others.is_empty() {
            let message = "names neither validation nor test, which could have something in common with train";
            return Err(Error::new(message).in_file(path).at("data"));
        }
        files_are_there(&config.data, None, &data_dir)?;
        let open = |split| Corpus::open_with(&config.data, &config.further_columns(), split, &data_dir);
        let known = Known::of(&open(Split::Train)?)?;
        let mut rows = vec![
            ["", "examples", "source in train", "all in train", "a long line in train"].map(str::to_owned).to_vec(),
        ];
        for split in others {
            let Overlap { examples, sources, whole, lines } = known.overlap(&open(split)?)?;
            let share = |count: u64| format!("{count} ({:.1} %)", 100.0 * count as f64 / examples as f64);
            let sources = if config.data.has_source() { share(sources) } else { "-".into() };
            rows.push(vec![split.to_string(), examples.to_string(), sources, share(whole), share(lines)]);
        }
        print(&columns(&rows))?;
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
