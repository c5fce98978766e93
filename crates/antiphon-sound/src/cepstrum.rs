//! Cepstra of log-mel energies.

use std::f64::consts::PI;

/// The first rows of the orthonormal cosine transform of the second kind, each with its weight ("lifter"): Kaldi's
/// `ComputeDctMatrix` and `ComputeLifterCoeffs`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cepstrum {
    /// `[coefficients, filters]`.
    rows: Vec<f64>,
    filters: usize,
}

impl Cepstrum {
    pub(crate) fn new(coefficients: usize, filters: usize, lifter: f64) -> Self {
        let width = filters as f64;
        let row = |k: usize| {
            let norm = if k == 0 { (1.0 / width).sqrt() } else { (2.0 / width).sqrt() };
            let lift = if lifter == 0.0 { 1.0 } else { 1.0 + lifter / 2.0 * (PI * k as f64 / lifter).sin() };
            (0..filters).map(move |i| lift * norm * (PI / width * (i as f64 + 0.5) * k as f64).cos())
        };
        Self { rows: (0..coefficients).flat_map(row).collect(), filters }
    }

    /// How many coefficients there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() / self.filters
    }

    /// The coefficients of one frame.
    pub(crate) fn of(&self, log_energies: &[f64], out: &mut [f64]) {
        for (row, out) in self.rows.chunks_exact(self.filters).zip(out) {
            *out = row.iter().zip(log_energies).map(|(weight, energy)| weight * energy).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An orthonormal transform keeps the sum of squares, and that of a constant is its first coefficient alone.
    #[test]
    fn nothing_is_lost_without_a_lifter() {
        let cepstrum = Cepstrum::new(23, 23, 0.0);
        let mut out = [0.0; 23];
        let energies: Vec<f64> = (0..23).map(|i| (f64::from(i) * 1.7).sin() * 5.0).collect();
        cepstrum.of(&energies, &mut out);
        let squares = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
        assert!((squares(&out) - squares(&energies)).abs() < 1e-9);
        cepstrum.of(&[3.0; 23], &mut out);
        assert!((out[0] - 3.0 * 23_f64.sqrt()).abs() < 1e-12 && out[1..].iter().all(|c| c.abs() < 1e-12), "{out:?}");
    }

    #[test]
    fn the_lifter_is_kaldis() {
        let (mut plain, mut lifted) = ([0.0; 13], [0.0; 13]);
        let energies: Vec<f64> = (0..23).map(|i| f64::from(i * i % 7)).collect();
        Cepstrum::new(13, 23, 0.0).of(&energies, &mut plain);
        Cepstrum::new(13, 23, 22.0).of(&energies, &mut lifted);
        for (k, (plain, lifted)) in plain.into_iter().zip(lifted).enumerate() {
            assert!((lifted - plain * (1.0 + 11.0 * (PI * k as f64 / 22.0).sin())).abs() < 1e-9);
        }
    }
}
