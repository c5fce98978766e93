//! `antiphon report`: a page for a browser, of one run or of several.

use std::path::PathBuf;

use antiphon_config::Tree;
use antiphon_core::{Error, Result};
use antiphon_lab::{Chosen, Findings, Run, comparison_page, report_page, write_atomically};

use super::report::read_answers;
use super::{Ending, RunsFolder};
use crate::device::{DeviceConfig, device, start_threads};
use crate::experiment::{Loaded, SavedModel, figures_of_validation, findings};
use crate::output::{print, shell};

/// Write the page of a run, or one page that compares several
///
/// A run writes its page itself when it ends, as `report.html` in its folder; this writes it anew, also for a run that is
/// still going or was interrupted, with what is there.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folders of the runs, or their names below --runs-dir
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page [default: report.html in the folder of the run; of several, comparison.html below --runs-dir]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The figure by which several runs are ranked [default: train.validate.metric of the first]
    #[arg(long, value_name = "METRIC")]
    by: Option<String>,
    #[command(flatten)]
    folder: RunsFolder,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let runs = self.runs.iter().map(|run| self.folder.open(run)).collect::<Result<Vec<_>>>()?;
        let (page, default) = match &runs[..] {
            [run] => {
                start_threads(None)?;
                (report_page(run, &found_in(run)?)?, run.report_path())
            }
            _ => {
                let chosen = self.chosen(&runs[0])?;
                (comparison_page(&runs, &chosen)?, self.folder.runs_dir.join("comparison.html"))
            }
        };
        let output = self.output.unwrap_or(default);
        write_atomically(&output, page.as_bytes())?;
        print(&format!("{}\n", shell(&output)))?;
        Ok(Ending::Done)
    }

    fn chosen(&self, first: &Run) -> Result<Chosen> {
        // The environment belongs to configs that are still to be run.
        let config = Loaded::from_tree(&Tree::load_with(&first.config_path(), &[], [])?)?.config;
        let label = self.by.clone().unwrap_or_else(|| config.train.validate.metric.clone());
        let figures = figures_of_validation(&config);
        let Some(&(_, lower_is_better)) = figures.iter().find(|(known, _)| *known == label) else {
            let known = figures.into_iter().map(|(known, _)| known).collect::<Vec<_>>().join("`, `");
            return Err(Error::new(format!("the first run has no figure `{label}`; use one of `{known}`")).at("--by"));
        };
        Ok(Chosen { label, lower_is_better })
    }
}

/// Writes the page of a run into its folder.
pub(super) fn write_page(run: &Run) -> Result<()> {
    write_atomically(run.report_path(), report_page(run, &found_in(run)?)?.as_bytes())
}

/// Examples and errors of the validation split, or of the test split where there is no other; none without a model.
fn found_in(run: &Run) -> Result<Findings> {
    let path = run.model_path();
    if !path.is_file() {
        return Ok(Findings::default());
    }
    for split in ["validation", "test"] {
        let answers = read_answers(&run.predictions_path(split))?;
        if !answers.is_empty() {
            return findings(split, &answers, &SavedModel::read(&path, &device(DeviceConfig::default())?)?);
        }
    }
    Ok(Findings::default())
}
