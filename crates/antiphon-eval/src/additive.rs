//! Metrics whose figure is a function of sums over the answers.

use std::collections::{BTreeMap, HashMap};

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

    /// The figure for some sums of counts. Of a metric that [counts kinds](Self::counts_kinds) two sums more are behind them: how
    /// many kinds there are, and how many things are of a kind that several units have.
    fn figure(&self, sums: &[u64]) -> f64;

    /// The signature of a figure over `answers`.
    fn signature(&self, answers: &[Judged]) -> String;

    /// What a figure over `answers` is made of, as far as that is told; `sums` are theirs.
    fn parts(&self, answers: &[Judged], sums: &[u64]) -> BTreeMap<String, u64> {
        let _ = (answers, sums);
        BTreeMap::new()
    }

    /// The columns of the answers that it reads.
    fn columns(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The same metric with what it must know of all answers together, if there is such a thing that it does not know yet.
    fn knowing(&self, answers: &[Judged]) -> Option<Box<dyn AdditiveMetric>> {
        let _ = answers;
        None
    }

    /// The column whose equal values make answers one unit: they are counted together, and drawn together. `None`: each answer is one.
    fn united_by(&self) -> Option<&str> {
        None
    }

    /// Makes the counts of a unit of the sums over its answers.
    fn unite(&self, sums: &mut [u64]) {
        let _ = sums;
    }

    /// Whether it asks how many different things there are.
    fn counts_kinds(&self) -> bool {
        false
    }

    /// The things in an answer of which it asks how many are different.
    fn kinds(&self, answer: &Judged) -> Vec<String> {
        let _ = answer;
        Vec::new()
    }
}

/// The counts of all units, which are answers if nothing unites them: `[units, width]`, row after row.
pub(crate) struct Counts {
    rows: Vec<u64>,
    width: usize,
    /// Of each unit the kinds of its things, where kinds are counted.
    kinds: Option<Vec<Vec<u32>>>,
    /// How many kinds there are: theirs are below this number.
    different: usize,
}

impl Counts {
    pub(crate) fn of(metric: &dyn AdditiveMetric, answers: &[Judged]) -> Result<Self> {
        let mut counts = Self::several(metric, &[answers])?;
        Ok(counts.pop().expect("of one there is one"))
    }

    /// Those of several systems, which have the same number for the same kind.
    pub(crate) fn several(metric: &dyn AdditiveMetric, systems: &[&[Judged]]) -> Result<Vec<Self>> {
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let mut of = |answers: &&[Judged]| {
            check(answers)?;
            check_columns(metric, answers)?;
            let width = metric.width();
            let (units, count) = units(metric.united_by(), answers);
            let mut rows = vec![0; count * width];
            let mut counts = vec![0; width];
            for (answer, units) in answers.iter().zip(&units) {
                counts.fill(0);
                metric.count(answer, &mut counts);
                units.iter().for_each(|unit| add(&mut rows[unit * width..][..width], &counts));
            }
            rows.chunks_exact_mut(width).for_each(|row| metric.unite(row));
            let kinds = metric.counts_kinds().then(|| {
                let mut kinds = vec![Vec::new(); count];
                for (answer, units) in answers.iter().zip(&units) {
                    for kind in metric.kinds(answer) {
                        let next = numbers.len() as u32;
                        let number = *numbers.entry(kind).or_insert(next);
                        units.iter().for_each(|&unit| kinds[unit].push(number));
                    }
                }
                kinds
            });
            Ok(Self { rows, width, kinds, different: 0 })
        };
        let mut all = systems.iter().map(&mut of).collect::<Result<Vec<_>>>()?;
        all.iter_mut().for_each(|counts| counts.different = numbers.len());
        Ok(all)
    }

    pub(crate) fn row(&self, unit: usize) -> &[u64] {
        &self.rows[unit * self.width..][..self.width]
    }

    /// How many units there are.
    pub(crate) fn units(&self) -> usize {
        self.rows.len() / self.width
    }

    /// Adds the counts of as many other units, row by row; their kinds are others.
    pub(crate) fn merge(&mut self, other: &Self) {
        add(&mut self.rows, &other.rows);
        if let (Some(kinds), Some(others)) = (&mut self.kinds, &other.kinds) {
            let before = self.different as u32;
            kinds.iter_mut().zip(others).for_each(|(kinds, more)| kinds.extend(more.iter().map(|kind| before + kind)));
        }
        self.different += other.different;
    }

