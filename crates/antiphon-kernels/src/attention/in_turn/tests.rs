use antiphon_core::random::Key;
use burn::tensor::{Device, Tensor, TensorData};

use super::*;
use crate::attention::attend_with_weights;

/// Sizes, heads, features and width of filters (0 of a coverage), and the real steps of the rows.
type Case = ([usize; 5], usize, [usize; 2], Vec<u32>);

/// `B`, `T`, `S`, `A`, `M`: widths around those of vectors, filters wider than the memory, rows without a step, several heads.
fn cases() -> Vec<Case> {
    vec![
        ([1, 1, 1, 1, 1], 1, [1, 0], vec![1]),
        ([1, 1, 1, 1, 1], 1, [1, 1], vec![1]),
        ([3, 4, 5, 3, 2], 1, [1, 0], vec![5, 2, 0]),
        ([3, 4, 5, 3, 2], 1, [2, 3], vec![5, 2, 0]),
        ([2, 3, 4, 2, 3], 2, [2, 9], vec![4, 4]),
        ([6, 5, 5, 16, 9], 2, [1, 0], vec![5, 5, 2, 2, 0, 0]),
        ([6, 3, 7, 17, 9], 3, [4, 5], vec![1, 1, 1, 7, 7, 7]),
        ([3, 2, 37, 33, 70], 1, [10, 15], vec![37, 21, 8]),
        ([3, 2, 37, 33, 70], 1, [1, 0], vec![37, 21, 8]),
    ]
}

fn numbers(name: &str, dims: &[usize]) -> Vec<f32> {
    let key = Key::from_seed(5).named(name);
    (0..dims.iter().product::<usize>() as u64).map(|i| key.normal(i) as f32 * 0.7).collect()
}

/// Query, keys, memory, energy, what was seen, the features' weight and filters; `padding`: in keys and memory.
fn given(case: &Case, padding: f32) -> Vec<(Vec<f32>, Vec<usize>)> {
    let ([b, t, s, a, m], heads, [f, width], lengths) = case;
    let (b, t, s, a, m, n) = (*b, *t, *s, *a, *m, *heads);
    let shapes = [
        ("q", vec![b, t, a]),
        ("k", vec![b, s, a]),
        ("m", vec![b, s, m]),
        ("v", vec![n * a]),
        ("seen", vec![b, s]),
        ("u", vec![n * f, a]),
        ("filters", vec![n * f, *width]),
    ];
    let mut all: Vec<_> = shapes.into_iter().map(|(name, dims)| (numbers(name, &dims), dims)).collect();
    for (of, width, padding) in [(1, a, padding), (2, m, padding), (4, 1, 0.0)] {
        for (row, &real) in all[of].0.chunks_exact_mut(s * width).zip(lengths) {
            row[real as usize * width..].fill(padding);
        }
    }
    all
}

/// Contexts, weights and the gradients of all inputs, by the slices or by tensor operations.
fn found(case: &Case, given: &[(Vec<f32>, Vec<usize>)], fused: bool) -> Vec<Vec<f32>> {
    fn leaf<const D: usize>((numbers, dims): &(Vec<f32>, Vec<usize>)) -> Tensor<D> {
        Tensor::from_data(TensorData::new(numbers.clone(), dims.clone()), &Device::flex().autodiff()).require_grad()
    }
    let ([b, t, s, _, m], _, [_, width], lengths) = case;
    let over = Over { lengths: lengths.as_slice().into(), owners: None };
    let (q, k, x, v) = (leaf::<3>(&given[0]), leaf::<3>(&given[1]), leaf::<3>(&given[2]), leaf::<1>(&given[3]));
    let (seen, weight) = (leaf::<2>(&given[4]), leaf::<2>(&given[5]));
    let filters = (*width > 0).then(|| leaf::<2>(&given[6]));
    let past = Past { seen: seen.clone(), weight: weight.clone(), filters: filters.clone() };
    let run = if fused { attend_in_turn } else { of_operations };
    let (contexts, weights) = run(q.clone(), k.clone(), x.clone(), v.clone(), past, &over);
    let of = |name: &str, dims: [usize; 3]| {
        Tensor::<3>::from_data(TensorData::new(numbers(name, &dims), dims), &Device::flex())
    };
    let loss = (contexts.clone() * Tensor::from_inner(of("dc", [*b, *t, *m]))).sum();
    let grads = (loss + (weights.clone() * Tensor::from_inner(of("dw", [*b, *t, *s]))).sum()).backward();
    let host = |data: TensorData| data.try_to_vec::<f32>().unwrap();
    let mut found = vec![host(contexts.into_data()), host(weights.into_data())];
    found.extend([&q, &k, &x].map(|x| host(x.grad(&grads).unwrap().into_data())));
    found.push(host(v.grad(&grads).unwrap().into_data()));
    found.extend([seen, weight].into_iter().chain(filters).map(|x| host(x.grad(&grads).unwrap().into_data())));
    found
}

