//! `cargo xtask run`: one experiment, from its config to its results.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::cargo::Features;
use crate::data::{Needs, Recipe};
use crate::program::Program;
use crate::stop::Outcome;

/// Run an experiment: prepare its data, train, search, evaluate
///
/// An experiment that is finished prints its results again; one that was interrupted goes on.
#[derive(Debug, PartialEq, clap::Args)]
pub(crate) struct Arguments {
    /// The experiment's config
    config: PathBuf,
    /// Change a setting, as in --set model.encoder.hidden=64
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<String>,
    /// Repeat a finished experiment in a new folder
    #[arg(long)]
    again: bool,
    /// The folder of data sets (otherwise ANTIPHON_DATA_DIR, otherwise data)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// More for `antiphon run`
    #[arg(last = true, value_name = "ARGUMENTS")]
    more: Vec<OsString>,
}

fn assignment(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_string()),
        _ => Err("write it as KEY=VALUE".into()),
    }
}

impl Arguments {
    /// The words for the program.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["run".into(), self.config.clone().into()];
        words.extend(self.set.iter().flat_map(|set| ["--set".into(), set.into()]));
        words.extend(self.again.then(|| "--again".into()));
        words.extend(self.data_dir.iter().flat_map(|folder| ["--data-dir".into(), folder.clone().into()]));
        words.extend(self.more.iter().cloned());
        words
    }
}

pub(crate) fn run(arguments: &Arguments, features: &Features) -> Outcome {
    // Before the build: a config that cannot be read should not cost minutes.
    let needs = Needs::new(Recipe::of(&arguments.config, &arguments.set)?, arguments.data_dir.clone());
    let program = Program::build(features)?;
    needs.prepare(&program)?;
    program.become_it(arguments.words())
}
