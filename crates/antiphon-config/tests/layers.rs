//! Files, environment and assignments, one upon the other.

use std::path::PathBuf;

use antiphon_config::{Origin, Tree, to_toml};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

/// Files in a folder of their own.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = folder.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, sets: &[&str], environment: &[(&str, &str)]) -> antiphon_core::Result<Tree> {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let owned = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Tree::load_with(&self.path("run.toml"), &sets, owned)
    }

    /// The problems of loading, with the folder's name taken out.
    fn refusal(&self, sets: &[&str], environment: &[(&str, &str)]) -> String {
        let error = self.load(sets, environment).unwrap_err().to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn merged(files: &[(&str, &str)], sets: &[&str], environment: &[(&str, &str)]) -> Json {
    Folder::new(files).load(sets, environment).unwrap().value().clone()
}

#[test]
fn the_later_layer_wins() {
    let files = [
        ("base.toml", "a = 1\nb = 1\nc = 1\nd = 1\n[t]\nx = 1\ny = [1, 2]"),
        ("run.toml", "extends = 'base.toml'\nb = 2\nc = 2\nd = 2\n[t]\ny = [3]"),
    ];
    let value = merged(&files, &["d=4"], &[("ANTIPHON__C", "3"), ("ANTIPHON__D", "3"), ("ANTIPHON__T__Z", "3")]);
    assert_eq!(value, json!({"a": 1, "b": 2, "c": 3, "d": 4, "t": {"x": 1, "y": [3], "z": 3}}));
}

#[test]
fn extends_is_relative_to_its_file_and_may_be_a_list() {
    let files = [
        ("run.toml", "extends = ['sub/a.toml', 'b.toml']\nrun = 1"),
        ("sub/a.toml", "extends = '../root.toml'\nx = 'a'\ny = 'a'"),
        ("b.toml", "extends = 'root.toml'\ny = 'b'"),
        ("root.toml", "x = 'root'\ny = 'root'\nz = 'root'"),
    ];
    // The root lies below both, once: it does not undo what `a` says.
    assert_eq!(merged(&files, &[], &[]), json!({"run": 1, "x": "a", "y": "b", "z": "root"}));
    let folder = Folder::new(&files);
    assert_eq!(
        folder.load(&[], &[]).unwrap().origin("z"),
        Some(Origin::File { path: folder.path("root.toml"), line: 3 })
    );
}

/// A document in memory is read as a file of its name would be, which need not be there.
#[test]
fn a_text_is_read_like_its_file() {
    let text = "a = 1\n[t]\nx = 1\ny = 'z'";
    let folder = Folder::new(&[("run.toml", text)]);
    let file = folder.path("run.toml");
    for set in ["t.x=2", "t.x=two", "b=3", "t={replace=true,kind='u'}", "t.0=1", "a.b.c=4", "no", "=1"] {
        let sets = [set.to_owned()];
        let on_disk = folder.load(&[set], &[]);
        let in_memory = Tree::of_text(&file, text, &sets);
        match (on_disk, in_memory) {
            (Ok(one), Ok(other)) => {
                assert_eq!((one.value(), one.annotated()), (other.value(), other.annotated()), "{set}");
                assert_eq!(one.problem("t.x", "no"), other.problem("t.x", "no"), "{set}");
                assert_eq!(one.file(), other.file());
            }
            (one, other) => assert_eq!(one.err(), Some(other.unwrap_err()), "{set}"),
        }
    }
    let nowhere = std::path::Path::new("nowhere/model.safetensors");
    let error = Tree::of_text(nowhere, "a = ", &[]).unwrap_err().to_string();
    assert!(error.starts_with("nowhere/model.safetensors: line 1: not valid TOML: "), "{error}");
    let tree = Tree::of_text(nowhere, "a = 1", &[]).unwrap();
    assert_eq!(tree.problem("a", "no").to_string(), "a (line 1): no");
}

#[test]
fn a_circle_is_refused() {
    let files = [
        ("run.toml", "\nextends = 'a.toml'"),
        ("a.toml", "extends = ['b.toml']"),
        ("b.toml", "extends = './run.toml'"),
    ];
    assert_eq!(
        Folder::new(&files).refusal(&[], &[]),
        "b.toml: extends (line 1): `run.toml`: extends itself: run.toml -> a.toml -> b.toml -> run.toml; break the circle"
    );
    assert!(Folder::new(&[("run.toml", "extends = 'run.toml'")]).load(&[], &[]).is_err());
}

#[test]
fn files_that_cannot_be_read() {
    assert_eq!(Folder::new(&[]).refusal(&[], &[]), "run.toml: no such file; check the path");
    assert_eq!(
        Folder::new(&[("run.toml", "a = 1\nextends = '../base.toml'")]).refusal(&[], &[]).split(": ").last(),
        Some("no such file; check the path")
    );
    assert_eq!(
        Folder::new(&[("run.toml", "a = 1\nextends = 3")]).refusal(&[], &[]),
        "run.toml: extends (line 2): must be a file or a list of files, for example `\"../base.toml\"`"
    );
    let folder = Folder::new(&[]);
    std::fs::write(folder.path("run.toml"), b"a = 1\nb = '\xff'").unwrap();
    assert_eq!(folder.refusal(&[], &[]), "run.toml: line 2: not valid UTF-8; save the file as UTF-8");
    std::fs::write(folder.path("run.toml"), "extends = 'broken.toml'").unwrap();
    std::fs::write(folder.path("broken.toml"), "a = 1\nb = [").unwrap();
    assert!(folder.refusal(&[], &[]).starts_with("broken.toml: line 2: not valid TOML: "));
    std::fs::create_dir(folder.path("folder")).unwrap();
    std::fs::write(folder.path("run.toml"), "extends = 'folder'").unwrap();
    assert!(folder.refusal(&[], &[]).starts_with("run.toml: extends (line 1): `folder`: cannot read it: "));
}

#[test]
fn replace_drops_what_is_inherited() {
    let base = ("base.toml", "[t]\na = 1\nreplace = true\n[t.u]\nb = 1\n[t.v]\nc = 1");
    let run = |text: &str| merged(&[base, ("run.toml", &format!("extends = 'base.toml'\n{text}"))], &[], &[]);
    assert_eq!(run("[t]\nd = 1"), json!({"t": {"a": 1, "u": {"b": 1}, "v": {"c": 1}, "d": 1}}));
    assert_eq!(run("[t]\nreplace = true\nd = 1"), json!({"t": {"d": 1}}));
    assert_eq!(run("[t]\nreplace = false\nd = 1"), run("[t]\nd = 1"));
    assert_eq!(run("[t.u]\nreplace = true"), json!({"t": {"a": 1, "u": {}, "v": {"c": 1}}}));
    assert_eq!(run("replace = true\n[[l]]\nreplace = true\nt.replace = false"), json!({"l": [{"t": {}}]}));
    // A key of that name with another meaning stays, for the schema to judge.
    assert_eq!(run("[t.u]\nreplace = 3"), json!({"t": {"a": 1, "u": {"b": 1, "replace": 3}, "v": {"c": 1}}}));
    assert_eq!(
        merged(&[base, ("run.toml", "extends = 'base.toml'")], &["t={replace = true, e = 1}"], &[]),
        json!({"t": {"e": 1}})
    );
}

#[test]
fn what_replace_drops_is_listed() {
    let base = ("base.toml", "[m]\nkept = 1\n[m.a]\nkind = 'additive'\nwidth = 7\n[m.a.inner]\nx = 1");
    let folder = Folder::new(&[base, ("run.toml", "extends = 'base.toml'")]);
    let tree = folder.load(&["m.a.kind=dot", "m.a.replace=true"], &[]).unwrap();
    assert_eq!(*tree.value(), json!({"m": {"kept": 1, "a": {"kind": "dot"}}}));
    assert_eq!(tree.origin("m.a"), Some(Origin::Set));
    let lost = |key: &str, line| (key.to_owned(), Origin::File { path: folder.path("base.toml"), line });
    assert_eq!(tree.dropped(), [lost("m.a.inner.x", 7), lost("m.a.width", 5)]);
    // Without it the layers keep everything; `kinds.rs` tells what a type then drops.
    for kind in ["additive", "dot"] {
        let tree = folder.load(&[&format!("m.a.kind={kind}")], &[]).unwrap();
        assert_eq!(tree.value()["m"]["a"], json!({"kind": kind, "width": 7, "inner": {"x": 1}}));
        assert_eq!(tree.dropped(), []);
    }
}

#[test]
fn the_environment_is_read_by_levels() {
    let run = ("run.toml", "[model.encoder]\nhidden = 1");
    let environment = [
        ("ANTIPHON__MODEL__ENCODER__HIDDEN", "64"),
        ("ANTIPHON__Model__Encoder__Forget_Bias", "0.5"),
        ("ANTIPHON__NAME", "first try"),
        ("ANTIPHON__LIST", "[1, 'two']"),
        ("ANTIPHON_DATA_DIR", "/data"),
        ("ANTIPHONE", "1"),
        ("PATH", "/bin"),
    ];
    let folder = Folder::new(&[run]);
    let tree = folder.load(&[], &environment).unwrap();
    assert_eq!(
        *tree.value(),
        json!({"list": [1, "two"], "name": "first try", "model": {"encoder": {"hidden": 64, "forget_bias": 0.5}}})
    );
    let name = "ANTIPHON__MODEL__ENCODER__HIDDEN".to_owned();
    assert_eq!(tree.origin("model.encoder.hidden"), Some(Origin::Environment { name }));
    assert_eq!(tree.origin("model.encoder"), Some(Origin::File { path: folder.path("run.toml"), line: 1 }));

    let refusal = |name: &str| folder.refusal(&[], &[(name, "1"), ("ANTIPHON__SEED", "1")]);
    for name in ["ANTIPHON__", "ANTIPHON__A____B", "ANTIPHON__A__"] {
        assert_eq!(
            refusal(name),
            format!("environment variable {name}: not a setting: write it as ANTIPHON__SECTION__KEY")
        );
    }
    assert_eq!(
        refusal("ANTIPHON__Seed"),
        "environment variable ANTIPHON__Seed: sets the same key as ANTIPHON__SEED; keep one of the two"
    );
    assert_eq!(
        refusal("ANTIPHON__EXTENDS"),
        "environment variable ANTIPHON__EXTENDS: `extends` works only in a file; put it there"
    );
    assert!(refusal(&format!("ANTIPHON{}", "__A".repeat(100))).ends_with("is deeper than 80 levels"));
}

#[test]
fn assignments_are_toml_or_text() {
    let value = |set: &str| merged(&[("run.toml", "")], &[set], &[]);
    assert_eq!(value("a=1"), json!({"a": 1}));
    assert_eq!(value(" a . b = 1.0"), json!({"a": {"b": 1.0}}));
    assert_eq!(value("a='1'"), json!({"a": "1"}));
    assert_eq!(value("a=true"), json!({"a": true}));
    assert_eq!(value("a=[1, {b = 2}]"), json!({"a": [1, {"b": 2}]}));
    assert_eq!(value("a.\"b.c=d\".e=x=y"), json!({"a": {"b.c=d": {"e": "x=y"}}}));
    assert_eq!(value("a=../some path"), json!({"a": "../some path"}));
    assert_eq!(value("a=1\nb = 2"), json!({"a": "1\nb = 2"}));
    assert_eq!(value("a=2024-01-01"), json!({"a": "2024-01-01"}));
    assert_eq!(value("a="), json!({"a": ""}));
    assert_eq!(merged(&[("run.toml", "")], &["a=1", "a.b=2", "c.d=1", "c=2"], &[]), json!({"a": {"b": 2}, "c": 2}));

    let refusal = |sets: &[&str]| Folder::new(&[("run.toml", "")]).refusal(sets, &[]);
    assert_eq!(refusal(&["seed"]), "--set seed: has no `=`; write it as `--set a.b.c=value`");
    assert!(refusal(&["a b=1"]).contains("`a b` is not a dotted key"));
    assert!(refusal(&["=1", "x", "extends='a'"]).starts_with("3 problems\n"));
}

#[test]
fn a_number_leads_into_a_list() {
    let run = [("run.toml", "[[m.layers]]\nkind = 'gru'\nhidden = 1\n[[m.layers]]\nkind = 'gru'\nhidden = 2")];
    let value = merged(&run, &["m.layers.1.hidden=9"], &[("ANTIPHON__M__LAYERS__0__DEEP", "true")]);
    assert_eq!(value["m"]["layers"], json!([{"kind": "gru", "hidden": 1, "deep": true}, {"kind": "gru", "hidden": 9}]));
    assert_eq!(merged(&run, &["m.layers=[{a=1}]", "m.layers.0.a=2"], &[]), json!({"m": {"layers": [{"a": 2}]}}));
    assert_eq!(merged(&run, &["m.layers.0.kind=rnn"], &[])["m"]["layers"][0], json!({"kind": "rnn", "hidden": 1}));
    assert_eq!(
        Folder::new(&run).refusal(&["m.layers.2.hidden=9"], &[]),
        "m.layers.2 (--set): no such entry: `m.layers` has 2 entries, counted from 0"
    );
    // In a file such a table is a table.
    let files = [run[0], ("up.toml", "extends = 'run.toml'\n[m.layers.0]\nhidden = 5")];
    let folder = Folder::new(&files);
    let tree = Tree::load_with(&folder.path("up.toml"), &[], []).unwrap();
    assert_eq!(tree.value()["m"]["layers"], json!({"0": {"hidden": 5}}));
}

#[test]
fn quoted_keys_and_capitals_survive() {
    let files = [
        ("base.toml", "\"top.level\" = 1\nCase = 1\n[sweep]\n\"model.encoder.kind\" = ['gru']\nseed = [1]"),
        ("run.toml", "extends = 'base.toml'\n[sweep]\n\"model.encoder.kind\" = ['gru', 'lstm']\n\"a[0]\" = 1"),
    ];
    let folder = Folder::new(&files);
    let mut tree = folder.load(&["sweep.\"b.c\"=[1]"], &[]).unwrap();
    assert_eq!(
        *tree.value(),
        json!({"top.level": 1, "Case": 1,
               "sweep": {"model.encoder.kind": ["gru", "lstm"], "seed": [1], "a[0]": 1, "b.c": [1]}})
    );
    let sweep = tree.take("sweep").unwrap();
    assert_eq!(*tree.value(), json!({"top.level": 1, "Case": 1}));
    assert_eq!(tree.origin("sweep.seed"), None);
    assert!(tree.take("sweep").is_none());
    let line = |file: &str, line| Some(Origin::File { path: folder.path(file), line });
    assert_eq!(sweep.origin("\"model.encoder.kind\""), line("run.toml", 3));
    assert_eq!(sweep.origin("\"model.encoder.kind\".1"), line("run.toml", 3));
    assert_eq!(sweep.origin("seed"), line("base.toml", 5));
    assert_eq!(sweep.origin("\"b.c\""), Some(Origin::Set));
    assert_eq!(sweep.problem("\"a[0]\"", "no").to_string(), "sweep.\"a[0]\" (line 4): no");
    assert_eq!(
        sweep.problem("seed.0", "no").place.to_string(),
        format!("sweep.seed.0 ({} line 5)", folder.path("base.toml").display())
    );
}

#[test]
fn problems_name_the_layer_at_fault() {
    #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Wants {
        #[allow(dead_code)]
        a: u8,
    }
    let files = [("base.toml", "\nb = 1"), ("run.toml", "extends = 'base.toml'\nc = 1\na = 1")];
    let folder = Folder::new(&files);
    let error = folder.load(&["d=1"], &[("ANTIPHON__A", "300")]).unwrap().read::<Wants>().unwrap_err();
    assert_eq!(error.file, Some(folder.path("run.toml")));
    let places: Vec<String> = error.problems.into_iter().map(|p| p.place.to_string()).collect();
    let base = format!("b ({} line 2)", folder.path("base.toml").display());
    assert_eq!(places, ["c (line 2)", "a (environment variable ANTIPHON__A)", &base, "d (--set)"]);
}