/// Contexts and weights, number by number as the head of the module has it.
fn by_hand(case: &Case, given: &[Vec<f64>]) -> [Vec<f64>; 2] {
    let ([b, t, s, a, m], heads, [f, width], lengths) = case;
    let (b, t, s, a, m, n) = (*b, *t, *s, *a, *m, *heads);
    let [q, k, x, v, before, u, filters] = given else { panic!("seven inputs") };
    let (mut contexts, mut all) = (vec![0.0; b * t * m], vec![0.0; b * t * s]);
    for row in 0..b {
        let (real, head) = (lengths[row] as usize, row % n);
        let mut seen = before[row * s..][..s].to_vec();
        for turn in 0..t {
            let feature = |step: usize, f_of: usize| match width {
                0 => seen[step],
                _ => (0..*width)
                    .filter_map(|i| (step + i).checked_sub(width / 2).filter(|&at| at < real).map(|at| (i, at)))
                    .map(|(i, at)| filters[(head * f + f_of) * width + i] * seen[at])
                    .sum(),
            };
            let score = |step: usize| -> f64 {
                let of = |i: usize| {
                    let heard: f64 = (0..*f).map(|f_of| feature(step, f_of) * u[(head * f + f_of) * a + i]).sum();
                    (q[(row * t + turn) * a + i] + k[(row * s + step) * a + i] + heard).tanh() * v[head * a + i]
                };
                (0..a).map(of).sum()
            };
            let powers: Vec<f64> = (0..real).map(|step| score(step).exp()).collect();
            let weights: Vec<f64> = powers.iter().map(|power| power / powers.iter().sum::<f64>()).collect();
            for (step, weight) in weights.iter().enumerate() {
                all[(row * t + turn) * s + step] = *weight;
                seen[step] = if *width == 0 { seen[step] + weight } else { *weight };
                (0..m).for_each(|i| contexts[(row * t + turn) * m + i] += weight * x[(row * s + step) * m + i]);
            }
        }
    }
    [contexts, all]
}

fn assert_close(found: &[f32], expected: impl ExactSizeIterator<Item = f64>, within: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (x, y)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*x) - y).abs() < within * y.abs().max(1.0), "{what}, number {i}: {x} is not {y}");
    }
}

