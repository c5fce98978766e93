//! `antiphon sweep`: a config in many variations.

mod outcome;
mod restarts;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use antiphon_core::disk::write_atomically;
use antiphon_core::{Error, Place, Result};
use antiphon_lab::RunIndex;
use antiphon_lab::sweep::{Ended, Launcher, Plan, State, Sweep, SweepFolder, Watcher};
use clap::ValueEnum;

use super::{DataFolder, Ending, RunsFolder, Sets, finished};
use crate::console::{Console, duration};
use crate::device::core_count;
use crate::experiment::Interpreter;
use crate::interrupt::stop_flag;
use crate::output::{columns, command, print, shell, tell};

/// Run a sweep: all cells of a config's [sweep], each in a process of its own
///
/// Cells are compared on the validation split; only the best one is measured on the test split. What is finished is
/// found again, so the same command goes on with a sweep that was stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The config with the [sweep]
    file: PathBuf,
    #[command(flatten)]
    sets: Sets,
    /// Check every cell and list them, but run none
    #[arg(long)]
    dry_run: bool,
    /// How many runs at a time [default: 1; with Slurm as many as there is room for]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    jobs: Option<u16>,
    /// Try runs again that failed
    #[arg(long)]
    retry_failed: bool,
    /// Keep the models of the best cell's runs as one file, `ensemble.safetensors` in the sweep's folder, which answers for all
    /// of them together; a sweep that is done keeps it when the command is given again
    #[arg(long)]
    keep_ensemble: bool,
    /// Who starts the runs
    #[arg(long, value_enum, default_value = "local")]
    launcher: LauncherName,
    #[command(flatten)]
    data: DataFolder,
    #[command(flatten)]
    runs: RunsFolder,
    /// Say nothing but warnings and results
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LauncherName {
    /// This process
    Local,
    /// A Slurm job array
    Slurm,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let meaning = Interpreter::new(&self.data.path());
        let mut console = Console::new(self.quiet);
        let plan = Plan::read(&self.file, &self.sets.set, &meaning)?;
        for warning in &plan.warnings {
            console.warn(&format!("{}: {warning}", self.file.display()));
        }
        if self.keep_ensemble && plan.config.restarts {
            let message =
                "each cell is a task of its own, and of its restarts one is taken: there is nothing to put together";
            return Err(Error::new(message).in_file(&self.file).at(Place::text("--keep-ensemble")));
        }
        let (runs, threads) = (self.runs.runs(), self.threads(&plan));
        if self.dry_run {
            print(&listed(&plan, &SweepFolder::peek(&plan, &runs, threads)?, &runs.index()?, &meaning))?;
            return Ok(Ending::Done);
        }
        // Before anything is written: data that are missing are told with what prepares them.
        let folder = SweepFolder::peek(&plan, &runs, threads)?;
        let index = runs.index()?;
        plan.runs.iter().try_for_each(|run| folder.state(run, |one| index.find(one), &meaning).map(drop))?;
        let folder = SweepFolder::open(&plan, &runs, threads)?;
        console.note(&format!("sweep    {}", folder.path().display()));
        let program_path = std::env::current_exe().map_err(|e| Error::new(format!("cannot find this program: {e}")))?;
        let stop = stop_flag()?;
        let mut telling = Telling { console: &mut console, told: None };
        let sweep = Sweep {
            plan: &plan,
            folder: &folder,
            runs: &runs,
            meaning: &meaning,
            launcher: self.launcher(),
            program: program_path,
            options: self.options(),
            retry_failed: self.retry_failed,
            stop: &stop,
            watcher: &mut telling,
        };
        let ended = sweep.go()?;
        console.clear();
        self.tell(&plan, &folder, ended)
    }

    /// Says how it ended; writes the page and the best config when all is done.
    fn tell(&self, plan: &Plan, folder: &SweepFolder, ended: Ended) -> Result<Ending> {
        match ended {
            Ended::Done(outcome) => {
                let page = match plan.config.restarts {
                    true => restarts::page(plan, folder, &outcome)?,
                    false => outcome::page(plan, folder, &outcome)?,
                };
                let mut ensemble = None;
                write_atomically(folder.path().join("results.md"), page.as_bytes())?;
                if plan.config.restarts {
                    restarts::write_configs(plan, folder, &outcome)?;
                } else if let Some(best) = outcome.ranking.first() {
                    write_atomically(
                        folder.path().join("best.toml"),
                        outcome::best_config(plan, folder, best)?.as_bytes(),
                    )?;
                    // Last, since it is large, and what it lacks can be mended.
                    if self.keep_ensemble {
                        ensemble = Some(outcome::keep_ensemble(folder, best)?);
                    }
                }
                let best = match (plan.config.restarts, outcome.ranking.first()) {
                    (_, None) => None,
                    (true, Some(first)) => Some(restarts::config(plan, folder, first)),
                    (false, Some(_)) => Some(folder.path().join("best.toml")),
                };
                print(&format!("{page}\n{}", self.next(folder, best, ensemble.as_deref())))?;
                if outcome.ranking.is_empty() {
                    tell("no cell has all its runs; the table says why");
                    return Ok(Ending::Unmet);
                }
                Ok(Ending::Done)
            }
            Ended::Stopped => {
                tell(&format!("stopped; go on with the same command ({})", folder.path().display()));
                Ok(Ending::Interrupted)
            }
            Ended::Submitted { job, runs } => {
                print(&format!(
                    "Slurm has {runs} runs as job {job}: squeue --jobs {job}\nthe same command goes on when they are done\n"
                ))?;
                Ok(Ending::Done)
            }
            Ended::Waiting { job } => {
                print(&format!("job {job} is still at work: squeue --jobs {job}, scancel {job}\n"))?;
                Ok(Ending::Done)
            }
            Ended::Elsewhere { runs } => {
                print(&format!(
                    "{runs} runs are still at work in other processes; the same command goes on when they are done\n"
                ))?;
                Ok(Ending::Done)
            }
        }
    }

    fn launcher(&self) -> Launcher {
        let jobs = self.jobs.map(usize::from);
        match self.launcher {
            LauncherName::Local => Launcher::Local { jobs: jobs.unwrap_or(1) },
            LauncherName::Slurm => Launcher::Slurm { at_once: jobs },
        }
    }

    /// On how many threads a run computes whose config does not say.
    fn threads(&self, plan: &Plan) -> usize {
        let cores = core_count();
        match self.launcher() {
            Launcher::Local { jobs } => (cores / jobs).max(1),
            Launcher::Slurm { .. } => plan.config.slurm.cores(),
        }
    }

    fn options(&self) -> Vec<String> {
        let (runs, data) = (self.runs.runs_dir.display().to_string(), self.data.path().display().to_string());
        ["--runs-dir".into(), runs, "--data-dir".into(), data].into()
    }

    fn next(&self, folder: &SweepFolder, best: Option<PathBuf>, ensemble: Option<&Path>) -> String {
        let kept = shell(folder.path().join("results.md"));
        let Some(best) = best else { return format!("the page   {kept}\n") };
        let mut words: Vec<OsString> = vec!["run".into(), best.clone().into()];
        words.extend(self.data.words());
        words.extend(self.runs.words());
        let ensemble = ensemble.map_or(String::new(), |file| format!("together   {}\n", shell(file)));
        format!("the page   {kept}\nthe best   {}\n{ensemble}{}", shell(&best), finished::next(&[command(words)]))
    }
}

