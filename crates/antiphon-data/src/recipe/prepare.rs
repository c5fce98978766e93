//! What a recipe makes of its files.

use std::collections::{BTreeSet, HashSet};

use antiphon_core::Result;
use antiphon_core::random::{Key, stable_hash};

use super::Inputs;
use super::config::{Cmudict, Copies, G014b2b, PairsByLines, PreparationConfig};
use super::store::Output;
use crate::corpus::split_pair;

impl PreparationConfig {
    /// The prepared files. `log` gets the counts.
    pub(super) fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        match self {
            Self::Cmudict(config) => config.run(inputs, log),
            Self::G014b2b(config) => config.run(inputs, log),
            Self::PairsByLines(config) => config.run(inputs, log),
            Self::Copy(config) => Ok(config.run(inputs)),
        }
    }
}

/// A split that is being written as `source<TAB>target`.
struct Pairs {
    name: &'static str,
    text: String,
    pairs: usize,
    words: HashSet<String>,
}

impl Pairs {
    fn new(name: &'static str) -> Self {
        Self { name, text: String::new(), pairs: 0, words: HashSet::new() }
    }

    fn push(&mut self, source: &str, target: &str) {
        self.text += &format!("{source}\t{target}\n");
        self.pairs += 1;
        self.words.insert(source.to_string());
    }

    fn finish(self, log: &mut dyn FnMut(&str)) -> Output {
        log(&format!("{}: {} pairs of {} sources", self.name, self.pairs, self.words.len()));
        Output { name: format!("{}.tsv", self.name), bytes: self.text.into_bytes() }
    }
}

impl Cmudict {
    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let (mut train, mut validation, mut test) = (Pairs::new("train"), Pairs::new("validation"), Pairs::new("test"));
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
            if split.pairs == 0 {
                return Err(
                    inputs.error(&self.file, format!("no word falls to {}: the dictionary is too small", split.name))
                );
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

impl G014b2b {
    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let lines = read_pairs(inputs, &self.train)?;
        let mut words: Vec<&str> = lines.iter().map(|(word, _)| *word).collect::<BTreeSet<_>>().into_iter().collect();
        if words.len() <= self.validation_words {
            let message = format!("{} words: too few to hold out {} of them", words.len(), self.validation_words);
            return Err(inputs.error(&self.train, message));
        }
        words.sort_by_key(|word| Key::from_seed(0).named(word).bits());
        let held_out: HashSet<&str> = words[..self.validation_words].iter().copied().collect();
        let (mut train, mut validation, mut test) = (Pairs::new("train"), Pairs::new("validation"), Pairs::new("test"));
        for (word, phones) in lines {
            let split = if held_out.contains(word) { &mut validation } else { &mut train };
            split.push(word, phones);
        }
        for (word, phones) in read_pairs(inputs, &self.test)? {
            test.push(word, phones);
        }
        Ok([train, validation, test].map(|split| split.finish(log)).into())
    }
}

impl PairsByLines {
    fn run(&self, inputs: &Inputs<'_>, log: &mut dyn FnMut(&str)) -> Result<Vec<Output>> {
        let lines = read_pairs(inputs, &self.file)?;
        if lines.len() < self.train + self.validation {
            let message = format!("{} lines, but the recipe takes {}", lines.len(), self.train + self.validation);
            return Err(inputs.error(&self.file, message));
        }
        let (mut train, mut validation) = (Pairs::new("train"), Pairs::new("validation"));
        for (i, (source, target)) in lines.into_iter().take(self.train + self.validation).enumerate() {
            let split = if i < self.train { &mut train } else { &mut validation };
            split.push(source, target);
        }
        Ok([train, validation].map(|split| split.finish(log)).into())
    }
}

/// The lines of a file of pairs; every one must be one.
fn read_pairs<'a>(inputs: &'a Inputs<'_>, name: &str) -> Result<Vec<(&'a str, &'a str)>> {
    let pair = |(i, line): (usize, &'a str)| {
        split_pair(line).map_err(|fault| inputs.error(name, fault.to_string()).at(format_args!("line {}", i + 1)))
    };
    inputs.text(name)?.lines().enumerate().map(pair).collect()
}

impl Copies {
    fn run(&self, inputs: &Inputs<'_>) -> Vec<Output> {
        let output = |copy: &super::Copy| Output { name: copy.to.clone(), bytes: inputs.bytes(&copy.from).to_vec() };
        self.copies.iter().map(output).collect()
    }
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
