//! Lines of input, as they come in; what is wrong with one is said with its number.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use antiphon_core::{Error, Place, Result, Source, TokenId};
use antiphon_data::lines::{HEADER, file_fault, unpacked};
use antiphon_data::{Fault, InputRules, LineReader};

use crate::experiment::{Question, SavedModel, SavedModels};
use crate::output::tell;

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
    /// A file.
    pub(super) fn of(path: &Path) -> Self {
        Self { input: Some(path.to_path_buf()) }
    }

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

    /// Begins to read, by the rules for the lines of a model's corpus. The line that names the columns of a table is taken; at a
    /// terminal nobody writes one, and what a row is to be is said.
    pub(super) fn open(&self, rules: &mut InputRules<'_>) -> Result<Incoming> {
        if self.is_terminal()
            && let Some(form) = rules.form_of_row()
        {
            tell(&form);
        }
        let mut incoming = match self.file() {
            None => Incoming::by(io::stdin(), rules),
            Some(path) => Incoming::by(opened(path, "--input")?, rules),
        };
        if rules.awaits_header() {
            incoming.take_header(rules).map_err(|error| error.in_file(self.name()))?;
        }
        Ok(incoming)
    }
}

/// The file that `place` names, an option.
pub(super) fn opened(path: &Path, place: &str) -> Result<File> {
    // A pipe is fine.
    if let Some(fault) = file_fault(path).filter(|_| path.is_dir() || !path.exists()) {
        return Err(Error::new(fault).in_file(path).at(Place::text(place)));
    }
    File::open(path).map_err(|e| Error::io(path, "open", &e))
}

/// How long what is asked may be, by the limits of the models' corpora.
pub(super) struct Limits(Vec<OfModel>);

/// Those of one.
struct OfModel {
    /// How it reads the sources.
    reading: usize,
    limits: antiphon_data::corpus::Limits,
}

impl Limits {
    pub(super) fn of(models: &SavedModels) -> Self {
        let of = |(member, (_, saved)): (usize, (&str, &SavedModel))| OfModel {
            reading: models.reading(member),
            limits: saved.config.limits(),
        };
        Self(models.members().enumerate().map(of).collect())
    }

    /// Whether a source, all of its streams, is within them.
    pub(super) fn check_sources(&self, question: &Question) -> Result<(), Fault> {
        // Without end symbols.
        let tokens = |sources: &[Source]| sources.iter().map(|source| source.len() - 1).collect::<Vec<_>>();
        self.0.iter().try_for_each(|OfModel { reading, limits }| match question.reading(*reading) {
            [recording @ Source::Frames { .. }, further @ ..] => {
                limits.check_frames(recording.len()).and_then(|()| limits.check_further(tokens(further)))
            }
            sources => limits.check_sources(tokens(sources)),
        })
    }

    /// The most frames of a recording.
    pub(super) fn max_frames(&self) -> usize {
        self.0.iter().map(|OfModel { limits, .. }| limits.max_source).min().unwrap_or(usize::MAX)
    }

    /// Whether a target, as ids with its end symbol, is within them.
    pub(super) fn check_target(&self, target: &[TokenId]) -> Result<(), Fault> {
        self.0.iter().try_for_each(|OfModel { limits, .. }| limits.check_target(target.len() - 1))
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

/// What makes lines of an input.
type Lines = fn(Box<dyn BufRead + Send>, usize) -> LineReader<Box<dyn BufRead + Send>>;

impl Incoming {
    /// Reads lines as they stand, of at most `longest` bytes.
    pub(super) fn plain(input: impl Read + Send + 'static, longest: usize) -> Self {
        Self::begin(input, LineReader::new, longest)
    }

    fn by(input: impl Read + Send + 'static, rules: &InputRules<'_>) -> Self {
        Self::begin(input, rules.lines(), rules.max_line())
    }

    fn begin(input: impl Read + Send + 'static, lines: Lines, longest: usize) -> Self {
        let (sender, receiver) = sync_channel(AHEAD);
        std::thread::spawn(move || {
            if let Err(error) = send(input, lines, longest, &sender) {
                // If nobody listens any more, nobody minds.
                let _ = sender.send(Err(error));
            }
        });
        Self { lines: receiver, header: Header::Unlikely }
    }

    /// Waits for the next line; `None` at the end of the input.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        self.lines.recv().ok().transpose()
    }

    /// Waits for the line that names columns, unless the input is empty.
    fn take_header(&mut self, rules: &mut InputRules<'_>) -> Result<()> {
        let Ok(line) = self.lines.recv() else { return Ok(()) };
        let line = line.map_err(|error| Error::new(format!("cannot read: {error}")))?;
        rules.read_header(line.text.as_deref().map_err(Clone::clone))
    }

    /// Waits for a line and takes with it those that come at once, `most` in all; without `hurry` it waits for as many.
    /// Empty at the end of the input. `rules` are those by which it was opened.
    pub(super) fn batch(&mut self, rules: &InputRules<'_>, most: usize, hurry: bool) -> io::Result<Vec<Line>> {
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
                        (_, Line { number: 1, text: Ok(text) }) if rules.seems_header(text) => Header::Likely,
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
fn send(
    input: impl Read + Send + 'static,
    lines: Lines,
    longest: usize,
    to: &SyncSender<io::Result<Line>>,
) -> io::Result<()> {
    let mut lines = lines(unpacked(input)?, longest);
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
    use antiphon_data::{CorpusConfig, FurtherColumns};

    use super::*;

    fn pairs() -> CorpusConfig {
        serde_json::from_str(r#"{"kind": "pairs", "train": "a"}"#).unwrap()
    }

    fn rules(config: &CorpusConfig) -> InputRules<'_> {
        InputRules::of_sources(config, &FurtherColumns::default(), None).unwrap()
    }

    #[test]
    fn batches_hold_all_lines_in_order() {
        let pairs = pairs();
        let rules = rules(&pairs);
        let text: String = (0..1000).map(|i| format!("{i}\n")).collect();
        for hurry in [false, true] {
            let mut incoming = Incoming::plain(io::Cursor::new(text.clone().into_bytes()), 100);
            let mut numbers = Vec::new();
            loop {
                let batch = incoming.batch(&rules, 64, hurry).unwrap();
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
        let pairs = pairs();
        let rules = rules(&pairs);
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
                let mut incoming = Incoming::plain(io::Cursor::new(texts.join("\n").into_bytes()), 100);
                let mut told = 0;
                while !incoming.batch(&rules, most, false).unwrap().is_empty() {
                    told += usize::from(incoming.header_warning().is_some());
                }
                assert_eq!(told, usize::from(header), "{texts:?}");
            }
        }
    }
}
