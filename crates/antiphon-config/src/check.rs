//! A tree held against a schema: every mistake, in the user's words.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value as Json};

use crate::dotted;
use crate::schema::{Choice, Schema};
use crate::wording::{example, got, list, nearest, plain_numbers, types, want};

/// One mistake.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mistake {
    /// Where, from the root of what was checked.
    pub(crate) keys: Vec<String>,
    /// What is wrong and how to mend it.
    pub(crate) message: String,
    /// Whether it is a key that another kind has, or may have: no mistake where it was set for that kind.
    pub(crate) foreign: bool,
}

/// All mistakes of `value`. `null` stands for a number that is not finite.
pub(crate) fn mistakes(schema: &Schema, value: &Json) -> Vec<Mistake> {
    let mut check = Check { schema, keys: Vec::new(), mistakes: Vec::new() };
    check.value(value, schema.root());
    check.mistakes
}

type Parts<'s> = [&'s Map<String, Json>];

/// The kind that a table has chosen, among the others.
struct Kind<'s> {
    tag: &'s str,
    chosen: &'s str,
    all: Vec<(&'s str, &'s Json)>,
}

struct Check<'s> {
    schema: &'s Schema,
    keys: Vec<String>,
    mistakes: Vec<Mistake>,
}

impl<'s> Check<'s> {
    fn mistake(&mut self, message: impl Into<String>) {
        self.mistakes.push(Mistake { keys: self.keys.clone(), message: message.into(), foreign: false });
    }

    fn below(&mut self, key: impl ToString, check: impl FnOnce(&mut Self)) {
        self.keys.push(key.to_string());
        check(self);
        self.keys.pop();
    }

