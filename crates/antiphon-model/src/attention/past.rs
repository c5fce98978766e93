//! What attention remembers of where it has looked.

use antiphon_kernels::{Past, attend_in_turn, choose_rows, select_rows};
use burn::module::Param;
use burn::tensor::{Tensor, TensorData};

use super::heads::Heads;
use super::look::{Asked, Look};
use super::{AttentionState, Prepared};

/// The parameters by which additive scores hear of the looks before.
pub(super) struct Hears<'a> {
    /// `[F, A]`: of each feature.
    pub(super) features: &'a Param<Tensor<2>>,
    /// `[N·F, 2r + 1]`, which make features of the last weights; without them the sum of all weights is the one feature.
    pub(super) filters: Option<&'a Param<Tensor<2>>>,
}

impl Hears<'_> {
    /// What was seen before the first look, `[B, N·S]`: nothing, or, for filters, every real step alike.
    pub(super) fn start(&self, prepared: &Prepared) -> Tensor<2> {
        let [rows, steps, _] = prepared.memory.dims();
        let (dims, device) = ([rows / prepared.heads, prepared.heads * steps], prepared.memory.device().inner());
        if self.filters.is_none() {
            return Tensor::zeros(dims, &device);
        }
        let alike = prepared.over.lengths.iter().flat_map(|&real| {
            let weight = 1.0 / real.max(1) as f32;
            (0..steps).map(move |step| if step < real as usize { weight } else { 0.0 })
        });
        Tensor::from_data(TensorData::new(alike.collect::<Vec<f32>>(), dims), &device)
    }

    /// Looks in turn: queries `[B·N, T, A/N]`, after `seen` `[B, N·S]`.
    pub(super) fn look(
        &self,
        query: Tensor<3>,
        prepared: &Prepared,
        energy: Tensor<1>,
        seen: &Tensor<2>,
        heads: &Heads,
        asked: Asked<'_>,
    ) -> Look {
        let Prepared { memory, keys, over, .. } = prepared;
        let before = seen.clone().reshape([query.dims()[0], prepared.steps()]);
        let past = Past {
            seen: before.clone(),
            weight: self.by_head(heads.count()),
            filters: self.filters.map(|filters| filters.val()),
        };
        let (contexts, weights) = attend_in_turn(query, keys.clone(), memory.clone(), energy, past, over);
        let again = (asked.again && self.filters.is_none()).then(|| again(&before, &weights, heads.count()));
        let lengths = asked.lengths.map(|lengths| heads.lengths(lengths));
        let state: AttentionState = vec![self.after(before, weights.clone(), lengths.as_deref()).reshape(seen.dims())];
        Look {
            context: heads.join(contexts),
            weights: asked.weights.then_some(weights).into_iter().collect(),
            again,
            state,
        }
    }

    /// `[F, A]` → `[N·F, A/N]`: the part of each head.
    fn by_head(&self, n: usize) -> Tensor<2> {
        let features = self.features.val();
        let [f, a] = features.dims();
        match n {
            1 => features,
            _ => features.reshape([f, n, a / n]).swap_dims(0, 1).reshape([n * f, a / n]),
        }
    }

    /// What is seen `[R, S]` after looks with these weights `[R, T, S]`, of each row after so many of them, or after all.
    fn after(&self, before: Tensor<2>, weights: Tensor<3>, lengths: Option<&[u32]>) -> Tensor<2> {
        let [rows, turns, steps] = weights.dims();
        match (self.filters, lengths) {
            (None, None) => before + weights.sum_dim(1).reshape([rows, steps]),
            (None, Some(lengths)) => {
                let real = lengths.iter().flat_map(|&n| (0..turns).map(move |t| f32::from(t < n as usize)));
                let real = TensorData::new(real.collect::<Vec<f32>>(), [rows, 1, turns]);
                let real = Tensor::<3>::from_data(real, &weights.device().inner()).cast(weights.dtype());
                before + real.matmul(weights).reshape([rows, steps])
            }
            (Some(_), None) => weights.narrow(1, turns - 1, 1).reshape([rows, steps]),
            (Some(_), Some(lengths)) => last_real(weights, Some(before), lengths),
        }
    }
}

/// `[B, T]`: `Σ min(a, c)` of each look, the mean over heads, from the coverage before the first `[B·N, S]` and the weights
/// `[B·N, T, S]`.
fn again(before: &Tensor<2>, weights: &Tensor<3>, heads: usize) -> Tensor<2> {
    let [rows, turns, steps] = weights.dims();
    let mut coverage = before.clone().reshape([rows, 1, steps]).expand([rows, turns, steps]);
    if turns > 1 {
        let earlier = (0..turns * turns).map(|i| f32::from(i % turns < i / turns));
        let earlier = TensorData::new(earlier.collect::<Vec<f32>>(), [1, turns, turns]);
        let earlier = Tensor::<3>::from_data(earlier, &weights.device().inner()).cast(weights.dtype());
        coverage = coverage + earlier.expand([rows, turns, turns]).matmul(weights.clone());
    }
    let again = weights.clone().min_pair(coverage).sum_dim(2);
    again.reshape([rows / heads, heads, turns]).mean_dim(1).reshape([rows / heads, turns])
}

