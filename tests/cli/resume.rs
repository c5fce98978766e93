//! Exact resume: killed at any moment and resumed, a run ends with the bytes of one that was never interrupted.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use antiphon_core::random::Key;
use serde_json::Value;

use crate::place::{Place, pairs};

/// A schedule that ends at zero, dropout, batches by tokens.
const LSTM: &str = r#"
extends = "tiny.toml"
[model.encoder]
kind = "lstm"
[model.decoder]
kind = "lstm"
[batch]
kind = "tokens"
count = 160
[train]
epochs = 12
schedule = { kind = "linear", warmup = 20 }
validate = { every_steps = 25 }
checkpoint = { every_steps = 10 }
[evaluate]
validation_examples = 150
"#;

/// Another cell, attention and schedule, with gradients added up, and an end that validation decides.
const GRU: &str = r#"
extends = "tiny.toml"
[model.decoder.attention]
kind = "additive"
width = 12
[train]
epochs = 200
accumulate = 2
optimizer = { learning_rate = 5e-3 }
schedule = { kind = "plateau", patience = 1 }
validate = { every_steps = 15, metric = "sequence_error_rate" }
stop = { patience = 4 }
checkpoint = { every_steps = 7 }
[evaluate]
validation_examples = 150
"#;

/// A language model of lines.
const LINES: &str = r#"
extends = "text.toml"
[data]
train = "train.tsv"
validation = "validation.tsv"
test = "test.tsv"
[train]
epochs = 14
schedule = { kind = "cosine", warmup = 20 }
validate = { every_steps = 25 }
checkpoint = { every_steps = 10 }
"#;

/// A language model of running text, whose state goes on from batch to batch, also within a step; lengths are drawn.
const STREAM: &str = r#"
extends = "stream.toml"
[data]
train = "train.tsv"
validation = "validation.tsv"
test = "test.tsv"
jitter = true
[train]
epochs = 14
accumulate = 2
schedule = { kind = "cosine", warmup = 20 }
validate = { every_steps = 25 }
checkpoint = { every_steps = 10 }
"#;

/// Weights averaged over the end of a run that validation finds; masks that hold for a row and for a batch.
const AVERAGED: &str = r#"
extends = "text.toml"
[data]
train = "train.tsv"
validation = "validation.tsv"
test = "test.tsv"
[model.target]
dropout = 0.2
locked_dropout = true
word_dropout = 0.1
[model.decoder]
locked_dropout = true
weight_drop = 0.3
activation_penalty = 2.0
temporal_penalty = 1.0
[train]
epochs = 14
optimizer = { learning_rate = 0.1 }
average = { kind = "triggered", patience = 1 }
validate = { every_steps = 15 }
checkpoint = { every_steps = 10 }
"#;

/// Stories that are read by sentences under a question, in two ways, and Adagrad.
const STORIES: &str = r#"
threads = 1
[data]
kind = "table"
train = "train.jsonl"
validation = "validation.jsonl"
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
encoder = { kind = "stack", stages = [{ kind = "sentences", reader = { kind = "gru", hidden = 5 } }] }
[model.source]
kind = "embedding"
size = 10
deviation = 1.0
dropout = 0.1
[model.encoder]
kind = "stack"
stages = [
    { kind = "sentences", reader = { kind = "lstm", hidden = 5 }, dropout = 0.1 },
    { kind = "query_reduction", query = "question", dropout = 0.1 },
    { kind = "hops", query = "question" },
]
[model.bridge]
kind = "linear"
of = "source"
[model.decoder]
kind = "gru"
hidden = 8
attention = { kind = "none" }
[batch]
kind = "sentences"
count = 16
[train]
steps = 60
optimizer = { kind = "adagrad", learning_rate = 0.3 }
validate = { every_steps = 15 }
checkpoint = { every_steps = 10 }
"#;

