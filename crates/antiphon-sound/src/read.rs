//! Samples of wav and flac files.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Place, Result};
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::errors::Error as Fault;
use symphonia::core::formats::{FormatOptions, FormatReader, SeekMode, SeekTo, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::units::Timestamp;
use symphonia::default::formats::{FlacReader, WavReader};

/// The highest rate of a recording, in Hz.
const MAX_RATE: u32 = 384_000;
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
    let mut format = demultiplexer(&recording.path)?;
    let track = format.default_track(TrackType::Audio);
    let track = track.ok_or_else(no_sound)?;
    let (id, total) = (track.id, track.num_frames);
    let Some(CodecParameters::Audio(parameters)) = track.codec_params.clone() else {
        return Err(unreadable("nothing says how its sound is written"));
    };
    let rate = parameters.sample_rate.unwrap_or(0);
    if !(1..=MAX_RATE).contains(&rate) {
        return Err(unreadable(&format!("it claims to have {rate} samples a second")));
    }
    let per_second = f64::from(rate);
    let span = recording.span(per_second, max_seconds)?;
    if total == Some(0) {
        return Err(no_sound());
    }
    let limit = (max_seconds * per_second).floor() as u64;
    let (start, end) = match total {
        Some(total) => span.within(total, per_second, max_seconds)?,
        // One more than may be, so that it is seen.
        None => (span.start, span.end.unwrap_or(span.start.saturating_add(limit).saturating_add(1))),
    };
    let options = AudioDecoderOptions::default();
    let decoder = symphonia::default::get_codecs().make_audio_decoder(&parameters, &options);
    let mut decoder = decoder.map_err(|fault| unreadable(&fault.to_string()))?;
    if start > 0 {
        let to = SeekTo::Timestamp { ts: Timestamp::new(start as i64), track_id: id };
        format.seek(SeekMode::Accurate, to).map_err(|fault| stopped(&fault, start, rate))?;
        decoder.reset();
    }

    let mut part = Part::new(start, end);
    let mut block = Vec::new();
    while part.reached < end {
        let packet = match format.next_packet() {
            Ok(Some(packet)) if packet.track_id == id => packet,
            Ok(Some(_)) => continue,
            Ok(None) => break,
            Err(Fault::IoError(e)) if e.kind() == ErrorKind::UnexpectedEof => break,
            Err(fault) => return Err(stopped(&fault, part.reached, rate)),
        };
        let begins = packet.pts.get().max(0) as u64;
        let length = match decoder.decode(&packet) {
            Ok(buffer) if buffer.spec().rate() != rate => return Err(unreadable("its rate changes on the way")),
            Ok(buffer) => {
                buffer.copy_to_vec_interleaved(&mut block);
                part.packet(begins, &block, buffer.spec().channels().count().max(1))
            }
            Err(Fault::DecodeError(_) | Fault::IoError(_)) => part.damage(begins + packet.dur.get()),
            Err(fault) => return Err(stopped(&fault, begins, rate)),
        };
        if length == 0 {
            break;
        }
    }
    let Part { samples, damaged, .. } = part;
    let there = samples.len() as u64;
    if total.is_none() && recording.end.is_none() {
        if there > limit {
            return Err(too_long(there as f64 / per_second, max_seconds));
        }
    } else if there < end - start {
        let message = format!(
            "it ends after {:.2} s, where {:.2} s were to come: it is truncated; copy or convert it once more",
            (start + there) as f64 / per_second,
            end as f64 / per_second
        );
        return Err(Error::new(message));
    }
    if samples.is_empty() {
        return Err(no_sound());
    }
    if let Some(bad) = samples.iter().position(|sample| !sample.is_finite()) {
        let at = place(start + bad as u64, rate);
        return Err(Error::new("a sample is no finite number; write the file once more").at(at));
    }
    Ok(Sound { samples, rate, damaged })
}

/// The samples of a part, as packets come. Places are samples of the file.
struct Part {
    start: u64,
    end: u64,
    samples: Vec<f64>,
    damaged: usize,
    /// Where the packets end that have come.
    reached: u64,
}

impl Part {
    fn new(start: u64, end: u64) -> Self {
        // What a header promises is not yet there.
        let samples = Vec::with_capacity((end - start).min(1 << 20) as usize);
        Self { start, end, samples, damaged: 0, reached: start }
    }

