//! Files that are either whole or not there.
//!
//! What is written waits under a hidden name of its own, `.NAME.PROCESS-NUMBER.tmp`, until it is whole. A process that is
//! killed meanwhile leaves that file behind; [`sweep`] removes it.
//!
//! What is too large to be made in memory is written through [`Unfinished`], and read through [`Positioned`].

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// How often a file is written that others sweep away meanwhile.
const TRIES: usize = 4;

/// Replaces `path` by `bytes`: whoever reads it, after a crash too, finds the old content or the new, never a part.
///
/// The bytes go to a hidden neighbour first, which is flushed and renamed; then the folder is flushed. Each call has a
/// neighbour of its own: of several writers the last one wins, and each of them has written all of its bytes.
///
/// # Errors
/// If the folder cannot be written or the disk is full; `path` is then as it was.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let mut done = replace(path, bytes);
    for _ in 1..TRIES {
        match &done {
            // A sweeper took our neighbour for that of a dead process.
            Err(e) if e.kind() == ErrorKind::NotFound && folder_of(path).is_dir() => done = replace(path, bytes),
            _ => break,
        }
    }
    done.map_err(|e| Error::io(path, "write", &e))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = Unfinished::create(path)?;
    file.write_all(bytes)?;
    file.finish()
}

/// A file that is written bit by bit, and replaces another when it is whole: [`write_atomically`] for what is larger than memory.
///
/// Dropped before it is [finished](Self::finish), it is gone. A [`sweep`] takes it for what a killed writer has left: who writes
/// for long holds a lock that sweepers know.
#[derive(Debug)]
pub struct Unfinished {
    path: PathBuf,
    neighbour: PathBuf,
    file: File,
    is_finished: bool,
}

impl Unfinished {
    /// Begins what will be the file at `path`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_path_buf();
        let (neighbour, file) = neighbour(&path)?;
        Ok(Self { path, neighbour, file, is_finished: false })
    }

    /// Flushes the bytes, gives the file its name, and flushes the folder.
    ///
    /// # Errors
    /// If one of that fails; the file at `path` is then as it was, unless it was the last that failed.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.neighbour, &self.path)?;
        self.is_finished = true;
        sync_folder(folder_of(&self.path))
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            // What is left of it takes space, which may be what was lacking.
            let _ = fs::remove_file(&self.neighbour);
        }
    }
}

/// Makes the file in which the bytes of `path` wait until they are whole.
fn neighbour(path: &Path) -> io::Result<(PathBuf, File)> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}-{number}.tmp", std::process::id()));
        let neighbour = path.with_file_name(name);
        match File::create_new(&neighbour) {
            // A dead process had our number, or one on another machine has it now.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (neighbour, file)),
        }
    }
}

/// Removes from a folder what killed writers have left there.
///
/// For whoever knows that nobody else writes there, such as the holder of the folder's lock. A writer that is alive all the
/// same writes its file once more. What cannot be removed stays.
pub fn sweep(folder: impl AsRef<Path>) {
    remove(folder.as_ref(), |_| true);
}

/// As [`sweep`], but removes only what writers of this one file have left.
pub fn sweep_beside(path: impl AsRef<Path>) {
    let path = path.as_ref();
    remove(folder_of(path), |name| path.file_name().is_some_and(|own| own == name));
}

fn remove(folder: &Path, is_wanted: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_str().and_then(whose).is_some_and(&is_wanted)) {
        let _ = fs::remove_file(entry.path());
    }
}

/// The name of the file that waits under a name which [`write_atomically`] gave; `None` for any other name.
fn whose(name: &str) -> Option<&str> {
    let (name, owner) = name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.')?;
    let (process, number) = owner.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (!name.is_empty() && is_number(process) && is_number(number)).then_some(name)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes new names in a folder last; on Windows folders cannot be flushed.
///
/// # Errors
/// If the folder cannot be opened or flushed.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// A file that is read at positions, from any thread.
#[cfg(unix)]
#[derive(Debug)]
pub struct Positioned(File);

#[cfg(unix)]
impl Positioned {
    /// Reads `file`.
    pub fn new(file: File) -> Self {
        Self(file)
    }

    /// Fills `bytes` with what begins at byte `start`.
    ///
    /// # Errors
    /// If the file cannot be read, or ends before.
    pub fn read_exact_at(&self, bytes: &mut [u8], start: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, bytes, start)
    }
}

/// A file that is read at positions, from any thread: one thread at a time moves the cursor.
#[cfg(not(unix))]
#[derive(Debug)]
pub struct Positioned(std::sync::Mutex<File>);

#[cfg(not(unix))]
impl Positioned {
    /// Reads `file`.
    pub fn new(file: File) -> Self {
        Self(std::sync::Mutex::new(file))
    }

