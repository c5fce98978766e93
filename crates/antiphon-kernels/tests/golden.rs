//! The operations compute what PyTorch computes.
//!
//! `golden/golden.json` holds the results of PyTorch in double precision, and `golden/golden.py` wrote it; inputs are drawn by
//! one formula on both sides. Each operation is held to them twice: in `f32`, where the bodies on slices serve, within what
//! single precision costs, and in `f64`, where the portable bodies serve, within the nine digits that the file has.

use antiphon_kernels::update::{Rule, Step, update};
use antiphon_kernels::{
    Cell, Convolution2d, Over, Past, Projection, Recurrence, Transcripts, attend, attend_in_turn, attend_with_weights,
    convolve_2d, cross_entropy, ctc_loss, linear, recurrent, token_scores,
};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    pytorch: String,
    recurrent: Vec<Layer>,
    attention: Vec<Attention>,
    in_turn: Vec<InTurn>,
    convolutions_2d: Vec<Bands>,
    loss: Vec<Loss>,
    ctc: Vec<Ctc>,
    optimizers: Vec<Optimizer>,
}

#[derive(Deserialize)]
struct Layer {
    cell: String,
    batch: usize,
    steps: usize,
    inputs: usize,
    hidden: usize,
    reverse: bool,
    lengths: Vec<u32>,
    scale: f64,
    /// `[B, T, H]`: zero where steps are padding.
    outputs: Vec<f64>,
    /// `[B, N·H]`.
    state: Vec<f64>,
}

#[derive(Deserialize)]
struct Attention {
    additive: bool,
    batch: usize,
    queries: usize,
    steps: usize,
    width: usize,
    memory: usize,
    lengths: Vec<u32>,
    /// `[B, T, M]`.
    contexts: Vec<f64>,
    /// `[B, T, S]`.
    weights: Vec<f64>,
}

#[derive(Deserialize)]
struct InTurn {
    /// Of a location; a coverage has none.
    reach: Option<usize>,
    batch: usize,
    queries: usize,
    steps: usize,
    width: usize,
    memory: usize,
    lengths: Vec<u32>,
    contexts: Vec<f64>,
    weights: Vec<f64>,
    /// Of query, keys, memory, energy, what was seen, features and filters.
    gradients: Vec<Vec<f64>>,
}

/// A convolution over steps and bands.
#[derive(Deserialize)]
struct Bands {
    batch: usize,
    steps: usize,
    planes: usize,
    bands: usize,
    channels: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    lengths: Vec<u32>,
    outputs: Vec<f64>,
    /// Of input, weight and bias.
    gradients: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Loss {
    tokens: usize,
    hidden: usize,
    vocabulary: usize,
    smoothing: f32,
    scale: f64,
    loss: f64,
    of_states: Vec<f64>,
    of_weight: Vec<f64>,
    of_bias: Vec<f64>,
}

#[derive(Deserialize)]
struct Ctc {
    batch: usize,
    steps: usize,
    vocabulary: usize,
    blank: u32,
    lengths: Vec<u32>,
    labels: Vec<Vec<u32>>,
    scale: f64,
    loss: f64,
    of_logits: Vec<f64>,
}

#[derive(Deserialize)]
struct Optimizer {
    kind: String,
    settings: Settings,
    /// The parameter after each step.
    after: Vec<Vec<f64>>,
}

/// PyTorch's names.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Settings {
    lr: f64,
    momentum: f64,
    nesterov: bool,
    alpha: f64,
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lr: 0.0, momentum: 0.0, nesterov: false, alpha: 0.0, betas: [0.0; 2], eps: 0.0, weight_decay: 0.0 }
    }
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/golden.json")).unwrap()
}

/// The input of that scale and offset.
fn drawn<const D: usize>(dims: [usize; D], scale: f64, offset: f64, dtype: DType) -> Tensor<D> {
    let n: usize = dims.iter().product();
    let numbers = (0..n).map(|i| (scale * (0.37 * i as f64 + offset).sin()) as f32).collect::<Vec<f32>>();
    Tensor::<D>::from_data(TensorData::new(numbers, dims), &Device::flex()).cast(dtype)
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().try_to_vec().unwrap()
}

/// Holds all numbers to the golden ones, within `tolerance` of the largest or of one.
fn assert_near(ours: &[f64], golden: &[f64], tolerance: f64, what: &str) {
    assert_eq!(ours.len(), golden.len(), "{what}");
    let scale = golden.iter().fold(1.0_f64, |most, x| most.max(x.abs()));
    let worst = ours.iter().zip(golden).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance * scale, "{what}: {worst:e} of {scale}");
}

