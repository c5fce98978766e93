use antiphon_core::random::Key;
use burn::tensor::{DType, Device, TensorData};

use super::*;

/// Rows, steps, planes, bands and channels, then kernel and stride: windows wider than rows and bands, even ones, strides beyond the
/// window, several blocks.
const CASES: [([usize; 5], [usize; 2], [usize; 2]); 10] = [
    ([1, 1, 1, 1, 1], [1, 1], [1, 1]),
    ([2, 5, 1, 4, 3], [3, 3], [1, 1]),
    ([3, 7, 2, 5, 2], [3, 3], [2, 2]),
    ([2, 6, 3, 6, 2], [3, 3], [2, 2]),
    ([2, 3, 1, 3, 2], [7, 5], [1, 2]),
    ([2, 6, 2, 5, 2], [2, 4], [3, 1]),
    ([2, 7, 1, 7, 2], [1, 2], [3, 4]),
    ([1, 4, 1, 9, 1], [4, 3], [1, 5]),
    ([9, 23, 3, 40, 32], [3, 3], [2, 2]),
    ([3, 70, 32, 20, 17], [3, 3], [2, 2]),
];

fn numbers(name: &str, dims: &[usize]) -> TensorData {
    let key = Key::from_seed(9).named(name);
    let n: usize = dims.iter().product();
    TensorData::new((0..n as u64).map(|i| key.normal(i) as f32 * 0.7).collect::<Vec<f32>>(), dims.to_vec())
}

fn every_case(mut check: impl FnMut([usize; 5], &Convolution2d)) {
    for (dims, kernel, stride) in CASES {
        let [b, s, planes, ..] = dims;
        for kind in 0..4 {
            let lengths: Option<Arc<[u32]>> = match kind {
                0 => None,
                1 => Some((0..b).map(|i| ((i * 7 + 3) % (s + 1)) as u32).collect()),
                2 => Some(vec![0; b].into()),
                _ => Some((0..b).map(|i| if i == 0 { 0 } else { s as u32 }).collect()),
            };
            check(dims, &Convolution2d { planes, kernel, stride, lengths });
        }
    }
}

fn inputs([b, s, p, f, c]: [usize; 5], [k, l]: [usize; 2]) -> [TensorData; 3] {
    [numbers("x", &[b, s, p * f]), numbers("w", &[p * k * l, c]), numbers("b", &[c])]
}

/// `x` with NaN for padding.
fn stray(x: TensorData, run: &Convolution2d) -> TensorData {
    let (dims, mut x): (Vec<usize>, Vec<f32>) = (x.shape().to_vec(), x.try_to_vec().unwrap());
    for (row, n) in x.chunks_exact_mut(dims[1] * dims[2]).zip(run.real(dims[0], dims[1])) {
        row[n * dims[2]..].fill(f32::NAN);
    }
    TensorData::new(x, dims)
}

/// The output, then the gradients of all three inputs, by the body that the number type selects.
fn run_as(dtype: DType, inputs: [TensorData; 3], run: &Convolution2d) -> Vec<Vec<f64>> {
    fn doubles<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
        tensor.into_data().convert_dtype(DType::F64).try_to_vec().unwrap()
    }
    let device = Device::flex().autodiff();
    let [x, w, b] = inputs;
    let x = Tensor::<3>::from_data(x, (&device, dtype)).require_grad();
    let w = Tensor::<2>::from_data(w, (&device, dtype)).require_grad();
    let b = Tensor::<1>::from_data(b, (&device, dtype)).require_grad();
    let y = convolve_2d(x.clone(), w.clone(), b.clone(), run);
    let given = Tensor::<3>::from_data(numbers("g", &y.dims()), (&device.inner(), dtype));
    let grads = (y.clone() * Tensor::from_inner(given)).sum().backward();
    let (x, w, b) = (x.grad(&grads).unwrap(), w.grad(&grads).unwrap(), b.grad(&grads).unwrap());
    vec![doubles(y.inner()), doubles(x), doubles(w), doubles(b)]
}

