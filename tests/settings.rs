//! Every setting that the schema knows, each in the smallest config in which it has an effect: what its range promises is
//! what the whole check accepts, and what an error suggests is right.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use antiphon::{ExperimentConfig, Loaded};
use antiphon_config::to_toml;
use antiphon_core::{Place, Problem};
use serde_json::{Map, Value as Json, json};

/// A question that a story's encoder can read: as wide as the story's words.
const ASKED: &[&str] = &[
    "data={replace=true,kind='table',train='a.tsv',source='a',target='b'}",
    "streams.question={encoder={kind='lstm',hidden=64}}",
];

/// The same in numbers that five heads can share.
const OF_FIVE_PARTS: &[&str] = &["model.source.size=160", "streams.question.encoder.hidden=80"];

/// Settings of parts that cannot be where the page of settings, which knows types alone, has them: nothing beside them would make them right.
const NOWHERE: &[&str] = &[
    "model(ctc).encoder(stack).stages.0(sentences)",
    "model(ctc).encoder(stack).stages.0(query_reduction)",
    "model(ctc).encoder(stack).stages.0(hops)",
    "(hops).attention(none)",
    "model(language_model).head(copy)",
    // A text that is meant to be a list of one is no name of a source.
    "head(copy).from",
];

/// What must stand beside settings of these names (or a part of them) for a config to make sense; with a side, only where the
/// lower or the upper end of their range is tried, or what was meant by a mistake, or is lacking. All that fit are laid upon each other.
const BESIDE: &[(&str, &str, &[&str])] = &[
    ("tokenizer.source", "", &["tokenizer.target={}"]),
    ("tokenizer.target", "", &["tokenizer.source={}"]),
    ("tokenizer.learn_from", "", &["tokenizer.shared={kind='byte'}"]),
    ("model(encoder_decoder).tied", "meant", &["tokenizer.shared={}"]),
    ("model(language_model).tied", "meant", &["model.target.size=256"]),
    // A text has no source.
    ("data(text).", "", &["model.kind='language_model'"]),
    ("data(text)", "lack", &["model.kind='language_model'"]),
    ("data(text).column", "", &["data.column='0'", "data.train='a.tsv'"]),
    ("data(text).format", "meant", &["data.column='0'", "data.train='a.tsv'"]),
    ("data(stream).", "", &["model.kind='language_model'"]),
    ("data(stream)", "lack", &["model.kind='language_model'"]),
    ("model(language_model).", "", &["data.kind='text'"]),
    ("data(table).columns", "", &["data.source='0'", "data.target='1'"]),
    (
        "streams",
        "",
        &["data={replace=true,kind='table',train='a.tsv',source='a',target='b'}", "model.memories.kind='each'"],
    ),
    // Only a table has columns.
    ("(dialog_accuracy)", "", &["data={replace=true,kind='table',train='a.tsv',source='a',target='b'}"]),
    ("(entity_f1)", "", &["data={replace=true,kind='table',train='a.tsv',source='a',target='b'}"]),
    // Recordings, what is made of them, and a model that reads it.
    ("data(manifest)", "", &["features={kind='given',width=1}", "model.source={replace=true,kind='frames'}"]),
    ("data(manifest).columns", "", &["data.path='0'", "data.text='1'"]),
    ("data(manifest).min_frames", "high", &["data.max_frames=9223372036854775807"]),
    (
        "features(",
        "",
        &["data={replace=true,kind='manifest',train='a.tsv'}", "model.source={replace=true,kind='frames'}"],
    ),
    ("features(log_mel)", "", &["features.filters=1"]),
    ("features(mfcc)", "", &["features.filters=1", "features.coefficients=1"]),
    ("features(mfcc).coefficients", "meant", &["features.filters=23"]),
    (
        "spec_augment",
        "",
        &[
            "data={replace=true,kind='manifest',train='a.tsv'}",
            "features={kind='log_mel'}",
            "model.source={replace=true,kind='frames'}",
        ],
    ),
    ("source(frames).", "", &["data={replace=true,kind='manifest',train='a.tsv'}", "features={kind='given',width=1}"]),
    ("source(frames).width", "high", &["features.width=8192"]),
    ("search(beam).ctc_weight", "", &["model.ctc={}"]),
    ("search(best_path)", "", &["model.ctc={}"]),
    ("model(encoder_decoder).ctc.weight", "high", &["search.ctc_weight=1.0"]),
    ("head(copy)", "", &["tokenizer={replace=true,source={kind='word'},target={kind='word'}}"]),
    ("evaluate.no_answer(fitted)", "", &["data.validation='v.tsv'"]),
    ("evaluate.by", "meant", &["data={replace=true,kind='table',train='a.tsv',source='a',target='b'}"]),
    ("evaluate.support", "", &["data={replace=true,kind='table',train='a.tsv',source='a',target='b'}"]),
    // A question of the same width to ask.
    ("stages.0(query_reduction)", "", ASKED),
    ("stages.0(hops)", "", ASKED),
    ("(hops).attention(dot).heads", "meant", OF_FIVE_PARTS),
    ("(hops).attention(general).heads", "meant", OF_FIVE_PARTS),
    ("streams.x.encoder(stack).stages.0(hops).attention(dot).heads", "meant", &["streams.x.input.size=160"]),
    ("streams.x.encoder(stack).stages.0(hops).attention(general).heads", "meant", &["streams.x.input.size=160"]),
    ("streams.x.encoder(stack).stages.0(hops).attention(additive).heads", "meant", OF_FIVE_PARTS),
    ("streams.x.encoder(stack).stages.0(hops).attention(location).heads", "meant", OF_FIVE_PARTS),
    (
        "streams.x.encoder(stack).stages.0(hops).attention(additive).heads",
        "meant",
        &["streams.x.input.size=160", "streams.x.encoder.stages.0.attention.width=320"],
    ),
    (
        "streams.x.encoder(stack).stages.0(hops).attention(location).heads",
        "meant",
        &["streams.x.input.size=160", "streams.x.encoder.stages.0.attention.width=320"],
    ),
    (
        "model(encoder_decoder).encoder(stack).stages.0(hops).attention(additive).heads",
        "meant",
        &["model.encoder.stages.0.attention.width=320"],
    ),
    ("model(encoder_decoder).encoder(stack).stages.0(hops).attention(additive).heads", "meant", OF_FIVE_PARTS),
    (
        "model(encoder_decoder).encoder(stack).stages.0(hops).attention(location).heads",
        "meant",
        &["model.encoder.stages.0.attention.width=320"],
    ),
    ("model(encoder_decoder).encoder(stack).stages.0(hops).attention(location).heads", "meant", OF_FIVE_PARTS),
    // Equal states and widths.
    (".bridge(copy)", "meant", &["model.encoder.bidirectional=false"]),
    ("attention(dot)", "meant", &["model.encoder.bidirectional=false"]),
    ("attention(dot).heads", "", &["model.encoder.bidirectional=false"]),
    ("attention(dot).sharpening", "", &["model.encoder.bidirectional=false"]),
    // Widths of five equal parts.
    (".heads", "meant", &["model.encoder.hidden=160", "model.decoder.hidden=320"]),
    ("attention(additive).heads", "meant", &["model.decoder.attention.width=320"]),
    ("attention(location).heads", "meant", &["model.decoder.attention.width=320"]),
    // Numbers of a step that are so many equal planes.
    ("model(encoder_decoder).encoder(stack).stages.0(convolution_2d).planes", "", &["model.source.size=5120"]),
    ("model(ctc).encoder(stack).stages.0(convolution_2d).planes", "", &["model.source.size=5120"]),
    ("streams.x.encoder(stack).stages.0(convolution_2d).planes", "", &["streams.x.input.size=5120"]),
    ("train.schedule(step).every_epochs", "low", &["train.schedule.every_steps=1"]),
    ("train.schedule(step).every_steps", "high", &["train.schedule.every_epochs=0"]),
    ("train.schedule(step).every_steps", "meant", &["train.schedule.every_epochs=0"]),
    ("train.optimizer(sgd).nesterov", "meant", &["train.optimizer.momentum=0.5"]),
    ("train.schedule(plateau)", "", &["data.validation='v.tsv'"]),
    ("train.average(", "", &["data.validation='v.tsv'"]),
    // Somebody who teaches.
    ("train.teacher.", "", &["train.teacher.models=['x']"]),
    ("train.stop.patience", "", &["data.validation='v.tsv'"]),
    (").floor", "", &["train.optimizer.learning_rate=3.4028234663852886e38"]),
    (").min_length", "high", &["search.max_length.limit=4294967295"]),
    // A sweep varies something, and may draw it.
    ("sweep", "", &["sweep.seeds=[1,2]"]),
    ("sweep.seeds", "", &["sweep.over.y=[1,2]"]),
    ("sweep.over.x|1(", "", &["sweep.strategy={kind='random',draws=1}"]),
    ("sweep.over.x|1(uniform).low", "low", &["sweep.over.x.high=-1.7e308"]),
    ("sweep.over.x|1(uniform).low", "high", &["sweep.over.x.high=1.7976931348623157e308"]),
    ("sweep.over.x|1(uniform).high", "low", &["sweep.over.x.low=-1.7976931348623157e308"]),
    ("sweep.over.x|1(uniform).high", "high", &["sweep.over.x.low=1.7e308"]),
    ("sweep.over.x|1(log_uniform).low", "high", &["sweep.over.x.high=1.7976931348623157e308"]),
    ("sweep.over.x|1(log_uniform).high", "low", &["sweep.over.x.low=5e-324"]),
    ("sweep.over.x|1(integer).low", "high", &["sweep.over.x.high=9223372036854775807"]),
    ("sweep.over.x|1(integer).high", "low", &["sweep.over.x.low=-9223372036854775808"]),
    // Conditions are about keys that are varied.
    ("sweep.when", "", &["sweep.over.x=[1,2]"]),
    ("sweep.skip", "", &["sweep.over.x=[1,2]"]),
];

