//! Answers to questions: one of some candidates, what is withheld, and figures over the values of a column.

use serde_json::Value;

use crate::place::{Place, pairs};

const CONFIG: &str = r#"
extends = "tiny.toml"

[data]
replace = true
kind = "table"
train = "train.csv"
validation = "validation.csv"
test = "test.csv"
source = "word"
target = "answer"
candidates = "candidates"

[evaluate]
metrics = [{ kind = "exact_match" }, { kind = "token_f1" }]
by = ["length"]
pass_mark = { exact_match = 1.0 }
no_answer = { kind = "fitted", accuracy = 90.0 }
"#;

/// Words, how long they are, what they say, and what else might be said.
fn rows(numbers: std::ops::Range<u32>) -> String {
    let row = |line: &str| {
        let (word, answer) = line.split_once('\t').unwrap();
        let back: String = answer.chars().rev().collect();
        format!("{word},{},{answer},\"{back}\n{answer}\n{answer} A\"\n", word.len())
    };
    format!("word,length,answer,candidates\n{}", pairs(numbers).lines().map(row).collect::<String>())
}

fn place() -> Place {
    let place = Place::new();
    for (split, numbers) in [("train", 0..600), ("validation", 600..640), ("test", 640..700)] {
        place.write(&format!("data/{split}.csv"), rows(numbers));
    }
    place.write("questions.toml", CONFIG);
    place
}

