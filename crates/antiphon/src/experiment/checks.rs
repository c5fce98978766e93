//! What no schema can say: settings that contradict each other, within a section and between sections.
//!
//! Each section is read on its own, so that a mistake in one does not hide the contradictions of the others.

use antiphon_config::{Tree, keys};
use antiphon_core::Problem;
use antiphon_data::corpus::{ColumnNames, TableConfig};
use antiphon_data::plan::Counted;
use antiphon_data::{BatchConfig, CorpusConfig, FurtherColumns, Split};
use antiphon_decode::SearchConfig;
use antiphon_lab::ExpectConfig;
use antiphon_lab::sweep::SweepConfig;
use antiphon_model::{FramesConfig, ModelConfig};
use antiphon_sound::{FeaturesConfig, SpecAugmentConfig};
use antiphon_text::{TokenizerConfig, normalize};
use antiphon_train::{ScheduleConfig, TrainConfig};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::config::{EvaluateConfig, ExperimentConfig, LearnFrom, Temperature, TokenizersConfig};
use super::evaluation::{CTC_LOSS, figures_of_likelihood};
use super::meaning::figures;
use super::no_answer::{FittedConfig, NoAnswerConfig};
use super::rerank::RerankConfig;
use super::streams::{Streams, copies_from, further_columns, model_problems, model_warnings, sentences};

/// A learning rate below this is meant for other schedules than `noam`, whose factor it is.
const LEAST_FACTOR: f64 = 0.05;

/// The sections that could be read.
pub(super) struct Sections {
    data: Option<CorpusConfig>,
    features: Option<FeaturesConfig>,
    spec_augment: Option<SpecAugmentConfig>,
    tokenizer: Option<TokenizersConfig>,
    streams: Option<Streams>,
    model: Option<ModelConfig>,
    batch: Option<BatchConfig>,
    train: Option<TrainConfig>,
    search: Option<SearchConfig>,
    rerank: Option<RerankConfig>,
    evaluate: Option<EvaluateConfig>,
    sweep: Option<SweepConfig>,
    expect: Option<ExpectConfig>,
}

impl Sections {
    /// Those of a tree as `ExperimentConfig` sees it: what a section leaves to the whole, the `kind` that its table has by
    /// default, stands in it.
    pub(super) fn of(tree: &Tree) -> Self {
        fn read<T: DeserializeOwned + JsonSchema>(tree: &Tree, key: &str, default: Option<T>) -> Option<T> {
            match tree.clone().take(key) {
                Some(section) => section.read().ok(),
                None => default,
            }
        }
        Self {
            data: read(tree, "data", None),
            features: read(tree, "features", None),
            spec_augment: read(tree, "spec_augment", None),
            tokenizer: read(tree, "tokenizer", Some(TokenizersConfig::default())),
            streams: read(tree, "streams", Some(Streams::default())),
            model: read(tree, "model", Some(ModelConfig::default())),
            batch: read(tree, "batch", Some(BatchConfig::default())),
            train: read(tree, "train", Some(TrainConfig::default())),
            search: read(tree, "search", Some(SearchConfig::default())),
            rerank: read(tree, "rerank", None),
            evaluate: read(tree, "evaluate", Some(EvaluateConfig::default())),
            sweep: read(tree, "sweep", None),
            expect: read(tree, "expect", None),
        }
    }

    /// The corpus, and what is read of it beside source and target.
    pub(super) fn columns(&self) -> Option<(&CorpusConfig, FurtherColumns)> {
        let (none, plain) = (Streams::default(), EvaluateConfig::default());
        let streams = self.streams.as_ref().unwrap_or(&none);
        Some((self.data.as_ref()?, further_columns(streams, self.evaluate.as_ref().unwrap_or(&plain))))
    }

