//! What came out: `results.json`.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_core::{Error, Result, Score};
use serde::{Deserialize, Serialize};

use crate::table::aligned;

/// How many values of a column are shown.
pub(crate) const VALUES: usize = 20;

/// So many letters of a value are written in a table for a terminal.
const LETTERS: usize = 40;

/// The label of [`Counts::outscored`], as a percentage of the sources.
const OUTSCORED: &str = "outscored";

/// A run's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// On the examples by which the model was chosen.
    pub validation: Option<SplitResults>,
    /// On examples that had no say in anything.
    pub test: Option<SplitResults>,
    /// The model's size.
    pub model: ModelSize,
    /// How many updates training made.
    pub steps: u64,
    /// Process CPU time of the whole run, over all sessions.
    pub cpu_seconds: f64,
    /// Time on the clock of the whole run, over all sessions.
    pub wall_seconds: f64,
}

/// Figures on one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitResults {
    /// A label, such as the metric's name, and the score with its signature.
    pub metrics: BTreeMap<String, Score>,
    /// The metrics of each value of the columns that the config names, the most frequent value first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by: BTreeMap<String, Vec<OfValue>>,
    /// What the values of each of these columns say together, by the labels of the metrics.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub over_values: BTreeMap<String, BTreeMap<String, OverValues>>,
    /// How sure the model was of its answers, and how many it gave, where the config asks for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selective: Option<Selective>,
    /// Losses, where they were computed.
    pub losses: Option<Losses>,
    /// How much was measured.
    pub counts: Counts,
}

/// The metrics of those examples that have one value in a column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfValue {
    /// The value.
    pub value: String,
    /// How many sources have it.
    pub examples: u64,
    /// A figure for each label of the split's metrics.
    pub metrics: BTreeMap<String, f64>,
}

impl OfValue {
    /// The value for a terminal, on one line.
    fn shown(&self) -> String {
        if self.value.trim().is_empty() {
            return "(empty)".into();
        }
        let letters = self.value.chars().map(|c| if c.is_whitespace() { ' ' } else { c });
        let mut shown: String = letters.clone().take(LETTERS).collect();
        shown.extend((letters.count() > LETTERS).then_some('…'));
        shown
    }
}

/// A metric over all values of a column, where each counts the same, however many examples have it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverValues {
    /// The mean of the values' figures.
    pub macro_average: f64,
    /// How many of them pass, where the config says what that takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<Passed>,
}

impl OverValues {
    /// What some figures say together.
    pub fn of(figures: &[f64], mark: Option<PassMark>) -> Self {
        let passed = mark.map(|mark| Passed {
            mark,
            passed: figures.iter().filter(|figure| mark.is_reached(**figure)).count() as u64,
            of: figures.len() as u64,
        });
        Self { macro_average: figures.iter().sum::<f64>() / figures.len().max(1) as f64, passed }
    }
}

/// How many figures reach a mark.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passed {
    /// The mark.
    pub mark: PassMark,
    /// How many reach it.
    pub passed: u64,
    /// How many there are.
    pub of: u64,
}

impl std::fmt::Display for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mark, passed, of } = self;
        write!(f, "{passed} of {of}, {mark}")
    }
}

/// What a figure must be to pass.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PassMark {
    /// So much, or more.
    AtLeast(f64),
    /// So much, or less.
    AtMost(f64),
}

impl PassMark {
    /// Whether a figure passes.
    pub fn is_reached(self, figure: f64) -> bool {
        match self {
            PassMark::AtLeast(mark) => figure >= mark,
            PassMark::AtMost(mark) => figure <= mark,
        }
    }
}

impl std::fmt::Display for PassMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PassMark::AtLeast(mark) => write!(f, "≥ {mark}"),
            PassMark::AtMost(mark) => write!(f, "≤ {mark}"),
        }
    }
}

/// How a model answers that need not answer everything, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selective {
    /// The confidence below which an answer is withheld, from 0 to 1; `None` if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// How many of the questions are answered.
    pub coverage: f64,
    /// How many of the answers that are given are right; `None` if none is given.
    pub accuracy: Option<f64>,
    /// The area under the curve of risk over coverage.
    pub area: f64,
}

