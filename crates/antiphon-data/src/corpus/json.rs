//! The entries of an object of JSON, each with its text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, IgnoredAny};

use super::table::Wanted;
use crate::lines::Fault;

/// An object of JSON: its entries as they come, each value as it is written.
pub(super) struct Object<'l>(Vec<Entry<'l>>);

struct Entry<'l> {
    name: String,
    value: &'l str,
    /// How many bytes of the line come before the value.
    before: usize,
}

/// The object that a line is.
///
/// # Errors
/// If it is none.
pub(super) fn object(line: &str) -> Result<Object<'_>, Fault> {
    if line.trim().is_empty() {
        return Err(Fault::EmptyLine);
    }
    let Some(mut rest) = line.trim_start().strip_prefix('{') else {
        return Err(Fault::Json { what: "it does not begin with `{`".into(), column: 1 });
    };
    serde_json::from_str::<BTreeMap<String, IgnoredAny>>(line).map_err(|error| fault(&error, 0))?;
    let mut entries = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t', '\r', '\n']);
        if rest.starts_with('}') {
            return Ok(Object(entries));
        }
        let (name, behind) = first::<String>(rest);
        let value = behind.trim_start().strip_prefix(':').expect("a name has a value").trim_start();
        (_, rest) = first::<IgnoredAny>(value);
        let before = line.len() - value.len();
        entries.push(Entry { name, value: value[..value.len() - rest.len()].trim_end(), before });
    }
}

/// The value with which a text that is known to be good begins, and what stands behind it.
fn first<T: DeserializeOwned>(text: &str) -> (T, &str) {
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    let value = values.next().and_then(Result::ok).expect("it was read before");
    (value, &text[values.byte_offset()..])
}

/// What is wrong behind the first `before` bytes of a line.
fn fault(error: &serde_json::Error, before: usize) -> Fault {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_owned();
    Fault::Json { what, column: before + error.column().max(1) }
}

impl Object<'_> {
    /// What its entries are called.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.iter().map(|entry| entry.name.clone()).collect()
    }

    /// The text of a column: a number as it is written, `true`, `false`, and nothing for `null`; of a list that of its elements, one
    /// a line.
    ///
    /// # Errors
    /// If the column is not there, is there twice, or holds no text.
    pub(super) fn text(&self, wanted: &Wanted) -> Result<Cow<'static, str>, Fault> {
        let mut texts = self.texts(wanted)?;
        Ok(if texts.len() == 1 { texts.swap_remove(0) } else { texts.join("\n").into() })
    }

    /// The texts of the elements of a list, or that of a column which is none.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub(super) fn texts(&self, wanted: &Wanted) -> Result<Vec<Cow<'static, str>>, Fault> {
        let column = &wanted.column;
        let mut found = self.0.iter().filter(|entry| entry.name == *column);
        let Some(Entry { value, before, .. }) = found.next() else {
            let there = self.names();
            let remedy = wanted.remedy(&there);
            return Err(Fault::NoColumn { column: column.clone(), key: wanted.key.clone(), there, remedy });
        };
        if found.next().is_some() {
            return Err(Fault::Twice(column.clone()));
        }
        if !value.starts_with('[') {
            return plain_text(value, *before, wanted, false).map(|text| vec![text]);
        }
        let (mut texts, mut rest) = (Vec::new(), &value[1..]);
        loop {
            rest = rest.trim_start_matches([',', ' ', '\t', '\r', '\n']);
            if rest.starts_with(']') {
                return Ok(texts);
            }
            let (IgnoredAny, behind) = first(rest);
            let element = rest[..rest.len() - behind.len()].trim_end();
            let line = plain_text(element, before + value.len() - rest.len(), wanted, true)?;
            // A line is an element, so that no element is two.
            texts.push(match line.contains(['\n', '\r']) {
                true => line.replace("\r\n", " ").replace(['\n', '\r'], " ").into(),
                false => line,
            });
            rest = behind;
        }
    }
}

/// The text of a value that is no list, of a column or of an element of the list that it holds; `before`: how many bytes of the line
/// come before it.
///
/// # Errors
/// If it is a list or an object, or a text that cannot be used.
fn plain_text(value: &str, before: usize, wanted: &Wanted, in_list: bool) -> Result<Cow<'static, str>, Fault> {
    let column = || wanted.column.clone();
    let refuse = |what| Err(Fault::NoText { column: column(), what, remedy: wanted.of_object() });
    match (value.as_bytes()[0], in_list) {
        (b'"', _) => {
            let text: String = serde_json::from_str(value).map_err(|error| fault(&error, before))?;
            if text.contains('\0') { Err(Fault::ZeroIn(column())) } else { Ok(text.into()) }
        }
        (b'[', _) => refuse("a list with a list in it"),
        (b'{', true) => refuse("a list with an object in it"),
        (b'{', false) => refuse("an object"),
        (b'n', _) => Ok("".into()),
        _ => Ok(value.to_owned().into()),
    }
}