/// Two sources of a table, a convolution before a recurrent stage, heads, and attention that remembers.
const TABLE: &str = r#"
extends = "tiny.toml"
[data]
replace = true
kind = "table"
columns = ["word", "said"]
train = "train.tsv"
validation = "validation.tsv"
test = "test.tsv"
source = "word"
target = "said"
[streams.again]
column = "word"
tokenizer = { kind = "byte" }
input = { kind = "embedding", size = 5, dropout = 0.1 }
encoder = { kind = "convolution", hidden = 6, layers = 2, dropout = 0.2 }
[model.encoder]
replace = true
kind = "stack"
stages = [{ kind = "convolution", hidden = 8, layers = 1, stride = 2, dropout = 0.2 }, { kind = "layer_norm" }, { kind = "gru", hidden = 5 }]
[model.memories]
kind = "each"
[model.decoder.attention]
replace = true
kind = "additive"
width = 8
heads = 2
coverage = true
coverage_penalty = 0.5
[train]
epochs = 5
validate = { every_steps = 25 }
checkpoint = { every_steps = 10 }
[evaluate]
by = ["word"]
validation_examples = 60
"#;

/// Recordings, of which frames and bands are hidden, two losses, and a search by both.
const SPEECH: &str = r#"
extends = "speech.toml"
threads = 1
[features]
filters = 12
[model.encoder]
stages = [{ kind = "convolution_2d", channels = 3, stride = [1, 2], dropout = 0.1 }, { kind = "gru", hidden = 12, dropout = 0.2 }, { kind = "time_reduction" }, { kind = "gru", hidden = 12 }]
[model.source]
dropout = 0.1
[model.decoder]
hidden = 16
[model.decoder.attention]
replace = true
kind = "location"
width = 12
filters = 3
reach = 4
heads = 2
sharpening = 1.5
[batch]
count = 800
[train]
epochs = 8
schedule = { kind = "cosine", warmup = 10 }
validate = { every_steps = 20 }
checkpoint = { every_steps = 7 }
"#;

/// When a run is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// After this share of the time that the whole run takes.
    Time(f64),
    /// So many validations are done, and this share of the next one.
    Validation(usize, f64),
    /// At least so many steps are done, and a checkpoint is being written.
    Checkpoint(usize),
}

/// What a run leaves, times apart.
#[derive(PartialEq)]
struct Left {
    model: String,
    /// Of a language model there are none.
    predictions: [Option<String>; 2],
    metrics: Vec<Value>,
    results: Value,
}

impl Left {
    fn by(place: &Place, run: &str) -> Self {
        let hash = |name: &str| antiphon_lab::sha256_file(place.path(&format!("{run}/{name}"))).unwrap();
        let mut results: Value = serde_json::from_slice(&place.read(&format!("{run}/results.json"))).unwrap();
        let times = ["cpu_seconds", "wall_seconds"].map(|time| results.as_object_mut().unwrap().remove(time));
        assert!(times.iter().all(Option::is_some), "{results}");
        Self {
            model: hash("model.safetensors"),
            predictions: ["validation", "test"].map(|split| {
                let name = format!("predictions-{split}.jsonl");
                place.path(&format!("{run}/{name}")).is_file().then(|| hash(&name))
            }),
            metrics: metrics(place, run).into_iter().map(|record| Value::Object(without_seconds(record))).collect(),
            results,
        }
    }
}

fn without_seconds(record: Value) -> serde_json::Map<String, Value> {
    let Value::Object(mut record) = record else { panic!("a record is an object: {record}") };
    assert!(record.remove("seconds").is_some(), "{record:?}");
    record
}

