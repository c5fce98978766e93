//! Attention as one operation: queries over keys and memory give contexts.
//!
//! `context_t = Σ_s w_ts memory_s` with `w_t = softmax_s(score(query_t, key_s))` over the real steps, and
//!
//! - `score(q, k) = q · k` (Luong et al. 2015), or
//! - `score(q, k) = v · tanh(q + k)` (Bahdanau et al. 2015), where `v` is the *energy*, or
//! - additive scores that hear where was looked before, in [`attend_in_turn`]: a coverage (Tu et al. 2016; See et al. 2017), or a
//!   location (Chorowski et al. 2015).
//!
//! Several heads are several rows: each of `N` heads has a row of its own, `b N + n`, with its parts of queries, keys and memory.
//!
//! A row of the memory without a real step has no weights: its context is zero, and so are the gradients through it.
//!
//! Nothing of `[B, T, S, A]` is ever kept: the backward pass makes it again, a query at a time.

mod flex;
mod in_turn;
pub(crate) mod rows;

pub(crate) use flex::sum_rows;
pub use in_turn::{Past, attend_in_turn};

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, ExtensionType, backend_extension};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation::softmax};

use crate::flex::serves_kernels;

/// What is looked at, beside the tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// `[C]`: real steps of each row of the memory. A row without any gives a context of zero, whatever its padding holds.
    pub lengths: Arc<[u32]>,
    /// `[B]`: which row of the memory each query looks at; its own if `None` (`B = C`). Not for training.
    pub owners: Option<Arc<[u32]>>,
}

impl Over {
    /// The row of the memory that query row `b` looks at, and how many of its `steps` are real.
    pub(crate) fn row(&self, b: usize, steps: usize) -> (usize, usize) {
        let row = self.owners.as_ref().map_or(b, |owners| owners[b] as usize);
        (row, (self.lengths[row] as usize).min(steps))
    }
}

/// The contexts `[B, T, M]` of queries `[B, T, A]` over keys `[C, S, A]` and memory `[C, S, M]`, differentiable.
///
/// `energy`: for additive scores, `[N·A]`: row `b` has part `b mod N` of it, so that each of `N` heads has an energy of its own;
/// `None` for products.
///
/// # Panics
/// If shapes do not fit, or `T` or `S` is 0.
pub fn attend(
    query: Tensor<3>,
    keys: Tensor<3>,
    memory: Tensor<3>,
    energy: Option<Tensor<1>>,
    over: &Over,
) -> Tensor<3> {
    over.check(&query, &keys, &memory, energy.as_ref());
    if !is_fused(&query, &memory) {
        return composed(query, keys, memory, energy, over).0;
    }
    Tensor::from_dispatch(<Dispatch as AttentionOps>::attend(inputs(query, keys, memory, energy), over.clone()))
}

/// As [`attend`], with the weights `[B, T, S]`, which are zero where the memory is padding: those of a query sum to 1, or, if
/// its memory has no real step, to 0. Not differentiable.
pub fn attend_with_weights(
    query: Tensor<3>,
    keys: Tensor<3>,
    memory: Tensor<3>,
    energy: Option<Tensor<1>>,
    over: &Over,
) -> (Tensor<3>, Tensor<3>) {
    over.check(&query, &keys, &memory, energy.as_ref());
    let (query, keys, memory, energy) = (query.inner(), keys.inner(), memory.inner(), energy.map(Tensor::inner));
    if !is_fused(&query, &memory) {
        return composed(query, keys, memory, energy, over);
    }
    let inputs = inputs(query, keys, memory, energy);
    let (contexts, weights) = <Dispatch as WeightsOps>::attend_with_weights(inputs, over.clone());
    (Tensor::from_dispatch(contexts), Tensor::from_dispatch(weights))
}

/// Whether a body of its own serves what is computed from this query over this memory.
fn is_fused(query: &Tensor<3>, memory: &Tensor<3>) -> bool {
    serves_kernels(query) && serves_memory(memory)
}

/// Whether the kernels on a GPU, if that is where it is, can look at so long a memory.
pub(crate) fn serves_memory(memory: &Tensor<3>) -> bool {
    #[cfg(feature = "wgpu")]
    if memory.dims()[1] > crate::cube::attention::MOST_STEPS {
        return crate::flex::serves(memory);
    }
    let _ = memory;
    true
}

