//! NumPy's `.npy`: a magic, a version, the length of a header, and a header, which is a dictionary of Python
//! (`numpy/lib/format.py`): `{'descr': '<f4', 'fortran_order': False, 'shape': (93, 40), }`.

use antiphon_core::{Error, Result};

use super::{Array, Bytes, Number, other_width};

const MAGIC: &[u8] = b"\x93NUMPY";
/// The longest header that is read, in bytes: NumPy pads what it writes to few times 64.
const MAX_HEADER: u64 = 65_536;

pub(super) fn array<'a>(bytes: &'a Bytes<'a>, width: usize) -> Result<Array<'a>> {
    let foreign = |why: &str| Error::new(format!("is no array of NumPy: {why}; write it with `numpy.save`"));
    let mut head = [0; 12];
    if bytes.len < head.len() as u64 {
        return Err(foreign("it is too short"));
    }
    bytes.read(&mut head, 0)?;
    if !head.starts_with(MAGIC) {
        return Err(foreign("it begins in another way"));
    }
    let (start, length) = match head[6] {
        1 => (10, u64::from(u16::from_le_bytes([head[8], head[9]]))),
        2 | 3 => (12, u64::from(u32::from_le_bytes([head[8], head[9], head[10], head[11]]))),
        version => return Err(foreign(&format!("its version {version} is not known"))),
    };
    if length > MAX_HEADER || start + length > bytes.len {
        return Err(foreign(&format!("a header of {length} bytes does not fit into it")));
    }
    let mut header = vec![0; length as usize];
    bytes.read(&mut header, start)?;
    let header = str::from_utf8(&header).map_err(|_| foreign("its header is not UTF-8"))?;
    let Some(Header { kind, is_by_columns, shape }) = Header::parse(header) else {
        return Err(foreign(&format!("its header is `{}`", header.trim_end())));
    };

    let (order, kind) = kind.split_at_checked(1).unwrap_or_default();
    let number = match kind {
        "f4" => Some(Number::F32),
        "f8" => Some(Number::F64),
        "i2" => Some(Number::I16),
        _ => None,
    };
    let (Some(number), "<" | ">") = (number, order) else {
        let message = format!("holds numbers of the kind `{order}{kind}`; convert them with `array.astype('<f4')`");
        return Err(Error::new(message));
    };
    let &[frames, columns] = shape.as_slice() else {
        let message = format!("its array has {} dimensions, not 2; give one of frames by `width`", shape.len());
        return Err(Error::new(message));
    };
    if columns != width as u64 {
        return Err(other_width(columns, width));
    }
    let promised = frames.checked_mul(columns).and_then(|numbers| numbers.checked_mul(number.bytes() as u64));
    let there = bytes.len - start - length;
    if promised != Some(there) {
        let message = format!(
            "{there} bytes follow its header, which are not the {frames} times {columns} numbers that it promises: it is damaged; \
             write it once more"
        );
        return Err(Error::new(message));
    }
    let start = start + length;
    Ok(Array { bytes, start, number, is_big_endian: order == ">", is_by_columns, frames, width })
}

/// What a header says.
struct Header<'a> {
    kind: &'a str,
    is_by_columns: bool,
    shape: Vec<u64>,
}

impl<'a> Header<'a> {
    /// The three entries, in any order; `None` of anything else.
    fn parse(text: &'a str) -> Option<Self> {
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
        let (mut kind, mut is_by_columns, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, value) = quoted(rest)?;
            let value = value.trim_start().strip_prefix(':')?.trim_start();
            let after = match key {
                "descr" => {
                    let (found, after) = quoted(value)?;
                    kind = Some(found);
                    after
                }
                "fortran_order" => {
                    let (found, word) = if value.starts_with("True") { (true, "True") } else { (false, "False") };
                    is_by_columns = Some(found);
                    value.strip_prefix(word)?
                }
                "shape" => {
                    let (inside, after) = value.strip_prefix('(')?.split_once(')')?;
                    let sizes = inside.split(',').map(str::trim).filter(|size| !size.is_empty());
                    shape = Some(sizes.map(|size| size.parse().ok()).collect::<Option<Vec<u64>>>()?);
                    after
                }
                _ => return None,
            };
            let after = after.trim_start();
            rest = if after.is_empty() { after } else { after.strip_prefix(',')?.trim_start() };
        }
        Some(Self { kind: kind?, is_by_columns: is_by_columns?, shape: shape? })
    }
}

/// What stands between quotes at the beginning, and what comes behind it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}
