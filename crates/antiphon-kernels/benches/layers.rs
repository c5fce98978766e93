//! Speed of the operations: `cargo xtask bench` runs this and puts it beside the machine's matrix product.
//!
//! Throughput is counted in floating-point operations of the matrix products alone: `2·B·T·(I+H)·G·H` for a recurrent
//! layer's forward pass with the input's product, three times that with the backward pass; `2·B·N·2D·D` for each layer of a network that
//! reduces queries, though layers that share their weights need not compute all of that.

use std::hint::black_box;
use std::time::{Duration, Instant};

use antiphon_core::random::Key;
use antiphon_core::{Special, TokenBatch};
use antiphon_kernels::{
    Cell, Convolution, FedDecoder, Feeding, Over, Past, Projection, QueryReduction, Recurrence, Reduction, Sentences,
    WordOrder, attend, attend_in_turn, convolve, cross_entropy, fed_decoder, keep_freed_memory, linear, recurrent,
    reduce_query, sentence_sums,
};
use burn::tensor::{Device, Tensor, TensorData};
use criterion::{
    Bencher, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};

/// Batch, steps, input, hidden. The first four and the next eight, of few rows, are those of the published comparisons; the others
/// look for cliffs: odd shapes beside even neighbours.
const LAYERS: [[usize; 4]; 25] = [
    [64, 25, 512, 512],
    [32, 25, 256, 256],
    [64, 100, 128, 128],
    [16, 50, 512, 1024],
    [1, 25, 256, 256],
    [2, 25, 256, 256],
    [4, 25, 256, 256],
    [7, 25, 256, 256],
    [1, 200, 512, 512],
    [2, 200, 512, 512],
    [4, 200, 512, 512],
    [7, 200, 512, 512],
    [8, 25, 256, 256],
    [33, 25, 256, 256],
    [64, 1, 256, 256],
    [64, 25, 96, 96],
    [64, 25, 100, 100],
    [64, 25, 192, 192],
    [64, 25, 200, 200],
    [64, 25, 640, 640],
    [64, 25, 650, 650],
    [7, 13, 101, 203],
    [8, 13, 104, 208],
    [64, 400, 64, 64],
    [256, 25, 256, 256],
];

fn random<const D: usize>(name: &str, dims: [usize; D], device: &Device) -> Tensor<D> {
    let key = Key::from_seed(1).named(name);
    let n: usize = dims.iter().product();
    let numbers: Vec<f32> = (0..n as u64).map(|i| key.normal(i) as f32 * 0.1).collect();
    Tensor::from_data(TensorData::new(numbers, dims), device)
}

/// A leaf of the graph, if the device has one.
fn leaf<const D: usize>(name: &str, dims: [usize; D], device: &Device) -> Tensor<D> {
    let tensor = random(name, dims, device);
    if device.is_autodiff() { tensor.require_grad() } else { tensor }
}

/// The device that is measured: the CPU, or a GPU if the environment asks for it.
fn device() -> Device {
    match std::env::var("ANTIPHON_BENCH_DEVICE").as_deref() {
        Ok("wgpu") => gpu(),
        _ => Device::flex(),
    }
}

#[cfg(feature = "wgpu")]
fn gpu() -> Device {
    use std::sync::OnceLock;
    static STARTED: OnceLock<Device> = OnceLock::new();
    STARTED.get_or_init(|| Device::wgpu_options().init().expect("a GPU and its driver")).clone()
}

#[cfg(not(feature = "wgpu"))]
fn gpu() -> Device {
    panic!("a GPU is measured by a build with the cargo feature `wgpu` or `vulkan`")
}

/// Times a call. A GPU computes behind our back: its time is that until it has done all calls.
fn time(bench: &mut Bencher<'_>, device: &Device, call: impl Fn()) {
    if device.clone().inner() == Device::flex() {
        return bench.iter(call);
    }
    let wait = || device.sync().expect("the device computes");
    bench.iter_custom(|count| {
        wait();
        let start = Instant::now();
        (0..count).for_each(|_| call());
        wait();
        start.elapsed()
    });
}

/// Memory that is kept, and a thread that computes itself.
fn as_the_program_does() {
    keep_freed_memory();
    // Beyond the first call the threads run already.
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
}

fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    as_the_program_does();
    let mut group = criterion.benchmark_group(name);
    group.sample_size(15).warm_up_time(Duration::from_millis(400)).measurement_time(Duration::from_millis(1200));
    group
}

