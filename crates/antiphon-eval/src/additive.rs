//! Metrics whose figure is a function of sums over the answers.

use std::collections::BTreeMap;

use antiphon_core::{Error, Judged, Metric, Place, Result, Score};

/// A metric that counts each answer by itself and turns the corpus's sums into its figure.
pub(crate) trait AdditiveMetric: Send + Sync {
    /// The name in configs and reports.
    fn name(&self) -> &'static str;

    /// Whether a smaller figure is better.
    fn lower_is_better(&self) -> bool;

    /// How many counts an answer has.
    fn width(&self) -> usize;

    /// Writes the counts of one answer, which has at least one reference, into `counts` (`[width]`, all zero).
    fn count(&self, answer: &Judged, counts: &mut [u64]);

    /// The figure for some sums of counts.
    fn figure(&self, sums: &[u64]) -> f64;

    /// The signature of a figure over `answers`.
    fn signature(&self, answers: &[Judged]) -> String;

    /// What a figure over `answers` is made of, as far as that is told.
    fn parts(&self, answers: &[Judged]) -> BTreeMap<String, u64> {
        let _ = answers;
        BTreeMap::new()
    }
}

/// The counts of all answers: `[answers, width]`, row after row.
pub(crate) struct Counts {
    rows: Vec<u64>,
    width: usize,
}

impl Counts {
    pub(crate) fn of(metric: &dyn AdditiveMetric, answers: &[Judged]) -> Result<Self> {
        check(answers)?;
        let width = metric.width();
        let mut rows = vec![0; answers.len() * width];
        for (answer, row) in answers.iter().zip(rows.chunks_exact_mut(width)) {
            metric.count(answer, row);
        }
        Ok(Self { rows, width })
    }

    pub(crate) fn row(&self, answer: usize) -> &[u64] {
        &self.rows[answer * self.width..][..self.width]
    }

    /// Adds the counts of as many other answers, row by row.
    pub(crate) fn merge(&mut self, other: &Self) {
        add(&mut self.rows, &other.rows);
    }

    /// Sums of the named rows; a row may be named more than once.
    pub(crate) fn sum(&self, answers: impl Iterator<Item = usize>) -> Vec<u64> {
        let mut sums = vec![0; self.width];
        for answer in answers {
            add(&mut sums, self.row(answer));
        }
        sums
    }
}

pub(crate) fn add(sums: &mut [u64], row: &[u64]) {
    for (sum, count) in sums.iter_mut().zip(row) {
        *sum += count;
    }
}

/// Refuses what no metric is defined for.
pub(crate) fn check(answers: &[Judged]) -> Result<()> {
    if answers.is_empty() {
        return Err(Error::new("there are no answers to judge; give at least one"));
    }
    match answers.iter().position(|answer| answer.references.is_empty()) {
        None => Ok(()),
        Some(i) => Err(Error::new("has no reference; give at least one").at(Place::text(format!("answer {}", i + 1)))),
    }
}

/// An additive metric as the rest of Antiphon sees it.
pub(crate) struct OverCorpus(pub(crate) Box<dyn AdditiveMetric>);

impl Metric for OverCorpus {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn lower_is_better(&self) -> bool {
        self.0.lower_is_better()
    }

    fn score(&self, answers: &[Judged]) -> Result<Score> {
        let sums = Counts::of(&*self.0, answers)?.sum(0..answers.len());
        Ok(Score {
            metric: self.0.name().to_string(),
            value: self.0.figure(&sums),
            signature: self.0.signature(answers),
            parts: self.0.parts(answers),
        })
    }
}
