//! Whether answers name the right entities: micro-averaged entity F1 (Eric, Krishnan, Charette and Manning 2017, *Key-value retrieval
//! networks for task-oriented dialogue*; Madotto, Wu and Fung 2018, *Mem2Seq*).
//!
//! The known entities are all values that a column has in any row. An entity stands in a text if its words stand there one behind the
//! other; however often it does, it counts once. Those of a row's references are to be found, those of the answer were, and precision and
//! recall are over all rows. A row whose references name none counts only what its answer names wrongly.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_core::Judged;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::additive::AdditiveMetric;
use crate::sacrebleu::{case, reference_count};

/// Entity F1, micro-averaged, in percent: the harmonic mean of how many of the known entities that answers name stand in the references
/// too, and of how many that references name stand in the answers. Known are all values of a column; in a row's texts each counts once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EntityF1Config {
    /// The column of a table that holds entities: one, or in JSON lines a list of them.
    #[schemars(length(min = 1))]
    pub column: String,
    /// Whether upper and lower case count as the same.
    pub lowercase: bool,
}

impl Default for EntityF1Config {
    fn default() -> Self {
        Self { column: "entities".into(), lowercase: false }
    }
}

/// Counts: entities that answer and references name, those of the answer, those of the references.
pub(crate) struct EntityF1 {
    pub(crate) config: EntityF1Config,
    /// All known entities as their words, with one space between them; `None` before the answers are seen.
    known: Option<BTreeSet<String>>,
    /// How many words the longest has.
    longest: usize,
}

impl EntityF1 {
    pub(crate) fn new(config: EntityF1Config) -> Self {
        Self { config, known: None, longest: 0 }
    }

    /// The known entities that stand in a text.
    fn named(&self, text: &str) -> BTreeSet<&str> {
        let Some(known) = &self.known else { return BTreeSet::new() };
        let text = self.cased(text);
        let words: Vec<&str> = text.split_whitespace().collect();
        let runs = (1..=self.longest).flat_map(|n| words.windows(n));
        runs.filter_map(|run| known.get(&run.join(" ")).map(String::as_str)).collect()
    }

    fn cased(&self, text: &str) -> String {
        if self.config.lowercase { text.to_lowercase() } else { text.to_owned() }
    }
}

impl AdditiveMetric for EntityF1 {
    fn name(&self) -> &'static str {
        "entity_f1"
    }

    fn lower_is_better(&self) -> bool {
        false
    }

    fn width(&self) -> usize {
        3
    }

    fn count(&self, answer: &Judged, counts: &mut [u64]) {
        let found = self.named(&answer.hypothesis);
        let wanted: BTreeSet<&str> = answer.references.iter().flat_map(|reference| self.named(reference)).collect();
        let both = found.intersection(&wanted).count();
        counts.copy_from_slice(&[both as u64, found.len() as u64, wanted.len() as u64]);
    }

    fn figure(&self, sums: &[u64]) -> f64 {
        100.0 * 2.0 * sums[0] as f64 / (sums[1] + sums[2]).max(1) as f64
    }

    fn columns(&self) -> Vec<&str> {
        vec![&self.config.column]
    }

    fn knowing(&self, answers: &[Judged]) -> Option<Box<dyn AdditiveMetric>> {
        if self.known.is_some() {
            return None;
        }
        let values = answers.iter().flat_map(|answer| answer.columns.get(&self.config.column)).flatten();
        let entities = values.flat_map(|value| value.split('\n'));
        let words = |entity: &str| self.cased(entity).split_whitespace().collect::<Vec<_>>().join(" ");
        let known: BTreeSet<String> = entities.map(words).filter(|entity| !entity.is_empty()).collect();
        let longest = known.iter().map(|entity| entity.split(' ').count()).max().unwrap_or(0);
        Some(Box::new(Self { config: self.config.clone(), known: Some(known), longest }))
    }

    fn signature(&self, answers: &[Judged]) -> String {
        let EntityF1Config { column, lowercase } = &self.config;
        format!("nrefs:{}|case:{}|column:{column}|avg:micro", reference_count(answers), case(*lowercase))
    }

    fn parts(&self, _: &[Judged], sums: &[u64]) -> BTreeMap<String, u64> {
        let known = self.known.as_ref().map_or(0, BTreeSet::len) as u64;
        let parts = [("right", sums[0]), ("found", sums[1]), ("wanted", sums[2]), ("known", known)];
        parts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::MetricConfig;

    fn answer(hypothesis: &str, reference: &str, entities: &str) -> Judged {
        let columns = BTreeMap::from([("entities".to_owned(), vec![entities.to_owned()])]);
        Judged { columns, ..Judged::new(hypothesis, [reference]) }
    }

    fn metric(lowercase: bool) -> MetricConfig {
        MetricConfig::EntityF1(EntityF1Config { lowercase, ..Default::default() })
    }

    #[test]
    fn figures_by_hand() {
        let answers = [
            answer("go to resto_1 at 5 pm resto_1", "try resto_1 or resto_2", "resto_1\nresto_2"),
            // Known from another row, and wrong here.
            answer("at resto_2", "nowhere", ""),
            answer("5 p", "at 5 pm", "5 pm"),
        ];
        let score = metric(false).build().score(&answers).unwrap();
        // Right: resto_1. Found: resto_1, 5 pm; resto_2. Wanted: resto_1, resto_2; 5 pm.
        assert_eq!(
            [("right", 1), ("found", 3), ("wanted", 3), ("known", 3)].map(|(part, _)| score.parts[part]),
            [1, 3, 3, 3]
        );
        assert!((score.value - 100.0 / 3.0).abs() < 1e-9, "{}", score.value);
        assert_eq!(score.signature, "nrefs:1|case:mixed|column:entities|avg:micro");
        let cased = [answer("Resto_1", "resto_1", "RESTO_1")];
        assert_eq!([false, true].map(|lowercase| metric(lowercase).build().score(&cased).unwrap().value), [0.0, 100.0]);
    }

    #[test]
    fn of_some_answers_the_known_entities_are_those_of_all() {
        let answers = [answer("x", "y", "x"), answer("x y", "x", "y")];
        let alone = metric(false).build().score(&answers[..1]).unwrap();
        let among = metric(false).build_among(&answers).score(&answers[..1]).unwrap();
        assert_eq!((alone.parts["known"], alone.parts["wanted"]), (1, 0));
        assert_eq!((among.parts["known"], among.parts["wanted"]), (2, 1));
    }

    proptest! {
        #[test]
        fn it_is_the_harmonic_mean_and_turns_with_the_texts(rows in prop::collection::vec(("[abc ]{0,8}", "[abc ]{0,8}"), 1..6)) {
            let judged = |turned: bool| -> Vec<Judged> {
                let row = |(h, r): &(String, String)| if turned { answer(r, h, "a\nb c") } else { answer(h, r, "a\nb c") };
                rows.iter().map(row).collect()
            };
            let (there, back) = (metric(false).build().score(&judged(false)).unwrap(), metric(false).build().score(&judged(true)).unwrap());
            prop_assert_eq!(there.value, back.value);
            let [right, found, wanted] = ["right", "found", "wanted"].map(|part| there.parts[part] as f64);
            prop_assert!(right <= found && right <= wanted);
            if right > 0.0 {
                let (p, r) = (right / found, right / wanted);
                prop_assert!((there.value - 100.0 * 2.0 * p * r / (p + r)).abs() < 1e-9);
            } else {
                prop_assert_eq!(there.value, 0.0);
            }
        }
    }
}
