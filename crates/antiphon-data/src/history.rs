//! Histories: what was said so far in a dialog, as the source that a model reads.

use std::collections::HashSet;
use std::sync::Arc;

use antiphon_core::{Problem, Result, TokenId, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the turns of a dialog become a source: a line each, oldest first, with marks before it. A history that is too long loses its oldest
/// turns.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// The marks of the speakers, of which one stands before each turn: the first before the last turn, the next one before the turn
    /// before that, and so on in turn. If the list is empty, no turn says who speaks.
    #[schemars(extend("examples" = [["<user>", "<bot>"]]))]
    pub speakers: Vec<String>,
    /// Whether turns are numbered, from the oldest one that is kept: `<1>`, `<2>` and so on stand before them, and before the marks of the
    /// speakers.
    pub numbered: bool,
    /// How many turns are kept, the last ones; if unset, all that `data.max_source` has room for.
    #[schemars(range(min = 1))]
    pub max_turns: Option<usize>,
}

/// What is left of a history.
struct Fitted {
    text: String,
    ids: Vec<TokenId>,
    /// How many turns did not fit.
    cut: usize,
}

impl History {
    /// The turns of a source as a corpus holds it, a line each.
    pub fn turns(source: &str) -> Vec<&str> {
        source.split('\n').collect()
    }

    /// The source, as a corpus holds it, of these turns: a line each.
    pub fn source(turns: &[impl AsRef<str>]) -> String {
        let line = |turn: &str| turn.replace("\r\n", " ").replace(['\n', '\r'], " ");
        turns.iter().map(|turn| line(turn.as_ref())).collect::<Vec<_>>().join("\n")
    }

    /// The text that a model reads of these turns, oldest first, however long it is.
    pub fn text(&self, turns: &[impl AsRef<str>]) -> String {
        let turns = self.kept(turns);
        let line = |(i, turn): (usize, &_)| self.line(i, turns.len(), AsRef::<str>::as_ref(turn));
        turns.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The text of as many of the last turns as have no more than `max` tokens together, and how many of those that were to be kept
    /// did not fit. Where the last turn alone has more, its front is cut, and it counts among these.
    ///
    /// # Errors
    /// If a text cannot be represented.
    pub fn fit(&self, turns: &[impl AsRef<str>], tokenizer: &dyn Tokenizer, max: usize) -> Result<(String, usize)> {
        let Fitted { text, cut, .. } = self.fitted(turns, tokenizer, max)?;
        Ok((text, cut))
    }

    /// What of the settings cannot work, with places below them.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let is_mark = |mark: &String| !mark.trim().is_empty() && !mark.contains(['\n', '\r']);
        if let Some(i) = self.speakers.iter().position(|mark| !is_mark(mark)) {
            let message = "a mark is a word or a few, without line ends, as `<user>`; write one, or take it out".into();
            problems.push(Problem { place: format!("speakers.{i}").into(), message });
        }
        if self.max_turns == Some(0) {
            let message = "must be at least 1, got 0".into();
            problems.push(Problem { place: "max_turns".into(), message });
        }
        problems
    }

    fn kept<'t, T>(&self, turns: &'t [T]) -> &'t [T] {
        &turns[turns.len() - self.max_turns.unwrap_or(usize::MAX).min(turns.len())..]
    }

    /// What stands before the `i`th of so many turns, counted from 0.
    fn marks(&self, i: usize, turns: usize) -> String {
        let number = self.numbered.then(|| format!("<{}> ", i + 1));
        let speaker =
            (turns - 1 - i).checked_rem(self.speakers.len()).map(|speaker| format!("{} ", self.speakers[speaker]));
        number.into_iter().chain(speaker).collect()
    }

    fn line(&self, i: usize, turns: usize, turn: &str) -> String {
        self.marks(i, turns) + turn
    }

    fn fitted(&self, turns: &[impl AsRef<str>], tokenizer: &dyn Tokenizer, max: usize) -> Result<Fitted> {
        let turns = self.kept(turns);
        let last = |n: usize| -> Result<Fitted> {
            let text = self.text(&turns[turns.len() - n..]);
            Ok(Fitted { ids: tokenizer.encode(&text)?, text, cut: turns.len() - n })
        };
        let fits = |fitted: &Fitted| fitted.ids.len() <= max;
        // Turn by turn from the last one, so that what is long ago is not read: how many fit as far as the tokens of each tell.
        let (mut most, mut tokens) = (0, 0);
        for turn in turns.iter().rev() {
            let end = if most == 0 { "" } else { "\n" };
            let line = self.line(turns.len() - 1 - most, turns.len(), turn.as_ref()) + end;
            tokens += tokenizer.encode(&line)?.len();
            if tokens > max {
                break;
            }
            most += 1;
        }
        // Together they may have a few more or less.
        let mut found = last(most.max(1).min(turns.len()))?;
        while most < turns.len() && fits(&found) {
            let more = last(most + 1)?;
            if !fits(&more) {
                break;
            }
            (found, most) = (more, most + 1);
        }
        while !fits(&found) && most > 1 {
            most -= 1;
            found = last(most)?;
        }
        if fits(&found) {
            return Ok(found);
        }
        let turn = turns.last().map_or("", |turn| turn.as_ref());
        // Where there is no room beside its marks, it goes without them.
        for marks in [self.marks(0, 1), String::new()] {
            if let Some((text, ids)) = end_of(turn, &marks, tokenizer, max)? {
                return Ok(Fitted { text, ids, cut: turns.len() });
            }
        }
        Ok(Fitted { text: String::new(), ids: Vec::new(), cut: turns.len() })
    }
}

