//! Sources that are recordings, and memories that say the target by themselves.

use std::sync::Arc;

use antiphon_core::random::Key;
use antiphon_core::{
    Batch, FrameBatch, Request, Selection, Source, SourceBatch, Special, StepOutput, Target, TokenBatch, TokenId, Want,
};
use antiphon_kernels::{Carry, Term};
use antiphon_model::{Judgement, Model, ModelConfig, Streams, Vocabularies};
use burn::module::Module;
use burn::tensor::Device;

const WIDTH: usize = 3;
const TARGET: usize = 9;

fn config(more: &str) -> ModelConfig {
    let text = format!(
        r#"{{"source": {{"kind": "frames", "dropout": 0.3}}, "target": {{"kind": "embedding", "size": 8}},
            "encoder": {{"kind": "stack", "stages": [{{"kind": "gru", "hidden": 4}}, {{"kind": "time_reduction"}},
                {{"kind": "lstm", "hidden": 5}}]}},
            "decoder": {{"kind": "gru", "hidden": 10, "attention": {{"kind": "additive", "width": 6}}}}{more}}}"#
    );
    serde_json::from_str::<ModelConfig>(&text).unwrap().with_frames(WIDTH)
}

fn model(more: &str, device: &Device) -> Model {
    let vocabularies = Vocabularies { sources: vec![], target: TARGET, shared: false };
    config(more).init(Streams::default(), &vocabularies, Key::from_seed(5), device).unwrap()
}

const CTC: &str = r#", "ctc": {"weight": 0.4}"#;

/// The frames and the labels of a row.
fn row(number: u64, frames: usize, labels: usize) -> (Vec<f32>, Vec<TokenId>) {
    let key = Key::from_seed(3).numbered(number);
    let values = (0..(frames * WIDTH) as u64).map(|i| key.normal(i) as f32).collect();
    let first = Special::COUNT as u64;
    let label = |i: u64| (first + key.named("label").below(i, TARGET as u64 - first)) as TokenId;
    (values, (0..labels as u64).map(label).chain([Special::End.id()]).collect())
}

fn rows() -> Vec<(Vec<f32>, Vec<TokenId>)> {
    [(17, 3), (30, 5), (9, 1), (24, 7)].into_iter().zip(0..).map(|((f, l), i)| row(i, f, l)).collect()
}

fn batch(rows: &[(Vec<f32>, Vec<TokenId>)]) -> Batch {
    let (frames, targets): (Vec<_>, Vec<_>) = rows.iter().cloned().unzip();
    Batch {
        sources: vec![SourceBatch::Frames(FrameBatch::from_rows(&frames, WIDTH))],
        target: Target::whole(&targets),
        continues: Vec::new(),
        examples: (0..rows.len()).collect(),
        copies: None,
    }
}

fn is_near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-4 * (1.0 + a.abs())
}

#[test]
fn rows_beside_a_recording_change_nothing() {
    let model = model(CTC, &Device::flex());
    let judge = |rows: &[_]| model.judge(&batch(rows), &mut Carry::default(), &[1.0]).unwrap();
    let all = judge(&rows());
    let alone: Vec<_> = rows().iter().map(|row| judge(std::slice::from_ref(row))).collect();
    let log_probs: Vec<f32> = alone.iter().flat_map(|one| one.scores[0].log_probs.clone()).collect();
    assert_eq!(log_probs.len(), all.scores[0].log_probs.len());
    let same = log_probs.iter().zip(&all.scores[0].log_probs).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(same, "{log_probs:?}");
    let of = |judged: &Judgement| judged.ctc.clone().expect("a CTC");
    let (sum, all): (f64, _) = (alone.iter().map(|one| of(one).nats).sum(), of(&all));
    assert!(is_near(sum, all.nats), "{sum} {all:?}");
    assert_eq!(alone.iter().flat_map(|one| of(one).lost).collect::<Vec<_>>(), all.lost);
    assert_eq!(all.lost, [false; 4]);
}

