//! Questions about stories: learned from JSON lines, asked at a prompt, and what is wrong with them.

use std::fmt::Write;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::place::{Called, Place};

const CONFIG: &str = r#"
threads = 1

[data]
kind = "table"
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
source = "story"
target = "answer"

[tokenizer.source]
kind = "word"
sentences = true
normalization = ["punctuation"]
[tokenizer.target]
kind = "word"

[streams.question]
shared = true
encoder = { kind = "gru", hidden = 12 }

[model.source]
kind = "embedding"
size = 12
[model.target]
kind = "embedding"
size = 12
[model.encoder]
kind = "gru"
hidden = 12
[model.decoder]
kind = "gru"
hidden = 12

[batch]
kind = "sentences"
count = 16

[train]
steps = 12
"#;

/// People who go somewhere; where one of them is.
pub(crate) fn rows(numbers: std::ops::Range<usize>) -> String {
    let person = |n: usize| ["John", "Mary", "Sandra"][n % 3];
    let place = |n: usize| ["kitchen", "garden", "office", "hallway"][n % 4];
    let row = |n: usize| {
        let story: Vec<String> =
            (0..2 + n % 4).map(|k| format!("{} went to the {}.", person(n / 2 + k * k), place(n / 3 + k))).collect();
        let last = story.iter().rev().find(|sentence| sentence.starts_with(person(n / 2))).expect("the first");
        let answer = last.rsplit(' ').next().expect("a word").trim_end_matches('.');
        let row = json!({ "story": story, "question": format!("Where is {}?", person(n / 2)), "answer": answer });
        row.to_string() + "\n"
    };
    numbers.map(row).collect()
}

fn place() -> Place {
    let place = Place::new();
    for (name, numbers) in [("train", 0..200), ("validation", 200..220), ("test", 220..240)] {
        place.write(&format!("data/{name}.jsonl"), rows(numbers));
    }
    place.write("questions.toml", CONFIG);
    place
}

/// A place with a model that has learned a little.
fn learned() -> &'static (Place, String) {
    static LEARNED: OnceLock<(Place, String)> = OnceLock::new();
    LEARNED.get_or_init(|| {
        let place = place();
        place.call("run questions.toml").succeeds();
        let run = place.only_run();
        (place, run)
    })
}

