//! Vectors of tokens: read into a model before its training, and written from one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Place, Result, TokenId, Tokenizer};
use antiphon_data::vectors::{Vectors, vectors_as_text};
use antiphon_lab::Share;
use antiphon_model::Model;
use antiphon_train::{Inherited, Slices, Weight, save_weights, shapes};

use super::shape::{Shape, Table};
use super::start::sides;
use super::{Experiment, ExperimentConfig, SavedModel, Tokenizers};

impl ExperimentConfig {
    /// The files of vectors that a training starts from, by the paths of the tables.
    pub(super) fn vector_files<'a>(&'a self, data_dir: &'a Path) -> impl Iterator<Item = (&'a String, PathBuf)> {
        self.train.start_from.vectors.iter().map(|(path, file)| (path, data_dir.join(file)))
    }
}

/// The tokens of a vocabulary, each as it is written.
fn tokens(tokenizer: &dyn Tokenizer) -> Vec<String> {
    (0..tokenizer.size() as TokenId).map(|id| tokenizer.token(id).unwrap_or_default()).collect()
}

impl Experiment {
    /// What has something for each token, where vectors are read at all.
    fn tables(&self) -> Result<BTreeMap<String, Table>> {
        let reads = !self.config.train.start_from.vectors.is_empty();
        Ok(if reads { self.config.shape()?.tables } else { BTreeMap::new() })
    }

    /// Checks that the vectors that the training starts from are as wide as their tables.
    ///
    /// # Errors
    /// If they are not, or the beginning of a file cannot be read.
    pub(super) fn check_vectors(&self, model: &Model) -> Result<()> {
        let (shapes, tables) = (shapes(model), self.tables()?);
        for (path, file) in self.config.vector_files(&self.data_dir) {
            let table = *tables.get(path).ok_or_else(|| no_table(path, &tables).at(vectors_of(path)))?;
            let (width, wanted) = (Vectors::width(&file)?, table.width(&shapes[path]));
            if width != wanted {
                let message = format!(
                    "its vectors are {width} wide, and a row of `{path}` is {wanted}; make them equal by its `size`"
                );
                return Err(Error::new(message).in_file(file).at(vectors_of(path)));
            }
        }
        Ok(())
    }

    /// Puts the vectors of files in their places, and tells of how many tokens there are some.
    ///
    /// # Errors
    /// As [`check_vectors`](Self::check_vectors), or if a file has none of a table's tokens.
    pub(super) fn with_vectors(
        &self,
        model: Model,
        tokenizers: &Tokenizers,
    ) -> Result<(Model, BTreeMap<String, Share>)> {
        let mut coverage = BTreeMap::new();
        if self.config.train.start_from.vectors.is_empty() {
            return Ok((model, coverage));
        }
        self.check_vectors(&model)?;
        let (tables, shapes) = (self.tables()?, shapes(&model));
        let mut slices = BTreeMap::new();
        for (path, file) in self.config.vector_files(&self.data_dir) {
            let table = tables[path];
            let tokens = tokens(sides(tokenizers)[table.side].1.as_ref());
            let Vectors { width, values, of } = Vectors::read(&file, &tokens)?;
            let known = of.iter().filter(|row| row.is_some()).count();
            if known == 0 {
                let message =
                    "has a vector for none of the tokens; is it of another language, or cut into other tokens?";
                return Err(Error::new(message).in_file(file).at(vectors_of(path)));
            }
            coverage.insert(path.clone(), Share { known, of: tokens.len() });
            let mut dims = shapes[path].clone();
            dims[table.along] = values.len() / width;
            let values = table.laid_out(&values, &dims);
            let weight = Weight { path: path.clone(), dims, values };
            slices.insert(path.clone(), (weight, Slices { along: table.along, rows: of }));
        }
        Ok((Inherited::of_slices(slices).give(model)?, coverage))
    }
}

/// The setting that names a table's file.
pub(super) fn vectors_of(path: &str) -> String {
    format!("train.start_from.vectors.{}", serde_json::Value::from(path))
}

/// What to say of a path that is no table of tokens.
pub(super) fn no_table(path: &str, tables: &BTreeMap<String, Table>) -> Error {
    let known: Vec<String> = tables.keys().map(|known| format!("`{known}`")).collect();
    Error::new(format!("`{path}` has no row for each token; what has: {}", known.join(", ")))
}

impl SavedModel {
    /// The vectors of a table as text, and how many tokens have no place there. The first table of those that read is taken unless
    /// one is named.
    ///
    /// # Errors
    /// If there is no such table.
    pub(crate) fn vectors(&self, table: Option<&str>) -> Result<(String, usize)> {
        let Shape { tables, .. } = self.config.shape()?;
        let default = ["source.table", "target.table"].into_iter().find(|path| tables.contains_key(*path));
        let path = table
            .or(default)
            .ok_or_else(|| Error::new("has no embedding; name another table by --table").at(Place::text("--table")))?;
        let table = *tables.get(path).ok_or_else(|| no_table(path, &tables).at(Place::text("--table")))?;
        let weights = save_weights(&self.model);
        let Weight { dims, values, .. } =
            weights.iter().find(|weight| weight.path == path).expect("a path of this model");
        let (width, vectors) = (table.width(dims), table.vectors(values, dims));
        let tokens = tokens(sides(&self.tokenizers)[table.side].1.as_ref());
        Ok(vectors_as_text(width, tokens.iter().map(String::as_str).zip(vectors.chunks_exact(width))))
    }
}
