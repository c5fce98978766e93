//! What of a split also stands in the texts to learn from.

use std::collections::HashSet;

use antiphon_core::Result;
use antiphon_core::random::stable_hash;

use crate::{Corpus, Example};

/// The fewest words of a line that says something if it stands in two places: shorter ones do so anyway.
const LONG: usize = 6;

/// A line of more than five words, as its letters and digits, lower-cased: `don't` and `don ' t` are alike. `None` of a shorter one.
pub(crate) fn long_line(text: &str) -> Option<String> {
    let letters = |word: &str| word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    let words: Vec<String> = text.split_whitespace().map(letters).filter(|word: &String| !word.is_empty()).collect();
    (words.len() >= LONG).then(|| words.concat())
}

/// How many examples of a split have something in common with the texts to learn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overlap {
    /// The examples of the split.
    pub examples: u64,
    /// Those whose source, in all of its streams, is that of an example to learn from; none where there are no sources.
    pub sources: u64,
    /// Those that are an example to learn from, source and target.
    pub whole: u64,
    /// Those with a line in a source, or where there are none in the text, that has more than five words and is, whatever its case and
    /// punctuation, also a line to learn from, of a source or a target.
    pub lines: u64,
}

/// What stands in the texts to learn from.
#[derive(Debug, Default)]
pub struct Known {
    sources: HashSet<u64>,
    whole: HashSet<u64>,
    lines: HashSet<u64>,
}

impl Known {
    /// What stands in a corpus.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(corpus: &Corpus) -> Result<Self> {
        let mut known = Self::default();
        for example in corpus.iter() {
            let example = example?;
            let texts = sources(&example).chain(example.targets.iter().map(String::as_str));
            known.lines.extend(texts.flat_map(long_lines));
            known.sources.insert(digest(sources(&example)));
            known.whole.insert(digest(all(&example)));
        }
        Ok(known)
    }

    /// How much of another corpus stands there too.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn overlap(&self, corpus: &Corpus) -> Result<Overlap> {
        let mut overlap = Overlap::default();
        for example in corpus.iter() {
            let example = example?;
            let has_source = example.source.is_some();
            let is_known = |text: &str| long_lines(text).any(|line| self.lines.contains(&line));
            let read: Vec<&str> = if has_source { sources(&example).collect() } else { all(&example).collect() };
            overlap.examples += 1;
            overlap.sources += u64::from(has_source && self.sources.contains(&digest(sources(&example))));
            overlap.whole += u64::from(self.whole.contains(&digest(all(&example))));
            overlap.lines += u64::from(read.into_iter().any(is_known));
        }
        Ok(overlap)
    }
}

fn sources(example: &Example) -> impl Iterator<Item = &str> {
    example.source.iter().chain(&example.further).map(String::as_str)
}

/// The sources, and the target: of several, the first.
fn all(example: &Example) -> impl Iterator<Item = &str> {
    sources(example).chain(example.targets.first().map(String::as_str))
}

fn long_lines(text: &str) -> impl Iterator<Item = u64> + '_ {
    text.split('\n').filter_map(long_line).map(|line| stable_hash(line.as_bytes()))
}

/// The digest of texts, each by itself.
fn digest<'t>(texts: impl Iterator<Item = &'t str>) -> u64 {
    // No text has a zero byte.
    stable_hash(texts.collect::<Vec<_>>().join("\0").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CorpusConfig, FurtherColumns, Split};

    fn overlap(config: &str, further: &FurtherColumns, train: &str, test: &str) -> Overlap {
        let folder = tempfile::tempdir().unwrap();
        let config: CorpusConfig = toml::from_str(config).unwrap();
        for (split, text) in [(Split::Train, train), (Split::Test, test)] {
            std::fs::write(folder.path().join(config.named_files(split).unwrap()[0].1), text).unwrap();
        }
        let open = |split| Corpus::open_with(&config, further, split, folder.path()).unwrap();
        Known::of(&open(Split::Train)).unwrap().overlap(&open(Split::Test)).unwrap()
    }

    #[test]
    fn what_stands_in_both_is_counted() {
        let none = FurtherColumns::default();
        let pairs = "kind = 'pairs'\ntrain = 'a'\ntest = 'b'";
        let train = "a\tx\nb\ty\nz\tone two three four five six\n";
        let test = "a\tx\na\ty\nc\tx\nOne, two three  four five six!\tx\nOne two three four five\tx\n";
        assert_eq!(overlap(pairs, &none, train, test), Overlap { examples: 5, sources: 2, whole: 1, lines: 1 });
        let table = "kind = 'table'\ntrain = 'a.jsonl'\ntest = 'b.jsonl'\nsource = 's'\ntarget = 't'\nhistory = {}";
        let facts = FurtherColumns { sources: vec![("facts".into(), "f".into())], kept: Vec::new() };
        let row = |s: &str, f: &str, t: &str| format!("{{\"s\": [\"hi\", \"{s}\"], \"f\": [\"{f}\"], \"t\": {t}}}\n");
        let long = "a b c d e f";
        let train = row(long, "p", "[\"x\", \"y\"]") + &row("g", "q", "\"x\"");
        // The line stands in a list, and each of several references is an example.
        let test = row(long, "r", "\"x\"") + &row(long, "p", "[\"y\", \"z\"]") + &row("g", "p", "\"x\"");
        assert_eq!(overlap(table, &facts, &train, &test), Overlap { examples: 4, sources: 2, whole: 1, lines: 3 });
        let text = "kind = 'text'\ntrain = 'a'\ntest = 'b'";
        let test = "x\nA b c d e f\n";
        assert_eq!(
            overlap(text, &none, "x\na b c d e f.\n", test),
            Overlap { examples: 2, sources: 0, whole: 1, lines: 1 }
        );
    }
}
