//! Parts of the program that are built only where they are asked for.

use std::ffi::OsString;

use antiphon_core::Error;
use antiphon_lab::CALLED_AS;

use crate::output::{command, quoted};

/// The answer of a build without a cargo feature to somebody who needs it.
#[cfg_attr(all(feature = "wgpu", feature = "dashboard"), expect(dead_code, reason = "this build has every feature"))]
pub(crate) fn missing(what: &str, feature: &str) -> Error {
    let own = [
        ("vulkan", cfg!(feature = "vulkan")),
        ("wgpu", cfg!(all(feature = "wgpu", not(feature = "vulkan")))),
        ("dashboard", cfg!(feature = "dashboard")),
    ];
    let own = own.into_iter().filter(|(_, is_built)| *is_built).map(|(name, _)| name);
    // One command that builds and calls: where a program lies that is built depends on how.
    let features = OsString::from(own.chain([feature]).collect::<Vec<_>>().join(","));
    let words = std::env::args_os().skip(1);
    let remedy = if std::env::var_os(CALLED_AS).is_some() {
        command([OsString::from("--features"), features].into_iter().chain(words))
    } else {
        let release = if env!("ANTIPHON_PROFILE") == "release" { "--release " } else { "" };
        let cargo = format!("cargo run {release}--package antiphon --features {} --", features.to_string_lossy());
        quoted(cargo, words)
    };
    Error::new(format!("{what} is not in this build; this builds it in, where the sources are: `{remedy}`"))
}
