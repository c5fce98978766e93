//! A whole experiment as one TOML file.

use std::collections::BTreeMap;

use antiphon_data::{BatchConfig, CorpusConfig};
use antiphon_decode::SearchConfig;
use antiphon_eval::MetricConfig;
use antiphon_eval::error_rate::SequenceErrorRateConfig;
use antiphon_lab::sweep::SweepConfig;
use antiphon_lab::{ExpectConfig, PassMark, leave_out};
use antiphon_model::ModelConfig;
use antiphon_sound::{FeaturesConfig, SpecAugmentConfig};
use antiphon_text::TokenizerConfig;
use antiphon_train::TrainConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::no_answer::NoAnswerConfig;
use super::rerank::RerankConfig;
use super::streams::Streams;
use crate::device::DeviceConfig;

/// An experiment: data, tokenizers, model, training, search and evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExperimentConfig {
    /// What the run is called. If unset: the config's path below `configs`, with `-` for `/`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub name: Option<String>,
    /// The seed of everything random: initial parameters, order of the examples, dropout.
    #[serde(default = "first_seed")]
    pub seed: u64,
    /// Where tensors live.
    #[serde(default)]
    pub device: DeviceConfig,
    /// How many threads compute; if unset, as many as there are physical cores. Another number rounds differently, and a training then drifts apart as under another seed.
    #[serde(default)]
    #[schemars(range(min = 1, max = 4096))]
    pub threads: Option<usize>,
    /// The corpus.
    pub data: CorpusConfig,
    /// What the model is shown of recordings, of a corpus that is a `manifest`. They are kept in the folder `.features` below the
    /// data folder, and made once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeaturesConfig>,
    /// What of them is changed and hidden while the model learns; if unset, nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_augment: Option<SpecAugmentConfig>,
    /// How text becomes tokens; if unset, `character` by character on both sides.
    #[serde(default)]
    #[schemars(extend("examples" = [{"shared": {"kind": "character"}}]))]
    pub tokenizer: TokenizersConfig,
    /// Further sources beside `data.source`: streams of tokens, each with a column of a table, a tokenizer and an encoder of its
    /// own.
    #[serde(default, skip_serializing_if = "Streams::is_empty")]
    #[schemars(extend("examples" = [{"features": {"tokenizer": {"kind": "word"}}}]))]
    pub streams: Streams,
    /// The model.
    #[serde(default)]
    pub model: ModelConfig,
    /// How examples stand together while training.
    #[serde(default)]
    pub batch: BatchConfig,
    /// How the model is trained.
    #[serde(default)]
    pub train: TrainConfig,
    /// How answers are searched.
    #[serde(default)]
    pub search: SearchConfig,
    /// How the answers of a search are ranked anew, by what other models say of them; if unset, they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [{"reverse": "runs/reverse"}]))]
    pub rerank: Option<RerankConfig>,
    /// How answers are judged.
    #[serde(default)]
    pub evaluate: EvaluateConfig,
    /// Variations of this config, for the command `sweep`. Other commands leave them aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [{"seeds": [1, 2]}]))]
    pub sweep: Option<SweepConfig>,
    /// What a run of this config should give, for the command `reproduce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<ExpectConfig>,
}

const fn first_seed() -> u64 {
    1
}

/// The tokenizers: `source` and `target`, or `shared` for both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizersConfig {
    /// The tokenizer of the sources.
    #[serde(default)]
    pub source: Option<TokenizerConfig>,
    /// The tokenizer of the targets.
    #[serde(default)]
    pub target: Option<TokenizerConfig>,
    /// One tokenizer for both sides, learned from both.
    #[serde(default)]
    pub shared: Option<TokenizerConfig>,
    /// The splits from whose text the tokenizers are learned.
    #[serde(default = "train_only")]
    #[schemars(extend("uniqueItems" = true))]
    pub learn_from: Vec<LearnFrom>,
}

