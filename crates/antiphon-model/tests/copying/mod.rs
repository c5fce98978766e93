//! Heads that copy words of the sources: held to what must hold of any model, and to what is theirs alone.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{
    Batch, Copies, CopyBatch, Mask, Request, Selection, SourceBatch, Special, StepOutput, TokenId, Want,
};
use antiphon_kernels::Carry;
use antiphon_model::{Model, ModelConfig, Streams};
use burn::tensor::Device;

use super::{
    Case, TARGET, assert_close, assert_gradient, assert_rows_stand_alone, assert_steps_are_the_whole, batch, config,
    free, loss, model, requests, scores, seen_by, settings, streamed,
};

/// What a row of a batch may copy.
pub(super) fn of_row(copies: &CopyBatch, b: usize) -> Copies {
    let says: Vec<Vec<TokenId>> = copies.says.iter().map(|source| source.row(b).to_vec()).collect();
    let most = says.iter().flatten().max().map_or(0, |&id| (id as usize + 1).saturating_sub(TARGET));
    Copies { says, slots: (0..most).map(|slot| format!("slot {slot}")).collect() }
}

/// The same model with a head that copies.
fn copying(case: Case, from: &str) -> Case {
    let mut config = settings(&case.config);
    config.head = serde_json::from_str(&format!(r#"{{"kind": "copy" {from}}}"#)).unwrap();
    let case = Case { config: ModelConfig::EncoderDecoder(config), ..case };
    assert_eq!(case.config.problems(Streams(&case.streams), false), [], "{case:?}");
    case
}

fn cases() -> Vec<Case> {
    let of = |decoder: &str, attention: &str, extra: &str| Case::from(config("gru", decoder, attention, extra));
    let (deep, fed) = ("", r#", "input_feeding": true, "layers": 1"#);
    let general = r#"{"kind": "general"}"#;
    let covered = r#"{"kind": "additive", "width": 7, "coverage": true, "coverage_penalty": 0.4}"#;
    let tied = antiphon_model::EncoderDecoderConfig {
        tied: antiphon_model::Tied::Output,
        ..settings(&config("rnn", "rnn", general, ""))
    };
    let several =
        |memories: &str, attention: &str| streamed(memories, &config("lstm", "gru", attention, deep), "linear");
    vec![
        copying(of("lstm", general, deep), ""),
        copying(of("gru", general, fed), ""),
        copying(of("rnn", covered, deep), ""),
        copying(of("gru", r#"{"kind": "none"}"#, deep), ""),
        copying(Case::from(ModelConfig::EncoderDecoder(tied)), ""),
        copying(several("each", general), ""),
        copying(several("each", covered), r#", "from": ["facts", "source"]"#),
        copying(several("concatenated", r#"{"kind": "general", "heads": 2}"#), r#", "from": ["features"]"#),
    ]
}

/// What is copied in row `b` of a source: some words are known, some are slots of the row (it has `b` of them), some say nothing.
fn says(source: usize, b: usize, ids: &[TokenId]) -> Vec<TokenId> {
    let word = |(i, &id): (usize, &TokenId)| match id {
        3 => 0,
        id => match (id as usize * 7 + i + source) % (6 + b) {
            0 => 0,
            // Known ones, and behind them slots.
            word => (3 + word + if word > 5 { TARGET - 9 } else { 0 }) as TokenId,
        },
    };
    ids.iter().enumerate().map(word).collect()
}

/// The batch as a model reads it that copies: every second label is a word that its row says, if it says any.
fn copied(case: &Case, rows: &[(usize, usize)]) -> Batch {
    let mut batch = seen_by(case, &batch(rows));
    let from = case.config.copies_from(Streams(&case.streams)).unwrap();
    let row = |b: usize| {
        let source = |(s, from): (usize, &bool)| match (&batch.sources[s], from) {
            (SourceBatch::Tokens(tokens), true) => says(s, b, tokens.row(b)),
            _ => vec![],
        };
        from.iter().enumerate().map(source).collect::<Vec<_>>()
    };
    let slots = |says: &[Vec<TokenId>]| {
        let most = says.iter().flatten().max().map_or(0, |&id| (id as usize + 1).saturating_sub(TARGET));
        vec!["a".to_owned(); most]
    };
    let rows: Vec<Copies> = (0..rows.len()).map(row).map(|says| Copies { slots: slots(&says), says }).collect();
    let target = &mut batch.target;
    for (b, copies) in rows.iter().enumerate() {
        let said: Vec<TokenId> = copies.says.iter().flatten().copied().filter(|&id| id != 0).collect();
        for t in (0..target.lengths[b] as usize).step_by(2).filter(|_| !said.is_empty()) {
            // Slots have the greatest ids.
            let greatest = *said.iter().max().expect("a word");
            let label = if t % 4 == 0 { greatest } else { said[(t * 5 + b) % said.len()] };
            target.labels[b * target.width + t] = label;
            if t + 1 < target.lengths[b] as usize {
                let fed = if label as usize >= TARGET { Special::Unknown.id() } else { label };
                target.inputs[b * target.width + t + 1] = fed;
            }
        }
    }
    Batch { copies: Some(CopyBatch::from_rows(&rows.iter().collect::<Vec<_>>())), ..batch }
}

const ROWS: [(usize, usize); 4] = [(5, 4), (2, 7), (0, 3), (9, 5)];

fn slots(batch: &Batch) -> usize {
    batch.copies.as_ref().unwrap().slots
}

/// That the batches of these laws try what they are about.
#[test]
fn words_are_copied_that_are_known_and_that_are_not() {
    let case = &cases()[0];
    let batch = copied(case, &ROWS);
    let is_slot = |id: &&TokenId| **id as usize >= TARGET;
    assert!(slots(&batch) > 0 && batch.target.labels.iter().filter(is_slot).count() > 1, "{batch:?}");
    assert!(batch.copies.as_ref().unwrap().says[0].ids.iter().any(|&id| (4..TARGET as TokenId).contains(&id)));
}

#[test]
fn what_copies_is_the_same_by_steps_and_beside_other_rows_and_sums_to_1() {
    for case in cases() {
        let batch = copied(&case, &ROWS);
        let model = model(&case, &Device::flex());
        let whole = assert_steps_are_the_whole(&case, &model, &batch);
        assert_rows_stand_alone(&case, &model, &batch);
        let said = model.distributions(&batch, &mut Carry::default()).unwrap();
        let all = said.log_probs(0..whole.len());
        let rows = said.targets().iter().zip(all.chunks_exact(TARGET + slots(&batch)));
        assert_close(
            &rows.clone().map(|(&id, row)| row[id as usize]).collect::<Vec<_>>(),
            &whole,
            &format!("{case:?}"),
        );
        for (_, row) in rows {
            let sum: f64 = row.iter().map(|&log_prob| f64::from(log_prob).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{sum} {case:?}");
        }
        // The loss is what the scores say, and what is right is what no other token exceeds.
        let of_loss = loss(&model, &batch, &mut Carry::default(), None, 0.0).into_scalar::<f32>();
        let penalty = if format!("{case:?}").contains("coverage_penalty: 0.4") { f32::INFINITY } else { 0.0 };
        assert!((of_loss + whole.iter().sum::<f32>()).abs() < 1e-3 + penalty, "{of_loss} {case:?}");
        let scores = model.scores(&batch, &mut Carry::default()).unwrap();
        for ((&correct, row), &own) in scores.correct.iter().zip(all.chunks_exact(TARGET + slots(&batch))).zip(&whole) {
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(correct == (own >= best) || (own - best).abs() < 1e-5, "{own} {best}");
        }
    }
}

#[test]
fn gradients_of_what_copies_are_right() {
    for case in cases() {
        let batch = copied(&case, &ROWS);
        let model = model(&case, &Device::flex().autodiff());
        for key in [None, Some(Key::from_seed(3))] {
            let loss = |model: &Model| loss(model, &batch, &mut Carry::default(), key, 0.1);
            assert_gradient(&model, &format!("{key:?} {case:?}"), loss);
        }
    }
}

/// One step from the beginning, of every row.
fn first_step(model: &Model, batch: &Batch, want: &Want) -> StepOutput {
    let mut out = StepOutput::default();
    let mut session = model.for_search().begin(&requests(batch)).unwrap();
    session.step(&vec![Special::Begin.id(); batch.target.rows()], want, &mut out).unwrap();
    out
}

#[test]
fn the_best_of_a_step_are_the_best_of_all_and_slots_are_their_rows_own() {
    for case in cases() {
        let batch = copied(&case, &ROWS);
        let (model, ids) = (model(&case, &Device::flex()), TARGET + slots(&batch));
        let slot = TARGET as TokenId;
        let last = ids as TokenId - 1;
        for masks in [
            vec![],
            vec![
                Mask::Free,
                Mask::Banned(vec![4, slot, last]),
                Mask::Allowed(vec![5, 3]),
                Mask::Allowed(vec![last, slot, 6]),
            ],
            vec![Mask::Allowed(vec![slot]), Mask::Allowed(vec![last]), Mask::Free, Mask::Banned(vec![5, 6, 7])],
        ] {
            for banned in [vec![], vec![0, 2, 7, slot]] {
                let want =
                    |selection| Want { selection, banned: banned.clone(), masks: masks.clone(), attention: false };
                let all = first_step(&model, &batch, &want(Selection::All));
                assert_eq!((all.per_row, all.tokens.len()), (ids, 4 * ids));
                for k in [1, 3, TARGET, 2 * TARGET] {
                    let best = first_step(&model, &batch, &want(Selection::Top(k)));
                    let each = k.min(TARGET);
                    assert_eq!(best.per_row, each);
                    for b in 0..4 {
                        let (mut row, copies) = (all.log_probs[b * ids..][..ids].to_vec(), &batch.copies);
                        let own = of_row(copies.as_ref().unwrap(), b).slots.len() + TARGET;
                        let others = &row[own..];
                        assert!(others.iter().all(|&log_prob| log_prob == f32::NEG_INFINITY), "row {b}: {others:?}");
                        let (tokens, log_probs) =
                            (&best.tokens[b * each..][..each], &best.log_probs[b * each..][..each]);
                        for (&id, &log_prob) in tokens.iter().zip(log_probs) {
                            let known = row[id as usize];
                            assert!(known == log_prob || (known - log_prob).abs() < 1e-4, "{id}: {known} {log_prob}");
                        }
                        row.sort_by(|a, b| b.total_cmp(a));
                        for (best, log_prob) in row.iter().zip(log_probs) {
                            assert!(best == log_prob || (best - log_prob).abs() < 1e-4, "{row:?} {log_probs:?}");
                        }
                    }
                }
                let given: Vec<TokenId> = (0..4).flat_map(|_| [slot, 4, last, 7]).collect();
                let some = first_step(&model, &batch, &want(Selection::Given(given.clone())));
                for (i, (&id, &log_prob)) in given.iter().zip(&some.log_probs).enumerate() {
                    let known = all.log_probs[i / 4 * ids + id as usize];
                    assert!(known == log_prob || (known - log_prob).abs() < 1e-4, "{id}: {known} {log_prob}");
                }
            }
        }
        let beyond = want_given(ids as TokenId);
        let mut session = model.for_search().begin(&requests(&batch)).unwrap();
        assert!(session.step(&[2; 4], &beyond, &mut StepOutput::default()).is_err());
    }
}

fn want_given(id: TokenId) -> Want {
    free(Selection::Given(vec![id; 4]), false)
}

#[test]
fn a_step_of_what_copies_has_its_bits_whatever_stands_beside_it_and_says_the_same_when_asked_again() {
    for case in cases() {
        let batch = copied(&case, &ROWS);
        let ready = model(&case, &Device::flex()).for_search();
        let (all, want) = (requests(&batch), free(Selection::Top(5), false));
        let run = |requests: &[Request], place: usize| {
            let mut session = ready.clone().begin(requests).unwrap();
            let (mut out, mut found) = (StepOutput::default(), Vec::new());
            for t in 0..3 {
                let fed = vec![[2, 5, TARGET as TokenId][t]; requests.len()];
                session.step(&fed, &want, &mut out).unwrap();
                found.extend(out.tokens[place * 5..][..5].iter().copied());
                found.extend(out.log_probs[place * 5..][..5].iter().map(|log_prob| log_prob.to_bits()));
                let mut again = StepOutput::default();
                session.again(&[place as u32], &want, &mut again).unwrap();
                assert_eq!(again.log_probs, out.log_probs[place * 5..][..5], "{case:?}");
                let given = free(Selection::Given(out.tokens[place * 5..][..5].to_vec()), false);
                session.again(&[place as u32], &given, &mut again).unwrap();
                assert_close(&again.log_probs, &out.log_probs[place * 5..][..5], "asked again");
                let rows: Vec<u32> = (0..requests.len() as u32).collect();
                session.select(&rows);
            }
            found
        };
        // A row with slots, so that all may be fed one.
        let alone = run(&all[3..], 0);
        assert_eq!(run(&all, 3), alone, "{case:?}");
        let many: Vec<Request> = (0..70).map(|i| all[[0, 1, 2, 3][i % 4]].clone()).collect();
        assert_eq!(run(&many, 67), alone, "{case:?}");
    }
}

#[test]
fn prefixes_may_hold_what_was_copied() {
    for case in cases() {
        let batch = copied(&case, &ROWS);
        let ready = model(&case, &Device::flex()).for_search();
        let mut all = requests(&batch);
        for (b, request) in all.iter_mut().enumerate() {
            let of_row = &batch.target.labels[b * batch.target.width..][..batch.target.lengths[b] as usize];
            request.prefix = of_row[..of_row.len() / (1 + b % 2)].to_vec();
        }
        let worth = ready.clone().begin(&all).unwrap().take_prefixes();
        for (request, worth) in all.iter().zip(worth) {
            let bare = Request { prefix: vec![], ..request.clone() };
            let mut session = ready.clone().begin(&[bare]).unwrap();
            let (mut fed, mut out, mut log_probs) = (2, StepOutput::default(), Vec::new());
            for &token in &request.prefix {
                session.step(&[fed], &free(Selection::Given(vec![token]), false), &mut out).unwrap();
                log_probs.push(out.log_probs[0]);
                fed = token;
            }
            assert_close(&worth.log_probs, &log_probs, &format!("{case:?}"));
        }
    }
}

/// What a word of vocabulary and source is worth is what it is worth to the vocabulary and, called a slot, to the source.
#[test]
fn a_word_of_vocabulary_and_source_counts_once() {
    let case = &cases()[0];
    let model = model(case, &Device::flex());
    let plain = copied(case, &ROWS[..1]);
    let of = |says: [TokenId; 6]| {
        let slots = vec!["a".to_owned(), "b".to_owned()];
        let copies = CopyBatch::from_rows(&[&Copies { says: vec![says.to_vec()], slots }]);
        let batch = Batch { copies: Some(copies), ..plain.clone() };
        let mut request = requests(&batch).remove(0);
        Arc::make_mut(request.copies.as_mut().unwrap()).slots = vec!["a".to_owned(), "b".to_owned()];
        let (mut out, want) = (StepOutput::default(), free(Selection::All, false));
        model.for_search().begin(&[request]).unwrap().step(&[2], &want, &mut out).unwrap();
        out.log_probs.iter().map(|log_prob| log_prob.exp()).collect::<Vec<f32>>()
    };
    let slot = TARGET as TokenId;
    let (known, called) = (of([6, slot, 6, 5, 6, 0]), of([slot + 1, slot, slot + 1, 5, slot + 1, 0]));
    assert!(called[TARGET + 1] > 0.01 && known[TARGET + 1] == 0.0);
    assert_close(&[known[6]], &[called[6] + called[TARGET + 1]], "a word that both say");
    for id in (0..TARGET + 1).filter(|&id| id != 6) {
        assert_close(&[known[id]], &[called[id]], &format!("token {id}"));
    }
    // Where the sources say nothing, the vocabulary says all.
    let silent = of([0; 6]);
    assert!(silent[TARGET..].iter().all(|&p| p == 0.0));
    assert_close(&[silent[..TARGET].iter().sum()], &[1.0], "all");
}

#[test]
fn what_cannot_be_copied_is_told() {
    let problems = |text: &str, streams: &[(&str, &str)]| {
        let config: ModelConfig = serde_json::from_str(text).unwrap();
        let streams: Vec<_> =
            streams.iter().map(|(name, text)| ((*name).to_owned(), serde_json::from_str(text).unwrap())).collect();
        let found = config.problems(Streams(&streams), false);
        found.into_iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect::<Vec<_>>()
    };
    let told = |text: &str, place: &str, what: &str| {
        let found = problems(text, &[]);
        assert!(found.iter().any(|text| text.starts_with(place) && text.contains(what)), "{text}: {found:?}");
    };
    assert_eq!(problems(r#"{"head": {"kind": "copy"}}"#, &[]), [""; 0]);
    told(r#"{"head": {"kind": "copy"}, "ctc": {}}"#, "model.ctc", "remove it");
    told(r#"{"head": {"kind": "copy", "from": ["fcts"]}}"#, "model.head.from.0", "there is `source`");
    told(r#"{"head": {"kind": "copy", "from": []}}"#, "model.head.from", "name one");
    let reduced = r#"{"kind": "stack", "stages": [{"kind": "gru"}, {"kind": "time_reduction"}]}"#;
    told(&format!(r#"{{"head": {{"kind": "copy"}}, "encoder": {reduced}}}"#), "model.head.from", "makes one of 2");
    let sentences = r#"{"kind": "stack", "stages": [{"kind": "sentences"}]}"#;
    told(&format!(r#"{{"head": {{"kind": "copy"}}, "encoder": {sentences}}}"#), "model.head.from", "one a sentence");
    let frames = r#""source": {"kind": "frames", "width": 3}"#;
    told(&format!(r#"{{"head": {{"kind": "copy", "from": ["source"]}}, {frames}}}"#), "model.head.from", "a recording");
    told(&format!(r#"{{"head": {{"kind": "copy"}}, {frames}}}"#), "model.head.from", "no source of text");
    told(r#"{"kind": "language_model", "head": {"kind": "copy"}}"#, "model.head.kind", "softmax");
}

#[test]
fn what_is_not_told_of_the_sources_is_an_error() {
    let case = &cases()[0];
    let (model, good) = (model(case, &Device::flex()), copied(case, &ROWS));
    let error = |batch: &Batch| model.terms(batch, &mut Carry::default(), None).unwrap_err().to_string();
    assert!(error(&Batch { copies: None, ..good.clone() }).contains("was not told"));
    let mut bad = good.clone();
    bad.target.labels[2 * good.target.width] = TARGET as TokenId;
    assert!(error(&bad).contains("no source says"), "{}", error(&bad));
    bad.target.labels[2 * good.target.width] = (TARGET + slots(&good)) as TokenId;
    assert!(error(&bad).contains("outside the vocabulary"), "{}", error(&bad));
    let bare: Vec<Request> = requests(&good).into_iter().map(|request| Request { copies: None, ..request }).collect();
    assert!(model.for_search().begin(&bare).is_err());
    assert!(model.for_search().copies());
    let _ = scores(&model, &good);
}
