//! A sweep at work: runs what is left to run, chooses by validation, and measures the chosen cell on the test split.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use antiphon_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::{Budget, HalvingConfig};
use super::folder::{State, SweepFolder};
use super::halving::{Climb, Halving};
use super::local::{Job, Pool, Work};
use super::plan::{Meaning, Plan};
use super::slurm::{Array, job_at_work};
use crate::metrics_log::MetricsLog;
use crate::run::Run;
use crate::runs::Runs;

/// Who starts the runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launcher {
    /// This process, a few at a time.
    Local {
        /// How many.
        jobs: usize,
    },
    /// Slurm, as a job array.
    Slurm {
        /// How many at a time; if not given, as many as the cluster has room for.
        at_once: Option<usize>,
    },
}

/// Hears how a sweep goes.
pub trait Watcher {
    /// Something worth a line.
    fn note(&mut self, line: &str);
    /// So many of all runs are done, so many are at work; perhaps known is how many seconds are left.
    fn progress(&mut self, done: usize, all: usize, at_work: usize, left: Option<f64>);
}

/// A sweep, ready to begin or to go on.
pub struct Sweep<'a> {
    /// What is to be run.
    pub plan: &'a Plan,
    /// Where the sweep is kept.
    pub folder: &'a SweepFolder,
    /// Where its runs are kept.
    pub runs: &'a Runs,
    /// Who knows what settings mean.
    pub meaning: &'a dyn Meaning,
    /// Who starts the runs.
    pub launcher: Launcher,
    /// The program that runs a config by `PROGRAM run CONFIG OPTIONS`.
    pub program: PathBuf,
    /// Options of every run: the folders of runs and data.
    pub options: Vec<String>,
    /// Whether runs that failed are tried again.
    pub retry_failed: bool,
    /// Once true, the runs at work are asked to save themselves, and the sweep ends for now.
    pub stop: &'a AtomicBool,
    /// Who hears of it.
    pub watcher: &'a mut dyn Watcher,
}

/// How a call ended.
#[derive(Debug)]
pub enum Ended {
    /// All is done that can be done.
    Done(Outcome),
    /// It was interrupted; the same command goes on.
    Stopped,
    /// Slurm has so many runs now, under this number.
    Submitted {
        /// The job array.
        job: String,
        /// Its runs.
        runs: usize,
    },
    /// Slurm is still at work.
    Waiting {
        /// The job array.
        job: String,
    },
    /// Other processes are still at work.
    Elsewhere {
        /// On so many runs.
        runs: usize,
    },
}

/// What came out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// The cells of which every run is finished: the best by validation first, or with restarts in the order of the plan.
    pub ranking: Vec<Ranked>,
    /// The other cells, and why they are not among them.
    pub others: Vec<(usize, String)>,
    /// All runs that are finished, of whatever cell.
    pub finished: Vec<Run>,
}

/// A cell of which every run is finished.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// Its place in [`Plan::cells`].
    pub cell: usize,
    /// Its runs, in the order of the seeds.
    pub runs: Vec<Run>,
    /// The figure of each run by which cells are compared.
    pub figures: Vec<f64>,
}

impl Ranked {
    /// The mean of the figures.
    pub fn mean(&self) -> f64 {
        self.figures.iter().sum::<f64>() / self.figures.len() as f64
    }

    /// The place of the run with the best figure, of equals the first.
    pub fn best(&self, lower_is_better: bool) -> usize {
        let sign = if lower_is_better { 1.0 } else { -1.0 };
        let places = 0..self.figures.len();
        places.min_by(|&a, &b| (sign * self.figures[a]).total_cmp(&(sign * self.figures[b]))).unwrap_or(0)
    }
}

impl Outcome {
    /// Core-minutes of all runs that are finished.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn core_minutes(&self) -> Result<f64> {
        let minutes = |run: &Run| Ok(run.manifest()?.cpu_seconds / 60.0);
        self.finished.iter().map(minutes).sum()
    }
}

