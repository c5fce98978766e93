//! `antiphon check`: what a config says, and everything that is wrong with it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use antiphon_config::Tree;
use antiphon_core::{Error, Problem, Result};
use antiphon_data::lines::file_fault;
use antiphon_lab::sweep::{Plan, PlannedRun, SweepConfig};
use serde::Deserialize;

use super::{DataFolder, Ending, Sets};
use crate::experiment::{Experiment, ExperimentConfig, Interpreter, Loaded, files, length_matters, remedy};
use crate::output::{print, tell};

/// Check configs: print every setting with its origin, and say everything that is wrong
///
/// Files of data that are missing are warnings, since they may be elsewhere; with --data-dir they are mistakes.
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
                        Ok(name) => {
                            print(&format!("# {}: no problems; the run is called {name}\n", config.display()))?;
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

    /// Tells the warnings of a config, and gives its run's name.
    fn check(&self, tree: &Tree) -> Result<String> {
        let loaded = Loaded::from_tree(tree)?;
        loaded.check_parts(tree)?;
        let config = tree.file();
        let warn = |warning: &str| tell(&format!("warning: {}: {warning}", config.display()));
        let mut warnings = loaded.warnings.clone();
        let (mut faults, mut doubts) = self.files(tree, &loaded.config, |_| None);
        let all_there = faults.is_empty();
        if loaded.config.sweep.is_some() {
            // Every cell; no data are read for that.
            let plan = Plan::of(tree, &Interpreter::new(Path::new("")))?;
            warnings.extend(plan.warnings.into_iter().filter(|warning| !loaded.warnings.contains(warning)));
            // The files of the cells are those that are read.
            (faults, doubts) = self.files_of_cells(tree, &plan.config, &plan.runs)?;
        }
        warnings.extend(doubts);
        // Whoever names the folder means these files.
        let strict = self.data.data_dir.is_some();
        let lacking = if strict { std::mem::take(&mut faults) } else { Vec::new() };
        warnings.extend(faults);
        warnings.iter().for_each(|warning| warn(&warning.to_string()));
        if !lacking.is_empty() {
            return Err(Error::many(config, lacking));
        }
        let name = loaded.name.clone();
        let asks_the_data = length_matters(&loaded.config.train) || loaded.config.train.start_from.is_used();
        if asks_the_data && all_there {
            let experiment = Experiment::open(loaded, &self.data.path())?;
            experiment.check_length().and_then(|()| experiment.check_start()).map_err(|error| place(error, tree))?;
        } else if length_matters(&loaded.config.train) {
            warn("whether the run is longer than its warm-up is not known without its data");
        }
        Ok(name)
    }

    /// What [`files`](Self::files) finds in the cells of a sweep, each thing once.
    fn files_of_cells(
        &self,
        tree: &Tree,
        sweep: &SweepConfig,
        runs: &[PlannedRun],
    ) -> Result<(Vec<Problem>, Vec<Problem>)> {
        let (mut seen, mut faults, mut doubts) = (BTreeSet::new(), Vec::new(), Vec::new());
        for PlannedRun { settings, .. } in runs {
            let start = &settings["train"]["start_from"];
            if !seen.insert(format!("{} {} {} {start}", settings["data"], settings["tokenizer"], settings["streams"])) {
                continue;
            }
            let config = ExperimentConfig::deserialize(settings);
            let config = config.map_err(|error| Error::new(format!("not a config: {error}")).in_file(tree.file()))?;
            let axis = |key: &str| sweep.place_of(key).map(|place| format!("sweep.{place}"));
            let (lacking, doubtful) = self.files(tree, &config, axis);
            for (all, found) in [(&mut faults, lacking), (&mut doubts, doubtful)] {
                for one in found {
                    if !all.contains(&one) {
                        all.push(one);
                    }
                }
            }
        }
        Ok((faults, doubts))
    }

    /// The files that are not there, with what helps, and those that two splits share. `axis` is where a setting is varied.
    fn files(
        &self,
        tree: &Tree,
        config: &ExperimentConfig,
        axis: impl Fn(&str) -> Option<String>,
    ) -> (Vec<Problem>, Vec<Problem>) {
        let data_dir = self.data.path();
        let problem = |key: &str, message| tree.problem(&axis(key).unwrap_or_else(|| key.into()), message);
        let mut all = files(&config.data, None, &data_dir);
        let of_corpus = all.len();
        all.extend(config.files_of_tokenizers(&data_dir));
        all.extend(config.files_of_start(&data_dir));
        let (mut faults, mut doubts) = (Vec::new(), Vec::new());
        for (i, (key, path)) in all.iter().enumerate() {
            if let Some(fault) = file_fault(path) {
                let remedy =
                    if i < of_corpus { remedy(&config.data, path, &data_dir) } else { "name another file".into() };
                faults.push(problem(key, format!("{fault} `{}`; {remedy}", path.display())));
            }
            let split = |key: &str| key.split('.').nth(1).map(str::to_owned);
            let twin = all[..i.min(of_corpus)].iter().find(|(other, same)| same == path && split(other) != split(key));
            if let (Some((other, _)), true) = (twin, i < of_corpus) {
                let message =
                    format!("is the file of `{other}` too: a figure on what was learned or chosen by says little");
                doubts.push(problem(key, message));
            }
        }
        (faults, doubts)
    }
}

/// An error about settings, with the places where these were made.
fn place(error: Error, tree: &Tree) -> Error {
    if error.file.is_some() {
        return error;
    }
    let problems = error.problems.into_iter().map(|problem| tree.placed(problem));
    Error::many(tree.file(), problems.collect())
}
