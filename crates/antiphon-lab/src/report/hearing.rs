//! What a model hears in a recording: its features, when each word and token of the answer is said, and where the decoder looked, one
//! below another over the same time.

use super::findings::{Candidate, Hearing, Said};
use super::html::{Html, escape, html, wide};
use super::raster::{Frame, raster};
use super::scale::Scale;

/// The most columns of the features; of a longer recording some frames become one.
const COLUMNS: usize = 240;
/// The width of a column, in pixels, and the least of all together.
const COLUMN: f64 = 4.0;
const LEAST: f64 = 320.0;
/// The height of a band of the features.
const BAND: f64 = 3.0;
/// The height of a row of words or tokens.
const ROW: f64 = 20.0;
/// The height of a token's row in the map of attention.
const LOOK: f64 = 12.0;
/// How many tokens the map has.
const TOKENS: usize = 80;
/// The width of a letter, about, and how many of a token are written.
const LETTER: f64 = 7.0;
const LETTERS: usize = 10;

/// The figure of a recording and its best answer; nothing without frames.
pub(super) fn hearing(hearing: &Hearing, best: Option<&Candidate>) -> Html {
    let Hearing { frames, hop, step, words, tokens } = hearing;
    let bands = frames.first().map_or(0, Vec::len);
    if bands == 0 {
        return Html::new();
    }
    let looks: Vec<&Vec<f32>> = best.map_or(&[][..], |best| &best.attention).iter().take(TOKENS).collect();
    let steps = looks.iter().map(|row| row.len()).max().unwrap_or(0);
    let names: Vec<String> = best.iter().flat_map(|best| &best.tokens).take(looks.len()).map(|t| written(t)).collect();
    let left = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) as f64 * LETTER + 10.0;
    let seconds = frames.len() as f64 * hop;
    let columns = in_columns(frames);
    let width = (columns[0].len() as f64 * COLUMN).max(LEAST);
    let time = Scale::new((0.0, seconds), (left, left + width));

    let mut top = ROW;
    let mut svg = Html::new();
    for (at, label) in time.ticks((width / 60.0) as usize + 2) {
        svg += html!(
            "<text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            time.at(at),
            top - 6.0,
            escape(&format!("{label} s"))
        );
    }
    let frame = Frame { left, top, width, height: bands as f64 * BAND };
    svg += raster(&columns, frame) + outline(frame);
    top += frame.height + 4.0;
    for said in [words, tokens] {
        if !said.is_empty() {
            svg += row(said, &time, top);
            top += ROW;
        }
    }
    if steps > 0 {
        top += 4.0;
        // The steps need not end with the frames.
        let frame =
            Frame { left, top, width: width * steps as f64 * step / seconds, height: looks.len() as f64 * LOOK };
        let rows: Vec<Vec<f32>> = looks.iter().map(|row| padded(row, steps)).collect();
        svg += raster(&rows, frame) + outline(frame);
        for (i, name) in names.iter().enumerate() {
            let y = top + (i as f64 + 0.5) * LOOK + 4.0;
            svg += html!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n", left - 5.0, y, escape(name));
        }
        top += frame.height;
    }
    let (width, height) = (left + width * 1.02 + 20.0, top + 2.0);
    let description = words.iter().map(|word| format!("{} at {:.2} s", word.text, word.start)).collect::<Vec<_>>();
    let svg = html!(
        "<svg width=\"{:.0}\" height=\"{:.0}\" viewBox=\"0 0 {:.0} {:.0}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
        width,
        height,
        width,
        height,
        escape(&format!("Recording: {}", description.join(", "))),
        svg
    );
    wide("Recording", &svg)
}

/// A row of what is said: a bar from its start to its end, and the text below it where there is room.
fn row(said: &[Said], time: &Scale, top: f64) -> Html {
    let mut written_to = f64::NEG_INFINITY;
    let mut svg = Html::new();
    for Said { text, start, end, probability } in said {
        let (from, to) = (time.at(*start), time.at(*end));
        let title = format!("{text}: {start:.2} to {end:.2} s, {probability:.2}");
        svg += html!(
            "<rect class=\"cell\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"4\" fill-opacity=\"{:.2}\"><title>{}</title></rect>\n",
            from,
            top,
            (to - from).max(1.0),
            0.15 + 0.85 * if probability.is_finite() { probability.clamp(0.0, 1.0) } else { 0.0 },
            escape(&title)
        );
        let label = written(text);
        let half = label.chars().count() as f64 * LETTER / 2.0;
        let middle = (from + to) / 2.0;
        if middle - half >= written_to {
            svg += html!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                middle,
                top + 16.0,
                escape(&label)
            );
            written_to = middle + half;
        }
    }
    svg
}

