//! Settings made one by one: in the environment and by `--set`.

use std::collections::BTreeMap;

use antiphon_core::{Error, Place, Problem, Result};
use config::{Map, Value, ValueKind};
use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::dotted;
use crate::layer::{Layer, number, whole};
use crate::origin::Origin;

/// What every variable that is a setting begins with. `ANTIPHON_DATA_DIR` and its like are not settings.
const PREFIX: &str = "ANTIPHON__";
/// As deep as the TOML reader goes.
const DEEPEST: usize = 80;

/// How an error names a variable.
fn variable(name: &str) -> Place {
    Place::text(Origin::Environment { name: name.to_owned() }.to_string())
}

/// The settings of this process's environment.
pub(crate) fn variables() -> Result<Vec<(String, String)>> {
    let ours = std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value));
    ours.filter(|(name, _)| name.starts_with(PREFIX))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(Error::new("not valid UTF-8; set it again").at(variable(&name))),
        })
        .collect()
}

/// The layer of the environment: `ANTIPHON__MODEL__ENCODER__HIDDEN` is `model.encoder.hidden`.
pub(crate) fn environment(variables: impl IntoIterator<Item = (String, String)>) -> Result<Layer> {
    let ours: BTreeMap<String, String> = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    let mut names: BTreeMap<Vec<String>, &str> = BTreeMap::new();
    let (mut assignments, mut problems) = (Vec::new(), Vec::new());
    for (name, text) in &ours {
        let keys: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_lowercase).collect();
        let message = if keys.iter().any(String::is_empty) {
            "not a setting: write it as ANTIPHON__SECTION__KEY".to_owned()
        } else if let Some(other) = names.insert(keys.clone(), name) {
            format!("sets the same key as {other}; keep one of the two")
        } else {
            match refusal(&keys) {
                Some(message) => message,
                None => {
                    assignments.push((keys, text.as_str(), Origin::Environment { name: name.clone() }));
                    continue;
                }
            }
        };
        problems.push(Problem { place: variable(name), message });
    }
    layer(assignments, problems)
}

/// The layer of `--set`: each `a.b.c=value`; of two for one key the later holds.
pub(crate) fn sets(sets: &[String]) -> Result<Layer> {
    let (mut assignments, mut problems) = (Vec::new(), Vec::new());
    for set in sets {
        let parsed = match equals_sign(set) {
            None => Err("has no `=`; write it as `--set a.b.c=value`".to_owned()),
            Some(at) => dotted::parse(&set[..at])
                .map_err(|e| format!("`{}` is not a dotted key: {e}; write it as `--set a.b.c=value`", &set[..at]))
                .and_then(|keys| refusal(&keys).map_or(Ok(keys), Err))
                .map(|keys| (keys, &set[at + 1..], Origin::Set)),
        };
        match parsed {
            Ok(assignment) => assignments.push(assignment),
            Err(message) => problems.push(Problem { place: Place::text(format!("--set {set}")), message }),
        }
    }
    layer(assignments, problems)
}

/// The layer of settings that are made by a program, each under a dotted key and with an origin of its own.
pub(crate) fn settings<'a>(settings: impl IntoIterator<Item = (&'a str, &'a Json, Origin)>) -> Result<Layer> {
    let mut root = Value::new(None, Map::<String, Value>::new());
    for (key, json, origin) in settings {
        let refused = |why: String| Error::new(format!("`{key}` is not a dotted key: {why}"));
        let keys = dotted::parse(key).map_err(refused)?;
        if let Some(why) = refusal(&keys) {
            return Err(Error::new(why));
        }
        let tag = origin.to_tag();
        put(&mut root, &keys, from_json(json, &tag), &tag);
    }
    Ok(Layer { root, assigned: true })
}

fn from_json(json: &Json, tag: &String) -> Value {
    let kind = match json {
        Json::Null => ValueKind::Nil,
        Json::Bool(truth) => ValueKind::Boolean(*truth),
        Json::String(text) => ValueKind::String(text.clone()),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => ValueKind::I64(number),
            (_, Some(number), _) => ValueKind::U64(number),
            (_, _, number) => ValueKind::Float(number.unwrap_or(f64::NAN)),
        },
        Json::Array(items) => ValueKind::Array(items.iter().map(|item| from_json(item, tag)).collect()),
        Json::Object(table) => {
            ValueKind::Table(table.iter().map(|(key, item)| (key.clone(), from_json(item, tag))).collect())
        }
    };
    Value::new(Some(tag), kind)
}

