//! The reference page: every key that a type understands.

use schemars::JsonSchema;
use serde_json::{Map, Value as Json};

use crate::check::{format_bounds, plain_bound};
use crate::schema::{Choice, Schema};
use crate::wording::{plain_numbers, types};
use crate::{dotted, write};

/// A Markdown page of all keys of `T`: a section for each table, in the order in which they are met from the top, with a row for
/// each key (type, default, range, meaning). Equal types give equal pages.
pub fn reference<T: JsonSchema>(title: &str) -> String {
    let schema = Schema::of::<T>();
    let mut page = Page { schema: &schema, sections: Vec::new() };
    page.sections.push(Section { name: "Top level".to_owned(), of: schema.root(), places: Vec::new() });
    let mut at = 0;
    while at < page.sections.len() {
        page.visit(at);
        at += 1;
    }
    let mut text = format!("# {title}\n\n{NUMBERS}\n");
    for section in &page.sections {
        text += &page.section(section);
    }
    text
}

/// What holds for all numbers and is not said of each.
const NUMBERS: &str = "A whole number is at most 9223372036854775807, and a number finite. One of single precision is held \
                       against its range as the number that it becomes there.";

/// A table with a name of its own.
struct Section<'s> {
    name: String,
    of: &'s Json,
    places: Vec<Place<'s>>,
}

/// Where a table stands.
#[derive(PartialEq)]
struct Place<'s> {
    /// Dotted keys: `[]` for an entry of a list, `<name>` for a key that the user chooses.
    keys: String,
    /// The kind that it is of there if it names none.
    kind: Option<&'s str>,
}

struct Page<'s> {
    schema: &'s Schema,
    sections: Vec<Section<'s>>,
}

type Parts<'s> = Vec<&'s Map<String, Json>>;

impl<'s> Page<'s> {
    /// The kinds of a table told apart by a tag.
    fn kinds(&self, of: &'s Json) -> Option<(&'s str, Vec<(&'s str, &'s Json)>)> {
        self.schema.parts(of).into_iter().find_map(|part| match self.schema.choice(part)? {
            Choice::Kinds { tag, kinds } => Some((tag, kinds)),
            _ => None,
        })
    }

    /// Whether a section describes this.
    fn has_section(&self, of: &'s Json) -> bool {
        let parts = self.schema.parts(of);
        let closed = || parts.iter().any(|part| part.get("additionalProperties") == Some(&Json::Bool(false)));
        self.kinds(of).is_some() || !Schema::keys(&parts).is_empty() || (closed() && Schema::others(&parts).is_none())
    }

    /// Finds the sections to which the keys of a section lead.
    fn visit(&mut self, at: usize) {
        let of = self.sections[at].of;
        let place = self.sections[at].places.first().map(|place| place.keys.clone()).unwrap_or_default();
        let tables = match self.kinds(of) {
            Some((_, kinds)) => kinds.into_iter().map(|(_, of)| of).collect(),
            None => vec![of],
        };
        for table in tables {
            for (key, of) in Schema::keys(&self.schema.parts(table)) {
                let key = dotted::write_key(key);
                self.follow(of, if place.is_empty() { key } else { format!("{place}.{key}") });
            }
        }
    }

    fn follow(&mut self, of: &'s Json, place: String) {
        if self.has_section(of) {
            let kind = self.kinds(of).and_then(|(tag, _)| Schema::default_kind(&self.schema.parts(of), tag));
            let (name, of) = match self.schema.named(of) {
                Some((name, of)) => (name.to_owned(), of),
                None => (place.clone(), of),
            };
            let place = Place { keys: place, kind };
            match self.sections.iter_mut().find(|section| section.name == name) {
                Some(section) if section.places.contains(&place) => {}
                Some(section) => section.places.push(place),
                None => self.sections.push(Section { name, of, places: vec![place] }),
            }
            return;
        }
        let parts = self.schema.parts(of);
        match parts.iter().find_map(|part| self.schema.choice(part)) {
            Some(Choice::One(one)) => return self.follow(one, place),
            Some(Choice::Any(any)) => return any.into_iter().for_each(|one| self.follow(one, place.clone())),
            _ => {}
        }
        if let Some(items) = self.schema.find(of, "items", Some) {
            self.follow(items, format!("{place}[]"));
        }
        if let Some(others) = Schema::others(&parts) {
            self.follow(others, format!("{place}.<name>"));
        }
    }

