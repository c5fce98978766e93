//! `antiphon report`: a page for a browser, of one run or of several.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use antiphon_config::Tree;
use antiphon_core::disk::{sweep_beside, write_atomically};
use antiphon_core::{Error, Place, Result};
use antiphon_data::Split;
use antiphon_lab::{Chosen, Findings, Run, comparison_page, report_page};

use super::finished::{read_answers, read_losses};
use super::target::Stand;
use super::{DataFolder, Ending, RunsFolder};
use crate::console::Console;
use crate::device::{DeviceConfig, device, start_threads};
use crate::experiment::{Corpora, Evaluator, Loaded, SavedModel, figures_of_validation, findings};
use crate::output::{print, shell, tell};

/// How many sources the checkpoint of a run answers for its page.
const SO_FAR: usize = 200;

/// Write the page of a run, or one page that compares several
///
/// A run writes its page itself when it ends, as `report.html` in its folder; this writes it anew, also for a run that is
/// still going or was interrupted, with what is there: then its best checkpoint so far answers some sources of the validation
/// split.
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
    data: DataFolder,
    #[command(flatten)]
    folder: RunsFolder,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let runs = self.runs.iter().map(|run| self.folder.open(run)).collect::<Result<Vec<_>>>()?;
        let (page, default) = match &runs[..] {
            [run] => {
                start_threads(None)?;
                let found = match run.model_path().is_file() {
                    true => found_in(run, &self.data.path())?,
                    false => self.found_so_far(run),
                };
                (report_page(run, &found)?, run.report_path())
            }
            _ => {
                let chosen = self.chosen(&runs[0])?;
                (comparison_page(&runs, &chosen)?, self.folder.runs_dir.join("comparison.html"))
            }
        };
        if self.output.is_none() {
            // A user's folder is not ours to sweep.
            sweep_beside(&default);
        }
        let output = self.output.unwrap_or(default);
        write_atomically(&output, page.as_bytes())?;
        print(&format!("{}\n", shell(&output)))?;
        Ok(Ending::Done)
    }

    /// What a run that is still to be trained to its end can show already; its page does not depend on it.
    fn found_so_far(&self, run: &Run) -> Findings {
        found_so_far(run, &self.data.path()).unwrap_or_else(|error| {
            tell(&format!("warning: {}: there are no answers to show yet: {error}", run.path().display()));
            Findings::default()
        })
    }

    fn chosen(&self, first: &Run) -> Result<Chosen> {
        // The environment belongs to configs that are still to be run.
        let config = Loaded::from_tree(&Tree::load_with(&first.config_path(), &[], [])?)?.config;
        let label = self.by.clone().unwrap_or_else(|| config.train.validate.metric.clone());
        let figures = figures_of_validation(&config);
        let Some(&(_, lower_is_better)) = figures.iter().find(|(known, _)| *known == label) else {
            let known = figures.into_iter().map(|(known, _)| known).collect::<Vec<_>>().join("`, `");
            return Err(Error::new(format!("the first run has no figure `{label}`; use one of `{known}`"))
                .at(Place::text("--by")));
        };
        Ok(Chosen { label, lower_is_better })
    }
}

/// Writes the page of a run into its folder; recordings are looked for below `data_dir`.
pub(super) fn write_page(run: &Run, data_dir: &Path) -> Result<()> {
    write_atomically(run.report_path(), report_page(run, &found_in(run, data_dir)?)?.as_bytes())
}

/// Examples and errors, or where the loss lies, of the validation split, or of the test split where there is no other; none without a model.
fn found_in(run: &Run, data_dir: &Path) -> Result<Findings> {
    let path = run.model_path();
    if !path.is_file() {
        return Ok(Findings::default());
    }
    for split in ["validation", "test"] {
        if let Some(losses) = read_losses(&run.losses_path(split))? {
            return Ok(Findings { split: split.into(), losses: Some(losses), ..Findings::default() });
        }
        let answers = read_answers(&run.predictions_path(split))?;
        if !answers.is_empty() {
            let saved = SavedModel::read(&path, &device(DeviceConfig::default())?)?;
            return findings(split, &answers, &saved, data_dir);
        }
    }
    Ok(Findings::default())
}

/// Of a run without a model: what its checkpoint answers to some sources of the validation split; none without either.
fn found_so_far(run: &Run, data_dir: &Path) -> Result<Findings> {
    let Some(Stand { what, checkpoint, .. }) = Stand::of(run)? else { return Ok(Findings::default()) };
    let saved = SavedModel::of_checkpoint(run, checkpoint, &device(DeviceConfig::default())?)?;
    if !saved.config.data.has(Split::Validation) || !saved.config.searches() {
        return Ok(Findings::default());
    }
    let corpus = Corpora::open_split(&saved.config, Split::Validation, data_dir, &mut Console::new(false))?;
    let evaluator = Evaluator::new(&saved.config, &saved.tokenizers, &corpus)?.with_examples(SO_FAR);
    let answers = evaluator.answers(&saved.model, &AtomicBool::new(false), &mut |_| {})?.unwrap_or_default();
    let note = format!("The run is not trained to its end: these are {} answers by {what}.", answers.len());
    Ok(Findings { note: Some(note), ..findings(Split::Validation.name(), &answers, &saved, data_dir)? })
}
