//! The `antiphon` program, built and called.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

use antiphon_core::Error;
use antiphon_lab::CALLED_AS;

use crate::cargo::{self, Features};
use crate::stop::{Outcome, Stop};

/// The program, up to date.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    /// What a user types to call it.
    typed: String,
}

impl Program {
    /// Builds it, if anything changed.
    pub(crate) fn build(features: &Features) -> Outcome<Self> {
        let path = cargo::build(features)?.executables.remove("antiphon");
        let path = path.ok_or_else(|| Stop::Failed("cargo built no program called antiphon".into()))?;
        Ok(Self { path, typed: typed(features) })
    }

    /// Calls it and waits. Its failure is ours.
    pub(crate) fn call(&self, words: &[OsString]) -> Outcome {
        let status = self.command(words).status().map_err(|e| self.does_not_start(&e))?;
        Stop::unless_success(status)
    }

    /// Becomes it, so that the terminal, signals and the exit code are its own; where that is impossible, waits for it.
    pub(crate) fn become_it(&self, words: impl IntoIterator<Item = OsString>) -> Outcome {
        #[cfg(unix)]
        {
            let error = std::os::unix::process::CommandExt::exec(&mut self.command(words));
            Err(self.does_not_start(&error).into())
        }
        #[cfg(not(unix))]
        self.call(&words.into_iter().collect::<Vec<_>>())
    }

    fn command(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(&self.path);
        command.args(words);
        command.env(CALLED_AS, &self.typed);
        command
    }

    fn does_not_start(&self, error: &std::io::Error) -> Error {
        Error::io(&self.path, "start", error)
    }
}

/// What a user types to call the program in this build.
fn typed(features: &Features) -> String {
    ["cargo xtask".to_owned()].into_iter().chain(features.words()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_knows_what_the_user_typed() {
        let mut features = Features::default();
        assert_eq!(typed(&features), "cargo xtask");
        features.add("wgpu,dashboard");
        assert_eq!(typed(&features), "cargo xtask --features wgpu,dashboard");
    }

    #[cfg(unix)]
    #[test]
    fn the_exit_code_of_the_program_is_passed_on() {
        let shell = Program { path: "/bin/sh".into(), typed: String::new() };
        let call = |script: &str| shell.call(&["-c".into(), script.into()]);
        assert_eq!(call("exit 0"), Ok(()));
        assert_eq!(call("exit 3"), Err(Stop::Quietly(3)));
        assert_eq!(call("kill -TERM $$"), Err(Stop::Quietly(143)));
        let missing = Program { path: "/nowhere/antiphon".into(), typed: String::new() }.call(&[]);
        assert!(
            matches!(missing, Err(Stop::Mistake(e)) if e.to_string().starts_with("/nowhere/antiphon: cannot start"))
        );
    }
}
