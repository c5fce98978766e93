//! A file of lines, read at any line without being loaded.
//!
//! One pass finds where the lines start (8 bytes a line are kept) and digests the file. Afterwards any thread may read
//! any line: a read names its own position and moves no shared cursor.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use antiphon_core::disk::Positioned;
use antiphon_core::{Error, Place, Result};

use super::{BLOCK, Fault, GZIP, Gunzip, LineReader};
use crate::digest::Hashing;

#[derive(Debug)]
pub(crate) struct LineFile {
    path: PathBuf,
    text: Positioned,
    /// Where each line starts, and the end of the last.
    starts: Vec<u64>,
    /// The indices of those that are more than one line of the file, each with how many more there are up to its end.
    longer: Vec<(usize, usize)>,
    /// Whether the last line has a line end.
    is_ended: bool,
    sha256: String,
}

impl LineFile {
    /// Reads the file once; `visit` gets every line's index and its text (without line end) or what is wrong with it. Of CSV a
    /// line is a record.
    ///
    /// A gzip file, known by its first two bytes, is unpacked once into an unnamed temporary file: gzip cannot be
    /// entered in the middle, and the text may be larger than memory.
    pub(crate) fn open(
        path: &Path,
        max_line: usize,
        is_csv: bool,
        mut visit: impl FnMut(u64, Result<&str, Fault>),
    ) -> Result<LineFile> {
        let reading = |e: io::Error| Error::io(path, "read", &e);
        let mut file = File::open(path).map_err(|e| Error::io(path, "open", &e))?;
        let mut magic = Vec::new();
        (&mut file).take(GZIP.len() as u64).read_to_end(&mut magic).map_err(reading)?;
        file.rewind().map_err(reading)?;

        fn lines<R: io::BufRead>(reader: R, max_line: usize, is_csv: bool) -> LineReader<R> {
            if is_csv { LineReader::of_csv(reader, max_line) } else { LineReader::new(reader, max_line) }
        }
        let (text, scanned, sha256);
        if magic == GZIP {
            let (mut unpacked, digest) = unpack(path, file)?;
            unpacked.rewind().map_err(reading)?;
            let mut lines = lines(BufReader::with_capacity(BLOCK, &mut unpacked), max_line, is_csv);
            scanned = scan(&mut lines, &mut visit).map_err(reading)?;
            (text, sha256) = (unpacked, digest);
        } else {
            let reader = BufReader::with_capacity(BLOCK, Hashing::new(&mut file));
            let mut lines = lines(reader, max_line, is_csv);
            scanned = scan(&mut lines, &mut visit).map_err(reading)?;
            sha256 = lines.into_inner().into_inner().finish();
            text = file;
        }
        let Scanned { starts, longer } = scanned;
        if starts.len() < 2 {
            return Err(Error::new("the file is empty: give one with at least one line").in_file(path));
        }
        let (text, mut last) = (Positioned::new(text), [0]);
        text.read_exact_at(&mut last, starts[starts.len() - 1] - 1).map_err(reading)?;
        Ok(LineFile { path: path.to_path_buf(), text, starts, longer, is_ended: last == *b"\n", sha256 })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// How many lines.
    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The number, counted from 1, of line `index`, counted from 0, among the lines of the file.
    pub(crate) fn number(&self, index: usize) -> usize {
        let before = self.longer.partition_point(|&(longer, _)| longer < index);
        index + 1 + before.checked_sub(1).map_or(0, |last| self.longer[last].1)
    }

    /// How many bytes line `index`, counted from 0, has, its line end included.
    pub(crate) fn bytes(&self, index: usize) -> u64 {
        self.starts[index + 1] - self.starts[index]
    }

    /// Whether line `index`, counted from 0, has a line end: only the last one may have none.
    pub(crate) fn is_ended(&self, index: usize) -> bool {
        self.is_ended || index + 1 < self.len()
    }

    /// Line `index`, counted from 0, without its line end.
    pub(crate) fn read(&self, index: usize) -> Result<String> {
        let (start, end) = (self.starts[index], self.starts[index + 1]);
        let mut bytes = vec![0; (end - start) as usize];
        self.text.read_exact_at(&mut bytes, start).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.changed(index, "cut off"),
            _ => Error::io(&self.path, "read", &e),
        })?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        String::from_utf8(bytes).map_err(|_| self.changed(index, "not UTF-8"))
    }

    /// The error for a line that was good when the file was opened.
    pub(crate) fn changed(&self, index: usize, why: impl fmt::Display) -> Error {
        let message = format!("{why}; the file has changed since it was opened: leave it alone while it is in use");
        Error::new(message).in_file(&self.path).at(Place::line(self.number(index)))
    }
}

/// What a pass over a file finds.
struct Scanned {
    starts: Vec<u64>,
    longer: Vec<(usize, usize)>,
}

/// Where the lines start, and where the last one ends; nothing if there is none.
fn scan(
    lines: &mut LineReader<impl io::BufRead>,
    visit: &mut impl FnMut(u64, Result<&str, Fault>),
) -> io::Result<Scanned> {
    let (mut starts, mut longer, mut end) = (Vec::new(), Vec::<(usize, usize)>::new(), None);
    while let Some(line) = lines.next()? {
        let index = starts.len();
        let more = line.number as usize - 1 - index;
        if more > longer.last().map_or(0, |last| last.1) {
            longer.push((index - 1, more));
        }
        starts.push(line.start);
        end = Some(line.end);
        visit(index as u64, line.text);
    }
    starts.extend(end);
    Ok(Scanned { starts, longer })
}

/// Unpacks gzip into a temporary file that has no name and vanishes with its handle. Also the packed file's digest.
fn unpack(path: &Path, packed: File) -> Result<(File, String)> {
    let folder = std::env::temp_dir();
    let writing = |e: &io::Error| lacks_room("unpack", &folder, e).in_file(path);
    let mut reader = Gunzip::new(BufReader::with_capacity(BLOCK, Hashing::new(packed)));
    let mut unpacked = tempfile::tempfile_in(&folder).map_err(|e| writing(&e))?;
    let mut block = vec![0; BLOCK];
    loop {
        let n = reader.read(&mut block).map_err(|e| Error::io(path, "unpack", &e))?;
        if n == 0 {
            return Ok((unpacked, reader.into_inner().into_inner().finish()));
        }
        io::Write::write_all(&mut unpacked, &block[..n]).map_err(|e| writing(&e))?;
    }
}

/// The error of a temporary file.
pub(crate) fn lacks_room(doing: &str, folder: &Path, error: &io::Error) -> Error {
    Error::new(format!("cannot {doing} into `{}`: {error}; set TMPDIR to a folder with room", folder.display()))
}
