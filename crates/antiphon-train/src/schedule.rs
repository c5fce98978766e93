//! `[train.schedule]`: the learning rate as a pure function of the step.
//!
//! With `t` the number of the step (from 1), `T` the run's steps and `w` the warm-up, during which the rate is
//! `learning_rate · t / w`:
//!
//! | kind | rate |
//! |---|---|
//! | constant | `learning_rate` |
//! | step | `learning_rate · factorᵏ`, `k` intervals after the first change |
//! | cosine | `floor + (learning_rate − floor) · (1 + cos πp) / 2`, `p = (t − 1 − w) / (T − w)` (Loshchilov and Hutter 2017) |
//! | linear | `learning_rate · (1 − p)` |
//! | noam | `learning_rate · width^−½ · min(t^−½, t · w^−3/2)` (Vaswani et al. 2017) |
//! | inverse_sqrt | `learning_rate · √(w / t)` |
//! | plateau | `learning_rate`, times `factor` whenever validation has not improved for `patience` times |

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Patience;
use crate::config::Demands;

/// How the learning rate changes over the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ScheduleConfig {
    /// The same rate throughout.
    Constant(ConstantConfig),
    /// The rate is multiplied by a factor at regular intervals.
    #[schemars(extend("examples" = [{"kind": "step", "every_epochs": 1}]))]
    Step(StepConfig),
    /// Warm-up, then half a cosine wave down to a floor at the end of the run.
    Cosine(CosineConfig),
    /// Warm-up, then a straight line down to zero at the end of the run.
    Linear(LinearConfig),
    /// The Transformer's schedule: warm-up, then the inverse square root of the step, scaled by the model's width.
    Noam(NoamConfig),
    /// Warm-up, then the inverse square root of the step.
    InverseSqrt(InverseSqrtConfig),
    /// The rate is lowered when validation no longer improves.
    Plateau(PlateauConfig),
}

/// A constant rate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConstantConfig {
    /// Steps during which the rate grows from 0.
    pub warmup: u64,
}

/// Exactly one of `every_epochs` and `every_steps` must be above 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StepConfig {
    /// The interval in epochs; 0 if it is counted in steps.
    #[schemars(example = 1)]
    pub every_epochs: u64,
    /// The interval in steps; 0 if it is counted in epochs.
    #[schemars(example = 1000)]
    pub every_steps: u64,
    /// The first epoch or step (counted from 0) with a lower rate; 0 for one interval.
    pub start: u64,
    /// What the rate is multiplied by.
    #[schemars(range(max = 1.0), extend("format" = "float", "exclusiveMinimum" = 0))]
    pub factor: f64,
}

impl Default for StepConfig {
    fn default() -> Self {
        Self { every_epochs: 0, every_steps: 0, start: 0, factor: 0.5 }
    }
}

/// Cosine annealing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CosineConfig {
    /// Steps during which the rate grows from 0.
    pub warmup: u64,
    /// The rate at the end of the run.
    #[schemars(range(min = 0.0), extend("format" = "float"))]
    pub floor: f64,
}

/// Linear decay to zero.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LinearConfig {
    /// Steps during which the rate grows from 0.
    pub warmup: u64,
}

/// The Transformer's schedule. `learning_rate` is its factor, so it is near 1 here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NoamConfig {
    /// Steps during which the rate grows.
    #[schemars(range(min = 1))]
    pub warmup: u64,
    /// The width of the model by which the rate is scaled.
    #[schemars(range(min = 1))]
    pub width: u64,
}

impl Default for NoamConfig {
    fn default() -> Self {
        Self { warmup: 4000, width: 512 }
    }
}

/// Inverse square root.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InverseSqrtConfig {
    /// Steps during which the rate grows from 0 to `learning_rate`.
    #[schemars(range(min = 1))]
    pub warmup: u64,
}

impl Default for InverseSqrtConfig {
    fn default() -> Self {
        Self { warmup: 4000 }
    }
}

