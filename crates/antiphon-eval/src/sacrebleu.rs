//! What the reproductions of sacreBLEU share: its version, its signatures and its idea of white space.

use antiphon_core::Judged;

/// The version of sacreBLEU whose definitions are reproduced here.
pub(crate) const VERSION: &str = "2.6.0";

/// How a signature names the number of references: the number, or `var` if the answers differ in it.
pub(crate) fn reference_count(answers: &[Judged]) -> String {
    let mut counts = answers.iter().map(|answer| answer.references.len());
    let first = counts.next().unwrap_or(0);
    if counts.all(|count| count == first) { first.to_string() } else { "var".to_string() }
}

/// How a signature names the case.
pub(crate) fn case(lowercase: bool) -> &'static str {
    if lowercase { "lc" } else { "mixed" }
}

/// A yes or no in a signature.
pub(crate) fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// The words of a text as Python's `str.split` finds them. Python counts four separators as white space that Unicode
/// does not: U+001C to U+001F.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || matches!(c, '\u{1C}'..='\u{1F}')).filter(|word| !word.is_empty())
}
