//! What a step of search makes of a row has the same bits whatever stands beside it, on any number of threads.

use antiphon_core::Mask;
use antiphon_core::random::Key;
use antiphon_kernels::{
    Cell, OutputLayer, Over, PackedWeight, Past, Shared, attend, attend_in_turn, attend_with_weights,
    gated_linear_unit, layer_norm, linear, recurrent_step, tanh,
};
use burn::tensor::{Device, Tensor, TensorData};

/// How many rows there are: around the heights of tiles, the sizes of tasks and the shares of threads.
const ROWS: [usize; 18] = [1, 2, 3, 4, 8, 9, 10, 16, 17, 18, 32, 34, 65, 66, 101, 258, 500, 501];

/// Widths of states: narrower than a vector, not whole vectors, wider than a panel.
const WIDTHS: [usize; 3] = [5, 33, 200];

fn numbers(name: &str, n: usize) -> Vec<f32> {
    let key = Key::from_seed(12).named(name);
    (0..n as u64).map(|i| key.normal(i) as f32 * 0.6).collect()
}

fn tensor<const D: usize>(numbers: Vec<f32>, dims: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers, dims), &Device::flex())
}

fn random<const D: usize>(name: &str, dims: [usize; D]) -> Tensor<D> {
    tensor(numbers(name, dims.iter().product()), dims)
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Takes a step of one row of `width` numbers alone, and then among others at several places.
///
/// `step` makes as many numbers of each row, of which it is told which one is looked at.
fn hold(what: &str, width: usize, step: impl Fn(Tensor<2>, usize) -> Vec<f32> + Sync) {
    let bits = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let row = numbers("the row", width);
    let alone = bits(&step(tensor(row.clone(), [1, width]), 0));
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for rows in ROWS {
            for place in [0, rows / 3, rows - 1] {
                let mut all = numbers(&format!("beside it {place}"), rows * width);
                all[place * width..][..width].copy_from_slice(&row);
                let found = pool.install(|| step(tensor(all, [rows, width]), place));
                let found = bits(&found[place * alone.len()..][..alone.len()]);
                assert_eq!(found, alone, "{what}: row {place} of {rows}, {threads} threads");
            }
        }
    }
}

#[test]
fn products_with_a_weight() {
    // General products sum in blocks of 512.
    for i in [5, 33, 200, 600] {
        for o in [5, 37, 48, 200, 1000] {
            let weight = random("weight", [i, o]);
            let packed = PackedWeight::new(weight.clone());
            hold(&format!("[{i}, {o}]"), i, |x, _| host(packed.multiply(x)));
            let transposed = PackedWeight::transposed(random("weight", [o, i]));
            hold(&format!("[{o}, {i}] transposed"), i, |x, _| host(transposed.multiply(x)));
            hold(&format!("a sequence by [{i}, {o}]"), i, |x, _| host(linear(x.unsqueeze_dim(1), weight.clone())));
        }
    }
    hold("tanh", 33, |x, _| host(tanh(x)));
    hold("gates", 66, |x, _| host(gated_linear_unit(x.unsqueeze_dim(1))));
    let (gain, bias) = (random("gain", [33]), random("bias", [33]));
    hold("layer norm", 33, |x, _| host(layer_norm(x.unsqueeze_dim(1), gain.clone(), bias.clone())));
}

#[test]
fn steps_of_recurrent_layers() {
    for h in WIDTHS {
        for cell in [Cell::Rnn, Cell::Lstm, Cell::Gru] {
            let (g, n, fed) = (cell.gates() * h, cell.states() * h, 7);
            let (weight, feed) =
                (PackedWeight::new(random("weight", [h, g])), PackedWeight::new(random("feed", [fed, g])));
            let bias = random("bias", [cell.biases() * h]);
            hold(&format!("{cell:?} of {h}"), g + n + fed, |rows, _| {
                let count = rows.dims()[0] as u32;
                let own: Vec<u32> = (0..count).collect();
                // The tables hold the rows the other way round, as no row of a search stands where its parent stood.
                let turned = rows.flip([0]);
                let numbers: Vec<u32> = (0..count).rev().collect();
                let part = |from: usize, width: usize| turned.clone().narrow(1, from, width);
                let x = Shared { table: part(0, g).flip([0]), numbers: &own };
                let states = Shared { table: part(g, n), numbers: &numbers };
                host(recurrent_step(cell, x, &weight, bias.clone(), states, Some((&feed, part(g + n, fed)))))
            });
        }
    }
}

