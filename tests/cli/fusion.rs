//! A language model in the search: what answers are ranked by is what both say, and what does not fit is told.

use std::sync::OnceLock;

use serde_json::Value;

use crate::guide::{blocks, follow, page, write_cargo, write_configs};
use crate::place::Place;

/// A language model of a table's targets.
const LANGUAGE_MODEL: &str = r#"
threads = 1
[data]
kind = "text"
column = "target"
columns = ["source", "target"]
train = "train.tsv"
validation = "validation.tsv"
[tokenizer.target]
kind = "word"
[model]
kind = "language_model"
target = { kind = "embedding", size = 8 }
decoder = { kind = "gru", hidden = 12 }
[batch]
kind = "sentences"
count = 64
[train]
epochs = 3
optimizer = { kind = "adam", learning_rate = 1e-2 }
"#;

/// A model that answers, and a language model of its answers.
fn company() -> &'static Place {
    static COMPANY: OnceLock<Place> = OnceLock::new();
    COMPANY.get_or_init(|| {
        let place = Place::new();
        place.write("lm.toml", LANGUAGE_MODEL);
        place.call("run lm.toml --run runs/lm").succeeds();
        place.call("run tiny.toml --run runs/tiny --set train.epochs=1").succeeds();
        place
    })
}

const SOURCES: &str = "abcd\ncab\ndd\nbadb\n";

/// Text, score and log-probability of each answer to each source.
fn answers(place: &Place, words: &str) -> Vec<Vec<(String, f64, f64)>> {
    let out = place.call_with(&format!("predict runs/tiny --json {words}"), SOURCES).succeeds();
    let number = |answer: &Value, key: &str| answer[key].as_f64().expect("a number");
    let answer = |answer: &Value| {
        let text = answer["text"].as_str().expect("a text").to_owned();
        (text, number(answer, "score"), number(answer, "log_prob"))
    };
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        line["answers"].as_array().expect("answers").iter().map(answer).collect()
    };
    out.lines().map(line).collect()
}

/// What the language model says of a text.
fn of_language_model(place: &Place, text: &str) -> f64 {
    let out = place.call_with("score runs/lm", format!("x\t{text}\n")).succeeds();
    out.trim().parse().unwrap_or_else(|e| panic!("{e}: {out}"))
}

#[test]
fn an_answer_is_worth_what_both_say() {
    let place = company();
    let with = |weight: &str| format!("--set search.language_model={{model='runs/lm',weight={weight}}}");
    let bare = "--set search.length_penalty={replace=true,kind='none'}";
    let plain = answers(place, bare);
    assert_eq!(answers(place, &format!("{bare} {}", with("0.0"))), plain);
    assert!(plain.iter().flatten().all(|(_, score, log_prob)| score == log_prob));
    for search in [bare, "--set search={replace=true,kind='greedy'}"] {
        for weight in [0.5, 3.0] {
            let found = answers(place, &format!("{search} {}", with(&weight.to_string())));
            for (text, score, log_prob) in found.iter().flatten() {
                let expected = log_prob + weight * of_language_model(place, text);
                assert!((score - expected).abs() < 1e-3, "{text}: {score}, not {expected}");
            }
            // How many are asked at once changes nothing.
            let rows = answers(place, &format!("{search} {} --set evaluate.rows=1", with(&weight.to_string())));
            assert_eq!(rows, found);
        }
    }
    // What is so likely there is said whatever is asked.
    let loud = answers(place, &format!("{bare} {}", with("100.0")));
    assert_ne!(loud, plain);
}

/// The file of the language model is a part of what a run is.
#[test]
fn a_run_knows_which_language_model_it_was_searched_with() {
    let place = company();
    let search = "--set search.language_model={model='runs/lm',weight=0.4}";
    place.call(&format!("run tiny.toml --run runs/fused --set train.epochs=1 {search}")).succeeds();
    let manifest: Value = serde_json::from_slice(&place.read("runs/fused/manifest.json")).unwrap();
    let own = manifest["data"]["runs/lm/model.safetensors"].as_str().expect("its digest").to_owned();
    let results = place.read("runs/fused/results.json");
    place.call("evaluate runs/fused").succeeds();
    // Another one in its place.
    place.write("kept", place.read("runs/lm/model.safetensors"));
    place.call("run lm.toml --run runs/other --set seed=2 --set train.epochs=1").succeeds();
    let other = place.read("runs/other/model.safetensors");
    let config = String::from_utf8(place.read("runs/fused/config.toml")).unwrap();
    assert!(config.contains("runs/lm") && own.len() == 64, "{config}");
    let fused = "evaluate runs/fused --set search.language_model.model=runs/other";
    place.call(fused).succeeds();
    assert_eq!(place.read("runs/fused/results.json"), results, "what was changed is not the run's");
    let copied = Place::new();
    for file in ["config.toml", "manifest.json", "results.json", "model.safetensors", "tokenizers.json"] {
        copied.write(&format!("runs/fused/{file}"), place.read(&format!("runs/fused/{file}")));
    }
    copied.write("runs/lm/model.safetensors", other);
    let called = copied.call("evaluate runs/fused");
    assert!(called.err().contains("runs/lm/model.safetensors: is not the file that the run read"), "{}", called.err());
    called.succeeds();
    assert_eq!(copied.read("runs/fused/results.json"), results);
}

