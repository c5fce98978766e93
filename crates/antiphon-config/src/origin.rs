//! Where a setting was made.

use std::fmt;
use std::path::{Path, PathBuf};

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
            assert_eq!(Origin::from_tag(&origin.to_tag()), Some(origin));
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
