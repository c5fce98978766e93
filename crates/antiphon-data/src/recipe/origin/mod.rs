//! Where the files of a recipe come from.

mod crates;
mod download;
mod http;
mod part;
mod unpack;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crates::CrateOrigin;
pub use download::{Download, DownloadOrigin};
pub use http::Patience;
pub use unpack::{Archive, Content, PlainFile};

use super::audience::Audience;
use super::files::FileConfig;

/// Where files come from, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OriginConfig {
    /// A crate that ships them: cargo fetches it.
    Crate(CrateOrigin),
    /// Somebody's server, or a copy that the user has: `--from DIR`.
    Download(DownloadOrigin),
    /// The user has them: `--from DIR`.
    Local(LocalOrigin),
}

/// Files that the user has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalOrigin {
    /// Where a person gets them.
    pub source: String,
}

/// What fetches files, and how long it waits.
pub(super) struct Tools<'a> {
    pub(super) cargo: &'a OsStr,
    pub(super) patience: Patience,
}

/// The files, and what is to be removed when they have been read.
pub(super) struct Located {
    pub(super) root: PathBuf,
    pub(super) fetched: bool,
}

impl OriginConfig {
    /// What is wrong with it, if these are the recipe's files.
    pub(super) fn problems(&self, files: &[FileConfig]) -> Vec<Problem> {
        match self {
            Self::Download(origin) => origin.problems(files),
            Self::Crate(_) | Self::Local(_) => Vec::new(),
        }
    }

    /// How to mend a file that is missing or another.
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::Local(local) => format!("get it from {}", local.source),
            Self::Download(origin) => format!("get it from {}, or leave out --from to have it fetched", origin.page),
            Self::Crate(_) => "remove this folder and try again".into(),
        }
    }

    /// The folder that holds the files; if need be they are fetched into the folder `fetched`.
    pub(super) fn locate(
        &self,
        files: &[FileConfig],
        recipe_dir: &Path,
        fetched: &Path,
        from: Option<&Path>,
        tools: &Tools<'_>,
        audience: &mut dyn Audience,
    ) -> Result<Located> {
        let there = |root: &Path| Ok(Located { root: root.into(), fetched: false });
        match (self, from) {
            (Self::Crate(_), Some(from)) => {
                let message = "this recipe's files come with a crate that cargo fetches: leave out --from";
                Err(Error::new(message).in_file(from))
            }
            (Self::Crate(origin), None) => {
                audience.line(&format!("asking cargo for the crate `{}`", origin.package));
                there(&origin.fetch(tools.cargo, &recipe_dir.join("Cargo.toml"))?)
            }
            (Self::Download(_) | Self::Local(_), Some(from)) if from.is_dir() => there(from),
            (Self::Download(_) | Self::Local(_), Some(from)) => {
                Err(Error::new("no such folder: --from takes one").in_file(from))
            }
            (Self::Download(origin), None) => {
                origin.fetch(files, fetched, &tools.patience, audience)?;
                Ok(Located { root: fetched.into(), fetched: true })
            }
            (Self::Local(origin), None) => Err(origin.ask(files).in_file(recipe_dir)),
        }
    }
}

/// Where the files of a recipe are fetched to.
pub(super) fn fetched_folder(data_dir: &Path, name: &str) -> PathBuf {
    download::folder(data_dir, name)
}

/// Removes what was fetched for a recipe, when it is no longer needed.
pub(super) fn clear_fetched(data_dir: &Path, name: &str) -> Result<()> {
    download::clear(data_dir, name)
}

impl LocalOrigin {
    /// What to say where there is nothing to fetch.
    fn ask(&self, files: &[FileConfig]) -> Error {
        const SHOWN: usize = 20;
        let mut message =
            format!("give the folder that holds its files with --from DIR; get them from {}:", self.source);
        for file in files.iter().take(SHOWN) {
            message += &format!("\n  DIR/{}", file.name);
        }
        if files.len() > SHOWN {
            message += &format!("\n  and {} more", files.len() - SHOWN);
        }
        Error::new(message)
    }
}
