//! The laws of sampling: what is drawn, how often, and on what it depends.

use std::collections::BTreeMap;
use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{LengthLimits, Request, TokenId};
use antiphon_decode::{
    Ending, GreedyConfig, Hypothesis, LengthPenalty, NoPenalty, SampleConfig, SearchConfig, order_by_length, restore,
    search_all,
};

use crate::toy::{BEGIN, END, PAD, Toy, UNKNOWN};
use crate::{at_most, batch, beam, closed, greedy, limits, run, sources, toys};

/// Draws that are told in order where none is better than another.
fn sample() -> SampleConfig {
    SampleConfig { length_penalty: LengthPenalty::None(NoPenalty {}), ..SampleConfig::default() }
}

/// The distribution of what follows `tokens`, written the slow and obvious way.
fn exact(toy: &Toy, config: &SampleConfig, source: &[TokenId], tokens: &[TokenId]) -> Vec<f64> {
    let mut scores: Vec<f64> = (toy.next)(source, tokens).into_iter().map(f64::from).collect();
    (scores[PAD as usize], scores[BEGIN as usize]) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    let possible: Vec<f64> = scores.iter().copied().filter(|score| score.is_finite()).collect();
    let mean = possible.iter().sum::<f64>() / possible.len() as f64;
    for (token, score) in (0..).zip(&mut scores) {
        if tokens.contains(&token) {
            let logit = *score - mean;
            let factor = if logit > 0.0 { 1.0 / config.repetition_penalty } else { config.repetition_penalty };
            *score = mean + logit * factor - config.presence_penalty;
        }
        let n = config.no_repeat_ngram as usize;
        let told = [tokens, &[token]].concat();
        if n > 0 && told.len() > n && told[..told.len() - 1].windows(n).any(|ngram| told.ends_with(ngram)) {
            *score = f64::NEG_INFINITY;
        }
    }
    let mut p: Vec<f64> = scores.iter().map(|score| (score / config.temperature).exp()).collect();
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    if config.top_k > 0 {
        order.split_off((config.top_k as usize).min(order.len())).into_iter().for_each(|place| p[place] = 0.0);
    }
    let total: f64 = p.iter().sum();
    let mut sum = 0.0;
    for place in order {
        if sum >= config.top_p * total {
            p[place] = 0.0;
        }
        sum += p[place];
    }
    let most = p.iter().copied().fold(0.0, f64::max);
    p.iter_mut().filter(|p| **p < config.min_p * most).for_each(|p| *p = 0.0);
    let total: f64 = p.iter().sum();
    p.iter().map(|p| p / total).collect()
}

/// How probable each answer of two tokens at most is.
fn exact_answers(toy: &Toy, config: &SampleConfig, source: &[TokenId]) -> BTreeMap<Vec<TokenId>, f64> {
    let mut answers = BTreeMap::new();
    for (first, p) in (0..).zip(exact(toy, config, source, &[])) {
        if first == END {
            answers.insert(vec![END], p);
            continue;
        }
        for (second, q) in (0..).zip(if p > 0.0 { exact(toy, config, source, &[first]) } else { Vec::new() }) {
            answers.insert(vec![first, second], p * q);
        }
    }
    answers
}

/// Pearson's statistic, as a share of what it exceeds in hardly any sample of a distribution: its mean and eight standard
/// deviations. What is expected less than ten times is counted together.
fn misfit(found: &BTreeMap<Vec<TokenId>, u64>, expected: &BTreeMap<Vec<TokenId>, f64>) -> f64 {
    let count: u64 = found.values().sum();
    if found.keys().any(|answer| expected.get(answer).is_none_or(|&p| p == 0.0)) {
        return f64::INFINITY;
    }
    let (mut sum, mut kinds, mut rare) = (0.0, 0.0, (0.0, 0.0));
    for (answer, p) in expected.iter().filter(|(_, p)| **p > 0.0) {
        let (seen, due) = (found.get(answer).copied().unwrap_or(0) as f64, p * count as f64);
        if due < 10.0 {
            rare = (rare.0 + seen, rare.1 + due);
        } else {
            sum += (seen - due).powi(2) / due;
            kinds += 1.0;
        }
    }
    if rare.1 > 1.0 {
        sum += (rare.0 - rare.1).powi(2) / rare.1;
        kinds += 1.0;
    }
    // Two degrees more than there are: where one answer alone is possible there is none.
    let freedom: f64 = kinds + 1.0;
    sum / (freedom + 8.0 * (2.0 * freedom).sqrt())
}

