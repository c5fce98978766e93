//! One safetensors file: `f32` arrays, and one metadata entry that says what they are.
//!
//! The entry `antiphon` holds `{"content":…,"format":…,"kind":…,"sha256":…}`; the digest covers the kind, the content
//! and every array with its name and shape, so that truncation and flipped bits are found. Equal contents give equal bytes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::{fs, io};

use antiphon_core::disk::write_atomically;
use antiphon_core::{Error, Result, hex};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Weight;

/// The newest format that this version reads.
const FORMAT: u64 = 4;
const ENTRY: &str = "antiphon";

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Archive {
    /// The format that it needs: the first one whose readers know all of its parts.
    pub(crate) format: u64,
    /// What sort of file it is.
    pub(crate) kind: String,
    /// What the arrays belong to.
    pub(crate) content: Value,
    /// The arrays, in the order of their names.
    pub(crate) arrays: Vec<Weight>,
}

/// Why a file could not be read.
#[derive(Debug)]
pub(crate) enum Failure {
    Io(io::Error),
    Damaged(String),
    Newer(u64),
}

impl Failure {
    pub(crate) fn into_error(self, path: &Path) -> Error {
        match self {
            Failure::Io(source) => Error::io(path, "read", &source),
            Failure::Damaged(what) => Error::new(format!("is damaged or not ours: {what}; restore it from a copy")).in_file(path),
            Failure::Newer(format) => Error::new(format!(
                "was written by a newer version (format {format}, this version reads up to {FORMAT}): update this program"
            ))
            .in_file(path),
        }
    }
}

/// The metadata entry; its fields are in alphabetical order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    content: Value,
    format: u64,
    kind: String,
    sha256: String,
}

/// Writes the file as a whole or not at all.
///
/// # Errors
/// If the file system refuses; what stood there before is untouched.
pub(crate) fn write(path: &Path, mut archive: Archive) -> Result<()> {
    archive.arrays.sort_by(|a, b| a.path.cmp(&b.path));
    let parts = archive
        .arrays
        .iter()
        .map(|array| (array.path.as_str(), array.dims.as_slice(), little_endian(&array.values).into()));
    let sha256 = digest(&archive.kind, &archive.content, parts);
    let entry = Entry { sha256, content: archive.content, format: archive.format, kind: archive.kind };
    let entry = serde_json::to_string(&entry).expect("JSON values can be written");
    let arrays = archive.arrays.iter().map(|array| (array.path.as_str(), Stored(array)));
    let bytes = safetensors::serialize(arrays, Some(HashMap::from([(ENTRY.to_owned(), entry)])))
        .expect("named arrays make a safetensors file");
    write_atomically(path, &bytes)
}

/// Reads and verifies a file.
pub(crate) fn read(path: &Path) -> Result<Archive, Failure> {
    Unverified::read(path)?.verify()
}

/// A file that was read, of which only what it says about itself was looked at.
pub(crate) struct Unverified {
    bytes: Vec<u8>,
    entry: Entry,
}

impl Unverified {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = fs::read(path).map_err(Failure::Io)?;
        let entry = parse_entry(&bytes)?;
        Ok(Self { bytes, entry })
    }

    pub(crate) fn kind(&self) -> &str {
        &self.entry.kind
    }

    pub(crate) fn content(&self) -> &Value {
        &self.entry.content
    }

    /// Its arrays, if they are those that were written.
    pub(crate) fn verify(self) -> Result<Archive, Failure> {
        let Self { bytes, entry } = self;
        let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let mut views: Vec<_> = file.iter().collect();
        views.sort_by_key(|(name, _)| *name);
        if let Some((name, _)) = views.iter().find(|(_, view)| view.dtype() != Dtype::F32) {
            return Err(Failure::Damaged(format!("`{name}` is not of 32-bit floating point")));
        }
        let arrays = || {
            let array = |(name, view): &(&str, TensorView<'_>)| Weight {
                path: (*name).to_owned(),
                dims: view.shape().to_vec(),
                values: view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            };
            views.iter().map(array).collect()
        };
        let parts = || views.iter().map(|(name, view)| (*name, view.shape(), Cow::Borrowed(view.data())));
        let (sha256, arrays) = rayon::join(|| digest(&entry.kind, &entry.content, parts()), arrays);
        if sha256 != entry.sha256 {
            return Err(Failure::Damaged("its checksum does not match".into()));
        }
        Ok(Archive { format: entry.format, kind: entry.kind, content: entry.content, arrays })
    }
}

