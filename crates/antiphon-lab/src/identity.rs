//! What makes two experiments the same.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use antiphon_core::{Error, Result, hex};
use serde::{Deserialize, Serialize};
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
    /// The run that it goes on with, if it does not begin at step 0.
    pub parent: Option<Parent>,
    /// The commit that the program was built from, where known; not part of the [digest](Self::digest).
    pub revision: Option<Revision>,
}

/// The run that another one goes on with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// Its folder, as it was named; not part of the digest.
    pub run: String,
    /// Its experiment's [`Identity::digest`].
    pub digest: String,
    /// Its last step.
    pub step: u64,
    /// What began anew behind that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restarts: Vec<String>,
}

impl Parent {
    /// Whether this began anew.
    pub fn restarts(&self, what: &str) -> bool {
        self.restarts.iter().any(|restarted| restarted == what)
    }
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALL: [&str; 3] = ["schedule", "optimizer", "patience"];
        write!(f, "{} after step {}", self.run, self.step)?;
        for (restarts, what) in [(false, "kept"), (true, "restarted")] {
            let these: Vec<&str> = ALL.into_iter().filter(|one| self.restarts(one) == restarts).collect();
            if !these.is_empty() {
                write!(f, "; {what}: {}", these.join(", "))?;
            }
        }
        Ok(())
    }
}

impl Identity {
    /// SHA-256, in hexadecimal, of the experiment as canonical JSON: no spaces, keys in the order of their bytes.
    ///
    /// The same config, data, version, device and threads give the same digest, whatever the name and the commit.
    pub fn digest(&self) -> String {
        let Self { name: _, config, uncounted, data, version, device, threads, parent, revision: _ } = self;
        let mut config = config.clone();
        leave_out(&mut config, uncounted);
        let mut whole = serde_json::json!({
            "config": config, "data": data, "version": version, "device": device, "threads": threads,
        });
        if let Some(Parent { run: _, digest, step, restarts }) = parent {
            whole["parent"] = serde_json::json!({ "digest": digest, "step": step, "restarts": restarts });
        }
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
    fn who_goes_on_with_another_run_is_another_experiment() {
        let plain = identity("one");
        let parent = Parent { run: "runs/a".into(), digest: "12".into(), step: 7, restarts: vec![] };
        let of = |parent: Parent| Identity { parent: Some(parent), ..plain.clone() }.digest();
        let digest = of(parent.clone());
        assert_eq!(of(Parent { run: "elsewhere".into(), ..parent.clone() }), digest);
        let restarted = Parent { restarts: vec!["schedule".into()], ..parent.clone() };
        let mut digests = vec![
            plain.digest(),
            digest,
            of(Parent { digest: "13".into(), ..parent.clone() }),
            of(Parent { step: 8, ..parent.clone() }),
            of(restarted.clone()),
        ];
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 5);
        assert_eq!(parent.to_string(), "runs/a after step 7; kept: schedule, optimizer, patience");
        assert_eq!(restarted.to_string(), "runs/a after step 7; kept: optimizer, patience; restarted: schedule");
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