    fn section(&self, section: &Section<'s>) -> String {
        let mut text = format!("\n## {}\n", section.name);
        if let Some(description) = self.schema.find(section.of, "description", Json::as_str) {
            text += &format!("\n{}\n", description.trim());
        }
        if !section.places.is_empty() {
            let places: Vec<String> = section.places.iter().map(|place| format!("`{}`", place.keys)).collect();
            text += &format!("\nStands at {}.\n", places.join(", "));
        }
        let Some((tag, kinds)) = self.kinds(section.of) else {
            return text + &self.rows(&self.schema.parts(section.of), None);
        };
        text += &format!("\nChosen by `{tag}`{}:\n\n", unless_set(&section.places));
        for (kind, of) in &kinds {
            let meaning = self.schema.find(of, "description", Json::as_str).unwrap_or_default();
            text += &format!("- `{kind}`: {}\n", one_line(meaning));
        }
        // Kinds that take the same keys share a table.
        let mut tables: Vec<(Vec<&str>, String)> = Vec::new();
        for (kind, of) in &kinds {
            let rows = self.rows(&self.schema.parts(of), Some(tag));
            match tables.iter_mut().find(|(_, other)| *other == rows) {
                Some((names, _)) => names.push(kind),
                None => tables.push((vec![kind], rows)),
            }
        }
        for (names, rows) in tables {
            let names: Vec<String> = names.into_iter().map(|name| format!("`{tag} = {}`", Json::from(name))).collect();
            text += &format!("\nWith {}:\n{rows}", names.join(", "));
        }
        text
    }

