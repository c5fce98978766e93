//! Files as they are.

use antiphon_core::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preparation::Preparation;
use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// Files as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Copies {
    /// Each file with its new name.
    pub copies: Vec<Copy>,
}

/// A file with its new name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// Its name among `files`.
    pub from: String,
    /// Its path below the prepared folder, with `/`.
    pub to: String,
}

impl Copy {
    /// The files that are read, each with the key that names it.
    pub(super) fn inputs(copies: &[Self]) -> Vec<(String, &str)> {
        copies.iter().enumerate().map(|(i, copy)| (format!("copies[{i}].from"), copy.from.as_str())).collect()
    }

    /// The files that are written, each with the key that names it.
    pub(super) fn outputs(copies: &[Self]) -> Vec<(String, String)> {
        copies.iter().enumerate().map(|(i, copy)| (format!("copies[{i}].to"), copy.to.clone())).collect()
    }

    /// What is wrong with such a list.
    pub(super) fn problems(copies: &[Self]) -> Vec<Problem> {
        let empty = || Problem { place: "copies".into(), message: "the list is empty".into() };
        copies.is_empty().then(empty).into_iter().collect()
    }
}

impl Preparation for Copies {
    fn inputs(&self) -> Vec<(String, &str)> {
        Copy::inputs(&self.copies)
    }

    fn outputs(&self) -> Vec<(String, String)> {
        Copy::outputs(&self.copies)
    }

    fn problems(&self) -> Vec<Problem> {
        Copy::problems(&self.copies)
    }

    fn run(&self, inputs: &Inputs<'_>, _: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let output = |copy: &Copy| Output { name: copy.to.clone(), bytes: inputs.bytes(&copy.from).to_vec() };
        Ok(self.copies.iter().map(output).collect())
    }
}
