//! Broken configs and their answers, all in one text: `broken.txt`, beside this file.
//!
//! Each is `tiny.toml` with some text replaced by another. After a change that is meant, write the text again with
//! `ANTIPHON_WRITE_GOLDEN=1 cargo test --workspace broken`, and read it as a user would: every answer must name the place and
//! the remedy.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use crate::place::{CONFIG, Place};

/// The sort of mistake, what is replaced and by what; `...` on a line of its own stands between two places.
const CASES: &[(&str, &str, &str)] = &[
    ("a mistyped key", "hidden = 16\ndropout", "hiden = 16\ndropout"),
    ("a mistyped key", "[model.encoder]", "[model.encodr]"),
    ("a mistyped key", "threads = 1", "thread = 1"),
    ("a mistyped key", "learning_rate", "learning-rate"),
    ("a misplaced key", "threads = 1", "epochs = 9"),
    ("a misplaced key", "epochs = 2", "epochs = 2\nlearning_rate = 0.1"),
    ("a misplaced key", "[model.decoder.attention]", "[model.encoder.attention]"),
    ("a misplaced key", "[model.source]", "[model]\ndropout = 0.1\n[model.source]"),
    ("a misplaced key", "width = 3", "width = 3\npatience = 2\nearly_stopping = true"),
    ("a key of another kind", "kind = \"beam\"", "kind = \"greedy\""),
    ("a key of another kind", "kind = \"general\"", "kind = \"dot\"\nwidth = 8"),
    ("a key of another kind", "kind = \"adam\"", "kind = \"sgd\", beta1 = 0.9"),
    ("a key of another kind", "count = 32", "count = 32\npadded = true"),
    ("a key of another kind", "epochs = 2", "epochs = 2\nschedule = { kind = \"linear\", floor = 0.1 }"),
    ("an unknown kind", "[model.encoder]\nkind = \"gru\"", "[model.encoder]\nkind = \"gruu\""),
    ("an unknown kind", "kind = \"beam\"", "kind = \"sampling\""),
    ("an unknown kind", "kind = \"general\"", "kind = \"bahdanau\""),
    ("an unknown kind", "kind = \"adam\"", "kind = \"adamax\""),
    ("an unknown kind", "\"sequence_error_rate\"", "\"wer\""),
    ("an unknown kind", "kind = \"pairs\"", "kind = \"tsv\""),
    ("no kind", "{ kind = \"phone_error_rate\" }", "{ lowercase = true }"),
    ("no kind", "{ kind = \"phone_error_rate\" }", "{ whitespace = true }"),
    ("another kind than the default", "kind = \"sentences\"\ncount = 32", "count = 32\npadded = true"),
    ("another kind than the default", "[tokenizer.source]\nkind = \"character\"", "[tokenizer.source]\nsize = 300"),
    (
        "another kind than the default",
        "[model.decoder.attention]\nkind = \"general\"",
        "[model.decoder.attention]\nwidth = 8",
    ),
    (
        "another kind than the default",
        "kind = \"pairs\"\ntrain = \"train.tsv\"",
        "train = { source = \"a.de\", target = \"a.en\" }",
    ),
    ("a wrong type", "hidden = 16\ndropout", "hidden = \"16\"\ndropout"),
    ("a wrong type", "epochs = 2", "epochs = 2.5"),
    ("a wrong type", "hidden = 16\n[model.decoder]", "hidden = 16\nbidirectional = \"yes\"\n[model.decoder]"),
    (
        "a wrong type",
        "metrics = [{ kind = \"sequence_error_rate\" }, { kind = \"phone_error_rate\" }]",
        "metrics = \"bleu\"",
    ),
    ("a wrong type", "train = \"train.tsv\"", "train = [\"a.tsv\", \"b.tsv\"]"),
    ("a wrong type", "[model.decoder.attention]\nkind = \"general\"", "attention = \"general\""),
    ("out of range", "hidden = 16\ndropout", "hidden = 0\ndropout"),
    ("out of range", "dropout = 0.1", "dropout = 1.0"),
    ("out of range", "learning_rate = 1e-2", "learning_rate = 0"),
    ("out of range", "learning_rate = 1e-2", "learning_rate = nan"),
    ("out of range", "width = 3", "width = 0"),
    ("out of range", "threads = 1", "seed = -1"),
    ("out of range", "epochs = 2", "epochs = 2\ncheckpoint = { keep = 1 }"),
    ("out of range", "epochs = 2", "epochs = 2\nloss = { label_smoothing = 1.0 }"),
    (
        "something is missing",
        "[data]\nkind = \"pairs\"\ntrain = \"train.tsv\"\nvalidation = \"validation.tsv\"\ntest = \"test.tsv\"\n",
        "",
    ),
    ("something is missing", "train = \"train.tsv\"\n", ""),
    ("something is missing", "[tokenizer.target]\nkind = \"word\"\n", ""),
    ("something is missing", "epochs = 2\n", ""),
    ("a contradiction", "[tokenizer.source]", "[tokenizer.shared]\nkind = \"character\"\n[tokenizer.source]"),
    ("a contradiction", "[model.source]", "[model]\ntied = \"all\"\n[model.source]"),
    ("a contradiction", "epochs = 2", "epochs = 2\nvalidate = { metric = \"bleu\" }"),
    ("a contradiction", "epochs = 2", "epochs = 2\nvalidate = { metric = \"phone_error_rate\" }"),
    (
        "a contradiction",
        "validation = \"validation.tsv\"\n...\nepochs = 2",
        "\n...\nepochs = 2\nstop = { patience = 3 }\nschedule = { kind = \"plateau\" }",
    ),
    ("a contradiction", "epochs = 2", "epochs = 2\nschedule = { kind = \"step\" }"),
    ("a contradiction", "epochs = 2", "epochs = 2\nschedule = { kind = \"plateau\" }\nvalidate = { every_epochs = 0 }"),
    ("a contradiction", "epochs = 2", "steps = 50\nschedule = { kind = \"linear\", warmup = 100 }"),
    ("a contradiction", "epochs = 2", "epochs = 2\nschedule = { kind = \"linear\", warmup = 100 }"),
    ("a contradiction", "kind = \"general\"", "kind = \"none\"\n[model.bridge]\nkind = \"zero\""),
    ("a contradiction", "dropout = 0.1\n...\nkind = \"general\"", "input_feeding = true\n...\nkind = \"none\""),
    ("a contradiction", "kind = \"adam\"", "kind = \"sgd\", nesterov = true"),
    ("a contradiction", "width = 3", "width = 3\nmin_length = 900"),
    ("a contradiction", "\"phone_error_rate\"", "\"sequence_error_rate\""),
    ("a contradiction", "kind = \"pairs\"", "kind = \"text\""),
    ("not TOML", "\"train.tsv\"", "\"train.tsv"),
    ("not TOML", "epochs = 2", "epochs = 2\nepochs = 3"),
    ("not TOML", "[batch]", "[batch"),
    ("not TOML", "kind = \"beam\"", "kind = beam"),
    ("a wrong base", "threads = 1", "extends = \"none.toml\""),
    ("a wrong base", "threads = 1", "extends = \"bad.toml\""),
    ("a wrong base", "threads = 1", "extends = 3"),
    ("a wrong `replace`", "width = 3", "replace = \"yes\""),
    ("many at once", "width = 3", "wdth = 3\n[sweep]\nseed = [1, 2]\n[optimizer]\nkind = \"sgd\""),
];

