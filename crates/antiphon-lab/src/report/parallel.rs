//! Parallel coordinates (Inselberg 1985): an upright axis for each setting and for the figure, a line for each run.

use super::chart::{Look, path, range};
use super::html::{Html, escape, html, wide};
use super::scale::{Scale, short};

/// How wide the drawing would be; axes stand no nearer to each other and no farther than so much.
const WIDTH: f64 = 1160.0;
const BETWEEN: (f64, f64) = (140.0, 240.0);
/// From the first and the last axis to the edge.
const MARGIN: f64 = 80.0;
/// Where axes begin and end, and how high the drawing is.
const TOP: f64 = 52.0;
const BOTTOM: f64 = 300.0;
const HEIGHT: f64 = 320.0;
/// More distinct numbers than so many make a scale instead of an order.
const DISTINCT: usize = 8;
/// How many letters of a value are written, and of a key.
const LETTERS: usize = 16;

/// One axis.
#[derive(Debug)]
pub(super) struct Axis {
    key: String,
    /// Where each run stands on it, from 0 (below) to 1; not a number if nowhere.
    places: Vec<f64>,
    /// What is written beside it, and where.
    labels: Vec<(f64, String)>,
    /// Each run's value in words.
    values: Vec<String>,
}

impl Axis {
    /// A setting: few values stand in their order at even distances, many numbers on a scale.
    pub(super) fn of_settings(key: &str, values: Vec<String>) -> Self {
        let numbers: Vec<Option<f64>> = values.iter().map(|value| value.parse().ok()).collect();
        let mut distinct: Vec<(Option<f64>, &String)> = numbers.iter().copied().zip(&values).collect();
        // Numbers by size, then words by letter.
        let order = |number: Option<f64>| number.unwrap_or(f64::INFINITY);
        distinct.sort_by(|a, b| order(a.0).total_cmp(&order(b.0)).then_with(|| a.1.cmp(b.1)));
        distinct.dedup();
        if distinct.len() > DISTINCT && numbers.iter().all(Option::is_some) {
            return Self::on_a_scale(key, numbers, values);
        }
        let last = distinct.len().saturating_sub(1).max(1) as f64;
        let height = |i: usize| if distinct.len() == 1 { 0.5 } else { i as f64 / last };
        let place = |value: &String| distinct.iter().position(|(_, other)| *other == value).map_or(f64::NAN, height);
        let every = distinct.len().div_ceil(2 * DISTINCT);
        let labels = distinct.iter().enumerate().filter(|(i, _)| i % every == 0);
        let labels = labels.map(|(i, (_, value))| (height(i), (*value).clone())).collect();
        let places = values.iter().map(place).collect();
        Self { key: key.into(), places, labels, values }
    }

    /// A figure.
    pub(super) fn of_figures(key: &str, values: Vec<Option<f64>>) -> Self {
        let words = values.iter().map(|value| value.map_or("–".into(), short)).collect();
        Self::on_a_scale(key, values, words)
    }

    fn on_a_scale(key: &str, numbers: Vec<Option<f64>>, values: Vec<String>) -> Self {
        let (low, high) = range(numbers.iter().copied().flatten()).unwrap_or((0.0, 1.0));
        // Values of several orders of magnitude (rates, widths) are told apart on a logarithmic scale alone.
        let logarithmic = low > 0.0 && high / low >= 50.0;
        let bent = |value: f64| if logarithmic { value.log10() } else { value };
        let scale = Scale::new((bent(low), bent(high)), (0.0, 1.0));
        let ticks = match logarithmic {
            true => vec![(bent(low), short(low)), (bent(high), short(high))],
            false => scale.ticks(6),
        };
        let place = |value: &Option<f64>| value.filter(|v| v.is_finite()).map_or(f64::NAN, |v| scale.at(bent(v)));
        let places = numbers.iter().map(place).collect();
        Self { key: key.into(), places, labels: ticks.into_iter().map(|(v, l)| (scale.at(v), l)).collect(), values }
    }
}

