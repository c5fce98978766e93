//! The laws of ensembles: what models say together, against all that each of them says.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{Mask, Request, Selection, Source, StepModel, StepOutput, TokenId, Want};
use antiphon_decode::{
    Combination, Ensemble, GreedyConfig, Hypothesis, MaxLength, Member, Mixture, SampleConfig, SearchConfig, score,
};

use super::toy::{BEGIN, END, PAD, Toy, UNKNOWN, attention};
use super::{at_most, batch, beam, limits, penalties, sources, toys};

const BOTH: [Combination; 2] = [Combination::Linear, Combination::LogLinear];

fn together(toys: &[Arc<Toy>], weights: &[f64], combination: Combination) -> Arc<Ensemble> {
    let member = |(i, toy): (usize, &Arc<Toy>)| Member { name: format!("model {i}"), model: toy.clone(), reading: 0 };
    let members = toys.iter().enumerate().map(member).collect();
    Arc::new(Ensemble::new(members, Mixture::new(combination, weights).unwrap()).unwrap())
}

/// The log-probabilities of all tokens, as the definition has them.
fn oracle(toys: &[Arc<Toy>], weights: &[f64], by: Combination, source: &[TokenId], prefix: &[TokenId]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    let rows: Vec<Vec<f32>> = toys.iter().map(|toy| (toy.next)(source, prefix)).collect();
    let of = |id: usize| {
        let each = rows.iter().zip(weights).map(|(row, weight)| (f64::from(row[id]), weight / total));
        match by {
            Combination::Linear => each.map(|(log_prob, weight)| weight * log_prob.exp()).sum::<f64>(),
            Combination::LogLinear => each.map(|(log_prob, weight)| log_prob.exp().powf(weight)).product(),
        }
    };
    let masses: Vec<f64> = (0..rows[0].len()).map(of).collect();
    let z = if by == Combination::Linear { 1.0 } else { masses.iter().sum() };
    masses.into_iter().map(|mass| if mass == 0.0 { f64::NEG_INFINITY } else { (mass / z).ln() }).collect()
}

fn is_close(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() < 1e-5 * a.abs().max(1.0)
}

/// The same answers, worth the same but for the last bits.
fn assert_like(found: &[Vec<Hypothesis>], expected: &[Vec<Hypothesis>], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert_eq!(found.tokens, expected.tokens, "{what}");
        assert_eq!(found.finished, expected.finished, "{what}");
        for (a, b) in [(found.log_prob, expected.log_prob), (found.score, expected.score)] {
            assert!(is_close(a, b), "{what}: {a} {b}");
        }
    }
}

fn searches() -> Vec<SearchConfig> {
    let [limits, ..] = limits();
    let beams =
        penalties().into_iter().zip([1, 2, 4, 9]).map(|(penalty, width)| beam(width, width, 1.0, &penalty, &limits));
    let greedy = GreedyConfig { max_length: at_most(7), ..GreedyConfig::default() };
    let sample = SampleConfig { draws: 3, max_length: at_most(7), ..SampleConfig::default() };
    beams.chain([SearchConfig::Greedy(greedy), SearchConfig::Sample(sample)]).collect()
}

fn found(search: &SearchConfig, model: Arc<dyn StepModel>) -> Vec<Vec<Hypothesis>> {
    search.build().unwrap().run(model, &batch(&sources())).unwrap()
}

#[test]
fn a_model_beside_itself_is_that_model() {
    let large = (0..3).map(|seed| Toy::random(seed, 300, false, false));
    for (i, toy) in toys(30).chain(large).enumerate() {
        for (combination, count) in [(BOTH[0], 2), (BOTH[0], 3), (BOTH[1], 2), (BOTH[1], 3)] {
            // Without ties: they are parted by the last bits, which a normaliser changes.
            if combination == Combination::LogLinear && i % 5 == 4 {
                continue;
            }
            let ensemble = together(&vec![toy.clone(); count], &vec![0.7; count], combination);
            for search in searches() {
                let (alone, both) = (found(&search, toy.clone()), found(&search, ensemble.clone()));
                assert_like(&both, &alone, &format!("{i} {combination:?} {search:?}"));
                if combination == Combination::Linear {
                    assert_eq!(both, alone, "not one bit differs");
                }
            }
        }
    }
}