    /// Takes what it wants of a packet from `begins` on, whose samples alternate between channels. How many it had of each.
    fn packet(&mut self, begins: u64, samples: &[f64], channels: usize) -> u64 {
        if begins > self.reached {
            // What lies between was no packet.
            self.damage(begins);
        }
        let known = (self.start + self.samples.len() as u64).saturating_sub(begins) as usize;
        let lacking = (self.end - self.start) as usize - self.samples.len();
        let frames = samples.chunks_exact(channels).skip(known).take(lacking);
        self.samples.extend(frames.map(|frame| frame.iter().sum::<f64>() / channels as f64));
        let length = (samples.len() / channels) as u64;
        self.reached = self.reached.max(begins + length);
        length
    }

    /// Silence up to `place`, for what could not be decoded. How far that is.
    fn damage(&mut self, place: u64) -> u64 {
        self.damaged += 1;
        let length = place.clamp(self.start, self.end) - self.start;
        self.samples.resize((length as usize).max(self.samples.len()), 0.0);
        let from = self.reached;
        self.reached = from.max(place);
        self.reached - from
    }
}

/// The reader of the file's format, which its first bytes tell, whatever its name.
fn demultiplexer(path: &Path) -> Result<Box<dyn FormatReader>> {
    let mut file = open(path)?;
    let mut head = Vec::new();
    let reading = |e: std::io::Error| Error::io(path, "read", &e);
    (&mut file).take(12).read_to_end(&mut head).map_err(reading)?;
    file.rewind().map_err(reading)?;
    let stream = || MediaSourceStream::new(Box::new(file), Default::default());
    let options = FormatOptions::default();
    let reader: Result<Box<dyn FormatReader>, Fault> = if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WAVE")
    {
        WavReader::try_new(stream(), options).map(|reader| Box::new(reader) as _)
    } else if head.starts_with(b"fLaC") {
        FlacReader::try_new(stream(), options).map(|reader| Box::new(reader) as _)
    } else {
        return Err(foreign(&head));
    };
    reader.map_err(|fault| unreadable(&fault.to_string()))
}

/// Opens a file that has bytes in it.
pub(crate) fn open(path: &Path) -> Result<File> {
    let kind = match fs::metadata(path) {
        Ok(kind) => kind,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::new("there is no such file; correct its path, or fetch it"));
        }
        Err(e) => return Err(Error::io(path, "open", &e)),
    };
    // A pipe would be waited for.
    if !kind.is_file() {
        return Err(Error::new("is no file; give the path of one"));
    }
    if kind.len() == 0 {
        return Err(Error::new("the file is empty; copy or record it once more, or leave it out"));
    }
    File::open(path).map_err(|e| Error::io(path, "open", &e))
}

/// What to say of a file that is neither wav nor flac.
fn foreign(head: &[u8]) -> Error {
    const KNOWN: [(&[u8], &str); 12] = [
        (b"%PDF", "a PDF document"),
        (b"ID3", "an MP3 file"),
        (&[0xFF, 0xFB], "an MP3 file"),
        (b"OggS", "an Ogg file"),
        (b"NIST_1A", "a SPHERE file"),
        (b"FORM", "an AIFF file"),
        (b".snd", "an AU file"),
        (b"RF64", "an RF64 file"),
        (b"RIFX", "a wav file with its bytes in the other order"),
        (b"\x93NUMPY", "a NumPy array, which `kind = \"given\"` reads"),
        (b"PK", "a zip archive"),
        (&[0x1F, 0x8B], "a gzip file"),
    ];
    let what = match KNOWN.iter().find(|(magic, _)| head.starts_with(magic)) {
        Some((_, what)) => format!("is {what}"),
        None => "is in a format that is not known here".into(),
    };
    Error::new(format!("{what}, neither wav nor flac; convert its sound with `ffmpeg -i OLD NEW.wav`, or leave it out"))
}

fn no_sound() -> Error {
    Error::new("has no sound in it; leave it out, or record it again")
}

fn unreadable(why: &str) -> Error {
    Error::new(format!("cannot be read as sound: {why}; convert it with `ffmpeg -i OLD NEW.wav`, or leave it out"))
}

/// A fault on the way, at a sample.
fn stopped(fault: &Fault, sample: u64, rate: u32) -> Error {
    let message = format!("cannot be read on: {fault}; copy or convert it once more, or leave it out");
    Error::new(message).at(place(sample, rate))
}

fn place(sample: u64, rate: u32) -> Place {
    Place::text(format!("at {:.2} s", sample as f64 / f64::from(rate)))
}
