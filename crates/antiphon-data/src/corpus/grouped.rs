//! A corpus for evaluation: what counts as right for each source.

use std::collections::HashMap;

use antiphon_core::Result;

use super::{Corpus, Example, References};

/// Each source once, in the order in which they first appear, with all its references.
///
/// Lines of `source<TAB>target`, and rows of a table, with the same source are grouped, wherever they stand and whatever
/// normalization makes equal; the source is written as in the first. A reference that is repeated counts once. Where each row is answered by
/// itself, a group is a row with its references. The lines of parallel files and
/// of texts are kept apart even where they are equal: their references are the files.
#[derive(Debug)]
pub struct Grouped<'a> {
    corpus: &'a Corpus,
    /// The examples of each source; empty where every example is a group of its own.
    groups: Option<Vec<Vec<u32>>>,
    /// What counts as right instead of the corpus's own targets.
    references: Option<References>,
}

/// What the model sees of a source, by its number among the sources of an example, and its text.
type Normalized<'n> = &'n dyn Fn(usize, &str) -> String;

impl<'a> Grouped<'a> {
    pub(super) fn new(corpus: &'a Corpus, normalized: Option<Normalized<'_>>) -> Result<Self> {
        let Some(normalized) = normalized else {
            return Ok(Self { corpus, groups: corpus.examples_of_rows(), references: None });
        };
        let mut groups: Vec<Vec<u32>> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        for (i, example) in corpus.iter().enumerate() {
            let Example { source, further, candidates, .. } = example?;
            let texts = source.iter().chain(&further).enumerate();
            // No text has a zero byte.
            let texts = texts.map(|(k, text)| normalized(k, text));
            // Who may choose among others is asked something else.
            let source = texts.chain(candidates).collect::<Vec<_>>().join("\0");
            let group = *known.entry(source).or_insert(groups.len());
            if group == groups.len() {
                groups.push(Vec::with_capacity(1));
            }
            groups[group].push(i as u32);
        }
        Ok(Self { corpus, groups: Some(groups), references: None })
    }

    /// The same sources, judged by these instead of the corpus's own targets.
    #[must_use]
    pub fn judged_by(self, references: References) -> Self {
        Self { references: Some(references), ..self }
    }

    /// How many sources.
    pub fn len(&self) -> usize {
        self.groups.as_ref().map_or(self.corpus.len(), Vec::len)
    }

    /// Never true: a corpus has at least one example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Source `i`, which must be below [`len`](Self::len), with its references; the line is that of the first.
    ///
    /// # Errors
    /// As [`Corpus::get`].
    pub fn get(&self, i: usize) -> Result<Example> {
        let Some(groups) = &self.groups else { return self.example(i) };
        let mut example = self.example(groups[i][0] as usize)?;
        let first = std::mem::take(&mut example.targets);
        add_new(&mut example.targets, first);
        for &other in &groups[i][1..] {
            let Example { targets, kept, .. } = self.example(other as usize)?;
            add_new(&mut example.targets, targets);
            example.kept.iter_mut().zip(kept).for_each(|(all, more)| add_new(all, more));
        }
        Ok(example)
    }

    /// An example of the corpus, with what counts as right.
    fn example(&self, i: usize) -> Result<Example> {
        let example = self.corpus.get(i)?;
        Ok(match &self.references {
            Some(references) => Example { targets: references.of(self.corpus.row_of(i))?, ..example },
            None => example,
        })
    }

    /// All sources, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<Example>> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }
}

/// Adds what is not there yet.
pub(super) fn add_new(all: &mut Vec<String>, more: Vec<String>) {
    for text in more {
        if !all.contains(&text) {
            all.push(text);
        }
    }
}