/// The ends of ranges that another setting, itself at its end, keeps from being reached: the nearest that can be.
const NEAREST: &[(&str, &str, &str)] = &[
    ("model(encoder_decoder).encoder(stack).stages.0(query_reduction).query", "low", "'question'"),
    ("model(encoder_decoder).encoder(stack).stages.0(hops).query", "low", "'question'"),
    ("streams.x.encoder(stack).stages.0(query_reduction).query", "low", "'question'"),
    ("streams.x.encoder(stack).stages.0(hops).query", "low", "'question'"),
    ("features(log_mel).filters", "high", "80"),
    ("features(log_mel).low", "high", "7000.0"),
    ("features(log_mel).high", "high", "8000.0"),
    ("features(mfcc).filters", "high", "80"),
    ("features(mfcc).low", "high", "7000.0"),
    ("features(mfcc).high", "high", "8000.0"),
    ("features(mfcc).coefficients", "high", "1"),
    ("search(greedy).min_length", "high", "4294967294"),
    ("search(beam).min_length", "high", "4294967294"),
    ("search(sample).min_length", "high", "4294967294"),
    ("sweep.over.x|1(uniform).low", "high", "1.7976931348623155e308"),
    ("sweep.over.x|1(uniform).high", "low", "-1.7976931348623155e308"),
    ("sweep.over.x|1(log_uniform).low", "high", "1.7976931348623155e308"),
    ("sweep.over.x|1(log_uniform).high", "low", "1e-323"),
    ("sweep.over.x|1(integer).low", "high", "9223372036854775806"),
    ("sweep.over.x|1(integer).high", "low", "-9223372036854775807"),
];

