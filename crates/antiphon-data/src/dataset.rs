//! A corpus with its tokenizers: how long each example is, and batches of ids.

use std::fmt;
use std::sync::Arc;

use antiphon_core::{
    Batch, CopyBatch, Error, FrameBatch, Frames, Place, Problem, Result, SourceBatch, Special, Target, TokenBatch,
    TokenId, Tokenizer, steps_of_path,
};
use rayon::prelude::*;

use crate::Units;
use crate::copying::Copying;
use crate::corpus::{Corpus, Example, Gaps, Limits, Remedy};
use crate::kept::Kept;
use crate::lines::{Fault, LISTED, Skipped, listed};

/// How many ids an example has, each side with its end symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lengths {
    /// 0 if there is no source; further sources are not counted. Of a recording the number of its frames.
    pub source: u32,
    /// Those of the target; of several, the first.
    pub target: u32,
}

/// A split of a corpus, ready to be cut into batches. The ids of its texts are kept in memory, up to 64 MiB of them; where they are
/// more, or beside recordings, text stays on disk and is encoded anew for every batch.
pub struct Dataset {
    corpus: Arc<Corpus>,
    source: Option<Arc<dyn Tokenizer>>,
    further: Vec<FurtherSource>,
    target: Arc<dyn Tokenizer>,
    /// What is copied; `None`: nothing.
    copying: Option<Copying>,
    lengths: Vec<Lengths>,
    gaps: Gaps,
    skipped: Skipped,
    unknown: Unknown,
    further_tokens: Vec<FurtherTokens>,
    /// How many examples have a history that was cut.
    cut: u64,
    units: Units,
    /// The ids of its examples, unless they are too many.
    kept: Option<Kept>,
}

/// A source beside the first.
#[derive(Clone)]
pub struct FurtherSource {
    /// The name of its stream.
    pub name: String,
    /// What makes ids of its text.
    pub tokenizer: Arc<dyn Tokenizer>,
}

/// Another model that reads the sources of a corpus: how, and how long they may be for it.
#[derive(Clone)]
pub struct Reader {
    /// The tokenizers of its sources; none of a recording.
    pub sources: Vec<Arc<dyn Tokenizer>>,
    /// Its limits.
    pub limits: Limits,
}

impl Reader {
    /// What of an example is too long for it, if anything is. `target`: the tokens of its target without their end symbol.
    ///
    /// # Errors
    /// If a text cannot be encoded.
    pub fn fault(&self, corpus: &Corpus, example: &Example, target: usize) -> Result<Option<Fault>> {
        let frames = corpus.frames().zip(example.recording).map(|(frames, recording)| frames.frames(recording));
        let texts = example.source.iter().chain(&example.further).filter(|_| frames.is_none());
        let further = example.further.iter().filter(|_| frames.is_some());
        let tokens = self.sources.iter().zip(texts.chain(further)).map(|(tokenizer, text)| {
            let ids = tokenizer.encode(text);
            Ok(ids.map_err(|e| e.at(Place::line(example.line)).in_file(corpus.path()))?.len())
        });
        let tokens: Vec<usize> = tokens.collect::<Result<_>>()?;
        let within = match frames {
            Some(frames) => self.limits.check_frames(frames).and_then(|()| self.limits.check_further(tokens)),
            None => self.limits.check_sources(tokens),
        };
        Ok(within.and_then(|()| self.limits.check_target(target)).err())
    }
}

/// The tokens of a further source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FurtherTokens {
    /// All of them, end symbols included.
    pub tokens: u64,
    /// Those that its tokenizer does not know.
    pub unknown: u64,
}

/// An example, measured.
struct Measured {
    lengths: Lengths,
    unknown: Unknown,
    further: Vec<FurtherTokens>,
    units: Units,
    /// Whether its history was cut.
    is_cut: bool,
    /// As [`Dataset::rows`] has them.
    rows: Vec<Vec<TokenId>>,
    line: usize,
    /// What is too long for other readers.
    fault: Option<Fault>,
}

