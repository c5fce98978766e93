//! `[train]`: how long, by which rule, and when to look up.

use antiphon_core::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AverageConfig, OptimizerConfig, ParametersConfig, ScheduleConfig, StartConfig, TeacherConfig};

/// How the model is trained. At least one of `epochs` and `steps` must be set; the first that is reached ends the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training corpus.
    #[schemars(range(min = 1))]
    pub epochs: Option<u64>,
    /// Optimizer steps.
    #[schemars(range(min = 1))]
    pub steps: Option<u64>,
    /// Batches whose gradients are added before each optimizer step. The last step of an epoch takes what is left.
    #[schemars(range(min = 1))]
    pub accumulate: u64,
    /// What the parameters start from, if not from what is drawn.
    pub start_from: StartConfig,
    /// Trained models from which it learns beside the corpus, if it does.
    pub teacher: TeacherConfig,
    /// What is minimised.
    pub loss: LossConfig,
    /// The weight of the penalty `l1 · Σ|w|` over all parameters, added to the loss per token.
    #[schemars(range(min = 0.0), extend("format" = "float"))]
    pub l1: f64,
    /// The weight of the penalty `l2 / 2 · Σw²` over all parameters, added to the loss per token. It enters the gradient
    /// that the optimizer sees; AdamW's `weight_decay` does not.
    #[schemars(range(min = 0.0), extend("format" = "float"))]
    pub l2: f64,
    /// The largest global norm of the gradient of the loss per token (before penalties); a longer gradient is scaled
    /// down to it. Absent: no clipping.
    #[schemars(extend("format" = "float", "exclusiveMinimum" = 0))]
    pub clip_norm: Option<f64>,
    /// Which parameters are trained, at which rate, and how far from where they started.
    pub parameters: ParametersConfig,
    /// How gradients become steps.
    pub optimizer: OptimizerConfig,
    /// How the learning rate changes over the run.
    pub schedule: ScheduleConfig,
    /// Which average of the weights is validated, chosen and written in their place. Training goes on with the weights themselves.
    pub average: AverageConfig,
    /// When the model is validated, and by which figure models are compared.
    pub validate: ValidateConfig,
    /// When to give up.
    pub stop: StopConfig,
    /// When the run is saved.
    pub checkpoint: CheckpointConfig,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: None,
            steps: None,
            accumulate: 1,
            start_from: StartConfig::default(),
            teacher: TeacherConfig::default(),
            loss: LossConfig::default(),
            l1: 0.0,
            l2: 0.0,
            clip_norm: None,
            parameters: ParametersConfig::default(),
            optimizer: OptimizerConfig::default(),
            schedule: ScheduleConfig::default(),
            average: AverageConfig::default(),
            validate: ValidateConfig::default(),
            stop: StopConfig::default(),
            checkpoint: CheckpointConfig::default(),
        }
    }
}

/// The training loss: cross-entropy, summed over the real tokens and divided by their number.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// The share of each target's probability that is spread evenly over the vocabulary (Szegedy et al. 2016). Of that,
    /// padding and begin have their parts too, though they never occur, as in PyTorch.
    #[schemars(range(min = 0.0), extend("format" = "float", "exclusiveMaximum" = 1))]
    pub label_smoothing: f64,
}

/// When the model is validated. Both intervals may be set; the end of a run is validated in any case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ValidateConfig {
    /// Validate after every so many epochs; 0 for never.
    pub every_epochs: u64,
    /// Validate after every so many optimizer steps; 0 for never.
    pub every_steps: u64,
    /// The figure by which the best model, early stopping and the plateau schedule judge: `loss`, or a metric's name.
    pub metric: String,
}

impl Default for ValidateConfig {
    fn default() -> Self {
        Self { every_epochs: 1, every_steps: 0, metric: "loss".into() }
    }
}

/// Early stopping.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StopConfig {
    /// The run ends after so many validations in a row without improvement; 0 for never.
    pub patience: u64,
    /// What counts as improvement: at least more than this, in the unit of `validate.metric`.
    #[schemars(range(min = 0.0))]
    pub min_delta: f64,
}