/// A setting, a table or a list.
struct Setting {
    /// Its dotted key, with the kinds of the tables around it.
    name: String,
    keys: Vec<String>,
    /// Its keywords, references followed.
    schema: Map<String, Json>,
    /// The smallest config with all tables around it.
    config: Json,
}

struct Walk {
    root: Json,
    found: Vec<Setting>,
}

impl Walk {
    fn all() -> Vec<Setting> {
        let root = schemars::schema_for!(ExperimentConfig).to_value();
        let mut walk = Self { root: root.clone(), found: Vec::new() };
        let config = json!({ "data": { "train": "a.tsv" }, "train": { "epochs": 1 } });
        walk.walk(&root, &[], "", &config);
        walk.found.retain(|setting| !NOWHERE.iter().any(|nowhere| setting.name.contains(nowhere)));
        walk.found
    }

    /// The keywords of a schema; those of what it refers to hold where it says nothing of its own.
    fn keywords(&self, of: &Json) -> Map<String, Json> {
        let mut words = of.as_object().cloned().unwrap_or_default();
        if let Some(Json::String(target)) = words.remove("$ref") {
            let target = self.root.pointer(target.trim_start_matches('#')).expect("what is referred to");
            for (word, value) in self.keywords(target) {
                words.entry(word).or_insert(value);
            }
        }
        words
    }

    fn alternatives(words: &Map<String, Json>) -> Vec<&Json> {
        let all = words.get("oneOf").or(words.get("anyOf")).and_then(Json::as_array);
        all.into_iter().flatten().filter(|one| one["type"] != "null").collect()
    }

    /// The word under `kind` that tells a table from others.
    fn kind(&self, of: &Json) -> Option<String> {
        Some(self.keywords(of).get("properties")?.get("kind")?.get("const")?.as_str()?.to_owned())
    }

