//! Lines of text: the one way in which files and streams are read.
//!
//! Lines end with LF or CRLF, the last one with nothing if need be. A byte order mark at the beginning is passed over,
//! gzip is unpacked, and text is UTF-8. A line that breaks a rule keeps its number and says what is wrong with it.
//! Lines of CSV that quotes hold together are read as one.

mod fault;
mod file;
mod quotes;

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use antiphon_core::{Error, Place};
use flate2::bufread::MultiGzDecoder;

pub use fault::{Fault, HEADER, Skipped, SkippedFor, looks_like_header};
pub(crate) use fault::{Faults, LISTED, listed, quoted};
pub(crate) use file::{LineFile, lacks_room};
use quotes::{End, Quotes};

/// What files are read by.
const BLOCK: usize = 1 << 18;
const BYTE_ORDER_MARK: &[u8] = &[0xEF, 0xBB, 0xBF];
const GZIP: [u8; 2] = [0x1F, 0x8B];

/// What is wrong with a file that is to be read, before it is read.
pub fn file_fault(path: &Path) -> Option<&'static str> {
    match (path.is_file(), path.exists()) {
        (true, _) => None,
        (false, true) => Some("not a file"),
        (false, false) => Some("no such file"),
    }
}

/// The lines of a reader, one after the other. Never holds more than one line of at most `longest` bytes.
pub struct LineReader<R> {
    reader: R,
    longest: usize,
    /// How many lines have come.
    count: u64,
    /// How many bytes have been read.
    position: u64,
    line: Held,
    /// Of CSV, where its quotes stand.
    quotes: Option<Quotes>,
    /// What comes before the reader's next byte: it was read as part of a record that was none.
    again: Cursor<Vec<u8>>,
}

/// A line; of CSV those that quotes hold together.
#[derive(Debug, PartialEq)]
pub struct Line<'a> {
    /// Counted from 1; of several lines the first.
    pub number: u64,
    /// The byte with which it starts.
    pub start: u64,
    /// The byte behind its line end.
    pub end: u64,
    /// The text without its line end, or what is wrong with it.
    pub text: Result<&'a str, Fault>,
}

impl<R: BufRead> LineReader<R> {
    /// Reads lines of at most `longest` bytes, line ends not counted.
    pub fn new(reader: R, longest: usize) -> Self {
        let (line, again) = (Held::default(), Cursor::default());
        Self { reader, longest, count: 0, position: 0, line, quotes: None, again }
    }

    /// Reads the records of CSV (RFC 4180), of at most `longest` bytes: a line end between quotes is part of its record. Where
    /// a quote opens and nothing within that many bytes closes it, its line is a fault, and the next one begins a record. A quote
    /// in a later line does not close it either if other text follows.
    pub fn of_csv(reader: R, longest: usize) -> Self {
        Self { quotes: Some(Quotes::default()), ..Self::new(reader, longest) }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// If the reader fails.
    #[expect(clippy::should_implement_trait, reason = "a line borrows from its reader")]
    pub fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let (start, mut open) = (self.position, None);
        loop {
            let is_again = !self.again.fill_buf()?.is_empty();
            let mut block = if is_again { self.again.fill_buf()? } else { self.reader.fill_buf()? };
            if block.is_empty() {
                let is_open = self.quotes.as_ref().is_some_and(Quotes::is_open);
                open = open.or(is_open.then_some(Fault::OpenQuote { limit: self.longest }));
                break;
            }
            let longest = self.longest as u64;
            let end = match &mut self.quotes {
                // Nothing is taken that is not held, until it is clear that the line is too long.
                Some(quotes) if self.line.seen <= longest => {
                    let room = usize::try_from(longest + 1 - self.line.seen).unwrap_or(usize::MAX);
                    block = &block[..block.len().min(room)];
                    quotes.end_in(block)
                }
                _ => block.iter().position(|&b| b == b'\n').map(End::Line),
            };
            let (held, taken) = match end {
                Some(End::Line(at)) => (at, at + 1),
                Some(End::Text(at)) => (at, at),
                None => (block.len(), block.len()),
            };
            self.line.extend(&block[..held], self.longest);
            self.position += taken as u64;
            if is_again {
                self.again.consume(taken)
            } else {
                self.reader.consume(taken)
            }
            match end {
                Some(End::Line(_)) => {
                    self.line.ended = true;
                    break;
                }
                Some(End::Text(_)) => {
                    let further = self.quotes.as_ref().map_or(0, Quotes::lines);
                    open = Some(Fault::UnclosedQuote { next: self.count + 1 + further });
                    break;
                }
                None => {}
            }
            if self.line.seen > longest && self.quotes.as_ref().is_some_and(Quotes::is_open) {
                open = Some(Fault::OpenQuote { limit: self.longest });
                if self.line.bytes.contains(&b'\n') {
                    break;
                }
                // A line that is too long by itself: the next one begins behind its end.
                self.quotes = Some(Quotes::default());
            }
        }
        let mark = if self.count == 0 { self.line.mark() } else { 0 };
        if !self.line.ended && self.line.seen == mark as u64 {
            return Ok(None);
        }
        let number = self.count + 1;
        let further = self.quotes.as_mut().map_or(0, Quotes::finish);
        self.count = number;
        let text = if let Some(fault) = open {
            self.read_again();
            Err(fault)
        } else {
            self.count += further;
            self.line.text(mark, self.longest, number == 1)
        };
        Ok(Some(Line { number, start: start + mark as u64, end: self.position, text }))
    }