/// `[B, T, R]` → `[B, R]`: each row's last real step, or `before` (else zero) where it has none.
pub(crate) fn last_real(steps: Tensor<3>, before: Option<Tensor<2>>, lengths: &[u32]) -> Tensor<2> {
    let [rows, count, width] = steps.dims();
    let last: Vec<u32> = lengths.iter().enumerate().map(|(b, &n)| (b * count) as u32 + n.saturating_sub(1)).collect();
    let last = select_rows(steps.reshape([rows * count, width]), &last);
    let live: Vec<bool> = lengths.iter().map(|&n| n > 0).collect();
    match live.contains(&false) {
        true => choose_rows(before.unwrap_or_else(|| last.zeros_like()), last, &live),
        false => last,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use antiphon_core::random::Key;
    use antiphon_kernels::host;
    use burn::tensor::Device;

    use super::super::AttentionConfig;
    use super::*;

    #[test]
    fn before_the_first_look_all_real_steps_are_alike_or_nothing_was_seen() {
        let memory = || Tensor::<3>::ones([4, 5, 6], &Device::flex());
        for (kind, seen) in [
            (r#"{"kind": "location", "heads": 2, "width": 4}"#, [5, 2, 0, 1]),
            (r#"{"kind": "additive", "heads": 2, "width": 4, "coverage": true}"#, [0; 4]),
        ] {
            let config: AttentionConfig = serde_json::from_str(kind).unwrap();
            let attention = config.init(3, 6, Key::from_seed(1), &Device::flex()).unwrap();
            let start = attention.start(&attention.prepare(memory(), &[5, 2, 0, 1].into()));
            let [start] = <[_; 1]>::try_from(start).unwrap();
            assert_eq!(start.dims(), [4, 2 * 5]);
            for (row, real) in host(start).chunks_exact(10).zip(seen) {
                let expected = |step: usize| if step < real { 1.0 / real as f32 } else { 0.0 };
                assert!(row.iter().enumerate().all(|(i, &weight)| weight == expected(i % 5)), "{kind}: {row:?}");
            }
        }
    }

    /// What looks leave behind is what the last real one of each row saw, and each look's share of what was seen before it is that of
    /// looks taken one by one.
    #[test]
    fn what_is_left_behind_is_that_of_each_rows_last_look() {
        let random = |name: &str, dims: [usize; 3]| {
            let key = Key::from_seed(4).named(name);
            let n: usize = dims.iter().product();
            let numbers: Vec<f32> = (0..n as u64).map(|i| key.normal(i) as f32).collect();
            Tensor::<3>::from_data(TensorData::new(numbers, dims), &Device::flex())
        };
        for kind in [
            r#"{"kind": "location", "heads": 2, "width": 4, "filters": 3, "reach": 2}"#,
            r#"{"kind": "additive", "heads": 2, "width": 4, "coverage": true}"#,
        ] {
            let config: AttentionConfig = serde_json::from_str(kind).unwrap();
            let attention = config.init(3, 6, Key::from_seed(1), &Device::flex()).unwrap();
            let prepared = attention.prepare(random("memory", [3, 5, 6]), &[5, 3, 2].into());
            let (queries, start) = (attention.query(random("states", [3, 4, 3])), attention.start(&prepared));
            let lengths: Arc<[u32]> = [4, 0, 2].into();
            let asked = Asked { again: true, lengths: Some(&lengths), ..Asked::default() };
            let whole = attention.look(queries.clone(), &prepared, start.clone(), asked);
            let (mut state, mut left, mut again) = (start.clone(), vec![host(start[0].clone()); 1], Vec::new());
            for turn in 0..4 {
                let asked = Asked { again: true, ..Asked::default() };
                let look = attention.look(queries.clone().narrow(1, turn, 1), &prepared, state, asked);
                again.extend(look.again.map(host));
                left.push(host(look.state[0].clone()));
                state = look.state;
            }
            let is_close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
            for (row, found) in host(whole.state[0].clone()).chunks_exact(10).enumerate() {
                let expected = &left[lengths[row] as usize][row * 10..][..10];
                assert!(is_close(found, expected), "{kind}, row {row}: {found:?} is not {expected:?}");
            }
            let by_row = (0..3).flat_map(|row| again.iter().map(move |again| again[row])).collect::<Vec<f32>>();
            assert_eq!(whole.again.is_some(), kind.contains("coverage"));
            assert!(whole.again.map(host).is_none_or(|whole| is_close(&whole, &by_row)), "{kind}");
        }
    }
}
