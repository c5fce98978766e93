//! `antiphon check`: what a config says, and everything that is wrong with it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use antiphon_config::Tree;
use antiphon_core::{Error, Problem, Result};
use antiphon_data::lines::file_fault;
use antiphon_lab::sweep::{Plan, PlannedRun, SweepConfig};
use antiphon_train::TrainConfig;
use serde::Deserialize;
use serde_json::Value;

use super::{DataFolder, Ending, Sets};
use crate::console::Console;
use crate::experiment::{
    Experiment, ExperimentConfig, Interpreter, Loaded, files, lacking_columns, lacking_columns_of, length_matters,
    remedy, unheard,
};
use crate::output::{print, tell};

/// Check configs: print every setting with its origin, and say everything that is wrong
///
/// Files of data that are missing are warnings, since they may be elsewhere; with --data-dir they are mistakes. Of tables that are
/// there the first line is read, for the columns; of manifests the rows, and the heads of the first 100 recordings.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configs
    #[arg(required = true)]
    configs: Vec<PathBuf>,
    #[command(flatten)]
    sets: Sets,
    #[command(flatten)]
    data: DataFolder,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let mut wrong = Vec::new();
        for config in &self.configs {
            match Tree::load(config, &self.sets.set) {
                Err(error) => wrong.push(error),
                Ok(tree) => {
                    print(&format!("# {}\n{}", config.display(), tree.seen_by::<ExperimentConfig>().annotated()))?;
                    match self.check(&tree) {
                        Err(error) => wrong.push(error),
                        Ok((name, warnings)) => {
                            let found = match warnings {
                                0 => "no problems".to_owned(),
                                1 => "1 warning".to_owned(),
                                many => format!("{many} warnings"),
                            };
                            print(&format!("# {}: {found}; the run is called {name}\n", config.display()))?;
                        }
                    }
                }
            }
        }
        // One answer: all but the last error are told here, the last one by whoever tells errors.
        let Some(last) = wrong.pop() else { return Ok(Ending::Done) };
        for error in wrong {
            tell(&format!("error: {error}"));
        }
        Err::<Ending, Error>(last)
    }

    /// Tells the warnings of a config, and gives its run's name and how many they were.
    fn check(&self, tree: &Tree) -> Result<(String, usize)> {
        let config = tree.file();
        let loaded = Loaded::from_tree(tree).map_err(|mut error| {
            error.problems.extend(lacking_columns_of(tree, &self.data.path()));
            error
        })?;
        loaded.check_parts(tree)?;
        let warn = |warning: &str| tell(&format!("warning: {}: {warning}", config.display()));
        let mut warnings = loaded.warnings.clone();
        let mut found = self.files(tree, &loaded.config, |_| None);
        let all_there = found.missing.is_empty();
        if loaded.config.sweep.is_some() {
            // Every cell; no data are read for that.
            let plan = Plan::of(tree, &Interpreter::new(Path::new("")))?;
            warnings.extend(plan.warnings.into_iter().filter(|warning| !loaded.warnings.contains(warning)));
            // The files of the cells are those that are read.
            found = self.files_of_cells(tree, &plan.config, &plan.runs)?;
        }
        let Found { missing, mut wrong, doubts } = found;
        warnings.extend(doubts);
        // Whoever names the folder means these files.
        if self.data.data_dir.is_some() {
            wrong.extend(missing)
        } else {
            warnings.extend(missing)
        }
        warnings.iter().for_each(|warning| warn(&warning.to_string()));
        let mut told = warnings.len();
        if !wrong.is_empty() {
            return Err(Error::many(config, wrong));
        }
        let name = loaded.name.clone();
        let TrainConfig { start_from, teacher, .. } = &loaded.config.train;
        let reads_models = start_from.is_used() || teacher.is_used() || !loaded.config.files_of_search().is_empty();
        let asks_the_data = length_matters(&loaded.config.train) || reads_models;
        if asks_the_data && all_there {
            let experiment = Experiment::open_telling(loaded, &self.data.path(), &mut Console::new(false))?;
            let checked = experiment.check_length().and_then(|()| experiment.check_start());
            let checked = checked.and_then(|()| experiment.check_teacher());
            checked.and_then(|()| experiment.check_search()).map_err(|error| place(error, tree))?;
        } else if length_matters(&loaded.config.train) {
            warn("whether the run is longer than its warm-up is not known without its data");
            told += 1;
        }
        Ok((name, told))
    }

    /// What [`files`](Self::files) finds in the cells of a sweep, each thing once.
    fn files_of_cells(&self, tree: &Tree, sweep: &SweepConfig, runs: &[PlannedRun]) -> Result<Found> {
        let (mut seen, mut all) = (BTreeSet::new(), Found::default());
        for PlannedRun { settings, .. } in runs {
            let (train, search) = (&settings["train"], &settings["search"]);
            let models = [&train["start_from"], &train["teacher"], &search["language_model"]].map(Value::to_string);
            let read = ["data", "tokenizer", "streams"].map(|section| settings[section].to_string());
            if !seen.insert((read, settings["evaluate"]["by"].to_string(), models)) {
                continue;
            }
            let config = ExperimentConfig::deserialize(settings);
            let config = config.map_err(|error| Error::new(format!("not a config: {error}")).in_file(tree.file()))?;
            let axis = |key: &str| sweep.place_of(key).map(|place| format!("sweep.{place}"));
            let Found { missing, wrong, doubts } = self.files(tree, &config, axis);
            for (all, found) in [(&mut all.missing, missing), (&mut all.wrong, wrong), (&mut all.doubts, doubts)] {
                for one in found {
                    if !all.contains(&one) {
                        all.push(one);
                    }
                }
            }
        }
        Ok(all)
    }

    /// What there is to say of the files of a config. `axis` is where a setting is varied.
    fn files(&self, tree: &Tree, config: &ExperimentConfig, axis: impl Fn(&str) -> Option<String>) -> Found {
        let data_dir = self.data.path();
        let problem = |key: &str, message| tree.problem(&axis(key).unwrap_or_else(|| key.into()), message);
        let mut all = files(&config.data, None, &data_dir);
        let of_corpus = all.len();
        all.extend(config.files_of_tokenizers(&data_dir));
        all.extend(config.files_of_start(&data_dir));
        all.extend(config.files_of_teacher());
        all.extend(config.files_of_search());
        let lacking = lacking_columns(&config.data, &config.further_columns(), &data_dir);
        let wrong = lacking.into_iter().map(|(key, message)| problem(&key, message)).collect();
        let (mut missing, mut doubts) = (Vec::new(), Vec::new());
        for (i, (key, path)) in all.iter().enumerate() {
            if let Some(fault) = file_fault(path) {
                let remedy =
                    if i < of_corpus { remedy(&config.data, path, &data_dir) } else { "name another file".into() };
                missing.push(problem(key, format!("{fault} `{}`; {remedy}", path.display())));
            }
            let split = |key: &str| key.split('.').nth(1).map(str::to_owned);
            let twin = all[..i.min(of_corpus)].iter().find(|(other, same)| same == path && split(other) != split(key));
            if let (Some((other, _)), true) = (twin, i < of_corpus) {
                let message =
                    format!("is the file of `{other}` too: a figure on what was learned or chosen by says little");
                doubts.push(problem(key, message));
            }
        }
        missing.extend(unheard(config, &data_dir).into_iter().map(|(key, message)| problem(&key, message)));
        Found { missing, wrong, doubts }
    }
}

/// What was found about files.
#[derive(Default)]
struct Found {
    /// Those that are not there, with what helps, and manifests whose recordings cannot be used.
    missing: Vec<Problem>,
    /// Columns that those that are there lack.
    wrong: Vec<Problem>,
    /// Those that two splits share.
    doubts: Vec<Problem>,
}

/// An error about settings, with the places where these were made.
fn place(error: Error, tree: &Tree) -> Error {
    if error.file.is_some() {
        return error;
    }
    let problems = error.problems.into_iter().map(|problem| tree.placed(problem));
    Error::many(tree.file(), problems.collect())
}