fn products(criterion: &mut Criterion) {
    let mut group = group(criterion, "product");
    for [m, k, n] in [[2048, 2048, 2048], [6400, 128, 512], [128, 6400, 512], [800, 256, 1024], [256, 800, 1024]] {
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        let name = if m == n { m.to_string() } else { format!("{m},{k},{n}") };
        group.bench_function(BenchmarkId::from_parameter(name), |bench| {
            let device = device();
            if device == Device::flex() {
                let (a, b) = (random("a", [m, k], &device), random("b", [k, n], &device));
                return bench.iter(|| black_box(a.clone().matmul(b.clone())));
            }
            let (a, b) = (random("a", [1, m, k], &device), random("b", [k, n], &device));
            time(bench, &device, || drop(black_box(linear(a.clone(), b.clone()))));
        });
    }
}

fn layers(criterion: &mut Criterion) {
    for (name, cell) in [("rnn", Cell::Rnn), ("lstm", Cell::Lstm), ("gru", Cell::Gru)] {
        for (pass, device, factor) in [("forward", device(), 1), ("train", device().autodiff(), 3)] {
            let mut group = group(criterion, &format!("{name}-{pass}"));
            for [b, t, i, h] in LAYERS {
                let g = cell.gates() * h;
                group.throughput(Throughput::Elements((factor * 2 * b * t * (i + h) * g) as u64));
                group.bench_function(BenchmarkId::from_parameter(format!("{b},{t},{i},{h}")), |bench| {
                    let (x, input) = (leaf("x", [b, t, i], &device), leaf("input", [i, g], &device));
                    let (weight, bias) = (leaf("weight", [h, g], &device), leaf("bias", [cell.biases() * h], &device));
                    let state = Tensor::zeros([b, cell.states() * h], &device.clone().inner());
                    let run = Recurrence { cell, reverse: false, lengths: None };
                    time(bench, &device, || {
                        let projected = linear(x.clone(), input.clone());
                        let layer = recurrent(projected, weight.clone(), bias.clone(), state.clone(), &run);
                        let sequence = layer.sequence();
                        match device.is_autodiff() {
                            true => drop(black_box(sequence.sum().backward())),
                            false => drop(black_box(sequence)),
                        }
                    });
                });
            }
        }
    }
}

/// Batch, steps, input and output channels, by the width of the window; `2·B·T·width·C·K` operations forward.
fn convolutions(criterion: &mut Criterion) {
    for width in [3, 5] {
        for (pass, device, factor) in [("forward", Device::flex(), 1), ("train", Device::flex().autodiff(), 3)] {
            let mut group = group(criterion, &format!("convolution-{width}-{pass}"));
            for [b, t, c, k] in [[64, 50, 256, 256], [64, 8, 256, 512], [1, 8, 256, 512]] {
                group.throughput(Throughput::Elements((factor * 2 * b * t * width * c * k) as u64));
                group.bench_function(BenchmarkId::from_parameter(format!("{b},{t},{c},{k}")), |bench| {
                    let (x, weight) = (leaf("x", [b, t, c], &device), leaf("weight", [width * c, k], &device));
                    let bias = leaf("bias", [k], &device);
                    let run = Convolution { width, stride: 1, lengths: None };
                    bench.iter(|| {
                        let y = convolve(x.clone(), weight.clone(), bias.clone(), &run);
                        match device.is_autodiff() {
                            true => drop(black_box(y.sum().backward())),
                            false => drop(black_box(y)),
                        }
                    });
                });
            }
        }
    }
}

