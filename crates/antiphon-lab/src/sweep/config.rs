//! `[sweep]`: what is varied, how cells are drawn, and by which figure they are compared.

use std::collections::BTreeMap;

use antiphon_core::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::slurm::SlurmConfig;

/// More cells than this are a slip of the pen.
const MOST_CELLS: usize = 10_000;
/// The settings that a sweep makes itself, or that no figure depends on.
const NOT_VARIED: [(&str, &str); 5] = [
    ("seed", "name the seeds in `sweep.seeds`, over which figures are averaged"),
    ("name", "no figure depends on it"),
    ("threads", "set it for all cells, in the config itself"),
    ("sweep", "a sweep cannot vary itself"),
    ("expect", "no figure depends on it"),
];

/// A sweep: one config in many variations (cells), each run with several seeds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SweepConfig {
    /// What is varied: a setting's dotted key, in quotes, and its values: a list, or for `strategy.kind = "random"` also
    /// a distribution. `"model.encoder.hidden" = [64, 128]`.
    pub over: BTreeMap<String, Axis>,
    /// Keys of `over` that are varied only where other keys of `over` have one of the listed values:
    /// `"search.width" = { "search.kind" = ["beam"] }`. Elsewhere they stay as the config has them.
    pub when: BTreeMap<String, Condition>,
    /// Cells that are left out: each entry names keys of `over` and values; a cell that has one of the values for all of
    /// the keys is not run.
    pub skip: Vec<Condition>,
    /// Which cells there are.
    pub strategy: SweepStrategy,
    /// Successive halving: all cells train for a little, and only the better ones go on.
    pub halving: Option<HalvingConfig>,
    /// The seeds with which each cell is run. If empty: the config's own.
    pub seeds: Vec<u64>,
    /// The figure on the validation split by which cells are compared. If unset: `train.validate.metric`.
    pub metric: Option<String>,
    /// What each run gets from Slurm (`--launcher slurm`).
    pub slurm: SlurmConfig,
}

/// Values that some keys of `over` may have, by key.
pub type Condition = BTreeMap<String, Vec<Value>>;

/// The values of one key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Axis {
    /// These.
    List(Vec<Value>),
    /// Drawn by chance.
    Drawn(Distribution),
}

/// Where the values of a random sweep come from. Numbers that are not whole are rounded to four significant digits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Distribution {
    /// Numbers from `low` to `high`, all equally likely.
    Uniform {
        /// The smallest.
        low: f64,
        /// The largest.
        high: f64,
    },
    /// Numbers from `low` to `high`, their logarithms equally likely.
    LogUniform {
        /// The smallest; above 0.
        low: f64,
        /// The largest.
        high: f64,
    },
    /// Whole numbers from `low` to `high`, both included, all equally likely.
    Integer {
        /// The smallest.
        low: i64,
        /// The largest.
        high: i64,
    },
    /// One of some values, all equally likely.
    Choice {
        /// The values.
        values: Vec<Value>,
    },
}

/// Which cells a sweep has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SweepStrategy {
    /// Every combination of the listed values.
    Grid(GridConfig),
    /// Combinations drawn by chance; a list is drawn from like a `choice`.
    Random(RandomConfig),
}

impl Default for SweepStrategy {
    fn default() -> Self {
        Self::Grid(GridConfig {})
    }
}

/// Every combination.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GridConfig {}

/// Combinations drawn by chance (Bergstra and Bengio 2012).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomConfig {
    /// How many combinations are drawn. Equal ones are run once.
    #[schemars(range(min = 1, max = 10_000))]
    pub draws: usize,
    /// The seed of the draws. Draw number n of a key depends on this seed, the key and n alone.
    #[serde(default)]
    pub seed: u64,
}

/// Asynchronous successive halving (Li et al. 2020, *A System for Massively Parallel Hyperparameter Tuning*).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HalvingConfig {
    /// In what the length of a run is measured. The longest a run can be is what the config says there.
    pub budget: Budget,
    /// How far every cell trains; the next rungs are `eta` times as far, and so on up to the config's own length.
    #[schemars(range(min = 1))]
    pub least: u64,
    /// One of so many cells goes on from a rung to the next.
    #[serde(default = "three")]
    #[schemars(range(min = 2))]
    pub eta: u64,
}

