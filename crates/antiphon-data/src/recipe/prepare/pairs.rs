//! A file of pairs, split by lines.

use antiphon_core::{Place, Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preparation::{Preparation, at_least_1};
use super::splits::{Pairs, below};
use crate::corpus::split_pair;
use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// A pair a line: the first lines are train, the next are validation, then test; the rest is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PairsByLines {
    /// The pairs.
    pub file: String,
    /// What stands between source and target. Spaces around it and at the end of a line are padding, unless it is a tab.
    #[serde(default = "tab")]
    pub separator: String,
    /// How many lines are for training.
    #[schemars(range(min = 1))]
    pub train: usize,
    /// How many lines are for validation.
    #[schemars(range(min = 1))]
    pub validation: usize,
    /// How many lines are for the test. 0: there is none.
    #[serde(default)]
    pub test: usize,
    /// The folder that is written, below the prepared one; if unset, that itself.
    #[serde(default)]
    pub into: String,
}

fn tab() -> String {
    "\t".into()
}

impl Preparation for PairsByLines {
    fn inputs(&self) -> Vec<(String, &str)> {
        vec![("file".into(), &self.file)]
    }

    fn outputs(&self) -> Vec<(String, String)> {
        vec![("into".into(), below(&self.into, "train.tsv"))]
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = [at_least_1("train", self.train), at_least_1("validation", self.validation)]
            .into_iter()
            .flatten()
            .collect();
        if self.separator.is_empty() {
            problems.push(Problem { place: "separator".into(), message: "is empty: name a character".into() });
        }
        problems
    }

    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let lines = read_pairs(inputs, &self.file, &self.separator)?;
        let taken = self.train + self.validation + self.test;
        if lines.len() < taken {
            let message = format!("{} lines, but the recipe takes {taken}", lines.len());
            return Err(inputs.error(&self.file, message));
        }
        let [mut train, mut validation, mut test] = Pairs::three(&self.into);
        for (i, (source, target)) in lines.into_iter().take(taken).enumerate() {
            let split = match i {
                i if i < self.train => &mut train,
                i if i < self.train + self.validation => &mut validation,
                _ => &mut test,
            };
            split.push(source, target);
        }
        let splits = [train, validation, test].into_iter().filter(|split| !split.is_empty());
        Ok(splits.map(|split| split.finish(log)).collect())
    }
}

/// The lines of a file of pairs; every one must be one.
pub(super) fn read_pairs<'a>(inputs: &'a Inputs<'_>, name: &str, separator: &str) -> Result<Vec<(&'a str, &'a str)>> {
    let pair = |(i, line): (usize, &'a str)| {
        let found = if separator == "\t" {
            split_pair(line).map_err(|fault| fault.to_string())
        } else {
            padded_pair(line, separator)
        };
        found.map_err(|message| inputs.error(name, message).at(Place::line(i + 1)))
    };
    inputs.text(name)?.lines().enumerate().map(pair).collect()
}

/// Source and target of `source  _target  `.
fn padded_pair<'a>(line: &'a str, separator: &str) -> Result<(&'a str, &'a str), String> {
    let (source, target) = line.split_once(separator).ok_or_else(|| format!("no `{separator}` between two texts"))?;
    let (source, target) = (source.trim(), target.trim());
    if target.contains(separator) {
        return Err(format!("more than one `{separator}`"));
    }
    if [source, target].iter().any(|side| side.is_empty() || side.contains('\t')) {
        return Err(format!("a side of `{separator}` is empty, or holds a tab"));
    }
    Ok((source, target))
}
