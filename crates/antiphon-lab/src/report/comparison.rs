//! The page of several runs, a sweep's for instance: how their settings and their figures hang together.

use antiphon_core::Result;

use super::chart::{Chart, Line, Look};
use super::curves::Curves;
use super::html::{Html, document, escape, html, paragraph, section, table};
use super::parallel::{Axis, parallel};
use super::scale::short;
use crate::compare::{Settings, warnings};
use crate::manifest::Manifest;
use crate::results::{SplitResults, labels_of_quality, minutes};
use crate::run::Run;

/// The figure by which runs are held against each other: as the validations call it, `train.validate.metric`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its label.
    pub label: String,
    /// Whether a smaller value is better.
    pub lower_is_better: bool,
}

/// One run among others.
struct Entry {
    run: Run,
    manifest: Manifest,
    curves: Curves,
    validation: Option<SplitResults>,
    test: Option<SplitResults>,
    /// The chosen figure on the validation split.
    value: Option<f64>,
    /// What each of the differing settings is set to.
    settings: Vec<Option<String>>,
    look: Look,
    /// How the run stands.
    state: &'static str,
}

/// The page of several runs, the best first; of those that are not finished, with what is there so far.
///
/// Runs are ranked by the validation split; test figures only stand beside.
///
/// # Errors
/// If a file of a run cannot be read.
pub fn comparison_page(runs: &[Run], chosen: &Chosen) -> Result<String> {
    let settings = Settings::of(runs)?;
    let mut entries = Vec::new();
    for (run, values) in runs.iter().zip(settings.rows()) {
        entries.push(Entry::read(run, values, chosen)?);
    }
    rank(&mut entries, chosen);

    let title = format!("{} runs", entries.len());
    let better = if chosen.lower_is_better { "the lowest" } else { "the highest" };
    let mut body = html!("<h1>{}</h1>\n", escape(&title));
    body += paragraph(&format!(
        "Ranked by {} on the validation split, {better} first. The first {} have a colour of their own.",
        chosen.label,
        Look::COUNT.min(entries.len())
    ));
    body += warnings(settings.differing()).lines().filter(|line| !line.is_empty()).map(paragraph).collect::<Html>();
    let lines = parallel(&axes(&entries, settings.differing(), chosen), &looks(&entries));
    body += section("Settings and figure", &lines);
    body += section("Runs", &ranking(&entries, settings.differing(), chosen));
    body += section("Training", &charts(&entries, chosen));
    Ok(document(&format!("{title} · Antiphon"), &body))
}

impl Entry {
    fn read(run: &Run, settings: Vec<Option<String>>, chosen: &Chosen) -> Result<Self> {
        let (manifest, curves, results) = (run.manifest()?, Curves::read(run)?, run.results()?);
        let (validation, test) = results.map_or((None, None), |results| (results.validation, results.test));
        let logged = || curves.best().map(|best| best.value(&chosen.label)).filter(|value| value.is_finite());
        let value = validation.as_ref().and_then(|split| split.value(&chosen.label)).or_else(logged);
        let (run, state) = (run.clone(), run.state(&manifest)?);
        Ok(Self { run, state, manifest, curves, validation, test, value, settings, look: Look::Rest })
    }

    fn name(&self) -> String {
        self.run.name()
    }

    /// The chosen figure; one that is not that of the whole split, but of training, says so.
    fn shown_value(&self) -> Html {
        let so_far = match self.validation {
            None => html!(" <small class=\"soft\">so far</small>"),
            Some(_) => Html::new(),
        };
        self.value.map_or_else(|| escape("–"), |value| escape(&short(value)) + so_far)
    }
}

/// Puts the best first; runs without the figure come last, in their order. Only so many as can be told apart get a look.
fn rank(entries: &mut [Entry], chosen: &Chosen) {
    let key = |entry: &Entry| {
        let value = entry.value.unwrap_or(f64::INFINITY);
        if chosen.lower_is_better || entry.value.is_none() { value } else { -value }
    };
    entries.sort_by(|a, b| key(a).total_cmp(&key(b)));
    for (i, entry) in entries.iter_mut().take(Look::COUNT).enumerate() {
        entry.look = Look::Own(i);
    }
}

