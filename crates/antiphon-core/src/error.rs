//! What went wrong, where, and what to do about it.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::printable;

/// The result of everything that can fail because of what a user gave.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One thing that is wrong, at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where inside the file: a line (`line 12`), a dotted key (`model.encoder.hidden`); empty if the file itself.
    pub place: String,
    /// What is wrong and how to mend it, in the user's words.
    pub message: String,
}

impl Problem {
    /// The same problem seen from outside: its place lies below `section`.
    #[must_use]
    pub fn below(self, section: &str) -> Self {
        Self { place: format!("{section}.{}", self.place), ..self }
    }
}

/// A user's mistake or a failing machine: never a broken invariant of ours (those panic).
///
/// Its text names the file, the place and the remedy:
///
/// ```
/// use antiphon_core::Error;
/// let error = Error::new("`fast` is not a device; use `flex`").in_file("run.toml").at("device");
/// assert_eq!(error.to_string(), "run.toml: device: `fast` is not a device; use `flex`");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The file at fault, if there is one.
    pub file: Option<PathBuf>,
    /// At least one problem.
    pub problems: Vec<Problem>,
}

impl Error {
    /// An error with one problem and no place yet.
    pub fn new(message: impl Into<String>) -> Self {
        Self { file: None, problems: vec![Problem { place: String::new(), message: message.into() }] }
    }

    /// All problems of one file at once. `problems` must not be empty.
    pub fn many(file: impl AsRef<Path>, problems: Vec<Problem>) -> Self {
        assert!(!problems.is_empty(), "an error needs a problem");
        Self { file: Some(file.as_ref().to_path_buf()), problems }
    }

    /// The failure of reading or writing `path`; where there is no room for it, with the remedy.
    pub fn io(path: impl AsRef<Path>, action: &str, source: &std::io::Error) -> Self {
        let room = match source.kind() {
            ErrorKind::StorageFull => "free some space on this disk",
            ErrorKind::QuotaExceeded => "free some space, or have your quota raised",
            ErrorKind::FileTooLarge => "raise the limit of file sizes (`ulimit -f`)",
            _ => return Self::new(format!("cannot {action}: {source}")).in_file(path),
        };
        let message = format!("cannot {action}: {source}: {room}, then give the same command again");
        Self::new(message).in_file(path)
    }

    /// Names the file, unless one is named already.
    #[must_use]
    pub fn in_file(mut self, path: impl AsRef<Path>) -> Self {
        self.file.get_or_insert_with(|| path.as_ref().to_path_buf());
        self
    }

    /// Names the place of the problems that have none.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        for problem in self.problems.iter_mut().filter(|p| p.place.is_empty()) {
            problem.place = place.to_string();
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it quotes may be anybody's.
        if !self.place.is_empty() {
            write!(f, "{}: ", printable(&self.place))?;
        }
        f.write_str(&printable(&self.message))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", printable(&file.display().to_string()))?;
        }
        match self.problems.as_slice() {
            [one] => write!(f, "{one}"),
            many => {
                write!(f, "{} problems", many.len())?;
                many.iter().try_for_each(|p| write!(f, "\n  {p}"))
            }
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_problem_is_one_line_and_many_are_a_list() {
        let one = Error::new("is empty").in_file("a.tsv").at("line 3");
        assert_eq!(one.to_string(), "a.tsv: line 3: is empty");
        let problem = |place: &str| Problem { place: place.into(), message: "no such key".into() };
        let many = Error::many("a.toml", vec![problem("x"), problem("y.z")]);
        assert_eq!(many.to_string(), "a.toml: 2 problems\n  x: no such key\n  y.z: no such key");
    }

    #[test]
    fn a_lack_of_room_is_told_with_its_remedy() {
        let error = |kind: ErrorKind| Error::io("a", "write", &kind.into()).to_string();
        for (kind, remedy) in [
            (ErrorKind::StorageFull, "free some space on this disk"),
            (ErrorKind::QuotaExceeded, "have your quota raised"),
            (ErrorKind::FileTooLarge, "`ulimit -f`"),
        ] {
            let error = error(kind);
            assert!(error.contains(remedy) && error.ends_with("then give the same command again"), "{error}");
        }
        assert_eq!(error(ErrorKind::NotFound), "a: cannot write: entity not found");
    }

    #[test]
    fn the_first_file_named_stays() {
        assert_eq!(Error::new("bad").in_file("inner").in_file("outer").to_string(), "inner: bad");
    }
}
