//! Commands as people give them.

use std::ffi::OsStr;

/// Set by a program that a user calls in place of `antiphon` and that calls it with the user's words: what the user gave
/// before these, as in `cargo xtask`. What is printed for the user to type begins with it.
pub const CALLED_AS: &str = "ANTIPHON_CALLED_AS";

/// Words as a line for a POSIX shell.
pub fn command_line(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    words.into_iter().map(shell).collect::<Vec<_>>().join(" ")
}

/// A word, or a path, as a POSIX shell reads it.
pub fn shell(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref().to_string_lossy();
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c));
    if plain { word.into_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(command_line(["a", "--set", "x='y z'", ""]), r"a --set 'x='\''y z'\''' ''");
        assert_eq!(shell(std::path::Path::new("runs/a-1.b")), "runs/a-1.b");
        assert_eq!(shell("my runs/a'b"), r"'my runs/a'\''b'");
        assert_eq!(command_line([""; 0]), "");
    }
}
