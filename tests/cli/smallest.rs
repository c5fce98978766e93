//! The smallest config: everything has a default that can have one, kinds too.

use crate::place::{Place, pairs};

/// That of the page on experiments.
fn config() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/experiments.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let (_, below) = page.split_once("## The smallest config").expect("its section");
    let (_, block) = below.split_once("```toml\n").expect("a config");
    block.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_smallest_config_trains() {
    let config = config();
    let lines = config.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 10 && !config.contains("kind") && !config.contains("validation"), "{config}");
    let place = Place::new();
    place.write("data/mine/train.tsv", pairs(0..60));
    place.write("smallest.toml", config);
    place.call("check smallest.toml").succeeds();
    let called = place.call("run smallest.toml");
    assert!(
        called.err().contains("neither a validation nor a test split: nothing will be measured"),
        "{}",
        called.err()
    );
    let out = called.succeeds();
    let source = pairs(0..1);
    assert!(out.contains(&format!("echo {} | ", source.split('\t').next().unwrap())), "{out}");

    // What is saved names every kind, and is the same experiment.
    let run = place.only_run();
    let saved = String::from_utf8(place.read(&format!("{run}/config.toml"))).unwrap();
    for kind in ["pairs", "character", "sentences", "lstm", "general", "linear", "adam", "constant", "beam"] {
        assert!(saved.contains(&format!("kind = \"{kind}\"")), "{kind}: {saved}");
    }
    place.write("data/input.txt", "ab\ncd\n");
    let answers = place.call(&format!("predict {run} --input data/input.txt --set search.width=3")).succeeds();
    assert_eq!(answers.lines().count(), 2);
}

#[test]
fn a_setting_needs_no_kind_beside_it() {
    let place = Place::new();
    place.write("smallest.toml", config());
    let out = place
        .call(
            "check smallest.toml --set batch.count=16 --set model.source.size=64 --set search.width=3 --set name=1_1_1",
        )
        .succeeds();
    for line in
        ["batch.kind = \"sentences\"  # default", "search.kind = \"beam\"  # default", "search.width = 3  # --set"]
    {
        assert!(out.contains(&format!("{line}\n")), "{line}: {out}");
    }
    assert!(out.ends_with("the run is called 1_1_1\n"), "{out}");
    let answer = place.call("check smallest.toml --set batch.counted=source").refuses();
    assert!(answer.ends_with("kind `tokens` has `counted`: add `kind = \"tokens\"`"), "{answer}");
    let answer = place.call("check smallest.toml --set seed=99999999999999999999").refuses();
    assert!(
        answer.ends_with("seed (--set): must be at most 9223372036854775807, got 99999999999999999999"),
        "{answer}"
    );
}
