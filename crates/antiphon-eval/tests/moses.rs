//! Running text of Moses' tokens equals sacremoses'.
//!
//! `moses.json` holds invented tokens and what `MosesDetokenizer(lang=…).detokenize(tokens.split())` of sacremoses (Python)
//! makes of them. Its recipe, with `random.Random(2007)`: 150 sentences of 1 to 14 tokens, drawn from 40 words of one to
//! three of 14 syllables (55 %), from punctuation, quotation marks, brackets, currency signs, hyphens and escapes (30 %),
//! and from contractions and numbers (15 %); and what `MosesTokenizer` makes of five sentences with the rules of each
//! language, with and without hyphens split.

use antiphon_eval::detokenize::Detokenization;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    tokens: String,
    en: String,
    de: String,
    fr: String,
    it: String,
}

#[test]
fn running_text_is_that_of_sacremoses() {
    let golden: Golden = serde_json::from_str(include_str!("moses.json")).unwrap();
    assert_eq!(golden.cases.len(), 173);
    for case in &golden.cases {
        for (language, expected) in [("en", &case.en), ("de", &case.de), ("fr", &case.fr), ("it", &case.it)] {
            let setting = serde_json::json!({ "kind": "moses", "language": language });
            let setting: Detokenization = serde_json::from_value(setting).unwrap();
            assert_eq!(&setting.detokenize(&case.tokens), expected, "{language}: {}", case.tokens);
        }
    }
}
