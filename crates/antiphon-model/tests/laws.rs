//! What must hold for every combination of parts.

use antiphon_core::random::Key;
use antiphon_core::{Batch, CopyBatch, FrameBatch, Mask, Request, Selection, Source, SourceBatch, Special, StepOutput};
use antiphon_core::{StepSession, Target, TokenBatch, TokenId, Want};
use antiphon_kernels::{Carry, Term, copied_cross_entropy, cross_entropy};
use antiphon_model::{EncoderDecoderConfig, Model, ModelConfig, StreamModelConfig, Streams, Vocabularies};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

mod copying;
mod crossed;
mod ctc_alone;
mod frames;
mod stories;

const SOURCE: usize = 11;
const TARGET: usize = 9;
/// Of the streams beside the source.
const STREAMS: [usize; 2] = [7, 10];

/// A model's settings, with those of its streams.
#[derive(Debug, Clone)]
struct Case {
    config: ModelConfig,
    streams: Vec<(String, StreamModelConfig)>,
}

impl From<ModelConfig> for Case {
    fn from(config: ModelConfig) -> Self {
        Self { config, streams: Vec::new() }
    }
}

impl std::ops::Deref for Case {
    type Target = ModelConfig;

    fn deref(&self) -> &ModelConfig {
        &self.config
    }
}

/// An encoder–decoder's settings.
fn settings(config: &ModelConfig) -> EncoderDecoderConfig {
    match config {
        ModelConfig::EncoderDecoder(config) => config.clone(),
        ModelConfig::Ctc(_) | ModelConfig::LanguageModel(_) => panic!("no encoder–decoder"),
    }
}

fn config(encoder: &str, decoder: &str, attention: &str, extra: &str) -> ModelConfig {
    let layers = if extra.contains("layers") { "" } else { r#""layers": 2,"# };
    let text = format!(
        r#"{{"source": {{"kind": "embedding", "size": 6}}, "target": {{"kind": "embedding", "size": 8}},
            "encoder": {{"kind": "{encoder}", "hidden": 5, "layers": 2, "dropout": 0.3}},
            "decoder": {{"kind": "{decoder}", "hidden": 10, {layers} "dropout": 0.3, "attention": {attention} {extra}}}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

/// Encoders that are not one recurrent kind.
fn stacks() -> Vec<&'static str> {
    vec![
        r#"{"kind": "stack", "stages": [{"kind": "gru", "hidden": 4, "bidirectional": false, "dropout": 0.3},
            {"kind": "lstm", "hidden": 5, "layers": 2, "dropout": 0.3}]}"#,
        r#"{"kind": "stack", "stages": [{"kind": "rnn", "hidden": 5}]}"#,
        r#"{"kind": "gru", "hidden": 4, "layers": 3, "residual": true, "dropout": 0.3}"#,
        r#"{"kind": "convolution", "hidden": 6, "layers": 2, "dropout": 0.3}"#,
        r#"{"kind": "convolution", "hidden": 5, "layers": 1, "width": 4, "stride": 3, "positions": "none"}"#,
        r#"{"kind": "stack", "stages": [{"kind": "convolution", "hidden": 7, "width": 5, "stride": 2, "dropout": 0.3,
            "locked_dropout": true}, {"kind": "lstm", "hidden": 5, "layers": 2, "residual": true}]}"#,
        r#"{"kind": "stack", "stages": [{"kind": "projection", "size": 7, "activation": "tanh", "dropout": 0.3},
            {"kind": "layer_norm"}, {"kind": "gru", "hidden": 4}, {"kind": "time_reduction"}]}"#,
        r#"{"kind": "stack", "stages": [{"kind": "time_reduction", "factor": 3, "method": "mean"},
            {"kind": "convolution", "hidden": 6, "layers": 2, "width": 2}, {"kind": "layer_norm"}]}"#,
        r#"{"kind": "stack", "stages": [{"kind": "lstm", "hidden": 5}, {"kind": "time_reduction", "method": "skip"},
            {"kind": "projection", "size": 6, "activation": "relu"}]}"#,
        r#"{"kind": "stack", "stages": [{"kind": "convolution_2d", "channels": 3, "kernel": [3, 2], "stride": [2, 1], "dropout": 0.2},
            {"kind": "layer_norm"}, {"kind": "convolution_2d", "channels": 2, "stride": [1, 2], "activation": "gated"}]}"#,
    ]
}

/// Every cell on both sides, every attention, with and without input feeding; stacks; language models; several heads, coverage and
/// several sources.
fn configs() -> Vec<Case> {
    let plain = single_sources().into_iter().map(Case::from);
    plain.chain(attentive()).chain(crossed()).chain(sharpened()).collect()
}

