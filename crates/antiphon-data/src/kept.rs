//! The ids of examples, kept in memory while there are not too many: an epoch then neither reads nor encodes a text again.

use antiphon_core::TokenId;

/// How many ids are kept at most: 64 MiB of them.
pub(crate) const MOST: usize = 1 << 24;

/// The rows of examples, all of one example behind another.
#[derive(Debug)]
pub(crate) struct Kept {
    /// How many rows an example has.
    sides: usize,
    ids: Vec<TokenId>,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl Kept {
    /// For examples of so many rows: those of its sources and of its target.
    pub(crate) fn new(sides: usize) -> Self {
        Self { sides, ids: Vec::new(), ends: Vec::new() }
    }

    /// Takes in the rows of the next example; `None` where they are too many to be kept.
    pub(crate) fn with(mut self, rows: &[Vec<TokenId>]) -> Option<Self> {
        assert_eq!(rows.len(), self.sides, "an example has a row for each side");
        if self.ids.len() + rows.iter().map(Vec::len).sum::<usize>() > MOST {
            return None;
        }
        for row in rows {
            self.ids.extend(row);
            self.ends.push(self.ids.len());
        }
        Some(self)
    }

    /// The rows of an example.
    pub(crate) fn rows(&self, example: usize) -> impl Iterator<Item = &[TokenId]> {
        let first = example * self.sides;
        (first..first + self.sides).map(|row| {
            let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
            &self.ids[start..self.ends[row]]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_until_they_are_too_many() {
        let rows = |n: u32| vec![vec![n; n as usize], vec![], vec![7, n]];
        let kept = (0..5).try_fold(Kept::new(3), |kept, n| kept.with(&rows(n))).unwrap();
        for n in 0..5 {
            assert!(kept.rows(n).eq(rows(n as u32).iter().map(Vec::as_slice)), "{n}");
        }
        let room = MOST - kept.ids.len();
        assert!(kept.with(&[vec![1; room], vec![2], vec![]]).is_none());
        let full = Kept::new(1).with(&[vec![1; MOST]]).unwrap();
        assert!(full.with(&[vec![]]).is_some_and(|full| full.with(&[vec![1]]).is_none()));
    }
}
