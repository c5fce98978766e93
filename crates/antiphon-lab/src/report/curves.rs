//! How a training went: its log as curves.

use std::collections::BTreeMap;

use antiphon_core::{Error, Place, Result};
use serde::Deserialize;

use super::chart::{Chart, Line, Look};
use super::html::{Html, escape, folded, html, table};
use super::scale::short;
use crate::metrics_log::MetricsLog;
use crate::run::Run;

/// How many places across a chart are worth drawing.
const PLACES: usize = 240;
/// A smoothed value is the mean of so great a part of all updates around it.
const SMOOTHED: usize = 50;
/// How many validations a table lists.
const ROWS: usize = 200;
/// What a validation's loss is called in the log.
const LOSS: &str = "loss";

/// The log of a run, as far as it goes.
#[derive(Debug, Default)]
pub(super) struct Curves {
    steps: Vec<Step>,
    validations: Vec<Validation>,
}

/// A line of the log. A number that was not finite is `null` there.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Record {
    Step(Step),
    Validation(Validation),
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Step {
    step: u64,
    loss: Option<f64>,
    /// Only where somebody taught.
    teacher_loss: Option<f64>,
    learning_rate: Option<f64>,
    gradient_norm: Option<f64>,
    tokens: u64,
    seconds: f64,
}

/// A validation during training.
#[derive(Debug, Deserialize)]
pub(super) struct Validation {
    pub(super) step: u64,
    pub(super) epoch: u64,
    values: BTreeMap<String, Option<f64>>,
    /// Whether the model was the best so far.
    best: bool,
    /// What the model wrote.
    #[serde(default)]
    pub(super) samples: Vec<String>,
}

impl Validation {
    /// A figure; not a number if it is missing.
    pub(super) fn value(&self, label: &str) -> f64 {
        self.values.get(label).copied().flatten().unwrap_or(f64::NAN)
    }
}

impl Curves {
    /// Reads what a run has logged so far.
    pub(super) fn read(run: &Run) -> Result<Self> {
        let path = run.metrics_path();
        let mut curves = Self::default();
        for (i, record) in MetricsLog::read(&path)?.into_iter().enumerate() {
            let foreign = |e| Error::new(format!("is no record of a training ({e}); remove this line"));
            let record = serde_json::from_value(record)
                .map_err(|e| foreign(e).at(Place::text(format!("record {}", i + 1))).in_file(&path))?;
            match record {
                Record::Step(step) => curves.steps.push(step),
                Record::Validation(validation) => curves.validations.push(validation),
                Record::Other => {}
            }
        }
        Ok(curves)
    }

    /// The validation whose model was chosen: the last that was the best so far.
    pub(super) fn best(&self) -> Option<&Validation> {
        self.validations.iter().rev().find(|validation| validation.best)
    }

    /// The validations, in their order.
    pub(super) fn validations(&self) -> &[Validation] {
        &self.validations
    }