/// The number types with what they may cost where sums stay small.
const PRECISIONS: [(DType, f64); 2] = [(DType::F32, 1e-6), (DType::F64, 5e-9)];

#[test]
fn recurrent_layers_are_pytorchs() {
    let golden = golden();
    for layer in &golden.recurrent {
        let Layer { batch, steps, inputs, hidden, reverse, scale, .. } = *layer;
        let cell = match layer.cell.as_str() {
            "rnn" => Cell::Rnn,
            "lstm" => Cell::Lstm,
            _ => Cell::Gru,
        };
        let width = cell.gates() * hidden;
        for (dtype, tolerance) in PRECISIONS {
            let projected =
                linear(drawn([batch, steps, inputs], 1.0, 0.5, dtype), drawn([inputs, width], scale, 0.1, dtype));
            let (outside, inside) = (drawn([width], 0.5, 0.3, dtype), drawn([width], 0.4, 0.4, dtype));
            let bias = match cell {
                // r, z, then that of n outside of the reset gate and that inside.
                Cell::Gru => {
                    let both = (outside.clone() + inside.clone()).narrow(0, 0, 2 * hidden);
                    let [outside, inside] = [outside, inside].map(|bias| bias.narrow(0, 2 * hidden, hidden));
                    Tensor::cat(vec![both, outside, inside], 0)
                }
                Cell::Rnn | Cell::Lstm => outside + inside,
            };
            let first = [drawn([batch, hidden], 0.8, 0.6, dtype), drawn([batch, hidden], 0.9, 0.7, dtype)];
            let first = Tensor::cat(first.into_iter().take(cell.states()).collect(), 1);
            let run = Recurrence { cell, reverse, lengths: Some(layer.lengths.as_slice().into()) };
            let run = recurrent(projected, drawn([hidden, width], scale, 0.2, dtype), bias, first, &run);
            let mut outputs = numbers(run.sequence());
            for (row, &length) in outputs.chunks_exact_mut(steps * hidden).zip(&layer.lengths) {
                row[length as usize * hidden..].fill(0.0); // where the state is carried
            }
            // What goes into the gates is as much larger as the weights are, and so is its error.
            let tolerance = tolerance * scale.max(1.0);
            let what = format!("{} {batch}×{steps}×{hidden}, reverse {reverse}, scale {scale}, {dtype:?}", layer.cell);
            assert_near(&outputs, &layer.outputs, tolerance, &format!("outputs of {what}"));
            assert_near(&numbers(run.state()), &layer.state, tolerance, &format!("state of {what}"));
        }
    }
    assert_eq!((golden.recurrent.len(), golden.pytorch.split('.').next()), (21, Some("2")));
}

#[test]
fn attention_is_pytorchs() {
    for case in golden().attention {
        let Attention { additive, batch, queries, steps, width, memory, .. } = case;
        let over = Over { lengths: case.lengths.as_slice().into(), owners: None };
        for (dtype, tolerance) in PRECISIONS {
            let (query, keys) =
                (drawn([batch, queries, width], 1.2, 0.1, dtype), drawn([batch, steps, width], 1.1, 0.2, dtype));
            let memory = drawn([batch, steps, memory], 1.0, 0.3, dtype);
            let energy = additive.then(|| drawn([width], 2.0, 0.4, dtype));
            let what = format!("additive {additive}, {batch}×{queries}×{steps}×{width}, {dtype:?}");
            let contexts = attend(query.clone(), keys.clone(), memory.clone(), energy.clone(), &over);
            let (same, weights) = attend_with_weights(query, keys, memory, energy, &over);
            // Scores come to about 20.
            let tolerance = 4.0 * tolerance;
            assert_near(&numbers(contexts), &case.contexts, tolerance, &what);
            assert_near(&numbers(same), &case.contexts, tolerance, &what);
            assert_near(&numbers(weights), &case.weights, tolerance, &what);
        }
    }
}

/// A leaf of the graph, of that scale and offset.
fn leaf<const D: usize>(dims: [usize; D], scale: f64, offset: f64, dtype: DType) -> Tensor<D> {
    drawn(dims, scale, offset, dtype).autodiff().require_grad()
}

