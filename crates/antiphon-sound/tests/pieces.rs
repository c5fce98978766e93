//! Long recordings, cut.

#![allow(missing_docs)]

#[allow(dead_code)]
mod common;

use std::path::Path;

use antiphon_core::random::Key;
use antiphon_sound::{Piece, Pieces, Recording, Sound, read};
use common::{Folder, Sample, golden, signal, wav};

fn pieces(path: &Path, max_seconds: f64) -> Vec<Piece> {
    Pieces::open(path, max_seconds).unwrap().map(Result::unwrap).collect()
}

/// Without gap or overlap, none over the limit or below a quarter of it.
fn assert_tiled(path: &Path, max_seconds: f64) -> Vec<Piece> {
    let whole = read(&Recording::whole(path), 36_000.0).unwrap();
    let found = pieces(path, max_seconds);
    let mut joined = Vec::new();
    for Piece { start, sound } in &found {
        assert_eq!((*start, sound.rate), (joined.len() as u64, whole.rate));
        assert!(sound.seconds() <= max_seconds, "{start}: {}", sound.seconds());
        assert!(found.len() == 1 || sound.seconds() >= max_seconds / 4.0 - 0.001, "{start}: {}", sound.seconds());
        joined.extend_from_slice(&sound.samples);
    }
    assert!(joined == whole.samples, "{} samples, not {}", joined.len(), whole.samples.len());
    assert_eq!(found.iter().map(|piece| piece.sound.damaged).sum::<usize>(), whole.damaged);
    assert_eq!(pieces(path, max_seconds), found);
    found
}

#[test]
fn pieces_tile_a_recording() {
    let folder = Folder::new();
    for round in 0..40 {
        let key = Key::from_seed(3).numbered(round);
        let rate = [4000, 8000, 11_025][round as usize % 3];
        let length = key.below(0, 12 * u64::from(rate)) as usize + 1;
        let sound: Vec<f64> = match round % 4 {
            0 => vec![0.0; length],
            1 => (0..length).map(|n| key.uniform(n as u64) - 0.5).collect(),
            _ => signal(rate, length),
        };
        let mut bytes = wav(Sample::I16, rate, &[sound]);
        if round % 5 == 0 {
            // Nobody knew the length.
            bytes[4..8].fill(255);
            bytes[40..44].fill(255);
        }
        let path = folder.file("a.wav", &bytes);
        let found = assert_tiled(&path, 1.0 + key.uniform(1));
        assert!(round % 4 > 0 || found.iter().all(Piece::is_silent), "silence");
    }
    assert_eq!(assert_tiled(&golden("mono.flac"), 1.0).len(), 2);
}

#[test]
fn a_short_recording_is_one_piece() {
    let folder = Folder::new();
    let whole = |samples: &[f64]| {
        let path = folder.file("a.wav", &wav(Sample::F64, 8000, &[samples.to_vec()]));
        let is_one = Pieces::open(&path, 2.0).unwrap().is_one().unwrap();
        assert_eq!(is_one, pieces(&path, 2.0).len() == 1);
        is_one
    };
    let samples = signal(8000, 16_001);
    assert!(whole(&samples[..1]) && whole(&samples[..16_000]) && !whole(&samples));
    let path = folder.file("b.wav", &wav(Sample::F64, 8000, &[samples[..16_000].to_vec()]));
    let sound = Sound { samples: samples[..16_000].to_vec(), rate: 8000, damaged: 0 };
    assert_eq!(pieces(&path, 2.0), [Piece { start: 0, sound }]);
}

/// Tones with pauses between them are cut in the pauses.
#[test]
fn recordings_are_cut_where_they_are_quiet() {
    let folder = Folder::new();
    let (rate, key) = (8000_usize, Key::from_seed(9));
    let mut samples: Vec<f64> = Vec::new();
    let mut pauses = Vec::new();
    for i in 0..40 {
        let tone = rate / 2 + key.named("tone").below(i, rate as u64 / 2) as usize;
        samples.extend((0..tone).map(|n| 0.3 + 0.4 * (n as f64 * 0.3).sin()));
        let pause = rate * 3 / 10 + key.named("pause").below(i, rate as u64 / 5) as usize;
        pauses.push(samples.len()..samples.len() + pause);
        // As loud as a tone to who forgets the mean.
        samples.extend((0..pause).map(|n| 0.3 + 0.01 * (key.uniform(n as u64) - 0.5)));
    }
    let path = folder.file("a.wav", &wav(Sample::F32, rate as u32, &[samples]));
    let found = assert_tiled(&path, 5.0);
    assert!(found.len() > 8, "{}", found.len());
    for piece in &found[1..] {
        let at = piece.start as usize;
        let is_inside = |pause: &&std::ops::Range<usize>| pause.start + 400 <= at && at + 400 <= pause.end;
        assert!(pauses.iter().find(is_inside).is_some(), "cut at {at}: {pauses:?}");
        assert!((piece.begins() - at as f64 / 8000.0).abs() < 1e-12);
    }
}

#[test]
fn what_cannot_be_read_is_said_once() {
    let folder = Folder::new();
    let mut bytes = wav(Sample::I16, 8000, &[signal(8000, 40_000)]);
    bytes.truncate(bytes.len() - 8000);
    let path = folder.file("a.wav", &bytes);
    let found: Vec<_> = Pieces::open(&path, 2.0).unwrap().collect();
    let (last, before) = found.split_last().unwrap();
    assert!(before.iter().all(Result::is_ok) && !before.is_empty());
    let error = last.as_ref().unwrap_err().to_string();
    assert!(error.contains("a.wav") && error.contains("it ends after 4.50 s, where 5.00 s were to come"), "{error}");
    let page = folder.file("b.wav", b"%PDF-1.7");
    assert!(Pieces::open(&page, 2.0).unwrap_err().to_string().contains("b.wav: is a PDF document"));
    assert!(Pieces::open(&path, 0.5).unwrap_err().to_string().contains("allow 1 s at least"));
}