#[test]
fn what_is_drawn_is_as_frequent_as_it_is_probable() {
    let plain = SampleConfig { draws: 40_000, max_length: at_most(2), ..sample() };
    let samplers = [
        plain.clone(),
        SampleConfig { temperature: 0.7, ..plain.clone() },
        SampleConfig { temperature: 1.5, ..plain.clone() },
        SampleConfig { top_k: 5, ..plain.clone() },
        // Of which the model is asked for no more.
        SampleConfig { top_k: 2, temperature: 2.0, ..plain.clone() },
        SampleConfig { top_p: 0.6, ..plain.clone() },
        SampleConfig { min_p: 0.2, ..plain.clone() },
        SampleConfig { repetition_penalty: 4.0, ..plain.clone() },
        SampleConfig { presence_penalty: 0.6, ..plain.clone() },
        SampleConfig { no_repeat_ngram: 1, ..plain.clone() },
        SampleConfig {
            temperature: 0.8,
            top_k: 7,
            top_p: 0.85,
            min_p: 0.1,
            repetition_penalty: 1.2,
            presence_penalty: 0.3,
            ..plain
        },
    ];
    let source = vec![4, 5, END];
    let toy = Toy::new(16, |_, prefix| {
        let key = prefix.iter().fold(Key::from_seed(11), |key, &id| key.numbered(u64::from(id)));
        // What was said likes to be said again.
        let again = |v: usize| if prefix.contains(&(v as TokenId)) { 2.0 } else { 0.0 };
        let exps: Vec<f64> = (0..16).map(|v| (1.2 * key.normal(v as u64) + again(v)).exp()).collect();
        let total: f64 = exps.iter().sum();
        exps.iter().map(|exp| (exp / total).ln() as f32).collect()
    });
    let expected: Vec<_> = samplers.iter().map(|config| exact_answers(&toy, config, &source)).collect();
    for (i, config) in samplers.iter().enumerate() {
        let mut request = batch(std::slice::from_ref(&source));
        request[0].key = Key::from_seed(3).numbered(i as u64);
        let answers = SearchConfig::Sample(config.clone()).build().unwrap().run(toy.clone(), &request).unwrap();
        assert_eq!(answers[0].len(), 40_000);
        let mut found = BTreeMap::new();
        for hypothesis in &answers[0] {
            *found.entry(closed(hypothesis)).or_insert(0) += 1;
        }
        for (j, expected) in expected.iter().enumerate() {
            let misfit = misfit(&found, expected);
            match i == j {
                true => assert!(misfit < 1.0, "{config:?}: {misfit}"),
                // Another distribution is told apart by far.
                false => assert!(misfit > 5.0, "{config:?} is taken for {:?}: {misfit}", samplers[j]),
            }
        }
    }
}

/// Requests with a key each.
fn keyed(rows: &[Vec<TokenId>], seed: u64) -> Vec<Request> {
    let mut requests = batch(rows);
    for (i, request) in requests.iter_mut().enumerate() {
        request.key = Key::from_seed(seed).numbered(i as u64);
    }
    requests
}

