use std::fs;
use std::path::PathBuf;

use super::*;
use crate::config::Normalization;

fn config(width: usize) -> GivenConfig {
    GivenConfig { width, hop: 10.0, deltas: 0, normalize: Normalization::None, max_seconds: 60.0 }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn read(&self, name: &str, bytes: &[u8], width: usize) -> Result<Vec<f64>, String> {
        read(&config(width), &Recording::whole(self.file(name, bytes))).map_err(|error| error.to_string())
    }
}

/// A file of Sphinx.
fn mfc(values: &[f32], is_big_endian: bool) -> Vec<u8> {
    let bits = std::iter::once(values.len() as u32).chain(values.iter().map(|value| value.to_bits()));
    bits.flat_map(|word| if is_big_endian { word.to_be_bytes() } else { word.to_le_bytes() }).collect()
}

/// A file of NumPy with this header, as version 1, 2 or 3 writes it.
fn npy(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = [MAGIC, &[version, 0]].concat();
    let length = header.len() as u32;
    bytes.extend(if version == 1 { (length as u16).to_le_bytes().to_vec() } else { length.to_le_bytes().to_vec() });
    [&bytes, header.as_bytes(), data].concat()
}

const MAGIC: &[u8] = b"\x93NUMPY";

/// Numbers that all three kinds hold exactly.
const VALUES: [f64; 6] = [1.0, -2.0, 3.0, 400.0, -32768.0, 6.0];

fn numbers(values: &[f64], kind: &str) -> Vec<u8> {
    let one = |&value: &f64| {
        let mut bytes = match &kind[1..] {
            "f4" => (value as f32).to_le_bytes().to_vec(),
            "f8" => value.to_le_bytes().to_vec(),
            _ => (value as i16).to_le_bytes().to_vec(),
        };
        if kind.starts_with('>') {
            bytes.reverse();
        }
        bytes
    };
    values.iter().flat_map(one).collect()
}

#[test]
fn sphinx_files_are_read_from_either_end() {
    let folder = Folder::new();
    let values: Vec<f32> = (0..26).map(|i| i as f32 * 0.37 - 3.0).collect();
    let expected: Vec<f64> = values.iter().map(|&value| value.into()).collect();
    for is_big_endian in [true, false] {
        assert_eq!(folder.read("a.mfc", &mfc(&values, is_big_endian), 13).unwrap(), expected);
    }
}

#[test]
fn numpy_files_are_read_in_each_kind_order_and_version() {
    let folder = Folder::new();
    let by_columns: Vec<f64> = [0, 3, 1, 4, 2, 5].map(|i: usize| VALUES[i]).to_vec();
    for version in 1..=3 {
        for kind in ["<f4", ">f4", "<f8", ">f8", "<i2", ">i2"] {
            let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': (2, 3), }}      \n");
            let bytes = npy(version, &header, &numbers(&VALUES, kind));
            assert_eq!(folder.read("a.npy", &bytes, 3).unwrap(), VALUES, "{version} {kind}");
            let header = format!("{{\"shape\":(2,3),\"fortran_order\":True,\"descr\":\"{kind}\"}}");
            let bytes = npy(version, &header, &numbers(&by_columns, kind));
            assert_eq!(folder.read("A.NPY", &bytes, 3).unwrap(), VALUES, "{version} {kind} by columns");
        }
    }
}

#[test]
fn a_part_is_those_frames_of_the_whole() {
    let folder = Folder::new();
    let values: Vec<f64> = (0..60).map(f64::from).collect();
    let columns: Vec<f64> = (0..3).flat_map(|column| (0..20).map(move |t| f64::from(3 * t + column))).collect();
    let header = |order| format!("{{'descr': '<f8', 'fortran_order': {order}, 'shape': (20, 3), }}");
    let single: Vec<f32> = values.iter().map(|&value| value as f32).collect();
    let files = [
        folder.file("a.npy", &npy(1, &header("False"), &numbers(&values, "<f8"))),
        folder.file("b.npy", &npy(1, &header("True"), &numbers(&columns, "<f8"))),
        folder.file("c.mfc", &mfc(&single, true)),
    ];
    for path in files {
        let part =
            |start, end| read(&config(3), &Recording { path: path.clone(), start, end }).map_err(|e| e.to_string());
        assert_eq!(part(None, None).unwrap(), values);
        assert_eq!(part(Some(0.05), Some(0.12)).unwrap(), values[15..36]);
        assert_eq!(part(Some(0.15), None).unwrap(), values[45..]);
        // A rounded end.
        assert_eq!(part(Some(0.15), Some(0.205)).unwrap(), values[45..]);
        assert!(part(Some(0.1), Some(0.5)).unwrap_err().contains("does not lie within the file, which has 0.20 s"));
        assert!(part(Some(0.1), Some(0.1)).unwrap_err().contains("has no length"));
        assert!(part(Some(f64::NAN), None).unwrap_err().contains("NaN is no time"));
    }
}

