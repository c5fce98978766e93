//! A corpus of text without sources: a language model, trained line by line, tells how probable texts are.

use antiphon_config::{Tree, to_toml};
use antiphon_lab::leave_out;
use serde_json::Value;

use crate::place::Place;

pub(crate) const TEXT: &str = r#"
threads = 1

[data]
kind = "text"
train = "train.txt"
validation = "validation.txt"
test = "test.txt"

[tokenizer.target]
kind = "character"

[model]
kind = "language_model"
[model.target]
kind = "embedding"
size = 16
[model.decoder]
kind = "lstm"
hidden = 24
layers = 2
dropout = 0.2

[batch]
kind = "sentences"
count = 32

[train]
epochs = 2
optimizer = { kind = "adam", learning_rate = 1e-2 }
"#;

/// Words in a row, some of them of one letter.
fn texts(numbers: std::ops::Range<u64>) -> String {
    let word = |n: u64| "abcd".chars().cycle().skip(n as usize % 4).take(1 + (n as usize * 7) % 5).collect::<String>();
    numbers.map(|n| format!("{} {} {}\n", word(n), word(n / 3 + 1), word(n / 7))).collect()
}

pub(crate) fn place() -> Place {
    let place = Place::new();
    place.write("data/train.txt", texts(0..600));
    place.write("data/validation.txt", texts(600..680));
    place.write("data/test.txt", texts(680..720));
    place.write("text.toml", TEXT);
    place
}

#[test]
fn a_language_model_is_trained_measured_and_asked() {
    let place = place();
    let out = place.call("run text.toml --run one").succeeds();
    assert!(out.contains("perplexity") && !out.contains("answers"), "{out}");
    assert!(out.contains("score one"), "what to do next: {out}");
    let results: Value = serde_json::from_slice(&place.read("one/results.json")).unwrap();
    let test = &results["test"];
    assert!(test["losses"]["per_token"].as_f64().unwrap() < 2.0, "it has learned nothing: {test}");
    assert_eq!(test["counts"]["source_tokens"], Value::Null, "{test}");

    // What is scored line by line adds up to what was measured.
    let text = place.read("data/test.txt");
    let scored = place.call_with("score text.toml --runs-dir . --json", &text).succeeds();
    let lines: Vec<Value> = scored.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = String::from_utf8(text.clone()).unwrap().lines().next().unwrap().to_owned();
    assert_eq!((lines[0]["target"].as_str(), lines[0].get("source")), (Some(first.as_str()), None));
    let tokens: usize = lines.iter().map(|line| line["log_probs"].as_array().unwrap().len()).sum();
    let nats: f64 = lines.iter().map(|line| -line["log_prob"].as_f64().unwrap()).sum();
    assert_eq!(tokens as u64, test["counts"]["target_tokens"].as_u64().unwrap());
    assert!((nats / tokens as f64 - test["losses"]["per_token"].as_f64().unwrap()).abs() < 1e-5);
    // The model file alone says the same.
    let alone = place.call_with("score one/model.safetensors --json", &text).succeeds();
    assert_eq!(alone, scored);

    let out = place.call("evaluate one --split validation").succeeds();
    assert!(out.contains("loss_per_character"), "{out}");
    place.call("report one").succeeds();
    assert!(!place.path("one/predictions-test.jsonl").exists(), "there are no answers");
    let listed = place.call("runs --runs-dir .").succeeds();
    assert!(listed.contains("test: perplexity "), "{listed}");
    let said = place.call("evaluate one --references data/test.txt").refuses();
    assert!(said.contains("--references: a language model answers nothing"), "{said}");
    // What is read of one that is not at its end is not made up of answers.
    place.call("run text.toml --run early --set seed=2 --pause-after-steps 25").succeeds();
    place.call("report early").succeeds();
    let page = String::from_utf8(place.read("early/report.html")).unwrap();
    assert!(!page.contains("answers by"), "a page of answers to nothing");
    place.call("run text.toml --run two --set seed=3 -q").succeeds();
    let compared = place.call("compare one two").succeeds();
    assert!(compared.contains("perplexity") && !compared.contains("luck"), "{compared}");
    let said = place.call("predict one").refuses();
    assert!(
        said.ends_with(
            "one: is a language model, which answers no sources; `generate` goes on with a text, and `score` says how \
             probable texts are"
        ),
        "{said}"
    );
    let said = place.call_with("score one", "a b\n\nc\n").refuses();
    assert!(said.contains("standard input: line 2: "), "{said}");
}