    fn value(&mut self, value: &Json, of: &'s Json) {
        if value.is_null() {
            return self.finite(value);
        }
        let mut parts = self.schema.parts(of);
        let mut kind = None;
        let mut at = 0;
        while let Some(part) = parts.get(at) {
            let more = match self.schema.choice(part) {
                None => Vec::new(),
                Some(Choice::One(one)) => self.schema.parts(one),
                Some(Choice::Kinds { tag, kinds }) => match self.kind(value, tag, kinds) {
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
            return self.wrong_type(value, of);
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
            Json::Null => self.mistake("`nan` and `inf` are not allowed; give a finite number"),
            Json::Array(items) => items.iter().enumerate().for_each(|(i, item)| self.below(i, |c| c.finite(item))),
            Json::Object(table) => table.iter().for_each(|(key, item)| self.below(key, |c| c.finite(item))),
            _ => {}
        }
    }

    fn wrong_type(&mut self, value: &Json, of: &Json) {
        let mut message = format!("must be {}", want(self.schema, of));
        let allowed: Vec<&str> = self.schema.parts(of).into_iter().flat_map(types).collect();
        let whole = value.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e15 && allowed.contains(&"integer"));
        let unquoted = value.as_str().and_then(|text| text.trim().parse::<Json>().ok());
        let remedy = match (whole, unquoted) {
            (Some(whole), _) => Some(format!("write {whole}")),
            (None, Some(json)) if allowed.iter().any(|name| is(&json, name)) => Some("remove the quotes".to_owned()),
            _ => None,
        };
        if remedy.is_none()
            && let Some(example) = example(self.schema, of)
        {
            message += &format!(" (for example `{example}`)");
        }
        message += &format!(", got {}", got(value));
        if let Some(remedy) = remedy {
            message += &format!("; {remedy}");
        }
        self.mistake(message);
    }

    /// The kind that a table names, if it names one of these.
    fn kind(&mut self, value: &Json, tag: &'s str, all: Vec<(&'s str, &'s Json)>) -> Option<(Kind<'s>, &'s Json)> {
        let names = || all.iter().map(|(name, _)| *name);
        let Json::Object(table) = value else {
            let name = value.as_str().and_then(|word| names().find(|name| *name == word)).unwrap_or(all[0].0);
            let example = format!("{{ {tag} = {} }}", Json::from(name));
            self.mistake(format!("must be a table with a `{tag}`, for example `{example}`; got {}", got(value)));
            return None;
        };
        match table.get(tag) {
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
                Some(at) => Some((Kind { tag, chosen: all[at].0, all: all.clone() }, all[at].1)),
                None => {
                    let near = nearest(word, names()).map(|near| format!("did you mean `{near}`? "));
                    let (word, near) = (Json::from(word.as_str()), near.unwrap_or_default());
                    let message = format!("no such kind: {word}; {near}the kinds are {}", list(names()));
                    self.below(tag, |c| c.mistake(message));
                    None
                }
            },
            Some(Json::Null) => {
                self.below(tag, |c| c.finite(&Json::Null));
                None
            }
            Some(other) => {
                let message = format!("must be one of {}, got {}", list(names()), got(other));
                self.below(tag, |c| c.mistake(message));
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
        self.mistake(format!("must be {wanted}, got {}{}", got(value), near.unwrap_or_default()));
        false
    }

    /// Whether one of the alternatives has nothing against the value; else the complaints of the one that comes closest.
    fn any(&mut self, value: &Json, any: &[&'s Json]) -> bool {
        let mut closest: Option<Vec<Mistake>> = None;
        for one in any {
            let mut check = Check { schema: self.schema, keys: self.keys.clone(), mistakes: Vec::new() };
            check.value(value, one);
            if check.mistakes.is_empty() {
                return true;
            }
            let closer = closest.as_ref().is_none_or(|closest| check.mistakes.len() < closest.len());
            if closer && fits(value, &self.schema.parts(one)) {
                closest = Some(check.mistakes);
            }
        }
        match closest {
            Some(mistakes) => self.mistakes.extend(mistakes),
            None => {
                let mut wants: Vec<String> = any.iter().map(|one| want(self.schema, one)).collect();
                wants.dedup();
                self.mistake(format!("must be {}, got {}", wants.join(" or "), got(value)));
            }
        }
        false
    }

    fn number(&mut self, number: &Number, parts: &Parts<'_>) {
        let plain = |bound: &Number| plain_bound(bound);
        let beyond = |bound: &Number, side: Ordering, exclusive: bool| {
            let order = compare(number, bound);
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
                Some(format!("must be at least {low}"))
            } else if let Some((_, high)) = format.as_ref().filter(|(_, high)| beyond(high, Ordering::Greater, false)) {
                Some(format!("must be at most {high}"))
            } else {
                let step = bound("multipleOf").filter(|step| !is_multiple(number, step));
                step.map(|step| format!("must be a multiple of {}", plain(step)))
            };
            if let Some(broken) = broken {
                return self.mistake(format!("{broken}, got {number}"));
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
            self.below(twice, |c| c.mistake(format!("stands in the list already: {}; remove one", got(&items[twice]))));
        }
    }

    fn table(&mut self, table: &Map<String, Json>, parts: &[&'s Map<String, Json>], kind: Option<&Kind<'s>>) {
        let keys = Schema::keys(parts);
        let others = Schema::others(parts);
        let is_false = |schema: Option<&Json>| schema == Some(&Json::Bool(false));
        let closed =
            parts.iter().any(|p| is_false(p.get("additionalProperties")) || is_false(p.get("unevaluatedProperties")));
        let mut meant = Vec::new();
        for (key, item) in table {
            let known = keys.iter().find(|(name, _)| name == key).map(|(_, of)| *of);
            self.below(key, |c| match known.or(others) {
                Some(of) => c.value(item, of),
                None if closed => meant.extend(c.unknown(key, &keys, kind)),
                None => c.finite(item),
            });
        }
        for (key, of) in &keys {
            let missing = Schema::requires(parts, key) && !table.contains_key(*key);
            if missing && !meant.contains(key) {
                let wanted = want(self.schema, of);
                let example = example(self.schema, of);
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
        let mut ways = if near.is_none() { self.schema.ways(key) } else { Vec::new() };
        // That of another kind.
        ways.retain(|way| *way != dotted::write(&self.keys));
        let message = match (elsewhere.as_slice(), near) {
            _ if key == "replace" => {
                "must be true, without quotes, to drop what this table inherits; or remove it".into()
            }
            ([one], _) => format!("no such key{of_kind}; kind `{one}` has it"),
            ([_, ..], _) => format!("no such key{of_kind}; kinds {} have it", list(elsewhere.iter().copied())),
            ([], Some(near)) => format!("no such key; did you mean `{near}`?"),
            ([], None) if (1..=3).contains(&ways.len()) => {
                let ways: Vec<String> = ways.iter().map(|way| format!("`{way}`")).collect();
                format!("no such key here; did you mean {}?", ways.join(" or "))
            }
            ([], None) if names().next().is_none() => format!("no such key{of_kind}; there is nothing to set"),
            ([], None) => format!("no such key{of_kind}; the keys are {}", list(names())),
        };
        // A key that no kind of this table has is a slip of the pen, for whatever kind it was meant.
        let foreign = kind.is_none() || !elsewhere.is_empty();
        self.mistakes.push(Mistake { keys: self.keys.clone(), message, foreign });
        near.filter(|_| elsewhere.is_empty())
    }
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

/// Orders two numbers, exactly if both are whole.
fn compare(a: &Number, b: &Number) -> Ordering {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let float = |n: &Number| n.as_f64().unwrap_or(f64::NAN);
            float(a).partial_cmp(&float(b)).unwrap_or(Ordering::Equal)
        }
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

/// What fits into a number of this format, where the schema does not say it in numbers.
fn format_bounds(format: &str) -> Option<(Number, Number)> {
    Some(match format {
        "int32" => (i32::MIN.into(), i32::MAX.into()),
        "uint32" => (0.into(), u32::MAX.into()),
        "int" | "int64" => (i64::MIN.into(), i64::MAX.into()),
        "float" => (Number::from_f64(f64::from(f32::MIN))?, Number::from_f64(f64::from(f32::MAX))?),
        _ => return None,
    })
}

fn plural(unit: &str) -> String {
    match unit.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{unit}s"),
    }
}
