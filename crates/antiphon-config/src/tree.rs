//! What all layers say together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Place, Problem, Result};
use config::{ConfigError, Source, Value, ValueKind};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_path_to_error::Segment;

use crate::check::{Cure, Mistake};
use crate::layer::Layer;
use crate::origin::{Origin, is_carried, settle_before, typed};
use crate::schema::Schema;
use crate::{assign, check, dotted, files, wording, write};

/// The settings of an experiment, each with its origin.
#[derive(Debug, Clone)]
pub struct Tree {
    file: PathBuf,
    /// The section that this tree was taken from.
    section: Vec<String>,
    root: Value,
    json: Json,
    dropped: BTreeMap<Vec<String>, Origin>,
}

impl Tree {
    /// Reads `file` with all it extends, this process's environment and the assignments of the command line
    /// (`model.encoder.hidden=64`; a value that is not TOML counts as text; a number leads into a list that a lower
    /// layer has: `model.layers.0.hidden=64`).
    ///
    /// # Errors
    /// If a file cannot be read or is not TOML, files extend each other in a circle, or an assignment cannot be made.
    pub fn load(file: &Path, sets: &[String]) -> Result<Self> {
        Self::load_with(file, sets, assign::variables()?)
    }

    /// [`load`](Self::load) with an environment of the caller's.
    ///
    /// # Errors
    /// Like [`load`](Self::load).
    pub fn load_with(
        file: &Path,
        sets: &[String],
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        let mut layers = files::layers(file)?;
        layers.push(assign::environment(environment)?);
        layers.push(assign::sets(sets)?);
        Self::of_layers(file, layers)
    }

    /// Reads a document that is in memory, as [`load`](Self::load) would read it in `file`, with assignments laid upon it. It
    /// extends nothing, and the environment has no say.
    ///
    /// # Errors
    /// If the text is not TOML, or an assignment cannot be made.
    pub fn of_text(file: &Path, text: &str, sets: &[String]) -> Result<Self> {
        Self::of_layers(file, vec![Layer::parse(text, file)?, assign::sets(sets)?])
    }

    fn of_layers(file: &Path, layers: Vec<Layer>) -> Result<Self> {
        // Several sources are one source. `Config::builder()` would set its top-level keys once more by `config`'s own rules,
        // which split quoted keys and lose the origins of tables.
        let table = layers.collect().map_err(layer_error)?;
        let root = Value::new(None, table);
        let dropped = dropped(&layers, &root);
        Ok(Self { file: file.to_path_buf(), section: Vec::new(), json: json(&root), root, dropped })
    }

    /// The file that was loaded.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// All settings, with all that was inherited beside another `kind` (see [`seen_by`](Self::seen_by)). A number that is
    /// not finite reads `null` here; [`read`](Self::read) refuses it.
    pub fn value(&self) -> &Json {
        &self.json
    }

    /// Where the setting under a dotted key was made; a number leads into a list. `None` if nobody made it.
    pub fn origin(&self, dotted: &str) -> Option<Origin> {
        Origin::from_tag(node(&self.root, &dotted::parse(dotted).ok()?)?.origin()?)
    }

    /// Takes a section out, with its origins. Dotted keys lead on from the section; problems still name the whole way.
    pub fn take(&mut self, key: &str) -> Option<Tree> {
        let ValueKind::Table(table) = &mut self.root.kind else { return None };
        let root = table.remove(key)?;
        let json = self.json.as_object_mut().and_then(|table| table.remove(key)).unwrap_or_default();
        let mut section = self.section.clone();
        section.push(key.to_owned());
        let inside = |keys: &Vec<String>| keys.first().is_some_and(|first| first == key);
        let dropped = self.dropped.iter().filter(|(keys, _)| inside(keys));
        let dropped = dropped.map(|(keys, origin)| (keys[1..].to_vec(), origin.clone())).collect();
        self.dropped.retain(|keys, _| !inside(keys));
        Some(Tree { file: self.file.clone(), section, root, json, dropped })
    }

