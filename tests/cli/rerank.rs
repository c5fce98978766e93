//! Answers that are ranked anew by a model that says their source, and by a language model: what they are worth, how the weights are
//! chosen, and what does not fit is told.

use std::sync::OnceLock;

use serde_json::Value;

use crate::place::Place;

/// A model that answers what the other asks, and a language model of the answers, each of the same rows.
const REVERSE: &str = "--set data={replace=true,kind='table',train='train.tsv',validation='validation.tsv',columns=['source','target'],\
                       source='target',target='source'}";
const LANGUAGE_MODEL: &str = r#"
threads = 1
[data]
kind = "text"
column = "target"
columns = ["source", "target"]
train = "train.tsv"
validation = "validation.tsv"
[tokenizer.target]
kind = "character"
[model]
kind = "language_model"
target = { kind = "embedding", size = 8 }
decoder = { kind = "gru", hidden = 12 }
[batch]
kind = "sentences"
count = 64
[train]
epochs = 1
optimizer = { kind = "adam", learning_rate = 1e-2 }
"#;

const SOURCES: &str = "abcd\ncab\ndd\nbadb\n";

fn company() -> &'static Place {
    static COMPANY: OnceLock<Place> = OnceLock::new();
    COMPANY.get_or_init(|| {
        let place = Place::new();
        place.write("lm.toml", LANGUAGE_MODEL);
        place.call("run lm.toml --run runs/lm").succeeds();
        place.call("run tiny.toml --run runs/tiny --set train.epochs=1").succeeds();
        place.call(&format!("run tiny.toml --run runs/reverse --set train.epochs=8 {REVERSE}")).succeeds();
        place
    })
}

fn answers(place: &Place, words: &str) -> Vec<Vec<Value>> {
    let out = place.call_with(&format!("predict runs/tiny --json {words}"), SOURCES).succeeds();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        line["answers"].as_array().expect("answers").clone()
    };
    out.lines().map(line).collect()
}

/// What a model says of a row.
fn said(place: &Place, model: &str, source: &str, target: &str) -> f64 {
    let out = place.call_with(&format!("score {model}"), format!("{source}\t{target}\n")).succeeds();
    out.trim().parse().unwrap_or_else(|e| panic!("{e}: {out}"))
}

#[test]
fn an_answer_is_worth_what_all_say() {
    let place = company();
    let models = "--set rerank.reverse=runs/reverse --set rerank.language_model=runs/lm --set rerank.candidates=4";
    let weights =
        "--set rerank.reverse_weight=0.7 --set rerank.language_model_weight=0.2 --set rerank.length_bonus=0.3";
    let number = |answer: &Value, key: &str| answer[key].as_f64().unwrap_or_else(|| panic!("{key} of {answer}"));
    let found = answers(place, &format!("{models} {weights} --n-best 3"));
    for (answers, source) in found.iter().zip(SOURCES.lines()) {
        assert_eq!(answers.len(), 3);
        assert!(answers.is_sorted_by(|a, b| number(a, "score") >= number(b, "score")));
        for answer in answers {
            let (reverse, beside) = (number(answer, "reverse_log_prob"), number(answer, "language_model_log_prob"));
            let text = answer["text"].as_str().unwrap();
            let expected = number(answer, "log_prob") + 0.7 * reverse - 0.2 * beside + 0.3 * number(answer, "length");
            assert!((number(answer, "score") - expected).abs() < 1e-6, "{answer}");
            assert!((said(place, "runs/reverse", source, text) - reverse).abs() < 1e-3, "{answer}");
            assert!((said(place, "runs/lm", "x", text) - beside).abs() < 1e-3, "{answer}");
        }
    }
    // Whoever gives one gives the first of them, however many sources are asked at once.
    let first: Vec<&Value> = found.iter().map(|answers| &answers[0]).collect();
    let alone = answers(place, &format!("{models} {weights} --set evaluate.rows=1"));
    assert_eq!(alone.iter().map(|answers| &answers[0]).collect::<Vec<_>>(), first);
    assert!(alone.iter().all(|answers| answers.len() == 1));
    // Of the first tokens alone a language model says less.
    let short = answers(place, &format!("{models} --set rerank.language_model_tokens=1 --n-best 4"));
    let long = answers(place, &format!("{models} --n-best 4"));
    let of = |all: &[Vec<Value>], text: &Value| {
        let answer = all.iter().flatten().find(|answer| answer["text"] == *text);
        answer.map(|answer| number(answer, "language_model_log_prob"))
    };
    let pairs =
        long.iter().flatten().filter_map(|answer| Some((of(&long, &answer["text"])?, of(&short, &answer["text"])?)));
    assert!(pairs.clone().count() > 0 && pairs.clone().all(|(long, short)| long < short));
    // What draws is ranked too, and no model is read that has no weight.
    let drawn = answers(
        place,
        "--set search={replace=true,kind='sample',seed=3} --set rerank={reverse='runs/nowhere',reverse_weight=0.0}",
    );
    assert!(drawn.iter().all(|answers| answers.len() == 1 && answers[0].get("reverse_log_prob").is_none()));
}