/// What is wrong with a config, as the golden text has it: the change as lines with `-` and `+`, then the answer.
fn answer((kind, from, to): &(&str, &str, &str)) -> String {
    let mut config = CONFIG.to_owned();
    for (from, to) in from.split("\n...\n").zip(to.split("\n...\n")) {
        assert_eq!(config.matches(from).count(), 1, "{from}: must be in one place");
        config = config.replace(from, to);
    }
    let place = Place::new();
    place.write("bad.toml", config);
    let mut text = format!("## {kind}\n");
    for (mark, lines) in [('-', from), ('+', to)] {
        lines.lines().for_each(|line| writeln!(text, "{mark} {line}").unwrap());
    }
    text + &place.call("check bad.toml").refuses() + "\n\n"
}

#[test]
fn every_broken_config_is_answered_with_place_and_remedy() {
    let kinds: BTreeSet<&str> = CASES.iter().map(|(kind, ..)| *kind).collect();
    assert!(CASES.len() >= 40 && kinds.len() >= 10, "{} cases of {} kinds", CASES.len(), kinds.len());
    let found: String = CASES.iter().map(answer).collect();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cli/broken.txt");
    if std::env::var_os("ANTIPHON_WRITE_GOLDEN").is_some() {
        std::fs::write(&file, &found).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    let all = |text: &str| text.split("\n\n").map(str::to_owned).collect::<Vec<_>>();
    for (found, golden) in all(&found).iter().zip(all(&golden)) {
        assert_eq!(*found, golden, "if this is meant: ANTIPHON_WRITE_GOLDEN=1 cargo test --workspace broken");
    }
    assert!(found == golden, "if this is meant: ANTIPHON_WRITE_GOLDEN=1 cargo test --workspace broken");
}
