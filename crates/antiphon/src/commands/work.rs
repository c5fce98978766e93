//! Work in a run's folder: trained, then measured, by `run`, `train` and `extend`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use antiphon_core::{Error, Result};
use antiphon_data::Split;
use antiphon_lab::{Identity, Manifest, Results, Run, Runs, Status, Stopwatch};
use antiphon_train::Pause;

use super::report::write_page;
use super::{DataFolder, Ending, RunsFolder, finished};
use crate::console::Console;
use crate::dashboard::Dashboard;
use crate::device::{device, start_device, start_threads};
use crate::experiment::{
    Evaluation, Evaluator, Experiment, Loaded, Pace, SavedModel, Trained, temperature, threshold, token_counts,
};
use crate::interrupt::stop_flag;
use crate::output::{command, print, shell, tell};

/// Where a run lies, and how it is worked on.
#[derive(Debug, clap::Args)]
pub(super) struct Work {
    /// The folder of this run [default: one below --runs-dir, found again by the experiment's settings and data]
    #[arg(long, value_name = "DIR")]
    pub(super) run: Option<PathBuf>,
    /// Repeat the experiment in a new folder
    #[arg(long)]
    pub(super) again: bool,
    #[command(flatten)]
    pub(super) data: DataFolder,
    #[command(flatten)]
    pub(super) runs: RunsFolder,
    #[command(flatten)]
    pause: PauseArguments,
    /// Show the training as curves and bars that fill the terminal; `q` stops it in good order
    #[arg(long, conflicts_with = "quiet")]
    dashboard: bool,
    /// Say nothing but warnings and results
    #[arg(long, short)]
    quiet: bool,
}

/// Where a run rests.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct PauseArguments {
    /// Save and stop after so many steps; the same command without this goes on, to the same end as ever
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pause_after_steps: Option<u64>,
    /// The same after so many epochs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pause_after_epochs: Option<u64>,
}

impl PauseArguments {
    fn place(&self) -> Option<Pause> {
        self.pause_after_steps.map(Pause::Steps).or(self.pause_after_epochs.map(Pause::Epochs))
    }
}

/// What came of the work in a run's folder.
#[allow(clippy::large_enum_variant)] // one value
enum Done {
    /// It was interrupted or paused, and can go on.
    Stopped,
    /// It is trained; nothing was to be measured.
    Trained,
    /// It is trained and measured.
    Measured(Results),
}

/// A run's folder, and whether it was there before.
struct Opened {
    run: Run,
    is_new: bool,
}

/// An experiment to be worked on.
pub(super) struct Task<'a> {
    pub(super) experiment: &'a Experiment,
    /// What the user named it by.
    pub(super) named: &'a Path,
    /// The splits to be measured; none: it is only trained.
    pub(super) splits: &'a [Split],
    /// Looks for what speaks against a new run.
    pub(super) check: &'a dyn Fn(&mut Console) -> Result<()>,
    /// What its device calls itself, where that is worth telling.
    pub(super) adapter: Option<String>,
    /// Puts into a folder what its training begins with; called before each session until it is trained.
    pub(super) furnish: &'a dyn Fn(&Run) -> Result<()>,
}

impl Work {
    /// What a person is told on the way.
    pub(super) fn console(&self) -> Console {
        Console::new(self.quiet)
    }

    /// Starts the machine and lets `open` read the files of an experiment below the data folder; beside it is what the device calls
    /// itself, where that is worth telling.
    pub(super) fn open(
        &self,
        loaded: Loaded,
        console: &mut Console,
        open: impl FnOnce(Loaded, &Path, &mut Console) -> Result<Experiment>,
    ) -> Result<(Experiment, Option<String>)> {
        if self.dashboard {
            Dashboard::check()?;
        }
        start_threads(loaded.config.threads)?;
        let adapter = start_device(loaded.config.device)?;
        let experiment = open(loaded, &self.data.path(), console)?;
        experiment.corpora.warnings().for_each(|warning| console.warn(&warning));
        Ok((experiment, adapter))
    }