#[test]
fn the_order_of_the_models_does_not_matter() {
    for seed in 0..20 {
        let vocabulary = if seed % 4 == 0 { 300 } else { 7 };
        let toys: Vec<_> = (0..3).map(|i| Toy::random(3 * seed + i, vocabulary, seed % 2 == 1, false)).collect();
        let (weights, order) = ([1.0, 2.0, 0.5], [2, 0, 1]);
        for combination in BOTH {
            let moved = (order.map(|i| toys[i].clone()), order.map(|i| weights[i]));
            for search in searches() {
                let one = found(&search, together(&toys, &weights, combination));
                let other = found(&search, together(&moved.0, &moved.1, combination));
                assert_like(&other, &one, &format!("{seed} {combination:?} {search:?}"));
            }
        }
    }
}

/// Every way to ask, against all log-probabilities: also where the best few follow from the members' best few, and where they do
/// not.
#[test]
fn what_they_say_together_is_what_the_definition_says_of_all_they_say() {
    let (mut screened, mut combined) = (0, 0);
    for seed in 0..60 {
        let key = Key::from_seed(seed).named("ensemble");
        let count = 2 + key.below(0, 3) as usize;
        let vocabulary = [9, 40, 400, 400][seed as usize % 4];
        // Members that think alike, and members that do not.
        let alike = seed % 3 == 0;
        let member = |i: u64| match alike {
            true => {
                let (first, own) =
                    (Toy::random(seed, vocabulary, false, false), Toy::random(seed + 90 + i, vocabulary, false, false));
                Toy::new(vocabulary, move |source, prefix| {
                    let (first, own) = ((first.next)(source, prefix), (own.next)(source, prefix));
                    first.iter().zip(own).map(|(a, b)| (0.9 * a.exp() + 0.1 * b.exp()).ln()).collect()
                })
            }
            false => Toy::random(7 * seed + i, vocabulary, seed % 2 == 1, seed % 5 == 4),
        };
        let toys: Vec<Arc<Toy>> = (0..count as u64).map(member).collect();
        let weights: Vec<f64> = (0..count as u64).map(|i| 0.1 + key.named("weight").uniform(i)).collect();
        for combination in BOTH {
            let ensemble = together(&toys, &weights, combination);
            assert_eq!(ensemble.vocabulary(), vocabulary);
            let (mut session, mut out) = (ensemble.begin(&batch(&sources())).unwrap(), StepOutput::default());
            let mut fed: Vec<Vec<TokenId>> = vec![vec![]; 3];
            for step in 0..5_u64 {
                let draw =
                    |row: u64| (4 + key.named("fed").numbered(step).below(row, vocabulary as u64 - 4)) as TokenId;
                let last: Vec<TokenId> = match step {
                    0 => vec![BEGIN; 3],
                    _ => (0..3).map(draw).collect(),
                };
                fed.iter_mut().zip(&last).filter(|_| step > 0).for_each(|(fed, &last)| fed.push(last));
                let expected: Vec<Vec<f64>> = sources()
                    .iter()
                    .zip(&fed)
                    .map(|(source, fed)| oracle(&toys, &weights, combination, source, fed))
                    .collect();
                let allowed: Vec<TokenId> = (0..vocabulary as TokenId).filter(|id| id % 3 != 1).collect();
                let masks = vec![Mask::Banned(vec![4, END]), Mask::Free, Mask::Allowed(allowed)];
                let masks = if step % 2 == 0 { masks } else { Vec::new() };
                let want = |selection| Want {
                    selection,
                    banned: vec![PAD, BEGIN],
                    masks: masks.clone(),
                    attention: step == 3,
                };
                let given: Vec<TokenId> =
                    (0..6).map(|i| key.named("given").below(i, vocabulary as u64) as TokenId).collect();
                let k = [1, 3, 6, vocabulary][key.named("k").below(step, 4) as usize];
                let selections = [Selection::Top(k), Selection::Given(given), Selection::All];
                // Each once as the step itself, the others asked of it again; of all rows or some.
                let first = step as usize % 3;
                session.step(&last, &want(selections[first].clone()), &mut out).unwrap();
                if step == 3 {
                    let at = |row: usize| attention(&sources()[row], &fed[row]);
                    let width = out.attention.len() / 3;
                    for row in 0..3 {
                        let looked = &out.attention[row * width..][..width];
                        assert!(at(row).iter().zip(looked).all(|(a, b)| (a - b).abs() < 1e-6), "all look at the same");
                    }
                }
                let mut told = vec![(selections[first].clone(), vec![0, 1, 2], out.clone())];
                let again = |selection: Selection, rows: &[u32]| {
                    let selection = match selection {
                        Selection::Given(given) => Selection::Given(
                            rows.iter().flat_map(|&row| given[2 * row as usize..][..2].to_vec()).collect(),
                        ),
                        other => other,
                    };
                    let masks = if masks.is_empty() {
                        vec![]
                    } else {
                        rows.iter().map(|&row| masks[row as usize].clone()).collect()
                    };
                    Want { masks, attention: false, ..want(selection) }
                };
                for selection in selections {
                    for rows in [&[2_u32, 0][..], &[1]] {
                        let want = again(selection.clone(), rows);
                        let mut out = StepOutput::default();
                        session.again(rows, &want, &mut out).unwrap();
                        told.push((want.selection, rows.to_vec(), out));
                    }
                }
                for (selection, rows, out) in told {
                    for (b, &row) in rows.iter().enumerate() {
                        let mut all = expected[row as usize].clone();
                        let free = |id: TokenId| {
                            ![PAD, BEGIN].contains(&id) && masks.get(row as usize).is_none_or(|mask| mask.allows(id))
                        };
                        (0..)
                            .zip(&mut all)
                            .filter(|(id, _)| !free(*id))
                            .for_each(|(_, value)| *value = f64::NEG_INFINITY);
                        let ids = &out.tokens[b * out.per_row..][..out.per_row];
                        let log_probs = &out.log_probs[b * out.per_row..][..out.per_row];
                        for (&id, &log_prob) in ids.iter().zip(log_probs) {
                            let expected = all[id as usize];
                            assert!(
                                is_close(f64::from(log_prob), expected),
                                "{seed} {combination:?}: {log_prob} {expected}"
                            );
                        }
                        match &selection {
                            Selection::All => assert!(ids.iter().copied().eq(0..vocabulary as TokenId)),
                            Selection::Given(given) => assert_eq!(ids, &given[2 * b..][..2]),
                            Selection::Top(k) => {
                                assert_eq!(ids.len(), *k);
                                let mut sorted = all.clone();
                                sorted.sort_by(|a, b| b.total_cmp(a));
                                let got = ids.iter().map(|&id| all[id as usize]);
                                assert!(
                                    got.zip(&sorted).all(|(a, &b)| is_close(a, b)),
                                    "{seed}: the best are the best"
                                );
                                assert!((1..*k).all(|i| log_probs[i - 1] > log_probs[i]
                                    || log_probs[i - 1] == log_probs[i] && ids[i - 1] < ids[i]));
                            }
                        }
                    }
                }
                if step == 2 {
                    session.select(&[2, 0, 1]);
                    session.select(&[1, 2, 0]);
                }
            }
            for (_, selection) in toys[0].asked.lock().unwrap().drain(..) {
                match (combination, vocabulary) {
                    (Combination::Linear, 400) if selection == Selection::All => combined += 1,
                    (Combination::Linear, 400) if matches!(selection, Selection::Top(_)) => screened += 1,
                    _ => {}
                }
            }
        }
    }
    // Both happen, or this would show little.
    assert!(screened > 100 && combined > 20, "{screened} {combined}");
}

