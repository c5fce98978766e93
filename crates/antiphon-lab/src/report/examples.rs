//! Examples: what was answered, with which scores, looking where.

use super::findings::{Candidate, Example};
use super::heatmap::heatmap;
use super::html::{foreign, table};

/// A card for each example.
pub(super) fn examples(examples: &[Example]) -> String {
    if examples.is_empty() {
        return String::new();
    }
    // A map and its sentence need room.
    let long = examples.iter().any(|example| example.source_tokens.len() > 14);
    let class = if long { "cards broad" } else { "cards" };
    format!("<div class=\"{class}\">\n{}</div>\n", examples.iter().map(card).collect::<String>())
}

fn card(example: &Example) -> String {
    let best = example.candidates.first();
    let mut html = format!("<article class=\"card\">\n<h3>{}</h3>\n", foreign(&example.source));
    if let Some(best) = best {
        html += &format!("<p>{} {}</p>\n", verdict(best.correct), foreign(&best.text));
    }
    if !best.is_some_and(|best| best.correct) {
        let right = example.references.iter().map(|text| foreign(text)).collect::<Vec<_>>().join(" <b>or</b> ");
        html += &format!("<p class=\"soft\">right: {right}</p>\n");
    }
    let map = best.map(|best| heatmap(&example.source_tokens, &best.tokens, &best.attention)).unwrap_or_default();
    html + &map + &n_best(&example.candidates) + "</article>\n"
}

/// Right or wrong, not by colour alone.
fn verdict(correct: bool) -> &'static str {
    if correct {
        "<span class=\"good\" title=\"matches a reference\">✓</span>"
    } else {
        "<span class=\"poor\" title=\"matches no reference\">✗</span>"
    }
}

fn n_best(candidates: &[Candidate]) -> String {
    if candidates.is_empty() {
        return String::new();
    }
    let row = |candidate: &Candidate| {
        let cut = if candidate.finished { "" } else { " <em>cut off</em>" };
        let text = foreign(&candidate.text) + cut;
        let mark = if candidate.correct { format!("{} ", verdict(true)) } else { String::new() };
        vec![format!("{mark}{text}"), format!("{:.3}", candidate.score), format!("{:.2}", candidate.log_prob)]
    };
    let rows: Vec<Vec<String>> = candidates.iter().map(row).collect();
    table("The best answers", &["answer", "score", "log p"].map(String::from), &rows)
}
