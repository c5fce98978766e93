//! Where the loss of a language model lies: by place, by how often a token was learned from, and at its worst.

use super::chart::{Chart, Line, Look};
use super::findings::{LossBin, TokenLosses, WorstToken};
use super::html::{Html, escape, foreign, html, paragraph, table};

/// All of it; `split` is what was judged.
pub(super) fn losses(found: &TokenLosses, split: &str) -> Html {
    let by_line = chart("By place in the line", "token of its line", &found.by_place);
    let by_window = chart("By place behind a fresh state", "token of its window", &found.by_window);
    let mut html = paragraph(&format!(
        "Nats a token of the {split} split. A point stands for all tokens of a range of places; the first place of a line is told by \
         what stood before, where the text is read on."
    ));
    html += html!("<div class=\"charts\">\n{}{}</div>\n", by_line, by_window);
    if !found.by_frequency.is_empty() {
        html += html!("<h3>By how often a token was learned from</h3>\n{}", frequencies(&found.by_frequency));
    }
    if !found.worst.is_empty() {
        html += html!("<h3>The worst predictions</h3>\n");
        html += paragraph("Each token where it came least expected, behind what the model had read last.");
        html += html!("<div class=\"cards broad\">\n{}</div>\n", found.worst.iter().map(worst).collect::<Html>());
    }
    html
}

fn chart(title: &str, across: &'static str, bins: &[LossBin]) -> Html {
    let middle = |bin: &LossBin| (bin.from + bin.to) as f64 / 2.0;
    let points: Vec<(f64, f64)> = bins.iter().map(|bin| (middle(bin), bin.per_token())).collect();
    let line = Line { name: "loss".into(), look: Look::Own(0), points, raw: Vec::new(), dots: true };
    Chart {
        title: title.into(),
        note: "nats a token".into(),
        across,
        reach: 0.0,
        lines: vec![line],
        names: false,
        mark: None,
    }
    .figure()
}

fn frequencies(bins: &[LossBin]) -> Html {
    let all: f64 = bins.iter().map(|bin| bin.nats).sum();
    let row = |bin: &LossBin| {
        let times = if bin.from == bin.to { bin.from.to_string() } else { format!("{} to {}", bin.from, bin.to) };
        let share = 100.0 * bin.nats / all;
        vec![escape(&times), html!("{}", bin.tokens), html!("{:.3}", bin.per_token()), html!("{:.1} %", share)]
    };
    let rows: Vec<Vec<Html>> = bins.iter().map(row).collect();
    let head = ["times in the text learned from", "tokens", "nats a token", "of all nats"].map(escape);
    table("Loss by frequency", &head, &rows)
}

fn worst(place: &WorstToken) -> Html {
    let WorstToken { file, line, before, token, nats } = place;
    html!(
        "<article class=\"card\">\n<h3>{} <small class=\"soft\">{:.2} nats, {} line {}</small></h3>\n\
         <p>{} <b>{}</b></p>\n</article>\n",
        foreign(token),
        nats,
        foreign(file),
        line,
        foreign(before),
        foreign(token)
    )
}