    /// Everything that cannot work.
    pub(super) fn problems(&self, tree: &Tree) -> Vec<Problem> {
        let mut found = Found { tree, problems: Vec::new() };
        if let (Some(data), Some(model)) = (&self.data, &self.model) {
            match (data.has_source(), model.has_source()) {
                (false, true) => {
                    let message = "an encoder-decoder answers sources, and a text corpus has none; set `kind = \"language_model\"`, \
                                   or take a corpus of `pairs`";
                    found.add("model.kind", message);
                }
                (true, false) => {
                    let message = "a language model reads no sources, and this corpus has some; set `kind = \"text\"` or \
                                   `\"stream\"`, or let `model.kind` be `encoder_decoder`";
                    found.add("data.kind", message);
                }
                (true, true) | (false, false) => {}
            }
        }
        if let Some(data) = &self.data {
            found.below("data", data.problems());
            self.column_problems(data, &mut found);
            self.recording_problems(data, &mut found);
        }
        if let (true, Some(BatchConfig::Tokens(tokens))) = (self.lacks_sources(), &self.batch)
            && tokens.counted == Counted::Source
        {
            found.add("batch.counted", "a text corpus has no sources; count those of the `target`");
        }
        if let Some(tokenizer) = &self.tokenizer {
            self.tokenizer_problems(tokenizer, &mut found);
        }
        if let Some(model) = &self.model {
            let shared = self.tokenizer.as_ref().is_none_or(|tokenizer| tokenizer.shared.is_some());
            let none = Streams::default();
            let model = model.clone().with_frames(self.frame_width().unwrap_or(1));
            found.extend(model_problems(&model, self.streams.as_ref().unwrap_or(&none), shared));
            self.copy_problems(&model, &mut found);
        }
        if let Some(train) = &self.train {
            found.below("train", train.problems());
            self.validation_problems(train, &mut found);
            self.teacher_problems(train, &mut found);
        }
        if let Some(rerank) = &self.rerank {
            found.below("rerank", rerank.problems(self.search.as_ref(), self.data.as_ref()));
        }
        if let Some(search) = &self.search {
            found.below("search", search.problems());
            let of_ctc = if let SearchConfig::Beam(beam) = search { beam.ctc_weight } else { 0.0 };
            match self.model.as_ref().map(ModelConfig::ctc_weight) {
                Some(None) if of_ctc > 0.0 && self.has_decoder() => {
                    found.add("search.ctc_weight", "the model has no CTC to search with; set `[model.ctc]`");
                }
                Some(Some(1.0)) if of_ctc < 1.0 && !matches!(search, SearchConfig::BestPath(_)) => {
                    let message = "the decoder learns nothing where CTC has all of the loss; search with `kind = \"beam\"` and \
                                   `ctc_weight = 1.0`, or lower `model.ctc.weight`";
                    found.add("search", message);
                }
                _ => {}
            }
            if let (SearchConfig::BestPath(_), Some(false)) =
                (search, self.model.as_ref().map(ModelConfig::says_by_steps))
            {
                let message =
                    "the model has no CTC, whose best path it would be; set `[model.ctc]`, or `model.kind = \"ctc\"`";
                found.add("search.kind", message);
            }
            let chooses =
                self.data.as_ref().and_then(CorpusConfig::as_table).is_some_and(|table| table.candidates.is_some());
            if matches!(search, SearchConfig::BestPath(_)) && chooses {
                let message = "the best path of CTC is what it is, and cannot be one of `data.candidates`; use a beam";
                found.add("search.kind", message);
            }
            if search.fusion().is_some() && self.lacks_sources() {
                let message = "has a say in what answers sources, and this corpus has none; remove it";
                found.add("search.language_model", message);
            }
            if search.fusion().is_some() && self.model.as_ref().is_some_and(ModelConfig::copies) {
                let message = "has no say in words that are copied, and `model.head` copies; remove it, or set \
                               `model.head.kind = \"softmax\"`";
                found.add("search.language_model", message);
            }
        }
        if let Some(evaluate) = &self.evaluate {
            if evaluate.temperature == Temperature::Fit && self.lacks_sources() && self.lacks_validation() {
                found.add("evaluate.temperature", "is fitted on a validation split; set `data.validation`");
            }
            if matches!(evaluate.no_answer, NoAnswerConfig::Fitted(_))
                && !self.lacks_sources()
                && self.lacks_validation()
            {
                found.add(
                    "evaluate.no_answer.kind",
                    "the threshold is chosen on a validation split; set `data.validation`",
                );
            }
            if let (NoAnswerConfig::Fitted(FittedConfig { accuracy: None, .. }), Some(metric)) =
                (&evaluate.no_answer, evaluate.metrics.first().filter(|metric| !metric.judges_each()))
            {
                let message = format!(
                    "the threshold is the one under which the first metric is best, and `{}` judges no answer by itself; name another \
                     metric first, or set `evaluate.no_answer.accuracy`",
                    metric.name()
                );
                found.add("evaluate.no_answer.kind", message);
            }
            for (i, metric) in evaluate.metrics.iter().enumerate() {
                if evaluate.metrics[..i].contains(metric) {
                    found.add(
                        &format!("evaluate.metrics.{i}"),
                        "this metric, with these settings, is named above; remove one",
                    );
                }
            }
        }
        let over = tree.value().pointer("/sweep/over").and_then(serde_json::Value::as_object);
        for (key, axis) in over.into_iter().flatten() {
            let place = format!("sweep.over.{}", serde_json::Value::from(key.as_str()));
            if axis.is_object() && !axis["kind"].is_string() {
                found.add(&place, "a dotted key stands in quotes: `\"model.encoder.hidden\" = [64, 128]`");
            }
            let bare =
                |entry: &serde_json::Value| entry.as_object().is_some_and(|t| t.keys().all(|key| !key.contains('.')));
            let entries = axis.as_array().filter(|entries| !entries.is_empty() && entries.iter().all(bare));
            if entries.is_some() && !keys::<ExperimentConfig>().contains(key) {
                let message = "is no setting; those that move together stand in tables of dotted keys, in quotes: \
                               `[{ \"model.encoder.hidden\" = 64, \"model.decoder.hidden\" = 128 }, …]`";
                found.add(&place, message);
            }
        }
        if let Some(sweep) = &self.sweep {
            found.below("sweep", sweep.problems());
        }
        if let (Some(expect), Some(evaluate)) = (&self.expect, &self.evaluate) {
            let labels: Vec<String> = figures(evaluate, !self.lacks_sources()).into_keys().collect();
            found.below("expect", expect.problems(&labels));
        }
        found.problems
    }

    fn tokenizer_problems(&self, config: &TokenizersConfig, found: &mut Found<'_>) {
        let TokenizersConfig { source, target, shared, learn_from } = config;
        let sides = [("source", source), ("target", target), ("shared", shared)];
        for (name, tokenizer) in sides {
            if let Some(tokenizer) = tokenizer {
                found.below(&format!("tokenizer.{name}"), tokenizer.problems());
                if tokenizer.has_sentences() && name != "source" {
                    let message = "a target ends with its first end symbol, so that it has one sentence; set `sentences` in \
                                   `[tokenizer.source]` alone";
                    found.add(&format!("tokenizer.{name}"), message);
                }
            }
        }
        if shared.is_some() {
            for (name, _) in sides.iter().take(2).filter(|(_, tokenizer)| tokenizer.is_some()) {
                let message = format!("`shared` serves both sides; remove it or `{name}`");
                found.add(&format!("tokenizer.{name}"), message);
            }
        } else {
            let one = self.lacks_sources() || self.is_spoken();
            let needed = if one { &sides[1..2] } else { &sides[..2] };
            for (name, _) in needed.iter().filter(|(_, tokenizer)| tokenizer.is_none()) {
                let shared = if one { "" } else { ", or `[tokenizer.shared]` for both sides" };
                found.add("tokenizer", format!("set `[tokenizer.{name}]`{shared}"));
            }
        }
        let of_streams = self.streams.iter().flatten().filter_map(|(_, stream)| stream.own_tokenizer());
        let learns = sides.iter().filter_map(|(_, side)| side.as_ref()).chain(of_streams).any(|t| t.needs_texts());
        if learns && learn_from.is_empty() {
            found.add("tokenizer.learn_from", "name at least one split: these tokenizers are learned from text");
        }
        if learn_from.contains(&LearnFrom::Validation) && self.lacks_validation() {
            found.add("tokenizer.learn_from", "there is no validation split; set `data.validation`");
        }
    }

