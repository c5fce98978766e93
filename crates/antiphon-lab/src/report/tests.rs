//! What must hold for every page.

use std::fs;

use roxmltree::{Document, ParsingOptions};
use serde_json::json;

use super::*;
use crate::manifest::{BestValidation, EndReason, Revision, Status, TrainingEnd};
use crate::run::Run;
use crate::runs::Runs;
use crate::testing::{identity, results};

/// Text that would be dangerous as markup.
const HOSTILE: &str = "<script>alert('x')</script>\u{0}\u{b}\"><img src=//x onerror=y> &amp; ]]> \u{202e}מ";

/// Parses a page and looks through it: it is well formed, holds no script, and reaches for nothing outside of itself.
#[track_caller]
fn check(page: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let parsed = Document::parse_with_options(page, options).unwrap_or_else(|e| panic!("{e}\n{page}"));
    for node in parsed.descendants().filter(|node| node.is_element()) {
        let name = node.tag_name().name();
        let foreign = ["script", "link", "img", "iframe", "object", "embed", "form", "base", "image", "use"];
        assert!(!foreign.contains(&name), "{name}");
        for attribute in node.attributes() {
            let (key, value) = (attribute.name(), attribute.value());
            assert!(!["src", "href", "srcset", "action"].contains(&key) && !key.starts_with("on"), "{key} in {name}");
            assert!(
                !value.contains("url(") && !value.contains("NaN") && !value.contains("inf"),
                "{key} in {name}: {value}"
            );
        }
    }
    let style = parsed.descendants().find(|node| node.has_tag_name("style")).and_then(|node| node.text()).unwrap();
    assert!(!style.contains("url(") && !style.contains("@import"));
    assert!(!page.contains("http"));
    parsed
}

/// All text of a page but its style.
fn words(page: &Document<'_>) -> String {
    let texts = page.descendants().filter(|n| n.is_text() && !n.parent().is_some_and(|p| p.has_tag_name("style")));
    texts.filter_map(|node| node.text()).collect::<Vec<_>>().join(" ")
}

fn headings(page: &Document<'_>) -> Vec<String> {
    let headings = page.descendants().filter(|node| node.has_tag_name("h2"));
    headings.filter_map(|node| node.text()).map(String::from).collect()
}

fn run(folder: &tempfile::TempDir, name: &str) -> Run {
    Runs::new(folder.path()).create(&identity(name), true).unwrap()
}

fn log(run: &Run, records: &[serde_json::Value]) {
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    fs::write(run.metrics_path(), lines).unwrap();
}

fn step(step: u64, loss: Option<f64>) -> serde_json::Value {
    json!({
        "kind": "step", "step": step, "epoch": 0, "loss": loss, "learning_rate": 1e-3, "gradient_norm": loss,
        "tokens": 700, "seconds": 0.25,
    })
}

fn validation(step: u64, loss: Option<f64>, best: bool) -> serde_json::Value {
    let values = json!({ "loss": loss, HOSTILE: 1.5 });
    json!({
        "kind": "validation", "step": step, "epoch": 1, "values": values, "best": best, "samples": [HOSTILE], "seconds": 1.0,
    })
}