    /// Lays settings upon all others, as several `--set` together would; each has the origin that it comes with.
    ///
    /// # Errors
    /// If a dotted key is none, or a number leads into a list that has no such entry.
    pub fn assign<'a>(&mut self, settings: impl IntoIterator<Item = (&'a str, &'a Json, Origin)>) -> Result<()> {
        let layer = assign::settings(settings)?;
        let mut before = BTreeMap::new();
        leaves(&self.root, &mut Vec::new(), &mut before);
        layer.collect_to(&mut self.root).map_err(layer_error)?;
        self.json = json(&self.root);
        self.dropped.extend(before);
        self.dropped.retain(|keys, _| node(&self.root, keys).is_none());
        Ok(())
    }

    /// The tree as a type sees it, which is what [`read`](Self::read) reads:
    ///
    /// - without what was inherited beside another `kind` and the new kind does not know; it now is among the
    ///   [`dropped`](Self::dropped);
    /// - with the `kind` of every table that leaves it to a default, without an origin;
    /// - with the text as it was typed where an assignment looks like a number and only text fits.
    pub fn seen_by<T: JsonSchema>(&self) -> Self {
        self.clone().settle(&Schema::of::<T>()).0
    }

    /// What lower layers had set and a higher one dropped without naming it: by `replace`, or by a plain value in place of
    /// a table; in a tree [`seen_by`](Self::seen_by) a type, by another `kind` too. Dotted keys, in alphabetical order,
    /// each with the place that had set it.
    pub fn dropped(&self) -> Vec<(String, Origin)> {
        self.dropped.iter().map(|(keys, origin)| (self.name(keys), origin.clone())).collect()
    }

    /// Every setting on a line of its own, `model.encoder.hidden = 64  # base.toml line 3`, and what was dropped. A `kind`
    /// that is left to a default says so: `batch.kind = "sentences"  # default`.
    pub fn annotated(&self) -> String {
        let mut text = String::new();
        annotate(&self.root, &mut self.section.clone(), &mut text);
        for (key, origin) in self.dropped() {
            text += &format!("# dropped: {key}  # {origin}\n");
        }
        text
    }

    /// Builds a value from the settings, after checking them against the schema of its type.
    ///
    /// # Errors
    /// With **all** mistakes: unknown and missing keys, wrong types and kinds, numbers out of range, lists too short or long.
    /// If there are none, what serde still refuses (a `try_from` of the type, say), with its place.
    pub fn read<T: DeserializeOwned + JsonSchema>(&self) -> Result<T> {
        let (tree, mistakes) = self.clone().settle(&Schema::of::<T>());
        if !mistakes.is_empty() {
            let mut problems: Vec<_> =
                mistakes.into_iter().map(|m| (tree.line(&m.keys), tree.found(&m.keys, m.message))).collect();
            problems.sort_by_key(|(line, _)| *line);
            return Err(Error::many(&self.file, problems.into_iter().map(|(_, problem)| problem).collect()));
        }
        serde_path_to_error::deserialize(tree.json.clone()).map_err(|e| {
            let keys = e.path().iter().map_while(|segment| match segment {
                Segment::Seq { index } => Some(index.to_string()),
                Segment::Map { key } => Some(key.clone()),
                Segment::Enum { .. } | Segment::Unknown => None,
            });
            let keys: Vec<String> = keys.collect();
            Error::many(&tree.file, vec![tree.found(&keys, e.inner().to_string())])
        })
    }

    /// What the type of a schema sees, and the mistakes that remain.
    fn settle(mut self, schema: &Schema) -> (Self, Vec<Mistake>) {
        loop {
            let found = check::check(schema, &self.json, &|keys| typed(node(&self.root, keys)?));
            for kind in &found.kinds {
                if let (Some(chosen), Some(table)) = (&kind.chosen, node_mut(&mut self.root, &kind.keys)) {
                    let depth = self.section.len() + kind.keys.len();
                    settle_before(table, depth, *chosen != kind.default);
                }
            }
            let (mut mistakes, mut settled) = (Vec::new(), true);
            for mistake in found.mistakes {
                let at = node(&self.root, &mistake.keys);
                match (&mistake.cure, at.and_then(typed).map(str::to_owned)) {
                    (Cure::Forget, _) if at.is_some_and(is_carried) => {
                        let mut keys = mistake.keys;
                        if let Some(value) = remove(&mut self.root, &keys) {
                            leaves(&value, &mut keys, &mut self.dropped);
                        }
                    }
                    (Cure::Text, Some(text)) => {
                        if let Some(value) = node_mut(&mut self.root, &mistake.keys) {
                            value.kind = ValueKind::String(text);
                        }
                    }
                    (Cure::None | Cure::Forget | Cure::Text, _) => {
                        mistakes.push(mistake);
                        continue;
                    }
                }
                settled = false;
            }
            if settled {
                for kind in found.kinds.into_iter().filter(|kind| kind.chosen.is_none()) {
                    if let Some(ValueKind::Table(table)) = node_mut(&mut self.root, &kind.keys).map(|v| &mut v.kind) {
                        table.insert(kind.tag, Value::new(None, kind.default));
                    }
                }
                self.json = json(&self.root);
                return (self, mistakes);
            }
            // Once more: a key that is missing may have hidden behind one that is gone.
            self.json = json(&self.root);
        }
    }

    /// A problem at a dotted key of this tree, with line or origin: for what a schema cannot say, such as two settings that
    /// contradict each other.
    pub fn problem(&self, dotted: &str, message: impl Into<String>) -> Problem {
        let keys = dotted::parse(dotted).unwrap_or_else(|_| vec![dotted.to_owned()]);
        self.found(&keys, message.into())
    }

    /// A problem whose place is a key of this tree, as [`problem`](Self::problem) makes it. Any other problem stays as it is.
    pub fn placed(&self, problem: Problem) -> Problem {
        match &problem.place {
            Place::Key { key, .. } => self.problem(key, problem.message),
            _ => problem,
        }
    }

    fn name(&self, keys: &[String]) -> String {
        dotted::write(&[self.section.as_slice(), keys].concat())
    }

    /// The setting, or the innermost table around it.
    fn nearest(&self, keys: &[String]) -> &Value {
        (0..=keys.len()).rev().find_map(|n| node(&self.root, &keys[..n])).unwrap_or(&self.root)
    }

    /// For sorting: lines of the main file in order, everything else behind them.
    fn line(&self, keys: &[String]) -> usize {
        match self.nearest(keys).origin().and_then(Origin::from_tag) {
            Some(Origin::File { path, line }) if path == self.file => line,
            None => 0,
            _ => usize::MAX,
        }
    }

    fn found(&self, keys: &[String], mut message: String) -> Problem {
        let (name, nearest) = (self.name(keys), self.nearest(keys));
        // Where not even its table is there, what stands in some table above has nothing to do with it.
        let table = &keys[..keys.len().saturating_sub(1)];
        let origin = node(&self.root, table).and_then(|_| nearest.origin());
        let place = match origin.and_then(Origin::from_tag) {
            Some(origin) => Place::Key { key: name, origin: Some(origin.seen_from(&self.file)) },
            None => name.into(),
        };
        if is_carried(nearest) {
            message += " (set beside another `kind`)";
        }
        Problem { place, message }
    }
}

