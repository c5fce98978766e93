//! What came out of a sweep: the cells ranked, the best one tested, and whether it is better than the next by more than luck.

use std::collections::BTreeSet;
use std::path::PathBuf;

use antiphon_config::to_toml;
use antiphon_core::random::Key;
use antiphon_core::{Judged, Result};
use antiphon_eval::significance::{SignificanceConfig, approximate_randomization_over_runs};
use antiphon_eval::{MetricConfig, Summary};
use antiphon_lab::sweep::{Cell, Outcome, Plan, Ranked, SweepFolder};
use antiphon_lab::{Run, SplitResults, labels_of_quality};

use super::super::finished::judged;
use crate::device::{DeviceConfig, device};
use crate::experiment::{ExperimentConfig, SavedModel, SavedModels};

/// How sure the confidence intervals are.
const CONFIDENCE: f64 = 0.95;

/// The page of results, in Markdown.
pub(super) fn page(plan: &Plan, folder: &SweepFolder, outcome: &Outcome) -> Result<String> {
    let name = folder.path().file_name().unwrap_or_default().to_string_lossy();
    let better = if plan.lower_is_better { "less" } else { "more" };
    let mut text = format!(
        "# {name}\n\n{} cells, {} runs. Cells are compared by the mean of `{}` over their seeds on the validation split; {better} \
         is better. The interval is Student's, of the mean, at {:.0} %: it speaks of other seeds, not of other data.\n\n",
        plan.cells.len(),
        plan.runs.len(),
        plan.metric,
        100.0 * CONFIDENCE,
    );
    let ranking: Vec<Vec<String>> = outcome.ranking.iter().map(|ranked| row(plan, ranked)).collect::<Result<_>>()?;
    if ranking.is_empty() {
        text += "No cell is finished with all of its seeds.\n";
    } else {
        let mut head = vec!["cell".to_owned(), "settings".to_owned()];
        head.extend(spread_heads(&plan.metric));
        text += &table(&std::iter::once(head).chain(ranking).collect::<Vec<_>>());
    }
    let legend = plan.legend();
    if !legend.is_empty() {
        let line = |(label, settings): (&String, &String)| format!("- {label}: {settings}\n");
        text += &format!("\n{}", legend.iter().map(line).collect::<String>());
    }
    text += &not_ranked(plan, outcome);
    if let Some(best) = outcome.ranking.first() {
        text += &tested(plan, best)?;
    }
    if let [first, second, ..] = outcome.ranking.as_slice() {
        text += &format!("\n{}\n", compared(plan, first, second)?);
    }
    Ok(text + &cost(outcome)?)
}

/// The cells of which a run is lacking, and why.
pub(super) fn not_ranked(plan: &Plan, outcome: &Outcome) -> String {
    let line = |(cell, why): &(usize, String)| {
        let cell = &plan.cells[*cell];
        format!("- cell {} ({}): {why}\n", cell.number, cell.label())
    };
    let lines: String = outcome.others.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\nNot ranked:\n\n{lines}") }
}

/// What all of it took.
pub(super) fn cost(outcome: &Outcome) -> Result<String> {
    let (runs, minutes) = (outcome.finished.len(), outcome.core_minutes()?);
    Ok(format!("\nCost: {minutes:.1} core-minutes, all {runs} finished runs together.\n"))
}

/// Writes the models of the best cell's runs as one file into the sweep's folder. Each is called as its run is, wherever that lies.
pub(super) fn keep_ensemble(folder: &SweepFolder, best: &Ranked) -> Result<PathBuf> {
    let device = device(DeviceConfig::default())?;
    let read = |run: &Run| Ok(SavedModels::alone(run.name(), SavedModel::read(&run.model_path(), &device)?));
    let parts: Vec<SavedModels> = best.runs.iter().map(read).collect::<Result<_>>()?;
    let weights = vec![1.0; parts.len()];
    let path = folder.path().join("ensemble.safetensors");
    SavedModels::together(parts, None, &weights)?.write(&path)?;
    Ok(path)
}

/// The best cell's config, with its first seed: ready to run.
pub(super) fn best_config(plan: &Plan, folder: &SweepFolder, best: &Ranked) -> Result<String> {
    let cell = &plan.cells[best.cell];
    let run = &plan.runs[plan.runs_of(best.cell).next().unwrap_or_default()];
    let head = format!(
        "# The best of {} cells of {}: {}\n{}# Mean {} on the validation split: {:.4} over {} seeds.\n\n",
        plan.cells.len(),
        plan.file.display(),
        cell.label(),
        legend_of(plan, cell),
        plan.metric,
        best.mean(),
        best.figures.len()
    );
    named(&head, folder.settings(run), &format!("{}-best", plan.name))
}

/// What the labels of a cell stand for, as a comment of a config.
pub(super) fn legend_of(plan: &Plan, cell: &Cell) -> String {
    let own = |label: &str| cell.labels.iter().any(|(axis, own)| label == format!("{axis}={own}"));
    let legend = plan.legend().into_iter().filter(|(label, _)| own(label));
    legend.map(|(label, settings)| format!("# {label}: {settings}\n")).collect()
}

