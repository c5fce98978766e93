//! Attention, and the decoder that it is a part of.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_kernels::{Cell, FedDecoder, Feeding, Over, attend, attend_with_weights, fed_decoder, serves_fed_decoder};
use burn::tensor::{Device, Tensor, TensorData};

use super::{Found, compare, given, leaf, loss_of, numbers};

/// Numbers of about `1 / √rows`, so that no sum is beyond what a tanh tells apart.
fn weight<const D: usize>(name: &str, dims: [usize; D], device: &Device) -> Tensor<D> {
    let scale = 1.0 / (dims[0] as f64).sqrt();
    Tensor::from_inner(given(name, dims, &device.clone().inner()) * scale).require_grad()
}

/// Steps beyond the rows' lengths are no numbers.
fn padded(name: &str, [b, t, width]: [usize; 3], lengths: &[u32], device: &Device) -> Tensor<3> {
    let mut values = numbers(given::<3>(name, [b, t, width], &Device::flex()));
    for (row, &length) in values.chunks_exact_mut(t * width).zip(lengths) {
        row[length as usize * width..].fill(f32::NAN);
    }
    Tensor::<3>::from_data(TensorData::new(values, [b, t, width]), device).require_grad()
}

/// `B`, `T`, `H`, `S`, `R`, `M`, and `A` where scores are additive.
fn decoder(sizes: [usize; 7], cell: Cell, additive: bool, rate: f64, device: &Device, found: &mut Found) {
    let [b, t, h, s, r, m, a] = sizes;
    let (g, a) = (cell.gates() * h, if additive { a } else { h });
    let lengths: Arc<[u32]> = (0..b).map(|row| (row * 3 % (t + 1)) as u32).collect();
    let over = Over { lengths: (0..b).map(|row| (row * 2 % (s + 1)) as u32).collect(), owners: None };
    let x = padded("x", [b, t, g], &lengths, device);
    let (keys, memory) =
        (padded("keys", [b, s, a], &over.lengths, device), padded("memory", [b, s, m], &over.lengths, device));
    let state = leaf("state", [b, h * cell.states()], device);
    let (recurrent, bias) = (weight("recurrent", [h, g], device), leaf("bias", [h * cell.biases()], device));
    let (feed, query, energy) =
        (weight("feed", [r, g], device), weight("query", [h, a], device), weight("energy", [a], device));
    let (of_state, of_context) = (weight("readout state", [h, r], device), weight("readout context", [m, r], device));
    let readout_bias = leaf("readout bias", [r], device);
    let tensors = FedDecoder {
        x: x.clone(),
        recurrent: recurrent.clone(),
        bias: bias.clone(),
        state: state.clone(),
        feed: feed.clone(),
        keys: keys.clone(),
        memory: memory.clone(),
        additive: additive.then(|| (query.clone(), energy.clone())),
        readout_state: of_state.clone(),
        readout_context: of_context.clone(),
        readout_bias: readout_bias.clone(),
    };
    assert!(serves_fed_decoder(&tensors.x, &tensors.memory));
    let dropout = (rate > 0.0).then(|| (rate, (0..t as u64).map(|t| Key::from_seed(3).numbered(t)).collect()));
    let (outputs, last) = fed_decoder(tensors, &Feeding { cell, lengths, over, dropout });
    let gradients = loss_of(outputs.clone()).backward();
    let mut push = |part: &str, numbers: Vec<f32>| {
        found.push((format!("fed {cell:?}, {sizes:?}, additive {additive}, dropout {rate}: {part}"), numbers));
    };
    push("outputs", numbers(outputs.inner()));
    push("last state", numbers(last));
    push("gradient of x", numbers(x.grad(&gradients).unwrap()));
    push("gradient of the recurrent weight", numbers(recurrent.grad(&gradients).unwrap()));
    push("gradient of the bias", numbers(bias.grad(&gradients).unwrap()));
    push("gradient of the state", numbers(state.grad(&gradients).unwrap()));
    push("gradient of what is fed back", numbers(feed.grad(&gradients).unwrap()));
    push("gradient of the keys", numbers(keys.grad(&gradients).unwrap()));
    push("gradient of the memory", numbers(memory.grad(&gradients).unwrap()));
    if additive {
        push("gradient of the query", numbers(query.grad(&gradients).unwrap()));
        push("gradient of the energy", numbers(energy.grad(&gradients).unwrap()));
    }
    push("gradient of the readout's state", numbers(of_state.grad(&gradients).unwrap()));
    push("gradient of the readout's context", numbers(of_context.grad(&gradients).unwrap()));
    push("gradient of the readout's bias", numbers(readout_bias.grad(&gradients).unwrap()));
}