    fn walk(&mut self, of: &Json, keys: &[String], name: &str, config: &Json) {
        let words = self.keywords(of);
        let alternatives = Self::alternatives(&words);
        if !alternatives.is_empty() && words_of(&words).is_none() {
            for (i, one) in alternatives.iter().enumerate() {
                match self.kind(one) {
                    Some(kind) => {
                        let mut config = config.clone();
                        set(&mut config, keys, self.sample(one));
                        self.walk_one(&self.keywords(one), keys, &format!("{name}({kind})"), &config);
                    }
                    // An option, or one of several types.
                    None if alternatives.len() == 1 => self.walk(one, keys, name, config),
                    None => self.walk(one, keys, &format!("{name}|{i}"), config),
                }
            }
            return;
        }
        self.walk_one(&words, keys, name, config);
    }

    fn walk_one(&mut self, words: &Map<String, Json>, keys: &[String], name: &str, config: &Json) {
        if !keys.is_empty() {
            let (name, keys) = (name.to_owned(), keys.to_vec());
            self.found.push(Setting { name, keys, schema: words.clone(), config: config.clone() });
        }
        let step = |key: &str| [keys, &[key.to_owned()]].concat();
        if let Some(properties) = words.get("properties").and_then(Json::as_object) {
            let mut config = config.clone();
            if get(&config, keys).is_none_or(|there| !there.is_object()) {
                let mut least = words.clone();
                least.remove("examples");
                set(&mut config, keys, self.sample(&least.into()));
            }
            let tagged = name.ends_with(')');
            for (key, of) in properties.iter().filter(|(key, _)| !(tagged && *key == "kind")) {
                self.walk(of, &step(key), format!("{name}.{key}").trim_start_matches('.'), &config);
            }
        }
        if let Some(others) = words.get("additionalProperties").filter(|others| others.is_object()) {
            let mut config = config.clone();
            set(&mut config, &step("x"), self.sample(others));
            self.walk(others, &step("x"), &format!("{name}.x"), &config);
        }
        if let Some(items) = words.get("items").filter(|items| items.is_object()) {
            let mut config = config.clone();
            let least = words.get("minItems").and_then(Json::as_u64).unwrap_or(0).max(1);
            set(&mut config, keys, (0..least).map(|_| self.sample(items)).collect());
            self.walk(items, &step("0"), &format!("{name}.0"), &config);
        }
    }

    /// A value that a schema allows, with nothing that can be left out.
    fn sample(&self, of: &Json) -> Json {
        let words = self.keywords(of);
        if let Some(given) = words.get("const").or_else(|| words.get("examples")?.get(0)) {
            return given.clone();
        }
        if let Some(first) = words_of(&words).and_then(|words| words.into_iter().next()) {
            return first.into();
        }
        if let Some(first) = Self::alternatives(&words).first() {
            return self.sample(first);
        }
        match type_of(&words) {
            "integer" | "number" => words.get("minimum").cloned().unwrap_or(json!(1)),
            "string" => "x".repeat(words.get("minLength").and_then(Json::as_u64).unwrap_or(1) as usize).into(),
            "boolean" => json!(true),
            "array" => {
                let least = words.get("minItems").and_then(Json::as_u64).unwrap_or(0);
                (0..least).map(|_| self.sample(&words["items"])).collect()
            }
            "object" => {
                let required = words.get("required").and_then(Json::as_array).into_iter().flatten();
                let keys = required.filter_map(Json::as_str);
                let mut table: Map<_, _> =
                    keys.map(|key| (key.to_owned(), self.sample(&words["properties"][key]))).collect();
                if words.get("minProperties").is_some() {
                    table.insert("x".into(), self.sample(&words["additionalProperties"]));
                }
                table.into()
            }
            _ => json!(1),
        }
    }
}

/// The words that a setting may be.
fn words_of(schema: &Map<String, Json>) -> Option<Vec<String>> {
    let of = |schema: &Json| schema["const"].as_str().map(str::to_owned).filter(|_| schema["type"] == "string");
    let listed = schema.get("enum").and_then(Json::as_array);
    match listed {
        Some(words) => words.iter().map(|word| word.as_str().map(str::to_owned)).collect(),
        None => Walk::alternatives(schema).into_iter().map(of).collect::<Option<Vec<_>>>().filter(|w| !w.is_empty()),
    }
}

fn type_of(schema: &Map<String, Json>) -> &str {
    let kinds = schema.get("type");
    kinds.and_then(|kinds| kinds.as_str().or_else(|| kinds.get(0)?.as_str())).unwrap_or_default()
}