const fn three() -> u64 {
    3
}

/// The length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Budget {
    /// Optimizer steps.
    #[serde(rename = "train.steps")]
    Steps,
    /// Epochs.
    #[serde(rename = "train.epochs")]
    Epochs,
}

impl Budget {
    /// The setting that says how long a run is.
    pub const fn key(self) -> &'static str {
        match self {
            Budget::Steps => "train.steps",
            Budget::Epochs => "train.epochs",
        }
    }
}

impl SweepConfig {
    /// Everything that contradicts itself; places are keys below `[sweep]`.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Found(Vec::new());
        if self.over.is_empty() && self.seeds.len() < 2 {
            found.add("over", "varies nothing: name a key and its values, or several `seeds`");
        }
        for (key, axis) in &self.over {
            self.axis_problems(key, axis, &mut found);
        }
        for (key, condition) in &self.when {
            let place = entry("when", key);
            if !self.over.contains_key(key) {
                found.add(&place, &self.not_varied(key));
            }
            self.condition_problems(&place, condition, &mut found);
        }
        for (i, condition) in self.skip.iter().enumerate() {
            self.condition_problems(&format!("skip.{i}"), condition, &mut found);
        }
        if let Some(twice) = repeated(&self.seeds) {
            found.add(&format!("seeds.{twice}"), "stands in the list already: remove one");
        }
        if let Some(halving) = &self.halving
            && self.over.contains_key(halving.budget.key())
        {
            found.add(&entry("over", halving.budget.key()), "is the budget of `sweep.halving`, which varies it");
        }
        if matches!(self.strategy, SweepStrategy::Grid(_)) {
            let lists = self.over.values().map(|axis| if let Axis::List(list) = axis { list.len() } else { 1 });
            let cells = lists.fold(1_usize, usize::saturating_mul);
            if cells > MOST_CELLS {
                found.add(
                    "over",
                    &format!("gives {cells} cells, more than {MOST_CELLS}: use `strategy.kind = \"random\"`"),
                );
            }
        }
        found.0
    }

    fn axis_problems(&self, key: &str, axis: &Axis, found: &mut Found) {
        let place = entry("over", key);
        let first = key.split('.').next().unwrap_or_default().trim();
        if let Some((_, why)) = NOT_VARIED.iter().find(|(name, _)| *name == first) {
            found.add(&place, &format!("cannot be varied: {why}"));
        }
        match axis {
            Axis::Drawn(_) if matches!(self.strategy, SweepStrategy::Grid(_)) => {
                found.add(&place, "a grid needs a list of values; set `strategy.kind = \"random\"` to draw some");
            }
            Axis::List(values) | Axis::Drawn(Distribution::Choice { values }) => {
                if values.is_empty() {
                    found.add(&place, "is empty: name at least one value");
                }
                if let Some(twice) = repeated(values) {
                    found.add(&format!("{place}.{twice}"), "stands in the list already: remove one");
                }
            }
            &Axis::Drawn(Distribution::Uniform { low, high }) if !(low < high && (high - low).is_finite()) => {
                found.add(&place, &format!("`low` must lie below `high`, got {low} and {high}"));
            }
            &Axis::Drawn(Distribution::LogUniform { low, high }) if !(0.0 < low && low < high && high.is_finite()) => {
                found.add(&place, &format!("`low` must lie above 0 and below `high`, got {low} and {high}"));
            }
            &Axis::Drawn(Distribution::Integer { low, high }) if low >= high => {
                found.add(&place, &format!("`low` must lie below `high`, got {low} and {high}"));
            }
            Axis::Drawn(_) => {}
        }
    }

    fn condition_problems(&self, place: &str, condition: &Condition, found: &mut Found) {
        if condition.is_empty() {
            found.add(place, "names no key: it would hold for every cell");
        }
        for (key, values) in condition {
            let place = format!("{place}.{}", quoted(key));
            match self.over.get(key) {
                None => found.add(&place, &self.not_varied(key)),
                Some(Axis::List(list) | Axis::Drawn(Distribution::Choice { values: list })) => {
                    let never = |value: &&Value| !list.iter().any(|other| equal(value, other));
                    if let Some(value) = values.iter().find(never) {
                        found.add(&place, &format!("{value} is not one of its values in `over`"));
                    }
                }
                Some(_) => found.add(&place, "is drawn from a range: a condition needs a key with a list of values"),
            }
            if values.is_empty() {
                found.add(&place, "is empty: name at least one value");
            }
        }
    }

    fn not_varied(&self, key: &str) -> String {
        let known: Vec<String> = self.over.keys().map(|key| format!("`{key}`")).collect();
        format!("`{key}` is not varied; the keys of `over` are {}", known.join(", "))
    }
}

