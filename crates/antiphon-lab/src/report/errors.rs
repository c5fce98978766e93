//! Errors: the worst answers, aligned, and what was taken for what.

use std::collections::BTreeMap;

use super::findings::{Aligned, Confusion, Errors, Pair};
use super::html::{escape, foreign, paragraph, table, wide};

/// How many units the table of confusions has on either side.
const UNITS: usize = 12;
/// How many confusions are listed.
const LISTED: usize = 15;
/// Written where there is nothing.
const NOTHING: &str = "∅";

/// All of it; `split` is what was answered.
pub(super) fn errors(errors: &Errors, split: &str) -> String {
    let Errors { unit, answers, wrong, worst, confusions } = errors;
    let edits: u64 = confusions.iter().map(|confusion| confusion.count).sum();
    let mut html = paragraph(&format!(
        "{wrong} of {answers} answers of the {split} split match no reference. It would take {edits} edits to mend them: {unit}s \
         replaced, left out or put in."
    ));
    if !worst.is_empty() {
        html += "<h3>The worst answers</h3>\n";
        html += &format!("<div class=\"cards\">\n{}</div>\n", worst.iter().map(aligned).collect::<String>());
    }
    if !confusions.is_empty() {
        html += "<h3>What was taken for what</h3>\n<div class=\"lists\">\n";
        html += &format!("<div>\n{}</div>\n<div>\n{}</div>\n</div>\n", matrix(confusions, unit), list(confusions));
    }
    html
}

/// A source, and below each other what was right and what was answered.
fn aligned(answer: &Aligned) -> String {
    let row = |name: &str, of: fn(&Pair) -> &Option<String>| {
        let cell = |pair: &Pair| {
            let text = of(pair).as_deref().map_or(NOTHING.into(), foreign);
            let class = if pair.0 == pair.1 { "" } else { " class=\"differs\"" };
            format!("<td{class}>{text}</td>")
        };
        let cells: String = answer.pairs.iter().map(cell).collect();
        format!("<tr><th scope=\"row\">{name}</th>{cells}</tr>\n")
    };
    let mark = |(right, answered): &Pair| match (right, answered) {
        (Some(a), Some(b)) if a == b => "<td></td>",
        (Some(_), Some(_)) => "<td title=\"another\">≠</td>",
        (Some(_), None) => "<td title=\"left out\">−</td>",
        (None, _) => "<td title=\"too many\">+</td>",
    };
    let marks: String = answer.pairs.iter().map(mark).collect();
    let rows = row("right", |pair| &pair.0) + &row("answered", |pair| &pair.1);
    let rows = format!("{rows}<tr><th scope=\"row\">edit</th>{marks}</tr>\n");
    let table = wide("Alignment", &format!("<table class=\"aligned\"><tbody>\n{rows}</tbody></table>\n"));
    let (source, line) = (foreign(&answer.source), answer.line);
    format!(
        "<article class=\"card\">\n<h3>{source} <small class=\"soft\">line {line}</small></h3>\n{table}</article>\n"
    )
}

/// The most frequent confusions, one below the other.
fn list(confusions: &[Confusion]) -> String {
    let shown = |unit: &Option<String>| unit.as_deref().map_or(NOTHING.into(), shown);
    let row = |c: &Confusion| vec![format!("{} → {}", shown(&c.reference), shown(&c.hypothesis)), c.count.to_string()];
    let rows: Vec<Vec<String>> = confusions.iter().take(LISTED).map(row).collect();
    let head = [format!("right → answered ({NOTHING} nothing)"), "times".to_owned()];
    table("The most frequent confusions", &head, &rows)
}

fn shown(unit: &str) -> String {
    if unit == " " { "␣".into() } else { foreign(unit) }
}

/// A table of the units that are confused most: a row for what was right, a column for what was answered.
fn matrix(confusions: &[Confusion], unit: &str) -> String {
    let rows = most_confused(confusions.iter().map(|c| (&c.reference, c.count)));
    let columns = most_confused(confusions.iter().map(|c| (&c.hypothesis, c.count)));
    let counts: BTreeMap<_, u64> = confusions.iter().map(|c| ((&c.reference, &c.hypothesis), c.count)).collect();
    let most = counts.values().copied().max().unwrap_or(1).max(1);
    let name = |unit: &Option<String>, nothing: &str| unit.as_deref().map_or(escape(nothing), shown);
    let heads: String = columns.iter().map(|c| format!("<th scope=\"col\">{}</th>", name(c, "left out"))).collect();
    let mut body = String::new();
    for row in &rows {
        body += &format!("<tr><th scope=\"row\">{}</th>", name(row, "inserted"));
        for column in &columns {
            body += &match counts.get(&(*row, *column)) {
                // Pale enough to read the number on it.
                Some(&count) => {
                    let weight = (count as f64 / most as f64).sqrt() * 0.4;
                    format!("<td style=\"background: rgb(var(--heat) / {weight:.2})\">{count}</td>")
                }
                None if row == column && row.is_some() => "<td class=\"soft\">·</td>".into(),
                None => "<td></td>".into(),
            };
        }
        body += "</tr>\n";
    }
    let corner = "<th class=\"soft\">right ↓ answered →</th>";
    let table = format!(
        "<table class=\"matrix\">\n<thead><tr>{corner}{heads}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"
    );
    let all = confusions.iter().flat_map(|c| [&c.reference, &c.hypothesis]).collect::<std::collections::BTreeSet<_>>();
    let note = match all.len() > UNITS {
        true => format!("<p class=\"soft\">the {UNITS} {unit}s that are confused most</p>\n"),
        false => String::new(),
    };
    wide("Table of confusions", &table) + &note
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
        let html = aligned(&Aligned { line: 7, source: "s".into(), pairs });
        for expected in ["line 7", "&lt;c&gt;", ">≠<", ">+<", ">−<"] {
            assert!(html.contains(expected), "{expected}\n{html}");
        }
        assert_eq!(html.matches("differs").count(), 6);
    }
}