#[test]
fn what_does_not_fit_is_told() {
    let place = company();
    let refused = |model: &str| {
        place.call_with(&format!("predict runs/tiny --set search.language_model.model={model}"), SOURCES).refuses()
    };
    let missing = refused("runs/nowhere");
    assert!(missing.contains("runs/nowhere") && missing.contains("search.language_model.model"), "{missing}");
    assert!(missing.contains("search.language_model.weight=0"), "{missing}");
    assert!(refused("runs/tiny").contains("answers sources, and is no language model"));
    let of_letters = "--set tokenizer.target.kind=character --set train.epochs=1";
    place.call(&format!("run lm.toml --run runs/words --set data.column=source {of_letters}")).succeeds();
    let letters = refused("runs/words");
    assert!(letters.contains("does not know 4 of 4 target tokens (`"), "{letters}");
    assert!(letters.contains("kind = \"model\""), "{letters}");
    // The tokens of the model that it is to help.
    let like = "--set tokenizer.target={replace=true,kind='model',model='runs/tiny'}";
    place.call(&format!("run lm.toml --run runs/like --set train.epochs=1 {like}")).succeeds();
    place.call_with("predict runs/tiny --set search.language_model.model=runs/like", SOURCES).succeeds();
    let source = "--set tokenizer.target={replace=true,kind='model',model='runs/lm'} --set tokenizer.source={replace=true,kind='model',model='runs/lm'}";
    let lacks = place.call(&format!("run tiny.toml {source}")).refuses();
    assert!(lacks.contains("tokenizer.source") && lacks.contains("it has those of `target`"), "{lacks}");
    // Before a training, not behind it.
    let early = place.call("run tiny.toml --run runs/early --set search.language_model.model=runs/words").refuses();
    assert!(early.contains("does not know 4 of 4") && !place.path("runs/early").exists(), "{early}");
    let check = place.call("check tiny.toml --data-dir data --set search.language_model.model=runs/words").refuses();
    assert!(check.contains("does not know 4 of 4"), "{check}");
}

/// Each combination is answered as `evaluate` answers it, and the best is said as a config has it.
#[test]
fn settings_of_the_search_are_chosen_on_the_validation_split() {
    let place = company();
    let fixed = "--set search.language_model.model=runs/lm";
    let axes = "--set search.width=1,4 --set search.language_model.weight=0,0.5,50";
    let called = place.call(&format!("tune runs/tiny {fixed} {axes} --metric phone_error_rate"));
    let told = called.succeeds();
    let rows: Vec<Vec<&str>> = told
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| row.len() == 8 && row[4] == "to")
        .collect();
    assert_eq!(rows.len(), 6, "{told}");
    let evaluated = |width: &str, weight: &str| {
        let sets = format!("{fixed} --set search.width={width} --set search.language_model.weight={weight}");
        let table = place.call(&format!("evaluate runs/tiny --split validation {sets}")).succeeds();
        let line = table.lines().find(|line| line.starts_with("phone_error_rate ")).expect("a figure").to_owned();
        line.split_whitespace().nth(1).expect("a number").to_owned()
    };
    let number = |text: &str| text.parse::<f64>().unwrap_or_else(|e| panic!("{e}: {text}"));
    for row in &rows {
        assert_eq!(row[2], evaluated(row[0], row[1]), "{told}");
        assert!(number(row[3]) <= number(row[2]) && number(row[2]) <= number(row[5]), "{told}");
    }
    let best: Vec<_> = rows.iter().filter(|row| row[6] == "best").collect();
    let least = rows.iter().map(|row| number(row[2])).fold(f64::INFINITY, f64::min);
    assert_eq!((best.len(), number(best[0][2])), (1, least), "{told}");
    // As a config has it.
    let lines = told.split_once("in a config:\n\n").expect("its lines").1.split("\nnext ").next().unwrap();
    place.write("best.toml", format!("extends = \"tiny.toml\"\n{lines}"));
    place.call("check best.toml").succeeds();
    assert!(lines.contains(&format!("width = {}", best[0][0])), "{lines}");
    assert_eq!(lines.contains("runs/lm"), best[0][1] != "0", "{told}");
    // And as it is reported on.
    let next = told.lines().find_map(|line| line.strip_prefix("next ")).expect("a command");
    let words = next.split_once(" evaluate ").expect("what measures").1;
    place.call(&format!("evaluate {words}")).succeeds();
    for (words, says) in [
        ("tune runs/tiny", "several values"),
        ("tune runs/tiny --set model.decoder.hidden=2,3", "`sweep` does that"),
        ("tune runs/tiny --set search.width=2,3 --metric bleu", "are judged by no `bleu`"),
        ("tune runs/lm --set search.width=2,3", "is a language model"),
        ("tune runs/tiny --set search.width=2,wide", "search.width"),
    ] {
        let refused = place.call(words).refuses();
        assert!(refused.contains(says), "{words}: {refused}");
    }
}

