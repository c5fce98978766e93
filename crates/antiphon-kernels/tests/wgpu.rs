//! Every operation on a GPU, or on a driver that plays one, beside the CPU.
//!
//! On Debian, `mesa-vulkan-drivers` brings such a driver. Its first call of each kernel compiles a shader.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use antiphon_core::Mask;
use antiphon_core::random::Key;
use antiphon_kernels::update::{Rule, Step, Updates, average, scaling, square_sum, update};
use antiphon_kernels::{
    Cell, Convolution, Convolution2d, OutputLayer, Over, PackedWeight, Past, Projection, QueryReduction, Recurrence,
    Reduction, Sentences, Shared, TaughtLoss, Teacher, Teaching, WordOrder, activation_penalty, attend, attend_in_turn,
    average_steps, concat, convolve, convolve_2d, cross_entropy, dropout, first_rows, gated_linear_unit, layer_norm,
    linear, locked_dropout, query_gates, recurrent, recurrent_step, reduce_query, select_rows, sentence_sums, tanh,
    taught_cross_entropy, temporal_penalty, token_scores, word_dropout,
};
use burn::tensor::{Device, Tensor, TensorData};

#[path = "wgpu/looking.rs"]
mod looking;

/// What may differ: the CPU sums in another order and with other exponentials, the GPU in single precision throughout.
const TOLERANCE: f32 = 2e-5;

/// Named arrays of numbers.
type Found = Vec<(String, Vec<f32>)>;

fn given<const D: usize>(name: &str, dims: [usize; D], device: &Device) -> Tensor<D> {
    let key = Key::from_seed(7).named(name);
    let n: usize = dims.iter().product();
    let values: Vec<f32> = (0..n as u64).map(|i| key.normal(i) as f32 * 0.7).collect();
    Tensor::from_data(TensorData::new(values, dims), device)
}

fn leaf<const D: usize>(name: &str, dims: [usize; D], device: &Device) -> Tensor<D> {
    given(name, dims, device).require_grad()
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("numbers")
}

/// Any loss that uses all numbers of a tensor, each with another weight.
fn loss_of<const D: usize>(y: Tensor<D>) -> Tensor<1> {
    let weights = given("weights", y.dims(), &y.device().inner());
    (y.clone() * y * weights).sum()
}

/// Rows, steps and units: a few; several groups of rows, the last one not full; and sizes at which a cube has other shares of the units.
const LAYERS: [[usize; 3]; 4] = [[5, 4, 6], [37, 5, 50], [64, 3, 500], [16, 3, 1024]];

fn recurrent_layers(device: &Device, found: &mut Found) {
    for [b, t, h] in LAYERS {
        for cell in [Cell::Rnn, Cell::Lstm, Cell::Gru] {
            let ragged: Arc<[u32]> = (0..b).map(|row| ((row * 3 + 4) % (t + 1)) as u32).collect();
            for (reverse, lengths) in [(false, None), (true, Some(ragged.clone())), (false, Some(ragged))] {
                recurrent_layer([b, t, h], Recurrence { cell, reverse, lengths }, device, found);
            }
        }
    }
}

fn recurrent_layer([b, t, h]: [usize; 3], run: Recurrence, device: &Device, found: &mut Found) {
    let cell = run.cell;
    let x = leaf("x", [b, t, cell.gates() * h], device);
    // Of a size that does not saturate the units.
    let weight = leaf("weight", [h, cell.gates() * h], device);
    let scaled = weight.clone() * (1.0 / h as f32).sqrt();
    let bias = leaf("bias", [cell.biases() * h], device);
    let state = leaf("state", [b, cell.states() * h], device);
    let out = recurrent(x.clone(), scaled, bias.clone(), state.clone(), &run);
    let (sequence, last) = (out.sequence(), out.state());
    let gradients = (loss_of(sequence.clone()) + loss_of(last.clone())).backward();
    let kind = if run.lengths.is_some() { "ragged" } else { "full" };
    let name =
        |part: &str| format!("{cell:?} of {b} rows, {t} steps, {h} units, {kind}, reverse {}: {part}", run.reverse);
    found.push((name("sequence"), numbers(sequence.inner())));
    found.push((name("state"), numbers(last.inner())));
    found.push((name("gradient of x"), numbers(x.grad(&gradients).unwrap())));
    found.push((name("gradient of the weight"), numbers(weight.grad(&gradients).unwrap())));
    found.push((name("gradient of the bias"), numbers(bias.grad(&gradients).unwrap())));
    found.push((name("gradient of the state"), numbers(state.grad(&gradients).unwrap())));
}

