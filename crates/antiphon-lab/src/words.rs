//! Commands as people give them.

/// Set by a program that a user calls in place of `antiphon` and that calls it with the user's words: what the user gave
/// before these, as in `cargo xtask`. What is printed for the user to type begins with it.
pub const CALLED_AS: &str = "ANTIPHON_CALLED_AS";

/// A word as a POSIX shell reads it.
pub fn shell(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
