//! One step of a recurrent layer in search.

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use super::gates::{self, Units, blocks_mut};
use super::{Cell, Recurrence, recurrent};
use crate::memory::{unwritten, written};
use crate::rows::select_rows;
use crate::weight::{PackedWeight, host, multiply_rows, share};

/// Rows of which some are the same: row `b` is row `numbers[b]` of a table. Each is computed once.
///
/// The hypotheses of a beam often grow from few parents, and end in few different tokens.
#[derive(Debug, Clone)]
pub struct Shared<'a> {
    /// `[U, W]`.
    pub table: Tensor<2>,
    /// `[B]`, below `U`.
    pub numbers: &'a [u32],
}

impl Shared<'_> {
    /// Each row by itself: `[B, W]`.
    fn apart(self) -> Tensor<2> {
        select_rows(self.table, self.numbers)
    }
}

/// A step of rows that share states, and inputs.
///
/// `x`: a table `[U, G·H]` of projected inputs · `weight`: `[H, G·H]` · `bias`: `[biases·H]` · `states`: a table `[P, N·H]` ·
/// `feed`: a weight `[A, G·H]` and what is fed back through it, `[P, A]`, a row for each state → `[B, N·H]`; not
/// differentiable.
///
/// # Panics
/// If `x` and `states` do not number as many rows, or a number lies beyond its table.
pub fn recurrent_step(
    cell: Cell,
    x: Shared<'_>,
    weight: &PackedWeight,
    bias: Tensor<1>,
    states: Shared<'_>,
    feed: Option<(&PackedWeight, Tensor<2>)>,
) -> Tensor<2> {
    let (width, rows, device) = (x.table.dims()[1], x.numbers.len(), x.table.device());
    let (h, n) = (width / cell.gates(), cell.states());
    assert_eq!(states.numbers.len(), rows, "a state for each row");
    let Some(packed) = weight.as_packed() else {
        let mut x = x.apart();
        if let Some((weight, fed)) = feed {
            x = x + Shared { table: weight.multiply(fed), numbers: states.numbers }.apart();
        }
        let run = Recurrence { cell, reverse: false, lengths: None };
        return recurrent(x.unsqueeze_dim(1), weight.tensor(), bias, states.apart(), &run).state();
    };
    let (inputs, bias, parents) = (host(x.table), host(bias), host(states.table));
    let z = match n {
        1 => multiply_rows(packed, &parents),
        _ => multiply_rows(packed, &parents.chunks_exact(n * h).map(|state| &state[..h]).collect::<Vec<_>>().concat()),
    };
    let fed = feed.map(|(weight, fed)| host(weight.multiply(fed)));
    let mut next = unwritten(rows * n * h);
    let share = share(rows);
    let tasks =
        next.par_chunks_mut(share * n * h).zip(x.numbers.par_chunks(share)).zip(states.numbers.par_chunks(share));
    tasks.for_each(|((next, numbers), of)| {
        // What is inside the GRU's reset gate; an LSTM has its cell there.
        let (mut x, mut inner) = (vec![0.0; width], vec![0.0; h]);
        for ((next, &number), &parent) in next.chunks_exact_mut(n * h).zip(numbers).zip(of) {
            let (number, parent) = (number as usize, parent as usize);
            x.copy_from_slice(&inputs[number * width..][..width]);
            if let Some(fed) = &fed {
                x.iter_mut().zip(&fed[parent * width..][..width]).for_each(|(x, fed)| *x += fed);
            }
            let next = next.write_copy_of_slice(&parents[parent * n * h..][..n * h]);
            let (hidden, cells) = next.split_at_mut(h);
            let inner = if cells.is_empty() { &mut inner[..] } else { cells };
            let (x, z) = (blocks_mut(&mut x, h), &z[parent * width..][..width]);
            gates::infer(cell, x, z, Units::all(h).pieces(&bias), inner, hidden);
        }
    });
    // SAFETY: every row is written.
    let next = unsafe { written(next) };
    Tensor::from_data(TensorData::new(next, [rows, n * h]), &device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn a_step_of_what_is_shared_equals_a_sequence_of_one_step() {
        let (device, h, fed) = (Device::flex(), 19, 7);
        let (parents, numbers) = ([2_u32, 0, 0, 2, 1, 2, 2], [0_u32, 1, 1, 0, 3, 2, 0]);
        for cell in [Cell::Rnn, Cell::Lstm, Cell::Gru] {
            let draw = |dims: [usize; 2]| Tensor::<2>::random(dims, Distribution::Normal(0.0, 0.5), &device);
            let (x, weight) = (draw([4, cell.gates() * h]), draw([h, cell.gates() * h]));
            let (bias, states) = (draw([1, cell.biases() * h]).squeeze_dim::<1>(0), draw([3, cell.states() * h]));
            let (feed, output) = (draw([fed, cell.gates() * h]), draw([3, fed]));
            let shared = |table: &Tensor<2>, numbers| Shared { table: table.clone(), numbers };
            let (x, states) = (shared(&x, &numbers), shared(&states, &parents));
            for fed in [false, true] {
                let mut own = x.clone().apart();
                if fed {
                    own = own + shared(&output, &parents).apart().matmul(feed.clone());
                }
                let run = Recurrence { cell, reverse: false, lengths: None };
                let start = states.clone().apart();
                let expected = recurrent(own.unsqueeze_dim(1), weight.clone(), bias.clone(), start, &run).state();
                let (weight, feed) = (PackedWeight::new(weight.clone()), PackedWeight::new(feed.clone()));
                let feed = fed.then(|| (&feed, output.clone()));
                let given = recurrent_step(cell, x.clone(), &weight, bias.clone(), states.clone(), feed);
                let error = (given - expected).abs().max().into_scalar::<f32>();
                assert!(error < 1e-5, "{cell:?}: {error}");
            }
        }
    }
}
