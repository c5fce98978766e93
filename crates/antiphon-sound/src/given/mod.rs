//! Features that another program has made.

mod npy;
mod sphinx;

use std::path::Path;

use antiphon_core::disk::Positioned;
use antiphon_core::{Error, Result};

use crate::config::GivenConfig;
use crate::flow::open;
use crate::read::Recording;

/// Frames of a file: `[frames, width]`, row after row.
///
/// # Errors
/// If the file cannot be read, is no array of such frames, has another length than it says itself, holds a number that is not
/// finite, or does not hold the part asked for.
pub(crate) fn read(config: &GivenConfig, recording: &Recording) -> Result<Vec<f64>> {
    let path = &recording.path;
    let is_ending = |ending: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ending));
    let form = if is_ending("mfc") {
        sphinx::array
    } else if is_ending("npy") {
        npy::array
    } else {
        return Err(Error::new(
            "its name ends with neither `.mfc` (Sphinx) nor `.npy` (NumPy); give features in one of these",
        ));
    };
    let file = open(path)?;
    let len = file.metadata().map_err(|e| Error::io(path, "read", &e))?.len();
    let bytes = Bytes { path, file: Positioned::new(file), len };
    form(&bytes, config.width)?.rows(recording, config)
}

/// A file and its length.
struct Bytes<'a> {
    path: &'a Path,
    file: Positioned,
    len: u64,
}

impl Bytes<'_> {
    /// Fills `bytes` with those from `start` on.
    fn read(&self, bytes: &mut [u8], start: u64) -> Result<()> {
        self.file.read_exact_at(bytes, start).map_err(|e| Error::io(self.path, "read", &e))
    }
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    F32,
    F64,
    I16,
}

impl Number {
    const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
            Self::I16 => 2,
        }
    }

    fn read(self, is_big_endian: bool, bytes: &[u8]) -> f64 {
        fn ordered<const N: usize>(is_big_endian: bool, bytes: &[u8]) -> [u8; N] {
            let mut bytes: [u8; N] = bytes.try_into().expect("the bytes of a number");
            if is_big_endian {
                bytes.reverse();
            }
            bytes
        }
        match self {
            Self::F32 => f32::from_le_bytes(ordered(is_big_endian, bytes)).into(),
            Self::F64 => f64::from_le_bytes(ordered(is_big_endian, bytes)),
            Self::I16 => i16::from_le_bytes(ordered(is_big_endian, bytes)).into(),
        }
    }
}

/// Numbers in a file, `frames * width` of them.
struct Array<'a> {
    bytes: &'a Bytes<'a>,
    /// Where the first number lies.
    start: u64,
    number: Number,
    is_big_endian: bool,
    /// Whether the columns lie one behind the other, not the frames.
    is_by_columns: bool,
    frames: u64,
    width: usize,
}

impl Array<'_> {
    /// The frames of the part.
    fn rows(&self, recording: &Recording, config: &GivenConfig) -> Result<Vec<f64>> {
        if self.frames == 0 {
            return Err(Error::new("holds no frame; leave it out, or make its features once more"));
        }
        let rate = 1000.0 / config.hop;
        let span = recording.span(rate, config.max_seconds)?;
        let (first, end) = span.within(self.frames, rate, config.max_seconds)?;
        let (count, size) = ((end - first) as usize, self.number.bytes());
        let values = if self.is_by_columns {
            let mut values = vec![0.0; count * self.width];
            for column in 0..self.width {
                let numbers = self.numbers(column as u64 * self.frames + first, count)?;
                let places = values[column..].iter_mut().step_by(self.width);
                places
                    .zip(numbers.chunks_exact(size))
                    .for_each(|(to, number)| *to = self.number.read(self.is_big_endian, number));
            }
            values
        } else {
            let numbers = self.numbers(first * self.width as u64, count * self.width)?;
            numbers.chunks_exact(size).map(|number| self.number.read(self.is_big_endian, number)).collect()
        };
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(bad) => {
                let (frame, column) = (first + (bad / self.width) as u64, bad % self.width);
                let message = format!(
                    "number {column} of frame {frame} (counted from 0) is not finite; make the features once more"
                );
                Err(Error::new(message))
            }
        }
    }

    /// The bytes of so many numbers.
    fn numbers(&self, first: u64, count: usize) -> Result<Vec<u8>> {
        let size = self.number.bytes();
        let mut bytes = vec![0; count * size];
        self.bytes.read(&mut bytes, self.start + first * size as u64)?;
        Ok(bytes)
    }
}

/// Features of a file whose columns are not those of the config.
fn other_width(there: u64, width: usize) -> Error {
    Error::new(format!(
        "its frames have {there} numbers, not {width}; set `width` to {there}, or make the features once more"
    ))
}

#[cfg(test)]
mod tests;