fn single_sources() -> Vec<ModelConfig> {
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
                configs.push(config(encoder, decoder, attention, r#", "input_feeding": true, "layers": 1"#));
            }
        }
    }
    let plain = settings(&config("rnn", "rnn", r#"{"kind": "general"}"#, ""));
    let tied = EncoderDecoderConfig { tied: antiphon_model::Tied::Output, ..plain.clone() };
    let zero = EncoderDecoderConfig { bridge: serde_json::from_str(r#"{"kind": "zero"}"#).unwrap(), ..plain.clone() };
    let one_hot: EncoderDecoderConfig = serde_json::from_str(
        r#"{"source": {"kind": "one_hot"}, "target": {"kind": "one_hot"}, "bridge": {"kind": "copy"},
            "encoder": {"kind": "lstm", "hidden": 6, "bidirectional": false},
            "decoder": {"kind": "lstm", "hidden": 6, "attention": {"kind": "none"}}}"#,
    )
    .unwrap();
    let convolved: EncoderDecoderConfig = serde_json::from_str(
        r#"{"source": {"kind": "one_hot"}, "encoder": {"kind": "convolution", "hidden": 6, "layers": 1},
            "decoder": {"kind": "gru", "hidden": 6, "attention": {"kind": "dot"}}, "bridge": {"kind": "copy"}}"#,
    )
    .unwrap();
    let of_stack = |text: &str| EncoderDecoderConfig { encoder: serde_json::from_str(text).unwrap(), ..plain.clone() };
    let all = [tied, zero, one_hot, convolved].into_iter().chain(stacks().into_iter().map(of_stack));
    configs.extend(all.map(ModelConfig::EncoderDecoder));
    configs.extend(language_models());
    configs.extend(regularised());
    configs
}

/// Heads, and what hears of the looks before, over one memory and over several.
fn attentive() -> Vec<Case> {
    let of = |decoder: &str, attention: &str, extra: &str| Case::from(config("gru", decoder, attention, extra));
    let (deep, fed, single) = ("", r#", "input_feeding": true"#, r#", "input_feeding": true, "layers": 1"#);
    let dot = r#"{"kind": "dot", "heads": 2}"#;
    let general = r#"{"kind": "general", "heads": 5}"#;
    let additive = r#"{"kind": "additive", "width": 8, "heads": 2}"#;
    let covered = r#"{"kind": "additive", "width": 7, "coverage": true}"#;
    let all = r#"{"kind": "additive", "width": 6, "heads": 2, "coverage": true, "coverage_penalty": 0.7}"#;
    let located = r#"{"kind": "location", "width": 7, "filters": 3, "reach": 2}"#;
    let wide = r#"{"kind": "location", "width": 6, "filters": 2, "reach": 9, "heads": 2, "sharpening": 1.5}"#;
    let mut cases = vec![
        of("lstm", dot, deep),
        of("gru", dot, single),
        of("rnn", general, deep),
        of("lstm", general, fed),
        of("gru", additive, deep),
        of("lstm", additive, single),
        of("lstm", covered, deep),
        of("gru", covered, single),
        of("rnn", all, deep),
        of("lstm", all, fed),
        of("gru", located, deep),
        of("lstm", located, single),
        of("lstm", wide, deep),
        of("rnn", wide, fed),
        of("rnn", r#"{"kind": "additive", "width": 8, "sharpening": 2.5}"#, single),
        of("gru", r#"{"kind": "general", "heads": 2, "sharpening": 0.5}"#, deep),
    ];
    for (memories, attention, extra, bridge) in [
        ("concatenated", r#"{"kind": "dot"}"#, deep, "linear"),
        ("concatenated", r#"{"kind": "general"}"#, single, "linear"),
        ("concatenated", r#"{"kind": "none"}"#, deep, "linear"),
        ("concatenated", additive, fed, "zero"),
        ("concatenated", all, single, "linear"),
        ("each", r#"{"kind": "general"}"#, deep, "zero"),
        ("each", r#"{"kind": "additive", "width": 7}"#, single, "linear"),
        ("each", r#"{"kind": "general", "heads": 2}"#, fed, "linear"),
        ("each", covered, deep, "linear"),
        ("each", located, deep, "linear"),
        ("concatenated", wide, single, "zero"),
        ("each", all, single, "linear"),
    ] {
        cases.push(streamed(memories, &config("lstm", "gru", attention, extra), bridge));
    }
    cases
}

/// What is sharpened where one operation decodes.
fn sharpened() -> Vec<Case> {
    let fed = r#", "input_feeding": true, "layers": 1"#;
    let of = |decoder: &str, attention: &str| Case::from(config("gru", decoder, attention, fed));
    vec![of("lstm", r#"{"kind": "general", "sharpening": 2.5}"#), of("rnn", r#"{"kind": "dot", "sharpening": 2.5}"#)]
}

/// Each stack with two of the ways to look and to decode, so that each of these meets memories that are shorter than their sources.
fn crossed() -> Vec<Case> {
    let (deep, fed, single) = ("", r#", "input_feeding": true"#, r#", "input_feeding": true, "layers": 1"#);
    let ways = [
        (r#"{"kind": "additive", "width": 6, "heads": 2, "coverage": true, "coverage_penalty": 0.7}"#, deep),
        (r#"{"kind": "general"}"#, single),
        (r#"{"kind": "additive", "width": 7, "coverage": true}"#, fed),
        (r#"{"kind": "general", "heads": 2}"#, deep),
        (r#"{"kind": "additive", "width": 7}"#, single),
        (r#"{"kind": "location", "width": 7, "filters": 2, "reach": 3}"#, deep),
    ];
    let mut cases = Vec::new();
    for (i, stack) in stacks().into_iter().enumerate() {
        let of = |way: usize| {
            let (attention, extra) = ways[way % ways.len()];
            let plain = settings(&config("rnn", ["lstm", "gru", "rnn"][i % 3], attention, extra));
            ModelConfig::EncoderDecoder(EncoderDecoderConfig { encoder: serde_json::from_str(stack).unwrap(), ..plain })
        };
        // Heads need a memory that can be parted.
        let fits = |config: &ModelConfig| config.problems(Streams::default(), false).is_empty();
        let found: Vec<ModelConfig> = (0..ways.len()).map(|k| of(i + k)).filter(fits).take(2).collect();
        assert_eq!(found.len(), 2, "{stack}");
        cases.extend(found.into_iter().map(Case::from));
        let several = streamed("each", &of(i + 1), "linear");
        cases.extend((i % 3 == 0).then_some(several));
    }
    cases
}

/// A model of one source, and two streams beside it.
fn streamed(memories: &str, config: &ModelConfig, bridge: &str) -> Case {
    let kind = |kind: &str| format!(r#"{{"kind": "{kind}"}}"#);
    let config = ModelConfig::EncoderDecoder(EncoderDecoderConfig {
        memories: serde_json::from_str(&kind(memories)).unwrap(),
        bridge: serde_json::from_str(&kind(bridge)).unwrap(),
        ..settings(config)
    });
    // Of the source's width only where they must be.
    let (first, second) = match memories {
        "each" => {
            (r#"{"kind": "rnn", "hidden": 4, "bidirectional": false}"#, r#"{"kind": "lstm", "hidden": 3, "layers": 2}"#)
        }
        _ => (r#"{"kind": "rnn", "hidden": 10, "bidirectional": false, "layers": 3}"#, stacks()[0]),
    };
    let stream = |name: &str, input: &str, encoder: &str| {
        let text = format!(r#"{{"input": {input}, "encoder": {encoder}}}"#);
        (name.to_owned(), serde_json::from_str(&text).unwrap())
    };
    let table = r#"{"kind": "embedding", "size": 5, "dropout": 0.2}"#;
    Case { config, streams: vec![stream("features", table, first), stream("facts", &kind("one_hot"), second)] }
}

/// Layers of unlike width, projections, and everything by which training is held back.
fn regularised() -> Vec<ModelConfig> {
    let of = |text: &str| serde_json::from_str(text).unwrap();
    let both = |encoder: &str, decoder: &str, more: &str| {
        of(&format!(
            r#"{{"source": {{"kind": "embedding", "size": 6, "dropout": 0.2, "locked_dropout": true, "word_dropout": 0.2}},
                "target": {{"kind": "embedding", "size": 8, "word_dropout": 0.2}},
                "encoder": {{"kind": "{encoder}", "hidden": 5, "layers": 2, "dropout": 0.3, "locked_dropout": true,
                    "weight_drop": 0.4}},
                "decoder": {{"kind": "{decoder}", "dropout": 0.2, "locked_dropout": true, "output_dropout": 0.3,
                    "weight_drop": 0.4, "activation_penalty": 2.0, "temporal_penalty": 1.0, {more}}}}}"#
        ))
    };
    let mut all: Vec<ModelConfig> = [("rnn", "lstm"), ("lstm", "gru"), ("gru", "rnn")]
        .into_iter()
        .flat_map(|(encoder, decoder)| {
            [
                r#""layers": 3, "widths": [4, 9, 7], "attention": {"kind": "additive", "width": 5}"#,
                r#""layers": 2, "widths": [9, 6], "input_feeding": true, "projection": 5"#,
                r#""hidden": 6, "input_feeding": true"#,
                r#""layers": 2, "widths": [3, 6], "attention": {"kind": "none"}, "projection": 5"#,
            ]
            .map(|more| both(encoder, decoder, more))
        })
        .collect();
    // As AWD-LSTM is, and with a projection that makes unlike widths fit.
    let text = |tied: usize, decoder: &str| {
        of(&format!(
            r#"{{"kind": "language_model", "tied": "output",
                "target": {{"kind": "embedding", "size": {tied}, "dropout": 0.4, "locked_dropout": true, "word_dropout": 0.1}},
                "decoder": {{"dropout": 0.25, "output_dropout": 0.4, "locked_dropout": true, "weight_drop": 0.5,
                    "activation_penalty": 2.0, "temporal_penalty": 1.0, {decoder}}}}}"#
        ))
    };
    for kind in ["rnn", "lstm", "gru"] {
        all.push(text(4, &format!(r#""kind": "{kind}", "layers": 3, "widths": [6, 9, 4]"#)));
        all.push(text(7, &format!(r#""kind": "{kind}", "hidden": 5, "projection": 7"#)));
    }
    all
}

fn language_models() -> impl Iterator<Item = ModelConfig> {
    let of = |text: String| serde_json::from_str(&text).unwrap();
    let kinds = ["rnn", "lstm", "gru"].map(|kind| {
        of(format!(
            r#"{{"kind": "language_model", "target": {{"kind": "embedding", "size": 8}},
                "decoder": {{"kind": "{kind}", "hidden": 6, "layers": 2, "dropout": 0.3}}}}"#
        ))
    });
    let tied = r#"{"kind": "language_model", "tied": "output", "target": {"kind": "embedding", "size": 7},
                   "decoder": {"kind": "gru", "hidden": 7}}"#;
    let one_hot =
        r#"{"kind": "language_model", "target": {"kind": "one_hot"}, "decoder": {"kind": "lstm", "hidden": 5}}"#;
    kinds.into_iter().chain([of(tied.into()), of(one_hot.into())])
}

fn model<C: Clone + Into<Case>>(case: &C, device: &Device) -> Model {
    let Case { config, streams } = case.clone().into();
    let sources = if config.has_source() { [&[SOURCE], &STREAMS[..streams.len()]].concat() } else { vec![] };
    model_of(&Case { config, streams }, &sources, device)
}

/// A model of sources with these vocabularies.
fn model_of(Case { config, streams }: &Case, sources: &[usize], device: &Device) -> Model {
    let vocabularies = Vocabularies { sources: sources.to_vec(), target: TARGET, shared: false };
    config.init(Streams(streams), &vocabularies, Key::from_seed(5), device).unwrap()
}

fn row(name: &str, length: usize, vocabulary: u64) -> Vec<TokenId> {
    let key = Key::from_seed(8).named(name);
    let first = Special::COUNT as u64;
    let mut ids: Vec<TokenId> =
        (0..length as u64).map(|i| (first + key.below(i, vocabulary - first)) as TokenId).collect();
    ids.push(Special::End.id());
    ids
}

/// Sources and targets of these lengths, for models that read sources.
fn batch(rows: &[(usize, usize)]) -> Batch {
    let rows = rows.iter().enumerate();
    let sources: Vec<_> = rows.clone().map(|(i, r)| row(&format!("s{i}"), r.0, SOURCE as u64)).collect();
    let targets: Vec<_> = rows.map(|(i, r)| row(&format!("t{i}"), r.1, TARGET as u64)).collect();
    Batch {
        sources: vec![SourceBatch::Tokens(TokenBatch::from_rows(&sources))],
        target: Target::whole(&targets),
        continues: Vec::new(),
        examples: (0..targets.len()).collect(),
        copies: None,
    }
}

/// What stands in a stream beside row `b` of the source: text of other lengths, now and then none at all.
fn beside(stream: usize, b: usize) -> Vec<TokenId> {
    match (stream + b) % 4 {
        1 => vec![],
        other => row(&format!("{stream} {b}"), other + stream * b, STREAMS[stream] as u64),
    }
}

/// The batch as a model of these settings reads it.
fn seen_by<C: Clone + Into<Case>>(case: &C, batch: &Batch) -> Batch {
    let Case { config, streams } = case.clone().into();
    let mut sources = if config.has_source() { batch.sources.clone() } else { vec![] };
    let stream = |stream: usize| {
        let rows: Vec<_> = (0..batch.target.rows()).map(|b| beside(stream, b)).collect();
        SourceBatch::Tokens(TokenBatch::from_rows(&rows))
    };
    sources.extend((0..streams.len()).map(stream));
    Batch { sources, ..batch.clone() }
}

/// One request for each row of a batch.
fn requests(batch: &Batch) -> Vec<Request> {
    let source = |source: &SourceBatch, b: usize| match source {
        SourceBatch::Tokens(tokens) => Source::Tokens(tokens.row(b).to_vec()),
        SourceBatch::Frames(_) => unreachable!("sources are text"),
    };
    let sources = |b: usize| batch.sources.iter().map(|of| source(of, b)).collect();
    let copies = |b: usize| batch.copies.as_ref().map(|copies| copying::of_row(copies, b).into());
    (0..batch.target.rows()).map(|b| Request { copies: copies(b), ..Request::new(sources(b)) }).collect()
}

fn scores(model: &Model, batch: &Batch) -> Vec<f32> {
    model.scores(batch, &mut Carry::default()).unwrap().log_probs
}

/// The summed loss of a batch, penalties included, on the graph of its model.
fn loss(model: &Model, batch: &Batch, carry: &mut Carry, dropout: Option<Key>, smoothing: f32) -> Tensor<1> {
    let mut terms = model.terms(batch, carry, dropout).unwrap().into_iter();
    let own = match terms.next() {
        Some(Term::CrossEntropy { projection, weight }) => cross_entropy(projection, smoothing) * weight,
        Some(Term::Copied { projection, own, beside, weight }) => {
            copied_cross_entropy(projection, own, beside, smoothing) * weight
        }
        other => panic!("the head's term comes first: {other:?}"),
    };
    terms.fold(own, |sum, term| match term {
        Term::Sum { loss, weight, .. } => sum + loss * weight,
        other => panic!("a penalty: {other:?}"),
    })
}

/// What every step may choose.
fn free(selection: Selection, attention: bool) -> Want {
    Want { selection, banned: vec![], masks: vec![], attention }
}

fn assert_close(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!((x - y).abs() < 1e-5, "{what}: number {i}: {x} is not {y}");
    }
}

/// → what a whole sequence says of its tokens, which its steps say too.
fn assert_steps_are_the_whole(config: &Case, model: &Model, batch: &Batch) -> Vec<f32> {
    let whole = scores(model, batch);
    let mut session = model.for_search().begin(&requests(batch)).unwrap();
    let Target { inputs, labels, lengths, width } = &batch.target;
    let (mut out, mut steps) = (StepOutput::default(), vec![Vec::new(); lengths.len()]);
    for t in 0..*width {
        let column = |ids: &[TokenId]| (0..lengths.len()).map(|b| ids[b * width + t]).collect::<Vec<_>>();
        session.step(&column(inputs), &free(Selection::Given(column(labels)), false), &mut out).unwrap();
        for (b, row) in steps.iter_mut().enumerate() {
            if t < lengths[b] as usize {
                row.push(out.log_probs[b]);
            }
        }
    }
    assert_close(&steps.concat(), &whole, &format!("{config:?}"));
    whole
}

#[test]
fn a_whole_sequence_equals_repeated_steps() {
    let batch = batch(&[(5, 4), (2, 6), (1, 0)]);
    for config in configs() {
        let (model, batch) = (model(&config, &Device::flex()), seen_by(&config, &batch));
        let whole = assert_steps_are_the_whole(&config, &model, &batch);
        // And what is said of all tokens.
        let said = model.distributions(&batch, &mut Carry::default()).unwrap();
        let all = said.log_probs(0..whole.len());
        let rows = said.targets().iter().zip(all.chunks_exact(TARGET));
        assert_close(&rows.map(|(&id, row)| row[id as usize]).collect::<Vec<_>>(), &whole, &format!("{config:?}"));
        assert_eq!(said.log_probs(1..3), all[TARGET..3 * TARGET]);
    }
}

/// Each row of a batch says by itself what it says beside the others, padded as these need it.
fn assert_rows_stand_alone(config: &Case, model: &Model, together: &Batch) {
    let all = scores(model, together);
    let mut at = 0;
    for b in 0..together.target.rows() {
        let n = together.target.lengths[b] as usize;
        let of_row = |ids: &[TokenId]| ids[b * together.target.width..][..n].to_vec();
        let target = Target {
            inputs: of_row(&together.target.inputs),
            labels: of_row(&together.target.labels),
            lengths: vec![n as u32],
            width: n,
        };
        let copies = together.copies.as_ref().map(|copies| CopyBatch::from_rows(&[&copying::of_row(copies, b)]));
        let sources = together.sources.iter().map(|source| match source {
            SourceBatch::Tokens(tokens) => SourceBatch::Tokens(TokenBatch::from_rows(&[tokens.row(b)])),
            SourceBatch::Frames(_) => unreachable!("sources are text"),
        });
        let alone = Batch { sources: sources.collect(), target, continues: vec![], examples: vec![b], copies };
        assert_close(&scores(model, &alone), &all[at..at + n], &format!("row {b} of {config:?}"));
        at += n;
    }
}

#[test]
fn padding_and_other_rows_change_nothing() {
    let batch = batch(&[(5, 4), (2, 7), (1, 1), (9, 2)]);
    for config in configs() {
        let model = model(&config, &Device::flex());
        assert_rows_stand_alone(&config, &model, &seen_by(&config, &batch));
    }
}

#[test]
fn a_memory_has_as_many_steps_as_its_settings_say() {
    let batch = batch(&[(6, 4), (2, 6)]);
    for config in single_sources().into_iter().filter(ModelConfig::attends).map(Case::from) {
        let ready = model(&config, &Device::flex()).for_search();
        let mut out = StepOutput::default();
        let mut session = ready.begin(&requests(&batch)).unwrap();
        session.step(&[2, 2], &free(Selection::All, true), &mut out).unwrap();
        let reduction = config.reductions(Streams::default())[0];
        assert_eq!(out.attention.len(), 2 * 7_usize.div_ceil(reduction), "{config:?}");
    }
}

#[test]
fn a_source_without_a_step_is_read_as_nothing_whatever_stands_beside_it() {
    for config in single_sources().into_iter().filter(ModelConfig::has_source).map(Case::from) {
        let model = model(&config, &Device::flex());
        let of = |sources: &[Vec<TokenId>]| {
            let target = vec![row("t", 3, TARGET as u64); sources.len()];
            let sources = vec![SourceBatch::Tokens(TokenBatch::from_rows(sources))];
            let examples = (0..target.len()).collect();
            scores(
                &model,
                &Batch { sources, target: Target::whole(&target), continues: vec![], examples, copies: None },
            )
        };
        let alone = of(&[vec![]]);
        assert!(alone.iter().all(|log_prob| log_prob.is_finite()), "{alone:?} {config:?}");
        let both = of(&[row("s", 6, SOURCE as u64), vec![]]);
        assert_close(&both[alone.len()..], &alone, &format!("{config:?}"));
    }
}

/// Rows of streams that are cut into stretches of these lengths; row `b` ends where its own stream ends.
fn stretches(config: &Case, streams: &[Vec<TokenId>], cuts: &[usize]) -> Vec<Batch> {
    let whole = seen_by(config, &batch(&vec![(3, 0); streams.len()]));
    let mut at = 0;
    let stretch = |&length: &usize| {
        let from = |stream: &Vec<TokenId>| {
            let rest = &stream[at.min(stream.len() - 1)..];
            rest[..rest.len().min(length + 1)].to_vec()
        };
        let target = Target::stretch(&streams.iter().map(from).collect::<Vec<_>>());
        let batch = Batch { target, continues: vec![at > 0; streams.len()], ..whole.clone() };
        at += length;
        batch
    };
    cuts.iter().map(stretch).collect()
}

fn streams() -> Vec<Vec<TokenId>> {
    let begin = |mut ids: Vec<TokenId>| {
        ids.insert(0, Special::Begin.id());
        ids
    };
    [("a", 11), ("b", 6), ("c", 2)].map(|(name, length)| begin(row(name, length, TARGET as u64))).into()
}

#[test]
fn losses_over_a_stream_cut_anywhere_equal_those_of_one_pass() {
    for config in configs() {
        let model = model(&config, &Device::flex());
        let of = |cuts: &[usize]| {
            let mut carry = Carry::default();
            let mut rows = vec![Vec::new(); 3];
            for batch in stretches(&config, &streams(), cuts) {
                let mut scores = model.scores(&batch, &mut carry).unwrap().log_probs.into_iter();
                for (row, &n) in rows.iter_mut().zip(&batch.target.lengths) {
                    row.extend(scores.by_ref().take(n as usize));
                }
            }
            rows
        };
        let whole = of(&[12]);
        assert_eq!(whole.iter().map(Vec::len).collect::<Vec<_>>(), [12, 7, 3]);
        for cuts in [&[1; 12][..], &[5, 7], &[2, 1, 6, 3], &[11, 1]] {
            assert_close(&of(cuts).concat(), &whole.concat(), &format!("{cuts:?} {config:?}"));
        }
    }
}

/// Logits that are divided by a temperature differ by as much less, and their softmax is one.
#[test]
fn a_temperature_divides_the_logits() {
    for config in language_models() {
        let model = model(&config, &Device::flex());
        let every: Vec<[TokenId; 1]> = (0..TARGET as TokenId).map(|id| [id]).collect();
        let target = Target::whole(&every);
        let batch = Batch { sources: vec![], target, continues: vec![], examples: (0..TARGET).collect(), copies: None };
        let scores = model.judge(&batch, &mut Carry::default(), &[1.0, 2.5, 0.4]).unwrap().scores;
        let plain = model.scores(&batch, &mut Carry::default()).unwrap();
        assert_eq!(scores[0], plain);
        for (scores, temperature) in scores[1..].iter().zip([2.5, 0.4]) {
            assert_eq!(scores.correct, plain.correct);
            let differences = |of: &[f32], by: f32| of.iter().map(|p| (p - of[5]) / by).collect::<Vec<_>>();
            let expected = differences(&plain.log_probs, temperature);
            assert_close(&differences(&scores.log_probs, 1.0), &expected, "logits");
            let sum: f32 = scores.log_probs.iter().map(|p| p.exp()).sum();
            assert!((sum - 1.0).abs() < 1e-4, "{sum}");
        }
    }
}

/// All gradients of a module's parameters, by their order; zero where there is none.
struct Collect<'a>(&'a burn::tensor::Gradients, Vec<Vec<f32>>);

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let n = param.dims().iter().product();
        let gradient = param.val().grad(self.0).map(|g| g.into_data().try_to_vec().unwrap());
        self.1.push(gradient.unwrap_or_else(|| vec![0.0; n]));
    }
}

/// Parameters changed by a multiple of a direction.
struct Along<'a>(std::slice::Iter<'a, Vec<f32>>, f64);

impl burn::module::ModuleMapper for Along<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let direction = self.0.next().unwrap().clone();
        param.map(|tensor| {
            let data = burn::tensor::TensorData::new(direction, tensor.dims());
            let step = Tensor::<D>::from_data(data, &tensor.device());
            (tensor + step * self.1).detach().require_grad()
        })
    }
}

/// By another road: a loss changes along any direction by as much as its gradient says.
fn assert_gradient(model: &Model, what: &str, loss: impl Fn(&Model) -> Tensor<1>) {
    let gradients = loss(model).backward();
    let mut found = Collect(&gradients, Vec::new());
    model.visit(&mut found);
    let key = Key::from_seed(77);
    let drawn = |(i, gradient): (usize, &Vec<f32>)| {
        (0..gradient.len() as u64).map(|j| key.numbered(i as u64).normal(j) as f32).collect::<Vec<f32>>()
    };
    let direction: Vec<Vec<f32>> = found.1.iter().enumerate().map(drawn).collect();
    let along = |a: &[Vec<f32>], b: &[Vec<f32>]| -> f64 {
        a.iter().flatten().zip(b.iter().flatten()).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    let value = |scale: f64| {
        let moved = model.clone().map(&mut Along(direction.iter(), scale));
        f64::from(loss(&moved).into_scalar::<f32>())
    };
    let (step, said) = (1e-3, along(&found.1, &direction));
    let slope = (value(step) - value(-step)) / (2.0 * step);
    // The typical change along a direction is the gradient's norm.
    let norm = along(&found.1, &found.1).sqrt();
    assert!((slope - said).abs() < 2e-2 * norm, "{slope} is not {said}, of {norm}: {what}");
}

#[test]
fn gradients_through_dropped_numbers_weights_and_words_and_of_penalties_are_right() {
    let batch = batch(&[(5, 4), (2, 6), (6, 3)]);
    for config in regularised().into_iter().map(Case::from).chain(attentive()).chain(crossed()) {
        let (model, batch) = (model(&config, &Device::flex().autodiff()), seen_by(&config, &batch));
        for key in [None, Some(Key::from_seed(3)), Some(Key::from_seed(4))] {
            let loss = |model: &Model| loss(model, &batch, &mut Carry::default(), key, 0.1);
            assert_gradient(&model, &format!("{key:?} {config:?}"), loss);
        }
    }
}

#[test]
fn gradients_of_stretches_are_those_of_one_pass_that_is_detached_there() {
    // The loss of the second stretch alone, the state that the first left held still.
    let device = Device::flex().autodiff();
    for config in configs() {
        let model = model(&config, &device);
        let [first, second] = &stretches(&config, &streams(), &[4, 5])[..] else { unreachable!() };
        let mut carry = Carry::default();
        model.terms(first, &mut carry, None).unwrap();
        let loss = |model: &Model| loss(model, second, &mut carry.clone(), None, 0.0);
        assert_gradient(&model, &format!("{config:?}"), loss);
    }
}

#[test]
fn rows_go_on_or_begin_each_for_itself() {
    for config in configs() {
        let model = model(&config, &Device::flex());
        let parts = stretches(&config, &streams(), &[4, 4]);
        let mut carry = Carry::default();
        model.terms(&parts[0], &mut carry, None).unwrap();
        let of = |continues: Vec<bool>| {
            let batch = Batch { continues, ..parts[1].clone() };
            model.scores(&batch, &mut carry.clone()).unwrap().log_probs
        };
        let (all, none, mixed) = (of(vec![true; 3]), of(vec![false; 3]), of(vec![false, true, false]));
        // Four, three and no steps.
        assert_close(&mixed, &[&none[..4], &all[4..]].concat(), &format!("{config:?}"));
        assert!(all.iter().zip(&none).any(|(a, b)| (a - b).abs() > 1e-4), "{config:?}");
        // Where examples have nothing to do with one another, nothing is carried.
        model.terms(&Batch { continues: vec![], ..parts[0].clone() }, &mut carry, None).unwrap();
        assert!(carry.is_empty());
        let error = model.scores(&parts[1], &mut carry).unwrap_err().to_string();
        assert!(error.contains("nothing was carried"), "{error}");
    }
}

#[test]
fn a_stack_of_equal_stages_is_an_encoder_of_as_many_layers() {
    let decoder = r#""decoder": {"kind": "lstm", "hidden": 6, "attention": {"kind": "general"}}"#;
    let of = |encoder: &str| -> ModelConfig {
        serde_json::from_str(&format!(r#"{{"encoder": {encoder}, {decoder}}}"#)).unwrap()
    };
    let layers = model(&of(r#"{"kind": "gru", "hidden": 5, "layers": 2}"#), &Device::flex());
    let stack = of(r#"{"kind": "stack", "stages": [{"kind": "gru", "hidden": 5}, {"kind": "gru", "hidden": 5}]}"#);
    // The same parameters in the same order, under other names.
    struct Take(std::vec::IntoIter<Vec<f32>>);
    impl burn::module::ModuleMapper for Take {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let values = self.0.next().expect("as many parameters");
            param.map(|old| Tensor::from_data(burn::tensor::TensorData::new(values, old.dims()), &old.device()))
        }
    }
    struct Values(Vec<Vec<f32>>);
    impl ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().into_data().try_to_vec().unwrap());
        }
    }
    let mut values = Values(Vec::new());
    layers.visit(&mut values);
    let stack = model(&stack, &Device::flex()).map(&mut Take(values.0.into_iter()));
    let batch = batch(&[(5, 4), (2, 7), (9, 2)]);
    assert_eq!(scores(&stack, &batch), scores(&layers, &batch));
}

#[test]
fn probabilities_sum_to_one_and_selected_rows_go_on_as_they_would() {
    let batch = batch(&[(5, 4), (2, 6), (3, 2)]);
    for config in configs() {
        let (model, batch) = (model(&config, &Device::flex()), seen_by(&config, &batch));
        let want = free(Selection::All, true);
        let step = |session: &mut dyn StepSession, last: &[TokenId]| {
            let mut out = StepOutput::default();
            session.step(last, &want, &mut out).unwrap();
            for row in out.log_probs.chunks_exact(TARGET) {
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
        let mut plain = ready.clone().begin(&requests(&batch)).unwrap();
        step(&mut *plain, &[2, 2, 2]);
        let after = step(&mut *plain, &[5, 6, 7]);
        let mut moved = ready.begin(&requests(&batch)).unwrap();
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
fn a_rows_step_has_the_same_bits_whatever_stands_beside_it() {
    // Products sum in blocks of 512 elsewhere: the bridge of this one is wider.
    let wide: ModelConfig = serde_json::from_str(
        r#"{"encoder": {"kind": "lstm", "hidden": 300}, "decoder": {"kind": "lstm", "hidden": 9}}"#,
    )
    .unwrap();
    let other = |i: usize| vec![4 + (i * 7 % 5) as TokenId, 4 + (i % 7) as TokenId, 5, Special::End.id()];
    let own = Source::Tokens(vec![6, 9, 4, Special::End.id()]);
    let mut kinds: Vec<Case> = single_sources().into_iter().step_by(3).map(Case::from).collect();
    let of_stack = |text: &str| {
        let plain = settings(&config("rnn", "rnn", r#"{"kind": "general"}"#, ""));
        ModelConfig::EncoderDecoder(EncoderDecoderConfig { encoder: serde_json::from_str(text).unwrap(), ..plain })
    };
    kinds.extend(language_models().chain([wide]).chain(stacks().into_iter().map(of_stack)).map(Case::from));
    kinds.extend(attentive());
    for config in kinds {
        let ready = model(&config, &Device::flex()).for_search();
        let run = |rows: usize, place: usize| {
            let source = |b: usize| if b == place { own.clone() } else { Source::Tokens(other(b)) };
            // The streams of the row itself are those of the third of any batch.
            let further = |b: usize| {
                let b = if b == place { 3 } else { b % 7 };
                (0..config.streams.len()).map(move |stream| Source::Tokens(beside(stream, b)))
            };
            let sources = |b: usize| match config.has_source() {
                true => std::iter::once(source(b)).chain(further(b)).collect(),
                false => vec![],
            };
            let requests: Vec<Request> = (0..rows).map(|b| Request::new(sources(b))).collect();
            let mut session = ready.clone().begin(&requests).unwrap();
            let (mut out, mut found) = (StepOutput::default(), Vec::new());
            for t in 0..3_u32 {
                let last: Vec<TokenId> = (0..rows)
                    .map(|b| if b == place { 2 + 3 * t } else { (b as u32 * 5 + t) % TARGET as u32 })
                    .collect();
                session.step(&last, &free(Selection::Top(4), true), &mut out).unwrap();
                let row = place * out.per_row..(place + 1) * out.per_row;
                found.extend(
                    out.tokens[row.clone()].iter().copied().chain(out.log_probs[row].iter().map(|p| p.to_bits())),
                );
                let width = out.attention.len() / rows;
                let real = (4 + further(place).map(|stream| stream.len()).sum::<usize>()).min(width);
                found.extend(out.attention[place * width..][..real].iter().map(|w| w.to_bits()));
            }
            found
        };
        let alone = run(1, 0);
        for (rows, place) in [(2, 1), (3, 0), (8, 3), (9, 8), (17, 5), (64, 63), (100, 41), (500, 0), (500, 250)] {
            assert_eq!(run(rows, place), alone, "row {place} of {rows}: {config:?}");
        }
    }
}

#[test]
fn prefixes_are_read_as_if_they_were_fed_step_by_step() {
    let batch = batch(&[(5, 1), (2, 1), (9, 1)]);
    for (i, config) in configs().into_iter().enumerate() {
        // Now and then one that is read in several stretches.
        let longest = if i % 8 == 0 || !config.has_source() { 1500 } else { 7 };
        let (ready, batch) = (model(&config, &Device::flex()).for_search(), seen_by(&config, &batch));
        let mut requests = requests(&batch);
        for (request, length) in requests.iter_mut().zip([4, 0, longest]) {
            // An end symbol is a token like others to who goes on behind it.
            let key = Key::from_seed(length as u64);
            request.prefix = (0..length).map(|t| 3 + key.below(t as u64, TARGET as u64 - 3) as TokenId).collect();
        }
        let mut read = ready.clone().begin(&requests).unwrap();
        let worth = read.take_prefixes();
        assert!(read.take_prefixes().is_empty());
        let last: Vec<TokenId> = requests.iter().map(|request| *request.prefix.last().unwrap_or(&2)).collect();
        let mut next = StepOutput::default();
        read.step(&last, &free(Selection::All, false), &mut next).unwrap();
        for (b, request) in requests.iter().enumerate() {
            let bare = Request::new(request.sources.clone());
            let mut session = ready.clone().begin(&[bare]).unwrap();
            let (mut fed, mut out, mut log_probs) = (2, StepOutput::default(), Vec::new());
            for &token in &request.prefix {
                session.step(&[fed], &free(Selection::Given(vec![token]), false), &mut out).unwrap();
                log_probs.push(out.log_probs[0]);
                fed = token;
            }
            session.step(&[fed], &free(Selection::All, false), &mut out).unwrap();
            assert_close(&worth[b].log_probs, &log_probs, "prefix");
            assert_close(&next.log_probs[b * TARGET..][..TARGET], &out.log_probs, "what follows");
        }
        // Without sources, a row's bits do not depend on the prefixes beside it, of which equal ones are read once.
        if !config.has_source() {
            requests.push(requests[2].clone());
            requests.rotate_left(2);
            let mut moved = ready.clone().begin(&requests).unwrap();
            assert_eq!(moved.take_prefixes()[1], worth[2]);
            let mut other = StepOutput::default();
            let last: Vec<TokenId> = requests.iter().map(|request| *request.prefix.last().unwrap_or(&2)).collect();
            moved.step(&last, &free(Selection::All, false), &mut other).unwrap();
            for (place, row) in [(0, 2), (1, 2), (2, 0), (3, 1)] {
                assert_eq!(other.log_probs[place * TARGET..][..TARGET], next.log_probs[row * TARGET..][..TARGET]);
            }
        }
    }
}

#[test]
fn masks_hold_for_their_row_alone() {
    let batch = batch(&[(5, 4), (2, 6), (3, 2)]);
    let masks = vec![Mask::Free, Mask::Allowed(vec![7, 3]), Mask::Banned(vec![4, 5])];
    for config in configs().into_iter().step_by(5) {
        let (ready, batch) = (model(&config, &Device::flex()).for_search(), seen_by(&config, &batch));
        let step = |selection: Selection, masks: &[Mask]| {
            let want = Want { masks: masks.to_vec(), banned: vec![0, 2], ..free(selection, false) };
            let mut out = StepOutput::default();
            ready.clone().begin(&requests(&batch)).unwrap().step(&[2, 2, 2], &want, &mut out).unwrap();
            out
        };
        let (plain, all) = (step(Selection::All, &[]), step(Selection::All, &masks));
        for (b, mask) in masks.iter().enumerate() {
            let mut expected = plain.log_probs[b * TARGET..][..TARGET].to_vec();
            mask.apply(&mut expected);
            assert_eq!(all.log_probs[b * TARGET..][..TARGET], expected);
        }
        let best = step(Selection::Top(3), &masks);
        assert_eq!(best.tokens[..3], step(Selection::Top(3), &[]).tokens[..3]);
        let mut allowed = [best.tokens[3], best.tokens[4]];
        allowed.sort_unstable();
        assert_eq!((allowed, best.log_probs[5]), ([3, 7], f32::NEG_INFINITY));
        assert!(best.tokens[6..].iter().all(|id| ![0, 2, 4, 5].contains(id)));
        for (id, log_prob) in best.tokens.iter().zip(&best.log_probs).skip(3).take(2) {
            assert!((log_prob - all.log_probs[TARGET + *id as usize]).abs() < 1e-4);
        }
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
        let (model, batch) = (model(&config, &Device::flex().autodiff()), seen_by(&config, &batch));
        let gradients = loss(&model, &batch, &mut Carry::default(), Some(Key::from_seed(3)), 0.1).backward();
        let mut missing = Missing(&gradients, Vec::new(), Vec::new());
        model.visit(&mut missing);
        assert!(missing.2.is_empty(), "{config:?}: {:?}", missing.2);
    }
}

#[test]
fn a_key_fixes_the_parameters_and_the_dropout() {
    let (batch, config) = (batch(&[(5, 4), (2, 6)]), config("lstm", "lstm", r#"{"kind": "general"}"#, ""));
    let device = Device::flex();
    let loss = |key| loss(&model(&config, &device), &batch, &mut Carry::default(), key, 0.0).into_scalar::<f32>();
    let key = |n| Some(Key::from_seed(1).numbered(n));
    assert_eq!(loss(None), loss(None));
    assert_eq!(loss(key(1)), loss(key(1)));
    assert_ne!(loss(key(1)), loss(key(2)));
    assert_ne!(loss(key(1)), loss(None));
}

/// Each of these is drawn for itself, and only where there is a key.
#[test]
fn everything_that_is_dropped_changes_the_loss_and_nothing_does_without_a_key() {
    let batch = batch(&[(5, 4), (2, 6)]);
    let of = |target: &str, encoder: &str, decoder: &str| {
        let config: ModelConfig = serde_json::from_str(&format!(
            r#"{{"target": {{"kind": "embedding", "size": 8 {target}}}, "encoder": {{"kind": "gru", "hidden": 5 {encoder}}},
                "decoder": {{"kind": "lstm", "hidden": 6, "layers": 2 {decoder}}}}}"#
        ))
        .unwrap();
        let model = model(&config, &Device::flex());
        [None, Some(3), Some(4)]
            .map(|key| loss(&model, &batch, &mut Carry::default(), key.map(Key::from_seed), 0.0).into_scalar::<f32>())
    };
    let plain = of("", "", "");
    assert_eq!(plain, [plain[0]; 3]);
    for (target, encoder, decoder) in [
        (r#", "word_dropout": 0.5"#, "", ""),
        (r#", "dropout": 0.5"#, "", ""),
        (r#", "dropout": 0.5, "locked_dropout": true"#, "", ""),
        ("", r#", "weight_drop": 0.5"#, ""),
        ("", "", r#", "weight_drop": 0.5"#),
        ("", "", r#", "output_dropout": 0.5"#),
        ("", "", r#", "dropout": 0.5, "output_dropout": 0.0"#),
        ("", "", r#", "dropout": 0.5, "locked_dropout": true"#),
    ] {
        let [none, one, two] = of(target, encoder, decoder);
        assert_eq!(none, plain[0]);
        assert!(one != none && two != none && one != two, "{target}{encoder}{decoder}");
    }
}

#[test]
fn what_cannot_work_is_told_at_its_key() {
    let places = |config: EncoderDecoderConfig| {
        let problems = ModelConfig::EncoderDecoder(config).problems(Streams::default(), true);
        problems.into_iter().map(|p| p.place.to_string()).collect::<Vec<_>>()
    };
    let of = |attention: &str, extra: &str| settings(&config("lstm", "gru", attention, extra));
    let (none, dot) = (r#"{"kind": "none"}"#, r#"{"kind": "dot"}"#);
    let copy = serde_json::from_str(r#"{"kind": "copy"}"#).unwrap();
    assert_eq!(places(EncoderDecoderConfig { bridge: copy, ..of(dot, "") }), ["model.bridge.kind"]);
    assert_eq!(places(of(none, r#", "input_feeding": true"#)), ["model.decoder.input_feeding"]);
    let uneven = of(dot, r#", "widths": [10, 9]"#);
    let said = ModelConfig::EncoderDecoder(uneven.clone()).problems(Streams::default(), true).remove(0).message;
    assert_eq!(places(uneven), ["model.decoder.attention.kind"]);
    assert!(said.ends_with("or set the last of `model.decoder.widths` to 10"), "{said}");
    let tied = |tied, config| EncoderDecoderConfig { tied, ..config };
    assert_eq!(places(tied(antiphon_model::Tied::Output, of(none, ""))), ["model.tied"]);
    let all = tied(antiphon_model::Tied::All, of(r#"{"kind": "general"}"#, ""));
    assert_eq!(places(all.clone()), ["model.tied"]);
    let empty = serde_json::from_str(r#"{"kind": "stack", "stages": []}"#).unwrap();
    assert_eq!(places(EncoderDecoderConfig { encoder: empty, ..of(none, "") }), ["model.encoder.stages"]);
    // What needs vectors, and what makes too many numbers of them.
    let reduced = r#"{"kind": "stack", "stages": [{"kind": "layer_norm"}, {"kind": "time_reduction", "factor": 64},
        {"kind": "time_reduction", "factor": 64}, {"kind": "time_reduction", "factor": 64}]}"#;
    let encoder = serde_json::from_str(reduced).unwrap();
    let one_hot = serde_json::from_str(r#"{"kind": "one_hot"}"#).unwrap();
    let reduced = EncoderDecoderConfig { encoder, ..of(none, "") };
    assert_eq!(places(reduced.clone()), ["model.encoder.stages.3.factor"]);
    assert_eq!(places(EncoderDecoderConfig { source: one_hot, ..reduced }), ["model.encoder.stages.0.kind"]);
    // Behind a stage that cannot work nobody knows what is read, until a stage makes vectors of its own width.
    let planes = |stages: &str| {
        let text = format!(
            r#"{{"kind": "stack", "stages": [{{"kind": "convolution_2d", "channels": 5, "planes": 5}}, {stages}
               {{"kind": "convolution_2d", "planes": 4}}]}}"#
        );
        let encoder = serde_json::from_str(&text).unwrap();
        places(EncoderDecoderConfig { encoder, ..of(none, "") })
    };
    let first = "model.encoder.stages.0.planes";
    assert_eq!(planes(""), [first]);
    assert_eq!(planes(r#"{"kind": "layer_norm"}, {"kind": "time_reduction"},"#), [first]);
    assert_eq!(planes(r#"{"kind": "projection", "size": 9},"#), [first, "model.encoder.stages.2.planes"]);
    assert_eq!(planes(r#"{"kind": "projection", "size": 8},"#), [first]);
    let apart = ModelConfig::EncoderDecoder(EncoderDecoderConfig { source: all.target.clone().into(), ..all });
    let vocabularies = Vocabularies { sources: vec![SOURCE], target: TARGET, shared: false };
    let error = apart.init(Streams::default(), &vocabularies, Key::from_seed(1), &Device::flex());
    assert!(error.unwrap_err().to_string().contains("model.tied: `all` needs one vocabulary"));
    let narrow: ModelConfig = serde_json::from_str(
        r#"{"kind": "language_model", "tied": "output", "decoder": {"kind": "gru", "hidden": 9}}"#,
    )
    .unwrap();
    let places = |config: &str| {
        let config: ModelConfig = serde_json::from_str(config).unwrap();
        config.problems(Streams::default(), false).iter().map(|p| p.place.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        narrow.problems(Streams::default(), false).iter().map(|p| p.place.to_string()).collect::<Vec<_>>(),
        ["model.tied"]
    );
    let tied = |decoder: &str| {
        places(&format!(
            r#"{{"kind": "language_model", "tied": "output", "target": {{"kind": "embedding", "size": 7}}, "decoder": {decoder}}}"#
        ))
    };
    assert_eq!(tied(r#"{"kind": "gru", "hidden": 9, "projection": 7}"#), [""; 0]);
    assert_eq!(tied(r#"{"kind": "gru", "hidden": 7, "projection": 9}"#), ["model.tied"]);
    assert_eq!(tied(r#"{"kind": "gru", "hidden": 9, "layers": 2, "widths": [5, 7]}"#), [""; 0]);
    assert_eq!(tied(r#"{"kind": "gru", "hidden": 7, "layers": 2, "widths": [7, 5]}"#), ["model.tied"]);
    assert_eq!(tied(r#"{"kind": "gru", "hidden": 7, "widths": [5, 7]}"#), ["model.decoder.widths"]);
    assert_eq!(places(r#"{"decoder": {"kind": "gru", "widths": [5, 7]}}"#), ["model.decoder.widths"]);
}

#[test]
fn sources_that_do_not_fit_together_are_told_at_their_keys() {
    let places = |case: &Case| {
        let problems = case.config.problems(Streams(&case.streams), false);
        problems.into_iter().map(|problem| problem.place.to_string()).collect::<Vec<_>>()
    };
    let of = |memories: &str, attention: &str, bridge: &str| {
        streamed(memories, &config("lstm", "gru", attention, ""), bridge)
    };
    let (none, general, two) = (r#"{"kind": "none"}"#, r#"{"kind": "general"}"#, r#"{"kind": "general", "heads": 2}"#);
    assert_eq!(places(&of("each", general, "linear")), [""; 0]);
    // The streams of `each` are as wide as they please, but for dot products and heads.
    let unlike = |case: Case| Case { streams: of("each", general, "linear").streams, ..case };
    assert_eq!(places(&unlike(of("concatenated", general, "linear"))), ["model.memories.kind"]);
    assert_eq!(places(&unlike(of("concatenated", none, "linear"))), [""; 0]);
    let dot = of("each", r#"{"kind": "dot"}"#, "linear");
    assert_eq!(places(&dot), ["model.decoder.attention.kind"; 2]);
    let said = dot.config.problems(Streams(&dot.streams), false).remove(1).message;
    assert!(said.contains("as wide as the memory of `facts`, but they are 10 and 6"), "{said}");
    assert_eq!(places(&of("each", two, "linear")), [""; 0]);
    assert_eq!(
        places(&of("each", r#"{"kind": "general", "heads": 5}"#, "linear")),
        ["model.decoder.attention.heads"; 2]
    );
    assert_eq!(places(&of("each", general, "copy")), ["model.bridge.kind"]);
    let mut unreadable = of("each", general, "linear");
    unreadable.streams[1].1 = serde_json::from_str(r#"{"encoder": {"kind": "stack", "stages": []}}"#).unwrap();
    assert_eq!(places(&unreadable), ["streams.facts.encoder.stages"]);
    let text = Case { config: language_models().next().unwrap(), ..dot };
    assert_eq!(places(&text), ["streams"]);

    let warned = |case: &Case| {
        let warnings = case.config.warnings(Streams(&case.streams));
        warnings.into_iter().map(|warning| warning.place.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(warned(&of("each", general, "linear")), [""; 0]);
    assert_eq!(warned(&of("each", none, "linear")), ["model.memories.kind"]);
    let alone = Case { streams: vec![], ..of("each", general, "linear") };
    assert_eq!(warned(&alone), ["model.memories.kind"]);
    let idle = r#"{"kind": "additive", "width": 4, "coverage_penalty": 1.0}"#;
    assert_eq!(warned(&of("each", idle, "linear")), ["model.decoder.attention.coverage_penalty"]);
    let mut locked = of("each", general, "linear");
    locked.streams[0].1.input = serde_json::from_str(r#"{"kind": "embedding", "locked_dropout": true}"#).unwrap();
    assert_eq!(warned(&locked), ["streams.features.input.locked_dropout"]);
}

/// Parameters whose path holds a word, multiplied.
struct Scaled<'a>(&'a str, f64, Vec<String>);

impl burn::module::ModuleMapper for Scaled<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.2.push(name.into());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.2.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let scale = if self.2.iter().any(|segment| segment == self.0) { self.1 } else { 1.0 };
        param.map(|tensor| tensor * scale)
    }
}

/// A batch with the same beside each of its rows.
fn with<const N: usize>(batch: &Batch, streams: [&[TokenId]; N]) -> Batch {
    let rows = batch.target.rows();
    let stream = |ids: &[TokenId]| SourceBatch::Tokens(TokenBatch::from_rows(&vec![ids.to_vec(); rows]));
    let mut sources = batch.sources.clone();
    sources.extend(streams.map(stream));
    Batch { sources, ..batch.clone() }
}

#[test]
fn an_empty_stream_gives_nothing() {
    let batch = batch(&[(5, 4), (2, 6), (9, 2)]);
    let attentions = [
        r#"{"kind": "general"}"#,
        r#"{"kind": "additive", "width": 6, "heads": 2}"#,
        r#"{"kind": "additive", "width": 6, "coverage": true}"#,
        r#"{"kind": "location", "width": 6, "filters": 3, "reach": 4}"#,
    ];
    for (attention, extra) in attentions.iter().flat_map(|a| [(a, ""), (a, r#", "input_feeding": true, "layers": 1"#)])
    {
        let plain = config("lstm", "gru", attention, extra);
        // Behind one another they are as if the source were alone, which has the same parameters then.
        let case = streamed("concatenated", &plain, "zero");
        let alone = Case { streams: vec![], ..case.clone() };
        let (several, one) = (model(&case, &Device::flex()), model(&alone, &Device::flex()));
        assert_eq!(scores(&several, &with(&batch, [&[], &[]])), scores(&one, &batch), "{case:?}");
        assert_ne!(scores(&several, &with(&batch, [&[], &[5, 3]])), scores(&one, &batch), "{case:?}");

        // Each for itself, nothing of what looks at them counts.
        let several = model(&streamed("each", &plain, "zero"), &Device::flex());
        let scaled = several.clone().map(&mut Scaled("streams", 3.0, Vec::new()));
        let of = |streams: [&[TokenId]; 2]| [&several, &scaled].map(|model| scores(model, &with(&batch, streams)));
        let [before, after] = of([&[], &[]]);
        assert_eq!(before, after, "{attention}");
        let [before, after] = of([&[4, 3], &[]]);
        assert_ne!(before, after, "{attention}");
    }
}

/// See et al. (2017), eq. 10 and 13, from what the steps of a search tell of their weights.
#[test]
fn the_coverage_penalty_is_what_was_looked_at_again() {
    let batch = batch(&[(5, 4), (2, 6), (7, 1)]);
    for extra in ["", r#", "input_feeding": true, "layers": 1"#] {
        let attention = r#"{"kind": "additive", "width": 6, "coverage": true, "coverage_penalty": 0.7}"#;
        let model = model(&config("gru", "lstm", attention, extra), &Device::flex());
        let Target { inputs, lengths, width, .. } = &batch.target;
        let mut session = model.for_search().begin(&requests(&batch)).unwrap();
        let (mut out, mut sums, mut again) = (StepOutput::default(), Vec::new(), 0.0);
        for t in 0..*width {
            let fed: Vec<TokenId> = (0..3).map(|b| inputs[b * width + t]).collect();
            session.step(&fed, &free(Selection::Top(1), true), &mut out).unwrap();
            sums.resize(out.attention.len(), 0.0_f32);
            let steps = out.attention.len() / 3;
            for (at, (weight, sum)) in out.attention.iter().zip(&mut sums).enumerate() {
                again += if t < lengths[at / steps] as usize { weight.min(*sum) } else { 0.0 };
                *sum += weight;
            }
        }
        let terms = model.terms(&batch, &mut Carry::default(), None).unwrap();
        let [_, Term::Sum { name: "coverage penalty", loss, weight }] = &terms[..] else { panic!("{terms:?}") };
        assert!(*weight == 0.7 && again > 0.5, "{weight} {again}");
        assert!((loss.clone().into_scalar::<f32>() - again).abs() < 1e-5, "{loss} is not {again}");
    }
}

#[test]
fn what_was_looked_at_goes_on_beside_the_same_sources_alone() {
    for attention in [r#"{"kind": "additive", "width": 6, "coverage": true}"#, r#"{"kind": "location", "width": 6}"#] {
        let case = Case::from(config("gru", "lstm", attention, ""));
        let (model, parts) = (model(&case, &Device::flex()), stretches(&case, &streams(), &[4, 4]));
        let mut carry = Carry::default();
        model.terms(&parts[0], &mut carry, None).unwrap();
        let other = Batch { sources: batch(&[(9, 1), (2, 1), (2, 1)]).sources, ..parts[1].clone() };
        let error = model.terms(&other, &mut carry.clone(), None).unwrap_err().to_string();
        assert!(error.contains("carried as `attention.0`"), "{error}");
        assert!(model.terms(&parts[1], &mut carry, None).is_ok());
    }
}

/// What the first step tells of where it looks: the logarithms of weights differ as scores do.
#[test]
fn sharpening_multiplies_the_scores() {
    let batch = batch(&[(5, 4)]);
    for kind in ["dot", "general", "additive", "location"] {
        let differences = |sharpening: f32| {
            let attention = format!(r#"{{"kind": "{kind}", "sharpening": {sharpening}}}"#);
            let model = model(&config("lstm", "lstm", &attention, ""), &Device::flex());
            let mut session = model.for_search().begin(&requests(&batch)).unwrap();
            let mut out = StepOutput::default();
            session.step(&[Special::Begin.id()], &free(Selection::Top(1), true), &mut out).unwrap();
            out.attention.iter().map(|weight| (weight / out.attention[0]).ln()).collect::<Vec<f32>>()
        };
        let (plain, sharp) = (differences(10.0), differences(100.0));
        assert!(plain.iter().any(|difference| difference.abs() > 1e-3), "{kind}: {plain:?} says nothing");
        assert_close(&plain.iter().map(|difference| difference * 10.0).collect::<Vec<_>>(), &sharp, kind);
    }
}

#[test]
fn what_a_model_cannot_read_is_an_error() {
    let config = config("rnn", "rnn", r#"{"kind": "general"}"#, "");
    let (reads, text) = (model(&config, &Device::flex()), model(&language_models().next().unwrap(), &Device::flex()));
    let error = |model: &Model, batch: &Batch| model.terms(batch, &mut Carry::default(), None).unwrap_err().to_string();
    let good = batch(&[(2, 2)]);
    let mut bad = good.clone();
    let [SourceBatch::Tokens(tokens)] = &mut bad.sources[..] else { unreachable!() };
    tokens.ids[0] = SOURCE as TokenId;
    assert!(error(&reads, &bad).contains("the source id 11"));
    let mut bad = good.clone();
    bad.target.labels[0] = TARGET as TokenId;
    assert!(error(&reads, &bad).contains("the target id 9"));
    assert!(error(&reads, &Batch { sources: vec![], ..good.clone() }).contains("reads one source, but was given 0"));
    let case = streamed("each", &config, "linear");
    let three = model(&case, &Device::flex());
    assert!(error(&three, &good).contains("reads 3 sources, but was given 1"));
    let mut bad = seen_by(&case, &good);
    let SourceBatch::Tokens(tokens) = &mut bad.sources[1] else { unreachable!() };
    tokens.ids[0] = STREAMS[0] as TokenId;
    assert!(error(&three, &bad).contains("the features id 7"));
    let vocabularies = Vocabularies { sources: vec![SOURCE], target: TARGET, shared: false };
    let fewer = case.init(Streams(&case.streams), &vocabularies, Key::from_seed(1), &Device::flex()).unwrap_err();
    assert!(fewer.to_string().contains("reads 3 sources, and the corpus has 1"), "{fewer}");
    let frames = SourceBatch::Frames(FrameBatch::from_rows(&[vec![0.5; 6]], 2));
    assert!(error(&reads, &Batch { sources: vec![frames], ..good.clone() }).contains("another kind of source"));
    assert!(error(&text, &good).contains("reads no source"));
    assert!(
        error(&reads, &Batch { target: batch(&[(1, 1), (1, 1)]).target, ..good.clone() }).contains("2 targets for 1")
    );
    assert!(text.for_search().begin(&requests(&good)).is_err());
    assert!(reads.for_search().begin(&[Request::new(vec![])]).is_err());
}

#[test]
fn settings_without_a_kind_are_those_of_an_encoder_decoder() {
    let config: ModelConfig = serde_json::from_str(r#"{"decoder": {"kind": "gru", "hidden": 9}}"#).unwrap();
    assert_eq!(settings(&config).decoder, serde_json::from_str(r#"{"kind": "gru", "hidden": 9}"#).unwrap());
    let written = serde_json::to_value(&config).unwrap();
    assert_eq!(written["kind"], "encoder_decoder");
    assert_eq!(serde_json::from_value::<ModelConfig>(written).unwrap(), config);
    assert!(serde_json::from_str::<ModelConfig>(r#"{"decodre": {}}"#).is_err());
}

#[test]
fn a_step_that_is_asked_again_says_the_same() {
    let batch = batch(&[(5, 4), (2, 6), (3, 2)]);
    let masks = vec![Mask::Free, Mask::Allowed(vec![7, 3]), Mask::Banned(vec![4, 5])];
    for config in configs().into_iter().step_by(7) {
        let (ready, batch) = (model(&config, &Device::flex()).for_search(), seen_by(&config, &batch));
        let given = Selection::Given(vec![7, 2, 3, 4, 6, 5]);
        for first in [Selection::Top(3), given.clone(), Selection::All] {
            let mut session = ready.clone().begin(&requests(&batch)).unwrap();
            let (mut all, mut out) = (StepOutput::default(), StepOutput::default());
            let want = |selection| Want { masks: masks.clone(), banned: vec![0, 2], ..free(selection, false) };
            session.step(&[2, 2, 2], &want(first), &mut out).unwrap();
            session.again(&[0, 1, 2], &want(Selection::All), &mut all).unwrap();
            let row = |row: usize| &all.log_probs[row * TARGET..][..TARGET];
            session.again(&[0, 1, 2], &want(given.clone()), &mut out).unwrap();
            let known: Vec<f32> = out.tokens.iter().enumerate().map(|(i, &id)| row(i / 2)[id as usize]).collect();
            let like = |(a, b): (&f32, &f32)| a == b || (a - b).abs() < 1e-4;
            assert!(out.log_probs.iter().zip(&known).all(like), "{:?} {known:?}", out.log_probs);
            assert_eq!(out.log_probs[1], f32::NEG_INFINITY, "what is banned stays so");
            // Of some rows, in another order.
            let some = Want { masks: vec![masks[2].clone(), masks[1].clone()], ..want(Selection::Top(2)) };
            session.again(&[2, 1], &some, &mut out).unwrap();
            assert!(out.attention.is_empty());
            for (b, from) in [(0, 2), (1, 1)] {
                for (&id, &log_prob) in out.tokens[2 * b..][..2].iter().zip(&out.log_probs[2 * b..][..2]) {
                    assert!((log_prob - row(from)[id as usize]).abs() < 1e-4, "{log_prob}");
                    assert!(row(from).iter().filter(|&&other| other > log_prob + 1e-4).count() < 2);
                }
            }
            // And it goes on as if nobody had asked.
            session.step(&[5, 6, 7], &free(Selection::All, false), &mut all).unwrap();
            let mut plain = ready.clone().begin(&requests(&batch)).unwrap();
            plain.step(&[2, 2, 2], &free(Selection::All, false), &mut out).unwrap();
            plain.step(&[5, 6, 7], &free(Selection::All, false), &mut out).unwrap();
            assert_eq!(all.log_probs, out.log_probs);
        }
    }
}
