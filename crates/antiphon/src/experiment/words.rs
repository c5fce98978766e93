//! When the words of an answer to a recording are said, and how sure that is: the answer's tokens are aligned with the steps of the
//! encoder's memory by its CTC ([`align`]).

use std::ops::Range;

use antiphon_core::{CtcOutput, TokenId, Tokenizer};
use antiphon_decode::{Aligned, align};
use antiphon_lab::Said;
use serde::{Deserialize, Serialize};

use super::ExperimentConfig;

/// A word of an answer: what stands between white space.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The word.
    pub word: String,
    /// Where the first step begins that says its first token, in seconds from the beginning of the recording.
    pub start: f64,
    /// Where the last step ends that says its last token.
    pub end: f64,
    /// How probable the encoder's CTC finds it: the geometric mean over its tokens, each of which has the mean of its probability on
    /// the steps that say it.
    pub confidence: f64,
}

impl Word {
    /// The same in a recording that begins so many seconds earlier.
    pub(crate) fn later(&mut self, seconds: f64) {
        self.start = to_millisecond(self.start + seconds);
        self.end = to_millisecond(self.end + seconds);
    }
}

impl From<Word> for Said {
    fn from(Word { word: text, start, end, confidence: probability }: Word) -> Self {
        Self { text, start, end, probability }
    }
}

/// How the steps of a memory lie in a recording.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// How many frames become a step.
    reduction: usize,
    /// How many seconds a frame begins behind the one before.
    hop: f64,
}

impl Clock {
    /// That of a model that can tell times: it hears recordings, and its encoder has CTC.
    pub(crate) fn of(config: &ExperimentConfig) -> Option<Self> {
        let is_spoken = config.data.as_manifest().is_some() && config.model.says_by_steps();
        let features = config.features.as_ref().filter(|_| is_spoken)?;
        Some(Self { reduction: config.reductions()[0], hop: features.hop_seconds() })
    }
}

/// A recording as its memory says it by itself.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) clock: Clock,
    pub(super) said: CtcOutput,
    /// How many frames it has.
    pub(super) frames: usize,
}

impl Timeline {
    /// The words of an answer, which says `text`; none if its tokens cannot be [aligned](align).
    pub(super) fn words(&self, tokenizer: &dyn Tokenizer, tokens: &[TokenId], text: &str) -> Vec<Word> {
        let Some(aligned) = align(&self.said, tokens) else { return Vec::new() };
        let word = |(word, tokens): (&str, Range<usize>)| {
            let said = &aligned[tokens];
            let (first, last) = (said.first()?, said.last()?);
            let nats: f64 = said.iter().map(|Aligned { probability, .. }| probability.ln()).sum();
            Some(Word {
                word: word.to_owned(),
                start: self.seconds(first.steps.start),
                end: self.seconds(last.steps.end),
                confidence: ((nats / said.len() as f64).exp() * 1e4).round() / 1e4,
            })
        };
        spoken(tokenizer, tokens, text).into_iter().filter_map(word).collect()
    }

    /// The tokens of an answer; none if they cannot be aligned.
    pub(super) fn tokens(&self, tokenizer: &dyn Tokenizer, tokens: &[TokenId]) -> Vec<Said> {
        let said = |(Aligned { steps, probability }, &token): (Aligned, &TokenId)| Said {
            text: tokenizer.token(token).unwrap_or_default(),
            start: self.seconds(steps.start),
            end: self.seconds(steps.end),
            probability,
        };
        align(&self.said, tokens).unwrap_or_default().into_iter().zip(tokens).map(said).collect()
    }

    /// Where a step begins, in seconds.
    fn seconds(&self, step: usize) -> f64 {
        let Clock { reduction, hop } = self.clock;
        to_millisecond((step * reduction).min(self.frames) as f64 * hop)
    }
}