fn decoders(criterion: &mut Criterion) {
    let device = device().autodiff();
    let mut group = group(criterion, "decoder-train");
    for (name, fed) in [("attention", false), ("input-feeding", true)] {
        let [b, t, s, h, m, a] = [64, 14, 14, 512, 512, 512];
        let (query, energy) = (leaf("query", [h, a], &device), leaf("energy", [a], &device));
        let (keys, memory) = (leaf("keys", [b, s, a], &device), leaf("memory", [b, s, m], &device));
        let over = Over { lengths: vec![s as u32; b].into(), owners: None };
        let x = leaf("x", [b, t, 4 * h], &device);
        let (recurrent, feed) = (leaf("recurrent", [h, 4 * h], &device), leaf("feed", [h, 4 * h], &device));
        let (of_state, of_context) = (leaf("of-state", [h, h], &device), leaf("of-context", [m, h], &device));
        let (bias, readout_bias) = (leaf("bias", [4 * h], &device), leaf("of-bias", [h], &device));
        group.bench_function(name, |bench| {
            time(bench, &device, || {
                let (keys, memory) = (keys.clone(), memory.clone());
                let outputs = if fed {
                    let tensors = FedDecoder {
                        x: x.clone(),
                        recurrent: recurrent.clone(),
                        bias: bias.clone(),
                        state: Tensor::zeros([b, 2 * h], &device.clone().inner()),
                        feed: feed.clone(),
                        keys,
                        memory,
                        additive: Some((query.clone(), energy.clone())),
                        readout_state: of_state.clone(),
                        readout_context: of_context.clone(),
                        readout_bias: readout_bias.clone(),
                    };
                    let lengths = vec![t as u32; b].into();
                    let run = Feeding { cell: Cell::Lstm, lengths, over: over.clone(), dropout: None };
                    fed_decoder(tensors, &run).0
                } else {
                    let states = x.clone().narrow(2, 0, h);
                    attend(states, keys, memory, Some(energy.clone()), &over)
                };
                black_box(outputs.sum().backward());
            });
        });
    }
}

/// Additive attention over memories as long as those of speech: at once, and in turn with a coverage or a location, in one operation
/// or in one for each look.
fn looks(criterion: &mut Criterion) {
    let device = Device::flex().autodiff();
    let mut group = group(criterion, "looks-train");
    let [b, t, s, a, m, f, width] = [32, 60, 90, 320, 320, 10, 31];
    let (query, energy) = (leaf("query", [b, t, a], &device), leaf("energy", [a], &device));
    let (keys, memory) = (leaf("keys", [b, s, a], &device), leaf("memory", [b, s, m], &device));
    let over = Over { lengths: vec![s as u32; b].into(), owners: None };
    group.bench_function("additive", |bench| {
        bench.iter(|| {
            let contexts = attend(query.clone(), keys.clone(), memory.clone(), Some(energy.clone()), &over);
            black_box(contexts.sum().backward());
        });
    });
    for (name, located) in [("coverage", false), ("location", true)] {
        let weight = leaf("features", [if located { f } else { 1 }, a], &device);
        let filters = located.then(|| leaf("filters", [f, width], &device));
        for (way, at_once) in [("", t), (", one by one", 1)] {
            group.bench_function(format!("{name}{way}"), |bench| {
                bench.iter(|| {
                    let mut seen = Tensor::zeros([b, s], &device.clone().inner());
                    let mut all = Vec::new();
                    for query in query.clone().split(at_once, 1) {
                        let past = Past { seen: seen.clone(), weight: weight.clone(), filters: filters.clone() };
                        let (keys, memory, energy) = (keys.clone(), memory.clone(), energy.clone());
                        let (contexts, weights) = attend_in_turn(query, keys, memory, energy, past, &over);
                        let looked = weights.narrow(1, at_once - 1, 1).reshape([b, s]);
                        seen = if located { looked } else { seen + looked };
                        all.push(contexts);
                    }
                    black_box(Tensor::cat(all, 1).sum().backward());
                });
            });
        }
    }
}

/// Texts of sentences whose words are summed, and two layers that reduce a query by them, the first one in both directions, with a reset
/// gate and parameters that both share. Batch, sentences, words of each, width.
fn reductions(criterion: &mut Criterion) {
    let device = device().autodiff();
    let mut group = group(criterion, "query-reduction-train");
    for [b, n, words, d] in [[32, 50, 7, 50], [32, 10, 7, 50], [128, 50, 7, 200]] {
        group.throughput(Throughput::Elements((2 * 3 * 2 * b * n * 2 * d * d) as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{b},{n},{words},{d}")), |bench| {
            let row: Vec<u32> = (0..n).flat_map(|_| std::iter::repeat_n(9, words).chain([Special::End.id()])).collect();
            let text = TokenBatch::from_rows(&vec![row; b]);
            let sentences = Sentences::of(&text.ids, &text.lengths, text.width, None);
            let (x, query) = (leaf("x", [b, text.width, d], &device), leaf("query", [b, 1, d], &device));
            let (of_sentence, of_query) = (leaf("of-sentence", [d, d], &device), leaf("of-query", [d, d], &device));
            let bias = leaf("bias", [1, 1, d], &device);
            let (gates, gates_bias) = (leaf("gates", [2, d], &device), leaf("gates bias", [2], &device));
            time(bench, &device, || {
                let sums = sentence_sums(x.clone(), &sentences, WordOrder::Encoded);
                // Both layers read the same of a sentence, and all sentences the same of the first query.
                let read = linear(sums.clone(), of_sentence.clone()) + bias.clone();
                let layer = |queries: Tensor<3>, both: bool| {
                    let tensors = QueryReduction {
                        sentences: sums.clone(),
                        candidates: read.clone() + linear(queries.clone(), of_query.clone()),
                        queries,
                        weight: gates.clone(),
                        bias: gates_bias.clone(),
                    };
                    reduce_query(tensors, &Reduction { lengths: sentences.lengths(), both })
                };
                let reduced = layer(layer(query.clone(), true).sequence(), false);
                drop(black_box(reduced.state().sum().backward()));
            });
        });
    }
}

