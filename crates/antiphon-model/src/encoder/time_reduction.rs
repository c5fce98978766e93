//! A stage that makes one step of several.

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_kernels::{average_steps, zero_beyond};
use burn::module::Module;
use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Encoded, Read, StageShape, one_hot, too_wide};

/// Groups of steps, each of which becomes one; the last group of a source may lack some.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeReductionConfig {
    /// How many steps become one.
    #[schemars(range(min = 2, max = 64))]
    pub factor: usize,
    /// What they become.
    pub method: Reduction,
}

/// What a group of steps becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// All of them side by side, with zeros for those that are lacking (Chan et al. 2016).
    Concatenate,
    /// Their mean.
    Mean,
    /// The first of them.
    Skip,
}

impl Default for TimeReductionConfig {
    fn default() -> Self {
        Self { factor: 2, method: Reduction::Concatenate }
    }
}

impl TimeReductionConfig {
    pub(super) fn shape(&self, input: usize, read: Read) -> StageShape {
        let (times, planes) = match self.method {
            Reduction::Concatenate => (self.factor, 1),
            Reduction::Mean | Reduction::Skip => (1, read.planes),
        };
        let own = StageShape::of_steps(input.saturating_mul(times), None);
        StageShape { reduction: self.factor, planes, ..own }
    }

    pub(super) fn problems(&self, read: Read) -> Vec<Problem> {
        let remedy = "put a `projection` before it, or let `method` be `mean`";
        let wide = read.width.and_then(|input| too_wide(self.shape(input, read).memory, "factor", remedy));
        one_hot(read.width, "time_reduction").into_iter().chain(wide).collect()
    }

    pub(super) fn init(&self) -> TimeReduction {
        TimeReduction { factor: self.factor, method: self.method }
    }
}

/// Groups of steps become one step each.
#[derive(Module, Debug)]
pub(crate) struct TimeReduction {
    #[module(skip)]
    factor: usize,
    #[module(skip)]
    method: Reduction,
}

impl TimeReduction {
    /// `[B, S, M] → [B, ⌈S/factor⌉, M or factor · M]`.
    pub(super) fn encode(&self, memory: Tensor<3>, lengths: Arc<[u32]>) -> Encoded {
        let reduced = reduced(&lengths, self.factor);
        let memory = match self.method {
            Reduction::Mean => average_steps(memory, lengths, self.factor),
            Reduction::Skip => skip(memory, self.factor),
            Reduction::Concatenate => {
                let real: Vec<usize> = lengths.iter().map(|&length| length as usize).collect();
                let groups = groups(zero_beyond(memory, &real), self.factor);
                let [b, steps, factor, m] = groups.dims();
                groups.reshape([b, steps, factor * m])
            }
        };
        Encoded::of(memory, reduced, Vec::new())
    }
}

/// The lengths of rows of which every `factor` steps become one.
pub(super) fn reduced(lengths: &Arc<[u32]>, factor: usize) -> Arc<[u32]> {
    match factor {
        1 => lengths.clone(),
        _ => lengths.iter().map(|length| length.div_ceil(factor as u32)).collect(),
    }
}

/// Every `factor`-th step from the first on, `[B, ⌈S/factor⌉, M]`.
pub(super) fn skip(memory: Tensor<3>, factor: usize) -> Tensor<3> {
    let groups = groups(memory, factor);
    let [b, steps, _, m] = groups.dims();
    groups.narrow(2, 0, 1).reshape([b, steps, m])
}

/// Steps by `factor`, with zeros for those that the last group lacks: `[B, S, M] → [B, ⌈S/factor⌉, factor, M]`.
fn groups(memory: Tensor<3>, factor: usize) -> Tensor<4> {
    let [b, s, m] = memory.dims();
    let steps = s.div_ceil(factor);
    let lacking = steps * factor - s;
    let memory = match lacking {
        0 => memory,
        _ => {
            let zeros = Tensor::zeros([b, lacking, m], (&memory.device(), memory.dtype()));
            Tensor::cat(vec![memory, zeros], 1)
        }
    };
    memory.reshape([b, steps, factor, m])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn groups_of_real_steps_become_one_step_whatever_the_padding_holds() {
        // Steps 1 to 5 and their tenths; the second row has two real steps.
        let memory: Vec<f32> =
            (1..=10).flat_map(|i| [((i - 1) % 5 + 1) as f32, ((i - 1) % 5 + 1) as f32 / 10.0]).collect();
        let memory = Tensor::<3>::from_data(TensorData::new(memory, [2, 5, 2]), &Device::flex());
        let of = |factor: usize, method: Reduction| {
            let encoded = TimeReductionConfig { factor, method }.init().encode(memory.clone(), [5, 2].into());
            (encoded.lengths.to_vec(), encoded.memory.dims(), encoded.memory.into_data().try_to_vec::<f32>().unwrap())
        };
        let (lengths, dims, concatenated) = of(2, Reduction::Concatenate);
        assert_eq!((lengths, dims), (vec![3, 1], [2, 3, 4]));
        let (first, second) = concatenated.split_at(12);
        assert_eq!(first, [1.0, 0.1, 2.0, 0.2, 3.0, 0.3, 4.0, 0.4, 5.0, 0.5, 0.0, 0.0]);
        assert_eq!(second, [1.0, 0.1, 2.0, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let (lengths, dims, means) = of(3, Reduction::Mean);
        assert_eq!((lengths, dims), (vec![2, 1], [2, 2, 2]));
        let expected = [2.0, 0.2, 4.5, 0.45, 1.5, 0.15, 0.0, 0.0];
        assert!(means.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{means:?}");
        let (lengths, dims, skipped) = of(4, Reduction::Skip);
        assert_eq!((lengths, dims), (vec![2, 1], [2, 2, 2]));
        assert_eq!(skipped, [1.0, 0.1, 5.0, 0.5, 1.0, 0.1, 5.0, 0.5]);
    }
}
