//! Dotted keys: `model.encoder.hidden`, `sweep."model.encoder.kind"`, `layers.0.hidden`.

use toml::de::{DeTable, DeValue};

/// One key after the other, quoted where TOML needs it.
pub(crate) fn write(keys: &[String]) -> String {
    keys.iter().map(|key| write_key(key)).collect::<Vec<_>>().join(".")
}

/// One key, quoted where TOML needs it.
pub(crate) fn write_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { quote(key) }
}

/// A TOML string on one line. JSON's escapes are TOML's, but TOML also wants one for DEL.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// The keys of a dotted key, read as TOML reads it; or what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Vec<String>, String> {
    if text.contains(['\n', '\r']) {
        return Err("a key must stand on one line".to_owned());
    }
    let line = format!("{text} = 0");
    let table = DeTable::parse(&line).map_err(|e| e.message().to_owned())?;
    let (mut keys, mut table) = (Vec::new(), table.get_ref());
    while let Some((key, value)) = table.iter().next() {
        keys.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return Ok(keys),
        }
    }
    Err("no key".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(keys in proptest::collection::vec(any::<String>(), 1..5)) {
            prop_assert_eq!(parse(&write(&keys)), Ok(keys));
        }
    }

    #[test]
    fn keys_that_are_not_keys_are_refused() {
        for text in ["", ".", "a.", "a b", "[a]", "a\nb", "# a", "a = 1"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(parse(r#" sweep . "a.b" "#), Ok(vec!["sweep".into(), "a.b".into()]));
    }
}
