//! The contract of a run: resuming changes nothing, threads change nothing, and every way to end leaves it usable.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Result, Special, Target};
use antiphon_kernels::{Carry, Projection, Term};
use antiphon_train::*;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::json;

const V: usize = 11;
const H: usize = 6;

/// Predicts a token from the one before it.
#[derive(Module, Debug)]
struct Bigram {
    table: Param<Tensor<2>>,
    output: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

fn model() -> Bigram {
    let device = Device::flex().autodiff();
    let key = Key::from_seed(3);
    let matrix = |name: &str| {
        let values: Vec<f32> = (0..(V * H) as u64).map(|i| 0.3 * key.named(name).normal(i) as f32).collect();
        Param::from_tensor(Tensor::from_data(TensorData::new(values, [V, H]), &device))
    };
    Bigram { table: matrix("table"), output: matrix("output"), bias: Param::from_tensor(Tensor::zeros([V], &device)) }
}

/// `dropout` is the share of hidden units that are dropped.
fn projection(model: &Bigram, batch: &Batch, dropout: f64, key: Key) -> Projection {
    let (device, Target { inputs, labels, lengths, width }) = (Device::flex(), &batch.target);
    let real = |ids: &[u32]| {
        let rows = lengths.iter().enumerate().map(|(b, &n)| &ids[b * width..][..n as usize]);
        rows.collect::<Vec<_>>().concat()
    };
    let ids: Vec<i32> = real(inputs).into_iter().map(|id| id as i32).collect();
    let n = ids.len();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [n]), &device);
    let keep = |i: u64| if key.uniform(i) < dropout { 0.0 } else { (1.0 / (1.0 - dropout)) as f32 };
    let mask: Vec<f32> = (0..(n * H) as u64).map(keep).collect();
    let mask = Tensor::<2>::from_data(TensorData::new(mask, [n, H]), &device);
    let states = model.table.val().select(0, ids).tanh() * mask;
    Projection { states, weight: model.output.val(), bias: Some(model.bias.val()), targets: real(labels) }
}

fn objective(dropout: f64) -> impl Fn(&Bigram, &Batch, &mut Carry, Key) -> Result<Vec<Term>> {
    move |model, batch, _, key| {
        Ok(vec![Term::CrossEntropy { projection: projection(model, batch, dropout, key), weight: 1.0 }])
    }
}

/// Sentences that count upwards, in an order that depends on the epoch.
struct Corpus {
    batches: usize,
    rows: usize,
}

impl Corpus {
    fn batch(&self, number: usize) -> Batch {
        let examples: Vec<usize> = (number * self.rows..(number + 1) * self.rows).collect();
        let sentence = |&example: &usize| {
            let mut ids: Vec<u32> = (0..2 + example as u32 % 4).map(|i| 4 + (example as u32 + i) % 7).collect();
            ids.push(Special::End.id());
            ids
        };
        let rows: Vec<Vec<u32>> = examples.iter().map(sentence).collect();
        Batch { sources: Vec::new(), target: Target::whole(&rows), continues: Vec::new(), examples, copies: None }
    }
}

impl Batches for Corpus {
    fn epoch(&self, epoch: u64, skip: usize) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
        let mut order: Vec<usize> = (0..self.batches).collect();
        Key::from_seed(1).numbered(epoch).shuffle(&mut order);
        Ok(Box::new(order.into_iter().skip(skip).map(|number| Ok(self.batch(number)))))
    }

    fn batches_in(&self, _: u64) -> usize {
        self.batches
    }
}

const CORPUS: Corpus = Corpus { batches: 7, rows: 3 };

/// What happens from outside while a run is on its way.
#[derive(Default)]
struct Outside<'a> {
    reports: Vec<StepReport>,
    validations: Vec<ValidationReport>,
    warnings: Vec<String>,
    /// How many steps it had heard of whenever a checkpoint was to be written, and whenever one was.
    checkpoints: (Vec<usize>, Vec<usize>),
    /// Raises the flag after this step.
    stop: Option<(u64, &'a AtomicBool)>,
    /// Dies after this step, without a chance to save.
    die: Option<u64>,
    /// Ends there for now.
    pause: Option<Pause>,
}

impl Observer for Outside<'_> {
    fn step(&mut self, report: &StepReport) -> Result<()> {
        self.reports.push(report.clone());
        if let Some((step, flag)) = self.stop
            && step == report.step
        {
            flag.store(true, Ordering::Relaxed);
        }
        if self.die == Some(report.step) { Err(Error::new("killed")) } else { Ok(()) }
    }

    fn validation(&mut self, report: &ValidationReport) -> Result<()> {
        self.validations.push(report.clone());
        Ok(())
    }

    fn before_checkpoint(&mut self) -> Result<()> {
        assert_eq!(self.checkpoints.0.len(), self.checkpoints.1.len());
        self.checkpoints.0.push(self.reports.len());
        Ok(())
    }

    fn checkpoint(&mut self, path: &Path) -> Result<()> {
        assert!(path.is_file());
        self.checkpoints.1.push(self.reports.len());
        Ok(())
    }

    fn warning(&mut self, message: &str) {
        self.warnings.push(message.into());
    }
}

/// The loss per token without dropout, and twice that under another name.
fn judge(model: &Bigram) -> Validation {
    let batch = CORPUS.batch(2);
    assert!(!model.table.val().is_autodiff());
    let projection = projection(model, &batch, 0.0, Key::from_seed(0));
    let tokens = projection.targets.len() as f64;
    let loss = f64::from(antiphon_kernels::cross_entropy(projection, 0.0).into_scalar::<f32>()) / tokens;
    Validation {
        values: BTreeMap::from([("loss".into(), loss), ("error".into(), 2.0 * loss)]),
        ..Validation::default()
    }
}

fn config(json: serde_json::Value) -> TrainConfig {
    serde_json::from_value(json).unwrap()
}