fn parsed(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// What is asked at a prompt is what a row asks.
#[test]
fn a_question_is_answered_as_its_row_is() {
    let (place, run) = learned();
    let predicted = parsed(&place.call(&format!("predict {run} --json --input data/test.jsonl")).succeeds());
    assert_eq!(predicted.len(), 20);
    let rows = parsed(&String::from_utf8(place.read("data/test.jsonl")).expect("text"));
    let (mut typed, mut line) = (String::new(), 0);
    for (n, (row, expected)) in rows.iter().zip(&predicted).enumerate() {
        let story: Vec<&str> = row["story"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        assert_eq!(expected["source"], story.join("\n"));
        // The first of a story is read from a file, and the rest is told; a blank line says nothing.
        place.write(&format!("story-{n}.txt"), format!("{}\n\n", story[0]));
        writeln!(typed, ":story story-{n}.txt\n").expect("there is room");
        story[1..].iter().for_each(|sentence| writeln!(typed, ":tell  {sentence} ").expect("there is room"));
        writeln!(typed, " {}", row["question"].as_str().expect("a text")).expect("there is room");
    }
    let asked = parsed(&place.call_with(&format!("ask {run} --json"), &typed).succeeds());
    assert_eq!(asked.len(), predicted.len());
    for ((asked, expected), row) in asked.iter().zip(&predicted).zip(&rows) {
        let answer = &expected["answers"][0];
        assert_eq!((&asked["answer"], &asked["log_prob"]), (&answer["text"], &answer["log_prob"]));
        let probability = asked["probability"].as_f64().expect("a number");
        assert!((probability.ln() - answer["log_prob"].as_f64().expect("a number")).abs() < 1e-9);
        assert_eq!((&asked["question"], asked.get("unknown")), (&row["question"], None));
        let at = asked["line"].as_u64().expect("a number") as usize;
        assert_eq!(typed.lines().nth(at - 1).map(str::trim), row["question"].as_str());
        assert!(at > line, "{asked}");
        line = at;
    }
    // As text: an answer, a tab, its probability. What comes after the end is not read.
    place.write("story.txt", "John went to the kitchen.\r\nMary went to the moon.\r\n");
    let called = place.call_with(&format!("ask {run} --story story.txt"), "Where is John?\nWho is Zug?\n:quit\nWhy?\n");
    let warnings: Vec<&str> = [
        "story.txt has what the model does not know: `moon`",
        "the question has what the model does not know: `Who`, `Zug`",
    ]
    .into();
    for warning in warnings {
        assert!(called.err().contains(&format!("warning: {warning}\n")), "{}", called.err());
    }
    let out = called.succeeds();
    assert_eq!(out.lines().count(), 2, "{out}");
    for line in out.lines() {
        let (_, probability) = line.split_once('\t').expect("a probability");
        assert!(probability.parse::<f64>().is_ok_and(|p| p > 0.0 && p < 1.0), "{line}");
    }
    // Nothing was told yet, which is said once.
    let called = place.call_with(&format!("ask {run}"), "Where is John?\nWhere is Mary?\n");
    let warning = "warning: no story yet: tell one with :tell, :story FILE or --story FILE\n";
    assert_eq!(called.err().matches(warning).count(), 1, "{}", called.err());
    assert_eq!(called.succeeds().lines().count(), 2);
    // What the model is not sure of is withheld.
    let below =
        "--set evaluate.no_answer.kind=below --set evaluate.no_answer.threshold=1.0 --set evaluate.no_answer.text=?";
    let asked =
        |words: &str| place.call_with(&format!("ask {run} --story story.txt {words}"), "Where is John?").succeeds();
    let (plain, withheld) = (parsed(&asked("--json")), parsed(&asked(&format!("--json {below}"))));
    assert_eq!((plain[0].get("withheld"), &withheld[0]["answer"]), (None, &json!("?")));
    assert_eq!(withheld[0]["withheld"], plain[0]["answer"]);
    assert!(asked(below).starts_with("?\t"));
    assert_eq!(place.call_with(&format!("ask {run}"), "").succeeds(), "");
}

#[test]
fn what_is_wrong_at_the_prompt_is_said() {
    let (place, run) = learned();
    place.write("long.txt", "John went to the kitchen.\n".repeat(10_000));
    place.write("bytes.txt", b"John went\n\xff\n");
    place.write("empty.txt", "\n \n");
    let ask = |words: &str, typed: &str| place.call_with(&format!("ask {run} {words}"), typed).refuses();
    for (words, typed, expected) in [
        ("--story none.txt", "", "none.txt: --story: no such file"),
        ("--story data", "", "data: --story: "),
        ("--story long.txt", "", "long.txt: the source has 69999 tokens, more than data.max_source = 1024"),
        ("--story bytes.txt", "", "bytes.txt: line 2: byte 1 is not UTF-8"),
        ("", "\n:story none.txt\n", "none.txt: :story: no such file"),
        ("", "\n:forget\n", "standard input: line 2: `:forget` is no command: `:story FILE` takes"),
        ("", ":tell\n", "standard input: line 1: `:tell` lacks its sentence: `:tell SENTENCE` adds"),
        ("", ":story \n", "standard input: line 1: `:story` lacks its file: `:story FILE` takes"),
        ("--story empty.txt", "", "empty.txt: --story: there is no sentence in it; name a file"),
        ("", ":story empty.txt\n", "empty.txt: :story: there is no sentence in it; name a file"),
        ("", &format!(":tell {}\n", "a ".repeat(10_000)), "standard input: line 1: the source has 10000 tokens"),
        ("", &"a ".repeat(10_000), "standard input: line 1: `question` has 10000 tokens, more than streams.question"),
    ] {
        let error = ask(words, typed);
        assert!(error.starts_with(&format!("error: {expected}")), "{error}");
    }

    // Models that are asked otherwise.
    let pairs = &crate::place::finished().1;
    let error = crate::place::finished().0.call(&format!("ask {pairs}")).refuses();
    assert!(error.contains("has no stream for the question beside it"), "{error}");
    let place = self::place();
    let more = CONFIG.replace(
        "[streams.question]",
        "[streams.note]\ncolumn = \"answer2\"\nencoder = { kind = \"gru\", hidden = 12 }\n[streams.question]",
    );
    place.write("questions.toml", more);
    for name in ["train", "validation", "test"] {
        let text = String::from_utf8(place.read(&format!("data/{name}.jsonl"))).expect("text");
        place.write(&format!("data/{name}.jsonl"), text.replace("\"answer\":", "\"answer2\":3,\"answer\":"));
    }
    place.call("train questions.toml --set train.steps=1").succeeds();
    let error = place.call(&format!("ask {}", place.only_run())).refuses();
    assert!(error.contains("has 2 streams beside its source (`note`, `question`)"), "{error}");
}

#[test]
#[cfg(unix)]
fn an_interrupted_prompt_ends_at_once() {
    use std::io::{BufRead, BufReader, Write};
    let (place, run) = learned();
    let mut child = place.start(&format!("ask {run}"));
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(b"Where is John?\n").expect("it listens");
    let mut answer = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    output.read_line(&mut answer).expect("an answer");
    // It answers as it is asked, and waits.
    assert!(answer.ends_with('\n') && answer.contains('\t'), "{answer}");
    std::thread::sleep(Duration::from_millis(100));
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()));
    let called = Called(child.wait_with_output().expect("it ends"));
    assert_eq!((called.0.status.code(), called.err().contains("panicked")), (Some(130), false), "{}", called.err());
}

