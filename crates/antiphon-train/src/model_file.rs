//! The final model as one file: its parameters and what the caller says about them.

use std::path::{Path, PathBuf};

use antiphon_core::{Error, Result};
use burn::module::Module;

use crate::archive::{self, Archive, Unverified};
use crate::{load_weights, save_weights};

const KIND: &str = "model";

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
            KIND => Ok(Self { path: path.to_owned(), file }),
            other => Err(Error::new(format!("holds a {other}, not a {KIND}; give a model file")).in_file(path)),
        }
    }

    /// What its writer said about it, as canonical JSON (no white space, keys in order).
    pub fn metadata(&self) -> String {
        self.file.content().to_string()
    }

    /// Fills `model` with its parameters, once their integrity is checked.
    ///
    /// # Errors
    /// If the file is damaged, or if these are not exactly the parameters of `model`.
    pub fn load<M: Module>(self, model: M) -> Result<M> {
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
