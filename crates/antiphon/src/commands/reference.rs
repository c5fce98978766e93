//! `antiphon reference`: the page of all settings.

use antiphon_core::Result;

use super::Ending;
use crate::experiment::ExperimentConfig;
use crate::output::print;

/// Print the page of all settings (Markdown)
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        print(&antiphon_config::reference::<ExperimentConfig>("Settings"))?;
        Ok(Ending::Done)
    }
}