fn get<'j>(config: &'j Json, keys: &[String]) -> Option<&'j Json> {
    keys.iter().try_fold(config, |at, key| if at.is_array() { at.get(key.parse::<usize>().ok()?) } else { at.get(key) })
}

fn set(config: &mut Json, keys: &[String], value: Json) {
    let at = keys.iter().fold(config, |at, key| match at {
        Json::Array(items) => &mut items[key.parse::<usize>().expect("an entry")],
        table => &mut table[key.as_str()],
    });
    *at = value;
}

/// Checks configs in a folder of its own.
struct Checker {
    folder: tempfile::TempDir,
    used: BTreeSet<usize>,
}

impl Checker {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), used: BTreeSet::new() }
    }

    /// The problems of a config with what stands beside a setting, and with some assignments.
    fn problems(&mut self, setting: &Setting, side: &str, config: &Json, sets: &[String]) -> Vec<Problem> {
        let file = self.folder.path().join("a.toml");
        std::fs::write(&file, to_toml(config).expect("a config")).expect("a file");
        let mut all = Vec::new();
        for (i, (name, at, beside)) in BESIDE.iter().enumerate() {
            // What stands beside a decoder's attention is nothing to that of a stage.
            let is_of_stage = setting.name.contains("(hops).attention");
            let concerns = !is_of_stage || name.contains("hops") || !(name.contains("attention") || *name == ".heads");
            if concerns && setting.name.contains(name) && (at.is_empty() || *at == side) {
                self.used.insert(i);
                all.extend(beside.iter().map(|set| (*set).to_owned()));
            }
        }
        all.extend_from_slice(sets);
        match Loaded::read(Path::new(&file), &all) {
            Ok(_) => Vec::new(),
            Err(error) => error.problems,
        }
    }
}

/// A place without its origin.
fn key(place: &Place) -> &str {
    place.as_key().unwrap_or_default()
}

/// A number on the ends of its range, and beside them: the side, the number and whether it is right.
fn ends(schema: &Map<String, Json>) -> Vec<(&'static str, String, bool)> {
    let bound = |word: &str| schema.get(word).and_then(Json::as_f64);
    let format = schema.get("format").and_then(Json::as_str).unwrap_or_default();
    if type_of(schema) == "integer" {
        let (least, most) = match format {
            "uint" | "uint64" => (0, i128::from(i64::MAX)),
            "uint32" => (0, i128::from(u32::MAX)),
            "int" | "int64" => (i128::from(i64::MIN), i128::from(i64::MAX)),
            other => panic!("{other}: what fits into it?"),
        };
        let whole = |word: &str| schema.get(word).and_then(Json::as_i64).map(i128::from);
        let (low, high) = (whole("minimum").unwrap_or(least), whole("maximum").unwrap_or(most));
        return vec![
            ("low", low.to_string(), true),
            ("low", (low - 1).to_string(), false),
            ("high", high.to_string(), true),
            ("high", (high + 1).to_string(), false),
        ];
    }
    let single = format == "float";
    let most = if single { f64::from(f32::MAX) } else { f64::MAX };
    let next = |from: f64, up: bool| match (single, up) {
        (true, true) => f64::from((from as f32).next_up()),
        (true, false) => f64::from((from as f32).next_down()),
        (false, true) => from.next_up(),
        (false, false) => from.next_down(),
    };
    let say = |number: f64| match (number.is_infinite(), single, number > 0.0) {
        (false, ..) => format!("{number:e}"),
        (true, true, true) => "3.4028236e38".to_owned(),
        (true, true, false) => "-3.4028236e38".to_owned(),
        (true, false, true) => "1.8e308".to_owned(),
        (true, false, false) => "-1.8e308".to_owned(),
    };
    let end = |side: &'static str, exclusive: Option<f64>, inclusive: f64| {
        let up = side == "high";
        let (right, wrong) = match exclusive {
            Some(bound) => (next(bound, !up), bound),
            None => (inclusive, next(inclusive, up)),
        };
        [(side, say(right), true), (side, say(wrong), false)]
    };
    let low = end("low", bound("exclusiveMinimum"), bound("minimum").unwrap_or(-most));
    let high = end("high", bound("exclusiveMaximum"), bound("maximum").unwrap_or(most));
    low.into_iter().chain(high).collect()
}

