//! Wav and flac files, good and bad.

#![allow(missing_docs)]

#[allow(dead_code)]
mod common;

use std::fs;

use antiphon_core::Error;
use antiphon_core::random::Key;
use antiphon_sound::{Extractor, FeatureCache, Recording, Sound, counted_as, read};
use common::{Folder, Sample, config, golden, riff, signal, wav};

const MINUTE: f64 = 60.0;

fn error(recording: &Recording, max_seconds: f64) -> String {
    let error = read(recording, max_seconds).unwrap_err();
    assert_eq!(error.file.as_deref(), Some(recording.path.as_path()));
    error.to_string()
}

#[test]
fn every_kind_of_sample_is_read_as_it_was_written() {
    let folder = Folder::new();
    // More than a packet, and of no round length.
    let samples = signal(8000, 3001);
    for sample in Sample::ALL {
        let path = folder.file("a.wav", &wav(sample, 8000, std::slice::from_ref(&samples)));
        let sound = read(&Recording::whole(path), MINUTE).unwrap();
        let written: Vec<f64> = samples.iter().map(|&value| sample.round(value)).collect();
        assert_eq!(sound, Sound { samples: written, rate: 8000, damaged: 0 }, "{sample:?}");
    }
}

/// The forms of wav beside the plain one: telephone companding (G.711), and the extensible form of 24 bits.
#[test]
fn companded_and_extensible_sound_is_read() {
    let folder = Folder::new();
    let format = |code: u16, bits: u16, more: &[u8]| {
        let align = bits / 8;
        let numbers =
            [&code.to_le_bytes()[..], &[1, 0], &8000_u32.to_le_bytes(), &(8000 * u32::from(align)).to_le_bytes()];
        [&numbers.concat(), &align.to_le_bytes()[..], &bits.to_le_bytes(), more].concat()
    };
    let pcm = [1, 0, 0, 0, 0, 0, 16, 0, 128, 0, 0, 170, 0, 56, 155, 113];
    let extended = [&[22, 0, 24, 0, 4, 0, 0, 0][..], &pcm].concat();
    for (format, data, expected) in [
        (format(6, 8, &[0, 0]), vec![0xD5, 0x55, 0xAA], vec![8.0, -8.0, 32_256.0]),
        (format(7, 8, &[0, 0]), vec![0xFF, 0x80, 0x00], vec![0.0, 32_124.0, -32_124.0]),
        (format(0xFFFE, 24, &extended), vec![0, 0, 0x40, 0, 1, 0x80], vec![16_384.0, -32_767.0]),
    ] {
        let recording = Recording::whole(folder.file("a.wav", &riff(&format, &data)));
        let samples: Vec<f64> =
            read(&recording, MINUTE).unwrap().samples.iter().map(|sample| sample * 32_768.0).collect();
        assert_eq!(samples, expected, "{format:?}");
    }
}

#[test]
fn channels_are_mixed() {
    let folder = Folder::new();
    let (left, right) = (signal(8000, 2000), vec![0.25; 2000]);
    let path = folder.file("a.wav", &wav(Sample::F64, 44_100, &[left.clone(), right]));
    let sound = read(&Recording::whole(path), MINUTE).unwrap();
    let mean: Vec<f64> = left.iter().map(|value| (value + 0.25) / 2.0).collect();
    assert_eq!((sound.samples, sound.rate), (mean, 44_100));
}

#[test]
fn flac_is_read_to_the_last_bit() {
    let mono = signal(8000, 10_000);
    // As libsndfile rounds.
    let rounded = |bits: i32, value: f64| (value * 2_f64.powi(bits - 1)).round_ties_even() / 2_f64.powi(bits - 1);
    let sound = read(&Recording::whole(golden("mono.flac")), MINUTE).unwrap();
    let expected: Vec<f64> = mono.iter().map(|value| rounded(16, 0.5 * value)).collect();
    assert_eq!((sound.samples.len(), sound.rate, sound.damaged), (10_000, 8000, 0));
    let furthest = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    // Full scale is 32767 to libsndfile: less than a step.
    assert!(furthest(&sound.samples, &expected) < 1.01 / 32_768.0);
    let sound = read(&Recording::whole(golden("stereo.flac")), MINUTE).unwrap();
    let expected: Vec<f64> = mono[..800].iter().map(|value| 0.3 * value).collect();
    assert_eq!(sound.samples.len(), 800);
    assert!(furthest(&sound.samples, &expected) < 2.0 / 8_388_608.0);
}