    /// Does what is to be done.
    pub(super) fn perform(&self, task: &Task<'_>, mut console: Console, watch: Stopwatch) -> Result<Ending> {
        let Task { experiment, splits, .. } = *task;
        let evaluates = !splits.is_empty();
        if evaluates && splits.iter().all(|&split| experiment.corpora.get(split).is_none()) {
            let none = if splits.contains(&Split::Test) {
                "neither a validation nor a test split"
            } else {
                "no validation split"
            };
            console.warn(&format!("{}: `[data]` names {none}: nothing will be measured", task.named.display()));
        }
        let Opened { run, is_new } = self.find(task, &mut console)?;
        if !is_new {
            if let Some(warning) = run.manifest()?.other_revision(experiment.identity.revision.as_ref()) {
                console.warn(&format!("{}: {warning}", run.path().display()));
            }
            let repeat = if self.run.is_some() { "another --run" } else { "--again" };
            let results = run.results().unwrap_or_else(|error| {
                console.warn(&error.to_string());
                None
            });
            if run.is_finished()?
                && let Some(results) = results
                && experiment.is_measured(&results, splits)
            {
                console.note(&format!("{}: finished; {repeat} repeats it", run.path().display()));
                print(&finished::finished(&run, &results, experiment, &self.runs.runs())?)?;
                return Ok(Ending::Done);
            }
            if !evaluates && run.manifest()?.status == Status::Finished && run.model_path().is_file() {
                console.note(&format!("{}: is trained; {repeat} repeats it", run.path().display()));
                return Ok(Ending::Done);
            }
        }
        let _lock = run.lock()?;
        run.update_manifest(Manifest::resume)?;
        console.note(&format!("run      {}", run.path().display()));
        if let Some(adapter) = &task.adapter {
            console.note(&format!("device   {adapter}"));
        }
        let (stop, pause) = (stop_flag()?, self.pause.place());
        if self.dashboard {
            let name = &experiment.identity.name;
            console.set_dashboard(Dashboard::new(name, &experiment.config.train, Arc::clone(&stop))?);
        }
        let mut session = Session { experiment, run: &run, console, watch, stop: &stop, pause };
        let done = match run.model_path().is_file() {
            true => Ok(()),
            false => (task.furnish)(&run),
        };
        let done = done.and_then(|()| session.work(splits));
        let Session { console, mut watch, .. } = session;
        drop(console);
        let status = match &done {
            Ok(Done::Trained | Done::Measured(_)) => Status::Finished,
            Ok(Done::Stopped) => Status::Stopped,
            Err(error) => Status::Failed { message: error.to_string() },
        };
        let recorded = run.update_manifest(|manifest| {
            manifest.spend(watch.lap());
            manifest.end(status);
        });
        // The figures are safe already: a page that cannot be written is no reason to fail.
        if let Err(error) = write_page(&run, &self.data.path()) {
            tell(&format!("warning: the page was not written: {error}"));
        }
        // An error that ended the work is the one to tell; a full disk may well refuse the manifest too.
        let done = done?;
        recorded?;
        match done {
            Done::Stopped => {
                if pause.is_some() && !stop.load(Ordering::Relaxed) {
                    tell(&format!("paused; go on without --pause-after-… ({})", run.path().display()));
                    return Ok(Ending::Done);
                }
                let without = if self.again { ", without --again" } else { "" };
                let folder = run.path().display();
                tell(&format!("stopped; go on with the same command{without} ({folder})"));
                Ok(Ending::Interrupted)
            }
            Done::Trained => {
                print(&self.trained(&run, experiment)?)?;
                Ok(Ending::Done)
            }
            Done::Measured(results) => {
                print(&finished::finished(&run, &results, experiment, &self.runs.runs())?)?;
                Ok(Ending::Done)
            }
        }
    }

    /// What to do next with a run that is trained and not measured.
    fn trained(&self, run: &Run, experiment: &Experiment) -> Result<String> {
        let mut commands = Vec::new();
        let measured =
            [Split::Test, Split::Validation].into_iter().find(|&split| experiment.corpora.get(split).is_some());
        if let Some(split) = measured {
            let mut words: Vec<OsString> = vec!["evaluate".into(), run.path().into()];
            if split != Split::Test {
                words.extend(["--split".into(), split.name().into()]);
            }
            words.extend(finished::on_its_device(run)?);
            words.extend(self.data.words());
            commands.push(command(words));
        }
        commands.push(finished::ask(run, experiment, None)?);
        Ok(format!("the run    {}\n{}", shell(run.path()), finished::next(&commands)))
    }

    /// The run of this experiment, or a new one.
    fn find(&self, task: &Task<'_>, console: &mut Console) -> Result<Opened> {
        let (identity, runs) = (&task.experiment.identity, self.runs.runs());
        let old = match &self.run {
            _ if self.again => None,
            Some(path) => same_experiment(path, identity)?,
            None => runs.find(identity)?,
        };
        if let Some(run) = old {
            return Ok(Opened { run, is_new: false });
        }
        (task.check)(console)?;
        match &self.run {
            Some(path) => Ok(Opened { run: Runs::create_at(path, identity)?, is_new: true }),
            None if self.again => Ok(Opened { run: runs.create(identity, true)?, is_new: true }),
            None => runs.find_or_create(identity).map(|(run, is_new)| Opened { run, is_new }),
        }
    }
}

/// Work in a run's folder.
struct Session<'a> {
    experiment: &'a Experiment,
    run: &'a Run,
    console: Console,
    watch: Stopwatch,
    stop: &'a AtomicBool,
    pause: Option<Pause>,
}

