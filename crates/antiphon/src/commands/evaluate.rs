//! `antiphon evaluate`: measure a trained model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use antiphon_core::{Error, Place, Result};
use antiphon_data::corpus::{Files, ParallelFiles, Targets};
use antiphon_data::lines::file_fault;
use antiphon_data::{Corpus, CorpusConfig, Split};
use antiphon_eval::MetricConfig;
use antiphon_lab::{Results, Run};
use clap::ValueEnum;

use super::models::Models;
use super::report::write_page;
use super::target::{Begin, Target};
use super::{DataFolder, Ending, OnDevice, RunsFolder, Sets, Threads, finished};
use crate::console::Console;
use crate::device::start_threads;
use crate::experiment::{
    Corpora, Evaluator, ExperimentConfig, NoAnswerConfig, Pace, SavedModels, Temperature, digests_of, files, heard,
    temperature, threshold, token_counts,
};
use crate::output::print;

/// Measure a run, a model, or several models together on a split, or on any file
///
/// With the run's own settings, data, device, threads and references, its results are also written to its folder. A
/// run is measured on as many threads as it was trained on, unless --threads says otherwise.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    models: Models,
    /// What it is measured on
    #[arg(long, value_enum, default_value = "test")]
    split: Measured,
    /// Measure it on this file instead, in the format of the model's corpus: of a `parallel` one these are the sources, and
    /// --references has the targets
    #[arg(long, value_name = "FILE", conflicts_with = "split")]
    input: Option<PathBuf>,
    /// Judge by this file instead of the corpus's targets, line by line; lines with equal sources share their references. Give
    /// several for several references
    #[arg(long, value_name = "FILE")]
    references: Vec<PathBuf>,
    #[command(flatten)]
    sets: Sets,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    device: OnDevice,
    #[command(flatten)]
    data: DataFolder,
    #[command(flatten)]
    runs: RunsFolder,
    /// Say nothing but warnings and results
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measured {
    Test,
    Validation,
}

