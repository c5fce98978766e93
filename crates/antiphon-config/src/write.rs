//! A tree of values as TOML.

use antiphon_core::{Error, Result};
use serde_json::Value as Json;
use toml::Value as Toml;

use crate::dotted;

/// A table as TOML: keys in alphabetical order, plain values before tables. Nothing (`null`) is left out, as TOML has no
/// word for it; reading the text back gives the same values.
///
/// # Errors
/// If `value` is not a table, a list holds nothing (`null`), or a whole number is beyond TOML's 63 bits.
pub fn to_toml(value: &Json) -> Result<String> {
    match convert(value, &mut Vec::new())? {
        Some(table @ Toml::Table(_)) => {
            toml::to_string(&table).map_err(|e| Error::new(format!("cannot be written as TOML: {e}")))
        }
        _ => Err(Error::new("only a table can be written as TOML")),
    }
}

/// One value on one line, as it would stand behind `key =`; nothing if it is nothing.
pub(crate) fn inline(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::Bool(_) | Json::Number(_) => Some(value.to_string()),
        Json::String(text) => Some(dotted::quote(text)),
        Json::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(inline).collect();
            Some(format!("[{}]", items?.join(", ")))
        }
        Json::Object(entries) => {
            let entry = |(key, item): (&String, &Json)| Some(format!("{} = {}", dotted::write_key(key), inline(item)?));
            let entries: Vec<String> = entries.iter().filter_map(entry).collect();
            Some(if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) })
        }
    }
}

fn convert(value: &Json, keys: &mut Vec<String>) -> Result<Option<Toml>> {
    Ok(Some(match value {
        Json::Null => return Ok(None),
        Json::Bool(truth) => Toml::Boolean(*truth),
        Json::String(text) => Toml::String(text.clone()),
        Json::Number(number) => match (number.as_i64(), number.is_f64().then(|| number.as_f64()).flatten()) {
            (Some(integer), _) => Toml::Integer(integer),
            (_, Some(float)) => Toml::Float(float),
            _ => {
                let message = format!("{number} is beyond TOML's whole numbers; use at most {}", i64::MAX);
                return Err(Error::new(message).at(dotted::write(keys)));
            }
        },
        Json::Array(items) => {
            let mut array = Vec::with_capacity(items.len());
            for (i, item) in items.iter().enumerate() {
                keys.push(i.to_string());
                let item = convert(item, keys)?;
                array.push(item.ok_or_else(|| Error::new("a list cannot hold nothing").at(dotted::write(keys)))?);
                keys.pop();
            }
            Toml::Array(array)
        }
        Json::Object(entries) => {
            let mut table = toml::Table::new();
            for (key, item) in entries {
                keys.push(key.clone());
                if let Some(item) = convert(item, keys)? {
                    table.insert(key.clone(), item);
                }
                keys.pop();
            }
            Toml::Table(table)
        }
    }))
}
