//! Where the records of CSV end: not at every line end.

/// The quotes of a record as its bytes go by (RFC 4180): one at the beginning of a cell opens it, the next that is not doubled
/// closes it.
#[derive(Debug, Default)]
pub(super) struct Quotes {
    at: At,
    /// The line ends that were passed over.
    lines: u64,
}

/// Where in a cell the last byte stands.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum At {
    /// Before its first.
    #[default]
    Beginning,
    /// In text that no quote opens, or behind the quotes.
    Plain,
    /// Between quotes.
    Quoted,
    /// Behind a quote that closes, unless another follows.
    Closing,
}

/// What ends the bytes that belong to a record, and its place among them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum End {
    /// Its line end.
    Line(usize),
    /// Text behind a quote that would close a cell begun in an earlier line. So it does not close it: nothing does.
    Text(usize),
}

impl Quotes {
    /// What ends the record, if `block` has it.
    pub(super) fn end_in(&mut self, block: &[u8]) -> Option<End> {
        for (i, &byte) in block.iter().enumerate() {
            if byte == b'\n' {
                if self.at != At::Quoted {
                    return Some(End::Line(i));
                }
                self.lines += 1;
            }
            if self.at == At::Closing && self.lines > 0 && !matches!(byte, b'"' | b',' | b'\r') {
                return Some(End::Text(i));
            }
            self.at = match (self.at, byte) {
                (At::Quoted, b'"') => At::Closing,
                (At::Quoted, _) => At::Quoted,
                (At::Beginning, b'"') | (At::Closing, b'"') => At::Quoted,
                (At::Beginning | At::Plain | At::Closing, b',') => At::Beginning,
                // The bytes of a byte order mark, behind which a file begins.
                (At::Beginning, 0xEF | 0xBB | 0xBF) => At::Beginning,
                (At::Beginning | At::Plain | At::Closing, _) => At::Plain,
            };
        }
        None
    }

    /// Whether a quote is open.
    pub(super) fn is_open(&self) -> bool {
        self.at == At::Quoted
    }

    /// How many line ends were passed over.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// How many lines of the record are not its last; the next record begins.
    pub(super) fn finish(&mut self) -> u64 {
        std::mem::take(self).lines
    }
}
