//! The models that a command asks: one, or several that answer together.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use antiphon_core::{Error, Place, Result};
use antiphon_decode::Combination;
use antiphon_lab::sweep::{Cell, SweepFolder};
use antiphon_lab::{Run, Runs};
use clap::ValueEnum;

use super::target::{Begin, Target, check_changeable, settings_of};
use crate::device::{DeviceConfig, thread_count};
use crate::experiment::{Loaded, SavedModels, figures};
use crate::output::tell;

/// Which models.
#[derive(Debug, clap::Args)]
pub(super) struct Models {
    /// A run's folder, a model file, or a config that has been run; several answer together, by the settings of the first
    #[arg(value_name = "RUN|MODEL|CONFIG", required_unless_present = "sweep")]
    what: Vec<PathBuf>,
    /// The folder of a sweep, of which the runs of one cell answer together
    #[arg(long, value_name = "DIR", conflicts_with = "what")]
    sweep: Option<PathBuf>,
    /// Which cell of the sweep: `best` on the validation split, or its number
    #[arg(long, value_name = "CELL", conflicts_with = "what", default_value = "best")]
    cell: Which,
    /// How several are combined, token by token [default: linear]
    #[arg(long, value_enum, value_name = "HOW")]
    combine: Option<Combine>,
    /// How much each of several counts, in their order, as in --weights 2,1,1 [default: all the same]
    #[arg(long, value_name = "W,W,…", value_delimiter = ',', allow_negative_numbers = true)]
    weights: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Combine {
    /// By the mean of their probabilities
    Linear,
    /// By the geometric mean of their probabilities
    LogLinear,
}

/// Which cell of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Best,
    Number(usize),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "best" => Ok(Which::Best),
            number => number.parse().map(Which::Number).map_err(|_| "write `best`, or the number of a cell".into()),
        }
    }
}

impl Models {
    /// What errors are about that concern them all: the first, or the sweep.
    pub(super) fn name(&self) -> &Path {
        self.sweep.as_deref().or(self.what.first().map(PathBuf::as_path)).unwrap_or(Path::new("the models"))
    }

    /// The words that name them to another command.
    pub(super) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = self.what.iter().map(Into::into).collect();
        if let Some(folder) = &self.sweep {
            let cell = match self.cell {
                Which::Best => "best".to_owned(),
                Which::Number(number) => number.to_string(),
            };
            words.extend(["--sweep".into(), folder.into(), "--cell".into(), cell.into()]);
        }
        if let Some(how) = self.combine {
            let how = how.to_possible_value().expect("no value is left out");
            words.extend(["--combine".into(), how.get_name().into()]);
        }
        if !self.weights.is_empty() {
            let weights: Vec<String> = self.weights.iter().map(f64::to_string).collect();
            words.extend(["--weights".into(), weights.join(",").into()]);
        }
        words
    }

    /// Finds them; `begin` hears of the first, and `data` are the words that name the folder of data sets to another command.
    pub(super) fn find(
        &self,
        sets: &[String],
        runs: &Runs,
        data: &[OsString],
        begin: &Begin<'_>,
    ) -> Result<Vec<Target>> {
        let later = Begin::quietly(begin.threads);
        let begin = |i: usize| if i == 0 { begin } else { &later };
        let found: Vec<Target> = match &self.sweep {
            Some(folder) => {
                check_changeable(sets)?;
                let all = cell_of(folder, self.cell, runs)?.into_iter().enumerate();
                all.map(|(i, run)| Target::of_run(run, sets.to_vec(), begin(i))).collect::<Result<_>>()?
            }
            None => {
                let all = self.what.iter().enumerate();
                all.map(|(i, what)| Target::find(what, sets, runs, data, begin(i))).collect::<Result<_>>()?
            }
        };
        if !self.weights.is_empty() && self.weights.len() != found.len() {
            let message =
                format!("there are {} weights for {} models: give each its own", self.weights.len(), found.len());
            return Err(Error::new(message).at(Place::text("--weights")));
        }
        Ok(found)
    }

    /// Reads those that were found onto a device.
    pub(super) fn read(&self, targets: &[Target], on: DeviceConfig) -> Result<SavedModels> {
        let mut parts: Vec<SavedModels> = targets.iter().map(|target| target.open(on)).collect::<Result<_>>()?;
        let combination = self.combine.map(|combine| match combine {
            Combine::Linear => Combination::Linear,
            Combine::LogLinear => Combination::LogLinear,
        });
        if parts.len() == 1 && combination.is_none() {
            return Ok(parts.remove(0));
        }
        let weights = if self.weights.is_empty() { vec![1.0; parts.len()] } else { self.weights.clone() };
        let place = if self.weights.is_empty() { "--combine" } else { "--weights" };
        SavedModels::together(parts, combination, &weights).map_err(|error| match error.file {
            Some(_) => error,
            None => error.at(Place::text(place)),
        })
    }

    /// Finds and reads them.
    pub(super) fn open(
        &self,
        sets: &[String],
        runs: &Runs,
        threads: Option<usize>,
        on: DeviceConfig,
    ) -> Result<SavedModels> {
        self.read(&self.find(sets, runs, &[], &Begin::quietly(threads))?, on)
    }
}

