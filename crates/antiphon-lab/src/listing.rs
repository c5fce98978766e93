//! Runs as a list: a table of what sets them apart, and a document for scripts.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use antiphon_core::Result;
use serde_json::{Value, json};

use crate::compare::{differences, settings_of};
use crate::manifest::Manifest;
use crate::results::Results;
use crate::run::Run;

/// More settings than this are no columns any more.
const MOST_COLUMNS: usize = 8;

/// Some runs, each with what its folder says.
#[derive(Debug)]
pub struct Listing(Vec<Listed>);

#[derive(Debug)]
struct Listed {
    run: Run,
    /// Why it cannot be read, if it cannot.
    known: Result<Known, String>,
}

#[derive(Debug)]
struct Known {
    manifest: Manifest,
    state: &'static str,
    /// Dotted keys and what they are set to.
    settings: BTreeMap<String, String>,
    results: Option<Results>,
}

/// What a listed run must have: `KEY=VALUE`. The key is a setting's dotted key or its last parts, or `name`, `status`,
/// `seed`, `version`, `device`, `threads`; in the value `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    key: String,
    value: String,
}

/// A key that no run has: it may be a slip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey(pub String);

/// A value in the order of values: numbers before texts.
#[derive(Debug)]
enum Rank {
    Number(f64),
    Text(String),
}

impl Rank {
    fn of(value: String) -> Self {
        value.parse().map_or(Self::Text(value), Self::Number)
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(_)) => Ordering::Greater,
        }
    }
}

impl Filter {
    /// Reads `KEY=VALUE`.
    ///
    /// # Errors
    /// If there is no key or no `=`, or a state that no run can be in.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            Some(("status" | "state", state)) if !state.contains('*') && !Run::STATES.contains(&state) => {
                Err(format!("no run is ever `{state}`; they are {}", Run::STATES.join(", ")))
            }
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            _ => Err("write it as KEY=VALUE".into()),
        }
    }
}

impl Listing {
    /// Reads what the folders of some runs say. One that cannot be read is listed as such.
    pub fn read(runs: Vec<Run>) -> Self {
        let listed = |run: Run| Listed { known: Known::read(&run).map_err(|error| error.to_string()), run };
        Self(runs.into_iter().map(listed).collect())
    }

    /// Keeps the runs that pass all filters; of several for one key any will do.
    ///
    /// # Errors
    /// With the key if no run has what a filter asks for.
    pub fn filter(&mut self, filters: &[Filter]) -> Result<(), UnknownKey> {
        for Filter { key, .. } in filters {
            if !self.0.is_empty() && !self.0.iter().any(|listed| !listed.values(key).is_empty()) {
                return Err(UnknownKey(key.clone()));
            }
        }
        self.0.retain(|listed| {
            let passes = |Filter { key, value }: &Filter| listed.values(key).iter().any(|own| is_like(own, value));
            filters.iter().all(|filter| filters.iter().filter(|other| other.key == filter.key).any(passes))
        });
        Ok(())
    }