/// All cells and how their runs stand; `?` where the data are not there.
fn listed(plan: &Plan, folder: &SweepFolder, runs: &RunIndex, meaning: &Interpreter) -> String {
    let state = |run| match folder.state(run, |one| runs.find(one), meaning) {
        Ok(State::Open(None)) => "to run".to_owned(),
        Ok(State::Open(Some(run))) => format!("begun {}", run.name()),
        Ok(State::Busy) => "at work".to_owned(),
        Ok(State::Finished(run)) => format!("finished {}", run.name()),
        Ok(State::Failed(why)) => format!("failed: {why}"),
        Err(_) => "?".to_owned(),
    };
    let head = ["run", "cell", "state"].map(String::from).to_vec();
    let rows = plan.runs.iter().map(|run| vec![run.name.clone(), plan.cells[run.cell].label(), state(run)]);
    let mut text = columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
    for (label, settings) in plan.legend() {
        text += &format!("{label}: {settings}\n");
    }
    let compared = if plan.config.restarts { "the runs of a cell are restarts, compared" } else { "compared" };
    text += &format!(
        "{} cells, {} runs; {compared} by {} on the validation split, {} is better\n",
        plan.cells.len(),
        plan.runs.len(),
        plan.metric,
        if plan.lower_is_better { "less" } else { "more" }
    );
    if !plan.rungs.is_empty() {
        text += &format!("halving after {:?}\n", plan.rungs);
    }
    text
}

/// Tells how the sweep goes.
struct Telling<'c> {
    console: &'c mut Console,
    /// What was told last, and when.
    told: Option<(usize, Instant)>,
}

impl Watcher for Telling<'_> {
    fn note(&mut self, line: &str) {
        self.console.note(line);
    }

    fn progress(&mut self, done: usize, all: usize, at_work: usize, left: Option<f64>) {
        // Often enough for a person: children are looked at far more often.
        if self.told.is_some_and(|(then, at)| then == done && at.elapsed().as_millis() < 500) {
            return;
        }
        self.told = Some((done, Instant::now()));
        let left = left.map_or(String::new(), |seconds| format!(", {} left", duration(seconds)));
        self.console.progress(&format!("{at_work} at work{left}; runs done"), done as u64, all as u64);
    }
}
