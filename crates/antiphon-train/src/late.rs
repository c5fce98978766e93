//! What a step is reported by, read when it is made or, where the device need not be waited for, some steps later.
//!
//! A device with a queue computes the factor of a step's gradients itself, and the next step begins before this one is done. Loss and
//! norm are then read every few steps, and before anything that must not follow a step gone wrong: a validation, a checkpoint, the
//! end. So a run whose loss or gradient is no longer finite ends with the same error and the same files, only a few
//! steps later.

use std::ops::Range;
use std::time::Instant;

use antiphon_core::{Error, Result};
use burn::tensor::{Device, Tensor, TensorData, Transaction};

use antiphon_kernels::update::is_queued;

use crate::StepReport;

/// Steps whose figures are read together where reading waits.
const TOGETHER: usize = 16;

/// How many steps are made before their figures are read.
pub(crate) fn steps_together(device: Option<Device>) -> usize {
    if device.is_some_and(|device| is_queued(&device)) { TOGETHER } else { 1 }
}

/// Where a step's batches come from.
#[derive(Debug)]
pub(crate) struct Place {
    /// Counted from 1.
    pub(crate) step: u64,
    /// Counted from 0.
    pub(crate) epoch: u64,
    /// Counted from 0.
    pub(crate) batches: Range<u64>,
    /// The examples of each.
    pub(crate) examples: Vec<Vec<usize>>,
}

impl Place {
    /// The mean of the batches' losses over the step's tokens.
    ///
    /// # Errors
    /// If one of them is not finite.
    pub(crate) fn loss(&self, losses: &[f32], tokens: u64) -> Result<f64> {
        match losses.iter().position(|loss| !loss.is_finite()) {
            None => Ok(per_token(losses, tokens)),
            Some(i) => {
                let first = self.batches.start + i as u64;
                let batch = Place { batches: first..first + 1, examples: vec![self.examples[i].clone()], ..*self };
                Err(diverged("loss", f64::from(losses[i]), &batch))
            }
        }
    }

    /// The norm of a gradient, as it is.
    ///
    /// # Errors
    /// If it is not finite.
    pub(crate) fn norm(&self, norm: f64) -> Result<f64> {
        if norm.is_finite() { Ok(norm) } else { Err(diverged("gradient's norm", norm, self)) }
    }
}

/// Names a step's batches and their examples, all counted from 1 but the examples.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 16;
        let Place { step, epoch, batches, examples } = self;
        let all: Vec<String> = examples.iter().flatten().map(usize::to_string).collect();
        let more = match all.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let batch = if batches.end - batches.start == 1 {
            format!("batch {}", batches.end)
        } else {
            format!("batches {} to {}", batches.start + 1, batches.end)
        };
        let shown = all[..all.len().min(SHOWN)].join(", ");
        write!(f, "step {step}, epoch {}, {batch} (examples {shown}{more})", epoch + 1)
    }
}

fn diverged(what: &str, value: f64, place: &Place) -> Error {
    Error::new(format!(
        "the {what} is {value} at {place}: lower `train.optimizer.learning_rate`, set `train.clip_norm`, or look at these \
         examples; the last checkpoint is untouched"
    ))
}

/// The numbers of some `[1]`.
pub(crate) fn read_back(sums: Vec<Tensor<1>>) -> Vec<f32> {
    Tensor::cat(sums, 0).try_into_vec_as::<f32>().expect("a loss can be read back")
}

/// Summed over some batches, by the tokens of all.
pub(crate) fn per_token(nats: &[f32], tokens: u64) -> f64 {
    nats.iter().map(|&nats| f64::from(nats)).sum::<f64>() / tokens as f64
}

/// A step that was made.
#[derive(Debug)]
pub(crate) struct Made {
    /// Without loss and norm, as long as these are `unread`.
    pub(crate) report: StepReport,
    pub(crate) unread: Option<Unread>,
}

