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

/// What there was to a record.
#[derive(Clone, Copy)]
pub(super) struct Held {
    /// How many of its lines are not the last.
    pub(super) lines: u64,
    /// Whether a quote is still open at its end.
    pub(super) is_open: bool,
}

impl Quotes {
    /// The place of the line end in `block` that ends the record, if it is there; `seen` bytes came before the block. Behind
    /// `longest` bytes any line end is.
    pub(super) fn end_in(&mut self, block: &[u8], seen: u64, longest: u64) -> Option<usize> {
        for (i, &byte) in block.iter().enumerate() {
            if byte == b'\n' {
                if self.at != At::Quoted || seen + i as u64 > longest {
                    return Some(i);
                }
                self.lines += 1;
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

    /// What there was to the record; the next one begins.
    pub(super) fn finish(&mut self) -> Held {
        let Self { at, lines } = std::mem::take(self);
        Held { lines, is_open: at == At::Quoted }
    }
}
