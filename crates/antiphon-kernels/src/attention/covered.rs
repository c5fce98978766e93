//! Additive attention that hears where it has looked before: a step at a time, with the weights on the graph.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::flex::{Look, part, sum_rows};
use super::{Inputs, Over, composed, inputs, is_in_parts, rows};
use crate::flex::{dense, serves, slice, wrap};
use crate::memory::zeros;

/// Where a row has looked before, and what that counts for in its scores.
#[derive(Debug, Clone)]
pub struct Coverage {
    /// `c` `[B, S]`: the sum of the weights of all steps before.
    pub sums: Tensor<2>,
    /// `w` `[N·A]`, in parts as the energy.
    pub weight: Tensor<1>,
}

/// As [`attend`](super::attend) with the scores `v · tanh(q + k_s + c_s w)`, for one query a row: contexts `[B, 1, M]` and weights
/// `[B, 1, S]`, which are zero where the memory is padding. Both are differentiable, in everything but `over`.
///
/// # Panics
/// If shapes do not fit, or `T` is not 1.
pub fn attend_covered(
    query: Tensor<3>,
    keys: Tensor<3>,
    memory: Tensor<3>,
    energy: Tensor<1>,
    coverage: Coverage,
    over: &Over,
) -> (Tensor<3>, Tensor<3>) {
    over.check(&query, &keys, &memory, Some(&energy));
    let ([b, t, a], [_, s, m]) = (query.dims(), memory.dims());
    assert_eq!((t, coverage.sums.dims()), (1, [b, s]), "one query a row, and its coverage");
    assert!(is_in_parts(&coverage.weight, a, b), "weight of the coverage");
    if !serves(&query) {
        return of_operations(query, keys, memory, energy, coverage, over);
    }
    let (sums, weight) = (coverage.sums.into_dispatch(), coverage.weight.into_dispatch());
    let inputs = inputs(query, keys, memory, Some(energy));
    let packed = <Dispatch as CoveredOps>::attend_covered(inputs, sums, weight, over.clone());
    let packed = Tensor::<3>::from_dispatch(packed);
    (packed.clone().narrow(2, 0, m), packed.narrow(2, m, s))
}

/// The operation made of tensor operations: the coverage is a part of the keys.
fn of_operations(
    query: Tensor<3>,
    keys: Tensor<3>,
    memory: Tensor<3>,
    energy: Tensor<1>,
    coverage: Coverage,
    over: &Over,
) -> (Tensor<3>, Tensor<3>) {
    let ([b, _, a], [_, s, _]) = (query.dims(), keys.dims());
    let parts = coverage.weight.dims()[0] / a;
    let weight = coverage.weight.reshape([1, parts, a]).expand([b / parts, parts, a]).reshape([b, 1, a]);
    let keys = over.rows_of(keys) + coverage.sums.unsqueeze_dim::<3>(2) * weight;
    let own = Over { lengths: (0..b).map(|row| over.row(row, s).1 as u32).collect(), owners: None };
    composed(query, keys, over.rows_of(memory), Some(energy), &own)
}

/// The operation on plain slices, as Burn's backends see it.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait CoveredOps: Backend {
    /// → contexts, then weights: `[B, 1, M + S]`
    fn attend_covered(
        #[extension_type] inputs: Inputs<Self>,
        sums: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        over: Over,
    ) -> FloatTensor<Self>;
}

/// A backend that has the operation.
trait Body: CoveredOps {
    /// `gradient` and `packed`: of contexts and weights → the gradients of query, keys, memory, energy, sums and weight
    fn backward(
        gradient: FloatTensor<Self>,
        inputs: Inputs<Self>,
        coverage: (FloatTensor<Self>, FloatTensor<Self>),
        over: &Over,
        packed: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 6];
}

#[derive(Debug)]
struct CoveredNode;

