//! From a recording to its features.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use antiphon_core::{Error, Result};

use crate::cepstrum::Cepstrum;
use crate::config::{Bands, FeaturesConfig};
use crate::deltas::with_deltas;
use crate::flow::{Flow, open};
use crate::given;
use crate::mel::Filterbank;
use crate::normalize::normalize;
use crate::read::{Recording, Sound, place, read};
use crate::resample::Resampler;
use crate::spectrum::{Framing, Spectrum};

/// So many resamplers are kept: corpora have few rates, and one of two rates that share no divisor is large.
const KEPT_RESAMPLERS: usize = 8;

/// Makes features as a config says; any number of threads may share it.
#[derive(Debug)]
pub struct Extractor {
    config: FeaturesConfig,
    /// `None` if features are given.
    analysis: Option<Analysis>,
}

/// Everything that is made once for all recordings.
#[derive(Debug)]
struct Analysis {
    bands: Bands,
    spectrum: Spectrum,
    filterbank: Filterbank,
    cepstrum: Option<Cepstrum>,
    /// By the rate that they come from.
    resamplers: Mutex<HashMap<u32, Arc<Resampler>>>,
}

/// The features of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Extracted {
    /// `[frames, width]`, row after row.
    pub values: Vec<f32>,
    /// How many stretches of the sound could not be decoded and are silent.
    pub damaged: usize,
}

impl Extractor {
    /// Makes ready what all recordings share.
    ///
    /// # Errors
    /// All [`problems`](FeaturesConfig::problems) of the config.
    pub fn new(config: &FeaturesConfig) -> Result<Self> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(Error { file: None, problems });
        }
        let analysis = config.bands().map(|bands| Analysis {
            spectrum: Spectrum::new(bands.framing.clone()),
            filterbank: bands.filterbank().expect("bands without problems"),
            cepstrum: match config {
                FeaturesConfig::Mfcc(config) => Some(Cepstrum::new(config.coefficients, config.filters, config.lifter)),
                FeaturesConfig::LogMel(_) | FeaturesConfig::Given(_) => None,
            },
            resamplers: Mutex::default(),
            bands,
        });
        Ok(Self { config: config.clone(), analysis })
    }

    /// What it was made from.
    pub fn config(&self) -> &FeaturesConfig {
        &self.config
    }

    /// Reads a recording and makes its features.
    ///
    /// # Errors
    /// If it cannot be [read](read()), has another rate than the config says and is not to be resampled, is silent, or is shorter than
    /// a frame. The error names the file.
    pub fn extract(&self, recording: &Recording) -> Result<Extracted> {
        let named = |error: Error| error.in_file(&recording.path);
        match (&self.config, &self.analysis) {
            (FeaturesConfig::Given(config), _) => {
                let frames = given::read(config, recording).map_err(named)?;
                let values = self.finish(frames, config.width).map_err(named)?;
                Ok(Extracted { values, damaged: 0 })
            }
            (_, Some(_)) => self.extract_sound(read(recording, self.config.max_seconds())?).map_err(named),
            (_, None) => unreachable!("what is not given is made of sound"),
        }
    }

    /// Holds a recording against the config as far as the head of its file tells; of features that are given, whether there is a
    /// file.
    ///
    /// # Errors
    /// If there is none, or it cannot be used. The error names the file.
    pub fn look(&self, recording: &Recording) -> Result<()> {
        let look = || match &self.analysis {
            None => open(&recording.path).map(drop),
            Some(analysis) => {
                let flow = Flow::open(&recording.path)?;
                place(recording, &flow, self.config.max_seconds())?;
                analysis.check_rate(flow.rate())
            }
        };
        look().map_err(|error| error.in_file(&recording.path))
    }

    /// Makes the features of sound that was read.
    ///
    /// # Errors
    /// As [`extract_samples`](Self::extract_samples), or if the sound has another rate than the config says and is not to be
    /// resampled.
    pub fn extract_sound(&self, sound: Sound) -> Result<Extracted> {
        let Sound { samples, rate, damaged } = sound;
        let samples = match &self.analysis {
            Some(analysis) => analysis.at_rate(samples, rate)?,
            None => samples,
        };
        Ok(Extracted { values: self.extract_samples(&samples)?, damaged })
    }

    /// The features of samples at the config's rate and at full scale 1: `[frames, width]`, row after row.
    ///
    /// # Errors
    /// If the config's features are not made of sound, or the samples are silent or fewer than a frame has.
    pub fn extract_samples(&self, samples: &[f64]) -> Result<Vec<f32>> {
        let Some(analysis) = &self.analysis else {
            return Err(Error::new("`given` features are not made of sound; use `log_mel` or `mfcc`").at("kind"));
        };
        let Framing { rate, window, .. } = analysis.bands.framing;
        if samples.len() < window {
            let (there, rate) = (samples.len(), f64::from(rate));
            let message = format!(
                "its {there} samples ({:.1} ms) are fewer than the {window} ({:.1} ms) of a frame; leave it out, or make `window` shorter",
                1000.0 * there as f64 / rate,
                1000.0 * window as f64 / rate
            );
            return Err(Error::new(message));
        }
        if samples.iter().all(|sample| *sample == samples[0]) {
            return Err(Error::new("it is silent from beginning to end; leave it out, or record it again"));
        }
        let (mut frames, width) = analysis.frames(samples);
        if let Some(decibels) = self.config.range() {
            raise(&mut frames, width, usize::from(analysis.bands.energy), decibels);
        }
        self.finish(frames, width)
    }

    /// What all kinds have in common: deltas, normalisation, and numbers of 32 bits.
    fn finish(&self, frames: Vec<f64>, width: usize) -> Result<Vec<f32>> {
        let orders = self.config.deltas();
        let mut frames = if orders == 0 { frames } else { with_deltas(&frames, width, orders) };
        normalize(self.config.normalize(), &mut frames, self.config.width());
        let values: Vec<f32> = frames.into_iter().map(|value| value as f32).collect();
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err(Error::new("its numbers are too large for features; scale it so that the loudest sample is 1 or less"))
        }
    }
}

