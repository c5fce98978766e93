//! All that the future of a run depends on, in one file.
//!
//! `step-0000012345.safetensors` holds arrays in parts, `model.<path>`, `average.<path>`, `start.<path>`,
//! `optimizer.<slot>.<path>` and `carry.<name>`, and the [`State`]. Random numbers and the order of the data are functions of the seed, the step and the epoch, so they need no state.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Result, disk};
use serde::{Deserialize, Serialize};

use crate::archive::{self, Archive, Failure};
use crate::schedule::{PlateauState, ScheduleBegin};
use crate::{AverageState, Observer, Patience, Weight};

const KIND: &str = "checkpoint";
const EXTENSION: &str = "safetensors";

/// Every part of a checkpoint, with the first format whose readers know it. A file is written in the format that its parts need,
/// so that older versions read what has nothing new in it; they tell a newer format from damage.
const PARTS: [(&str, u64); 5] = [(MODEL, 1), (OPTIMIZER, 1), (CARRY, 2), (AVERAGE, 3), (START, 4)];
/// The same of a state that tells of an average, of one whose schedule did not begin with the run, and of one that keeps models.
const AVERAGE_STATE: u64 = 3;
const SCHEDULE_STATE: u64 = 4;
const KEPT_STATE: u64 = 4;

/// The model's parameters.
pub(crate) const MODEL: &str = "model";
/// What the optimizer remembers, each as `<slot>.<path>`.
pub(crate) const OPTIMIZER: &str = "optimizer";
/// What the last batch handed on to the next.
pub(crate) const CARRY: &str = "carry";
/// The average of the model's parameters, where one has begun; not of those that are frozen.
pub(crate) const AVERAGE: &str = "average";
/// Where parameters started that are drawn back to it.
pub(crate) const START: &str = "start";

/// The best validation so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// The steps that were done then.
    pub step: u64,
    /// The monitored figure.
    pub value: f64,
}

/// Where a run stands, besides its arrays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Optimizer steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Batches of the current epoch done.
    pub batch: u64,
    /// The run's seed.
    pub seed: u64,
    /// The caller's digest of all settings that decide the run.
    pub settings: String,
    /// The step of the last validation; 0 before the first.
    pub validated: u64,
    /// The best validation.
    pub best: Option<Best>,
    /// The validated models that are kept to be averaged, the first ones to be averaged first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Best>,
    /// Early stopping.
    pub stop: Patience,
    /// The plateau schedule.
    pub plateau: PlateauState,
    /// Where the schedule began.
    #[serde(default, skip_serializing_if = "ScheduleBegin::is_new")]
    pub schedule: ScheduleBegin,
    /// How many updates the optimizer has given to each parameter.
    pub updates: BTreeMap<String, u64>,
    /// The average of the weights.
    #[serde(default, skip_serializing_if = "AverageState::is_new")]
    pub average: AverageState,
}

impl State {
    /// The steps whose models may still be given: the best one, and those that are kept.
    pub(crate) fn wanted(&self) -> Vec<u64> {
        self.best.iter().chain(&self.kept).map(|best| best.step).collect()
    }

    /// Before the first step.
    pub(crate) fn new(seed: u64, settings: &str) -> Self {
        Self {
            step: 0,
            epoch: 0,
            batch: 0,
            seed,
            settings: settings.into(),
            validated: 0,
            best: None,
            kept: Vec::new(),
            stop: Patience::default(),
            plateau: PlateauState::default(),
            schedule: ScheduleBegin::default(),
            updates: BTreeMap::new(),
            average: AverageState::default(),
        }
    }
}

/// A saved run.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Where it stands.
    pub state: State,
    /// Its arrays, by the parts that they belong to. A part without arrays is absent.
    pub(crate) parts: BTreeMap<&'static str, Vec<Weight>>,
}