#[test]
fn looks_at_a_memory() {
    for a in WIDTHS {
        for (m, s, longer) in [(33, 1, 4), (200, 6, 11)] {
            // The row looks at one source, which is alone, or padded beside longer ones.
            let (keys, memory) = (numbers("keys", s * a), numbers("memory", s * m));
            let energy = || Some(random("energy", [a]));
            // The last two hear of a coverage, and of a location by as many filters.
            for (energy, heard) in [(None, None), (energy(), None), (energy(), Some(0)), (energy(), Some(3))] {
                let ways: &[bool] = if heard.is_some() { &[true] } else { &[false, true] };
                for &with_weights in ways {
                    let what = format!("{a} over {s} × {m}, additive {}, heard {heard:?}", energy.is_some());
                    hold(&what, a, |query, place| {
                        let rows = query.dims()[0];
                        let (sources, steps) = if rows == 1 { (1, s) } else { (3, longer) };
                        let padded = |own: &[f32], width: usize| {
                            let mut all = numbers("other sources", sources * steps * width);
                            all[(sources - 1) * steps * width..][..s * width].copy_from_slice(own);
                            tensor(all, [sources, steps, width])
                        };
                        let mut owners: Vec<u32> = (0..rows).map(|row| (row % sources) as u32).collect();
                        owners[place] = sources as u32 - 1;
                        let mut lengths = vec![longer as u32; sources];
                        lengths[sources - 1] = s as u32;
                        let over = Over { lengths: lengths.into(), owners: Some(owners.into()) };
                        let (keys, memory) = (padded(&keys, a), padded(&memory, m));
                        let query = query.unsqueeze_dim(1);
                        if !with_weights {
                            return host(attend(query, keys, memory, energy.clone(), &over));
                        }
                        let (contexts, weights) = match (energy.clone(), heard) {
                            (Some(energy), Some(filters)) => {
                                let mut seen = numbers("what others saw", rows * steps);
                                seen[place * steps..][..steps].fill(0.0);
                                seen[place * steps..][..s].copy_from_slice(&numbers("seen", s));
                                let filters = (filters > 0).then(|| random("filters", [filters, 5]));
                                let features = filters.as_ref().map_or(1, |filters| filters.dims()[0]);
                                let (seen, weight) = (tensor(seen, [rows, steps]), random("features", [features, a]));
                                attend_in_turn(query, keys, memory, energy, Past { seen, weight, filters }, &over)
                            }
                            _ => attend_with_weights(query, keys, memory, energy.clone(), &over),
                        };
                        let weights = weights.narrow(2, 0, s);
                        host(Tensor::cat(vec![contexts, weights], 2))
                    });
                }
            }
        }
    }
}

#[test]
fn scores_of_tokens() {
    for h in WIDTHS {
        for v in [37, 1000] {
            let output = OutputLayer::new(random("output", [v, h]), random("output bias", [v]));
            hold(&format!("all {v} tokens of {h}"), h, |states, _| output.log_probs(states));
            hold(&format!("the best of {v} tokens of {h}"), h, |states, place| {
                let mask = |row: usize| match row % 3 {
                    _ if row == place => Mask::Banned(vec![9]),
                    0 => Mask::Free,
                    1 => Mask::Banned(vec![4, 30, 31]),
                    _ => Mask::Allowed(vec![2, 3, 4, 5, 6]),
                };
                let masks: Vec<Mask> = (0..states.dims()[0]).map(mask).collect();
                let best = output.best(states, &[1, 2], &masks, 5);
                best.into_iter().flatten().flat_map(|(id, log_prob)| [id as f32, log_prob]).collect()
            });
        }
    }
}
