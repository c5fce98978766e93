//! From batches to a trained model: objective, gradients, optimizer, schedule, validation, checkpoints.
//!
//! One optimizer step, as [`Training::run`] makes it:
//!
//! ```text
//! batch ─▶ Objective (the model's part) ─▶ terms, summed ─▶ backward ─▶ gradients, added over `accumulate` batches
//!   ─▶ global norm ─▶ one factor: 1 / tokens, and clipping ─▶ one fused pass a parameter: penalties, optimizer, rate
//!   ─▶ the average of the weights, if there is one
//! ```
//!
//! The loop knows no model (it is generic over Burn's `Module`), no search and no metric: the caller hands in an
//! [`Objective`], [`Batches`], a [`Validator`] and an [`Observer`]. All that the future of a run depends on is in its
//! [`Checkpoint`], so training `2N` steps and training `N`, being killed, and training `N` more give the same bytes. A run that has
//! ended goes on from its last one ([`extend_checkpoints`]).
//!
//! Parts of a model are named by the paths of their parameters: those that start from another model ([`Inherited`]), and those that
//! are frozen or have terms of their own ([`ParametersConfig`]).

#![forbid(unsafe_code)]

mod archive;
mod average;
mod carried;
mod checkpoint;
mod config;
mod extend;
mod gradients;
mod late;
mod mean;
mod model_file;
mod observer;
mod optimizer;
mod parameters;
mod part;
mod path;
mod patience;
mod schedule;
mod start;
mod teacher;
mod training;
mod weights;

pub use average::{
    AverageConfig, AverageState, ExponentialAverageConfig, ModelsAverageConfig, NoAverageConfig, TriggeredAverageConfig,
};
pub use checkpoint::{Best, Checkpoint, State, checkpoint_path, chosen_checkpoint, newest_checkpoint};
pub use config::{CheckpointConfig, LossConfig, StopConfig, TrainConfig, ValidateConfig};
pub use extend::{Restarts, extend_checkpoints, reaches};
pub use gradients::parameters_without_gradient;
pub use mean::Mean;
pub use model_file::{ModelFile, write_ensemble, write_model};
pub use observer::{MeanReport, Observer, StepReport, ValidationReport};
pub use optimizer::{AdagradConfig, AdamConfig, AdamwConfig, OptimizerConfig, RmspropConfig, SgdConfig};
pub use parameters::ParametersConfig;
pub use part::no_such_part;
pub use patience::Patience;
pub use schedule::{
    ConstantConfig, CosineConfig, InverseSqrtConfig, LinearConfig, NoamConfig, PlateauConfig, ScheduleBegin,
    ScheduleConfig, StepConfig,
};
pub use start::{Inherited, Rows, Slices, StartConfig, StartTokenizers};
pub use teacher::{TeacherCombination, TeacherConfig};
pub use training::{
    Averaged, Batches, Ended, Objective, Outcome, Pause, Progress, Training, Validation, Validator, planned_steps,
};
pub use weights::{Weight, load_weights, save_weights, shapes};
