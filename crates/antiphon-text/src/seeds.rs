//! The pieces that Unigram begins with: every character, and every substring that repeats.

/// A word as characters, and how often it occurs.
pub(crate) type Word = (Vec<char>, u64);

/// No more substrings than this are tried; those that cover the most characters go first.
const MOST: usize = 1_000_000;

/// The single characters of `words`, sorted, then the repeated substrings of at most `longest` characters, those that
/// cover the most characters first; each with the characters that it covers (occurrences times length).
///
/// A substring that is always followed by the same character is left out: the longer one says it all.
pub(crate) fn seeds(words: &[Word], longest: usize) -> Vec<(Vec<char>, u64)> {
    let mut single = std::collections::BTreeMap::new();
    for (word, count) in words {
        for &character in word {
            *single.entry(character).or_default() += count;
        }
    }
    let mut substrings = repeated(words, longest);
    substrings.sort_unstable_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
    substrings.truncate(MOST);
    single.into_iter().map(|(character, count)| (vec![character], count)).chain(substrings).collect()
}

/// Substrings of 2 to `longest` characters that occur at least twice, from a sorted list of all suffixes: those that
/// begin with the same substring stand together.
fn repeated(words: &[Word], longest: usize) -> Vec<(Vec<char>, u64)> {
    let mut suffixes: Vec<(&[char], u64)> = words
        .iter()
        .flat_map(|(word, count)| (0..word.len()).map(|at| (&word[at..word.len().min(at + longest)], *count)))
        .collect();
    suffixes.sort_unstable();
    // How many characters a suffix has in common with the one before it.
    let common: Vec<usize> = std::iter::once(0)
        .chain(suffixes.windows(2).map(|two| two[0].0.iter().zip(two[1].0).take_while(|(a, b)| a == b).count()))
        .collect();
    let mut found = Vec::new();
    for length in 2..=longest {
        let mut start = 0;
        while start < suffixes.len() {
            let end = start + 1 + common[start + 1..].iter().take_while(|&&n| n >= length).count();
            let first = suffixes[start].0;
            if first.len() >= length {
                let always_goes_on = first.len() > length && common[start + 1..end].iter().all(|&n| n > length);
                let frequency: u64 = suffixes[start..end].iter().map(|(_, count)| count).sum();
                if frequency >= 2 && !always_goes_on {
                    found.push((first[..length].to_vec(), frequency * length as u64));
                }
            }
            start = end;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_substrings_are_found_once_with_what_they_cover() {
        let words: Vec<Word> = [("abab", 1), ("bad", 3)].iter().map(|(w, n)| (w.chars().collect(), *n)).collect();
        let seeds: Vec<(String, u64)> = seeds(&words, 3).into_iter().map(|(s, n)| (s.iter().collect(), n)).collect();
        let expected = [
            ("a", 5),
            ("b", 5),
            ("d", 3),
            ("bad", 9), // `ba` occurs four times: once not before `d`
            ("ba", 8),
            ("ad", 6),
            ("ab", 4), // before `a` and at the end
        ];
        assert_eq!(seeds, expected.map(|(s, n)| (s.to_string(), n)));
    }
}
