//! Running text: a language model reads it on, from batch to batch and from its first token to its last.

use serde_json::Value;

use crate::place::{Place, finished};
use crate::text;

/// Much of what a line holds is told by the line before.
pub(crate) const STREAM: &str = r#"
extends = "text.toml"
[data]
kind = "stream"
rows = 8
length = 20
[batch]
replace = true
kind = "sentences"
[evaluate]
parts = 4
"#;

fn place() -> Place {
    let place = text::place();
    place.write("stream.toml", STREAM);
    place
}

/// The figures of a split in a run's results.
fn split(place: &Place, run: &str, split: &str) -> Value {
    let results: Value = serde_json::from_slice(&place.read(&format!("{run}/results.json"))).unwrap();
    results[split].clone()
}

fn loss(split: &Value) -> f64 {
    split["losses"]["per_token"].as_f64().unwrap()
}

#[test]
fn a_running_text_is_learned_from_and_measured_to_its_last_character() {
    let place = place();
    // Blank lines, and no line end at the end.
    let test = String::from_utf8(place.read("data/test.txt")).unwrap().replacen('\n', "\n\n", 3);
    place.write("data/test.txt", test.trim_end());
    let called = place.call("run stream.toml --run one");
    assert!(called.err().contains("train    600 lines of running text, "), "{}", called.err());
    let out = called.succeeds();
    assert!(out.contains("perplexity") && out.contains("score one"), "{out}");
    let found = split(&place, "one", "test");
    assert!(loss(&found) < 1.6, "it has learned nothing: {found}");
    let characters = test.trim_end().chars().count() as u64;
    for count in ["target_tokens", "target_characters"] {
        assert_eq!(found["counts"][count].as_u64(), Some(characters), "{count}");
    }
    // Another file is measured as the split is, and a line alone is a text of one line.
    let figure = |out: &str| {
        let line = out.lines().find(|line| line.starts_with("loss_per_token ")).expect("a loss");
        line.split_whitespace().last().unwrap().parse::<f64>().unwrap()
    };
    let out = place.call("evaluate one --input data/test.txt").succeeds();
    assert!((figure(&out) - loss(&found)).abs() < 1e-4, "{out}");
    place.write("line.txt", "ab cda b\n");
    let out = place.call("evaluate one/model.safetensors --input line.txt").succeeds();
    let scored = place.call_with("score one", "ab cda b\n\n").succeeds();
    let scored: Vec<f64> = scored.lines().map(|line| line.parse().unwrap()).collect();
    assert!((figure(&out) + scored[0] / 9.0).abs() < 1e-4, "{out} {scored:?}");
    assert!(scored.len() == 2 && scored[1] < 0.0, "a blank line has its end: {scored:?}");
    place.call("report one").succeeds();
}

#[test]
fn files_that_follow_upon_each_other_are_one_text() {
    let place = place();
    let whole = String::from_utf8(place.read("data/train.txt")).unwrap();
    let (first, second) = whole.split_at(whole.len() / 2);
    let cut = first.rfind('\n').unwrap() + 1;
    place.write("data/a.txt", &first[..cut]);
    place.write("data/b.txt", first[cut..].to_owned() + second);
    let train = |run: &str, set: &str| {
        place.call(&format!("train stream.toml -q --run {run} --set train.epochs=1 {set}")).succeeds();
        let log = String::from_utf8(place.read(&format!("{run}/metrics.jsonl"))).unwrap();
        let losses = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].clone());
        losses.collect::<Vec<_>>()
    };
    let one = train("one", "");
    assert_eq!(one, train("two", "--set data.train=['a.txt','b.txt']"));
    assert_ne!(one, train("three", "--set data.train=['a.txt','b.txt'] --set data.documents=files"));
    assert_ne!(one, train("four", "--set data.documents=blank_lines --set data.train=['b.txt','a.txt']"));
    assert_ne!(one, train("five", "--set data.jitter=true"));
}