/// The runs of a cell of a sweep, in the order of their seeds. `folder`: its path, or its name below `sweeps` in the folder of runs.
fn cell_of(folder: &Path, which: Which, runs: &Runs) -> Result<Vec<Run>> {
    let below = runs.root().join("sweeps").join(folder);
    let folder = if !folder.exists() && below.is_dir() { &below } else { folder };
    let kept = SweepFolder::kept(folder)?;
    let made: Vec<(Run, serde_json::Value)> =
        runs.list()?.into_iter().filter_map(|run| settings_of(&run).map(|settings| (run, settings))).collect();
    let (cell, found) = match which {
        Which::Number(number) => {
            let cell = kept.cells.iter().find(|(cell, _)| cell.number == number);
            let Some((cell, configs)) = cell else {
                let message = format!("has {} cells, and none of number {number}", kept.cells.len());
                return Err(Error::new(message).in_file(folder).at(Place::text("--cell")));
            };
            let found = configs.iter().map(|config| {
                run_of(config, &made)?
                    .ok_or_else(|| Error::new("has no run with a model yet; go on with the sweep").in_file(config))
            });
            (cell, found.collect::<Result<Vec<Run>>>()?)
        }
        Which::Best => {
            let mut ranked: Vec<(f64, &Cell, Vec<Run>)> = Vec::new();
            for (cell, configs) in &kept.cells {
                let found = configs.iter().map(|config| run_of(config, &made)).collect::<Result<Option<Vec<Run>>>>()?;
                if let (Some(found), Some(first)) = (found, configs.first())
                    && let Some(mean) = mean(&found, &kept.metric, first)?
                {
                    ranked.push((mean, cell, found));
                }
            }
            // Of equals the first.
            let best = ranked.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
            let none =
                || Error::new("has no cell of which every run is measured; go on with the sweep").in_file(folder);
            let (_, cell, found) = best.ok_or_else(none)?;
            (cell, found)
        }
    };
    tell(&format!("{}: cell {} ({}), {} runs", folder.display(), cell.number, cell.label(), found.len()));
    Ok(found)
}

/// The run with a model whose settings are those of a config, among those that were made: of several the one on as many threads
/// as it says, then the latest.
fn run_of(config: &Path, made: &[(Run, serde_json::Value)]) -> Result<Option<Run>> {
    let Loaded { config: settings, .. } = Loaded::read(config, &[])?;
    let (decisive, threads) = (settings.decisive(), thread_count(settings.threads));
    let mut found = Vec::new();
    for (run, _) in made.iter().filter(|(run, own)| *own == decisive && run.model_path().is_file()) {
        let manifest = run.manifest()?;
        found.push(((manifest.threads == threads, manifest.started), run));
    }
    Ok(found.into_iter().max_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, run)| run.clone()))
}

/// The mean of a figure on the validation split, turned so that less is better; `None` if a run has none.
fn mean(runs: &[Run], metric: &str, config: &Path) -> Result<Option<f64>> {
    let Loaded { config, .. } = Loaded::read(config, &[])?;
    let known = figures(&config.evaluate, config.data.has_source());
    let sign = if known.get(metric).is_none_or(|figure| figure.lower_is_better) { 1.0 } else { -1.0 };
    let figure = |run: &Run| Ok(run.results()?.and_then(|results| results.validation?.value(metric)));
    let all = runs.iter().map(figure).collect::<Result<Option<Vec<f64>>>>()?;
    Ok(all.filter(|all| !all.is_empty()).map(|all| sign * all.iter().sum::<f64>() / all.len() as f64))
}
