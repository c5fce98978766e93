//! `antiphon compare`: runs side by side.

use std::path::PathBuf;

use antiphon_core::Result;
use antiphon_core::random::Key;
use antiphon_data::Split;
use antiphon_eval::MetricConfig;
use antiphon_eval::significance::{SignificanceConfig, approximate_randomization, paired_bootstrap};
use antiphon_lab::{Run, compare};

use super::finished::judged;
use super::{Ending, RunsFolder};
use crate::experiment::ExperimentConfig;
use crate::output::print;

/// Put runs side by side: where their settings and their figures differ
///
/// Of two runs it also says how likely the figures of their answers differ by luck.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folders of the runs, or their names below --runs-dir
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    #[command(flatten)]
    folder: RunsFolder,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        let runs = self.runs.iter().map(|run| self.folder.open(run)).collect::<Result<Vec<_>>>()?;
        print(&compare(&runs)?)?;
        if let [one, other] = &runs[..] {
            print(&luck(one, other)?)?;
        }
        Ok(Ending::Done)
    }
}

/// How likely the figures of two runs differ by luck: a line for each split that both have answered, and each metric that both
/// have.
fn luck(one: &Run, other: &Run) -> Result<String> {
    let config = SignificanceConfig::default();
    let (metrics, others) = (metrics(one)?, metrics(other)?);
    let mut lines = String::new();
    for split in [Split::Validation, Split::Test].map(Split::name) {
        let (first, second) = (judged(one, split)?, judged(other, split)?);
        if first.is_empty() || second.is_empty() {
            continue;
        }
        if !first.iter().map(|judged| &judged.references).eq(second.iter().map(|judged| &judged.references)) {
            lines += &format!("{split}: the two were not judged by the same references\n");
            continue;
        }
        for (label, metric) in metrics.iter().filter(|metric| others.contains(metric)) {
            let key = Key::from_seed(0).named("compare");
            let drawn = paired_bootstrap(metric, &first, &second, &config, key)?;
            let exchanged = approximate_randomization(metric, &first, &second, &config, key)?;
            let (difference, interval) = (drawn.difference.value, drawn.difference.interval);
            lines += &format!(
                "{split} {label}: {:.4} - {:.4} = {difference:.4} ({:.4} to {:.4}), p = {:.4} and {:.4}\n",
                drawn.first.value, drawn.second.value, interval.low, interval.high, drawn.p_value, exchanged.p_value,
            );
        }
    }
    if lines.is_empty() {
        return Ok(lines);
    }
    Ok(format!(
        "\nBy luck? The difference with its {:.0} % interval and p (one-sided) by paired bootstrap, and p (two-sided) by approximate \
         randomization, over the sources of a split, {} trials each. This speaks of other sources, not of other seeds.\n{lines}",
        100.0 * config.confidence,
        config.trials,
    ))
}

/// A run's metrics by their labels; none if its settings are of another version.
fn metrics(run: &Run) -> Result<Vec<(String, MetricConfig)>> {
    let config: Option<ExperimentConfig> = run.config()?.try_into().ok();
    let labelled = |config: ExperimentConfig| -> Vec<_> {
        config.searched().map(|(label, metric)| (label, metric.clone())).collect()
    };
    Ok(config.map(labelled).unwrap_or_default())
}
