//! A language model in the search: the answer is the best of all by the weighted sum, however it was found.

use std::sync::Arc;

use antiphon_core::{Request, StepModel, TokenId};
use antiphon_decode::{
    BeamConfig, Combination, Ensemble, FusionConfig, GreedyConfig, Hypothesis, LanguageModel, LengthPenalty, Member,
    Mixture, NoPenalty, SearchConfig,
};

use crate::toy::{BEGIN, END, PAD, Toy, ctc};

/// Letters 4 and 5 behind the special symbols.
const VOCABULARY: usize = 6;

/// The language model has other letters among them, and in another order.
const IDS: [TokenId; VOCABULARY] = [0, 1, 2, 3, 7, 5];
const THEIRS: usize = 9;

fn language_model(toy: &Arc<Toy>) -> LanguageModel {
    LanguageModel::new(toy.clone(), IDS.to_vec()).unwrap()
}

fn fusion(weight: f64) -> Option<FusionConfig> {
    Some(FusionConfig { model: "a".into(), weight })
}

fn wide(weight: f64, ctc_weight: f64) -> SearchConfig {
    SearchConfig::Beam(BeamConfig {
        width: 64,
        patience: 1e9,
        forbid_unknown: true,
        length_penalty: LengthPenalty::None(NoPenalty {}),
        max_length: crate::at_most(5),
        ctc_weight,
        language_model: fusion(weight),
        ..BeamConfig::default()
    })
}

fn greedy(weight: f64) -> SearchConfig {
    SearchConfig::Greedy(GreedyConfig {
        forbid_unknown: true,
        max_length: crate::at_most(5),
        language_model: fusion(weight),
        ..GreedyConfig::default()
    })
}

fn answers(
    search: &SearchConfig,
    model: Arc<dyn StepModel>,
    beside: LanguageModel,
    requests: &[Request],
) -> Vec<Vec<Hypothesis>> {
    let strategy = search.build_with(|_| unreachable!("nothing is stopped at"), Some(beside)).unwrap();
    strategy.run(model, requests).unwrap()
}

fn sources() -> Vec<Vec<TokenId>> {
    vec![vec![4], vec![5, 4], vec![4, 4, 5, 4], vec![5, 5, 4]]
}

/// All targets of at most four letters.
fn targets() -> Vec<Vec<TokenId>> {
    let longer = |all: &[Vec<TokenId>]| -> Vec<Vec<TokenId>> {
        all.iter().flat_map(|one| [4, 5].map(|letter| [one.as_slice(), &[letter]].concat())).collect()
    };
    let mut all = vec![vec![vec![]]];
    (0..4).for_each(|length| all.push(longer(&all[length])));
    all.concat()
}

/// The sum of what a toy gives the tokens of a target and its end, called by `name`.
fn sum(toy: &Toy, source: &[TokenId], target: &[TokenId], name: impl Fn(TokenId) -> TokenId) -> f64 {
    let named: Vec<TokenId> = target.iter().map(|&token| name(token)).collect();
    let next = |t: usize| f64::from((toy.next)(source, &named[..t])[named.get(t).copied().unwrap_or(END) as usize]);
    (0..=named.len()).map(next).sum()
}

fn of_language_model(toy: &Toy, target: &[TokenId]) -> f64 {
    sum(toy, &[], target, |token| IDS[token as usize])
}

/// The logarithm of all of CTC's paths that say a target.
fn of_paths(seed: u64, source: &[TokenId], target: &[TokenId]) -> f64 {
    let output = ctc(seed, source, VOCABULARY);
    let all = (0..VOCABULARY.pow(source.len() as u32)).map(|mut number| {
        let path: Vec<TokenId> = (0..source.len())
            .map(|_| {
                let token = (number % VOCABULARY) as TokenId;
                number /= VOCABULARY;
                token
            })
            .collect();
        let log_prob: f64 = path.iter().enumerate().map(|(t, &token)| output.log_prob(t, token)).sum();
        let mut said = path;
        said.dedup();
        said.retain(|&token| token != PAD);
        (said, log_prob.exp())
    });
    all.filter(|(said, _)| said == target).map(|(_, probability)| probability).sum::<f64>().ln()
}

