//! `antiphon check`: what a config says, and everything that is wrong with it.

use std::path::{Path, PathBuf};

use antiphon_config::Tree;
use antiphon_core::{Error, Problem, Result};
use antiphon_lab::sweep::Plan;

use super::{DataFolder, Ending, Sets};
use crate::experiment::{Experiment, ExperimentConfig, Interpreter, Loaded, fault, files, length_matters, remedy};
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
        let config = tree.file();
        let warn = |warning: &str| tell(&format!("warning: {}: {warning}", config.display()));
        let mut warnings = loaded.warnings.clone();
        if loaded.config.sweep.is_some() {
            // Every cell; no data are read for that.
            let of_cells = Plan::of(tree, &Interpreter::new(Path::new("")))?.warnings;
            warnings.extend(of_cells.into_iter().filter(|warning| !loaded.warnings.contains(warning)));
        }
        let (faults, doubts) = self.files(tree, &loaded.config);
        // Whoever names the folder means these files.
        if self.data.data_dir.is_some() && !faults.is_empty() {
            return Err(Error::many(config, faults));
        }
        let all_there = faults.is_empty();
        warnings.extend(faults.into_iter().chain(doubts));
        warnings.iter().for_each(|warning| warn(&warning.to_string()));
        let name = loaded.name.clone();
        if length_matters(&loaded.config.train) && all_there {
            Experiment::open(loaded, &self.data.path())?.check_length().map_err(|error| place(error, tree))?;
        } else if length_matters(&loaded.config.train) {
            warn("whether the run is longer than its warm-up is not known without its data");
        }
        Ok(name)
    }

    /// The files that are not there, with what helps, and those that two splits share.
    fn files(&self, tree: &Tree, config: &ExperimentConfig) -> (Vec<Problem>, Vec<Problem>) {
        let data_dir = self.data.path();
        let mut all = files(&config.data, None, &data_dir);
        let of_corpus = all.len();
        all.extend(config.tokenizer.files(&data_dir));
        let (mut faults, mut doubts) = (Vec::new(), Vec::new());
        for (i, (key, path)) in all.iter().enumerate() {
            if let Some(fault) = fault(path) {
                let remedy = if i < of_corpus { remedy(&config.data, &data_dir) } else { "name another file".into() };
                faults.push(tree.problem(key, format!("{fault} `{}`; {remedy}", path.display())));
            }
            let split = |key: &str| key.split('.').nth(1).map(str::to_owned);
            let twin = all[..i.min(of_corpus)].iter().find(|(other, same)| same == path && split(other) != split(key));
            if let (Some((other, _)), true) = (twin, i < of_corpus) {
                let message =
                    format!("is the file of `{other}` too: a figure on what was learned or chosen by says little");
                doubts.push(tree.problem(key, message));
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
    let placed = |p: Problem| if p.place.is_empty() { p } else { tree.problem(&p.place, p.message) };
    let problems = error.problems.into_iter().map(placed);
    Error::many(tree.file(), problems.collect())
}