#[test]
fn the_listing_names_every_origin() {
    let files = [
        ("base.toml", "[m]\nkind = 'x'\nold = 1"),
        (
            "run.toml",
            "extends = 'base.toml'\nname = 'a b'\nrate = nan\nm = { kind = 'y', replace = true }\n[[l]]\nz = [1, 2]\n[e]",
        ),
    ];
    let folder = Folder::new(&files);
    let text = folder.load(&["m.n=0.5"], &[("ANTIPHON__SEED", "3")]).unwrap().annotated();
    let text = text.replace(&format!("{}/", folder.0.path().display()), "");
    assert_eq!(
        text,
        "e = {}  # run.toml line 7\n\
         l.0.z = [1, 2]  # run.toml line 6\n\
         m.kind = \"y\"  # run.toml line 4\n\
         m.n = 0.5  # --set\n\
         name = \"a b\"  # run.toml line 2\n\
         rate = nan  # run.toml line 3\n\
         seed = 3  # environment variable ANTIPHON__SEED\n\
         # dropped: m.old  # base.toml line 3\n"
    );
}

#[test]
fn toml_has_limits() {
    assert!(to_toml(&json!(3)).is_err());
    assert_eq!(to_toml(&json!({"a": {"b": [1, null]}})).unwrap_err().to_string(), "a.b.1: a list cannot hold nothing");
    assert!(to_toml(&json!({"a": u64::MAX})).unwrap_err().to_string().starts_with("a: 18446744073709551615 is beyond"));
    assert_eq!(
        to_toml(&json!({"z": 1, "a": {"y": {"x": 1.0}, "w": null, "b": "t"}, "l": [{"q": 1}]})).unwrap(),
        "z = 1\n\n[a]\nb = \"t\"\n\n[a.y]\nx = 1.0\n\n[[l]]\nq = 1\n"
    );
}

