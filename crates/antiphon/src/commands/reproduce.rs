//! `antiphon reproduce`: does a config give what it promises?

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use antiphon_core::{Error, Result};
use antiphon_lab::sweep::call;
use antiphon_lab::{ExpectConfig, Run, Verdict, verdict_table};

use super::{DataFolder, Ending, RunsFolder, Sets, Threads};
use crate::console::Console;
use crate::experiment::{Experiment, Loaded, figures};
use crate::interrupt;
use crate::output::{print, tell};

/// Run configs and hold the results against their [expect]
///
/// A run that is finished is used as it is. Exit code 1 if something is not as expected.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configs
    #[arg(required = true, value_name = "CONFIG")]
    configs: Vec<PathBuf>,
    #[command(flatten)]
    sets: Sets,
    /// Run them again, in new folders, even where there is a finished run
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    data: DataFolder,
    #[command(flatten)]
    runs: RunsFolder,
    /// Say nothing but warnings and results
    #[arg(long, short)]
    quiet: bool,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let sets = self.sets.set.iter().cloned();
        let sets: Vec<String> = sets.chain(self.threads.threads.map(|n| format!("threads={n}"))).collect();
        // All configs are read before the first one runs.
        let mut promises = Vec::new();
        for config in &self.configs {
            let loaded = Loaded::read(config, &sets)?;
            let Some(expect) = loaded.config.expect.clone() else {
                let message = "promises nothing: add `[expect]`, from a run that was measured";
                return Err(Error::new(message).in_file(config));
            };
            promises.push((config, loaded, expect));
        }
        let stop = interrupt::stop_flag()?;
        let mut table = Vec::new();
        for (config, loaded, expect) in promises {
            let better = figures(&loaded.config.evaluate, loaded.config.data.has_source());
            let Some(run) = self.finished(config, &sets, loaded, &stop)? else { return Ok(Ending::Interrupted) };
            let lower = |label: &str| better.get(label).is_none_or(|figure| figure.lower_is_better);
            let verdicts = ExpectConfig::verdicts(&expect, &run, &lower)?;
            table.push((format!("{} ({})", config.display(), run.name()), verdicts));
        }
        print(&verdict_table(&table))?;
        let all: Vec<&Verdict> = table.iter().flat_map(|(_, verdicts)| verdicts).collect();
        let missed = all.iter().filter(|verdict| !verdict.met).count();
        if missed > 0 {
            tell(&format!("{missed} of {} expectations are not met", all.len()));
            return Ok(Ending::Unmet);
        }
        print(&format!("all {} expectations are met\n", all.len()))?;
        Ok(Ending::Done)
    }

    /// The finished run of a config, which is run if there is none; `None` if that was interrupted.
    fn finished(&self, config: &Path, sets: &[String], loaded: Loaded, stop: &AtomicBool) -> Result<Option<Run>> {
        let runs = self.runs.runs();
        let experiment = Experiment::open_telling(loaded, &self.data.path(), &mut Console::new(false))?;
        let find = || -> Result<Option<Run>> {
            let Some(run) = runs.find(&experiment.identity)? else { return Ok(None) };
            let all = [antiphon_data::Split::Validation, antiphon_data::Split::Test];
            let done =
                run.is_finished()? && run.results()?.is_some_and(|results| experiment.is_measured(&results, &all));
            Ok(done.then_some(run))
        };
        if !self.again
            && let Some(run) = find()?
        {
            if let Some(warning) = run.manifest()?.other_revision(experiment.identity.revision.as_ref()) {
                tell(&format!("warning: {}: {warning}", run.path().display()));
            }
            return Ok(Some(run));
        }
        let program = std::env::current_exe().map_err(|e| Error::new(format!("cannot find this program: {e}")))?;
        let mut command = Command::new(&program);
        command.arg("run").arg(config);
        command.args(sets.iter().flat_map(|set| ["--set", set.as_str()]));
        command.arg("--runs-dir").arg(runs.root()).arg("--data-dir").arg(self.data.path());
        command.args(self.again.then_some("--again")).args(self.quiet.then_some("--quiet"));
        // Its own answer is not ours; what it says while it works is for whoever waits.
        match call(command.stdout(Stdio::null()), stop)? {
            0 => {}
            code if code == i32::from(interrupt::EXIT_CODE) => return Ok(None),
            _ => return Err(Error::new("could not be run; it has said why").in_file(config)),
        }
        find()?.map(Some).ok_or_else(|| Error::new("was run, but its run is not to be found").in_file(config))
    }
}
