//! Error rates: how many answers are wrong, and by how many edits.

use std::collections::BTreeMap;

use antiphon_core::Judged;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::additive::AdditiveMetric;
use crate::{Edit, Unit, align, distance};

/// Percent of answers that match no reference.
///
/// An answer matches a reference if their words are the same in the same order; the amount of white space between them
/// does not count, so an answer matches exactly if its word error rate is 0.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SequenceErrorRateConfig {}

/// `100 · (insertions + deletions + substitutions) / (words of the reference)`, both summed over the corpus.
///
/// Of several references the closest counts: the one with the fewest edits, and of equals the first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WordErrorRateConfig {}

/// `100 · (insertions + deletions + substitutions) / (characters of the reference)`, both summed over the corpus.
///
/// Characters are Unicode scalar values; a run of white space counts as one space, at the ends of a text as none. Of
/// several references the closest counts: the one with the fewest edits, and of equals the first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CharacterErrorRateConfig {}

/// `100 · (insertions + deletions + substitutions) / (phones of the reference)`, both summed over the corpus.
///
/// Phones are what stands between white space. Of several references the closest counts: the one with the fewest
/// edits, and of equals the first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PhoneErrorRateConfig {}

/// The reference that an answer comes closest to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closest {
    pub(crate) reference: usize,
    pub(crate) edits: usize,
    pub(crate) length: usize,
}

impl Closest {
    /// Fewest edits; of equals the first. `answer` has at least one reference.
    pub(crate) fn of(answer: &Judged, unit: Unit) -> Self {
        let hypothesis = unit.split(&answer.hypothesis);
        let measured = answer.references.iter().enumerate().map(|(reference, text)| {
            let units = unit.split(text);
            Closest { reference, edits: distance(&hypothesis, &units), length: units.len() }
        });
        measured.min_by_key(|c| c.edits).expect("an answer was checked to have a reference")
    }
}

/// Counts: wrong answers, answers.
pub(crate) struct SequenceErrorRate;

impl AdditiveMetric for SequenceErrorRate {
    fn name(&self) -> &'static str {
        "sequence_error_rate"
    }

    fn lower_is_better(&self) -> bool {
        true
    }

    fn width(&self) -> usize {
        2
    }

    fn count(&self, answer: &Judged, counts: &mut [u64]) {
        let words = answer.hypothesis.split_whitespace();
        let wrong = !answer.references.iter().any(|reference| reference.split_whitespace().eq(words.clone()));
        counts.copy_from_slice(&[wrong.into(), 1]);
    }

    fn figure(&self, sums: &[u64]) -> f64 {
        percent(sums)
    }

    fn signature(&self, _: &[Judged]) -> String {
        String::new()
    }
}

/// Counts: edits to the closest reference, its length.
pub(crate) struct EditRate {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
}

impl AdditiveMetric for EditRate {
    fn name(&self) -> &'static str {
        self.name
    }

    fn lower_is_better(&self) -> bool {
        true
    }

    fn width(&self) -> usize {
        2
    }

    fn count(&self, answer: &Judged, counts: &mut [u64]) {
        let closest = Closest::of(answer, self.unit);
        counts.copy_from_slice(&[closest.edits as u64, closest.length as u64]);
    }

    fn figure(&self, sums: &[u64]) -> f64 {
        percent(sums)
    }

    fn signature(&self, _: &[Judged]) -> String {
        String::new()
    }

    /// The edits by kind, as [`align`] finds them, and the length of the references.
    fn parts(&self, answers: &[Judged], _: &[u64]) -> BTreeMap<String, u64> {
        let [mut substitutions, mut deletions, mut insertions, mut length] = [0; 4];
        for answer in answers {
            let closest = Closest::of(answer, self.unit);
            let reference = self.unit.split(&answer.references[closest.reference]);
            length += closest.length as u64;
            for edit in align(&self.unit.split(&answer.hypothesis), &reference) {
                match edit {
                    Edit::Match { .. } => {}
                    Edit::Substitute { .. } => substitutions += 1,
                    Edit::Delete { .. } => deletions += 1,
                    Edit::Insert { .. } => insertions += 1,
                }
            }
        }
        let all = [
            ("substitutions", substitutions),
            ("deletions", deletions),
            ("insertions", insertions),
            ("reference_length", length),
        ];
        all.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }
}

