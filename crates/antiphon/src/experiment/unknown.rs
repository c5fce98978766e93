//! Tokens that a tokenizer does not know: what the model cannot see, or cannot say.

use antiphon_core::{Special, TokenId};

use super::data::Encoded;

/// The share of a side's tokens beyond which it is worth a warning.
const SHARE: f64 = 0.05;

/// Which of some ids, counted from 0, are the unknown symbol.
pub(crate) fn positions(ids: &[TokenId]) -> Vec<usize> {
    (0..ids.len()).filter(|&i| ids[i] == Special::Unknown.id()).collect()
}

/// What to say if many of a side's tokens are unknown; `tokens` are all of them but end symbols.
pub(crate) fn warning(side: &str, unknown: u64, tokens: u64) -> Option<String> {
    let share = unknown as f64 / tokens.max(1) as f64;
    (share > SHARE).then(|| {
        format!(
            "{unknown} of {tokens} {side} tokens ({:.1} %) are unknown to the tokenizer, and all alike to the model: is the \
             text written like that of the training (capitals, script, tokenization)?",
            100.0 * share
        )
    })
}

/// What to say of the tokens of a split that its tokenizers do not know; end symbols, which every text has, are not counted.
pub(super) fn warnings(split: &Encoded) -> Vec<String> {
    let (unknown, ends) = (split.unknown(), split.ends());
    let of_source = warning("source", unknown.source, split.source_tokens().saturating_sub(ends));
    of_source.into_iter().chain(warning("target", unknown.target, split.target_tokens() - ends)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_unknown_tokens_are_no_news() {
        assert_eq!(positions(&[1, 4, 1, 3]), [0, 2]);
        assert_eq!(warning("source", 0, 0), None);
        assert_eq!(warning("source", 5, 100), None);
        let text = warning("source", 6, 100).unwrap();
        assert!(text.starts_with("6 of 100 source tokens (6.0 %) are unknown"), "{text}");
    }
}
