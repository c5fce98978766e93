//! The page of one run.

use std::collections::BTreeSet;

use antiphon_core::Result;

use super::curves::Curves;
use super::findings::Findings;
use super::html::{Html, document, escape, folded, foreign, html, paragraph, section, table, wide};
use super::{confidence, errors, examples, losses, samples};
use crate::manifest::{Manifest, Status};
use crate::results::{OfValue, Results, SplitResults, VALUES, labels, minutes, signatures};
use crate::run::Run;

/// The page of a run, from what its folder holds so far and what was found out about its answers.
///
/// # Errors
/// If a file of the run cannot be read.
pub fn report_page(run: &Run, findings: &Findings) -> Result<String> {
    let (manifest, config) = (run.manifest()?, run.config()?);
    let (results, curves) = (run.results()?, Curves::read(run)?);
    let chosen_by = config.get("train").and_then(|train| train.get("validate")?.get("metric")?.as_str());
    let chosen_by = chosen_by.unwrap_or_default();
    let mut body = html!("<h1>{}</h1>\n", escape(&run.name()));
    body += standing(run, &manifest, &curves)?;
    body += section("Results", &results.as_ref().map_or_else(Html::new, figures));
    body += section("Training", &(curves.charts(chosen_by) + curves.validations_table(chosen_by)));
    body += section("Samples", &samples::samples(curves.validations()));
    body += section("Examples", &shown_examples(findings));
    let wrong = findings.errors.as_ref().map(|found| errors::errors(found, &findings.split));
    body += section("Errors", &wrong.unwrap_or_default());
    let sure = findings.confidence.as_ref().map(|found| confidence::confidence(found, &findings.split));
    body += section("Confidence", &sure.unwrap_or_default());
    let lie = findings.losses.as_ref().map(|found| losses::losses(found, &findings.split));
    body += section("Where the loss lies", &lie.unwrap_or_default());
    body += section("The run", &(facts(&manifest) + settings(&config)));
    Ok(document(&format!("{} · Antiphon", run.name()), &body))
}

/// How the run stands, and since when.
fn standing(run: &Run, manifest: &Manifest, curves: &Curves) -> Result<Html> {
    let state = run.state(manifest)?;
    let class = match manifest.status {
        Status::Finished => "good",
        Status::Running => "",
        Status::Stopped | Status::Failed { .. } => "poor",
    };
    let day = |moment: &str| moment.replace('T', " ").replace('Z', " UTC");
    let until = manifest.ended.as_ref().map_or(String::new(), |ended| format!(", ended {}", day(ended)));
    let (wall, cpu) = (minutes(manifest.wall_seconds), minutes(manifest.cpu_seconds));
    let times = format!(
        "begun {}{until}; {} updates logged; {wall} minutes on the clock, {cpu} core-minutes",
        day(&manifest.started),
        curves.updates()
    );
    let mut html = html!(
        "<p><span class=\"state {}\">{}</span> <span class=\"soft\">{}</span></p>\n",
        escape(class),
        escape(state),
        escape(&times)
    );
    if let Some(parent) = &manifest.parent {
        html += paragraph(&format!("It goes on with {parent}."));
    }
    if let Some(start) = &manifest.start {
        html += paragraph(&format!("Before its first step: {start}."));
    }
    if let Some(end) = &manifest.training {
        html += paragraph(&format!("Training ended {end}."));
    }
    if let Status::Failed { message } = &manifest.status {
        html += paragraph(message);
    }
    Ok(html)
}

/// The figures of the splits, as in the terminal.
fn figures(results: &Results) -> Html {
    let (names, splits): (Vec<&str>, Vec<&SplitResults>) = results.splits().unzip();
    let head: Vec<Html> = std::iter::once("").chain(names).map(escape).collect();
    let row = |label: String| {
        let figures = splits.iter().map(|split| escape(&split.figure(&label).unwrap_or_default()));
        std::iter::once(escape(&label)).chain(figures).collect::<Vec<_>>()
    };
    let rows: Vec<Vec<Html>> = labels(&splits).into_iter().map(row).collect();
    let mut html = if splits.is_empty() { Html::new() } else { table("Figures", &head, &rows) };
    let mebibytes = results.model.bytes as f64 / f64::from(1 << 20);
    html += paragraph(&format!(
        "{} parameters, {mebibytes:.1} MiB, {} updates. Losses in nats, under teacher forcing.",
        results.model.parameters, results.steps
    ));
    for (label, signature) in signatures(&splits) {
        html += html!("<p class=\"soft\">{} is <code>{}</code></p>\n", escape(&label), escape(&signature));
    }
    for (name, split) in results.splits() {
        html += split.by.iter().map(|(column, values)| by_value(name, column, values, split)).collect::<Html>();
    }
    html
}