/// When the run is saved. It is also saved when validation finds a new best model, when it is stopped and when it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Save after every so many optimizer steps; 0 for never.
    pub every_steps: u64,
    /// How many of the newest checkpoints are kept, besides the best one: two at least, so that there is one before a
    /// damaged one.
    #[schemars(range(min = 2))]
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every_steps: 1000, keep: 2 }
    }
}

impl TrainConfig {
    /// Every value that is out of range and every pair that contradicts itself; places are keys below `[train]`.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Demands::default();
        found.demand(self.epochs.is_some() || self.steps.is_some(), "epochs", || {
            "set `epochs` or `steps`: without a limit the run would never end".into()
        });
        found.demand(self.epochs != Some(0), "epochs", || "must be at least 1".into());
        found.demand(self.steps != Some(0), "steps", || "must be at least 1".into());
        found.demand(self.accumulate >= 1, "accumulate", || "must be at least 1".into());
        found.share(self.loss.label_smoothing, "loss.label_smoothing");
        found.not_negative(self.l1 as f32, "l1");
        found.not_negative(self.l2 as f32, "l2");
        found.not_negative(self.stop.min_delta, "stop.min_delta");
        if let Some(norm) = self.clip_norm {
            found.positive(norm, "clip_norm");
        }
        found.demand(self.checkpoint.keep >= 2, "checkpoint.keep", || {
            "must be at least 2: a damaged checkpoint needs one before it".into()
        });
        self.start_from.problems(&mut found);
        self.teacher.problems(&mut found);
        self.parameters.problems(&mut found);
        self.optimizer.problems(&mut found);
        self.schedule.problems(&mut found);
        self.average.problems(&mut found);
        let (rate, floor) = (self.optimizer.learning_rate(), self.schedule.floor());
        found.demand(floor <= rate, "schedule.floor", || {
            format!("lies above `optimizer.learning_rate`, which it would raise from {rate} to {floor}")
        });
        let looks = self.validate.every_epochs > 0 || self.validate.every_steps > 0;
        if let Some(misfit) = self.steps.and_then(|steps| self.schedule.misfit(steps)) {
            found.demand(false, "schedule.warmup", || misfit);
        }
        found.demand(looks || self.stop.patience == 0, "stop.patience", || {
            "early stopping needs validation: set `validate.every_epochs` or `validate.every_steps`".into()
        });
        found.demand(looks || !self.average.needs_validation(), "average.kind", || {
            let kind = self.average.kind();
            format!("`{kind}` needs validation: set `validate.every_epochs` or `validate.every_steps`")
        });
        found.demand(looks || !self.schedule.needs_validation(), "schedule.kind", || {
            "`plateau` needs validation: set `validate.every_epochs` or `validate.every_steps`".into()
        });
        found.0
    }
}

impl TrainConfig {
    /// What is valid but has no effect; places are keys below `[train]`.
    pub fn warnings(&self) -> Vec<Problem> {
        let mut found = Demands::default();
        self.start_from.warnings(&mut found);
        self.teacher.warnings(&mut found);
        if self.stop.patience == 0 && self.stop.min_delta != 0.0 {
            found.demand(false, "stop.min_delta", || "has no effect: `train.stop.patience` is 0".into());
        }
        if let Some(times) = self.validations() {
            let waits = self.stop.patience > 0 && self.stop.patience >= times;
            found.demand(!waits, "stop.patience", || too_long(times));
            let idle = matches!(&self.schedule, ScheduleConfig::Plateau(plateau) if plateau.patience >= times);
            found.demand(!idle, "schedule.patience", || too_long(times));
            let needed = self.average.least_validations();
            found.demand(needed.is_none_or(|needed| times >= needed), "average.patience", || too_long(times));
        }
        if self.schedule.never_steps(self.epochs, self.steps) {
            found.demand(false, "schedule", || "has no effect: the rate is never lowered before the run ends".into());
        }
        found.0
    }

    /// How often a run is validated at most; `None` if that depends on the corpus.
    fn validations(&self) -> Option<u64> {
        let ValidateConfig { every_epochs, every_steps, .. } = self.validate;
        match (self.epochs, self.steps) {
            (Some(epochs), _) if every_steps == 0 && every_epochs > 0 => Some(epochs.div_ceil(every_epochs)),
            (_, Some(steps)) if every_epochs == 0 && every_steps > 0 => Some(steps.div_ceil(every_steps)),
            _ => None,
        }
    }
}