#[test]
fn looks_in_turn_are_pytorchs() {
    for case in golden().in_turn {
        let InTurn { reach, batch, queries, steps, width, memory, .. } = case;
        let over = Over { lengths: case.lengths.as_slice().into(), owners: None };
        for (dtype, tolerance) in PRECISIONS {
            let (query, keys) =
                (leaf([batch, queries, width], 1.2, 0.1, dtype), leaf([batch, steps, width], 1.1, 0.2, dtype));
            let (values, energy) = (leaf([batch, steps, memory], 1.0, 0.3, dtype), leaf([width], 2.0, 0.4, dtype));
            let real = case.lengths.iter().flat_map(|&n| (0..steps).map(move |s| f32::from(s < n as usize)));
            let real = TensorData::new(real.collect::<Vec<f32>>(), [batch, steps]);
            let real = Tensor::<2>::from_data(real, &Device::flex()).cast(dtype);
            let before = leaf([batch, steps], 0.6, 0.5, dtype);
            let weight = leaf([reach.map_or(1, |_| 3), width], 1.3, 0.6, dtype);
            let filters = reach.map(|reach| leaf([3, 2 * reach + 1], 0.9, 0.7, dtype));
            let seen = before.clone() * Tensor::from_inner(real);
            let past = Past { seen, weight: weight.clone(), filters: filters.clone() };
            let (contexts, weights) =
                attend_in_turn(query.clone(), keys.clone(), values.clone(), energy.clone(), past, &over);
            let given =
                [drawn([batch, queries, memory], 1.0, 0.8, dtype), drawn([batch, queries, steps], 1.0, 0.9, dtype)];
            let [of_contexts, of_weights] = given.map(Tensor::from_inner);
            let loss = (contexts.clone() * of_contexts).sum() + (weights.clone() * of_weights).sum();
            let gradients = loss.backward();
            let what = format!("reach {reach:?}, {batch}×{queries}×{steps}×{width}, {dtype:?}");
            // Scores come to about 20, and each look hears of what the one before made of them.
            let tolerance = 30.0 * tolerance;
            assert_near(&numbers(contexts.inner()), &case.contexts, tolerance, &what);
            assert_near(&numbers(weights.inner()), &case.weights, tolerance, &what);
            let mut ours = [query, keys, values].map(|of| numbers(of.grad(&gradients).unwrap())).to_vec();
            ours.push(numbers(energy.grad(&gradients).unwrap()));
            ours.extend([before, weight].into_iter().chain(filters).map(|of| numbers(of.grad(&gradients).unwrap())));
            assert_eq!(ours.len(), case.gradients.len());
            for (part, (ours, golden)) in ours.iter().zip(&case.gradients).enumerate() {
                assert_near(ours, golden, tolerance, &format!("gradient {part} of {what}"));
            }
        }
    }
}

#[test]
fn convolutions_over_bands_are_pytorchs() {
    for case in golden().convolutions_2d {
        let Bands { batch, steps, planes, bands, channels, kernel, stride, .. } = case;
        let run = Convolution2d { planes, kernel, stride, lengths: Some(case.lengths.as_slice().into()) };
        for (dtype, tolerance) in PRECISIONS {
            let x = leaf([batch, steps, planes * bands], 1.0, 0.1, dtype);
            let weight = leaf([planes * kernel[0] * kernel[1], channels], 0.7, 0.2, dtype);
            let bias = leaf([channels], 0.5, 0.3, dtype);
            let y = convolve_2d(x.clone(), weight.clone(), bias.clone(), &run);
            let given = Tensor::from_inner(drawn(y.dims(), 1.0, 0.4, dtype));
            let gradients = (y.clone() * given).sum().backward();
            let what = format!("{batch}×{steps}×{planes}×{bands}, {kernel:?} by {stride:?}, {dtype:?}");
            assert_near(&numbers(y.inner()), &case.outputs, tolerance, &what);
            let ours = [
                numbers(x.grad(&gradients).unwrap()),
                numbers(weight.grad(&gradients).unwrap()),
                numbers(bias.grad(&gradients).unwrap()),
            ];
            for (part, (ours, golden)) in ours.iter().zip(&case.gradients).enumerate() {
                assert_near(ours, golden, tolerance, &format!("gradient {part} of {what}"));
            }
        }
    }
}

