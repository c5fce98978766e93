//! `model.safetensors`: weights, tokenizers and settings in one file, which answers alone, anywhere; of one model, or of several
//! that answer together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use antiphon_config::Tree;
use antiphon_core::random::Key;
use antiphon_core::{Error, Result};
use antiphon_data::lines::file_fault;
use antiphon_decode::Combination;
use antiphon_lab::{ModelSize, Run, sha256_file};
use antiphon_model::Model;
use antiphon_train::{
    Checkpoint, Mean, ModelFile, checkpoint_path, load_weights, save_weights, write_ensemble, write_model,
};
use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::without_uncounted;
use super::data::named;
use super::tokenizers::SavedTokenizers;
use super::{ExperimentConfig, Loaded, SavedModels, SourceStreamConfig, Tokenizers};

/// The newest layout of the metadata that this version reads, and the one that it writes.
const FORMAT: u32 = 1;

/// A trained model with all that is needed to use it.
#[derive(Debug)]
pub struct SavedModel {
    /// What its run is called.
    pub name: String,
    /// The settings it was trained with.
    pub config: ExperimentConfig,
    /// The updates of its training.
    pub steps: u64,
    /// Its tokenizers.
    pub tokenizers: Tokenizers,
    /// The model, without autodiff.
    pub model: Model,
}

/// What the file says about itself: no time, no host, so that equal runs give equal files.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    format: u32,
    version: String,
    name: String,
    steps: u64,
    config: ExperimentConfig,
    tokenizers: SavedTokenizers,
}

/// What the file of several models says about itself.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnsembleMetadata {
    format: u32,
    version: String,
    combination: Combination,
    members: Vec<MemberMetadata>,
}

/// What it says of one of them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberMetadata {
    name: String,
    weight: f64,
    model: Value,
}

/// The fields that every layout has.
#[derive(Deserialize)]
struct AnyMetadata {
    format: u32,
    version: String,
}

impl SavedModel {
    /// Writes the file, as a whole or not at all.
    ///
    /// # Errors
    /// If the file system refuses; what stood there before is untouched.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_model(path, &self.model, &self.metadata().to_string())
    }

    fn metadata(&self) -> Value {
        let metadata = Metadata {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            name: self.name.clone(),
            steps: self.steps,
            config: ExperimentConfig { name: None, threads: None, sweep: None, expect: None, ..self.config.clone() },
            tokenizers: self.tokenizers.to_saved(),
        };
        // Versions that do not know a setting read what does not use it.
        let mut metadata = serde_json::to_value(&metadata).expect("metadata is JSON");
        metadata["config"] = without_uncounted(metadata["config"].take());
        metadata
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, is no model, holds several, or comes from a newer version.
    pub fn read(path: &Path, device: &Device) -> Result<Self> {
        SavedModels::read(path, device)?.into_alone().map_err(|error| error.in_file(path))
    }

    /// The tokenizers of a file, or of the first model in it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn tokenizers_of(path: &Path) -> Result<Tokenizers> {
        let read = || Tokenizers::from_saved(&Self::metadata_of(path)?.tokenizers);
        read().map_err(|error| error.in_file(path))
    }

    /// The settings of a file, or of the first model in it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn config_of(path: &Path) -> Result<ExperimentConfig> {
        Self::metadata_of(path).map(|metadata| metadata.config).map_err(|error| error.in_file(path))
    }

    fn metadata_of(path: &Path) -> Result<Metadata> {
        let file = ModelFile::read(path)?;
        if !file.is_ensemble() {
            return parsed(&file.metadata());
        }
        let EnsembleMetadata { members, .. } = parsed(&file.metadata())?;
        let first = members.first().ok_or_else(|| Error::new("holds no model"))?;
        parsed(&first.model.to_string())
    }

    /// What metadata tell: all but the parameters, which are still to be loaded.
    fn outline(text: &str, device: &Device) -> Result<Self> {
        let Metadata { name, steps, config, tokenizers, .. } = parsed(text)?;
        let tokenizers = Tokenizers::from_saved(&tokenizers)?.reading(&config);
        let model = config.outline_model(&tokenizers.vocabularies(), Key::from_seed(0), device)?;
        Ok(Self { name, config, steps, model, tokenizers })
    }

    /// The model of a run's checkpoint.
    ///
    /// # Errors
    /// If one of the run's files is missing or damaged, or is of another version.
    pub(crate) fn of_checkpoint(run: &Run, checkpoint: Checkpoint, device: &Device) -> Result<Self> {
        // The environment belongs to configs that are still to be run.
        let config = Loaded::from_tree(&Tree::load_with(&run.config_path(), &[], [])?)?.config;
        let lacking = || Error::new("has a checkpoint, but no tokenizers: they are gone; repeat it with `--again`");
        let tokenizers = TokenizersFile::of(run).read()?.ok_or_else(|| lacking().in_file(run.path()))?;
        let tokenizers = tokenizers.reading(&config);
        let step = checkpoint.state.step;
        let model = config.outline_model(&tokenizers.vocabularies(), Key::from_seed(0), device)?;
        let path = || checkpoint_path(&run.checkpoints_path(), step);
        let model = load_weights(model, checkpoint.into_model()).map_err(|error| error.in_file(path()))?;
        Ok(Self { name: run.manifest()?.name, config, steps: step, tokenizers, model })
    }

    /// The mean of several models, each with its file, in which it is called after the first.
    ///
    /// # Errors
    /// If one of them cannot be read, computes in another way than the first, or has other tokenizers or parameters; or if there are
    /// none.
    pub(crate) fn mean(models: impl IntoIterator<Item = Result<(PathBuf, Self)>>) -> Result<Self> {
        let mut mean = Mean::default();
        let mut first: Option<Self> = None;
        for model in models {
            let (path, model) = model?;
            if first.as_ref().is_some_and(|first| first.tokenizers.to_saved() != model.tokenizers.to_saved()) {
                let message = "has other tokenizers than the first of these models: the rows of their tables have nothing to do \
                               with each other";
                return Err(Error::new(message).in_file(path));
            }
            mean.add(save_weights(&model.model)).map_err(|error| error.in_file(&path))?;
            let unlike = first.as_ref().map(|first| unlike(&computing(&first.config), &computing(&model.config), ""));
            if let Some(keys) = unlike.filter(|keys| !keys.is_empty()) {
                let message = format!(
                    "computes in another way than the first of these models, by its {}: their parameters do not mean the same",
                    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
                );
                return Err(Error::new(message).in_file(path));
            }
            match &mut first {
                None => first = Some(model),
                Some(first) => first.steps = first.steps.max(model.steps),
            }
        }
        let Some(first) = first else { return Err(Error::new("there is no model to average")) };
        let name = format!("{}-average", first.name);
        Ok(Self { name, model: load_weights(first.model, mean.weights())?, ..first })
    }

    /// How large it is; `path` is its file.
    ///
    /// # Errors
    /// If the file is gone.
    pub fn size(&self, path: &Path) -> Result<ModelSize> {
        let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, "read", &e))?.len();
        Ok(ModelSize { bytes, ..self.size_of_weights() })
    }

    /// How large it is without what a file holds beside the weights.
    pub(crate) fn size_of_weights(&self) -> ModelSize {
        let parameters = self.model.num_params() as u64;
        ModelSize { parameters, bytes: parameters * size_of::<f32>() as u64 }
    }
}

