//! Recordings: how they become frames, those of a corpus and single ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use antiphon_core::{Error, Frames, Place, Problem, Result, Source};
use antiphon_data::corpus::Remedy;
use antiphon_data::lines::file_fault;
use antiphon_data::{Corpus, Fault, Split, Spoken};
use antiphon_sound::{
    Extracted, Extractor, FeatureCache, FeaturesConfig, Pieces, Recording, SHORTEST_LIMIT, Sound, counted_as,
};
use rayon::prelude::*;

use super::ExperimentConfig;
use super::data::files;
use crate::console::Console;

/// The folder of features below the data folder.
const FEATURES: &str = ".features";

/// Features on disk as the frames of a corpus.
#[derive(Debug)]
struct Kept(FeatureCache);

impl Frames for Kept {
    fn width(&self) -> usize {
        self.0.width()
    }

    fn frames(&self, recording: usize) -> usize {
        self.0.frames(recording)
    }

    fn read(&self, recording: usize) -> Result<Vec<f32>> {
        self.0.read(recording)
    }

    fn warning(&self) -> Option<String> {
        let damaged = (0..self.0.len()).filter(|&i| self.0.damaged(i) > 0).count();
        let all = self.0.len();
        (damaged > 0).then(|| {
            format!("{damaged} of {all} recordings have stretches that cannot be decoded, and are silent there")
        })
    }

    fn digest(&self) -> &str {
        self.0.digest()
    }
}

fn recording(Spoken { path, start, end }: Spoken) -> Recording {
    Recording { path, start, end }
}

/// Who hears of the features of a corpus while they are made.
struct Making<'a> {
    /// What to do with a recording that cannot be used.
    fault: &'a mut dyn FnMut(usize, Error) -> Result<()>,
    console: &'a mut Console,
    /// Of which file they are.
    corpus: &'a Corpus,
}

impl antiphon_sound::Listener for Making<'_> {
    fn fault(&mut self, index: usize, error: Error) -> Result<()> {
        (self.fault)(index, error)
    }

    fn done(&mut self, recordings: usize) {
        let doing = format!("{}: features made of recordings", self.corpus.path().display());
        self.console.progress(&doing, recordings as u64, self.corpus.len() as u64);
    }
}

/// A corpus with the frames of its recordings, which are made below the data folder if they are not there; one of text as it is.
///
/// # Errors
/// If a recording cannot be used (unless `on_bad_line = "skip"`), or none can.
pub(crate) fn heard(
    corpus: Corpus,
    config: &ExperimentConfig,
    data_dir: &Path,
    console: &mut Console,
) -> Result<Corpus> {
    let (Some(manifest), Some(features)) = (config.data.as_manifest(), &config.features) else { return Ok(corpus) };
    let recordings: Vec<Recording> = corpus.recordings()?.into_iter().map(recording).collect();
    let is_strict = manifest.on_bad_line == Remedy::Error;
    let mut unusable = Vec::new();
    let mut fault = |number: usize, error: Error| {
        unusable.push((number, error.clone()));
        // Nobody waits for hours to be told.
        if is_strict { Err(error) } else { Ok(()) }
    };
    // All of them are read for that.
    console.status(&format!("{}: looking for the features of its recordings", corpus.path().display()));
    let mut making = Making { fault: &mut fault, console, corpus: &corpus };
    let kept = FeatureCache::open(data_dir.join(FEATURES), &recordings, features, &mut making);
    console.clear();
    if is_strict && let Some(&(first, _)) = unusable.first() {
        let extractor = Extractor::new(features)?;
        let others = recordings.par_iter().enumerate().skip(first + 1);
        let look = |(number, recording): (usize, &Recording)| Some((number, extractor.look(recording).err()?));
        unusable.extend(others.filter_map(look).collect::<Vec<_>>());
        return Err(refusal(&corpus, &unusable));
    }
    let kept = kept?;
    let counted: Vec<(usize, &str)> = unusable.iter().map(|(number, error)| (*number, counted_as(error))).collect();
    corpus.with_frames(Arc::new(Kept(kept)), &counted)
}

/// How many recordings that cannot be used are named.
const LISTED: usize = 10;

/// What to say of recordings that cannot be used, of which those behind the first were only looked at.
fn refusal(corpus: &Corpus, faults: &[(usize, Error)]) -> Error {
    let (named, others) = faults.split_at(faults.len().min(LISTED));
    let problem = |(number, error): &(usize, Error)| {
        let (_, line) = corpus.place(*number);
        Problem { place: Place::line(line), message: error.to_string() }
    };
    let mut problems: Vec<Problem> = named.iter().map(problem).collect();
    let last = problems.last_mut().expect("there is a fault");
    if !others.is_empty() {
        last.message += &format!(" (and at least {} more such recordings)", others.len());
    }
    last.message += "; or set data.on_bad_line = \"skip\"";
    Error::many(corpus.path(), problems)
}

/// How many recordings of a split are looked at before all of them are heard.
const LOOKED_AT: usize = 100;

