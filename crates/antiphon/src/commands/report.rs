//! What a person is told about a run that is finished.

use std::path::Path;

use antiphon_core::{Error, Judged, Result, printable};
use antiphon_lab::{Results, Run, write_atomically};

use crate::experiment::{Answered, spread};
use crate::output::{program, shell};

/// The figures, some answers, and what to do next.
pub(super) fn finished(run: &Run, results: &Results, show: usize) -> Result<String> {
    let mut text = format!("\n{}{}\n", results.table(), meanings(results));
    // The answers of the last split that was measured: test, if there is one.
    let answers = match results.splits().last() {
        Some((split, _)) => read_answers(&run.predictions_path(split))?,
        None => Vec::new(),
    };
    text += &some_answers(&answers, show);
    let (program, folder) = (program(), shell(run.path()));
    let example = answers.first().map_or("TEXT", |answered| answered.source.as_str());
    let page = run.report_path();
    let page = if page.is_file() { format!("its page   {}\n", shell(&page)) } else { String::new() };
    text += &format!(
        "the run    {folder}\n{page}next       echo {} | {program} predict {folder}\n           {program} compare {folder} \
         ANOTHER_RUN\n",
        shell(Path::new(example)),
    );
    Ok(text)
}

/// `show` answers from all over the split, the correct ones marked.
pub(super) fn some_answers(answers: &[Answered], show: usize) -> String {
    let line = |answered: &Answered| {
        let right = answered.references.join(" | ");
        let (mark, right) = if answered.is_correct() { ("+", String::new()) } else { ("-", format!("  [{right}]")) };
        printable(&format!("{mark} {} -> {}{right}", answered.source, answered.best())).into_owned() + "\n"
    };
    let lines: Vec<String> = spread(answers, show).map(line).collect();
    if lines.is_empty() {
        return String::new();
    }
    let (show, lines) = (lines.len(), lines.concat());
    format!("{show} of {} answers (+ matches a reference, - does not [what would]):\n{lines}\n", answers.len())
}

/// What metrics are called where they come from, for those of a run.
fn meanings(results: &Results) -> String {
    const MEANINGS: [(&str, &str); 2] = [
        (
            "sequence_error_rate",
            "percent of answers that match no reference; where a source is a word, its word error rate",
        ),
        ("phone_error_rate", "percent of phones to be edited to reach the closest reference"),
    ];
    let used = |name: &str| results.splits().any(|(_, split)| split.metrics.contains_key(name));
    MEANINGS.iter().filter(|(name, _)| used(name)).map(|(name, meaning)| format!("{name}: {meaning}\n")).collect()
}

/// Writes the answers of a split, one JSON object a line.
pub(super) fn write_answers(path: &Path, answers: &[Answered]) -> Result<()> {
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

/// A run's best answers on a split with what counts as right; none if there are none.
pub(super) fn judged(run: &Run, split: &str) -> Result<Vec<Judged>> {
    let answers = read_answers(&run.predictions_path(split))?.into_iter();
    let judged = |a: Answered| Judged { hypothesis: a.best().to_owned(), references: a.references };
    Ok(answers.map(judged).collect())
}
