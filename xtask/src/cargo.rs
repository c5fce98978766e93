//! Calls of cargo.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use antiphon_core::Error;
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;

use crate::stop::{Outcome, Stop};

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    // Cargo says where the package lies now; a copy of the sources may have moved since it was compiled.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_path_buf)
}

/// Cargo, about to do something in the workspace, from wherever we are.
fn cargo(task: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.arg(task).arg("--manifest-path").arg(root().join("Cargo.toml"));
    command
}

/// The cargo features of the program that are wanted beyond the default ones: `vulkan`, `wgpu`, `dashboard`.
#[derive(Debug, Clone, PartialEq, Default, clap::Args)]
pub(crate) struct Features {
    /// Build the program with these cargo features: vulkan, wgpu, dashboard
    #[arg(long = "features", global = true, value_name = "FEATURES", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    names: Vec<String>,
}

impl Features {
    /// Wants more, separated by commas.
    pub(crate) fn add(&mut self, names: &str) {
        self.names.extend(names.split(',').map(str::to_owned));
    }

    /// The words that tell cargo.
    pub(crate) fn words(&self) -> Vec<String> {
        if self.names.is_empty() { Vec::new() } else { vec!["--features".into(), self.names.join(",")] }
    }
}

/// Calls `cargo TASK WORDS…` on the terminal. Its failure is ours.
pub(crate) fn call(task: &str, words: &[String], environment: &[(&str, &str)]) -> Outcome {
    let status = cargo(task).args(words).envs(environment.iter().copied()).status();
    Stop::unless_success(status.map_err(|e| Error::new(format!("cannot start cargo: {e}")))?)
}

/// What a build has to say for itself.
#[derive(Debug, PartialEq, Default)]
pub(crate) struct Built {
    /// What can be run, by its name.
    pub(crate) executables: BTreeMap<String, PathBuf>,
    /// What was compiled because it was missing or out of date.
    pub(crate) compiled: Vec<String>,
}

/// Builds `antiphon`, with cargo's progress on the terminal.
pub(crate) fn build(features: &Features) -> Outcome<Built> {
    build_targets(&["--package", "antiphon"], features)
}

/// Builds what the words choose, with cargo's progress on the terminal.
pub(crate) fn build_targets(words: &[&str], features: &Features) -> Outcome<Built> {
    let mut command = cargo("build");
    command.args(words).arg("--message-format=json-render-diagnostics").args(features.words());
    command.stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| Error::new(format!("cannot start cargo: {e}")))?;
    let mut built = Built::default();
    if let Some(messages) = child.stdout.take() {
        for line in BufReader::new(messages).lines() {
            built.note(&line.map_err(|e| Error::new(format!("cannot read what cargo says: {e}")))?);
        }
    }
    Stop::unless_success(child.wait().map_err(|e| Error::new(format!("cannot wait for cargo: {e}")))?)?;
    Ok(built)
}

/// The part of cargo's messages that matters here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    fresh: bool,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

impl Built {
    /// Notes one line of cargo's messages. Lines that are none come from build scripts and mean nothing here.
    fn note(&mut self, line: &str) {
        let Ok(Message { reason, fresh, target: Some(target), executable }) = serde_json::from_str(line) else {
            return;
        };
        if reason != "compiler-artifact" {
            return;
        }
        if let Some(executable) = executable {
            self.executables.insert(target.name.clone(), executable);
        }
        if !fresh {
            self.compiled.push(target.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_tell_the_program_and_what_was_compiled() {
        let mut built = Built::default();
        for line in [
            r#"{"reason":"compiler-artifact","package_id":"registry+x#burn-core@0.22.1","target":{"kind":["lib"],"name":"burn_core"},"fresh":false,"executable":null}"#,
            r#"{"reason":"compiler-artifact","package_id":"registry+x#serde@1.0.0","target":{"kind":["lib"],"name":"serde"},"fresh":true,"executable":null}"#,
            r#"{"reason":"build-script-executed","package_id":"registry+x#burn-core@0.22.1","linked_libs":[]}"#,
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"antiphon"},"fresh":true,"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"antiphon"},"fresh":true,"executable":"/t/antiphon"}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "not a message",
        ] {
            built.note(line);
        }
        let executables = BTreeMap::from([("antiphon".to_owned(), PathBuf::from("/t/antiphon"))]);
        assert_eq!(built, Built { executables, compiled: vec!["burn_core".into()] });
    }

    #[test]
    fn the_root_is_the_folder_of_the_workspace() {
        assert!(std::fs::read_to_string(root().join("Cargo.toml")).unwrap().contains("[workspace]"));
    }
}
