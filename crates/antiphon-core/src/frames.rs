//! The seam between recordings and batches.

use std::fmt;

use crate::Result;

/// The recordings of a corpus as frames of numbers, by their numbers in its order. Any thread may read any of them.
pub trait Frames: fmt::Debug + Send + Sync {
    /// The numbers of a frame, at least 1.
    fn width(&self) -> usize;

    /// How many frames a recording has.
    fn frames(&self, recording: usize) -> usize;

    /// The frames of a recording: `[frames, width]`, row after row.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read(&self, recording: usize) -> Result<Vec<f32>>;

    /// What to say of recordings that are not whole.
    fn warning(&self) -> Option<String>;

    /// A hash of all recordings, and of how their frames were made.
    fn digest(&self) -> &str;
}
