//! Where a system is wrong, and what it takes for what.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use antiphon_core::{Judged, Result};
use serde::{Deserialize, Serialize};

use crate::additive::check;
use crate::error_rate::Closest;
use crate::{Edit, Unit, align};

/// How far one answer is from its closest reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Place of the answer in the corpus, from 0.
    pub answer: usize,
    /// Place of the closest reference among the answer's, from 0: fewest edits, of equals the first.
    pub reference: usize,
    /// Edits to that reference.
    pub edits: usize,
    /// Units in that reference.
    pub length: usize,
}

impl Verdict {
    /// Whether the answer matches a reference.
    pub fn is_correct(&self) -> bool {
        self.edits == 0
    }

    /// More edits come first, then the shorter reference, then the earlier answer.
    fn worst_first(&self, other: &Self) -> Ordering {
        let order = |v: &Self| (Reverse(v.edits), v.length, v.answer);
        order(self).cmp(&order(other))
    }
}

/// One verdict an answer, in the order of the answers.
///
/// # Errors
/// If there are no answers, or an answer has no references.
pub fn verdicts(answers: &[Judged], unit: Unit) -> Result<Vec<Verdict>> {
    check(answers)?;
    let verdict = |(i, answer): (usize, &Judged)| {
        let closest = Closest::of(answer, unit);
        Verdict { answer: i, reference: closest.reference, edits: closest.edits, length: closest.length }
    };
    Ok(answers.iter().enumerate().map(verdict).collect())
}

/// At most `limit` wrong answers, the worst first: most edits, of equals the shorter reference, then the earlier one.
pub fn worst(verdicts: &[Verdict], limit: usize) -> Vec<Verdict> {
    let mut wrong: Vec<Verdict> = verdicts.iter().copied().filter(|verdict| !verdict.is_correct()).collect();
    wrong.sort_unstable_by(Verdict::worst_first);
    wrong.truncate(limit);
    wrong
}

/// One unit taken for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Substitution {
    /// What was right.
    pub reference: String,
    /// What was answered.
    pub hypothesis: String,
    /// How often.
    pub count: u64,
}

/// A unit and how often it was inserted or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The unit.
    pub unit: String,
    /// How often.
    pub count: u64,
}

/// All errors of a corpus, counted by what they changed; the most frequent first, of equals in the order of their text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusions {
    /// Units taken for others.
    pub substitutions: Vec<Substitution>,
    /// Units that the reference lacks.
    pub insertions: Vec<Counted>,
    /// Units that the answer lacks.
    pub deletions: Vec<Counted>,
}

impl Confusions {
    /// Counts the edits between each answer and its closest reference, along [`align`].
    ///
    /// # Errors
    /// If there are no answers, or an answer has no references.
    pub fn of(answers: &[Judged], unit: Unit) -> Result<Self> {
        let mut substitutions = BTreeMap::new();
        let (mut insertions, mut deletions) = (BTreeMap::new(), BTreeMap::new());
        for verdict in verdicts(answers, unit)?.into_iter().filter(|verdict| !verdict.is_correct()) {
            let answer = &answers[verdict.answer];
            let hypothesis_units = unit.split(&answer.hypothesis);
            let reference_units = unit.split(&answer.references[verdict.reference]);
            for edit in align(&hypothesis_units, &reference_units) {
                let count: &mut u64 = match edit {
                    Edit::Match { .. } => continue,
                    Edit::Substitute { hypothesis, reference } => {
                        substitutions.entry((reference_units[reference], hypothesis_units[hypothesis])).or_default()
                    }
                    Edit::Insert { hypothesis } => insertions.entry(hypothesis_units[hypothesis]).or_default(),
                    Edit::Delete { reference } => deletions.entry(reference_units[reference]).or_default(),
                };
                *count += 1;
            }
        }
        let substitution = |((reference, hypothesis), count): ((&str, &str), u64)| Substitution {
            reference: reference.to_string(),
            hypothesis: hypothesis.to_string(),
            count,
        };
        let counted = |(unit, count): (&str, u64)| Counted { unit: unit.to_string(), count };
        Ok(Self {
            substitutions: most_frequent_first(substitutions).map(substitution).collect(),
            insertions: most_frequent_first(insertions).map(counted).collect(),
            deletions: most_frequent_first(deletions).map(counted).collect(),
        })
    }

