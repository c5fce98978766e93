//! Line charts as SVG.

use super::html::{Html, escape, html};
use super::scale::{Scale, short};

/// A drawing's width and height, and where the plot stands in it. Made for the width of a phone: what is drawn for a large
/// screen has letters too small for a small one.
const SIZE: (f64, f64) = (380.0, 230.0);
/// The width of a letter, about.
const LETTER: f64 = 7.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 38.0;
/// How many marks the axes have at most.
const UP: usize = 6;
const ACROSS: usize = 8;

/// Lines over one horizontal axis.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    /// What else is to be said about it.
    pub(super) note: String,
    /// What the horizontal axis counts.
    pub(super) across: &'static str,
    /// How far it goes from 0, if the lines do not go farther.
    pub(super) reach: f64,
    pub(super) lines: Vec<Line>,
    /// Whether the lines are named below the title; else the page names them elsewhere.
    pub(super) names: bool,
    /// A point that is ringed, with its meaning.
    pub(super) mark: Option<(f64, f64, String)>,
}

/// One line. A value that is not finite is a gap.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) look: Look,
    pub(super) points: Vec<(f64, f64)>,
    /// The same before it was smoothed, drawn faintly behind it; its rarest extremes may lie outside of the drawing.
    pub(super) raw: Vec<(f64, f64)>,
    /// Whether each point is a measurement of its own.
    pub(super) dots: bool,
}

/// How a line is told from others: by colour and dashes, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// One of [`Look::COUNT`].
    Own(usize),
    /// One of the many.
    Rest,
}

impl Look {
    /// How many lines can be told apart.
    pub(super) const COUNT: usize = 6;

    pub(super) fn class(self) -> Html {
        match self {
            Look::Own(i) => html!("s{0} d{0}", i % Self::COUNT),
            Look::Rest => html!("rest"),
        }
    }

    /// A short piece of the line, for legends and tables.
    pub(super) fn sample(self) -> Html {
        html!(
            "<svg viewBox=\"0 0 26 10\" aria-hidden=\"true\"><path class=\"line {}\" d=\"M1 5H25\"/></svg>",
            self.class()
        )
    }
}