impl Sweep<'_> {
    /// Goes as far as it can.
    ///
    /// # Errors
    /// If data, folders or processes fail, or a run of the chosen cell cannot be measured on the test split. A run that
    /// fails is no error: it costs its cell.
    pub fn go(mut self) -> Result<Ended> {
        let _lock = self.folder.lock()?;
        if matches!(self.launcher, Launcher::Slurm { .. })
            && let Some(job) = job_at_work(&std::path::absolute(self.folder.path()).unwrap_or_default())?
        {
            return Ok(Ended::Waiting { job });
        }
        let states = self.states()?;
        self.tell_states(&states);
        let left: Vec<usize> = (0..states.len()).filter(|&run| self.is_to_run(&states[run])).collect();
        let ended = match self.plan.config.halving {
            Some(halving) => self.climb(halving)?,
            None => self.launch(&left, &["--no-test".into()], states.len())?,
        };
        if let Some(ended) = ended {
            return Ok(ended);
        }
        // The test split is for what is chosen of all: it waits for those that may still win.
        let states = self.states()?;
        if self.plan.config.halving.is_none() && states.iter().any(|state| matches!(state, State::Open(_))) {
            return Ok(Ended::Stopped);
        }
        let busy = states.iter().filter(|&state| *state == State::Busy).count();
        if busy > 0 {
            return Ok(Ended::Elsewhere { runs: busy });
        }
        let outcome = self.outcome(&states)?;
        match self.test(&outcome)? {
            Some(ended) => Ok(ended),
            None => Ok(Ended::Done(outcome)),
        }
    }

    fn states(&self) -> Result<Vec<State>> {
        let index = self.runs.index()?;
        self.plan.runs.iter().map(|run| self.folder.state(run, |one| index.find(one), self.meaning)).collect()
    }

    fn is_to_run(&self, state: &State) -> bool {
        match state {
            State::Open(_) => true,
            State::Failed(_) => self.retry_failed,
            State::Busy | State::Finished(_) => false,
        }
    }

    fn tell_states(&mut self, states: &[State]) {
        let count = |is: fn(&State) -> bool| states.iter().filter(|state| is(state)).count();
        let finished = count(|s| matches!(s, State::Finished(_)));
        let failed = count(|s| matches!(s, State::Failed(_)));
        let busy = count(|s| matches!(s, State::Busy));
        let mut line = format!("sweep    {} cells, {} runs: {finished} finished", self.plan.cells.len(), states.len());
        if busy > 0 {
            line += &format!(", {busy} at work elsewhere");
        }
        if failed > 0 {
            let what = if self.retry_failed { "are tried again" } else { "--retry-failed tries them again" };
            line += &format!(", {failed} failed ({what})");
        }
        self.watcher.note(&line);
        for (run, state) in self.plan.runs.iter().zip(states) {
            if let (State::Failed(why), false) = (state, self.retry_failed) {
                self.watcher.note(&format!("failed   {}: {why}", run.name));
            }
        }
    }

    /// Runs some runs to their ends. `None` if all have ended, in whatever way.
    fn launch(&mut self, left: &[usize], more: &[String], all: usize) -> Result<Option<Ended>> {
        if left.is_empty() {
            return Ok(None);
        }
        match self.launcher {
            Launcher::Slurm { at_once } => {
                let job = self.submit(left, more, at_once)?;
                Ok(Some(Ended::Submitted { job, runs: left.len() }))
            }
            Launcher::Local { jobs } => {
                let pool = Pool { program: self.program.clone(), jobs, stop: self.stop };
                let known = self.seconds_of_finished()?;
                let mut work = Queue {
                    clock: Clock::new(known, jobs),
                    left: left.iter().copied().collect(),
                    done: all - left.len(),
                    all,
                    more: more.to_vec(),
                    sweep: self,
                };
                Ok((!pool.perform(&mut work)?).then_some(Ended::Stopped))
            }
        }
    }

    fn submit(&self, left: &[usize], more: &[String], at_once: Option<usize>) -> Result<String> {
        let here = std::env::current_dir().map_err(|e| Error::new(format!("cannot find the working folder: {e}")))?;
        let absolute = |path: &std::path::Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let names: Vec<String> = left.iter().map(|&run| self.plan.runs[run].name.clone()).collect();
        let after = [self.options.as_slice(), more].concat();
        Array {
            config: &self.plan.config.slurm,
            name: &self.plan.name,
            folder: &absolute(self.folder.path()),
            working_folder: &here,
            program: &absolute(&self.program),
            runs: &names,
            words: (&["run".into()], &after),
            at_once,
        }
        .submit()
    }

    /// The times on the clock of the runs that were finished before.
    fn seconds_of_finished(&self) -> Result<Vec<f64>> {
        let mut seconds = Vec::new();
        for state in self.states()? {
            if let State::Finished(run) = state {
                seconds.push(run.manifest()?.wall_seconds);
            }
        }
        Ok(seconds)
    }

    fn job<T>(&self, run: usize, what: T, more: &[String]) -> Job<T> {
        let planned = &self.plan.runs[run];
        let mut words: Vec<OsString> = vec!["run".into(), self.folder.config(planned).into()];
        words.extend(self.options.iter().chain(more).map(OsString::from));
        Job { what, words, log: self.folder.log(planned), exit: self.folder.exit(planned) }
    }

    /// Tells that a run has ended.
    fn tell_end(&mut self, run: usize) -> Result<()> {
        let planned = &self.plan.runs[run];
        let label = self.plan.cells[planned.cell].label();
        let how = match self.folder.state(planned, |one| self.runs.find(one), self.meaning)? {
            State::Finished(done) => {
                let figure = self.figure(&done)?;
                format!("finished {}: {} {figure:.4}", planned.name, self.plan.metric)
            }
            State::Failed(why) => format!("failed   {}: {why}", planned.name),
            State::Open(_) | State::Busy => format!("stopped  {}", planned.name),
        };
        self.watcher.note(&format!("{how} ({label})"));
        Ok(())
    }

    /// The figure of a finished run by which cells are compared.
    fn figure(&self, run: &Run) -> Result<f64> {
        let results = run.results()?;
        let figure = results.and_then(|results| results.validation?.value(&self.plan.metric));
        figure.ok_or_else(|| {
            Error::new(format!("has no `{}` on the validation split", self.plan.metric)).in_file(run.results_path())
        })
    }

    /// Ranks the cells by the means of their figures.
    fn outcome(&self, states: &[State]) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for cell in 0..self.plan.cells.len() {
            let mut ranked = Ranked { cell, runs: Vec::new(), figures: Vec::new() };
            let mut lacking = Vec::new();
            for run in self.plan.runs_of(cell) {
                let name = &self.plan.runs[run].name;
                match &states[run] {
                    State::Finished(done) => {
                        ranked.figures.push(self.figure(done)?);
                        ranked.runs.push(done.clone());
                        outcome.finished.push(done.clone());
                    }
                    State::Failed(why) => lacking.push(format!("{name} failed: {why}")),
                    State::Busy => lacking.push(format!("{name} is at work elsewhere")),
                    State::Open(_) => lacking.push(self.how_far(cell)?),
                }
            }
            match lacking.into_iter().next() {
                None => outcome.ranking.push(ranked),
                Some(why) => outcome.others.push((cell, why)),
            }
        }
        if self.plan.config.restarts {
            return Ok(outcome);
        }
        let sign = if self.plan.lower_is_better { 1.0 } else { -1.0 };
        outcome.ranking.sort_by(|a, b| (sign * a.mean()).total_cmp(&(sign * b.mean())).then(a.cell.cmp(&b.cell)));
        Ok(outcome)
    }

    /// How far a cell that is not finished has come.
    fn how_far(&self, cell: usize) -> Result<String> {
        let Some(halving) = &self.plan.config.halving else { return Ok("not finished".into()) };
        let told = self.told()?;
        let last = told.iter().rev().find(|told| told.cell == cell + 1 && told.figure.is_some());
        Ok(match last {
            Some(Told { rung, figure: Some(figure), .. }) => {
                let unit = halving.budget.key().trim_start_matches("train.");
                format!("ended early: {} {figure:.4} within {} {unit}", self.plan.metric, self.plan.rungs[*rung])
            }
            _ => "not begun".into(),
        })
    }

    /// What the log of a halving sweep tells.
    fn told(&self) -> Result<Vec<Told>> {
        let path = self.folder.ladder();
        let fits = |told: &Told| (1..=self.plan.cells.len()).contains(&told.cell) && told.rung < self.plan.rungs.len();
        let read = |record| serde_json::from_value(record).ok().filter(fits);
        let damaged = || Error::new("is damaged; remove it: the sweep is then decided anew").in_file(&path);
        MetricsLog::read(&path)?.into_iter().map(|record| read(record).ok_or_else(damaged)).collect()
    }

    /// What the test split is for, each run with its place in the plan: the runs of the best cell, or with restarts the best run of
    /// each.
    fn chosen<'o>(&self, outcome: &'o Outcome) -> Vec<(usize, &'o Run)> {
        let of = |cell: &'o Ranked| self.plan.runs_of(cell.cell).zip(&cell.runs);
        match self.plan.config.restarts {
            false => outcome.ranking.first().into_iter().flat_map(of).collect(),
            true => {
                outcome.ranking.iter().filter_map(|cell| of(cell).nth(cell.best(self.plan.lower_is_better))).collect()
            }
        }
    }

    /// Measures what was chosen on the test split, as far as it is not measured yet.
    fn test(&mut self, outcome: &Outcome) -> Result<Option<Ended>> {
        let chosen = self.chosen(outcome);
        if !self.plan.has_test || chosen.is_empty() {
            return Ok(None);
        }
        let left = || -> Result<Vec<usize>> {
            let mut left = Vec::new();
            for (run, own) in &chosen {
                if own.results()?.is_none_or(|results| results.test.is_none()) {
                    left.push(*run);
                }
            }
            Ok(left)
        };
        let open = left()?;
        if !open.is_empty() {
            let what = match self.plan.config.restarts {
                true => "the best run of each cell is".to_owned(),
                false => format!("{}; its runs are", self.plan.cells[outcome.ranking[0].cell].label()),
            };
            self.watcher.note(&format!("chosen   {what} now measured on the test split"));
        }
        if let Some(ended) = self.launch(&open, &[], chosen.len())? {
            return Ok(Some(ended));
        }
        match left()?.first() {
            None => Ok(None),
            Some(&run) => {
                let log = self.folder.log(&self.plan.runs[run]);
                Err(Error::new("the chosen cell could not be measured on the test split; this says why").in_file(log))
            }
        }
    }

    /// Halves until nobody climbs any more.
    fn climb(&mut self, halving: HalvingConfig) -> Result<Option<Ended>> {
        let Launcher::Local { jobs } = self.launcher else {
            let message =
                "halving decides while runs are at work, and a job array is fixed before: use `--launcher local`";
            return Err(Error::new(message).in_file(&self.plan.file).at("sweep.halving"));
        };
        let pool = Pool { program: self.program.clone(), jobs, stop: self.stop };
        let eta = usize::try_from(halving.eta).unwrap_or(usize::MAX);
        let mut ladder = Halving::new(self.plan.cells.len(), self.plan.rungs.len(), eta);
        let mut done = 0;
        for told in self.told()? {
            if told.figure.is_some() || !self.retry_failed {
                ladder.report(Climb { cell: told.cell - 1, rung: told.rung }, told.figure.map(|f| self.smaller(f)));
                done += 1;
            }
        }
        let log = MetricsLog::open(self.folder.ladder())?;
        let budget = halving.budget;
        let mut work =
            Ladder { ladder, log, budget, done, waiting: VecDeque::new(), open: BTreeMap::new(), sweep: self };
        Ok((!pool.perform(&mut work)?).then_some(Ended::Stopped))
    }

    /// A figure such that a smaller one is better.
    fn smaller(&self, figure: f64) -> f64 {
        if self.plan.lower_is_better { figure } else { -figure }
    }

    /// The best figure of a run's validations up to a rung.
    fn figure_at(&self, run: usize, budget: Budget, far: u64) -> Result<Option<f64>> {
        let identity = self.meaning.identify(&self.folder.settings(&self.plan.runs[run]))?;
        let Some(found) = self.runs.find(&identity)? else { return Ok(None) };
        let unit = if budget == Budget::Steps { "step" } else { "epoch" };
        let figure = |record: &Value| {
            let within = record["kind"] == "validation" && record[unit].as_u64().is_some_and(|at| at <= far);
            record["values"][&self.plan.metric].as_f64().filter(|_| within)
        };
        let figures = MetricsLog::read(found.metrics_path())?;
        let best = figures.iter().filter_map(figure).min_by(|a, b| self.smaller(*a).total_cmp(&self.smaller(*b)));
        Ok(best)
    }
}