impl Session<'_> {
    /// Trains what is still to be trained, then measures these splits.
    fn work(&mut self, splits: &[Split]) -> Result<Done> {
        let Some(saved) = self.trained_model()? else { return Ok(Done::Stopped) };
        if splits.is_empty() {
            return Ok(Done::Trained);
        }
        // What is measured stays; figures that are damaged are taken anew.
        let mut results = self.run.results().ok().flatten().unwrap_or(Results {
            validation: None,
            test: None,
            model: saved.size(&self.run.model_path())?,
            steps: saved.steps,
            cpu_seconds: 0.0,
            wall_seconds: 0.0,
        });
        let mut learned = None;
        for &split in splits {
            let corpus = self.experiment.corpora.get(split);
            let Some(corpus) = corpus.filter(|_| !self.experiment.is_measured(&results, &[split])) else { continue };
            let Experiment { config, corpora, .. } = self.experiment;
            let console = &mut self.console;
            console.status("encoding what is to be judged");
            let mut evaluator = Evaluator::new(config, &saved.tokenizers, corpus)?;
            let has_source = config.data.has_source();
            if !has_source && learned.is_none() {
                learned = Some(token_counts(config, &saved.tokenizers, &corpora.train)?);
            }
            console.clear();
            let mut progress = |Pace { of, done, all }: Pace| console.progress(&format!("{split}: {of}"), done, all);
            if !has_source {
                let (known, validation) = (results.validation.as_ref(), corpora.validation.as_ref());
                let Some(temperature) =
                    temperature(&saved.model, &saved.tokenizers, config, known, validation, self.stop, &mut progress)?
                else {
                    return Ok(Done::Stopped);
                };
                evaluator = evaluator.with_temperature(temperature).with_learned(learned.clone());
            }
            // What is chosen on the validation split is chosen on the answers to it.
            if split == Split::Validation {
                evaluator = evaluator.choosing_threshold();
            } else {
                let (known, validation) = (results.validation.as_ref(), corpora.validation.as_ref());
                let Some(threshold) =
                    threshold(&saved.model, &saved.tokenizers, config, known, validation, self.stop, &mut progress)?
                else {
                    return Ok(Done::Stopped);
                };
                evaluator = evaluator.with_threshold(threshold);
            }
            let found = evaluator.evaluate(&saved.model, self.stop, &mut progress)?;
            self.console.clear();
            let Some(found) = found else { return Ok(Done::Stopped) };
            for warning in found.warnings() {
                self.console.warn(&format!("{split}: {warning}"));
            }
            let Evaluation { results: figures, answers, token_losses, .. } = found;
            finished::write_answers(&self.run.predictions_path(split.name()), &answers)?;
            finished::write_losses(&self.run.losses_path(split.name()), token_losses.as_ref())?;
            match split {
                Split::Validation => results.validation = Some(figures),
                _ => results.test = Some(figures),
            }
        }
        self.run.update_manifest(|manifest| {
            manifest.spend(self.watch.lap());
            (results.cpu_seconds, results.wall_seconds) = (manifest.cpu_seconds, manifest.wall_seconds);
        })?;
        self.run.write_results(&results)?;
        Ok(Done::Measured(results))
    }

    /// The run's model: the one that is there already, or the one that is trained now; `None` if that was interrupted or paused.
    fn trained_model(&mut self) -> Result<Option<SavedModel>> {
        let path = self.run.model_path();
        if path.is_file() {
            match SavedModel::read(&path, &device(self.experiment.config.device)?) {
                Ok(saved) => return Ok(Some(saved)),
                Err(error) => self.console.warn(&format!("{error}; it is made again from the checkpoint")),
            }
        }
        match self.experiment.train(self.run, &mut self.console, &mut self.watch, self.stop, self.pause)? {
            Trained::Complete(saved) => Ok(Some(*saved)),
            Trained::Stopped { steps } => {
                self.console.note(&format!("saved after step {steps}"));
                Ok(None)
            }
        }
    }
}

/// The run in a folder that the user named, if it is one of this experiment.
fn same_experiment(path: &Path, identity: &Identity) -> Result<Option<Run>> {
    let Some((run, manifest)) = Run::open(path).ok().and_then(|run| Some((run.clone(), run.manifest().ok()?))) else {
        return Ok(None);
    };
    if manifest.is_sibling(identity) && is_left_by_another(&manifest, identity) {
        return Err(left_by_another(&run, &manifest, "name another folder"));
    }
    Ok((manifest.digest == identity.digest()).then_some(run))
}

/// Whether another version began a run and did not finish it.
pub(super) fn is_left_by_another(manifest: &Manifest, identity: &Identity) -> bool {
    manifest.version != identity.version && manifest.status != Status::Finished
}

/// Nobody wants to begin anew unasked what another version has begun.
pub(super) fn left_by_another(run: &Run, manifest: &Manifest, anew: &str) -> Error {
    let (version, own) = (&manifest.version, env!("CARGO_PKG_VERSION"));
    let message = format!(
        "was begun by version {version} and is not finished; version {own} does not go on with it, since its figures may differ: \
         finish it with {version}, or {anew}"
    );
    Error::new(message).in_file(run.path())
}
