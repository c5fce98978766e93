//! One experiment: from a checked config to a trained model and its figures.
//!
//! ```no_run
//! use std::path::Path;
//! use antiphon::{Experiment, Loaded};
//!
//! # fn main() -> antiphon_core::Result<()> {
//! let loaded = Loaded::read(Path::new("configs/g2p/quickstart.toml"), &["seed=2".into()])?;
//! let experiment = Experiment::open(loaded, Path::new("data"))?;
//! println!("{} examples, experiment {}", experiment.corpora.train.len(), experiment.identity.digest());
//! # Ok(())
//! # }
//! ```

mod answering;
mod answers;
mod augmentation;
mod checks;
mod columns;
mod config;
mod data;
mod evaluation;
mod findings;
mod fusion;
pub(crate) mod generation;
mod listening;
mod loaded;
mod losses;
mod meaning;
mod no_answer;
mod reading;
mod recordings;
mod rerank;
mod samples;
mod saved;
mod shape;
mod speech;
mod start;
mod streams;
mod teacher;
mod together;
mod tokenizers;
mod training;
pub(crate) mod unknown;
mod vectors;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use antiphon_core::Result;
use antiphon_data::Split;
use antiphon_lab::{Identity, Manifest, Results};
use antiphon_train::{TrainConfig, planned_steps};

use crate::console::Console;
use crate::device::thread_count;
use crate::revision::revision;

pub use answering::Answering;
pub use answers::{Answer, Answers, Question, Searcher};
pub(crate) use columns::{lacking_columns, lacking_columns_of};
use config::uncounted;
pub use config::{EvaluateConfig, ExperimentConfig, LearnFrom, Temperature, TokenizersConfig};
pub use data::Corpora;
pub(crate) use data::{digests as digests_of, files, files_are_there, named, remedy};
pub use evaluation::{Answered, Evaluation, Evaluator, Pace};
pub(crate) use evaluation::{figures_of_validation, temperature, threshold, token_counts};
pub(crate) use findings::{findings, spread};
pub use loaded::Loaded;
pub use meaning::Interpreter;
pub(crate) use meaning::figures;
pub use no_answer::NoAnswerConfig;
pub(crate) use recordings::{Listener, heard, unheard};
pub use rerank::{RerankConfig, ReverseOf};
pub use saved::SavedModel;
pub use streams::{SourceStreamConfig, Streams};
pub(crate) use streams::{apart, unknown_apart};
pub use together::SavedModels;
pub use tokenizers::Tokenizers;
pub use training::Trained;
pub use words::Word;
pub(crate) use words::{Clock, to_millisecond};

/// An experiment whose files are there and readable.
#[derive(Debug)]
pub struct Experiment {
    /// Its settings.
    pub config: ExperimentConfig,
    /// Its corpus.
    pub corpora: Corpora,
    /// What makes it the same as another.
    pub identity: Identity,
    data_dir: PathBuf,
    learned: OnceLock<Tokenizers>,
}

impl Experiment {
    /// Reads and checks all files that the config names.
    ///
    /// # Errors
    /// If one is missing or broken.
    pub fn open(loaded: Loaded, data_dir: &Path) -> Result<Self> {
        Self::open_telling(loaded, data_dir, &mut Console::new(true))
    }

    /// The same, telling what takes a while.
    pub(crate) fn open_telling(loaded: Loaded, data_dir: &Path, console: &mut Console) -> Result<Self> {
        let Loaded { config, name, .. } = loaded;
        let corpora = Corpora::open_telling(&config, data_dir, console)?;
        let data = digests(&config, &corpora, data_dir)?;
        let identity = identity(&config, name, data);
        Ok(Self { config, corpora, identity, data_dir: data_dir.to_path_buf(), learned: OnceLock::new() })
    }