struct Run<'a> {
    config: &'a TrainConfig,
    folder: &'a Path,
    settings: &'a str,
    objective: &'a dyn Objective<Bigram>,
}

impl Run<'_> {
    fn go(&self, outside: &mut Outside<'_>, resume: Option<Checkpoint>) -> Result<Outcome<Bigram>> {
        self.judged(outside, resume, &mut |model, _| Ok(Some(judge(model))))
    }

    fn judged(
        &self,
        outside: &mut Outside<'_>,
        resume: Option<Checkpoint>,
        validate: &mut dyn FnMut(&Bigram, &Progress) -> Result<Option<Validation>>,
    ) -> Result<Outcome<Bigram>> {
        let never = AtomicBool::new(false);
        Training {
            config: self.config,
            objective: self.objective,
            batches: &CORPUS,
            validator: Some(Validator { validate, lower_is_better: true }),
            stop: outside.stop.map_or(&never, |(_, flag)| flag),
            pause: outside.pause,
            observer: outside,
            checkpoints: self.folder,
            seed: 9,
            settings: self.settings,
        }
        .run(model(), resume)
    }

    /// Resumes from the newest checkpoint.
    fn go_on(&self, outside: &mut Outside<'_>) -> Result<Outcome<Bigram>> {
        let checkpoint = newest_checkpoint(self.folder, outside)?;
        assert!(checkpoint.is_some());
        self.go(outside, checkpoint)
    }
}

fn run<'a>(config: &'a TrainConfig, folder: &'a tempfile::TempDir) -> Run<'a> {
    Run { config, folder: folder.path(), settings: "settings", objective: &usual }
}

fn usual(model: &Bigram, batch: &Batch, carry: &mut Carry, key: Key) -> Result<Vec<Term>> {
    objective(0.3)(model, batch, carry, key)
}

/// The same, where the first states of the batch before are seen by every token.
fn carrying(model: &Bigram, batch: &Batch, carry: &mut Carry, key: Key) -> Result<Vec<Term>> {
    let mut projection = projection(model, batch, 0.3, key);
    let goes_on = vec![!carry.is_empty(); 3];
    let before = carry.resume("seen", Tensor::zeros([3, H], &Device::flex()), &goes_on)?;
    projection.states = projection.states + before.mean_dim(0);
    *carry = Carry::new([("seen".to_owned(), projection.states.clone().narrow(0, 0, 3))]);
    Ok(vec![Term::CrossEntropy { projection, weight: 1.0 }])
}

/// Every file with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}

fn configs() -> Vec<TrainConfig> {
    let run = |optimizer: serde_json::Value, schedule: serde_json::Value| {
        config(json!({
            "steps": 20, "accumulate": 2, "l1": 1e-4, "l2": 1e-4, "clip_norm": 0.5,
            "loss": {"label_smoothing": 0.1}, "optimizer": optimizer, "schedule": schedule,
            "validate": {"every_epochs": 2, "every_steps": 3, "metric": "error"},
            "stop": {"patience": 30, "min_delta": 0.05},
            "checkpoint": {"every_steps": 3, "keep": 2},
        }))
    };
    vec![
        run(
            json!({"kind": "sgd", "learning_rate": 0.5, "momentum": 0.9}),
            json!({"kind": "plateau", "patience": 1, "min_delta": 0.3}),
        ),
        run(json!({"kind": "adam", "learning_rate": 0.05}), json!({"kind": "cosine", "warmup": 3})),
        run(json!({"kind": "adamw", "learning_rate": 0.05}), json!({"kind": "inverse_sqrt", "warmup": 3})),
        run(
            json!({"kind": "rmsprop", "learning_rate": 0.02, "momentum": 0.5}),
            json!({"kind": "step", "every_epochs": 2}),
        ),
    ]
}

/// The same with averages: from the first step, and from a validation in the middle of the run.
fn averaged() -> Vec<TrainConfig> {
    let averages = [json!({"kind": "exponential", "decay": 0.8}), json!({"kind": "triggered", "patience": 1})];
    let with = |(config, average)| TrainConfig { average: serde_json::from_value(average).unwrap(), ..config };
    let mut averaged: Vec<TrainConfig> = configs().into_iter().zip(averages).map(with).collect();
    // So large a step that validation soon stops improving.
    averaged[1].optimizer = serde_json::from_value(json!({"kind": "sgd", "learning_rate": 40.0})).unwrap();
    averaged
}

/// The same with means of models at the end.
fn of_models() -> Vec<TrainConfig> {
    let averages = [json!({"kind": "last", "count": 3}), json!({"kind": "best", "count": 4})];
    let with = |(config, average)| TrainConfig { average: serde_json::from_value(average).unwrap(), ..config };
    configs().into_iter().zip(averages).map(with).collect()
}

/// The same with parts on terms of their own, with an average and without.
fn of_parts() -> Vec<TrainConfig> {
    let parameters = json!({"frozen": ["bias"], "learning_rates": {"table": 0.3}, "towards_start": {"output": 0.05}});
    let with = |config| TrainConfig { parameters: serde_json::from_value(parameters.clone()).unwrap(), ..config };
    [configs().swap_remove(1), averaged().swap_remove(0)].map(with).into()
}

