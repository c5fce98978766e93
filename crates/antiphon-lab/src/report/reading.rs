//! A story and how much each of its sentences counts for a question.

use super::findings::Reading;
use super::html::{Html, escape, foreign, html, table};

/// A table with a row for each sentence: whether it supports the answer, and how much it counts in each layer or look.
pub(super) fn reading(read: &Reading) -> Html {
    let Reading { sentences, looks, support } = read;
    if sentences.is_empty() || looks.is_empty() {
        return Html::new();
    }
    let mut head = vec![html!("")];
    head.push(escape("sentence"));
    head.extend(support.iter().map(|_| escape("supports the answer")));
    head.extend((1..=looks.len()).map(|k| escape(&format!("look {k}"))));
    let row = |(n, sentence): (usize, &String)| {
        let mut cells = vec![html!("{}", n + 1), foreign(sentence)];
        let mark = |supporting: &Vec<usize>| if supporting.contains(&n) { html!("✓") } else { Html::new() };
        cells.extend(support.iter().map(mark));
        cells.extend(looks.iter().map(|look| {
            // Of a long story the last sentences are read.
            let unread = sentences.len().saturating_sub(look.len());
            n.checked_sub(unread).and_then(|n| look.get(n)).map_or_else(Html::new, |&share| counted(share))
        }));
        cells
    };
    let rows: Vec<Vec<Html>> = sentences.iter().enumerate().map(row).collect();
    table("How much each sentence counts", &head, &rows)
}

/// A share as a field of that strength, and in figures.
fn counted(share: f32) -> Html {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    html!(
        "<svg width=\"20\" height=\"12\" viewBox=\"0 0 20 12\" aria-hidden=\"true\"><rect class=\"cell\" x=\"0\" y=\"0\" \
         width=\"20\" height=\"12\" fill-opacity=\"{:.2}\"/></svg> {:.2}",
        share,
        share
    )
}
