//! chrF (Popović 2015) and chrF++ (Popović 2017), as sacreBLEU computes them.
//!
//! `chrF = 100 · (1 + β²) · P · R / (β² · P + R)`: `P` and `R` are the shares of the hypotheses' and of the references'
//! n-grams that the other side has too, summed over the corpus for each order and averaged over those orders in which
//! both sides have n-grams. Of several references the one with the best figure for the answer counts, and of equals the
//! first.

use antiphon_core::Judged;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::additive::AdditiveMetric;
use crate::detokenize::{self, Detokenization, running_text};
use crate::ngrams::{bag, overlap};
use crate::sacrebleu::{VERSION, case, reference_count, words, yes_no};

/// chrF.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChrfConfig {
    /// How an answer becomes running text first; if unset, it is taken as it is. References are never changed: they must be
    /// running text already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detokenize: Option<Detokenization>,
    /// The longest n-grams of characters that count.
    #[schemars(range(min = 1, max = 32))]
    pub character_order: usize,
    /// The longest n-grams of words that count; 2 makes it chrF++.
    #[schemars(range(max = 32))]
    pub word_order: usize,
    /// β: how many times as much recall weighs as precision.
    #[schemars(range(min = 1))]
    pub beta: u32,
    /// Whether upper and lower case count as the same.
    pub lowercase: bool,
    /// Whether white space belongs to the characters.
    pub whitespace: bool,
}

impl Default for ChrfConfig {
    fn default() -> Self {
        Self { detokenize: None, character_order: 6, word_order: 0, beta: 2, lowercase: false, whitespace: false }
    }
}

/// A text as characters and as words.
struct Units<'t> {
    characters: Vec<char>,
    words: Vec<&'t str>,
}

impl ChrfConfig {
    fn orders(&self) -> usize {
        self.character_order + self.word_order
    }

    fn prepare(&self, text: &str) -> String {
        if self.lowercase { text.to_lowercase() } else { text.to_string() }
    }

    fn units<'t>(&self, text: &'t str) -> Units<'t> {
        let characters =
            if self.whitespace { text.chars().collect() } else { words(text).flat_map(str::chars).collect() };
        let words = if self.word_order == 0 { Vec::new() } else { words(text).flat_map(without_mark).collect() };
        Units { characters, words }
    }

    /// For each order: n-grams of the hypothesis, of the reference, of both.
    fn compare(&self, hypothesis: &Units<'_>, reference: &Units<'_>) -> Vec<u64> {
        let mut counts = Vec::with_capacity(3 * self.orders());
        for n in 1..=self.character_order {
            counts.extend(shared(&bag(&hypothesis.characters, n), &bag(&reference.characters, n)));
        }
        for n in 1..=self.word_order {
            counts.extend(shared(&bag(&hypothesis.words, n), &bag(&reference.words, n)));
        }
        counts
    }
}

/// Parts a word from one punctuation mark: the last character if it is one, else the first.
fn without_mark(word: &str) -> impl Iterator<Item = &str> {
    let is_mark = |c: char| c.is_ascii_punctuation();
    let end = word.char_indices().next_back().map_or(0, |(at, _)| at);
    let cut = if end > 0 && word.ends_with(is_mark) {
        end
    } else if end > 0 && word.starts_with(is_mark) {
        1
    } else {
        0
    };
    let (left, right) = word.split_at(cut);
    [left, right].into_iter().filter(|part| !part.is_empty())
}

/// N-grams of the hypothesis (none where the reference has none), of the reference, of both.
fn shared<G: Ord + Copy>(hypothesis: &[G], reference: &[G]) -> [u64; 3] {
    let given = if reference.is_empty() { 0 } else { hypothesis.len() };
    [given as u64, reference.len() as u64, overlap(hypothesis, reference) as u64]
}

