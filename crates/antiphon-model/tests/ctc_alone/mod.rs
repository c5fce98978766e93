//! An encoder that says the target by itself: how probable an answer is, is how probable all of its paths are together.

use antiphon_core::random::Key;
use antiphon_core::{
    Batch, CtcOutput, CtcPrefix, Mask, Request, Selection, Source, SourceBatch, Special, StepOutput, StepSession,
    Target, TokenBatch, TokenId, Want,
};
use antiphon_kernels::{Carry, Term};
use antiphon_model::{Model, ModelConfig, Streams, Vocabularies};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

const SOURCE: usize = 9;
/// The special symbols and two letters.
const TARGET: usize = 6;
const END: TokenId = Special::End.id();

fn configs() -> Vec<ModelConfig> {
    let encoders = [
        r#"{"kind": "gru", "hidden": 4, "dropout": 0.3, "layers": 2}"#,
        r#"{"kind": "lstm", "hidden": 5}, {"kind": "time_reduction"}"#,
        r#"{"kind": "convolution", "hidden": 5, "layers": 1}"#,
    ];
    let config = |encoder: &str| {
        let text = format!(
            r#"{{"kind": "ctc", "source": {{"kind": "embedding", "size": 4, "dropout": 0.2}},
                "encoder": {{"kind": "stack", "stages": [{encoder}]}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    };
    encoders.into_iter().map(config).collect()
}

fn model(config: &ModelConfig, device: &Device) -> Model {
    let vocabularies = Vocabularies { sources: vec![SOURCE], target: TARGET, shared: false };
    config.init(Streams::default(), &vocabularies, Key::from_seed(3), device).unwrap()
}

fn row(name: &str, length: usize, vocabulary: usize) -> Vec<TokenId> {
    let key = Key::from_seed(7).named(name);
    let letter = |i: usize| 4 + key.below(i as u64, vocabulary as u64 - 4) as TokenId;
    (0..length).map(letter).chain([END]).collect()
}

/// Rows of so many letters on either side, and their end symbols.
fn batch(rows: &[(usize, usize)]) -> Batch {
    let rows = rows.iter().enumerate();
    let sources: Vec<_> = rows.clone().map(|(i, r)| row(&format!("s{i}"), r.0, SOURCE)).collect();
    let targets: Vec<_> = rows.map(|(i, r)| row(&format!("t{i}"), r.1, TARGET)).collect();
    Batch {
        sources: vec![SourceBatch::Tokens(TokenBatch::from_rows(&sources))],
        target: Target::whole(&targets),
        continues: Vec::new(),
        examples: (0..targets.len()).collect(),
        copies: None,
    }
}

fn requests(batch: &Batch) -> Vec<Request> {
    let [SourceBatch::Tokens(tokens)] = batch.sources.as_slice() else { panic!("one source of text") };
    (0..batch.target.rows()).map(|b| Request::new(vec![Source::Tokens(tokens.row(b).to_vec())])).collect()
}

fn want(selection: Selection) -> Want {
    Want { selection, banned: Vec::new(), masks: Vec::new(), attention: false }
}

/// What each source says by itself.
fn outputs(model: &Model, batch: &Batch) -> Vec<CtcOutput> {
    model.for_search().begin(&requests(batch)).unwrap().take_ctc()
}

/// The probability of all paths that say a target.
fn of_paths(source: &CtcOutput, target: &[TokenId]) -> f64 {
    let all = (0..TARGET.pow(source.steps() as u32)).map(|mut number| {
        let (mut said, mut last, mut log_prob) = (Vec::new(), source.blank, 0.0);
        for t in 0..source.steps() {
            let token = (number % TARGET) as TokenId;
            number /= TARGET;
            log_prob += source.log_prob(t, token);
            said.extend((token != source.blank && token != last).then_some(token));
            last = token;
        }
        (said, log_prob.exp())
    });
    all.filter(|(said, _)| said == target).map(|(_, probability)| probability).sum()
}

fn is_near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-4 * (1.0 + b.abs())
}

const SHAPES: [(usize, usize); 4] = [(5, 2), (4, 1), (5, 0), (3, 2)];

#[test]
fn an_answer_is_as_probable_as_all_of_its_paths() {
    for config in configs() {
        let (model, batch) = (model(&config, &Device::flex()), batch(&SHAPES));
        let scores = model.scores(&batch, &mut Carry::default()).unwrap().log_probs;
        let (mut at, mut total) = (0, 0.0);
        for (b, output) in outputs(&model, &batch).iter().enumerate() {
            let n = batch.target.lengths[b] as usize;
            let target = &batch.target.labels[b * batch.target.width..][..n - 1];
            let found: f64 = scores[at..at + n].iter().map(|&score| f64::from(score)).sum();
            let expected = of_paths(output, target).ln();
            // No path has two letters in the two steps of the last row if they are one and the same.
            let counted = if expected == f64::NEG_INFINITY { 0.0 } else { expected };
            assert!(is_near(found, counted), "{config:?} row {b}: {found}, not {expected}");
            total += counted;
            at += n;
        }
        let [Term::Sum { name: "ctc", loss, weight: 1.0 }] =
            &model.terms(&batch, &mut Carry::default(), None).unwrap()[..]
        else {
            panic!("one loss")
        };
        let loss = f64::from(loss.clone().into_scalar::<f32>());
        assert!(is_near(loss, -total), "{config:?}: {loss}, not {}", -total);
    }
}

#[test]
fn a_target_without_a_path_counts_nothing() {
    let model = model(&configs()[1], &Device::flex());
    let (lost, kept) = (batch(&[(1, 4)]), batch(&[(5, 2)]));
    for temperatures in [&[1.0][..], &[1.0, 0.5, 3.0]] {
        let judged = model.judge(&lost, &mut Carry::default(), temperatures).unwrap();
        for scores in judged.scores {
            assert_eq!((scores.log_probs, scores.correct), (vec![0.0; 5], vec![false; 5]));
        }
        assert_eq!(judged.lost, [true]);
    }
    let beside = batch(&[(5, 2), (1, 4), (5, 0)]);
    let judged = model.judge(&beside, &mut Carry::default(), &[1.0]).unwrap();
    assert_eq!(judged.lost, [false, true, false]);
    let counted = |places: std::ops::Range<usize>| judged.scores[0].log_probs[places].iter().any(|&said| said < 0.0);
    assert_eq!([counted(0..3), counted(3..8), counted(8..9)], [true, false, true]);
    let said = model.distributions(&beside, &mut Carry::default()).unwrap();
    assert_eq!([0, 1, 2].map(|row| said.is_lost(row)), [false, true, false]);
    let loss = |batch: &Batch| match &model.terms(batch, &mut Carry::default(), None).unwrap()[..] {
        [Term::Sum { loss, .. }] => loss.clone().into_scalar::<f32>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(loss(&lost), 0.0);
    assert!(loss(&kept) > 0.0);
}

#[test]
fn a_whole_sequence_equals_repeated_steps() {
    for config in configs() {
        let (model, batch) = (model(&config, &Device::flex()), batch(&SHAPES[..3]));
        let whole = model.scores(&batch, &mut Carry::default()).unwrap().log_probs;
        let said = model.distributions(&batch, &mut Carry::default()).unwrap();
        let mut session = model.for_search().begin(&requests(&batch)).unwrap();
        let (mut out, mut steps, mut all) = (StepOutput::default(), vec![Vec::new(); 3], vec![Vec::new(); 3]);
        let Target { inputs, labels, lengths, width } = &batch.target;
        for t in 0..*width {
            let column = |ids: &[TokenId]| (0..3).map(|b| ids[b * width + t]).collect::<Vec<_>>();
            session.step(&column(inputs), &want(Selection::Given(column(labels))), &mut out).unwrap();
            let given = out.log_probs.clone();
            session.again(&[0, 1, 2], &want(Selection::All), &mut out).unwrap();
            for b in 0..3 {
                if t < lengths[b] as usize {
                    steps[b].push(given[b]);
                    all[b].extend_from_slice(&out.log_probs[b * TARGET..][..TARGET]);
                }
            }
        }
        assert_eq!(steps.concat(), whole, "{config:?}");
        assert_eq!(all.concat(), said.log_probs(0..whole.len()), "{config:?}");
        assert_eq!(said.log_probs(1..3), all.concat()[TARGET..3 * TARGET]);
        // That is all there is, but for paths that say the end symbol as a label.
        for (b, output) in outputs(&model, &batch).iter().enumerate() {
            let mut behind = CtcPrefix::empty(output);
            for (t, row) in all[b].chunks_exact(TARGET).enumerate() {
                let sum: f64 = row.iter().map(|&log_prob| f64::from(log_prob).exp()).sum();
                let as_label = (behind.with(output, END).log_prob() - behind.log_prob()).exp();
                assert!(is_near(sum + as_label, 1.0), "{config:?}: {sum} {as_label}");
                behind = behind.with(output, labels[b * width + t]);
            }
        }
    }
}

#[test]
fn a_row_is_what_it_is_whatever_stands_beside_it() {
    for config in configs() {
        let (model, together) = (model(&config, &Device::flex()), batch(&SHAPES));
        let all = outputs(&model, &together);
        for (b, request) in requests(&together).into_iter().enumerate() {
            let alone = model.for_search().begin(&[request]).unwrap().take_ctc();
            let near = alone[0].log_probs.iter().zip(&all[b].log_probs).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(near && alone[0].steps() == all[b].steps(), "row {b} of {config:?}");
        }
    }
}

/// A prefix is what is fed, rows go on as they would, masks hold for their row, and the best are the best of all.
#[test]
fn rows_go_on_behind_what_they_said() {
    let letters = |session: &mut Box<dyn StepSession>, last: &[TokenId], want: &Want| {
        let mut out = StepOutput::default();
        session.step(last, want, &mut out).unwrap();
        out
    };
    for config in configs() {
        let model = model(&config, &Device::flex());
        let [plain] = <[_; 1]>::try_from(requests(&batch(&[(6, 2)]))).unwrap();
        let begun = Request { prefix: vec![5, 4], ..plain.clone() };
        let mut session = model.for_search().begin(&[plain.clone(), begun]).unwrap();
        let worth = session.take_prefixes();
        assert!(worth[0].log_probs.is_empty());
        let first = letters(&mut session, &[Special::Begin.id(), 4], &want(Selection::All));
        // Fed step by step.
        let mut fed = model.for_search().begin(&[plain]).unwrap();
        let mut behind = Vec::new();
        for (last, next) in [(Special::Begin.id(), 5), (5, 4)] {
            behind.extend(letters(&mut fed, &[last], &want(Selection::Given(vec![next]))).log_probs);
        }
        assert_eq!(worth[1].log_probs, behind, "{config:?}");
        let all = letters(&mut fed, &[4], &want(Selection::All));
        assert_eq!(all.log_probs, first.log_probs[TARGET..], "{config:?}");

        session.select(&[1, 0, 1]);
        let masks = vec![Mask::Free, Mask::Banned(vec![4]), Mask::Allowed(vec![END])];
        let ask = Want { masks, banned: vec![1], ..want(Selection::Top(3)) };
        let best = letters(&mut session, &[5, 4, 5], &ask);
        let again = Want { masks: Vec::new(), banned: Vec::new(), ..want(Selection::All) };
        let mut whole = StepOutput::default();
        session.again(&[0, 1, 2], &again, &mut whole).unwrap();
        for (b, mask) in ask.masks.iter().enumerate() {
            let row = &whole.log_probs[b * TARGET..][..TARGET];
            let may = |id: &TokenId| mask.allows(*id) && *id != 1;
            let mut expected: Vec<(TokenId, f32)> =
                (0..TARGET as TokenId).filter(may).map(|id| (id, row[id as usize])).collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            let (tokens, log_probs) = (&best.tokens[b * 3..][..3], &best.log_probs[b * 3..][..3]);
            for (i, (token, log_prob)) in tokens.iter().zip(log_probs).enumerate() {
                let wanted = expected.get(i).copied();
                assert!(
                    *log_prob == f32::NEG_INFINITY && wanted.is_none_or(|w| w.1 == *log_prob)
                        || wanted == Some((*token, *log_prob))
                );
            }
        }
    }
}

#[test]
fn every_parameter_receives_a_gradient_and_a_key_its_dropout() {
    struct Missing<'a>(&'a burn::tensor::Gradients, Vec<String>, Vec<String>);
    impl ModuleVisitor for Missing<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            match param.val().grad(self.0) {
                Some(gradient) if gradient.clone().abs().sum().into_scalar::<f32>() > 0.0 => {}
                _ => self.2.push(self.1.join(".")),
            }
        }
        fn enter_module(&mut self, name: &str, _: &str) {
            self.1.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.1.pop();
        }
    }
    let batch = batch(&[(8, 3), (6, 2), (9, 1)]);
    for config in configs() {
        let model = model(&config, &Device::flex().autodiff());
        let loss =
            |key: Option<u64>| match model.terms(&batch, &mut Carry::default(), key.map(Key::from_seed)).unwrap().pop()
            {
                Some(Term::Sum { loss, .. }) => loss,
                other => panic!("{other:?}"),
            };
        let gradients = loss(Some(3)).backward();
        let mut missing = Missing(&gradients, Vec::new(), Vec::new());
        model.visit(&mut missing);
        assert!(missing.2.is_empty(), "{config:?}: {:?}", missing.2);
        let number = |key| loss(key).into_scalar::<f32>();
        assert_eq!(number(Some(3)), number(Some(3)));
        assert_ne!(number(Some(3)), number(None));
    }
}

#[test]
fn what_it_cannot_read_is_an_error() {
    let model = model(&configs()[0], &Device::flex());
    let good = batch(&SHAPES);
    let refused = |batch: &Batch| model.terms(batch, &mut Carry::default(), None).unwrap_err().to_string();
    let none = Batch { sources: Vec::new(), ..good.clone() };
    assert!(refused(&none).contains("reads one source, but was given 0"));
    let mut odd = good.clone();
    odd.target.labels[0] = TARGET as TokenId;
    assert!(refused(&odd).contains("target"));
    assert!(model.for_search().begin(&[Request::new(vec![])]).is_err());
    let vocabularies = Vocabularies { sources: vec![], target: TARGET, shared: false };
    let lacks = configs()[0].init(Streams::default(), &vocabularies, Key::from_seed(3), &Device::flex());
    assert!(lacks.unwrap_err().to_string().contains("reads one source"));
}
