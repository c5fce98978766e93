//! Speed of whole models: training in target tokens, search in sentences.
//!
//! Sentences are drawn, but as long as real ones. A training step is all of it: forward, loss, backward, clipping, optimizer.
//! `step-forward`, `step-loss` and `step-backward` are its parts, but for clipping and the optimizer, without threads that stay awake.
//! Beside the figures of a step stands how many cores it kept busy (`busy.json`), where the system tells (Linux).
//! In a search every answer has 15 tokens, so that its cost does not depend on what an untrained model says.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use antiphon_core::random::Key;
use antiphon_core::{Batch, Request, Result, Source, SourceBatch, Target, TokenBatch, TokenId};
use antiphon_decode::{SearchConfig, search_all};
use antiphon_kernels::{Carry, Term, copied_cross_entropy, cross_entropy, keep_freed_memory, taught_cross_entropy};
use antiphon_model::{Model, ModelConfig, Streams, Vocabularies};
use antiphon_train::{Batches, Observer, StepReport, TrainConfig, Training};
use burn::tensor::Device;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A model with what it is fed.
struct Case {
    name: &'static str,
    model: &'static str,
    vocabularies: [usize; 2],
    /// Rows of a batch.
    rows: usize,
    /// The shortest and the longest sentence.
    lengths: [usize; 2],
}

const CASES: [Case; 3] = [
    Case {
        name: "quickstart",
        model: r#"{"source": {"kind": "embedding", "size": 128}, "target": {"kind": "embedding", "size": 128},
            "encoder": {"kind": "lstm", "hidden": 128, "bidirectional": true},
            "decoder": {"kind": "lstm", "hidden": 256, "dropout": 0.2, "attention": {"kind": "general"}}}"#,
        vocabularies: [32, 44],
        rows: 256,
        lengths: [4, 12],
    },
    Case {
        name: "input-feeding",
        model: r#"{"source": {"kind": "embedding", "size": 256}, "target": {"kind": "embedding", "size": 256},
            "encoder": {"kind": "lstm", "hidden": 256, "bidirectional": true},
            "decoder": {"kind": "lstm", "hidden": 512, "dropout": 0.3, "input_feeding": true,
                "attention": {"kind": "additive", "width": 512}}}"#,
        vocabularies: [7859, 5921],
        rows: 64,
        lengths: [8, 20],
    },
    Case {
        name: "no-attention",
        model: r#"{"source": {"kind": "one_hot"}, "target": {"kind": "one_hot"},
            "encoder": {"kind": "lstm", "hidden": 256, "bidirectional": false}, "bridge": {"kind": "copy"},
            "decoder": {"kind": "lstm", "hidden": 256, "attention": {"kind": "none"}}}"#,
        vocabularies: [72, 94],
        rows: 64,
        lengths: [12, 28],
    },
];

impl Case {
    fn model(&self, device: &Device) -> Model {
        let config: ModelConfig = serde_json::from_str(self.model).expect("a model's settings");
        let [source, target] = self.vocabularies;
        let vocabularies = Vocabularies { sources: vec![source], target, shared: false };
        config.init(Streams::default(), &vocabularies, Key::from_seed(1), device).expect("a model")
    }

    /// Drawn sentences, each closed by the end symbol's id.
    fn sentences(&self, side: usize) -> Vec<Vec<TokenId>> {
        let key = Key::from_seed(2).numbered(side as u64);
        let [least, most] = self.lengths;
        let draw = |row: usize| {
            let key = key.numbered(row as u64);
            let length = least + key.below(0, (most - least) as u64 + 1) as usize;
            let word = |i: u64| 4 + key.below(i, self.vocabularies[side] as u64 - 4) as TokenId;
            (1..length as u64).map(word).chain([antiphon_core::Special::End.id()]).collect()
        };
        (0..self.rows).map(draw).collect()
    }

