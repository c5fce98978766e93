//! Going on with a run that has ended: its last checkpoint becomes the first one of a longer run.

use std::path::Path;

use antiphon_core::{Error, Result};

use crate::Patience;
use crate::checkpoint::{Checkpoint, OPTIMIZER, checkpoint_path, steps_in};
use crate::schedule::{PlateauState, ScheduleBegin};

/// What begins anew when a run goes on; all else is kept: parameters, averages, the best model so far, the place in the corpus, and
/// where the training started of parameters that are drawn towards it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restarts {
    /// The schedule of the learning rate, its warm-up too: the first new step is its first one.
    pub schedule: bool,
    /// All that the optimizer remembers.
    pub optimizer: bool,
    /// What early stopping has counted.
    pub patience: bool,
}

impl Restarts {
    /// What begins anew, by name.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [("schedule", self.schedule), ("optimizer", self.optimizer), ("patience", self.patience)];
        all.into_iter().filter_map(|(name, restarts)| restarts.then_some(name))
    }
}

/// Whether a folder has a checkpoint of a run that is as far as `step`.
///
/// # Errors
/// If it cannot be read.
pub fn reaches(folder: &Path, step: u64) -> Result<bool> {
    Ok(steps_in(folder)?.last().is_some_and(|&last| last >= step))
}

/// Writes into `folder` what a run goes on from that another one left in `from` after its last `step`, and the models that this one
/// has found best or keeps to be averaged. `settings`: the digest of those of the new run.
///
/// # Errors
/// If a checkpoint is gone or damaged, or the folder cannot be written.
pub fn extend_checkpoints(from: &Path, folder: &Path, step: u64, restarts: Restarts, settings: &str) -> Result<()> {
    let read = |step: u64| {
        let path = checkpoint_path(from, step);
        Checkpoint::read(&path).map_err(|error| {
            let cause = error.problems.into_iter().map(|problem| problem.to_string()).collect::<Vec<_>>().join("; ");
            let message = format!(
                "{cause}: without it the run cannot go on; restore it from a copy, or begin a new run from its model: \
                 `train.start_from.model`"
            );
            Error::new(message).in_file(path)
        })
    };
    let mut last = read(step)?;
    // They keep the settings of their run, since no training goes on from there. The last one is written last: with it the run
    // has begun.
    for wanted in last.state.wanted().into_iter().filter(|&wanted| wanted != step) {
        read(wanted)?.write(folder)?;
    }
    let state = &mut last.state;
    settings.clone_into(&mut state.settings);
    if restarts.schedule {
        state.schedule = ScheduleBegin { step: state.step, epoch: state.epoch };
        state.plateau = PlateauState::default();
    }
    if restarts.patience {
        state.stop = Patience::default();
    }
    if restarts.optimizer {
        state.updates.clear();
        last.take(OPTIMIZER);
    }
    last.write(folder).map(|_| ())
}
