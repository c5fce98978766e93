//! Texts that a language model generates, and answers that are drawn.

use std::sync::OnceLock;

use serde_json::Value;

use crate::place::{Place, finished};
use crate::text;

/// A place with a language model, for all tests that only read.
fn model() -> &'static Place {
    static MODEL: OnceLock<Place> = OnceLock::new();
    MODEL.get_or_init(|| {
        let place = text::place();
        place.call("run text.toml --run one -q").succeeds();
        place
    })
}

fn json(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Calls the program with a prompt, which may have spaces.
fn call(place: &Place, words: &str, prompt: &str) -> crate::place::Called {
    crate::place::Called(place.command(words).args(["--prompt", prompt]).output().unwrap())
}

#[test]
fn texts_are_drawn_by_seed_and_number() {
    let place = model();
    let out = place.call("generate one --seed 3 --count 70").succeeds();
    assert_eq!(out.lines().count(), 70, "{out}");
    // More than are drawn side by side, fewer, on more threads, from the file alone.
    for words in
        ["one --seed 3 --count 9", "one/model.safetensors --seed 3", "text.toml --runs-dir . --seed 3 --threads 2"]
    {
        let some = place.call(&format!("generate {words}")).succeeds();
        assert!(out.starts_with(&some) && some.lines().count() >= 1, "{words}: {some}");
    }
    let other = place.call("generate one --seed 4 --count 70").succeeds();
    assert!(out.lines().zip(other.lines()).filter(|(a, b)| a != b).count() > 60, "{out}{other}");
    assert!(out.lines().collect::<std::collections::BTreeSet<_>>().len() > 30, "they are alike: {out}");
    // Without one it is the model's.
    assert_eq!(place.call("generate one").succeeds(), place.call("generate one --seed 1").succeeds());

    let lines = json(&place.call("generate one --seed 3 --count 70 --json").succeeds());
    for (i, (line, text)) in lines.iter().zip(out.lines()).enumerate() {
        assert_eq!(
            (line["text"].as_str().unwrap(), line["seed"].as_u64(), line["draw"].as_u64()),
            (text, Some(3), Some(i as u64 + 1))
        );
        assert_eq!(line["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect::<String>(), text);
    }
    // They are as probable as the model says that such lines are.
    let is_line = |line: &&Value| {
        line["finished"] == true && line["unknown"].is_null() && !line["text"].as_str().unwrap().trim().is_empty()
    };
    let whole: Vec<&Value> = lines.iter().filter(is_line).collect();
    assert!(whole.len() > 60, "of 70 texts {} came to an end", whole.len());
    let input: String = whole.iter().map(|line| line["text"].as_str().unwrap().to_owned() + "\n").collect();
    let scored = place.call_with("score one", input).succeeds();
    for (line, score) in whole.iter().zip(scored.lines()) {
        let log_prob = line["log_prob"].as_f64().unwrap();
        assert!((log_prob - score.parse::<f64>().unwrap()).abs() < 1e-3, "{line}: {score}");
    }
    // What the temperature leaves is more probable, by what the model itself says.
    let mean = |words: &str| {
        let lines = json(&place.call(&format!("generate one --count 70 --json {words}")).succeeds());
        let (sum, tokens) = lines.iter().fold((0.0, 0), |(sum, tokens), line| {
            (sum + line["log_prob"].as_f64().unwrap(), tokens + line["tokens"].as_array().unwrap().len() + 1)
        });
        sum / tokens as f64
    };
    assert!(mean("--temperature 0.3") > mean("") + 0.1 && mean("--temperature 3") < mean("") - 0.1);
}

#[test]
fn a_prompt_is_gone_on_with() {
    let place = model();
    let words = "generate one --set search.kind=greedy --json --length";
    let greedy =
        |prompt: &str, length: usize| json(&call(place, &format!("{words} {length}"), prompt).succeeds()).remove(0);
    let whole = greedy("", 30);
    assert_eq!(whole, json(&place.call(&format!("{words} 30")).succeeds()).remove(0));
    let text = whole["text"].as_str().unwrap();
    assert!(text.len() > 4, "{text}");
    let (mut before, mut rest) = (0.0, whole["log_prob"].as_f64().unwrap());
    for cut in 1..text.len() {
        let found = greedy(&text[..cut], 30 - cut);
        assert_eq!(found["text"], text[cut..], "{text}");
        let left = found["log_prob"].as_f64().unwrap();
        assert!(left >= rest - 1e-4, "{left} of {rest}");
        (before, rest) = (before + left - rest, left);
    }
    assert!(before > 0.0);
    // A file says the same, with a line end behind it or without.
    for ending in ["", "\n", "\r\n"] {
        let scratch = Place::new();
        scratch.write("p.txt", format!("\u{feff}ab{ending}"));
        let file = scratch.path("p.txt").display().to_string();
        let found = place.call(&format!("{words} 9 --input {file}")).succeeds();
        assert_eq!(json(&found)[0], greedy("ab", 9), "{ending:?}");
    }
    // No more than asked for.
    let called = call(place, "generate one --length 3 --count 20 --json --set search.min_length=9", "abc");
    for line in json(&called.succeeds()) {
        assert_eq!((line["tokens"].as_array().unwrap().len(), line["finished"].as_bool()), (3, Some(false)), "{line}");
    }
    // Where texts stop is not told.
    let stopped = json(&place.call("generate one --count 40 --json --set search.stop=['a','d_c']").succeeds());
    let free = json(&place.call("generate one --count 40 --json").succeeds());
    for (stopped, free) in stopped.iter().zip(&free) {
        let free = free["text"].as_str().unwrap();
        assert_eq!(stopped["text"].as_str().unwrap(), free.split('a').next().unwrap());
        assert!(!free.contains('a') || stopped["finished"] == true, "{stopped}");
    }
}

#[test]
fn what_a_prompt_holds_is_not_swallowed() {
    let place = model();
    let called = call(place, "generate one", "aXb \u{e9}X\tc");
    let warning =
        "warning: --prompt: 4 of 8 tokens are unknown to the model, which reads each as <unk>: `X`, `\u{e9}`, `\\t`\n";
    assert_eq!(called.err(), warning);
    called.succeeds();
    let scratch = Place::new();
    scratch.write("many.txt", "klmnopqrstuvwxyz");
    let file = scratch.path("many.txt").display().to_string();
    let called = place.call(&format!("generate one --input {file}"));
    assert!(
        called.err().contains(": 16 of 16 tokens ") && called.err().ends_with("`t` and 6 more\n"),
        "{}",
        called.err()
    );
    assert_eq!(call(place, "generate one", "ab").err(), "");
}

#[test]
fn mistakes_are_answered() {
    let place = model();
    let said = |words: &str| place.call(words).refuses();
    let (pairs, run, _) = finished();
    let answer = pairs.call(&format!("generate {run}")).refuses();
    assert!(answer.ends_with(": is a model that answers sources; `predict` asks it for answers"), "{answer}");
    assert!(said("generate one --input none.txt").ends_with("none.txt: --input: no such file"));
    let scratch = Place::new();
    scratch.write("bad.txt", b"ab\nc\xffd\n");
    let file = scratch.path("bad.txt").display().to_string();
    let answer = said(&format!("generate one --input {file}"));
    assert!(answer.contains("bad.txt: line 2: byte 2 is not UTF-8"), "{answer}");
    let answer = said("generate one --count 2 --set search.kind=greedy");
    assert!(answer.contains("--count: this search draws nothing"), "{answer}");
    assert!(said("generate one --temperature 0").contains("`--set search.kind=greedy`"));
    assert!(said("generate one --temperature nan").contains("search.temperature"));
    assert!(said("generate one --set search.temperatur=1").contains("did you mean `temperature`?"));
    assert!(said("generate one --set model.tied=output").contains("cannot be changed for a model that is trained"));
    assert!(said("generate nothing").contains("no such run, model or config"));
    for words in ["--count 0", "--length 0", "--prompt a --input b"] {
        assert_eq!(place.call(&format!("generate one {words}")).0.status.code(), Some(2), "{words}");
    }
    // An empty file is nothing to go on with, and no mistake.
    scratch.write("empty.txt", "");
    let file = scratch.path("empty.txt").display().to_string();
    let begun = place.call(&format!("generate one --input {file}")).succeeds();
    assert_eq!(begun, place.call("generate one").succeeds());
}

#[test]
fn a_prompt_of_a_megabyte_is_read() {
    let place = model();
    let scratch = Place::new();
    scratch.write("long.txt", "abcd dc ".repeat(131_072));
    let file = scratch.path("long.txt").display().to_string();
    let called = place.call(&format!("generate one --length 5 --count 3 --json --input {file}"));
    assert!(called.err().ends_with("long.txt: reading 1048576 tokens\n"), "{}", called.err());
    assert_eq!(json(&called.succeeds()).len(), 3);
}

/// A reader that leaves is no mistake, and an interrupted text is ended as a line.
#[cfg(unix)]
#[test]
fn texts_come_as_they_are_chosen() {
    use std::io::Read;
    let place = model();
    let endless = "--length 100000000 --set search.max_length.limit=100000001 --set search.min_length=100000000";
    let mut child = place.start(&format!("generate one {endless}"));
    let mut out = child.stdout.take().unwrap();
    // Would wait for ever if it waited for the end.
    let mut first = [0; 40];
    out.read_exact(&mut first).unwrap();
    let status = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()));
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!first.contains(&b'\n') && rest.ends_with('\n') && rest.matches('\n').count() == 1, "{rest:?}");

    let mut child = place.start(&format!("generate one {endless}"));
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let called = crate::place::Called(child.wait_with_output().unwrap());
    assert_eq!((called.0.status.code(), called.err()), (Some(0), String::new()));
}