fn products(device: &Device, found: &mut Found) {
    // Vectors of four and none, sides that no tile divides, and a depth that several cubes share.
    for [b, t, i, o] in [[3, 5, 8, 12], [3, 5, 7, 9], [5, 13, 68, 132], [40, 13, 12, 20], [37, 11, 30, 7]] {
        let (x, weight) = (leaf("x", [b, t, i], device), leaf("weight", [i, o], device));
        let y = linear(x.clone(), weight.clone());
        let gradients = loss_of(y.clone()).backward();
        let name = |part: &str| format!("product {b}·{t} × {i} × {o}: {part}");
        found.push((name("value"), numbers(y.inner())));
        found.push((name("gradient of x"), numbers(x.grad(&gradients).unwrap())));
        found.push((name("gradient of the weight"), numbers(weight.grad(&gradients).unwrap())));
    }
}

/// The same, off the graph.
fn off_the_graph(projection: &Projection) -> Projection {
    let Projection { states, weight, bias, targets } = projection.clone();
    Projection { states: states.inner(), weight: weight.inner(), bias: bias.map(Tensor::inner), targets }
}

fn losses(device: &Device, found: &mut Found) {
    let (states, weight, bias) = (leaf("s", [7, 5], device), leaf("w", [11, 5], device), leaf("b", [11], device));
    let targets = vec![0, 10, 3, 3, 7, 1, 9];
    let projection = Projection { states: states.clone(), weight: weight.clone(), bias: Some(bias.clone()), targets };
    let scores = token_scores(off_the_graph(&projection));
    found.push(("log-probabilities".into(), scores.log_probs));
    found.push(("right tokens".into(), scores.correct.into_iter().map(f32::from).collect()));
    for smoothing in [0.0, 0.1] {
        let loss = cross_entropy(projection.clone(), smoothing);
        let gradients = loss.clone().backward();
        let name = |part: &str| format!("loss with smoothing {smoothing}: {part}");
        found.push((name("value"), numbers(loss.inner())));
        found.push((name("gradient of the states"), numbers(states.grad(&gradients).unwrap())));
        found.push((name("gradient of the weight"), numbers(weight.grad(&gradients).unwrap())));
        found.push((name("gradient of the bias"), numbers(bias.grad(&gradients).unwrap())));
    }
}

/// Vocabularies of real size, the second one in several chunks.
fn large_losses(device: &Device, found: &mut Found) {
    for [n, v, h] in [[700, 8000, 33], [601, 30_001, 4]] {
        let (states, weight, bias) = (leaf("s", [n, h], device), leaf("w", [v, h], device), leaf("b", [v], device));
        let targets = (0..n).map(|i| (i * i % v) as u32).collect();
        let projection =
            Projection { states: states.clone(), weight: weight.clone(), bias: Some(bias.clone()), targets };
        let name = |part: &str| format!("loss over {v} tokens: {part}");
        let scores = token_scores(off_the_graph(&projection));
        found.push((name("log-probabilities"), scores.log_probs));
        found.push((name("right tokens"), scores.correct.into_iter().map(f32::from).collect()));
        let loss = cross_entropy(projection, 0.1);
        let gradients = (loss.clone() * 0.25).backward();
        found.push((name("value"), numbers(loss.inner())));
        found.push((name("gradient of the states"), numbers(states.grad(&gradients).unwrap())));
        found.push((name("gradient of the weight"), numbers(weight.grad(&gradients).unwrap())));
        found.push((name("gradient of the bias"), numbers(bias.grad(&gradients).unwrap())));
    }
}

/// Logarithms that are the same everywhere.
struct Known(Vec<f32>);

