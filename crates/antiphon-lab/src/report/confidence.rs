//! How often a model is wrong where it is sure: the curve of risk over coverage.

use super::chart::{Chart, Line, Look};
use super::findings::Confidence;
use super::html::{Html, html, paragraph};

/// So many points are drawn, and no more.
const POINTS: usize = 200;

/// The curve; `split` is what was answered. Nothing without answers.
pub(super) fn confidence(found: &Confidence, split: &str) -> Html {
    let every = found.curve.len().div_ceil(POINTS).max(1);
    let places = 0..found.curve.len();
    let kept = places.filter(|place| place % every == 0 || place + 1 == found.curve.len());
    let points: Vec<(f64, f64)> = kept.map(|place| found.curve[place]).collect();
    let line = Line { name: "risk".into(), look: Look::Own(0), points, raw: Vec::new(), dots: false };
    let figure = Chart {
        title: "Risk by coverage".into(),
        note: "percent wrong of the answers that are given".into(),
        across: "percent of the questions answered",
        reach: 100.0,
        lines: vec![line],
        names: false,
        mark: found
            .chosen
            .map(|(coverage, risk)| (coverage, risk, format!("threshold: {risk:.2} wrong of {coverage:.2}"))),
    }
    .figure();
    if found.curve.is_empty() {
        return Html::new();
    }
    let told = match found.chosen {
        Some((coverage, risk)) => format!(
            " Under the threshold, {coverage:.2} % of the questions are answered, and {:.2} % of these answers are right.",
            100.0 - risk
        ),
        None => String::new(),
    };
    let intro = format!(
        "The {split} split, by how sure the model was, which is the probability of its answer: if it gave only its surest answers, so \
         many of them would be wrong. The area under the curve is {:.2} %.{told}",
        found.area
    );
    paragraph(&intro) + html!("<div class=\"charts\">\n{}</div>\n", figure)
}