/// The drawing, which scrolls where it is wide; nothing if there is only one axis or only one run.
pub(super) fn parallel(axes: &[Axis], runs: &[(String, Look)]) -> Html {
    if axes.len() < 2 || runs.len() < 2 {
        return Html::new();
    }
    let between = (WIDTH - 2.0 * MARGIN) / (axes.len() - 1) as f64;
    let across = |axis: usize| MARGIN + axis as f64 * between.clamp(BETWEEN.0, BETWEEN.1).round();
    let up = |place: f64| BOTTOM - place * (BOTTOM - TOP);
    let width = across(axes.len() - 1) + MARGIN;
    let mut svg = Html::new();
    // The best is drawn last.
    for (i, (name, look)) in runs.iter().enumerate().rev() {
        let class = look.class();
        let path = path(axes.iter().enumerate().map(|(a, axis)| (across(a), up(axis.places[i]))));
        let said = axes.iter().map(|axis| format!("{} {}", axis.key, axis.values[i]));
        let title = escape(&format!("{name}: {}", said.collect::<Vec<_>>().join(", ")));
        svg += html!("<path class=\"line {}\" d=\"{}\"><title>{}</title></path>\n", class, path, title);
    }
    for (a, axis) in axes.iter().enumerate() {
        // The names of the outer axes must not leave the drawing.
        let anchor = if a == 0 {
            "start"
        } else if a + 1 == axes.len() {
            "end"
        } else {
            "middle"
        };
        svg += axis_at(axis, across(a), up, anchor, a % 2 == 1);
    }
    let keys = axes.iter().map(|axis| axis.key.as_str()).collect::<Vec<_>>().join(", ");
    let description =
        format!("Parallel coordinates of {} runs over {keys}; the table below has the values", runs.len());
    wide(
        "Settings and figure of each run",
        &html!(
            "<svg width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
            width,
            HEIGHT,
            width,
            HEIGHT,
            escape(&description),
            svg
        ),
    )
}

/// An axis with its labels; names stand in two heights by turns, so that long ones do not run into each other.
fn axis_at(axis: &Axis, x: f64, up: impl Fn(f64) -> f64, anchor: &str, lower: bool) -> Html {
    let mut svg = html!("<path class=\"axis\" d=\"M{} {}V{}\"/>\n", x, TOP, BOTTOM);
    svg += html!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"{}\">{}<title>{}</title></text>\n",
        x,
        if lower { 34.0 } else { 16.0 },
        escape(anchor),
        escape(&end_of(&axis.key)),
        escape(&axis.key)
    );
    for (place, label) in &axis.labels {
        let y = up(*place);
        let label = escape(&label.chars().take(LETTERS).collect::<String>());
        svg += html!("<path class=\"axis\" d=\"M{} {:.1}h6\"/>", x - 3.0, y);
        svg += html!("<text class=\"label\" x=\"{}\" y=\"{:.1}\">{}</text>\n", x + 7.0, y + 4.0, label);
    }
    svg
}

/// The end of a dotted key, which says most: as many parts as there is room for.
fn end_of(key: &str) -> String {
    let most = 2 * LETTERS + 6;
    let mut short = key;
    while short.len() > most
        && let Some((_, rest)) = short.split_once('.')
    {
        short = rest;
    }
    if short.len() < key.len() { format!("…{short}") } else { key.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn few_values_stand_in_order_and_many_on_a_scale() {
        let few = Axis::of_settings("hidden", strings(&["512", "64", "512", "128"]));
        assert_eq!(few.places, [1.0, 0.0, 1.0, 0.5]);
        assert_eq!(few.labels[0], (0.0, "64".into()));
        let words = Axis::of_settings("kind", strings(&["lstm", "gru", "–"]));
        assert_eq!(words.places, [0.5, 0.0, 1.0]);

        let many: Vec<String> = (0..=10).map(|i| (i * i).to_string()).collect();
        let many = Axis::of_settings("seed", many);
        assert_eq!((many.places[0], many.places[5], many.places[10]), (0.0, 0.25, 1.0));
        let rates: Vec<String> = (0..9).map(|i| format!("{:e}", 10_f64.powi(-i))).collect();
        let rates = Axis::of_settings("rate", rates);
        assert!((rates.places[4] - 0.5).abs() < 1e-9, "{:?}", rates.places);
    }

    #[test]
    fn a_run_without_a_figure_has_a_line_that_ends_before_it() {
        let axes = [
            Axis::of_settings("a", strings(&["1", "2"])),
            Axis::of_settings("b", strings(&["x", "<x>"])),
            Axis::of_figures("loss", vec![Some(0.5), None]),
        ];
        let svg = parallel(&axes, &[("one".into(), Look::Own(0)), ("two".into(), Look::Own(1))]);
        let page = roxmltree::Document::parse(&svg).unwrap();
        let paths: Vec<&str> = page
            .descendants()
            .filter(|n| n.attribute("class").is_some_and(|class| class.starts_with("line")))
            .filter_map(|n| n.attribute("d"))
            .collect();
        assert_eq!(paths.iter().map(|path| path.matches('L').count()).collect::<Vec<_>>(), [1, 2]);
        assert!(svg.contains("two: a 2, b &lt;x&gt;, loss –"), "{svg}");
        assert!(parallel(&axes[..1], &[("one".into(), Look::Rest)]).is_empty());
    }

    #[test]
    fn long_keys_keep_their_ends() {
        assert_eq!(end_of("model.decoder.attention.kind"), "model.decoder.attention.kind");
        assert_eq!(end_of("model.decoder.attention.initial.recurrent"), "…decoder.attention.initial.recurrent");
    }
}
