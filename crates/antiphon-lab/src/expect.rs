//! What a config promises, and whether a run keeps it.

use std::collections::BTreeMap;

use antiphon_core::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::results::minutes;
use crate::run::Run;
use crate::table::aligned;

/// What a run of this config is expected to give. It decides nothing of the run; `reproduce` holds it against one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExpectConfig {
    /// Figures on the splits.
    pub figures: Vec<ExpectedFigure>,
    /// The SHA-256 of files that the config names, in hexadecimal; the first 8 digits or more.
    #[schemars(extend("additionalProperties" = {"type": "string", "minLength": 8, "maxLength": 64, "examples": ["7b0e31a7"]}))]
    pub data: BTreeMap<String, String>,
    /// Minutes of work, over all cores.
    pub core_minutes: Option<ExpectedTime>,
    /// Minutes on the clock.
    pub minutes: Option<ExpectedTime>,
}

/// A figure that a run should give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedFigure {
    /// On what it is measured.
    pub split: ExpectedSplit,
    /// A metric's label in the results, or a loss: `loss_per_token`, `loss_per_character`, `perplexity`, `token_accuracy`.
    #[schemars(example = &"loss_per_token")]
    pub metric: String,
    /// The figure.
    pub value: f64,
    /// How far a run may be from it, on either side.
    #[schemars(range(min = 0.0))]
    pub tolerance: f64,
    /// Whether a run may be better by any amount. If not, one that is better than the tolerance allows has not been
    /// reproduced either.
    #[serde(default)]
    pub better_is_fine: bool,
}

/// A split with figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExpectedSplit {
    /// What choices are made on.
    Validation,
    /// What is reported.
    Test,
}

impl ExpectedSplit {
    /// Its name in results.
    pub const fn name(self) -> &'static str {
        match self {
            ExpectedSplit::Validation => "validation",
            ExpectedSplit::Test => "test",
        }
    }
}

/// How long a run should take. Machines differ: only one that takes far longer has not kept it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedTime {
    /// The time, in minutes.
    #[schemars(range(min = 0.0))]
    pub value: f64,
    /// How many times as long it may take.
    #[serde(default = "three")]
    #[schemars(range(min = 1.0))]
    pub factor: f64,
}

const fn three() -> f64 {
    3.0
}

/// Something expected, beside what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What it is about.
    pub what: String,
    /// What was expected.
    pub expected: String,
    /// What there is.
    pub measured: String,
    /// Whether it is as expected.
    pub met: bool,
}

impl ExpectConfig {
    /// Everything that cannot be held against a run. `known` are the labels of its figures; places are keys below `[expect]`.
    pub fn problems(&self, known: &[String]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |place: String, message: String| problems.push(Problem { place: place.into(), message });
        for (i, figure) in self.figures.iter().enumerate() {
            let place = |key: &str| format!("figures.{i}.{key}");
            if !known.contains(&figure.metric) {
                let known: Vec<String> = known.iter().map(|label| format!("`{label}`")).collect();
                let message = format!("results have no `{}`; they have {}", figure.metric, known.join(", "));
                add(place("metric"), message);
            }
            if !figure.value.is_finite() || !figure.tolerance.is_finite() {
                add(place("value"), "value and tolerance must be finite".into());
            }
        }
        for (file, digest) in &self.data {
            if digest.len() < 8 || digest.len() > 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
                let place = format!("data.{}", serde_json::Value::from(file.as_str()));
                add(place, format!("must be 8 to 64 hexadecimal digits, got `{digest}`"));
            }
        }
        problems
    }

    /// Holds everything against a finished run.
    ///
    /// # Errors
    /// If its files cannot be read.
    pub fn verdicts(&self, run: &Run, lower_is_better: &dyn Fn(&str) -> bool) -> Result<Vec<Verdict>> {
        let (results, manifest) = (run.results()?, run.manifest()?);
        let mut verdicts = Vec::new();
        for expected in &self.figures {
            let split = results.as_ref().and_then(|r| r.splits().find(|(name, _)| *name == expected.split.name()));
            let value = split.and_then(|(_, split)| split.value(&expected.metric));
            verdicts.push(expected.verdict(value, lower_is_better(&expected.metric)));
        }
        for (file, digest) in &self.data {
            let found = manifest.data.get(file);
            let met = found.is_some_and(|found| found.starts_with(&digest.to_lowercase()));
            let short = |digest: &str| digest.chars().take(8).collect::<String>();
            let measured = found.map_or("not read".into(), |found| short(found));
            verdicts.push(Verdict { what: format!("data {file}"), expected: short(digest), measured, met });
        }
        let times = [
            ("core-minutes", &self.core_minutes, manifest.cpu_seconds),
            ("minutes", &self.minutes, manifest.wall_seconds),
        ];
        for (what, expected, seconds) in times {
            if let Some(ExpectedTime { value, factor }) = expected {
                verdicts.push(Verdict {
                    what: what.into(),
                    expected: format!("{value:.1}, at most x{factor}"),
                    measured: minutes(seconds),
                    met: seconds / 60.0 <= value * factor,
                });
            }
        }
        Ok(verdicts)
    }
}

