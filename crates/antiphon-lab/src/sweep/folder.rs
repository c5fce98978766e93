//! The folder of a sweep: what it consists of, and how each of its runs stands.

use std::fs;
use std::path::{Path, PathBuf};

use antiphon_config::to_toml;
use antiphon_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cells::Cell;
use super::plan::{Meaning, Plan, PlannedRun};
use crate::disk::write_atomically;
use crate::identity::{Identity, digest_of};
use crate::lock::RunLock;
use crate::run::Run;
use crate::runs::Runs;

const FORMAT: u32 = 1;
/// The exit code of a run that was interrupted in good order.
pub(super) const INTERRUPTED: i32 = 130;

/// `runs/sweeps/NAME-DIGEST`: found again by its `[sweep]` and the settings of its runs.
#[derive(Debug, Clone)]
pub struct SweepFolder {
    path: PathBuf,
    /// On how many threads each run computes, for as long as the sweep lasts: another number would be another experiment.
    pub threads: usize,
}

/// `sweep.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    name: String,
    file: PathBuf,
    threads: usize,
    metric: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    restarts: bool,
    cells: Vec<Cell>,
}

/// What a sweep's folder tells of it, wherever the config is from which it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The figure on the validation split by which cells are compared.
    pub metric: String,
    /// Whether the seeds of a cell are [restarts](super::SweepConfig::restarts).
    pub restarts: bool,
    /// Its cells, each with the configs of its runs, in the order of their seeds.
    pub cells: Vec<(Cell, Vec<PathBuf>)>,
}

/// How a run of a sweep stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It has not begun, or was interrupted: then this is what there is of it.
    Open(Option<Run>),
    /// Another process is at work in its folder.
    Busy,
    /// It is done.
    Finished(Run),
    /// It ended by an error or a crash.
    Failed(String),
}

