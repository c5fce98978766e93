//! Learning which pairs to merge: byte pair encoding (Sennrich, Haddow and Birch 2016, algorithm 1).
//!
//! Again and again the most frequent pair of neighbouring symbols becomes a symbol of its own. Of equally frequent
//! pairs the one with the smaller ids goes first, so the order of a hash map never shows.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Two neighbouring symbols, as places in the list of tokens.
pub(crate) type Pair = (u32, u32);

/// Stands before a token that does not begin a word, where a model tells the two apart (WordPiece). No token of a text
/// can hold it, since words are split at white space.
pub(crate) const INSIDE: char = '\n';

/// The text of two tokens that became one.
pub(crate) fn joined(left: &str, right: &str) -> String {
    format!("{left}{}", right.strip_prefix(INSIDE).unwrap_or(right))
}

/// Longer words are cut here for learning, so that one endless line costs no more than its length.
const LONGEST_WORD: usize = 256;

/// Merges pairs until there are `size` tokens or no pair occurs `min_frequency` times. Appends each new token to
/// `tokens` and returns the merges in the order in which they were learned.
///
/// `words` are symbols (places in `tokens`) with their counts. Two merges may make the same token.
pub(crate) fn learn(
    words: Vec<(Vec<u32>, u64)>,
    tokens: &mut Vec<String>,
    size: usize,
    min_frequency: u64,
) -> Vec<Pair> {
    let mut ids: HashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
    let mut words: Vec<(Vec<u32>, u64)> = words
        .into_iter()
        .flat_map(|(word, count)| word.chunks(LONGEST_WORD).map(|part| (part.to_vec(), count)).collect::<Vec<_>>())
        .collect();

    let mut counts: HashMap<Pair, u64> = HashMap::new();
    let mut places: HashMap<Pair, Vec<u32>> = HashMap::new();
    for ((word, count), place) in words.iter().zip(0..) {
        for pair in pairs(word) {
            *counts.entry(pair).or_default() += count;
            places.entry(pair).or_default().push(place);
        }
    }
    // A heap of distinct, totally ordered entries: in which order they come in makes no difference.
    let mut queue: BinaryHeap<(u64, Reverse<Pair>)> = counts.iter().map(|(&pair, &n)| (n, Reverse(pair))).collect();

    let (mut merges, mut merged) = (Vec::new(), HashSet::new());
    while tokens.len() < size {
        let Some((count, Reverse(pair))) = queue.pop() else { break };
        let now = counts[&pair];
        if now != count {
            // An old entry. If the count fell there is no newer one; if it rose there is.
            if now < count && now > 0 {
                queue.push((now, Reverse(pair)));
            }
            continue;
        }
        if count < min_frequency.max(1) {
            break;
        }
        let text = joined(&tokens[pair.0 as usize], &tokens[pair.1 as usize]);
        let token = *ids.entry(text).or_insert_with_key(|text| {
            tokens.push(text.clone());
            tokens.len() as u32 - 1
        });
        if merged.insert(pair) {
            merges.push(pair);
        }
        let mut risen = Vec::new();
        for place in places.remove(&pair).unwrap_or_default() {
            let (word, count) = &mut words[place as usize];
            if !pairs(word).any(|other| other == pair) {
                continue; // the word held the pair twice and is done
            }
            for old in pairs(word) {
                *counts.get_mut(&old).expect("every pair of a word is counted") -= *count;
            }
            merge(word, pair, token);
            for new in pairs(word) {
                *counts.entry(new).or_default() += *count;
                if new.0 == token || new.1 == token {
                    places.entry(new).or_default().push(place);
                    risen.push(new);
                }
            }
        }
        risen.sort_unstable();
        risen.dedup();
        queue.extend(risen.into_iter().map(|pair| (counts[&pair], Reverse(pair))));
    }
    merges
}

fn pairs(word: &[u32]) -> impl Iterator<Item = Pair> {
    word.windows(2).map(|two| (two[0], two[1]))
}

/// Replaces each `pair` of a word, from the left, by `token`.
fn merge(word: &mut Vec<u32>, pair: Pair, token: u32) {
    let (mut read, mut write) = (0, 0);
    while read < word.len() {
        let found = word.get(read + 1).is_some_and(|&next| (word[read], next) == pair);
        word[write] = if found { token } else { word[read] };
        read += if found { 2 } else { 1 };
        write += 1;
    }
    word.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Learns over characters and returns the merges as text.
    fn learned(words: &[(&str, u64)], size: usize, min_frequency: u64) -> Vec<String> {
        let counts: Vec<(String, u64)> = words.iter().map(|&(word, count)| (word.to_string(), count)).collect();
        let alphabet = crate::corpus::alphabet(&counts);
        let symbols = |word: &str| word.chars().map(|c| alphabet.binary_search(&c).unwrap() as u32).collect();
        let words = words.iter().map(|&(word, count)| (symbols(word), count)).collect();
        let mut tokens = alphabet.iter().map(char::to_string).collect();
        let merges = learn(words, &mut tokens, size, min_frequency);
        merges.iter().map(|&(a, b)| format!("{}+{}", tokens[a as usize], tokens[b as usize])).collect()
    }

    #[test]
    fn the_example_of_the_paper() {
        // Sennrich et al. 2016, section 3.2 ("low", "lower", "newest", "widest"), worked by hand: `es`, `st` and `t_`
        // each occur nine times and go by the smaller ids, `est_` nine times too; then `lo` occurs seven times.
        let words = [("low_", 5), ("lower_", 2), ("newest_", 6), ("widest_", 3)];
        assert_eq!(learned(&words, 11 + 4, 1), ["e+s", "t+_", "es+t_", "l+o"]);
    }

    #[test]
    fn a_run_is_merged_from_the_left_and_counted_as_it_stands() {
        assert_eq!(learned(&[("aaaaa", 1)], 10, 1), ["a+a", "aa+a", "aa+aaa"]);
    }

    #[test]
    fn rare_pairs_are_not_merged() {
        assert_eq!(learned(&[("ab", 3), ("cd", 2)], 10, 3), ["a+b"]);
        assert_eq!(learned(&[("ab", 3)], 10, 4), [""; 0]);
    }

    #[test]
    fn a_marked_token_loses_its_mark() {
        assert_eq!(joined("a", "\nb"), "ab");
        assert_eq!(joined("\na", "\nb"), "\nab");
        assert_eq!(joined("a", " "), "a ");
    }

    #[test]
    fn an_endless_word_is_no_trap() {
        let word: String = (0..100_000_u64).map(|i| char::from(b'a' + (i * i % 7) as u8)).collect();
        assert!(!learned(&[(&word, 1)], 40, 1).is_empty());
    }
}