impl Checkpoint {
    /// A run's state with its parts.
    pub(crate) fn new(state: State, parts: [(&'static str, Vec<Weight>); PARTS.len()]) -> Self {
        Self { state, parts: parts.into_iter().filter(|(_, arrays)| !arrays.is_empty()).collect() }
    }

    /// The arrays of a part, which are then gone.
    pub(crate) fn take(&mut self, part: &str) -> Vec<Weight> {
        self.parts.remove(part).unwrap_or_default()
    }

    /// The parameters of the model that a run would give if it ended here: their average, where there is one.
    pub fn into_model(self) -> Vec<Weight> {
        let mut given = self.without_training();
        let mut weights = given.take(AVERAGE);
        weights.extend(given.take(MODEL));
        weights
    }

    /// The same without what only training needs.
    #[must_use]
    pub fn without_training(mut self) -> Self {
        self.parts.retain(|&part, _| [MODEL, AVERAGE].contains(&part));
        let averaged = self.parts.get(AVERAGE).into_iter().flatten().map(|array| array.path.clone());
        let averaged: BTreeSet<String> = averaged.collect();
        // What is frozen has no average.
        self.parts.entry(MODEL).or_default().retain(|array| !averaged.contains(&array.path));
        self.parts.retain(|_, arrays| !arrays.is_empty());
        self
    }

    /// Reads and verifies one file.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, is not a checkpoint or was written by a newer version.
    pub fn read(path: &Path) -> Result<Self> {
        Self::try_read(path).map_err(|failure| failure.into_error(path))
    }

    fn try_read(path: &Path) -> Result<Self, Failure> {
        let Archive { kind, content, arrays, .. } = archive::read(path)?;
        if kind != KIND {
            return Err(Failure::Damaged(format!("it holds a {kind}, not a {KIND}")));
        }
        let state = serde_json::from_value(content).map_err(|error| Failure::Damaged(error.to_string()))?;
        let mut parts: BTreeMap<&'static str, Vec<Weight>> = BTreeMap::new();
        for array in arrays {
            let (part, path) = array.path.split_once('.').unwrap_or((&array.path, ""));
            let Some((part, _)) = PARTS.iter().find(|(name, _)| *name == part) else {
                return Err(Failure::Damaged(format!("the array `{}` belongs to nothing", array.path)));
            };
            parts.entry(part).or_default().push(Weight { path: path.to_owned(), ..array });
        }
        Ok(Self { state, parts })
    }

    /// Writes the checkpoint into `folder`, as a whole or not at all. The same checkpoint gives the same bytes.
    ///
    /// # Errors
    /// If the file system refuses.
    pub(crate) fn write(self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).map_err(|source| Error::io(folder, "create the folder", &source))?;
        let path = checkpoint_path(folder, self.state.step);
        let content = serde_json::to_value(&self.state).expect("a state is JSON");
        let formats = PARTS.iter().filter(|(part, _)| self.parts.contains_key(part)).map(|(_, format)| *format);
        let of_state = [
            (!self.state.average.is_new()).then_some(AVERAGE_STATE),
            (!self.state.schedule.is_new()).then_some(SCHEDULE_STATE),
            (!self.state.kept.is_empty()).then_some(KEPT_STATE),
        ];
        let format = formats.chain(of_state.into_iter().flatten()).max();
        let within = |(part, arrays): (&'static str, Vec<Weight>)| {
            arrays.into_iter().map(move |array| Weight { path: format!("{part}.{}", array.path), ..array })
        };
        let arrays = self.parts.into_iter().flat_map(within).collect();
        archive::write(&path, Archive { format: format.unwrap_or(1), kind: KIND.into(), content, arrays })?;
        Ok(path)
    }
}

/// Where the checkpoint after `step` steps lies.
pub fn checkpoint_path(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("step-{step:010}.{EXTENSION}"))
}

/// The steps of all checkpoints in a folder, in order. A folder that does not exist has none.
///
/// # Errors
/// If the folder cannot be read.
pub(crate) fn steps_in(folder: &Path) -> Result<Vec<u64>> {
    let mut steps: Vec<u64> = names_in(folder)?
        .iter()
        .filter_map(|name| name.strip_prefix("step-")?.strip_suffix(EXTENSION)?.strip_suffix('.')?.parse().ok())
        .collect();
    steps.sort_unstable();
    Ok(steps)
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let refused = |error| Error::io(folder, "list", &error);
    match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(refused(error)),
        Ok(entries) => {
            let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            names.collect::<std::io::Result<_>>().map_err(refused)
        }
    }
}