/// Why a key cannot be assigned.
fn refusal(keys: &[String]) -> Option<String> {
    if keys.len() > DEEPEST {
        Some(format!("is deeper than {DEEPEST} levels"))
    } else if keys[0] == "extends" {
        Some("`extends` works only in a file; put it there".to_owned())
    } else {
        None
    }
}

fn layer(assignments: Vec<(Vec<String>, &str, Origin)>, problems: Vec<Problem>) -> Result<Layer> {
    if !problems.is_empty() {
        return Err(Error { file: None, problems });
    }
    let mut root = Value::new(None, Map::<String, Value>::new());
    for (keys, text, origin) in assignments {
        put(&mut root, &keys, value(text, &origin), &origin.to_tag());
    }
    Ok(Layer { root, assigned: true })
}

/// Where the key ends: the first `=` outside quotes.
fn equals_sign(set: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in set.char_indices() {
        match (quote, c) {
            (None, '=') => return Some(at),
            (None, '"' | '\'') => quote = Some(c),
            (Some(_), _) if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(open), _) if c == open => quote = None,
            _ => {}
        }
    }
    None
}

/// Puts `value` where `keys` lead; a number leads into a list that is already there.
fn put(into: &mut Value, keys: &[String], value: Value, tag: &String) {
    let Some((first, rest)) = keys.split_first() else {
        *into = value;
        return;
    };
    if let ValueKind::Array(items) = &mut into.kind
        && let Some(item) = first.parse::<usize>().ok().and_then(|i| items.get_mut(i))
    {
        return put(item, rest, value, tag);
    }
    if !matches!(into.kind, ValueKind::Table(_)) {
        *into = Value::new(Some(tag), Map::<String, Value>::new());
    }
    if let ValueKind::Table(table) = &mut into.kind {
        let fresh = || Value::new(Some(tag), Map::<String, Value>::new());
        put(table.entry(first.clone()).or_insert_with(fresh), rest, value, tag);
    }
}

/// A TOML value if it is one, else the text itself. What was typed without quotes remembers its text: a setting that takes
/// only text means that.
fn value(text: &str, origin: &Origin) -> Value {
    let line = format!("value = {text}");
    let table = DeTable::parse(&line).ok();
    let found = table.as_ref().filter(|table| table.get_ref().len() == 1);
    let found = found.and_then(|table| table.get_ref().values().next());
    // Nothing but the value: what looks like a comment belongs to the text.
    match found.filter(|found| &line[found.span()] == text.trim()) {
        Some(found) => convert(found, text, &line, origin),
        None => Value::new(Some(&origin.to_tag()), text),
    }
}

/// A value that was typed as `text`, those inside as `line` has them. A date or a time was meant as text, as there is no such
/// setting.
fn convert(value: &Spanned<DeValue<'_>>, text: &str, line: &str, origin: &Origin) -> Value {
    let inside = |item: &Spanned<DeValue<'_>>| convert(item, &line[item.span()], line, origin);
    let quoted = matches!(value.get_ref(), DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_));
    let kind = match value.get_ref() {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        DeValue::Integer(integer) => {
            let far = if integer.as_str().starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY };
            whole(integer).unwrap_or_else(|| ValueKind::Float(integer.to_string().parse().unwrap_or(far)))
        }
        DeValue::Float(float) => ValueKind::Float(number(float).unwrap_or(f64::INFINITY)),
        DeValue::Boolean(truth) => ValueKind::Boolean(*truth),
        DeValue::Datetime(_) => ValueKind::String(text.to_owned()),
        DeValue::Array(items) => ValueKind::Array(items.iter().map(inside).collect()),
        DeValue::Table(table) => {
            ValueKind::Table(table.iter().map(|(key, item)| (key.get_ref().to_string(), inside(item))).collect())
        }
    };
    Value::new(Some(&if quoted { origin.to_tag() } else { origin.to_tag_of(text) }), kind)
}