/// The whole lines of a run's log; a torn one may follow.
fn metrics(place: &Place, run: &str) -> Vec<Value> {
    let text = fs::read_to_string(place.path(&format!("{run}/metrics.jsonl"))).unwrap_or_default();
    text.split_inclusive('\n').filter(|l| l.ends_with('\n')).map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn count(records: &[Value], kind: &str) -> usize {
    records.iter().filter(|record| record["kind"] == kind).count()
}

/// One experiment, run once without interruption.
struct Contract {
    place: Place,
    config: &'static str,
    whole: Left,
    /// Of the whole run, its start and its end included.
    time: Duration,
    /// Of one validation.
    validation: Duration,
    validations: usize,
    steps: usize,
}

impl Contract {
    fn of(config: &'static str, text: &str) -> Self {
        let place = Place::new();
        place.write("data/validation.tsv", pairs(700..1100));
        place.write("text.toml", crate::text::TEXT);
        place.write("stream.toml", crate::stream::STREAM);
        if text.contains("story") {
            place.write("data/train.jsonl", crate::questions::rows(0..200));
            place.write("data/validation.jsonl", crate::questions::rows(200..260));
        }
        if text.contains("speech.toml") {
            crate::speech::furnish(&place);
        }
        place.write(config, text);
        let began = Instant::now();
        place.call(&format!("run {config} --run whole -q")).succeeds();
        let time = began.elapsed();
        let records = metrics(&place, "whole");
        let looked = records.iter().filter(|record| record["kind"] == "validation");
        let seconds: Vec<f64> = looked.map(|record| record["seconds"].as_f64().unwrap()).collect();
        let validation = Duration::from_secs_f64(seconds.iter().sum::<f64>() / seconds.len() as f64);
        let (validations, steps) = (seconds.len(), count(&records, "step"));
        Self { whole: Left::by(&place, "whole"), place, config, time, validation, validations, steps }
    }

    fn start(&self, run: &str) -> Child {
        self.place.start(&format!("run {} --run {run} -q", self.config))
    }

    /// Starts or resumes `run` and kills it at `moment`; whether it was killed there, and not before or after.
    fn kill(&self, run: &str, moment: Moment) -> bool {
        let mut child = self.start(run);
        let log = || metrics(&self.place, run);
        let checkpoints = self.place.path(&format!("{run}/checkpoints"));
        let alive = match moment {
            Moment::Time(share) => {
                std::thread::sleep(self.time.mul_f64(share));
                true
            }
            Moment::Validation(done, share) => {
                // A validation begins with the step after which it is due, which is the last one that is logged.
                let due: Vec<Value> = metrics(&self.place, "whole");
                let at = due.iter().enumerate().filter(|(_, record)| record["kind"] == "validation").nth(done);
                let (line, _) = at.expect("so many validations");
                let seen = wait(&mut child, || log().len() >= line);
                std::thread::sleep(self.validation.mul_f64(share));
                seen
            }
            Moment::Checkpoint(steps) => {
                wait(&mut child, || count(&log(), "step") >= steps) && wait(&mut child, || being_written(&checkpoints))
            }
        };
        let killed = alive && child.try_wait().unwrap().is_none();
        let _ = child.kill();
        child.wait().unwrap();
        killed
            && match moment {
                Moment::Time(_) => true,
                Moment::Validation(done, _) => {
                    let records = log();
                    let begun = records.last().is_some_and(|last| last["kind"] == "step");
                    begun && count(&records, "validation") == done
                }
                Moment::Checkpoint(_) => being_written(&checkpoints),
            }
    }

    /// Stops a new run by a signal; whether that cut a validation short.
    fn stopped_in_validation(&self, run: &str) -> bool {
        let mut child = self.start(run);
        let log = || metrics(&self.place, run);
        wait(&mut child, || count(&log(), "step") >= 25);
        let status = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()));
        child.wait().unwrap();
        // The whole run has a validation where this one's log ends.
        let records = log();
        let next = metrics(&self.place, "whole").into_iter().nth(records.len());
        let stopped = !self.place.path(&format!("{run}/model.safetensors")).exists();
        stopped && next.is_some_and(|next| next["kind"] == "validation")
    }

    /// Kills a new run at `moment` and takes it to its end; whether it then left what the whole run did.
    fn holds(&self, run: &str, moment: Moment) -> bool {
        let run = self.killed(run, moment);
        self.place.call(&format!("run {} --run {run} -q", self.config)).succeeds();
        Left::by(&self.place, &run) == self.whole
    }

    /// A run that was killed at `moment`. A machine under load may let it slip: then it is tried again.
    #[track_caller]
    fn killed(&self, run: &str, mut moment: Moment) -> String {
        for attempt in 0..40 {
            let run = format!("{run}-{attempt}");
            if self.kill(&run, moment) {
                return run;
            }
            moment = match moment {
                Moment::Time(share) => Moment::Time(share * 0.8),
                other => other,
            };
        }
        panic!("{moment:?} slipped 40 times");
    }

    /// Moments all over the run.
    fn moments(&self, key: Key, [times, validations, checkpoints]: [u64; 3]) -> Vec<Moment> {
        let below = |key: Key, i: u64, n: usize| (key.uniform(i) * n as f64) as usize;
        let (time, validation, checkpoint) = (key.named("time"), key.named("validation"), key.named("checkpoint"));
        let times = (0..times).map(|i| Moment::Time(time.uniform(i)));
        let share = validation.named("share");
        let validations = (0..validations)
            .map(|i| Moment::Validation(below(validation, i, self.validations), 0.8 * share.uniform(i)));
        let checkpoints = (0..checkpoints).map(|i| Moment::Checkpoint(below(checkpoint, i, self.steps * 9 / 10)));
        times.chain(validations).chain(checkpoints).collect()
    }

    fn held_at(&self, moments: &[Moment]) -> usize {
        let held = moments.iter().enumerate().filter(|(i, moment)| {
            let held = self.holds(&format!("parts-{i}"), **moment);
            if !held {
                println!("{}: another end after {moment:?}", self.config);
            }
            held
        });
        held.count()
    }
}

