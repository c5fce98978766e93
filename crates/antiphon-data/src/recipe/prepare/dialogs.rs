//! Dialogs with a machine, in the format of dialog bAbI (Bordes and Weston 2016, "Learning end-to-end goal-oriented dialog").

use antiphon_core::{Error, Place, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preparation::Preparation;
use super::splits::{Pairs, below};
use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// Dialogs: `1 user<TAB>bot` a line, or `1 fact` where the bot looked something up; an empty line between dialogs.
///
/// Every answer of the bot is a target. Its source is all that came before in the dialog, and then what the user has said
/// just now; `<user>`, `<bot>` and `<fact>` stand before each part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dialogs {
    /// The dialogs to learn from.
    pub train: String,
    /// The dialogs to choose on.
    pub validation: String,
    /// The dialogs to report on.
    pub test: String,
    /// The folder that is written, below the prepared one; if unset, that itself.
    #[serde(default)]
    pub into: String,
}

impl Preparation for Dialogs {
    fn inputs(&self) -> Vec<(String, &str)> {
        let files = [("train", &self.train), ("validation", &self.validation), ("test", &self.test)];
        files.map(|(key, file)| (key.into(), file.as_str())).into()
    }

    fn outputs(&self) -> Vec<(String, String)> {
        vec![("into".into(), below(&self.into, "train.tsv"))]
    }

    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let files = [&self.train, &self.validation, &self.test];
        let splits = Pairs::three(&self.into).into_iter().zip(files);
        splits.map(|(split, file)| Ok(read(inputs, file, split, log)?.finish(log))).collect()
    }
}

fn read(inputs: &Inputs<'_>, name: &str, mut split: Pairs, log: &mut dyn FnMut(&str)) -> Result<Pairs> {
    let (mut told, mut dialogs) = (String::new(), 0);
    for (i, line) in inputs.text(name)?.lines().enumerate() {
        let wrong = |message: &str| -> Error { inputs.error(name, message.into()).at(Place::line(i + 1)) };
        if line.is_empty() {
            told.clear();
            continue;
        }
        dialogs += usize::from(told.is_empty());
        let (number, said) = line.split_once(' ').ok_or_else(|| wrong("no number before a text"))?;
        number.parse::<usize>().map_err(|_| wrong("does not begin with a number"))?;
        match said.split_once('\t') {
            None => told += &format!("<fact> {said} "),
            Some((user, bot)) if user.is_empty() || bot.is_empty() || bot.contains('\t') => {
                return Err(wrong("not `user<TAB>bot`"));
            }
            Some((user, bot)) => {
                told += &format!("<user> {user} ");
                split.push(told.trim_end(), bot);
                told += &format!("<bot> {bot} ");
            }
        }
    }
    log(&format!("{}: {dialogs} dialogs", split.name()));
    Ok(split)
}
