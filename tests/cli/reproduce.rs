//! A config's promises, held against its run.

use crate::place::Place;

fn promise(place: &Place, text: &str) {
    place.write("promise.toml", format!("extends = \"tiny.toml\"\n{text}"));
}

/// What the run of `tiny.toml` gives.
fn measured(place: &Place) -> f64 {
    place.call("run tiny.toml").succeeds();
    let results = place.read(&format!("{}/results.json", place.only_run()));
    let results: serde_json::Value = serde_json::from_slice(&results).unwrap();
    results["test"]["metrics"]["sequence_error_rate"]["value"].as_f64().unwrap()
}

#[test]
fn a_promise_that_is_kept_is_met_and_a_falsified_one_is_caught() {
    let place = Place::new();
    let value = measured(&place);
    let run = place.only_run();
    let manifest: serde_json::Value = serde_json::from_slice(&place.read(&format!("{run}/manifest.json"))).unwrap();
    let digest = manifest["data"]["test.tsv"].as_str().unwrap();
    let figure = |value: f64| {
        format!(
            "[expect]\nfigures = [{{ split = \"test\", metric = \"sequence_error_rate\", value = {value}, tolerance = 0.1 }}]\n\
             data = {{ \"test.tsv\" = \"{digest}\" }}\ncore_minutes = {{ value = 5 }}\n"
        )
    };
    promise(&place, &figure(value));
    let out = place.call("reproduce promise.toml").succeeds();
    assert!(out.contains("all 3 expectations are met") && !out.contains("NOT"), "{out}");
    assert_eq!(place.only_run(), run, "the finished run is used: a promise is no setting of it");

    promise(&place, &figure(value + 0.2));
    let called = place.call("reproduce promise.toml");
    assert_eq!(called.0.status.code(), Some(1), "{}", called.err());
    assert!(
        called.out().contains("NOT MET") && called.err().ends_with("1 of 3 expectations are not met\n"),
        "{}",
        called.out()
    );

    promise(&place, &figure(value).replace(digest, "0123456789"));
    let called = place.call("reproduce promise.toml");
    assert_eq!(called.0.status.code(), Some(1), "{}", called.err());
    assert!(
        called.out().lines().any(|line| line.contains("data test.tsv") && line.contains("NOT MET")),
        "{}",
        called.out()
    );
}

#[test]
fn a_config_that_was_not_run_is_run_and_one_that_was_is_repeated_when_asked() {
    let place = Place::new();
    let text = "[expect]\nfigures = [{ split = \"validation\", metric = \"perplexity\", value = 1e6, tolerance = 1, better_is_fine = true }]\n";
    promise(&place, text);
    let called = place.call("reproduce promise.toml");
    assert!(called.err().contains("run      runs/promise-"), "{}", called.err());
    called.succeeds();
    let run = place.only_run();
    place.call("reproduce promise.toml --again").succeeds();
    let repeated = format!("{run}-2/model.safetensors");
    assert_eq!(place.read(&repeated), place.read(&format!("{run}/model.safetensors")));
}

#[test]
fn promises_are_checked_before_anything_runs() {
    let place = Place::new();
    let answer = place.call("reproduce tiny.toml").refuses();
    assert!(answer.starts_with("error: tiny.toml: promises nothing: add `[expect]`"), "{answer}");
    promise(&place, "[expect]\nfigures = [{ split = \"test\", metric = \"bleu\", value = 1, tolerance = -1 }]\n");
    let answer = place.call("reproduce promise.toml").refuses();
    assert!(answer.contains("expect.figures.0.tolerance") && !place.path("runs").exists(), "{answer}");
    promise(&place, "[expect]\nfigures = [{ split = \"test\", metric = \"bleu\", value = 1, tolerance = 1 }]\n");
    let answer = place.call("reproduce promise.toml").refuses();
    assert!(
        answer.contains("results have no `bleu`; they have ") && answer.contains("`sequence_error_rate`"),
        "{answer}"
    );
}

/// The training that `reproduce` has started ends with it, however it ends, and goes on from there.
#[cfg(unix)]
#[test]
fn no_training_outlives_a_reproduction() {
    use std::process::Stdio;
    use std::time::{Duration, Instant};
    let place = Place::new();
    let promise_of = "[train]\nepochs = 60\nvalidate = { every_epochs = 20 }\n[expect]\n\
                      figures = [{ split = \"test\", metric = \"perplexity\", value = 1e6, tolerance = 1, better_is_fine = true }]\n";
    promise(&place, promise_of);
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(60), "{what} does not come");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let runs = || {
        let entries = std::fs::read_dir(place.path("runs")).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.join("manifest.json").exists()).collect::<Vec<_>>()
    };
    let lines = || {
        let log = runs().first().and_then(|run| std::fs::read_to_string(run.join("metrics.jsonl")).ok());
        log.map_or(0, |log| log.lines().count())
    };
    for (signal, code) in [("-KILL", None), ("-TERM", Some(130))] {
        let before = lines();
        // Without any other program: none is needed to stop it.
        let mut command = place.command("reproduce promise.toml");
        command.env("PATH", "/nowhere").stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        until("the training", &|| lines() > before + 30);
        let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal}");
        let ended = crate::place::Called(child.wait_with_output().unwrap());
        assert_eq!(ended.0.status.code(), code, "{}", ended.err());
        let listed = || place.call("runs").succeeds();
        until("the end of the training", &|| listed().lines().any(|line| line.contains(" stopped ")));
        let log = lines();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(lines(), log, "somebody is still at work");
    }
    let called = place.call("reproduce promise.toml");
    assert!(called.err().contains("resume   after step "), "{}", called.err());
    called.succeeds();
}