/// What is said of a patience that a run with so many validations is too short for.
fn too_long(validations: u64) -> String {
    let times = if validations == 1 { "once".into() } else { format!("{validations} times") };
    format!("has no effect: the run is validated {times}, and ends before patience can run out")
}

/// Problems as they are found.
#[derive(Debug, Default)]
pub(crate) struct Demands(Vec<Problem>);

impl Demands {
    /// Where they are.
    #[cfg(test)]
    pub(crate) fn into_places(self) -> Vec<String> {
        self.0.into_iter().map(|problem| problem.place.to_string()).collect()
    }

    pub(crate) fn demand(&mut self, holds: bool, place: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Problem { place: place.into(), message: message() });
        }
    }

    pub(crate) fn not_negative(&mut self, value: impl Into<f64>, place: &str) {
        let value = value.into();
        let holds = value.is_finite() && value >= 0.0;
        self.demand(holds, place, || format!("must be at least 0, got {value}"));
    }

    pub(crate) fn positive(&mut self, value: f64, place: &str) {
        // As the single-precision number that it becomes.
        let becomes = value as f32;
        self.demand(becomes.is_finite() && becomes > 0.0, place, || format!("must be above 0, got {value}"));
    }

    /// A share of what there is, such as the decay rate of a moving average.
    pub(crate) fn share(&mut self, value: f64, place: &str) {
        let becomes = value as f32;
        self.demand((0.0..1.0).contains(&becomes), place, || format!("must be at least 0 and below 1, got {value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(json: serde_json::Value) -> Vec<String> {
        let config: TrainConfig = serde_json::from_value(json).unwrap();
        config.problems().into_iter().map(|p| p.place.to_string()).collect()
    }

    #[test]
    fn every_problem_is_reported_at_its_key() {
        use serde_json::json;
        assert_eq!(places(json!({"epochs": 3})), [""; 0]);
        assert_eq!(places(json!({})), ["epochs"]);
        assert_eq!(
            places(json!({
                "steps": 0, "accumulate": 0, "loss": {"label_smoothing": 1.0}, "l1": -1.0, "clip_norm": 0.0,
                "checkpoint": {"keep": 1},
                "optimizer": {"kind": "sgd", "nesterov": true, "learning_rate": 0.0},
            })),
            [
                "steps",
                "accumulate",
                "loss.label_smoothing",
                "l1",
                "clip_norm",
                "checkpoint.keep",
                "optimizer.learning_rate",
                "optimizer.nesterov"
            ]
        );
        assert_eq!(
            places(json!({
                "steps": 9, "optimizer": {"kind": "adam", "epsilon": 1e-50, "beta2": 0.999_999_999},
                "schedule": {"kind": "cosine", "floor": 1.0},
            })),
            ["optimizer.beta2", "optimizer.epsilon", "schedule.floor"]
        );
        let never = json!({"every_epochs": 0});
        assert_eq!(
            places(json!({
                "steps": 9, "validate": never, "stop": {"patience": 2},
                "schedule": {"kind": "plateau", "factor": 1.0}, "average": {"kind": "triggered", "patience": 0},
            })),
            ["schedule.factor", "average.patience", "stop.patience", "average.kind", "schedule.kind"]
        );
        assert_eq!(places(json!({"steps": 9, "average": {"kind": "exponential", "decay": 1.0}})), ["average.decay"]);
    }

    #[test]
    fn a_run_that_ends_before_its_warm_up_is_refused_where_its_steps_are_known() {
        use serde_json::json;
        let train = |steps: u64| json!({"steps": steps, "schedule": {"kind": "linear", "warmup": 8}});
        assert_eq!((places(train(8)), places(train(9))), (vec!["schedule.warmup".to_owned()], vec![]));
    }

    #[test]
    fn unknown_keys_are_refused_and_defaults_come_back() {
        assert!(serde_json::from_str::<TrainConfig>(r#"{"epoch": 3}"#).is_err());
        assert!(serde_json::from_str::<TrainConfig>(r#"{"optimizer": {"kind": "adam", "beta": 0.9}}"#).is_err());
        let default = TrainConfig::default();
        let json = serde_json::to_string(&default).unwrap();
        assert_eq!(serde_json::from_str::<TrainConfig>(&json).unwrap(), default);
    }
}
