//! A layer of the query-reduction network as one operation, forward and backward (Seo et al. 2017, "Query-reduction networks for
//! question answering").
//!
//! Each sentence of a text turns a question into an easier one, or leaves it as it is. With `x_t` a sentence, `q_t` what is asked at it and
//! `p_t` a candidate, which the caller makes of both:
//!
//! - `z_t = σ(w_1 · (x_t ⊙ q_t) + b_1)`, the update gate: whether the sentence says anything to the question;
//! - `r_t = σ(w_2 · (x_t ⊙ q_t) + b_2)`, the reset gate, or 1 without one; both are single numbers;
//! - `f_t = z_t r_t tanh(p_t) + (1 − z_t) f_{t−1}`, forward in time, from zero;
//! - `g_t = z_t r_t tanh(p_t) + (1 − z_t) g_{t+1}`, backward in time, from zero.
//!
//! A step beyond a row's length carries the state, as if its `z_t` were 0.

mod flex;
mod rows;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, ExtensionType, backend_extension};
use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::{Bool, Tensor};

use crate::convolution::zero_beyond;
use crate::flex::serves;
use crate::linear::linear;
use crate::rows::{first_rows, select_rows};

/// What a layer reads: `N ≥ 1` sentences of `B` texts, `D` numbers each, and its parameters.
#[derive(Debug, Clone)]
pub struct QueryReduction {
    /// `x`: `[B, N, D]`.
    pub sentences: Tensor<3>,
    /// `q`: `[B, N, D]`, or `[B, 1, D]` if the same is asked at every sentence.
    pub queries: Tensor<3>,
    /// `p`: `[B, N, D]`, before the hyperbolic tangent.
    pub candidates: Tensor<3>,
    /// `w`: `[G, D]`, of the update gate and, if `G = 2`, of the reset gate.
    pub weight: Tensor<2>,
    /// `b`: `[G]`.
    pub bias: Tensor<1>,
}

/// How to run, beside the tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reduction {
    /// `[B]`: sentences of each row that are real.
    pub lengths: Arc<[u32]>,
    /// Backward in time as well.
    pub both: bool,
}

impl Reduction {
    /// How many of `steps` steps of each row are real.
    fn real(&self, steps: usize) -> Vec<usize> {
        self.lengths.iter().map(|&n| (n as usize).min(steps)).collect()
    }
}

/// The result of [`reduce_query`]: sliced on demand, since a slice costs a pass over its gradient.
#[derive(Debug, Clone)]
pub struct Reduced {
    /// `[B·N, D]`: the sequence, row by row; behind it, of both directions, the final states `[B, D]`.
    packed: Tensor<2>,
    batch: usize,
    steps: usize,
    both: bool,
}

impl Reduced {
    /// `[B, N, D]`: `f_t`, or `f_t + g_t` of both directions. Padded steps repeat the final state; of a row without a step all are zero.
    pub fn sequence(&self) -> Tensor<3> {
        let (packed, width) = (self.packed.clone(), self.packed.dims()[1]);
        let sequence = if self.both { first_rows(packed, self.batch * self.steps) } else { packed };
        sequence.reshape([self.batch, self.steps, width])
    }

    /// `[B, D]`: the final state, which is `f` at a row's last real step, or zero.
    pub fn state(&self) -> Tensor<2> {
        let last = |row: usize| match self.both {
            true => self.batch * self.steps + row,
            false => row * self.steps + self.steps - 1,
        };
        let numbers: Vec<u32> = (0..self.batch).map(|row| last(row) as u32).collect();
        select_rows(self.packed.clone(), &numbers)
    }
}

/// Runs a layer over all sentences. Differentiable in all tensors; what stands beyond a row's length may be anything.
///
/// On the CPU what is made of a row has the same bits whatever stands beside it, and however wide the padding.
///
/// # Panics
/// If shapes do not fit.
pub fn reduce_query(tensors: QueryReduction, run: &Reduction) -> Reduced {
    let [batch, steps, width] = tensors.sentences.dims();
    assert!(steps > 0 && width > 0, "sentences {:?}", tensors.sentences.dims());
    assert_eq!(run.lengths.len(), batch, "lengths");
    check(&tensors.sentences, &tensors.queries, &tensors.weight, &tensors.bias);
    assert_eq!(tensors.candidates.dims(), [batch, steps, width], "candidates");
    let packed = match serves(&tensors.sentences) {
        true => Tensor::from_dispatch(<Dispatch as ReductionOps>::reduce(tensors.into(), run.clone())),
        false => of_operations(tensors, run),
    };
    Reduced { packed, batch, steps, both: run.both }
}

/// The gates `[B, N, G]` of a layer, zero beyond a row's length: `z_t` and, if there is one, `r_t`. Not differentiable. The tensors are
/// those of [`QueryReduction`], `lengths` those of [`Reduction`].
///
/// # Panics
/// If shapes do not fit.
pub fn query_gates(
    sentences: Tensor<3>,
    queries: Tensor<3>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    lengths: &[u32],
) -> Tensor<3> {
    check(&sentences, &queries, &weight, &bias);
    let real: Vec<usize> = lengths.iter().map(|&n| n as usize).collect();
    let sums = gate_sums(sentences.inner(), queries.inner(), weight.inner(), bias.inner(), &real);
    zero_beyond(sigmoid(sums), &real)
}

/// Panics unless the shapes are those that [`QueryReduction`] tells of.
fn check(sentences: &Tensor<3>, queries: &Tensor<3>, weight: &Tensor<2>, bias: &Tensor<1>) {
    let ([b, n, d], [gates]) = (sentences.dims(), bias.dims());
    assert!(queries.dims() == [b, n, d] || queries.dims() == [b, 1, d], "queries {:?} of {b} rows", queries.dims());
    assert!((1..=2).contains(&gates), "{gates} gates");
    assert_eq!(weight.dims(), [gates, d], "weight of the gates");
}

