//! Features as if the same had been said faster, slower, or by another speaker: values are read between those that are there.

use crate::config::{Bands, FeaturesConfig};
use crate::mel::{hertz, mel};

/// Up to which frequency a voice is made higher or lower as a whole, in Hz: it covers the formants that matter (Jaitly and Hinton 2013).
const FORMANTS: f64 = 4800.0;
/// The same for sound that ends below, as a share of its highest frequency.
const MOST_FORMANTS: f64 = 0.8;

/// A place among values: so far from the one before it to the one behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Between {
    before: usize,
    behind: usize,
    share: f32,
}

impl Between {
    /// The place at `position` among `count` values, of which the first lies at 0. Beyond the ends are those at the ends.
    fn at(position: f64, count: usize) -> Self {
        let position = position.clamp(0.0, (count - 1) as f64);
        let before = position as usize;
        Self { before, behind: (before + 1).min(count - 1), share: (position - before as f64) as f32 }
    }

    fn read(self, before: f32, behind: f32) -> f32 {
        before + self.share * (behind - before)
    }
}

/// Writes to `out` as many frames of `width` numbers as it has, spread evenly over those of `heard`: the first is the first there, and
/// the last the last.
///
/// # Panics
/// If `out` has frames and `heard` has none.
pub(crate) fn resample(heard: &[f32], out: &mut [f32], width: usize) {
    if heard.len() == out.len() {
        return out.copy_from_slice(heard);
    }
    let (from, to) = (heard.len() / width, out.len() / width);
    for (i, out) in out.chunks_exact_mut(width).enumerate() {
        let place = Between::at((i * (from - 1)) as f64 / (to - 1).max(1) as f64, from);
        let [before, behind] = [place.before, place.behind].map(|frame| &heard[frame * width..][..width]);
        for ((out, &before), &behind) in out.iter_mut().zip(before).zip(behind) {
            *out = place.read(before, behind);
        }
    }
}

/// The bands of one speaker, as another one with a longer or shorter vocal tract would fill them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VocalTract {
    /// How many columns before the bands are none.
    first: usize,
    /// Where each band is read.
    bands: Vec<Between>,
}

impl VocalTract {
    /// Each band becomes what is there at `factor` times its frequency; `None` unless the features are bands.
    pub(crate) fn new(features: &FeaturesConfig, factor: f64) -> Option<Self> {
        let Bands { filters, low, high, energy, .. } = features.bands().filter(|_| features.are_bands())?;
        let width = (mel(high) - mel(low)) / (filters + 1) as f64;
        let band = |i: usize| {
            let centre = hertz(mel(low) + width * (i + 1) as f64);
            Between::at((mel(moved(centre, factor, high)) - mel(low)) / width - 1.0, filters)
        };
        Some(Self { first: usize::from(energy), bands: (0..filters).map(band).collect() })
    }

    /// Fills the bands of blocks of `columns` numbers.
    pub(crate) fn apply(&self, values: &mut [f32], columns: usize) {
        let mut heard = vec![0.0; self.bands.len()];
        for block in values.chunks_exact_mut(columns) {
            let bands = &mut block[self.first..];
            heard.copy_from_slice(bands);
            for (band, &place) in bands.iter_mut().zip(&self.bands) {
                *band = place.read(heard[place.before], heard[place.behind]);
            }
        }
    }
}

