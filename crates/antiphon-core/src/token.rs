//! Token ids, the special symbols and what a tokenizer must do.

use crate::Result;

/// The number of a token in a vocabulary.
pub type TokenId = u32;

/// The symbols that every vocabulary starts with, at fixed ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Special {
    /// Fills a row up to its batch's width; never predicted.
    Pad = 0,
    /// Stands for what the vocabulary lacks.
    Unknown = 1,
    /// Begins a target; never predicted.
    Begin = 2,
    /// Ends a target (and a source).
    End = 3,
}

impl Special {
    /// All four, in the order of their ids.
    pub const ALL: [Special; 4] = [Special::Pad, Special::Unknown, Special::Begin, Special::End];
    /// How many ids they take.
    pub const COUNT: usize = Self::ALL.len();

    /// Its id.
    pub const fn id(self) -> TokenId {
        self as TokenId
    }

    /// As it stands in a vocabulary file.
    pub const fn text(self) -> &'static str {
        match self {
            Special::Pad => "<pad>",
            Special::Unknown => "<unk>",
            Special::Begin => "<s>",
            Special::End => "</s>",
        }
    }
}

/// Text to ids and back.
///
/// Ids `0..4` are the [`Special`] symbols. [`encode`](Self::encode) adds neither begin nor end; whoever builds a batch does.
pub trait Tokenizer: Send + Sync {
    /// The ids of a text.
    ///
    /// # Errors
    /// If the text cannot be represented at all (a tokenizer with an unknown symbol never fails).
    fn encode(&self, text: &str) -> Result<Vec<TokenId>>;

    /// The text of some ids; special symbols other than unknown are left out.
    fn decode(&self, ids: &[TokenId]) -> String;

    /// The words that the ids of a text stand for, one for each id that [`encode`](Self::encode) gives, `None` for one that stands for no
    /// word (an end symbol within). A tokenizer whose ids are not words has none at all.
    fn words(&self, _text: &str) -> Option<Vec<Option<String>>> {
        None
    }

    /// The text of some ids, those from [`size`](Self::size) on being slots with these words ([`Copies::slots`](crate::Copies)).
    /// Only a tokenizer that has [`words`](Self::words) can say slots; others leave them out.
    fn decode_slots(&self, ids: &[TokenId], _slots: &[String]) -> String {
        self.decode(ids)
    }

    /// How many turns of a history [`encode`](Self::encode) leaves out, or cuts, because it would be too long; 0 where texts are encoded whole.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn cut(&self, _text: &str) -> Result<usize> {
        Ok(0)
    }

    /// The number of ids, specials included.
    fn size(&self) -> usize;

    /// How one id is written, or `None` beyond [`size`](Self::size).
    fn token(&self, id: TokenId) -> Option<String>;

    /// All that is needed to build this tokenizer again, as canonical JSON: equal tokenizers give equal strings.
    fn to_json(&self) -> String;
}
