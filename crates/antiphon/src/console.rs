//! What a person sees while the machine works: a bar on a terminal, else a line now and then, all on the standard
//! error; or a training's dashboard.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, Instant};

use antiphon_core::{Result, printable};
use antiphon_lab::{MetricsLog, Run, Stopwatch, lost_steps};
use antiphon_train::{MeanReport, Observer, StepReport, ValidationReport};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::dashboard::Dashboard;
use crate::output::tell;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How often the bar is told something new.
const BAR_EVERY: Duration = Duration::from_millis(500);

/// The standard error.
pub(crate) struct Console {
    bar: Option<ProgressBar>,
    dashboard: Option<Dashboard>,
    /// Lines that wait for the dashboard to give the terminal back.
    held: Vec<String>,
    terminal: bool,
    quiet: bool,
    last_line: Instant,
}

impl Console {
    /// `quiet`: only warnings.
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { bar: None, dashboard: None, held: Vec::new(), terminal, quiet, last_line: Instant::now() }
    }

    /// Shows the training on a dashboard.
    pub(crate) fn set_dashboard(&mut self, dashboard: Dashboard) {
        self.dashboard = Some(dashboard);
    }

    /// The dashboard, unless there is none or its user has closed it.
    fn dashboard(&mut self) -> Option<&mut Dashboard> {
        if self.dashboard.as_ref().is_some_and(Dashboard::is_closed) {
            self.close_dashboard();
        }
        self.dashboard.as_mut()
    }

    /// Takes the dashboard away and says what it kept us from saying.
    fn close_dashboard(&mut self) {
        self.dashboard = None;
        self.held.drain(..).for_each(|line| tell(&line));
    }

    /// A line that stays.
    pub(crate) fn note(&mut self, line: &str) {
        if !self.quiet {
            self.line(line);
        }
    }

    /// Something that is not as it should be.
    pub(crate) fn warn(&mut self, message: &str) {
        self.line(&format!("warning: {message}"));
    }

    fn line(&mut self, line: &str) {
        if self.dashboard().is_some_and(|dashboard| dashboard.is_shown()) {
            self.held.push(line.to_owned());
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(line)),
            None => tell(line),
        }
        self.last_line = Instant::now();
    }

    /// What is being done now, if it may take a while.
    pub(crate) fn status(&mut self, doing: &str) {
        if self.terminal && !self.quiet {
            let bar = self.new_bar(None, "{spinner} {msg} ({elapsed})");
            bar.set_message(printable(doing).into_owned());
            bar.enable_steady_tick(BAR_EVERY);
        }
    }

    /// `done` of `all` things are done.
    pub(crate) fn progress(&mut self, doing: &str, done: u64, all: u64) {
        if self.quiet {
            return;
        }
        if self.terminal {
            if self.bar.as_ref().is_none_or(|bar| bar.length() != Some(all)) {
                self.new_bar(Some(all), "{msg} {wide_bar} {pos}/{len}, {eta} left");
            }
            if let Some(bar) = &self.bar {
                bar.set_message(printable(doing).into_owned());
                bar.set_position(done);
            }
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.line(&format!("{doing} {done}/{all}"));
        }
        if done >= all {
            self.clear();
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn new_bar(&mut self, length: Option<u64>, template: &str) -> &ProgressBar {
        self.clear();
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(template).expect("our own template is well formed");
        bar.set_style(style.progress_chars("━━ "));
        self.bar.insert(bar)
    }

    /// Whether it is time to say something new about work in progress.
    fn interval(&self) -> Duration {
        if self.terminal { BAR_EVERY } else { LINE_EVERY }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.close_dashboard();
        self.clear();
    }
}

/// How long the rest of a training takes where `done` steps took so long; the total is an estimate in a run of very many epochs,
/// and may be exceeded.
fn seconds_left(took: Duration, done: u64, step: u64, total: u64) -> f64 {
    took.as_secs_f64() * total.saturating_sub(step) as f64 / done.max(1) as f64
}

/// What happened since something was last said.
#[derive(Default)]
struct Window {
    nats: f64,
    /// Only where somebody teaches.
    teacher_nats: Option<f64>,
    tokens: u64,
    seconds: f64,
}

/// Follows a training: writes `metrics.jsonl`, keeps the manifest's time, and tells the console.
pub(crate) struct RunObserver<'a> {
    run: &'a Run,
    console: &'a mut Console,
    log: MetricsLog,
    watch: &'a mut Stopwatch,
    epochs: Option<u64>,
    window: Window,
    told: Instant,
    /// When this session began, and at which step.
    began: (Instant, u64),
}

