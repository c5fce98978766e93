//! What a person is told about a run that is finished.

use std::ffi::OsString;
use std::path::Path;

use antiphon_core::disk::write_atomically;
use antiphon_core::{Error, Judged, Result, printable};
use antiphon_lab::{Results, Run, Runs, TokenLosses};

use crate::device::DeviceConfig;
use crate::experiment::{Answered, Experiment, spread};
use crate::output::{command, echo, one_line, shell};

/// The figures, some answers, and what to do next. `runs` are those that it may be held against.
///
/// `experiment` is the run's; where it has no answers, one of its sources is asked about.
pub(super) fn finished(run: &Run, results: &Results, experiment: &Experiment, runs: &Runs) -> Result<String> {
    let is_table = experiment.config.data.as_table().is_some();
    let mut text = format!("\n{}{}\n", results.table(), meanings(results, is_table));
    // Figures by value, and answers, of the last split that was measured: test, if there is one.
    let answers = match results.splits().last() {
        Some((split, _)) => {
            text += &results.tables_by(split);
            read_answers(&run.predictions_path(split))?
        }
        None => Vec::new(),
    };
    text += &some_answers(&answers, experiment.config.evaluate.show);
    let page = run.report_path();
    let page = if page.is_file() { format!("its page   {}\n", shell(&page)) } else { String::new() };
    text += &format!("the run    {}\n{page}", shell(run.path()));
    let mut commands = Vec::new();
    if !experiment.config.data.has_source() {
        let words: Vec<OsString> = vec!["generate".into(), run.path().into()];
        commands.push(command(words.into_iter().chain(on_its_device(run)?)));
    }
    commands.push(ask(run, experiment, answers.first().map(|answered| answered.source.as_str()))?);
    if let Some(other) = other(run, runs)? {
        commands.push(command(["compare".as_ref(), other.path(), run.path()]));
    }
    Ok(text + &next(&commands))
}

/// What to do next: a command a line, each ready for the shell.
pub(super) fn next(commands: &[String]) -> String {
    let line = |(i, command): (usize, &String)| format!("{:11}{command}\n", if i == 0 { "next" } else { "" });
    commands.iter().enumerate().map(line).collect()
}

/// The command that asks a run's model about a line, where it was trained: what it answers, or how probable a text is. Where no
/// line is given, one that it learned from is taken. The model of a table is asked about a file.
pub(super) fn ask(run: &Run, experiment: &Experiment, line: Option<&str>) -> Result<String> {
    let has_source = experiment.config.data.has_source();
    let what = if has_source { "predict" } else { "score" };
    let mut words: Vec<OsString> = vec![what.into(), run.path().into()];
    words.extend(on_its_device(run)?);
    if let Some(table) = experiment.a_table() {
        words.extend(["--input".into(), table.into()]);
        return Ok(command(words));
    }
    let line = line.map_or_else(|| experiment.a_line(), |line| Ok(line.to_owned()))?;
    let line = if has_source { line.as_str() } else { beginning(&line) };
    Ok(format!("{} | {}", echo(line), command(words)))
}

/// So much of a text as makes an example of it: whole words, if there are any.
fn beginning(text: &str) -> &str {
    const ENOUGH: usize = 60;
    let Some((end, _)) = text.char_indices().nth(ENOUGH) else { return text };
    let cut = &text[..end];
    cut.rsplit_once(char::is_whitespace).map_or(cut, |(words, _)| words.trim_end())
}

/// The option that lets a run's model compute where it was trained; none for the default.
pub(super) fn on_its_device(run: &Run) -> Result<Vec<OsString>> {
    let device = run.manifest()?.device;
    Ok(if device == DeviceConfig::default().name() { Vec::new() } else { vec!["--device".into(), device.into()] })
}

/// The run to hold this one against: the last other one that is finished, one of the same name before others.
fn other(run: &Run, runs: &Runs) -> Result<Option<Run>> {
    let name = run.manifest()?.name;
    let mut found = Vec::new();
    for other in runs.list()?.into_iter().filter(|other| other.name() != run.name()) {
        // A damaged run is no obstacle.
        if let (Ok(manifest), Ok(true), Ok(Some(_))) = (other.manifest(), other.is_finished(), other.results()) {
            found.push((manifest.name == name, manifest.started, other));
        }
    }
    let last = found.into_iter().max_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    Ok(last.map(|(_, _, other)| other))
}

/// `show` answers from all over the split, the correct ones marked.
pub(super) fn some_answers(answers: &[Answered], show: usize) -> String {
    let line = |answered: &Answered| {
        let right = answered.references.join(" | ");
        let (mark, right) = if answered.is_correct() { ("+", String::new()) } else { ("-", format!("  [{right}]")) };
        let line = one_line(&format!("{mark} {} -> {}{right}", answered.shown(), answered.best()));
        printable(&line).into_owned() + "\n"
    };
    let lines: Vec<String> = spread(answers, show).map(line).collect();
    if lines.is_empty() {
        return String::new();
    }
    let (show, lines) = (lines.len(), lines.concat());
    format!("{show} of {} answers (+ matches a reference, - does not [what would]):\n{lines}\n", answers.len())
}

/// What metrics are called where they come from, for those of a run.
fn meanings(results: &Results, is_table: bool) -> String {
    let wrong = match is_table {
        true => "percent of answers that match no reference",
        false => "percent of answers that match no reference; where a source is a word, its word error rate",
    };
    let meanings = [
        ("sequence_error_rate", wrong),
        ("phone_error_rate", "percent of phones to be edited to reach the closest reference"),
    ];
    let used = |name: &str| results.splits().any(|(_, split)| split.metrics.contains_key(name));
    meanings.iter().filter(|(name, _)| used(name)).map(|(name, meaning)| format!("{name}: {meaning}\n")).collect()
}

/// Writes the answers of a split, one JSON object a line; without any there is no file.
pub(super) fn write_answers(path: &Path, answers: &[Answered]) -> Result<()> {
    if answers.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for answered in answers {
        text += &serde_json::to_string(answered).map_err(|e| Error::new(e.to_string()).in_file(path))?;
        text.push('\n');
    }
    write_atomically(path, text.as_bytes())
}

/// The answers that [`write_answers`] wrote; none if there is no such file.
pub(super) fn read_answers(path: &Path) -> Result<Vec<Answered>> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(|e| Error::io(path, "read", &e))?,
    };
    let damaged = |e| Error::new(format!("is damaged ({e}); `evaluate` the run again")).in_file(path);
    text.lines().map(|line| serde_json::from_str(line).map_err(damaged)).collect()
}

/// Writes where the loss of a language model lies on a split.
pub(super) fn write_losses(path: &Path, losses: Option<&TokenLosses>) -> Result<()> {
    let Some(losses) = losses else { return Ok(()) };
    let text = serde_json::to_string(losses).map_err(|e| Error::new(e.to_string()).in_file(path))?;
    write_atomically(path, (text + "\n").as_bytes())
}

/// What [`write_losses`] wrote, if anything.
pub(super) fn read_losses(path: &Path) -> Result<Option<TokenLosses>> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|e| Error::io(path, "read", &e))?,
    };
    let damaged = |e| Error::new(format!("is damaged ({e}); `evaluate` the run again")).in_file(path);
    serde_json::from_str(&text).map(Some).map_err(damaged)
}

/// A run's best answers on a split with what counts as right; none if there are none.
pub(super) fn judged(run: &Run, split: &str) -> Result<Vec<Judged>> {
    Ok(read_answers(&run.predictions_path(split))?.iter().map(Answered::judged).collect())
}