#[test]
fn a_draw_depends_on_seed_request_and_step_alone() {
    // Where many rows are weighed by several threads, one alone is not.
    let rows: Vec<Vec<TokenId>> =
        (0..11_u32).map(|i| [vec![4; i as usize % 4], vec![4 + i % 3, END]].concat()).collect();
    let requests = keyed(&rows, 4);
    let toy = Toy::random(7, 2000, false, false);
    for config in [
        SampleConfig { max_length: at_most(6), ..sample() },
        SampleConfig { max_length: at_most(6), draws: 3, top_k: 40, ..sample() },
        SampleConfig { max_length: at_most(6), draws: 2, top_p: 0.9, presence_penalty: 0.5, ..sample() },
    ] {
        let strategy = SearchConfig::Sample(config.clone()).build().unwrap();
        let together = strategy.run(toy.clone(), &requests).unwrap();
        assert!(together.iter().any(|answer| answer[0].tokens != together[0][0].tokens));
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for size in [1, 3, 11] {
                let found = pool.install(|| search_all(&*strategy, toy.clone(), &requests, size, &mut |_| {})).unwrap();
                let found: Vec<_> = found.into_iter().map(|found| found.hypotheses).collect();
                assert_eq!(found, together, "{threads} {size}");
            }
        }
        let mut order = order_by_length(&rows.iter().map(Vec::len).collect::<Vec<_>>());
        order.reverse();
        let shuffled: Vec<Request> = order.iter().map(|&i| requests[i].clone()).collect();
        assert_eq!(restore(&order, strategy.run(toy.clone(), &shuffled).unwrap()), together);
        // Another seed is another draw, and so is the same request in another place.
        let others = strategy.run(toy.clone(), &keyed(&rows, 5)).unwrap();
        assert!(others.iter().zip(&together).all(|(a, b)| a != b));
        let equal = strategy.run(toy.clone(), &keyed(&vec![rows[0].clone(); 11], 4)).unwrap();
        assert!(equal[1..].iter().all(|answer| *answer != equal[0]) && equal[0] == together[0]);
    }
}

#[test]
fn draws_for_one_source_are_draws_of_their_own() {
    let mut equal = 0;
    for toy in toys(30) {
        let strategy = |draws| SearchConfig::Sample(SampleConfig { draws, max_length: at_most(5), ..sample() });
        let key = |hypothesis: &Hypothesis| (closed(hypothesis), hypothesis.log_prob.to_bits());
        let drawn = |draws| {
            let found = strategy(draws).build().unwrap().run(toy.clone(), &keyed(&sources(), 9)).unwrap();
            for hypotheses in &found {
                assert_eq!(hypotheses.len(), draws as usize);
                assert!(hypotheses.is_sorted_by(|a, b| a.score >= b.score));
            }
            found
        };
        // Drawing more changes none of those that there are.
        let (few, many) = (drawn(3), drawn(40));
        for (few, many) in few.iter().zip(&many) {
            let mut left: Vec<_> = many.iter().map(key).collect();
            for drawn in few.iter().map(key) {
                let place = left.iter().position(|other| *other == drawn).expect("it was drawn before");
                left.swap_remove(place);
            }
        }
        equal += many.iter().flat_map(|hypotheses| hypotheses.windows(2)).filter(|pair| pair[0] == pair[1]).count();
    }
    assert!(equal > 100, "of so many draws some are equal: {equal}");
}

#[test]
fn without_chance_it_is_greedy() {
    for toy in toys(200) {
        for limits in limits() {
            let expected = run(&greedy(&limits), &toy, &sources());
            let common = SampleConfig {
                max_length: at_most(limits.max_length),
                min_length: limits.min_length as u32,
                forbid_unknown: limits.forbid_unknown,
                ..sample()
            };
            let first = SampleConfig { top_k: 1, ..common.clone() };
            assert_eq!(run(&SearchConfig::Sample(first), &toy, &sources()), expected, "{limits:?}");
            let narrow = SampleConfig { top_p: 1e-9, ..common };
            assert_eq!(run(&SearchConfig::Sample(narrow), &toy, &sources()), expected, "{limits:?}");
        }
    }
    // Between equals the temperature does not choose.
    for toy in (0..100).map(|seed| Toy::random(seed, 7, seed % 2 == 1, false)) {
        let expected = run(
            &SearchConfig::Greedy(GreedyConfig { max_length: at_most(6), ..GreedyConfig::default() }),
            &toy,
            &sources(),
        );
        for temperature in [1e-6, 5e-324] {
            let cold = SampleConfig { temperature, max_length: at_most(6), ..sample() };
            assert_eq!(run(&SearchConfig::Sample(cold), &toy, &sources()), expected);
        }
    }
}

