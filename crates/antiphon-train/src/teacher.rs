//! `[train.teacher]`: trained models that say beside the corpus what is right.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Demands;

/// Trained models from which this one learns, beside the right token, how probable they find every token in its place: word-level
/// knowledge distillation (Hinton et al. 2015; Kim and Rush 2016, section 3.1). They read each batch under teacher forcing, without
/// dropout. Their tokenizers must be those of this model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TeacherConfig {
    /// The models: model files, or folders of runs that are trained, from where the program is called. Several teach together as an
    /// ensemble. The SHA-256 of each is part of the run's identity. Empty: nobody teaches.
    #[schemars(example = &["runs/one", "runs/two"], inner(length(min = 1)))]
    pub models: Vec<PathBuf>,
    /// How much each of several counts, in their order; only the proportions matter. Empty: all the same.
    #[schemars(inner(range(min = 1e-6, max = 1e6)))]
    pub weights: Vec<f64>,
    /// How several are combined, token by token; if unset, as the ensembles among them are, or else `linear`.
    pub combine: Option<TeacherCombination>,
    /// The share λ of the cross-entropy to what they say; that to the right tokens has 1 − λ. 0: nobody teaches, and none of the
    /// models is read. Beside `[model.ctc]` both are parts of the decoder's share.
    #[schemars(range(min = 0.0, max = 1.0), extend("format" = "float"))]
    pub weight: f64,
    /// The temperature T by which the logarithms of what they say and the logits of this model are divided before both are compared:
    /// above 1, what they hold possible beside the right token counts for more. That cross-entropy is then multiplied by T², so that its
    /// gradients stay as long as they are (Hinton et al. 2015, section 2).
    #[schemars(range(min = 0.01, max = 100.0), extend("format" = "float"))]
    pub temperature: f64,
}

/// How several teachers are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TeacherCombination {
    /// By the mean of their probabilities.
    Linear,
    /// By the geometric mean of their probabilities.
    LogLinear,
}

impl Default for TeacherConfig {
    fn default() -> Self {
        Self { models: Vec::new(), weights: Vec::new(), combine: None, weight: 0.5, temperature: 1.0 }
    }
}

impl TeacherConfig {
    /// Whether anybody teaches.
    pub fn is_used(&self) -> bool {
        !self.models.is_empty() && self.weight > 0.0
    }

    pub(crate) fn problems(&self, found: &mut Demands) {
        for (i, model) in self.models.iter().enumerate() {
            let place = format!("teacher.models.{i}");
            found.demand(!model.as_os_str().is_empty(), &place, || "must name a model, but is empty".into());
        }
        let (models, weights) = (self.models.len(), self.weights.len());
        let fits = weights == 0 || models == 0 || weights == models;
        found.demand(fits, "teacher.weights", || {
            format!("there are {weights} weights for {models} models: give each its own")
        });
        for (i, &weight) in self.weights.iter().enumerate() {
            found.demand((1e-6..=1e6).contains(&weight), &format!("teacher.weights.{i}"), || {
                format!("must be from 0.000001 to 1000000, got {weight}; leave out the model that does not count")
            });
        }
        let weight = self.weight;
        found.demand((0.0..=1.0).contains(&weight), "teacher.weight", || format!("must be from 0 to 1, got {weight}"));
        let temperature = self.temperature;
        found.demand((0.01..=100.0).contains(&temperature), "teacher.temperature", || {
            format!("must be from 0.01 to 100, got {temperature}")
        });
    }

    pub(crate) fn warnings(&self, found: &mut Demands) {
        if !self.models.is_empty() {
            found.demand(self.weight > 0.0, "teacher", || "has no effect: its `weight` is 0".into());
            found.demand(self.models.len() > 1 || self.weights.is_empty(), "teacher.weights", || {
                "has no effect: one model has all of it".into()
            });
            return;
        }
        let default = Self::default();
        let unset = [
            ("weights", self.weights.is_empty()),
            ("combine", self.combine.is_none()),
            ("weight", self.weight == default.weight),
            ("temperature", self.temperature == default.temperature),
        ];
        for (key, is_unset) in unset {
            let idle = || "has no effect: `train.teacher.models` names no model".into();
            found.demand(is_unset, &format!("teacher.{key}"), idle);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_taught_or_has_no_effect_is_said_at_its_key() {
        let places = |config: serde_json::Value| {
            let config: TeacherConfig = serde_json::from_value(config).unwrap();
            let (mut problems, mut warnings) = (Demands::default(), Demands::default());
            config.problems(&mut problems);
            config.warnings(&mut warnings);
            let of = |found: Demands| found.into_places();
            (of(problems), of(warnings), config.is_used())
        };
        let none = Vec::<String>::new;
        assert_eq!(places(json!({})), (none(), none(), false));
        assert_eq!(places(json!({"models": ["a", "b"], "weights": [1, 2], "weight": 1})), (none(), none(), true));
        let idle = vec!["teacher".to_owned()];
        assert_eq!(places(json!({"models": ["a"], "weight": 0, "temperature": 2})), (none(), idle, false));
        let idle = vec!["teacher.weights".to_owned()];
        assert_eq!(places(json!({"models": ["a"], "weights": [2]})), (none(), idle, true));
        let idle = ["weights", "combine", "weight", "temperature"].map(|key| format!("teacher.{key}")).to_vec();
        let alone = json!({"weights": [1], "combine": "linear", "weight": 0.25, "temperature": 2});
        assert_eq!(places(alone), (none(), idle, false));
        let wrong = json!({"models": ["a", ""], "weights": [0], "weight": 1.5, "temperature": 0});
        let keys = ["models.1", "weights", "weights.0", "weight", "temperature"];
        assert_eq!(places(wrong).0, keys.map(|key| format!("teacher.{key}")));
    }
}