impl<B: Body> Backward<B, 6> for CoveredNode {
    type State = (Inputs<B>, (FloatTensor<B>, FloatTensor<B>), Over, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 6>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (inputs, coverage, over, packed) = ops.state;
        let gradients = B::backward(gradient, inputs, coverage, &over, packed);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Body, C: CheckpointStrategy> CoveredOps for Autodiff<B, C> {
    fn attend_covered(
        inputs: Inputs<Self>,
        sums: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        over: Over,
    ) -> FloatTensor<Self> {
        let ((query, q), (keys, k)) = (inputs.query.into_parts(), inputs.keys.into_parts());
        let ((memory, m), (energy, e)) = (inputs.memory.into_parts(), inputs.energy.into_parts());
        let ((sums, c), (weight, w)) = (sums.into_parts(), weight.into_parts());
        let inputs = Inputs { query, keys, memory, energy, additive: true };
        match CoveredNode.prepare::<C>([q, k, m, e, c, w]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let packed = B::attend_covered(inputs.clone(), sums.clone(), weight.clone(), over.clone());
                prep.finish((inputs, (sums, weight), over, packed.clone()), packed)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::attend_covered(inputs, sums, weight, over)),
        }
    }
}

/// `query + c · weight`.
fn shift(query: &[f32], weight: &[f32], c: f32, shifted: &mut [f32]) {
    shifted.iter_mut().zip(query).zip(weight).for_each(|((to, q), w)| *to = q + c * w);
}

impl CoveredOps for Flex {
    fn attend_covered(inputs: Inputs<Self>, sums: FlexTensor, weight: FlexTensor, over: Over) -> FlexTensor {
        let (inputs, sums, weight) = (inputs.dense(), dense(sums), dense(weight));
        let look = Look::new(&inputs, &over);
        let (s, a, m) = (look.s, look.a, look.m);
        let all_energies = look.energy.expect("additive scores");
        let mut packed = zeros(look.b * (m + s));
        packed.par_chunks_exact_mut(m + s).enumerate().for_each(|(b, packed)| {
            let (context, weights) = packed.split_at_mut(m);
            let (keys, memory, real) = look.row(b);
            let (query, sums) = (&look.query[b * a..][..a], &slice(&sums)[b * s..][..real]);
            let (energy, weight) = (part(all_energies, b, a), part(slice(&weight), b, a));
            let weights = &mut weights[..real];
            let mut shifted = vec![0.0; a];
            for ((&c, key), score) in sums.iter().zip(keys.chunks_exact(a)).zip(weights.chunks_exact_mut(1)) {
                shift(query, weight, c, &mut shifted);
                rows::energies(&shifted, key, energy, score);
            }
            rows::softmax(weights);
            rows::weighted_sum(weights, memory, context);
        });
        wrap(packed, [look.b, 1, m + s])
    }
}

impl Body for Flex {
    fn backward(
        gradient: FlexTensor,
        inputs: Inputs<Self>,
        (sums, weight): (FlexTensor, FlexTensor),
        over: &Over,
        packed: FlexTensor,
    ) -> [FlexTensor; 6] {
        assert!(over.owners.is_none(), "rows that share a memory are not trained");
        let (inputs, sums, weight) = (inputs.dense(), dense(sums), dense(weight));
        let (gradient, packed) = (dense(gradient), dense(packed));
        let look = Look::new(&inputs, over);
        let (b, s, a, m) = (look.b, look.s, look.a, look.m);
        let all_energies = look.energy.expect("additive scores");
        let (mut dk, mut dm, mut dc) = (zeros(b * s * a), zeros(b * s * m), zeros(b * s));
        // Of query, energy and the coverage's weight, side by side in each row.
        let mut vectors = zeros(b * 3 * a);
        let written = dk.par_chunks_exact_mut(s * a).zip(dm.par_chunks_exact_mut(s * m));
        let written = written.zip(dc.par_chunks_exact_mut(s)).zip(vectors.par_chunks_exact_mut(3 * a));
        written.enumerate().for_each(|(b, (((dk, dm), dc), vectors))| {
            let (keys, memory, real) = look.row(b);
            let (query, sums) = (&look.query[b * a..][..a], &slice(&sums)[b * s..][..real]);
            let (energy, weight) = (part(all_energies, b, a), part(slice(&weight), b, a));
            let (of_context, of_weights) = slice(&gradient)[b * (m + s)..][..m + s].split_at(m);
            let weights = &slice(&packed)[b * (m + s) + m..][..real];
            let (dq, rest) = vectors.split_at_mut(a);
            let (de, dw) = rest.split_at_mut(a);
            // Of the weights, then of the scores.
            let mut d = vec![0.0; real];
            rows::dots(of_context, memory, &mut d);
            d.iter_mut().zip(of_weights).for_each(|(d, given)| *d += given);
            rows::softmax_backward(weights, &mut d);
            for (dm, &weight) in dm.chunks_exact_mut(m).zip(weights) {
                dm.iter_mut().zip(of_context).for_each(|(dm, d)| *dm = weight * d);
            }
            let (mut shifted, mut dshifted) = (vec![0.0; a], vec![0.0; a]);
            let keys = keys.chunks_exact(a).zip(dk.chunks_exact_mut(a));
            for (((d, &c), dc), (key, dk)) in d.chunks_exact(1).zip(sums).zip(dc).zip(keys) {
                shift(query, weight, c, &mut shifted);
                dshifted.fill(0.0);
                rows::energies_backward(d, &shifted, key, energy, &mut dshifted, dk, de);
                rows::weighted_sum(&[1.0], &dshifted, dq);
                rows::weighted_sum(&[c], &dshifted, dw);
                rows::dots(weight, &dshifted, std::slice::from_mut(dc));
            }
        });
        let of = |place: usize| -> Vec<f32> {
            vectors.chunks_exact(3 * a).flat_map(|row| &row[place * a..][..a]).copied().collect()
        };
        let summed = |place: usize, width: usize| wrap(sum_rows(&of(place), width), [width]);
        let (energy, weight) = (summed(1, all_energies.len()), summed(2, slice(&weight).len()));
        let (query, keys) = (wrap(of(0), [b, 1, a]), wrap(dk, [b, s, a]));
        [query, keys, wrap(dm, [b, s, m]), energy, wrap(dc, [b, s]), weight]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::tests::random;
    use burn::tensor::Device;

    fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    /// Contexts, weights and all gradients, by the slices or by tensor operations.
    fn found([b, s, a, m]: [usize; 4], heads: usize, lengths: &[u32], fused: bool) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let over = Over { lengths: lengths.into(), owners: None };
        let (q, k, x) =
            (random("q", [b, 1, a], &device), random("k", [b, s, a], &device), random("m", [b, s, m], &device));
        let (v, w) = (random("v", [heads * a], &device), random("w", [heads * a], &device));
        let c = random("c", [b, s], &device);
        let coverage = Coverage { sums: c.clone(), weight: w.clone() };
        let run = if fused { attend_covered } else { of_operations };
        let (contexts, weights) = run(q.clone(), k.clone(), x.clone(), v.clone(), coverage, &over);
        let of_contexts = Tensor::from_inner(random("d", [b, 1, m], &device.clone().inner()));
        let of_weights = Tensor::from_inner(random("e", [b, 1, s], &device.clone().inner()));
        let grads = ((contexts.clone() * of_contexts).sum() + (weights.clone() * of_weights).sum()).backward();
        let mut found = vec![numbers(contexts), numbers(weights)];
        found.extend([&q, &k, &x].map(|x| numbers(x.grad(&grads).unwrap())));
        found.extend([&v, &w].map(|x| numbers(x.grad(&grads).unwrap())));
        found.push(numbers(c.grad(&grads).unwrap()));
        found
    }