impl ExpectedFigure {
    fn verdict(&self, measured: Option<f64>, lower_is_better: bool) -> Verdict {
        let Self { split, metric, value, tolerance, better_is_fine } = self;
        // A hair more, because 33.10 + 0.05 is no exact sum.
        let allowed = tolerance + 1e-9 * value.abs();
        let met = measured.is_some_and(|measured| {
            let better = if lower_is_better { measured < *value } else { measured > *value };
            (measured - value).abs() <= allowed || (*better_is_fine && better)
        });
        let how = if *better_is_fine { " or better" } else { "" };
        Verdict {
            what: format!("{} {metric}", split.name()),
            expected: format!("{value} ± {tolerance}{how}"),
            measured: measured.map_or("not measured".into(), |measured| format!("{measured:.4}")),
            met,
        }
    }
}

/// One table over several runs: a line for everything expected.
pub fn verdict_table(runs: &[(String, Vec<Verdict>)]) -> String {
    let head = ["", "expected", "measured", ""].map(String::from).to_vec();
    let mut rows = vec![head];
    for (run, verdicts) in runs {
        rows.push(vec![run.clone()]);
        for Verdict { what, expected, measured, met } in verdicts {
            let met = if *met { "met" } else { "NOT MET" };
            rows.push(vec![format!("  {what}"), expected.clone(), measured.clone(), met.into()]);
        }
    }
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::Runs;
    use crate::testing::{identity, results};

    fn figure(value: f64, tolerance: f64, better_is_fine: bool) -> ExpectedFigure {
        let (split, metric) = (ExpectedSplit::Test, "sequence_error_rate".into());
        ExpectedFigure { split, metric, value, tolerance, better_is_fine }
    }

    #[test]
    fn a_figure_is_met_on_either_side_within_its_tolerance() {
        let expected = figure(33.1, 0.5, false);
        for (measured, met) in [(33.1, true), (33.6, true), (32.6, true), (33.61, false), (32.59, false)] {
            assert_eq!(expected.verdict(Some(measured), true).met, met, "{measured}");
        }
        assert!(!expected.verdict(None, true).met);
        assert!(!expected.verdict(Some(f64::NAN), true).met);
    }

    #[test]
    fn better_is_fine_only_where_it_says_so_and_in_the_metrics_direction() {
        let expected = figure(33.1, 0.5, true);
        assert!(expected.verdict(Some(20.0), true).met && !expected.verdict(Some(40.0), true).met);
        assert!(!expected.verdict(Some(20.0), false).met && expected.verdict(Some(40.0), false).met);
    }

    #[test]
    fn a_run_is_held_against_all_that_was_expected() {
        let folder = tempfile::tempdir().unwrap();
        let mut own = identity("one");
        own.data = BTreeMap::from([("train.tsv".into(), "0123456789abcdef".into())]);
        let run = Runs::new(folder.path()).create(&own, false).unwrap();
        run.write_results(&results(24.5)).unwrap();
        run.update_manifest(|m| (m.cpu_seconds, m.wall_seconds) = (330.0, 171.0)).unwrap();
        let expect = ExpectConfig {
            figures: vec![figure(24.5, 0.1, false), figure(25.0, 0.1, false)],
            data: BTreeMap::from([("train.tsv".into(), "01234567".into()), ("test.tsv".into(), "00000000".into())]),
            core_minutes: Some(ExpectedTime { value: 2.0, factor: 3.0 }),
            minutes: Some(ExpectedTime { value: 1.0, factor: 2.0 }),
        };
        let verdicts = expect.verdicts(&run, &|_| true).unwrap();
        let met: Vec<(&str, bool)> = verdicts.iter().map(|v| (v.what.as_str(), v.met)).collect();
        assert_eq!(
            met,
            [
                ("test sequence_error_rate", true),
                ("test sequence_error_rate", false),
                ("data test.tsv", false),
                ("data train.tsv", true),
                ("core-minutes", true),
                ("minutes", false)
            ]
        );
        let table = verdict_table(&[(run.name(), verdicts)]);
        assert!(table.contains("25 ± 0.1") && table.matches("NOT MET").count() == 3, "{table}");
    }

    #[test]
    fn what_cannot_be_held_against_a_run_is_a_problem() {
        let mut expect = ExpectConfig { figures: vec![figure(1.0, 0.1, false)], ..Default::default() };
        expect.data.insert("a.tsv".into(), "xyz".into());
        let places = |known: &[&str]| {
            let known: Vec<String> = known.iter().map(|k| k.to_string()).collect();
            expect.problems(&known).into_iter().map(|p| p.place.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(places(&["bleu"]), ["figures.0.metric", r#"data."a.tsv""#]);
        assert_eq!(places(&["sequence_error_rate"]), [r#"data."a.tsv""#]);
    }
}
