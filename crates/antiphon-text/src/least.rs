//! The least that a setting can be.

use antiphon_core::Problem;

/// The problem of a key below its least value.
pub(crate) fn at_least(key: &str, value: u64, least: u64) -> Option<Problem> {
    let message = || format!("must be at least {least}, got {value}");
    (value < least).then(|| Problem { place: key.into(), message: message() })
}
