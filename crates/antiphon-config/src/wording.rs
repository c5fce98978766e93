//! How values and wishes are put into words.

use serde_json::{Map, Value as Json};

use crate::check::accepts;
use crate::schema::{Choice, Schema};
use crate::{dotted, write};

/// What stands there, as the user wrote it if it is short.
pub(crate) fn got(value: &Json) -> String {
    match value {
        Json::Null => "nothing".to_owned(),
        Json::Bool(_) | Json::Number(_) => value.to_string(),
        Json::String(text) if text.chars().count() > 40 => {
            format!("the string {}", Json::from(text.chars().take(39).chain(['…']).collect::<String>()))
        }
        Json::String(_) => format!("the string {value}"),
        Json::Array(_) => "a list".to_owned(),
        Json::Object(_) => "a table".to_owned(),
    }
}

/// What a schema wants.
pub(crate) fn want(schema: &Schema, of: &Json) -> String {
    let parts = schema.parts(of);
    match parts.iter().find_map(|part| schema.choice(part)) {
        Some(Choice::One(one)) => return want(schema, one),
        Some(Choice::Kinds { tag, .. }) => return format!("a table with a `{tag}`"),
        Some(Choice::Words(words)) => return format!("one of {}", list(words.iter().map(|(word, _)| *word))),
        Some(Choice::Any(any)) => {
            let mut wants: Vec<String> = Vec::new();
            for want in any.iter().map(|one| want(schema, one)) {
                if !wants.contains(&want) {
                    wants.push(want);
                }
            }
            return wants.join(" or ");
        }
        None => {}
    }
    let types: Vec<&str> = parts.iter().map(|part| types(part)).find(|types| !types.is_empty()).unwrap_or_default();
    let names = types.into_iter().filter_map(|name| match name {
        "integer" => Some("a whole number"),
        "number" => Some("a number"),
        "string" => Some("a string"),
        "boolean" => Some("true or false"),
        "array" => Some("a list"),
        "object" => Some("a table"),
        _ => None,
    });
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "a value".to_owned() } else { names.join(" or ") }
}

/// The names of types that a part allows.
pub(crate) fn types(part: &Map<String, Json>) -> Vec<&str> {
    match part.get("type") {
        Some(Json::String(name)) => vec![name],
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A value that a schema allows, as it would stand behind `key =`, if it is short.
pub(crate) fn example(schema: &Schema, of: &Json) -> Option<String> {
    let value = plain_numbers(&sample(schema, of, 0));
    let text = write::inline(&value).filter(|_| accepts(schema, &value, of))?;
    (text.chars().count() <= 80).then_some(text)
}

fn sample(schema: &Schema, of: &Json, depth: usize) -> Json {
    let given = schema.find(of, "examples", |examples| examples.get(0));
    let given = given.or_else(|| schema.find(of, "default", |default| (!default.is_null()).then_some(default)));
    // The default of a kind may lack what has none.
    if let Some(given) = given.map(set_only).filter(|given| accepts(schema, given, of)) {
        return given;
    }
    if depth > 4 {
        return Json::Null;
    }
    let parts = schema.parts(of);
    match parts.iter().find_map(|part| schema.choice(part)) {
        Some(Choice::One(one)) => return sample(schema, one, depth + 1),
        Some(Choice::Kinds { tag, kinds }) => {
            let default =
                Schema::default_kind(&parts, tag).and_then(|kind| kinds.iter().find(|(name, _)| *name == kind));
            let (_, kind) = default.unwrap_or(&kinds[0]);
            return sample(schema, kind, depth + 1);
        }
        Some(Choice::Words(words)) => return words.first().map_or(Json::Null, |(word, _)| Json::from(*word)),
        Some(Choice::Any(any)) => return any.first().map_or(Json::Null, |one| sample(schema, one, depth + 1)),
        None => {}
    }
    let bound = |key: &str| schema.find(of, key, Json::as_f64);
    let lowest = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|low| low + 1.0));
    let highest = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|high| high - 1.0));
    let names = parts.iter().map(|part| types(part)).find(|types| !types.is_empty()).unwrap_or_default();
    match names.first().copied() {
        Some("integer") => {
            let number = bound("multipleOf").unwrap_or(1.0).max(lowest.unwrap_or(1.0)).min(highest.unwrap_or(f64::MAX));
            Json::from(number as i64)
        }
        Some("number") => {
            let (low, high) =
                (bound("minimum").or(bound("exclusiveMinimum")), bound("maximum").or(bound("exclusiveMaximum")));
            Json::from(match (low, high) {
                (Some(low), Some(high)) => low + (high - low) / 2.0,
                (Some(low), None) => low.max(0.0) + 0.5,
                (None, Some(high)) => high.min(1.0) - 0.5,
                (None, None) => 0.5,
            })
        }
        Some("string") => Json::from("text"),
        Some("boolean") => Json::from(true),
        Some("array") => {
            let item = schema.find(of, "items", Some).map(|items| sample(schema, items, depth + 1));
            let several = schema.find(of, "prefixItems", Json::as_array);
            Json::from(match several {
                Some(items) => items.iter().map(|item| sample(schema, item, depth + 1)).collect(),
                None => Vec::from_iter(item.filter(|item| !item.is_null())),
            })
        }
        Some("object") => {
            let keys = Schema::keys(&parts).into_iter().filter(|(key, _)| Schema::requires(&parts, key));
            keys.map(|(key, of)| {
                (key.to_owned(), of.get("const").cloned().unwrap_or_else(|| sample(schema, of, depth + 1)))
            })
            .collect()
        }
        _ => Json::Null,
    }
}

/// A value without what is unset in it, for which TOML has no word.
fn set_only(value: &Json) -> Json {
    match value {
        Json::Object(entries) => {
            let set = entries.iter().filter(|(_, item)| !item.is_null());
            set.map(|(key, item)| (key.clone(), set_only(item))).collect()
        }
        other => other.clone(),
    }
}

/// Numbers as a person would write them: `0.3`, where single precision made it 0.30000001192092896.
pub(crate) fn plain_numbers(value: &Json) -> Json {
    match value {
        Json::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) if f64::from(float as f32) == float => {
                Json::from((float as f32).to_string().parse::<f64>().unwrap_or(float))
            }
            _ => value.clone(),
        },
        Json::Array(items) => items.iter().map(plain_numbers).collect(),
        Json::Object(entries) => entries.iter().map(|(key, item)| (key.clone(), plain_numbers(item))).collect(),
        other => other.clone(),
    }
}

/// `a`, `b` and `c`.
pub(crate) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{}`", dotted::write_key(word))).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => words.concat(),
    }
}
