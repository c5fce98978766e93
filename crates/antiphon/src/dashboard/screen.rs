//! The terminal, lent to burn-train while a training runs.

use std::any::Any;
use std::io::{IsTerminal, stdin, stdout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use antiphon_core::{Error, Place, Result};
use antiphon_train::{StepReport, TrainConfig, ValidationReport};
use burn::train::Interrupter;
use burn::train::renderer::tui::TuiMetricsRendererWrapper;

use super::view::{Length, View};
use crate::interrupt::EXIT_CODE;
use crate::output::tell;

/// How long a wish of the user may wait.
const GLANCE: Duration = Duration::from_millis(50);

/// The view of one training. It opens with the first report and closes by itself once the run is asked to stop, so that
/// nothing which ends the process later finds the terminal in disorder.
pub(crate) struct Dashboard {
    reports: Option<Sender<Report>>,
    thread: Option<JoinHandle<()>>,
    begun: bool,
    closed: Arc<AtomicBool>,
}

enum Report {
    Step(StepReport),
    Validation(ValidationReport),
}

impl Dashboard {
    /// Whether there can be one.
    ///
    /// # Errors
    /// If there is no terminal.
    pub(crate) fn check() -> Result<()> {
        if stdin().is_terminal() && stdout().is_terminal() {
            return Ok(());
        }
        let message = "needs a terminal for its input and its output; leave it out to read lines instead";
        Err(Error::new(message).at(Place::text("--dashboard")))
    }

    /// A view that is not open yet. `stop` is the flag that ends the run; the user can raise it from here.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(crate) fn new(title: &str, config: &TrainConfig, stop: Arc<AtomicBool>) -> Result<Self> {
        Self::check()?;
        let (sender, receiver) = channel();
        let closed = Arc::new(AtomicBool::new(false));
        let (title, length, leaving) = (title.to_owned(), Length::of(config), Arc::clone(&closed));
        let follow = move || {
            let followed = catch_unwind(AssertUnwindSafe(|| follow(&receiver, title, length, &stop)));
            leaving.store(true, Ordering::Relaxed);
            if let Err(panic) = followed {
                end_if_told_to(panic.as_ref());
                tell("warning: the dashboard failed; the training goes on without it");
            }
        };
        let thread = std::thread::Builder::new().name("dashboard".into()).spawn(follow);
        let thread =
            thread.map_err(|e| Error::new(format!("cannot start a thread: {e}")).at(Place::text("--dashboard")))?;
        Ok(Self { reports: Some(sender), thread: Some(thread), begun: false, closed })
    }

    /// Whether the terminal is its own, or is about to be.
    pub(crate) fn is_shown(&self) -> bool {
        self.begun && !self.is_closed()
    }

    /// Whether it has come to its end, and the terminal is everybody's again.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn step(&mut self, report: &StepReport) {
        self.send(Report::Step(report.clone()));
    }

    pub(crate) fn validation(&mut self, report: &ValidationReport) {
        self.send(Report::Validation(report.clone()));
    }

    fn send(&mut self, report: Report) {
        self.begun = true;
        if let Some(reports) = &self.reports {
            // A view that has closed needs no reports.
            let _ = reports.send(report);
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.reports = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Shows reports until there are no more, or the run is asked to stop.
fn follow(reports: &Receiver<Report>, title: String, length: Length, stop: &AtomicBool) {
    let Ok(first) = reports.recv() else { return };
    let (Report::Step(StepReport { epoch, .. }) | Report::Validation(ValidationReport { epoch, .. })) = &first;
    let interrupter = Interrupter::new();
    let renderer = TuiMetricsRendererWrapper::new(interrupter.clone(), Some(*epoch as usize));
    #[cfg(unix)]
    keep_interrupts();
    let mut view = View::new(renderer, title, length);
    let mut next = Some(first);
    loop {
        match &next {
            Some(Report::Step(report)) => view.step(report),
            Some(Report::Validation(report)) => view.validation(report),
            None => view.glance(),
        }
        if interrupter.should_stop() {
            stop.store(true, Ordering::Relaxed);
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        next = match reports.recv_timeout(GLANCE) {
            Ok(report) => Some(report),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
    }
}

/// Burn's renderer offers to end the program at once, and does so by a panic in whoever calls it. That is what a second
/// Ctrl-C does elsewhere. The terminal is in order already.
fn end_if_told_to(panic: &(dyn Any + Send)) {
    if panic.downcast_ref::<&str>().is_some_and(|message| message.contains("from user input")) {
        std::process::exit(EXIT_CODE.into());
    }
}

/// Makes Ctrl-C a signal again. The renderer's raw terminal reads it as a key, one that it has no use for. What would
/// stop or kill the process without setting the terminal right stays a key.
#[cfg(unix)]
fn keep_interrupts() {
    use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
    // The renderer's own thread makes the terminal raw, in a moment.
    for _ in 0..100 {
        let Ok(mut modes) = tcgetattr(stdin()) else { return };
        if modes.local_modes.contains(LocalModes::ICANON) {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        modes.local_modes.insert(LocalModes::ISIG);
        for key in [SpecialCodeIndex::VSUSP, SpecialCodeIndex::VQUIT] {
            modes.special_codes[key] = 0;
        }
        // Without it Ctrl-C does nothing, and `q` still ends the run.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &modes);
        return;
    }
}
