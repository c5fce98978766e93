//! Additive attention whose looks follow upon each other: each hears where those before it have looked.
//!
//! `score(q_t, k_s) = v · tanh(q_t + k_s + Σ_f φ_tsf u_f)`, where the *features* `φ_ts` of a step of the memory are
//!
//! - its *coverage*, the sum of its weights in all looks before: one feature (Tu et al. 2016; See et al. 2017, eq. 10 and 11), or
//! - what filters make of its *location*, the weights `w` of the look before: `φ_tsf = Σ_i F_fi w_{t−1, s+i−r}`, with zeros outside the
//!   memory and filters of `2r + 1` numbers (Chorowski et al. 2015, eq. 8 and 9).
//!
//! Where all queries are known, all looks are one operation. On the CPU, rows are shared out among threads; a row goes through its looks
//! forward, and backward from the last to the first, where the gradient of what was seen is handed from each to the one before.

mod flex;
mod rows;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, ExtensionType, backend_extension};
use burn::tensor::Tensor;
use burn::tensor::module::conv1d;
use burn::tensor::ops::ConvOptions;

use super::{Inputs, Over, composed, inputs};
use crate::flex::serves;

/// What looks hear of those before them. Each of `N` heads has a part of its own of the parameters: row `b` has part `b mod N`, as of the
/// energy.
#[derive(Debug, Clone)]
pub struct Past {
    /// `[B, S]`: what was seen before the first of these looks, zero where the memory is padding: of a coverage the sum of the
    /// weights of all looks, of a location the weights of the last one.
    pub seen: Tensor<2>,
    /// `u` `[N·F, A]`: what a feature adds.
    pub weight: Tensor<2>,
    /// `F` `[N·F, 2r + 1]` of a location; `None` of a coverage, which is one feature as it is.
    pub filters: Option<Tensor<2>>,
}

/// One look after the other: queries `[B, T, A]` over keys `[C, S, A]` and memory `[C, S, M]` with an energy `[N·A]` give contexts
/// `[B, T, M]` and weights `[B, T, S]`, which are zero where the memory is padding. Both are differentiable, in everything but `over`.
///
/// # Panics
/// If shapes do not fit, or `T` or `S` is 0.
pub fn attend_in_turn(
    query: Tensor<3>,
    keys: Tensor<3>,
    memory: Tensor<3>,
    energy: Tensor<1>,
    past: Past,
    over: &Over,
) -> (Tensor<3>, Tensor<3>) {
    over.check(&query, &keys, &memory, Some(&energy));
    let ([b, _, a], [_, s, m]) = (query.dims(), memory.dims());
    assert_eq!(past.seen.dims(), [b, s], "what was seen by each row");
    let (parts, [features, width]) = (energy.dims()[0] / a, past.weight.dims());
    assert!(width == a && features > 0 && features.is_multiple_of(parts), "weight of the features");
    match &past.filters {
        None => assert_eq!(features, parts, "a coverage is one feature"),
        Some(filters) => {
            let [count, width] = filters.dims();
            assert!(count == features && width % 2 == 1, "filters {:?}", filters.dims());
        }
    }
    if !serves(&query) {
        return of_operations(query, keys, memory, energy, past, over);
    }
    let located = past.filters.is_some();
    let filters = past.filters.unwrap_or_else(|| Tensor::zeros([1, 1], &query.device().inner()));
    let heard = Heard {
        seen: past.seen.into_dispatch(),
        weight: past.weight.into_dispatch(),
        filters: filters.into_dispatch(),
        located,
    };
    let inputs = inputs(query, keys, memory, Some(energy));
    let packed = <Dispatch as InTurnOps>::attend_in_turn(inputs, heard, over.clone());
    let packed = Tensor::<3>::from_dispatch(packed);
    (packed.clone().narrow(2, 0, m), packed.narrow(2, m, s))
}

