//! What a person sees while data is fetched: a bar on a terminal, else a line now and then.

use std::io::IsTerminal;
use std::time::Duration;

use antiphon_data::recipe::{Audience, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::console::duration;
use crate::output::tell;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Downloads, shown on the standard error.
pub(super) struct Downloads {
    terminal: bool,
    bar: Option<ProgressBar>,
    /// How long the present download had taken when a line was last written.
    told: Duration,
}

impl Downloads {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), bar: None, told: Duration::ZERO }
    }

    fn show(&mut self, progress: &Progress<'_>) {
        let bar = self.bar.get_or_insert_with(|| {
            let template = match progress.total {
                Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
                None => "{spinner} {msg} {bytes}, {bytes_per_sec}",
            };
            let bar = ProgressBar::with_draw_target(progress.total, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(template).expect("our own template is well formed");
            bar.set_style(style.progress_chars("━━ "));
            bar.set_message(progress.name.to_owned());
            // What was there already says nothing about the speed.
            bar.set_position(progress.before);
            bar.reset_eta();
            bar
        });
        bar.set_position(progress.done);
    }
}

impl Audience for Downloads {
    fn line(&mut self, line: &str) {
        tell(line);
    }

    fn progress(&mut self, progress: &Progress<'_>) {
        if self.terminal {
            self.show(progress);
        } else if progress.elapsed >= self.told + LINE_EVERY {
            self.told = progress.elapsed;
            tell(&describe(progress));
        }
    }

    fn progress_ends(&mut self) {
        self.told = Duration::ZERO;
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        self.progress_ends();
    }
}

/// `a.txt: 1.5 of 3.0 MB, 0.5 MB/s, 0:03 left`.
fn describe(progress: &Progress<'_>) -> String {
    let &Progress { name, done, before, total, elapsed } = progress;
    let megabytes = |bytes: f64| bytes / 1e6;
    let speed = (done - before) as f64 / elapsed.as_secs_f64().max(1e-3);
    let (done_mb, speed_mb) = (megabytes(done as f64), megabytes(speed));
    match total {
        Some(total) => {
            let left = duration((total.saturating_sub(done)) as f64 / speed.max(1e-9));
            format!("{name}: {done_mb:.1} of {:.1} MB, {speed_mb:.2} MB/s, {left} left", megabytes(total as f64))
        }
        None => format!("{name}: {done_mb:.1} MB, {speed_mb:.2} MB/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_bytes_speed_and_what_is_left() {
        let elapsed = Duration::from_secs(2);
        let mut progress =
            Progress { name: "a.txt", done: 1_500_000, before: 500_000, total: Some(3_000_000), elapsed };
        assert_eq!(describe(&progress), "a.txt: 1.5 of 3.0 MB, 0.50 MB/s, 0:03 left");
        progress.total = None;
        assert_eq!(describe(&progress), "a.txt: 1.5 MB, 0.50 MB/s");
    }
}
