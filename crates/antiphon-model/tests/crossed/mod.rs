//! Every kind of stage with every kind of attention, by one head and by two, with tied outputs and free ones: all of them are held to
//! what must hold of any model. They are as small as can be.

use std::collections::BTreeSet;

use antiphon_kernels::Carry;
use antiphon_model::attention::AttentionConfig;
use antiphon_model::encoder::StageConfig;
use antiphon_model::{EncoderDecoderConfig, Model, ModelConfig, Streams};
use burn::module::Module;
use burn::tensor::Device;
use serde::de::DeserializeOwned;

use super::{
    Case, Scaled, assert_gradient, assert_rows_stand_alone, assert_steps_are_the_whole, batch, loss, model, scores,
    seen_by, with,
};

/// One of each kind, whose memory is four numbers wide over inputs that are.
const STAGES: [&str; 8] = [
    r#"{"kind": "rnn", "hidden": 2}"#,
    r#"{"kind": "lstm", "hidden": 4, "bidirectional": false}"#,
    r#"{"kind": "gru", "hidden": 2}"#,
    r#"{"kind": "convolution", "hidden": 4, "layers": 1}"#,
    r#"{"kind": "convolution_2d", "channels": 2, "activation": "gated"}"#,
    r#"{"kind": "projection", "size": 4, "activation": "tanh"}"#,
    r#"{"kind": "layer_norm"}"#,
    r#"{"kind": "time_reduction", "method": "mean"}"#,
];

/// Kinds of attention that have no heads.
const HEADLESS: &[&str] = &[r#"{"kind": "none"}"#];

/// One of each kind of attention with so many heads, and with whatever else it can hear of.
fn attentions(heads: usize) -> Vec<String> {
    let headless = HEADLESS.iter().filter(|_| heads == 1).map(|&kind| kind.to_owned());
    let with = |kind: &str, more: &str| format!(r#"{{"kind": "{kind}", "heads": {heads}{more}}}"#);
    let penalty = r#", "width": 4, "coverage": true, "coverage_penalty": 0.5"#;
    let kinds = [
        with("dot", ""),
        with("general", ""),
        with("additive", r#", "width": 4"#),
        with("additive", penalty),
        with("location", r#", "width": 4, "filters": 2, "reach": 1"#),
    ];
    headless.chain(kinds).collect()
}

/// The kinds that an enum of configs knows.
fn kinds<T: DeserializeOwned>() -> BTreeSet<String> {
    let Err(error) = serde_json::from_str::<T>(r#"{"kind": "no such kind"}"#) else { panic!("there is no such kind") };
    error.to_string().split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

/// The kinds of these configs.
fn named<'a>(configs: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    configs.into_iter().map(|text| text.split('"').nth(3).unwrap().to_owned()).collect()
}

/// All of them, each alone and with a stream beside its source that is read by a stage of the same kind. Without attention nothing is
/// heard of a source but what comes over the bridge: those are left out of `zero`.
fn every_pair(bridge: &str) -> Vec<[Case; 3]> {
    let mut all = Vec::new();
    for (s, stage) in STAGES.iter().enumerate() {
        for attention in [attentions(1), attentions(2)].concat() {
            for tied in ["none", "output"] {
                let attends = !attention.contains("none");
                if bridge == "zero" && !attends {
                    continue;
                }
                // Decoders and what they are fed take turns.
                let decoder = ["rnn", "lstm", "gru"][all.len() % 3];
                let fed = (all.len() / 2 + s).is_multiple_of(2) && attends;
                let encoder = format!(r#"{{"kind": "stack", "stages": [{stage}]}}"#);
                let table = r#"{"kind": "embedding", "size": 4}"#;
                let of = |memories: &str| -> ModelConfig {
                    let text = format!(
                        r#"{{"source": {table}, "target": {table}, "encoder": {encoder}, "tied": "{tied}",
                            "memories": {{"kind": "{memories}"}}, "bridge": {{"kind": "{bridge}"}},
                            "decoder": {{"kind": "{decoder}", "hidden": 4, "input_feeding": {fed},
                                "attention": {attention}}}}}"#
                    );
                    ModelConfig::EncoderDecoder(serde_json::from_str::<EncoderDecoderConfig>(&text).unwrap())
                };
                let stream = format!(r#"{{"input": {table}, "encoder": {encoder}}}"#);
                let streams = vec![("beside".to_owned(), serde_json::from_str(&stream).unwrap())];
                let several = |memories: &str| Case { config: of(memories), streams: streams.clone() };
                let cases = [Case::from(of("concatenated")), several("concatenated"), several("each")];
                for case in &cases {
                    assert_eq!(case.config.problems(Streams(&case.streams), false), [], "{case:?}");
                }
                all.push(cases);
            }
        }
    }
    all
}

#[test]
fn no_kind_is_left_out() {
    assert_eq!(named(STAGES.into_iter().chain(super::stories::STAGES)), kinds::<StageConfig>());
    assert_eq!(named(attentions(1).iter().map(String::as_str)), kinds::<AttentionConfig>());
    let count = every_pair("linear").len();
    assert!(count >= 8 * (6 + 5) * 2, "only {count} pairs");
}

#[test]
fn each_pair_is_the_same_by_steps_beside_padding_and_in_its_gradients() {
    let batch = batch(&[(5, 3), (2, 4), (1, 0)]);
    for cases in every_pair("linear") {
        // The rows of a stream are of other lengths than those of the source, or have none.
        for case in cases {
            let batch = seen_by(&case, &batch);
            let ready = model(&case, &Device::flex());
            assert_steps_are_the_whole(&case, &ready, &batch);
            assert_rows_stand_alone(&case, &ready, &batch);
            let learns = model(&case, &Device::flex().autodiff());
            let loss = |model: &Model| loss(model, &batch, &mut Carry::default(), None, 0.1);
            assert_gradient(&learns, &format!("{case:?}"), loss);
        }
    }
}

#[test]
fn an_empty_stream_is_nothing_to_each_pair() {
    let batch = batch(&[(5, 3), (1, 0)]);
    for [alone, behind, each] in every_pair("zero") {
        let flex = Device::flex();
        let (alone, behind, each) = (model(&alone, &flex), model(&behind, &flex), model(&each, &flex));
        assert_eq!(scores(&behind, &with(&batch, [&[]])), scores(&alone, &batch), "{behind:?}");
        assert_ne!(scores(&behind, &with(&batch, [&[5, 3]])), scores(&alone, &batch), "{behind:?}");
        // Whatever looks at it.
        let scaled = each.clone().map(&mut Scaled("streams", 3.0, Vec::new()));
        let of = |stream: &[u32]| [&each, &scaled].map(|model| scores(model, &with(&batch, [stream])));
        let [before, after] = of(&[]);
        assert_eq!(before, after, "{each:?}");
        let [before, after] = of(&[4, 3]);
        assert_ne!(before, after, "{each:?}");
    }
}
