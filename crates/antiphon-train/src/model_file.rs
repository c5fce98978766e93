//! The final model, or several that answer together, as one file: parameters and what the caller says about them.

use std::path::{Path, PathBuf};

use antiphon_core::{Error, Result};
use burn::module::Module;

use crate::archive::{self, Archive, Unverified};
use crate::{Weight, load_weights, save_weights};

const KIND: &str = "model";
/// Each parameter's path begins with the number of its model.
const ENSEMBLE: &str = "ensemble";

/// Writes all parameters of `model`, and `metadata` (any JSON: settings, tokenizers), as one safetensors file.
/// Equal models with equal metadata give equal bytes.
///
/// # Errors
/// If the file system refuses; a file that stood there before is then untouched.
///
/// # Panics
/// If `metadata` is not JSON, or the module holds parameters that are not of floating point.
pub fn write_model<M: Module>(path: &Path, model: &M, metadata: &str) -> Result<()> {
    let content = serde_json::from_str(metadata).expect("a model's metadata is JSON");
    archive::write(path, Archive { format: 1, kind: KIND.into(), content, arrays: save_weights(model) })
}

/// Writes all parameters of several models as one file, as [`write_model`] writes those of one.
///
/// # Errors
/// As [`write_model`].
///
/// # Panics
/// As [`write_model`].
pub fn write_ensemble<M: Module>(path: &Path, models: &[&M], metadata: &str) -> Result<()> {
    let content = serde_json::from_str(metadata).expect("an ensemble's metadata is JSON");
    let numbered = |(number, model): (usize, &&M)| {
        let of = move |weight: Weight| Weight { path: format!("{number}.{}", weight.path), ..weight };
        save_weights(*model).into_iter().map(of)
    };
    let arrays = models.iter().enumerate().flat_map(numbered).collect();
    archive::write(path, Archive { format: 4, kind: ENSEMBLE.into(), content, arrays })
}

/// A model file that was read once: first for what it says about itself, then for its parameters.
pub struct ModelFile {
    path: PathBuf,
    file: Unverified,
}

impl ModelFile {
    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be read, is not a model of ours, or was written by a newer version.
    pub fn read(path: &Path) -> Result<Self> {
        let file = Unverified::read(path).map_err(|failure| failure.into_error(path))?;
        match file.kind() {
            KIND | ENSEMBLE => Ok(Self { path: path.to_owned(), file }),
            other => Err(Error::new(format!("holds a {other}, not a {KIND}; give a model file")).in_file(path)),
        }
    }

    /// Whether it holds several models.
    pub fn is_ensemble(&self) -> bool {
        self.file.kind() == ENSEMBLE
    }

    /// What its writer said about it, as canonical JSON (no white space, keys in order).
    pub fn metadata(&self) -> String {
        self.file.content().to_string()
    }

    /// Fills the models of an ensemble with their parameters, in its order.
    ///
    /// # Errors
    /// As [`load`](Self::load), and if there are others than these.
    pub fn load_ensemble<M: Module>(self, models: Vec<M>) -> Result<Vec<M>> {
        let Self { path, file } = self;
        let Archive { arrays, .. } = file.verify().map_err(|failure| failure.into_error(&path))?;
        let mut parts: Vec<Vec<Weight>> = models.iter().map(|_| Vec::new()).collect();
        for weight in arrays {
            let numbered = weight.path.split_once('.').and_then(|(number, own)| Some((number.parse().ok()?, own)));
            let (number, own): (usize, &str) = numbered.unwrap_or((usize::MAX, ""));
            let Some(part) = parts.get_mut(number) else {
                return Err(Error::new("belongs to no model of this file").at(weight.path).in_file(&path));
            };
            part.push(Weight { path: own.to_owned(), ..weight });
        }
        let all = models.into_iter().zip(parts).enumerate();
        let load = |(number, (model, arrays)): (usize, (M, Vec<Weight>))| {
            load_weights(model, arrays).map_err(|error| {
                let below = error.problems.into_iter().map(|problem| problem.below(&number.to_string())).collect();
                Error::many(&path, below)
            })
        };
        all.map(load).collect()
    }

    /// Fills `model` with its parameters, once their integrity is checked.
    ///
    /// # Errors
    /// If the file is damaged or holds several models, or if these are not exactly the parameters of `model`.
    pub fn load<M: Module>(self, model: M) -> Result<M> {
        if self.is_ensemble() {
            return Err(Error::new("holds several models, where one is needed").in_file(&self.path));
        }
        let Self { path, file } = self;
        let Archive { arrays, .. } = file.verify().map_err(|failure| failure.into_error(&path))?;
        load_weights(model, arrays).map_err(|error| error.in_file(&path))
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[derive(Module, Debug)]
    struct One {
        weight: Param<Tensor<1>>,
    }

    fn one(values: [f32; 2]) -> One {
        One { weight: Param::from_tensor(Tensor::from_data(values, &Device::flex())) }
    }

    #[test]
    fn a_model_and_its_metadata_come_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let values = [f32::MIN_POSITIVE / 3.0, -0.0];
        write_model(&path, &one(values), r#"{"name": "böse \"x\"", "rate": 0.1}"#).unwrap();
        let file = ModelFile::read(&path).unwrap();
        assert_eq!(file.metadata(), r#"{"name":"böse \"x\"","rate":0.1}"#);
        let loaded = save_weights(&file.load(one([1.0, 1.0])).unwrap());
        assert_eq!(loaded[0].values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), values.map(f32::to_bits));
    }

    #[test]
    fn several_models_come_back_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ensemble.safetensors");
        let models = [one([1.0, 2.0]), one([3.0, 4.0])];
        write_ensemble(&path, &models.iter().collect::<Vec<_>>(), r#"{"a": 1}"#).unwrap();
        let read = || ModelFile::read(&path).unwrap();
        assert!(read().is_ensemble() && read().metadata() == r#"{"a":1}"#);
        let loaded = read().load_ensemble(vec![one([0.0; 2]), one([0.0; 2])]).unwrap();
        assert_eq!(
            loaded.iter().map(|model| save_weights(model)[0].values.clone()).collect::<Vec<_>>(),
            [[1.0, 2.0], [3.0, 4.0]]
        );
        for models in [1, 3] {
            let models = (0..models).map(|_| one([0.0; 2])).collect();
            assert!(read().load_ensemble(models).unwrap_err().to_string().contains("ensemble.safetensors: "));
        }
        let alone = read().load(one([0.0; 2])).unwrap_err().to_string();
        assert!(alone.contains("holds several models"), "{alone}");
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let error = |path: &Path| ModelFile::read(path).err().expect("an error").to_string();
        let missing = error(&path);
        assert!(missing.contains("model.safetensors: cannot read: "), "{missing}");

        #[derive(Module, Debug)]
        struct Other {
            other: Param<Tensor<1>>,
        }
        write_model(&path, &one([1.0, 2.0]), "{}").unwrap();
        let other = Other { other: one([0.0; 2]).weight };
        let unfit = ModelFile::read(&path).unwrap().load(other).unwrap_err().to_string();
        assert!(
            unfit.contains("model.safetensors: 2 problems\n  other: missing\n  weight: the model has no"),
            "{unfit}"
        );

        let checkpoint =
            Archive { format: 1, kind: "checkpoint".into(), content: serde_json::Value::Null, arrays: vec![] };
        archive::write(&path, checkpoint).unwrap();
        let foreign = error(&path);
        assert!(foreign.ends_with("holds a checkpoint, not a model; give a model file"), "{foreign}");
    }
}