impl Chart {
    /// The chart as a figure; nothing if there is no point to draw.
    pub(super) fn figure(&self) -> Html {
        let (Some(across), Some(up)) = (self.across_range(), self.up_range()) else { return Html::new() };
        let y = Scale::new(up, (SIZE.1 - BOTTOM, TOP));
        let longest = y.ticks(UP).iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0);
        let left = longest as f64 * LETTER + 12.0;
        let x = Scale::new(across, (left, SIZE.0 - RIGHT));
        let small = if self.note.is_empty() { Html::new() } else { html!("<small>{}</small>", escape(&self.note)) };
        html!(
            "<figure>\n<figcaption>{}{}</figcaption>\n{}<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n\
             {}{}{}</svg>\n</figure>\n",
            escape(&self.title),
            small,
            self.legend(),
            SIZE.0,
            SIZE.1,
            escape(&self.description()),
            self.axes(&x, &y, left),
            self.curves(&x, &y, left),
            self.ring(&x, &y),
        )
    }

    fn points(&self) -> impl Iterator<Item = &(f64, f64)> {
        self.lines.iter().flat_map(|line| &line.points).filter(|(x, y)| x.is_finite() && y.is_finite())
    }

    fn across_range(&self) -> Option<(f64, f64)> {
        let (_, last) = range(self.points().map(|point| point.0))?;
        Some((0.0, last.max(self.reach)))
    }

    /// All of the smooth lines, and of the rough ones all but one in fifty at either end.
    fn up_range(&self) -> Option<(f64, f64)> {
        let mut values: Vec<f64> = self.points().map(|point| point.1).collect();
        for line in &self.lines {
            let mut raw: Vec<f64> = line.raw.iter().map(|point| point.1).filter(|value| value.is_finite()).collect();
            raw.sort_by(f64::total_cmp);
            let cut = raw.len() / 50;
            values.extend(raw.get(cut).copied());
            values.extend(raw.iter().nth_back(cut).copied());
        }
        let (low, high) = range(values.into_iter())?;
        let air = (high - low) * 0.04;
        // Nothing goes below nought only to have some air.
        Some((if low >= 0.0 { (low - air).max(0.0) } else { low - air }, high + air))
    }

    fn axes(&self, x: &Scale, y: &Scale, left: f64) -> Html {
        let (right, bottom) = (SIZE.0 - RIGHT, SIZE.1 - BOTTOM);
        let mut svg = Html::new();
        for (value, label) in y.ticks(UP) {
            let at = y.at(value);
            svg += html!("<path class=\"grid\" d=\"M{} {:.1}H{}\"/>", left, at, right);
            svg += html!(
                "<text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                left - 6.0,
                at + 4.0,
                escape(&label)
            );
        }
        for (value, label) in x.ticks(ACROSS) {
            let at = x.at(value);
            // A label at the very edge must not be cut.
            let anchor = if at > right - 12.0 { "end" } else { "middle" };
            svg += html!("<path class=\"axis\" d=\"M{:.1} {}v4\"/>", at, bottom);
            svg += html!(
                "<text class=\"soft\" x=\"{:.1}\" y=\"{}\" text-anchor=\"{}\">{}</text>\n",
                at,
                bottom + 17.0,
                escape(anchor),
                escape(&label)
            );
        }
        svg += html!("<path class=\"axis\" d=\"M{} {}H{}\"/>", left, bottom, right);
        svg + html!(
            "<text class=\"soft\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            (left + right) / 2.0,
            SIZE.1 - 5.0,
            escape(self.across)
        )
    }

    /// The lines, in a drawing of their own, which cuts off what leaves it. Those that have no look of their own lie below.
    fn curves(&self, x: &Scale, y: &Scale, left: f64) -> Html {
        let (width, height) = (SIZE.0 - RIGHT - left + 4.0, SIZE.1 - BOTTOM - TOP + 4.0);
        let (left, top) = (left - 2.0, TOP - 2.0);
        let place = |&(a, b): &(f64, f64)| (x.at(a), y.at(b));
        let mut svg = Html::new();
        for line in self.lines.iter().filter(|line| !line.raw.is_empty()) {
            svg += html!("<path class=\"raw {}\" d=\"{}\"/>\n", line.look.class(), path(line.raw.iter().map(place)));
        }
        let rest = |line: &&Line| line.look == Look::Rest;
        for line in self.lines.iter().filter(rest).chain(self.lines.iter().rev().filter(|line| !rest(line))) {
            let (class, name) = (line.look.class(), escape(&line.name));
            let title = html!("<title>{}</title>", name);
            if line.points.len() > 1 {
                let path = path(line.points.iter().map(place));
                svg += html!("<path class=\"line {}\" d=\"{}\">{}</path>\n", class, path, title);
            }
            if line.dots || line.points.len() == 1 {
                for &(a, b) in line.points.iter().filter(|(a, b)| a.is_finite() && b.is_finite()) {
                    let (cx, cy) = place(&(a, b));
                    let title = html!("<title>{}: {} at {}</title>", name, escape(&short(b)), a);
                    svg += html!(
                        "<circle class=\"dot {}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\">{}</circle>\n",
                        class,
                        cx,
                        cy,
                        title
                    );
                }
            }
        }
        html!(
            "<svg x=\"{0}\" y=\"{1}\" width=\"{2}\" height=\"{3}\" viewBox=\"{0} {1} {2} {3}\">\n{4}</svg>\n",
            left,
            top,
            width,
            height,
            svg
        )
    }

    fn ring(&self, x: &Scale, y: &Scale) -> Html {
        let Some((across, up, meaning)) = &self.mark else { return Html::new() };
        let (cx, cy) = (x.at(*across), y.at(*up));
        html!(
            "<circle class=\"ring\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"6.5\"><title>{}</title></circle>\n",
            cx,
            cy,
            escape(meaning)
        )
    }

    /// The names of the lines, where there is more than one, and what is ringed.
    fn legend(&self) -> Html {
        let item = |content: Html| html!("<li>{}</li>\n", content);
        let mut items = Html::new();
        if self.names && self.lines.len() > 1 {
            items += self.lines.iter().map(|line| item(line.look.sample() + escape(&line.name))).collect();
        }
        if let Some((_, _, meaning)) = &self.mark {
            let ring = html!(
                "<svg viewBox=\"0 0 26 10\" aria-hidden=\"true\"><circle class=\"ring\" cx=\"13\" cy=\"5\" r=\"4\"/></svg>"
            );
            items += item(ring + escape(meaning));
        }
        if items.is_empty() { items } else { html!("<ul class=\"legend\">\n{}</ul>\n", items) }
    }

    /// The chart in words, for those who do not see it.
    fn description(&self) -> String {
        let mut text = self.title.clone();
        for line in self.lines.iter().filter(|line| line.look != Look::Rest) {
            let finite: Vec<_> = line.points.iter().filter(|(_, value)| value.is_finite()).collect();
            let (Some(first), Some(last)) = (finite.first(), finite.last()) else { continue };
            let (low, high) = range(finite.iter().map(|point| point.1)).unwrap_or((first.1, last.1));
            text += &format!(
                "; {}: from {} at {} {} to {} at {}, between {} and {}",
                line.name,
                short(first.1),
                self.across,
                first.0,
                short(last.1),
                last.0,
                short(low),
                short(high)
            );
        }
        text
    }
}