/// The features with time across and the first band at the bottom, from 0 to 1 between what few numbers fall below and few exceed.
fn in_columns(frames: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut sorted: Vec<f32> = frames.iter().flatten().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let at = |share: usize| sorted.get(sorted.len().saturating_sub(1) * share / 100).copied().unwrap_or(0.0);
    let (low, high) = (at(5), at(99));
    let range = if high > low { high - low } else { 1.0 };
    let per_column = frames.len().div_ceil(COLUMNS);
    let band = |band: usize| {
        let mean = |some: &[Vec<f32>]| some.iter().map(|frame| frame[band]).sum::<f32>() / some.len() as f32;
        frames.chunks(per_column).map(|some| (mean(some) - low) / range).collect()
    };
    (0..frames[0].len()).rev().map(band).collect()
}

fn padded(row: &[f32], length: usize) -> Vec<f32> {
    let mut row = row.to_vec();
    row.resize(length, 0.0);
    row
}

fn outline(Frame { left, top, width, height }: Frame) -> Html {
    html!(
        "<rect class=\"frame\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>\n",
        left,
        top,
        width,
        height
    )
}

/// A token as it is written beside a map: space is seen, and what is long is cut.
fn written(token: &str) -> String {
    let mut text: String = token.chars().take(LETTERS).map(|c| if c == ' ' { '␣' } else { c }).collect();
    if token.chars().count() > LETTERS {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, start: f64, end: f64) -> Said {
        Said { text: text.into(), start, end, probability: 0.5 }
    }

    fn heard(frames: usize, bands: usize) -> Hearing {
        let frame = |t: usize| (0..bands).map(|band| (t * 7 + band * band) as f32 % 11.0).collect();
        let words = vec![said("<one>", 0.0, 0.5), said("two", 0.5, 0.9)];
        let tokens =
            words.iter().flat_map(|word| word.text.chars().map(|c| said(&c.to_string(), word.start, word.end)));
        Hearing { frames: (0..frames).map(frame).collect(), hop: 0.01, step: 0.02, tokens: tokens.collect(), words }
    }

    fn answer(tokens: &[&str], steps: usize) -> Candidate {
        Candidate {
            text: tokens.concat(),
            correct: true,
            score: 0.0,
            log_prob: 0.0,
            finished: true,
            tokens: tokens.iter().map(ToString::to_string).collect(),
            attention: vec![vec![1.0 / steps as f32; steps]; tokens.len()],
        }
    }

    #[test]
    fn a_recording_is_drawn_with_its_answer_below_it() {
        let heard = heard(100, 5);
        let svg = hearing(&heard, Some(&answer(&["a", " ", "</s>"], 50)));
        assert_eq!(svg.matches("class=\"raster\"").count(), 2, "features and attention");
        assert_eq!(svg.matches("class=\"cell\"").count(), 2 + 8, "words and tokens");
        for expected in
            [">0.2 s<", "<title>&lt;one&gt;: 0.00 to 0.50 s, 0.50</title>", ">␣<", ">&lt;/s&gt;<", "two at 0.50 s"]
        {
            assert!(svg.contains(expected), "{expected}: {svg}");
        }
        // What has neither times nor attention is drawn as far as it goes.
        let bare = Hearing { words: Vec::new(), tokens: Vec::new(), ..heard };
        let svg = hearing(&bare, None);
        assert_eq!((svg.matches("class=\"raster\"").count(), svg.matches("class=\"cell\"").count()), (1, 0));
        assert!(hearing(&Hearing { frames: Vec::new(), ..bare }, None).is_empty());
    }

    #[test]
    fn a_long_recording_makes_no_large_figure() {
        let svg = hearing(&heard(20_000, 40), Some(&answer(&["a"; 300], 10_000)));
        assert!(svg.len() < 200_000, "{}", svg.len());
        let columns = in_columns(&heard(20_000, 40).frames);
        assert!(columns.len() == 40 && columns[0].len() <= COLUMNS, "{}", columns[0].len());
    }

    #[test]
    fn the_first_band_is_at_the_bottom() {
        let frames: Vec<Vec<f32>> = (0..100).map(|_| vec![0.0, 1.0, 4.0]).collect();
        let columns = in_columns(&frames);
        assert!(columns.iter().map(|row| row[0]).is_sorted_by(|above, below| above > below), "{columns:?}");
    }
}
