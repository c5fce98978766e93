//! The rules of Moses' `detokenizer.perl` (Koehn et al. 2007), as the Python package sacremoses has them.
//!
//! Every token says whether a space stands before it and whether one may stand after it: an opening bracket takes none
//! after itself, a full stop none before, quotation marks open and close in turn. Language by language come contractions.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sacrebleu::words;

/// Moses' detokenizer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MosesSettings {
    /// The language of the answers, for its contractions and punctuation.
    #[serde(default)]
    pub language: MosesLanguage,
}

/// A language whose rules are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MosesLanguage {
    /// English: `it 's`, `the kings ' wine`.
    #[default]
    En,
    /// German, and every language with neither contractions nor spaces before punctuation.
    De,
    /// French: `l' an`, and a space before `? ! : ; %`.
    Fr,
    /// Italian: `dell' arte`.
    It,
}

impl MosesLanguage {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::De => "de",
            Self::Fr => "fr",
            Self::It => "it",
        }
    }

    fn elides(self) -> bool {
        matches!(self, Self::Fr | Self::It)
    }
}

/// What the tokenizer writes for marks that mean something to Moses; in the order in which they are undone.
const ESCAPES: [(&str, &str); 11] = [
    ("&bar;", "|"),
    ("&#124;", "|"),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&bra;", "["),
    ("&ket;", "]"),
    ("&quot;", "\""),
    ("&apos;", "'"),
    ("&#91;", "["),
    ("&#93;", "]"),
    ("&amp;", "&"),
];

/// What a token may look like.
struct Shapes {
    opening: Regex,
    closing: Regex,
    spaced_in_french: Regex,
    contraction: Regex,
    elision: Regex,
    quote: Regex,
    double_quote: Regex,
    spaces: Regex,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    let shape = |pattern: &str| Regex::new(pattern).expect("a fixed pattern");
    Shapes {
        opening: shape(r"^[\p{Sc}(\[{¿¡]+$"),
        closing: shape(r"^[,.?!:;\\%}\])]+$"),
        spaced_in_french: shape(r"^[?!:;\\%]$"),
        contraction: shape(r"^'\p{Alphabetic}"),
        elision: shape(r"\p{Alphabetic}'$"),
        quote: shape(r#"^['"„“`]+$"#),
        double_quote: shape("^[„“”]+$"),
        spaces: shape(" {2,}"),
    }
});

/// What a token attaches itself to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Attachment {
    Nothing,
    Before,
    After,
    /// As `Before`, but with a space of its own.
    BeforeSpaced,
}

/// Running text of tokens between white space.
pub(super) fn detokenize(tokens: &str, language: MosesLanguage) -> String {
    let joined = format!(" {} ", words(tokens).collect::<Vec<_>>().join(" ")).replace(" @-@ ", "-");
    let plain = ESCAPES.iter().fold(joined, |text, (escape, mark)| text.replace(escape, mark));
    let tokens: Vec<&str> = words(&plain).collect();
    let mut quotes = Quotes::default();
    let mut text = String::new();
    let mut space = " ";
    for i in 0..tokens.len() {
        let attachment = attach(&tokens, i, language, &mut quotes);
        text += match attachment {
            Attachment::Nothing | Attachment::After => space,
            Attachment::Before => "",
            Attachment::BeforeSpaced => " ",
        };
        text += tokens[i];
        space = if attachment == Attachment::After { "" } else { " " };
    }
    SHAPES.spaces.replace_all(&text, " ").trim().to_string()
}

fn attach(tokens: &[&str], i: usize, language: MosesLanguage, quotes: &mut Quotes) -> Attachment {
    let token = tokens[i];
    let is = |shape: &Regex| shape.is_match(token);
    let next_is_word = || tokens.get(i + 1).is_some_and(|next| next.starts_with(char::is_alphabetic));
    if is(&SHAPES.opening) {
        Attachment::After
    } else if is(&SHAPES.closing) {
        let spaced = language == MosesLanguage::Fr && is(&SHAPES.spaced_in_french);
        if spaced { Attachment::BeforeSpaced } else { Attachment::Before }
    } else if language == MosesLanguage::En && i > 0 && is(&SHAPES.contraction) {
        Attachment::Before
    } else if language.elides() && is(&SHAPES.elision) && next_is_word() {
        Attachment::After
    } else if is(&SHAPES.quote) {
        let of_genitive = language == MosesLanguage::En && token == "'" && i > 0 && tokens[i - 1].ends_with('s');
        quotes.turn(token, of_genitive)
    } else {
        Attachment::Nothing
    }
}

/// Which quotation marks are open.
#[derive(Default)]
struct Quotes(BTreeMap<String, bool>);

impl Quotes {
    /// Opens or closes a mark. One that would open is no quotation mark at all behind a genitive.
    fn turn(&mut self, token: &str, of_genitive: bool) -> Attachment {
        let name = if SHAPES.double_quote.is_match(token) { "\"" } else { token };
        let open = self.0.entry(name.into()).or_default();
        if !*open && of_genitive {
            return Attachment::Before;
        }
        *open = !*open;
        if *open { Attachment::After } else { Attachment::Before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_by_example() {
        let check = |language, tokens, expected: &str| assert_eq!(detokenize(tokens, language), expected, "{tokens}");
        use MosesLanguage::{De, En, Fr, It};
        check(En, "two well @-@ known men &apos;s \" hats \" ( $ 5 ) .", "two well-known men's \"hats\" ($5).");
        check(En, "the kings &apos; wine &amp; bread", "the kings' wine & bread");
        check(De, "er sagt : „ ja , gut ! “ und geht", "er sagt: „ja, gut!“ und geht");
        check(Fr, "l&apos; an d&apos; or : 5 % ?", "l'an d'or : 5 % ?");
        check(It, "dell&apos; arte : sì", "dell'arte: sì");
    }
}
