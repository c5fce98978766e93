//! Speed of whole models: training in target tokens, search in sentences.
//!
//! Sentences are drawn, but as long as real ones. A training step is all of it: forward, loss, backward, clipping, optimizer.
//! In a search every answer has 15 tokens, so that its cost does not depend on what an untrained model says.

use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use antiphon_core::random::Key;
use antiphon_core::{Batch, Request, Result, Source, SourceBatch, Target, TokenBatch, TokenId};
use antiphon_decode::{SearchConfig, search_all};
use antiphon_kernels::{Carry, keep_freed_memory};
use antiphon_model::{Model, ModelConfig, Vocabularies};
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
        config.init(&vocabularies, Key::from_seed(1), device).expect("a model")
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
        Batch { sources: vec![source], target, continues: Vec::new(), examples: (0..self.rows).collect() }
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

/// Adds up the time of all steps but the first, which also draws the parameters.
#[derive(Default)]
struct Clock(Duration);

impl Observer for Clock {
    fn step(&mut self, report: &StepReport) -> Result<()> {
        if report.step > 1 {
            self.0 += Duration::from_secs_f64(report.seconds);
        }
        Ok(())
    }
}

fn time_steps(case: &Case, steps: u64) -> Duration {
    let config: TrainConfig =
        serde_json::from_str(&format!(r#"{{"epochs": null, "steps": {}, "clip_norm": 1.0}}"#, steps + 1))
            .expect("[train]");
    let folder = tempfile::tempdir().expect("a folder");
    let mut clock = Clock::default();
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
    clock.0
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
        group.bench_function(BenchmarkId::from_parameter(case.name), |bench| {
            bench.iter_custom(|steps| time_steps(case, steps));
        });
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

criterion_group!(benches, train, search);
criterion_main!(benches);
