//! `antiphon vectors`: the vectors of a model's tokens, for other programs.

use std::path::PathBuf;

use antiphon_core::Result;
use antiphon_core::disk::write_atomically;

use super::target::Target;
use super::{Ending, RunsFolder, is_new};
use crate::device::start_threads;
use crate::output::{print, tell};

/// Write the vectors of a model's tokens, as a text of word2vec's form
///
/// A first line tells how many there are and how wide; then comes a line for each token, with its numbers behind it. gensim reads that
/// (`KeyedVectors.load_word2vec_format`), and so does `train.start_from.vectors`. Tokens that are or have white space are left out.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A run's folder, a model file, or a config that has been run
    #[arg(value_name = "RUN|MODEL|CONFIG")]
    what: PathBuf,
    /// The table, by its path [default: source.table, or target.table where there is none]
    #[arg(long, value_name = "PATH")]
    table: Option<String>,
    /// The file; there must be none yet [default: the standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    runs: RunsFolder,
}

impl Arguments {
    pub(super) fn perform(self) -> Result<Ending> {
        start_threads(None)?;
        self.output.as_deref().map_or(Ok(()), is_new)?;
        let (path, saved) = Target::open_alone(&self.what, &self.runs.runs())?;
        let (text, left_out) = saved.vectors(self.table.as_deref()).map_err(|error| error.in_file(&path))?;
        if left_out > 0 {
            let tokens = if left_out == 1 { "token" } else { "tokens" };
            tell(&format!("left out: {left_out} {tokens} with white space, for which this form has no place"));
        }
        match self.output {
            Some(output) => write_atomically(output, text.as_bytes())?,
            None => print(&text)?,
        }
        Ok(Ending::Done)
    }
}
