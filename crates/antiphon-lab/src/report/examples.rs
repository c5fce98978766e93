//! Examples: what was answered, with which scores, looking where.

use super::findings::{Candidate, Example};
use super::hearing::hearing;
use super::heatmap::heatmap;
use super::html::{Html, escape, foreign, html, table};
use super::reading::reading;

/// A card for each example.
pub(super) fn examples(examples: &[Example]) -> Html {
    if examples.is_empty() {
        return Html::new();
    }
    // A map and its sentence need room.
    let tokens = |example: &Example| example.sources.iter().map(|source| source.tokens.len()).sum::<usize>();
    let long =
        examples.iter().any(|example| tokens(example) > 14 || example.hearing.is_some() || example.reading.is_some());
    let class = if long { "cards broad" } else { "cards" };
    html!("<div class=\"{}\">\n{}</div>\n", escape(class), examples.iter().map(card).collect::<Html>())
}

fn card(example: &Example) -> Html {
    let best = example.candidates.first();
    let mut html = html!("<article class=\"card\">\n<h3>{}</h3>\n", foreign(&example.source));
    html += about(&example.about);
    if let Some(best) = best {
        html += html!("<p>{} {}</p>\n", verdict(best.correct), foreign(&best.text));
    }
    if !best.is_some_and(|best| best.correct) {
        let or = |i: usize| if i > 0 { html!(" <b>or</b> ") } else { Html::new() };
        let right: Html = example.references.iter().enumerate().map(|(i, text)| or(i) + foreign(text)).collect();
        html += html!("<p class=\"soft\">right: {}</p>\n", right);
    }
    let map = match (&example.hearing, &example.reading) {
        (Some(heard), _) => hearing(heard, best),
        (None, Some(read)) => reading(read),
        (None, None) => best.map(|best| heatmap(&example.sources, &best.tokens, &best.attention)).unwrap_or_default(),
    };
    html + map + n_best(&example.candidates) + html!("</article>\n")
}

/// What else is known of a source.
pub(super) fn about(text: &str) -> Html {
    if text.is_empty() { Html::new() } else { html!("<p class=\"soft\">{}</p>\n", foreign(text)) }
}

/// Right or wrong, not by colour alone.
fn verdict(correct: bool) -> Html {
    if correct {
        html!("<span class=\"good\" title=\"matches a reference\">✓</span>")
    } else {
        html!("<span class=\"poor\" title=\"matches no reference\">✗</span>")
    }
}

fn n_best(candidates: &[Candidate]) -> Html {
    if candidates.is_empty() {
        return Html::new();
    }
    let row = |candidate: &Candidate| {
        let cut = if candidate.finished { Html::new() } else { html!(" <em>cut off</em>") };
        let text = foreign(&candidate.text) + cut;
        let mark = if candidate.correct { html!("{} ", verdict(true)) } else { Html::new() };
        vec![mark + text, html!("{:.3}", candidate.score), html!("{:.2}", candidate.log_prob)]
    };
    let rows: Vec<Vec<Html>> = candidates.iter().map(row).collect();
    table("The best answers", &["answer", "score", "log p"].map(escape), &rows)
}
