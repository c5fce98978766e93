//! A decoder layer with attention and input feeding over a whole sequence, as one operation.
//!
//! With `x_t` the projected input of step `t` and `r_0 = 0` (Luong et al. 2015, section 3.3):
//!
//! ```text
//! h_t = cell(x_t + r_{t−1} F, h_{t−1})                  recurrent::Cell, weight W
//! c_t = attention(h_t Q, keys, memory)                  attention::attend; without Q for products
//! r_t = dropout_t(tanh(h_t U + c_t C + b))
//! ```
//!
//! Each step needs the one before it, so a graph of separate operations would pack its weights and pass over its
//! inputs once a step. Here a thread walks its rows through all steps, and every weight's gradient is one product over
//! all steps at the end.
//!
//! On a GPU a step is a few kernels for all rows (`cube/feeding`). There is no portable body: of backend operations it would be the very steps that a caller takes elsewhere, with layers of
//! any kind and number, and autodiff makes their gradient.

mod flex;

use std::sync::Arc;

use antiphon_core::random::Key;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, ExtensionType, backend_extension};
use burn::tensor::Tensor;

use crate::attention::{Over, serves_memory};
use crate::flex::serves_kernels;
use crate::recurrent::Cell;

/// The tensors of the layer.
#[derive(Debug, Clone)]
pub struct FedDecoder {
    /// `[B, T, G·H]`: projected inputs.
    pub x: Tensor<3>,
    /// `W` `[H, G·H]`.
    pub recurrent: Tensor<2>,
    /// `[biases·H]`, as [`Cell::biases`] says.
    pub bias: Tensor<1>,
    /// `[B, N·H]`: the state before the first step.
    pub state: Tensor<2>,
    /// `F` `[R, G·H]`.
    pub feed: Tensor<2>,
    /// `[B, S, A]`; `A = H` for products.
    pub keys: Tensor<3>,
    /// `[B, S, M]`.
    pub memory: Tensor<3>,
    /// `Q` `[H, A]` and the energy `[A]`, for additive scores.
    pub additive: Option<(Tensor<2>, Tensor<1>)>,
    /// `U` `[H, R]`.
    pub readout_state: Tensor<2>,
    /// `C` `[M, R]`.
    pub readout_context: Tensor<2>,
    /// `b` `[R]`.
    pub readout_bias: Tensor<1>,
}

/// What to run, beside the tensors.
#[derive(Debug, Clone)]
pub struct Feeding {
    /// The unit.
    pub cell: Cell,
    /// `[B]`: steps of each row that are real; the outputs of others are zero.
    pub lengths: Arc<[u32]>,
    /// What is looked at; every row at its own memory.
    pub over: Over,
    /// The rate, and the key of each step's mask over `[B, R]`, as [`dropout`](crate::dropout()) draws it.
    pub dropout: Option<(f64, Arc<[Key]>)>,
}

/// Whether [`fed_decoder`] serves the device, the number type and the memory of these inputs; else the caller takes the steps itself.
pub fn serves_fed_decoder(x: &Tensor<3>, memory: &Tensor<3>) -> bool {
    serves_kernels(x) && serves_memory(memory)
}

/// The outputs `r` `[B, T, R]` and the last state `[B, N·H]`, where the operation [is served](serves_fed_decoder).
///
/// The outputs are differentiable in all tensors. The state is that behind each row's last real step, `h` then `c`, as
/// [`Recurrent::state`](crate::Recurrent::state) has it; a row without a real step keeps its first one. It is off the graph:
/// a next stretch of the same text starts from it, and no gradient flows back there.
///
/// # Panics
/// If shapes do not fit, or `T` or `S` is 0.
pub fn fed_decoder(tensors: FedDecoder, run: &Feeding) -> (Tensor<3>, Tensor<2>) {
    tensors.check(run);
    let device = tensors.x.device().inner();
    let dummies = || (Tensor::zeros([1, 1], &device), Tensor::zeros([1], &device));
    let has_query = tensors.additive.is_some();
    let (query, energy) = tensors.additive.unwrap_or_else(dummies);
    let parts = Parts {
        recurrent: tensors.recurrent.into_dispatch(),
        bias: tensors.bias.into_dispatch(),
        state: tensors.state.into_dispatch(),
        feed: tensors.feed.into_dispatch(),
        keys: tensors.keys.into_dispatch(),
        memory: tensors.memory.into_dispatch(),
        query: query.into_dispatch(),
        energy: energy.into_dispatch(),
        readout_state: tensors.readout_state.into_dispatch(),
        readout_context: tensors.readout_context.into_dispatch(),
        readout_bias: tensors.readout_bias.into_dispatch(),
        additive: has_query,
    };
    let (outputs, state) = <Dispatch as FeedingOps>::fed_decoder(tensors.x.into_dispatch(), parts, run.clone());
    (Tensor::from_dispatch(outputs), Tensor::from_dispatch(state).inner())
}

