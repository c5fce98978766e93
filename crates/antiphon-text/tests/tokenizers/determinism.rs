//! Training the same tokenizer in two processes gives the same bytes.

use std::path::Path;
use std::process::Command;

use super::{every_kind, made_up_lines, train};

/// Where a child process is to write what it trained.
const WRITE_TO: &str = "ANTIPHON_TEXT_TEST_WRITE_TO";

fn trained() -> String {
    let lines = made_up_lines(5000);
    let jsons = every_kind(1500, &[]).iter().map(|config| train(config, &lines).unwrap().to_json()).collect::<Vec<_>>();
    jsons.join("\n")
}

#[test]
fn two_processes_train_the_same_bytes() {
    if let Some(path) = std::env::var_os(WRITE_TO) {
        std::fs::write(path, trained()).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let start = |path: &Path| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "determinism::two_processes_train_the_same_bytes"])
            .env(WRITE_TO, path)
            .output()
            .unwrap()
    };
    let read = |name: &str| {
        let path = folder.path().join(name);
        let output = start(&path);
        assert!(output.status.success(), "{output:?}");
        std::fs::read_to_string(path).unwrap()
    };
    let (first, second) = (read("first"), read("second"));
    assert_eq!(first.lines().count(), every_kind(5, &[]).len());
    for (one, other) in first.lines().zip(second.lines()) {
        assert!(one == other, "{} …", &one[..60.min(one.len())]);
    }
}
