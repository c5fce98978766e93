//! From layers of settings to a config without problems.

use std::path::Path;

use antiphon_config::Tree;
use antiphon_core::{Error, Problem, Result};
use serde_json::{Map, Value};

use super::checks::{Sections, Warnings};
use super::config::ExperimentConfig;

/// A config that was read and has no problems.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings, defaults filled in.
    pub config: ExperimentConfig,
    /// What its run is called.
    pub name: String,
    /// Settings that are valid but have no effect, or hardly the one that was meant.
    pub warnings: Vec<Problem>,
    /// The dotted keys of those without effect.
    idle: Vec<String>,
}

impl Loaded {
    /// Reads and checks the config in `file` with assignments from the command line.
    ///
    /// # Errors
    /// With all mistakes at once: of the schema, of single sections and between sections.
    pub fn read(file: &Path, sets: &[String]) -> Result<Self> {
        Self::from_tree(&Tree::load(file, sets)?)
    }

    /// Checks what several layers say together.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_tree(tree: &Tree) -> Result<Self> {
        let seen = tree.seen_by::<ExperimentConfig>();
        let sections = Sections::of(&seen);
        let whole = tree.read::<ExperimentConfig>();
        let mut problems = whole.as_ref().err().map_or_else(Vec::new, |error| error.problems.clone());
        problems.extend(sections.problems(tree));
        match whole {
            Ok(config) if problems.is_empty() => {
                let name = config.name.clone().unwrap_or_else(|| name_of(tree.file()));
                let Warnings { mut warnings, idle } = sections.warnings(tree);
                warnings.extend(overruled(tree, &seen));
                Ok(Self { config, name, warnings, idle })
            }
            _ => Err(Error::many(tree.file(), problems)),
        }
    }
}

impl Loaded {
    /// Checks that the parts of the model that its settings name by path are there; `tree` is what it was read from.
    ///
    /// # Errors
    /// With all that are not.
    pub(crate) fn check_parts(&self, tree: &Tree) -> Result<()> {
        let problems = self.config.problems_of_parts().map_err(|error| error.in_file(tree.file()))?;
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Error::many(tree.file(), problems.into_iter().map(|problem| tree.placed(problem)).collect())),
        }
    }

    /// The settings that decide a run's figures, and of these only what has an effect: all else is at its default, or `null`
    /// where the default may have an effect.
    pub(crate) fn effective(&self) -> Value {
        let mut config = self.config.decisive();
        // How often a run saves itself decides nothing.
        for key in self.idle.iter().map(String::as_str).chain(["train.checkpoint"]) {
            if let Some((table, last)) = within(&mut config, key) {
                table.remove(last);
            }
        }
        // A key without a default stays as it is.
        let defaults = serde_json::from_value::<ExperimentConfig>(config);
        let mut config = defaults.map_or_else(|_| self.config.counted(), |config| config.counted());
        if self.idle.iter().any(|key| key == ACTIVE_BY_DEFAULT)
            && let Some((table, last)) = within(&mut config, ACTIVE_BY_DEFAULT)
        {
            table.insert(last.to_owned(), Value::Null);
        }
        config
    }
}

/// A setting of which a large value has no effect, and the default may have one. All others that have none at some value have
/// none at their defaults.
const ACTIVE_BY_DEFAULT: &str = "train.schedule.patience";

/// The table of a dotted key, and its last part.
fn within<'c, 'k>(config: &'c mut Value, key: &'k str) -> Option<(&'c mut Map<String, Value>, &'k str)> {
    let (table, last) = key.rsplit_once('.').unwrap_or(("", key));
    let pointer: String = table.split('.').filter(|part| !part.is_empty()).map(|part| format!("/{part}")).collect();
    Some((config.pointer_mut(&pointer)?.as_object_mut()?, last))
}

/// What was inherited and has no effect beside another `kind`. What `replace` dropped was dropped on purpose.
fn overruled(tree: &Tree, seen: &Tree) -> Vec<Problem> {
    let on_purpose = tree.dropped();
    let dropped = seen.dropped().into_iter().filter(|key| !on_purpose.contains(key));
    let message = "has no effect, and is dropped; `replace = true` in its table says that this is meant";
    dropped.map(|(key, _)| tree.problem(&key, message)).collect()
}

/// `configs/g2p/quickstart.toml` becomes `g2p-quickstart`; a file elsewhere keeps its stem.
fn name_of(file: &Path) -> String {
    let plain = file.with_extension("");
    let parts: Vec<String> = plain.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let below = parts.iter().rposition(|part| part == "configs").map_or(parts.len().saturating_sub(1), |at| at + 1);
    parts.get(below..).unwrap_or_default().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_called_after_its_config() {
        for (file, name) in [
            ("configs/g2p/quickstart.toml", "g2p-quickstart"),
            ("/home/x/configs/base.toml", "base"),
            ("../my/run.v2.toml", "run.v2"),
            ("a.toml", "a"),
        ] {
            assert_eq!(name_of(Path::new(file)), name);
        }
    }
}