    fn batch(&self) -> Batch {
        let source = SourceBatch::Tokens(TokenBatch::from_rows(&self.sentences(0)));
        let target = Target::whole(&self.sentences(1));
        Batch { sources: vec![source], target, continues: Vec::new(), examples: (0..self.rows).collect(), copies: None }
    }
}

/// The same batch for ever.
struct Again(Batch);

impl Batches for Again {
    fn epoch(&self, _: u64, _: usize) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
        Ok(Box::new(std::iter::repeat_with(|| Ok(self.0.clone()))))
    }

    fn batches_in(&self, _: u64) -> usize {
        usize::MAX
    }
}

/// The CPU time of this process, of all its threads; `None` where the system has no `/proc`.
fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may hold spaces. Behind it user and system time are the 12th and 13th field.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    // Programs are told in hundredths of a second.
    Some(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

/// A moment at which something begins.
struct Begun {
    wall: Instant,
    processor: Option<Duration>,
}

impl Begun {
    fn now() -> Self {
        let processor = processor_time();
        Self { wall: Instant::now(), processor }
    }
}

/// Wall time and CPU time of everything that was measured.
#[derive(Default)]
struct Spent {
    wall: Duration,
    processor: Option<Duration>,
}

impl Spent {
    /// Adds what has passed since; → the wall time of it.
    fn add(&mut self, since: &Begun) -> Duration {
        let wall = since.wall.elapsed();
        let processor = since.processor.zip(processor_time()).map(|(before, now)| now - before);
        self.wall += wall;
        self.processor = processor.map(|processor| self.processor.unwrap_or_default() + processor);
        wall
    }

    /// Puts the number of busy cores beside the figures of a benchmark, if `cargo xtask bench` collects them.
    fn write(&self, group: &str, case: &str) {
        let (Some(home), Some(processor)) = (std::env::var_os("CRITERION_HOME"), self.processor) else { return };
        let folder = PathBuf::from(home).join(group).join(case).join("new");
        // The CPU time comes in hundredths of a second: of little time it says little.
        if self.wall < Duration::from_millis(500) || !folder.is_dir() {
            return;
        }
        let cores = processor.as_secs_f64() / self.wall.as_secs_f64();
        std::fs::write(folder.join("busy.json"), format!("{{\"cores\": {cores}}}\n")).expect("figures can be written");
    }
}

/// Measures all steps but the first, which also draws the parameters.
struct Clock<'s> {
    begun: Option<Begun>,
    last: u64,
    passed: Duration,
    spent: &'s mut Spent,
}

impl Observer for Clock<'_> {
    fn step(&mut self, report: &StepReport) -> Result<()> {
        match &self.begun {
            None => self.begun = Some(Begun::now()),
            Some(begun) if report.step == self.last => self.passed = self.spent.add(begun),
            Some(_) => {}
        }
        Ok(())
    }
}

