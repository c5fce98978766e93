//! Samples of wav and flac files.

use std::path::PathBuf;

use antiphon_core::{Error, Result};

use crate::flow::{Flow, no_sound};

/// How far behind the end of a recording a time may lie, in seconds: tables round them.
const SLACK: f64 = 0.01;

/// A recording, or a part of one: where it lies.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recording {
    /// The file.
    pub path: PathBuf,
    /// Where the part begins, in seconds; if `None`, with the file.
    pub start: Option<f64>,
    /// Where the part ends, in seconds; if `None`, with the file.
    pub end: Option<f64>,
}

impl Recording {
    /// All of a file.
    pub fn whole(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), start: None, end: None }
    }

    /// Where the part begins and ends, in steps of which a second has `rate`.
    ///
    /// # Errors
    /// If it has no length, or is longer than `max_seconds` as far as that can be told from the times.
    pub(crate) fn span(&self, rate: f64, max_seconds: f64) -> Result<Span> {
        let start = self.start.unwrap_or(0.0);
        let is_time = |time: f64| time >= 0.0 && time.is_finite();
        if let Some(bad) = [self.start, self.end].into_iter().flatten().find(|&time| !is_time(time)) {
            return Err(Error::new(format!("{bad} is no time; give seconds from the beginning of the file")));
        }
        if let Some(end) = self.end {
            if end <= start {
                return Err(Error::new(format!("the part from {start} s to {end} s has no length; give a later end")));
            }
            if end - start > max_seconds {
                return Err(too_long(end - start, max_seconds));
            }
        }
        let steps = |time: f64| (time * rate).round() as u64;
        Ok(Span { start: steps(start), end: self.end.map(steps) })
    }
}

/// A part, in samples or frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) start: u64,
    /// `None`: with the file.
    pub(crate) end: Option<u64>,
}

impl Span {
    /// Where the part begins and ends in a file of `total` steps, of which a second has `rate`.
    ///
    /// # Errors
    /// If the file ends before the part does, or the part is longer than `max_seconds`.
    pub(crate) fn within(self, total: u64, rate: f64, max_seconds: f64) -> Result<(u64, u64)> {
        let seconds = |steps: u64| steps as f64 / rate;
        let slack = (SLACK * rate).ceil() as u64;
        let end = self.end.unwrap_or(total);
        if end > total + slack || self.start >= total {
            let (start, end, total) = (seconds(self.start), seconds(end.max(self.start)), seconds(total));
            let message = format!(
                "the part from {start:.2} s to {end:.2} s does not lie within the file, which has {total:.2} s; correct its times"
            );
            return Err(Error::new(message));
        }
        let end = end.min(total);
        let length = seconds(end - self.start);
        if length > max_seconds { Err(too_long(length, max_seconds)) } else { Ok((self.start, end)) }
    }
}

/// What to say of a recording over the limit.
pub(crate) fn too_long(seconds: f64, max_seconds: f64) -> Error {
    let message = format!(
        "it has {seconds:.1} s of sound, more than `max_seconds` ({max_seconds}); cut it, give the start and the end of a part, or \
         raise the limit"
    );
    Error::new(message)
}

/// Samples, and how many there are in a second.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// At full scale 1; the mean of the channels.
    pub samples: Vec<f64>,
    /// Samples a second.
    pub rate: u32,
    /// How many stretches could not be decoded. They are silent here, so that all others keep their time.
    pub damaged: usize,
}

impl Sound {
    /// How long it is, in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate)
    }
}

/// Reads a recording, or a part of one, from a wav file (integers of 8 to 32 bits, floating point, A-law or mu-law) or a flac file.
///
/// No more is decoded than the part, and no more than `max_seconds` of it are ever in memory.
///
/// # Errors
/// If there is no such file, it is something else or damaged beyond reading, shorter than it says itself, or longer than
/// `max_seconds`; or if the part does not lie in it.
pub fn read(recording: &Recording, max_seconds: f64) -> Result<Sound> {
    read_part(recording, max_seconds).map_err(|error| error.in_file(&recording.path))
}

fn read_part(recording: &Recording, max_seconds: f64) -> Result<Sound> {
    let mut flow = Flow::open(&recording.path)?;
    let (start, end) = place(recording, &flow, max_seconds)?;
    let (rate, total) = (flow.rate(), flow.total());
    if start > 0 {
        flow.seek(start)?;
    }
    // What a header promises is not yet there.
    let mut samples = Vec::with_capacity((end - start).min(1 << 20) as usize);
    flow.fill(&mut samples, (end - start) as usize)?;
    let there = samples.len() as u64;
    if total.is_none() && recording.end.is_none() {
        if there == end - start {
            return Err(too_long(there as f64 / f64::from(rate), max_seconds));
        }
    } else if there < end - start {
        return Err(flow.truncated(end));
    }
    if samples.is_empty() {
        return Err(no_sound());
    }
    Ok(Sound { samples, rate, damaged: flow.take_damaged() })
}

/// Where a recording begins and ends in its file, in samples, as far as the header tells; where that does not tell the end, it is
/// one sample behind the limit, so that it is seen.
///
/// # Errors
/// If the part does not lie in the file, or is longer than `max_seconds`.
pub(crate) fn place(recording: &Recording, flow: &Flow, max_seconds: f64) -> Result<(u64, u64)> {
    let rate = f64::from(flow.rate());
    let span = recording.span(rate, max_seconds)?;
    match flow.total() {
        Some(0) => Err(no_sound()),
        Some(total) => span.within(total, rate, max_seconds),
        None => {
            let limit = (max_seconds * rate).floor() as u64;
            Ok((span.start, span.end.unwrap_or(span.start.saturating_add(limit).saturating_add(1))))
        }
    }
}