/// `factor` times a frequency in Hz, and beyond the formants a line from there to `high`, which stays itself (Jaitly and Hinton
/// 2013).
fn moved(frequency: f64, factor: f64, high: f64) -> f64 {
    let end = FORMANTS.min(MOST_FORMANTS * high) * factor.min(1.0);
    let bend = end / factor;
    if frequency <= bend { frequency * factor } else { high - (high - end) / (high - bend) * (high - frequency) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resampled(heard: &[f32], frames: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; frames * 2];
        resample(heard, &mut out, 2);
        out
    }

    #[test]
    fn frames_are_spread_evenly_from_end_to_end() {
        for from in [1, 2, 3, 50, 101] {
            // A line stays a line, and a constant column stays the same number.
            let heard: Vec<f32> = (0..from).flat_map(|i| [i as f32, 0.3]).collect();
            for to in [1, 2, 3, 49, 60, 101] {
                let out = resampled(&heard, to);
                assert_eq!(out[0], 0.0);
                assert!(to == 1 || out[2 * to - 2] == (from - 1) as f32, "{from} to {to}");
                for (i, frame) in out.chunks_exact(2).enumerate() {
                    let line = (i * (from - 1)) as f32 / (to - 1).max(1) as f32;
                    assert!((frame[0] - line).abs() < 1e-4 && frame[1] == 0.3, "{from} to {to}: {frame:?}");
                }
            }
            assert_eq!(resampled(&heard, from), heard);
        }
        assert!(resampled(&[], 0).is_empty());
    }

    #[test]
    fn a_voice_is_moved_as_a_whole_and_the_ends_of_the_axis_are_not() {
        for (high, formants) in [(4000.0, 3200.0), (8000.0, 4800.0)] {
            for factor in [0.5, 0.9, 1.0, 1.1, 2.0] {
                assert_eq!(moved(0.0, factor, high), 0.0);
                assert_eq!(moved(high, factor, high), high);
                let axis = (0..=1000).map(|i| high * f64::from(i) / 1000.0);
                for (below, frequency) in axis.clone().zip(axis.skip(1)) {
                    let there = moved(frequency, factor, high);
                    assert!(moved(below, factor, high) < there);
                    // The other way back is by the inverse of the factor.
                    assert!((moved(there, 1.0 / factor, high) - frequency).abs() < 1e-9 * high);
                    if frequency.max(there) <= formants {
                        assert!((there - factor * frequency).abs() < 1e-9 * high, "{factor} times {frequency}");
                    }
                }
            }
        }
    }

    /// Blocks of an energy and 30 bands.
    fn tract(factor: f64) -> VocalTract {
        let features = r#"{"kind": "log_mel", "rate": 8000, "filters": 30, "energy": true, "deltas": 1}"#;
        let features: FeaturesConfig = serde_json::from_str(features).expect("features");
        VocalTract::new(&features, factor).expect("bands")
    }

    #[test]
    fn each_band_is_read_at_so_many_times_its_frequency() {
        let width = (mel(4000.0) - mel(20.0)) / 31.0;
        let centre = |band: f64| hertz(mel(20.0) + width * (band + 1.0));
        for factor in [0.8, 1.0, 1.3] {
            // Where a band is read is what is read of these.
            let bands = |block: usize| (0..31).map(move |i| if i == 0 { 9.0 } else { (100 * block + i - 1) as f32 });
            let mut values: Vec<f32> = (0..4).flat_map(bands).collect();
            tract(factor).apply(&mut values, 31);
            for (block, values) in values.chunks_exact(31).enumerate() {
                assert_eq!(values[0], 9.0, "energy is no band");
                for (i, &value) in values[1..].iter().enumerate() {
                    let (place, own) = (f64::from(value) - 100.0 * block as f64, centre(i as f64));
                    let there = moved(own, factor, 4000.0).clamp(centre(0.0), centre(29.0));
                    assert!((centre(place) - there).abs() < 0.01, "{factor}: {own} Hz is read at {place}");
                }
            }
        }
        let mut constant = vec![0.3; 31];
        tract(1.17).apply(&mut constant, 31);
        assert_eq!(constant, [0.3; 31]);
    }

    #[test]
    fn only_bands_have_a_voice_to_be_moved() {
        for other in [r#"{"kind": "mfcc"}"#, r#"{"kind": "given", "width": 23}"#] {
            assert_eq!(VocalTract::new(&serde_json::from_str(other).expect("features"), 1.1), None);
        }
    }
}
