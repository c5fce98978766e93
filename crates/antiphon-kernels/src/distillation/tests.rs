//! The laws of a loss that a teacher has a part in.

use super::*;
use crate::loss::{LossOps, chunk_rows};
use antiphon_core::random::Key;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Device};

/// Logarithms `[N, V]` that are known.
struct Known(Vec<f32>, usize);

impl Teaching for Known {
    fn log_probs(&self, places: Range<usize>) -> Vec<f32> {
        self.0[places.start * self.1..places.end * self.1].to_vec()
    }
}

fn numbers(tensor: FlexTensor) -> Vec<f64> {
    tensor.into_data().convert_dtype(DType::F64).try_to_vec::<f64>().unwrap()
}

fn random(name: &str, dims: &[usize]) -> TensorData {
    let key = Key::from_seed(10).named(name);
    let n: usize = dims.iter().product();
    TensorData::new((0..n as u64).map(|i| key.normal(i) as f32).collect::<Vec<f32>>(), dims.to_vec())
}

fn teacher(share: f64, temperature: f64, [n, v]: [usize; 2]) -> Teacher {
    let says = random("teacher", &[n, v]).try_to_vec::<f32>().unwrap();
    Teacher { says: Arc::new(Known(says.iter().map(|x| 2.0 * x).collect(), v)), share, temperature }
}

struct Case {
    inputs: [TensorData; 3],
    targets: Arc<[TokenId]>,
}

impl Case {
    fn new(n: usize, v: usize, h: usize) -> Self {
        let targets = (0..n).map(|i| ((i * 31 + 2) % v) as TokenId).collect();
        Self { inputs: [random("s", &[n, h]), random("w", &[v, h]), random("b", &[v])], targets }
    }

    fn tensors(&self, dtype: DType) -> [FlexTensor; 3] {
        self.inputs.clone().map(|data| FlexTensor::from_data(data.convert_dtype(dtype)))
    }

    /// Loss, the teacher's summand, gradients of states, weight and bias.
    fn taught(&self, dtype: DType, smoothing: f32, teacher: Teacher) -> [Vec<f64>; 5] {
        let [s, w, b] = self.tensors(dtype);
        let (loss, soft, ds, dw, db) =
            Flex::taught_cross_entropy_gradients(s, w, b, self.targets.clone(), smoothing, teacher);
        [loss, soft, ds, dw, db].map(numbers)
    }

    /// Loss and the gradients, without a teacher.
    fn plain(&self, dtype: DType, smoothing: f32) -> [Vec<f64>; 4] {
        let [s, w, b] = self.tensors(dtype);
        let (loss, ds, dw, db) = Flex::cross_entropy_gradients(s, w, b, self.targets.clone(), smoothing);
        [loss, ds, dw, db].map(numbers)
    }
}

fn assert_close(one: &[f64], other: &[f64], tolerance: f64, what: &str) {
    assert_eq!(one.len(), other.len(), "{what}");
    let scale = other.iter().fold(1.0_f64, |most, x| most.max(x.abs()));
    for (a, b) in one.iter().zip(other) {
        assert!((a - b).abs() < tolerance * scale, "{what}: {a} is not {b}");
    }
}

