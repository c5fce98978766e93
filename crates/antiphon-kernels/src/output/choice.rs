//! What one row of a search may choose.

use std::borrow::Cow;

use antiphon_core::{Mask, TokenId};

/// What is banned for all rows and a row's own mask, put together; ids ascend.
#[derive(Debug)]
pub(super) enum Choice<'a> {
    /// All but these.
    AllBut(Cow<'a, [TokenId]>),
    /// These alone.
    Only(Vec<TokenId>),
}

impl<'a> Choice<'a> {
    /// `banned`: those of all rows, [in order](in_order); `k`: how many tokens are wanted.
    pub(super) fn new(banned: &'a [TokenId], mask: &Mask, vocabulary: usize, k: usize) -> Self {
        let banned = match mask {
            Mask::Free => Cow::Borrowed(banned),
            Mask::Banned(more) => Cow::Owned(in_order([banned, more].concat())),
            Mask::Allowed(only) => {
                let mut only = in_order(only.clone());
                only.retain(|id| banned.binary_search(id).is_err());
                return Choice::Only(only);
            }
        };
        if vocabulary - banned.len() >= k {
            return Choice::AllBut(banned);
        }
        Choice::Only((0..vocabulary as TokenId).filter(|id| banned.binary_search(id).is_err()).collect())
    }

    /// Whether the row may choose this token.
    pub(super) fn has(&self, id: TokenId) -> bool {
        match self {
            Choice::AllBut(banned) => banned.binary_search(&id).is_err(),
            Choice::Only(only) => only.binary_search(&id).is_ok(),
        }
    }

    /// Of a row that may choose all but some: these, as far as they lie between `start` and `end`.
    pub(super) fn banned_within(&self, start: usize, end: usize) -> &[TokenId] {
        match self {
            Choice::AllBut(banned) => {
                let place = |id: usize| banned.partition_point(|&banned| (banned as usize) < id);
                &banned[place(start)..place(end)]
            }
            Choice::Only(_) => &[],
        }
    }

    /// The `k` best of all with their logits, from those of [`Choice::Only`]; what is masked follows, if there are too few.
    pub(super) fn best_of_only(&self, mut only: Vec<(f32, TokenId)>, k: usize) -> Vec<(f32, TokenId)> {
        only.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        only.truncate(k);
        let missing = k - only.len();
        only.extend((0..).filter(|&id| !self.has(id)).take(missing).map(|id| (f32::NEG_INFINITY, id)));
        only
    }

    /// What is best where there are no numbers.
    pub(super) fn not_a_number(&self, vocabulary: usize, k: usize) -> Vec<(TokenId, f32)> {
        let of = |chosen: bool, value: f32| {
            (0..vocabulary as TokenId).filter(move |&id| self.has(id) == chosen).map(move |id| (id, value))
        };
        of(true, f32::NAN).chain(of(false, f32::NEG_INFINITY)).take(k).collect()
    }
}

/// The ids in ascending order, each once.
pub(super) fn in_order(mut ids: Vec<TokenId>) -> Vec<TokenId> {
    ids.sort_unstable();
    ids.dedup();
    ids
}
