//! Every command that is printed for the user works as it is printed.

use std::process::{Command, Stdio};

use crate::data::{downloaded, served};
use crate::place::{Called, Place};

/// What others would have to be told to find their way.
const ELSEWHERE: &[&str] = &["--data-dir", "my data", "--runs-dir", "my runs"];

/// A place whose folders are not the default ones and need quotes.
fn elsewhere() -> Place {
    let place = Place::new();
    std::fs::rename(place.path("data"), place.path("my data")).unwrap();
    place
}

/// Every command that a text suggests: behind `next` and in the lines below it, and between backticks.
fn suggested(text: &str, program: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_next = false;
    for line in text.lines() {
        is_next = line.starts_with("next ") || is_next && line.starts_with(&" ".repeat(11));
        if is_next {
            found.push(line[11..].to_owned());
        }
        found.extend(line.split('`').skip(1).step_by(2).filter(|part| part.starts_with(program)).map(str::to_owned));
    }
    found
}

/// Gives words to the program and then every command that it suggests to a shell: it must suggest these commands, and they must
/// work.
#[track_caller]
fn follow(place: &Place, words: &[&str], called_as: Option<&str>, commands: &[&str]) {
    let program = called_as.unwrap_or(env!("CARGO_BIN_EXE_antiphon"));
    let shell = |mut command: Command| {
        if let Some(called_as) = called_as {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("ANTIPHON_CALLED_AS", called_as).env("PATH", format!("{}:{path}", place.path("bin").display()));
        }
        Called(command.stdin(Stdio::null()).output().unwrap())
    };
    let mut command = place.command("");
    command.args(words);
    let called = shell(command);
    let said = called.out() + &called.err();
    let found = suggested(&said, program);
    let named = |line: &String| {
        let behind = line.split(program).nth(1).unwrap_or_else(|| panic!("{line} is not of {program}\n{said}"));
        behind.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(found.iter().map(named).collect::<Vec<_>>(), commands, "{said}");
    for line in found {
        let mut command = place.shell();
        command.args(["-c", &line]);
        let followed = shell(command);
        assert_eq!(followed.0.status.code(), Some(0), "{line}\n{}\n{}", followed.out(), followed.err());
    }
}

#[track_caller]
fn follow_elsewhere(place: &Place, words: &str, commands: &[&str]) {
    let words: Vec<&str> = words.split_whitespace().chain(ELSEWHERE.iter().copied()).collect();
    follow(place, &words, None, commands);
}

#[test]
fn what_is_said_at_the_end_of_a_run_or_a_sweep_works() {
    let place = elsewhere();
    let short = "-q --set train.epochs=1";
    follow_elsewhere(&place, &format!("train tiny.toml {short}"), &["evaluate", "predict"]);
    follow_elsewhere(&place, &format!("run tiny.toml {short}"), &["predict"]);
    follow_elsewhere(&place, &format!("run tiny.toml {short} --set seed=2"), &["predict", "compare"]);
    follow_elsewhere(&place, "run tiny.toml -q --set train.epochs=2", &["predict", "compare", "extend"]);
    let sweep =
        "extends = \"tiny.toml\"\ntrain.epochs = 1\n[sweep.over]\n\"model.encoder.kind\" = [\"gru\", \"rnn\"]\n";
    place.write("sweep.toml", sweep);
    follow_elsewhere(&place, "sweep sweep.toml -q", &["run"]);
    follow_elsewhere(&place, "run sweep.toml -q", &["predict", "compare", "sweep"]);

    // Called by `cargo xtask`, which passes the words on.
    let script = format!("#!/bin/sh\nshift\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_antiphon"));
    place.write("bin/cargo", script);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(place.path("bin/cargo"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let words: Vec<&str> = ["sweep", "sweep.toml", "-q"].into_iter().chain(ELSEWHERE.iter().copied()).collect();
        follow(&place, &words, Some("cargo xtask"), &["run"]);
    }
}

#[test]
fn a_remedy_works() {
    let place = elsewhere();
    follow_elsewhere(&place, "evaluate tiny.toml --set train.epochs=1 --set search.width=2", &["run"]);
    let run = std::fs::read_dir(place.path("my runs")).unwrap().next().unwrap().unwrap().path();
    // A run of which nothing is left but its record.
    for name in ["model.safetensors", "results.json"] {
        std::fs::remove_file(run.join(name)).unwrap();
    }
    std::fs::remove_dir_all(run.join("checkpoints")).unwrap();
    follow(&place, &["predict", run.to_str().unwrap()], None, &["run"]);
    assert!(run.join("model.safetensors").is_file(), "it goes on in its folder");

    let url = served("a\tb\nc\td\n");
    place.write("recipes/words/recipe.toml", downloaded(&url, "a\tb\nc\td\n"));
    let data = "data={replace=true,kind='pairs',train='words/train.tsv',recipe='words'}";
    follow_elsewhere(&place, &format!("run tiny.toml --set {data}"), &["data"]);
    assert!(place.path("my data/words/train.tsv").is_file());
}

#[test]
fn an_option_that_is_a_setting_is_shown_as_one() {
    let place = Place::new();
    let tips = |words: &str| {
        let called = place.call(words);
        assert_eq!(called.0.status.code(), Some(2), "{}", called.err());
        let err = called.err();
        err.lines().filter_map(|line| line.trim().strip_prefix("tip: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let set = |set: &str| format!("a setting is changed by `--set {set}`");
    assert_eq!(tips("run tiny.toml --epochs 5"), [set("train.epochs=5")]);
    assert_eq!(tips("train tiny.toml --label-smoothing=0.1"), [set("train.loss.label_smoothing=0.1")]);
    assert_eq!(tips("sweep tiny.toml --epoch 5"), [set("train.epochs=5")]);
    assert_eq!(
        tips("check tiny.toml --patience"),
        ["search", "train.average", "train.schedule", "train.stop"].map(|k| set(&format!("{k}.patience=VALUE")))
    );
    assert_eq!(tips("predict model --width 3"), [set("search.width=3")]);
    assert_eq!(tips("score model --max-target 3"), [set("data.max_target=3")]);
    assert_eq!(tips("run tiny.toml --thread 3"), ["a similar argument exists: '--threads'"]);
    // Nothing can be changed, or nothing is called so.
    for words in [
        "score model --epochs 3",
        "predict model --epochs 3",
        "run tiny.toml --colour red",
        "run tiny.toml --lr 3",
        "runs --epochs 3",
    ] {
        assert_eq!(tips(words), [""; 0], "{words}");
    }
    let usage = format!("\nUsage: {} run ", env!("CARGO_BIN_EXE_antiphon"));
    let err = place.call("run tiny.toml --colour red").err();
    assert!(err.contains(&usage), "{err}");
    let help = place.call("--help").succeeds();
    assert!(
        help.contains(&format!("\n  {} run configs/g2p/quickstart.toml\n", env!("CARGO_BIN_EXE_antiphon"))),
        "{help}"
    );
}
