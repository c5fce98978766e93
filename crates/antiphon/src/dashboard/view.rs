//! What our reports mean to burn-train's renderers.

use std::collections::BTreeSet;
use std::sync::Arc;

use antiphon_train::{StepReport, TrainConfig, ValidationReport};
use burn::train::metric::{MetricDefinition, MetricEntry, MetricId, NumericAttributes, NumericEntry, SerializedEntry};
use burn::train::renderer::{MetricState, MetricsRenderer};

/// The figure that training and validation have in common, by its name in validations.
const LOSS: &str = "loss";

/// How long a training is meant to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length {
    epochs: Option<u64>,
    accumulate: u64,
}

impl Length {
    pub(super) fn of(config: &TrainConfig) -> Self {
        Self { epochs: config.epochs, accumulate: config.accumulate }
    }

    /// The epochs of the whole run. Where steps end it, they are counted in epochs like the present one.
    fn epochs(&self, report: &StepReport) -> u64 {
        let in_steps = report.total_steps.div_ceil(report.batches.div_ceil(self.accumulate));
        self.epochs.unwrap_or(u64::MAX).min(in_steps).max(report.epoch + 1)
    }
}

/// A renderer, and what it has been told.
pub(super) struct View<R> {
    renderer: R,
    /// What stands above the bars.
    title: String,
    length: Length,
    epoch: Option<u64>,
    done: usize,
    figures: BTreeSet<String>,
}

impl<R: MetricsRenderer> View<R> {
    pub(super) fn new(renderer: R, title: String, length: Length) -> Self {
        Self { renderer, title, length, epoch: None, done: 0, figures: BTreeSet::new() }
    }

    pub(super) fn step(&mut self, report: &StepReport) {
        self.progress(report);
        let &StepReport { loss, teacher_loss, learning_rate, gradient_norm, tokens, seconds, .. } = report;
        let speed = tokens as f64 / seconds.max(1e-9);
        let figures = [
            (LOSS, loss),
            ("tokens_per_second", speed),
            ("learning_rate", learning_rate),
            ("gradient_norm", gradient_norm),
        ];
        for (name, value) in figures.into_iter().chain(teacher_loss.map(|loss| ("teacher_loss", loss))) {
            let figure = self.figure(name, value);
            self.renderer.update_train(figure);
        }
    }

    pub(super) fn validation(&mut self, report: &ValidationReport) {
        for (name, &value) in &report.validation.values {
            let figure = self.figure(name, value);
            self.renderer.update_valid(figure);
        }
    }

    /// Says again how far the training is. A renderer answers to whoever calls it, with what its user wishes.
    pub(super) fn glance(&mut self) {
        if self.epoch.is_some() {
            self.renderer.update_split(self.done);
        }
    }

    /// Burn counts epochs, and the batches of one.
    fn progress(&mut self, report: &StepReport) {
        let batches = report.batches as usize;
        if self.epoch != Some(report.epoch) {
            match self.epoch {
                None => {
                    let (all, this) = (self.length.epochs(report) as usize, report.epoch as usize + 1);
                    self.renderer.start(all, this, Some(batches), Some(&self.title));
                }
                Some(_) => {
                    self.renderer.end_split();
                    self.renderer.update_epoch(report.epoch as usize);
                }
            }
            self.renderer.start_split("train", batches);
            self.epoch = Some(report.epoch);
        }
        self.done = report.batches_done as usize;
        self.renderer.update_split(self.done);
    }

    fn figure(&mut self, name: &str, value: f64) -> MetricState {
        let metric_id = MetricId::new(Arc::new(name.to_owned()));
        if self.figures.insert(name.to_owned()) {
            self.renderer.register_metric(MetricDefinition {
                metric_id: metric_id.clone(),
                name: Arc::new(name.to_owned()),
                description: None,
                attributes: NumericAttributes::default().into(),
            });
        }
        let entry = MetricEntry::new(metric_id, SerializedEntry::new(shown(value), value.to_string()));
        // A point that cannot be drawn still takes its place.
        MetricState::Numeric(entry, value.is_finite().then_some(NumericEntry::Value(value)))
    }
}

