//! `cargo xtask results`: the page of results.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use antiphon_core::Error;
use antiphon_core::disk::write_atomically;
use antiphon_lab::{Run, Runs, results_page};

use crate::stop::Outcome;

/// Print the page of results of finished runs (Markdown)
#[derive(Debug, PartialEq, clap::Args)]
pub(crate) struct Arguments {
    /// Run folders; without any, all of them below --runs
    #[arg(value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The folder of runs
    #[arg(
        long = "runs",
        visible_alias = "runs-dir",
        value_name = "DIR",
        default_value = "runs",
        conflicts_with = "runs"
    )]
    root: PathBuf,
    /// Write this file instead of the standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn results(arguments: &Arguments) -> Outcome {
    let Arguments { runs, root, output } = arguments;
    let runs =
        if runs.is_empty() { Runs::new(root).list()? } else { runs.iter().map(Run::open).collect::<Result<_, _>>()? };
    let mut finished = Vec::new();
    for run in runs {
        if run.is_finished()? {
            finished.push(run);
        } else {
            eprintln!("{}: left out, because it is not finished", run.path().display());
        }
    }
    if finished.is_empty() {
        return Err(Error::new("no finished run; this makes one: `cargo xtask run configs/g2p/quickstart.toml`")
            .in_file(root)
            .into());
    }
    let page = results_page(&finished)?;
    match output {
        Some(output) => {
            write_atomically(output, page.as_bytes())?;
            eprintln!("{}: {} runs", output.display(), finished.len());
        }
        None => match std::io::stdout().write_all(page.as_bytes()) {
            // Whoever reads may leave.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                return Err(Error::io("standard output", "write", &error).into());
            }
            _ => {}
        },
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Stop;

    #[test]
    fn only_a_file_that_is_named_is_written() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        let of = |line: &str| <Line as clap::Parser>::parse_from(line.split(' ')).arguments.output;
        assert_eq!(of("results"), None);
        assert_eq!(of("results --output docs/results.md"), Some("docs/results.md".into()));
    }

    #[test]
    fn without_a_finished_run_the_page_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("results.md");
        std::fs::write(&output, "old").unwrap();
        let arguments = Arguments { runs: Vec::new(), root: folder.path().join("runs"), output: Some(output.clone()) };
        let Err(Stop::Mistake(error)) = results(&arguments) else { panic!("wrote a page about nothing") };
        assert!(error.to_string().contains("no finished run"), "{error}");
        assert_eq!(std::fs::read(&output).unwrap(), b"old");
    }
}
