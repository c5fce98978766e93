//! From an experiment and a run's folder to a trained model.

use std::sync::atomic::AtomicBool;

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Result};
use antiphon_data::FurtherTokens;
use antiphon_kernels::Carry;
use antiphon_lab::{BestValidation, EndReason, MeanOfModels, Run, Stopwatch, TrainingEnd};
use antiphon_model::{Model, Vocabularies};
use antiphon_train::{Averaged, Ended, Outcome, Pause, Progress, Training, Validation, Validator, newest_checkpoint};

use super::augmentation::Augmentation;
use super::data::{Encoded, TrainingBatches};
use super::evaluation::{Evaluator, figures_of_validation, values};
use super::samples::samples;
use super::saved::{SavedModel, TokenizersFile};
use super::{Experiment, ExperimentConfig, Tokenizers, unknown};
use crate::console::{Console, RunObserver};
use crate::device::device;

/// How training ended.
#[derive(Debug)]
pub enum Trained {
    /// It is complete: the best model by validation, or the last one without; the manifest says why it ended.
    Complete(Box<SavedModel>),
    /// It was interrupted, or paused, after so many steps; the run's folder has a checkpoint.
    Stopped {
        /// Optimizer steps done.
        steps: u64,
    },
}

impl Experiment {
    /// Trains in a run's folder, from the beginning or from its newest checkpoint, and writes the model file.
    /// For the holder of the run's lock; `watch` measures what is added to the manifest's times.
    ///
    /// # Errors
    /// If the corpus cannot be used, the loss diverges, or the folder cannot be written. The last checkpoint stays usable.
    pub(crate) fn train(
        &self,
        run: &Run,
        console: &mut Console,
        watch: &mut Stopwatch,
        stop: &AtomicBool,
        pause: Option<Pause>,
    ) -> Result<Trained> {
        let config = &self.config;
        let tokenizers = self.tokenizers(run, console)?;
        let training = Encoded::new(&self.corpora.train, &tokenizers, config)?;
        let unusable = Some(training.corpus().skipped()).filter(|skipped| !skipped.is_empty());
        for (what, skipped) in [("unusable", unusable), ("too long", training.too_long())] {
            if let Some(skipped) = skipped {
                console.warn(&format!("{}: left out as {what}: {skipped}", self.corpora.train.path().display()));
            }
        }
        let vocabularies = tokenizers.vocabularies();
        console.note(&format!("train    {}", described(&training, &vocabularies)));
        let lost = training.lost(training.without_path(config)?, config).map(|lost| format!("train: {lost}"));
        let cut = training.cut().map(|cut| format!("train: {cut}"));
        for warning in
            unknown::warnings(&training, true).into_iter().map(|w| format!("train: {w}")).chain(lost).chain(cut)
        {
            console.warn(&warning);
        }
        let batches = TrainingBatches::new(training, config)?;
        let validation = self.corpora.validation.as_ref().map(|corpus| Evaluator::new(config, &tokenizers, corpus));
        let validation = validation.transpose()?.map(|v| v.while_training());

        let digest = self.identity.digest();
        let mut observer = RunObserver::open(run, console, watch, config.train.epochs)?;
        let resume = newest_checkpoint(&run.checkpoints_path(), &mut observer)?;
        if let Some(parent) = &self.identity.parent
            && resume.as_ref().is_none_or(|checkpoint| checkpoint.state.step < parent.step)
        {
            let message = "the checkpoints from which this run goes on are lost; give the same command again, which takes them \
                           from its parent";
            return Err(Error::new(message).in_file(run.checkpoints_path()));
        }
        let (step, validated) = resume.as_ref().map_or((0, 0), |c| (c.state.step, c.state.validated));
        observer.begin_after(step, validated)?;
        let device = device(config.device)?;
        let model = match resume {
            // All of it is replaced.
            Some(_) => config.outline_model(&vocabularies, Key::from_seed(0), &device)?,
            None => self.begin(run, &mut observer, &tokenizers, &device)?,
        };

        let teacher = self.teacher(&tokenizers, &device)?;
        if let Some(teacher) = &teacher {
            observer.note(&format!("teacher  {teacher}"));
        }
        let augmentation = Augmentation::of(config);
        let objective = |model: &Model, batch: &Batch, carry: &mut Carry, key: Key| {
            // Those of before, which the model's own take the place of.
            let carries = teacher.as_ref().map(|teacher| teacher.carries(carry));
            let terms = match &augmentation {
                Some(augmentation) => model.terms(&augmentation.apply(batch, key), carry, Some(key)),
                None => model.terms(batch, carry, Some(key)),
            }?;
            match teacher.as_ref().zip(carries) {
                Some((teacher, carries)) => teacher.teach(terms, batch, carries, carry),
                None => Ok(terms),
            }
        };
        let mut validate = |model: &Model, progress: &Progress| -> Result<Option<Validation>> {
            let Some(validation) = &validation else { return Ok(None) };
            let Some(found) = validate(validation, config, model, stop)? else { return Ok(None) };
            // Of what is no longer finite nothing can be drawn.
            if !found.values.values().all(|value| value.is_finite()) {
                return Ok(Some(found));
            }
            let samples = samples(model, &tokenizers, config, progress.step, stop)?;
            Ok(samples.map(|samples| Validation { samples, ..found }))
        };
        let validator = Validator { validate: &mut validate, lower_is_better: lower_is_better(config) };
        let Outcome { last, best, averaged, ended, state } = Training {
            config: &config.train,
            objective: &objective,
            batches: &batches,
            validator: validation.is_some().then_some(validator),
            observer: &mut observer,
            stop,
            pause,
            checkpoints: &run.checkpoints_path(),
            seed: config.seed,
            settings: &digest,
        }
        .run(model, resume)?;
        observer.finish();
        let reason = match ended {
            Ended::Stopped => return Ok(Trained::Stopped { steps: state.step }),
            Ended::Steps => EndReason::Steps,
            Ended::Epochs => EndReason::Epochs,
            Ended::Patience => EndReason::Patience,
        };
        let metric = || config.train.validate.metric.clone();
        let best_validation =
            state.best.map(|best| BestValidation { step: best.step, metric: metric(), value: best.value });
        let end = TrainingEnd {
            reason,
            step: state.step,
            epoch: state.epoch,
            waited: state.stop.waited,
            best: best_validation,
            averaged_since: state.average.began,
            mean: averaged.map(|Averaged { steps, value }| MeanOfModels { steps, metric: metric(), value }),
        };
        console.note(&format!("end      {end}"));
        run.update_manifest(|manifest| manifest.training = Some(end))?;
        let saved = SavedModel {
            name: self.identity.name.clone(),
            config: config.clone(),
            steps: state.step,
            tokenizers: tokenizers.clone(),
            model: best.unwrap_or(last),
        };
        saved.write(&run.model_path())?;
        Ok(Trained::Complete(Box::new(saved)))
    }

