//! A recurrent layer over a whole sequence as one operation: RNN, LSTM and GRU, forward and backward.
//!
//! The layer's input projection is made outside, in one product for all steps; this operation adds the recurrent part.
//! With `x_t` the projected input and `W` the recurrent weight:
//!
//! - RNN (Elman 1990): `h_t = tanh(x_t + h_{t−1} W + b)`
//! - LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; gate order i, f, g, o):
//!   `c_t = σ(f) ⊙ c_{t−1} + σ(i) ⊙ tanh(g)`, `h_t = σ(o) ⊙ tanh(c_t)`
//! - GRU (Cho et al. 2014, in the form where the reset gate acts behind the product; gate order r, z, n):
//!   `n = tanh(x_n + b_n + σ(r) ⊙ (h_{t−1} W_n + b_q))`, `h_t = (1 − σ(z)) ⊙ n + σ(z) ⊙ h_{t−1}`
//!
//! A step beyond a row's length *carries* the state. So the last step holds everyone's final state, and reversal needs
//! no gather: a reversed row meets its padding first and carries the initial state through it.

mod flex;
pub(crate) mod gates;
pub(crate) mod portable;
mod step;

pub use step::{Shared, recurrent_step};

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::Tensor;

use crate::rows::{first_rows, select_rows};

/// The recurrent unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cell {
    /// Elman's simple recurrent network with tanh.
    Rnn,
    /// Long short-term memory.
    Lstm,
    /// Gated recurrent unit.
    Gru,
}

impl Cell {
    /// `G`: blocks of width `H` in the projected input and the recurrent weight.
    pub const fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Lstm => 4,
            Cell::Gru => 3,
        }
    }

    /// Blocks of width `H` in the bias: one a gate, and one more inside the reset product of the GRU.
    pub const fn biases(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Lstm | Cell::Gru => 4,
        }
    }

    /// `N`: blocks of width `H` in the state: `h`, and `c` for the LSTM.
    pub const fn states(self) -> usize {
        match self {
            Cell::Rnn | Cell::Gru => 1,
            Cell::Lstm => 2,
        }
    }
}

/// What to run, beside the tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recurrence {
    /// The unit.
    pub cell: Cell,
    /// From the last step to the first.
    pub reverse: bool,
    /// `[B]`: steps of each row that are real; all of them if `None`.
    pub lengths: Option<Arc<[u32]>>,
}

impl Recurrence {
    /// Whether step `t` of row `b` is real.
    fn is_live(&self, b: usize, t: usize) -> bool {
        self.lengths.as_ref().is_none_or(|lengths| t < lengths[b] as usize)
    }

    /// The steps in the order in which they are taken.
    pub(crate) fn order(&self, steps: usize) -> impl DoubleEndedIterator<Item = usize> + use<> {
        let reverse = self.reverse;
        (0..steps).map(move |s| if reverse { steps - 1 - s } else { s })
    }
}

/// The result of [`recurrent`]: sliced on demand, since each slice costs a pass over its gradient.
#[derive(Debug, Clone)]
pub struct Recurrent {
    /// `[B·(T + N − 1), H]`: the hidden states row by row, then the final cells of an LSTM.
    packed: Tensor<2>,
    batch: usize,
    steps: usize,
    run: Recurrence,
}

impl Recurrent {
    /// `[B, T, H]`: the hidden state of every step; padded steps repeat the carried state.
    pub fn sequence(&self) -> Tensor<3> {
        let ([_, hidden], count) = (self.packed.dims(), self.batch * self.steps);
        let packed = self.packed.clone();
        let sequence = if self.run.cell == Cell::Lstm { first_rows(packed, count) } else { packed };
        sequence.reshape([self.batch, self.steps, hidden])
    }

    /// `[B, N·H]`: the final state, `h` then `c`, as [`recurrent`] takes it.
    pub fn state(&self) -> Tensor<2> {
        let last = if self.run.reverse { 0 } else { self.steps - 1 };
        let cells = |row: usize| (self.run.cell == Cell::Lstm).then_some(self.batch * self.steps + row);
        let numbers = (0..self.batch).flat_map(|row| std::iter::once(row * self.steps + last).chain(cells(row)));
        let numbers: Vec<u32> = numbers.map(|row| row as u32).collect();
        let width = self.packed.dims()[1] * self.run.cell.states();
        select_rows(self.packed.clone(), &numbers).reshape([self.batch, width])
    }
}