/// A line of `metrics.jsonl`.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Record<'r> {
    Step {
        step: u64,
        epoch: u64,
        loss: f64,
        /// Only where somebody teaches.
        #[serde(skip_serializing_if = "Option::is_none")]
        teacher_loss: Option<f64>,
        learning_rate: f64,
        gradient_norm: f64,
        tokens: u64,
        seconds: f64,
    },
    Validation {
        step: u64,
        epoch: u64,
        values: &'r BTreeMap<String, f64>,
        best: bool,
        /// Only where it does.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        average_begins: bool,
        /// Only where there are some.
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        samples: &'r [String],
        seconds: f64,
    },
}

impl<'a> RunObserver<'a> {
    pub(crate) fn open(
        run: &'a Run,
        console: &'a mut Console,
        watch: &'a mut Stopwatch,
        epochs: Option<u64>,
    ) -> Result<Self> {
        let log = MetricsLog::open(run.metrics_path())?;
        let now = Instant::now();
        Ok(Self { run, console, log, watch, epochs, window: Window::default(), told: now, began: (now, 0) })
    }

    /// Forgets what was logged after the checkpoint from which training goes on: `step` steps and the validations up to
    /// step `validated`. A checkpoint of a validation that was cut short is older than that validation's record. Of steps before
    /// it that the log lacks, it warns.
    ///
    /// # Errors
    /// If the log cannot be read or written.
    pub(crate) fn begin_after(&mut self, step: u64, validated: u64) -> Result<()> {
        let records = self.log.retain(|record| {
            let last = if record["kind"] == "validation" { validated } else { step };
            record["step"].as_u64().is_none_or(|own| own <= last)
        })?;
        if let Some(lost) = lost(&lost_steps(&records, step)) {
            self.console.warn(&format!(
                "{}: the records of {lost} are lost, and curves have a gap there; the training is whole and goes on",
                self.run.metrics_path().display()
            ));
        }
        self.began = (Instant::now(), step);
        if step > 0 {
            self.console.note(&format!("resume   after step {step}"));
        }
        Ok(())
    }

    /// A line that stays.
    pub(crate) fn note(&mut self, line: &str) {
        self.console.note(line);
    }

    /// The training is over.
    pub(crate) fn finish(self) {
        self.console.close_dashboard();
        self.console.clear();
    }

    fn tell(&mut self, report: &StepReport) {
        let Window { nats, teacher_nats, tokens, seconds } = std::mem::take(&mut self.window);
        self.told = Instant::now();
        if self.console.quiet {
            return;
        }
        let epochs = self.epochs.map_or(String::new(), |epochs| format!("/{epochs}"));
        let loss = nats / tokens as f64;
        let of_teacher = teacher_nats.map(|nats| format!(" (teacher {:.4})", nats / tokens as f64)).unwrap_or_default();
        let rate = tokens as f64 / seconds.max(1e-9);
        let (start, first) = self.began;
        let left = duration(seconds_left(start.elapsed(), report.step - first, report.step, report.total_steps));
        let what =
            format!("epoch {}{epochs}  loss {loss:.4}{of_teacher}  {rate:.0} tokens/s  {left} left", report.epoch + 1);
        if self.console.terminal {
            if self.console.bar.as_ref().is_none_or(|bar| bar.length() != Some(report.total_steps)) {
                self.console.new_bar(Some(report.total_steps), "{msg} {wide_bar} step {pos}/{len}");
            }
            if let Some(bar) = &self.console.bar {
                bar.set_message(what);
                bar.set_position(report.step);
            }
        } else {
            self.console.line(&format!("step {}/{}  {what}", report.step, report.total_steps));
        }
    }
}