    /// Which tokenizers make no words that could be copied.
    fn copy_problems(&self, model: &ModelConfig, found: &mut Found<'_>) {
        let none = Streams::default();
        let streams = self.streams.as_ref().unwrap_or(&none);
        let (Some(from), Some(tokenizer)) = (copies_from(model, streams), &self.tokenizer) else { return };
        // What a tokenizer of another model makes is seen when that is read.
        let is_wordless = |tokenizer: &Option<TokenizerConfig>| {
            tokenizer.as_ref().is_some_and(|one| !matches!(one, TokenizerConfig::Word(_) | TokenizerConfig::Model(_)))
        };
        let mut refuse = |key: &str, name: &str| {
            let other = match name {
                "target" => ", or another `model.head.kind`".to_owned(),
                name => format!(", or leave `{name}` out of `model.head.from`"),
            };
            let message =
                format!("words are copied, and the tokens of this tokenizer are none; set `kind = \"word\"`{other}");
            found.add(key, message);
        };
        let reads_source = from.first() == Some(&true)
            || streams.values().zip(from.iter().skip(1)).any(|(stream, from)| stream.shared && *from);
        if is_wordless(&tokenizer.shared) {
            refuse("tokenizer.shared", "target");
        }
        if is_wordless(&tokenizer.target) {
            refuse("tokenizer.target", "target");
        }
        if reads_source && is_wordless(&tokenizer.source) {
            refuse("tokenizer.source", "source");
        }
        for ((name, stream), _) in streams.iter().zip(from.iter().skip(1)).filter(|(_, from)| **from) {
            if is_wordless(&stream.own_tokenizer().cloned()) {
                refuse(&format!("streams.{name}.tokenizer"), name);
            }
        }
    }

    /// What does not fit between recordings, their features and the model.
    fn recording_problems(&self, data: &CorpusConfig, found: &mut Found<'_>) {
        if let Some(features) = &self.features {
            found.below("features", features.problems());
        }
        if let Some(augment) = &self.spec_augment {
            found.below("spec_augment", augment.problems());
            if augment.frequency_warp > 0.0 && self.features.as_ref().is_some_and(|features| !features.are_bands()) {
                let message = "moves bands, and only the columns of `log_mel` are known to be such; remove it, or set \
                               `features.kind = \"log_mel\"`";
                found.add("spec_augment.frequency_warp", message);
            }
        }
        let frames = self.model.as_ref().map(ModelConfig::frames);
        if data.as_manifest().is_none() {
            for key in ["features", "spec_augment"].into_iter().filter(|key| found.tree.value().get(key).is_some()) {
                found.add(key, "only a manifest has recordings; set `data.kind = \"manifest\"`, or remove it");
            }
            if let Some(Some(_)) = frames {
                let message = "reads frames, and this corpus has no recordings; set `data.kind = \"manifest\"`, or \
                               `model.source.kind = \"embedding\"`";
                found.add("model", message);
            }
            return;
        }
        match (&self.features, frames) {
            (None, _) if found.tree.value().get("features").is_none() => {
                found.add(
                    "features",
                    "not set: say what is made of the recordings, as in `features.kind = \"log_mel\"`",
                );
            }
            (_, Some(Some(FramesConfig { width: Some(width), .. }))) => {
                if let Some(made) = self.frame_width().filter(|made| made != width) {
                    let message =
                        format!("the frames of `features` have {made} numbers, not {width}; leave `width` out");
                    found.add("model.source", message);
                }
            }
            (_, Some(None)) if self.model.as_ref().is_some_and(ModelConfig::has_source) => {
                found.add("model.source.kind", "recordings have no tokens; set `model.source.kind = \"frames\"`");
            }
            _ => {}
        }
        if let (Some(features), Some(Some(_)), Some(key)) =
            (&self.features, frames, self.model.as_ref().and_then(ModelConfig::undivided))
            && features.blocks() > 1
        {
            let planes = features.blocks();
            let message = format!(
                "a frame of `features` is {planes} planes, one of them itself and the others its deltas, and would be read here as \
                 neighbouring bands of one; set `planes = {planes}`, or `planes = 1` if that is meant"
            );
            found.add(&format!("model.{key}"), message);
        }
    }

    /// How many numbers a frame has, if that is known.
    fn frame_width(&self) -> Option<usize> {
        self.features.as_ref().filter(|features| features.problems().is_empty()).map(FeaturesConfig::width)
    }

    /// Whether it is known that sources are recordings.
    fn is_spoken(&self) -> bool {
        self.data.as_ref().is_some_and(|data| data.as_manifest().is_some())
    }

    /// What is wrong with the columns that stand outside of the corpus.
    fn column_problems(&self, data: &CorpusConfig, found: &mut Found<'_>) {
        let streams = self.streams.iter().flatten();
        for (name, stream) in streams {
            let key = format!("streams.{}", serde_json::Value::from(name.as_str()));
            if ["source", "target"].contains(&name.as_str()) {
                found.add(&key, format!("`{name}` is what `data.{name}` is called; give the stream another name"));
            }
            // A name is a part of places, `--set` among them.
            if name.is_empty() || name.contains(|c: char| !c.is_alphanumeric() && c != '_' && c != '-') {
                let message = "a stream's name may hold only letters, digits, `_` and `-`; name the column by `column`";
                found.add(&key, message);
            }
            found.below(&key, stream.problems());
            let message = match data.as_table() {
                None => Some("a further source is a column; set `data.kind = \"table\"`".to_owned()),
                Some(_) => {
                    let column = stream.column(name);
                    data.reads_target(column).or_else(|| data.lacks_column(column))
                }
            };
            if let Some(message) = message {
                let key = if stream.column.is_some() { key + ".column" } else { key };
                found.add(&key, message);
            }
        }
        let by = self.evaluate.iter().flat_map(|evaluate| &evaluate.by).enumerate();
        let by = by.map(|(i, name)| (format!("evaluate.by.{i}"), name));
        let by = by.map(|(key, name)| (key, name.clone()));
        let support = self.evaluate.iter().filter_map(|evaluate| evaluate.support.clone());
        let support = support.map(|name| ("evaluate.support".to_owned(), name));
        let metrics = self.evaluate.iter().flat_map(|evaluate| &evaluate.metrics).enumerate();
        let of_metrics = metrics.filter(|_| !self.lacks_sources()).flat_map(|(i, metric)| {
            metric.columns().into_iter().map(move |name| (format!("evaluate.metrics.{i}.column"), name))
        });
        for (key, name) in by.chain(support).chain(of_metrics) {
            let message = match data.has_columns() {
                false => Some("only a table has columns; set `data.kind = \"table\"`".to_owned()),
                true => data.lacks_column(&name),
            };
            if let Some(message) = message {
                found.add(&key, message);
            }
        }
    }