#[test]
fn no_ngram_is_said_twice() {
    let mut repeated = 0;
    for toy in (0..40).map(|seed| Toy::random(seed, 7, false, false)) {
        let repeats = |tokens: &[TokenId], n: usize| {
            let all: Vec<&[TokenId]> = tokens.windows(n).collect();
            (1..all.len()).any(|i| all[..i].contains(&all[i]))
        };
        for n in 1..=4 {
            let config = SampleConfig { min_length: 30, max_length: at_most(40), draws: 4, ..sample() };
            let mut requests = keyed(&sources(), 1);
            requests[1].prefix = vec![4, 5, 6, 4];
            let free = SearchConfig::Sample(config.clone()).build().unwrap().run(toy.clone(), &requests).unwrap();
            repeated += free.iter().flatten().filter(|h| repeats(&h.tokens, n)).count();
            let config = SampleConfig { no_repeat_ngram: n as u32, ..config };
            // What a prefix repeats is not the search's to judge, but what it says is said.
            requests[1].prefix.truncate(if n == 1 { 3 } else { 4 });
            let found = SearchConfig::Sample(config).build().unwrap().run(toy.clone(), &requests).unwrap();
            assert!(found.iter().flatten().all(|h| !repeats(&h.tokens, n)), "{n}");
        }
    }
    assert!(repeated > 1000, "only {repeated} repeat anything where they may");
}

#[test]
fn lengths_and_symbols_are_as_they_are_asked_for() {
    for toy in toys(60) {
        for limits in limits() {
            let config = SampleConfig {
                max_length: at_most(limits.max_length),
                min_length: limits.min_length as u32,
                forbid_unknown: limits.forbid_unknown,
                draws: 5,
                temperature: 2.0,
                ..sample()
            };
            for h in run(&SearchConfig::Sample(config), &toy, &sources()).iter().flatten() {
                let forbidden = |&t: &TokenId| [PAD, BEGIN, END].contains(&t) || t == UNKNOWN && limits.forbid_unknown;
                assert!(!h.tokens.iter().any(forbidden), "{h:?}");
                assert!(closed(h).len() <= limits.max_length);
                assert!(!h.finished || h.tokens.len() >= limits.min_length);
            }
        }
    }
}

#[test]
fn a_prefix_counts_as_said() {
    for toy in (0..30).map(|seed| Toy::random(seed, 7, false, false)) {
        let config = SampleConfig { presence_penalty: 100.0, max_length: at_most(4), min_length: 3, ..sample() };
        let mut requests = keyed(&sources(), 2);
        requests[0].prefix = vec![4, 5];
        let found = SearchConfig::Sample(config).build().unwrap().run(toy.clone(), &requests).unwrap();
        let tokens = &found[0][0].tokens;
        assert!(tokens.starts_with(&[4, 5]) && tokens.len() >= 3 && !tokens[2..].iter().any(|t| [4, 5].contains(t)));
        // Nothing is said twice while there is something else.
        for h in found.iter().flatten() {
            assert!((1..h.tokens.len()).all(|i| !h.tokens[..i].contains(&h.tokens[i])), "{h:?}");
        }
    }
}

/// Ends an answer at two tokens in a row.
struct Pair([TokenId; 2]);

impl Ending for Pair {
    fn ends(&self, chosen: &[TokenId]) -> bool {
        chosen.ends_with(&self.0)
    }
}

