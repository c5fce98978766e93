//! `cargo xtask ci`: everything that must hold before a change goes in.

use crate::cargo;
use crate::stop::Outcome;
use crate::test;

/// Check formatting, lints and tests
#[derive(Debug, PartialEq, clap::Args)]
pub(crate) struct Arguments {
    /// Also run the tests that take minutes
    #[arg(long)]
    pub(crate) slow: bool,
}

pub(crate) fn ci(arguments: &Arguments) -> Outcome {
    cargo::call("fmt", &["--all", "--check"], &[])?;
    cargo::call("clippy", &["--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    test::test(&test::Arguments { slow: arguments.slow, filter: Vec::new() })
}
