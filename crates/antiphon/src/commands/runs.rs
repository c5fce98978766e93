//! `antiphon runs`: all runs and how they stand.

use antiphon_core::Result;
use antiphon_lab::{Manifest, Results, Run};

use super::{Ending, RunsFolder};
use crate::output::{columns, print};

/// List the runs
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    folder: RunsFolder,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let runs = self.folder.runs().list()?;
        if runs.is_empty() {
            print(&format!("{}: no runs\n", self.folder.runs_dir.display()))?;
            return Ok(Ending::Done);
        }
        let head = ["run", "state", "seed", "started", "minutes", "figures"].map(String::from).to_vec();
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(runs.iter().map(row)).collect();
        print(&columns(&rows))?;
        Ok(Ending::Done)
    }
}

fn row(run: &Run) -> Vec<String> {
    let manifest = match run.manifest() {
        Ok(manifest) => manifest,
        Err(error) => return vec![run.name(), format!("unreadable: {error}")],
    };
    let state = run.state(&manifest).to_owned();
    let Manifest { seed, started, wall_seconds, .. } = manifest;
    let results = run.results().ok().flatten();
    let seed = seed.map_or(String::new(), |seed| seed.to_string());
    let figures = results.as_ref().map_or(String::new(), figures);
    vec![run.name(), state, seed, started, format!("{:.1}", wall_seconds / 60.0), figures]
}

/// The metrics of the test split, or of the validation split where there is no other.
fn figures(results: &Results) -> String {
    let Some((name, split)) = results.splits().last() else { return String::new() };
    let metrics = split.metrics.iter().map(|(label, score)| format!("{label} {:.2}", score.value));
    format!("{name}: {}", metrics.collect::<Vec<_>>().join(", "))
}