    /// All edits together.
    pub fn total(&self) -> u64 {
        let substituted: u64 = self.substitutions.iter().map(|s| s.count).sum();
        substituted + self.insertions.iter().chain(&self.deletions).map(|c| c.count).sum::<u64>()
    }
}

fn most_frequent_first<K: Ord>(counts: BTreeMap<K, u64>) -> impl Iterator<Item = (K, u64)> {
    let mut entries: Vec<(K, u64)> = counts.into_iter().collect();
    // Stable: equals stay in the order of their keys.
    entries.sort_by_key(|&(_, count)| Reverse(count));
    entries.into_iter()
}

#[cfg(test)]
mod tests {
    use antiphon_core::random::Key;

    use super::*;
    use crate::MetricConfig;

    fn answer(hypothesis: &str, references: &[&str]) -> Judged {
        Judged::new(hypothesis, references.iter().copied())
    }

    #[test]
    fn errors_by_hand() {
        let answers = [
            answer("k ae t", &["k ae t"]),
            answer("k ah t s", &["x x x x", "k ae t"]),
            answer("ah", &["ae"]),
            answer("t", &["t s", "t z"]),
            answer("a b", &["c d e"]),
        ];
        let all = verdicts(&answers, Unit::Word).unwrap();
        assert_eq!(all[1], Verdict { answer: 1, reference: 1, edits: 2, length: 3 });
        assert_eq!(all.iter().map(Verdict::is_correct).collect::<Vec<_>>(), [true, false, false, false, false]);
        let order = |limit| worst(&all, limit).iter().map(|v| v.answer).collect::<Vec<_>>();
        assert_eq!(order(9), [4, 1, 2, 3]);
        assert_eq!(order(2), [4, 1]);

        let confusions = Confusions::of(&answers, Unit::Word).unwrap();
        let pairs: Vec<_> = confusions.substitutions.iter().map(|s| (&*s.reference, &*s.hypothesis, s.count)).collect();
        assert_eq!(pairs, [("ae", "ah", 2), ("d", "a", 1), ("e", "b", 1)]);
        let units = |list: &[Counted]| list.iter().map(|c| (c.unit.clone(), c.count)).collect::<Vec<_>>();
        assert_eq!(units(&confusions.insertions), [("s".to_string(), 1)]);
        assert_eq!(units(&confusions.deletions), [("c".to_string(), 1), ("s".to_string(), 1)]);
        assert_eq!(confusions.total(), 7);
    }

    #[test]
    fn all_views_count_the_same_errors() {
        let key = Key::from_seed(3);
        let text = |i: u64| {
            (0..key.below(i, 9)).map(|j| ["a", "b", "c "][key.numbered(i).below(j, 3) as usize]).collect::<String>()
        };
        let answers: Vec<Judged> =
            (0..200).map(|i| Judged::new(text(3 * i), [text(3 * i + 1), text(3 * i + 2)])).collect();
        for (unit, metric) in [
            (Unit::Word, MetricConfig::WordErrorRate(Default::default())),
            (Unit::Character, MetricConfig::CharacterErrorRate(Default::default())),
        ] {
            let verdicts = verdicts(&answers, unit).unwrap();
            let sum = |of: fn(&Verdict) -> usize| verdicts.iter().map(of).sum::<usize>() as f64;
            let value = metric.build().score(&answers).unwrap().value;
            assert_eq!(value, 100.0 * sum(|v| v.edits) / sum(|v| v.length));
            assert_eq!(Confusions::of(&answers, unit).unwrap().total() as f64, sum(|v| v.edits));
            let wrong = verdicts.iter().filter(|v| !v.is_correct()).count();
            assert_eq!(worst(&verdicts, usize::MAX).len(), wrong);
            let rate = MetricConfig::SequenceErrorRate(Default::default()).build().score(&answers).unwrap().value;
            assert_eq!(rate, 100.0 * wrong as f64 / answers.len() as f64);
        }
    }
}