impl Teaching for Known {
    fn log_probs(&self, places: Range<usize>) -> Vec<f32> {
        self.0[places.start * 11..places.end * 11].to_vec()
    }
}

fn taught_losses(device: &Device, found: &mut Found) {
    let (states, weight, bias) = (leaf("s", [7, 5], device), leaf("w", [11, 5], device), leaf("b", [11], device));
    let targets = vec![0, 10, 3, 3, 7, 1, 9];
    let projection = Projection { states: states.clone(), weight: weight.clone(), bias: Some(bias.clone()), targets };
    let says: Arc<dyn Teaching> = Arc::new(Known(numbers(given("teacher", [7, 11], &Device::flex()))));
    for (share, temperature) in [(0.3, 1.0), (0.6, 2.5)] {
        let teacher = Teacher { says: Arc::clone(&says), share, temperature };
        let TaughtLoss { loss, of_teacher } = taught_cross_entropy(projection.clone(), 0.1, teacher);
        let gradients = loss.clone().backward();
        let name = |part: &str| format!("a teacher's share of {share}: {part}");
        found.push((name("value"), numbers(loss.inner())));
        found.push((name("its summand"), numbers(of_teacher)));
        found.push((name("gradient of the states"), numbers(states.grad(&gradients).unwrap())));
        found.push((name("gradient of the weight"), numbers(weight.grad(&gradients).unwrap())));
        found.push((name("gradient of the bias"), numbers(bias.grad(&gradients).unwrap())));
    }
}

fn elementwise(device: &Device, found: &mut Found) {
    let x = leaf("elements", [9, 4], device);
    let y = dropout(tanh(x.clone()), 0.25, Key::from_seed(1));
    let gradients = loss_of(y.clone()).backward();
    found.push(("tanh and dropout".into(), numbers(y.inner())));
    found.push(("tanh and dropout: gradient".into(), numbers(x.grad(&gradients).unwrap())));

    let x = leaf("sequence", [3, 5, 4], device);
    let words = word_dropout(
        x.clone().reshape([15, 4]),
        &[7, 2, 3, 7, 2, 5, 1, 0, 3, 3, 9, 8, 7, 6, 5],
        0.4,
        Key::from_seed(2),
    );
    let y = locked_dropout(words.reshape([3, 5, 4]), 0.4, Key::from_seed(3));
    let gradients = loss_of(y.clone()).backward();
    found.push(("words and locked dropout".into(), numbers(y.inner())));
    found.push(("words and locked dropout: gradient".into(), numbers(x.grad(&gradients).unwrap())));
    let penalties = [activation_penalty(x.clone().reshape([15, 4])), temporal_penalty(x.clone(), [5, 0, 3].into())];
    for penalty in penalties {
        let gradients = (penalty.clone() * 3.0).backward();
        found.push(("a penalty".into(), numbers(penalty.inner())));
        found.push(("a penalty: gradient".into(), numbers(x.grad(&gradients).unwrap())));
    }
}

/// Of ones the masks themselves are left, number for number.
fn masks(device: &Device, found: &mut Found) {
    for (rate, key) in [(0.3, Key::from_seed(5)), (0.5, Key::from_seed(6).named("mask")), (0.95, Key::from_seed(7))] {
        let ones = || Tensor::<3>::ones([7, 31, 53], device);
        found.push((format!("mask of {rate}"), numbers(dropout(ones(), rate, key))));
        found.push((format!("locked mask of {rate}"), numbers(locked_dropout(ones(), rate, key))));
    }
}

fn moves(device: &Device, found: &mut Found) {
    for (count, width) in [(1, 1), (50, 33), (700, 256)] {
        let table = leaf("table", [count, width], device);
        let often: Vec<u32> = (0..700).map(|i| (i * i % count as u32) / 3).collect();
        let once: Vec<u32> = (0..count as u32).rev().step_by(2).collect();
        for which in [often, once] {
            let rows = select_rows(table.clone(), &which);
            let gradients = loss_of(rows.clone()).backward();
            found.push((format!("{} of {count} rows", which.len()), numbers(rows.inner())));
            found.push(("their gradient".into(), numbers(table.grad(&gradients).unwrap())));
        }
        let first = first_rows(table.clone(), count / 2 + 1);
        let gradients = loss_of(first.clone() * 2.0).backward();
        found.push((format!("first of {count} rows"), numbers(first.inner())));
        found.push(("their gradient".into(), numbers(table.grad(&gradients).unwrap())));
        let sides = [leaf("left", [count, 3, width], device), leaf("right", [count, 3, 5], device)];
        let [left, right] = sides.clone();
        let both = concat(left, right);
        let gradients = loss_of(both.clone()).backward();
        found.push((format!("{width} beside 5"), numbers(both.inner())));
        found.extend(sides.map(|side| ("gradient of a side".to_owned(), numbers(side.grad(&gradients).unwrap()))));
    }
}