/// Number by number, as the head of the module has it.
fn by_hand([b, s, p, f, c]: [usize; 5], inputs: &[TensorData; 3], run: &Convolution2d) -> Vec<f64> {
    let [x, w, bias] = inputs.clone().map(|data| data.convert_dtype(DType::F64).try_to_vec::<f64>().unwrap());
    let ([t, g], [k, l], [q, r]) = (run.outputs(s, f), run.kernel, run.stride);
    let within = |at: usize, before: usize, end: usize| at.checked_sub(before).filter(|at| *at < end);
    let mut y = Vec::new();
    for (row, n) in run.real(b, s).into_iter().enumerate() {
        let places = (0..t).flat_map(|t| (0..c).flat_map(move |c| (0..g).map(move |f| (t, c, f))));
        for (t, c_of, band) in places {
            let mut sum = bias[c_of];
            for (i, j) in (0..k).flat_map(|i| (0..l).map(move |j| (i, j))) {
                let (step, from) = (within(t * q + i, (k - 1) / 2, n), within(band * r + j, (l - 1) / 2, f));
                let (Some(step), Some(from)) = (step, from) else { continue };
                sum += (0..p)
                    .map(|p_of| x[(row * s + step) * p * f + p_of * f + from] * w[((p_of * k + i) * l + j) * c + c_of])
                    .sum::<f64>();
            }
            y.push(if t * q < n { sum } else { 0.0 });
        }
    }
    y
}

fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0_f64, |most, v| most.max(v.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 2e-5 * scale, "{what}, number {i}: {a} is not {b}");
    }
}

#[test]
fn both_bodies_are_the_equation_and_agree_in_their_gradients_whatever_the_padding_holds() {
    every_case(|dims, run| {
        let [x, w, b] = inputs(dims, run.kernel);
        let inputs = [stray(x, run), w, b];
        let (fast, portable) = (run_as(DType::F32, inputs.clone(), run), run_as(DType::F64, inputs.clone(), run));
        assert_close(&portable[0], &by_hand(dims, &inputs, run), &format!("{dims:?} {run:?}"));
        for (part, (fast, portable)) in fast.iter().zip(&portable).enumerate() {
            assert_close(fast, portable, &format!("{dims:?} {run:?}, part {part}"));
        }
    });
}

#[test]
fn gradients_agree_with_finite_differences() {
    every_case(|dims, run| {
        let [b, s, p, f, c] = dims;
        if b * s * p * f > 100 {
            return;
        }
        let exact = run_as(DType::F32, inputs(dims, run.kernel), run);
        let [t, g] = run.outputs(s, f);
        let given = numbers("g", &[b, t, c * g]).convert_dtype(DType::F64).try_to_vec::<f64>().unwrap();
        // Linear in each input: a difference of any size is exact.
        for input in 0..3 {
            let values = inputs(dims, run.kernel)[input].try_to_vec::<f32>().unwrap();
            for i in 0..values.len() {
                let moved = |by: f32| {
                    let (mut inputs, mut values) = (inputs(dims, run.kernel), values.clone());
                    values[i] += by;
                    inputs[input] = TensorData::new(values, inputs[input].shape());
                    by_hand(dims, &inputs, run).iter().zip(&given).map(|(y, g)| y * g).sum::<f64>()
                };
                let slope = moved(0.5) - moved(-0.5);
                assert!((slope - exact[1 + input][i]).abs() < 1e-4, "{dims:?} {run:?}, input {input}, number {i}");
            }
        }
    });
}

#[test]
fn a_row_has_the_same_bits_alone_and_padded_beside_others_on_any_number_of_threads() {
    for ([_, s, planes, f, c], kernel, stride) in CASES {
        let [_, w, b] = inputs([1, s, planes, f, c], kernel);
        let width = planes * f;
        let row = numbers("row", &[s, width]).try_to_vec::<f32>().unwrap();
        let run = |rows: usize, place: usize, steps: usize| {
            let mut x = numbers("others", &[rows, steps, width]).try_to_vec::<f32>().unwrap();
            x[place * steps * width..][..s * width].copy_from_slice(&row);
            let lengths = (0..rows).map(|b| if b == place { s } else { (b * 5) % (steps + 1) } as u32).collect();
            let run = Convolution2d { planes, kernel, stride, lengths: Some(lengths) };
            let x = Tensor::<3>::from_data(TensorData::new(x, [rows, steps, width]), &Device::flex());
            let w = Tensor::<2>::from_data(w.clone(), &Device::flex());
            let y = convolve_2d(x, w, Tensor::from_data(b.clone(), &Device::flex()), &run);
            let real = s.div_ceil(stride[0]);
            let y: Vec<f32> = y.narrow(0, place, 1).narrow(1, 0, real).into_data().try_to_vec().unwrap();
            y.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let alone = run(1, 0, s);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for (rows, place, more) in [(1, 0, 4), (2, 1, 0), (9, 4, 1)] {
                let found = pool.install(|| run(rows, place, s + more));
                assert_eq!(found, alone, "{s} {planes} {f} {c} {kernel:?}: row {place} of {rows}, {threads} threads");
            }
        }
    }
}