#[test]
fn a_run_that_is_stopped_or_killed_and_resumed_ends_in_the_same_bytes() {
    for config in configs().into_iter().chain(averaged()).chain(of_parts()).chain(of_models()) {
        let whole = tempfile::tempdir().unwrap();
        let mut undisturbed = Outside::default();
        let outcome = run(&config, &whole).go(&mut undisturbed, None).unwrap();
        assert_eq!((outcome.ended, outcome.state.step), (Ended::Steps, 20));
        // Four steps an epoch, the last of one batch only.
        assert_eq!((outcome.state.epoch, outcome.state.batch), (5, 0));

        for stop in [1, 4, 6, 10, 13, 20] {
            let flag = AtomicBool::new(false);
            let parts = tempfile::tempdir().unwrap();
            let mut first = Outside { stop: Some((stop, &flag)), ..Outside::default() };
            let ended = run(&config, &parts).go(&mut first, None).unwrap();
            assert_eq!((ended.ended, ended.state.step), (Ended::Stopped, stop));
            assert!(ended.best.is_none());
            let mut second = Outside::default();
            let resumed = run(&config, &parts).go_on(&mut second).unwrap();
            assert_eq!(resumed.state, outcome.state);
            let last = checkpoint_path(Path::new(""), 20).to_string_lossy().into_owned();
            assert!(files(parts.path())[&last] == files(whole.path())[&last], "{config:?} stopped after {stop}");
            assert_eq!(save_weights(&resumed.best.unwrap()), save_weights(outcome.best.as_ref().unwrap()));
            let losses = |reports: &[StepReport]| reports.iter().map(|r| (r.step, r.loss)).collect::<Vec<_>>();
            assert_eq!(losses(&[first.reports, second.reports].concat()), losses(&undisturbed.reports));
        }

        for die in [5, 9, 14] {
            let parts = tempfile::tempdir().unwrap();
            let mut first = Outside { die: Some(die), ..Outside::default() };
            assert_eq!(run(&config, &parts).go(&mut first, None).unwrap_err().to_string(), "killed");
            run(&config, &parts).go_on(&mut Outside::default()).unwrap();
            assert!(files(parts.path()) == files(whole.path()), "{config:?} killed after {die}");
        }
    }
}

#[test]
fn what_is_judged_chosen_and_given_is_the_average_and_training_goes_on_without_it() {
    for (config, plain) in averaged()
        .into_iter()
        .zip([&configs()[0], &TrainConfig { average: AverageConfig::default(), ..averaged()[1].clone() }])
    {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut outside, mut undisturbed) = (Outside::default(), Outside::default());
        // The figures of the average must not decide what it is compared with.
        let config = TrainConfig { schedule: ScheduleConfig::default(), ..config };
        let plain = TrainConfig { schedule: ScheduleConfig::default(), ..plain.clone() };
        let seen = RefCell::new(BTreeMap::new());
        let mut validate = |model: &Bigram, progress: &Progress| {
            seen.borrow_mut().insert(progress.step, save_weights(model));
            Ok(Some(judge(model)))
        };
        let outcome = run(&config, &folder).judged(&mut outside, None, &mut validate).unwrap();
        let unaveraged = run(&plain, &other).go(&mut undisturbed, None).unwrap();
        let losses = |reports: &[StepReport]| reports.iter().map(|r| r.loss).collect::<Vec<_>>();
        assert_eq!(losses(&outside.reports), losses(&undisturbed.reports));
        assert_ne!(save_weights(&outcome.last), save_weights(&unaveraged.last));

        let seen = seen.into_inner();
        let (best, last) = (outcome.state.best.unwrap().step, *seen.keys().max().unwrap());
        assert_eq!(save_weights(&outcome.best.unwrap()), seen[&best]);
        assert_eq!(save_weights(&outcome.last), seen[&last]);
        let newest = newest_checkpoint(folder.path(), &mut ()).unwrap().unwrap();
        let average = newest.state.average.clone();
        let of = |weights: Vec<Weight>| {
            let mut weights = weights;
            weights.sort_by(|a, b| a.path.cmp(&b.path));
            weights
        };
        assert_eq!(of(newest.into_model()), of(seen[&last].clone()));
        // It begins where validation said so, once, and with the next step.
        let began: Vec<u64> = outside.validations.iter().filter(|v| v.average_begins).map(|v| v.step).collect();
        match config.average {
            AverageConfig::Triggered(_) => {
                assert_eq!((began.len(), average.began), (1, Some(began[0])));
                assert_eq!(average.updates, 20 - began[0]);
            }
            _ => assert_eq!((began.len(), average.began, average.updates), (0, None, 20)),
        }
    }
}

/// Decay, penalties, clipping and an average, each of which could touch what no gradient reaches.
#[test]
fn what_is_frozen_is_neither_moved_nor_counted_nor_averaged() {
    let frozen = |parts: &[&str]| {
        config(json!({
            "steps": 12, "l1": 1e-3, "l2": 1e-3, "clip_norm": 0.2, "parameters": {"frozen": parts},
            "optimizer": {"kind": "adamw", "learning_rate": 0.05, "weight_decay": 0.1},
            "average": {"kind": "exponential", "decay": 0.8}, "checkpoint": {"every_steps": 3},
        }))
    };
    let start: BTreeMap<String, Weight> = save_weights(&model()).into_iter().map(|w| (w.path.clone(), w)).collect();
    // The norm of the first gradient, and the weights at the end.
    let trained = |parts: &[&str]| {
        let (config, folder, mut outside) = (frozen(parts), tempfile::tempdir().unwrap(), Outside::default());
        let outcome = run(&config, &folder).go(&mut outside, None).unwrap();
        let newest = files(folder.path()).pop_last().unwrap().1;
        for (path, start) in &start {
            let is_frozen = parts.contains(&path.as_str());
            let has = |part: &str| {
                let name = format!("\"{part}.{path}\"");
                newest.windows(name.len()).any(|bytes| bytes == name.as_bytes())
            };
            assert!(has("model") && has("average") != is_frozen, "{path} in {parts:?}");
            assert!(has("optimizer.first_moment") != is_frozen, "{path} in {parts:?}");
            assert_eq!(outcome.state.updates.contains_key(path), !is_frozen);
            for model in [&outcome.last, outcome.best.as_ref().unwrap()] {
                let weights = save_weights(model);
                let end = weights.iter().find(|weight| weight.path == *path).unwrap();
                assert_eq!(end == start, is_frozen, "{path} in {parts:?}");
            }
        }
        outside.reports[0].gradient_norm
    };
    let whole = trained(&[]);
    let alone = [["output", "bias"], ["table", "bias"], ["table", "output"]].map(|others| trained(&others));
    let sum = alone.iter().map(|norm| norm * norm).sum::<f64>().sqrt();
    assert!((sum / whole - 1.0).abs() < 1e-6, "{alone:?} are not the parts of {whole}");

    // To the rest it is a constant.
    let constant = |model: &Bigram, batch: &Batch, _: &mut Carry, key: Key| {
        let mut projection = projection(model, batch, 0.3, key);
        projection.bias = projection.bias.map(Tensor::detach);
        Ok(vec![Term::CrossEntropy { projection, weight: 1.0 }])
    };
    let ends = [(vec!["bias"], &usual as &dyn Objective<Bigram>), (vec![], &constant as &dyn Objective<Bigram>)].map(
        |(parts, objective)| {
            let (config, folder) = (frozen(&parts), tempfile::tempdir().unwrap());
            let outcome = Run { objective, ..run(&config, &folder) }.go(&mut Outside::default(), None).unwrap();
            (save_weights(&outcome.last), outcome.state)
        },
    );
    assert!(ends[0] == ends[1]);

    let (config, folder) = (frozen(&["*"]), tempfile::tempdir().unwrap());
    let error = run(&config, &folder).go(&mut Outside::default(), None).unwrap_err().to_string();
    assert!(error.starts_with("train.parameters.frozen: every parameter is frozen"), "{error}");
}

