//! Recipes: from what somebody published to the files that a corpus reads.
//!
//! `recipes/<name>/recipe.toml` says where data comes from, under which licence, with which SHA-256 each file must come
//! and how it is prepared. The result is a folder `<data>/<name>` that appears whole or not at all, with a
//! `recipe.json` that lists what was written: a second preparation finds it and does nothing. What is being fetched lies
//! in `<data>/.downloads/<name>` until then.

mod audience;
mod config;
mod files;
mod inputs;
mod origin;
mod prepare;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Place, Result};

pub use audience::{Audience, Progress};
pub use config::{Licence, RecipeConfig};
pub use files::{FileConfig, PreparedFile};
pub use origin::{
    Archive, Content, CrateOrigin, Download, DownloadOrigin, LocalOrigin, OriginConfig, Patience, PlainFile,
};
pub use prepare::{
    Cmudict, Copies, Copy, DialogTask, Dialogs, G014b2b, Inflections, ListedRecordings, NumberedRecordings,
    PairsByLines, PreparationConfig, Replies, SpeechList, Stories, StoryTask, TextByShare,
};

use crate::lines::text_of;
use config::LICENCE;
use files::Output;
use inputs::Inputs;
use origin::Tools;
use store::Standing;

/// A recipe, read and checked.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The name of its folder, and of the folder that it prepares.
    pub name: String,
    /// What it says, with the files of `more_files`.
    pub config: RecipeConfig,
    /// The SHA-256 of `recipe.toml`, and of the list of `more_files` behind it.
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

impl Recipe {
    /// Reads `recipes/<name>/recipe.toml`.
    ///
    /// # Errors
    /// If the file cannot be read, is not a recipe, or takes or writes a file that it should not; all problems at once.
    pub fn load(path: &Path) -> Result<Recipe> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", &e))?;
        let mut config: RecipeConfig = toml::from_str(&text).map_err(|e| {
            let error = Error::new(e.message()).in_file(path);
            match e.span() {
                Some(span) => error.at(Place::line(text[..span.start].lines().count().max(1))),
                None => error,
            }
        })?;
        let mut digested = text.into_bytes();
        if let Some(list) = config.more_files.clone() {
            digested.extend(add_listed(&mut config, &path.with_file_name(list))?);
        }
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(Error::many(path, problems));
        }
        let folder = path.parent().and_then(Path::file_name).and_then(OsStr::to_str);
        let name = folder.ok_or_else(|| {
            Error::new("a recipe lies in a folder that has its name: `recipes/<name>/recipe.toml`").in_file(path)
        })?;
        Ok(Recipe { name: name.into(), config, sha256: crate::digest::sha256(&digested) })
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

    /// Prepares `<data_dir>/<name>`, unless it is there already. `audience` hears the licence before anything is fetched or
    /// written. `from` is the folder that holds the files, if they are not to be fetched.
    ///
    /// # Errors
    /// If a file is missing or not the one that the recipe means, it cannot be fetched, its content cannot be used, the
    /// folder holds something else than this recipe wrote, or the disk is full. Then nothing has changed, but for what
    /// has been fetched so far: the next attempt goes on from there.
    pub fn prepare(
        &self,
        recipe_dir: &Path,
        from: Option<&Path>,
        data_dir: &Path,
        audience: &mut dyn Audience,
    ) -> Result<Prepared> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let tools = Tools { cargo: &cargo, patience: Patience::default() };
        self.prepare_with(&tools, recipe_dir, from, data_dir, audience)
    }

    fn prepare_with(
        &self,
        tools: &Tools<'_>,
        recipe_dir: &Path,
        from: Option<&Path>,
        data_dir: &Path,
        audience: &mut dyn Audience,
    ) -> Result<Prepared> {
        let folder = data_dir.join(&self.name);
        let outdated = match store::find(&folder, &self.sha256)? {
            Standing::Prepared(files) => {
                audience.line(&format!("{}: already prepared in `{}`", self.name, folder.display()));
                return Ok(Prepared { folder, files, fresh: false });
            }
            Standing::Outdated => true,
            Standing::Nothing => false,
        };
        let RecipeConfig { title, licence, .. } = &self.config;
        audience.line(&format!("{}: {title}", self.name));
        audience.line(&format!("licence: {} ({})", licence.name, licence.source));
        let fetched = origin::fetched_folder(data_dir, &self.name);
        let located = self.config.origin.locate(&self.config.files, recipe_dir, &fetched, from, tools, audience)?;
        let files = self.read(&located.root)?;
        let inputs = Inputs { root: &located.root, files: &files };
        self.show_licence(&inputs, audience);
        let mut outputs = Vec::new();
        for (i, step) in self.config.preparation.iter().enumerate() {
            for output in step.preparation().run(&inputs, &mut |line| audience.line(line))? {
                if outputs.iter().any(|other: &Output| other.name == output.name) {
                    let message = format!(
                        "writes `{}`, as a step before it does: set another `into`, or make it a recipe of its own",
                        output.name
                    );
                    return Err(Error::new(message).at(format!("preparation[{i}]")).in_file(recipe_dir));
                }
                outputs.push(output);
            }
        }
        if let Some(licence) = &self.config.licence.file {
            outputs.push(Output { name: LICENCE.into(), bytes: inputs.bytes(licence).to_vec() });
        }
        let files = store::write(data_dir, &self.name, &self.sha256, outputs, outdated)?;
        if located.fetched {
            origin::clear_fetched(data_dir, &self.name)?;
        }
        audience.line(&format!("{}: prepared in `{}`", self.name, folder.display()));
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
            problems.push(antiphon_core::Problem { place: Place::text(name), message: problem });
        }
        if let Some(last) = problems.last_mut() {
            last.message += &format!("; {}", self.config.origin.remedy());
            return Err(Error::many(root, problems));
        }
        Ok(files)
    }

    /// The licence's text, if it came with the data; of a long one the beginning.
    fn show_licence(&self, inputs: &Inputs<'_>, audience: &mut dyn Audience) {
        const SHOWN: usize = 40;
        let Some(file) = &self.config.licence.file else { return };
        audience.line(&format!("the licence's text, from `{}`:", inputs.root.join(file).display()));
        let text = String::from_utf8_lossy(inputs.bytes(file));
        for line in text.lines().take(SHOWN) {
            audience.line(&format!("  {line}"));
        }
        let more = text.lines().count().saturating_sub(SHOWN);
        if more > 0 {
            audience.line(&format!("  … and {more} lines more, which are kept as `{LICENCE}` beside the data"));
        }
    }
}

/// Adds the files of a list, and hands back its bytes.
fn add_listed(config: &mut RecipeConfig, list: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(list).map_err(|e| Error::io(list, "read", &e))?;
    let problems = config.add_listed(text_of(&bytes).map_err(|e| e.in_file(list))?);
    if problems.is_empty() { Ok(bytes) } else { Err(Error::many(list, problems)) }
}
