//! `[train.teacher]`: trained models that say, of each batch, how probable they find every token in its place.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

use antiphon_core::{Batch, Error, Result};
use antiphon_decode::Combination;
use antiphon_kernels::{Carry, Teaching, Term};
use antiphon_train::{TeacherCombination, TeacherConfig};
use burn::tensor::Device;

use super::saved::{NAME_A_MODEL, digest_of_model, model_file};
use super::start::sides;
use super::together::{Said, occupation, read_by, unlike};
use super::{Experiment, ExperimentConfig, SavedModel, SavedModels, Tokenizers};

/// The setting that names them.
const KEY: &str = "train.teacher.models";

impl ExperimentConfig {
    /// The files of the models that teach, if any do: the setting, and where each lies.
    pub(crate) fn files_of_teacher(&self) -> Vec<(String, PathBuf)> {
        let teacher = Some(&self.train.teacher).filter(|teacher| teacher.is_used());
        let models = teacher.into_iter().flat_map(|teacher| teacher.models.iter().enumerate());
        models.map(|(i, model)| (format!("{KEY}.{i}"), model_file(model))).collect()
    }

    /// The same files with their SHA-256.
    ///
    /// # Errors
    /// If one is not there.
    pub(super) fn digests_of_teacher(&self, data_dir: &Path) -> Result<BTreeMap<String, String>> {
        let files = self.files_of_teacher().into_iter();
        files.map(|(key, file)| digest_of_model(&key, &file, data_dir, NAME_A_MODEL)).collect()
    }
}

/// Who teaches.
pub(super) struct Teacher {
    models: SavedModels,
    share: f64,
    temperature: f64,
}

impl fmt::Display for Teacher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { models, share, temperature } = self;
        let names: Vec<&str> = models.members().map(|(name, _)| name).collect();
        let how = match (names.len(), models.mixture().combination()) {
            (1, _) => "",
            (_, Combination::Linear) => ", combined linearly",
            (_, Combination::LogLinear) => ", combined log-linearly",
        };
        write!(f, "{}{how}: {share} of the decoder's loss", names.join(", "))?;
        if *temperature == 1.0 { Ok(()) } else { write!(f, ", at a temperature of {temperature}") }
    }
}

impl Experiment {
    /// Checks that who is to teach fits, before a run begins.
    ///
    /// # Errors
    /// If one does not, or cannot be read.
    pub(crate) fn check_teacher(&self) -> Result<()> {
        match self.config.train.teacher.is_used() {
            true => self.teacher(self.learned()?, &Device::flex()).map(drop),
            false => Ok(()),
        }
    }

    /// Who teaches a model with these tokenizers, if anybody does.
    ///
    /// # Errors
    /// If a model cannot be read, does not fit, or is no more what the run's identity names.
    pub(super) fn teacher(&self, tokenizers: &Tokenizers, device: &Device) -> Result<Option<Teacher>> {
        let config = &self.config.train.teacher;
        if !config.is_used() {
            return Ok(None);
        }
        let read = |(key, file): &(String, PathBuf)| {
            let models = SavedModels::read(file, device).map_err(|error| error.at(key.clone()))?;
            let together = models.members().len() > 1;
            for (name, saved) in models.members() {
                let fits = fits(saved, &self.config, tokenizers);
                let fits = fits.map_err(|error| if together { error.of(name) } else { error });
                fits.map_err(|error| error.in_file(file).at(key.clone()))?;
            }
            Ok(models)
        };
        let files = self.config.files_of_teacher();
        let parts = files.iter().map(read).collect::<Result<Vec<_>>>()?;
        self.check_files(files)?;
        let models = together(parts, config)?;
        Ok(Some(Teacher { models, share: config.weight, temperature: config.temperature }))
    }
}

/// Models that teach together.
fn together(mut parts: Vec<SavedModels>, config: &TeacherConfig) -> Result<SavedModels> {
    let chosen = config.combine.map(|combine| match combine {
        TeacherCombination::Linear => Combination::Linear,
        TeacherCombination::LogLinear => Combination::LogLinear,
    });
    if parts.len() == 1 && (chosen.is_none() || parts[0].members().len() == 1) {
        return Ok(parts.remove(0));
    }
    let combination = chosen.map_or_else(|| SavedModels::combination_of(&parts), Ok);
    let combination = combination.map_err(|error| error.at("train.teacher.combine"))?;
    let weights = if config.weights.is_empty() { vec![1.0; parts.len()] } else { config.weights.clone() };
    SavedModels::together(parts, Some(combination), &weights).map_err(|error| match error.file {
        Some(_) => error,
        None => error.at("train.teacher.weights"),
    })
}

