use antiphon_core::random::Key;
use burn::tensor::{DType, Device, TensorData};

use super::*;

/// Sizes, and what differs between layers.
#[derive(Debug, Clone)]
struct Case {
    b: usize,
    n: usize,
    d: usize,
    gates: usize,
    /// One query for all steps.
    one_query: bool,
    both: bool,
    lengths: Vec<u32>,
}

/// Widths around those of vectors, rows without a step, one step; each with one gate and two, one query and many, one direction and both.
fn cases() -> Vec<Case> {
    let sizes = [
        ([1, 1, 1], vec![1]),
        ([1, 4, 3], vec![4]),
        ([3, 5, 2], vec![5, 2, 0]),
        ([4, 7, 17], vec![0, 7, 1, 6]),
        ([2, 3, 50], vec![0, 0]),
        ([9, 20, 33], (0..9).map(|b| (b * 7 + 3) % 21).collect()),
    ];
    let mut cases = Vec::new();
    for ([b, n, d], lengths) in sizes {
        for kind in 0..8 {
            let (gates, one_query, both) = (1 + kind % 2, kind / 2 % 2 == 1, kind / 4 == 1);
            cases.push(Case { b, n, d, gates, one_query, both, lengths: lengths.clone() });
        }
    }
    cases
}

impl Case {
    fn run(&self) -> Reduction {
        Reduction { lengths: self.lengths.as_slice().into(), both: self.both }
    }

    /// Steps of the queries.
    fn asked(&self) -> usize {
        if self.one_query { 1 } else { self.n }
    }

    fn dims(&self) -> [Vec<usize>; 5] {
        let Self { b, n, d, gates, .. } = *self;
        [vec![b, n, d], vec![b, self.asked(), d], vec![b, n, d], vec![gates, d], vec![gates]]
    }

    /// Sentences, queries, candidates, weight and bias; `padding`: beyond the rows' lengths.
    fn given(&self, padding: f32) -> [Vec<f32>; 5] {
        let names = ["sentences", "queries", "candidates", "weight", "bias"];
        let dims = self.dims();
        std::array::from_fn(|i| {
            let mut numbers = normal(names[i], dims[i].iter().product());
            if i < 3 && dims[i][1] == self.n {
                for (row, &real) in numbers.chunks_exact_mut(self.n * self.d).zip(&self.lengths) {
                    row[real as usize * self.d..].fill(padding);
                }
            }
            numbers
        })
    }
}

fn normal(name: &str, n: usize) -> Vec<f32> {
    let key = Key::from_seed(8).named(name);
    (0..n as u64).map(|i| key.normal(i) as f32).collect()
}

fn doubles<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().convert_dtype(DType::F64).try_to_vec().unwrap()
}

/// Sequence and final state, then the gradients of all inputs, by the body that the number type selects.
fn found(case: &Case, given: &[Vec<f32>; 5], dtype: DType) -> Vec<Vec<f64>> {
    let (device, dims) = (Device::flex().autodiff(), case.dims());
    let data = |i: usize| TensorData::new(given[i].clone(), dims[i].clone());
    let wide = |i: usize| Tensor::<3>::from_data(data(i), (&device, dtype)).require_grad();
    let inputs = [0, 1, 2].map(wide);
    let weight = Tensor::<2>::from_data(data(3), (&device, dtype)).require_grad();
    let bias = Tensor::<1>::from_data(data(4), (&device, dtype)).require_grad();
    let [sentences, queries, candidates] = inputs.clone();
    let tensors = QueryReduction { sentences, queries, candidates, weight: weight.clone(), bias: bias.clone() };
    let reduced = reduce_query(tensors, &case.run());
    let (sequence, state) = (reduced.sequence(), reduced.state());
    let of = |name: &str, n: usize| TensorData::new(normal(name, n), [n]);
    let of = |name: &str, n: usize| {
        Tensor::<1>::from_inner(Tensor::from_data(of(name, n), (&device.clone().inner(), dtype)))
    };
    let (count, last) = (case.b * case.n * case.d, case.b * case.d);
    let loss = (sequence.clone().reshape([count]) * of("of sequence", count)).sum();
    let loss = loss + (state.clone().reshape([last]) * of("of state", last)).sum();
    let grads = loss.backward();
    let mut found = vec![doubles(sequence), doubles(state)];
    found.extend(inputs.iter().map(|input| doubles(input.grad(&grads).unwrap())));
    found.push(doubles(weight.grad(&grads).unwrap()));
    found.push(doubles(bias.grad(&grads).unwrap()));
    found
}