#[test]
fn two_losses_share_the_weight_and_each_parameter_hears_of_them() {
    let device = Device::flex().autodiff();
    let (both, lone) = (model(CTC, &device), model("", &device));
    let batch = batch(&rows());
    let terms = |model: &Model, dropout| model.terms(&batch, &mut Carry::default(), dropout).unwrap();
    let [Term::CrossEntropy { weight, .. }] = terms(&lone, None)[..] else { panic!("one loss") };
    assert_eq!(weight, 1.0);
    let two = terms(&both, None);
    let [Term::CrossEntropy { weight: said, .. }, Term::Sum { name, weight, ref loss }] = two[..] else {
        panic!("two losses")
    };
    assert_eq!((said, name, weight), (0.6, "ctc", 0.4));
    let ctc = f64::from(loss.clone().inner().into_data().try_to_vec::<f32>().unwrap()[0]);
    let judged = both.judge(&batch, &mut Carry::default(), &[1.0]).unwrap();
    assert!(is_near(ctc, judged.ctc.unwrap().nats));
    assert!(lone.judge(&batch, &mut Carry::default(), &[1.0]).unwrap().ctc.is_none());
    // Dropout of the frames is drawn under its key.
    let lost = |seed| {
        let Some(Term::Sum { loss, .. }) = terms(&both, Some(Key::from_seed(seed))).pop() else { panic!("a sum") };
        loss.inner().into_data().try_to_vec::<f32>().unwrap()[0]
    };
    assert!(lost(1) == lost(1) && lost(1) != lost(2) && f64::from(lost(1)) != ctc);
    for key in [None, Some(Key::from_seed(3))] {
        let loss = |model: &Model| super::loss(model, &batch, &mut Carry::default(), key, 0.1);
        super::assert_gradient(&both, "two losses", loss);
        let gradients = loss(&both).backward();
        let mut found = super::Collect(&gradients, Vec::new());
        both.visit(&mut found);
        assert!(
            found.1.iter().all(|gradient| gradient.iter().any(|&number| number != 0.0)),
            "a parameter hears nothing"
        );
    }
}

#[test]
fn a_search_hears_what_the_memory_says() {
    let model = model(CTC, &Device::flex());
    let request =
        |(values, _): &(Vec<f32>, _)| Request::new(vec![Source::Frames { values: values.clone(), features: WIDTH }]);
    let rows = rows();
    let requests: Vec<Request> = rows.iter().map(request).collect();
    let mut session = model.for_search().begin(&requests).unwrap();
    let outputs = session.take_ctc();
    assert!(session.take_ctc().is_empty(), "it is handed over once");
    assert_eq!(outputs.iter().map(|output| output.steps()).collect::<Vec<_>>(), [9, 15, 5, 12]);
    for output in &outputs {
        for t in 0..output.steps() {
            let sum: f64 = (0..TARGET as TokenId).map(|id| output.log_prob(t, id).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-5);
        }
    }
    // Two frames are one step, whose one label is all that can be said.
    let (values, _) = row(7, 2, 1);
    let short = batch(&[(values.clone(), vec![5, Special::End.id()])]);
    let loss = model.judge(&short, &mut Carry::default(), &[1.0]).unwrap().ctc.unwrap().nats;
    let mut session = model.for_search().begin(&[request(&(values.clone(), vec![]))]).unwrap();
    assert!(is_near(loss, -session.take_ctc()[0].log_prob(0, 5)));
    // Two labels have no path, which the decoder need not know.
    let lost = batch(&[(values, vec![5, 4, Special::End.id()])]);
    let judged = model.judge(&lost, &mut Carry::default(), &[1.0]).unwrap();
    assert!(judged.lost == [false] && judged.scores[0].log_probs.iter().all(|&log_prob| log_prob < 0.0));
    let ctc = judged.ctc.unwrap();
    assert_eq!((ctc.nats, ctc.lost), (0.0, vec![true]));
    // Step by step the decoder says what it says at once.
    let mut session = model.for_search().begin(&requests[..1]).unwrap();
    let whole = model.scores(&batch(&rows[..1]), &mut Carry::default()).unwrap().log_probs;
    let (mut last, mut out) = (Special::Begin.id(), StepOutput::default());
    for (&label, whole) in rows[0].1.iter().zip(whole) {
        let want = Want { selection: Selection::Given(vec![label]), banned: vec![], masks: vec![], attention: false };
        session.step(&[last], &want, &mut out).unwrap();
        assert!((out.log_probs[0] - whole).abs() < 1e-5);
        last = label;
    }
    let silent = self::model("", &Device::flex());
    assert!(Arc::clone(&silent.for_search()).begin(&requests).unwrap().take_ctc().is_empty());
}

#[test]
fn frames_of_another_kind_or_width_are_refused() {
    let model = model("", &Device::flex());
    let error = |sources: Vec<SourceBatch>| {
        let batch = Batch { sources, ..batch(&rows()[..1]) };
        model.terms(&batch, &mut Carry::default(), None).unwrap_err().to_string()
    };
    let wide = SourceBatch::Frames(FrameBatch::from_rows(&[vec![0.5; 8]], 4));
    assert!(error(vec![wide]).contains("reads frames of 3 numbers, but was given 4"));
    assert!(error(vec![SourceBatch::Tokens(TokenBatch::from_rows(&[[5, 3]]))]).contains("another kind of source"));
    let places = |more: &str| {
        let problems = config(more).problems(Streams::default(), true);
        problems.into_iter().map(|problem| problem.place.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(places(""), [""; 0]);
    assert_eq!(places(r#", "ctc": {"weight": 1.5}"#), ["model.ctc.weight"]);
    assert_eq!(places(r#", "tied": "all""#), ["model.tied"]);
    let unsaid: ModelConfig = serde_json::from_str(r#"{"source": {"kind": "frames"}}"#).unwrap();
    assert_eq!(unsaid.problems(Streams::default(), false)[0].place.to_string(), "model.source.width");
}