#[test]
fn both_bodies_are_the_equations_and_agree_in_their_gradients() {
    for case in cases() {
        let given = given(&case, 0.3);
        let (ours, mut oracle) = (found(&case, &given, true), found(&case, &given, false));
        // What was seen of padding is nothing whatever happens; tensor operations do not know that.
        let ([_, _, s, ..], .., lengths) = &case;
        for (row, &real) in oracle[6].chunks_exact_mut(*s).zip(lengths) {
            row[real as usize..].fill(0.0);
        }
        let exact: Vec<Vec<f64>> = given.iter().map(|(of, _)| of.iter().map(|&x| f64::from(x)).collect()).collect();
        for (found, exact) in ours.iter().zip(by_hand(&case, &exact)) {
            assert_close(found, exact.into_iter(), 1e-5, &format!("{case:?}"));
        }
        assert_eq!(ours.len(), oracle.len());
        for (part, (ours, oracle)) in ours.iter().zip(&oracle).enumerate() {
            assert_close(ours, oracle.iter().map(|&x| f64::from(x)), 3e-5, &format!("{case:?}, part {part}"));
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for case in cases().into_iter().filter(|(sizes, ..)| sizes.iter().product::<usize>() <= 360) {
        let given = given(&case, 0.3);
        let found = found(&case, &given, true);
        let exact: Vec<Vec<f64>> = given.iter().map(|(of, _)| of.iter().map(|&x| f64::from(x)).collect()).collect();
        let ([b, t, s, _, m], ..) = &case;
        let weights = [numbers("dc", &[*b, *t, *m]), numbers("dw", &[*b, *t, *s])];
        let loss = |given: &[Vec<f64>]| -> f64 {
            let made = by_hand(&case, given);
            made.iter().flatten().zip(weights.iter().flatten()).map(|(x, &d)| x * f64::from(d)).sum()
        };
        for (input, gradient) in found[2..].iter().enumerate() {
            let slopes: Vec<f64> = (0..gradient.len())
                .map(|i| {
                    let moved = |by: f64| {
                        let mut given = exact.clone();
                        given[input][i] += by;
                        loss(&given)
                    };
                    (moved(1e-5) - moved(-1e-5)) / 2e-5
                })
                .collect();
            assert_close(gradient, slopes.into_iter(), 1e-4, &format!("{case:?}, input {input}"));
        }
    }
}

#[test]
fn what_padding_holds_and_how_much_there_is_of_it_changes_no_bit() {
    for case in cases() {
        let (sizes, heads, of, lengths) = &case;
        let plain = found(&case, &given(&case, 0.3), true);
        assert_eq!(plain, found(&case, &given(&case, f32::NAN), true), "{case:?}");
        // A row by itself, as wide as it is; each head of a row is one.
        let [b, t, s, a, m] = *sizes;
        for row in (0..b / heads).filter(|row| lengths[row * heads] > 0) {
            let real = lengths[row * heads] as usize;
            let alone: Case = ([*heads, t, real, a, m], *heads, *of, vec![real as u32; *heads]);
            let cut = |numbers: &[f32], width: usize| -> Vec<f32> {
                let rows = numbers.chunks_exact(s * width).skip(row * heads).take(*heads);
                rows.flat_map(|row| &row[..real * width]).copied().collect()
            };
            let mut given = given(&case, 0.3);
            given[0] = (given[0].0[row * heads * t * a..][..heads * t * a].to_vec(), vec![*heads, t, a]);
            given[1] = (cut(&given[1].0, a), vec![*heads, real, a]);
            given[2] = (cut(&given[2].0, m), vec![*heads, real, m]);
            given[4] = (cut(&given[4].0, 1), vec![*heads, real]);
            let alone = found(&alone, &given, true);
            let contexts = heads * t * m;
            assert_eq!(alone[0], plain[0][row * contexts..][..contexts], "{case:?}, row {row}");
        }
    }
}

#[test]
fn looks_at_once_are_looks_one_by_one() {
    let device = Device::flex();
    for case in cases() {
        let given = given(&case, 0.3);
        let ([b, t, s, _, _], _, [_, width], lengths) = &case;
        let over = Over { lengths: lengths.as_slice().into(), owners: None };
        fn tensor<const D: usize>((numbers, dims): &(Vec<f32>, Vec<usize>), device: &Device) -> Tensor<D> {
            Tensor::from_data(TensorData::new(numbers.clone(), dims.clone()), device)
        }
        let (q, k, x) =
            (tensor::<3>(&given[0], &device), tensor::<3>(&given[1], &device), tensor::<3>(&given[2], &device));
        let (v, seen, weight) =
            (tensor::<1>(&given[3], &device), tensor::<2>(&given[4], &device), tensor::<2>(&given[5], &device));
        let filters = (*width > 0).then(|| tensor::<2>(&given[6], &device));
        let mut past = Past { seen, weight, filters };
        let whole = attend_in_turn(q.clone(), k.clone(), x.clone(), v.clone(), past.clone(), &over);
        for turn in 0..*t {
            let query = q.clone().narrow(1, turn, 1);
            let (context, weights) = attend_in_turn(query, k.clone(), x.clone(), v.clone(), past.clone(), &over);
            let looked = weights.clone().reshape([*b, *s]);
            past.seen = if *width > 0 { looked } else { past.seen + looked };
            for (one, all) in [(context, &whole.0), (weights, &whole.1)] {
                let error = (one - all.clone().narrow(1, turn, 1)).abs().max().into_scalar::<f32>();
                assert!(error < 1e-6, "{case:?}, turn {turn}: {error}");
            }
        }
    }
}

#[test]
fn what_was_seen_counts_and_without_a_weight_it_does_not() {
    let device = Device::flex();
    let random = |name: &str, dims: &[usize]| TensorData::new(numbers(name, dims), dims.to_vec());
    let (q, k) = (Tensor::<3>::from_data(random("q", &[2, 1, 8]), &device), random("k", &[2, 3, 8]));
    let (k, x) = (Tensor::<3>::from_data(k, &device), Tensor::<3>::from_data(random("m", &[2, 3, 5]), &device));
    let v = Tensor::<1>::from_data(random("v", &[8]), &device);
    let over = Over { lengths: [3, 2].into(), owners: Some([1, 0].into()) };
    let seen = Tensor::<2>::from_data([[0.4, 0.6, 0.0], [0.1, 0.2, 0.7]], &device);
    for filters in [None, Some(Tensor::<2>::from_data(random("filters", &[4, 3]), &device))] {
        let features = if filters.is_some() { 4 } else { 1 };
        let of = |weight: Tensor<2>| {
            let past = Past { seen: seen.clone(), weight, filters: filters.clone() };
            let found = attend_in_turn(q.clone(), k.clone(), x.clone(), v.clone(), past.clone(), &over);
            let same = of_operations(q.clone(), k.clone(), x.clone(), v.clone(), past, &over);
            assert!((found.0.clone() - same.0).abs().max().into_scalar::<f32>() < 1e-6);
            assert!((found.1.clone() - same.1).abs().max().into_scalar::<f32>() < 1e-6);
            [found.0, found.1].map(|part| part.into_data().try_to_vec::<f32>().unwrap())
        };
        let plain = attend_with_weights(q.clone(), k.clone(), x.clone(), Some(v.clone()), &over);
        let none = of(Tensor::zeros([features, 8], &device));
        assert_eq!(none, [plain.0, plain.1].map(|part| part.into_data().try_to_vec::<f32>().unwrap()));
        assert_ne!(of(Tensor::from_data(random("u", &[features, 8]), &device)), none);
    }
}
