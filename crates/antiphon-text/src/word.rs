//! Words: what stands between white space, or between separators of one's choice.

use antiphon_core::{Problem, Result, Special, TokenId, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Normalization;
use crate::canonical::to_json;
use crate::corpus::{Texts, count, most_frequent};
use crate::least::at_least;
use crate::normalization::normalize;
use crate::vocabulary::Vocabulary;

/// Settings of a word tokenizer. Decoding joins the words with one space, or with the separator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WordConfig {
    /// What stands between words, as `;` in `V;PST;3;SG`. White space around a word is then no part of it, within it is. If unset,
    /// white space parts words.
    #[schemars(length(min = 1))]
    pub separator: Option<String>,
    /// What joins the parts of compound words, as `_` in `resto_rome_cheap`: each part from the second on, with what joins it before it,
    /// is a token of its own (`resto`, `_rome`, `_cheap`), and decoding joins them again; a word that begins with it is then written
    /// behind the word before it. If unset, words stay whole.
    #[schemars(length(min = 1))]
    pub compound: Option<String>,
    /// Whether each line of a text is a sentence. All but the last are then closed by the end symbol, so that a model can tell where
    /// one ends, and decoding writes lines again. For sources: a target ends with its first sentence.
    pub sentences: bool,
    /// Words that occur less often in the corpus are unknown.
    #[schemars(range(min = 1))]
    pub min_frequency: u64,
    /// The most frequent words that fit into this many ids are kept, the four special symbols included; all if unset.
    #[schemars(range(min = 5))]
    pub max_size: Option<usize>,
    /// Changes made to every text first, in this order.
    pub normalization: Vec<Normalization>,
}

impl Default for WordConfig {
    fn default() -> Self {
        Self {
            separator: None,
            compound: None,
            sentences: false,
            min_frequency: 1,
            max_size: None,
            normalization: Vec::new(),
        }
    }
}

impl WordConfig {
    pub(crate) fn train(&self, texts: &mut Texts<'_>) -> Result<WordTokenizer> {
        let (separator, compound, sentences) = (self.separator.clone(), self.compound.clone(), self.sentences);
        let counts = count(texts, &self.normalization, |text, found| {
            let words = |line| words(line, separator.as_deref(), compound.as_deref());
            lines(text, sentences).for_each(|line| words(line).for_each(&mut *found));
        })?;
        let tokens = most_frequent(counts, self.min_frequency, self.max_size)?;
        let normalization = self.normalization.clone();
        WordTokenizer::new(WordModel { normalization, sentences, separator, compound, tokens })
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        let named =
            [("separator", &self.separator, "stands between"), ("compound", &self.compound, "joins the parts of")];
        let empty = named.into_iter().map(|(key, text, what)| {
            let is_empty = text.as_ref().is_some_and(String::is_empty);
            let message = format!("is empty: name what {what} words, or leave it out");
            is_empty.then(|| Problem { place: key.into(), message })
        });
        empty
            .chain([at_least("min_frequency", self.min_frequency, 1)])
            .chain([self.max_size.and_then(|size| at_least("max_size", size as u64, 5))])
            .flatten()
            .collect()
    }
}

/// The lines of a text, or all of it as one.
fn lines(text: &str, sentences: bool) -> impl Iterator<Item = &str> {
    text.splitn(if sentences { usize::MAX } else { 1 }, '\n')
}

/// The words of a line, or their parts. Between two separators with nothing but white space there is none.
fn words<'t>(
    text: &'t str,
    separator: Option<&'t str>,
    compound: Option<&'t str>,
) -> Box<dyn Iterator<Item = &'t str> + 't> {
    let words: Box<dyn Iterator<Item = &'t str> + 't> = match separator {
        None => Box::new(text.split_whitespace()),
        Some(separator) => Box::new(text.split(separator).map(str::trim).filter(|word| !word.is_empty())),
    };
    match compound {
        None => words,
        Some(joint) => Box::new(words.flat_map(move |word| parts(word, joint))),
    }
}

/// The parts of a compound word, each but the first with the joint before it.
fn parts<'t>(word: &'t str, joint: &'t str) -> impl Iterator<Item = &'t str> {
    let joints = word.match_indices(joint).map(|(at, _)| at).filter(|&at| at > 0);
    let mut begin = 0;
    joints.chain([word.len()]).map(move |end| &word[std::mem::replace(&mut begin, end)..end])
}

/// All that is saved of a word tokenizer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WordModel {
    normalization: Vec<Normalization>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    sentences: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    separator: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compound: Option<String>,
    tokens: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct WordTokenizer {
    model: WordModel,
    vocabulary: Vocabulary,
}

impl WordTokenizer {
    pub(crate) fn new(model: WordModel) -> Result<Self> {
        let vocabulary = Vocabulary::new(model.tokens.clone())?;
        Ok(Self { model, vocabulary })
    }

    /// The words of some ids, special symbols left out; ids behind the vocabulary are these slots.
    fn line(&self, ids: &[TokenId], slots: &[String]) -> String {
        let word = |&id: &TokenId| match (id as usize).checked_sub(self.vocabulary.size()) {
            Some(slot) => slots.get(slot).map(String::as_str),
            None => self.vocabulary.spoken(id),
        };
        let WordModel { separator, compound, .. } = &self.model;
        let mut line = String::new();
        for word in ids.iter().filter_map(word) {
            let joins = compound.as_ref().is_some_and(|joint| word.starts_with(joint.as_str()));
            if !line.is_empty() && !joins {
                line += separator.as_deref().unwrap_or(" ");
            }
            line += word;
        }
        line
    }
}

impl Tokenizer for WordTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        let text = normalize(&self.model.normalization, text);
        let WordModel { sentences, separator, compound, .. } = &self.model;
        let mut ids = Vec::new();
        for (i, line) in lines(&text, *sentences).enumerate() {
            ids.extend((i > 0).then_some(Special::End.id()));
            ids.extend(
                words(line, separator.as_deref(), compound.as_deref()).map(|word| self.vocabulary.id_or_unknown(word)),
            );
        }
        Ok(ids)
    }

    fn decode(&self, ids: &[TokenId]) -> String {
        self.decode_slots(ids, &[])
    }

    fn words(&self, text: &str) -> Option<Vec<Option<String>>> {
        let text = normalize(&self.model.normalization, text);
        let WordModel { sentences, separator, compound, .. } = &self.model;
        let mut all = Vec::new();
        for (i, line) in lines(&text, *sentences).enumerate() {
            all.extend((i > 0).then_some(None));
            all.extend(words(line, separator.as_deref(), compound.as_deref()).map(|word| Some(word.to_owned())));
        }
        Some(all)
    }

    fn decode_slots(&self, ids: &[TokenId], slots: &[String]) -> String {
        if !self.model.sentences {
            return self.line(ids, slots);
        }
        // Whoever has built a batch has closed the last one too.
        let end = Special::End.id();
        let ids = ids.strip_suffix(&[end]).unwrap_or(ids);
        ids.split(|&id| id == end).map(|sentence| self.line(sentence, slots)).collect::<Vec<_>>().join("\n")
    }

    fn size(&self) -> usize {
        self.vocabulary.size()
    }

    fn token(&self, id: TokenId) -> Option<String> {
        self.vocabulary.token(id).map(str::to_string)
    }

    fn to_json(&self) -> String {
        to_json("word", &self.model)
    }
}