/// What the tokenizers do not know of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unknown {
    /// Unknown tokens of the sources.
    pub source: u64,
    /// Unknown tokens of the targets, but for those that can be copied.
    pub target: u64,
    /// Unknown tokens of the targets that can be copied.
    pub copied: u64,
}

/// How many examples are encoded before their lengths are collected.
const BLOCK: usize = 1 << 12;

impl Dataset {
    /// Encodes every example once, on all threads, to learn the lengths. `further` are the sources that the corpus was
    /// opened with beside the first, in their order.
    ///
    /// # Errors
    /// If the corpus has sources and there is no tokenizer for them (or the reverse), an example is over the limits
    /// (unless they say `skip`), none is left, a text cannot be encoded, or the corpus cannot be read.
    pub fn new(
        corpus: Arc<Corpus>,
        source: Option<Arc<dyn Tokenizer>>,
        further: Vec<FurtherSource>,
        target: Arc<dyn Tokenizer>,
        limits: &Limits,
    ) -> Result<Dataset> {
        Self::for_readers(corpus, source, further, target, None, limits, &[])
    }

    /// The same with what is copied, of examples that are within the limits of other readers too.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if words are to be copied where tokens are none.
    pub fn for_readers(
        corpus: Arc<Corpus>,
        source: Option<Arc<dyn Tokenizer>>,
        further: Vec<FurtherSource>,
        target: Arc<dyn Tokenizer>,
        copying: Option<Copying>,
        limits: &Limits,
        others: &[Reader],
    ) -> Result<Dataset> {
        let mismatch = |message: &str| Err(Error::new(message).in_file(corpus.path()));
        match (corpus.has_source() && !corpus.is_spoken(), source.is_some()) {
            (true, false) => {
                return mismatch("the corpus has sources: give it a source tokenizer, or use `kind = \"text\"`");
            }
            (false, true) if corpus.is_spoken() => {
                return mismatch("recordings have no text: give no source tokenizer");
            }
            (false, true) => return mismatch("a text corpus has no sources: use `kind = \"pairs\"` or `\"parallel\"`"),
            _ => {}
        }
        if corpus.is_spoken() && copying.is_some() {
            return mismatch("recordings have no words that could be copied");
        }
        if corpus.is_spoken() && corpus.frames().is_none() {
            return mismatch("nobody has listened to the recordings: give their frames");
        }
        let mut dataset = Dataset {
            corpus,
            source,
            further_tokens: vec![FurtherTokens::default(); further.len()],
            further,
            target,
            copying,
            cut: 0,
            lengths: Vec::new(),
            gaps: Gaps::default(),
            skipped: Skipped::default(),
            unknown: Unknown::default(),
            units: Units::default(),
            kept: None,
        };
        let sources = dataset.sources();
        let sides = sources + 1 + dataset.copying.as_ref().map_or(0, |_| sources + 1);
        let mut kept = (!dataset.corpus.is_spoken()).then(|| Kept::new(sides));
        let (mut too_long, mut messages, mut left_out) = (0, Vec::new(), Vec::new());
        for start in (0..dataset.corpus.len()).step_by(BLOCK) {
            let end = dataset.corpus.len().min(start + BLOCK);
            let block: Vec<Result<Measured>> =
                (start..end).into_par_iter().map(|i| dataset.measure(&dataset.corpus.get(i)?, others)).collect();
            for (i, measured) in (start..).zip(block) {
                let Measured { lengths, unknown, further, units, is_cut, rows, line, fault } = measured?;
                let source = lengths.source as usize;
                let within = match dataset.corpus.is_spoken() {
                    true => limits.check_frames(source),
                    // Without its end symbol; where there is no source, there is none.
                    false => limits.check_sources([source.saturating_sub(1)]),
                };
                let within =
                    within.and_then(|()| limits.check_further(further.iter().map(|one| one.tokens as usize - 1)));
                let within = within.and_then(|()| limits.check_target(lengths.target as usize - 1));
                let within = within.and_then(|()| fault.map_or(Ok(()), Err));
                let Err(excess) = within else {
                    dataset.lengths.push(lengths);
                    dataset.unknown.add(unknown);
                    dataset.further_tokens.iter_mut().zip(further).for_each(|(all, one)| all.add(one));
                    dataset.units.add(units);
                    dataset.cut += u64::from(is_cut);
                    kept = kept.and_then(|kept| kept.with(&rows));
                    continue;
                };
                too_long += 1;
                match limits.too_long {
                    Remedy::Skip => {
                        dataset.skipped.add(&excess.label(), line);
                        left_out.push(i as u64);
                    }
                    Remedy::Error if messages.len() < LISTED => {
                        let message = format!("{excess}, or set data.too_long = \"skip\"");
                        messages.push(Problem { place: Place::line(line), message });
                    }
                    Remedy::Error => {}
                }
            }
        }
        let path = dataset.corpus.path();
        if !messages.is_empty() {
            let more = too_long - messages.len();
            return Err(listed(path, messages, more));
        }
        if dataset.lengths.is_empty() {
            return Err(Error::new(format!("no example is within the limits; {}", dataset.skipped)).in_file(path));
        }
        dataset.gaps = Gaps::new(left_out);
        dataset.kept = kept;
        Ok(dataset)
    }

