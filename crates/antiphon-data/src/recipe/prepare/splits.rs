//! Splits that are being written.

use std::collections::HashSet;

use crate::recipe::files::Output;

/// `name` below the folder `into`, which may be empty.
pub(super) fn below(into: &str, name: &str) -> String {
    if into.is_empty() { name.into() } else { format!("{into}/{name}") }
}

/// A split that is being written as `source<TAB>target`.
pub(super) struct Pairs {
    /// Its file without `.tsv`.
    name: String,
    text: String,
    pairs: usize,
    sources: HashSet<String>,
}

impl Pairs {
    /// `name` is that of the split, `into` the folder that it is written to, below the prepared one.
    pub(super) fn new(into: &str, name: &str) -> Self {
        Self { name: below(into, name), text: String::new(), pairs: 0, sources: HashSet::new() }
    }

    /// Train, validation and test.
    pub(super) fn three(into: &str) -> [Self; 3] {
        ["train", "validation", "test"].map(|name| Self::new(into, name))
    }

    pub(super) fn push(&mut self, source: &str, target: &str) {
        self.text += &format!("{source}\t{target}\n");
        self.pairs += 1;
        self.sources.insert(source.to_string());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pairs == 0
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn finish(self, log: &mut dyn FnMut(&str)) -> Output {
        log(&format!("{}: {} pairs of {} sources", self.name, self.pairs, self.sources.len()));
        Output { name: format!("{}.tsv", self.name), bytes: self.text.into_bytes() }
    }
}