/// Our own error, which `config` hands on.
fn layer_error(error: ConfigError) -> Error {
    match error {
        ConfigError::Foreign(e) => e.downcast::<Error>().map_or_else(|e| Error::new(e.to_string()), |e| *e),
        e => Error::new(e.to_string()),
    }
}

/// The value to which `keys` lead.
fn node<'v>(root: &'v Value, keys: &[String]) -> Option<&'v Value> {
    keys.iter().try_fold(root, |value, key| match &value.kind {
        ValueKind::Table(table) => table.get(key),
        ValueKind::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    })
}

fn node_mut<'v>(root: &'v mut Value, keys: &[String]) -> Option<&'v mut Value> {
    keys.iter().try_fold(root, |value, key| match &mut value.kind {
        ValueKind::Table(table) => table.get_mut(key),
        ValueKind::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Takes out the entry of a table to which `keys` lead.
fn remove(root: &mut Value, keys: &[String]) -> Option<Value> {
    let (first, rest) = keys.split_first()?;
    match &mut root.kind {
        ValueKind::Table(table) if rest.is_empty() => table.remove(first),
        ValueKind::Table(table) => remove(table.get_mut(first)?, rest),
        ValueKind::Array(items) => remove(items.get_mut(first.parse::<usize>().ok()?)?, rest),
        _ => None,
    }
}

/// Without origins. `null` for a number that is not finite.
fn json(value: &Value) -> Json {
    match &value.kind {
        ValueKind::Boolean(truth) => Json::from(*truth),
        ValueKind::I64(number) => Json::from(*number),
        ValueKind::U64(number) => Json::from(*number),
        ValueKind::Float(number) => Json::from(*number),
        ValueKind::String(text) => Json::from(text.as_str()),
        ValueKind::Array(items) => items.iter().map(json).collect(),
        ValueKind::Table(table) => table.iter().map(|(key, item)| (key.clone(), json(item))).collect(),
        // No layer makes these.
        ValueKind::Nil | ValueKind::I128(_) | ValueKind::U128(_) => Json::Null,
    }
}

/// A table's entries in alphabetical order.
fn sorted(value: &Value) -> Vec<(&String, &Value)> {
    let ValueKind::Table(table) = &value.kind else { return Vec::new() };
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

fn annotate(value: &Value, keys: &mut Vec<String>, text: &mut String) {
    let mut line = |keys: &[String], plain: &str| {
        let origin = value.origin().and_then(Origin::from_tag).map(|origin| origin.to_string());
        *text += &format!("{} = {plain}  # {}\n", dotted::write(keys), origin.as_deref().unwrap_or("default"));
    };
    match &value.kind {
        ValueKind::Table(table) if table.is_empty() && !keys.is_empty() => line(keys, "{}"),
        ValueKind::Table(_) => {
            for (key, item) in sorted(value) {
                keys.push(key.clone());
                annotate(item, keys, text);
                keys.pop();
            }
        }
        ValueKind::Array(items) if items.iter().any(|item| matches!(item.kind, ValueKind::Table(_))) => {
            for (i, item) in items.iter().enumerate() {
                keys.push(i.to_string());
                annotate(item, keys, text);
                keys.pop();
            }
        }
        ValueKind::Float(number) if !number.is_finite() => line(keys, &number.to_string().to_lowercase()),
        _ => line(keys, &write::inline(&json(value)).unwrap_or_else(|| wording::got(&json(value)))),
    }
}

/// What a layer set and the whole has no place for.
fn dropped(layers: &[Layer], whole: &Value) -> BTreeMap<Vec<String>, Origin> {
    let mut set = BTreeMap::new();
    for layer in layers {
        leaves(&layer.root, &mut Vec::new(), &mut set);
    }
    set.retain(|keys, _| node(whole, keys).is_none());
    set
}

/// Every setting in `value`, itself under `keys`, with its origin. Lists are settings, and so are empty tables.
fn leaves(value: &Value, keys: &mut Vec<String>, found: &mut BTreeMap<Vec<String>, Origin>) {
    let entries = sorted(value);
    if entries.is_empty()
        && let Some(origin) = value.origin().and_then(Origin::from_tag)
    {
        found.insert(keys.clone(), origin);
    }
    for (key, item) in entries {
        if key != "replace" || !matches!(item.kind, ValueKind::Boolean(_)) {
            keys.push(key.clone());
            leaves(item, keys, found);
            keys.pop();
        }
    }
}
