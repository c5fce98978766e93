//! `cargo xtask ci`: everything that must hold before a change goes in.

use crate::cargo::{self, Features};
use crate::stop::Outcome;
use crate::test;

/// Check formatting, lints and tests
#[derive(Debug, PartialEq, clap::Args)]
pub(crate) struct Arguments {
    /// Also run the tests that take minutes
    #[arg(long)]
    pub(crate) slow: bool,
}

pub(crate) fn ci(arguments: &Arguments, features: &Features) -> Outcome {
    cargo::call("fmt", &["--all", "--check"].map(String::from), &[])?;
    let lints = ["--workspace", "--all-targets"].map(String::from).into_iter().chain(features.words());
    let lints: Vec<String> = lints.chain(["--", "-D", "warnings"].map(String::from)).collect();
    cargo::call("clippy", &lints, &[])?;
    test::test(&test::Arguments { slow: arguments.slow, filter: Vec::new() }, features)
}