#[test]
fn a_part_is_those_samples_of_the_whole() {
    let folder = Folder::new();
    let wav = folder.file("a.wav", &wav(Sample::F64, 8000, &[signal(8000, 10_000)]));
    for path in [wav, golden("mono.flac")] {
        let whole = read(&Recording::whole(&path), MINUTE).unwrap().samples;
        let part = |start, end| read(&Recording { path: path.clone(), start, end }, MINUTE).unwrap().samples;
        for (start, end) in [(0.0, 1.25), (0.0, 0.1), (0.3, 0.31), (0.144, 0.7), (0.6, 1.2), (1.2, 1.25)] {
            let range = (start * 8000.0_f64).round() as usize..(end * 8000.0_f64).round() as usize;
            assert_eq!(part(Some(start), Some(end)), whole[range], "{start} to {end}");
        }
        assert_eq!(part(Some(1.0), None), whole[8000..]);
        assert_eq!(part(None, Some(0.5)), whole[..4000]);
        // A table rounds its times.
        assert_eq!(part(Some(1.0), Some(1.255)), whole[8000..]);
    }
}

#[test]
fn parts_that_do_not_lie_in_the_file_are_refused() {
    let part = |start, end| error(&Recording { path: golden("mono.flac"), start, end }, MINUTE);
    for (start, end, expected) in [
        (Some(1.0), Some(1.3), "from 1.00 s to 1.30 s does not lie within the file, which has 1.25 s"),
        (Some(1.25), None, "does not lie within the file"),
        (Some(0.5), Some(0.5), "has no length"),
        (Some(0.5), Some(0.2), "has no length"),
        (Some(-1.0), None, "-1 is no time"),
        (None, Some(f64::INFINITY), "inf is no time"),
    ] {
        let error = part(start, end);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_cannot_be_sound_is_said_with_a_remedy() {
    let folder = Folder::new();
    let good = wav(Sample::I16, 8000, &[signal(8000, 4000)]);
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let not_finite = wav(Sample::F32, 8000, &[vec![0.0, 0.1, f64::NAN]]);
    let none = wav(Sample::I16, 8000, &[vec![]]);
    for (bytes, expected) in [
        (&b"%PDF-1.7\nwhatever"[..], "is a PDF document, neither wav nor flac; convert its sound with `ffmpeg -i"),
        (&b"OggS\0\0"[..], "is an Ogg file"),
        (&b"\x93NUMPY\x01\0"[..], "`kind = \"given\"`"),
        (&b"RIFF\x04\0\0\0AVI "[..], "is in a format that is not known here"),
        (&b""[..], "the file is empty"),
        (&b"R"[..], "is in a format that is not known here"),
        (&good[..20], "cannot be read as sound"),
        (&good[..44 + 2000], "it ends after 0.12 s, where 0.50 s were to come: it is truncated"),
        (&good[..44], "it ends after 0.00 s"),
        (&none, "has no sound in it"),
        (&changed(20, &[0x50, 0]), "cannot be read as sound"),
        (&changed(22, &[0, 0]), "cannot be read as sound"),
        (&changed(24, &[0; 4]), "it claims to have 0 samples a second"),
        (&changed(24, &[255; 4]), "samples a second"),
        (&not_finite, "at 0.00 s: a sample is no finite number"),
    ] {
        let error = error(&Recording::whole(folder.file("a.wav", bytes)), MINUTE);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let missing = error(&Recording::whole(folder.path().join("none.wav")), MINUTE);
    assert!(missing.contains("none.wav: there is no such file; correct its path"), "{missing}");
    assert!(error(&Recording::whole(folder.path()), MINUTE).contains("is no file"));
    let flac = fs::read(golden("mono.flac")).unwrap();
    let error = error(&Recording::whole(folder.file("a.flac", &flac[..flac.len() / 2])), MINUTE);
    assert!(error.contains("where 1.25 s were to come: it is truncated"), "{error}");
}

/// Each as its kind, whether the features are made or were made before; and what the head of a file tells is told by that too.
#[test]
fn faults_are_counted_by_kind() {
    let folder = Folder::new();
    let whole = signal(8000, 4000);
    let bytes = wav(Sample::I16, 8000, std::slice::from_ref(&whole));
    let part = |start: f64, end: f64| {
        let part = folder.recording("part.wav", 8000, &whole);
        Recording { start: Some(start), end: Some(end), ..part }
    };
    let long = folder.recording("long.wav", 8000, &signal(8000, 24_000));
    let faulty = [
        (Recording::whole(folder.path().join("none.wav")), "with a recording that is not there"),
        (Recording::whole(folder.file("empty.wav", b"")), "with an empty file"),
        (Recording::whole(folder.file("page.wav", b"%PDF-1.7 no sound")), "with a file that is neither wav nor flac"),
        (Recording::whole(folder.file("cut.wav", &bytes[..bytes.len() / 2])), "with a recording that is cut off"),
        (folder.recording("silent.wav", 8000, &[0.25; 4000]), "with a silent recording"),
        (folder.recording("short.wav", 8000, &whole[..50]), "with a recording shorter than a frame"),
        (folder.recording("fine.wav", 16_000, &whole), "with a recording of another rate"),
        (long, "with a recording over features.max_seconds"),
        (part(0.2, 0.2), "with a part that has no length"),
        (part(0.2, 0.8), "with a part that does not lie in its file"),
        (Recording::whole(folder.path()), "with a recording that cannot be used"),
    ];
    let config = config(r#"{"kind": "log_mel", "rate": 8000, "max_seconds": 2.0}"#);
    let recordings: Vec<Recording> = faulty.iter().map(|(recording, _)| recording.clone()).collect();
    let kinds: Vec<&str> = faulty.iter().map(|(_, kind)| *kind).collect();
    for _ in 0..2 {
        let mut found = Vec::new();
        let mut ear = |_: usize, error: Error| {
            found.push(counted_as(&error));
            Ok(())
        };
        FeatureCache::open(folder.path().join("kept"), &recordings, &config, &mut ear).unwrap();
        assert_eq!(found, kinds);
    }
    let extractor = Extractor::new(&config).unwrap();
    let looked: Vec<(&str, &str)> = faulty
        .iter()
        .filter_map(|(recording, kind)| Some((counted_as(&extractor.look(recording).err()?), *kind)))
        .collect();
    assert!(looked.len() >= 7 && looked.iter().all(|(found, kind)| found == kind), "{looked:?}");

    let given = common::config(r#"{"kind": "given", "width": 3}"#);
    let array = [&6_u32.to_be_bytes()[..], &[0; 24]].concat();
    for (recording, kind) in [
        (folder.file("a.txt", b"1"), "with a file that is neither `.mfc` nor `.npy`"),
        (folder.file("a.mfc", &array[..20]), "with a recording that is cut off"),
        (folder.file("b.mfc", &[&4_u32.to_be_bytes()[..], &[0; 16]].concat()), "with frames of another width"),
    ] {
        let error = Extractor::new(&given).unwrap().extract(&Recording::whole(recording)).unwrap_err();
        assert_eq!(counted_as(&error), kind, "{error}");
    }
}

/// A program that writes into a pipe cannot know the length, and says the greatest there is.
#[test]
fn a_length_that_nobody_knew_is_found() {
    let folder = Folder::new();
    let samples = signal(8000, 4000);
    let mut bytes = wav(Sample::F64, 8000, std::slice::from_ref(&samples));
    bytes[4..8].fill(255);
    bytes[40..44].fill(255);
    let recording = Recording::whole(folder.file("a.wav", &bytes));
    assert_eq!(read(&recording, MINUTE).unwrap().samples, samples);
    assert_eq!(read(&recording, 0.5).unwrap().samples, samples);
    assert!(error(&recording, 0.4).contains("more than `max_seconds` (0.4)"));
    let part = Recording { start: Some(0.4), end: Some(0.6), ..recording };
    assert!(error(&part, MINUTE).contains("it ends after 0.50 s"));
}

/// Ten hours by the header alone: had it been decoded, the file would have been found to be short.
#[test]
fn ten_hours_are_refused_before_they_are_decoded() {
    let folder = Folder::new();
    let mut bytes = wav(Sample::U8, 16_000, &[vec![0.1; 100]]);
    let length = 36_000 * 16_000_u32;
    bytes[4..8].copy_from_slice(&(length + 36).to_le_bytes());
    bytes[40..44].copy_from_slice(&length.to_le_bytes());
    let path = folder.file("a.wav", &bytes);
    let said = error(&Recording::whole(&path), MINUTE);
    assert!(said.contains("it has 36000.0 s of sound, more than `max_seconds` (60); cut it"), "{said}");
    let part = |start, end| error(&Recording { path: path.clone(), start, end }, MINUTE);
    assert!(part(Some(5.0), Some(5000.0)).contains("it has 4995.0 s of sound"));
    assert!(part(Some(5000.0), Some(5001.0)).contains("it is truncated"));
}

#[test]
fn a_damaged_packet_is_counted_and_what_follows_keeps_its_time() {
    let folder = Folder::new();
    let whole = fs::read(golden("mono.flac")).unwrap();
    let sound = read(&Recording::whole(golden("mono.flac")), MINUTE).unwrap();
    let mut damaged = whole.clone();
    // Within the second of three packets of 4096 samples.
    let middle = whole.len() / 2;
    damaged[middle..middle + 40].iter_mut().for_each(|byte| *byte ^= 0x5A);
    let path = folder.file("a.flac", &damaged);
    let found = read(&Recording::whole(&path), MINUTE).unwrap();
    assert_eq!((found.damaged, found.samples.len()), (1, 10_000));
    assert_eq!(found.samples[..4096], sound.samples[..4096]);
    assert_eq!(found.samples[8192..], sound.samples[8192..]);
    assert!(found.samples[4096..8192].iter().all(|sample| *sample == 0.0));
    // Of a part that the damage does not touch nobody need hear.
    let part = read(&Recording { path, start: Some(0.0), end: Some(0.5) }, MINUTE).unwrap();
    assert_eq!((part.damaged, &part.samples[..]), (0, &sound.samples[..4000]));
}

/// No bytes, however wrong, are worth a panic, and none make more sound than they may.
#[test]
fn damage_anywhere_is_an_error_or_other_sound() {
    let folder = Folder::new();
    let files = [
        (wav(Sample::I24, 8000, &[signal(8000, 50), signal(8000, 50)]), 60),
        (fs::read(golden("stereo.flac")).unwrap(), 400),
    ];
    for (file, head) in files {
        let mut refused = 0;
        for round in 0..200 {
            let (mut bytes, key) = (file.clone(), Key::from_seed(5).numbered(round));
            for change in 0..1 + key.below(0, 3) {
                let at = key.below(2 * change + 1, head.min(bytes.len() as u64)) as usize;
                bytes[at] = key.below(2 * change + 2, 256) as u8;
            }
            match read(&Recording::whole(folder.file("a", &bytes)), 1.0) {
                Ok(sound) => assert!(sound.seconds() <= 1.0 && sound.samples.iter().all(|sample| sample.is_finite())),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 30, "{refused}");
    }
}
