//! Errors: the worst answers, aligned, and what was taken for what.

use std::collections::BTreeMap;

use super::examples::about;
use super::findings::{Aligned, Confusion, Errors, Pair};
use super::html::{Html, escape, foreign, html, paragraph, table, wide};

/// How many units the table of confusions has on either side.
const UNITS: usize = 12;
/// How many confusions are listed.
const LISTED: usize = 15;
/// Written where there is nothing.
const NOTHING: &str = "∅";

/// All of it; `split` is what was answered.
pub(super) fn errors(errors: &Errors, split: &str) -> Html {
    let Errors { unit, answers, wrong, worst, confusions } = errors;
    let edits: u64 = confusions.iter().map(|confusion| confusion.count).sum();
    let mut html = paragraph(&format!(
        "{wrong} of {answers} answers of the {split} split match no reference. It would take {edits} edits to mend them: {unit}s \
         replaced, left out or put in."
    ));
    if !worst.is_empty() {
        html += html!("<h3>The worst answers</h3>\n");
        html += html!("<div class=\"cards\">\n{}</div>\n", worst.iter().map(aligned).collect::<Html>());
    }
    if !confusions.is_empty() {
        html += html!("<h3>What was taken for what</h3>\n<div class=\"lists\">\n");
        html += html!("<div>\n{}</div>\n<div>\n{}</div>\n</div>\n", matrix(confusions, unit), list(confusions));
    }
    html
}

/// A source, and below each other what was right and what was answered.
fn aligned(answer: &Aligned) -> Html {
    let row = |name: &str, of: fn(&Pair) -> &Option<String>| {
        let cell = |pair: &Pair| {
            let text = of(pair).as_deref().map_or_else(|| escape(NOTHING), foreign);
            if pair.0 == pair.1 { html!("<td>{}</td>", text) } else { html!("<td class=\"differs\">{}</td>", text) }
        };
        let cells: Html = answer.pairs.iter().map(cell).collect();
        html!("<tr><th scope=\"row\">{}</th>{}</tr>\n", escape(name), cells)
    };
    let mark = |(right, answered): &Pair| match (right, answered) {
        (Some(a), Some(b)) if a == b => html!("<td></td>"),
        (Some(_), Some(_)) => html!("<td title=\"another\">≠</td>"),
        (Some(_), None) => html!("<td title=\"left out\">−</td>"),
        (None, _) => html!("<td title=\"too many\">+</td>"),
    };
    let marks: Html = answer.pairs.iter().map(mark).collect();
    let rows = row("right", |pair| &pair.0) + row("answered", |pair| &pair.1);
    let rows = rows + html!("<tr><th scope=\"row\">edit</th>{}</tr>\n", marks);
    let table = wide("Alignment", &html!("<table class=\"aligned\"><tbody>\n{}</tbody></table>\n", rows));
    html!(
        "<article class=\"card\">\n<h3>{} <small class=\"soft\">line {}</small></h3>\n{}{}</article>\n",
        foreign(&answer.source),
        answer.line,
        about(&answer.about),
        table
    )
}

/// The most frequent confusions, one below the other.
fn list(confusions: &[Confusion]) -> Html {
    let shown = |unit: &Option<String>| unit.as_deref().map_or_else(|| escape(NOTHING), shown);
    let row = |c: &Confusion| vec![html!("{} → {}", shown(&c.reference), shown(&c.hypothesis)), html!("{}", c.count)];
    let rows: Vec<Vec<Html>> = confusions.iter().take(LISTED).map(row).collect();
    let head = [escape(&format!("right → answered ({NOTHING} nothing)")), escape("times")];
    table("The most frequent confusions", &head, &rows)
}

fn shown(unit: &str) -> Html {
    if unit == " " { escape("␣") } else { foreign(unit) }
}

