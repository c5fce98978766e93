//! `cargo xtask results`: the page of results.

use std::path::PathBuf;

use antiphon_core::Error;
use antiphon_lab::{Run, Runs, results_page, write_atomically};

use crate::stop::Outcome;

/// Write the page of results from finished runs
#[derive(Debug, PartialEq, clap::Args)]
pub(crate) struct Arguments {
    /// Run folders; without any, all of them below --runs
    #[arg(value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The folder of runs
    #[arg(long = "runs", value_name = "DIR", default_value = "runs", conflicts_with = "runs")]
    root: PathBuf,
    /// The page
    #[arg(long, value_name = "FILE", default_value = "docs/results.md")]
    output: PathBuf,
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
        return Err(Error::new("no finished run; `cargo xtask run CONFIG` makes one").in_file(root).into());
    }
    write_atomically(output, results_page(&finished)?.as_bytes())?;
    println!("{}: {} runs", output.display(), finished.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Stop;

    #[test]
    fn without_a_finished_run_the_page_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("results.md");
        std::fs::write(&output, "old").unwrap();
        let arguments = Arguments { runs: Vec::new(), root: folder.path().join("runs"), output: output.clone() };
        let Err(Stop::Mistake(error)) = results(&arguments) else { panic!("wrote a page about nothing") };
        assert!(error.to_string().contains("no finished run"), "{error}");
        assert_eq!(std::fs::read(&output).unwrap(), b"old");
    }
}
