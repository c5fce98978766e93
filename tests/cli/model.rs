//! Answers of a trained model.

use std::io::{BufRead, BufReader, Write};

use serde_json::Value;

use crate::place::{Place, finished};

/// Some sources of the test split.
fn sources() -> Vec<String> {
    let text = String::from_utf8(finished().0.read("data/test.tsv")).unwrap();
    text.lines().take(20).map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[test]
fn a_model_file_answers_alone_and_anywhere() {
    let (place, run, _) = finished();
    let elsewhere = Place::new();
    elsewhere.write("m/model.safetensors", place.read(&format!("{run}/model.safetensors")));
    std::fs::remove_dir_all(elsewhere.path("data")).unwrap();
    let input = sources().join("\n");
    let answers = elsewhere.call_with("predict m/model.safetensors", &input).succeeds();
    assert_eq!(answers.lines().count(), sources().len());
    for what in [run.as_str(), run.strip_prefix("runs/").unwrap(), "tiny.toml"] {
        assert_eq!(place.call_with(&format!("predict {what}"), &input).succeeds(), answers, "{what}");
    }
    // They are the answers that the run wrote.
    let text = String::from_utf8(place.read(&format!("{run}/predictions-test.jsonl"))).unwrap();
    let written: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (source, answer) in sources().iter().zip(answers.lines()) {
        let found = written.iter().find(|w| w["source"] == source.as_str()).expect("an answer to every source");
        assert_eq!(found["answers"][0]["text"], answer, "{source}");
    }
}

#[test]
fn files_and_streams_are_answered_alike_and_in_order() {
    let (place, run, _) = finished();
    let scratch = Place::new();
    let lines: Vec<String> = (0..60).flat_map(|_| sources()).collect();
    scratch.write("in.txt", lines.join("\r\n"));
    let file = scratch.path("in.txt");
    let out = scratch.path("out.txt");
    let words = format!("predict {run} --input {} --output {}", file.display(), out.display());
    assert_eq!(place.call(&words).succeeds(), "");
    let streamed = place.call_with(&format!("predict {run}"), lines.join("\n")).succeeds();
    assert_eq!(String::from_utf8(scratch.read("out.txt")).unwrap(), streamed);
    assert_eq!(streamed.lines().count(), lines.len());
    let words = format!("predict {run} --input {0} --output {0}", file.display());
    assert!(place.call(&words).refuses().ends_with("is the input too; write the answers to another file"));
    assert!(!scratch.read("in.txt").is_empty());
}

#[test]
fn a_line_is_answered_before_the_next_one_comes() {
    let (place, run, _) = finished();
    let mut child = place.start(&format!("predict {run}"));
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut answers = BufReader::new(output).lines();
    for source in ["abc", "dcba", "a"] {
        writeln!(input, "{source}").unwrap();
        input.flush().unwrap();
        // Would wait for ever if the program waited for more.
        assert!(answers.next().unwrap().is_ok());
    }
    drop(input);
    assert!(answers.next().is_none());
    assert!(child.wait().unwrap().success());
}

#[test]
fn n_best_answers_are_json_lines_best_first() {
    let (place, run, _) = finished();
    let words = format!("predict {run} --n-best 3 --set search.width=6");
    let out = place.call_with(&words, "abc\ndd\n").succeeds();
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|l| l["source"].as_str().unwrap()).collect::<Vec<_>>(), ["abc", "dd"]);
    for line in &lines {
        let answers = line["answers"].as_array().unwrap();
        let scores: Vec<f64> = answers.iter().map(|a| a["score"].as_f64().unwrap()).collect();
        assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a >= b), "{line}");
        assert!(answers.iter().all(|a| a["text"].is_string() && a["finished"].is_boolean()), "{line}");
        assert!(answers.iter().all(|a| a["log_prob"].as_f64().unwrap() <= 0.0), "{line}");
    }
}

