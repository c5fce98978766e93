//! Several memories: what a decoder looks at where there are several sources.

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_kernels::select_rows;
use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::encoder::Encoded;

/// What a decoder looks at where there are several sources, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MemoriesConfig {
    /// At one memory: that of `source`, behind it those of the streams in their order. They must be equally wide.
    Concatenated(ConcatenatedMemoriesConfig),
    /// At each memory by an attention of its own, with parameters of its own; contexts stand side by side (Zoph and Knight 2016).
    Each(EachMemoryConfig),
}

impl Default for MemoriesConfig {
    fn default() -> Self {
        MemoriesConfig::Concatenated(ConcatenatedMemoriesConfig {})
    }
}

/// Nothing to set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConcatenatedMemoriesConfig {}

/// Nothing to set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EachMemoryConfig {}

/// A memory that a decoder looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemoryShape {
    /// As a message calls it.
    pub(crate) name: String,
    /// `M`.
    pub(crate) width: usize,
}

impl MemoriesConfig {
    /// What is looked at, of the memories of some sources, by name.
    pub(crate) fn shapes(&self, sources: &[(&str, usize)]) -> Vec<MemoryShape> {
        let one = |&(_, width): &(&str, usize)| MemoryShape { name: "the memory".into(), width };
        let own = |&(name, width): &(&str, usize)| MemoryShape { name: format!("the memory of `{name}`"), width };
        match self {
            MemoriesConfig::Concatenated(_) => sources.first().map(one).into_iter().collect(),
            MemoriesConfig::Each(_) if sources.len() == 1 => sources.iter().map(one).collect(),
            MemoriesConfig::Each(_) => sources.iter().map(own).collect(),
        }
    }

    /// What cannot work with the memories of these sources.
    pub(crate) fn problems(&self, sources: &[(&str, usize)]) -> Vec<Problem> {
        let odd = match self {
            MemoriesConfig::Concatenated(_) => sources.iter().find(|(_, width)| *width != sources[0].1),
            MemoriesConfig::Each(_) => None,
        };
        let problem = |&(name, width): &(&str, usize)| {
            let (first, expected) = sources[0];
            let message = format!(
                "`concatenated` needs memories of one width, but that of `{first}` is {expected} wide and that of `{name}` \
                 {width}; make their encoders agree, or use `each`"
            );
            Problem { place: "kind".into(), message }
        };
        odd.map(problem).into_iter().collect()
    }

    /// What has no effect with so many sources.
    pub(crate) fn warnings(&self, sources: usize, attends: bool) -> Vec<Problem> {
        let why = match (self, sources) {
            (MemoriesConfig::Concatenated(_), _) => None,
            (MemoriesConfig::Each(_), 1) => Some("has no effect: there is a single source"),
            (MemoriesConfig::Each(_), _) => (!attends).then_some("has no effect: the decoder has no attention"),
        };
        why.map(|why| Problem { place: "kind".into(), message: why.into() }).into_iter().collect()
    }
}

/// One memory `[B, S, M]` of several, one behind another, with its real steps. The real steps of a row follow upon each other, so
/// that it depends on no padding; a single memory is taken as it is.
pub(crate) fn one_behind_another(sources: &[Encoded]) -> (Tensor<3>, Arc<[u32]>) {
    if let [only] = sources {
        return (only.memory.clone(), only.lengths.clone());
    }
    let rows = sources[0].lengths.len();
    let lengths: Arc<[u32]> = (0..rows).map(|b| sources.iter().map(|source| source.lengths[b]).sum()).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0).max(1) as usize;
    let mut numbers = Vec::with_capacity(rows * longest);
    for b in 0..rows {
        let mut first = 0;
        for source in sources {
            let steps = source.memory.dims()[1];
            let from = first + b * steps;
            numbers.extend((from..from + source.lengths[b] as usize).map(|step| step as u32));
            first += rows * steps;
        }
        // Nobody looks at what stands behind.
        numbers.resize((b + 1) * longest, 0);
    }
    let flat = |source: &Encoded| {
        let [rows, steps, width] = source.memory.dims();
        source.memory.clone().reshape([rows * steps, width])
    };
    let table = Tensor::cat(sources.iter().map(flat).collect(), 0);
    let width = table.dims()[1];
    (select_rows(table, &numbers).reshape([rows, longest, width]), lengths)
}
