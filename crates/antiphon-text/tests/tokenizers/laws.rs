//! Round trips, fixed ids, saving, normalisation.

use antiphon_core::{Special, TokenId, Tokenizer};
use antiphon_text::{BpeConfig, ByteConfig, CharacterConfig, Normalization, TokenizerConfig, WordConfig, from_json};
use proptest::prelude::*;

use super::{every_kind, made_up_lines, train};

const LINES: [&str; 4] =
    ["the cat sat on the mat", "the other cat sat near the hat", "<s> and </s> are words, <pad> too", "cats ## hats"];

fn kind(config: &TokenizerConfig) -> String {
    serde_json::to_value(config).unwrap()["kind"].as_str().unwrap().to_string()
}

/// `decode ∘ encode`.
fn round_trip(tokenizer: &dyn Tokenizer, text: &str) -> String {
    tokenizer.decode(&tokenizer.encode(text).unwrap())
}

#[test]
fn specials_have_the_first_four_ids_in_every_kind() {
    for config in every_kind(60, &[]) {
        let tokenizer = train(&config, &LINES).unwrap();
        for special in Special::ALL {
            assert_eq!(tokenizer.token(special.id()).unwrap(), special.text(), "{}", kind(&config));
        }
        assert!(tokenizer.token(tokenizer.size() as u32 - 1).is_some());
        assert_eq!(tokenizer.token(tokenizer.size() as u32), None);
        let spoken = [Special::Pad.id(), Special::Begin.id(), Special::End.id(), tokenizer.size() as u32];
        assert_eq!(tokenizer.decode(&spoken), "", "{}", kind(&config));
        assert_eq!(tokenizer.decode(&[Special::Unknown.id()]), "<unk>", "{}", kind(&config));
    }
}

#[test]
fn text_that_looks_like_a_special_symbol_is_text() {
    for config in every_kind(60, &[]) {
        let tokenizer = train(&config, &LINES).unwrap();
        let ids = tokenizer.encode("<s> </s> <pad> ##").unwrap();
        assert!(ids.iter().all(|&id| id >= Special::COUNT as u32), "{}: {ids:?}", kind(&config));
        assert_eq!(tokenizer.decode(&ids), "<s> </s> <pad> ##", "{}", kind(&config));
    }
}

#[test]
fn nothing_is_added_around_a_text() {
    for config in every_kind(60, &[]) {
        assert_eq!(train(&config, &LINES).unwrap().encode("").unwrap(), [0_u32; 0], "{}", kind(&config));
    }
}

#[test]
fn what_was_never_seen_is_unknown_and_its_neighbours_stay() {
    for (config, expected) in every_kind(60, &[]).iter().zip([
        "the <unk> sat",   // word
        "the c<unk>t sat", // character
        "the cщt sat",     // byte
        "the c<unk>t sat", // bpe
        "the cщt sat",     // bpe over bytes
        "the <unk> sat",   // word_piece
        "the c<unk>t sat", // unigram
    ]) {
        assert_eq!(round_trip(&*train(config, &LINES).unwrap(), "the cщt sat"), expected, "{}", kind(config));
    }
    // A word's end survives an unknown character at the end.
    for config in every_kind(60, &[]) {
        let text = round_trip(&*train(&config, &LINES).unwrap(), "catщ sat");
        assert_eq!(text.split(' ').count(), 2, "{}: {text}", kind(&config));
    }
}

