//! How fast sound becomes features: the seconds of sound that are read, made features and kept on disk in a second, on all threads.

use std::fs;
use std::hint::black_box;
use std::time::Duration;

use antiphon_core::random::Key;
use antiphon_core::{Error, Result};
use antiphon_sound::{FeatureCache, FeaturesConfig, LogMelConfig, MfccConfig, Recording};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Recordings of so many seconds, and how many.
const SECONDS: usize = 15;
const RECORDINGS: usize = 16;
const RATE: usize = 16_000;

/// A wav file of one channel of 16 bits, which holds noise.
fn noise(key: Key) -> Vec<u8> {
    let samples = SECONDS * RATE;
    let bytes = (2 * samples) as u32;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    file.extend([1_u16, 1].iter().flat_map(|word| word.to_le_bytes()));
    file.extend([RATE as u32, 2 * RATE as u32].iter().flat_map(|word| word.to_le_bytes()));
    file.extend([2_u16, 16].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(b"data");
    file.extend(bytes.to_le_bytes());
    file.extend((0..samples).flat_map(|i| (key.below(i as u64, 20_000) as i16 - 10_000).to_le_bytes()));
    file
}

fn features(criterion: &mut Criterion) {
    let home = tempfile::tempdir().expect("a folder");
    let recording = |i: usize| {
        let path = home.path().join(format!("{i}.wav"));
        fs::write(&path, noise(Key::from_seed(1).numbered(i as u64))).expect("room for a file");
        Recording::whole(path)
    };
    let recordings: Vec<Recording> = (0..RECORDINGS).map(recording).collect();
    let kept = home.path().join("features");
    let mut group = criterion.benchmark_group("sound");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    group.throughput(Throughput::Elements((RECORDINGS * SECONDS) as u64));
    let kinds = [
        ("log-mel-80", FeaturesConfig::LogMel(LogMelConfig { filters: 80, ..LogMelConfig::default() })),
        ("mfcc-13", FeaturesConfig::Mfcc(MfccConfig::default())),
    ];
    for (name, config) in kinds {
        let forget = || {
            if kept.exists() {
                fs::remove_dir_all(&kept).expect("a folder of ours");
            }
        };
        let mut refused = |_: usize, error: Error| -> Result<()> { Err(error) };
        let mut make = |()| black_box(FeatureCache::open(&kept, &recordings, &config, &mut refused).expect("features"));
        group.bench_function(name, |bench| bench.iter_batched(forget, &mut make, BatchSize::PerIteration));
    }
}

criterion_group!(benches, features);
criterion_main!(benches);
