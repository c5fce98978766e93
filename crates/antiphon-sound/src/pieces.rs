//! A long recording, cut at its pauses.

use std::path::{Path, PathBuf};

use antiphon_core::{Error, Result};

use crate::flow::{Flow, no_sound};
use crate::read::Sound;

/// How long the stretch is that must be quiet where a recording is cut, in seconds.
const PAUSE: f64 = 0.2;
/// How many places a second are tried.
const PLACES: u32 = 100;
/// The shortest limit, in seconds.
pub const LEAST: f64 = 1.0;

/// The pieces of a recording, one behind another, without gap and overlap. No more of it is in memory than the next piece and a
/// quarter.
///
/// Where more than the limit is left, a piece ends in its second half, in the middle of the 0.2 s with the least energy about their
/// mean; of equal places it is the last. It leaves a quarter of the limit at least for the piece behind it.
#[derive(Debug)]
pub struct Pieces {
    path: PathBuf,
    flow: Flow,
    /// What was read of the next piece, and behind it.
    samples: Vec<f64>,
    /// Where that begins, in samples.
    start: u64,
    /// The most samples of a piece.
    longest: usize,
    is_over: bool,
}

/// A piece.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Where it begins, in samples of the file.
    pub start: u64,
    /// What is heard.
    pub sound: Sound,
}

impl Piece {
    /// Where it begins in the file, in seconds.
    pub fn begins(&self) -> f64 {
        self.start as f64 / f64::from(self.sound.rate)
    }

    /// Whether nothing is heard: all samples are equal.
    pub fn is_silent(&self) -> bool {
        self.sound.samples.iter().all(|sample| *sample == self.sound.samples[0])
    }
}

impl Pieces {
    /// Opens a wav or flac file, to be cut into pieces of at most so many seconds.
    ///
    /// # Errors
    /// If it cannot be opened as sound, or the limit is below [`LEAST`].
    pub fn open(path: &Path, max_seconds: f64) -> Result<Self> {
        if !(max_seconds >= LEAST && max_seconds.is_finite()) {
            return Err(Error::new(format!(
                "pieces of {max_seconds} s are too short to be cut; allow {LEAST} s at least"
            )));
        }
        let flow = Flow::open(path).map_err(|error| error.in_file(path))?;
        let longest = (max_seconds * f64::from(flow.rate())).floor() as usize;
        Ok(Self { path: path.to_path_buf(), flow, samples: Vec::new(), start: 0, longest, is_over: false })
    }

    /// How long the recording is, in seconds, if the file says it.
    pub fn seconds(&self) -> Option<f64> {
        self.flow.total().map(|total| total as f64 / f64::from(self.flow.rate()))
    }

    /// Whether the recording is no longer than a piece may be. Of a file that does not say how long it is, as much is read.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn is_one(&mut self) -> Result<bool> {
        match self.flow.total() {
            Some(total) => Ok(total <= self.longest as u64),
            None => {
                self.fill(self.longest + 1)?;
                Ok(self.samples.len() <= self.longest)
            }
        }
    }

    /// Reads until there are `count` samples from the next piece on, or the file ends.
    fn fill(&mut self, count: usize) -> Result<()> {
        let left = self.flow.total().map_or(u64::MAX, |total| total - self.start);
        let count = left.min(count as u64) as usize;
        self.flow.fill(&mut self.samples, count).map_err(|error| error.in_file(&self.path))
    }

    fn cut(&mut self) -> Result<Option<Piece>> {
        let rest = self.longest / 4;
        self.fill(self.longest + rest)?;
        let there = self.samples.len();
        if there == 0 {
            let is_short = self.flow.total().is_some_and(|total| self.start < total);
            return match (is_short, self.start) {
                (true, _) => Err(self.truncated()),
                (false, 0) => Err(no_sound().in_file(&self.path)),
                (false, _) => Ok(None),
            };
        }
        let rate = self.flow.rate();
        let length = if there <= self.longest {
            // It is the last one.
            if self.flow.total().is_some_and(|total| self.start + (there as u64) < total) {
                return Err(self.truncated());
            }
            there
        } else {
            quietest(&self.samples, self.longest / 2..self.longest.min(there - rest), rate)
        };
        let behind = self.samples.split_off(length);
        let samples = std::mem::replace(&mut self.samples, behind);
        let piece = Piece { start: self.start, sound: Sound { samples, rate, damaged: self.flow.take_damaged() } };
        self.start += length as u64;
        Ok(Some(piece))
    }

    fn truncated(&self) -> Error {
        self.flow.truncated(self.flow.total().unwrap_or(0)).in_file(&self.path)
    }
}

impl Iterator for Pieces {
    type Item = Result<Piece>;

    /// The next piece; nothing behind an error.
    fn next(&mut self) -> Option<Self::Item> {
        let piece = if self.is_over { None } else { self.cut().transpose() };
        self.is_over = !matches!(piece, Some(Ok(_)));
        piece
    }
}

/// The middle of the quietest stretch whose middle lies in a range, which has room for that on both sides.
fn quietest(samples: &[f64], range: std::ops::Range<usize>, rate: u32) -> usize {
    let half = (PAUSE * f64::from(rate) / 2.0) as usize;
    let (mut best, mut least) = (range.start, f64::INFINITY);
    for middle in range.step_by((rate / PLACES).max(1) as usize) {
        let stretch = &samples[middle.saturating_sub(half)..samples.len().min(middle + half + 1)];
        let mean = stretch.iter().sum::<f64>() / stretch.len() as f64;
        // Made anew at each place, so that equal stretches have equal energies.
        let energy: f64 = stretch.iter().map(|sample| (sample - mean).powi(2)).sum();
        if energy <= least {
            (best, least) = (middle, energy);
        }
    }
    best
}
