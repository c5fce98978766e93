//! Sphinx's `.mfc`: how many numbers there are, in 32 bits, then so many 32-bit floating point numbers, frame after frame. The
//! file does not say which end of a number comes first; the count does, which must fit the length of the file.

use antiphon_core::{Error, Result};

use super::{Array, Bytes, Number};

/// The bytes of the count, and of a number.
const WORD: u64 = 4;

pub(super) fn array<'a>(bytes: &'a Bytes<'a>, width: usize) -> Result<Array<'a>> {
    let mut count = [0; WORD as usize];
    if bytes.len >= WORD {
        bytes.read(&mut count, 0)?;
    }
    let counts = [u32::from_be_bytes(count), u32::from_le_bytes(count)];
    let fits = |count: &u32| bytes.len == WORD + WORD * u64::from(*count);
    let Some(order) = counts.iter().position(fits) else {
        let [big, little] = counts;
        let message = format!(
            "has {} bytes, which fit neither {big} numbers nor, read from the other end, {little}: it is truncated, or no file of \
             Sphinx; make its features once more",
            bytes.len
        );
        return Err(Error::new(message));
    };
    let count = u64::from(counts[order]);
    if !count.is_multiple_of(width as u64) {
        let message = format!("{count} numbers are no whole frames of {width}; set `width` to what a frame has");
        return Err(Error::new(message));
    }
    Ok(Array {
        bytes,
        start: WORD,
        number: Number::F32,
        is_big_endian: order == 0,
        is_by_columns: false,
        frames: count / width as u64,
        width,
    })
}
