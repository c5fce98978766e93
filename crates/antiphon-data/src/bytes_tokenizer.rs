//! The tests' tokenizer: one id a byte, behind the four special symbols.

use antiphon_core::{Error, Result, Special, TokenId, Tokenizer};

/// Refuses texts that hold a `!`, so that tests can see an error pass through.
pub(crate) struct Bytes;

impl Tokenizer for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        if text.contains('!') {
            return Err(Error::new("`!` cannot be represented"));
        }
        Ok(text.bytes().map(|b| TokenId::from(b) + Special::COUNT as TokenId).collect())
    }

    fn decode(&self, ids: &[TokenId]) -> String {
        let bytes = ids.iter().filter_map(|id| id.checked_sub(4).and_then(|b| u8::try_from(b).ok())).collect();
        String::from_utf8(bytes).unwrap_or_default()
    }

    fn size(&self) -> usize {
        260
    }

    fn token(&self, id: TokenId) -> Option<String> {
        (id < 260).then(|| self.decode(&[id]))
    }

    fn to_json(&self) -> String {
        "\"bytes\"".into()
    }
}
