//! A pronouncing dictionary.

use std::collections::HashSet;

use antiphon_core::random::stable_hash;
use antiphon_core::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::preparation::Preparation;
use super::splits::Pairs;
use crate::recipe::files::Output;
use crate::recipe::inputs::Inputs;

/// A pronouncing dictionary: `WORD P1 H2 …` a line.
///
/// Comments (lines that begin with `;;;`, and what follows a `#`), variant marks (`(2)`) and stress digits are removed,
/// words are lower-cased, and only words of a–z and apostrophe are kept, each pronunciation once. A word belongs to test
/// if its 64-bit FNV-1a hash modulo 1000 is below `test`, else to validation if it is below `test + validation`, else
/// to train; so all pronunciations of a word stay together, on every machine and whatever else the dictionary holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cmudict {
    /// The dictionary.
    pub file: String,
    /// How many words of a thousand are for the test.
    #[schemars(range(min = 1, max = 499))]
    pub test: u64,
    /// How many words of a thousand are for validation.
    #[schemars(range(min = 1, max = 499))]
    pub validation: u64,
}

impl Preparation for Cmudict {
    fn inputs(&self) -> Vec<(String, &str)> {
        vec![("file".into(), &self.file)]
    }

    fn outputs(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn problems(&self) -> Vec<Problem> {
        let numbers = [("test", self.test), ("validation", self.validation)];
        let wrong = numbers.into_iter().filter(|(_, n)| !(1..500).contains(n));
        wrong
            .map(|(key, n)| Problem { place: key.into(), message: format!("must be from 1 to 499, got {n}") })
            .collect()
    }

    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let [mut train, mut validation, mut test] = Pairs::three("");
        let mut seen = HashSet::new();
        for (word, phones) in inputs.text(&self.file)?.lines().filter_map(pronunciation) {
            if seen.insert((word.clone(), phones.clone())) {
                let place = stable_hash(word.as_bytes()) % 1000;
                let split = if place < self.test {
                    &mut test
                } else if place < self.test + self.validation {
                    &mut validation
                } else {
                    &mut train
                };
                split.push(&word, &phones);
            }
        }
        for split in [&train, &validation, &test] {
            if split.is_empty() {
                let message = format!("no word falls to {}: the dictionary is too small", split.name());
                return Err(inputs.error(&self.file, message));
            }
        }
        Ok([train, validation, test].map(|split| split.finish(log)).into())
    }
}

/// The word and its phones of a dictionary's line, or `None` if it has none that is kept.
fn pronunciation(line: &str) -> Option<(String, String)> {
    if line.starts_with(";;;") {
        return None;
    }
    let line = line.split('#').next().unwrap_or_default();
    let mut parts = line.split_whitespace();
    let word = parts.next()?.to_lowercase();
    let word = match word.split_once('(') {
        Some((word, mark)) if mark.strip_suffix(')').is_some_and(|n| n.parse::<u32>().is_ok()) => word,
        _ => &word,
    };
    let phones: Vec<&str> = parts.map(|phone| phone.trim_end_matches(|c: char| c.is_ascii_digit())).collect();
    let kept = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'\'') && !phones.is_empty();
    kept.then(|| (word.to_string(), phones.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_line_is_cleaned() {
        let of = |line| pronunciation(line).map(|(word, phones)| format!("{word}: {phones}"));
        assert_eq!(of("AARDVARK  AA1 R D V AA2 R K").unwrap(), "aardvark: AA R D V AA R K");
        assert_eq!(of("a(2) EY1").unwrap(), "a: EY");
        assert_eq!(of("d'artagnan D AH0 R T AE1 NY # foreign french").unwrap(), "d'artagnan: D AH R T AE NY");
        for none in
            ["", ";;; # CMUdict", "# a comment", "a", "a.m. EY2 EH1 M", "naïve N AY2 IY1 V", "x(y) EH1 K S", "#a B"]
        {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
