//! The command line.
//!
//! Exit codes: 0 done, 1 an expectation is not met or a sweep has nothing to rank, 2 a mistake in what was given or a failing
//! machine, 130 interrupted. A command writes its answer to the standard output and everything else to the standard error.

mod ask;
mod average;
mod chat;
mod check;
mod compare;
mod data;
mod distil;
mod downloads;
mod evaluate;
mod extend;
mod finished;
mod generate;
mod hints;
mod lines;
mod models;
mod predict;
mod reference;
mod report;
mod reproduce;
mod run;
mod runs;
mod score;
mod sweep;
mod target;
mod transcribe;
mod tune;
mod vectors;
mod work;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use antiphon_core::{Error, Result};
use antiphon_lab::{Run, Runs};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::device::DeviceConfig;
use crate::{interrupt, output};

/// Recurrent encoder-decoder language models: one config is one experiment
#[derive(Debug, Parser)]
#[command(name = "antiphon", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

fn after_help() -> String {
    format!(
        "\
Start with
  {}
  {}

Exit codes: 0 done, 1 an expectation is not met (reproduce) or nothing can be ranked (sweep), 2 a mistake in what was given,
130 interrupted (what is done is kept: give the command again).",
        output::command(["data", "cmudict"]),
        output::command(["run", "configs/g2p/quickstart.toml"]),
    )
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArguments),
    Train(run::TrainArguments),
    Extend(extend::Arguments),
    Average(average::Arguments),
    Sweep(sweep::Arguments),
    Reproduce(reproduce::Arguments),
    Check(check::Arguments),
    Evaluate(evaluate::Arguments),
    Tune(tune::Arguments),
    Predict(predict::Arguments),
    Transcribe(transcribe::Arguments),
    Generate(generate::Arguments),
    Ask(ask::Arguments),
    Chat(chat::Arguments),
    Score(score::Arguments),
    Distil(distil::Arguments),
    Vectors(vectors::Arguments),
    Data(data::Arguments),
    Runs(runs::Arguments),
    Compare(compare::Arguments),
    Report(report::Arguments),
    Reference(reference::Arguments),
}

/// How a command ended, if not by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Done,
    /// A run is not what its config promises, or a sweep has nothing to rank.
    Unmet,
    Interrupted,
}

