//! `[sweep]`: what is varied, how cells are drawn, and by which figure they are compared.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_core::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::slurm::SlurmConfig;

/// What an entry of settings that move together is called.
pub(super) const LABEL: &str = "label";
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
    /// a distribution. `"model.encoder.hidden" = [64, 128]`. Settings that move together stand under a name of your own, in
    /// tables of dotted keys: `size = [{ label = "small", "model.encoder.hidden" = 64, "model.decoder.hidden" = 128 }, …]`;
    /// the `label`, which tables then show, may be left out.
    #[schemars(extend("examples" = [{"model.encoder.hidden": [64, 128]}]))]
    pub over: BTreeMap<String, Axis>,
    /// Keys of `over` that are varied only where other keys of `over` have one of the listed values:
    /// `"search.width" = { "search.kind" = ["beam"] }`. Elsewhere they stay as the config has them.
    #[schemars(extend("additionalProperties" = condition()))]
    pub when: BTreeMap<String, Condition>,
    /// Cells that are left out: each entry names keys of `over` and values; a cell that has one of the values for all of
    /// the keys is not run.
    #[schemars(extend("items" = condition()))]
    pub skip: Vec<Condition>,
    /// Which cells there are.
    pub strategy: SweepStrategy,
    /// Successive halving: all cells train for a little, and only the better ones go on.
    pub halving: Option<HalvingConfig>,
    /// The seeds with which each cell is run. If empty: the config's own.
    #[schemars(extend("uniqueItems" = true))]
    pub seeds: Vec<u64>,
    /// Whether the seeds of a cell are restarts of one training, of which the one that is best on the validation split is taken. Each
    /// cell is then an experiment of its own, a task say: all are measured on the test split, and none is held against
    /// another.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("default" = false))]
    pub restarts: bool,
    /// The figure on the validation split by which cells, or the restarts of a cell, are compared. If unset: `train.validate.metric`.
    #[schemars(example = &"loss")]
    pub metric: Option<String>,
    /// What each run gets from Slurm (`--launcher slurm`).
    pub slurm: SlurmConfig,
}

/// Values that some keys of `over` may have, by key.
pub type Condition = BTreeMap<String, Vec<Value>>;

/// The schema of a [`Condition`]: at least one key, each with at least one value.
fn condition() -> Value {
    let values = json!({ "type": "array", "items": true, "minItems": 1 });
    json!({ "type": "object", "minProperties": 1, "additionalProperties": values })
}