/// How long runs take.
struct Clock {
    seconds: Vec<f64>,
    began: BTreeMap<usize, Instant>,
    jobs: usize,
}

impl Clock {
    fn new(seconds: Vec<f64>, jobs: usize) -> Self {
        Self { seconds, began: BTreeMap::new(), jobs }
    }

    fn begin(&mut self, run: usize) {
        self.began.insert(run, Instant::now());
    }

    fn end(&mut self, run: usize) {
        self.seconds.extend(self.began.remove(&run).map(|began| began.elapsed().as_secs_f64()));
    }

    /// Seconds until so many more, and those at work, are done; unknown before the first end.
    fn left(&self, waiting: usize) -> Option<f64> {
        if self.seconds.is_empty() {
            return None;
        }
        let mean = self.seconds.iter().sum::<f64>() / self.seconds.len() as f64;
        let at_work: f64 = self.began.values().map(|began| (mean - began.elapsed().as_secs_f64()).max(0.0)).sum();
        let all = waiting + self.began.len();
        Some((mean * waiting as f64 + at_work) / self.jobs.min(all).max(1) as f64)
    }
}

/// Runs that are done one after the other, as there is room.
struct Queue<'s, 'a> {
    sweep: &'s mut Sweep<'a>,
    left: VecDeque<usize>,
    done: usize,
    all: usize,
    more: Vec<String>,
    clock: Clock,
}

