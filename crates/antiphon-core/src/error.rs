//! What went wrong, where, and what to do about it.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::printable;

/// The result of everything that can fail because of what a user gave.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where inside a file something is wrong, in words that a user can follow there.
///
/// Its text is for people alone. What acts on a place (moves it below a section, names a source by its line) asks which
/// variant it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
    /// The file itself: no text.
    #[default]
    Whole,
    /// A dotted key: `model.encoder.hidden`, or `seed (line 3)` where it is known where the setting was made.
    Key {
        /// The key.
        key: String,
        /// Where it was set, as its file sees it: `line 3`, `base.toml line 2`, `--set`.
        origin: Option<String>,
    },
    /// A line: `line 3`, or `line 3, target`.
    Line {
        /// Its number, counted from 1.
        number: usize,
        /// What of it is meant, if not all.
        part: Option<String>,
    },
    /// A step of a search, in a row of its batch: `row 3, step 5`.
    Row {
        /// The row, counted from 0.
        row: usize,
        /// The step, counted from 0.
        step: usize,
    },
    /// A step of a search for one of many sources: `source 3, step 5`.
    Source {
        /// The source, counted from 0.
        source: usize,
        /// The step, counted from 0.
        step: usize,
    },
    /// Anything else: an option of the command line, an address, a file in a folder.
    Text(String),
}

impl Place {
    /// A dotted key.
    pub fn key(key: impl Into<String>) -> Self {
        Self::Key { key: key.into(), origin: None }
    }

    /// A line, counted from 1.
    pub fn line(number: usize) -> Self {
        Self::Line { number, part: None }
    }

    /// A place in words of one's own.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The key without its origin; `None` if the place is none.
    pub fn as_key(&self) -> Option<&str> {
        if let Self::Key { key, .. } = self { Some(key) } else { None }
    }

    /// Whether it is the file itself.
    pub fn is_whole(&self) -> bool {
        *self == Self::Whole
    }

    /// The place as seen from outside: a key lies below `section`, and the whole is the section itself. A line, a step
    /// or a text lies below no key, and stays.
    #[must_use]
    pub fn below(self, section: &str) -> Self {
        match self {
            Self::Whole => Self::key(section),
            Self::Key { key, origin } => Self::Key { key: format!("{section}.{key}"), origin },
            other => other,
        }
    }
}

/// A key; the empty one is the file itself.
impl From<&str> for Place {
    fn from(key: &str) -> Self {
        Self::from(key.to_owned())
    }
}

/// A key; the empty one is the file itself.
impl From<String> for Place {
    fn from(key: String) -> Self {
        if key.is_empty() { Self::Whole } else { Self::key(key) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Key { key, origin: None } => f.write_str(key),
            Self::Key { key, origin: Some(origin) } => write!(f, "{key} ({origin})"),
            Self::Line { number, part: None } => write!(f, "line {number}"),
            Self::Line { number, part: Some(part) } => write!(f, "line {number}, {part}"),
            Self::Row { row, step } => write!(f, "row {row}, step {step}"),
            Self::Source { source, step } => write!(f, "source {source}, step {step}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// One thing that is wrong, at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where inside the file.
    pub place: Place,
    /// What is wrong and how to mend it, in the user's words.
    pub message: String,
}

impl Problem {
    /// The same problem seen from outside: its place lies [`below`](Place::below) `section`.
    #[must_use]
    pub fn below(self, section: &str) -> Self {
        Self { place: self.place.below(section), ..self }
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
        Self { file: None, problems: vec![Problem { place: Place::Whole, message: message.into() }] }
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
    pub fn at(self, place: impl Into<Place>) -> Self {
        let named = place.into();
        self.map_places(|place| if place.is_whole() { named.clone() } else { place })
    }

    /// Says whose problems they are.
    #[must_use]
    pub fn of(mut self, name: &str) -> Self {
        for problem in &mut self.problems {
            problem.message = format!("`{name}`: {}", problem.message);
        }
        self
    }

    /// Puts each problem where `change` says that its place is.
    #[must_use]
    pub fn map_places(mut self, change: impl Fn(Place) -> Place) -> Self {
        for problem in &mut self.problems {
            problem.place = change(std::mem::take(&mut problem.place));
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it quotes may be anybody's.
        if !self.place.is_whole() {
            write!(f, "{}: ", printable(&self.place.to_string()))?;
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
        let one = Error::new("is empty").in_file("a.tsv").at(Place::line(3));
        assert_eq!(one.to_string(), "a.tsv: line 3: is empty");
        let problem = |place: &str| Problem { place: place.into(), message: "no such key".into() };
        let many = Error::many("a.toml", vec![problem("x"), problem("y.z")]);
        assert_eq!(many.to_string(), "a.toml: 2 problems\n  x: no such key\n  y.z: no such key");
    }

    #[test]
    fn every_place_has_its_words() {
        let origin = |text: &str| Some(text.to_owned());
        for (place, text) in [
            (Place::Whole, "is bad"),
            (Place::key("seed"), "seed: is bad"),
            (Place::Key { key: "seed".into(), origin: origin("line 3") }, "seed (line 3): is bad"),
            (Place::line(3), "line 3: is bad"),
            (Place::Line { number: 3, part: Some("target".into()) }, "line 3, target: is bad"),
            (Place::Row { row: 3, step: 5 }, "row 3, step 5: is bad"),
            (Place::Source { source: 3, step: 5 }, "source 3, step 5: is bad"),
            (Place::text("--set a=1"), "--set a=1: is bad"),
        ] {
            let mut error = Error::new("is bad").at(place.clone());
            assert_eq!(error.to_string(), text);
            assert_eq!(error.problems[0].place, place);
            error = error.at("another");
            assert_eq!(error.to_string(), if place.is_whole() { "another: is bad" } else { text });
        }
        assert_eq!((Place::from(""), Place::from("a.b")), (Place::Whole, Place::key("a.b")));
    }

    /// What reads like a key or a line and is none is left alone.
    #[test]
    fn only_keys_lie_below_a_section() {
        let below = |place: Place| place.below("train").below("all");
        assert_eq!(below(Place::Whole), Place::key("all.train"));
        assert_eq!(below("epochs".into()), Place::key("all.train.epochs"));
        let with = |key: &str| Place::Key { key: key.into(), origin: Some("--set".into()) };
        assert_eq!(below(with("epochs")), with("all.train.epochs"));
        for place in [
            Place::line(3),
            Place::Row { row: 3, step: 5 },
            Place::Source { source: 3, step: 5 },
            Place::text("epochs"),
        ] {
            assert_eq!(below(place.clone()), place);
            assert_eq!(place.as_key(), None);
        }
        assert_eq!(with("epochs").as_key(), Some("epochs"));
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
