//! `antiphon run` and `antiphon train`: an experiment in its folder.

use std::ffi::OsString;
use std::path::PathBuf;

use antiphon_config::Tree;
use antiphon_core::Result;
use antiphon_data::Split;
use antiphon_lab::{Identity, Manifest, Stopwatch};

use super::work::{Task, Work, is_left_by_another, left_by_another};
use super::{Ending, Sets, Threads, extend};
use crate::console::Console;
use crate::device::DeviceConfig;
use crate::experiment::{Experiment, Loaded};
use crate::output::command;

/// Run an experiment: train, search, evaluate
///
/// An experiment that is finished prints its results again; one that was interrupted goes on.
#[derive(Debug, clap::Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    job: Job,
    /// Leave the test split alone; the same command without this measures it, and nothing else, later
    #[arg(long)]
    no_test: bool,
}

/// Train, without search and evaluation
///
/// Training that was interrupted goes on.
#[derive(Debug, clap::Args)]
pub(super) struct TrainArguments {
    #[command(flatten)]
    job: Job,
}

/// What `run` and `train` have in common.
#[derive(Debug, clap::Args)]
struct Job {
    /// The experiment's config
    config: PathBuf,
    #[command(flatten)]
    sets: Sets,
    #[command(flatten)]
    threads: Threads,
    /// Where tensors live [default: what the config says]
    #[arg(long, value_name = "DEVICE", value_enum)]
    device: Option<DeviceConfig>,
    #[command(flatten)]
    work: Work,
}

impl RunArguments {
    pub(super) fn perform(self) -> Result<Ending> {
        self.job.perform(if self.no_test { &[Split::Validation] } else { &[Split::Validation, Split::Test] })
    }
}

impl TrainArguments {
    pub(super) fn perform(self) -> Result<Ending> {
        self.job.perform(&[])
    }
}

impl Job {
    /// Trains, then measures these splits.
    fn perform(self, splits: &[Split]) -> Result<Ending> {
        let watch = Stopwatch::start();
        let mut console = self.work.console();
        let mut sets = self.sets.set.clone();
        sets.extend(self.threads.threads.map(|n| format!("threads={n}")));
        sets.extend(self.device.map(|device| format!("device={}", device.name())));
        let tree = Tree::load(&self.config, &sets)?;
        let loaded = Loaded::from_tree(&tree)?;
        loaded.check_parts(&tree)?;
        for warning in &loaded.warnings {
            console.warn(&format!("{}: {warning}", self.config.display()));
        }
        if loaded.config.sweep.is_some() {
            let mut words: Vec<OsString> = vec!["sweep".into(), self.config.clone().into()];
            words.extend(self.sets.set.iter().flat_map(|set| ["--set".into(), set.into()]));
            words.extend(self.work.data.words().into_iter().chain(self.work.runs.words()));
            let (file, cells) = (self.config.display(), command(words));
            console.warn(&format!("{file}: `[sweep]` is left aside; its cells are run by `{cells}`"));
        }
        let (experiment, adapter) = self.work.open(loaded, &mut console, Experiment::open_telling)?;
        let check = |console: &mut Console| {
            console.status("looking at the corpus");
            let checked = experiment.check_length().and_then(|()| experiment.check_start());
            let checked = checked.and_then(|()| experiment.check_teacher()).and_then(|()| experiment.check_search());
            console.clear();
            checked.map_err(|error| error.in_file(&self.config))?;
            if self.work.again { Ok(()) } else { self.look_around(&experiment.identity, console) }
        };
        let task =
            Task { experiment: &experiment, named: &self.config, splits, adapter, check: &check, furnish: &|_| Ok(()) };
        self.work.perform(&task, console, watch)
    }

    /// Says which runs are of this experiment but for threads, version or length, and are not gone on with.
    fn look_around(&self, identity: &Identity, console: &mut Console) -> Result<()> {
        let runs = self.work.runs.runs();
        let siblings = runs.siblings(identity)?;
        let left = siblings.iter().find(|(_, manifest)| is_left_by_another(manifest, identity));
        if let Some((run, manifest)) = left.filter(|_| self.work.run.is_none()) {
            return Err(left_by_another(run, manifest, "begin anew in a folder of its own with `--again`"));
        }
        // One is enough, those of this version first.
        let nearest = siblings.into_iter().max_by_key(|(_, manifest)| manifest.version == identity.version);
        if let Some((run, Manifest { threads, version, .. })) = nearest {
            let (path, own) = (run.path().display(), identity.threads);
            console.warn(&if version == identity.version {
                format!(
                    "{path} is this experiment with `threads = {threads}`, not {own}, which rounds differently: this is a \
                     new run; `--threads {threads}` goes on with that one"
                )
            } else {
                format!("{path} is this experiment by version {version}, whose figures may differ: this is a new run")
            });
        } else if let Some(shorter) = extend::shorter(&runs, self.work.run.as_deref(), identity)? {
            let words = shorter.words().into_iter().chain(self.work.data.words()).chain(self.work.runs.words());
            let (path, remedy) = (shorter.run.path().display(), command(words));
            console.warn(&format!(
                "{path} is this experiment with `{}`, and trained: this is a new run, which begins at step 0; `{remedy}` \
                 goes on with that one",
                shorter.length()
            ));
        }
        Ok(())
    }
}
