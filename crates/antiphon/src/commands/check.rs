//! `antiphon check`: what a config says, and everything that is wrong with it.

use std::path::{Path, PathBuf};

use antiphon_config::Tree;
use antiphon_core::{Error, Problem, Result};
use antiphon_lab::sweep::Plan;

use super::{DataFolder, Ending, Sets};
use crate::experiment::{Experiment, ExperimentConfig, Interpreter, Loaded, length_matters};
use crate::output::{print, tell};

/// Check configs: print every setting with its origin, and say everything that is wrong
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
        if loaded.config.sweep.is_some() {
            // Every cell; no data are read for that.
            Plan::of(tree, &Interpreter::new(Path::new("")))?;
        }
        let config = tree.file();
        let warn = |warning: &str| tell(&format!("warning: {}: {warning}", config.display()));
        loaded.warnings.iter().for_each(|warning| warn(&warning.to_string()));
        let name = loaded.name.clone();
        if length_matters(&loaded.config.train) {
            match Experiment::open(loaded, &self.data.path()) {
                Ok(experiment) => experiment.check_length().map_err(|error| place(error, tree))?,
                Err(error) => warn(&format!("whether the run is longer than its warm-up is not known: {error}")),
            }
        }
        Ok(name)
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
