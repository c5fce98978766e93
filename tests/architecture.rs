//! Who may know whom: the edges of the workspace, read from cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Everything may use `core`; `antiphon` may use all; these besides.
const EDGES: [(&str, &[&str]); 4] = [
    ("antiphon-model", &["antiphon-kernels"]),
    ("antiphon-train", &["antiphon-kernels"]),
    ("antiphon-lab", &["antiphon-config"]),
    ("xtask", &["antiphon-lab", "antiphon-config"]),
];

/// The crates that may know Burn.
const KNOW_BURN: [&str; 4] = ["antiphon", "antiphon-kernels", "antiphon-model", "antiphon-train"];

/// What each member of the workspace depends on, for tests too.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml")])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            (text(&package["name"]), dependencies.iter().map(|d| text(&d["name"])).collect())
        })
        .collect()
}

#[test]
fn siblings_meet_in_core_alone() {
    let all = dependencies();
    assert!(all.contains_key("antiphon-core") && all.len() >= 13, "{:?}", all.keys());
    let mut wrong = Vec::new();
    for (name, uses) in &all {
        let more = EDGES.iter().find(|(from, _)| from == name).map_or(&[][..], |(_, to)| to);
        for used in uses.iter().filter(|used| all.contains_key(*used)) {
            let allowed = name == "antiphon" || used == "antiphon-core" || more.contains(&used.as_str());
            if !allowed || used == "antiphon" || used == "xtask" {
                wrong.push(format!("{name} -> {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the design does not have: {}", wrong.join(", "));
}

/// Where a count that wraps would be found by no test.
const WRAP: [&str; 2] = ["antiphon-kernels", "antiphon-model"];

#[test]
fn arithmetic_that_wraps_panics_where_it_is_not_hot() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let workspace = antiphon_config::Tree::load_with(std::path::Path::new(file), &[], []).expect("it is TOML");
    let packages = &workspace.value()["profile"]["dev"]["package"];
    let checked = |name: &str| packages[name]["overflow-checks"] == Value::Bool(true);
    let wrong: Vec<_> =
        dependencies().into_keys().filter(|name| checked(name) == WRAP.contains(&name.as_str())).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    // Of this crate it is seen.
    let [none, one] = std::hint::black_box([0_u64, 1]);
    assert!(std::panic::catch_unwind(|| none - one).is_err(), "0 - 1 wraps");
}

#[test]
fn burn_stays_out_of_what_must_be_quick_to_build() {
    let all = dependencies();
    for (name, uses) in &all {
        let burn = uses.iter().find(|used| used.starts_with("burn"));
        assert!(burn.is_none() || KNOW_BURN.contains(&name.as_str()), "{name} depends on {burn:?}");
    }
    let quick = [
        "xtask",
        "antiphon-lab",
        "antiphon-decode",
        "antiphon-eval",
        "antiphon-data",
        "antiphon-sound",
        "antiphon-text",
    ];
    for quick in quick {
        let (mut reached, mut open) = (BTreeSet::new(), vec![quick]);
        while let Some(name) = open.pop() {
            for used in all[name].iter().filter(|used| all.contains_key(*used)) {
                if reached.insert(used.as_str()) {
                    open.push(used);
                }
            }
        }
        let knowing: Vec<_> = KNOW_BURN.iter().filter(|name| reached.contains(**name)).collect();
        assert!(knowing.is_empty(), "{quick} reaches {knowing:?}, and so Burn");
    }
}
