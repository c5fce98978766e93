//! Trained models teach another: `[train.teacher]`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use antiphon::SavedModel;
use antiphon_train::save_weights;
use burn::tensor::Device;
use serde_json::Value;

use crate::place::{Called, Place};
use crate::{stream, text};

/// Two seeds of one config, and a model of another target vocabulary.
fn school() -> &'static Place {
    static SCHOOL: OnceLock<Place> = OnceLock::new();
    SCHOOL.get_or_init(|| {
        let place = Place::new();
        for seed in [1, 2] {
            place.call(&format!("train tiny.toml -q --run seed-{seed} --set seed={seed}")).succeeds();
        }
        let letters = "--set tokenizer.target.kind=character --set train.epochs=1";
        place.call(&format!("train tiny.toml -q --run letters {letters}")).succeeds();
        place
    })
}

/// The parameters of a run's model by their paths.
fn weights(place: &Place, run: &str) -> BTreeMap<String, Vec<f32>> {
    let saved = SavedModel::read(&place.path(&format!("{run}/model.safetensors")), &Device::flex()).unwrap();
    save_weights(&saved.model).into_iter().map(|weight| (weight.path, weight.values)).collect()
}

/// The largest distance between two parameters of the same place.
fn apart(one: &BTreeMap<String, Vec<f32>>, other: &BTreeMap<String, Vec<f32>>) -> f32 {
    assert!(one.keys().eq(other.keys()));
    let pairs = one.values().flatten().zip(other.values().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The numbers of a key in the steps of a run's log.
fn logged(place: &Place, run: &str, key: &str) -> Vec<f64> {
    let text = String::from_utf8(place.read(&format!("{run}/metrics.jsonl"))).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter(|record| record["kind"] == "step").filter_map(|record| record[key].as_f64()).collect()
}

fn data(place: &Place, run: &str) -> Value {
    serde_json::from_slice::<Value>(&place.read(&format!("{run}/manifest.json"))).unwrap()["data"].take()
}

#[test]
fn a_share_of_nothing_changes_no_bit() {
    let place = school();
    let words = "train tiny.toml --set seed=5 --set train.epochs=1 --set train.loss.label_smoothing=0.1";
    place.call(&format!("{words} -q --run alone")).succeeds();
    // So small that it vanishes beside 1 in single precision, and one that is not read at all.
    let teacher = |weight: &str| format!("--set train.teacher={{models=['seed-1','seed-2'],weight={weight}}}");
    place.call(&format!("{words} -q --run hardly {}", teacher("1e-30"))).succeeds();
    assert_eq!(weights(place, "hardly"), weights(place, "alone"));
    assert!(logged(place, "alone", "teacher_loss").is_empty());
    assert_eq!(logged(place, "hardly", "teacher_loss").len(), logged(place, "alone", "loss").len());
    let called = place.call(&format!("{words} --run none {}", teacher("0")));
    assert!(called.err().contains("train.teacher (--set): has no effect: its `weight` is 0"), "{}", called.err());
    called.succeeds();
    assert_eq!(weights(place, "none"), weights(place, "alone"));
    assert_eq!(data(place, "none"), data(place, "alone"), "it is not read");
}

#[test]
fn who_holds_what_the_teacher_holds_learns_nothing() {
    let place = school();
    let still =
        "--set train={replace=true,steps=4,optimizer={kind='sgd',learning_rate=1}} --set model.decoder.dropout=0";
    let start = "--set train.start_from.model=seed-1";
    for (run, models, temperature) in
        [("same", "'seed-1'", "1"), ("softer", "'seed-1','seed-1/model.safetensors'", "2")]
    {
        let teacher = format!("--set train.teacher={{models=[{models}],weight=1,temperature={temperature}}}");
        place.call(&format!("train tiny.toml -q --run {run} {still} {start} {teacher}")).succeeds();
        let moved = apart(&weights(place, run), &weights(place, "seed-1"));
        assert!(moved < 1e-5, "{run}: {moved}");
        let (all, theirs) = (logged(place, run, "loss"), logged(place, run, "teacher_loss"));
        assert_eq!(all, theirs, "{run}: all of the loss is theirs");
    }
    // What they hold possible, beside what is right.
    place.call(&format!("train tiny.toml -q --run right {still} {start}")).succeeds();
    assert!(apart(&weights(place, "right"), &weights(place, "seed-1")) > 1e-3);
}

#[test]
fn several_teach_as_an_ensemble_in_any_order() {
    let place = school();
    let run = |name: &str, teacher: &str| {
        // By a rule that does not turn what is nearly zero into whole steps.
        let words = "train tiny.toml -q --set seed=7 --set train.steps=12 --set \
                     train.optimizer={replace=true,kind='sgd',learning_rate=0.5}";
        place.call(&format!("{words} --run {name} --set train.teacher={{{teacher}}}")).succeeds();
        weights(place, name)
    };
    let both = run("both", "models=['seed-1','seed-2'],weights=[3,1],weight=0.7");
    let turned = run("turned", "models=['seed-2','seed-1'],weights=[1,3],weight=0.7");
    let distance = apart(&both, &turned);
    assert!(distance < 1e-3, "{distance}");
    for (name, other) in [
        ("even", "models=['seed-1','seed-2'],weight=0.7"),
        ("geometric", "models=['seed-1','seed-2'],weights=[3,1],combine='log_linear',weight=0.7"),
        ("one", "models=['seed-1'],weight=0.7"),
        ("soft", "models=['seed-1','seed-2'],weights=[3,1],weight=0.7,temperature=2"),
    ] {
        let apart = apart(&both, &run(name, other));
        assert!(apart > 4.0 * distance.max(1e-5), "{name}: {apart} {distance}");
    }
}

/// A larger teacher that knows the task, and a student that is drawn to it.
#[test]
fn a_student_comes_to_hold_what_its_teachers_hold() {
    let place = school();
    let called = place.call(
        "train tiny.toml --run student --set seed=3 --set model.encoder.hidden=24 --set model.encoder.kind=lstm \
         --set train.teacher={models=['seed-1','seed-2'],weight=0.5}",
    );
    let said =
        "teacher  seed-1/model.safetensors, seed-2/model.safetensors, combined linearly: 0.5 of the decoder's loss";
    assert!(called.err().contains(said), "{}", called.err());
    called.succeeds();
    let theirs = logged(place, "student", "teacher_loss");
    let (first, last) = (theirs[0], theirs[theirs.len() - 1]);
    assert!(last < 0.7 * first, "{first} {last}");
}

#[test]
fn the_bytes_of_a_teacher_are_part_of_who_learns_from_it() {
    let place = Place::new();
    place.call("train tiny.toml -q --run teacher --set train.epochs=1").succeeds();
    let words = "train tiny.toml -q --set seed=3 --set train.steps=2 --set train.teacher.models=['teacher']";
    place.call(words).succeeds();
    let first = place.only_run();
    let digest = antiphon_lab::sha256_file(place.path("teacher/model.safetensors")).unwrap();
    assert_eq!(data(&place, &first)["teacher/model.safetensors"], digest);
    place.call(words).succeeds();
    assert_eq!(place.only_run(), first, "the same experiment");
    place.call("train tiny.toml -q --run another --set train.epochs=1 --set seed=2").succeeds();
    std::fs::copy(place.path("another/model.safetensors"), place.path("teacher/model.safetensors")).unwrap();
    place.call(words).succeeds();
    assert_eq!(std::fs::read_dir(place.path("runs")).unwrap().count(), 2);
    // Whoever goes on with the run wants the teacher of the run.
    let longer = place.call(&format!("extend {first} --steps 2 -q --run longer")).refuses();
    assert!(longer.contains("teacher/model.safetensors: is not what this run learned from"), "{longer}");
    std::fs::remove_dir_all(place.path("teacher")).unwrap();
    // The model needs it no more.
    place.call_with(&format!("predict {first}"), "abc\n").succeeds();
    let said = place.call(words).refuses();
    assert!(said.contains("teacher: train.teacher.models.0: no such file"), "{said}");
    let checked = place.call(&words.replace("train tiny.toml -q", "check tiny.toml"));
    assert!(checked.err().contains("train.teacher.models.0 (--set): no such file `teacher`"), "{}", checked.err());
}

#[test]
fn a_longer_run_learns_from_the_same_teacher() {
    let place = school();
    let words = "train tiny.toml -q --set seed=4 --set train.teacher.models=['seed-1']";
    place.call(&format!("{words} --run short --set train.steps=6")).succeeds();
    place.call(&format!("{words} --run long --set train.steps=10")).succeeds();
    place.call("extend short --steps 4 -q --run longer").succeeds();
    for key in ["loss", "teacher_loss", "gradient_norm"] {
        let (longer, long) = (logged(place, "longer", key), logged(place, "long", key));
        assert!(longer == long && long.len() == 10, "{key}: {longer:?} {long:?}");
    }
}

/// Of texts, and of running text, whose teachers go on from batch to batch as the model does.
#[test]
fn language_models_teach_and_resume_exactly() {
    let place = text::place();
    place.write("stream.toml", stream::STREAM);
    for (config, more) in [("text", ""), ("stream", " --set train.accumulate=2")] {
        let words = format!("train {config}.toml -q --set threads=1{more}");
        for seed in [1, 2] {
            place.call(&format!("{words} --run {config}-{seed} --set seed={seed} --set train.epochs=1")).succeeds();
        }
        let teacher = format!("--set train.teacher={{models=['{config}-1','{config}-2']}}");
        let words = format!("{words} --set seed=3 {teacher}");
        let (whole, parts) = (format!("{config}-whole"), format!("{config}-parts"));
        place.call(&format!("{words} --run {whole}")).succeeds();
        let steps = logged(&place, &whole, "loss").len();
        for pause in [1, steps / 2 - 1, steps / 2 + 1] {
            place.call(&format!("{words} --run {parts} --pause-after-steps {pause}")).succeeds();
        }
        place.call(&format!("{words} --run {parts}")).succeeds();
        let hash = |run: &str| antiphon_lab::sha256_file(place.path(&format!("{run}/model.safetensors"))).unwrap();
        assert_eq!(hash(&parts), hash(&whole), "{config}");
        assert_eq!(logged(&place, &parts, "teacher_loss"), logged(&place, &whole, "teacher_loss"), "{config}");
    }
    let said = place.call("train text.toml -q --run odd --set train.teacher.models=['stream-1']").refuses();
    let expected = "stream-1/model.safetensors: train.teacher.models.0: is a model of running text, and the model of this \
                    config is a model of single texts";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn who_cannot_teach_is_refused_with_what_differs() {
    let place = school();
    let refused = |sets: &str| place.call(&format!("train tiny.toml -q --run refused {sets}")).refuses();
    let said = refused("--set train.teacher.models=['seed-1','letters']");
    let expected = "letters/model.safetensors: train.teacher.models.1: its vocabulary of `target` is not that of this config: 9 \
                    tokens, not 8; take it from that model: `tokenizer.target = { kind = \"model\", model = … }`";
    assert!(said.contains(expected), "{said}");
    // So it fits.
    let words = "--set tokenizer.target={kind='model',model='letters'} --set train.steps=1";
    place.call(&format!("train tiny.toml -q --run fits {words} --set train.teacher.models=['letters']")).succeeds();
    let said = refused("--set tokenizer.source.kind=byte --set train.teacher.models=['seed-1']");
    assert!(said.contains("its vocabulary of `source` is not that of this config"), "{said}");
    let said = place.call("check tiny.toml --set train.teacher.models=['letters']").refuses();
    assert!(said.contains("its vocabulary of `target` is not that of this config"), "{said}");
    let said = refused("--set train.teacher={models=['seed-1'],weights=[1,2]}");
    assert!(said.contains("train.teacher.weights (--set): there are 2 weights for 1 models"), "{said}");
    let alone = "--set model={replace=true,kind='ctc',source={kind='embedding',size=8},encoder={kind='gru',hidden=8}} \
                 --set search={replace=true,kind='best_path'}";
    let said = refused(&format!("{alone} --set train.teacher.models=['seed-1']"));
    assert!(said.contains("train.teacher.models (--set): teachers say how probable each token is"), "{said}");
    place.call(&format!("train tiny.toml -q --run ctc {alone} --set train.steps=1")).succeeds();
    let said = refused("--set train.teacher.models=['ctc']");
    assert!(said.contains("ctc/model.safetensors: train.teacher.models.0: has no decoder"), "{said}");
    let said = refused("--set model.ctc.weight=1 --set search.ctc_weight=1 --set train.teacher.models=['seed-1']");
    assert!(said.contains("train.teacher.models (--set): CTC has all of the loss"), "{said}");
    assert!(!place.path("refused").exists(), "no run begins");
}

/// Beside CTC, which keeps its own share; the teacher of recordings hears what is hidden from the student.
#[test]
fn recordings_are_taught_too() {
    let place = Place::new();
    crate::speech::furnish(&place);
    let small: Vec<(&str, &str)> =
        crate::speech::SMALL.iter().copied().filter(|(key, _)| !key.contains("EPOCHS")).collect();
    let call =
        |words: &str| Called(place.command(words).envs(small.iter().copied()).output().expect("the program starts"));
    let words = "train speech.toml -q --set train.epochs=1";
    call(&format!("{words} --run teacher")).succeeds();
    call(&format!("{words} --run student --set seed=2 --set train.teacher.models=['teacher']")).succeeds();
    let (all, theirs) = (logged(&place, "student", "loss"), logged(&place, "student", "teacher_loss"));
    assert!(all.len() == theirs.len() && theirs.iter().all(|loss| loss.is_finite() && *loss > 0.0), "{theirs:?}");
    let (first, last) = (theirs[0], theirs[theirs.len() - 1]);
    assert!(last < first, "{first} {last}");
}
