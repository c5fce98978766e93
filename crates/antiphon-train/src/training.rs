//! The loop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Problem, Result};
use antiphon_kernels::{
    Carry, TaughtLoss, Term, attentively, copied_cross_entropy, cross_entropy, taught_cross_entropy,
};
use burn::module::Module;
use burn::tensor::Tensor;

use crate::average::Average;
use crate::carried::{load_carry, save_carry};
use crate::checkpoint::{self, AVERAGE, Best, CARRY, Checkpoint, MODEL, OPTIMIZER, START, State, checkpoint_path};
use crate::gradients::ParameterGradients;
use crate::late::{Made, Place, Unread, per_token, read_back, reports, steps_together};
use crate::optimizer::{Optimizer, Scale};
use crate::parameters::freeze;
use crate::schedule::{ScheduleBegin, When};
use crate::weights::{Places, initialise};
use crate::{Mean, MeanReport, Observer, StepReport, TrainConfig, ValidationReport, load_weights, save_weights};

/// The model's part of the loss: from a batch to the summands of its loss.
///
/// Every closure of this shape is one.
pub trait Objective<M> {
    /// Runs `model` over `batch` under teacher forcing. `carry` is what the batch before handed on, and becomes what this one
    /// hands on. Dropout masks are drawn below the key `dropout`, which differs from batch to batch.
    ///
    /// # Errors
    /// If the model cannot read this kind of batch.
    fn terms(&self, model: &M, batch: &Batch, carry: &mut Carry, dropout: Key) -> Result<Vec<Term>>;
}

impl<M, F: Fn(&M, &Batch, &mut Carry, Key) -> Result<Vec<Term>>> Objective<M> for F {
    fn terms(&self, model: &M, batch: &Batch, carry: &mut Carry, dropout: Key) -> Result<Vec<Term>> {
        self(model, batch, carry, dropout)
    }
}

/// The loss of a batch.
struct Total {
    /// `[1]`: the weighted sum of its terms.
    loss: Tensor<1>,
    /// `[1]`, off the graph: what a teacher's part in it is, without its share; `None` where nobody teaches.
    of_teacher: Option<Tensor<1>>,
}

impl Total {
    /// Of terms; `None` if none of them has a weight.
    fn of(terms: Vec<Term>, label_smoothing: f32) -> Option<Self> {
        let mut of_teacher: Option<Tensor<1>> = None;
        let mut weighted = |term: Term| {
            let weight = term.weight();
            let loss = match term {
                Term::CrossEntropy { projection, .. } => cross_entropy(projection, label_smoothing),
                Term::Taught { projection, teacher, .. } => {
                    let TaughtLoss { loss, of_teacher: own } =
                        taught_cross_entropy(projection, label_smoothing, teacher);
                    of_teacher = Some(match of_teacher.take() {
                        Some(sum) => sum + own,
                        None => own,
                    });
                    loss
                }
                Term::Copied { projection, own, beside, .. } => {
                    copied_cross_entropy(projection, own, beside, label_smoothing)
                }
                Term::Sum { loss, .. } => loss,
            };
            if weight == 1.0 { loss } else { loss * weight }
        };
        let counting = terms.into_iter().filter(|term| term.weight() != 0.0);
        let loss = counting.map(&mut weighted).reduce(|sum, loss| sum + loss)?;
        Some(Self { loss, of_teacher })
    }
}

/// The training corpus in batches. The order is a function of the epoch's number alone, so that a run can be resumed.
pub trait Batches {
    /// The batches of an epoch (from 0), without the first `skip`.
    ///
    /// # Errors
    /// If the corpus cannot be read.
    fn epoch(&self, epoch: u64, skip: usize) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>>;

    /// How many batches the epoch has; at least 1.
    fn batches_in(&self, epoch: u64) -> usize;

