//! Several looks at a memory, each by what the look before has made of the question (Sukhbaatar et al. 2015).

use std::sync::Arc;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use antiphon_kernels::linear;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Around, Beside, Encoded, Read};
use crate::attention::{Asked, Attention, AttentionConfig, Look, MemoryShape, shown};
use crate::initial::Initial;

/// Looks at what is read, one after another: with attention `a` and the question `u_k` before look `k`,
/// `u_{k+1} = H u_k + a(u_k)` (Sukhbaatar et al. 2015, layer-wise tying). The final state is the last `u`; what is read is handed on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HopsConfig {
    /// The source whose final state is the question; it must be as wide as what is read.
    #[schemars(length(min = 1), example = &"question")]
    pub query: String,
    /// How many looks.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 64))]
    pub hops: usize,
    /// Where a look goes.
    #[serde(default = "dot")]
    #[schemars(extend("examples" = [{"kind": "dot"}]))]
    pub attention: AttentionConfig,
    /// Whether all looks have the same weights.
    #[serde(default = "super::yes")]
    pub tied: bool,
}

fn three() -> usize {
    3
}

fn dot() -> AttentionConfig {
    AttentionConfig::Dot(Default::default())
}

impl HopsConfig {
    pub(super) fn problems(&self, read: Read, beside: Beside<'_>) -> Vec<Problem> {
        let mut problems = beside.problems(&self.query, read.width, "hops");
        let attention = match (&self.attention, read.width) {
            (AttentionConfig::None(_), _) => {
                let message = "`none` looks nowhere; choose another kind, as `dot`";
                vec![Problem { place: "kind".into(), message: message.into() }]
            }
            (attention, Some(width)) => {
                attention.problems(width, &MemoryShape { name: "what is read".into(), width }, "`query`")
            }
            (_, None) => Vec::new(),
        };
        problems.extend(attention.into_iter().map(|problem| problem.below("attention")));
        problems
    }

    pub(super) fn warnings(&self) -> Vec<Problem> {
        let idle = (!self.tied && self.hops == 1)
            .then(|| Problem { place: "tied".into(), message: "has no effect with a single look".into() });
        let penalty = (self.attention.coverage_penalty() > 0.0).then(|| Problem {
            place: "attention.coverage_penalty".into(),
            message: "has no effect: only the looks of a decoder are penalised".into(),
        });
        let own = self.attention.warnings().into_iter().map(|problem| problem.below("attention"));
        idle.into_iter().chain(penalty).chain(own).collect()
    }

    pub(super) fn init(&self, width: usize, key: Key, device: &Device) -> Hops {
        let look = |k: usize| {
            let key = key.numbered(k as u64);
            let attention = self.attention.init(width, width, key.named("attention"), device);
            Hop {
                attention: attention.expect("`none` is a problem of this stage"),
                keeps: Initial::GlorotUniform.weight([width, width], width, key.named("keeps"), device),
            }
        };
        let weights = (0..if self.tied { 1 } else { self.hops }).map(look).collect();
        Hops { weights, query: self.query.clone(), hops: self.hops }
    }
}

/// Looks, one after another.
#[derive(Module, Debug)]
pub(crate) struct Hops {
    /// Of each look, or of all of them.
    weights: Vec<Hop>,
    #[module(skip)]
    query: String,
    #[module(skip)]
    hops: usize,
}

#[derive(Module, Debug)]
struct Hop {
    attention: Attention,
    /// `[D, D]`: what of the question goes on.
    keeps: Param<Tensor<2>>,
}

impl Hops {
    pub(super) fn encode(&self, memory: Tensor<3>, lengths: Arc<[u32]>, around: &Around<'_>) -> Encoded {
        let [rows, steps, width] = memory.dims();
        let mut query = around.state(&self.query, width).unsqueeze_dim::<3>(1);
        let prepared: Vec<_> = self.weights.iter().map(|of| of.attention.prepare(memory.clone(), &lengths)).collect();
        let mut states: Vec<_> =
            self.weights.iter().zip(&prepared).map(|(of, prepared)| of.attention.start(prepared)).collect();
        let mut looks = Vec::new();
        for k in 0..self.hops {
            let i = k.min(self.weights.len() - 1);
            let Hop { attention, keeps } = &self.weights[i];
            let asked = Asked { weights: around.watch, ..Asked::default() };
            let state = std::mem::take(&mut states[i]);
            let Look { context, weights, state, .. } =
                attention.look(attention.query(query.clone()), &prepared[i], state, asked);
            states[i] = state;
            if around.watch {
                let weights = shown(weights, std::slice::from_ref(&prepared[i]));
                let data = burn::tensor::TensorData::new(weights, [rows, steps]);
                looks.push(Tensor::from_data(data, &memory.device().inner()));
            }
            query = linear(query, keeps.val()) + context;
        }
        let state = query.reshape([rows, width]);
        Encoded { looks, ..Encoded::of(memory, lengths, vec![state]) }
    }
}
