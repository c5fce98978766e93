//! The model that a command is about: in a run, in a file, or of a config.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use antiphon_config::{Tree, keys, to_toml};
use antiphon_core::{Error, Place, Result};
use antiphon_lab::{Manifest, Run, Runs};
use antiphon_train::{Checkpoint, checkpoint_path, chosen_checkpoint};
use clap::CommandFactory;

use super::hints::settings_meant;
use super::{CommandLine, runs_option};
use crate::device::{DeviceConfig, device, thread_count};
use crate::experiment::{ExperimentConfig, Loaded, SavedModel, SavedModels};
use crate::output::{command, shell, tell};

/// The sections, and the single settings, that can be changed when the model is trained: how it is searched and judged, and by
/// which rules lines are read. `*` stands for any name.
const CHANGEABLE: [&str; 22] = [
    "search",
    "evaluate",
    "data.candidates",
    "data.column",
    "data.columns",
    "data.each_row",
    "data.end",
    "data.format",
    "data.max_frames",
    "data.max_line",
    "data.max_source",
    "data.max_target",
    "data.min_frames",
    "data.on_bad_line",
    "data.source",
    "data.start",
    "data.target",
    "data.too_long",
    "features.resample",
    "rerank",
    "streams.*.column",
    "streams.*.max_length",
];

/// How many threads are asked for, and what is to be done when the run is known and nothing has been read of its model.
pub(super) struct Begin<'a> {
    /// As many as these, of runs that differ in nothing else.
    pub(super) threads: Option<usize>,
    /// Gets the run, if it is one.
    pub(super) begin: &'a dyn Fn(Option<&Run>) -> Result<()>,
}

/// Where a trained model lies.
#[derive(Debug)]
pub(super) struct Target {
    /// Its file.
    pub(super) path: PathBuf,
    /// The run whose model it is; none of a run that is still to be trained to its end.
    pub(super) run: Option<Run>,
    /// The run of a checkpoint, and what was read of this.
    unfinished: Option<(Run, Checkpoint)>,
    /// What is to be changed of its settings.
    pub(super) sets: Vec<String>,
}

impl Begin<'static> {
    /// Nothing is to be done.
    pub(super) fn quietly(threads: Option<usize>) -> Self {
        Self { threads, begin: &|_| Ok(()) }
    }
}

impl Target {
    /// Finds the model of `what`: a run's folder (or its name below the folder of runs), a model file, or a config
    /// whose experiment has been run. A run that is not trained to its end answers by a checkpoint, which is said.
    /// Assignments outside of `[search]` and `[evaluate]` belong to the config. `data` are the words that name the folder of data
    /// sets to another command.
    pub(super) fn find(
        what: &Path,
        sets: &[String],
        runs: &Runs,
        data: &[OsString],
        begin: &Begin<'_>,
    ) -> Result<Self> {
        let (changes, others): (Vec<String>, Vec<String>) = sets.iter().cloned().partition(|set| is_changeable(set));
        let is_config = what.extension().is_some_and(|e| e == "toml") && !what.is_dir();
        if !is_config {
            check_changeable(&others)?;
        }
        let below = runs.root().join(what);
        let run = if is_config {
            // A run that was made with all of these settings comes before one that was made without some of them.
            if let Some(run) = run_of(what, sets, runs, begin.threads)? {
                return Self::of_run(run, Vec::new(), begin);
            }
            run_of(what, &others, runs, begin.threads)?.ok_or_else(|| {
                let mut words: Vec<OsString> = vec!["run".into(), what.into()];
                words.extend(sets.iter().flat_map(|set| ["--set".into(), set.into()]));
                words.extend(data.iter().cloned().chain(runs_option(runs)));
                let other = other_run_of(what, runs).map(|run| {
                    format!(", or name one of this config that was made with others, `{}`", shell(run.path()))
                });
                let (folder, run, other) = (runs.root().display(), command(words), other.unwrap_or_default());
                let message =
                    format!("has not been run with these settings (no such run in `{folder}`); do so: `{run}`{other}");
                Error::new(message).in_file(what)
            })?
        } else if what.is_file() {
            (begin.begin)(None)?;
            return Ok(Self { path: what.to_path_buf(), run: None, unfinished: None, sets: changes });
        } else if what.is_dir() {
            Run::open(what)?
        } else if below.is_dir() {
            Run::open(below)?
        } else {
            return Err(Error::new("no such run, model or config").in_file(what));
        };
        Self::of_run(run, changes, begin)
    }