/// The smallest and the largest of finite values.
pub(super) fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |range, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((low.min(value), high.max(value)))
    })
}

/// The commands of an SVG path through places; it is interrupted where one is not finite.
pub(super) fn path(places: impl Iterator<Item = (f64, f64)>) -> Html {
    let (mut path, mut broken) = (Html::new(), true);
    for (x, y) in places {
        let finite = x.is_finite() && y.is_finite();
        if finite {
            path += if broken { html!("M{:.1} {:.1}", x, y) } else { html!("L{:.1} {:.1}", x, y) };
        }
        broken = !finite;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)]) -> Html {
        let line = Line { name: "a".into(), look: Look::Own(0), points: points.to_vec(), raw: Vec::new(), dots: false };
        let lines = vec![line];
        Chart { title: "t".into(), note: String::new(), across: "update", reach: 0.0, lines, names: true, mark: None }
            .figure()
    }

    #[test]
    fn a_chart_without_points_is_nothing_and_one_point_is_a_dot() {
        assert!(chart(&[]).is_empty());
        assert!(chart(&[(1.0, f64::NAN), (f64::INFINITY, 1.0)]).is_empty());
        let one = chart(&[(1.0, 2.0)]);
        assert!(one.contains("<circle") && !one.contains("class=\"line"), "{one}");
        assert!(!one.contains("NaN") && !one.contains("inf"), "{one}");
    }

    #[test]
    fn what_is_not_finite_is_a_gap() {
        let places = [(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 4.0), (4.0, f64::INFINITY)];
        assert_eq!(&*path(places.into_iter()), "M0.0 1.0L1.0 2.0M3.0 4.0");
        assert!(!chart(&places).contains("NaN"));
    }

    #[test]
    fn a_rare_extreme_of_the_raw_values_does_not_flatten_the_line() {
        let raw: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), if i == 500 { 1e6 } else { 1.0 })).collect();
        let line =
            Line { name: "a".into(), look: Look::Own(0), points: vec![(0.0, 0.5), (999.0, 2.0)], raw, dots: false };
        let chart = Chart {
            title: "t".into(),
            note: String::new(),
            across: "update",
            reach: 0.0,
            lines: vec![line],
            names: true,
            mark: None,
        };
        assert!(chart.up_range().is_some_and(|(low, high)| low > 0.0 && high < 3.0));
    }
}
