//! What came out of a sweep of restarts: of each cell the run that is best on the validation split, what all cells say together,
//! and what they cost.

use std::collections::BTreeSet;
use std::path::PathBuf;

use antiphon_core::disk::write_atomically;
use antiphon_core::{Error, Result};
use antiphon_lab::sweep::{Outcome, Plan, PlannedRun, Ranked, SweepFolder};
use antiphon_lab::{OverValues, Results, Run, SplitResults};

use super::outcome::{cost, legend_of, named, not_ranked, table};
use crate::experiment::ExperimentConfig;

/// The run that was taken of a cell.
struct Taken<'p> {
    planned: &'p PlannedRun,
    run: Run,
    /// Its figure by which it was taken.
    figure: f64,
}

fn taken<'p>(plan: &'p Plan, ranked: &Ranked) -> Taken<'p> {
    let best = ranked.best(plan.lower_is_better);
    let planned = plan.runs_of(ranked.cell).nth(best).expect("a cell has as many runs as figures");
    Taken { planned: &plan.runs[planned], run: ranked.runs[best].clone(), figure: ranked.figures[best] }
}

/// The page of results, in Markdown.
pub(super) fn page(plan: &Plan, folder: &SweepFolder, outcome: &Outcome) -> Result<String> {
    let name = folder.path().file_name().unwrap_or_default().to_string_lossy();
    let better = if plan.lower_is_better { "least" } else { "largest" };
    let (split, tested) = match plan.has_test {
        true => ("test", ", the only one that was measured on the test split"),
        false => ("validation", ""),
    };
    let mut text = format!(
        "# {name}\n\n{} cells, {} runs. The seeds of a cell are restarts: of each cell that run is taken whose `{}` on the validation \
         split is {better}{tested}.\n\n",
        plan.cells.len(),
        plan.runs.len(),
        plan.metric,
    );
    let all: Vec<Taken<'_>> = outcome.ranking.iter().map(|ranked| taken(plan, ranked)).collect();
    if all.is_empty() {
        text += "No cell is finished with all of its seeds.\n";
    } else {
        text += &table(&rows(plan, &all, split)?);
    }
    let legend = plan.legend();
    if !legend.is_empty() {
        let line = |(label, settings): (&String, &String)| format!("- {label}: {settings}\n");
        text += &format!("\n{}", legend.iter().map(line).collect::<String>());
    }
    text += &not_ranked(plan, outcome);
    let line = |taken: &Taken<'_>| {
        let cell = &plan.cells[taken.planned.cell];
        format!("- cell {} ({}): `{}`\n", cell.number, cell.label(), taken.run.path().display())
    };
    if !all.is_empty() {
        text += &format!("\nTaken:\n\n{}", all.iter().map(line).collect::<String>());
    }
    Ok(text + &cost(outcome)?)
}

/// A row for each cell, then what all of them say together.
fn rows(plan: &Plan, all: &[Taken<'_>], split: &str) -> Result<Vec<Vec<String>>> {
    let of_split = |taken: &Taken<'_>| {
        let results = taken.run.results()?;
        let found = |results: Results| if split == "test" { results.test } else { results.validation };
        let lacking = || Error::new(format!("has no figures of the {split} split")).in_file(taken.run.results_path());
        results.and_then(found).ok_or_else(lacking)
    };
    let splits: Vec<SplitResults> = all.iter().map(of_split).collect::<Result<_>>()?;
    let metrics: BTreeSet<&String> = splits.iter().flat_map(|split| split.metrics.keys()).collect();
    // Of models that answer nothing there is the loss.
    let labels: Vec<&str> = match metrics.is_empty() {
        true => vec!["loss_per_token"],
        false => metrics.into_iter().map(String::as_str).collect(),
    };
    let head = ["cell", "settings", "seed"].map(str::to_owned).into_iter();
    let head = head.chain([format!("validation {}", plan.metric)]);
    let mut rows = vec![head.chain(labels.iter().map(|label| format!("{split} {label}"))).collect::<Vec<_>>()];
    let figure = |split: &SplitResults, label: &str| split.value(label).map(|value| format!("{value:.2}"));
    for (taken, split) in all.iter().zip(&splits) {
        let cell = &plan.cells[taken.planned.cell];
        let own =
            [cell.number.to_string(), cell.label(), taken.planned.seed.to_string(), format!("{:.4}", taken.figure)];
        rows.push(own.into_iter().chain(labels.iter().map(|label| figure(split, label).unwrap_or_default())).collect());
    }
    let config: Option<ExperimentConfig> = serde_json::from_value(all[0].planned.settings.clone()).ok();
    let over = |label: &&str| {
        let figures: Option<Vec<f64>> = splits.iter().map(|split| split.value(label)).collect();
        let mark = config.as_ref().and_then(|config| config.evaluate.mark(label));
        figures.map(|figures| OverValues::of(&figures, mark))
    };
    let over: Vec<Option<OverValues>> = labels.iter().map(over).collect();
    let mean = all.iter().map(|taken| taken.figure).sum::<f64>() / all.len() as f64;
    let own = [String::new(), format!("mean over {} cells", all.len()), String::new(), format!("{mean:.4}")];
    let average =
        |over: &Option<OverValues>| over.map_or_else(String::new, |over| format!("{:.2}", over.macro_average));
    rows.push(own.into_iter().chain(over.iter().map(average)).collect());
    let passed = |over: &Option<OverValues>| over.and_then(|over| over.passed).map(|passed| passed.to_string());
    if over.iter().any(|over| passed(over).is_some()) {
        let own = [String::new(), "passed".to_owned(), String::new(), String::new()];
        rows.push(own.into_iter().chain(over.iter().map(|over| passed(over).unwrap_or_default())).collect());
    }
    Ok(rows)
}

/// Where the config of what was taken of a cell is written.
pub(super) fn config(plan: &Plan, folder: &SweepFolder, ranked: &Ranked) -> PathBuf {
    let width = plan.cells.len().to_string().len();
    folder.path().join("best").join(format!("{:0width$}.toml", plan.cells[ranked.cell].number))
}

/// Writes the config of each run that was taken, ready to run.
pub(super) fn write_configs(plan: &Plan, folder: &SweepFolder, outcome: &Outcome) -> Result<()> {
    let best = folder.path().join("best");
    std::fs::create_dir_all(&best).map_err(|e| Error::io(&best, "create", &e))?;
    for ranked in &outcome.ranking {
        let (taken, cell) = (taken(plan, ranked), &plan.cells[ranked.cell]);
        let head = format!(
            "# The best of {} restarts of cell {} of {}: {}\n{}# Its {} on the validation split: {:.4}.\n\n",
            ranked.runs.len(),
            cell.number,
            plan.file.display(),
            cell.label(),
            legend_of(plan, cell),
            plan.metric,
            taken.figure,
        );
        let name = format!("{}-{}-best", plan.name, cell.number);
        let text = named(&head, folder.settings(taken.planned), &name)?;
        write_atomically(config(plan, folder, ranked), text.as_bytes())?;
    }
    Ok(())
}
