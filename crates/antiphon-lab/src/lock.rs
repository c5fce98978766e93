//! One process at a time in a run's folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use antiphon_core::{Error, Result};

/// Held while a process trains in a folder. It ends with its value, and with the process, however that dies.
#[derive(Debug)]
#[must_use = "the folder is free again as soon as this is dropped"]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Locks the file at `path`, which is created empty where missing; an error if another process holds it.
    pub(crate) fn acquire(path: &Path) -> Result<Self> {
        Self::attempt(path)?.ok_or_else(|| {
            let message = "another process is at work in this run; wait for it, or repeat the experiment in a \
                           folder of its own with `--again`";
            Error::new(message).in_file(path.parent().unwrap_or(path))
        })
    }

    /// [`acquire`](Self::acquire), but `None` if another process holds it.
    pub(crate) fn attempt(path: &Path) -> Result<Option<Self>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(|e| Error::io(path, "open the lock", &e))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(Error::io(path, "lock", &e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.lock");
        let first = RunLock::acquire(&path).unwrap();
        let error = RunLock::acquire(&path).unwrap_err().to_string();
        assert!(error.contains("another process") && error.contains("--again"), "{error}");
        assert!(RunLock::attempt(&path).unwrap().is_none());
        drop(first);
        let _again = RunLock::acquire(&path).unwrap();
    }
}
