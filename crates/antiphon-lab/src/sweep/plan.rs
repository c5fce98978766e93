//! From a sweep file to runs that can begin: every cell is checked before the first one starts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use antiphon_config::{Origin, Tree};
use antiphon_core::{Error, Problem, Result};
use serde_json::Value;

use super::cells::{Cell, cells, legend};
use super::config::{Budget, HalvingConfig, SweepConfig, written};
use super::halving::Halving;
use crate::identity::Identity;

/// Who knows what the settings mean.
pub trait Meaning {
    /// Checks a config.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    fn check(&self, tree: &Tree) -> Result<Checked>;

    /// The experiment that some [settings](Checked::settings) describe; reads its data.
    ///
    /// # Errors
    /// If its files are missing or broken.
    fn identify(&self, settings: &Value) -> Result<Identity>;
}

/// A config without problems.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What its run is called.
    pub name: String,
    /// Its settings, as a config of its own: a JSON object, which a plan hands on to the [run](PlannedRun::settings).
    pub settings: Value,
    /// The [digest](crate::digest_of) of all that its figures depend on, defaults filled in: configs with equal ones are the same
    /// experiment.
    pub decisive: String,
    /// The same without whatever has no effect: configs with equal ones give the same figures.
    pub effective: String,
    /// Whether it has a validation split.
    pub has_validation: bool,
    /// Whether it has a test split.
    pub has_test: bool,
    /// The figures that it gives on a split.
    pub figures: BTreeMap<String, Figure>,
    /// The figure by which models are compared while training.
    pub compared_by: String,
    /// How many steps and epochs it lasts.
    pub steps: Option<u64>,
    /// How many epochs it lasts.
    pub epochs: Option<u64>,
    /// After how many steps it is validated first, if steps are counted for that.
    pub validated_steps: Option<u64>,
    /// After how many epochs it is validated first, if epochs are counted for that.
    pub validated_epochs: Option<u64>,
    /// What is valid but has no effect.
    pub warnings: Vec<Problem>,
}

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// Whether a smaller one is better.
    pub lower_is_better: bool,
    /// Whether it is measured at every validation while training, not only at the end.
    pub while_training: bool,
}

impl Checked {
    fn length(&self, budget: Budget) -> Option<u64> {
        match budget {
            Budget::Steps => self.steps,
            Budget::Epochs => self.epochs,
        }
    }

    fn validated(&self, budget: Budget) -> Option<u64> {
        match budget {
            Budget::Steps => self.validated_steps,
            Budget::Epochs => self.validated_epochs,
        }
    }
}

/// A sweep that can begin.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The sweep file.
    pub file: PathBuf,
    /// What it is called.
    pub name: String,
    /// `[sweep]`.
    pub config: SweepConfig,
    /// Its cells.
    pub cells: Vec<Cell>,
    /// The runs of all cells, the seeds of a cell behind each other.
    pub runs: Vec<PlannedRun>,
    /// The figure on the validation split by which cells are compared.
    pub metric: String,
    /// Whether a smaller one is better.
    pub lower_is_better: bool,
    /// Whether there is a test split, which the chosen cell is measured on, or with restarts every cell.
    pub has_test: bool,
    /// How far a run is at each rung of a halving sweep.
    pub rungs: Vec<u64>,
    /// What is valid but perhaps not meant.
    pub warnings: Vec<Problem>,
}

/// A cell with a seed.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedRun {
    /// Its name within the sweep: `03-seed-1`.
    pub name: String,
    /// The place of its cell in [`Plan::cells`].
    pub cell: usize,
    /// Its seed.
    pub seed: u64,
    /// Its config.
    pub settings: Value,
}

impl Plan {
    /// Reads the sweep in `file`, with assignments from the command line, and checks every cell.
    ///
    /// # Errors
    /// With all that is wrong with the sweep, or else with all that is wrong with its cells.
    pub fn read(file: &Path, sets: &[String], meaning: &dyn Meaning) -> Result<Self> {
        Self::of(&Tree::load(file, sets)?, meaning)
    }