    /// How many examples.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Never true: a dataset has at least one example.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The lengths of all examples: what [`plan`](crate::plan()) takes.
    pub fn lengths(&self) -> &[Lengths] {
        &self.lengths
    }

    /// Source tokens of all examples, end symbols included; of recordings, frames.
    pub fn source_tokens(&self) -> u64 {
        self.lengths.iter().map(|l| u64::from(l.source)).sum()
    }

    /// Target tokens of all examples, end symbols included.
    pub fn target_tokens(&self) -> u64 {
        self.lengths.iter().map(|l| u64::from(l.target)).sum()
    }

    /// The examples left out because they are too long.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// How many examples have a history of which turns were cut, because it would be too long.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// What the tokenizers do not know of the examples.
    pub fn unknown(&self) -> Unknown {
        self.unknown
    }

    /// The tokens of each further source.
    pub fn further(&self) -> impl Iterator<Item = (&str, FurtherTokens)> {
        self.further.iter().map(|one| one.name.as_str()).zip(self.further_tokens.iter().copied())
    }

    /// How much text the targets are (of several, the first), each with its end.
    pub fn units(&self) -> Units {
        self.units
    }

    /// Where the text comes from.
    pub fn corpus(&self) -> &Arc<Corpus> {
        &self.corpus
    }

