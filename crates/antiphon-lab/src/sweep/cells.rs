//! The cells of a sweep: its combinations of settings.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_core::random::Key;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::{Axis, Condition, Distribution, LABEL, RandomConfig, SweepConfig, SweepStrategy, equal};

/// One combination of settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Its number, counted from 1.
    pub number: usize,
    /// What it sets, by dotted key.
    pub settings: BTreeMap<String, Value>,
    /// The labels of settings that move together, by the name of their axis.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The settings for which a label stands.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) labelled: BTreeSet<String>,
}

impl Cell {
    /// What it sets, for people: `model.encoder.hidden=64 search.width=5`; a label stands for its settings: `size=small`.
    pub fn label(&self) -> String {
        let labels = self.labels.iter().map(|(axis, label)| format!("{axis}={label}"));
        let settings = self.settings.iter().filter(|(key, _)| !self.labelled.contains(*key)).map(assignment);
        let all: Vec<String> = labels.chain(settings).collect();
        if all.is_empty() { "the config as it is".into() } else { all.join(" ") }
    }

    /// What each label stands for: `size=small` and `model.decoder.hidden=128 model.encoder.hidden=64`.
    fn legend(&self, config: &SweepConfig) -> impl Iterator<Item = (String, String)> {
        self.labels.iter().map(|(axis, label)| {
            let keys = config.over.get(axis).map(|values| values.keys(axis)).unwrap_or_default();
            let of_axis = self.settings.iter().filter(|(key, _)| keys.contains(key.as_str())).map(assignment);
            (format!("{axis}={label}"), of_axis.collect::<Vec<_>>().join(" "))
        })
    }

    /// A cell of what was chosen on each axis.
    fn new(number: usize, config: &SweepConfig, chosen: BTreeMap<String, Value>) -> Self {
        let mut cell = Self { number, settings: BTreeMap::new(), labels: BTreeMap::new(), labelled: BTreeSet::new() };
        for (axis, value) in chosen {
            match value {
                Value::Object(mut table) if config.over[&axis].is_group() => {
                    if let Some(Value::String(label)) = table.remove(LABEL) {
                        cell.labels.insert(axis, label);
                        cell.labelled.extend(table.keys().cloned());
                    }
                    cell.settings.extend(table);
                }
                value => drop(cell.settings.insert(axis, value)),
            }
        }
        cell
    }
}

