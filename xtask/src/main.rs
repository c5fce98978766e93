//! `cargo xtask`: builds what is needed, then runs experiments, tests and checks.
//!
//! It stays quick to build, because it never links Burn: whatever needs a model is done by the `antiphon` program, which
//! this one builds, once, in the profile that the tests use too.

#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod ci;
mod data;
mod growth;
mod program;
mod results;
mod run;
mod stop;
mod test;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Subcommand, value_parser};

use crate::cargo::Features;
use crate::stop::{Outcome, Stop};

/// What this program does itself.
#[derive(Debug, Subcommand)]
enum Task {
    Run(run::Arguments),
    Test(test::Arguments),
    Bench(bench::Arguments),
    Ci(ci::Arguments),
    Results(results::Arguments),
}

/// What it only builds the program for: these words go to `antiphon` as they are.
const PASSED_ON: [(&str, &str); 12] = [
    ("data", "Prepare a data set: data NAME [--from DIR] [--data-dir DIR]"),
    ("check", "Check configs and say everything that is wrong with them"),
    ("train", "Train, without search and evaluation"),
    ("sweep", "Run all cells of a config's [sweep]: sweep FILE [--dry-run] [--jobs N]"),
    ("reproduce", "Run configs and hold the results against their [expect]"),
    ("evaluate", "Measure a run or a model"),
    ("predict", "Answer lines of a file or of the standard input"),
    ("score", "Score pairs of a file or of the standard input: how probable the model finds each target"),
    ("runs", "List the runs"),
    ("compare", "Say in what runs differ: settings and results"),
    ("report", "Write the page of a run, or one that compares several"),
    ("reference", "Print the page of all settings"),
];

const AFTER_HELP: &str = "\
Start with
  cargo xtask run configs/g2p/quickstart.toml

The first build of a checkout takes some minutes. Exit codes: 0 done, 1 a check failed, 2 a mistake in what was given,
101 the build or a test failed, 130 interrupted.";

fn command_line() -> Command {
    let passed_on = PASSED_ON.map(|(name, about)| {
        let words = Arg::new("words").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
        let words = words.value_name("ARGUMENTS").value_parser(value_parser!(OsString));
        // `--help` is the program's to answer.
        Command::new(name).about(about).disable_help_flag(true).arg(words)
    });
    let command = Task::augment_subcommands(Command::new("cargo xtask").bin_name("cargo xtask")).subcommands(passed_on);
    let command = Features::augment_args(command)
        .about("Build what is needed, then run experiments, tests and checks")
        .after_help(AFTER_HELP);
    command.subcommand_required(true).arg_required_else_help(true)
}

fn perform(matches: &ArgMatches) -> Outcome {
    let features = Features::from_arg_matches(matches).unwrap_or_else(|e| e.exit());
    if let Some((name, passed)) = matches.subcommand()
        && PASSED_ON.iter().any(|(known, _)| *known == name)
    {
        let words = passed.get_many::<OsString>("words").unwrap_or_default().cloned();
        let words: Vec<OsString> = std::iter::once(name.into()).chain(words).collect();
        // Before the build: a config that cannot be read should not cost minutes.
        let needs =
            if ["sweep", "reproduce"].contains(&name) { data::Needs::of(&words)? } else { data::Needs::default() };
        let program = program::Program::build(&features)?;
        needs.prepare(&program)?;
        return program.become_it(words);
    }
    match Task::from_arg_matches(matches).unwrap_or_else(|e| e.exit()) {
        Task::Run(arguments) => run::run(&arguments, &features),
        Task::Test(arguments) => test::test(&arguments, &features),
        Task::Bench(arguments) => bench::bench(&arguments),
        Task::Ci(arguments) => ci::ci(&arguments, &features),
        Task::Results(arguments) => results::results(&arguments),
    }
}

fn main() -> ExitCode {
    match perform(&command_line().get_matches()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Quietly(code)) => ExitCode::from(code),
        Err(Stop::Failed(message)) => {
            eprintln!("error: {message}");
            ExitCode::from(1)
        }
        Err(Stop::Mistake(error)) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<ArgMatches, clap::Error> {
        command_line().try_get_matches_from(["cargo xtask"].into_iter().chain(line.split_whitespace()))
    }

    fn task(line: &str) -> Task {
        Task::from_arg_matches(&parse(line).unwrap()).unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    #[test]
    fn a_run_takes_settings_and_hands_the_rest_on() {
        let line = "run a.toml --set seed=3 --again --set model.encoder.kind=gru --data-dir /d -- --threads 1";
        let Task::Run(run) = task(line) else { panic!("not a run") };
        assert_eq!(
            run.words(),
            [
                "run",
                "a.toml",
                "--set",
                "seed=3",
                "--set",
                "model.encoder.kind=gru",
                "--again",
                "--data-dir",
                "/d",
                "--threads",
                "1"
            ]
        );
    }

    #[test]
    fn mistakes_in_the_command_line_end_with_code_2() {
        for line in [
            "run",
            "run a.toml --set seed",
            "run a.toml --set =3",
            "run a.toml b.toml",
            "tset",
            "test --fast",
            "results --nope",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        let unknown = parse("evalute x").unwrap_err().to_string();
        assert!(unknown.contains("evaluate"), "{unknown}");
    }

    #[test]
    fn help_names_every_task() {
        let help = parse("--help").unwrap_err().to_string();
        for name in ["run", "test", "bench", "ci", "results"].into_iter().chain(PASSED_ON.map(|(name, _)| name)) {
            assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))), "{name}\n{help}");
        }
        assert!(help.contains("configs/g2p/quickstart.toml"));
    }

    #[test]
    fn what_is_passed_on_is_not_touched() {
        for line in [
            "data cmudict --from /d",
            "predict --help",
            "train a.toml --set x=1 -q",
            "check --set a=b c.toml",
            "evaluate",
        ] {
            let matches = parse(line).unwrap();
            let (name, passed) = matches.subcommand().unwrap();
            let words: Vec<_> = passed.get_many::<OsString>("words").unwrap_or_default().collect();
            let expected: Vec<_> = line.split_whitespace().collect();
            assert_eq!(name, expected[0]);
            assert_eq!(words, expected[1..], "{line}");
        }
    }

    #[test]
    fn features_go_to_cargo_from_anywhere_before_the_programs_own_words() {
        let of = |line: &str| Features::from_arg_matches(&parse(line).unwrap()).unwrap().words();
        assert_eq!(of("run a.toml"), Vec::<String>::new());
        for line in [
            "--features wgpu,dashboard predict m",
            "predict --features wgpu,dashboard m --device wgpu",
            "run --features wgpu --features dashboard a.toml -- --dashboard",
            "run a.toml --features wgpu,dashboard",
            "test --slow --features wgpu,dashboard",
        ] {
            assert_eq!(of(line), ["--features", "wgpu,dashboard"], "{line}");
        }
        let matches = parse("predict --features wgpu m --device wgpu").unwrap();
        let words: Vec<_> = matches.subcommand().unwrap().1.get_many::<OsString>("words").unwrap().collect();
        assert_eq!(words, ["m", "--device", "wgpu"]);
    }

    #[test]
    fn tests_are_filtered_by_words() {
        let Task::Test(test) = task("test --slow beam greedy") else { panic!("not a test") };
        assert_eq!(test, test::Arguments { slow: true, filter: vec!["beam".into(), "greedy".into()] });
        assert!(matches!(task("ci --slow"), Task::Ci(ci::Arguments { slow: true })));
    }
}
