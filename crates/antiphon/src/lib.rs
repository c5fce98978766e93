//! Recurrent encoder-decoder language models: the experiment and the command line.
//!
//! ```text
//! config.toml ─▶ Loaded ─▶ Experiment ─ train ─▶ Trained ─▶ model.safetensors ─▶ SavedModel ─▶ answers, figures
//!                checked    files read    run folder          everything in one file
//! ```
//!
//! [`experiment`] composes the other crates into one experiment; [`commands`] is the command line around it.

#![forbid(unsafe_code)]

pub mod commands;
mod console;
mod dashboard;
mod device;
pub mod experiment;
mod feature;
mod interrupt;
mod output;
mod revision;

pub use device::DeviceConfig;
pub use experiment::{Experiment, ExperimentConfig, Loaded, SavedModel, SavedModels};
