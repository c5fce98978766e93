//! Exact match and token F1 equal what SQuAD's rules give.
//!
//! `squad.json` holds invented texts and figures from a Python program that follows the rules of SQuAD's evaluation script in
//! Python's own words: `str.lower`, dropping each character of `string.punctuation`, `re.sub(r"\b(a|an|the)\b", " ", …)`, then
//! `" ".join(text.split())`; F1 by the intersection of two `collections.Counter`s, 1 of two empty texts and 0 of one; the best over
//! the references, the mean over the answers, times 100. With `random.Random(2016)`, texts draw up to six of some forty words
//! (articles in both cases, punctuation of ASCII and other, accents in one character and in two, Greek, Cyrillic, Han,
//! superscripts), between white space of several kinds; answers and references are copies of one text in which words were
//! dropped, inserted, turned in case or followed by punctuation.

use antiphon_core::Judged;
use antiphon_eval::MetricConfig;
use serde::Deserialize;

#[derive(Deserialize)]
struct Corpus {
    exact_match: f64,
    token_f1: f64,
    answers: Vec<Judged>,
}

#[test]
fn figures_are_those_of_the_rules() {
    let corpora: Vec<Corpus> = serde_json::from_str(include_str!("squad.json")).unwrap();
    let metrics = [MetricConfig::ExactMatch(Default::default()), MetricConfig::TokenF1(Default::default())];
    for (i, corpus) in corpora.iter().enumerate() {
        for (metric, expected) in metrics.iter().zip([corpus.exact_match, corpus.token_f1]) {
            let score = metric.build().score(&corpus.answers).unwrap();
            assert!((score.value - expected).abs() < 1e-9, "{i} {}: {} for {expected}", score.metric, score.value);
            let references = ["1", "3", "var"][i];
            assert_eq!(score.signature, format!("nrefs:{references}|norm:squad1.1"));
        }
    }
    assert_eq!(corpora.len(), 3);
}
