//! Pages: each run leaves one, and it can be written anew.

use crate::place::{Place, finished};

/// The page as a tree; it must be well formed.
fn parsed(page: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    roxmltree::Document::parse_with_options(page, options).unwrap_or_else(|e| panic!("{e}\n{page}"))
}

fn text(place: &Place, name: &str) -> String {
    String::from_utf8(place.read(name)).unwrap()
}

#[test]
fn a_run_that_is_paused_is_shown_and_used_as_of_its_best_checkpoint() {
    let place = Place::new();
    place.call("train tiny.toml -q --pause-after-epochs 1").succeeds();
    let run = place.only_run();
    let said = format!(
        "warning: {run}: is not trained to its end; it is taken as of its best checkpoint so far, after step 19\n"
    );
    let called = place.call_with(&format!("predict {run}"), "abc\n");
    assert_eq!(called.err(), said);
    let answer = called.succeeds();
    let called = place.call_with(&format!("score {run}"), format!("abc\t{answer}"));
    assert_eq!((called.err(), called.succeeds().lines().count()), (said.clone(), 1));
    let called = place.call(&format!("evaluate {run} --split validation --quiet --threads 3"));
    assert_eq!(called.err(), said);
    called.succeeds();
    let called = place.call(&format!("evaluate {run} --split validation --quiet"));
    assert_eq!(called.err(), said);
    assert!(called.succeeds().contains("19 updates"));
    assert!(!place.path(&format!("{run}/results.json")).exists(), "these are not the run's results");
    place.call(&format!("report {run}")).succeeds();
    let page = text(&place, &format!("{run}/report.html"));
    assert!(page.contains(" answers by its best checkpoint so far, after step 19."), "{page}");
    // Without the data there is a page all the same.
    let called = place.call(&format!("report {run} --data-dir nowhere"));
    assert!(called.err().contains("there are no answers to show yet: nowhere/validation.tsv"), "{}", called.err());
    called.succeeds();

    // It goes on as if nobody had asked; its end is told everywhere.
    let end = "after step 38, epoch 2: all epochs are done; the model is that of step ";
    let err = place.call("train tiny.toml").err();
    assert!(err.contains(&format!("\nend      {end}")), "{err}");
    let manifest: serde_json::Value = serde_json::from_slice(&place.read(&format!("{run}/manifest.json"))).unwrap();
    let training = &manifest["training"];
    assert_eq!((&training["reason"], &training["step"], &training["epoch"]), (&"epochs".into(), &38.into(), &2.into()));
    assert!(training["best"]["metric"] == "loss" && training["best"]["value"].is_number(), "{training}");
    assert!(text(&place, &format!("{run}/report.html")).contains(&format!("Training ended {end}")));
    assert!(place.call("runs").succeeds().contains(" trained  all epochs "));
    assert_eq!(place.call_with(&format!("predict {run}"), "abc\n").err(), "");
}

#[test]
fn a_run_that_stops_early_says_so() {
    let place = Place::new();
    // A gain that nothing can reach, after the first validation.
    let sets = "--set train.epochs=9 --set train.stop.patience=2 --set train.stop.min_delta=100.0";
    let err = place.call(&format!("train tiny.toml {sets}")).err();
    let end = "end      after step 57, epoch 3: stopped early, after 2 validations without improvement; the model is ";
    assert!(err.contains(end), "{err}");
    assert!(place.call("runs").succeeds().contains(" stopped early "));
}

#[test]
fn a_run_leaves_a_page_with_curves_attention_answers_and_errors() {
    let (place, run, out) = finished();
    let name = format!("{run}/report.html");
    assert!(out.contains(&name), "{out}");
    let page = text(place, &name);
    let tree = parsed(&page);
    let count = |class: &str| tree.descendants().filter(|n| n.attribute("class") == Some(class)).count();
    assert!(count("raw s0 d0") == 0 && count("line s0 d0") >= 4, "38 updates are too few to be smoothed");
    let examples: Vec<_> = tree.descendants().filter(|n| n.has_tag_name("article")).take(3).collect();
    for example in examples {
        let cells: Vec<_> = example.descendants().filter(|n| n.attribute("class") == Some("cell")).collect();
        assert!(!cells.is_empty());
        // The weights of a row are a share of one each.
        let row = cells[0].attribute("y");
        let weights = cells.iter().filter(|c| c.attribute("y") == row).filter_map(|c| c.attribute("fill-opacity"));
        let sum: f64 = weights.map(|weight| weight.parse::<f64>().unwrap()).sum();
        assert!((sum - 1.0).abs() < 0.05, "{sum}");
        let answers = example.descendants().filter(|n| n.attribute("scope") == Some("row")).count();
        assert_eq!(answers, 3, "as many as the beam is wide");
    }
    for heading in ["Results", "Training", "Examples", "The run"] {
        assert!(page.contains(&format!("<h2>{heading}</h2>")), "{heading}");
    }
    // The same bytes, written anew.
    let anew = place.path("anew.html");
    let said = place.call(&format!("report {run} --output {}", anew.display())).succeeds();
    assert!(said.trim_end().ends_with("anew.html"), "{said}");
    assert_eq!(text(place, "anew.html"), page);
}

#[test]
fn training_alone_leaves_a_page_and_evaluation_fills_it() {
    let place = Place::new();
    place.call("train tiny.toml --run mine --set search.kind=greedy").succeeds();
    let page = text(&place, "mine/report.html");
    parsed(&page);
    assert!(page.contains("trained") && !page.contains("<h2>Examples</h2>"));
    place.call("evaluate mine --split validation").succeeds();
    let page = text(&place, "mine/report.html");
    parsed(&page);
    assert!(page.contains("<h2>Examples</h2>") && page.contains("class=\"cell\""));
}

#[test]
fn several_runs_share_one_page() {
    let place = Place::new();
    for seed in 1..=2 {
        place.call(&format!("run tiny.toml --run r{seed} --set seed={seed} --set train.epochs=1")).succeeds();
    }
    std::fs::create_dir_all(place.path("runs")).unwrap();
    assert_eq!(place.call("report r1 r2").succeeds(), "runs/comparison.html\n");
    let page = text(&place, "runs/comparison.html");
    let tree = parsed(&page);
    assert!(page.contains("Ranked by loss") && page.contains(">seed<"), "{page}");
    let lines = tree.descendants().filter(|n| n.attribute("class") == Some("line s1 d1")).count();
    assert!(lines >= 2, "in the drawing and in the table");
    place.call("report r1 r2 --by token_accuracy --output two.html").succeeds();
    assert!(text(&place, "two.html").contains("the highest first"));
    let answer = place.call("report r1 r2 --by bleu").refuses();
    assert!(answer.contains("--by: the first run has no figure `bleu`; use one of `loss`"), "{answer}");
    assert!(place.call("report r1 nowhere").refuses().contains("nowhere: no such run folder"));
}
