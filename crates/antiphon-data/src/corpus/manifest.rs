//! Manifests: tables of recordings and what is said in them. What a recording sounds like is not known here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use antiphon_core::{Error, Frames, Result};

use super::table::Row;
use super::{Corpus, Gaps, Layout};

/// Where a recording lies, as a row of a manifest says it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spoken {
    /// Its file, as it is written.
    pub path: PathBuf,
    /// Where it begins in that, in seconds; if `None`, with the file.
    pub start: Option<f64>,
    /// Where it ends in that, in seconds; if `None`, with the file.
    pub end: Option<f64>,
}

/// The frames of a corpus.
#[derive(Debug)]
pub(super) struct Recorded {
    frames: Arc<dyn Frames>,
    /// The number of each example's recording.
    numbers: Vec<u32>,
}

impl Recorded {
    pub(super) fn number(&self, example: usize) -> usize {
        self.numbers[example] as usize
    }
}

impl Spoken {
    pub(super) fn of(row: &Row) -> Self {
        Self { path: PathBuf::from(&row.source), start: row.start, end: row.end }
    }

    /// The same, with a path that is seen from `folder`.
    #[must_use]
    pub fn below(self, folder: &Path) -> Self {
        Self { path: folder.join(self.path), ..self }
    }
}

impl Corpus {
    /// Whether its sources are recordings.
    pub fn is_spoken(&self) -> bool {
        self.layout == Layout::Manifest
    }

    /// The recordings of a manifest, one an example; their paths are seen from where the process runs, not from the manifest.
    ///
    /// # Errors
    /// If the file cannot be read or has changed since it was opened.
    pub fn recordings(&self) -> Result<Vec<Spoken>> {
        let folder = self.path().parent().unwrap_or(Path::new(""));
        let spoken = |i| Ok(Spoken::of(&self.row(i)?).below(folder));
        (0..self.len()).map(spoken).collect()
    }

    /// The corpus with the frames of its [recordings](Self::recordings), which have their order, and without those of these
    /// numbers, in ascending order, which cannot be used: they are left out and counted, each as its kind, as in "3 lines with a
    /// silent recording".
    ///
    /// # Errors
    /// If none is left.
    pub fn with_frames(mut self, frames: Arc<dyn Frames>, unusable: &[(usize, &str)]) -> Result<Self> {
        let bad = Gaps::new(unusable.iter().map(|&(i, _)| i as u64));
        let numbers = (0..self.len() - bad.len()).map(|i| bad.position(i) as u32).collect::<Vec<_>>();
        for &(i, kind) in unusable {
            let (_, line) = self.place(i);
            self.skipped.add(kind, line);
        }
        if numbers.is_empty() {
            return Err(Error::new(format!("no row can be used; {}", self.skipped)).in_file(self.path()));
        }
        // A row of a manifest has one target.
        let bad = unusable.iter().map(|&(i, _)| self.gaps.position(i) as u64);
        let mut left_out: Vec<u64> = self.gaps.left_out().chain(bad).collect();
        left_out.sort_unstable();
        self.gaps = Gaps::new(left_out);
        self.recorded = Some(Recorded { frames, numbers });
        Ok(self)
    }

    /// The frames of a manifest's recordings, by the number that an [`Example`](super::Example) has; `None` of other corpora.
    pub fn frames(&self) -> Option<&Arc<dyn Frames>> {
        self.recorded.as_ref().map(|recorded| &recorded.frames)
    }
}
