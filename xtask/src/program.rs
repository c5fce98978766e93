//! The `antiphon` program, built and called.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use antiphon_core::Error;
use antiphon_lab::REVISION_VARIABLE;

use crate::cargo::{self, Features};
use crate::stop::{Outcome, Stop};

/// The program, up to date.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
}

impl Program {
    /// Builds it, if anything changed.
    pub(crate) fn build(features: &Features) -> Outcome<Self> {
        let path = cargo::build(features)?.program;
        Ok(Self { path: path.ok_or_else(|| Stop::Failed("cargo built no program called antiphon".into()))? })
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
        if let Some(revision) = revision(&cargo::root()) {
            command.env(REVISION_VARIABLE, revision);
        }
        command
    }

    fn does_not_start(&self, error: &std::io::Error) -> Error {
        Error::io(&self.path, "start", error)
    }
}

/// The commit of the sources, with `-dirty` behind it if files have changed since; `None` outside of a repository.
fn revision(root: &Path) -> Option<String> {
    let git = |words: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { commit } else { format!("{commit}-dirty") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use antiphon_lab::Revision;

    #[test]
    fn a_revision_is_read_where_there_is_a_repository() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(revision(folder.path()), None);

        let git = |words: &[&str]| {
            let who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"];
            let output = Command::new("git").arg("-C").arg(folder.path()).args(who).args(words).output();
            output.is_ok_and(|o| o.status.success())
        };
        if !git(&["init"]) {
            return; // No git here: nothing to read.
        }
        std::fs::write(folder.path().join("file"), "one").unwrap();
        assert!(git(&["add", "file"]) && git(&["commit", "-m", "one"]));
        let clean = revision(folder.path()).unwrap();
        assert!(Revision::parse(&clean).is_some_and(|r| !r.dirty), "{clean}");
        std::fs::write(folder.path().join("file"), "two").unwrap();
        assert_eq!(revision(folder.path()).unwrap(), format!("{clean}-dirty"));
    }

    #[cfg(unix)]
    #[test]
    fn the_exit_code_of_the_program_is_passed_on() {
        let shell = Program { path: "/bin/sh".into() };
        let call = |script: &str| shell.call(&["-c".into(), script.into()]);
        assert_eq!(call("exit 0"), Ok(()));
        assert_eq!(call("exit 3"), Err(Stop::Quietly(3)));
        assert_eq!(call("kill -TERM $$"), Err(Stop::Quietly(143)));
        let missing = Program { path: "/nowhere/antiphon".into() }.call(&[]);
        assert!(
            matches!(missing, Err(Stop::Mistake(e)) if e.to_string().starts_with("/nowhere/antiphon: cannot start"))
        );
    }
}