fn json(bytes: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn answers_are_candidates_and_withheld_where_the_model_is_not_sure() {
    let place = place();
    let out = place.call("run questions.toml").succeeds();
    let run = place.only_run();
    for label in ["coverage ", "selective_accuracy ", "aurc ", "no_answer_below ", "macro-average ", "passed "] {
        assert!(out.lines().any(|line| line.starts_with(label)), "{label}\n{out}");
    }
    let results: Value = serde_json::from_slice(&place.read(&format!("{run}/results.json"))).unwrap();
    let threshold = results["validation"]["selective"]["threshold"].as_f64().unwrap();
    assert_eq!(results["test"]["selective"]["threshold"], results["validation"]["selective"]["threshold"]);
    // On the validation split, what is given is as right as was asked for, unless nothing can be.
    assert!(results["validation"]["selective"]["coverage"].as_f64().unwrap() > 0.0);

    let answers = json(&place.read(&format!("{run}/predictions-test.jsonl")));
    let (mut given, mut right) = (0.0, 0.0);
    for answered in &answers {
        let best = &answered["answers"][0];
        let is_given = best["withheld"].is_null();
        let said = if is_given { &best["text"] } else { &best["withheld"] };
        assert!(answered["candidates"].as_array().unwrap().contains(said), "{answered}");
        assert_eq!(is_given, best["log_prob"].as_f64().unwrap().exp() >= threshold, "{answered}");
        assert!(is_given || best["text"] == "", "{answered}");
        given += f64::from(u8::from(is_given));
        // In exact matches an `A` is an article.
        let plain = |text: &Value| text.as_str().unwrap().split(' ').filter(|word| *word != "A").collect::<String>();
        let is_right = answered["references"].as_array().unwrap().iter().any(|right| plain(right) == plain(said));
        right += f64::from(u8::from(is_given && is_right));
    }
    let selective = &results["test"]["selective"];
    assert!((selective["coverage"].as_f64().unwrap() - 100.0 * given / answers.len() as f64).abs() < 1e-9);
    assert!((selective["accuracy"].as_f64().unwrap() - 100.0 * right / given).abs() < 1e-9);
    let exact = results["test"]["metrics"]["exact_match"]["value"].as_f64().unwrap();
    assert!((exact - 100.0 * right / answers.len() as f64).abs() < 1e-9, "what is withheld is not right");

    // All values count the same.
    let values = results["test"]["by"]["length"].as_array().unwrap();
    let sum: f64 = values.iter().map(|value| value["metrics"]["exact_match"].as_f64().unwrap()).sum();
    let over = &results["test"]["over_values"]["length"]["exact_match"];
    assert!((over["macro_average"].as_f64().unwrap() - sum / values.len() as f64).abs() < 1e-9);
    assert_eq!((&over["passed"]["of"], &over["passed"]["mark"]["at_least"]), (&values.len().into(), &1.0.into()));

    let page = String::from_utf8(place.read(&format!("{run}/report.html"))).unwrap();
    assert!(page.contains("Risk by coverage") && page.contains("macro-average"), "{page}");

    // The same answers to whoever asks, with the threshold of the run, or with another.
    place.call(&format!("evaluate {run}")).succeeds();
    let again: Value = serde_json::from_slice(&place.read(&format!("{run}/results.json"))).unwrap();
    assert_eq!(again, results);
    let asked = |words: &str| place.call(&format!("predict {words} --input data/test.csv --json"));
    let texts =
        |lines: &[Value]| -> Vec<Value> { lines.iter().map(|line| line["answers"][0]["text"].clone()).collect() };
    let of_run = json(asked(&run).succeeds().as_bytes());
    let by_word = |lines: &[Value]| -> std::collections::BTreeMap<String, Value> {
        let sources = lines.iter().map(|line| line["source"].as_str().unwrap().to_owned());
        sources.zip(texts(lines)).collect()
    };
    assert_eq!(by_word(&of_run), by_word(&answers));
    let answer = asked(&format!("{run}/model.safetensors")).refuses();
    assert!(answer.contains("`evaluate.no_answer` is chosen on the validation split"), "{answer}");
    // Of several together it is chosen anew, as no run knows it.
    let answer = asked(&format!("{run} {run}")).refuses();
    assert!(answer.contains("`evaluate.no_answer` is chosen on the validation split"), "{answer}");
    let out = place.call(&format!("evaluate {run} {run}")).succeeds();
    assert!(out.lines().any(|line| line.starts_with("no_answer_below ")), "{out}");
    let sets = |threshold: &str| {
        format!(
            " --set evaluate.no_answer.kind=below --set evaluate.no_answer.threshold={threshold} --set evaluate.no_answer.text=?"
        )
    };
    let all = json(asked(&format!("{run}/model.safetensors{}", sets("0.0"))).succeeds().as_bytes());
    assert!(texts(&all).iter().all(|text| text != "?" && text != ""));
    let none = json(asked(&format!("{run}{}", sets("1.0"))).succeeds().as_bytes());
    assert!(texts(&none).iter().filter(|text| *text == "?").count() > none.len() / 2);
    let chosen = " --set evaluate.no_answer.kind=fitted --set evaluate.no_answer.accuracy=0";
    let out = place.call(&format!("evaluate {run}{chosen}")).succeeds();
    let coverage = out.lines().find(|line| line.starts_with("coverage ")).unwrap();
    assert!(coverage.ends_with(" 100.00"), "{out}");
}

#[test]
fn rows_without_the_right_candidate_are_told() {
    let place = place();
    let rows = String::from_utf8(place.read("data/train.csv")).unwrap();
    place.write("data/train.csv", format!("{rows}abc,3,A B C,\"C\nA B\"\nabd,3,A B D,\n"));
    let answer = place.call("run questions.toml").refuses();
    assert!(answer.contains("the target `A B C` is not among its `candidates`"), "{answer}");
    assert!(answer.contains("`candidates` is empty"), "{answer}");
    let called = place.call("train questions.toml --set data.on_bad_line=skip --set train.epochs=1");
    let said = called.err();
    called.succeeds();
    assert!(said.contains("whose target is not among its `candidates`"), "{said}");
    let run = place.only_run();
    let none = "--set evaluate.no_answer.kind=never";
    let ask = |rows: &str, more: &str| {
        place.call_with(&format!("predict {run} {none} {more}"), format!("word,candidates\n{rows}"))
    };
    let answer = ask("abc,\n", "").refuses();
    assert!(answer.contains("line 2: `candidates` is empty") || answer.contains("`candidates` is empty"), "{answer}");
    let called = ask("abc,\nabd,B A\n", "--skip-bad");
    assert!(called.err().contains("1 line was not answered"), "{}", called.err());
    assert_eq!(called.succeeds(), "\nB A\n");
    // Words that it does not know can be said all the same.
    let called = ask("abc,X Y\n", "");
    assert!(called.err().contains("1 of 1 candidates hold a token that the model does not know"), "{}", called.err());
    assert_eq!(called.succeeds(), "X Y\n");
    let answer = place.call("check questions.toml --set data.candidates=answer").refuses();
    assert!(answer.contains("data.candidates") && answer.contains("is the column of the targets"), "{answer}");
}

/// Rows of dialogs of three turns, with what is named in them: JSON lines.
fn turns(numbers: std::ops::Range<u32>) -> String {
    let row = |(i, line): (usize, &str)| {
        let (word, answer) = line.split_once('\t').unwrap();
        let (names, dialog) = (answer.split(' ').collect::<Vec<_>>(), format!("d{}", i / 3));
        let row = serde_json::json!({
            "dialog": dialog, "word": word, "answer": answer, "entities": names, "seen": (i % 2).to_string(),
        });
        format!("{row}\n")
    };
    pairs(numbers).lines().enumerate().map(row).collect()
}

#[test]
fn replies_are_judged_by_dialogs_entities_and_how_much_they_differ() {
    let place = Place::new();
    for (split, numbers) in [("train", 0..600), ("validation", 600..640), ("test", 640..700)] {
        place.write(&format!("data/{split}.jsonl"), turns(numbers));
    }
    let config = r#"
extends = "tiny.toml"

[data]
replace = true
kind = "table"
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
source = "word"
target = "answer"

[evaluate]
metrics = [
    { kind = "response_accuracy" }, { kind = "dialog_accuracy" }, { kind = "entity_f1" },
    { kind = "distinct" }, { kind = "distinct", order = 2 }, { kind = "mean_length" }, { kind = "repeated_replies" },
    { kind = "bleu", order = 2, lowercase = true },
]
by = ["seen"]
"#;
    place.write("dialogs.toml", config);
    let out = place.call("run dialogs.toml").succeeds();
    let run = place.only_run();
    let results: Value = serde_json::from_slice(&place.read(&format!("{run}/results.json"))).unwrap();
    let test = &results["test"]["metrics"];
    let answers = json(&place.read(&format!("{run}/predictions-test.jsonl")));
    let said = |answered: &Value| answered["answers"][0]["text"].as_str().unwrap().to_owned();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let is_right = |answered: &Value| {
        let references = answered["references"].as_array().unwrap();
        references.iter().any(|reference| words(reference.as_str().unwrap()) == words(&said(answered)))
    };
    let mut dialogs = std::collections::BTreeMap::<String, bool>::new();
    for answered in &answers {
        for dialog in answered["columns"]["dialog"].as_array().unwrap() {
            *dialogs.entry(dialog.to_string()).or_insert(true) &= is_right(answered);
        }
    }
    let share = |all: &mut dyn ExactSizeIterator<Item = bool>| {
        let count = all.len() as f64;
        100.0 * all.filter(|&right| right).count() as f64 / count
    };
    let value = |label: &str| test[label]["value"].as_f64().unwrap_or_else(|| panic!("{label} {results}"));
    let is_near =
        |label: &str, expected: f64| assert!((value(label) - expected).abs() < 1e-9, "{label} {expected} {test}");
    is_near("response_accuracy", share(&mut answers.iter().map(is_right)));
    is_near("dialog_accuracy", share(&mut dialogs.values().copied()));
    let texts: Vec<String> = answers.iter().map(|answered| words(&said(answered)).join(" ")).collect();
    let again = |text: &String| texts.iter().filter(|other| *other == text).count() > 1;
    is_near("repeated_replies", share(&mut texts.iter().map(again)));
    is_near("mean_length", texts.iter().map(|text| words(text).len()).sum::<usize>() as f64 / texts.len() as f64);
    // All that is said is known to be a name, or is none at all.
    let parts = &test["entity_f1"]["parts"];
    let known: std::collections::BTreeSet<String> =
        answers.iter().flat_map(|answered| words(answered["references"][0].as_str().unwrap())).collect();
    assert_eq!(parts["known"].as_u64().unwrap() as usize, known.len());
    for label in ["distinct_1", "distinct_2", "bleu", "entity_f1"] {
        assert!((0.0..=100.0).contains(&value(label)), "{label}");
        assert!(out.lines().any(|line| line.starts_with(label)), "{label}\n{out}");
    }
    // The same of the rows that are seen, by themselves.
    let by = results["test"]["by"]["seen"].as_array().unwrap();
    assert_eq!(by.len(), 2);
    for of in by {
        let those: Vec<bool> = answers
            .iter()
            .filter(|answered| answered["columns"]["seen"].as_array().unwrap().contains(&of["value"]))
            .map(is_right)
            .collect();
        let figure = of["metrics"]["response_accuracy"].as_f64().unwrap();
        assert!((figure - share(&mut those.into_iter())).abs() < 1e-9);
        assert!(of["metrics"]["distinct_2"].is_number() && of["metrics"]["dialog_accuracy"].is_number());
    }
    // A file without these columns is measured by the others.
    place.write("bare.jsonl", "{\"word\": \"abc\", \"answer\": \"A B C\"}\n");
    let called = place.call(&format!("evaluate {run} --input bare.jsonl"));
    let err = called.err();
    let out = called.succeeds();
    assert!(out.contains("response_accuracy") && !out.contains("dialog_accuracy"), "{out}");
    let warning = "bare.jsonl: has no column `dialog`, which `dialog_accuracy` needs: it is left out";
    assert!(err.contains(warning), "{err}");
    // What judges no answer by itself chooses no threshold.
    let answer = place
        .call("check dialogs.toml --set evaluate.no_answer.kind=fitted --set evaluate.metrics=[{kind='distinct'}]");
    assert!(answer.refuses().contains("judges no answer by itself"));
    let answer = place.call("check tiny.toml --set evaluate.metrics=[{kind='dialog_accuracy'}]");
    assert!(answer.refuses().contains("only a table has columns"));
}
