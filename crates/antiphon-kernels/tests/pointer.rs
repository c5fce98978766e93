//! What points and the loss beside it: bodies for slices against tensor operations, and both against their definitions.

use antiphon_core::random::Key;
use antiphon_kernels::{IMPOSSIBLE, Pointing, Projection, copied_cross_entropy, point};
use burn::tensor::{Bool, DType, Device, Tensor, TensorData};

fn leaf<const D: usize>(name: &str, dims: [usize; D]) -> Tensor<D> {
    let n = dims.iter().product::<usize>() as u64;
    let numbers: Vec<f32> = (0..n).map(|i| Key::from_seed(4).named(name).normal(i) as f32).collect();
    Tensor::from_data(TensorData::new(numbers, dims), &Device::flex().autodiff()).require_grad()
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().convert_dtype(DType::F64).try_to_vec().unwrap()
}

fn double<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    tensor.clone().inner().cast(DType::F64)
}

/// The same numbers in double precision, as a leaf.
fn wide<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    let data = tensor.clone().inner().into_data().convert_dtype(DType::F64);
    Tensor::from_data(data, (&Device::flex().autodiff(), DType::F64)).require_grad()
}

fn assert_close(a: &[f64], b: &[f64], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() < 2e-5 * y.abs().max(1.0), "{what}: number {i}: {x} is not {y}");
    }
}

/// Three rows: one whose words repeat and have gaps, one that says nothing, one that is short; and a query whose label nobody says.
fn pointing() -> Pointing {
    #[rustfmt::skip]
    let says = vec![
        5, 7, 5, 0, 9, 5, 0,
        0, 0, 0, 0, 0, 0, 0,
        8, 9, 0, 0, 0, 0, 0,
    ];
    Pointing { says: says.into(), queries: vec![3, 1, 2].into(), labels: vec![5, 9, 4, 5, 9, 8].into() }
}

const SHAPES: ([usize; 2], [usize; 3]) = ([6, 5], [3, 7, 5]);

#[test]
fn the_two_sums_are_those_of_their_definitions() {
    let (q, m, pointing) = (leaf("q", SHAPES.0), leaf("m", SHAPES.1), pointing());
    let found = numbers(point(q.clone(), m.clone(), &pointing));
    let oracle = numbers(point(double(&q), double(&m), &pointing));
    assert_close(&found, &oracle, "the body for slices");
    let (q, m) = (numbers(q), numbers(m));
    for (at, row) in [0, 0, 0, 1, 2, 2].into_iter().enumerate() {
        let score = |s: usize| (0..5).map(|k| q[at * 5 + k] * m[(row * 7 + s) * 5 + k]).sum::<f64>();
        let sum = |of: &dyn Fn(u32) -> bool| {
            let said = (0..7).filter(|&s| pointing.says[row * 7 + s] != 0 && of(pointing.says[row * 7 + s]));
            let sum: f64 = said.map(|s| score(s).exp()).sum();
            if sum > 0.0 { sum.ln() } else { f64::from(IMPOSSIBLE) }
        };
        let expected = [sum(&|says| says == pointing.labels[at]), sum(&|_| true)];
        assert_close(&[found[at], found[6 + at]], &expected, &format!("query {at}"));
    }
}