    /// Updates made.
    pub(super) fn updates(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.step)
    }

    /// One figure of the validations over the updates.
    pub(super) fn validated(&self, label: &str) -> Vec<(f64, f64)> {
        let points = self.validations.iter().map(|v| (v.step as f64, v.value(label)));
        points.filter(|(_, value)| value.is_finite()).collect()
    }

    /// The labels of all figures of the validations; `first` comes first.
    pub(super) fn labels(&self, first: &str) -> Vec<&str> {
        let mut labels: Vec<&str> = self.validations.iter().flat_map(|v| v.values.keys().map(String::as_str)).collect();
        labels.sort_unstable();
        labels.dedup();
        labels.sort_by_key(|&label| label != first);
        labels
    }

    /// All charts; `chosen_by` is the figure by which the model is chosen.
    pub(super) fn charts(&self, chosen_by: &str) -> Html {
        let labels = self.labels(chosen_by);
        let figures = labels.iter().filter(|&&label| label != LOSS).map(|label| self.of_validation(label));
        let charts = std::iter::once(self.loss()).chain(figures).chain(self.of_training());
        let charts: Html = charts.map(|chart| chart.figure()).collect();
        if charts.is_empty() { charts } else { html!("<div class=\"charts\">\n{}</div>\n", charts) }
    }

    fn loss(&self) -> Chart {
        let training = self.smooth_line("training", |step| (step.loss.unwrap_or(f64::NAN), 1.0));
        let points = self.validated(LOSS);
        let validation = Line { name: "validation".into(), look: Look::Own(1), points, raw: Vec::new(), dots: true };
        let is_taught = self.steps.iter().any(|step| step.teacher_loss.is_some());
        let teacher = is_taught.then(|| {
            let line = self.smooth_line("the teacher's part", |step| (step.teacher_loss.unwrap_or(f64::NAN), 1.0));
            Line { look: Look::Own(2), ..line }
        });
        let lines = [training, validation].into_iter().chain(teacher);
        let lines = lines.filter(|line| !line.points.is_empty()).collect();
        self.chart("Loss", "nats per target token; in training with dropout and label smoothing, if set", lines)
    }

    fn of_validation(&self, label: &str) -> Chart {
        let points = self.validated(label);
        let line = Line { name: label.into(), look: Look::Own(1), points, raw: Vec::new(), dots: true };
        let mut chart = self.chart(label, "at each validation", vec![line]);
        if let Some(best) = self.best().filter(|best| best.value(label).is_finite()) {
            let value = best.value(label);
            chart.mark = Some((best.step as f64, value, format!("best model: {}", short(value))));
        }
        chart
    }

    fn of_training(&self) -> [Chart; 3] {
        let one = |title: &str, note: &str, of: fn(&Step) -> (f64, f64)| {
            let line = self.smooth_line(&title.to_lowercase(), of);
            self.chart(title, note, vec![line])
        };
        let exact = self.steps.iter().map(|step| (step.step as f64, step.learning_rate.unwrap_or(f64::NAN)));
        let exact = self.broken(thinned(&exact.collect::<Vec<_>>()));
        let rate =
            Line { name: "learning rate".into(), look: Look::Own(0), points: exact, raw: Vec::new(), dots: false };
        [
            self.chart("Learning rate", "of each update", vec![rate]),
            one("Gradient norm", "before it is clipped", |step| (step.gradient_norm.unwrap_or(f64::NAN), 1.0)),
            one("Tokens per second", "target tokens, padding apart; without validation", |step| {
                (step.tokens as f64, step.seconds)
            }),
        ]
    }

    fn chart(&self, title: &str, note: &str, lines: Vec<Line>) -> Chart {
        Chart {
            title: title.into(),
            note: note.into(),
            across: "update",
            reach: self.updates() as f64,
            lines,
            names: true,
            mark: None,
        }
    }

    /// A line of quotients over the updates, smoothed: each is the quotient of the sums around its update.
    fn smooth_line(&self, name: &str, of: fn(&Step) -> (f64, f64)) -> Line {
        let places: Vec<f64> = self.steps.iter().map(|step| step.step as f64).collect();
        let parts: Vec<(f64, f64)> = self.steps.iter().map(of).collect();
        let rough = places.iter().copied().zip(parts.iter().map(|(above, below)| above / below));
        let rough: Vec<(f64, f64)> = rough.collect();
        let smooth: Vec<(f64, f64)> = places.into_iter().zip(smoothed(&parts)).collect();
        // Of few updates each is its own mean.
        let raw = if rough.len() >= SMOOTHED { self.broken(thinned(&rough)) } else { Vec::new() };
        Line { name: name.into(), look: Look::Own(0), points: self.broken(thinned(&smooth)), raw, dots: false }
    }

    /// A line with a gap wherever the log lacks steps.
    fn broken(&self, mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
        for hole in self.steps.windows(2).filter(|pair| pair[0].step + 1 < pair[1].step) {
            let middle = (hole[0].step as f64 + hole[1].step as f64) / 2.0;
            points.insert(points.partition_point(|(at, _)| *at < middle), (middle, f64::NAN));
        }
        points
    }

    /// Every validation in figures, folded: what the charts show, for those who do not see them.
    pub(super) fn validations_table(&self, chosen_by: &str) -> Html {
        if self.validations.is_empty() {
            return Html::new();
        }
        let labels = self.labels(chosen_by);
        let head = ["update", "epochs"].into_iter().chain(labels.iter().copied()).map(escape);
        let every = self.validations.len().div_ceil(ROWS);
        let best = self.best().map(|best| best.step);
        let listed = self.validations.iter().enumerate().filter(|(i, v)| i % every == 0 || Some(v.step) == best);
        let row = |(_, validation): (usize, &Validation)| {
            let figures = labels.iter().map(|label| match validation.value(label) {
                value if value.is_finite() => escape(&short(value)),
                _ => escape("–"),
            });
            let mark = escape(if Some(validation.step) == best { " ★" } else { "" });
            let head = [html!("{}{}", validation.step, mark), html!("{}", validation.epoch)];
            head.into_iter().chain(figures).collect()
        };
        let head: Vec<Html> = head.collect();
        let rows: Vec<Vec<Html>> = listed.map(row).collect();
        let what = if every > 1 { format!("Validations, one in {every}") } else { "Validations".into() };
        let summary = format!("{what} in figures (★ the best model)");
        folded(&summary, &table(&what, &head, &rows))
    }
}