    /// Whether it is known that the corpus is text without sources.
    fn lacks_sources(&self) -> bool {
        self.data.as_ref().is_some_and(|data| !data.has_source())
    }

    /// Whether the model has a decoder, as far as is known.
    fn has_decoder(&self) -> bool {
        self.model.as_ref().is_none_or(ModelConfig::has_decoder)
    }

    /// Whether it is known that the corpus is running text.
    fn is_stream(&self) -> bool {
        matches!(self.data, Some(CorpusConfig::Stream(_)))
    }

    /// Whether it is known that there is no validation split.
    fn lacks_validation(&self) -> bool {
        self.data.as_ref().is_some_and(|data| !data.has(Split::Validation))
    }

    fn validation_problems(&self, train: &TrainConfig, found: &mut Found<'_>) {
        let (metric, lacking) = (train.validate.metric.as_str(), self.lacks_validation());
        if lacking && train.stop.patience > 0 {
            found.add("train.stop.patience", "early stopping needs a validation split; set `data.validation`");
        }
        if lacking && matches!(train.schedule, ScheduleConfig::Plateau(_)) {
            found.add("train.schedule.kind", "`plateau` needs a validation split; set `data.validation`");
        }
        if lacking && train.average.needs_validation() {
            let kind = train.average.kind();
            found.add("train.average.kind", format!("`{kind}` needs a validation split; set `data.validation`"));
        }
        let has_ctc = self.model.as_ref().is_none_or(ModelConfig::has_ctc);
        let of_likelihood = figures_of_likelihood().map(|(name, _)| name);
        let of_likelihood: Vec<&str> = of_likelihood.filter(|name| has_ctc || *name != CTC_LOSS).collect();
        if of_likelihood.contains(&metric) {
            return;
        }
        let Some(evaluate) = &self.evaluate else { return };
        let labels = evaluate.labelled().filter(|_| !self.lacks_sources()).map(|(label, _)| label);
        let labels: Vec<String> = labels.collect();
        if !labels.iter().any(|label| label == metric) {
            let known = of_likelihood.iter().copied().chain(labels.iter().map(String::as_str));
            let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
            let message = format!("validation does not give `{metric}`; it gives {}", known.join(", "));
            let others = if self.lacks_sources() { "" } else { "; other metrics go into `evaluate.metrics`" };
            found.add("train.validate.metric", message + others);
        } else if evaluate.validation_examples == 0 {
            let message = format!("`{metric}` needs a search at every validation; set `evaluate.validation_examples`");
            found.add("train.validate.metric", message);
        }
    }

    /// That there is somebody to be taught.
    fn teacher_problems(&self, train: &TrainConfig, found: &mut Found<'_>) {
        if !train.teacher.is_used() {
            return;
        }
        if !self.has_decoder() {
            let message = "teachers say how probable each token is behind those before it, and a model without a decoder cannot be \
                           held against that; remove them, or set `model.kind = \"encoder_decoder\"`";
            found.add("train.teacher.models", message);
        }
        if self.model.as_ref().is_some_and(ModelConfig::copies) {
            let message = "teachers say how probable the tokens of the vocabulary are, and `model.head` copies others; remove them, or set \
                           `model.head.kind = \"softmax\"`";
            found.add("train.teacher.models", message);
        }
        if self.model.as_ref().and_then(ModelConfig::ctc_weight) == Some(1.0) {
            let message = "CTC has all of the loss, and the decoder, which would be taught, none; lower `model.ctc.weight`, or remove \
                           them";
            found.add("train.teacher.models", message);
        }
    }