fn train_only() -> Vec<LearnFrom> {
    vec![LearnFrom::Train]
}

impl Default for TokenizersConfig {
    fn default() -> Self {
        let one = || Some(TokenizerConfig::default());
        Self { source: one(), target: one(), shared: None, learn_from: train_only() }
    }
}

/// A split from whose text tokenizers may be learned. The test split is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LearnFrom {
    /// What the model is trained on.
    Train,
    /// What choices are made on.
    Validation,
}

/// How answers are judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluateConfig {
    /// The metrics over searched answers. Without any there is no search, and only losses are measured.
    pub metrics: Vec<MetricConfig>,
    /// Columns of a table by whose values the metrics are also computed, each value's examples by themselves.
    #[schemars(extend("uniqueItems" = true))]
    pub by: Vec<String>,
    /// The column of a table that names the sentences by which a question is answered, counted from 1, as a list or with commas or
    /// spaces between them. It is then measured how many of them are among the sentences that count most to an encoder that reads the
    /// question (`support`), and the page shows both. If unset: nothing is known of such.
    #[schemars(length(min = 1), example = &"support")]
    pub support: Option<String>,
    /// What a metric must be, by its name, for a value of one of these columns to have passed, or for a cell of a sweep of
    /// `restarts`: so much or more, or where less is better, so much or less. It is told how many pass.
    #[schemars(extend("examples" = [{"exact_match": 95.0}]))]
    pub pass_mark: BTreeMap<String, f64>,
    /// Whether answers are withheld of which the model is not sure.
    pub no_answer: NoAnswerConfig,
    /// How many sentences are searched together; eight times as many on a GPU.
    #[schemars(range(min = 1))]
    pub rows: usize,
    /// On how many examples of the validation split, drawn by the seed, the metrics are also computed at every validation
    /// of the training. 0: only at the end, on all.
    pub validation_examples: usize,
    /// In how many parts, side by side, running text is read at every validation of the training, which is quicker the more there
    /// are. At the end it is read in one. Several documents are always read side by side, since their states are their own.
    #[schemars(range(min = 1, max = 65536))]
    pub parts: usize,
    /// Running text is also judged with a state that is reset every so many tokens, and sees but one token before them, as a model
    /// with a window of so many would: its figures stand beside the plain ones, and end with `_reset`. 0: it is not.
    #[schemars(range(max = 65536))]
    pub reset: usize,
    /// Whether a language model is also judged at a temperature of its softmax: its figures stand beside the plain ones, and end
    /// with `_tempered`.
    pub temperature: Temperature,
    /// How many texts a language model begins at every validation of the training, for people to read: they stand in `metrics.jsonl`
    /// and on the page of the run. They are drawn by the seed and the step, under `search` if that samples. 0: none.
    #[schemars(range(max = 64))]
    pub samples: usize,
    /// How many answers are shown at the end.
    pub show: usize,
}

/// A temperature by which the logits of a language model are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Temperature {
    /// None but 1.
    #[default]
    None,
    /// The one under which the validation split is most probable.
    Fit,
}

impl EvaluateConfig {
    /// The columns of a table that figures need beside sources and targets, each with the setting that names it.
    pub(crate) fn kept_columns(&self) -> Vec<(String, String)> {
        let by = self.by.iter().map(|column| ("evaluate.by".to_owned(), column.clone()));
        let support = self.support.iter().map(|column| ("evaluate.support".to_owned(), column.clone()));
        let of_metric = |(i, metric): (usize, &MetricConfig)| {
            metric.columns().into_iter().map(move |column| (format!("evaluate.metrics.{i}.column"), column))
        };
        let of_metrics = self.metrics.iter().enumerate().flat_map(of_metric);
        let mut kept: Vec<(String, String)> = Vec::new();
        for (setting, column) in by.chain(support).chain(of_metrics) {
            if kept.iter().all(|(_, other)| *other != column) {
                kept.push((setting, column));
            }
        }
        kept
    }
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self {
            metrics: vec![MetricConfig::SequenceErrorRate(SequenceErrorRateConfig {})],
            by: Vec::new(),
            support: None,
            pass_mark: BTreeMap::new(),
            no_answer: NoAnswerConfig::default(),
            rows: 64,
            validation_examples: 0,
            parts: 1,
            reset: 0,
            temperature: Temperature::None,
            samples: 3,
            show: 12,
        }
    }
}

