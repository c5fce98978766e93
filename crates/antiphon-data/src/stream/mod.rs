//! Running text as ids: a corpus that is read on from batch to batch.
//!
//! All lines are encoded once, in parallel, and kept as they follow upon each other. A [`Cut`] says how many parts are read side by
//! side, and how far a step goes; [`Steps`] are the places that each step reads.

mod ids;
mod steps;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use antiphon_core::{Batch, Error, Place, Result, Special, Target, TokenId, Tokenizer};
use rayon::prelude::*;

pub use steps::{Beginning, Cut, Step, Steps, Stretch};

use crate::Units;
use crate::corpus::{Corpus, Documents};
use ids::{Ids, Writer};

/// How many bytes of text are encoded before their ids are written down; of a line that is longer, all of them.
const BLOCK: u64 = 1 << 24;
/// How many bytes of ids stay in memory. What is more goes into a temporary file.
const MEMORY: usize = 1 << 28;

/// A split of a running text, ready to be read on.
///
/// Ids take two bytes each, or four where the vocabulary has more than 65,536. Up to 256 MiB of them stay in memory; a longer text
/// lies in an unnamed temporary file, of which no more is in memory than the batches at work.
pub struct Stream {
    corpus: Arc<Corpus>,
    ids: Ids,
    /// Where documents begin, in order; the first is 0.
    documents: Arc<[u64]>,
    /// For each file, the token and the line among all with which it begins.
    files: Vec<(u64, usize)>,
    /// How often each id occurs.
    counts: Vec<u64>,
    units: Units,
}

/// A line as ids.
struct Encoded {
    ids: Vec<TokenId>,
    units: Units,
    is_blank: bool,
}

impl Stream {
    /// Encodes every line, on all threads.
    ///
    /// # Errors
    /// If a line cannot be encoded or read, or there is no room for the ids.
    pub fn new(corpus: Arc<Corpus>, tokenizer: &dyn Tokenizer, documents: Documents) -> Result<Stream> {
        Self::with_memory(corpus, tokenizer, documents, MEMORY)
    }

    fn with_memory(
        corpus: Arc<Corpus>,
        tokenizer: &dyn Tokenizer,
        documents: Documents,
        memory: usize,
    ) -> Result<Stream> {
        let room = |error: Error| error.in_file(corpus.path());
        let mut writer = Writer::new(tokenizer.size(), memory);
        let (mut begins, mut files) = (vec![0], Vec::new());
        let (mut counts, mut units) = (vec![0; tokenizer.size()], Units::default());
        let (mut at, mut after_blank, mut last_file) = (0_u64, false, None);
        for block in blocks(&corpus) {
            let lines: Vec<Result<Encoded>> =
                block.clone().into_par_iter().map(|i| encode(&corpus, tokenizer, i)).collect();
            for (i, line) in block.zip(lines) {
                let Encoded { ids, units: own, is_blank } = line?;
                let file = corpus.file_of(i);
                let new_file = last_file.replace(file) != Some(file);
                if new_file {
                    files.push((at, i));
                }
                let begins_document = match documents {
                    Documents::None => false,
                    Documents::Files => new_file,
                    Documents::BlankLines => new_file || after_blank && !is_blank,
                };
                // A line may have no tokens, and a text may begin with blank ones.
                if begins_document && begins.last() != Some(&at) {
                    begins.push(at);
                }
                after_blank = is_blank;
                ids.iter().for_each(|&id| counts[id as usize] += 1);
                at += ids.len() as u64;
                units.add(own);
                writer.write(&ids).map_err(room)?;
            }
        }
        // A document begins with a token.
        begins.retain(|&begin| begin == 0 || begin < at);
        let ids = writer.finish().map_err(room)?;
        Ok(Stream { corpus, ids, documents: begins.into(), files, counts, units })
    }

    /// How many tokens.
    pub fn len(&self) -> u64 {
        self.ids.len()
    }

    /// Whether there is no token: a tokenizer may make none of a text.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    /// Where the text comes from.
    pub fn corpus(&self) -> &Arc<Corpus> {
        &self.corpus
    }