/// Lowering on a plateau of `validate.metric`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PlateauConfig {
    /// Steps during which the rate grows from 0.
    pub warmup: u64,
    /// What the rate is multiplied by.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub factor: f64,
    /// Validations in a row without improvement that lower the rate.
    #[schemars(range(min = 1))]
    pub patience: u64,
    /// What counts as improvement: at least more than this, in the unit of `validate.metric`.
    #[schemars(range(min = 0.0))]
    pub min_delta: f64,
    /// The rate never falls below this.
    #[schemars(range(min = 0.0), extend("format" = "float"))]
    pub floor: f64,
}

impl Default for PlateauConfig {
    fn default() -> Self {
        Self { warmup: 0, factor: 0.5, patience: 2, min_delta: 0.0, floor: 0.0 }
    }
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self::Constant(ConstantConfig::default())
    }
}

/// What the plateau schedule remembers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlateauState {
    /// How long it has waited.
    pub patience: Patience,
    /// The product of all factors so far.
    pub scale: f64,
}

impl Default for PlateauState {
    fn default() -> Self {
        Self { patience: Patience::default(), scale: 1.0 }
    }
}

/// Where in a run the schedule began: at its beginning, or where it was extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleBegin {
    /// The steps that were done then.
    pub step: u64,
    /// The epochs that were done then.
    pub epoch: u64,
}

impl ScheduleBegin {
    /// Whether it began with the run.
    pub(crate) fn is_new(&self) -> bool {
        *self == Self::default()
    }
}

/// Where in a schedule a rate is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct When {
    /// The number of the step, from 1.
    pub(crate) step: u64,
    /// The number of the epoch, from 0.
    pub(crate) epoch: u64,
    /// The steps of the whole schedule.
    pub(crate) total: u64,
}

impl ScheduleConfig {
    /// The rate of one step.
    pub(crate) fn rate(&self, base: f64, when: When, plateau: &PlateauState) -> f64 {
        let (t, warmup) = (when.step as f64, self.warmup());
        let w = warmup as f64;
        if when.step < warmup && !matches!(self, Self::Noam(_)) {
            return base * t / w;
        }
        // At most 1, since the total of a run of very many epochs is an estimate.
        let done = |steps: u64, of: u64| (steps as f64 / of.max(1) as f64).min(1.0);
        let progress = || done(when.step.saturating_sub(1 + warmup), when.total.saturating_sub(warmup));
        match self {
            Self::Constant(_) => base,
            Self::Step(StepConfig { every_epochs, every_steps, start, factor }) => {
                let (every, now) =
                    if *every_epochs > 0 { (*every_epochs, when.epoch) } else { (*every_steps, when.step - 1) };
                let every = every.max(1);
                let start = if *start == 0 { every } else { *start };
                let changes = if now < start { 0 } else { 1 + (now - start) / every };
                base * factor.powf(changes as f64)
            }
            Self::Cosine(CosineConfig { floor, .. }) => floor + (base - floor) * 0.5 * (1.0 + (PI * progress()).cos()),
            Self::Linear(_) => base * (1.0 - progress()),
            Self::Noam(NoamConfig { width, .. }) => {
                base * (*width as f64).powf(-0.5) * t.powf(-0.5).min(t * w.powf(-1.5))
            }
            Self::InverseSqrt(_) => base * (w / t).sqrt(),
            Self::Plateau(PlateauConfig { floor, .. }) => (base * plateau.scale).max(*floor),
        }
    }

    /// Takes a validation's value into account.
    pub(crate) fn observe(&self, plateau: &mut PlateauState, value: f64, lower_is_better: bool) {
        if let Self::Plateau(config) = self {
            let better = plateau.patience.observe(value, config.min_delta, lower_is_better);
            if !better && plateau.patience.waited >= config.patience {
                plateau.patience.waited = 0;
                plateau.scale *= config.factor;
            }
        }
    }

    pub(crate) fn needs_validation(&self) -> bool {
        matches!(self, Self::Plateau(_))
    }