fn inputs(query: Tensor<3>, keys: Tensor<3>, memory: Tensor<3>, energy: Option<Tensor<1>>) -> Inputs<Dispatch> {
    let additive = energy.is_some();
    let energy = energy.unwrap_or_else(|| Tensor::zeros([1], &query.device().inner()));
    Inputs {
        query: query.into_dispatch(),
        keys: keys.into_dispatch(),
        memory: memory.into_dispatch(),
        energy: energy.into_dispatch(),
        additive,
    }
}

impl Over {
    /// Rows of the memory as the queries look at them.
    fn rows_of(&self, memory: Tensor<3>) -> Tensor<3> {
        match &self.owners {
            None => memory,
            Some(owners) => {
                let rows: Vec<i32> = owners.iter().map(|&row| row as i32).collect();
                let rows = TensorData::new(rows, [owners.len()]);
                let rows = Tensor::<1, Int>::from_data(rows, &memory.device().inner());
                memory.select(0, rows)
            }
        }
    }

    /// Panics unless the shapes are those that [`attend`] tells of.
    fn check(&self, query: &Tensor<3>, keys: &Tensor<3>, memory: &Tensor<3>, energy: Option<&Tensor<1>>) {
        let ([b, t, a], [c, s, m]) = (query.dims(), memory.dims());
        assert!(t > 0 && s > 0 && m > 0, "query {:?} over memory {:?}", query.dims(), memory.dims());
        assert_eq!(keys.dims(), [c, s, a], "keys");
        assert_eq!(self.lengths.len(), c, "lengths");
        match &self.owners {
            None => assert_eq!(b, c, "a row of the memory for each query"),
            Some(owners) => assert!(owners.len() == b && owners.iter().all(|&row| (row as usize) < c), "owners"),
        }
        assert!(energy.is_none_or(|energy| is_in_parts(energy, a, b)), "energy");
    }

    /// `[C]`: which rows of the memory have no real step, if there are any.
    fn empty(&self, device: &Device) -> Option<Tensor<1, Bool>> {
        let empty: Vec<bool> = self.lengths.iter().map(|&length| length == 0).collect();
        let rows = [empty.len()];
        empty.contains(&true).then(|| Tensor::from_data(TensorData::new(empty, rows), &device.clone().inner()))
    }

    /// `[B, 1, S]`: 0 where a step is real, hugely negative where it is padding.
    fn mask(&self, like: &Tensor<3>, steps: usize) -> Tensor<3> {
        let rows = self.owners.as_ref().map_or(self.lengths.len(), |owners| owners.len());
        let mask = (0..rows).flat_map(|b| {
            let (_, real) = self.row(b, steps);
            (0..steps).map(move |s| if s < real { 0.0_f32 } else { -1e30 })
        });
        let mask = TensorData::new(mask.collect::<Vec<f32>>(), [rows, 1, steps]);
        Tensor::from_data(mask, (&like.device().inner(), like.dtype()))
    }
}

/// Whether each of `rows` rows has a part of this vector, `width` numbers.
fn is_in_parts(vector: &Tensor<1>, width: usize, rows: usize) -> bool {
    let [all] = vector.dims();
    all > 0 && all.is_multiple_of(width) && rows.is_multiple_of(all / width)
}

/// Scores made of tensor operations, for every device and number type.
fn scores(query: Tensor<3>, keys: Tensor<3>, energy: Option<Tensor<1>>) -> Tensor<3> {
    match energy {
        None => query.matmul(keys.swap_dims(1, 2)),
        Some(energy) => {
            let energies = crate::tanh(query.unsqueeze_dim::<4>(2) + keys.unsqueeze_dim::<4>(1));
            let [b, t, s, a] = energies.dims();
            let parts = energy.dims()[0] / a;
            let energies = energies.reshape([b / parts, parts, t * s, a]);
            energies.matmul(energy.reshape([1, parts, a, 1])).reshape([b, t, s])
        }
    }
}

/// The operation made of tensor operations: → (contexts, weights).
fn composed(
    query: Tensor<3>,
    mut keys: Tensor<3>,
    mut memory: Tensor<3>,
    energy: Option<Tensor<1>>,
    over: &Over,
) -> (Tensor<3>, Tensor<3>) {
    let empty = over.empty(&memory.device());
    if let Some(empty) = &empty {
        // What their padding holds could be no number, which a weight of zero would not take away.
        let within = |tensor: &Tensor<3>| empty.clone().reshape([-1, 1, 1]).expand(tensor.dims());
        (keys, memory) = (keys.clone().mask_fill(within(&keys), 0.0), memory.clone().mask_fill(within(&memory), 0.0));
    }
    let mask = over.mask(&query, keys.dims()[1]);
    let mut weights = softmax(scores(query, over.rows_of(keys), energy) + mask, 2);
    if let Some(empty) = empty {
        let empty = empty.reshape([-1, 1, 1]).expand([over.lengths.len(), 1, 1]);
        let empty = over.rows_of(empty.float().cast(weights.dtype()));
        weights = weights * (1.0 - empty);
    }
    (weights.clone().matmul(over.rows_of(memory)), weights)
}

