//! BLEU (Papineni, Roukos, Ward and Zhu 2002), as sacreBLEU (Post 2018) computes it.
//!
//! `BLEU = 100 · BP · (p1 · p2 · p3 · p4)^¼`, or with fewer orders and the root of as many (`order`): `pn` is the share of the hypotheses' n-grams that stand in a reference,
//! each counted at most as often as in the reference that has it most often, and `BP = min(1, exp(1 - r/h))`, where `h`
//! and `r` are the lengths of the hypotheses and of the references next in length (the shorter of equals), over the
//! whole corpus.

mod mteval;

use antiphon_core::Judged;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::additive::AdditiveMetric;
use crate::detokenize::{self, Detokenization, running_text};
use crate::ngrams::{bag, overlap, union};
use crate::sacrebleu::{VERSION, case, reference_count, words, yes_no};

/// The longest n-grams that count, if nothing else is said.
const ORDER: usize = 4;

/// BLEU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BleuConfig {
    /// The longest n-grams that count. Figures of replies in a dialog are often those of order 2.
    #[serde(skip_serializing_if = "is_usual_order")]
    #[schemars(range(min = 1, max = 4))]
    pub order: usize,
    /// How an answer becomes running text first; if unset, it is taken as it is. References are never changed: they must be
    /// running text already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detokenize: Option<Detokenization>,
    /// How texts are cut into tokens.
    pub tokenize: BleuTokenization,
    /// Whether upper and lower case count as the same.
    pub lowercase: bool,
    /// What stands for the precision of n-grams of which none is right.
    pub smoothing: BleuSmoothing,
    /// Whether orders beyond the longest hypothesis are left out, instead of making the figure 0. Meant for single
    /// sentences.
    pub effective_order: bool,
}

/// How BLEU cuts texts into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum BleuTokenization {
    /// The rules of `mteval-v13a`: for raw text. The figures of papers that quote sacreBLEU are nearly always these.
    #[default]
    #[serde(rename = "13a")]
    Mteval13a,
    /// White space alone: for text that is tokenized already.
    #[serde(rename = "none")]
    None,
}

/// What stands for the precision of n-grams of which none is right (Chen and Cherry 2014), chosen by `kind`. A corpus
/// without a single matching word scores 0 under each of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BleuSmoothing {
    /// Half a match for the first such order, a quarter for the next, and so on: NIST's, and the usual choice.
    Exp(ExpSmoothing),
    /// A fixed small number of matches.
    Floor(FloorSmoothing),
    /// The same number added to the matches and the n-grams of all orders but the first.
    AddK(AddKSmoothing),
    /// Nothing: the figure is then 0.
    None(NoSmoothing),
}

/// Half a match for the first order without one, a quarter for the next, and so on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpSmoothing {}

/// A fixed small number of matches for orders without one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FloorSmoothing {
    /// That number.
    #[schemars(range(min = 0))]
    pub value: f64,
}

/// The same number added to the matches and the n-grams of all orders but the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AddKSmoothing {
    /// That number.
    #[schemars(range(min = 0))]
    pub value: f64,
}

/// No smoothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoSmoothing {}

impl Default for BleuSmoothing {
    fn default() -> Self {
        Self::Exp(ExpSmoothing {})
    }
}

impl Default for FloorSmoothing {
    fn default() -> Self {
        Self { value: 0.1 }
    }
}

impl Default for AddKSmoothing {
    fn default() -> Self {
        Self { value: 1.0 }
    }
}