/// Whether a file is there that has not yet taken its name.
fn being_written(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| entry.path().extension().is_some_and(|e| e == "tmp"))
}

/// Waits for something, as long as the process lives.
fn wait(child: &mut Child, mut until: impl FnMut() -> bool) -> bool {
    while child.try_wait().unwrap().is_none() {
        if until() {
            return true;
        }
    }
    false
}

/// Kills at random moments of the run, of its validations and while checkpoints are written: all ends must be equal.
fn twenty_kills(config: &'static str, text: &str) {
    let began = Instant::now();
    let contract = Contract::of(config, text);
    let moments = contract.moments(Key::from_seed(4).named(config), [14, 4, 4]);
    let held = contract.held_at(&moments);
    println!("{config}: {held} of {} equal ends in {:.0} s", moments.len(), began.elapsed().as_secs_f64());
    assert_eq!(held, moments.len());
}

#[test]
#[ignore = "slow"]
fn an_lstm_killed_at_twenty_moments_ends_the_same() {
    twenty_kills("lstm.toml", LSTM);
}

#[test]
#[ignore = "slow"]
fn a_gru_killed_at_twenty_moments_ends_the_same() {
    twenty_kills("gru.toml", GRU);
}

#[test]
#[ignore = "slow"]
fn a_language_model_killed_at_twenty_moments_ends_the_same() {
    twenty_kills("lines.toml", LINES);
}

#[test]
#[ignore = "slow"]
fn a_model_of_running_text_killed_at_twenty_moments_ends_the_same() {
    twenty_kills("running.toml", STREAM);
}

#[test]
#[ignore = "slow"]
fn a_model_of_recordings_killed_at_twenty_moments_ends_the_same() {
    twenty_kills("spoken.toml", SPEECH);
}

/// What is hidden of a recording is drawn anew as it was.
#[test]
fn a_model_of_recordings_killed_again_and_again_ends_the_same() {
    let contract = Contract::of("spoken.toml", SPEECH);
    for moment in [Moment::Checkpoint(10), Moment::Validation(2, 0.3), Moment::Checkpoint(60), Moment::Time(0.3)] {
        // If the moment slips, the run is killed elsewhere, or is done.
        contract.kill("parts", moment);
    }
    contract.place.call("run spoken.toml --run parts -q").succeeds();
    assert!(Left::by(&contract.place, "parts") == contract.whole);
}

/// The state that is carried, and the place in the epoch, are those of the run that was never stopped.
#[test]
fn a_run_over_running_text_goes_on_within_an_epoch() {
    let contract = Contract::of("running.toml", &STREAM.replace("epochs = 14", "epochs = 3"));
    let in_epoch = contract.steps / 3;
    for steps in [1, in_epoch - 1, in_epoch, in_epoch + 2, 2 * in_epoch + 1] {
        contract.place.call(&format!("run running.toml --run parts -q --pause-after-steps {steps}")).succeeds();
    }
    contract.place.call("run running.toml --run parts -q").succeeds();
    assert!(Left::by(&contract.place, "parts") == contract.whole);
}

#[test]
#[ignore = "slow"]
fn an_averaged_run_killed_at_twenty_moments_ends_the_same() {
    twenty_kills("averaged.toml", AVERAGED);
}

