//! `[train.parameters]`: which parameters are trained, at which rate, and how far from where they started.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Demands;
use crate::part::{holds, nearest};
use crate::path::ModulePath;

/// How parts of the model are trained, by the paths of their parameters: `encoder`, `decoder.layers.0`, `*.table` (`*` is any one
/// segment).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ParametersConfig {
    /// Parts that stay as they start: no gradient is made for them, `clip_norm` does not count them, no decay or penalty touches
    /// them, and they are not averaged.
    pub frozen: Vec<String>,
    /// What the learning rate is multiplied by in a part, decay included. Of parts within parts the smallest counts.
    #[schemars(extend("additionalProperties" = { "type": "number", "format": "float", "exclusiveMinimum": 0 }))]
    pub learning_rates: BTreeMap<String, f64>,
    /// The weight `α` of the penalty `α / 2 · Σ (w − w₀)²` that draws a part towards where its training started (L2-SP, Li et al.
    /// 2018), added to the loss per token. It enters the gradient that the optimizer sees. Of parts within parts the smallest
    /// counts.
    #[schemars(extend("additionalProperties" = { "type": "number", "format": "float", "minimum": 0.0 }))]
    pub towards_start: BTreeMap<String, f64>,
}

impl ParametersConfig {
    /// Whether the parameter at `path` is trained.
    pub fn trains(&self, path: &str) -> bool {
        !self.frozen.iter().any(|part| holds(part, path))
    }

    /// What the learning rate of the parameter at `path` is multiplied by.
    pub(crate) fn rate(&self, path: &str) -> f64 {
        nearest(&self.learning_rates, path).copied().unwrap_or(1.0)
    }

    /// The weight of the penalty that draws the parameter at `path` towards its start.
    pub(crate) fn pull(&self, path: &str) -> f64 {
        if self.trains(path) { nearest(&self.towards_start, path).copied().unwrap_or(0.0) } else { 0.0 }
    }

    /// The parts that are named, each with its key below `[train]`, and whether it says how to train.
    pub fn parts(&self) -> Vec<(String, &str, bool)> {
        let frozen = self.frozen.iter().enumerate();
        let mut parts: Vec<_> =
            frozen.map(|(i, part)| (format!("parameters.frozen.{i}"), part.as_str(), false)).collect();
        for (name, map) in [("learning_rates", &self.learning_rates), ("towards_start", &self.towards_start)] {
            parts.extend(map.keys().map(|part| (keyed(name, part), part.as_str(), true)));
        }
        parts
    }

    pub(crate) fn problems(&self, found: &mut Demands) {
        for (part, &factor) in &self.learning_rates {
            found.positive(factor, &keyed("learning_rates", part));
        }
        for (part, &weight) in &self.towards_start {
            found.not_negative(weight as f32, &keyed("towards_start", part));
        }
    }
}

/// The dotted key of a part's entry: the part has dots of its own.
fn keyed(map: &str, part: &str) -> String {
    format!("parameters.{map}.{}", serde_json::Value::from(part))
}

/// Takes what is frozen off the graph; the model is on an autodiff device.
pub(crate) fn freeze<M: Module>(model: M, config: &ParametersConfig) -> M {
    struct Freeze<'c>(ModulePath, &'c ParametersConfig);
    impl ModuleMapper for Freeze<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.1.trains(&self.0.dotted()) { param } else { param.set_require_grad(false) }
        }
    }
    if config.frozen.is_empty() { model } else { model.map(&mut Freeze(ModulePath::default(), config)) }
}
