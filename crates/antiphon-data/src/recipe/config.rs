//! `recipe.toml`.

use antiphon_core::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    pub files: Vec<FileConfig>,
    /// What is made of them.
    pub preparation: PreparationConfig,
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

/// A file that is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// Its path below the origin, with `/`.
    pub name: String,
    /// The SHA-256 of its content, in lower-case hexadecimal.
    pub sha256: String,
}

/// Where files come from, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OriginConfig {
    /// A crate that ships them: cargo fetches it.
    Crate(CrateOrigin),
    /// The user has them: `--from DIR`.
    Local(LocalOrigin),
}

/// A crate that ships files. The recipe's folder holds a `Cargo.toml` that depends on it and is never built, and the
/// `Cargo.lock` that fixes its version and checksum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrateOrigin {
    /// The crate.
    pub package: String,
}

/// Files that the user has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalOrigin {
    /// Where a person gets them.
    pub source: String,
}

/// What is made of the files, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PreparationConfig {
    /// A pronouncing dictionary in the format of CMUdict, split by a hash of the word.
    Cmudict(Cmudict),
    /// The `g014b2b` split of CMUdict, with words held out of train for validation.
    G014b2b(G014b2b),
    /// The first lines of a file of pairs.
    PairsByLines(PairsByLines),
    /// Files as they are, under new names.
    Copy(Copies),
}

/// A pronouncing dictionary: `WORD P1 H2 …` a line.
///
/// Comments (lines that begin with `;;;`, and what follows a `#`), variant marks (`(2)`) and stress digits are removed,
/// words are lower-cased, and only words of a–z and apostrophe are kept, each pronunciation once. A word belongs to test
/// if its 64-bit FNV-1a hash modulo 1000 is below `test`, else to validation if it is below `test + validation`, else
/// to train; so all pronunciations of a word stay together, on every machine and whatever else the dictionary holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cmudict {
    /// The dictionary.
    pub file: String,
    /// How many words of a thousand are for the test.
    #[schemars(range(min = 1, max = 499))]
    pub test: u64,
    /// How many words of a thousand are for validation.
    #[schemars(range(min = 1, max = 499))]
    pub validation: u64,
}

/// The `g014b2b` split: `WORD<TAB>P H O N E S` a line.
///
/// It has no validation words, so some are held out of train: the first `validation_words` distinct words in the order
/// of a scattered hash, `Key::from_seed(0).named(word).bits()` of `antiphon_core::random`. Lines keep their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct G014b2b {
    /// The lines of train and validation.
    pub train: String,
    /// The lines of the test.
    pub test: String,
    /// How many words are held out.
    #[schemars(range(min = 1))]
    pub validation_words: usize,
}

/// Pairs `source<TAB>target`: the first lines are train, the next are validation, the rest is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PairsByLines {
    /// The pairs.
    pub file: String,
    /// How many lines are for training.
    #[schemars(range(min = 1))]
    pub train: usize,
    /// How many lines are for validation.
    #[schemars(range(min = 1))]
    pub validation: usize,
}

/// Files as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Copies {
    /// Each file with its new name.
    pub copies: Vec<Copy>,
}

/// A file with its new name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// Its name among `files`.
    pub from: String,
    /// Its path below the prepared folder, with `/`.
    pub to: String,
}

impl RecipeConfig {
    /// All that makes the recipe unusable.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |place: String, message: String| problems.push(Problem { place, message });
        for (i, file) in self.files.iter().enumerate() {
            if !is_inside(&file.name) {
                add(format!("files[{i}].name"), format!("`{}` is not a plain relative path", file.name));
            }
            let hexadecimal = |c: char| matches!(c, '0'..='9' | 'a'..='f');
            if file.sha256.len() != 64 || !file.sha256.chars().all(hexadecimal) {
                add(format!("files[{i}].sha256"), "not 64 digits of lower-case hexadecimal".into());
            }
        }
        let listed = |name: &str| self.files.iter().any(|file| file.name == name);
        let mut taken: Vec<(String, &str)> = self.preparation.inputs();
        taken.extend(self.licence.file.iter().map(|file| ("licence.file".to_string(), file.as_str())));
        for (place, name) in taken {
            if !listed(name) {
                add(place, format!("`{name}` is not among `files`"));
            }
        }
        match &self.preparation {
            PreparationConfig::Cmudict(c) => {
                for (key, n) in [("test", c.test), ("validation", c.validation)] {
                    if !(1..500).contains(&n) {
                        add(format!("preparation.{key}"), format!("must be from 1 to 499, got {n}"));
                    }
                }
            }
            PreparationConfig::G014b2b(c) if c.validation_words == 0 => {
                add("preparation.validation_words".into(), "must be at least 1, got 0".into());
            }
            PreparationConfig::PairsByLines(c) => {
                for (key, n) in [("train", c.train), ("validation", c.validation)] {
                    if n == 0 {
                        add(format!("preparation.{key}"), "must be at least 1, got 0".into());
                    }
                }
            }
            PreparationConfig::Copy(c) => {
                if c.copies.is_empty() {
                    add("preparation.copies".into(), "the list is empty".into());
                }
                for (i, copy) in c.copies.iter().enumerate() {
                    let place = format!("preparation.copies[{i}].to");
                    if !is_inside(&copy.to) {
                        add(place, format!("`{}` is not a plain relative path", copy.to));
                    } else if ["recipe.json", "LICENCE"].contains(&copy.to.as_str())
                        || c.copies[..i].iter().any(|other| other.to == copy.to)
                    {
                        add(place, format!("`{}` is written already", copy.to));
                    }
                }
            }
            PreparationConfig::G014b2b(_) => {}
        }
        problems
    }
}

impl PreparationConfig {
    /// The files that it reads, each with the key that names it.
    fn inputs(&self) -> Vec<(String, &str)> {
        match self {
            Self::Cmudict(c) => vec![("preparation.file".into(), &c.file)],
            Self::PairsByLines(c) => vec![("preparation.file".into(), &c.file)],
            Self::G014b2b(c) => vec![("preparation.train".into(), &c.train), ("preparation.test".into(), &c.test)],
            Self::Copy(c) => c
                .copies
                .iter()
                .enumerate()
                .map(|(i, copy)| (format!("preparation.copies[{i}].from"), copy.from.as_str()))
                .collect(),
        }
    }
}

/// Whether a path of `/` stays below the folder that it is joined to, on every system.
fn is_inside(name: &str) -> bool {
    name.split('/').all(|part| !matches!(part, "" | "." | "..")) && !name.contains(['\\', ':'])
}
