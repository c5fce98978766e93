//! CTC alone: a beam over its labels, and its best path.

use std::sync::Arc;

use antiphon_core::{CtcPrefix, LengthLimits, Request, TokenId};
use antiphon_decode::{BeamConfig, BestPathConfig, LengthPenalty, NoPenalty, SearchConfig};

use crate::toy::{BEGIN, END, PAD, Toy, UNKNOWN, ctc};

const VOCABULARY: usize = 6;

/// A model that says what its paths say: a token behind others as probable as all paths that go on so.
fn model(seed: u64) -> Arc<Toy> {
    let next = move |source: &[TokenId], said: &[TokenId]| -> Vec<f32> {
        let output = ctc(seed, source, VOCABULARY);
        let behind = said.iter().fold(CtcPrefix::empty(&output), |behind, &token| behind.with(&output, token));
        let all: Vec<TokenId> = (0..VOCABULARY as TokenId).collect();
        behind.gains(&output, &all).into_iter().map(|gain| gain.min(0.0) as f32).collect()
    };
    let toy = Arc::into_inner(Toy::new(VOCABULARY, next)).unwrap();
    Arc::new(Toy { ctc: Some(seed), ..toy })
}

fn sources() -> Vec<Vec<TokenId>> {
    vec![vec![4], vec![5, 4], vec![4, 4, 5, 4], vec![5, 5, 4], vec![]]
}

/// All paths of a source: what each says, and its probability.
fn paths(seed: u64, source: &[TokenId]) -> Vec<(Vec<TokenId>, Vec<TokenId>, f64)> {
    let output = ctc(seed, source, VOCABULARY);
    let path = |mut number: usize| {
        let (mut path, mut log_prob) = (Vec::new(), 0.0);
        for t in 0..source.len() {
            let token = (number % VOCABULARY) as TokenId;
            number /= VOCABULARY;
            log_prob += output.log_prob(t, token);
            path.push(token);
        }
        let mut said = path.clone();
        said.dedup();
        said.retain(|&token| token != PAD);
        (path, said, log_prob.exp())
    };
    (0..VOCABULARY.pow(source.len() as u32)).map(path).collect()
}

fn probability(seed: u64, source: &[TokenId], target: &[TokenId]) -> f64 {
    paths(seed, source).iter().filter(|(_, said, _)| said == target).map(|(.., probability)| probability).sum()
}

#[test]
fn a_beam_as_wide_as_the_space_finds_the_answer_with_the_most_probable_paths() {
    for seed in 0..20 {
        let beam = BeamConfig {
            width: 64,
            patience: 1e9,
            forbid_unknown: true,
            length_penalty: LengthPenalty::None(NoPenalty {}),
            max_length: crate::at_most(5),
            ..BeamConfig::default()
        };
        let found = crate::run(&SearchConfig::Beam(beam), &model(seed), &sources());
        for (source, found) in sources().iter().zip(found) {
            let all = paths(seed, source);
            let letters = |said: &Vec<TokenId>| said.iter().all(|&token| token > END);
            let mut said: Vec<Vec<TokenId>> = all.into_iter().map(|(_, said, _)| said).filter(letters).collect();
            said.sort();
            said.dedup();
            let worth = |target: &Vec<TokenId>| probability(seed, source, target);
            let best = said.iter().max_by(|a, b| worth(a).total_cmp(&worth(b))).unwrap();
            assert_eq!((&found[0].tokens, found[0].finished), (best, true), "{seed}");
            assert!((found[0].log_prob - worth(best).ln()).abs() < 1e-4, "{seed}: {found:?}");
        }
    }
}

fn best_path(forbid_unknown: bool, limit: usize) -> SearchConfig {
    SearchConfig::BestPath(BestPathConfig { max_length: crate::at_most(limit), forbid_unknown })
}

#[test]
fn the_best_path_is_the_best_of_all() {
    for seed in 0..40 {
        let forbid_unknown = seed % 2 == 1;
        let found = crate::run(&best_path(forbid_unknown, 9), &model(seed), &sources());
        for (source, found) in sources().iter().zip(found) {
            let may = |token: &TokenId| !([BEGIN, END].contains(token) || forbid_unknown && *token == UNKNOWN);
            let all = paths(seed, source).into_iter().filter(|(path, ..)| path.iter().all(may));
            let (_, said, likelihood) = all.max_by(|a, b| a.2.total_cmp(&b.2)).unwrap();
            assert_eq!((&found[0].tokens, found[0].finished), (&said, true), "{seed}");
            assert!((found[0].score - likelihood.ln()).abs() < 1e-5, "{seed}");
            assert!((found[0].log_prob - probability(seed, source, &said).ln()).abs() < 1e-5, "{seed}");
            // A limit counts the end symbol.
            for limit in 1..=said.len() {
                let [request] = <[_; 1]>::try_from(crate::batch(std::slice::from_ref(source))).unwrap();
                let limits = LengthLimits { max_length: Some(limit), ..LengthLimits::default() };
                let cut = best_path(forbid_unknown, 9).build().unwrap();
                let cut = cut.run(model(seed), &[Request { limits, ..request }]).unwrap();
                assert_eq!((&cut[0][0].tokens[..], cut[0][0].finished), (&said[..limit], false), "{seed}");
            }
        }
    }
}

#[test]
fn what_has_no_path_is_refused() {
    let strategy = best_path(false, 9).build().unwrap();
    let silent = strategy.run(Toy::random(1, VOCABULARY, false, false), &crate::batch(&[vec![4]])).unwrap_err();
    assert!(silent.to_string().contains("this model has none"), "{silent}");
    let [request] = <[_; 1]>::try_from(crate::batch(&[vec![4]])).unwrap();
    let begun = strategy.run(model(1), &[Request { prefix: vec![4], ..request }]).unwrap_err();
    assert!(begun.to_string().contains("behind no beginning"), "{begun}");
    assert!(strategy.run(model(1), &[]).unwrap().is_empty());
    assert!(best_path(false, 9).with_n_best(2).is_err());
}