#[test]
fn the_chunked_body_equals_the_portable_body() {
    let several = (600, 9000, 8);
    assert!(several.0 > chunk_rows(several.1));
    for (n, v, h) in [(1, 5, 3), (70, 37, 16), several] {
        let case = Case::new(n, v, h);
        for (smoothing, share, temperature) in [(0.0, 0.5, 1.0), (0.1, 0.3, 1.0), (0.1, 0.7, 2.5), (0.0, 1.0, 0.5)] {
            let of = |dtype| case.taught(dtype, smoothing, teacher(share, temperature, [n, v]));
            for (part, (fast, oracle)) in of(DType::F32).iter().zip(&of(DType::F64)).enumerate() {
                assert_close(fast, oracle, 2e-5, &format!("{n} {v} {h} {share} {temperature} part {part}"));
            }
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let case = Case::new(4, 6, 3);
    for (share, temperature) in [(0.4, 1.0), (0.7, 3.0), (1.0, 0.5)] {
        let of = |inputs: [TensorData; 3]| {
            let case = Case { inputs, targets: case.targets.clone() };
            case.taught(DType::F64, 0.2, teacher(share, temperature, [4, 6]))
        };
        let exact = of(case.inputs.clone());
        for input in 0..3 {
            let values = case.inputs[input].clone().convert_dtype(DType::F64).try_to_vec::<f64>().unwrap();
            for i in 0..values.len() {
                let moved = |by: f64| {
                    let (mut values, mut inputs) = (values.clone(), case.inputs.clone());
                    values[i] += by;
                    inputs[input] = TensorData::new(values, case.inputs[input].shape());
                    of(inputs)[0][0]
                };
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                assert!((slope - exact[input + 2][i]).abs() < 1e-7, "{share} {temperature}");
            }
        }
    }
}

#[test]
fn a_teacher_without_a_share_changes_no_bit() {
    for temperature in [1.0, 2.0] {
        for smoothing in [0.0, 0.1] {
            let case = Case::new(70, 37, 16);
            let [loss, _, ds, dw, db] = case.taught(DType::F32, smoothing, teacher(0.0, temperature, [70, 37]));
            assert!([loss, ds, dw, db] == case.plain(DType::F32, smoothing), "{temperature} {smoothing}");
        }
    }
}

/// As is one that is sure of the right tokens, whatever its share; or of none, as label smoothing of 1 would be.
#[test]
fn a_teacher_that_is_sure_is_the_plain_cross_entropy() {
    let (n, v) = (70, 37);
    let case = Case::new(n, v, 16);
    let mut sure = vec![f32::NEG_INFINITY; n * v];
    case.targets.iter().enumerate().for_each(|(i, &target)| sure[i * v + target as usize] = 0.0);
    let says: Arc<dyn Teaching> = Arc::new(Known(sure, v));
    let plain = case.plain(DType::F64, 0.0);
    for share in [0.25, 1.0] {
        let teacher = Teacher { says: says.clone(), share, temperature: 1.0 };
        let [loss, soft, ds, dw, db] = case.taught(DType::F32, 0.0, teacher);
        assert_close(&soft, &plain[0], 2e-5, "the teacher's summand");
        for (part, (taught, plain)) in [loss, ds, dw, db].iter().zip(&plain).enumerate() {
            assert_close(taught, plain, 2e-5, &format!("share {share} part {part}"));
        }
    }
}

/// Whoever holds what the teacher holds has nothing to learn; what remains is the entropy.
#[test]
fn a_student_that_holds_the_same_is_drawn_nowhere() {
    let (n, v) = (70, 37);
    let case = Case::new(n, v, 16);
    let [s, w, b] = case.tensors(DType::F32);
    let logits = portable_logits::<Flex>(s, w, b).0;
    let logits: Vec<f32> = numbers(logits).into_iter().map(|x| x as f32).collect();
    for temperature in [1.0, 4.0] {
        let says = Arc::new(Known(logits.clone(), v));
        let [_, soft, ds, dw, db] = case.taught(DType::F32, 0.1, Teacher { says, share: 1.0, temperature });
        for gradient in [ds, dw, db] {
            assert!(gradient.iter().all(|d| d.abs() < 2e-5), "{temperature}: {gradient:?}");
        }
        let entropy = |row: &[f32]| {
            let powers: Vec<f64> = row.iter().map(|&x| (f64::from(x) / temperature).exp()).collect();
            let z: f64 = powers.iter().sum();
            -powers.iter().map(|p| p / z * (p / z).ln()).sum::<f64>()
        };
        let all: f64 = logits.chunks_exact(v).map(entropy).sum();
        assert_close(&soft, &[temperature * temperature * all], 2e-5, "entropy");
    }
}

#[test]
fn the_graph_scales_the_gradient() {
    let device = Device::flex().autodiff();
    let leaf = |name, dims: &[usize]| Tensor::<2>::from_data(random(name, dims), &device).require_grad();
    let (states, weight) = (leaf("s", &[4, 3]), leaf("w", &[6, 3]));
    let taught = || {
        let projection =
            Projection { states: states.clone(), weight: weight.clone(), bias: None, targets: vec![1, 5, 0, 5] };
        taught_cross_entropy(projection, 0.1, teacher(0.5, 2.0, [4, 6]))
    };
    let gradient = |loss: Tensor<1>| weight.grad(&loss.backward()).unwrap().into_data().try_to_vec::<f32>().unwrap();
    let (once, twice) = (gradient(taught().loss), gradient(taught().loss * 2.0));
    assert!(once.iter().any(|x| x.abs() > 0.1));
    for (a, b) in once.iter().zip(twice) {
        assert!((2.0 * a - b).abs() < 1e-5);
    }
    assert!(taught().of_teacher.into_scalar::<f32>() > 0.0);
}
