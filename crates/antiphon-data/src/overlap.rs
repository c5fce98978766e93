//! What of a split also stands in the texts to learn from.

/// The fewest words of a line that says something if it stands in two places: shorter ones do so anyway.
const LONG: usize = 6;

/// A line of more than five words, its words lower-cased and without the punctuation around them; `None` of a shorter one.
pub(crate) fn long_line(text: &str) -> Option<String> {
    let words = text.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase());
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    (words.len() >= LONG).then(|| words.join(" "))
}
