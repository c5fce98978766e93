//! Features of a corpus, made once and kept on disk.
//!
//! One file holds them all, `DIGEST.features`, where the digest is that of settings, of the bytes of every file of sound, and of the
//! parts that are read of them: other settings, or other sound, have another file. It is whole or not there. Behind a first line
//! come the frames of each recording, little-endian 32-bit numbers, in the order of the corpus; then an index in JSON; then, in
//! 8 bytes each, where that begins, a hash of it, and a last word.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use antiphon_core::disk::{self, Positioned, Unfinished};
use antiphon_core::random::stable_hash;
use antiphon_core::{Error, Place, Problem, Result, hex};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::FeaturesConfig;
use crate::extract::{Extracted, Extractor};
use crate::normalize::Statistics;
use crate::read::Recording;

/// The first line. Its number is part of the digest: it is raised when the same settings make other features.
const HEAD: &[u8] = b"antiphon features 1\n";
const END: &[u8; 8] = b"features";
/// The bytes behind the index: where it begins, its hash, and [`END`].
const TAIL: usize = 24;
/// So many recordings a thread are in memory while features are made.
const AHEAD: usize = 4;
/// How many bytes are digested at once.
const BLOCK: usize = 1 << 16;

/// Who hears how far the making of features has come. A closure of what to do with a fault is one.
pub trait Listener {
    /// A recording without features: its index, and what is wrong. In the order of the corpus; also of features that were made before.
    ///
    /// # Errors
    /// If the corpus is not to be used without it: then no more are made, and nothing is kept.
    fn fault(&mut self, index: usize, error: Error) -> Result<()>;

    /// So many recordings of all are done; not called for features that were made before.
    fn done(&mut self, recordings: usize) {
        let _ = recordings;
    }
}

impl<F: FnMut(usize, Error) -> Result<()>> Listener for F {
    fn fault(&mut self, index: usize, error: Error) -> Result<()> {
        self(index, error)
    }
}

/// The features of a corpus on disk. Any thread may read those of any recording.
#[derive(Debug)]
pub struct FeatureCache {
    path: PathBuf,
    file: Positioned,
    digest: String,
    width: usize,
    entries: Vec<Entry>,
}

/// What is known of one recording.
#[derive(Debug)]
struct Entry {
    /// Where its frames begin, in bytes.
    start: u64,
    frames: usize,
    damaged: usize,
    fault: Option<Error>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    width: usize,
    recordings: Vec<Kept>,
}

/// A recording in the index.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Kept {
    /// Frames, and stretches that could not be decoded.
    Frames(usize, usize),
    /// Places, and what is wrong there.
    Fault(Vec<(String, String)>),
}

impl FeatureCache {
    /// The features of these recordings: those in `folder`, which is created where missing, or, if they are not there, new ones. All
    /// files are digested each time, so that features of sound that has changed are never taken for it.
    ///
    /// They are made on all threads of the pool that this is called in, few recordings at a time; the file is the same whatever
    /// their number. Of several processes that want the same features one makes them, and the others wait.
    ///
    /// # Errors
    /// If the config has problems, the listener stops at a fault, or `folder` cannot be read or written.
    pub fn open(
        folder: impl AsRef<Path>,
        recordings: &[Recording],
        config: &FeaturesConfig,
        listener: &mut dyn Listener,
    ) -> Result<Self> {
        let (folder, extractor) = (folder.as_ref(), Extractor::new(config)?);
        let digest = digest(recordings, config);
        let path = folder.join(format!("{digest}.features"));
        if !path.exists() {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", &e))?;
            let _lock = lock(&path.with_extension("lock"))?;
            // Somebody else may have made it meanwhile.
            if !path.exists() {
                disk::sweep_beside(&path);
                make(&path, recordings, &extractor, listener)?;
                return Self::read_index(path, digest, recordings);
            }
        }
        let cache = Self::read_index(path, digest, recordings)?;
        for (index, entry) in cache.entries.iter().enumerate() {
            if let Some(fault) = &entry.fault {
                listener.fault(index, fault.clone())?;
            }
        }
        Ok(cache)
    }

    fn read_index(path: PathBuf, digest: String, recordings: &[Recording]) -> Result<Self> {
        let damaged = || Error::new("is damaged; remove it, and it is made again").in_file(&path);
        let reading =
            |e: io::Error| if e.kind() == ErrorKind::UnexpectedEof { damaged() } else { Error::io(&path, "read", &e) };
        let file = File::open(&path).map_err(|e| Error::io(&path, "open", &e))?;
        let end = file.metadata().map_err(reading)?.len().checked_sub(TAIL as u64).ok_or_else(damaged)?;
        let file = Positioned::new(file);
        let (mut head, mut tail) = ([0; HEAD.len()], [0; TAIL]);
        file.read_exact_at(&mut head, 0).map_err(reading)?;
        file.read_exact_at(&mut tail, end).map_err(reading)?;
        let [begins, hash, last] = [0, 8, 16].map(|at| tail[at..at + 8].try_into().expect("8 bytes"));
        let begins = u64::from_le_bytes(begins);
        if head != HEAD || last != *END || begins > end {
            return Err(damaged());
        }
        let mut index = vec![0; (end - begins) as usize];
        file.read_exact_at(&mut index, begins).map_err(reading)?;
        if stable_hash(&index) != u64::from_le_bytes(hash) {
            return Err(damaged());
        }
        let Index { width, recordings: kept } = serde_json::from_slice(&index).map_err(|_| damaged())?;
        let mut start = HEAD.len() as u64;
        let entry = |(kept, recording): (Kept, &Recording)| {
            let (frames, damaged, fault) = match kept {
                Kept::Frames(frames, damaged) => (frames, damaged, None),
                Kept::Fault(problems) => {
                    let problem = |(place, message): (String, String)| Problem {
                        place: if place.is_empty() { Place::Whole } else { Place::text(place) },
                        message,
                    };
                    let problems = problems.into_iter().map(problem).collect();
                    (0, 0, Some(Error { file: Some(recording.path.clone()), problems }))
                }
            };
            let entry = Entry { start, frames, damaged, fault };
            start += bytes(frames, width);
            entry
        };
        let counts_agree = kept.len() == recordings.len();
        let entries: Vec<Entry> = kept.into_iter().zip(recordings).map(entry).collect();
        if !counts_agree || start != begins {
            return Err(damaged());
        }
        Ok(Self { file, digest, width, entries, path })
    }

