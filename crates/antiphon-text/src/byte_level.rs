//! Text as bytes that look like characters, so that a character model can merge bytes.
//!
//! GPT-2's idea (Radford et al. 2019): each of the 256 bytes has a printable character of its own, so that nothing is
//! ever unknown. A text is cut into words that keep the blank before them; the cuts lose nothing.

use std::collections::HashMap;
use std::sync::LazyLock;

use unicode_normalization::char::is_combining_mark;

/// The character of each byte: itself where it is printable in Latin-1, else the next free one from U+0100 on.
static CHARACTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte as u8),
        _ => next.next().expect("there are more than 256 characters"),
    })
});

static BYTES: LazyLock<HashMap<char, u8>> = LazyLock::new(|| CHARACTERS.iter().copied().zip(0..=255).collect());

/// The characters of all bytes, in the order of the bytes.
pub(crate) fn alphabet() -> &'static [char; 256] {
    &CHARACTERS
}

/// Appends the characters of the bytes of `text`.
pub(crate) fn write(text: &str, into: &mut String) {
    into.extend(text.bytes().map(|byte| CHARACTERS[usize::from(byte)]));
}

/// Appends the bytes that `token` stands for. Characters that stand for no byte are left out.
pub(crate) fn read(token: &str, into: &mut Vec<u8>) {
    into.extend(token.chars().filter_map(|character| BYTES.get(&character)));
}

/// Cuts a text into runs of letters, of digits, of blanks and of everything else; a run keeps the one blank before it,
/// and letters an apostrophe before them. The pieces, one behind the other, are the text.
pub(crate) fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (piece, rest) = text.split_at(first_piece(text)?);
        text = rest;
        Some(piece)
    })
}

#[derive(PartialEq)]
enum Class {
    Letter,
    Digit,
    Blank,
    Other,
}

fn class(character: char) -> Class {
    match character {
        c if c.is_alphabetic() || is_combining_mark(c) => Class::Letter,
        c if c.is_numeric() => Class::Digit,
        c if c.is_whitespace() => Class::Blank,
        _ => Class::Other,
    }
}

/// The length of the run of one class that `text` begins with.
fn run(text: &str) -> usize {
    let Some(first) = text.chars().next().map(class) else { return 0 };
    text.find(|character| class(character) != first).unwrap_or(text.len())
}

fn first_piece(text: &str) -> Option<usize> {
    let run_of_first = run(text);
    let next = text[run_of_first..].chars().next();
    match text.chars().next()? {
        // The last blank of a run goes with what follows.
        first if class(first) == Class::Blank => match (next, text[..run_of_first].ends_with(' ')) {
            (Some(_), true) if run_of_first > 1 => Some(run_of_first - 1),
            (Some(_), true) => Some(1 + run(&text[1..])),
            _ => Some(run_of_first),
        },
        '\'' if run_of_first == 1 && next.is_some_and(|next| class(next) == Class::Letter) => Some(1 + run(&text[1..])),
        _ => Some(run_of_first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_characters_that_gpt_2_gave_them() {
        // https://github.com/openai/gpt-2/blob/master/src/encoder.py, `bytes_to_unicode`, for these bytes.
        let mut text = String::new();
        write(" a\né\u{7f}\u{a0}", &mut text);
        assert_eq!(text, "Ġa\u{10a}Ã©\u{121}Â\u{142}");
        let mut bytes = Vec::new();
        read(&text, &mut bytes);
        assert_eq!(bytes, " a\né\u{7f}\u{a0}".as_bytes());
        assert_eq!(BYTES.len(), 256);
    }

    #[test]
    fn a_piece_keeps_the_blank_before_it() {
        for (text, expected) in [
            ("a bc  12, d", vec!["a", " bc", " ", " 12", ",", " d"]),
            ("don't 'tis it's", vec!["don", "'t", " '", "tis", " it", "'s"]),
            ("\t a\n", vec!["\t", " a", "\n"]),
            ("a \u{a0}b ", vec!["a", " \u{a0}", "b", " "]),
            ("e\u{301}te\u{301} 日本", vec!["e\u{301}te\u{301}", " 日本"]),
            ("", vec![]),
        ] {
            assert_eq!(pieces(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }
}