/// The operation as Burn's backends see it.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub(crate) trait AttentionOps: Backend {
    /// → contexts
    fn attend(#[extension_type] inputs: Inputs<Self>, over: Over) -> FloatTensor<Self>;
}

/// As [`AttentionOps`], off the graph.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"))]
pub(crate) trait WeightsOps: Backend {
    /// → (contexts, weights)
    fn attend_with_weights(
        #[extension_type] inputs: Inputs<Self>,
        over: Over,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// Tensors of one attention.
#[derive(Debug, Clone, ExtensionType)]
pub(crate) struct Inputs<B: Backend> {
    pub(crate) query: FloatTensor<B>,
    pub(crate) keys: FloatTensor<B>,
    pub(crate) memory: FloatTensor<B>,
    /// A dummy unless `additive`.
    pub(crate) energy: FloatTensor<B>,
    pub(crate) additive: bool,
}

/// A backend that has the operation.
pub(crate) trait Body: Backend {
    /// → (contexts, weights `[B, T, S]`)
    fn forward(inputs: Inputs<Self>, over: &Over) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `gradient`: of the contexts → of query, keys, memory and energy
    fn backward(
        gradient: FloatTensor<Self>,
        inputs: Inputs<Self>,
        over: &Over,
        weights: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 4];
}

#[derive(Debug)]
struct AttentionNode;

impl<B: Body> Backward<B, 4> for AttentionNode {
    type State = (Inputs<B>, Over, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (inputs, over, weights) = ops.state;
        for (parent, gradient) in ops.parents.into_iter().zip(B::backward(gradient, inputs, &over, weights)) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Body, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn attend(inputs: Inputs<Self>, over: Over) -> FloatTensor<Self> {
        let ((query, q), (keys, k)) = (inputs.query.into_parts(), inputs.keys.into_parts());
        let ((memory, m), (energy, e)) = (inputs.memory.into_parts(), inputs.energy.into_parts());
        let inputs = Inputs { query, keys, memory, energy, additive: inputs.additive };
        match AttentionNode.prepare::<C>([q, k, m, e]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (contexts, weights) = B::forward(inputs.clone(), &over);
                prep.finish((inputs, over, weights), contexts)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::forward(inputs, &over).0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_core::random::Key;
    use burn::tensor::Device;

    pub(super) fn random<const D: usize>(name: &str, dims: [usize; D], device: &Device) -> Tensor<D> {
        let key = Key::from_seed(5).named(name);
        let n: usize = dims.iter().product();
        let numbers: Vec<f32> = (0..n as u64).map(|i| key.normal(i) as f32 * 0.7).collect();
        let tensor = Tensor::from_data(TensorData::new(numbers, dims), device);
        if device.is_autodiff() { tensor.require_grad() } else { tensor }
    }

    #[test]
    fn values_and_gradients_are_those_of_the_composed_body() {
        let device = Device::flex().autodiff();
        for ([b, t, s, a, m], lengths) in
            [([1, 1, 1, 1, 1], vec![1]), ([3, 5, 4, 33, 70], vec![4, 1, 0]), ([9, 1, 17, 16, 64], vec![17; 9])]
        {
            let over = Over { lengths: lengths.into(), owners: None };
            for additive in [false, true] {
                // One energy for all rows, and one for each head.
                let heads = if b % 3 == 0 { 3 } else { 1 };
                let run = |fused: bool| {
                    let (q, k) = (random("q", [b, t, a], &device), random("k", [b, s, a], &device));
                    let (x, v) = (random("m", [b, s, m], &device), random("v", [heads * a], &device));
                    let energy = additive.then(|| v.clone());
                    let (q1, k1, x1) = (q.clone(), k.clone(), x.clone());
                    let contexts = match fused {
                        true => attend(q1, k1, x1, energy, &over),
                        false => composed(q1, k1, x1, energy, &over).0,
                    };
                    let grads = (contexts.clone() * random("d", [b, t, m], &device.clone().inner())).sum().backward();
                    let mut parts = vec![contexts.into_data()];
                    parts.extend([&q, &k, &x].map(|x| x.grad(&grads).unwrap().into_data()));
                    parts.extend(additive.then(|| v.grad(&grads).unwrap().into_data()));
                    parts
                };
                for (ours, oracle) in run(true).into_iter().zip(run(false)) {
                    let (ours, oracle) = (ours.try_to_vec::<f32>().unwrap(), oracle.try_to_vec::<f32>().unwrap());
                    assert_eq!(ours.len(), oracle.len());
                    for (x, y) in ours.iter().zip(&oracle) {
                        assert!((x - y).abs() < 2e-5 * y.abs().max(1.0), "{additive} {b} {t} {s}: {x} is not {y}");
                    }
                }
            }
        }
    }

    /// Contexts, weights where they are asked for, and the gradients of query, keys, memory and energy.
    type Found = Vec<Vec<f32>>;

    /// Attention by the slices or by tensor operations, over a middle row of the memory that is all padding or none.
    fn around_an_empty_row(fused: bool, additive: bool, t: usize, middle: u32, padding: f32) -> Found {
        let ([b, s, a, m], device) = ([3, 4, 18, 21], Device::flex().autodiff());
        let over = Over { lengths: [3, middle, 4].into(), owners: None };
        let padded = |name: &str, width: usize| {
            let mut numbers: Vec<f32> = random(name, [b, s, width], &Device::flex()).into_data().try_to_vec().unwrap();
            numbers[s * width..][..s * width].fill(padding);
            Tensor::<3>::from_data(TensorData::new(numbers, [b, s, width]), &device).require_grad()
        };
        let (q, k, x) = (random("q", [b, t, a], &device), padded("k", a), padded("m", m));
        let v = random("v", [a], &device);
        let energy = additive.then(|| v.clone());
        let (q1, k1, x1) = (q.clone(), k.clone(), x.clone());
        let contexts = match fused {
            true => attend(q1, k1, x1, energy.clone(), &over),
            false => composed(q1, k1, x1, energy.clone(), &over).0,
        };
        let grads = (contexts.clone() * random("d", [b, t, m], &device.clone().inner())).sum().backward();
        let (q1, k1, x1) = (q.clone().inner(), k.clone().inner(), x.clone().inner());
        let energy = energy.map(Tensor::inner);
        let (same, weights) = match fused {
            true => attend_with_weights(q1, k1, x1, energy, &over),
            false => composed(q1, k1, x1, energy, &over),
        };
        let mut found = vec![contexts.into_data(), same.into_data(), weights.into_data()];
        found.extend([&q, &k, &x].map(|x| x.grad(&grads).unwrap().into_data()));
        found.extend(additive.then(|| v.grad(&grads).unwrap().into_data()));
        found.into_iter().map(|part| part.try_to_vec().unwrap()).collect()
    }

    #[test]
    fn a_memory_without_a_real_step_gives_nothing_and_gets_nothing() {
        for (fused, additive, t) in
            [(true, false, 1), (true, false, 5), (true, true, 5), (false, false, 5), (false, true, 1)]
        {
            let found = around_an_empty_row(fused, additive, t, 0, f32::NAN);
            let other = around_an_empty_row(fused, additive, t, 4, 0.5);
            for (part, (found, other)) in found.iter().zip(&other).take(6).enumerate() {
                let row = found.len() / 3;
                assert!(found[row..2 * row].iter().all(|&x| x == 0.0), "{fused} {additive} {t}, part {part}");
                for rows in [0..row, 2 * row..3 * row] {
                    assert_eq!(found[rows.clone()], other[rows], "the rows beside it, part {part}");
                }
            }
            assert!(found.iter().flatten().all(|x| x.is_finite()));
        }
    }

    #[test]
    fn queries_look_at_the_rows_that_own_them() {
        let device = Device::flex();
        let (k, m) = (random("k", [2, 3, 8], &device), random("m", [2, 3, 5], &device));
        let q = random("q", [3, 1, 8], &device);
        for (lengths, energy) in [([3, 2], None), ([3, 2], Some(())), ([3, 0], None), ([0, 2], Some(()))] {
            let over = Over { lengths: lengths.into(), owners: Some([1, 0, 1].into()) };
            let energy = energy.map(|()| random("v", [8], &device));
            let (contexts, weights) = composed(q.clone(), k.clone(), m.clone(), energy.clone(), &over);
            let (same, fused) = attend_with_weights(q.clone(), k.clone(), m.clone(), energy.clone(), &over);
            let alone = attend(q.clone(), k.clone(), m.clone(), energy, &over);
            for error in [alone - contexts.clone(), same - contexts, fused - weights] {
                assert!(error.abs().max().into_scalar::<f32>() < 1e-6);
            }
        }
    }
}
