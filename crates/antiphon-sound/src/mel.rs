//! Bands that are equally wide on the mel scale.

use std::fmt;

/// The least power whose logarithm is taken: Kaldi's.
const FLOOR: f64 = f32::EPSILON as f64;

/// `1127 ln(1 + f / 700)`: the mel scale as HTK and Kaldi have it. `frequency` is in Hz.
pub(crate) fn mel(frequency: f64) -> f64 {
    1127.0 * (frequency / 700.0).ln_1p()
}

/// The inverse of [`mel`].
pub(crate) fn hertz(mel: f64) -> f64 {
    700.0 * (mel / 1127.0).exp_m1()
}

/// Triangles over the bins of a power spectrum, as Kaldi's `MelBanks`: each rises from the centre of the one before to its own
/// centre and falls to the centre of the one behind, linearly in mel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filterbank {
    filters: Vec<Filter>,
}

/// A triangle over its support.
#[derive(Debug, Clone, PartialEq)]
struct Filter {
    /// The first bin with a weight above 0.
    first: usize,
    weights: Vec<f64>,
}

/// A filter that has no bin in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TooNarrow {
    /// Which, counted from 1.
    number: usize,
    filters: usize,
    /// Its ends, in Hz.
    ends: (f64, f64),
    transform: usize,
    /// Between bins, in Hz.
    spacing: f64,
    /// So many filters all have one, and so do fewer.
    most: usize,
}

impl fmt::Display for TooNarrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, filters, ends: (low, high), transform, spacing, most } = self;
        write!(
            f,
            "filter {number} of {filters}, from {low:.1} to {high:.1} Hz, is empty: the {transform} points of the spectrum lie \
             {spacing:.1} Hz apart; set it to {most} or less, or make `window` longer"
        )
    }
}

impl Filterbank {
    /// `filters` triangles from `low` to `high` Hz over the first `transform / 2` bins of a spectrum of `transform` points.
    ///
    /// # Errors
    /// If one of them has no bin in it: it would be the same number in every frame.
    pub(crate) fn new(filters: usize, low: f64, high: f64, rate: u32, transform: usize) -> Result<Self, TooNarrow> {
        match Self::triangles(filters, low, high, rate, transform) {
            Ok(filters) => Ok(Self { filters }),
            Err(empty) => {
                let fits = |filters: &usize| Self::triangles(*filters, low, high, rate, transform).is_ok();
                let most = (1..filters).take_while(fits).last().unwrap_or(0);
                let width = (mel(high) - mel(low)) / (filters + 1) as f64;
                let end = |steps: usize| hertz(mel(low) + width * steps as f64);
                let ends = (end(empty), end(empty + 2));
                let spacing = f64::from(rate) / transform as f64;
                Err(TooNarrow { number: empty + 1, filters, ends, transform, spacing, most })
            }
        }
    }

    /// The triangles, or the index of the first that is empty.
    fn triangles(filters: usize, low: f64, high: f64, rate: u32, transform: usize) -> Result<Vec<Filter>, usize> {
        let spacing = f64::from(rate) / transform as f64;
        let bins: Vec<f64> = (0..transform / 2).map(|bin| mel(spacing * bin as f64)).collect();
        let width = (mel(high) - mel(low)) / (filters + 1) as f64;
        let triangle = |index: usize| {
            let left = mel(low) + width * index as f64;
            let (centre, right) = (left + width, left + 2.0 * width);
            let weight = |&at: &f64| ((at - left) / (centre - left)).min((right - at) / (right - centre));
            let first = bins.partition_point(|&at| at <= left);
            let weights: Vec<f64> = bins[first..].iter().map(weight).take_while(|&weight| weight > 0.0).collect();
            if weights.is_empty() { Err(index) } else { Ok(Filter { first, weights }) }
        };
        (0..filters).map(triangle).collect()
    }

    /// The logarithm of the power in each band, which counts as [`FLOOR`] at least. `power` has a number for each bin.
    pub(crate) fn log_energies(&self, power: &[f64], out: &mut [f64]) {
        for (filter, out) in self.filters.iter().zip(out) {
            let power = &power[filter.first..][..filter.weights.len()];
            let energy: f64 = power.iter().zip(&filter.weights).map(|(power, weight)| power * weight).sum();
            // What is no number stays none.
            *out = if energy <= FLOOR { FLOOR } else { energy }.ln();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_has_its_inverse() {
        for frequency in [0.0, 20.0, 700.0, 8000.0] {
            assert!((hertz(mel(frequency)) - frequency).abs() < 1e-9);
        }
        // Where Kaldi's comments put it.
        assert!((mel(1000.0) - 1000.0).abs() < 0.1);
    }

    /// Between two centres the two triangles there sum to 1, so that no power is lost or counted twice.
    #[test]
    fn neighbours_share_each_bin_between_their_centres() {
        let (filters, rate, transform) = (40, 16_000, 512);
        let bank = Filterbank::new(filters, 20.0, 8000.0, rate, transform).unwrap();
        let mut sums = vec![0.0; transform / 2];
        for filter in &bank.filters {
            filter.weights.iter().enumerate().for_each(|(i, weight)| sums[filter.first + i] += weight);
        }
        let width = (mel(8000.0) - mel(20.0)) / (filters + 1) as f64;
        let inner = mel(20.0) + width..=mel(8000.0) - width;
        let spacing = f64::from(rate) / transform as f64;
        let is_inner = |bin: &usize| inner.contains(&mel(spacing * *bin as f64));
        let inside: Vec<usize> = (0..sums.len()).filter(is_inner).collect();
        assert!(inside.len() > 200);
        assert!(inside.iter().all(|&bin| (sums[bin] - 1.0).abs() < 1e-12), "{sums:?}");
    }

    #[test]
    fn what_is_said_to_fit_fits_and_one_more_does_not() {
        for (rate, transform) in [(8000, 256), (16_000, 256), (16_000, 512), (4000, 128)] {
            let new = |filters| Filterbank::new(filters, 20.0, f64::from(rate) / 2.0, rate, transform);
            let most = new(transform).unwrap_err().most;
            assert!(most > 20);
            assert_eq!(new(most).unwrap().filters.len(), most);
            let error = new(most + 1).unwrap_err();
            assert_eq!(error.most, most, "{error}");
            assert!(error.to_string().contains(&format!("set it to {most} or less")), "{error}");
        }
    }
}