impl FedDecoder {
    /// Panics unless the shapes are those that the fields tell of.
    fn check(&self, run: &Feeding) {
        let ([b, t, width], [c, s, m]) = (self.x.dims(), self.memory.dims());
        let (h, [_, _, a], r) = (width / run.cell.gates(), self.keys.dims(), self.readout_bias.dims()[0]);
        assert!(t > 0 && s > 0 && b == c && run.over.owners.is_none(), "every row looks at its own memory");
        assert!(run.lengths.len() == b && run.over.lengths.len() == b, "lengths");
        assert_eq!(self.recurrent.dims(), [h, h * run.cell.gates()], "recurrent weight");
        assert_eq!(self.bias.dims(), [h * run.cell.biases()], "bias");
        assert_eq!(self.state.dims(), [b, h * run.cell.states()], "state");
        assert_eq!(self.feed.dims(), [r, width], "weight of what is fed back");
        assert_eq!(self.keys.dims(), [b, s, a], "keys");
        match &self.additive {
            None => assert_eq!(a, h, "keys as wide as a state"),
            Some((query, energy)) => assert!(query.dims() == [h, a] && energy.dims() == [a], "additive scores"),
        }
        assert_eq!((self.readout_state.dims(), self.readout_context.dims()), ([h, r], [m, r]), "readout");
        assert!(run.dropout.as_ref().is_none_or(|(_, keys)| keys.len() == t), "a key for each step");
    }
}

/// The tensors but for `x` as a backend sees them; `query` and `energy` are dummies unless `additive`.
#[derive(Debug, Clone, ExtensionType)]
pub(crate) struct Parts<B: Backend> {
    pub(crate) recurrent: FloatTensor<B>,
    pub(crate) bias: FloatTensor<B>,
    pub(crate) state: FloatTensor<B>,
    pub(crate) feed: FloatTensor<B>,
    pub(crate) keys: FloatTensor<B>,
    pub(crate) memory: FloatTensor<B>,
    pub(crate) query: FloatTensor<B>,
    pub(crate) energy: FloatTensor<B>,
    pub(crate) readout_state: FloatTensor<B>,
    pub(crate) readout_context: FloatTensor<B>,
    pub(crate) readout_bias: FloatTensor<B>,
    pub(crate) additive: bool,
}