#[test]
fn answers_are_drawn_by_their_line() {
    let (place, run, _) = finished();
    let input = "abc\ndd\nabc\nabcd\n";
    let sample = format!("predict {run} --json --set search.kind=sample --set search.temperature=2.5");
    let lines = json(&place.call_with(&format!("{sample} --n-best 8"), input).succeeds());
    for line in &lines {
        let answers = line["answers"].as_array().unwrap();
        let scores: Vec<f64> = answers.iter().map(|answer| answer["score"].as_f64().unwrap()).collect();
        assert!(scores.len() == 8 && scores.is_sorted_by(|a, b| a >= b), "{line}");
    }
    // The same source in another line is another draw; the same line is the same draw, whatever comes with it.
    assert_ne!(lines[0]["answers"], lines[2]["answers"], "{lines:?}");
    let texts = |line: &Value| {
        line["answers"].as_array().unwrap().iter().map(|answer| answer["text"].clone()).collect::<Vec<_>>()
    };
    for (words, input) in [("--threads 2", input), ("--set evaluate.rows=1", input), ("", "abc\nx\n")] {
        let found = json(&place.call_with(&format!("{sample} --n-best 8 {words}"), input).succeeds());
        assert_eq!(texts(&found[0]), texts(&lines[0]), "{words}");
    }
    let other = json(&place.call_with(&format!("{sample} --n-best 8 --set search.seed=5"), input).succeeds());
    assert_ne!(other, lines);
    // An answer that is drawn is measured like any other.
    let out = place.call(&format!("evaluate {run}/model.safetensors --set search.kind=sample --input data/test.tsv"));
    assert!(out.succeeds().contains("sequence_error_rate"));
    let stop = format!("predict {run} --set search.kind=sample --set search.stop=['B','C_D']");
    let stopped = place.call_with(&stop, "abc\nbb\n").succeeds();
    let free = place.call_with(&format!("predict {run} --set search.kind=sample"), "abc\nbb\n").succeeds();
    for (stopped, free) in stopped.lines().zip(free.lines()) {
        assert_eq!(stopped, free.split('B').next().unwrap());
    }
}
