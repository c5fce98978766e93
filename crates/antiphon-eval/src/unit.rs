//! What an edit changes: a word or a character.

use serde::{Deserialize, Serialize};

/// The unit of an edit distance between texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// What stands between white space: words, or phones written apart.
    Word,
    /// Unicode scalar values. A run of white space counts as one space, at either end as none.
    Character,
}

impl Unit {
    /// The units of `text`, in order.
    pub fn split(self, text: &str) -> Vec<&str> {
        let words = text.split_whitespace();
        match self {
            Unit::Word => words.collect(),
            Unit::Character => {
                let mut units = Vec::with_capacity(text.len());
                for word in words {
                    if !units.is_empty() {
                        units.push(" ");
                    }
                    units.extend(word.char_indices().map(|(at, c)| &word[at..at + c.len_utf8()]));
                }
                units
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_parts_words_and_counts_once() {
        assert_eq!(Unit::Word.split(" añb \t c\n"), ["añb", "c"]);
        assert_eq!(Unit::Character.split(" añb \t c\n"), ["a", "ñ", "b", " ", "c"]);
        assert!(Unit::Word.split(" ").is_empty() && Unit::Character.split(" ").is_empty());
    }
}
