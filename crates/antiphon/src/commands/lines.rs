//! Lines of input, as they come in; what is wrong with one is said with its number.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use antiphon_core::{Error, Result};

/// The longest line, in bytes.
pub(super) const LONGEST: usize = 1_000_000;

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

    pub(super) fn open(&self) -> Result<Incoming> {
        Ok(match self.file() {
            None => Incoming::new(io::stdin()),
            Some(path) => Incoming::new(File::open(path).map_err(|e| Error::io(path, "read", &e))?),
        })
    }
}

/// A line of input.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: u64,
    /// The text without its line end, or why there is none.
    pub(super) text: Result<String, Fault>,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Empty,
    NotUtf8 {
        /// The first bad byte, counted from 1.
        byte: usize,
    },
    TooLong,
    TooManyTokens {
        tokens: usize,
        limit: usize,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Empty => f.write_str("is empty: there is nothing to answer"),
            Fault::NotUtf8 { byte } => {
                write!(f, "byte {byte} is not UTF-8: convert the input, for example with `iconv -t UTF-8`")
            }
            Fault::TooLong => write!(f, "is longer than {LONGEST} bytes: split it"),
            Fault::TooManyTokens { tokens, limit } => {
                write!(f, "has {tokens} tokens, more than the {limit} of the model's `data.max_source`: split it")
            }
        }
    }
}

/// Reads lines of at most `longest` bytes without ever holding more.
struct Lines<R> {
    input: BufReader<R>,
    number: u64,
    longest: usize,
}

impl<R: Read> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = Vec::new();
        // Room for a line end of two bytes.
        let room = self.longest as u64 + 2;
        match self.input.by_ref().take(room).read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        self.number += 1;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        } else if bytes.len() as u64 == room
            && let Err(error) = self.input.skip_until(b'\n')
        {
            return Some(Err(error));
        }
        if self.number == 1 && bytes.starts_with(b"\xEF\xBB\xBF") {
            bytes.drain(..3);
        }
        let text = if bytes.len() > self.longest {
            Err(Fault::TooLong)
        } else {
            match String::from_utf8(bytes) {
                Err(error) => Err(Fault::NotUtf8 { byte: error.utf8_error().valid_up_to() + 1 }),
                Ok(text) if text.trim().is_empty() => Err(Fault::Empty),
                Ok(text) => Ok(text),
            }
        };
        Some(Ok(Line { number: self.number, text }))
    }
}

/// Lines read on a thread of their own.
pub(super) struct Incoming(Receiver<io::Result<Line>>);

impl Incoming {
    pub(super) fn new(input: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            let lines = Lines { input: BufReader::new(input), number: 0, longest: LONGEST };
            for line in lines {
                let failed = line.is_err();
                if sender.send(line).is_err() || failed {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// Waits for a line and takes with it those that come at once, `most` in all; without `hurry` it waits for as many.
    /// Empty at the end of the input.
    pub(super) fn batch(&self, most: usize, hurry: bool) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        while lines.len() < most {
            let next = if hurry && !lines.is_empty() {
                self.0.recv_timeout(AT_ONCE)
            } else {
                self.0.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match next {
                Ok(line) => lines.push(line?),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Result<String, Fault>> {
        let lines = Lines { input: BufReader::with_capacity(3, bytes), number: 0, longest: 8 };
        lines.map(|line| line.unwrap().text).collect()
    }

    #[test]
    fn lines_end_in_any_way_and_faults_do_not_shift_them() {
        let text = |t: &str| Ok(t.to_owned());
        assert_eq!(read(b"\xEF\xBB\xBFab\r\n\ncd"), [text("ab"), Err(Fault::Empty), text("cd")]);
        assert_eq!(read(b"a\xFFb\n12345678\r\nx"), [Err(Fault::NotUtf8 { byte: 2 }), text("12345678"), text("x")]);
        for long in ["123456789", "1234567890", "12345678901234567890"] {
            let input = format!("{long}\nx\n");
            assert_eq!(read(input.as_bytes()), [Err(Fault::TooLong), text("x")], "{long}");
            assert_eq!(read(long.as_bytes()), [Err(Fault::TooLong)], "{long}");
        }
        assert_eq!(read(b""), []);
    }

    #[test]
    fn batches_hold_all_lines_in_order() {
        let text: String = (0..1000).map(|i| format!("{i}\n")).collect();
        for hurry in [false, true] {
            let incoming = Incoming::new(io::Cursor::new(text.clone().into_bytes()));
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
}