#[test]
fn what_is_unknown_comes_back_where_its_words_are_slots() {
    let normalization = [Normalization::Lowercase, Normalization::Punctuation];
    for (separator, sentences, learned, text, back) in [
        (None, false, "the cat", "The Dog,  the cat! <user> dog", "the dog , the cat ! <user> dog"),
        (None, true, "a b", "A x.\n\nb y", "a x .\n\nb y"),
        (Some(";"), false, "N;SG", "n; two words ;sg;", "n;two words;sg"),
        (None, false, "a", "", ""),
    ] {
        let config = WordConfig {
            separator: separator.map(str::to_owned),
            sentences,
            normalization: normalization[..if separator.is_some() { 1 } else { 2 }].to_vec(),
            ..WordConfig::default()
        };
        let tokenizer = train(&TokenizerConfig::Word(config), &[learned]).unwrap();
        let (ids, words) = (tokenizer.encode(text).unwrap(), tokenizer.words(text).unwrap());
        assert_eq!(ids.len(), words.len(), "{text}");
        let mut slots: Vec<String> = Vec::new();
        let mut slot = |word: String| {
            let place = slots.iter().position(|slot| *slot == word).unwrap_or_else(|| {
                slots.push(word);
                slots.len() - 1
            });
            (tokenizer.size() + place) as TokenId
        };
        let say = |(id, word): (TokenId, Option<String>)| match (id, word) {
            (1, Some(word)) => slot(word),
            (id, Some(word)) => {
                assert_eq!(tokenizer.token(id).unwrap(), word);
                id
            }
            (id, None) => id,
        };
        let ids: Vec<TokenId> = ids.into_iter().zip(words).map(say).collect();
        assert_eq!(tokenizer.decode_slots(&ids, &slots), back, "{text}");
        assert!(!back.contains("dog") || slots.contains(&"dog".to_owned()));
    }
    for config in every_kind(60, &[]).iter().filter(|config| kind(config) != "word") {
        let tokenizer = train(config, &["the cat"]).unwrap();
        assert!(tokenizer.words("the cat").is_none(), "{}", kind(config));
    }
}

#[test]
fn words_stand_between_separators_of_ones_choice() {
    let config = |separator: &str| {
        TokenizerConfig::Word(WordConfig { separator: Some(separator.into()), ..WordConfig::default() })
    };
    for (separator, lines, text, words) in [
        (";", ["V;PST;3;SG", "N;ACC"], "N;PST;SG", &["N", "PST", "SG"][..]),
        (";", ["new york;rome", "a;"], " rome ; ;new york;", &["rome", "new york"]),
        (" | ", ["a b | c", "c"], "c | a b", &["c", "a b"]),
    ] {
        let tokenizer = train(&config(separator), &lines).unwrap();
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect::<Vec<_>>(), words, "{text}");
        assert_eq!(tokenizer.decode(&ids), words.join(separator));
        assert_eq!(from_json(&tokenizer.to_json()).unwrap().encode(text).unwrap(), ids);
    }
    // What was saved before there was a separator.
    let json = r#"{"word":{"normalization":[],"tokens":["a","b"]}}"#;
    assert_eq!(from_json(json).unwrap().to_json(), json);
    assert_eq!(config("").problems().len(), 1);
}

