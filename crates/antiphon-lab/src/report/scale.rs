//! From values to places in a drawing, and the round numbers at which an axis is marked.

/// A linear map from values to places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Maps `low` to `from` and `high` to `to`. A range without width gets some.
    pub(super) fn new((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        let (low, high) = if high - low > f64::EPSILON * high.abs().max(low.abs()) {
            (low, high)
        } else {
            let around = low.abs() * 0.1;
            if low == 0.0 { (0.0, 1.0) } else { (low - around, low + around) }
        };
        Self { low, high, from, to }
    }

    /// Where a value stands.
    pub(super) fn at(&self, value: f64) -> f64 {
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Round values within the range, at most `most`, with what is written beside them.
    pub(super) fn ticks(&self, most: usize) -> Vec<(f64, String)> {
        let step = round_step((self.high - self.low) / most.saturating_sub(1).max(1) as f64);
        let (first, last) = ((self.low / step - 1e-9).ceil() as i64, (self.high / step + 1e-9).floor() as i64);
        (first..=last).map(|i| i as f64 * step).map(|value| (value, label(value, step))).collect()
    }
}

/// The smallest of 1, 2, 5, 10 times a power of ten that is not below `rough`.
fn round_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    let times = [1.0, 2.0, 5.0].into_iter().find(|times| times * power >= rough * (1.0 - 1e-9)).unwrap_or(10.0);
    times * power
}

/// A multiple of `step`, with as many digits as the step needs.
fn label(value: f64, step: f64) -> String {
    let largest = value.abs().max(step);
    let (value, step, suffix) = match largest {
        _ if largest >= 1e6 => (value / 1e6, step / 1e6, "M"),
        _ if largest >= 1e4 => (value / 1e3, step / 1e3, "k"),
        _ => (value, step, ""),
    };
    let decimals = (-step.log10() - 1e-9).ceil().max(0.0) as usize;
    match decimals {
        _ if value == 0.0 => "0".into(),
        0..=4 => format!("{value:.decimals$}{suffix}"),
        _ => format!("{:.0}e-{decimals}", value * 10_f64.powi(decimals as i32)),
    }
}

/// A value for people: four digits that count, no more.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return value.to_string();
    }
    match size {
        0.0 => "0".into(),
        _ if size < 1e-4 => format!("{value:.2e}"),
        _ if size < 1.0 => format!("{value:.4}"),
        _ => format!("{value:.*}", (3.0 - size.log10().floor()).max(0.0) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        Scale::new((low, high), (0.0, 1.0)).ticks(6).into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn axes_are_marked_at_round_numbers() {
        assert_eq!(labels(0.0, 100.0), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(0.21, 0.39), ["0.25", "0.30", "0.35"]);
        assert_eq!(labels(0.0, 12_960.0), ["0", "5000", "10k"]);
        assert_eq!(labels(0.0, 3e-5), ["0", "1e-5", "2e-5", "3e-5"]);
        assert_eq!(labels(1e-5, 3e-5), ["10e-6", "15e-6", "20e-6", "25e-6", "30e-6"]);
        assert_eq!(labels(-1.0, 1.0), ["-1.0", "-0.5", "0", "0.5", "1.0"]);
    }

    #[test]
    fn a_single_value_stands_in_the_middle() {
        for value in [7.0, -3.0, 1e-9, 1e12] {
            let scale = Scale::new((value, value), (0.0, 10.0));
            assert!((scale.at(value) - 5.0).abs() < 1e-3, "{value}");
            assert!(!scale.ticks(6).is_empty());
        }
    }

    #[test]
    fn values_are_short() {
        let written = [0.0, 3.2e-6, 0.12345, 1.23456, 22.8838, 1234.56, 5_544_235.0, f64::NAN].map(short);
        assert_eq!(written, ["0", "3.20e-6", "0.1235", "1.235", "22.88", "1235", "5544235", "NaN"]);
    }
}
