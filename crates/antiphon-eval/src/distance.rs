//! Levenshtein distance: the fewest insertions, deletions and substitutions between two sequences.
//!
//! Myers' bit-parallel algorithm (*A fast bit-vector algorithm for approximate string matching based on dynamic
//! programming*, J. ACM 1999) in the form of Hyyrö (2003). Sixty-four rows of the table of costs are held as two words
//! of vertical differences, up and down, and move one column to the right in a dozen operations. Longer sequences are
//! cut into strips of 64 rows, one after the other; a strip hands the next its bottom row of horizontal differences.
//! Time `O(⌈n/64⌉ · m)`, memory `O(n + m)`.

use std::collections::HashMap;
use std::hash::Hash;

/// The edit distance between `a` and `b`; every edit costs 1.
///
/// It is a metric: zero only for equal sequences, symmetric, and never longer than a way round.
pub fn distance<T: Eq + Hash>(a: &[T], b: &[T]) -> usize {
    let (a, b) = without_common_ends(a, b);
    let (rows, columns) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    if rows.is_empty() { columns.len() } else { strips(rows, columns) }
}

/// `a` and `b` without the ends that they share, which no best alignment touches.
fn without_common_ends<'t, T: Eq>(a: &'t [T], b: &'t [T]) -> (&'t [T], &'t [T]) {
    let start = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[start..], &b[start..]);
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    (&a[..a.len() - end], &b[..b.len() - end])
}

fn strips<T: Eq + Hash>(rows: &[T], columns: &[T]) -> usize {
    // Symbols become small numbers; 0 is a column's symbol that no row has.
    let mut numbers = HashMap::new();
    let rows: Vec<usize> = rows
        .iter()
        .map(|symbol| {
            let next = numbers.len() + 1;
            *numbers.entry(symbol).or_insert(next)
        })
        .collect();
    let columns: Vec<usize> = columns.iter().map(|symbol| numbers.get(symbol).copied().unwrap_or(0)).collect();

    // Where each symbol stands in the strip.
    let mut places = vec![0_u64; numbers.len() + 1];
    // The row above the strip, as differences between neighbours: the top of the table counts 0, 1, 2, …
    let mut above = vec![1_i8; columns.len()];
    for strip in rows.chunks(64) {
        for (i, &symbol) in strip.iter().enumerate() {
            places[symbol] |= 1 << i;
        }
        let bottom = strip.len() - 1;
        let (mut up, mut down) = (u64::MAX, 0_u64);
        for (&symbol, step) in columns.iter().zip(&mut above) {
            *step = next_column(&mut up, &mut down, places[symbol], *step, bottom);
        }
        for &symbol in strip {
            places[symbol] = 0;
        }
    }
    (rows.len() as i64 + above.iter().map(|&step| i64::from(step)).sum::<i64>()) as usize
}

/// Moves a strip one column to the right. Bit `i` of `up` (of `down`) says that the cost rises (falls) from row `i-1`
/// to row `i`; `equal` says which rows hold the column's symbol. `above` is the step along the row over the strip;
/// returns the step along row `bottom`.
fn next_column(up: &mut u64, down: &mut u64, equal: u64, above: i8, bottom: usize) -> i8 {
    let falls = u64::from(above < 0);
    let vertical = equal | *down;
    let equal = equal | falls;
    let diagonal = ((equal & *up).wrapping_add(*up) ^ *up) | equal;
    let right_up = *down | !(diagonal | *up);
    let right_down = *up & diagonal;
    let step = (right_up >> bottom & 1) as i8 - (right_down >> bottom & 1) as i8;
    let right_up = right_up << 1 | u64::from(above > 0);
    let right_down = right_down << 1 | falls;
    *up = right_down | !(vertical | right_up);
    *down = right_up & vertical;
    step
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The textbook's table of costs.
    pub(crate) fn by_table<T: PartialEq>(a: &[T], b: &[T]) -> usize {
        let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 0..=a.len() {
            for j in 0..=b.len() {
                table[i][j] = match (i, j) {
                    (0, _) => j,
                    (_, 0) => i,
                    _ => {
                        let change = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                        change.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1)
                    }
                };
            }
        }
        table[a.len()][b.len()]
    }

    pub(crate) fn sequence(longest: usize) -> impl Strategy<Value = Vec<u8>> {
        (1_u8..5).prop_flat_map(move |symbols| prop::collection::vec(0..symbols, 0..=longest))
    }

    #[test]
    fn examples_by_hand() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("äöü", "aöu", 2)]
        {
            assert_eq!(distance(&chars(a), &chars(b)), expected, "{a} {b}");
        }
    }

    #[test]
    fn every_short_pair_agrees_with_the_table() {
        let words: Vec<Vec<u32>> = (0..=4_u32)
            .flat_map(|n| (0..3_u32.pow(n)).map(move |code| (0..n).map(|i| code / 3_u32.pow(i) % 3).collect()))
            .collect();
        for a in &words {
            for b in &words {
                assert_eq!(distance(a, b), by_table(a, b), "{a:?} {b:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_table(a in sequence(200), b in sequence(200)) {
            prop_assert_eq!(distance(&a, &b), by_table(&a, &b));
        }

        #[test]
        fn strips_of_full_length_agree(a in prop::collection::vec(0_u8..3, 120..140),
                                       b in prop::collection::vec(0_u8..3, 120..200)) {
            prop_assert_eq!(strips(&a, &b), by_table(&a, &b));
        }

        #[test]
        fn is_a_metric(a in sequence(80), b in sequence(80), c in sequence(80)) {
            prop_assert_eq!(distance(&a, &a), 0);
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert!(distance(&a, &c) <= distance(&a, &b) + distance(&b, &c));
        }
    }
}