/// A figure of any size in few characters.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 1e-3 || size == 0.0 => format!("{value:.4}"),
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use antiphon_train::Validation;
    use burn::train::LearnerSummary;
    use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
    use burn::train::renderer::{EvaluationName, MetricsRendererEvaluation, MetricsRendererTraining};

    use super::*;

    /// Writes down what it is told.
    #[derive(Default, Clone)]
    struct Recorder(Arc<Mutex<Vec<String>>>);

    impl Recorder {
        fn note(&self, line: String) {
            self.0.lock().unwrap().push(line);
        }

        fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap())
        }

        fn figure(&self, split: &str, state: MetricState) {
            let MetricState::Numeric(entry, point) = state else { panic!("not a number") };
            let (name, point) = (entry.metric_id, point.map(|point| point.current()));
            self.note(format!("{split} {name:?} {} {point:?}", entry.serialized_entry.formatted));
        }
    }

    impl MetricsRendererTraining for Recorder {
        fn update_train(&mut self, state: MetricState) {
            self.figure("train", state);
        }

        fn update_valid(&mut self, state: MetricState) {
            self.figure("valid", state);
        }
    }

    impl MetricsRendererEvaluation for Recorder {
        fn update_test(&mut self, _: EvaluationName, _: MetricState) {
            panic!("tests are not shown");
        }

        fn on_test_end(&mut self, _: Option<LearnerSummary>) -> Result<(), Box<dyn std::error::Error>> {
            panic!("tests are not shown");
        }
    }

    impl TrainingProgressLogger for Recorder {
        fn start(&mut self, epochs: usize, epoch: usize, batches: Option<usize>, title: Option<&str>) {
            self.note(format!("start {epoch}/{epochs} {batches:?} {title:?}"));
        }

        fn update_epoch(&mut self, epoch: usize) {
            self.note(format!("epoch {epoch}"));
        }

        fn start_split(&mut self, split: &str, batches: usize) {
            self.note(format!("split {split} {batches}"));
        }

        fn update_split(&mut self, done: usize) {
            self.note(format!("done {done}"));
        }

        fn end_split(&mut self) {
            self.note("end".into());
        }

        fn end(&mut self) {}

        fn log_event_training(&mut self, _: String) {}
    }

    impl EvaluationProgressLogger for Recorder {
        fn start_global_progress(&mut self, _: usize) {}

        fn start_test(&mut self, _: &str, _: usize) {}

        fn update_test_progress(&mut self, _: usize) {}

        fn end_test(&mut self) {}

        fn end_global_progress(&mut self) {}

        fn log_event_evaluation(&mut self, _: String) {}
    }

    impl MetricsRenderer for Recorder {
        fn manual_close(&mut self) {}

        fn register_metric(&mut self, definition: MetricDefinition) {
            self.note(format!("register {}", definition.name));
        }
    }

    fn report(epoch: u64, batches_done: u64) -> StepReport {
        StepReport {
            step: epoch * 10 + batches_done,
            total_steps: 35,
            epoch,
            batches: 10,
            batches_done,
            loss: 2.5,
            teacher_loss: None,
            learning_rate: 1e-4,
            gradient_norm: 0.5,
            tokens: 600,
            seconds: 0.5,
        }
    }

    fn view(length: Length) -> (View<Recorder>, Recorder) {
        let recorder = Recorder::default();
        (View::new(recorder.clone(), "a run".into(), length), recorder)
    }

    #[test]
    fn steps_and_validations_become_progress_and_figures() {
        let (mut view, told) = view(Length { epochs: Some(3), accumulate: 1 });
        view.step(&report(1, 10));
        let id = |name: &str| format!("{:?}", MetricId::new(Arc::new(name.into())));
        let figures = [
            format!("train {} 2.5000 Some(2.5)", id("loss")),
            format!("train {} 1200 Some(1200.0)", id("tokens_per_second")),
            format!("train {} 1.00e-4 Some(0.0001)", id("learning_rate")),
            format!("train {} 0.5000 Some(0.5)", id("gradient_norm")),
        ];
        let told_first = told.take();
        assert_eq!(told_first[..3], ["start 2/3 Some(10) Some(\"a run\")", "split train 10", "done 10"]);
        let registered: Vec<&String> = told_first.iter().filter(|line| line.starts_with("register")).collect();
        assert_eq!(registered.len(), 4);
        assert!(told_first.iter().filter(|line| line.starts_with("train")).eq(&figures), "{told_first:?}");

        let values = [("loss".to_owned(), 2.25), ("perplexity".to_owned(), f64::NAN)];
        let validation = Validation { values: values.into(), samples: Vec::new() };
        let (best, waited, average_begins, seconds) = (true, 0, false, 1.0);
        let report = ValidationReport { step: 20, epoch: 2, validation, best, waited, average_begins, seconds };
        view.validation(&report);
        let validated = [
            format!("valid {} 2.2500 Some(2.25)", id("loss")),
            "register perplexity".into(),
            format!("valid {} NaN None", id("perplexity")),
        ];
        assert_eq!(told.take(), validated);

        view.glance();
        assert_eq!(told.take(), ["done 10"]);
        view.step(&report(2, 1));
        assert_eq!(told.take()[..4], ["end", "epoch 2", "split train 10", "done 1"]);
    }

    #[test]
    fn epochs_are_estimated_where_steps_end_the_run() {
        let of = |epochs, accumulate| Length { epochs, accumulate }.epochs(&report(0, 1));
        assert_eq!([of(Some(3), 1), of(Some(9), 1), of(None, 1), of(None, 4)], [3, 4, 4, 12]);
        assert_eq!(Length { epochs: Some(3), accumulate: 1 }.epochs(&report(5, 1)), 6);
    }
}