/// Performs what the process was called for.
pub fn main() -> ExitCode {
    let parser = CommandLine::command().bin_name(output::program()).after_help(after_help());
    let words: Vec<OsString> = std::env::args_os().collect();
    let matches = parser.clone().try_get_matches_from(&words);
    let matches = matches.unwrap_or_else(|error| hints::improved(error, &parser, &words).exit());
    let CommandLine { command } = CommandLine::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let ending = match command {
        Command::Run(arguments) => arguments.perform(),
        Command::Train(arguments) => arguments.perform(),
        Command::Extend(arguments) => arguments.perform(),
        Command::Average(arguments) => arguments.perform(),
        Command::Sweep(arguments) => arguments.perform(),
        Command::Reproduce(arguments) => arguments.perform(),
        Command::Check(arguments) => arguments.perform(),
        Command::Evaluate(arguments) => arguments.perform(),
        Command::Tune(arguments) => arguments.perform(),
        Command::Predict(arguments) => arguments.perform(),
        Command::Transcribe(arguments) => arguments.perform(),
        Command::Generate(arguments) => arguments.perform(),
        Command::Ask(arguments) => arguments.perform(),
        Command::Chat(arguments) => arguments.perform(),
        Command::Score(arguments) => arguments.perform(),
        Command::Distil(arguments) => arguments.perform(),
        Command::Vectors(arguments) => arguments.perform(),
        Command::Data(arguments) => arguments.perform(),
        Command::Runs(arguments) => arguments.perform(),
        Command::Compare(arguments) => arguments.perform(),
        Command::Report(arguments) => arguments.perform(),
        Command::Reference(arguments) => arguments.perform(),
    };
    match ending {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Unmet) => ExitCode::from(1),
        Ok(Ending::Interrupted) => ExitCode::from(interrupt::EXIT_CODE),
        Err(error) => {
            output::tell(&format!("error: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Changes of settings.
#[derive(Debug, Args)]
struct Sets {
    /// Change a setting, as in --set model.encoder.hidden=64
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<String>,
}

fn assignment(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("write it as KEY=VALUE".into()),
    }
}

/// How many threads compute.
#[derive(Debug, Args)]
struct Threads {
    /// How many threads compute [default: as many as there are physical cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
}

/// Where a trained model computes.
#[derive(Debug, Args)]
struct OnDevice {
    /// Where tensors live, wherever the model was trained
    #[arg(long, value_name = "DEVICE", value_enum, default_value_t)]
    device: DeviceConfig,
}

/// The folder of data sets.
#[derive(Debug, Default, Args)]
struct DataFolder {
    /// The folder of data sets [default: ANTIPHON_DATA_DIR, otherwise data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DataFolder {
    fn path(&self) -> PathBuf {
        let variable = || std::env::var_os("ANTIPHON_DATA_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
        self.data_dir.clone().or_else(variable).unwrap_or_else(|| output::DATA.into())
    }

    /// The words that name this folder in another command; none where it is found without.
    fn words(&self) -> Vec<OsString> {
        output::option("--data-dir", &self.path(), output::DATA)
    }
}

/// That a file that is to be written is not there yet.
fn is_new(output: &Path) -> Result<()> {
    if output.symlink_metadata().is_ok() {
        return Err(Error::new("is there already, and nothing is overwritten: name another file").in_file(output));
    }
    Ok(())
}

/// The folder of runs, unless another is named.
const RUNS: &str = "runs";

/// The folder of runs.
#[derive(Debug, Args)]
struct RunsFolder {
    /// The folder of runs
    #[arg(long, value_name = "DIR", default_value = RUNS)]
    runs_dir: PathBuf,
}

impl RunsFolder {
    fn runs(&self) -> Runs {
        Runs::new(&self.runs_dir)
    }

    /// The words that name this folder in another command; none where it is found without.
    fn words(&self) -> Vec<OsString> {
        runs_option(&self.runs())
    }

    /// The run in a folder, or of a name below the folder of runs.
    fn open(&self, name: &Path) -> Result<Run> {
        let below = self.runs_dir.join(name);
        Run::open(if !name.exists() && below.is_dir() { &below } else { name })
    }
}

/// The words that name a folder of runs, unless it is the default.
fn runs_option(runs: &Runs) -> Vec<OsString> {
    output::option("--runs-dir", runs.root(), RUNS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn mistakes_in_the_command_line_end_with_code_2() {
        for line in [
            "antiphon rnu",
            "antiphon run",
            "antiphon run a.toml --set seed",
            "antiphon run a.toml --threads 0",
            "antiphon run a.toml --device gpu",
            "antiphon run a.toml --dashboard --quiet",
            "antiphon extend r",
            "antiphon extend r --epochs 0",
            "antiphon extend r --epochs 1 --steps 2",
            "antiphon extend r --epochs 1 --schedule forget",
            "antiphon average a b",
            "antiphon average a --output m",
            "antiphon evaluate r --split train",
            "antiphon tune",
            "antiphon predict m --n-best 0",
            "antiphon predict",
            "antiphon predict m --sweep s",
            "antiphon predict m --cell best",
            "antiphon predict m --weights a",
            "antiphon transcribe m",
            "antiphon transcribe m f --srt --vtt",
            "antiphon transcribe m f --srt --json",
            "antiphon distil m",
            "antiphon distil m --output o --input i --split test",
            "antiphon ask",
            "antiphon generate",
            "antiphon generate m --count 0",
            "antiphon generate m --length 0",
            "antiphon generate m --prompt a --input b",
            "antiphon compare",
            "antiphon report",
            "antiphon sweep",
            "antiphon sweep a.toml --jobs 0",
            "antiphon sweep a.toml --launcher cloud",
            "antiphon reproduce",
            "antiphon run a.toml --pause-after-steps 1 --pause-after-epochs 1",
        ] {
            let error = CommandLine::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