    /// The same for what several layers say together.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of(tree: &Tree, meaning: &dyn Meaning) -> Result<Self> {
        let mut base = tree.clone();
        base.take("expect");
        let Some(section) = base.take("sweep") else {
            let message =
                "has no `[sweep]`: add one that names keys and values, or give it to `run`, as a single experiment";
            return Err(Error::new(message).in_file(tree.file()));
        };
        let config = match section.read::<SweepConfig>() {
            Ok(config) if config.problems().is_empty() => config,
            // The check of the whole file says what is wrong with the sweep, and with all else.
            wrong => {
                meaning.check(tree)?;
                let problems = wrong?.problems().into_iter().map(|p| section.placed(p)).collect();
                return Err(Error::many(tree.file(), problems));
            }
        };
        let mut cells = cells(&config);
        if cells.is_empty() {
            let problem = section.problem("skip", "leaves out every cell: remove an entry");
            return Err(Error::many(tree.file(), vec![problem]));
        }
        let (mut runs, mut checked) = check_cells(tree, &base, &config, &cells, meaning).or_else(|error| {
            // Whoever knows the settings may know better what is wrong with the sweep.
            meaning.check(tree).and(Err(error))
        })?;
        let merged = merge(&section, &config, &mut cells, &mut runs, &mut checked)?;
        let first = &checked[0];
        let metric = config.metric.clone().unwrap_or_else(|| first.compared_by.clone());
        let mut plan = Self {
            file: tree.file().to_path_buf(),
            name: first.name.clone(),
            lower_is_better: first.figures.get(&metric).is_none_or(|figure| figure.lower_is_better),
            has_test: if config.restarts { checked.iter().all(|c| c.has_test) } else { first.has_test },
            rungs: Vec::new(),
            warnings: merged,
            config,
            cells,
            runs,
            metric,
        };
        let mut problems = plan.metric_problems(&section, &checked);
        problems.extend(plan.find_rungs(&section, &checked));
        if !problems.is_empty() {
            return Err(Error::many(tree.file(), problems));
        }
        let warnings = plan.find_warnings(&section, &checked);
        plan.warnings.extend(warnings);
        Ok(plan)
    }

    /// Finds out how far a run is at each rung, if the sweep halves; gives what is wrong with that.
    fn find_rungs(&mut self, section: &Tree, checked: &[Checked]) -> Vec<Problem> {
        let Some(HalvingConfig { budget, least, eta }) = self.config.halving else { return Vec::new() };
        let mut problems = Vec::new();
        let mut add = |key: &str, message: String| problems.push(section.problem(key, message));
        let most = checked.iter().map(|c| c.length(budget)).collect::<Option<Vec<u64>>>();
        match most.as_deref() {
            Some([most, rest @ ..]) if rest.iter().all(|other| other == most) => {
                self.rungs = Halving::budgets(least, eta, *most);
                if least >= *most {
                    add("halving.least", format!("must be below `{}` ({most}), got {least}", budget.key()));
                }
            }
            _ => {
                add("halving.budget", format!("set `{}` to one value: it is the most that a cell trains", budget.key()))
            }
        }
        if let Some(first) = checked.iter().filter_map(|c| c.validated(budget)).find(|&first| first > least) {
            add("halving.least", format!("cells are judged by a validation, and the first comes only after {first}"));
        }
        problems
    }

    /// Whether every cell gives the figure by which cells are compared.
    fn metric_problems(&self, section: &Tree, checked: &[Checked]) -> Vec<Problem> {
        if !checked.iter().all(|c| c.has_validation) {
            return vec![
                section.problem("metric", "cells are compared on the validation split: set `data.validation`"),
            ];
        }
        let Some(lacking) = checked.iter().find(|c| {
            let figure = c.figures.get(&self.metric);
            figure.is_none_or(|figure| !figure.while_training && self.config.halving.is_some())
        }) else {
            return Vec::new();
        };
        if lacking.figures.contains_key(&self.metric) {
            let message = format!(
                "`{}` is not measured while training, and halving needs it there: set `evaluate.validation_examples`",
                self.metric
            );
            return vec![section.problem("metric", message)];
        }
        let known: Vec<String> = lacking.figures.keys().map(|name| format!("`{name}`")).collect();
        let message = format!("the validation split gives no `{}`; it gives {}", self.metric, known.join(", "));
        vec![section.problem("metric", message)]
    }

    fn find_warnings(&self, section: &Tree, checked: &[Checked]) -> Vec<Problem> {
        let mut found = Shared::default();
        for (run, checked) in self.runs.iter().zip(checked) {
            checked.warnings.iter().for_each(|warning| found.add(&self.cells[run.cell], warning.clone()));
        }
        let mut warnings = found.problems(&self.cells);
        warnings.extend(self.doubled(section, checked));
        let tokens = ["loss", "perplexity", "token_accuracy"].contains(&self.metric.as_str());
        // How running text is cut makes no other tokens of it.
        let cut = ["data.rows", "data.length", "data.jitter", "data.documents"];
        let other = |key: &str| key.starts_with("tokenizer.") || key.starts_with("data.") && !cut.contains(&key);
        if tokens && !self.config.restarts && self.config.keys().any(|(_, key)| other(key)) {
            let message =
                format!("`{}` says nothing between different tokenizers: use `loss_per_character`", self.metric);
            warnings.push(section.problem("metric", message));
        }
        warnings
    }

    /// The runs that only repeat others, because what sets their cells apart has no effect there: a warning for each set of
    /// such keys.
    fn doubled(&self, section: &Tree, checked: &[Checked]) -> Vec<Problem> {
        let seeds = self.runs.len() / self.cells.len();
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        let mut doubled: BTreeMap<Vec<String>, Vec<(usize, usize)>> = BTreeMap::new();
        for cell in 0..self.cells.len() {
            // Of each cell the first run.
            let same = *first.entry(&checked[cell * seeds].effective).or_insert(cell);
            if same == cell {
                continue;
            }
            let (one, other) = (&self.cells[same].settings, &self.cells[cell].settings);
            let keys = one.keys().chain(other.keys()).filter(|key| one.get(*key) != other.get(*key));
            let keys: BTreeSet<String> = keys.cloned().collect();
            doubled.entry(keys.into_iter().collect()).or_default().push((cell, same));
        }
        let warning = |(keys, pairs): (Vec<String>, Vec<(usize, usize)>)| {
            let names = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            let (cell, same) = (&self.cells[pairs[0].0], &self.cells[pairs[0].1]);
            let message = format!(
                "{} of {} runs only repeat others, because {names} has no effect there: the first is cell {} ({}), which \
                 gives what cell {} gives; `[sweep.when]` says where a key is varied",
                pairs.len() * seeds,
                self.runs.len(),
                cell.number,
                cell.label(),
                same.number,
            );
            section.problem(&place_in(&self.config, &keys[0]), message)
        };
        doubled.into_iter().map(warning).collect()
    }

    /// What the labels of cells stand for: `size=small` and the settings.
    pub fn legend(&self) -> BTreeMap<String, String> {
        legend(&self.config, &self.cells)
    }

    /// The places in [`runs`](Self::runs) of a cell's runs.
    pub fn runs_of(&self, cell: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.runs.len()).filter(move |&run| self.runs[run].cell == cell)
    }
}