    fn rows(&self, parts: &Parts<'s>, tag: Option<&str>) -> String {
        let keys: Vec<_> = Schema::keys(parts).into_iter().filter(|(key, _)| Some(*key) != tag).collect();
        if keys.is_empty() {
            return "\nNothing to set.\n".to_owned();
        }
        let mut text = "\n| key | type | default | range | meaning |\n| --- | --- | --- | --- | --- |\n".to_owned();
        for (key, of) in keys {
            let default = if Schema::requires(parts, key) { "required".to_owned() } else { self.default(of) };
            let cells =
                [format!("`{}`", dotted::write_key(key)), self.type_of(of), default, self.range(of), self.meaning(of)];
            text += &format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
        text
    }

    fn type_of(&self, of: &'s Json) -> String {
        if self.has_section(of) {
            let Some((name, _)) = self.schema.named(of) else { return "table".to_owned() };
            return format!("[{name}](#{})", name.to_lowercase());
        }
        let parts = self.schema.parts(of);
        match parts.iter().find_map(|part| self.schema.choice(part)) {
            Some(Choice::One(one)) => return self.type_of(one),
            Some(Choice::Any(any)) => {
                return any.into_iter().map(|one| self.type_of(one)).collect::<Vec<_>>().join(" or ");
            }
            Some(Choice::Words(words)) => {
                return words
                    .iter()
                    .map(|(word, _)| format!("`{}`", Json::from(*word)))
                    .collect::<Vec<_>>()
                    .join(" or ");
            }
            Some(Choice::Kinds { .. }) | None => {}
        }
        let names = parts.iter().map(|part| types(part)).find(|types| !types.is_empty()).unwrap_or_default();
        match names.first().copied() {
            Some("integer") => "whole number".to_owned(),
            Some("number") if self.schema.find(of, "format", Json::as_str) == Some("float") => {
                "number (single precision)".to_owned()
            }
            Some("number") => "number".to_owned(),
            Some("string") => "string".to_owned(),
            Some("boolean") => "true or false".to_owned(),
            Some("array") => match self.schema.find(of, "items", Some) {
                Some(items) if items.is_object() => format!("list of {}", self.type_of(items)),
                _ => "list".to_owned(),
            },
            Some("object") => match Schema::others(&parts) {
                Some(others) => format!("table of {}", self.type_of(others)),
                None => "table".to_owned(),
            },
            _ => "any value".to_owned(),
        }
    }

    fn default(&self, of: &'s Json) -> String {
        match self.schema.find(of, "default", Some).filter(|default| !default.is_null()) {
            None => "unset".to_owned(),
            Some(default) => match write::inline(&plain_numbers(default)) {
                Some(text) if text.chars().count() <= 60 => format!("`{text}`"),
                _ => "see there".to_owned(),
            },
        }
    }

    fn range(&self, of: &'s Json) -> String {
        let mut said = self.bounds(of);
        let inside = self.schema.find(of, "items", Some).or_else(|| Schema::others(&self.schema.parts(of)));
        if let Some(inside) = inside {
            said.extend(self.bounds(inside).into_iter().map(|bound| format!("each {bound}")));
        }
        if self.schema.find(of, "uniqueItems", Json::as_bool) == Some(true) {
            said.push("each once".to_owned());
        }
        said.join(", ")
    }

    /// What is said of a value's range, and, where its format alone has one, that.
    fn bounds(&self, of: &'s Json) -> Vec<String> {
        let mut said = self.keywords(of);
        let format = self.schema.find(of, "format", Json::as_str).filter(|format| !format.ends_with("64"));
        let bounds = format.filter(|format| *format != "uint" && *format != "int").and_then(format_bounds);
        if let Some((low, high)) = bounds {
            if !said.iter().any(|bound| bound.starts_with("more") || bound.starts_with("at least")) {
                said.insert(0, format!("at least {}", plain_bound(&low)));
            }
            if !said.iter().any(|bound| bound.starts_with("less") || bound.starts_with("at most")) {
                said.push(format!("at most {}", plain_bound(&high)));
            }
        }
        said
    }

    fn keywords(&self, of: &'s Json) -> Vec<String> {
        const BOUNDS: [(&str, &str, &str); 11] = [
            ("exclusiveMinimum", "more than ", ""),
            ("minimum", "at least ", ""),
            ("exclusiveMaximum", "less than ", ""),
            ("maximum", "at most ", ""),
            ("multipleOf", "a multiple of ", ""),
            ("minItems", "at least ", " entries"),
            ("maxItems", "at most ", " entries"),
            ("minLength", "at least ", " characters"),
            ("maxLength", "at most ", " characters"),
            ("minProperties", "at least ", " keys"),
            ("maxProperties", "at most ", " keys"),
        ];
        let say = |&(key, before, after): &(&str, &str, &str)| {
            let bound = self.schema.find(of, key, Json::as_number)?;
            let one = bound.as_u64() == Some(1);
            let after = match after {
                " entries" if one => " entry",
                " characters" if one => " character",
                " keys" if one => " key",
                after => after,
            };
            Some(format!("{before}{}{after}", plain_bound(bound)))
        };
        BOUNDS.iter().filter_map(say).collect()
    }

    fn meaning(&self, of: &'s Json) -> String {
        let mut text = one_line(self.schema.find(of, "description", Json::as_str).unwrap_or_default());
        let mut inner = Some(of);
        while let Some(of) = inner.take() {
            match self.schema.parts(of).into_iter().find_map(|part| self.schema.choice(part)) {
                Some(Choice::One(one)) => inner = Some(one),
                Some(Choice::Words(words)) => {
                    for (word, meaning) in words.into_iter().filter_map(|(word, meaning)| Some((word, meaning?))) {
                        text += &format!(" `{}`: {}", Json::from(word), one_line(meaning));
                    }
                }
                _ => {}
            }
        }
        text.trim().to_owned()
    }
}

/// Of which kind a table is that names none, by the places where it has a default.
fn unless_set(places: &[Place<'_>]) -> String {
    let mut kinds: Vec<(&str, Vec<String>)> = Vec::new();
    for Place { keys, kind } in places {
        let Some(kind) = kind else { continue };
        let keys = format!("`{keys}`");
        match kinds.iter_mut().find(|(other, _)| other == kind) {
            Some((_, places)) => places.push(keys),
            None => kinds.push((kind, vec![keys])),
        }
    }
    let everywhere = |of: &[String]| of.len() == places.len();
    let say = |(kind, of): (&str, Vec<String>)| match everywhere(&of) {
        true => format!(", `{kind}` unless set"),
        false => format!(", `{kind}` unless set at {}", of.join(", ")),
    };
    kinds.into_iter().map(say).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
