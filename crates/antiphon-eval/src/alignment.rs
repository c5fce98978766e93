//! One shortest way from a reference to a hypothesis, edit by edit.

use serde::{Deserialize, Serialize};

/// One step of an alignment; the numbers are places in the two sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Edit {
    /// The same token in both.
    Match {
        /// Place in the hypothesis.
        hypothesis: usize,
        /// Place in the reference.
        reference: usize,
    },
    /// Another token than the reference's.
    Substitute {
        /// Place in the hypothesis.
        hypothesis: usize,
        /// Place in the reference.
        reference: usize,
    },
    /// A token that the reference lacks.
    Insert {
        /// Place in the hypothesis.
        hypothesis: usize,
    },
    /// A token that the hypothesis lacks.
    Delete {
        /// Place in the reference.
        reference: usize,
    },
}

impl Edit {
    /// 0 for a match, 1 for all else.
    pub fn cost(self) -> usize {
        usize::from(!matches!(self, Edit::Match { .. }))
    }
}

/// Aligns the hypothesis with the reference by the fewest edits, in the order of both.
///
/// The costs add up to [`distance`](crate::distance()). Of several best alignments it is always the same one: read from
/// the end, a match or substitution goes before a deletion, and that before an insertion. Time `O(n · m)`; sequences
/// whose table would take more than 16 MiB are divided first (Hirschberg 1975), so memory stays bounded.
pub fn align<T: PartialEq>(hypothesis: &[T], reference: &[T]) -> Vec<Edit> {
    let mut edits = Vec::with_capacity(hypothesis.len().max(reference.len()));
    align_within(1 << 24, Part { at: 0, tokens: hypothesis }, Part { at: 0, tokens: reference }, &mut edits);
    edits
}

/// A piece of a sequence that knows where it began.
#[derive(Debug)]
struct Part<'t, T> {
    at: usize,
    tokens: &'t [T],
}

impl<'t, T> Part<'t, T> {
    fn split(&self, middle: usize) -> (Self, Self) {
        let (left, right) = self.tokens.split_at(middle);
        (Self { at: self.at, tokens: left }, Self { at: self.at + middle, tokens: right })
    }
}

fn align_within<T: PartialEq>(limit: usize, hypothesis: Part<'_, T>, reference: Part<'_, T>, edits: &mut Vec<Edit>) {
    let (h, r) = (hypothesis.tokens, reference.tokens);
    if h.len() <= 1 || (h.len() + 1).saturating_mul(r.len() + 1) <= limit {
        return by_table(&hypothesis, &reference, edits);
    }
    // Some best alignment passes through the middle of the hypothesis: find where it then stands in the reference.
    let middle = h.len() / 2;
    let left = last_row(h[..middle].iter(), r.iter(), r.len());
    let right = last_row(h[middle..].iter().rev(), r.iter().rev(), r.len());
    let through = |j: usize| left[j] + right[r.len() - j];
    let crossing = (0..=r.len()).min_by_key(|&j| through(j)).unwrap_or(0);
    let (h_left, h_right) = hypothesis.split(middle);
    let (r_left, r_right) = reference.split(crossing);
    align_within(limit, h_left, r_left, edits);
    align_within(limit, h_right, r_right, edits);
}

/// The costs of turning all of `rows` into each prefix of `columns`: `[width + 1]`.
fn last_row<'t, T: PartialEq + 't>(
    rows: impl Iterator<Item = &'t T>,
    columns: impl Iterator<Item = &'t T> + Clone,
    width: usize,
) -> Vec<usize> {
    let mut costs: Vec<usize> = (0..=width).collect();
    for token in rows {
        next_row(&mut costs, token, columns.clone(), |_| {});
    }
    costs
}

/// The side, or both, that a step into a cell of the table goes on by one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Advance {
    Both,
    Reference,
    Hypothesis,
}

