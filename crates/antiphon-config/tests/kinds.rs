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
        ["encoder.initial.cell (--set): no such key; the keys are `scale`"]
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