/// Whether two values are the same setting: `1` and `1.0` are.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Where something stands for the second time.
fn repeated<T: PartialEq>(items: &[T]) -> Option<usize> {
    (1..items.len()).find(|&i| items[..i].contains(&items[i]))
}

/// A key as a part of a dotted key.
pub(super) fn quoted(key: &str) -> Value {
    Value::from(key)
}

/// The dotted key of an entry of a table whose keys are dotted keys.
fn entry(table: &str, key: &str) -> String {
    format!("{table}.{}", quoted(key))
}

/// Problems as they are found.
struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, place: &str, message: &str) {
        self.0.push(Problem { place: place.into(), message: message.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn places(config: Value) -> Vec<String> {
        let config: SweepConfig = serde_json::from_value(config).unwrap();
        config.problems().into_iter().map(|p| p.place).collect()
    }

    #[test]
    fn a_sweep_that_makes_sense_has_no_problems() {
        let random = json!({ "kind": "random", "draws": 3 });
        let over = json!({ "a.b": [1, 2], "c": { "kind": "log_uniform", "low": 1e-4, "high": 1e-2 } });
        assert_eq!(places(json!({ "over": over, "strategy": random, "when": { "c": { "a.b": [1.0] } } })), [""; 0]);
        assert_eq!(places(json!({ "seeds": [1, 2] })), [""; 0]);
    }

    #[test]
    fn every_contradiction_has_its_place() {
        for (config, expected) in [
            (json!({}), vec!["over"]),
            (json!({ "over": { "a": [], "b": [1, 1] } }), vec![r#"over."a""#, r#"over."b".1"#]),
            (json!({ "over": { "seed": [1, 2], "name": ["x"] } }), vec![r#"over."name""#, r#"over."seed""#]),
            (json!({ "over": { "a": { "kind": "uniform", "low": 0.0, "high": 1.0 } } }), vec![r#"over."a""#]),
            (
                json!({ "strategy": { "kind": "random", "draws": 1 }, "over": {
                    "a": { "kind": "uniform", "low": 2.0, "high": 1.0 }, "b": { "kind": "log_uniform", "low": 0.0, "high": 1.0 },
                    "c": { "kind": "integer", "low": 1, "high": 1 }, "d": { "kind": "choice", "values": [] } } }),
                vec![r#"over."a""#, r#"over."b""#, r#"over."c""#, r#"over."d""#],
            ),
            (
                json!({ "over": { "a": [1, 2] }, "when": { "b": { "a": [3] } }, "skip": [{}, { "c": [1] }] }),
                vec![r#"when."b""#, r#"when."b"."a""#, "skip.0", r#"skip.1."c""#],
            ),
            (json!({ "over": { "a": [1, 2] }, "seeds": [3, 3] }), vec!["seeds.1"]),
            (
                json!({ "over": { "train.epochs": [1, 2] }, "halving": { "budget": "train.epochs", "least": 1 } }),
                vec![r#"over."train.epochs""#],
            ),
        ] {
            assert_eq!(places(config.clone()), expected, "{config}");
        }
        let many: Vec<u32> = (0..101).collect();
        assert_eq!(places(json!({ "over": { "a": many, "b": many } })), ["over"]);
    }
}
