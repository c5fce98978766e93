//! What a schema says about one value: references followed, alternatives sorted out.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde_json::{Map, Value as Json};

use crate::dotted;

/// The schema of a type, as JSON Schema 2020-12.
pub(crate) struct Schema {
    root: Json,
}

/// How a value may be one of several things.
pub(crate) enum Choice<'s> {
    /// There is only this one (the other was nothing at all).
    One(&'s Json),
    /// Tables told apart by the word under `tag`.
    Kinds { tag: &'s str, kinds: Vec<(&'s str, &'s Json)> },
    /// Words, each with its description.
    Words(Vec<(&'s str, Option<&'s str>)>),
    /// Anything else.
    Any(Vec<&'s Json>),
}

impl Schema {
    pub(crate) fn of<T: JsonSchema>() -> Self {
        Self { root: schemars::schema_for!(T).to_value() }
    }

    pub(crate) fn root(&self) -> &Json {
        &self.root
    }

    /// All objects of keywords that apply to a value of `schema`: its own, and those it refers to.
    pub(crate) fn parts<'s>(&'s self, schema: &'s Json) -> Vec<&'s Map<String, Json>> {
        let (mut parts, mut waiting, mut seen) = (Vec::new(), vec![schema], Vec::new());
        while let Some(part) = waiting.pop() {
            let Json::Object(part) = part else { continue };
            parts.push(part);
            if let Some(all) = part.get("allOf").and_then(Json::as_array) {
                waiting.extend(all.iter().rev());
            }
            if let Some(target) = part.get("$ref").and_then(Json::as_str)
                && !seen.contains(&target)
            {
                seen.push(target);
                waiting.extend(target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)));
            }
        }
        parts
    }

    /// The definition to which a schema refers, with its name.
    pub(crate) fn named<'s>(&'s self, schema: &'s Json) -> Option<(&'s str, &'s Json)> {
        let name = schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?;
        Some((name, self.root.get("$defs")?.get(name)?))
    }

    /// The first that `read` finds in the parts of `schema`.
    pub(crate) fn find<'s, R>(
        &'s self,
        schema: &'s Json,
        key: &str,
        read: impl Fn(&'s Json) -> Option<R>,
    ) -> Option<R> {
        self.parts(schema).into_iter().find_map(|part| part.get(key).and_then(&read))
    }

    /// The choice that one part offers.
    pub(crate) fn choice<'s>(&'s self, part: &'s Map<String, Json>) -> Option<Choice<'s>> {
        if let Some(words) = words(part) {
            return Some(Choice::Words(words));
        }
        let (one_of, any_of) = (part.get("oneOf"), part.get("anyOf"));
        let alternatives: Vec<&Json> = one_of
            .or(any_of)?
            .as_array()?
            .iter()
            .filter(|schema| schema.get("type").and_then(Json::as_str) != Some("null"))
            .collect();
        let words: Option<Vec<_>> = alternatives.iter().map(|schema| schema.as_object().and_then(words)).collect();
        Some(match (alternatives.as_slice(), words) {
            (_, Some(words)) => Choice::Words(words.concat()),
            // `anyOf` with `null` is an option; what it holds has choices of its own.
            ([one], None) if one_of.is_none() => Choice::One(one),
            (several, None) => match (self.kinds(several), several) {
                (Some(kinds), _) => kinds,
                (None, [one]) => Choice::One(one),
                (None, _) => Choice::Any(alternatives),
            },
        })
    }

    fn kinds<'s>(&'s self, alternatives: &[&'s Json]) -> Option<Choice<'s>> {
        let constant = |schema: &'s Json, tag: &str| {
            self.find(schema, "properties", |properties| properties.get(tag)?.get("const")?.as_str())
        };
        let tags = self.find(alternatives.first()?, "properties", Json::as_object)?.keys();
        tags.map(String::as_str).find_map(|tag| {
            let kinds: Option<Vec<_>> = alternatives.iter().map(|&s| Some((constant(s, tag)?, s))).collect();
            Some(Choice::Kinds { tag, kinds: kinds? })
        })
    }

    /// The kind of a table described by these parts that names none under `tag`: that of its default.
    pub(crate) fn default_kind<'s>(parts: &[&'s Map<String, Json>], tag: &str) -> Option<&'s str> {
        parts.iter().find_map(|part| part.get("default")?.get(tag)?.as_str())
    }

    /// The keys of a table described by these parts, in alphabetical order.
    pub(crate) fn keys<'s>(parts: &[&'s Map<String, Json>]) -> Vec<(&'s str, &'s Json)> {
        let mut keys: Vec<(&str, &Json)> = Vec::new();
        for (key, schema) in parts.iter().filter_map(|p| p.get("properties")?.as_object()).flatten() {
            match keys.binary_search_by(|(other, _)| (*other).cmp(key)) {
                Ok(_) => {}
                Err(at) => keys.insert(at, (key, schema)),
            }
        }
        keys
    }

    /// The dotted ways from the root to every key of this name, in alphabetical order; not into lists.
    pub(crate) fn ways(&self, name: &str) -> Vec<String> {
        let mut found = BTreeSet::new();
        self.walk(&self.root, &mut Vec::new(), name, &mut found);
        found.into_iter().collect()
    }

    fn walk<'s>(&'s self, of: &'s Json, keys: &mut Vec<&'s str>, name: &str, found: &mut BTreeSet<String>) {
        // Deeper than any settings are; a type may hold itself.
        if keys.len() > 8 {
            return;
        }
        let parts = self.parts(of);
        for choice in parts.iter().filter_map(|part| self.choice(part)) {
            match choice {
                Choice::One(one) => self.walk(one, keys, name, found),
                Choice::Kinds { kinds, .. } => kinds.iter().for_each(|(_, kind)| self.walk(kind, keys, name, found)),
                Choice::Any(any) => any.iter().for_each(|one| self.walk(one, keys, name, found)),
                Choice::Words(_) => {}
            }
        }
        for (key, of) in Self::keys(&parts) {
            keys.push(key);
            if key == name {
                found.insert(keys.iter().map(|key| dotted::write_key(key)).collect::<Vec<_>>().join("."));
            }
            self.walk(of, keys, name, found);
            keys.pop();
        }
    }

    /// Whether these parts require a key.
    pub(crate) fn requires(parts: &[&Map<String, Json>], key: &str) -> bool {
        let lists = parts.iter().filter_map(|part| part.get("required")?.as_array());
        lists.flatten().any(|name| name.as_str() == Some(key))
    }

    /// The schema of the values under keys that have no name of their own.
    pub(crate) fn others<'s>(parts: &[&'s Map<String, Json>]) -> Option<&'s Json> {
        let patterns = parts.iter().filter_map(|p| p.get("patternProperties")?.as_object()?.values().next());
        let others = parts.iter().filter_map(|p| p.get("additionalProperties")).filter(|schema| schema.is_object());
        patterns.chain(others).next()
    }
}

/// The words that a part lists.
fn words(part: &Map<String, Json>) -> Option<Vec<(&str, Option<&str>)>> {
    let description = part.get("description").and_then(Json::as_str);
    if let Some(word) = part.get("const").and_then(Json::as_str) {
        return Some(vec![(word, description)]);
    }
    let words = part.get("enum")?.as_array()?.iter().filter(|word| !word.is_null());
    words.map(|word| Some((word.as_str()?, None))).collect()
}