/// A large vocabulary of members that think alike is hardly ever combined as a whole.
#[test]
fn a_linear_mixture_asks_for_little() {
    let sure = |seed: u64| {
        let (first, own) = (Toy::peaked(5, 500, 12, 0.6), Toy::random(seed, 500, false, false));
        Toy::new(500, move |source, prefix| {
            let (first, own) = ((first.next)(source, prefix), (own.next)(source, prefix));
            first.iter().zip(own).map(|(a, b)| (0.8 * a.exp() + 0.2 * b.exp()).ln()).collect()
        })
    };
    let toys = [sure(1), sure(2), sure(3)];
    let config = beam(4, 1, 1.0, &penalties()[0], &limits()[0]);
    let answers = found(&config, together(&toys, &[1.0; 3], Combination::Linear));
    let asked = |toy: &Toy| {
        let asked: Vec<(usize, Selection)> = toy.asked.lock().unwrap().drain(..).collect();
        let rows =
            |is: fn(&Selection) -> bool| asked.iter().filter(|(_, s)| is(s)).map(|(rows, _)| rows).sum::<usize>();
        (rows(|s| matches!(s, Selection::Top(_))), rows(|s| *s == Selection::All))
    };
    let (best, all) = asked(&toys[0]);
    assert!(best > 20 && all * 4 < best, "{all} of {best} rows");
    // And finds what it finds from all.
    let whole = Toy::new(500, move |source, prefix| {
        oracle(&toys, &[1.0; 3], Combination::Linear, source, prefix)
            .into_iter()
            .map(|log_prob| log_prob as f32)
            .collect()
    });
    assert_like(&answers, &found(&config, whole), "from all");
}

