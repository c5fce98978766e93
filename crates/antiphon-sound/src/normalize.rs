//! Means and variances of columns, of one recording or of many.

use antiphon_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::config::Normalization;

/// A column whose numbers differ by less than this, beside their size, is a constant: dividing by so little would make noise of
/// rounding.
const CONSTANT: f64 = 1e-6;

/// Mean and variance of each column over all frames that were [added](Self::add): of a recording, or of a corpus.
///
/// Sums over parts are merged as Chan, Golub and LeVeque (1983) do, so that the variance of many recordings is as exact as that of one.
/// The last bits depend on the order of the parts: add recordings in that of their corpus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    frames: u64,
    /// Of each column.
    mean: Vec<f64>,
    /// The sum of the squared distances from the mean, of each column.
    squares: Vec<f64>,
}

impl Statistics {
    /// Those of no frame of `width` numbers.
    pub fn new(width: usize) -> Self {
        Self { frames: 0, mean: vec![0.0; width], squares: vec![0.0; width] }
    }

    /// How many frames were added.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The mean of each column; 0 of no frame.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The variance of each column, divided by the number of frames; 0 of none.
    pub fn variance(&self) -> Vec<f64> {
        let frames = self.frames.max(1) as f64;
        self.squares.iter().map(|squares| squares / frames).collect()
    }

    /// Takes in the frames of a recording, row after row.
    ///
    /// # Panics
    /// If they end within a frame.
    pub fn add<T: Copy + Into<f64>>(&mut self, frames: &[T]) {
        let width = self.mean.len();
        assert!(frames.len().is_multiple_of(width), "frames of {width} numbers");
        let count = frames.len() / width;
        if count == 0 {
            return;
        }
        let (before, here) = (self.frames as f64, count as f64);
        self.frames += count as u64;
        for column in 0..width {
            let values = || frames[column..].iter().step_by(width).map(|&value| value.into());
            let mean = values().sum::<f64>() / here;
            let squares: f64 = values().map(|value: f64| (value - mean).powi(2)).sum();
            let distance = mean - self.mean[column];
            self.squares[column] += squares + distance * distance * before * here / (before + here);
            self.mean[column] += distance * here / (before + here);
        }
    }

    /// Makes the mean of each column 0, and, if that is asked for, its variance 1, in frames like those that were added. A constant
    /// column only loses its mean.
    ///
    /// # Errors
    /// If these are statistics of frames of another width, or of none.
    pub fn apply(&self, how: Normalization, frames: &mut [f32]) -> Result<()> {
        self.apply_to(how, frames, |value| value as f32)
    }

    fn apply_to<T: Copy + Into<f64>>(
        &self,
        how: Normalization,
        frames: &mut [T],
        round: impl Fn(f64) -> T,
    ) -> Result<()> {
        let width = self.mean.len();
        if !frames.len().is_multiple_of(width) {
            let message =
                format!("{} numbers are no frames of {width}; take statistics of the same features", frames.len());
            return Err(Error::new(message));
        }
        if self.frames == 0 && !frames.is_empty() {
            return Err(Error::new("there are statistics of no frame; take those of at least one recording"));
        }
        let (mean, scale): (Vec<f64>, Vec<f64>) = match how {
            Normalization::None => return Ok(()),
            Normalization::Mean => (self.mean.clone(), vec![1.0; width]),
            Normalization::MeanAndVariance => {
                let scale = |(variance, mean): (f64, &f64)| {
                    let deviation = variance.sqrt();
                    if deviation > CONSTANT * mean.abs().max(1.0) { 1.0 / deviation } else { 1.0 }
                };
                (self.mean.clone(), self.variance().into_iter().zip(&self.mean).map(scale).collect())
            }
        };
        for frame in frames.chunks_exact_mut(width) {
            for ((value, mean), scale) in frame.iter_mut().zip(&mean).zip(&scale) {
                *value = round(((*value).into() - mean) * scale);
            }
        }
        Ok(())
    }
}

/// Makes the columns of one recording alike to those of others, in place.
pub(crate) fn normalize(how: Normalization, frames: &mut [f64], width: usize) {
    if how == Normalization::None || frames.is_empty() {
        return;
    }
    let mut statistics = Statistics::new(width);
    statistics.add(frames);
    statistics.apply_to(how, frames, |value| value).expect("statistics of these very frames");
}

#[cfg(test)]
mod tests {
    use antiphon_core::random::Key;

    use super::*;

    /// Columns of different size, one of them a constant.
    fn frames(count: usize) -> Vec<f64> {
        let key = Key::from_seed(3);
        let frame = |t: usize| {
            let draw = |column: u64| key.normal(3 * t as u64 + column);
            [15.0 + 4.0 * draw(0), -1e-3 + 1e-4 * draw(1), 1e4 + 0.5 * draw(2), 7.0]
        };
        (0..count).flat_map(frame).collect()
    }

    #[test]
    fn means_become_0_and_variances_1() {
        for how in [Normalization::Mean, Normalization::MeanAndVariance] {
            let mut values = frames(200);
            normalize(how, &mut values, 4);
            let mut after = Statistics::new(4);
            after.add(&values);
            assert!(after.mean().iter().all(|mean| mean.abs() < 1e-9), "{after:?}");
            let variance = after.variance();
            if how == Normalization::MeanAndVariance {
                assert!(variance[..3].iter().all(|variance| (variance - 1.0).abs() < 1e-9), "{variance:?}");
            } else {
                assert!((variance[0] / 16.0 - 1.0).abs() < 0.3, "{variance:?}");
            }
            assert_eq!(variance[3], 0.0);
            assert!(values.chunks(4).all(|frame| frame[3] == 0.0));
        }
        let mut values = frames(9);
        normalize(Normalization::None, &mut values, 4);
        assert_eq!(values, frames(9));
    }

    #[test]
    fn parts_have_the_statistics_of_the_whole() {
        let values = frames(300);
        let (mut whole, mut parts) = (Statistics::new(4), Statistics::new(4));
        whole.add(&values);
        for range in [0..1, 1..1, 1..100, 100..102, 102..300] {
            parts.add(&values[4 * range.start..4 * range.end]);
        }
        assert_eq!(parts.frames(), 300);
        for (part, whole) in parts.mean().iter().zip(whole.mean()) {
            assert!((part - whole).abs() <= 1e-12 * whole.abs());
        }
        for (part, whole) in parts.variance().iter().zip(whole.variance()) {
            assert!((part - whole).abs() <= 1e-9 * whole);
        }
        let text = serde_json::to_string(&parts).unwrap();
        assert_eq!(serde_json::from_str::<Statistics>(&text).unwrap(), parts);
    }

    #[test]
    fn statistics_of_other_features_or_of_nothing_are_refused() {
        let error = |statistics: Statistics, values: &mut [f32]| {
            statistics.apply(Normalization::Mean, values).unwrap_err().to_string()
        };
        assert!(error(Statistics::new(4), &mut [1.0; 6]).contains("6 numbers are no frames of 4"));
        assert!(error(Statistics::new(4), &mut [1.0; 8]).contains("of no frame"));
    }
}
