//! The model that a command is about: in a run, in a file, or of a config.

use std::io::Write;
use std::path::{Path, PathBuf};

use antiphon_config::{Tree, to_toml};
use antiphon_core::{Error, Result};
use antiphon_lab::{Run, Runs};

use crate::device::{DeviceConfig, device};
use crate::experiment::{ExperimentConfig, Loaded, SavedModel};

/// The sections of which settings can be changed when the model is trained.
const CHANGEABLE: [&str; 2] = ["search", "evaluate"];

/// Where a trained model lies.
#[derive(Debug)]
pub(super) struct Target {
    /// Its file.
    pub(super) path: PathBuf,
    /// The run that it belongs to.
    pub(super) run: Option<Run>,
    /// What is to be changed of its settings.
    pub(super) sets: Vec<String>,
}

impl Target {
    /// Finds the model of `what`: a run's folder (or its name below the folder of runs), a model file, or a config
    /// whose experiment has been run. Assignments outside of `[search]` and `[evaluate]` belong to the config.
    pub(super) fn find(what: &Path, sets: &[String], runs: &Runs) -> Result<Self> {
        let (changes, others): (Vec<String>, Vec<String>) = sets.iter().cloned().partition(|set| changes_search(set));
        let is_config = what.extension().is_some_and(|e| e == "toml") && !what.is_dir();
        if !is_config && let Some(other) = others.first() {
            let message = format!(
                "`{other}` cannot be changed for a model that is trained; settings of `search` and `evaluate` can"
            );
            return Err(Error::new(message).at("--set"));
        }
        let below = runs.root().join(what);
        let run = if is_config {
            // A run that was made with all of these settings comes before one that was made without some of them.
            if let Some(run) = run_of(what, sets, runs)? {
                return Self::of_run(run, Vec::new());
            }
            run_of(what, &others, runs)?.ok_or_else(|| {
                let runs = runs.root().display();
                let message = format!("has not been run with these settings (no such run in `{runs}`); `run` it first");
                Error::new(message).in_file(what)
            })?
        } else if what.is_file() {
            return Ok(Self { path: what.to_path_buf(), run: None, sets: changes });
        } else if what.is_dir() {
            Run::open(what)?
        } else if below.is_dir() {
            Run::open(below)?
        } else {
            return Err(Error::new("no such run, model or config").in_file(what));
        };
        Self::of_run(run, changes)
    }

    fn of_run(run: Run, sets: Vec<String>) -> Result<Self> {
        let path = run.model_path();
        if !path.is_file() {
            let message = "has no model yet: it is not trained to its end; `run` its config once more to go on";
            return Err(Error::new(message).in_file(run.path()));
        }
        Ok(Self { path, run: Some(run), sets })
    }

    /// Reads the model onto a device and changes its settings.
    pub(super) fn open(&self, on: DeviceConfig) -> Result<SavedModel> {
        let mut saved = SavedModel::read(&self.path, &device(on).map_err(|error| error.at("--device"))?)?;
        if !self.sets.is_empty() {
            saved.config =
                changed(&saved.config, &self.sets).map_err(|e| Error { file: Some(self.path.clone()), ..e })?;
        }
        Ok(saved)
    }
}

fn changes_search(set: &str) -> bool {
    let key = set.split_once('=').map_or(set, |(key, _)| key);
    CHANGEABLE.contains(&key.split('.').next().unwrap_or_default().trim())
}

/// The latest run with a model whose settings are those of a config. Its data need not be there.
fn run_of(config: &Path, sets: &[String], runs: &Runs) -> Result<Option<Run>> {
    let Loaded { config: settings, .. } = Loaded::read(config, sets)?;
    let wanted = to_toml(&settings.decisive())?;
    let same = |run: &Run| std::fs::read_to_string(run.config_path()).is_ok_and(|text| text == wanted);
    let mut found = Vec::new();
    for run in runs.list()?.into_iter().filter(same) {
        // RFC 3339 in UTC: the order of the texts is that of the times.
        found.push((run.model_path().is_file(), run.manifest()?.started, run));
    }
    let latest = found.into_iter().max_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    Ok(latest.map(|(_, _, run)| run))
}

/// Settings with some of them changed, checked like any config.
fn changed(config: &ExperimentConfig, sets: &[String]) -> Result<ExperimentConfig> {
    let text = to_toml(&serde_json::to_value(config).expect("a config is JSON"))?;
    let failed = |e: std::io::Error| Error::new(format!("cannot write a temporary file: {e}"));
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.flush()).map_err(failed)?;
    // The environment belongs to configs that are still to be run.
    Ok(Loaded::from_tree(&Tree::load_with(file.path(), sets, [])?)?.config)
}