/// What stands beside the plain figures changes none of them.
#[test]
fn a_model_is_judged_in_all_units_and_in_other_ways() {
    let place = place();
    place.call("run stream.toml --run plain -q").succeeds();
    let set = "--set evaluate.reset=16 --set evaluate.temperature=fit";
    place.call(&format!("run stream.toml --run all -q {set}")).succeeds();
    let (mut all, plain) = (split(&place, "all", "test"), split(&place, "plain", "test"));
    let beside = all["losses"].as_object_mut().unwrap().remove("beside").unwrap();
    assert_eq!(all, plain);
    let number = |value: &Value| value.as_f64().unwrap();
    let per = |unit: &str| number(&all["losses"][unit]);
    let (characters, words) = (number(&all["counts"]["target_characters"]), number(&all["counts"]["target_words"]));
    assert!((per("per_character") * characters - per("per_word") * words).abs() < 1e-6 * characters, "{all}");
    let text = String::from_utf8(place.read("data/test.txt")).unwrap();
    assert_eq!(words as usize, text.lines().map(|line| line.split_whitespace().count() + 1).sum::<usize>());
    let ways = beside.as_array().unwrap();
    let way = |i: usize, key: &str| ways[i][key].as_f64();
    assert_eq!([0, 1, 2].map(|i| way(i, "reset").is_some()), [false, true, true], "{beside}");
    assert_eq!([0, 1, 2].map(|i| way(i, "temperature").is_some()), [true, false, true], "{beside}");
    // A state that is forgotten every 16 characters knows less; a temperature that is fitted elsewhere moves little.
    assert!(way(1, "per_token").unwrap() > per("per_token"), "{beside}");
    let tempered = way(0, "per_token").unwrap();
    assert!((tempered - per("per_token")).abs() < 0.1 && tempered != per("per_token"), "{beside}");
    // On the split that it is fitted on it does no harm.
    let validation = split(&place, "all", "validation");
    let fitted = number(&validation["losses"]["beside"][0]["per_token"]);
    assert!(fitted <= loss(&validation) + 1e-6, "{validation}");
    assert_eq!(validation["losses"]["beside"][0]["temperature"], ways[0]["temperature"]);
    // Of a text by lines too, and when it is asked for later.
    let out = place.call("evaluate plain --set evaluate.temperature=fit --set evaluate.reset=16").succeeds();
    for label in ["bits_per_character", "perplexity_per_word", "loss_per_token_reset_tempered", "temperature"] {
        assert!(out.lines().any(|line| line.starts_with(&format!("{label} "))), "{label}: {out}");
    }
    place.call("run text.toml --run lines -q --set evaluate.temperature=fit").succeeds();
    assert!(split(&place, "lines", "test")["losses"]["beside"][0]["temperature"].is_f64());

    let page = String::from_utf8(place.read("all/report.html")).unwrap();
    for said in ["Where the loss lies", "By place behind a fresh state", "The worst predictions", "of all nats"] {
        assert!(page.contains(said), "{said}");
    }
    let found = || -> Value { serde_json::from_slice(&place.read("all/losses-test.json")).unwrap() };
    for bins in ["by_place", "by_window", "by_frequency"] {
        let bins = found()[bins].as_array().unwrap().clone();
        let sum: f64 = bins.iter().map(|bin| number(&bin["tokens"])).sum();
        assert_eq!(sum, characters, "{bins:?}");
    }
    // A text that the run has not read tells nothing of what it has learned.
    let train = place.read("data/train.txt");
    place.write("data/train.txt", [b"another\n", train.as_slice()].concat());
    place.call("evaluate all -q").succeeds();
    assert_eq!(found()["by_frequency"], serde_json::json!([]));
    place.write("data/train.txt", train);
    place.call("evaluate all -q").succeeds();
    assert!(found()["by_frequency"].as_array().is_some_and(|bins| !bins.is_empty()));
}

/// One clear error, or a count of what is left out.
#[test]
fn what_is_no_text_to_learn_from_is_told_in_one_error() {
    let place = place();
    let refused = |text: &[u8], said: &str| {
        place.write("data/train.txt", text);
        let error = place.call("train stream.toml -q").refuses();
        assert!(error.contains(said), "{error}");
    };
    refused(b"", "data/train.txt: the file is empty: give one with at least one line");
    refused(b"ab\n\xFF\n", "data/train.txt: line 2: byte 1 is not UTF-8");
    refused(
        &vec![b'a'; 2_000_000],
        "data/train.txt: line 1: 2000000 bytes, more than data.max_line = 1000000: split it",
    );
    refused(
        b"ab\nab\n",
        "data/train.txt: the text has 6 tokens, fewer than the 160 of one step: lower data.rows = 8 or",
    );
    refused(&[b'a'; 500], "data/train.txt: one token throughout: there is nothing to learn from such a text");
    refused(&[b'\n'; 500], "tokenizer.target: there is no text to train a tokenizer on");
    let list = place.call("train stream.toml --set data.train=[]").refuses();
    assert!(list.contains("data.train"), "{list}");
    place.write("data/train.txt", "ab cd\n".repeat(100));
    let of_words = "--set tokenizer.target={replace=true,kind='word'} --set train.epochs=1";
    place.call(&format!("train stream.toml --run words -q {of_words}")).succeeds();
    place.write("blank.txt", " ");
    let blank = place.call("evaluate words --input blank.txt").refuses();
    assert!(blank.contains("blank.txt: has no token to be judged"), "{blank}");

    let mut text = "ab cd\n".repeat(100).into_bytes();
    text.extend(b"a\xFF\n");
    place.write("data/train.txt", &text);
    let called = place.call("train stream.toml --set data.on_bad_line=skip --set train.epochs=1");
    assert!(
        called.err().contains("left out as unusable: 1 line skipped: 1 not UTF-8 (first: line 101)"),
        "{}",
        called.err()
    );
    called.succeeds();
}