impl Work for Queue<'_, '_> {
    type What = usize;

    fn next(&mut self) -> Result<Option<Job<usize>>> {
        let Some(run) = self.left.pop_front() else { return Ok(None) };
        self.clock.begin(run);
        Ok(Some(self.sweep.job(run, run, &self.more)))
    }

    fn ended(&mut self, run: usize, _: i32) -> Result<()> {
        self.clock.end(run);
        self.done += 1;
        self.sweep.tell_end(run)
    }

    fn look(&mut self, at_work: usize) {
        let left = self.clock.left(self.left.len());
        self.sweep.watcher.progress(self.done, self.all, at_work, left);
    }
}

/// A line of `halving.jsonl`: a cell, counted from 1, has come to a rung, or never will.
#[derive(Serialize, Deserialize)]
struct Told {
    cell: usize,
    rung: usize,
    figure: Option<f64>,
}

/// Runs that climb.
struct Ladder<'s, 'a> {
    sweep: &'s mut Sweep<'a>,
    ladder: Halving,
    log: MetricsLog,
    budget: Budget,
    /// How many climbs are over.
    done: usize,
    /// Runs of cells that have set out.
    waiting: VecDeque<(Climb, usize)>,
    /// How many runs of a cell are still to come to its rung, and whether one has failed.
    open: BTreeMap<Climb, (usize, bool)>,
}