/// For each place the quotient of the sums over the places around it. What is not finite is left out of both sums.
fn smoothed(parts: &[(f64, f64)]) -> Vec<f64> {
    let reach = parts.len() / SMOOTHED / 2;
    let mut sums = vec![(0.0, 0.0)];
    for &(above, below) in parts {
        let last = sums[sums.len() - 1];
        let finite = above.is_finite() && below.is_finite();
        sums.push(if finite { (last.0 + above, last.1 + below) } else { last });
    }
    let quotient = |i: usize| {
        // As far to the one side as to the other, so that the mean stands where it belongs.
        let reach = reach.min(i).min(parts.len() - 1 - i);
        let (from, to) = (sums[i - reach], sums[i + reach + 1]);
        (to.0 - from.0) / (to.1 - from.1)
    };
    (0..parts.len()).map(quotient).collect()
}

/// At most twice [`PLACES`] points that look like all of them: the lowest and the highest of each stretch, in their order.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let length = points.len().div_ceil(PLACES).max(1);
    if length == 1 {
        return points.to_vec();
    }
    let stretch = |part: &[(f64, f64)]| {
        let finite = || part.iter().enumerate().filter(|(_, point)| point.1.is_finite());
        let low = finite().min_by(|a, b| a.1.1.total_cmp(&b.1.1)).map_or(0, |(i, _)| i);
        let high = finite().max_by(|a, b| a.1.1.total_cmp(&b.1.1)).map_or(0, |(i, _)| i);
        let (first, second) = (low.min(high), low.max(high));
        let second = (second != first).then(|| part[second]);
        std::iter::once(part[first]).chain(second).collect::<Vec<_>>()
    };
    points.chunks(length).flat_map(stretch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_stays_and_a_step_is_smoothed_evenly() {
        let parts: Vec<(f64, f64)> = (0..400).map(|i| (if i < 200 { 2.0 } else { 4.0 }, 2.0)).collect();
        let smooth = smoothed(&parts);
        assert_eq!((smooth[0], smooth[150], smooth[250], smooth[399]), (1.0, 1.0, 2.0, 2.0));
        assert!((smooth[199] + smooth[200] - 3.0).abs() < 1e-12, "{smooth:?}");
        assert!(smooth.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn rates_are_quotients_of_sums() {
        // One update with a thousand times the tokens of the others, at the same speed.
        let parts: Vec<(f64, f64)> = (0..300).map(|i| if i == 150 { (1000.0, 500.0) } else { (1.0, 0.5) }).collect();
        assert!(smoothed(&parts).iter().all(|rate| (rate - 2.0).abs() < 1e-9));
    }

    #[test]
    fn one_loss_that_is_not_finite_is_left_out() {
        let mut parts = vec![(1.0, 1.0); 300];
        parts[150] = (f64::NAN, 1.0);
        assert!(smoothed(&parts).iter().all(|value| (value - 1.0).abs() < 1e-12));
        let alone = smoothed(&[(f64::NAN, 1.0)]);
        assert!(alone.len() == 1 && alone[0].is_nan());
        assert!(smoothed(&[]).is_empty());
    }

    #[test]
    fn steps_that_the_log_lacks_are_a_gap() {
        let step = |step| Step {
            step,
            loss: Some(1.0),
            teacher_loss: None,
            learning_rate: Some(1e-3),
            gradient_norm: Some(1.0),
            tokens: 10,
            seconds: 0.1,
        };
        for (last, hole) in [(20, 5..=8), (3000, 500..=509)] {
            let steps = (1..=last).filter(|own| !hole.contains(own)).map(step).collect();
            let curves = Curves { steps, validations: Vec::new() };
            let line = curves.smooth_line("loss", |step| (step.loss.unwrap_or(f64::NAN), 1.0));
            for points in [&line.points, &line.raw].into_iter().filter(|points| !points.is_empty()) {
                let gaps: Vec<f64> = points.iter().filter(|point| point.1.is_nan()).map(|point| point.0).collect();
                assert!(gaps.len() == 1 && hole.contains(&(gaps[0] as u64)), "{gaps:?}");
                assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0));
            }
            assert_eq!(super::super::chart::path(line.points.into_iter()).matches('M').count(), 2);
        }
    }

    #[test]
    fn thinning_keeps_extremes_and_order() {
        let points: Vec<(f64, f64)> =
            (0..10_000).map(|i| (f64::from(i), if i == 777 { 50.0 } else { f64::from(i % 7) })).collect();
        let few = thinned(&points);
        assert!(few.len() <= 2 * PLACES, "{}", few.len());
        assert!(few.contains(&(777.0, 50.0)) && few.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(thinned(&points[..5]), points[..5]);
    }
}
