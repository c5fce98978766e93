//! The commit in a manifest is that of the program's sources, however the program is called.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::place::Place;

#[allow(dead_code, reason = "cargo calls its main")]
#[path = "../../crates/antiphon/build.rs"]
mod build;

/// Calls git in a folder; false where there is no git.
fn git(folder: &Path, words: &[&str]) -> bool {
    let who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"];
    let output = Command::new("git").arg("-C").arg(folder).args(who).args(words).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn the_commit_is_that_of_the_sources() {
    let place = Place::new();
    let root = place.path("");
    let own = |name: &str, text: &str| place.write(name, text);
    own("Cargo.toml", "");
    own("crates/one/src/lib.rs", "// one");
    own("docs/page.md", "one");
    assert_eq!(build::revision(&root), None, "there is no repository");
    if !git(&root, &["init"]) {
        return; // No git here: nothing to read.
    }
    assert_eq!(build::revision(&root), None, "the repository does not know these sources");
    assert!(git(&root, &["add", "Cargo.toml", "crates", "docs"]) && git(&root, &["commit", "-m", "one"]));
    let clean = build::revision(&root).unwrap();
    assert!(clean.len() == 40 && clean.bytes().all(|b| b.is_ascii_hexdigit()), "{clean}");
    own("docs/page.md", "two");
    assert_eq!(build::revision(&root).unwrap(), clean, "the program is not built from documents");
    own("crates/one/src/lib.rs", "// two");
    assert_eq!(build::revision(&root).unwrap(), format!("{clean}-dirty"));
    // What it depends on is watched, and nothing that is not there.
    let watched = build::watched(&root);
    for name in ["Cargo.toml", "crates/one/src", ".git/HEAD", ".git/logs/HEAD"] {
        assert!(watched.contains(&root.join(name)), "{name}: {watched:?}");
    }
    assert!(watched.iter().all(|path| path.exists()), "{watched:?}");
}

#[test]
fn a_manifest_is_the_same_whoever_starts_the_program() {
    let manifest = |called_as: Option<&str>| {
        let place = Place::new();
        let mut command = place.command("train tiny.toml -q --set train.epochs=1");
        if let Some(words) = called_as {
            command.env("ANTIPHON_CALLED_AS", words);
        }
        assert!(command.output().unwrap().status.success());
        let bytes = place.read(&format!("{}/manifest.json", place.only_run()));
        let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
        for key in ["command", "started", "ended", "cpu_seconds", "wall_seconds"] {
            manifest[key].take();
        }
        manifest
    };
    let plain = manifest(None);
    assert_eq!(plain, manifest(Some("cargo xtask")));
    // In a checkout it is known.
    let revision = build::revision(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    assert_eq!(plain["revision"].is_object(), revision.is_some(), "{plain}");
}
