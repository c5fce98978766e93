//! Another `kind` in a higher layer: what the new kind knows stays, the rest goes.

use antiphon_config::{Origin, Tree, to_toml};
use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Experiment {
    #[serde(default)]
    encoder: Option<Encoder>,
    #[serde(default)]
    attention: Option<Attention>,
    #[serde(default)]
    optimizer: Option<Optimizer>,
    #[serde(default)]
    stack: Vec<Encoder>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Encoder {
    Lstm(Lstm),
    Gru(Gru),
    Identity(Identity),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Lstm {
    #[schemars(range(min = 1))]
    hidden: u32,
    bidirectional: bool,
    forget_bias: f32,
    initial: LstmInitial,
    gates: Vec<Gate>,
}

/// What an LSTM alone has, and many of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Gate {
    bias: f32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Gru {
    #[schemars(range(min = 1, max = 256))]
    hidden: u32,
    bidirectional: bool,
    reset_after: bool,
    initial: GruInitial,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Identity {}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct LstmInitial {
    scale: i64,
    cell: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct GruInitial {
    scale: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Attention {
    Additive(Additive),
    Dot(Dot),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Additive {
    width: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Dot {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Optimizer {
    Adam(Adam),
    Sgd(Sgd),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Adam {
    learning_rate: f64,
    beta1: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sgd {
    learning_rate: f64,
    #[serde(default)]
    momentum: f64,
}

const BASE: &str = "\
[encoder]
kind = 'lstm'
hidden = 128
bidirectional = true
forget_bias = 1.0
[encoder.initial]
scale = 3
cell = 4
[attention]
kind = 'additive'
width = 64
[optimizer]
kind = 'adam'
learning_rate = 0.25
beta1 = 0.8
";

fn load(layers: &[&str], sets: &[&str]) -> Tree {
    let folder = tempfile::tempdir().unwrap();
    let mut extends = String::new();
    for (i, layer) in layers.iter().enumerate() {
        let file = folder.path().join(format!("{i}.toml"));
        std::fs::write(&file, format!("{extends}{layer}")).unwrap();
        extends = format!("extends = '{i}.toml'\n");
    }
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Tree::load_with(&folder.path().join(format!("{}.toml", layers.len() - 1)), &sets, []).unwrap()
}

fn read(sets: &[&str]) -> Experiment {
    load(&[BASE], sets).read().unwrap()
}

fn problems(layers: &[&str], sets: &[&str]) -> Vec<String> {
    match load(layers, sets).read::<Experiment>() {
        Ok(experiment) => panic!("accepted: {experiment:?}"),
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    }
}

/// What a type drops, without origins.
fn dropped(tree: &Tree) -> Vec<String> {
    tree.seen_by::<Experiment>().dropped().into_iter().map(|(key, _)| key).collect()
}

#[test]
fn what_the_new_kind_knows_stays() {
    let gru = Gru { hidden: 128, bidirectional: true, initial: GruInitial { scale: 3 }, ..Gru::default() };
    assert_eq!(read(&["encoder.kind=gru"]).encoder, Some(Encoder::Gru(gru)));
    let sgd = Sgd { learning_rate: 0.25, momentum: 0.0 };
    assert_eq!(read(&["optimizer.kind=sgd"]).optimizer, Some(Optimizer::Sgd(sgd)));
}

#[test]
fn what_it_does_not_know_goes_in_silence() {
    assert_eq!(read(&["attention.kind=dot"]).attention, Some(Attention::Dot(Dot {})));
    assert_eq!(read(&["encoder.kind=identity"]).encoder, Some(Encoder::Identity(Identity {})));
}

#[test]
fn what_goes_is_listed_for_a_type() {
    let tree = load(&[BASE], &["encoder.kind=gru", "attention.kind=dot", "optimizer.kind=sgd"]);
    // Without a type nobody knows what a kind knows.
    assert_eq!(tree.dropped(), []);
    assert_eq!(tree.value()["attention"], json!({"kind": "dot", "width": 64}));

    let seen = tree.seen_by::<Experiment>();
    let line = |key: &str, line| (key.to_owned(), Origin::File { path: tree.file().to_path_buf(), line });
    let lost =
        [("attention.width", 11), ("encoder.forget_bias", 5), ("encoder.initial.cell", 8), ("optimizer.beta1", 15)];
    assert_eq!(seen.dropped(), lost.map(|(key, at)| line(key, at)));
    assert_eq!(seen.value()["attention"], json!({"kind": "dot"}));
    assert_eq!(seen.origin("attention"), Some(Origin::Set));
    assert_eq!(seen.origin("attention.width"), None);
    assert_eq!(seen.origin("encoder.hidden"), Some(line("", 3).1));
    let text = seen.annotated().replace(&format!("{}/", tree.file().parent().unwrap().display()), "");
    assert!(text.contains("\nencoder.hidden = 128  # 0.toml line 3\n"), "{text}");
    assert!(text.contains("\n# dropped: encoder.forget_bias  # 0.toml line 5\n"), "{text}");
    assert!(!text.contains("\nencoder.forget_bias"), "{text}");
    assert_eq!(dropped(&load(&[BASE], &["encoder.kind=identity"])).len(), 5);
}

#[test]
fn a_section_that_is_taken_out_remembers() {
    let section = load(&[BASE], &["encoder.kind=gru"]).take("encoder").unwrap();
    assert!(matches!(section.read::<Encoder>(), Ok(Encoder::Gru(gru)) if gru.hidden == 128));
    let dropped: Vec<_> = section.seen_by::<Encoder>().dropped().into_iter().map(|(key, _)| key).collect();
    assert_eq!(dropped, ["encoder.forget_bias", "encoder.initial.cell"]);
}

#[test]
fn what_is_set_beside_the_new_kind_is_meant() {
    let typed = "encoder.hiden (--set): no such key; did you mean `hidden`?";
    assert_eq!(problems(&[BASE], &["encoder.kind=gru", "encoder.hiden=64"]), [typed]);
    assert_eq!(
        problems(&[BASE, "[encoder]\nkind = 'gru'\nforget_bias = 2"], &[]),
        ["encoder.forget_bias (line 4): no such key for kind `gru`; kind `lstm` has it"]
    );
    // Also within a table or a list that the new kind does not know; the table is the assignment's then.
    assert_eq!(
        problems(&[BASE], &["encoder.kind=identity", "encoder.initial.scale=1"]),
        ["encoder.initial (--set): no such key for kind `identity`; kinds `lstm` and `gru` have it"]
    );
    assert_eq!(
        problems(&[BASE], &["encoder.kind=gru", "encoder.initial.cell=1"]),
        ["encoder.initial.cell (--set): no such key beside the kinds of the tables around it; the keys are `scale`"]
    );
    let gates = "[encoder]\nkind = 'lstm'\ngates = [{ bias = 1 }]";
    assert_eq!(dropped(&load(&[gates], &["encoder.kind=gru"])), ["encoder.gates"]);
    assert_eq!(
        problems(&[gates], &["encoder.kind=gru", "encoder.gates.0.bias=2"]),
        ["encoder.gates (--set): no such key for kind `gru`; kind `lstm` has it"]
    );
    // Without another kind nothing is dropped.
    assert_eq!(problems(&[BASE], &["encoder.kind=lstm", "encoder.reset_after=true"]).len(), 1);
}

#[test]
fn what_stays_must_be_right_for_the_new_kind() {
    let base = "[encoder]\nkind = 'lstm'\nhidden = 512";
    assert_eq!(
        problems(&[base], &["encoder.kind=gru"]),
        ["encoder.hidden (line 3): must be at most 256, got 512 (set beside another `kind`)"]
    );
    assert_eq!(
        problems(&[base], &["encoder.kind=gru", "encoder.hidden=300"]),
        ["encoder.hidden (--set): must be at most 256, got 300"]
    );
    assert_eq!(
        problems(&["[attention]\nkind = 'dot'"], &["attention.kind=additive"]),
        ["attention (--set): lacks `width`: add a whole number, for example `width = 1`"]
    );
    // A slip that no kind would understand is one still.
    assert_eq!(
        problems(&["[encoder]\nkind = 'lstm'\nhiden = 512"], &["encoder.kind=gru"]),
        ["encoder.hiden (line 3): no such key; did you mean `hidden`? (set beside another `kind`)"]
    );
}

/// A key that goes does not stand for one that is missing, however near it is.
#[test]
fn what_goes_hides_nothing() {
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    #[allow(dead_code)]
    enum Convolution {
        Square(Of<Width>),
        Ragged(Of<Widths>),
    }
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Of<Size> {
        size: Size,
    }
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Width {
        width: u32,
    }
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Widths {
        widths: Vec<u32>,
    }
    let tree = load(&["kind = 'square'\n[size]\nwidth = 3"], &["kind=ragged"]);
    assert_eq!(
        tree.read::<Convolution>().unwrap_err().problems[0].to_string(),
        "size (line 2): lacks `widths`: add a list, for example `widths = [1]` (set beside another `kind`)"
    );
}

#[test]
fn an_entry_of_a_list_has_a_kind_too() {
    let base = "[[stack]]\nkind = 'lstm'\nhidden = 8\nforget_bias = 1\n[[stack]]\nkind = 'lstm'\nforget_bias = 1";
    let tree = load(&[base], &["stack.0.kind=gru"]);
    let stack = tree.read::<Experiment>().unwrap().stack;
    assert_eq!(stack[0], Encoder::Gru(Gru { hidden: 8, ..Gru::default() }));
    assert_eq!(stack[1], Encoder::Lstm(Lstm { forget_bias: 1.0, ..Lstm::default() }));
    assert_eq!(dropped(&tree), ["stack.0.forget_bias"]);
}

#[test]
fn replace_keeps_nothing() {
    let encoder = read(&["encoder.kind=gru", "encoder.replace=true"]).encoder;
    assert_eq!(encoder, Some(Encoder::Gru(Gru::default())));
}

/// A table of one of the encoder's kinds with some of its settings.
fn any_encoder() -> impl Strategy<Value = Json> {
    let setting = |value: Option<i64>, key: &str| value.map(|v| (key.to_owned(), Json::from(v)));
    let some = || prop::option::of(0_i64..9);
    let initial = (some(), some(), any::<bool>());
    (0..3_usize, prop::option::of(1_i64..9), prop::option::of(any::<bool>()), initial).prop_map(
        move |(kind, hidden, flag, (scale, cell, shown))| {
            let kind = ["lstm", "gru", "identity"][kind];
            let initial: Map<String, Json> =
                [setting(scale, "scale"), setting(cell, "cell")].into_iter().flatten().collect();
            let all = [
                Some(("kind".to_owned(), Json::from(kind))),
                setting(hidden, "hidden"),
                flag.map(|flag| ("bidirectional".to_owned(), Json::from(flag))),
                flag.map(|flag| ("reset_after".to_owned(), Json::from(!flag))),
                setting(hidden, "forget_bias"),
                shown.then(|| ("initial".to_owned(), Json::from(initial))),
            ];
            known(kind, &all.into_iter().flatten().collect())
        },
    )
}

/// The settings that a kind knows.
fn known(kind: &str, table: &Map<String, Json>) -> Json {
    let keys: &[&str] = match kind {
        "lstm" => &["kind", "hidden", "bidirectional", "forget_bias", "initial", "scale", "cell"],
        "gru" => &["kind", "hidden", "bidirectional", "reset_after", "initial", "scale"],
        _ => &["kind"],
    };
    let inside = |item: &Json| item.as_object().map_or(item.clone(), |table| known(kind, table));
    let knows = table.iter().filter(|(key, _)| keys.contains(&key.as_str()));
    knows.map(|(key, item)| (key.clone(), inside(item))).collect()
}

fn lay(above: &Json, below: &mut Json) {
    match (above, below) {
        (Json::Object(above), Json::Object(below)) => {
            above.iter().for_each(|(key, item)| lay(item, below.entry(key.clone()).or_insert(Json::Null)));
        }
        (above, below) => *below = above.clone(),
    }
}

fn paths(value: &Json, name: &str, found: &mut Vec<String>) {
    match value {
        Json::Object(table) if !table.is_empty() => {
            table.iter().for_each(|(key, item)| paths(item, &format!("{name}.{key}"), found));
        }
        _ => found.push(name.to_owned()),
    }
}

/// Settings whose tables have a kind by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Defaulted {
    encoder: Encoder,
    search: Search,
    #[schemars(extend("default" = {"kind": "adam"}))]
    optimizer: Option<Optimizer>,
    stack: Vec<Encoder>,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder::Lstm(Lstm::default())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Search {
    Greedy(Greedy),
    Beam(Beam),
}

impl Default for Search {
    fn default() -> Self {
        Search::Beam(Beam::default())
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Greedy {
    penalty: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Beam {
    width: u32,
    penalty: Penalty,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Penalty {
    Average(Identity),
    Gnmt(Gnmt),
    Word(Word),
}

impl Default for Penalty {
    fn default() -> Self {
        Penalty::Average(Identity {})
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Gnmt {
    alpha: f64,
    scale: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Word {
    scale: String,
}

fn defaulted(layers: &[&str], sets: &[&str]) -> Result<Defaulted, Vec<String>> {
    load(layers, sets).read().map_err(|error| error.problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_kind_that_is_unset_is_the_defaults() {
    let read = |layers: &[&str], sets: &[&str]| defaulted(layers, sets).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(read(&["[search]\nwidth = 3"], &[]).search, Search::Beam(Beam { width: 3, ..Beam::default() }));
    assert_eq!(read(&[""], &["search.width=3"]).search, Search::Beam(Beam { width: 3, ..Beam::default() }));
    assert_eq!(read(&["search = {}"], &[]), Defaulted::default());
    assert_eq!(
        read(&["[optimizer]\nlearning_rate = 1\nbeta1 = 0.5"], &[]).optimizer,
        Some(Optimizer::Adam(Adam { learning_rate: 1.0, beta1: 0.5 }))
    );
    // One that a lower layer sets holds.
    let lower = "[encoder]\nkind = 'gru'\nhidden = 3";
    let gru = Encoder::Gru(Gru { hidden: 4, ..Gru::default() });
    assert_eq!(read(&[lower, "[encoder]\nhidden = 4"], &[]).encoder, gru);
    assert_eq!(read(&[lower], &["encoder.hidden=4"]).encoder, gru);

    let tree = load(&["[search]\nwidth = 3\n[search.penalty]"], &["encoder.bidirectional=true"]);
    assert_eq!(tree.value()["search"], json!({"width": 3, "penalty": {}}), "without a type nobody knows");
    let seen = tree.seen_by::<Defaulted>();
    assert_eq!(seen.value()["search"], json!({"kind": "beam", "width": 3, "penalty": {"kind": "average"}}));
    assert_eq!((seen.origin("search.kind"), seen.dropped()), (None, vec![]));
    let text = seen.annotated();
    assert!(text.starts_with("encoder.bidirectional = true  # --set\nencoder.kind = \"lstm\"  # default\n"), "{text}");
    assert_eq!(seen.seen_by::<Defaulted>().annotated(), text);
}

#[test]
fn keys_of_another_kind_than_the_defaults_name_it() {
    let problems = |layers: &[&str], sets: &[&str]| defaulted(layers, sets).unwrap_err();
    assert_eq!(
        problems(&["[search.penalty]\nalpha = 0.5"], &[]),
        [
            "search.penalty.alpha (line 2): `kind` is `average` unless set, and kind `gnmt` has `alpha`: add `kind = \"gnmt\"`"
        ]
    );
    assert_eq!(
        problems(&["[search.penalty]\nscale = 1"], &[]),
        ["search.penalty.scale (line 2): `kind` is `average` unless set, and kinds `gnmt` and `word` have `scale`: \
          set `kind` to one of them"]
    );
    assert_eq!(
        problems(&["[search]\npenalty = 'none'"], &[]),
        [
            "search.penalty (line 2): must be a table with a `kind`, for example `{ kind = \"average\" }`; got the string \
          \"none\"; `kind` is `beam` unless set, and kind `greedy` takes this: add `kind = \"greedy\"`"
        ]
    );
    assert_eq!(problems(&["[search]\nwdth = 3"], &[]), ["search.wdth (line 2): no such key; did you mean `width`?"]);
    assert_eq!(
        problems(&["[[stack]]\nhidden = 3\nreset_after = true"], &[]),
        [
            "stack.0 (line 1): lacks `kind`; the kinds are `lstm`, `gru` and `identity`; add `kind = \"gru\"`, which has what \
          is set here"
        ]
    );
    assert_eq!(
        problems(&["[optimizer]\nlearning_rate = 1"], &[]),
        ["optimizer (line 1): lacks `beta1`: add a number, for example `beta1 = 0.5`"]
    );
}

#[test]
fn another_kind_than_the_defaults_drops_what_was_set_before() {
    let seen = |layers: &[&str], sets: &[&str]| {
        let seen = load(layers, sets).seen_by::<Defaulted>();
        (seen.value()["search"].clone(), seen.dropped().into_iter().map(|(key, _)| key).collect::<Vec<_>>())
    };
    let (base, beam, greedy) = ("[search]\nwidth = 3", "[search]\nkind = 'beam'", "[search]\nkind = 'greedy'");
    assert_eq!(seen(&[base, greedy], &[]), (json!({"kind": "greedy"}), vec!["search.width".to_owned()]));
    assert_eq!(seen(&[base], &["search.kind=greedy"]), (json!({"kind": "greedy"}), vec!["search.width".to_owned()]));
    assert_eq!(seen(&[base, beam], &[]), (json!({"kind": "beam", "width": 3}), vec![]));
    assert_eq!(seen(&[base, greedy, beam], &[]), (json!({"kind": "beam", "width": 3}), vec![]));
    // What is set beside the new kind is meant; what is wrong for the default, too.
    assert_eq!(defaulted(&[base, "[search]\nkind = 'greedy'\nwidth = 4"], &[]).unwrap_err().len(), 1);
    let wrong = defaulted(&["[search]\nwidth = -1", beam], &[]).unwrap_err();
    assert!(wrong.len() == 1 && wrong[0].ends_with("0.toml line 2): must be at least 0, got -1"), "{wrong:?}");
}

/// A table with some settings of all kinds, of a kind or of none.
fn any_table() -> impl Strategy<Value = Json> {
    let kind = prop::option::of(prop::sample::select(&["lstm", "gru", "identity"][..]));
    let keys = &["hidden", "bidirectional", "forget_bias", "reset_after", "hiden"][..];
    let initial = prop::option::of(prop::sample::subsequence(&["scale", "cell"][..], 0..3));
    (kind, prop::sample::subsequence(keys, 0..4), initial).prop_map(|(kind, keys, initial)| {
        let value = |key: &str| if key == "bidirectional" { json!(true) } else { json!(1) };
        let mut table: Map<String, Json> = keys.into_iter().map(|key| (key.to_owned(), value(key))).collect();
        table.extend(kind.map(|kind| ("kind".to_owned(), json!(kind))));
        let initial = initial.map(|keys| keys.into_iter().map(|key| (key.to_owned(), json!(1))).collect::<Map<_, _>>());
        table.extend(initial.map(|initial| ("initial".to_owned(), json!(initial))));
        Json::Object(table)
    })
}

proptest! {
    /// A kind by default is what a layer below all others would say.
    #[test]
    fn the_default_is_the_lowest_layer(layers in prop::collection::vec(any_table(), 1..5)) {
        let texts: Vec<String> = layers.iter().map(|layer| to_toml(&json!({ "encoder": layer })).unwrap()).collect();
        let outcome = |lowest: &str| {
            let all: Vec<&str> = std::iter::once(lowest).chain(texts.iter().map(String::as_str)).collect();
            let tree = load(&all, &[]);
            let folder = format!("{}/", tree.file().parent().unwrap().display());
            let plain = |text: String| text.replace(&folder, "");
            let seen = tree.seen_by::<Defaulted>();
            let dropped: Vec<String> = seen.dropped().into_iter().map(|(key, at)| plain(format!("{key} {at}"))).collect();
            let places = tree.read::<Defaulted>().map_err(|error| {
                error.problems.into_iter().map(|problem| plain(problem.place.to_string())).collect::<Vec<_>>()
            });
            (seen.value()["encoder"].clone(), dropped, places)
        };
        prop_assert_eq!(outcome(""), outcome("[encoder]\nkind = 'lstm'\n"));
    }
}

proptest! {
    /// However many layers, each of a kind of its own: what holds is what all say together and the last kind knows.
    /// Nothing else gets lost, and nothing gets lost without being listed.
    #[test]
    fn the_last_kind_decides(layers in prop::collection::vec(any_encoder(), 1..5)) {
        let texts: Vec<String> = layers.iter().map(|layer| to_toml(&json!({ "encoder": layer })).unwrap()).collect();
        let tree = load(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        let mut all = json!({});
        layers.iter().for_each(|layer| lay(layer, &mut all));
        let right = known(all["kind"].as_str().unwrap(), all.as_object().unwrap());

        let seen = tree.seen_by::<Experiment>();
        prop_assert_eq!(&seen.value()["encoder"], &right);
        prop_assert_eq!(tree.read::<Experiment>().unwrap().encoder, Some(serde_json::from_value(right.clone()).unwrap()));
        prop_assert_eq!(seen.seen_by::<Experiment>().annotated(), seen.annotated());

        let (mut set, mut held) = (Vec::new(), seen.dropped().into_iter().map(|(key, _)| key).collect::<Vec<_>>());
        paths(&all, "encoder", &mut set);
        paths(&right, "encoder", &mut held);
        // A table of which nothing is left stays, empty.
        held.retain(|key| key != "encoder.initial" || set.contains(key));
        set.sort();
        held.sort();
        prop_assert_eq!(held, set);
    }
}
