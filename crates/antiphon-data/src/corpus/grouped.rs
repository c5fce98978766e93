//! A corpus for evaluation: what counts as right for each source.

use std::collections::HashMap;

use antiphon_core::Result;

use super::{Corpus, Example};

/// Each source once, in the order in which they first appear, with all its references.
///
/// Lines of `source<TAB>target` with the same source are grouped, wherever they stand; a reference that is repeated
/// counts once. The lines of parallel files and of texts are kept apart even where they are equal: their references
/// are the files.
#[derive(Debug)]
pub struct Grouped<'a> {
    corpus: &'a Corpus,
    /// The examples of each source; empty where every example is a group of its own.
    groups: Option<Vec<Vec<u32>>>,
}

impl<'a> Grouped<'a> {
    pub(super) fn new(corpus: &'a Corpus, by_source: bool) -> Result<Self> {
        if !by_source {
            return Ok(Self { corpus, groups: None });
        }
        let mut groups: Vec<Vec<u32>> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        for (i, example) in corpus.iter().enumerate() {
            let group = *known.entry(example?.source.unwrap_or_default()).or_insert(groups.len());
            if group == groups.len() {
                groups.push(Vec::with_capacity(1));
            }
            groups[group].push(i as u32);
        }
        Ok(Self { corpus, groups: Some(groups) })
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
        let Some(groups) = &self.groups else { return self.corpus.get(i) };
        let mut example = self.corpus.get(groups[i][0] as usize)?;
        for &other in &groups[i][1..] {
            for target in self.corpus.get(other as usize)?.targets {
                if !example.targets.contains(&target) {
                    example.targets.push(target);
                }
            }
        }
        Ok(example)
    }

    /// All sources, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<Example>> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }
}
