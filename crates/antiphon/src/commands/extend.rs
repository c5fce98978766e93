//! `antiphon extend`: a run that is trained goes on, in a new folder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use antiphon_config::{Tree, to_toml};
use antiphon_core::disk::write_atomically;
use antiphon_core::{Error, Problem, Result};
use antiphon_data::Split;
use antiphon_lab::{Identity, Manifest, Parent, Run, Runs, Stopwatch, TrainingEnd};
use antiphon_train::{Restarts, extend_checkpoints, reaches};
use serde_json::Value;

use super::Ending;
use super::target::again;
use super::work::{Task, Work};
use crate::console::Console;
use crate::device::{DeviceConfig, device, start_threads};
use crate::experiment::{Experiment, ExperimentConfig, Loaded, SavedModel, Tokenizers};

/// Train a run further that is trained to its end: in a new folder, which names it
///
/// The new run has the settings of the old one, but for its length, and its data must be the same. If all is kept, and the schedule
/// is one that does not depend on the length of a run, it is the run that would have been so long from the start, to the last
/// byte. Other settings, or more data, are a new run that starts from the model of this one: `train.start_from`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder of the run, or its name below --runs-dir
    #[arg(value_name = "RUN")]
    parent: PathBuf,
    #[command(flatten)]
    more: More,
    /// What becomes of the learning rate: the schedule goes on as that of a run of the new length, or begins anew with the first
    /// new step
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    schedule: Mode,
    /// What becomes of all that the optimizer remembers, moments and numbers of updates
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    optimizer: Mode,
    /// What becomes of the validations without improvement that early stopping has counted. The best model so far stays the one
    /// to beat
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    patience: Mode,
    /// Leave the test split alone; the same command without this measures it, and nothing else, later
    #[arg(long)]
    no_test: bool,
    #[command(flatten)]
    work: Work,
}

/// How much longer.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct More {
    /// So many epochs more than are done
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,
    /// So many optimizer steps more than are done
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
}

/// What becomes of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Mode {
    /// It is kept
    #[default]
    Keep,
    /// It begins anew
    Restart,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let (watch, mut console) = (Stopwatch::start(), self.work.console());
        let parent = self.work.runs.open(&self.parent)?;
        let manifest = parent.manifest()?;
        let end = trained(&parent, &manifest)?;
        let restarts = self.restarts();
        start_threads(Some(manifest.threads))?;
        let (loaded, tokenizers) = self.longer(&parent, &manifest, end)?;
        if is_out_of_patience(end, loaded.config.train.stop.patience) && !restarts.patience {
            let message = "ended when validation had not improved for as long as `train.stop.patience` waits, and would end again \
                           at once: give `--patience restart`";
            return Err(Error::new(message).in_file(parent.path()));
        }
        let open = |loaded: Loaded, data_dir: &Path, console: &mut Console| {
            Experiment::longer(loaded, data_dir, &manifest, tokenizers, console)
        };
        let (mut experiment, adapter) = self.work.open(loaded, &mut console, open)?;
        same_data(&experiment, &parent, &manifest)?;
        if manifest.version != experiment.identity.version {
            let (path, version) = (parent.path().display(), &manifest.version);
            console
                .warn(&format!("{path} was trained by version {version}, whose figures may differ from those to come"));
        }
        let going_on = Parent {
            run: parent.path().display().to_string(),
            digest: manifest.digest.clone(),
            step: end.step,
            restarts: restarts.names().map(str::to_owned).collect(),
        };
        console.note(&format!("extend   {going_on}"));
        experiment.identity.parent = Some(going_on);
        if !restarts.schedule && experiment.config.train.schedule.ends_with_the_run() {
            console.warn(
                "the learning rate falls until the end of a run: it goes on as in a run of the new length, which may be higher \
                 than it was at last; `--schedule restart` begins anew with the first new step",
            );
        }
        let digest = experiment.identity.digest();
        let check = |console: &mut Console| {
            console.status("looking at the corpus");
            let checked = experiment.check_length();
            console.clear();
            checked.map_err(|error| error.in_file(parent.path()))
        };
        let furnish = |run: &Run| {
            let (from, to) = (parent.checkpoints_path(), run.checkpoints_path());
            // Once it has begun, it goes on from where it is.
            if reaches(&to, end.step)? {
                return Ok(());
            }
            let log = parent.metrics_path();
            match std::fs::read(&log) {
                Ok(bytes) => write_atomically(run.metrics_path(), &bytes)?,
                // Its curves then have a gap, which is told.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(&log, "read", &error)),
            }
            extend_checkpoints(&from, &to, end.step, restarts, &digest)
        };
        let all = [Split::Validation, Split::Test];
        let task = Task {
            experiment: &experiment,
            named: &self.parent,
            splits: if self.no_test { &all[..1] } else { &all },
            adapter,
            check: &check,
            furnish: &furnish,
        };
        self.work.perform(&task, console, watch)
    }

    fn restarts(&self) -> Restarts {
        let [schedule, optimizer, patience] =
            [self.schedule, self.optimizer, self.patience].map(|mode| mode == Mode::Restart);
        Restarts { schedule, optimizer, patience }
    }

    /// The settings of a run, with a new end behind where it ended, and its tokenizers.
    fn longer(&self, parent: &Run, manifest: &Manifest, end: &TrainingEnd) -> Result<(Loaded, Tokenizers)> {
        // Unlike the run's own copy these know of all settings, those that count for nothing too.
        let SavedModel { config, tokenizers, .. } =
            SavedModel::read(&parent.model_path(), &device(DeviceConfig::default())?)?;
        let config = ExperimentConfig { threads: Some(manifest.threads), ..config };
        let mut config = serde_json::to_value(config).expect("a config is JSON");
        config["train"]["epochs"] = self.more.epochs.map(|more| end.epoch.saturating_add(more)).into();
        config["train"]["steps"] = self.more.steps.map(|more| end.step.saturating_add(more)).into();
        let mut loaded = Loaded::from_tree(&Tree::of_text(&parent.config_path(), &to_toml(&config)?, &[])?)?;
        loaded.name.clone_from(&manifest.name);
        Ok((loaded, tokenizers))
    }
}

