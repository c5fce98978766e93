//! Parts of the program that are built only where they are asked for.

use antiphon_core::Error;

/// The answer of a build without a cargo feature to somebody who needs it.
#[cfg_attr(all(feature = "wgpu", feature = "dashboard"), expect(dead_code, reason = "this build has every feature"))]
pub(crate) fn missing(what: &str, feature: &str) -> Error {
    let remedy =
        format!("build it in with `--features {feature}`, as in `cargo xtask run --features {feature} CONFIG`");
    Error::new(format!("{what} is not in this build; {remedy}"))
}
