//! Answers apart by what they are about.

use std::collections::BTreeMap;

use antiphon_core::Judged;

/// The answers of each value of a column, the value with the most answers first; of as many, the smaller text. An answer that has
/// several values is among those of each; one that has none is left out.
///
/// ```
/// use antiphon_core::Judged;
/// let about = |value: &str| Judged {
///     columns: [("case".into(), vec![value.into()])].into(),
///     ..Judged::new("a", ["b"])
/// };
/// let found = antiphon_eval::by_value(&[about("acc"), about("nom"), about("nom")], "case");
/// let counts: Vec<(&str, usize)> = found.iter().map(|(value, answers)| (value.as_str(), answers.len())).collect();
/// assert_eq!(counts, [("nom", 2), ("acc", 1)]);
/// ```
pub fn by_value(answers: &[Judged], column: &str) -> Vec<(String, Vec<Judged>)> {
    let mut found: BTreeMap<&str, Vec<Judged>> = BTreeMap::new();
    for answer in answers {
        for value in answer.columns.get(column).into_iter().flatten() {
            found.entry(value).or_default().push(answer.clone());
        }
    }
    let mut found: Vec<_> = found.into_iter().map(|(value, answers)| (value.to_owned(), answers)).collect();
    // Stable: of as many, the order stays that of their texts.
    found.sort_by_key(|(_, answers)| std::cmp::Reverse(answers.len()));
    found
}
