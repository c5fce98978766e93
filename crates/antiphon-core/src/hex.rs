//! Bytes as people compare them.

/// Bytes in lower-case hexadecimal, as `sha256sum` writes them.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|half| char::from(DIGITS[usize::from(half)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_two_digits() {
        assert_eq!(hex(&[0, 7, 0x10, 0xab, 255]), "000710abff");
        assert_eq!(hex(&[]), "");
    }
}