#[test]
fn what_is_wrong_is_said_with_a_remedy() {
    let folder = Folder::new();
    let whole = mfc(&[1.0; 26], true);
    let header = |kind: &str, shape: &str| format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    let good = npy(1, &header("<f4", "(2, 3)"), &[0; 24]);
    let mut later = good.clone();
    later[6] = 9;
    let not_finite = npy(1, &header("<f4", "(2, 3)"), &numbers(&[0.0, 1.0, 2.0, 3.0, f64::INFINITY, 5.0], "<f4"));
    for (name, bytes, width, expected) in [
        ("a.mfc", &whole[..], 7, "26 numbers are no whole frames of 7; set `width`"),
        ("a.mfc", &whole[..40], 13, "has 40 bytes, which fit neither 26 numbers nor"),
        ("a.mfc", &whole[..2], 13, "has 2 bytes"),
        ("a.mfc", &[0; 4], 13, "holds no frame"),
        ("a.mfc", &[], 13, "the file is empty"),
        ("a.htk", &whole, 13, "ends with neither `.mfc`"),
        ("a.npy", &whole, 13, "it begins in another way"),
        ("a.npy", &good[..5], 3, "it is too short"),
        ("a.npy", &good[..30], 3, "a header of"),
        ("a.npy", &later, 3, "its version 9 is not known"),
        ("a.npy", &good, 4, "its frames have 3 numbers, not 4; set `width` to 3"),
        ("a.npy", &good[..good.len() - 1], 3, "23 bytes follow its header"),
        ("a.npy", &npy(1, &header("<f4", "(0, 3)"), &[]), 3, "holds no frame"),
        ("a.npy", &npy(1, &header("<f4", "(6,)"), &[0; 24]), 3, "has 1 dimensions, not 2"),
        ("a.npy", &npy(1, &header("<f4", "(18446744073709551615, 3)"), &[0; 24]), 3, "24 bytes follow"),
        ("a.npy", &npy(1, &header("|O", "(2, 3)"), &[0; 24]), 3, "numbers of the kind `|O`"),
        ("a.npy", &npy(1, &header("<c8", "(2, 3)"), &[0; 48]), 3, "numbers of the kind `<c8`"),
        ("a.npy", &npy(1, "{'descr': '<f4'}", &[]), 3, "its header is `{'descr': '<f4'}`"),
        ("a.npy", &npy(1, "{'descr': '<f4", &[]), 3, "its header is"),
        ("a.npy", &not_finite, 3, "number 1 of frame 1 (counted from 0) is not finite"),
    ] {
        let error = folder.read(name, bytes, width).unwrap_err();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let missing = read(&config(3), &Recording::whole(folder.0.path().join("none.npy"))).unwrap_err();
    assert!(missing.to_string().contains("there is no such file"), "{missing}");
    let tight = GivenConfig { max_seconds: 0.01, ..config(3) };
    let error = read(&tight, &Recording::whole(folder.file("a.npy", &good))).unwrap_err();
    assert!(error.to_string().contains("more than `max_seconds` (0.01)"), "{error}");
}

/// No bytes, however wrong, are worth a panic.
#[test]
fn damage_is_an_error_or_other_numbers() {
    let folder = Folder::new();
    let key = antiphon_core::random::Key::from_seed(11);
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";
    for (name, bytes) in [("a.npy", npy(1, header, &[0; 24])), ("a.mfc", mfc(&[0.5; 6], true))] {
        let mut refused = 0;
        for round in 0..150 {
            let (mut bytes, key) = (bytes.clone(), key.numbered(round));
            let at = key.below(0, bytes.len() as u64) as usize;
            bytes[at] = key.below(1, 256) as u8;
            match folder.read(name, &bytes, 3) {
                Ok(values) => assert_eq!(values.len() % 3, 0),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 20, "{refused}");
    }
}