fn convolutions(device: &Device, found: &mut Found) {
    let lengths: std::sync::Arc<[u32]> = [7, 0, 4].into();
    for (width, stride) in [(3, 1), (4, 2)] {
        let x = leaf("x of a convolution", [3, 7, 5], device);
        let (weight, bias) = (leaf("its weight", [width * 5, 8], device), leaf("its bias", [8], device));
        let run = Convolution { width, stride, lengths: Some(lengths.clone()) };
        let gated = gated_linear_unit(convolve(x.clone(), weight.clone(), bias.clone(), &run));
        let real = lengths.iter().map(|n| n.div_ceil(stride as u32)).collect();
        let y = layer_norm(gated, leaf("gain", [4], device), leaf("level", [4], device));
        let y = average_steps(y, real, 2);
        let gradients = loss_of(y.clone()).backward();
        let name = |part: &str| format!("convolution of width {width}, stride {stride}: {part}");
        found.push((name("means"), numbers(y.inner())));
        found.push((name("gradient of x"), numbers(x.grad(&gradients).unwrap())));
        found.push((name("gradient of the weight"), numbers(weight.grad(&gradients).unwrap())));
        found.push((name("gradient of the bias"), numbers(bias.grad(&gradients).unwrap())));
    }
    let x = leaf("x of bands", [3, 7, 2 * 5], device);
    let (weight, bias) = (leaf("weight of bands", [2 * 3 * 3, 4], device), leaf("bias of bands", [4], device));
    let run = Convolution2d { planes: 2, kernel: [3, 3], stride: [2, 2], lengths: Some(lengths) };
    let y = convolve_2d(x.clone(), weight.clone(), bias.clone(), &run);
    let gradients = loss_of(y.clone()).backward();
    found.push(("convolution over bands".into(), numbers(y.inner())));
    found.push(("convolution over bands: gradient of x".into(), numbers(x.grad(&gradients).unwrap())));
    found.push(("convolution over bands: gradient of the weight".into(), numbers(weight.grad(&gradients).unwrap())));
    found.push(("convolution over bands: gradient of the bias".into(), numbers(bias.grad(&gradients).unwrap())));
}

fn questions(device: &Device, found: &mut Found) {
    let end = antiphon_core::Special::End.id();
    let text = antiphon_core::TokenBatch::from_rows(&[vec![5, 6, 7, end, end, 8, 9, end], vec![end], vec![5, 6, end]]);
    let sentences = Sentences::of(&text.ids, &text.lengths, text.width, None);
    for (order, both) in [(WordOrder::Ignored, false), (WordOrder::Encoded, true)] {
        let (x, weight, bias) =
            (leaf("words", [3, 8, 20], device), leaf("gates", [2, 20], device), leaf("b", [2], device));
        let (queries, candidates) = (leaf("queries", [3, 1, 20], device), leaf("candidates", [3, 3, 20], device));
        let sums = sentence_sums(x.clone(), &sentences, order);
        let lengths = sentences.lengths();
        let gates = query_gates(sums.clone(), queries.clone(), weight.clone(), bias.clone(), &lengths);
        let tensors = QueryReduction {
            sentences: sums,
            queries: queries.clone(),
            candidates: candidates.clone(),
            weight: weight.clone(),
            bias: bias.clone(),
        };
        let reduced = reduce_query(tensors, &Reduction { lengths, both });
        let (sequence, state) = (reduced.sequence(), reduced.state());
        let gradients = (loss_of(sequence.clone()) + loss_of(state.clone())).backward();
        let name = |part: &str| format!("query reduction, words {order:?}, both {both}: {part}");
        found.push((name("gates"), numbers(gates)));
        found.push((name("sequence"), numbers(sequence.inner())));
        found.push((name("state"), numbers(state.inner())));
        let inputs = [("words", x), ("queries", queries), ("candidates", candidates)];
        found.extend(inputs.map(|(part, x)| (name(part), numbers(x.grad(&gradients).unwrap()))));
        found.push((name("weight"), numbers(weight.grad(&gradients).unwrap())));
        found.push((name("bias"), numbers(bias.grad(&gradients).unwrap())));
    }
}

