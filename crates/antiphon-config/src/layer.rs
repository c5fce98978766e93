//! One layer of an experiment, and how a layer comes to lie upon the others.

use antiphon_core::{Error, Place, Problem, Result};
use config::{ConfigError, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeFloat, DeInteger, DeTable, DeValue};

use crate::dotted;
use crate::origin::{Origin, carry, is_marked, set_before};

/// One layer: a table whose values know where they were set. As a [`Source`] it merges by our rules (see the crate's page)
/// instead of `config`'s, which would split a quoted key at its dots and never drops a thing.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// The layer's table.
    pub(crate) root: Value,
    /// Whether it holds single assignments (environment, `--set`), which may reach into a list: `layers.0.hidden`.
    pub(crate) assigned: bool,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        self.root.clone().into_table()
    }

    fn collect_to(&self, below: &mut Value) -> Result<(), ConfigError> {
        self.merge(below, self.root.clone(), &mut Vec::new()).map_err(|e| ConfigError::Foreign(Box::new(e)))
    }
}

/// So many mistakes in TOML are listed.
const LISTED: usize = 10;

/// What to do about a mistake in TOML whose message does not say it.
fn remedy(message: &str) -> &'static str {
    match message {
        "duplicate key" => ": this key, or this table, is there already; keep one of them",
        message if message.starts_with("string values must be quoted") => ", as in `key = \"text\"`",
        _ => "",
    }
}

impl Layer {
    /// Reads a TOML document whose lines are `file`'s.
    pub(crate) fn parse(text: &str, file: &std::path::Path) -> Result<Self> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let line_ends = text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(at, _)| at).collect();
        let reading = Reading { line_ends, file };
        let mut problems = Vec::new();
        for error in errors {
            let place = error.span().map(|span| Place::line(reading.line(span.start))).unwrap_or_default();
            let problem =
                Problem { place, message: format!("not valid TOML: {}{}", error.message(), remedy(error.message())) };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        if problems.is_empty() {
            let root = Value::new(None, reading.table(table.get_ref(), &mut Vec::new(), &mut problems));
            if problems.is_empty() {
                return Ok(Self { root, assigned: false });
            }
        }
        // One slip may make many; and a text that is no config has one a line.
        let more = problems.len().saturating_sub(LISTED);
        problems.truncate(LISTED);
        if more > 0 {
            let what = if file.extension().is_some_and(|e| e == "toml") {
                "mend the first ones first"
            } else {
                "is this a config? One has a name that ends in `.toml`, and names its data in `[data]`"
            };
            problems.push(Problem { place: Place::default(), message: format!("and {more} more such lines; {what}") });
        }
        Err(Error::many(file, problems))
    }

    /// Lays `above` upon `below`, where `keys` lead.
    fn merge(&self, below: &mut Value, mut above: Value, keys: &mut Vec<String>) -> Result<()> {
        let replaces = drop_replace(&mut above);
        let origin = above.origin().map(str::to_owned);
        let ValueKind::Table(incoming) = above.kind else {
            *below = above;
            return Ok(());
        };
        let mut incoming: Vec<(String, Value)> = incoming.into_iter().collect();
        incoming.sort_by(|a, b| a.0.cmp(&b.0));
        let kind = |value: &Value| if let ValueKind::String(s) = &value.kind { Some(s.clone()) } else { None };
        let above_kind = incoming.iter().find(|(key, _)| key == "kind").and_then(|(_, v)| kind(v));

        match &mut below.kind {
            ValueKind::Table(table) if !replaces => {
                let below_kind = table.get("kind").and_then(kind);
                let other = above_kind.is_some() && below_kind.is_some() && above_kind != below_kind;
                if other {
                    table.values_mut().for_each(carry);
                } else if above_kind.is_some() && below_kind.is_none() {
                    table.values_mut().for_each(|value| set_before(value, keys.len()));
                }
                for (key, value) in incoming {
                    keys.push(key.clone());
                    self.merge(table.entry(key).or_insert_with(|| Value::new(None, ValueKind::Nil)), value, keys)?;
                    keys.pop();
                }
                // A table is where its last file writes it; an assignment inside does not move it, unless it stands beside
                // a new kind, where the assignment alone means it.
                if other || !self.assigned || below.origin().is_none() || is_marked(below) {
                    let kind = std::mem::take(&mut below.kind);
                    *below = Value::new(origin.as_ref(), kind);
                }
            }
            ValueKind::Array(items)
                if self.assigned
                    && !replaces
                    && !incoming.is_empty()
                    && incoming.iter().all(|(key, _)| key.parse::<usize>().is_ok()) =>
            {
                let count = items.len();
                for (key, value) in incoming {
                    let item = key.parse::<usize>().ok().and_then(|i| items.get_mut(i)).ok_or_else(|| {
                        let origin = origin.as_deref().and_then(Origin::from_tag).unwrap_or(Origin::Set);
                        let list = dotted::write(keys);
                        let entries = if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") };
                        Error::new(format!("no such entry: `{list}` has {entries}, counted from 0"))
                            .at(Place::Key { key: format!("{list}.{key}"), origin: Some(origin.to_string()) })
                    })?;
                    keys.push(key);
                    self.merge(item, value, keys)?;
                    keys.pop();
                }
                if is_marked(below) {
                    let kind = std::mem::take(&mut below.kind);
                    *below = Value::new(origin.as_ref(), kind);
                }
            }
            _ => {
                let mut table = Value::new(origin.as_ref(), Map::<String, Value>::new());
                for (key, value) in incoming {
                    keys.push(key.clone());
                    let mut fresh = Value::new(None, ValueKind::Nil);
                    self.merge(&mut fresh, value, keys)?;
                    keys.pop();
                    if let ValueKind::Table(table) = &mut table.kind {
                        table.insert(key, fresh);
                    }
                }
                *below = table;
            }
        }
        Ok(())
    }
}

