//! A tree held against a schema: every mistake, in the user's words.

use std::cmp::Ordering;

use antiphon_core::nearest;
use serde_json::{Map, Number, Value as Json};

use crate::dotted;
use crate::schema::{Choice, Schema};
use crate::wording::{example, got, list, plain_numbers, types, want};

/// What was found in a tree.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) mistakes: Vec<Mistake>,
    /// The tables whose kind has a default, the outer before the inner.
    pub(crate) kinds: Vec<DefaultKind>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mistake {
    /// Where, from the root of what was checked.
    pub(crate) keys: Vec<String>,
    /// What is wrong and how to mend it.
    pub(crate) message: String,
    /// How it may turn out to be none.
    pub(crate) cure: Cure,
}

/// How a mistake may turn out to be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cure {
    /// It will not.
    None,
    /// It is a key that another kind has, or may have: let it be forgotten where it was set for that kind.
    Forget,
    /// Only text fits here: take it where it was typed without quotes.
    Text,
}

/// A table whose kind has a default.
#[derive(Debug, Clone)]
pub(crate) struct DefaultKind {
    /// The table.
    pub(crate) keys: Vec<String>,
    /// Its key that names a kind.
    pub(crate) tag: String,
    /// The kind that it is of unless one is named.
    pub(crate) default: String,
    /// The kind that it names.
    pub(crate) chosen: Option<String>,
}

/// The text as which the value under some keys was assigned, if it was not quoted.
type Typed<'t> = &'t dyn Fn(&[String]) -> Option<&'t str>;

/// Holds `value` against a schema. `null` stands for a number that is not finite.
pub(crate) fn check<'t>(schema: &Schema, value: &Json, typed: Typed<'t>) -> Findings {
    let mut check = Check { schema, typed, keys: Vec::new(), found: Findings::default(), quiet: false };
    check.value(value, schema.root());
    check.found
}

/// Whether a schema has nothing against a value.
pub(crate) fn accepts(schema: &Schema, value: &Json, of: &Json) -> bool {
    let mut check = Check { schema, typed: &|_| None, keys: Vec::new(), found: Findings::default(), quiet: true };
    check.value(value, of);
    check.found.mistakes.is_empty()
}

type Parts<'s> = [&'s Map<String, Json>];

/// The kind of a table, among the others.
struct Kind<'s> {
    tag: &'s str,
    chosen: &'s str,
    /// Whether the table names none and has that of its default.
    unset: bool,
    all: Vec<(&'s str, &'s Json)>,
}

struct Check<'s, 't> {
    schema: &'s Schema,
    typed: Typed<'t>,
    keys: Vec<String>,
    found: Findings,
    /// Whether nobody reads what is wrong. Examples are checked quietly: they would need examples themselves.
    quiet: bool,
}

impl<'s, 't> Check<'s, 't> {
    fn mistake(&mut self, message: impl Into<String>) {
        self.mistake_with(message, Cure::None);
    }

    fn mistake_with(&mut self, message: impl Into<String>, cure: Cure) {
        self.found.mistakes.push(Mistake { keys: self.keys.clone(), message: message.into(), cure });
    }

    fn below(&mut self, key: impl ToString, check: impl FnOnce(&mut Self)) {
        self.keys.push(key.to_string());
        check(self);
        self.keys.pop();
    }

    fn value(&mut self, value: &Json, of: &'s Json) {
        if value.is_null() {
            let cure = if self.takes_text(of) { Cure::Text } else { Cure::None };
            return self.infinite(cure);
        }
        let mut parts = self.schema.parts(of);
        let mut kind = None;
        let mut at = 0;
        while let Some(part) = parts.get(at) {
            let more = match self.schema.choice(part) {
                None => Vec::new(),
                Some(Choice::One(one)) => self.schema.parts(one),
                Some(Choice::Kinds { tag, kinds }) => match self.kind(value, tag, kinds, &parts) {
                    Some((chosen, variant)) => {
                        kind = Some(chosen);
                        self.schema.parts(variant)
                    }
                    None => return,
                },
                Some(Choice::Words(words)) => match self.word(value, &words) {
                    true => Vec::new(),
                    false => return,
                },
                Some(Choice::Any(any)) => match self.any(value, &any) {
                    true => Vec::new(),
                    false => return,
                },
            };
            parts.extend(more);
            at += 1;
        }
        if !fits(value, &parts) {
            let before = self.found.mistakes.len();
            // A whole number with a point may be out of range, which is the worse mistake.
            if let (Json::Number(number), true) = (value, whole(value, &parts).is_some()) {
                self.number(number, &parts);
            }
            if self.found.mistakes.len() == before {
                self.wrong_type(value, of);
            }
            return;
        }
        match value {
            Json::Number(number) => self.number(number, &parts),
            Json::String(text) => self.length(text.chars().count(), "Length", "character", &parts),
            Json::Array(items) => self.list(items, &parts),
            Json::Object(table) => self.table(table, &parts, kind.as_ref()),
            Json::Null | Json::Bool(_) => {}
        }
    }