    fn tokenizers(&self, run: &Run, console: &mut Console) -> Result<Tokenizers> {
        let file = TokenizersFile::of(run);
        if let Some(tokenizers) = file.read()? {
            return Ok(tokenizers.reading(&self.config));
        }
        console.status("learning the tokenizers");
        let tokenizers = self.learned()?;
        console.clear();
        file.write(tokenizers)?;
        Ok(tokenizers.clone())
    }
}

/// How much there is to learn from.
fn described(training: &Encoded, vocabularies: &Vocabularies) -> String {
    let (tokens, vocabulary) = (training.target_tokens(), vocabularies.target);
    match (training, vocabularies.sources.as_slice()) {
        (Encoded::Stream(stream), _) => {
            format!("{} lines of running text, {tokens} tokens, a vocabulary of {vocabulary}", stream.corpus().len())
        }
        (Encoded::Examples(recordings), []) if recordings.corpus().is_spoken() => {
            let frames = recordings.source_tokens();
            let count = recordings.len();
            format!("{count} recordings, {frames} frames, {tokens} target tokens, a vocabulary of {vocabulary}")
        }
        (Encoded::Examples(texts), []) => {
            format!("{} texts, {tokens} tokens, a vocabulary of {vocabulary}", texts.len())
        }
        (Encoded::Examples(pairs), [source, further @ ..]) => {
            let further = pairs.further().zip(further);
            let further = further.map(|((name, FurtherTokens { tokens, .. }), vocabulary)| {
                format!("; of `{name}` {tokens} tokens, a vocabulary of {vocabulary}")
            });
            format!(
                "{} examples, {} source and {tokens} target tokens, vocabularies of {source} and {vocabulary}{}",
                pairs.len(),
                pairs.source_tokens(),
                further.collect::<String>(),
            )
        }
    }
}

fn validate(
    validation: &Evaluator<'_>,
    config: &ExperimentConfig,
    model: &Model,
    stop: &AtomicBool,
) -> Result<Option<Validation>> {
    let Some(likelihood) = validation.likelihood(model, stop)? else { return Ok(None) };
    let mut values = values(&likelihood);
    if config.evaluate.validation_examples > 0 && config.searches() {
        let Some(answers) = validation.answers(model, stop, &mut |_| {})? else { return Ok(None) };
        values.extend(validation.metrics(&answers)?.into_iter().map(|(label, score)| (label, score.value)));
    }
    Ok(Some(Validation { values, samples: Vec::new() }))
}

/// Whether a smaller value of the figure that models are compared by is better.
fn lower_is_better(config: &ExperimentConfig) -> bool {
    let metric = &config.train.validate.metric;
    figures_of_validation(config).into_iter().find(|(label, _)| label == metric).is_none_or(|(_, lower)| lower)
}