/// Settings as a config behind a comment, under a name of their own.
pub(super) fn named(head: &str, mut settings: serde_json::Value, name: &str) -> Result<String> {
    if let Some(table) = settings.as_object_mut() {
        table.insert("name".into(), name.into());
    }
    Ok(head.to_owned() + &to_toml(&settings)?)
}

fn spread_heads(label: &str) -> [String; 4] {
    ["seeds".into(), format!("mean {label}"), "deviation".into(), "interval".into()]
}

/// Number, mean, deviation and confidence interval of some figures.
fn spread(figures: &[f64]) -> Result<[String; 4]> {
    let summary = Summary::of(figures)?;
    let interval = summary.interval(CONFIDENCE)?;
    Ok([
        summary.count.to_string(),
        format!("{:.4}", summary.mean),
        summary.deviation.map_or("-".into(), |deviation| format!("{deviation:.4}")),
        interval.map_or("-".into(), |interval| format!("{:.4} to {:.4}", interval.low, interval.high)),
    ])
}

fn row(plan: &Plan, ranked: &Ranked) -> Result<Vec<String>> {
    let cell = &plan.cells[ranked.cell];
    let mut row = vec![cell.number.to_string(), cell.label()];
    row.extend(spread(&ranked.figures)?);
    Ok(row)
}

/// The figures of the best cell on the test split.
fn tested(plan: &Plan, best: &Ranked) -> Result<String> {
    let results = best.runs.iter().map(|run| Ok(run.results()?.and_then(|results| results.test)));
    let Some(splits) = results.collect::<Result<Option<Vec<SplitResults>>>>()? else {
        return Ok("\nThere is no test split.\n".into());
    };
    let labels = labels_of_quality(&splits.iter().collect::<Vec<_>>());
    let mut rows = vec![["test".to_owned()].into_iter().chain(spread_heads("")).map(|h| h.trim().to_owned()).collect()];
    for label in labels {
        let figures: Option<Vec<f64>> = splits.iter().map(|split| split.value(&label)).collect();
        if let Some(figures) = figures {
            rows.push(std::iter::once(label).chain(spread(&figures)?).collect::<Vec<String>>());
        }
    }
    let cell = &plan.cells[best.cell];
    let runs: Vec<String> = best.runs.iter().map(|run| format!("`{}`", run.path().display())).collect();
    Ok(format!(
        "\nChosen: cell {} ({}), the only one that was measured on the test split: {}\n\n{}",
        cell.number,
        cell.label(),
        runs.join(", "),
        table(&rows)
    ))
}

/// Whether the best two cells differ by more than luck.
fn compared(plan: &Plan, first: &Ranked, second: &Ranked) -> Result<String> {
    let settings = &plan.runs[plan.runs_of(first.cell).next().unwrap_or_default()].settings;
    let config: Option<ExperimentConfig> = serde_json::from_value(settings.clone()).ok();
    let metrics: Vec<(String, MetricConfig)> = config
        .map(|config| config.searched().map(|(label, metric)| (label, metric.clone())).collect())
        .unwrap_or_default();
    let Some((label, metric)) = metrics.iter().find(|(label, _)| *label == plan.metric).or(metrics.first()) else {
        return Ok("The best two are not tested for significance: without metrics there are no answers.".into());
    };
    let (one, other) = (answers(&first.runs)?, answers(&second.runs)?);
    let test = SignificanceConfig::default();
    let (trials, cells) = (test.trials, plan.cells.len());
    let key = Key::from_seed(0).named("sweep");
    let numbers = (plan.cells[first.cell].number, plan.cells[second.cell].number);
    match approximate_randomization_over_runs(metric, &one, &other, &test, key) {
        Err(error) => Ok(format!("Cells {} and {} cannot be compared answer by answer: {error}", numbers.0, numbers.1)),
        Ok(found) => Ok(format!(
            "Cell {} against cell {}, `{label}` on the validation split: {:.4} and {:.4}, difference {:.4}, p = {:.4} (two-sided; \
             paired approximate randomization over sources, all seeds of a cell exchanged together, {trials} trials). The best of \
             {cells} cells was chosen on the same split, for which p does not account.",
            numbers.0, numbers.1, found.first, found.second, found.difference, found.p_value,
        )),
    }
}

/// The answers of each run on the validation split.
fn answers(runs: &[Run]) -> Result<Vec<Vec<Judged>>> {
    runs.iter().map(|run| judged(run, "validation")).collect()
}

/// A Markdown table whose columns also stand below each other in a terminal.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns: BTreeSet<usize> = rows.iter().flat_map(|row| 0..row.len()).collect();
    let width = |c: usize| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = columns.iter().map(|&c| width(c).max(3)).collect();
    let line = |cells: &[String]| {
        let cells =
            widths.iter().enumerate().map(|(c, width)| format!("{:width$}", cells.get(c).map_or("", String::as_str)));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        text += &line(row);
        if i == 0 {
            text += &line(&rule);
        }
    }
    text
}