impl Selective {
    /// Its figures: label, value, decimals worth printing.
    fn figures(&self) -> Vec<(String, f64, usize)> {
        let Self { threshold, coverage, accuracy, area } = *self;
        let all = [
            ("coverage", Some(coverage), 2),
            ("selective_accuracy", accuracy, 2),
            ("aurc", Some(area), 2),
            ("no_answer_below", threshold, 4),
        ];
        all.into_iter().filter_map(|(label, value, decimals)| Some((label.to_owned(), value?, decimals))).collect()
    }

    /// The labels of what can be promised of it, and whether less is better.
    pub fn labels() -> [(&'static str, bool); 3] {
        [("coverage", false), ("selective_accuracy", false), ("aurc", true)]
    }
}

/// Losses under teacher forcing, in nats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Losses {
    /// Per target token, the end symbol included; without those of targets that no path of connectionist temporal classification
    /// says. Says nothing between models with different tokenizers.
    pub per_token: f64,
    /// Per character of the target text.
    pub per_character: Option<f64>,
    /// Of a language model, per word of the text: what stands between white space, and one more for the end of each line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_word: Option<f64>,
    /// `exp(per_token)`.
    pub perplexity: f64,
    /// Percentage of target tokens that were the most probable.
    pub token_accuracy: f64,
    /// Of a model with connectionist temporal classification, what that lost, per token of the targets that a path says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctc: Option<f64>,
    /// Of a language model, the losses of the same tokens judged in other ways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<Beside>,
}

/// Losses of a language model that is judged in another way, in nats. They stand beside the plain ones, never in their place.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beside {
    /// Every how many tokens the state was reset; `None`: it was carried throughout.
    pub reset: Option<u64>,
    /// The temperature of the softmax; `None`: it was 1.
    pub temperature: Option<f64>,
    /// Per token.
    pub per_token: f64,
    /// Per character.
    pub per_character: f64,
}

impl Beside {
    /// What the labels of its figures end with.
    fn ending(&self) -> &'static str {
        Beside::endings(self.reset.is_some(), self.temperature.is_some())
    }

    fn endings(reset: bool, tempered: bool) -> &'static str {
        match (reset, tempered) {
            (true, true) => "_reset_tempered",
            (true, false) => "_reset",
            (false, true) => "_tempered",
            (false, false) => "",
        }
    }

    /// The labels of all figures that the results of a language model may have beside those of other models; of all of them
    /// smaller ones are better.
    pub fn labels() -> Vec<String> {
        let plain = ["loss_per_word", "bits_per_token", "bits_per_character", "bits_per_word", "perplexity_per_word"];
        let ways =
            [(true, false), (false, true), (true, true)].map(|(reset, tempered)| Beside::endings(reset, tempered));
        let of = |ending: &str| ["loss_per_token", "loss_per_character", "perplexity"].map(|l| format!("{l}{ending}"));
        plain.into_iter().map(str::to_owned).chain(ways.into_iter().flat_map(of)).collect()
    }
}

/// How much was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Sources answered.
    pub examples: u64,
    /// Source tokens, end symbols included, where they were counted.
    #[serde(default)]
    pub source_tokens: Option<u64>,
    /// Frames of the recordings, where sources are such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_frames: Option<u64>,
    /// Source tokens that the tokenizer does not know, where they were counted.
    #[serde(default)]
    pub unknown_source: Option<u64>,
    /// The tokens of further sources, by the names of their streams.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streams: BTreeMap<String, CountsOfStream>,
    /// Target tokens, end symbols included.
    pub target_tokens: u64,
    /// Target tokens that the tokenizer does not know, where they were counted.
    #[serde(default)]
    pub unknown_target: Option<u64>,
    /// Characters of the target texts and one more for the end of each, where they were counted.
    pub target_characters: Option<u64>,
    /// Of a language model, the words of the text and one more for the end of each line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_words: Option<u64>,
    /// Examples left out because the config allows it.
    pub skipped: u64,
    /// Of a model with connectionist temporal classification, sources whose target no path says: they count nothing in its loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_path: Option<u64>,
    /// Sources whose search ran out of patience while something better might still have come, where they were counted.
    #[serde(default)]
    pub outscored: Option<u64>,
}

/// The tokens of a further source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountsOfStream {
    /// All of them, end symbols included.
    pub tokens: u64,
    /// Those that its tokenizer does not know.
    pub unknown: u64,
}

/// The size of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSize {
    /// Trainable numbers.
    pub parameters: u64,
    /// The file.
    pub bytes: u64,
}

