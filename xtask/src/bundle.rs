//! `cargo xtask bench --bundle DIR`: the benchmarks as a folder that runs on a machine without a toolchain.

use std::path::{Path, PathBuf};
use std::process::Command;

use antiphon_core::{Error, Place};

use crate::bench::{BENCHMARKS, PEER};
use crate::cargo::{self, Features};
use crate::stop::{Outcome, Stop};

/// What the script is called.
const SCRIPT: &str = "bench.sh";

/// Builds the benchmarks and puts them into a folder, with the peer's script if its folder is given; `features` of cargo are built in.
pub(crate) fn write(folder: &Path, peers: Option<&Path>, features: &Features) -> Outcome {
    claim(folder)?;
    let words = ["--workspace", "--bin", "antiphon"]
        .into_iter()
        .chain(BENCHMARKS.into_iter().flat_map(|name| ["--bench", name]));
    let built = cargo::build_targets(&words.collect::<Vec<_>>(), features)?.executables;
    for name in BENCHMARKS.into_iter().chain(["antiphon"]) {
        let program = built.get(name).ok_or_else(|| Stop::Failed(format!("cargo built no program called {name}")))?;
        strip(program, &folder.join(name))?;
    }
    let script = peers.map(|peers| peers.join(PEER));
    if let Some(script) = &script {
        copy(script, &folder.join(PEER))?;
    }
    let this = std::env::current_exe().map_err(|e| Error::new(format!("cannot tell where this program lies: {e}")))?;
    strip(&this, &folder.join("xtask"))?;
    write_script(&folder.join(SCRIPT), &script_text(script.is_some()))?;
    println!(
        "{}: {:.1} MiB; copy it and run `sh {SCRIPT}` there",
        folder.display(),
        size(folder)? as f64 / 1024.0 / 1024.0
    );
    Ok(())
}

/// Makes the folder. One that holds something is refused, lest old and new programs mix.
fn claim(folder: &Path) -> Outcome {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "make this folder", &e))?;
    let mut entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, "read", &e))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => {
            let error = Error::new("this folder is not empty: name a new one, or empty it");
            Err(error.at(Place::text("--bundle")).in_file(folder).into())
        }
    }
}

fn copy(from: &Path, to: &Path) -> Outcome {
    std::fs::copy(from, to).map(drop).map_err(|e| Error::io(from, &format!("copy to {}", to.display()), &e).into())
}

/// Copies a program without its symbols; as it is where nothing can strip it.
fn strip(from: &Path, to: &Path) -> Outcome {
    let stripped = Command::new("strip").arg("-o").arg(to).arg(from).status();
    if stripped.is_ok_and(|status| status.success()) { Ok(()) } else { copy(from, to) }
}

/// The script. What it is given stands last, where it replaces options that stand before it.
fn script_text(with_peer: bool) -> String {
    let peer = if with_peer { " --peers . --python python3" } else { "" };
    format!(
        "#!/bin/sh\n\
         # How speed grows with threads on this machine. Options given to this script replace those below.\n\
         cd \"$(dirname \"$0\")\" || exit 2\n\
         exec ./xtask bench --prebuilt . --threads 1,2,4,8,16 --json scaling.json{peer} \"$@\"\n"
    )
}

fn write_script(file: &Path, text: &str) -> Outcome {
    std::fs::write(file, text).map_err(|e| Error::io(file, "write", &e))?;
    #[cfg(unix)]
    {
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(file, all).map_err(|e| Error::io(file, "make executable", &e))?;
    }
    Ok(())
}

/// The bytes of the files in a folder.
fn size(folder: &Path) -> Outcome<u64> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, "read", &e))?;
    let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let bytes = |file: &PathBuf| file.metadata().map(|data| data.len()).map_err(|e| Error::io(file, "read", &e).into());
    files.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Arguments;

    /// The options of the script's last line, with more behind them as a caller gives them.
    fn options(text: &str, given: &[&str]) -> Arguments {
        let line = text.lines().last().unwrap();
        let words = line.strip_prefix("exec ./xtask ").unwrap().strip_suffix(" \"$@\"").unwrap();
        crate::tests::bench(words.split(' ').chain(given.iter().copied()))
    }

    #[test]
    fn the_script_names_options_that_exist() {
        let alone = options(&script_text(false), &[]);
        assert_eq!(alone.prebuilt.as_deref(), Some(Path::new(".")));
        assert_eq!(alone.threads, [1, 2, 4, 8, 16]);
        assert_eq!((alone.json.as_deref(), alone.peers), (Some(Path::new("scaling.json")), None));
        let beside = options(&script_text(true), &[]);
        assert_eq!(beside.peers.as_deref(), Some(Path::new(".")));
    }

    #[test]
    fn what_the_script_is_given_replaces_its_own_options() {
        let given = ["--threads", "1,2", "--python", "/p/python", "--json", "other.json", "--filter", "train"];
        let arguments = options(&script_text(true), &given);
        assert_eq!(arguments.threads, [1, 2]);
        assert_eq!(arguments.python, Path::new("/p/python"));
        assert_eq!(arguments.json.as_deref(), Some(Path::new("other.json")));
        assert_eq!(arguments.filter.as_deref(), Some("train"));
    }

    #[test]
    fn a_folder_that_holds_something_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(claim(&folder.path().join("new/deep")), Ok(()));
        assert_eq!(claim(&folder.path().join("new/deep")), Ok(()));
        let Err(Stop::Mistake(error)) = claim(folder.path()) else { panic!("no mistake") };
        let text = error.to_string();
        assert!(
            text.contains("--bundle") && text.contains("is not empty") && text.contains("name a new one"),
            "{text}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_script_can_be_executed() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(SCRIPT);
        write_script(&file, &script_text(false)).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o755);
    }
}
