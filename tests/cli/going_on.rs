//! What is trained goes on: in a run that starts from another one's model, or that is the same run and longer.

use std::collections::BTreeMap;

use antiphon::SavedModel;
use antiphon_core::{TokenId, Tokenizer};
use antiphon_train::{Weight, save_weights};
use burn::tensor::Device;
use serde_json::{Value, json};

use crate::place::Place;

/// One step that changes no bit of what is not zero.
const STILL: &str = "--set train={replace=true,steps=1,optimizer={kind='sgd',learning_rate=1e-37}}";

/// A model with its parameters by their paths.
struct Read {
    saved: SavedModel,
    weights: BTreeMap<String, Weight>,
}

fn read(place: &Place, run: &str) -> Read {
    let saved = SavedModel::read(&place.path(&format!("{run}/model.safetensors")), &Device::flex()).unwrap();
    let weights = save_weights(&saved.model).into_iter().map(|weight| (weight.path.clone(), weight)).collect();
    Read { saved, weights }
}

impl Read {
    fn values(&self, path: &str) -> &[f32] {
        &self.weights[path].values
    }

    /// The row of a token in a table.
    fn row(&self, path: &str, token: &str) -> &[f32] {
        let is_source = path.starts_with("source");
        let tokenizer: &dyn Tokenizer = if is_source {
            self.saved.tokenizers.source().unwrap().as_ref()
        } else {
            self.saved.tokenizers.target().as_ref()
        };
        let mut ids = 0..tokenizer.size() as TokenId;
        let id = ids.find(|&id| tokenizer.token(id).as_deref() == Some(token)).unwrap_or_else(|| panic!("no {token}"));
        let Weight { dims, values, .. } = &self.weights[path];
        let width = dims[1..].iter().product::<usize>();
        &values[id as usize * width..][..width]
    }
}

fn manifest(place: &Place, run: &str) -> Value {
    serde_json::from_slice(&place.read(&format!("{run}/manifest.json"))).unwrap()
}

/// A place with a trained run, and a corpus of the same task with one letter more.
fn place() -> Place {
    let place = Place::new();
    place.call("train tiny.toml -q --run parent").succeeds();
    let more = String::from_utf8(place.read("data/train.tsv")).unwrap() + "abe\tA B E\nea\tE A\n";
    place.write("data/more.tsv", more);
    place
}

const TABLES: [&str; 4] = ["source.table", "target.table", "output.weight", "output.bias"];

#[test]
fn tokens_that_a_model_knows_keep_their_rows_and_others_are_drawn() {
    let place = place();
    let more = format!("-q --set data.train=more.tsv {STILL}");
    let start = "--set train.start_from.model=parent";
    place.call(&format!("train tiny.toml --run fresh {more}")).succeeds();
    let called = place.call(&format!("train tiny.toml --run child --set data.train=more.tsv {STILL} {start}"));
    let (parent, fresh) = (read(&place, "parent"), read(&place, "fresh"));
    let count = parent.weights.len();
    let said = format!(
        "start    {count} of {count} parameters are those of parent; of `source` 8 of 9 tokens keep their rows, and 1 are \
         drawn; of `target` 8 of 9 tokens keep their rows, and 1 are drawn\n"
    );
    assert!(called.err().contains(&said), "{}", called.err());
    called.succeeds();
    let record = manifest(&place, "child")["start"].take();
    assert_eq!(record["tokens"]["source"], json!({"known": 8, "of": 9}), "{record}");
    assert_eq!(record["taken"], json!({"known": count, "of": count}), "{record}");
    let page = String::from_utf8(place.read("child/report.html")).unwrap();
    assert!(page.contains("of `source` 8 of 9 tokens keep their rows"));

    let child = read(&place, "child");
    for path in child.weights.keys().filter(|path| !TABLES.contains(&path.as_str())) {
        assert!(child.values(path) == parent.values(path), "{path}");
    }
    for path in TABLES {
        let (known, new) = if path.starts_with("source") {
            (["a", "d", "<unk>", "</s>"], "e")
        } else {
            (["A", "D", "<unk>", "</s>"], "E")
        };
        for token in known {
            assert!(child.row(path, token) == parent.row(path, token), "{path} {token}");
        }
        // As a run draws it that starts from nothing.
        let moved = child.row(path, new).iter().zip(fresh.row(path, new)).map(|(a, b)| (a - b).abs());
        assert!(moved.fold(0.0, f32::max) < 1e-30, "{path}: a bias begins at zero, where the smallest step counts");
        assert!(child.row(path, known[0]) != fresh.row(path, known[0]), "{path}");
    }

    // With the tokenizers of the model all of it is the same, and what they do not know is unknown.
    place.call(&format!("train tiny.toml --run kept {more} {start} --set train.start_from.tokenizers=keep")).succeeds();
    assert_eq!(read(&place, "kept").weights, parent.weights);
    let other = "--set train.start_from.tokenizers=keep --set tokenizer.source={kind='byte'}";
    let said = place.call(&format!("train tiny.toml --run other {more} {start} {other}")).refuses();
    assert!(said.contains("train.start_from.tokenizers: `keep`: that model was made with other settings"), "{said}");
    assert!(!place.path("other").exists());
}