/// Lengths at their ends and beside them: the side, the length and whether it is right.
fn lengths(schema: &Map<String, Json>, what: &str) -> Vec<(&'static str, u64, bool)> {
    let bound = |side: &str| schema.get(&format!("{side}{what}")).and_then(Json::as_u64);
    let low = bound("min").map_or(vec![("low", 0, true)], |low| vec![("low", low, true), ("low", low - 1, false)]);
    // An empty text is a matter of what it means.
    let low = if what == "Length" && bound("min").is_none() { Vec::new() } else { low };
    let high = bound("max").map_or(vec![], |high| vec![("high", high, true), ("high", high + 1, false)]);
    low.into_iter().chain(high).collect()
}

/// Values at the ends of a setting's range and beside them, as `--set` takes them.
fn probes(walk: &Walk, schema: &Map<String, Json>) -> Vec<(&'static str, String, bool)> {
    fn inline(value: &Json) -> String {
        match value {
            Json::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
            Json::Object(table) => {
                let pairs = table.iter().map(|(key, value)| format!("{key} = {}", inline(value)));
                format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
            }
            plain => to_toml(&json!({ "v": plain })).expect("a value").trim_end().trim_start_matches("v = ").to_owned(),
        }
    }
    match type_of(schema) {
        "integer" | "number" => ends(schema),
        "string" => lengths(schema, "Length")
            .into_iter()
            .map(|(s, n, r)| (s, format!("'{}'", "a".repeat(n as usize)), r))
            .collect(),
        "array" => {
            let words = schema.get("items").map(|items| walk.keywords(items)).and_then(|items| words_of(&items));
            let list = |n: u64| match &words {
                Some(words) => json!(words[..n as usize]),
                // Without a type they may be any: numbers that differ.
                None => (1..=n).map(|i| json!(i)).collect(),
            };
            let sized = |n: u64| match schema.get("items").map(|items| type_of(&walk.keywords(items)).to_owned()) {
                Some(name) if name == "string" => (0..n).map(|i| json!(format!("{i}"))).collect(),
                // Tables, each of a kind.
                Some(_) if !Walk::alternatives(&walk.keywords(&schema["items"])).is_empty() && words.is_none() => {
                    (0..n).map(|_| walk.sample(&schema["items"])).collect()
                }
                _ => list(n),
            };
            let mut all: Vec<_> =
                lengths(schema, "Items").into_iter().map(|(s, n, r)| (s, inline(&sized(n)), r)).collect();
            if schema.get("uniqueItems").is_some() {
                let one = sized(1)[0].clone();
                all.push(("high", inline(&json!([one, one])), false));
            }
            all
        }
        "object" => {
            let others = schema.get("additionalProperties").filter(|others| others.is_object());
            let Some(others) = others else { return Vec::new() };
            let table =
                |n: u64| format!("{{replace=true{}}}", format!(", x={}", walk.sample(others)).repeat(n as usize));
            lengths(schema, "Properties").into_iter().map(|(s, n, r)| (s, table(n), r)).collect()
        }
        _ => Vec::new(),
    }
}