#[test]
fn what_does_not_fit_running_text_is_told() {
    let place = place();
    let warned = place.call("check stream.toml --set batch.count=3").err();
    assert!(warned.contains("batch") && warned.contains("cut by `data.rows` and `data.length`"), "{warned}");
    let warned = place.call("check text.toml --set evaluate.parts=3").err();
    assert!(warned.contains("evaluate.parts") && warned.contains("has no effect"), "{warned}");
    let said = place.call("check tiny.toml --set data={replace=true,kind='stream',train='train.tsv'}").refuses();
    assert!(said.contains("model.kind"), "{said}");
}

/// The records of a run's validations, without their times.
fn validations(place: &Place, run: &str) -> Vec<Value> {
    let log = String::from_utf8(place.read(&format!("{run}/metrics.jsonl"))).unwrap();
    let records = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut records: Vec<Value> = records.filter(|record| record["kind"] == "validation").collect();
    records.iter_mut().for_each(|record| assert!(record.as_object_mut().unwrap().remove("seconds").is_some()));
    records
}

#[test]
fn every_validation_leaves_what_the_model_wrote() {
    let place = place();
    let often = "--set train.validate.every_steps=20 -q";
    place.call(&format!("run stream.toml --run whole {often}")).succeeds();
    let whole = validations(&place, "whole");
    assert!(whole.len() >= 3, "{whole:?}");
    let texts: Vec<&str> = whole.iter().flat_map(|record| record["samples"].as_array().unwrap()).map(text_of).collect();
    assert_eq!(texts.len(), 3 * whole.len());
    assert!(
        texts.iter().all(|text| !text.is_empty() && text.replace("<unk>", "?").chars().count() <= 200),
        "{texts:?}"
    );
    assert_eq!(texts.iter().collect::<std::collections::BTreeSet<_>>().len(), texts.len(), "they are alike");
    // What has been resumed on the way wrote the same.
    for steps in [7, 20, 33] {
        place.call(&format!("run stream.toml --run parts {often} --pause-after-steps {steps}")).succeeds();
    }
    place.call(&format!("run stream.toml --run parts {often}")).succeeds();
    assert_eq!(validations(&place, "parts"), whole);
    // The page shows it, and nothing else hangs on it.
    let page = String::from_utf8(place.read("whole/report.html")).unwrap();
    let last = texts[texts.len() - 1].lines().next().unwrap();
    assert!(page.contains("<h2>Samples</h2>") && page.contains(last), "{last}");
    place.call(&format!("run stream.toml --run silent {often} --set evaluate.samples=0")).succeeds();
    let mut plain = whole.clone();
    plain.iter_mut().for_each(|record| assert!(record.as_object_mut().unwrap().remove("samples").is_some()));
    assert_eq!(validations(&place, "silent"), plain);
    assert_eq!(split(&place, "silent", "test"), split(&place, "whole", "test"));
    // By the run's own search, where that draws.
    let drawn = "--set search={kind='sample',stop=['a']} --set evaluate.samples=5";
    place.call(&format!("run stream.toml --run drawn {often} {drawn}")).succeeds();
    for record in validations(&place, "drawn") {
        let texts: Vec<&str> = record["samples"].as_array().unwrap().iter().map(text_of).collect();
        assert!(texts.len() == 5 && texts.iter().all(|text| !text.contains('a')), "{texts:?}");
    }
    // Who answers sources writes nothing else.
    let (pairs, run, _) = finished();
    assert!(validations(pairs, run).iter().all(|record| record.get("samples").is_none()));
}

fn text_of(value: &Value) -> &str {
    value.as_str().expect("a text")
}
