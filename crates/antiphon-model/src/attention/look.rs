//! Looks at memories, and what they show.

use std::sync::Arc;

use antiphon_kernels::host;
use burn::tensor::Tensor;

use super::{AttentionState, Prepared};

/// What a look is to tell, beside the context.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked<'a> {
    /// Where it looked. The context may then be off the graph.
    pub(crate) weights: bool,
    /// How much of that it had looked at before, by a kind with a coverage.
    pub(crate) again: bool,
    /// `[B]`: after how many looks of each row what is remembered is asked; after all of them if absent.
    pub(crate) lengths: Option<&'a Arc<[u32]>>,
}

/// What a look gave.
pub(crate) struct Look {
    /// `[B, T, M]`.
    pub(crate) context: Tensor<3>,
    /// `[B·N, T, S]` of each memory, if they were wanted.
    pub(crate) weights: Vec<Tensor<3>>,
    /// `[B, T]`: `Σ min(a, c)`, the mean over heads, if it was wanted and there is a coverage `c`.
    pub(crate) again: Option<Tensor<2>>,
    /// What is remembered now.
    pub(crate) state: AttentionState,
}

impl Look {
    /// Looks at several memories as one: contexts side by side.
    pub(crate) fn beside(mut looks: Vec<Self>) -> Self {
        if looks.len() == 1 {
            return looks.remove(0);
        }
        let count = looks.len() as f64;
        let again: Vec<Tensor<2>> = looks.iter().filter_map(|look| look.again.clone()).collect();
        let again = again.into_iter().reduce(|sum, again| sum + again).map(|sum| sum / count);
        let context = Tensor::cat(looks.iter().map(|look| look.context.clone()).collect(), 2);
        let (weights, state): (Vec<_>, Vec<_>) = looks.into_iter().map(|look| (look.weights, look.state)).unzip();
        Self { context, weights: weights.concat(), again, state: state.concat() }
    }
}