    /// Whether the rate falls until the run ends, so that it depends on the length of the run.
    pub fn ends_with_the_run(&self) -> bool {
        match self {
            Self::Cosine(_) | Self::Linear(_) => true,
            Self::Constant(_) | Self::Step(_) | Self::Noam(_) | Self::InverseSqrt(_) | Self::Plateau(_) => false,
        }
    }

    /// The steps during which the rate grows; 0 for none.
    pub fn warmup(&self) -> u64 {
        match self {
            Self::Step(_) => 0,
            Self::Constant(ConstantConfig { warmup })
            | Self::Cosine(CosineConfig { warmup, .. })
            | Self::Linear(LinearConfig { warmup })
            | Self::Noam(NoamConfig { warmup, .. })
            | Self::InverseSqrt(InverseSqrtConfig { warmup })
            | Self::Plateau(PlateauConfig { warmup, .. }) => *warmup,
        }
    }

    /// What is wrong with this schedule in a run of `total` steps: that it ends before the warm-up does.
    pub(crate) fn misfit(&self, total: u64) -> Option<String> {
        let warmup = self.warmup();
        let wrong = warmup >= total && warmup > 0;
        wrong.then(|| {
            format!("the warm-up takes {warmup} steps, but the run has only {total}: lower it or train longer")
        })
    }

    /// Whether this is a schedule by steps that takes none before a run of this length ends.
    pub(crate) fn never_steps(&self, epochs: Option<u64>, steps: Option<u64>) -> bool {
        let Self::Step(StepConfig { every_epochs, every_steps, start, factor }) = self else { return false };
        let (every, length) = if *every_epochs > 0 { (*every_epochs, epochs) } else { (*every_steps, steps) };
        let first = if *start == 0 { every } else { *start };
        *factor == 1.0 || length.is_some_and(|length| first >= length)
    }

    /// The least that the rate is lowered to.
    pub(crate) fn floor(&self) -> f64 {
        match self {
            Self::Cosine(CosineConfig { floor, .. }) | Self::Plateau(PlateauConfig { floor, .. }) => *floor,
            Self::Constant(_) | Self::Step(_) | Self::Linear(_) | Self::Noam(_) | Self::InverseSqrt(_) => 0.0,
        }
    }