    /// The experiment of a run that goes on with another one, which has this manifest and these tokenizers. What that one started from
    /// is known by its manifest, and need not be there any more.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn longer(
        loaded: Loaded,
        data_dir: &Path,
        parent: &Manifest,
        tokenizers: Tokenizers,
        console: &mut Console,
    ) -> Result<Self> {
        let Loaded { config, name, .. } = loaded;
        let corpora = Corpora::open_telling(&config, data_dir, console)?;
        let mut data = corpora.digests(data_dir);
        let of_start = config.names_of_start(data_dir).into_iter();
        data.extend(of_start.filter_map(|name| Some((name.clone(), parent.data.get(&name)?.clone()))));
        // A file that it started from may teach it too, and is then as it is now.
        data.extend(config.digests_of_tokenizers(data_dir)?);
        data.extend(config.digests_of_teacher(data_dir)?);
        data.extend(config.digests_of_search(data_dir)?);
        let (identity, tokenizers) = (identity(&config, name, data), tokenizers.reading(&config));
        Ok(Self { config, corpora, identity, data_dir: data_dir.to_path_buf(), learned: tokenizers.into() })
    }

    /// Checks what only the corpus can tell before a run begins: whether it lasts longer than its warm-up, where
    /// [that is in question](length_matters).
    ///
    /// # Errors
    /// If it does not, or the corpus cannot be used.
    pub(crate) fn check_length(&self) -> Result<()> {
        let parent = self.identity.parent.as_ref();
        let begins = parent.filter(|parent| parent.restarts("schedule")).map_or(0, |parent| parent.step);
        if !length_matters(&self.config.train) && begins == 0 {
            return Ok(());
        }
        let training = data::Encoded::new(&self.corpora.train, self.learned()?, &self.config)?;
        let batches = data::TrainingBatches::new(training, &self.config)?;
        planned_steps(&self.config.train, &batches, begins).map(|_| ())
    }

    /// A line that a model can be asked about, but for a table's: the first source to learn from, or the first text; one within the
    /// limits, if there is any among the first.
    pub(crate) fn a_line(&self) -> Result<String> {
        const LOOKED_AT: usize = 1000;
        let limits = self.config.data.limits();
        let most = if self.config.data.has_source() { limits.max_source } else { limits.max_target };
        let mut first = None;
        for example in self.corpora.train.iter().take(LOOKED_AT) {
            let example = example?;
            let line = example.source.unwrap_or_else(|| example.targets.concat());
            // Hardly a tokenizer makes more tokens than there are bytes.
            if line.len() <= most && !line.trim().is_empty() {
                return Ok(line);
            }
            first.get_or_insert(line);
        }
        Ok(first.unwrap_or_default())
    }

    /// Of a table or a manifest, the file of the last split that is named, as it lies on disk.
    pub(crate) fn a_table(&self) -> Option<PathBuf> {
        let data = Some(&self.config.data).filter(|data| data.has_columns())?;
        let last = [Split::Test, Split::Validation, Split::Train].into_iter().find(|&split| data.has(split))?;
        files(data, Some(last), &self.data_dir).pop().map(|(_, file)| file)
    }

    /// The tokenizers, learned once.
    fn learned(&self) -> Result<&Tokenizers> {
        if let Some(learned) = self.learned.get() {
            return Ok(learned);
        }
        let tokenizers = match self.config.kept_tokenizers()? {
            Some(kept) => kept,
            None => Tokenizers::learn(&self.config, &self.corpora, &self.data_dir)?,
        };
        Ok(self.learned.get_or_init(|| tokenizers.reading(&self.config)))
    }

    /// Whether those of these splits that there are have their figures.
    pub(crate) fn is_measured(&self, results: &Results, splits: &[Split]) -> bool {
        let figures = |split: Split| results.splits().any(|(name, _)| name == split.name());
        splits.iter().all(|&split| figures(split) || self.corpora.get(split).is_none())
    }
}

/// What makes an experiment the same as another; `data` are its files with their digests.
fn identity(config: &ExperimentConfig, name: String, data: BTreeMap<String, String>) -> Identity {
    let settings = config.decisive();
    Identity {
        name,
        uncounted: uncounted(&settings),
        config: settings,
        data,
        version: env!("CARGO_PKG_VERSION").into(),
        device: config.device.name().into(),
        threads: thread_count(config.threads),
        parent: None,
        revision: revision(),
    }
}

/// All files that an experiment reads, with their digests.
fn digests(config: &ExperimentConfig, corpora: &Corpora, data_dir: &Path) -> Result<BTreeMap<String, String>> {
    let mut data = corpora.digests(data_dir);
    data.extend(config.digests_of_tokenizers(data_dir)?);
    data.extend(config.digests_of_start(data_dir)?);
    data.extend(config.digests_of_teacher(data_dir)?);
    data.extend(config.digests_of_search(data_dir)?);
    Ok(data)
}

/// Whether the number of steps decides if the run can begin, and is known only from the corpus: with a warm-up, and a length in
/// epochs.
pub(crate) fn length_matters(train: &TrainConfig) -> bool {
    train.epochs.is_some() && train.schedule.warmup() > 0
}
