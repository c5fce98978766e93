//! The word that somebody may have meant.

/// The nearest of some words, if it is near: a third of its letters may differ. `-` stands for `_`, and capitals for small
/// letters.
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bare = |word: &str| word.to_lowercase().replace('-', "_");
    let wrong = bare(word);
    words
        .into_iter()
        .map(|right| (strsim::damerau_levenshtein(&wrong, &bare(right)), right))
        .filter(|(distance, right)| *distance <= (right.chars().count().max(wrong.chars().count()) / 3).max(1))
        .filter(|(distance, right)| *distance < right.chars().count())
        .min()
        .map(|(_, right)| right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_words_are_proposed() {
        let words = ["hidden", "layers", "lr", "dropout"];
        assert_eq!(nearest("hiden", words), Some("hidden"));
        assert_eq!(nearest("Drop-out", words), Some("dropout"));
        assert_eq!(nearest("rl", words), Some("lr"));
        assert_eq!(nearest("optimizer", words), None);
        assert_eq!(nearest("x", ["y"]), None);
    }
}
