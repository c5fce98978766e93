//! Tokens that a tokenizer does not know: what the model cannot see, or cannot say.

use std::collections::HashSet;

use antiphon_core::{Result, Special, TokenId, Tokenizer};

use super::data::Encoded;

/// The share of a side's tokens beyond which it is worth a warning.
const SHARE: f64 = 0.05;

/// Which of some ids, counted from 0, are the unknown symbol.
pub(crate) fn positions(ids: &[TokenId]) -> Vec<usize> {
    (0..ids.len()).filter(|&i| ids[i] == Special::Unknown.id()).collect()
}

/// What to say if many of a side's tokens are unknown; `tokens` are all of them but end symbols.
pub(crate) fn warning(side: &str, unknown: u64, tokens: u64) -> Option<String> {
    let why = "is the text written like that of the training (capitals, script, tokenization)?";
    warning_with(side, unknown, tokens, why)
}

fn warning_with(side: &str, unknown: u64, tokens: u64, why: &str) -> Option<String> {
    let share = unknown as f64 / tokens.max(1) as f64;
    (share > SHARE).then(|| {
        let share = 100.0 * share;
        format!(
            "{unknown} of {tokens} {side} tokens ({share:.1} %) are unknown to the tokenizer, and all alike to the model: {why}"
        )
    })
}

/// What of a text a tokenizer does not know, each once, in the order in which it comes: a word where the whole of it is one
/// unknown token, else its characters. Words stand between white space, or, if there is one, between the tokenizer's `separator`.
///
/// # Errors
/// If the text cannot be represented.
pub(crate) fn named(tokenizer: &dyn Tokenizer, text: &str, separator: Option<&str>) -> Result<Vec<String>> {
    let unknown = Special::Unknown.id();
    let (mut seen, mut named, mut found) = (HashSet::new(), HashSet::new(), Vec::new());
    let mut name = |name: &str| -> Result<()> {
        if named.insert(name.to_owned()) && tokenizer.encode(name)?.contains(&unknown) {
            found.push(name.to_owned());
        }
        Ok(())
    };
    let parts: Vec<&str> = match separator {
        Some(separator) => text.split(separator).map(str::trim).collect(),
        None => {
            let pieces = text.split_inclusive(char::is_whitespace);
            pieces.flat_map(|piece| <[&str; 2]>::from(piece.split_at(piece.trim_end().len()))).collect()
        }
    };
    for part in parts {
        if part.is_empty() || !seen.insert(part) {
            continue;
        }
        let ids = tokenizer.encode(part)?;
        match ids.as_slice() {
            [id] if *id == unknown => name(part)?,
            ids if ids.contains(&unknown) => {
                part.chars().try_for_each(|character| name(character.encode_utf8(&mut [0; 4])))?;
            }
            _ => {}
        }
    }
    Ok(found)
}

/// What to say of the tokens of a split that its tokenizers do not know; end symbols, which every text has, are not counted.
/// `learned`: whether they were learned from this one.
pub(super) fn warnings(split: &Encoded, learned: bool) -> Vec<String> {
    let (unknown, ends) = (split.unknown(), split.ends());
    let source = ("source".to_owned(), unknown.source, split.source_tokens().saturating_sub(ends));
    let streams = split.further().into_iter().map(|(name, of)| (format!("`{name}`"), of.unknown, of.tokens - ends));
    let target = ("target".to_owned(), unknown.target, split.target_tokens() - ends);
    let warning = |(side, unknown, tokens): (String, u64, u64)| match learned {
        true => warning_with(&side, unknown, tokens, "its settings leave them out (`min_frequency`, a size)"),
        false => warning(&side, unknown, tokens),
    };
    [source].into_iter().chain(streams).chain([target]).filter_map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_named_once() {
        let learn = |config: &str, text: &str| {
            let config: antiphon_text::TokenizerConfig = serde_json::from_str(config).unwrap();
            config.train(&mut [Ok(text.to_owned())].into_iter()).unwrap()
        };
        let characters = learn(r#"{"kind": "character"}"#, "abc d");
        let of_characters = |text: &str| named(characters.as_ref(), text, None).unwrap();
        assert_eq!(of_characters("ab cd"), [""; 0]);
        assert_eq!(of_characters("xab\tx y xx\n"), ["x", "\t", "y", "\n"]);
        let words = learn(r#"{"kind": "word"}"#, "a bee");
        assert_eq!(named(words.as_ref(), "bee a\tbees  a bees ab", None).unwrap(), ["bees", "ab"]);
        let pieces = learn(r#"{"kind": "bpe", "size": 20, "byte_level": false}"#, "abab ab");
        assert_eq!(named(pieces.as_ref(), "ab abx baz", None).unwrap(), ["x", "z"]);
        let features = learn(r#"{"kind": "word", "separator": ";"}"#, "N;two words");
        assert_eq!(named(features.as_ref(), "N; XYZ;two words;of them", Some(";")).unwrap(), ["XYZ", "of them"]);
    }

    #[test]
    fn few_unknown_tokens_are_no_news() {
        assert_eq!(positions(&[1, 4, 1, 3]), [0, 2]);
        assert_eq!(warning("source", 0, 0), None);
        assert_eq!(warning("source", 5, 100), None);
        let text = warning("source", 6, 100).unwrap();
        assert!(text.starts_with("6 of 100 source tokens (6.0 %) are unknown"), "{text}");
    }
}