/// The figures are made up; the means are those of the models that were seen.
#[test]
fn the_best_mean_of_models_is_given_if_it_is_better_than_the_best_model() {
    let of_model = |step: u64| (5 + step * 7 % 5) as f64;
    let steps = [3, 6, 9, 12, 15, 18, 20];
    // Of equals the earlier one comes first.
    let mut by_figure = steps;
    by_figure.sort_by(|&a, &b| of_model(a).total_cmp(&of_model(b)));
    let mut backwards = steps;
    backwards.reverse();
    for (kind, order) in [("last", backwards), ("best", by_figure)] {
        // The figures of the means of two, three and four models, and of how many the best mean is, if it is better.
        for (of_means, expected) in [([4.5, 4.0, 4.25], Some(3)), ([4.0, 4.0, 4.5], Some(2)), ([9.0, 5.0, 6.0], None)] {
            let config = config(json!({
                "steps": 20, "validate": {"every_epochs": 0, "every_steps": 3}, "average": {"kind": kind, "count": 4},
                "checkpoint": {"every_steps": 0},
            }));
            let folder = tempfile::tempdir().unwrap();
            let (mut seen, mut means) = (BTreeMap::new(), of_means.iter());
            let mut validate = |model: &Bigram, progress: &Progress| {
                // At the end the means come behind the last model.
                let value = match seen.entry(progress.step) {
                    Entry::Vacant(none) => {
                        none.insert(save_weights(model));
                        of_model(progress.step)
                    }
                    Entry::Occupied(_) => *means.next().unwrap(),
                };
                Ok(Some(Validation { values: BTreeMap::from([("loss".into(), value)]), ..Validation::default() }))
            };
            let outcome = run(&config, &folder).judged(&mut Outside::default(), None, &mut validate).unwrap();
            assert!(means.next().is_none() && seen.keys().eq(&steps));
            let kept: Vec<u64> = outcome.state.kept.iter().map(|kept| kept.step).collect();
            assert_eq!(kept, order[..4]);
            assert!(kept.iter().all(|&step| checkpoint_path(folder.path(), step).is_file()));
            let best = outcome.state.best.unwrap();
            assert_eq!((best.step, best.value), (by_figure[0], 5.0));
            let (count, averaged) = match expected {
                Some(count) => (count, Some(Averaged { steps: order[..count].to_vec(), value: of_means[count - 2] })),
                None => (0, None),
            };
            assert_eq!(outcome.averaged, averaged, "{kind} {of_means:?}");
            let mut mean = Mean::default();
            let given = if count > 0 { &order[..count] } else { &by_figure[..1] };
            given.iter().for_each(|step| mean.add(seen[step].clone()).unwrap());
            let mut given = save_weights(&outcome.best.unwrap());
            given.sort_by(|a, b| a.path.cmp(&b.path));
            assert!(given == mean.weights(), "{kind} {of_means:?}");
        }
    }
}

