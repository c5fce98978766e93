//! The laws of search, on models that can be enumerated.

mod candidates;
mod copying;
mod ctc;
mod ensembles;
mod fused;
mod joint;
mod sampling;
mod toy;

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{LengthLimits, Request, Selection, Source, TokenId};
use antiphon_decode::{
    AverageLength, BeamConfig, GnmtPenalty, GreedyConfig, Hypothesis, LengthPenalty, MaxLength, NoPenalty,
    SampleConfig, SearchConfig, order_by_length, restore, score, search_all,
};
use toy::{BEGIN, END, Limits, PAD, Toy, UNKNOWN, attention, exhaustive, naive_beam};

fn penalties() -> [LengthPenalty; 4] {
    [
        LengthPenalty::None(NoPenalty {}),
        LengthPenalty::Average(AverageLength {}),
        LengthPenalty::Gnmt(GnmtPenalty { alpha: 0.6 }),
        LengthPenalty::Gnmt(GnmtPenalty { alpha: 2.0 }),
    ]
}

fn limits() -> [Limits; 4] {
    [(5, 0, false), (4, 2, true), (6, 0, true), (1, 0, false)].map(|(max_length, min_length, forbid_unknown)| Limits {
        max_length,
        min_length,
        forbid_unknown,
    })
}

/// The same limit for every source.
fn at_most(limit: usize) -> MaxLength {
    MaxLength { ratio: 0.0, extra: limit as u32, limit: limit as u32 }
}

fn beam(width: u32, n_best: u32, patience: f64, penalty: &LengthPenalty, limits: &Limits) -> SearchConfig {
    SearchConfig::Beam(BeamConfig {
        width,
        n_best,
        length_penalty: penalty.clone(),
        patience,
        max_length: at_most(limits.max_length),
        min_length: limits.min_length as u32,
        forbid_unknown: limits.forbid_unknown,
        return_attention: false,
        ctc_weight: 0.0,
        language_model: None,
    })
}

fn greedy(limits: &Limits) -> SearchConfig {
    SearchConfig::Greedy(GreedyConfig {
        max_length: at_most(limits.max_length),
        min_length: limits.min_length as u32,
        forbid_unknown: limits.forbid_unknown,
        return_attention: false,
        language_model: None,
    })
}

/// Draws, ranked without a penalty, among the `top_k` best tokens.
fn sample(draws: u32, limits: &Limits, top_k: u32) -> SearchConfig {
    SearchConfig::Sample(SampleConfig {
        draws,
        top_k,
        length_penalty: LengthPenalty::None(NoPenalty {}),
        max_length: at_most(limits.max_length),
        min_length: limits.min_length as u32,
        forbid_unknown: limits.forbid_unknown,
        ..SampleConfig::default()
    })
}

/// Three sources of different lengths.
fn sources() -> Vec<Vec<TokenId>> {
    vec![vec![4, 5, END], vec![END], vec![5, 5, 4, 4, 5, END]]
}

fn batch(rows: &[Vec<TokenId>]) -> Vec<Request> {
    rows.iter().map(|ids| Request::new(vec![Source::Tokens(ids.clone())])).collect()
}

fn run(config: &SearchConfig, toy: &Arc<Toy>, rows: &[Vec<TokenId>]) -> Vec<Vec<Hypothesis>> {
    config.build().unwrap().run(toy.clone(), &batch(rows)).unwrap()
}

/// Random toys, with and without impossible tokens and ties.
fn toys(count: u64) -> impl Iterator<Item = Arc<Toy>> {
    (0..count).map(|seed| Toy::random(seed, 5 + (seed % 3) as usize, seed % 2 == 1, seed % 5 == 4))
}

#[test]
fn a_beam_of_one_is_greedy() {
    for toy in toys(200) {
        for limits in limits() {
            let expected = run(&greedy(&limits), &toy, &sources());
            for penalty in penalties() {
                let mut found = run(&beam(1, 1, 1.0, &penalty, &limits), &toy, &sources());
                for hypothesis in found.iter_mut().flatten() {
                    let length = hypothesis.tokens.len() + usize::from(hypothesis.finished);
                    assert_eq!(hypothesis.score, penalty.score(hypothesis.log_prob, length));
                    hypothesis.score = hypothesis.log_prob;
                }
                assert_eq!(found, expected, "{limits:?} {penalty:?}");
            }
        }
    }
}