impl Results {
    /// The splits that were measured, and their names.
    pub fn splits(&self) -> impl Iterator<Item = (&'static str, &SplitResults)> {
        let both = [("validation", &self.validation), ("test", &self.test)];
        both.into_iter().filter_map(|(name, split)| Some((name, split.as_ref()?)))
    }

    /// The figures for a terminal: a line for each, a column for each split, then sizes, times and signatures.
    pub fn table(&self) -> String {
        self.table_of(&self.splits().map(|(name, _)| name).collect::<Vec<_>>())
    }

    /// The same, with other names for the splits that were measured.
    pub fn table_of(&self, names: &[&str]) -> String {
        let splits: Vec<&SplitResults> = self.splits().map(|(_, split)| split).collect();
        let line = |head: &str, cells: Vec<String>| [vec![head.to_string()], cells].concat();
        let mut rows = vec![line("", names.iter().map(|name| name.to_string()).collect())];
        for label in labels(&splits) {
            rows.push(line(&label, splits.iter().map(|split| split.figure(&label).unwrap_or_default()).collect()));
        }
        let mut text = if splits.is_empty() { String::new() } else { aligned(&rows) + "\n" };
        let Self { model, steps, cpu_seconds, wall_seconds, .. } = self;
        let mebibytes = model.bytes as f64 / f64::from(1 << 20);
        let (cpu, wall) = (minutes(*cpu_seconds), minutes(*wall_seconds));
        text += &format!("model  {} parameters, {mebibytes:.1} MiB, {steps} updates\n", model.parameters);
        // How long several models together took to train is not known.
        if *cpu_seconds > 0.0 {
            text += &format!("time   {cpu} core-minutes, {wall} minutes on the clock\n");
        }
        for (label, signature) in signatures(&splits) {
            text += &format!("{label} is {signature}\n");
        }
        text
    }

    /// The metrics of each column's most frequent values for a terminal, on the last split that was measured, which is called
    /// `name`; empty where there are no such columns.
    pub fn tables_by(&self, name: &str) -> String {
        let split = self.splits().last().map(|(_, split)| split);
        let table = |(column, values): (&String, &Vec<OfValue>)| {
            let labels: BTreeSet<&String> = values.iter().flat_map(|of| of.metrics.keys()).collect();
            let head = ["", "examples"].into_iter().chain(labels.iter().map(|label| label.as_str())).map(str::to_owned);
            let row = |of: &OfValue| -> Vec<String> {
                let figures =
                    labels.iter().map(|label| of.metrics.get(*label).map_or_else(String::new, |v| format!("{v:.2}")));
                [of.shown(), of.examples.to_string()].into_iter().chain(figures).collect()
            };
            let over = split.into_iter().flat_map(|split| split.rows_over_values(column, &labels));
            let over =
                over.map(|(name, figures)| [name.to_owned(), String::new()].into_iter().chain(figures).collect());
            let rows: Vec<Vec<String>> =
                [head.collect()].into_iter().chain(values.iter().take(VALUES).map(row)).chain(over).collect();
            let which = match values.len() {
                ..=VALUES => String::new(),
                all => format!(" (the {VALUES} most frequent of {all} values)"),
            };
            format!("the {name} split by `{column}`{which}:\n{}\n", aligned(&rows))
        };
        split.into_iter().flat_map(|split| &split.by).map(table).collect()
    }

    /// JSON knows no infinity.
    pub(crate) fn check_finite(&self) -> Result<()> {
        let check = |place: String, value: f64| {
            let error = || Error::new(format!("is not a finite number ({value})")).at(place);
            if value.is_finite() { Ok(()) } else { Err(error()) }
        };
        check("cpu_seconds".into(), self.cpu_seconds)?;
        check("wall_seconds".into(), self.wall_seconds)?;
        for (name, split) in self.splits() {
            split.metrics.iter().try_for_each(|(label, score)| check(format!("{name}.{label}"), score.value))?;
            split.losses().into_iter().try_for_each(|(label, value, _)| check(format!("{name}.{label}"), value))?;
            for (column, of) in split.by.iter().flat_map(|(column, values)| values.iter().map(move |of| (column, of))) {
                let place = |label: &String| format!("{name}.by.{column}.{}.{label}", of.value);
                of.metrics.iter().try_for_each(|(label, value)| check(place(label), *value))?;
            }
            for (column, over) in &split.over_values {
                let place = |label: &String| format!("{name}.over_values.{column}.{label}");
                over.iter().try_for_each(|(label, over)| check(place(label), over.macro_average))?;
            }
        }
        Ok(())
    }
}

