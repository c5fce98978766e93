//! Bakes the commit of the sources, and the profile, into the program, so that a manifest knows it however the program is called.
//!
//! It is found when the program is built, not when it runs: a program that was not built since says nothing of a commit that
//! came later. This script runs again when the repository's HEAD moves or a source file changes, and then this package alone
//! is compiled again; nothing that it depends on is, and Burn least of all. Without git, or in sources that no repository
//! tracks, the commit is unknown, unless whoever builds sets `ANTIPHON_REVISION` to `HASH` or `HASH-dirty`.

use std::path::{Path, PathBuf};
use std::process::Command;

const VARIABLE: &str = "ANTIPHON_REVISION";

fn main() {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from);
    let root = package.join("../..");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    // `debug` or `release`: for a command that builds the program once more.
    println!("cargo::rustc-env=ANTIPHON_PROFILE={}", std::env::var("PROFILE").unwrap_or_default());
    for path in watched(&root) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    if let Some(revision) = std::env::var(VARIABLE).ok().filter(|set| !set.is_empty()).or_else(|| revision(&root)) {
        println!("cargo::rustc-env={VARIABLE}={revision}");
    }
}

/// What the program is built from, as seen from the folder of the workspace: no tests, no documents.
fn sources(root: &Path) -> Vec<String> {
    let crates = std::fs::read_dir(root.join("crates")).into_iter().flatten().flatten();
    let mut names: Vec<String> = crates.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let of_crate = |name: String| ["src", "Cargo.toml", "build.rs"].map(|part| format!("crates/{name}/{part}"));
    let all = ["Cargo.toml", "Cargo.lock"].map(String::from).into_iter().chain(names.into_iter().flat_map(of_crate));
    all.filter(|name| root.join(name).exists()).collect()
}

/// The commit of the sources below `root`, with `-dirty` behind it if one of them has changed since; `None` if no repository
/// tracks them.
pub(crate) fn revision(root: &Path) -> Option<String> {
    // A repository around a copy of the sources knows nothing of them.
    git(root, &["ls-files", "--error-unmatch", "Cargo.toml"])?;
    let commit = git(root, &["rev-parse", "HEAD"])?;
    let sources = sources(root);
    let words = ["status", "--porcelain", "--untracked-files=no", "--"].into_iter();
    let changes = git(root, &words.chain(sources.iter().map(String::as_str)).collect::<Vec<_>>())?;
    Some(if changes.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// The files and folders on which [`revision`] depends, those that there are: cargo takes a missing one for a changed one.
pub(crate) fn watched(root: &Path) -> Vec<PathBuf> {
    // Every move of HEAD is appended to its log. Where none is kept, a branch is a file or a line of `packed-refs`.
    let branch = git(root, &["symbolic-ref", "-q", "HEAD"]);
    let names = ["HEAD", "logs/HEAD", "packed-refs"].into_iter().chain(branch.as_deref());
    let of_git = names.filter_map(|name| Some(root.join(git(root, &["rev-parse", "--git-path", name])?)));
    let mut paths: Vec<PathBuf> = sources(root).iter().map(|name| root.join(name)).chain(of_git).collect();
    paths.retain(|path| path.exists());
    paths
}

fn git(root: &Path, words: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("--no-optional-locks").arg("-C").arg(root).args(words).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
