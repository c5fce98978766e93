//! Dialogs: histories that are learned from, asked about and measured from outside, however long and odd they are.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::place::{CONFIG, Place, pairs};

/// The quick config over histories.
fn config(beside: &str) -> String {
    let table = format!(
        "kind = \"table\"\nsource = \"context\"\ntarget = \"responses\"\ntrain = \"train.jsonl\"\nvalidation = \"validation.jsonl\"\n\
         test = \"test.jsonl\"\nhistory = {{ speakers = [\"<user>\", \"<bot>\"], numbered = true }}\n{beside}\n"
    );
    let pairs = "kind = \"pairs\"\ntrain = \"train.tsv\"\nvalidation = \"validation.tsv\"\ntest = \"test.tsv\"\n";
    assert!(CONFIG.contains(pairs));
    let word = "[tokenizer.source]\nkind = \"word\"\nnormalization = [\"lowercase\", \"punctuation\"]\n";
    CONFIG
        .replace(pairs, &table)
        .replace("[tokenizer.source]\nkind = \"character\"\n", word)
        .replace("epochs = 2", "epochs = 1")
}

/// Dialogs of one to three turns about the words of the quick corpus, whose letters stand apart, with two replies each.
fn rows(numbers: std::ops::Range<u32>) -> String {
    let row = |(i, line): (usize, &str)| {
        let (word, said) = line.split_once('\t').expect("a pair");
        let asked = word.chars().map(String::from).collect::<Vec<_>>().join(" ");
        let before = [json!("Hello!"), json!("what is it, please?")];
        let context: Vec<Value> = before[i % 3 % 2 * 2..].iter().cloned().chain([asked.into()]).collect();
        json!({ "context": context, "responses": [said, format!("{said} .")], "dialog": i / 4 }).to_string() + "\n"
    };
    pairs(numbers).lines().enumerate().map(row).collect()
}

fn place(beside: &str) -> Place {
    let place = Place::new();
    for (name, numbers) in [("train", 0..300), ("validation", 600..620), ("test", 640..660)] {
        place.write(&format!("data/{name}.jsonl"), rows(numbers));
    }
    place.write("dialogs.toml", config(beside));
    place
}

#[test]
fn histories_are_read_alike_wherever_they_come_from() {
    let place = place("max_source = 30");
    let run = place.call("run dialogs.toml -q");
    let err = run.err();
    assert!(!err.contains("max_source"), "nothing is cut: {err}");
    run.succeeds();
    let run = place.only_run();
    // Each of two references is an example; a search answers a source once.
    let results: Value = serde_json::from_slice(&place.read(&format!("{run}/results.json"))).unwrap();
    assert_eq!(results["test"]["counts"]["unknown_source"], 0, "{results}");
    let predicted = String::from_utf8(place.read(&format!("{run}/predictions-test.jsonl"))).unwrap();
    let of_run: Vec<Value> = predicted.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(of_run.iter().all(|row| row["references"].as_array().unwrap().len() >= 2), "{predicted}");

    // A file and a pipe are read as the split was.
    let text = String::from_utf8(place.read("data/test.jsonl")).unwrap();
    let from_file = place.call(&format!("predict {run} --input data/test.jsonl")).succeeds();
    assert_eq!(place.call_with(&format!("predict {run}"), &text).succeeds(), from_file);
    let asked: Vec<&str> = from_file.lines().collect();
    assert_eq!(asked.len(), 20);
    for row in &of_run {
        let line = row["line"].as_u64().unwrap() as usize;
        assert_eq!(row["answers"][0]["text"], asked[line - 1], "{row}");
    }
    // A reply by itself is as probable beside the other one as alone; each gets a line.
    let scores = place.call(&format!("score {run} --input data/test.jsonl")).succeeds();
    assert_eq!(scores.lines().count(), 40);
    // A history is cut from its old end: so many turns are as good as the last that fit, and are read as fast.
    let last = ["b", "a b", "c d"];
    let line = |turns: &[&str]| json!({ "context": turns }).to_string() + "\n";
    let long: Vec<&str> = std::iter::repeat_n("a word, or two", 9_999).chain(last).collect();
    let begin = Instant::now();
    let answers = place.call_with(&format!("predict {run} --json"), line(&long)).succeeds();
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let answer: Value = serde_json::from_str(&answers).unwrap();
    assert_eq!(answer["source"].as_str().unwrap().lines().count(), 10_002);
    let marked = long[long.len() - 6..].to_vec();
    let short: Value =
        serde_json::from_str(&place.call_with(&format!("predict {run} --json"), line(&marked)).succeeds()).unwrap();
    assert_eq!(answer["answers"], short["answers"]);
    // With less room it is cut when a split is measured, which is told.
    let measured = place.call(&format!("evaluate {run} --set data.max_source=8"));
    let err = measured.err();
    assert!(err.contains("histories are longer than `data.max_source`"), "{err}");
    measured.succeeds();
}

#[test]
fn odd_dialogs_are_read_or_told() {
    let place = place("max_source = 40\nmax_target = 100");
    let train = rows(0..60);
    let row =
        |context: Value, responses: Value| json!({ "context": context, "responses": responses }).to_string() + "\n";
    // A reply of 500 words.
    let long = vec!["A"; 500].join(" ");
    place.write("data/train.jsonl", train.clone() + &row(json!(["a"]), json!(["B", long])));
    let refused = place.call("run dialogs.toml -q").refuses();
    assert!(
        refused.contains("data/train.jsonl: line 61: the target has 500 tokens, more than data.max_target = 100"),
        "{refused}"
    );
    let skipping = place.call("run dialogs.toml -q --set data.too_long=skip");
    let err = skipping.err();
    assert!(err.contains("1 line skipped: 1 with a target over data.max_target = 100 (first: line 61)"), "{err}");
    skipping.succeeds();
    // What is no history.
    for (context, responses, fault) in [
        (json!([]), json!("A"), "`context` is empty"),
        (json!([["a"]]), json!("A"), "`context` is a list with a list in it"),
        (json!(["a"]), json!([]), "`responses` is empty"),
        (json!(["a"]), json!(["A", ""]), "`responses` is empty"),
        (json!(["a\0"]), json!("A"), "`context`"),
    ] {
        place.write("data/train.jsonl", train.clone() + &row(context, responses));
        let refused = place.call("run dialogs.toml -q").refuses();
        assert!(refused.contains("data/train.jsonl: line 61: ") && refused.contains(fault), "{fault}: {refused}");
    }
    // Control characters, line ends and marks within turns; empty turns; all replies the same word.
    let odd = ["\u{1b}[31mred\u{7}", "a\r\nb\u{2028}c", "", "<bot> <1> </s> <unk>", "\u{202e}x\u{feff}"];
    let same: String = odd.iter().map(|turn| row(json!(["a", turn]), json!("A"))).collect();
    for split in ["train", "validation", "test"] {
        place.write(&format!("data/{split}.jsonl"), &same);
    }
    place.call("run dialogs.toml -q --set train.epochs=2").succeeds();
    let answers = place.call_with("predict dialogs.toml --set train.epochs=2 --json", &same).succeeds();
    assert_eq!(answers.lines().count(), 5);
    assert!(!answers.contains('\u{1b}') && !answers.contains('\u{202e}'), "{answers}");

    place.write("wrong.toml", config("source = [\"context\", \"dialog\"]").replacen("source = \"context\"\n", "", 1));
    let refused = place.call("check wrong.toml").refuses();
    assert!(refused.contains("data.history") && refused.contains("make streams of the others"), "{refused}");
}