impl EvaluateConfig {
    /// The metrics with the labels of their figures: a metric's name; where it is used again, `name_2`, `name_3`, …
    pub fn labelled(&self) -> impl Iterator<Item = (String, &MetricConfig)> {
        self.metrics.iter().enumerate().map(|(i, metric)| {
            let name = metric.name();
            let before = self.metrics[..i].iter().filter(|other| other.name() == name).count();
            (if before == 0 { name.to_owned() } else { format!("{name}_{}", before + 1) }, metric)
        })
    }

    /// What the figures under a label must be to pass, if that is told.
    pub(crate) fn mark(&self, label: &str) -> Option<PassMark> {
        let mark = *self.pass_mark.get(label)?;
        let (_, metric) = self.labelled().find(|(own, _)| own == label)?;
        Some(if metric.lower_is_better() { PassMark::AtMost(mark) } else { PassMark::AtLeast(mark) })
    }
}

impl ExperimentConfig {
    /// Whether answers are searched to be judged: a language model has no sources to answer.
    pub(crate) fn searches(&self) -> bool {
        self.searched().next().is_some()
    }

    /// The metrics over searched answers, with their labels.
    pub(crate) fn searched(&self) -> impl Iterator<Item = (String, &MetricConfig)> {
        self.evaluate.labelled().filter(|_| self.data.has_source())
    }

    /// The settings that decide a run's figures, as JSON: all but its name and the threads, which an
    /// [`Identity`](antiphon_lab::Identity) has of its own, what is only shown, and what other commands read.
    pub(crate) fn decisive(&self) -> Value {
        let EvaluateConfig { show, samples, .. } = EvaluateConfig::default();
        let evaluate = EvaluateConfig { show, samples, ..self.evaluate.clone() };
        let plain = Self { name: None, threads: None, evaluate, sweep: None, expect: None, ..self.clone() };
        serde_json::to_value(plain).expect("a config is JSON")
    }

    /// Of these settings those that count for a digest: a setting that is younger than runs that there are, and at its default,
    /// does not, so that they stay the runs of their experiments.
    pub(crate) fn counted(&self) -> Value {
        without_uncounted(self.decisive())
    }
}