impl SplitResults {
    /// What all values of a column say together, a row for each such thing: its name, and the figures under these labels.
    pub(crate) fn rows_over_values(
        &self,
        column: &str,
        labels: &BTreeSet<&String>,
    ) -> Vec<(&'static str, Vec<String>)> {
        let Some(over) = self.over_values.get(column) else { return Vec::new() };
        let row = |of: &dyn Fn(&OverValues) -> Option<String>| -> Vec<String> {
            labels.iter().map(|label| over.get(*label).and_then(of).unwrap_or_default()).collect()
        };
        let averages = row(&|over| Some(format!("{:.2}", over.macro_average)));
        let passed = row(&|over| over.passed.map(|passed| passed.to_string()));
        let is_told = passed.iter().any(|passed| !passed.is_empty());
        [("macro-average", averages)].into_iter().chain(is_told.then_some(("passed", passed))).collect()
    }

    /// What is no metric: how sure the model was, then losses: label, value, decimals worth printing.
    fn losses(&self) -> Vec<(String, f64, usize)> {
        let selective = self.selective.iter().flat_map(Selective::figures);
        selective.chain(self.losses_alone()).collect()
    }

    fn losses_alone(&self) -> Vec<(String, f64, usize)> {
        let Some(Losses { per_token, per_character, per_word, perplexity, token_accuracy, ctc, beside }) = &self.losses
        else {
            return Vec::new();
        };
        let bits = |nats: f64| nats / std::f64::consts::LN_2;
        let mut losses = vec![("loss_per_token", *per_token, 4)];
        losses.extend(per_character.map(|loss| ("loss_per_character", loss, 4)));
        // Those of language models, which are compared in all of these.
        if let Some(per_word) = *per_word {
            losses.extend([("loss_per_word", per_word, 4), ("bits_per_token", bits(*per_token), 4)]);
            losses.extend(per_character.map(|loss| ("bits_per_character", bits(loss), 4)));
            losses.push(("bits_per_word", bits(per_word), 4));
        }
        losses.extend(ctc.map(|loss| ("ctc_loss", loss, 4)));
        losses.push(("perplexity", *perplexity, 3));
        losses.extend(per_word.map(|loss| ("perplexity_per_word", loss.exp(), 3)));
        losses.push(("token_accuracy", *token_accuracy, 2));
        let mut losses: Vec<_> = losses.into_iter().map(|(label, value, n)| (label.to_owned(), value, n)).collect();
        for way in beside {
            let of = |label: &str| format!("{label}{}", way.ending());
            losses.push((of("loss_per_token"), way.per_token, 4));
            losses.push((of("loss_per_character"), way.per_character, 4));
            losses.push((of("perplexity"), way.per_token.exp(), 3));
        }
        losses.extend(self.temperature().map(|temperature| ("temperature".to_owned(), temperature, 3)));
        losses
    }

    /// The temperature of the softmax by which a language model was judged too.
    pub fn temperature(&self) -> Option<f64> {
        self.losses.as_ref()?.beside.iter().find_map(|way| way.temperature)
    }

    /// The metric or loss under a label; `loss`, as training calls it, is the loss per token.
    pub fn value(&self, label: &str) -> Option<f64> {
        let label = if label == "loss" { "loss_per_token" } else { label };
        let loss = || self.losses().into_iter().find(|loss| loss.0 == label).map(|(_, value, _)| value);
        self.metrics.get(label).map(|score| score.value).or_else(loss)
    }

    fn counts(&self) -> Vec<(String, u64)> {
        let Counts { examples, target_tokens, target_characters, skipped, .. } = self.counts;
        let Counts { source_tokens, source_frames, unknown_source, unknown_target, .. } = self.counts;
        let mut counts = vec![("examples", examples)];
        counts.extend(source_tokens.map(|n| ("source_tokens", n)));
        counts.extend(source_frames.map(|n| ("source_frames", n)));
        counts.extend(unknown_source.map(|n| ("unknown_source_tokens", n)));
        let mut counts: Vec<(String, u64)> = counts.into_iter().map(|(label, n)| (label.to_owned(), n)).collect();
        for (name, CountsOfStream { tokens, unknown }) in &self.counts.streams {
            counts.extend([(format!("{name}_tokens"), *tokens), (format!("unknown_{name}_tokens"), *unknown)]);
        }
        let mut push = |label: &str, n| counts.push((label.to_owned(), n));
        push("target_tokens", target_tokens);
        let optional = [
            ("unknown_target_tokens", unknown_target),
            ("target_characters", target_characters),
            ("target_words", self.counts.target_words),
        ];
        optional.into_iter().for_each(|(label, n)| n.into_iter().for_each(|n| push(label, n)));
        push("skipped", skipped);
        self.counts.without_path.into_iter().for_each(|n| push("without_path", n));
        counts
    }