/// Where a setting of a cell is varied, below `[sweep]`.
fn place_in(config: &SweepConfig, key: &str) -> String {
    config.place_of(key).unwrap_or_else(|| "over".into())
}

/// The runs of all cells, each checked; problems that several cells share are one.
fn check_cells(
    whole: &Tree,
    base: &Tree,
    config: &SweepConfig,
    cells: &[Cell],
    meaning: &dyn Meaning,
) -> Result<(Vec<PlannedRun>, Vec<Checked>)> {
    let origin = |key: &str| whole.origin(key).unwrap_or(Origin::Set);
    let origin_of = |key: &String| origin(&format!("sweep.{}", place_in(config, key)));
    let keys = cells.iter().flat_map(|cell| cell.settings.keys()).collect::<BTreeSet<_>>();
    let origins: BTreeMap<&String, Origin> = keys.into_iter().map(|key| (key, origin_of(key))).collect();
    let seeds = match config.seeds.as_slice() {
        [] => vec![None],
        seeds => seeds.iter().copied().map(Some).collect(),
    };
    let width = cells.len().to_string().len();
    let (mut runs, mut all, mut wrong) = (Vec::new(), Vec::new(), Shared::default());
    for (place, cell) in cells.iter().enumerate() {
        for seed in &seeds {
            let mut tree = base.clone();
            let seed_value = seed.map(Value::from);
            let settings = cell.settings.iter().map(|(key, value)| (key.as_str(), value, origins[key].clone()));
            let seed_setting = seed_value.iter().map(|value| ("seed", value, origin("sweep.seeds")));
            let found = tree.assign(settings.chain(seed_setting)).and_then(|()| meaning.check(&tree));
            let mut checked = match found {
                Ok(checked) => checked,
                Err(error) => {
                    error.problems.into_iter().for_each(|problem| wrong.add(cell, problem));
                    continue;
                }
            };
            let seed = checked.settings.get("seed").and_then(Value::as_u64).unwrap_or(1);
            let name = format!("{:0width$}-seed-{seed}", cell.number);
            runs.push(PlannedRun { name, cell: place, seed, settings: checked.settings.take() });
            all.push(checked);
        }
    }
    if wrong.0.is_empty() { Ok((runs, all)) } else { Err(Error::many(whole.file(), wrong.problems(cells))) }
}

