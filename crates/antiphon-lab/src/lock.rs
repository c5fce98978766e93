//! One process at a time in a folder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use antiphon_core::{Error, Result};

use crate::disk;

/// How long a process that wants to begin lets others look whether somebody is at work.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits between two tries.
const PAUSE: Duration = Duration::from_millis(1);

/// Held while a process trains in a folder. It ends with its value, and with the process, however that dies.
#[derive(Debug)]
#[must_use = "the folder is free again as soon as this is dropped"]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Locks the file at `path`, which is created empty where missing.
    ///
    /// # Errors
    /// If another process holds the lock, or the file cannot be made or locked.
    pub(crate) fn acquire(path: &Path) -> Result<Self> {
        Self::try_acquire(path)?.ok_or_else(|| {
            let message = "another process is at work in this run; wait for it, or repeat the experiment in a \
                           folder of its own with `--again`";
            Error::new(message).in_file(path.parent().unwrap_or(path))
        })
    }

    /// As [`acquire`](Self::acquire); `None` if another process holds the lock.
    ///
    /// Its folder and the folders in it are then ours, and what killed writers have left there is removed.
    ///
    /// # Errors
    /// If the file cannot be made or locked.
    pub(crate) fn try_acquire(path: &Path) -> Result<Option<Self>> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
        let file = file.map_err(|e| Error::io(path, "open the lock", &e))?;
        let began = Instant::now();
        loop {
            if is_taken(path, file.try_lock())? {
                // Whoever is at work has it alone. Whoever only looks shares it, for a moment.
                if is_taken(path, file.try_lock_shared())? || began.elapsed() > PATIENCE {
                    return Ok(None);
                }
                file.unlock().map_err(|e| Error::io(path, "unlock", &e))?;
                std::thread::sleep(PAUSE);
                continue;
            }
            let folder = path.parent().unwrap_or(path);
            disk::sweep(folder);
            let inner = fs::read_dir(folder).into_iter().flatten().flatten();
            inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|e| disk::sweep(e.path()));
            return Ok(Some(Self { _file: file }));
        }
    }

    /// Whether another process, or another value in this one, holds the lock at `path`. Nobody is kept from taking it: the
    /// system cannot be asked about such a lock, so it is shared for a moment, and [`acquire`](Self::acquire) waits for that.
    ///
    /// # Errors
    /// If the file is there and cannot be opened or locked.
    pub(crate) fn is_held(path: &Path) -> Result<bool> {
        match File::open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io(path, "open the lock", &e)),
            Ok(file) => is_taken(path, file.try_lock_shared()),
        }
    }
}

/// Whether a try to lock found the lock taken. Any other failure says nothing about that.
fn is_taken(path: &Path, tried: Result<(), TryLockError>) -> Result<bool> {
    match tried {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(Error::io(path, "lock", &e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.lock");
        assert!(!RunLock::is_held(&path).unwrap() && !path.exists(), "looking leaves nothing");
        let first = RunLock::acquire(&path).unwrap();
        assert!(RunLock::is_held(&path).unwrap());
        let began = Instant::now();
        let error = RunLock::acquire(&path).unwrap_err().to_string();
        assert!(error.contains("another process") && error.contains("--again"), "{error}");
        assert!(began.elapsed() < PATIENCE / 2, "nobody waits for one that is at work");
        drop(first);
        assert!(!RunLock::is_held(&path).unwrap());
        let _again = RunLock::acquire(&path).unwrap();
    }

    #[test]
    fn whoever_looks_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.lock");
        drop(RunLock::acquire(&path).unwrap());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        RunLock::is_held(&path).unwrap();
                    }
                });
            }
            let taken = (0..500).filter(|_| RunLock::try_acquire(&path).unwrap().is_some()).count();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(taken, 500);
        });
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_that_fails_is_not_taken_for_one_that_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.lock");
        std::os::unix::fs::symlink("run.lock", &path).unwrap();
        for error in [RunLock::acquire(&path).unwrap_err(), RunLock::is_held(&path).unwrap_err()] {
            assert!(error.to_string().contains("run.lock: cannot open the lock: "), "{error}");
        }
        let unsupported = TryLockError::Error(ErrorKind::Unsupported.into());
        let error = is_taken(&path, Err(unsupported)).unwrap_err().to_string();
        assert!(error.contains("run.lock: cannot lock: "), "{error}");
    }

    #[test]
    fn the_holder_removes_what_killed_writers_have_left() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("checkpoints");
        fs::create_dir(&inner).unwrap();
        let left = [folder.path().join(".model.safetensors.7-1.tmp"), inner.join(".step-1.safetensors.7-2.tmp")];
        left.iter().for_each(|path| fs::write(path, b"half").unwrap());
        let _lock = RunLock::acquire(&folder.path().join("run.lock")).unwrap();
        assert!(left.iter().all(|path| !path.exists()));
    }
}
