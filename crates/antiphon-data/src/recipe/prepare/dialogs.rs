//! Dialogs with a machine, in the format of dialog bAbI (Bordes and Weston 2016, "Learning end-to-end goal-oriented dialog").

use std::collections::HashSet;

use antiphon_core::{Error, Place, Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preparation::Preparation;
use super::splits::below;
use crate::corpus::Remedy;
use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// Dialogs: `1 user<TAB>bot` a line, or `1 name relation value` for a fact that the bot looked up; an empty line between dialogs, whose
/// lines are numbered from 1.
///
/// Each reply of the bot becomes a row of JSON lines: `dialog` and `turn`, both counted from 1; `context`, the list of what was said
/// before, oldest first, the user's last words at its end; `facts`, the list of the facts met so far in the dialog, each as `name relation value`;
/// `response`; and `entities`, the words of the response that are entities, each once. Names and values of facts are entities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dialogs {
    /// The tasks, each with splits of its own.
    #[schemars(length(min = 1))]
    pub tasks: Vec<DialogTask>,
    /// All facts that there are, `1 name relation<TAB>value` a line: their names and values are entities in every dialog. If unset, the
    /// entities of a dialog are those of its own facts.
    #[serde(default)]
    pub facts: Option<String>,
    /// What to do with a dialog that has a line which is none, or whose lines are not numbered from 1 on.
    #[serde(default = "error")]
    pub on_bad_dialog: Remedy,
}

/// A task of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DialogTask {
    /// The folder that is written, below the prepared one.
    pub name: String,
    /// The dialogs to learn from.
    pub train: String,
    /// The dialogs to choose on.
    pub validation: String,
    /// The dialogs to report on.
    pub test: String,
    /// Dialogs of entities that are never met in train, to report on too: `test-oov`. If unset, there are none.
    #[serde(default)]
    pub test_oov: Option<String>,
}

const fn error() -> Remedy {
    Remedy::Error
}

/// A reply, as a row.
#[derive(Debug, Serialize)]
struct Replied<'a> {
    dialog: usize,
    turn: usize,
    context: &'a [&'a str],
    facts: &'a [String],
    response: &'a str,
    entities: Vec<&'a str>,
}

impl DialogTask {
    /// Its splits: the key, the name and the file of each.
    fn splits(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let Self { train, validation, test, test_oov, .. } = self;
        let three = [("train", "train", train), ("validation", "validation", validation), ("test", "test", test)];
        let oov = test_oov.iter().map(|file| ("test_oov", "test-oov", file));
        three.into_iter().chain(oov).map(|(key, name, file)| (key, name, file.as_str()))
    }
}

impl Preparation for Dialogs {
    fn inputs(&self) -> Vec<(String, &str)> {
        let tasks = self.tasks.iter().enumerate();
        let of_tasks =
            tasks.flat_map(|(i, task)| task.splits().map(move |(key, _, file)| (format!("tasks[{i}].{key}"), file)));
        of_tasks.chain(self.facts.iter().map(|file| ("facts".to_owned(), file.as_str()))).collect()
    }

    fn outputs(&self) -> Vec<(String, String)> {
        let tasks = self.tasks.iter().enumerate();
        tasks.map(|(i, task)| (format!("tasks[{i}].name"), below(&task.name, "train.jsonl"))).collect()
    }

    fn problems(&self) -> Vec<Problem> {
        let message = "the list is empty: name a task".to_owned();
        self.tasks.is_empty().then(|| Problem { place: "tasks".into(), message }).into_iter().collect()
    }

    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let entities = self.facts.as_ref().map_or_else(|| Ok(HashSet::new()), |file| entities(inputs, file))?;
        let mut outputs = Vec::new();
        for task in &self.tasks {
            for (_, split, file) in task.splits() {
                let Read { text, dialogs, replies, skipped } = self.read(inputs, file, &entities)?;
                let name = below(&task.name, split);
                let skipped = skipped.map_or_else(String::new, |skipped| format!("; {skipped}"));
                log(&format!("{name}: {replies} replies, {dialogs} dialogs{skipped}"));
                if replies == 0 {
                    return Err(inputs.error(file, "no dialog can be used".into()));
                }
                outputs.push(Output { name: format!("{name}.jsonl"), bytes: text.into_bytes() });
            }
        }
        Ok(outputs)
    }
}