    /// The examples of these indices (each below [`len`](Self::len)) as ids, each row closed by [`Special::End`].
    /// [`Batch::examples`] are their indices in the corpus.
    ///
    /// # Errors
    /// If the corpus cannot be read or a text cannot be encoded.
    pub fn batch(&self, indices: &[u32]) -> Result<Batch> {
        let examples: Vec<usize> = indices.iter().map(|&i| self.gaps.position(i as usize)).collect();
        let (frames, mut recordings) = (self.corpus.frames(), Vec::new());
        let mut sources = vec![Vec::new(); self.sources()];
        let (mut targets, mut says, mut slots) = (Vec::new(), sources.clone(), 0);
        let mut add = |mut rows: Box<dyn Iterator<Item = Vec<TokenId>> + '_>| {
            sources.iter_mut().zip(&mut rows).for_each(|(source, row)| source.push(row));
            targets.extend(rows.next());
            says.iter_mut().zip(&mut rows).for_each(|(says, row)| says.push(row));
            slots = rows.flatten().fold(slots, |most: TokenId, slots| most.max(slots));
        };
        if let Some(kept) = &self.kept {
            for &i in indices {
                add(Box::new(kept.rows(i as usize).map(<[TokenId]>::to_vec)));
            }
        }
        for &i in examples.iter().filter(|_| self.kept.is_none()) {
            let example = self.corpus.get(i)?;
            add(Box::new(self.rows(&example)?.into_iter()));
            if let Some((frames, recording)) = frames.zip(example.recording) {
                recordings.push(frames.read(recording)?);
            }
        }
        let batch = |rows: Vec<Vec<TokenId>>| SourceBatch::Tokens(TokenBatch::from_rows(&rows));
        let recorded = |frames: &Arc<dyn Frames>| FrameBatch::from_rows(&recordings, frames.width());
        let recorded = frames.map(recorded).map(SourceBatch::Frames);
        let sources = recorded.into_iter().chain(sources.into_iter().map(batch)).collect();
        let mut target = Target::whole(&targets);
        let copies = self.copying.as_ref().map(|copying| {
            // What is copied is no token that could be fed back.
            let is_slot = |id: &&mut TokenId| **id as usize >= copying.vocabulary();
            target.inputs.iter_mut().filter(is_slot).for_each(|id| *id = Special::Unknown.id());
            let says = says.iter().map(|rows| TokenBatch::from_rows(rows)).collect();
            CopyBatch { says, slots: slots as usize }
        });
        // Each example is a text of its own: no row goes on.
        Ok(Batch { sources, target, continues: Vec::new(), examples, copies })
    }

    /// The same, with text encoded anew for every batch.
    #[cfg(test)]
    pub(crate) fn anew(self) -> Self {
        assert!(self.kept.is_some());
        Self { kept: None, ..self }
    }

    /// How many sources are texts.
    fn sources(&self) -> usize {
        usize::from(self.source.is_some()) + self.further.len()
    }

    /// The target of an example, by its index in the corpus, as ids without slots (of several, the first).
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    pub fn target(&self, example: usize) -> Result<Vec<TokenId>> {
        self.encode_target(&self.corpus.get(example)?)
    }

    /// How much text the target of an example is, by its index in the corpus (of several, the first).
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    pub fn units_of(&self, example: usize) -> Result<Units> {
        Ok(Units::of(&self.corpus.get(example)?.targets[0], true))
    }

    /// How many examples no path of connectionist temporal classification says, where `reduction` frames become one step.
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    pub fn without_path(&self, reduction: usize) -> Result<usize> {
        let lacks = |i: usize| -> Result<usize> {
            let mut labels = self.target(self.gaps.position(i))?;
            labels.pop();
            let steps = (self.lengths[i].source as usize).div_ceil(reduction);
            Ok(usize::from(steps < steps_of_path(&labels)))
        };
        (0..self.len()).into_par_iter().map(lacks).sum()
    }

    /// How often each id below `vocabulary` occurs in the targets.
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    pub fn target_counts(&self, vocabulary: usize) -> Result<Vec<u64>> {
        let count = |mut counts: Vec<u64>, i: usize| {
            self.target(self.gaps.position(i))?.into_iter().for_each(|id| counts[id as usize] += 1);
            Ok(counts)
        };
        let none = || vec![0; vocabulary];
        let add = |mut counts: Vec<u64>, others: Vec<u64>| {
            counts.iter_mut().zip(others).for_each(|(count, other)| *count += other);
            Ok(counts)
        };
        (0..self.len()).into_par_iter().try_fold(none, count).try_reduce(none, add)
    }

    fn measure(&self, example: &Example, others: &[Reader]) -> Result<Measured> {
        let count = |row: &[TokenId]| u32::try_from(row.len()).unwrap_or(u32::MAX);
        let strangers = |row: &[TokenId]| row.iter().filter(|&&id| id == Special::Unknown.id()).count() as u64;
        let rows = self.rows(example)?;
        let (sources, behind) = rows.split_at(self.sources());
        let (target, (source, further)) = (&behind[0], sources.split_at(usize::from(self.source.is_some())));
        let of_further = |row: &Vec<TokenId>| FurtherTokens { tokens: row.len() as u64, unknown: strangers(row) };
        let further = further.iter().map(of_further).collect();
        let of_source = source.first().map_or(&[][..], Vec::as_slice);
        let copied = self
            .copying
            .as_ref()
            .map_or(0, |copying| target.iter().filter(|&&id| id as usize >= copying.vocabulary()).count() as u64);
        let unknown = Unknown { source: strangers(of_source), target: strangers(target), copied };
        let frames = self.corpus.frames().zip(example.recording);
        let frames = frames.map(|(frames, recording)| frames.frames(recording));
        let heard = frames.map(|frames| u32::try_from(frames).unwrap_or(u32::MAX));
        let lengths = Lengths { source: heard.unwrap_or_else(|| count(of_source)), target: count(target) };
        let mut fault = None;
        for reader in others {
            fault = fault.or(reader.fault(&self.corpus, example, lengths.target as usize - 1)?);
        }
        let units = Units::of(&example.targets[0], true);
        let cut = self.source.iter().zip(&example.source).map(|(tokenizer, text)| tokenizer.cut(text));
        let is_cut = cut.sum::<Result<usize>>()? > 0;
        Ok(Measured { lengths, unknown, further, units, is_cut, rows, line: example.line, fault })
    }

    /// The ids of an example: those of its sources, and of its target; where words are copied, what each source says, and the number
    /// of slots alone.
    fn rows(&self, example: &Example) -> Result<Vec<Vec<TokenId>>> {
        let mut rows: Vec<Vec<TokenId>> = self.encode_source(example)?.into_iter().collect();
        rows.extend(self.encode_further(example)?);
        let Some(copying) = &self.copying else {
            rows.push(self.encode_target(example)?);
            return Ok(rows);
        };
        let placed = |error: Error| error.at(Place::line(example.line)).in_file(self.corpus.path());
        let tokenizers = self.source.iter().chain(self.further.iter().map(|one| &one.tokenizer));
        let texts = example.source.iter().chain(&example.further).map(String::as_str);
        let copies = copying.copies(tokenizers.zip(texts)).map_err(placed)?;
        let mut labels = copying.labels(&copies, &example.targets[0]).map_err(placed)?;
        labels.push(Special::End.id());
        rows.push(labels);
        rows.extend(copies.says);
        rows.push(vec![copies.slots.len() as TokenId]);
        Ok(rows)
    }

    fn encode_further(&self, example: &Example) -> Result<Vec<Vec<TokenId>>> {
        let encode =
            |(one, text): (&FurtherSource, &String)| self.encode(one.tokenizer.as_ref(), text, &one.name, example.line);
        self.further.iter().zip(&example.further).map(encode).collect()
    }

    fn encode_source(&self, example: &Example) -> Result<Option<Vec<TokenId>>> {
        let (Some(tokenizer), Some(text)) = (&self.source, &example.source) else { return Ok(None) };
        self.encode(tokenizer.as_ref(), text, "source", example.line).map(Some)
    }

    fn encode_target(&self, example: &Example) -> Result<Vec<TokenId>> {
        self.encode(self.target.as_ref(), &example.targets[0], "target", example.line)
    }

    fn encode(&self, tokenizer: &dyn Tokenizer, text: &str, side: &str, line: usize) -> Result<Vec<TokenId>> {
        let mut ids = tokenizer
            .encode(text)
            .map_err(|e| e.at(Place::Line { number: line, part: Some(side.into()) }).in_file(self.corpus.path()))?;
        ids.push(Special::End.id());
        Ok(ids)
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset").field("corpus", &self.corpus.path()).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl FurtherTokens {
    /// Takes in those of the next example.
    fn add(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.unknown += other.unknown;
    }
}

