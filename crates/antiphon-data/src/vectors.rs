//! Word vectors as text, as word2vec, GloVe and fastText have them.
//!
//! A line is a token and its numbers, a space between each. word2vec and fastText begin with a line that tells how many there are
//! and how wide; GloVe does not. A token of GloVe's may have spaces of its own, so a line is read from its end.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs::File;
use std::io::BufRead;
use std::path::Path;

use antiphon_core::{Error, Place, Result};

use crate::lines::unpacked;

/// The vectors that a file has for some tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// Numbers of a vector.
    pub width: usize,
    /// The vectors that were found, one behind another.
    pub values: Vec<f32>,
    /// For each token, the number of its vector among them.
    pub of: Vec<Option<usize>>,
}

/// A file of vectors, read from its beginning.
struct Reader<'p> {
    path: &'p Path,
    text: Box<dyn BufRead + Send>,
    width: usize,
    /// Of the line that was read last, counted from 1.
    number: usize,
    line: Vec<u8>,
    /// Whether the line that was read last is still to be given: the first one, if it is a vector.
    waits: bool,
}

impl<'p> Reader<'p> {
    fn open(path: &'p Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io(path, "open", &error))?;
        let text = unpacked(file).map_err(|error| Error::io(path, "read", &error))?;
        let mut reader = Self { path, text, width: 0, number: 0, line: Vec::new(), waits: false };
        if !reader.read()? {
            return Err(Error::new("the file is empty: give one of word vectors").in_file(path));
        }
        let fields: Vec<&[u8]> = reader.line.split(|&byte| byte == b' ').collect();
        let count = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<usize>().ok();
        (reader.width, reader.waits) = match fields.as_slice() {
            [all, width] if count(all).is_some() && count(width).is_some() => (count(width).unwrap_or_default(), false),
            fields => (fields.len() - 1, true),
        };
        if reader.width == 0 {
            let message = "is no vector: a line is a token and its numbers, with spaces between";
            return Err(Error::new(message).in_file(path).at(Place::line(1)));
        }
        Ok(reader)
    }

    /// Reads a line; false at the end.
    fn read(&mut self) -> Result<bool> {
        self.line.clear();
        self.text.read_until(b'\n', &mut self.line).map_err(|error| Error::io(self.path, "read", &error))?;
        let is_there = !self.line.is_empty();
        self.number += usize::from(is_there);
        let end = self.line.iter().rposition(|byte| !b" \t\r\n".contains(byte)).map_or(0, |last| last + 1);
        self.line.truncate(end);
        Ok(is_there)
    }

    /// The next token and its numbers, still as text; `None` at the end.
    fn next(&mut self) -> Result<Option<(String, &[u8])>> {
        if !std::mem::take(&mut self.waits) && !self.read()? {
            return Ok(None);
        }
        let spaces = self.line.iter().enumerate().rev().filter(|(_, byte)| **byte == b' ');
        let Some((at, _)) = spaces.clone().nth(self.width - 1) else {
            let (found, width) = (spaces.count(), self.width);
            let message = format!(
                "has {found} numbers behind its token, and not {width} as others: remove it, or restore the file"
            );
            return Err(Error::new(message).in_file(self.path).at(Place::line(self.number)));
        };
        Ok(Some((String::from_utf8_lossy(&self.line[..at]).into_owned(), &self.line[at + 1..])))
    }
}

impl Vectors {
    /// How wide the vectors of a file are.
    ///
    /// # Errors
    /// If it cannot be read, or does not begin as one of vectors does.
    pub fn width(path: &Path) -> Result<usize> {
        Ok(Reader::open(path)?.width)
    }

    /// Reads the vectors of these tokens; of several for one token the first counts. A file may be packed by gzip.
    ///
    /// # Errors
    /// If the file cannot be read, or a line has too few numbers, or what is no number: names the line.
    pub fn read(path: &Path, tokens: &[String]) -> Result<Self> {
        let mut wanted: HashMap<&str, Vec<usize>> = HashMap::new();
        for (id, token) in tokens.iter().enumerate() {
            wanted.entry(token).or_default().push(id);
        }
        let mut reader = Reader::open(path)?;
        let mut found = Self { width: reader.width, values: Vec::new(), of: vec![None; tokens.len()] };
        let mut count = 0;
        while let Some((token, numbers)) = reader.next()? {
            let Some(ids) = wanted.remove(token.as_str()) else { continue };
            let number = |field: &[u8]| {
                let text = String::from_utf8_lossy(field).into_owned();
                text.parse::<f32>().ok().filter(|number| number.is_finite()).ok_or(text)
            };
            let numbers: std::result::Result<Vec<f32>, String> =
                numbers.split(|&byte| byte == b' ').map(number).collect();
            let numbers = numbers.map_err(|text| {
                let message = format!("`{text}` is not a number: mend or remove this line");
                Error::new(message).in_file(path).at(Place::line(reader.number))
            })?;
            found.values.extend(numbers);
            ids.into_iter().for_each(|id| found.of[id] = Some(count));
            count += 1;
        }
        Ok(found)
    }
}

