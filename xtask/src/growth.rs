//! How the cost of a token grows with one size at a time: a table and a picture.

use std::collections::BTreeMap;
use std::fmt::Write;

use antiphon_core::Error;

use crate::stop::Outcome;

/// What the names of such benchmarks begin with: `growth-hidden/256`.
const PREFIX: &str = "growth-";

/// Microseconds a token by size, for each axis.
pub(crate) struct Growth(BTreeMap<String, BTreeMap<u64, f64>>);

impl Growth {
    /// Whether a benchmark belongs here.
    pub(crate) fn counts(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// From benchmarks' names and their tokens a nanosecond; others are passed over.
    pub(crate) fn of<'a>(speeds: impl Iterator<Item = (&'a str, f64)>) -> Self {
        let mut axes: BTreeMap<String, BTreeMap<u64, f64>> = BTreeMap::new();
        for (name, tokens) in speeds {
            let Some((axis, size)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/')) else { continue };
            if let Ok(size) = size.parse() {
                axes.entry(axis.to_owned()).or_default().insert(size, 1e-3 / tokens);
            }
        }
        Self(axes)
    }

    /// A row a size; beside the cost its exponent from the size before: 0 is flat, 1 linear, 2 quadratic.
    pub(crate) fn table(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let mut text = String::from("\n| grows with | at | µs a token | exponent |\n|---|---|---|---|\n");
        for (axis, costs) in &self.0 {
            let mut before: Option<(u64, f64)> = None;
            for (&size, &cost) in costs {
                let exponent = before.map(|(n, c)| format!("{:.2}", (cost / c).ln() / (size as f64 / n as f64).ln()));
                let _ = writeln!(text, "| {axis} | {size} | {cost:.2} | {} |", exponent.unwrap_or_default());
                before = Some((size, cost));
            }
        }
        text
    }

    /// A panel an axis, both scales logarithmic, with a dashed line through the first point that grows in proportion.
    pub(crate) fn picture(&self) -> Outcome<String> {
        const PANEL: [f64; 2] = [260.0, 200.0];
        if self.0.is_empty() {
            return Err(Error::new(
                "nothing to draw: no benchmark of growth was run; leave `--filter` out, or let it name \
                                   `growth`",
            )
            .into());
        }
        let [width, height] = [PANEL[0] * self.0.len() as f64, PANEL[1]];
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
             font-size=\"10\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        for (i, (axis, costs)) in self.0.iter().enumerate() {
            let _ = writeln!(
                svg,
                "<g transform=\"translate({} 0)\">{}</g>",
                PANEL[0] * i as f64,
                panel(axis, costs, PANEL)
            );
        }
        svg += "</svg>\n";
        Ok(svg)
    }
}

/// One panel: points, their line, sizes below and costs on the left.
fn panel(axis: &str, costs: &BTreeMap<u64, f64>, [width, height]: [f64; 2]) -> String {
    let (left, right, top, bottom) = (48.0, width - 16.0, 26.0, height - 36.0);
    let logs: Vec<(f64, f64)> = costs.iter().map(|(&size, &cost)| ((size as f64).ln(), cost.ln())).collect();
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (a, b) = values.fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(v), b.max(v)));
        // At least a factor of two, so that noise does not fill a panel.
        let middle = (a + b) / 2.0;
        let half = ((b - a) / 2.0).max(std::f64::consts::LN_2 / 2.0);
        (middle - half, middle + half)
    };
    let (x0, x1) = range(&mut logs.iter().map(|p| p.0));
    let (y0, y1) = range(&mut logs.iter().map(|p| p.1));
    let at =
        |x: f64, y: f64| (left + (x - x0) / (x1 - x0) * (right - left), bottom - (y - y0) / (y1 - y0) * (bottom - top));
    let mut text = format!("<text x=\"{left}\" y=\"14\" font-weight=\"bold\">µs a token by {axis}</text>");
    let _ = write!(text, "<path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#888\"/>");
    // In proportion to the size: from the first point as far as the panel reaches.
    let (first, reach) = (logs[0], (y1 - logs[0].1).min(x1 - logs[0].0));
    let ((ax, ay), (bx, by)) = (at(first.0, first.1), at(first.0 + reach, first.1 + reach));
    let _ = write!(text, "<path d=\"M{ax:.1} {ay:.1}L{bx:.1} {by:.1}\" stroke=\"#bbb\" stroke-dasharray=\"4 3\"/>");
    let points: Vec<String> = logs.iter().map(|&(x, y)| at(x, y)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(text, "<polyline points=\"{}\" fill=\"none\" stroke=\"#1668b8\"/>", points.join(" "));
    for ((&size, &cost), &(x, y)) in costs.iter().zip(&logs) {
        let (x, y) = at(x, y);
        let _ = write!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"#1668b8\"/>");
        let label = if size >= 1000 { format!("{}k", size / 1000) } else { size.to_string() };
        let _ = write!(text, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 14.0);
        let _ = write!(text, "<title>{size}: {cost:.2} µs</title>");
    }
    for y in [y0, y1] {
        let (_, place) = at(x0, y);
        let _ = write!(
            text,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{:.3}</text>",
            left - 5.0,
            place + 3.0,
            y.exp()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_stand_by_axis_and_size_with_their_exponents() {
        let speeds = [("growth-hidden/128", 0.25e-3), ("growth-hidden/64", 1e-3), ("lstm-train/1", 3.0)];
        let growth = Growth::of(speeds.into_iter());
        let table = growth.table();
        assert!(table.contains("| hidden | 64 | 1.00 |  |\n| hidden | 128 | 4.00 | 2.00 |"), "{table}");
        assert!(!table.contains("lstm"), "{table}");
        let picture = growth.picture().unwrap();
        assert!(picture.contains("by hidden") && picture.matches("<circle").count() == 2, "{picture}");
        assert!(Growth::of([("lstm-train/1", 3.0)].into_iter()).picture().is_err());
    }
}
