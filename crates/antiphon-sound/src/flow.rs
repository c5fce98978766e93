//! The samples of a file one after another, as its packets come.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek};
use std::path::Path;

use antiphon_core::{Error, Place, Result};
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Fault;
use symphonia::core::formats::{FormatOptions, FormatReader, SeekMode, SeekTo, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::units::Timestamp;
use symphonia::default::formats::{FlacReader, WavReader};

/// The highest rate of a recording, in Hz.
const MAX_RATE: u32 = 384_000;

/// Samples at full scale 1, the mean of the channels, from a place on. What could not be decoded is silent, so that all else keeps
/// its time.
pub(crate) struct Flow {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    /// Samples a second.
    rate: u32,
    /// How many samples the file has, as it says itself; `None` if it does not say.
    total: Option<u64>,
    /// The sample that comes next, counted from the beginning of the file.
    place: u64,
    /// A packet that is not yet handed out to its end.
    packet: Option<Packet>,
    damaged: usize,
}

/// Samples that a packet brought; none where only silence leads to the place.
struct Packet {
    begins: u64,
    samples: Vec<f64>,
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rate, total, place, damaged, .. } = self;
        write!(f, "Flow {{ rate: {rate}, total: {total:?}, place: {place}, damaged: {damaged} }}")
    }
}

impl Flow {
    /// Opens a file of sound, at its beginning.
    ///
    /// # Errors
    /// If there is no such file, or it is something else, or nothing can be read of it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let format = demultiplexer(path)?;
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
        let options = AudioDecoderOptions::default();
        let decoder = symphonia::default::get_codecs().make_audio_decoder(&parameters, &options);
        let decoder = decoder.map_err(|fault| unreadable(&fault.to_string()))?;
        Ok(Self { format, decoder, track: id, rate, total, place: 0, packet: None, damaged: 0 })
    }

    /// Samples a second.
    pub(crate) fn rate(&self) -> u32 {
        self.rate
    }

    /// How many samples the file has, as it says itself.
    pub(crate) fn total(&self) -> Option<u64> {
        self.total
    }

    /// How many stretches could not be decoded so far, since this was asked last.
    pub(crate) fn take_damaged(&mut self) -> usize {
        std::mem::take(&mut self.damaged)
    }

    /// Goes to a sample.
    ///
    /// # Errors
    /// If that cannot be found.
    pub(crate) fn seek(&mut self, place: u64) -> Result<()> {
        let to = SeekTo::Timestamp { ts: Timestamp::new(place as i64), track_id: self.track };
        self.format.seek(SeekMode::Accurate, to).map_err(|fault| self.stopped(&fault, place))?;
        self.decoder.reset();
        (self.place, self.packet) = (place, None);
        Ok(())
    }

    /// Reads on until there are `count` samples, or the file ends.
    ///
    /// # Errors
    /// If it cannot be read on, or a sample is no finite number.
    pub(crate) fn fill(&mut self, samples: &mut Vec<f64>, count: usize) -> Result<()> {
        while samples.len() < count {
            let Some(Packet { begins, samples: new }) = &self.packet else {
                match self.next_packet()? {
                    Some(packet) => self.packet = Some(packet),
                    None => break,
                }
                continue;
            };
            let lacking = count - samples.len();
            if self.place < *begins {
                let silent = (begins - self.place).min(lacking as u64);
                samples.resize(samples.len() + silent as usize, 0.0);
                self.place += silent;
                continue;
            }
            let known = (self.place - begins).min(new.len() as u64) as usize;
            let taken = &new[known..][..lacking.min(new.len() - known)];
            if let Some(bad) = taken.iter().position(|sample| !sample.is_finite()) {
                let at = self.time(self.place + bad as u64);
                return Err(Error::new("a sample is no finite number; write the file once more").at(at));
            }
            samples.extend_from_slice(taken);
            self.place += taken.len() as u64;
            if known + taken.len() == new.len() {
                self.packet = None;
            }
        }
        Ok(())
    }

    /// The next packet that has something to add; `None` at the end.
    fn next_packet(&mut self) -> Result<Option<Packet>> {
        let packet = loop {
            match self.format.next_packet() {
                Ok(Some(packet)) if packet.track_id == self.track => break packet,
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(Fault::IoError(e)) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
                Err(fault) => return Err(self.stopped(&fault, self.place)),
            }
        };
        let begins = packet.pts.get().max(0) as u64;
        let packet = match self.decoder.decode(&packet) {
            Ok(buffer) if buffer.spec().rate() != self.rate => return Err(unreadable("its rate changes on the way")),
            Ok(buffer) => {
                let channels = buffer.spec().channels().count().max(1);
                let mut samples = Vec::new();
                buffer.copy_to_vec_interleaved(&mut samples);
                let mean = |frame: &[f64]| frame.iter().sum::<f64>() / channels as f64;
                if channels > 1 {
                    samples = samples.chunks_exact(channels).map(mean).collect();
                }
                if begins > self.place {
                    // What lies between was no packet.
                    self.damaged += 1;
                }
                Packet { begins, samples }
            }
            Err(Fault::DecodeError(_) | Fault::IoError(_)) => {
                self.damaged += 1;
                Packet { begins: begins + packet.dur.get(), samples: Vec::new() }
            }
            Err(fault) => return Err(self.stopped(&fault, begins)),
        };
        // One that adds nothing is taken for the end.
        Ok(Some(packet).filter(|packet| packet.begins + packet.samples.len() as u64 > self.place))
    }

    /// What to say of a file that ends before sample `end`.
    pub(crate) fn truncated(&self, end: u64) -> Error {
        let seconds = |samples: u64| samples as f64 / f64::from(self.rate);
        Error::new(format!(
            "it ends after {:.2} s, where {:.2} s were to come: it is truncated; copy or convert it once more",
            seconds(self.place),
            seconds(end)
        ))
    }

    /// A fault on the way, at a sample.
    fn stopped(&self, fault: &Fault, sample: u64) -> Error {
        let message = format!("cannot be read on: {fault}; copy or convert it once more, or leave it out");
        Error::new(message).at(self.time(sample))
    }

    fn time(&self, sample: u64) -> Place {
        Place::text(format!("at {:.2} s", sample as f64 / f64::from(self.rate)))
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

pub(crate) fn no_sound() -> Error {
    Error::new("has no sound in it; leave it out, or record it again")
}

fn unreadable(why: &str) -> Error {
    Error::new(format!("cannot be read as sound: {why}; convert it with `ffmpeg -i OLD NEW.wav`, or leave it out"))
}
