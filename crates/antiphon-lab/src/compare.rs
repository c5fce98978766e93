//! Runs side by side: where their settings and their figures differ.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_core::Result;

use crate::manifest::Manifest;
use crate::results::{SplitResults, labels};
use crate::run::Run;
use crate::table::aligned;

/// A table for a terminal: a column for each run; a line for each setting in which they differ, and for each figure.
///
/// It ends with a warning if the runs' losses per token, or their figures at all, must not be held against each other.
///
/// # Errors
/// If a run's files cannot be read.
pub fn compare(runs: &[Run]) -> Result<String> {
    let settings = Settings::of(runs)?;
    let mut rows = vec![line("", runs.iter().map(Run::name))];
    for key in &settings.differing {
        rows.push(line(key, settings.all.iter().map(|c| c.get(key).map_or("-".into(), String::clone))));
    }
    if settings.differing.is_empty() {
        rows.push(vec!["no setting differs".into()]);
    }
    rows.extend(figures(runs)?);
    Ok(aligned(&rows) + &warnings(&settings.differing))
}

/// The settings of several runs, with what else their figures depend on.
pub(crate) struct Settings {
    /// For each run, dotted keys and what they are set to.
    all: Vec<BTreeMap<String, String>>,
    differing: Vec<String>,
}

impl Settings {
    /// Reads them.
    pub(crate) fn of(runs: &[Run]) -> Result<Self> {
        let mut all = Vec::new();
        for run in runs {
            all.push(settings_of(run, &run.manifest()?)?);
        }
        Ok(Self { differing: differences(&all.iter().collect::<Vec<_>>()), all })
    }

    /// The keys that are not set to the same value everywhere.
    pub(crate) fn differing(&self) -> &[String] {
        &self.differing
    }

    /// For each run, what the differing keys are set to.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Vec<Option<String>>> {
        self.all.iter().map(|flat| self.differing.iter().map(|key| flat.get(key).cloned()).collect())
    }
}

/// The settings of a run with what else its figures depend on: dotted keys, and `(device)`, `(parent)`, `(data) FILE` and the like.
pub(crate) fn settings_of(run: &Run, manifest: &Manifest) -> Result<BTreeMap<String, String>> {
    let mut flat = BTreeMap::new();
    flatten("", &toml::Value::Table(run.counted_config(manifest)?), &mut flat);
    let threads = manifest.threads.to_string();
    let more = [("version", &manifest.version), ("device", &manifest.device), ("threads", &threads)];
    flat.extend(more.map(|(key, value)| (format!("({key})"), value.clone())));
    flat.extend(manifest.parent.as_ref().map(|parent| ("(parent)".to_owned(), parent.to_string())));
    let short = |hash: &String| hash.chars().take(8).collect();
    flat.extend(manifest.data.iter().map(|(file, hash)| (format!("(data) {file}"), short(hash))));
    Ok(flat)
}

fn line(head: &str, cells: impl Iterator<Item = String>) -> Vec<String> {
    std::iter::once(head.to_string()).chain(cells).collect()
}

/// Dotted keys and what they are set to.
fn flatten(key: &str, value: &toml::Value, flat: &mut BTreeMap<String, String>) {
    let below = |name: &str| if key.is_empty() { name.to_string() } else { format!("{key}.{name}") };
    match value {
        toml::Value::Table(table) => table.iter().for_each(|(name, v)| flatten(&below(name), v, flat)),
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            items.iter().enumerate().for_each(|(i, v)| flatten(&below(&i.to_string()), v, flat));
        }
        toml::Value::String(text) => drop(flat.insert(key.to_string(), text.clone())),
        scalar => drop(flat.insert(key.to_string(), scalar.to_string())),
    }
}

