//! One step of a recurrent layer in search.

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use super::{Cell, Recurrence, gates, recurrent};
use crate::weight::{Weight, host, multiply_rows, share};

/// A step of rows that share states: row `b` goes on from state `parents[b]`.
///
/// The hypotheses of a beam often grow from few parents; the recurrent product is made once for each of these. `x`:
/// `[B, G·H]` projected inputs · `weight`: `[H, G·H]` · `bias`: `[biases·H]` · `states`: `[P, N·H]` → `[B, N·H]`; not
/// differentiable.
pub fn recurrent_step(
    cell: Cell,
    x: Tensor<2>,
    weight: &Weight,
    bias: Tensor<1>,
    states: Tensor<2>,
    parents: &[u32],
) -> Tensor<2> {
    let ([rows, width], device) = (x.dims(), x.device());
    let (h, n) = (width / cell.gates(), cell.states());
    assert_eq!(parents.len(), rows, "a parent for each row");
    let Some(packed) = weight.as_packed() else {
        let numbers: Vec<i32> = parents.iter().map(|&parent| parent as i32).collect();
        let numbers = Tensor::from_data(TensorData::new(numbers, [rows]), &device);
        let run = Recurrence { cell, reverse: false, lengths: None };
        return recurrent(x.unsqueeze_dim(1), weight.tensor(), bias, states.select(0, numbers), &run).state();
    };
    let (mut x, bias, states) = (host(x), host(bias), host(states));
    let hidden: Vec<f32> = states.chunks_exact(n * h).flat_map(|state| &state[..h]).copied().collect();
    let z = multiply_rows(packed, &hidden);
    let mut next: Vec<f32> =
        parents.iter().flat_map(|&parent| &states[parent as usize * n * h..][..n * h]).copied().collect();
    let share = share(rows);
    let tasks = next.par_chunks_mut(share * n * h).zip(x.par_chunks_mut(share * width)).zip(parents.par_chunks(share));
    tasks.for_each(|((next, x), parents)| {
        // What is inside the GRU's reset gate; an LSTM has its cell there.
        let mut inner = vec![0.0; h];
        for ((next, x), &parent) in next.chunks_exact_mut(n * h).zip(x.chunks_exact_mut(width)).zip(parents) {
            let (hidden, cells) = next.split_at_mut(h);
            let inner = if cells.is_empty() { &mut inner[..] } else { cells };
            gates::infer(cell, x, &z[parent as usize * width..][..width], &bias, inner, hidden);
        }
    });
    Tensor::from_data(TensorData::new(next, [rows, n * h]), &device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn a_step_of_shared_states_equals_a_sequence_of_one_step() {
        let (device, h) = (Device::flex(), 19);
        let parents = [2_u32, 0, 0, 2, 1, 2, 2];
        for cell in [Cell::Rnn, Cell::Lstm, Cell::Gru] {
            let draw = |dims: [usize; 2]| Tensor::<2>::random(dims, Distribution::Default, &device);
            let (x, weight) = (draw([parents.len(), cell.gates() * h]), draw([h, cell.gates() * h]));
            let (bias, states) = (draw([1, cell.biases() * h]).squeeze_dim::<1>(0), draw([3, cell.states() * h]));
            let own = parents.map(|parent| states.clone().narrow(0, parent as usize, 1));
            let run = Recurrence { cell, reverse: false, lengths: None };
            let own = Tensor::cat(own.to_vec(), 0);
            let expected = recurrent(x.clone().unsqueeze_dim(1), weight.clone(), bias.clone(), own, &run).state();
            let given = recurrent_step(cell, x, &Weight::new(weight), bias, states, &parents);
            let error = (given - expected).abs().max().into_scalar::<f32>();
            assert!(error < 1e-5, "{cell:?}: {error}");
        }
    }
}