#[test]
fn models_and_corpora_that_do_not_fit_are_told_apart() {
    let place = place();
    let said = |words: &str| place.call(words).refuses();
    let text = said("check text.toml --set model.kind=encoder_decoder --set model.decoder={replace=true,kind='gru'}");
    assert!(text.contains("model.kind") && text.contains("set `kind = \"language_model\"`"), "{text}");
    let pairs = said("check tiny.toml --set model={replace=true,kind='language_model'}");
    assert!(pairs.contains("data.kind") && pairs.contains("`kind = \"text\"`"), "{pairs}");
    // What an encoder-decoder alone has is dropped beside the other kind, which is said.
    place.write("other.toml", "extends = 'tiny.toml'\n[data]\nkind = 'text'\n[model]\nkind = 'language_model'\n");
    let called = place.call("check other.toml");
    let dropped = called.err();
    for key in ["model.encoder", "model.source", "model.decoder.attention"] {
        assert!(dropped.lines().any(|line| line.contains(key) && line.contains("is dropped")), "{key}: {dropped}");
    }
    called.succeeds();
    let counted = said("check text.toml --set batch={replace=true,kind='tokens',counted='source'}");
    assert!(counted.contains("batch.counted") && counted.contains("`target`"), "{counted}");
    let metric = said("check text.toml --set train.validate.metric=sequence_error_rate");
    assert!(metric.contains("validation does not give `sequence_error_rate`"), "{metric}");
    let called = place.call("check text.toml --set tokenizer.source.kind=word --set evaluate.show=3");
    let warned = called.err();
    for key in ["tokenizer.source", "evaluate.show"] {
        assert!(warned.lines().any(|line| line.contains(key) && line.contains("has no effect")), "{key}: {warned}");
    }
}

/// A setting that is new stands in no older file, and hides no older run.
#[test]
fn a_run_whose_config_lacks_new_settings_is_found() {
    let place = Place::new();
    place.call("train tiny.toml --run runs/one").succeeds();
    let mut manifest: Value = serde_json::from_slice(&place.read("runs/one/manifest.json")).unwrap();
    let uncounted = manifest.as_object_mut().unwrap().remove("uncounted").unwrap();
    let uncounted: Vec<String> = serde_json::from_value(uncounted).unwrap();
    assert!(uncounted.starts_with(&["/model/kind".into(), "/model/head".into()]), "{uncounted:?}");
    // As version 0.2.0 wrote it before there were kinds of models and heads, locked dropout and averages.
    let mut older = Tree::load(&place.path("runs/one/config.toml"), &[]).unwrap().value().clone();
    leave_out(&mut older, &uncounted);
    let older = to_toml(&older).unwrap();
    let young = ["softmax", "encoder_decoder", "locked_dropout", "[train.average]"];
    assert!(young.iter().all(|young| !older.contains(young)), "{older}");
    place.write("runs/one/config.toml", &older);
    manifest["format"] = 2.into();
    place.write("runs/one/manifest.json", manifest.to_string());
    let answer = place.call_with("predict tiny.toml", "abc\n").succeeds();
    assert_eq!(place.call_with("predict runs/one", "abc\n").succeeds(), answer);
    // And it is the run that is gone on with.
    let out = place.call("train tiny.toml").err();
    assert!(out.contains("runs/one: is trained"), "{out}");
    // What it does not say is no difference from those that say it.
    place.call("train tiny.toml --run runs/two --set seed=2 -q").succeeds();
    let compared = place.call("compare runs/one runs/two").succeeds();
    assert!(compared.contains("seed") && !compared.contains("model."), "{compared}");
}