/// A table of the units that are confused most: a row for what was right, a column for what was answered.
fn matrix(confusions: &[Confusion], unit: &str) -> Html {
    let rows = most_confused(confusions.iter().map(|c| (&c.reference, c.count)));
    let columns = most_confused(confusions.iter().map(|c| (&c.hypothesis, c.count)));
    let counts: BTreeMap<_, u64> = confusions.iter().map(|c| ((&c.reference, &c.hypothesis), c.count)).collect();
    let most = counts.values().copied().max().unwrap_or(1).max(1);
    let name = |unit: &Option<String>, nothing: &str| unit.as_deref().map_or_else(|| escape(nothing), shown);
    let heads: Html = columns.iter().map(|c| html!("<th scope=\"col\">{}</th>", name(c, "left out"))).collect();
    let mut body = Html::new();
    for row in &rows {
        body += html!("<tr><th scope=\"row\">{}</th>", name(row, "inserted"));
        for column in &columns {
            body += match counts.get(&(*row, *column)) {
                // Pale enough to read the number on it.
                Some(&count) => {
                    let weight = (count as f64 / most as f64).sqrt() * 0.4;
                    html!("<td style=\"background: rgb(var(--heat) / {:.2})\">{}</td>", weight, count)
                }
                None if row == column && row.is_some() => html!("<td class=\"soft\">·</td>"),
                None => html!("<td></td>"),
            };
        }
        body += html!("</tr>\n");
    }
    let table = html!(
        "<table class=\"matrix\">\n<thead><tr><th class=\"soft\">right ↓ answered →</th>{}</tr></thead>\n<tbody>\n{}</tbody>\n</table>\n",
        heads,
        body
    );
    let all = confusions.iter().flat_map(|c| [&c.reference, &c.hypothesis]).collect::<std::collections::BTreeSet<_>>();
    let note = match all.len() > UNITS {
        true => html!("<p class=\"soft\">the {} {}s that are confused most</p>\n", UNITS, escape(unit)),
        false => Html::new(),
    };
    wide("Table of confusions", &table) + note
}

/// The units that take part most often, by frequency, of equals in the order of their text.
fn most_confused<'c>(units: impl Iterator<Item = (&'c Option<String>, u64)>) -> Vec<&'c Option<String>> {
    let mut counts: BTreeMap<&Option<String>, u64> = BTreeMap::new();
    for (unit, count) in units {
        *counts.entry(unit).or_default() += count;
    }
    let mut units: Vec<_> = counts.into_iter().collect();
    units.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    units.into_iter().take(UNITS).map(|(unit, _)| unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confusion(reference: &str, hypothesis: &str, count: u64) -> Confusion {
        let unit = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Confusion { reference: unit(reference), hypothesis: unit(hypothesis), count }
    }

    #[test]
    fn the_table_has_a_place_for_what_is_left_out_and_for_what_is_inserted() {
        let confusions = [confusion("AH", "IH", 9), confusion("", "S", 4), confusion("T", "", 2)];
        let html = matrix(&confusions, "word");
        let page = roxmltree::Document::parse(&html).unwrap();
        let rows: Vec<Vec<&str>> = page
            .descendants()
            .filter(|node| node.has_tag_name("tr"))
            .map(|row| {
                let cells = row.children().filter(|n| n.is_element());
                cells.map(|cell| cell.descendants().find_map(|n| n.text()).unwrap_or("")).collect()
            })
            .collect();
        assert_eq!(rows[0][1..], ["IH", "S", "left out"]);
        assert_eq!(rows[1], ["AH", "9", "", ""]);
        assert_eq!(rows[2], ["inserted", "", "4", ""]);
        assert_eq!(rows[3], ["T", "", "", "2"]);
    }

    #[test]
    fn edits_are_told_by_signs_too() {
        let unit = |text: &str| Some(text.to_owned());
        let pairs = vec![(unit("a"), unit("a")), (unit("b"), unit("<c>")), (None, unit("d")), (unit("e"), None)];
        let html = aligned(&Aligned { line: 7, source: "s".into(), about: "case: acc".into(), pairs });
        for expected in ["line 7", "&lt;c&gt;", ">≠<", ">+<", ">−<"] {
            assert!(html.contains(expected), "{expected}\n{html}");
        }
        assert_eq!(html.matches("differs").count(), 6);
    }
}
