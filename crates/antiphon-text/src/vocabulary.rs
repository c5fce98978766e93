//! The numbered tokens of a tokenizer: the special symbols first, then what was learned.

use std::collections::{HashMap, HashSet};

use antiphon_core::{Error, Result, Special, TokenId};

/// Tokens by id and ids by token. Ids `0..4` are the [`Special`] symbols and cannot be looked up by their text.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    tokens: Vec<String>,
    ids: HashMap<String, TokenId>,
}

impl Vocabulary {
    /// Numbers `tokens` from 4 on.
    ///
    /// # Errors
    /// If there is no token, an empty one, or one twice.
    pub(crate) fn new(tokens: Vec<String>) -> Result<Self> {
        check_distinct(&tokens)?;
        let first = Special::COUNT as TokenId;
        let ids = tokens.iter().zip(first..).map(|(token, id)| (token.clone(), id)).collect();
        Ok(Self { tokens, ids })
    }

    /// The id of a token that was learned.
    pub(crate) fn id(&self, token: &str) -> Option<TokenId> {
        self.ids.get(token).copied()
    }

    /// The id of a token, or that of [`Special::Unknown`].
    pub(crate) fn id_or_unknown(&self, token: &str) -> TokenId {
        self.id(token).unwrap_or(Special::Unknown.id())
    }

    /// How an id is written.
    pub(crate) fn token(&self, id: TokenId) -> Option<&str> {
        match special(id) {
            Some(special) => Some(special.text()),
            None => self.tokens.get(id as usize - Special::COUNT).map(String::as_str),
        }
    }

    /// What an id adds to a text: nothing for pad, begin, end and numbers beyond the vocabulary.
    pub(crate) fn spoken(&self, id: TokenId) -> Option<&str> {
        match special(id) {
            Some(Special::Pad | Special::Begin | Special::End) => None,
            _ => self.token(id),
        }
    }

    /// The number of ids, specials included.
    pub(crate) fn size(&self) -> usize {
        Special::COUNT + self.tokens.len()
    }

    /// What was learned, in the order of the ids.
    pub(crate) fn learned(&self) -> impl Iterator<Item = (&str, TokenId)> {
        self.tokens.iter().map(String::as_str).zip(Special::COUNT as TokenId..)
    }
}

/// The special symbol of this id.
pub(crate) fn special(id: TokenId) -> Option<Special> {
    Special::ALL.get(id as usize).copied()
}

/// Refuses an empty list, an empty token and a token that comes twice.
pub(crate) fn check_distinct(tokens: &[String]) -> Result<()> {
    if tokens.is_empty() {
        return Err(Error::new("the vocabulary is empty; train the tokenizer again"));
    }
    let mut seen = HashSet::with_capacity(tokens.len());
    match tokens.iter().find(|token| token.is_empty() || !seen.insert(token.as_str())) {
        Some(token) if token.is_empty() => Err(Error::new("the vocabulary has an empty token; train it again")),
        Some(token) => Err(Error::new(format!("the vocabulary has {token:?} twice; train the tokenizer again"))),
        None => Ok(()),
    }
}
