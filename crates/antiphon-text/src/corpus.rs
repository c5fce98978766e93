//! What a corpus holds, counted and sorted: the ground that every training stands on.

use std::collections::{BTreeSet, HashMap};

use antiphon_core::{Error, Result, Special};

use crate::Normalization;
use crate::normalization::normalize;

/// The texts of a corpus, one after the other; reading one may fail.
pub(crate) type Texts<'a> = dyn Iterator<Item = Result<String>> + 'a;

/// Counts the units that `split` finds in each normalised text, and sorts them.
///
/// # Errors
/// If a text cannot be read, or if there is no unit at all.
pub(crate) fn count(
    texts: &mut Texts<'_>,
    steps: &[Normalization],
    mut split: impl FnMut(&str, &mut dyn FnMut(&str)),
) -> Result<Vec<(String, u64)>> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    for text in texts {
        split(&normalize(steps, &text?), &mut |unit| match counts.get_mut(unit) {
            Some(count) => *count += 1,
            None => _ = counts.insert(unit.to_string(), 1),
        });
    }
    if counts.is_empty() {
        return Err(Error::new("there is no text to train a tokenizer on; the corpus is empty or all white space"));
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable();
    Ok(counts)
}

/// Counts words, each closed by [`CLOSE`].
///
/// # Errors
/// As [`count`].
pub(crate) fn count_closed_words(texts: &mut Texts<'_>, steps: &[Normalization]) -> Result<Vec<(String, u64)>> {
    let mut counts = count(texts, steps, |text, found| text.split_whitespace().for_each(found))?;
    counts.iter_mut().for_each(|(word, _)| word.push(CLOSE));
    Ok(counts)
}

/// What closes a word inside a tokenizer of subwords. Words are split at white space, so no word can hold it, and a
/// text comes back by writing the tokens one behind the other.
pub(crate) const CLOSE: char = ' ';

/// Calls `each` with every word of `text`, closed by [`CLOSE`].
pub(crate) fn for_closed_words<E>(text: &str, mut each: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
    let mut closed = String::new();
    for word in text.split_whitespace() {
        closed.clear();
        closed.push_str(word);
        closed.push(CLOSE);
        each(&closed)?;
    }
    Ok(())
}

/// A decoded text with one space between words and none around them.
pub(crate) fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !tidy.is_empty() {
            tidy.push(' ');
        }
        tidy.push_str(word);
    }
    tidy
}

/// The units that occur at least `min_frequency` times, the most frequent first (of equal ones the smaller text), as
/// many as `max_size` has room for beside the special symbols.
///
/// # Errors
/// If none is left.
pub(crate) fn most_frequent(
    mut counts: Vec<(String, u64)>,
    min_frequency: u64,
    max_size: Option<usize>,
) -> Result<Vec<String>> {
    counts.retain(|&(_, count)| count >= min_frequency);
    if counts.is_empty() {
        let message = format!("nothing occurs {min_frequency} times in the corpus; lower `min_frequency`");
        return Err(Error::new(message));
    }
    counts.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
    if let Some(size) = max_size {
        counts.truncate(size.saturating_sub(Special::COUNT));
    }
    if counts.is_empty() {
        return Err(Error::new(format!("`max_size` must be at least {}", Special::COUNT + 1)));
    }
    Ok(counts.into_iter().map(|(unit, _)| unit).collect())
}

/// The characters of all units, sorted.
pub(crate) fn alphabet(counts: &[(String, u64)]) -> Vec<char> {
    counts.iter().flat_map(|(unit, _)| unit.chars()).collect::<BTreeSet<char>>().into_iter().collect()
}

/// Refuses a `size` that cannot hold the special symbols and the alphabet.
///
/// # Errors
/// Names the smallest size that can.
pub(crate) fn check_size(size: usize, alphabet: usize, what: &str) -> Result<()> {
    let least = Special::COUNT + alphabet;
    if size >= least {
        return Ok(());
    }
    Err(Error::new(format!(
        "`size` is {size}, but {} special symbols and {alphabet} {what} need at least {least}; raise `size`",
        Special::COUNT
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &'static [&'static str]) -> impl Iterator<Item = Result<String>> {
        lines.iter().map(|line| Ok((*line).to_string()))
    }

    #[test]
    fn words_are_counted_after_normalisation_and_sorted() {
        let counts = count_closed_words(&mut texts(&["b A", "a  c\tb", ""]), &[Normalization::Lowercase]).unwrap();
        assert_eq!(counts, [("a ".into(), 2), ("b ".into(), 2), ("c ".into(), 1)]);
        assert_eq!(alphabet(&counts), [' ', 'a', 'b', 'c']);
    }

    #[test]
    fn the_most_frequent_come_first_and_ties_are_sorted() {
        let counts = || vec![("a".into(), 1), ("b".into(), 3), ("c".into(), 3), ("d".into(), 2)];
        assert_eq!(most_frequent(counts(), 2, None).unwrap(), ["b", "c", "d"]);
        assert_eq!(most_frequent(counts(), 1, Some(6)).unwrap(), ["b", "c"]);
        assert!(most_frequent(counts(), 4, None).unwrap_err().to_string().contains("`min_frequency`"));
        assert!(most_frequent(counts(), 1, Some(4)).unwrap_err().to_string().contains("`max_size`"));
    }

    #[test]
    fn an_empty_corpus_and_an_unreadable_one_are_errors() {
        let error = count_closed_words(&mut texts(&["", " \t"]), &[]).unwrap_err();
        assert!(error.to_string().contains("corpus is empty"), "{error}");
        let mut broken = [Ok("a".to_string()), Err(Error::new("broken").at(antiphon_core::Place::line(2)))].into_iter();
        assert_eq!(count_closed_words(&mut broken, &[]).unwrap_err().to_string(), "line 2: broken");
    }
}
