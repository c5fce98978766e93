//! The models that a command asks: one, or several that answer together.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use antiphon_core::{Error, Place, Result};
use antiphon_decode::Combination;
use antiphon_lab::sweep::{Cell, Meaning, SweepFolder};
use antiphon_lab::{Run, Runs};
use clap::ValueEnum;

use super::DataFolder;
use super::target::{Begin, Made, Target, check_changeable, tell_of_others};
use crate::device::{DeviceConfig, thread_count};
use crate::experiment::{Interpreter, Loaded, SavedModels, figures};
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

    /// Finds them; `begin` hears of the first.
    pub(super) fn find(
        &self,
        sets: &[String],
        runs: &Runs,
        data: &DataFolder,
        begin: &Begin<'_>,
    ) -> Result<Vec<Target>> {
        let words = data.words();
        let later = Begin::quietly(begin.threads);
        let begin = |i: usize| if i == 0 { begin } else { &later };
        let found: Vec<Target> = match &self.sweep {
            Some(folder) => {
                check_changeable(sets)?;
                let all = cell_of(folder, self.cell, runs, data)?.into_iter().enumerate();
                all.map(|(i, run)| Target::of_run(run, sets.to_vec(), begin(i))).collect::<Result<_>>()?
            }
            None => {
                let all = self.what.iter().enumerate();
                all.map(|(i, what)| Target::find(what, sets, runs, &words, begin(i))).collect::<Result<_>>()?
            }
        };
        if !self.weights.is_empty() && found.len() == 1 {
            let message = "there is one model, and nothing that it could count beside: leave it out, or name several";
            return Err(Error::new(message).at(Place::text("--weights")));
        }
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
        // Of several together no run knows from which confidence on they answer.
        if let ([target], [models]) = (targets, parts.as_mut_slice()) {
            target.settle(models);
        }
        let combination = self.combine.map(|combine| match combine {
            Combine::Linear => Combination::Linear,
            Combine::LogLinear => Combination::LogLinear,
        });
        let combination = match combination {
            None => SavedModels::combination_of(&parts).map_err(|error| error.at(Place::text("--combine")))?,
            Some(_) if parts.len() == 1 && parts[0].members().len() == 1 => {
                let message = "there is one model, and nothing to combine it with: leave it out, or name several";
                return Err(Error::new(message).at(Place::text("--combine")));
            }
            Some(chosen) => chosen,
        };
        if parts.len() == 1 && parts[0].mixture().combination() == combination {
            return Ok(parts.remove(0));
        }
        let weights = if self.weights.is_empty() { vec![1.0; parts.len()] } else { self.weights.clone() };
        SavedModels::together(parts, Some(combination), &weights).map_err(|error| match error.file {
            Some(_) => error,
            None => error.at(Place::text("--weights")),
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
        self.read(&self.find(sets, runs, &DataFolder::default(), &Begin::quietly(threads))?, on)
    }
}

/// The runs of a cell of a sweep, in the order of their seeds. `folder`: its path, or its name below `sweeps` in the folder of runs.
fn cell_of(folder: &Path, which: Which, runs: &Runs, data: &DataFolder) -> Result<Vec<Run>> {
    let below = runs.root().join("sweeps").join(folder);
    let folder = if !folder.exists() && below.is_dir() { &below } else { folder };
    let kept = SweepFolder::kept(folder)?;
    let made = MadeBySweep { made: Made::list(runs)?, meaning: Interpreter::new(&data.path()) };
    let (cell, configs, found): (&Cell, Vec<&PathBuf>, Vec<Found>) = match which {
        Which::Best if kept.restarts => {
            let message = format!(
                "each of its {} cells is a task of its own, and none the best: name one by its number",
                kept.cells.len()
            );
            return Err(Error::new(message).in_file(folder).at(Place::text("--cell")));
        }
        Which::Number(number) => {
            let cell = kept.cells.iter().find(|(cell, _)| cell.number == number);
            let Some((cell, configs)) = cell else {
                let message = format!("has {} cells, and none of number {number}", kept.cells.len());
                return Err(Error::new(message).in_file(folder).at(Place::text("--cell")));
            };
            let found = configs.iter().map(|config| {
                made.run_of(config)?
                    .ok_or_else(|| Error::new("has no run with a model yet; go on with the sweep").in_file(config))
            });
            let (configs, found) = (configs.iter().collect(), found.collect::<Result<Vec<Found>>>()?);
            match kept.restarts {
                true => best_restart(cell, configs, found, &kept.metric)?,
                false => (cell, configs, found),
            }
        }
        Which::Best => {
            let mut ranked: Vec<(f64, &Cell, &Vec<PathBuf>, Vec<Found>)> = Vec::new();
            for (cell, configs) in &kept.cells {
                let found = configs.iter().map(|config| made.run_of(config)).collect::<Result<Option<Vec<Found>>>>()?;
                if let (Some(found), Some(first)) = (found, configs.first())
                    && let Some(mean) = mean(&found, &kept.metric, first)?
                {
                    ranked.push((mean, cell, configs, found));
                }
            }
            // Of equals the first.
            let best = ranked.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
            let none =
                || Error::new("has no cell of which every run is measured; go on with the sweep").in_file(folder);
            let (_, cell, configs, found) = best.ok_or_else(none)?;
            (cell, configs.iter().collect(), found)
        }
    };
    for (config, Found { run, count }) in configs.iter().zip(&found) {
        tell_of_others(config, run, *count);
    }
    let runs = if kept.restarts { "its best run".to_owned() } else { format!("{} runs", found.len()) };
    tell(&format!("{}: cell {} ({}), {runs}", folder.display(), cell.number, cell.label()));
    Ok(found.into_iter().map(|found| found.run).collect())
}

/// Of the restarts of a cell the one that is best on the validation split, of equals the first.
fn best_restart<'k>(
    cell: &'k Cell,
    configs: Vec<&'k PathBuf>,
    found: Vec<Found>,
    metric: &str,
) -> Result<(&'k Cell, Vec<&'k PathBuf>, Vec<Found>)> {
    let mut best: Option<(f64, &PathBuf, Found)> = None;
    for (config, found) in configs.into_iter().zip(found) {
        let lacking =
            || Error::new("has no run that is measured on the validation split; go on with the sweep").in_file(config);
        let figure = mean(std::slice::from_ref(&found), metric, config)?.ok_or_else(lacking)?;
        if best.as_ref().is_none_or(|(least, ..)| figure < *least) {
            best = Some((figure, config, found));
        }
    }
    let (configs, found) = best.into_iter().map(|(_, config, found)| (config, found)).unzip();
    Ok((cell, configs, found))
}

