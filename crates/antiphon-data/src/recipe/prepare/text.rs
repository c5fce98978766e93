//! A running text, cut in two or three.

use antiphon_core::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preparation::{Preparation, at_least_1};
use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// A running text: the first `train_percent` of its characters (Unicode scalar values, rounded down) are `train.txt`, the
/// rest is `validation.txt`. If characters are held out for validation, the rest is `test.txt` instead. A cut may fall inside a
/// line, as it does where figures per character were published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextByShare {
    /// The text.
    pub file: String,
    /// How many of a hundred characters are for training.
    #[schemars(range(min = 1, max = 99))]
    pub train_percent: usize,
    /// How many of these, the last ones, are held out of them for validation.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub validation_characters: Option<usize>,
}

impl Preparation for TextByShare {
    fn inputs(&self) -> Vec<(String, &str)> {
        vec![("file".into(), &self.file)]
    }

    fn outputs(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn problems(&self) -> Vec<Problem> {
        let n = self.train_percent;
        let problem = || Problem { place: "train_percent".into(), message: format!("must be from 1 to 99, got {n}") };
        let held_out = self.validation_characters.and_then(|n| at_least_1("validation_characters", n));
        (!(1..100).contains(&n)).then(problem).into_iter().chain(held_out).collect()
    }

    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let text = inputs.text(&self.file)?;
        let all = text.chars().count();
        let first = all * self.train_percent / 100;
        let parts = match self.validation_characters {
            None => vec![("train", first), ("validation", all - first)],
            Some(n) => vec![("train", first.saturating_sub(n)), ("validation", n), ("test", all - first)],
        };
        if parts.iter().any(|&(_, characters)| characters == 0) {
            let message = format!("{all} characters: too few to be cut in {}", ["two", "three"][parts.len() - 2]);
            return Err(inputs.error(&self.file, message));
        }
        let mut rest = text;
        let cut = |(name, characters): (&str, usize)| {
            let end = rest.char_indices().nth(characters).map_or(rest.len(), |(byte, _)| byte);
            let (part, left) = rest.split_at(end);
            rest = left;
            log(&format!("{name}: {characters} characters"));
            Output { name: format!("{name}.txt"), bytes: part.into() }
        };
        Ok(parts.into_iter().map(cut).collect())
    }
}
