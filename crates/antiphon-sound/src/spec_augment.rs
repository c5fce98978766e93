//! What is changed of recordings while a model learns: how fast they are, whose voice says them, and what is hidden of them.

use std::ops::Range;

use antiphon_core::Problem;
use antiphon_core::random::Key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::FeaturesConfig;
use crate::deform::{VocalTract, resample};

/// What is changed of each recording while a model learns, drawn by the seed: first its speed (Ko et al. 2015, there of sound), then
/// the voice (Jaitly and Hinton 2013), then noise is added, and at last stretches are hidden (SpecAugment; Park et al. 2019). What is
/// hidden becomes 0, which is the mean of normalised features.
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
    /// How much faster or slower a recording is made at most: the number of its frames is multiplied by a factor that is drawn from
    /// `1 / (1 + speed)` to `1 + speed`, by linear interpolation between them. Those that CTC needs to say its text are kept.
    /// Batches are counted before that: one may have up to `1 + speed` times as many frames as `batch.count`. 0: it is left as it is.
    #[schemars(range(min = 0.0, max = 1.0), extend("format" = "float"))]
    pub speed: f64,
    /// By how much the vocal tract of a speaker is made shorter or longer at most: frequencies are multiplied by a factor that is drawn
    /// from `1 / (1 + frequency_warp)` to `1 + frequency_warp`, up to 4800 Hz or 0.8 of the highest one, and beyond that such that
    /// the highest one stays. Only `log_mel` has the bands for that. 0: it is left as it is.
    #[schemars(range(min = 0.0, max = 1.0), extend("format" = "float"))]
    pub frequency_warp: f64,
    /// The standard deviation of what is added to each number of a frame, drawn from a normal distribution, as Graves et
    /// al. (2006) did for CTC. 0: nothing is.
    #[schemars(range(min = 0.0, max = 10.0), extend("format" = "float"))]
    pub noise: f64,
}

