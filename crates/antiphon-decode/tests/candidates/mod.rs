//! A request that may only have one of some answers.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{LengthLimits, Request, TokenId};
use antiphon_decode::{LengthPenalty, NoPenalty, SearchConfig, score};

use super::{batch, beam, greedy, run, sample, sources};
use crate::toy::{END, Limits, PAD, Toy, UNKNOWN};

const LIMITS: Limits = Limits { max_length: 5, min_length: 0, forbid_unknown: false };

/// A few different answers over `[UNKNOWN, 4, 5]`, the empty one perhaps among them, drawn by a seed.
fn answers(seed: u64, count: u64) -> Vec<Vec<TokenId>> {
    let key = Key::from_seed(seed).named("answers");
    let answer = |i: u64| {
        let key = key.numbered(i);
        (0..key.below(99, 5)).map(|t| [UNKNOWN, 4, 5][key.below(t, 3) as usize]).collect::<Vec<TokenId>>()
    };
    let mut all: Vec<Vec<TokenId>> = (0..count).map(answer).collect();
    all.sort();
    all.dedup();
    all
}

/// All sequences of at most so many of these tokens.
fn all_of(tokens: &[TokenId], longest: usize) -> Vec<Vec<TokenId>> {
    let mut all = vec![Vec::new()];
    let mut last = all.clone();
    for _ in 0..longest {
        let with =
            |one: &Vec<TokenId>| tokens.iter().map(|&token| [one.as_slice(), &[token]].concat()).collect::<Vec<_>>();
        last = last.iter().flat_map(with).collect();
        all.extend(last.iter().cloned());
    }
    all
}

fn strategies(limits: &Limits) -> [SearchConfig; 5] {
    let none = LengthPenalty::None(NoPenalty {});
    [
        greedy(limits),
        beam(3, 2, 1.0, &LengthPenalty::default(), limits),
        beam(1, 1, 1.0, &none, limits),
        sample(3, limits, 0),
        sample(2, limits, 2),
    ]
}

#[test]
fn the_answer_is_a_candidate_whatever_the_limits() {
    let (mut short, mut said) = (0, 0);
    for seed in 0..60 {
        let toy = Toy::random(seed, 6, false, seed % 2 == 1);
        let tight = Limits { max_length: 2, min_length: 1, forbid_unknown: true };
        for config in strategies(&tight) {
            let mut requests = batch(&sources());
            let allowed = [answers(seed, 1), Vec::new(), answers(seed + 1000, 9)];
            requests.iter_mut().zip(&allowed).for_each(|(request, allowed)| request.candidates = allowed.clone());
            requests[2].limits = LengthLimits { max_length: Some(1), min_length: Some(4), endless: false };
            let found = config.build().unwrap().run(toy.clone(), &requests).unwrap();
            for (found, allowed) in found.iter().zip(&allowed).filter(|(_, allowed)| !allowed.is_empty()) {
                assert!(found.iter().all(|h| h.finished && allowed.contains(&h.tokens)), "{found:?} {allowed:?}");
                short += found.iter().filter(|h| h.tokens.is_empty()).count();
                said += found.iter().filter(|h| h.tokens.contains(&UNKNOWN)).count();
            }
            // Who stands beside them answers as alone.
            assert_eq!(found[1], run(&config, &toy, &sources())[1]);
        }
    }
    assert!(short > 20 && said > 20, "{short} {said}");
}

/// A toy of two letters that ends after five of them at the latest.
fn short(seed: u64) -> Arc<Toy> {
    let toy = Toy::random(seed, 5, seed % 2 == 1, seed % 5 == 4);
    Toy::new(5, move |source, prefix| {
        let only_end = || (0..5).map(|token| if token == END { 0.0 } else { f32::NEG_INFINITY }).collect();
        if prefix.len() < 5 { (toy.next)(source, prefix) } else { only_end() }
    })
}

#[test]
fn with_all_answers_as_candidates_nothing_changes() {
    let (limits, all) = (Limits { max_length: 7, ..LIMITS }, all_of(&[UNKNOWN, 4], 6));
    assert_eq!(all.len(), 127);
    for seed in 0..60 {
        for config in strategies(&limits) {
            let mut requests = batch(&sources());
            requests[0].candidates = all.clone();
            requests[2].candidates = all.clone();
            let found = config.build().unwrap().run(short(seed), &requests).unwrap();
            assert_eq!(found, run(&config, &short(seed), &sources()), "{seed} {config:?}");
        }
    }
}

#[test]
fn a_beam_as_wide_as_the_list_finds_the_best_candidate() {
    for seed in 0..200 {
        let toy = Toy::random(seed, 6, false, false);
        let allowed = answers(seed, 2 + seed % 9);
        let mut requests = batch(&sources());
        requests.iter_mut().for_each(|request| request.candidates = allowed.clone());
        let none = LengthPenalty::None(NoPenalty {});
        let config = beam(allowed.len() as u32, 1, 1.0, &none, &LIMITS);
        let found = config.build().unwrap().run(toy.clone(), &requests).unwrap();
        for (found, source) in found.iter().zip(sources()) {
            let worth = |answer: &Vec<TokenId>| {
                let target = [answer.as_slice(), &[END]].concat();
                let scores = score(toy.clone(), &batch(std::slice::from_ref(&source)), &[target]).unwrap();
                scores[0].iter().map(|&p| f64::from(p)).sum::<f64>()
            };
            let best = allowed.iter().map(worth).fold(f64::NEG_INFINITY, f64::max);
            assert!((found[0].log_prob - best).abs() < 1e-9 && (worth(&found[0].tokens) - best).abs() < 1e-9, "{seed}");
        }
    }
}

#[test]
fn a_prefix_leads_into_the_candidates() {
    let toy = Toy::random(7, 6, false, false);
    let allowed = vec![vec![4, 5], vec![4, 4, 4], vec![5]];
    let ask = |prefix: &[TokenId], config: &SearchConfig| {
        let request =
            Request { prefix: prefix.to_vec(), candidates: allowed.clone(), ..batch(&sources()[..1]).remove(0) };
        config.build().unwrap().run(toy.clone(), &[request]).unwrap().remove(0)
    };
    for config in strategies(&LIMITS) {
        for hypothesis in ask(&[4], &config) {
            assert!(hypothesis.finished && hypothesis.tokens[0] == 4 && allowed.contains(&hypothesis.tokens));
        }
        // Nothing can follow on what no candidate begins with.
        assert!(ask(&[5, 5], &config).iter().all(|h| !h.finished && h.tokens == [5, 5]));
    }
}

#[test]
fn what_no_answer_can_hold_is_refused() {
    for odd in [PAD, END, 6] {
        let request = Request { candidates: vec![vec![4], vec![4, odd]], ..batch(&sources()[..1]).remove(0) };
        let error =
            SearchConfig::default().build().unwrap().run(Toy::random(1, 6, false, false), &[request]).unwrap_err();
        assert!(error.to_string().starts_with(&format!("row 0, step 0: a candidate holds token {odd}")), "{error}");
    }
    // Who scores a target follows it wherever it leads.
    let toy: Arc<Toy> = Toy::random(3, 6, false, false);
    let mut bound = batch(&sources()[..1]);
    let free = score(toy.clone(), &bound, &[vec![5, END]]).unwrap();
    bound[0].candidates = vec![vec![4]];
    assert_eq!(score(toy, &bound, &[vec![5, END]]).unwrap(), free);
}
