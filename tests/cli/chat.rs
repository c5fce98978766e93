//! Conversations: each line has a reply, which depends on what was said before it, and can be taken back.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::place::Place;

const CONFIG: &str = r#"
threads = 1

[data]
kind = "table"
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.jsonl"
source = "context"
target = "response"
history = { speakers = ["<user>", "<bot>"] }
max_source = 24

[streams.facts]
shared = true
encoder = { kind = "gru", hidden = 12 }

[tokenizer.shared]
kind = "word"

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
attention = { kind = "general" }

[batch]
kind = "sentences"
count = 16

[train]
steps = 30
optimizer = { kind = "adam", learning_rate = 1e-2 }
[search]
max_length = { limit = 12 }
"#;

/// Dialogs about food: what was asked is offered.
fn rows(numbers: std::ops::Range<usize>) -> String {
    let row = |n: usize| {
        let (food, place) = (["thai", "roman", "polish"][n % 3], format!("resto_{}", n % 5));
        let (turns, response) = match n % 4 {
            0 => (vec!["hi"], "hello what can i do".to_owned()),
            1 => (vec!["hi", "hello what can i do", food], format!("what about {place} ?")),
            2 => (vec![food], format!("what about {place} ?")),
            _ => (vec!["hi", "hello what can i do", food, "what about it ?", "no"], "sorry".to_owned()),
        };
        let last = turns.last().expect("there is one");
        let row = json!({
            "dialog": format!("d{}", n / 4), "context": turns, "last": last, "facts": [format!("{place} is {food}")],
            "response": response, "entities": [place],
        });
        format!("{row}\n")
    };
    numbers.map(row).collect()
}

/// A place with a model that has learned a little.
fn learned() -> &'static Place {
    static LEARNED: OnceLock<Place> = OnceLock::new();
    LEARNED.get_or_init(|| {
        let place = Place::new();
        for (name, numbers) in [("train", 0..200), ("validation", 200..220), ("test", 220..240)] {
            place.write(&format!("data/{name}.jsonl"), rows(numbers));
        }
        place.write("chat.toml", CONFIG);
        place.call("run chat.toml --run runs/chat").succeeds();
        place.write("facts.txt", "resto_1 is thai\n\nresto_2 is roman\n");
        place
    })
}

fn replies(words: &str, said: &str) -> Vec<String> {
    learned().call_with(&format!("chat runs/chat {words}"), said).succeeds().lines().map(str::to_owned).collect()
}

/// What is told as it comes is what a search finds for the same rows, with all turns before.
#[test]
fn a_reply_is_what_predict_says_of_the_row() {
    let place = learned();
    for (search, name) in [
        ("--set search.kind=beam --set search.width=3", "beam.jsonl"),
        ("--set search={replace=true,kind='greedy'}", "greedy.jsonl"),
    ] {
        let said = "hi\nthai\nnever heard of it\n\nno no no no no no no no no no no no no\nno\n";
        let found = replies(&format!("{search} --facts facts.txt --transcript {name}"), said);
        let rows = String::from_utf8(place.read(name)).unwrap();
        let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
        assert_eq!((found.len(), rows.len()), (5, 5));
        let known = json!(["resto_1 is thai", "resto_2 is roman"]);
        for (i, (row, reply)) in rows.iter().zip(&found).enumerate() {
            assert_eq!(row["response"], **reply);
            let context = row["context"].as_array().unwrap();
            assert_eq!((context.len(), &row["facts"]), (2 * i + 1, &known));
            // What was replied is a part of what comes.
            assert!((0..i).all(|k| context[2 * k + 1] == *found[k]));
        }
        let out = place.call(&format!("predict runs/chat {search} --input {name}")).succeeds();
        assert_eq!(out.lines().collect::<Vec<_>>(), found, "{search}");
    }
}