/// Tokens and their vectors as a text of word2vec's form, which gensim and others read. What has white space of its own cannot stand
/// there, nor can an empty token: how many were left out stands beside the text.
pub fn vectors_as_text<'t>(width: usize, rows: impl Iterator<Item = (&'t str, &'t [f32])>) -> (String, usize) {
    let fits = |token: &str| !token.is_empty() && !token.contains(char::is_whitespace);
    let (these, others): (Vec<_>, Vec<_>) = rows.partition(|(token, _)| fits(token));
    let mut text = format!("{} {width}\n", these.len());
    for (token, numbers) in these {
        text += token;
        for number in numbers {
            // The shortest text that is this number.
            write!(text, " {number}").expect("a text takes all");
        }
        text.push('\n');
    }
    (text, others.len())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: &[u8], tokens: &[&str]) -> Result<Vectors> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Vectors::read(file.path(), &tokens.iter().map(|token| (*token).to_owned()).collect::<Vec<_>>())
    }

    fn found(bytes: &[u8], tokens: &[&str]) -> Vec<Option<Vec<f32>>> {
        let Vectors { width, values, of } = read(bytes, tokens).unwrap();
        of.into_iter().map(|row| Some(values[row? * width..][..width].to_vec())).collect()
    }

    #[test]
    fn all_three_forms_are_read() {
        let (a, b) = (Some(vec![0.5, -1.0]), Some(vec![1e-3, 2.0]));
        // word2vec; fastText with its spaces at the ends; GloVe, with spaces in a token; ends of lines of another system.
        assert_eq!(found(b"2 2\na 0.5 -1\nb 0.001 2\n", &["b", "c", "a"]), [b.clone(), None, a.clone()]);
        assert_eq!(found(b"2 2\na 0.5 -1 \nb 1e-3 2 \n", &["a", "b"]), [a.clone(), b.clone()]);
        assert_eq!(found(b"a 0.5 -1\r\nb b 0.001 2.0", &["a", "b b", "b"]), [a.clone(), b.clone(), None]);
        // The first of two counts, one vector serves all who want it, and what is not UTF-8 is nobody's.
        let odd = b"1 2\na 0.5 -1\na 7 7\n\xff\xfe 1 2\n";
        assert_eq!(found(odd, &["a", "a", "x"]), [a.clone(), a.clone(), None]);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"1 2\na 0.5 -1\n").unwrap();
        assert_eq!(found(&packed.finish().unwrap(), &["a"]), [a]);
    }

    #[test]
    fn what_is_no_vector_is_named() {
        let said = |bytes: &[u8]| {
            let error = read(bytes, &["a", "b"]).unwrap_err().to_string();
            error.split_once(": ").unwrap().1.to_owned()
        };
        assert_eq!(said(b""), "the file is empty: give one of word vectors");
        assert_eq!(said(b"a\n"), "line 1: is no vector: a line is a token and its numbers, with spaces between");
        assert_eq!(
            said(b"a 1 2\nb 1\n"),
            "line 2: has 1 numbers behind its token, and not 2 as others: remove it, or restore the file"
        );
        assert_eq!(said(b"a 1 x\n"), "line 1: `x` is not a number: mend or remove this line");
        assert_eq!(said(b"2 2\nb 1 nan\n"), "line 2: `nan` is not a number: mend or remove this line");
        // What nobody wants is not looked at.
        assert!(read(b"c 1 x\n", &["a"]).is_ok());
    }

    #[test]
    fn what_is_written_is_read_again_to_the_last_bit() {
        let numbers = [0.1, -0.0, f32::MIN_POSITIVE / 3.0, f32::MAX];
        let rows = [("a", &numbers[..2]), ("two words", &numbers[..2]), ("é", &numbers[2..]), ("", &numbers[2..])];
        let (text, left_out) = vectors_as_text(2, rows.into_iter());
        assert_eq!((text.lines().next(), left_out), (Some("2 2"), 2));
        let Vectors { width, values, of } = read(text.as_bytes(), &["a", "é"]).unwrap();
        assert_eq!((width, of), (2, vec![Some(0), Some(1)]));
        assert_eq!(values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), numbers.map(f32::to_bits));
    }
}
