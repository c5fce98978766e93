//! Counting validations without improvement.

use serde::{Deserialize, Serialize};

/// The best value so far, and for how many validations nothing better has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patience {
    /// The value to beat; absent before the first.
    pub reference: Option<f64>,
    /// Validations in a row that did not beat it.
    pub waited: u64,
}

impl Patience {
    /// Takes a validation's value into account; whether it beats the reference by more than `min_delta`. A value that is
    /// not finite never does.
    pub fn observe(&mut self, value: f64, min_delta: f64, lower_is_better: bool) -> bool {
        let gain = |reference: f64| if lower_is_better { reference - value } else { value - reference };
        let better = value.is_finite() && self.reference.is_none_or(|reference| gain(reference) > min_delta);
        if better {
            *self = Self { reference: Some(value), waited: 0 };
        } else {
            self.waited += 1;
        }
        better
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gain_above_the_threshold_ends_the_wait() {
        let mut patience = Patience::default();
        let waits = [5.0, 4.95, f64::NAN, 4.8, 4.8].map(|value| {
            patience.observe(value, 0.1, true);
            patience.waited
        });
        assert_eq!((waits, patience.reference), ([0, 1, 2, 0, 1], Some(4.8)));

        let mut higher = Patience::default();
        assert_eq!([1.0, 2.0, 1.5].map(|value| higher.observe(value, 0.0, false)), [true, true, false]);
        assert!(!Patience::default().observe(f64::INFINITY, 0.0, false));
    }
}
