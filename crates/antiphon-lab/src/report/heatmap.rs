//! Attention as a heatmap: a row for each token of the answer, a column for each token of the source; of several sources, one behind
//! the other, with a rule between them.

use super::findings::SourceTokens;
use super::html::{Html, escape, html, wide};

/// The side of a cell, in pixels.
const CELL: f64 = 20.0;
/// The width of a letter, about.
const LETTER: f64 = 7.0;
/// How many letters of a token are written.
const LETTERS: usize = 12;
/// How many tokens of either side are drawn.
const TOKENS: usize = 60;

/// The height of a line with the names of sources, in pixels.
const LINE: f64 = 18.0;

/// The weights `[T, S]` over the tokens of all sources as a figure that scrolls where it is wide; nothing if there are none.
pub(super) fn heatmap(sources: &[SourceTokens], down: &[String], weights: &[Vec<f32>]) -> Html {
    let across: Vec<String> = sources.iter().flat_map(|source| &source.tokens).cloned().collect();
    let (rows, columns) = (weights.len().min(TOKENS), weights.iter().map(Vec::len).max().unwrap_or(0).min(TOKENS));
    if rows == 0 || columns == 0 {
        return Html::new();
    }
    let label = |tokens: &[String], i: usize| tokens.get(i).map_or(String::new(), |token| written(token));
    let over: Vec<String> = (0..columns).map(|s| label(&across, s)).collect();
    let beside: Vec<String> = (0..rows).map(|t| label(down, t)).collect();
    let longest = |labels: &[String]| labels.iter().map(|label| width(label)).fold(0.0, f64::max);
    // A label that is wider than its cell stands upright.
    let is_upright = |label: &&String| width(label) > CELL;
    let upright: Vec<String> = over.iter().filter(is_upright).cloned().collect();
    let names = if sources.len() > 1 { LINE } else { 0.0 };
    let (left, top) = (longest(&beside) + 10.0, names + (longest(&upright) + 10.0).max(CELL));
    let (width, height) = (left + columns as f64 * CELL + 2.0, top + rows as f64 * CELL + 2.0);
    let mut svg = Html::new();
    for (s, label) in over.iter().enumerate() {
        let x = left + (s as f64 + 0.5) * CELL;
        svg += match is_upright(&label) {
            true => html!(
                "<text transform=\"translate({:.1} {:.1}) rotate(-90)\">{}</text>\n",
                x + 4.0,
                top - 6.0,
                escape(label)
            ),
            false => {
                html!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n", x, top - 6.0, escape(label))
            }
        };
    }
    for (t, row) in weights.iter().take(rows).enumerate() {
        let y = top + t as f64 * CELL;
        let middle = y + CELL / 2.0 + 4.0;
        svg += html!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            left - 6.0,
            middle,
            escape(&beside[t])
        );
        for (s, &weight) in row.iter().take(columns).enumerate() {
            let weight = if weight.is_finite() { weight.clamp(0.0, 1.0) } else { 0.0 };
            let (x, title) = (left + s as f64 * CELL, format!("{} ← {}: {weight:.2}", beside[t], over[s]));
            svg += html!(
                "<rect class=\"cell\" x=\"{:.1}\" y=\"{:.1}\" width=\"{}\" height=\"{}\" fill-opacity=\"{:.2}\"><title>{}\
                 </title></rect>",
                x + 0.5,
                y + 0.5,
                CELL - 1.0,
                CELL - 1.0,
                weight,
                escape(&title)
            );
        }
        svg += html!("\n");
    }
    if sources.len() > 1 {
        svg += parts(sources, columns, left, height - 2.0);
    }
    svg += html!(
        "<rect class=\"frame\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>\n",
        left,
        top,
        columns as f64 * CELL,
        rows as f64 * CELL
    );
    let description = description(&over, &beside, weights);
    let svg = html!(
        "<svg width=\"{:.0}\" height=\"{:.0}\" viewBox=\"0 0 {:.0} {:.0}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
        width,
        height,
        width,
        height,
        escape(&description),
        svg
    );
    let cut = match (weights.len() > rows, weights.iter().any(|row| row.len() > columns)) {
        (false, false) => Html::new(),
        _ => html!("<p class=\"soft\">the first {} tokens of either side</p>\n", TOKENS),
    };
    wide("Attention", &svg) + cut
}