    /// What was set and has no effect, or hardly the one that was meant.
    pub(super) fn warnings(&self, tree: &Tree) -> Warnings {
        let mut found = FoundIdle { found: Found { tree, problems: Vec::new() }, idle: Vec::new() };
        if let Some(model) = &self.model {
            let none = Streams::default();
            found.extend(model_warnings(model, self.streams.as_ref().unwrap_or(&none)));
            self.sentence_warnings(model, &mut found);
            if model.has_widths() {
                found.if_set(&["model.decoder.hidden"], "`widths` says how wide each layer is");
            }
        }
        if let Some(TokenizersConfig { source, target, shared, .. }) = &self.tokenizer {
            let of_streams = self.streams.iter().flatten().filter_map(|(_, stream)| stream.own_tokenizer());
            let learns = [source, target, shared].into_iter().flatten().chain(of_streams).any(|t| t.needs_texts());
            if !learns {
                found.if_set(&["tokenizer.learn_from"], "none of these tokenizers is learned from text");
            }
        }
        if self.lacks_validation() {
            let keys = ["train.validate.metric", "train.validate.every_epochs", "train.validate.every_steps"];
            found.if_set(&keys, "there is no validation split");
            found.if_set(&["evaluate.validation_examples"], "there is no validation split");
        }
        if let Some(train) = &self.train {
            found.below("train", train.warnings());
            if let ScheduleConfig::Noam(noam) = &train.schedule {
                let rate = train.optimizer.learning_rate();
                // The equation's peak, at the end of the warm-up.
                let peak = rate / (noam.width as f64 * noam.warmup as f64).sqrt();
                if rate < LEAST_FACTOR {
                    let message = format!(
                        "under `noam` this is a factor, near 1 as a rule; {rate} lets the rate rise to {peak:.1e} and no \
                         higher: raise it, or take `inverse_sqrt`, whose highest rate it is"
                    );
                    found.found.add("train.optimizer.learning_rate", message);
                }
            }
            if let (ScheduleConfig::Noam(noam), Some(model)) = (&train.schedule, &self.model) {
                let hidden = model.width();
                if noam.width != hidden as u64 {
                    let width = noam.width;
                    let message =
                        format!("the learning rate is scaled by a width of {width}, and the decoder is {hidden} wide");
                    found.found.add("train.schedule.width", message);
                }
            }
        }
        if self.lacks_sources() {
            found.if_set(&["tokenizer.source"], "a text corpus has no sources");
            if matches!(&self.batch, Some(BatchConfig::Tokens(tokens)) if tokens.counted == Counted::Both) {
                found.if_set(&["batch.counted"], "a text corpus has no sources to count beside the targets");
            }
            let keys = ["evaluate.metrics", "evaluate.no_answer", "evaluate.validation_examples", "evaluate.show"];
            found.if_set(&keys, "a text corpus has no sources to answer");
            if self.lacks_validation() {
                found.if_set(&["evaluate.samples"], "there is no validation split");
            }
            // What is written goes by them, but no figure does.
            found.idle.extend(["search", "evaluate.samples"].map(str::to_owned));
        } else {
            found.if_set(&["evaluate.temperature"], "only a language model is judged at one");
            found.if_set(&["evaluate.samples"], "only a language model writes without a source");
        }
        if self.is_spoken() {
            found.if_set(&["tokenizer.source"], "recordings have no text");
        }
        if let Some(TableConfig { source: ColumnNames::One(_), .. }) = self.data.as_ref().and_then(|d| d.as_table()) {
            found.if_set(&["data.join"], "the source is one column");
        }
        if self.data.as_ref().and_then(|data| data.as_table()).is_some_and(TableConfig::is_json_lines) {
            found.if_set(&["data.columns"], "JSON lines name their columns themselves");
        }
        if self.is_stream() {
            found.if_set(&["batch"], "running text is cut by `data.rows` and `data.length`");
        } else {
            found.if_set(&["evaluate.parts", "evaluate.reset"], "only running text is read on");
        }
        self.search_warnings(&mut found);
        let smooths = self.train.as_ref().is_some_and(|train| train.loss.label_smoothing > 0.0);
        if smooths && !self.has_decoder() {
            found.if_set(&["train.loss.label_smoothing"], "CTC has the loss of no single token to smooth");
        } else if smooths
            && self.train.as_ref().is_some_and(|train| train.teacher.is_used() && train.teacher.weight == 1.0)
        {
            found.if_set(&["train.loss.label_smoothing"], "teachers have all of the loss");
        }
        if let Some(evaluate) = self.evaluate.as_ref().filter(|evaluate| !evaluate.metrics.is_empty()) {
            let labels: Vec<String> = evaluate.labelled().map(|(label, _)| label).collect();
            for label in evaluate.pass_mark.keys().filter(|label| !labels.contains(label)) {
                let known = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
                let message = format!("`evaluate.metrics` gives no `{label}`; it gives {known}");
                found.if_set(&[&format!("evaluate.pass_mark.{label}")], &message);
            }
        }
        if let Some(NoAnswerConfig::Fitted(FittedConfig { accuracy: Some(percent), .. })) =
            self.evaluate.as_ref().map(|evaluate| &evaluate.no_answer)
            && *percent > 0.0
            && *percent <= 1.0
        {
            let message = format!("is {percent} percent; if a share is meant, write {}", percent * 100.0);
            found.found.add("evaluate.no_answer.accuracy", message);
        }
        if let Some(evaluate) = &self.evaluate
            && evaluate.metrics.is_empty()
            && !self.lacks_sources()
        {
            let keys = [
                "evaluate.by",
                "evaluate.support",
                "evaluate.pass_mark",
                "evaluate.no_answer",
                "evaluate.rows",
                "evaluate.validation_examples",
                "evaluate.show",
            ];
            found.if_set(&keys, "without metrics there is no search");
        }
        Warnings { warnings: found.found.problems, idle: found.idle }
    }

    /// What is said of sentences that nobody tells apart, or that nobody looks at.
    fn sentence_warnings(&self, model: &ModelConfig, found: &mut FoundIdle<'_>) {
        let none = Streams::default();
        let streams = self.streams.as_ref().unwrap_or(&none);
        let (sentences, looks) = sentences(model, streams);
        let tokenizer = self.tokenizer.as_ref().and_then(|all| all.source.as_ref().or(all.shared.as_ref()));
        let tells = |tokenizer: &TokenizerConfig| {
            tokenizer.has_sentences() || matches!(tokenizer, TokenizerConfig::File(_) | TokenizerConfig::Model(_))
        };
        if sentences.first().is_some_and(Option::is_some) && !tokenizer.is_some_and(tells) {
            let message = "the encoder reads sentences, and this tells none apart, so that each text is one; let `kind` be `word`, with \
                           `sentences = true`";
            found.found.add("tokenizer.source", message);
        }
        if !looks {
            found.if_set(&["evaluate.support"], "no encoder reads sentences under a question, one a step");
        }
    }