impl Measured {
    fn split(self) -> Split {
        match self {
            Measured::Test => Split::Test,
            Measured::Validation => Split::Validation,
        }
    }
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let mut console = Console::new(self.quiet);
        let asked = self.threads.threads.map(usize::from);
        let begin = |run: Option<&Run>| {
            let own = run.map(Run::manifest).transpose()?;
            start_threads(asked.or(own.map(|manifest| manifest.threads)))
        };
        let begin = Begin { threads: asked, begin: &begin };
        let targets = self.models.find(&self.sets.set, &self.runs.runs(), &self.data, &begin)?;
        let mut models = self.models.read(&targets, self.device.device)?;
        if models.first().config.searches() {
            models.check_search(&models.first().config.search)?;
        }
        // Several together have no run, and so no results, of their own.
        let target = if let [target] = targets.as_slice() { Some(target) } else { None };
        let own = target.and_then(|target| target.run.as_ref()).map(Run::manifest).transpose()?;
        let (split, data_dir, mut references) = (self.split.split(), self.data.path(), self.references.clone());
        let corpus = match &self.input {
            Some(input) => {
                let config = &mut models.first_mut().config;
                test_on(&mut config.data, input, &mut references)?;
                leave_out_lacking(config, input, &mut console)?;
                // As it is given, not below the data folder.
                let corpus = Corpus::open_with(&config.data, &config.further_columns(), split, Path::new(""))?;
                Arc::new(heard(corpus, config, &data_dir, &mut console)?)
            }
            None if models.first().config.data.has(split) => {
                Corpora::open_split(&models.first().config, split, &data_dir, &mut console)?
            }
            None => {
                let message =
                    format!("its config names no file of the {split} split; measure it on one with `--input FILE`");
                return Err(Error::new(message).in_file(self.models.name()));
            }
        };
        let saved = models.first();
        if let Some(warning) = corpus.header_warning() {
            console.warn(&warning);
        }
        if !saved.config.data.has_source() && !self.references.is_empty() {
            let message = "a language model answers nothing that could be judged; leave --references out";
            return Err(Error::new(message).at(Place::text("--references")));
        }
        let own_judge = self.references.is_empty() && self.input.is_none();
        let run = target.filter(|target| target.sets.is_empty() && own_judge).and_then(|target| target.run.as_ref());
        let trained_on = saved.config.device;
        let run = match run {
            Some(run) if trained_on != self.device.device => {
                let (run, device) = (run.path().display(), trained_on.name());
                console.warn(&format!("{run}: its results are of --device {device} and stay as they are"));
                None
            }
            Some(run) if own.as_ref().zip(asked).is_some_and(|(own, asked)| own.threads != asked) => {
                let run = run.path().display();
                console.warn(&format!("{run}: its results are of another number of threads and stay as they are"));
                None
            }
            Some(run) if is_of_the_run(&corpus, &saved.config, &data_dir, run, &mut console)? => Some(run),
            _ => None,
        };
        // Before the work: figures that cannot be written would be lost, and so would another process's.
        let _lock = run.map(Run::lock).transpose()?;
        let mut results = match target {
            Some(target) => results_of(&models, target)?,
            None => nothing_yet(&models),
        };
        let name = self.input.as_ref().map_or_else(|| split.to_string(), |input| input.display().to_string());
        let never = AtomicBool::new(false);
        let mut evaluator =
            Evaluator::judged_by(&saved.config, &saved.tokenizers, &corpus, &references, models.other_readers())?;
        if !saved.config.data.has_source() {
            // What was learned from, and chosen on, where it is there.
            let there = |split| {
                let config = &saved.config;
                let files = files(&config.data, Some(split), &data_dir);
                let all = config.data.has(split) && files.iter().all(|(_, path)| file_fault(path).is_none());
                all.then(|| Corpora::open_split(config, split, &data_dir, &mut Console::new(true))).transpose()
            };
            // And of a run the very text that it has read.
            let own = |corpus: Option<Arc<Corpus>>| match (run, corpus) {
                (Some(run), Some(corpus)) => Ok(foreign(&corpus, &data_dir, run)?.is_none().then_some(corpus)),
                (_, corpus) => Ok::<_, Error>(corpus),
            };
            let fits = saved.config.evaluate.temperature == Temperature::Fit;
            let validation = if fits { own(there(Split::Validation)?)? } else { None };
            let known = results.validation.as_ref();
            let mut progress = |Pace { of, done, all }: Pace| console.progress(&format!("{name}: {of}"), done, all);
            let Some(temperature) = temperature(
                &models,
                &saved.tokenizers,
                &saved.config,
                known,
                validation.as_ref(),
                &never,
                &mut progress,
            )?
            else {
                return Ok(Ending::Interrupted);
            };
            if fits && temperature.is_none() {
                console.warn(&format!(
                    "{name}: nothing is judged at a temperature, which is fitted on the validation split of a run"
                ));
            }
            evaluator = evaluator.with_temperature(temperature);
            // Its page tells tokens apart by how often they were learned from.
            if run.is_some()
                && let Some(train) = own(there(Split::Train)?)?
            {
                evaluator = evaluator.with_learned(Some(token_counts(&saved.config, &saved.tokenizers, &train)?));
            }
        }
        if saved.config.searches() && matches!(saved.config.evaluate.no_answer, NoAnswerConfig::Fitted(_)) {
            let config = &saved.config;
            let mut progress = |Pace { of, done, all }: Pace| console.progress(&format!("{name}: {of}"), done, all);
            if split == Split::Validation && self.input.is_none() {
                evaluator = evaluator.choosing_threshold();
            } else {
                let files = files(&config.data, Some(Split::Validation), &data_dir);
                let is_there =
                    config.data.has(Split::Validation) && files.iter().all(|(_, path)| file_fault(path).is_none());
                let validation = is_there
                    .then(|| Corpora::open_split(config, Split::Validation, &data_dir, &mut Console::new(true)))
                    .transpose()?;
                let found =
                    threshold(&models, &saved.tokenizers, config, None, validation.as_ref(), &never, &mut progress)?;
                let Some(found) = found else { return Ok(Ending::Interrupted) };
                if found.is_none() {
                    console.warn(&format!(
                        "{name}: no answer is withheld: the threshold is chosen on the validation split, which is not there"
                    ));
                }
                evaluator = evaluator.with_threshold(found);
            }
        }
        let mut progress = |Pace { of, done, all }: Pace| console.progress(&format!("{name}: {of}"), done, all);
        let Some(evaluation) = evaluator.evaluate(&models, &never, &mut progress)? else {
            return Ok(Ending::Interrupted);
        };
        console.clear();
        for warning in evaluation.warnings() {
            console.warn(&format!("{name}: {warning}"));
        }
        match split {
            Split::Validation => results.validation = Some(evaluation.results),
            _ => results.test = Some(evaluation.results),
        }
        if let Some(run) = run {
            finished::write_answers(&run.predictions_path(split.name()), &evaluation.answers)?;
            finished::write_losses(&run.losses_path(split.name()), evaluation.token_losses.as_ref())?;
            run.write_results(&results)?;
            write_page(run, &data_dir)?;
        }
        let shown = match split {
            Split::Validation => Results { test: None, ..results },
            _ => Results { validation: None, ..results },
        };
        let name = if self.input.is_some() { "input" } else { split.name() };
        let (table, by) = (shown.table_of(&[name]), shown.tables_by(name));
        let answers = finished::some_answers(&evaluation.answers, saved.config.evaluate.show);
        print(&format!("{table}\n{by}{answers}"))?;
        Ok(Ending::Done)
    }
}

