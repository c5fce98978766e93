//! Files that are fetched from somebody's server: several addresses in order, several attempts each.

use std::path::{Path, PathBuf};

use antiphon_core::{Error, Place, Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http::{Failure, Patience, Request};
use super::part::Part;
use super::unpack::Content;
use crate::digest::sha256;
use crate::recipe::audience::Audience;
use crate::recipe::files::FileConfig;

/// Files that are fetched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DownloadOrigin {
    /// Where a person finds them.
    pub page: String,
    /// What is fetched, in this order.
    pub downloads: Vec<Download>,
}

/// Something that is fetched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// Its addresses, best first.
    pub urls: Vec<String>,
    /// Its length in bytes, if it is known.
    #[serde(default)]
    pub size: Option<u64>,
    /// What it is.
    pub content: Content,
}

/// The folder of downloads below the data folder.
const DOWNLOADS: &str = ".downloads";

/// Where the files of a recipe are fetched to.
pub(super) fn folder(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join(DOWNLOADS).join(name)
}

/// Removes what was fetched for a recipe.
pub(super) fn clear(data_dir: &Path, name: &str) -> Result<()> {
    let folder = folder(data_dir, name);
    std::fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, "remove what is no longer needed", &e))?;
    remove_empty(&data_dir.join(DOWNLOADS));
    Ok(())
}

/// Removes a folder if nothing is in it.
fn remove_empty(folder: &Path) {
    // Anything else than an empty folder is somebody's, and stays.
    let _ = std::fs::remove_dir(folder);
}

impl DownloadOrigin {
    /// What is wrong with it, if these are the recipe's files.
    pub(super) fn problems(&self, files: &[FileConfig]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |place: String, message: String| problems.push(Problem { place: place.into(), message });
        for (i, download) in self.downloads.iter().enumerate() {
            if download.urls.is_empty() {
                add(format!("downloads[{i}].urls"), "the list is empty: name an address".into());
            }
            for (j, url) in download.urls.iter().enumerate() {
                if !["https://", "http://"].iter().any(|scheme| url.starts_with(scheme)) {
                    add(
                        format!("downloads[{i}].urls[{j}]"),
                        format!("`{url}` does not begin with https:// or http://"),
                    );
                }
            }
            if !files.iter().any(|file| download.content.holds(&file.name)) {
                add(format!("downloads[{i}].content"), "holds none of `files`".into());
            }
            for problem in download.content.problems() {
                add(format!("downloads[{i}].content.{}", problem.place), problem.message);
            }
        }
        for file in files {
            if !self.downloads.iter().any(|download| download.content.holds(&file.name)) {
                add("downloads".into(), format!("none holds `{}`", file.name));
            }
        }
        problems
    }

    /// Fetches what is missing below `root`.
    pub(super) fn fetch(
        &self,
        files: &[FileConfig],
        root: &Path,
        patience: &Patience,
        audience: &mut dyn Audience,
    ) -> Result<()> {
        for download in &self.downloads {
            let wanted: Vec<&FileConfig> = files.iter().filter(|file| download.content.holds(&file.name)).collect();
            if wanted.iter().all(|file| is_there(root, file)) {
                continue;
            }
            let fetched = download.fetch(&wanted, root, patience, audience);
            fetched.map_err(|failures| self.explain(failures)).inspect_err(|_| {
                root.ancestors().take(2).for_each(remove_empty);
            })?;
        }
        Ok(())
    }

    /// Adds what to do.
    fn explain(&self, mut error: Error) -> Error {
        if let Some(last) = error.problems.last_mut().filter(|problem| !problem.place.is_whole()) {
            last.message += &format!(
                "\n  try again later, what has arrived is kept; or get the files from {} and give their folder with --from DIR",
                self.page
            );
        }
        error
    }
}

fn is_there(root: &Path, file: &FileConfig) -> bool {
    std::fs::read(root.join(&file.name)).is_ok_and(|bytes| sha256(&bytes) == file.sha256)
}

impl Download {
    /// Fetches it from the first address that has it. An error has a problem for each address.
    fn fetch(
        &self,
        wanted: &[&FileConfig],
        root: &Path,
        patience: &Patience,
        audience: &mut dyn Audience,
    ) -> Result<()> {
        let name = self.content.fetched_name();
        let target = root.join(&name);
        let mut part = Part::open(&target)?;
        let mut problems = Vec::new();
        for url in &self.urls {
            let checked = matches!(self.content, Content::File(_));
            let request = Request { url, name: &name, size: self.size, checked };
            match self.attempts(&request, &mut part, wanted, root, patience, audience) {
                Ok(None) => {
                    part.remove();
                    return Ok(());
                }
                Ok(Some(message)) => problems.push(Problem { place: Place::text(url), message }),
                Err(error) => {
                    part.leave();
                    return Err(error);
                }
            }
        }
        part.leave();
        Err(Error::many(target, problems))
    }

    /// Tries one address as often as patience allows. Why it failed, if the address is to blame.
    fn attempts(
        &self,
        request: &Request<'_>,
        part: &mut Part,
        wanted: &[&FileConfig],
        root: &Path,
        patience: &Patience,
        audience: &mut dyn Audience,
    ) -> Result<Option<String>> {
        let mut pauses = patience.pauses.iter();
        loop {
            let attempt = request.fetch(part, patience, audience);
            match attempt.and_then(|()| self.unpack(part, wanted, root)) {
                Ok(()) => return Ok(None),
                Err(Failure::Ours(error)) => return Err(error),
                Err(Failure::Final(message)) => return Ok(Some(message)),
                Err(Failure::Passing(message)) => match pauses.next() {
                    Some(pause) => {
                        audience.line(&format!("{message}; trying again in {pause:?}"));
                        std::thread::sleep(*pause);
                    }
                    None => return Ok(Some(format!("{message} ({} attempts)", patience.pauses.len() + 1))),
                },
            }
        }
    }

    /// Unpacks what has arrived. If that is not what the recipe means it is thrown away: once more if it came in pieces,
    /// which may not have belonged together.
    fn unpack(&self, part: &mut Part, wanted: &[&FileConfig], root: &Path) -> Result<(), Failure> {
        let unpacked = self.content.unpack(part.path(), root, wanted);
        let Err(Failure::Final(message)) = unpacked else { return unpacked };
        let joined = part.is_joined();
        part.empty()?;
        Err(if joined { Failure::Passing(message) } else { Failure::Final(message) })
    }
}
