//! Runs: what is left in their folders, what happens when a command is given again.

use serde_json::Value;

use crate::place::{Place, finished};

#[test]
fn a_run_says_what_came_out_and_what_to_do_next() {
    let (place, run, out) = finished();
    for expected in ["sequence_error_rate", "phone_error_rate", "loss_per_character", "3 of ", " -> ", "core-minutes"] {
        assert!(out.contains(expected), "{expected}\n{out}");
    }
    assert!(out.contains(&format!(" predict {run}\n")) && !out.contains(" compare "), "{out}");
    for file in ["config.toml", "manifest.json", "metrics.jsonl", "model.safetensors", "results.json"] {
        assert!(place.path(&format!("{run}/{file}")).is_file(), "{file}");
    }
    let results: Value = serde_json::from_slice(&place.read(&format!("{run}/results.json"))).unwrap();
    for split in ["validation", "test"] {
        let losses = &results[split]["losses"];
        // The words of the targets are one character each, and a space stands between them.
        let (tokens, characters) =
            (&results[split]["counts"]["target_tokens"], &results[split]["counts"]["target_characters"]);
        let nats = losses["per_token"].as_f64().unwrap() * tokens.as_f64().unwrap();
        let again = losses["per_character"].as_f64().unwrap() * characters.as_f64().unwrap();
        assert!((nats - again).abs() < 1e-9 * nats, "{results}");
        let text = String::from_utf8(place.read(&format!("data/{split}.tsv"))).unwrap();
        let counted: usize = text.lines().map(|line| line.split('\t').nth(1).unwrap().chars().count() + 1).sum();
        assert_eq!(characters.as_u64(), Some(counted as u64));
    }
    let metrics = String::from_utf8(place.read(&format!("{run}/metrics.jsonl"))).unwrap();
    let records: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<u64> = records.iter().filter(|r| r["kind"] == "step").map(|r| r["step"].as_u64().unwrap()).collect();
    assert!(steps.into_iter().eq(1..=38), "{metrics}"); // 600 pairs in batches of 32, twice
    assert_eq!(records.iter().filter(|r| r["kind"] == "validation").count(), 2);
    assert!(
        records.iter().all(|r| r["kind"] == "validation" || r["loss"].is_number() && r["gradient_norm"].is_number())
    );
}

#[test]
fn a_finished_run_prints_its_result_and_is_repeated_only_when_asked() {
    let place = Place::new();
    let first = place.call("run tiny.toml").succeeds();
    let run = place.only_run();
    let files = |name: &str| place.read(&format!("{run}/{name}"));
    let (manifest, results, model) = (files("manifest.json"), files("results.json"), files("model.safetensors"));
    assert_eq!(place.call("run tiny.toml").succeeds(), first);
    assert_eq!(place.call("train tiny.toml").err().lines().count(), 1);
    assert_eq!((files("manifest.json"), files("results.json")), (manifest, results.clone()));

    place.call("run tiny.toml --again").succeeds();
    assert_eq!(place.read(&format!("{run}-2/model.safetensors")), model, "the same experiment gives the same bytes");
    assert_eq!(files("results.json"), results, "the first run is not touched");
    place.call("run tiny.toml --set seed=2").succeeds();
    let listed = place.call("runs").succeeds();
    assert_eq!(listed.lines().filter(|line| line.contains(" finished ")).count(), 3, "{listed}");
    let other = listed
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .find(|n| n.starts_with("tiny") && !run.contains(n) && !n.ends_with("-2"));
    let compared = place.call(&format!("compare {run} {}", other.unwrap())).succeeds();
    assert!(compared.lines().any(|line| line.split_whitespace().eq(["seed", "1", "2"])), "{compared}");
    // Nobody differs from himself.
    let alone = place.call(&format!("compare {run} {run}")).succeeds();
    for figure in ["validation sequence_error_rate: ", "test phone_error_rate: "] {
        let line = alone.lines().find(|line| line.starts_with(figure)).unwrap_or_else(|| panic!("{alone}"));
        assert!(line.ends_with(" = 0.0000 (0.0000 to 0.0000), p = 1.0000 and 1.0000"), "{line}");
    }
}