fn losses(criterion: &mut Criterion) {
    let device = device().autodiff();
    let mut group = group(criterion, "loss-train");
    for [n, h, v] in [[1024, 512, 1000], [1024, 512, 8000], [1024, 512, 32000]] {
        group.throughput(Throughput::Elements((3 * 2 * n * h * v) as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{n},{h},{v}")), |bench| {
            let (states, weight) = (leaf("states", [n, h], &device), leaf("weight", [v, h], &device));
            let targets: Vec<u32> = (0..n).map(|i| (i * 7 % v) as u32).collect();
            time(bench, &device, || {
                let (states, weight, targets) = (states.clone(), weight.clone(), targets.clone());
                drop(black_box(cross_entropy(Projection { states, weight, bias: None, targets }, 0.1).backward()));
            });
        });
    }
}

/// Forward and backward of an LSTM layer; → a closure that runs it once.
fn lstm([b, t, h]: [usize; 3]) -> impl Fn() {
    let device = Device::flex().autodiff();
    let (x, input) = (leaf("x", [b, t, h], &device), leaf("input", [h, 4 * h], &device));
    let (weight, bias) = (leaf("weight", [h, 4 * h], &device), leaf("bias", [4 * h], &device));
    let state = Tensor::zeros([b, 2 * h], &device.clone().inner());
    let run = Recurrence { cell: Cell::Lstm, reverse: false, lengths: None };
    move || {
        let projected = linear(x.clone(), input.clone());
        let layer = recurrent(projected, weight.clone(), bias.clone(), state.clone(), &run);
        drop(black_box(layer.sequence().sum().backward()));
    }
}

/// How the cost of a token grows with one size at a time: an LSTM layer of 32 × 25 × 256, and the loss over 512 tokens.
fn growth(criterion: &mut Criterion) {
    type Shape = fn(usize) -> [usize; 3];
    let axes: [(&str, &[usize], Shape); 3] = [
        ("batch", &[1, 2, 4, 8, 16, 32, 64, 128, 256], |b| [b, 25, 256]),
        ("length", &[5, 10, 25, 50, 100, 200, 400], |t| [32, t, 256]),
        ("hidden", &[64, 128, 256, 512, 1024, 2048], |h| [32, 25, h]),
    ];
    for (axis, sizes, shape) in axes {
        let mut group = group(criterion, &format!("growth-{axis}"));
        for &size in sizes {
            let [b, t, h] = shape(size);
            group.throughput(Throughput::Elements((b * t) as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |bench| bench.iter(lstm([b, t, h])));
        }
    }
    let mut threads = group(criterion, "growth-threads");
    threads.throughput(Throughput::Elements(32 * 25));
    for count in 1..=std::thread::available_parallelism().map_or(1, usize::from) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().expect("threads");
        threads.bench_function(BenchmarkId::from_parameter(count), |bench| {
            pool.install(|| bench.iter(lstm([32, 25, 256])));
        });
    }
    threads.finish();
    let mut group = group(criterion, "growth-vocabulary");
    let (device, n, h) = (Device::flex().autodiff(), 512, 256);
    group.throughput(Throughput::Elements(n as u64));
    for v in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000] {
        group.bench_function(BenchmarkId::from_parameter(v), |bench| {
            let (states, weight) = (leaf("states", [n, h], &device), leaf("weight", [v, h], &device));
            let targets: Vec<u32> = (0..n).map(|i| (i * 7 % v) as u32).collect();
            bench.iter(|| {
                let (states, weight, targets) = (states.clone(), weight.clone(), targets.clone());
                black_box(cross_entropy(Projection { states, weight, bias: None, targets }, 0.1).backward());
            });
        });
    }
}

criterion_group!(benches, products, layers, convolutions, decoders, looks, reductions, losses, growth);
criterion_main!(benches);