proptest! {
    /// Sentences are those of the lines alone, each closed; what is written again has the same ones.
    #[test]
    fn parts_of_compound_words_are_joined_again(
        words in prop::collection::vec("[ab]{1,2}(_{1,2}[ab]{0,2}){0,3}", 1..6), learned in prop::collection::vec("[ab]{1,2}(_[ab]){0,2}", 1..4),
    ) {
        let config = TokenizerConfig::Word(WordConfig { compound: Some("_".into()), ..WordConfig::default() });
        let tokenizer = train(&config, &learned.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        let text = words.join(" ");
        let parts: Vec<String> = tokenizer.words(&text).unwrap().into_iter().flatten().collect();
        prop_assert_eq!(parts.concat(), words.concat());
        prop_assert!(parts.iter().all(|part| !part[1..].contains('_')));
        // Those that it has not learned are slots, in the order of the text.
        let (ids, size) = (tokenizer.encode(&text).unwrap(), tokenizer.size() as TokenId);
        let ids: Vec<TokenId> = (0..).zip(ids).map(|(i, id)| if id == Special::Unknown.id() { size + i } else { id }).collect();
        prop_assert_eq!(&tokenizer.decode_slots(&ids, &parts), &text);
        let saved = from_json(&tokenizer.to_json()).unwrap();
        prop_assert_eq!(saved.words(&text), tokenizer.words(&text));
    }

    #[test]
    fn lines_are_sentences_that_the_end_symbol_closes(
        lines in prop::collection::vec("[ab;c \t]{0,6}", 1..6), by_separator in any::<bool>(), closed in any::<bool>(),
    ) {
        let plain = WordConfig { separator: by_separator.then(|| ";".into()), ..WordConfig::default() };
        let text = lines.join("\n");
        let seen = ["a;b c\nd", text.as_str()];
        let of = |sentences| train(&TokenizerConfig::Word(WordConfig { sentences, ..plain.clone() }), &seen).unwrap();
        let tokenizer = of(true);
        let ids = tokenizer.encode(&text).unwrap();
        let end = Special::End.id();
        let alone: Vec<Vec<u32>> = lines.iter().map(|line| tokenizer.encode(line).unwrap()).collect();
        prop_assert!(alone.iter().flatten().all(|&id| id >= Special::COUNT as u32));
        prop_assert_eq!(ids.split(|&id| id == end).collect::<Vec<_>>(), alone);
        // With the end symbol that a batch gives the last one, and without.
        let mut batched = ids.clone();
        batched.extend(closed.then_some(end));
        let written = tokenizer.decode(&batched);
        prop_assert_eq!(written.split('\n').count(), if closed { lines.len() } else { lines.len() - usize::from(ids.ends_with(&[end])) });
        if closed {
            prop_assert_eq!(tokenizer.encode(&written).unwrap(), ids.clone());
        }
        prop_assert_eq!(from_json(&tokenizer.to_json()).unwrap().encode(&text).unwrap(), ids);
        prop_assert!(of(false).encode(&text).unwrap().iter().all(|&id| id != end));
    }
}

#[test]
fn saved_and_read_again_it_is_the_same_tokenizer() {
    let lines = made_up_lines(300);
    for config in every_kind(200, &[Normalization::Nfkc, Normalization::Lowercase]) {
        let tokenizer = train(&config, &lines).unwrap();
        let json = tokenizer.to_json();
        let again = from_json(&json).unwrap();
        assert_eq!(again.to_json(), json, "{}", kind(&config));
        assert_eq!(again.size(), tokenizer.size());
        for line in made_up_lines(400).iter().chain(&["Ünsēen ①".to_string()]) {
            assert_eq!(again.encode(line).unwrap(), tokenizer.encode(line).unwrap(), "{}", kind(&config));
        }
        let sorted: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
        let body: std::collections::BTreeMap<String, serde_json::Value> =
            serde_json::from_value(sorted[&kind(&config)].clone()).unwrap();
        let canonical = format!("{{\"{}\":{}}}", kind(&config), serde_json::to_string(&body).unwrap());
        assert_eq!(canonical, json, "keys are sorted");
    }
}

#[test]
fn every_text_is_normalised_in_training_and_in_encoding() {
    for config in every_kind(60, &[Normalization::Nfc, Normalization::Lowercase]) {
        let tokenizer = train(&config, &["CAFE\u{301} café cafe"]).unwrap();
        assert_eq!(round_trip(&*tokenizer, "Cafe\u{301} CAFÉ"), "café café", "{}", kind(&config));
    }
}

#[test]
fn a_subword_tokenizer_fills_its_size_and_shortens_the_text() {
    let lines = made_up_lines(2000);
    for config in every_kind(700, &[]).iter().skip(3) {
        let tokenizer = train(config, &lines).unwrap();
        let room = if tokenizer.size() > 700 { 956 } else { 700 };
        assert_eq!(tokenizer.size(), room, "{}", kind(config));
        let count = |text: &str| tokenizer.encode(text).unwrap().len();
        let (ids, characters): (usize, usize) =
            (lines.iter().map(|line| count(line)).sum(), lines.iter().map(|line| line.chars().count()).sum());
        assert!(ids * 5 < characters * 2, "{}: {ids} ids for {characters} characters", kind(config));
    }
}

#[test]
fn frequencies_and_sizes_bound_the_vocabulary() {
    let words = |min_frequency, max_size| {
        let config = WordConfig { min_frequency, max_size, ..WordConfig::default() };
        train(&TokenizerConfig::Word(config), &["c b b a a a"]).unwrap().size()
    };
    assert_eq!([words(1, None), words(2, None), words(1, Some(5))], [7, 6, 5]);
    let characters = CharacterConfig { max_size: Some(6), ..CharacterConfig::default() };
    let tokenizer = train(&TokenizerConfig::Character(characters), &["cbbaaa"]).unwrap();
    assert_eq!(round_trip(&*tokenizer, "abc"), "ab<unk>");
}

fn exact_kinds() -> Vec<TokenizerConfig> {
    vec![
        TokenizerConfig::Byte(ByteConfig::default()),
        TokenizerConfig::Bpe(BpeConfig { size: 300, byte_level: true, ..BpeConfig::default() }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn bytes_come_back_exactly_whatever_the_text(text in any::<String>(), seen in "[a-d '\t]{0,20}") {
        for config in exact_kinds() {
            let tokenizer = train(&config, &[seen.as_str(), LINES[0]]).unwrap();
            prop_assert_eq!(round_trip(&*tokenizer, &text), text.as_str());
            let mixed = format!("{seen}{text} '{seen}\n");
            prop_assert_eq!(round_trip(&*tokenizer, &mixed), mixed.as_str());
        }
    }

    #[test]
    fn known_characters_come_back_exactly(text in any::<String>()) {
        let tokenizer = train(&TokenizerConfig::Character(CharacterConfig::default()), &[text.as_str(), "a"]).unwrap();
        prop_assert_eq!(round_trip(&*tokenizer, &text), text.as_str());
    }

    #[test]
    fn words_of_known_characters_come_back_with_one_space_between(
        words in prop::collection::vec("[abc#<>/s\u{e9}]{1,8}", 1..8),
        more in prop::collection::vec("[abc#<>/s\u{e9}]{1,8}", 1..8),
    ) {
        // Every character begins a word and stands inside one, so that all kinds of pieces know it.
        let seen = format!("aabc#<>/s\u{e9} bb cc ## << >> // ss \u{e9}\u{e9} {}", words.join(" "));
        for config in every_kind(60, &[]).iter().skip(3).filter(|config| kind(config) != "word") {
            let tokenizer = train(config, &[seen.as_str()]).unwrap();
            let text = more.join(" ");
            prop_assert_eq!(round_trip(&*tokenizer, &text), text.as_str(), "{}", kind(config));
            prop_assert!(tokenizer.encode(&text).unwrap().iter().all(|&id| id >= 4));
        }
        let tokenizer = train(&TokenizerConfig::Word(WordConfig::default()), &words).unwrap();
        prop_assert_eq!(round_trip(&*tokenizer, &format!("\t{}\n", words.join("  "))), words.join(" "));
    }

    #[test]
    fn whatever_a_model_says_can_be_decoded(ids in prop::collection::vec(0_u32..400, 0..20)) {
        for config in every_kind(60, &[]) {
            let tokenizer = train(&config, &LINES).unwrap();
            let text = tokenizer.decode(&ids);
            prop_assert!(!ids.is_empty() || text.is_empty());
            let known = ids.iter().copied().filter(|&id| id == 1 || (4..tokenizer.size() as u32).contains(&id));
            prop_assert_eq!(tokenizer.decode(&known.collect::<Vec<_>>()), text, "{}", kind(&config));
        }
    }
}

#[test]
fn a_line_of_a_megabyte_is_no_trap() {
    let endless = "abcab".repeat(200_000);
    for config in every_kind(60, &[]) {
        let tokenizer = train(&config, &LINES).unwrap();
        assert!(!tokenizer.encode(&endless).unwrap().is_empty(), "{}", kind(&config));
    }
}