    fn search_warnings(&self, found: &mut FoundIdle<'_>) {
        for (key, why) in self.rerank.iter().flat_map(RerankConfig::idle) {
            found.if_set(&[&format!("rerank.{key}")], why);
        }
        let Some(search) = &self.search else { return };
        if let SearchConfig::Beam(beam) = search
            && (beam.width, beam.n_best) == (1, 1)
            && beam.patience <= 1.0
        {
            found.if_set(&["search.length_penalty"], "a beam of 1 has one answer, and none to hold it against");
        }
        if search.fusion().is_some_and(|fusion| fusion.weight == 0.0) {
            found.if_set(&["search.language_model"], "its weight is 0");
        }
        if let SearchConfig::Sample(sample) = search
            && sample.draws == 1
            && !self.lacks_sources()
        {
            found.if_set(&["search.length_penalty"], "one draw has none to hold it against");
        }
        if self.lacks_sources() {
            let why = "a language model has one answer to a prompt";
            match search {
                SearchConfig::Sample(_) => found.if_set(&["search.draws", "search.length_penalty"], why),
                SearchConfig::Beam(_) => found.if_set(&["search.n_best"], why),
                SearchConfig::Greedy(_) | SearchConfig::BestPath(_) => {}
            }
            let why = "the longest text of a language model is `limit` tokens long, whatever its prompt";
            found.if_set(&["search.max_length.ratio", "search.max_length.extra"], why);
        }
        if self.is_stream() {
            found.if_set(&["search.min_length"], "running text goes on over line ends, and has no other");
        }
        if let (SearchConfig::Sample(sample), Some(tokenizer)) = (search, &self.tokenizer) {
            let steps = tokenizer.target.as_ref().or(tokenizer.shared.as_ref()).map_or(&[][..], |t| t.normalization());
            for (i, stop) in sample.stop.iter().enumerate().filter(|(_, stop)| normalize(steps, stop) != **stop) {
                let written = normalize(steps, stop);
                let message =
                    format!("no answer holds {stop:?}: by `normalization` the target's texts have {written:?}");
                found.found.add(&format!("search.stop.{i}"), message);
            }
        }
        if !self.has_decoder() {
            found.if_set(&["search.return_attention", "search.ctc_weight"], "the model has no decoder");
        } else if self.model.as_ref().is_some_and(|model| !model.attends()) {
            found.if_set(&["search.return_attention"], "the decoder has no attention");
        }
    }
}

/// What is worth a warning.
pub(super) struct Warnings {
    /// The warnings.
    pub(super) warnings: Vec<Problem>,
    /// The dotted keys, or tables, without effect.
    pub(super) idle: Vec<String>,
}

/// Settings without effect as they are found.
struct FoundIdle<'t> {
    found: Found<'t>,
    idle: Vec<String>,
}

impl FoundIdle<'_> {
    /// Those of these settings that were made.
    fn if_set(&mut self, keys: &[&str], why: &str) {
        for key in keys {
            if self.found.tree.origin(key).is_some() {
                self.found.add(key, format!("has no effect: {why}"));
            }
            self.idle.push((*key).to_owned());
        }
    }

    /// What a section says of its settings.
    fn below(&mut self, section: &str, problems: Vec<Problem>) {
        self.extend(problems.into_iter().map(|problem| problem.below(section)).collect());
    }

    /// What is said of settings by their keys.
    fn extend(&mut self, problems: Vec<Problem>) {
        self.idle.extend(problems.iter().map(|problem| problem.place.to_string()));
        self.found.extend(problems);
    }
}

/// Problems as they are found, each with the place where its setting was made.
struct Found<'t> {
    tree: &'t Tree,
    problems: Vec<Problem>,
}

