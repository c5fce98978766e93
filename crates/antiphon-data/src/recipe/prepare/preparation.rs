//! What all kinds of preparation have in common.

use antiphon_core::{Problem, Result};

use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// A kind of preparation.
pub(in crate::recipe) trait Preparation {
    /// The files that it reads, each with the key that names it.
    fn inputs(&self) -> Vec<(String, &str)>;

    /// The files that it writes and that its settings name, each with the key that names it.
    fn outputs(&self) -> Vec<(String, String)>;

    /// What is wrong with its other settings.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// The prepared files. `log` gets the counts.
    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>>;
}

/// A number that must not be 0.
pub(super) fn at_least_1(key: &str, number: usize) -> Option<Problem> {
    (number == 0).then(|| Problem { place: key.into(), message: "must be at least 1, got 0".into() })
}