/// The operation made of tensor operations: what is heard is a part of the keys.
fn of_operations(
    query: Tensor<3>,
    keys: Tensor<3>,
    memory: Tensor<3>,
    energy: Tensor<1>,
    past: Past,
    over: &Over,
) -> (Tensor<3>, Tensor<3>) {
    let ([b, t, a], [_, s, _]) = (query.dims(), keys.dims());
    let parts = energy.dims()[0] / a;
    let f = past.weight.dims()[0] / parts;
    let weight = past.weight.reshape([1, parts, f, a]).expand([b / parts, parts, f, a]).reshape([b, f, a]);
    let features = |seen: Tensor<2>| match &past.filters {
        None => seen.unsqueeze_dim::<3>(2),
        Some(filters) => {
            let width = filters.dims()[1];
            let filters = filters.clone().reshape([parts * f, 1, width]);
            let options = ConvOptions::new([1], [width / 2], [1], parts);
            conv1d(seen.reshape([b / parts, parts, s]), filters, None, options).reshape([b, f, s]).swap_dims(1, 2)
        }
    };
    let own = Over { lengths: (0..b).map(|row| over.row(row, s).1 as u32).collect(), owners: None };
    let (keys, memory) = (over.rows_of(keys), over.rows_of(memory));
    let (mut seen, mut looks) = (past.seen, Vec::with_capacity(t));
    for query in query.split(1, 1) {
        let keys = keys.clone() + features(seen.clone()).matmul(weight.clone());
        let (context, weights) = composed(query, keys, memory.clone(), Some(energy.clone()), &own);
        let looked = weights.clone().reshape([b, s]);
        seen = if past.filters.is_some() { looked } else { seen + looked };
        looks.push((context, weights));
    }
    let (contexts, weights) = looks.into_iter().unzip();
    (Tensor::cat(contexts, 1), Tensor::cat(weights, 1))
}

/// Tensors of what is heard, beside those of the attention.
#[derive(Debug, Clone, ExtensionType)]
pub(crate) struct Heard<B: Backend> {
    seen: FloatTensor<B>,
    weight: FloatTensor<B>,
    /// A dummy unless `located`.
    filters: FloatTensor<B>,
    located: bool,
}

/// The operation on plain slices, as Burn's backends see it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait InTurnOps: Backend {
    /// → contexts, then weights: `[B, T, M + S]`
    fn attend_in_turn(
        #[extension_type] inputs: Inputs<Self>,
        #[extension_type] heard: Heard<Self>,
        over: Over,
    ) -> FloatTensor<Self>;
}

/// A backend that has the operation.
trait Body: InTurnOps {
    /// `gradient` and `packed`: of contexts and weights → the gradients of query, keys, memory, energy, what was seen, weight and
    /// filters
    fn backward(
        gradient: FloatTensor<Self>,
        inputs: Inputs<Self>,
        heard: Heard<Self>,
        over: &Over,
        packed: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 7];
}

#[derive(Debug)]
struct InTurnNode;

impl<B: Body> Backward<B, 7> for InTurnNode {
    type State = (Inputs<B>, Heard<B>, Over, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 7>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (inputs, heard, over, packed) = ops.state;
        let gradients = B::backward(gradient, inputs, heard, &over, packed);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Body, C: CheckpointStrategy> InTurnOps for Autodiff<B, C> {
    fn attend_in_turn(inputs: Inputs<Self>, heard: Heard<Self>, over: Over) -> FloatTensor<Self> {
        let ((query, q), (keys, k)) = (inputs.query.into_parts(), inputs.keys.into_parts());
        let ((memory, m), (energy, e)) = (inputs.memory.into_parts(), inputs.energy.into_parts());
        let ((seen, s), (weight, w)) = (heard.seen.into_parts(), heard.weight.into_parts());
        let (filters, f) = heard.filters.into_parts();
        let inputs = Inputs { query, keys, memory, energy, additive: true };
        let heard = Heard { seen, weight, filters, located: heard.located };
        match InTurnNode.prepare::<C>([q, k, m, e, s, w, f]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let packed = B::attend_in_turn(inputs.clone(), heard.clone(), over.clone());
                prep.finish((inputs, heard, over, packed.clone()), packed)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::attend_in_turn(inputs, heard, over)),
        }
    }
}

#[cfg(test)]
mod tests;
