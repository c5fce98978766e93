//! A running text, cut in two.

use antiphon_core::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preparation::Preparation;
use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// A running text: the first `train_percent` of its characters (Unicode scalar values, rounded down) are `train.txt`, the
/// rest is `validation.txt`. The cut may fall inside a line, as it does where figures per character were published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextByShare {
    /// The text.
    pub file: String,
    /// How many of a hundred characters are for training.
    #[schemars(range(min = 1, max = 99))]
    pub train_percent: usize,
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
        (!(1..100).contains(&n)).then(problem).into_iter().collect()
    }

    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let text = inputs.text(&self.file)?;
        let all = text.chars().count();
        let first = all * self.train_percent / 100;
        let cut = text.char_indices().nth(first).map_or(text.len(), |(byte, _)| byte);
        let (train, validation) = text.split_at(cut);
        if train.is_empty() || validation.is_empty() {
            return Err(inputs.error(&self.file, format!("{all} characters: too few to be cut in two")));
        }
        log(&format!("train: {first} characters"));
        log(&format!("validation: {} characters", all - first));
        let output = |name: &str, text: &str| Output { name: name.into(), bytes: text.into() };
        Ok(vec![output("train.txt", train), output("validation.txt", validation)])
    }
}
