//! `recipe.toml`.

use antiphon_core::{Place, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::files::{FileConfig, is_inside, is_sha256};
use super::origin::OriginConfig;
use super::prepare::PreparationConfig;
use super::store::RECORD;

/// `recipes/<name>/recipe.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecipeConfig {
    /// What the data is, in a line.
    pub title: String,
    /// Under which terms it may be used.
    pub licence: Licence,
    /// Where the files come from.
    pub origin: OriginConfig,
    /// The files that are taken.
    #[serde(default)]
    pub files: Vec<FileConfig>,
    /// A file beside the recipe that lists more of them, in the format of `sha256sum`: for corpora of many files.
    #[serde(default)]
    pub more_files: Option<String>,
    /// What is made of them, step by step.
    pub preparation: Vec<PreparationConfig>,
}

/// The terms of the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// Its common name.
    pub name: String,
    /// Where its text or the statement of it stands.
    pub source: String,
    /// Its text among `files`, if it comes with the data: it is shown, and kept beside what is prepared as `LICENCE`.
    #[serde(default)]
    pub file: Option<String>,
}

/// The name of the licence's copy.
pub(super) const LICENCE: &str = "LICENCE";

impl RecipeConfig {
    /// Adds the files of a list in the format of `sha256sum`: a digest, two spaces or ` *`, a name.
    pub(super) fn add_listed(&mut self, list: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (i, line) in list.lines().enumerate() {
            match line.split_once("  ").or_else(|| line.split_once(" *")) {
                Some((sha256, name)) => self.files.push(FileConfig { name: name.into(), sha256: sha256.into() }),
                None => problems.push(Problem {
                    place: Place::line(i + 1),
                    message: "not a digest, two spaces and a name, as `sha256sum` writes them".into(),
                }),
            }
        }
        problems
    }

    /// All that makes the recipe unusable.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (i, file) in self.files.iter().enumerate() {
            let mut add = |key: &str, message: String| {
                problems.push(Problem { place: format!("files[{i}].{key}").into(), message })
            };
            if !is_inside(&file.name) {
                add("name", format!("`{}` is not a plain relative path", file.name));
            }
            if !is_sha256(&file.sha256) {
                add("sha256", "not 64 digits of lower-case hexadecimal".into());
            }
        }
        problems.extend(
            self.licence.file.iter().filter(|file| !self.has(file)).map(|file| unlisted("licence.file".into(), file)),
        );
        problems.extend(self.origin.problems(&self.files).into_iter().map(|problem| problem.below("origin")));
        self.check_preparations(&mut problems);
        problems
    }

    fn check_preparations(&self, problems: &mut Vec<Problem>) {
        if self.preparation.is_empty() {
            problems.push(Problem { place: "preparation".into(), message: "the list is empty: name a step".into() });
        }
        let mut written: Vec<String> = vec![RECORD.into(), LICENCE.into()];
        for (i, step) in self.preparation.iter().enumerate() {
            let step = step.preparation();
            let place = |key: &str| format!("preparation[{i}].{key}");
            for (key, name) in step.inputs() {
                if !self.has(name) {
                    problems.push(unlisted(place(&key), name));
                }
            }
            for (key, name) in step.outputs() {
                let message = if !is_inside(&name) {
                    format!("`{name}` is not a plain relative path")
                } else if written.contains(&name) {
                    format!("`{name}` is written already")
                } else {
                    written.push(name);
                    continue;
                };
                problems.push(Problem { place: place(&key).into(), message });
            }
            problems.extend(step.problems().into_iter().map(|problem| problem.below(&format!("preparation[{i}]"))));
        }
    }

    fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.name == name)
    }
}

fn unlisted(place: String, name: &str) -> Problem {
    Problem { place: place.into(), message: format!("`{name}` is not among `files`") }
}