#[test]
fn runs_are_listed_with_what_sets_them_apart() {
    let place = Place::new();
    for set in ["seed=1", "seed=2", "model.encoder.hidden=8"] {
        place.call(&format!("train tiny.toml -q --set train.epochs=1 --set {set}")).succeeds();
    }
    let listed = |words: &str| place.call(&format!("runs {words}")).succeeds();
    let all = listed("");
    let head: Vec<&str> = all.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["run", "state", "end", "seed", "started", "minutes", "hidden", "figures"], "{all}");
    assert_eq!(listed("--where encoder.hidden=8").lines().count(), 2);
    assert_eq!(listed("--where status=trained --where seed=1 --sort encoder.hidden").lines().count(), 3);
    assert_eq!(listed("--where seed=7"), "runs: no such runs\n");
    assert!(place.call("runs --where hiden=8").refuses().ends_with("no run has a setting `hiden`"));
    assert!(place.call("runs --where evaluate.rws=8").refuses().ends_with("; did you mean `evaluate.rows`?"));
    let document: Value = serde_json::from_str(&listed("--where seed=2 --json")).unwrap();
    let one = &document["runs"].as_array().unwrap()[0];
    assert_eq!(
        (&one["settings"]["train"]["epochs"], &one["state"], &one["results"]),
        (&1.into(), &"trained".into(), &Value::Null)
    );
    assert_eq!(one["manifest"]["training"]["reason"], "epochs");
}