    /// Puts what stands behind the first line of the record before what comes.
    fn read_again(&mut self) {
        if let Some(end) = self.line.bytes.iter().position(|&b| b == b'\n') {
            let mut again = self.line.bytes.split_off(end + 1);
            self.position -= again.len() as u64;
            let read = self.again.position() as usize;
            again.extend_from_slice(&self.again.get_ref()[read..]);
            self.again = Cursor::new(again);
        }
    }

    /// What was read from.
    pub(crate) fn into_inner(self) -> R {
        self.reader
    }
}

/// The line that is being read.
#[derive(Default)]
struct Held {
    /// Its first bytes: at most the longest line, a byte order mark and a carriage return.
    bytes: Vec<u8>,
    /// How many it has, without the line feed.
    seen: u64,
    /// Whether the last byte seen is a carriage return.
    returned: bool,
    /// Whether its line feed has come.
    ended: bool,
}

impl Held {
    fn clear(&mut self) {
        self.bytes.clear();
        (self.seen, self.returned, self.ended) = (0, false, false);
    }

    fn extend(&mut self, part: &[u8], longest: usize) {
        let Some(&last) = part.last() else { return };
        let most = longest.saturating_add(BYTE_ORDER_MARK.len() + 1);
        let room = most.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&part[..part.len().min(room)]);
        self.seen += part.len() as u64;
        self.returned = last == b'\r';
    }

    /// How many bytes its byte order mark takes.
    fn mark(&self) -> usize {
        if self.bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 }
    }

    fn text(&self, mark: usize, longest: usize, is_first: bool) -> Result<&str, Fault> {
        let length = self.seen - mark as u64 - u64::from(self.returned);
        if length > longest as u64 {
            return Err(Fault::TooLong { bytes: length, limit: longest });
        }
        let bytes = &self.bytes[mark..mark + length as usize];
        let text = std::str::from_utf8(bytes).map_err(|e| Fault::of_bytes(bytes, e.valid_up_to() + 1, is_first))?;
        match bytes.iter().position(|&b| b == 0) {
            Some(at) => Err(Fault::Zero(at + 1)),
            None => Ok(text),
        }
    }
}

/// A whole file as text, without its byte order mark.
///
/// # Errors
/// If it is not UTF-8; the line is named.
pub fn text_of(bytes: &[u8]) -> antiphon_core::Result<&str> {
    text(bytes).map_err(|(line, fault)| Error::new(fault.to_string()).at(Place::line(line)))
}

/// As [`text_of`]; or the line, counted from 1, that is wrong and why.
fn text(bytes: &[u8]) -> Result<&str, (usize, Fault)> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|e| {
        let good = &bytes[..e.valid_up_to()];
        let start = good.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        let number = good.iter().filter(|&&b| b == b'\n').count() + 1;
        (number, Fault::of_bytes(&bytes[start..], good.len() - start + 1, start == 0))
    })
}

/// What a reader gives, unpacked if it begins as gzip does. Waits for no more than it needs to tell.
///
/// # Errors
/// If the reader fails.
pub fn unpacked<R: Read + Send + 'static>(mut reader: R) -> io::Result<Box<dyn BufRead + Send>> {
    let mut magic = Vec::with_capacity(GZIP.len());
    while magic.len() < GZIP.len() && GZIP.starts_with(&magic) {
        if reader.by_ref().take(1).read_to_end(&mut magic)? == 0 {
            // A terminal that has ended would begin anew if it were asked again.
            return Ok(Box::new(Cursor::new(magic)));
        }
    }
    let is_gzip = magic == GZIP;
    let whole = BufReader::with_capacity(BLOCK, Cursor::new(magic).chain(reader));
    Ok(if is_gzip { Box::new(BufReader::with_capacity(BLOCK, Gunzip::new(whole))) } else { Box::new(whole) })
}

