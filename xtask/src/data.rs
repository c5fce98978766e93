//! Which data set a config needs, and whether it is there.
//!
//! A config says `recipe = "cmudict"` in its `[data]` section; the recipe fills the folder of the same name below the folder
//! of data sets, and the config's files are named from there: `train = "cmudict/train.tsv"`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use antiphon_config::Tree;
use antiphon_core::Result;
use serde_json::Value;

use crate::program::Program;
use crate::stop::Outcome;

/// A data set that `antiphon data NAME` prepares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recipe {
    /// Its name.
    pub(crate) name: String,
    /// The files of it that the config reads, below the folder of data sets.
    files: Vec<PathBuf>,
}

impl Recipe {
    /// The recipe that a config names, if it does. `sets` are assignments that change the config.
    pub(crate) fn of(config: &Path, sets: &[String]) -> Result<Option<Self>> {
        Ok(Self::named_in(Tree::load(config, sets)?.value()))
    }

    fn named_in(config: &Value) -> Option<Self> {
        let data = config.get("data")?;
        let name = data.get("recipe")?.as_str()?.to_string();
        let mut files = Vec::new();
        collect(data, &format!("{name}/"), &mut files);
        Some(Self { name, files })
    }

    /// Whether a file of it is missing. Without `data_dir` the folder of data sets is what the environment says, or `data`.
    pub(crate) fn is_missing(&self, data_dir: Option<&Path>) -> bool {
        let folder = data_dir.map(Path::to_path_buf);
        let folder =
            folder.or_else(|| std::env::var_os("ANTIPHON_DATA_DIR").filter(|v| !v.is_empty()).map(PathBuf::from));
        let folder = folder.unwrap_or_else(|| "data".into());
        !self.files.iter().all(|file| folder.join(file).is_file())
    }
}

/// The data sets that a command with configs among its words needs.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Needs {
    recipes: Vec<Recipe>,
    data_dir: Option<PathBuf>,
}

impl Needs {
    pub(crate) fn new(recipes: impl IntoIterator<Item = Recipe>, data_dir: Option<PathBuf>) -> Self {
        Self { recipes: recipes.into_iter().collect(), data_dir }
    }

    /// Looks for configs, assignments and the folder of data sets among the words of a command. Whatever file is named may be a
    /// config; one that is not called so and cannot be read as one is the program's business.
    pub(crate) fn of(words: &[OsString]) -> Result<Self> {
        let (mut configs, mut others, mut sets, mut data_dir) = (Vec::new(), Vec::new(), Vec::new(), None);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let text = word.to_string_lossy();
            match text.split_once('=').filter(|(name, _)| name.starts_with("--")) {
                Some(("--data-dir", folder)) => data_dir = Some(PathBuf::from(folder)),
                Some(("--set", set)) => sets.push(set.to_owned()),
                _ if text == "--data-dir" => data_dir = words.next().map(PathBuf::from),
                _ if text == "--set" => sets.extend(words.next().map(|set| set.to_string_lossy().into_owned())),
                _ if text.ends_with(".toml") => configs.push(PathBuf::from(word)),
                _ if Path::new(word).is_file() => others.push(PathBuf::from(word)),
                _ => {}
            }
        }
        let mut recipes: Vec<Recipe> = Vec::new();
        for config in configs {
            recipes.extend(Recipe::of(&config, &sets)?);
        }
        recipes.extend(others.iter().filter_map(|file| Recipe::of(file, &sets).ok().flatten()));
        Ok(Self::new(recipes, data_dir))
    }

    /// Prepares what is missing.
    pub(crate) fn prepare(&self, program: &Program) -> Outcome {
        for recipe in self.recipes.iter().filter(|recipe| recipe.is_missing(self.data_dir.as_deref())) {
            let mut words: Vec<OsString> = vec!["data".into(), recipe.name.clone().into()];
            words.extend(self.data_dir.iter().flat_map(|folder| ["--data-dir".into(), folder.clone().into()]));
            program.call(&words)?;
        }
        Ok(())
    }
}

/// All texts in a value that begin like a file of the recipe.
fn collect(value: &Value, beginning: &str, files: &mut Vec<PathBuf>) {
    match value {
        Value::String(text) if text.starts_with(beginning) => files.push(text.into()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, beginning, files)),
        Value::Object(table) => table.values().for_each(|item| collect(item, beginning, files)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_recipe_is_missing_until_every_file_of_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "base.toml", "[data]\nrecipe = \"toy\"\n");
        let text = "extends = \"base.toml\"\n[data]\nkind = \"pairs\"\ntrain = \"toy/train.tsv\"\ntest = [\"toy/a.tsv\", \"my/b.tsv\"]\n";
        let config = write(folder.path(), "run.toml", text);
        let recipe = Recipe::of(&config, &[]).unwrap().unwrap();
        assert_eq!(recipe.name, "toy");
        let missing = || recipe.is_missing(Some(&folder.path().join("data")));
        assert!(missing());
        write(folder.path(), "data/toy/train.tsv", "");
        assert!(missing());
        write(folder.path(), "data/toy/a.tsv", "");
        assert!(!missing());
    }

    #[test]
    fn assignments_reach_the_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let config = write(folder.path(), "run.toml", "[data]\ntrain = \"toy/train.tsv\"\n");
        assert_eq!(Recipe::of(&config, &[]).unwrap(), None);
        let recipe = Recipe::of(&config, &["data.recipe=toy".into()]).unwrap();
        assert_eq!(recipe, Some(Recipe { name: "toy".into(), files: vec!["toy/train.tsv".into()] }));
    }

    #[test]
    fn configs_among_words_tell_what_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let config = write(folder.path(), "run.toml", "[data]\ntrain = \"toy/train.tsv\"\n");
        let words = |more: &str| -> Vec<OsString> {
            let config = config.clone().into_os_string();
            ["sweep".into(), config].into_iter().chain(more.split_whitespace().map(OsString::from)).collect()
        };
        assert_eq!(Needs::of(&words("--jobs 2")).unwrap(), Needs::default());
        let toy = Recipe { name: "toy".into(), files: vec!["toy/train.tsv".into()] };
        for more in ["--set data.recipe=toy --data-dir d", "--data-dir=d --set=data.recipe=toy -q"] {
            let needs = Needs::of(&words(more)).unwrap();
            assert_eq!((needs.recipes, needs.data_dir), (vec![toy.clone()], Some("d".into())), "{more}");
        }
        assert!(Needs::of(&["sweep".into(), "nowhere.toml".into()]).is_err());
    }

    #[test]
    fn a_config_may_be_called_anything() {
        let folder = tempfile::tempdir().unwrap();
        let config = write(folder.path(), "run.conf", "[data]\nrecipe = \"toy\"\n");
        let other = write(folder.path(), "notes", "no config");
        let needs = Needs::of(&["run".into(), config.into(), "--notes".into(), other.into()]).unwrap();
        assert_eq!(needs.recipes.len(), 1);
    }

    #[test]
    fn a_recipe_that_was_inherited_and_is_not_used_is_not_asked() {
        let data = serde_json::json!({ "data": { "recipe": "toy", "train": "/corpora/train.tsv" } });
        assert!(!Recipe::named_in(&data).unwrap().is_missing(None));
    }

    #[test]
    fn a_config_that_cannot_be_read_is_named() {
        let error = Recipe::of(Path::new("nowhere/run.toml"), &[]).unwrap_err().to_string();
        assert!(error.starts_with("nowhere/run.toml: "), "{error}");
    }
}
