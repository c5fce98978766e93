//! Text of others on a terminal.

use std::borrow::Cow;

/// A text that does nothing to a terminal but appear: control characters other than line feed and tab, and those that turn the
/// direction of writing, are written as `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return text.into();
    }
    let shown = |mut shown: String, c: char| {
        if acts(c) {
            shown.extend(c.escape_unicode())
        } else {
            shown.push(c)
        }
        shown
    };
    text.chars().fold(String::new(), shown).into()
}

/// Whether a character would do more to a terminal than appear. None of them needs two units of UTF-16.
pub fn acts(c: char) -> bool {
    (c.is_control() && !"\n\t".contains(c)) || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_acts_upon_a_terminal() {
        assert_eq!(printable("a\tb\né\u{301} שלום"), "a\tb\né\u{301} שלום");
        assert_eq!(printable("\u{1b}[31mred\r\u{9b}0m\u{7f}"), r"\u{1b}[31mred\u{d}\u{9b}0m\u{7f}");
        assert_eq!(printable("a\u{202e}b"), r"a\u{202e}b");
    }
}
