//! `cargo xtask`: builds what is needed, then runs experiments, tests and checks.
//!
//! It stays quick to build, because it never links Burn: whatever needs a model is done by the `antiphon` program, which
//! this one builds, once, in the profile that the tests use too.

#![forbid(unsafe_code)]

mod bench;
mod bundle;
mod cargo;
mod ci;
mod data;
mod growth;
mod program;
mod results;
mod scaling;
mod stop;
mod test;

use std::borrow::Cow;
use std::ffi::OsString;
use std::process::ExitCode;

use antiphon_core::{Error, Place, Result};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Subcommand, value_parser};

use crate::cargo::Features;
use crate::stop::{Outcome, Stop};

/// What this program does itself.
#[derive(Debug, Subcommand)]
enum Task {
    Test(test::Arguments),
    Bench(bench::Arguments),
    Ci(ci::Arguments),
    Results(results::Arguments),
}

/// What it only builds the program for: these words go to `antiphon` as they are.
const PASSED_ON: [(&str, &str); 22] = [
    ("run", "Run an experiment: prepare its data, train, search, evaluate: run CONFIG [--set KEY=VALUE] [--again]"),
    ("data", "Prepare a data set: data NAME [--from DIR] [--data-dir DIR]"),
    ("check", "Check configs and say everything that is wrong with them"),
    ("train", "Train, without search and evaluation"),
    ("extend", "Train a run that is trained for longer: extend RUN --epochs N"),
    ("average", "Average models: the mean of their parameters as one model file"),
    ("vectors", "Write the embeddings of a model as word vectors"),
    ("sweep", "Run all cells of a config's [sweep]: sweep FILE [--dry-run] [--jobs N]"),
    ("reproduce", "Run configs and hold the results against their [expect]"),
    ("evaluate", "Measure a run or a model, or several models together"),
    ("tune", "Choose settings of the search on the validation split: tune RUN --set search.ctc_weight=0.1,0.3"),
    ("predict", "Answer lines of a file or of the standard input, by one model or several together"),
    ("transcribe", "Write down what is said in recordings"),
    ("generate", "Let a language model go on with a text, or begin one"),
    ("ask", "Answer questions about a story"),
    ("chat", "Talk with a model, a turn a line"),
    ("score", "Score pairs of a file or of the standard input: how probable one model or several find each target"),
    ("distil", "Answer a corpus with one model or several into a table that another learns from"),
    ("runs", "List the runs"),
    ("compare", "Say in what runs differ: settings and results"),
    ("report", "Write the page of a run, or one that compares several"),
    ("reference", "Print the page of all settings"),
];

/// Those that begin with preparing the data of the configs among their words.
const PREPARES: [&str; 4] = ["run", "train", "sweep", "reproduce"];

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
    let mut features = Features::from_arg_matches(matches).unwrap_or_else(|e| e.exit());
    if let Some((name, passed)) = matches.subcommand()
        && PASSED_ON.iter().any(|(known, _)| *known == name)
    {
        let words = words(name, passed, &mut features)?;
        // Before the build: a config that cannot be read should not cost minutes.
        let needs = if PREPARES.contains(&name) { data::Needs::of(&words)? } else { data::Needs::default() };
        let program = program::Program::build(&features)?;
        needs.prepare(&program)?;
        return program.become_it(words);
    }
    match Task::from_arg_matches(matches).unwrap_or_else(|e| e.exit()) {
        Task::Test(arguments) => test::test(&arguments, &features),
        Task::Bench(arguments) => bench::bench(&arguments),
        Task::Ci(arguments) => ci::ci(&arguments, &features),
        Task::Results(arguments) => results::results(&arguments),
    }
}

/// The words of a command that is passed on. `--features` is cargo's wherever it stands, and a `--` before the program's own
/// options is not needed.
///
/// # Errors
/// If no names stand behind `--features`.
fn words(name: &str, passed: &ArgMatches, features: &mut Features) -> Result<Vec<OsString>> {
    let mut words = vec![OsString::from(name)];
    let mut all = passed.get_many::<OsString>("words").unwrap_or_default();
    let mut ended = false;
    while let Some(word) = all.next() {
        match word.to_string_lossy().split_once('=') {
            _ if ended => words.push(word.clone()),
            _ if word == "--" => {
                ended = true;
                if name != "run" {
                    words.push(word.clone());
                }
            }
            _ if word == "--features" => features.add(&named(all.next().map(|names| names.to_string_lossy()))?),
            Some(("--features", names)) => features.add(&named(Some(names.into()))?),
            _ => words.push(word.clone()),
        }
    }
    Ok(words)
}