/// The keys that are not set to the same value everywhere.
pub(crate) fn differences(configs: &[&BTreeMap<String, String>]) -> Vec<String> {
    let keys: BTreeSet<&String> = configs.iter().flat_map(|config| config.keys()).collect();
    let differs = |key: &String| configs.windows(2).any(|pair| pair[0].get(key) != pair[1].get(key));
    keys.into_iter().filter(|key| differs(key)).cloned().collect()
}

/// A block of lines for each split.
fn figures(runs: &[Run]) -> Result<Vec<Vec<String>>> {
    let results = runs.iter().map(Run::results).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for name in ["validation", "test"] {
        let split = |i: usize| results[i].as_ref()?.splits().find(|s| s.0 == name).map(|s| s.1);
        let splits: Vec<Option<&SplitResults>> = (0..runs.len()).map(split).collect();
        let measured: Vec<&SplitResults> = splits.iter().copied().flatten().collect();
        if measured.is_empty() {
            continue;
        }
        rows.extend([vec![], vec![name.to_string()]]);
        for label in labels(&measured) {
            let cells = splits.iter().map(|split| split.and_then(|s| s.figure(&label)).unwrap_or("-".into()));
            rows.push(line(&format!("  {label}"), cells));
        }
    }
    Ok(rows)
}

/// What must not be held against each other, a line each.
pub(crate) fn warnings(differing: &[String]) -> String {
    let tokenizers = differing.iter().any(|key| key == "tokenizer" || key.starts_with("tokenizer."));
    let data = differing.iter().any(|key| key.starts_with("(data) "));
    let mut text = String::new();
    if tokenizers || data {
        // A tokenizer trained on other data is another tokenizer.
        text += "\nwarning: the runs have different tokenizers: losses per token, perplexities and token accuracies cannot be \
                 compared; compare losses per character, where few tokens are unknown\n";
    }
    if data {
        text += "\nwarning: the runs read different data: their figures can be compared only if the measured split is the same\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::Runs;
    use crate::testing::{identity, results};

    #[test]
    fn only_what_differs_is_shown_of_the_settings_and_every_figure() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::new(folder.path());
        let mut other = identity("b");
        other.config["model"] = serde_json::json!({ "kind": "gru", "layers": [{ "hidden": 8 }], "widths": [1, 2] });
        let (a, b) = (runs.create(&identity("a"), false).unwrap(), runs.create(&other, false).unwrap());
        a.write_results(&results(24.5)).unwrap();
        let text = compare(&[a.clone(), b.clone()]).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[0], [a.name(), b.name()]);
        assert_eq!(lines[1], ["model.hidden", "8", "-"]);
        assert_eq!(lines[2], ["model.kind", "lstm", "gru"]);
        assert_eq!(lines[3], ["model.layers.0.hidden", "-", "8"]);
        assert_eq!(lines[4], ["model.widths", "-", "[1,", "2]"]);
        assert_eq!(lines[6], ["validation"]);
        assert_eq!(lines[8], ["sequence_error_rate", "23.50", "-"]);
        assert!(!text.contains("warning") && !text.contains("seed"), "{text}");
        assert!(compare(&[a.clone(), a]).unwrap().contains("no setting differs\n"));
    }

    #[test]
    fn losses_per_token_of_different_tokenizers_are_not_to_be_compared() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::new(folder.path());
        let (mut words, mut larger) = (identity("words"), identity("larger"));
        words.config["tokenizer"]["kind"] = "word".into();
        larger.data.insert("train.tsv".into(), "1".into());
        let one = runs.create(&identity("one"), false).unwrap();
        let warnings = |other| {
            let text = compare(&[one.clone(), runs.create(&other, false).unwrap()]).unwrap();
            text.lines().filter(|l| l.starts_with("warning: ")).map(String::from).collect::<Vec<_>>()
        };
        let tokenizers = warnings(words);
        assert_eq!(tokenizers.len(), 1);
        assert!(
            tokenizers[0].ends_with("compare losses per character, where few tokens are unknown"),
            "{tokenizers:?}"
        );
        assert_eq!(warnings(larger).len(), 2);
    }
}