/// Bad rows are one clear error each, or are counted.
#[test]
fn a_bad_row_is_an_error_or_a_counted_skip() {
    let place = place();
    let good = rows(0..40);
    let row = |story: Value| json!({ "story": story, "question": "Where is John?", "answer": "garden" }).to_string();
    let sentence = "John went to the kitchen.";
    for (bad, skip, error, counted) in [
        (
            json!({ "story": [sentence], "answer": "garden" }).to_string(),
            "on_bad_line",
            "no `question`, which streams.question.column names; there are `answer`, `story`",
            "1 without `question`",
        ),
        (
            json!({ "story": [sentence], "question": null, "answer": [] }).to_string(),
            "on_bad_line",
            "`answer` is empty",
            "1 with an empty `answer`",
        ),
        (row(json!([])), "on_bad_line", "`story` is empty", "1 with an empty `story`"),
        (
            row(json!([sentence, [sentence]])),
            "on_bad_line",
            "`story` is a list with a list in it",
            "1 whose `story` is",
        ),
        (
            row(json!([sentence])).replace("\"]", "\""),
            "on_bad_line",
            "not a JSON object (expected `,` or `]`",
            "1 not a JSON object",
        ),
        (
            "{\"story\": [\"John".to_owned(),
            "on_bad_line",
            "not a JSON object (EOF while parsing a string",
            "1 not a JSON object",
        ),
        (
            row(json!([sentence, "word ".repeat(10_000)])),
            "too_long",
            "the source has 10007 tokens, more than data.max_source = 1024",
            "1 with a source over data.max_source = 1024",
        ),
        (
            row(json!(vec![sentence; 10_000])),
            "too_long",
            "the source has 69999 tokens, more than data.max_source = 1024",
            "1 with a source over data.max_source = 1024",
        ),
    ] {
        place.write("data/train.jsonl", format!("{good}{bad}\n{good}"));
        let refused = place.call("train questions.toml --set train.steps=1").refuses();
        assert!(refused.contains(&format!("train.jsonl: line 41: {error}")), "{refused}");
        assert!(refused.contains(&format!("set data.{skip} = \"skip\"")), "{refused}");
        let skipping = format!("train questions.toml --set train.steps=1 --set data.{skip}=skip");
        let called = place.call(&skipping);
        assert!(called.err().contains(counted), "{bad:.60} {}", called.err());
        called.succeeds();
    }
}

/// Follows `docs/questions.md`: its configs are right, its commands work as they stand, and so do its rows.
#[cfg(unix)]
mod guide {
    use super::*;
    use crate::guide::{blocks, commands, configs_are_right, follow, page, write_cargo, write_configs};

    /// What makes the guide's models small.
    const SMALL: &[(&str, &str)] = &[("ANTIPHON__THREADS", "1"), ("ANTIPHON__TRAIN__STEPS", "4")];

    #[test]
    fn the_guide_can_be_followed_as_it_stands() {
        let (page, place) = (page("questions.md"), Place::new());
        write_cargo(&place);
        for (name, numbers) in [("train", 0..60), ("validation", 60..70), ("test", 70..80)] {
            place.write(&format!("data/mine/{name}.jsonl"), rows(numbers));
        }
        let [given] = blocks(&page, "json")[..] else { panic!("rows, once") };
        place.write("more.jsonl", given);
        place.write("story.txt", "Mary took the milk.\nMary went to the kitchen.\n");
        let configs = write_configs(&page, &place);
        let mut words = Vec::new();
        for block in blocks(&page, "sh") {
            words.push(commands(block));
            let called = follow(&place, block, SMALL);
            let out = called.out();
            match words.len() {
                // Two rows and a question.
                1 => assert!(out.lines().filter(|line| line.contains('\t')).count() >= 3, "{out}"),
                _ => assert_eq!(parsed(&out)[0]["question"], "Where is Mary?", "{out}"),
            }
        }
        assert_eq!(words, [vec!["check", "run", "predict", "ask"], vec!["ask"]]);
        // What has learned can be learned on from, though an encoder cannot be without the question that it reads.
        let again = format!("train configs/mine.toml --set train.start_from.model={}", place.only_run());
        let called = Called(place.command(&again).envs(SMALL.iter().copied()).output().expect("the program starts"));
        assert!(called.err().contains("start    "), "{}", called.err());
        called.succeeds();
        // The other configs are trained as well.
        for config in &configs[1..] {
            let mut command = place.command(&format!("train {config}"));
            let called = Called(command.envs(SMALL.iter().copied()).output().expect("the program starts"));
            assert!(!called.err().contains("warning: "), "{}", called.err());
            called.succeeds();
        }
    }

    #[test]
    fn every_config_of_the_guide_is_right() {
        assert!(configs_are_right(&page("questions.md"), 2) > 2);
    }
}
