//! What must hold for every combination of parts.

use antiphon_core::random::Key;
use antiphon_core::{Batch, Selection, SourceBatch, Special, StepModel, StepOutput, TokenBatch, TokenId, Want};
use antiphon_kernels::{cross_entropy, token_scores};
use antiphon_model::{EncoderDecoder, ModelConfig, Vocabularies};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

const VOCABULARIES: Vocabularies = Vocabularies { source: 11, target: 9, shared: false };

fn config(encoder: &str, decoder: &str, attention: &str, extra: &str) -> ModelConfig {
    let text = format!(
        r#"{{"source": {{"kind": "embedding", "size": 6}}, "target": {{"kind": "embedding", "size": 8}},
            "encoder": {{"kind": "{encoder}", "hidden": 5, "layers": 2, "dropout": 0.3}},
            "decoder": {{"kind": "{decoder}", "hidden": 10, "layers": 2, "dropout": 0.3, "attention": {attention} {extra}}}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

/// Every cell on both sides, every attention, with and without input feeding.
fn configs() -> Vec<ModelConfig> {
    let mut configs = Vec::new();
    for (encoder, decoder) in [("rnn", "rnn"), ("lstm", "lstm"), ("gru", "gru"), ("gru", "lstm"), ("lstm", "rnn")] {
        for attention in [
            r#"{"kind": "none"}"#,
            r#"{"kind": "dot"}"#,
            r#"{"kind": "general"}"#,
            r#"{"kind": "additive", "width": 7}"#,
        ] {
            configs.push(config(encoder, decoder, attention, ""));
            if !attention.contains("none") {
                configs.push(config(encoder, decoder, attention, r#", "input_feeding": true"#));
            }
        }
    }
    let mut tied = configs[3].clone();
    tied.tied = antiphon_model::Tied::Output;
    let zero = ModelConfig { bridge: serde_json::from_str(r#"{"kind": "zero"}"#).unwrap(), ..configs[3].clone() };
    let one_hot: ModelConfig = serde_json::from_str(
        r#"{"source": {"kind": "one_hot"}, "target": {"kind": "one_hot"}, "bridge": {"kind": "copy"},
            "encoder": {"kind": "lstm", "hidden": 6, "bidirectional": false},
            "decoder": {"kind": "lstm", "hidden": 6, "attention": {"kind": "none"}}}"#,
    )
    .unwrap();
    configs.extend([tied, zero, one_hot]);
    configs
}

fn model(config: &ModelConfig, device: &Device) -> EncoderDecoder {
    config.init(VOCABULARIES, Key::from_seed(5), device).unwrap()
}

fn row(name: &str, length: usize, vocabulary: u64) -> Vec<TokenId> {
    let key = Key::from_seed(8).named(name);
    let first = Special::COUNT as u64;
    let mut ids: Vec<TokenId> =
        (0..length as u64).map(|i| (first + key.below(i, vocabulary - first)) as TokenId).collect();
    ids.push(Special::End.id());
    ids
}

fn batch(rows: &[(usize, usize)]) -> Batch {
    let sources: Vec<_> = rows.iter().enumerate().map(|(i, r)| row(&format!("s{i}"), r.0, 11)).collect();
    let targets: Vec<_> = rows.iter().enumerate().map(|(i, r)| row(&format!("t{i}"), r.1, 9)).collect();
    Batch {
        source: SourceBatch::Tokens(TokenBatch::from_rows(&sources)),
        target: TokenBatch::from_rows(&targets),
        examples: (0..rows.len()).collect(),
    }
}

fn scores(model: &EncoderDecoder, batch: &Batch) -> Vec<f32> {
    token_scores(model.projection(batch, None).unwrap()).log_probs
}

fn assert_close(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() < 1e-5, "{what}: number {i}: {x} is not {y}");
    }
}

#[test]
fn a_whole_sequence_equals_repeated_steps() {
    let batch = batch(&[(5, 4), (2, 6), (1, 0)]);
    for config in configs() {
        let model = model(&config, &Device::flex());
        let whole = scores(&model, &batch);
        let ready = model.for_search();
        let mut session = ready.begin(&batch.source).unwrap();
        let (mut out, mut steps) = (StepOutput::default(), vec![Vec::new(); 3]);
        for t in 0..batch.target.width {
            let last = batch.target.shifted_right();
            let column = |ids: &TokenBatch| (0..3).map(|b| ids.ids[b * ids.width + t]).collect::<Vec<_>>();
            let want = Want { selection: Selection::Given(column(&batch.target)), banned: vec![], attention: false };
            session.step(&column(&last), &want, &mut out).unwrap();
            for (b, row) in steps.iter_mut().enumerate() {
                if t < batch.target.lengths[b] as usize {
                    row.push(out.log_probs[b]);
                }
            }
        }
        assert_close(&steps.concat(), &whole, &format!("{config:?}"));
    }
}

#[test]
fn padding_and_other_rows_change_nothing() {
    let shapes = [(5, 4), (2, 7), (1, 1), (9, 2)];
    let together = batch(&shapes);
    for config in configs() {
        let model = model(&config, &Device::flex());
        let all = scores(&model, &together);
        let mut at = 0;
        for b in 0..shapes.len() {
            let SourceBatch::Tokens(source) = &together.source else { unreachable!() };
            let alone = Batch {
                source: SourceBatch::Tokens(TokenBatch::from_rows(&[source.row(b)])),
                target: TokenBatch::from_rows(&[together.target.row(b)]),
                examples: vec![b],
            };
            let n = together.target.lengths[b] as usize;
            assert_close(&scores(&model, &alone), &all[at..at + n], &format!("row {b} of {config:?}"));
            at += n;
        }
    }
}

#[test]
fn probabilities_sum_to_one_and_selected_rows_go_on_as_they_would() {
    let batch = batch(&[(5, 4), (2, 6), (3, 2)]);
    for config in configs() {
        let model = model(&config, &Device::flex());
        let want = Want { selection: Selection::All, banned: vec![], attention: true };
        let step = |session: &mut dyn antiphon_core::StepSession, last: &[TokenId]| {
            let mut out = StepOutput::default();
            session.step(last, &want, &mut out).unwrap();
            for row in out.log_probs.chunks_exact(9) {
                assert!((row.iter().map(|l| l.exp()).sum::<f32>() - 1.0).abs() < 1e-5);
            }
            if !out.attention.is_empty() {
                for row in out.attention.chunks_exact(out.attention.len() / last.len()) {
                    assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                }
            }
            out
        };
        let ready = model.for_search();
        let mut plain = ready.begin(&batch.source).unwrap();
        step(&mut *plain, &[2, 2, 2]);
        let after = step(&mut *plain, &[5, 6, 7]);
        let mut moved = ready.begin(&batch.source).unwrap();
        moved.select(&[2, 2, 0]);
        step(&mut *moved, &[2, 2, 2]);
        moved.select(&[2, 0]);
        assert_eq!(moved.rows(), 2);
        let selected = step(&mut *moved, &[5, 7]);
        assert_close(&selected.log_probs[..9], &after.log_probs[..9], "row 0");
        assert_close(&selected.log_probs[9..], &after.log_probs[18..], "row 2");
    }
}

#[test]
fn every_parameter_receives_a_gradient() {
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
    let batch = batch(&[(5, 4), (2, 6), (6, 3)]);
    for config in configs() {
        let model = model(&config, &Device::flex().autodiff());
        let loss = cross_entropy(model.projection(&batch, Some(Key::from_seed(3))).unwrap(), 0.1);
        let gradients = loss.backward();
        let mut missing = Missing(&gradients, Vec::new(), Vec::new());
        model.visit(&mut missing);
        assert!(missing.2.is_empty(), "{config:?}: {:?}", missing.2);
    }
}

#[test]
fn a_key_fixes_the_parameters_and_the_dropout() {
    let (batch, config) = (batch(&[(5, 4), (2, 6)]), config("lstm", "lstm", r#"{"kind": "general"}"#, ""));
    let device = Device::flex();
    let loss = |key| cross_entropy(model(&config, &device).projection(&batch, key).unwrap(), 0.0).into_scalar::<f32>();
    let key = |n| Some(Key::from_seed(1).numbered(n));
    assert_eq!(loss(None), loss(None));
    assert_eq!(loss(key(1)), loss(key(1)));
    assert_ne!(loss(key(1)), loss(key(2)));
    assert_ne!(loss(key(1)), loss(None));
}

#[test]
fn what_cannot_work_is_told_at_its_key() {
    let places = |config: &ModelConfig| config.problems(true).into_iter().map(|p| p.place).collect::<Vec<_>>();
    let mut wrong = config("lstm", "gru", r#"{"kind": "dot"}"#, "");
    wrong.bridge = serde_json::from_str(r#"{"kind": "copy"}"#).unwrap();
    assert_eq!(places(&wrong), ["bridge.kind"]);
    let fed = config("lstm", "gru", r#"{"kind": "none"}"#, r#", "input_feeding": true"#);
    assert_eq!(places(&fed), ["decoder.input_feeding"]);
    let mut narrow = config("lstm", "gru", r#"{"kind": "none"}"#, "");
    narrow.tied = antiphon_model::Tied::Output;
    assert_eq!(places(&narrow), ["tied"]);
    let all = ModelConfig { tied: antiphon_model::Tied::All, ..config("lstm", "gru", r#"{"kind": "general"}"#, "") };
    assert_eq!(places(&all), ["tied"]);
    let error =
        ModelConfig { source: all.target.clone(), ..all }.init(VOCABULARIES, Key::from_seed(1), &Device::flex());
    assert!(error.unwrap_err().to_string().contains("model.tied: `all` needs one vocabulary"));
}

#[test]
fn ids_outside_the_vocabulary_are_an_error() {
    let model = model(&configs()[3], &Device::flex());
    let mut bad = batch(&[(2, 2)]);
    let SourceBatch::Tokens(tokens) = &mut bad.source else { unreachable!() };
    tokens.ids[0] = 11;
    assert!(model.projection(&bad, None).unwrap_err().to_string().contains("the source id 11"));
    assert!(model.projection(&Batch { source: SourceBatch::None { rows: 1 }, ..bad }, None).is_err());
}