impl Unknown {
    /// Takes in what is unknown of the next example.
    fn add(&mut self, other: Self) {
        self.source += other.source;
        self.target += other.target;
        self.copied += other.copied;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::bytes_tokenizer::Bytes;
    use crate::corpus::{CorpusConfig, Split};

    fn corpus(text: &str, config: &str) -> (Arc<Corpus>, Limits) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::File::create(folder.path().join("a.tsv")).unwrap().write_all(text.as_bytes()).unwrap();
        let config: CorpusConfig = toml::from_str(&format!("train = 'a.tsv'\n{config}")).unwrap();
        (Arc::new(Corpus::open(&config, Split::Train, folder.path()).unwrap()), config.limits())
    }

    fn dataset(text: &str, config: &str) -> Result<Dataset> {
        let (corpus, limits) = corpus(text, config);
        let source = corpus.has_source().then(|| Arc::new(Bytes) as Arc<dyn Tokenizer>);
        Dataset::new(corpus, source, Vec::new(), Arc::new(Bytes), &limits)
    }

    /// Without the folder, which is random.
    fn message(error: &Error) -> String {
        let mut error = error.clone();
        error.file = error.file.and_then(|f| f.file_name().map(Into::into));
        error.to_string()
    }

    #[test]
    fn rows_are_closed_and_padded() {
        let data = dataset("ab\tx\nc\twxyz\nde\tu v\n", "kind = 'pairs'").unwrap();
        assert_eq!(data.lengths(), [(3, 2), (2, 5), (3, 4)].map(|(source, target)| Lengths { source, target }));
        assert_eq!((data.source_tokens(), data.target_tokens()), (8, 11));
        assert_eq!(data.units(), Units { characters: 11, words: 7 });
        let counts = data.target_counts(260).unwrap();
        assert_eq!((counts[3], counts['x' as usize + 4], counts.iter().sum::<u64>()), (3, 2, 11));
        let batch = data.batch(&[2, 0]).unwrap();
        let id = |c: char| c as u32 + 4;
        let [SourceBatch::Tokens(source)] = &batch.sources[..] else { panic!("one source of tokens") };
        assert_eq!(source.ids, [id('d'), id('e'), 3, id('a'), id('b'), 3]);
        assert_eq!(batch.target.labels, [id('u'), id(' '), id('v'), 3, id('x'), 3, 0, 0]);
        assert_eq!(batch.examples, [2, 0]);
    }