#[test]
fn prefixes_are_worth_what_they_are_when_they_are_followed() {
    for seed in 0..10 {
        let toys: Vec<_> = (0..3).map(|i| Toy::random(3 * seed + i, 8, false, false)).collect();
        let weights = [1.0, 1.0, 2.0];
        for combination in BOTH {
            let mut requests = batch(&[sources(), sources()].concat());
            for (request, prefix) in requests.iter_mut().zip([&[4, 5][..], &[], &[7], &[4, 5], &[6, 6, UNKNOWN], &[7]])
            {
                request.prefix = prefix.to_vec();
            }
            let worth = together(&toys, &weights, combination).begin(&requests).unwrap().take_prefixes();
            for (request, worth) in requests.iter().zip(worth) {
                let [Source::Tokens(source)] = &request.sources[..] else { panic!("one source") };
                assert_eq!(worth.log_probs.len(), request.prefix.len());
                for (t, &log_prob) in worth.log_probs.iter().enumerate() {
                    let expected = oracle(&toys, &weights, combination, source, &request.prefix[..t]);
                    assert!(
                        is_close(f64::from(log_prob), expected[request.prefix[t] as usize]),
                        "{seed} {combination:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn each_reads_the_sources_in_its_own_way() {
    let (a, b) = (Toy::random(1, 9, false, false), Toy::random(2, 9, false, false));
    let member = |name: &str, toy: &Arc<Toy>, reading| Member { name: name.into(), model: toy.clone(), reading };
    let both = Mixture::new(Combination::Linear, &[1.0, 1.0]).unwrap();
    let ensemble = Arc::new(Ensemble::new(vec![member("a", &a, 0), member("b", &b, 2)], both).unwrap());
    let tokens = |ids: &[TokenId]| vec![Source::Tokens(ids.to_vec())];
    let (own, other) = ([4, END], [5, 6, 7, END]);
    let request = Request { readings: vec![tokens(&[END]), tokens(&other)], ..Request::new(tokens(&own)) };
    let target = [5, 4, END];
    let scores = score(ensemble.clone(), &[request], &[target]).unwrap();
    for t in 0..3 {
        let of = |toy: &Toy, source: &[TokenId]| f64::from((toy.next)(source, &target[..t])[target[t] as usize]).exp();
        let expected = (0.5 * of(&a, &own) + 0.5 * of(&b, &other)).ln();
        assert!(is_close(f64::from(scores[0][t]), expected));
    }
    let error = score(ensemble, &[Request::new(tokens(&own))], &[target]).unwrap_err().to_string();
    assert!(error.contains("`b`") && error.contains("reading 2"), "{error}");
}

/// However long a source is for the others, an answer may be as long as it may for the first model.
#[test]
fn a_longer_reading_allows_no_longer_answer() {
    let endless = Toy::table(9, |prefix| vec![(4, 0.4), (5, 0.6 - 0.1 * (prefix.len() % 3) as f64)]);
    let member = |reading| Member { name: format!("model {reading}"), model: endless.clone(), reading };
    let mixture = Mixture::new(Combination::Linear, &[1.0, 2.0]).unwrap();
    let ensemble = Arc::new(Ensemble::new(vec![member(0), member(1)], mixture).unwrap());
    let max_length = MaxLength { ratio: 2.0, extra: 1, limit: 100 };
    let search = SearchConfig::Greedy(GreedyConfig { max_length, ..GreedyConfig::default() });
    let read = |request: Request| Request { readings: vec![vec![Source::Tokens(vec![7; 20])]], ..request };
    let requests: Vec<Request> = batch(&sources()).into_iter().map(read).collect();
    let answers = search.build().unwrap().run(ensemble, &requests).unwrap();
    for (source, answers) in sources().iter().zip(answers) {
        assert_eq!(answers[0].tokens.len(), 2 * source.len() + 1);
    }
}

#[test]
fn who_fails_is_named() {
    let good = Toy::random(1, 9, false, false);
    let bad = |value: f32| {
        let good = good.clone();
        Toy::new(9, move |source, prefix| {
            let mut row = (good.next)(source, prefix);
            if source == sources()[1] && prefix.len() == 2 {
                row[5] = value;
            }
            row
        })
    };
    for combination in BOTH {
        for value in [f32::NAN, f32::INFINITY, 0.1] {
            let ensemble = together(&[good.clone(), bad(value)], &[1.0, 1.0], combination);
            let targets = vec![vec![4, 5, 5, END]; 3];
            let error = score(ensemble, &batch(&sources()), &targets).unwrap_err().to_string();
            assert!(error.contains("row 1, step 2") && error.contains("`model 1`"), "{combination:?} {value}: {error}");
        }
        // What lies outside of the vocabulary is refused as a model refuses it.
        let ensemble = together(&[good.clone(), good.clone()], &[1.0, 1.0], combination);
        let mut session = ensemble.begin(&batch(&sources())).unwrap();
        let plain = Want { selection: Selection::Top(1), banned: vec![], masks: vec![], attention: false };
        for want in [
            Want { selection: Selection::Given(vec![4, 9, 4]), ..plain.clone() },
            Want { banned: vec![9], ..plain.clone() },
            Want { masks: vec![Mask::Free, Mask::Allowed(vec![9]), Mask::Free], ..plain.clone() },
        ] {
            assert!(session.step(&[BEGIN; 3], &want, &mut StepOutput::default()).is_err(), "{want:?}");
        }
        let ranked = Toy::ranked_by(good.clone(), Toy::random(2, 9, false, false));
        let ensemble = together(&[good.clone(), ranked], &[1.0, 1.0], combination);
        let error = score(ensemble, &batch(&sources()), &[[END]; 3]).unwrap_err().to_string();
        assert!(error.contains("`model 1`: ranks its answers by scores"), "{error}");
    }
    let member = |vocabulary| Member {
        name: format!("of {vocabulary}"),
        model: Toy::random(1, vocabulary, false, false),
        reading: 0,
    };
    let both = Mixture::new(Combination::Linear, &[1.0, 1.0]).unwrap();
    let error = Ensemble::new(vec![member(9), member(8)], both).err().unwrap().to_string();
    assert!(error.contains("`of 9` has 9") && error.contains("`of 8` has 8"), "{error}");
}