impl SweepFolder {
    /// Finds or makes the folder of a plan. `threads` is for runs whose config does not say how many.
    ///
    /// # Errors
    /// If the folder cannot be read or written.
    pub fn open(plan: &Plan, runs: &Runs, threads: usize) -> Result<Self> {
        let path = Self::place(plan, runs);
        let record_path = path.join("sweep.json");
        let threads = match read_record(&record_path)? {
            Some(record) => record.threads,
            None => {
                for folder in ["cells", "logs"] {
                    let folder = path.join(folder);
                    fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, "create", &e))?;
                }
                threads
            }
        };
        let folder = Self { path, threads };
        for run in &plan.runs {
            write_atomically(folder.config(run), to_toml(&folder.settings(run))?.as_bytes())?;
        }
        let Plan { name, file, metric, cells, config, .. } = plan.clone();
        let record = Record { format: FORMAT, name, file, threads, metric, restarts: config.restarts, cells };
        let text =
            serde_json::to_string_pretty(&record).map_err(|e| Error::new(e.to_string()).in_file(&record_path))?;
        write_atomically(&record_path, format!("{text}\n").as_bytes())?;
        Ok(folder)
    }

    /// The folder of a plan, whether it exists or not, and the threads of its runs if they are settled.
    pub fn peek(plan: &Plan, runs: &Runs, threads: usize) -> Result<Self> {
        let path = Self::place(plan, runs);
        let threads = read_record(&path.join("sweep.json"))?.map_or(threads, |record| record.threads);
        Ok(Self { path, threads })
    }

    /// What the folder of a sweep tells.
    ///
    /// # Errors
    /// If it is none, or cannot be read.
    pub fn kept(path: &Path) -> Result<Kept> {
        let none = || Error::new("is no folder of a sweep: there is no `sweep.json`").in_file(path);
        let Record { metric, restarts, cells, .. } = read_record(&path.join("sweep.json"))?.ok_or_else(none)?;
        let folder = path.join("cells");
        let failed = |e: std::io::Error| Error::io(&folder, "read", &e);
        let mut configs = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            // `03-seed-1`, as a run of a plan is called.
            let name = path.file_stem().and_then(|name| name.to_str());
            let numbers = name.and_then(|name| name.split_once("-seed-"));
            let numbers = numbers.and_then(|(cell, seed)| Some((cell.parse().ok()?, seed.parse().ok()?)));
            configs.extend(numbers.map(|numbers: (usize, u64)| (numbers, path)));
        }
        configs.sort();
        let of = |cell: &Cell| {
            let own = configs.iter().filter(|((number, _), _)| *number == cell.number);
            own.map(|(_, path)| path.clone()).collect()
        };
        Ok(Kept { metric, restarts, cells: cells.into_iter().map(|cell| (cell.clone(), of(&cell))).collect() })
    }

    fn place(plan: &Plan, runs: &Runs) -> PathBuf {
        let mut config = serde_json::to_value(&plan.config).expect("a sweep is JSON");
        if let Some(table) = config.as_object_mut() {
            // What a run gets from Slurm changes nothing of it.
            table.remove("slurm");
        }
        let settings: Vec<&Value> = plan.runs.iter().map(|run| &run.settings).collect();
        let digest = digest_of(&json!({ "sweep": config, "runs": settings }));
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let name: String = plan.name.chars().take(64).map(plain).collect();
        runs.root().join("sweeps").join(format!("{name}-{}", &digest[..8]))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A run's config, ready to run.
    pub fn config(&self, run: &PlannedRun) -> PathBuf {
        self.path.join("cells").join(format!("{}.toml", run.name))
    }

    /// What a run's process says.
    pub fn log(&self, run: &PlannedRun) -> PathBuf {
        self.path.join("logs").join(format!("{}.log", run.name))
    }

    /// The exit code of a run's last process.
    pub fn exit(&self, run: &PlannedRun) -> PathBuf {
        self.path.join("logs").join(format!("{}.exit", run.name))
    }

    /// The events of a halving sweep.
    pub fn ladder(&self) -> PathBuf {
        self.path.join("halving.jsonl")
    }

    /// Keeps other processes from driving this sweep.
    ///
    /// # Errors
    /// If one does.
    pub fn lock(&self) -> Result<RunLock> {
        RunLock::try_acquire(&self.path.join("sweep.lock"))?
            .ok_or_else(|| Error::new("another process drives this sweep; wait for it, or stop it").in_file(&self.path))
    }

    /// A run's settings with its threads.
    pub fn settings(&self, run: &PlannedRun) -> Value {
        let mut settings = run.settings.clone();
        if let Some(table) = settings.as_object_mut()
            && table.get("threads").is_none_or(Value::is_null)
        {
            table.insert("threads".into(), self.threads.into());
        }
        settings
    }

    /// How a run stands; it is found by what makes it the same experiment. `find` is [`Runs::find`] for one run, and for many
    /// [`RunIndex::find`](crate::RunIndex::find).
    ///
    /// # Errors
    /// If its data or its folder cannot be read.
    pub fn state(
        &self,
        run: &PlannedRun,
        find: impl Fn(&Identity) -> Result<Option<Run>>,
        meaning: &dyn Meaning,
    ) -> Result<State> {
        let begun = find(&meaning.identify(&self.settings(run))?)?;
        if let Some(found) = begun.clone() {
            let measured = found.results()?.is_some_and(|results| results.validation.is_some());
            if measured && found.is_finished()? {
                return Ok(State::Finished(found));
            }
            if found.is_at_work()? {
                return Ok(State::Busy);
            }
            // A test split that could not be measured must not cost the best cell its place.
            if measured {
                return Ok(State::Finished(found));
            }
        }
        Ok(match self.exit_code(run) {
            None | Some(0 | INTERRUPTED) => State::Open(begun),
            Some(code) => State::Failed(self.blame(run, code)),
        })
    }

    fn exit_code(&self, run: &PlannedRun) -> Option<i32> {
        fs::read_to_string(self.exit(run)).ok()?.trim().parse().ok()
    }

    /// Why a run failed, as far as its log tells.
    fn blame(&self, run: &PlannedRun, code: i32) -> String {
        let log = fs::read(self.log(run)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let errors = log.lines().rev().find_map(|line| line.strip_prefix("error: "));
        match errors {
            Some(error) => error.to_owned(),
            None if code > 128 => format!("ended by signal {}", code - 128),
            None => format!("ended with exit code {code}"),
        }
    }
}

fn read_record(path: &Path) -> Result<Option<Record>> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|e| Error::io(path, "read", &e))?,
    };
    let damaged =
        |e| Error::new(format!("is damaged ({e}); move the sweep's folder away: its runs are kept")).in_file(path);
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}