/// Puts a file in the place of the test split. The files that are named as references of a `parallel` corpus become its targets.
fn test_on(data: &mut CorpusConfig, input: &Path, references: &mut Vec<PathBuf>) -> Result<()> {
    let files = references.iter().map(|file| ("--references", file.as_path())).chain([("--input", input)]);
    for (option, file) in files {
        if let Some(fault) = file_fault(file) {
            return Err(Error::new(fault).in_file(file).at(Place::text(option)));
        }
    }
    match data {
        CorpusConfig::Pairs(pairs) => pairs.test = Some(input.into()),
        CorpusConfig::Table(table) => table.test = Some(input.into()),
        CorpusConfig::Manifest(manifest) => manifest.test = Some(input.into()),
        CorpusConfig::Text(text) => text.test = Some(input.into()),
        CorpusConfig::Stream(stream) => stream.test = Some(Files::One(input.into())),
        CorpusConfig::Parallel(parallel) => {
            if references.is_empty() {
                let message =
                    "has the sources alone, as the model's corpus has; name the file of the targets too: --references";
                return Err(Error::new(message).in_file(input));
            }
            let target = Targets::Many(std::mem::take(references));
            parallel.test = Some(ParallelFiles { source: input.into(), target });
        }
    }
    Ok(())
}

/// Leaves out the columns of `evaluate.by` and `evaluate.support` that a file has not, and metrics that read such a column: it can be
/// measured all the same.
fn leave_out_lacking(config: &mut ExperimentConfig, input: &Path, console: &mut Console) -> Result<()> {
    if config.evaluate.kept_columns().is_empty() {
        return Ok(());
    }
    let Some(columns) = config.data.columns_of(input)? else { return Ok(()) };
    let lacking: Vec<String> = config.evaluate.by.extract_if(.., |column| !columns.contains(column)).collect();
    for column in lacking {
        console
            .warn(&format!("{}: has no column `{column}`, which evaluate.by names: no figures by it", input.display()));
    }
    if let Some(column) = config.evaluate.support.take_if(|column| !columns.contains(column)) {
        let message = "which evaluate.support names: it is not measured whether sentences support answers";
        console.warn(&format!("{}: has no column `{column}`, {message}", input.display()));
    }
    let lacks = |metric: &mut MetricConfig| metric.columns().iter().any(|column| !columns.contains(column));
    let lacking: Vec<MetricConfig> = config.evaluate.metrics.extract_if(.., lacks).collect();
    for metric in lacking {
        let named = metric.columns().iter().map(|column| format!("`{column}`")).collect::<Vec<_>>().join(", ");
        console.warn(&format!(
            "{}: has no column {named}, which `{}` needs: it is left out",
            input.display(),
            metric.name()
        ));
    }
    Ok(())
}

/// The results so far of the run, or none of a model alone.
fn results_of(models: &SavedModels, target: &Target) -> Result<Results> {
    if let Some(results) = target.run.as_ref().map(Run::results).transpose()?.flatten() {
        return Ok(results);
    }
    let manifest = target.any_run().map(Run::manifest).transpose()?;
    let (cpu_seconds, wall_seconds) = manifest.map_or((0.0, 0.0), |m| (m.cpu_seconds, m.wall_seconds));
    // A checkpoint holds more than a model.
    let mut results = Results { cpu_seconds, wall_seconds, ..nothing_yet(models) };
    if !target.is_unfinished() {
        results.model.bytes = std::fs::metadata(&target.path).map_err(|e| Error::io(&target.path, "read", &e))?.len();
    }
    Ok(results)
}

/// The results of models of which nothing was measured.
fn nothing_yet(models: &SavedModels) -> Results {
    let (model, steps) = (models.size_of_weights(), models.members().map(|(_, saved)| saved.steps).sum());
    Results { validation: None, test: None, model, steps, cpu_seconds: 0.0, wall_seconds: 0.0 }
}

/// Whether these are the very files that the run read, and its language model is the one that it was to be searched with.
fn is_of_the_run(
    corpus: &Corpus,
    config: &ExperimentConfig,
    data_dir: &Path,
    run: &Run,
    console: &mut Console,
) -> Result<bool> {
    let known = run.manifest()?.data;
    let differs = |(name, sha256): &(String, String)| known.get(name) != Some(sha256);
    let changed = config.digests_of_search(data_dir)?.into_iter().find(differs).map(|(name, _)| PathBuf::from(name));
    let other = foreign(corpus, data_dir, run)?.map(Path::to_path_buf).or(changed);
    if let Some(file) = &other {
        console.warn(&format!("{}: is not the file that the run read; its results stay as they are", file.display()));
    }
    Ok(other.is_none())
}

/// The first of these files that the run did not read, at least not as it is now, and neither the recordings that it names.
fn foreign<'c>(corpus: &'c Corpus, data_dir: &Path, run: &Run) -> Result<Option<&'c Path>> {
    let known = run.manifest()?.data;
    let differs = |(what, sha256): &(String, String)| known.get(what).is_none_or(|k| k != sha256);
    let other = corpus.files().zip(digests_of(corpus, data_dir)).find(|(_, digest)| differs(digest));
    let recordings = || digests_of(corpus, data_dir).iter().any(differs).then(|| corpus.path());
    Ok(other.map(|((file, _), _)| file).or_else(recordings))
}