fn decoders(device: &Device) -> Found {
    let (mut found, learning) = (Found::new(), device.clone().autodiff());
    for cell in [Cell::Rnn, Cell::Lstm, Cell::Gru] {
        for (additive, rate) in [(false, 0.0), (false, 0.4), (true, 0.0), (true, 0.4)] {
            decoder([19, 5, 30, 4, 21, 27, 9], cell, additive, rate, &learning, &mut found);
        }
    }
    // So few units that a cube takes all steps of its rows, if it can be told when other cubes have written.
    for (cell, additive, rate) in [(Cell::Rnn, true, 0.4), (Cell::Lstm, true, 0.4), (Cell::Gru, false, 0.0)] {
        decoder([19, 5, 6, 4, 5, 7, 9], cell, additive, rate, &learning, &mut found);
    }
    // Whole lines, so that cubes may take all steps together, if they can wait for each other.
    for (cell, additive) in [(Cell::Rnn, false), (Cell::Lstm, true), (Cell::Gru, false), (Cell::Gru, true)] {
        decoder([37, 7, 64, 5, 40, 32, 96], cell, additive, 0.3, &learning, &mut found);
    }
    decoder([3, 2, 70, 50, 37, 300, 41], Cell::Gru, true, 0.2, &learning, &mut found);
    decoder([64, 6, 512, 11, 512, 512, 512], Cell::Lstm, true, 0.3, &learning, &mut found);
    decoder([64, 6, 512, 11, 512, 512, 512], Cell::Gru, false, 0.3, &learning, &mut found);
    found
}

fn looks(device: &Device) -> Found {
    let (mut found, learning) = (Found::new(), device.clone().autodiff());
    for ([b, t, s, a, m], lengths) in [
        ([1, 1, 1, 1, 1], vec![1]),
        ([3, 5, 4, 33, 70], vec![4, 1, 0]),
        ([9, 1, 77, 16, 64], vec![77, 0, 33, 32, 31, 1, 64, 65, 3]),
        ([8, 9, 21, 512, 512], vec![21, 3, 20, 0, 1, 21, 9, 8]),
    ] {
        // One energy for all rows, and one for each head.
        let heads = if b % 3 == 0 { 3 } else { 1 };
        let over = Over { lengths: lengths.into(), owners: None };
        for additive in [false, true] {
            let query = leaf::<3>("query", [b, t, a], &learning);
            let query = if additive { query } else { weight("query", [a, b, t], &learning).permute([1, 2, 0]) };
            let (q, v) =
                (Tensor::from_inner(query.inner()).require_grad(), weight::<1>("energy", [heads * a], &learning));
            let k = padded("keys", [b, s, a], &over.lengths, &learning);
            let x = padded("memory", [b, s, m], &over.lengths, &learning);
            let contexts = attend(q.clone(), k.clone(), x.clone(), additive.then(|| v.clone()), &over);
            let gradients = loss_of(contexts.clone()).backward();
            let name = |part: &str| format!("{b} rows of {t} queries over {s} steps, additive {additive}: {part}");
            found.push((name("contexts"), numbers(contexts.inner())));
            found.push((name("gradient of the queries"), numbers(q.grad(&gradients).unwrap())));
            found.push((name("gradient of the keys"), numbers(k.grad(&gradients).unwrap())));
            found.push((name("gradient of the memory"), numbers(x.grad(&gradients).unwrap())));
            if additive {
                found.push((name("gradient of the energy"), numbers(v.grad(&gradients).unwrap())));
            }
        }
    }
    let over = Over { lengths: [5, 0, 3].into(), owners: Some([0, 2, 2, 0, 1].into()) };
    for energy in [None, Some(given("energy", [6], device))] {
        let (query, keys) = (given("query", [5, 2, 6], device), given("keys", [3, 5, 6], device));
        let (contexts, weights) = attend_with_weights(query, keys, given("memory", [3, 5, 7], device), energy, &over);
        found.extend([("owned contexts".into(), numbers(contexts)), ("owned weights".into(), numbers(weights))]);
    }
    found
}

#[test]
#[ignore = "slow"]
fn a_fed_decoder_on_the_gpu_is_that_of_the_cpu() {
    compare(decoders);
}

#[test]
#[ignore = "slow"]
fn looks_on_the_gpu_are_those_of_the_cpu() {
    compare(looks);
}
