//! Follows `docs/adding-a-component.md`: the places that its edits name are there, and the edits work.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PAGE: &str = "docs/adding-a-component.md";

/// One `diff` block of the page.
#[derive(Debug)]
struct Edit {
    /// Below the root.
    file: String,
    /// Where its block begins in the page, counted from 1.
    line: usize,
    /// What must stand in the file, once.
    before: String,
    /// What stands there then.
    after: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The edits of a page, in its order.
fn edits(page: &str) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line != "```diff" {
            continue;
        }
        let (_, head) = lines.next().expect("a block goes on");
        let file = head.strip_prefix("+++ ").unwrap_or_else(|| panic!("line {}: no file: {head}", number + 2));
        let mut edit = Edit { file: file.into(), line: number + 1, before: String::new(), after: String::new() };
        for (number, line) in lines.by_ref().take_while(|(_, line)| *line != "```") {
            let (kept, removed, added) = (line.strip_prefix(' '), line.strip_prefix('-'), line.strip_prefix('+'));
            let text = kept.or(removed).or(added);
            // Editors cut the blank of a line that is kept and empty.
            let text = text.or(line.is_empty().then_some("")).unwrap_or_else(|| panic!("line {}: {line}", number + 1));
            if added.is_none() {
                edit.before += &format!("{text}\n");
            }
            if removed.is_none() {
                edit.after += &format!("{text}\n");
            }
        }
        edits.push(edit);
    }
    edits
}

/// The edited files, by their paths below the root.
fn edited() -> BTreeMap<String, String> {
    let edits = edits(&read(root().join(PAGE)));
    assert!(edits.len() >= 9, "the page has {} edits", edits.len());
    let mut files = BTreeMap::new();
    for Edit { file, line, before, after } in edits {
        let text: &mut String = files.entry(file.clone()).or_insert_with(|| read(root().join(&file)));
        // Whole lines: behind the beginning of the file or the end of a line.
        let whole = format!("\n{text}");
        let (before, after) = (format!("\n{before}"), format!("\n{after}"));
        assert_ne!(before, after, "{PAGE} line {line} changes nothing");
        assert_ne!(before, "\n", "{PAGE} line {line} does not say where");
        let found = whole.matches(&before).count();
        assert_eq!(found, 1, "{PAGE} line {line}: {file} has this place {found} times:{before}");
        *text = whole.replacen(&before, &after, 1).split_off(1);
    }
    files
}

#[test]
fn every_place_that_an_edit_names_is_there_once() {
    let files = edited();
    assert!(files.values().all(|text| text.contains("scaled_dot")), "{:?}", files.keys());
}

#[test]
fn every_path_that_the_documents_name_is_there() {
    let folder = fs::read_dir(root().join("docs")).expect("a folder of documents");
    let mut pages: Vec<PathBuf> = folder.map(|entry| entry.expect("an entry").path()).collect();
    pages.retain(|page| page.extension().is_some_and(|e| e == "md"));
    pages.push(root().join("README.md"));
    let mut named = 0;
    for page in pages {
        // What stands between backticks, and the targets of links.
        let text = read(&page);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for path in text.split('`').skip(1).step_by(2).chain(links.filter(|link| !link.contains("://"))) {
            let is_path = ["crates/", "configs/", "docs/", "recipes/", "tests/", "xtask/"];
            // Only a run of experiments writes the page of results.
            if !is_path.iter().any(|top| path.starts_with(top)) || path == "docs/results.md" {
                continue;
            }
            named += 1;
            assert!(root().join(path).exists(), "{} names {path}, which is not there", page.display());
        }
    }
    assert!(named > 40, "only {named} paths were found");
}

#[test]
fn every_command_that_the_documents_name_is_there() {
    let source = read(root().join("xtask/src/main.rs"));
    let own = ["test", "bench", "ci", "results"];
    let folder = fs::read_dir(root().join("docs")).expect("a folder of documents");
    let pages =
        folder.map(|entry| entry.expect("an entry").path()).filter(|page| page.extension().is_some_and(|e| e == "md"));
    let mut named = 0;
    for page in pages.chain([root().join("README.md")]) {
        for rest in read(&page).split("cargo xtask ").skip(1) {
            let command: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
            let known =
                command.is_empty() || own.contains(&command.as_str()) || source.contains(&format!("(\"{command}\","));
            assert!(known, "{} names `cargo xtask {command}`, which is not there", page.display());
            named += usize::from(!command.is_empty());
        }
    }
    assert!(named > 40, "only {named} commands were found");
}

/// In a copy of the sources, so that the workspace stays as it is; with its target folder, so that Burn is not built again.
#[test]
fn the_edits_compile_and_the_laws_hold() {
    if std::env::var_os("ANTIPHON_SLOW").is_none() {
        return;
    }
    let copy = tempfile::tempdir().expect("a temporary folder");
    for name in ["Cargo.toml", "Cargo.lock", ".cargo", "configs", "crates", "recipes", "tests", "xtask"] {
        copy_to(&root().join(name), &copy.path().join(name));
    }
    for (file, text) in edited() {
        fs::write(copy.path().join(file), text).expect("the copy can be written");
    }
    // Cargo tells our crates from those of the workspace, which lie in the same target folder, by their version.
    let manifest = copy.path().join("Cargo.toml");
    let version = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"");
    let text = read(&manifest);
    assert_eq!(text.matches(version).count(), 1, "the version of the workspace");
    fs::write(&manifest, text.replace(version, "version = \"0.0.0-copy\"")).expect("the copy can be written");

    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    // All members are selected, so that shared dependencies get the features that they have in an ordinary build.
    cargo.args(["test", "--workspace", "--offline", "--test", "laws"]).current_dir(copy.path());
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_this_package(&name.to_string_lossy())) {
        cargo.env_remove(name);
    }
    let output = cargo.env("CARGO_TARGET_DIR", target).env_remove("ANTIPHON_SLOW").output().expect("cargo runs");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("test scaled_dot_divides_the_scores_of_dot_by_the_root_of_the_width ... ok"), "{said}");
    let again = said.lines().find(|line| line.trim_start().starts_with("Compiling burn"));
    assert_eq!(again, None, "Burn was built again");
}

/// What cargo tells a test about its own package would mislead another cargo.
fn is_of_this_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_", "CARGO_TARGET_TMPDIR"]
        .iter()
        .any(|beginning| variable.starts_with(beginning))
}

fn copy_to(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("the copy can be written");
        for entry in fs::read_dir(from).expect("a folder of sources") {
            let entry = entry.expect("an entry");
            if entry.file_name() != "target" {
                copy_to(&entry.path(), &to.join(entry.file_name()));
            }
        }
    } else {
        fs::copy(from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    }
}