#[test]
fn a_beam_as_wide_as_the_space_finds_the_best_of_all_by_the_sum() {
    let mut others = 0;
    for (seed, weight) in (0..30).map(|seed| (seed, [0.3, 1.0, 4.0][seed as usize % 3])) {
        let ctc_weight = [0.0, 0.4, 1.0][seed as usize / 3 % 3];
        let toy = Arc::into_inner(Toy::random(seed, VOCABULARY, seed % 2 == 1, false)).unwrap();
        let toy = Arc::new(Toy { ctc: Some(seed), ..toy });
        let beside = Toy::random(1000 + seed, THEIRS, false, false);
        let search = wide(weight, ctc_weight);
        let together = answers(&search, toy.clone(), language_model(&beside), &crate::batch(&sources()));
        for (source, found) in sources().iter().zip(together) {
            let score = |target: &[TokenId]| {
                let decoder = (1.0 - ctc_weight) * sum(&toy, source, target, |token| token);
                let paths = if ctc_weight > 0.0 { ctc_weight * of_paths(seed, source, target) } else { 0.0 };
                // What neither may say is no answer.
                let is_possible = sum(&toy, source, target, |token| token) > f64::NEG_INFINITY;
                let all = decoder + paths + weight * of_language_model(&beside, target);
                if is_possible { all } else { f64::NEG_INFINITY }
            };
            let best_of = |targets: Vec<Vec<TokenId>>| {
                let best = targets.into_iter().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap();
                (score(&best) > f64::NEG_INFINITY).then_some(best)
            };
            let Some(best) = best_of(targets()) else { continue };
            let own = |target: &[TokenId]| sum(&toy, source, target, |token| token);
            assert_eq!((&found[0].tokens, found[0].finished), (&best, true), "{seed}");
            assert!((found[0].score - score(&best)).abs() < 1e-4, "{seed}: {found:?}");
            assert!((found[0].log_prob - own(&best)).abs() < 1e-4, "the model's own");
            let alone = targets().into_iter().max_by(|a, b| own(a).total_cmp(&own(b))).unwrap();
            others += usize::from(alone != best);
            // What stands beside it.
            let lone =
                answers(&search, toy.clone(), language_model(&beside), &crate::batch(std::slice::from_ref(source)));
            assert_eq!(lone[0], found, "{seed}");
            // What it begins with is scored by both, too.
            for begun in targets().into_iter().filter(|target| (1..=2).contains(&target.len())) {
                let begins = targets().into_iter().filter(|target| target.starts_with(&begun)).collect();
                let Some(best) = best_of(begins) else { continue };
                let [request] = <[_; 1]>::try_from(crate::batch(std::slice::from_ref(source))).unwrap();
                let request = Request { prefix: begun, ..request };
                let found = answers(&search, toy.clone(), language_model(&beside), &[request]);
                assert_eq!(found[0][0].tokens, best, "{seed}");
                assert!((found[0][0].score - score(&best)).abs() < 1e-4, "{seed}: {found:?}");
            }
        }
    }
    assert!(others > 10, "the language model hardly ever matters: {others}");
}

#[test]
fn a_greedy_search_takes_the_token_of_the_largest_sum() {
    for seed in 0..60 {
        let weight = [0.3, 1.0, 4.0][seed as usize % 3];
        let (toy, beside) =
            (Toy::random(seed, VOCABULARY, false, false), Toy::random(seed + 999, THEIRS, false, false));
        let found = answers(&greedy(weight), toy.clone(), language_model(&beside), &crate::batch(&sources()));
        for (source, found) in sources().iter().zip(found) {
            let (mut target, mut sum, mut finished) = (Vec::new(), 0.0, false);
            while target.len() < 5 && !finished {
                let theirs: Vec<TokenId> = target.iter().map(|&token: &TokenId| IDS[token as usize]).collect();
                let (own, beside) = ((toy.next)(source, &target), (beside.next)(&[], &theirs));
                let score = |token: TokenId| {
                    f64::from(own[token as usize]) + weight * f64::from(beside[IDS[token as usize] as usize])
                };
                let best = [END, 4, 5].into_iter().max_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap();
                sum += score(best);
                finished = best == END;
                target.extend((!finished).then_some(best));
            }
            assert_eq!((&found[0].tokens, found[0].finished), (&target, finished), "{seed}");
            assert!((found[0].score - sum).abs() < 1e-4, "{seed}: {found:?}, not {sum}");
        }
    }
}

