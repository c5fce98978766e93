//! Files that are either whole or not there.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Result};

/// Replaces `path` by `bytes`: whoever reads it, after a crash too, finds the old content or the new, never a part.
///
/// The bytes go to a hidden neighbour first, which is flushed and renamed; then the folder is flushed. One writer at a time.
///
/// # Errors
/// If the folder cannot be written or the disk is full; `path` is then as it was.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let temporary = temporary(path);
    let written = replace(path, &temporary, bytes);
    if written.is_err() {
        // What is left of it takes space, which may be what was lacking.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|e| Error::io(path, "write", &e))
}

fn replace(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    sync_folder(folder_of(path))
}

/// Where the bytes of `path` wait until they are whole. Always the same name, so that a crash leaves one at most.
fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes new names in a folder last; on Windows folders cannot be flushed.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_of_a_crash_is_neither_read_nor_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        write_atomically(&path, b"old").unwrap();
        fs::write(temporary(&path), b"half of a much longer new con").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_changes_nothing_and_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("inside")).unwrap();
        let error = write_atomically(&path, b"new").unwrap_err();
        assert!(error.to_string().contains("taken: cannot write: "), "{error}");
        assert!(path.join("inside").is_dir());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_bare_name_lies_in_the_current_folder() {
        assert_eq!(folder_of(Path::new("page.md")), Path::new("."));
        assert_eq!(temporary(Path::new("docs/page.md")), Path::new("docs/.page.md.tmp"));
    }
}
