//! Every config that we ship can be read, says nothing without effect, and is explained by the reference page.

mod settings;

use std::path::{Path, PathBuf};

use antiphon::experiment::Interpreter;
use antiphon::{ExperimentConfig, Loaded};
use antiphon_config::Tree;
use antiphon_lab::sweep::{Meaning, Plan};
use antiphon_model::{StreamModelConfig, Streams};

fn configs(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(configs(&path));
        } else if path.extension().is_some_and(|e| e == "toml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_config_is_valid_and_every_setting_has_an_effect() {
    let all = configs(&root().join("configs"));
    assert!(all.len() >= 5, "{all:?}");
    for config in all {
        match Loaded::read(&config, &[]) {
            Err(error) => panic!("{error}"),
            Ok(loaded) => assert!(loaded.warnings.is_empty(), "{}: {:?}", config.display(), loaded.warnings),
        }
    }
}

/// Its cells are checked as `sweep` checks them; the data need not be there.
#[test]
fn every_sweep_can_begin() {
    let root = root();
    let meaning = Interpreter::new(&root.join("data"));
    let is_sweep = |config: &PathBuf| Loaded::read(config, &[]).unwrap().config.sweep.is_some();
    let all: Vec<PathBuf> = configs(&root.join("configs")).into_iter().filter(is_sweep).collect();
    assert!(!all.is_empty());
    for config in all {
        let plan = Plan::read(&config, &[], &meaning).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(plan.warnings, [], "{}", config.display());
        assert_eq!(plan.runs.len(), plan.cells.len() * plan.config.seeds.len(), "{}", config.display());
    }
}

#[test]
fn a_recipe_that_a_config_names_is_there() {
    for config in configs(&root().join("configs")) {
        let loaded = Loaded::read(&config, &[]).unwrap();
        let recipe = loaded.config.data.recipe().unwrap_or_else(|| panic!("{}: no recipe", config.display()));
        assert!(root().join("recipes").join(recipe).join("recipe.toml").is_file(), "{}: {recipe}", config.display());
    }
}

/// What a run is found by: a setting that is new, and at its default, does not count. A digest that changes makes all runs of a
/// config other experiments; the lines are those of version 0.2.0.
#[test]
fn the_digests_of_all_configs_are_those_of_the_first_runs() {
    let root = root().join("configs");
    let meaning = Interpreter::new(&root.join("data"));
    let line = |config: &PathBuf| {
        let digest = meaning.check(&Tree::load(config, &[]).unwrap()).unwrap().decisive;
        let name = config.strip_prefix(&root).unwrap().display();
        // A sweep is found by the settings of its runs.
        let runs = Loaded::read(config, &[]).unwrap().config.sweep.map(|_| {
            let plan = Plan::read(config, &[], &meaning).unwrap();
            let settings: Vec<_> = plan.runs.iter().map(|run| run.settings.clone()).collect();
            format!("{}  the runs of {name}\n", antiphon_lab::digest_of(&settings.into()))
        });
        format!("{digest}  {name}\n{}", runs.unwrap_or_default())
    };
    let now: String = configs(&root).iter().map(line).collect();
    let golden = root.join("../tests/digests.txt");
    if std::env::var_os("ANTIPHON_WRITE_GOLDEN").is_some() {
        std::fs::write(&golden, &now).unwrap();
    }
    // A config that is new has no line yet.
    let golden = std::fs::read_to_string(golden).unwrap();
    for line in golden.lines() {
        assert!(now.lines().any(|now| now == line), "{line} is no more; now:\n{now}");
    }
    assert_eq!(
        golden.lines().count(),
        now.lines().count(),
        "if a config is new: ANTIPHON_WRITE_GOLDEN=1 cargo xtask test digests"
    );
}