/// The operation as Burn's backends see it.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
pub(crate) trait FeedingOps: Backend {
    /// → outputs, last state (off the graph)
    fn fed_decoder(
        x: FloatTensor<Self>,
        #[extension_type] parts: Parts<Self>,
        run: Feeding,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// What the forward pass leaves for the backward pass.
#[derive(Debug, Clone)]
pub(crate) struct Saved<B: Backend> {
    /// `[B, T, R]`.
    pub(crate) outputs: FloatTensor<B>,
    /// `[B, T, G·H]`, activated.
    pub(crate) gates: FloatTensor<B>,
    /// `[B, T, H]`.
    pub(crate) hidden: FloatTensor<B>,
    /// `[B, T, H]`: cells (LSTM) or products inside the reset gate (GRU); a dummy for the RNN.
    pub(crate) trace: FloatTensor<B>,
    /// `[B, T, A]`; a dummy unless additive.
    pub(crate) queries: FloatTensor<B>,
    /// `[B, T, S]`.
    pub(crate) weights: FloatTensor<B>,
    /// `[B, T, M]`.
    pub(crate) contexts: FloatTensor<B>,
}

/// A backend that has the operation.
pub(crate) trait Body: Backend {
    /// → what is saved, the outputs in it, and the last state
    fn forward(x: FloatTensor<Self>, parts: Parts<Self>, run: &Feeding) -> (Saved<Self>, FloatTensor<Self>);

    /// → gradients of `x`, then in the order of [`Parts`]
    fn backward(
        gradient: FloatTensor<Self>,
        parts: Parts<Self>,
        saved: Saved<Self>,
        run: &Feeding,
    ) -> [FloatTensor<Self>; 12];
}

#[derive(Debug)]
struct FeedingNode;

impl<B: Body> Backward<B, 12> for FeedingNode {
    type State = (Parts<B>, Saved<B>, Feeding);

    fn backward(self, ops: Ops<Self::State, 12>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (parts, saved, run) = ops.state;
        for (parent, gradient) in ops.parents.into_iter().zip(B::backward(gradient, parts, saved, &run)) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Body, C: CheckpointStrategy> FeedingOps for Autodiff<B, C> {
    fn fed_decoder(x: FloatTensor<Self>, parts: Parts<Self>, run: Feeding) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let ((x, n0), (recurrent, n1)) = (x.into_parts(), parts.recurrent.into_parts());
        let ((bias, n2), (state, n3)) = (parts.bias.into_parts(), parts.state.into_parts());
        let ((feed, n4), (keys, n5)) = (parts.feed.into_parts(), parts.keys.into_parts());
        let ((memory, n6), (query, n7)) = (parts.memory.into_parts(), parts.query.into_parts());
        let ((energy, n8), (readout_state, n9)) = (parts.energy.into_parts(), parts.readout_state.into_parts());
        let (readout_context, n10) = parts.readout_context.into_parts();
        let (readout_bias, n11) = parts.readout_bias.into_parts();
        let parts = Parts {
            recurrent,
            bias,
            state,
            feed,
            keys,
            memory,
            query,
            energy,
            readout_state,
            readout_context,
            readout_bias,
            additive: parts.additive,
        };
        let nodes = [n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11];
        let (outputs, state) = match FeedingNode.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (saved, state) = B::forward(x, parts.clone(), &run);
                let outputs = saved.outputs.clone();
                (prep.finish((parts, saved, run), outputs), state)
            }
            OpsKind::UnTracked(prep) => {
                let (saved, state) = B::forward(x, parts, &run);
                (prep.finish(saved.outputs), state)
            }
        };
        (outputs, Self::from_inner(state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Recurrence, attend, dropout, recurrent, tanh};
    use burn::tensor::{Device, TensorData};

    /// `B`, `T`, `H`, `S`, `R`, `M`, and `A` where scores are additive.
    const SIZES: [usize; 7] = [19, 5, 6, 4, 5, 7, 9];

    fn random<const D: usize>(name: &str, dims: [usize; D], device: &Device) -> Tensor<D> {
        let key = Key::from_seed(6).named(name);
        let n: usize = dims.iter().product();
        let numbers: Vec<f32> = (0..n as u64).map(|i| key.normal(i) as f32 * 0.5).collect();
        Tensor::from_data(TensorData::new(numbers, dims), device)
    }

    fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    /// A layer, rows of 0 to `T` real steps, and memory rows of 0 to `S` ones.
    fn layer(cell: Cell, additive: bool, rate: f64, device: &Device) -> (FedDecoder, Feeding) {
        layer_of(SIZES, cell, additive, rate, device)
    }

    fn layer_of(sizes: [usize; 7], cell: Cell, additive: bool, rate: f64, device: &Device) -> (FedDecoder, Feeding) {
        let [b, t, h, s, r, m, a] = sizes;
        let (g, a) = (cell.gates() * h, if additive { a } else { h });
        let tensors = FedDecoder {
            x: random("x", [b, t, g], device),
            recurrent: random("recurrent", [h, g], device),
            bias: random("bias", [h * cell.biases()], device),
            state: random("state", [b, h * cell.states()], device),
            feed: random("feed", [r, g], device),
            keys: random("keys", [b, s, a], device),
            memory: random("memory", [b, s, m], device),
            additive: additive.then(|| (random("query", [h, a], device), random("energy", [a], device))),
            readout_state: random("readout state", [h, r], device),
            readout_context: random("readout context", [m, r], device),
            readout_bias: random("readout bias", [r], device),
        };
        let run = Feeding {
            cell,
            lengths: (0..b).map(|row| (row * 3 % (t + 1)) as u32).collect(),
            over: Over { lengths: (0..b).map(|row| (row * 2 % (s + 1)) as u32).collect(), owners: None },
            dropout: (rate > 0.0).then(|| (rate, (0..t as u64).map(|t| Key::from_seed(3).numbered(t)).collect())),
        };
        (tensors, run)
    }

    /// The same by one operation after another, a step at a time: outputs of real steps, and the last state.
    fn by_steps(tensors: &FedDecoder, run: &Feeding) -> (Tensor<3>, Tensor<2>) {
        let [b, t, r] = [tensors.x.dims()[0], tensors.x.dims()[1], tensors.readout_bias.dims()[0]];
        let (h, device) = (tensors.recurrent.dims()[0], tensors.x.device());
        let (mut state, mut fed, mut outputs) = (tensors.state.clone(), Tensor::zeros([b, r], &device), Vec::new());
        for step in 0..t {
            let real: Arc<[u32]> = run.lengths.iter().map(|&length| u32::from(step < length as usize)).collect();
            let x = tensors.x.clone().narrow(1, step, 1).squeeze_dim::<2>(1) + fed.matmul(tensors.feed.clone());
            let recurrence = Recurrence { cell: run.cell, reverse: false, lengths: Some(real.clone()) };
            let (weight, bias) = (tensors.recurrent.clone(), tensors.bias.clone());
            state = recurrent(x.unsqueeze_dim(1), weight, bias, state, &recurrence).state();
            let hidden = state.clone().narrow(1, 0, h);
            let (query, energy) = match &tensors.additive {
                Some((query, energy)) => (hidden.clone().matmul(query.clone()), Some(energy.clone())),
                None => (hidden.clone(), None),
            };
            let (keys, memory) = (tensors.keys.clone(), tensors.memory.clone());
            let context = attend(query.unsqueeze_dim(1), keys, memory, energy, &run.over).squeeze_dim::<2>(1);
            let sum = hidden.matmul(tensors.readout_state.clone()) + context.matmul(tensors.readout_context.clone());
            fed = tanh(sum + tensors.readout_bias.clone().unsqueeze());
            if let Some((rate, keys)) = &run.dropout {
                fed = dropout(fed, *rate, keys[step]);
            }
            let real: Vec<f32> = real.iter().map(|&real| real as f32).collect();
            fed = fed * Tensor::from_data(TensorData::new(real, [b, 1]), &device);
            outputs.push(fed.clone().unsqueeze_dim(1));
        }
        (Tensor::cat(outputs, 1), state)
    }

    #[test]
    fn outputs_and_last_state_are_those_of_the_steps_one_by_one() {
        let device = Device::flex();
        let near = |ours: &[f32], oracle: &[f32]| ours.iter().zip(oracle).all(|(x, y)| (x - y).abs() < 1e-5);
        for cell in [Cell::Rnn, Cell::Lstm, Cell::Gru] {
            for (additive, rate) in [(false, 0.0), (false, 0.4), (true, 0.0), (true, 0.4)] {
                let (tensors, run) = layer(cell, additive, rate, &device);
                let (outputs, state) = fed_decoder(tensors.clone(), &run);
                let (each, last) = by_steps(&tensors, &run);
                assert_eq!((outputs.dims(), state.dims()), (each.dims(), last.dims()));
                assert!(near(&numbers(outputs), &numbers(each)), "{cell:?} {additive} {rate}: outputs");
                let (first, state) = (numbers(tensors.state), numbers(state));
                assert!(near(&state, &numbers(last)), "{cell:?} {additive} {rate}: state");
                let width = cell.states() * SIZES[2];
                for (b, &length) in run.lengths.iter().enumerate().filter(|&(_, &length)| length == 0) {
                    let row = b * width..(b + 1) * width;
                    assert_eq!(state[row.clone()], first[row], "a row of {length} steps keeps its state");
                }
            }
        }
    }

    #[test]
    fn a_memory_without_a_real_step_counts_for_nothing() {
        let device = Device::flex().autodiff();
        let [_, _, _, s, _, m, ..] = SIZES;
        for (cell, additive) in [(Cell::Rnn, false), (Cell::Lstm, true), (Cell::Gru, false)] {
            let (tensors, run) = layer(cell, additive, 0.4, &device);
            let a = tensors.keys.dims()[2];
            let filled = |tensor: &Tensor<3>, width: usize, padding: f32| {
                let mut filled = numbers(tensor.clone().inner());
                for (row, &length) in filled.chunks_exact_mut(s * width).zip(run.over.lengths.iter()) {
                    row[length as usize * width..].fill(padding);
                }
                Tensor::<3>::from_data(TensorData::new(filled, tensor.dims()), &device).require_grad()
            };
            let run_with = |padding: f32| {
                let (keys, memory) = (filled(&tensors.keys, a, padding), filled(&tensors.memory, m, padding));
                let with = FedDecoder { keys: keys.clone(), memory: memory.clone(), ..tensors.clone() };
                let (outputs, state) = fed_decoder(with, &run);
                let gradients = (outputs.clone() * outputs.clone()).sum().backward();
                let of = [keys, memory].map(|x| numbers(x.grad(&gradients).unwrap()));
                (numbers(outputs.inner()), numbers(state), of)
            };
            let (found, same) = (run_with(f32::NAN), run_with(0.5));
            assert_eq!(found, same, "{cell:?}: padding is not read");
            for (gradient, width) in found.2.iter().zip([a, m]) {
                for (row, &length) in gradient.chunks_exact(s * width).zip(run.over.lengths.iter()) {
                    assert!(row[length as usize * width..].iter().all(|&x| x == 0.0), "{cell:?}");
                }
            }
        }
    }

    #[test]
    fn threads_that_share_a_row_change_no_more_than_the_last_bits() {
        let device = Device::flex().autodiff();
        for (cell, additive) in [(Cell::Rnn, true), (Cell::Lstm, false), (Cell::Lstm, true), (Cell::Gru, true)] {
            let (tensors, run) = layer_of([3, 5, 70, 4, 90, 50, 70], cell, additive, 0.4, &device);
            let with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let (x, feed, keys) = (&tensors.x, &tensors.feed, &tensors.keys);
                    let (x, feed) = (x.clone().require_grad(), feed.clone().require_grad());
                    let (keys, state) = (keys.clone().require_grad(), tensors.state.clone().require_grad());
                    let (first, of_state) = (keys.clone(), state.clone());
                    let tensors = FedDecoder { x: x.clone(), feed: feed.clone(), keys, state, ..tensors.clone() };
                    let (outputs, state) = fed_decoder(tensors, &run);
                    let gradients = (outputs.clone() * outputs.clone()).sum().backward();
                    let of = [numbers(x.grad(&gradients).unwrap()), numbers(first.grad(&gradients).unwrap())];
                    let more = [numbers(feed.grad(&gradients).unwrap()), numbers(of_state.grad(&gradients).unwrap())];
                    ([numbers(outputs.inner()), numbers(state)], [of, more])
                })
            };
            let (one, four) = (with(1), with(4));
            assert_eq!(four, with(4), "{cell:?} {additive}");
            assert_eq!(one.0, four.0, "{cell:?} {additive}: outputs are summed in one order");
            for (a, b) in one.1.iter().flatten().flatten().zip(four.1.iter().flatten().flatten()) {
                assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{cell:?} {additive}: {a} is not {b}");
            }
        }
    }

    #[test]
    fn the_last_state_is_off_the_graph() {
        let (tensors, run) = layer(Cell::Lstm, true, 0.4, &Device::flex().autodiff());
        let tracked = FedDecoder { x: tensors.x.clone().require_grad(), ..tensors.clone() };
        let (outputs, state) = fed_decoder(tracked, &run);
        assert!(outputs.is_autodiff() && !state.is_autodiff());
        let (tensors, run) = layer(Cell::Lstm, true, 0.4, &Device::flex());
        let (alone, same) = fed_decoder(tensors, &run);
        assert_eq!((numbers(outputs.inner()), numbers(state)), (numbers(alone), numbers(same)));
    }
}
