//! The corpus of an experiment, and its batches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Frames, Result, Special, TokenId};
use antiphon_data::corpus::{Documents, StreamConfig};
use antiphon_data::lines::file_fault;
use antiphon_data::{
    BatchConfig, Corpus, CorpusConfig, Cut, Dataset, FurtherSource, FurtherTokens, Prefetch, Reader, Skipped, Split,
    Steps, Stream, Units, Unknown, plan, plan_in_order,
};
use antiphon_train::Batches;

use super::{ExperimentConfig, Tokenizers, heard};
use crate::console::Console;
use crate::output::{DATA, command, option};

/// How many batches are prepared ahead of the model.
pub(super) const AHEAD: usize = 4;

/// The splits of an experiment's corpus.
#[derive(Debug)]
pub struct Corpora {
    /// What is learnt from.
    pub train: Arc<Corpus>,
    /// What choices are made on.
    pub validation: Option<Arc<Corpus>>,
    /// What is reported.
    pub test: Option<Arc<Corpus>>,
}

impl Corpora {
    /// Reads and checks the files of all splits.
    ///
    /// # Errors
    /// If a file is missing or broken: names file, line and remedy.
    pub fn open(config: &ExperimentConfig, data_dir: &Path) -> Result<Self> {
        Self::open_telling(config, data_dir, &mut Console::new(true))
    }

    /// The same, telling what takes a while.
    pub(super) fn open_telling(config: &ExperimentConfig, data_dir: &Path, console: &mut Console) -> Result<Self> {
        files_are_there(&config.data, None, data_dir)?;
        let further = config.further_columns();
        let read = |split| Corpus::open_with(&config.data, &further, split, data_dir);
        let mut open = |split| read(split).and_then(|corpus| heard(corpus, config, data_dir, console)).map(Arc::new);
        let train = open(Split::Train)?;
        let mut open_if_named = |split| config.data.has(split).then(|| open(split)).transpose();
        Ok(Self { train, validation: open_if_named(Split::Validation)?, test: open_if_named(Split::Test)? })
    }

    /// Reads and checks the files of one split.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if the config does not name the split.
    pub(crate) fn open_split(
        config: &ExperimentConfig,
        split: Split,
        data_dir: &Path,
        console: &mut Console,
    ) -> Result<Arc<Corpus>> {
        files_are_there(&config.data, Some(split), data_dir)?;
        let corpus = Corpus::open_with(&config.data, &config.further_columns(), split, data_dir)?;
        heard(corpus, config, data_dir, console).map(Arc::new)
    }

    /// A split, if the config names one.
    pub fn get(&self, split: Split) -> Option<&Arc<Corpus>> {
        match split {
            Split::Train => Some(&self.train),
            Split::Validation => self.validation.as_ref(),
            Split::Test => self.test.as_ref(),
        }
    }

    /// What to say of files that seem to begin with a header, and of recordings that are not whole.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        let all = [Some(&self.train), self.validation.as_ref(), self.test.as_ref()];
        let warning = |corpus: &Arc<Corpus>| {
            let remedy = if corpus.is_table() { ", or leave out data.columns" } else { "" };
            Some(corpus.header_warning()? + remedy)
        };
        all.into_iter().flatten().flat_map(move |corpus| warning(corpus).into_iter().chain(damage(corpus)))
    }

    /// Every file, as the config names it, with its SHA-256; of a manifest also what it names, together.
    pub(super) fn digests(&self, data_dir: &Path) -> BTreeMap<String, String> {
        let splits = [Split::Train, Split::Validation, Split::Test].into_iter().filter_map(|split| self.get(split));
        splits.flat_map(|corpus| digests(corpus, data_dir)).collect()
    }
}

/// What to say of recordings that are not whole.
fn damage(corpus: &Corpus) -> Option<String> {
    let warning = corpus.frames()?.warning()?;
    Some(format!("{}: {warning}", corpus.path().display()))
}

