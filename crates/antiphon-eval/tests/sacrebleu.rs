//! BLEU and chrF equal sacreBLEU's.
//!
//! `sacrebleu.json` holds invented sentences and the figures that sacreBLEU 2.6.0 (Python) gives for them. Its recipe,
//! with Python's `random.Random(2016)`: 60 words of one to three syllables drawn from 21 (accents, Greek, Cyrillic, Han,
//! a ligature, a dotted capital I), some in capitals or with an apostrophe or a hyphen. A sentence draws words (80 %),
//! numbers such as `1,000.5` and `3-4` (8 %) and punctuation, HTML entities and line breaks (12 %), joined by spaces of
//! several kinds or, before punctuation, by none. Hypothesis and references are copies of one sentence in which tokens
//! were dropped, inserted, replaced, reversed or changed in case, the hypothesis twice as often. To these come corpora
//! with empty texts, without a match, with words that match in no order, with hypotheses cut to two words, and perfect
//! ones. Each is scored by `BLEU(...).corpus_score` and `CHRF(...).corpus_score`, with `None` where an answer has fewer
//! references than another.

use antiphon_core::Judged;
use antiphon_eval::MetricConfig;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    sacrebleu: String,
    corpora: Vec<Corpus>,
}

#[derive(Deserialize)]
struct Corpus {
    name: String,
    answers: Vec<Judged>,
    scores: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    metric: MetricConfig,
    value: f64,
    signature: String,
}

#[test]
fn figures_and_signatures_are_sacrebleus() {
    let golden: Golden = serde_json::from_str(include_str!("sacrebleu.json")).unwrap();
    let mut compared = 0;
    for corpus in &golden.corpora {
        for expected in &corpus.scores {
            let score = expected.metric.build().score(&corpus.answers).unwrap();
            let (name, metric) = (&corpus.name, &expected.metric);
            // The same formulas in the same precision: far closer than the two decimals that are printed.
            assert!(
                (score.value - expected.value).abs() < 1e-9,
                "{name}: {metric:?}: {} {}",
                score.value,
                expected.value
            );
            // sacreBLEU keeps chrF's beta out of the signature; here one other than 2 is told.
            let beta = score.signature.split('|').find(|part| part.starts_with("beta:"));
            assert_eq!(score.signature.replace(&format!("{}|", beta.unwrap_or("beta:2")), ""), expected.signature);
            assert!(score.signature.ends_with(&golden.sacrebleu));
            compared += 1;
        }
    }
    assert_eq!(compared, 11 * 18);
}

#[derive(Deserialize)]
struct Orders {
    name: String,
    values: [f64; 4],
}

/// `sacrebleu_orders.json` holds what sacreBLEU 2.6.0 gives for the same corpora by `BLEU(max_ngram_order=N, …)`, in the order of the
/// settings below.
#[test]
fn figures_of_fewer_orders_are_sacrebleus() {
    let golden: Golden = serde_json::from_str(include_str!("sacrebleu.json")).unwrap();
    let orders: Vec<Orders> = serde_json::from_str(include_str!("sacrebleu_orders.json")).unwrap();
    let settings = [
        r#"{"kind": "bleu", "order": 2, "lowercase": true}"#,
        r#"{"kind": "bleu", "order": 2, "tokenize": "none"}"#,
        r#"{"kind": "bleu", "order": 1, "lowercase": true, "smoothing": {"kind": "add_k"}}"#,
        r#"{"kind": "bleu", "order": 3, "smoothing": {"kind": "floor"}, "effective_order": true}"#,
    ];
    let metrics = settings.map(|settings| serde_json::from_str::<MetricConfig>(settings).unwrap());
    for (Corpus { name, answers, .. }, Orders { name: known, values }) in golden.corpora.iter().zip(&orders) {
        assert_eq!(name, known);
        for (metric, expected) in metrics.iter().zip(values) {
            let value = metric.build().score(answers).unwrap().value;
            assert!((value - expected).abs() < 1e-9, "{name}: {metric:?}: {value} {expected}");
        }
    }
    assert_eq!(orders.len(), golden.corpora.len());
    let signature = metrics[0].build().score(&golden.corpora[0].answers).unwrap().signature;
    assert_eq!(signature, "nrefs:1|order:2|case:lc|eff:no|tok:13a|smooth:exp|version:2.6.0");
}
