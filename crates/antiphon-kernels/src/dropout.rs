//! Dropout whose masks are a pure function of a key (Srivastava et al. 2014, in the inverted form).

use antiphon_core::random::Key;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

/// Zeroes each element with probability `rate` and divides the others by `1 − rate`.
///
/// The mask depends on `key` and an element's position alone: not on threads, order or anything drawn before. The
/// rate, below 1, is met to 1/65536. A rate of 0 returns `x` as it is.
pub fn dropout<const D: usize>(x: Tensor<D>, rate: f64, key: Key) -> Tensor<D> {
    assert!(rate < 1.0, "dropping everything leaves nothing to scale");
    if rate <= 0.0 {
        return x;
    }
    let shape = x.shape();
    let mask = TensorData::new(mask(shape.num_elements(), rate, key), shape);
    let mask = Tensor::<D>::from_data(mask, &x.device().inner());
    x * mask
}

/// The mask of `elements` elements.
fn mask(elements: usize, rate: f64, key: Key) -> Vec<f32> {
    const CHUNK: usize = 1 << 14;
    let mut mask = vec![0.0; elements];
    let chunks = mask.par_chunks_mut(CHUNK).enumerate();
    chunks.for_each(|(k, chunk)| fill_mask(chunk, k * CHUNK, rate, key));
    mask
}

/// The mask of the elements from number `first` on. Each 64-bit word decides four of them.
pub(crate) fn fill_mask(mask: &mut [f32], first: usize, rate: f64, key: Key) {
    let threshold = (rate * 65536.0).round() as u64;
    let keep = (1.0 / (1.0 - rate)) as f32;
    let mut word = 0;
    for (at, element) in (first..).zip(mask.iter_mut()) {
        if at == first || at % 4 == 0 {
            word = key.word((at / 4) as u64);
        }
        *element = if (word >> (16 * (at % 4))) & 0xFFFF < threshold { 0.0 } else { keep };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_the_rate_keep_the_mean_and_repeat() {
        let key = Key::from_seed(1).named("dropout");
        let (n, rate) = (200_003, 0.3);
        let drawn = mask(n, rate, key);
        let zeros = drawn.iter().filter(|&&m| m == 0.0).count() as f64 / n as f64;
        assert!((zeros - rate).abs() < 0.004, "{zeros}");
        let mean = drawn.iter().map(|&m| f64::from(m)).sum::<f64>() / n as f64;
        assert!((mean - 1.0).abs() < 0.006, "{mean}");
        assert_eq!(drawn, mask(n, rate, key));
        assert_ne!(drawn, mask(n, rate, key.numbered(1)));
        assert_eq!(mask(10, rate, key)[..], drawn[..10]);
    }
}