    /// The model of a run, or its checkpoint; `sets` are changes of settings that a trained model can be given.
    pub(super) fn of_run(run: Run, sets: Vec<String>, begin: &Begin<'_>) -> Result<Self> {
        (begin.begin)(Some(&run))?;
        let path = run.model_path();
        if path.is_file() {
            return Ok(Self { path, run: Some(run), unfinished: None, sets });
        }
        let Some(Stand { path, what, checkpoint }) = Stand::of(&run)? else {
            let manifest = run.manifest()?;
            let remedy = match (run.state(&manifest)?, again(&run, &manifest)) {
                ("running", _) => "it is at work: wait for its first checkpoint".into(),
                _ if manifest.version != env!("CARGO_PKG_VERSION") => {
                    format!("it was begun by version {}, and only that goes on with it", manifest.version)
                }
                (_, Some(command)) => format!("it is not trained to its end; go on with `{command}`"),
                (_, None) => "it is not trained to its end; run its config once more to go on".into(),
            };
            return Err(Error::new(format!("has no model yet, and no checkpoint: {remedy}")).in_file(run.path()));
        };
        tell(&format!("warning: {}: is not trained to its end; it is taken as of {what}", run.path().display()));
        Ok(Self { path, run: None, unfinished: Some((run, checkpoint)), sets })
    }

    /// Finds and reads a model that stands alone: its file, and itself.
    pub(super) fn open_alone(what: &Path, runs: &Runs) -> Result<(PathBuf, SavedModel)> {
        let target = Self::find(what, &[], runs, &[], &Begin::quietly(None))?;
        let saved = target.open(DeviceConfig::default())?.into_alone().map_err(|error| error.in_file(&target.path))?;
        Ok((target.path, saved))
    }

    /// The run of which it is the model, or a checkpoint.
    pub(super) fn any_run(&self) -> Option<&Run> {
        self.run.as_ref().or(self.unfinished.as_ref().map(|(run, _)| run))
    }

    /// Whether it is a checkpoint of a run that is still to be trained to its end.
    pub(super) fn is_unfinished(&self) -> bool {
        self.unfinished.is_some()
    }

    /// The settings that the model has, or the first of its file, without any changes.
    pub(super) fn own_config(&self) -> Result<ExperimentConfig> {
        match &self.unfinished {
            Some((run, _)) => Ok(Loaded::from_tree(&Tree::load_with(&run.config_path(), &[], [])?)?.config),
            None => SavedModel::config_of(&self.path),
        }
    }

    /// Reads the model, or the models of its file, onto a device and changes the settings.
    pub(super) fn open(&self, on: DeviceConfig) -> Result<SavedModels> {
        let on = device(on).map_err(|error| error.at(Place::text("--device")))?;
        let mut models = match &self.unfinished {
            Some((run, checkpoint)) => {
                let saved = SavedModel::of_checkpoint(run, checkpoint.clone(), &on)?;
                SavedModels::alone(self.path.display().to_string(), saved)
            }
            None => SavedModels::read(&self.path, &on)?,
        };
        if !self.sets.is_empty() {
            for config in models.configs_mut() {
                *config = changed(config, &self.path, &self.sets).map_err(|e| e.in_file(&self.path))?;
            }
            models.read_as_set();
        }
        Ok(models)
    }

    /// Where its run has chosen on the validation split from which confidence on to answer, takes that, unless it is to be another now.
    pub(super) fn settle(&self, models: &mut SavedModels) {
        let is_own = !self.sets.iter().any(|set| is_of_no_answer(set));
        let results = self.run.as_ref().filter(|_| is_own).and_then(|run| run.results().ok().flatten());
        if let Some(threshold) = results.and_then(|results| results.validation?.selective?.threshold) {
            models.configs_mut().for_each(|config| config.evaluate.no_answer.settled(threshold));
        }
    }
}

/// The checkpoint that stands for a run without a model.
pub(super) struct Stand {
    /// Its file.
    pub(super) path: PathBuf,
    /// Which it is, for people.
    pub(super) what: String,
    /// What it holds, the optimizer's share left out.
    pub(super) checkpoint: Checkpoint,
}

impl Stand {
    /// The best by validation, or else the newest; `None` if there is none. The run may be at work.
    pub(super) fn of(run: &Run) -> Result<Option<Self>> {
        let folder = run.checkpoints_path();
        Ok(chosen_checkpoint(&folder)?.map(|(checkpoint, is_best)| {
            let checkpoint = checkpoint.without_training();
            let step = checkpoint.state.step;
            let which = if is_best { "best checkpoint so far" } else { "newest checkpoint" };
            Self { path: checkpoint_path(&folder, step), what: format!("its {which}, after step {step}"), checkpoint }
        }))
    }
}

