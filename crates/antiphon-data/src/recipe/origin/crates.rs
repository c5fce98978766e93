//! Files that a crate ships: cargo fetches it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use antiphon_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A crate that ships files. The recipe's folder holds a `Cargo.toml` that depends on it and is never built, and the
/// `Cargo.lock` that fixes its version and checksum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrateOrigin {
    /// The crate.
    pub package: String,
}

impl CrateOrigin {
    /// Where cargo keeps the crate, which `manifest` depends on.
    pub(super) fn fetch(&self, cargo: &OsStr, manifest: &Path) -> Result<PathBuf> {
        fetch(cargo, manifest, &self.package)
    }
}

/// What is read of `cargo metadata`.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
}

/// Where cargo keeps `package`, which `manifest` depends on. Cargo fetches it at the version of the lock file and checks
/// its checksum; nothing is built.
fn fetch(cargo: &OsStr, manifest: &Path, package: &str) -> Result<PathBuf> {
    let failed = |message: String| Error::new(message).in_file(manifest);
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(manifest)
        .output()
        .map_err(|e| {
            let cargo = cargo.display();
            failed(format!("cannot run `{cargo}`: {e}; install Rust from https://rustup.rs, or set CARGO to its cargo"))
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().replace('\n', "\n  ");
        return Err(failed(format!("cargo cannot fetch `{package}`; is there a network? It says:\n  {said}")));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .map_err(|e| failed(format!("cargo's answer cannot be read: {e}; use the cargo of Rust 1.95 or later")))?;
    let found = metadata.packages.into_iter().find(|p| p.name == package);
    let found = found.ok_or_else(|| failed(format!("it does not depend on `{package}`, which the recipe names")))?;
    Ok(found.manifest_path.parent().map(Path::to_path_buf).unwrap_or_default())
}
