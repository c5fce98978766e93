//! Parts of the program that are built only where they are asked for.

use std::ffi::OsString;

use antiphon_core::Error;
use antiphon_lab::CALLED_AS;

use crate::output::command;

/// The answer of a build without a cargo feature to somebody who needs it.
#[cfg_attr(all(feature = "wgpu", feature = "dashboard"), expect(dead_code, reason = "this build has every feature"))]
pub(crate) fn missing(what: &str, feature: &str) -> Error {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let remedy = if std::env::var_os(CALLED_AS).is_some() {
        // The task builds what it is asked for.
        command([OsString::from("--features"), feature.into()].into_iter().chain(words))
    } else {
        format!("cargo build --package antiphon --features {feature} && {}", command(words))
    };
    Error::new(format!("{what} is not in this build; this builds it in, where the sources are: `{remedy}`"))
}
