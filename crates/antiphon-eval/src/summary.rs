//! What the figures of several seeds say together.

use antiphon_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// From `low` to `high`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// Mean and spread of some figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many figures.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their sample standard deviation, `sqrt(Σ (x - mean)² / (count - 1))`; none for a single figure.
    pub deviation: Option<f64>,
    /// The smallest.
    pub smallest: f64,
    /// The largest.
    pub largest: f64,
}

impl Summary {
    /// Summarises `figures`, in their order.
    ///
    /// # Errors
    /// If there are none.
    pub fn of(figures: &[f64]) -> Result<Self> {
        if figures.is_empty() {
            return Err(Error::new("there are no figures to summarise; give at least one"));
        }
        let count = figures.len();
        let mean = figures.iter().sum::<f64>() / count as f64;
        let squares: f64 = figures.iter().map(|x| (x - mean).powi(2)).sum();
        Ok(Self {
            count,
            mean,
            deviation: (count > 1).then(|| (squares / (count - 1) as f64).sqrt()),
            smallest: figures.iter().copied().fold(f64::INFINITY, f64::min),
            largest: figures.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }

    /// Student's confidence interval of the mean, `mean ± t · deviation / sqrt(count)`; none for a single figure.
    ///
    /// It holds if the figures are independent and normally distributed.
    ///
    /// # Errors
    /// If `confidence` (0.95, say) is not between 0 and 1.
    pub fn interval(&self, confidence: f64) -> Result<Option<Interval>> {
        check_confidence(confidence)?;
        Ok(self.deviation.map(|deviation| {
            let half = student_t(confidence, self.count - 1) * deviation / (self.count as f64).sqrt();
            Interval { low: self.mean - half, high: self.mean + half }
        }))
    }
}

pub(crate) fn check_confidence(confidence: f64) -> Result<()> {
    if confidence > 0.0 && confidence < 1.0 {
        return Ok(());
    }
    Err(Error::new(format!("a confidence must lie between 0 and 1 (0.95, say), got {confidence}")))
}

/// The `t` that a Student variable with `freedom` degrees of freedom stays below in size with probability `confidence`.
fn student_t(confidence: f64, freedom: usize) -> f64 {
    // With t = sqrt(ν) tan θ, halve the angle's range until it is as narrow as its numbers are.
    let (mut low, mut high) = (0.0, std::f64::consts::FRAC_PI_2);
    for _ in 0..64 {
        let middle = f64::midpoint(low, high);
        if within(middle, freedom) < confidence {
            low = middle;
        } else {
            high = middle;
        }
    }
    (freedom as f64).sqrt() * low.tan()
}

/// The probability that a Student variable lies within `±sqrt(ν) tan θ`: the finite series of Abramowitz and Stegun,
/// *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4.
fn within(angle: f64, freedom: usize) -> f64 {
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    // Odd: cos θ + 2/3 cos³ θ + (2·4)/(3·5) cos⁵ θ + …
    // Even: 1 + 1/2 cos² θ + (1·3)/(2·4) cos⁴ θ + …
    // Both up to cos^(ν-2).
    let mut term = if odd { cosine } else { 1.0 };
    let mut series = 0.0;
    let mut power = usize::from(odd);
    while power + 2 <= freedom && term > f64::EPSILON * series * 1e-3 {
        series += term;
        power += 2;
        term *= cosine * cosine * (power - 1) as f64 / power as f64;
    }
    if odd { (angle + sine * series) / std::f64::consts::FRAC_PI_2 } else { sine * series }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // Two-sided quantiles as printed in tables of the distribution.
        for (freedom, confidence, expected) in [
            (1, 0.95, 12.706_205),
            (2, 0.95, 4.302_653),
            (3, 0.95, 3.182_446),
            (4, 0.95, 2.776_445),
            (9, 0.95, 2.262_157),
            (9, 0.99, 3.249_836),
            (10, 0.90, 1.812_461),
            (29, 0.95, 2.045_230),
            (1000, 0.95, 1.962_339),
        ] {
            let t = student_t(confidence, freedom);
            assert!((t - expected).abs() < 1e-6, "{freedom} {confidence}: {t}");
        }
    }

    #[test]
    fn quantiles_agree_with_closed_forms() {
        for confidence in [0.01, 0.3, 0.5, 0.9, 0.95, 0.99, 0.9999] {
            let one = (std::f64::consts::FRAC_PI_2 * confidence).tan();
            assert!((student_t(confidence, 1) / one - 1.0).abs() < 1e-9);
            let two = confidence * (2.0 / (1.0 - confidence * confidence)).sqrt();
            assert!((student_t(confidence, 2) / two - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn a_summary_by_hand() {
        let summary = Summary::of(&[20.0, 22.0, 27.0]).unwrap();
        assert_eq!((summary.count, summary.mean, summary.smallest, summary.largest), (3, 23.0, 20.0, 27.0));
        assert!((summary.deviation.unwrap() - 13.0_f64.sqrt()).abs() < 1e-12);
        let interval = summary.interval(0.95).unwrap().unwrap();
        let half = 4.302_652_729_9 * (13.0_f64 / 3.0).sqrt();
        assert!((interval.low - (23.0 - half)).abs() < 1e-8 && (interval.high - (23.0 + half)).abs() < 1e-8);
    }

    #[test]
    fn one_figure_has_no_spread_and_none_no_summary() {
        let summary = Summary::of(&[5.0]).unwrap();
        assert_eq!((summary.deviation, summary.interval(0.95).unwrap()), (None, None));
        assert!(Summary::of(&[]).is_err());
        for confidence in [0.0, 1.0, 95.0, f64::NAN] {
            assert!(summary.interval(confidence).unwrap_err().to_string().contains("between 0 and 1"));
        }
    }
}