    /// How often each id of the vocabulary occurs.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many tokens the tokenizer does not know.
    pub fn unknown(&self) -> u64 {
        self.counts[Special::Unknown.id() as usize]
    }

    /// How much text it is.
    pub fn units(&self) -> Units {
        self.units
    }

    /// That there is something to learn from with this cut.
    ///
    /// # Errors
    /// If there is less than one whole step, or one and the same token throughout.
    pub fn check_training(&self, rows: usize, length: usize) -> Result<()> {
        let refuse = |message: String| Err(Error::new(message).in_file(self.corpus.path()));
        let (tokens, step) = (self.len(), rows as u64 * length as u64);
        if tokens < step {
            return refuse(format!(
                "the text has {tokens} tokens, fewer than the {step} of one step: lower data.rows = {rows} or data.length = \
                 {length}, or give more text"
            ));
        }
        if self.counts.iter().filter(|&&count| count > 0).count() < 2 {
            return refuse("one token throughout: there is nothing to learn from such a text".into());
        }
        Ok(())
    }

    /// The steps in which it is read.
    pub fn steps(&self, cut: &Cut) -> Steps {
        Steps::new(self.len(), Arc::clone(&self.documents), cut)
    }

    /// The ids of some places.
    ///
    /// # Errors
    /// If a temporary file that holds them cannot be read.
    ///
    /// # Panics
    /// If a place is beyond the end.
    pub fn ids(&self, places: Range<u64>) -> Result<Vec<TokenId>> {
        self.ids.read(places)
    }

    /// The file and the line, counted from 1, in which a token stands.
    ///
    /// # Errors
    /// As [`ids`](Self::ids).
    pub fn place(&self, token: u64) -> Result<(&Path, usize)> {
        let (begin, line) = self.files[self.files.partition_point(|&(begin, _)| begin <= token) - 1];
        let (mut ends, mut at) = (0, begin);
        while at < token {
            let until = token.min(at + (1 << 20));
            ends += self.ids(at..until)?.into_iter().filter(|&id| id == Special::End.id()).count();
            at = until;
        }
        Ok(self.corpus.place(line + ends))
    }

    /// What a step reads. [`Batch::examples`] are the places of its rows' first tokens.
    ///
    /// # Errors
    /// As [`ids`](Self::ids).
    pub fn batch(&self, step: &[Stretch]) -> Result<Batch> {
        let row = |stretch: &Stretch| {
            let Stretch { start, length, beginning } = *stretch;
            let end = start + u64::from(length);
            match beginning {
                Beginning::Document => Ok([vec![Special::Begin.id()], self.ids(start..end)?].concat()),
                Beginning::Window | Beginning::None => self.ids(start - 1..end),
            }
        };
        let rows = step.iter().map(row).collect::<Result<Vec<_>>>()?;
        Ok(Batch {
            sources: Vec::new(),
            target: Target::stretch(&rows),
            continues: step.iter().map(|stretch| stretch.beginning == Beginning::None).collect(),
            examples: step.iter().map(|stretch| stretch.start as usize).collect(),
            copies: None,
        })
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("corpus", &self.corpus.path()).field("len", &self.len()).finish_non_exhaustive()
    }
}

/// All lines, in blocks.
fn blocks(corpus: &Corpus) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (start, mut bytes) = (at, 0);
        while at < corpus.len() && (at == start || bytes + corpus.bytes(at) <= BLOCK) {
            bytes += corpus.bytes(at);
            at += 1;
        }
        (at > start).then_some(start..at)
    })
}

/// Line `i` as ids, closed by [`Special::End`] if it has a line end.
fn encode(corpus: &Corpus, tokenizer: &dyn Tokenizer, i: usize) -> Result<Encoded> {
    let text = corpus.get(i)?.targets.swap_remove(0);
    let named = |error: Error| {
        let (file, line) = corpus.place(i);
        error.at(Place::line(line)).in_file(file)
    };
    let (mut ids, is_ended) = (tokenizer.encode(&text).map_err(named)?, corpus.is_ended(i));
    if is_ended {
        ids.push(Special::End.id());
    }
    Ok(Encoded { ids, units: Units::of(&text, is_ended), is_blank: text.trim().is_empty() })
}
