//! From samples to the power spectrum of each frame, by the rules of Kaldi (`feat/feature-window.cc`).

use std::f64::consts::PI;
use std::fmt;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use crate::config::WindowShape;

/// Kaldi's samples are those of 16-bit files.
const FULL_SCALE: f64 = 32_768.0;

/// How a recording is cut into frames.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Framing {
    /// Samples a second.
    pub(crate) rate: u32,
    /// The samples of a frame.
    pub(crate) window: usize,
    /// The samples from where a frame begins to where the next one does.
    pub(crate) hop: usize,
    pub(crate) shape: WindowShape,
    pub(crate) pre_emphasis: f64,
}

impl Framing {
    /// The points of the Fourier transform: the next power of 2.
    pub(crate) fn transform(&self) -> usize {
        self.window.next_power_of_two()
    }

    /// How many whole frames there are in so many samples.
    pub(crate) fn frames(&self, samples: usize) -> usize {
        samples.checked_sub(self.window).map_or(0, |rest| 1 + rest / self.hop)
    }

    fn weights(&self) -> Vec<f64> {
        let step = 2.0 * PI / (self.window - 1) as f64;
        let hann = |n: usize| 0.5 - 0.5 * (step * n as f64).cos();
        let weight = |n: usize| match self.shape {
            WindowShape::Povey => hann(n).powf(0.85),
            WindowShape::Hann => hann(n),
            WindowShape::Hamming => 0.54 - 0.46 * (step * n as f64).cos(),
            WindowShape::Rectangular => 1.0,
        };
        (0..self.window).map(weight).collect()
    }
}

/// The frames' power spectra: made once, used by any thread with a [`Workspace`] of its own.
pub(crate) struct Spectrum {
    framing: Framing,
    weights: Vec<f64>,
    transform: Arc<dyn RealToComplex<f64>>,
}

impl fmt::Debug for Spectrum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spectrum").field("framing", &self.framing).finish_non_exhaustive()
    }
}

/// What a frame is made in.
pub(crate) struct Workspace {
    samples: Vec<f64>,
    bins: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
    /// The power in each bin below half of the rate.
    pub(crate) power: Vec<f64>,
    /// The logarithm of the frame's energy before pre-emphasis and weights.
    pub(crate) log_energy: f64,
}

impl Spectrum {
    pub(crate) fn new(framing: Framing) -> Self {
        let transform = RealFftPlanner::new().plan_fft_forward(framing.transform());
        Self { weights: framing.weights(), framing, transform }
    }

    pub(crate) fn framing(&self) -> &Framing {
        &self.framing
    }

    pub(crate) fn workspace(&self) -> Workspace {
        Workspace {
            samples: self.transform.make_input_vec(),
            bins: self.transform.make_output_vec(),
            scratch: self.transform.make_scratch_vec(),
            power: vec![0.0; self.framing.transform() / 2],
            log_energy: 0.0,
        }
    }

    /// The spectrum of the frame whose samples these are: at full scale 1, and `window` of them.
    pub(crate) fn frame(&self, samples: &[f64], workspace: &mut Workspace) {
        let Framing { window, pre_emphasis, .. } = self.framing;
        let (frame, padding) = workspace.samples.split_at_mut(window);
        frame.iter_mut().zip(samples).for_each(|(to, sample)| *to = sample * FULL_SCALE);
        let mean = frame.iter().sum::<f64>() / window as f64;
        frame.iter_mut().for_each(|sample| *sample -= mean);
        let energy: f64 = frame.iter().map(|sample| sample * sample).sum();
        // torchaudio's floor.
        workspace.log_energy = energy.max(1.0).ln();
        // From the end, so that each still finds the one before as it was.
        for i in (1..window).rev() {
            frame[i] = (frame[i] - pre_emphasis * frame[i - 1]) * self.weights[i];
        }
        frame[0] = (frame[0] - pre_emphasis * frame[0]) * self.weights[0];
        padding.fill(0.0);
        self.transform
            .process_with_scratch(&mut workspace.samples, &mut workspace.bins, &mut workspace.scratch)
            .expect("buffers that the transform has made");
        workspace.power.iter_mut().zip(&workspace.bins).for_each(|(power, bin)| *power = bin.norm_sqr());
    }
}
