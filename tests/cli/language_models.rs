//! Follows `docs/language-models.md`: its configs are right, its commands work as they stand, its labels are those that are printed.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::guide::{blocks, commands, configs_are_right, follow, page, write_cargo, write_configs};
use crate::place::Place;

/// What makes the guide's models small: the layer of the environment holds for every command, so that each is given as it stands.
const SMALL: &[(&str, &str)] = &[
    ("ANTIPHON__THREADS", "1"),
    ("ANTIPHON__DATA__ROWS", "8"),
    ("ANTIPHON__DATA__LENGTH", "16"),
    ("ANTIPHON__MODEL__TARGET__SIZE", "12"),
    ("ANTIPHON__MODEL__DECODER__HIDDEN", "12"),
    ("ANTIPHON__TRAIN__STEPS", "6"),
];

/// Lines of few letters, each a sentence.
fn book(lines: usize) -> String {
    let word = |n: usize| ["the", "old", "man", "said", "nothing", "a", "sea"][n % 7];
    let mut book = String::new();
    for n in 0..lines {
        writeln!(book, "The {} {}.", word(n * n / 3), word(n / 2)).expect("there is room");
    }
    book
}

fn place() -> Place {
    let place = Place::new();
    write_cargo(&place);
    place.write("book.txt", book(10_000));
    place.write("another.txt", book(30));
    place.write("beginning.txt", "The old man\n");
    place
}

#[test]
fn the_guide_can_be_followed_as_it_stands() {
    let (page, place) = (page("language-models.md"), place());
    write_configs(&page, &place);
    let mut words = Vec::new();
    let mut said = String::new();
    for block in blocks(&page, "sh") {
        words.push(commands(block));
        let called = follow(&place, block, SMALL);
        assert!(!called.err().contains("warning: "), "{block}\n{}", called.err());
        said += &called.out();
    }
    assert_eq!(words[1], ["check", "run", "generate", "score", "evaluate"]);
    assert!(words.len() >= 5, "{words:?}");
    // Two models were trained.
    let runs = place.call("runs --json").succeeds();
    let runs: serde_json::Value = serde_json::from_str(&runs).expect("JSON");
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(2), "{runs}");

    // Every label that the tables of figures explain is one that was printed, and no figure of quality lacks its explanation.
    let (_, section) = page.split_once("## What is reported").expect("its section");
    let (section, _) = section.split_once("\n## ").expect("a section behind it");
    let cells = section.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('|').nth(1));
    let explained: BTreeSet<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let printed: BTreeSet<&str> = said.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(explained.len() > 15, "{explained:?}");
    let missing: Vec<_> = explained.difference(&printed).collect();
    assert!(missing.is_empty(), "explained and never printed: {missing:?}\n{said}");
    for label in printed.iter().filter(|label| label.starts_with("bits_") || label.starts_with("perplexity_per")) {
        assert!(explained.contains(label), "{label} is not explained");
    }
}

#[test]
fn every_config_of_the_guide_is_right() {
    assert!(configs_are_right(&page("language-models.md"), 4) > 20);
}
