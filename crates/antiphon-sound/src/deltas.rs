//! The slope of each column over time: how fast a band changes.

/// How many frames on each side the slope is taken over.
const REACH: usize = 2;

/// Adds the slope of each column to every frame, and the slopes of these, `orders` times: frames of `width` numbers become frames
/// of `width * (1 + orders)`.
///
/// The slope of column `c` at frame `t` is that of the line of least squares through five frames,
/// `sum_n n (c[t + n] - c[t - n]) / (2 sum_n n^2)` for `n` of 1 and 2, where a frame beyond an end is the one at that end: HTK's and
/// Kaldi's, and torchaudio's `compute_deltas`. The second order is made of the first, as HTK and torchaudio have it; in the two frames at
/// each end Kaldi's differs from that.
pub fn with_deltas(frames: &[f64], width: usize, orders: usize) -> Vec<f64> {
    let (count, blocks) = (frames.len() / width, 1 + orders);
    let mut out = vec![0.0; frames.len() * blocks];
    for (frame, out) in frames.chunks_exact(width).zip(out.chunks_exact_mut(width * blocks)) {
        out[..width].copy_from_slice(frame);
    }
    let norm = 2.0 * (1..=REACH).map(|n| (n * n) as f64).sum::<f64>();
    for order in 1..blocks {
        let from = |t: usize, column: usize| t * width * blocks + (order - 1) * width + column;
        for t in 0..count {
            for column in 0..width {
                let difference = |n: usize| {
                    let (after, before) = ((t + n).min(count - 1), t.saturating_sub(n));
                    n as f64 * (out[from(after, column)] - out[from(before, column)])
                };
                let slope = (1..=REACH).map(difference).sum::<f64>() / norm;
                out[from(t, column) + width] = slope;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(frames: &[f64], width: usize, column: usize) -> Vec<f64> {
        frames.chunks_exact(width).map(|frame| frame[column]).collect()
    }

    #[test]
    fn nothing_is_added_without_an_order_and_a_constant_does_not_change() {
        let frames = [3.5, -2.0].repeat(9);
        assert_eq!(with_deltas(&frames, 2, 0), frames);
        let both = with_deltas(&frames, 2, 2);
        assert_eq!(both, [3.5, -2.0, 0.0, 0.0, 0.0, 0.0].repeat(9));
    }

    #[test]
    fn a_ramp_changes_evenly_and_its_change_does_not() {
        let ramp: Vec<f64> = (0..20).flat_map(|t| [3.0 * f64::from(t), -f64::from(t)]).collect();
        let out = with_deltas(&ramp, 2, 2);
        for (i, slope) in [(2, 3.0), (3, -1.0)] {
            assert!(column(&out, 6, i)[2..18].iter().all(|d| (d - slope).abs() < 1e-12), "{out:?}");
        }
        for i in [4, 5] {
            assert!(column(&out, 6, i)[4..16].iter().all(|d| d.abs() < 1e-12), "{out:?}");
        }
    }

    #[test]
    fn one_frame_has_no_slope() {
        assert_eq!(with_deltas(&[1.0, 2.0], 2, 1), [1.0, 2.0, 0.0, 0.0]);
        assert!(with_deltas(&[], 2, 2).is_empty());
    }
}