/// What is read of a file.
#[derive(Default)]
struct Read {
    /// The rows.
    text: String,
    dialogs: usize,
    replies: usize,
    /// What to say of the dialogs that were left out.
    skipped: Option<String>,
}

impl Dialogs {
    fn read(&self, inputs: &Inputs<'_>, name: &str, entities: &HashSet<&str>) -> Result<Read> {
        let lines: Vec<&str> = inputs.text(name)?.lines().collect();
        let (mut read, mut bad, mut first_bad) = (Read::default(), 0, 0);
        let mut start = 0;
        for lines in lines.split(|line| line.is_empty()) {
            let number = start + 1;
            start += lines.len() + 1;
            if lines.is_empty() {
                continue;
            }
            match rows(lines, read.dialogs + bad + 1, entities) {
                Ok((text, replies)) => {
                    read.text += &text;
                    read.replies += replies;
                    read.dialogs += 1;
                }
                Err((line, message)) => {
                    let line = number + line;
                    if self.on_bad_dialog == Remedy::Error {
                        let error: Error = inputs.error(name, message);
                        return Err(error.at(Place::line(line)));
                    }
                    bad += 1;
                    first_bad = if bad == 1 { line } else { first_bad };
                }
            }
        }
        read.skipped = (bad > 0).then(|| format!("{bad} bad dialogs left out (first: line {first_bad})"));
        Ok(read)
    }
}

/// The rows of a dialog with these lines, and how many they are.
///
/// # Errors
/// The place of the first bad line among them, from 0, and what is wrong with it.
fn rows(lines: &[&str], dialog: usize, entities: &HashSet<&str>) -> Result<(String, usize), (usize, String)> {
    let (mut context, mut facts, mut own) = (Vec::new(), Vec::new(), HashSet::new());
    let (mut text, mut turn) = (String::new(), 0);
    for (i, line) in lines.iter().enumerate() {
        let wrong = |message: String| (i, message);
        let (number, said) = line.split_once(' ').ok_or_else(|| wrong("no number before a text".into()))?;
        let number: usize = number.parse().map_err(|_| wrong("does not begin with a number".into()))?;
        if number != i + 1 {
            let what = if i == 0 { "the dialog begins with" } else { "the dialog goes on with" };
            return Err(wrong(format!("{what} line {number}, where line {} should be", i + 1)));
        }
        let parts: Vec<&str> = said.split('\t').map(str::trim).collect();
        match parts[..] {
            [fact] => {
                let words: Vec<&str> = fact.split_whitespace().collect();
                let [name, _, .., value] = words[..] else {
                    return Err(wrong("neither `user<TAB>bot` nor `name relation value`".into()));
                };
                own.extend([name, value]);
                facts.push(words.join(" "));
            }
            [user, bot] if !user.is_empty() && !bot.is_empty() => {
                turn += 1;
                context.push(user);
                let is_entity = |word: &&str| entities.contains(word) || own.contains(word);
                let mut found: Vec<&str> = Vec::new();
                for word in bot.split_whitespace().filter(is_entity) {
                    if !found.contains(&word) {
                        found.push(word);
                    }
                }
                let row = Replied { dialog, turn, context: &context, facts: &facts, response: bot, entities: found };
                text += &serde_json::to_string(&row).expect("a row is JSON");
                text.push('\n');
                context.push(bot);
            }
            [_, _] => return Err(wrong("the user's words or the reply are missing".into())),
            _ => return Err(wrong("not `user<TAB>bot`: it has more than one tab".into())),
        }
    }
    if turn == 0 { Err((lines.len() - 1, "the dialog has no reply".into())) } else { Ok((text, turn)) }
}

/// The names and the values of all facts of a file.
fn entities<'a>(inputs: &'a Inputs<'_>, file: &str) -> Result<HashSet<&'a str>> {
    let mut found = HashSet::new();
    for (i, line) in inputs.text(file)?.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, name, _, value] => found.extend([name, value]),
            _ => {
                let error: Error = inputs.error(file, "not `1 name relation<TAB>value`".into());
                return Err(error.at(Place::line(i + 1)));
            }
        }
    }
    Ok(found)
}