/// The names behind `--features`.
fn named(names: Option<Cow<'_, str>>) -> Result<Cow<'_, str>> {
    let lacking = || {
        Error::new("names none: `--features wgpu`, or several with commas between them").at(Place::text("--features"))
    };
    names.filter(|names| !names.is_empty() && !names.starts_with('-')).ok_or_else(lacking)
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
pub(crate) mod tests {
    use super::*;

    /// The arguments of `cargo xtask bench` in these words, `bench` among them.
    pub(crate) fn bench<'w>(words: impl Iterator<Item = &'w str>) -> bench::Arguments {
        let matches = command_line().try_get_matches_from(["cargo xtask"].into_iter().chain(words)).unwrap();
        let Task::Bench(arguments) = Task::from_arg_matches(&matches).unwrap() else { panic!("not a benchmark") };
        arguments
    }

    fn parse(line: &str) -> Result<ArgMatches, clap::Error> {
        command_line().try_get_matches_from(["cargo xtask"].into_iter().chain(line.split_whitespace()))
    }

    /// The words that go to the program, and those that go to cargo.
    fn passed(line: &str) -> (Vec<String>, Vec<String>) {
        let matches = parse(line).unwrap();
        let mut features = Features::from_arg_matches(&matches).unwrap();
        let (name, passed) = matches.subcommand().unwrap();
        let words = words(name, passed, &mut features).unwrap();
        (words.into_iter().map(|word| word.into_string().unwrap()).collect(), features.words())
    }

    fn task(line: &str) -> Task {
        Task::from_arg_matches(&parse(line).unwrap()).unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        command_line().debug_assert();
    }

    #[test]
    fn a_run_needs_no_dashes_before_the_programs_options() {
        let plain = "run a.toml --set seed=3 --again --data-dir /d --threads 1";
        for line in [plain, "run a.toml --set seed=3 --again --data-dir /d -- --threads 1"] {
            assert_eq!(passed(line).0.join(" "), plain);
        }
        // Elsewhere they say that no options follow.
        assert_eq!(passed("predict m -- --odd").0, ["predict", "m", "--", "--odd"]);
    }

    #[test]
    fn mistakes_in_the_command_line_end_with_code_2() {
        for line in ["tset", "test --fast", "results --nope", "run --features= a.toml", "--features"] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        for line in ["run a.toml --features", "run a.toml --features --again", "run a.toml --features="] {
            let matches = parse(line).unwrap();
            let mut features = Features::from_arg_matches(&matches).unwrap();
            let (name, passed) = matches.subcommand().unwrap();
            // An `Error` becomes a mistake.
            let error = words(name, passed, &mut features).unwrap_err().to_string();
            assert!(error.starts_with("--features: names none"), "{error}");
        }
        let unknown = parse("evalute x").unwrap_err().to_string();
        assert!(unknown.contains("evaluate"), "{unknown}");
    }

    #[test]
    fn numbers_of_threads_stand_between_commas() {
        let threads = |line: &str| bench(line.split_whitespace()).threads;
        assert_eq!(threads("bench"), Vec::<u16>::new());
        assert_eq!(threads("bench --threads 1,2,16 --json f"), [1, 2, 16]);
        for line in [
            "bench --threads 0,1",
            "bench --threads 1,,2",
            "bench --threads two",
            "bench --threads 1 2",
            "bench --json f",
            "bench --threads 1 --save before",
            "bench --bundle d --threads 1",
            "bench --bundle d --prebuilt e",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        let zero = parse("bench --threads 0").unwrap_err().to_string();
        assert!(zero.contains("--threads <LIST>") && zero.contains("1..=65535"), "{zero}");
    }

    #[test]
    fn help_names_every_task() {
        let help = parse("--help").unwrap_err().to_string();
        for name in ["test", "bench", "ci", "results"].into_iter().chain(PASSED_ON.map(|(name, _)| name)) {
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
            assert_eq!(passed(line).0.join(" "), line);
        }
    }

    #[test]
    fn features_go_to_cargo_from_anywhere_before_two_dashes() {
        let of = |line: &str| match parse(line).unwrap().subcommand_name() {
            Some("test") => Features::from_arg_matches(&parse(line).unwrap()).unwrap().words(),
            _ => passed(line).1,
        };
        assert_eq!(of("run a.toml"), Vec::<String>::new());
        assert_eq!(of("predict m -- --features wgpu"), Vec::<String>::new());
        for line in [
            "--features wgpu,dashboard predict m",
            "predict --features wgpu,dashboard m --device wgpu",
            "run --features wgpu --features dashboard a.toml -- --dashboard",
            "run a.toml --features wgpu,dashboard",
            "predict m --features=wgpu,dashboard --device wgpu",
            "test --slow --features wgpu,dashboard",
        ] {
            assert_eq!(of(line), ["--features", "wgpu,dashboard"], "{line}");
        }
        for line in ["predict --features wgpu m --device wgpu", "predict m --features wgpu --device wgpu"] {
            assert_eq!(passed(line).0, ["predict", "m", "--device", "wgpu"]);
        }
    }

    #[test]
    fn tests_are_filtered_by_words() {
        let Task::Test(test) = task("test --slow beam greedy") else { panic!("not a test") };
        assert_eq!(test, test::Arguments { slow: true, filter: vec!["beam".into(), "greedy".into()] });
        assert!(matches!(task("ci --slow"), Task::Ci(ci::Arguments { slow: true })));
    }
}