#[test]
fn what_is_carried_is_a_part_of_what_is_resumed() {
    let config = &configs()[1];
    let (whole, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fn of<'a>(config: &'a TrainConfig, folder: &'a tempfile::TempDir) -> Run<'a> {
        Run { objective: &carrying, ..run(config, folder) }
    }
    of(config, &whole).go(&mut Outside::default(), None).unwrap();
    run(config, &plain).go(&mut Outside::default(), None).unwrap();
    let last = checkpoint_path(Path::new(""), 20).to_string_lossy().into_owned();
    let has_carry = |folder: &Path| files(folder)[&last].windows(10).any(|bytes| bytes == b"carry.seen");
    assert!(has_carry(whole.path()) && !has_carry(plain.path()));
    // Between two batches of one step, of one epoch, and of two epochs.
    for die in [2, 5, 8, 9, 14] {
        let parts = tempfile::tempdir().unwrap();
        assert!(of(config, &parts).go(&mut Outside { die: Some(die), ..Outside::default() }, None).is_err());
        let mut outside = Outside::default();
        let newest = newest_checkpoint(parts.path(), &mut outside).unwrap();
        of(config, &parts).go(&mut outside, newest).unwrap();
        assert!(files(parts.path()) == files(whole.path()), "killed after {die}");
    }
}

#[test]
fn terms_add_up_by_their_weights() {
    let config = config(json!({"steps": 8, "checkpoint": {"every_steps": 0}, "loss": {"label_smoothing": 0.1}}));
    // The cross-entropy with a weight, beside the sum of squares of the output weight, which is no share of it.
    let ends = |cross_entropy: &'static [f64], decay: Option<f64>| {
        let of = |model: &Bigram, batch: &Batch, _: &mut Carry, key: Key| {
            let projection = projection(model, batch, 0.3, key);
            let loss = model.output.val().powi_scalar(2).sum();
            let decay = decay.map(|weight| Term::Sum { name: "decay", loss, weight });
            let of = |&weight: &f64| Term::CrossEntropy { projection: projection.clone(), weight };
            Ok(cross_entropy.iter().map(of).chain(decay).collect())
        };
        let folder = tempfile::tempdir().unwrap();
        let outcome = Run { objective: &of, ..run(&config, &folder) }.go(&mut Outside::default(), None);
        outcome.map(|outcome| save_weights(&outcome.last))
    };
    let one = ends(&[1.0], None).unwrap();
    assert_eq!(ends(&[1.0], Some(0.0)).unwrap(), one);
    assert_eq!(ends(&[0.0, 1.0], None).unwrap(), one);
    assert_ne!(ends(&[1.0], Some(0.1)).unwrap(), one);
    for (halves, one) in ends(&[0.5, 0.5], None).unwrap().iter().zip(&one) {
        assert!(halves.values.iter().zip(&one.values).all(|(a, b)| (a - b).abs() < 1e-4), "{}", one.path);
    }
    assert!(ends(&[0.0], None).unwrap_err().to_string().contains("no loss with a weight"));
}

#[test]
fn a_run_that_is_extended_is_one_that_was_so_long_from_the_start() {
    // Those whose rate does not depend on the length of the run.
    let all = configs().into_iter().chain(averaged()).chain(of_parts()).chain(of_models());
    let all: Vec<_> = all.filter(|config| !config.schedule.ends_with_the_run()).collect();
    assert!(all.len() >= 4);
    for config in all {
        let of = |steps| {
            let validate = ValidateConfig { every_epochs: 0, every_steps: 4, metric: "error".into() };
            TrainConfig { steps: Some(steps), validate, ..config.clone() }
        };
        let (short, long) = (of(12), of(20));
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let whole = run(&long, &folders[0]).go(&mut Outside::default(), None).unwrap();
        run(&short, &folders[1]).go(&mut Outside::default(), None).unwrap();
        extend_checkpoints(folders[1].path(), folders[2].path(), 12, Restarts::default(), "settings").unwrap();
        let extended = run(&long, &folders[2]).go_on(&mut Outside::default()).unwrap();
        assert_eq!(extended.state, whole.state);
        let last = checkpoint_path(Path::new(""), 20).to_string_lossy().into_owned();
        assert!(files(folders[2].path())[&last] == files(folders[0].path())[&last], "{config:?}");
        assert_eq!(save_weights(&extended.best.unwrap()), save_weights(&whole.best.unwrap()));
    }
}