fn assignment((key, value): (&String, &Value)) -> String {
    format!("{key}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// What the labels of some cells stand for, each once.
pub(super) fn legend(config: &SweepConfig, cells: &[Cell]) -> BTreeMap<String, String> {
    cells.iter().flat_map(|cell| cell.legend(config)).collect()
}

/// The cells of a sweep without [problems](SweepConfig::problems), all different. In a grid the last key, in
/// alphabetical order, changes fastest.
pub fn cells(config: &SweepConfig) -> Vec<Cell> {
    let combinations = match &config.strategy {
        SweepStrategy::Grid(_) => grid(config),
        SweepStrategy::Random(random) => {
            (0..random.draws).map(|number| drawn_settings(config, random, number as u64)).collect()
        }
    };
    let mut cells: Vec<Cell> = Vec::new();
    for mut chosen in combinations {
        while let Some(idle) = idle(config, &chosen) {
            chosen.remove(&idle);
        }
        let cell = Cell::new(cells.len() + 1, config, chosen.clone());
        let skipped = config.skip.iter().any(|condition| holds(condition, &chosen));
        if !skipped && !cells.iter().any(|other| other.settings == cell.settings) {
            cells.push(cell);
        }
    }
    cells
}

fn grid(config: &SweepConfig) -> Vec<BTreeMap<String, Value>> {
    let mut combinations = vec![BTreeMap::new()];
    for (key, axis) in &config.over {
        let Axis::List(values) = axis else { continue };
        let with = |one: &BTreeMap<String, Value>, value: &Value| {
            let mut one = one.clone();
            one.insert(key.clone(), value.clone());
            one
        };
        combinations = combinations.iter().flat_map(|one| values.iter().map(move |value| with(one, value))).collect();
    }
    combinations
}

/// The settings of draw `number`: each key is drawn on its own, so that another key, or more draws, change nothing of it.
fn drawn_settings(config: &SweepConfig, random: &RandomConfig, number: u64) -> BTreeMap<String, Value> {
    let root = Key::from_seed(random.seed).named("sweep");
    config.over.iter().map(|(key, axis)| (key.clone(), value(axis, root.named(key), number))).collect()
}

fn value(axis: &Axis, key: Key, number: u64) -> Value {
    let between = |low: f64, high: f64| low + (high - low) * key.uniform(number);
    match axis {
        Axis::List(values) | Axis::Drawn(Distribution::Choice { values }) => {
            values[key.below(number, values.len() as u64) as usize].clone()
        }
        &Axis::Drawn(Distribution::Uniform { low, high }) => rounded(between(low, high), low, high).into(),
        &Axis::Drawn(Distribution::LogUniform { low, high }) => {
            rounded(between(low.ln(), high.ln()).exp(), low, high).into()
        }
        &Axis::Drawn(Distribution::Integer { low, high }) => {
            let offset = key.below(number, low.abs_diff(high).saturating_add(1));
            low.saturating_add_unsigned(offset).into()
        }
    }
}

/// Four significant digits, within the bounds.
fn rounded(value: f64, low: f64, high: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value).clamp(low, high)
}

/// A key that is set although its condition does not hold.
fn idle(config: &SweepConfig, settings: &BTreeMap<String, Value>) -> Option<String> {
    let idle = |key: &&String| config.when.get(*key).is_some_and(|condition| !holds(condition, settings));
    settings.keys().find(idle).cloned()
}

fn holds(condition: &Condition, settings: &BTreeMap<String, Value>) -> bool {
    // Of settings that move together, an axis has its label, and each of its settings a value.
    let inside = |key: &str| settings.values().find_map(|entry| entry.get(key));
    let own = |key: &String| settings.get(key).map_or_else(|| inside(key), |own| own.get(LABEL).or(Some(own)));
    let one_of =
        |(key, values): (&String, &Vec<Value>)| own(key).is_some_and(|own| values.iter().any(|v| equal(v, own)));
    condition.iter().all(one_of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(config: Value) -> Vec<Cell> {
        let config: SweepConfig = serde_json::from_value(config).unwrap();
        assert_eq!(config.problems(), []);
        cells(&config)
    }

    fn labels(config: Value) -> Vec<String> {
        of(config).iter().map(Cell::label).collect()
    }

    #[test]
    fn a_grid_has_every_combination_once() {
        let all = of(json!({ "over": { "a": [1, 2, 3], "b.c": ["x", "y"], "d": [true, false], "e": [[1], [1, 2]] } }));
        assert_eq!(all.len(), 3 * 2 * 2 * 2);
        for (i, cell) in all.iter().enumerate() {
            assert_eq!((cell.number, cell.settings.len()), (i + 1, 4));
            assert!(all[..i].iter().all(|other| other.settings != cell.settings));
        }
        assert_eq!(
            labels(json!({ "over": { "b": ["x", "y"], "a": [1, 2] } })),
            ["a=1 b=x", "a=1 b=y", "a=2 b=x", "a=2 b=y"]
        );
        assert_eq!(labels(json!({ "seeds": [1, 2] })), ["the config as it is"]);
    }

    #[test]
    fn a_key_under_a_condition_is_varied_only_where_it_holds() {
        let over = json!({ "search.kind": ["beam", "greedy"], "search.width": [3, 5], "deep": [1, 2] });
        let when = json!({ "search.width": { "search.kind": ["beam"] }, "deep": { "search.width": [5] } });
        assert_eq!(
            labels(json!({ "over": over, "when": when })),
            [
                "search.kind=beam search.width=3",
                "deep=1 search.kind=beam search.width=5",
                "search.kind=greedy",
                "deep=2 search.kind=beam search.width=5"
            ]
        );
    }

    #[test]
    fn cells_that_meet_a_whole_entry_of_skip_are_left_out() {
        let over = json!({ "a": [1, 2], "b": [1, 2, 3] });
        let skip = json!([{ "a": [1], "b": [2, 3] }, { "b": [1], "a": [2.0] }]);
        assert_eq!(labels(json!({ "over": over, "skip": skip })), ["a=1 b=1", "a=2 b=2", "a=2 b=3"]);
    }

    #[test]
    fn settings_that_move_together_are_one_axis() {
        let over = json!({
            "size": [{ "label": "small", "e.h": 1, "d.h": 2 }, { "e.h": 3, "d.h": 4 }], "f": [5, 6], "g": [7, 8],
        });
        let when = json!({ "f": { "size": ["small"] }, "g": { "d.h": [4] } });
        let all = of(json!({ "over": over, "when": when }));
        let labels: Vec<String> = all.iter().map(Cell::label).collect();
        assert_eq!(labels, ["size=small f=5", "d.h=4 e.h=3 g=7", "d.h=4 e.h=3 g=8", "size=small f=6"]);
        assert_eq!(
            all[0].settings,
            BTreeMap::from([("d.h", 2), ("e.h", 1), ("f", 5)].map(|(k, v)| (k.into(), v.into())))
        );
        let config: SweepConfig = serde_json::from_value(json!({ "over": over })).unwrap();
        assert_eq!(legend(&config, &all), BTreeMap::from([("size=small".into(), "d.h=2 e.h=1".into())]));
    }

    fn random(draws: u64, seed: u64, over: Value) -> Vec<Cell> {
        of(json!({ "strategy": { "kind": "random", "draws": draws, "seed": seed }, "over": over }))
    }

    #[test]
    fn draws_depend_on_seed_key_and_number_alone() {
        let rate = json!({ "kind": "log_uniform", "low": 1e-4, "high": 1e-1 });
        let few = random(5, 7, json!({ "rate": rate }));
        let many = random(50, 7, json!({ "a": [1, 2], "rate": rate, "z": { "kind": "integer", "low": 1, "high": 9 } }));
        for (one, other) in few.iter().zip(&many) {
            assert_eq!(one.settings["rate"], other.settings["rate"]);
        }
        assert_ne!(few, random(5, 8, json!({ "rate": rate })));
    }

    #[test]
    fn draws_follow_their_distributions() {
        let over = json!({
            "u": { "kind": "uniform", "low": -1.0, "high": 3.0 }, "l": { "kind": "log_uniform", "low": 1e-4, "high": 1.0 },
            "i": { "kind": "integer", "low": -2, "high": 2 }, "c": { "kind": "choice", "values": ["x", "y", "z"] },
        });
        let all = random(4000, 1, over);
        let numbers = |key: &str| all.iter().map(|c| c.settings[key].as_f64().unwrap()).collect::<Vec<f64>>();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (u, l, i) = (numbers("u"), numbers("l"), numbers("i"));
        assert!(u.iter().all(|v| (-1.0..=3.0).contains(v)) && (mean(&u) - 1.0).abs() < 0.08);
        assert!(l.iter().all(|v| (1e-4..=1.0).contains(v)));
        let logs: Vec<f64> = l.iter().map(|v| v.log10()).collect();
        assert!((mean(&logs) + 2.0).abs() < 0.08);
        assert!(mean(&i).abs() < 0.1 && (-2..=2).all(|n| i.contains(&f64::from(n))) && all[0].settings["i"].is_i64());
        let share = |word: &str| all.iter().filter(|c| c.settings["c"] == word).count() as f64 / all.len() as f64;
        assert!(["x", "y", "z"].iter().all(|word| (share(word) - 1.0 / 3.0).abs() < 0.04));
    }

    #[test]
    fn equal_draws_are_one_cell() {
        let all = random(100, 3, json!({ "a": [1, 2] }));
        assert_eq!(all.len(), 2);
    }
}