/// The command that made a run, for the shell, such that it goes on with it to its end; `None` where it would now mean another
/// one: in another folder, with other variables, or since its config was changed.
pub(super) fn again(run: &Run, manifest: &Manifest) -> Option<String> {
    let (name, rest) = manifest.command.get(1..)?.split_first()?;
    if !["run", "train", "extend"].contains(&name.as_str()) {
        return None;
    }
    let mut words = vec![name];
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match word.split_once('=').map_or(word.as_str(), |(option, _)| option) {
            "--again" => {}
            "--pause-after-steps" | "--pause-after-epochs" if word.contains('=') => {}
            "--pause-after-steps" | "--pause-after-epochs" => drop(rest.next()),
            _ => words.push(word),
        }
    }
    match &manifest.parent {
        // It is known by the run that it goes on with.
        Some(parent) => Path::new(&parent.run).is_dir().then(|| command(words)),
        None => makes(&words, run, manifest).then(|| command(words)),
    }
}

/// Whether these words, given here and now, are about this run.
fn makes(words: &[&String], run: &Run, manifest: &Manifest) -> bool {
    let program = String::from("antiphon");
    let words = std::iter::once(&program).chain(words.iter().copied());
    let Ok(matches) = CommandLine::command().try_get_matches_from(words) else { return false };
    let Some((_, given)) = matches.subcommand() else { return false };
    let path = |id: &str| given.try_get_one::<PathBuf>(id).ok().flatten().cloned();
    let mut sets: Vec<String> = given.try_get_many("set").ok().flatten().into_iter().flatten().cloned().collect();
    let threads = given.try_get_one::<u16>("threads").ok().flatten();
    sets.extend(threads.map(|n| format!("threads={n}")));
    let on = given.try_get_one::<DeviceConfig>("device").ok().flatten();
    sets.extend(on.map(|device| format!("device={}", device.name())));
    let Some(Ok(loaded)) = path("config").map(|config| Loaded::read(&config, &sets)) else { return false };
    let same_folder = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    let is_there = match (path("run"), path("runs_dir"), run.path().parent()) {
        (Some(folder), ..) => same_folder(&folder, run.path()),
        (None, Some(runs), Some(own)) => same_folder(&runs, own),
        _ => false,
    };
    is_there
        && loaded.name == manifest.name
        && thread_count(loaded.config.threads) == manifest.threads
        && has_settings(run, &loaded.config)
}

/// Whether a setting, or an assignment of one, is one that a trained model can be given.
pub(super) fn is_changeable(set: &str) -> bool {
    let is_below = |pattern: &str| {
        let mut keys = key(set).trim().split('.');
        pattern.split('.').all(|wanted| keys.next().is_some_and(|key| wanted == "*" || wanted == key.trim()))
    };
    CHANGEABLE.into_iter().any(is_below)
}

/// The first part of an assignment's dotted key.
pub(super) fn section(set: &str) -> &str {
    key(set).split('.').next().unwrap_or_default().trim()
}

pub(super) fn key(set: &str) -> &str {
    set.split_once('=').map_or(set, |(key, _)| key)
}

/// Whether an assignment says which answers are withheld, by itself or among all of `evaluate`.
fn is_of_no_answer(set: &str) -> bool {
    let mut keys = key(set).split('.').map(str::trim);
    match (keys.next(), keys.next()) {
        (Some("evaluate"), None) => set.contains("no_answer"),
        (Some("evaluate"), Some(key)) => key == "no_answer",
        _ => false,
    }
}

/// Whether a config has a section of this name.
fn is_section(name: &str) -> bool {
    keys::<ExperimentConfig>().iter().any(|known| known == name)
}

/// Why an assignment outside of the changeable sections is refused: it is a slip, or comes too late.
fn refusal(set: &str) -> String {
    if is_section(section(set)) {
        return format!(
            "`{set}` cannot be changed for a model that is trained; what can is {}",
            CHANGEABLE.map(|key| format!("`{key}`")).join(", ")
        );
    }
    let mut meant = settings_meant(key(set));
    if !key(set).contains('.') {
        meant.retain(|key| is_changeable(key));
    }
    let meant = meant.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" or ");
    let meant = if meant.is_empty() { String::new() } else { format!("; did you mean {meant}?") };
    format!("no such setting: `{}`{meant}", key(set))
}

