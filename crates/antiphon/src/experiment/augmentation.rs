//! What is changed of recordings while a model learns.

use antiphon_core::random::Key;
use antiphon_core::{Batch, FrameBatch, SourceBatch, Special, Target, steps_of_path};
use antiphon_sound::{FeaturesConfig, SpecAugmentConfig};
use rayon::prelude::*;

use super::ExperimentConfig;

/// How batches of recordings are changed.
#[derive(Debug)]
pub(super) struct Augmentation<'a> {
    how: &'a SpecAugmentConfig,
    features: &'a FeaturesConfig,
    /// How many frames become one step of CTC; `None` if the model has none.
    reduction: Option<usize>,
}

impl<'a> Augmentation<'a> {
    /// That of an experiment, if it has any.
    pub(super) fn of(config: &'a ExperimentConfig) -> Option<Self> {
        let reduction = config.model.says_by_steps().then(|| config.reductions()[0]);
        Some(Self { how: config.spec_augment.as_ref()?, features: config.features.as_ref()?, reduction })
    }

    /// A batch as training sees it, drawn under the step's key.
    pub(super) fn apply(&self, batch: &Batch, key: Key) -> Batch {
        let Some((SourceBatch::Frames(frames), others)) = batch.sources.split_first() else { return batch.clone() };
        let key = key.named("spec_augment");
        let length = |(b, &frames): (usize, &u32)| {
            let frames = self.how.frames(key.numbered(b as u64), frames as usize, self.least(&batch.target, b));
            u32::try_from(frames).expect("frames that can be counted")
        };
        let lengths: Vec<u32> = frames.lengths.iter().enumerate().map(length).collect();
        let (features, width) = (frames.features, lengths.iter().copied().max().unwrap_or(0).max(1) as usize);
        let mut values = vec![0.0; lengths.len() * width * features];
        let rows =
            values.par_chunks_exact_mut(width * features).zip(frames.values.par_chunks_exact(frames.width * features));
        rows.enumerate().for_each(|(b, (out, heard))| {
            let (heard, out) =
                (&heard[..frames.lengths[b] as usize * features], &mut out[..lengths[b] as usize * features]);
            self.how.apply(key.numbered(b as u64), self.features, heard, out);
        });
        let changed = SourceBatch::Frames(FrameBatch { values, lengths, width, features });
        Batch {
            sources: std::iter::once(changed).chain(others.iter().cloned()).collect(),
            target: batch.target.clone(),
            continues: batch.continues.clone(),
            examples: batch.examples.clone(),
            copies: None,
        }
    }

