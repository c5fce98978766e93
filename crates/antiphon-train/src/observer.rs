//! What a run tells while it runs.

use std::collections::BTreeMap;
use std::path::Path;

use antiphon_core::Result;

use crate::Validation;

/// One optimizer step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Its number, from 1.
    pub step: u64,
    /// The steps of the whole run, if nothing ends it earlier.
    pub total_steps: u64,
    /// Its epoch, from 0.
    pub epoch: u64,
    /// The batches of this epoch.
    pub batches: u64,
    /// The batches of this epoch that are done.
    pub batches_done: u64,
    /// The training loss in nats per real target token: all terms of the model, label smoothing and dropout included, but not the
    /// penalties `l1` and `l2`.
    pub loss: f64,
    /// The part of a teacher in that loss, without its share, in nats per real target token: the cross-entropy of the model to what
    /// the teacher holds, times the square of the temperature. `None` where nobody teaches.
    pub teacher_loss: Option<f64>,
    /// The learning rate.
    pub learning_rate: f64,
    /// The global norm of the gradient of that loss, before clipping.
    pub gradient_norm: f64,
    /// The real target tokens of the step.
    pub tokens: u64,
    /// The wall time of the step, waiting for its batches included.
    pub seconds: f64,
}

/// One validation.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidationReport {
    /// The steps done.
    pub step: u64,
    /// The epochs done.
    pub epoch: u64,
    /// What the validator found.
    pub validation: Validation,
    /// Whether the monitored figure is the best of the run so far.
    pub best: bool,
    /// Validations in a row without an improvement that counts for early stopping.
    pub waited: u64,
    /// Whether the average of the weights begins here.
    pub average_begins: bool,
    /// The wall time of the validation.
    pub seconds: f64,
}

/// A mean of models of the run, judged at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct MeanReport {
    /// The steps behind which its models stood.
    pub steps: Vec<u64>,
    /// What the validator found.
    pub values: BTreeMap<String, f64>,
    /// Whether it is better than all models and means so far.
    pub best: bool,
}

/// Follows a run: progress bars, logs and prints are all somebody else's. An error ends the run.
pub trait Observer {
    /// An optimizer step was made.
    ///
    /// # Errors
    /// If what the observer writes cannot be written.
    fn step(&mut self, report: &StepReport) -> Result<()> {
        let _ = report;
        Ok(())
    }

    /// The model was validated.
    ///
    /// # Errors
    /// If what the observer writes cannot be written.
    fn validation(&mut self, report: &ValidationReport) -> Result<()> {
        let _ = report;
        Ok(())
    }

    /// A mean of models was judged.
    ///
    /// # Errors
    /// If what the observer writes cannot be written.
    fn mean(&mut self, report: &MeanReport) -> Result<()> {
        let _ = report;
        Ok(())
    }

    /// A checkpoint will be written now: what belongs to the steps before it should be on disk first.
    ///
    /// # Errors
    /// If what the observer writes cannot be written.
    fn before_checkpoint(&mut self) -> Result<()> {
        Ok(())
    }

    /// A checkpoint was written.
    ///
    /// # Errors
    /// If what the observer writes cannot be written.
    fn checkpoint(&mut self, path: &Path) -> Result<()> {
        let _ = path;
        Ok(())
    }

    /// Something is not as it should be, but the run goes on.
    fn warning(&mut self, message: &str) {
        let _ = message;
    }
}

/// Follows in silence.
impl Observer for () {}
