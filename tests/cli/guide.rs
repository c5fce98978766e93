//! Pages that guide a reader: their configs are written down and their commands given to a shell, as they stand.

use std::collections::BTreeSet;

use crate::place::{Called, Place};

/// A page below `docs`.
pub(crate) fn page(name: &str) -> String {
    let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The code blocks of a language, in their order.
pub(crate) fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let opening = format!("```{language}\n");
    page.split(&opening).skip(1).map(|rest| rest.split_once("```").expect("a block ends").0).collect()
}

/// Writes each config to the file that its first line names; gives these files.
pub(crate) fn write_configs<'p>(page: &'p str, place: &Place) -> Vec<&'p str> {
    let file = |block: &'p str| {
        let first = block.lines().next().and_then(|line| line.strip_prefix("# "));
        let file = first.expect("a config begins with its file");
        place.write(file, block);
        file
    };
    blocks(page, "toml").into_iter().map(file).collect()
}

/// What `cargo xtask` does with a command: the program gets the words behind it.
pub(crate) fn write_cargo(place: &Place) {
    use std::os::unix::fs::PermissionsExt;
    let script = format!("#!/bin/sh\nshift\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_antiphon"));
    place.write("bin/cargo", script);
    std::fs::set_permissions(place.path("bin/cargo"), std::fs::Permissions::from_mode(0o755)).expect("a script");
}

/// Gives a block of commands to a shell, with a layer of the environment, which must succeed.
#[track_caller]
pub(crate) fn follow(place: &Place, block: &str, environment: &[(&str, &str)]) -> Called {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = place.shell();
    command.args(["-e", "-c", block]).env("PATH", format!("{}:{path}", place.path("bin").display()));
    let called = Called(command.envs(environment.iter().copied()).output().expect("a shell"));
    assert_eq!(called.0.status.code(), Some(0), "{block}\n{}\n{}", called.out(), called.err());
    called
}

/// The commands of a block, each by its first word behind `cargo xtask`.
pub(crate) fn commands(block: &str) -> Vec<&str> {
    let commands = block.lines().filter_map(|line| line.split("cargo xtask ").nth(1));
    commands.filter_map(|command| command.split(' ').next()).collect()
}

/// Holds every config of a page to be right, and every setting that it names between backticks to be one. The files of data are the
/// reader's. There must be `least` of them. Gives how many settings are named.
#[track_caller]
pub(crate) fn configs_are_right(page: &str, least: usize) -> usize {
    let place = Place::new();
    let files = write_configs(page, &place);
    assert!(files.len() >= least, "{files:?}");
    for file in files {
        let called = place.call(&format!("check {file}"));
        let others: Vec<String> =
            called.err().lines().filter(|line| !line.contains("no such file")).map(str::to_owned).collect();
        assert_eq!(others, [""; 0], "{file}");
        called.succeeds();
    }
    let keys = antiphon_config::keys::<antiphon::ExperimentConfig>();
    let sections = ["data.", "model.", "train.", "search.", "evaluate."];
    let named = page.split('`').skip(1).step_by(2).filter(|text| sections.iter().any(|s| text.starts_with(s)));
    let named = named.filter(|text| *text != "model.safetensors");
    let named: BTreeSet<&str> = named.filter_map(|text| text.split([' ', '=']).next()).collect();
    let unknown: Vec<_> = named.iter().filter(|key| !keys.contains(&(**key).to_owned())).collect();
    assert!(unknown.is_empty(), "no such setting: {unknown:?}");
    named.len()
}
