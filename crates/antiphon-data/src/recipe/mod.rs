//! Recipes: from what somebody published to the files that a corpus reads.
//!
//! `recipes/<name>/recipe.toml` says where data comes from, under which licence, with which SHA-256 each file must come
//! and how it is prepared. The result is a folder `<data>/<name>` that appears whole or not at all, with a
//! `recipe.json` that lists what was written: a second preparation finds it and does nothing.

mod config;
mod origin;
mod prepare;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Result};

pub use config::{
    Cmudict, Copies, Copy, CrateOrigin, FileConfig, G014b2b, Licence, LocalOrigin, OriginConfig, PairsByLines,
    PreparationConfig, RecipeConfig,
};

use store::{Found, Output};

/// A recipe, read and checked.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The name of its folder, and of the folder that it prepares.
    pub name: String,
    /// What it says.
    pub config: RecipeConfig,
    /// The SHA-256 of `recipe.toml`.
    sha256: String,
}

/// What a preparation left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// `<data>/<name>`.
    pub folder: PathBuf,
    /// What was written below it, by name.
    pub files: Vec<PreparedFile>,
    /// False if everything was there already.
    pub fresh: bool,
}

/// A file that a preparation wrote.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreparedFile {
    /// Its path below the prepared folder, with `/`.
    pub name: String,
    /// Its SHA-256.
    pub sha256: String,
    /// How many lines it has.
    pub lines: usize,
}

impl Recipe {
    /// Reads `recipes/<name>/recipe.toml`.
    ///
    /// # Errors
    /// If the file cannot be read, is not a recipe, or takes or writes a file that it should not; all problems at once.
    pub fn load(path: &Path) -> Result<Recipe> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", &e))?;
        let config: RecipeConfig = toml::from_str(&text).map_err(|e| {
            let error = Error::new(e.message()).in_file(path);
            match e.span() {
                Some(span) => error.at(format_args!("line {}", text[..span.start].lines().count().max(1))),
                None => error,
            }
        })?;
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(Error::many(path, problems));
        }
        let folder = path.parent().and_then(Path::file_name).and_then(OsStr::to_str);
        let name = folder.ok_or_else(|| {
            Error::new("a recipe lies in a folder that has its name: `recipes/<name>/recipe.toml`").in_file(path)
        })?;
        Ok(Recipe { name: name.into(), config, sha256: crate::digest::sha256(text.as_bytes()) })
    }

    /// The names of the recipes in a folder, sorted.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn names(recipes: &Path) -> Result<Vec<String>> {
        let reading = |e: std::io::Error| Error::io(recipes, "read the folder", &e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(recipes).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            if entry.path().join("recipe.toml").is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Prepares `<data_dir>/<name>`, unless it is there already. `log` gets a line of text at a time, the licence before
    /// anything is written. `from` is the folder that holds the files of a local recipe.
    ///
    /// # Errors
    /// If a file is missing or not the one that the recipe means, cargo cannot fetch it, its content cannot be used, the
    /// folder holds something else than this recipe wrote, or the disk is full. Then nothing has changed.
    pub fn prepare(
        &self,
        recipe_dir: &Path,
        from: Option<&Path>,
        data_dir: &Path,
        log: &mut dyn FnMut(&str),
    ) -> Result<Prepared> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        self.prepare_with(&cargo, recipe_dir, from, data_dir, log)
    }

    fn prepare_with(
        &self,
        cargo: &OsStr,
        recipe_dir: &Path,
        from: Option<&Path>,
        data_dir: &Path,
        log: &mut dyn FnMut(&str),
    ) -> Result<Prepared> {
        let folder = data_dir.join(&self.name);
        let outdated = match store::find(&folder, &self.sha256)? {
            Found::Prepared(files) => {
                log(&format!("{}: already prepared in `{}`", self.name, folder.display()));
                return Ok(Prepared { folder, files, fresh: false });
            }
            Found::Outdated => true,
            Found::Nothing => false,
        };
        let root = self.config.origin.locate(cargo, recipe_dir, from, &self.config, log)?;
        let inputs = self.read(&root)?;
        self.show_licence(&root, &inputs, log);
        let mut outputs = self.config.preparation.run(&Inputs { root: &root, files: &inputs }, log)?;
        if let Some(licence) = &self.config.licence.file {
            outputs.push(Output { name: "LICENCE".into(), bytes: inputs[licence].clone() });
        }
        let files = store::write(data_dir, &self.name, &self.sha256, outputs, outdated)?;
        log(&format!("{}: prepared in `{}`", self.name, folder.display()));
        Ok(Prepared { folder, files, fresh: true })
    }

    /// All files that the recipe names, each checked. All that is wrong is reported at once.
    fn read(&self, root: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut files = BTreeMap::new();
        let mut problems = Vec::new();
        for FileConfig { name, sha256 } in &self.config.files {
            let problem = match std::fs::read(root.join(name)) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => "no such file".to_string(),
                Err(e) => format!("cannot read: {e}"),
                Ok(bytes) => match crate::digest::sha256(&bytes) {
                    found if found == *sha256 => {
                        files.insert(name.clone(), bytes);
                        continue;
                    }
                    found => format!("not the file that the recipe means: its SHA-256 is {found}, not {sha256}"),
                },
            };
            problems.push(antiphon_core::Problem { place: name.clone(), message: problem });
        }
        if let Some(last) = problems.last_mut() {
            let source = match &self.config.origin {
                OriginConfig::Local(local) => format!("; get it from {}", local.source),
                OriginConfig::Crate(_) => "; remove this folder and try again".to_string(),
            };
            last.message += &source;
            return Err(Error::many(root, problems));
        }
        Ok(files)
    }

    fn show_licence(&self, root: &Path, files: &BTreeMap<String, Vec<u8>>, log: &mut dyn FnMut(&str)) {
        let RecipeConfig { title, licence, .. } = &self.config;
        log(&format!("{}: {title}", self.name));
        log(&format!("licence: {} ({})", licence.name, licence.source));
        if let Some(file) = &licence.file {
            log(&format!("its text, from `{}`:", root.join(file).display()));
            for line in String::from_utf8_lossy(&files[file]).lines() {
                log(&format!("  {line}"));
            }
        }
    }
}

/// The files that a preparation reads.
struct Inputs<'a> {
    root: &'a Path,
    files: &'a BTreeMap<String, Vec<u8>>,
}

impl Inputs<'_> {
    fn bytes(&self, name: &str) -> &[u8] {
        &self.files[name]
    }

    fn text(&self, name: &str) -> Result<&str> {
        std::str::from_utf8(self.bytes(name))
            .map_err(|e| self.error(name, format!("not UTF-8 at byte {}", e.valid_up_to() + 1)))
    }

    fn error(&self, name: &str, message: String) -> Error {
        Error::new(message).in_file(self.root.join(name))
    }
}