impl Default for BleuConfig {
    fn default() -> Self {
        Self {
            order: ORDER,
            detokenize: None,
            tokenize: BleuTokenization::default(),
            lowercase: false,
            smoothing: BleuSmoothing::default(),
            effective_order: false,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_usual_order(order: &usize) -> bool {
    *order == ORDER
}

impl BleuSmoothing {
    fn signature(&self) -> String {
        match self {
            Self::Exp(ExpSmoothing {}) => "exp".to_string(),
            Self::Floor(FloorSmoothing { value }) => format!("floor[{value:.2}]"),
            Self::AddK(AddKSmoothing { value }) => format!("add-k[{value:.2}]"),
            Self::None(NoSmoothing {}) => "none".to_string(),
        }
    }
}

impl BleuTokenization {
    /// A text whose tokens stand between white space.
    pub(crate) fn cut(self, text: &str, lowercase: bool) -> String {
        let text = if lowercase { text.to_lowercase() } else { text.to_string() };
        match self {
            Self::Mteval13a => mteval::tokenize(&text),
            Self::None => text,
        }
    }

    pub(crate) fn signature(self) -> &'static str {
        match self {
            Self::Mteval13a => "13a",
            Self::None => "none",
        }
    }
}

impl BleuConfig {
    /// A text as its metric reads it; tokens stand between white space.
    fn prepare(&self, text: &str) -> String {
        self.tokenize.cut(text, self.lowercase)
    }
}

/// Counts: length of the hypothesis, length of the reference, right n-grams of each order, n-grams of each order.
impl AdditiveMetric for BleuConfig {
    fn name(&self) -> &'static str {
        "bleu"
    }

    fn lower_is_better(&self) -> bool {
        false
    }

    fn width(&self) -> usize {
        2 + 2 * self.order
    }

    fn count(&self, answer: &Judged, counts: &mut [u64]) {
        let hypothesis = self.prepare(&running_text(self.detokenize.as_ref(), &answer.hypothesis));
        let hypothesis: Vec<&str> = words(&hypothesis).collect();
        let texts: Vec<String> = answer.references.iter().map(|text| self.prepare(text)).collect();
        let references: Vec<Vec<&str>> = texts.iter().map(|text| words(text).collect()).collect();

        let length = hypothesis.len();
        let lengths = references.iter().map(Vec::len);
        counts[0] = length as u64;
        counts[1] = lengths.min_by_key(|&l| (l.abs_diff(length), l)).unwrap_or(0) as u64;
        for n in 1..=self.order {
            let given = bag(&hypothesis, n);
            let wanted = references.iter().fold(Vec::new(), |all, reference| union(&all, &bag(reference, n)));
            counts[1 + n] = overlap(&given, &wanted) as u64;
            counts[1 + self.order + n] = given.len() as u64;
        }
    }

    fn figure(&self, sums: &[u64]) -> f64 {
        let (hypotheses, references) = (sums[0] as f64, sums[1] as f64);
        let (right, all) = sums[2..].split_at(self.order);
        if right.iter().all(|&n| n == 0) {
            return 0.0;
        }
        let brevity = if hypotheses < references { (1.0 - references / hypotheses).exp() } else { 1.0 };

        let mut halvings = 1.0;
        let mut logarithms = 0.0;
        let mut order = 0;
        for (n, (&right, &all)) in right.iter().zip(all).enumerate() {
            let (mut right, mut all) = (right as f64, all as f64);
            if let BleuSmoothing::AddK(AddKSmoothing { value }) = self.smoothing
                && n > 0
            {
                right += value;
                all += value;
            }
            if all == 0.0 {
                break;
            }
            if right == 0.0 {
                right = match self.smoothing {
                    BleuSmoothing::Exp(_) => {
                        halvings *= 2.0;
                        1.0 / halvings
                    }
                    BleuSmoothing::Floor(FloorSmoothing { value }) => value,
                    BleuSmoothing::AddK(_) | BleuSmoothing::None(_) => 0.0,
                };
            }
            logarithms += (right / all).ln();
            order += 1;
        }
        if order < self.order && !self.effective_order {
            return 0.0;
        }
        100.0 * brevity * (logarithms / order as f64).exp()
    }

    fn signature(&self, answers: &[Judged]) -> String {
        // sacreBLEU does not tell it.
        let order = if self.order == ORDER { String::new() } else { format!("order:{}|", self.order) };
        format!(
            "nrefs:{}|{order}case:{}|eff:{}|tok:{}|smooth:{}|version:{VERSION}{}",
            reference_count(answers),
            case(self.lowercase),
            yes_no(self.effective_order),
            self.tokenize.signature(),
            self.smoothing.signature(),
            detokenize::signature(self.detokenize.as_ref()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MetricConfig;

    fn bleu(config: BleuConfig, hypothesis: &str, references: &[&str]) -> f64 {
        let answers = [Judged::new(hypothesis, references.iter().copied())];
        MetricConfig::Bleu(config).build().score(&answers).unwrap().value
    }

    #[test]
    fn figures_by_hand() {
        let plain = BleuConfig::default();
        // Precisions 4/5, 3/4, 2/3, 1/2, no brevity penalty: (1/5)^¼.
        let figure = bleu(plain.clone(), "a b c d e", &["a b c d"]);
        assert!((figure - 100.0 * 0.2_f64.powf(0.25)).abs() < 1e-12, "{figure}");
        // All right, but 4 of 5 words: exp(1 - 5/4).
        let figure = bleu(plain.clone(), "a b c d", &["a b c d e"]);
        assert!((figure - 100.0 * (-0.25_f64).exp()).abs() < 1e-12, "{figure}");
        // A word repeated counts as often as in the richest reference: 2/4 and 1/3; then halves: ½/2 and ¼/1.
        let figure = bleu(plain.clone(), "a a a a", &["a b a c", "a a b c"]);
        assert!((figure - 100.0 * (0.5 / 3.0 / 4.0 / 4.0_f64).powf(0.25)).abs() < 1e-12, "{figure}");
        assert_eq!(bleu(plain, "", &["a b c d"]), 0.0);
    }

    #[test]
    fn an_answer_becomes_running_text_and_references_stay() {
        let config: BleuConfig =
            serde_json::from_str(r#"{"lowercase": true, "detokenize": {"kind": "moses", "language": "en"}}"#).unwrap();
        let judge = |reference: &str| {
            let answers = [Judged::new("the two @-@ year @-@ old &apos;s hat , he said .", [reference])];
            MetricConfig::Bleu(config.clone()).build().score(&answers).unwrap()
        };
        let score = judge("The two-year-old's hat, he said.");
        assert!((score.value - 100.0).abs() < 1e-9, "{}", score.value);
        assert_eq!(score.signature, "nrefs:1|case:lc|eff:no|tok:13a|smooth:exp|version:2.6.0|detok:moses-en");
        assert!(judge("the two @-@ year @-@ old &apos;s hat , he said .").value < 60.0);
    }

    #[test]
    fn a_short_text_scores_nothing_unless_the_order_adapts() {
        assert_eq!(bleu(BleuConfig::default(), "a b", &["a b"]), 0.0);
        assert!(
            (bleu(BleuConfig { effective_order: true, ..Default::default() }, "a b", &["a b"]) - 100.0).abs() < 1e-9
        );
    }
}