/// Runs a recurrent layer over a whole sequence.
///
/// `x`: `[B, T, G·H]` projected inputs (`T ≥ 1`) · `weight`: `[H, G·H]` · `bias`: `[biases·H]` (see [`Cell::biases`]; for
/// the GRU the blocks are r, z, n, q) · `state`: `[B, N·H]`, `h` then `c`. Differentiable in all four.
pub fn recurrent(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>, state: Tensor<2>, run: &Recurrence) -> Recurrent {
    let ([batch, steps, width], [hidden, _]) = (x.dims(), weight.dims());
    assert_eq!(width, hidden * run.cell.gates(), "projected input");
    assert_eq!(weight.dims(), [hidden, width], "recurrent weight");
    assert_eq!(bias.dims(), [hidden * run.cell.biases()], "bias");
    assert_eq!(state.dims(), [batch, hidden * run.cell.states()], "state");
    assert!(steps > 0 && run.lengths.as_ref().is_none_or(|l| l.len() == batch), "lengths");
    let packed = <Dispatch as RecurrentOps>::recurrent(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        state.into_dispatch(),
        run.clone(),
    );
    Recurrent { packed: Tensor::from_dispatch(packed), batch, steps, run: run.clone() }
}

/// The operation as Burn's backends see it.
///
/// `forward` returns the packed output and what `backward` needs: the activated gates `[B, T, G·H]`, and the cells (LSTM)
/// or the products inside the reset gate (GRU) `[B, T, H]`; both are one-element dummies where nothing is to be saved.
#[backend_extension(Flex, Cube: cfg(feature = "wgpu"), Autodiff)]
#[allow(clippy::too_many_arguments)]
pub(crate) trait RecurrentOps: Backend {
    /// The packed output alone.
    fn recurrent(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        state: FloatTensor<Self>,
        run: Recurrence,
    ) -> FloatTensor<Self> {
        Self::recurrent_forward(x, weight, bias, state, run, false).0
    }

    /// → (packed, gates, trace); the last two only if `save`.
    fn recurrent_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        state: FloatTensor<Self>,
        run: Recurrence,
        save: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = save;
        portable::forward::<Self>(x, weight, bias, state, &run)
    }

    /// `gradient`: of the packed output → (x, weight, bias, state); the last is a dummy unless `state_gradient`.
    fn recurrent_backward(
        gradient: FloatTensor<Self>,
        packed: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        trace: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        state: FloatTensor<Self>,
        run: Recurrence,
        state_gradient: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = state_gradient;
        portable::backward::<Self>(gradient, packed, gates, trace, weight, state, &run)
    }
}

/// The node of the autodiff graph.
#[derive(Debug)]
struct RecurrentNode;

impl<B: RecurrentOps> Backward<B, 4> for RecurrentNode {
    // packed, gates, trace, weight, state
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, Recurrence);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (packed, gates, trace, weight, state, run) = ops.state;
        let wanted = ops.parents[3].is_some();
        let (x, w, b, s) = B::recurrent_backward(gradient, packed, gates, trace, weight, state, run, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip([x, w, b, s]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: RecurrentOps, C: CheckpointStrategy> RecurrentOps for Autodiff<B, C> {
    fn recurrent(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        state: FloatTensor<Self>,
        run: Recurrence,
    ) -> FloatTensor<Self> {
        let ((x, x_node), (weight, w_node)) = (x.into_parts(), weight.into_parts());
        let ((bias, b_node), (state, s_node)) = (bias.into_parts(), state.into_parts());
        match RecurrentNode.prepare::<C>([x_node, w_node, b_node, s_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (packed, gates, trace) =
                    B::recurrent_forward(x, weight.clone(), bias, state.clone(), run.clone(), true);
                prep.finish((packed.clone(), gates, trace, weight, state, run), packed)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::recurrent(x, weight, bias, state, run)),
        }
    }
}