/// The files of a corpus, as its config names them, each with its SHA-256; of a manifest also what it names, together.
pub(crate) fn digests(corpus: &Corpus, data_dir: &Path) -> Vec<(String, String)> {
    let files = corpus.files().map(|(file, sha256)| (named(file, data_dir), sha256.to_owned()));
    let recordings = |frames: &Arc<dyn Frames>| {
        (format!("the recordings of {}", named(corpus.path(), data_dir)), frames.digest().to_owned())
    };
    files.chain(corpus.frames().map(recordings)).collect()
}

/// The files of a corpus, or of one split: the setting that names each, and where it lies. What is wrong with the settings is
/// said when the corpus is opened.
pub(crate) fn files(config: &CorpusConfig, split: Option<Split>, data_dir: &Path) -> Vec<(String, PathBuf)> {
    let splits = [Split::Train, Split::Validation, Split::Test].into_iter();
    let splits = splits.filter(|&one| config.has(one) && split.is_none_or(|split| split == one));
    let named = splits.flat_map(|split| config.named_files(split).unwrap_or_default());
    named.map(|(key, file)| (key, data_dir.join(file))).collect()
}

/// What helps where a file of a corpus is missing. Those that its recipe prepares lie in a folder of its name.
pub(crate) fn remedy(config: &CorpusConfig, missing: &Path, data_dir: &Path) -> String {
    let below = missing.strip_prefix(data_dir).ok();
    let twice = below.zip(data_dir.file_name()).and_then(|(below, folder)| below.strip_prefix(folder).ok());
    if let Some(meant) = twice {
        return format!("it is named from that folder on: write `{}`", meant.display());
    }
    let mut remedy = "set --data-dir or ANTIPHON_DATA_DIR".to_owned();
    if let Some(recipe) = config.recipe().filter(|recipe| missing.starts_with(data_dir.join(recipe))) {
        let words = ["data".into(), recipe.into()].into_iter().chain(option("--data-dir", data_dir, DATA));
        remedy += &format!(", or prepare it with `{}`", command(words));
    }
    remedy
}

/// That all files of a corpus, or of one split, are there; whether they can be used is seen when they are read.
pub(crate) fn files_are_there(config: &CorpusConfig, split: Option<Split>, data_dir: &Path) -> Result<()> {
    let missing =
        files(config, split, data_dir).into_iter().filter_map(|(key, path)| Some((key, file_fault(&path)?, path)));
    let missing: Vec<_> = missing.collect();
    let [(key, fault, path), others @ ..] = missing.as_slice() else { return Ok(()) };
    // Several references have one key.
    let mut others: Vec<&str> = others.iter().map(|(key, ..)| key.as_str()).filter(|other| other != key).collect();
    others.dedup();
    let others = if others.is_empty() { String::new() } else { format!(", and so are those of {}", others.join(", ")) };
    let (data, remedy) = (data_dir.display(), remedy(config, path, data_dir));
    let message = format!("{fault}: {key} names it below the data folder `{data}`{others}; {remedy}");
    Err(Error::new(message).in_file(path))
}

/// A file as the config names it: below the data folder, with `/`; elsewhere as it is.
pub(crate) fn named(file: &Path, data_dir: &Path) -> String {
    match file.strip_prefix(data_dir) {
        Ok(below) => below.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/"),
        Err(_) => file.display().to_string(),
    }
}

/// How many tokens of running text are judged together, and of how many documents at most.
const JUDGED: usize = 4096;
const DOCUMENTS: usize = 64;

/// A split as ids.
#[derive(Debug, Clone)]
pub(super) enum Encoded {
    /// Texts, with sources or without, that have nothing to do with one another.
    Examples(Arc<Dataset>),
    /// Running text.
    Stream(Arc<Stream>),
}