    /// Of how many percent of the sources the search ran out of patience too early, perhaps.
    fn outscored(&self) -> Option<f64> {
        Some(100.0 * self.counts.outscored? as f64 / self.counts.examples.max(1) as f64)
    }

    /// The figure under a label, as it is printed everywhere.
    pub(crate) fn figure(&self, label: &str) -> Option<String> {
        let metric = self.metrics.get(label).map(|score| format!("{:.2}", score.value));
        let loss = || self.losses().into_iter().find(|l| l.0 == label).map(|(_, v, decimals)| written(v, decimals));
        let count = || self.counts().into_iter().find(|c| c.0 == label).map(|(_, n)| n.to_string());
        let share = || self.outscored().filter(|_| label == OUTSCORED).map(|share| format!("{share:.2}"));
        metric.or_else(loss).or_else(count).or_else(share)
    }
}

/// A number with so many decimals; one that would be longer than a column by its powers of ten.
fn written(value: f64, decimals: usize) -> String {
    const WIDE: f64 = 1e6;
    if value.abs() < WIDE { format!("{value:.decimals$}") } else { format!("{value:.3e}") }
}

/// The labels of all figures of some splits: metrics by name, then losses, then counts.
pub(crate) fn labels(splits: &[&SplitResults]) -> Vec<String> {
    let mut labels = labels_of_quality(splits);
    append_new(&mut labels, splits.iter().flat_map(|s| s.counts()).map(|count| count.0));
    append_new(&mut labels, splits.iter().filter_map(|s| s.outscored()).map(|_| OUTSCORED));
    labels
}

/// The same without counts.
pub fn labels_of_quality(splits: &[&SplitResults]) -> Vec<String> {
    let metrics: BTreeSet<_> = splits.iter().flat_map(|s| s.metrics.keys().cloned()).collect();
    let mut labels: Vec<String> = metrics.into_iter().collect();
    append_new(&mut labels, splits.iter().flat_map(|s| s.losses()).map(|loss| loss.0));
    labels
}