/// The average begins in the middle of the run.
#[test]
fn an_averaged_run_killed_again_and_again_ends_the_same() {
    let contract = Contract::of("averaged.toml", AVERAGED);
    let begins = |run: &str| {
        let records = metrics(&contract.place, run);
        let begins = |record: &&Value| record["average_begins"] == true;
        records.iter().filter(begins).map(|record| record["step"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let [began] = begins("whole")[..] else { panic!("it begins once: {:?}", begins("whole")) };
    let manifest: Value = serde_json::from_slice(&contract.place.read("whole/manifest.json")).unwrap();
    assert_eq!(manifest["training"]["averaged_since"], began);
    let moments = [began.saturating_sub(4), began + 3, (began + contract.steps as u64) / 2];
    for moment in moments.map(|step| Moment::Checkpoint(step as usize)) {
        contract.kill("parts", moment);
    }
    contract.place.call("run averaged.toml --run parts -q").succeeds();
    assert!(Left::by(&contract.place, "parts") == contract.whole);
    assert_eq!(begins("parts"), [began]);
}

/// Few moments, but all in one run.
#[test]
fn a_run_killed_again_and_again_ends_the_same() {
    let text = LSTM
        .replace("epochs = 12", "epochs = 6")
        .replace("[train]", "[train]\naverage = { kind = \"exponential\", decay = 0.9 }");
    let contract = Contract::of("lstm.toml", &text);
    for moment in [Moment::Checkpoint(20), Moment::Validation(3, 0.3), Moment::Checkpoint(70), Moment::Time(0.4)] {
        // If the moment slips, the run is killed elsewhere, or is done.
        contract.kill("parts", moment);
    }
    contract.place.call("run lstm.toml --run parts -q").succeeds();
    assert!(Left::by(&contract.place, "parts") == contract.whole);
}

#[test]
fn a_run_over_a_table_killed_again_and_again_ends_the_same() {
    let contract = Contract::of("table.toml", TABLE);
    for moment in [Moment::Checkpoint(15), Moment::Validation(2, 0.3), Moment::Time(0.5)] {
        contract.kill("parts", moment);
    }
    contract.place.call("run table.toml --run parts -q").succeeds();
    assert!(Left::by(&contract.place, "parts") == contract.whole);
}

#[test]
fn a_run_over_stories_killed_again_and_again_ends_the_same() {
    let contract = Contract::of("stories.toml", STORIES);
    for moment in [Moment::Checkpoint(15), Moment::Validation(2, 0.3), Moment::Time(0.5)] {
        contract.kill("parts", moment);
    }
    contract.place.call("run stories.toml --run parts -q").succeeds();
    assert!(Left::by(&contract.place, "parts") == contract.whole);
}

#[test]
#[ignore = "slow"]
fn a_model_of_stories_killed_at_twenty_moments_ends_the_same() {
    twenty_kills("stories.toml", STORIES);
}

#[test]
fn what_is_half_written_is_written_again_and_nothing_of_it_stays() {
    let contract = Contract::of("lstm.toml", &LSTM.replace("epochs = 12", "epochs = 3"));
    let run = contract.killed("parts", Moment::Checkpoint(25));
    let mut log = contract.place.read(&format!("{run}/metrics.jsonl"));
    log.extend(b"{\"kind\":\"step\",\"step\":2");
    contract.place.write(&format!("{run}/metrics.jsonl"), log);
    // What a process leaves that is killed while it writes its model; the checkpoint is half written already.
    contract.place.write(&format!("{run}/.model.safetensors.1-1.tmp"), "half");
    contract.place.call(&format!("run lstm.toml --run {run} -q")).succeeds();
    assert!(Left::by(&contract.place, &run) == contract.whole);
    for folder in [run.clone(), format!("{run}/checkpoints")] {
        assert!(!being_written(&contract.place.path(&folder)), "{folder}: a leftover stays");
    }
}

/// A validation that was cut short by a signal, then done, and then lost with its process, must not be logged twice.
#[test]
fn a_validation_stands_in_the_log_once() {
    let contract = Contract::of("lstm.toml", &LSTM.replace("epochs = 12", "epochs = 3"));
    let place = &contract.place;
    let run = (0..40).map(|i| format!("parts-{i}")).find(|run| contract.stopped_in_validation(run));
    let run = run.expect("a signal in a validation");
    let checkpoint = newest(&place.path(&format!("{run}/checkpoints")));
    let before = fs::read(&checkpoint).unwrap();
    let again = || place.call(&format!("run lstm.toml --run {run} -q")).succeeds();
    again();
    // As if the process had died after the record of that validation and before the checkpoint that knows of it.
    for file in ["model.safetensors", "results.json"] {
        fs::remove_file(place.path(&format!("{run}/{file}"))).unwrap();
    }
    for entry in fs::read_dir(checkpoint.parent().unwrap()).unwrap().flatten().filter(|e| e.path() > checkpoint) {
        fs::remove_file(entry.path()).unwrap();
    }
    fs::write(&checkpoint, before).unwrap();
    again();
    assert!(Left::by(place, &run) == contract.whole);
}

/// The newest checkpoint of a folder.
fn newest(folder: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).max().expect("a checkpoint")
}

/// What becomes of a file's bytes.
type Damage = fn(Vec<u8>) -> Vec<u8>;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.is_dir() { copy(&entry, &to) } else { fs::copy(&entry, &to).map(|_| ()).unwrap() }
    }
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let contract = Contract::of("lstm.toml", &LSTM.replace("epochs = 12", "epochs = 4"));
    let place = &contract.place;
    let killed = contract.killed("killed", Moment::Checkpoint(40));
    let damage: [(&str, Damage); 3] = [
        ("cut", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("flipped", |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            bytes
        }),
        ("empty", |_| Vec::new()),
    ];
    for (name, damage) in damage {
        copy(&place.path(&killed), &place.path(name));
        let checkpoints = place.path(&format!("{name}/checkpoints"));
        let path = newest(&checkpoints);
        fs::write(&path, damage(fs::read(&path).unwrap())).unwrap();
        let called = place.call(&format!("run lstm.toml --run {name}"));
        let (file, err) = (path.file_name().unwrap().to_str().unwrap(), called.err());
        let warned = format!("warning: {name}/checkpoints/{file}: the checkpoint is damaged (");
        assert!(err.contains(&warned) && err.contains("; trying the one before it\n"), "{err}");
        assert!(err.contains("resume   after step "), "{err}");
        called.succeeds();
        assert!(Left::by(place, name) == contract.whole, "{name}");
    }
    // When none is left, the run begins anew, and loses no more than time.
    let checkpoints = place.path(&format!("{killed}/checkpoints"));
    for entry in fs::read_dir(&checkpoints).unwrap() {
        fs::write(entry.unwrap().path(), b"nothing").unwrap();
    }
    let called = place.call(&format!("run lstm.toml --run {killed}"));
    let err = called.err();
    assert!(err.contains("; none is left: starting at step 0\n") && !err.contains("resume "), "{err}");
    called.succeeds();
    assert!(Left::by(place, &killed) == contract.whole);
}

