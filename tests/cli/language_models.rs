//! Follows `docs/language-models.md`: its configs are right, its commands work as they stand, its labels are those that are printed.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::place::{Called, Place};

/// What makes the guide's models small: the layer of the environment holds for every command, so that each is given as it stands.
const SMALL: &[(&str, &str)] = &[
    ("ANTIPHON__THREADS", "1"),
    ("ANTIPHON__DATA__ROWS", "8"),
    ("ANTIPHON__DATA__LENGTH", "16"),
    ("ANTIPHON__MODEL__TARGET__SIZE", "12"),
    ("ANTIPHON__MODEL__DECODER__HIDDEN", "12"),
    ("ANTIPHON__TRAIN__STEPS", "6"),
];

fn page() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/language-models.md");
    std::fs::read_to_string(page).expect("the guide is there")
}

/// The code blocks of a language, in their order.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let opening = format!("```{language}\n");
    page.split(&opening).skip(1).map(|rest| rest.split_once("```").expect("a block ends").0).collect()
}

/// Each config with the file that its first line names.
fn configs(page: &str) -> Vec<(&str, &str)> {
    blocks(page, "toml").into_iter().map(|block| (file_of(block), block)).collect()
}

/// What the first line of a config says.
fn file_of(config: &str) -> &str {
    let first = config.lines().next().and_then(|line| line.strip_prefix("# "));
    first.expect("a config begins with its file")
}

/// Lines of few letters, each a sentence.
fn book(lines: usize) -> String {
    let word = |n: usize| ["the", "old", "man", "said", "nothing", "a", "sea"][n % 7];
    let mut book = String::new();
    for n in 0..lines {
        writeln!(book, "The {} {}.", word(n * n / 3), word(n / 2)).expect("there is room");
    }
    book
}

/// What `cargo xtask` does with a command: the program gets the words behind it.
fn place() -> Place {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let script = format!("#!/bin/sh\nshift\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_antiphon"));
    place.write("bin/cargo", script);
    std::fs::set_permissions(place.path("bin/cargo"), std::fs::Permissions::from_mode(0o755)).expect("a script");
    place.write("book.txt", book(10_000));
    place.write("another.txt", book(30));
    place.write("beginning.txt", "The old man\n");
    place
}

/// Gives a text to a shell.
#[track_caller]
fn shell(place: &Place, text: &str) -> Called {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = place.shell();
    command.args(["-e", "-c", text]).env("PATH", format!("{}:{path}", place.path("bin").display()));
    let called = Called(command.envs(SMALL.iter().copied()).output().expect("a shell"));
    assert_eq!(called.0.status.code(), Some(0), "{text}\n{}\n{}", called.out(), called.err());
    called
}

#[test]
fn the_guide_can_be_followed_as_it_stands() {
    let (page, place) = (page(), place());
    for (file, config) in configs(&page) {
        place.write(file, config);
    }
    let mut words = Vec::new();
    let mut said = String::new();
    for block in blocks(&page, "sh") {
        let commands: Vec<&str> = block.lines().filter_map(|line| line.split("cargo xtask ").nth(1)).collect();
        words.push(commands.iter().filter_map(|command| command.split(' ').next()).collect::<Vec<_>>());
        let called = shell(&place, block);
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
    let (page, place) = (page(), Place::new());
    let configs = configs(&page);
    assert!(configs.len() >= 4, "{configs:?}");
    for (file, config) in &configs {
        place.write(file, config);
    }
    for (file, _) in &configs {
        let called = place.call(&format!("check {file}"));
        // The files of data are the reader's.
        let others: Vec<String> =
            called.err().lines().filter(|line| !line.contains("no such file")).map(str::to_owned).collect();
        assert_eq!(others, [""; 0], "{file}");
        called.succeeds();
    }
    // A setting that is named between backticks is one.
    let keys = antiphon_config::keys::<antiphon::ExperimentConfig>();
    let sections = ["data.", "model.", "train.", "search.", "evaluate."];
    let named = page.split('`').skip(1).step_by(2).filter(|text| sections.iter().any(|s| text.starts_with(s)));
    let named = named.filter(|text| *text != "model.safetensors");
    let named: BTreeSet<&str> = named.filter_map(|text| text.split([' ', '=']).next()).collect();
    assert!(named.len() > 20, "{named:?}");
    let unknown: Vec<_> = named.iter().filter(|key| !keys.contains(&(**key).to_owned())).collect();
    assert!(unknown.is_empty(), "no such setting: {unknown:?}");
}