fn looks(entries: &[Entry]) -> Vec<(String, Look)> {
    entries.iter().map(|entry| (entry.name(), entry.look)).collect()
}

/// An axis for each setting in which the runs differ, and one for the figure.
fn axes(entries: &[Entry], differing: &[String], chosen: &Chosen) -> Vec<Axis> {
    let setting = |(i, key): (usize, &String)| {
        let values = entries.iter().map(|entry| entry.settings[i].clone().unwrap_or_else(|| "–".into()));
        Axis::of_settings(key, values.collect())
    };
    let figure = Axis::of_figures(&chosen.label, entries.iter().map(|entry| entry.value).collect());
    differing.iter().enumerate().map(setting).chain([figure]).collect()
}

/// The runs in figures.
fn ranking(entries: &[Entry], differing: &[String], chosen: &Chosen) -> Html {
    let test: Vec<&SplitResults> = entries.iter().filter_map(|entry| entry.test.as_ref()).collect();
    let validation: Vec<&SplitResults> = entries.iter().filter_map(|entry| entry.validation.as_ref()).collect();
    let own = |label: &String| *label != chosen.label && !(chosen.label == "loss" && label == "loss_per_token");
    let labels: Vec<String> = labels_of_quality(&validation).into_iter().filter(own).collect();
    let test_labels = labels_of_quality(&test);
    let mut head = vec![escape("run"), escape(&chosen.label)];
    head.extend(differing.iter().map(|key| escape(key)));
    head.extend(labels.iter().map(|label| escape(label)));
    head.extend(test_labels.iter().map(|label| html!("test {}", escape(label))));
    head.extend(["updates", "minutes"].map(escape));
    let row = |entry: &Entry| {
        let figures = |split: &Option<SplitResults>, labels: &[String]| {
            let figure = |label: &String| split.as_ref().and_then(|s| s.figure(label));
            let figure = |label: &String| escape(figure(label).as_deref().unwrap_or("–"));
            labels.iter().map(figure).collect::<Vec<_>>()
        };
        let state = match entry.state {
            "finished" => Html::new(),
            other => html!(" <em>{}</em>", escape(other)),
        };
        let mut cells = vec![entry.look.sample() + escape(&entry.name()) + state];
        cells.push(entry.shown_value());
        cells.extend(entry.settings.iter().map(|value| escape(value.as_deref().unwrap_or("–"))));
        cells.extend(figures(&entry.validation, &labels));
        cells.extend(figures(&entry.test, &test_labels));
        cells.extend([html!("{}", entry.curves.updates()), escape(&minutes(entry.manifest.wall_seconds))]);
        cells
    };
    table("Runs", &head, &entries.iter().map(row).collect::<Vec<_>>())
}

/// Every figure of the validations, a line for each run.
fn charts(entries: &[Entry], chosen: &Chosen) -> Html {
    let mut labels: Vec<&str> = entries.iter().flat_map(|entry| entry.curves.labels(&chosen.label)).collect();
    labels.sort_unstable();
    labels.dedup();
    labels.sort_by_key(|&label| label != chosen.label);
    let reach = entries.iter().map(|entry| entry.curves.updates()).max().unwrap_or(0) as f64;
    let chart = |label: &&str| {
        let line = |entry: &Entry| Line {
            name: entry.name(),
            look: entry.look,
            points: entry.curves.validated(label),
            raw: Vec::new(),
            dots: false,
        };
        let lines = entries.iter().map(line).filter(|line| !line.points.is_empty()).collect();
        let note = "at each validation".to_owned();
        Chart { title: label.to_string(), note, across: "update", reach, lines, names: false, mark: None }.figure()
    };
    let charts: Html = labels.iter().map(chart).collect();
    if charts.is_empty() {
        return charts;
    }
    paragraph("The lines are those of the table above.") + html!("<div class=\"charts\">\n{}</div>\n", charts)
}