impl Encoded {
    /// Cuts a corpus with its tokenizers.
    ///
    /// # Errors
    /// If they do not fit, or a text cannot be used.
    pub(super) fn new(corpus: &Arc<Corpus>, tokenizers: &Tokenizers, config: &ExperimentConfig) -> Result<Self> {
        Self::for_readers(corpus, tokenizers, config, &[])
    }

    /// The same of what is within the limits of other models too, which read its sources beside the first.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(super) fn for_readers(
        corpus: &Arc<Corpus>,
        tokenizers: &Tokenizers,
        config: &ExperimentConfig,
        others: &[Reader],
    ) -> Result<Self> {
        let (source, target) = (tokenizers.source().cloned(), Arc::clone(tokenizers.target()));
        Ok(match &config.data {
            CorpusConfig::Stream(config) => {
                Self::Stream(Arc::new(Stream::new(Arc::clone(corpus), target.as_ref(), config.documents)?))
            }
            CorpusConfig::Pairs(_)
            | CorpusConfig::Parallel(_)
            | CorpusConfig::Table(_)
            | CorpusConfig::Manifest(_)
            | CorpusConfig::Text(_) => {
                let further = tokenizers.streams();
                let further = further.map(|(name, of)| FurtherSource { name: name.clone(), tokenizer: Arc::clone(of) });
                let (corpus, limits) = (Arc::clone(corpus), config.limits());
                let (further, copying) = (further.collect(), tokenizers.copying().cloned());
                let dataset = Dataset::for_readers(corpus, source, further, target, copying, &limits, others)?;
                Self::Examples(Arc::new(dataset))
            }
        })
    }

    /// Where the text comes from.
    pub(super) fn corpus(&self) -> &Arc<Corpus> {
        match self {
            Self::Examples(dataset) => dataset.corpus(),
            Self::Stream(stream) => stream.corpus(),
        }
    }

    /// The examples left out because they are too long; none of a running text is.
    pub(super) fn too_long(&self) -> Option<&Skipped> {
        match self {
            Self::Examples(dataset) => Some(dataset.skipped()).filter(|skipped| !skipped.is_empty()),
            Self::Stream(_) => None,
        }
    }

    /// What to say of the histories of which turns were cut, if there are such.
    pub(super) fn cut(&self) -> Option<String> {
        let Self::Examples(dataset) = self else { return None };
        let (cut, all) = (dataset.cut(), dataset.len());
        (cut > 0).then(|| {
            format!(
                "{cut} of {all} histories are longer than `data.max_source`, and are read without their oldest turns"
            )
        })
    }

    /// Source tokens, end symbols included; of recordings, frames.
    pub(super) fn source_tokens(&self) -> u64 {
        match self {
            Self::Examples(dataset) => dataset.source_tokens(),
            Self::Stream(_) => 0,
        }
    }

    /// Target tokens, end symbols included.
    pub(super) fn target_tokens(&self) -> u64 {
        match self {
            Self::Examples(dataset) => dataset.target_tokens(),
            Self::Stream(stream) => stream.len(),
        }
    }

    /// End symbols of the targets.
    pub(super) fn ends(&self) -> u64 {
        match self {
            Self::Examples(dataset) => dataset.len() as u64,
            Self::Stream(stream) => stream.counts()[Special::End.id() as usize],
        }
    }

    /// How many examples no path of CTC says; `None` where the model has none.
    ///
    /// # Errors
    /// If the corpus cannot be read.
    pub(super) fn without_path(&self, config: &ExperimentConfig) -> Result<Option<usize>> {
        match self {
            Self::Examples(dataset) if config.model.says_by_steps() => {
                dataset.without_path(config.reductions()[0]).map(Some)
            }
            Self::Examples(_) | Self::Stream(_) => Ok(None),
        }
    }

    /// What to say of so many examples that no path of CTC says, if there are such.
    pub(super) fn lost(&self, without_path: Option<usize>, config: &ExperimentConfig) -> Option<String> {
        let (Self::Examples(dataset), Some(lost @ 1..)) = (self, without_path) else { return None };
        let (all, reduction) = (dataset.len(), config.reductions()[0]);
        Some(format!(
            "{lost} of {all} sources have fewer steps of memory than CTC needs to say their targets, and count nothing in its loss; \
             reduce time by less than {reduction}"
        ))
    }

    /// How much text the target of an example is, by its index in the corpus.
    ///
    /// # Errors
    /// If the corpus cannot be read.
    pub(super) fn units_of(&self, example: usize) -> Result<Units> {
        match self {
            Self::Examples(dataset) => dataset.units_of(example),
            Self::Stream(_) => unreachable!("running text has no examples that could be lost"),
        }
    }

    /// What the tokenizers do not know.
    pub(super) fn unknown(&self) -> Unknown {
        match self {
            Self::Examples(dataset) => dataset.unknown(),
            Self::Stream(stream) => Unknown { target: stream.unknown(), ..Unknown::default() },
        }
    }

    /// The tokens of each further source, by the name of its stream.
    pub(super) fn further(&self) -> Vec<(&str, FurtherTokens)> {
        match self {
            Self::Examples(dataset) => dataset.further().collect(),
            Self::Stream(_) => Vec::new(),
        }
    }

    /// How much text the targets are.
    pub(super) fn units(&self) -> Units {
        match self {
            Self::Examples(dataset) => dataset.units(),
            Self::Stream(stream) => stream.units(),
        }
    }

    /// All of it once, to be judged: examples the shortest first, running text in `parts` that are read side by side, or, if it has
    /// several documents, these.
    pub(super) fn in_order(&self, config: &BatchConfig, parts: usize) -> Prefetch {
        match self {
            Self::Examples(dataset) => {
                Prefetch::new(Arc::clone(dataset), plan_in_order(dataset.lengths(), config), AHEAD)
            }
            Self::Stream(stream) => {
                let cut = match stream.documents() {
                    0 | 1 => Cut::Parts { rows: parts, length: JUDGED.div_ceil(parts), jitter: None },
                    // Their state is fresh anyway, so that side by side they have the figures that they have one by one.
                    many => Cut::Documents { rows: many.min(DOCUMENTS), length: JUDGED / many.min(DOCUMENTS) },
                };
                Prefetch::of_stream(Arc::clone(stream), stream.steps(&cut), AHEAD)
            }
        }
    }

    /// Running text once, in windows of so many tokens; `None` of other text, which has no state to reset.
    pub(super) fn in_windows(&self, length: usize) -> Option<Prefetch> {
        let Self::Stream(stream) = self else { return None };
        let cut = Cut::Windows { rows: (JUDGED / length).max(1), length };
        Some(Prefetch::of_stream(Arc::clone(stream), stream.steps(&cut), AHEAD))
    }

    /// How often each of a vocabulary's tokens occurs among the targets.
    ///
    /// # Errors
    /// If the corpus cannot be read.
    pub(super) fn counts(&self, vocabulary: usize) -> Result<Vec<u64>> {
        match self {
            Self::Stream(stream) => Ok(stream.counts().to_vec()),
            Self::Examples(dataset) => dataset.target_counts(vocabulary),
        }
    }

    /// The file and the line of a token, the first of the example that [`Batch::examples`] names or so many behind it, and at most
    /// `before` tokens that stand before it.
    ///
    /// # Errors
    /// If the corpus cannot be read.
    pub(super) fn context(&self, example: usize, behind: usize, before: usize) -> Result<Context<'_>> {
        let (file, line, ids) = match self {
            Self::Stream(stream) => {
                let token = example as u64 + behind as u64;
                let (file, line) = stream.place(token)?;
                (file, line, stream.ids(token.saturating_sub(before as u64)..token)?)
            }
            Self::Examples(dataset) => {
                let (file, line) = dataset.corpus().place(example);
                (file, line, dataset.target(example)?[behind.saturating_sub(before)..behind].to_vec())
            }
        };
        Ok(Context { file, line, before: ids })
    }
}