fn hostile_findings() -> Findings {
    let text = || HOSTILE.to_owned();
    let candidate = |correct, attention| Candidate {
        text: text(),
        correct,
        score: -0.5,
        log_prob: -1.5,
        finished: false,
        tokens: vec![text(), text()],
        attention,
    };
    let candidates = vec![candidate(false, vec![vec![0.25, 0.75], vec![f32::NAN, 1.0]]), candidate(true, vec![])];
    let of = || SourceTokens { name: text(), tokens: vec![text()] };
    let example = Example {
        source: text(),
        about: text(),
        sources: vec![of(), of()],
        references: vec![text(), text()],
        candidates: candidates.clone(),
        hearing: None,
        reading: None,
    };
    let said = |start| Said { text: text(), start, end: start + 0.1, probability: f64::NAN };
    let hearing = Hearing {
        frames: vec![vec![0.5, f32::NAN], vec![f32::INFINITY, -2.0]],
        hop: 0.01,
        step: 0.02,
        words: vec![said(0.0)],
        tokens: vec![said(0.0), said(0.1)],
    };
    let spoken = Example { sources: Vec::new(), hearing: Some(hearing), ..example.clone() };
    let reading =
        Reading { sentences: vec![text(), text()], looks: vec![vec![f32::NAN], vec![0.5]], support: Some(vec![1, 7]) };
    let read = Example { reading: Some(reading), ..example.clone() };
    let pairs = vec![(Some(text()), None), (None, Some(text()))];
    let aligned = Aligned { line: 3, source: text(), about: text(), pairs };
    let confusion = |reference, hypothesis| Confusion { reference, hypothesis, count: 2 };
    Findings {
        note: Some(HOSTILE.into()),
        split: HOSTILE.into(),
        examples: vec![example, spoken, read],
        errors: Some(Errors {
            unit: HOSTILE.into(),
            answers: 2,
            wrong: 1,
            worst: vec![aligned],
            confusions: vec![confusion(Some(text()), None), confusion(None, Some(text()))],
        }),
        confidence: None,
        losses: Some(TokenLosses {
            by_place: vec![
                LossBin { from: 1, to: 1, tokens: 2, nats: 3.0 },
                LossBin { from: 2, to: 3, tokens: 1, nats: 9.0 },
            ],
            by_window: Vec::new(),
            by_frequency: vec![LossBin { from: 0, to: 0, tokens: 2, nats: 3.0 }],
            worst: vec![WorstToken { file: text(), line: 3, before: text(), token: text(), nats: 7.5 }],
        }),
    }
}

#[test]
fn a_run_that_has_just_begun_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(&folder, "new");
    let page = report_page(&run, &Findings::default()).unwrap();
    let page = check(&page);
    assert_eq!(headings(&page), ["The run"]);
    assert!(words(&page).contains("broken off"), "nobody holds its lock");
    let _lock = run.lock().unwrap();
    let page = report_page(&run, &Findings::default()).unwrap();
    assert!(words(&check(&page)).contains("running"));
}

#[test]
fn no_text_of_a_run_is_ever_markup() {
    let folder = tempfile::tempdir().unwrap();
    let mut identity = identity("hostile");
    identity.config["model"] = json!({ "kind": HOSTILE });
    identity.data.insert(HOSTILE.into(), HOSTILE.into());
    let run = Runs::new(folder.path()).create(&identity, false).unwrap();
    log(&run, &[step(1, Some(2.0)), validation(1, Some(1.0), true)]);
    let mut figures = results(24.5);
    let score = figures.test.as_ref().unwrap().metrics["bleu"].clone();
    let hostile = antiphon_core::Score { signature: HOSTILE.into(), ..score };
    figures.test.as_mut().unwrap().metrics.insert(HOSTILE.into(), hostile);
    run.write_results(&figures).unwrap();
    run.update_manifest(|manifest| {
        manifest.name = HOSTILE.into();
        manifest.digest = HOSTILE.into();
        manifest.version = HOSTILE.into();
        manifest.revision = Some(Revision { commit: HOSTILE.into(), dirty: true });
        manifest.device = HOSTILE.into();
        manifest.cpu_features = vec![HOSTILE.into()];
        manifest.command = vec![HOSTILE.into()];
        let best = BestValidation { step: 1, metric: HOSTILE.into(), value: 1.0 };
        let (reason, best) = (EndReason::Steps, Some(best));
        let end = TrainingEnd { reason, step: 1, epoch: 1, waited: 0, best, averaged_since: None, mean: None };
        manifest.training = Some(end);
        manifest.end(Status::Failed { message: HOSTILE.into() });
        manifest.started = HOSTILE.into();
        manifest.ended = Some(HOSTILE.into());
    })
    .unwrap();
    let page = report_page(&run, &hostile_findings()).unwrap();
    let page = check(&page);
    let expected = ["Results", "Training", "Samples", "Examples", "Errors", "Where the loss lies", "The run"];
    assert_eq!(headings(&page), expected);
    let shown = words(&page);
    assert!(shown.matches("<script>alert('x')</script>").count() > 10);
    // Each of the texts in the line below the heading is a text there.
    let standing = shown.split("begun ").nth(1).unwrap_or_default();
    let standing = standing.split("minutes on the clock").next().unwrap_or_default();
    assert_eq!(standing.matches("<script>").count(), 2, "{standing}");

    let chosen = Chosen { label: HOSTILE.into(), lower_is_better: true };
    let other = super::tests::run(&folder, "other");
    let page = comparison_page(&[run, other], &chosen).unwrap();
    assert!(words(&check(&page)).contains("<script>"));
}

