//! Lines of input, as they come in; what is wrong with one is said with its number.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use antiphon_core::{Error, Place, Result};
use antiphon_data::lines::{HEADER, file_fault, looks_like_header, unpacked};
use antiphon_data::{CorpusConfig, Fault, LineReader};

/// How many lines are read ahead.
const AHEAD: usize = 512;

/// How long lines that come at once may be apart.
const AT_ONCE: Duration = Duration::from_millis(2);

/// Where lines come from.
#[derive(Debug, clap::Args)]
pub(super) struct Input {
    /// Read this file instead of the standard input
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

impl Input {
    /// The file, unless it is the standard input.
    pub(super) fn file(&self) -> Option<&Path> {
        self.input.as_deref()
    }

    /// What errors call it.
    pub(super) fn name(&self) -> &Path {
        self.file().unwrap_or(Path::new("standard input"))
    }

    /// Whether a person types the lines.
    pub(super) fn is_terminal(&self) -> bool {
        self.file().is_none() && io::stdin().is_terminal()
    }

    /// Begins to read, by the rules for the lines of a model's corpus.
    pub(super) fn open(&self, config: &CorpusConfig) -> Result<Incoming> {
        let longest = config.max_line();
        Ok(match self.file() {
            None => Incoming::new(io::stdin(), longest),
            Some(path) => Incoming::new(opened(path)?, longest),
        })
    }
}

/// The file of `--input`.
pub(super) fn opened(path: &Path) -> Result<File> {
    // A pipe is fine.
    if let Some(fault) = file_fault(path).filter(|_| path.is_dir() || !path.exists()) {
        return Err(Error::new(fault).in_file(path).at(Place::text("--input")));
    }
    File::open(path).map_err(|e| Error::io(path, "open", &e))
}

/// A line of input.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: u64,
    /// The text without its line end, or why there is none.
    pub(super) text: Result<String, Fault>,
}

/// Lines read on a thread of their own.
pub(super) struct Incoming {
    lines: Receiver<io::Result<Line>>,
    header: Header,
}

/// Whether the first line seems to name columns, which is told as soon as a second one shows that it is not all.
#[derive(Clone, Copy, PartialEq)]
enum Header {
    Unlikely,
    Likely,
    Followed,
}

impl Incoming {
    /// Reads lines of at most `longest` bytes.
    pub(super) fn new(input: impl Read + Send + 'static, longest: usize) -> Self {
        let (sender, receiver) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            if let Err(error) = send(input, longest, &sender) {
                // If nobody listens any more, nobody minds.
                let _ = sender.send(Err(error));
            }
        });
        Self { lines: receiver, header: Header::Unlikely }
    }

    /// Waits for a line and takes with it those that come at once, `most` in all; without `hurry` it waits for as many.
    /// Empty at the end of the input.
    pub(super) fn batch(&mut self, most: usize, hurry: bool) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        while lines.len() < most {
            let next = if hurry && !lines.is_empty() {
                self.lines.recv_timeout(AT_ONCE)
            } else {
                self.lines.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match next {
                Ok(line) => {
                    let line = line?;
                    self.header = match (self.header, &line) {
                        (_, Line { number: 1, text: Ok(text) }) if looks_like_header(text) => Header::Likely,
                        (Header::Likely, Line { number: 2, .. }) => Header::Followed,
                        (header, _) => header,
                    };
                    lines.push(line);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(lines)
    }

    /// What to say, once, if the first line seems to name columns: it is read like any other.
    pub(super) fn header_warning(&mut self) -> Option<&'static str> {
        let told = self.header == Header::Followed;
        if told {
            self.header = Header::Unlikely;
        }
        told.then_some(HEADER)
    }
}

/// Sends the lines of `input` until it ends or nobody listens.
fn send(input: impl Read + Send + 'static, longest: usize, to: &SyncSender<io::Result<Line>>) -> io::Result<()> {
    let mut lines = LineReader::new(unpacked(input)?, longest);
    while let Some(line) = lines.next()? {
        let line = Line { number: line.number, text: line.text.map(str::to_owned) };
        if to.send(Ok(line)).is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_all_lines_in_order() {
        let text: String = (0..1000).map(|i| format!("{i}\n")).collect();
        for hurry in [false, true] {
            let mut incoming = Incoming::new(io::Cursor::new(text.clone().into_bytes()), 100);
            let mut numbers = Vec::new();
            loop {
                let batch = incoming.batch(64, hurry).unwrap();
                assert!(batch.len() <= 64);
                if batch.is_empty() {
                    break;
                }
                numbers.extend(batch.into_iter().map(|line| line.number));
            }
            assert!(numbers.into_iter().eq(1..=1000));
        }
    }

    #[test]
    fn a_header_is_told_where_lines_follow() {
        for (texts, header) in [
            (&["source\ttarget", "a\tb"][..], true),
            (&["Word\tPhonemes", "a\tb"], true),
            (&["#source", "a"], true),
            (&["source"], false),
            (&["word", "a"], false),
            (&["word\tW ER D", "a\tb"], false),
            (&["a\tb", "source\ttarget"], false),
        ] {
            // Whether the lines come together or one by one.
            for most in [1, 9] {
                let mut incoming = Incoming::new(io::Cursor::new(texts.join("\n").into_bytes()), 100);
                let mut told = 0;
                while !incoming.batch(most, false).unwrap().is_empty() {
                    told += usize::from(incoming.header_warning().is_some());
                }
                assert_eq!(told, usize::from(header), "{texts:?}");
            }
        }
    }
}