#[test]
fn who_knows_the_text_may_end_it() {
    let config =
        |stop: Vec<String>| SearchConfig::Sample(SampleConfig { max_length: at_most(12), draws: 3, stop, ..sample() });
    let (mut stopped, mut others) = (0, 0);
    for toy in (0..60).map(|seed| Toy::random(seed, 6, false, false)) {
        let mut requests = keyed(&sources(), 6);
        // One of the two stands in a prefix, and is nothing that was chosen.
        requests[1].prefix = vec![5, 4];
        let free = config(Vec::new()).build().unwrap().run(toy.clone(), &requests).unwrap();
        let ending = |texts: &[String]| -> Arc<dyn Ending> {
            assert_eq!(texts, ["anything"]);
            Arc::new(Pair([4, 5]))
        };
        let strategy = config(vec!["anything".into()]).build_with(ending, None).unwrap();
        let found = strategy.run(toy.clone(), &requests).unwrap();
        for (row, (free, found)) in free.iter().zip(&found).enumerate() {
            let prefix = requests[row].prefix.len();
            let mut expected: Vec<Vec<TokenId>> = free.iter().map(closed).collect();
            for tokens in &mut expected {
                let place = tokens[prefix.min(tokens.len())..].windows(2).position(|pair| pair == [4, 5]);
                tokens.truncate(place.map_or(usize::MAX, |place| prefix + place + 2));
            }
            let mut told: Vec<Vec<TokenId>> = found.iter().map(closed).collect();
            expected.sort();
            told.sort();
            assert_eq!(told, expected);
            for h in found {
                let ends = h.tokens[prefix..].ends_with(&[4, 5]);
                assert_eq!(h.stopped, ends && !h.finished);
                assert!(!h.finished || !h.stopped);
                *(if h.stopped { &mut stopped } else { &mut others }) += 1;
            }
        }
    }
    assert!(stopped > 50 && others > 50, "{stopped} {others}");
}

#[test]
fn where_nothing_ends_the_end_symbol_is_a_token() {
    let mut seen = 0;
    for toy in (0..60).map(|seed| Toy::random(seed, 6, false, false)) {
        let limits = crate::toy::Limits { max_length: 7, min_length: 3, forbid_unknown: false };
        let sampled = SampleConfig { max_length: at_most(7), min_length: 3, draws: 2, top_p: 0.9, ..sample() };
        let first = SampleConfig { max_length: at_most(7), top_k: 1, ..sample() };
        let mut requests = keyed(&sources(), 8);
        // Of a row beside it the symbol ends it.
        requests[1].limits = LengthLimits { endless: true, ..LengthLimits::default() };
        requests[2].limits = LengthLimits { endless: true, max_length: Some(9), min_length: Some(9) };
        requests[2].prefix = vec![4, END, 4];
        let answers = |config: &SearchConfig| config.build().unwrap().run(toy.clone(), &requests).unwrap();
        let [none, ..] = crate::penalties();
        for config in [greedy(&limits), beam(3, 2, 1.0, &none, &limits), SearchConfig::Sample(sampled)] {
            let alone = config.build().unwrap().run(toy.clone(), &requests[..1]).unwrap();
            let found = answers(&config);
            assert_eq!(found[0], alone[0]);
            for (hypotheses, length) in found[1..].iter().zip([7, 9]) {
                for h in hypotheses {
                    assert!(!h.finished && h.tokens.len() == length, "{h:?}");
                    seen += h.tokens.iter().filter(|&&token| token == END).count();
                }
            }
        }
        // What follows it is what the model says, and all ways to say the most probable agree.
        let one = answers(&greedy(&limits));
        for row in [1, 2] {
            assert_eq!(answers(&beam(1, 1, 1.0, &none, &limits))[row], one[row]);
            assert_eq!(answers(&SearchConfig::Sample(first.clone()))[row], one[row]);
            let best = |t: usize| {
                let next = (toy.next)(&sources()[row], &one[row][0].tokens[..t]);
                let possible = (0..).zip(next).filter(|&(id, _)| id != PAD && id != BEGIN);
                possible.fold((PAD, f32::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best }).0
            };
            let prefix = requests[row].prefix.len();
            assert!((prefix..one[row][0].tokens.len()).all(|t| one[row][0].tokens[t] == best(t)));
        }
    }
    assert!(seen > 200, "{seen}");
}