    #[test]
    fn values_and_gradients_are_those_of_tensor_operations() {
        for (sizes, heads, lengths) in [
            ([1, 1, 1, 1], 1, vec![1]),
            ([3, 4, 33, 70], 1, vec![4, 1, 0]),
            ([6, 5, 16, 9], 2, vec![5, 5, 2, 2, 0, 0]),
            ([6, 5, 7, 9], 3, vec![1, 1, 1, 4, 4, 4]),
        ] {
            let (ours, oracle) = (found(sizes, heads, &lengths, true), found(sizes, heads, &lengths, false));
            for (part, (ours, oracle)) in ours.iter().zip(&oracle).enumerate() {
                assert_eq!(ours.len(), oracle.len());
                for (x, y) in ours.iter().zip(oracle) {
                    assert!((x - y).abs() < 2e-5 * y.abs().max(1.0), "{sizes:?} {part}: {x} is not {y}");
                }
            }
        }
    }

    #[test]
    fn what_was_looked_at_counts_and_without_a_weight_it_does_not() {
        let device = Device::flex();
        let (q, k, x) =
            (random("q", [2, 1, 8], &device), random("k", [2, 3, 8], &device), random("m", [2, 3, 5], &device));
        let (v, over) = (random("v", [8], &device), Over { lengths: [3, 2].into(), owners: Some([1, 0].into()) });
        let of = |weight: Tensor<1>| {
            let coverage = Coverage { sums: random("c", [2, 3], &device), weight };
            let found = attend_covered(q.clone(), k.clone(), x.clone(), v.clone(), coverage.clone(), &over);
            let same = of_operations(q.clone(), k.clone(), x.clone(), v.clone(), coverage, &over);
            assert!((found.0.clone() - same.0).abs().max().into_scalar::<f32>() < 1e-6);
            assert!((found.1.clone() - same.1).abs().max().into_scalar::<f32>() < 1e-6);
            (numbers(found.0), numbers(found.1))
        };
        let plain = super::super::attend_with_weights(q.clone(), k.clone(), x.clone(), Some(v.clone()), &over);
        let none = of(Tensor::zeros([8], &device));
        assert_eq!(none, (numbers(plain.0), numbers(plain.1)));
        assert_ne!(of(random("w", [8], &device)), none);
    }
}
