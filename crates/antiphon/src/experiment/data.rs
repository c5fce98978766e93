//! The corpus of an experiment, and its batches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use antiphon_core::random::Key;
use antiphon_core::{Batch, Error, Result};
use antiphon_data::lines::file_fault;
use antiphon_data::{BatchConfig, Corpus, CorpusConfig, Dataset, Prefetch, Split, plan};
use antiphon_train::Batches;

use super::Tokenizers;
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
    pub fn open(config: &CorpusConfig, data_dir: &Path) -> Result<Self> {
        files_are_there(config, None, data_dir)?;
        let open = |split| Corpus::open(config, split, data_dir).map(Arc::new);
        let open_if_named = |split| config.has(split).then(|| open(split)).transpose();
        Ok(Self {
            train: open(Split::Train)?,
            validation: open_if_named(Split::Validation)?,
            test: open_if_named(Split::Test)?,
        })
    }

    /// Reads and checks the files of one split.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if the config does not name the split.
    pub(crate) fn open_split(config: &CorpusConfig, split: Split, data_dir: &Path) -> Result<Arc<Corpus>> {
        files_are_there(config, Some(split), data_dir)?;
        Corpus::open(config, split, data_dir).map(Arc::new)
    }

    /// A split, if the config names one.
    pub fn get(&self, split: Split) -> Option<&Arc<Corpus>> {
        match split {
            Split::Train => Some(&self.train),
            Split::Validation => self.validation.as_ref(),
            Split::Test => self.test.as_ref(),
        }
    }

    /// What to say of files that seem to begin with a header.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        let all = [Some(&self.train), self.validation.as_ref(), self.test.as_ref()];
        all.into_iter().flatten().filter_map(|corpus| corpus.header_warning())
    }

    /// Every file, as the config names it, with its SHA-256.
    pub(super) fn digests(&self, data_dir: &Path) -> BTreeMap<String, String> {
        let splits = [Split::Train, Split::Validation, Split::Test].into_iter().filter_map(|split| self.get(split));
        splits.flat_map(|corpus| corpus.files()).map(|(file, sha256)| (named(file, data_dir), sha256.into())).collect()
    }
}

/// The files of a corpus, or of one split: the setting that names each, and where it lies. What is wrong with the settings is
/// said when the corpus is opened.
pub(crate) fn files(config: &CorpusConfig, split: Option<Split>, data_dir: &Path) -> Vec<(String, PathBuf)> {
    let splits = [Split::Train, Split::Validation, Split::Test].into_iter();
    let splits = splits.filter(|&one| config.has(one) && split.is_none_or(|split| split == one));
    let named = splits.flat_map(|split| config.named_files(split).unwrap_or_default());
    named.map(|(key, file)| (key, data_dir.join(file))).collect()
}

/// What helps where files of a corpus are missing.
pub(crate) fn remedy(config: &CorpusConfig, data_dir: &Path) -> String {
    let mut remedy = "set --data-dir or ANTIPHON_DATA_DIR".to_owned();
    if let Some(recipe) = config.recipe() {
        let words = ["data".into(), recipe.into()].into_iter().chain(option("--data-dir", data_dir, DATA));
        remedy += &format!(", or prepare it with `{}`", command(words));
    }
    remedy
}

/// That all files of a corpus, or of one split, are there; whether they can be used is seen when they are read.
fn files_are_there(config: &CorpusConfig, split: Option<Split>, data_dir: &Path) -> Result<()> {
    let missing =
        files(config, split, data_dir).into_iter().filter_map(|(key, path)| Some((key, file_fault(&path)?, path)));
    let missing: Vec<_> = missing.collect();
    let [(key, fault, path), others @ ..] = missing.as_slice() else { return Ok(()) };
    // Several references have one key.
    let mut others: Vec<&str> = others.iter().map(|(key, ..)| key.as_str()).filter(|other| other != key).collect();
    others.dedup();
    let others = if others.is_empty() { String::new() } else { format!(", and so are those of {}", others.join(", ")) };
    let (data, remedy) = (data_dir.display(), remedy(config, data_dir));
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

/// A corpus with the tokenizers that cut it.
pub(super) fn dataset(corpus: &Arc<Corpus>, tokenizers: &Tokenizers, config: &CorpusConfig) -> Result<Arc<Dataset>> {
    let (source, target) = (tokenizers.source().cloned(), Arc::clone(tokenizers.target()));
    Dataset::new(Arc::clone(corpus), source, target, &config.limits()).map(Arc::new)
}

/// The training batches: one plan an epoch, drawn by the seed and the epoch's number alone.
pub(super) struct TrainingBatches {
    dataset: Arc<Dataset>,
    config: BatchConfig,
    order: Key,
    /// How many batches an epoch has, for those that were planned once.
    counts: Mutex<BTreeMap<u64, usize>>,
}

impl TrainingBatches {
    pub(super) fn new(dataset: Arc<Dataset>, config: BatchConfig, seed: u64) -> Self {
        let order = Key::from_seed(seed).named("order");
        Self { dataset, config, order, counts: Mutex::default() }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, epoch: u64) -> Vec<Vec<u32>> {
        plan(self.dataset.lengths(), &self.config, self.order.numbered(epoch))
    }
}

impl Batches for TrainingBatches {
    fn epoch(&self, epoch: u64, skip: usize) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
        let mut plan = self.plan(epoch);
        self.counts().insert(epoch, plan.len());
        Ok(Box::new(Prefetch::new(Arc::clone(&self.dataset), plan.split_off(skip), AHEAD)))
    }

    fn batches_in(&self, epoch: u64) -> usize {
        let always = self.config.batches(self.dataset.lengths().len());
        always.unwrap_or_else(|| *self.counts().entry(epoch).or_insert_with(|| self.plan(epoch).len()))
    }
}