/// Sequence, final state and gates, number by number as the head of the module has it.
fn by_hand(case: &Case, given: &[Vec<f64>; 5]) -> [Vec<f64>; 3] {
    let Case { b, n, d, gates: g, .. } = *case;
    let [x, q, p, w, bias] = given;
    let (mut sequence, mut last, mut gates) = (vec![0.0; b * n * d], vec![0.0; b * d], vec![0.0; b * n * g]);
    for row in 0..b {
        let real = case.lengths[row] as usize;
        for (t, k) in (0..real).flat_map(|t| (0..g).map(move |k| (t, k))) {
            let asked = if case.one_query { row } else { row * n + t };
            let sum: f64 = (0..d).map(|i| w[k * d + i] * x[(row * n + t) * d + i] * q[asked * d + i]).sum();
            gates[(row * n + t) * g + k] = 1.0 / (1.0 + (-sum - bias[k]).exp());
        }
        for i in 0..d {
            let step = |t: usize, state: f64| {
                let gates = &gates[(row * n + t) * g..][..g];
                let (z, r) = (gates[0], if g == 2 { gates[1] } else { 1.0 });
                z * r * p[(row * n + t) * d + i].tanh() + (1.0 - z) * state
            };
            let mut state = 0.0;
            for t in 0..n {
                if t < real {
                    state = step(t, state);
                }
                sequence[(row * n + t) * d + i] = state;
            }
            last[row * d + i] = state;
            state = 0.0;
            for t in (0..real).rev().filter(|_| case.both) {
                state = step(t, state);
                sequence[(row * n + t) * d + i] += state;
            }
        }
    }
    [sequence, last, gates]
}

fn assert_close(found: &[f64], exact: &[f64], within: f64, what: &str) {
    assert_eq!(found.len(), exact.len(), "{what}");
    for (i, (x, y)) in found.iter().zip(exact).enumerate() {
        assert!((x - y).abs() < within * y.abs().max(1.0), "{what}, number {i}: {x} is not {y}");
    }
}

fn exact(given: &[Vec<f32>; 5]) -> [Vec<f64>; 5] {
    given.each_ref().map(|numbers| numbers.iter().map(|&x| f64::from(x)).collect())
}

