//! Features on disk.

#![allow(missing_docs)]

#[allow(dead_code)]
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Result};
use antiphon_sound::{Extractor, FeatureCache, FeaturesConfig, Listener, Recording, Statistics};
use common::{Folder, config, golden, signal};

/// Notes what it hears.
#[derive(Default)]
struct Ear {
    faults: Vec<(usize, String)>,
    done: Vec<usize>,
}

impl Listener for Ear {
    fn fault(&mut self, index: usize, error: Error) -> Result<()> {
        self.faults.push((index, error.to_string()));
        Ok(())
    }

    fn done(&mut self, recordings: usize) {
        self.done.push(recordings);
    }
}

fn mfcc() -> FeaturesConfig {
    config(r#"{"kind": "mfcc", "rate": 8000, "deltas": 1}"#)
}

/// Recordings of several lengths, parts of one file, and two that have no features.
fn corpus(folder: &Folder) -> Vec<Recording> {
    let mut all: Vec<Recording> =
        (0..30).map(|i| folder.recording(&format!("{i}.wav"), 8000, &signal(8000, 400 + 173 * i)[..])).collect();
    all.extend((0..5).map(|i| Recording {
        path: golden("mono.flac"),
        start: Some(0.2 * f64::from(i)),
        end: Some(0.2 * f64::from(i) + 0.3),
    }));
    all.insert(3, Recording::whole(folder.path().join("none.wav")));
    all.insert(20, folder.recording("short.wav", 8000, &signal(8000, 10)));
    all
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == ending)).collect()
}

fn threads(count: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap()
}

#[test]
fn each_recording_has_the_features_that_it_has_alone() {
    let (folder, mut ear) = (Folder::new(), Ear::default());
    let recordings = corpus(&folder);
    let kept = folder.path().join("below/features");
    let cache = FeatureCache::open(&kept, &recordings, &mfcc(), &mut ear).unwrap();
    let extractor = Extractor::new(&mfcc()).unwrap();
    assert_eq!((cache.len(), cache.width()), (37, 26));
    for index in (0..cache.len()).rev() {
        let values = cache.read(index).unwrap();
        assert_eq!(values.len(), cache.frames(index) * 26);
        match extractor.extract(&recordings[index]) {
            Ok(alone) => {
                assert_eq!((values, cache.damaged(index), cache.fault(index)), (alone.values, alone.damaged, None))
            }
            Err(error) => {
                assert_eq!((cache.frames(index), cache.fault(index).unwrap().to_string()), (0, error.to_string()));
            }
        }
    }
    let faulty: Vec<usize> = ear.faults.iter().map(|fault| fault.0).collect();
    assert_eq!(faulty, [3, 20]);
    assert!(ear.faults[0].1.contains("none.wav: there is no such file"), "{:?}", ear.faults);
    assert_eq!(ear.done.last(), Some(&37));
    // What was made before is only read, and its faults are told again.
    let (path, mut again) = (cache.path().to_path_buf(), Ear::default());
    let made = fs::metadata(&path).unwrap().modified().unwrap();
    let second = FeatureCache::open(&kept, &recordings, &mfcc(), &mut again).unwrap();
    assert_eq!((second.path(), second.digest()), (path.as_path(), cache.digest()));
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), made);
    assert_eq!((again.faults, again.done), (ear.faults, vec![]));
    assert_eq!(second.read(5).unwrap(), cache.read(5).unwrap());
}

#[test]
fn the_bytes_are_the_same_whatever_the_number_of_threads() {
    let folder = Folder::new();
    let recordings = corpus(&folder);
    let bytes = |count: usize| {
        let kept = folder.path().join(count.to_string());
        let open = || FeatureCache::open(&kept, &recordings, &mfcc(), &mut Ear::default());
        fs::read(threads(count).install(open).unwrap().path()).unwrap()
    };
    let one = bytes(1);
    for count in [2, 3, 7] {
        assert!(bytes(count) == one, "{count} threads");
    }
}