impl Default for SpecAugmentConfig {
    fn default() -> Self {
        Self {
            frequency_masks: 2,
            frequency_share: 0.3,
            time_masks: 2,
            time_frames: 40,
            time_share: 0.2,
            speed: 0.0,
            frequency_warp: 0.0,
            noise: 0.0,
        }
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

/// A factor from `1 / (1 + most)` to `1 + most`, whose logarithm is uniform; exactly 1 if `most` is 0.
fn factor(most: f64, key: Key) -> f64 {
    (1.0 + most).powf(2.0 * key.uniform(0) - 1.0)
}

impl SpecAugmentConfig {
    /// How many frames a recording of `frames` frames gets: a pure function of `key` and of these. They are not fewer than `least`,
    /// unless it has fewer.
    pub fn frames(&self, key: Key, frames: usize, least: usize) -> usize {
        let drawn = (frames as f64 * factor(self.speed, key.named("speed"))).round() as usize;
        drawn.max(least.max(1).min(frames))
    }

    /// Writes to `out` what a model is shown of `heard`, both of whole frames of `features`: as many as `out` has, with other bands,
    /// noise, and without what is hidden. A pure function of `key` and of these.
    ///
    /// # Panics
    /// If `out` has frames and `heard` has none, or bands are to be moved of what has none.
    pub fn apply(&self, key: Key, features: &FeaturesConfig, heard: &[f32], out: &mut [f32]) {
        let (width, blocks) = (features.width(), features.blocks());
        resample(heard, out, width);
        if self.frequency_warp > 0.0 {
            let tract = VocalTract::new(features, factor(self.frequency_warp, key.named("frequency_warp")));
            tract.expect("bands that can be moved").apply(out, width / blocks);
        }
        if self.noise > 0.0 {
            let key = key.named("noise");
            let add = |(i, value): (usize, &mut f32)| *value += (self.noise * key.normal(i as u64)) as f32;
            out.iter_mut().enumerate().for_each(add);
        }
        self.masks(key, out.len() / width, width / blocks).apply(out, width, blocks);
    }

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
        for (most, place) in [(self.speed, "speed"), (self.frequency_warp, "frequency_warp")] {
            demand((0.0..=1.0).contains(&most), place, format!("must be from 0 to 1, got {most}"));
        }
        demand((0.0..=10.0).contains(&self.noise), "noise", format!("must be from 0 to 10, got {}", self.noise));
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
    fn factors_reach_their_limits_and_are_as_often_above_1_as_below() {
        for most in [0.0, 0.1, 1.0] {
            let all: Vec<f64> = (0..4000).map(|i| factor(most, KEY.numbered(i))).collect();
            let (least, largest) = all.iter().fold((f64::MAX, 0.0_f64), |(a, b), &f| (a.min(f), b.max(f)));
            assert!(least >= (1.0 + most).recip() - 1e-12 && least < 1.005 / (1.0 + most), "{least} of {most}");
            assert!(largest <= 1.0 + most + 1e-12 && largest > 0.995 * (1.0 + most), "{largest} of {most}");
            let above = all.iter().filter(|&&f| f > 1.0).count();
            assert!(most == 0.0 || above.abs_diff(2000) < 150, "{above}");
        }
    }

    #[test]
    fn a_recording_gets_so_many_frames_and_never_fewer_than_it_needs() {
        let config = SpecAugmentConfig { speed: 0.5, ..Default::default() };
        for (frames, least, limits) in
            [(300, 1, (200, 450)), (30, 25, (25, 45)), (30, 40, (30, 45)), (1, 1, (1, 1)), (0, 1, (0, 0))]
        {
            let all = (0..5000).map(|i| config.frames(KEY.numbered(i), frames, least));
            let found = all.fold((usize::MAX, 0), |(a, b), n| (a.min(n), b.max(n)));
            assert_eq!(found, limits);
            assert_eq!(SpecAugmentConfig::default().frames(KEY, frames, least), frames);
        }
    }

    /// Each change is drawn by itself: that another one is made, or not, changes nothing of it.
    #[test]
    fn changes_are_made_one_behind_another_and_drawn_apart() {
        let features = serde_json::from_str(r#"{"kind": "log_mel", "filters": 20}"#).expect("features");
        let heard: Vec<f32> = (0..50 * 20).map(|i| (0.37 * i as f32).sin() + 2.0).collect();
        let of = |config: &SpecAugmentConfig, frames: usize| {
            let mut out = vec![f32::NAN; frames * 20];
            config.apply(KEY, &features, &heard, &mut out);
            out
        };
        let none = SpecAugmentConfig { frequency_masks: 0, time_masks: 0, ..Default::default() };
        assert_eq!(of(&none, 50), heard);
        let warped = of(&SpecAugmentConfig { frequency_warp: 0.2, ..none.clone() }, 50);
        assert_ne!(warped, heard);
        let noise = 0.5;
        let noisy = of(&SpecAugmentConfig { noise, ..none.clone() }, 50);
        let both = of(&SpecAugmentConfig { frequency_warp: 0.2, noise, ..none.clone() }, 50);
        let hidden = of(&SpecAugmentConfig { frequency_warp: 0.2, noise, ..Default::default() }, 50);
        let masked = of(&SpecAugmentConfig::default(), 50);
        assert!(masked.contains(&0.0));
        for i in 0..heard.len() {
            // Noise is added to what was moved.
            assert!((both[i] - warped[i] - (noisy[i] - heard[i])).abs() < 1e-5);
            assert_eq!(hidden[i], if masked[i] == 0.0 { 0.0 } else { both[i] });
        }
        let of_noise = |power: i32| (0..1000).map(|i| f64::from(noisy[i] - heard[i]).powi(power)).sum::<f64>() / 1000.0;
        assert!(of_noise(1).abs() < 0.05 && (of_noise(2).sqrt() - noise).abs() < 0.05);
        // Time first: bands are moved of frames that are there already.
        let slow = of(&SpecAugmentConfig { speed: 0.5, ..none }, 60);
        assert_eq!((&slow[..20], &slow[59 * 20..]), (&heard[..20], &heard[49 * 20..]));
    }

    #[test]
    fn what_is_out_of_range_is_a_problem() {
        let config = SpecAugmentConfig {
            time_share: 1.5,
            frequency_share: f64::NAN,
            time_masks: 101,
            speed: -0.1,
            frequency_warp: 1.1,
            noise: f64::NAN,
            ..Default::default()
        };
        let places: Vec<String> = config.problems().into_iter().map(|problem| problem.place.to_string()).collect();
        assert_eq!(places, ["frequency_share", "time_share", "speed", "frequency_warp", "noise", "time_masks"]);
        assert!(SpecAugmentConfig::default().problems().is_empty());
    }
}
