//! What must be true of features, whatever their settings.

#![allow(missing_docs)]

#[allow(dead_code)]
mod common;

use antiphon_core::Problem;
use antiphon_sound::{Extractor, FeaturesConfig, Recording};
use common::{Folder, Sample, config, signal, wav};

const KINDS: [&str; 2] = ["log_mel", "mfcc"];

fn plain(kind: &str, more: &str) -> FeaturesConfig {
    config(&format!(r#"{{"kind": "{kind}", "normalize": "none"{more}}}"#))
}

fn features(config: &FeaturesConfig, samples: &[f64]) -> Vec<f32> {
    Extractor::new(config).unwrap().extract_samples(samples).unwrap()
}

#[test]
fn a_signal_cut_at_a_hop_has_the_features_of_the_whole_there() {
    let samples = signal(16_000, 8000);
    for kind in KINDS {
        for energy in [false, true] {
            let config = plain(kind, &format!(r#", "energy": {energy}"#));
            let (whole, width) = (features(&config, &samples), config.width());
            assert_eq!(whole.len(), width * (1 + (8000 - 400) / 160));
            for (first, count) in [(0, 10), (7, 1), (20, 28)] {
                let cut = &samples[160 * first..][..160 * (count - 1) + 400];
                assert_eq!(features(&config, cut), whole[width * first..][..width * count], "{kind} from {first}");
            }
        }
    }
}

/// A constant is taken from each frame, and twice the sound is four times the power.
#[test]
fn an_offset_changes_nothing_and_loudness_adds_a_constant() {
    let samples = signal(16_000, 4000);
    let config = plain("log_mel", r#", "energy": true"#);
    let before = features(&config, &samples);
    let furthest = |after: &[f32], by: f32| {
        before.iter().zip(after).map(|(before, after)| (after - before - by).abs()).fold(0.0, f32::max)
    };
    let offset: Vec<f64> = samples.iter().map(|sample| sample + 0.1).collect();
    assert!(furthest(&features(&config, &offset), 0.0) < 1e-4);
    let louder: Vec<f64> = samples.iter().map(|sample| 2.0 * sample).collect();
    assert!(furthest(&features(&config, &louder), 4_f32.ln()) < 1e-4);
}

#[test]
fn a_tone_is_loudest_in_the_band_around_it() {
    let tone = |frequency: f64| -> Vec<f64> {
        (0..3200).map(|n| 0.5 * (2.0 * std::f64::consts::PI * frequency * f64::from(n) / 16_000.0).sin()).collect()
    };
    let config = plain("log_mel", r#", "filters": 40"#);
    let mel = |frequency: f64| 1127.0 * (1.0 + frequency / 700.0).ln();
    let width = (mel(8000.0) - mel(20.0)) / 41.0;
    for band in [5, 12, 20, 33] {
        let centre = 700.0 * (((mel(20.0) + width * f64::from(band + 1)) / 1127.0).exp() - 1.0);
        for frame in features(&config, &tone(centre)).chunks_exact(40) {
            let loudest = (0..40).max_by(|&a, &b| frame[a].total_cmp(&frame[b]));
            assert_eq!(loudest, Some(band as usize), "{centre} Hz");
        }
    }
}

/// Of a quiet stretch behind a loud one only what lies within the range is left as it is; energies of whole frames have their own.
#[test]
fn energies_far_below_the_greatest_are_raised_to_the_range() {
    let mut samples = signal(16_000, 16_000);
    samples[8000..].iter_mut().for_each(|sample| *sample *= 1e-3);
    let whole = features(&plain("log_mel", r#", "energy": true"#), &samples);
    for (decibels, raises) in [(25.0, true), (60.0, true), (300.0, false)] {
        let config = plain("log_mel", &format!(r#", "energy": true, "range": {decibels:?}"#));
        let (raised, width) = (features(&config, &samples), config.width());
        for columns in [0..1, 1..width] {
            let of = |values: &[f32]| -> Vec<f32> {
                values.chunks_exact(width).flat_map(|frame| frame[columns.clone()].to_vec()).collect()
            };
            let (before, after) = (of(&whole), of(&raised));
            let floor = before.iter().copied().fold(f32::MIN, f32::max) - decibels / 10.0 * 10_f32.ln();
            for (before, after) in before.iter().zip(&after) {
                assert!((after - before.max(floor)).abs() < 1e-5, "{decibels} dB: {before} became {after}");
            }
            assert_eq!(before != after, raises, "{decibels} dB");
        }
    }
}

#[test]
fn columns_of_a_recording_are_normalised_with_their_deltas() {
    let samples = signal(16_000, 16_000);
    for (normalize, with_variance) in [("mean", false), ("mean_and_variance", true)] {
        let config = config(&format!(r#"{{"kind": "mfcc", "deltas": 2, "normalize": "{normalize}"}}"#));
        let (values, width) = (features(&config, &samples), config.width());
        assert_eq!((width, config.blocks()), (39, 3));
        for column in 0..width {
            let column = || values[column..].iter().step_by(width).map(|&value| f64::from(value));
            let count = column().count() as f64;
            let (mean, square) =
                (column().sum::<f64>() / count, column().map(|value| value * value).sum::<f64>() / count);
            assert!(mean.abs() < 1e-5, "{mean}");
            assert!(!with_variance || (square - 1.0).abs() < 1e-5, "{square}");
        }
    }
}

#[test]
fn sound_of_another_rate_is_refused_or_resampled() {
    let folder = Folder::new();
    let recording = folder.recording("a.wav", 8000, &signal(8000, 4000));
    let error = Extractor::new(&plain("log_mel", "")).unwrap().extract(&recording).unwrap_err().to_string();
    assert!(
        error.contains(
            "a.wav: it has 8000 samples a second, not 16000; set features.resample = true, or features.rate = 8000"
        ),
        "{error}"
    );
    let config = plain("log_mel", r#", "resample": true"#);
    let extractor = Extractor::new(&config).unwrap();
    let values = extractor.extract(&recording).unwrap().values;
    // Half a second, as if it had been recorded so.
    assert_eq!(values.len() / config.width(), 1 + (8000 - 400) / 160);
    assert_eq!(values, extractor.extract(&recording).unwrap().values);
}

#[test]
fn silence_and_a_single_sample_are_refused_by_name() {
    let folder = Folder::new();
    let extractor = Extractor::new(&plain("mfcc", "")).unwrap();
    for (samples, expected) in [
        (vec![0.0; 4000], "a.wav: it is silent from beginning to end; leave it out"),
        (vec![0.25; 4000], "a.wav: it is silent from beginning to end"),
        (vec![0.5], "a.wav: its 1 samples (0.1 ms) are fewer than the 400 (25.0 ms) of a frame"),
        (signal(16_000, 399), "a.wav: its 399 samples"),
    ] {
        let error = extractor.extract(&folder.recording("a.wav", 16_000, &samples)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let values = extractor.extract(&folder.recording("a.wav", 16_000, &signal(16_000, 400))).unwrap().values;
    assert_eq!(values.len(), 13);
}

#[test]
fn numbers_beyond_all_sound_are_refused() {
    let folder = Folder::new();
    for scale in [1e160, 1e304] {
        let loud: Vec<f64> = signal(16_000, 4000).iter().map(|sample| sample * scale).collect();
        let recording = Recording::whole(folder.file("a.wav", &wav(Sample::F64, 16_000, &[loud])));
        let error = Extractor::new(&plain("log_mel", "")).unwrap().extract(&recording).unwrap_err().to_string();
        assert!(error.contains("a.wav: its numbers are too large for features; scale it"), "{error}");
    }
}

#[test]
fn given_features_have_deltas_and_are_normalised_too() {
    let folder = Folder::new();
    let ramp: Vec<u8> = (0..40_u32).flat_map(|t| (t as f32).to_be_bytes()).collect();
    let path = folder.file("a.mfc", &[&40_u32.to_be_bytes()[..], &ramp].concat());
    let given = |more: &str| config(&format!(r#"{{"kind": "given", "width": 1, "deltas": 1{more}}}"#));
    let extract = |config: &FeaturesConfig| Extractor::new(config).unwrap().extract(&Recording::whole(&path)).unwrap();
    let values = extract(&given(r#", "normalize": "none""#)).values;
    assert_eq!(values[20..24], [10.0, 1.0, 11.0, 1.0]);
    let values = extract(&given("")).values;
    assert!(values.iter().step_by(2).sum::<f32>().abs() < 1e-4 && values[0] < -1.5, "{values:?}");
    let error = Extractor::new(&given("")).unwrap().extract_samples(&[0.0; 4000]).unwrap_err();
    assert_eq!(error.to_string(), "kind: `given` features are not made of sound; use `log_mel` or `mfcc`");
}

#[test]
fn settings_that_cannot_work_are_named() {
    let places = |config: FeaturesConfig| {
        assert_eq!(Extractor::new(&config).err().map(|error| error.problems).unwrap_or_default(), config.problems());
        config.problems().into_iter().map(|problem| problem.place.to_string()).collect::<Vec<_>>()
    };
    for kind in KINDS {
        assert!(places(plain(kind, "")).is_empty());
        for (more, expected) in [
            (r#", "rate": 100"#, &["rate", "high"][..]),
            (
                r#", "window": 5, "hop": 0.5, "deltas": 3, "max_seconds": 0"#,
                &["deltas", "max_seconds", "hop", "window"],
            ),
            (r#", "low": 4000, "high": 3000"#, &["low"]),
            (r#", "high": 8001, "pre_emphasis": 1.5"#, &["pre_emphasis", "high"]),
            (r#", "filters": 200"#, &["filters"]),
        ] {
            assert_eq!(places(plain(kind, more)), expected, "{kind} {more}");
        }
    }
    assert_eq!(places(plain("mfcc", r#", "coefficients": 24, "lifter": -1"#)), ["coefficients", "lifter"]);
    assert_eq!(places(plain("given", r#", "width": 0, "hop": 0"#)), ["hop", "width"]);
    let Problem { message, .. } = plain("log_mel", r#", "rate": 8000, "filters": 100"#).problems().remove(0);
    assert!(
        message.contains("of 100, from ") && message.contains("256 points") && message.contains("31.2 Hz apart"),
        "{message}"
    );
}

#[test]
fn unknown_settings_are_refused_and_the_schema_has_the_ranges() {
    for kind in ["log_mel", "mfcc", "given"] {
        let text = format!(r#"{{"kind": "{kind}", "width": 13, "dither": 1}}"#);
        let error = serde_json::from_str::<FeaturesConfig>(&text).unwrap_err().to_string();
        assert!(error.contains("unknown field"), "{error}");
    }
    let config = plain("mfcc", r#", "high": 7000"#);
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<FeaturesConfig>(&text).unwrap(), config);
    let schema = schemars::schema_for!(FeaturesConfig).to_value();
    // Each end of each range works beside the defaults, but for those that another setting must follow.
    let kinds = schema["oneOf"].as_array().unwrap();
    let mut tried = 0;
    for kind in kinds {
        let mut keywords = kind.clone();
        if let Some(target) = kind["$ref"].as_str() {
            let target = schema.pointer(target.trim_start_matches('#')).unwrap();
            keywords["properties"].as_object_mut().unwrap().extend(target["properties"].as_object().unwrap().clone());
        }
        let name = keywords["properties"]["kind"]["const"].as_str().unwrap();
        for (key, setting) in keywords["properties"].as_object().unwrap() {
            for end in ["minimum", "maximum"].into_iter().filter_map(|end| setting.get(end)) {
                if (name, key.as_str()) == ("mfcc", "filters") {
                    continue;
                }
                let mut settings = serde_json::json!({ "kind": name, key: end });
                if name == "given" && key != "width" {
                    settings["width"] = 13.into();
                }
                let config: FeaturesConfig = serde_json::from_value(settings.clone()).unwrap();
                assert_eq!(config.problems(), [], "{settings}");
                tried += 1;
            }
        }
    }
    assert!(tried > 20, "{tried}");
}