/// Where a token stands.
pub(super) struct Context<'a> {
    pub(super) file: &'a Path,
    /// Counted from 1.
    pub(super) line: usize,
    /// What stands before it.
    pub(super) before: Vec<TokenId>,
}

/// The training batches: one plan an epoch, drawn by the seed and the epoch's number alone.
pub(super) struct TrainingBatches {
    planned: Planned,
    order: Key,
    /// How many batches an epoch has, for those that were planned once.
    counts: Mutex<BTreeMap<u64, usize>>,
}

/// What is planned, and how.
enum Planned {
    Examples { dataset: Arc<Dataset>, config: BatchConfig },
    Stream { stream: Arc<Stream>, rows: usize, length: usize, jitter: bool, documents: Documents },
}

impl TrainingBatches {
    /// Those of the split to learn from.
    ///
    /// # Errors
    /// If there is too little to learn from.
    pub(super) fn new(encoded: Encoded, config: &ExperimentConfig) -> Result<Self> {
        let planned = match (encoded, &config.data) {
            (Encoded::Stream(stream), CorpusConfig::Stream(cut)) => {
                let StreamConfig { rows, length, jitter, documents, .. } = *cut;
                stream.check_training(rows, length)?;
                Planned::Stream { stream, rows, length, jitter, documents }
            }
            (Encoded::Examples(dataset), _) => Planned::Examples { dataset, config: config.batch.clone() },
            (Encoded::Stream(_), _) => unreachable!("only a stream is encoded as one"),
        };
        Ok(Self { planned, order: Key::from_seed(config.seed).named("order"), counts: Mutex::default() })
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many batches an epoch has, counted once.
    fn counted(&self, epoch: u64, count: impl FnOnce() -> usize) -> usize {
        *self.counts().entry(epoch).or_insert_with(count)
    }

    fn plan(&self, dataset: &Dataset, config: &BatchConfig, epoch: u64) -> Vec<Vec<u32>> {
        plan(dataset.lengths(), config, self.order.numbered(epoch))
    }

    fn steps(&self, stream: &Stream, rows: usize, length: usize, jitter: bool, epoch: u64) -> Steps {
        let jitter = jitter.then(|| self.order.numbered(epoch).named("lengths"));
        stream.steps(&Cut::Parts { rows, length, jitter })
    }
}

impl Batches for TrainingBatches {
    fn epoch(&self, epoch: u64, skip: usize) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
        let batches = match &self.planned {
            Planned::Examples { dataset, config } => {
                let mut plan = self.plan(dataset, config, epoch);
                self.counted(epoch, || plan.len());
                Prefetch::new(Arc::clone(dataset), plan.split_off(skip), AHEAD)
            }
            &Planned::Stream { ref stream, rows, length, jitter, .. } => {
                let mut steps = self.steps(stream, rows, length, jitter, epoch);
                // Where a step begins depends on those before it; their ids need not be read.
                steps.by_ref().take(skip).for_each(drop);
                Prefetch::of_stream(Arc::clone(stream), steps, AHEAD)
            }
        };
        Ok(Box::new(batches))
    }

    fn batches_in(&self, epoch: u64) -> usize {
        match &self.planned {
            Planned::Examples { dataset, config } => config
                .batches(dataset.lengths().len())
                .unwrap_or_else(|| self.counted(epoch, || self.plan(dataset, config, epoch).len())),
            &Planned::Stream { ref stream, rows, length, jitter, .. } => {
                // Without chance all epochs are one.
                let epoch = if jitter { epoch } else { 0 };
                self.counted(epoch, || self.steps(stream, rows, length, jitter, epoch).count())
            }
        }
    }

    fn whole(&self) -> Option<u64> {
        match self.planned {
            Planned::Stream { rows, length, jitter, documents, .. } if jitter || documents != Documents::None => {
                Some(rows as u64 * length as u64)
            }
            Planned::Stream { .. } | Planned::Examples { .. } => None,
        }
    }
}
