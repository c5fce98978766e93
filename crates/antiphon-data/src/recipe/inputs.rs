//! The files of a recipe, as its preparation reads them.

use std::collections::BTreeMap;
use std::path::Path;

use antiphon_core::{Error, Result};

use crate::lines::text_of;

/// The files that a preparation reads.
pub(super) struct Inputs<'a> {
    pub(super) root: &'a Path,
    pub(super) files: &'a BTreeMap<String, Vec<u8>>,
}

impl Inputs<'_> {
    pub(super) fn bytes(&self, name: &str) -> &[u8] {
        &self.files[name]
    }

    /// The content of a file, if it is among the recipe's.
    pub(super) fn find(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// The files below a folder, in the order of their names: each with its name from there and its full name.
    pub(super) fn below(&self, folder: &str) -> impl Iterator<Item = (&str, &str)> {
        let beginning = format!("{folder}/");
        self.files.keys().filter_map(move |name| Some((name.strip_prefix(&beginning)?, name.as_str())))
    }

    pub(super) fn text(&self, name: &str) -> Result<&str> {
        text_of(self.bytes(name)).map_err(|e| e.in_file(self.root.join(name)))
    }

    pub(super) fn error(&self, name: &str, message: String) -> Error {
        Error::new(message).in_file(self.root.join(name))
    }
}