#[test]
fn one_update_and_losses_that_are_no_numbers_make_a_page() {
    let folder = tempfile::tempdir().unwrap();
    for (name, records, charts) in [
        ("one", vec![step(1, Some(2.0))], 4),
        ("diverged", vec![step(1, None), step(2, None), validation(2, None, false)], 3),
        ("both", vec![step(1, Some(2.0)), step(2, None), step(3, Some(1e300)), validation(3, Some(1.0), true)], 5),
        ("other", vec![json!({ "kind": "note", "text": HOSTILE }), json!({ "kind": "note" })], 0),
    ] {
        let run = run(&folder, name);
        log(&run, &records);
        let page = report_page(&run, &Findings::default()).unwrap();
        let page = check(&page);
        let figures = page.descendants().filter(|node| node.has_tag_name("figure"));
        assert_eq!(figures.count(), charts, "{name}");
    }
}

/// The newest is read first, and of very many not all.
#[test]
fn what_was_written_is_shown_from_the_newest_on() {
    let folder = tempfile::tempdir().unwrap();
    let written = |step: u64| {
        json!({
            "kind": "validation", "step": step, "epoch": step / 10, "values": { "loss": 1.0 }, "best": true,
            "samples": [format!("text {step}\nof <two> lines"), ""], "seconds": 1.0,
        })
    };
    for (name, validations) in [("few", 3), ("many", 5000)] {
        let run = run(&folder, name);
        log(&run, &(1..=validations).map(written).collect::<Vec<_>>());
        let page = report_page(&run, &Findings::default()).unwrap();
        let page = check(&page);
        let heads = page.descendants().filter(|node| node.has_tag_name("h3")).filter_map(|node| node.text());
        let steps = heads.filter_map(|head| head.strip_prefix("After update ")?.split(',').next()?.parse().ok());
        let steps: Vec<u64> = steps.collect();
        assert!(steps[0] == validations && steps.is_sorted_by(|a, b| a > b) && steps.len() <= 41, "{steps:?}");
        assert!(validations > 3 || steps == [3, 2, 1], "{steps:?}");
        assert!(words(&page).contains(&format!("text {validations}\nof <two> lines")));
    }
}

#[test]
fn a_long_training_makes_a_small_page() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(&folder, "long");
    let records: Vec<_> =
        (1..=30_000).map(|i| step(i, Some(5.0 / (i as f64).sqrt() + (i % 13) as f64 / 20.0))).collect();
    log(&run, &records);
    let page = report_page(&run, &Findings::default()).unwrap();
    check(&page);
    assert!(page.len() < 100_000, "{} bytes", page.len());
}

#[test]
fn a_line_that_is_no_record_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(&folder, "damaged");
    log(&run, &[step(1, Some(2.0)), json!({ "kind": "step", "step": "two" })]);
    let error = report_page(&run, &Findings::default()).unwrap_err().to_string();
    assert!(error.contains("metrics.jsonl: record 2: is no record of a training"), "{error}");
}