/// Takes `replace` out of a table, and out of the tables in a list; tells whether it was true.
fn drop_replace(value: &mut Value) -> bool {
    match &mut value.kind {
        ValueKind::Table(table) => match table.get("replace").map(|v| &v.kind) {
            Some(&ValueKind::Boolean(replaces)) => {
                table.remove("replace");
                replaces
            }
            _ => false,
        },
        ValueKind::Array(items) => {
            items.iter_mut().for_each(drop_all_replace);
            false
        }
        _ => false,
    }
}

fn drop_all_replace(value: &mut Value) {
    drop_replace(value);
    if let ValueKind::Table(table) = &mut value.kind {
        table.values_mut().for_each(drop_all_replace);
    }
}

/// A document being read.
struct Reading<'a> {
    line_ends: Vec<usize>,
    file: &'a std::path::Path,
}

impl Reading<'_> {
    /// The line of a byte, counted from 1.
    fn line(&self, byte: usize) -> usize {
        1 + self.line_ends.partition_point(|&end| end < byte)
    }

    fn table(&self, table: &DeTable<'_>, keys: &mut Vec<String>, problems: &mut Vec<Problem>) -> ValueKind {
        let entry = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
            keys.push(key.get_ref().to_string());
            let value = self.value(value.get_ref(), key.span().start, keys, problems);
            keys.pop();
            (key.get_ref().to_string(), value)
        };
        ValueKind::Table(table.iter().map(entry).collect())
    }

    fn value(&self, value: &DeValue<'_>, byte: usize, keys: &mut Vec<String>, problems: &mut Vec<Problem>) -> Value {
        let line = self.line(byte);
        let mut refuse = |keys: &[String], message: String| {
            let place = Place::Key { key: dotted::write(keys), origin: Some(format!("line {line}")) };
            problems.push(Problem { place, message });
            ValueKind::Nil
        };
        let kind = match value {
            DeValue::String(text) => ValueKind::String(text.to_string()),
            DeValue::Boolean(truth) => ValueKind::Boolean(*truth),
            DeValue::Float(float) => match number(float) {
                Some(number) => ValueKind::Float(number),
                None => refuse(keys, format!("`{float}` is too large for a number; give a smaller one")),
            },
            DeValue::Integer(integer) => whole(integer).unwrap_or_else(|| {
                refuse(keys, format!("`{integer}` does not fit into 64 bits; give a smaller number"))
            }),
            DeValue::Datetime(time) => {
                refuse(keys, format!("`{time}` is a date or a time, and no setting is one; write it in quotes"))
            }
            DeValue::Table(table) => self.table(table, keys, problems),
            DeValue::Array(items) => {
                let item = |(i, item): (usize, &Spanned<DeValue<'_>>)| {
                    keys.push(i.to_string());
                    let value = self.value(item.get_ref(), item.span().start, keys, problems);
                    keys.pop();
                    value
                };
                ValueKind::Array(items.iter().enumerate().map(item).collect())
            }
        };
        let origin = Origin::File { path: self.file.to_path_buf(), line };
        Value::new(Some(&origin.to_tag()), kind)
    }
}

/// A whole number, if 64 bits can hold it.
pub(crate) fn whole(integer: &DeInteger<'_>) -> Option<ValueKind> {
    let (digits, radix) = (integer.as_str(), integer.radix());
    let unsigned = || u64::from_str_radix(digits, radix).map(ValueKind::U64);
    i64::from_str_radix(digits, radix).map(ValueKind::I64).or_else(|_| unsigned()).ok()
}

/// A number, `inf` and `nan` among them, unless it is too large for one. Zero has no sign: it would be another setting.
pub(crate) fn number(float: &DeFloat<'_>) -> Option<f64> {
    let number = float.as_str().parse::<f64>().ok()?;
    (number.is_finite() || float.as_str().contains(['i', 'n'])).then_some(number + 0.0)
}
