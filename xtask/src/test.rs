//! `cargo xtask test`: all tests, and the promise that Burn is built once.

use crate::cargo::{self, Features};
use crate::stop::{Outcome, Stop};

/// Run all tests, then make sure that building the program compiles no part of Burn again
#[derive(Debug, PartialEq, clap::Args)]
pub(crate) struct Arguments {
    /// Also run the tests that take minutes: those that are ignored, and those that ask for ANTIPHON_SLOW=1
    #[arg(long)]
    pub(crate) slow: bool,
    /// Only tests whose names contain one of these
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
}

impl Arguments {
    /// The words for cargo.
    fn words(&self, features: &Features) -> Vec<String> {
        let slow = if self.slow { ALL_BUT_NETWORK } else { &[] };
        let words = ["--workspace".to_string()].into_iter().chain(features.words()).chain(["--".into()]);
        words.chain(slow.iter().map(|&word| word.into())).chain(self.filter.iter().cloned()).collect()
    }
}

pub(crate) fn test(arguments: &Arguments, features: &Features) -> Outcome {
    let environment = if arguments.slow { [("ANTIPHON_SLOW", "1")].as_slice() } else { &[] };
    cargo::call("test", &arguments.words(features), environment)?;
    built_once(&cargo::build(features)?.compiled)
}

/// Tests that are ignored because they are slow, but not the one that needs a registry.
const ALL_BUT_NETWORK: &[&str] = &["--include-ignored", "--skip", "the_dictionary_comes_with_cargo"];

/// Fails if a build after the tests compiled Burn a second time.
fn built_once(compiled: &[String]) -> Outcome {
    let again: Vec<&str> = compiled.iter().map(String::as_str).filter(|name| name.starts_with("burn")).collect();
    if again.is_empty() {
        return Ok(());
    }
    let message = "building the program compiled these again after the tests: their features, or those of what they depend on, \
                   differ between the two builds and must be pinned in crates/antiphon/Cargo.toml";
    Err(Stop::Failed(format!("{message}: {}", again.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_tests_are_asked_for() {
        let arguments = |slow| Arguments { slow, filter: vec!["beam".into()] };
        let features = Features::default();
        assert_eq!(arguments(false).words(&features), ["--workspace", "--", "beam"]);
        let slow = arguments(true).words(&features);
        assert_eq!(slow[..3], ["--workspace", "--", "--include-ignored"]);
        assert_eq!(slow.last().map(String::as_str), Some("beam"));
    }

    #[test]
    fn burn_must_not_be_compiled_twice() {
        assert_eq!(built_once(&["antiphon".into(), "serde".into()]), Ok(()));
        let Err(Stop::Failed(message)) = built_once(&["antiphon".into(), "burn_core".into(), "burn".into()]) else {
            panic!("accepted");
        };
        assert!(message.ends_with(": burn_core, burn"), "{message}");
    }
}