/// What is wrong with manifests that are there, and with the first recordings that they name, as far as the heads of these tell: for
/// each the setting, and what to say. Of faults of one kind in a split it is the first; what is left out and counted is none.
pub(crate) fn unheard(config: &ExperimentConfig, data_dir: &Path) -> Vec<(String, String)> {
    let (Some(manifest), Some(features)) = (config.data.as_manifest(), &config.features) else { return Vec::new() };
    let Ok(extractor) = Extractor::new(features) else { return Vec::new() };
    let faults = |split: Split| -> Result<Vec<String>> {
        let corpus = Corpus::open_with(&config.data, &config.further_columns(), split, data_dir)?;
        if manifest.on_bad_line == Remedy::Skip {
            return Ok(Vec::new());
        }
        // Of each kind the first, and how many more.
        let mut kinds: Vec<(&str, Error, usize)> = Vec::new();
        for (i, spoken) in corpus.recordings()?.into_iter().enumerate().take(LOOKED_AT) {
            let Err(error) = extractor.look(&recording(spoken)) else { continue };
            let (kind, (file, line)) = (counted_as(&error), corpus.place(i));
            match kinds.iter_mut().find(|(known, ..)| *known == kind) {
                Some((_, _, more)) => *more += 1,
                None => kinds.push((kind, Error::new(error.to_string()).at(Place::line(line)).in_file(file), 0)),
            }
        }
        let said = |(kind, error, more): (&str, Error, usize)| match more {
            0 => format!("{error}"),
            more => format!("{error} (and {more} more {kind})"),
        };
        Ok(kinds.into_iter().map(said).collect())
    };
    let mut found = Vec::new();
    for split in [Split::Train, Split::Validation, Split::Test].into_iter().filter(|&split| config.data.has(split)) {
        let files = files(&config.data, Some(split), data_dir);
        if let [(key, path), ..] = files.as_slice()
            && file_fault(path).is_none()
        {
            let faults = faults(split).unwrap_or_else(|error| vec![error.to_string()]);
            found.extend(faults.into_iter().map(|fault| (key.clone(), fault)));
        }
    }
    found
}

/// Listens to single recordings as to those that a model has learned from.
#[derive(Debug)]
pub(crate) struct Listener {
    extractor: Extractor,
    width: usize,
    /// From where their paths are seen.
    folder: PathBuf,
}

impl Listener {
    /// One for the recordings that a file names, or that are named where the process runs; `None` for a model of text.
    ///
    /// # Errors
    /// If its settings have problems.
    pub(crate) fn of(config: &ExperimentConfig, file: Option<&Path>) -> Result<Option<Self>> {
        let Some(features) = config.features.as_ref().filter(|_| config.data.as_manifest().is_some()) else {
            return Ok(None);
        };
        let folder = file.and_then(Path::parent).map(Path::to_path_buf).unwrap_or_default();
        Ok(Some(Self { extractor: Extractor::new(features)?, width: features.width(), folder }))
    }

    /// What a model is shown of a recording.
    ///
    /// # Errors
    /// If it cannot be used.
    pub(crate) fn hear(&self, spoken: Spoken) -> Result<Source, Fault> {
        self.source(self.extractor.extract(&recording(spoken.below(&self.folder))))
    }

    /// What a model is shown of sound.
    ///
    /// # Errors
    /// If it cannot be used.
    pub(crate) fn hear_sound(&self, sound: Sound) -> Result<Source, Fault> {
        self.source(self.extractor.extract_sound(sound))
    }

    fn source(&self, heard: Result<Extracted>) -> Result<Source, Fault> {
        let heard = heard.map_err(|error| Fault::Recording(error.to_string()))?;
        Ok(Source::Frames { values: heard.values, features: self.width })
    }

    /// How long a recording may be, in seconds, of which a model hears so many frames at most.
    pub(crate) fn max_seconds(&self, max_frames: usize) -> f64 {
        let config = self.extractor.config();
        config.max_seconds().min(max_frames as f64 * config.hop_seconds())
    }

    /// How long a recording is, in seconds: as its file says or, where that does not tell, as its frames do.
    pub(crate) fn seconds(&self, path: &Path, frames: usize) -> f64 {
        let config = self.extractor.config();
        let is_sound = !matches!(config, FeaturesConfig::Given(_));
        let told = is_sound.then(|| Pieces::open(path, SHORTEST_LIMIT).ok()?.seconds()).flatten();
        told.unwrap_or(frames as f64 * config.hop_seconds())
    }

    /// Whether a file has more seconds of sound, and can be cut. Nobody knows where the features of another program are quiet; what
    /// is no sound is told when it is heard.
    pub(crate) fn is_longer(&self, path: &Path, seconds: f64) -> bool {
        let is_sound = !matches!(self.extractor.config(), FeaturesConfig::Given(_));
        is_sound && Pieces::open(path, seconds).and_then(|mut pieces| pieces.is_one()).is_ok_and(|is_one| !is_one)
    }
}
