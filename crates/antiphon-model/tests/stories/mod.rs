//! Stories of sentences, and what reads them under a question: the stages that know more of a source than its steps are held to what
//! must hold of any model.

use antiphon_core::{Batch, SourceBatch, Special, Target, TokenBatch, TokenId};
use antiphon_kernels::Carry;
use antiphon_model::{Model, Streams};
use burn::tensor::Device;

use super::{
    Case, SOURCE, TARGET, assert_close, assert_gradient, assert_rows_stand_alone, assert_steps_are_the_whole, loss,
    row, scores,
};
use antiphon_core::random::Key;

/// One of each kind, over words that are four numbers wide, with what reads a question of that width.
pub(super) const STAGES: [&str; 3] = [
    r#"{"kind": "sentences"}"#,
    r#"{"kind": "query_reduction", "query": "question"}"#,
    r#"{"kind": "hops", "query": "question"}"#,
];

/// What may stand behind what makes sentences, and before what reads them.
fn encoders() -> Vec<String> {
    let stack = |stages: &[&str]| format!(r#"{{"kind": "stack", "stages": [{}]}}"#, stages.join(", "));
    let [sum, reduce, hop] = STAGES;
    let bag = r#"{"kind": "sentences", "reader": {"kind": "sum", "positions": false}, "dropout": 0.2}"#;
    let read = |cell: &str| {
        format!(r#"{{"kind": "sentences", "reader": {{"kind": "{cell}", "hidden": 2, "layers": 2, "dropout": 0.3}}}}"#)
    };
    let plain = r#"{"kind": "query_reduction", "query": "question", "layers": 1, "reset": false}"#;
    let deep = r#"{"kind": "query_reduction", "query": "question", "layers": 3, "tied": false, "dropout": 0.3}"#;
    let forward = r#"{"kind": "query_reduction", "query": "question", "bidirectional": false}"#;
    let unlike = r#"{"kind": "hops", "query": "question", "hops": 2, "tied": false,
        "attention": {"kind": "additive", "width": 4, "heads": 2, "coverage": true}}"#;
    let general = r#"{"kind": "hops", "query": "question", "hops": 1, "attention": {"kind": "general"}}"#;
    let gru = r#"{"kind": "gru", "hidden": 2, "dropout": 0.3}"#;
    vec![
        stack(&[sum, reduce]),
        stack(&[bag, plain]),
        stack(&[&read("gru"), deep]),
        stack(&[&read("lstm"), forward, hop]),
        stack(&[&read("rnn"), gru, hop]),
        stack(&[gru, sum, unlike]),
        stack(&[sum, gru, general]),
        stack(&[r#"{"kind": "sentences", "most": 2}"#, reduce]),
        // A question is not asked for by all of them.
        stack(&[sum, gru]),
    ]
}

fn cases() -> Vec<Case> {
    let question = [
        r#"{"shared": true, "encoder": {"kind": "stack", "stages": [{"kind": "sentences"}]}}"#,
        r#"{"shared": true, "encoder": {"kind": "lstm", "hidden": 4, "bidirectional": false}}"#,
        r#"{"input": {"kind": "embedding", "size": 3}, "encoder": {"kind": "gru", "hidden": 2}}"#,
    ];
    let ways = [
        r#""bridge": {"kind": "copy", "of": "source"}, "decoder": {"kind": "gru", "hidden": 4, "attention": {"kind": "none"}}"#,
        r#""bridge": {"kind": "linear", "of": "source"}, "decoder": {"kind": "rnn", "hidden": 5, "attention": {"kind": "none"}}"#,
        r#""decoder": {"kind": "lstm", "hidden": 4, "attention": {"kind": "general"}}"#,
        r#""memories": {"kind": "each"}, "decoder": {"kind": "gru", "hidden": 6, "input_feeding": true}"#,
    ];
    let mut all = Vec::new();
    for (i, encoder) in encoders().iter().enumerate() {
        // Where nobody asks, only an attention hears of the question.
        let first = if encoder.contains("query") { 0 } else { 2 };
        for (j, way) in ways.iter().enumerate().skip(first) {
            // What only copies needs a state as wide as itself, which is not that of a stage of two directions.
            let text = format!(
                r#"{{"source": {{"kind": "embedding", "size": 4, "dropout": 0.2}}, "target": {{"kind": "embedding", "size": 4}},
                    "encoder": {encoder}, {way}}}"#
            );
            let streams = serde_json::from_str(question[(i + j) % question.len()]).unwrap();
            let case =
                Case { config: serde_json::from_str(&text).unwrap(), streams: vec![("question".into(), streams)] };
            assert_eq!(case.config.problems(Streams(&case.streams), false), [], "{case:?}");
            all.push(case);
        }
    }
    all
}

/// Sentences of these lengths, one behind another, each closed.
fn story(name: &str, sentences: &[usize]) -> Vec<TokenId> {
    let of = |(n, &length): (usize, &usize)| row(&format!("{name} {n}"), length, SOURCE as u64);
    let words: Vec<TokenId> = sentences.iter().enumerate().flat_map(of).collect();
    if words.is_empty() { vec![Special::End.id()] } else { words }
}

fn batch_of(stories: &[Vec<TokenId>]) -> Batch {
    let rows = 0..stories.len();
    // Below the vocabularies of both the source and a stream.
    let questions: Vec<Vec<TokenId>> = rows.clone().map(|b| row(&format!("q{b}"), b % 3, 7)).collect();
    let targets: Vec<Vec<TokenId>> = rows.clone().map(|b| row(&format!("a{b}"), 1 + b % 2, TARGET as u64)).collect();
    let tokens = |rows: &[Vec<TokenId>]| SourceBatch::Tokens(TokenBatch::from_rows(rows));
    Batch {
        sources: vec![tokens(stories), tokens(&questions)],
        target: Target::whole(&targets),
        continues: Vec::new(),
        examples: rows.collect(),
        copies: None,
    }
}

/// Short and long ones, an empty sentence among others, and a story without a word.
fn stories() -> Vec<Vec<TokenId>> {
    [&[2, 4, 1][..], &[3], &[], &[1, 0, 2, 5]].iter().enumerate().map(|(b, of)| story(&format!("s{b}"), of)).collect()
}

fn ready(case: &Case, device: &Device) -> Model {
    super::model_of(case, &[SOURCE, if case.streams[0].1.shared { SOURCE } else { super::STREAMS[0] }], device)
}

#[test]
fn stories_are_the_same_by_steps_beside_padding_and_in_their_gradients() {
    let batch = batch_of(&stories());
    for case in cases() {
        let still = ready(&case, &Device::flex());
        assert_steps_are_the_whole(&case, &still, &batch);
        assert_rows_stand_alone(&case, &still, &batch);
        let learns = ready(&case, &Device::flex().autodiff());
        for key in [None, Some(Key::from_seed(3))] {
            let loss = |model: &Model| loss(model, &batch, &mut Carry::default(), key, 0.1);
            assert_gradient(&learns, &format!("{key:?} {case:?}"), loss);
        }
    }
}

/// Whatever asks reads the question: another one is answered otherwise.
#[test]
fn a_question_counts_where_it_is_asked() {
    let batch = batch_of(&stories());
    let other = |batch: &Batch| {
        let question = vec![row("another", 2, 7); batch.target.rows()];
        let sources = vec![batch.sources[0].clone(), SourceBatch::Tokens(TokenBatch::from_rows(&question))];
        Batch { sources, ..batch.clone() }
    };
    let alone = |case: &&Case| format!("{case:?}").contains("of: Some(\"source\")");
    for case in cases().iter().filter(alone) {
        let model = ready(case, &Device::flex());
        assert_ne!(scores(&model, &batch), scores(&model, &other(&batch)), "{case:?}");
    }
}

#[test]
fn of_a_long_story_only_the_last_sentences_are_read_where_that_is_said() {
    let last = |case: &&Case| format!("{:?}", case.config).contains("most: Some(2)");
    let (long, short) = (story("s", &[3, 2, 4, 1]), story("s", &[3, 2, 4, 1])[7..].to_vec());
    for case in cases().iter().filter(last).filter(|case| format!("{case:?}").contains("None(NoAttention")) {
        let model = ready(case, &Device::flex());
        let of = |story: &[TokenId]| scores(&model, &batch_of(&[story.to_vec()]));
        assert_close(&of(&long), &of(&short), &format!("{case:?}"));
        assert_ne!(of(&long), of(&story("s", &[3])), "{case:?}");
    }
}

#[test]
fn what_cannot_be_asked_is_told() {
    let problems = |encoder: &str, question: &str| {
        let text = format!(r#"{{"source": {{"kind": "embedding", "size": 4}}, "encoder": {encoder}}}"#);
        let config: antiphon_model::ModelConfig = serde_json::from_str(&text).unwrap();
        let streams = vec![("question".to_owned(), serde_json::from_str(question).unwrap())];
        let found = config.problems(Streams(&streams), false);
        found.into_iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect::<Vec<_>>()
    };
    let stack = |stages: &str| format!(r#"{{"kind": "stack", "stages": [{stages}]}}"#);
    let [sum, reduce, hop] = STAGES;
    let shared = r#"{"shared": true, "encoder": {"kind": "stack", "stages": [{"kind": "sentences"}]}}"#;
    let wide = r#"{"shared": true, "encoder": {"kind": "gru", "hidden": 5}}"#;
    let told = |stages: &str, question: &str, place: &str, what: &str| {
        let found = problems(&stack(stages), question);
        assert!(found.iter().any(|text| text.starts_with(place) && text.contains(what)), "{stages}: {found:?}");
    };
    told(&format!("{sum}, {reduce}"), wide, "model.encoder.stages.1.query", "10 wide");
    let query = |stage: &str| format!("{sum}, {}", stage.replace("question", "qestion"));
    told(&query(reduce), shared, "model.encoder.stages.1.query", "there is `question`");
    told(&query(hop), shared, "model.encoder.stages.1.query", "there is `question`");
    told(&format!("{sum}, {sum}"), shared, "model.encoder.stages.1.kind", "fewer steps");
    let asks = format!(
        r#"{{"shared": true, "encoder": {}}}"#,
        stack(&format!("{sum}, {}", hop.replace("question", "source")))
    );
    told(&format!("{sum}, {hop}"), &asks, "model.encoder.stages.1.query", "itself");
    assert_eq!(problems(&stack(&format!("{sum}, {reduce}, {hop}")), shared), [""; 0]);
}
