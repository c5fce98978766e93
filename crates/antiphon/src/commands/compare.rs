//! `antiphon compare`: runs side by side.

use std::path::PathBuf;

use antiphon_core::Result;
use antiphon_lab::compare;

use super::{Ending, RunsFolder};
use crate::output::print;

/// Put runs side by side: where their settings and their figures differ
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folders of the runs, or their names below --runs-dir
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    #[command(flatten)]
    folder: RunsFolder,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let runs = self.runs.iter().map(|run| self.folder.open(run)).collect::<Result<Vec<_>>>()?;
        print(&compare(&runs)?)?;
        Ok(Ending::Done)
    }
}
