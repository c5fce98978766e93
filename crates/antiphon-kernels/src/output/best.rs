//! The best tokens on a device that the host should not read all logits of.

use antiphon_core::TokenId;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, Shape, Slice, TensorMetadata, backend_extension};
use burn::tensor::{IntDType, Tensor};

use crate::loss::portable_logits;
use crate::weight::host;

/// A row's best tokens with their logits, best first; of equal ones the smaller id first.
pub(super) struct Best {
    /// The logarithm of the sum of all exponentials.
    pub(super) log_z: f32,
    pub(super) tokens: Vec<(f32, TokenId)>,
}

/// The `k` best tokens of each state of `[B, H]` under `[V, H]` and `[V]`, with `1 ≤ k ≤ V`.
pub(super) fn best(states: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, k: usize) -> Vec<Best> {
    let (states, weight, bias) = (states.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    let found = host(Tensor::<2>::from_dispatch(<Dispatch as BestOps>::best_of(states, weight, bias, k)));
    let rows = found.chunks_exact(2 * k + 1);
    rows.map(|row| {
        let tokens = row[1..=k].iter().zip(&row[k + 1..]).map(|(&logit, &id)| (logit, id as TokenId)).collect();
        Best { log_z: row[0], tokens }
    })
    .collect()
}

/// The operation as Burn's backends see it.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"))]
pub(crate) trait BestOps: Backend {
    /// → `[B, 2k + 1]`: the logarithm of the sum of all exponentials, the `k` best logits, and their tokens
    fn best_of(
        states: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        k: usize,
    ) -> FloatTensor<Self> {
        portable::<Self>(states, weight, bias, k)
    }
}

impl BestOps for Flex {}

/// The same of backend operations. The ids of equal logits may come in any order.
pub(crate) fn portable<B: Backend>(
    states: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    k: usize,
) -> FloatTensor<B> {
    let (logits, _) = portable_logits::<B>(states, weight, bias);
    let (rows, dtype) = (logits.shape()[0], logits.dtype());
    let first = [Slice::from(0..rows), Slice::from(0..1)];
    // A token's logit less its log-probability is the logarithm of the sum.
    let log_p = B::float_slice(B::log_softmax(logits.clone(), 1), &first);
    let log_z = B::float_sub(B::float_slice(logits.clone(), &first), log_p);
    let (values, ids) = B::float_topk_with_indices(logits, 1, k, IntDType::I32);
    let ids = B::int_into_float(ids, dtype.into());
    B::float_reshape(B::float_cat(vec![log_z, values, ids], 1), Shape::new([rows, 2 * k + 1]))
}