/// What the page of settings promises of a range is what the whole check accepts: on each end, and not beside it.
#[test]
fn every_range_is_what_is_checked() {
    let walk = Walk { root: schemars::schema_for!(ExperimentConfig).to_value(), found: Vec::new() };
    let (mut checker, mut wrong, mut tried) = (Checker::new(), String::new(), 0);
    let mut nearest: BTreeSet<(&str, &str)> = NEAREST.iter().map(|(name, side, _)| (*name, *side)).collect();
    for setting in Walk::all() {
        let dotted = setting.keys.join(".");
        for (side, mut value, right) in probes(&walk, &setting.schema) {
            if let Some((name, side, near)) =
                NEAREST.iter().find(|(name, at, _)| right && *name == setting.name && *at == side)
            {
                value = (*near).to_owned();
                nearest.remove(&(*name, *side));
            }
            tried += 1;
            let problems = checker.problems(&setting, side, &setting.config, &[format!("{dotted}={value}")]);
            let named =
                problems.iter().any(|p| key(&p.place) == dotted || key(&p.place).starts_with(&format!("{dotted}.")));
            if right != problems.is_empty() || !right && !named {
                let expected = if right { "right" } else { "refused" };
                writeln!(wrong, "{} = {value} should be {expected}: {problems:?}", setting.name).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    // An entry that nothing uses hides what it was meant for.
    let idle = |i: &usize| !checker.used.contains(i) && !["meant", "lack"].contains(&BESIDE[*i].1);
    let idle: Vec<_> = (0..BESIDE.len()).filter(idle).map(|i| BESIDE[i]).collect();
    assert!(nearest.is_empty() && idle.is_empty(), "of no use: {nearest:?}, {idle:?}");
    assert!(tried > 600, "only {tried} values were tried");
}

/// What a complaint about the value under a key suggests, as assignments.
fn suggestions(dotted: &str, wrong: &str, message: &str) -> Vec<String> {
    let quoted = |before: &str| {
        let (_, rest) = message.split_once(before)?;
        rest.split_once('`').map(|(text, _)| text.to_owned())
    };
    let mut all = Vec::new();
    if let Some(example) = quoted("for example `") {
        all.push(match (message.starts_with("lacks"), example.split_once(" = ")) {
            (true, Some((key, value))) => format!("{dotted}.{key}={value}"),
            _ => format!("{dotted}={example}"),
        });
    }
    all.extend(quoted("; add `kind = ").map(|kind| format!("{dotted}.kind={kind}")));
    all.extend(quoted("did you mean `").map(|word| format!("{dotted}='{word}'")));
    all.extend(message.split_once("; write ").map(|(_, value)| format!("{dotted}={value}")));
    all.extend(message.ends_with("remove the quotes").then(|| format!("{dotted}={}", wrong.trim_matches('\''))));
    all
}

/// Every example, and every other value that an error suggests, ends the complaint and brings no other.
#[test]
fn what_an_error_suggests_is_right() {
    let (mut checker, mut bad, mut tried) = (Checker::new(), String::new(), 0);
    let mut seen = BTreeSet::new();
    for setting in Walk::all() {
        // The same setting of other kinds is answered in the same words.
        if !seen.insert((setting.keys.clone(), json!(setting.schema).to_string())) {
            continue;
        }
        let dotted = setting.keys.join(".");
        let mut attempts: Vec<(String, String)> =
            ["true", "1.5", "'5'", "5.0", "'.5'", "'TRUE'", "'wrong'", "[]", "{}"]
                .map(|wrong| (dotted.clone(), wrong.to_owned()))
                .into();
        let nearly = |word: &str| format!("'{}'", &word[..word.len() - 1]);
        let words = words_of(&setting.schema).unwrap_or_default();
        attempts.extend(words.iter().filter(|word| word.len() > 2).map(|word| (dotted.clone(), nearly(word))));
        if let Some((_, kind)) = setting.name.strip_suffix(')').and_then(|name| name.rsplit_once('(')) {
            attempts.push((format!("{dotted}.kind"), nearly(kind)));
            // As if the word alone would do.
            attempts.push((dotted.clone(), format!("'{kind}'")));
        }
        // Nothing of the setting is left for what is suggested to lean on, but an entry keeps its list.
        let mut without = setting.config.clone();
        let (last, table) = setting.keys.split_last().expect("a key");
        let place = get(&without, table).is_some_and(Json::is_object).then(|| format!("/{}", table.join("/")));
        let place = place.map(|place| if table.is_empty() { String::new() } else { place });
        if let Some(Json::Object(table)) = place.and_then(|place| without.pointer_mut(&place)) {
            table.remove(last);
        }
        let mut known = BTreeSet::new();
        for (at, wrong) in attempts {
            let base = if at == dotted { &without } else { &setting.config };
            for problem in checker.problems(&setting, "meant", base, &[format!("{at}={wrong}")]) {
                if key(&problem.place) != at {
                    continue;
                }
                for suggestion in suggestions(&at, &wrong, &problem.message) {
                    // Most mistakes are answered with one example.
                    if !known.insert(suggestion.clone()) {
                        continue;
                    }
                    tried += 1;
                    // What is added to a table leaves the rest of it.
                    let added = suggestion.split('=').next() != Some(at.as_str());
                    let mut sets = if added { vec![format!("{at}={wrong}")] } else { Vec::new() };
                    sets.push(suggestion.clone());
                    let target = suggestion.split('=').next().unwrap_or_default().to_owned();
                    let within = |p: &&Problem| {
                        let place = key(&p.place);
                        **p == problem || place == target || place.starts_with(&format!("{target}."))
                    };
                    let after = checker.problems(&setting, "meant", base, &sets);
                    if let Some(still) = after.iter().find(within) {
                        writeln!(bad, "{}: {wrong}: {problem}\n  {suggestion}: {still}", setting.name).unwrap();
                    }
                }
            }
        }
    }
    assert!(bad.is_empty(), "\n{bad}");
    assert!(tried > 250, "only {tried} suggestions");
}

/// What is required and missing is named, with an example that is right.
#[test]
fn what_a_missing_key_suggests_is_right() {
    let (mut checker, mut bad, mut tried) = (Checker::new(), String::new(), 0);
    let root = schemars::schema_for!(ExperimentConfig).to_value();
    let config = json!({ "data": { "train": "a.tsv" }, "train": { "epochs": 1 } });
    let whole = Setting { name: String::new(), keys: vec![], schema: root.as_object().unwrap().clone(), config };
    for setting in std::iter::once(whole).chain(Walk::all()) {
        let required = setting.schema.get("required").and_then(Json::as_array).cloned().unwrap_or_default();
        let dotted = setting.keys.join(".");
        for name in required.iter().filter_map(Json::as_str).filter(|name| *name != "kind") {
            let mut without = setting.config.clone();
            if get(&without, &setting.keys).is_none() {
                continue;
            }
            let table = setting.keys.iter().fold(&mut without, |at, key| match at {
                Json::Array(items) => &mut items[key.parse::<usize>().expect("an entry")],
                table => &mut table[key.as_str()],
            });
            table.as_object_mut().expect("a table").remove(name);
            let problems = checker.problems(&setting, "lack", &without, &[]);
            let lacks = format!("lacks `{name}`: add ");
            let found = problems.iter().find(|p| p.message.starts_with(&lacks) && key(&p.place) == dotted);
            let suggested = found.map(|p| suggestions(&dotted, "", &p.message)).unwrap_or_default();
            let Some(suggestion) = suggested.first() else {
                writeln!(bad, "{}.{name}: no example: {problems:?}", setting.name).unwrap();
                continue;
            };
            tried += 1;
            let after = checker.problems(&setting, "lack", &without, &[suggestion.trim_start_matches('.').to_owned()]);
            if !after.is_empty() {
                writeln!(bad, "{}: {suggestion}: {after:?}", setting.name).unwrap();
            }
        }
    }
    assert!(bad.is_empty(), "\n{bad}");
    assert!(tried >= 20, "only {tried} keys are required");
}

/// A key of another kind than the default's is answered with a kind that has it, a slip of the pen with a key that there is.
#[test]
fn what_is_suggested_for_a_key_is_right() {
    let walk = Walk { root: schemars::schema_for!(ExperimentConfig).to_value(), found: Vec::new() };
    let (mut checker, mut bad, mut kinds, mut slips) = (Checker::new(), String::new(), 0, 0);
    for setting in Walk::all() {
        let (last, table) = setting.keys.split_last().expect("a key");
        let Some(Json::Object(around)) = get(&setting.config, table) else { continue };
        let (dotted, sample) = (setting.keys.join("."), walk.sample(&json!(setting.schema)));
        let tagged = setting.name.strip_suffix(&format!(".{last}")).is_some_and(|name| name.ends_with(')'));
        if tagged && around.contains_key("kind") {
            let mut config = setting.config.clone();
            set(&mut config, &setting.keys, sample.clone());
            set(&mut config, &[table, &["kind".to_owned()]].concat(), Json::Null);
            let problems = checker.problems(&setting, "meant", &config, &[]);
            for problem in problems.iter().filter(|p| key(&p.place) == dotted) {
                let kind = problem.message.split_once(": add `kind = \"").and_then(|(_, rest)| rest.split('"').next());
                let Some(kind) = kind else { continue };
                kinds += 1;
                let added = format!("{}.kind={kind}", table.join("."));
                let after = checker.problems(&setting, "meant", &config, &[added]);
                if after.iter().any(|p| key(&p.place) == dotted) {
                    writeln!(bad, "{}: {problem}\n  with kind {kind}: {after:?}", setting.name).unwrap();
                }
            }
        }
        // A name that the user chooses has no right spelling.
        if last.len() > 3 {
            let slip = format!("{last}{}", &last[last.len() - 1..]);
            let mut config = setting.config.clone();
            set(&mut config, &[table, std::slice::from_ref(&slip)].concat(), sample);
            let place = [table, &[slip]].concat().join(".");
            let problems = checker.problems(&setting, "meant", &config, &[]);
            slips += 1;
            let meant = format!("no such key; did you mean `{last}`?");
            if !problems.iter().any(|p| key(&p.place) == place && p.message == meant) {
                writeln!(bad, "{}: {place}: {problems:?}", setting.name).unwrap();
            }
        }
    }
    assert!(bad.is_empty(), "\n{bad}");
    assert!(kinds > 10 && slips > 100, "only {kinds} kinds and {slips} slips");
}