/// Unpacks gzip of one member or several, and says so where it cannot.
pub(crate) struct Gunzip<R>(MultiGzDecoder<R>);

impl<R: BufRead> Gunzip<R> {
    pub(crate) fn new(packed: R) -> Self {
        Self(MultiGzDecoder::new(packed))
    }

    pub(crate) fn into_inner(self) -> R {
        self.0.into_inner()
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => e,
            kind => io::Error::new(kind, format!("{e}; the gzip file is damaged or cut off, fetch it again")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of these bytes, at most 8 bytes long, from a reader that gives `block` bytes at a time.
    fn read(bytes: &[u8], block: usize) -> Vec<Result<String, Fault>> {
        let mut lines = LineReader::new(BufReader::with_capacity(block, bytes), 8);
        let (mut found, mut end) = (Vec::new(), 0);
        while let Some(line) = lines.next().unwrap() {
            assert_eq!(line.number, found.len() as u64 + 1);
            assert!(line.start == end || (line.number == 1 && line.start == 3), "{line:?}");
            end = line.end;
            found.push(line.text.map(str::to_owned));
        }
        assert!(end == bytes.len() as u64 || bytes == BYTE_ORDER_MARK, "every byte is some line's");
        found
    }

    fn check(bytes: &[u8], expected: &[Result<&str, Fault>]) {
        let expected: Vec<_> = expected.iter().map(|line| line.clone().map(str::to_owned)).collect();
        for block in [1, 2, 3, 4, 64] {
            assert_eq!(read(bytes, block), expected, "{bytes:?} by {block}");
        }
    }

    #[test]
    fn lines_end_in_any_way_and_faults_do_not_shift_them() {
        check(b"", &[]);
        check(BYTE_ORDER_MARK, &[]);
        check(b"\xEF\xBB\xBF\n", &[Ok("")]);
        check(b"\n", &[Ok("")]);
        check(b"\xEF\xBB\xBFab\r\n\ncd", &[Ok("ab"), Ok(""), Ok("cd")]);
        check(b"ab\r\ncd\r", &[Ok("ab"), Ok("cd")]);
        check(b"a\rb\n\rc\n", &[Ok("a\rb"), Ok("\rc")]);
        check(b"a\xFFb\n12345678\r\nx", &[Err(Fault::NotUtf8(2)), Ok("12345678"), Ok("x")]);
        check(b"a\n\xEF\xBB\xBFb\n", &[Ok("a"), Ok("\u{FEFF}b")]);
        for long in ["123456789", "1234567890", "1234567890123456789012345"] {
            let fault = Fault::TooLong { bytes: long.len() as u64, limit: 8 };
            check(format!("{long}\nx\n").as_bytes(), &[Err(fault.clone()), Ok("x")]);
            check(format!("{long}\r\n\u{E9}").as_bytes(), &[Err(fault.clone()), Ok("\u{E9}")]);
            check(format!("\u{FEFF}{long}").as_bytes(), &[Err(fault)]);
        }
    }

    #[test]
    fn quotes_hold_lines_together() {
        let read = |text: &str, block: usize| {
            let mut lines = LineReader::of_csv(BufReader::with_capacity(block, text.as_bytes()), 12);
            let (mut found, mut end) = (Vec::new(), 0);
            while let Some(line) = lines.next().unwrap() {
                assert!(line.start == end || (line.number == 1 && line.start == 3), "{line:?}");
                end = line.end;
                found.push((line.number, line.text.map(str::to_owned)));
            }
            assert_eq!(end, text.len() as u64);
            found
        };
        let open = || Err(Fault::OpenQuote { limit: 12 });
        let before = |next| Err(Fault::UnclosedQuote { next });
        let check = |text: &str, expected: &[(u64, Result<&str, Fault>)]| {
            let expected: Vec<_> = expected.iter().map(|(n, line)| (*n, line.clone().map(str::to_owned))).collect();
            for block in [1, 2, 3, 5, 64] {
                assert_eq!(read(text, block), expected, "{text:?} by {block}");
            }
        };
        check("a,b\r\nc,d", &[(1, Ok("a,b")), (2, Ok("c,d"))]);
        check(
            "\"a\nb\",c\r\nd,\"\r\n\r\n\"\r\ne,f\n",
            &[(1, Ok("\"a\nb\",c")), (3, Ok("d,\"\r\n\r\n\"")), (6, Ok("e,f"))],
        );
        check("\u{FEFF}\"a\n\",b\nc", &[(1, Ok("\"a\n\",b")), (3, Ok("c"))]);
        check("\"a\"\"\n\"\nb\n", &[(1, Ok("\"a\"\"\n\"")), (3, Ok("b"))]);
        // A quote inside a cell that has none at its beginning opens nothing.
        check("5\" x\nb\n", &[(1, Ok("5\" x")), (2, Ok("b"))]);
        check("a,\"b\n", &[(1, open())]);
        // What nothing closes costs its own line, not the file, wherever this ends.
        let others = [(2, Ok("bbbb")), (3, Ok("ccccccc")), (4, Ok("d,e")), (5, Ok("f"))];
        check("\"a\nbbbb\nccccccc\nd,e\nf\n", &[&[(1, open())], &others[..]].concat());
        check("\"a\nbbbb\nc", &[(1, open()), (2, Ok("bbbb")), (3, Ok("c"))]);
        let rest = [(3, Ok("\"b\nc\nd,\"")), (6, Ok("e"))];
        check("x\n\"a\n\"b\nc\nd,\"\ne", &[&[(1, Ok("x")), (2, before(3))], &rest[..]].concat());
        check("\"a\nb\n\"c\",d\n", &[(1, before(3)), (2, Ok("b")), (3, Ok("\"c\",d"))]);
        check("x\ny,\"a\r\nb,\"c\"\nd\n", &[(1, Ok("x")), (2, before(3)), (3, Ok("b,\"c\"")), (4, Ok("d"))]);
        check("\"2345678901234567\nb\n", &[(1, open()), (2, Ok("b"))]);
        let long = Err(Fault::TooLong { bytes: 13, limit: 12 });
        check("1234567890,12\nx\n", &[(1, long), (2, Ok("x"))]);
    }

    #[test]
    fn what_is_no_text_at_all_is_named() {
        check(b"\xFF\xFEa\0", &[Err(Fault::Foreign("UTF-16"))]);
        check(b"\xFE\xFF\0a", &[Err(Fault::Foreign("UTF-16"))]);
        check(b"\x28\xB5\x2F\xFD\x01", &[Err(Fault::Foreign("zstd"))]);
        check(b"\xFD7zXZ\0\xFF", &[Err(Fault::Foreign("xz"))]);
        check(b"BZh91A\xFF", &[Err(Fault::Foreign("bzip2"))]);
        // In the middle of a text it is a bad line.
        check(b"a\n\xFF\xFEb\n", &[Ok("a"), Err(Fault::NotUtf8(1))]);
        check(b"a\0b\0\n\0", &[Err(Fault::Zero(2)), Err(Fault::Zero(1))]);
    }

    #[test]
    fn a_whole_text_is_read_like_its_lines() {
        assert_eq!(text(b"\xEF\xBB\xBFa\nb"), Ok("a\nb"));
        assert_eq!(text(b"a\nb\xFF\n"), Err((2, Fault::NotUtf8(2))));
        assert_eq!(text(b"\xFF\xFEa\0"), Err((1, Fault::Foreign("UTF-16"))));
    }

    #[test]
    fn a_stream_is_unpacked_where_it_is_packed() {
        use std::io::Write as _;
        let pack = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let text = |bytes: Vec<u8>| {
            let mut text = String::new();
            unpacked(Cursor::new(bytes)).unwrap().read_to_string(&mut text).map(|_| text)
        };
        for plain in ["", "a", "\u{1F}", "ab\nc\n"] {
            assert_eq!(text(plain.into()).unwrap(), plain);
            assert_eq!(text(pack(plain.as_bytes())).unwrap(), plain);
        }
        assert_eq!(text([pack(b"one\n"), pack(b"two")].concat()).unwrap(), "one\ntwo");
        // The end is asked for once.
        struct Terminal(u32);
        impl Read for Terminal {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                assert_eq!(self.0, 1, "a person would have to end it twice");
                Ok(buffer[..0].len())
            }
        }
        assert!(LineReader::new(unpacked(Terminal(0)).unwrap(), 8).next().unwrap().is_none());
        let mut cut = pack(b"some text");
        cut.truncate(cut.len() - 6);
        assert!(text(cut).unwrap_err().to_string().ends_with("the gzip file is damaged or cut off, fetch it again"));
    }
}
