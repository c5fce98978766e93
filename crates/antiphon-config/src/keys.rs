//! All settings that a type understands, by their dotted keys: for hints.

use std::collections::BTreeSet;

use antiphon_core::nearest;
use schemars::JsonSchema;
use serde_json::Value as Json;

use crate::dotted;
use crate::schema::{Choice, Schema};

/// Deeper than any settings are; a type may hold itself.
const DEEPEST: usize = 8;

/// The dotted keys of all settings of `T`, of every kind, in alphabetical order; not into lists. Tables are among them.
pub fn keys<T: JsonSchema>() -> Vec<String> {
    let schema = Schema::of::<T>();
    let mut found = BTreeSet::new();
    collect(&schema, schema.root(), &mut Vec::new(), &mut found);
    found.into_iter().collect()
}

/// The settings of `T` that somebody means who names the last part of a dotted key: those that end with `name`, or else
/// with what is nearest to it; `-` stands for `_`. Of a word of three letters or less nothing is near.
pub fn keys_called<T: JsonSchema>(name: &str) -> Vec<String> {
    let (keys, name) = (keys::<T>(), name.replace('-', "_"));
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let names: Vec<String> = keys.iter().map(|key| last(key)).collect();
    let exact = names.contains(&name).then_some(name.as_str());
    let near = || nearest(&name, names.iter().map(String::as_str)).filter(|_| name.chars().count() > 3);
    let Some(meant) = exact.or_else(near) else { return Vec::new() };
    keys.iter().filter(|key| last(key) == meant).cloned().collect()
}

/// The setting of `T` that is nearest to a dotted key, if one is near.
pub fn nearest_key<T: JsonSchema>(key: &str) -> Option<String> {
    nearest(key, keys::<T>().iter().map(String::as_str)).map(str::to_owned)
}

fn collect<'s>(schema: &'s Schema, of: &'s Json, keys: &mut Vec<&'s str>, found: &mut BTreeSet<String>) {
    if keys.len() > DEEPEST {
        return;
    }
    let parts = schema.parts(of);
    for choice in parts.iter().filter_map(|part| schema.choice(part)) {
        match choice {
            Choice::One(one) => collect(schema, one, keys, found),
            Choice::Kinds { kinds, .. } => kinds.iter().for_each(|(_, kind)| collect(schema, kind, keys, found)),
            Choice::Any(any) => any.iter().for_each(|one| collect(schema, one, keys, found)),
            Choice::Words(_) => {}
        }
    }
    for (key, of) in Schema::keys(&parts) {
        keys.push(key);
        found.insert(keys.iter().map(|key| dotted::write_key(key)).collect::<Vec<_>>().join("."));
        collect(schema, of, keys, found);
        keys.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(JsonSchema)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    #[expect(dead_code, reason = "only its schema is looked at")]
    enum Search {
        Greedy { limit: u32 },
        Beam { width: Option<u32>, limit: u32 },
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Settings {
        search: Search,
        train: Train,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Train {
        epochs: u32,
        every_steps: u32,
        limit: u32,
    }

    #[test]
    fn every_key_of_every_kind_is_found() {
        let expected = ["search", "search.kind", "search.limit", "search.width", "train", "train.epochs"];
        assert_eq!(keys::<Settings>()[..6], expected);
    }

    #[test]
    fn a_last_part_leads_to_its_settings_and_a_slip_to_the_nearest() {
        assert_eq!(keys_called::<Settings>("limit"), ["search.limit", "train.limit"]);
        assert_eq!(keys_called::<Settings>("epoch"), ["train.epochs"]);
        assert_eq!(keys_called::<Settings>("every-steps"), ["train.every_steps"]);
        assert_eq!(keys_called::<Settings>("colour"), [""; 0]);
        assert_eq!(keys_called::<Settings>("kin"), [""; 0]);
        assert_eq!(nearest_key::<Settings>("seach.width").as_deref(), Some("search.width"));
        assert_eq!(nearest_key::<Settings>("x"), None);
    }
}