/// Where all references are empty there is nothing to divide by: each edit then counts as 100 percent.
fn percent(sums: &[u64]) -> f64 {
    100.0 * sums[0] as f64 / sums[1].max(1) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MetricConfig;

    fn answer(hypothesis: &str, references: &[&str]) -> Judged {
        Judged::new(hypothesis, references.iter().copied())
    }

    /// Sequence, word, character and phone error rates.
    fn rates(answers: &[Judged]) -> [f64; 4] {
        [
            MetricConfig::SequenceErrorRate(Default::default()),
            MetricConfig::WordErrorRate(Default::default()),
            MetricConfig::CharacterErrorRate(Default::default()),
            MetricConfig::PhoneErrorRate(Default::default()),
        ]
        .map(|config| config.build().score(answers).unwrap().value)
    }

    #[test]
    fn figures_by_hand() {
        // "a cat sat" / "the cat sat": 1 of 3 words, 3 of 11 characters; the second answer is right.
        let answers = [answer("a cat sat", &["the cat sat"]), answer(" it  is ", &["it is"])];
        assert_eq!(rates(&answers), [50.0, 20.0, 100.0 * 3.0 / 16.0, 20.0]);
        // Insertions alone can exceed 100 percent.
        assert_eq!(rates(&[answer("a b c", &["d"])])[1], 300.0);
        assert_eq!(rates(&[answer("", &["a b"])]), [100.0, 100.0, 100.0, 100.0]);
    }

    #[test]
    fn errors_are_told_by_kind() {
        // One word is another, one is lacking, one is too much; the second answer is right.
        let answers = [answer("a cat on the mat now", &["the cat sat on the mat"]), answer("it is", &["it is"])];
        let score = MetricConfig::WordErrorRate(Default::default()).build().score(&answers).unwrap();
        let parts = ["deletions", "insertions", "reference_length", "substitutions"].map(str::to_owned);
        assert_eq!(score.parts, parts.into_iter().zip([1, 1, 8, 1]).collect());
        assert!(MetricConfig::SequenceErrorRate(Default::default()).build().score(&answers).unwrap().parts.is_empty());
    }

    #[test]
    fn the_closest_reference_counts() {
        // One edit to either of the first two; the first of them is taken, so its 4 words are divided by.
        assert_eq!(rates(&[answer("a b c", &["a b c d", "a b", "x y z"])])[1], 25.0);
        assert_eq!(rates(&[answer("a b c", &["a b", "a b c d", "x y z"])])[1], 50.0);
        // Fewer edits go before a longer reference.
        assert_eq!(rates(&[answer("a b c", &["a b c d e f g h", "a b"])])[1], 50.0);
        assert_eq!(rates(&[answer("a b", &["x", "a b"])]), [0.0; 4]);
    }

    #[test]
    fn empty_references_divide_by_one() {
        assert_eq!(rates(&[answer("", &[""])]), [0.0; 4]);
        assert_eq!(rates(&[answer("a b", &[""])])[1], 200.0);
    }

    proptest! {
        #[test]
        fn errors_by_kind_are_all_errors(h in "[ab ]{0,7}", r in "[ab ]{0,7}", s in "[ab ]{0,5}") {
            let score = MetricConfig::WordErrorRate(Default::default()).build().score(&[answer(&h, &[&r, &s])]).unwrap();
            let of = |name: &str| score.parts[name];
            let edits = of("substitutions") + of("deletions") + of("insertions");
            prop_assert_eq!(score.value, percent(&[edits, of("reference_length")]));
        }

        #[test]
        fn an_answer_matches_if_it_has_no_word_errors(h in "[ab ]{0,5}", r in "[ab ]{0,5}", s in "[ab ]{0,5}") {
            let [sequence, word, character, phone] = rates(&[answer(&h, &[&r, &s])]);
            prop_assert_eq!(sequence == 0.0, word == 0.0);
            prop_assert_eq!(word == 0.0, character == 0.0);
            prop_assert_eq!(word, phone);
        }
    }
}
