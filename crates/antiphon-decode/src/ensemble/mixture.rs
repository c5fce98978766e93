//! How the probabilities of several models become one.

use antiphon_core::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How models are combined, token by token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combination {
    /// The weighted mean of their probabilities: `p = Σ wᵢ pᵢ`. What one model is sure of remains possible.
    #[default]
    Linear,
    /// The weighted geometric mean, made a distribution again: `p ∝ Π pᵢ^wᵢ`. What one model excludes is out.
    LogLinear,
}

/// A combination with the weights of its models.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    combination: Combination,
    /// They sum to 1.
    weights: Vec<f64>,
}

impl Mixture {
    /// Models with these weights, of which only the proportions count.
    ///
    /// # Errors
    /// If there is none, or one is not a number above 0, or is none beside the others.
    pub fn new(combination: Combination, weights: &[f64]) -> Result<Self> {
        let sum: f64 = weights.iter().sum();
        if weights.is_empty() {
            return Err(Error::new("an ensemble needs at least one model"));
        }
        let counts = |weight: f64| weight > 0.0 && weight.is_finite() && sum.is_finite();
        if let Some(odd) = weights.iter().find(|&&weight| !counts(weight)) {
            return Err(Error::new(format!(
                "a model's weight must be a number above 0, not {odd}; leave the model out"
            )));
        }
        let shares: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        if let Some(lost) = shares.iter().position(|&share| share == 0.0) {
            let weight = weights[lost];
            return Err(Error::new(format!("a weight of {weight} is nothing beside the others; leave the model out")));
        }
        Ok(Self { combination, weights: shares })
    }

    /// How they are combined.
    pub fn combination(&self) -> Combination {
        self.combination
    }

    /// The weights, whose sum is 1.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Whether a token's probability follows from what the models say of this token alone.
    pub(super) fn is_token_by_token(&self) -> bool {
        match self.combination {
            Combination::Linear => true,
            Combination::LogLinear => false,
        }
    }

    /// What models' log-probabilities of one token become; of a log-linear combination, but for its normaliser. It does not fall
    /// where one of them rises.
    pub(super) fn of_token(&self, log_probs: impl Iterator<Item = f32> + Clone) -> f64 {
        let log_probs = log_probs.map(f64::from);
        let weighted = self.weights.iter().zip(log_probs.clone());
        match self.combination {
            // Below the largest, so that nothing is too small; equals stay what they are.
            Combination::Linear => match log_probs.fold(f64::NEG_INFINITY, f64::max) {
                f64::NEG_INFINITY => weighted.map(|(_, log_prob)| log_prob).sum(),
                top => top + weighted.map(|(weight, log_prob)| weight * (log_prob - top).exp()).sum::<f64>().ln(),
            },
            Combination::LogLinear => weighted.map(|(weight, log_prob)| weight * log_prob).sum(),
        }
    }

    /// The log-probabilities of all tokens, `[rows, V]`, from those of each model.
    ///
    /// # Panics
    /// If there are not as many models as weights, or their shapes differ.
    pub fn of_rows(&self, models: &[&[f32]], vocabulary: usize) -> Vec<f32> {
        let size = models[0].len();
        assert!(models.len() == self.weights.len() && models.iter().all(|one| one.len() == size), "one shape a model");
        let mut combined = vec![0.0; size];
        combined.par_chunks_exact_mut(vocabulary).enumerate().for_each(|(row, combined)| {
            let from = row * vocabulary;
            let all = (from..from + vocabulary).map(|at| self.of_token(models.iter().map(|log_probs| log_probs[at])));
            let log_z = if self.is_token_by_token() { 0.0 } else { log_partition(all.clone()) };
            combined.iter_mut().zip(all).for_each(|(combined, value)| *combined = log_probability(value - log_z));
        });
        combined
    }
}

/// As a model says it: what rounding added to 0 is taken off.
pub(super) fn log_probability(value: f64) -> f32 {
    if value > 0.0 { 0.0 } else { value as f32 }
}

/// The logarithm of what values sum up to; 0 where nothing is possible, which it remains.
fn log_partition(values: impl Iterator<Item = f64> + Clone) -> f64 {
    match values.clone().fold(f64::NEG_INFINITY, f64::max) {
        f64::NEG_INFINITY => values.sum::<f64>().max(0.0),
        top => top + values.map(|value| (value - top).exp()).sum::<f64>().ln(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_arithmetic_or_geometric() {
        let ln = |row: [f32; 2]| row.map(f32::ln);
        let (a, b) = (ln([0.5, 0.5]), ln([0.9, 0.1]));
        let of = |combination, weights: &[f64]| {
            let combined = Mixture::new(combination, weights).unwrap().of_rows(&[&a, &b], 2);
            combined.into_iter().map(f32::exp).collect::<Vec<_>>()
        };
        let close = |got: Vec<f32>, expected: [f32; 2]| {
            assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-6), "{got:?}");
        };
        close(of(Combination::Linear, &[1.0, 1.0]), [0.7, 0.3]);
        close(of(Combination::Linear, &[3.0, 1.0]), [0.6, 0.4]);
        // √0.45 : √0.05 = 3 : 1.
        close(of(Combination::LogLinear, &[2.0, 2.0]), [0.75, 0.25]);
    }

    #[test]
    fn what_is_impossible_to_all_or_to_one() {
        let (a, b) = ([0.0, f32::NEG_INFINITY], [0.5_f32.ln(); 2]);
        let of = |combination| Mixture::new(combination, &[1.0, 1.0]).unwrap().of_rows(&[&a, &b], 2);
        assert_eq!(of(Combination::LogLinear), [0.0, f32::NEG_INFINITY]);
        assert!((of(Combination::Linear)[1].exp() - 0.25).abs() < 1e-6);
        let mixture = Mixture::new(Combination::Linear, &[1.0, 1.0]).unwrap();
        assert_eq!(mixture.of_token([f32::NEG_INFINITY; 2].into_iter()), f64::NEG_INFINITY);
        let (a, b) = ([0.0, f32::NEG_INFINITY], [f32::NEG_INFINITY, 0.0]);
        let none = Mixture::new(Combination::LogLinear, &[1.0, 1.0]).unwrap().of_rows(&[&a, &b], 2);
        assert_eq!(none, [f32::NEG_INFINITY; 2]);
        // However small, and where there is no number it is seen.
        assert_eq!(mixture.of_token([-1e4_f32; 2].into_iter()), -1e4);
        assert!(mixture.of_token([-1.0, f32::NAN].into_iter()).is_nan());
    }

    #[test]
    fn weights_that_mean_nothing_are_refused() {
        let vanishing = [1e-200, 1e200];
        for weights in
            [&[][..], &[1.0, 0.0], &[1.0, -1.0], &[f64::NAN], &[1.0, f64::INFINITY], &[f64::MAX, f64::MAX], &vanishing]
        {
            assert!(Mixture::new(Combination::Linear, weights).is_err(), "{weights:?}");
        }
        // What a mixture takes, its shares are too: of such an ensemble is made.
        for weights in [&[1e-150, 1e150][..], &[f64::MIN_POSITIVE, 1e-300], &[3.0, 1e-9, 1e9]] {
            let mixture = Mixture::new(Combination::Linear, weights).unwrap();
            assert!(Mixture::new(Combination::Linear, mixture.weights()).is_ok(), "{weights:?}");
        }
    }
}