    /// A value that may be anything, as long as its numbers are numbers.
    fn finite(&mut self, value: &Json) {
        match value {
            Json::Null => self.infinite(Cure::None),
            Json::Array(items) => items.iter().enumerate().for_each(|(i, item)| self.below(i, |c| c.finite(item))),
            Json::Object(table) => table.iter().for_each(|(key, item)| self.below(key, |c| c.finite(item))),
            _ => {}
        }
    }

    fn infinite(&mut self, cure: Cure) {
        let message = match (self.typed)(&self.keys).filter(|typed| !typed.contains(['i', 'n'])) {
            Some(typed) => format!("`{typed}` is too large for a number; give a smaller one"),
            None => "`nan` and `inf` are not allowed; give a finite number".to_owned(),
        };
        self.mistake_with(message, cure);
    }

    /// A number as it was typed, or as it is.
    fn said(&self, value: &Json) -> String {
        (self.typed)(&self.keys).filter(|_| !value.is_string()).map_or_else(|| got(value), str::to_owned)
    }

    /// Whether text is right here, or the text that was typed is.
    fn takes_text(&self, of: &'s Json) -> bool {
        let parts = self.schema.parts(of);
        let choice = parts.iter().find_map(|part| self.schema.choice(part));
        match choice {
            Some(Choice::One(one)) => self.takes_text(one),
            Some(Choice::Any(any)) => any.into_iter().any(|one| self.takes_text(one)),
            Some(Choice::Words(words)) => {
                (self.typed)(&self.keys).is_some_and(|typed| words.iter().any(|(word, _)| *word == typed))
            }
            Some(Choice::Kinds { .. }) => false,
            None => parts.iter().any(|part| types(part).contains(&"string")),
        }
    }

    /// A value that is right here, unless nobody reads it.
    fn example(&self, of: &'s Json) -> Option<String> {
        if self.quiet { None } else { example(self.schema, of) }
    }

    fn wrong_type(&mut self, value: &Json, of: &'s Json) {
        let mut message = format!("must be {}", want(self.schema, of));
        let remedy = self.remedy(value, of);
        if remedy.is_none()
            && let Some(example) = self.example(of)
        {
            message += &format!(" (for example `{example}`)");
        }
        message += &format!(", got {}", self.said(value));
        if let Some(remedy) = remedy {
            message += &format!("; {remedy}");
        }
        let text = !value.is_string() && self.takes_text(of);
        self.mistake_with(message, if text { Cure::Text } else { Cure::None });
    }

    /// How what stands there becomes right, if it is nearly so.
    fn remedy(&self, value: &Json, of: &'s Json) -> Option<String> {
        if self.quiet {
            return None;
        }
        let right = |value: &Json| accepts(self.schema, value, of);
        let write = |value: Json| right(&value).then(|| format!("write {value}"));
        let text = match value {
            Json::Number(_) => return whole(value, &self.schema.parts(of)).and_then(write),
            Json::String(text) => text.trim(),
            _ => return None,
        };
        if text.parse::<Json>().is_ok_and(|value| right(&value)) {
            return Some("remove the quotes".to_owned());
        }
        // Of texts alone; where anything may stand in it, a list is not all that is missing.
        // A shell has taken the quotes of a list.
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let items = bare.map_or(vec![text], |items| items.split(',').map(str::trim).collect());
        let list: Json = items.into_iter().filter(|item| !item.is_empty()).collect();
        if list != Json::Array(Vec::new()) && right(&list) && !right(&Json::from(vec![0])) {
            let quoted =
                bare.map(|_| format!("; in a shell, with quotes around it all: '{}={list}'", self.keys.join(".")));
            return Some(format!("write {list}{}", quoted.unwrap_or_default()));
        }
        let float = || text.parse::<f64>().ok().filter(|number| number.is_finite());
        let integer = text.parse::<i64>().ok().map(Json::from).and_then(write);
        let truth = || text.to_lowercase().parse::<bool>().ok().map(Json::from).and_then(write);
        integer.or_else(|| float().map(Json::from).and_then(write)).or_else(truth)
    }

