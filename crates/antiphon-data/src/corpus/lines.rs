//! A file of lines, read at any line without being loaded.
//!
//! One pass finds where the lines start (8 bytes a line are kept) and digests the file. Afterwards any thread may read
//! any line: a read names its own position and moves no shared cursor.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use antiphon_core::{Error, Result};
use flate2::read::MultiGzDecoder;

use super::fault::Fault;
use crate::digest::Hashing;

/// What files are read by.
const BLOCK: usize = 1 << 18;
const BYTE_ORDER_MARK: &[u8] = &[0xEF, 0xBB, 0xBF];

#[derive(Debug)]
pub(crate) struct LineFile {
    path: PathBuf,
    text: Positioned,
    /// Where each line starts, and the end of the last.
    starts: Vec<u64>,
    sha256: String,
}

impl LineFile {
    /// Reads the file once; `visit` gets every line's index and its text (without line end) or what is wrong with it.
    ///
    /// A gzip file, known by its first two bytes, is unpacked once into an unnamed temporary file: gzip cannot be
    /// entered in the middle, and the text may be larger than memory.
    pub(crate) fn open(
        path: &Path,
        max_line: usize,
        mut visit: impl FnMut(u64, Result<&str, Fault>),
    ) -> Result<LineFile> {
        let reading = |e: io::Error| Error::io(path, "read", &e);
        let mut file = File::open(path).map_err(|e| Error::io(path, "open", &e))?;
        let mut magic = Vec::new();
        (&mut file).take(2).read_to_end(&mut magic).map_err(reading)?;
        file.rewind().map_err(reading)?;

        let (text, starts, sha256);
        if magic == [0x1F, 0x8B] {
            let (mut unpacked, digest) = unpack(path, file)?;
            unpacked.rewind().map_err(reading)?;
            starts =
                scan(&mut BufReader::with_capacity(BLOCK, &mut unpacked), max_line, &mut visit).map_err(reading)?;
            (text, sha256) = (unpacked, digest);
        } else {
            let mut reader = BufReader::with_capacity(BLOCK, Hashing::new(&mut file));
            starts = scan(&mut reader, max_line, &mut visit).map_err(reading)?;
            sha256 = reader.into_inner().finish();
            text = file;
        }
        if starts.len() < 2 {
            return Err(Error::new("the file is empty: give one with at least one line").in_file(path));
        }
        Ok(LineFile { path: path.to_path_buf(), text: Positioned::new(text), starts, sha256 })
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
        Error::new(message).in_file(&self.path).at(format_args!("line {}", index + 1))
    }
}

/// Finds the starts of the lines. Never holds more than one line of at most `limit` bytes.
fn scan(
    reader: &mut impl BufRead,
    limit: usize,
    visit: &mut impl FnMut(u64, Result<&str, Fault>),
) -> io::Result<Vec<u64>> {
    let mut line = Line::default();
    let mut starts = Vec::new();
    let mut position = 0_u64;
    if reader.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
        position = BYTE_ORDER_MARK.len() as u64;
        reader.consume(BYTE_ORDER_MARK.len());
    }
    loop {
        let block = reader.fill_buf()?;
        if block.is_empty() {
            if line.seen > 0 {
                starts.push(position - line.seen);
                line.finish(starts.len() as u64 - 1, limit, visit);
            }
            if !starts.is_empty() {
                starts.push(position);
            }
            return Ok(starts);
        }
        let end = block.iter().position(|&b| b == b'\n');
        let part = &block[..end.unwrap_or(block.len())];
        line.extend(part, limit);
        position += part.len() as u64;
        let taken = part.len() + usize::from(end.is_some());
        reader.consume(taken);
        if end.is_some() {
            starts.push(position - line.seen);
            line.finish(starts.len() as u64 - 1, limit, visit);
            position += 1;
        }
    }
}

/// The line that is being read.
#[derive(Default)]
struct Line {
    /// Its first bytes, at most the limit and a carriage return.
    held: Vec<u8>,
    /// All its bytes so far, without the line feed.
    seen: u64,
    /// Whether the last byte seen is a carriage return.
    returned: bool,
}

impl Line {
    fn extend(&mut self, part: &[u8], limit: usize) {
        let Some(&last) = part.last() else { return };
        let room = limit.saturating_add(1).saturating_sub(self.held.len());
        self.held.extend_from_slice(&part[..part.len().min(room)]);
        self.seen += part.len() as u64;
        self.returned = last == b'\r';
    }

    fn finish(&mut self, index: u64, limit: usize, visit: &mut impl FnMut(u64, Result<&str, Fault>)) {
        let bytes = self.seen - u64::from(self.returned);
        if bytes > limit as u64 {
            visit(index, Err(Fault::TooLong { bytes, limit }));
        } else {
            let text = std::str::from_utf8(&self.held[..bytes as usize]);
            visit(index, text.map_err(|e| Fault::NotUtf8(e.valid_up_to() + 1)));
        }
        self.held.clear();
        (self.seen, self.returned) = (0, false);
    }
}

/// Unpacks gzip into a temporary file that has no name and vanishes with its handle. Also the packed file's digest.
fn unpack(path: &Path, packed: File) -> Result<(File, String)> {
    let folder = std::env::temp_dir();
    let writing = |e: &io::Error| {
        let message = format!("cannot unpack into `{}`: {e}; set TMPDIR to a folder with room", folder.display());
        Error::new(message).in_file(path)
    };
    let mut reader = MultiGzDecoder::new(BufReader::with_capacity(BLOCK, Hashing::new(packed)));
    let mut unpacked = tempfile::tempfile_in(&folder).map_err(|e| writing(&e))?;
    let mut block = vec![0; BLOCK];
    loop {
        let n = reader.read(&mut block).map_err(|e| {
            Error::new(format!("cannot unpack: {e}; the gzip file is damaged or cut off, fetch it again")).in_file(path)
        })?;
        if n == 0 {
            return Ok((unpacked, reader.into_inner().into_inner().finish()));
        }
        io::Write::write_all(&mut unpacked, &block[..n]).map_err(|e| writing(&e))?;
    }
}

/// A file that is read at positions, from any thread.
#[cfg(unix)]
#[derive(Debug)]
struct Positioned(File);

#[cfg(unix)]
impl Positioned {
    fn new(file: File) -> Self {
        Self(file)
    }

    fn read_exact_at(&self, bytes: &mut [u8], start: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, bytes, start)
    }
}

/// A file that is read at positions, from any thread: one thread at a time moves the cursor.
#[cfg(not(unix))]
#[derive(Debug)]
struct Positioned(std::sync::Mutex<File>);

#[cfg(not(unix))]
impl Positioned {
    fn new(file: File) -> Self {
        Self(std::sync::Mutex::new(file))
    }

    fn read_exact_at(&self, bytes: &mut [u8], start: u64) -> io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(io::SeekFrom::Start(start))?;
        file.read_exact(bytes)
    }
}