/// What of a step is still on its device.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) place: Place,
    pub(crate) began: Instant,
    /// `[1]` of each batch.
    pub(crate) losses: Vec<Tensor<1>>,
    /// `[1]` of each batch that a teacher has a part in.
    pub(crate) of_teacher: Vec<Tensor<1>>,
    /// `[2]`: the factor of the gradients, and their norm.
    pub(crate) scaling: Tensor<1>,
}

impl Unread {
    fn tensors(&self) -> impl Iterator<Item = &Tensor<1>> {
        self.losses.iter().chain(&self.of_teacher).chain([&self.scaling])
    }
}

/// The reports of some steps, in their order, as far as the first one whose loss or gradient is not finite. What is still on the device is
/// read at once, and the time that this took is shared out among the steps.
pub(crate) fn reports(made: Vec<Made>) -> Vec<Result<StepReport>> {
    let late: Vec<&Unread> = made.iter().filter_map(|made| made.unread.as_ref()).collect();
    let (count, began) = (late.len(), late.first().map(|unread| unread.began));
    let tensors = late.iter().flat_map(|unread| unread.tensors());
    let transaction = tensors.fold(Transaction::default(), |all, tensor| all.register(tensor.clone()));
    let mut numbers = if count == 0 { Vec::new() } else { transaction.execute() }.into_iter();
    let mut next = || {
        let number: Option<TensorData> = numbers.next();
        let number = number.expect("as many as were asked for").convert::<f32>();
        number.try_into_vec::<f32>().expect("figures can be read back")
    };
    let seconds = began.map(|began| began.elapsed().as_secs_f64() / count as f64);
    let mut report = |Made { mut report, unread }: Made| {
        let Some(Unread { place, losses, of_teacher, .. }) = unread else { return Ok(report) };
        let losses: Vec<f32> = losses.iter().flat_map(|_| next()).collect();
        let teachers: Vec<f32> = of_teacher.iter().flat_map(|_| next()).collect();
        let norm = next()[1];
        report.loss = place.loss(&losses, report.tokens)?;
        report.gradient_norm = place.norm(f64::from(norm))?;
        report.teacher_loss = (!teachers.is_empty()).then(|| per_token(&teachers, report.tokens));
        report.seconds = seconds.unwrap_or(report.seconds);
        Ok(report)
    };
    let mut found = Vec::new();
    for made in made {
        found.push(report(made));
        if found.last().is_some_and(Result::is_err) {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use antiphon_core::random::Key;
    use antiphon_core::{Batch, Special, Target};
    use antiphon_kernels::{Carry, Term};
    use burn::module::{Module, Param};

    use super::*;
    use crate::{Batches, Observer, Training, Validation, Validator};

    #[derive(Module, Debug)]
    struct Bowl {
        position: Param<Tensor<1>>,
        unused: Param<Tensor<1>>,
    }

    struct Corpus;

    impl Batches for Corpus {
        fn epoch(&self, _: u64, skip: usize) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
            let batch = |i: usize| {
                let target = Target::whole(&[vec![4, 5 + i as u32, Special::End.id()]]);
                Ok(Batch { sources: Vec::new(), target, continues: Vec::new(), examples: vec![i], copies: None })
            };
            Ok(Box::new((skip..6).map(batch)))
        }

        fn batches_in(&self, _: u64) -> usize {
            6
        }
    }

    /// What was heard, in its order: steps, validations, checkpoints.
    #[derive(Default)]
    struct Heard(Vec<(String, Vec<f64>)>);

    impl Observer for Heard {
        fn step(&mut self, report: &StepReport) -> Result<()> {
            self.0
                .push((format!("step {}", report.step), vec![report.loss, report.gradient_norm, report.learning_rate]));
            assert!(report.seconds > 0.0);
            Ok(())
        }

        fn validation(&mut self, report: &crate::ValidationReport) -> Result<()> {
            self.0.push((format!("validation after {}", report.step), vec![report.validation.values["loss"]]));
            Ok(())
        }

        fn checkpoint(&mut self, path: &std::path::Path) -> Result<()> {
            self.0.push((path.file_name().unwrap().to_string_lossy().into_owned(), vec![]));
            Ok(())
        }
    }

    /// A run of 11 steps over two batches each, which goes wrong with the third batch that is not finite, if there is one.
    fn run(together: usize, wrong: Option<(u64, f32)>) -> (Heard, Result<Vec<f32>>) {
        let config = serde_json::from_value(serde_json::json!({
            "steps": 11, "accumulate": 2, "clip_norm": 1.5, "l2": 1e-3,
            "optimizer": {"kind": "adam", "learning_rate": 0.1},
            "parameters": {"towards_start": {"unused": 0.1}},
            "validate": {"every_steps": 4, "every_epochs": 0}, "checkpoint": {"every_steps": 5, "keep": 9},
        }))
        .unwrap();
        let device = Device::flex();
        let parameter = |values: [f32; 3]| Param::from_tensor(Tensor::from_data(values, &device.clone().autodiff()));
        let model = Bowl { position: parameter([3.0, -2.0, 0.5]), unused: parameter([1.0, 2.0, 3.0]) };
        let made = std::cell::Cell::new(0);
        let objective = |model: &Bowl, batch: &Batch, _: &mut Carry, _: Key| {
            let away = model.position.val() - batch.examples[0] as f32;
            let loss = (away.clone() * away).sum() + model.unused.val().sum() * 0.01;
            made.set(made.get() + 1);
            let factor = wrong.filter(|&(number, _)| number == made.get()).map_or(1.0, |(_, factor)| factor);
            Ok(vec![Term::Sum { name: "distance", loss: loss * factor, weight: 1.0 }])
        };
        let mut validate = |model: &Bowl, _: &crate::Progress| {
            let loss = f64::from(model.position.val().sum().into_scalar::<f32>());
            Ok(Some(Validation { values: [("loss".to_owned(), loss)].into(), ..Validation::default() }))
        };
        let (folder, mut heard) = (tempfile::tempdir().unwrap(), Heard::default());
        let training = Training {
            config: &config,
            objective: &objective,
            batches: &Corpus,
            validator: Some(Validator { validate: &mut validate, lower_is_better: true }),
            observer: &mut heard,
            stop: &AtomicBool::new(false),
            pause: None,
            checkpoints: folder.path(),
            seed: 1,
            settings: "settings",
        };
        let outcome = training.run_reading(model, None, together);
        let values = outcome.map(|outcome| {
            let parts = [outcome.last.position.val(), outcome.last.unused.val()];
            Tensor::cat(parts.into(), 0).try_into_vec_as::<f32>().unwrap()
        });
        (heard, values)
    }

    #[test]
    fn figures_that_are_read_late_are_those_that_are_read_at_once() {
        let (at_once, values) = run(1, None);
        assert!(at_once.0.len() > 11 + 3 + 2, "{:?}", at_once.0);
        for together in [2, 3, 16] {
            let (late, late_values) = run(together, None);
            assert_eq!(late.0.len(), at_once.0.len());
            for ((what, late), (same, at_once)) in late.0.iter().zip(&at_once.0) {
                assert_eq!(what, same);
                assert!(late.iter().zip(at_once).all(|(a, b)| (a - b).abs() < 1e-5 * b.abs().max(1.0)), "{what}");
            }
            for (late, value) in late_values.unwrap().iter().zip(values.as_ref().unwrap()) {
                assert!((late - value).abs() < 1e-5, "{late} is not {value}");
            }
        }
    }

    #[test]
    fn a_step_gone_wrong_ends_the_run_with_the_same_error_and_nothing_is_heard_behind_it() {
        for wrong in [(11, f32::NAN), (14, f32::INFINITY), (3, 1e25)] {
            let (at_once, error) = run(1, Some(wrong));
            let error = error.unwrap_err().to_string();
            assert!(error.contains("lower `train.optimizer.learning_rate`"), "{error}");
            for together in [2, 5, 16] {
                let (late, same) = run(together, Some(wrong));
                assert_eq!(same.unwrap_err().to_string(), error);
                let names = |heard: &Heard| heard.0.iter().map(|(what, _)| what.clone()).collect::<Vec<_>>();
                assert_eq!(names(&late), names(&at_once));
            }
        }
    }
}
