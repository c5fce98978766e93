//! Features are those of torchaudio's `compliance.kaldi`, resampling that of its `functional`: `golden/make.py` wrote theirs down.

#![allow(missing_docs)]

#[allow(dead_code)]
mod common;

use std::fs;

use antiphon_sound::{Extractor, Resampler};
use common::{config, golden, signal};

fn numbers(name: &str) -> Vec<Vec<f64>> {
    let text = fs::read_to_string(golden(&format!("{name}.txt"))).unwrap();
    text.lines().map(|line| line.split(' ').map(|number| number.parse().unwrap()).collect()).collect()
}

fn assert_close(ours: &[f64], theirs: &[f64], tolerance: f64, name: &str) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance, "{name}: {worst}");
}

#[test]
fn features_are_kaldis() {
    for (name, rate, count, json) in [
        ("log_mel", 16_000, 2400, r#"{"kind": "log_mel", "normalize": "none"}"#),
        ("log_mel_80", 8000, 680, r#"{"kind": "log_mel", "rate": 8000, "filters": 80, "normalize": "none"}"#),
        (
            "log_mel_settings",
            8000,
            1200,
            r#"{"kind": "log_mel", "rate": 8000, "window": 32, "hop": 12.5, "shape": "hamming", "pre_emphasis": 0.9,
                "filters": 30, "low": 100, "high": 3600, "energy": true, "normalize": "none"}"#,
        ),
        ("mfcc", 16_000, 2400, r#"{"kind": "mfcc", "normalize": "none"}"#),
        (
            "mfcc_settings",
            16_000,
            2400,
            r#"{"kind": "mfcc", "shape": "hann", "pre_emphasis": 0, "filters": 40, "coefficients": 20, "low": 130,
                "high": 6800, "lifter": 0, "energy": true, "normalize": "none"}"#,
        ),
        ("mfcc_deltas", 16_000, 2400, r#"{"kind": "mfcc", "shape": "rectangular", "deltas": 2, "normalize": "none"}"#),
    ] {
        let (theirs, config) = (numbers(name), config(json));
        let ours = Extractor::new(&config).unwrap().extract_samples(&signal(rate, count)).unwrap();
        assert_eq!((theirs[0].len(), theirs.len()), (config.width(), ours.len() / config.width()), "{name}");
        let ours: Vec<f64> = ours.into_iter().map(f64::from).collect();
        assert_close(&ours, &theirs.concat(), 1e-3, name);
    }
}

#[test]
fn resampling_is_torchaudios() {
    for (from, to, count) in [(8000, 16_000, 200), (16_000, 8000, 600), (44_100, 16_000, 700), (16_000, 11_025, 400)] {
        let name = format!("resample_{from}_{to}");
        let ours = Resampler::new(from, to).resample(&signal(from, count));
        assert_close(&ours, &numbers(&name)[0], 1e-9, &name);
    }
}
