//! Bytes: the 256 of them behind the special symbols, with nothing to learn and nothing unknown.

use antiphon_core::{Result, Special, TokenId, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Normalization;
use crate::canonical::to_json;
use crate::normalization::normalize;
use crate::vocabulary::special;

/// Settings of a byte tokenizer: 260 ids, and every text comes back exactly.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ByteConfig {
    /// Changes made to every text first, in this order.
    pub normalization: Vec<Normalization>,
}

/// All that is saved of a byte tokenizer, and the tokenizer itself.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ByteTokenizer {
    pub(crate) normalization: Vec<Normalization>,
}

const FIRST: TokenId = Special::COUNT as TokenId;

fn byte(id: TokenId) -> Option<u8> {
    id.checked_sub(FIRST).and_then(|byte| byte.try_into().ok())
}

impl Tokenizer for ByteTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        Ok(normalize(&self.normalization, text).bytes().map(|byte| FIRST + TokenId::from(byte)).collect())
    }

    /// Bytes that are not UTF-8, which a model may well say, become U+FFFD.
    fn decode(&self, ids: &[TokenId]) -> String {
        let mut bytes = Vec::with_capacity(ids.len());
        for &id in ids {
            match (byte(id), special(id)) {
                (Some(byte), _) => bytes.push(byte),
                (None, Some(Special::Unknown)) => bytes.extend(Special::Unknown.text().bytes()),
                (None, _) => {}
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn size(&self) -> usize {
        Special::COUNT + 256
    }

    fn token(&self, id: TokenId) -> Option<String> {
        match byte(id) {
            Some(byte) if byte.is_ascii_graphic() || byte == b' ' => Some(char::from(byte).to_string()),
            Some(byte) => Some(format!("<0x{byte:02X}>")),
            None => special(id).map(|special| special.text().to_string()),
        }
    }

    fn to_json(&self) -> String {
        to_json("byte", self)
    }
}