impl Found<'_> {
    fn add(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(self.tree.problem(key, message));
    }

    fn below(&mut self, section: &str, problems: Vec<Problem>) {
        self.extend(problems.into_iter().map(|problem| problem.below(section)).collect());
    }

    fn extend(&mut self, problems: Vec<Problem>) {
        self.problems.extend(problems.into_iter().map(|problem| self.tree.placed(problem)));
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::Place;

    use crate::experiment::Loaded;

    const GOOD: &str = "
        data = { kind = \"pairs\", train = \"a.tsv\", validation = \"b.tsv\" }
        tokenizer = { source = { kind = \"character\" }, target = { kind = \"word\" } }
        model = {}
        train = { epochs = 1 }
        search = { kind = \"beam\" }";

    const STREAM: &str = "
        data = { kind = \"stream\", train = \"a.txt\" }
        tokenizer = { target = { kind = \"character\" } }
        model = { kind = \"language_model\" }
        train = { epochs = 1 }";

    fn places(sets: &[&str]) -> Vec<String> {
        places_in(GOOD, sets)
    }

    fn places_in(text: &str, sets: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, text).unwrap();
        let sets: Vec<String> = sets.iter().map(|s| s.to_string()).collect();
        match Loaded::read(&file, &sets) {
            Ok(loaded) => loaded.warnings.into_iter().map(|w| format!("warning {}", key(&w.place))).collect(),
            Err(error) => error.problems.iter().map(|p| key(&p.place).to_owned()).collect(),
        }
    }

    /// A place without its origin.
    fn key(place: &Place) -> &str {
        place.as_key().unwrap_or_default()
    }

    #[test]
    fn contradictions_between_sections_are_found() {
        assert_eq!(places(&[]), [""; 0]);
        for (set, expected) in [
            ("train.validate.metric=bleu", "train.validate.metric"),
            ("train.validate.metric=sequence_error_rate", "train.validate.metric"),
            ("tokenizer.shared.kind=character", "tokenizer.source tokenizer.target"),
            ("tokenizer.learn_from=[]", "tokenizer.learn_from"),
            ("tokenizer.learn_from=['train','train']", "tokenizer.learn_from.1"),
            ("model.tied=all", "model.tied"),
            ("data={kind='text',train='a'}", "model.kind"),
            ("model.kind=language_model", "data.kind"),
            ("evaluate.metrics=[{kind='bleu'},{kind='bleu'}]", "evaluate.metrics.1"),
            ("search.min_length=5000", "search.min_length"),
            ("train.loss.label_smoothing=1.0", "train.loss.label_smoothing"),
        ] {
            let found = places(&[set]);
            assert!(expected.split(' ').all(|place| found.iter().any(|f| f == place)), "{set}: {found:?}");
        }
    }

    #[test]
    fn a_language_model_hears_no_other() {
        let search = "search={kind='greedy',language_model={model='lm',weight=0.5}}";
        assert_eq!(places(&[search]), [""; 0]);
        assert_eq!(places_in(STREAM, &[search]), ["search.language_model"]);
    }

    #[test]
    fn only_words_are_copied() {
        let (copy, word) = ("model.head={kind='copy'}", "tokenizer.source.kind=word");
        assert_eq!(places(&[copy]), ["tokenizer.source"]);
        assert_eq!(places(&[copy, word]), [""; 0]);
        assert_eq!(places(&[copy, word, "tokenizer.target={kind='bpe',size=300}"]), ["tokenizer.target"]);
        let shared = "tokenizer={replace=true,shared={kind='character'}}";
        assert_eq!(places(&[copy, shared]), ["tokenizer.shared"]);
        // What is not copied from may have any tokens.
        let table = "data={replace=true,kind='table',train='a.tsv',validation='b.tsv',source='a',target='b'}";
        let facts = "streams.facts={tokenizer={kind='word'}}";
        let from = "model.head={kind='copy',from=['facts']}";
        assert_eq!(places(&[table, facts, from]), [""; 0]);
        let facts = "streams.facts={tokenizer={kind='character'}}";
        assert_eq!(places(&[table, facts, from]), ["streams.facts.tokenizer"]);
        assert_eq!(places(&[table, "streams.facts={shared=true}", from]), ["tokenizer.source"]);
    }

    #[test]
    fn only_bands_are_moved() {
        let spoken = |features: &str| {
            let text = format!(
                "data = {{ kind = \"manifest\", train = \"a.tsv\" }}
                 features = {features}
                 spec_augment = {{ speed = 0.1, noise = 0.1 }}
                 model.source.kind = \"frames\"
                 train = {{ epochs = 1 }}"
            );
            move |sets: &[&str]| places_in(&text, sets)
        };
        let warp = "spec_augment.frequency_warp=0.1";
        assert_eq!(spoken("{ kind = \"log_mel\" }")(&[warp]), [""; 0]);
        for features in ["{ kind = \"mfcc\" }", "{ kind = \"given\", width = 23 }"] {
            assert_eq!(spoken(features)(&[]), [""; 0]);
            assert_eq!(spoken(features)(&[warp]), ["spec_augment.frequency_warp"]);
        }
    }

    /// A kind that is left to its default is known to the sections.
    #[test]
    fn a_section_without_a_kind_is_checked_too() {
        let bare = "data = { train = \"a.tsv\" }\ntrain = { epochs = 1 }\nsearch = { min_length = 5000 }\n\
                    tokenizer = { source = {}, target = { size = 3 } }\nmodel.bridge = { kind = \"copy\" }";
        let found = places_in(bare, &["train.schedule.warmup=3", "train.steps=2", "train.stop.patience=1"]);
        let expected = [
            "model.bridge.kind",
            "search.min_length",
            "tokenizer.target.size",
            "train.schedule.warmup",
            "train.stop.patience",
        ];
        assert!(expected.iter().all(|place| found.iter().any(|f| f == place)) && found.len() == 5, "{found:?}");
    }

    #[test]
    fn a_mistake_in_one_section_does_not_hide_those_of_the_others() {
        let found = places(&["model.hiden=3", "train.stop.min_delta=-1", "search.min_length=5000", "data.kind=pears"]);
        for place in ["model.hiden", "train.stop.min_delta", "search.min_length", "data.kind"] {
            assert!(found.iter().any(|f| f == place), "{place}: {found:?}");
        }
        assert_eq!(found.len(), 4, "{found:?}");
    }

    #[test]
    fn without_a_validation_split_nothing_can_wait_for_one() {
        let data = "data={replace=true,kind='pairs',train='a'}";
        assert_eq!(places(&[data, "train.stop.patience=2"]), ["train.stop.patience"]);
        assert_eq!(places(&[data, "train.schedule.kind=plateau"]), ["train.schedule.kind"]);
        assert_eq!(places(&[data, "train.average.kind=triggered"]), ["train.average.kind"]);
        assert_eq!(places(&[data, "tokenizer.learn_from=['validation']"]), ["tokenizer.learn_from"]);
        assert_eq!(places(&[data, "train.validate.every_steps=2"]), ["warning train.validate.every_steps"]);
    }

    /// Deltas stand behind the bands as planes of their own, and are no neighbours of theirs.
    #[test]
    fn a_convolution_over_bands_is_told_of_the_deltas() {
        let of = |stages: &str, deltas: usize| {
            let text = format!(
                "data = {{ kind = \"manifest\", train = \"a.tsv\", text = \"text\", path = \"path\" }}
                 features = {{ kind = \"log_mel\", rate = 8000, filters = 40, deltas = {deltas} }}
                 tokenizer.target = {{ kind = \"character\" }}
                 model = {{ source = {{ kind = \"frames\" }}, encoder = {{ kind = \"stack\", stages = [{stages}] }} }}
                 train = {{ epochs = 1 }}"
            );
            places_in(&text, &[])
        };
        let (bare, behind) = ("{ kind = \"convolution_2d\" }", "{ kind = \"convolution_2d\" }, { kind = \"lstm\" }");
        for (stages, place) in [
            (bare.to_owned(), Some("model.encoder.stages.0.planes")),
            (format!("{behind}, {bare}"), Some("model.encoder.stages.0.planes")),
            (format!("{{ kind = \"layer_norm\" }}, {bare}"), Some("model.encoder.stages.1.planes")),
            (
                format!("{{ kind = \"time_reduction\", method = \"mean\" }}, {bare}"),
                Some("model.encoder.stages.1.planes"),
            ),
            ("{ kind = \"convolution_2d\", planes = 3 }".to_owned(), None),
            // Who says one means it.
            ("{ kind = \"convolution_2d\", planes = 1 }".to_owned(), None),
            (format!("{{ kind = \"convolution_2d\", planes = 3 }}, {bare}"), None),
            (format!("{{ kind = \"lstm\" }}, {bare}"), None),
        ] {
            assert_eq!(of(&stages, 2), place.into_iter().collect::<Vec<_>>(), "{stages}");
            let without = stages.replace("planes = 3", "planes = 1");
            assert_eq!(of(&without, 0), [""; 0], "{stages}");
        }
    }

    #[test]
    fn what_has_no_effect_is_said() {
        for (set, expected) in [
            ("train.stop.min_delta=0.1", "train.stop.min_delta"),
            ("model.encoder={kind='gru',dropout=0.1}", "model.encoder.dropout"),
            ("model.encoder={kind='gru',initial={forget_bias=2.0}}", "model.encoder.initial.forget_bias"),
            ("model.encoder={kind='stack',stages=[{kind='projection',dropout=0.1}]}", "model.encoder.stages.0.dropout"),
            ("model.encoder={kind='gru',layers=2,locked_dropout=true}", "model.encoder.locked_dropout"),
            ("model.decoder={kind='gru',locked_dropout=true}", "model.decoder.locked_dropout"),
            ("model.decoder={kind='gru',dropout=0.1,output_dropout=0.2}", "model.decoder.dropout"),
            ("model.decoder={kind='gru',hidden=3,layers=2,widths=[4,5]}", "model.decoder.hidden"),
            ("model.target={kind='embedding',locked_dropout=true}", "model.target.locked_dropout"),
            ("search={width=1,length_penalty={kind='gnmt'}}", "search.length_penalty"),
            ("search={language_model={model='lm',weight=0}}", "search.language_model"),
            ("search={kind='sample',length_penalty={kind='gnmt'}}", "search.length_penalty"),
            (
                "train={steps=5,loss={label_smoothing=0.1},teacher={models=['a'],weight=1}}",
                "train.loss.label_smoothing",
            ),
            ("train.stop.patience=1", "train.stop.patience"),
            ("train.schedule={kind='plateau'}", "train.schedule.patience"),
            ("train={epochs=7,average={kind='triggered'}}", "train.average.patience"),
            ("train.schedule={kind='step',every_epochs=1}", "train.schedule"),
            ("train={steps=5,schedule={kind='step',every_steps=2,start=5}}", "train.schedule"),
            ("train={steps=5,schedule={kind='step',every_steps=2,factor=1.0}}", "train.schedule"),
        ] {
            assert_eq!(places(&[set]), [format!("warning {expected}")], "{set}");
        }
        let lower = "tokenizer.target.normalization=['lowercase']";
        let stop = "search={kind='sample',stop=['end','END']}";
        assert_eq!(places(&[lower, stop]), ["warning search.stop.1"]);
        assert_eq!(places(&[stop]), [""; 0]);
        for (set, expected) in [
            ("search={kind='sample',draws=3}", &["search.draws"][..]),
            ("search={kind='beam',n_best=2}", &["search.n_best"]),
            ("search.max_length={ratio=2.0,limit=9}", &["search.max_length.ratio"]),
            ("search.min_length=2", &["search.min_length"]),
            ("search={kind='sample',top_k=3,max_length={limit=9}}", &[]),
        ] {
            let expected: Vec<String> = expected.iter().map(|key| format!("warning {key}")).collect();
            assert_eq!(places_in(STREAM, &[set]), expected, "{set}");
        }
        let silent = "model={decoder={kind='gru',attention={kind='none'}}}";
        assert_eq!(places(&[silent, "search.return_attention=true"]), ["warning search.return_attention"]);
        for set in [
            "model.encoder={kind='gru',layers=2,dropout=0.1}",
            "model.decoder={kind='gru',output_dropout=0.1,locked_dropout=true}",
            "model.decoder={kind='gru',layers=2,widths=[4,5]}",
            "search={width=1,patience=2.0,length_penalty={kind='gnmt'}}",
            "search={kind='sample',draws=2,length_penalty={kind='gnmt'}}",
            "train={epochs=3,stop={patience=2}}",
            "train={epochs=3,schedule={kind='plateau',patience=2}}",
            "train={epochs=2,schedule={kind='step',every_epochs=1}}",
            "train={epochs=8,average={kind='triggered'}}",
            "train={steps=6,schedule={kind='step',every_steps=2,start=5}}",
            "train={epochs=1,validate={every_steps=9},stop={patience=2}}",
        ] {
            assert_eq!(places(&[set]), [""; 0], "{set}");
        }
        let noam = "train.schedule={kind='noam',width=7}";
        assert_eq!(
            places(&[noam, "train.optimizer={kind='adam',learning_rate=1.0}"]),
            ["warning train.schedule.width"]
        );
        assert_eq!(places(&[noam]), ["warning train.optimizer.learning_rate", "warning train.schedule.width"]);
        assert_eq!(places(&["train.steps=9", "train.schedule={kind='linear',warmup=9}"]), ["train.schedule.warmup"]);
        // What is inherited beside another kind.
        assert_eq!(places(&["search.kind=greedy"]), [""; 0]);
        let inherited = GOOD
            .replace("model = {}", "model.decoder = { kind = \"gru\", attention = { kind = \"additive\", width = 8 } }")
            .replace("{ kind = \"beam\" }", "{ kind = \"beam\", width = 3 }");
        let sets = ["search.kind=greedy", "model.decoder.attention.kind=general"];
        let expected = ["warning model.decoder.attention.width", "warning search.width"];
        assert_eq!(places_in(&inherited, &sets), expected);
        assert_eq!(places(&["search={replace=true,kind='greedy'}"]), [""; 0]);
        assert_eq!(places(&["evaluate.metrics=[]", "evaluate.rows=3"]), ["warning evaluate.rows"]);
        assert_eq!(places(&["evaluate.pass_mark.bleu=30"]), ["warning evaluate.pass_mark.bleu"]);
        assert_eq!(places(&["evaluate.pass_mark.bleu=30", "evaluate.metrics=[{kind='bleu'}]"]), [""; 0]);
    }
}