#[test]
fn the_loss_is_pytorchs() {
    for case in golden().loss {
        let Loss { tokens, hidden, vocabulary, smoothing, scale, .. } = case;
        for (dtype, tolerance) in PRECISIONS {
            let states = drawn([tokens, hidden], scale, 0.1, dtype).autodiff().require_grad();
            let weight = drawn([vocabulary, hidden], 1.0, 0.2, dtype).autodiff().require_grad();
            let bias = drawn([vocabulary], 1.5, 0.3, dtype).autodiff().require_grad();
            let targets = (0..tokens).map(|i| ((5 * i + 2) % vocabulary) as u32).collect();
            let projection =
                Projection { states: states.clone(), weight: weight.clone(), bias: Some(bias.clone()), targets };
            let what = format!("{tokens}×{hidden}×{vocabulary}, smoothing {smoothing}, {dtype:?}");
            if smoothing == 0.0 {
                let sum = token_scores(projection.clone()).log_probs.iter().map(|&x| f64::from(x)).sum::<f64>();
                assert_near(&[-sum], &[case.loss], 1e-6, &what);
            }
            let loss = cross_entropy(projection, smoothing);
            let gradients = loss.clone().backward();
            // The share that is smoothed is given in single precision.
            let tolerance = if smoothing == 0.0 { tolerance } else { tolerance.max(1e-7) };
            assert_near(&numbers(loss.inner()), &[case.loss], tolerance, &what);
            assert_near(&numbers(states.grad(&gradients).unwrap()), &case.of_states, tolerance, &what);
            assert_near(&numbers(weight.grad(&gradients).unwrap()), &case.of_weight, tolerance, &what);
            assert_near(&numbers(bias.grad(&gradients).unwrap()), &case.of_bias, tolerance, &what);
        }
    }
}

#[test]
fn the_ctc_loss_is_pytorchs() {
    for case in golden().ctc {
        let Ctc { batch, steps, vocabulary, blank, lengths, labels, scale, loss, of_logits } = case;
        let transcripts = Transcripts { steps: lengths.into(), labels: labels.into(), blank };
        for (dtype, tolerance) in PRECISIONS {
            let logits = drawn([batch, steps, vocabulary], scale, 0.1, dtype).autodiff().require_grad();
            let ours = ctc_loss(logits.clone(), &transcripts);
            let gradient = logits.grad(&ours.backward()).unwrap();
            let what = format!("{batch}×{steps}×{vocabulary}, {dtype:?}");
            assert_near(&numbers(ours.inner()), &[loss], tolerance, &what);
            assert_near(&numbers(gradient), &of_logits, tolerance, &what);
        }
    }
}

/// The rule of update number `t`, and what PyTorch's `weight_decay` is here: a penalty, but for AdamW.
fn rule(kind: &str, settings: &Settings, t: i32) -> (Rule, f64) {
    let Settings { momentum, nesterov, alpha, betas: [beta1, beta2], eps, weight_decay, .. } = *settings;
    let decoupled = kind == "adamw";
    let rule = match kind {
        "sgd" if momentum == 0.0 => Rule::Sgd,
        "sgd" => Rule::Momentum { momentum: momentum as f32, nesterov },
        "rmsprop" => Rule::RmsProp { complement: (1.0 - alpha) as f32, epsilon: eps as f32 },
        _ => Rule::Adam {
            complement1: (1.0 - beta1) as f32,
            complement2: (1.0 - beta2) as f32,
            epsilon: eps as f32,
            correction1: (1.0 - beta1.powi(t)) as f32,
            correction2: (1.0 - beta2.powi(t)) as f32,
            weight_decay: if decoupled { weight_decay as f32 } else { 0.0 },
        },
    };
    (rule, if decoupled { 0.0 } else { weight_decay })
}

#[test]
fn optimizer_steps_are_pytorchs() {
    for Optimizer { kind, settings, after } in golden().optimizers {
        for dtype in [DType::F32, DType::F64] {
            let mut parameter = drawn([8], 1.0, 0.1, dtype);
            let mut state =
                vec![Tensor::<1>::zeros([8], &Device::flex()).cast(dtype); rule(&kind, &settings, 1).0.slots()];
            for (t, expected) in after.iter().enumerate() {
                let (rule, l2) = rule(&kind, &settings, t as i32 + 1);
                let step = Step { rate: settings.lr as f32, scale: 1.0, l1: 0.0, l2: l2 as f32 };
                let gradient = drawn([8], 0.9_f64.powi(t as i32), 0.2 + t as f64, dtype);
                parameter = update(parameter, gradient, &mut state, rule, step);
                // Rates and settings are given in single precision, whatever the parameter's.
                assert_near(
                    &numbers(parameter.clone()),
                    expected,
                    5e-7,
                    &format!("{kind} {settings:?} {dtype:?}, step {t}"),
                );
            }
        }
    }
}
