//! Deliberately wrong experiments, and the answers they get.

use std::collections::BTreeMap;

use antiphon_config::Tree;
use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Experiment {
    #[serde(default)]
    seed: u64,
    model: Model,
    #[serde(default)]
    search: Option<Search>,
    #[serde(default)]
    schedule: Schedule,
    #[serde(default)]
    weights: BTreeMap<String, f32>,
    #[serde(default)]
    corpus: Option<Paths>,
    #[serde(default)]
    word: Short,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    lines: Vec<String>,
    #[serde(default)]
    version: Version,
}

/// Words that look like numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
enum Version {
    #[default]
    #[serde(rename = "1.0")]
    One,
    #[serde(rename = "1.1")]
    Two,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Model {
    encoder: Encoder,
    #[serde(default)]
    #[schemars(length(min = 1, max = 3))]
    layers: Option<Vec<Encoder>>,
    #[serde(default)]
    tied: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Encoder {
    Lstm(Lstm),
    Gru(Gru),
    Empty(Empty),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Lstm {
    #[schemars(range(min = 1), extend("multipleOf" = 4))]
    hidden: u32,
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.9))]
    dropout: f32,
    #[serde(default)]
    forget_bias: f32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Gru {
    #[schemars(range(min = 1))]
    hidden: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Search {
    Beam(Beam),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Beam {
    #[schemars(range(min = 1))]
    width: u8,
    #[schemars(extend("exclusiveMinimum" = 0))]
    penalty: f64,
}

impl Default for Beam {
    fn default() -> Self {
        Self { width: 5, penalty: 1.0 }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Schedule {
    /// Always the same.
    #[default]
    Constant,
    /// Half a cosine.
    Cosine,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Paths {
    One(String),
    Many(Vec<String>),
}

/// A word whose length only serde judges.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
struct Short(String);

impl TryFrom<String> for Short {
    type Error = String;
    fn try_from(word: String) -> Result<Self, String> {
        if word.len() > 5 { Err(format!("{word} is long")) } else { Ok(Self(word)) }
    }
}

fn read(toml: &str, sets: &[&str]) -> antiphon_core::Result<Experiment> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    std::fs::write(&file, toml).unwrap();
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Tree::load_with(&file, &sets, [])?.read()
}

/// An encoder that is right, on one line, for tests of something else.
const RIGHT: &str = "encoder = { kind = 'lstm', hidden = 8 }";

fn check_set(toml: &str, sets: &[&str], expected: &[&str]) {
    let problems: Vec<String> = match read(toml, sets) {
        Ok(experiment) => panic!("accepted: {experiment:?}"),
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(problems, expected, "\n{toml}");
}

fn check(toml: &str, expected: &[&str]) {
    check_set(toml, &[], expected);
}

/// The encoder alone is wrong; its keys begin on line 3.
fn check_encoder(toml: &str, expected: &[&str]) {
    check(&format!("\n[model.encoder]\n{toml}"), expected);
}

#[test]
fn what_is_right_is_read() {
    let experiment = read(
        "seed = 7\nschedule = 'cosine'\ncorpus = ['a', 'b']\n[model]\nencoder = {kind = 'empty'}\n\
         [[model.layers]]\nkind = 'gru'\nhidden = 4\n[search]\nkind = 'beam'\npenalty = 2\n[weights]\na = 1\n'b c' = 0.5",
        &[],
    )
    .unwrap();
    assert_eq!(experiment.model.layers, Some(vec![Encoder::Gru(Gru { hidden: 4 })]));
    assert_eq!(experiment.search, Some(Search::Beam(Beam { width: 5, penalty: 2.0 })));
    assert_eq!(experiment.weights["b c"], 0.5);
    assert_eq!(experiment.corpus, Some(Paths::Many(vec!["a".into(), "b".into()])));
}

#[test]
fn unknown_keys() {
    check_encoder("kind = 'lstm'\nhiden = 8", &["model.encoder.hiden (line 4): no such key; did you mean `hidden`?"]);
    check_encoder(
        "kind = 'lstm'\nhidden = 8\nbanana = 1",
        &[
            "model.encoder.banana (line 5): no such key for kind `lstm`; the keys are `dropout`, `forget_bias` and `hidden`",
        ],
    );
    check_encoder(
        "kind = 'gru'\nhidden = 8\nforget_bias = 1",
        &["model.encoder.forget_bias (line 5): no such key for kind `gru`; kind `lstm` has it"],
    );
    check_encoder(
        "kind = 'empty'\nhidden = 8",
        &["model.encoder.hidden (line 4): no such key for kind `empty`; kinds `lstm` and `gru` have it"],
    );
    check_encoder(
        "kind = 'empty'\nbanana = 8",
        &["model.encoder.banana (line 4): no such key for kind `empty`; there is nothing to set"],
    );
    check(
        &format!("model.{RIGHT}\n\"model.encoder\" = 1"),
        &["\"model.encoder\" (line 2): no such key; the keys are \
           `corpus`, `lines`, `model`, `name`, `schedule`, `search`, `seed`, `version`, `weights` and `word`"],
    );
}

#[test]
fn missing_keys() {
    check(
        "seed = 1",
        &["lacks `model`: add a table, for example `model = { encoder = { hidden = 4, kind = \"lstm\" } }`"],
    );
    check_encoder(
        "kind = 'lstm'",
        &["model.encoder (line 2): lacks `hidden`: add a whole number, for example `hidden = 4`"],
    );
    check_encoder("hidden = 8", &["model.encoder (line 2): lacks `kind`; the kinds are `lstm`, `gru` and `empty`"]);
}

#[test]
fn wrong_types() {
    let seed = |value: &str, expected: &str| check(&format!("seed = {value}\nmodel.{RIGHT}"), &[expected]);
    seed("5.7", "seed (line 1): must be a whole number (for example `0`), got 5.7");
    seed("5.0", "seed (line 1): must be a whole number, got 5.0; write 5");
    seed("'5'", "seed (line 1): must be a whole number, got the string \"5\"; remove the quotes");
    seed("'five'", "seed (line 1): must be a whole number (for example `0`), got the string \"five\"");
    seed("[5]", "seed (line 1): must be a whole number (for example `0`), got a list");
    check(
        &format!("[model]\n{RIGHT}\ntied = 'yes'"),
        &["model.tied (line 3): must be true or false (for example `false`), got the string \"yes\""],
    );
    check(
        "model.encoder = 'gru'",
        &[
            "model.encoder (line 1): must be a table with a `kind`, for example `{ hidden = 1, kind = \"gru\" }`; got the string \"gru\"",
        ],
    );
    check(
        "model = 3",
        &["model (line 1): must be a table (for example `{ encoder = { hidden = 4, kind = \"lstm\" } }`), got 3"],
    );
    check(&format!("model.{RIGHT}\ncorpus = 3"), &["corpus (line 2): must be a string or a list, got 3"]);
    check(
        &format!("model.{RIGHT}\ncorpus = ['a', 3]"),
        &["corpus.1 (line 2): must be a string (for example `\"text\"`), got 3"],
    );
    check(
        &format!("model.{RIGHT}\nweights.a = true"),
        &["weights.a (line 2): must be a number (for example `0.5`), got true"],
    );
}

#[test]
fn unknown_kinds_and_words() {
    check_encoder(
        "kind = 'lstn'\nhidden = 'x'",
        &[
            "model.encoder.kind (line 3): no such kind: \"lstn\"; did you mean `lstm`? the kinds are `lstm`, `gru` and `empty`",
        ],
    );
    check_encoder(
        "kind = 'transformer'",
        &["model.encoder.kind (line 3): no such kind: \"transformer\"; the kinds are `lstm`, `gru` and `empty`"],
    );
    check_encoder("kind = 3", &["model.encoder.kind (line 3): must be one of `lstm`, `gru` and `empty`, got 3"]);
    check(
        &format!("model.{RIGHT}\nsearch.kind = 'beem'"),
        &["search.kind (line 2): no such kind: \"beem\"; did you mean `beam`? the kinds are `beam`"],
    );
    check(
        &format!("schedule = 'cosin'\nmodel.{RIGHT}"),
        &[
            "schedule (line 1): must be one of `constant` and `cosine`, got the string \"cosin\"; did you mean `cosine`?",
        ],
    );
}

#[test]
fn numbers_out_of_range() {
    check_encoder("kind = 'gru'\nhidden = 0", &["model.encoder.hidden (line 4): must be at least 1, got 0"]);
    check_encoder("kind = 'lstm'\nhidden = 6", &["model.encoder.hidden (line 4): must be a multiple of 4, got 6"]);
    check_encoder(
        "kind = 'gru'\nhidden = 5_000_000_000",
        &["model.encoder.hidden (line 4): must be at most 4294967295, got 5000000000"],
    );
    check_encoder(
        "kind = 'lstm'\nhidden = 4\ndropout = 0.95",
        &["model.encoder.dropout (line 5): must be at most 0.9, got 0.95"],
    );
    check_encoder(
        "kind = 'lstm'\nhidden = 4\nforget_bias = 1e300",
        &["model.encoder.forget_bias (line 5): must be at most 3.4028235e+38, got 1e+300"],
    );
    check(
        &format!("seed = -1\nmodel.{RIGHT}\n[search]\nkind = 'beam'\nwidth = 256\npenalty = 0"),
        &[
            "seed (line 1): must be at least 0, got -1",
            "search.width (line 5): must be at most 255, got 256",
            "search.penalty (line 6): must be more than 0, got 0",
        ],
    );
}

#[test]
fn numbers_that_are_none() {
    for number in ["nan", "-nan", "inf", "-inf"] {
        check(
            &format!("model.{RIGHT}\nweights.a = {number}"),
            &["weights.a (line 2): `nan` and `inf` are not allowed; give a finite number"],
        );
        // Where nothing is allowed (an option), too.
        check(
            &format!("search = {number}\nmodel.{RIGHT}"),
            &["search (line 1): `nan` and `inf` are not allowed; give a finite number"],
        );
    }
}

/// A number of single precision is held against its bounds as the number that it becomes.
#[test]
fn a_number_is_judged_as_what_it_becomes() {
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Rates {
        #[serde(default)]
        #[schemars(extend("format" = "float", "exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
        single: f64,
        #[serde(default)]
        #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
        double: f64,
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    std::fs::write(&file, "").unwrap();
    let right = |set: &str| Tree::load_with(&file, &[set.to_owned()], []).unwrap().read::<Rates>().is_ok();
    for number in ["0.0", "1.0", "1", "-0.1"] {
        assert!(!right(&format!("single={number}")) && !right(&format!("double={number}")), "{number}");
    }
    for number in ["1e-46", "0.99999999"] {
        assert!(!right(&format!("single={number}")) && right(&format!("double={number}")), "{number}");
    }
    for number in ["1e-45", "0.9999999"] {
        assert!(right(&format!("single={number}")) && right(&format!("double={number}")), "{number}");
    }
}

/// Whatever is typed where only text fits is that text; quotes are TOML's.
#[test]
fn text_is_taken_as_typed() {
    let experiment =
        |set: &str| read(&format!("model.{RIGHT}"), &[set]).unwrap_or_else(|error| panic!("{set}: {error}"));
    for text in [
        "1_1_1",
        "111",
        "true",
        "1e3",
        "1e400",
        "2024-01-01",
        "12:00:00",
        "inf",
        "-nan",
        "-0.0",
        "0x10",
        "007",
        " 5",
        "5 # five",
        "99999999999999999999",
        "a b",
        "",
        "#",
        "a\nb",
        "5\n",
    ] {
        assert_eq!(experiment(&format!("name={text}")).name.as_deref(), Some(text));
        let environment = [("ANTIPHON__NAME".to_owned(), text.to_owned())];
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("run.toml"), format!("model.{RIGHT}")).unwrap();
        let tree = Tree::load_with(&folder.path().join("run.toml"), &[], environment).unwrap();
        assert_eq!(tree.read::<Experiment>().unwrap().name.as_deref(), Some(text));
    }
    assert_eq!(experiment("name='1_1'").name.as_deref(), Some("1_1"));
    assert_eq!(experiment("name=\"1\\u0041\"").name.as_deref(), Some("1A"));
    assert_eq!(experiment("corpus=123").corpus, Some(Paths::One("123".into())));
    assert_eq!(
        experiment("corpus=[1_0, 2024-01-01, '3']").corpus,
        Some(Paths::Many(vec!["1_0".into(), "2024-01-01".into(), "3".into()]))
    );
    assert_eq!(experiment("lines=[1.50, true, inf]").lines, ["1.50", "true", "inf"]);
    assert_eq!(experiment("version=1.1").version, Version::Two);
    assert_eq!(experiment("word=1_1").word, Short("1_1".into()));
    check_set(&format!("model.{RIGHT}"), &["word=1_000_000"], &["word (--set): 1_000_000 is long"]);
    // A list is none of it.
    check_set(
        &format!("model.{RIGHT}"),
        &["name=[1]"],
        &["name (--set): must be a string (for example `\"text\"`), got a list"],
    );
    // In a file quotes are wanted.
    check(&format!("name = 5\nmodel.{RIGHT}"), &["name (line 1): must be a string (for example `\"text\"`), got 5"]);
}

#[test]
fn numbers_are_read_as_they_are_typed() {
    let seed =
        |text: &str| read(&format!("model.{RIGHT}"), &[&format!("seed={text}")]).map(|experiment| experiment.seed);
    for (text, value) in [("0xff", 255), ("+5", 5), ("1_000", 1000), ("-0", 0), ("0b11", 3), (" 7 ", 7)] {
        assert_eq!(seed(text), Ok(value), "{text}");
    }
    let refused = |text: &str, expected: &str| {
        check_set(&format!("model.{RIGHT}"), &[&format!("seed={text}")], &[&format!("seed (--set): {expected}")]);
    };
    refused("99999999999999999999", "must be at most 9223372036854775807, got 99999999999999999999");
    refused("9223372036854775808", "must be at most 9223372036854775807, got 9223372036854775808");
    refused("-99999999999999999999", "must be at least 0, got -99999999999999999999");
    refused("5.0", "must be a whole number, got 5.0; write 5");
    refused("1e3", "must be a whole number, got 1e3; write 1000");
    refused("-5.0", "must be at least 0, got -5.0");
    refused("1e30", "must be at most 9223372036854775807, got 1e30");
    refused("1e400", "`1e400` is too large for a number; give a smaller one");
    refused("inf", "`nan` and `inf` are not allowed; give a finite number");
    refused("007", "must be a whole number, got the string \"007\"; write 7");
    refused("5.", "must be a whole number (for example `0`), got the string \"5.\"");
    refused("5 # five", "must be a whole number (for example `0`), got the string \"5 # five\"");
    refused("'5'", "must be a whole number, got the string \"5\"; remove the quotes");
    refused("'-5'", "must be a whole number (for example `0`), got the string \"-5\"");

    let weight = |text: &str| {
        read(&format!("model.{RIGHT}"), &[&format!("weights.a={text}")]).map(|experiment| experiment.weights["a"])
    };
    for (text, value) in [("5", 5.0), ("99999999999999999999", 1e20), ("1e-60", 0.0), ("+0.5", 0.5)] {
        assert_eq!(weight(text), Ok(value), "{text}");
    }
    assert!(weight("-0.0").unwrap().is_sign_positive(), "zero is one setting");
    for (text, expected) in [
        (".5", "must be a number, got the string \".5\"; write 0.5"),
        ("5.", "must be a number, got the string \"5.\"; write 5.0"),
        ("1e39", "must be at most 3.4028235e+38, got 1e39"),
        ("0,5", "must be a number (for example `0.5`), got the string \"0,5\""),
    ] {
        check_set(
            &format!("model.{RIGHT}"),
            &[&format!("weights.a={text}")],
            &[&format!("weights.a (--set): {expected}")],
        );
    }
    let tied = |text: &str, expected: &str| {
        let expected = format!("model.tied (--set): must be true or false{expected}");
        check_set(&format!("model.{RIGHT}"), &[&format!("model.tied={text}")], &[&expected]);
    };
    tied("TRUE", ", got the string \"TRUE\"; write true");
    tied("1", " (for example `false`), got 1");
}

#[test]
fn lists_too_short_or_long() {
    check(&format!("[model]\n{RIGHT}\nlayers = []"), &["model.layers (line 3): must have at least 1 entry, got 0"]);
    let layer = "{ kind = 'empty' }";
    check(
        &format!("[model]\n{RIGHT}\nlayers = [{layer},\n{layer}, {layer}, {{ kind = 'gru' }}]"),
        &[
            "model.layers (line 3): must have at most 3 entries, got 4",
            "model.layers.3 (line 4): lacks `hidden`: add a whole number, for example `hidden = 1`",
        ],
    );
}

#[test]
fn what_only_serde_sees_has_a_place_too() {
    check(&format!("model.{RIGHT}\nword = 'longer'"), &["word (line 2): longer is long"]);
}

#[test]
fn every_mistake_is_told_at_once_in_the_order_of_the_lines() {
    let toml = "sed = 1\nschedule = 3\n[search]\nkind = 'beam'\nwidth = 0\n[model.encoder]\nkind = 'gru'\nhidden = 1.5";
    check_set(
        toml,
        &["model.tied=1"],
        &[
            "sed (line 1): no such key; did you mean `seed`?",
            "schedule (line 2): must be one of `constant` and `cosine`, got 3",
            "search.width (line 5): must be at least 1, got 0",
            "model.encoder.hidden (line 8): must be a whole number (for example `1`), got 1.5",
            "model.tied (--set): must be true or false (for example `false`), got 1",
        ],
    );
    let error = read(toml, &[]).unwrap_err().to_string();
    let (first, _) = error.split_once('\n').unwrap();
    assert!(first.ends_with("run.toml: 4 problems"), "{first}");
}

#[test]
fn what_is_no_toml() {
    check(
        "seed = \nmodel = 1\nmodel = 2",
        &[
            "line 1: not valid TOML: string values must be quoted, expected literal string, as in `key = \"text\"`",
            "line 3: not valid TOML: duplicate key: this key, or this table, is there already; keep one of them",
        ],
    );
    check(
        "a = 1979-05-27\nb = [0, { c = 99999999999999999999 }]\nd.e = -1e999",
        &[
            "a (line 1): `1979-05-27` is a date or a time, and no setting is one; write it in quotes",
            "b.1.c (line 2): `99999999999999999999` does not fit into 64 bits; give a smaller number",
            "d.e (line 3): `-1e999` is too large for a number; give a smaller one",
        ],
    );
}

#[test]
fn a_text_that_is_deep_is_no_danger() {
    for deep in [format!("{}a = 1", "a.".repeat(100_000)), format!("a = {}", "[".repeat(100_000))] {
        assert!(read(&deep, &[]).is_err());
        assert!(read("", &[&deep.replace(" = ", "=")]).is_err());
    }
}

fn any_toml() -> impl Strategy<Value = toml::Value> {
    const KNOWN: [&str; 11] =
        ["seed", "model", "encoder", "layers", "kind", "hidden", "search", "weights", "corpus", "replace", "word"];
    let key = || prop_oneof![4 => prop::sample::select(&KNOWN[..]).prop_map(str::to_owned), 1 => "\\PC{0,4}"];
    let word = prop::sample::select(&["lstm", "gru", "beam", "cosine", ""][..]);
    let leaf = prop_oneof![
        any::<i64>().prop_map(toml::Value::from),
        (-3_i64..300).prop_map(toml::Value::from),
        any::<f64>().prop_map(toml::Value::from),
        any::<bool>().prop_map(toml::Value::from),
        word.prop_map(toml::Value::from),
        any::<String>().prop_map(toml::Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(toml::Value::Array),
            3 => prop::collection::vec((key(), inner), 0..6).prop_map(|entries| toml::Value::Table(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the tree, it is read or refused with a place; and what is accepted means the same when it is written again.
    #[test]
    fn reading_never_panics(value in any_toml()) {
        let toml::Value::Table(table) = value else { return Ok(()) };
        match read(&toml::to_string(&table).unwrap(), &[]) {
            Ok(experiment) => {
                let again = antiphon_config::to_toml(&serde_json::to_value(&experiment).unwrap());
                if let Ok(again) = again {
                    prop_assert_eq!(read(&again, &[]).unwrap(), experiment);
                }
            }
            Err(error) => prop_assert!(error.problems.iter().all(|p| !p.message.is_empty())),
        }
    }

    /// What is typed is the text, unless it is TOML's own quoted text, list or table.
    #[test]
    fn any_text_is_taken_as_typed(text in "[-+0-9a-f_.:xTZ #]{0,12}|\\PC{0,8}") {
        let other = format!("value = {text}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
        let Ok(experiment) = read(&format!("model.{RIGHT}"), &[&format!("name={text}")]) else {
            prop_assert!(matches!(other, Some(toml::Value::Array(_) | toml::Value::Table(_))), "{text}");
            return Ok(());
        };
        match other {
            Some(toml::Value::String(quoted)) if text.trim().ends_with(['"', '\'']) => {
                prop_assert_eq!(experiment.name, Some(quoted));
            }
            _ => prop_assert_eq!(experiment.name, Some(text)),
        }
    }

    #[test]
    fn arbitrary_text_never_panics(toml in "\\PC{0,40}", set in "\\PC{0,20}") {
        let _ = read(&toml, &[&set]);
        let _ = read("", &[&toml]);
    }
}