#[test]
fn other_settings_sound_or_parts_have_another_file() {
    let folder = Folder::new();
    let recordings = corpus(&folder);
    let digest = |recordings: &[Recording], config: &FeaturesConfig| {
        let cache = FeatureCache::open(folder.path(), recordings, config, &mut Ear::default()).unwrap();
        cache.digest().to_owned()
    };
    let mut seen = vec![digest(&recordings, &mfcc())];
    seen.push(digest(&recordings, &config(r#"{"kind": "mfcc", "rate": 8000, "deltas": 2}"#)));
    seen.push(digest(&recordings[1..], &mfcc()));
    let mut parts = recordings.clone();
    parts[36].end = None;
    seen.push(digest(&parts, &mfcc()));
    folder.recording("7.wav", 8000, &signal(8000, 999));
    seen.push(digest(&recordings, &mfcc()));
    // What was missing is there now.
    folder.recording("none.wav", 8000, &signal(8000, 999));
    seen.push(digest(&recordings, &mfcc()));
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((seen.len(), files(folder.path(), "features").len()), (count, count));
    // Where the files lie is nobody's business.
    let other = Folder::new();
    let moved = corpus(&other);
    folder.recording("7.wav", 8000, &signal(8000, 400 + 173 * 7));
    fs::remove_file(folder.path().join("none.wav")).unwrap();
    assert_eq!(digest(&moved, &mfcc()), digest(&recordings, &mfcc()));
}

#[test]
fn a_listener_that_stops_leaves_nothing() {
    let folder = Folder::new();
    let recordings = corpus(&folder);
    let kept = folder.path().join("features");
    let mut strict = |index: usize, error: Error| Err(error.at(format!("recording {index}").as_str()));
    let error = FeatureCache::open(&kept, &recordings, &mfcc(), &mut strict).unwrap_err().to_string();
    assert!(error.contains("none.wav: recording 3: there is no such file"), "{error}");
    assert!(files(&kept, "features").is_empty() && files(&kept, "tmp").is_empty());
    // Features that others have made leniently are no way around it.
    FeatureCache::open(&kept, &recordings, &mfcc(), &mut Ear::default()).unwrap();
    assert!(FeatureCache::open(&kept, &recordings, &mfcc(), &mut strict).is_err());
}

#[test]
fn what_a_killed_process_left_goes_and_damage_is_found() {
    let folder = Folder::new();
    let recordings = corpus(&folder);
    let kept = folder.path().join("features");
    let open = || FeatureCache::open(&kept, &recordings, &mfcc(), &mut Ear::default());
    let path = open().unwrap().path().to_path_buf();
    let (bytes, name) = (fs::read(&path).unwrap(), path.file_name().unwrap().to_str().unwrap().to_owned());
    fs::remove_file(&path).unwrap();
    let left = kept.join(format!(".{name}.1-1.tmp"));
    fs::write(&left, b"half").unwrap();
    open().unwrap();
    assert!(!left.exists());
    assert!(fs::read(&path).unwrap() == bytes);
    let changed = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        bytes
    };
    for wrong in [
        bytes[..bytes.len() - 1].to_vec(),
        bytes[1..].to_vec(),
        bytes[..10].to_vec(),
        vec![],
        changed(0),
        changed(bytes.len() - 1),
        changed(bytes.len() - 20),
        changed(bytes.len() - 40),
    ] {
        fs::write(&path, &wrong).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("is damaged; remove it, and it is made again"), "{error}");
    }
}

#[test]
fn several_at_once_make_it_once() {
    let folder = Folder::new();
    let recordings = corpus(&folder);
    let makers = std::thread::scope(|scope| {
        let open = || {
            let mut ear = Ear::default();
            threads(1).install(|| FeatureCache::open(folder.path(), &recordings, &mfcc(), &mut ear)).unwrap();
            usize::from(!ear.done.is_empty())
        };
        let all: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum::<usize>()
    });
    assert_eq!((makers, files(folder.path(), "features").len()), (1, 1));
}

#[test]
fn statistics_are_those_of_all_frames() {
    let folder = Folder::new();
    let config = config(r#"{"kind": "log_mel", "rate": 8000, "normalize": "none"}"#);
    let cache = FeatureCache::open(folder.path(), &corpus(&folder), &config, &mut Ear::default()).unwrap();
    let statistics = cache.statistics(0..cache.len()).unwrap();
    let all: Vec<f32> = (0..cache.len()).flat_map(|index| cache.read(index).unwrap()).collect();
    let mut once = Statistics::new(cache.width());
    once.add(&all);
    assert_eq!(statistics.frames(), all.len() as u64 / 23);
    for (parts, whole) in statistics.mean().iter().zip(once.mean()) {
        assert!((parts - whole).abs() < 1e-9);
    }
    assert_eq!(statistics, cache.statistics(0..cache.len()).unwrap());
    // The faulty ones add nothing.
    assert_eq!(cache.statistics([3, 20]).unwrap(), Statistics::new(23));
}