/// Of both bodies: that of slices by the one of operations in double precision, whose own is known from differences.
#[test]
fn what_points_has_the_gradients_of_differences() {
    let pointing = pointing();
    // What is impossible has no slope, and counts for nothing.
    let shares: Vec<f32> = (0..12).map(|i| if [2, 3, 9].contains(&i) { 0.0 } else { 0.3 + i as f32 * 0.1 }).collect();
    let loss = |q: Tensor<2>, m: Tensor<3>| {
        let shares = Tensor::<2>::from_data(TensorData::new(shares.clone(), [2, 6]), &q.device().inner());
        (point(q.clone(), m, &pointing) * shares.cast(q.dtype())).sum()
    };
    let (q, m) = (leaf("q", SHAPES.0), leaf("m", SHAPES.1));
    let gradients = loss(q.clone(), m.clone()).backward();
    let fast = [numbers(q.grad(&gradients).unwrap()), numbers(m.grad(&gradients).unwrap())];
    let (wide_q, wide_m) = (wide(&q), wide(&m));
    let gradients = loss(wide_q.clone(), wide_m.clone()).backward();
    let of_wide = [numbers(wide_q.grad(&gradients).unwrap()), numbers(wide_m.grad(&gradients).unwrap())];
    for (fast, wide) in fast.iter().zip(&of_wide) {
        assert_close(fast, wide, "gradient");
    }
    let (q, m) = (numbers(q), numbers(m));
    let at = |q: &[f64], m: &[f64]| {
        let device = Device::flex();
        let q = Tensor::<2>::from_data(TensorData::new(q.to_vec(), SHAPES.0), (&device, DType::F64));
        let m = Tensor::<3>::from_data(TensorData::new(m.to_vec(), SHAPES.1), (&device, DType::F64));
        numbers(loss(q, m))[0]
    };
    let step = 1e-5;
    for (which, wide) in of_wide.iter().enumerate() {
        for (i, gradient) in wide.iter().enumerate() {
            let moved = |by: f64| {
                let (mut q, mut m) = (q.clone(), m.clone());
                [&mut q, &mut m][which][i] += by;
                at(&q, &m)
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((slope - gradient).abs() < 1e-6, "{which} {i}: {gradient} is not {slope}");
        }
    }
}

/// Targets of a vocabulary of 6: known ones, with and without something beside them, and slots.
fn loss_of(
    s: &Tensor<2>,
    w: &Tensor<2>,
    b: &Tensor<1>,
    own: &Tensor<1>,
    beside: &Tensor<1>,
    smoothing: f32,
) -> Tensor<1> {
    let targets = vec![1, 6, 3, 0, 8];
    let mask = Tensor::<1, Bool>::from_data([false, false, true, false, false], &s.device().inner());
    let beside = beside.clone().mask_fill(mask, IMPOSSIBLE);
    let projection = Projection { states: s.clone(), weight: w.clone(), bias: Some(b.clone()), targets };
    copied_cross_entropy(projection, own.clone(), beside, smoothing)
}

#[test]
fn the_loss_is_that_of_a_mixture_and_its_gradients_those_of_differences() {
    let (s, w, b) = (leaf("s", [5, 4]), leaf("w", [6, 4]), leaf("b", [6]));
    let (own, beside) = (leaf("o", [5]), leaf("c", [5]));
    for smoothing in [0.0, 0.2] {
        let loss = loss_of(&s, &w, &b, &own, &beside, smoothing);
        let gradients = (loss.clone() * 2.0).backward();
        let fast = [s.grad(&gradients), w.grad(&gradients)].map(|gradient| numbers(gradient.unwrap()));
        let fast: Vec<Vec<f64>> =
            fast.into_iter().chain([&b, &own, &beside].map(|leaf| numbers(leaf.grad(&gradients).unwrap()))).collect();
        let inputs =
            [numbers(s.clone()), numbers(w.clone()), numbers(b.clone()), numbers(own.clone()), numbers(beside.clone())];
        let by_hand = |inputs: &[Vec<f64>; 5]| {
            let [s, w, b, own, beside] = inputs;
            let mut loss = 0.0;
            for (n, target) in [1, 6, 3, 0, 8].into_iter().enumerate() {
                let logits: Vec<f64> =
                    (0..6).map(|v| b[v] + (0..4).map(|k| s[n * 4 + k] * w[v * 4 + k]).sum::<f64>()).collect();
                let z: f64 = logits.iter().map(|logit| logit.exp()).sum();
                let p = if target < 6 { own[n].exp() * logits[target].exp() / z } else { 0.0 };
                let p = p + if n == 2 { 0.0 } else { beside[n].exp() };
                let all: f64 = logits.iter().map(|logit| logit - z.ln()).sum();
                loss -= (1.0 - f64::from(smoothing)) * p.ln() + f64::from(smoothing) / 6.0 * all;
            }
            loss
        };
        let expected = by_hand(&inputs);
        assert!((numbers(loss)[0] - expected).abs() < 1e-4, "smoothing {smoothing}");
        let of_operations = loss_of(&double(&s), &double(&w), &double(&b), &double(&own), &double(&beside), smoothing);
        assert!((numbers(of_operations)[0] - expected).abs() < 1e-5, "operations, smoothing {smoothing}");
        for (which, fast) in fast.iter().enumerate() {
            for (i, gradient) in fast.iter().enumerate() {
                let moved = |by: f64| {
                    let mut inputs = inputs.clone();
                    inputs[which][i] += by;
                    by_hand(&inputs)
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 1e-5;
                assert!((slope - gradient).abs() < 1e-4, "{smoothing}: input {which}, {i}: {gradient} is not {slope}");
            }
        }
    }
}