/// The weights that are chosen give the figures that a run with them has.
#[test]
fn weights_are_chosen_by_answers_that_are_searched_once() {
    let place = company();
    let metrics = "--set evaluate.metrics=[{kind='character_error_rate'},{kind='distinct',order=2}]";
    let tried = "--set rerank.reverse=runs/reverse --set rerank.candidates=4 --set rerank.reverse_weight=0,1,20";
    let out = place.call(&format!("tune runs/tiny {metrics} {tried}")).succeeds();
    let table: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    let row = |value: &str| {
        let row = table.iter().find(|row| row.len() > 4 && row[0] == value);
        row.unwrap_or_else(|| panic!("{value}\n{out}")).clone()
    };
    for value in ["0", "1", "20"] {
        let of = format!("evaluate runs/tiny --split validation {metrics} --set rerank.reverse=runs/reverse");
        let out = place.call(&format!("{of} --set rerank.candidates=4 --set rerank.reverse_weight={value}")).succeeds();
        let figure = |label: &str| {
            let line = out.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("{label}\n{out}"));
            line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()
        };
        let told = row(value);
        assert!((told[1].parse::<f64>().unwrap() - figure("character_error_rate")).abs() < 0.006, "{told:?}\n{out}");
        assert!((told.last().unwrap().parse::<f64>().unwrap() - figure("distinct_2")).abs() < 0.006, "{told:?}\n{out}");
    }
    assert!(!out.contains("changes no answer"), "{out}");
    // The best by one of those that lose little by the other.
    let best = |words: &str| -> (f64, f64) {
        let out = place.call(&format!("tune runs/tiny {metrics} {tried} {words}")).succeeds();
        let row = out
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|row| row.len() == 7 && row[5] == "best");
        let row = row.unwrap_or_else(|| panic!("{out}"));
        (row[1].parse().unwrap(), row.last().unwrap().parse().unwrap())
    };
    let all: Vec<(f64, f64)> = ["0", "1", "20"]
        .map(|value| {
            let row = row(value);
            (row.last().unwrap().parse().unwrap(), row[1].parse().unwrap())
        })
        .to_vec();
    let least = all.iter().map(|(_, errors)| *errors).fold(f64::INFINITY, f64::min);
    let most = all.iter().map(|(distinct, _)| *distinct).fold(0.0, f64::max);
    let among = |percent: f64| {
        let close = all.iter().filter(|(_, errors)| *errors <= least * (1.0 + percent / 100.0) + 1e-9);
        close.map(|(distinct, _)| *distinct).fold(0.0, f64::max)
    };
    assert_eq!(best("--metric distinct_2 --within character_error_rate=0").0, among(0.0));
    assert_eq!(best("--metric distinct_2 --within character_error_rate=100").0, among(100.0));
    assert_eq!(best("--metric distinct_2").0, most);
    for (within, fault) in
        [("bleu=10", "judged by no `bleu`"), ("distinct_2", "lacks its percent"), ("distinct_2=-1", "no percentage")]
    {
        let refused = place.call(&format!("tune runs/tiny {metrics} {tried} --within {within}")).refuses();
        assert!(refused.contains(fault) && refused.contains("--within"), "{refused}");
    }
}

/// The files of these models are a part of what a run is, and a run shows the answers that it gave.
#[test]
fn a_run_knows_by_which_models_its_answers_were_ranked() {
    let place = company();
    let rerank = "--set rerank={reverse='runs/reverse',reverse_weight=2.0,candidates=5}";
    place.call(&format!("run tiny.toml --run runs/ranked --set train.epochs=1 {rerank}")).succeeds();
    let manifest: Value = serde_json::from_slice(&place.read("runs/ranked/manifest.json")).unwrap();
    assert!(manifest["data"]["runs/reverse/model.safetensors"].is_string(), "{manifest}");
    let page = String::from_utf8(place.read("runs/ranked/report.html")).unwrap();
    let predictions = String::from_utf8(place.read("runs/ranked/predictions-test.jsonl")).unwrap();
    let first: Value = serde_json::from_str(predictions.lines().next().unwrap()).unwrap();
    assert!(page.contains(first["answers"][0]["text"].as_str().unwrap()));
    assert!(first["answers"][0]["reverse_log_prob"].is_number(), "{first}");
    let results = place.read("runs/ranked/results.json");
    place.call("evaluate runs/ranked").succeeds();
    let same = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap()["test"].clone();
    assert_eq!(same(&place.read("runs/ranked/results.json")), same(&results));
}

#[test]
fn what_does_not_fit_is_told() {
    let place = company();
    let refused = |set: &str| place.call_with(&format!("predict runs/tiny --set {set}"), SOURCES).refuses();
    let missing = refused("rerank.reverse=runs/nowhere");
    assert!(missing.contains("runs/nowhere") && missing.contains("rerank.reverse_weight=0"), "{missing}");
    assert!(refused("rerank.reverse=runs/lm").contains("is a language model, which answers no sources"));
    assert!(refused("rerank.language_model=runs/tiny").contains("answers sources, and is no language model"));
    let one =
        place.call("check tiny.toml --set search={replace=true,kind='greedy'} --set rerank.length_bonus=0.1").refuses();
    assert!(one.contains("has one answer, and none to rank beside it") && one.contains("rerank"), "{one}");
    let text = place.call("check lm.toml --set rerank.length_bonus=0.1").refuses();
    assert!(text.contains("has no sources to answer"), "{text}");
    // Before a training, not behind it.
    let early = place.call("run tiny.toml --run runs/early --set rerank.reverse=runs/lm").refuses();
    assert!(early.contains("answers no sources") && !place.path("runs/early").exists(), "{early}");
    let idle = place.call("check tiny.toml --set rerank={reverse='runs/nowhere',reverse_weight=0.0}");
    let err = idle.err();
    assert!(err.contains("rerank.reverse") && err.contains("`reverse_weight` is 0"), "{err}");
}
