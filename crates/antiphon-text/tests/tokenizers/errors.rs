//! What a user can do wrong, and what is answered.

use antiphon_core::Error;
use antiphon_text::{BpeConfig, TokenizerConfig, UnigramConfig, WordConfig, from_json};

use super::{every_kind, train};

fn error(config: &TokenizerConfig, lines: &[&str]) -> String {
    train(config, lines).err().expect("this cannot be trained").to_string()
}

#[test]
fn an_empty_corpus() {
    for config in every_kind(300, &[]).iter().filter(|config| config.needs_texts()) {
        for lines in [&[][..], &[""]] {
            assert!(error(config, lines).contains("the corpus is empty"), "{config:?}");
        }
    }
    assert_eq!(every_kind(300, &[]).iter().filter(|config| !config.needs_texts()).count(), 1);
}

#[test]
fn a_size_below_the_alphabet() {
    for config in every_kind(8, &[]).iter().filter(|config| {
        matches!(config, TokenizerConfig::WordPiece(_) | TokenizerConfig::Unigram(_) | TokenizerConfig::Bpe(_))
    }) {
        if matches!(config, TokenizerConfig::Bpe(BpeConfig { byte_level: true, .. })) {
            continue; // its least size does not depend on the corpus
        }
        let message = error(config, &["abcdefgh"]);
        assert!(message.contains("`size` is 8, but 4 special symbols and") && message.contains("raise"), "{message}");
    }
    let unigram = TokenizerConfig::Unigram(UnigramConfig { size: 12, ..UnigramConfig::default() });
    assert!(error(&unigram, &["abcdefgh"]).contains("at least 13"));
    let unigram = TokenizerConfig::Unigram(UnigramConfig { size: 13, ..UnigramConfig::default() });
    assert_eq!(train(&unigram, &["abcdefgh"]).unwrap().size(), 13);
}

#[test]
fn settings_out_of_range_are_all_named() {
    let config =
        TokenizerConfig::Bpe(BpeConfig { size: 200, min_frequency: 0, byte_level: true, ..BpeConfig::default() });
    let problems: Vec<String> = config.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "size: must be at least 260, got 200 (all bytes and the special symbols, since `byte_level` is true)",
            "min_frequency: must be at least 1, got 0",
        ]
    );
    assert!(error(&config, &["a"]).starts_with("size: "));
    let words = TokenizerConfig::Word(WordConfig { min_frequency: 3, ..WordConfig::default() });
    assert!(words.problems().is_empty());
    assert!(error(&words, &["a a b"]).contains("lower `min_frequency`"));
}

#[test]
fn a_line_that_cannot_be_read() {
    let broken = || {
        [Ok("a b".to_string()), Err(Error::new("is not UTF-8").in_file("a.txt").at(antiphon_core::Place::line(2)))]
            .into_iter()
    };
    for config in every_kind(300, &[]).iter().filter(|config| config.needs_texts()) {
        assert_eq!(config.train(&mut broken()).err().unwrap().to_string(), "a.txt: line 2: is not UTF-8");
    }
}

#[test]
fn a_saved_tokenizer_that_is_none() {
    for json in [
        "",
        "{}",
        r#"{"sentencepiece":{}}"#,
        r#"{"word":{"normalization":[],"tokens":["a"],"more":1}}"#,
        r#"{"word":{"normalization":[],"tokens":["a","a"]}}"#,
        r#"{"word":{"normalization":[],"tokens":[]}}"#,
        r#"{"character":{"normalization":["upper"],"tokens":["a"]}}"#,
        r#"{"bpe":{"alphabet":["a"],"byte_level":false,"merges":[["a","b"]],"normalization":[]}}"#,
        r#"{"word_piece":{"beginning":["a",""],"inside":[],"normalization":[]}}"#,
        r#"{"unigram":{"normalization":[],"pieces":[]}}"#,
    ] {
        let message = from_json(json).err().unwrap_or_else(|| panic!("{json} is no tokenizer")).to_string();
        assert!(message.contains("train"), "{message}");
    }
}

#[test]
fn unknown_settings_are_refused_and_defaults_are_filled_in() {
    let read = serde_json::from_str::<TokenizerConfig>;
    assert_eq!(read(r#"{"kind":"bpe","size":8000}"#).unwrap(), TokenizerConfig::Bpe(BpeConfig::default()));
    for json in [
        r#"{"kind":"bpe","sise":5}"#,
        r#"{"kind":"byte","size":5}"#,
        r#"{"kind":"sentence_piece"}"#,
        r#"{"kind":"file"}"#,
        r#"{"kind":"word","normalization":["upper"]}"#,
    ] {
        assert!(read(json).is_err(), "{json}");
    }
}

#[test]
fn the_schema_knows_the_ranges() {
    let schema = serde_json::to_value(schemars::schema_for!(TokenizerConfig)).unwrap();
    for (part, key, limit, value) in [
        ("word", "max_size", "minimum", 5),
        ("bpe", "min_frequency", "minimum", 1),
        ("unigram", "max_piece_length", "maximum", 64),
    ] {
        let kinds = schema["oneOf"].as_array().unwrap();
        let kind = kinds.iter().find(|kind| kind["properties"]["kind"]["const"] == part).unwrap();
        assert_eq!(kind["properties"][key][limit], value, "{part}.{key}");
    }
}
