//! The `g014b2b` split of CMUdict.

use std::collections::{BTreeSet, HashSet};

use antiphon_core::random::Key;
use antiphon_core::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::read_pairs;
use super::preparation::{Preparation, at_least_1};
use super::splits::Pairs;
use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// The `g014b2b` split: `WORD<TAB>P H O N E S` a line.
///
/// It has no validation words, so some are held out of train: the first `validation_words` distinct words in the order
/// of a scattered hash, `Key::from_seed(0).named(word).bits()` of `antiphon_core::random`. Lines keep their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct G014b2b {
    /// The lines of train and validation.
    pub train: String,
    /// The lines of the test.
    pub test: String,
    /// How many words are held out.
    #[schemars(range(min = 1))]
    pub validation_words: usize,
}

impl Preparation for G014b2b {
    fn inputs(&self) -> Vec<(String, &str)> {
        vec![("train".into(), &self.train), ("test".into(), &self.test)]
    }

    fn outputs(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn problems(&self) -> Vec<Problem> {
        at_least_1("validation_words", self.validation_words).into_iter().collect()
    }

    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let lines = read_pairs(inputs, &self.train, "\t")?;
        let mut words: Vec<&str> = lines.iter().map(|(word, _)| *word).collect::<BTreeSet<_>>().into_iter().collect();
        if words.len() <= self.validation_words {
            let message = format!("{} words: too few to hold out {} of them", words.len(), self.validation_words);
            return Err(inputs.error(&self.train, message));
        }
        words.sort_by_key(|word| Key::from_seed(0).named(word).bits());
        let held_out: HashSet<&str> = words[..self.validation_words].iter().copied().collect();
        let [mut train, mut validation, mut test] = Pairs::three("");
        for (word, phones) in lines {
            let split = if held_out.contains(word) { &mut validation } else { &mut train };
            split.push(word, phones);
        }
        for (word, phones) in read_pairs(inputs, &self.test, "\t")? {
            test.push(word, phones);
        }
        Ok([train, validation, test].map(|split| split.finish(log)).into())
    }
}
