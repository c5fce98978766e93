//! What makes two experiments the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use antiphon_core::{Error, Result, hex};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::manifest::Revision;

/// An experiment: everything that its figures depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// A label for people, the start of the folder's name; not part of the [digest](Self::digest).
    pub name: String,
    /// Every setting, resolved: a JSON object.
    pub config: Value,
    /// Those of them, as JSON pointers, that do not count for the [digest](Self::digest): settings that older runs have not, at the
    /// defaults that these runs have had.
    pub uncounted: Vec<String>,
    /// The files that are read, as the config names them, and their SHA-256 in hexadecimal ([`sha256_file`]).
    pub data: BTreeMap<String, String>,
    /// The program's version.
    pub version: String,
    /// The device, as in `flex`.
    pub device: String,
    /// How many threads compute.
    pub threads: usize,
    /// The commit that the program was built from, where known; not part of the [digest](Self::digest).
    pub revision: Option<Revision>,
}

impl Identity {
    /// SHA-256, in hexadecimal, of the experiment as canonical JSON: no spaces, keys in the order of their bytes.
    ///
    /// The same config, data, version, device and threads give the same digest, whatever the name and the commit.
    pub fn digest(&self) -> String {
        let Self { name: _, config, uncounted, data, version, device, threads, revision: _ } = self;
        let mut config = config.clone();
        leave_out(&mut config, uncounted);
        let whole = serde_json::json!({
            "config": config, "data": data, "version": version, "device": device, "threads": threads,
        });
        digest_of(&whole)
    }

    /// The name of this experiment's first folder: the label, as far as file systems bear it, and 8 digits.
    pub(crate) fn folder(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let label: String = self.name.chars().take(64).map(plain).collect();
        let label = label.trim_matches(['.', '-']);
        format!("{}-{}", if label.is_empty() { "run" } else { label }, &self.digest()[..8])
    }
}

/// Takes settings, named by JSON pointers, out of a JSON object.
pub fn leave_out(settings: &mut Value, keys: &[String]) {
    for key in keys {
        let (table, last) = key.rsplit_once('/').unwrap_or(("", key));
        if let Some(table) = settings.pointer_mut(table).and_then(Value::as_object_mut) {
            table.remove(last);
        }
    }
}

/// SHA-256, in hexadecimal, of a value as canonical JSON.
pub fn digest_of(value: &Value) -> String {
    hex(&Sha256::digest(canonical(value)))
}

/// SHA-256 of a file's bytes, in hexadecimal.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256_file(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let failed = |e: std::io::Error| Error::io(path, "read", &e);
    let mut file = File::open(path).map_err(failed)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// JSON text that does not depend on the order in which keys were written.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            let entries: Vec<_> =
                entries.iter().map(|(key, v)| format!("{}:{}", Value::from(key.as_str()), canonical(v))).collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::identity;

    #[test]
    fn canonical_json_sorts_keys_at_every_depth_and_keeps_the_order_of_lists() {
        let text = r#"{ "b": [ {"y": 1, "x": "é\"" }, 2.50 ], "a": null, "B": true }"#;
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(canonical(&value), r#"{"B":true,"a":null,"b":[{"x":"é\"","y":1},2.5]}"#);
    }

    #[test]
    fn the_digest_is_that_of_the_canonical_text() {
        // printf '%s' '{"config":{"seed":17},"data":{"a.tsv":"00"},"device":"flex","threads":2,"version":"0.1.0"}' | sha256sum
        let mut one = identity("g2p");
        one.config = serde_json::json!({ "seed": 17 });
        one.data = BTreeMap::from([("a.tsv".into(), "00".into())]);
        assert_eq!(one.digest(), "37d7333bd60d74494b1b9a70a9cea3e64a05e95d4c885a0b10c8501577f8bfa5");
    }

    #[test]
    fn the_digest_ignores_the_order_of_keys_and_the_name() {
        let one = identity("one");
        let config =
            serde_json::from_str(r#"{"model":{"hidden":8,"kind":"lstm"},"seed":17,"tokenizer":{"kind":"character"}}"#);
        assert_eq!(one.digest(), Identity { config: config.unwrap(), ..one.clone() }.digest());
        assert_eq!(one.digest(), Identity { name: "two".into(), ..one.clone() }.digest());
        assert_eq!(one.digest(), Identity { revision: Revision::parse("0123456"), ..one.clone() }.digest());
    }

    #[test]
    fn the_digest_changes_with_every_field_that_matters() {
        let one = identity("one");
        let mut others = vec![one.clone(); 6];
        others[0].config["model"]["hidden"] = 9.into();
        others[1].data.insert("train.tsv".into(), "1".into());
        others[2].data.insert("more.tsv".into(), "0".into());
        others[3].version = "0.1.1".into();
        others[4].device = "wgpu".into();
        others[5].threads = 3;
        let mut young = one.clone();
        young.config["model"]["head"] = 1.into();
        assert_ne!(young.digest(), one.digest());
        young.uncounted.push("/model/head".into());
        assert_eq!(young.digest(), one.digest());
        let mut digests: Vec<_> = others.iter().map(Identity::digest).chain([one.digest()]).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 7);
    }

    #[test]
    fn a_folder_is_named_in_letters_that_every_file_system_knows() {
        let folder = |name: &str| identity(name).folder();
        let digest = &identity("").digest()[..8];
        assert_eq!(folder("g2p/cmudict é"), format!("g2p-cmudict-{digest}"));
        assert_eq!(folder("../.."), format!("run-{digest}"));
        assert_eq!(folder(""), format!("run-{digest}"));
    }

    #[test]
    fn a_file_is_hashed_whole() {
        // yes antiphon | head -c 200000 | sha256sum
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, &b"antiphon\n".repeat(25_000)[..200_000]).unwrap();
        let expected = "665a68c71a281255ec4a9f64afc885e055b06d8828925e270c9bf529d3035600";
        assert_eq!(sha256_file(&path).unwrap(), expected);
        let error = sha256_file(folder.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("none: cannot read"), "{error}");
    }
}
