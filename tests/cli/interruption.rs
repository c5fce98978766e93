//! SIGINT and SIGTERM leave a run that can go on, to the same end.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::place::{Called, Place};

fn send(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "kill {signal}");
}

/// Waits until the run has logged some steps.
fn wait_for_steps(place: &Place, folder: &str, lines: usize) {
    let began = Instant::now();
    let logged = || std::fs::read_to_string(place.path(&format!("{folder}/metrics.jsonl"))).unwrap_or_default();
    while logged().lines().count() < lines {
        assert!(began.elapsed() < Duration::from_secs(60), "the run does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const LONG: &str = "--set train.epochs=60 --set train.validate.every_epochs=5";

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bytes() {
    let place = Place::new();
    place.call(&format!("run tiny.toml {LONG} --run whole")).succeeds();
    for (signal, lines) in [("-TERM", 20), ("-INT", 300)] {
        let child = place.start(&format!("run tiny.toml {LONG} --run parts"));
        wait_for_steps(&place, "parts", lines);
        send(&child, signal);
        let called = Called(child.wait_with_output().unwrap());
        assert_eq!(called.0.status.code(), Some(130), "{}", called.err());
        assert!(called.err().contains("stopped; go on with the same command (parts)"), "{}", called.err());
        assert!(!place.path("parts/model.safetensors").exists());
        let listed = place.call("runs --runs-dir .").succeeds();
        assert!(listed.lines().any(|line| line.starts_with("parts") && line.contains(" stopped ")), "{listed}");
    }
    let called = place.call(&format!("run tiny.toml {LONG} --run parts"));
    assert!(called.err().contains("resume   after step "), "{}", called.err());
    called.succeeds();
    assert_eq!(place.read("parts/model.safetensors"), place.read("whole/model.safetensors"));
    assert_eq!(place.read("parts/predictions-test.jsonl"), place.read("whole/predictions-test.jsonl"));
    let steps = |folder: &str| {
        let text = String::from_utf8(place.read(&format!("{folder}/metrics.jsonl"))).unwrap();
        let records = text.lines().map(|line| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            record["seconds"] = 0.into();
            record
        });
        records.collect::<Vec<_>>()
    };
    assert_eq!(steps("parts"), steps("whole"));
}

#[test]
fn a_run_that_was_killed_goes_on_too() {
    let place = Place::new();
    let words = format!("train tiny.toml {LONG} --set train.checkpoint.every_steps=10");
    let mut child = place.start(&words);
    let began = Instant::now();
    // A folder under a hidden name is not a run yet.
    let born =
        |entry: std::io::Result<std::fs::DirEntry>| !entry.unwrap().file_name().to_string_lossy().starts_with('.');
    while !std::fs::read_dir(place.path("runs")).is_ok_and(|mut entries| entries.any(born)) {
        assert!(began.elapsed() < Duration::from_secs(60), "the run does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    let run = place.only_run();
    wait_for_steps(&place, &run, 50);
    // Nobody else may train there meanwhile.
    let answer = place.call(&words).refuses();
    assert!(answer.contains("another process is at work in this run"), "{answer}");
    child.kill().unwrap();
    child.wait().unwrap();
    let listed = place.call("runs").succeeds();
    assert!(listed.contains(" broken off "), "{listed}");
    // What it has saved can answer already.
    let called = place.call_with(&format!("predict {run}"), "abc\n");
    let said = format!("warning: {run}: is not trained to its end; it is taken as of its ");
    assert!(called.err().starts_with(&said) && called.err().contains(" checkpoint"), "{}", called.err());
    assert_eq!(called.succeeds().lines().count(), 1);
    let called = place.call(&words);
    assert!(called.err().contains("resume   after step "), "{}", called.err());
    called.succeeds();
    assert!(place.path(&format!("{run}/model.safetensors")).is_file());
}

#[test]
fn a_run_begins_while_others_look_at_it() {
    let place = Place::new();
    place.call("train tiny.toml -q --set train.epochs=60 --pause-after-steps 1").succeeds();
    let run = place.only_run();
    // As if its process had died: whoever lists it has to look whether somebody is at work.
    let manifest = String::from_utf8(place.read(&format!("{run}/manifest.json"))).unwrap();
    place.write(&format!("{run}/manifest.json"), manifest.replace("\"stopped\"", "\"running\""));
    assert!(place.call("runs").succeeds().contains(" broken off "));
    // The same lock, looked at far more often than a program could.
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let run = antiphon_lab::Run::open(place.path(&run)).unwrap();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                run.is_at_work().unwrap();
            }
        });
        for step in 2..=4 {
            place.call(&format!("train tiny.toml -q --set train.epochs=60 --pause-after-steps {step}")).succeeds();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
