//! A model that says by CTC alone what it hears, as `docs/speech.md` has it.

use serde_json::Value;

use crate::guide::{page, write_configs};
use crate::place::{Called, Place};
use crate::speech::{SMALL, furnish};

/// What makes the guide's model small, but for its decoder, which this one has not.
fn small() -> impl Iterator<Item = (&'static str, &'static str)> {
    SMALL.iter().copied().filter(|(key, _)| !key.contains("DECODER") && !key.contains("TARGET"))
}

fn call(place: &Place, words: &str) -> Called {
    Called(place.command(words).envs(small()).output().expect("the program starts"))
}

fn figure(table: &str, label: &str) -> f64 {
    let line = table.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(' '));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {label}: {table}"))
}

#[test]
fn it_is_trained_resumed_searched_scored_and_combined() {
    let place = Place::new();
    furnish(&place);
    assert!(write_configs(&page("speech.md"), &place).contains(&"ctc.toml"));
    let trained = call(&place, "run ctc.toml --run runs/ctc");
    assert!(!trained.err().contains("warning: "), "{}", trained.err());
    trained.succeeds();
    let results: Value = serde_json::from_slice(&place.read("runs/ctc/results.json")).unwrap();
    let wrong = results["test"]["metrics"]["word_error_rate"]["value"].as_f64().unwrap();
    assert!(wrong <= 30.0, "{results}");
    assert!(results["test"]["losses"]["ctc"].is_null(), "its loss is that of CTC: {results}");

    // The loss of the split is what `score` says of its rows.
    let scored = place.call("score runs/ctc --input data/mine/test.tsv --json").succeeds();
    let scored: Vec<Value> = scored.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let nats: f64 = scored.iter().map(|line| -line["log_prob"].as_f64().unwrap()).sum();
    let tokens: usize = scored.iter().map(|line| line["log_probs"].as_array().unwrap().len()).sum();
    let loss = results["test"]["losses"]["per_token"].as_f64().unwrap();
    assert!((loss - nats / tokens as f64).abs() < 1e-4, "{loss}, not {}", nats / tokens as f64);

    // What no path says is in no loss, for one model and for several, and is not right.
    let test = String::from_utf8(place.read("data/mine/test.tsv")).unwrap();
    place.write("data/mine/lost.tsv", format!("{test}sound/test-0.wav\t{}\tann\n", "abc".repeat(30)));
    let plain = place.call("evaluate runs/ctc").succeeds();
    for models in ["runs/ctc", "runs/ctc runs/ctc"] {
        let called = place.call(&format!("evaluate {models} --input data/mine/lost.tsv"));
        assert!(called.err().contains("1 of 31 sources have fewer steps of memory"), "{}", called.err());
        let table = called.succeeds();
        for label in ["loss_per_token", "loss_per_character", "perplexity"] {
            let (with, without) = (figure(&table, label), figure(&plain, label));
            assert!((with - without).abs() < 2e-3 * without, "{models}, {label}: {with}, not {without}");
        }
        let right = figure(&plain, "token_accuracy") * tokens as f64 / (tokens + 91) as f64;
        assert!((figure(&table, "token_accuracy") - right).abs() < 0.02, "{table}");
        assert_eq!((figure(&table, "without_path"), figure(&plain, "without_path")), (1.0, 0.0));
    }
    place.write("data/mine/nothing.tsv", format!("path\ttext\tspeaker\nsound/test-0.wav\t{}\tann\n", "abc".repeat(30)));
    let table = place.call("evaluate runs/ctc --input data/mine/nothing.tsv").succeeds();
    assert!(table.contains("word_error_rate") && !table.contains("loss") && !table.contains("NaN"), "{table}");

    // The best path is an answer too, and so is that of a model beside itself.
    let path = "--set search={replace=true,kind='best_path'}";
    let table = place.call(&format!("evaluate runs/ctc {path}")).succeeds();
    assert!(figure(&table, "word_error_rate") <= 40.0, "{table}");
    let predict = |words: &str| place.call(&format!("predict {words} --input data/mine/test.tsv")).succeeds();
    assert_eq!(predict("runs/ctc runs/ctc"), predict("runs/ctc"));
    assert_eq!(predict("runs/ctc --set search={replace=true,kind='greedy'}").lines().count(), 30);
    // Whatever the search, it tells when a word is said.
    for search in ["", path] {
        let told = place.call(&format!("transcribe runs/ctc data/mine/sound/test-0.wav --json {search}")).succeeds();
        let told: Value = serde_json::from_str(&told).unwrap();
        let time =
            |key: &str| told["answers"][0]["words"][0][key].as_f64().unwrap_or_else(|| panic!("no {key}: {told}"));
        assert!(time("start") < time("end") && time("confidence") > 0.0, "{told}");
    }
    let refused = place.call(&format!("predict runs/ctc runs/ctc --input data/mine/test.tsv {path}")).refuses();
    assert!(refused.contains("search.kind: each of several models has a CTC of its own"), "{refused}");
}

#[test]
fn a_training_that_is_paused_goes_on_as_if_it_had_not_been() {
    let place = Place::new();
    furnish(&place);
    write_configs(&page("speech.md"), &place);
    let run = "run ctc.toml --quiet --set train.epochs=2 --set train.checkpoint.every_steps=5 --run";
    call(&place, &format!("{run} runs/whole")).succeeds();
    call(&place, &format!("{run} runs/parts --pause-after-steps 7"));
    assert!(!place.path("runs/parts/model.safetensors").exists());
    call(&place, &format!("{run} runs/parts")).succeeds();
    assert!(place.read("runs/whole/model.safetensors") == place.read("runs/parts/model.safetensors"));
}

#[test]
fn what_does_not_fit_is_told() {
    let place = Place::new();
    furnish(&place);
    write_configs(&page("speech.md"), &place);
    let check = |file: &str, sets: &str| call(&place, &format!("check {file} {sets}"));
    let refused =
        place.call("check speech.toml --set search={replace=true,kind='best_path'} --set model.ctc.weight=0.5");
    refused.succeeds();
    let silent = "--set model={replace=true,source={kind='frames'}} --set search={replace=true,kind='best_path'}";
    let refused = place.call(&format!("check speech.toml {silent}")).refuses();
    assert!(refused.contains("the model has no CTC, whose best path it would be"), "{refused}");
    for (set, idle) in
        [("search.ctc_weight=0.5", "search.ctc_weight"), ("train.loss.label_smoothing=0.1", "label_smoothing")]
    {
        let called = check("ctc.toml", &format!("--set {set}"));
        let warned = called.err().lines().any(|line| line.contains(idle) && line.contains("has no effect"));
        assert!(warned, "{set}: {}", called.err());
        called.succeeds();
    }
}
