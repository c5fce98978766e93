//! Loading a Hugging Face `tokenizer.json`.

use std::path::PathBuf;

use antiphon_core::{Result, Special, Tokenizer};
use antiphon_text::{FileConfig, Normalization, TokenizerConfig, from_json};
use serde_json::{Value, json};

use super::train;

/// Writes `content` to a file and loads it.
fn load(content: &str, normalization: Vec<Normalization>) -> Result<Box<dyn Tokenizer>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), content).unwrap();
    let config = TokenizerConfig::File(FileConfig { path: "tokenizer.json".into(), normalization });
    assert!(!config.needs_texts());
    train::<&str>(&config.resolved(|path| folder.path().join(path)), &[])
}

fn added(id: u32, content: &str, special: bool) -> Value {
    json!({ "id": id, "content": content, "special": special,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false })
}

/// A file whose parts are `model` and whatever `more` sets.
fn file(model: Value, more: Value) -> Value {
    let mut file = json!({ "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null });
    file["model"] = model;
    for (key, value) in more.as_object().unwrap() {
        file[key] = value.clone();
    }
    file
}

/// In the manner of BERT: specials first, a template, truncation to three.
fn word_piece() -> Value {
    file(
        json!({ "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": { "[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "un": 4, "##able": 5, "a": 6, "cat": 7 } }),
        json!({
            "added_tokens": [added(0, "[PAD]", true), added(1, "[UNK]", true), added(2, "[CLS]", true),
                             added(3, "[SEP]", true), added(8, "New York", false)],
            "normalizer": { "type": "Lowercase" },
            "truncation": { "max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right" },
            "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
            "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        }),
    )
}

fn bpe(merges: Value, more: Value) -> Value {
    let mut model = json!({ "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "vocab": { "<s>": 0, "</s>": 1, "a": 2, "b": 3, "c": 4, "ab": 5, "abc": 6 }, "merges": merges });
    for (key, value) in more.as_object().unwrap() {
        model[key] = value.clone();
    }
    file(model, json!({ "added_tokens": [added(0, "<s>", true), added(1, "</s>", true)] }))
}

fn unigram() -> Value {
    file(
        json!({ "type": "Unigram", "unk_id": 2, "byte_fallback": false,
                "vocab": [["<s>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁", -2.0], ["▁a", -1.123456789012345],
                          ["b", -1.5], ["a", -2.0], ["ab", -1.7]] }),
        json!({
            "added_tokens": [added(0, "<s>", true), added(1, "</s>", true), added(2, "<unk>", true)],
            "pre_tokenizer": { "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true },
            "decoder": { "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true },
        }),
    )
}

fn written(tokenizer: &dyn Tokenizer, text: &str) -> Vec<String> {
    tokenizer.encode(text).unwrap().iter().map(|&id| tokenizer.token(id).unwrap()).collect()
}

#[test]
fn ids_move_behind_ours_and_only_text_is_produced() {
    let tokenizer = load(&word_piece().to_string(), vec![]).unwrap();
    assert_eq!(tokenizer.size(), 4 + 5);
    for special in Special::ALL {
        assert_eq!(tokenizer.token(special.id()).unwrap(), special.text());
    }
    let text = "Unable cat New York dog a cat a";
    assert_eq!(written(&*tokenizer, text), ["un", "##able", "cat", "New York", "<unk>", "a", "cat", "a"]);
    assert_eq!(tokenizer.encode(text).unwrap(), [4, 5, 7, 8, 1, 6, 7, 6]);
    assert_eq!(tokenizer.decode(&[2, 4, 5, 7, 1, 8, 3, 0]), "unable cat [UNK] New York");
}

#[test]
fn its_special_tokens_in_a_text_are_not_special() {
    let own = |id: &u32| *id == Special::Unknown.id() || *id >= Special::COUNT as u32;
    for (content, text) in [
        (word_piece(), "a [CLS] cat [SEP] [PAD]"),
        (bpe(json!([["a", "b"]]), json!({})), "<s> ab </s>"),
        (unigram(), "<s> ab </s>"),
        (
            file(json!({ "type": "WordLevel", "unk_token": "?", "vocab": { "?": 9, "<s>": 3, "ab": 5 } }), json!({})),
            "<s> ab",
        ),
    ] {
        let tokenizer = load(&content.to_string(), vec![]).unwrap();
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.iter().all(own) && ids.contains(&Special::Unknown.id()), "{text}: {ids:?}");
        assert!(
            (0..tokenizer.size() as u32)
                .skip(4)
                .all(|id| !["<s>", "</s>", "[CLS]"].contains(&&*tokenizer.token(id).unwrap()))
        );
    }
}

#[test]
fn a_model_without_an_unknown_token_gets_one() {
    for merges in [json!([["a", "b"], ["ab", "c"]]), json!(["a b", "ab c"])] {
        let tokenizer = load(&bpe(merges, json!({ "dropout": 0.9 })).to_string(), vec![]).unwrap();
        for _ in 0..20 {
            assert_eq!(written(&*tokenizer, "abcx ca"), ["abc", "<unk>", "c", "a"], "dropout is off");
        }
    }
}

#[test]
fn unigram_is_loaded_with_its_scores_and_spaces() {
    let tokenizer = load(&unigram().to_string(), vec![]).unwrap();
    assert_eq!(written(&*tokenizer, "ab ax b"), ["▁a", "b", "▁a", "<unk>", "▁", "b"]);
    assert_eq!(tokenizer.decode(&tokenizer.encode("ab b").unwrap()), "ab b");
}

#[test]
fn our_normalisation_comes_first() {
    let tokenizer = load(&word_piece().to_string(), vec![Normalization::Nfkc]).unwrap();
    assert_eq!(written(&*tokenizer, "ⓒⓐⓣ"), ["cat"]);
}

#[test]
fn a_loaded_tokenizer_is_saved_whole_and_canonically() {
    for content in [word_piece(), bpe(json!([["a", "b"]]), json!({})), unigram()] {
        let tokenizer = load(&content.to_string(), vec![Normalization::Nfc]).unwrap();
        let again = from_json(&tokenizer.to_json()).unwrap();
        assert_eq!(again.to_json(), tokenizer.to_json());
        let pretty = load(&serde_json::to_string_pretty(&content).unwrap(), vec![Normalization::Nfc]).unwrap();
        assert_eq!(pretty.to_json(), tokenizer.to_json(), "white space in the file makes no difference");
        for text in ["ab ca unable", "[CLS] <s> New York"] {
            assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap());
        }
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let missing = TokenizerConfig::File(FileConfig { path: PathBuf::from("no/such.json"), normalization: vec![] });
    let message = train::<&str>(&missing, &[]).err().unwrap().to_string();
    assert!(message.starts_with("no/such.json: cannot read the tokenizer"), "{message}");
    let unnamed = TokenizerConfig::File(FileConfig { path: PathBuf::new(), normalization: vec![] });
    assert_eq!(unnamed.problems()[0].place.as_key(), Some("path"));

    let mut no_unknown = unigram();
    no_unknown["model"]["unk_id"] = Value::Null;
    let mut empty_piece = unigram();
    empty_piece["model"]["vocab"][4][0] = "".into();
    let mut strange_id = word_piece();
    strange_id["model"]["vocab"]["cat"] = json!(-1);
    let mut strange_part = word_piece();
    strange_part["normalizer"] = json!({ "type": "Uppercase" });
    for (content, expected) in [
        ("{\"model\":".to_string(), "EOF"),
        ("[]".to_string(), "not a JSON object"),
        ("{}".to_string(), "model: "),
        (file(json!({ "type": "Morse", "vocab": {} }), json!({})).to_string(), "model.type: "),
        (file(json!({ "vocab": {} }), json!({})).to_string(), "model.type: "),
        (
            file(json!({ "type": "WordLevel", "unk_token": "?", "vocab": {} }), json!({})).to_string(),
            "vocabulary is empty",
        ),
        (file(json!({ "type": "WordPiece" }), json!({})).to_string(), "model.vocab: "),
        (no_unknown.to_string(), "model.unk_id: "),
        (empty_piece.to_string(), "model.vocab[4]: "),
        (strange_id.to_string(), "the id of \"cat\""),
        (strange_part.to_string(), "not a usable"),
        (bpe(json!([["a", "b"], ["a", "x"]]), json!({})).to_string(), "model.merges[1]: "),
        (bpe(json!([["abc", "abc"]]), json!({})).to_string(), "model.merges[0]: "),
        (bpe(json!([["a", "b"]]), json!({ "continuing_subword_prefix": "####" })).to_string(), "model.merges[0]: "),
        (bpe(json!([7]), json!({})).to_string(), "model.merges[0]: "),
    ] {
        let message = load(&content, vec![]).err().unwrap_or_else(|| panic!("{content} was loaded")).to_string();
        assert!(message.contains("tokenizer.json: ") && message.contains(expected), "{message}");
        assert!(message.contains("train one here"), "a remedy: {message}");
    }
}
