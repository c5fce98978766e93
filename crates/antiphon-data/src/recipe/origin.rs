//! Where the files of a recipe lie.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use antiphon_core::{Error, Result};
use serde::Deserialize;

use super::config::{OriginConfig, RecipeConfig};

impl OriginConfig {
    /// The folder that holds the files; fetches them if need be.
    pub(super) fn locate(
        &self,
        cargo: &OsStr,
        recipe_dir: &Path,
        from: Option<&Path>,
        recipe: &RecipeConfig,
        log: &mut dyn FnMut(&str),
    ) -> Result<PathBuf> {
        match (self, from) {
            (Self::Crate(_), Some(from)) => {
                let message = "this recipe's files come with a crate that cargo fetches: leave out --from";
                Err(Error::new(message).in_file(from))
            }
            (Self::Crate(origin), None) => {
                log(&format!("asking cargo for the crate `{}`", origin.package));
                fetch(cargo, &recipe_dir.join("Cargo.toml"), &origin.package)
            }
            (Self::Local(_), Some(from)) if from.is_dir() => Ok(from.to_path_buf()),
            (Self::Local(_), Some(from)) => Err(Error::new("no such folder: --from takes one").in_file(from)),
            (Self::Local(origin), None) => {
                let mut message =
                    format!("give the folder that holds its files with --from DIR; get them from {}:", origin.source);
                for file in &recipe.files {
                    message += &format!("\n  DIR/{}", file.name);
                }
                Err(Error::new(message).in_file(recipe_dir))
            }
        }
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