/// `[B, N, G]`: what the gates are the logistic function of.
fn gate_sums(
    sentences: Tensor<3>,
    queries: Tensor<3>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    real: &[usize],
) -> Tensor<3> {
    let ([_, n, _], [gates]) = (sentences.dims(), bias.dims());
    let queries = if queries.dims()[1] == n { zero_beyond(queries, real) } else { queries };
    linear(zero_beyond(sentences, real) * queries, weight.transpose()) + bias.reshape([1, 1, gates])
}

/// The operation made of tensor operations: every state is a weighted sum of all candidates, with weights `[B, N, N]` from sums of
/// `log (1 − z)`, as the paper computes it in parallel (section 3.2).
fn of_operations(tensors: QueryReduction, run: &Reduction) -> Tensor<2> {
    let QueryReduction { sentences, queries, candidates, weight, bias } = tensors;
    let ([b, n, d], [gates]) = (sentences.dims(), bias.dims());
    let (real, device) = (run.real(n), sentences.device().inner());
    let sums = gate_sums(sentences, queries, weight, bias, &real);
    let update = sums.clone().narrow(2, 0, 1);
    // `log (1 − z)`; a padded step keeps all.
    let kept = zero_beyond(log_sigmoid(-update.clone()), &real);
    let taken = match gates {
        1 => sigmoid(update),
        _ => sigmoid(update) * sigmoid(sums.narrow(2, 1, 1)),
    };
    let taken = zero_beyond(taken * crate::tanh(zero_beyond(candidates, &real)), &real);
    let up_to = kept.clone().cumsum(1);
    let past = kept_between(up_to.clone(), Tensor::tril_mask([n, n], 0, &device));
    let forward = past.clone().matmul(taken.clone());
    if !run.both {
        return forward.reshape([b * n, d]);
    }
    let before = up_to - kept;
    let ahead = kept_between(-before, Tensor::triu_mask([n, n], 0, &device));
    let last = forward.clone().narrow(1, n - 1, 1).reshape([b, d]);
    let sequence = (forward + ahead.matmul(taken)).reshape([b * n, d]);
    Tensor::cat(vec![sequence, last], 0)
}

/// `exp(s_t − s_u)` of sums `s` `[B, N, 1]`, zero where `beyond` `[N, N]`: `[B, N, N]`.
fn kept_between(sums: Tensor<3>, beyond: Tensor<2, Bool>) -> Tensor<3> {
    let [b, n, _] = sums.dims();
    let between = sums.clone() - sums.swap_dims(1, 2);
    between.mask_fill(beyond.unsqueeze_dim::<3>(0).expand([b, n, n]), -1e30).exp()
}

/// Tensors of one layer.
#[derive(Debug, Clone, ExtensionType)]
pub(crate) struct Inputs<B: Backend> {
    sentences: FloatTensor<B>,
    queries: FloatTensor<B>,
    candidates: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
}

impl From<QueryReduction> for Inputs<Dispatch> {
    fn from(tensors: QueryReduction) -> Self {
        Self {
            sentences: tensors.sentences.into_dispatch(),
            queries: tensors.queries.into_dispatch(),
            candidates: tensors.candidates.into_dispatch(),
            weight: tensors.weight.into_dispatch(),
            bias: tensors.bias.into_dispatch(),
        }
    }
}

/// The operation on plain slices, as Burn's backends see it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait ReductionOps: Backend {
    /// → the packed sequence of [`Reduced`]
    fn reduce(#[extension_type] inputs: Inputs<Self>, run: Reduction) -> FloatTensor<Self>;
}

/// A backend that has the operation.
trait Body: ReductionOps {
    /// → (packed, the inputs with the hyperbolic tangent of the candidates, gates `[B, N, G]`)
    fn forward(inputs: Inputs<Self>, run: &Reduction) -> (FloatTensor<Self>, Inputs<Self>, FloatTensor<Self>);

    /// From the gradient of the packed sequence, and what `forward` left → the gradients of sentences, queries, candidates, weight and
    /// bias
    fn backward(
        gradient: FloatTensor<Self>,
        inputs: Inputs<Self>,
        gates: FloatTensor<Self>,
        run: &Reduction,
    ) -> [FloatTensor<Self>; 5];
}

#[derive(Debug)]
struct ReductionNode;

impl<B: Body> Backward<B, 5> for ReductionNode {
    type State = (Inputs<B>, FloatTensor<B>, Reduction);

    fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (inputs, gates, run) = ops.state;
        for (parent, gradient) in ops.parents.into_iter().zip(B::backward(gradient, inputs, gates, &run)) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Body, C: CheckpointStrategy> ReductionOps for Autodiff<B, C> {
    fn reduce(inputs: Inputs<Self>, run: Reduction) -> FloatTensor<Self> {
        let ((sentences, x), (queries, q)) = (inputs.sentences.into_parts(), inputs.queries.into_parts());
        let (candidates, p) = inputs.candidates.into_parts();
        let ((weight, w), (bias, b)) = (inputs.weight.into_parts(), inputs.bias.into_parts());
        let inputs = Inputs { sentences, queries, candidates, weight, bias };
        match ReductionNode.prepare::<C>([x, q, p, w, b]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (packed, inputs, gates) = B::forward(inputs, &run);
                prep.finish((inputs, gates, run), packed)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::reduce(inputs, run)),
        }
    }
}

#[cfg(test)]
mod tests;
