//! What a page shows beyond figures, as plain data: whoever has the model and the metrics makes it.

use serde::{Deserialize, Serialize};

/// Examples and errors of a run; empty while there is no model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// The split that they are of.
    pub split: String,
    /// What else is to be known of them.
    pub note: Option<String>,
    /// Some sources with what was answered.
    pub examples: Vec<Example>,
    /// What went wrong.
    pub errors: Option<Errors>,
    /// How often answers are wrong by how sure the model was, where that is asked for.
    pub confidence: Option<Confidence>,
    /// Of a language model, where its loss lies.
    pub losses: Option<TokenLosses>,
}

/// How often answers are wrong where the model is sure, in percent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Confidence {
    /// Of the surest answers: how many they are of all, and how many of them are wrong.
    pub curve: Vec<(f64, f64)>,
    /// The area under it.
    pub area: f64,
    /// Where the threshold lies on it, if answers are withheld.
    pub chosen: Option<(f64, f64)>,
}

/// Where the loss of a language model lies on a split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenLosses {
    /// By the place of a token in its line, counted from 1.
    pub by_place: Vec<LossBin>,
    /// By its place behind a fresh state, where the state was also reset now and then.
    pub by_window: Vec<LossBin>,
    /// By how often it stands in the text to learn from, where that is known.
    pub by_frequency: Vec<LossBin>,
    /// Each of some tokens where it was least expected, the least expected first.
    pub worst: Vec<WorstToken>,
}

/// The tokens of which something is in a range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossBin {
    /// The least that it is.
    pub from: u64,
    /// The most that it is.
    pub to: u64,
    /// How many tokens.
    pub tokens: u64,
    /// Their loss.
    pub nats: f64,
}

impl LossBin {
    /// Nats a token.
    pub fn per_token(&self) -> f64 {
        self.nats / self.tokens as f64
    }
}

/// A token that was not expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorstToken {
    /// The file in which it stands.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What stood before it.
    pub before: String,
    /// The token.
    pub token: String,
    /// Its loss.
    pub nats: f64,
}

/// A source and its answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The source.
    pub source: String,
    /// What else is known of it; empty if nothing is.
    pub about: String,
    /// The texts that it is made of, one behind the other as attention sees them.
    pub sources: Vec<SourceTokens>,
    /// What counts as right.
    pub references: Vec<String>,
    /// What the search found, best first.
    pub candidates: Vec<Candidate>,
    /// Of a recording what the model hears of it, where that was looked at.
    pub hearing: Option<Hearing>,
    /// Of a story what the model reads of it under its question, where it reads so.
    pub reading: Option<Reading>,
}

/// A story as a model reads it under a question: how much each sentence counts, layer by layer or look by look.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Its sentences.
    pub sentences: Vec<String>,
    /// Of each layer or look, a number from 0 to 1 for each sentence, of a long story for the last ones.
    pub looks: Vec<Vec<f32>>,
    /// Which sentences support the answer, counted from 0; `None` where nobody says so.
    pub support: Option<Vec<usize>>,
}

/// A recording as a model hears it, and when it hears the best answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Hearing {
    /// The features, `[frames, bands]`.
    pub frames: Vec<Vec<f32>>,
    /// How many seconds a frame begins behind the one before.
    pub hop: f64,
    /// How many seconds a step begins behind the one before, over which attention is spread.
    pub step: f64,
    /// The words of the best answer; none where nobody knows when they are said.
    pub words: Vec<Said>,
    /// Its tokens, likewise.
    pub tokens: Vec<Said>,
}

/// When something is said.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// What.
    pub text: String,
    /// Where it begins, in seconds.
    pub start: f64,
    /// Where it ends.
    pub end: f64,
    /// How probable that is, from 0 to 1.
    pub probability: f64,
}

/// A text that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceTokens {
    /// What it is called.
    pub name: String,
    /// Its tokens as they were read, the end symbol included.
    pub tokens: Vec<String>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The answer.
    pub text: String,
    /// Whether it matches a reference.
    pub correct: bool,
    /// What answers are ranked by.
    pub score: f64,
    /// Natural logarithm of its probability.
    pub log_prob: f64,
    /// Whether it came to its end.
    pub finished: bool,
    /// Its tokens, the end symbol included if it was reached.
    pub tokens: Vec<String>,
    /// The attention of each token over the source's, `[T, S]`; empty if the model does not attend.
    pub attention: Vec<Vec<f32>>,
}

/// The errors of all answers of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct Errors {
    /// What is counted: `word` or `character`.
    pub unit: String,
    /// How many answers were judged.
    pub answers: usize,
    /// How many of them match no reference.
    pub wrong: usize,
    /// The answers farthest from their references, the farthest first.
    pub worst: Vec<Aligned>,
    /// What was taken for what, the most frequent first.
    pub confusions: Vec<Confusion>,
}

/// A wrong answer beside the closest reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Aligned {
    /// Where the source stands in its file, counted from 1.
    pub line: usize,
    /// The source.
    pub source: String,
    /// What else is known of it; empty if nothing is.
    pub about: String,
    /// The edits, matches included.
    pub pairs: Vec<Pair>,
}

/// What was right beside what was answered; `None` where there is nothing.
pub type Pair = (Option<String>, Option<String>);

/// One unit taken for another, so many times.
#[derive(Debug, Clone, PartialEq)]
pub struct Confusion {
    /// What was right; `None` for what was inserted.
    pub reference: Option<String>,
    /// What was answered; `None` for what was left out.
    pub hypothesis: Option<String>,
    /// How often.
    pub count: u64,
}
