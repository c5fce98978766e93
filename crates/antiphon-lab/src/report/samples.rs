//! What a language model wrote at its validations.

use super::curves::Validation;
use super::html::{Html, escape, folded, foreign, html, paragraph};

/// How many of the earlier validations are worth reading.
const EARLIER: usize = 40;

/// All of it, the newest first; nothing if nothing was written.
pub(super) fn samples(validations: &[Validation]) -> Html {
    let written: Vec<&Validation> = validations.iter().rev().filter(|v| !v.samples.is_empty()).collect();
    let Some((newest, earlier)) = written.split_first() else { return Html::new() };
    let mut html =
        paragraph("Written with nothing before it, as it was drawn. Nothing is judged by it.") + texts(newest);
    if !earlier.is_empty() {
        let every = earlier.len().div_ceil(EARLIER);
        let which = if every > 1 { format!(", one validation in {every}") } else { String::new() };
        let texts: Html = earlier.iter().step_by(every).map(|validation| texts(validation)).collect();
        html += folded(&format!("What it wrote earlier{which}, the newest first"), &texts);
    }
    html
}

fn texts(validation: &Validation) -> Html {
    let card = |text: &String| html!("<article class=\"card said\">{}</article>\n", foreign(text));
    let head = format!("After update {}, epoch {}", validation.step, validation.epoch);
    let cards: Html = validation.samples.iter().map(card).collect();
    html!("<h3>{}</h3>\n<div class=\"cards\">\n{}</div>\n", escape(&head), cards)
}