    /// How many recordings there are, faulty ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many numbers a frame has.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many frames a recording has; 0 of a faulty one.
    pub fn frames(&self, index: usize) -> usize {
        self.entries[index].frames
    }

    /// How many stretches of a recording could not be decoded and are silent.
    pub fn damaged(&self, index: usize) -> usize {
        self.entries[index].damaged
    }

    /// Why a recording has no features; `None` if it has.
    pub fn fault(&self, index: usize) -> Option<&Error> {
        self.entries[index].fault.as_ref()
    }

    /// The SHA-256 of settings, sound and parts: equal ones have equal features.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The features of a recording: `[frames, width]`, row after row; nothing of a faulty one.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&self, index: usize) -> Result<Vec<f32>> {
        let Entry { start, frames, .. } = self.entries[index];
        let mut words = vec![0; bytes(frames, self.width) as usize];
        self.file.read_exact_at(&mut words, start).map_err(|e| Error::io(&self.path, "read", &e))?;
        Ok(words.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect())
    }

    /// Mean and variance of each column over these recordings, in the order given: those of a corpus are taken over what is learnt
    /// from.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn statistics(&self, recordings: impl IntoIterator<Item = usize>) -> Result<Statistics> {
        let mut statistics = Statistics::new(self.width);
        for index in recordings {
            statistics.add(&self.read(index)?);
        }
        Ok(statistics)
    }
}

fn bytes(frames: usize, width: usize) -> u64 {
    (frames * width * size_of::<f32>()) as u64
}

/// Waits until no other process makes these features. The lock ends with its value.
fn lock(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
    let file = file.map_err(|e| Error::io(path, "open the lock", &e))?;
    file.lock().map_err(|e| Error::io(path, "lock", &e))?;
    Ok(file)
}

/// Makes the features and writes the file.
fn make(path: &Path, recordings: &[Recording], extractor: &Extractor, listener: &mut dyn Listener) -> Result<()> {
    let writing = |e: io::Error| Error::io(path, "write", &e);
    let mut file = BufWriter::new(Unfinished::create(path).map_err(writing)?);
    file.write_all(HEAD).map_err(writing)?;
    let width = extractor.config().width();
    let (mut kept, mut start) = (Vec::with_capacity(recordings.len()), HEAD.len() as u64);
    for some in recordings.chunks(AHEAD * rayon::current_num_threads()) {
        let extracted: Vec<Result<Extracted>> = some.par_iter().map(|recording| extractor.extract(recording)).collect();
        for extracted in extracted {
            kept.push(match extracted {
                Ok(Extracted { values, damaged }) => {
                    for value in &values {
                        file.write_all(&value.to_le_bytes()).map_err(writing)?;
                    }
                    start += bytes(values.len() / width, width);
                    Kept::Frames(values.len() / width, damaged)
                }
                Err(error) => {
                    listener.fault(kept.len(), error.clone())?;
                    let problem = |Problem { place, message }: Problem| (place.to_string(), message);
                    Kept::Fault(error.problems.into_iter().map(problem).collect())
                }
            });
        }
        listener.done(kept.len());
    }
    let index = serde_json::to_vec(&Index { width, recordings: kept }).expect("an index of numbers and texts");
    for part in [&index[..], &start.to_le_bytes(), &stable_hash(&index).to_le_bytes(), END] {
        file.write_all(part).map_err(writing)?;
    }
    let file = file.into_inner().map_err(|e| writing(e.into_error()))?;
    file.finish().map_err(writing)
}

/// The digest of settings, of all files, and of the parts that are read of them. A file that cannot be read counts as such.
fn digest(recordings: &[Recording], config: &FeaturesConfig) -> String {
    // Each once, however many parts it has.
    let mut numbers: HashMap<&Path, usize> = HashMap::new();
    let mut files: Vec<&Path> = Vec::new();
    for Recording { path, .. } in recordings {
        numbers.entry(path).or_insert_with(|| {
            files.push(path);
            files.len() - 1
        });
    }
    let contents: Vec<String> = files.par_iter().map(|path| digest_of(path).unwrap_or_default()).collect();
    let mut digest = Sha256::new();
    digest.update(HEAD);
    digest.update(serde_json::to_vec(config).expect("settings are texts and numbers"));
    for Recording { path, start, end } in recordings {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let part = (&contents[numbers[path.as_path()]], ending, start.map(f64::to_bits), end.map(f64::to_bits));
        digest.update(serde_json::to_vec(&part).expect("texts and numbers"));
    }
    hex(&digest.finalize())
}

/// The SHA-256 of a file.
fn digest_of(path: &Path) -> io::Result<String> {
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(ErrorKind::InvalidInput.into());
    }
    let (mut file, mut digest, mut block) = (File::open(path)?, Sha256::new(), vec![0; BLOCK]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hex(&digest.finalize())),
            length => digest.update(&block[..length]),
        }
    }
}