#[test]
fn both_bodies_are_the_equations_and_agree_in_their_gradients_whatever_the_padding_holds() {
    for case in cases() {
        let given = case.given(f32::NAN);
        let (fast, portable) = (found(&case, &given, DType::F32), found(&case, &given, DType::F64));
        let [sequence, last, _] = by_hand(&case, &exact(&given));
        for (found, exact) in portable.iter().zip([sequence, last]) {
            assert_close(found, &exact, 1e-6, &format!("{case:?}"));
        }
        assert_eq!(fast.len(), portable.len());
        for (part, (fast, portable)) in fast.iter().zip(&portable).enumerate() {
            assert_close(fast, portable, 3e-5, &format!("{case:?}, part {part}"));
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for case in cases().into_iter().filter(|case| case.b * case.n * case.d <= 40) {
        let given = case.given(0.0);
        let found = found(&case, &given, DType::F32);
        let weights = [normal("of sequence", case.b * case.n * case.d), normal("of state", case.b * case.d)];
        let loss = |given: &[Vec<f64>; 5]| -> f64 {
            let [sequence, last, _] = by_hand(&case, given);
            let parts = [sequence, last].into_iter().zip(&weights);
            parts.map(|(y, w)| y.iter().zip(w).map(|(y, w)| y * f64::from(*w)).sum::<f64>()).sum()
        };
        let given = exact(&given);
        for input in 0..5 {
            for i in 0..given[input].len() {
                let moved = |by: f64| {
                    let mut given = given.clone();
                    given[input][i] += by;
                    loss(&given)
                };
                let slope = (moved(1e-4) - moved(-1e-4)) / 2e-4;
                let gradient = found[2 + input][i];
                assert!((slope - gradient).abs() < 1e-4 * slope.abs().max(1.0), "{case:?}, input {input}, number {i}");
            }
        }
    }
}

/// Gates that are shut or open for good, where `1 − z` is no longer a number of single precision.
#[test]
fn saturated_gates_have_finite_gradients_in_both_bodies() {
    for case in cases().into_iter().filter(|case| case.n == 20) {
        let mut given = case.given(0.0);
        given[3].iter_mut().for_each(|w| *w *= 60.0);
        let (fast, portable) = (found(&case, &given, DType::F32), found(&case, &given, DType::F64));
        for (part, (fast, portable)) in fast.iter().zip(&portable).take(2).enumerate() {
            assert_close(fast, portable, 1e-3, &format!("{case:?}, part {part}"));
        }
        assert!(fast.iter().chain(&portable).flatten().all(|x| x.is_finite()), "{case:?}");
    }
}

#[test]
fn gates_are_those_of_the_layer_and_zero_beyond_a_row() {
    for case in cases() {
        let given = case.given(f32::NAN);
        let dims = case.dims();
        let of = |i: usize| TensorData::new(given[i].clone(), dims[i].clone());
        let wide = |i: usize| Tensor::<3>::from_data(of(i), &Device::flex());
        let (weight, bias) = (Tensor::from_data(of(3), &Device::flex()), Tensor::from_data(of(4), &Device::flex()));
        let gates = query_gates(wide(0), wide(1), weight, bias, &case.lengths);
        let [.., exact] = by_hand(&case, &exact(&given));
        assert_close(&doubles(gates), &exact, 1e-5, &format!("{case:?}"));
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_padded_beside_others_on_any_number_of_threads() {
    for case in cases().into_iter().filter(|case| case.b == 1) {
        let case = Case { d: 33 * case.d, ..case };
        let own = case.given(0.0);
        // Sequence, final state and the gradient of what is read, of one row.
        let run = |rows: usize, place: usize, longer: usize| {
            let lengths = (0..rows).map(|b| if b == place { case.n } else { b % (case.n + longer) } as u32).collect();
            let wide = Case { b: rows, n: case.n + longer, lengths, ..case.clone() };
            let mut given = wide.given(f32::NAN);
            for i in 0..3 {
                let width = given[i].len() / rows;
                given[i][place * width..][..own[i].len()].copy_from_slice(&own[i]);
            }
            given[3..].clone_from_slice(&own[3..]);
            let device = Device::flex().autodiff();
            let dims = wide.dims();
            let of = |i: usize| TensorData::new(given[i].clone(), dims[i].clone());
            let leaf = |i: usize| Tensor::<3>::from_data(of(i), &device).require_grad();
            let leaves = [0, 1, 2].map(leaf);
            let [sentences, queries, candidates] = leaves.clone();
            let (weight, bias) = (Tensor::from_data(of(3), &device), Tensor::from_data(of(4), &device));
            let reduced = reduce_query(QueryReduction { sentences, queries, candidates, weight, bias }, &wide.run());
            let (sequence, state) = (reduced.sequence().narrow(1, 0, case.n), reduced.state());
            let loss = (sequence.clone() * sequence.clone()).sum() + (state.clone() * state.clone()).sum();
            let grads = loss.backward();
            let bits = |tensor: Tensor<3>| {
                let steps = tensor.dims()[1].min(case.n);
                let row = tensor.narrow(0, place, 1).narrow(1, 0, steps).into_data().try_to_vec::<f32>().unwrap();
                row.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let mut found = vec![bits(sequence.inner()), bits(state.inner().unsqueeze_dim(1))];
            found.extend(leaves.iter().map(|leaf| bits(leaf.grad(&grads).unwrap())));
            found
        };
        let alone = run(1, 0, 0);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for (rows, place, longer) in [(1, 0, 4), (2, 1, 0), (9, 4, 1), (60, 59, 17)] {
                let found = pool.install(|| run(rows, place, longer));
                assert_eq!(found, alone, "{case:?}: row {place} of {rows}, {threads} threads");
            }
        }
    }
}
