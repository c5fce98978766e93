//! Answers apart by what they are about.

use std::collections::BTreeMap;

/// Which answers have each value of a column, counted from 0, the value with the most answers first; of as many, the smaller text.
/// `values` are those of each answer: one that has several is among those of each, one that has none is left out.
///
/// ```
/// let values = [vec!["acc".to_owned()], vec!["nom".to_owned()], vec![], vec!["acc".to_owned(), "nom".to_owned()]];
/// let found = antiphon_eval::by_value(values.iter().map(Vec::as_slice));
/// assert_eq!(found, [("acc", vec![0, 3]), ("nom", vec![1, 3])]);
/// ```
pub fn by_value<'v>(values: impl Iterator<Item = &'v [String]>) -> Vec<(&'v str, Vec<usize>)> {
    let mut found: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, values) in values.enumerate() {
        for value in values {
            found.entry(value).or_default().push(i);
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    // Stable: of as many, the order stays that of their texts.
    found.sort_by_key(|(_, answers)| std::cmp::Reverse(answers.len()));
    found
}