/// The run whose settings are those of a config; its data need not be there. Of several the [best](Made::of); which it is, is said.
fn run_of(config: &Path, sets: &[String], runs: &Runs, threads: Option<usize>) -> Result<Option<Run>> {
    let Loaded { config: settings, .. } = Loaded::read(config, sets)?;
    let found = Made::list(runs)?.of(&settings, thread_count(threads.or(settings.threads)))?;
    let best = found.first().map(|(run, _)| run.clone());
    if let Some(run) = &best {
        tell_of_others(config, run, found.len());
    }
    Ok(best)
}

/// Says which of several runs it is.
pub(super) fn tell_of_others(config: &Path, run: &Run, count: usize) {
    if count > 1 {
        tell(&format!("{}: {count} runs have these settings; this is {}", config.display(), run.path().display()));
    }
}

/// All runs that were made, with the settings that decide what each is. Damaged ones are left aside.
pub(super) struct Made(Vec<(Run, serde_json::Value)>);

impl Made {
    pub(super) fn list(runs: &Runs) -> Result<Self> {
        let made = |run: Run| settings_of(&run).map(|settings| (run, settings));
        Ok(Self(runs.list()?.into_iter().filter_map(made).collect()))
    }

    /// Those with the settings of a config, the best first: one with a model comes before one without, then one that begins at step 0
    /// before one that goes on with another, then one on `threads`, then the latest.
    pub(super) fn of(&self, settings: &ExperimentConfig, threads: usize) -> Result<Vec<(Run, Manifest)>> {
        let decisive = settings.decisive();
        let mut found = Vec::new();
        for (run, _) in self.0.iter().filter(|(_, own)| *own == decisive) {
            found.push((run.clone(), run.manifest()?));
        }
        // RFC 3339 in UTC: the order of the texts is that of the times; of those of one second the last comes first.
        found.reverse();
        found.sort_by_cached_key(|(run, manifest)| {
            let Manifest { parent, threads: own, started, .. } = manifest;
            Reverse((run.model_path().is_file(), parent.is_none(), *own == threads, started.clone()))
        });
        Ok(found)
    }
}

/// The latest run of a config, whatever was set beside it.
fn other_run_of(config: &Path, runs: &Runs) -> Option<Run> {
    let name = Loaded::read(config, &[]).ok()?.name;
    let of_name = |run: Run| {
        let manifest = run.manifest().ok().filter(|manifest| manifest.name == name)?;
        Some((manifest.started, run))
    };
    let found = runs.list().ok()?.into_iter().filter_map(of_name);
    found.max_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, run)| run)
}

/// Whether a run was made with these settings: what its own do not have, since they are older, is at its default.
fn has_settings(run: &Run, settings: &ExperimentConfig) -> bool {
    settings_of(run).is_some_and(|own| own == settings.decisive())
}

/// The settings that a run was made with, as far as they decide what it is.
fn settings_of(run: &Run) -> Option<serde_json::Value> {
    let own = run.config().ok().and_then(|own| serde_json::to_value(own).ok())?;
    Some(serde_json::from_value::<ExperimentConfig>(own).ok()?.decisive())
}

/// An assignment to a section that no config has.
pub(super) fn check_section(set: &str) -> Result<()> {
    let is_known = is_section(section(set));
    if is_known { Ok(()) } else { Err(Error::new(refusal(set)).at(Place::text("--set"))) }
}

/// An assignment that comes too late for a model that is trained, or is none.
pub(super) fn check_changeable(sets: &[String]) -> Result<()> {
    let other = sets.iter().find(|set| !is_changeable(set));
    other.map_or(Ok(()), |other| Err(Error::new(refusal(other)).at(Place::text("--set"))))
}

/// The settings of a model's file with some of them changed, checked like any config. The environment belongs to configs that are
/// still to be run.
pub(super) fn changed(config: &ExperimentConfig, file: &Path, sets: &[String]) -> Result<ExperimentConfig> {
    let text = to_toml(&serde_json::to_value(config).expect("a config is JSON"))?;
    Ok(Loaded::from_tree(&Tree::of_text(file, &text, sets)?)?.config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_sets_what_is_withheld_is_known() {
        for (set, expected) in [
            ("evaluate.no_answer.kind=never", true),
            ("evaluate . no_answer={kind='never'}", true),
            ("evaluate={no_answer={kind='fitted'}}", true),
            ("evaluate={rows=2}", false),
            ("evaluate.rows=2", false),
            ("search.no_answer=2", false),
        ] {
            assert_eq!(is_of_no_answer(set), expected, "{set}");
        }
    }
}
