//! Sound that tests make themselves.

use std::f64::consts::PI;
use std::fs;
use std::path::{Path, PathBuf};

use antiphon_core::random::Key;
use antiphon_sound::{FeaturesConfig, Recording};

/// A rising tone that swells twice, and noise; `golden/make.py` makes the same.
pub(crate) fn signal(rate: u32, count: usize) -> Vec<f64> {
    let key = Key::from_seed(1);
    let sample = |n: usize| {
        let t = n as f64 / f64::from(rate);
        let swell = 0.05 + 0.9 * (10.0 * t).sin().powi(2);
        swell * (2.0 * PI * (100.0 + 10_000.0 * t) * t).sin() + 0.02 * (key.uniform(n as u64) - 0.5)
    };
    (0..count).map(sample).collect()
}

/// How samples are written in a wav file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sample {
    U8,
    I16,
    I24,
    I32,
    F32,
    F64,
}

impl Sample {
    pub(crate) const ALL: [Self; 6] = [Self::U8, Self::I16, Self::I24, Self::I32, Self::F32, Self::F64];

    const fn bits(self) -> u16 {
        match self {
            Self::U8 => 8,
            Self::I16 => 16,
            Self::I24 => 24,
            Self::I32 | Self::F32 => 32,
            Self::F64 => 64,
        }
    }

    const fn is_integer(self) -> bool {
        !matches!(self, Self::F32 | Self::F64)
    }

    /// The nearest number that can be written.
    pub(crate) fn round(self, value: f64) -> f64 {
        let scale = 2_f64.powi(i32::from(self.bits()) - 1);
        match self {
            Self::F64 => value,
            Self::F32 => f64::from(value as f32),
            _ => (value * scale).round() / scale,
        }
    }

    fn bytes(self, value: f64) -> Vec<u8> {
        let integer = (value * 2_f64.powi(i32::from(self.bits()) - 1)).round() as i64;
        match self {
            Self::U8 => vec![(integer + 128) as u8],
            Self::F32 => (value as f32).to_le_bytes().to_vec(),
            Self::F64 => value.to_le_bytes().to_vec(),
            Self::I16 | Self::I24 | Self::I32 => integer.to_le_bytes()[..usize::from(self.bits() / 8)].to_vec(),
        }
    }
}

/// A wav file of several channels, each as long as the first.
pub(crate) fn wav(sample: Sample, rate: u32, channels: &[Vec<f64>]) -> Vec<u8> {
    let frames = (0..channels[0].len()).flat_map(|n| channels.iter().map(move |channel| channel[n]));
    let data: Vec<u8> = frames.flat_map(|value| sample.bytes(value)).collect();
    let align = channels.len() as u16 * sample.bits() / 8;
    let format = [
        if sample.is_integer() { 1_u16 } else { 3 }.to_le_bytes().to_vec(),
        (channels.len() as u16).to_le_bytes().to_vec(),
        rate.to_le_bytes().to_vec(),
        (rate * u32::from(align)).to_le_bytes().to_vec(),
        align.to_le_bytes().to_vec(),
        sample.bits().to_le_bytes().to_vec(),
    ]
    .concat();
    riff(&format, &data)
}

/// A wav file of two chunks.
pub(crate) fn riff(format: &[u8], data: &[u8]) -> Vec<u8> {
    let chunk = |name: &[u8], data: &[u8]| [name, &(data.len() as u32).to_le_bytes(), data].concat();
    chunk(b"RIFF", &[b"WAVE", &chunk(b"fmt ", format)[..], &chunk(b"data", data)].concat())
}

/// A folder that vanishes with its value.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A wav file of 16-bit integers, all of which are read.
    pub(crate) fn recording(&self, name: &str, rate: u32, samples: &[f64]) -> Recording {
        Recording::whole(self.file(name, &wav(Sample::I16, rate, &[samples.to_vec()])))
    }
}

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Settings as a file has them, but for TOML.
pub(crate) fn config(json: &str) -> FeaturesConfig {
    serde_json::from_str(json).unwrap()
}
