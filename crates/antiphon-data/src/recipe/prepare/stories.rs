//! Questions about stories, in the format of bAbI (Weston et al. 2015, "Towards AI-complete question answering").

use std::collections::HashMap;

use antiphon_core::{Error, Place, Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preparation::{Preparation, at_least_1};
use super::splits::below;
use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// Questions about stories: `1 statement` or `3 question<TAB>answer<TAB>supporting lines` a line; a story begins at line 1.
///
/// Each question becomes a row of JSON lines: `story`, the list of the statements before it, without earlier questions;
/// `question`; `answer`; `support`, the list of the places in `story`, counted from 1, of the statements that the answer follows from;
/// and `task`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stories {
    /// The tasks, each with splits of its own.
    #[schemars(length(min = 1))]
    pub tasks: Vec<StoryTask>,
    /// How many questions of a task are held out of train for validation, at most: those of its last stories, whole stories only.
    #[schemars(range(min = 1))]
    pub validation: usize,
    /// A further folder, below the prepared one, whose splits are those of all tasks, one behind the other; if unset, there is none.
    #[serde(default)]
    pub joint: Option<String>,
}

/// A task of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoryTask {
    /// What `task` says in its rows, and the folder that is written, below the prepared one.
    pub name: String,
    /// The stories of train and validation.
    pub train: String,
    /// The stories of the test.
    pub test: String,
}

/// A question, as a row.
#[derive(Debug, Serialize)]
struct Asked<'a> {
    story: Vec<&'a str>,
    question: &'a str,
    answer: &'a str,
    /// Places in `story`, counted from 1.
    support: Vec<usize>,
    task: &'a str,
}

/// The questions of a story.
type Story<'a> = Vec<Asked<'a>>;

const SPLITS: [&str; 3] = ["train", "validation", "test"];

impl Preparation for Stories {
    fn inputs(&self) -> Vec<(String, &str)> {
        let mut found = Vec::new();
        for (i, StoryTask { train, test, .. }) in self.tasks.iter().enumerate() {
            found.push((format!("tasks[{i}].train"), train.as_str()));
            found.push((format!("tasks[{i}].test"), test.as_str()));
        }
        found
    }

    fn outputs(&self) -> Vec<(String, String)> {
        let tasks = self.tasks.iter().enumerate().map(|(i, task)| (format!("tasks[{i}].name"), task.name.as_str()));
        let joint = self.joint.iter().map(|folder| ("joint".to_owned(), folder.as_str()));
        tasks.chain(joint).map(|(key, folder)| (key, below(folder, "train.jsonl"))).collect()
    }

    fn problems(&self) -> Vec<Problem> {
        let message = "the list is empty: name a task".to_owned();
        let none = self.tasks.is_empty().then(|| Problem { place: "tasks".into(), message });
        none.into_iter().chain(at_least_1("validation", self.validation)).collect()
    }

    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let (mut outputs, mut all) = (Vec::new(), SPLITS.map(|_| String::new()));
        for task in &self.tasks {
            let (train, validation) = self.held_out(task, inputs)?;
            let splits = [train, validation, read(inputs, &task.test, &task.name)?];
            for ((name, stories), all) in SPLITS.iter().zip(&splits).zip(&mut all) {
                let questions = || stories.iter().flatten();
                log(&format!("{}/{name}: {} questions, {} stories", task.name, questions().count(), stories.len()));
                let line = |asked| serde_json::to_string(asked).expect("a row is JSON") + "\n";
                let text: String = questions().map(line).collect();
                all.push_str(&text);
                outputs.push(Output { name: below(&task.name, &format!("{name}.jsonl")), bytes: text.into_bytes() });
            }
        }
        if let Some(folder) = &self.joint {
            let output = |(name, text): (&str, String)| Output {
                name: below(folder, &format!("{name}.jsonl")),
                bytes: text.into_bytes(),
            };
            outputs.extend(SPLITS.into_iter().zip(all).map(output));
        }
        Ok(outputs)
    }
}

impl Stories {
    /// The stories to learn from, and those that are held out of them.
    fn held_out<'a>(&self, task: &'a StoryTask, inputs: &'a Inputs<'_>) -> Result<(Vec<Story<'a>>, Vec<Story<'a>>)> {
        let mut train = read(inputs, &task.train, &task.name)?;
        let mut left: usize = train.iter().map(Vec::len).sum();
        let stays = |story: &Story<'_>| {
            let stays = left > self.validation;
            left -= story.len();
            stays
        };
        let validation = train.split_off(train.iter().map(stays).take_while(|stays| *stays).count());
        if [&train, &validation].iter().any(|stories| stories.iter().all(Vec::is_empty)) {
            let message = format!("too few stories to hold out {} questions", self.validation);
            return Err(inputs.error(&task.train, message));
        }
        Ok((train, validation))
    }
}

/// The stories of a file.
fn read<'a>(inputs: &'a Inputs<'_>, name: &str, task: &'a str) -> Result<Vec<Story<'a>>> {
    let mut stories: Vec<Story<'a>> = Vec::new();
    let mut told: Vec<&str> = Vec::new();
    // Where in the story the statement of a line stands, counted from 1.
    let mut places: HashMap<usize, usize> = HashMap::new();
    for (i, line) in inputs.text(name)?.lines().enumerate() {
        let wrong = |message: &str| -> Error { inputs.error(name, message.into()).at(Place::line(i + 1)) };
        let (number, said) = line.split_once(' ').ok_or_else(|| wrong("no number before a text"))?;
        let number: usize = number.parse().map_err(|_| wrong("does not begin with a number"))?;
        if number == 1 {
            stories.push(Story::new());
            told.clear();
            places.clear();
        }
        let story = stories.last_mut().ok_or_else(|| wrong("a story begins with line 1"))?;
        let mut parts = said.split('\t').map(str::trim);
        match (parts.next(), parts.next()) {
            (Some(statement), None) if !statement.is_empty() => {
                told.push(statement);
                places.insert(number, told.len());
            }
            (Some(question), Some(answer)) if !question.is_empty() && !answer.is_empty() => {
                let place = |line: &str| line.parse().ok().and_then(|line| places.get(&line).copied());
                let place = |line: &str| {
                    place(line).ok_or_else(|| wrong(&format!("`{line}` is no line of a statement before the question")))
                };
                let support = parts.next().unwrap_or_default().split_whitespace().map(place).collect::<Result<_>>()?;
                story.push(Asked { story: told.clone(), question, answer, support, task });
            }
            _ => return Err(wrong("a question or its answer is missing")),
        }
    }
    Ok(stories)
}
