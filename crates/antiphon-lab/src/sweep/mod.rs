//! Sweeps: one config in many variations.
//!
//! ```text
//! [sweep] ─▶ cells ─▶ Plan ─▶ SweepFolder ─▶ Sweep ─▶ Outcome
//!            drawn    every   configs, logs  child     ranked by validation,
//!                     cell    exit codes     processes the best one tested
//!                     checked                or Slurm
//! ```
//!
//! A *cell* is a combination of settings; it is run once for each seed. A run of a sweep is a run like any other, in a
//! process of its own, found again by its [identity](crate::Identity): so a sweep has little to remember, and goes on where
//! it was. What settings mean is asked of a [`Meaning`].

mod cells;
mod config;
mod drive;
mod folder;
mod halving;
mod local;
mod plan;
mod slurm;

pub use cells::{Cell, cells};
pub use config::{
    Axis, Budget, Condition, Distribution, GridConfig, HalvingConfig, RandomConfig, SweepConfig, SweepStrategy,
};
pub use drive::{Ended, Launcher, Outcome, Ranked, Sweep, Watcher};
pub use folder::{Kept, State, SweepFolder};
pub use halving::{Climb, Halving};
pub use local::{LIFELINE, call};
pub use plan::{Checked, Figure, Meaning, Plan, PlannedRun};
pub use slurm::SlurmConfig;
