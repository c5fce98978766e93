//! What tokens say: as a text, as a text that is still being said, and where it stops.

use std::sync::Arc;

use antiphon_core::{Result, Special, TokenId, Tokenizer};
use antiphon_decode::Ending;

/// What the tokens of a target say.
#[derive(Clone)]
pub(crate) struct Speech {
    tokenizer: Arc<dyn Tokenizer>,
    /// Whether the end symbol closes a line, and the text goes on behind it.
    endless: bool,
}

impl Speech {
    /// Of texts that the end symbol ends.
    pub(crate) fn of_texts(tokenizer: Arc<dyn Tokenizer>) -> Self {
        Self::new(tokenizer, false)
    }

    /// Of texts in which the end symbol stands for the end of a line, if they are `endless`.
    pub(crate) fn new(tokenizer: Arc<dyn Tokenizer>, endless: bool) -> Self {
        Self { tokenizer, endless }
    }

    /// What the tokens are those of.
    pub(crate) fn tokenizer(&self) -> &dyn Tokenizer {
        self.tokenizer.as_ref()
    }

    /// The text of some tokens.
    pub(crate) fn text(&self, ids: &[TokenId]) -> String {
        if !self.endless {
            return self.tokenizer.decode(ids);
        }
        let lines = ids.split(|&id| id == Special::End.id()).map(|line| self.tokenizer.decode(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The tokens of a text, which need not be at its end.
    ///
    /// # Errors
    /// If it cannot be represented.
    pub(crate) fn tokens(&self, text: &str) -> Result<Vec<TokenId>> {
        if !self.endless {
            return self.tokenizer.encode(text);
        }
        let mut ids = Vec::new();
        for (i, line) in text.split('\n').enumerate() {
            ids.extend((i > 0).then_some(Special::End.id()));
            ids.extend(self.tokenizer.encode(line.strip_suffix('\r').unwrap_or(line))?);
        }
        Ok(ids)
    }
}

/// A tokenizer whose ids behind the vocabulary are these slots.
pub(super) struct Slotted {
    pub(super) tokenizer: Arc<dyn Tokenizer>,
    pub(super) slots: Vec<String>,
}

impl Tokenizer for Slotted {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        self.tokenizer.encode(text)
    }

    fn decode(&self, ids: &[TokenId]) -> String {
        self.tokenizer.decode_slots(ids, &self.slots)
    }

    fn size(&self) -> usize {
        self.tokenizer.size()
    }

    fn token(&self, id: TokenId) -> Option<String> {
        self.tokenizer.token(id)
    }

    fn to_json(&self) -> String {
        self.tokenizer.to_json()
    }
}

/// Texts at which an answer ends. They may begin and end within tokens.
#[derive(Clone)]
pub(crate) struct StopTexts {
    speech: Speech,
    texts: Arc<[String]>,
    /// How many tokens at the end of an answer are sure to hold a stop that the last of them has completed.
    reach: usize,
}

impl StopTexts {
    pub(crate) fn new(speech: Speech, texts: &[String]) -> Self {
        // A token that says anything says a byte; some say nothing, and the first may lose what would part it from one before.
        let reach = texts.iter().map(String::len).max().unwrap_or(0) + 8;
        Self { speech, texts: texts.into(), reach }
    }

    /// A text up to its first stop.
    pub(crate) fn cut(&self, mut text: String) -> String {
        if let Some(end) = self.first(&text) {
            text.truncate(end);
        }
        text
    }

    /// Where the first stop begins.
    fn first(&self, text: &str) -> Option<usize> {
        self.texts.iter().filter_map(|stop| text.find(stop.as_str())).min()
    }

    /// Where the end of a text begins that may become a stop; its length, if nothing of it may.
    fn open(&self, text: &str) -> usize {
        let begins = |at: &usize| self.texts.iter().any(|stop| stop.starts_with(&text[*at..]));
        let longest = self.texts.iter().map(String::len).max().unwrap_or(0);
        let from = text.floor_char_boundary(text.len().saturating_sub(longest));
        text[from..].char_indices().map(|(at, _)| from + at).find(begins).unwrap_or(text.len())
    }
}

impl Ending for StopTexts {
    fn ends(&self, chosen: &[TokenId]) -> bool {
        let from = chosen.len().saturating_sub(self.reach);
        self.first(&self.speech.text(&chosen[from..])).is_some()
    }
}

/// A text that is told while its tokens come: never half a character, nothing that may yet be a stop, nothing behind one.
pub(crate) struct Telling {
    speech: Speech,
    stops: StopTexts,
    /// The last tokens: those before them have no say in what is written behind them.
    ids: Vec<TokenId>,
    /// How many bytes of the text of these tokens were told.
    told: usize,
    /// With how many tokens there is the next attempt to do without the first of them.
    full: usize,
}

/// Tokens that are kept for what comes behind them.
const KEPT: usize = 32;

impl Telling {
    pub(crate) fn new(speech: Speech, stops: StopTexts) -> Self {
        Self { speech, stops, ids: Vec::new(), told: 0, full: 2 * KEPT }
    }

    /// What can be told now that these tokens have come.
    pub(crate) fn add(&mut self, ids: &[TokenId]) -> String {
        self.ids.extend_from_slice(ids);
        let text = self.speech.text(&self.ids);
        // What looks broken at the end may be the beginning of a character.
        let whole = text.strip_suffix(char::REPLACEMENT_CHARACTER).unwrap_or(&text);
        let end = self.stops.first(whole).unwrap_or_else(|| self.stops.open(whole));
        let told = self.tell(&text, end);
        if self.ids.len() >= self.full {
            self.forget(&text);
        }
        told
    }

    /// What is left to be told at the end.
    pub(crate) fn finish(&mut self) -> String {
        let text = self.speech.text(&self.ids);
        let end = self.stops.first(&text).unwrap_or(text.len());
        self.tell(&text, end)
    }

    fn tell(&mut self, text: &str, end: usize) -> String {
        let new = text.get(self.told..end).unwrap_or_default().to_owned();
        self.told += new.len();
        new
    }

    /// Does without the first tokens, if the others alone say the end of the text, and all before that was told.
    fn forget(&mut self, text: &str) {
        let from = self.ids.len() - KEPT;
        for from in from..from + 4 {
            let rest = self.speech.text(&self.ids[from..]);
            let before = text.len().saturating_sub(rest.len());
            if !rest.is_empty() && text.ends_with(&rest) && before <= self.told {
                self.ids.drain(..from);
                self.told -= before;
                break;
            }
        }
        self.full = self.ids.len() + KEPT;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use antiphon_core::random::Key;
    use antiphon_text::{
        BpeConfig, ByteConfig, CharacterConfig, TokenizerConfig, UnigramConfig, WordConfig, WordPieceConfig,
    };

    use super::*;

    const END: TokenId = Special::End.id();

    /// All that are learned here, of a corpus with characters of one to four bytes.
    pub(in super::super) fn tokenizers() -> Vec<(&'static str, Arc<dyn Tokenizer>)> {
        let lines = ["a bee was near", "ab é baba 日本", "an 🙂 ant é bee", "near a 日 bean  bar"];
        let learn = |name: &'static str, config: TokenizerConfig| {
            let tokenizer = config.train(&mut lines.iter().map(|line| Ok((*line).to_owned()))).unwrap();
            (name, Arc::from(tokenizer))
        };
        let of_bytes = BpeConfig { size: 275, byte_level: true, min_frequency: 1, ..BpeConfig::default() };
        let of_characters = BpeConfig { size: 40, byte_level: false, min_frequency: 1, ..BpeConfig::default() };
        vec![
            learn("word", TokenizerConfig::Word(WordConfig::default())),
            learn("character", TokenizerConfig::Character(CharacterConfig::default())),
            learn("byte", TokenizerConfig::Byte(ByteConfig::default())),
            learn("bpe of bytes", TokenizerConfig::Bpe(of_bytes)),
            learn("bpe", TokenizerConfig::Bpe(of_characters)),
            learn("word_piece", TokenizerConfig::WordPiece(WordPieceConfig { size: 60, ..WordPieceConfig::default() })),
            learn("unigram", TokenizerConfig::Unigram(UnigramConfig { size: 50, ..UnigramConfig::default() })),
        ]
    }

    /// Tokens that a model might say, whole characters or not.
    fn said(tokenizer: &dyn Tokenizer, seed: u64, endless: bool) -> Vec<TokenId> {
        let key = Key::from_seed(seed);
        let text = tokenizer.encode("an é bee 🙂 日本 was near a bean").unwrap();
        let mut ids = Vec::new();
        for i in 0..key.below(0, 300) {
            match key.named("what").below(i, 12) {
                0 if endless => ids.push(END),
                1..=3 => ids.push(1 + key.named("any").below(i, tokenizer.size() as u64 - 1) as TokenId),
                _ => ids.push(text[key.named("text").below(i, text.len() as u64) as usize]),
            }
        }
        ids.retain(|&id| endless || id != END);
        ids
    }

    fn speeches() -> impl Iterator<Item = (&'static str, Speech)> {
        tokenizers().into_iter().flat_map(|(name, tokenizer)| {
            [false, true].map(|endless| (name, Speech::new(Arc::clone(&tokenizer), endless)))
        })
    }

    #[test]
    fn what_is_told_piece_by_piece_is_the_text() {
        for (name, speech) in speeches() {
            for seed in 0..60 {
                let ids = said(speech.tokenizer.as_ref(), seed, speech.endless);
                let mut telling = Telling::new(speech.clone(), StopTexts::new(speech.clone(), &[]));
                let (mut told, mut at, mut late) = (String::new(), 0, 0);
                while at < ids.len() {
                    let many = 1 + Key::from_seed(seed).below(at as u64, 3) as usize;
                    let to = ids.len().min(at + many);
                    told += &telling.add(&ids[at..to]);
                    at = to;
                    let text = speech.text(&ids[..at]);
                    assert!(text.starts_with(&told), "{name} {seed}: {told:?} {text:?}");
                    late = late.max(text.len() - told.len());
                }
                told += &telling.finish();
                assert_eq!(told, speech.text(&ids), "{name} {seed}");
                // Nothing waits for more than the rest of its character.
                assert!(late <= 4, "{name} {seed}: {late}");
                assert!(telling.ids.len() <= 4 * KEPT, "{name} {seed}: {} tokens are kept", telling.ids.len());
            }
        }
    }

    #[test]
    fn a_stop_is_found_wherever_it_lies_and_never_told() {
        let (mut stopped, mut ran) = (0, 0);
        for (name, speech) in speeches() {
            for seed in 0..60 {
                let ids = said(speech.tokenizer.as_ref(), seed, speech.endless);
                for texts in [&["ee"][..], &["r a", "🙂"], &["an é b", "本"], &["\n\n", "a\n"], &["bee b", "bee a"]]
                {
                    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
                    let stops = StopTexts::new(speech.clone(), &texts);
                    let mut telling = Telling::new(speech.clone(), stops.clone());
                    let mut told = String::new();
                    let ends = |count: &usize| stops.ends(&ids[..*count]);
                    let end = (1..=ids.len()).find(ends);
                    for id in &ids[..end.unwrap_or(ids.len())] {
                        told += &telling.add(std::slice::from_ref(id));
                    }
                    told += &telling.finish();
                    let whole = speech.text(&ids);
                    let first = texts.iter().filter_map(|stop| whole.find(stop.as_str())).min();
                    assert_eq!(told, whole[..first.unwrap_or(whole.len())], "{name} {seed} {texts:?}");
                    assert_eq!(end.is_some(), first.is_some(), "{name} {seed} {texts:?}");
                    assert_eq!(stops.cut(speech.text(&ids[..end.unwrap_or(ids.len())])), told);
                    *(if end.is_some() { &mut stopped } else { &mut ran }) += 1;
                }
            }
        }
        assert!(stopped > 500 && ran > 500, "{stopped} {ran}");
    }

    #[test]
    fn what_may_become_a_stop_waits() {
        let (_, tokenizer) = tokenizers().remove(2);
        let speech = Speech::of_texts(tokenizer);
        let stops = StopTexts::new(speech.clone(), &["abc".into(), "bd".into()]);
        let told = |text: &str| {
            let mut telling = Telling::new(speech.clone(), stops.clone());
            let mut told: Vec<String> =
                text.chars().map(|c| telling.add(&speech.tokens(&c.to_string()).unwrap())).collect();
            told.push(telling.finish());
            told
        };
        assert_eq!(told("xabx"), ["x", "", "", "abx", ""]);
        assert_eq!(told("aabd"), ["", "a", "", "a", ""]);
        assert_eq!(told("ab"), ["", "", "ab"]);
        assert_eq!(told("éab"), ["é", "", "", "ab"]);
    }

    #[test]
    fn lines_end_where_the_end_symbol_stands() {
        for (name, tokenizer) in tokenizers() {
            let speech = Speech::new(Arc::clone(&tokenizer), true);
            for text in ["a bee\n\nnear", "a\nbee\n", "\n", "bee", ""] {
                let ids = speech.tokens(text).unwrap();
                assert_eq!(ids.iter().filter(|&&id| id == END).count(), text.matches('\n').count(), "{name}");
                assert_eq!(speech.text(&ids), text, "{name}");
                assert_eq!(speech.tokens(&text.replace('\n', "\r\n")).unwrap(), ids, "{name}");
            }
            assert_eq!(Speech::of_texts(tokenizer).text(&[END]), "", "{name}");
        }
    }
}
