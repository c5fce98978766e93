//! Where a setting was made.

use std::fmt;
use std::path::{Path, PathBuf};

use config::{Value, ValueKind};

/// What the tag of a value begins with that was inherited beside another `kind`.
const CARRIED: &str = "carried:";

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

    /// The inverse of [`to_tag`](Self::to_tag).
    pub(crate) fn from_tag(tag: &str) -> Option<Self> {
        let tag = tag.strip_prefix(CARRIED).unwrap_or(tag);
        if tag == "set" {
            return Some(Origin::Set);
        }
        if let Some(name) = tag.strip_prefix("environment:") {
            return Some(Origin::Environment { name: name.to_owned() });
        }
        let (line, path) = tag.strip_prefix("file:")?.split_once(':')?;
        Some(Origin::File { path: path.into(), line: line.parse().ok()? })
    }
}

/// Marks a value, and all inside, as carried over: set beside another `kind` than now stands there.
pub(crate) fn carry(value: &mut Value) {
    match &mut value.kind {
        ValueKind::Table(table) => table.values_mut().for_each(carry),
        ValueKind::Array(items) => items.iter_mut().for_each(carry),
        _ => {}
    }
    if let Some(tag) = value.origin().filter(|tag| !tag.starts_with(CARRIED)) {
        *value = Value::new(Some(&format!("{CARRIED}{tag}")), std::mem::take(&mut value.kind));
    }
}

/// Whether a value was carried over and not set again since.
pub(crate) fn is_carried(value: &Value) -> bool {
    value.origin().is_some_and(|tag| tag.starts_with(CARRIED))
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
    fn a_file_need_not_name_itself() {
        let origin = Origin::File { path: "a.toml".into(), line: 3 };
        assert_eq!(origin.seen_from(Path::new("a.toml")), "line 3");
        assert_eq!(origin.seen_from(Path::new("b.toml")), "a.toml line 3");
    }
}
