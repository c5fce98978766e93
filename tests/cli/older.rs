//! Runs that version 0.1.0 made: `tests/v0.1` holds one that is finished and one that was stopped.

use std::path::Path;

use serde_json::Value;

use crate::place::Place;

const FINISHED: &str = "runs/old-55e2fe1a";
const STOPPED: &str = "runs/old-09627bff";

/// A copy of them, which may be written to.
fn older() -> Place {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            match from.is_dir() {
                true => copy(&from, &to),
                false => _ = std::fs::copy(from, to).unwrap(),
            }
        }
    }
    let place = Place::new();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/v0.1"), &place.path(""));
    place
}

#[test]
fn a_finished_run_is_read_reported_and_predicted_with() {
    let place = older();
    let text = String::from_utf8(place.read(&format!("{FINISHED}/predictions-test.jsonl"))).unwrap();
    let written: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answers: String = written.iter().map(|w| format!("{}\n", w["answers"][0]["text"].as_str().unwrap())).collect();
    let sources: String = written.iter().map(|w| format!("{}\n", w["source"].as_str().unwrap())).collect();
    for what in [FINISHED, "runs/old-55e2fe1a/model.safetensors", "old.toml"] {
        assert_eq!(place.call_with(&format!("predict {what}"), &sources).succeeds(), answers, "{what}");
    }
    let results: Value = serde_json::from_slice(&place.read(&format!("{FINISHED}/results.json"))).unwrap();
    let out = place.call(&format!("evaluate {FINISHED}")).succeeds();
    let loss = out.lines().find(|line| line.starts_with("loss_per_token")).unwrap();
    let loss: f64 = loss.split_whitespace().last().unwrap().parse().unwrap();
    assert!((loss - results["test"]["losses"]["per_token"].as_f64().unwrap()).abs() < 1e-4, "{out}");
    place.call(&format!("report {FINISHED}")).succeeds();
    assert!(place.path(&format!("{FINISHED}/report.html")).is_file());
    let listed = place.call("runs").succeeds();
    assert!(listed.contains("old-55e2fe1a") && listed.contains("old-09627bff"), "{listed}");
    let compared = place.call(&format!("compare {FINISHED} {STOPPED}")).succeeds();
    assert!(compared.contains("seed"), "{compared}");
    // The same experiment by this version is another run.
    let called = place.call("train old.toml --pause-after-steps 1");
    let warning = format!("warning: {FINISHED} is this experiment by version 0.1.0, whose figures may differ");
    assert!(called.err().contains(&warning), "{}", called.err());
    called.succeeds();
}

#[test]
fn a_stopped_run_is_not_gone_on_with() {
    let place = older();
    let words = "run old.toml --set seed=2 --pause-after-steps 1";
    let refused = format!("error: {STOPPED}: was begun by version 0.1.0 and is not finished; ");
    for (words, anew) in [(words.to_owned(), "`--again`"), (format!("{words} --run {STOPPED}"), "name another folder")]
    {
        let answer = place.call(&words).refuses();
        assert!(answer.starts_with(&refused) && answer.ends_with(anew), "{answer}");
        // Another run beside it hides nothing.
        place.call("train old.toml --set seed=2 --threads 2 --pause-after-steps 1 --run runs/other").succeeds();
    }
    let manifest = place.read(&format!("{STOPPED}/manifest.json"));
    place.call(&format!("{words} --again")).succeeds();
    assert_eq!(place.read(&format!("{STOPPED}/manifest.json")), manifest);
}