/// What the sources of the first `columns` tokens are called, and a rule before each but the first.
fn parts(sources: &[SourceTokens], columns: usize, left: f64, bottom: f64) -> Html {
    let (mut begin, mut svg) = (0, Html::new());
    for source in sources {
        if begin >= columns {
            break;
        }
        let x = left + begin as f64 * CELL;
        let end = (begin + source.tokens.len()).min(columns);
        // As much of the name as has room over its tokens.
        let room = ((end - begin) as f64 * CELL / LETTER) as usize;
        let cut = width(&source.name) > room as f64 * LETTER;
        let mut name: String = source.name.chars().take(if cut { room.saturating_sub(1) } else { room }).collect();
        name.extend(cut.then_some('…'));
        svg += html!(
            "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\">{}<title>{}</title></text>\n",
            x,
            LINE - 6.0,
            escape(&name),
            escape(&source.name)
        );
        if begin > 0 {
            svg += html!("<path class=\"rule\" d=\"M{:.1} 0V{:.1}\"/>\n", x, bottom);
        }
        begin = end;
    }
    svg
}

/// Where each token of the answer looks most, in words.
fn description(over: &[String], beside: &[String], weights: &[Vec<f32>]) -> String {
    let most = |row: &[f32]| {
        let finite = row.iter().take(over.len()).enumerate().filter(|(_, weight)| weight.is_finite());
        finite.max_by(|a, b| a.1.total_cmp(b.1)).map(|(s, _)| s)
    };
    let looks = beside.iter().zip(weights).filter_map(|(token, row)| Some(format!("{token} at {}", over[most(row)?])));
    format!("Attention: {}", looks.collect::<Vec<_>>().join(", "))
}

/// A token as it is written beside a map: space is seen, and what is long is cut.
fn written(token: &str) -> String {
    let mut text: String = token.chars().take(LETTERS).map(|c| if c == ' ' { '␣' } else { c }).collect();
    if token.chars().count() > LETTERS {
        text.push('…');
    }
    text
}

/// About how wide a text is, in pixels: letters of the East are twice as wide.
fn width(text: &str) -> f64 {
    text.chars().map(|c| if u32::from(c) >= 0x1100 { 2.0 * LETTER } else { LETTER }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(String::from).collect()
    }

    fn source(name: &str, text: &str) -> SourceTokens {
        SourceTokens { name: name.into(), tokens: words(text) }
    }

    #[test]
    fn several_sources_are_named_with_a_rule_between_them() {
        let weights = vec![vec![0.25; 5]; 2];
        let sources = [source("lemma", "a b </s>"), source("features", "N </s>")];
        let map = heatmap(&sources, &words("X </s>"), &weights);
        assert_eq!((map.matches("class=\"cell\"").count(), map.matches("class=\"rule\"").count()), (10, 1));
        assert!(map.contains(">lemma<title>lemma</title>") && map.contains(">feat…<title>features</title>"), "{map}");
        let one = heatmap(&sources[..1], &words("X </s>"), &weights);
        assert!(!one.contains("class=\"rule\"") && !one.contains("lemma"), "{one}");
        // What lies beyond the tokens that are drawn has no rule.
        let long = [source("a", &"x ".repeat(80)), source("b", "y")];
        assert!(!heatmap(&long, &words("X"), &[vec![0.1; 82]]).contains("class=\"rule\""));
    }

    #[test]
    fn every_weight_has_a_cell_and_every_token_a_label() {
        let weights = vec![vec![0.75, 0.25, 0.0], vec![0.0, f32::NAN, 2.0]];
        let map = heatmap(&[source("source", "a <b> </s>")], &words("X </s>"), &weights);
        assert_eq!(map.matches("class=\"cell\"").count(), 6);
        for expected in ["X ← a: 0.75", "fill-opacity=\"0.25\"", "&lt;b&gt;", "X at a, &lt;/s&gt; at &lt;/s&gt;"] {
            assert!(map.contains(expected), "{expected}\n{map}");
        }
        assert!(!map.contains("NaN") && !map.contains("opacity=\"2"), "{map}");
    }

    #[test]
    fn what_is_long_is_cut_and_what_is_empty_is_nothing() {
        assert!(heatmap(&[], &[], &[]).is_empty());
        assert!(heatmap(&[], &[], &[vec![], vec![]]).is_empty());
        let long = vec![vec![0.5; 300]; 200];
        let map = heatmap(&[source("s", &vec!["incomprehensibilities"; 300].join(" "))], &vec!["y".into(); 200], &long);
        assert_eq!(map.matches("class=\"cell\"").count(), TOKENS * TOKENS);
        assert!(map.contains("incomprehens…") && map.contains("the first 60 tokens"));
    }
}