fn time_steps(case: &Case, steps: u64, spent: &mut Spent) -> Duration {
    let config: TrainConfig =
        serde_json::from_str(&format!(r#"{{"epochs": null, "steps": {}, "clip_norm": 1.0}}"#, steps + 1))
            .expect("[train]");
    let folder = tempfile::tempdir().expect("a folder");
    let mut clock = Clock { begun: None, last: steps + 1, passed: Duration::ZERO, spent };
    let objective = |model: &Model, batch: &Batch, carry: &mut Carry, key: Key| model.terms(batch, carry, Some(key));
    let training = Training {
        config: &config,
        objective: &objective,
        batches: &Again(case.batch()),
        validator: None,
        observer: &mut clock,
        stop: &AtomicBool::new(false),
        pause: None,
        checkpoints: folder.path(),
        seed: 1,
        settings: "",
    };
    training.run(case.model(&Device::flex().autodiff()), None).expect("a training");
    clock.passed
}

/// A part of a training step.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Forward,
    Loss,
    Backward,
}

/// Runs forward, loss and backward `steps` times, and measures one of them. An operation has run when its call returns.
fn time_part(part: Part, model: &Model, batch: &Batch, steps: u64, spent: &mut Spent) -> Duration {
    let mut passed = Duration::ZERO;
    let mut measured = |done: Part, begun: &Begun| {
        if done == part {
            passed += spent.add(begun);
        }
    };
    for step in 0..steps {
        let key = Key::from_seed(3).numbered(step);
        let begun = Begun::now();
        let terms = model.terms(batch, &mut Carry::default(), Some(key)).expect("terms of a loss");
        measured(Part::Forward, &begun);
        let begun = Begun::now();
        let losses = terms.into_iter().map(|term| match term {
            Term::CrossEntropy { projection, .. } => cross_entropy(projection, 0.0),
            Term::Taught { projection, teacher, .. } => taught_cross_entropy(projection, 0.0, teacher).loss,
            Term::Copied { projection, own, beside, .. } => copied_cross_entropy(projection, own, beside, 0.0),
            Term::Sum { loss, .. } => loss,
        });
        let loss = losses.reduce(|sum, loss| sum + loss).expect("a loss");
        measured(Part::Loss, &begun);
        let begun = Begun::now();
        drop(black_box(loss.backward()));
        measured(Part::Backward, &begun);
    }
    passed
}

/// Memory that is kept, and a thread that computes itself.
fn as_the_program_does() {
    keep_freed_memory();
    // Beyond the first call the threads run already.
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
}

fn train(criterion: &mut Criterion) {
    as_the_program_does();
    let mut group = criterion.benchmark_group("train");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    for case in &CASES {
        group.throughput(Throughput::Elements(case.batch().target.tokens() as u64));
        let mut spent = Spent::default();
        group.bench_function(BenchmarkId::from_parameter(case.name), |bench| {
            bench.iter_custom(|steps| time_steps(case, steps, &mut spent));
        });
        spent.write("train", case.name);
    }
}

/// The parts of a training step, for the two cases with attention.
fn parts(criterion: &mut Criterion) {
    as_the_program_does();
    for (name, part) in [("step-forward", Part::Forward), ("step-loss", Part::Loss), ("step-backward", Part::Backward)]
    {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).warm_up_time(Duration::from_millis(400)).measurement_time(Duration::from_secs(1));
        for case in &CASES[..2] {
            let batch = case.batch();
            group.throughput(Throughput::Elements(batch.target.tokens() as u64));
            let mut spent = Spent::default();
            group.bench_function(BenchmarkId::from_parameter(case.name), |bench| {
                let model = case.model(&Device::flex().autodiff());
                bench.iter_custom(|steps| time_part(part, &model, &batch, steps, &mut spent));
            });
            spent.write(name, case.name);
        }
    }
}

fn search(criterion: &mut Criterion) {
    as_the_program_does();
    let mut group = criterion.benchmark_group("search");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    let length = r#""max_length": {"ratio": 0.0, "extra": 15, "limit": 15}, "min_length": 14"#;
    for case in &CASES {
        let request = |ids: Vec<TokenId>| Request::new(vec![Source::Tokens(ids)]);
        let sentences: Vec<Request> = case.sentences(0).into_iter().map(request).collect();
        group.throughput(Throughput::Elements(sentences.len() as u64));
        for (strategy, settings) in [("greedy", r#""kind": "greedy""#), ("beam-5", r#""kind": "beam", "width": 5"#)] {
            let config: SearchConfig = serde_json::from_str(&format!("{{{settings}, {length}}}")).expect("[search]");
            let built = config.build().expect("a strategy");
            group.bench_function(BenchmarkId::new(case.name, strategy), |bench| {
                let model = case.model(&Device::flex());
                let ready = model.for_search();
                let run = || search_all(built.as_ref(), ready.clone(), &sentences, 64, &mut |_| {});
                bench.iter(|| black_box(run().expect("answers")));
            });
        }
    }
}

criterion_group!(benches, train, parts, search);
criterion_main!(benches);