/// If the greedy answer ends and has a probability above a half, no beam may answer with anything worse.
#[test]
fn an_answer_more_probable_than_all_others_together_is_never_missed() {
    let (mut peaked, mut held) = (0, 0);
    for seed in 0..2_000 {
        let key = Key::from_seed(seed).named("law");
        let draw = |place, from: u64, below: u64| from + key.below(place, below - from);
        let limits = Limits { max_length: 14, min_length: draw(0, 0, 3) as usize, forbid_unknown: draw(1, 0, 2) == 1 };
        let toy = Toy::peaked(seed, draw(2, 5, 9) as usize, 13, [0.9, 0.97, 0.995][seed as usize % 3]);
        let answers = run(&greedy(&limits), &toy, &sources());
        for penalty in penalties() {
            let width = [1, 2, 3, 5, 10, 50][draw(3, 0, 6) as usize];
            let (n_best, patience) = (draw(4, 1, 5) as u32, [0.2, 1.0, 2.0][draw(5, 0, 3) as usize]);
            let found = run(&beam(width, n_best, patience, &penalty, &limits), &toy, &sources());
            for (row, greedy) in answers.iter().enumerate() {
                let greedy = &greedy[0];
                if !greedy.finished || greedy.log_prob <= 0.5_f64.ln() {
                    continue;
                }
                peaked += 1;
                let least = penalty.score(greedy.log_prob, greedy.tokens.len() + 1);
                let best = &found[row][0];
                assert!(
                    best.score >= least,
                    "{seed} {width} {n_best} {patience} {penalty:?} {limits:?}: {best:?} {greedy:?}"
                );
                held += usize::from(best.tokens == greedy.tokens);
            }
        }
    }
    // A penalty may prefer another one.
    assert!(peaked > 5_000 && held > peaked / 2, "{held} of {peaked}");
}

#[test]
fn without_a_penalty_patience_costs_no_answer() {
    let [none, ..] = penalties();
    for toy in toys(100).chain((0..200).map(|seed| Toy::peaked(seed, 7, 9, 0.8))) {
        for limits in limits() {
            for width in [1, 2, 5, 20] {
                let best = |patience: f64| {
                    let found = run(&beam(width, 1, patience, &none, &limits), &toy, &sources());
                    found.into_iter().map(|mut hypotheses| hypotheses.swap_remove(0)).collect::<Vec<_>>()
                };
                assert_eq!(best(0.1), best(1e9), "{width} {limits:?}");
            }
        }
    }
}

/// The copy task of a report: the ends of improbable beginnings must not settle a sentence whose right answer still lives.
#[test]
fn a_wide_beam_copies_as_well_as_a_narrow_one() {
    let copy = |source: &[TokenId], prefix: &[TokenId]| {
        let right = source.get(prefix.len()).copied().unwrap_or(END);
        let off = !source.starts_with(prefix);
        let (peak, right) = if off { (0.9_f64, END) } else { (0.999, right) };
        (0..6).map(|v| (if v == right { peak } else { (1.0 - peak) / 5.0 }).ln() as f32).collect()
    };
    let toy = Toy::new(6, copy);
    let rows: Vec<Vec<TokenId>> =
        (4..15).map(|n| (0..n).map(|i| 4 + (i * i / 3 + n) % 2).chain([END]).collect()).collect();
    for penalty in penalties() {
        for width in 1..=50 {
            let limits = Limits { max_length: 60, min_length: 0, forbid_unknown: false };
            for (found, source) in run(&beam(width, 1, 1.0, &penalty, &limits), &toy, &rows).iter().zip(&rows) {
                assert_eq!(closed(&found[0]), *source, "{width} {penalty:?}");
            }
        }
    }
}

#[test]
fn a_search_says_when_it_ran_out_of_patience_too_early() {
    // `</s>` has 0.5 and `5 </s>` 0.05: two have ended after two steps. `4 4 4 </s>` has 0.45, and the best mean by far.
    let toy = Toy::table(6, |prefix| match prefix {
        [] => vec![(END, 0.5), (4, 0.45), (5, 0.05)],
        [4] | [4, 4] => vec![(4, 1.0)],
        _ => vec![(END, 1.0)],
    });
    let limits = Limits { max_length: 10, min_length: 0, forbid_unknown: false };
    let [none, average, ..] = penalties();
    let check = |penalty: &LengthPenalty, patience, answer: &[TokenId], outscored| {
        let strategy = beam(2, 1, patience, penalty, &limits).build().unwrap();
        let found = search_all(&*strategy, toy.clone(), &batch(&[vec![END]]), 1, &mut |_| {}).unwrap();
        assert_eq!((found[0].hypotheses[0].tokens.as_slice(), found[0].outscored), (answer, outscored));
    };
    check(&none, 1.0, &[], false);
    check(&average, 1.0, &[], true); // -0.693 / 1 has ended, -0.799 / 2 lives
    check(&average, 1e9, &[4, 4, 4], false); // -0.799 / 4
}

