//! What a recipe makes of its files: one module for each kind of preparation, its settings beside it.

mod cmudict;
mod copy;
mod dialogs;
mod g014b2b;
mod pairs;
mod recordings;
mod splits;
mod stories;
mod text;

use antiphon_core::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cmudict::Cmudict;
pub use copy::{Copies, Copy};
pub use dialogs::Dialogs;
pub use g014b2b::G014b2b;
pub use pairs::PairsByLines;
pub use recordings::{ListedRecordings, NumberedRecordings, SpeechList};
pub use stories::Stories;
pub use text::TextByShare;

use super::Inputs;
use super::store::Output;

/// What is made of the files, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PreparationConfig {
    /// A pronouncing dictionary in the format of CMUdict, split by a hash of the word.
    Cmudict(Cmudict),
    /// The `g014b2b` split of CMUdict, with words held out of train for validation.
    G014b2b(G014b2b),
    /// The first lines of a file of pairs.
    PairsByLines(PairsByLines),
    /// A running text, cut in two.
    TextByShare(TextByShare),
    /// Questions about stories, in the format of bAbI.
    Stories(Stories),
    /// Dialogs, in the format of dialog bAbI.
    Dialogs(Dialogs),
    /// Recordings whose names say what is spoken and to which split they belong.
    NumberedRecordings(NumberedRecordings),
    /// Recordings with lists of what is spoken in them.
    ListedRecordings(ListedRecordings),
    /// Files as they are, under new names.
    Copy(Copies),
}

/// A kind of preparation.
pub(super) trait Preparation {
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

impl PreparationConfig {
    pub(super) fn preparation(&self) -> &dyn Preparation {
        match self {
            Self::Cmudict(config) => config,
            Self::G014b2b(config) => config,
            Self::PairsByLines(config) => config,
            Self::TextByShare(config) => config,
            Self::Stories(config) => config,
            Self::Dialogs(config) => config,
            Self::NumberedRecordings(config) => config,
            Self::ListedRecordings(config) => config,
            Self::Copy(config) => config,
        }
    }
}

/// A number that must not be 0.
fn at_least_1(key: &str, number: usize) -> Option<Problem> {
    (number == 0).then(|| Problem { place: key.into(), message: "must be at least 1, got 0".into() })
}
