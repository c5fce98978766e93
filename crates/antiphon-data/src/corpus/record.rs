//! The cells of a record of CSV.

use std::borrow::Cow;

use crate::lines::Fault;

/// The cells of a record of CSV (RFC 4180). CRLF in a cell becomes LF.
pub(super) fn cells_of_csv(record: &str) -> Result<Vec<Cow<'_, str>>, Fault> {
    let (mut cells, mut rest) = (Vec::new(), record);
    loop {
        let number = cells.len() + 1;
        let cell = if let Some(quoted) = rest.strip_prefix('"') {
            let mut end = 0;
            // The first quote that is not doubled closes.
            loop {
                end += quoted[end..].find('"').ok_or(Fault::StrayQuote(number))?;
                if !quoted[end + 1..].starts_with('"') {
                    break;
                }
                end += 2;
            }
            rest = &quoted[end + 1..];
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(Fault::BehindQuote(number));
            }
            let text = &quoted[..end];
            match text.contains(['"', '\r']) {
                true => Cow::Owned(text.replace("\"\"", "\"").replace("\r\n", "\n")),
                false => Cow::Borrowed(text),
            }
        } else {
            let (text, behind) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
            if text.contains('"') {
                let is_spaced = text.trim_start().starts_with('"');
                return Err(if is_spaced { Fault::SpacedQuote(number) } else { Fault::StrayQuote(number) });
            }
            rest = behind;
            Cow::Borrowed(text)
        };
        cells.push(cell);
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(cells),
        }
    }
}