/// What changes nothing is no choice, and a language model without a say is none.
#[test]
fn a_setting_that_changes_no_answer_is_not_chosen() {
    let place = company();
    let fixed = "--set search.language_model.model=runs/lm";
    let tune = |sets: &str| place.call(&format!("tune runs/tiny {fixed} {sets}")).succeeds();
    // Nothing at all: the weights are as good as none.
    let told = tune("--set search.language_model.weight=1e-12,1e-13 --set search.width=3,3");
    for key in ["search.language_model.weight", "search.width"] {
        assert!(told.contains(&format!("`{key}` changes no answer\n")), "{told}");
    }
    assert!(told.ends_with("leave the search as the model has it\n"), "{told}");
    assert!(!told.contains("next ") && !told.contains("best,") && told.matches(" same ").count() == 4, "{told}");
    // The model itself has one value, which nothing was held against.
    let told = tune("--set search.language_model.weight=0.5 --set search.width=3,3");
    assert!(told.contains("`search.width` changes no answer\n") && !told.contains("as the model has it"), "{told}");
    assert!(told.contains("search.language_model.weight=0.5") && told.contains("next "), "{told}");
    // One of two, and the plain search is as good as the other.
    let told = tune("--set search.language_model.weight=1e-12,0 --set search.max_length.limit=1,40");
    assert!(told.contains("`search.language_model.weight` changes no answer\n"), "{told}");
    assert!(
        told.contains("the search is best without a language model: leave `search.language_model` out\n"),
        "{told}"
    );
    let row = told.lines().find(|line| line.split_whitespace().nth_back(1) == Some("best")).expect("the best");
    let [weight, limit] = [0, 1].map(|column| row.split_whitespace().nth(column).expect("a value"));
    assert_eq!(weight, "0", "{told}");
    let (_, suggested) = told.split_once("in a config:\n").expect("its lines");
    assert!(suggested.contains(&format!("limit = {limit}\n")) && !suggested.contains("language_model"), "{told}");
    let next = told.lines().find_map(|line| line.strip_prefix("next ")).expect("a command");
    let words = next.split_once(" evaluate ").expect("what measures").1;
    place.call(&format!("evaluate {words}")).succeeds();
    // Where the model has one itself, it is turned off.
    let own = "--set search.language_model={model='runs/lm',weight=50}";
    place.call(&format!("run tiny.toml --run runs/loud --set train.epochs=8 {own}")).succeeds();
    let told = place.call("tune runs/loud --set search.language_model.weight=0,50").succeeds();
    let row = told.lines().find(|line| line.split_whitespace().nth_back(1) == Some("best")).expect("the best");
    assert!(row.trim_start().starts_with("0 ") && !told.contains("in a config"), "{told}");
    let next = told.lines().find_map(|line| line.strip_prefix("next ")).expect("a command");
    assert!(next.ends_with(" --set search.language_model.weight=0"), "{told}");
}

/// The guide's own language model, over what is said in recordings.
#[test]
fn the_guide_can_be_followed() {
    let (page, place) = (page("speech.md"), Place::new());
    crate::speech::furnish(&place);
    write_cargo(&place);
    let files = write_configs(&page, &place);
    assert!(files.contains(&"lm.toml"), "{files:?}");
    let train = crate::speech::SMALL.iter().map(|&(key, value)| match key {
        "ANTIPHON__TRAIN__EPOCHS" => (key, "1"),
        _ => (key, value),
    });
    let train: Vec<_> = train.collect();
    follow(&place, "cargo xtask run speech.toml --run runs/mine", &train);
    let own = blocks(&page, "sh").into_iter().skip_while(|block| !block.contains("lm.toml"));
    let own: String = own.take(2).collect();
    assert!(own.contains(" tune "), "{own}");
    let small = [("ANTIPHON__THREADS", "1"), ("ANTIPHON__TRAIN__EPOCHS", "1")];
    for line in own.lines() {
        let is_training = line.contains(" run ");
        follow(&place, line, if is_training { &small } else { &[] });
    }
}