    /// Sums of the named units; a unit may be named more than once.
    pub(crate) fn sum(&self, units: impl Iterator<Item = usize>) -> Vec<u64> {
        let mut sum = Sum::like(self);
        units.for_each(|unit| sum.add(self, unit));
        sum.total()
    }
}

/// A sum over units of one or several systems.
pub(crate) struct Sum {
    sums: Vec<u64>,
    kinds: Option<Vec<Seen>>,
}

/// How often a kind was seen.
#[derive(Clone, Default)]
struct Seen {
    /// The unit that had it first, counted from 1.
    first: usize,
    times: u64,
    /// Whether another unit had it too. The same one, drawn twice, is no other.
    again: bool,
}

impl Sum {
    /// One that such counts can be added to.
    pub(crate) fn like(counts: &Counts) -> Self {
        let kinds = counts.kinds.as_ref().map(|_| vec![Seen::default(); counts.different]);
        Self { sums: vec![0; counts.width], kinds }
    }

    pub(crate) fn add(&mut self, counts: &Counts, unit: usize) {
        add(&mut self.sums, counts.row(unit));
        let Some((seen, kinds)) = self.kinds.as_mut().zip(counts.kinds.as_ref()) else { return };
        for &kind in &kinds[unit] {
            let seen = &mut seen[kind as usize];
            seen.again |= seen.times > 0 && seen.first != unit + 1;
            seen.first = if seen.times == 0 { unit + 1 } else { seen.first };
            seen.times += 1;
        }
    }

    /// The sums, with those of the kinds behind them.
    pub(crate) fn total(mut self) -> Vec<u64> {
        if let Some(seen) = self.kinds {
            let kinds = seen.iter().filter(|seen| seen.times > 0).count() as u64;
            let again = seen.iter().filter(|seen| seen.again).map(|seen| seen.times).sum();
            self.sums.extend([kinds, again]);
        }
        self.sums
    }
}

pub(crate) fn add(sums: &mut [u64], row: &[u64]) {
    for (sum, count) in sums.iter_mut().zip(row) {
        *sum += count;
    }
}

/// The units of each answer, numbered as they first come, and how many there are. An answer with several values is part of several.
fn units(column: Option<&str>, answers: &[Judged]) -> (Vec<Vec<usize>>, usize) {
    let Some(column) = column else { return ((0..answers.len()).map(|i| vec![i]).collect(), answers.len()) };
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut all = Vec::with_capacity(answers.len());
    for answer in answers {
        let mut units = Vec::new();
        for value in answer.columns.get(column).into_iter().flatten() {
            let next = numbers.len();
            units.push(*numbers.entry(value).or_insert(next));
        }
        all.push(units);
    }
    (all, numbers.len())
}

/// Refuses what no metric is defined for.
pub(crate) fn check(answers: &[Judged]) -> Result<()> {
    if answers.is_empty() {
        return Err(Error::new("there are no answers to judge; give at least one"));
    }
    match answers.iter().position(|answer| answer.references.is_empty()) {
        None => Ok(()),
        Some(i) => Err(Error::new("has no reference; give at least one").at(answer(i))),
    }
}

/// Refuses answers that lack a column which a metric reads.
fn check_columns(metric: &dyn AdditiveMetric, answers: &[Judged]) -> Result<()> {
    for column in metric.columns() {
        let lacks = |answer: &Judged| answer.columns.get(column).is_none_or(Vec::is_empty);
        if let Some(i) = answers.iter().position(lacks) {
            let message = format!("has no column `{column}`, which `{}` reads", metric.name());
            return Err(Error::new(message).at(answer(i)));
        }
    }
    Ok(())
}

/// The place of an answer, counted from 0.
fn answer(i: usize) -> Place {
    Place::text(format!("answer {}", i + 1))
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
        let knowing = self.0.knowing(answers);
        let metric = knowing.as_deref().unwrap_or(&*self.0);
        let counts = Counts::of(metric, answers)?;
        let sums = counts.sum(0..counts.units());
        Ok(Score {
            metric: metric.name().to_string(),
            value: metric.figure(&sums),
            signature: metric.signature(answers),
            parts: metric.parts(answers, &sums),
        })
    }
}
