//! Writing a tokenizer down: equal ones give equal text.

use std::collections::BTreeMap;

use serde::Serialize;

/// `{"kind": model}`.
pub(crate) fn to_json(kind: &str, model: &impl Serialize) -> String {
    serde_json::to_string(&BTreeMap::from([(kind, model)])).expect("text and numbers can always be written as JSON")
}
