//! Whether a table holds what is looked up.

use antiphon_core::{Error, Result, TokenId};

/// An id that no table holds would be a panic deep inside.
pub(crate) fn check_ids(ids: &[TokenId], vocabulary: usize, side: &str) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= vocabulary) {
        None => Ok(()),
        Some(id) => Err(Error::new(format!("the {side} id {id} lies outside the vocabulary of {vocabulary}"))),
    }
}