#[test]
fn runs_are_ranked_by_validation_and_unfinished_ones_by_their_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut runs = Vec::new();
    for (seed, wrong) in [(1, Some(30.0)), (2, None), (3, Some(20.0)), (4, None)] {
        let mut identity = identity("cell");
        identity.config["seed"] = seed.into();
        let run = Runs::new(folder.path()).create(&identity, false).unwrap();
        if let Some(wrong) = wrong {
            run.write_results(&results(wrong)).unwrap();
            run.update_manifest(|manifest| manifest.end(Status::Finished)).unwrap();
        }
        runs.push(run);
    }
    // The second has a figure in its log alone: between the others. The fourth has none.
    let values = json!({ "sequence_error_rate": 25.0, "bleu": 75.0 });
    log(
        &runs[1],
        &[json!({ "kind": "validation", "step": 5, "epoch": 0, "values": values, "best": true, "seconds": 1.0 })],
    );
    for (label, lower_is_better) in [("sequence_error_rate", true), ("bleu", false)] {
        let chosen = Chosen { label: label.into(), lower_is_better };
        let page = comparison_page(&runs, &chosen).unwrap();
        let page = check(&page);
        let rows = page.descendants().filter(|node| node.attribute("scope") == Some("row"));
        let names: Vec<&str> = rows.filter_map(|row| row.children().find_map(|n| n.text())).collect();
        let expected = [2, 1, 0, 3].map(|i: usize| runs[i].name());
        for (name, expected) in names.iter().zip(&expected) {
            assert!(name.starts_with(expected.as_str()), "{names:?} {expected:?}");
        }
        assert_eq!(names.len(), 4);
        assert_eq!(headings(&page), ["Settings and figure", "Runs", "Training"]);
    }
}

/// The contrast of two colours after WCAG 2.2, from 1 to 21.
fn contrast(a: &str, b: &str) -> f64 {
    let luminance = |colour: &str| {
        let part = |at: usize| f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
        let linear = |c: f64| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
        0.2126 * linear(part(1)) + 0.7152 * linear(part(3)) + 0.0722 * linear(part(5))
    };
    let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
    (a / b).max(b / a)
}

#[test]
fn what_is_written_can_be_read_in_the_light_and_in_the_dark() {
    let style = include_str!("style.css");
    let colour = |part: &'static str, name: &str| {
        let at = part.find(&format!("--{name}: #")).unwrap_or_else(|| panic!("no {name}")) + name.len() + 4;
        &part[at..at + 7]
    };
    let (light, dark) = style.split_at(style.find("@media").unwrap());
    for part in [light, dark] {
        for ground in ["paper", "card"] {
            let ground = colour(part, ground);
            for text in ["ink", "soft", "right", "bad"] {
                assert!(contrast(colour(part, text), ground) >= 4.5, "{text} on {ground}");
            }
            // Graphics need less.
            for line in ["series-0", "series-1", "series-2", "series-3", "series-4", "series-5", "rest"] {
                assert!(contrast(colour(part, line), ground) >= 3.0, "{line} on {ground}");
            }
        }
        assert!(contrast(colour(part, "ink"), colour(part, "wrong")) >= 4.5);
    }
}

#[test]
fn how_often_it_is_wrong_where_it_is_sure_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(&folder, "sure");
    let curve: Vec<(f64, f64)> = (1..=1000).map(|i| (f64::from(i) / 10.0, f64::from(i % 7))).collect();
    for (curve, chosen) in [(curve.clone(), Some((80.0, 5.0))), (curve, None), (Vec::new(), None)] {
        let is_drawn = !curve.is_empty();
        let confidence = Some(super::Confidence { curve, area: 12.5, chosen });
        let found = Findings { split: "test".into(), confidence, ..Findings::default() };
        let page = report_page(&run, &found).unwrap();
        assert!(page.len() < 100_000, "{} bytes", page.len());
        let page = check(&page);
        let words = words(&page);
        assert_eq!(words.contains("Risk by coverage") && words.contains("is 12.50 %"), is_drawn, "{words}");
        let told = "80.00 % of the questions are answered, and 95.00 % of these answers are right";
        assert_eq!(words.contains(told), chosen.is_some(), "{words}");
    }
}