/// The longest end of a turn that fits behind its marks, from a word on or, where no word fits, from a character of the last one on.
fn end_of(turn: &str, marks: &str, tokenizer: &dyn Tokenizer, max: usize) -> Result<Option<(String, Vec<TokenId>)>> {
    let mut words: Vec<usize> = Vec::new();
    let mut was_space = true;
    for (place, character) in turn.char_indices() {
        if was_space && !character.is_whitespace() {
            words.push(place);
        }
        was_space = character.is_whitespace();
    }
    let last = words.last().copied().unwrap_or(0);
    let characters: Vec<usize> = turn[last..].char_indices().map(|(place, _)| last + place).collect();
    for starts in [words, characters] {
        // The first start from which on the rest fits; those before it do not.
        let (mut low, mut high, mut found) = (0, starts.len(), None);
        while low < high {
            let middle = usize::midpoint(low, high);
            let text = format!("{marks}{}", &turn[starts[middle]..]);
            let ids = tokenizer.encode(&text)?;
            if ids.len() <= max {
                (high, found) = (middle, Some((text, ids)));
            } else {
                low = middle + 1;
            }
        }
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Whether a word is the number of a turn.
fn is_number(word: &str) -> bool {
    let inner = word.strip_prefix('<').and_then(|word| word.strip_suffix('>'));
    inner.is_some_and(|inner| !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A tokenizer of sources that are histories: the turns of a text, a line each as [`History::source`] writes them, become the text that a
/// model reads, which is then encoded, cut where it is too long.
pub struct Histories {
    history: History,
    of_text: Arc<dyn Tokenizer>,
    max: usize,
    /// The words of the speakers' marks.
    marks: HashSet<String>,
}

impl Histories {
    /// Of no more than `max` tokens, which `of_text` makes.
    pub fn new(history: History, of_text: Arc<dyn Tokenizer>, max: usize) -> Self {
        let marks = history.speakers.iter().filter_map(|mark| of_text.words(mark)).flatten().flatten().collect();
        Self { history, of_text, max, marks }
    }

    fn fitted(&self, text: &str) -> Result<Fitted> {
        self.history.fitted(&History::turns(text), self.of_text.as_ref(), self.max)
    }
}

impl Tokenizer for Histories {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        self.fitted(text).map(|fitted| fitted.ids)
    }

    fn decode(&self, ids: &[TokenId]) -> String {
        self.of_text.decode(ids)
    }

    fn words(&self, text: &str) -> Option<Vec<Option<String>>> {
        // Marks are no words that could be said.
        let mut words = self.of_text.words(&self.fitted(text).ok()?.text)?;
        let is_mark = |word: &String| self.marks.contains(word) || self.history.numbered && is_number(word);
        words.iter_mut().filter(|word| word.as_ref().is_some_and(is_mark)).for_each(|word| *word = None);
        Some(words)
    }

    fn decode_slots(&self, ids: &[TokenId], slots: &[String]) -> String {
        self.of_text.decode_slots(ids, slots)
    }

    fn cut(&self, text: &str) -> Result<usize> {
        self.fitted(text).map(|fitted| fitted.cut)
    }

    fn size(&self) -> usize {
        self.of_text.size()
    }

    fn token(&self, id: TokenId) -> Option<String> {
        self.of_text.token(id)
    }

    fn to_json(&self) -> String {
        self.of_text.to_json()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes_tokenizer::Bytes;

    /// A token for each word.
    struct Words;

    impl Tokenizer for Words {
        fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
            Ok(text.split_whitespace().map(|_| 4).collect())
        }

        fn decode(&self, _: &[TokenId]) -> String {
            String::new()
        }

        fn size(&self) -> usize {
            5
        }

        fn token(&self, _: TokenId) -> Option<String> {
            None
        }

        fn to_json(&self) -> String {
            "{}".into()
        }
    }

    fn history(speakers: &[&str], numbered: bool, max_turns: Option<usize>) -> History {
        History { speakers: speakers.iter().map(|&mark| mark.to_owned()).collect(), numbered, max_turns }
    }

    #[test]
    fn the_first_mark_is_that_of_the_last_turn() {
        let turns = ["a", "b", "c"];
        assert_eq!(history(&[], false, None).text(&turns), "a\nb\nc");
        assert_eq!(history(&["<u>", "<b>"], false, None).text(&turns), "<u> a\n<b> b\n<u> c");
        assert_eq!(history(&["<u>", "<b>"], false, None).text(&turns[..2]), "<b> a\n<u> b");
        assert_eq!(history(&["<u>", "<b>"], true, Some(2)).text(&turns), "<1> <b> b\n<2> <u> c");
        assert_eq!(history(&["<u>"], true, None).text(&["", "c"]), "<1> <u> \n<2> <u> c");
        assert_eq!(history(&["<u>"], true, None).text(&[""; 0]), "");
        assert_eq!(History::turns(&History::source(&["a\r\nb", "", "c\nd"])), ["a b", "", "c d"]);
    }

    #[test]
    fn as_many_of_the_last_turns_are_kept_as_fit_and_no_fewer() {
        let turns: Vec<String> = (0..12).map(|i| ["x", "yy z", "", "w w w"][i % 4].repeat(1 + i / 5)).collect();
        for (speakers, numbered, max_turns) in
            [(&[][..], false, None), (&["<u>", "<b>"], false, Some(9)), (&["<u>"], true, None), (&[], true, Some(3))]
        {
            let history = history(speakers, numbered, max_turns);
            for tokenizer in [&Words as &dyn Tokenizer, &Bytes] {
                let length = |text: &str| tokenizer.encode(text).unwrap().len();
                let most = max_turns.unwrap_or(turns.len());
                for max in 0..=length(&history.text(&turns)) + 1 {
                    let (text, cut) = history.fit(&turns, tokenizer, max).unwrap();
                    assert!(length(&text) <= max, "{history:?} {max}");
                    let last = |n: usize| history.text(&turns[turns.len() - n..]);
                    if cut < most {
                        assert_eq!(text, last(most - cut));
                        assert!(cut == 0 || length(&last(most - cut + 1)) > max, "{history:?} {max}");
                    } else {
                        assert!(length(&last(1)) > max, "{history:?} {max}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_front_of_a_last_turn_that_is_too_long_is_cut() {
        let history = history(&["<u>"], true, None);
        let fit = |turn: &str, tokenizer: &dyn Tokenizer, max| history.fit(&["a", turn], tokenizer, max).unwrap();
        assert_eq!(fit("b c d  e", &Words, 4), ("<1> <u> d  e".into(), 2));
        assert_eq!(fit("b c d  e", &Words, 2), ("d  e".into(), 2));
        assert_eq!(fit("b c d  e", &Words, 0), (String::new(), 2));
        // From a word on, and within a word only where it is the last one.
        assert_eq!(fit("bcd efg", &Bytes, 12), ("<1> <u> efg".into(), 2));
        assert_eq!(fit("bcd efg", &Bytes, 10), ("<1> <u> fg".into(), 2));
        assert_eq!(fit("bcd efg", &Bytes, 2), ("fg".into(), 2));
        assert_eq!(fit("é", &Bytes, 1), (String::new(), 2));
    }

    #[test]
    fn a_long_history_is_read_from_its_end() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        /// Counts the characters that it is asked about.
        struct Counting(AtomicUsize);

        impl Tokenizer for Counting {
            fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
                self.0.fetch_add(text.len(), Ordering::Relaxed);
                Words.encode(text)
            }

            fn decode(&self, _: &[TokenId]) -> String {
                String::new()
            }

            fn size(&self) -> usize {
                5
            }

            fn token(&self, _: TokenId) -> Option<String> {
                None
            }

            fn to_json(&self) -> String {
                "{}".into()
            }
        }
        let counting = Counting(AtomicUsize::new(0));
        let turns = vec!["hi there"; 10_000];
        let (_, cut) = history(&["<u>", "<b>"], true, None).fit(&turns, &counting, 100).unwrap();
        assert_eq!(cut, 9_975);
        assert!(counting.0.into_inner() < 3_000);
    }

    #[test]
    fn a_tokenizer_of_histories_says_what_it_cuts() {
        let histories = Histories::new(history(&["<u>"], false, None), Arc::new(Bytes), 9);
        let ids = |text: &str| Bytes.encode(text).unwrap();
        assert_eq!((histories.encode("a\nb").unwrap(), histories.cut("a\nb").unwrap()), (ids("<u> b"), 1));
        assert_eq!(histories.encode("abcdefgh").unwrap(), ids("<u> defgh"));
        assert_eq!(histories.cut("abc").unwrap(), 0);
    }

    #[test]
    fn marks_are_words_and_there_is_a_turn() {
        let places = |history: History| history.problems().iter().map(|one| one.place.to_string()).collect::<Vec<_>>();
        assert_eq!(places(history(&["<u>", " ", "<b>"], false, Some(0))), ["speakers.1", "max_turns"]);
        assert_eq!(places(history(&["a\nb"], false, Some(1))), ["speakers.0"]);
        assert!(places(history(&["<u>", "Bot:"], true, None)).is_empty());
    }
}
