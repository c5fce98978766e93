//! One spelling for what should count as the same text.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, char::decompose_canonical};

/// A change made to every text before it is split. Several are made in the order written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// Canonical composition: `e` + combining acute becomes `é` (Unicode Standard Annex 15).
    Nfc,
    /// Canonical decomposition: `é` becomes `e` + combining acute.
    Nfd,
    /// Compatibility composition: also `ﬁ` becomes `fi`, `①` becomes `1`.
    Nfkc,
    /// Compatibility decomposition.
    Nfkd,
    /// Syllables of Hangul become their letters, `한` becomes `ᄒ`, `ᅡ`, `ᆫ`; all else stays as it is. Of what `nfd` does, the
    /// part that splits a character into sounds, and not the part that splits letters from their accents.
    Jamo,
    /// Lower case, by Unicode's default rules for no language in particular.
    Lowercase,
    /// Punctuation before and behind a word becomes words of its own, each mark one: `Where is "it"?` becomes `Where is " it " ?`.
    /// Within a word it stays: `don't`, `3.5`. A word in angle brackets, as `<user>`, stays whole.
    Punctuation,
}

impl Normalization {
    fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            // ASCII is its own normal form, in all four.
            Self::Nfc | Self::Nfd | Self::Nfkc | Self::Nfkd | Self::Jamo if text.is_ascii() => text.into(),
            Self::Nfc => text.nfc().collect::<String>().into(),
            Self::Nfd => text.nfd().collect::<String>().into(),
            Self::Nfkc => text.nfkc().collect::<String>().into(),
            Self::Nfkd => text.nfkd().collect::<String>().into(),
            Self::Jamo => jamo(text).into(),
            Self::Lowercase => text.to_lowercase().into(),
            Self::Punctuation => apart(text).into(),
        }
    }
}

/// `text` after all `steps`, in their order.
pub fn normalize<'t>(steps: &[Normalization], text: &'t str) -> Cow<'t, str> {
    steps.iter().fold(Cow::Borrowed(text), |text, step| match text {
        Cow::Borrowed(text) => step.apply(text),
        Cow::Owned(text) => step.apply(&text).into_owned().into(),
    })
}

/// A text with a space between each mark at the edge of a word and what stands beside it.
fn apart(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len() + 8);
    for piece in text.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end_matches(char::is_whitespace);
        if is_bracketed(word) {
            spaced += piece;
            continue;
        }
        let before = word.len() - word.trim_start_matches(is_mark).len();
        let behind = word.trim_end_matches(is_mark).len().max(before);
        let marks = |marks: &str| marks.chars().map(String::from).collect::<Vec<_>>();
        let mut parts = marks(&word[..before]);
        parts.extend(Some(&word[before..behind]).filter(|rest| !rest.is_empty()).map(|rest| (*rest).to_owned()));
        parts.extend(marks(&word[behind..]));
        spaced += &parts.join(" ");
        spaced += &piece[word.len()..];
    }
    spaced
}

/// Whether a word is letters, digits, `_` and `-` in angle brackets: a mark, as one of who speaks.
fn is_bracketed(word: &str) -> bool {
    let inner = word.strip_prefix('<').and_then(|word| word.strip_suffix('>'));
    inner.is_some_and(|inner| !inner.is_empty() && inner.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-'))
}

/// Whether a character is punctuation: of ASCII, of Latin-1, of the block "General Punctuation" and of "CJK Symbols and Punctuation".
fn is_mark(c: char) -> bool {
    let others = ['¡', '§', '«', '¶', '·', '»', '¿'];
    c.is_ascii_punctuation()
        || others.contains(&c)
        || matches!(c, '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205E}' | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}')
}

fn jamo(text: &str) -> String {
    let mut letters = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // The block "Hangul Syllables"; its decomposition is arithmetic (Unicode Standard, section 3.12).
            '\u{AC00}'..='\u{D7A3}' => decompose_canonical(character, |letter| letters.push(letter)),
            _ => letters.push(character),
        }
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::Normalization::{Jamo, Lowercase, Nfc, Nfd, Nfkc, Nfkd, Punctuation};
    use super::*;

    #[test]
    fn each_form_is_unicodes() {
        for (steps, text, expected) in [
            (vec![], "É", "É"),
            (vec![Nfc], "e\u{301}", "é"),
            (vec![Nfd], "é", "e\u{301}"),
            (vec![Nfkc], "ﬁe\u{301}①", "fié1"),
            (vec![Nfkd], "ﬁé", "fie\u{301}"),
            (vec![Jamo], "한글é a", "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}é a"),
            (vec![Lowercase], "ÉA ΟΔΟΣ", "éa οδος"),
            (
                vec![Punctuation],
                "Where is \"it\"?\n(3.5, don't)\t¿e\u{301}!  …",
                "Where is \" it \" ?\n( 3.5 , don't )\t¿ e\u{301} !  …",
            ),
            (vec![Punctuation], "?! a", "? ! a"),
            (vec![Punctuation], "<user> a <1>\n<x y> <> <a.b> b<c>.", "<user> a <1>\n< x y > < > < a.b > b<c > ."),
        ] {
            assert_eq!(normalize(&steps, text), expected, "{steps:?}");
        }
    }

    #[test]
    fn the_order_is_the_one_written() {
        // The telephone sign has no lower case of its own, but decomposes to capital letters.
        assert_eq!(normalize(&[Nfkc, Lowercase], "℡"), "tel");
        assert_eq!(normalize(&[Lowercase, Nfkc], "℡"), "TEL");
    }

    #[test]
    fn names_are_snake_case() {
        let steps: Vec<Normalization> =
            serde_json::from_str(r#"["nfc","nfd","nfkc","nfkd","jamo","lowercase","punctuation"]"#).unwrap();
        assert_eq!(steps, [Nfc, Nfd, Nfkc, Nfkd, Jamo, Lowercase, Punctuation]);
    }
}
