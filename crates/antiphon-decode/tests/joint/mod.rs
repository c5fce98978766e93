//! A decoder and CTC search together: the answer is the best of all by both.

use std::sync::Arc;

use antiphon_core::{Request, TokenId};
use antiphon_decode::{BeamConfig, LengthPenalty, NoPenalty, SearchConfig, search_all, search_overheard};

use crate::toy::{END, PAD, Toy, ctc};

/// What a path says: repetitions dropped, then blanks.
fn said(path: &[TokenId]) -> Vec<TokenId> {
    let mut path = path.to_vec();
    path.dedup();
    path.retain(|&token| token != PAD);
    path
}

/// All sequences of so many of these tokens.
fn sequences(tokens: &[TokenId], length: usize) -> Vec<Vec<TokenId>> {
    (0..length).fold(vec![vec![]], |all, _| {
        all.iter().flat_map(|one| tokens.iter().map(move |&token| [one.as_slice(), &[token]].concat())).collect()
    })
}

#[test]
fn a_beam_as_wide_as_the_space_finds_the_best_by_both() {
    let letters = [4, 5];
    let sources: Vec<Vec<TokenId>> = vec![vec![4], vec![5, 4], vec![4, 4, 5, 4], vec![5, 5, 4]];
    for (seed, weight) in (0..30).map(|seed| (seed, [0.2, 0.5, 1.0][seed as usize % 3])) {
        let toy = Arc::into_inner(Toy::random(seed, 6, false, false)).unwrap();
        let toy = Arc::new(Toy { ctc: Some(seed), ..toy });
        let beam = BeamConfig {
            width: 64,
            patience: 1e9,
            forbid_unknown: true,
            length_penalty: LengthPenalty::None(NoPenalty {}),
            max_length: crate::at_most(5),
            ctc_weight: weight,
            ..BeamConfig::default()
        };
        let found = crate::run(&SearchConfig::Beam(beam.clone()), &toy, &sources);
        let lone: Vec<_> = sources
            .iter()
            .map(|source| crate::run(&SearchConfig::Beam(beam.clone()), &toy, std::slice::from_ref(source)))
            .collect();
        for ((source, found), lone) in sources.iter().zip(found).zip(lone) {
            let output = ctc(seed, source, 6);
            let paths: Vec<(Vec<TokenId>, f64)> = sequences(&[0, 1, 2, 3, 4, 5], source.len())
                .into_iter()
                .map(|path| {
                    let log_prob: f64 = path.iter().enumerate().map(|(t, &token)| output.log_prob(t, token)).sum();
                    (said(&path), log_prob.exp())
                })
                .collect();
            let score = |target: &Vec<TokenId>| {
                let next = |t: usize| {
                    let token = target.get(t).copied().unwrap_or(END);
                    f64::from((toy.next)(source, &target[..t])[token as usize])
                };
                let decoder: f64 = (0..=target.len()).map(next).sum();
                let of_paths: f64 = paths.iter().filter(|(said, _)| said == target).map(|(_, p)| p).sum();
                (1.0 - weight) * decoder + weight * of_paths.ln()
            };
            let all = (0..=4).flat_map(|length| sequences(&letters, length));
            let best = all.max_by(|a, b| score(a).total_cmp(&score(b))).unwrap();
            assert!((found[0].score - score(&best)).abs() < 1e-4, "{seed}: {found:?}, not {best:?}");
            assert_eq!((&found[0].tokens, found[0].finished), (&best, true), "{seed}");
            // What it begins with is scored by both, too.
            for begun in sequences(&letters, 1).into_iter().chain(sequences(&letters, 2)) {
                let all = (0..=4).flat_map(|length| sequences(&letters, length));
                let best = all.filter(|target| target.starts_with(&begun)).max_by(|a, b| score(a).total_cmp(&score(b)));
                let best = best.filter(|best| score(best) > f64::NEG_INFINITY);
                let [request] = <[_; 1]>::try_from(crate::batch(std::slice::from_ref(source))).unwrap();
                let request = Request { prefix: begun, ..request };
                let found = SearchConfig::Beam(beam.clone()).build().unwrap().run(toy.clone(), &[request]).unwrap();
                if let Some(best) = best {
                    assert_eq!(found[0][0].tokens, best, "{seed}");
                    assert!((found[0][0].score - score(&best)).abs() < 1e-4, "{seed}: {found:?}");
                }
            }
            assert_eq!((&lone[0][0].tokens, lone[0][0].score), (&best, found[0].score), "what stands beside it");
        }
    }
}

#[test]
fn a_model_without_ctc_is_refused() {
    let beam = SearchConfig::Beam(BeamConfig { ctc_weight: 0.5, ..BeamConfig::default() });
    let toy = Toy::random(1, 6, false, false);
    let error = beam.build().unwrap().run(toy, &crate::batch(&[vec![4]])).unwrap_err().to_string();
    assert!(error.contains("has no CTC to search with"), "{error}");
}

#[test]
fn who_listens_to_the_sources_changes_no_answer() {
    let sources: Vec<Vec<TokenId>> = vec![vec![4], vec![5, 4, 4], vec![5, 4], vec![5, 5, 4, 5, 4]];
    for (seed, weight) in (0..9).map(|seed| (seed, [0.0, 0.4, 1.0][seed as usize % 3])) {
        let toy = Arc::into_inner(Toy::random(seed, 6, false, false)).unwrap();
        let toy = Arc::new(Toy { ctc: (seed != 3).then_some(seed), ..toy });
        let beam = SearchConfig::Beam(BeamConfig { ctc_weight: weight, n_best: 2, ..BeamConfig::default() });
        let (strategy, requests) = (beam.build().unwrap(), crate::batch(&sources));
        let expected = search_all(strategy.as_ref(), toy.clone(), &requests, 9, &mut |_| {}).unwrap();
        let found = search_overheard(strategy.as_ref(), toy, &requests).unwrap();
        for (((found, said), expected), source) in found.into_iter().zip(expected).zip(&sources) {
            assert_eq!(found, expected, "{seed}");
            assert_eq!(said, (seed != 3).then(|| ctc(seed, source, 6)), "{seed}");
        }
    }
}