    /// The target tokens of a whole batch, where others have fewer or more only because of how text was cut. The learning rate of a
    /// step is then scaled by its share of them, so that a step over few tokens does not move the parameters as far as any other
    /// (Merity et al. 2018, section 5). `None`: all steps count alike.
    fn whole(&self) -> Option<u64> {
        None
    }
}

/// How many epochs are planned to know the steps of a run. Those of the others are taken from the mean, so that a run of
/// thousands of epochs begins as soon as one of fifty.
const PLANNED_EPOCHS: u64 = 64;

/// The optimizer steps of the whole run, if nothing ends it earlier: exact if the run has `steps` or at most 64 epochs, or if
/// all epochs have as many batches. Its schedule begins after `begins` steps.
///
/// # Errors
/// If the corpus gives no batches, or the run ends before its schedule's warm-up does.
pub fn planned_steps(config: &TrainConfig, batches: &dyn Batches, begins: u64) -> Result<u64> {
    let most = config.steps.unwrap_or(u64::MAX);
    let mut total = most;
    if let Some(epochs) = config.epochs {
        let planned = epochs.min(PLANNED_EPOCHS);
        let mut steps = 0_u64;
        for epoch in 0..planned {
            steps += (count(batches, epoch)? as u64).div_ceil(config.accumulate.max(1));
            if steps >= most {
                break;
            }
        }
        let rest = u128::from(steps) * u128::from(epochs - planned) / u128::from(planned.max(1));
        total = most.min(steps.saturating_add(u64::try_from(rest).unwrap_or(u64::MAX)));
    }
    match config.schedule.misfit(total.saturating_sub(begins)) {
        Some(misfit) => Err(Error::new(misfit).at("train.schedule.warmup")),
        None => Ok(total),
    }
}

/// The batches of an epoch.
fn count(batches: &dyn Batches, epoch: u64) -> Result<usize> {
    match batches.batches_in(epoch) {
        0 => Err(Error::new("the training corpus gives no batches: it is empty, or every example is left out")),
        count => Ok(count),
    }
}

/// What validation found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Validation {
    /// Figures by name. `loss` is in nats per real target token.
    pub values: BTreeMap<String, f64>,
    /// What the model wrote, for people to read: nothing goes by it.
    pub samples: Vec<String>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Optimizer steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// The steps of the whole run, if nothing ends it earlier.
    pub total_steps: u64,
}

/// Judges the model now and then.
pub struct Validator<'a, M> {
    /// Judges a model that is without autodiff. `None` says that it was cut short by the stop flag: it is then made up for
    /// when the run is resumed.
    #[allow(clippy::type_complexity)]
    pub validate: &'a mut dyn FnMut(&M, &Progress) -> Result<Option<Validation>>,
    /// Whether a smaller value of the figure `validate.metric` is better.
    pub lower_is_better: bool,
}

/// A run, ready to begin.
pub struct Training<'a, M> {
    /// `[train]`.
    pub config: &'a TrainConfig,
    /// The model's part of the loss.
    pub objective: &'a dyn Objective<M>,
    /// The training corpus.
    pub batches: &'a dyn Batches,
    /// Without one there is no best model.
    pub validator: Option<Validator<'a, M>>,
    /// Hears of every step, validation and checkpoint.
    pub observer: &'a mut dyn Observer,
    /// Once true, the run is saved and ended before the next step.
    pub stop: &'a AtomicBool,
    /// Where the run is saved and ended for now. Unlike `stop`, this comes after a validation that is due there.
    pub pause: Option<Pause>,
    /// The folder of the checkpoints, of this run alone.
    pub checkpoints: &'a Path,
    /// The seed of the dropout masks.
    pub seed: u64,
    /// A digest of all settings that decide the run. A checkpoint of other settings is refused.
    pub settings: &'a str,
}

/// A place on the way of a run. It changes nothing of the run, not even its schedule: resuming leads to the same end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// After so many optimizer steps.
    Steps(u64),
    /// After so many epochs.
    Epochs(u64),
}

