//! Questions about stories, in the format of bAbI (Weston et al. 2015, "Towards AI-complete question answering").

use antiphon_core::{Error, Place, Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preparation::{Preparation, at_least_1};
use super::splits::{Pairs, below};
use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// Questions about stories: `1 statement` or `3 question<TAB>answer<TAB>supporting lines` a line; a story begins at line 1.
///
/// The source of a pair is every statement of the story before the question, in order, and then the question; earlier
/// questions, answers and the numbers of supporting lines are left out. The target is the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stories {
    /// The stories of train and validation.
    pub train: String,
    /// The stories of the test.
    pub test: String,
    /// How many questions are held out of train for validation, at most: those of its last stories, whole stories only.
    #[schemars(range(min = 1))]
    pub validation: usize,
    /// The folder that is written, below the prepared one; if unset, that itself.
    #[serde(default)]
    pub into: String,
}

/// The questions of a story, each with what was told before it, and the answers.
type Story = Vec<(String, String)>;

impl Preparation for Stories {
    fn inputs(&self) -> Vec<(String, &str)> {
        vec![("train".into(), &self.train), ("test".into(), &self.test)]
    }

    fn outputs(&self) -> Vec<(String, String)> {
        vec![("into".into(), below(&self.into, "train.tsv"))]
    }

    fn problems(&self) -> Vec<Problem> {
        at_least_1("validation", self.validation).into_iter().collect()
    }

    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let stories = read(inputs, &self.train)?;
        let [mut train, mut validation, mut test] = Pairs::three(&self.into);
        let mut left: usize = stories.iter().map(Vec::len).sum();
        for story in &stories {
            let split = if left > self.validation { &mut train } else { &mut validation };
            push(split, story);
            left -= story.len();
        }
        if train.is_empty() || validation.is_empty() {
            let message = format!("too few stories to hold out {} questions", self.validation);
            return Err(inputs.error(&self.train, message));
        }
        read(inputs, &self.test)?.iter().for_each(|story| push(&mut test, story));
        Ok([train, validation, test].map(|split| split.finish(log)).into())
    }
}

fn push(split: &mut Pairs, story: &Story) {
    story.iter().for_each(|(source, answer)| split.push(source, answer));
}

fn read(inputs: &Inputs<'_>, name: &str) -> Result<Vec<Story>> {
    let mut stories: Vec<Story> = Vec::new();
    let mut told = String::new();
    for (i, line) in inputs.text(name)?.lines().enumerate() {
        let wrong = |message: &str| -> Error { inputs.error(name, message.into()).at(Place::line(i + 1)) };
        let (number, said) = line.split_once(' ').ok_or_else(|| wrong("no number before a text"))?;
        let number: usize = number.parse().map_err(|_| wrong("does not begin with a number"))?;
        if number == 1 {
            stories.push(Story::new());
            told.clear();
        }
        let story = stories.last_mut().ok_or_else(|| wrong("a story begins with line 1"))?;
        let mut parts = said.split('\t').map(str::trim);
        match (parts.next(), parts.next()) {
            (Some(statement), None) if !statement.is_empty() => {
                told += statement;
                told.push(' ');
            }
            (Some(question), Some(answer)) if !question.is_empty() && !answer.is_empty() => {
                story.push((format!("{told}{question}"), answer.into()));
            }
            _ => return Err(wrong("a question or its answer is missing")),
        }
    }
    Ok(stories)
}
