//! How long a target may become, and how its length enters its score.
//!
//! Lengths are counted in target tokens, the end symbol included.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest target allowed: `min(limit, ceil(ratio · S) + extra)` tokens for a source of `S` steps, end symbols
/// included in both; of several sources `S` is that of all together. Where there is no source, `limit` alone holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MaxLength {
    /// Target tokens allowed for each step of the source.
    #[schemars(range(min = 0.0))]
    pub ratio: f64,
    /// Target tokens allowed on top.
    pub extra: u32,
    /// Target tokens allowed in any case.
    #[schemars(range(min = 1))]
    pub limit: u32,
}

impl Default for MaxLength {
    fn default() -> Self {
        Self { ratio: 1.5, extra: 50, limit: 500 }
    }
}

impl MaxLength {
    /// The most tokens, at least 1, that the target of a source of `source` steps may have; `None`: no source.
    pub fn tokens(&self, source: Option<usize>) -> usize {
        let limit = self.limit as usize;
        let relative = |steps: usize| ((self.ratio * steps as f64).ceil() as usize).saturating_add(self.extra as usize);
        source.map_or(limit, |steps| relative(steps).min(limit)).max(1)
    }
}

/// How a hypothesis' length enters its score. Log-probabilities only fall with length, so that without a penalty
/// short targets win.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LengthPenalty {
    /// `log p`: the most probable target wins.
    None(NoPenalty),
    /// `log p / |Y|`: the mean over the tokens.
    Average(AverageLength),
    /// `log p / ((5 + |Y|) / 6)^alpha`: between the two.
    Gnmt(GnmtPenalty),
}

/// No length penalty.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoPenalty {}

/// The mean log-probability of a token.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AverageLength {}

/// The length penalty of Wu et al. 2016 (equation 14), without its coverage term.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GnmtPenalty {
    /// Its strength: 0 is no penalty, 1 nearly the average.
    #[schemars(range(min = 0.0))]
    pub alpha: f64,
}

impl Default for GnmtPenalty {
    fn default() -> Self {
        Self { alpha: 0.6 }
    }
}

impl Default for LengthPenalty {
    fn default() -> Self {
        Self::Average(AverageLength {})
    }
}

impl LengthPenalty {
    /// The score of a hypothesis of `length` tokens (0 counts as 1).
    pub fn score(&self, log_prob: f64, length: usize) -> f64 {
        let length = length.max(1) as f64;
        match self {
            Self::None(_) => log_prob,
            Self::Average(_) => log_prob / length,
            Self::Gnmt(GnmtPenalty { alpha }) => log_prob / ((5.0 + length) / 6.0).powf(*alpha),
        }
    }

    /// The best score that an open hypothesis can still reach if it ends with at most `longest` tokens.
    ///
    /// Proof that it cannot do better: what it will end with is `p' <= log_prob <= 0`, since every further token adds
    /// a logarithm of at most 0. All three divisors are positive and do not fall with the length, so that
    /// `p' / d(length) <= log_prob / d(length) <= log_prob / d(longest)`.
    pub fn best_attainable(&self, log_prob: f64, longest: usize) -> f64 {
        self.score(log_prob, longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_target_follows_the_source_up_to_the_limit() {
        let check = |ratio, extra, limit, source, expected| {
            assert_eq!(
                MaxLength { ratio, extra, limit }.tokens(source),
                expected,
                "{ratio} {extra} {limit} {source:?}"
            );
        };
        check(1.5, 50, 500, Some(7), 61);
        check(1.5, 50, 40, Some(7), 40);
        check(0.1, 0, 500, Some(10), 1);
        check(2.0, 3, 500, None, 500);
        check(0.0, 0, 500, Some(9), 1);
        check(f64::MAX, u32::MAX, 8, Some(2), 8);
        check(f64::NAN, 2, 8, Some(2), 2);
    }

    #[test]
    fn scores_by_hand() {
        let gnmt = |alpha| LengthPenalty::Gnmt(GnmtPenalty { alpha });
        let check = |penalty: LengthPenalty, log_prob: f64, length, expected: f64| {
            let score = penalty.score(log_prob, length);
            assert!((score - expected).abs() < 1e-12, "{penalty:?}: {score} for {expected}");
        };
        check(LengthPenalty::None(NoPenalty {}), -6.0, 3, -6.0);
        check(LengthPenalty::Average(AverageLength {}), -6.0, 3, -2.0);
        check(LengthPenalty::Average(AverageLength {}), -6.0, 0, -6.0);
        check(gnmt(0.0), -6.0, 7, -6.0);
        check(gnmt(1.0), -6.0, 7, -3.0); // (5 + 7) / 6 = 2
        check(gnmt(0.5), -6.0, 19, -3.0); // (5 + 19) / 6 = 4, whose root is 2
    }

    #[test]
    fn no_continuation_beats_what_was_called_attainable() {
        let kinds = [
            LengthPenalty::None(NoPenalty {}),
            LengthPenalty::Average(AverageLength {}),
            LengthPenalty::Gnmt(GnmtPenalty { alpha: 0.6 }),
            LengthPenalty::Gnmt(GnmtPenalty { alpha: 2.5 }),
        ];
        for penalty in kinds {
            for log_prob in [0.0, -0.01, -3.0, -250.0] {
                for (length, longest) in (1..40).flat_map(|l| (l..40).map(move |m| (l, m))) {
                    for fall in [0.0, 1e-9, 0.5] {
                        assert!(
                            penalty.score(log_prob - fall, length) <= penalty.best_attainable(log_prob, longest),
                            "{penalty:?} {log_prob} {length} {longest}"
                        );
                    }
                }
            }
        }
    }
}