/// That a model can teach one of this config, with these tokenizers.
fn fits(theirs: &SavedModel, own: &ExperimentConfig, tokenizers: &Tokenizers) -> Result<()> {
    let error = |message: String| Err(Error::new(message));
    if !theirs.config.model.has_decoder() {
        let message =
            "has no decoder, and says of no token how probable it is behind those before it; name a model that has one";
        return error(message.into());
    }
    if theirs.config.model.ctc_weight() == Some(1.0) {
        let message = "has learned by CTC alone (`model.ctc.weight = 1`), and its decoder knows nothing; name a model with a lower weight";
        return error(message.into());
    }
    if theirs.config.model.copies() {
        let message = "copies words of its sources, which are slots of its own; name a model whose head is a softmax";
        return error(message.into());
    }
    if theirs.config.data.history() != own.data.history() {
        let message =
            "reads histories in another way than this config has it (`data.history`); name a model that reads the same";
        return error(message.into());
    }
    let (a, b) = (occupation(own), occupation(&theirs.config));
    if a != b {
        return error(format!("{b}, and the model of this config {a}: name a model that is asked the same"));
    }
    if own.features != theirs.config.features {
        return error(
            "its `features` are not those of this config: name a model that hears the same of a recording".into(),
        );
    }
    let (a, b) = read_by(own, &theirs.config);
    if a != b {
        return error(format!("reads {b}, and the model of this config reads {a}: name one that reads the same"));
    }
    for ((side, own_side), (_, their_side)) in sides(tokenizers).into_iter().zip(sides(&theirs.tokenizers)) {
        let Some(what) = unlike(own_side, their_side) else { continue };
        let key = match side {
            "source" | "target" if own.tokenizer.shared.is_some() => "tokenizer.shared".to_owned(),
            "source" | "target" => format!("tokenizer.{side}"),
            stream => format!("streams.{stream}.tokenizer"),
        };
        return error(format!(
            "its vocabulary of `{side}` is not that of this config: {what}; take it from that model: `{key} = {{ kind = \"model\", \
             model = … }}`"
        ));
    }
    Ok(())
}

impl Teaching for Said {
    fn log_probs(&self, places: Range<usize>) -> Vec<f32> {
        self.log_probs(places)
    }
}

impl Teacher {
    /// How the arrays of one of the models are called in the carry of the model that learns.
    fn prefix(member: usize) -> String {
        format!("teacher.{member}.")
    }

    /// What the batch before has left of the models that teach; nothing before the first.
    pub(super) fn carries(&self, carry: &Carry) -> Vec<Carry> {
        (0..self.models.members().len()).map(|member| carry.part(&Self::prefix(member))).collect()
    }

    /// The terms of a batch with what is held of its tokens. `carries` are those of the batch before; those of this one are added to
    /// `carry`.
    ///
    /// # Errors
    /// If a model cannot read the batch, or a row goes on and nothing was carried.
    pub(super) fn teach(
        &self,
        terms: Vec<Term>,
        batch: &Batch,
        mut carries: Vec<Carry>,
        carry: &mut Carry,
    ) -> Result<Vec<Term>> {
        // All have the tokenizers of the model that learns, and so one reading of the sources.
        let said = self.models.say(slice::from_ref(batch), &mut carries)?;
        for (member, of_member) in carries.into_iter().enumerate() {
            carry.add(&Self::prefix(member), of_member);
        }
        let says: Arc<dyn Teaching> = Arc::new(said);
        let taught = |term| match term {
            Term::CrossEntropy { projection, weight } => {
                let (says, share, temperature) = (Arc::clone(&says), self.share, self.temperature);
                let teacher = antiphon_kernels::Teacher { says, share, temperature };
                Term::Taught { projection, teacher, weight }
            }
            other @ (Term::Taught { .. } | Term::Copied { .. } | Term::Sum { .. }) => other,
        };
        Ok(terms.into_iter().map(taught).collect())
    }
}
