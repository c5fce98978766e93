//! `antiphon average`: the mean of several models is a model.

use std::ffi::OsString;
use std::path::PathBuf;

use antiphon_core::Result;
use antiphon_data::Split;

use super::finished::next;
use super::target::Target;
use super::{Ending, RunsFolder, is_new};
use crate::device::start_threads;
use crate::experiment::SavedModel;
use crate::output::{command, print, shell};

/// Average models: the mean of their parameters as one model file
///
/// They must have the same tokenizers, and compute alike with parameters of the same shapes, as those of one run do, or of runs that
/// started from one model. Models that were drawn by different seeds are not near each other, and their mean is of no use: an ensemble of them
/// is. `train.average` lets a run choose such a mean of its own models by validation.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The models: runs' folders, model files, or configs that have been run
    #[arg(value_name = "RUN|MODEL|CONFIG", required = true, num_args = 2..)]
    models: Vec<PathBuf>,
    /// Where the model file is written; there must be none yet
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    runs: RunsFolder,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        start_threads(None)?;
        let output = &self.output;
        is_new(output)?;
        let runs = self.runs.runs();
        let mean = SavedModel::mean(self.models.iter().map(|what| Target::open_alone(what, &runs)))?;
        mean.write(output)?;
        let mut words: Vec<OsString> = vec!["evaluate".into(), output.into()];
        let measured = [Split::Test, Split::Validation].into_iter().find(|&split| mean.config.data.has(split));
        if measured == Some(Split::Validation) {
            words.extend(["--split".into(), "validation".into()]);
        }
        let commands: Vec<String> = measured.map(|_| command(words)).into_iter().collect();
        print(&format!("the model  {}\n{}", shell(output), next(&commands)))?;
        Ok(Ending::Done)
    }
}