    #[test]
    fn a_text_has_no_source() {
        let data = dataset("ab\nc\n", "kind = 'text'").unwrap();
        let batch = data.batch(&[0, 1]).unwrap();
        assert!(batch.sources.is_empty() && batch.continues.is_empty());
        assert_eq!(batch.target.lengths, [3, 2]);
        assert_eq!(data.source_tokens(), 0);
    }

    #[test]
    fn further_sources_stand_beside_the_first() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.csv"), "lemma,form,tags,note\nab,x,N,1\nc,y,,23\nd,z,NNNN,4\n").unwrap();
        let text = "kind = 'table'\ntrain = 'a.csv'\nsource = 'lemma'\ntarget = 'form'\ntoo_long = 'skip'";
        let config: CorpusConfig = toml::from_str(text).unwrap();
        let columns = [("notes", "note"), ("tags", "tags")].map(|(name, column)| (name.into(), column.into()));
        let further = crate::FurtherColumns { sources: columns.into(), kept: Vec::new() };
        let open = || Arc::new(Corpus::open_with(&config, &further, Split::Train, folder.path()).unwrap());
        let names = ["notes", "tags"].map(str::to_owned);
        let sources = names.clone().map(|name| FurtherSource { name, tokenizer: Arc::new(Bytes) });
        let dataset =
            |limits: &Limits| Dataset::new(open(), Some(Arc::new(Bytes)), sources.to_vec(), Arc::new(Bytes), limits);
        let limits = Limits { further: names.map(|name| (name, 3)).to_vec(), ..config.limits() };
        let data = dataset(&limits).unwrap();
        assert_eq!(
            data.skipped().to_string(),
            "1 line skipped: 1 with a `tags` over streams.tags.max_length = 3 (first: line 4)"
        );
        let tokens = |tokens| FurtherTokens { tokens, unknown: 0 };
        assert_eq!(data.further().collect::<Vec<_>>(), [("notes", tokens(5)), ("tags", tokens(3))]);
        assert_eq!(data.source_tokens(), 5);
        let batch = data.batch(&[1, 0]).unwrap();
        let rows = |source: &SourceBatch| match source {
            SourceBatch::Tokens(batch) => [0, 1].map(|b| batch.row(b).to_vec()),
            SourceBatch::Frames(_) => panic!("frames"),
        };
        let id = |c: char| c as u32 + 4;
        let found: Vec<_> = batch.sources.iter().map(rows).collect();
        assert_eq!(found[0], [vec![id('c'), 3], vec![id('a'), id('b'), 3]]);
        assert_eq!(found[1], [vec![id('2'), id('3'), 3], vec![id('1'), 3]]);
        // What is empty has an end.
        assert_eq!(found[2], [vec![3], vec![id('N'), 3]]);
        batch.check().unwrap();
        // So it is where text is encoded anew.
        assert_eq!(dataset(&limits).unwrap().anew().batch(&[1, 0]).unwrap(), batch);
        let refuse = Limits { too_long: Remedy::Error, ..limits };
        assert_eq!(
            message(&dataset(&refuse).unwrap_err()),
            "a.csv: line 4: `tags` has 4 tokens, more than streams.tags.max_length = 3: shorten it or raise \
             streams.tags.max_length, or set data.too_long = \"skip\""
        );
    }

    #[test]
    fn examples_over_a_limit_are_named() {
        let error =
            dataset("ab\tx\nabcd\tx\na\tvwxyz\n", "kind = 'pairs'\nmax_source = 3\nmax_target = 4").unwrap_err();
        assert_eq!(
            message(&error),
            "a.tsv: 2 problems\n  \
             line 2: the source has 4 tokens, more than data.max_source = 3: shorten it or raise data.max_source, or set \
             data.too_long = \"skip\"\n  \
             line 3: the target has 5 tokens, more than data.max_target = 4: shorten it or raise data.max_target, or set \
             data.too_long = \"skip\""
        );
        let error = dataset(&"abcd\tx\n".repeat(13), "kind = 'pairs'\nmax_source = 3").unwrap_err();
        assert_eq!(error.problems.len(), 10);
        assert!(message(&error).ends_with(" (and 3 more such lines)"));
    }

    #[test]
    fn examples_over_a_limit_are_skipped_and_counted() {
        let text = "bad\nabcd\tx\nab\tx\na\tvwxyz\nabcd\ty\ncd\tz\n";
        let rules = "kind = 'pairs'\nmax_source = 3\nmax_target = 4\ntoo_long = 'skip'\non_bad_line = 'skip'";
        let data = dataset(text, rules).unwrap();
        assert_eq!(
            data.skipped().to_string(),
            "3 lines skipped: 2 with a source over data.max_source = 3 (first: line 2), \
             1 with a target over data.max_target = 4 (first: line 4)"
        );
        let batch = data.batch(&[0, 1]).unwrap();
        assert_eq!(batch.examples, [1, 4]);
        let lines: Vec<usize> = batch.examples.iter().map(|&i| data.corpus().get(i).unwrap().line).collect();
        assert_eq!(lines, [3, 6]);
        let none = dataset("abcd\tx\n", rules).unwrap_err();
        assert_eq!(
            message(&none),
            "a.tsv: no example is within the limits; 1 line skipped: 1 with a source over data.max_source = 3 (first: line 1)"
        );
    }

    #[test]
    fn a_text_that_cannot_be_encoded_is_named() {
        // The first of them, though threads meet them in any order.
        let text = "a\tb\n".repeat(500) + "a\tb!\n" + &"a!\tb\n".repeat(500);
        let error = dataset(&text, "kind = 'pairs'").unwrap_err();
        assert_eq!(message(&error), "a.tsv: line 501, target: `!` cannot be represented");
    }

    #[test]
    fn tokenizers_must_fit_the_corpus() {
        let (pairs, limits) = corpus("a\tb\n", "kind = 'pairs'");
        let error = Dataset::new(pairs, None, Vec::new(), Arc::new(Bytes), &limits).unwrap_err();
        assert_eq!(
            message(&error),
            "a.tsv: the corpus has sources: give it a source tokenizer, or use `kind = \"text\"`"
        );
        let (text, limits) = corpus("a\n", "kind = 'text'");
        let error = Dataset::new(text, Some(Arc::new(Bytes)), Vec::new(), Arc::new(Bytes), &limits).unwrap_err();
        assert_eq!(message(&error), "a.tsv: a text corpus has no sources: use `kind = \"pairs\"` or `\"parallel\"`");
    }
}