/// The newest usable checkpoint in a folder; `None` if there is none, and the run begins at step 0. A damaged one is
/// reported to `observer` and put aside as `step-….damaged`, and the one before it is taken. Since a run is the same bytes
/// from whichever checkpoint it goes on, no more than time is lost.
///
/// # Errors
/// If a checkpoint was written by a newer version, or the folder cannot be read or written.
pub fn newest_checkpoint(folder: &Path, observer: &mut dyn Observer) -> Result<Option<Checkpoint>> {
    let steps = steps_in(folder)?;
    for (older, &step) in steps.iter().enumerate().rev() {
        let path = checkpoint_path(folder, step);
        match Checkpoint::try_read(&path) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(Failure::Damaged(what)) => {
                let aside = path.with_extension("damaged");
                fs::rename(&path, &aside).map_err(|source| Error::io(&path, "rename", &source))?;
                let goes_on = if older > 0 { "trying the one before it" } else { "none is left: starting at step 0" };
                let (path, aside) = (path.display(), aside.display());
                observer.warning(&format!("{path}: the checkpoint is damaged ({what}), now {aside}; {goes_on}"));
            }
            Err(failure) => return Err(failure.into_error(&path)),
        }
    }
    Ok(None)
}

/// The checkpoint in a folder that validation finds best so far, or the newest if none is: of those that can be read; with whether
/// it is the best. `None` if there are none. Nothing is touched: the run may be at work, and delete old ones.
///
/// # Errors
/// If a checkpoint was written by a newer version, or the folder cannot be read.
pub fn chosen_checkpoint(folder: &Path) -> Result<Option<(Checkpoint, bool)>> {
    let read = |step: u64| match Checkpoint::try_read(&checkpoint_path(folder, step)) {
        Ok(checkpoint) => Ok(Some(checkpoint)),
        Err(Failure::Damaged(_)) => Ok(None),
        Err(Failure::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(failure) => Err(failure.into_error(&checkpoint_path(folder, step))),
    };
    for &step in steps_in(folder)?.iter().rev() {
        let Some(newest) = read(step)? else { continue };
        return Ok(Some(match newest.state.best {
            Some(Best { step: best, .. }) if best == step => (newest, true),
            Some(Best { step: best, .. }) => read(best)?.map_or((newest, false), |best| (best, true)),
            None => (newest, false),
        }));
    }
    Ok(None)
}

/// Deletes checkpoints up to `step`, except the newest `keep` of them and those that are `wanted`, and what interrupted writes
/// left.
///
/// # Errors
/// If a file cannot be deleted.
pub(crate) fn prune(folder: &Path, step: u64, keep: usize, wanted: &[u64]) -> Result<()> {
    let steps: Vec<u64> = steps_in(folder)?.into_iter().filter(|&s| s <= step).collect();
    let old = &steps[..steps.len().saturating_sub(keep)];
    for path in old.iter().filter(|step| !wanted.contains(step)).map(|&step| checkpoint_path(folder, step)) {
        fs::remove_file(&path).map_err(|source| Error::io(&path, "delete", &source))?;
    }
    // The folder is of this run alone.
    disk::sweep(folder);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(step: u64) -> Checkpoint {
        let weight = |path: &str| Weight { path: path.into(), dims: vec![2], values: vec![step as f32, 0.5] };
        let mut state = State::new(u64::MAX, "digest");
        state.step = step;
        state.best = Some(Best { step: 1, value: 0.1 + 0.2 });
        state.updates.insert("a.b".into(), step);
        let (model, optimizer) = (vec![weight("a.b")], vec![weight("velocity.a.b")]);
        Checkpoint::new(
            state,
            [(MODEL, model), (OPTIMIZER, optimizer), (CARRY, vec![]), (AVERAGE, vec![]), (START, vec![])],
        )
    }

    #[derive(Default)]
    struct Warnings(Vec<String>);

    impl Observer for Warnings {
        fn warning(&mut self, message: &str) {
            self.0.push(message.into());
        }
    }

    #[test]
    fn the_newest_is_taken_and_the_newest_and_the_best_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("checkpoints");
        assert_eq!(newest_checkpoint(&folder, &mut ()).unwrap(), None);
        for step in 1..=12 {
            checkpoint(step).write(&folder).unwrap();
            fs::write(folder.join(".step-0000000099.safetensors.1-1.tmp"), b"cut off").unwrap();
            prune(&folder, step, 3, &[1]).unwrap();
        }
        assert_eq!(steps_in(&folder).unwrap(), [1, 10, 11, 12]);
        assert_eq!(names_in(&folder).unwrap().len(), 4);
        assert_eq!(newest_checkpoint(&folder, &mut ()).unwrap(), Some(checkpoint(12)));
        prune(&folder, 11, 1, &[]).unwrap();
        assert_eq!(steps_in(&folder).unwrap(), [11, 12]);
    }

    #[test]
    fn a_file_has_the_format_that_its_parts_need() {
        let folder = tempfile::tempdir().unwrap();
        let format = |checkpoint: Checkpoint| {
            let path = checkpoint.clone().write(folder.path()).unwrap();
            assert_eq!(Checkpoint::read(&path).unwrap(), checkpoint);
            archive::read(&path).unwrap().format
        };
        assert_eq!(format(checkpoint(1)), 1);
        let mut carries = checkpoint(2);
        carries.parts.insert(CARRY, vec![Weight { path: "layers.0".into(), dims: vec![1, 2], values: vec![0.5, 1.0] }]);
        assert_eq!(format(carries.clone()), 2);
        assert_eq!(carries.without_training().parts.keys().collect::<Vec<_>>(), [&MODEL]);
        // An average that has not begun yet has a state, and no arrays.
        let mut waits = checkpoint(3);
        waits.state.average.recent.push(0.5);
        assert_eq!(format(waits), 3);
        let mut averages = checkpoint(4);
        let mean = vec![Weight { path: "a.b".into(), dims: vec![2], values: vec![7.0, 8.0] }];
        averages.parts.insert(AVERAGE, mean.clone());
        assert_eq!(format(averages.clone()), 3);
        assert_eq!(averages.clone().into_model(), mean);
        assert_eq!(averages.without_training().into_model(), mean);
        let mut draws = checkpoint(5);
        draws.parts.insert(START, mean);
        assert_eq!(format(draws.clone()), 4);
        assert_eq!(draws.without_training().parts.keys().collect::<Vec<_>>(), [&MODEL]);
    }

    #[test]
    fn what_is_not_averaged_is_given_as_it_is() {
        let array = |path: &str, value: f32| Weight { path: path.into(), dims: vec![1], values: vec![value] };
        let parts = [
            (MODEL, vec![array("a", 1.0), array("b", 2.0)]),
            (OPTIMIZER, vec![array("velocity.a", 3.0)]),
            (CARRY, vec![]),
            (AVERAGE, vec![array("b", 4.0)]),
            (START, vec![]),
        ];
        let checkpoint = Checkpoint::new(State::new(1, "digest"), parts);
        let mut given = checkpoint.without_training().into_model();
        given.sort_by(|one, other| one.path.cmp(&other.path));
        assert_eq!(given, [array("a", 1.0), array("b", 4.0)]);
    }

    #[test]
    fn the_best_is_chosen_or_else_the_newest_and_nothing_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(chosen_checkpoint(&folder.path().join("none")).unwrap(), None);
        for step in [1, 2, 3] {
            checkpoint(step).write(folder.path()).unwrap();
        }
        let path = |step| checkpoint_path(folder.path(), step);
        let chosen = || chosen_checkpoint(folder.path()).unwrap();
        assert_eq!(chosen(), Some((checkpoint(1), true)), "that is what all of them call the best");
        fs::remove_file(path(1)).unwrap();
        assert_eq!(chosen(), Some((checkpoint(3), false)));
        fs::write(path(1), b"cut").unwrap();
        assert_eq!(chosen(), Some((checkpoint(3), false)));
        fs::write(path(3), b"cut").unwrap();
        assert_eq!(chosen(), Some((checkpoint(2), false)));
        fs::write(path(2), b"cut").unwrap();
        assert_eq!(chosen(), None);
        assert_eq!(names_in(folder.path()).unwrap().len(), 3);
    }

    #[test]
    fn a_damaged_one_is_reported_and_an_older_one_used() {
        let folder = tempfile::tempdir().unwrap();
        for step in [1, 2] {
            checkpoint(step).write(folder.path()).unwrap();
        }
        let path = checkpoint_path(folder.path(), 2);
        let good = fs::read(&path).unwrap();
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        let mut warnings = Warnings::default();
        assert_eq!(newest_checkpoint(folder.path(), &mut warnings).unwrap(), Some(checkpoint(1)));
        assert_eq!(warnings.0.len(), 1);
        assert!(warnings.0[0].contains("step-0000000002.safetensors: the checkpoint is damaged"), "{:?}", warnings.0);

        fs::write(checkpoint_path(folder.path(), 1), b"").unwrap();
        let mut warnings = Warnings::default();
        assert_eq!(newest_checkpoint(folder.path(), &mut warnings).unwrap(), None);
        assert!(warnings.0[0].ends_with("none is left: starting at step 0"), "{:?}", warnings.0);
        // What is damaged is out of the way, but still there.
        assert!(steps_in(folder.path()).unwrap().is_empty());
        assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), good[..good.len() - 1]);
    }
}