    /// How few frames leave CTC a path that says the target of a row.
    fn least(&self, target: &Target, row: usize) -> usize {
        let Some(reduction) = self.reduction else { return 1 };
        let labels = &target.labels[row * target.width..][..target.lengths[row] as usize];
        let labels = labels.strip_suffix(&[Special::End.id()]).unwrap_or(labels);
        (steps_of_path(labels) - 1) * reduction + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of two blocks.
    fn features() -> FeaturesConfig {
        serde_json::from_str(r#"{"kind": "log_mel", "filters": 4, "deltas": 1}"#).expect("features")
    }

    fn batch(frames: &[usize], labels: &[&[u32]], value: impl Fn(usize) -> f32) -> Batch {
        let row = |&frames: &usize| (0..frames * 8).map(&value).collect();
        let rows: Vec<Vec<f32>> = frames.iter().map(row).collect();
        Batch {
            sources: vec![SourceBatch::Frames(FrameBatch::from_rows(&rows, 8))],
            target: Target::whole(labels),
            continues: Vec::new(),
            examples: (0..frames.len()).collect(),
            copies: None,
        }
    }

    fn changed(batch: &Batch, how: &SpecAugmentConfig, reduction: Option<usize>, seed: u64) -> FrameBatch {
        let features = features();
        let changed = Augmentation { how, features: &features, reduction }.apply(batch, Key::from_seed(seed));
        assert_eq!((&changed.target, &changed.examples), (&batch.target, &batch.examples));
        match changed.sources.into_iter().next() {
            Some(SourceBatch::Frames(frames)) => frames,
            _ => panic!("frames"),
        }
    }

    /// Nothing is hidden.
    fn bare() -> SpecAugmentConfig {
        SpecAugmentConfig { frequency_masks: 0, time_masks: 0, ..Default::default() }
    }

    #[test]
    fn what_is_hidden_is_drawn_for_each_row_under_the_steps_key() {
        let batch = batch(&[50, 30, 50], &[&[3], &[3], &[3]], |_| 1.0);
        let of = |seed: u64| changed(&batch, &SpecAugmentConfig::default(), None, seed).values;
        assert_eq!(of(1), of(1));
        let different = (0..20).filter(|&seed| of(seed) != of(seed + 1)).count();
        assert_eq!(different, 20);
        let unlike = (0..20).filter(|&seed| of(seed)[..400] != of(seed)[800..]).count();
        assert_eq!(unlike, 20, "rows are hidden alike");
        // Padding stays what it is, and a column is hidden with its delta.
        for values in (0..20).map(of) {
            assert!(values[400 + 30 * 8..800].iter().all(|&value| value == 0.0));
            let is_alike = |frame: &[f32]| frame[..4] == frame[4..];
            assert!(values.chunks_exact(8).all(is_alike));
        }
    }

    /// The masks of every run that there is: SplitMix64, FNV-1a and the masks written again in Python gave this digest.
    #[test]
    fn without_other_changes_the_masks_are_those_of_earlier_runs() {
        let batch = batch(&[50, 30, 50], &[&[3], &[3], &[3]], |i| 1.0 + i as f32);
        let SourceBatch::Frames(plain) = &batch.sources[0] else { panic!("frames") };
        assert_eq!(&changed(&batch, &bare(), Some(2), 1), plain);
        let hidden = changed(&batch, &SpecAugmentConfig::default(), Some(2), 1).values;
        let hidden: Vec<u8> = hidden.into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(antiphon_core::random::stable_hash(&hidden), 0xF0B5_900F_D0E7_659F);
    }

    #[test]
    fn rows_get_lengths_of_their_own_and_are_padded_anew() {
        let batch = batch(&[100, 1, 60, 80], &[&[3], &[3], &[3], &[3]], |_| 1.0);
        let how = SpecAugmentConfig { speed: 0.25, frequency_warp: 0.2, ..bare() };
        let (mut shortest, mut longest, mut narrow) = (100, 0, 0);
        for seed in 0..500 {
            let FrameBatch { values, lengths, width, features } = changed(&batch, &how, Some(2), seed);
            assert_eq!(values.len(), 4 * width * features);
            assert_eq!(width as u32, *lengths.iter().max().unwrap());
            assert_eq!(lengths[1], 1);
            for (row, &length) in values.chunks_exact(width * features).zip(&lengths) {
                let (real, padding) = row.split_at(length as usize * features);
                // What is alike everywhere stays so, to the bit.
                assert!(real.iter().all(|&value| value == 1.0) && padding.iter().all(|&value| value == 0.0));
            }
            (shortest, longest) = (shortest.min(lengths[0]), longest.max(lengths[0]));
            narrow += usize::from(width < 100);
        }
        assert_eq!((shortest, longest), (80, 125));
        assert!(narrow > 0, "a batch may become narrower");
    }

    /// A row that CTC can say is said at every speed, and one that it cannot say is not made shorter.
    #[test]
    fn speed_takes_no_path_from_ctc() {
        // Of 5 steps, 6 with a blank between equal labels; the first rows have just them, the last one too few.
        let labels: [&[u32]; 4] = [&[3, 4, 5, 6, 7], &[3, 4, 4, 6, 7], &[3], &[3, 4, 4, 6, 7]];
        let batch = batch(&[9, 11, 20, 10], &labels, |_| 1.0);
        let how = SpecAugmentConfig { speed: 1.0, ..bare() };
        let least = |reduction| {
            let of = |seed| changed(&batch, &how, reduction, seed).lengths;
            let least = |a: Vec<u32>, b: Vec<u32>| a.into_iter().zip(b).map(|(a, b)| a.min(b)).collect();
            (0..300).map(of).reduce(least).unwrap()
        };
        assert_eq!(least(Some(2)), [9, 11, 10, 10]);
        assert_eq!(least(Some(1)), [5, 6, 10, 6]);
        assert_eq!(least(None), [5, 6, 10, 5]);
    }
}
