//! Counter-based random numbers: a pure function of a key and a counter.
//!
//! There is no state to save, no order to keep and no thread to wait for: initial parameters, dropout masks, the order
//! of examples and samples are each drawn under a [`Key`] derived from (seed, purpose, step, place). The generator is
//! SplitMix64 (Steele, Lea and Flood 2014) over `key + counter · γ`, which is random access by construction.

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's output function: a bijection of 64-bit words that scatters neighbours.
const fn scatter(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The 64-bit FNV-1a hash of some bytes: the same on every machine and in every version.
pub const fn stable_hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01B3);
        i += 1;
    }
    hash
}

/// Names one stream of random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// The root of all streams of a run.
    pub const fn from_seed(seed: u64) -> Self {
        Self(scatter(seed.wrapping_add(GAMMA)))
    }

    /// The stream of a named purpose or place below this one.
    #[must_use]
    pub const fn named(self, name: &str) -> Self {
        self.numbered(stable_hash(name.as_bytes()))
    }

    /// The stream of a step, an epoch or an element below this one.
    #[must_use]
    pub const fn numbered(self, number: u64) -> Self {
        Self(scatter(scatter(self.0 ^ GAMMA).wrapping_add(number.wrapping_mul(GAMMA))))
    }

    /// The key's own 64 bits, for generators that are vectorised elsewhere.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// 64 random bits: number `counter` of this stream.
    pub const fn word(self, counter: u64) -> u64 {
        scatter(self.0.wrapping_add(counter.wrapping_add(1).wrapping_mul(GAMMA)))
    }

    /// Uniform in `[0, 1)`, with 53 random bits.
    pub fn uniform(self, counter: u64) -> f64 {
        (self.word(counter) >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Standard normal, by Box and Muller from two words.
    pub fn normal(self, counter: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(2 * counter)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(2 * counter + 1)).cos()
    }

    /// Uniform in `0..bound`; `bound` must not be 0. The bias is below `bound / 2^64`.
    pub const fn below(self, counter: u64, bound: u64) -> u64 {
        ((self.word(counter) as u128 * bound as u128) >> 64) as u64
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64, i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_fixed_for_all_time() {
        // Changing these breaks the repetition of every run that was ever made.
        assert_eq!(stable_hash(b"antiphon"), 0xFB84_6F71_04ED_1E48);
        let key = Key::from_seed(17).named("dropout").numbered(3);
        // SplitMix64 and FNV-1a written again in Python gave these.
        assert_eq!([key.word(0), key.word(1)], [0x4BA5_D37F_36BA_6C52, 0x9819_AD9F_9D26_6874]);
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let (key, n) = (Key::from_seed(1), 100_000);
        let mean = |f: &dyn Fn(u64) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
        assert!((mean(&|i| key.uniform(i)) - 0.5).abs() < 0.005);
        assert!(mean(&|i| key.normal(i)).abs() < 0.02);
        assert!((mean(&|i| key.normal(i).powi(2)) - 1.0).abs() < 0.02);
        assert!((mean(&|i| key.below(i, 10) as f64) - 4.5).abs() < 0.05);
    }

    #[test]
    fn streams_do_not_meet() {
        let key = Key::from_seed(1);
        let mut seen = std::collections::HashSet::new();
        for stream in [key.named("a"), key.named("b"), key.named("a").numbered(0), key.numbered(1), key.numbered(2)] {
            for i in 0..10_000 {
                assert!(seen.insert(stream.word(i)));
            }
        }
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..1000).collect();
        Key::from_seed(5).shuffle(&mut items);
        assert_ne!(items[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        items.sort_unstable();
        assert!(items.iter().copied().eq(0..1000));
    }
}