impl SavedModels {
    /// Writes them as one file, as a whole or not at all; a model alone as [`SavedModel::write`] does.
    ///
    /// # Errors
    /// As [`SavedModel::write`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let members: Vec<(&str, &SavedModel)> = self.members().collect();
        if let [(_, saved)] = members.as_slice() {
            return saved.write(path);
        }
        let weights = self.mixture().weights();
        let member = |((name, saved), &weight): (&(&str, &SavedModel), &f64)| MemberMetadata {
            name: (*name).to_owned(),
            weight,
            model: saved.metadata(),
        };
        let metadata = EnsembleMetadata {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").into(),
            combination: self.mixture().combination(),
            members: members.iter().zip(weights).map(member).collect(),
        };
        let models: Vec<&Model> = members.iter().map(|(_, saved)| &saved.model).collect();
        write_ensemble(path, &models, &serde_json::to_string(&metadata).expect("metadata is JSON"))
    }

    /// Reads the file of a model, or of several. One alone is called after its file.
    ///
    /// # Errors
    /// As [`SavedModel::read`].
    pub fn read(path: &Path, device: &Device) -> Result<Self> {
        Self::read_inner(path, device).map_err(|error| error.in_file(path))
    }

    fn read_inner(path: &Path, device: &Device) -> Result<Self> {
        let file = ModelFile::read(path)?;
        let name = path.display().to_string();
        if !file.is_ensemble() {
            let outline = SavedModel::outline(&file.metadata(), device)?;
            return Ok(Self::alone(name, SavedModel { model: file.load(outline.model)?, ..outline }));
        }
        let EnsembleMetadata { combination, members, .. } = parsed(&file.metadata())?;
        let outlines = members.iter().map(|member| SavedModel::outline(&member.model.to_string(), device));
        let apart = |SavedModel { name, config, steps, tokenizers, model }| ((name, config, steps, tokenizers), model);
        let (others, models): (Vec<_>, Vec<Model>) =
            outlines.collect::<Result<Vec<_>>>()?.into_iter().map(apart).unzip();
        let models = file.load_ensemble(models)?;
        let weights: Vec<f64> = members.iter().map(|member| member.weight).collect();
        let parts = members.into_iter().zip(others.into_iter().zip(models));
        let part = |(member, ((name, config, steps, tokenizers), model)): (MemberMetadata, (_, Model))| {
            Self::alone(member.name, SavedModel { name, config, steps, tokenizers, model })
        };
        Self::together(parts.map(part).collect(), Some(combination), &weights)
    }
}

