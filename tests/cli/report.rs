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