fn updates(device: &Device, found: &mut Found) {
    let step = Step { rate: 0.1, scale: 0.5, l1: 0.01, l2: 0.02 };
    let (complement, epsilon, momentum) = (0.1, 1e-7, 0.5);
    let (complement1, complement2, correction1, correction2) = (0.1, 0.001, 0.1, 0.001);
    for rule in [
        Rule::Sgd,
        Rule::Momentum { momentum, nesterov: true },
        Rule::RmsProp { complement, epsilon },
        Rule::RmsPropMomentum { complement, epsilon, momentum },
        Rule::Adam { complement1, complement2, epsilon, correction1, correction2, weight_decay: 0.01 },
    ] {
        let mut state = vec![Tensor::<1>::zeros([40], device); rule.slots()];
        let mut parameter = given("parameter", [40], device);
        for gradient in ["first gradient", "second gradient"] {
            parameter = update(parameter, given(gradient, [40], device), &mut state, rule, step);
        }
        found.push((format!("{rule:?}"), numbers(parameter)));
        found.extend(state.into_iter().enumerate().map(|(k, slot)| (format!("{rule:?}, slot {k}"), numbers(slot))));
    }
    // Several parameters together, by a factor that is made of their gradients.
    let lengths = [1, 40, 70_001, 256, 4097, 3, 8, 1000, 17, 5];
    for (most, slots) in [(None, 2), (Some(3.0), 2), (Some(0.5), 0)] {
        let name = |i: usize, what: &str| format!("{what} {i}");
        let gradient = |(i, &n): (usize, &usize)| given(&name(i, "gradient"), [n], device);
        let scaling = scaling(lengths.iter().enumerate().map(gradient).collect(), 0.01, most);
        found.push((format!("factor and norm, at most {most:?}"), numbers(scaling.clone())));
        let mut updates = Updates::new(Some(scaling));
        let mut after = Vec::new();
        for (i, &n) in lengths.iter().enumerate() {
            let rule = match slots {
                0 => Rule::Sgd,
                _ => Rule::Adam { complement1, complement2, epsilon, correction1, correction2, weight_decay: 0.01 },
            };
            let mut state = vec![Tensor::<1>::ones([n], device); slots];
            let step = Step { rate: 0.01 * (i + 1) as f32, scale: 1.0, ..step };
            let parameter = given(&name(i, "parameter"), [n], device);
            after.push(updates.update(parameter, gradient((i, &n)), &mut state, rule, step));
            after.extend(state);
        }
        drop(updates);
        found.extend(after.into_iter().map(|after| (format!("together, at most {most:?}"), numbers(after))));
    }
    found.push(("sum of many squares".into(), numbers(square_sum(given("squares", [300_007], device)))));
    let mut mean = given("mean", [40], device);
    for share in [0.3, 1.0, 0.5] {
        mean = average(mean, given("parameter", [40], device), share);
        found.push((format!("average by {share}"), numbers(mean.clone())));
        mean = mean + 1.0;
    }
    found.push(("sum of squares".into(), numbers(square_sum(given("squares", [1000], device)))));
}

