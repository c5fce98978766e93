//! SpecAugment: bands of frequency and stretches of time are hidden while a model learns (Park et al. 2019).

use std::ops::Range;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is hidden of each recording while a model learns (SpecAugment; Park et al. 2019): how wide each mask is and where it lies is
/// drawn by the seed. What is hidden becomes 0, which is the mean of normalised features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SpecAugmentConfig {
    /// How many stretches of neighbouring columns are hidden.
    #[schemars(range(min = 0, max = 100))]
    pub frequency_masks: usize,
    /// The widest of them, as a share of the columns.
    #[schemars(range(min = 0.0, max = 1.0), extend("format" = "float"))]
    pub frequency_share: f64,
    /// How many stretches of frames are hidden.
    #[schemars(range(min = 0, max = 100))]
    pub time_masks: usize,
    /// The longest of them, in frames.
    #[schemars(range(min = 0))]
    pub time_frames: usize,
    /// The longest of them, as a share of the frames of the recording; the shorter limit counts.
    #[schemars(range(min = 0.0, max = 1.0), extend("format" = "float"))]
    pub time_share: f64,
}

impl Default for SpecAugmentConfig {
    fn default() -> Self {
        Self { frequency_masks: 2, frequency_share: 0.3, time_masks: 2, time_frames: 40, time_share: 0.2 }
    }
}

/// What is hidden of one recording.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Masks {
    /// Columns of each block.
    pub columns: Vec<Range<usize>>,
    /// Whole frames.
    pub frames: Vec<Range<usize>>,
}

impl SpecAugmentConfig {
    /// What is hidden of a recording of `frames` frames whose blocks have `columns` columns: a pure function of `key` and of these.
    ///
    /// A mask's width is uniform from 0 to the widest, and its place uniform among those where it fits.
    pub fn masks(&self, key: Key, frames: usize, columns: usize) -> Masks {
        let draw = |key: Key, masks: usize, widest: usize, of: usize| {
            let mask = |index: usize| {
                let key = key.numbered(index as u64);
                let width = key.below(0, widest as u64 + 1) as usize;
                let start = key.below(1, (of - width) as u64 + 1) as usize;
                start..start + width
            };
            (0..masks).map(mask).filter(|mask| !mask.is_empty()).collect()
        };
        let share = |share: f64, of: usize| ((share * of as f64) as usize).min(of);
        let longest = share(self.time_share, frames).min(self.time_frames);
        Masks {
            columns: draw(key.named("frequency"), self.frequency_masks, share(self.frequency_share, columns), columns),
            frames: draw(key.named("time"), self.time_masks, longest, frames),
        }
    }

    /// Every value that is out of range; places are keys below this table.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut demand = |holds: bool, place: &str, message: String| {
            if !holds {
                found.push(Problem { place: place.into(), message });
            }
        };
        for (share, place) in [(self.frequency_share, "frequency_share"), (self.time_share, "time_share")] {
            demand((0.0..=1.0).contains(&share), place, format!("must be from 0 to 1, got {share}"));
        }
        for (masks, place) in [(self.frequency_masks, "frequency_masks"), (self.time_masks, "time_masks")] {
            demand(masks <= 100, place, format!("must be from 0 to 100, got {masks}"));
        }
        found
    }
}

impl Masks {
    /// Hides what they cover in frames of `width` numbers, which are [`blocks`](crate::FeaturesConfig::blocks) equal parts: a band is
    /// hidden with its deltas.
    ///
    /// # Panics
    /// If the frames are not those that the masks were drawn for.
    pub fn apply(&self, values: &mut [f32], width: usize, blocks: usize) {
        for range in &self.frames {
            values[range.start * width..range.end * width].fill(0.0);
        }
        for block in values.chunks_exact_mut(width / blocks) {
            self.columns.iter().for_each(|range| block[range.clone()].fill(0.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key::from_seed(7);

    #[test]
    fn masks_stay_within_their_limits_and_reach_them() {
        let config = SpecAugmentConfig::default();
        // Frames, columns, and the widest that each may be.
        for (frames, columns, longest, widest) in [(300, 80, 40, 24), (100, 13, 20, 3), (4, 40, 0, 12), (1, 1, 0, 0)] {
            let (mut wide, mut long, mut ends) = (0, 0, (false, false));
            for draw in 0..2000 {
                let masks = config.masks(KEY.numbered(draw), frames, columns);
                assert!(masks.columns.len() <= 2 && masks.frames.len() <= 2);
                for mask in &masks.columns {
                    assert!(mask.end <= columns);
                    wide = wide.max(mask.len());
                }
                for mask in &masks.frames {
                    assert!(mask.end <= frames);
                    long = long.max(mask.len());
                    ends = (ends.0 || mask.start == 0, ends.1 || mask.end == frames);
                }
            }
            assert_eq!((long, wide), (longest, widest));
            assert!(longest == 0 || ends == (true, true), "both ends of {frames} are hidden now and then");
        }
    }

    #[test]
    fn a_key_says_all_and_other_keys_say_other_things() {
        let config = SpecAugmentConfig::default();
        let masks = |key| config.masks(key, 300, 80);
        assert_eq!(masks(KEY), masks(KEY));
        let different = (0..100).filter(|&i| masks(KEY.numbered(i)) != masks(KEY.numbered(i + 1))).count();
        assert_eq!(different, 100);
        // Masks of time do not change with how many there are of frequency.
        let fewer = SpecAugmentConfig { frequency_masks: 0, ..config.clone() };
        assert_eq!(fewer.masks(KEY, 300, 80).frames, masks(KEY).frames);
        let none = SpecAugmentConfig { frequency_masks: 0, time_masks: 0, ..config };
        assert_eq!(none.masks(KEY, 300, 80), Masks::default());
    }

    #[test]
    fn a_band_is_hidden_with_its_deltas_and_nothing_else_is() {
        let one = |range| std::iter::once(range).collect();
        let masks = Masks { columns: one(1..3), frames: one(2..3) };
        let mut values = [1.0; 4 * 8];
        masks.apply(&mut values, 8, 2);
        let row = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0];
        assert_eq!(values, [row, row, [0.0; 8], row].concat()[..]);
    }

    #[test]
    fn shares_beyond_the_whole_are_problems() {
        let config =
            SpecAugmentConfig { time_share: 1.5, frequency_share: f64::NAN, time_masks: 101, ..Default::default() };
        let places: Vec<String> = config.problems().into_iter().map(|problem| problem.place.to_string()).collect();
        assert_eq!(places, ["frequency_share", "time_share", "time_masks"]);
        assert!(SpecAugmentConfig::default().problems().is_empty());
    }
}
