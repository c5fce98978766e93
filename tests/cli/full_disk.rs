//! A disk without room: exit code 2, file and remedy; with room again the run goes on, to the same bytes.
//!
//! The room is taken by a limit on the size of files. The signal that comes with it is ignored, so that writing fails as it does
//! on a full disk.

use std::process::{Command, Stdio};

use crate::place::{CONFIG, Called, Place};

/// The unit of the shell's limit, in bytes.
const BLOCK: u64 = 512;

/// Calls the program, which can write files of at most `blocks`.
fn call_within(place: &Place, blocks: u64, words: &str) -> Called {
    let script = format!("ulimit -f {blocks}; trap '' XFSZ; exec \"$@\"");
    let program = place.command(words);
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(program.get_program()).args(program.get_args());
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    command.current_dir(place.path("")).stdin(Stdio::null());
    Called(command.output().expect("there is a shell"))
}

/// Runs `config` with files limited to below the size of `file`, which is the first that does not fit; then without a limit.
fn check(config: &str, file: &str, holds: impl Fn(&Place) -> u64) {
    let place = Place::new();
    place.write("data/validation.tsv", crate::place::pairs(700..1000));
    place.write("a.toml", config);
    place.call("run a.toml --run whole -q").succeeds();
    let blocks = holds(&place);
    let answer = call_within(&place, blocks, "run a.toml --run parts -q").refuses();
    assert!(answer.starts_with(&format!("error: parts/{file}")), "{file}, {blocks} blocks: {answer}");
    assert!(answer.contains(": cannot ") && answer.ends_with(", then give the same command again"), "{answer}");
    // As often as one likes.
    call_within(&place, blocks, "run a.toml --run parts -q").refuses();
    place.call("run a.toml --run parts -q").succeeds();
    for file in ["model.safetensors", "predictions-validation.jsonl", "predictions-test.jsonl"] {
        let of = |run: &str| place.read(&format!("{run}/{file}"));
        assert!(of("whole") == of("parts"), "{file}");
    }
}

/// As many blocks as are less than a file of the whole run.
fn less_than(place: &Place, file: &str) -> u64 {
    (place.read(&format!("whole/{file}")).len() as u64 - 1) / BLOCK
}

/// The config with a model of next to nothing.
fn small() -> String {
    CONFIG.replace("= 16", "= 2")
}

#[test]
fn no_room_for_a_checkpoint() {
    let config = CONFIG.replace("epochs = 2", "epochs = 2\ncheckpoint = { every_steps = 5 }");
    check(&config, "checkpoints/step-0000000005.safetensors: ", |place| less_than(place, "model.safetensors"));
}

#[test]
fn no_room_for_the_log() {
    let config = small().replace("epochs = 2", "epochs = 8\nvalidate = { every_epochs = 0 }");
    check(&config, "metrics.jsonl: ", |place| less_than(place, "metrics.jsonl") / 2);
}

#[test]
fn no_room_for_the_model() {
    // Plain steps need no memory, so that a checkpoint is the smaller file: the model has its settings with it.
    let config = CONFIG.replace("kind = \"adam\"", "kind = \"sgd\"");
    check(&config, "model.safetensors: ", |place| less_than(place, "model.safetensors"));
}

#[test]
fn no_room_for_the_predictions() {
    let config = small().replace("width = 3", "width = 3\nn_best = 3");
    check(&config, "predictions-validation.jsonl: ", |place| less_than(place, "predictions-validation.jsonl"));
}

#[test]
fn no_room_for_a_new_run() {
    let place = Place::new();
    let answer = call_within(&place, 0, "run tiny.toml --run parts").refuses();
    assert!(answer.contains("config.toml: cannot write: "), "{answer}");
    let left: Vec<_> = std::fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("run")), "{left:?}");
}