#[test]
fn the_bytes_of_a_model_are_part_of_who_starts_from_it() {
    let place = place();
    let words = format!("train tiny.toml -q {STILL} --set train.start_from.model=parent/model.safetensors");
    place.call(&words).succeeds();
    let first = place.only_run();
    let digest = antiphon_lab::sha256_file(place.path("parent/model.safetensors")).unwrap();
    assert_eq!(manifest(&place, &first)["data"]["parent/model.safetensors"], digest);
    place.call(&words).succeeds();
    assert_eq!(place.only_run(), first, "the same experiment");
    place.call("train tiny.toml -q --run another --set seed=2").succeeds();
    std::fs::copy(place.path("another/model.safetensors"), place.path("parent/model.safetensors")).unwrap();
    place.call(&words).succeeds();
    assert_eq!(std::fs::read_dir(place.path("runs")).unwrap().count(), 2);
    // What a model has started from is nothing that it needs.
    std::fs::remove_dir_all(place.path("parent")).unwrap();
    place.call_with(&format!("predict {first}"), "abc\n").succeeds();
    let said = place.call(&words).refuses();
    assert!(said.contains("parent/model.safetensors: train.start_from.model: no such file"), "{said}");
    let checked = place.call("check tiny.toml --set train.start_from.model=parent");
    assert!(checked.err().contains("train.start_from.model (--set): no such file `parent`"), "{}", checked.err());
}