/// Settings that are younger than version 0.2.0, as JSON pointers, with their defaults; `*` stands for any one key or entry.
fn young() -> Vec<(&'static str, Value)> {
    vec![
        ("/model/kind", "encoder_decoder".into()),
        ("/model/head", json!({ "kind": "softmax" })),
        ("/model/*/locked_dropout", false.into()),
        ("/model/*/word_dropout", 0.0.into()),
        ("/model/*/weight_drop", 0.0.into()),
        ("/model/encoder/stages/*/locked_dropout", false.into()),
        ("/model/encoder/stages/*/weight_drop", 0.0.into()),
        ("/model/encoder/residual", false.into()),
        ("/model/encoder/stages/*/residual", false.into()),
        ("/model/decoder/widths", json!([])),
        ("/model/decoder/projection", Value::Null),
        ("/model/decoder/output_dropout", Value::Null),
        ("/model/decoder/activation_penalty", 0.0.into()),
        ("/model/decoder/temporal_penalty", 0.0.into()),
        ("/model/decoder/attention/heads", 1.into()),
        ("/model/decoder/attention/coverage", false.into()),
        ("/model/decoder/attention/coverage_penalty", 0.0.into()),
        ("/model/decoder/attention/sharpening", 1.0.into()),
        ("/model/bridge/of", Value::Null),
        ("/model/*/deviation", Value::Null),
        ("/streams/*/input/deviation", Value::Null),
        ("/model/memories", json!({ "kind": "concatenated" })),
        ("/tokenizer/*/separator", Value::Null),
        ("/tokenizer/*/compound", Value::Null),
        ("/streams/*/tokenizer/compound", Value::Null),
        ("/tokenizer/*/sentences", false.into()),
        ("/streams/*/tokenizer/sentences", false.into()),
        ("/streams/*/shared", false.into()),
        ("/spec_augment/speed", 0.0.into()),
        ("/spec_augment/frequency_warp", 0.0.into()),
        ("/spec_augment/noise", 0.0.into()),
        ("/search/ctc_weight", 0.0.into()),
        ("/evaluate/by", json!([])),
        ("/evaluate/support", Value::Null),
        ("/evaluate/pass_mark", json!({})),
        ("/evaluate/no_answer", json!({ "kind": "never" })),
        ("/evaluate/parts", 1.into()),
        ("/evaluate/reset", 0.into()),
        ("/evaluate/temperature", "none".into()),
        ("/evaluate/samples", 3.into()),
        ("/train/average", json!({ "kind": "none" })),
        ("/train/parameters", json!({ "frozen": [], "learning_rates": {}, "towards_start": {} })),
        (
            "/train/start_from",
            json!({ "model": null, "parts": [], "leave_out": [], "tokenizers": "learn", "vectors": {} }),
        ),
        ("/train/teacher", json!({ "models": [], "weights": [], "combine": null, "weight": 0.5, "temperature": 1.0 })),
    ]
}

/// Those of them that are at their defaults. No run that has streams is older than what is looked at of them.
pub(super) fn uncounted(settings: &Value) -> Vec<String> {
    let has_streams = settings["streams"].as_object().is_some_and(|streams| !streams.is_empty());
    let found = |(pattern, default): (&str, Value)| {
        let found = matching(settings, &pattern.split('/').skip(1).collect::<Vec<_>>());
        found.into_iter().filter(move |(_, value)| is_same(value, &default)).map(|(key, _)| key).collect::<Vec<_>>()
    };
    let young = young().into_iter().filter(|(pattern, _)| !(has_streams && *pattern == "/model/memories"));
    young.flat_map(found).collect()
}