/// The metrics of a column's most frequent values, and what all of them say together.
fn by_value(split: &str, column: &str, values: &[OfValue], results: &SplitResults) -> Html {
    let labels: BTreeSet<&String> = values.iter().flat_map(|of| of.metrics.keys()).collect();
    let head = [column, "examples"].into_iter().chain(labels.iter().map(|label| label.as_str())).map(escape);
    let row = |of: &OfValue| {
        let figure = |label: &&String| of.metrics.get(*label).map_or_else(Html::new, |v| escape(&format!("{v:.2}")));
        let figures = labels.iter().map(figure);
        [foreign(&of.value), html!("{}", of.examples)].into_iter().chain(figures).collect::<Vec<_>>()
    };
    let mut rows: Vec<Vec<Html>> = values.iter().take(VALUES).map(row).collect();
    for (name, figures) in results.rows_over_values(column, &labels) {
        let figures = figures.iter().map(|figure| escape(figure));
        rows.push([html!("<strong>{}</strong>", escape(name)), Html::new()].into_iter().chain(figures).collect());
    }
    let rest = match values.len().saturating_sub(VALUES) {
        0 => String::new(),
        more => format!(" The {VALUES} most frequent values; the other {more} are in `results.json`."),
    };
    paragraph(&format!("The {split} split by `{column}`.{rest}"))
        + wide(&format!("{split} by {column}"), &table(&format!("By {column}"), &head.collect::<Vec<_>>(), &rows))
}

fn shown_examples(findings: &Findings) -> Html {
    let note = findings.note.as_deref().map_or_else(Html::new, paragraph);
    let cards = examples::examples(&findings.examples);
    if cards.is_empty() {
        return cards;
    }
    let (heard, read): (Vec<_>, Vec<_>) = findings.examples.iter().partition(|example| example.hearing.is_some());
    let attends = read.iter().any(|e| e.candidates.iter().any(|c| !c.attention.is_empty()));
    let further = findings.examples.iter().any(|example| example.sources.len() > 1);
    let of = if further { "the source and of each stream behind it" } else { "the source" };
    let map = match attends {
        true => format!(
            " The map shows where the best answer looked: a row for each token that was chosen, a column for each token of \
             {of}, the darker (on a dark page: the brighter), the more weight."
        ),
        false => String::new(),
    };
    let recordings = match heard.is_empty() {
        true => "",
        false => {
            " Of some recordings it is shown what the model hears, with time across: the features, the lowest band at the bottom; \
             below them the words and the tokens of the best answer when they are said by the encoder's CTC, if the model has it, \
             the fainter the less probable; and where the decoder looked, a row for each token."
        }
    };
    let intro = format!(
        "From all over the {} split, with the answers that the search ranks best (score: log p under the length \
         penalty).{map}{recordings}",
        findings.split
    );
    note + paragraph(&intro) + cards
}

/// What the manifest knows.
fn facts(manifest: &Manifest) -> Html {
    let Manifest { name, digest, version, revision, data, device, cpu_features, threads, seed, command, .. } = manifest;
    let revision = revision.as_ref().map_or("unknown".into(), |revision| {
        format!("{}{}", revision.commit, if revision.dirty { ", with changes" } else { "" })
    });
    let seed = seed.map_or("none".into(), |seed| seed.to_string());
    let code = |text: &str| html!("<code>{}</code>", escape(text));
    let mut rows = vec![
        ("experiment", escape(name)),
        ("digest", code(digest)),
        ("command", code(&command.join(" "))),
        ("seed", escape(&seed)),
        ("version", escape(version)),
        ("commit", code(&revision)),
        ("device", html!("{}, threads: {}", escape(device), threads)),
        ("processor", escape(&cpu_features.join(" "))),
    ];
    rows.extend(data.iter().map(|(file, sha256)| ("data", html!("{}<br/>{}", escape(file), code(sha256)))));
    let row =
        |(name, value): (&str, Html)| html!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape(name), value);
    let rows: Html = rows.into_iter().map(row).collect();
    html!("<table class=\"facts\"><tbody>\n{}</tbody></table>\n", rows)
}

fn settings(config: &toml::Table) -> Html {
    let text = escape(&config.to_string());
    folded("Settings", &wide("Settings", &html!("<pre class=\"mono\">{}</pre>\n", text)))
}
