//! Another number of samples a second.

use std::f64::consts::PI;

/// Zero crossings of the sinc on each side.
const CROSSINGS: f64 = 6.0;
/// Where the filter ends, as a share of half the lower rate.
const ROLL_OFF: f64 = 0.99;

/// A sinc under a window of Hann, with six zero crossings on each side and a roll-off of 0.99: torchaudio's
/// `functional.resample` at its defaults (Smith, *Digital Audio Resampling*).
///
/// After dividing both rates by what they share, sample `to * i + phase` of the result is the sum of few samples around `from * i`,
/// by weights that only `phase` decides; these are made once.
#[derive(Debug, Clone)]
pub struct Resampler {
    /// The rates without their common divisor.
    from: usize,
    to: usize,
    phases: Vec<Phase>,
}

/// The weights of one place between two samples.
#[derive(Debug, Clone)]
struct Phase {
    /// Where the first sample lies beside `from * i`.
    first: isize,
    weights: Vec<f64>,
}

impl Resampler {
    /// From one number of samples a second to another.
    ///
    /// # Panics
    /// If one of them is 0.
    pub fn new(from: u32, to: u32) -> Self {
        assert!(from > 0 && to > 0, "from {from} to {to} samples a second");
        let divisor = greatest_common_divisor(from, to);
        let (from, to) = ((from / divisor) as usize, (to / divisor) as usize);
        let base = from.min(to) as f64 * ROLL_OFF;
        let reach = (CROSSINGS * from as f64 / base).ceil() as isize;
        let phase = |phase: usize| {
            // The time from the place to a sample, in periods of the filter.
            let time = |sample: isize| (sample as f64 / from as f64 - phase as f64 / to as f64) * base;
            let is_near = |sample: &isize| time(*sample).abs() < CROSSINGS;
            let weight = |sample: isize| {
                let time = time(sample);
                let window = (time * PI / CROSSINGS / 2.0).cos().powi(2);
                let sinc = if time == 0.0 { 1.0 } else { (time * PI).sin() / (time * PI) };
                sinc * window * base / from as f64
            };
            // A phase lies less than `from` samples behind `from * i`, in the middle of its samples.
            let middle = (phase * from / to) as isize;
            let near: Vec<isize> = (middle - reach..=middle + reach + 1).filter(is_near).collect();
            Phase { first: near[0], weights: near.into_iter().map(weight).collect() }
        };
        Self { from, to, phases: (0..to).map(phase).collect() }
    }

    /// `samples` at the new rate, `ceil(samples * to / from)` of them. Beyond its ends the recording is silent.
    pub fn resample(&self, samples: &[f64]) -> Vec<f64> {
        if self.from == self.to {
            return samples.to_vec();
        }
        let length = (samples.len() * self.to).div_ceil(self.from);
        let at = |place: usize| {
            let Phase { first, weights } = &self.phases[place % self.to];
            let start = (place / self.to * self.from) as isize + first;
            let skipped = start.min(0).unsigned_abs().min(weights.len());
            let inside = samples.get(start.max(0) as usize..).unwrap_or_default();
            inside.iter().zip(&weights[skipped..]).map(|(sample, weight)| sample * weight).sum()
        };
        (0..length).map(at).collect()
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(frequency: f64, rate: u32, count: usize) -> Vec<f64> {
        (0..count).map(|n| 0.5 * (2.0 * PI * frequency * n as f64 / f64::from(rate)).sin()).collect()
    }

    #[test]
    fn up_and_down_again_is_nearly_nothing() {
        for (low, high) in [(8000, 16_000), (16_000, 44_100), (11_025, 16_000), (16_000, 16_000)] {
            let before = tone(700.0, low, 4000);
            let raised = Resampler::new(low, high).resample(&before);
            assert_eq!(raised.len(), (4000 * high as usize).div_ceil(low as usize));
            let after = Resampler::new(high, low).resample(&raised);
            let inner = 50..3950;
            let worst = inner.map(|n| (after[n] - before[n]).abs()).fold(0.0, f64::max);
            assert!(worst < 2e-3, "{low} to {high}: {worst}");
        }
    }

    /// What the new rate cannot hold is filtered out, rather than folded back to where it was not.
    #[test]
    fn tones_above_half_the_rate_vanish_and_others_stay() {
        let down = Resampler::new(16_000, 8000);
        let power = |frequency: f64| {
            let out = down.resample(&tone(frequency, 16_000, 8000));
            out[100..3900].iter().map(|x| x * x).sum::<f64>() / 3800.0
        };
        assert!((power(1000.0) / 0.125 - 1.0).abs() < 0.01);
        assert!(power(6000.0) < 1e-5 * power(1000.0), "{} of {}", power(6000.0), power(1000.0));
    }

    #[test]
    fn whatever_the_rates_and_lengths_no_sample_is_missed() {
        for (from, to) in [(8000, 8001), (44_101, 16_000), (1, 3), (7, 2), (16_000, 8000)] {
            let resampler = Resampler::new(from, to);
            for length in [0, 1, 2, 13, 100] {
                let out = resampler.resample(&vec![1.0; length]);
                assert_eq!(out.len(), (length * to as usize).div_ceil(from as usize));
                assert!(out.iter().all(|x| x.is_finite()));
            }
        }
    }
}