fn any_tree() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    // Few keys, so that trees meet; none of those that have a meaning of their own.
    let key = || prop_oneof![8 => "[a-c]", 1 => "[A-Z. \"']{0,3}"];
    let inner = leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..3).prop_map(Json::Array),
            3 => prop::collection::btree_map(key(), inner, 0..4).prop_map(|m| m.into_iter().collect()),
        ]
    });
    prop::collection::btree_map(key(), inner, 0..5).prop_map(|m| m.into_iter().collect())
}

fn leaves(value: &Json, keys: &[String], found: &mut Vec<(Vec<String>, Json)>) {
    match value {
        Json::Object(table) => {
            table.iter().for_each(|(key, item)| leaves(item, &[keys, std::slice::from_ref(key)].concat(), found));
        }
        leaf => found.push((keys.to_vec(), leaf.clone())),
    }
}

fn stack(trees: &[&Json]) -> Json {
    let texts: Vec<String> = trees.iter().map(|tree| to_toml(tree).unwrap()).collect();
    let names: Vec<String> = (0..trees.len()).map(|i| format!("{i}.toml")).collect();
    let extends = format!("extends = {names:?}");
    let mut files: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
    files.push(("run.toml", &extends));
    merged(&files, &[], &[])
}

/// A program's settings lie where `--set` would lay them, and keep the origin that they came with.
#[test]
fn a_program_assigns_as_set_does() {
    let text =
        "[encoder]\nkind = 'lstm'\nhidden = 8\nforget = 1.0\n[[layers]]\nhidden = 3\n[over]\n'encoder.hidden' = [1]";
    let folder = Folder::new(&[("run.toml", text)]);
    let settings = [
        ("encoder.kind", json!("gru"), "encoder.kind='gru'"),
        ("encoder.hidden", json!(16), "encoder.hidden=16"),
        ("layers.0.hidden", json!([1, 2.5]), "layers.0.hidden=[1, 2.5]"),
        ("\"a.b\".c", json!({ "d": true }), "\"a.b\".c={d=true}"),
    ];
    let mut tree = folder.load(&[], &[]).unwrap();
    let origin = tree.origin("over.\"encoder.hidden\"").unwrap();
    assert_eq!(origin, Origin::File { path: folder.path("run.toml"), line: 8 });
    tree.assign(settings.iter().map(|(key, value, _)| (*key, value, origin.clone()))).unwrap();
    let sets: Vec<&str> = settings.iter().map(|(_, _, set)| *set).collect();
    let by_set = folder.load(&sets, &[]).unwrap();
    assert_eq!(tree.value(), by_set.value());
    assert_eq!(tree.dropped(), by_set.dropped());
    assert_eq!(tree.origin("encoder.hidden"), Some(origin.clone()));
    assert_eq!(tree.origin("encoder.forget"), by_set.origin("encoder.forget"));
    for (key, message) in
        [("a b", "is not a dotted key"), ("layers.1.hidden", "no such entry"), ("extends", "only in a file")]
    {
        let error = tree.clone().assign([(key, &json!(1), origin.clone())]).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_is_written_is_read_back(tree in any_tree()) {
        prop_assert_eq!(merged(&[("run.toml", &to_toml(&tree).unwrap())], &[], &[]), tree);
    }

    #[test]
    fn merging_twice_is_merging_once(below in any_tree(), above in any_tree()) {
        let once = stack(&[&below, &above]);
        prop_assert_eq!(&stack(&[&below, &above, &above]), &once);
        prop_assert_eq!(&stack(&[&below, &once]), &once);
        prop_assert_eq!(stack(&[&above, &above]), above);
    }

    /// Every leaf of the upper layer is in the whole; every leaf of the whole comes from one of the two.
    #[test]
    fn the_upper_layer_wins_leaf_by_leaf(below in any_tree(), above in any_tree()) {
        let whole = stack(&[&below, &above]);
        let find = |keys: &[String], tree: &Json| keys.iter().try_fold(tree.clone(), |t, key| t.get(key).cloned());
        let (mut upper, mut all) = (Vec::new(), Vec::new());
        leaves(&above, &[], &mut upper);
        leaves(&whole, &[], &mut all);
        for (keys, leaf) in upper {
            prop_assert_eq!(find(&keys, &whole), Some(leaf));
        }
        for (keys, leaf) in all {
            prop_assert!(find(&keys, &above).or_else(|| find(&keys, &below)) == Some(leaf));
        }
    }

    #[test]
    fn the_order_of_keys_is_irrelevant(tree in any_tree(), seed in any::<u64>()) {
        // Leaf by leaf as dotted keys, in any order, and as assignments.
        let mut all = Vec::new();
        leaves(&tree, &[], &mut all);
        antiphon_core::random::Key::from_seed(seed).shuffle(&mut all);
        let lines: Vec<String> = all
            .iter()
            .map(|(keys, leaf)| {
                let keys: Vec<String> = keys.iter().map(|key| serde_json::to_string(key).unwrap()).collect();
                let leaf = to_toml(&json!({ "v": leaf })).unwrap();
                // `v = …` on a line, or a list of tables, which has no such line.
                format!("{} = {}", keys.join("."), leaf.trim_end().strip_prefix("v = ").unwrap_or("'tables'"))
            })
            .collect();
        let mut sorted = lines.clone();
        sorted.sort();
        let whole = merged(&[("run.toml", &sorted.join("\n"))], &[], &[]);
        prop_assert_eq!(&merged(&[("run.toml", &lines.join("\n"))], &[], &[]), &whole);
        let sets: Vec<&str> = lines.iter().map(String::as_str).collect();
        prop_assert_eq!(merged(&[("run.toml", "")], &sets, &[]), whole);
    }
}