#[test]
fn an_answer_that_is_scored_is_as_probable_as_the_search_found_it() {
    let (place, run, _) = finished();
    let out = place.call_with(&format!("predict {run} --n-best 3"), "abc\ndd\nabcda\n").succeeds();
    let mut pairs = Vec::new();
    for line in out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let answers = line["answers"].as_array().unwrap().iter().filter(|answer| answer["finished"] == true);
        pairs.extend(answers.map(|answer| {
            let (source, text) = (line["source"].as_str().unwrap(), answer["text"].as_str().unwrap());
            (format!("{source}\t{text}\n"), answer["log_prob"].as_f64().unwrap())
        }));
    }
    assert!(pairs.len() > 3, "{out}");
    let input: String = pairs.iter().map(|(line, _)| line.as_str()).collect();
    let scores = place.call_with(&format!("score {run}"), &input).succeeds();
    let json = place.call_with(&format!("score {run} --json"), &input).succeeds();
    assert_eq!(scores.lines().count(), pairs.len());
    for ((score, json), (line, log_prob)) in scores.lines().zip(json.lines()).zip(&pairs) {
        assert!((score.parse::<f64>().unwrap() - log_prob).abs() < 1e-4, "{line}{score} {log_prob}");
        let json: Value = serde_json::from_str(json).unwrap();
        let tokens = json["tokens"].as_array().unwrap().len();
        assert_eq!(tokens, line.split('\t').nth(1).unwrap().split_whitespace().count() + 1, "{json}");
        let sum: f64 = json["log_probs"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).sum();
        assert!((sum - log_prob).abs() < 1e-4 && json["log_prob"].as_f64() == score.parse().ok(), "{json}");
    }
    for bad in ["abc\n", "abc\tA\n\n", "\tA\n"] {
        let answer = place.call_with(&format!("score {run}"), bad).refuses();
        assert!(answer.starts_with("error: standard input: line "), "{answer}");
    }
}

#[test]
fn lines_that_cannot_be_answered_stop_or_are_counted() {
    let (place, run, _) = finished();
    let long = [b"ab\n".as_slice(), &[b'a'; 1_000_001], b"\nab\n"].concat();
    let inputs: [(&[u8], &str); 4] = [
        (b"ab\n\nab\n", "line 2: is empty"),
        (b"ab\na\xFF\nab\n", "line 2: byte 2 is not UTF-8"),
        (&long, "line 2: is longer than 1000000 bytes"),
        (&[b"ab\n".as_slice(), &[b'a'; 2000], b"\nab"].concat(), "line 2: has 2000 tokens, more than the 1024"),
    ];
    for (input, expected) in inputs {
        let called = place.call_with(&format!("predict {run}"), input);
        let answer = called.refuses();
        assert!(answer.starts_with(&format!("error: standard input: {expected}")), "{answer}");
        assert_eq!(called.out().lines().count(), 1, "what came before is answered");
        let called = place.call_with(&format!("predict {run} --skip-bad"), input);
        assert!(called.err().contains("warning: 1 line was not answered, the first is line 2"), "{}", called.err());
        let out = called.succeeds();
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines.len() == 3 && lines[1].is_empty() && lines[0] == lines[2] && !lines[0].is_empty(), "{lines:?}");
        let out = place.call_with(&format!("predict {run} --skip-bad --json"), input).succeeds();
        let skipped: Value = serde_json::from_str(out.lines().nth(1).unwrap()).unwrap();
        assert!(skipped["skipped"].is_string() && skipped["answers"].as_array().unwrap().is_empty(), "{skipped}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let (place, run, _) = finished();
    let mut child = place.start(&format!("predict {run}"));
    drop(child.stdout.take());
    let mut input = child.stdin.take().unwrap();
    let _ = input.write_all(&b"abc\n".repeat(500));
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn other_references_judge_and_nothing_is_written() {
    let (place, run, _) = finished();
    let results = place.read(&format!("{run}/results.json"));
    let text = String::from_utf8(place.read(&format!("{run}/predictions-test.jsonl"))).unwrap();
    let written: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let test = String::from_utf8(place.read("data/test.tsv")).unwrap();
    // What the model answers counts as right.
    let answer = |line: &str| {
        let found = written.iter().find(|w| line.starts_with(&format!("{}\t", w["source"].as_str().unwrap())));
        found.expect("an answer to every source")["answers"][0]["text"].as_str().unwrap().to_owned()
    };
    let scratch = Place::new();
    let answers: Vec<String> = test.lines().map(answer).collect();
    scratch.write("right.txt", answers.join("\n"));
    scratch.write("wrong.txt", answers.iter().map(|_| "?\n").collect::<String>());
    scratch.write("short.txt", "?\n");
    let evaluate = |names: &[&str]| {
        let files: String = names.iter().map(|n| format!(" --references {}", scratch.path(n).display())).collect();
        place.call(&format!("evaluate {run}{files}"))
    };
    let rate = |out: String| {
        let line = out.lines().find(|line| line.starts_with("sequence_error_rate")).expect("a figure").to_owned();
        line.split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(rate(evaluate(&["right.txt"]).succeeds()), "0.00");
    assert_eq!(rate(evaluate(&["wrong.txt"]).succeeds()), "100.00");
    assert_eq!(rate(evaluate(&["wrong.txt", "right.txt"]).succeeds()), "0.00");
    let answer = evaluate(&["short.txt"]).refuses();
    assert!(
        answer.contains("short.txt: 1 lines, but `data/test.tsv` has 40: give a reference for every line"),
        "{answer}"
    );
    assert!(evaluate(&["none.txt"]).refuses().contains("none.txt: cannot read: "));
    assert_eq!(place.read(&format!("{run}/results.json")), results);
}