fn damaged(error: impl std::fmt::Display) -> Failure {
    Failure::Damaged(error.to_string())
}

fn parse_entry(bytes: &[u8]) -> Result<Entry, Failure> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let entry = header.metadata().as_ref().and_then(|map| map.get(ENTRY));
    let entry = entry.ok_or_else(|| Failure::Damaged(format!("the metadata entry `{ENTRY}` is missing")))?;
    let value: Value = serde_json::from_str(entry).map_err(damaged)?;
    match value.get("format").and_then(Value::as_u64) {
        Some(format) if format > FORMAT => Err(Failure::Newer(format)),
        Some(1..=FORMAT) => serde_json::from_value(value).map_err(damaged),
        _ => Err(Failure::Damaged("its format has no number".into())),
    }
}

/// `arrays`: name, shape and bytes, in the order of the names.
fn digest<'a>(
    kind: &str,
    content: &Value,
    arrays: impl Iterator<Item = (&'a str, &'a [usize], Cow<'a, [u8]>)>,
) -> String {
    let mut hash = Sha256::new();
    hash.update(kind);
    hash.update([0]);
    hash.update(content.to_string());
    for (name, dims, bytes) in arrays {
        hash.update([0]);
        hash.update(name);
        hash.update([0]);
        for &dim in dims {
            hash.update((dim as u64).to_le_bytes());
        }
        hash.update(bytes);
    }
    hex(&hash.finalize())
}

fn little_endian(values: &[f32]) -> Vec<u8> {
    let bytes: Vec<[u8; 4]> = values.iter().map(|value| value.to_le_bytes()).collect();
    bytes.into_flattened()
}

struct Stored<'a>(&'a Weight);

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.dims
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(little_endian(&self.0.values))
    }

    fn data_len(&self) -> usize {
        size_of_val(self.0.values.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Archive {
        let array = |path: &str, dims: &[usize]| Weight {
            path: path.into(),
            dims: dims.to_vec(),
            values: (0..dims.iter().product()).map(|i| i as f32 * 0.1 - 0.3).collect(),
        };
        let content = serde_json::json!({"value": 0.1, "name": "x", "seed": u64::MAX});
        Archive {
            format: 1,
            kind: "test".into(),
            content,
            arrays: vec![array("b", &[5]), array("a.b", &[2, 3]), array("c", &[])],
        }
    }

    #[test]
    fn a_file_comes_back_and_is_the_same_bytes_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&path, archive()).unwrap();
        let mut expected = archive();
        expected.arrays.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(read(&path).unwrap(), expected);
        let first = fs::read(&path).unwrap();
        for _ in 0..20 {
            write(&path, archive()).unwrap();
            assert_eq!(fs::read(&path).unwrap(), first);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&path, archive()).unwrap();
        let good = fs::read(&path).unwrap();
        let original = read(&path).unwrap();
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(matches!(read(&path), Err(Failure::Damaged(_))), "{length} bytes were accepted");
        }
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1 << (i % 8);
            fs::write(&path, &bad).unwrap();
            // A flipped bit may turn the white space that pads the header, or an escaped letter, into an equal one.
            if let Ok(read) = read(&path) {
                assert_eq!(read, original, "a flipped bit in byte {i} went unseen");
            }
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let entry = r#"{"format":5,"surprise":true}"#.to_owned();
        let arrays = Vec::<(&str, Stored<'_>)>::new();
        let bytes = safetensors::serialize(arrays, Some(HashMap::from([(ENTRY.to_owned(), entry)]))).unwrap();
        fs::write(&path, bytes).unwrap();
        let error = read(&path).unwrap_err().into_error(Path::new("x")).to_string();
        assert_eq!(
            error,
            "x: was written by a newer version (format 5, this version reads up to 4): update this program"
        );
    }
}