    pub(crate) fn problems(&self, found: &mut Demands) {
        match self {
            Self::Constant(_) | Self::Linear(_) => {}
            Self::Step(StepConfig { every_epochs, every_steps, factor, .. }) => {
                let one = (*every_epochs > 0) != (*every_steps > 0);
                found.demand(one, "schedule.every_epochs", || {
                    "set exactly one of `every_epochs` and `every_steps`".into()
                });
                found.positive(*factor, "schedule.factor");
            }
            Self::Cosine(CosineConfig { floor, .. }) => found.not_negative(*floor as f32, "schedule.floor"),
            Self::Noam(NoamConfig { warmup, width }) => {
                found.demand(*warmup >= 1, "schedule.warmup", || "must be at least 1".into());
                found.demand(*width >= 1, "schedule.width", || "must be at least 1".into());
            }
            Self::InverseSqrt(InverseSqrtConfig { warmup }) => {
                found.demand(*warmup >= 1, "schedule.warmup", || "must be at least 1".into());
            }
            Self::Plateau(PlateauConfig { factor, patience, min_delta, floor, .. }) => {
                let lowers = *factor > 0.0 && *factor < 1.0;
                found.demand(lowers, "schedule.factor", || format!("must be between 0 and 1, got {factor}"));
                found.demand(*patience >= 1, "schedule.patience", || "must be at least 1".into());
                found.not_negative(*min_delta, "schedule.min_delta");
                found.not_negative(*floor as f32, "schedule.floor");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rates for steps 1 to `N` of a run of 8 steps, 2 steps an epoch, at a base rate of 1.
    fn rates<const N: usize>(config: &ScheduleConfig) -> [f64; N] {
        std::array::from_fn(|i| {
            let when = When { step: i as u64 + 1, epoch: i as u64 / 2, total: 8 };
            config.rate(1.0, when, &PlateauState::default())
        })
    }

    fn check<const N: usize>(config: ScheduleConfig, expected: [f64; N]) {
        for (i, (rate, want)) in rates::<N>(&config).iter().zip(expected).enumerate() {
            assert!((rate - want).abs() < 1e-12, "{config:?}, step {}: {rate} is not {want}", i + 1);
        }
    }

    #[test]
    fn rates_are_those_of_the_equations() {
        check(ScheduleConfig::Constant(ConstantConfig { warmup: 4 }), [0.25, 0.5, 0.75, 1.0, 1.0]);
        let step = StepConfig { every_steps: 3, ..StepConfig::default() };
        check(ScheduleConfig::Step(step), [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]);
        let step = StepConfig { every_epochs: 1, start: 2, factor: 0.1, ..StepConfig::default() };
        check(ScheduleConfig::Step(step), [1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]);
        check(ScheduleConfig::Linear(LinearConfig { warmup: 0 }), [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]);
        check(ScheduleConfig::Linear(LinearConfig { warmup: 4 }), [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25]);
        // (1 + cos(π k / 8)) / 2, as PyTorch's CosineAnnealingLR(T_max = 8), squeezed between 0.1 and 1.
        let c = |k: f64| 0.1 + 0.9 * 0.5 * (1.0 + (PI * k / 8.0).cos());
        let cosine = CosineConfig { warmup: 0, floor: 0.1 };
        check(ScheduleConfig::Cosine(cosine), [1.0, c(1.0), c(2.0), c(3.0), 0.55, c(5.0), c(6.0), c(7.0)]);
        // 4^-0.5 · min(t^-0.5, t · 4^-1.5): the two meet at step 4.
        let noam = ScheduleConfig::Noam(NoamConfig { warmup: 4, width: 4 });
        check(noam, [0.0625, 0.125, 0.1875, 0.25, 0.5 / 5.0_f64.sqrt()]);
        let inverse = ScheduleConfig::InverseSqrt(InverseSqrtConfig { warmup: 2 });
        check(inverse, [0.5, 1.0, (2.0_f64 / 3.0).sqrt(), 0.5_f64.sqrt()]);
    }

    #[test]
    fn behind_an_estimated_end_the_rate_stays_at_its_floor() {
        let when = When { step: 12, epoch: 5, total: 8 };
        let rate = |config: ScheduleConfig| config.rate(1.0, when, &PlateauState::default());
        assert_eq!(rate(ScheduleConfig::Linear(LinearConfig::default())), 0.0);
        assert!((rate(ScheduleConfig::Cosine(CosineConfig { warmup: 0, floor: 0.1 })) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn a_plateau_lowers_the_rate_down_to_its_floor() {
        let config = PlateauConfig { patience: 2, floor: 0.3, ..PlateauConfig::default() };
        let schedule = ScheduleConfig::Plateau(config);
        let mut state = PlateauState::default();
        let when = When { step: 1, epoch: 0, total: 8 };
        let rates = [5.0, 5.0, 6.0, 4.0, 4.0, f64::NAN, 4.0].map(|loss| {
            schedule.observe(&mut state, loss, true);
            schedule.rate(1.0, when, &state)
        });
        assert_eq!(rates, [1.0, 1.0, 0.5, 0.5, 0.5, 0.3, 0.3]);
    }

    #[test]
    fn a_warm_up_longer_than_the_run_is_an_error() {
        let misfit = ScheduleConfig::Linear(LinearConfig { warmup: 8 }).misfit(8).unwrap();
        assert!(misfit.starts_with("the warm-up takes 8 steps, but the run has only 8"), "{misfit}");
        assert_eq!(ScheduleConfig::Linear(LinearConfig { warmup: 7 }).misfit(8), None);
        assert_eq!(ScheduleConfig::default().misfit(1), None);
    }
}