    /// Fills `bytes` with what begins at byte `start`.
    ///
    /// # Errors
    /// If the file cannot be read, or ends before.
    pub fn read_exact_at(&self, bytes: &mut [u8], start: u64) -> io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        io::Seek::seek(&mut *file, io::SeekFrom::Start(start))?;
        io::Read::read_exact(&mut *file, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_leftover_of_a_crash_is_neither_read_nor_in_the_way_and_goes_with_the_next_sweep() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        write_atomically(&path, b"old").unwrap();
        let (left, mut file) = neighbour(&path).unwrap();
        file.write_all(b"half of a much longer new con").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        // Names of other people stay.
        for name in
            [".manifest.json.tmp", ".swp.tmp", "a.1-1.tmp", ".1-1.tmp", ".a.1-.tmp", ".a.b-1.tmp", ".a.1-1.tmp~"]
        {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        let mut before = names(folder.path());
        sweep_beside(folder.path().join("manifest"));
        sweep_beside(folder.path().join("none/manifest.json"));
        assert_eq!(names(folder.path()), before);
        sweep_beside(&path);
        assert!(!left.exists());
        fs::write(&left, b"half").unwrap();
        sweep(folder.path());
        before.retain(|name| Path::new(name) != left.file_name().unwrap());
        assert_eq!(names(folder.path()), before);
        assert_eq!(before.len(), 8);
        sweep(folder.path().join("none"));
    }

    #[test]
    fn a_failed_write_changes_nothing_and_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("inside")).unwrap();
        let error = write_atomically(&path, b"new").unwrap_err();
        assert!(error.to_string().contains("taken: cannot write: "), "{error}");
        assert!(path.join("inside").is_dir());
        assert_eq!(names(folder.path()), ["taken"]);
        // A name so long that its neighbour would have none.
        let long = folder.path().join("x".repeat(250));
        fs::write(&long, b"old").unwrap();
        assert!(write_atomically(&long, b"new").is_err());
        assert_eq!(fs::read(&long).unwrap(), b"old");
    }

    #[test]
    fn many_writers_of_one_file_never_share_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        let letters = [b'a', b'b', b'c', b'd'];
        std::thread::scope(|scope| {
            for letter in letters {
                let path = &path;
                // Of different lengths: a mixture would be seen.
                let bytes = vec![letter; 1000 * usize::from(letter - b'a' + 1)];
                scope.spawn(move || (0..50).for_each(|_| write_atomically(path, &bytes).unwrap()));
            }
            for _ in 0..200 {
                let Ok(read) = fs::read(&path) else { continue };
                let length = 1000 * usize::from(read[0] - b'a' + 1);
                assert!(read.len() == length && read.iter().all(|byte| *byte == read[0]));
            }
        });
        assert_eq!(names(folder.path()), ["report.html"]);
    }

    #[test]
    fn a_writer_whose_file_is_swept_away_writes_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        let written = AtomicU64::new(0);
        let count = || written.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            // Once or twice a write, however slow the disk: nobody sweeps in a loop.
            let (path, written) = (&path, &written);
            let write = move |_| {
                let done = write_atomically(path, &[7; 10_000]).is_ok();
                written.fetch_add(1, Ordering::Relaxed);
                done
            };
            let writer = scope.spawn(move || (0..100).all(write));
            while !writer.is_finished() {
                let before = count();
                sweep(folder.path());
                while count() == before && !writer.is_finished() {
                    std::thread::yield_now();
                }
            }
            assert!(writer.join().unwrap());
        });
        assert_eq!(fs::read(&path).unwrap(), [7; 10_000]);
    }

    #[test]
    fn a_file_written_bit_by_bit_is_whole_or_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("features");
        for ends in [false, true] {
            let mut file = Unfinished::create(&path).unwrap();
            file.write_all(b"one ").unwrap();
            file.write_all(b"two").unwrap();
            assert_eq!(names(folder.path()).len(), 1);
            assert!(!path.exists());
            if ends {
                file.finish().unwrap()
            } else {
                drop(file)
            }
            assert_eq!(path.exists(), ends);
            assert_eq!(names(folder.path()).len(), usize::from(ends));
        }
        assert_eq!(fs::read(&path).unwrap(), b"one two");
        let (file, mut bytes) = (Positioned::new(File::open(&path).unwrap()), [0; 3]);
        for (start, text) in [(4, b"two"), (0, b"one")] {
            file.read_exact_at(&mut bytes, start).unwrap();
            assert_eq!(&bytes, text);
        }
        assert_eq!(file.read_exact_at(&mut bytes, 5).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_bare_name_lies_in_the_current_folder() {
        assert_eq!(folder_of(Path::new("page.md")), Path::new("."));
    }
}