fn append_new(labels: &mut Vec<String>, more: impl Iterator<Item = impl Into<String>>) {
    for label in more.map(Into::into) {
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
}

/// The distinct signatures of some splits' metrics, each with its label.
pub(crate) fn signatures(splits: &[&SplitResults]) -> Vec<(String, String)> {
    let all = splits.iter().flat_map(|s| s.metrics.iter()).filter(|(_, score)| !score.signature.is_empty());
    let distinct: BTreeSet<_> = all.map(|(label, s)| (label.clone(), s.signature.clone())).collect();
    distinct.into_iter().collect()
}

/// Seconds as minutes, for people.
pub(crate) fn minutes(seconds: f64) -> String {
    format!("{:.1}", seconds / 60.0)
}

#[cfg(test)]
mod tests {
    use super::{Beside, OfValue, OverValues, PassMark};
    use crate::testing::results;

    #[test]
    fn a_table_has_a_line_for_each_figure_and_a_column_for_each_split() {
        let expected = "                       validation    test
bleu                        76.50   75.50
sequence_error_rate         23.50   24.50
loss_per_token             0.2500  0.2500
loss_per_character         0.1250  0.1250
perplexity                  1.284   1.284
token_accuracy              93.50   93.50
examples                     1000    1000
source_tokens                9000    9000
unknown_source_tokens          12      12
target_tokens                8000    8000
unknown_target_tokens           0       0
target_characters           16000   16000
skipped                         1       1
outscored                    0.30    0.30

model  1234567 parameters, 4.7 MiB, 5000 updates
time   5.5 core-minutes, 2.9 minutes on the clock
bleu is nrefs:1|case:lc|tok:none
";
        assert_eq!(results(24.5).table(), expected);
    }

    /// Nats and bits a token, a character and a word, and what stands beside them.
    #[test]
    fn a_language_model_is_told_in_all_units() {
        let mut all = results(24.5);
        let split = all.test.as_mut().unwrap();
        split.metrics.clear();
        split.counts.target_words = Some(4000);
        let losses = split.losses.as_mut().unwrap();
        losses.per_word = Some(0.5);
        let way =
            |reset, temperature, per_token| Beside { reset, temperature, per_token, per_character: per_token / 2.0 };
        losses.beside =
            vec![way(None, Some(1.25), 0.24), way(Some(256), None, 0.375), way(Some(256), Some(1.25), 0.3125)];
        all.validation = None;
        let table = all.table();
        for (label, figure) in [
            ("loss_per_token", "0.2500"),
            ("loss_per_word", "0.5000"),
            ("bits_per_character", "0.1803"),
            ("bits_per_word", "0.7213"),
            ("perplexity_per_word", "1.649"),
            ("loss_per_token_tempered", "0.2400"),
            ("loss_per_character_reset", "0.1875"),
            ("perplexity_reset_tempered", "1.367"),
            ("temperature", "1.250"),
            ("target_words", "4000"),
        ] {
            let line = table.lines().find(|line| line.split_whitespace().next() == Some(label));
            assert!(line.is_some_and(|line| line.ends_with(figure)), "{label}\n{table}");
            assert_eq!(
                [999_999.0, 1e6, 263_575_758_755_265.7].map(|n| super::written(n, 3)),
                ["999999.000", "1.000e6", "2.636e14"]
            );
        }
        // What can be promised and compared is what is told.
        let split = all.test.as_ref().unwrap();
        assert!(Beside::labels().iter().all(|label| split.value(label).is_some()));
    }

    #[test]
    fn figures_by_value_are_those_of_the_most_frequent_ones() {
        let mut one = results(24.5);
        assert_eq!(one.tables_by("test"), "");
        let of = |value: &str, examples: u64| OfValue {
            value: value.into(),
            examples,
            metrics: [("bleu".to_owned(), examples as f64 / 3.0)].into(),
        };
        let mut values = vec![of("N;\tACC", 9), of("", 7), of(&"x".repeat(50), 1)];
        let by = |values: &[OfValue]| [("features".to_owned(), values.to_vec())].into();
        one.test.as_mut().unwrap().by = by(&values);
        let long = "x".repeat(40) + "…";
        let line = |value: &str, rest: &str| format!("{value:<41}  {rest}\n");
        let expected = [
            "the input split by `features`:\n".to_owned(),
            line("", "examples  bleu"),
            line("N; ACC", "       9  3.00"),
            line("(empty)", "       7  2.33"),
            line(&long, "       1  0.33") + "\n",
        ];
        assert_eq!(one.tables_by("input"), expected.concat());
        // What all of them say together stands below.
        let over = |mark| [("bleu".to_owned(), OverValues::of(&[3.0, 7.0 / 3.0, 1.0 / 3.0], mark))];
        let split = one.test.as_mut().unwrap();
        split.over_values = [("features".to_owned(), over(None).into())].into();
        let average = line("macro-average", "          1.89");
        assert_eq!(one.tables_by("input").lines().nth(5).unwrap(), average.trim_end_matches('\n'));
        for (mark, told) in [(PassMark::AtLeast(2.0), "2 of 3, ≥ 2"), (PassMark::AtMost(1.0), "1 of 3, ≤ 1")] {
            one.test.as_mut().unwrap().over_values = [("features".to_owned(), over(Some(mark)).into())].into();
            let table = one.tables_by("input");
            assert!(
                table.lines().nth(6).is_some_and(|line| line.starts_with("passed") && line.ends_with(told)),
                "{table}"
            );
        }
        one.test.as_mut().unwrap().over_values.clear();
        values.extend((0..30).map(|i| of(&i.to_string(), 1)));
        one.test.as_mut().unwrap().by = by(&values);
        let table = one.tables_by("test");
        assert!(table.starts_with("the test split by `features` (the 20 most frequent of 33 values):\n"), "{table}");
        assert_eq!(table.lines().count(), 23);
    }

    #[test]
    fn a_split_that_was_not_measured_has_no_column() {
        let mut one = results(24.5);
        one.test = None;
        assert!(one.table().starts_with("                       validation\nbleu                        76.50\n"));
        one.validation = None;
        assert!(one.table().starts_with("model  "), "{}", one.table());
    }
}