#[test]
fn what_restarts_begins_anew_and_nothing_else() {
    let of = |steps: u64| {
        config(json!({
            "steps": steps, "optimizer": {"kind": "adam", "learning_rate": 0.05},
            "schedule": {"kind": "cosine", "warmup": 3}, "stop": {"patience": 90, "min_delta": 9.0},
            "validate": {"every_epochs": 0, "every_steps": 4}, "checkpoint": {"every_steps": 1, "keep": 20},
        }))
    };
    let rates = |outside: Outside<'_>| outside.reports.iter().map(|r| r.learning_rate).collect::<Vec<_>>();
    let (short, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let end = run(&of(8), &short).go(&mut Outside::default(), None).unwrap().state;
    let mut outside = Outside::default();
    run(&of(12), &fresh).go(&mut outside, None).unwrap();
    let of_twelve = rates(outside);
    for restarts in (0..8).map(|i| Restarts { schedule: i & 1 > 0, optimizer: i & 2 > 0, patience: i & 4 > 0 }) {
        let folder = tempfile::tempdir().unwrap();
        assert!(!reaches(folder.path(), 8).unwrap());
        extend_checkpoints(short.path(), folder.path(), 8, restarts, "others").unwrap();
        assert!(reaches(folder.path(), 8).unwrap());
        let newest = newest_checkpoint(folder.path(), &mut ()).unwrap().unwrap();
        assert_eq!(newest.state.stop, if restarts.patience { Patience::default() } else { end.stop });
        assert_eq!((newest.state.best, newest.state.epoch), (end.best, end.epoch));
        let (long, mut outside) = (of(20), Outside::default());
        let run = Run { settings: "others", ..run(&long, &folder) };
        let state = run.go_on(&mut outside).unwrap().state;
        assert!(state.updates.values().all(|&updates| updates == if restarts.optimizer { 12 } else { 20 }));
        assert_eq!(rates(outside) == of_twelve, restarts.schedule, "{restarts:?}");
    }
    // What lacks its checkpoints has no way to go on.
    fs::remove_file(checkpoint_path(short.path(), 8)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = extend_checkpoints(short.path(), folder.path(), 8, Restarts::default(), "s").unwrap_err().to_string();
    assert!(
        error.contains("step-0000000008.safetensors: cannot read: ") && error.contains("train.start_from"),
        "{error}"
    );
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_pause_comes_after_the_validation_that_is_due_and_changes_nothing() {
    for config in configs() {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut undisturbed = Outside::default();
        run(&config, &whole).go(&mut undisturbed, None).unwrap();
        let (mut validations, mut resume) = (Vec::new(), None);
        // Validated are steps 3, 6, … and epochs 2, 4, which end at steps 8 and 16.
        for (pause, step) in [(Pause::Steps(6), 6), (Pause::Epochs(2), 8), (Pause::Steps(10), 10)] {
            let mut outside = Outside { pause: Some(pause), ..Outside::default() };
            let outcome = run(&config, &parts).go(&mut outside, resume).unwrap();
            assert_eq!((outcome.ended, outcome.state.step), (Ended::Stopped, step));
            assert_eq!(outcome.state.validated, if step == 10 { 9 } else { step });
            validations.append(&mut outside.validations);
            resume = newest_checkpoint(parts.path(), &mut outside).unwrap();
        }
        let mut rest = Outside { pause: Some(Pause::Steps(20)), ..Outside::default() };
        let outcome = run(&config, &parts).go(&mut rest, resume).unwrap();
        assert_eq!(outcome.ended, Ended::Steps, "an end is an end");
        validations.extend(rest.validations);
        let figures = |all: &[ValidationReport]| all.iter().map(|v| (v.step, v.validation.clone())).collect::<Vec<_>>();
        assert_eq!(figures(&validations), figures(&undisturbed.validations));
        let last = checkpoint_path(Path::new(""), 20).to_string_lossy().into_owned();
        assert!(files(parts.path())[&last] == files(whole.path())[&last], "{config:?}");
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_byte() {
    let config = &configs()[1];
    let bytes = [1, 3].map(|threads| {
        let folder = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(config, &folder).go(&mut Outside::default(), None)).unwrap();
        files(folder.path())
    });
    assert!(bytes[0] == bytes[1]);
}

#[test]
fn a_validation_that_was_cut_short_is_made_up_for() {
    let config = &configs()[0];
    let whole = tempfile::tempdir().unwrap();
    let expected = run(config, &whole).go(&mut Outside::default(), None).unwrap();

    let parts = tempfile::tempdir().unwrap();
    let mut cut = |model: &Bigram, progress: &Progress| Ok((progress.step < 9).then(|| judge(model)));
    let ended = run(config, &parts).judged(&mut Outside::default(), None, &mut cut).unwrap();
    assert_eq!((ended.ended, ended.state.step, ended.state.validated), (Ended::Stopped, 9, 8));
    let mut outside = Outside::default();
    let resumed = run(config, &parts).go_on(&mut outside).unwrap();
    assert_eq!(outside.validations[0].step, 9);
    assert_eq!(resumed.state, expected.state);
    assert!(files(parts.path()) == files(whole.path()));
}

#[test]
fn a_run_learns_and_returns_its_best_model() {
    let config = config(json!({
        "epochs": 40, "optimizer": {"kind": "adam", "learning_rate": 0.05}, "checkpoint": {"every_steps": 0},
    }));
    let folder = tempfile::tempdir().unwrap();
    let mut outside = Outside::default();
    let outcome = run(&config, &folder).go(&mut outside, None).unwrap();
    assert_eq!((outcome.ended, outcome.state.step, outcome.state.epoch), (Ended::Epochs, 280, 40));
    let (first, last) = (&outside.reports[0], outside.reports.last().unwrap());
    assert!((first.loss - (V as f64).ln()).abs() < 0.5, "{first:?}");
    assert!(last.loss < 0.7 * first.loss, "{last:?}");
    assert_eq!((last.step, last.total_steps, last.epoch, last.batches_done, last.batches), (280, 280, 39, 7, 7));

    let loss = |model: &Bigram| judge(model).values["loss"];
    let best = outcome.state.best.unwrap();
    assert_eq!(loss(&outcome.best.unwrap()), best.value);
    let least = outside.validations.iter().map(|v| v.validation.values["loss"]).fold(f64::INFINITY, f64::min);
    assert_eq!(best.value, least);
    // Once it has ended, there is nothing left to do.
    let again = run(&config, &folder).go_on(&mut Outside { die: Some(281), ..Outside::default() }).unwrap();
    assert_eq!((again.ended, again.state), (Ended::Epochs, outcome.state));
}

#[test]
fn patience_ends_a_run_and_the_best_model_is_the_one_before() {
    let config = config(json!({
        "steps": 1000, "validate": {"every_epochs": 0, "every_steps": 2}, "stop": {"patience": 3},
        "checkpoint": {"every_steps": 1},
    }));
    let folder = tempfile::tempdir().unwrap();
    let losses = RefCell::new([5.0, 4.0, 4.5, f64::NAN, 4.0].into_iter());
    let weights = RefCell::new(Vec::new());
    let mut validate = |model: &Bigram, _: &Progress| {
        weights.borrow_mut().push(save_weights(model));
        let loss = losses.borrow_mut().next().unwrap();
        Ok(Some(Validation { values: BTreeMap::from([("loss".into(), loss)]), ..Validation::default() }))
    };
    let mut outside = Outside::default();
    let outcome = run(&config, &folder).judged(&mut outside, None, &mut validate).unwrap();
    assert_eq!((outcome.ended, outcome.state.step), (Ended::Patience, 10));
    assert_eq!(outcome.state.best, Some(Best { step: 4, value: 4.0 }));
    assert_eq!(save_weights(&outcome.best.unwrap()), weights.borrow()[1]);
    assert_eq!(save_weights(&outcome.last), weights.borrow()[4]);
    let names: Vec<String> = files(folder.path()).into_keys().collect();
    assert_eq!(names, [4, 9, 10].map(|step| format!("step-{step:010}.safetensors")));
    assert_eq!(outside.warnings, ["validation after step 8 gives NaN for `loss`"]);
}

#[test]
fn a_clipped_step_has_the_length_of_the_clip() {
    let step = |clip: serde_json::Value| {
        let config = config(json!({
            "steps": 1, "clip_norm": clip, "optimizer": {"kind": "sgd", "learning_rate": 1.0},
        }));
        let folder = tempfile::tempdir().unwrap();
        let mut outside = Outside::default();
        let after = run(&config, &folder).go(&mut outside, None).unwrap().last;
        let change = save_weights(&after).into_iter().zip(save_weights(&model()));
        let change = change.flat_map(|(a, b)| a.values.into_iter().zip(b.values));
        let length = change.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
        (length, outside.reports[0].gradient_norm)
    };
    let (free, norm) = step(json!(null));
    assert!((free - norm).abs() < 1e-5 * norm, "{free} is not {norm}");
    assert!((step(json!(0.1)).0 - 0.1).abs() < 1e-6);
    assert_eq!(step(json!(2.0 * norm)).0, free);
    assert_eq!(step(json!(0.1)).1, norm);
}

#[test]
fn accumulation_equals_one_larger_batch() {
    let step = |corpus: &Corpus, accumulate: u64| {
        let config = config(json!({
            "steps": 1, "accumulate": accumulate, "optimizer": {"kind": "sgd", "learning_rate": 1.0},
        }));
        let folder = tempfile::tempdir().unwrap();
        let (never, mut reports) = (AtomicBool::new(false), Outside::default());
        let training = Training {
            config: &config,
            objective: &objective(0.0),
            batches: corpus,
            validator: None,
            observer: &mut reports,
            stop: &never,
            pause: None,
            checkpoints: folder.path(),
            seed: 0,
            settings: "",
        };
        let outcome = training.run(model(), None).unwrap();
        assert!(outcome.best.is_none());
        (save_weights(&outcome.last), reports.reports.remove(0))
    };
    let (small, a) = step(&Corpus { batches: 4, rows: 3 }, 4);
    let (large, b) = step(&Corpus { batches: 1, rows: 12 }, 1);
    assert_eq!(a.tokens, b.tokens);
    assert!((a.loss - b.loss).abs() < 1e-6 && (a.gradient_norm - b.gradient_norm).abs() < 1e-6);
    for (x, y) in small.iter().zip(&large).flat_map(|(a, b)| a.values.iter().zip(&b.values)) {
        assert!((x - y).abs() < 1e-6, "{x} is not {y}");
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_with_the_batch_named() {
    let config = config(json!({
        "steps": 50, "accumulate": 2, "checkpoint": {"every_steps": 1}, "validate": {"every_epochs": 0},
    }));
    let order: Vec<Vec<usize>> = CORPUS.epoch(1, 0).unwrap().map(|batch| batch.unwrap().examples).collect();
    // Seven batches of the first epoch, then the fourth of the second.
    let calls = Cell::new(0);
    let poisoned = |model: &Bigram, batch: &Batch, _: &mut Carry, key: Key| {
        let mut projection = projection(model, batch, 0.0, key);
        calls.set(calls.get() + 1);
        if calls.get() == 11 {
            projection.states = projection.states * f32::NAN;
        }
        Ok(vec![Term::CrossEntropy { projection, weight: 1.0 }])
    };
    let folder = tempfile::tempdir().unwrap();
    let never = AtomicBool::new(false);
    let training = Training {
        config: &config,
        objective: &poisoned,
        batches: &CORPUS,
        validator: None,
        observer: &mut (),
        stop: &never,
        pause: None,
        checkpoints: folder.path(),
        seed: 9,
        settings: "settings",
    };
    let error = training.run(model(), None).unwrap_err().to_string();
    let examples = order[3].iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let expected = format!(
        "the loss is NaN at step 6, epoch 2, batch 4 (examples {examples}): lower `train.optimizer.learning_rate`, set \
         `train.clip_norm`, or look at these examples; the last checkpoint is untouched"
    );
    assert_eq!(error, expected);
    let kept = newest_checkpoint(folder.path(), &mut ()).unwrap().unwrap();
    assert_eq!(kept.state.step, 5);
    assert!(kept.into_model().iter().all(|weight| weight.values.iter().all(|value| value.is_finite())));
}

#[test]
fn what_does_not_fit_is_refused_with_a_remedy() {
    let good = config(json!({"steps": 2}));
    let folder = tempfile::tempdir().unwrap();
    let fresh = || tempfile::tempdir().unwrap();
    let refused = |run: Run<'_>, resume| run.go(&mut Outside::default(), resume).unwrap_err().to_string();
    run(&good, &folder).go(&mut Outside::default(), None).unwrap();

    let error = refused(run(&good, &folder), None);
    assert!(error.ends_with("holds the checkpoints of a run: resume it, or give another folder"), "{error}");

    let newest = newest_checkpoint(folder.path(), &mut ()).unwrap();
    let error = refused(Run { settings: "others", ..run(&good, &folder) }, newest.clone());
    assert!(error.contains("step-0000000002.safetensors: was made with other settings"), "{error}");

    #[derive(Module, Debug)]
    struct Other {
        other: Param<Tensor<2>>,
    }
    let foreign = Other { other: model().table };
    let error = load_weights(foreign, newest.unwrap().into_model()).unwrap_err().to_string();
    assert!(error.starts_with("4 problems\n  "), "{error}");

    let bad = config(json!({"steps": 2, "validate": {"metric": "bleu"}}));
    assert_eq!(
        refused(run(&bad, &fresh()), None),
        "train.validate.metric: validation does not give `bleu`; it gives `error`, `loss`"
    );
    let bad = config(json!({"accumulate": 0}));
    assert!(refused(run(&bad, &fresh()), None).starts_with("2 problems\n  train.epochs: set `epochs` or `steps`"));
    let bad = config(json!({"steps": 2, "schedule": {"kind": "linear", "warmup": 2}}));
    assert!(refused(run(&bad, &fresh()), None).starts_with("train.schedule.warmup: the warm-up takes 2 steps"));
    let never = config(json!({"steps": 2, "validate": {"every_epochs": 0}, "average": {"kind": "triggered"}}));
    assert!(refused(run(&never, &fresh()), None).starts_with("train.average.kind: `triggered` needs validation"));
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before_and_the_run_still_ends_the_same() {
    let config = &configs()[1];
    let whole = tempfile::tempdir().unwrap();
    run(config, &whole).go(&mut Outside::default(), None).unwrap();

    let parts = tempfile::tempdir().unwrap();
    run(config, &parts).go(&mut Outside { die: Some(14), ..Outside::default() }, None).unwrap_err();
    let newest = checkpoint_path(parts.path(), newest_checkpoint(parts.path(), &mut ()).unwrap().unwrap().state.step);
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();
    let mut outside = Outside::default();
    run(config, &parts).go_on(&mut outside).unwrap();
    assert_eq!(outside.warnings.len(), 1);
    fs::remove_file(newest.with_extension("damaged")).unwrap();
    assert!(files(parts.path()) == files(whole.path()));
}

#[test]
fn without_any_usable_checkpoint_a_run_begins_anew_and_ends_the_same() {
    let config = &configs()[0];
    let whole = tempfile::tempdir().unwrap();
    run(config, &whole).go(&mut Outside::default(), None).unwrap();

    let parts = tempfile::tempdir().unwrap();
    run(config, &parts).go(&mut Outside { die: Some(14), ..Outside::default() }, None).unwrap_err();
    let mut damaged: Vec<_> = files(parts.path()).into_keys().map(|name| parts.path().join(name)).collect();
    damaged.iter().for_each(|path| fs::write(path, b"").unwrap());
    let mut outside = Outside::default();
    assert_eq!(newest_checkpoint(parts.path(), &mut outside).unwrap(), None);
    assert_eq!(outside.warnings.len(), damaged.len());
    run(config, &parts).go(&mut Outside::default(), None).unwrap();
    damaged.iter_mut().for_each(|path| fs::remove_file(path.with_extension("damaged")).unwrap());
    assert!(files(parts.path()) == files(whole.path()));
}

#[test]
fn a_lost_best_model_is_an_error_and_not_another_model() {
    let config = config(json!({"steps": 6, "validate": {"every_steps": 2}, "checkpoint": {"every_steps": 1}}));
    let folder = tempfile::tempdir().unwrap();
    let worse = |_: &Bigram, progress: &Progress| {
        Ok(Some(Validation {
            values: BTreeMap::from([("loss".into(), progress.step as f64)]),
            ..Validation::default()
        }))
    };
    let expected = run(&config, &folder).judged(&mut Outside::default(), None, &mut { worse }).unwrap();
    let best = checkpoint_path(folder.path(), 2);
    let good = fs::read(&best).unwrap();
    fs::write(&best, &good[1..]).unwrap();
    let again = || {
        let newest = newest_checkpoint(folder.path(), &mut ()).unwrap();
        run(&config, &folder).judged(&mut Outside::default(), newest, &mut { worse })
    };
    let error = again().unwrap_err().to_string();
    assert!(error.contains("step-0000000002.safetensors: the best model of the run is lost (is damaged"), "{error}");
    fs::write(&best, good).unwrap();
    assert_eq!(save_weights(&again().unwrap().best.unwrap()), save_weights(&expected.best.unwrap()));
}

/// As many batches as an epoch's number says, and a count of how often it was asked.
struct Counted(Cell<u64>);

impl Batches for Counted {
    fn epoch(&self, _: u64, _: usize) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
        unreachable!("nothing is trained")
    }

    fn batches_in(&self, epoch: u64) -> usize {
        self.0.set(self.0.get() + 1);
        3 + epoch as usize % 2
    }
}

#[test]
fn the_steps_of_a_run_are_known_at_once_however_many_epochs_it_has() {
    let planned = |json: serde_json::Value| {
        let batches = Counted(Cell::new(0));
        (planned_steps(&config(json), &batches, 0).unwrap(), batches.0.get())
    };
    assert_eq!(planned(json!({"epochs": 5})), (3 + 4 + 3 + 4 + 3, 5));
    assert_eq!(planned(json!({"epochs": 4, "accumulate": 2})), (2 * 4, 4));
    assert_eq!(planned(json!({"epochs": 1_000_000})), (3_500_000, 64));
    assert_eq!(planned(json!({"epochs": 1_000_000, "steps": 10})), (10, 3));
    assert_eq!(planned(json!({"steps": 10})), (10, 0));
}

/// The corpus, of which a whole batch would have so many tokens.
struct Unlike(u64);

impl Batches for Unlike {
    fn epoch(&self, epoch: u64, skip: usize) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
        CORPUS.epoch(epoch, skip)
    }

    fn batches_in(&self, epoch: u64) -> usize {
        CORPUS.batches_in(epoch)
    }

    fn whole(&self) -> Option<u64> {
        Some(self.0)
    }
}

#[test]
fn a_step_over_few_tokens_has_a_smaller_rate_where_text_was_cut_so() {
    let json = json!({"steps": 9, "accumulate": 2, "optimizer": {"kind": "sgd", "learning_rate": 0.5}});
    let (config, never) = (config(json), AtomicBool::new(false));
    let run = |batches: &dyn Batches| {
        let (folder, mut outside) = (tempfile::tempdir().unwrap(), Outside::default());
        let training = Training {
            config: &config,
            objective: &usual,
            batches,
            validator: None,
            stop: &never,
            pause: None,
            observer: &mut outside,
            checkpoints: folder.path(),
            seed: 9,
            settings: "settings",
        };
        let outcome = training.run(model(), None).unwrap();
        (save_weights(&outcome.last), outside.reports)
    };
    let (plain, reports) = run(&CORPUS);
    assert!(reports.iter().all(|report| report.learning_rate == 0.5));
    let (scaled, reports) = run(&Unlike(13));
    for (i, report) in reports.iter().enumerate() {
        // The last step of each epoch of seven batches has one, the others two.
        let batches = if i % 4 == 3 { 1.0 } else { 2.0 };
        assert!((report.learning_rate - 0.5 * report.tokens as f64 / (13.0 * batches)).abs() < 1e-12, "{report:?}");
    }
    assert_ne!(plain, scaled);
}
