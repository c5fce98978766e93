//! Contexts of a conversation with several good replies each, as DailyDialog++ has them (Sai et al. 2020, "Improving dialog evaluation
//! with a multi-reference adversarial dataset and large scale pretraining").

use std::collections::HashSet;

use antiphon_core::{Error, Place, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preparation::Preparation;
use crate::overlap::long_line;
use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// Contexts with replies: JSON lines of `context`, the list of the turns so far, oldest first, and `responses`, the list of good replies.
///
/// Each becomes a row of `train.jsonl`, `validation.jsonl` or `test.jsonl` with the same columns and two more: `last`, the last turn, and `seen`,
/// `yes` where a turn of the context with more than five words, whatever its case and punctuation, is also a turn or a reply of train, else `no`.
/// In train itself it is `no`. Each reply by itself is a row of `replies.train.jsonl` and so on, with `response` and `last`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replies {
    /// What to learn from.
    pub train: String,
    /// What to choose on.
    pub validation: String,
    /// What to report on.
    pub test: String,
}

/// A row as it comes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    context: Vec<String>,
    responses: Vec<String>,
}

/// A row as it is written.
#[derive(Serialize)]
struct Row<'a> {
    context: &'a [String],
    responses: &'a [String],
    last: &'a str,
    seen: &'static str,
}

/// A reply as it is written.
#[derive(Serialize)]
struct Reply<'a> {
    response: &'a str,
    last: &'a str,
}

impl Preparation for Replies {
    fn inputs(&self) -> Vec<(String, &str)> {
        self.splits().map(|(split, file)| (split.into(), file)).into()
    }

    fn outputs(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let (mut outputs, mut known) = (Vec::new(), HashSet::new());
        for (split, file) in self.splits() {
            let rows = read(inputs, file)?;
            if split == "train" {
                let turns = rows.iter().flat_map(|row| row.context.iter().chain(&row.responses));
                known.extend(turns.filter_map(|turn| long_line(turn)));
            }
            let (mut text, mut replies, mut seen, mut count) = (String::new(), String::new(), 0, 0);
            for Given { context, responses } in &rows {
                let is_known = |turn: &String| long_line(turn).is_some_and(|line| known.contains(&line));
                let is_seen = split != "train" && context.iter().any(is_known);
                let last = context.last().expect("a context has turns");
                seen += usize::from(is_seen);
                text += &line(&Row { context, responses, last, seen: if is_seen { "yes" } else { "no" } });
                for response in responses {
                    replies += &line(&Reply { response, last });
                    count += 1;
                }
            }
            let seen = if split == "train" { String::new() } else { format!(", {seen} with a turn of train") };
            log(&format!("{split}: {} contexts, {count} replies{seen}", rows.len()));
            for (name, text) in [(format!("{split}.jsonl"), text), (format!("replies.{split}.jsonl"), replies)] {
                outputs.push(Output { name, bytes: text.into_bytes() });
            }
        }
        Ok(outputs)
    }
}

impl Replies {
    fn splits(&self) -> [(&'static str, &str); 3] {
        [("train", &self.train), ("validation", &self.validation), ("test", &self.test)]
    }
}

fn line(row: &impl Serialize) -> String {
    serde_json::to_string(row).expect("a row is JSON") + "\n"
}

fn read(inputs: &Inputs<'_>, name: &str) -> Result<Vec<Given>> {
    let row = |(i, line): (usize, &str)| {
        let wrong = |message: String| -> Error { inputs.error(name, message).at(Place::line(i + 1)) };
        let row: Given = serde_json::from_str(line).map_err(|error| wrong(format!("not such a row: {error}")))?;
        for (what, texts) in [("context", &row.context), ("responses", &row.responses)] {
            if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
                return Err(wrong(format!("`{what}` is an empty list, or has an empty text")));
            }
        }
        Ok(row)
    };
    let rows: Vec<Given> = inputs.text(name)?.lines().enumerate().map(row).collect::<Result<_>>()?;
    if rows.is_empty() { Err(inputs.error(name, "has no row".into())) } else { Ok(rows) }
}
