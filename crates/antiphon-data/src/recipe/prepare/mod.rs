//! What a recipe makes of its files: one module for each kind of preparation, its settings beside it.

mod cmudict;
mod copy;
mod dialogs;
mod g014b2b;
mod inflections;
mod pairs;
mod preparation;
mod recordings;
mod replies;
mod splits;
mod stories;
mod text;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cmudict::Cmudict;
pub use copy::{Copies, Copy};
pub use dialogs::{DialogTask, Dialogs};
pub use g014b2b::G014b2b;
pub use inflections::Inflections;
pub use pairs::PairsByLines;
pub use recordings::{ListedRecordings, NumberedRecordings, SpeechList};
pub use replies::Replies;
pub use stories::{Stories, StoryTask};
pub use text::TextByShare;

pub(super) use preparation::Preparation;

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
    /// Contexts of a conversation with several good replies each, in the format of DailyDialog++.
    Replies(Replies),
    /// Recordings whose names say what is spoken and to which split they belong.
    NumberedRecordings(NumberedRecordings),
    /// Recordings with lists of what is spoken in them.
    ListedRecordings(ListedRecordings),
    /// Tables of lemma, form and features.
    Inflections(Inflections),
    /// Files as they are, under new names.
    Copy(Copies),
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
            Self::Replies(config) => config,
            Self::NumberedRecordings(config) => config,
            Self::ListedRecordings(config) => config,
            Self::Inflections(config) => config,
            Self::Copy(config) => config,
        }
    }
}
