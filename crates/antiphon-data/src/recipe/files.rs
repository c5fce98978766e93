//! Files, as a recipe names them and as it writes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A file that is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// Its path below the origin, with `/`.
    pub name: String,
    /// The SHA-256 of its content, in lower-case hexadecimal.
    pub sha256: String,
}

/// A file that a preparation wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreparedFile {
    /// Its path below the prepared folder, with `/`.
    pub name: String,
    /// Its SHA-256.
    pub sha256: String,
    /// How many lines it has.
    pub lines: usize,
}

/// A file to be written.
pub(super) struct Output {
    /// Its path below the prepared folder, with `/`.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// Whether a path of `/` stays below the folder that it is joined to, on every system.
pub(super) fn is_inside(name: &str) -> bool {
    name.split('/').all(|part| !matches!(part, "" | "." | "..")) && !name.contains(['\\', ':'])
}

/// Whether a text is a SHA-256 as `sha256sum` writes it.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
