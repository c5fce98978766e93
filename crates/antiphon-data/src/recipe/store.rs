//! A prepared folder: all of it or none.

use std::io::Write;
use std::path::Path;

use antiphon_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::files::{Output, PreparedFile};
use crate::digest::sha256;

/// The name of the record.
pub(super) const RECORD: &str = "recipe.json";

/// `recipe.json`: what was written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The SHA-256 of the `recipe.toml` that was followed.
    recipe_sha256: String,
    files: Vec<PreparedFile>,
}

/// What lies where the prepared folder belongs.
pub(super) enum Standing {
    Nothing,
    /// What this recipe wrote, unchanged.
    Prepared(Vec<PreparedFile>),
    /// What an earlier version of the recipe wrote, unchanged.
    Outdated,
}

/// Looks at `folder`. Whatever may be somebody's work is an error.
pub(super) fn find(folder: &Path, recipe_sha256: &str) -> Result<Standing> {
    if !folder.exists() {
        return Ok(Standing::Nothing);
    }
    let path = folder.join(RECORD);
    let foreign = || {
        let message = "the folder is there, but no recipe wrote it: move it away, or use another data folder";
        Error::new(message).in_file(folder)
    };
    let record = std::fs::read(&path).map_err(|_| foreign())?;
    let record: Record = serde_json::from_slice(&record).map_err(|_| foreign())?;
    for file in &record.files {
        let path = folder.join(&file.name);
        let why = match std::fs::read(&path) {
            Ok(bytes) if sha256(&bytes) == file.sha256 => continue,
            Ok(_) => "the file is not what the recipe wrote".to_string(),
            Err(e) => format!("cannot read what the recipe wrote: {e}"),
        };
        let message = format!("{why}: remove or move away `{}` to prepare it again", folder.display());
        return Err(Error::new(message).in_file(path));
    }
    Ok(if record.recipe_sha256 == recipe_sha256 { Standing::Prepared(record.files) } else { Standing::Outdated })
}

/// Writes everything into a temporary folder and puts it in place in one step; `replace` what an earlier version of the
/// recipe wrote.
pub(super) fn write(
    data_dir: &Path,
    name: &str,
    recipe_sha256: &str,
    outputs: Vec<Output>,
    replace: bool,
) -> Result<Vec<PreparedFile>> {
    std::fs::create_dir_all(data_dir).map_err(|e| Error::io(data_dir, "make the data folder", &e))?;
    // Removed again, with what it holds, however this ends.
    let scratch = tempfile::Builder::new()
        .prefix(&format!(".{name}-"))
        .tempdir_in(data_dir)
        .map_err(|e| Error::io(data_dir, "make a temporary folder", &e))?;
    let (new, old, folder) = (scratch.path().join("new"), scratch.path().join("old"), data_dir.join(name));
    let mut files = Vec::new();
    for Output { name, bytes } in outputs {
        write_file(&new.join(&name), &bytes)?;
        let lines =
            bytes.iter().filter(|&&b| b == b'\n').count() + usize::from(!matches!(bytes.last(), None | Some(b'\n')));
        files.push(PreparedFile { name, sha256: sha256(&bytes), lines });
    }
    let record = Record { recipe_sha256: recipe_sha256.into(), files };
    let json = serde_json::to_string_pretty(&record).expect("a record is plain data") + "\n";
    write_file(&new.join(RECORD), json.as_bytes())?;
    let placing = |e: std::io::Error| Error::io(&folder, "put the prepared folder in place", &e);
    if replace {
        std::fs::rename(&folder, &old).map_err(placing)?;
    }
    if let Err(e) = std::fs::rename(&new, &folder) {
        if replace {
            std::fs::rename(&old, &folder).map_err(placing)?;
        }
        return Err(placing(e));
    }
    Ok(record.files)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = std::fs::File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| Error::io(path, "write", &e))
}