#[test]
fn a_beam_as_wide_as_the_space_is_exhaustive() {
    let mut compared = 0;
    for toy in toys(40) {
        // A row has at most five continuations: the unknown symbol, three letters, the end.
        for limits in [(4, 0, false), (3, 1, true), (2, 0, true), (1, 0, false)].map(|(l, m, u)| Limits {
            max_length: l,
            min_length: m,
            forbid_unknown: u,
        }) {
            let width = 5_u32.pow(limits.max_length as u32);
            for penalty in penalties() {
                for n_best in [1, 3, 10_000] {
                    let found = run(&beam(width, n_best, 1.0, &penalty, &limits), &toy, &sources());
                    for (row, source) in sources().iter().enumerate() {
                        let mut expected = exhaustive(&toy, source, &limits, &penalty);
                        let ties = expected.windows(2).any(|pair| pair[0].score == pair[1].score);
                        expected.truncate(n_best as usize);
                        let scores = |hs: &[Hypothesis]| hs.iter().map(|h| h.score).collect::<Vec<_>>();
                        assert_eq!(scores(&found[row]), scores(&expected));
                        // Which of equal scores comes first depends on the order of finding.
                        if !ties {
                            assert_eq!(found[row], expected, "{limits:?} {penalty:?} {n_best}");
                            compared += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(compared > 3000, "{compared} of 5760 without ties");
}

#[test]
fn a_beam_equals_a_naive_one_that_never_stops_early() {
    for toy in toys(120) {
        for limits in limits() {
            for penalty in penalties() {
                for (width, n_best) in [(1, 1), (1, 3), (2, 1), (2, 2), (3, 2), (4, 1), (4, 9)] {
                    for patience in [1.0, 2.0, 1e9] {
                        let found = run(&beam(width, n_best, patience, &penalty, &limits), &toy, &sources());
                        let enough = ((patience * f64::from(width)) as usize).max(n_best as usize);
                        for (row, source) in sources().iter().enumerate() {
                            let mut expected = naive_beam(&toy, source, &limits, &penalty, width as usize, enough);
                            expected.truncate(n_best as usize);
                            assert_eq!(found[row], expected, "{limits:?} {penalty:?} {width} {n_best} {patience}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_wider_beam_is_no_worse_once_it_is_exact() {
    let limits = Limits { max_length: 4, min_length: 0, forbid_unknown: false };
    for toy in (0..60).map(|seed| Toy::random(seed, 6, false, false)) {
        for penalty in penalties() {
            let best = |width| run(&beam(width, 1, 1e9, &penalty, &limits), &toy, &sources());
            let exact = best(200);
            for width in [1, 2, 3, 5, 8, 20, 60, 200, 500] {
                for (row, found) in best(width).iter().enumerate() {
                    // A narrow beam may end nowhere; what it cut off is no answer to compare.
                    assert!(!found[0].finished || found[0].score <= exact[row][0].score);
                    assert!(width < 81 || found == &exact[row]); // 3^4 beginnings
                }
            }
        }
    }
}

#[test]
fn the_other_rows_and_their_order_change_nothing() {
    let rows: Vec<Vec<TokenId>> =
        (0..9_u64).map(|i| (0..i % 5).map(|j| 4 + (i + j) as TokenId % 3).chain([END]).collect()).collect();
    for toy in toys(30) {
        for penalty in penalties() {
            let config = SearchConfig::Beam(BeamConfig {
                width: 3,
                n_best: 2,
                length_penalty: penalty.clone(),
                max_length: MaxLength { ratio: 1.0, extra: 1, limit: 5 },
                return_attention: true,
                ..BeamConfig::default()
            });
            let greedy = SearchConfig::Greedy(GreedyConfig {
                max_length: MaxLength { ratio: 1.0, extra: 1, limit: 5 },
                return_attention: true,
                ..GreedyConfig::default()
            });
            for config in [config, greedy] {
                let together = run(&config, &toy, &rows);
                for (row, source) in rows.iter().enumerate() {
                    assert_eq!(run(&config, &toy, std::slice::from_ref(source)), together[row..=row]);
                }
                let mut order: Vec<usize> = (0..rows.len()).collect();
                Key::from_seed(8).shuffle(&mut order);
                let shuffled: Vec<_> = order.iter().map(|&i| rows[i].clone()).collect();
                assert_eq!(restore(&order, run(&config, &toy, &shuffled)), together);
            }
        }
    }
}

#[test]
fn a_corpus_is_answered_in_its_order_whatever_the_batch() {
    let rows: Vec<Vec<TokenId>> =
        (0..23_u64).map(|i| (0..i * 7 % 6).map(|j| 4 + (i + j) as TokenId % 3).chain([END]).collect()).collect();
    let toy = Toy::random(3, 7, false, false);
    let strategy = beam(3, 2, 1.0, &LengthPenalty::default(), &limits()[0]).build().unwrap();
    let whole = strategy.run(toy.clone(), &batch(&rows)).unwrap();
    for size in [1, 2, 7, 23, 100] {
        let mut told = vec![0];
        let answers = search_all(&*strategy, toy.clone(), &batch(&rows), size, &mut |n| told.push(n)).unwrap();
        assert!(answers.iter().map(|found| found.row).eq(0..rows.len()));
        let answers: Vec<_> = answers.into_iter().map(|found| found.hypotheses).collect();
        assert_eq!(answers, whole);
        assert!(told.is_sorted_by(|a, b| a < b) && told.last() == Some(&23), "{told:?}");
    }
    assert_eq!(search_all(&*strategy, toy.clone(), &[], 8, &mut |_| panic!("nothing to tell")), Ok(vec![]));
    assert!(search_all(&*strategy, toy, &batch(&rows), 0, &mut |_| {}).is_err());
}

#[test]
fn the_log_probability_is_that_of_forced_decoding() {
    for toy in toys(60) {
        for limits in limits() {
            let drawn = SearchConfig::Sample(SampleConfig {
                draws: 4,
                temperature: 0.7,
                top_p: 0.9,
                repetition_penalty: 1.3,
                max_length: at_most(limits.max_length),
                ..SampleConfig::default()
            });
            for config in [greedy(&limits), beam(3, 3, 1.0, &LengthPenalty::default(), &limits), drawn] {
                let found = run(&config, &toy, &sources());
                let most = found.iter().map(Vec::len).max().unwrap();
                for rank in 0..most {
                    // Rows of different lengths, some of them empty.
                    let targets: Vec<Vec<TokenId>> =
                        found.iter().map(|hs| hs.get(rank).map_or(vec![], closed)).collect();
                    let scores = score(toy.clone(), &batch(&sources()), &targets).unwrap();
                    for (row, scores) in scores.iter().enumerate() {
                        assert_eq!(scores.len(), targets[row].len());
                        let sum: f64 = scores.iter().map(|&p| f64::from(p)).sum();
                        assert_eq!(sum, found[row].get(rank).map_or(0.0, |h| h.log_prob));
                    }
                }
            }
        }
    }
}

fn closed(hypothesis: &Hypothesis) -> Vec<TokenId> {
    hypothesis.tokens.iter().copied().chain(hypothesis.finished.then_some(END)).collect()
}

#[test]
fn scoring_names_what_is_wrong() {
    let toy = Toy::table(6, |_| vec![(4, 0.5), (END, 0.5)]);
    let text = |sources: usize, targets: &[Vec<TokenId>]| {
        score(toy.clone(), &vec![Request::new(vec![]); sources], targets).map_err(|e| e.to_string())
    };
    let half = 0.5_f64.ln() as f32;
    assert_eq!(text(2, &[vec![4, END], vec![5]]), Ok(vec![vec![half, half], vec![f32::NEG_INFINITY]]));
    assert_eq!(text(0, &[]), Ok(vec![]));
    assert_eq!(text(2, &[vec![], vec![]]), Ok(vec![vec![], vec![]]));
    assert_eq!(text(2, &[vec![4]]).unwrap_err(), "there are 1 targets for 2 requests");
    assert_eq!(
        text(2, &[vec![4], vec![4, 6]]).unwrap_err(),
        "row 1, step 1: target token 6 is outside the model's vocabulary of 6"
    );
}

#[test]
fn the_first_end_symbol_does_not_win_by_being_first() {
    // Ending at once has the probability `first`, `4 4 4 </s>` has the rest.
    let toy = |first: f64| {
        Toy::table(5, move |prefix| match prefix.len() {
            0 => vec![(END, first), (4, 1.0 - first)],
            3 => vec![(END, 1.0)],
            _ => vec![(4, 1.0)],
        })
    };
    let limits = Limits { max_length: 10, min_length: 0, forbid_unknown: false };
    let check = |first, penalty: &LengthPenalty, expected: &[TokenId]| {
        let found = run(&beam(2, 1, 1.0, penalty, &limits), &toy(first), &[vec![END]]);
        assert_eq!(found[0][0].tokens, expected, "{first} {penalty:?}");
    };
    let [none, average, gnmt, _] = penalties();
    check(0.4, &none, &[4, 4, 4]); // log 0.4 = -0.916, log 0.6 = -0.511
    check(0.6, &none, &[]);
    check(0.6, &average, &[4, 4, 4]); // -0.511 / 1, -0.916 / 4
    check(0.9, &average, &[]); // -0.105 / 1, -2.303 / 4
    check(0.53, &gnmt, &[4, 4, 4]); // -0.635 / 1, -0.755 / (9/6)^0.6 = -0.592
    check(0.55, &gnmt, &[]); // -0.598 / 1, -0.799 / (9/6)^0.6 = -0.626
}

#[test]
fn a_settled_sentence_leaves_the_batch_and_the_search_stops() {
    // A source of n tokens is copied, with probability 0.9 a token.
    let copy = |source: &[TokenId], prefix: &[TokenId]| {
        let mut row = vec![0.025_f64.ln() as f32; 8];
        let right = source.get(prefix.len()).copied().unwrap_or(END);
        row[right as usize] = 0.9_f64.ln() as f32;
        row
    };
    let toy = Toy::new(8, copy);
    let rows = [vec![5, 6, 7, 4, END], vec![4, END], vec![6, 5, END]];
    let limits = Limits { max_length: 50, min_length: 0, forbid_unknown: false };
    let [none, ..] = penalties();
    let found = run(&beam(2, 1, 1e9, &none, &limits), &toy, &rows);
    let tokens: Vec<_> = found.iter().map(|hs| hs[0].tokens.as_slice()).collect();
    assert_eq!(tokens, [&[5, 6, 7, 4][..], &[4], &[6, 5]]);
    let asked: Vec<_> = toy.asked.lock().unwrap().iter().map(|(rows, _)| *rows).collect();
    assert_eq!(asked, [3, 6, 4, 2, 2], "one row a sentence first, two then, none once it is settled");
    assert!(toy.asked.lock().unwrap().iter().all(|(_, s)| *s == Selection::Top(3)));

    toy.asked.lock().unwrap().clear();
    *toy.selects.lock().unwrap() = 0;
    assert_eq!(run(&greedy(&limits), &toy, &rows)[0][0].tokens, [5, 6, 7, 4]);
    let asked = std::mem::take(&mut *toy.asked.lock().unwrap());
    assert_eq!(asked, [3, 3, 2, 1, 1].map(|rows| (rows, Selection::Top(1))));
    assert_eq!(*toy.selects.lock().unwrap(), 2, "rows are selected only where they change");
}

#[test]
fn a_search_is_resumed_step_by_step() {
    let toy = Toy::new(8, |source, prefix| {
        let mut row = vec![f32::NEG_INFINITY; 8];
        row[source[prefix.len()] as usize] = 0.0;
        row
    });
    let rows = [vec![5, 6, END], vec![END], vec![7, END]];
    for config in [SearchConfig::Greedy(GreedyConfig::default()), SearchConfig::default()] {
        let strategy = config.build().unwrap();
        let mut search = strategy.begin(toy.clone(), &batch(&rows)).unwrap();
        for row in [1, 2, 0] {
            assert!(!search.is_done());
            let finished = search.advance().unwrap();
            assert_eq!(finished.len(), 1);
            assert_eq!((finished[0].row, finished[0].hypotheses.len()), (row, 1));
            assert_eq!(closed(&finished[0].hypotheses[0]), rows[row]);
        }
        assert!(search.is_done());
        assert_eq!(search.advance(), Ok(vec![]));
        assert_eq!(strategy.run(toy.clone(), &batch(&[])), Ok(vec![]));
    }
}

#[test]
fn a_model_that_never_ends_stops_at_the_limit() {
    let toy = Toy::table(6, |_| vec![(4, 0.75), (5, 0.25)]);
    let rows = [vec![4, END], vec![END]];
    let max_length = MaxLength { ratio: 1.5, extra: 2, limit: 50 };
    let greedy = SearchConfig::Greedy(GreedyConfig { max_length: max_length.clone(), ..GreedyConfig::default() });
    let beam = SearchConfig::Beam(BeamConfig { width: 3, n_best: 2, max_length, ..BeamConfig::default() });
    for (config, count) in [(greedy, 1), (beam, 2)] {
        let found = run(&config, &toy, &rows);
        for (hypotheses, length) in found.iter().zip([5, 4]) {
            assert_eq!(hypotheses.len(), count);
            assert!(hypotheses.iter().all(|h| !h.finished && h.tokens.len() == length));
            assert_eq!(hypotheses[0].tokens, vec![4; length]);
        }
        // A language model has no source to be relative to.
        let free = config.build().unwrap().run(toy.clone(), &[Request::new(vec![])]).unwrap();
        assert_eq!(free[0][0].tokens.len(), 50);
    }
}

#[test]
fn what_was_cut_off_never_stands_beside_what_ended() {
    // `5 </s>` has 0.01; `4 4 4 …` nearly 0.99 but never ends.
    let toy = Toy::table(6, |prefix| match prefix {
        [] => vec![(4, 0.99), (5, 0.01)],
        [5] => vec![(END, 1.0)],
        _ => vec![(4, 1.0)],
    });
    let limits = Limits { max_length: 6, min_length: 0, forbid_unknown: false };
    for penalty in penalties() {
        let found = run(&beam(2, 2, 1.0, &penalty, &limits), &toy, &[vec![END]]);
        assert_eq!(found[0].len(), 1);
        assert!(found[0][0].finished && found[0][0].tokens == [5]);
    }
}

#[test]
fn ending_at_once_is_an_empty_answer() {
    let toy = Toy::table(6, |_| vec![(END, 0.9), (4, 0.1)]);
    let limits = Limits { max_length: 5, min_length: 0, forbid_unknown: false };
    for config in [greedy(&limits), beam(4, 1, 1.0, &LengthPenalty::default(), &limits)] {
        let found = run(&config, &toy, &sources());
        for hypotheses in found {
            assert!(hypotheses[0].tokens.is_empty() && hypotheses[0].finished);
            assert_eq!(hypotheses[0].log_prob, f64::from(0.9_f64.ln() as f32));
        }
    }
    // With a least length it must go on first.
    let limits = Limits { min_length: 2, ..limits };
    for config in [greedy(&limits), beam(4, 1, 1.0, &LengthPenalty::default(), &limits)] {
        assert!(run(&config, &toy, &sources()).iter().all(|hs| hs[0].tokens == [4, 4] && hs[0].finished));
    }
}

#[test]
fn there_are_no_more_answers_than_exist() {
    let toy =
        Toy::table(6, |prefix| if prefix.is_empty() { vec![(4, 0.5), (5, 0.3), (END, 0.2)] } else { vec![(END, 1.0)] });
    let limits = Limits { max_length: 9, min_length: 0, forbid_unknown: false };
    for width in [3, 50] {
        let found = run(&beam(width, 20, 1.0, &LengthPenalty::None(NoPenalty {}), &limits), &toy, &[vec![END]]);
        let tokens: Vec<_> = found[0].iter().map(|h| h.tokens.as_slice()).collect();
        assert_eq!(tokens, [&[4][..], &[5], &[]]);
    }
}

#[test]
fn a_model_without_a_way_on_gives_what_it_has() {
    let toy = Toy::table(6, |prefix| match prefix.len() {
        0 => vec![(4, 0.5), (5, 0.5)],
        1 => vec![(4, 1.0)],
        _ => vec![],
    });
    let limits = Limits { max_length: 9, min_length: 0, forbid_unknown: false };
    for config in [greedy(&limits), beam(3, 1, 1.0, &LengthPenalty::None(NoPenalty {}), &limits), sample(1, &limits, 1)]
    {
        let found = run(&config, &toy, &[vec![END]]);
        let half = f64::from(0.5_f64.ln() as f32);
        assert_eq!(
            (found[0][0].tokens.as_slice(), found[0][0].finished, found[0][0].log_prob),
            (&[4, 4][..], false, half)
        );
    }
    let nothing = Toy::table(6, |_| vec![]);
    for config in [greedy(&limits), beam(3, 2, 1.0, &LengthPenalty::default(), &limits), sample(1, &limits, 0)] {
        let found = run(&config, &nothing, &[vec![END]]);
        assert_eq!(found[0].len(), 1);
        assert!(found[0][0].tokens.is_empty() && !found[0][0].finished && found[0][0].score == 0.0);
    }
}

#[test]
fn banned_tokens_never_appear_and_the_vocabulary_may_be_smaller_than_the_beam() {
    for vocabulary in [4, 5, 6] {
        for seed in 0..40 {
            let toy = Toy::random(seed, vocabulary, false, false);
            for limits in limits() {
                for config in [greedy(&limits), beam(9, 20, 1.0, &LengthPenalty::default(), &limits)] {
                    for hypothesis in run(&config, &toy, &sources()).iter().flatten() {
                        let forbidden = |&t: &TokenId| {
                            t == PAD || t == BEGIN || t == END || (t == UNKNOWN && limits.forbid_unknown)
                        };
                        assert!(!hypothesis.tokens.iter().any(forbidden), "{hypothesis:?}");
                        assert!(closed(hypothesis).len() <= limits.max_length);
                        assert!(!hypothesis.finished || hypothesis.tokens.len() >= limits.min_length);
                    }
                }
            }
        }
    }
    let limits = Limits { max_length: 3, min_length: 0, forbid_unknown: false };
    let error = greedy(&limits).build().unwrap().run(Toy::table(3, |_| vec![]), &batch(&sources())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a vocabulary of 3 lacks special symbols; it must begin with <pad>, <unk>, <s>, </s>"
    );
}

#[test]
fn ties_go_to_the_better_parent_then_to_the_smaller_token() {
    // All targets of two tokens out of 4, 5, 6 are equally probable.
    let toy =
        Toy::table(7, |prefix| if prefix.len() < 2 { [4, 5, 6].map(|t| (t, 0.25)).into() } else { vec![(END, 0.25)] });
    let limits = Limits { max_length: 9, min_length: 0, forbid_unknown: false };
    let check = |width, expected: &[&[TokenId]]| {
        let found = run(&beam(width, width, 1.0, &LengthPenalty::default(), &limits), &toy, &[vec![END]]);
        assert_eq!(found[0].iter().map(|h| h.tokens.as_slice()).collect::<Vec<_>>(), expected);
    };
    check(1, &[&[4, 4]]);
    check(2, &[&[4, 4], &[4, 5]]);
    check(4, &[&[4, 4], &[4, 5], &[4, 6], &[5, 4]]);
}

#[test]
fn attention_belongs_to_the_tokens_it_was_paid_for() {
    for toy in toys(20) {
        for limits in limits() {
            for config in [greedy(&limits), beam(3, 3, 1.0, &LengthPenalty::default(), &limits), sample(3, &limits, 0)]
            {
                let bare = run(&config, &toy, &sources());
                let mut found = run(&config.with_attention(true), &toy, &sources());
                for (row, source) in sources().iter().enumerate() {
                    for hypothesis in &mut found[row] {
                        let tokens = closed(hypothesis);
                        let expected: Vec<_> = (0..tokens.len()).map(|t| attention(source, &tokens[..t])).collect();
                        assert_eq!(std::mem::take(&mut hypothesis.attention), expected);
                    }
                }
                assert_eq!(found, bare, "attention changes nothing else");
            }
        }
    }
}

#[test]
fn what_is_no_log_probability_is_an_error_with_row_and_step() {
    let broken = |value: f32| {
        Toy::new(6, move |source, prefix| {
            let mut row = vec![-1.8; 6];
            row[END as usize] = -10.0;
            row[5] = if source.len() == 1 && prefix.len() == 2 { value } else { -1.7 };
            row
        })
    };
    let limits = Limits { max_length: 5, min_length: 0, forbid_unknown: false };
    for config in [greedy(&limits), beam(2, 1, 1.0, &LengthPenalty::default(), &limits), sample(1, &limits, 1)] {
        let strategy = config.build().unwrap();
        for (value, fault) in [
            (f32::NAN, "NaN: its weights or its input are not finite"),
            (f32::INFINITY, "inf: its weights or its input are not finite"),
            (0.5, "0.5: it must not be above 0"),
        ] {
            let toy = broken(value);
            let text = strategy.run(toy.clone(), &batch(&sources())).err().map(|e| e.to_string());
            let expected = format!("row 1, step 2: the model gave token 5 the log-probability {fault}");
            assert_eq!(text, Some(expected.clone()));
            // Longest first, the row of one token stands last in its batch.
            let error = search_all(&*strategy, toy.clone(), &batch(&sources()), 3, &mut |_| {}).unwrap_err();
            assert_eq!(error.to_string(), expected.replace("row", "source"));

            let mut search = strategy.begin(toy.clone(), &batch(&sources())).unwrap();
            assert!((0..2).all(|_| search.advance() == Ok(vec![])));
            assert!(search.advance().is_err() && search.is_done());
            assert_eq!(search.advance(), Ok(vec![]));
        }
        // What rounding leaves above 0 is read as 0.
        let found = strategy.run(broken(1e-6), &batch(&sources())).unwrap();
        assert!(found.iter().flatten().all(|h| h.log_prob <= 0.0 && h.tokens == [5; 5]));
    }
    let targets = [vec![4, 4], vec![4, 4, 5], vec![4]];
    let error = score(broken(f32::NAN), &batch(&sources()), &targets).unwrap_err();
    assert!(error.to_string().starts_with("row 1, step 2: "), "{error}");
}

#[test]
fn the_order_by_length_is_stable() {
    assert_eq!(order_by_length(&[2, 2, 7, 2]), [2, 0, 1, 3]);
}

#[test]
fn frames_are_searched_like_tokens() {
    let rows = sources();
    let frames = |ids: &Vec<TokenId>| {
        let values = ids.iter().flat_map(|&id| [id as f32, 0.5]).collect();
        Request::new(vec![Source::Frames { values, features: 2 }])
    };
    let frames: Vec<Request> = rows.iter().map(frames).collect();
    let max_length = MaxLength { ratio: 1.0, extra: 0, limit: 5 };
    let greedy = SearchConfig::Greedy(GreedyConfig { max_length: max_length.clone(), ..GreedyConfig::default() });
    let beam = SearchConfig::Beam(BeamConfig { max_length, ..BeamConfig::default() });
    for toy in toys(20) {
        for config in [&greedy, &beam] {
            let strategy = config.clone().with_attention(true).build().unwrap();
            assert_eq!(strategy.run(toy.clone(), &frames), strategy.run(toy.clone(), &batch(&rows)));
        }
    }
}

/// What follows `prefix` in a toy, as a toy of its own.
fn behind(toy: &Arc<Toy>, prefix: &[TokenId]) -> Arc<Toy> {
    let (toy, prefix) = (toy.clone(), prefix.to_vec());
    Toy::new(toy.vocabulary, move |source, next| (toy.next)(source, &[&prefix[..], next].concat()))
}

#[test]
fn an_answer_behind_a_prefix_is_that_of_the_model_behind_it() {
    let prefixes: [&[TokenId]; 4] = [&[4, 4], &[], &[4, UNKNOWN, 4], &[4]];
    let rows: Vec<Vec<TokenId>> = (0..4).map(|i| vec![4 + i % 2, END]).collect();
    let mut compared = 0;
    for toy in (0..60).map(|seed| Toy::random(seed, 6, seed % 2 == 1, false)) {
        for limits in [(6, 0, false), (6, 4, false), (3, 0, false)] {
            let limits = Limits { max_length: limits.0, min_length: limits.1, forbid_unknown: limits.2 };
            let [none, ..] = penalties();
            for (of, shorter) in [
                (greedy(&limits), (|limits: &Limits| greedy(limits)) as fn(&Limits) -> SearchConfig),
                (beam(3, 2, 1e9, &none, &limits), |limits| {
                    beam(3, 2, 1e9, &[LengthPenalty::None(NoPenalty {})][0], limits)
                }),
                (sample(1, &limits, 1), |limits| sample(1, limits, 1)),
            ] {
                let mut requests = batch(&rows);
                for (request, prefix) in requests.iter_mut().zip(prefixes) {
                    request.prefix = prefix.to_vec();
                }
                let found = of.build().unwrap().run(toy.clone(), &requests).unwrap();
                for ((found, prefix), source) in found.iter().zip(prefixes).zip(&rows) {
                    let worth: f64 = (0..prefix.len())
                        .map(|t| f64::from((toy.next)(source, &prefix[..t])[prefix[t] as usize]))
                        .sum();
                    if prefix.len() >= limits.max_length || worth == f64::NEG_INFINITY {
                        assert!(prefix.starts_with(&found[0].tokens) && !found[0].finished);
                        continue;
                    }
                    let rest = Limits {
                        max_length: limits.max_length - prefix.len(),
                        min_length: limits.min_length.saturating_sub(prefix.len()),
                        ..limits.clone()
                    };
                    let expected = run(&shorter(&rest), &behind(&toy, prefix), std::slice::from_ref(source));
                    assert_eq!(found.len(), expected[0].len());
                    for (found, expected) in found.iter().zip(&expected[0]) {
                        assert_eq!(found.tokens, [prefix, &expected.tokens].concat());
                        assert_eq!(found.finished, expected.finished);
                        assert!((found.log_prob - expected.log_prob - worth).abs() < 1e-9);
                        assert_eq!(found.prefix_log_prob, worth);
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared > 1000, "{compared}");
    let refused = |prefix: &[TokenId]| {
        let request = Request { prefix: prefix.to_vec(), ..batch(&rows[..1]).remove(0) };
        SearchConfig::default().build().unwrap().run(Toy::table(6, |_| vec![]), &[request]).unwrap_err().to_string()
    };
    for prefix in [&[4, END][..], &[PAD], &[BEGIN], &[6]] {
        assert!(refused(prefix).starts_with("row 0, step 0: the prefix holds token"), "{prefix:?}");
    }
    // Of many requests in several batches the right one is named.
    let mut many = batch(&[vec![4, END], vec![4, 4, 4, END], vec![4, 4, END]]);
    many[2].prefix = vec![PAD];
    let strategy = SearchConfig::default().build().unwrap();
    let error = search_all(&*strategy, Toy::table(6, |_| vec![(END, 1.0)]), &many, 1, &mut |_| {}).unwrap_err();
    assert!(error.to_string().starts_with("source 2, step 0: the prefix"), "{error}");
    // Who scores a target follows it wherever it leads.
    let toy = Toy::random(3, 6, false, false);
    let mut bound = batch(&rows[..1]);
    let free = score(toy.clone(), &bound, &[vec![5, END]]).unwrap();
    (bound[0].prefix, bound[0].limits.min_length) = (vec![4, 4], Some(3));
    assert_eq!(score(toy, &bound, &[vec![5, END]]).unwrap(), free);
}

#[test]
fn limits_of_a_request_are_its_own() {
    for toy in toys(60) {
        for (max_length, min_length) in [(5, 0), (4, 2), (3, 1), (1, 0), (0, 0)] {
            let asked = LengthLimits { max_length: Some(max_length), min_length: Some(min_length), endless: false };
            let max_length = max_length.max(1);
            let own = Limits { max_length, min_length, forbid_unknown: false };
            let others = Limits { max_length: 7, min_length: 3, forbid_unknown: false };
            for config in [
                greedy,
                |limits: &Limits| beam(3, 2, 1.0, &LengthPenalty::default(), limits),
                |limits: &Limits| sample(3, limits, 0),
            ] {
                let mut requests = batch(&sources());
                requests[1].limits = asked;
                let found = config(&others).build().unwrap().run(toy.clone(), &requests).unwrap();
                let (common, alone) = (run(&config(&others), &toy, &sources()), run(&config(&own), &toy, &sources()));
                assert_eq!(found, [common[0].clone(), alone[1].clone(), common[2].clone()]);
            }
        }
    }
}

#[test]
fn certain_tokens_only_grow_and_begin_the_answer() {
    let mut early = 0;
    for toy in toys(60).chain((0..60).map(|seed| Toy::peaked(seed, 7, 9, 0.9))) {
        for limits in limits() {
            let of_beam = beam(3, 2, 1.0, &LengthPenalty::default(), &limits);
            for config in [greedy(&limits), of_beam, sample(1, &limits, 0), sample(3, &limits, 0)] {
                let is_greedy = matches!(&config, SearchConfig::Greedy(_))
                    || matches!(&config, SearchConfig::Sample(sample) if sample.draws == 1);
                let mut search = config.build().unwrap().begin(toy.clone(), &batch(&sources())).unwrap();
                let mut told: Vec<Vec<TokenId>> = vec![Vec::new(); 3];
                let mut steps = 0;
                while !search.is_done() {
                    let finished = search.advance().unwrap();
                    steps += 1;
                    for found in finished {
                        assert_eq!(search.certain(found.row, 0), None);
                        for hypothesis in &found.hypotheses {
                            assert!(hypothesis.tokens.starts_with(&told[found.row]), "{hypothesis:?} {told:?}");
                        }
                    }
                    for (row, told) in told.iter_mut().enumerate() {
                        let Some(certain) = search.certain(row, 0) else { continue };
                        assert!(certain.starts_with(told));
                        assert_eq!(search.certain(row, told.len()).unwrap(), certain[told.len()..]);
                        assert!(!is_greedy || certain.len() == steps);
                        early += usize::from(!is_greedy && !certain.is_empty());
                        *told = certain;
                    }
                }
            }
        }
    }
    assert!(early > 100, "a beam was certain of something {early} times");
}

#[test]
fn answers_are_ranked_by_scores_and_keep_their_log_probabilities() {
    for seed in 0..60 {
        let of = |seed| Toy::random(seed, 6, false, false);
        let both = Toy::ranked_by(of(seed), of(seed + 100));
        for limits in limits() {
            for config in [greedy(&limits), beam(3, 3, 1.0, &LengthPenalty::default(), &limits)] {
                let found = run(&config, &both, &sources());
                let by_score = run(&config, &of(seed + 100), &sources());
                let plain = |hs: &Vec<Hypothesis>| hs.iter().map(|h| (h.tokens.clone(), h.score)).collect::<Vec<_>>();
                assert_eq!(found.iter().map(plain).collect::<Vec<_>>(), by_score.iter().map(plain).collect::<Vec<_>>());
                for (row, hypotheses) in found.iter().enumerate() {
                    for hypothesis in hypotheses {
                        let forced = score(of(seed), &batch(&sources()[row..=row]), &[closed(hypothesis)]).unwrap();
                        assert_eq!(forced[0].iter().map(|&p| f64::from(p)).sum::<f64>(), hypothesis.log_prob);
                    }
                }
            }
        }
    }
}