/// Seconds as they are told.
pub(crate) fn to_millisecond(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// The words of a text, which some tokens say, each with those that say it.
fn spoken<'t>(tokenizer: &dyn Tokenizer, tokens: &[TokenId], text: &'t str) -> Vec<(&'t str, Range<usize>)> {
    // How many bytes of the text the first so many tokens say.
    let mut said = vec![0];
    for count in 1..=tokens.len() {
        let beginning = tokenizer.decode(&tokens[..count]);
        let same = beginning.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
        said.push(same.max(said[count - 1]));
    }
    let mut end = 0;
    let word = |word: &'t str| {
        let begin = end + text[end..].find(word).expect("words come in their order");
        end = begin + word.len();
        // A token that says nothing yet is a part of the character that comes.
        let first = said.windows(2).position(|pair| pair[0] >= begin || pair[1] > begin)?;
        let last = said[1..].iter().position(|&said| said >= end)?;
        Some((word, first..last + 1))
    };
    text.split_whitespace().filter_map(word).collect()
}

#[cfg(test)]
mod tests {
    use antiphon_core::Special;

    use super::super::speech::tests::tokenizers;
    use super::*;

    #[test]
    fn a_word_is_what_its_tokens_say() {
        let text = "a bee was  near é 日本 an 🙂ant b";
        for (name, tokenizer) in tokenizers() {
            let tokens = tokenizer.encode(text).unwrap();
            let text = tokenizer.decode(&tokens);
            let found = spoken(tokenizer.as_ref(), &tokens, &text);
            assert!(found.iter().map(|(word, _)| *word).eq(text.split_whitespace()), "{name}: {found:?}");
            for (word, of) in &found {
                assert_eq!(tokenizer.decode(&tokens[of.clone()]).trim(), *word, "{name}");
            }
            assert!(found.windows(2).all(|pair| pair[0].1.end <= pair[1].1.start), "{name}: {found:?}");
        }
    }

    /// Text that a search has cut off, characters that are not whole, and what is never written.
    #[test]
    fn odd_tokens_do_no_harm() {
        for (name, tokenizer) in tokenizers() {
            let mut tokens = tokenizer.encode("é 日本 🙂 bee a").unwrap();
            tokens.pop();
            tokens.insert(1, Special::Unknown.id());
            tokens.insert(1, Special::End.id());
            for from in 0..3.min(tokens.len()) {
                let text = tokenizer.decode(&tokens[from..]);
                let found = spoken(tokenizer.as_ref(), &tokens[from..], &text);
                assert!(found.iter().map(|(word, _)| *word).eq(text.split_whitespace()), "{name}: {found:?}");
                let cut = text.split_whitespace().next().unwrap_or_default();
                assert_eq!(spoken(tokenizer.as_ref(), &tokens[from..], cut).len(), 1, "{name}");
            }
        }
    }

    #[test]
    fn times_are_those_of_the_frames() {
        let tokenizer = &tokenizers()[1].1;
        let tokens = tokenizer.encode("a be").unwrap();
        let vocabulary = tokenizer.size();
        // Blank, `a`, `a`, blank, space, `b`, `e`, with other probabilities for what is said.
        let path = [
            (0, 0.9),
            (tokens[0], 0.5),
            (tokens[0], 0.7),
            (0, 0.9),
            (tokens[1], 0.9),
            (tokens[2], 0.4),
            (tokens[3], 0.9),
        ];
        let step = |&(token, probability): &(TokenId, f64)| {
            let rest = (1.0 - probability) / (vocabulary - 1) as f64;
            let of = move |v| if v == token { probability } else { rest };
            (0..vocabulary as TokenId).map(move |v| of(v).ln() as f32)
        };
        let said = CtcOutput { log_probs: path.iter().flat_map(step).collect(), vocabulary, blank: 0 };
        // The last step has but one frame of four.
        let line = Timeline { clock: Clock { reduction: 4, hop: 0.01 }, said, frames: 25 };
        let word = |word: &str, start, end, confidence| Word { word: word.into(), start, end, confidence };
        let mut words = line.words(tokenizer.as_ref(), &tokens, "a be");
        assert_eq!(words, [word("a", 0.04, 0.12, 0.6), word("be", 0.2, 0.25, 0.6)]);
        words[1].later(3599.1);
        assert_eq!(words[1], word("be", 3599.3, 3599.35, 0.6));
        // Nine labels have no room in seven steps.
        assert!(line.words(tokenizer.as_ref(), &[tokens[0]; 9], "aaaaaaaaa").is_empty());
    }
}