/// What lies below `settings` where these keys lead, each with its JSON pointer.
fn matching<'v>(settings: &'v Value, keys: &[&str]) -> Vec<(String, &'v Value)> {
    let Some((first, rest)) = keys.split_first() else { return vec![(String::new(), settings)] };
    let below: Vec<(String, &Value)> = match settings {
        Value::Object(table) => table.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    let below = below.into_iter().filter(|(key, _)| *first == "*" || key == first);
    let further = |(key, value): (String, &'v Value)| {
        matching(value, rest).into_iter().map(move |(pointer, value)| (format!("/{key}{pointer}"), value))
    };
    below.flat_map(further).collect()
}

/// Whether two values are equal, where a whole number may stand for another.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Settings without those of them.
pub(super) fn without_uncounted(mut settings: Value) -> Value {
    let keys = uncounted(&settings);
    leave_out(&mut settings, &keys);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::SourceStreamConfig;

    #[test]
    fn what_is_young_and_at_its_default_does_not_count() {
        let of = |model: &str| {
            let text = format!(r#"{{"data": {{"kind": "text", "train": "a"}}, "model": {model}}}"#);
            serde_json::from_str::<ExperimentConfig>(&text).unwrap().counted()["model"].clone()
        };
        let plain = of("{}");
        assert_eq!(plain, of(r#"{"kind": "encoder_decoder", "head": {"kind": "softmax"}}"#));
        assert!(plain.get("kind").is_none() && plain.get("head").is_none());
        assert_eq!(of(r#"{"kind": "language_model"}"#)["kind"], "language_model");
        assert_eq!(of(r#"{"decoder": {"kind": "lstm", "weight_drop": 0.5}}"#)["decoder"]["weight_drop"], 0.5);
        let explicit = r#"{"decoder": {"kind": "lstm", "weight_drop": 0, "widths": []},
                           "source": {"kind": "embedding", "word_dropout": 0}}"#;
        assert_eq!(plain, of(explicit));
        assert_eq!(uncounted(&json!({ "model": { "decoder": { "weight_drop": 0 } } })), ["/model/decoder/weight_drop"]);
        let memories = |streams: Value| {
            uncounted(&json!({ "streams": streams, "model": { "memories": { "kind": "concatenated" } } }))
        };
        assert_eq!(
            (memories(json!({})), memories(json!({ "case": {} }))),
            (vec![String::from("/model/memories")], Vec::new())
        );
        let stack = |stage: &str| of(&format!(r#"{{"encoder": {{"kind": "stack", "stages": [{stage}]}}}}"#));
        assert_eq!(stack(r#"{"kind": "gru"}"#), stack(r#"{"kind": "gru", "weight_drop": 0.0}"#));
        assert_ne!(stack(r#"{"kind": "gru"}"#), stack(r#"{"kind": "gru", "weight_drop": 0.1}"#));
    }

    /// A default that changes would make older runs other experiments.
    #[test]
    fn what_is_young_is_at_its_default_where_nothing_is_set() {
        let of = |text: &str| {
            let data: CorpusConfig = serde_json::from_str(r#"{"kind": "text", "train": "a"}"#).unwrap();
            let model: ModelConfig = serde_json::from_str(text).unwrap();
            let word = TokenizerConfig::Word(antiphon_text::WordConfig::default());
            let stream = SourceStreamConfig { tokenizer: word.clone(), ..SourceStreamConfig::default() };
            let tokenizer = TokenizersConfig { target: Some(word), ..TokenizersConfig::default() };
            json!({
                "tokenizer": tokenizer, "streams": { "case": stream }, "data": data, "model": model, "train": TrainConfig::default(),
                "search": SearchConfig::default(), "evaluate": EvaluateConfig::default(), "spec_augment": SpecAugmentConfig::default(),
            })
        };
        let whole = [
            of("{}"),
            of(r#"{"encoder": {"kind": "stack", "stages": [{"kind": "gru"}]}}"#),
            of(r#"{"decoder": {"kind": "gru", "attention": {"kind": "additive"}}}"#),
        ];
        for (pattern, default) in young() {
            let keys: Vec<&str> = pattern.split('/').skip(1).collect();
            let found: Vec<_> = whole.iter().flat_map(|settings| matching(settings, &keys)).collect();
            assert!(
                !found.is_empty() && found.iter().all(|(_, value)| is_same(value, &default)),
                "{pattern}: {found:?}"
            );
        }
        let mut text = of(r#"{"kind": "language_model"}"#);
        leave_out(&mut text, &["/streams".to_owned()]);
        let all = uncounted(&text);
        assert!(all.contains(&"/model/decoder/widths".into()) && all.contains(&"/model/target/word_dropout".into()));
    }

    #[test]
    fn metrics_of_one_name_get_labels_of_their_own() {
        let bleu = || MetricConfig::Bleu(antiphon_eval::bleu::BleuConfig::default());
        let wrong = || MetricConfig::SequenceErrorRate(SequenceErrorRateConfig {});
        let config = EvaluateConfig { metrics: vec![bleu(), wrong(), bleu()], ..EvaluateConfig::default() };
        let labels: Vec<String> = config.labelled().map(|(label, _)| label).collect();
        assert_eq!(labels, ["bleu", "sequence_error_rate", "bleu_2"]);
    }
}