#[test]
fn a_run_on_other_threads_is_another_run_and_the_first_is_named() {
    let place = Place::new();
    place.call("train tiny.toml -q --set train.epochs=1").succeeds();
    let run = place.only_run();
    // Named by its config, a model is that of as many threads, and which it is is said.
    place.call("train tiny.toml -q --set train.epochs=1 --set threads=2 --run runs/two").succeeds();
    for (threads, taken) in [(1, run.as_str()), (2, "runs/two")] {
        let called = place.call(&format!("score tiny.toml --threads {threads} --input none.tsv"));
        let said = format!("tiny.toml: 2 runs have these settings; this is {taken}\n");
        assert!(!called.err().contains(&said), "these settings differ: {}", called.err());
        let called =
            place.call(&format!("predict tiny.toml --set train.epochs=1 --threads {threads} --input none.tsv"));
        assert!(called.err().starts_with(&said), "{}", called.err());
    }
    std::fs::remove_dir_all(place.path("runs/two")).unwrap();
    let called = place.call("train tiny.toml -q --set train.epochs=1 --set threads=2");
    let (err, expected) = (called.err(), format!("warning: {run} is this experiment with `threads = 1`, not 2, "));
    assert!(err.starts_with(&expected) && err.ends_with("`--threads 1` goes on with that one\n"), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    called.succeeds();
    assert_eq!(place.call("train tiny.toml -q --set train.epochs=1 --set seed=2").err(), "");
}

#[test]
fn training_and_evaluation_can_be_two_commands() {
    let place = Place::new();
    let out = place.call("train tiny.toml --run mine --set evaluate.validation_examples=5").succeeds();
    assert!(out.contains("evaluate mine"), "{out}");
    assert!(!place.path("mine/results.json").exists());
    for split in ["validation", "test"] {
        let out = place.call(&format!("evaluate mine --split {split}")).succeeds();
        assert!(out.contains("sequence_error_rate") && out.contains("3 of "), "{out}");
    }
    let results: Value = serde_json::from_slice(&place.read("mine/results.json")).unwrap();
    assert!(results["validation"].is_object() && results["test"].is_object(), "{results}");
    assert_eq!(results["steps"], 38);

    // Other settings or other data are measured, but are not the run's results.
    let before = place.read("mine/results.json");
    place.call("evaluate mine --set search.kind=greedy").succeeds();
    assert_eq!(place.read("mine/results.json"), before);
    place.write("data/test.tsv", "ab\tA B\n");
    let called = place.call("evaluate mine");
    assert!(called.err().contains("data/test.tsv: is not the file that the run read"), "{}", called.err());
    called.succeeds();
    assert_eq!(place.read("mine/results.json"), before);
    place.write("data/test.tsv", crate::place::pairs(640..680));
    let called = place.call("evaluate mine --threads 2");
    assert!(called.err().contains("mine: its results are of another number of threads"), "{}", called.err());
    called.succeeds();
    assert_eq!(place.read("mine/results.json"), before);
    // A model alone is measured too.
    assert!(place.call("evaluate mine/model.safetensors").succeeds().contains("examples"));
}

#[test]
fn a_run_is_found_by_all_the_settings_that_it_was_made_with() {
    let place = Place::new();
    let set = "--set search.width=2";
    place.call(&format!("run tiny.toml -q --set train.epochs=1 {set}")).succeeds();
    let run = place.only_run();
    let found = place.call(&format!("evaluate tiny.toml --set train.epochs=1 {set}"));
    assert_eq!(found.err(), "", "these are its own settings");
    found.succeeds();
    // Another width is a change of a run that is not there.
    let answer = place.call("evaluate tiny.toml --set train.epochs=1 --set search.width=4").refuses();
    assert!(answer.contains("has not been run with these settings"), "{answer}");
    assert_eq!(place.only_run(), run);
}

#[test]
fn a_run_of_another_commit_is_told_from_this_one() {
    let place = Place::new();
    let call = || place.call("run tiny.toml -q --set train.epochs=1").err();
    assert_eq!(call() + &call(), "");
    let run = place.only_run();
    let name = format!("{run}/manifest.json");
    let mut manifest: Value = serde_json::from_slice(&place.read(&name)).unwrap();
    let own = std::mem::replace(
        &mut manifest["revision"],
        serde_json::json!({ "commit": "0123456789abcdef", "dirty": true }),
    );
    place.write(&name, manifest.to_string());
    let told = call();
    match own["commit"].as_str() {
        // Built outside of any repository.
        None => assert_eq!(told, ""),
        Some(commit) => {
            let made =
                format!("warning: {run}: was made by commit 0123456789 with changes, and this is commit {commit:.10}");
            assert!(told.starts_with(&made) && told.ends_with("; `--again` repeats it\n"), "{told}");
        }
    }
}

#[test]
fn a_normalization_that_references_lack_is_told() {
    let place = Place::new();
    let called = place.call("run tiny.toml -q --set train.epochs=1 --set tokenizer.target.normalization=['lowercase']");
    let expected = " sources, the first in line 1, are not written as the target's `normalization` has it";
    assert!(called.err().contains(expected), "{}", called.err());
    called.succeeds();
    // Where it changes none of them there is nothing to say.
    let called = place.call("run tiny.toml -q --set train.epochs=1 --set tokenizer.target.normalization=['nfc']");
    assert!(!called.err().contains("references"), "{}", called.err());
}

#[test]
fn without_other_splits_there_is_training_alone() {
    let place = Place::new();
    let words = "run tiny.toml --set data={replace=true,kind='pairs',train='train.tsv'} --set train.epochs=1 -q";
    let called = place.call(words);
    let err = called.err();
    assert!(err.lines().count() == 1 && err.ends_with(": nothing will be measured\n"), "{err}");
    let out = called.succeeds();
    assert!(out.contains("19 updates") && !out.contains(" -> "), "{out}");
}

#[test]
fn a_better_search_figure_can_choose_the_model() {
    let place = Place::new();
    let words = "train tiny.toml --set evaluate.validation_examples=10 --set train.validate.metric=phone_error_rate";
    let err = place.call(words).err();
    assert!(err.contains("phone_error_rate ") && err.contains("best so far"), "{err}");
}

#[test]
fn a_run_is_not_finished_before_every_split_is_measured() {
    let place = Place::new();
    place.call("train tiny.toml").succeeds();
    let run = place.only_run();
    let model = place.read(&format!("{run}/model.safetensors"));
    place.call(&format!("evaluate {run} --split validation")).succeeds();
    place.call("run tiny.toml --set evaluate.show=1").succeeds();
    let results: Value = serde_json::from_slice(&place.read(&format!("{run}/results.json"))).unwrap();
    assert!(results["test"]["losses"]["per_token"].is_number() && results["validation"].is_object(), "{results}");
    assert_eq!(place.only_run(), run, "what is shown is no other experiment");
    assert_eq!(place.read(&format!("{run}/model.safetensors")), model, "nothing was trained again");
}

#[test]
fn damaged_results_are_an_error_and_stay() {
    let (place, run, _) = finished();
    let place_of = format!("{run}/results.json");
    let whole = place.read(&place_of);
    let copy = Place::new();
    copy.call("run tiny.toml").succeeds();
    copy.write(&place_of, &whole[..whole.len() / 2]);
    let answer = copy.call(&format!("evaluate {run}")).refuses();
    assert!(answer.contains("results.json") && answer.contains("`run` the config again"), "{answer}");
    assert_eq!(copy.read(&place_of), whole[..whole.len() / 2]);
    // As it says.
    let called = copy.call("run tiny.toml");
    assert!(called.err().contains("results.json: is damaged"), "{}", called.err());
    called.succeeds();
    let figures = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap()["test"].take();
    assert_eq!(figures(&copy.read(&place_of)), figures(&whole));
}