    /// The kind that a table names, or that of its default; `parts` are what is known of the table so far.
    fn kind(
        &mut self,
        value: &Json,
        tag: &'s str,
        all: Vec<(&'s str, &'s Json)>,
        parts: &Parts<'s>,
    ) -> Option<(Kind<'s>, &'s Json)> {
        let names = || all.iter().map(|(name, _)| *name);
        let Json::Object(table) = value else {
            // The kind of that word, or that of the setting's own example, or the first one.
            let kind = |word: &str| all.iter().find(|(name, _)| *name == word);
            let own = || parts.iter().find_map(|part| part.get("examples")?.get(0)?.get(tag)?.as_str());
            let named = value.as_str().and_then(kind).or_else(|| own().and_then(kind));
            let (_, variant) = named.unwrap_or(&all[0]);
            let example = self.example(variant).map(|example| format!(", for example `{example}`"));
            let (example, got) = (example.unwrap_or_default(), self.said(value));
            self.mistake(format!("must be a table with a `{tag}`{example}; got {got}"));
            return None;
        };
        let default = Schema::default_kind(parts, tag).and_then(|kind| all.iter().position(|(name, _)| *name == kind));
        if let Some(at) = default {
            let chosen = table.get(tag).map(|kind| kind.as_str().unwrap_or_default().to_owned());
            let default = all[at].0.to_owned();
            self.found.kinds.push(DefaultKind { keys: self.keys.clone(), tag: tag.to_owned(), default, chosen });
        }
        match table.get(tag) {
            None if default.is_some() => {
                let (chosen, variant) = all[default?];
                Some((Kind { tag, chosen, unset: true, all }, variant))
            }
            None => {
                let has = |of: &'s Json, key: &String| {
                    Schema::keys(&self.schema.parts(of)).iter().any(|(name, _)| *name == key.as_str())
                };
                let fitting: Vec<_> = all.iter().filter(|(_, of)| table.keys().all(|key| has(of, key))).collect();
                let meant = match fitting.as_slice() {
                    [(one, _)] => format!("; add `{tag} = {}`, which has what is set here", Json::from(*one)),
                    _ => String::new(),
                };
                self.mistake(format!("lacks `{tag}`; the kinds are {}{meant}", list(names())));
                None
            }
            Some(Json::String(word)) => match all.iter().position(|(name, _)| name == word) {
                Some(at) => Some((Kind { tag, chosen: all[at].0, unset: false, all: all.clone() }, all[at].1)),
                None => {
                    let near = nearest(word, names()).map(|near| format!("did you mean `{near}`? "));
                    let (word, near) = (Json::from(word.as_str()), near.unwrap_or_default());
                    let message = format!("no such kind: {word}; {near}the kinds are {}", list(names()));
                    self.below(tag, |c| c.mistake(message));
                    None
                }
            },
            Some(Json::Null) => {
                self.below(tag, |c| c.infinite(Cure::None));
                None
            }
            Some(other) => {
                let wanted = list(names());
                self.below(tag, |c| c.mistake(format!("must be one of {wanted}, got {}", c.said(other))));
                None
            }
        }
    }

    fn word(&mut self, value: &Json, words: &[(&str, Option<&str>)]) -> bool {
        let names = || words.iter().map(|(word, _)| *word);
        let word = value.as_str();
        if names().any(|name| Some(name) == word) {
            return true;
        }
        let near = word.and_then(|word| nearest(word, names())).map(|near| format!("; did you mean `{near}`?"));
        let wanted = if words.len() == 1 { list(names()) } else { format!("one of {}", list(names())) };
        let typed = (self.typed)(&self.keys).filter(|typed| word.is_none() && names().any(|name| name == *typed));
        let cure = if typed.is_some() { Cure::Text } else { Cure::None };
        let message = format!("must be {wanted}, got {}{}", self.said(value), near.unwrap_or_default());
        self.mistake_with(message, cure);
        false
    }

    /// Whether one of the alternatives has nothing against the value; else the complaints of the one that comes closest.
    fn any(&mut self, value: &Json, any: &[&'s Json]) -> bool {
        let mut closest: Option<Findings> = None;
        for one in any {
            let (schema, typed, keys) = (self.schema, self.typed, self.keys.clone());
            let mut check = Check { schema, typed, keys, found: Findings::default(), quiet: self.quiet };
            check.value(value, one);
            if check.found.mistakes.is_empty() {
                self.found.kinds.extend(check.found.kinds);
                return true;
            }
            let closer = closest.as_ref().is_none_or(|closest| check.found.mistakes.len() < closest.mistakes.len());
            let parts = self.schema.parts(one);
            let kinds = parts.iter().any(|part| matches!(self.schema.choice(part), Some(Choice::Kinds { .. })));
            if closer && fits(value, &parts) && (value.is_object() || !kinds) {
                closest = Some(check.found);
            }
        }
        match closest {
            Some(found) => {
                self.found.mistakes.extend(found.mistakes);
                self.found.kinds.extend(found.kinds);
            }
            None => {
                let mut wants: Vec<String> = any.iter().map(|one| want(self.schema, one)).collect();
                wants.dedup();
                let text = !value.is_string() && any.iter().any(|one| self.takes_text(one));
                let message = format!("must be {}, got {}", wants.join(" or "), self.said(value));
                self.mistake_with(message, if text { Cure::Text } else { Cure::None });
            }
        }
        false
    }

    fn number(&mut self, number: &Number, parts: &Parts<'_>) {
        let plain = |bound: &Number| plain_bound(bound);
        // Held against its bounds as the number that it becomes.
        let single = parts.iter().any(|part| part.get("format").and_then(Json::as_str) == Some("float"));
        let beyond = |bound: &Number, side: Ordering, exclusive: bool| {
            let order = compare(number, bound, single);
            order == side || (exclusive && order == Ordering::Equal)
        };
        for part in parts {
            let bound = |key: &str| part.get(key).and_then(Json::as_number);
            let format = part.get("format").and_then(Json::as_str).and_then(format_bounds);
            let broken = if let Some(low) = bound("exclusiveMinimum").filter(|b| beyond(b, Ordering::Less, true)) {
                Some(format!("must be more than {}", plain(low)))
            } else if let Some(low) = bound("minimum").filter(|b| beyond(b, Ordering::Less, false)) {
                Some(format!("must be at least {}", plain(low)))
            } else if let Some(high) = bound("exclusiveMaximum").filter(|b| beyond(b, Ordering::Greater, true)) {
                Some(format!("must be less than {}", plain(high)))
            } else if let Some(high) = bound("maximum").filter(|b| beyond(b, Ordering::Greater, false)) {
                Some(format!("must be at most {}", plain(high)))
            } else if let Some((low, _)) = format.as_ref().filter(|(low, _)| beyond(low, Ordering::Less, false)) {
                Some(format!("must be at least {}", plain(low)))
            } else if let Some((_, high)) = format.as_ref().filter(|(_, high)| beyond(high, Ordering::Greater, false)) {
                Some(format!("must be at most {}", plain(high)))
            } else {
                let step = bound("multipleOf").filter(|step| !is_multiple(number, step));
                step.map(|step| format!("must be a multiple of {}", plain(step)))
            };
            if let Some(broken) = broken {
                let got = self.said(&Json::Number(number.clone()));
                return self.mistake(format!("{broken}, got {got}"));
            }
        }
    }

    fn length(&mut self, length: usize, what: &str, unit: &str, parts: &Parts<'_>) {
        let count = |n: u64| if n == 1 { format!("1 {unit}") } else { format!("{n} {}", plural(unit)) };
        for part in parts {
            let bound = |key: &str| part.get(&format!("{key}{what}")).and_then(Json::as_u64);
            if let Some(low) = bound("min").filter(|&low| (length as u64) < low) {
                return self.mistake(format!("must have at least {}, got {length}", count(low)));
            }
            if let Some(high) = bound("max").filter(|&high| (length as u64) > high) {
                return self.mistake(format!("must have at most {}, got {length}", count(high)));
            }
        }
    }

    fn list(&mut self, items: &[Json], parts: &[&'s Map<String, Json>]) {
        self.length(items.len(), "Items", "entry", parts);
        let first: &[Json] =
            parts.iter().find_map(|part| part.get("prefixItems")?.as_array()).map_or(&[], Vec::as_slice);
        let rest = parts.iter().find_map(|part| part.get("items"));
        for (i, item) in items.iter().enumerate() {
            self.below(i, |c| match first.get(i).or(rest) {
                Some(of) => c.value(item, of),
                None => c.finite(item),
            });
        }
        if parts.iter().any(|part| part.get("uniqueItems") == Some(&Json::Bool(true)))
            && let Some(twice) = (1..items.len()).find(|&i| items[..i].contains(&items[i]))
        {
            self.below(twice, |c| c.mistake(format!("{} is listed twice: remove one", got(&items[twice]))));
        }
    }

    fn table(&mut self, table: &Map<String, Json>, parts: &[&'s Map<String, Json>], kind: Option<&Kind<'s>>) {
        self.length(table.len(), "Properties", "key", parts);
        let keys = Schema::keys(parts);
        let others = Schema::others(parts);
        let is_false = |schema: Option<&Json>| schema == Some(&Json::Bool(false));
        let closed =
            parts.iter().any(|p| is_false(p.get("additionalProperties")) || is_false(p.get("unevaluatedProperties")));
        let mut meant = Vec::new();
        for (key, item) in table {
            let known = keys.iter().find(|(name, _)| name == key).map(|(_, of)| *of);
            let before = self.found.mistakes.len();
            self.below(key, |c| match known.or(others) {
                Some(of) => c.value(item, of),
                None if closed => meant.extend(c.unknown(key, &keys, kind)),
                None => c.finite(item),
            });
            if known.is_some()
                && let Some(kind) = kind.filter(|kind| kind.unset)
                && let Some(mistake) = self.found.mistakes.get_mut(before)
            {
                let takes = |of: &'s Json| {
                    let of = Schema::keys(&self.schema.parts(of)).into_iter().find(|(name, _)| name == key);
                    of.is_some_and(|(_, of)| accepts(self.schema, item, of))
                };
                let takers: Vec<&str> = kind.all.iter().filter(|(_, of)| takes(of)).map(|(name, _)| *name).collect();
                if !takers.is_empty() {
                    mistake.message += &format!("; {}", kind.instead(&takers, ["takes this", "take this"]));
                }
            }
        }
        for (key, of) in &keys {
            // A kind that is missing has a default, or was missed before.
            let tag = kind.is_some_and(|kind| kind.tag == *key);
            let missing = Schema::requires(parts, key) && !table.contains_key(*key) && !tag;
            if missing && !meant.contains(key) {
                let wanted = want(self.schema, of);
                let example = self.example(of);
                let example = example.map(|e| format!(", for example `{} = {e}`", dotted::write_key(key)));
                self.mistake(format!("lacks `{key}`: add {wanted}{}", example.unwrap_or_default()));
            }
        }
    }

    /// An unknown key; gives the one that was meant, if that can be guessed.
    fn unknown(&mut self, key: &str, keys: &[(&'s str, &'s Json)], kind: Option<&Kind<'s>>) -> Option<&'s str> {
        let names = || keys.iter().map(|(name, _)| *name).filter(|name| kind.is_none_or(|kind| kind.tag != *name));
        let near = nearest(key, keys.iter().map(|(name, _)| *name));
        let elsewhere: Vec<&str> = kind.map_or(Vec::new(), |kind| {
            let has = |of: &'s Json| Schema::keys(&self.schema.parts(of)).iter().any(|(name, _)| *name == key);
            kind.all.iter().filter(|(_, of)| has(of)).map(|(name, _)| *name).collect()
        });
        let of_kind = kind.map(|kind| format!(" for kind `{}`", kind.chosen)).unwrap_or_default();
        let (mut ways, here) = (self.schema.ways(key), dotted::write(&self.keys));
        // What stands here beside another kind, of this table or of one around it.
        let beside_another = ways.contains(&here);
        ways.retain(|way| near.is_none() && *way != here);
        let unset = kind.filter(|kind| kind.unset);
        let message = match (elsewhere.as_slice(), near, unset) {
            _ if key == "replace" => {
                "must be true, without quotes, to drop what this table inherits; or remove it".into()
            }
            ([_, ..], _, Some(kind)) => {
                let key = dotted::write_key(key);
                kind.instead(&elsewhere, [&format!("has `{key}`"), &format!("have `{key}`")])
            }
            ([one], _, None) => format!("no such key{of_kind}; kind `{one}` has it"),
            ([_, ..], _, None) => format!("no such key{of_kind}; kinds {} have it", list(elsewhere.iter().copied())),
            ([], _, _) if beside_another => {
                let names = list(names());
                format!("no such key{of_kind} beside the kinds of the tables around it; the keys are {names}")
            }
            ([], Some(near), _) => format!("no such key; did you mean `{near}`?"),
            ([], None, _) if (1..=3).contains(&ways.len()) => {
                let ways: Vec<String> = ways.iter().map(|way| format!("`{way}`")).collect();
                format!("no such key here; did you mean {}?", ways.join(" or "))
            }
            ([], None, _) if names().next().is_none() => format!("no such key{of_kind}; there is nothing to set"),
            ([], None, _) => format!("no such key{of_kind}; the keys are {}", list(names())),
        };
        // A key that no kind of this table has is a slip of the pen, for whatever kind it was meant.
        let foreign = kind.is_none() || !elsewhere.is_empty() || beside_another;
        self.mistake_with(message, if foreign { Cure::Forget } else { Cure::None });
        near.filter(|_| elsewhere.is_empty())
    }
}

impl Kind<'_> {
    /// That it has its kind by default, and what one other, or several, can do with what is set.
    fn instead(&self, others: &[&str], [does, do_so]: [&str; 2]) -> String {
        let Kind { tag, chosen, .. } = self;
        let default = format!("`{tag}` is `{chosen}` unless set, and");
        match others {
            [one] => format!("{default} kind `{one}` {does}: add `{tag} = {}`", Json::from(*one)),
            _ => format!("{default} kinds {} {do_so}: set `{tag}` to one of them", list(others.iter().copied())),
        }
    }
}

/// The whole number that a number with a point is, where one is wanted.
fn whole(value: &Json, parts: &Parts<'_>) -> Option<Json> {
    let wanted = parts.iter().any(|part| types(part).contains(&"integer"));
    let number = value.as_f64().filter(|number| wanted && value.is_f64() && number.fract() == 0.0)?;
    // Beyond 64 bits it stays what it is, which is out of any range.
    Some(if number.abs() < i64::MAX as f64 { Json::from(number as i64) } else { value.clone() })
}

/// Whether a value has a type that all parts allow.
fn fits(value: &Json, parts: &Parts<'_>) -> bool {
    parts.iter().map(|part| types(part)).all(|types| types.is_empty() || types.iter().any(|name| is(value, name)))
}

/// Whether a value has the type of this name. A number with a point is no integer, not even 5.0.
fn is(value: &Json, name: &str) -> bool {
    match name {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

/// Orders two numbers, exactly if both are whole; or as the numbers that they are in single precision.
fn compare(a: &Number, b: &Number, single: bool) -> Ordering {
    let float = |n: &Number| n.as_f64().unwrap_or(f64::NAN);
    let ordered = |a: f64, b: f64| a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    match (a.as_i128(), b.as_i128()) {
        _ if single => ordered(f64::from(float(a) as f32), f64::from(float(b) as f32)),
        (Some(a), Some(b)) => a.cmp(&b),
        _ => ordered(float(a), float(b)),
    }
}

fn is_multiple(number: &Number, step: &Number) -> bool {
    match (number.as_i128(), step.as_i128()) {
        (Some(number), Some(step)) => step == 0 || number % step == 0,
        _ => match (number.as_f64(), step.as_f64()) {
            (Some(number), Some(step)) => (number / step - (number / step).round()).abs() < 1e-9,
            _ => true,
        },
    }
}

/// A bound without a needless `.0`.
pub(crate) fn plain_bound(bound: &Number) -> String {
    let text = plain_numbers(&Json::Number(bound.clone())).to_string();
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// What fits into a number of this format, where the schema does not say it in numbers. The files that settings are saved
/// to have whole numbers of 64 bits with a sign.
pub(crate) fn format_bounds(format: &str) -> Option<(Number, Number)> {
    Some(match format {
        "int32" => (i32::MIN.into(), i32::MAX.into()),
        "uint32" => (0.into(), u32::MAX.into()),
        "int" | "int64" => (i64::MIN.into(), i64::MAX.into()),
        "uint" | "uint64" => (0.into(), i64::MAX.into()),
        "float" => (Number::from_f64(f64::from(f32::MIN))?, Number::from_f64(f64::from(f32::MAX))?),
        _ => return None,
    })
}

fn plural(unit: &str) -> String {
    match unit.strip_suffix("ry") {
        Some(stem) => format!("{stem}ries"),
        None => format!("{unit}s"),
    }
}