fn searches(device: &Device, found: &mut Found) {
    let (h, parents) = (6, [2, 0, 2, 1]);
    for cell in [Cell::Rnn, Cell::Lstm, Cell::Gru] {
        let (x, which) = (given("x", [3, cell.gates() * h], device), [1, 0, 2, 1]);
        let weight = PackedWeight::new(given("weight", [h, cell.gates() * h], device));
        let feed = PackedWeight::new(given("feed", [5, cell.gates() * h], device));
        let (bias, states) =
            (given("bias", [cell.biases() * h], device), given("states", [3, cell.states() * h], device));
        let (x, states) = (Shared { table: x, numbers: &which }, Shared { table: states, numbers: &parents });
        let fed = Some((&feed, given("fed", [3, 5], device)));
        found.push((format!("step of {cell:?}"), numbers(recurrent_step(cell, x, &weight, bias, states, fed))));
    }
    let (memory, keys) = (given("memory", [2, 5, 7], device), given("keys", [2, 5, h], device));
    let over = Over { lengths: [5, 3].into(), owners: Some([0, 1, 1, 0].into()) };
    for energy in [None, Some(given("energy", [h], device))] {
        let context = attend(given("query", [4, 1, h], device), keys.clone(), memory.clone(), energy, &over);
        found.push(("context".into(), numbers(context)));
    }
    // What was seen of the padding is nothing.
    let real = Tensor::<2>::from_data([[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0]], device);
    let seen = given("seen", [4, 5], device) * Tensor::cat(vec![real.clone(), real.flip([0])], 0);
    for filters in [None, Some(given("filters", [2 * 3, 5], device))] {
        let features = if filters.is_some() { 2 * 3 } else { 2 };
        let past = Past { seen: seen.clone(), weight: given("features", [features, h], device), filters };
        let (query, energy) = (given("query", [4, 3, h], device), given("energy", [2 * h], device));
        let (contexts, weights) = attend_in_turn(query, keys.clone(), memory.clone(), energy, past, &over);
        found.extend([("contexts in turn".into(), numbers(contexts)), ("their weights".into(), numbers(weights))]);
    }
    let output = OutputLayer::new(given("output", [11, h], device), given("output bias", [11], device));
    found.push(("log-probabilities".into(), output.log_probs(given("states", [4, h], device))));
    let masks = [Mask::Free, Mask::Allowed(vec![3, 7, 2]), Mask::Free, Mask::Banned(vec![5, 6])];
    let best = output.best(given("states", [4, h], device), &[3], &masks, 4);
    // A GPU's minus infinity less the CPU's would be no number.
    let finite = |p: f32| p.max(-1e3);
    let best = best.into_iter().flatten().map(|(id, p)| (id as f32, finite(p)));
    let (tokens, log_probs): (Vec<f32>, Vec<f32>) = best.unzip();
    found.extend([("best tokens".into(), tokens), ("their log-probabilities".into(), log_probs)]);
}

fn everything(device: &Device) -> Found {
    let (mut found, learning) = (Found::new(), device.clone().autodiff());
    products(&learning, &mut found);
    recurrent_layers(&learning, &mut found);
    losses(&learning, &mut found);
    large_losses(&learning, &mut found);
    taught_losses(&learning, &mut found);
    masks(device, &mut found);
    moves(&learning, &mut found);
    elementwise(&learning, &mut found);
    convolutions(&learning, &mut found);
    questions(&learning, &mut found);
    updates(device, &mut found);
    searches(device, &mut found);
    found
}

/// Panics unless the GPU finds what the CPU does.
fn compare(find: fn(&Device) -> Found) {
    static GPU: LazyLock<Device> = LazyLock::new(|| {
        Device::wgpu_options().init().expect("a GPU, or a driver that plays one (Debian: mesa-vulkan-drivers)")
    });
    let (theirs, ours) = (find(&GPU), find(&Device::flex()));
    assert_eq!(theirs.len(), ours.len());
    for ((name, theirs), (same, ours)) in theirs.iter().zip(&ours) {
        assert_eq!((name, theirs.len()), (same, ours.len()));
        let scale = ours.iter().fold(1.0_f32, |most, v| most.max(v.abs()));
        for (i, (a, b)) in theirs.iter().zip(ours).enumerate() {
            assert!((a - b).abs() <= TOLERANCE * scale, "{name}, element {i}: {a} on the GPU, {b} on the CPU");
        }
    }
}

#[test]
#[ignore = "slow"]
fn the_gpu_computes_what_the_cpu_computes() {
    compare(everything);
}