#[test]
fn a_process_killed_while_it_begins_leaves_its_folder_free() {
    let place = Place::new();
    for i in 0..6 {
        let mut child = place.start("train tiny.toml --run mine -q");
        std::thread::sleep(Duration::from_millis(2 * i));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.call("train tiny.toml --run mine -q").succeeds();
}

/// What a crash of the machine may leave: a log that lacks what the checkpoint knows.
#[test]
fn a_hole_in_the_log_is_told_and_costs_no_more_than_its_records() {
    let place = Place::new();
    place.call("train tiny.toml -q --run whole").succeeds();
    place.call("train tiny.toml -q --run parts --pause-after-steps 25").succeeds();
    let log = String::from_utf8(place.read("parts/metrics.jsonl")).unwrap();
    let step = |line: &str| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap();
    let is_kept = |line: &&str| !(5..=8).contains(&step(line)) && step(line) <= 22;
    place.write("parts/metrics.jsonl", log.lines().filter(is_kept).map(|line| format!("{line}\n")).collect::<String>());
    let called = place.call("train tiny.toml --run parts");
    let warning = "warning: parts/metrics.jsonl: the records of steps 5 to 8, 23 to 25 are lost, and curves have a gap there; \
                   the training is whole and goes on\nresume   after step 25\n";
    assert!(called.err().contains(warning), "{}", called.err());
    called.succeeds();
    assert_eq!(place.read("parts/model.safetensors"), place.read("whole/model.safetensors"));
    let page = String::from_utf8(place.read("parts/report.html")).unwrap();
    let lines: Vec<&str> =
        page.split("class=\"line s0 d0\" d=\"").skip(1).map(|d| d.split('"').next().unwrap()).collect();
    // The sample of a legend is a line too.
    let curves: Vec<&&str> = lines.iter().filter(|path| path.len() > 100).collect();
    assert!(curves.len() >= 4 && curves.iter().all(|path| path.matches('M').count() == 3), "{curves:?}");
    // A log without a hole is no reason to say anything.
    place.call("train tiny.toml -q --run other --pause-after-steps 25").succeeds();
    assert!(!place.call("train tiny.toml --run other").err().contains("warning"));
}