/// Whether early stopping had waited in vain, be it that the run reached its length with the same validation. 0: nobody waits.
fn is_out_of_patience(end: &TrainingEnd, patience: u64) -> bool {
    patience > 0 && end.waited >= patience
}

/// How a run's training ended.
fn trained<'m>(run: &Run, manifest: &'m Manifest) -> Result<&'m TrainingEnd> {
    match &manifest.training {
        Some(end) if run.model_path().is_file() => Ok(end),
        _ => {
            let remedy =
                again(run, manifest).map_or("run its config once more".into(), |command| format!("`{command}`"));
            Err(Error::new(format!("is not trained to its end; go on with {remedy}")).in_file(run.path()))
        }
    }
}

/// That a run learned from the files that are there.
fn same_data(experiment: &Experiment, run: &Run, manifest: &Manifest) -> Result<()> {
    let own = &experiment.identity.data;
    let others = manifest.data.iter().filter(|&(file, digest)| own.get(file) != Some(digest));
    let message = "is not what this run learned from: restore it; or begin a new run, on other data, from its model: \
                   `train.start_from.model`";
    let problem = |file: &String| Problem { place: antiphon_core::Place::text(file.as_str()), message: message.into() };
    let problems: Vec<Problem> = others.map(|(file, _)| problem(file)).collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::many(run.path(), problems)) }
}

/// A run that is trained, of an experiment that is shorter than another one and otherwise the same.
pub(super) struct Shorter {
    pub(super) run: Run,
    /// `epochs` or `steps`.
    unit: &'static str,
    /// How long it is.
    length: u64,
    /// How much is missing.
    more: u64,
    is_out_of_patience: bool,
}

impl Shorter {
    /// The words of the command that goes on with it.
    pub(super) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["extend".into(), self.run.path().into()];
        words.extend([format!("--{}", self.unit).into(), self.more.to_string().into()]);
        if self.is_out_of_patience {
            words.extend(["--patience".into(), "restart".into()]);
        }
        words
    }

    /// Its length, as its config has it.
    pub(super) fn length(&self) -> String {
        format!("train.{} = {}", self.unit, self.length)
    }
}

/// The longest of the runs, and of that in the folder `named`, that are trained and would be of this experiment, were they longer.
///
/// # Errors
/// If the folder of runs cannot be read.
pub(super) fn shorter(runs: &Runs, named: Option<&Path>, identity: &Identity) -> Result<Option<Shorter>> {
    const UNITS: [&str; 2] = ["epochs", "steps"];
    let of = |run: Run| {
        // A damaged run is no obstacle.
        let manifest = run.manifest().ok()?;
        let end = manifest.training.as_ref().filter(|_| manifest.name == identity.name)?;
        let own = serde_json::to_value(run.config().ok()?).ok()?;
        let mut there = Identity { parent: manifest.parent.clone(), ..identity.clone() };
        for unit in UNITS {
            there.config["train"][unit] = own["train"].get(unit).cloned().unwrap_or(Value::Null);
        }
        let lengths = UNITS.map(|unit| (identity.config["train"][unit].as_u64(), own["train"][unit].as_u64()));
        let unit = lengths.iter().position(|&(wanted, own)| wanted.is_some() && wanted > own && own.is_some())?;
        let done = [end.epoch, end.step][unit];
        let (more, length) = (lengths[unit].0?.checked_sub(done).filter(|&more| more > 0)?, lengths[unit].1?);
        if there.digest() != manifest.digest || !run.model_path().is_file() {
            return None;
        }
        let patience = own["train"]["stop"]["patience"].as_u64().unwrap_or(0);
        let is_out_of_patience = is_out_of_patience(end, patience);
        Some((end.step, Shorter { unit: UNITS[unit], length, more, is_out_of_patience, run }))
    };
    let all = runs.list()?.into_iter().chain(named.and_then(|path| Run::open(path).ok()));
    Ok(all.filter_map(of).max_by_key(|(step, _)| *step).map(|(_, shorter)| shorter))
}