/// Counts: for each order, n-grams of the hypothesis, of the reference and of both.
impl AdditiveMetric for ChrfConfig {
    fn name(&self) -> &'static str {
        "chrf"
    }

    fn lower_is_better(&self) -> bool {
        false
    }

    fn width(&self) -> usize {
        3 * self.orders()
    }

    fn count(&self, answer: &Judged, counts: &mut [u64]) {
        let hypothesis = self.prepare(&running_text(self.detokenize.as_ref(), &answer.hypothesis));
        let hypothesis = self.units(&hypothesis);
        let mut best = f64::NEG_INFINITY;
        for reference in &answer.references {
            let candidate = self.compare(&hypothesis, &self.units(&self.prepare(reference)));
            let figure = self.figure(&candidate);
            if figure > best {
                best = figure;
                counts.copy_from_slice(&candidate);
            }
        }
    }

    fn figure(&self, sums: &[u64]) -> f64 {
        let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
        for counts in sums.chunks_exact(3) {
            let (given, wanted, both) = (counts[0] as f64, counts[1] as f64, counts[2] as f64);
            if given > 0.0 && wanted > 0.0 {
                precision += both / given;
                recall += both / wanted;
                orders += 1.0;
            }
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        (precision, recall) = (precision / orders, recall / orders);
        let weight = f64::from(self.beta).powi(2);
        100.0 * ((1.0 + weight) * precision * recall / (weight * precision + recall))
    }

    fn signature(&self, answers: &[Judged]) -> String {
        // sacreBLEU tells beta in the figure's name (`chrF2`), and not in the signature.
        let beta = if self.beta == 2 { String::new() } else { format!("beta:{}|", self.beta) };
        format!(
            "nrefs:{}|case:{}|eff:yes|nc:{}|nw:{}|space:{}|{beta}version:{VERSION}{}",
            reference_count(answers),
            case(self.lowercase),
            self.character_order,
            self.word_order,
            yes_no(self.whitespace),
            detokenize::signature(self.detokenize.as_ref()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MetricConfig;

    #[test]
    fn a_figure_by_hand() {
        // "abc" for "abd": orders 1 and 2 share 2/3 and 1/2; order 3 nothing; so P = R = 7/18.
        let config = MetricConfig::Chrf(ChrfConfig { character_order: 3, ..Default::default() });
        let answers = [Judged::new("ab c", ["a bd"])];
        let score = config.build().score(&answers).unwrap();
        assert!((score.value - 100.0 * 7.0 / 18.0).abs() < 1e-12, "{}", score.value);
        assert_eq!(score.signature, "nrefs:1|case:mixed|eff:yes|nc:3|nw:0|space:no|version:2.6.0");
    }

    #[test]
    fn of_equally_good_references_the_first_counts() {
        let config = MetricConfig::Chrf(ChrfConfig { character_order: 1, beta: 1, ..Default::default() });
        let answer = |hypothesis: &str, references: &[&str]| Judged::new(hypothesis, references.iter().copied());
        // Neither reference of the first answer shares a character: P = 1/2, and R = 1/3 or 1/5.
        for (references, recall) in [(["ab", "abcd"], 1.0 / 3.0), (["abcd", "ab"], 1.0 / 5.0)] {
            let value = config.build().score(&[answer("x", &references), answer("q", &["q", "q"])]).unwrap().value;
            assert!((value - 100.0 * recall / (0.5 + recall)).abs() < 1e-12, "{value}");
        }
    }

    #[test]
    fn an_answer_becomes_running_text_first() {
        let config = r#"{"whitespace": true, "detokenize": {"kind": "moses", "language": "de"}}"#;
        let config: ChrfConfig = serde_json::from_str(config).unwrap();
        let answers = [Judged::new("ja , gut &amp; schön !", ["ja, gut & schön!"])];
        let score = crate::MetricConfig::Chrf(config).build().score(&answers).unwrap();
        assert!((score.value - 100.0).abs() < 1e-9, "{}", score.value);
        assert_eq!(score.signature, "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:yes|version:2.6.0|detok:moses-de");
    }

    #[test]
    fn one_mark_is_parted_from_a_word() {
        let parts = |word| without_mark(word).collect::<Vec<_>>();
        assert_eq!(parts("(hi)"), ["(hi", ")"]);
        assert_eq!(parts("(hi"), ["(", "hi"]);
        assert_eq!(parts("!"), ["!"]);
        assert_eq!(parts("é»"), ["é»"]);
    }
}