/// Raises energies to what lies so many decibels below the greatest: those of bands, and of whole frames, of which there are `first`
/// before them, each among their like.
fn raise(frames: &mut [f64], width: usize, first: usize, decibels: f64) {
    let below = decibels * std::f64::consts::LN_10 / 10.0;
    for columns in [0..first, first..width] {
        let of_all = frames.chunks_exact(width).flat_map(|frame| &frame[columns.clone()]);
        let floor = of_all.copied().fold(f64::NEG_INFINITY, f64::max) - below;
        let all = frames.chunks_exact_mut(width).flat_map(|frame| &mut frame[columns.clone()]);
        all.for_each(|energy| *energy = energy.max(floor));
    }
}

impl Analysis {
    /// Whether sound of this rate can be used.
    fn check_rate(&self, from: u32) -> Result<()> {
        let to = self.bands.framing.rate;
        if from == to || self.bands.resample {
            return Ok(());
        }
        let message = format!(
            "it has {from} samples a second, not {to}; set features.resample = true, or features.rate = {from} if all recordings have that"
        );
        Err(Error::new(message))
    }

    /// The samples at the config's rate.
    fn at_rate(&self, samples: Vec<f64>, from: u32) -> Result<Vec<f64>> {
        self.check_rate(from)?;
        let to = self.bands.framing.rate;
        if from == to {
            return Ok(samples);
        }
        let resampler = {
            let mut kept = self.resamplers.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() >= KEPT_RESAMPLERS && !kept.contains_key(&from) {
                kept.clear();
            }
            kept.entry(from).or_insert_with(|| Arc::new(Resampler::new(from, to))).clone()
        };
        Ok(resampler.resample(&samples))
    }

    /// Log-mel energies or cepstra, with or without energy: `[frames, width]`, and the width.
    fn frames(&self, samples: &[f64]) -> (Vec<f64>, usize) {
        let Framing { window, hop, .. } = *self.spectrum.framing();
        let Bands { filters, energy, .. } = self.bands;
        let width = self.cepstrum.as_ref().map_or(filters + usize::from(energy), Cepstrum::len);
        let count = self.spectrum.framing().frames(samples.len());
        let mut frames = vec![0.0; count * width];
        let (mut workspace, mut bands) = (self.spectrum.workspace(), vec![0.0; filters]);
        for (t, frame) in frames.chunks_exact_mut(width).enumerate() {
            self.spectrum.frame(&samples[t * hop..][..window], &mut workspace);
            if let Some(cepstrum) = &self.cepstrum {
                self.filterbank.log_energies(&workspace.power, &mut bands);
                cepstrum.of(&bands, frame);
            } else {
                self.filterbank.log_energies(&workspace.power, &mut frame[usize::from(energy)..]);
            }
            if energy {
                frame[0] = workspace.log_energy;
            }
        }
        (frames, width)
    }
}