    /// Orders the runs by what a filter's key names, or by `started`, `minutes` or a figure; those without it come last.
    ///
    /// # Errors
    /// With the key if no run has it.
    pub fn sort(&mut self, key: &str) -> Result<(), UnknownKey> {
        let value = |listed: &Listed| listed.figure(key).or_else(|| listed.values(key).into_iter().next());
        if !self.0.is_empty() && !self.0.iter().any(|listed| value(listed).is_some()) {
            return Err(UnknownKey(key.to_owned()));
        }
        self.0.sort_by(|a, b| match (value(a).map(Rank::of), value(b).map(Rank::of)) {
            (Some(a), Some(b)) => a.compare(&b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A line for each run below a line of heads, with a column for each setting in which they differ; and how many such
    /// settings there are if that is too many for columns.
    pub fn table(&self) -> (Vec<Vec<String>>, Option<usize>) {
        let known: Vec<_> = self.0.iter().filter_map(|listed| listed.known.as_ref().ok()).collect();
        let settings: Vec<&BTreeMap<String, String>> = known.iter().map(|known| &known.settings).collect();
        let mut keys = differences(&settings);
        // The seed has a column of its own, and data are no setting.
        keys.retain(|key| key != "seed" && !key.starts_with("(data)"));
        let too_many = (keys.len() > MOST_COLUMNS).then_some(keys.len());
        if too_many.is_some() {
            keys.clear();
        }
        let heads = ["run", "state", "end", "seed", "started", "minutes"].map(String::from).into_iter();
        let heads = heads.chain(short(&keys)).chain(["figures".to_owned()]);
        let rows = self.0.iter().map(|listed| listed.row(&keys));
        (std::iter::once(heads.collect()).chain(rows).collect(), too_many)
    }

    /// All that is known of each run: `{"runs": [{"name", "path", "state", "manifest", "settings", "results"}, …]}`; of one that
    /// cannot be read `name`, `path` and `error`.
    ///
    /// # Errors
    /// If the settings of a run cannot be read any more.
    pub fn json(&self) -> Result<Value> {
        let one = |Listed { run, known }: &Listed| {
            let (name, path) = (run.name(), run.path().display().to_string());
            Ok(match known {
                Err(error) => json!({ "name": name, "path": path, "error": error }),
                Ok(Known { manifest, state, results, .. }) => json!({
                    "name": name, "path": path, "state": state, "manifest": manifest, "settings": run.config()?,
                    "results": results,
                }),
            })
        };
        Ok(json!({ "runs": self.0.iter().map(one).collect::<Result<Vec<_>>>()? }))
    }
}

impl Known {
    fn read(run: &Run) -> Result<Self> {
        let manifest = run.manifest()?;
        let (state, settings) = (run.state(&manifest)?, settings_of(run, &manifest)?);
        // Damaged figures are told by who needs them.
        Ok(Self { state, settings, results: run.results().ok().flatten(), manifest })
    }
}

impl Listed {
    /// What a filter's key stands for; several where the last parts of a key are those of several settings.
    fn values(&self, key: &str) -> Vec<String> {
        let Ok(Known { manifest, state, settings, .. }) = &self.known else {
            return if key == "name" { vec![self.run.name()] } else { Vec::new() };
        };
        match key {
            "name" => return vec![self.run.name(), manifest.name.clone()],
            "status" | "state" => return vec![(*state).to_owned()],
            "seed" => return manifest.seed.iter().map(u64::to_string).collect(),
            "started" => return vec![manifest.started.clone()],
            "minutes" => return vec![(manifest.wall_seconds / 60.0).to_string()],
            _ => {}
        }
        let (end, parenthesized) = (format!(".{key}"), format!("({key})"));
        let named = |own: &&String| *own == key || own.ends_with(&end) || **own == parenthesized;
        settings.keys().filter(named).map(|own| settings[own].clone()).collect()
    }

    /// A figure of the last split that was measured, by its label, or by `split.label`.
    fn figure(&self, key: &str) -> Option<String> {
        let results = self.known.as_ref().ok()?.results.as_ref()?;
        let splits: Vec<_> = results.splits().collect();
        let of = |split: &str, label: &str| splits.iter().find(|(name, _)| *name == split)?.1.value(label);
        let figure = key.split_once('.').and_then(|(split, label)| of(split, label));
        figure.or_else(|| splits.last()?.1.value(key)).map(|figure| figure.to_string())
    }

    fn row(&self, keys: &[String]) -> Vec<String> {
        let Known { manifest, state, settings, results } = match &self.known {
            Ok(known) => known,
            Err(error) => return vec![self.run.name(), format!("unreadable: {error}")],
        };
        let end = manifest.training.as_ref().map_or("", |end| end.reason.name());
        let seed = manifest.seed.map_or(String::new(), |seed| seed.to_string());
        let minutes = format!("{:.1}", manifest.wall_seconds / 60.0);
        let mut row = vec![self.run.name(), (*state).into(), end.into(), seed, manifest.started.clone(), minutes];
        row.extend(keys.iter().map(|key| settings.get(key).map_or("-".into(), String::clone)));
        row.push(results.as_ref().map_or(String::new(), figures));
        row
    }
}

/// The metrics of the test split, or of the validation split where there is no other; without any, its perplexity.
fn figures(results: &Results) -> String {
    let Some((name, split)) = results.splits().last() else { return String::new() };
    let mut figures: Vec<String> =
        split.metrics.iter().map(|(label, score)| format!("{label} {:.2}", score.value)).collect();
    if figures.is_empty() {
        figures.extend(split.losses.iter().map(|losses| format!("perplexity {:.2}", losses.perplexity)));
    }
    format!("{name}: {}", figures.join(", "))
}

/// Dotted keys by as many of their last parts as tell them apart; `kind` alone would not tell of what.
fn short(keys: &[String]) -> Vec<String> {
    let last = |key: &str, parts: usize| {
        let all: Vec<&str> = key.split('.').collect();
        all[all.len().saturating_sub(parts)..].join(".")
    };
    let short = |key: &String| {
        let alone = |parts: &usize| keys.iter().filter(|other| last(other, *parts) == last(key, *parts)).count() == 1;
        let (least, most) = (if key.ends_with(".kind") { 2 } else { 1 }, key.split('.').count());
        (least..=most).find(alone).map_or(key.clone(), |parts| last(key, parts))
    };
    keys.iter().map(short).collect()
}

/// Whether a value is what is wanted: the same number, or the same text, in which `*` stands for any characters.
fn is_like(own: &str, wanted: &str) -> bool {
    if let (Ok(a), Ok(b)) = (own.parse::<f64>(), wanted.parse::<f64>()) {
        return a.total_cmp(&b) == Ordering::Equal || a == b;
    }
    is_like_text(own, wanted)
}

fn is_like_text(own: &str, wanted: &str) -> bool {
    match wanted.split_once('*') {
        None => own == wanted,
        Some((head, rest)) => own.strip_prefix(head).is_some_and(|own| {
            (0..=own.len()).filter(|&i| own.is_char_boundary(i)).any(|i| is_like_text(&own[i..], rest))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Status;
    use crate::runs::Runs;
    use crate::testing::{identity, results};

    /// Three runs of two widths, of which one is finished, and one that is damaged.
    fn listing() -> (tempfile::TempDir, Runs) {
        let folder = tempfile::tempdir().unwrap();
        let runs = Runs::new(folder.path());
        for (name, hidden, seed) in [("a", 8, 1), ("b", 8, 2), ("c", 16, 1)] {
            let mut one = identity(name);
            one.config["model"]["hidden"] = hidden.into();
            one.config["seed"] = seed.into();
            one.config["rate"] = 1e-3.into();
            let run = runs.create(&one, false).unwrap();
            let status = if name == "c" { Status::Finished } else { Status::Stopped };
            run.update_manifest(|manifest| manifest.status = status).unwrap();
            if name == "c" {
                run.write_results(&results(24.5)).unwrap();
            }
        }
        let damaged = runs.create(&identity("d"), false).unwrap();
        std::fs::write(damaged.manifest_path(), "{").unwrap();
        (folder, runs)
    }

    fn names(listing: &Listing) -> String {
        listing.0.iter().map(|listed| listed.run.name().chars().next().unwrap()).collect()
    }

    #[test]
    fn the_settings_that_differ_are_columns() {
        let (_folder, runs) = listing();
        let (rows, too_many) = Listing::read(runs.list().unwrap()).table();
        assert_eq!(rows[0], ["run", "state", "end", "seed", "started", "minutes", "hidden", "figures"]);
        assert_eq!((rows[1][1].as_str(), rows[1][6].as_str(), rows[3][6].as_str()), ("stopped", "8", "16"));
        assert_eq!(rows[3][7], "test: bleu 75.50, sequence_error_rate 24.50");
        assert!(rows[4][1].starts_with("unreadable: ") && too_many.is_none());
    }

    #[test]
    fn filters_of_one_key_are_alternatives_and_all_keys_must_hold() {
        let (_folder, runs) = listing();
        let left = |filters: &[&str]| {
            let mut listing = Listing::read(runs.list().unwrap());
            let filters: Vec<Filter> = filters.iter().map(|filter| Filter::parse(filter).unwrap()).collect();
            listing.filter(&filters).map(|()| names(&listing)).map_err(|UnknownKey(key)| key)
        };
        for (filters, expected) in [
            (&["model.hidden=8"][..], "ab"),
            (&["hidden=16.0"], "c"),
            (&["rate=1e-3", "seed=1"], "ac"),
            (&["status=stopped", "status=finished"], "abc"),
            (&["status=st*"], "ab"),
            (&["status=stopped", "seed=1"], "a"),
            (&["name=b*"], "b"),
            (&["name=*-*", "threads=2"], "abc"),
            (&["name=d*"], "d"),
            (&["hidden=9"], ""),
        ] {
            assert_eq!(left(filters).as_deref(), Ok(expected), "{filters:?}");
        }
        assert_eq!(left(&["hiden=8"]).unwrap_err(), "hiden");
        assert!(Filter::parse("hidden").is_err() && Filter::parse("=3").is_err());
    }

    #[test]
    fn runs_are_sorted_by_settings_and_figures() {
        let (_folder, runs) = listing();
        let sorted = |key: &str| {
            let mut listing = Listing::read(runs.list().unwrap());
            listing.sort(key).map(|()| names(&listing)).map_err(|UnknownKey(key)| key)
        };
        assert_eq!(sorted("seed").as_deref(), Ok("acbd"));
        assert_eq!(sorted("test.bleu").as_deref(), Ok("cabd"));
        assert_eq!(sorted("colour").unwrap_err(), "colour");
    }

    #[test]
    fn numbers_stand_before_texts_each_in_their_order() {
        // As texts, `10` would stand before `1e`, which stands before `2`.
        let mut values = ["b", "10", "1e", "2", "a", "-1", "0.5"].map(|value| Rank::of(value.into()));
        values.sort_by(Rank::compare);
        let told = values.map(|value| match value {
            Rank::Number(number) => number.to_string(),
            Rank::Text(text) => text,
        });
        assert_eq!(told, ["-1", "0.5", "2", "10", "1e", "a", "b"]);
    }

    #[test]
    fn the_document_has_settings_state_and_figures() {
        let (_folder, runs) = listing();
        let document = Listing::read(runs.list().unwrap()).json().unwrap();
        let all = document["runs"].as_array().unwrap();
        assert_eq!((&all[2]["state"], &all[2]["settings"]["model"]["hidden"]), (&json!("finished"), &json!(16)));
        assert_eq!(all[2]["results"]["test"]["metrics"]["bleu"]["value"], 75.5);
        assert!(all[0]["results"].is_null() && all[3]["error"].is_string() && all[3]["manifest"].is_null());
    }

    #[test]
    fn heads_are_as_short_as_they_can_be() {
        let keys = ["a.b.hidden", "a.c.hidden", "a.rate", "(threads)"].map(String::from);
        assert_eq!(short(&keys), ["b.hidden", "c.hidden", "rate", "(threads)"]);
    }
}