/// The values of one key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Axis {
    /// These.
    List(#[schemars(length(min = 1), extend("examples" = [[64, 128]]))] Vec<Value>),
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
        #[schemars(example = 0.0)]
        low: f64,
        /// The largest.
        #[schemars(example = 0.5)]
        high: f64,
    },
    /// Numbers from `low` to `high`, their logarithms equally likely.
    LogUniform {
        /// The smallest; above 0.
        #[schemars(extend("exclusiveMinimum" = 0), example = 1e-4)]
        low: f64,
        /// The largest.
        #[schemars(extend("exclusiveMinimum" = 0), example = 1e-2)]
        high: f64,
    },
    /// Whole numbers from `low` to `high`, both included, all equally likely.
    Integer {
        /// The smallest.
        #[schemars(example = 1)]
        low: i64,
        /// The largest.
        #[schemars(example = 9)]
        high: i64,
    },
    /// One of some values, all equally likely.
    Choice {
        /// The values.
        #[schemars(length(min = 1), extend("examples" = [[64, 128]]))]
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
        let mut found = Demands(Vec::new());
        let keys: Vec<(&str, &str)> = self.keys().collect();
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
        if self.restarts && self.seeds.len() < 2 {
            found.add("restarts", "restarts differ by their seeds: name several in `sweep.seeds`");
        }
        if self.restarts && self.halving.is_some() {
            found.add(
                "halving",
                "holds cells against each other, and with `restarts` each is a task of its own: leave one out",
            );
        }
        if let Some(halving) = &self.halving
            && let Some((axis, key)) = keys.iter().find(|(_, key)| *key == halving.budget.key())
        {
            found.add(&entry("over", axis), &format!("`{key}` is the budget of `sweep.halving`, which varies it"));
        }
        for (i, (axis, key)) in keys.iter().enumerate() {
            if let Some((other, _)) = keys[..i].iter().find(|(other, known)| known == key && other != axis) {
                found.add(&entry("over", axis), &format!("`{key}` is varied by `{other}` too: name it once"));
            }
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

    fn axis_problems(&self, key: &str, axis: &Axis, found: &mut Demands) {
        let place = entry("over", key);
        for key in axis.keys(key) {
            let first = key.split('.').next().unwrap_or_default().trim();
            if let Some((_, why)) = NOT_VARIED.iter().find(|(name, _)| *name == first) {
                let which = if axis.is_group() { format!("`{key}` ") } else { String::new() };
                found.add(&place, &format!("{which}cannot be varied: {why}"));
            }
        }
        if axis.is_group() {
            self.group_problems(&place, axis.values().unwrap_or_default(), found);
        }
        match axis {
            Axis::Drawn(_) if matches!(self.strategy, SweepStrategy::Grid(_)) => {
                found.add(&place, "a grid needs a list of values; set `strategy.kind = \"random\"` to draw some");
            }
            Axis::List(values) | Axis::Drawn(Distribution::Choice { values }) => {
                if values.is_empty() {
                    found.add(&place, "is empty: name at least one value");
                }
                let twice = |i: &usize| values[..*i].iter().any(|other| equal(other, &values[*i]));
                if let Some(twice) = (1..values.len()).find(twice) {
                    let first = values[..twice].iter().find(|other| equal(other, &values[twice]));
                    let (first, second) = (written(first.unwrap_or(&Value::Null)), written(&values[twice]));
                    let message = match first == second {
                        true => format!("{second} stands in the list already: remove one"),
                        false => format!("{second} is the same setting as {first}: remove one of the two"),
                    };
                    found.add(&format!("{place}.{twice}"), &message);
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

    /// What is wrong with settings that move together.
    fn group_problems(&self, place: &str, entries: &[Value], found: &mut Demands) {
        let mut labels = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            let place = format!("{place}.{i}");
            let Value::Object(table) = entry else {
                found
                    .add(&place, &format!("must be a table of dotted keys, as the others are, got {}", written(entry)));
                continue;
            };
            match table.get(LABEL) {
                None => {}
                Some(Value::String(label)) if labels.contains(label) => {
                    found.add(&format!("{place}.{LABEL}"), &format!("`{label}` is the label of another entry"));
                }
                Some(Value::String(label)) if label.is_empty() || label.chars().any(char::is_control) => {
                    found.add(&format!("{place}.{LABEL}"), "must be a word or two, on one line");
                }
                Some(Value::String(label)) => labels.push(label.clone()),
                Some(other) => {
                    found.add(&format!("{place}.{LABEL}"), &format!("must be a string, got {}", written(other)));
                }
            }
        }
    }

    /// All settings that are varied, each with the name of its axis.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.over.iter().flat_map(|(name, axis)| axis.keys(name).into_iter().map(move |key| (name.as_str(), key)))
    }

    /// Where a setting is varied, below `[sweep]`: its axis, which may have another name. `None` if it is not.
    pub fn place_of(&self, key: &str) -> Option<String> {
        let (axis, _) = self.keys().find(|(_, own)| *own == key)?;
        Some(format!("over.{}", quoted(axis)))
    }

    /// The values that a condition may name for a key: those of an axis (of settings that move together, the labels), or those that
    /// a setting has in the entries of its axis. `None` for ranges; an error if nothing varies the key.
    fn values_of(&self, key: &str) -> Result<Option<Vec<Value>>, ()> {
        if let Some(axis) = self.over.get(key) {
            let values = axis.values();
            return Ok(values.map(|values| match axis.is_group() {
                true => values.iter().filter_map(|entry| entry.get(LABEL)).cloned().collect(),
                false => values.to_vec(),
            }));
        }
        let groups = self.over.values().filter(|axis| axis.is_group()).filter_map(Axis::values).flatten();
        let values: Vec<Value> = groups.filter_map(|entry| entry.get(key)).cloned().collect();
        if values.is_empty() { Err(()) } else { Ok(Some(values)) }
    }

    fn condition_problems(&self, place: &str, condition: &Condition, found: &mut Demands) {
        if condition.is_empty() {
            found.add(place, "names no key: it would hold for every cell");
        }
        for (key, values) in condition {
            let place = format!("{place}.{}", quoted(key));
            match self.values_of(key) {
                Err(()) => found.add(&place, &self.not_varied(key)),
                Ok(Some(list)) => {
                    let never = |value: &&Value| !list.iter().any(|other| equal(value, other));
                    if let Some(value) = values.iter().find(never) {
                        found.add(&place, &format!("{value} is not one of its values in `over`"));
                    }
                }
                Ok(None) => found.add(&place, "is drawn from a range: a condition needs a key with a list of values"),
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

impl Axis {
    /// The values that are listed; `None` for a range.
    pub(super) fn values(&self) -> Option<&[Value]> {
        match self {
            Axis::List(values) | Axis::Drawn(Distribution::Choice { values }) => Some(values),
            Axis::Drawn(_) => None,
        }
    }

    /// Whether each entry sets several keys: a table of dotted keys is one, since no table of settings has such keys.
    pub(super) fn is_group(&self) -> bool {
        let dotted = |entry: &Value| entry.as_object().is_some_and(|table| table.keys().any(|key| key.contains('.')));
        self.values().is_some_and(|values| values.iter().any(dotted))
    }

    /// The settings that it varies; `name` is its own.
    pub(super) fn keys<'a>(&'a self, name: &'a str) -> BTreeSet<&'a str> {
        if !self.is_group() {
            return BTreeSet::from([name]);
        }
        let entries = self.values().unwrap_or_default().iter().filter_map(Value::as_object);
        entries.flat_map(|table| table.keys()).map(String::as_str).filter(|key| *key != LABEL).collect()
    }
}

/// Whether two values are the same setting: `1` and `1.0` are, in lists and tables too.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            let same = |(key, a): (&String, &Value)| b.get(key).is_some_and(|b| equal(a, b));
            a.len() == b.len() && a.iter().all(same)
        }
        _ => a == b,
    }
}

/// A value, for people.
pub(super) fn written(value: &Value) -> String {
    format!("`{value}`")
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
struct Demands(Vec<Problem>);

impl Demands {
    fn add(&mut self, place: &str, message: &str) {
        self.0.push(Problem { place: place.into(), message: message.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(config: Value) -> Vec<String> {
        let config: SweepConfig = serde_json::from_value(config).unwrap();
        config.problems().into_iter().map(|p| p.place.to_string()).collect()
    }

    #[test]
    fn a_sweep_that_makes_sense_has_no_problems() {
        let random = json!({ "kind": "random", "draws": 3 });
        let over = json!({ "a.b": [1, 2], "c": { "kind": "log_uniform", "low": 1e-4, "high": 1e-2 } });
        assert_eq!(places(json!({ "over": over, "strategy": random, "when": { "c": { "a.b": [1.0] } } })), [""; 0]);
        assert_eq!(places(json!({ "seeds": [1, 2] })), [""; 0]);
    }

    #[test]
    fn settings_that_move_together_are_told_from_tables_of_settings() {
        let sizes = json!([{ "label": "small", "a.b": 1, "a.c": 2 }, { "a.b": 3 }]);
        let when = json!({ "d": { "size": ["small"] }, "e": { "a.b": [3.0] } });
        assert_eq!(places(json!({ "over": { "size": sizes, "d": [1, 2], "e": [1, 2] }, "when": when })), [""; 0]);
        let config = json!({ "over": { "size": sizes, "x": [{ "kind": "y" }, { "kind": "z" }] } });
        let config: SweepConfig = serde_json::from_value(config).unwrap();
        let keys: Vec<(&str, &str)> = config.keys().collect();
        assert_eq!(keys, [("size", "a.b"), ("size", "a.c"), ("x", "x")]);
    }

    #[test]
    fn equal_values_are_named() {
        let message = |values: Value| {
            let config: SweepConfig = serde_json::from_value(json!({ "over": { "a": values } })).unwrap();
            config.problems().into_iter().map(|problem| problem.message).collect::<Vec<_>>()
        };
        assert_eq!(message(json!([0, 0.0])), ["`0.0` is the same setting as `0`: remove one of the two"]);
        assert_eq!(message(json!(["x", "x"])), [r#"`"x"` stands in the list already: remove one"#]);
        assert_eq!(message(json!([[1], [1.0]])).len(), 1);
        assert_eq!(message(json!([{ "kind": "x", "y": 2 }, { "y": 2.0, "kind": "x" }])).len(), 1);
        assert_eq!(message(json!([9_007_199_254_740_993_i64, 9_007_199_254_740_992_i64, "1", 1, true])), [""; 0]);
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
            (json!({ "over": { "a": [1, 2] }, "seeds": [3], "restarts": true }), vec!["restarts"]),
            (
                json!({ "seeds": [3, 4], "restarts": true, "halving": { "budget": "train.epochs", "least": 1 } }),
                vec!["halving"],
            ),
            (
                json!({ "over": { "a.b": [1, 2], "s": [{ "a.b": 1, "seed": 3, "label": 4 }, { "c.d": 1, "label": "x" }, 7] } }),
                vec![r#"over."s""#, r#"over."s".0.label"#, r#"over."s".2"#, r#"over."s""#],
            ),
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