/// Files are read by the paths of parameters: what becomes one of several kinds keeps its own.
#[test]
fn parameters_are_called_what_they_are_called_in_older_files() {
    let text = |model: &str| format!("data = {{ kind = 'text', train = 'a' }}\nmodel = {model}");
    let pairs = |model: &str| format!("data = {{ kind = 'pairs', train = 'a' }}\nmodel = {model}");
    let shipped = |file: &str| std::fs::read_to_string(root().join("configs").join(file)).unwrap();
    let cases = [
        ("g2p/quickstart.toml", shipped("g2p/quickstart.toml")),
        ("bench/joeynmt.toml", shipped("bench/joeynmt.toml")),
        ("translate/article.toml", shipped("translate/article.toml")),
        (
            "a stack",
            pairs(
                "{ encoder = { kind = 'stack', stages = [{ kind = 'gru', bidirectional = false }, { kind = 'lstm' }] } }",
            ),
        ),
        ("heads and coverage", pairs("{ decoder.attention = { kind = 'additive', heads = 4, coverage = true } }")),
        ("heads and locations", pairs("{ decoder.attention = { kind = 'location', heads = 4 } }")),
        ("beside a stream", pairs("{ memories = { kind = 'each' } }")),
        (
            "a stack of every other stage",
            pairs(
                "{ encoder = { kind = 'stack', stages = [{ kind = 'convolution', layers = 2 }, { kind = 'layer_norm' }, \
                 { kind = 'time_reduction' }, { kind = 'projection' }] } }",
            ),
        ),
        (
            "convolutions over bands",
            pairs(
                "{ encoder = { kind = 'stack', stages = [{ kind = 'convolution_2d', channels = 4 }, \
                 { kind = 'convolution_2d', channels = 2, activation = 'gated' }] } }",
            ),
        ),
        ("convolutions", pairs("{ encoder = { kind = 'convolution', layers = 1, positions = 'none' } }")),
        (
            "a language model with a projection",
            text(
                "{ kind = 'language_model', tied = 'output', decoder = { layers = 2, widths = [256, 64], projection = 128 } }",
            ),
        ),
        (
            "recordings, and a loss of the memory's own",
            "data = { kind = 'manifest', train = 'a.tsv' }\nfeatures = { kind = 'given', width = 3 }\n\
             model = { source = { kind = 'frames' }, ctc = {} }"
                .to_owned(),
        ),
        ("a language model", text("{ kind = 'language_model', decoder = { kind = 'lstm', layers = 2 } }")),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut now = String::new();
    let stream = || ("features".to_owned(), StreamModelConfig::default());
    for (name, text) in cases {
        let streams = if name.ends_with("a stream") { vec![stream()] } else { vec![] };
        let file = folder.path().join("a.toml");
        std::fs::write(&file, text).unwrap();
        let config =
            Loaded::read(&file, &["train={replace=true,epochs=1}".into()]).unwrap_or_else(|e| panic!("{e}")).config;
        let has_text = config.data.has_source() && config.data.as_manifest().is_none();
        let sources = if has_text { vec![9; 1 + streams.len()] } else { vec![] };
        let vocabularies = antiphon_model::Vocabularies { sources, target: 9, shared: false };
        let key = antiphon_core::random::Key::from_seed(1);
        let model = config
            .model
            .with_frames(3)
            .init(Streams(&streams), &vocabularies, key, &burn::tensor::Device::flex())
            .unwrap();
        now += &format!("# {name}\n");
        now.extend(
            antiphon_train::save_weights(&model).iter().map(|weight| format!("{} {:?}\n", weight.path, weight.dims)),
        );
    }
    let golden = root().join("tests/paths.txt");
    if std::env::var_os("ANTIPHON_WRITE_GOLDEN").is_some() {
        std::fs::write(&golden, &now).unwrap();
    }
    assert_eq!(now, std::fs::read_to_string(golden).unwrap());
}

/// The article's choices are Keras's, and stay so.
#[test]
fn the_article_is_kerass_model() {
    use antiphon_model::{
        AttentionConfig, BridgeConfig, DecoderConfig, EmbeddingConfig, EncoderConfig, ModelConfig, SourceConfig, Tied,
    };
    let config = Loaded::read(&root().join("configs/translate/article.toml"), &[]).unwrap().config;
    let ModelConfig::EncoderDecoder(model) = &config.model else { panic!("not an encoder-decoder") };
    assert!(matches!(model.source, SourceConfig::OneHot(_)) && matches!(model.target, EmbeddingConfig::OneHot(_)));
    assert_eq!(model.tied, Tied::None);
    assert!(matches!(&model.encoder, EncoderConfig::Lstm(e) if e.hidden == 256 && e.layers == 1 && !e.bidirectional));
    assert!(matches!(model.bridge, BridgeConfig::Copy(_)));
    let DecoderConfig::Lstm(decoder) = &model.decoder else { panic!("not an LSTM") };
    assert!(decoder.hidden == 256 && !decoder.input_feeding && matches!(decoder.attention, AttentionConfig::None(_)));
    let antiphon_train::OptimizerConfig::Rmsprop(optimizer) = &config.train.optimizer else { panic!("not RMSprop") };
    assert_eq!((optimizer.learning_rate, optimizer.rho, optimizer.epsilon), (1e-3, 0.9, 1e-7));
}

#[test]
fn the_reference_page_names_every_section() {
    let page = antiphon_config::reference::<ExperimentConfig>("Settings");
    for key in ["`seed`", "`data`", "`tokenizer`", "`model`", "`batch`", "`train`", "`search`", "`evaluate`"] {
        assert!(page.contains(&format!("| {key} |")), "{key}");
    }
    // Every key is explained: no row ends with an empty cell.
    let unexplained: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| `") && line.ends_with("|  |")).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}

/// The page that people read is the one that the types give.
#[test]
fn the_page_of_settings_is_current() {
    let page = std::fs::read_to_string(root().join("docs/config-reference.md")).unwrap_or_default();
    let current = antiphon_config::reference::<ExperimentConfig>("Settings");
    assert!(page == current, "write it again: cargo xtask reference > docs/config-reference.md");
}
