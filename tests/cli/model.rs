//! Answers of a trained model.

use std::io::{BufRead, BufReader, Read, Write};

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
    let words = format!("predict {run} --n-best 3 --json --set search.width=6");
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
    // The same as text: the number of the source's line, probability, its logarithm, answer.
    let words = format!("predict {run} --n-best 3 --scores --set search.width=6");
    let out = place.call_with(&words, "abc\ndd\n").succeeds();
    let answers = lines.iter().flat_map(|line| line["answers"].as_array().unwrap());
    assert_eq!(out.lines().count(), 6);
    for (i, (line, answer)) in out.lines().zip(answers).enumerate() {
        let [number, probability, log_prob, text] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert_eq!(number, if i < 3 { "1" } else { "2" });
        assert_eq!((text, log_prob.parse().ok()), (answer["text"].as_str().unwrap(), answer["log_prob"].as_f64()));
        assert!((probability.parse::<f64>().unwrap().ln() - answer["log_prob"].as_f64().unwrap()).abs() < 1e-9);
    }
    let best = place.call_with(&format!("predict {run} --scores"), "abc\n").succeeds();
    assert_eq!(best.split('\t').count(), 3, "{best}");
}

#[test]
fn what_the_model_does_not_know_is_told_counted_and_marked() {
    let (place, run, _) = finished();
    let json = |words: &str, input: &str| -> Vec<Value> {
        let out = place.call_with(&format!("{words} --json"), input).succeeds();
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let [known, strange] = &json(&format!("predict {run}"), "ab\na1b<unk>\n")[..] else { panic!("two lines") };
    assert_eq!((&known["unknown"], &strange["unknown"]), (&Value::Null, &serde_json::json!([1, 3, 4, 5, 6, 7])));
    let scored = &json(&format!("score {run}"), "1ab\tA <unk> </s>\n")[0];
    assert_eq!((&scored["unknown_source"], &scored["unknown"]), (&serde_json::json!([0]), &serde_json::json!([1, 2])));
    assert_eq!(scored["tokens"], serde_json::json!(["A", "<unk>", "<unk>", "</s>"]));

    let called = place.call_with(&format!("predict {run} --mark-unknown"), "ab\na1b\n");
    let warning = "warning: 1 of 5 source tokens (20.0 %) are unknown to the tokenizer";
    assert!(called.err().starts_with(warning), "{}", called.err());
    let out = called.succeeds();
    let columns: Vec<_> = out.lines().map(|line| line.split('\t').nth(1)).collect();
    assert_eq!(columns, [None, Some("a<unk>b")], "{out}");
    assert_eq!(place.call_with(&format!("predict {run}"), "ab\n").err(), "");

    // A test file in capitals.
    let scratch = Place::new();
    scratch.write("capitals.tsv", String::from_utf8(place.read("data/test.tsv")).unwrap().to_uppercase());
    let called = place.call(&format!("evaluate {run} --input {}", scratch.path("capitals.tsv").display()));
    let err = called.err();
    let out = called.succeeds();
    assert!(err.contains("source tokens (") && !err.contains("target tokens ("), "{err}");
    let figure = |name: &str| {
        let line = out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {out}"));
        line.split_whitespace().last().unwrap().parse::<f64>().unwrap()
    };
    // The end symbols are known.
    assert_eq!(
        figure("unknown_source_tokens"),
        figure("source_tokens") - figure("target_tokens") + figure("unknown_source_tokens")
    );
    assert!(figure("unknown_source_tokens") > 0.0 && figure("unknown_target_tokens") == 0.0, "{out}");
}

#[test]
fn any_file_can_be_a_test() {
    let (place, run, _) = finished();
    let figures = |text: &str| -> Vec<String> {
        let plain = text.lines().filter(|line| !line.starts_with("time ")).map(|line| line.split_whitespace());
        plain.map(|words| words.collect::<Vec<_>>().join(" ").replacen("input", "test", 1)).collect()
    };
    let scratch = Place::new();
    let test = place.read("data/test.tsv");
    scratch.write("new.tsv", &test);
    let input = scratch.path("new.tsv").display().to_string();
    let results = place.read(&format!("{run}/results.json"));
    let own = place.call(&format!("evaluate {run}")).succeeds();
    let found = place.call(&format!("evaluate {run}/model.safetensors --input {input}")).succeeds();
    assert_eq!(figures(&found), figures(&own));
    // Judged by its own targets, it is judged as ever, though sources repeat.
    let targets: String = String::from_utf8(test)
        .unwrap()
        .lines()
        .map(|line| line.split('\t').nth(1).unwrap().to_owned() + "\n")
        .collect();
    scratch.write("targets.txt", targets);
    let targets = scratch.path("targets.txt").display().to_string();
    let found = place.call(&format!("evaluate {run} --input {input} --references {targets}")).succeeds();
    assert_eq!(figures(&found), figures(&own));
    assert_eq!(place.read(&format!("{run}/results.json")), results);

    // What is advised can be followed: the rules for lines are nothing that was learned.
    scratch.write("bad.tsv", "ab\tA B\nno tab\n");
    let bad = format!("evaluate {run} --input {}", scratch.path("bad.tsv").display());
    assert!(place.call(&bad).refuses().ends_with("set data.on_bad_line = \"skip\""));
    let out = place.call(&format!("{bad} --set data.on_bad_line=skip")).succeeds();
    assert!(out.lines().any(|line| line.split_whitespace().eq(["skipped", "1"])), "{out}");
    let answer = place.call(&format!("evaluate {run} --input none.tsv")).refuses();
    assert_eq!(answer, "error: none.tsv: --input: no such file");
    let answer = place.call(&format!("evaluate {run} --input {input} --split test"));
    assert_eq!(answer.0.status.code(), Some(2));
}

#[test]
fn what_text_would_do_to_a_terminal_is_shown_instead() {
    let (place, run, _) = finished();
    let scratch = Place::new();
    scratch.write("new.tsv", "ab\t\u{1b}[2JA\n");
    let out = place.call(&format!("evaluate {run} --input {}", scratch.path("new.tsv").display())).succeeds();
    assert!(out.contains(r"[\u{1b}[2JA]") && !out.contains('\u{1b}'), "{out}");
    let called = place.call(&format!("predict {run} --set a\u{1b}[2J=1"));
    assert!(called.refuses().contains(r"\u{1b}[2J") && !called.err().contains('\u{1b}'), "{}", called.err());
}

/// A person at a terminal, which `script` (util-linux) plays; `timeout` sees to it that a prompt that never comes is a failure.
#[cfg(target_os = "linux")]
#[test]
fn a_person_is_prompted_and_may_err() {
    let (place, run, _) = finished();
    let program = env!("CARGO_BIN_EXE_antiphon");
    let script = || {
        let mut script = std::process::Command::new("timeout");
        script.args(["60", "script", "-qec", &format!("{program} predict {run}"), "/dev/null"]);
        script.current_dir(place.path(""));
        script
    };
    // Who has nothing to ask says so once.
    let input = std::process::Stdio::null();
    assert!(script().stdin(input).output().expect("script, of util-linux").status.success());
    let pipes = || std::process::Stdio::piped();
    let mut child = script().stdin(pipes()).stdout(pipes()).spawn().expect("script, of util-linux");
    let mut input = child.stdin.take().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut until = |wanted: &str| {
        let mut text = String::new();
        while !text.ends_with(wanted) {
            let byte = said.by_ref().bytes().next().unwrap_or_else(|| panic!("the end before {wanted:?}: {text}"));
            text.push(char::from(byte.unwrap()));
        }
        text
    };
    let answer = place.call_with(&format!("predict {run}"), "abc\n").succeeds();
    until("> ");
    for (line, expected) in [
        ("abc", answer.trim_end()),
        ("", "\r\n> "),
        ("a\tb", "line 3: a tab, and a source has none"),
        ("123", "warning: 3 of 3 source tokens"),
        ("abc", answer.trim_end()),
    ] {
        writeln!(input, "{line}").unwrap();
        let text = until("> ");
        assert!(text.contains(expected), "{line:?}: {text:?}");
    }
    input.write_all(b"\x04").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_answer_that_is_scored_is_as_probable_as_the_search_found_it() {
    let (place, run, _) = finished();
    let out = place.call_with(&format!("predict {run} --n-best 3 --json"), "abc\ndd\nabcda\n").succeeds();
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

/// What an error about a line suggests can be done.
#[test]
fn the_limits_of_a_scored_line_can_be_changed() {
    let (place, run, _) = finished();
    let long = format!("ab\t{}\n", "A ".repeat(1025));
    let answer = place.call_with(&format!("score {run}"), &long).refuses();
    assert!(answer.contains("more than data.max_target = 1024: shorten it or raise data.max_target"), "{answer}");
    place.call_with(&format!("score {run} --set data.max_target=2000"), &long).succeeds();
    let answer = place.call_with(&format!("score {run} --set data.max_line=9"), &long).refuses();
    assert!(answer.contains("more than data.max_line = 9"), "{answer}");
    let answer = place.call_with(&format!("score {run} --set train.epochs=3"), "ab\tA\n").refuses();
    assert!(answer.contains("cannot be changed for a model that is trained"), "{answer}");
}

#[test]
fn lines_that_cannot_be_answered_stop_or_are_counted() {
    let (place, run, _) = finished();
    let long = [b"ab\n".as_slice(), &[b'a'; 1_000_001], b"\nab\n"].concat();
    let inputs: [(&[u8], &str); 4] = [
        (b"ab\n\nab\n", "line 2: the source is empty"),
        (b"ab\na\xFF\nab\n", "line 2: byte 2 is not UTF-8"),
        (&long, "line 2: 1000001 bytes, more than data.max_line = 1000000"),
        (
            &[b"ab\n".as_slice(), &[b'a'; 2000], b"\nab"].concat(),
            "line 2: the source has 2000 tokens, more than data.max_source = 1024",
        ),
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
fn what_is_no_text_is_refused_as_a_whole_and_costs_no_file() {
    let (place, run, _) = finished();
    let scratch = Place::new();
    let (input, output) = (scratch.path("in").display().to_string(), scratch.path("out").display().to_string());
    scratch.write("out", "precious\n");
    for (bytes, what) in [
        (&b"\xFF\xFEa\0\n\0b\0\n\0"[..], "line 1: UTF-16, not UTF-8"),
        (b"\xFD7zXZ\0\0\n\xFF\n", "line 1: packed by xz"),
    ] {
        scratch.write("in", bytes);
        for option in ["", " --skip-bad"] {
            let answer = place.call(&format!("predict {run} --input {input} --output {output}{option}")).refuses();
            assert!(answer.contains(what) && !answer.contains("--skip-bad"), "{answer}");
            assert_eq!(scratch.read("out"), b"precious\n");
        }
    }
    // UTF-16 without its mark.
    let called = place.call_with(&format!("predict {run}"), b"a\0\n\0");
    assert!(called.refuses().contains("line 1: byte 2 is 0, as in UTF-16"), "{}", called.err());
    let answer = place.call(&format!("predict {run} --input none.txt")).refuses();
    assert_eq!(answer, "error: none.txt: --input: no such file");
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
    // A file of pairs is no file of references.
    std::fs::copy(place.path("data/test.tsv"), scratch.path("pairs.tsv")).unwrap();
    assert!(evaluate(&["pairs.tsv"]).refuses().contains("lines 1-40: a tab, and a target has none"));
    assert!(evaluate(&["none.txt"]).refuses().contains("none.txt: cannot open: "));
    assert_eq!(place.read(&format!("{run}/results.json")), results);
}
