//! Subtitles: the words of a recording as lines, with when each is shown.

use std::fmt::Write;

use crate::experiment::Word;

/// The longest line, in characters; a longer word has a line of its own.
const LINE: usize = 42;
/// How long nothing is said where a line ends, in seconds.
const PAUSE: f64 = 0.7;
/// How long a line is shown at least, in seconds, unless the next one comes earlier.
const SHOWN: f64 = 1.0;

/// How they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// SubRip.
    Srt,
    /// WebVTT.
    Vtt,
}

/// A line.
#[derive(Debug, Clone, PartialEq)]
struct Cue {
    /// In seconds.
    start: f64,
    end: f64,
    text: String,
}

/// Words in the order of their times as a file of subtitles; `end`: where the recording ends, in seconds, if that is known.
pub(super) fn subtitles(words: &[Word], form: Form, end: Option<f64>) -> String {
    let mut file = String::from(if form == Form::Vtt { "WEBVTT\n\n" } else { "" });
    for (i, Cue { start, end, text }) in cues(words, end.unwrap_or(f64::INFINITY)).into_iter().enumerate() {
        let text = match form {
            Form::Srt => text,
            Form::Vtt => text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
        };
        let [start, end] = [start, end].map(|seconds| time(seconds, form));
        writeln!(file, "{}\n{start} --> {end}\n{text}\n", i + 1).expect("a text can be written to");
    }
    file
}

/// Lines of at most [`LINE`] characters, which end at a [`PAUSE`] or where they are full, in a recording that ends so many seconds
/// behind its beginning.
fn cues(words: &[Word], end_of_all: f64) -> Vec<Cue> {
    let mut cues: Vec<Cue> = Vec::new();
    for Word { word, start, end, .. } in words {
        let fits = |cue: &&mut Cue| {
            let length = cue.text.chars().count() + 1 + word.chars().count();
            length <= LINE && start - cue.end < PAUSE
        };
        match cues.last_mut().filter(fits) {
            Some(cue) => {
                cue.text += " ";
                cue.text += word;
                cue.end = *end;
            }
            None => cues.push(Cue { start: *start, end: *end, text: word.clone() }),
        }
    }
    // In thousandths no time lies behind the end.
    let last = (end_of_all * 1000.0 + 1e-6).floor() / 1000.0;
    // What is said in an instant is read in a second.
    for i in 0..cues.len() {
        let next = cues.get(i + 1).map_or(f64::INFINITY, |next| next.start);
        let cue = &mut cues[i];
        cue.end = cue.end.max(next.min(cue.start + SHOWN)).min(last.max(cue.start));
    }
    cues
}

/// Hours, minutes, seconds and their thousandths.
fn time(seconds: f64, form: Form) -> String {
    let thousandths = (seconds.max(0.0) * 1000.0).round() as u64;
    let (whole, rest) = (thousandths / 1000, thousandths % 1000);
    let point = if form == Form::Srt { ',' } else { '.' };
    format!("{:02}:{:02}:{:02}{point}{rest:03}", whole / 3600, whole / 60 % 60, whole % 60)
}

#[cfg(test)]
mod tests {
    use antiphon_core::random::Key;

    use super::*;

    fn word(word: &str, start: f64, end: f64) -> Word {
        Word { word: word.into(), start, end, confidence: 1.0 }
    }

    #[test]
    fn every_word_is_shown_once_in_short_lines_cut_at_pauses() {
        let (mut pauses, mut full, mut clipped) = (0, 0, 0);
        for seed in 0..200 {
            let key = Key::from_seed(seed);
            let mut now = 0.0;
            let words: Vec<Word> = (0..key.named("count").below(0, 60))
                .map(|i| {
                    let start = now + 0.9 * key.named("pause").uniform(i).powi(3);
                    now = start + 0.04 + 0.4 * key.named("length").uniform(i);
                    let letters = 1 + key.named("letters").below(i, if i % 9 == 0 { 60 } else { 9 });
                    word(&"é".repeat(letters as usize), start, now)
                })
                .collect();
            // Before or behind the time up to which a short last line would be shown.
            let end = now + 0.5 * key.named("end").uniform(0);
            let found = cues(&words, end);
            let shown: Vec<&str> = found.iter().flat_map(|cue| cue.text.split(' ')).collect();
            assert_eq!(shown, words.iter().map(|word| word.word.as_str()).collect::<Vec<_>>());
            let mut next = 0;
            for (i, cue) in found.iter().enumerate() {
                let count = cue.text.split(' ').count();
                let own = &words[next..next + count];
                next += count;
                assert!(cue.text.chars().count() <= LINE || count == 1, "{cue:?}");
                assert!(own.windows(2).all(|pair| pair[1].start - pair[0].end < PAUSE), "{cue:?}");
                assert_eq!(cue.start, own[0].start);
                let said = own[count - 1].end;
                let Some(after) = found.get(i + 1) else {
                    let wanted = said.max(cue.start + SHOWN);
                    let is_clipped = cue.end < wanted && cue.end <= end && end - cue.end < 0.001;
                    assert!(cue.end == wanted && wanted <= end || is_clipped, "{cue:?} {end}");
                    clipped += usize::from(is_clipped);
                    continue;
                };
                assert!(cue.end >= said && cue.end <= after.start, "{cue:?} {after:?}");
                let first = after.text.split(' ').next().unwrap().chars().count();
                let is_full = cue.text.chars().count() + 1 + first > LINE;
                let is_pause = after.start - said >= PAUSE;
                assert!(is_full || is_pause, "{cue:?} {after:?}");
                (pauses, full) = (pauses + usize::from(is_pause), full + usize::from(is_full));
            }
            assert_eq!(next, words.len());
        }
        assert!(pauses > 50 && full > 50 && (10..190).contains(&clipped), "{pauses} {full} {clipped}");
    }

    #[test]
    fn files_are_as_players_read_them() {
        let words = [word("a<b", 0.0, 0.5), word("&", 0.6, 0.64), word("c", 3723.04, 3723.9)];
        let srt = "1\n00:00:00,000 --> 00:00:01,000\na<b &\n\n2\n01:02:03,040 --> 01:02:04,040\nc\n\n";
        assert_eq!(subtitles(&words, Form::Srt, None), srt);
        let vtt = "WEBVTT\n\n1\n00:00:00.000 --> 00:00:01.000\na&lt;b &amp;\n\n2\n01:02:03.040 --> 01:02:04.000\nc\n\n";
        assert_eq!(subtitles(&words, Form::Vtt, Some(3724.0)), vtt);
        assert_eq!(
            (subtitles(&[], Form::Srt, None).as_str(), subtitles(&[], Form::Vtt, Some(1.0)).as_str()),
            ("", "WEBVTT\n\n")
        );
    }
}
