//! `antiphon check`: what a config says, and everything that is wrong with it.

use std::path::PathBuf;

use antiphon_config::Tree;
use antiphon_core::{Error, Result};

use super::{Ending, Sets};
use crate::experiment::{ExperimentConfig, Loaded};
use crate::output::{print, tell};

/// Check configs: print every setting with its origin, and say everything that is wrong
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configs
    #[arg(required = true)]
    configs: Vec<PathBuf>,
    #[command(flatten)]
    sets: Sets,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let mut wrong = Vec::new();
        for config in &self.configs {
            match Tree::load(config, &self.sets.set) {
                Err(error) => wrong.push(error),
                Ok(tree) => {
                    print(&format!("# {}\n{}", config.display(), tree.seen_by::<ExperimentConfig>().annotated()))?;
                    match Loaded::from_tree(&tree) {
                        Err(error) => wrong.push(error),
                        Ok(loaded) => {
                            for warning in &loaded.warnings {
                                tell(&format!("warning: {}: {warning}", config.display()));
                            }
                            print(&format!(
                                "# {}: no problems; the run is called {}\n",
                                config.display(),
                                loaded.name
                            ))?;
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
}