/// The order of the language model's tokens, and what else it knows, is nobody's business.
#[test]
fn a_language_model_in_another_order_is_the_same_one() {
    for seed in 0..20 {
        let (toy, plain) =
            (Toy::random(seed, VOCABULARY, false, true), Toy::random(seed + 99, VOCABULARY, false, false));
        let inner = plain.clone();
        let permuted = Toy::new(THEIRS, move |_, prefix| {
            let own = |id: &TokenId| IDS.iter().position(|theirs| theirs == id).unwrap() as TokenId;
            let prefix: Vec<TokenId> = prefix.iter().map(own).collect();
            let mut row = vec![f32::NEG_INFINITY; THEIRS];
            IDS.iter().zip((inner.next)(&[], &prefix)).for_each(|(&id, log_prob)| row[id as usize] = log_prob);
            row
        });
        for search in [wide(0.7, 0.0), greedy(0.7)] {
            let same = LanguageModel::new(plain.clone(), (0..VOCABULARY as TokenId).collect()).unwrap();
            let expected = answers(&search, toy.clone(), same, &crate::batch(&sources()));
            let found = answers(&search, toy.clone(), language_model(&permuted), &crate::batch(&sources()));
            assert_eq!(found, expected, "{seed}");
        }
    }
}

#[test]
fn models_that_answer_together_hear_it_as_one_does() {
    for seed in 0..20 {
        let (toy, beside) = (Toy::random(seed, VOCABULARY, false, false), Toy::random(seed + 99, THEIRS, false, false));
        let member = |name: &str| Member { name: name.into(), model: toy.clone(), reading: 0 };
        for search in [wide(0.7, 0.0), greedy(0.7)] {
            let mixture = Mixture::new(Combination::Linear, &[1.0, 1.0]).unwrap();
            let twice = Ensemble::new(vec![member("a"), member("b")], mixture).unwrap();
            let found = answers(&search, Arc::new(twice), language_model(&beside), &crate::batch(&sources()));
            let expected = answers(&search, toy.clone(), language_model(&beside), &crate::batch(&sources()));
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found[0].tokens, expected[0].tokens, "{seed}");
                assert!((found[0].score - expected[0].score).abs() < 1e-4, "{seed}");
            }
        }
    }
}

#[test]
fn without_weight_it_is_not_asked() {
    let (toy, beside) = (Toy::random(1, VOCABULARY, false, false), Toy::random(2, THEIRS, false, false));
    for with in [wide(0.0, 0.0), greedy(0.0)] {
        let without = match with.clone() {
            SearchConfig::Beam(beam) => SearchConfig::Beam(BeamConfig { language_model: None, ..beam }),
            SearchConfig::Greedy(greedy) => SearchConfig::Greedy(GreedyConfig { language_model: None, ..greedy }),
            other => other,
        };
        let expected = without.build().unwrap().run(toy.clone(), &crate::batch(&sources())).unwrap();
        assert_eq!(with.build().unwrap().run(toy.clone(), &crate::batch(&sources())).unwrap(), expected);
        assert_eq!(answers(&with, toy.clone(), language_model(&beside), &crate::batch(&sources())), expected);
    }
    assert!(beside.asked.lock().unwrap().is_empty());
}

#[test]
fn what_cannot_be_heard_is_refused() {
    let (toy, beside) = (Toy::random(1, VOCABULARY, false, false), Toy::random(2, THEIRS, false, false));
    let error = greedy(0.5).build().err().unwrap().to_string();
    assert!(error.starts_with("language_model: only who can read it"), "{error}");
    let ids = |ids: &[TokenId]| LanguageModel::new(beside.clone(), ids.to_vec()).err().unwrap().to_string();
    assert!(ids(&[0, 1, 2, 3, 9]).contains("token 9 is beyond"));
    assert!(ids(&[0, 1, END, BEGIN, 4]).contains("special symbols"));
    assert!(ids(&[0, 1]).contains("special symbols"));
    let few = LanguageModel::new(beside.clone(), vec![0, 1, 2, 3]).unwrap();
    let strategy = greedy(0.5).build_with(|_| unreachable!(), Some(few)).unwrap();
    let error = strategy.run(toy, &crate::batch(&sources())).unwrap_err().to_string();
    assert!(error.contains("was told of 4 tokens, and there are 6"), "{error}");
}