#[test]
fn what_is_drawn_depends_on_the_seed_the_turn_and_what_was_said() {
    let sample = "--set search={replace=true,kind='sample',max_length={limit=8}}";
    let said = "hi\nthai\n";
    let found = replies(&format!("{sample} --seed 3"), said);
    assert_eq!(replies(&format!("{sample} --seed 3"), said), found);
    // Taken back and said again.
    let again = replies(&format!("{sample} --seed 3"), "hi\nthai\n:undo\nthai\n:reset\nhi\nthai\n");
    assert_eq!(again, [&found[..], &found[1..], &found[..]].concat());
    let mut seeds: Vec<Vec<String>> = (0..6).map(|seed| replies(&format!("{sample} --seed {seed}"), said)).collect();
    seeds.sort();
    seeds.dedup();
    assert!(seeds.len() > 1, "{seeds:?}");
    // Drawn coldly, it is the most probable.
    let cold = replies("--set search={replace=true,kind='greedy',max_length={limit=12}}", said);
    assert_eq!(replies("", ":sample 0.0001\nhi\nthai\n"), cold);
    assert_eq!(replies("", ":greedy\nhi\nthai\n"), cold);
    assert_eq!(replies("", ":beam 1\nhi\nthai\n"), cold);
}

#[test]
fn commands_are_obeyed_and_mistakes_are_told() {
    let place = learned();
    let called = place.call_with("chat runs/chat", "hi\n:facts facts.txt\n:save saved.jsonl\n:help\n:quit\nhi\n");
    assert!(called.err().contains(":undo"), "{}", called.err());
    assert_eq!(called.succeeds().lines().count(), 1);
    assert_eq!(String::from_utf8(place.read("saved.jsonl")).unwrap().lines().count(), 1);
    let refused = |words: &str, said: &str| place.call_with(&format!("chat runs/chat {words}"), said).refuses();
    assert!(refused("", "hi\n:undo\n:undo\n").contains("standard input: line 3: there is nothing to take back"));
    assert!(refused("", ":beam wide\n").contains("lacks a width"));
    assert!(refused("", ":beam 0\n").contains("width: must be at least 1"));
    assert!(refused("", ":dance\n").contains("is no command"));
    assert!(refused("", ":save saved.jsonl\n").contains("is there already"));
    assert!(refused("--transcript saved.jsonl", "hi\n").contains("--transcript"));
    assert!(refused("--facts nowhere.txt", "hi\n").contains("nowhere.txt"));
    let called = place.call_with("chat runs/chat", "hi stranger\n");
    assert!(called.err().contains("does not know: `stranger`"), "{}", called.err());
    called.succeeds();
    // Without a history the last turn is all, and without a stream there are no facts.
    place.call("run chat.toml --run runs/plain --set train.steps=4 --set data={replace=true,kind='table',train='train.jsonl',source='last',target='response'} --set streams={replace=true}").succeeds();
    let again = place.call_with("chat runs/plain", "thai\nthai\n").succeeds();
    let lines: Vec<&str> = again.lines().collect();
    assert_eq!(lines[0], lines[1]);
    assert!(place.call_with("chat runs/plain --facts facts.txt", "hi\n").refuses().contains("no stream `facts`"));
}

/// Follows `docs/dialogs.md`: its configs are right, its commands work as they stand, and so do its rows.
#[cfg(unix)]
mod guide {
    use super::*;
    use crate::guide::{blocks, commands, configs_are_right, follow, page, write_cargo, write_configs};

    /// What makes the guide's models small.
    const SMALL: &[(&str, &str)] = &[("ANTIPHON__THREADS", "1"), ("ANTIPHON__TRAIN__STEPS", "4")];

    #[test]
    fn the_guide_can_be_followed_as_it_stands() {
        let (page, place) = (page("dialogs.md"), Place::new());
        write_cargo(&place);
        for (name, numbers) in [("train", 0..60), ("validation", 60..72), ("test", 72..80)] {
            place.write(&format!("data/mine/{name}.jsonl"), rows(numbers));
        }
        let [given] = blocks(&page, "json")[..] else { panic!("rows, once") };
        place.write("more.jsonl", given);
        place.write("facts.txt", "resto_rome cuisine italian\n");
        write_configs(&page, &place);
        let mut words = Vec::new();
        for block in blocks(&page, "sh") {
            words.push(commands(block));
            let out = follow(&place, block, SMALL).out();
            match words.len() {
                1 => assert!(out.contains("dialog_accuracy") && out.contains("response_accuracy"), "{out}"),
                2 => assert!(out.contains("source in train"), "{out}"),
                _ => assert!(out.contains("reverse_weight") && out.contains("within 10 % of the best bleu"), "{out}"),
            }
        }
        assert_eq!(
            words,
            [vec!["check", "run", "predict", "chat", "evaluate"], vec!["data"], vec!["run", "run", "tune"]]
        );
    }

    #[test]
    fn its_configs_are_right() {
        assert!(configs_are_right(&page("dialogs.md"), 4) >= 3);
    }
}