impl Observer for RunObserver<'_> {
    fn step(&mut self, report: &StepReport) -> Result<()> {
        let &StepReport { step, epoch, loss, teacher_loss, learning_rate, gradient_norm, tokens, seconds, .. } = report;
        let record = Record::Step { step, epoch, loss, teacher_loss, learning_rate, gradient_norm, tokens, seconds };
        self.log.append(&record)?;
        if let Some(dashboard) = self.console.dashboard() {
            dashboard.step(report);
            return Ok(());
        }
        self.window.nats += loss * tokens as f64;
        if let Some(loss) = teacher_loss {
            *self.window.teacher_nats.get_or_insert(0.0) += loss * tokens as f64;
        }
        self.window.tokens += tokens;
        self.window.seconds += seconds;
        if self.told.elapsed() >= self.console.interval() || step == self.began.1 + 1 {
            self.tell(report);
        }
        Ok(())
    }

    fn validation(&mut self, report: &ValidationReport) -> Result<()> {
        let &ValidationReport { step, epoch, ref validation, best, average_begins, seconds, .. } = report;
        self.log.append(&Record::Validation {
            step,
            epoch,
            values: &validation.values,
            best,
            average_begins,
            samples: &validation.samples,
            seconds,
        })?;
        if let Some(dashboard) = self.console.dashboard() {
            dashboard.validation(report);
        }
        let values = validation.values.iter().map(|(name, value)| format!("{name} {value:.4}"));
        let values: Vec<String> = values.collect();
        let best = if best { "  best so far" } else { "" };
        self.console.note(&format!("validate epoch {epoch}, step {step}: {}{best}", values.join("  ")));
        if average_begins {
            self.console
                .note(&format!("average  validation has stopped improving: weights are averaged from step {step} on"));
        }
        Ok(())
    }

    fn mean(&mut self, report: &MeanReport) -> Result<()> {
        let MeanReport { steps, values, best } = report;
        let values: Vec<String> = values.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        let (count, best) = (steps.len(), if *best { "  best so far" } else { "" });
        self.console.note(&format!("average  of {count} models: {}{best}", values.join("  ")));
        Ok(())
    }

    fn before_checkpoint(&mut self) -> Result<()> {
        self.log.sync()
    }

    fn checkpoint(&mut self, _: &Path) -> Result<()> {
        let spent = self.watch.lap();
        self.run.update_manifest(|manifest| manifest.spend(spent))
    }

    fn warning(&mut self, message: &str) {
        self.console.warn(message);
    }
}

/// Steps that a log lacks, for people; nothing if it lacks none.
fn lost(steps: &[RangeInclusive<u64>]) -> Option<String> {
    const NAMED: usize = 3;
    let named = |range: &RangeInclusive<u64>| match range.clone().into_inner() {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first} to {last}"),
    };
    let named: Vec<String> = steps.iter().take(NAMED).map(named).collect();
    let one = steps.len() == 1 && steps[0].start() == steps[0].end();
    let more = if steps.len() > NAMED { ", …" } else { "" };
    (!steps.is_empty()).then(|| format!("step{} {}{more}", if one { "" } else { "s" }, named.join(", ")))
}

/// Seconds for people: `1:05`, `2:00:07`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = if seconds.is_finite() { seconds.round().max(0.0) as u64 } else { 0 };
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_steps_are_named_as_far_as_there_is_room() {
        assert_eq!(lost(&[]), None);
        assert_eq!(lost(&[7..=7]).as_deref(), Some("step 7"));
        assert_eq!(lost(&[1..=2, 7..=7]).as_deref(), Some("steps 1 to 2, 7"));
        assert_eq!(lost(&[1..=1, 3..=3, 5..=9, 11..=11]).as_deref(), Some("steps 1, 3, 5 to 9, …"));
    }

    #[test]
    fn a_plan_that_is_exceeded_leaves_nothing_to_wait_for() {
        let took = Duration::from_secs(10);
        assert_eq!(seconds_left(took, 5, 5, 15), 20.0);
        assert_eq!(seconds_left(took, 5, 20, 15), 0.0);
    }

    #[test]
    fn durations_are_written_for_people() {
        let written: Vec<String> = [0.4, 65.0, 7207.0, f64::NAN].into_iter().map(duration).collect();
        assert_eq!(written, ["0:00", "1:05", "2:00:07", "0:00"]);
    }
}