/// What single looks at some memories saw, a row for each query: `[B, S]`. Of several heads it is the mean. Several memories stand
/// one behind another as in [`one_behind_another`](super::one_behind_another), each of those that are not empty with an equal share of 1.
pub(crate) fn shown(mut weights: Vec<Tensor<3>>, memories: &[Prepared]) -> Vec<f32> {
    let Some(first) = memories.first() else { return Vec::new() };
    let width = match memories {
        [only] if only.heads == 1 => return weights.pop().map(host).unwrap_or_default(),
        [only] => only.steps(),
        several => {
            let rows = first.over.lengths.len() / first.heads;
            let real = |row: usize| several.iter().map(|prepared| prepared.over.lengths[row * prepared.heads]).sum();
            (0..rows).map(real).max().unwrap_or(0).max(1) as usize
        }
    };
    let weights: Vec<Vec<f32>> = weights.into_iter().map(host).collect();
    let rows = weights.first().map_or(0, |weights| weights.len() / (first.heads * first.steps()));
    let mut all = vec![0.0; rows * width];
    for (b, row) in all.chunks_exact_mut(width).enumerate() {
        let filled = memories.iter().filter(|prepared| prepared.real_steps(b) > 0).count();
        let mut from = 0;
        for (weights, prepared) in weights.iter().zip(memories) {
            let (steps, n, real) = (prepared.steps(), prepared.heads, prepared.real_steps(b));
            let share = (filled * n) as f32;
            for head in weights[b * n * steps..][..n * steps].chunks_exact(steps) {
                row[from..from + real].iter_mut().zip(head).for_each(|(sum, weight)| *sum += weight / share);
            }
            from += real;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use antiphon_core::random::Key;
    use antiphon_kernels::{Over, attend_with_weights, linear};
    use burn::tensor::{Device, TensorData};

    use super::super::{Attention, AttentionConfig};
    use super::*;

    fn random<const D: usize>(name: &str, dims: [usize; D]) -> Tensor<D> {
        let key = Key::from_seed(6).named(name);
        let n: usize = dims.iter().product();
        let numbers: Vec<f32> = (0..n as u64).map(|i| key.normal(i) as f32 * 0.7).collect();
        Tensor::from_data(TensorData::new(numbers, dims), &Device::flex())
    }

    fn assert_close(found: &[f32], expected: &[f32], what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let same = found.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-5);
        assert!(same, "{what}: {found:?} is not {expected:?}");
    }

    const KINDS: [&str; 3] = [
        r#"{"kind": "dot", "heads": 3}"#,
        r#"{"kind": "general", "heads": 3}"#,
        r#"{"kind": "additive", "width": 12, "heads": 3}"#,
    ];

    #[test]
    fn each_head_looks_with_its_own_parts() {
        let (memory, lengths): (_, Arc<[u32]>) = (random("memory", [4, 5, 6]), [5, 2, 0, 1].into());
        let states = random("states", [3, 1, 6]);
        for text in KINDS {
            let config: AttentionConfig = serde_json::from_str(text).unwrap();
            let attention = config.init(6, 6, Key::from_seed(2), &Device::flex()).unwrap();
            // The rows of a search look at the memory of their own request.
            let owners = [1, 3, 1];
            let prepared = attention.prepare(memory.clone(), &lengths).owned_by(&owners);
            let asked = Asked { weights: true, ..Asked::default() };
            let look = attention.look(attention.query(states.clone()), &prepared, Vec::new(), asked);

            let (query, keys, energy) = match &attention {
                Attention::Dot(_) => (states.clone(), memory.clone(), None),
                Attention::General(of) => (states.clone(), linear(memory.clone(), of.keys.val()), None),
                Attention::Additive(of) => {
                    let keys = linear(memory.clone(), of.keys.val());
                    (linear(states.clone(), of.query.val()), keys, Some(of.energy.val().squeeze_dim::<1>(1)))
                }
                _ => unreachable!("it is none of these"),
            };
            let values = attention.heads().values(memory.clone());
            let over = Over { lengths: lengths.clone(), owners: Some(owners.into()) };
            let (width, [_, _, value]) = (query.dims()[2] / 3, values.dims());
            let (mut contexts, mut mean) = (Vec::new(), Tensor::zeros([3, 1, 5], &Device::flex()));
            for head in 0..3 {
                let part = |x: &Tensor<3>| x.clone().narrow(2, head * width, width);
                let energy = energy.clone().map(|energy| energy.narrow(0, head * width, width));
                let values = values.clone().reshape([4, 3, 5, value]).narrow(1, head, 1).squeeze_dim(1);
                let (context, weights) = attend_with_weights(part(&query), part(&keys), values, energy, &over);
                contexts.push(context);
                mean = mean + weights / 3.0;
            }
            assert_close(&host(look.context), &host(Tensor::cat(contexts, 2)), text);
            assert_close(&shown(look.weights, &[prepared]), &host(mean), text);
        }
    }

    #[test]
    fn what_several_memories_show_stands_without_padding_between() {
        let config: AttentionConfig = serde_json::from_str(KINDS[1]).unwrap();
        let attention = config.init(6, 6, Key::from_seed(2), &Device::flex()).unwrap();
        let (first, second): (Arc<[u32]>, Arc<[u32]>) = ([4, 2, 3].into(), [2, 0, 3].into());
        let memories = [(4, first), (3, second)]
            .map(|(steps, lengths)| attention.prepare(random("memory", [3, steps, 6]), &lengths).owned_by(&[1, 0, 1]));
        let asked = Asked { weights: true, ..Asked::default() };
        let looks = memories.each_ref().map(|memory| attention.look(random("q", [3, 1, 6]), memory, vec![], asked));
        let own = looks.each_ref().map(|look| host(look.weights[0].clone().reshape([3, 3, 0]).mean_dim(1)));
        let all = shown(Look::beside(looks.into()).weights, &memories);
        // The widest row of all memories, which none of these looks at, has six steps.
        let half = |x: &[f32]| x.iter().map(|x| x / 2.0).collect::<Vec<_>>();
        let expected = [&own[0][..2], &[0.0; 4], &half(&own[0][4..8]), &half(&own[1][3..5]), &own[0][8..10], &[0.0; 4]];
        assert_close(&all, &expected.concat(), "shown");
    }
}