#[test]
fn what_does_not_fit_is_an_error_that_names_it_or_is_left_out_by_name() {
    let place = place();
    let words = format!(
        "train tiny.toml -q --run child {STILL} --set model.encoder.hidden=8 --set train.start_from.model=parent"
    );
    let said = place.call(&words).refuses();
    for line in [
        "parent/model.safetensors: ",
        "\n  encoder.layers.0.forward.recurrent: has the shape [16, 48] there, and [8, 24] here\n",
        "\n  decoder.attention.General.keys: has the shape [32, 16] there, and [16, 16] here\n",
        "\n  train.start_from.leave_out: name here the parts that are to be drawn all the same",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(!place.path("child").exists(), "no run begins");
    let check = words.replace("train tiny.toml -q --run child", "check tiny.toml");
    assert!(place.call(&check).refuses().contains("has the shape [16, 48] there"));
    let parts = "['encoder','bridge','decoder.attention','decoder.readout']";
    place.call(&format!("{words} --set train.start_from.leave_out={parts}")).succeeds();
    let (parent, child) = (read(&place, "parent"), read(&place, "child"));
    assert!(child.values("source.table") == parent.values("source.table"));
    assert!(child.values("decoder.layers.0.recurrent") == parent.values("decoder.layers.0.recurrent"));

    let said =
        place.call("train tiny.toml --set train.start_from={model='parent',parts=['encodr','*.table.x']}").refuses();
    assert!(
        said.contains(
            "train.start_from.parts.0 (--set): the model has no part `encodr`; what it has: `bridge`, `decoder`, "
        ),
        "{said}"
    );
    assert!(said.contains("train.start_from.parts.1 (--set): the model has no part `*.table.x`"), "{said}");
    assert!(!place.path("runs").exists());
}

/// What speaks learns to from text alone, and then to answer.
#[test]
fn a_decoder_starts_from_a_language_model() {
    let place = Place::new();
    let pairs = String::from_utf8(place.read("data/train.tsv")).unwrap();
    let answers: String = pairs.lines().map(|line| format!("{}\n", line.split('\t').nth(1).unwrap())).collect();
    place.write("data/answers.txt", answers);
    let language_model = "
        threads = 1
        data = { kind = 'text', train = 'answers.txt' }
        tokenizer.target = { kind = 'word' }
        train.epochs = 1
        [model]
        kind = 'language_model'
        target = { kind = 'embedding', size = 16 }
        decoder = { kind = 'gru', hidden = 16 }";
    place.write("answers.toml", language_model);
    place.call("train answers.toml -q --run speaker").succeeds();
    let start = "--set train.start_from={model='speaker',parts=['target','decoder.layers','output']}";
    let called = place.call(&format!("train tiny.toml --run answerer {STILL} {start}"));
    assert!(
        called.err().contains("; of `target` 8 of 8 tokens keep their rows, and 0 are drawn\n"),
        "{}",
        called.err()
    );
    called.succeeds();
    let (speaker, answerer) = (read(&place, "speaker"), read(&place, "answerer"));
    assert!(speaker.weights.len() >= 6);
    for path in speaker.weights.keys() {
        assert!(answerer.values(path) == speaker.values(path), "{path}");
    }
    // All of it would want an encoder.
    let said =
        place.call(&format!("train tiny.toml --run other {STILL} --set train.start_from.model=speaker")).refuses();
    assert!(said.contains("\n  encoder.layers.0.forward.bias: that model has no such parameter\n"), "{said}");
}

/// Whole parts, embeddings alone, and single parameters; beside them decay, clipping and an average.
#[test]
fn what_is_frozen_keeps_its_bytes_and_all_else_moves() {
    let check = |place: &Place, config: &str, cases: &[(&str, &[&str])]| {
        let sets = "--set train.optimizer.kind=adamw --set train.clip_norm=1 --set train.average.kind=exponential";
        place.call(&format!("train {config} -q --run parent {sets}")).succeeds();
        let parent = read(place, "parent");
        for (i, (frozen, beginnings)) in cases.iter().enumerate() {
            let sets = format!("{sets} --set train.start_from.model=parent --set train.parameters.frozen={frozen}");
            place.call(&format!("train {config} -q --run child-{i} --set train.epochs=1 {sets}")).succeeds();
            let child = read(place, &format!("child-{i}"));
            for path in parent.weights.keys() {
                let is_frozen = beginnings.iter().any(|beginning| path.starts_with(beginning));
                assert_eq!(child.values(path) == parent.values(path), is_frozen, "{path} beside {frozen}");
            }
        }
    };
    let place = Place::new();
    place.write("fed.toml", "extends = 'tiny.toml'\nmodel.decoder.input_feeding = true\n");
    let cases: [(&str, &[&str]); 5] = [
        ("['encoder','source']", &["encoder.", "source."]),
        ("['*.table']", &["source.table", "target.table"]),
        (
            "['decoder.attention','output.bias','*.layers.0.recurrent']",
            &["decoder.attention.", "output.bias", "decoder.layers.0.recurrent"],
        ),
        ("['decoder']", &["decoder."]),
        (
            "['source','target','encoder','bridge','decoder']",
            &["source.", "target.", "encoder.", "bridge.", "decoder."],
        ),
    ];
    check(&place, "fed.toml", &cases);
    let cases: [(&str, &[&str]); 2] =
        [("['decoder']", &["decoder."]), ("['target','output.bias']", &["target.", "output.bias"])];
    check(&crate::text::place(), "text.toml", &cases);
}

#[test]
fn parts_that_are_not_there_are_found_before_a_run_begins() {
    let place = Place::new();
    let said = |parameters: &str| place.call(&format!("run tiny.toml --set train.parameters={parameters}")).refuses();
    let text = said("{frozen=['encoder','hed'],learning_rates={'decoder.layers.7'=0.5},towards_start={x=1}}");
    for line in [
        "train.parameters.frozen.1 (--set): the model has no part `hed`; what it has: `bridge`, ",
        "train.parameters.learning_rates.\"decoder.layers.7\" (--set): the model has no part `decoder.layers.7`; what it has \
         within `decoder.layers`: `0`",
        "train.parameters.towards_start.x (--set): the model has no part `x`",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let text = said("{frozen=['encoder'],learning_rates={'encoder.layers'=0.5}}");
    assert!(text.contains("learning_rates.\"encoder.layers\" (--set): has no effect: all of it is frozen"), "{text}");
    let text = said("{frozen=['*']}");
    assert!(text.contains("train.parameters.frozen (--set): every parameter is frozen"), "{text}");
    let text = said("{learning_rates={encoder=0}}");
    assert!(text.contains("must be more than 0") || text.contains("above 0"), "{text}");
    assert!(!place.path("runs").exists());
}

/// What is logged, times apart.
fn metrics(place: &Place, run: &str) -> Vec<Value> {
    let text = String::from_utf8(place.read(&format!("{run}/metrics.jsonl"))).unwrap();
    let record = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        assert!(record.as_object_mut().unwrap().remove("seconds").is_some(), "{record}");
        record
    };
    text.lines().map(record).collect()
}

/// Whether two runs left the same bytes.
fn ends_like(place: &Place, one: &str, other: &str) -> bool {
    let names = ["model.safetensors", "predictions-validation.jsonl", "predictions-test.jsonl", "tokenizers.json"];
    let same = |name: &&str| place.read(&format!("{one}/{name}")) == place.read(&format!("{other}/{name}"));
    names.iter().all(same) && metrics(place, one) == metrics(place, other)
}

#[test]
fn a_run_extended_by_what_was_missing_is_one_that_was_so_long_from_the_start() {
    let place = Place::new();
    place.call("run tiny.toml -q --run short").succeeds();
    place.call("run tiny.toml -q --run whole --set train.epochs=3").succeeds();
    let called = place.call("extend short --epochs 1 --run long");
    let steps = manifest(&place, "short")["training"]["step"].clone();
    let said = format!("extend   short after step {steps}; kept: schedule, optimizer, patience\n");
    assert!(
        called.err().contains(&said) && called.err().contains(&format!("resume   after step {steps}\n")),
        "{}",
        called.err()
    );
    called.succeeds();
    assert!(ends_like(&place, "long", "whole"));
    let (parent, long) = (manifest(&place, "short"), manifest(&place, "long"));
    assert_eq!(long["parent"], json!({"run": "short", "digest": parent["digest"], "step": steps}));
    let page = String::from_utf8(place.read("long/report.html")).unwrap();
    assert!(page.contains(&format!("It goes on with short after step {steps}")));

    let compared = place.call("compare whole long").succeeds();
    let parents = compared.lines().find(|line| line.starts_with("(parent)")).unwrap_or_else(|| panic!("{compared}"));
    assert!(parents.contains(&format!(" short after step {steps}; kept: schedule, optimizer, patience")), "{parents}");

    // Who runs the config with more epochs is told, and begins anew all the same.
    let program = env!("CARGO_BIN_EXE_antiphon");
    let called = place.call("run tiny.toml --run short --set train.epochs=5");
    called.refuses();
    let said = called.err();
    let hint = format!(
        "warning: short is this experiment with `train.epochs = 2`, and trained: this is a new run, which begins at step 0; \
         `{program} extend short --epochs 3` goes on with that one\n"
    );
    assert!(said.contains(&hint) && said.contains("short: is taken"), "{said}");

    // Interrupted, it goes on; done, it is found again. The run that it goes on with stays as it was.
    place.call("extend short --epochs 1 --run parts -q --pause-after-steps 45").succeeds();
    let said = place.call("predict parts").err();
    assert!(said.contains("parts: is not trained to its end; it is taken as of its best checkpoint so far"), "{said}");
    place.call("extend short --epochs 1 --run parts -q").succeeds();
    assert!(ends_like(&place, "parts", "whole"));
    let again = place.call("extend short --epochs 1 --run parts");
    assert!(again.err().contains("parts: finished; another --run repeats it"), "{}", again.err());
    assert_eq!(manifest(&place, "short"), parent);
    // An extended run is a run: by one more it ends like one that is extended by two.
    place.call("extend long --epochs 1 --run longer -q").succeeds();
    place.call("extend short --epochs 2 -q").succeeds();
    assert!(ends_like(&place, "longer", &place.only_run()));
    let by_steps = place.call("extend short --steps 7 --run steps -q");
    by_steps.succeeds();
    assert_eq!(manifest(&place, "steps")["training"]["step"], steps.as_u64().unwrap() + 7);
    // Lost checkpoints are taken from the parent once more.
    std::fs::remove_file(place.path("parts/model.safetensors")).unwrap();
    std::fs::remove_file(place.path("parts/results.json")).unwrap();
    for entry in std::fs::read_dir(place.path("parts/checkpoints")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    place.call("extend short --epochs 1 --run parts -q").succeeds();
    assert!(ends_like(&place, "parts", "whole"));
}

#[test]
fn what_restarts_is_chosen_and_what_cannot_go_on_is_told() {
    let place = Place::new();
    place
        .call("train tiny.toml -q --run short --set train.epochs=1 --set train.schedule={kind='cosine',warmup=5}")
        .succeeds();
    let warning = "warning: the learning rate falls until the end of a run";
    let kept = place.call("extend short --epochs 1 --run kept --no-test");
    assert!(kept.err().contains(warning), "{}", kept.err());
    kept.succeeds();
    let restarted =
        place.call("extend short --epochs 1 --run restarted --no-test --schedule restart --optimizer restart");
    let said = restarted.err();
    assert!(!said.contains(warning) && said.contains("; kept: patience; restarted: schedule, optimizer\n"), "{said}");
    restarted.succeeds();
    let rates = |run: &str| {
        let records = metrics(&place, run);
        records.iter().filter_map(|record| record["learning_rate"].as_f64()).collect::<Vec<_>>()
    };
    let (restarted, short) = (rates("restarted"), rates("short"));
    assert_eq!(restarted.len(), 2 * short.len());
    assert_eq!(restarted[short.len()..], short);
    assert_ne!(rates("kept")[short.len()..], short);
    let said = place.call("extend short --steps 4 --schedule restart").refuses();
    assert!(said.contains("train.schedule.warmup: the warm-up takes 5 steps, but the run has only 4"), "{said}");

    let early = "--set train={replace=true,epochs=9,stop.patience=1,optimizer={kind='sgd',learning_rate=1e-37}}";
    place.call(&format!("train tiny.toml -q --run early {early}")).succeeds();
    let said = place.call("extend early --epochs 1").refuses();
    assert!(
        said.contains("early: ended when validation had not improved") && said.contains("give `--patience restart`"),
        "{said}"
    );
    place.call("extend early --epochs 1 -q --run later --patience restart").succeeds();
    assert_eq!(manifest(&place, "later")["training"]["epoch"], 3);

    // A run that is as long as it was to be, when its patience is over too, would not go on either.
    let full = early.replace("epochs=9", "epochs=2");
    place.call(&format!("train tiny.toml -q --run full {full}")).succeeds();
    let end = manifest(&place, "full")["training"].take();
    assert_eq!((&end["reason"], &end["waited"]), (&"epochs".into(), &1.into()), "{end}");
    let said = place.call("extend full --epochs 1").refuses();
    assert!(said.contains("full: ended when validation had not improved"), "{said}");
    let called = place.call(&format!("run tiny.toml --run full {}", early.replace("epochs=9", "epochs=4")));
    assert!(called.err().contains("extend full --epochs 2 --patience restart` goes on"), "{}", called.err());
    place.call("extend full --epochs 1 -q --run fuller --patience restart").succeeds();
    assert_eq!(manifest(&place, "fuller")["training"]["epoch"], 3);

    place.call("train tiny.toml -q --run part --pause-after-steps 3").succeeds();
    let said = place.call("extend part --epochs 1").refuses();
    assert!(
        said.contains("part: is not trained to its end; go on with `")
            && said.contains("train tiny.toml -q --run part`"),
        "{said}"
    );
    let said = place.call("extend nothing --epochs 1").refuses();
    assert!(said.contains("nothing: no such run folder"), "{said}");
    std::fs::remove_dir_all(place.path("kept/checkpoints")).unwrap();
    let said = place.call("extend kept --epochs 1 --run other").refuses();
    assert!(said.contains("kept/checkpoints/step-") && said.contains("without it the run cannot go on"), "{said}");
    place.write("data/train.tsv", crate::place::pairs(0..500));
    let said = place.call("extend short --epochs 1").refuses();
    assert!(said.contains("short: train.tsv: is not what this run learned from: restore it"), "{said}");
}

/// What a run needs to go on is in its checkpoints and its model file: neither what it started from, nor its log.
#[test]
fn what_a_run_has_started_from_is_nothing_that_it_goes_on_with() {
    let place = place();
    for (run, tokenizers) in [("learned", "learn"), ("kept", "keep")] {
        let sets = format!(
            "--set data.train=more.tsv --set train.start_from={{model='parent',tokenizers='{tokenizers}'}} \
             --set train.schedule={{kind='constant',warmup=5}}"
        );
        for (name, epochs) in [(run.to_owned(), 1), (format!("{run}-whole"), 2)] {
            place.call(&format!("train tiny.toml -q --run {name} {sets} --set train.epochs={epochs}")).succeeds();
        }
    }
    std::fs::rename(place.path("parent"), place.path("elsewhere")).unwrap();
    for run in ["learned", "kept"] {
        place.call(&format!("extend {run} --epochs 1 --run {run}-longer -q --no-test")).succeeds();
        let [longer, whole] = ["longer", "whole"].map(|end| format!("{run}-{end}"));
        assert!(
            place.read(&format!("{longer}/model.safetensors")) == place.read(&format!("{whole}/model.safetensors"))
        );
        assert_eq!(metrics(&place, &longer), metrics(&place, &whole));
        for name in ["metrics.jsonl", "tokenizers.json"] {
            std::fs::remove_file(place.path(&format!("{run}/{name}"))).unwrap();
        }
        let called = place.call(&format!("extend {run} --epochs 1 --run {run}-again --no-test"));
        assert!(called.err().contains("metrics.jsonl: the records of"), "{}", called.err());
        called.succeeds();
        for name in ["model.safetensors", "tokenizers.json"] {
            let read = |end: &str| place.read(&format!("{run}-{end}/{name}"));
            assert!(read("again") == read("whole"), "{name}");
        }
    }
}

#[test]
fn models_of_one_run_are_averaged_by_hand_and_by_validation() {
    let place = Place::new();
    // Where steps are large, a mean is better than each of its models; where a model is still on its way, those before it hold it back.
    for (run, rate, is_better) in [("chosen", "0.05", true), ("rising", "3e-3", false)] {
        let sets =
            format!("--set train.epochs=4 --set train.average.kind=last --set train.optimizer.learning_rate={rate}");
        let called = place.call(&format!("train tiny.toml --run {run} {sets}"));
        let said = called.err();
        called.succeeds();
        let loss = |count: usize| -> f64 {
            let (_, rest) =
                said.split_once(&format!("\naverage  of {count} models: loss ")).unwrap_or_else(|| panic!("{said}"));
            rest.split_whitespace().next().unwrap().parse().unwrap()
        };
        let (count, least) =
            [2, 3, 4].map(|count| (count, loss(count))).into_iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        let training = manifest(&place, run)["training"].take();
        let best = &training["best"];
        assert_eq!(least < best["value"].as_f64().unwrap(), is_better, "{said}");
        // The model is the mean of those that are named, or the best one.
        let steps: Vec<u64> = match training.get("mean") {
            Some(mean) => {
                assert!((mean["value"].as_f64().unwrap() - least).abs() < 1e-4, "{training}");
                mean["steps"].as_array().unwrap().iter().map(|step| step.as_u64().unwrap()).collect()
            }
            None => vec![best["step"].as_u64().unwrap()],
        };
        assert_eq!(steps.len(), if is_better { count } else { 1 }, "{training}");
        let mut mean = antiphon_train::Mean::default();
        for step in steps {
            let path = antiphon_train::checkpoint_path(&place.path(&format!("{run}/checkpoints")), step);
            mean.add(antiphon_train::Checkpoint::read(&path).unwrap().into_model()).unwrap();
        }
        let model = read(&place, run);
        assert!(mean.weights().into_iter().all(|weight| model.weights[&weight.path] == weight), "{run}");
    }

    // Of runs that started from one, by hand.
    place.call("train tiny.toml -q --run a").succeeds();
    place.call("train tiny.toml -q --run b --set seed=2 --set train.start_from.model=a").succeeds();
    let out = place.call("average a b/model.safetensors --output mean.safetensors").succeeds();
    assert!(out.contains("the model  mean.safetensors") && out.contains("evaluate mean.safetensors"), "{out}");
    let of = |file: &str| {
        let saved = SavedModel::read(&place.path(file), &Device::flex()).unwrap();
        save_weights(&saved.model)
    };
    let [a, b, mean] = ["a/model.safetensors", "b/model.safetensors", "mean.safetensors"].map(of);
    for ((a, b), mean) in a.iter().zip(&b).zip(&mean) {
        assert_eq!(a.path, mean.path);
        for ((a, b), mean) in a.values.iter().zip(&b.values).zip(&mean.values) {
            assert_eq!(*mean, ((f64::from(*a) + f64::from(*b)) / 2.0) as f32);
        }
    }
    assert!(place.call("evaluate mean.safetensors").succeeds().contains("phone_error_rate"));
    place.call("average a a a --output same.safetensors").succeeds();
    assert_eq!(of("same.safetensors"), a);
    // What is left out while training is nothing that a model is made of; what it does with its parameters is.
    place.call("train tiny.toml -q --run dropped --set train.epochs=1 --set model.decoder.dropout=0.3").succeeds();
    place.call("average a dropped --output dropped.safetensors").succeeds();
    let deep = "--set train.epochs=1 --set model.encoder.layers=2";
    place.call(&format!("train tiny.toml -q --run deep {deep}")).succeeds();
    place.call(&format!("train tiny.toml -q --run residual {deep} --set model.encoder.residual=true")).succeeds();
    let said = place.call("average deep residual --output other.safetensors").refuses();
    assert!(
        said.contains("residual/model.safetensors: computes in another way than the first of these models, by its `model.encoder.residual`"),
        "{said}"
    );
    let said = place.call("average a b --output mean.safetensors").refuses();
    assert!(said.contains("mean.safetensors: is there already"), "{said}");
    place.call("train tiny.toml -q --run wide --set model.encoder.hidden=8").succeeds();
    let said = place.call("average a wide --output other.safetensors").refuses();
    assert!(
        said.contains("encoder.layers.0.forward.recurrent: has the shape [8, 24] here, and [16, 48] before"),
        "{said}"
    );
    place.write("data/more.tsv", String::from_utf8(place.read("data/train.tsv")).unwrap() + "abe\tA B E\n");
    place.call("train tiny.toml -q --run more --set data.train=more.tsv").succeeds();
    let said = place.call("average a more --output other.safetensors").refuses();
    assert!(said.contains("more/model.safetensors: has other tokenizers"), "{said}");
    assert!(!place.path("other.safetensors").exists());
}

#[test]
fn vectors_are_written_and_read_and_how_many_there_are_is_told() {
    let place = place();
    let out = place.call("vectors parent").succeeds();
    let parent = read(&place, "parent");
    assert_eq!(out.lines().next(), Some("8 16"));
    let line = |token: &str| {
        let line = out.lines().find(|line| line.split(' ').next() == Some(token)).unwrap();
        line.split(' ').skip(1).map(|number| number.parse().unwrap()).collect::<Vec<f32>>()
    };
    for token in ["a", "d", "<unk>", "</s>"] {
        assert_eq!(line(token), parent.row("source.table", token));
    }
    place.call("vectors parent/model.safetensors --table output.weight --output data/out.txt").succeeds();
    place.write(
        "data/glove.txt",
        out.lines().filter(|line| "abc".contains(&line[..1])).map(|l| format!("{l}\n")).collect::<String>(),
    );
    let vectors = "--set train.start_from.vectors={'source.table'='glove.txt','output.weight'='out.txt'}";
    let called = place.call(&format!("train tiny.toml --run child {STILL} {vectors}"));
    let said = "start    all parameters are drawn; in `output.weight` 8 of 8 tokens have a vector from a file; in `source.table` 3 of 8 \
                tokens have a vector from a file\n";
    assert!(called.err().contains(said), "{}", called.err());
    called.succeeds();
    place.call(&format!("train tiny.toml -q --run fresh {STILL}")).succeeds();
    let (child, fresh) = (read(&place, "child"), read(&place, "fresh"));
    assert!(child.row("source.table", "b") == parent.row("source.table", "b"));
    assert!(child.row("source.table", "d") == fresh.row("source.table", "d"));
    assert!(child.values("output.weight") == parent.values("output.weight"));
    assert!(child.values("target.table") == fresh.values("target.table"));
    let digest = antiphon_lab::sha256_file(place.path("data/glove.txt")).unwrap();
    assert_eq!(manifest(&place, "child")["data"]["glove.txt"], digest);

    let said = |sets: &str| place.call(&format!("train tiny.toml --run none {sets}")).refuses();
    let wide = said("--set model.source.size=12 --set train.start_from.vectors={'source.table'='glove.txt'}");
    assert!(wide.contains("glove.txt: train.start_from.vectors.\"source.table\": its vectors are 16 wide, and a row of `source.table` is 12"), "{wide}");
    let other = said("--set train.start_from.vectors={encoder='glove.txt'}");
    assert!(
        other.contains("`encoder` has no row for each token; what has: `output.bias`, `output.weight`, `source.table`"),
        "{other}"
    );
    let missing = said("--set train.start_from.vectors={'source.table'='no.txt'}");
    assert!(
        missing.contains(
            "no.txt: train.start_from.vectors.\"source.table\": no such file; name a file below the data folder `data`"
        ),
        "{missing}"
    );
    assert!(!place.path("none").exists());
    let none = said("--set train.start_from.vectors={'target.table'='glove.txt'}");
    assert!(
        none.contains("glove.txt: train.start_from.vectors.\"target.table\": has a vector for none of the tokens"),
        "{none}"
    );
    let before = place.read("parent/model.safetensors");
    let said = place.call("vectors parent --output parent/model.safetensors").refuses();
    assert!(said.contains("parent/model.safetensors: is there already"), "{said}");
    assert!(place.read("parent/model.safetensors") == before);
    let said = place.call("vectors parent --table encoder").refuses();
    assert!(said.contains("parent/model.safetensors: --table: `encoder` has no row for each token"), "{said}");
    // Characters: white space has no place in the form.
    let place = crate::text::place();
    place.call("train text.toml -q --run parent").succeeds();
    let called = place.call("vectors parent");
    assert!(called.err().contains("left out: 1 token with white space"), "{}", called.err());
    called.succeeds();
}

/// Follows `docs/going-on.md`: its configs are right, and its commands work as they stand.
#[cfg(unix)]
#[test]
fn the_guide_can_be_followed_as_it_stands() {
    use crate::guide::{blocks, commands, configs_are_right, follow, page, write_cargo, write_configs};
    // What makes its models small.
    let small = [
        ("ANTIPHON__THREADS", "1"),
        ("ANTIPHON__MODEL__TARGET__SIZE", "12"),
        ("ANTIPHON__MODEL__DECODER__HIDDEN", "12"),
        ("ANTIPHON__TRAIN__EPOCHS", "1"),
    ];
    let (page, place) = (page("going-on.md"), Place::new());
    assert!(configs_are_right(&page, 4) > 1);
    write_configs(&page, &place);
    write_cargo(&place);
    let pairs = crate::place::pairs;
    for (name, content) in [
        ("train", pairs(0..80)),
        ("validation", pairs(80..90)),
        ("test", pairs(90..99)),
        ("more", pairs(0..90) + "abe\tA B E\n"),
    ] {
        place.write(&format!("data/mine/{name}.tsv"), content);
    }
    let mut followed = Vec::new();
    for block in blocks(&page, "sh") {
        followed.extend(commands(block));
        let called = follow(&place, block, &small);
        // So small a model may not find an end, and a model that others start from need not be measured.
        let harmless = ["were cut off", "nothing will be measured"];
        let is_harmless = |line: &str| harmless.iter().any(|harmless| line.contains(harmless));
        let warned = called.err().lines().any(|line| line.starts_with("warning: ") && !is_harmless(line));
        assert!(!warned, "{block}\n{}", called.err());
    }
    for command in ["run", "extend", "vectors", "average", "evaluate"] {
        assert!(followed.contains(&command), "{followed:?}");
    }
    assert_eq!(manifest(&place, "runs/longer")["training"]["epoch"], 5);
    assert_eq!(manifest(&place, "runs/more")["start"]["tokens"]["source"], json!({"known": 8, "of": 9}));
}