/// Leaves out the cells that are the same experiment as one before; gives what to say of them.
///
/// # Errors
/// If an axis names one value in two ways.
fn merge(
    section: &Tree,
    config: &SweepConfig,
    cells: &mut Vec<Cell>,
    runs: &mut Vec<PlannedRun>,
    checked: &mut Vec<Checked>,
) -> Result<Vec<Problem>> {
    let seeds = runs.len() / cells.len();
    let (mut kept, mut warnings, mut problems): (Vec<usize>, Vec<Problem>, Vec<Problem>) = Default::default();
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for cell in 0..cells.len() {
        let same = *first.entry(&checked[cell * seeds].decisive).or_insert(cell);
        if same == cell {
            kept.push(cell);
            continue;
        }
        let (one, other) = (&cells[same], &cells[cell]);
        let keys: BTreeSet<&String> = one.settings.keys().chain(other.settings.keys()).collect();
        let pairs = keys.into_iter().map(|key| (key, one.settings.get(key), other.settings.get(key)));
        match pairs.filter(|(_, one, other)| one != other).collect::<Vec<_>>()[..] {
            // Two values of one key, and nothing else.
            [(key, Some(first), Some(second))] => {
                let (first, second) = (written(first), written(second));
                let message = format!("{second} gives the same settings as {first}: remove one of the two");
                let problem = section.problem(&place_in(config, key), message);
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
            _ => {
                let (own, other) = (other.label(), one.label());
                let message = format!("{own}: these are the settings of {other}, and they are run once");
                warnings.push(section.problem("over", message));
            }
        }
    }
    if !problems.is_empty() {
        return Err(Error::many(section.file(), problems));
    }
    if kept.len() == cells.len() {
        return Ok(warnings);
    }
    let width = kept.len().to_string().len();
    let place: BTreeMap<usize, usize> = kept.iter().enumerate().map(|(new, &old)| (old, new)).collect();
    let mut all = std::mem::take(checked).into_iter();
    runs.retain_mut(|run| {
        let found = all.next();
        let Some(&new) = place.get(&run.cell) else { return false };
        checked.extend(found);
        (run.cell, run.name) = (new, format!("{:0width$}-seed-{}", new + 1, run.seed));
        true
    });
    let all = std::mem::take(cells).into_iter().enumerate();
    cells.extend(all.filter_map(|(old, cell)| Some(Cell { number: place.get(&old)? + 1, ..cell })));
    Ok(warnings)
}

/// Problems that several cells share, each with the cells that have it.
#[derive(Default)]
struct Shared(Vec<(Problem, Vec<usize>)>);

impl Shared {
    fn add(&mut self, cell: &Cell, problem: Problem) {
        match self.0.iter_mut().find(|(known, _)| *known == problem) {
            Some((_, cells)) if cells.last() == Some(&cell.number) => {}
            Some((_, cells)) => cells.push(cell.number),
            None => self.0.push((problem, vec![cell.number])),
        }
    }

    fn problems(self, cells: &[Cell]) -> Vec<Problem> {
        let say = |(problem, numbers): (Problem, Vec<usize>)| {
            if numbers.len() == cells.len() {
                return problem;
            }
            let first = cells[numbers[0] - 1].label();
            let message = match numbers.len() {
                1 => format!("{} (in the cell {first})", problem.message),
                count => format!("{} (in {count} of {} cells, the first is {first})", problem.message, cells.len()),
            };
            Problem { message, ..problem }
        };
        self.0.into_iter().map(say).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::digest_of;
    use serde_json::json;

    /// For whom `x.a` and `x.b` are two names of one setting, which hardly matters.
    struct Sum;

    impl Meaning for Sum {
        fn check(&self, tree: &Tree) -> Result<Checked> {
            let value = tree.value();
            let number = |key: &str| value["x"][key].as_f64().unwrap_or_default();
            Ok(Checked {
                name: "sum".into(),
                settings: json!({ "seed": value["seed"], "x": value["x"] }),
                decisive: digest_of(&json!([number("a") + number("b"), value["seed"]])),
                effective: digest_of(&json!(number("a") + number("b") > 2.0)),
                has_validation: true,
                has_test: false,
                figures: BTreeMap::from([("loss".into(), Figure { lower_is_better: true, while_training: true })]),
                compared_by: "loss".into(),
                steps: None,
                epochs: Some(1),
                validated_steps: None,
                validated_epochs: Some(1),
                warnings: Vec::new(),
            })
        }

        fn identify(&self, _: &Value) -> Result<Identity> {
            unreachable!("nothing runs")
        }
    }

    fn plan(over: &str) -> Result<Plan> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, format!("[sweep]\nseeds = [1, 2]\n[sweep.over]\n{over}")).unwrap();
        Plan::of(&Tree::load_with(&file, &[], [])?, &Sum)
    }

    #[test]
    fn cells_that_are_one_experiment_are_run_once_and_those_of_equal_figures_are_told() {
        let plan = plan(r#"s = [{ "x.a" = 1 }, { "x.b" = 1 }, { "x.a" = 2 }, { "x.a" = 3, "x.b" = 0 }]"#).unwrap();
        let labels: Vec<String> = plan.cells.iter().map(Cell::label).collect();
        assert_eq!(labels, ["x.a=1", "x.a=2", "x.a=3 x.b=0"]);
        let runs: Vec<(&str, usize)> = plan.runs.iter().map(|run| (run.name.as_str(), run.cell)).collect();
        let expected =
            [("1-seed-1", 0), ("1-seed-2", 0), ("2-seed-1", 1), ("2-seed-2", 1), ("3-seed-1", 2), ("3-seed-2", 2)];
        assert_eq!(runs, expected);
        let numbers: Vec<usize> = plan.cells.iter().map(|cell| cell.number).collect();
        assert_eq!(numbers, [1, 2, 3]);
        let told: Vec<&str> = plan.warnings.iter().map(|warning| warning.message.as_str()).collect();
        assert_eq!(
            told,
            [
                "x.b=1: these are the settings of x.a=1, and they are run once",
                "2 of 6 runs only repeat others, because `x.a` has no effect there: the first is cell 2 (x.a=2), which \
                 gives what cell 1 gives; `[sweep.when]` says where a key is varied"
            ]
        );
    }

    #[test]
    fn one_setting_in_two_words_is_a_mistake() {
        let error = plan("\"x.a\" = [1, \"one\", 0]").unwrap_err().problems;
        assert_eq!(error.len(), 1, "{error:?}");
        assert_eq!(error[0].message, "`0` gives the same settings as `\"one\"`: remove one of the two");
        assert_eq!(error[0].place.to_string(), "sweep.over.\"x.a\" (line 4)");
        let error = plan("s = [{ \"x.a\" = 0 }, { \"x.a\" = \"one\" }]").unwrap_err().problems;
        assert!(error[0].place.to_string().starts_with("sweep.over.s (line 4)"), "{error:?}");
    }
}
