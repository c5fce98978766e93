//! Where a setting was made.

use std::fmt;
use std::path::{Path, PathBuf};

use config::{Value, ValueKind};

/// What the tag of a value begins with that was inherited beside another `kind`.
const CARRIED: &str = "carried:";
/// What the tag of a value begins with that was set before a table around it had a `kind`; the table's depth follows.
const BEFORE: &str = "before:";

/// Where a setting was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a file.
    File {
        /// The file, as the user or an `extends` named it.
        path: PathBuf,
        /// Its line, counted from 1.
        line: usize,
    },
    /// In the environment.
    Environment {
        /// The variable.
        name: String,
    },
    /// In a `--set` of the command line.
    Set,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{} line {line}", path.display()),
            Origin::Environment { name } => write!(f, "environment variable {name}"),
            Origin::Set => f.write_str("--set"),
        }
    }
}

impl Origin {
    /// The origin as seen from `file`, whose own lines need no name.
    pub(crate) fn seen_from(&self, file: &Path) -> String {
        match self {
            Origin::File { path, line } if path == file => format!("line {line}"),
            other => other.to_string(),
        }
    }

    /// As `config::Value` carries it: one string.
    pub(crate) fn to_tag(&self) -> String {
        match self {
            Origin::File { path, line } => format!("file:{line}:{}", path.display()),
            Origin::Environment { name } => format!("environment:{name}"),
            Origin::Set => "set".to_owned(),
        }
    }

    /// The tag of a value that was assigned as this text, without quotes.
    pub(crate) fn to_tag_of(&self, typed: &str) -> String {
        format!("{}={typed}", self.to_tag())
    }

    /// The inverse of [`to_tag`](Self::to_tag).
    pub(crate) fn from_tag(tag: &str) -> Option<Self> {
        let (_, tag) = split(tag);
        if tag == "set" || tag.starts_with("set=") {
            return Some(Origin::Set);
        }
        if let Some(name) = tag.strip_prefix("environment:") {
            let (name, _) = name.split_once('=').unwrap_or((name, ""));
            return Some(Origin::Environment { name: name.to_owned() });
        }
        let (line, path) = tag.strip_prefix("file:")?.split_once(':')?;
        Some(Origin::File { path: path.into(), line: line.parse().ok()? })
    }
}

/// A tag's marks, and the tag without them.
fn split(tag: &str) -> (&str, &str) {
    let mut rest = tag;
    loop {
        let depth = |rest: &'_ str| rest.find(':').map_or(rest.len(), |at| at + 1);
        rest = match (rest.strip_prefix(CARRIED), rest.strip_prefix(BEFORE)) {
            (Some(rest), _) => rest,
            (None, Some(rest)) => &rest[depth(rest)..],
            (None, None) => return tag.split_at(tag.len() - rest.len()),
        };
    }
}

/// Changes the marks of a value and of all inside.
fn mark(value: &mut Value, change: &impl Fn(&str) -> String) {
    match &mut value.kind {
        ValueKind::Table(table) => table.values_mut().for_each(|item| mark(item, change)),
        ValueKind::Array(items) => items.iter_mut().for_each(|item| mark(item, change)),
        _ => {}
    }
    if let Some((marks, tag)) = value.origin().map(split) {
        let changed = change(marks);
        if changed != marks {
            *value = Value::new(Some(&format!("{changed}{tag}")), std::mem::take(&mut value.kind));
        }
    }
}

fn with(marks: &str, one: &str) -> String {
    if marks.contains(one) { marks.to_owned() } else { format!("{one}{marks}") }
}

/// Marks a value, and all inside, as carried over: set beside another `kind` than now stands there.
pub(crate) fn carry(value: &mut Value) {
    mark(value, &|marks| with(marks, CARRIED));
}

/// Marks a value, and all inside, as set before the table at this depth had a `kind`: what it was, only a type knows.
pub(crate) fn set_before(value: &mut Value, depth: usize) {
    mark(value, &|marks| with(marks, &format!("{BEFORE}{depth}:")));
}

/// Now it is known whether the `kind` was another: [`carry`] for what [`set_before`] has marked at this depth.
pub(crate) fn settle_before(value: &mut Value, depth: usize, another: bool) {
    let before = format!("{BEFORE}{depth}:");
    mark(value, &|marks| match marks.contains(&before) {
        true if another => with(&marks.replace(&before, ""), CARRIED),
        true => marks.replace(&before, ""),
        false => marks.to_owned(),
    });
}

/// Whether a value was carried over and not set again since.
pub(crate) fn is_carried(value: &Value) -> bool {
    value.origin().is_some_and(|tag| split(tag).0.contains(CARRIED))
}

/// Whether a value was set beside another `kind` than now stands there, or beside none.
pub(crate) fn is_marked(value: &Value) -> bool {
    value.origin().is_some_and(|tag| !split(tag).0.is_empty())
}

/// The text as which a value was assigned, if it was not quoted.
pub(crate) fn typed(value: &Value) -> Option<&str> {
    let (_, tag) = split(value.origin()?);
    let assigned = tag.starts_with("set=") || tag.starts_with("environment:");
    tag.split_once('=').filter(|_| assigned).map(|(_, typed)| typed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_gives_the_origin_back() {
        for origin in [
            Origin::File { path: "a:b/c 7.toml".into(), line: 12 },
            Origin::Environment { name: "ANTIPHON__SEED".into() },
            Origin::Set,
        ] {
            let mut value = Value::new(Some(&origin.to_tag()), 1);
            assert!(!is_carried(&value));
            for _ in 0..2 {
                assert_eq!(value.origin().and_then(Origin::from_tag).as_ref(), Some(&origin));
                carry(&mut value);
                assert!(is_carried(&value));
            }
        }
        assert_eq!(Origin::from_tag("elsewhere"), None);
    }

    #[test]
    fn what_was_typed_is_remembered() {
        let environment = Origin::Environment { name: "ANTIPHON__NAME".into() };
        for (origin, text) in [(&Origin::Set, "1_1"), (&environment, "carried:a=b"), (&Origin::Set, "")] {
            let mut value = Value::new(Some(&origin.to_tag_of(text)), 1);
            for change in [carry as fn(&mut Value), |value| set_before(value, 3)] {
                assert_eq!(typed(&value), Some(text));
                assert_eq!(value.origin().and_then(Origin::from_tag).as_ref(), Some(origin));
                change(&mut value);
            }
        }
        let file = Origin::File { path: "a=b.toml".into(), line: 3 };
        for origin in [file, environment, Origin::Set] {
            assert_eq!(typed(&Value::new(Some(&origin.to_tag()), 1)), None);
        }
    }

    #[test]
    fn a_mark_waits_for_its_table() {
        for another in [false, true] {
            let mut value = Value::new(Some(&Origin::Set.to_tag()), 1);
            set_before(&mut value, 2);
            set_before(&mut value, 12);
            settle_before(&mut value, 2, another);
            assert_eq!(is_carried(&value), another);
            assert!(is_marked(&value), "of the other table");
            settle_before(&mut value, 12, false);
            assert_eq!((is_carried(&value), is_marked(&value)), (another, another));
        }
    }

    #[test]
    fn a_file_need_not_name_itself() {
        let origin = Origin::File { path: "a.toml".into(), line: 3 };
        assert_eq!(origin.seen_from(Path::new("a.toml")), "line 3");
        assert_eq!(origin.seen_from(Path::new("b.toml")), "a.toml line 3");
    }
}