impl Pause {
    fn is_reached(self, state: &State) -> bool {
        match self {
            Pause::Steps(steps) => state.step >= steps,
            Pause::Epochs(epochs) => state.epoch >= epochs,
        }
    }
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Steps,
    /// All epochs are done.
    Epochs,
    /// Validation has not improved for too long.
    Patience,
    /// The stop flag was raised, or the pause is reached; the run can be resumed.
    Stopped,
}

/// A run that has ended. Its models are without autodiff; where weights are averaged, they are the averages.
#[derive(Debug)]
pub struct Outcome<M> {
    /// The model after the last step.
    pub last: M,
    /// The model that validation found best; absent if there was no validation, or the run was stopped.
    pub best: Option<M>,
    /// The models of which it is the mean, if it is one.
    pub averaged: Option<Averaged>,
    /// Why the run ended.
    pub ended: Ended,
    /// Where it stands.
    pub state: State,
}

/// The mean of several models that validation found better than each of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Averaged {
    /// The steps behind which they stood.
    pub steps: Vec<u64>,
    /// The monitored figure of the mean.
    pub value: f64,
}

impl<M: Module> Training<'_, M> {
    /// Trains `model` from the beginning, or from where a checkpoint left off.
    ///
    /// # Errors
    /// If the settings contradict each other, the checkpoint does not fit, the folder holds checkpoints but the run is not
    /// resumed, the corpus or a checkpoint (that of the best model, too) cannot be read or written, or the loss or its gradient
    /// is no longer finite. The last checkpoint stays usable.
    pub fn run(self, model: M, resume: Option<Checkpoint>) -> Result<Outcome<M>> {
        let together = steps_together(Places::of(&model).device());
        self.run_reading(model, resume, together)
    }

    /// The same, where the figures of as many steps are read together; of one step they are read before its update is made.
    pub(crate) fn run_reading(mut self, model: M, resume: Option<Checkpoint>, together: usize) -> Result<Outcome<M>> {
        let total = self.check(resume.as_ref().map_or(0, |checkpoint| checkpoint.state.schedule.step))?;
        let TrainConfig { optimizer, l1, l2, average, parameters, .. } = self.config;
        let mut optimizer = Optimizer::new(optimizer.clone(), *l1, *l2).with(parameters.clone());
        let mut average = Average::new(average.clone(), parameters.clone());
        if !Places::of(&model).paths().any(|path| parameters.trains(path)) {
            let message = "every parameter is frozen, and nothing is left to train; take a part out";
            return Err(Error::new(message).at("train.parameters.frozen"));
        }
        let mut unsaved = resume.is_none();
        let (mut model, mut state, mut carry) = match resume {
            Some(checkpoint) => self.resume(model, &mut optimizer, &mut average, checkpoint)?,
            None => self.begin(model, &mut optimizer)?,
        };

        let corpus = self.batches;
        let (mut epoch, mut made) = (None, Vec::new());
        loop {
            let stopping = self.stop.load(Ordering::Relaxed);
            let limit = self.limit(&state);
            let mut pending = self.validation_is_due(&state, limit.is_some());
            let mut new_best = false;
            if pending && !stopping {
                self.hear(&mut made)?;
            }
            if pending
                && !stopping
                && let Some(best) = self.validate(&average.of(&model), &mut state, total)?
            {
                let is_kept = state.kept.iter().any(|kept| kept.step == state.step);
                (pending, unsaved, new_best) = (false, true, best || is_kept);
            }
            let ended = if pending { Some(Ended::Stopped) } else { limit.or_else(|| self.out_of_patience(&state)) };
            let pausing = self.pause.is_some_and(|pause| pause.is_reached(&state));
            let ended = ended.or((stopping || pausing).then_some(Ended::Stopped));
            let due = state.step > 0 && state.step.is_multiple_of(self.config.checkpoint.every_steps);
            let saving = unsaved && (due || new_best || ended.is_some());
            if saving || ended.is_some() {
                self.hear(&mut made)?;
            }
            if saving {
                self.save(&model, &average, &optimizer, &carry, &mut state)?;
            }
            if let Some(ended) = ended {
                return self.outcome(average.of(&model), ended, state, total);
            }

            if state.batch == 0 {
                epoch = None;
            }
            let batches = match &mut epoch {
                Some(batches) => batches,
                none => match corpus.epoch(state.epoch, state.batch as usize) {
                    Ok(batches) => none.insert(batches),
                    Err(error) => return Err(self.after(&mut made, error)),
                },
            };
            let parts = (&mut optimizer, &mut average);
            let late = together > 1;
            let stepped =
                attentively(|| self.step(model, parts, &mut state, &mut carry, batches.as_mut(), (total, late)));
            let report;
            (model, report) = match stepped {
                Ok(made) => made,
                Err(error) => return Err(self.after(&mut made, error)),
            };
            unsaved = true;
            made.push(report);
            if made.len() >= together {
                self.hear(&mut made)?;
            }
        }
    }

    /// Tells of the steps that were made before an error; → the first thing that went wrong.
    fn after(&mut self, made: &mut Vec<Made>, error: Error) -> Error {
        self.hear(made).err().unwrap_or(error)
    }

    /// Tells of the steps that were made since.
    fn hear(&mut self, made: &mut Vec<Made>) -> Result<()> {
        reports(std::mem::take(made)).into_iter().try_for_each(|report| self.observer.step(&report?))
    }

    /// Checks the settings and counts the steps of the run, whose schedule begins after `begins` of them.
    fn check(&self, begins: u64) -> Result<u64> {
        let mut problems = self.config.problems();
        let mut needs = |holds: bool, place: &str| {
            if holds && self.validator.is_none() {
                problems.push(Problem { place: place.into(), message: "needs a validation corpus".into() });
            }
        };
        needs(self.config.stop.patience > 0, "stop.patience");
        needs(self.config.schedule.needs_validation(), "schedule.kind");
        needs(self.config.average.needs_validation(), "average.kind");
        if !problems.is_empty() {
            return Err(Error { file: None, problems: problems.into_iter().map(|p| p.below("train")).collect() });
        }
        planned_steps(self.config, self.batches, begins)
    }

    fn begin(&self, model: M, optimizer: &mut Optimizer) -> Result<(M, State, Carry)> {
        if !checkpoint::steps_in(self.checkpoints)?.is_empty() {
            let message = "holds the checkpoints of a run: resume it, or give another folder";
            return Err(Error::new(message).in_file(self.checkpoints));
        }
        initialise(&model);
        let model = freeze(model.train(), &self.config.parameters);
        optimizer.begin(&model);
        Ok((model, State::new(self.seed, self.settings), Carry::default()))
    }

    fn resume(
        &self,
        model: M,
        optimizer: &mut Optimizer,
        average: &mut Average,
        mut checkpoint: Checkpoint,
    ) -> Result<(M, State, Carry)> {
        let parts = [MODEL, OPTIMIZER, CARRY, AVERAGE, START];
        let [weights, slots, carried, means, start] = parts.map(|part| checkpoint.take(part));
        let state = checkpoint.state;
        let path = checkpoint_path(self.checkpoints, state.step);
        if state.settings != self.settings || state.seed != self.seed {
            let message =
                "was made with other settings or another seed: resume with the settings of its run, or start anew";
            return Err(Error::new(message).in_file(path));
        }
        // Before anything touches the parameters: those that are not drawn yet never need be.
        let model = load_weights(model, weights).map_err(|error| error.in_file(&path))?.train();
        let model = freeze(model, &self.config.parameters);
        optimizer.load(&model, slots, &state.updates).map_err(|error| error.in_file(&path))?;
        optimizer.load_start(&model, start).map_err(|error| error.in_file(&path))?;
        average.load(&model, means, &state.average).map_err(|error| error.in_file(&path))?;
        let carry = match Places::of(&model).device() {
            Some(device) => load_carry(carried, &device).map_err(|error| error.in_file(&path))?,
            None => Carry::default(),
        };
        Ok((model, state, carry))
    }

    /// Whether all steps or epochs are done.
    fn limit(&self, state: &State) -> Option<Ended> {
        if self.config.epochs.is_some_and(|epochs| state.epoch >= epochs) {
            Some(Ended::Epochs)
        } else {
            self.config.steps.is_some_and(|steps| state.step >= steps).then_some(Ended::Steps)
        }
    }

    fn out_of_patience(&self, state: &State) -> Option<Ended> {
        let patience = self.config.stop.patience;
        (patience > 0 && state.stop.waited >= patience).then_some(Ended::Patience)
    }

    /// A function of the state, so that a validation that was cut short is made up for after resuming.
    fn validation_is_due(&self, state: &State, at_the_end: bool) -> bool {
        let config = &self.config.validate;
        // Nothing above 0 is a multiple of 0, which stands for never.
        let steps = state.step.is_multiple_of(config.every_steps);
        let epochs = state.batch == 0 && state.epoch.is_multiple_of(config.every_epochs);
        self.validator.is_some() && state.validated < state.step && (steps || epochs || at_the_end)
    }

    /// Whether a model, without autodiff, is the best so far; `None` if validation was cut short.
    fn validate(&mut self, model: &M, state: &mut State, total_steps: u64) -> Result<Option<bool>> {
        let validator = self.validator.as_mut().expect("validation is due only with a validator");
        let began = Instant::now();
        let progress = Progress { step: state.step, epoch: state.epoch, total_steps };
        let Some(validation) = (validator.validate)(model, &progress)? else { return Ok(None) };
        let value = monitored(&self.config.validate.metric, &validation)?;
        let name = &self.config.validate.metric;
        if !value.is_finite() {
            self.observer.warning(&format!("validation after step {} gives {value} for `{name}`", state.step));
        }
        let lower = validator.lower_is_better;
        let best = value.is_finite()
            && state.best.is_none_or(|best| if lower { value < best.value } else { value > best.value });
        let judged = Best { step: state.step, value };
        if best {
            state.best = Some(judged);
        }
        self.config.average.keep(&mut state.kept, judged, lower);
        state.stop.observe(value, self.config.stop.min_delta, lower);
        self.config.schedule.observe(&mut state.plateau, value, lower);
        let average_begins = self.config.average.observe(&mut state.average, state.step, value, lower);
        state.validated = state.step;
        self.observer.validation(&ValidationReport {
            step: state.step,
            epoch: state.epoch,
            validation,
            best,
            waited: state.stop.waited,
            average_begins,
            seconds: began.elapsed().as_secs_f64(),
        })?;
        Ok(Some(best))
    }

    /// One optimizer step over up to `accumulate` batches. `late`: whether nothing of it is to be read yet.
    fn step(
        &self,
        model: M,
        (optimizer, average): (&mut Optimizer, &mut Average),
        state: &mut State,
        carry: &mut Carry,
        batches: &mut dyn Iterator<Item = Result<Batch>>,
        (total_steps, late): (u64, bool),
    ) -> Result<(M, Made)> {
        let began = Instant::now();
        let in_epoch = count(self.batches, state.epoch)? as u64;
        let dropout = Key::from_seed(self.seed).named("dropout").numbered(state.step);
        let smoothing = self.config.loss.label_smoothing as f32;
        let (mut losses, mut of_teacher, mut tokens, mut examples) = (Vec::new(), Vec::new(), 0, Vec::new());
        let mut gradients = ParameterGradients::default();
        let (step, epoch) = (state.step + 1, state.epoch);
        let place = |batches, examples| Place { step, epoch, batches, examples };
        let first = state.batch;
        let end = in_epoch.min(first + self.config.accumulate);
        for number in first..end {
            let batch = batches.next().unwrap_or_else(|| {
                Err(Error::new(format!("epoch {} ended after {number} of {in_epoch} batches", state.epoch + 1)))
            })?;
            let real = batch.target.tokens() as u64;
            if real == 0 {
                let place = place(number..number + 1, vec![batch.examples]);
                return Err(Error::new(format!("a batch without target tokens at {place}")));
            }
            tokens += real;
            let terms = self.objective.terms(&model, &batch, carry, dropout.numbered(number - first))?;
            let none = || Error::new("the model has no loss with a weight");
            let total = Total::of(terms, smoothing).ok_or_else(none)?;
            gradients.add(&model, total.loss.backward());
            losses.push(total.loss.inner());
            of_teacher.extend(total.of_teacher);
            examples.push(batch.examples);
        }

        let (place, factor, most) = (place(first..end, examples), 1.0 / tokens as f64, self.config.clip_norm);
        let on_device = late.then(|| gradients.scaling(factor, most)).flatten();
        let (loss, norm, scale) = match &on_device {
            // They are read later.
            Some(scaling) => (f64::NAN, f64::NAN, Scale::OnDevice(scaling.clone())),
            None => {
                let loss = place.loss(&read_back(std::mem::take(&mut losses)), tokens)?;
                let norm = place.norm(gradients.norm() * factor)?;
                let clip = most.filter(|&most| norm > most).map(|most| most / norm);
                (loss, norm, Scale::Known(clip.map_or(factor, |clip| factor * clip)))
            }
        };
        let ScheduleBegin { step, epoch } = state.schedule;
        let total = total_steps.saturating_sub(step);
        let when = When { step: state.step + 1 - step, epoch: state.epoch - epoch, total };
        let share = self.batches.whole().map_or(1.0, |whole| tokens as f64 / (whole * (end - first)) as f64);
        let rate = share * self.config.schedule.rate(self.config.optimizer.learning_rate(), when, &state.plateau);
        let model = optimizer.step(model, gradients, rate, scale);
        average.take_in(&model, &mut state.average);

        let of_teacher_now = if on_device.is_some() { Vec::new() } else { std::mem::take(&mut of_teacher) };
        let report = StepReport {
            step: state.step + 1,
            total_steps,
            epoch: state.epoch,
            batches: in_epoch,
            batches_done: end,
            loss,
            teacher_loss: (!of_teacher_now.is_empty()).then(|| per_token(&read_back(of_teacher_now), tokens)),
            learning_rate: rate,
            gradient_norm: norm,
            tokens,
            seconds: began.elapsed().as_secs_f64(),
        };
        state.step += 1;
        (state.epoch, state.batch) = if end == in_epoch { (state.epoch + 1, 0) } else { (state.epoch, end) };
        let unread = on_device.map(|scaling| Unread { place, began, losses, of_teacher, scaling });
        Ok((model, Made { report, unread }))
    }

    fn save(
        &mut self,
        model: &M,
        average: &Average,
        optimizer: &Optimizer,
        carry: &Carry,
        state: &mut State,
    ) -> Result<()> {
        state.updates = optimizer.updates();
        let (of_model, of_optimizer) = ((MODEL, save_weights(model)), (OPTIMIZER, optimizer.save()));
        let (of_average, of_start) = ((AVERAGE, average.save()), (START, optimizer.save_start()));
        let parts = [of_model, of_optimizer, (CARRY, save_carry(carry)), of_average, of_start];
        let checkpoint = Checkpoint::new(state.clone(), parts);
        self.observer.before_checkpoint()?;
        let path = checkpoint.write(self.checkpoints)?;
        checkpoint::prune(self.checkpoints, state.step, self.config.checkpoint.keep, &state.wanted())?;
        self.observer.checkpoint(&path)
    }

    /// `last`: the model that is judged and kept after the last step.
    fn outcome(&mut self, last: M, ended: Ended, state: State, total_steps: u64) -> Result<Outcome<M>> {
        let averaged = match ended {
            Ended::Stopped => None,
            Ended::Steps | Ended::Epochs | Ended::Patience => match self.best_mean(&last, &state, total_steps)? {
                // It is made up for when the run is resumed.
                None => return Ok(Outcome { last, best: None, averaged: None, ended: Ended::Stopped, state }),
                Some(mean) => mean,
            },
        };
        if let Some((mean, averaged)) = averaged {
            return Ok(Outcome { last, best: Some(mean), averaged: Some(averaged), ended, state });
        }
        let best = match state.best.filter(|_| ended != Ended::Stopped) {
            None => None,
            Some(Best { step, .. }) if step == state.step => Some(last.clone()),
            Some(Best { step, .. }) => Some(self.best(last.clone(), step)?),
        };
        Ok(Outcome { last, best, averaged: None, ended, state })
    }

    /// The best of the means of the first two, three, … of the models that are kept, if it is better than the best of all models.
    /// `None` if validation was cut short.
    #[allow(clippy::type_complexity)]
    fn best_mean(&mut self, model: &M, state: &State, total_steps: u64) -> Result<Option<Option<(M, Averaged)>>> {
        const KEPT: &str = "a model that is to be averaged";
        let (mut mean, mut found) = (Mean::default(), None);
        let Some(mut best) = state.best.map(|best| best.value).filter(|_| state.kept.len() > 1) else {
            return Ok(Some(None));
        };
        for (i, &Best { step, .. }) in state.kept.iter().enumerate() {
            let path = checkpoint_path(self.checkpoints, step);
            let kept = Checkpoint::read(&path).map_err(|error| lost(KEPT, &path, &error))?;
            mean.add(kept.into_model()).map_err(|error| lost(KEPT, &path, &error))?;
            if i == 0 {
                continue;
            }
            let candidate = load_weights(model.clone(), mean.weights()).map_err(|error| lost(KEPT, &path, &error))?;
            let validator = self.validator.as_mut().expect("only what was validated is kept");
            let progress = Progress { step: state.step, epoch: state.epoch, total_steps };
            let Some(validation) = (validator.validate)(&candidate, &progress)? else { return Ok(None) };
            let value = monitored(&self.config.validate.metric, &validation)?;
            let is_better = if validator.lower_is_better { value < best } else { value > best };
            let steps: Vec<u64> = state.kept[..=i].iter().map(|kept| kept.step).collect();
            let report = MeanReport { steps: steps.clone(), values: validation.values, best: is_better };
            self.observer.mean(&report)?;
            if is_better {
                best = value;
                found = Some((candidate, Averaged { steps, value }));
            }
        }
        Ok(Some(found))
    }

    /// The model after `step` steps. Another in its place would be another experiment.
    fn best(&self, model: M, step: u64) -> Result<M> {
        let path = checkpoint_path(self.checkpoints, step);
        let found =
            Checkpoint::read(&path).and_then(|c| load_weights(model, c.into_model()).map_err(|e| e.in_file(&path)));
        found.map_err(|error| lost("the best model of the run", &path, &error))
    }
}

/// What is said of a model that a run needs at its end and that cannot be read.
fn lost(what: &str, path: &Path, error: &Error) -> Error {
    let cause = error.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let message = format!(
        "{what} is lost ({cause}): restore this file from a copy, or delete all files of this \
         folder and give the same command again, which trains to the same end"
    );
    Error::new(message).in_file(path)
}

/// The figure that models are compared by.
fn monitored(name: &str, validation: &Validation) -> Result<f64> {
    validation.values.get(name).copied().ok_or_else(|| {
        let known: Vec<_> = validation.values.keys().map(|key| format!("`{key}`")).collect();
        let message = format!("validation does not give `{name}`; it gives {}", known.join(", "));
        Error::new(message).at("train.validate.metric")
    })
}
