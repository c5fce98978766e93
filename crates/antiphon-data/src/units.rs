//! What losses are divided by, beside tokens: characters and words of the text.

/// How much text there is, whatever a tokenizer makes of it. Each line's end is a character and a word of its own, since losses
/// count the end symbol too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Units {
    /// Unicode scalar values.
    pub characters: u64,
    /// What stands between white space.
    pub words: u64,
}

impl Units {
    /// Those of a line, or a text, as it stands in its file; `is_ended`: whether its end counts.
    pub(crate) fn of(text: &str, is_ended: bool) -> Self {
        let end = u64::from(is_ended);
        Self { characters: text.chars().count() as u64 + end, words: text.split_whitespace().count() as u64 + end }
    }

    /// Takes in those of another text.
    pub(crate) fn add(&mut self, other: Self) {
        self.characters += other.characters;
        self.words += other.words;
    }
}
