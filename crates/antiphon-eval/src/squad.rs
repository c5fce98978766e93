//! Exact match and token F1 of answers to questions, as the evaluation script of SQuAD 1.1 (Rajpurkar et al. 2016) computes them.
//!
//! Answers and references are normalised first: in lower case, without ASCII punctuation, without the words `a`, `an` and `the`,
//! and with one space between words. Of several references the best counts, and the figure is the mean over the questions. Where a
//! text has no word left, it matches only another such one, as the script of SQuAD 2.0 has it for questions without an answer.

use antiphon_core::Judged;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::additive::AdditiveMetric;
use crate::sacrebleu::{reference_count, words};

/// Percent of answers that match a reference exactly, once both are normalised as SQuAD's script does it: lower case, no ASCII
/// punctuation, no articles (`a`, `an`, `the`), single spaces.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExactMatchConfig {}

/// The mean over all answers of F1, in percent: the harmonic mean of the shares of the answer's words that stand in the reference,
/// and of the reference's that stand in the answer, each word as often as both have it. Texts are normalised as for `exact_match`;
/// of several references the best counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenF1Config {}

/// The name of the normaliser in signatures.
const NORMALISER: &str = "squad1.1";

/// What an F1 of 1 counts: the least common multiple of the numbers up to 28, so that an F1 is exact where answer and reference have
/// no more words together, and off by less than 1e-11 elsewhere. A sum over 200 million answers fits into 64 bits.
const ONE: u64 = 80_313_433_200;

/// A text as SQuAD's script compares it.
///
/// ```
/// assert_eq!(antiphon_eval::squad::normalized(" The U.S.\tNavy's  (an) aircraft"), "us navys aircraft");
/// ```
pub fn normalized(text: &str) -> String {
    let text: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // Runs of letters and digits, and what stands between them: an article is one whole run.
    let is_word = |c: char| c.is_alphanumeric();
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let inside = is_word(first);
        let (run, behind) = rest.split_at(rest.find(|c| is_word(c) != inside).unwrap_or(rest.len()));
        kept += if matches!(run, "a" | "an" | "the") { " " } else { run };
        rest = behind;
    }
    words(&kept).collect::<Vec<_>>().join(" ")
}

/// Whether an answer matches a reference exactly, both normalised.
pub fn matches_exactly<S: AsRef<str>>(answer: &str, references: &[S]) -> bool {
    let answer = normalized(answer);
    references.iter().any(|reference| normalized(reference.as_ref()) == answer)
}

/// Twice the words that both have, and the words of both together.
fn shared(answer: &str, reference: &str) -> (u64, u64) {
    let sorted = |text: &'_ str| {
        let mut all: Vec<String> = words(text).map(str::to_owned).collect();
        all.sort_unstable();
        all
    };
    let (answer, reference) = (sorted(answer), sorted(reference));
    if answer.is_empty() && reference.is_empty() {
        return (1, 1);
    }
    let (mut i, mut j, mut both) = (0, 0, 0);
    while let (Some(a), Some(r)) = (answer.get(i), reference.get(j)) {
        match a.cmp(r) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, both) = (i + 1, j + 1, both + 1),
        }
    }
    (2 * both, (answer.len() + reference.len()) as u64)
}

fn signature(answers: &[Judged]) -> String {
    format!("nrefs:{}|norm:{NORMALISER}", reference_count(answers))
}

/// Counts: right answers, answers.
pub(crate) struct ExactMatch;

impl AdditiveMetric for ExactMatch {
    fn name(&self) -> &'static str {
        "exact_match"
    }

    fn lower_is_better(&self) -> bool {
        false
    }

    fn width(&self) -> usize {
        2
    }

    fn count(&self, answer: &Judged, counts: &mut [u64]) {
        counts.copy_from_slice(&[matches_exactly(&answer.hypothesis, &answer.references).into(), 1]);
    }

    fn figure(&self, sums: &[u64]) -> f64 {
        100.0 * sums[0] as f64 / sums[1].max(1) as f64
    }

    fn signature(&self, answers: &[Judged]) -> String {
        signature(answers)
    }
}

/// Counts: F1 in parts of [`ONE`], answers.
pub(crate) struct TokenF1;

impl AdditiveMetric for TokenF1 {
    fn name(&self) -> &'static str {
        "token_f1"
    }

    fn lower_is_better(&self) -> bool {
        false
    }

    fn width(&self) -> usize {
        2
    }

    fn count(&self, answer: &Judged, counts: &mut [u64]) {
        let hypothesis = normalized(&answer.hypothesis);
        let f1 = |reference: &String| {
            let (both, all) = shared(&hypothesis, &normalized(reference));
            (both as f64 / all as f64 * ONE as f64).round() as u64
        };
        counts.copy_from_slice(&[answer.references.iter().map(f1).max().unwrap_or(0), 1]);
    }

    fn figure(&self, sums: &[u64]) -> f64 {
        100.0 * sums[0] as f64 / (ONE as f64 * sums[1].max(1) as f64)
    }

    fn signature(&self, answers: &[Judged]) -> String {
        signature(answers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MetricConfig;

    /// Exact match and F1 of one answer.
    fn figures(answer: &str, references: &[&str]) -> [f64; 2] {
        let judged = [Judged::new(answer, references.iter().copied())];
        [MetricConfig::ExactMatch(ExactMatchConfig {}), MetricConfig::TokenF1(TokenF1Config {})]
            .map(|metric| metric.build().score(&judged).unwrap().value)
    }

    #[test]
    fn figures_by_hand() {
        assert_eq!(figures("The kitchen.", &["kitchen"]), [100.0, 100.0]);
        // Two of three words are right, and two of two are found: 2 · 2 / 5.
        assert_eq!(figures("in the red kitchen", &["red kitchen"]), [0.0, 80.0]);
        // A word counts as often as both have it, in whatever order; the best reference counts.
        assert_eq!(figures("b a b c", &["x", "c b", "b c b b"])[1], 100.0 * 6.0 / 7.0);
        assert_eq!(figures("football apple", &["apple,football", "apple, football"]), [0.0, 100.0]);
        assert_eq!(figures("an", &["the", "x"]), [100.0, 100.0]);
        assert_eq!(figures("", &["x"]), [0.0, 0.0]);
        assert_eq!(figures("x", &["..."]), [0.0, 0.0]);
        assert!((1..=28).all(|words| ONE.is_multiple_of(words)));
    }

    #[test]
    fn only_whole_words_are_articles_and_only_ascii_is_punctuation() {
        assert_eq!(normalized("A theatre, an_other: the-the A1 «a» ça a’b"), "theatre another thethe a1 « » ça ’b");
        assert_eq!(normalized("\u{1C}the\u{3000}end\u{1F}"), "end");
    }

    proptest! {
        #[test]
        fn who_matches_exactly_has_an_f1_of_one(a in "[aAb .]{0,6}", r in "[ab ]{0,6}", s in "[ab ]{0,6}") {
            let [exact, f1] = figures(&a, &[&r, &s]);
            prop_assert!(exact <= f1 && (0.0..=100.0).contains(&f1));
            prop_assert_eq!(figures(&r, &[&a])[1], figures(&a, &[&r])[1]);
            prop_assert_eq!(normalized(&normalized(&a)), normalized(&a));
            prop_assert_eq!(f1 >= figures(&a, &[&r])[1], true);
        }
    }
}