/// Where the runs of a sweep are looked for.
struct MadeBySweep {
    made: Made,
    meaning: Interpreter,
}

/// A run of a sweep, and how many it could be.
struct Found {
    run: Run,
    count: usize,
}

impl MadeBySweep {
    /// The run with a model that a sweep has made of a config. Runs that go on with another are none of its. Where runs of equal
    /// settings have learned from unlike files, the data of the sweep tell them apart; else they need not be there.
    fn run_of(&self, config: &Path) -> Result<Option<Found>> {
        let Loaded { config: settings, .. } = Loaded::read(config, &[])?;
        let threads = thread_count(settings.threads);
        let mut found = self.made.of(&settings, threads)?;
        found.retain(|(run, manifest)| run.model_path().is_file() && manifest.parent.is_none());
        // Another number of threads is another experiment: that of a sweep which has been repeated elsewhere.
        if found.iter().any(|(_, manifest)| manifest.threads == threads) {
            found.retain(|(_, manifest)| manifest.threads == threads);
        }
        if found.iter().any(|(_, manifest)| manifest.data != found[0].1.data) {
            let settings = serde_json::to_value(&settings).expect("a config is JSON");
            let identity = self.meaning.identify(&settings).map_err(|error| {
                let names: Vec<String> = found.iter().map(|(run, _)| run.path().display().to_string()).collect();
                let message = format!(
                    "{} runs have these settings and have learned from unlike files ({}); the data of the sweep, which would tell \
                     its own, cannot be read ({error}): restore them, or name the runs themselves",
                    found.len(),
                    names.join(", ")
                );
                Error::new(message).in_file(config)
            })?;
            found.retain(|(_, manifest)| manifest.data == identity.data);
        }
        let count = found.len();
        Ok(found.into_iter().next().map(|(run, _)| Found { run, count }))
    }
}

/// The mean of a figure on the validation split, turned so that less is better; `None` if a run has none.
fn mean(runs: &[Found], metric: &str, config: &Path) -> Result<Option<f64>> {
    let Loaded { config, .. } = Loaded::read(config, &[])?;
    let known = figures(&config.evaluate, config.data.has_source());
    let sign = if known.get(metric).is_none_or(|figure| figure.lower_is_better) { 1.0 } else { -1.0 };
    let figure = |found: &Found| Ok(found.run.results()?.and_then(|results| results.validation?.value(metric)));
    let all = runs.iter().map(figure).collect::<Result<Option<Vec<f64>>>>()?;
    Ok(all.filter(|all| !all.is_empty()).map(|all| sign * all.iter().sum::<f64>() / all.len() as f64))
}