/// The file of a model that is named by itself, or by the folder of its run.
pub(super) fn model_file(named: &Path) -> PathBuf {
    if named.is_dir() { file_of_run(named) } else { named.to_path_buf() }
}

/// The model of the run in a folder.
pub(super) fn file_of_run(folder: &Path) -> PathBuf {
    folder.join("model.safetensors")
}

/// Its SHA-256, with the name that it has in a run's identity; `key` names it.
pub(super) fn digest_of_model(key: &str, file: &Path, data_dir: &Path, remedy: &str) -> Result<(String, String)> {
    match file_fault(file) {
        None => Ok((named(file, data_dir), sha256_file(file)?)),
        Some(fault) => Err(Error::new(format!("{fault}; {remedy}")).in_file(file).at(key)),
    }
}

/// What helps where a file is no trained model.
pub(super) const NAME_A_MODEL: &str = "name a model file, or the folder of a run that is trained to its end";

/// The settings that decide what a trained model makes of its parameters.
fn computing(config: &ExperimentConfig) -> Value {
    // What is left out, drawn or added to the loss while training.
    const OF_TRAINING: [&str; 9] = [
        "activation_penalty",
        "coverage_penalty",
        "dropout",
        "initial",
        "locked_dropout",
        "output_dropout",
        "temporal_penalty",
        "weight_drop",
        "word_dropout",
    ];
    fn strip(value: &mut Value) {
        match value {
            Value::Object(table) => {
                table.retain(|key, _| !OF_TRAINING.contains(&key.as_str()));
                table.values_mut().for_each(strip);
            }
            Value::Array(entries) => entries.iter_mut().for_each(strip),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let of_stream = |(name, stream): (&String, &SourceStreamConfig)| {
        (name.clone(), json!({ "shared": stream.shared, "input": stream.input, "encoder": stream.encoder }))
    };
    let streams: serde_json::Map<String, Value> = config.streams.iter().map(of_stream).collect();
    let (model, features, history) = (&config.model, &config.features, config.data.history());
    let mut settings = json!({ "model": model, "features": features, "streams": streams, "history": history });
    strip(&mut settings);
    // Its share of the loss.
    if let Some(ctc) = settings.pointer_mut("/model/ctc").filter(|ctc| !ctc.is_null()) {
        *ctc = Value::Bool(true);
    }
    settings
}

/// The keys below `place` at which two settings differ.
fn unlike(one: &Value, other: &Value, place: &str) -> Vec<String> {
    let (Value::Object(a), Value::Object(b)) = (one, other) else {
        return (one != other).then(|| place.to_owned()).into_iter().collect();
    };
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let below = |key: &String| if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
    let of = |table: &serde_json::Map<String, Value>, key: &String| table.get(key).cloned().unwrap_or(Value::Null);
    keys.into_iter().flat_map(|key| unlike(&of(a, key), &of(b, key), &below(key))).collect()
}

/// Metadata of a file that is not newer than this program.
fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    let foreign = |error: serde_json::Error| {
        Error::new(format!("its metadata are not of this version ({error}); use the version that wrote it"))
    };
    let AnyMetadata { format, version } = serde_json::from_str(text).map_err(foreign)?;
    if format > FORMAT {
        let message = format!(
            "was written by version {version} in format {format}, and this program reads up to {FORMAT}: update it"
        );
        return Err(Error::new(message));
    }
    serde_json::from_str(text).map_err(foreign)
}

/// `tokenizers.json` in a run's folder: what was learned once, for a run that is resumed.
pub(super) struct TokenizersFile(PathBuf);

impl TokenizersFile {
    pub(super) fn of(run: &Run) -> Self {
        Self(run.tokenizers_path())
    }

    /// The tokenizers, or `None` if they were not saved yet.
    pub(super) fn read(&self) -> Result<Option<Tokenizers>> {
        let text = match std::fs::read_to_string(&self.0) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|e| Error::io(&self.0, "read", &e))?,
        };
        let damaged = |e: String| Error::new(format!("is damaged ({e}); delete it and go on")).in_file(&self.0);
        let saved = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        Tokenizers::from_saved(&saved).map(Some).map_err(|e| damaged(e.to_string()))
    }

    pub(super) fn write(&self, tokenizers: &Tokenizers) -> Result<()> {
        let text = serde_json::to_string(&tokenizers.to_saved()).expect("tokenizers are JSON");
        antiphon_core::disk::write_atomically(&self.0, text.as_bytes())
    }
}