/// Moves `costs` down one row, for one more token of the hypothesis, and tells the steps from column 1 on.
fn next_row<'t, T: PartialEq + 't>(
    costs: &mut [usize],
    token: &T,
    columns: impl Iterator<Item = &'t T>,
    mut step: impl FnMut(Advance),
) {
    let mut diagonal = costs[0];
    costs[0] += 1;
    for (j, column) in columns.enumerate() {
        let both = diagonal + usize::from(column != token);
        let (delete, insert) = (costs[j] + 1, costs[j + 1] + 1);
        let best = both.min(delete).min(insert);
        diagonal = costs[j + 1];
        costs[j + 1] = best;
        step(match best {
            _ if best == both => Advance::Both,
            _ if best == delete => Advance::Reference,
            _ => Advance::Hypothesis,
        });
    }
}

fn by_table<T: PartialEq>(hypothesis: &Part<'_, T>, reference: &Part<'_, T>, edits: &mut Vec<Edit>) {
    let (h, r) = (hypothesis.tokens, reference.tokens);
    let mut costs: Vec<usize> = (0..=r.len()).collect();
    let mut steps = Vec::with_capacity(h.len() * r.len());
    for token in h {
        next_row(&mut costs, token, r.iter(), |step| steps.push(step));
    }
    let (first, mut i, mut j) = (edits.len(), h.len(), r.len());
    while (i, j) != (0, 0) {
        let step = match (i, j) {
            (0, _) => Advance::Reference,
            (_, 0) => Advance::Hypothesis,
            _ => steps[(i - 1) * r.len() + j - 1],
        };
        i -= usize::from(step != Advance::Reference);
        j -= usize::from(step != Advance::Hypothesis);
        let (hypothesis, reference) = (hypothesis.at + i, reference.at + j);
        edits.push(match step {
            Advance::Both if h[i] == r[j] => Edit::Match { hypothesis, reference },
            Advance::Both => Edit::Substitute { hypothesis, reference },
            Advance::Reference => Edit::Delete { reference },
            Advance::Hypothesis => Edit::Insert { hypothesis },
        });
    }
    edits[first..].reverse();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::distance::tests::{by_table as cost_by_table, sequence};

    /// Walks the edits: they must visit each place of both sequences once, in order, and tell the truth.
    fn check(h: &[u8], r: &[u8], edits: &[Edit]) {
        let (mut i, mut j) = (0, 0);
        for &edit in edits {
            match edit {
                Edit::Match { hypothesis, reference } | Edit::Substitute { hypothesis, reference } => {
                    assert_eq!((hypothesis, reference), (i, j));
                    assert_eq!(edit.cost() == 0, h[i] == r[j]);
                    (i, j) = (i + 1, j + 1);
                }
                Edit::Insert { hypothesis } => {
                    assert_eq!(hypothesis, i);
                    i += 1;
                }
                Edit::Delete { reference } => {
                    assert_eq!(reference, j);
                    j += 1;
                }
            }
        }
        assert_eq!((i, j), (h.len(), r.len()));
        assert_eq!(edits.iter().map(|e| e.cost()).sum::<usize>(), cost_by_table(h, r));
    }

    #[test]
    fn an_example_by_hand() {
        let edits = align(&["the", "cat", "sat", "sat"], &["a", "cat", "sat", "down", "here"]);
        assert_eq!(
            edits,
            [
                Edit::Substitute { hypothesis: 0, reference: 0 },
                Edit::Match { hypothesis: 1, reference: 1 },
                Edit::Match { hypothesis: 2, reference: 2 },
                Edit::Delete { reference: 3 },
                Edit::Substitute { hypothesis: 3, reference: 4 },
            ]
        );
    }

    proptest! {
        #[test]
        fn edits_lead_from_the_reference_to_the_hypothesis_at_least_cost(h in sequence(60), r in sequence(60)) {
            check(&h, &r, &align(&h, &r));
        }

        #[test]
        fn so_they_do_when_the_table_must_be_divided(h in sequence(60), r in sequence(60), limit in 0_usize..200) {
            let mut edits = Vec::new();
            align_within(limit, Part { at: 0, tokens: &h }, Part { at: 0, tokens: &r }, &mut edits);
            check(&h, &r, &edits);
        }
    }
}