impl Work for Ladder<'_, '_> {
    type What = (Climb, usize);

    fn next(&mut self) -> Result<Option<Job<Self::What>>> {
        if self.waiting.is_empty()
            && let Some(climb) = self.ladder.next_climb()
        {
            self.waiting.extend(self.sweep.plan.runs_of(climb.cell).map(|run| (climb, run)));
            self.open.insert(climb, (self.waiting.len(), false));
        }
        let Some((climb, run)) = self.waiting.pop_front() else { return Ok(None) };
        let rungs = &self.sweep.plan.rungs;
        let mut more = vec!["--no-test".to_owned()];
        if climb.rung + 1 < rungs.len() {
            let option = if self.budget == Budget::Steps { "--pause-after-steps" } else { "--pause-after-epochs" };
            more.extend([option.to_owned(), rungs[climb.rung].to_string()]);
        }
        Ok(Some(self.sweep.job(run, (climb, run), &more)))
    }

    fn ended(&mut self, (climb, run): (Climb, usize), code: i32) -> Result<()> {
        if code == super::folder::INTERRUPTED {
            // Nothing is known of this rung yet.
            return self.sweep.tell_end(run);
        }
        let Some((left, failed)) = self.open.get_mut(&climb) else { return Ok(()) };
        *left -= 1;
        *failed |= code != 0;
        if code != 0 {
            self.sweep.tell_end(run)?;
        }
        if *left > 0 {
            return Ok(());
        }
        let failed = *failed;
        self.open.remove(&climb);
        let far = self.sweep.plan.rungs[climb.rung];
        let mut figures = Vec::new();
        for run in self.sweep.plan.runs_of(climb.cell) {
            figures.extend(self.sweep.figure_at(run, self.budget, far)?);
        }
        let all = self.sweep.plan.runs_of(climb.cell).count();
        let mean = figures.iter().sum::<f64>() / all as f64;
        let figure = (!failed && figures.len() == all).then_some(mean);
        self.log.append(&Told { cell: climb.cell + 1, rung: climb.rung, figure })?;
        self.ladder.report(climb, figure.map(|figure| self.sweep.smaller(figure)));
        self.done += 1;
        let label = self.sweep.plan.cells[climb.cell].label();
        let said = figure.map_or("no figure".into(), |f| format!("{} {f:.4}", self.sweep.plan.metric));
        let (rung, rungs) = (climb.rung + 1, self.sweep.plan.rungs.len());
        self.sweep.watcher.note(&format!("rung {rung}/{rungs} cell {}: {said} ({label})", climb.cell + 1));
        Ok(())
    }

    fn look(&mut self, at_work: usize) {
        // Every cell comes to the first rung; how many climbs follow is not known before.
        let all = self.sweep.plan.cells.len().max(self.done + self.open.len());
        self.sweep.watcher.progress(self.done, all, at_work, None);
    }
}
